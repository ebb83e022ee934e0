"""ASGI applications behind the engine: raw ones, Starlette, FastAPI."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import sys
import threading
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from hipflask import Flask, _core
from hipflask.asgi import Host, LifespanError, is_asgi

PATIENCE = 20


class Live:
    """An ASGI application behind the engine."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.server = _core.Server(Host(app, **options), ["127.0.0.1:0"])
        self.server.start()
        self.address = self.server.addresses[0]
        self.url = f"http://{self.address}"

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=PATIENCE, **options)

    def get(self, path: str = "/", **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def socket(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def connect(self, path: str = "/", **options: Any):
        return connect(f"ws://{self.address}{path}", open_timeout=PATIENCE, **options)


@pytest.fixture
def serve():
    servers = []

    def start(app: Any, **options: Any) -> Live:
        servers.append(Live(app, **{"lifespan": "off", **options}))
        return servers[-1]

    yield start
    for live in servers:
        assert live.server.stop(0, PATIENCE)


def answering(status: int = 200, body: bytes = b"", headers=()):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return app


async def read(receive) -> bytes:
    """Read a request's body to its end."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


# The scope.


def test_the_scope_says_what_the_request_does(serve):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answering()(scope, receive, send)

    live = serve(app)
    with live.socket() as client:
        client.sendall(
            b"GET /a%20b/%C3%A9?x=%20&y HTTP/1.1\r\nHost: test:1\r\nX-Twice: 1\r\nx-twice: 2\r\n"
            b"X_Under: no\r\nConnection: close\r\n\r\n"
        )
        assert client.recv(64).startswith(b"HTTP/1.1 200 OK\r\n")
        mine = client.getsockname()
    (scope,) = scopes
    host, _, port = live.address.rpartition(":")
    extensions = scope.pop("extensions")
    assert "http.response.pathsend" in extensions
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            (b"host", b"test:1"),
            (b"x-twice", b"1"),
            (b"x-twice", b"2"),
            (b"connection", b"close"),
        ],
        "client": (mine[0], mine[1]),
        "server": (host, int(port)),
    }


# Requests.


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_arrives_whole(serve, size, chunked):
    async def app(scope, receive, send):
        await answering(body=await read(receive))(scope, receive, send)

    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    content = iter([data]) if chunked else data
    assert serve(app).request("POST", "/", content=content).content == data


def test_a_body_is_read_while_it_arrives(serve):
    seen = threading.Event()

    async def app(scope, receive, send):
        message = await receive()
        assert message == {"type": "http.request", "body": b"one", "more_body": True}
        seen.set()
        assert await read(receive) == b"two"
        await answering(body=b"done")(scope, receive, send)

    with serve(app).socket() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none")
        assert seen.wait(PATIENCE)
        client.sendall(b"two")
        assert client.recv(1000).endswith(b"done")


def test_a_body_that_breaks_off_is_a_disconnect(serve):
    messages = []
    done = threading.Event()

    async def app(scope, receive, send):
        while not messages or messages[-1]["type"] != "http.disconnect":
            messages.append(await receive())
        done.set()

    with serve(app).socket() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none")
    assert done.wait(PATIENCE)
    assert not any(message.get("more_body") is False for message in messages)


def test_a_malformed_chunk_is_refused(serve):
    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    with serve(app).socket() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        client.sendall(b"+1\r\nb\r\n0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_leaves_is_told(serve):
    messages = []
    begun, done = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        await read(receive)
        begun.set()
        messages.append(await receive())
        with pytest.raises(OSError, match="gone"):
            await answering()(scope, receive, send)
        done.set()

    with serve(app).socket() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert begun.wait(PATIENCE)
    assert done.wait(PATIENCE)
    assert messages == [{"type": "http.disconnect"}]


def test_receive_gives_a_disconnect_after_the_response(serve):
    messages = []
    done = threading.Event()

    async def app(scope, receive, send):
        await read(receive)
        await answering()(scope, receive, send)
        messages.append(await receive())
        done.set()

    assert serve(app).get().status_code == 200
    assert done.wait(PATIENCE)
    assert messages == [{"type": "http.disconnect"}]


# Responses.


@pytest.mark.parametrize(
    ("headers", "framing"),
    [([], ("transfer-encoding", "chunked")), ([(b"Content-Length", b"6")], ("content-length", "6"))],
    ids=["chunked", "length"],
)
def test_a_response_in_pieces(serve, headers, framing):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 203, "headers": headers})
        for piece in (b"one", b"", bytearray(b"tw"), memoryview(b"o")):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    answer = serve(app).get()
    assert (answer.status_code, answer.content) == (203, b"onetwo")
    assert answer.headers[framing[0]] == framing[1]


def test_the_head_of_a_stream_goes_out_with_its_first_piece(serve):
    go_on = threading.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.to_thread(go_on.wait, PATIENCE)
        await send({"type": "http.response.body", "body": b"two"})

    with httpx.stream("GET", serve(app).url, timeout=PATIENCE) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"one"
        go_on.set()
        assert next(pieces) == b"two"


def test_send_waits_for_a_slow_client(serve):
    sent = []
    ended = threading.Event()

    async def app(scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200})
            while True:
                await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
                sent.append(65_536)
        finally:
            ended.set()

    live = serve(app)
    with live.socket() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(10)
        # Others are answered meanwhile, so the loop is free.
        assert not ended.wait(0.2)
        assert sum(sent) < 64 << 20
    assert ended.wait(PATIENCE)


@pytest.mark.parametrize("more", [False, True])
def test_head_has_no_body(serve, more):
    async def app(scope, receive, send):
        assert scope["method"] == "HEAD"
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello", "more_body": more})
        if more:
            await send({"type": "http.response.body"})

    with serve(app).socket() as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(1000):
            data += piece
    assert data.endswith(b"\r\n\r\n")
    assert b"content-length: 5\r\n" in data.lower()


def test_a_file_is_sent_by_its_path(serve, tmp_path):
    place = tmp_path / "file"
    place.write_bytes(b"content" * 10_000)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(place)})

    answer = serve(app).get()
    assert answer.content == place.read_bytes()
    assert answer.headers["content-length"] == "70000"


async def _raise(scope, receive, send):
    raise ZeroDivisionError


async def _say_nothing(scope, receive, send):
    pass


async def _start_only(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})


async def _start_twice(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.start", "status": 200})


async def _body_first(scope, receive, send):
    await send({"type": "http.response.body", "body": b"x"})


async def _unknown(scope, receive, send):
    await send({"type": "http.response.nonsense"})


async def _bad_header(scope, receive, send):
    headers = [(b"x", b"a\r\nSet-Cookie: b")]
    await answering(headers=headers)(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (_raise, "ZeroDivisionError"),
        (_say_nothing, "sent no response"),
        (_start_only, "no complete response"),
        (_start_twice, "started already"),
        (_body_first, "http.response.start"),
        (_unknown, "http.response.nonsense"),
        (_bad_header, "not allowed in a header"),
        (answering(status=42), "200 to 999"),
    ],
    ids=["raises", "nothing", "start only", "two starts", "body first", "unknown", "header", "status"],
)
def test_an_application_at_fault_is_answered_with_a_500(serve, caplog, app, said):
    answer = serve(app).get()
    assert answer.status_code == 500
    assert "Internal Server Error" in answer.text
    assert said in caplog.text


def test_a_stream_that_raises_is_broken_off(serve, caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        raise ZeroDivisionError

    with pytest.raises(httpx.TransportError):
        serve(app).get()
    assert "ZeroDivisionError" in caplog.text


def test_connections_are_kept(serve):
    live = serve(answering(body=b"x"))
    host, _, port = live.address.rpartition(":")
    client = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    for _ in range(3):
        client.request("POST", "/", body=b"unread" * 10)
        assert client.getresponse().read() == b"x"
    client.close()


async def _waits_in_vain():
    await asyncio.Event().wait()


@pytest.mark.parametrize("heeds", [False, True], ids=["awaits something else", "watches the client"])
def test_a_late_task_is_told_that_its_client_has_gone_and_cancelled_in_the_end(heeds, monkeypatch, caplog):
    monkeypatch.setattr("hipflask.asgi._LATE_SECONDS", PATIENCE if heeds else 0.05)
    told: list[Any] = []
    ended = threading.Event()

    async def app(scope, receive, send):
        try:
            assert (await receive())["type"] == "http.request"
            watch = asyncio.ensure_future(receive())
            if heeds:
                told.append(await watch)
            else:
                await _waits_in_vain()
        except asyncio.CancelledError:
            told.append(await watch)
            await send({"type": "http.response.start", "status": 200})
            with pytest.raises(ConnectionResetError):
                await send({"type": "http.response.body", "body": b"late"})
            raise
        finally:
            told.append(sys.exc_info()[0])
            ended.set()

    server = _core.Server(Host(app, lifespan="off"), ["127.0.0.1:0"], settings={"request_timeout": 0.1})
    server.start()
    try:
        answer = httpx.get(f"http://{server.addresses[0]}/late", timeout=PATIENCE)
        assert (answer.status_code, answer.text) == (504, "the request took longer than it may")
        assert ended.wait(PATIENCE)
    finally:
        assert server.stop(0, PATIENCE)
    assert told == [{"type": "http.disconnect"}, None if heeds else asyncio.CancelledError]
    (record,) = caplog.records
    assert "GET /late was answered with 504" in record.getMessage()
    assert ("await watch" if heeds else "in _waits_in_vain") in record.getMessage()


# Lifespan.


def lifespan(log: list, startup: dict | None = None, shutdown: dict | None = None):
    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            log.append(dict(scope["state"]))
            scope["state"]["of the request"] = 1
            await answering()(scope, receive, send)
            return
        scope["state"]["pool"] = "open"
        log.append((await receive())["type"])
        await send(startup or {"type": "lifespan.startup.complete"})
        log.append((await receive())["type"])
        await send(shutdown or {"type": "lifespan.shutdown.complete"})

    return app


def test_lifespan_and_its_state():
    log: list[Any] = []
    live = Live(lifespan(log))
    assert live.get().status_code == 200
    assert live.get().status_code == 200
    assert live.server.stop(PATIENCE)
    assert log == ["lifespan.startup", {"pool": "open"}, {"pool": "open"}, "lifespan.shutdown"]


def test_a_startup_that_fails_stops_the_server(caplog):
    app = lifespan([], startup={"type": "lifespan.startup.failed", "message": "no database"})
    with pytest.raises(LifespanError, match="no database"):
        Live(app)
    assert "no database" in caplog.text


def test_a_shutdown_that_fails_is_logged(caplog):
    app = lifespan([], shutdown={"type": "lifespan.shutdown.failed", "message": "stuck"})
    live = Live(app)
    assert live.server.stop(PATIENCE)
    assert "stuck" in caplog.text


def test_an_application_without_lifespan_is_served_unless_it_must_have_one(caplog):
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await answering(body=b"served")(scope, receive, send)

    with caplog.at_level(logging.INFO):
        live = Live(app)
    assert live.get().text == "served"
    assert live.server.stop(PATIENCE)
    assert "takes no lifespan events" in caplog.text
    with pytest.raises(LifespanError, match="no lifespan"):
        Live(app, lifespan="on")


def test_work_after_the_response_is_waited_for():
    done = []
    go_on = threading.Event()

    async def app(scope, receive, send):
        await answering()(scope, receive, send)
        await asyncio.to_thread(go_on.wait, PATIENCE)
        done.append(True)

    live = Live(app, lifespan="off")
    assert live.get().status_code == 200
    threading.Timer(0.1, go_on.set).start()
    assert live.server.stop(PATIENCE)
    assert done == [True]


# WebSockets.


async def echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    protocols = scope["subprotocols"]
    await send(
        {
            "type": "websocket.accept",
            "subprotocol": protocols[-1] if protocols else None,
            "headers": [(b"x-field", b"1")],
        }
    )
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "asked"})
        else:
            await send({**message, "type": "websocket.send"})


def test_websocket_echo(serve):
    with serve(echo).connect("/a?b", subprotocols=["one", "two"]) as client:
        assert client.subprotocol == "two"
        assert client.response.headers["x-field"] == "1"
        for message in ("text é", b"bytes", "x" * 100_000):
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
        client.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=PATIENCE)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "asked")


def test_the_scope_of_a_websocket(serve):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    with serve(app).connect("/a?b"):
        pass
    (scope,) = scopes
    assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/a")
    assert scope["query_string"] == b"b"
    assert scope["subprotocols"] == []
    assert "method" not in scope


def test_the_end_of_a_websocket_is_told(serve):
    messages = []
    done = threading.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        messages.append(await receive())
        with pytest.raises(OSError, match="over"):
            await send({"type": "websocket.send", "text": "late"})
        done.set()

    with serve(app).connect() as client:
        client.close(4000, "enough")
    assert done.wait(PATIENCE)
    assert messages == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]


async def _close_at_once(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})


async def _refuse(scope, receive, send):
    await receive()
    headers = [(b"x-why", b"tea")]
    await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"stout"})


@pytest.mark.parametrize(
    ("app", "status", "body"),
    [
        (_close_at_once, 403, b"Forbidden"),
        (_refuse, 418, b"short stout"),
        (_raise, 500, None),
        (_say_nothing, 500, None),
    ],
)
def test_a_handshake_that_is_refused(serve, app, status, body):
    with pytest.raises(InvalidStatus) as caught, serve(app).connect():
        pass
    answer = caught.value.response
    assert answer.status_code == status
    if body is not None:
        assert answer.body == body


def test_a_websocket_whose_application_raises_is_closed_with_1011(serve, caplog):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    with serve(app).connect() as client, pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=PATIENCE)
    assert caught.value.rcvd.code == 1011
    assert "ZeroDivisionError" in caplog.text


# Which interface.


async def _asgi(scope, receive, send): ...


def _wsgi(environ, start_response): ...


class _Class:
    async def __call__(self, scope, receive, send): ...


class _WsgiClass:
    def __call__(self, environ, start_response): ...


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (_asgi, True),
        (_Class(), True),
        (lambda scope, receive, send: _asgi(scope, receive, send), True),
        (_wsgi, False),
        (_WsgiClass(), False),
        (Flask(__name__), False),
        (lambda *args: None, False),
    ],
)
def test_the_interface_is_found_out(app, expected):
    assert is_asgi(app) is expected


# Frameworks.


def test_starlette(serve, tmp_path):
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    place = tmp_path / "file.txt"
    place.write_text("file")
    later = threading.Event()

    @asynccontextmanager
    async def lifespan(app):
        yield {"greeting": "hello"}

    async def home(request):
        return PlainTextResponse(request.state.greeting, background=BackgroundTask(later.set))

    async def upload(request):
        return JSONResponse({"length": len(await request.body())})

    async def stream(request):
        async def pieces():
            for number in range(3):
                yield f"{number}\n"

        return StreamingResponse(pieces())

    async def file(request):
        return FileResponse(place)

    async def socket(websocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_json({"echo": text})

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            Route("/file", file),
            WebSocketRoute("/socket", socket),
        ],
        lifespan=lifespan,
    )
    live = serve(app, lifespan="on")
    assert live.get("/").text == "hello"
    assert later.wait(PATIENCE)
    assert live.request("POST", "/upload", content=bytes(100_000)).json() == {"length": 100_000}
    assert live.get("/stream").text == "0\n1\n2\n"
    assert live.get("/file").text == "file"
    assert live.get("/nowhere").status_code == 404
    with live.connect("/socket") as client:
        client.send("hi")
        assert client.recv(timeout=PATIENCE) == '{"echo":"hi"}'


def test_fastapi(serve):
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int, q: str = ""):
        return {"number": number, "q": q}

    @app.get("/sync")
    def sync():
        return threading.current_thread().name

    live = serve(app, lifespan="auto")
    assert live.get("/items/3?q=x").json() == {"number": 3, "q": "x"}
    assert live.get("/items/x").status_code == 422
    assert live.get("/openapi.json").json()["info"]["title"] == "FastAPI"
    assert live.get("/sync").json() != "hipflask-loop"
