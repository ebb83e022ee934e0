"""Clients that go without a word, at every point, ten thousand times: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest
from raw_websocket import FIELDS, frame

from hipflask import Channel, Flask, _core, request
from hipflask.loop import shared

#: How many go, in all.
COUNT = 10_000
#: So many before the first look: allocators and pools have then what they keep.
WARM_UP = 1_000
#: Threads that the engine may have.
THREADS = 16
PATIENCE = 60

UPGRADE = "".join(f"{name}: {value}\r\n" for name, value in FIELDS.items())
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


def get(path: str, fields: str = "Host: localhost\r\n") -> bytes:
    return f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode() + body


#: What a client sends, and what it waits for before it goes; None if for nothing.
POINTS: dict[str, tuple[bytes, bytes | None]] = {
    "connected": (b"", None),
    "in a head": (b"GET / HT", None),
    "before the answer": (get("/page"), None),
    "after the answer": (get("/page"), b"a page"),
    "in a body": (post("/sync", b"0123456789"), None),
    "in a body that a coroutine reads": (post("/async", b"0123456789"), None),
    "between chunks": (get("/stream"), b"piece"),
    "between chunks of a coroutine": (get("/async-stream"), b"piece"),
    "in a stream of events": (get("/events"), b"\r\n\r\n"),
    "in a handshake": (get("/ws", UPGRADE)[:-2], None),
    "before the handshake's answer": (get("/ws", UPGRADE), None),
    "after the handshake": (get("/ws", UPGRADE), b"\r\n\r\n"),
    "after an awaited handshake": (get("/async-ws", UPGRADE), b"\r\n\r\n"),
    "in a frame's head": (get("/ws", UPGRADE) + frame(0x81, b"text")[:3], b"\r\n\r\n"),
    "in a frame": (get("/async-ws", UPGRADE) + frame(0x81, b"text")[:-1], b"\r\n\r\n"),
    "in a compressed message": (get("/ws", UPGRADE + DEFLATE) + frame(0x41, b"\xf2\x48"), b"\r\n\r\n"),
    "after a message": (get("/ws", UPGRADE) + frame(0x81, b"text"), b"\x81\x04text"),
    "after an awaited message": (get("/async-ws", UPGRADE) + frame(0x81, b"text"), b"\x81\x04text"),
    "after a close": (get("/ws", UPGRADE) + frame(0x88), None),
}


def serve(app: Flask, channel: Channel) -> None:
    @app.route("/page")
    def page():
        return "a page"

    @app.post("/sync")
    def read():
        return str(len(request.get_data()))

    @app.post("/async")
    async def read_awaited():
        return str(len(request.get_data()))

    @app.route("/stream")
    def stream():
        return ("piece" for _ in itertools.count())

    @app.route("/async-stream")
    async def async_stream():
        async def pieces():
            while True:
                yield "piece"
                await asyncio.sleep(0)

        return pieces()

    @app.route("/events")
    def events():
        return channel.stream()

    @app.websocket("/ws")
    def echo(ws):
        for message in ws:
            ws.send(message)

    @app.websocket("/async-ws")
    async def async_echo(ws):
        async for message in ws:
            await ws.send(message)


def visit(address: tuple[str, int], sent: bytes, awaited: bytes | None, reset: bool) -> None:
    """Come, send, perhaps wait, and go: with a FIN, or with a RST."""
    with socket.create_connection(address, PATIENCE) as client:
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(sent)
        seen = b""
        while awaited is not None and awaited not in seen:
            more = client.recv(65536)
            assert more, seen
            seen += more


class Held:
    """What the process holds now."""

    def __init__(self, channel: Channel) -> None:
        gc.collect()
        self.files = len(os.listdir("/proc/self/fd"))
        self.threads = len(os.listdir("/proc/self/task"))
        self.tasks = len(asyncio.all_tasks(shared().loop))
        self.subscribers = len(channel)
        self.requests = sum(type(found).__name__ in HELD_CLASSES for found in gc.get_objects())
        with open("/proc/self/statm") as statm:
            self.resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def fits(self, before: Held) -> bool:
        """Whether nothing is more than it was, but for memory and the engine's threads.

        The engine starts as many as it needs at once, and keeps them: at a busy moment it may be one more.
        """
        return self.threads < before.threads + THREADS and self.fits_but_for_threads(before)

    def fits_but_for_threads(self, before: Held) -> bool:
        """The same, where the engine may have started some that stay."""
        names = ("files", "tasks", "subscribers", "requests")
        return all(getattr(self, name) <= getattr(before, name) for name in names)


HELD_CLASSES = {"Request", "RequestContext", "WebSocket", "AsyncWebSocket", "Connection", "generator"}


def settled(look: Callable[[], Held], fits: Callable[[Held], bool]) -> Held:
    """What is held once the engine has noticed that all have gone."""
    deadline = time.monotonic() + PATIENCE
    while not fits(now := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts what Linux shows under /proc")
def test_ten_thousand_clients_that_go_leave_nothing(app: Flask) -> None:
    channel = Channel()
    serve(app, channel)
    server = _core.Server(app, ["127.0.0.1:0"], threads=THREADS)
    server.start()
    try:
        host, _, port = server.addresses[0].rpartition(":")
        points = itertools.cycle(itertools.product((False, True), POINTS.values()))
        quiet = Held(channel)
        for reset, (sent, awaited) in itertools.islice(points, WARM_UP):
            visit((host, int(port)), sent, awaited, reset)
        before = settled(lambda: Held(channel), lambda now: now.fits_but_for_threads(quiet))
        for reset, (sent, awaited) in itertools.islice(points, COUNT - WARM_UP):
            visit((host, int(port)), sent, awaited, reset)
        after = settled(lambda: Held(channel), lambda now: now.fits(before))
        assert after.fits(before), (vars(before), vars(after))
        # Nine thousand clients that leave a KiB each would be more.
        assert after.resident - before.resident < 8 << 20
        visit((host, int(port)), get("/page"), b"a page", False)
    finally:
        assert server.stop()
