"""What becomes of errors: handlers, HTTP exceptions, 500, propagation, debug mode."""

from __future__ import annotations

import pytest

from hipflask import Flask, abort, request
from hipflask.debughelpers import DebugFilesKeyError, FormDataRoutingRedirect
from hipflask.werkzeug.exceptions import (
    BadRequest,
    BadRequestKeyError,
    Forbidden,
    HTTPException,
    InternalServerError,
    NotFound,
)


class Mine(Exception):
    pass


class Child(Mine):
    pass


def raising(app, error):
    @app.route("/")
    def view():
        raise error


HANDLERS = [
    pytest.param(Mine(), [(Mine, "mine")], "mine", id="class"),
    pytest.param(Child(), [(Mine, "mine")], "mine", id="base-class"),
    pytest.param(Child(), [(Mine, "mine"), (Child, "child")], "child", id="nearest-class"),
    pytest.param(Child(), [(Exception, "any")], "any", id="any-exception"),
    pytest.param(Forbidden(), [(403, "code")], "code", id="code"),
    pytest.param(Forbidden(), [(Forbidden, "class")], "class", id="http-class"),
    pytest.param(Forbidden(), [(HTTPException, "http")], "http", id="http-base"),
    pytest.param(Forbidden(), [(Exception, "any")], "any", id="http-as-any"),
    pytest.param(Forbidden(), [(HTTPException, "http"), (403, "code")], "code", id="code-before-base"),
    pytest.param(BadRequestKeyError(), [(400, "code")], "code", id="subclass-by-code"),
    pytest.param(BadRequestKeyError(), [(BadRequest, "class")], "class", id="subclass-by-base"),
    pytest.param(Mine(), [(500, "500")], "500", id="unhandled-to-500"),
    pytest.param(Mine(), [(InternalServerError, "500")], "500", id="unhandled-to-InternalServerError"),
    pytest.param(Mine(), [(500, "500"), (Mine, "mine")], "mine", id="class-before-500"),
    pytest.param(InternalServerError(), [(500, "500")], "500", id="500-raised"),
]


@pytest.mark.parametrize(("error", "handlers", "text"), HANDLERS)
def test_the_nearest_handler_answers(app, client, error, handlers, text):
    raising(app, error)
    for key, answer in handlers:
        app.register_error_handler(key, lambda e, answer=answer: (answer, 418))
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (418, text)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 409, 410, 413, 415, 418, 422, 429, 500, 501, 503])
def test_abort_gives_its_page(app, client, code):
    @app.route("/")
    def view():
        abort(code, description="The reason.")

    answer = client.get("/")
    assert answer.status_code == code
    assert "<p>The reason.</p>" in answer.text
    assert answer.header("Content-Type") == "text/html; charset=utf-8"


def test_unknown_paths_and_methods(app, client):
    app.add_url_rule("/x", "x", lambda: "x", methods=["POST"])
    assert client.get("/nothing").status_code == 404
    answer = client.get("/x")
    assert answer.status_code == 405
    assert sorted(answer.header("Allow").split(", ")) == ["OPTIONS", "POST"]


def test_handlers_of_routing_errors(app, client):
    app.add_url_rule("/x/", "x", lambda: "x", methods=["POST", "GET"])
    app.register_error_handler(404, lambda e: ("gone", 404))
    app.register_error_handler(405, lambda e: (f"not {request.method}", 405))
    app.register_error_handler(HTTPException, lambda e: ("never for redirects", 418))
    assert client.get("/nothing").text == "gone"
    assert client.open("/x/", "PUT").text == "not PUT"
    answer = client.get("/x")
    assert (answer.status_code, answer.header("Location")) == (308, "http://localhost/x/")


def test_an_unhandled_error_is_logged_and_shown_to_nobody(app, client, caplog):
    raising(app, Mine("the secret"))
    answer = client.get("/?q=1")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "<h1>Internal Server Error</h1>" in answer.text
    (record,) = caplog.records
    assert record.getMessage() == "Exception on / [GET]"
    assert isinstance(record.exc_info[1], Mine)


def test_the_500_handler_gets_the_original_error(app, client):
    error = Mine()
    raising(app, error)
    seen = []

    @app.errorhandler(500)
    def handler(e):
        seen.append(e)
        return "failed", 500

    client.get("/")
    assert isinstance(seen[0], InternalServerError)
    assert seen[0].original_exception is error


def test_an_error_in_a_handler_is_a_500(app, client):
    raising(app, Mine())

    @app.errorhandler(Mine)
    def handler(e):
        raise ZeroDivisionError

    assert client.get("/").status_code == 500


def test_a_hook_that_fails_for_an_error_page_is_logged_only(app, client, caplog):
    raising(app, Mine())

    @app.after_request
    def hook(response):
        raise ZeroDivisionError

    assert client.get("/").status_code == 500
    assert "Request finalizing failed with an error while handling an error" in caplog.text


@pytest.mark.parametrize("where", ["before", "view", "after"])
def test_an_error_anywhere_is_handled_and_torn_down(app, client, where):
    ended = []
    app.teardown_request(ended.append)

    def fail(response=None):
        raise Mine

    if where == "before":
        app.before_request(fail)
    if where == "after":
        app.after_request(fail)
    app.add_url_rule("/", "view", fail if where == "view" else lambda: "x")
    assert client.get("/").status_code == 500
    assert [type(exc) for exc in ended] == [Mine]


def test_teardown_gets_no_error_that_was_handled(app, client):
    ended = []
    app.teardown_request(ended.append)
    raising(app, Mine())
    app.register_error_handler(Mine, lambda e: "handled")
    assert client.get("/").text == "handled"
    assert ended == [None]


def test_an_app_can_spare_teardown_functions_an_error():
    class Lenient(Flask):
        def should_ignore_error(self, error):
            return isinstance(error, Mine)

    app = Lenient("lenient")
    ended = []
    app.teardown_request(ended.append)
    raising(app, Mine())
    assert app.test_client().get("/").status_code == 500
    assert ended == [None]


@pytest.mark.parametrize(
    ("config", "propagates"),
    [
        ({}, False),
        ({"TESTING": True}, True),
        ({"DEBUG": True}, True),
        ({"PROPAGATE_EXCEPTIONS": True}, True),
        ({"PROPAGATE_EXCEPTIONS": False, "TESTING": True}, False),
    ],
)
def test_when_errors_propagate(app, config, propagates):
    app.config.update(config)
    raising(app, Mine("reason"))
    client = app.test_client()
    if propagates:
        with pytest.raises(Mine, match="reason"):
            client.get("/")
    else:
        assert client.get("/").status_code == 500


@pytest.mark.parametrize(
    ("config", "trapped"),
    [
        ({}, set()),
        ({"TRAP_HTTP_EXCEPTIONS": True}, {"key", "bad", "http"}),
        ({"TRAP_BAD_REQUEST_ERRORS": True}, {"key", "bad"}),
        ({"DEBUG": True}, {"key"}),
        ({"DEBUG": True, "TRAP_BAD_REQUEST_ERRORS": False}, set()),
    ],
)
def test_which_http_errors_are_trapped(app, config, trapped):
    app.config.update(config)
    errors = {"key": BadRequestKeyError("x"), "bad": BadRequest(), "http": NotFound()}
    assert {name for name, error in errors.items() if app.trap_http_exception(error)} == trapped


def test_a_missing_key_is_named_in_debug_mode_only(app, client):
    app.add_url_rule("/", "view", lambda: request.form["missing"], methods=["POST"])
    app.config["TRAP_BAD_REQUEST_ERRORS"] = False
    answer = client.post("/", data={"x": "1"})
    assert answer.status_code == 400
    assert "missing" not in answer.text
    app.debug = True
    assert "KeyError: &#39;missing&#39;" in client.post("/", data={"x": "1"}).text


def test_debug_mode_explains_a_form_that_sends_no_files(app):
    app.debug = app.testing = True
    app.add_url_rule("/", "view", lambda: request.files["file"], methods=["POST"])
    with pytest.raises(DebugFilesKeyError, match="no file contents were transmitted") as caught:
        app.test_client().post("/", data={"file": "name.txt"})
    assert "This was submitted: 'name.txt'" in str(caught.value)


def test_debug_mode_explains_a_redirect_that_loses_a_form(app):
    app.debug = app.testing = True
    app.add_url_rule("/form/", "view", lambda: "x", methods=["POST"], redirect_to=None)
    # Redirects for slashes keep the method (308), so only others can lose the form.
    with app.test_request_context("/form", method="POST"):
        error = request.routing_exception
        error.code = 301
        with pytest.raises(FormDataRoutingRedirect, match="The URL was defined with a trailing slash"):
            app.raise_routing_exception(request)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (Mine(), TypeError, "is an instance, not a class"),
        (NotFound(), TypeError, "is an instance, not a class"),
        (object, ValueError, "'object' is not a subclass of Exception"),
        (BaseException, ValueError, "'BaseException' is not a subclass of Exception"),
        (999, ValueError, "'999' is not a recognized HTTP error code"),
    ],
)
def test_handlers_are_for_exception_classes_and_codes(app, key, error, message):
    with pytest.raises(error, match=message):
        app.register_error_handler(key, lambda e: "")


def test_an_exception_that_carries_a_response_is_that_response(app, client):
    @app.route("/")
    def view():
        abort(app.response_class("carried", 402))

    app.register_error_handler(HTTPException, lambda e: "never")
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (402, "carried")


def test_errors_of_the_installed_werkzeug_are_understood(app, client):
    theirs = pytest.importorskip("werkzeug.exceptions")
    if theirs.HTTPException is HTTPException:
        pytest.skip("the alias is installed")
    raising(app, theirs.Forbidden("Their reason."))
    answer = client.get("/")
    assert (answer.status_code, "Their reason." in answer.text) == (403, True)
    app._got_first_request = False
    app.register_error_handler(403, lambda e: (e.description, 403))
    assert client.get("/").text == "Their reason."
    app._got_first_request = False
    app.register_error_handler(theirs.Forbidden, lambda e: ("theirs", 403))
    assert client.get("/").text == "theirs"


def test_base_exceptions_pass(app):
    class Stop(BaseException):
        pass

    ended = []
    app.teardown_request(ended.append)
    raising(app, Stop())
    with pytest.raises(Stop):
        app.test_client().get("/")
    assert isinstance(ended[0], Stop)
