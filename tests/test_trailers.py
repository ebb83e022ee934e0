"""Trailers of requests and responses: over HTTP/1.1 and HTTP/2, for sync and async views, WSGI and ASGI."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import tempfile
from typing import Any

import pytest
from http2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Wire, block, frame, headers
from http2_frames import request as ask

from hipflask import Flask, Response, _core, request, send_file, stream_request_body
from hipflask.asgi import Host

PATIENCE = 20
CHUNKED = "Transfer-Encoding: chunked\r\n"
TE = "TE: trailers\r\n"


def application() -> Flask:
    app = Flask(__name__)

    def seen(before, data) -> dict[str, Any]:
        return {
            "before": before,
            "data": data,
            "after": [list(pair) for pair in request.trailers],
            "merged": [
                *(name for name in ("X-Sum", "Host-2") if name in request.headers),
                *(key for key in request.environ if "X_SUM" in key),
            ],
            "host": request.host,
        }

    @app.post("/data")
    def data():
        before = [list(pair) for pair in request.trailers]
        return seen(before, request.get_data(as_text=True))

    @app.post("/pieces")
    def pieces():
        got = []
        while piece := request.stream.read(3):
            got.append(piece.decode())
        return seen([], "".join(got))

    @app.post("/form")
    def form():
        return seen([], request.form.to_dict())

    @app.post("/file")
    def file():
        return seen([], request.files["file"].read().decode())

    @app.post("/async")
    async def later():
        return seen([], (await request.get_data_async()).decode())

    @app.post("/stream")
    @stream_request_body
    async def stream():
        before = [list(pair) for pair in request.trailers]
        got = [piece.decode() async for piece in request.body]
        return seen(before, "".join(got))

    @app.post("/environ")
    def environ():
        request.get_data()
        return {"after": request.environ["hipflask.trailers"]()}

    @app.post("/unread")
    def unread():
        return {"after": [list(pair) for pair in request.trailers], "data": "unread"}

    @app.post("/frozen")
    def frozen():
        request.get_data()
        with pytest.raises(TypeError):
            request.trailers["X-New"] = "1"  # type: ignore[index]
        return {"sum": request.trailers.get("x-SUM"), "all": request.trailers.getlist("X-Sum")}

    @app.route("/out/<kind>")
    def out(kind):
        digest = hashlib.sha256()

        def made():
            for piece in (b"one ", b"two"):
                digest.update(piece)
                yield piece

        async def awaited():
            for piece in made():
                await asyncio.sleep(0)
                yield piece

        if kind == "file":
            with tempfile.NamedTemporaryFile("wb", suffix=".txt") as kept:
                kept.write(b"one two")
                kept.flush()
                response = send_file(kept.name)
        else:
            bodies = {"whole": "one two", "list": ["one ", "two"], "sync": made(), "async": awaited()}
            response = Response(bodies[kind], status=int(request.args.get("status", 200)))
        response.trailers["X-Known"] = "k\xe4"
        response.call_for_trailers(lambda: {"X-Sum": digest.hexdigest()[:8]})
        response.call_for_trailers(lambda: None)
        return response

    @app.get("/bad/<which>")
    def bad(which):
        fields: Any = {
            "forbidden": [("Content-Length", "5")],
            "name": [("a b", "c")],
            "line": [("X", "a\r\nb: c")],
            "nul": [("X", "a\0")],
            "odd": [("X",)],
        }[which]

        def pieces():
            yield "part"

        response = Response(pieces() if "streamed" in request.args else "part")
        response.call_for_trailers(lambda: fields)
        return response

    @app.get("/broken")
    def broken():
        def pieces():
            yield "part"
            raise ValueError("expected by this test")

        response = Response(pieces())
        response.trailers["X-Known"] = "k"
        return response

    return app


@pytest.fixture(scope="module", params=["fast", "full"])
def address(request):
    app = application()
    if request.param == "full":
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start_response: inner(environ, start_response)  # type: ignore[method-assign]
    server = _core.Server(app, ["127.0.0.1:0"])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    yield host, int(port)
    assert server.stop(0, PATIENCE)


@pytest.fixture
def serve():
    servers = []

    def start(app: Any) -> tuple[str, int]:
        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        servers.append(server)
        host, _, port = server.addresses[0].rpartition(":")
        return host, int(port)

    yield start
    for server in servers:
        assert server.stop(0, PATIENCE)


def exchange(address: tuple[str, int], *parts: str | bytes) -> tuple[int, str, bytes]:
    """Send bytes, each part in a segment of its own; give status, head and what follows it."""
    with socket.create_connection(address, PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.sendall(part.encode() if isinstance(part, str) else part)
        got = b""
        try:
            while data := client.recv(65536):
                got += data
        except ConnectionResetError:
            pass
    head, _, rest = got.partition(b"\r\n\r\n")
    return int(head[9:12] or 0), head.decode("latin1"), rest


def post(path: str, fields: str = CHUNKED) -> str:
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n"


def json_of(answer: tuple[int, str, bytes]) -> Any:
    import json

    assert answer[0] == 200, answer
    return json.loads(answer[2])


WHOLE = "5\r\nhello\r\n0\r\nX-Sum: 5\r\nX-Sum: 6\r\nHost: evil\r\nContent-Length: 9\r\nX_Sum: 7\r\n\r\n"
# As `request.headers` has fields: names as in titles, several of one name as one.
SUMS = [["X-Sum", "5,6"]]


@pytest.mark.parametrize("path", ["/data", "/pieces", "/async", "/stream"])
@pytest.mark.parametrize("cut", [0, 3, 12, 20, len(WHOLE) - 3])
def test_trailers_of_a_request_are_there_when_its_body_has_been_read(address, path, cut):
    parts = (post(path), WHOLE[:cut], WHOLE[cut:]) if cut else (post(path) + WHOLE,)
    got = json_of(exchange(address, *parts))
    expected = {"before": [], "data": "hello", "after": SUMS, "merged": [], "host": "h"}
    assert got == expected


@pytest.mark.parametrize("path", ["/data", "/pieces", "/async", "/stream"])
def test_an_empty_body_may_have_trailers(address, path):
    got = json_of(exchange(address, post(path) + "0\r\nX-Sum: 5\r\n\r\n"))
    assert (got["data"], got["after"]) == ("", [["X-Sum", "5"]])
    got = json_of(exchange(address, post(path) + "0\r\n\r\n"))
    assert (got["data"], got["after"]) == ("", [])


def test_trailers_follow_forms(address):
    urlencoded = CHUNKED + "Content-Type: application/x-www-form-urlencoded\r\n"
    got = json_of(exchange(address, post("/form", urlencoded) + "3\r\na=b\r\n0\r\nX-Sum: 5\r\n\r\n"))
    assert (got["data"], got["after"]) == ({"a": "b"}, [["X-Sum", "5"]])
    content = "x" * 300_000
    part = (
        "--B\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n"
        + content
        + "\r\n--B--\r\nepilogue"
    )
    multipart = CHUNKED + "Content-Type: multipart/form-data; boundary=B\r\n"
    body = f"{len(part):x}\r\n{part}\r\n0\r\nX-Sum: 5\r\n\r\n"
    got = json_of(exchange(address, post("/file", multipart), body))
    assert (got["data"], got["after"]) == (content, [["X-Sum", "5"]])


def test_the_environ_has_them_and_they_cannot_be_changed(address):
    got = json_of(exchange(address, post("/environ") + WHOLE))
    assert got == {"after": [["X-Sum", "5"], ["X-Sum", "6"]]}
    assert json_of(exchange(address, post("/frozen") + WHOLE)) == {"sum": "5,6", "all": ["5,6"]}
    assert json_of(exchange(address, post("/unread") + WHOLE))["after"] == []


def test_digests_of_the_content_may_trail_it(address):
    sent = "0\r\nContent-Digest: sha-256=:x:\r\nRepr-Digest: y\r\nContent-Type: z\r\n\r\n"
    got = json_of(exchange(address, post("/data") + sent))
    assert got["after"] == [["Content-Digest", "sha-256=:x:"], ["Repr-Digest", "y"]]


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        ("A: b\r\n" * 32, 200),
        ("A: b\r\n" * 33, 431),
        ("A: " + "b" * 9000 + "\r\n", 431),
        ("A : b\r\n", 400),
        (" A: b\r\n", 400),
        ("A\r\n", 400),
        ("A: b\n", 400),
        ("A: b\0\r\n", 400),
        ("Content_Length: 5\r\n", 400),
        ("A: b\r\nGET /unread HTTP/1.1\r\n", 400),
    ],
    ids=["most", "many", "long", "space", "folded", "no-colon", "line-feed", "nul", "shadow", "request"],
)
def test_trailers_are_checked_as_fields_are(address, trailers, status):
    assert exchange(address, post("/data") + "0\r\n" + trailers + "\r\n")[0] == status


def test_a_request_behind_trailers_is_read_as_one(address):
    behind = "POST /data HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    first = post("/data").replace("Connection: close\r\n", "")
    _, _, rest = exchange(address, first + WHOLE + behind)
    assert rest.count(b"HTTP/1.1 200") == 1
    assert rest.endswith(b'"after":[],"before":[],"data":"x","host":"h","merged":[]}\n')


# Requests over HTTP/2.


def upload(length: bool, *frames: bytes, path: str = "/data") -> bytes:
    more = [("content-length", "5")] if length else []
    return headers(1, ask("POST", path, *more), END_HEADERS) + b"".join(frames)


TRAILERS = headers(1, block(("x-sum", "5"), ("host", "evil"), ("x-sum", "6")))


@pytest.mark.parametrize("path", ["/data", "/pieces", "/async", "/stream"])
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("cut", [False, True])
def test_trailers_come_as_headers_of_http2(address, path, length, cut):
    import json

    wire = Wire(address)
    frames = [upload(length, path=path), frame(DATA, 0, 1, b"hel"), frame(DATA, 0, 1, b"lo"), TRAILERS]
    for part in frames if cut else [b"".join(frames)]:
        wire.send(part)
    status, _, body = wire.response()
    wire.close()
    got = json.loads(body)
    assert (status, got["data"], got["merged"]) == (200, "hello", [])
    assert got["after"] == SUMS


@pytest.mark.parametrize("path", ["/data", "/stream"])
@pytest.mark.parametrize(
    "end",
    [frame(DATA, END_STREAM, 1, b"hello"), frame(DATA, 0, 1, b"hello") + frame(DATA, END_STREAM, 1, b"")],
    ids=["with-data", "apart"],
)
def test_a_body_of_http2_without_trailers_has_none(address, path, end):
    import json

    wire = Wire(address)
    wire.send(upload(True, end, path=path))
    status, _, body = wire.response()
    wire.close()
    got = json.loads(body)
    assert (status, got["data"], got["after"]) == (200, "hello", [])


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("path", ["/data", "/async", "/stream"])
def test_trailers_of_http2_have_the_same_limits(address, length, path):
    wire = Wire(address)
    many = block(*[("a", "b")] * 40)
    wire.send(upload(length, frame(DATA, 0, 1, b"hello"), headers(1, many), path=path))
    status, _, _ = wire.response()
    wire.close()
    # A view that reads sees a broken body, which is a 400.
    assert status in (400, 431)


def test_an_announced_empty_body_of_http2_may_have_trailers(address):
    import json

    wire = Wire(address)
    wire.send(headers(1, ask("POST", "/data", ("content-length", "0")), END_HEADERS) + TRAILERS)
    _, _, body = wire.response()
    wire.close()
    assert json.loads(body)["after"] == SUMS


# Responses.


def decoded(rest: bytes) -> tuple[bytes, bytes]:
    """Body and trailer section of a body in chunks."""
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            return body, rest
        body, rest = body + rest[:count], rest[count + 2 :]


KINDS = ["whole", "list", "sync", "async", "file"]
SUM = hashlib.sha256(b"one two").hexdigest()[:8]
NOTHING = hashlib.sha256().hexdigest()[:8]


def sum_of(kind: str) -> str:
    return SUM if kind in ("sync", "async") else NOTHING


@pytest.mark.parametrize("kind", KINDS)
def test_trailers_follow_a_response_in_chunks(address, kind):
    status, head, rest = exchange(
        address, f"GET /out/{kind} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{TE}\r\n"
    )
    assert status == 200
    assert "\r\nTrailer: X-Known\r\n" in head
    assert "\r\nTransfer-Encoding: chunked\r\n" in head
    assert "content-length" not in head.lower()
    body, section = decoded(rest)
    assert body == b"one two"
    assert section == f"X-Known: k\xe4\r\nX-Sum: {sum_of(kind)}\r\n\r\n".encode("latin1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "version", "fields", "query"),
    [
        ("GET", "1.1", "", ""),
        ("GET", "1.1", "TE: gzip\r\n", ""),
        ("GET", "1.0", TE, ""),
        ("HEAD", "1.1", TE, ""),
        ("GET", "1.1", TE, "?status=204"),
        ("GET", "1.1", TE, "?status=304"),
    ],
    ids=["silent", "gzip", "old", "head", "204", "304"],
)
def test_who_takes_no_trailers_gets_none(address, kind, method, version, fields, query):
    if kind == "file" and query:
        pytest.skip("a file's status is its own")
    line = f"{method} /out/{kind}{query} HTTP/{version}\r\nHost: h\r\nConnection: close\r\n{fields}\r\n"
    _, head, rest = exchange(address, line)
    assert "trailer" not in head.lower()
    assert b"X-Known" not in rest
    if method == "HEAD" or query:
        assert rest == b""
    else:
        body = decoded(rest)[0] if "chunked" in head else rest
        assert body == b"one two"


def response_of(wire: Wire) -> tuple[list[tuple[str, str]], bytes, list[tuple[str, str]], bool]:
    """Head, body and trailers of stream 1, and whether it ended well."""
    blocks: list[list[tuple[str, str]]] = []
    body = b""
    while (got := wire.read()) is not None:
        if got.stream != 1:
            continue
        if got.kind == HEADERS:
            fields = wire.decoder.decode(got.payload, raw=True)
            blocks.append([(name.decode(), value.decode("latin1")) for name, value in fields])
        elif got.kind == DATA:
            body += got.payload
        elif got.kind == RST_STREAM:
            return [], body, [], False
        if got.flags & END_STREAM and got.kind in (DATA, HEADERS):
            return blocks[0], body, blocks[1] if len(blocks) > 1 else [], True
    raise AssertionError("closed")


@pytest.mark.parametrize("kind", ["whole", "list", "sync", "async"])
def test_trailers_end_a_stream_of_http2(address, kind):
    wire = Wire(address)
    query = "/out/" + kind
    wire.send(headers(1, ask("GET", query)))
    _, body, trailers, whole = response_of(wire)
    wire.close()
    assert (body, whole) == (b"one two", True)
    assert ("x-sum", sum_of(kind)) in trailers


@pytest.mark.parametrize("which", ["forbidden", "name", "line", "nul", "odd"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_trailer_that_cannot_be_sent_is_an_error(address, which, streamed, caplog):
    caplog.set_level(logging.CRITICAL)
    query = "?streamed=1" if streamed else ""
    status, _, rest = exchange(
        address, f"GET /bad/{which}{query} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{TE}\r\n"
    )
    assert b"b: c" not in rest
    if status == 200:
        # The head was out: the client sees that the body is not whole. The full lane sends it early.
        assert not rest.endswith(b"0\r\n\r\n")
    else:
        assert (status, streamed) == (500, False)


def test_a_view_that_fails_in_the_middle_sends_no_trailers(address, caplog):
    caplog.set_level(logging.CRITICAL)
    _, _, rest = exchange(address, f"GET /broken HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{TE}\r\n")
    assert b"X-Known" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    wire = Wire(address)
    wire.send(headers(1, ask("GET", "/broken")))
    _, _, trailers, whole = response_of(wire)
    wire.close()
    assert (trailers, whole) == ([], False)


def test_the_error_says_what_is_wrong():
    with pytest.raises(ValueError, match='\'?"Content-Length" cannot be a trailer'):
        _core.checked_trailers({"Content-Length": "5"})
    with pytest.raises(ValueError, match="not allowed in a header"):
        _core.checked_trailers([("a", "b\r\nc: d")])
    assert _core.checked_trailers(lambda: [("a", "b")]) == [(b"a", b"b")]


@pytest.mark.parametrize("kind", ["whole", "list", "sync", "async"])
@pytest.mark.parametrize("buffered", [False, True])
def test_the_test_client_has_them(kind, buffered):
    response = application().test_client().get(f"/out/{kind}", buffered=buffered)
    if kind == "sync" and not buffered:
        assert list(response.trailers) == []
    assert response.data == b"one two"
    assert list(response.trailers) == [("X-Known", "k\xe4"), ("X-Sum", sum_of(kind))]
    assert list(application().test_client().head(f"/out/{kind}").trailers) == []


# WSGI and ASGI.


def test_a_wsgi_application_has_both(serve):
    def app(environ, start_response):
        data = environ["wsgi.input"].read()
        received = environ["hipflask.trailers"]()
        send = environ.get("hipflask.send_trailers")
        if send is not None:
            send(lambda: [("X-Back", received[0][1]), ("X-Length", environ["CONTENT_LENGTH"])])
        start_response("200 OK", [("Content-Length", str(len(data))), ("Trailer", "X-Back")])
        return [data] if "list" in environ["PATH_INFO"] else iter([data[:2], data[2:]])

    address = serve(app)
    for path in ("/list", "/pieces"):
        _, head, rest = exchange(address, post(path, CHUNKED + TE) + WHOLE)
        assert "chunked" in head
        assert decoded(rest) == (b"hello", b"X-Back: 5\r\nX-Length: 5\r\n\r\n")
        _, head, rest = exchange(address, post(path) + WHOLE)
        assert ("Content-Length: 5" in head, rest) == (True, b"hello")


@pytest.mark.parametrize("more", [False, True])
def test_an_asgi_application_has_both(serve, more):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope["extensions"])
        body, trailers = b"", []
        while True:
            message = await receive()
            body += message["body"]
            trailers += message.get("trailers", [])
            if not message["more_body"]:
                break
        start = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
        await send(start)
        if more:
            await send({"type": "http.response.body", "body": body[:2], "more_body": True})
            body = body[2:]
        await send({"type": "http.response.body", "body": body})
        await send({"type": "http.response.trailers", "headers": trailers[:1], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-last", b"1")]})

    address = serve(Host(app, "off"))
    _, _, rest = exchange(address, post("/", CHUNKED + TE) + WHOLE)
    assert decoded(rest) == (b"hello", b"x-sum: 5\r\nx-last: 1\r\n\r\n")
    _, _, rest = exchange(address, post("/") + WHOLE)
    assert decoded(rest) == (b"hello", b"\r\n")
    assert [sorted(scope) for scope in scopes] == [
        ["hipflask.request.trailers", "http.response.pathsend", "http.response.trailers"],
        ["hipflask.request.trailers", "http.response.pathsend"],
    ]
    wire = Wire(address)
    wire.send(upload(True, frame(DATA, 0, 1, b"hello"), TRAILERS))
    _, body, trailers, _ = response_of(wire)
    wire.close()
    assert (body, trailers) == (b"hello", [("x-sum", "5"), ("x-last", "1")])


@pytest.mark.parametrize("kind", ["whole", "list", "sync", "async"])
def test_our_application_on_a_server_of_asgi(serve, kind):
    address = serve(Host(application().asgi_app, "off"))
    _, _, rest = exchange(address, f"GET /out/{kind} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{TE}\r\n")
    body, section = decoded(rest)
    assert (body, section) == (
        b"one two",
        f"x-known: k\xe4\r\nx-sum: {sum_of(kind)}\r\n\r\n".encode("latin1"),
    )
    _, head, rest = exchange(address, f"GET /out/{kind} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b"x-known" not in rest
    got = json_of(exchange(address, post("/data") + WHOLE))
    assert got["data"] == "hello"


# Uploads of an unknown length to applications of others.


@pytest.mark.parametrize("size", [0, 5, 700_000])
@pytest.mark.parametrize("cut", [False, True])
def test_a_wsgi_application_is_told_the_length_of_an_upload_in_chunks(serve, size, cut):
    def app(environ, start_response):
        length = environ["CONTENT_LENGTH"]
        assert "HTTP_TRANSFER_ENCODING" not in environ
        assert environ["wsgi.input_terminated"]
        data = environ["wsgi.input"].read(int(length))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{length} {len(data)} {environ['wsgi.input'].read(1)}".encode()]

    address = serve(app)
    body = f"{size:x}\r\n{'x' * size}\r\n0\r\n\r\n" if size else "0\r\n\r\n"
    parts = (post("/"), body[: size // 2], body[size // 2 :]) if cut else (post("/") + body,)
    expected = f"{size} {size} b''".encode()
    status, head, rest = exchange(address, *parts)
    assert (status, decoded(rest)[0] if "chunked" in head else rest) == (200, expected)


def test_bottle_and_flask_read_uploads_in_chunks(serve):
    import bottle
    import flask

    theirs = bottle.Bottle()
    theirs.post("/", callback=lambda: bottle.request.body.read())
    flasks = flask.Flask("theirs")
    flasks.add_url_rule("/", "index", lambda: flask.request.get_data(), methods=["POST"])
    for app in (theirs, flasks):
        status, _, rest = exchange(serve(app), post("/") + WHOLE)
        assert (status, rest) == (200, b"hello")
