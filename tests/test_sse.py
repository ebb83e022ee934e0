"""Server-sent events: how they are written, and streams of them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from doors import Client

from hipflask import EventStream, Flask, ServerSentEvent, _core, request, stream_with_context
from hipflask.sse import last_event_id

TIMEOUT = 20


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[tuple[str, int]]:
    """A server of the app; gives where it is."""
    server = _core.Server(app, ["127.0.0.1:0"], **options)
    server.start()
    try:
        host, _, port = server.addresses[0].rpartition(":")
        yield host, int(port)
    finally:
        server.stop(0)


class Reader:
    """Reads a stream as a client does: without waiting for its end.

    Args:
        where: Host and port.
        path: What to ask for.
        headers: Header fields.
        version: Of HTTP.
    """

    def __init__(self, where: tuple[str, int], path: str = "/", version: str = "1.1", **headers: str) -> None:
        self.socket = socket.create_connection(where, TIMEOUT)
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(f"GET {path} HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode())
        self.got = b""
        self.head = self.until(b"\r\n\r\n").decode()

    def until(self, end: bytes) -> bytes:
        """All up to `end`, which must come."""
        while end not in self.got:
            more = self.socket.recv(65536)
            assert more, f"the stream ended after {self.got!r}"
            self.got += more
        found, _, self.got = self.got.partition(end)
        return found + end

    def rest(self) -> bytes:
        """All to the end; an abrupt one is told by `b"!"`."""
        pieces = [self.got]
        try:
            while more := self.socket.recv(65536):
                pieces.append(more)
        except ConnectionResetError:
            pieces.append(b"!")
        return b"".join(pieces)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TestEvent:
    @pytest.mark.parametrize(
        ("event", "encoded"),
        [
            (ServerSentEvent("a"), "data: a\n\n"),
            (ServerSentEvent(""), "data: \n\n"),
            (ServerSentEvent("a\nb\r\nc\rd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
            (ServerSentEvent(" a"), "data:  a\n\n"),
            (ServerSentEvent(b"\xc3\xa9"), "data: é\n\n"),
            (ServerSentEvent({"a": None, "b": 1}), 'data: {"a": null, "b": 1}\n\n'),
            (ServerSentEvent(0), "data: 0\n\n"),
            (ServerSentEvent("x", "name", "7", 100), "event: name\nid: 7\nretry: 100\ndata: x\n\n"),
            (ServerSentEvent(id=7), "id: 7\n\n"),
            (ServerSentEvent(id=""), "id: \n\n"),
            (ServerSentEvent(comment="a\nb"), ": a\n: b\n\n"),
        ],
        ids=repr,
    )
    def test_is_written_as_clients_read_it(self, event: ServerSentEvent, encoded: str) -> None:
        assert event.encode().decode() == encoded

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"data": "x", "event": "a\nb"}, "name cannot have line breaks"),
            ({"data": "x", "event": "a\rb"}, "name cannot have line breaks"),
            ({"data": "x", "id": "a\nb"}, "id cannot have line breaks"),
            ({"data": "x", "id": "a\rdata: forged"}, "id cannot have line breaks"),
            ({"data": "x", "id": "a\0b"}, "null characters"),
            ({}, "needs something"),
        ],
    )
    def test_what_would_be_another_field_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ServerSentEvent(**options).encode()

    @pytest.mark.parametrize("retry", [-1, "soon", 1.5])
    def test_retry_is_a_number_of_milliseconds(self, retry: Any) -> None:
        with pytest.raises((TypeError, OverflowError)):
            ServerSentEvent(retry=retry).encode()

    def test_compares_and_shows_its_parts(self) -> None:
        assert ServerSentEvent("a", id=1) == ServerSentEvent("a", id=1) != ServerSentEvent("a")
        assert repr(ServerSentEvent("a", id=1)) == "ServerSentEvent(data='a', id=1)"


class TestStream:
    def test_sends_what_a_generator_yields(self, app: Flask, client: Client) -> None:
        closed: list[bool] = []

        @app.route("/")
        def view() -> EventStream:
            @stream_with_context
            def events() -> Iterator[Any]:
                try:
                    yield "text"
                    yield {"json": 1}
                    yield None
                    yield ServerSentEvent(request.path, event="path", id=3)
                finally:
                    closed.append(True)

            return EventStream(events(), retry=50)

        answer = client.get("/")
        assert answer.text == (
            'retry: 50\n\ndata: text\n\ndata: {"json": 1}\n\nevent: path\nid: 3\ndata: /\n\n'
        )
        assert closed == [True]
        assert answer.header("Content-Type") == "text/event-stream"
        assert answer.header("Cache-Control") == "no-cache"
        assert answer.header("X-Accel-Buffering") == "no"
        assert answer.header("Content-Length") is None

    @pytest.mark.parametrize("kind", ["view", "async view"])
    def test_sends_what_an_async_generator_yields(self, app: Flask, client: Client, kind: str) -> None:
        closed: list[bool] = []

        @stream_with_context
        async def events() -> AsyncIterator[Any]:
            try:
                yield "text"
                await asyncio.sleep(0)
                yield {"json": request.path}
            finally:
                closed.append(True)

        if kind == "view":
            app.add_url_rule("/", "view", lambda: EventStream(events(), retry=50))
        else:

            @app.route("/")
            async def view() -> EventStream:
                return EventStream(events(), retry=50)

        assert client.get("/").text == 'retry: 50\n\ndata: text\n\ndata: {"json": "/"}\n\n'
        assert closed == [True]

    def test_its_headers_can_be_chosen(self, app: Flask, client: Client) -> None:
        app.add_url_rule(
            "/", "view", lambda: EventStream([1], headers={"Cache-Control": "no-store"}, status=201)
        )
        answer = client.get("/")
        assert (answer.status_code, answer.header("Cache-Control")) == (201, "no-store")
        assert answer.text == "data: 1\n\n"

    def test_head_begins_no_generator(self, app: Flask, client: Client) -> None:
        begun: list[bool] = []

        def events() -> Iterator[str]:
            begun.append(True)
            yield "a"

        app.add_url_rule("/", "view", lambda: EventStream(events()))
        answer = client.open("/", "HEAD")
        assert (answer.status_code, answer.data) == (200, b"")
        assert answer.header("Content-Type") == "text/event-stream"
        assert not begun

    @pytest.mark.parametrize(("sent", "seen"), [(None, None), ("", ""), ("17", "17"), ("é", "é")], ids=repr)
    def test_last_event_id(self, app: Flask, client: Client, sent: str | None, seen: str | None) -> None:
        app.add_url_rule("/", "view", lambda: json.dumps([last_event_id()]))
        headers = {} if sent is None else {"Last-Event-ID": sent.encode().decode("latin-1")}
        assert client.get("/", headers=headers).json == [seen]

    def test_keeps_alive_while_the_generator_waits(self, app: Flask) -> None:
        go_on = threading.Event()

        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                yield "first"
                assert go_on.wait(TIMEOUT)
                yield "second"

            return EventStream(events(), heartbeat=0.05)

        with serving(app) as where, Reader(where, Connection="close") as reader:
            reader.until(b"data: first\n\n")
            reader.until(b":\n\n")
            reader.until(b":\n\n")
            go_on.set()
            reader.until(b"data: second\n\n")
            assert reader.rest().endswith(b"\r\n0\r\n\r\n")

    @pytest.mark.parametrize("lane", ["fast", "full"])
    def test_keeps_alive_while_an_async_generator_waits(self, app: Flask, lane: str) -> None:
        go_on = threading.Event()

        async def events() -> AsyncIterator[str]:
            yield "first"
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            yield "second"

        app.add_url_rule("/", "view", lambda: EventStream(events(), heartbeat=0.05))
        if lane == "full":
            inner = app.wsgi_app
            app.wsgi_app = lambda environ, start: inner(environ, start)  # type: ignore[method-assign]
        with serving(app, threads=1) as where:
            readers = [Reader(where) for _ in range(5)]
            for reader in readers:
                reader.until(b"data: first\n\n")
                reader.until(b":\n\n")
            go_on.set()
            for reader in readers:
                reader.until(b"data: second\n\n")
                reader.close()

    def test_keeps_alive_before_the_first_event(self, app: Flask) -> None:
        go_on = threading.Event()

        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                assert go_on.wait(TIMEOUT)
                yield "first"

            return EventStream(events(), heartbeat=0.05)

        with serving(app) as where, Reader(where) as reader:
            assert "200 OK" in reader.head
            reader.until(b":\n\n")
            go_on.set()
            reader.until(b"data: first\n\n")

    def test_an_error_breaks_the_stream_and_is_logged(
        self, app: Flask, caplog: pytest.LogCaptureFixture
    ) -> None:
        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                yield "first"
                raise LookupError("not there")

            return EventStream(events())

        with serving(app) as where, Reader(where) as reader:
            assert reader.rest().rstrip(b"!").endswith(b"data: first\n\n\r\n")
        assert any(record.exc_info and record.exc_info[0] is LookupError for record in caplog.records)

    def test_the_generator_is_closed_when_the_client_goes(self, app: Flask) -> None:
        closed = threading.Event()

        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                try:
                    while True:
                        time.sleep(0.01)
                        yield "more"
                finally:
                    closed.set()

            return EventStream(events())

        with serving(app) as where:
            with Reader(where) as reader:
                reader.until(b"data: more")
            assert closed.wait(TIMEOUT)

    def test_a_slow_client_stops_the_generator(self, app: Flask) -> None:
        made = 0

        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                nonlocal made
                for _ in range(99):
                    made += 1
                    yield "x" * 1_000_000

            return EventStream(events())

        app.add_url_rule("/health", "health", lambda: "fine")
        with serving(app, threads=2) as where, Reader(where, Connection="close") as reader:
            reader.until(b"data: ")
            # What the kernel takes and what may wait is far below what the generator would make.
            seen = -1
            while seen != made:
                seen = made
                with Reader(where, "/health") as health:
                    health.until(b"fine")
            assert made < 50
            assert reader.rest().endswith(b"\r\n0\r\n\r\n")
            assert made == 99

    def test_http_1_0_gets_it_without_chunks(self, app: Flask) -> None:
        app.add_url_rule("/", "view", lambda: EventStream(iter(["a", "b"])))
        with serving(app) as where, Reader(where, version="1.0") as reader:
            assert "Transfer-Encoding" not in reader.head
            assert reader.rest() == b"data: a\n\ndata: b\n\n"

    def test_a_stop_tells_clients_to_come_back(self, app: Flask) -> None:
        held = threading.Event()

        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                yield "first"
                held.wait(TIMEOUT)

            return EventStream(events())

        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        host, _, port = server.addresses[0].rpartition(":")
        try:
            with Reader((host, int(port))) as reader:
                reader.until(b"data: first\n\n")
                stopping = threading.Thread(target=server.stop)
                stopping.start()
                reader.until(b"retry: ")
                # A whole body: the client is not told of an error.
                assert reader.rest().endswith(b"0\r\n\r\n")
        finally:
            held.set()
            stopping.join(TIMEOUT)

    def test_a_generator_that_never_returns_does_not_hold_up_a_stop(self, app: Flask) -> None:
        for_ever = threading.Event()

        @app.route("/")
        def view() -> EventStream:
            def events() -> Iterator[str]:
                yield "first"
                for_ever.wait()

            return EventStream(events())

        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        host, _, port = server.addresses[0].rpartition(":")
        try:
            with Reader((host, int(port))) as reader:
                reader.until(b"data: first\n\n")
                # Its thread is still there, its client is not.
                assert not server.stop(600)
                assert reader.rest().endswith(b"0\r\n\r\n")
        finally:
            for_ever.set()
            server.stop(0)
