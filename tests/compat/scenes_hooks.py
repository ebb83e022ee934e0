"""Scenes of hooks, signals, teardown and contexts: what is called, in which order, with what."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stage import Kit, ask, scene

NAMES = ["before_request", "after_request", "teardown_request"]


def hooked(kit: Kit, target: Any, name: str) -> None:
    """Register all kinds of hooks on an app or blueprint, twice each; they note their calls."""

    for number in (1, 2):
        target.before_request(kit.noting(f"{name} before {number}"))

        def after(response: Any, number: int = number) -> Any:
            kit.note(f"{name} after {number}", response.status)
            response.headers.add("X-After", f"{name} {number}")
            return response

        def teardown(error: Any, number: int = number) -> None:
            kit.note(f"{name} teardown {number}", repr(error))

        target.after_request(after)
        target.teardown_request(teardown)


def listening(kit: Kit, app: Any) -> list[Any]:
    """Note every signal. The receivers must be kept."""
    signals = kit.module("flask.signals")
    kept = []
    for name in (
        "appcontext_pushed",
        "request_started",
        "request_finished",
        "got_request_exception",
        "request_tearing_down",
        "appcontext_tearing_down",
        "appcontext_popped",
        "template_rendered",
        "before_render_template",
        "message_flashed",
    ):

        def receiver(sender: Any, name: str = name, **extra: Any) -> None:
            told = {key: repr(value) if key in {"exc", "exception"} else key for key, value in extra.items()}
            told.pop("_async_wrapper", None)
            kit.note("signal", name, sender is app, sorted(told.items()))

        getattr(signals, name).connect(receiver, app)
        kept.append(receiver)
    app.extensions["receivers"] = kept
    return kept


def family(kit: Kit) -> Any:
    """An app with blueprints inside blueprints, all with hooks, and views that work and fail."""
    app = kit.app()
    app.teardown_appcontext(lambda error: kit.note("appcontext 1", repr(error)))
    app.teardown_appcontext(lambda error: kit.note("appcontext 2", repr(error)))
    outer, inner = kit.flask.Blueprint("outer", kit.name), kit.flask.Blueprint("inner", kit.name)
    for target, name in ((app, "app"), (outer, "outer"), (inner, "inner")):
        hooked(kit, target, name)
        target.add_url_rule("/", "index", lambda: "index")
        target.add_url_rule("/raises", "raises", lambda: 1 / 0)
        target.add_url_rule("/aborts", "aborts", lambda: kit.flask.abort(418))
        target.add_url_rule("/none", "none", lambda: None)
    outer.before_app_request(kit.noting("before app"))
    outer.teardown_app_request(lambda error: kit.note("teardown app", repr(error)))
    outer.after_app_request(lambda response: kit.note("after app") or response)
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    return app


PATHS = [
    f"{prefix}/{path}"
    for prefix in ("", "/outer", "/outer/inner")
    for path in ("", "raises", "aborts", "none")
]


@scene(*PATHS, "/nothing", "POST /", "HEAD /", "OPTIONS /", "/outer")
def hooks_of_apps_and_blueprints(kit: Kit) -> Any:
    return family(kit)


@scene(*PATHS, "/nothing", "POST /", "/outer")
def hooks_with_signals(kit: Kit) -> Any:
    app = family(kit)
    listening(kit, app)
    return app


@scene("/", "/outer/", "/nothing", "POST /")
def before_request_answers(kit: Kit) -> Any:
    app = kit.app()
    answers = {"/": ("early", 202), "/nothing": {"early": True}}
    app.before_request(lambda: answers.get(kit.flask.request.path))
    outer = kit.flask.Blueprint("outer", kit.name, url_prefix="/outer")
    hooked(kit, app, "app")
    hooked(kit, outer, "outer")
    app.add_url_rule("/", "index", kit.noting("view", "late"))
    outer.add_url_rule("/", "index", kit.noting("outer view", "outer"))
    outer.before_request(lambda: "from outer")
    app.register_blueprint(outer)
    return app


WHERE = [
    "preprocessor",
    "before",
    "view",
    "after",
    "teardown",
    "appcontext",
    "started",
    "finished",
    "tearing_down",
    "handler",
    "closed",
    "response",
]
KINDS = ["plain", "http"]


@scene(
    "/",
    "/bp/",
    "/nothing",
    "/",
    each=[(where, kind, bare) for where in WHERE for kind in KINDS for bare in (0, 1)],
)
def raised_everywhere(kit: Kit, how: Any) -> Any:
    where, kind, bare = how
    app = kit.app()

    def fail(*args: Any, **kwargs: Any) -> Any:
        kit.note("fails in", where)
        if kind == "http":
            kit.flask.abort(409)
        raise LookupError("on purpose")

    if not bare:
        hooked(kit, app, "app")
    app.add_url_rule("/", "index", fail if where in {"view", "handler"} else kit.noting("view", "fine"))
    blueprint = kit.flask.Blueprint("bp", kit.name, url_prefix="/bp")
    target = blueprint
    target.add_url_rule("/", "index", fail if where in {"view", "handler"} else kit.noting("view", "fine"))
    signals = kit.module("flask.signals")
    if where == "preprocessor":
        target.url_value_preprocessor(fail)
    if where == "before":
        target.before_request(fail)
    if where == "after":
        target.after_request(fail)
    if where == "teardown":
        target.teardown_request(fail)
        app.teardown_request(fail)
    if where == "appcontext":
        app.teardown_appcontext(fail)
    if where == "handler":
        app.register_error_handler(LookupError, fail)
        app.register_error_handler(409, fail)
    if where in {"started", "finished", "tearing_down"}:
        getattr(signals, f"request_{where}").connect(fail, app)
        app.extensions["kept"] = fail
    if where == "closed":

        @app.after_request
        def closing(response: Any) -> Any:
            response.call_on_close(fail)
            return response

    if where == "response":

        class Breaking(kit.flask.Response):
            def get_wsgi_headers(self, environ: Any) -> Any:
                return fail()

        app.response_class = Breaking
    if not bare:
        hooked(kit, blueprint, "bp")
        app.teardown_appcontext(lambda error: kit.note("appcontext", repr(error)))
        app.register_error_handler(500, lambda error: (f"500 {error.original_exception!r}", 500))
    app.register_blueprint(blueprint)
    return app


@scene("/", "/raises", "/twice", "/stream", "/late")
def after_this_request(kit: Kit) -> Any:
    app = kit.app()
    flask = kit.flask

    def adding(text: str) -> Any:
        def after(response: Any) -> Any:
            kit.note("after this", text)
            response.headers.add("X-After", text)
            return response

        return after

    hooked(kit, app, "app")

    @app.route("/")
    def index() -> str:
        flask.after_this_request(adding("one"))
        return "index"

    @app.route("/raises")
    def raises() -> str:
        flask.after_this_request(adding("one"))
        raise LookupError

    @app.route("/twice")
    def twice() -> str:
        flask.after_this_request(adding("one"))
        flask.after_this_request(adding("two"))
        return "twice"

    @app.route("/late")
    def late() -> str:
        @flask.after_this_request
        def again(response: Any) -> Any:
            flask.after_this_request(adding("from after"))
            return response

        return "late"

    @app.route("/stream")
    def stream() -> Any:
        flask.after_this_request(adding("stream"))
        return flask.Response(iter(["a", "b"]))

    return app


@scene(
    "/", "/list", "/stream", "/context", "/decorated", "/raises-at-once", "HEAD /stream", "HEAD /", "/file"
)
def closing(kit: Kit) -> Any:
    app = kit.app()
    flask = kit.flask
    hooked(kit, app, "app")
    listening(kit, app)
    app.teardown_appcontext(lambda error: kit.note("appcontext", repr(error)))

    @app.after_request
    def noted(response: Any) -> Any:
        response.call_on_close(lambda: kit.note("closed", flask.has_request_context()))
        return response

    def pieces(*texts: str) -> Any:
        try:
            for text in texts:
                kit.note("piece", text, flask.has_request_context())
                yield text
        finally:
            kit.note("generator ends")

    app.add_url_rule("/", "index", lambda: "index")
    app.add_url_rule("/list", "list", lambda: flask.Response(["a", b"b", "c"]))
    app.add_url_rule("/stream", "stream", lambda: flask.Response(pieces("a", "", "b")))
    app.add_url_rule(
        "/context", "context", lambda: flask.Response(flask.stream_with_context(pieces("a", "b")))
    )
    app.add_url_rule("/file", "file", lambda: flask.send_file("static/style.css"))

    @app.route("/decorated")
    def decorated() -> Any:
        @flask.stream_with_context
        def generate() -> Any:
            yield flask.request.path
            yield from pieces("x")

        return flask.Response(generate())

    @app.route("/raises-at-once")
    def at_once() -> Any:
        flask.g.x = 1
        return "fine"

    return app


@scene(
    "/a",
    "/b?x=1",
    "/session",
    "/g",
    "/nested",
    "/thread",
    "/pool",
    "/copied-request",
    "/outside",
    "/scripts",
    "/preserved",
)
def contexts(kit: Kit) -> Any:
    app = kit.app()
    flask = kit.flask
    request, g, session = flask.request, flask.g, flask.session
    other = flask.Flask("other", root_path=app.root_path)
    other.secret_key = "other"
    app.teardown_appcontext(lambda error: kit.note("appcontext of", g.get("mark"), repr(error)))
    other.teardown_appcontext(lambda error: kit.note("other appcontext", g.get("mark"), repr(error)))

    @app.route("/a")
    @app.route("/b")
    def plain() -> Any:
        context = flask.globals.request_ctx._get_current_object()
        return {
            "same": context.request is request._get_current_object(),
            "session": context.session is session._get_current_object(),
            "app": flask.globals.app_ctx.app is app,
            "g": flask.globals.app_ctx.g is g._get_current_object(),
            "url": flask.url_for("plain", x=request.args.get("x")),
            "has": [flask.has_request_context(), flask.has_app_context()],
            "repr": type(context).__name__,
            "proxy": [bool(request), bool(g), bool(session), isinstance(request, flask.Request)],
        }

    @app.route("/session")
    def sessions() -> Any:
        session["n"] = 1
        with app.test_request_context("/inner"):
            inner = dict(session)
        return {"inner": inner, "outer": dict(session)}

    @app.route("/g")
    def globals_() -> Any:
        g.mark = "outer"
        with app.app_context():
            inner = g.get("mark", "none")
            g.mark = "inner"
        with app.test_request_context("/x"):
            shared = g.get("mark", "none")
        missing = g.pop("missing", "default")
        return {
            "inner": inner,
            "shared": shared,
            "outer": g.mark,
            "in": "mark" in g,
            "all": sorted(g),
            "popped": missing,
            "default": g.setdefault("more", 5),
        }

    @app.route("/nested")
    def nested() -> Any:
        g.mark = "nested"
        seen = [request.path]
        with other.test_request_context("/of-other", method="POST"):
            seen += [request.path, request.method, flask.current_app.name, g.get("mark", "none")]
            with app.test_request_context("/deep"):
                seen += [request.path, flask.current_app.name, g.get("mark", "none")]
            seen += [request.path]
        return [*seen, request.path, flask.current_app.name, g.mark]

    @app.route("/thread")
    def thread() -> Any:
        found: list[Any] = []
        session["before"] = True

        def bare() -> None:
            found.append(flask.has_request_context())
            try:
                request.path  # noqa: B018
            except RuntimeError as error:
                found.append(str(error).splitlines()[0])

        @flask.copy_current_request_context
        def copied(word: str) -> None:
            found.append(
                [word, request.path, session["before"], flask.current_app.name, g.get("mark", "none")]
            )

        g.mark = "in view"
        for target, arguments in ((bare, ()), (copied, ("word",))):
            worker = threading.Thread(target=target, args=arguments)
            worker.start()
            worker.join()
        return {"found": found, "g": g.mark}

    @app.route("/pool")
    def pool() -> Any:
        session["user"] = "u"

        def job(number: int) -> Any:
            return [number, request.path, session["user"], flask.url_for("pool")]

        with ThreadPoolExecutor(3) as executor:
            jobs = [executor.submit(flask.copy_current_request_context(job), number) for number in range(6)]
            return [made.result() for made in jobs]

    @app.route("/copied-request")
    def copied_request() -> Any:
        copied = copy.copy(request._get_current_object())
        copied.mark = 1
        return {
            "path": copied.path,
            "args": copied.args.to_dict(),
            "type": type(copied) is flask.Request,
            "own": not hasattr(request, "mark"),
            "endpoint": copied.endpoint,
            "headers": "Host" in copied.headers,
        }

    @app.route("/outside")
    def outside() -> Any:
        found = {}
        context = copy_of_context()
        for name in ("request", "session", "g", "current_app"):
            try:
                found[name] = str(context.run(lambda name=name: getattr(flask, name)._get_current_object()))
            except RuntimeError as error:
                found[name] = str(error).splitlines()[0]
        return found

    def copy_of_context() -> Any:
        from contextvars import Context

        return Context()

    @app.route("/scripts")
    def scripts() -> Any:
        def run() -> Any:
            with other.app_context():
                other.config["SERVER_NAME"] = "other.org"
                g.mark = "script"
                return [
                    flask.current_app.name,
                    flask.has_request_context(),
                    flask.url_for("static", filename="x"),
                ]

        return copy_of_context().run(run)

    @app.route("/preserved")
    def preserved() -> Any:
        with app.test_client() as client:
            first = client.get("/a?x=1")
            inside = [request.path, first.status]
            client.get("/b?x=2")
            inside.append(request.args["x"])
        return [*inside, request.path]

    return app


@scene("/", "/error", "/handled", "/hooks", "/nothing", "/generator", "/template", "/class")
def async_views(kit: Kit) -> Any:
    app = kit.app()
    flask = kit.flask

    @app.before_request
    async def before() -> None:
        kit.note("before", flask.request.path)

    @app.after_request
    async def after(response: Any) -> Any:
        kit.note("after", response.status)
        return response

    @app.teardown_request
    async def teardown(error: Any) -> None:
        kit.note("teardown", repr(error))

    @app.teardown_appcontext
    async def popped(error: Any) -> None:
        kit.note("appcontext", repr(error))

    @app.errorhandler(LookupError)
    async def handled(error: Exception) -> Any:
        return f"handled {error}", 404

    @app.context_processor
    def more() -> Any:
        return {"more": "more"}

    @app.route("/")
    async def index() -> Any:
        import asyncio

        await asyncio.sleep(0)
        flask.session["seen"] = True
        return {"path": flask.request.path, "url": flask.url_for("index")}

    @app.route("/error")
    async def error() -> Any:
        raise ZeroDivisionError("async")

    @app.route("/handled")
    async def raising() -> Any:
        raise LookupError("here")

    @app.route("/hooks")
    async def after_this() -> Any:
        @flask.after_this_request
        async def add(response: Any) -> Any:
            response.headers["X-Added"] = "yes"
            return response

        return "hooks"

    @app.route("/generator")
    async def generator() -> Any:
        return flask.Response(flask.stream_with_context(iter(["a", "b"])))

    @app.route("/template")
    async def template() -> str:
        return flask.render_template_string("{{ more }} {{ request.path }}")

    class View(kit.module("flask.views").MethodView):
        async def get(self) -> str:
            return "class"

    app.add_url_rule("/class", view_func=View.as_view("class"))
    return app


@scene("/1", "/2", ask("/1", headers={"X-Who": "me"}))
def overridden_methods(kit: Kit) -> Any:
    Flask, Request, Response = kit.flask.Flask, kit.flask.Request, kit.flask.Response

    class Asked(Request):
        @property
        def who(self) -> str:
            return self.headers.get("X-Who", "nobody")

    class Answered(Response):
        default_mimetype = "text/plain"

    class App(Flask):
        request_class = Asked
        response_class = Answered

        def preprocess_request(self) -> Any:
            kit.note("preprocess")
            return super().preprocess_request()

        def process_response(self, response: Any) -> Any:
            kit.note("process", response.status)
            return super().process_response(response)

        def make_response(self, value: Any) -> Any:
            return super().make_response(str(value) if isinstance(value, int) else value)

        def dispatch_request(self) -> Any:
            kit.note("dispatch")
            return super().dispatch_request()

        def handle_user_exception(self, error: Exception) -> Any:
            kit.note("user exception", repr(error))
            return super().handle_user_exception(error)

    app = App("stage", root_path=kit.app().root_path)
    app.add_url_rule("/1", "one", lambda: 1)
    app.add_url_rule("/2", "two", lambda: 1 / 0)
    app.before_request(lambda: kit.note(kit.flask.request.who))
    return app


@scene("/1", "/2")
def own_classes_in_the_fast_lane(kit: Kit) -> Any:
    class Asked(kit.flask.Request):
        max_form_parts = 3

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.mark = "mark"

        def on_json_loading_failed(self, error: Any) -> Any:
            return {"failed": True}

    class Answered(kit.flask.Response):
        default_mimetype = "text/plain"
        default_status = 201
        charset = "latin1"

    app = kit.app()
    app.request_class = Asked
    app.response_class = Answered
    app.add_url_rule("/1", "one", lambda: kit.flask.request.mark)
    app.add_url_rule("/2", "two", lambda: {"max": kit.flask.request.max_form_parts})
    return app


@scene("/transaction", "/environ", "/cookies", "/deep", "/late-executor")
def clients_and_executors(kit: Kit) -> Any:
    app = kit.app()
    flask = kit.flask
    app.add_url_rule("/plain", "plain", lambda: repr(sorted(flask.session.items())))
    app.add_url_rule(
        "/told",
        "told",
        lambda: f"{flask.request.remote_addr} {flask.request.environ.get('mark')} {flask.request.scheme}",
    )

    @app.route("/transaction")
    def transaction() -> Any:
        with app.test_client() as client:
            with client.session_transaction() as session:
                session["a"] = 1
            answer = client.get("/plain").text
            inside = flask.session.get("a")
        return [answer, inside, flask.request.path]

    @app.route("/environ")
    def environ() -> Any:
        client = app.test_client()
        overrides = {"REMOTE_ADDR": "9.9.9.9", "mark": "m"}
        return [
            client.get("/told", environ_overrides=overrides, base_url="https://x.org").text,
            client.get("/told", environ_base={"mark": "base"}).text,
        ]

    @app.route("/cookies")
    def cookies() -> Any:
        client = app.test_client()
        client.set_cookie("a", "b")
        client.delete_cookie("c")
        cookie = client.get_cookie("a")
        return [cookie.value, cookie.path, client.get_cookie("c")]

    @app.route("/deep")
    def deep() -> Any:
        flask.g.mark = "outer"
        seen = []
        for number in range(3):
            context = app.test_request_context(f"/told?n={number}", method="POST")
            context.push()
            seen.append([flask.request.args["n"], flask.request.method, flask.g.get("mark")])
            context.pop()
        seen.append([flask.request.path, flask.request.method, flask.g.mark])
        return seen

    @app.route("/late-executor")
    def late_executor() -> Any:
        from contextvars import copy_context

        context = copy_context()
        with ThreadPoolExecutor(1) as executor:
            seen = executor.submit(context.run, lambda: [flask.request.path, flask.current_app.name]).result()
            bare = executor.submit(flask.has_request_context).result()
        return [*seen, bare]

    return app
