"""Bodies that sync generators make, and bodies that views read, while they are on their way."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sse import TIMEOUT, Reader, serving

from hipflask import (
    Flask,
    Response,
    g,
    request,
    send_file,
    stream_template_string,
    stream_with_context,
)


@pytest.fixture(params=["fast", "full"])
def lane(request: pytest.FixtureRequest, app: Flask) -> str:
    """Each lane of the app in turn."""
    if request.param == "full":
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start: inner(environ, start)  # type: ignore[method-assign]
    return str(request.param)


def aborted(where: tuple[str, int], request: bytes) -> None:
    """Send something and break off without a goodbye."""
    with socket.create_connection(where, TIMEOUT) as client:
        client.sendall(request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class TestGenerators:
    @pytest.mark.usefixtures("lane")
    def test_each_piece_goes_out_when_it_is_made(self, app: Flask) -> None:
        go_on = threading.Semaphore(0)

        @app.route("/")
        def view() -> Any:
            def pieces() -> Iterator[str]:
                for number in range(3):
                    yield f"piece {number}"
                    assert go_on.acquire(timeout=TIMEOUT)

            return pieces()

        with serving(app) as where, Reader(where, Connection="close") as reader:
            assert "Transfer-Encoding: chunked" in reader.head
            for number in range(3):
                assert reader.until(b"\r\n") == b"7\r\n"
                assert reader.until(b"\r\n") == f"piece {number}\r\n".encode()
                go_on.release()
            assert reader.rest() == b"0\r\n\r\n"

    @pytest.mark.usefixtures("lane")
    def test_the_request_is_there_while_they_run(self, app: Flask) -> None:
        ended: list[str] = []
        app.teardown_request(lambda error: ended.append("request"))

        @app.route("/<kind>")
        def view(kind: str) -> Any:
            g.name = "Ada"

            @stream_with_context
            def pieces() -> Iterator[str]:
                for _ in range(3):
                    yield request.args["a"] + g.name
                assert "request" not in ended[1:]

            if kind == "template":
                return stream_template_string(
                    "{% for i in range(3) %}{{ request.args.a }}{{ g.name }}{% endfor %}"
                )
            return pieces()

        with serving(app) as where:
            for kind in ("generator", "template"):
                with Reader(where, f"/{kind}?a=1", version="1.0") as reader:
                    assert reader.rest() == b"1Ada1Ada1Ada"

    @pytest.mark.usefixtures("lane")
    @pytest.mark.parametrize(
        "case",
        ["read", "client gone", "error", "error at first", "HEAD", "not modified", "client gone at once"],
    )
    def test_close_is_always_called(self, app: Flask, case: str) -> None:
        closed = threading.Semaphore(0)
        on_close = threading.Semaphore(0)

        class Pieces:
            count = 0

            def __iter__(self) -> Pieces:
                return self

            def __next__(self) -> bytes:
                self.count += 1
                if case in ("error", "error at first") and self.count == (3 if case == "error" else 1):
                    raise LookupError("expected")
                if case == "read" and self.count > 3:
                    raise StopIteration
                return b"x" * 1000

            def close(self) -> None:
                closed.release()

        @app.route("/")
        def view() -> Response:
            response = Response(Pieces(), 304 if case == "not modified" else 200)
            response.call_on_close(on_close.release)
            return response

        with serving(app) as where:
            if case == "client gone at once":
                aborted(where, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            else:
                method = b"HEAD" if case == "HEAD" else b"GET"
                with socket.create_connection(where, TIMEOUT) as client:
                    client.sendall(method + b" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    got = client.recv(1000)
                    if case != "client gone":
                        with contextlib.suppress(ConnectionResetError):
                            while more := client.recv(65536):
                                got += more
                if case == "HEAD":
                    assert got.startswith(b"HTTP/1.1 200")
                    assert got.endswith(b"\r\n\r\n")
                elif case == "error at first":
                    assert got.startswith(b"HTTP/1.1 500")
                elif case == "error":
                    # Broken: what came is not the whole.
                    assert got.count(b"x" * 1000) == 2
                    assert b"\r\n0\r\n" not in got
            assert closed.acquire(timeout=TIMEOUT)
            assert on_close.acquire(timeout=TIMEOUT)
        assert not closed.acquire(blocking=False)
        assert not on_close.acquire(blocking=False)

    @pytest.mark.usefixtures("lane")
    def test_an_error_in_the_middle_is_logged_with_its_traceback(
        self, app: Flask, caplog: pytest.LogCaptureFixture
    ) -> None:
        @app.route("/")
        def view() -> Any:
            def pieces() -> Iterator[str]:
                yield "first"
                raise LookupError("expected")

            return pieces()

        with serving(app) as where, Reader(where) as reader:
            reader.until(b"first\r\n")
            assert reader.rest() in (b"", b"!")
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.exc_info is not None
        assert record.exc_info[0] is LookupError

    def test_http_1_0_ends_with_the_connection(self, app: Flask) -> None:
        app.add_url_rule("/", "view", lambda: iter(["a", "b"]))
        with serving(app) as where, Reader(where, version="1.0", Connection="keep-alive") as reader:
            assert "Transfer-Encoding" not in reader.head
            assert "Connection: close" in reader.head or "keep-alive" not in reader.head
            assert reader.rest() == b"ab"

    def test_a_slow_reader_stops_the_generator_and_holds_no_thread(self, app: Flask) -> None:
        made: dict[str, int] = {}

        @app.route("/<name>")
        def view(name: str) -> Any:
            def pieces() -> Iterator[bytes]:
                for number in range(100):
                    made[name] = number
                    yield b"x" * 1_000_000

            return pieces()

        app.add_url_rule("/health", "health", lambda: "fine")
        # Many more readers that do not read than there are threads.
        with serving(app, threads=2) as where:
            readers = [Reader(where, f"/{number}") for number in range(20)]
            for _ in range(20):
                with Reader(where, "/health") as health:
                    health.until(b"fine")
            assert len(made) == 20
            assert max(made.values()) < 50
            for reader in readers:
                reader.close()

    def test_requests_are_answered_beside_a_thousand_streams(self, app: Flask) -> None:
        """Each generator waits, and so holds a thread; the last threads are not for streams."""
        go_on = threading.Event()

        @app.route("/")
        def view() -> Any:
            def pieces() -> Iterator[str]:
                yield "first"
                go_on.wait(TIMEOUT)

            return pieces()

        @app.route("/health")
        def health() -> str:
            time.sleep(0.001)
            return "fine"

        more_files(2500)
        streams = []
        with serving(app, threads=8) as where:
            try:
                for _ in range(1000):
                    client = socket.create_connection(where, TIMEOUT)
                    streams.append(client)
                    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                for _ in range(50):
                    with Reader(where, "/health") as reader:
                        reader.until(b"fine")
            finally:
                go_on.set()
                for client in streams:
                    client.close()


class TestRequestBodies:
    @pytest.mark.usefixtures("lane")
    def test_are_read_while_they_arrive(self, app: Flask) -> None:
        got = threading.Semaphore(0)

        @app.post("/")
        def view() -> str:
            lines = []
            for line in request.stream:
                lines.append(line)
                got.release()
            return str(len(lines))

        with serving(app) as where, socket.create_connection(where, TIMEOUT) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(3):
                line = f"line {number}\n".encode()
                client.sendall(b"%x\r\n%s\r\n" % (len(line), line))
                assert got.acquire(timeout=TIMEOUT)
            client.sendall(b"0\r\n\r\n")
            assert client.recv(65536).endswith(b"\r\n\r\n3")

    @pytest.mark.usefixtures("lane")
    def test_the_limit_holds_while_they_arrive(self, app: Flask) -> None:
        app.config["MAX_CONTENT_LENGTH"] = 10_000
        read: list[int] = []

        @app.post("/")
        def view() -> str:
            while piece := request.stream.read(1000):
                read.append(len(piece))
            return "all"

        with serving(app) as where, socket.create_connection(where, TIMEOUT) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(12):
                client.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 413")
        assert sum(read) <= 10_000

    @pytest.mark.usefixtures("lane")
    def test_an_answer_may_stream_while_the_body_arrives(self, app: Flask) -> None:
        @app.post("/")
        def echo() -> Any:
            stream = request.stream

            def pieces() -> Iterator[bytes]:
                for line in stream:
                    yield line.upper()

            return Response(pieces(), mimetype="text/plain")

        with serving(app) as where, socket.create_connection(where, TIMEOUT) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            got = b""
            for number in range(3):
                line = f"line {number}\n".encode()
                client.sendall(b"%x\r\n%s\r\n" % (len(line), line))
                while line.upper() not in got:
                    more = client.recv(65536)
                    assert more, got
                    got += more
            client.sendall(b"0\r\n\r\n")
            while not got.endswith(b"\r\n0\r\n\r\n"):
                more = client.recv(65536)
                assert more, got
                got += more

    def test_a_client_that_breaks_off_ends_the_reading(self, app: Flask) -> None:
        seen: list[Any] = []
        done = threading.Event()

        @app.post("/")
        def view() -> str:
            try:
                request.stream.read()
            except Exception as error:
                seen.append(error)
                raise
            finally:
                done.set()
            return "read"

        with serving(app) as where:
            aborted(where, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
            assert done.wait(TIMEOUT)
        assert getattr(seen[0], "code", None) == 400


class TestFiles:
    @pytest.mark.parametrize("lane", ["fast"], indirect=True)
    def test_a_part_of_two_gigabytes_takes_no_memory(self, app: Flask, lane: str, tmp_path: Path) -> None:
        path = tmp_path / "large"
        with path.open("wb") as file:
            file.truncate(2 << 30)
            file.seek((1 << 30) + 5)
            file.write(b"here")
        app.add_url_rule("/", "view", lambda: send_file(path))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        length = 300_000_000
        with serving(app) as where:
            first = 1 << 30
            with Reader(where, Range=f"bytes={first + 5}-{first + 8}") as reader:
                assert "206 PARTIAL CONTENT" in reader.head
                assert f"Content-Range: bytes {first + 5}-{first + 8}/{2 << 30}" in reader.head
                assert reader.until(b"here") == b"here"
            with Reader(where, Range=f"bytes={first}-{first + length - 1}") as reader:
                got = len(reader.got)
                while got < length:
                    got += len(reader.socket.recv(1 << 20))
                assert got == length
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 * 1024


def more_files(count: int) -> None:
    """Let this process have so many open files, if the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard < count:
            pytest.skip(f"this system lets a process have {hard} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


SERVED = """
import os, resource, sys, time
from hipflask import Channel, EventStream, Flask, _core, request

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
app = Flask("served")
channel = Channel(history=5, heartbeat=0.2)
live = set()

@app.route("/channel")
def subscribe():
    return channel.stream()

def counted():
    mine = object()
    live.add(mine)
    try:
        for _ in range(50):
            yield "x" * 2000
            time.sleep(0.002)
    finally:
        live.discard(mine)

@app.route("/generator")
def generator():
    return counted()

@app.route("/events")
def events():
    return EventStream(counted())

@app.route("/async")
async def coroutine():
    import asyncio
    async def events():
        mine = object()
        live.add(mine)
        try:
            for _ in range(50):
                yield "x" * 2000
                await asyncio.sleep(0.002)
        finally:
            live.discard(mine)
    return EventStream(events())

@app.post("/upload")
def upload():
    mine = object()
    live.add(mine)
    try:
        return str(len(request.stream.read()))
    finally:
        live.discard(mine)

@app.route("/state")
def state():
    with open("/proc/self/status") as status:
        memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    channel.publish("more")
    return {
        "subscribers": len(channel),
        "live": len(live),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "memory": memory,
    }

server = _core.Server(app, ["127.0.0.1:0"])
server.start()
print(server.addresses[0], flush=True)
sys.stdin.read()
server.stop(0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_ten_thousand_disconnects_leave_nothing_behind() -> None:
    """Clients break off at every point of a stream or of an upload, with and without a goodbye."""
    import json
    import urllib.request

    count, rounds = 500, 20
    more_files(count + 200)
    requests = [
        b"GET /channel HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /generator HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /async HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 1000,
    ]
    with subprocess.Popen(
        [sys.executable, "-c", SERVED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    ) as server:
        assert server.stdout is not None
        host, _, port = server.stdout.readline().strip().rpartition(":")
        where = (host, int(port))

        def state() -> dict[str, int]:
            with urllib.request.urlopen(f"http://{host}:{port}/state", timeout=TIMEOUT) as answer:
                return json.load(answer)  # type: ignore[no-any-return]

        def settled() -> dict[str, int]:
            deadline = time.monotonic() + 4 * TIMEOUT
            while True:
                now = state()
                if now["subscribers"] == 0 and now["live"] == 0 and now["files"] <= first["files"] + 2:
                    return now
                assert time.monotonic() < deadline, now

        first = state()
        after: list[dict[str, int]] = []
        for turn in range(rounds):
            clients = []
            for number in range(count):
                client = socket.create_connection(where, TIMEOUT)
                clients.append(client)
                # One kind at a time: uploads that do not come hold the threads that others need.
                kind = turn % len(requests)
                whole = requests[kind]
                # Every eighth one breaks off within the head.
                client.sendall(whole[: 20 + number % 10] if number % 8 == 7 else whole)
                if number % 3 == 0 and number % 8 != 7 and kind != len(requests) - 1:
                    assert client.recv(100)
            for number, client in enumerate(clients):
                if number % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            after.append(settled())
        # Threads come as they are needed, and stay.
        assert after[-1]["threads"] <= 40
        # The first rounds fill what is kept for use again.
        assert after[-1]["memory"] < after[rounds // 2]["memory"] + 8 * 1024, after
        assert server.stdin is not None
        server.stdin.close()
        server.wait(TIMEOUT)
