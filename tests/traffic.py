"""Clients of every kind that keep an account of each request: answered, refused before it was accepted, cut.

`APP` writes a line for each request that a view gets, so that both sides can be compared.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hpack import Decoder
from http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    block,
    frame,
    headers,
    settings,
)
from processes import PATIENCE

APP = """
import asyncio
import os
import time
from hipflask import Flask, request

app = Flask(__name__)
VERSION = "one"
seen = os.open("seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def note(name):
    os.write(seen, f"{os.getpid()} {name}\\n".encode())


def answer(name, length=0):
    return f"{os.getpid()} {VERSION} {name} {length}"


@app.get("/fast/<name>")
def fast(name):
    note(name)
    return answer(name)


@app.get("/slow/<name>")
def slow(name):
    note(name)
    time.sleep(0.1)
    return answer(name)


@app.get("/later/<name>")
async def later(name):
    note(name)
    await asyncio.sleep(0.05)
    return answer(name)


@app.post("/upload/<name>")
def upload(name):
    note(name)
    return answer(name, sum(map(len, iter(lambda: request.stream.read(65536), b""))))


@app.get("/stream/<name>")
def stream(name):
    note(name)

    def pieces():
        for piece in answer(name).split(" "):
            time.sleep(0.02)
            yield piece + " "

    return pieces()
"""

#: The length of an upload: longer than what is read before the view is called.
LONG = 300_000


class Outcome(NamedTuple):
    """What became of a request."""

    #: ``answered``, ``refused`` (certainly not accepted), ``cut``.
    what: str
    #: The process that answered this one, or the one before on its connection.
    pid: int | None = None
    version: str = ""


class Refused(Exception):
    """The connection was refused: nobody listens."""


class Http1:
    """A connection of HTTP/1.1."""

    def __init__(self, traffic: Traffic) -> None:
        self.socket = traffic.connect("http/1.1")
        self.rest = b""
        self.pid: int | None = None
        self.closes = False

    def ask(self, kind: str, name: str) -> Outcome:
        """Send a request, and read the whole answer."""
        head = f"{'POST' if kind == 'upload' else 'GET'} /{kind}/{name} HTTP/1.1\r\nHost: x\r\n"
        try:
            if kind == "upload" and name.endswith("0"):
                self.socket.sendall(f"{head}Content-Length: {LONG}\r\n\r\n".encode())
                self.socket.sendall(b"x" * LONG)
            elif kind == "upload":
                self.socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
                for _ in range(10):
                    self.socket.sendall(b"%x\r\n" % (LONG // 10) + b"x" * (LONG // 10) + b"\r\n")
                self.socket.sendall(b"0\r\n\r\n")
            else:
                self.socket.sendall(head.encode() + b"\r\n")
            top, body = self._response()
        except OSError:
            return Outcome("cut", self.pid)
        if not top.startswith(b"http/1.1 200 "):
            raise AssertionError((name, top, body))
        self.closes = b"connection: close" in top
        return self._read(body, name, kind)

    def _read(self, body: bytes, name: str, kind: str) -> Outcome:
        pid, version, echoed, length = body.decode().split()
        assert (echoed, int(length)) == (name, LONG if kind == "upload" else 0)
        self.pid = int(pid)
        return Outcome("answered", self.pid, version)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError
        self.rest += data

    def _until(self, end: bytes) -> bytes:
        while end not in self.rest:
            self._more()
        found, _, self.rest = self.rest.partition(end)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            self._more()
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    def _response(self) -> tuple[bytes, bytes]:
        top = self._until(b"\r\n\r\n").lower()
        if b"transfer-encoding: chunked" not in top:
            length = int(top.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return top, self._exactly(length)
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            self._exactly(2)
        self._exactly(2)
        return top, body

    def close(self) -> None:
        """Close it."""
        self.socket.close()


class Http2:
    """A connection of HTTP/2 with several requests at a time."""

    #: Requests at a time.
    WIDTH = 4
    #: Shorter uploads: they fit into the first window.
    LONG = 15_000

    def __init__(self, traffic: Traffic) -> None:
        self.socket = traffic.connect("h2")
        self.rest = b""
        self.decoder = Decoder()
        self.stream = -1
        self.pid: int | None = None
        self.closes = False
        #: What may be sent on the whole connection.
        self.window = 65_535
        self.socket.sendall(PREFACE + settings())

    def _next(self) -> Frame:
        while len(self.rest) < 9 or len(self.rest) < 9 + int.from_bytes(self.rest[:3], "big"):
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError
            self.rest += data
        size = int.from_bytes(self.rest[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.rest[3:9])
        payload, self.rest = self.rest[9 : 9 + size], self.rest[9 + size :]
        return Frame(kind, flags, stream, payload)

    def ask(self, kind: str, names: list[str]) -> list[Outcome]:
        """Send requests at once, and read all answers."""
        waiting: dict[int, str] = {}
        bodies: dict[int, bytes] = {}
        outcomes: dict[str, Outcome] = {}
        try:
            for name in names:
                self.stream += 2
                waiting[self.stream] = name
                bodies[self.stream] = b""
                self._send(kind, self.stream, name)
            while waiting:
                self._hear(kind, waiting, bodies, outcomes)
        except OSError:
            for name in waiting.values():
                outcomes[name] = Outcome("cut", self.pid)
            self.closes = True
        return [outcomes.get(name, Outcome("refused")) for name in names]

    def _send(self, kind: str, stream: int, name: str) -> None:
        method = "POST" if kind == "upload" else "GET"
        fields = block(
            (":method", method), (":scheme", "https"), (":authority", "x"), (":path", f"/{kind}/{name}")
        )
        ends = 0 if kind == "upload" else END_STREAM
        self.socket.sendall(headers(stream, fields, END_HEADERS | ends))
        if kind == "upload":
            self.window -= self.LONG
            self.socket.sendall(frame(DATA, END_STREAM, stream, b"x" * self.LONG))

    def _hear(self, kind: str, waiting: dict, bodies: dict, outcomes: dict) -> None:
        got = self._next()
        if got.kind == SETTINGS and not got.flags & ACK:
            self.socket.sendall(settings(flags=ACK))
        elif got.kind == PING and not got.flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, got.payload))
        elif got.kind == WINDOW_UPDATE and got.stream == 0:
            self.window += int.from_bytes(got.payload, "big")
        elif got.kind == GOAWAY:
            self.closes = True
            last, code = struct.unpack(">II", got.payload[:8])
            assert code == 0, got
            # Those behind the last one were not looked at (RFC 9113, section 6.8).
            for stream in [stream for stream in waiting if stream > last]:
                outcomes[waiting.pop(stream)] = Outcome("refused")
        elif got.kind == RST_STREAM and got.stream in waiting:
            # 7: REFUSED_STREAM.
            refused = int.from_bytes(got.payload, "big") == 7
            outcomes[waiting.pop(got.stream)] = Outcome("refused" if refused else "cut", self.pid)
        elif got.kind == HEADERS:
            fields = dict(self.decoder.decode(got.payload))
            assert fields.get(":status", "200") == "200", (fields, waiting)
        elif got.kind == DATA:
            bodies[got.stream] += got.payload
            if got.payload:
                self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(got.payload))))
        if got.kind in (HEADERS, DATA) and got.flags & END_STREAM and got.stream in waiting:
            name = waiting.pop(got.stream)
            pid, version, echoed, length = bodies[got.stream].decode().split()
            assert (echoed, int(length)) == (name, self.LONG if kind == "upload" else 0)
            self.pid = int(pid)
            outcomes[name] = Outcome("answered", self.pid, version)

    def close(self) -> None:
        """Close it."""
        self.socket.close()


class Traffic:
    """Clients that send one request after the other until they are told to stop, or nobody listens.

    Args:
        port: Where.
        trusted: The file of certificates to trust; without one, TLS is not spoken.
        http2: Whether half of the clients speak HTTP/2.
    """

    KINDS = ("fast", "fast", "slow", "later", "upload", "stream")

    def __init__(self, port: int, trusted: Path | None = None, *, http2: bool = True) -> None:
        self.port = port
        self.trusted = trusted
        self.changed = threading.Condition()
        self.outcomes: dict[str, Outcome] = {}
        #: Clients that found nobody listening.
        self.refused = 0
        self.failures: list[BaseException] = []
        self.stopping = False
        plans = [(kind, "kept") for kind in self.KINDS] + [("fast", "fresh"), ("upload", "fresh")]
        if http2:
            plans += [(kind, "http2") for kind in self.KINDS[1:]]
        self.threads = [
            threading.Thread(target=self._live, args=(*plan, number)) for number, plan in enumerate(plans)
        ]
        for thread in self.threads:
            thread.start()

    def connect(self, protocol: str) -> socket.socket:
        """A connection, with TLS if that is spoken.

        Raises:
            Refused: If nobody listens.
        """
        try:
            plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        except ConnectionRefusedError:
            raise Refused from None
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.trusted is None:
            return plain
        context = ssl.create_default_context()
        # Certificates of one name would be taken for one another: they are compared below.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        secure = context.wrap_socket(plain, server_hostname="localhost")
        assert secure.selected_alpn_protocol() == protocol
        certificate = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True)).split()
        assert " ".join(certificate) in " ".join(self.trusted.read_text().split())
        return secure

    def _live(self, kind: str, manner: str, number: int) -> None:
        try:
            self._run(kind, manner, number)
        except Refused:
            with self.changed:
                self.refused += 1
                self.changed.notify_all()
        except BaseException as error:
            with self.changed:
                self.failures.append(error)
                self.changed.notify_all()

    def _run(self, kind: str, manner: str, number: int) -> None:
        connection: Http1 | Http2 | None = None
        at = 0
        while not self.stopping:
            if connection is None:
                try:
                    connection = Http2(self) if manner == "http2" else Http1(self)
                except (ConnectionError, ssl.SSLEOFError):
                    # Cut before any request: those that were not accepted yet when nobody listens any more.
                    continue
            names = [f"{kind}-{manner}-{number}-{at + more}" for more in range(Http2.WIDTH)]
            at += Http2.WIDTH
            if isinstance(connection, Http2):
                outcomes = dict(zip(names, connection.ask(kind, names), strict=True))
            else:
                outcomes = {names[0]: connection.ask(kind, names[0])}
            with self.changed:
                self.outcomes |= outcomes
                self.changed.notify_all()
            cut = any(outcome.what != "answered" for outcome in outcomes.values())
            if cut or connection.closes or manner == "fresh":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def count(self, what: str = "answered") -> int:
        """How many requests came to this end."""
        return sum(outcome.what == what for outcome in self.outcomes.values())

    def wait_for(self, number: int) -> None:
        """Wait until so many more requests have been answered, some of every client."""
        with self.changed:
            wanted = self.count() + number
            clients = len(self.threads)
            before = set(self.outcomes)
            done = self.changed.wait_for(
                lambda: (
                    self.failures
                    or (
                        self.count() >= wanted
                        and len({name.split("-")[2] for name in set(self.outcomes) - before}) == clients
                    )
                ),
                2 * PATIENCE,
            )
            assert done, Counter(outcome.what for outcome in self.outcomes.values())
            assert not self.failures, self.failures

    def wait_for_refusal(self) -> None:
        """Wait until no client can connect any more."""
        with self.changed:
            done = self.changed.wait_for(
                lambda: self.failures or self.refused == len(self.threads), 2 * PATIENCE
            )
            assert done, self.refused
            assert not self.failures, self.failures

    def stop(self) -> None:
        """Let each client finish its requests."""
        self.stopping = True
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive()
        assert not self.failures, self.failures

    def pids(self) -> set[int]:
        """The processes that have answered."""
        return {outcome.pid for outcome in self.outcomes.values() if outcome.what == "answered"}

    def account(self, folder: Path) -> dict[str, int]:
        """Compare with what the views have noted: none twice, no answer without a view, none refused.

        Returns:
            Requests that a view got and whose client got no answer, with the process that had them.
        """
        lines = [line.split() for line in (folder / "seen").read_text().splitlines()]
        assert [name for name, times in Counter(name for _, name in lines).items() if times > 1] == []
        seen = {name: int(pid) for pid, name in lines}
        for name, outcome in self.outcomes.items():
            if outcome.what == "answered":
                assert seen.get(name) == outcome.pid, (name, outcome)
            elif outcome.what == "refused":
                assert name not in seen, (name, outcome)
        unanswered = seen.keys() - {
            name for name, outcome in self.outcomes.items() if outcome.what == "answered"
        }
        return {name: seen[name] for name in unanswered}
