"""Scenes of settings that change URLs and set-up errors of an app."""

from __future__ import annotations

from typing import Any

from stage import Kit, ask, scene

SETTINGS = [
    {"SERVER_NAME": "example.com"},
    {"SERVER_NAME": "localhost"},
    {"SERVER_NAME": "example.com:8080"},
    {"APPLICATION_ROOT": "/app"},
    {"SERVER_NAME": "example.com", "APPLICATION_ROOT": "/app"},
    {"PREFERRED_URL_SCHEME": "https"},
    {"SERVER_NAME": "example.com", "PREFERRED_URL_SCHEME": "https"},
    {"EXPLAIN_TEMPLATE_LOADING": False},
    {"TEMPLATES_AUTO_RELOAD": True},
]


@scene(
    "/",
    "/app/",
    ask("/", host="example.com"),
    ask("/app/", host="example.com"),
    ask("/", host="sub.example.com"),
    ask("/x", host="example.com:8080"),
    ask("/links", host="other.org:81"),
    "/x/",
    each=SETTINGS,
)
def names_and_roots(kit: Kit, settings: dict[str, Any]) -> Any:
    app = kit.app()
    app.config.update(settings)
    flask = kit.flask

    def links() -> Any:
        inside = [
            flask.url_for("index"),
            flask.url_for("index", _external=True),
            flask.url_for("x", _scheme="ftp", _external=True),
        ]
        with app.app_context():
            inside.append(flask.url_for("index"))
        return [*inside, flask.request.url, flask.request.root_path]

    app.add_url_rule("/", "index", links)
    app.add_url_rule("/x/", "x", links)
    app.add_url_rule("/links", "links", links)
    return app


MISTAKES = [
    "same endpoint",
    "same blueprint",
    "bad rule",
    "no slash",
    "unknown converter",
    "static host",
    "dotted endpoint",
    "dotted blueprint",
    "late hook",
    "methods as text",
    "view without name",
    "bad code",
    "bad handler",
    "http instance",
    "no secret",
    "none blueprint name",
    "empty name",
    "bp slash",
    "url without context",
    "blueprint after use",
    "nested self",
]


@scene("/", each=MISTAKES)
def mistakes_of_developers(kit: Kit, mistake: str) -> Any:
    flask = kit.flask
    app = kit.app()
    told: list[str] = []

    def make() -> None:
        Blueprint = flask.Blueprint
        match mistake:
            case "same endpoint":
                app.add_url_rule("/a", "a", lambda: "1")
                app.add_url_rule("/b", "a", lambda: "2")
            case "same blueprint":
                app.register_blueprint(Blueprint("bp", kit.name))
                app.register_blueprint(Blueprint("bp", kit.name))
            case "bad rule":
                app.add_url_rule("/<int:x", "a", lambda x: "1")
            case "no slash":
                app.add_url_rule("a", "a", lambda: "1")
            case "unknown converter":
                app.add_url_rule("/<nope:x>", "a", lambda x: "1")
            case "static host":
                kit.app(host_matching=True)
            case "dotted endpoint":
                Blueprint("bp", kit.name).add_url_rule("/", "a.b", lambda: "")
            case "dotted blueprint":
                Blueprint("a.b", kit.name)
            case "late hook":
                app.test_client().get("/")
                app.before_request(lambda: None)
            case "methods as text":
                app.add_url_rule("/a", "a", lambda: "1", methods="GET")
            case "view without name":
                app.add_url_rule("/a")
                app.add_url_rule("/b", view_func=object())
            case "bad code":
                app.register_error_handler(999, lambda error: "")
            case "bad handler":
                app.register_error_handler(int, lambda error: "")
            case "http instance":
                app.register_error_handler(kit.module("werkzeug.exceptions").NotFound(), lambda error: "")
            case "no secret":
                app.secret_key = None
                with app.test_request_context():
                    flask.session["a"] = 1
            case "none blueprint name":
                Blueprint("", kit.name)
            case "empty name":
                Blueprint(None, kit.name)
            case "bp slash":
                blueprint = Blueprint("bp", kit.name, url_prefix="p")
                blueprint.add_url_rule("/x", "x", lambda: "")
                app.register_blueprint(blueprint)
            case "url without context":
                with app.app_context():
                    flask.url_for("index")
            case "blueprint after use":
                blueprint = Blueprint("bp", kit.name)
                app.register_blueprint(blueprint)
                blueprint.add_url_rule("/late", "late", lambda: "")
            case "nested self":
                blueprint = Blueprint("bp", kit.name)
                blueprint.register_blueprint(blueprint)

    try:
        make()
        told.append("fine")
    except Exception as error:
        told += [type(error).__name__, type(error).__mro__[1].__name__]
    fresh = kit.app()
    fresh.add_url_rule("/", "index", lambda: " ".join(told))
    return fresh
