"""Contexts: the native frame and its two slots, app and request contexts, and what is bound in them."""

from __future__ import annotations

import gc
import threading
import weakref
from contextvars import copy_context

import pytest

import hipflask
from hipflask import (
    after_this_request,
    copy_current_request_context,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    session,
)
from hipflask._core import _request_from_wire, pop_bare, push_bare
from hipflask.ctx import AppContext, RequestContext
from hipflask.globals import _cv_app, _cv_request, app_ctx, request_ctx
from hipflask.werkzeug.exceptions import BadRequest
from hipflask.werkzeug.test import EnvironBuilder


@pytest.fixture
def bare(app):
    """The app bound as the engine's fast lane does it: without Python context objects."""
    environ = EnvironBuilder(path="/page?x=1").get_environ()
    frame, token = push_bare(app, app.request_class(environ))
    yield frame
    pop_bare(token)


def test_outside_of_any_context_nothing_is_bound():
    assert not has_app_context()
    assert not has_request_context()
    for proxy in (current_app, g, app_ctx, request, session, request_ctx):
        assert not proxy
        with pytest.raises(RuntimeError, match="^Working outside of (application|request) context."):
            proxy.name  # noqa: B018


class TestSlots:
    """`_cv_app` and `_cv_request` look like two independent context variables."""

    def test_a_slot_has_the_interface_of_a_context_variable(self):
        assert _cv_app.name == "flask.app_ctx"
        assert _cv_request.name == "flask.request_ctx"
        assert "flask.app_ctx" in repr(_cv_app)
        with pytest.raises(LookupError):
            _cv_app.get()
        assert _cv_app.get(None) is None
        assert _cv_app.get(3) == 3
        with pytest.raises(TypeError):
            _cv_app.get(1, 2)

    def test_setting_one_leaves_the_other(self):
        first = _cv_app.set("app")
        second = _cv_request.set("request")
        assert (_cv_app.get(), _cv_request.get()) == ("app", "request")
        _cv_app.reset(first)
        assert (_cv_app.get(None), _cv_request.get()) == (None, "request")
        _cv_request.reset(second)
        assert (_cv_app.get(None), _cv_request.get(None)) == (None, None)

    def test_resets_in_order_restore_each_value(self):
        first = _cv_app.set(1)
        second = _cv_app.set(2)
        _cv_app.reset(second)
        assert _cv_app.get() == 1
        _cv_app.reset(first)
        assert not _cv_app.bound()

    def test_a_token_is_good_once_and_for_its_own_slot(self):
        token = _cv_app.set(1)
        with pytest.raises(ValueError, match="different variable"):
            _cv_request.reset(token)
        _cv_app.reset(token)
        with pytest.raises(RuntimeError, match="already been used"):
            _cv_app.reset(token)

    def test_a_token_is_refused_in_another_context(self):
        token = _cv_app.set(1)
        with pytest.raises(ValueError, match="different Context"):
            copy_context().run(_cv_app.reset, token)
        _cv_app.reset(token)

    def test_a_copied_context_keeps_its_values(self):
        token = _cv_app.set("value")
        kept = copy_context()
        _cv_app.reset(token)
        assert kept.run(_cv_app.get) == "value"


class TestBareFrame:
    def test_the_proxies_find_its_objects(self, app, bare):
        assert has_app_context()
        assert has_request_context()
        assert current_app._get_current_object() is app
        assert request._get_current_object() is bare.request
        assert request.path == "/page"
        assert bare.app is app
        assert bare.owns_app_context

    def test_the_session_is_opened_by_the_first_look_at_it(self, bare):
        assert bare.session is None
        assert request.args["x"] == "1"
        assert bare.session is None
        session["seen"] = True
        assert bare.session["seen"]
        assert bare.session.accessed

    def test_a_session_opened_for_saving_is_not_accessed(self, bare):
        assert not bare.open_session().accessed
        assert bare.session is bare.open_session()

    def test_the_context_objects_share_what_the_frame_holds(self, app, bare):
        g.user = "before"
        session["a"] = 1
        assert app_ctx.g is g._get_current_object()
        assert app_ctx.app is app
        assert request_ctx.request is bare.request
        assert request_ctx.session is bare.session
        app_ctx.g.user = "after"
        assert g.user == "after"
        assert isinstance(_cv_request.get(), RequestContext)
        assert isinstance(_cv_app.get(), AppContext)
        assert _cv_request.get() is _cv_request.get()

    def test_a_session_assigned_to_the_context_object_counts(self, app, bare):
        mine = app.session_interface.session_class()
        request_ctx._session = mine
        assert session._get_current_object() is mine
        assert bare.session is mine

    def test_the_url_adapter_is_made_when_needed(self, app, bare):
        app.add_url_rule("/x", endpoint="x")
        assert hipflask.url_for("x") == "/x"
        assert app_ctx.url_adapter is None

    def test_urls_are_built_without_an_environment(self, app):
        app.add_url_rule("/item/<int:id>", "item")
        head = b"GET /a%20b?x=1 HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n"
        engines = _request_from_wire(app.request_class, head)
        _, token = push_bare(app, engines)
        assert hipflask.url_for("item", id=3) == "/item/3"
        assert hipflask.url_for("item", id=3, _external=True) == "http://shop.example:8080/item/3"
        assert not engines._has_environ
        made = request_ctx.url_adapter
        others = app.url_map.bind_to_environ(request.environ, subdomain="")
        for name in (
            "server_name",
            "script_name",
            "subdomain",
            "url_scheme",
            "path_info",
            "default_method",
            "query_args",
        ):
            assert getattr(made, name) == getattr(others, name)
        pop_bare(token)

    def test_an_app_context_of_the_same_app_is_shared(self, app):
        with app.app_context():
            g.outer = True
            frame, token = push_bare(app, app.request_class({}))
            assert not frame.owns_app_context
            assert g.outer
            pop_bare(token)
            assert g.outer
            assert not has_request_context()

    def test_a_bare_frame_inside_another_shares_its_namespace(self, app, bare):
        frame, token = push_bare(app, app.request_class({}))
        g.inner = 1
        assert not frame.owns_app_context
        pop_bare(token)
        assert g.inner == 1

    def test_another_app_gets_its_own(self, app, bare):
        other = hipflask.Flask("other")
        g.x = 1
        with other.app_context():
            assert current_app == other
            assert request.path == "/page"
            assert "x" not in g
        assert g.x == 1

    def test_finishing_runs_teardown_functions(self, app, bare):
        order = []
        app.teardown_request(lambda exc: order.append(("request", exc)))
        app.teardown_appcontext(lambda exc: order.append(("app", exc)))
        _cv_request.get()._finish(None)
        assert order == [("request", None), ("app", None)]

    def test_hooks_for_this_request_are_kept_on_the_context(self, bare):
        @after_this_request
        def hook(response):
            return response

        assert _cv_request.get()._after_request_functions == [hook]

    def test_a_frame_with_context_objects_is_collected(self, app):
        frame, token = push_bare(app, app.request_class({}))
        context = weakref.ref(_cv_request.get())
        pop_bare(token)
        del frame
        gc.collect()
        assert context() is None


class TestAppContext:
    def test_teardown_runs_once_when_the_last_push_is_undone(self, app):
        ended = []
        app.teardown_appcontext(ended.append)
        context = app.app_context()
        context.push()
        context.push()
        context.pop()
        assert ended == []
        context.pop()
        assert ended == [None]

    def test_teardown_gets_the_error(self, app):
        ended = []
        app.teardown_appcontext(ended.append)
        error = ValueError("reason")
        with pytest.raises(ValueError, match="reason"), app.app_context():
            raise error
        assert ended == [error]

    def test_teardown_functions_run_last_first(self, app):
        order = []
        app.teardown_appcontext(lambda exc: order.append(1))
        app.teardown_appcontext(lambda exc: order.append(2))
        with app.app_context():
            pass
        assert order == [2, 1]

    def test_popping_the_wrong_context_is_an_error(self, app):
        def wrong():
            outer, inner = app.app_context(), app.app_context()
            outer.push()
            inner.push()
            outer.pop()

        with pytest.raises(AssertionError, match="Popped wrong app context"):
            copy_context().run(wrong)

    def test_the_namespace(self, app):
        with app.app_context():
            assert list(g) == []
            g.a = 1
            assert "a" in g
            assert g.get("a") == 1
            assert g.get("b") is None
            assert g.get("b", 2) == 2
            assert g.setdefault("c", 3) == 3
            assert g.pop("c") == 3
            assert g.pop("c", None) is None
            with pytest.raises(KeyError):
                g.pop("c")
            with pytest.raises(AttributeError):
                g.nothing  # noqa: B018
            with pytest.raises(AttributeError):
                del g.nothing
            assert list(g) == ["a"]
            assert repr(g) == "<flask.g of 'test_app'>"

    def test_a_custom_namespace_class(self, app):
        class Globals:
            colour = "red"

        app.app_ctx_globals_class = Globals
        with app.app_context():
            assert g.colour == "red"


class TestRequestContext:
    def test_it_pushes_an_app_context_unless_there_is_one(self, app):
        with app.app_context():
            outer = _cv_app.get()
            with app.test_request_context():
                assert _cv_app.get() is outer
            assert _cv_app.get() is outer
        with app.test_request_context():
            assert has_app_context()
        assert not has_app_context()

    def test_requests_nest(self, app):
        with app.test_request_context("/outer"):
            with app.test_request_context("/inner"):
                assert request.path == "/inner"
            assert request.path == "/outer"

    def test_the_session_is_not_there_before_the_push(self, app):
        context = app.test_request_context()
        with pytest.raises(AssertionError, match="has not yet been opened"):
            context.session  # noqa: B018
        with context:
            assert not session
            assert context._session.accessed

    def test_it_shows_its_request(self, app):
        context = app.test_request_context("/x", method="POST")
        assert repr(context) == "<RequestContext 'http://localhost/x' [POST] of test_app>"

    def test_a_bad_host_is_a_routing_error(self, app):
        app.config["TRUSTED_HOSTS"] = ["good.example"]
        with app.test_request_context(base_url="http://bad.example"):
            assert isinstance(request.routing_exception, BadRequest)

    def test_popping_closes_the_request_and_clears_the_environment(self, app):
        context = app.test_request_context()
        closed = []
        context.push()
        context.request.close = lambda: closed.append(True)
        environ = context.request.environ
        context.pop()
        assert closed == [True]
        assert environ["werkzeug.request"] is None

    def test_popping_the_wrong_context_is_an_error(self, app):
        def wrong():
            outer, inner = app.test_request_context(), app.test_request_context()
            outer.push()
            inner.push()
            outer.pop()

        with pytest.raises(AssertionError, match="Popped wrong request context"):
            copy_context().run(wrong)

    def test_a_copied_context_carries_request_and_session_to_a_thread(self, app):
        results = []

        def work():
            results.append((request.path, session["n"], current_app.name))

        with app.test_request_context("/thread"):
            session["n"] = 5
            thread = threading.Thread(target=copy_current_request_context(work))
            thread.start()
            thread.join()
        assert results == [("/thread", 5, "test_app")]

    def test_threads_do_not_see_the_context_by_themselves(self, app):
        results = []
        with app.test_request_context():
            thread = threading.Thread(target=lambda: results.append(has_request_context()))
            thread.start()
            thread.join()
            copied = copy_context()
            thread = threading.Thread(target=lambda: results.append(copied.run(has_request_context)))
            thread.start()
            thread.join()
        assert results == [False, True]

    @pytest.mark.parametrize("function", [after_this_request, copy_current_request_context])
    def test_helpers_for_a_request_say_so_outside(self, function):
        with pytest.raises(RuntimeError, match=f"'{function.__name__}' can only be used when a request"):
            function(lambda: None)

    def test_custom_converters_see_the_session(self, app):
        from hipflask.werkzeug.routing import BaseConverter

        class Own(BaseConverter):
            def to_python(self, value):
                return session.get("name", "nobody")

        app.url_map.converters["own"] = Own
        app.add_url_rule("/<own:who>", endpoint="x", view_func=lambda who: who)
        with app.test_request_context("/me"):
            assert request.view_args == {"who": "nobody"}


def test_what_a_request_leaves_behind_is_collected(app):
    class Thing:
        pass

    things = []

    @app.route("/")
    def index():
        g.thing = Thing()
        things.append(weakref.ref(g.thing))
        return "ok"

    app.test_client().get("/")
    gc.collect()
    assert things[0]() is None
