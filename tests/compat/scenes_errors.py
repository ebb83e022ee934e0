"""Scenes of errors: handlers by code, class and blueprint, debug mode, traps, what is logged."""

from __future__ import annotations

from typing import Any

from stage import Kit, ask, scene


class Mine(Exception):
    pass


class Child(Mine):
    pass


def raising(kit: Kit, what: str) -> Any:
    """A function that raises or returns something unusual."""
    flask, exceptions = kit.flask, kit.module("werkzeug.exceptions")

    def view() -> Any:
        if what.isdigit():
            flask.abort(int(what))
        match what:
            case "mine":
                raise Mine("mine")
            case "child":
                raise Child("child")
            case "key":
                flask.request.form["absent"]
            case "args":
                flask.request.args["absent"]
            case "file":
                flask.request.files["absent"]
            case "described":
                flask.abort(403, "no <b>entry</b>")
            case "described-404":
                flask.abort(404, description="nothing & here")
            case "response":
                flask.abort(flask.Response("own", 410, {"X-Own": "1"}))
            case "with-response":
                raise exceptions.Conflict("text", response=flask.Response("instead", 299))
            case "unauthorized":
                header = kit.module("werkzeug.datastructures").WWWAuthenticate("basic", {"realm": "r"})
                raise exceptions.Unauthorized("who", www_authenticate=header)
            case "methods":
                raise exceptions.MethodNotAllowed(["GET", "PUT"])
            case "range":
                raise exceptions.RequestedRangeNotSatisfiable(10)
            case "retry":
                raise exceptions.TooManyRequests(retry_after=5)
            case "legal":
                raise exceptions.UnavailableForLegalReasons()
            case "wrapped":
                raise exceptions.InternalServerError(original_exception=Mine("inside"))
            case "redirect":
                raise kit.module("werkzeug.routing").RequestRedirect("/elsewhere")
            case "unknown-code":
                flask.abort(999)
            case "http":
                raise exceptions.HTTPException("bare")
            case "teapot":
                raise exceptions.ImATeapot()
            case "chained":
                try:
                    1 / 0  # noqa: B018
                except ZeroDivisionError as error:
                    raise Mine("chained") from error
            case "exit":
                raise SystemExit(3)
            case "stop":
                raise StopIteration
            case "assert":
                assert 1 == 2, "assertion"
            case "unicode":
                raise Mine("ü€ \ud800".encode("utf-8", "replace").decode())
            case "build":
                flask.url_for("nowhere", x=1)
            case "template":
                flask.render_template("missing.html")
            case "syntax":
                flask.render_template_string("{% if %}")
            case "undefined":
                flask.render_template_string("{{ a.b }}")
            case "nested":
                raise kit.module("werkzeug.exceptions").NotFound from Mine("cause")
        raise AssertionError(what)

    view.__name__ = "view_" + what.replace("-", "_")
    return view


WHATS = [
    *(
        str(code)
        for code in (
            400,
            401,
            403,
            404,
            405,
            406,
            408,
            409,
            410,
            411,
            412,
            413,
            414,
            415,
            416,
            417,
            418,
            421,
            422,
            423,
            424,
            428,
            429,
            431,
            451,
            500,
            501,
            502,
            503,
            504,
            505,
        )
    ),
    "mine",
    "child",
    "key",
    "args",
    "file",
    "described",
    "described-404",
    "response",
    "with-response",
    "unauthorized",
    "methods",
    "range",
    "retry",
    "legal",
    "wrapped",
    "redirect",
    "unknown-code",
    "http",
    "teapot",
    "chained",
    "stop",
    "assert",
    "unicode",
    "build",
    "template",
    "syntax",
    "undefined",
    "nested",
]
ALL = [f"/{what}" for what in WHATS]


def views(kit: Kit, target: Any) -> None:
    for what in WHATS:
        target.add_url_rule(f"/{what}", what, raising(kit, what), methods=["GET", "POST"])


@scene(*ALL, "POST /key", "POST /file", "HEAD /404", "HEAD /mine", "OPTIONS /mine")
def bare_errors(kit: Kit) -> Any:
    app = kit.app()
    views(kit, app)
    return app


def handlers(kit: Kit, target: Any, name: str) -> None:
    exceptions = kit.module("werkzeug.exceptions")

    def said(which: str) -> Any:
        def handler(error: Any) -> Any:
            kit.note(name, which, type(error).__name__, str(error))
            return f"{name} {which} {error}", getattr(error, "code", 599) or 598

        return handler

    target.register_error_handler(404, said("404"))
    target.register_error_handler(exceptions.BadRequest, said("BadRequest"))
    target.register_error_handler(Mine, said("Mine"))
    target.register_error_handler(500, said("500"))
    target.register_error_handler(429, said("429"))


@scene(
    *ALL,
    *(f"/bp{path}" for path in ALL),
    *(f"/bp/in{path}" for path in ALL[30:]),
    "/bp/nothing",
    "POST /bp/key",
)
def handled_errors(kit: Kit) -> Any:
    app = kit.app()
    views(kit, app)
    outer, inner = kit.flask.Blueprint("outer", kit.name), kit.flask.Blueprint("inner", kit.name)
    views(kit, outer)
    views(kit, inner)
    handlers(kit, app, "app")
    handlers(kit, outer, "outer")
    inner.register_error_handler(Child, lambda error: ("inner Child", 201))
    inner.register_error_handler(
        kit.module("werkzeug.exceptions").HTTPException, lambda error: ("inner HTTP", error.code or 1)
    )
    outer.register_error_handler(Exception, lambda error: kit.note("any", repr(error)) or ("outer any", 202))
    outer.register_blueprint(inner, url_prefix="/in")
    outer.app_errorhandler(418)(lambda error: ("app teapot", 418))
    app.register_blueprint(outer, url_prefix="/bp")
    return app


@scene(*ALL, "/nothing", "POST /x")
def any_http_handler(kit: Kit) -> Any:
    app = kit.app()
    views(kit, app)
    app.add_url_rule("/x", "x", lambda: "x")

    @app.errorhandler(kit.module("werkzeug.exceptions").HTTPException)
    def as_json(error: Any) -> Any:
        response = error.get_response()
        response.data = kit.flask.json.dumps(
            {"code": error.code, "name": error.name, "text": error.description}
        )
        response.content_type = "application/json"
        return response

    return app


SETTINGS = [
    {"TRAP_HTTP_EXCEPTIONS": True},
    {"TRAP_BAD_REQUEST_ERRORS": True},
    {"TRAP_BAD_REQUEST_ERRORS": False},
    {"PROPAGATE_EXCEPTIONS": True},
    {"PROPAGATE_EXCEPTIONS": False, "TESTING": True},
    {"TESTING": True},
    {"DEBUG": True},
    {"DEBUG": True, "PROPAGATE_EXCEPTIONS": False},
    {"DEBUG": True, "TRAP_BAD_REQUEST_ERRORS": False},
]
SOME = [
    "/404",
    "/mine",
    "/key",
    "/args",
    "/wrapped",
    "/redirect",
    "/described",
    "/http",
    "/nothing",
    "/x/",
    "/template",
]


@scene(*SOME, "POST /key", "POST /file", "POST /x", each=SETTINGS)
def settings_of_errors(kit: Kit, settings: dict[str, Any]) -> Any:
    app = kit.app()
    views(kit, app)
    app.add_url_rule("/x", "x", lambda: "x")
    app.config.update(settings)
    app.teardown_request(lambda error: kit.note("teardown", repr(error)))
    return app


@scene(*SOME, each=SETTINGS)
def settings_of_handled_errors(kit: Kit, settings: dict[str, Any]) -> Any:
    app = settings_of_errors(kit, settings)
    handlers(kit, app, "app")
    return app


@scene(
    "POST /b",
    ask("POST /b", form={"a": "1"}),
    ask("POST /files", form={"f": "name"}),
    "POST /json",
    ask("POST /json", json_body={"a": 1}),
    ask("POST /json", body="{", headers={"Content-Type": "application/json"}),
    ask("POST /json", body="a=1", headers={"Content-Type": "text/plain"}),
    each=[False, True],
)
def bad_requests(kit: Kit, debug: bool) -> Any:
    app = kit.app()
    app.debug = debug
    app.add_url_rule("/b/", "b", lambda: kit.flask.request.form["x"], methods=["GET", "POST"])
    app.add_url_rule("/files", "files", lambda: kit.flask.request.files["f"].filename, methods=["POST"])
    app.add_url_rule("/json", "json", lambda: kit.flask.request.json["a"] and {"got": 1}, methods=["POST"])
    return app


@scene("/text", "/mapping", "/list", "/nothing")
def handlers_return_everything(kit: Kit) -> Any:
    app = kit.app()
    answers: dict[str, Any] = {
        "text": "text",
        "mapping": ({"a": 1}, 400),
        "list": [1],
        "response": kit.flask.Response("r", 201),
        "none": None,
    }
    for name, answer in answers.items():
        kind = type(name, (Exception,), {})
        app.register_error_handler(kind, lambda error, answer=answer: answer)

        def view(kind: Any = kind) -> Any:
            raise kind

        app.add_url_rule(f"/{name}", name, view)
    app.register_error_handler(404, lambda error: error)
    return app


@scene(
    "/none",
    "/int",
    "/object",
    "/tuple1",
    "/tuple4",
    "/nested",
    "/set",
    "/generator",
    "/callable",
    "/float",
    "/tuple-none",
)
def wrong_return_values(kit: Kit) -> Any:
    app = kit.app()
    values: dict[str, Any] = {
        "none": None,
        "int": 5,
        "object": 1j,
        "tuple1": ("a",),
        "tuple4": ("a", 200, {}, 1),
        "nested": (("a", 200), 201),
        "set": {1},
        "callable": lambda environ, start: start("299 Fine", [("X-A", "b")]) and [b"x"],
        "float": 1.5,
        "tuple-none": (None, 200),
    }
    for name, value in values.items():
        app.add_url_rule(f"/{name}", name, lambda value=value: value)
    app.add_url_rule("/generator", "generator", lambda: (text for text in "abc"))
    app.register_error_handler(
        500, lambda error: (f"{type(error.original_exception).__name__}: {error.original_exception}", 500)
    )
    return app


@scene("/", "/error", "/warning", "/custom")
def logging_output(kit: Kit) -> Any:
    app = kit.app()
    app.logger.setLevel("DEBUG")

    @app.route("/")
    def index() -> str:
        app.logger.debug("debug %s", 1)
        app.logger.info("info")
        return "index"

    @app.route("/error")
    def error() -> str:
        try:
            raise Mine("logged")
        except Mine:
            app.logger.exception("with traceback")
        return app.logger.name

    app.add_url_rule("/warning", "warning", lambda: app.logger.warning("careful") or "x")
    app.add_url_rule("/custom", "custom", raising(kit, "mine"))
    app.log_exception = lambda exc_info: app.logger.error("own %s", exc_info[0].__name__)
    return app
