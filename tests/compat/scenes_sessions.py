"""Scenes of sessions, flashed messages and cookies."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from stage import Kit, ask, scene

VALUES: dict[str, Any] = {
    "text": "ü€🐍",
    "int": 5,
    "float": 1.5,
    "none": None,
    "bool": True,
    "list": [1, [2]],
    "dict": {"a": {"b": 1}},
    "tuple": (1, ("a",)),
    "bytes": b"\x00\xff",
    "uuid": uuid.UUID(int=5),
    "datetime": datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    "tagged": {" t": [1]},
    "empty": {},
    "long": "x" * 300,
}


@scene(
    "/set?v=1",
    "/get",
    "/len",
    "/in",
    "/iter",
    "/bool",
    "/copy",
    "/setdefault",
    "/get",
    "/pop",
    "/get",
    "/update",
    "/permanent",
    "/get",
    "/modified",
    "/accessed",
    "/nothing",
    "/clear",
    "/get",
    "/touch",
    "/del",
    "/read-in-template",
    "/new",
    "/items",
    "/eq",
    "/or",
    "HEAD /get",
    "OPTIONS /get",
    "/missing",
    each=[True, False],
)
def sessions(kit: Kit, has_hooks: bool) -> Any:
    app = kit.app()
    flask = kit.flask
    session = flask.session
    if has_hooks:
        app.after_request(lambda response: response)

    @app.route("/set")
    def set_() -> str:
        session["v"] = flask.request.args["v"]
        session["list"] = [1]
        return f"{session.new} {session.modified} {session.accessed} {session.permanent}"

    def rule(name: str, act: Any) -> None:
        app.add_url_rule(f"/{name}", name, lambda: repr(act()))

    rule("get", lambda: session.get("v"))
    rule("len", lambda: len(session))
    rule("in", lambda: "v" in session)
    rule("iter", lambda: sorted(session))
    rule("bool", lambda: bool(session))
    rule("copy", lambda: sorted(session.copy().items()))
    rule("setdefault", lambda: session.setdefault("more", 1))
    rule("pop", lambda: session.pop("v", "gone"))
    rule("update", lambda: session.update(a=1))
    rule("clear", lambda: session.clear())
    rule("nothing", lambda: None)
    rule("new", lambda: (session.new, session.modified))
    rule("items", lambda: sorted(session.items(), key=str))
    rule("eq", lambda: session == {})
    rule("or", lambda: {**session})
    rule("accessed", lambda: session.accessed)
    rule(
        "read-in-template",
        lambda: flask.render_template_string("{{ session.get('v') }} {{ session['list'] }}"),
    )

    @app.route("/permanent")
    def permanent() -> str:
        session.permanent = True
        return str(session.permanent)

    @app.route("/modified")
    def modified() -> str:
        session["list"].append(2)
        session.modified = True
        return "modified"

    @app.route("/touch")
    def touch() -> str:
        session.setdefault("list", []).append(3)
        return str(session.modified)

    @app.route("/del")
    def delete() -> str:
        if "list" in session:
            del session["list"]
        return "deleted"

    return app


@scene("/set", "/read", "/clear", "/read")
def session_values(kit: Kit) -> Any:
    app = kit.app()
    session = kit.flask.session
    markup = kit.flask.Markup if hasattr(kit.flask, "Markup") else __import__("markupsafe").Markup

    @app.route("/set")
    def set_() -> str:
        session.update(VALUES, markup=markup("<b>"))
        return "set"

    @app.route("/read")
    def read() -> str:
        return repr(sorted((key, value) for key, value in session.items()))

    app.add_url_rule("/clear", "clear", lambda: session.clear() or "cleared")
    return app


COOKIE_SETTINGS = [
    {},
    {"SESSION_COOKIE_NAME": "own"},
    {"SESSION_COOKIE_DOMAIN": "example.com"},
    {"SESSION_COOKIE_PATH": "/p"},
    {"SESSION_COOKIE_HTTPONLY": False},
    {"SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_SAMESITE": "Lax"},
    {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_PARTITIONED": True, "SESSION_COOKIE_SECURE": True},
    {"SESSION_REFRESH_EACH_REQUEST": False},
    {"PERMANENT_SESSION_LIFETIME": 60},
    {"PERMANENT_SESSION_LIFETIME": timedelta(days=1)},
    {"APPLICATION_ROOT": "/app"},
    {"SECRET_KEY": None},
    {"SECRET_KEY": b"bytes"},
    {"SERVER_NAME": "localhost"},
    {"SECRET_KEY_FALLBACKS": ["old", "older"]},
]


@scene("/read", "/set", "/read", "/permanent", "/read", "/clear", "/read", each=COOKIE_SETTINGS)
def session_cookie_settings(kit: Kit, settings: dict[str, Any]) -> Any:
    app = kit.app()
    app.config.update(settings)
    session = kit.flask.session

    @app.route("/set")
    def set_() -> str:
        session["a"] = 1
        return "set"

    @app.route("/permanent")
    def permanent() -> str:
        session.permanent = True
        return "permanent"

    app.add_url_rule("/read", "read", lambda: str(sorted(session.items())))
    app.add_url_rule("/clear", "clear", lambda: session.clear() or "cleared")
    return app


def signed(key: str, age: int = 0, payload: str | None = None) -> str:
    """A session's cookie as Flask signs it, `age` seconds ago."""
    import hashlib

    from itsdangerous import TimestampSigner, URLSafeTimedSerializer

    class Aged(TimestampSigner):
        def get_timestamp(self) -> int:
            return super().get_timestamp() - age

    options = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    if payload is not None:
        return Aged(key, salt="cookie-session", **options).sign(payload).decode()  # type: ignore[arg-type]
    serializer = URLSafeTimedSerializer(key, salt="cookie-session", signer=Aged, signer_kwargs=options)
    return serializer.dumps({"a": 1})  # type: ignore[return-value]


GOOD = signed("for the stage")
COOKIES = [
    GOOD,
    f'"{GOOD}"',
    GOOD[:-1],
    GOOD + "x",
    "x" + GOOD,
    GOOD.replace(".", ",", 1),
    "",
    "...",
    "a.b.c",
    signed("other"),
    signed("old"),
    signed("for the stage", age=40 * 86400),
    signed("for the stage", age=30 * 86400),
    signed("for the stage", age=-1000),
    signed("for the stage", payload="e30"),
    signed("for the stage", payload="W10"),
    signed("for the stage", payload="eyJhIjp7IiB0IjpbMSwyXX19"),
    "%22",
    "é",
]


@scene(
    *(ask("/", headers={"Cookie": f"session={cookie}"}) for cookie in COOKIES),
    ask("/", headers={"Cookie": f"session={GOOD}; session=x"}),
    ask("/", headers={"Cookie": f"session=x; session={GOOD}"}),
    ask("/", headers=[("Cookie", "session=x"), ("Cookie", f"session={GOOD}")]),
    ask("/", headers={"Cookie": f"a=b;session={GOOD}"}),
    ask("/", headers={"Cookie": f"session = {GOOD} "}),
    ask("/", headers={"Cookie": f"Session={GOOD}"}),
)
def sent_sessions(kit: Kit) -> Any:
    app = kit.app()
    app.config["SECRET_KEY_FALLBACKS"] = ["old"]
    app.add_url_rule(
        "/", "index", lambda: repr(sorted(kit.flask.session.items())) + str(kit.flask.session.modified)
    )
    return app


@scene("/", "/big", "/wrong")
def oversized_and_unserialisable_sessions(kit: Kit) -> Any:
    import random

    app = kit.app()
    session = kit.flask.session
    noise = "".join(random.Random(5).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=3500))
    app.add_url_rule("/", "index", lambda: session.update(a=noise) or "index")
    app.add_url_rule("/wrong", "wrong", lambda: session.update(a=1j) or "wrong")
    return app


@scene("/open", "/save", "/null")
def own_session_interface(kit: Kit) -> Any:
    module = kit.module("flask.sessions")

    class Session(dict, module.SessionMixin):  # type: ignore[misc]
        pass

    class Interface(module.SessionInterface):  # type: ignore[misc]
        def open_session(self, app: Any, request: Any) -> Any:
            kit.note("open", request.path, request.endpoint)
            return None if request.path == "/null" else Session(a=1)

        def save_session(self, app: Any, session: Any, response: Any) -> None:
            kit.note("save", dict(session), self.should_set_cookie(app, session))
            response.headers["X-Saved"] = self.get_cookie_name(app)

    app = kit.app()
    app.session_interface = Interface()
    app.add_url_rule("/open", "open", lambda: "open")
    app.add_url_rule("/save", "save", lambda: str(kit.flask.session.setdefault("b", 2)))
    app.add_url_rule("/null", "null", lambda: type(kit.flask.session).__name__)
    return app


@scene(
    "/flash",
    "/read",
    "/read",
    "/flash",
    "/categories",
    "/flash",
    "/filtered",
    "/read",
    "/flash",
    "/twice",
    "/same",
)
def flashing(kit: Kit) -> Any:
    app = kit.app()
    flask = kit.flask

    @app.route("/flash")
    def flash() -> str:
        flask.flash("one")
        flask.flash("two <b>", "error")
        flask.flash(__import__("markupsafe").Markup("<i>three</i>"), "warning")
        flask.flash("four", "error")
        return "flashed"

    app.add_url_rule(
        "/read",
        "read",
        lambda: flask.render_template_string("{% for m in get_flashed_messages() %}[{{ m }}]{% endfor %}"),
    )
    app.add_url_rule(
        "/categories", "categories", lambda: repr(flask.get_flashed_messages(with_categories=True))
    )
    app.add_url_rule(
        "/filtered",
        "filtered",
        lambda: repr(flask.get_flashed_messages(with_categories=True, category_filter=["error"])),
    )
    app.add_url_rule(
        "/twice", "twice", lambda: repr([flask.get_flashed_messages(), flask.get_flashed_messages()])
    )
    app.add_url_rule("/same", "same", lambda: flask.flash("now") or repr(flask.get_flashed_messages()))
    return app


SET: list[Any] = [
    ("a", "b", {}),
    ("a", "", {}),
    ("a", "b c", {}),
    ("a", "ü€", {}),
    ("a", 'q"uo;te,', {}),
    ("a", "b", {"max_age": 5}),
    ("a", "b", {"max_age": timedelta(hours=1)}),
    ("a", "b", {"expires": 0}),
    ("a", "b", {"expires": datetime(2030, 1, 1)}),
    ("a", "b", {"path": "/x"}),
    ("a", "b", {"path": None}),
    ("a", "b", {"domain": "example.com"}),
    ("a", "b", {"domain": ".ex.com"}),
    ("a", "b", {"secure": True, "httponly": True}),
    ("a", "b", {"samesite": "strict"}),
    ("a", "b", {"partitioned": True, "secure": True}),
    ("a", "b", {"samesite": "wrong"}),
    ("a", "b", {"expires": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    ("a-b.c", "x", {}),
    ("a", "\x01\x7f", {}),
    ("a", "x" * 5000, {}),
    ("a", "b", {"domain": "münchen.de"}),
]


@scene(
    "/set",
    "/delete",
    *(
        ask("/read", headers={"Cookie": cookie})
        for cookie in (
            "a=b",
            "a=b; c=d",
            "a=b;a=c",
            "a",
            "=a",
            "a=",
            "; ;",
            'a="b c"',
            'a="b\\"c"',
            'a="\\303\\274"',
            "a=b=c",
            "a=ü".encode().decode("latin1"),
            "a=%C3%BC",
            "a b=c",
            "a=b,c=d",
            " a = b ",
            "$Version=1; a=b",
            "a=\t b",
            "A=1; a=2",
            '"a"=b',
            'a={"x": 1}',
            "a=;b=",
            "é=1",
        )
    ),
    ask("/read", headers=[("Cookie", "a=1"), ("Cookie", "b=2")]),
)
def cookies(kit: Kit) -> Any:
    app = kit.app()

    @app.route("/set")
    def set_() -> Any:
        response = kit.flask.make_response("set")
        for name, value, options in SET:
            try:
                response.set_cookie(name, value, **options)
            except Exception as error:
                kit.note(name, type(error).__name__, str(error))
        return response

    @app.route("/delete")
    def delete() -> Any:
        response = kit.flask.make_response("deleted")
        response.delete_cookie("a")
        response.delete_cookie(
            "b", path="/x", domain="example.com", secure=True, httponly=True, samesite="Lax"
        )
        return response

    app.add_url_rule("/read", "read", lambda: repr(list(kit.flask.request.cookies.items(multi=True))))
    return app
