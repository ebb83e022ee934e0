"""WebSockets over HTTP/2: what RFC 8441 requires of the stream they live on.

Their behaviour, the same as over HTTP/1.1, is tested in `test_websocket.py`.
"""

from __future__ import annotations

import struct
import threading

import pytest
from http2_frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    block,
    frame,
    headers,
    settings,
)
from http2_frames import request as ask
from http2_gateway import Gateway
from raw_websocket import frame as message
from websockets.sync.client import connect

from hipflask import Flask, _core, request
from hipflask.websocket import ConnectionClosed

PATIENCE = 20
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
VERSION = ("sec-websocket-version", "13")
PSEUDO = {
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":scheme": "http",
    ":authority": "test",
    ":path": "/echo",
}


def application() -> Flask:
    app = Flask(__name__)
    app.ends = []
    app.ended = threading.Semaphore(0)

    def end(error):
        app.ends.append((error.reason, error.message))
        app.ended.release()

    @app.websocket("/echo")
    def echo(ws):
        ws.accept(headers={"X-View": "echo"})
        try:
            while True:
                ws.send(ws.receive())
        except ConnectionClosed as error:
            end(error)

    @app.websocket("/async")
    async def later(ws):
        try:
            while True:
                await ws.send(await ws.receive())
        except ConnectionClosed as error:
            end(error)

    @app.websocket("/held")
    def held(ws):
        ws.on_message(ws.send)
        ws.on_close(lambda reason, message: end(ConnectionClosed(reason, message)))

    @app.websocket("/quiet", ping_interval=0.1, ping_timeout=0.05)
    def quiet(ws):
        try:
            ws.receive()
        except ConnectionClosed as error:
            end(error)

    @app.websocket("/much")
    def much(ws):
        for _ in range(64):
            ws.send(bytes(64 * 1024))

    @app.websocket("/about")
    def about(ws):
        ws.send(
            " ".join(
                [
                    request.method,
                    request.scheme,
                    request.host,
                    request.environ["SERVER_PROTOCOL"],
                    request.path,
                ]
            )
        )

    @app.websocket("/value")
    def value(ws):
        return "a value"

    @app.route("/")
    def index():
        return "hello"

    return app


@pytest.fixture
def app():
    return application()


@pytest.fixture
def server(app):
    server = _core.Server(app, ["127.0.0.1:0"])
    server.start()
    yield server
    assert server.stop(0, PATIENCE)


@pytest.fixture
def wire(server):
    host, _, port = server.addresses[0].rpartition(":")
    wire = Wire((host, int(port)))
    yield wire
    wire.close()


def asking(stream=1, flags=END_HEADERS, more=(VERSION,), **changed):
    """An extended CONNECT; `changed` pseudo-fields, None for none."""
    pseudo = PSEUDO | {f":{name}": value for name, value in changed.items()}
    return headers(stream, block(*((n, v) for n, v in pseudo.items() if v is not None), *more), flags)


class Tunnel:
    """An open stream of a wire."""

    def __init__(self, wire: Wire, path: str, stream: int = 1) -> None:
        self.wire, self.stream = wire, stream
        self.buffer = b""
        self.ended = False
        self.reset: int | None = None
        wire.send(asking(stream, path=path))
        got = self.until(HEADERS)
        self.fields = dict(wire.decoder.decode(got.payload))

    def until(self, kind):
        while True:
            got = self.wire.read()
            assert got is not None, "the connection has ended"
            if got.kind == kind and got.stream == self.stream:
                return got

    def send(self, data: bytes, flags: int = 0) -> None:
        self.wire.send(frame(DATA, flags, self.stream, data))

    def more(self) -> bool:
        """Take the next frame of the stream; false at its end."""
        got = self.wire.read()
        assert got is not None, "the connection has ended"
        if got.stream != self.stream:
            return True
        if got.kind == RST_STREAM:
            self.reset = int.from_bytes(got.payload, "big")
            return False
        if got.kind == DATA:
            self.buffer += got.payload
            self.ended = bool(got.flags & END_STREAM)
        return not self.ended

    def receive(self) -> tuple[int, bytes]:
        """The next message of less than 126 bytes."""
        while len(self.buffer) < 2 or len(self.buffer) < 2 + self.buffer[1]:
            assert self.more(), "the stream has ended"
        size = self.buffer[1]
        first, payload, self.buffer = self.buffer[0], self.buffer[2 : 2 + size], self.buffer[2 + size :]
        return first, payload

    def end(self) -> tuple[bytes, bool, int | None]:
        """Read to the end: bytes, whether the stream was ended, or how it was reset."""
        while self.more():
            pass
        return self.buffer, self.ended, self.reset


def test_the_settings_offer_it(server, wire):
    while (got := wire.read()) is not None and not (got.kind == SETTINGS and not got.flags):
        pass
    pairs = dict(struct.iter_unpack(">HI", got.payload))
    assert pairs[8] == 1


def answered(status):
    return {("status", status)}


MALFORMED = {("reset", PROTOCOL_ERROR), ("goaway", PROTOCOL_ERROR), ("status", 400)}

# Section of RFC 8441 (or RFC 9113), what is asked, the bytes, the outcomes that are right.
CASES = [
    ("4", ":protocol without CONNECT", asking(method="GET"), MALFORMED),
    ("4", "no scheme", asking(scheme=None), MALFORMED),
    ("4", "no path", asking(path=None), MALFORMED),
    ("4", "an empty path", asking(path=""), MALFORMED),
    ("4", "no authority", asking(authority=None), MALFORMED),
    ("4", "a protocol that nobody knows", asking(protocol="connect-udp"), answered(501)),
    ("4", "an empty protocol", asking(protocol=""), MALFORMED | answered(501)),
    (
        "4",
        ":protocol twice",
        headers(1, block(*PSEUDO.items(), (":protocol", "websocket"), VERSION), END_HEADERS),
        MALFORMED,
    ),
    (
        "9113 8.3",
        ":protocol after a field",
        headers(
            1, block(*(p for p in PSEUDO.items() if p[0] != ":protocol"), VERSION, (":protocol", "websocket"))
        ),
        MALFORMED,
    ),
    (
        "9113 8.5",
        "a CONNECT without :protocol",
        headers(1, block((":method", "CONNECT"), (":authority", "test:1"))),
        answered(501) | MALFORMED,
    ),
    ("3", "ENABLE_CONNECT_PROTOCOL of 2", settings((8, 2)) + asking(), MALFORMED),
    ("5", "another path", asking(path="/nothing"), answered(404)),
    ("5", "a view that is no WebSocket's", asking(path="/"), answered(400)),
    ("5", "a view that opens none", asking(path="/value"), answered(400)),
    ("5", "a GET for a WebSocket's view", headers(1, ask("GET", "/echo")), answered(400)),
    ("5", "no version", asking(more=()), answered(400)),
    ("5", "another version", asking(more=[("sec-websocket-version", "8")]), answered(426)),
    ("5", "a content-length", asking(more=[VERSION, ("content-length", "5")]), MALFORMED),
    ("5", "an Upgrade field", asking(more=[VERSION, ("upgrade", "websocket")]), MALFORMED),
    ("5", "a Connection field", asking(more=[VERSION, ("connection", "upgrade")]), MALFORMED),
    ("5", "bad extensions", asking(more=[VERSION, ("sec-websocket-extensions", "a b")]), answered(400)),
    ("5", "bad subprotocols", asking(more=[VERSION, ("sec-websocket-protocol", "a, a")]), answered(400)),
    ("5", "a page of another host", asking(more=[VERSION, ("origin", "http://evil.test")]), answered(403)),
    ("5", "HEAD of a page beside", headers(1, ask("HEAD", "/")), answered(200)),
]


@pytest.mark.parametrize(
    ("sent", "right"), [case[2:] for case in CASES], ids=[f"{case[0]}: {case[1]}" for case in CASES]
)
def test_requests(wire, sent, right):
    wire.send(sent)
    assert wire.outcome() in right
    if {what for what, _ in right} == {"status"}:
        # The connection is as good as before.
        wire.send(headers(3, ask("GET", "/")))
        assert wire.outcome(3) == ("status", 200)


@pytest.mark.parametrize("path", ["/echo", "/async", "/held"])
def test_messages_and_the_close_handshake(app, wire, path):
    tunnel = Tunnel(wire, path)
    assert tunnel.fields[":status"] == "200"
    assert not {"upgrade", "connection", "sec-websocket-accept", "content-length"} & tunnel.fields.keys()
    for text in (b"one", b"two"):
        tunnel.send(message(TEXT, text))
        assert tunnel.receive() == (TEXT, text)
    # A message in pieces, with the frames of HTTP/2 where they like.
    for at, byte in enumerate(data := message(TEXT, b"bytes")):
        tunnel.send(bytes([byte]))
        assert at < len(data)
    assert tunnel.receive() == (TEXT, b"bytes")
    tunnel.send(message(PING, b"?"))
    assert tunnel.receive() == (PONG, b"?")
    tunnel.send(message(CLOSE, struct.pack("!H", 4001) + b"bye"), END_STREAM)
    assert tunnel.end() == (b"\x88\x05\x0f\xa1bye", True, None)
    assert app.ended.acquire(timeout=PATIENCE)
    assert app.ends == [(4001, "bye")]


def test_fields_of_the_view_are_in_the_answer(wire):
    assert Tunnel(wire, "/echo").fields["x-view"] == "echo"


def test_what_the_view_sees(wire):
    assert Tunnel(wire, "/about").receive() == (TEXT, b"GET http test HTTP/2 /about")


@pytest.mark.parametrize("path", ["/echo", "/async", "/held"])
@pytest.mark.parametrize("how", ["end", "cancel", "connection"])
def test_an_end_without_a_close_is_an_abnormal_one(app, wire, path, how):
    tunnel = Tunnel(wire, path)
    tunnel.send(message(TEXT, b"a"))
    assert tunnel.receive() == (TEXT, b"a")
    if how == "end":
        # The end of the stream is that of a TCP connection, and answered so (RFC 8441, section 5).
        tunnel.send(b"", END_STREAM)
        assert tunnel.end() == (b"", True, None)
    elif how == "cancel":
        wire.send(frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL)))
    else:
        wire.close()
    assert app.ended.acquire(timeout=PATIENCE)
    assert app.ends == [(1006, "")]


def test_a_stream_that_ends_with_its_head_is_a_connection_closed_at_once(app, wire):
    wire.send(asking(flags=END_HEADERS | END_STREAM))
    assert wire.outcome() == ("status", 200)
    assert app.ended.acquire(timeout=PATIENCE)
    assert app.ends == [(1006, "")]


def test_a_connection_that_is_cut_is_a_stream_that_is_cancelled(app, wire):
    tunnel = Tunnel(wire, "/quiet")
    assert tunnel.receive() == (PING, b"")
    assert tunnel.end() == (b"", False, CANCEL)
    assert app.ended.acquire(timeout=PATIENCE)
    assert app.ends == [(1006, "the client does not answer pings")]
    wire.send(headers(3, ask("GET", "/")))
    assert wire.outcome(3) == ("status", 200)


def test_the_close_of_the_server_waits_for_that_of_the_client(app, wire):
    tunnel = Tunnel(wire, "/about")
    tunnel.receive()
    assert tunnel.receive() == (CLOSE, b"\x03\xe8")
    assert tunnel.end() == (b"", True, None)
    # Half closed: what comes now is read, not reset.
    tunnel.send(message(CLOSE, b"\x03\xe8"), END_STREAM)
    wire.send(headers(3, ask("GET", "/")))
    while (got := wire.read()) is not None and not (got.stream == 3 and got.flags & END_STREAM):
        assert got.kind != RST_STREAM


def test_connections_and_requests_share_one_connection(wire):
    tunnels = [Tunnel(wire, path, stream) for path, stream in [("/echo", 1), ("/async", 3), ("/held", 5)]]
    for round in range(20):
        for tunnel in tunnels:
            text = f"{tunnel.stream} {round}".encode()
            tunnel.send(message(TEXT, text))
            assert tunnel.receive() == (TEXT, text)
        stream = 7 + 2 * round
        wire.send(headers(stream, ask("GET", "/")))
        assert wire.response(stream)[::2] == (200, b"hello")


def test_what_is_sent_keeps_to_the_window(wire):
    tunnel = Tunnel(wire, "/much")
    taken = 0
    while taken < 65535:
        got = tunnel.until(DATA)
        taken += len(got.payload)
    assert taken == 65535
    # Nothing more comes on this stream; others have their own window, and that of the connection.
    wire.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)) + headers(3, ask("GET", "/")))
    while True:
        got = wire.read()
        assert got.kind != DATA or got.stream == 3
        if got.stream == 3 and got.flags & END_STREAM:
            break
    wire.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000)))
    more = 0
    while more < 1000:
        more += len(tunnel.until(DATA).payload)
    assert more == 1000


def test_open_connections_count_among_the_streams(app):
    server = _core.Server(app, ["127.0.0.1:0"], settings={"http2_streams": 3})
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    wire = Wire((host, int(port)))
    tunnels = [Tunnel(wire, "/held", stream) for stream in (1, 3, 5)]
    wire.send(asking(7, path="/held"))
    assert wire.outcome(7) == ("reset", REFUSED_STREAM)
    tunnels[0].send(message(CLOSE, b"\x03\xe8"), END_STREAM)
    assert tunnels[0].end()[1]
    assert Tunnel(wire, "/held", 9).fields[":status"] == "200"
    wire.close()
    assert server.stop(0, PATIENCE)


def test_a_stop_says_so_on_the_stream(app, server, wire):
    for path, stream in [("/echo", 1), ("/held", 3)]:
        Tunnel(wire, path, stream)
    stopping = threading.Thread(target=server.stop, args=(PATIENCE, PATIENCE))
    stopping.start()
    left = {1, 3}
    is_told = False
    while (got := wire.read()) is not None:
        is_told |= got.kind == GOAWAY and got.payload[4:8] == bytes(4)
        if got.kind == DATA and got.stream in left and got.payload:
            assert got.payload == b"\x88\x12\x03\xe9the server stops"
        if got.kind == DATA and got.flags & END_STREAM:
            left.discard(got.stream)
            wire.send(frame(DATA, END_STREAM, got.stream, message(CLOSE, b"\x03\xe9")))
    assert is_told
    assert not left
    stopping.join(PATIENCE)
    for _ in range(2):
        assert app.ended.acquire(timeout=PATIENCE)
    assert app.ends == [(1001, "the server stops")] * 2


async def host(scope, receive, send):
    """An ASGI application."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "b"})
    names = sorted(name.decode() for name, _ in scope["headers"])
    await send(
        {"type": "websocket.send", "text": f"{scope['http_version']} {scope['scheme']} {' '.join(names)}"}
    )
    while (got := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": got["text"]})


def test_applications_of_asgi_have_them_too():
    from hipflask.asgi import Host

    server = _core.Server(Host(host), ["127.0.0.1:0"])
    server.start()
    gateway = Gateway(server.addresses[0])
    try:
        with connect(f"ws://{gateway.address}/a", subprotocols=["a", "b"], compression=None) as client:
            assert client.subprotocol == "b"
            text = client.recv(timeout=PATIENCE)
            assert text.startswith("2 ws ")
            client.send("back")
            assert client.recv(timeout=PATIENCE) == "back"
        refused = Gateway(server.addresses[0])
        with pytest.raises(Exception, match="403"):
            connect(f"ws://{refused.address}/refuse")
        refused.close()
    finally:
        gateway.close()
        assert server.stop(0, PATIENCE)
