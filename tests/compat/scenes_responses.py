"""Scenes of what a view gives: values, headers, redirects, JSON, files, ranges, streams, templates."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import uuid
from dataclasses import dataclass
from typing import Any

from stage import Kit, ask, scene


@dataclass
class Point:
    x: int
    y: str = "ü"


class Html:
    def __html__(self) -> str:
        return "<b>html</b>"


class Color(enum.IntEnum):
    RED = 1


AT = datetime.datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=datetime.timezone.utc)
JSON_VALUES: list[Any] = [
    {},
    [],
    {"b": 1, "a": 2},
    {"z": {"y": [1, {"x": None}]}},
    [1.5, 1e16, 1e-7, -0.0, 123456789.123456789],
    {"big": 2**70},
    ["ü€🐍", "\x00\x1f\x7f\u2028</script>"],
    {"t": True, "f": False, "n": None},
    {"date": datetime.date(2020, 1, 2)},
    {"at": AT, "naive": AT.replace(tzinfo=None)},
    {"uuid": uuid.UUID(int=7)},
    {"decimal": decimal.Decimal("1.10")},
    {"point": Point(1)},
    {"html": Html()},
    {"tuple": (1, 2)},
    [Color.RED],
    {"set": {1}},
    {"complex": 1j},
    {1: "int", 2: "keys"},
    {"a": 1, 2: "mixed"},
    {None: 1},
    {True: 1, False: 2},
    {1.5: 1},
    {"bytes": b"x"},
    [float("nan"), float("inf")],
    {"time": datetime.time(1)},
    {"delta": datetime.timedelta(1)},
    {(1, 2): 3},
    "\ud800",
    [[[[[[]]]]]],
    {"": ""},
]


@scene("/view", "/jsonify", "/dumps", "/list-view", "HEAD /view", each=JSON_VALUES)
def json_out(kit: Kit, value: Any) -> Any:
    app = kit.app()
    flask = kit.flask
    app.add_url_rule("/view", "view", lambda: value)
    app.add_url_rule("/jsonify", "jsonify", lambda: flask.jsonify(value))
    app.add_url_rule("/dumps", "dumps", lambda: flask.json.dumps(value))
    app.add_url_rule("/list-view", "list", lambda: ([value], 201, {"X-A": "b"}))
    return app


PROVIDERS = [
    {"sort_keys": False},
    {"ensure_ascii": False},
    {"compact": False},
    {"compact": True},
    {"mimetype": "application/vnd.api+json"},
    {"default": staticmethod(repr)},
    {"debug": True},
    {"class": True},
    {"sort_keys": False, "compact": False, "ensure_ascii": False},
]


@scene("/", "/args", "/error", ask("POST /", json_body={"a": 1}), each=PROVIDERS)
def json_settings(kit: Kit, settings: dict[str, Any]) -> Any:
    app = kit.app()
    settings = dict(settings)
    app.debug = settings.pop("debug", False)
    if settings.pop("class", False):

        class Own(kit.module("flask.json.provider").JSONProvider):
            def dumps(self, obj: Any, **kwargs: Any) -> str:
                return f"own({obj!r})"

            def loads(self, s: Any, **kwargs: Any) -> Any:
                return {"loaded": len(s)}

        app.json = Own(app)
    for name, value in settings.items():
        setattr(app.json, name, getattr(value, "__func__", value))
    app.add_url_rule("/", "index", lambda: {"b": "ü", "a": [1, {}]}, methods=["GET"])
    app.add_url_rule("/", "post", lambda: kit.flask.request.json, methods=["POST"])
    app.add_url_rule("/args", "args", lambda: kit.flask.jsonify(b=1, a="ü"))
    app.add_url_rule("/error", "error", lambda: {"a": 1j})
    return app


def returned(kit: Kit) -> dict[str, Any]:
    Response = kit.flask.Response
    Headers = kit.module("werkzeug.datastructures").Headers
    return {
        "text": lambda: "ü",
        "bytes": lambda: b"\xff",
        "bytearray": lambda: bytearray(b"ba"),
        "empty": lambda: "",
        "status": lambda: ("a", 201),
        "text-status": lambda: ("a", "299 Own Words"),
        "int-text": lambda: ("a", "404"),
        "dict-headers": lambda: ("a", {"X-A": "b", "x-a2": "c"}),
        "list-headers": lambda: ("a", [("X-A", "1"), ("X-A", "2")]),
        "all": lambda: ("a", 418, {"Content-Type": "text/x"}),
        "Headers": lambda: ("a", 200, Headers([("X-A", "1"), ("X-A", "2")])),
        "dict": lambda: {"a": 1},
        "dict-all": lambda: ({"a": 1}, 400, {"X-A": "b"}),
        "list": lambda: [1],
        "204": lambda: ("ignored", 204),
        "304": lambda: ("ignored", 304),
        "205": lambda: ("ignored", 205),
        "102": lambda: ("", 299),
        "none-status": lambda: ("a", None),
        "none-headers": lambda: ("a", 200, None),
        "generator": lambda: (c for c in ["a", "ü"]),
        "iterator": lambda: iter([b"a", b"b"]),
        "response": lambda: Response("r", 202, {"X-R": "r"}, "text/css"),
        "response-tuple": lambda: (Response("r", 202, {"X-R": "r", "X-B": "1"}), 203, {"X-B": "2"}),
        "mimetype": lambda: Response("r", mimetype="text/csv"),
        "content-type": lambda: Response("r", content_type="a/b; c=d"),
        "no-type": lambda: Response("r", headers={"Content-Type": ""}),
        "xml": lambda: Response("<a/>", mimetype="application/xml"),
        "json-type": lambda: Response("1", mimetype="application/json"),
        "bytes-list": lambda: Response([b"a", b"b"]),
        "text-list": lambda: Response(["ü", "b"]),
        "tuple-body": lambda: Response(("a", "b")),
        "length": lambda: Response("abc", headers={"Content-Length": "3"}),
        "etag": lambda: Response("e", headers={"ETag": '"x"'}),
        "location": lambda: ("", 201, {"Location": "/a b/ü"}),
        "absolute-location": lambda: ("", 201, {"Location": "http://x/é"}),
        "latin1-header": lambda: ("a", {"X-A": "é"}),
        "date": lambda: ("a", {"Last-Modified": "x"}),
        "make": lambda: kit.flask.make_response("m", 203),
        "make-none": lambda: kit.flask.make_response(),
        "wsgi": lambda: kit.module("werkzeug.wrappers").Response("base", 207),
        "exception": lambda: kit.module("werkzeug.exceptions").NotFound("returned"),
        "999": lambda: ("a", 999),
        "600": lambda: ("a", 600),
        "599": lambda: ("a", 599),
        "cache": lambda: cached(Response("c")),
        "vary": lambda: Response("v", headers={"Vary": "Accept"}),
        "cookie": lambda: ("a", {"Set-Cookie": "raw=1"}),
        "str-subclass": lambda: type("S", (str,), {})("sub"),
        "dict-subclass": lambda: type("D", (dict,), {})(a=1),
        "markup": lambda: __import__("markupsafe").Markup("<b>"),
        "tuple-list": lambda: ([1, 2], 200),
        "http-status": lambda: ("a", __import__("http").HTTPStatus.ACCEPTED),
    }


def cached(response: Any) -> Any:
    response.cache_control.max_age = 5
    response.cache_control.public = True
    response.expires = datetime.datetime(2030, 1, 1)
    response.vary.add("Accept")
    response.content_language.add("de")
    response.age = 3
    response.add_etag()
    response.allow.add("GET")
    response.retry_after = 10
    return response


NAMES = list(returned(Kit("flask")))


@scene(
    *(f"/{name}" for name in NAMES), *(f"HEAD /{name}" for name in NAMES), each=["bare", "after", "session"]
)
def returned_values(kit: Kit, how: str) -> Any:
    app = kit.app()
    if how == "after":
        app.after_request(lambda response: response.headers.add("X-After", response.status) or response)
    if how == "session":
        app.before_request(lambda: kit.flask.session.update(a=1))
    for name, view in returned(kit).items():
        app.add_url_rule(f"/{name}", name, view)
    return app


@scene("/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h?x=1", "HEAD /a", "POST /a", each=[True, False])
def redirects(kit: Kit, autocorrect: bool) -> Any:
    app = kit.app()
    redirect = kit.flask.redirect

    class Absolute(kit.flask.Response):
        autocorrect_location_header = True

    if autocorrect:
        app.response_class = Absolute
    targets = {
        "a": ("/x",),
        "b": ("http://x.org/ü?q=ü#f",),
        "c": ("relative/p", 301),
        "d": ("/a b<>\"'", 307),
        "e": ("?x=1",),
        "f": ("//x/y", 308),
        "g": ("", 303),
        "h": ("/%C3%BC%20%zz", 305),
    }
    for name, arguments in targets.items():
        app.add_url_rule(
            f"/{name}", name, lambda arguments=arguments: redirect(*arguments), methods=["GET", "POST"]
        )
    return app


TAG = '"fixed"'
SINCE = "Sun, 06 Nov 1994 08:49:37 GMT"
CONDITIONS: list[dict[str, str]] = [
    {},
    {"If-None-Match": TAG},
    {"If-None-Match": 'W/"fixed"'},
    {"If-None-Match": "*"},
    {"If-None-Match": '"other"'},
    {"If-Match": TAG},
    {"If-Match": '"other"'},
    {"If-Match": "*"},
    {"If-Modified-Since": SINCE},
    {"If-Modified-Since": "Sun, 06 Nov 1993 08:49:37 GMT"},
    {"If-Modified-Since": "junk"},
    {"If-Unmodified-Since": SINCE},
    {"If-Unmodified-Since": "Sun, 06 Nov 1993 08:49:37 GMT"},
    {"If-None-Match": '"other"', "If-Modified-Since": SINCE},
    *(
        {"Range": value}
        for value in (
            "bytes=0-0",
            "bytes=0-4",
            "bytes=-3",
            "bytes=5-",
            "bytes=0-99999",
            "bytes=99999-",
            "bytes=3-2",
            "bytes=a-b",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-",
            "bytes=-0",
            "bytes= 1 - 2 ",
            "bytes=1-2,",
            "BYTES=1-2",
        )
    ),
    {"Range": "bytes=0-4", "If-Range": TAG},
    {"Range": "bytes=0-4", "If-Range": '"other"'},
    {"Range": "bytes=0-4", "If-Range": SINCE},
    {"Range": "bytes=0-4", "If-Range": "junk"},
    {"Range": "bytes=0-4", "If-None-Match": TAG},
]
PATHS = ["/file", "/memory", "/conditional", "/static/style.css"]


@scene(
    *(
        ask(f"{method} {path}", headers=condition)
        for path in PATHS
        for condition in CONDITIONS
        for method in ("GET", "HEAD")
    ),
    ask("POST /conditional", headers={"If-None-Match": TAG}),
    each=[False, True],
)
def conditions_and_ranges(kit: Kit, has_hook: bool) -> Any:
    app = kit.app()
    flask = kit.flask
    if has_hook:
        app.before_request(lambda: None)
    at = datetime.datetime(1994, 11, 6, 8, 49, 37, tzinfo=datetime.timezone.utc)
    app.add_url_rule(
        "/file", "file", lambda: flask.send_file("static/style.css", etag="fixed", last_modified=at)
    )
    app.add_url_rule(
        "/memory",
        "memory",
        lambda: flask.send_file(io.BytesIO(b"0123456789"), "text/plain", etag="fixed", last_modified=at),
    )

    @app.route("/conditional", methods=["GET", "POST"])
    def conditional() -> Any:
        response = flask.Response("0123456789")
        response.set_etag("fixed")
        response.last_modified = at
        return response.make_conditional(flask.request, accept_ranges=True, complete_length=10)

    return app


FILES = [
    "style.css",
    "page.html",
    "data.json",
    "script.js",
    "image.png",
    "noext",
    "with space.txt",
    "ü.txt",
    "a.tar.gz",
    "x.unknown",
    "sub/inner.txt",
    "empty.txt",
    ".hidden",
]


def quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


@scene(
    *(f"{method} /static/{quoted(name)}" for name in FILES for method in ("GET", "HEAD")),
    "/static/",
    "/static/missing",
    "/static/../stage.py",
    "/static/%2e%2e/stage.py",
    "/static/sub",
    "/static/sub/",
    "/static//style.css",
    "/static/style.css/",
    "/static/./style.css",
    "/static/sub/../style.css",
    "/static/style.css?x=1",
    "POST /static/style.css",
    "OPTIONS /static/style.css",
    "/static/%00",
    "/static/a%5Cb",
    "/static",
    "/static/STYLE.CSS",
    "/static/sub%2Finner.txt",
    each=[
        {},
        {"SEND_FILE_MAX_AGE_DEFAULT": 3600},
        {"SEND_FILE_MAX_AGE_DEFAULT": datetime.timedelta(days=2)},
        {"USE_X_SENDFILE": True},
        "hook",
    ],
)
def static_files(kit: Kit, settings: Any) -> Any:
    app = kit.app()
    if settings == "hook":
        app.after_request(lambda response: response)
    else:
        app.config.update(settings)
    return app


@scene(
    "/named/style.css",
    "/x/sub/inner.txt",
    "/bp-static/style.css",
    "/bp-static/missing",
    "/links",
    "/static/style.css",
)
def other_static_folders(kit: Kit) -> Any:
    app = kit.app(static_folder="static", static_url_path="/named")
    blueprint = kit.flask.Blueprint(
        "bp", kit.name, root_path=app.root_path, static_folder="static", static_url_path="/bp-static"
    )
    app.register_blueprint(blueprint)
    app.add_url_rule(
        "/x/<path:name>", "x", lambda name: kit.flask.send_from_directory("static", name, max_age=7)
    )
    app.add_url_rule(
        "/links",
        "links",
        lambda: " ".join(kit.flask.url_for(f"{n}static", filename="a b/ü") for n in ("", "bp.")),
    )
    return app


def sent(kit: Kit) -> dict[str, Any]:
    send = kit.flask.send_file
    return {
        "path": lambda: send("static/style.css"),
        "attachment": lambda: send("static/style.css", as_attachment=True),
        "named": lambda: send("static/style.css", as_attachment=True, download_name='ü€ "q".txt'),
        "inline-name": lambda: send("static/style.css", download_name="x.json"),
        "mimetype": lambda: send("static/style.css", mimetype="a/b"),
        "no-etag": lambda: send("static/style.css", etag=False),
        "own-etag": lambda: send("static/style.css", etag="mine"),
        "max-age": lambda: send("static/style.css", max_age=9),
        "zero-age": lambda: send("static/style.css", max_age=0),
        "call-age": lambda: send("static/style.css", max_age=lambda path: 11),
        "bytes": lambda: send(io.BytesIO(b"bytes"), mimetype="text/plain"),
        "bytes-named": lambda: send(io.BytesIO(b"bytes"), download_name="a.txt"),
        "bytes-untyped": lambda: send(io.BytesIO(b"bytes")),
        "text-io": lambda: send(io.StringIO("x"), mimetype="text/plain"),
        "missing": lambda: send("static/missing"),
        "unconditional": lambda: send("static/style.css", conditional=False),
        "modified": lambda: send("static/style.css", last_modified=5.0),
        "open": lambda: send(
            open(kit.flask.current_app.root_path + "/static/style.css", "rb"), download_name="o.css"
        ),
        "resource": lambda: resource(kit),
        "directory": lambda: kit.flask.send_from_directory("static", "../stage.py"),
        "gz": lambda: send("static/a.tar.gz"),
        "empty": lambda: send("static/empty.txt"),
    }


def resource(kit: Kit) -> Any:
    with kit.flask.current_app.open_resource("static/style.css") as file:
        return file.read()


SENT = list(sent(Kit("flask")))


@scene(
    *(f"{method} /{name}" for name in SENT for method in ("GET", "HEAD")),
    *(ask(f"/{name}", headers={"Range": "bytes=1-3"}) for name in SENT),
)
def send_file(kit: Kit) -> Any:
    app = kit.app()
    for name, view in sent(kit).items():
        app.add_url_rule(f"/{name}", name, view)
    return app


@scene(
    "/generator",
    "/text",
    "/empty",
    "/length",
    "/bytes",
    "/context",
    "/class",
    "/template",
    "HEAD /generator",
    "/session",
    "/chunk",
    "/raises",
    "/generator",
    each=["bare", "after"],
)
def streams(kit: Kit, how: str) -> Any:
    app = kit.app()
    flask = kit.flask
    Response = flask.Response
    if how == "after":
        app.after_request(
            lambda response: response.headers.add("X-Streamed", response.is_streamed) or response
        )

    def numbers() -> Any:
        for number in range(5):
            kit.note(number)
            yield f"{number}ü\n"

    class Closing:
        def __iter__(self) -> Any:
            return iter([b"x", b"y"])

        def close(self) -> None:
            kit.note("closed")

    def raising() -> Any:
        raise LookupError("before the first piece")
        yield

    app.add_url_rule("/generator", "generator", lambda: Response(numbers(), mimetype="text/plain"))
    app.add_url_rule("/text", "text", lambda: numbers())
    app.add_url_rule("/empty", "empty", lambda: Response(iter(())))
    app.add_url_rule(
        "/length", "length", lambda: Response(iter([b"abc", b"def"]), headers={"Content-Length": "6"})
    )
    app.add_url_rule("/bytes", "bytes", lambda: Response(iter([b"", b"\xff", b""])))
    app.add_url_rule(
        "/context",
        "context",
        lambda: Response(flask.stream_with_context(f"{flask.request.path}{n}" for n in range(3))),
    )
    app.add_url_rule("/class", "class", lambda: Response(Closing()))
    app.add_url_rule(
        "/template",
        "template",
        lambda: flask.stream_template_string("{% for x in range(3) %}{{ x }}{{ request.path }}{% endfor %}"),
    )
    app.add_url_rule("/session", "session", lambda: flask.session.update(a=1) or Response(numbers()))
    app.add_url_rule("/chunk", "chunk", lambda: Response(iter(["x" * 70000, "y"])))
    app.add_url_rule("/raises", "raises", lambda: Response(raising()))
    return app


@scene(
    "/file",
    "/string",
    "/autoescape",
    "/globals",
    "/processor",
    "/macro",
    "/missing",
    "/list",
    "/filter",
    "/bp/",
    "/bp/processor",
    "/include",
    "/text",
    "/undefined",
    "/error",
    "/nested-error",
    "/flask-globals",
    each=[False, True],
)
def templates(kit: Kit, debug: bool) -> Any:
    app = kit.app()
    flask = kit.flask
    app.debug = debug
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.context_processor(lambda: {"word": "processed", "overridden": "no"})
    app.template_filter("twice")(lambda text: text * 2)
    app.template_test("short")(lambda text: len(text) < 3)
    app.template_global("shout")(lambda text: text.upper())
    string = flask.render_template_string
    app.add_url_rule(
        "/file", "file", lambda: flask.render_template("page.html", title="<t>", items=["a", "<b>"])
    )
    app.add_url_rule(
        "/list", "list", lambda: flask.render_template(["none.html", "page.html"], title="l", items=[])
    )
    app.add_url_rule("/text", "text", lambda: flask.render_template("plain.txt", title="<t>"))
    app.add_url_rule("/include", "include", lambda: flask.render_template("child.html"))
    app.add_url_rule("/missing", "missing", lambda: flask.render_template(["none.html", "neither.html"]))
    app.add_url_rule("/string", "string", lambda: string("{{ x }}{{ x|safe }}", x="<&>"))
    app.add_url_rule(
        "/autoescape",
        "autoescape",
        lambda: string("{% autoescape false %}{{ x }}{% endautoescape %}", x="<&>"),
    )
    app.add_url_rule(
        "/globals",
        "globals",
        lambda: string(
            "{{ request.path }} {{ config.TESTING }} {{ g.x is defined }} {{ url_for('file') }}"
            " {{ session.a }}"
        ),
    )
    app.add_url_rule(
        "/processor", "processor", lambda: string("{{ word }} {{ overridden }}", overridden="yes")
    )
    app.add_url_rule("/macro", "macro", lambda: flask.get_template_attribute("macros.html", "hello")("you"))
    app.add_url_rule(
        "/filter",
        "filter",
        lambda: string(
            "{{ 'a'|twice }} {{ 'a' is short }} {{ shout('a') }} {{ {'a': '<'}|tojson }}"
            " {{ [1, 'ü']|tojson(2) }}"
        ),
    )
    app.add_url_rule("/undefined", "undefined", lambda: string("[{{ nothing }}]"))
    app.add_url_rule("/error", "error", lambda: string("{{ 1 / 0 }}"))
    app.add_url_rule("/nested-error", "nested", lambda: string("{{ nothing.attribute }}"))
    app.add_url_rule(
        "/flask-globals",
        "flask_globals",
        lambda: string("{{ get_flashed_messages() }} {{ request.args.get('x', 'd') }} {{ self is defined }}"),
    )
    blueprint = flask.Blueprint(
        "bp", kit.name, url_prefix="/bp", root_path=app.root_path, template_folder="bp_templates"
    )
    blueprint.context_processor(lambda: {"word": "of the blueprint"})
    blueprint.add_url_rule("/", "index", lambda: flask.render_template("bp.html"))
    blueprint.add_url_rule("/processor", "processor", lambda: string("{{ word }}"))
    app.register_blueprint(blueprint)
    return app


@scene(
    "/json",
    "/html",
    ask("/negotiated", headers={"Accept": "application/json"}),
    ask("/negotiated", headers={"Accept": "text/html"}),
    ask("/negotiated", headers={"Accept": "image/png"}),
    "/negotiated",
    ask("/negotiated", headers={"Accept-Language": "fr, de;q=0.5"}),
)
def negotiation(kit: Kit) -> Any:
    app = kit.app()
    request = kit.flask.request

    @app.route("/negotiated")
    @app.route("/json")
    @app.route("/html")
    def view() -> Any:
        best = request.accept_mimetypes.best_match(["text/html", "application/json"])
        if best is None:
            kit.flask.abort(406)
        language = request.accept_languages.best_match(["en", "de"])
        response = (
            kit.flask.jsonify(language=language)
            if best == "application/json"
            else kit.flask.make_response(f"<p>{language}")
        )
        response.vary.update(["Accept", "Accept-Language"])
        return response

    return app
