"""HTTP/2: what RFC 9113 requires, case by case; the behaviour of HTTP/1.1; defences; others' clients."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading

import httpx
import pytest
from http2_frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Frame,
    Wire,
    block,
    frame,
    headers,
    settings,
)
from http2_frames import request as ask

from hipflask import Flask, Response, _core, abort, jsonify, request
from hipflask.tls import adhoc_files

HOLD = threading.Event()


def application():
    app = Flask(__name__)

    @app.route("/", methods=["GET", "POST"])
    def index():
        return "hello"

    @app.post("/echo")
    def echo():
        return Response(request.get_data(), mimetype="application/octet-stream")

    @app.get("/fields")
    def fields():
        environ = request.environ
        return {
            "protocol": environ["SERVER_PROTOCOL"],
            "host": request.host,
            "cookies": request.cookies,
            "query": request.query_string.decode(),
            "path": request.path,
            "multi": request.headers.get("X-Multi"),
            "scheme": request.scheme,
        }

    @app.get("/long")
    def long():
        return Response(b"0123456789" * 30_000, mimetype="text/plain")

    @app.get("/stream")
    def stream():
        return Response(f"{number}\n" for number in range(2000))

    @app.get("/broken")
    def broken():
        def pieces():
            yield "part"
            raise ValueError("expected by this test")

        return Response(pieces())

    @app.get("/short")
    def short():
        return Response((piece for piece in ["part"]), headers={"Content-Length": "100"})

    @app.get("/empty/<int:status>")
    def empty(status):
        return "", status

    @app.get("/error")
    def error():
        raise ValueError("expected by this test")

    @app.get("/teapot")
    def teapot():
        abort(418)

    @app.get("/later")
    async def later():
        return "from the loop"

    @app.get("/hold")
    def hold():
        HOLD.wait(15)
        return "held"

    @app.post("/form")
    def form():
        return jsonify(fields=request.form.to_dict(flat=False), files=list(request.files))

    @app.put("/length")
    def length():
        return str(sum(len(piece) for piece in iter(lambda: request.stream.read(65536), b"")))

    return app


@pytest.fixture(scope="module")
def address():
    server = _core.Server(application(), ["127.0.0.1:0"])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    yield host, int(port)
    HOLD.set()
    assert server.stop(5)


@pytest.fixture
def wire(address):
    wire = Wire(address)
    yield wire
    wire.close()


def on_connection(*codes):
    # A block that cannot be unpacked is told as PROTOCOL_ERROR, though the RFC has a closer name.
    more = (PROTOCOL_ERROR,) if COMPRESSION_ERROR in codes else ()
    return {("goaway", code) for code in (*codes, *more)}


def on_stream(*codes):
    # A stream's error may be the connection's (5.4.2); a malformed request may be answered (8.1.1).
    answers = {(what, code) for code in codes for what in ("reset", "goaway")}
    return answers | {("status", 400), ("goaway", PROTOCOL_ERROR)}


def answered(*statuses):
    return {("status", status) for status in statuses}


OK = answered(200)
POST = ask("POST", "/echo")


def fields(*more):
    """An ordinary request with more fields."""
    return headers(1, ask("GET", "/", *more))


def pseudo(*given):
    return headers(1, block(*given))


def post(*frames, more=()):
    return headers(1, ask("POST", "/echo", *more), END_HEADERS) + b"".join(frames)


def window(increment, stream=0):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


METHOD, SCHEME, AUTHORITY, PATH = (
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "test"),
    (":path", "/"),
)
GET = ask()
EMPTY_SETTINGS = settings()
MALFORMED = on_stream(PROTOCOL_ERROR)

# Section of RFC 9113, what is done, the bytes after preface and settings, and the outcomes that are right.
CASES = [
    ("3.4", "a request", headers(1, GET), OK),
    ("3.4", "settings acknowledged", settings(flags=ACK) + headers(1, GET), OK),
    ("4.1", "an unknown frame on the connection", frame(0xFA, 0xFF, 0, b"abc") + headers(1, GET), OK),
    ("4.1", "an unknown frame on an idle stream", frame(0xFA, 0, 7, b"") + headers(1, GET), OK),
    ("4.1", "unknown flags", headers(1, GET, END_HEADERS | END_STREAM | 0x42), OK),
    ("4.1", "the reserved bit of a stream", frame(HEADERS, 5, 0x80000001, GET), OK),
    ("4.2", "DATA longer than allowed", post(frame(DATA, 0, 1, b"x" * 16385)), on_stream(FRAME_SIZE_ERROR)),
    (
        "4.2",
        "HEADERS longer than allowed",
        headers(1, GET + block(("a", "x" * 17000))),
        on_connection(FRAME_SIZE_ERROR),
    ),
    (
        "4.2",
        "SETTINGS longer than allowed",
        frame(SETTINGS, 0, 0, b"\0" * 16386),
        on_connection(FRAME_SIZE_ERROR),
    ),
    (
        "4.2",
        "a length that lies about 16 MiB",
        frame(DATA, 0, 1, b"", 0xFFFFFF),
        on_connection(FRAME_SIZE_ERROR),
    ),
    ("4.3", "index 0", headers(1, b"\x80"), on_connection(COMPRESSION_ERROR)),
    ("4.3", "an index beyond the table", headers(1, GET + b"\xfe"), on_connection(COMPRESSION_ERROR)),
    ("4.3", "an integer without end", headers(1, b"\xff" + b"\xff" * 20), on_connection(COMPRESSION_ERROR)),
    ("4.3", "a literal cut short", headers(1, GET + b"\x00\x05ab"), on_connection(COMPRESSION_ERROR)),
    (
        "4.3",
        "a table larger than agreed",
        headers(1, b"\x3f\xe2\x5f" + GET),
        on_connection(COMPRESSION_ERROR),
    ),
    ("4.3", "a table size in the middle", headers(1, GET + b"\x20"), on_connection(COMPRESSION_ERROR)),
    (
        "4.3",
        "bad Huffman padding",
        headers(1, GET + b"\x00\x01a\x82\xff\x00"),
        on_connection(COMPRESSION_ERROR),
    ),
    (
        "4.3",
        "a block in two frames",
        headers(1, GET[:9], END_STREAM) + frame(CONTINUATION, 4, 1, GET[9:]),
        OK,
    ),
    (
        "4.3",
        "a block in many frames",
        headers(1, b"", END_STREAM)
        + b"".join(frame(CONTINUATION, 0, 1, GET[i : i + 20]) for i in range(0, len(GET), 20))
        + frame(CONTINUATION, 4, 1),
        OK,
    ),
    (
        "4.3",
        "a frame between the parts of a block",
        headers(1, GET[:9], END_STREAM) + frame(PING, 0, 0, b"x" * 8),
        on_connection(PROTOCOL_ERROR),
    ),
    (
        "4.3",
        "an unknown frame between the parts of a block",
        headers(1, GET[:9], END_STREAM) + frame(0xFA, 0, 0),
        on_connection(PROTOCOL_ERROR),
    ),
    (
        "4.3",
        "the rest of a block on another stream",
        headers(1, GET[:9], END_STREAM) + frame(CONTINUATION, 4, 3, GET[9:]),
        on_connection(PROTOCOL_ERROR),
    ),
    ("5.1", "DATA on an idle stream", frame(DATA, 1, 1, b"x"), on_connection(PROTOCOL_ERROR)),
    (
        "5.1",
        "RST_STREAM on an idle stream",
        frame(RST_STREAM, 0, 1, b"\0\0\0\x08"),
        on_connection(PROTOCOL_ERROR),
    ),
    ("5.1", "WINDOW_UPDATE on an idle stream", window(1, 1), on_connection(PROTOCOL_ERROR)),
    ("5.1", "CONTINUATION on an idle stream", frame(CONTINUATION, 4, 1, GET), on_connection(PROTOCOL_ERROR)),
    (
        "5.1",
        "DATA after the end",
        headers(1, ask("GET", "/hold")) + frame(DATA, 1, 1, b"x"),
        on_stream(STREAM_CLOSED),
    ),
    (
        "5.1",
        "HEADERS after the end",
        headers(1, ask("GET", "/hold")) + headers(1, GET),
        on_stream(STREAM_CLOSED, PROTOCOL_ERROR),
    ),
    ("5.1", "PRIORITY on a closed stream", headers(1, GET) + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"), OK),
    ("5.1.1", "an even stream", headers(2, GET), on_connection(PROTOCOL_ERROR)),
    (
        "5.1.1",
        "a stream below the last",
        headers(5, GET) + headers(3, GET),
        on_connection(PROTOCOL_ERROR, STREAM_CLOSED),
    ),
    ("5.1.1", "streams left out", headers(99, GET), OK),
    (
        "5.3",
        "a stream that depends on itself",
        frame(PRIORITY, 0, 1, b"\0\0\0\x01\x10") + headers(1, GET),
        OK | MALFORMED,
    ),
    ("5.5", "an unknown setting", settings((0xFF, 5)) + headers(1, GET), OK),
    ("6.1", "DATA on the connection", frame(DATA, 1, 0, b"x"), on_connection(PROTOCOL_ERROR)),
    ("6.1", "padding", post(frame(DATA, PADDED | END_STREAM, 1, b"\x05body\0\0\0\0\0")), OK),
    (
        "6.1",
        "padding as long as the frame",
        post(frame(DATA, PADDED, 1, b"\x06hello")),
        on_connection(PROTOCOL_ERROR),
    ),
    (
        "6.1",
        "padding without its length",
        post(frame(DATA, PADDED, 1, b"")),
        on_connection(FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    ),
    ("6.1", "nothing but padding", post(frame(DATA, PADDED | END_STREAM, 1, b"\x03\0\0\0")), OK),
    ("6.2", "HEADERS on the connection", headers(0, GET), on_connection(PROTOCOL_ERROR)),
    ("6.2", "padding", frame(HEADERS, 5 | PADDED, 1, b"\x04" + GET + b"\0" * 4), OK),
    (
        "6.2",
        "padding as long as the frame",
        frame(HEADERS, 5 | PADDED, 1, b"\xff" + GET),
        on_connection(PROTOCOL_ERROR),
    ),
    ("6.2", "a priority", frame(HEADERS, 5 | HAS_PRIORITY, 1, b"\0\0\0\0\x10" + GET), OK),
    (
        "6.2",
        "half a priority",
        frame(HEADERS, 5 | HAS_PRIORITY, 1, b"\0\0"),
        on_stream(FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    ),
    ("6.3", "PRIORITY", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") + headers(1, GET), OK),
    (
        "6.3",
        "PRIORITY on the connection",
        frame(PRIORITY, 0, 0, b"\0\0\0\0\x10"),
        on_connection(PROTOCOL_ERROR),
    ),
    ("6.3", "PRIORITY of four bytes", frame(PRIORITY, 0, 1, b"\0\0\0\0"), on_stream(FRAME_SIZE_ERROR)),
    (
        "6.4",
        "RST_STREAM on the connection",
        frame(RST_STREAM, 0, 0, b"\0\0\0\x08"),
        on_connection(PROTOCOL_ERROR),
    ),
    (
        "6.4",
        "RST_STREAM of three bytes",
        post() + frame(RST_STREAM, 0, 1, b"\0\0\0"),
        on_connection(FRAME_SIZE_ERROR),
    ),
    ("6.5", "SETTINGS on a stream", settings(stream=1), on_connection(PROTOCOL_ERROR)),
    ("6.5", "SETTINGS cut short", frame(SETTINGS, 0, 0, b"\0\0\0"), on_connection(FRAME_SIZE_ERROR)),
    ("6.5", "an acknowledgement with content", settings((1, 1), flags=ACK), on_connection(FRAME_SIZE_ERROR)),
    ("6.5.2", "ENABLE_PUSH of 2", settings((2, 2)), on_connection(PROTOCOL_ERROR)),
    ("6.5.2", "a window above the most", settings((4, 0x80000000)), on_connection(FLOW_CONTROL_ERROR)),
    ("6.5.2", "frames below the least", settings((5, 16383)), on_connection(PROTOCOL_ERROR)),
    ("6.5.2", "frames above the most", settings((5, 1 << 24)), on_connection(PROTOCOL_ERROR)),
    (
        "6.5.2",
        "every setting",
        settings((1, 0), (2, 0), (3, 0), (4, 65535), (5, 16384), (6, 1 << 20)) + headers(1, GET),
        OK,
    ),
    ("6.5.3", "the same setting twice", settings((4, 100), (4, 65535)) + headers(1, GET), OK),
    (
        "6.6",
        "a promise from a client",
        headers(1, ask("GET", "/hold")) + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\x02" + GET),
        on_connection(PROTOCOL_ERROR),
    ),
    ("6.7", "PING on a stream", frame(PING, 0, 1, b"x" * 8), on_connection(PROTOCOL_ERROR)),
    ("6.7", "PING of seven bytes", frame(PING, 0, 0, b"x" * 7), on_connection(FRAME_SIZE_ERROR)),
    ("6.7", "an acknowledgement nobody asked for", frame(PING, ACK, 0, b"x" * 8) + headers(1, GET), OK),
    ("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), on_connection(PROTOCOL_ERROR)),
    ("6.8", "GOAWAY of seven bytes", frame(GOAWAY, 0, 0, b"\0" * 7), on_connection(FRAME_SIZE_ERROR)),
    ("6.8", "GOAWAY while a request runs", headers(1, GET) + frame(GOAWAY, 0, 0, b"\0" * 8), OK),
    ("6.9", "an increment of nothing", window(0), on_connection(PROTOCOL_ERROR)),
    ("6.9", "an increment of nothing on a stream", post() + window(0, 1), on_stream(PROTOCOL_ERROR)),
    (
        "6.9",
        "WINDOW_UPDATE of three bytes",
        frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"),
        on_connection(FRAME_SIZE_ERROR),
    ),
    ("6.9", "WINDOW_UPDATE", window(1000) + headers(1, GET), OK),
    ("6.9.1", "a window that overflows", window(0x7FFFFFFF), on_connection(FLOW_CONTROL_ERROR)),
    (
        "6.9.1",
        "a stream's window that overflows",
        post() + window(0x7FFFFFFF, 1),
        on_stream(FLOW_CONTROL_ERROR),
    ),
    (
        "6.9.1",
        "the reserved bit of an increment",
        frame(WINDOW_UPDATE, 0, 0, b"\x80\0\0\1") + headers(1, GET),
        OK,
    ),
    (
        "6.9.1",
        "more than the stream's window",
        headers(1, ask("POST", "/hold"), END_HEADERS) + frame(DATA, 0, 1, b"x" * 16384) * 5,
        on_stream(FLOW_CONTROL_ERROR) | answered(405),
    ),
    (
        "6.9.2",
        "a window that changes a stream's beyond the most",
        post() + window(0x7FFFFFFF - 65535, 1) + settings((4, 65536)),
        on_connection(FLOW_CONTROL_ERROR),
    ),
    (
        "6.10",
        "CONTINUATION after the end of a block",
        headers(1, ask("GET", "/hold")) + frame(CONTINUATION, 4, 1, GET),
        on_connection(PROTOCOL_ERROR),
    ),
    (
        "6.10",
        "CONTINUATION on the connection",
        headers(1, GET[:9], 1) + frame(CONTINUATION, 4, 0, GET[9:]),
        on_connection(PROTOCOL_ERROR),
    ),
    (
        "8.1",
        "HEADERS in the middle of a body",
        post(frame(DATA, 0, 1, b"x"), headers(1, block(("a", "b")), END_HEADERS)),
        MALFORMED,
    ),
    ("8.1", "trailers", post(frame(DATA, 0, 1, b"x"), headers(1, block(("a", "b")))), OK),
    ("8.1", "trailers without a body", post(headers(1, block(("a", "b")))), OK),
    (
        "8.1",
        # h2 drops it: nobody sees it.
        "a pseudo-field among trailers",
        post(frame(DATA, 0, 1, b"x"), headers(1, block(PATH))),
        MALFORMED | OK,
    ),
    (
        "8.1.1",
        "a body shorter than its length",
        post(frame(DATA, 1, 1, b"x"), more=[("content-length", "2")]),
        MALFORMED,
    ),
    (
        "8.1.1",
        "a body longer than its length",
        post(frame(DATA, 1, 1, b"xxx"), more=[("content-length", "2")]),
        MALFORMED,
    ),
    (
        "8.1.1",
        "a body that is not there",
        headers(1, ask("POST", "/echo", ("content-length", "1"))),
        MALFORMED,
    ),
    (
        "8.1.1",
        "a body of its length in two frames",
        post(frame(DATA, 0, 1, b"x"), frame(DATA, 1, 1, b"x"), more=[("content-length", "2")]),
        OK,
    ),
    (
        "8.1.1",
        "a length that is no number",
        post(frame(DATA, 1, 1, b"x"), more=[("content-length", "one")]),
        MALFORMED,
    ),
    (
        "8.1.1",
        "a length with a sign",
        post(frame(DATA, 1, 1, b"x"), more=[("content-length", "+1")]),
        MALFORMED,
    ),
    (
        "8.1.1",
        "two lengths",
        post(frame(DATA, 1, 1, b"x"), more=[("content-length", "1"), ("content-length", "2")]),
        MALFORMED,
    ),
    (
        "8.1.1",
        "two lengths in one",
        post(frame(DATA, 1, 1, b"x"), more=[("content-length", "1, 1")]),
        MALFORMED,
    ),
    ("8.2", "a name in capitals", fields(("Accept", "a")), MALFORMED),
    ("8.2.1", "a name with a space", fields(("a b", "c")), MALFORMED | on_connection(COMPRESSION_ERROR)),
    ("8.2.1", "a name with a colon", fields(("a:b", "c")), MALFORMED | on_connection(COMPRESSION_ERROR)),
    ("8.2.1", "an empty name", fields(("", "c")), MALFORMED | on_connection(COMPRESSION_ERROR)),
    ("8.2.1", "a name beyond ASCII", fields((b"a\xe4", "c")), MALFORMED | on_connection(COMPRESSION_ERROR)),
    (
        "8.2.1",
        "a line feed in a value",
        fields(("a", "b\nc: d")),
        MALFORMED | on_connection(COMPRESSION_ERROR),
    ),
    (
        "8.2.1",
        "a carriage return in a value",
        fields(("a", "b\rc")),
        MALFORMED | on_connection(COMPRESSION_ERROR),
    ),
    ("8.2.1", "a zero byte in a value", fields(("a", "b\0c")), MALFORMED | on_connection(COMPRESSION_ERROR)),
    ("8.2.1", "a value that begins with a space", fields(("a", " b")), MALFORMED),
    ("8.2.1", "a value that ends with a tab", fields(("a", "b\t")), MALFORMED),
    ("8.2.1", "a value beyond ASCII", fields(("a", b"b\xe4\xff")), OK),
    ("8.2.2", "connection", fields(("connection", "close")), MALFORMED),
    ("8.2.2", "keep-alive", fields(("keep-alive", "1")), MALFORMED),
    ("8.2.2", "proxy-connection", fields(("proxy-connection", "close")), MALFORMED),
    ("8.2.2", "transfer-encoding", fields(("transfer-encoding", "chunked")), MALFORMED),
    ("8.2.2", "upgrade", fields(("upgrade", "websocket")), MALFORMED),
    ("8.2.2", "te: trailers", fields(("te", "trailers")), OK),
    ("8.2.2", "te: gzip", fields(("te", "gzip")), MALFORMED),
    ("8.3", "a pseudo-field behind a field", pseudo(METHOD, SCHEME, AUTHORITY, ("a", "b"), PATH), MALFORMED),
    ("8.3", "an unknown pseudo-field", pseudo(METHOD, SCHEME, AUTHORITY, PATH, (":a", "b")), MALFORMED),
    (
        "8.3",
        "a pseudo-field of responses",
        pseudo(METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")),
        MALFORMED,
    ),
    ("8.3.1", "no method", pseudo(SCHEME, AUTHORITY, PATH), MALFORMED),
    ("8.3.1", "no scheme", pseudo(METHOD, AUTHORITY, PATH), MALFORMED),
    ("8.3.1", "no path", pseudo(METHOD, SCHEME, AUTHORITY), MALFORMED),
    ("8.3.1", "an empty path", pseudo(METHOD, SCHEME, AUTHORITY, (":path", "")), MALFORMED),
    (
        "8.3.1",
        "an empty method",
        pseudo((":method", ""), SCHEME, AUTHORITY, PATH),
        MALFORMED | on_connection(COMPRESSION_ERROR),
    ),
    (
        "8.3.1",
        "a method with a space",
        pseudo((":method", "G T"), SCHEME, AUTHORITY, PATH),
        MALFORMED | on_connection(COMPRESSION_ERROR),
    ),
    ("8.3.1", "two methods", pseudo(METHOD, METHOD, SCHEME, AUTHORITY, PATH), MALFORMED),
    ("8.3.1", "two schemes", pseudo(METHOD, SCHEME, SCHEME, AUTHORITY, PATH), MALFORMED),
    ("8.3.1", "two authorities", pseudo(METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH), MALFORMED),
    ("8.3.1", "two paths", pseudo(METHOD, SCHEME, AUTHORITY, PATH, PATH), MALFORMED),
    ("8.3.1", "a path without a slash", pseudo(METHOD, SCHEME, AUTHORITY, (":path", "x")), MALFORMED),
    (
        "8.3.1",
        "a path that is a URL",
        pseudo(METHOD, SCHEME, AUTHORITY, (":path", "http://evil/")),
        MALFORMED,
    ),
    ("8.3.1", "a path with a space", pseudo(METHOD, SCHEME, AUTHORITY, (":path", "/a b")), MALFORMED),
    (
        "8.3.1",
        "a path with a line",
        pseudo(METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1\r\na: b")),
        MALFORMED | on_connection(COMPRESSION_ERROR),
    ),
    (
        "8.3.1",
        "* for OPTIONS",
        pseudo((":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")),
        answered(200, 204, 404),
    ),
    ("8.3.1", "* for GET", pseudo(METHOD, SCHEME, AUTHORITY, (":path", "*")), MALFORMED),
    ("8.3.1", "a host in the place of the authority", pseudo(METHOD, SCHEME, PATH, ("host", "test")), OK),
    ("8.3.1", "a host that is the authority", fields(("host", "test")), OK),
    ("8.3.1", "a host that is not the authority", fields(("host", "evil")), MALFORMED),
    ("8.3.1", "two hosts", pseudo(METHOD, SCHEME, PATH, ("host", "test"), ("host", "test")), MALFORMED),
    ("8.3.1", "neither authority nor host", pseudo(METHOD, SCHEME, PATH), MALFORMED),
    ("8.3.1", "an authority with a user", headers(1, ask(authority="user@test")), MALFORMED),
    ("8.3.1", "an authority with a space", headers(1, ask(authority="a b")), MALFORMED),
    ("8.3.1", "an authority with a path", headers(1, ask(authority="test/x")), MALFORMED),
    ("8.3.1", "another scheme", pseudo(METHOD, (":scheme", "ftp"), AUTHORITY, PATH), MALFORMED),
    (
        "8.5",
        "CONNECT",
        pseudo((":method", "CONNECT"), (":authority", "test:443")),
        answered(501, 405) | MALFORMED,
    ),
    (
        "8.5",
        "CONNECT with a path",
        pseudo((":method", "CONNECT"), SCHEME, AUTHORITY, PATH),
        answered(501) | MALFORMED,
    ),
    (
        "8441",
        "CONNECT for a protocol",
        pseudo((":method", "CONNECT"), (":protocol", "websocket"), SCHEME, AUTHORITY, PATH),
        answered(501) | MALFORMED,
    ),
    (
        "8.6",
        "a name with underscores that poses as another",
        fields(("x_forwarded_for", "1.2.3.4")),
        answered(400),
    ),
    (
        "10.5.1",
        "fields beyond all limits",
        headers(1, GET, END_STREAM)
        + b"".join(frame(CONTINUATION, 0, 1, block((f"a{i}", "x" * 16000))) for i in range(9))
        + frame(CONTINUATION, 4, 1),
        answered(431) | on_connection(ENHANCE_YOUR_CALM, PROTOCOL_ERROR),
    ),
    ("10.5.1", "too many fields", headers(1, GET + block(*[("a", "b")] * 500)), answered(431)),
]


def test_the_table_is_long_enough():
    assert len(CASES) >= 100


@pytest.mark.parametrize(
    ("data", "expected"), [case[2:] for case in CASES], ids=[f"{case[0]} {case[1]}" for case in CASES]
)
def test_a_rule_is_kept(wire, address, data, expected):
    wire.send(data)
    stream = 5 if data.startswith(headers(5, GET)) else 99 if data.startswith(headers(99, GET)) else 1
    outcome = wire.outcome(stream)
    if outcome == ("status", 200) and outcome not in expected:
        # The request was whole; what is wrong comes behind it.
        wire.send(frame(PING, 0, 0, b"a limit!"))
        outcome = wire.outcome(3, until=PING)
    assert outcome in expected
    # Whatever it was, others are served.
    other = Wire(address)
    other.send(headers(1, GET))
    assert other.outcome() == ("status", 200)
    other.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_bytes_may_come_in_any_pieces(address, size):
    wire = Wire(address, greet=False)
    data = (
        PREFACE
        + settings()
        + headers(1, ask("POST", "/echo"), END_HEADERS)
        + frame(DATA, END_STREAM, 1, b"body")
    )
    for at in range(0, len(data), size):
        wire.send(data[at : at + size])
    status, _, body = wire.response()
    assert (status, body) == (200, b"body")
    wire.close()


def test_a_preface_that_is_none_is_http1(address):
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(PREFACE[:-6] + b"XX\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 505 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize("first", [headers(1, GET), frame(PING, 0, 0, b"12345678"), window(1)], ids=len)
def test_the_first_frame_is_settings(address, first):
    wire = Wire(address, greet=False)
    wire.send(PREFACE + first + headers(1, GET))
    assert wire.outcome() in {("closed", 0), ("goaway", PROTOCOL_ERROR)}
    wire.close()


def test_the_head_says_what_it_should(wire):
    cookies = [("cookie", "a=1"), ("cookie", "b=2")]
    more = [("x-multi", "1"), ("x-multi", "2")]
    wire.send(headers(1, ask("GET", "/fields?x=%20y", *cookies, *more, authority="test:8443")))
    status, fields, body = wire.response()
    assert (status, fields["content-type"]) == (200, "application/json")
    assert not fields.keys() & {"connection", "transfer-encoding", "keep-alive"}
    assert fields["server"].startswith("hipflask")
    assert "date" in fields
    assert json.loads(body) == {
        "protocol": "HTTP/2",
        "host": "test:8443",
        "cookies": {"a": "1", "b": "2"},
        "query": "x=%20y",
        "path": "/fields",
        "multi": "1,2",
        "scheme": "http",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "length"),
    [
        ("HEAD", "/", 200, "5"),
        ("GET", "/empty/204", 204, None),
        ("GET", "/empty/304", 304, None),
        ("GET", "/empty/200", 200, "0"),
        ("HEAD", "/stream", 200, None),
        ("HEAD", "/missing", 404, "207"),
    ],
)
def test_responses_without_a_body_end_with_their_head(wire, method, path, status, length):
    wire.send(headers(1, ask(method, path)))
    while (got := wire.read()).kind != HEADERS:
        pass
    fields = dict(wire.decoder.decode(got.payload))
    assert fields[":status"] == str(status)
    assert fields.get("content-length") == length
    assert got.flags & END_STREAM


def test_a_body_cut_short_is_no_whole_one(wire):
    for stream, path in ((1, "/broken"), (3, "/short")):
        wire.send(headers(stream, ask("GET", path)))
        assert wire.outcome(stream)[0] == "reset"


def test_a_client_that_waits_is_told_to_go_on(wire):
    fields = ask("POST", "/echo", ("expect", "100-continue"), ("content-length", "4"))
    wire.send(headers(1, fields, END_HEADERS))
    while (got := wire.read()).kind != HEADERS:
        pass
    assert dict(wire.decoder.decode(got.payload))[":status"] == "100"
    wire.send(frame(DATA, END_STREAM, 1, b"body"))
    assert wire.response()[2] == b"body"


def test_the_clients_window_is_kept_to(address):
    wire = Wire(address, greet=False)
    wire.send(PREFACE + settings((4, 10)) + headers(1, ask("GET", "/long")))
    got = b""
    while len(got) < 10:
        one = wire.read()
        got += one.payload if one.kind == DATA else b""
    assert got == b"0123456789"
    wire.send(frame(PING, 0, 0, b"anything"))
    while (one := wire.read()).kind != PING:
        assert one.kind != DATA
    wire.send(window(1, 1))
    while (one := wire.read()).kind != DATA:
        pass
    assert one.payload == b"0"
    # The window of a stream may become negative (6.9.2).
    wire.send(settings((4, 0)) + window(5, 1) + window(20, 1) + settings((4, 30)))
    more = b""
    while len(more) < 44:
        one = wire.read()
        more += one.payload if one.kind == DATA else b""
    assert (b"0" + more).startswith(b"01234567890123456789")
    wire.close()


def test_the_connections_window_is_shared(address):
    wire = Wire(address, greet=False)
    wire.send(PREFACE + settings((4, 1 << 20)) + b"".join(headers(i, ask("GET", "/long")) for i in (1, 3, 5)))
    total = 0
    wire.send(frame(PING, 0, 0, b"12345678"))
    while total < 65535:
        one = wire.read()
        total += len(one.payload) if one.kind == DATA else 0
    assert total == 65535
    wire.send(window(1 << 20))
    bodies = 0
    while bodies < 3:
        one = wire.read()
        total += len(one.payload) if one.kind == DATA else 0
        bodies += one.kind == DATA and bool(one.flags & END_STREAM)
    assert total == 900_000
    wire.close()


def test_ping_and_settings_are_acknowledged(wire):
    wire.send(frame(PING, 0, 0, b"12345678") + settings((3, 5)))
    seen = set()
    while len(seen) < 2:
        got = wire.read()
        if got.kind == PING:
            assert got == Frame(PING, ACK, 0, b"12345678")
            seen.add(PING)
        if got.kind == SETTINGS and got.flags & ACK:
            assert got.payload == b""
            seen.add(SETTINGS)


def test_requests_are_answered_in_any_order(address):
    HOLD.clear()
    wire = Wire(address)
    wire.send(headers(1, ask("GET", "/hold")) + b"".join(headers(i, GET) for i in range(3, 41, 2)))
    ended = set()
    while len(ended) < 19:
        got = wire.read()
        if got.kind in (DATA, HEADERS) and got.flags & END_STREAM:
            ended.add(got.stream)
    assert ended == set(range(3, 41, 2))
    HOLD.set()
    while not (got := wire.read()).flags & END_STREAM:
        pass
    assert got.stream == 1
    wire.close()


def test_no_more_streams_than_agreed(wire):
    told = {}
    while (got := wire.read()).kind != SETTINGS:
        pass
    for at in range(0, len(got.payload), 6):
        key, value = struct.unpack(">HI", got.payload[at : at + 6])
        told[key] = value
    assert told[3] == 128
    wire.send(settings(flags=ACK))
    wire.send(b"".join(headers(i, ask("POST", "/echo"), END_HEADERS) for i in range(1, 2 * 129 + 1, 2)))
    assert wire.outcome(257) in {
        ("reset", REFUSED_STREAM),
        ("reset", PROTOCOL_ERROR),
        ("goaway", PROTOCOL_ERROR),
    }


def quick_resets(number):
    pairs = (
        headers(i, ask("GET", "/hold")) + frame(RST_STREAM, 0, i, struct.pack(">I", CANCEL))
        for i in range(1, 2 * number, 2)
    )
    return b"".join(pairs)


FLOODS = [
    ("rapid resets", quick_resets(3000), True),
    ("blocks without end", headers(1, GET, END_STREAM) + frame(CONTINUATION, 0, 1) * 50_000, True),
    (
        "long blocks without end",
        headers(1, GET, END_STREAM) + frame(CONTINUATION, 0, 1, block(("a", "x" * 16000))) * 500,
        True,
    ),
    ("empty DATA", post(frame(DATA, 0, 1) * 50_000), True),
    (
        "DATA of one byte",
        headers(1, ask("POST", "/hold"), END_HEADERS) + frame(DATA, 0, 1, b"x") * 50_000,
        None,
    ),
    ("settings", settings((3, 100)) * 20_000, None),
    ("pings", frame(PING, 0, 0, b"12345678") * 50_000, None),
    ("priorities", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") * 50_000, None),
    ("windows", window(1) * 50_000, None),
    (
        "resets of streams that wait",
        b"".join(
            headers(i, POST, END_HEADERS) + frame(RST_STREAM, 0, i, b"\0\0\0\x08") for i in range(1, 4000, 2)
        ),
        True,
    ),
]


@pytest.mark.parametrize(
    ("data", "ends"), [flood[1:] for flood in FLOODS], ids=[flood[0] for flood in FLOODS]
)
def test_a_flood_drowns_nobody(address, data, ends):
    HOLD.clear()
    wire = Wire(address)
    wire.socket.settimeout(20)
    sender = threading.Thread(target=suppressed(wire.send), args=(data,))
    sender.start()
    other = Wire(address)
    for stream in range(1, 21, 2):
        other.send(headers(stream, GET))
        assert other.outcome(stream) == ("status", 200)
    other.close()
    if ends:
        assert wire.outcome(0)[0] in ("goaway", "closed")
    wire.close()
    sender.join(20)
    assert not sender.is_alive()
    HOLD.set()


def suppressed(function):
    def call(*args):
        with contextlib.suppress(OSError):
            function(*args)

    return call


def test_a_stop_lets_requests_end_and_says_goodbye():
    HOLD.clear()
    server = _core.Server(application(), ["127.0.0.1:0"])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    busy, idle = Wire((host, int(port))), Wire((host, int(port)))
    busy.send(headers(1, ask("GET", "/hold")))
    for wire in (busy, idle):
        wire.send(frame(PING, 0, 0, b"12345678"))
        while (got := wire.read()).kind != PING:
            pass
    stopped = threading.Thread(target=server.stop, args=(10,))
    stopped.start()
    while (got := busy.read()).kind != GOAWAY:
        pass
    assert int.from_bytes(got.payload[4:8], "big") == NO_ERROR
    HOLD.set()
    assert busy.outcome(1) == ("status", 200)
    assert idle.outcome(1) == ("closed", 0)
    stopped.join(15)
    assert not stopped.is_alive()
    busy.close()
    idle.close()


# Whole clients.


@pytest.fixture(scope="module")
def secure():
    server = _core.Server(application(), ["127.0.0.1:0"], tls=_core.Tls([adhoc_files()]))
    server.start()
    yield f"https://localhost:{server.addresses[0].rpartition(':')[2]}"
    HOLD.set()
    assert server.stop(5)


def trusting():
    return ssl.create_default_context(cafile=adhoc_files()[0])


@pytest.fixture(scope="module")
def new(secure):
    with httpx.Client(base_url=secure, verify=trusting(), http1=False, http2=True) as client:
        yield client


@pytest.fixture(scope="module")
def old(secure):
    with httpx.Client(base_url=secure, verify=trusting()) as client:
        yield client


SAME = [
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("OPTIONS", "/", {}),
    ("DELETE", "/", {}),
    ("GET", "/missing", {}),
    ("GET", "/stream", {}),
    ("GET", "/long", {}),
    ("GET", "/error", {}),
    ("GET", "/teapot", {}),
    ("GET", "/later", {}),
    ("GET", "/empty/204", {}),
    ("POST", "/echo", {"content": b"x" * 300_000}),
    ("POST", "/echo", {"content": b""}),
    ("POST", "/form", {"data": {"a": "1", "b": ["2", "3"]}}),
    ("POST", "/form", {"data": {"a": "1"}, "files": {"f": ("name", b"x" * 300_000)}}),
    ("PUT", "/length", {"content": b"x" * 2_000_000}),
    ("PUT", "/length", {"content": b"x" * 70_000}),
]


@pytest.mark.parametrize(("method", "path", "more"), SAME, ids=lambda part: str(part)[:24])
def test_answers_are_those_of_http1(new, old, method, path, more):
    ours, theirs = new.request(method, path, **more), old.request(method, path, **more)
    assert (ours.http_version, theirs.http_version) == ("HTTP/2", "HTTP/1.1")
    assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
    hidden = ("date", "transfer-encoding")
    both = [{k: v for k, v in answer.headers.items() if k not in hidden} for answer in (ours, theirs)]
    assert both[0] == both[1]


def test_a_body_of_unknown_length(new):
    def pieces():
        for _ in range(60):
            yield b"y" * 10_000

    assert new.put("/length", content=pieces()).text == "600000"


def test_many_requests_on_one_connection(new):
    with httpx.Client(verify=trusting(), http1=False, http2=True, base_url=new.base_url) as client:
        for _ in range(300):
            assert client.get("/").text == "hello"


def test_curl_agrees(secure, address):
    ca = ["--cacert", adhoc_files()[0]]
    plain = f"http://127.0.0.1:{address[1]}/"
    for command in (["--http2", *ca, secure], ["--http2-prior-knowledge", plain]):
        done = subprocess.run(
            ["curl", "-sS", "-w", " %{http_version}", *command], capture_output=True, text=True, timeout=30
        )
        assert (done.stdout, done.stderr) == ("hello 2", "")


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_h2load_agrees(secure, address):
    for url in (secure, f"http://127.0.0.1:{address[1]}/", f"{secure}/stream", f"{secure}/later"):
        command = ["h2load", "-n", "2000", "-c", "4", "-m", "50", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "2000 done, 2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout


def test_http2_can_be_switched_off():
    server = _core.Server(
        application(), ["127.0.0.1:0"], tls=_core.Tls([adhoc_files()], http2=False), settings={"http2": False}
    )
    server.start()
    url = f"https://localhost:{server.addresses[0].rpartition(':')[2]}/"
    with httpx.Client(verify=trusting(), http2=True) as client:
        assert client.get(url).http_version == "HTTP/1.1"
    server.stop(5)
