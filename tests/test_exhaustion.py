"""What a machine runs out of: descriptors, which come back, and memory, which endless bodies do not take."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import struct
from pathlib import Path

import bodies
import pytest
from bodies import secure
from http2_frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    block,
    frame,
    headers,
)
from processes import PATIENCE, Command, eventually

APP = f"""{bodies.APP}

@app.route("/form", methods=["POST"])
def form():
    return str(len(request.files))


@app.route("/limited", methods=["POST"])
def limited():
    request.max_content_length = 1 << 20
    return str(len(request.get_data()))


@app.route("/unread", methods=["POST"])
def unread():
    return "not read"
"""
MIB = 1 << 20
#: How long the bodies are that clients announce or go on sending.
ENDLESS = 10 << 30


@pytest.fixture
def start(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    with contextlib.ExitStack() as stack:

        def start(*args, **more):
            command = Command(tmp_path, "--port", "0", *args, **more)
            stack.callback(command.close)
            return command, int(command.until(r"Running on https?://\S*:(\d+)")[1])

        yield start


# Descriptors.

#: For each process. Python, the listeners and the poller need some of them.
MOST = 60


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])
@pytest.mark.parametrize("certificate", [[], ["--cert", "adhoc"]], ids=["plain", "tls"])
def test_descriptors_run_out_and_come_back(start, workers, certificate):
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, MOST))

    command, port = start(*workers, *certificate, preexec_fn=lower)

    def connect() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        return secure(client) if certificate else client

    def ask(client: socket.socket) -> None:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")

    for _ in range(2):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(contextlib.closing(connect()))
            ask(first)
            # The kernel takes them into its queue, where they wait.
            for _ in range(3 * MOST):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            command.until(r"ERROR accepting pauses: .*(Too many open files|os error 24)")
            for _ in range(5):
                ask(first)
        with contextlib.closing(connect()) as client:
            ask(client)
        command.until("accepting goes on")
        # None was lost: each is accepted again.
        with contextlib.ExitStack() as stack:
            for _ in range(MOST // 3):
                ask(stack.enter_context(contextlib.closing(connect())))
    assert "Traceback" not in command.text
    assert "panic" not in command.text
    assert command.stop() == 0


# Memory.


def peak(pid: int) -> int:
    """The most memory that a process has held so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) << 10


class Sender:
    """A client that sends until it is stopped."""

    def __init__(self, client: socket.socket, head: str, chunked: bool) -> None:
        self.client = client
        self.sent = 0
        piece = b"x" * 65536
        body = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
        with contextlib.suppress(OSError):
            client.sendall(head.encode())
            while self.sent < ENDLESS:
                client.sendall(body)
                self.sent += len(piece)

    def answer(self) -> bytes:
        """What has come of an answer before the connection ended."""
        got = b""
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                got += data
        return got


FORM = "Content-Type: multipart/form-data; boundary=b\r\n"


@pytest.mark.parametrize("certificate", [[], ["--cert", "adhoc"]], ids=["plain", "tls"])
@pytest.mark.parametrize("threads", ["1", "8"], ids=["to a file", "to the view"])
def test_endless_bodies_take_no_memory(start, certificate, threads):
    command, port = start("--max-body", "1MiB", "--threads", threads, *certificate)
    pid = command.process.pid

    def send(path: str, fields: str, *, chunked: bool) -> Sender:
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"
        return Sender(secure(client) if certificate else client, head, chunked)

    framings = {f"Content-Length: {ENDLESS}\r\n": False, "Transfer-Encoding: chunked\r\n": True}
    for _ in range(2):
        before = peak(pid)
        for path in ("/", "/stream", "/later", "/form", "/unread", "/nowhere"):
            for fields, chunked in framings.items():
                sender = send(path, (FORM if path == "/form" else "") + fields, chunked=chunked)
                # The limit, what lies in sockets and what is read while the client may yet hear the answer.
                assert sender.sent < 64 * MIB, (path, fields)
                answer = sender.answer()
                expected = b"404" if path == "/nowhere" else b"413" if path != "/unread" else b"(413|200)"
                assert not answer or re.match(rb"HTTP/1.1 (100 .*\r\n\r\nHTTP/1.1 )?" + expected, answer)
                sender.client.close()
    assert peak(pid) - before < 8 * MIB
    assert command.stop() == 0


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_endless_bodies_against_a_limit_of_the_view_take_no_memory(start, framing):
    command, port = start("--max-body", "100GiB")
    pid = command.process.pid
    fields = f"Content-Length: {ENDLESS}\r\n" if framing == "length" else "Transfer-Encoding: chunked\r\n"
    for _ in range(2):
        before = peak(pid)
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        sender = Sender(client, f"POST /limited HTTP/1.1\r\nHost: x\r\n{fields}\r\n", framing == "chunked")
        assert sender.sent < 64 * MIB
        assert sender.answer()[:12] in (b"", b"HTTP/1.1 413")
        client.close()
    assert peak(pid) - before < 8 * MIB


@pytest.mark.parametrize("path", ["/", "/stream", "/later", "/unread"])
def test_endless_bodies_of_http2_take_no_memory(start, path):
    command, port = start("--max-body", "1MiB")
    pid = command.process.pid
    for _ in range(2):
        before = peak(pid)
        wire = Wire(("127.0.0.1", port))
        fields = block((":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path))
        wire.send(headers(1, fields, END_HEADERS))
        window = room = 65_535
        sent = 0
        while sent < ENDLESS:
            while window < 16_384 or room < 16_384:
                got = wire.read()
                if got is None or got.kind == RST_STREAM:
                    break
                if got.kind == WINDOW_UPDATE:
                    more = struct.unpack(">I", got.payload)[0]
                    window, room = (window + more, room) if got.stream == 0 else (window, room + more)
                if got.kind == SETTINGS and len(got.payload) % 6 == 0:
                    pairs = dict(struct.iter_unpack(">HI", got.payload))
                    room += pairs.get(4, 65_535) - 65_535
                if got.kind == HEADERS:
                    status = dict(wire.decoder.decode(got.payload))[":status"]
                    assert status == ("200" if path == "/unread" else "413")
            else:
                wire.send(frame(DATA, 0, 1, b"x" * 16_384))
                sent, window, room = sent + 16_384, window - 16_384, room - 16_384
                continue
            break
        assert sent < 64 * MIB
        wire.close()
    assert peak(pid) - before < 8 * MIB


@pytest.mark.skipif(
    not os.environ.get("HIPFLASK_LONG_TESTS"), reason="takes minutes: set HIPFLASK_LONG_TESTS (make long)"
)
@pytest.mark.parametrize("path", ["up", "down"])
def test_ten_gibibytes_pass_through_in_little_memory(start, tmp_path, path):
    (tmp_path / "static").mkdir()
    with (tmp_path / "static" / "huge").open("wb") as file:
        file.truncate(ENDLESS)
    command, port = start("--max-body", "100GiB")
    pid = command.process.pid
    before = peak(pid)
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as client:
        pass_through(client, path)
    assert peak(pid) - before < 8 * MIB
    eventually(lambda: command.stop() == 0, "it does not stop")


def pass_through(client: socket.socket, path: str) -> None:
    """Have ten gibibytes sent, or taken."""
    if path == "up":
        head = f"POST /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {ENDLESS}\r\n\r\n"
        sender = Sender(client, head, chunked=False)
        assert sender.sent == ENDLESS
        assert sender.answer().endswith(str(ENDLESS).encode())
    else:
        client.sendall(b"GET /static/huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got, room = 0, bytearray(1 << 20)
        while count := client.recv_into(room):
            got += count
        assert ENDLESS < got < ENDLESS + 1000
