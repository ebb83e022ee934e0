"""What clients of WebSockets do wrong, through the live engine: the close code or the status that the RFC
prescribes, a line in the log, and nothing else disturbed."""

from __future__ import annotations

import logging
import queue
import struct
import zlib
from collections.abc import Iterator

import pytest
from raw_websocket import ACCEPT, RawWebSocket, frame

from hipflask import Flask, _core

TEXT, BINARY, CONTINUATION, CLOSE, PING = 0x81, 0x82, 0x80, 0x88, 0x89
UNFINISHED_TEXT = 0x01
COMPRESSED_TEXT = 0xC1
LIMIT = 1000


def deflated(data: bytes) -> bytes:
    """A compressed message's payload."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.fixture(params=["sync", "async", "callback"])
def address(request: pytest.FixtureRequest, app: Flask) -> Iterator[str]:
    """An echo server's address."""
    app.config["WEBSOCKET_MAX_MESSAGE_SIZE"] = LIMIT

    if request.param == "sync":

        @app.websocket("/")
        def view(ws):
            for message in ws:
                ws.send(message)

    elif request.param == "callback":

        @app.websocket("/")
        def callback_view(ws):
            ws.on_message(ws.send)

    else:

        @app.websocket("/")
        async def async_view(ws):
            async for message in ws:
                await ws.send(message)

    @app.route("/page")
    def page():
        return "a page"

    server = _core.Server(app, ["127.0.0.1:0"])
    server.start()
    try:
        yield server.addresses[0]
    finally:
        assert server.stop()


class Lines(logging.Handler):
    """What the server's log says, for tests that wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put(record.getMessage())

    def next(self) -> str:
        return self.lines.get(timeout=20)

    def __enter__(self) -> Lines:
        logging.getLogger("hipflask.server").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("hipflask.server").removeHandler(self)


BAD_FRAMES = [
    pytest.param(frame(TEXT, b"plain", mask=None), 1002, id="not masked"),
    pytest.param(frame(0xC1, b"a"), 1002, id="RSV1 without an extension"),
    pytest.param(frame(0xA1, b"a"), 1002, id="RSV2"),
    pytest.param(frame(0x91, b"a"), 1002, id="RSV3"),
    pytest.param(frame(0x83, b"a"), 1002, id="an unknown opcode"),
    pytest.param(frame(0x8B, b"a"), 1002, id="an unknown control opcode"),
    pytest.param(frame(CONTINUATION, b"a"), 1002, id="a continuation of nothing"),
    pytest.param(frame(UNFINISHED_TEXT, b"a") + frame(TEXT, b"b"), 1002, id="a message in a message"),
    pytest.param(frame(0x09, b"a"), 1002, id="a ping in pieces"),
    pytest.param(frame(PING, b"a" * 126), 1002, id="a long ping"),
    pytest.param(struct.pack("!BBH", BINARY, 0xFE, 5) + b"maskHello", 1002, id="a length in a longer form"),
    pytest.param(struct.pack("!BBQ", BINARY, 0xFF, 1 << 63), 1002, id="a length beyond all"),
    pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
    pytest.param(frame(CLOSE, struct.pack("!H", 1005)), 1002, id="a close code that must not be sent"),
    pytest.param(frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007, id="a close reason that is no text"),
    pytest.param(frame(TEXT, b"caf\xe9"), 1007, id="text that is no UTF-8"),
    pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="a surrogate"),
    pytest.param(frame(UNFINISHED_TEXT, b"\xce\xba\xff"), 1007, id="no UTF-8 in a message's beginning"),
    pytest.param(frame(BINARY, b"a" * (LIMIT + 1)), 1009, id="a long message"),
    pytest.param(struct.pack("!BBQ", BINARY, 0xFF, 1 << 40) + b"mask", 1009, id="an announced long message"),
    pytest.param(
        frame(0x02, b"a" * LIMIT) + frame(0x00, b"a"), 1009, id="a message that is long by its frames"
    ),
]


@pytest.mark.parametrize(("data", "code"), BAD_FRAMES)
def test_bad_frames_end_the_connection_with_their_code(address, data, code):
    other = RawWebSocket(address)
    bad = RawWebSocket(address)
    assert (bad.status, bad.field("Sec-WebSocket-Accept")) == (101, ACCEPT)
    bad.send(frame(TEXT, b"good"))
    assert bad.receive() == (TEXT, b"good")
    said = Lines()
    with said:
        bad.send(data)
        found, reason = bad.closed()
        assert found == code
        assert reason
        assert said.next() == f"127.0.0.1: closed with {code}: {reason}"
    other.send(frame(TEXT, b"still here"))
    assert other.receive() == (TEXT, b"still here")
    other.close()


def test_a_fault_is_told_once_and_the_apps_own_end_is_none(app):
    @app.websocket("/receive")
    def receive(ws):
        while True:
            ws.receive()

    @app.websocket("/refuse")
    def refuse(ws):
        ws.close(1007, "not this")

    server = _core.Server(app, ["127.0.0.1:0"])
    server.start()
    try:
        with Lines() as said:
            assert RawWebSocket(server.addresses[0], "/refuse").closed() == (1007, "not this")
            for _ in range(2):
                bad = RawWebSocket(server.addresses[0], "/receive")
                bad.send(b"\x83")
                assert bad.closed()[0] == 1002
                assert said.next() == "127.0.0.1: closed with 1002: the opcode is not known"
    finally:
        assert server.stop()
    assert said.lines.empty()


BAD_COMPRESSION = [
    pytest.param(frame(COMPRESSED_TEXT, b"\xff\xff\xff"), 1007, id="no deflate data"),
    pytest.param(frame(COMPRESSED_TEXT, deflated(b"caf\xe9")), 1007, id="text that is no UTF-8"),
    pytest.param(frame(0xC9, b"a"), 1002, id="a compressed ping"),
    pytest.param(
        frame(0x41, deflated(b"a")) + frame(0xC0, b"a"), 1002, id="a continuation that says compressed"
    ),
    pytest.param(frame(COMPRESSED_TEXT, deflated(b"a" * 10_000_000)[:900]), 1009, id="a bomb"),
    pytest.param(frame(COMPRESSED_TEXT, deflated(b"a" * (LIMIT + 1))), 1009, id="a byte too long"),
]


@pytest.mark.parametrize(("data", "code"), BAD_COMPRESSION)
def test_bad_compression_ends_the_connection_with_its_code(address, data, code):
    bad = RawWebSocket(address, fields={"Sec-WebSocket-Extensions": "permessage-deflate"})
    assert (bad.field("Sec-WebSocket-Extensions") or "").startswith("permessage-deflate")
    bad.send(frame(COMPRESSED_TEXT, deflated(b"good")))
    assert bad.receive() == (TEXT, b"good")
    bad.send(data)
    assert bad.closed()[0] == code


BAD_HANDSHAKES = [
    pytest.param({"Sec-WebSocket-Key": None}, 400, id="no key"),
    pytest.param({"Sec-WebSocket-Key": "c2hvcnQ="}, 400, id="a short key"),
    pytest.param({"Sec-WebSocket-Key": "!" * 24}, 400, id="a key that is no base64"),
    pytest.param({"Sec-WebSocket-Version": None}, 400, id="no version"),
    pytest.param({"Sec-WebSocket-Version": "8"}, 426, id="an old version"),
    pytest.param({"Sec-WebSocket-Protocol": "a;b"}, 400, id="a malformed subprotocol"),
    pytest.param({"Sec-WebSocket-Extensions": "a b"}, 400, id="a malformed extension"),
    # No request for a WebSocket at all: routing says that the address is another's, as in Werkzeug.
    pytest.param({"Upgrade": None}, 400, id="no upgrade"),
    pytest.param({"Connection": "keep-alive"}, 400, id="no upgrade of the connection"),
    pytest.param({"Upgrade": "h2c"}, 400, id="another protocol"),
]


@pytest.mark.parametrize(("fields", "status"), BAD_HANDSHAKES)
def test_bad_handshakes_are_answered_by_http(address, fields, status):
    bad = RawWebSocket(address, fields=fields)
    assert bad.status == status
    assert (bad.field("Sec-WebSocket-Version") == "13") is (status == 426)
    assert (bad.field("Upgrade") == "websocket") is (status == 426)
    # The connection is one of HTTP still.
    length = int(bad.field("Content-Length") or 0)
    while len(bad.buffer) < length:
        bad._more()
    bad.buffer = b""
    bad.send(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    while b"a page" not in bad.buffer:
        bad._more()
    bad.close()


def test_what_follows_a_close_is_ignored(address):
    raw = RawWebSocket(address)
    raw.send(frame(CLOSE, struct.pack("!H", 4000) + b"bye") + frame(TEXT, b"\xff") + b"\xff" * 100)
    assert raw.closed()[0] == 4000


def test_a_client_that_goes_in_the_middle_of_a_frame_leaves_nothing(address):
    for data in (b"", b"\x81", frame(TEXT, b"good")[:-1], frame(UNFINISHED_TEXT, b"a")):
        raw = RawWebSocket(address)
        raw.send(data)
        raw.close()
    last = RawWebSocket(address)
    last.send(frame(TEXT, b"good"))
    assert last.receive() == (TEXT, b"good")
    last.close()
