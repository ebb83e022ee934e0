"""Async iterators as bodies of responses: through every door, and with the engine's back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from doors import LiveDoor

from hipflask import Flask, Response, g, request, stream_with_context

TIMEOUT = 20


@pytest.fixture
def door(app: Flask) -> Iterator[LiveDoor]:
    door = LiveDoor(app)
    yield door
    door.close()


def opened(door: LiveDoor, target: str = "/") -> socket.socket:
    sock = socket.create_connection((door.connection.host, door.connection.port), timeout=TIMEOUT)
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


async def letters() -> AsyncIterator[str | bytes]:
    for piece in ("ä", b"b", bytearray(b"c"), "", "d"):
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize("view_kind", ["sync", "async"])
def test_an_async_iterator_is_a_body(app, client, view_kind):
    class Letters:
        def __aiter__(self) -> AsyncIterator[str | bytes]:
            return letters()

    kinds = {
        "bare": letters,
        "pair": lambda: (letters(), 201, {"X-Y": "z"}),
        "response": lambda: Response(letters(), mimetype="text/plain"),
        "iterable": lambda: Response(Letters()),
        "length": lambda: Response(letters(), headers={"Content-Length": "5"}),
    }

    def view(kind):
        return kinds[kind]()

    async def async_view(kind):
        await asyncio.sleep(0)
        return kinds[kind]()

    app.add_url_rule("/<kind>", view_func=view if view_kind == "sync" else async_view)
    for kind in kinds:
        assert client.get(f"/{kind}").text == "äbcd"
    assert client.get("/pair").status_code == 201
    assert client.get("/pair").header("X-Y") == "z"
    assert client.get("/response").header("Content-Type") == "text/plain; charset=utf-8"
    assert client.open("/bare", "HEAD").text == ""
    assert client.get("/bare").text == "äbcd"


def test_all_pieces_are_made_in_one_task(app, client):
    tasks: list[object] = []

    async def pieces():
        for _ in range(3):
            tasks.append(asyncio.current_task())
            yield "x"
            await asyncio.sleep(0)

    app.add_url_rule("/", view_func=lambda: pieces())
    assert client.get("/").text == "xxx"
    assert len(tasks) == 3
    assert len(set(tasks)) == 1


def test_the_request_is_gone_unless_it_is_kept(app, client):
    ends: list[object] = []

    @app.teardown_request
    async def teardown(error):
        ends.append(g.get("name"))

    async def pieces():
        yield request.path if request else "none"
        await asyncio.sleep(0)
        yield f" {g.name}" if request else " none"

    @app.route("/<kind>")
    async def view(kind):
        g.name = "kept"
        if kind == "without":
            return pieces()
        return (
            stream_with_context(pieces() if kind == "with" else pieces)()
            if kind == "decorated"
            else (stream_with_context(pieces()))
        )

    assert client.get("/without").text == "none none"
    assert client.get("/with").text == "/with kept"
    assert client.get("/decorated").text == "/decorated kept"
    assert set(ends) == {"kept"}


def test_each_piece_goes_out_as_soon_as_it_is_made(app, door):
    gates = [threading.Event() for _ in range(3)]

    async def pieces():
        for number, gate in enumerate(gates):
            yield f"piece {number}."
            await asyncio.to_thread(gate.wait, TIMEOUT)

    @app.route("/")
    async def view():
        return pieces()

    with opened(door) as sock:
        received = b""
        for number, gate in enumerate(gates):
            while f"piece {number}.".encode() not in received:
                received += sock.recv(65536)
            assert f"piece {number + 1}.".encode() not in received
            gate.set()
        while not received.endswith(b"0\r\n\r\n"):
            received += sock.recv(65536)


def test_many_streams_hold_no_threads(app, door):
    everybody: list[asyncio.Event] = []
    many = 200

    async def pieces():
        yield "begun"
        if not everybody:
            everybody.append(asyncio.Event())
        await everybody[0].wait()
        yield "ended"

    @app.route("/")
    async def view():
        return pieces()

    @app.route("/go")
    async def go():
        everybody[0].set()
        return "gone"

    def threads() -> int:
        return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0

    # The engine sees rules that were added since it began with the first request that it gives to Python.
    door.exchange("GET", "http://localhost/not/there", [], b"")
    before = threads()
    socks = [opened(door) for _ in range(many)]
    for sock in socks:
        while b"begun" not in (received := sock.recv(65536)):
            assert received
    assert threads() < before + many / 10
    assert door.exchange("GET", "http://localhost/go", [], b"").text == "gone"
    for sock in socks:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += sock.recv(65536)
        sock.close()


def test_a_slow_reader_is_waited_for(app, door):
    """The iterator is asked for no more than the client, the kernel and the queue hold."""
    made = 0
    piece = b"x" * 65_536
    total = 1000

    async def pieces():
        nonlocal made
        for _ in range(total):
            made += 1
            yield piece

    @app.route("/")
    async def view():
        return pieces()

    @app.route("/made")
    async def how_many():
        return str(made)

    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.settimeout(TIMEOUT)
    sock.connect((door.connection.host, door.connection.port))
    sock.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    before = -1
    while before != (now := int(door.exchange("GET", "http://localhost/made", [], b"").text)):
        before = now
        time.sleep(0.1)
    assert 0 < now < 200
    received = 0
    while data := sock.recv(1 << 20):
        received += len(data)
    sock.close()
    assert made == total
    assert received > total * len(piece)


def test_a_client_that_goes_away_ends_the_iterator(app, door):
    ended, closed = threading.Event(), threading.Event()

    async def pieces():
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.set()

    @app.route("/")
    async def view():
        response = Response(pieces())
        response.call_on_close(closed.set)
        return response

    sock = opened(door)
    while b"begun" not in sock.recv(65536):
        pass
    sock.close()
    assert ended.wait(TIMEOUT)
    assert closed.wait(TIMEOUT)


@pytest.mark.parametrize("view_kind", ["sync", "async"])
def test_an_error_in_the_middle_breaks_the_body_and_is_logged(app, door, caplog, view_kind):
    closed = threading.Event()

    async def pieces():
        yield "begun"
        raise LookupError("in the middle")

    def view():
        response = Response(pieces())
        response.call_on_close(closed.set)
        return response

    async def async_view():
        return view()

    app.add_url_rule("/", view_func=view if view_kind == "sync" else async_view)
    with opened(door) as sock:
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                received += data
    assert b"begun" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert closed.wait(TIMEOUT)
    assert "LookupError: in the middle" in caplog.text


def test_a_piece_of_another_kind_breaks_the_body(app, door, caplog):
    async def pieces():
        yield 1

    @app.route("/")
    async def view():
        return pieces()

    with pytest.raises((http.client.IncompleteRead, http.client.BadStatusLine, ConnectionError)):
        door.exchange("GET", "http://localhost/", [], b"")
    assert "must be text or bytes" in caplog.text


def test_an_iterator_that_is_not_read_to_its_end_is_closed(app):
    ended: list[str] = []

    async def pieces():
        try:
            for _ in range(10):
                yield "x"
        finally:
            await asyncio.sleep(0)
            ended.append("closed")

    app.add_url_rule("/", view_func=lambda: pieces())
    response = app.test_client().get("/")
    assert next(response.iter_encoded()) == b"x"
    response.close()
    assert ended == ["closed"]


def test_an_error_reaches_who_iterates_without_a_server(app):
    async def pieces():
        yield "x"
        raise LookupError("in the middle")

    app.add_url_rule("/", view_func=lambda: pieces())
    response = app.test_client().get("/")
    with pytest.raises(LookupError, match="in the middle"):
        response.get_data()


def test_the_awaited_client_reads_bodies_made_on_its_own_loop(app):
    loops: list[object] = []

    async def pieces():
        loops.append(asyncio.get_running_loop())
        yield "made"

    @app.route("/")
    async def view():
        return pieces()

    async def test() -> None:
        assert (await app.async_test_client().get("/")).text == "made"
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(test())


def test_a_stream_among_pipelined_requests_keeps_the_order(app, door):
    async def pieces():
        for number in range(3):
            await asyncio.sleep(0)
            yield f"<{number}>"

    @app.route("/stream")
    async def stream():
        return pieces()

    @app.route("/plain")
    def plain():
        return "<plain>"

    with socket.create_connection((door.connection.host, door.connection.port), timeout=TIMEOUT) as sock:
        get = "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sock.sendall("".join(get.format(path) for path in ("plain", "stream", "stream", "plain")).encode())
        received = b""
        while received.count(b"<plain>") < 2:
            received += sock.recv(65536)
    parts = [part for part in received.replace(b"\r\n", b"").split(b"<") if b">" in part]
    assert [part.split(b">")[0] for part in parts] == [b"plain", *[b"0", b"1", b"2"] * 2, b"plain"]


def test_abrupt_ends_leave_nothing_behind(app, door):
    """Tasks and descriptors return to where they were."""
    from hipflask import streaming

    begun = threading.Semaphore(0)

    async def pieces():
        begun.release()
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.001)

    @app.route("/stream")
    async def stream():
        return pieces()

    @app.route("/wait")
    async def wait():
        begun.release()
        await asyncio.sleep(60)

    @app.route("/tasks")
    async def tasks():
        return str(len(asyncio.all_tasks()))

    def count() -> tuple[str, int]:
        text = door.exchange("GET", "http://localhost/tasks", [], b"").text
        return text, len(os.listdir("/dev/fd"))

    before = count()
    for number in range(200):
        sock = opened(door, "/stream" if number % 2 else "/wait")
        assert begun.acquire(timeout=TIMEOUT)
        sock.close()
    deadline = time.monotonic() + TIMEOUT
    while (now := count()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now == before
    assert not streaming._feeding
