"""Slow clients of every kind, more than there are threads: each is ended in its time and starves nobody."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import NamedTuple

import bodies
import pytest
from bodies import secure
from http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    block,
    frame,
    headers,
    settings,
)
from processes import PATIENCE, Command, get

APP = f"""{bodies.APP}

@app.get("/long")
def long():
    return bytes(30_000_000)


@app.get("/pieces")
def pieces():
    return (bytes(100_000) for _ in range(300))
"""

#: More than there are threads.
MANY = 24
THREADS = "4"


class Slow(NamedTuple):
    """A slow client."""

    #: What it sends at once.
    first: bytes
    #: What it sends a byte of now and then.
    drip: bytes = b""
    #: What it takes of the response now and then.
    takes: int = 65536


def post(path: str, more: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "
LENGTHS = {"short": "Content-Length: 5000\r\n", "long": "Content-Length: 5000000\r\n"}
SLOW = {
    "silent": Slow(b""),
    "half a head": Slow(HEAD),
    "a trickled head": Slow(HEAD, b"x"),
    "a head in empty lines": Slow(b"\r\n"),
    "nothing after an answer": Slow(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "half a body": Slow(post("/", LENGTHS["short"]) + b"x" * 2000),
    "a trickled body": Slow(post("/", LENGTHS["short"]), b"x"),
    "half a long body": Slow(post("/", LENGTHS["long"]) + b"x" * 2000),
    "a trickled long body": Slow(post("/stream", LENGTHS["long"]), b"x"),
    "half a chunked body": Slow(post("/stream", "Transfer-Encoding: chunked\r\n") + b"5\r\nab"),
    "a trickled chunk size": Slow(post("/stream", "Transfer-Encoding: chunked\r\n"), b"0"),
    "trickled chunks": Slow(post("/stream", "Transfer-Encoding: chunked\r\n"), b"1\r\nx\r\n" * 999),
    "half a body of a coroutine": Slow(post("/later", LENGTHS["long"]) + b"x" * 2000),
    "a trickled body of a coroutine": Slow(post("/later", LENGTHS["long"]), b"x"),
    "half a body that nobody reads": Slow(post("/nowhere", LENGTHS["short"]) + b"x"),
    "a reader that stops": Slow(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", takes=0),
    "a reader of drops": Slow(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", takes=1),
    "a reader of a stream that stops": Slow(b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n", takes=0),
    "a reader of drops of a stream": Slow(b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n", takes=1),
}
OPEN = PREFACE + settings()
FIELDS = block((":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/"))
READS = block((":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/long"))
SLOW_HTTP2 = {
    "nothing after the preface": Slow(OPEN),
    "half a preface": Slow(PREFACE[:20]),
    "a trickled preface": Slow(b"", PREFACE),
    "half a frame's head": Slow(OPEN + frame(HEADERS, 0, 1, FIELDS)[:5]),
    "half a header block": Slow(OPEN + headers(1, FIELDS, 0)),
    "a trickled header block": Slow(OPEN, frame(HEADERS, END_HEADERS, 1, FIELDS + b"\x00" * 9000)),
    "a body that never comes": Slow(OPEN + headers(1, FIELDS, END_HEADERS)),
    "half a body": Slow(OPEN + headers(1, FIELDS, END_HEADERS) + frame(DATA, 0, 1, b"x" * 2000)),
    "a window of nothing": Slow(PREFACE + settings((4, 0)) + headers(1, READS, END_HEADERS | END_STREAM)),
    "a window that stays": Slow(OPEN + headers(1, READS, END_HEADERS | END_STREAM)),
    "an answer that nobody takes": Slow(
        PREFACE
        + settings((4, 2**31 - 1))
        + frame(8, 0, 0, struct.pack(">I", 2**30))
        + headers(1, READS, END_HEADERS | END_STREAM),
        takes=0,
    ),
}


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request, tmp_path_factory):
    """A server of little patience; its port, and what makes a connection to it."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "hello.py").write_text(APP)
    limits = [
        f"--{name}-timeout=300ms" for name in ("header", "body", "idle", "write", "handshake", "linger")
    ]
    # Drops are fewer than that.
    limits += ["--body-rate", "10000", "--write-rate", "100000"]
    certificate = ["--cert", "adhoc"] if request.param == "tls" else []
    command = Command(folder, "--port", "0", "--threads", THREADS, *limits, *certificate)
    port = int(command.until(r"Running on https?://\S*:(\d+)")[1])

    def connect(protocol: str = "http/1.1") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return secure(client, protocol) if certificate else client

    yield port, connect
    command.close()
    assert "panic" not in command.text
    assert "Traceback" not in command.text


def ask(connect) -> None:
    """A request of somebody else."""
    with contextlib.closing(connect()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")


def move(client: socket.socket, slow: Slow, turn: int) -> None:
    """Send and take a little."""
    # A client that is ended hears of that below.
    with contextlib.suppress(OSError):
        client.send(slow.drip[turn % len(slow.drip) :][:1] if slow.drip else b"")
    with contextlib.suppress(OSError):
        if slow.takes:
            client.recv(slow.takes)


def outlast(connect, clients: list[socket.socket], slow: Slow) -> None:
    """Be slow with all until each is ended, and ask for something else meanwhile."""
    ended = select.poll()
    left = {client.fileno(): client for client in clients}
    for number, client in left.items():
        client.setblocking(False)
        ended.register(number, select.POLLRDHUP)
    deadline = time.monotonic() + PATIENCE
    turn = 0
    while left:
        assert time.monotonic() < deadline, f"{len(left)} are not ended"
        for client in left.values():
            move(client, slow, turn)
        turn += 1
        ask(connect)
        for number, _ in ended.poll(20):
            ended.unregister(number)
            del left[number]


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_are_ended_and_starve_nobody(server, kind):
    _, connect = server
    slow = SLOW[kind]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(connect())) for _ in range(MANY)]
        for client in clients:
            client.sendall(slow.first)
        outlast(connect, clients, slow)


@pytest.mark.parametrize("kind", SLOW_HTTP2)
def test_slow_clients_of_http2_are_ended_and_starve_nobody(server, kind):
    _, connect = server
    slow = SLOW_HTTP2[kind]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(connect("h2"))) for _ in range(MANY)]
        for client in clients:
            client.sendall(slow.first)
        outlast(connect, clients, slow)


@pytest.mark.parametrize("server", ["tls"], indirect=True)
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02"], ids=["none", "half"])
@pytest.mark.parametrize("drip", [b"", b"\x00"], ids=["silent", "trickled"])
def test_slow_handshakes_are_ended_and_starve_nobody(server, first, drip):
    port, connect = server
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(MANY)
        ]
        for client in clients:
            client.sendall(first)
        outlast(connect, clients, Slow(first, drip))


def test_thousands_of_idle_connections_starve_nobody(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    command = Command(tmp_path, "--port", "0", "--threads", THREADS)
    with contextlib.ExitStack() as stack:
        stack.callback(command.close)
        port = command.port()
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(5000)
        ]
        # Half of them have asked for something before.
        for client in idle[::2]:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in idle[::2]:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        for _ in range(50):
            assert get(port, "/") == "0"
        # And they are served when they come back.
        for client in idle[::10]:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
