"""103 Early Hints: `send_early_hints` through every kind of view, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading

import pytest
from http2_frames import END_STREAM, HEADERS, Wire, headers
from http2_frames import request as ask

from hipflask import Flask, Response, _core, request, send_early_hints

PATIENCE = 20
STYLE = "</style.css>; rel=preload; as=style"
SCRIPT = "</app.js>; rel=preload; as=script"
GO = threading.Event()


def application() -> Flask:
    app = Flask(__name__)

    @app.get("/one")
    def one():
        return str(send_early_hints(STYLE))

    @app.route("/body", methods=["POST"])
    def body():
        sent = send_early_hints(STYLE)
        return f"{sent} {len(request.get_data())}"

    @app.get("/async")
    async def later():
        sent = send_early_hints(STYLE)
        await asyncio.sleep(0)
        return str(sent and send_early_hints(SCRIPT, headers={"X-More": "1"}))

    @app.get("/several")
    def several():
        return str([send_early_hints(STYLE, SCRIPT), send_early_hints(headers=[("X-More", "1")])])

    @app.get("/wait")
    def wait():
        send_early_hints(STYLE)
        assert GO.wait(PATIENCE)
        return "waited"

    @app.get("/wait-async")
    async def wait_async():
        send_early_hints(STYLE)
        await asyncio.to_thread(GO.wait, PATIENCE)
        return "waited"

    @app.get("/late")
    def late():
        # The environ is made while the view runs, or after it.
        if "early" in request.args:
            assert request.environ

        def pieces():
            yield "piece "
            try:
                send_early_hints(STYLE)
            except RuntimeError as error:
                yield str(error)

        from hipflask import stream_with_context

        return Response(stream_with_context(pieces()))

    @app.get("/thread")
    def thread():
        send = request.environ["wsgi.early_hints"]
        other = threading.Thread(target=send, args=([("Link", STYLE)],))
        other.start()
        other.join()
        return "sent"

    @app.get("/nested")
    def nested():
        inner = app.test_client().get("/one")
        return f"{inner.text} {len(inner.early_hints)}"

    @app.get("/bad")
    def bad():
        for link in ("a\r\nb: c", "a\x00", "\u20ac"):
            with pytest.raises(ValueError, match="field value|latin-1"):
                send_early_hints(link)
        with pytest.raises(ValueError, match="field name"):
            send_early_hints(headers={"a b": "c"})
        return "refused"

    @app.get("/framing")
    def framing():
        # What frames a message is no hint.
        return str(send_early_hints(STYLE, headers={"Content-Length": "5", "Connection": "close", "TE": "x"}))

    @app.get("/error")
    def error():
        send_early_hints(STYLE)
        raise ZeroDivisionError

    @app.get("/much")
    def much():
        return str(sum(send_early_hints("x" * 1000) for _ in range(1000)))

    @app.get("/plain")
    def plain():
        return "plain"

    return app


def behind_middleware() -> Flask:
    app = application()
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner(environ, start)
    return app


@pytest.fixture(params=[application, behind_middleware], ids=["fast", "full"])
def serve(request):
    servers = []

    def start(setting="all"):
        server = _core.Server(request.param(), ["127.0.0.1:0"], settings={"early_hints": setting})
        server.start()
        servers.append(server)
        host, _, port = server.addresses[0].rpartition(":")
        return host, int(port)

    GO.clear()
    yield start
    GO.set()
    for server in servers:
        assert server.stop(0, PATIENCE)


class Http2:
    """A client of HTTP/2 that keeps interim responses."""

    def __init__(self, address):
        self.wire = Wire(address)
        self.stream = -1

    def ask(self, path, method="GET"):
        self.stream += 2
        self.wire.send(headers(self.stream, ask(method, path)))

    def head(self):
        while True:
            got = self.wire.read()
            if got.kind == HEADERS and got.stream == self.stream:
                fields = self.wire.decoder.decode(got.payload)
                assert fields[0][0] == ":status"
                return int(fields[0][1]), [(n.lower(), v) for n, v in fields[1:]]

    def rest(self, method="GET"):
        """The final response behind its hints."""
        hints = []
        while True:
            got = self.wire.read()
            if got.kind != HEADERS or got.stream != self.stream:
                continue
            fields = self.wire.decoder.decode(got.payload)
            status = int(fields[0][1])
            if status < 200:
                assert not got.flags & END_STREAM
                assert status == 103
                hints.append([(n.lower(), v) for n, v in fields[1:]])
                continue
            body = b""
            while not got.flags & END_STREAM:
                got = self.wire.read()
                if got.kind == 0 and got.stream == self.stream:
                    body += got.payload
            return hints, status, body.decode()

    def get(self, path, method="GET"):
        self.ask(path, method)
        return self.rest()

    def close(self):
        self.wire.close()


class Http1:
    """The same of HTTP/1.1, on one connection."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.file = self.socket.makefile("rb")

    def ask(self, path, method="GET", version="1.1"):
        self.socket.sendall(f"{method} {path} HTTP/{version}\r\nHost: test\r\n\r\n".encode())

    def head(self):
        status = int(self.file.readline().split()[1])
        return status, [(n.lower(), v) for n, v in http.client.parse_headers(self.file).items()]

    def rest(self, method="GET"):
        hints = []
        while (head := self.head())[0] < 200:
            assert head[0] == 103
            hints.append(head[1])
        status, fields = head
        fields = dict(fields)
        if method == "HEAD":
            return hints, status, ""
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                self.file.readline()
            self.file.readline()
        else:
            body = self.file.read(int(fields["content-length"]))
        return hints, status, body.decode()

    def get(self, path, method="GET", **more):
        self.ask(path, method, **more)
        return self.rest(method)

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture
def connect(serve):
    clients = []

    def start(kind, setting="all"):
        clients.append(kind(serve(setting)))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture(params=[Http1, Http2], ids=["http1", "http2"])
def client(request, connect):
    return connect(request.param)


LINK = [("link", STYLE)]
CASES = [
    ("/one", [LINK], 200, "True"),
    ("/several", [[*LINK, ("link", SCRIPT)], [("x-more", "1")]], 200, "[True, True]"),
    ("/async", [LINK, [("link", SCRIPT), ("x-more", "1")]], 200, "True"),
    ("/framing", [LINK], 200, "True"),
    ("/bad", [], 200, "refused"),
    ("/nested", [], 200, "True 1"),
    ("/thread", [LINK], 200, "sent"),
    ("/plain", [], 200, "plain"),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_hints_come_before_the_response(client, case):
    path, hints, status, body = case
    # Twice on one connection, and whatever comes next is in its place.
    for _ in range(2):
        assert client.get(path) == (hints, status, body)
    assert client.get("/plain") == ([], 200, "plain")


def test_an_error_afterwards_is_an_ordinary_one(client, caplog):
    hints, status, body = client.get("/error")
    assert (hints, status) == ([LINK], 500)
    assert "Internal Server Error" in body
    assert client.get("/one")[:2] == ([LINK], 200)


def test_responses_to_head_may_have_them(client):
    assert client.get("/one", "HEAD") == ([LINK], 200, "")
    assert client.get("/one")[1] == 200


@pytest.mark.parametrize("path", ["/wait", "/wait-async"])
def test_they_do_not_wait_for_the_view(client, path):
    client.ask(path)
    assert client.head() == (103, LINK)
    GO.set()
    assert client.rest() == ([], 200, "waited")


@pytest.mark.parametrize("query", ["", "?early"])
def test_after_the_response_has_begun_they_are_an_error(client, query):
    hints, status, body = client.get(f"/late{query}")
    assert (hints, status) == ([], 200)
    # Without an environ from before, a server of HTTP/1.1 cannot tell whether it is to send any at all.
    assert body in ("piece ", "piece early hints are sent before the response")
    if query or isinstance(client, Http2):
        assert body != "piece "


def test_what_one_request_may_send_is_bounded(client):
    hints, status, body = client.get("/much")
    assert status == 200
    assert 10 < len(hints) == int(body) < 70


@pytest.mark.parametrize(
    ("setting", "kind", "hints"),
    [("off", Http1, 0), ("off", Http2, 0), ("http2", Http1, 0), ("http2", Http2, 1), ("all", Http1, 1)],
)
@pytest.mark.parametrize("path", ["/one", "/async"])
def test_the_setting_says_who_gets_them(connect, setting, kind, hints, path):
    client = connect(kind, setting)
    found, status, body = client.get(path)
    assert (bool(found), status, body) == (bool(hints), 200, str(bool(hints)))


def test_clients_of_http_1_0_get_none(connect):
    client = connect(Http1)
    assert client.get("/one", version="1.0") == ([], 200, "False")


def test_pipelined_requests_keep_their_order(connect):
    client = connect(Http1)
    # Routes that have run a few times run on the leader, whose answers go out together.
    for _ in range(20):
        assert client.get("/one")[0] == [LINK]
    paths = ["/plain", "/one", "/async", "/one", "/plain"] * 4
    client.socket.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for path in paths))
    for path in paths:
        hints, status, body = client.rest()
        assert status == 200
        assert body == ("plain" if path == "/plain" else str(bool(hints)))


@pytest.mark.parametrize("expect", [False, True])
def test_a_body_that_arrives_meanwhile_is_no_trouble(connect, expect):
    client = connect(Http1)
    size = 1 << 20
    lines = ["POST /body HTTP/1.1", "Host: test", f"Content-Length: {size}"]
    if expect:
        lines.append("Expect: 100-continue")
    client.socket.sendall("\r\n".join([*lines, "", ""]).encode())
    if expect:
        assert client.head()[0] == 100
    client.socket.sendall(bytes(size))
    # A 100 may come with it, so there are no hints.
    assert client.rest() == ([], 200, f"False {size}")


def test_the_test_client_shows_them():
    client = application().test_client()
    for path in ("/several", "/async"):
        response = client.get(path)
        assert len(response.early_hints) == 2
        assert response.early_hints[0].getlist("Link")[0] == STYLE
        assert response.early_hints[1]["X-More"] == "1"
    assert client.get("/plain").early_hints == []


def test_other_servers_may_know_them_or_not():
    app = application()

    def call(path, **more):
        environ = app.create_url_adapter  # an app without a server
        assert environ
        from hipflask.werkzeug.test import create_environ, run_wsgi_app

        pieces, status, _ = run_wsgi_app(app, {**create_environ(path), **more})
        return status, b"".join(pieces).decode()

    assert call("/one") == ("200 OK", "False")
    sent = []
    # `wsgi.early_hints` of others returns nothing.
    assert call("/one", **{"wsgi.early_hints": sent.append}) == ("200 OK", "True")
    assert sent == [[("Link", STYLE)]]


def test_outside_of_a_request_there_is_nobody_to_tell():
    with pytest.raises(RuntimeError, match="request context"):
        send_early_hints(STYLE)


def test_under_asgi_servers_their_extension_is_used():
    app = application()
    sent = []

    async def run(path, extensions):
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "http_version": "2",
            "scheme": "https",
            "headers": [(b"host", b"test")],
            "extensions": extensions,
        }
        await app.asgi_app(scope, receive, send)

    for path in ("/one", "/async"):
        sent.clear()
        asyncio.run(run(path, {"http.response.early_hint": {}}))
        assert sent[0] == {"type": "http.response.early_hint", "links": [STYLE.encode()]}
        assert sent[-1]["body"] == b"True"
    sent.clear()
    asyncio.run(run("/one", None))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def hosted(scope, receive, send):
    """An ASGI application."""
    if "http.response.early_hint" in scope["extensions"]:
        await send({"type": "http.response.early_hint", "links": [STYLE.encode(), SCRIPT.encode()]})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    try:
        await send({"type": "http.response.early_hint", "links": []})
    except (RuntimeError, ValueError):
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(("kind", "hints"), [(Http1, []), (Http2, [[*LINK, ("link", SCRIPT)]])])
def test_applications_of_asgi_send_them_too(kind, hints):
    from hipflask.asgi import Host

    server = _core.Server(Host(hosted), ["127.0.0.1:0"])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    client = kind((host, int(port)))
    assert client.get("/") == (hints, 200, "ok")
    client.close()
    assert server.stop(0, PATIENCE)
