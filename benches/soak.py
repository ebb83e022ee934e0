"""Serve a million requests of every kind, and compare what the server holds with what it held early on.

``python benches/soak.py [--requests N] [--early N]``; `make soak` runs it. Kinds: small views, JSON, forms,
uploads, files, templates, sessions, refusals, errors, streams, events, WebSockets, HTTP/2, TLS, malformed
requests, clients that leave.
Compared are resident memory, descriptors, threads, Python's objects and allocated blocks.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from http2_frames import END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, Wire, block, frame, headers

APP = """
import gc
import os
import sys
from hipflask import EventStream, Flask, render_template_string, request, session

app = Flask(__name__)
app.secret_key = "soak"
app.logger.disabled = True


@app.get("/hello")
def hello():
    return "hello"


@app.post("/json")
def echo():
    return {"got": request.get_json()}


@app.post("/form")
def form():
    return {"fields": len(request.form), "files": [len(file.read()) for file in request.files.values()]}


@app.post("/upload")
def upload():
    return str(sum(map(len, iter(lambda: request.stream.read(65536), b""))))


@app.get("/session")
def count():
    session["times"] = session.get("times", 0) + 1
    return str(session["times"])


@app.get("/template")
def template():
    return render_template_string("{% for i in range(9) %}{{ i }}{{ name }}{% endfor %}", name="x")


@app.get("/fails")
def fails():
    raise ValueError("on purpose")


@app.get("/later")
async def later():
    return "later"


@app.get("/stream")
def stream():
    return (str(i) * 100 for i in range(10))


@app.get("/events")
def events():
    def endless():
        while True:
            yield "event"

    return EventStream(endless())


@app.websocket("/socket")
def socket(ws):
    for message in ws:
        ws.send(message)


@app.get("/state")
def state():
    gc.collect()
    status = open("/proc/self/status").read()
    return {
        "resident": int(status.partition("VmRSS:")[2].split()[0]) * 1024,
        "threads": int(status.partition("Threads:")[2].split()[0]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
    }
"""

PARTS = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"x" * 5000 + b"\r\n--b--\r\n"
)


class Client:
    """Sends each kind of request on a connection that it keeps."""

    def __init__(self, port: int, secure: int) -> None:
        self.port, self.secure = port, secure
        self.kept = self._open()
        self.wire: Wire | None = None
        self.stream = 1
        self.cookie = ""

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: bytes = b"", status: int = 200, **fields: str) -> bytes:
        """A request and its answer."""
        self.kept.request(
            method, path, body or None, {name.replace("_", "-"): fields[name] for name in fields}
        )
        answer = self.kept.getresponse()
        data = answer.read()
        assert answer.status == status, (path, answer.status, data[:200])
        self.cookie = (answer.getheader("Set-Cookie") or self.cookie).partition(";")[0]
        return data

    def close(self) -> None:
        """Close the connections that are kept."""
        self.kept.close()
        if self.wire is not None:
            self.wire.close()

    def raw(self, data: bytes, take: int = 65536) -> bytes:
        """Bytes on a connection of their own."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as client:
            client.sendall(data)
            return client.recv(take) if take else b""

    def events(self) -> None:
        """Subscribe, hear a little, leave."""
        got = self.raw(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n", 100)
        assert got.startswith(b"HTTP/1.1 200 ")

    def websocket(self) -> None:
        """Connect, say something, hear it again, close."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as client:
            key = base64.b64encode(bytes(16)).decode()
            client.sendall(
                f"GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
            client.sendall(b"\x81\x85" + bytes(4) + b"hello")
            got = b""
            while len(got) < 7:
                got += client.recv(65536)
            assert got == b"\x81\x05hello"
            client.sendall(b"\x88\x82" + bytes(4) + b"\x03\xe8")
            while client.recv(65536):
                pass

    def http2(self) -> None:
        """A request on a connection that is kept for some."""
        if self.wire is None or self.stream > 2000:
            if self.wire is not None:
                self.wire.close()
            self.wire, self.stream = Wire(("127.0.0.1", self.port)), 1
        fields = block((":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/hello"))
        self.wire.send(headers(self.stream, fields, END_HEADERS | END_STREAM))
        ended = False
        while not ended:
            got = self.wire.read()
            assert got is not None
            if got.kind == HEADERS:
                self.wire.decoder.decode(got.payload)
            elif got.stream == self.stream and got.payload:
                self.wire.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(got.payload))))
            ended = got.stream == self.stream and bool(got.flags & END_STREAM)
        self.stream += 2

    def tls(self) -> None:
        """A handshake and a request."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.secure), 60) as plain,
            context.wrap_socket(plain) as client,
        ):
            client.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")

    def torn(self) -> None:
        """Half of an upload, and a reset."""
        client = socket.create_connection(("127.0.0.1", self.port), 60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\nxxx")
        client.close()


KINDS: dict[str, tuple[int, Callable[[Client], object]]] = {
    # How often, of a thousand: what costs the client much is rarer.
    "hello": (300, lambda client: client.ask("GET", "/hello")),
    "json": (
        150,
        lambda client: client.ask("POST", "/json", b'{"a": [1, 2]}', Content_Type="application/json"),
    ),
    "form": (
        60,
        lambda client: client.ask(
            "POST", "/form", b"a=1&b=2&a=3", Content_Type="application/x-www-form-urlencoded"
        ),
    ),
    "file upload": (
        40,
        lambda client: client.ask("POST", "/form", PARTS, Content_Type="multipart/form-data; boundary=b"),
    ),
    "long upload": (4, lambda client: client.ask("POST", "/upload", bytes(300_000))),
    "not found": (50, lambda client: client.ask("GET", "/nowhere", status=404)),
    "wrong method": (50, lambda client: client.ask("POST", "/hello", status=405)),
    "static": (60, lambda client: client.ask("GET", "/static/file.txt")),
    "session": (60, lambda client: client.ask("GET", "/session", Cookie=client.cookie)),
    "template": (50, lambda client: client.ask("GET", "/template")),
    "error": (30, lambda client: client.ask("GET", "/fails", status=500)),
    "coroutine": (60, lambda client: client.ask("GET", "/later")),
    "stream": (30, lambda client: client.ask("GET", "/stream")),
    "events": (6, Client.events),
    "websocket": (6, Client.websocket),
    "http2": (30, Client.http2),
    "tls": (4, Client.tls),
    "malformed": (5, lambda client: client.raw(b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n")),
    "torn": (5, Client.torn),
}


class Soak:
    """A server and its clients.

    Args:
        folder: Where the application is written.
        clients: How many at a time.
    """

    def __init__(self, folder: Path, clients: int) -> None:
        (folder / "static").mkdir()
        (folder / "static" / "file.txt").write_text("x" * 1000)
        (folder / "soak_app.py").write_text(APP)
        command = [sys.executable, "-m", "hipflask", "run", "soak_app", "--port", "0"]
        quiet = {"cwd": folder, "env": {**os.environ, "PWD": str(folder)}, "text": True}
        self.servers = [
            subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **quiet)
            for more in ([], ["--cert", "adhoc"])
        ]
        self.ports = [self._port(server) for server in self.servers]
        self.clients = [Client(*self.ports) for _ in range(clients)]
        self.done = 0

    def _port(self, server: subprocess.Popen[str]) -> int:
        for line in server.stdout or ():
            if found := re.search(r"Running on https?://\S*:(\d+)", line):
                return int(found[1])
        raise SystemExit("the server does not start")

    def run(self, requests: int) -> None:
        """Send so many more requests, of every kind by its share."""
        share = max(1, requests // len(self.clients))
        plan = [kind for kind, (often, _) in KINDS.items() for _ in range(often)]
        # Spread, so that every kind comes beside every other.
        plan = [plan[at * 617 % len(plan)] for at in range(len(plan))]
        failures: list[BaseException] = []

        def work(client: Client, offset: int) -> None:
            try:
                for at in range(share):
                    KINDS[plan[(at + offset) % len(plan)]][1](client)
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=work, args=(client, at * 97)) for at, client in enumerate(self.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        self.done += share * len(self.clients)

    def state(self) -> list[dict[str, int]]:
        """What the servers hold: the least of some looks, since what clients left may not be gone yet."""
        looks: list[list[dict[str, int]]] = []
        for _ in range(10):
            found = []
            for at, port in enumerate(self.ports):
                context = None
                if at:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
                else:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("GET", "/state")
                found.append(json.loads(connection.getresponse().read()))
                connection.close()
            looks.append(found)
            time.sleep(0.3)
        return [
            {key: min(look[at][key] for look in looks) for key in looks[0][at]}
            for at in range(len(self.ports))
        ]

    def close(self) -> None:
        """End the clients and the servers."""
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        for server in self.servers:
            server.wait(60)
            if server.stdout is not None:
                server.stdout.close()


def compare(early: int, requests: int, clients: int = 8) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Run, and look twice.

    Args:
        early: After how many requests first.
        requests: After how many the second time.
        clients: How many at a time.

    Returns:
        For each server (plain, TLS) what it held then and now.
    """
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), clients)
        try:
            soak.run(early)
            first = soak.state()
            soak.run(requests - early)
            return list(zip(first, soak.state(), strict=True))
        finally:
            soak.close()


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--early", type=int, default=10_000)
    options = parser.parse_args()
    begin = time.monotonic()
    found = compare(options.early, options.requests)
    print(f"{options.requests} requests of {len(KINDS)} kinds in {time.monotonic() - begin:.0f} s")
    grows = False
    for name, (first, last) in zip(("plain", "TLS"), found, strict=True):
        for key, before in first.items():
            print(f"{name:6} {key:12} {before:>12} after {options.early:>9}, {last[key]:>12} at the end")
        # Allocators keep some; a leak of a byte per request is more.
        grows |= last["resident"] > first["resident"] + max(options.requests, 8 << 20)
        grows |= last["objects"] > first["objects"] * 1.02 + 100
        grows |= last["blocks"] > first["blocks"] * 1.02 + 500
        grows |= last["descriptors"] > first["descriptors"] + 2
    if grows:
        raise SystemExit("it grows")


if __name__ == "__main__":
    main()
