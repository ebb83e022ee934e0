"""Bodies of requests that coroutine views read as they arrive."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from doors import LiveDoor

from hipflask import Flask, request, stream_request_body

TIMEOUT = 20
HEAD = b"POST %s HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def door(app: Flask) -> Iterator[LiveDoor]:
    door = LiveDoor(app)
    yield door
    door.close()


def opened(door: LiveDoor, sent: bytes) -> socket.socket:
    # The engine sees rules that were added since it began with the first request that it gives to Python.
    door.exchange("GET", "http://localhost/not/there", [], b"")
    sock = socket.create_connection((door.connection.host, door.connection.port), timeout=TIMEOUT)
    sock.sendall(sent)
    return sock


def received(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
    return body


@pytest.mark.parametrize("streams", [False, True], ids=["ahead", "streamed"])
def test_a_body_is_read_in_every_way(app, client, streams):
    async def data():
        return str(len(await request.get_data_async()))

    async def text():
        return await request.get_data_async(as_text=True)

    async def whole():
        return await request.body

    async def pieces():
        return b"".join([piece async for piece in request.body])

    async def as_json():
        return await request.get_json_async()

    async def form():
        return (await request.get_form_async()).to_dict()

    async def twice():
        first = await request.get_data_async()
        return first + request.get_data() + await request.get_data_async()

    for view in (data, text, whole, pieces, as_json, form, twice):
        app.add_url_rule(
            f"/{view.__name__}", view_func=stream_request_body(view) if streams else view, methods=["POST"]
        )
    for size in (0, 1, 70_000, 3_000_000):
        body = b"x" * size
        assert client.post("/data", data=body).text == str(size)
        assert client.post("/whole", data=body).data == body
        assert client.post("/pieces", data=body).data == body
        assert client.post("/text", data=body).data == body
    assert client.post("/twice", data=b"abc").text == "abcabcabc"
    given = {"a": list(range(30_000))}
    content = {"Content-Type": "application/json"}
    assert client.open("/as_json", "POST", headers=content, data=json.dumps(given).encode()).json == given
    content = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.open("/form", "POST", headers=content, data=b"a=1&b=" + b"x" * 100_000).json == {
        "a": "1",
        "b": "x" * 100_000,
    }


def test_pieces_are_there_as_soon_as_they_arrive(app, door):
    seen: list[bytes] = []
    here = threading.Semaphore(0)

    @app.post("/")
    @stream_request_body
    async def view():
        async for piece in request.body:
            seen.append(piece)
            here.release()
        return threading.current_thread().name

    with opened(door, HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n") as sock:
        for piece in (b"first", b"second", b"third"):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert here.acquire(timeout=TIMEOUT)
            assert seen[-1] == piece
        sock.sendall(b"0\r\n\r\n")
        assert received(sock) == b"hipflask-loop"
        # The connection goes on.
        sock.sendall(HEAD % b"/" + b"Content-Length: 1\r\n\r\n")
        assert not here.acquire(blocking=False)
        sock.sendall(b"x")
        assert received(sock) == b"hipflask-loop"
        assert seen[-1] == b"x"


def test_many_slow_bodies_hold_neither_threads_nor_the_loop(app, door):
    many = 100

    @app.post("/")
    @stream_request_body
    async def view():
        return str(len(await request.get_data_async()))

    @app.route("/quick")
    async def quick():
        return "quick"

    socks = [opened(door, HEAD % b"/" + b"Content-Length: 100000\r\n\r\nx") for _ in range(many)]
    assert door.exchange("GET", "http://localhost/quick", [], b"").text == "quick"
    for sock in socks:
        sock.sendall(b"x" * 99_999)
        assert received(sock) == b"100000"
        sock.close()


def test_reading_without_awaiting_is_refused_rather_than_blocking(app, door):
    @app.post("/")
    @stream_request_body
    async def view():
        try:
            return request.get_data()
        except RuntimeError as error:
            first = str(error)
        await request.get_data_async()
        return first[:36] + request.get_data(as_text=True)

    with opened(door, HEAD % b"/" + b"Content-Length: 4\r\n\r\nab") as sock:
        assert door.exchange("GET", "http://localhost/", [], b"").status_code == 405
        sock.sendall(b"cd")
        assert received(sock) in (b"The request's body is still arriving" + b"abcd", b"abcd")


def test_a_limit_holds(app, client):
    app.config["MAX_CONTENT_LENGTH"] = 100_000

    @app.post("/<way>")
    @stream_request_body
    async def view(way):
        if way == "pieces":
            return str(sum([len(piece) async for piece in request.body]))
        return str(len(await request.get_data_async()))

    for way in ("pieces", "whole"):
        assert client.post(f"/{way}", data=b"x" * 100_000).text == "100000"
        assert client.post(f"/{way}", data=b"x" * 100_001).status_code == 413


def test_a_limit_holds_for_chunks(app, door):
    app.config["MAX_CONTENT_LENGTH"] = 10

    @app.post("/<way>")
    @stream_request_body
    async def view(way):
        if way == "pieces":
            return str(sum([len(piece) async for piece in request.body]))
        return str(len(await request.get_data_async()))

    for way in (b"/pieces", b"/whole"):
        with opened(door, HEAD % way + b"Transfer-Encoding: chunked\r\n\r\n6\r\nxxxxxx\r\n") as sock:
            sock.sendall(b"6\r\nxxxxxx\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_view_that_reads_nothing_leaves_the_connection_usable(app, door):
    @app.post("/")
    @stream_request_body
    async def view():
        return "unread"

    with opened(door, HEAD % b"/" + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000) as sock:
        assert received(sock) == b"unread"
        sock.sendall(HEAD % b"/" + b"Content-Length: 0\r\n\r\n")
        assert received(sock) == b"unread"


def test_a_client_that_asks_first_is_told_to_go_on_when_the_view_reads(app, door):
    @app.post("/<way>")
    @stream_request_body
    async def view(way):
        return await request.get_data_async() if way == "read" else "unread"

    asking = b"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
    with opened(door, HEAD % b"/read" + asking) as sock:
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"x" * 100_000)
        assert received(sock) == b"x" * 100_000
    with opened(door, HEAD % b"/unread" + asking) as sock:
        assert received(sock) == b"unread"


def test_a_client_that_goes_while_its_body_is_awaited_cancels_the_view(app, door):
    begun, ended = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    @app.post("/")
    @stream_request_body
    async def view():
        begun.set()
        try:
            await request.get_data_async()
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    with opened(door, HEAD % b"/" + b"Content-Length: 100000\r\n\r\nx"):
        assert begun.wait(TIMEOUT)
    assert ended.wait(TIMEOUT)
    assert type(errors[0]).__name__ in ("CancelledError", "ClientDisconnected")


def test_without_a_server_the_body_is_read_in_a_thread(app):
    @app.post("/")
    async def view():
        return b"-".join([piece async for piece in request.body])

    async def test() -> None:
        assert (await app.async_test_client().post("/", data=b"body")).data == b"body"

    asyncio.run(test())


def test_over_http2_bodies_are_read_and_made_as_they_come(app, door):
    import httpx

    @app.post("/")
    @stream_request_body
    async def view():
        size = 0
        async for piece in request.body:
            size += len(piece)

        async def pieces():
            for number in range(3):
                await asyncio.sleep(0)
                yield f"{size} {number}."

        return pieces()

    def sent() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 10_000

    opened(door, b"").close()
    url = f"http://{door.connection.host}:{door.connection.port}/"
    with httpx.Client(http1=False, http2=True, timeout=TIMEOUT) as client:
        for _ in range(2):
            answer = client.post(url, content=sent())
            assert answer.http_version == "HTTP/2"
            assert answer.text == "500000 0.500000 1.500000 2."
