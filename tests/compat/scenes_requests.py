"""Scenes of what a request says: query, headers, forms, files, JSON, negotiation, limits."""

from __future__ import annotations

from typing import Any

from stage import Kit, ask, multipart, scene


def shown(value: Any) -> Any:
    """Anything of a request as text that both frameworks give alike."""
    if hasattr(value, "to_header") and not isinstance(value, (str, bytes)):
        return value.to_header()
    if hasattr(value, "items"):
        try:
            return sorted((str(key), str(item)) for key, item in value.items(multi=True))
        except TypeError:
            return sorted((str(key), str(item)) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [str(item) for item in value]
    return str(value)


ATTRIBUTES = [
    "method",
    "path",
    "full_path",
    "query_string",
    "args",
    "values",
    "form",
    "files",
    "cookies",
    "url",
    "base_url",
    "host_url",
    "root_url",
    "url_root",
    "host",
    "host_url",
    "script_root",
    "root_path",
    "scheme",
    "is_secure",
    "is_json",
    "mimetype",
    "mimetype_params",
    "content_type",
    "content_length",
    "content_encoding",
    "content_md5",
    "user_agent",
    "referrer",
    "origin",
    "date",
    "max_forwards",
    "pragma",
    "access_route",
    "remote_addr",
    "remote_user",
    "authorization",
    "accept_mimetypes",
    "accept_charsets",
    "accept_encodings",
    "accept_languages",
    "cache_control",
    "if_match",
    "if_none_match",
    "if_modified_since",
    "if_unmodified_since",
    "if_range",
    "range",
    "access_control_request_headers",
    "access_control_request_method",
    "is_multithread",
    "is_run_once",
    "is_multiprocess",
    "endpoint",
    "blueprint",
    "blueprints",
    "url_rule",
    "view_args",
    "routing_exception",
    "want_form_data_parsed",
    "max_content_length",
    "max_form_parts",
    "max_form_memory_size",
    "trusted_hosts",
    "shallow",
]
FIELDS: list[list[tuple[str, str]]] = [
    [("User-Agent", "Mozilla/5.0 (X11) Firefox/1.0"), ("Referer", "http://a/ü".encode().decode("latin1"))],
    [
        ("Accept", "text/html;q=0.5, application/json, */*;q=0.1"),
        ("Accept-Language", "de-CH, en;q=0.8, *;q=0"),
    ],
    [
        ("Accept", "text/html;level=1;q=0.7;x"),
        ("Accept-Encoding", "gzip, br;q=0, identity"),
        ("Accept-Charset", "utf-8, *"),
    ],
    [("Accept", ""), ("Accept-Language", ";;,,q=1"), ("Accept-Encoding", "gzip;q=nan, br;q=5, x;q=-1")],
    [("Authorization", "Basic dTpwOnc="), ("If-None-Match", '"a", W/"b", *'), ("If-Match", "*")],
    [("Authorization", "Basic !!!"), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")],
    [
        ("Authorization", 'Digest username="u", realm="r", nonce="n"'),
        ("If-Range", '"etag"'),
        ("Range", "bytes=0-5, -3, 7-"),
    ],
    [
        ("Authorization", "Bearer a.b.c=="),
        ("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Range", "bytes=5-1"),
    ],
    [
        ("Authorization", "nothing"),
        ("If-Unmodified-Since", "junk"),
        ("Range", "items=1-2"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ],
    [
        ("Cache-Control", 'max-age=5, no-cache="a, b", only-if-cached, x-y=z, max-stale'),
        ("Pragma", "no-cache, x"),
    ],
    [
        ("X-Forwarded-For", "1.2.3.4, 5.6.7.8"),
        ("X-Forwarded-Proto", "https"),
        ("Max-Forwards", "x"),
        ("Origin", "http://o"),
    ],
    [
        ("Access-Control-Request-Headers", "X-A, x-b"),
        ("Access-Control-Request-Method", "PUT"),
        ("Max-Forwards", "10"),
    ],
    [
        ("Content-Type", 'text/plain; charset="utf-8"; x=y z'),
        ("Content-Encoding", "gzip"),
        ("Content-MD5", "x"),
    ],
    [("X-Twice", "1"), ("X-Twice", "2"), ("x-twice", "3"), ("Accept", "a/b"), ("Accept", "c/d")],
    [
        ("X-Empty", ""),
        ("X-Spaces", "  a  b  "),
        ("X-Tab", "a\tb"),
        ("X-Latin", "é"),
        ("X-Utf", "€".encode().decode("latin1")),
    ],
    [("Range", "bytes=-0"), ("If-Match", '"unclosed'), ("Cookie", "a=b"), ("X-Quoted", '"a\\"b"')],
    [("Range", "bytes=0-18446744073709551616"), ("X-" + "long" * 50, "v" * 5000)],
    [("Host-X", "h"), ("Content-Language", "de"), ("X-1", "n")],
]
TARGETS = [
    "/?a=1&b=2",
    "/?a=1&a=2&a",
    "/?",
    "/?a",
    "/?=b",
    "/?&&a=b&&",
    "/?a=b=c",
    "/?a+b=c+d",
    "/?a%20b=c%20d",
    "/?a=%C3%BC",
    "/?a=%FC",
    "/?a=%",
    "/?a=%2",
    "/?a=%zz",
    "/?a=1;b=2",
    "/?a=" + "x" * 3000,
    "/?%61=%62",
    "/?a=%00",
    "/?a=%0D%0AX:y",
    "/?a[]=1&a[b]=2",
    "/?a=/../&b=?&c=:@",
    "/?a=ü".encode().decode("latin1"),
    "/?a=b?c=d",
    "/?a=&b=&a=",
    "/?a=\"'<>",
    "/x/%25/%2e/é".encode().decode("latin1"),
    "/x/a%2Fb?c",
    "/x//",
    "/x/;p=1",
    "/x/%F0%9F%90%8D?%F0=1",
    "http://absolute.org/?x=1",
    "http://absolute.org:81/x/y",
]


@scene(
    *TARGETS,
    *(ask("/", headers=fields) for fields in FIELDS),
    ask("/", host="h:8080"),
    ask("/", host="[::1]:80"),
    ask("/", host="H.Org"),
    ask("/", host="localhost:80"),
    ask("/", host="localhost:443"),
    ask("HEAD /?a=1"),
    ask("POST /", body="body"),
)
def everything_about_requests(kit: Kit) -> Any:
    app = kit.app()
    request = kit.flask.request

    def view(rest: str = "") -> Any:
        found: dict[str, Any] = {}
        for name in ATTRIBUTES:
            try:
                found[name] = shown(getattr(request, name))
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
        found["headers"] = sorted(
            (k, v) for k, v in request.headers.items() if k.lower() not in {"content-length"}
        )
        found["best"] = request.accept_mimetypes.best_match(["application/json", "text/html", "text/plain"])
        found["languages"] = request.accept_languages.best_match(["en", "de"], "none")
        found["auth"] = request.authorization and [
            request.authorization.type,
            request.authorization.token,
            request.authorization.parameters,
        ]
        found["get"] = [
            request.args.get("a", type=int),
            request.args.getlist("a"),
            request.args.get("a", "d"),
        ]
        found["twice"] = [
            request.headers.get("X-Twice"),
            request.headers.getlist("X-Twice"),
            "x-empty" in request.headers,
        ]
        found["repr"] = repr(request._get_current_object())
        return found

    app.add_url_rule("/", "index", view, methods=["GET", "POST"])
    app.add_url_rule("/x/<path:rest>", "rest", view)
    return app


URLENCODED = "application/x-www-form-urlencoded"
FORMS = [
    ask("POST /", form={"a": "1", "b": "ü €"}),
    ask("POST /", form=[("a", "1"), ("a", "2"), ("", "x"), ("e", "")]),
    *(
        ask("POST /", body=body, headers={"Content-Type": URLENCODED})
        for body in (
            "",
            "a",
            "&&",
            "a=%FC",
            "a=%C3%BC",
            "a=1;b=2",
            "a+b=c%2Bd",
            "=",
            "a=%",
            b"\xff=\xfe",
            "a=" + "x" * 9000,
            "a=1\r\nb=2",
            "a=b=c&d",
        )
    ),
    ask("POST /", body="a=1", headers={"Content-Type": URLENCODED + "; charset=latin1"}),
    ask("POST /", body="a=1"),
    ask("POST /", body="a=1", headers={"Content-Type": "text/plain"}),
    ask("POST /", body="a=1", headers={"Content-Type": URLENCODED.upper()}),
    ask("PUT /?a=q", form={"a": "f"}),
    ask("PATCH /", form={"a": "f"}),
    ask("DELETE /", form={"a": "f"}),
    ask("GET /", form={"a": "f"}),
    ask("POST /", body="a=1", headers={"Content-Type": "application/x-url-encoded"}),
    ask("POST /?a=0&b=1", form={"a": "1"}),
]


def multiparts() -> list[Any]:
    made = [
        multipart(("a", None, None, b"1")),
        multipart(("a", None, None, "ü".encode()), ("a", None, None, b"2"), ("", None, None, b"")),
        multipart(("f", "name.txt", "text/plain", b"hello")),
        multipart(
            ("f", "ü€.txt", "text/plain; charset=utf-8", b"\x00\xff\r\n--\r\n"), ("f", "b.bin", None, b"")
        ),
        multipart(("f", "", "application/octet-stream", b"")),
        multipart(("f", "../../etc/passwd", "x/y", b"p"), ("t", None, "text/plain; charset=latin1", b"\xe9")),
        multipart(("f", "C:\\\\dir\\\\file.txt", "x/y", b"p")),
        multipart(("f", "big", "x/y", b"x" * 100_000), ("a", None, None, b"y" * 1000)),
    ]
    asked = [ask("POST /", headers=headers, body=body) for headers, body in made]
    headers, body = made[2]
    raw = [
        body[:-20],
        body.replace(b"\r\n", b"\n"),
        b"preamble\r\n" + body,
        body + b"epilogue",
        b"",
        b"--frontier--\r\n",
        b"--frontier--",
        body.replace(b"form-data", b"attachment"),
        body.replace(b"Content-Disposition", b"X-Other"),
        body.replace(b'name="f"; ', b""),
        body.replace(b'filename="name.txt"', b"filename*=UTF-8''n%C3%A4me.txt"),
        body.replace(b'"name.txt"', b"name.txt"),
        body.replace(b"--frontier\r\n", b"--frontier  \r\n", 1),
        body.replace(b'"name.txt"', b'"na\\"me.txt"'),
        b"junk",
        body.replace(b"text/plain", b""),
        body.replace(b"\r\n\r\nhello", b"\r\nX-A: b\r\nx-a: c\r\nContent-Length: 99\r\n\r\nhello"),
        body.replace(b'"name.txt"', '"nä"'.encode("latin1")),
        body[2:],
        body.replace(b"hello", b"--frontie\r\n--frontierx\r\n"),
    ]
    asked += [ask("POST /", headers=headers, body=one) for one in raw]
    kinds = [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="frontier"',
        "multipart/form-data; boundary=other",
        "multipart/mixed; boundary=frontier",
        "MULTIPART/FORM-DATA; BOUNDARY=frontier",
        "multipart/form-data; boundary=frontier; x=y",
        "multipart/form-data; boundary=a b",
        "multipart/form-data; boundary=ü",
    ]
    return [*asked, *(ask("POST /", headers={"Content-Type": kind}, body=body) for kind in kinds)]


@scene(*FORMS, *multiparts(), each=["form first", "data first", "values", "stream"])
def forms_and_files(kit: Kit, how: str) -> Any:
    app = kit.app()
    request = kit.flask.request

    @app.route("/", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def index() -> Any:
        found: dict[str, Any] = {}
        if how == "data first":
            found["data"] = len(request.get_data(cache=True))
        if how == "values":
            return {
                "values": sorted(request.values.items(multi=True)),
                "one": request.values.get("a"),
                "data": repr(request.data),
            }
        if how == "stream":
            return {
                "read": [len(request.stream.read(3)), len(request.stream.read())],
                "form": len(request.form),
            }
        found["form"] = list(request.form.items(multi=True))
        found["files"] = [
            (
                name,
                file.filename,
                file.content_type,
                file.mimetype,
                sorted(file.headers),
                file.content_length,
                repr(file.read()[:50]),
            )
            for name, file in request.files.items(multi=True)
        ]
        found["after"] = [repr(request.data[:20]), len(request.get_data()), request.content_length]
        return found

    return app


JSONS = [
    b'{"a": 1}',
    b"[]",
    b"null",
    b'"text"',
    b"1.5",
    b"",
    b"{",
    b'{"a": 1} x',
    b"\xff",
    '{"ü": "€"}'.encode(),
    b"NaN",
    b"1e999",
    b"[1,]",
    b'{"a": 1, "a": 2}',
    b"\xef\xbb\xbf{}",
    '{"a":1}'.encode("utf-16"),
    b" {} ",
    b"true",
    b'"\\ud800"',
    b"-0",
    b"123456789012345678901234567890",
]
KINDS = [
    "application/json",
    "application/json; charset=latin1",
    "application/problem+json",
    "text/json",
    "text/plain",
    "APPLICATION/JSON",
]


@scene(
    *(ask("POST /", body=body, headers={"Content-Type": "application/json"}) for body in JSONS),
    *(ask("POST /", body=b'{"a": 1}', headers={"Content-Type": kind}) for kind in KINDS),
    "GET /",
    ask("POST /", body=b"{}"),
    each=[
        (view, debug)
        for view in ("json", "silent", "force", "property", "is", "own")
        for debug in (False, True)
    ],
)
def json_in(kit: Kit, how: Any) -> Any:
    view, debug = how
    app = kit.app()
    app.debug = debug
    request = kit.flask.request
    read = {
        "json": lambda: request.get_json(),
        "silent": lambda: request.get_json(silent=True),
        "force": lambda: request.get_json(force=True),
        "property": lambda: request.json,
        "is": lambda: request.is_json,
        "own": lambda: [request.get_json(silent=True, cache=False), request.data.decode("latin1")],
    }[view]
    app.add_url_rule("/", "index", lambda: {"got": repr(read())}, methods=["GET", "POST"])
    return app


LIMITS = [
    {"MAX_CONTENT_LENGTH": 50},
    {"MAX_FORM_MEMORY_SIZE": 50},
    {"MAX_FORM_PARTS": 2},
    {"MAX_CONTENT_LENGTH": 0},
    {"MAX_FORM_PARTS": 0},
    {"MAX_FORM_MEMORY_SIZE": None},
    {},
]
PARTS = multipart(*((f"p{n}", None, None, b"1") for n in range(3)))
BIG_PART = multipart(("p", None, None, b"x" * 600_000))
BIG_FILE = multipart(("f", "f", "x/y", b"x" * 600_000))


@scene(
    ask("POST /", form={"a": "x" * 20}),
    ask("POST /", form={"a": "x" * 60}),
    ask("POST /", body="x" * 51),
    ask("POST /data", body="x" * 51),
    ask("POST /data", body="x" * 50),
    ask("POST /", headers=PARTS[0], body=PARTS[1]),
    ask("POST /", headers=BIG_PART[0], body=BIG_PART[1]),
    ask("POST /", headers=BIG_FILE[0], body=BIG_FILE[1]),
    ask("POST /", form={"a": "x" * 600_000}),
    ask("POST /own", form={"a": "x" * 60}),
    ask("POST /unread", body="x" * 51),
    ask("POST /stream", body="x" * 51),
    ask("POST /json", json_body={"a": "x" * 60}),
    "GET /data",
    each=LIMITS,
)
def limits(kit: Kit, settings: dict[str, Any]) -> Any:
    app = kit.app()
    app.config.update(settings)
    request = kit.flask.request
    methods = {"methods": ["GET", "POST"]}
    app.add_url_rule("/", "form", lambda: str([len(request.form), len(request.files)]), **methods)
    app.add_url_rule("/data", "data", lambda: str(len(request.get_data())), **methods)
    app.add_url_rule("/unread", "unread", lambda: "unread", **methods)
    app.add_url_rule("/stream", "stream", lambda: str(len(request.stream.read())), **methods)
    app.add_url_rule("/json", "json", lambda: str(len(request.get_json())), **methods)

    @app.route("/own", methods=["POST"])
    def own() -> str:
        request.max_content_length = 70
        request.max_form_memory_size = 1000
        request.max_form_parts = 10
        return str(
            [
                len(request.form),
                request.max_content_length,
                request.max_form_memory_size,
                request.max_form_parts,
            ]
        )

    return app


@scene(
    "/",
    ask("/", host="good.org"),
    ask("/", host="sub.good.org"),
    ask("/", host="x.any.org"),
    ask("/", host="a_b"),
    each=[None, ["good.org", ".any.org"]],
)
def trusted_hosts(kit: Kit, hosts: Any) -> Any:
    app = kit.app()
    app.config["TRUSTED_HOSTS"] = hosts
    app.add_url_rule("/", "index", lambda: kit.flask.request.host)
    app.register_error_handler(400, lambda error: (f"handled {type(error).__name__}", 400))
    return app
