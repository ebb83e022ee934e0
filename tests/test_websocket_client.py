"""The WebSockets of the test client, channels, and clients that vanish."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import time

import pytest

from hipflask import Channel, Flask, _core, abort, request, session
from hipflask.websocket import ConnectionClosed
from hipflask.websocket_testing import WebSocketRefused

PATIENCE = 20


@pytest.fixture(params=["sync", "async", "function"])
def echo(request, app: Flask):
    """An echo view at `/echo`, in each form."""
    if request.param == "sync":

        @app.websocket("/echo", subprotocols=["b"])
        def echo(ws):
            for message in ws:
                ws.send(message)

    elif request.param == "async":

        @app.websocket("/echo", subprotocols=["b"])
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

    else:

        @app.websocket("/echo", subprotocols=["b"])
        def echo(ws):
            ws.on_message(ws.send)

    return app


def test_the_client_sends_and_receives(echo):
    with echo.test_client().websocket_connect("/echo", subprotocols=["a", "b"], timeout=PATIENCE) as ws:
        assert ws.subprotocol == "b"
        for message in ["text", b"bytes", "", "x" * 100_000]:
            ws.send(message)
            assert ws.receive() == message
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.01)
    assert ws.close_reason == 1000
    with pytest.raises(ConnectionClosed):
        ws.send("late")


def test_the_async_client_does(echo):
    async def main():
        async with await echo.async_test_client().websocket_connect("/echo", timeout=PATIENCE) as ws:
            await ws.send("text")
            assert await ws.receive() == "text"
        return ws.session.close_reason

    assert asyncio.run(main()) == 1000


def test_connections_of_one_app_share_what_it_has(app):
    members: list[object] = []

    @app.websocket("/chat")
    def chat(ws):
        members.append(ws)
        ws.send("welcome")

        @ws.on_message
        def spread(message):
            for member in members:
                member.send(message)

    client = app.test_client()
    with client.websocket_connect("/chat") as one, client.websocket_connect("/chat") as two:
        assert (one.receive(PATIENCE), two.receive(PATIENCE)) == ("welcome", "welcome")
        one.send("a")
        assert (one.receive(PATIENCE), two.receive(PATIENCE)) == ("a", "a")
        two.send("b")
        assert (one.receive(PATIENCE), two.receive(PATIENCE)) == ("b", "b")


def test_the_client_s_cookies_query_and_headers_arrive(app):
    @app.route("/login")
    def login():
        session["name"] = "ann"
        return ""

    @app.websocket("/who")
    def who(ws):
        ws.send(f"{session['name']} {request.args['q']} {request.headers['X-Y']} {request.host}")
        ws.close(4000, "done")

    client = app.test_client()
    client.get("/login")
    with client.websocket_connect("/who?q=1", headers={"X-Y": "z"}) as ws:
        assert list(ws) == ["ann 1 z localhost"]
    assert (ws.close_reason, ws.close_message) == (4000, "done")


def test_a_refusal_is_an_exception(app):
    @app.websocket("/no")
    def no(ws):
        abort(403, "not you")

    with pytest.raises(WebSocketRefused) as caught:
        app.test_client().websocket_connect("/no")
    assert caught.value.status_code == 403
    assert "not you" in caught.value.text
    assert caught.value.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_socket_joins_channels(app, form):
    channel = Channel()
    joined = threading.Semaphore(0)

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            ws.join(channel)
            ws.join(channel)
            joined.release()

            @ws.on_message
            def leave(message):
                ws.leave(channel)
                ws.send(f"left {len(channel)}")

    else:

        @app.websocket("/ws")
        async def view(ws):
            ws.join(channel)
            joined.release()
            async for _ in ws:
                ws.leave(channel)
                await ws.send(f"left {len(channel)}")

    with app.test_client().websocket_connect("/ws", timeout=PATIENCE) as ws:
        assert joined.acquire(timeout=PATIENCE)
        assert len(channel) == 1
        for number in range(3):
            assert channel.publish({"n": number}) == 1
        assert [ws.receive() for _ in range(3)] == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
        channel.publish("x" * 1000)
        assert ws.receive() == "x" * 1000
        ws.send("leave")
        assert ws.receive() == "left 0"
        assert channel.publish("nobody") == 0


def test_a_socket_that_only_listens_holds_no_thread(app):
    channel = Channel()
    joined = threading.Semaphore(0)

    @app.websocket("/ws")
    def view(ws):
        ws.join(channel)
        joined.release()

    with app.test_client().websocket_connect("/ws", timeout=PATIENCE) as ws:
        assert joined.acquire(timeout=PATIENCE)
        ws.send("for nobody")
        channel.publish("event")
        assert ws.receive() == "event"
    until(lambda: len(channel) == 0)


def test_what_is_no_channel_cannot_be_joined(app, caplog):
    @app.websocket("/ws")
    def view(ws):
        with pytest.raises(TypeError):
            ws.join("hall")
        ws.send("fine")

    with app.test_client().websocket_connect("/ws", timeout=PATIENCE) as ws:
        assert ws.receive() == "fine"


def until(done) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def frame(payload: bytes, first: int = 0x82) -> bytes:
    """A client's frame with a mask of zeros."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([first]) + length + bytes(4) + payload


def test_ten_thousand_clients_that_vanish_leave_nothing(app):
    """In the handshake, in a frame, between the frames of a message, between messages, and after a close."""
    app.config["WEBSOCKET_THREADS"] = 16
    open_now = [0]
    lock = threading.Lock()

    def count(number):
        with lock:
            open_now[0] += number

    @app.websocket("/sync")
    def sync_view(ws):
        count(1)
        try:
            for message in ws:
                ws.send(message)
        finally:
            count(-1)

    @app.websocket("/async")
    async def async_view(ws):
        count(1)
        try:
            async for message in ws:
                await ws.send(message)
        finally:
            count(-1)

    @app.websocket("/function")
    def function(ws):
        ws.accept()
        count(1)
        ws.on_message(ws.send)

        @ws.on_close
        def end(reason, message):
            count(-1)

    handshake = (
        "GET {} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )
    behind = [
        b"",
        b"\r\n",
        b"\r\n\x82",
        b"\r\n" + frame(bytes(300))[:100],
        b"\r\n" + frame(b"part", 0x02),
        b"\r\n" + frame(b"part", 0x02) + frame(b"more", 0x00) + b"\x00\x84",
        b"\r\n" + frame(b"whole") * 20,
        b"\r\n" + frame(b"whole") + frame(b"\x03\xe8", 0x88),
        b"\r\n" + b"\xff not a frame",
    ]
    server = _core.Server(app, ["127.0.0.1:0"])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    address = (host, int(port))
    reset = struct.pack("ii", 1, 0)

    def vanish(number: int) -> None:
        with socket.create_connection(address, timeout=PATIENCE) as client:
            path = ["/sync", "/async", "/function"][number % 3]
            client.sendall(handshake.format(path).encode() + behind[number % len(behind)])
            if number % 5 == 0:
                client.recv(1000) if b"\r\n" in behind[number % len(behind)] else None
            if number % 4 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            elif number % 4 == 1:
                client.shutdown(socket.SHUT_WR)

    try:
        for number in range(60):
            vanish(number)
        until(lambda: open_now[0] == 0 and server.websocket_threads[0] == 0)
        before = descriptors()
        for number in range(10_000):
            vanish(number)
        until(lambda: descriptors() <= before)
        until(lambda: open_now[0] == 0 and server.websocket_threads[0] == 0)
        tasks = asyncio.run_coroutine_threadsafe(_tasks(), _loop()).result(PATIENCE)
        assert tasks == 1
        with app.test_client().websocket_connect("/sync", timeout=PATIENCE) as ws:
            ws.send("still here")
            assert ws.receive() == "still here"
    finally:
        assert server.stop(0, PATIENCE)


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def _loop() -> asyncio.AbstractEventLoop:
    from hipflask.loop import shared

    return shared().loop
