"""WebSockets through the live engine, with the `websockets` package as the client.

Each behaviour is tested over HTTP/1.1 and, through a gateway, over HTTP/2. What is HTTP/2's alone is in
`test_http2_websocket.py`.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import logging
import socket
import threading

import pytest
from http2_gateway import Gateway
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hipflask import Blueprint, Flask, Response, _core, abort, current_app, g, request, session
from hipflask.websocket import ConnectionClosed

PATIENCE = 20


class Live:
    """An app behind the engine, and behind a gateway if it is to be asked by HTTP/2."""

    def __init__(self, app: Flask, carrier: str) -> None:
        self.server = _core.Server(app, ["127.0.0.1:0"])
        self.server.start()
        self.address = self.server.addresses[0]
        self.gateway = Gateway(self.address) if carrier == "http2" else None
        self.entry = self.gateway.address if self.gateway is not None else self.address

    def connect(self, path: str, **options):
        return connect(f"ws://{self.entry}{path}", open_timeout=PATIENCE, **options)

    def refused(self, path: str, **options) -> Response:
        with pytest.raises(InvalidStatus) as caught, self.connect(path, **options):
            pass
        return caught.value.response

    def raw(self, path: str, *fields: str, behind: bytes = b"") -> socket.socket:
        host, _, port = self.entry.rpartition(":")
        client = socket.create_connection((host, int(port)), timeout=PATIENCE)
        key = base64.b64encode(bytes(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: test",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            *(fields or ["Sec-WebSocket-Version: 13"]),
        ]
        client.sendall("\r\n".join([*lines, "", ""]).encode() + behind)
        return client


@pytest.fixture(params=["http1", "http2"])
def serve(request):
    servers = []

    def start(app: Flask) -> Live:
        servers.append(Live(app, request.param))
        return servers[-1]

    yield start
    for live in servers:
        assert live.server.stop(0, PATIENCE)
        if live.gateway is not None:
            live.gateway.close()


def closed(client) -> tuple[int, str]:
    """Read to the end; give the code and the reason."""
    try:
        while True:
            client.recv(timeout=PATIENCE)
    except ClientClosed as error:
        frame = error.rcvd
    return (frame.code, frame.reason) if frame is not None else (1006, "")


# Each behaviour for sync and for async views: the same view in both forms.
FORMS = ["sync", "async"]


@pytest.fixture(params=FORMS)
def echo(request, app: Flask):
    """An echo view at `/echo`."""
    if request.param == "sync":

        @app.websocket("/echo")
        def echo(ws):
            for message in ws:
                ws.send(message)

    else:

        @app.websocket("/echo")
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

    return app


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize(
    "messages",
    [["text"], [b"bytes"], ["", b""], ["grüße 🙂"], ["x" * 70_000, b"y" * 200], [str(n) for n in range(300)]],
    ids=["text", "bytes", "empty", "utf8", "long", "many"],
)
def test_messages_come_back_as_they_were_sent(echo, serve, messages, compression):
    with serve(echo).connect("/echo", compression=compression) as client:
        for message in messages:
            client.send(message)
        assert [client.recv(timeout=PATIENCE) for _ in messages] == messages


def test_a_message_in_fragments_with_a_ping_between_is_one_message(echo, serve):
    with serve(echo).connect("/echo") as client:
        client.send(iter(["one ", "two ", "three"]))
        assert client.ping().wait(PATIENCE)
        assert client.recv(timeout=PATIENCE) == "one two three"


def test_the_close_of_the_client_is_answered(echo, serve):
    with serve(echo).connect("/echo") as client:
        client.close(4001, "enough")
        assert client.protocol.close_rcvd.code == 4001


@pytest.mark.parametrize(
    ("size", "message"), [(None, "x" * (1 << 20) + "x"), (10, "x" * 11)], ids=["default", "configured"]
)
def test_a_message_that_is_too_long_ends_the_connection(echo, serve, size, message):
    if size is not None:
        echo.config["WEBSOCKET_MAX_MESSAGE_SIZE"] = size
    with serve(echo).connect("/echo", compression=None) as client:
        client.send(message)
        assert closed(client) == (1009, "the message is too long")


def test_the_server_says_that_it_stops(echo, serve):
    live = serve(echo)
    with live.connect("/echo") as client:
        client.send("a")
        client.recv(timeout=PATIENCE)
        assert live.server.stop(PATIENCE, PATIENCE)
        assert closed(client) == (1001, "the server stops")
    assert live.server.websocket_threads[0] == 0


def test_views_get_values_request_session_and_g(app, serve):
    blueprint = Blueprint("chat", "chat", url_prefix="/chat")
    ended = threading.Semaphore(0)

    @app.before_request
    def before():
        g.user = request.args.get("user")

    @app.teardown_request
    def teardown(error):
        ended.release()

    @blueprint.websocket("/<room>/<int:number>")
    def sync_view(ws, room, number):
        ws.send(f"{room} {number} {g.user} {session.get('name')} {request.endpoint} {request.path}")

    @blueprint.websocket("/async/<path:rest>")
    async def async_view(ws, rest):
        await asyncio.sleep(0)
        await ws.send(f"{rest} {g.user} {session.get('name')} {request.endpoint}")

    @app.route("/login")
    def login():
        session["name"] = "ann"
        return ""

    app.register_blueprint(blueprint)
    cookie = app.test_client().get("/login").headers["Set-Cookie"].partition(";")[0]
    live = serve(app)
    for path, expected in [
        ("/chat/hall/7?user=bob", "hall 7 bob ann chat.sync_view /chat/hall/7"),
        ("/chat/async/a/b?user=eve", "a/b eve ann chat.async_view"),
    ]:
        with live.connect(path, additional_headers={"Cookie": cookie}) as client:
            assert client.recv(timeout=PATIENCE) == expected
            assert closed(client) == (1000, "")
    for _ in range(3):
        assert ended.acquire(timeout=PATIENCE)


@pytest.mark.parametrize("form", FORMS)
def test_a_view_or_a_hook_can_refuse(app, serve, form):
    @app.before_request
    def before():
        if "hook" in request.args:
            return "not you", 401
        return None

    @app.errorhandler(403)
    def forbidden(error):
        return "handled", 403

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            if "value" in request.args:
                return "a value", 409
            return abort(403)

    else:

        @app.websocket("/ws")
        async def view(ws):
            if "value" in request.args:
                return "a value", 409
            return abort(403)

    live = serve(app)
    for query, status, body in [("hook", 401, b"not you"), ("", 403, b"handled"), ("value", 409, b"a value")]:
        response = live.refused(f"/ws?{query}")
        assert (response.status_code, response.body) == (status, body)


@pytest.mark.parametrize(
    ("origin", "origins", "opens"),
    [
        (None, None, True),
        ("http://test", None, True),
        ("https://test", None, True),
        ("http://evil.test", None, False),
        ("null", None, False),
        ("https://a.example", "https://a.example", True),
        ("https://a.example", ["https://b.example", "https://A.example/"], True),
        ("http://test", ["https://a.example"], False),
        ("http://evil.test", "*", True),
        (None, ["https://a.example"], True),
    ],
)
def test_pages_of_other_hosts_may_not_connect(app, serve, origin, origins, opens):
    @app.websocket("/route", origins=origins)
    def route(ws):
        ws.send("open")

    @app.websocket("/config")
    def config(ws):
        ws.send("open")

    if origins is not None:
        app.config["WEBSOCKET_ORIGINS"] = origins
    live = serve(app)
    fields = ["Sec-WebSocket-Version: 13"] + ([f"Origin: {origin}"] if origin else [])
    for path in ["/route", "/config"]:
        with live.raw(path, *fields) as client:
            status = client.recv(1000).split(b" ")[1]
            assert status == (b"101" if opens else b"403")


def test_a_bad_handshake_is_answered_as_rfc_6455_says(echo, serve):
    live = serve(echo)
    with live.raw("/echo", "Sec-WebSocket-Version: 8") as client:
        head = client.recv(10_000)
        assert head.startswith(b"HTTP/1.1 426 ")
        assert b"sec-websocket-version: 13\r\n" in head.lower()
    with live.raw("/echo", "X: no version") as client:
        assert client.recv(10_000).startswith(b"HTTP/1.1 400 ")
    plain = http.client.HTTPConnection(live.address, timeout=PATIENCE)
    plain.request("GET", "/echo")
    assert plain.getresponse().status == 400
    plain.close()


def test_an_error_after_the_opening_is_logged_and_closes_with_1011(app, serve, caplog):
    @app.websocket("/sync")
    def sync_view(ws):
        ws.receive()
        raise ZeroDivisionError("sync")

    @app.websocket("/async")
    async def async_view(ws):
        await ws.receive()
        raise ZeroDivisionError("async")

    @app.websocket("/abort")
    def aborts(ws):
        ws.receive()
        abort(404)

    live = serve(app)
    for path, code in [("/sync", 1011), ("/async", 1011), ("/abort", 1008)]:
        with live.connect(path) as client:
            client.send("go")
            assert closed(client) == (code, "")
    assert live.server.stop(PATIENCE, PATIENCE)
    # Two threads write them, each after its client has been told.
    logged = sorted(str(record.exc_info[1]) for record in caplog.records if record.exc_info)
    assert logged == ["async", "sync"]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_view_learns_about_the_end(app, serve, form):
    seen: list[object] = []
    done = threading.Event()

    def note(ws, error):
        seen.extend([error.reason, error.message, ws.connected, ws.close_reason, ws.close_message])
        done.set()

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            assert (ws.accepted, ws.connected) == (False, False)
            assert ws.receive(timeout=0.01) is None
            assert (ws.accepted, ws.connected) == (True, True)
            ws.send("ready")
            try:
                while True:
                    ws.receive()
            except ConnectionClosed as error:
                with pytest.raises(ConnectionClosed):
                    ws.send("too late")
                note(ws, error)

    else:

        @app.websocket("/ws")
        async def view(ws):
            assert await ws.receive(timeout=0.01) is None
            await ws.send("ready")
            try:
                while True:
                    await ws.receive()
            except ConnectionClosed as error:
                with pytest.raises(ConnectionClosed):
                    await ws.send("too late")
                note(ws, error)

    with serve(app).connect("/ws") as client:
        assert client.recv(timeout=PATIENCE) == "ready"
        client.close(4000, "bye")
    assert done.wait(PATIENCE)
    assert seen == [4000, "bye", False, 4000, "bye"]


def test_subprotocols_and_headers(app, serve):
    @app.websocket("/ws", subprotocols=["b", "a"])
    def view(ws):
        assert ws.subprotocols == ["a", "b"]
        ws.accept(headers={"X-Room": "7"})
        ws.send(ws.subprotocol)

    @app.websocket("/chosen")
    def chosen(ws):
        with pytest.raises(ValueError, match="does not offer"):
            ws.accept("c")
        ws.accept("a")

    live = serve(app)
    with live.connect("/ws", subprotocols=["a", "b"]) as client:
        assert (client.subprotocol, client.recv(timeout=PATIENCE)) == ("b", "b")
        assert client.response.headers["X-Room"] == "7"
    with live.connect("/chosen", subprotocols=["a"]) as client:
        assert client.subprotocol == "a"


@pytest.mark.parametrize("form", FORMS)
def test_a_client_that_takes_nothing_makes_the_view_wait(app, serve, form):
    """The view sends 64 MiB, and is far from done when the client begins to read."""
    sent = [0]
    block = bytes(64 * 1024)

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            for _ in range(1024):
                ws.send(block)
                sent[0] += 1

    else:

        @app.websocket("/ws")
        async def view(ws):
            for _ in range(1024):
                await ws.send(block)
                sent[0] += 1

    with serve(app).raw("/ws") as client:
        taken = len(client.recv(65_536))
        assert sent[0] < 512
        while not taken >= 1024 * len(block):
            taken += len(client.recv(1 << 20))
        assert sent[0] >= 1023


@pytest.mark.parametrize("form", FORMS)
def test_a_view_that_takes_nothing_makes_the_client_wait(app, serve, form):
    go = threading.Event()
    total = 512
    block = bytes(64 * 1024)

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            ws.accept()
            go.wait(PATIENCE)
            for _ in range(total):
                assert ws.receive() == block
            ws.send("all")

    else:

        @app.websocket("/ws")
        async def view(ws):
            await ws.accept()
            await asyncio.to_thread(go.wait, PATIENCE)
            for _ in range(total):
                assert await ws.receive() == block
            await ws.send("all")

    with serve(app).connect("/ws", compression=None) as client:
        given = [0]

        def give():
            for _ in range(total):
                client.send(block)
                given[0] += 1

        giver = threading.Thread(target=give)
        giver.start()
        giver.join(0.3)
        assert giver.is_alive()
        assert given[0] < total
        go.set()
        assert client.recv(timeout=PATIENCE) == "all"
        giver.join(PATIENCE)


def test_threads_of_sync_views_are_bounded(echo, serve):
    echo.config["WEBSOCKET_THREADS"] = 2
    is_sync = not asyncio.iscoroutinefunction(echo.view_functions["echo"])
    live = serve(echo)
    with live.connect("/echo") as one, live.connect("/echo") as two:
        for client in (one, two):
            client.send("a")
            assert client.recv(timeout=PATIENCE) == "a"
        assert live.server.websocket_threads == (2 if is_sync else 0, 2)
        if is_sync:
            response = live.refused("/echo")
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        else:
            with live.connect("/echo") as three:
                three.send("a")
                assert three.recv(timeout=PATIENCE) == "a"


def test_a_client_without_signs_of_life_is_dropped(app, serve):
    over: list[tuple[int, str]] = []
    done = threading.Event()

    @app.websocket("/ws", ping_interval=0.1, ping_timeout=0.05)
    def view(ws):
        try:
            ws.receive()
        except ConnectionClosed as error:
            over.append((error.reason, error.message))
            done.set()

    live = serve(app)
    with live.raw("/ws") as client:
        data = b""
        while b"\x89\x00" not in data:
            data += client.recv(1000)
        assert done.wait(PATIENCE)
    assert over == [(1006, "the client does not answer pings")]


def test_an_app_with_middleware_has_websockets_too(app, serve):
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner({**environ, "X": "through"}, start)

    @app.websocket("/sync")
    def sync_view(ws):
        ws.send(request.environ["X"])

    @app.websocket("/async")
    async def async_view(ws):
        await ws.send(request.environ["X"])
        await ws.send(await ws.receive())

    live = serve(app)
    with live.connect("/sync") as client:
        assert client.recv(timeout=PATIENCE) == "through"
    with live.connect("/async") as client:
        assert client.recv(timeout=PATIENCE) == "through"
        client.send("back")
        assert client.recv(timeout=PATIENCE) == "back"


def test_without_our_server_there_are_no_websockets(echo):
    headers = {"Upgrade": "websocket", "Connection": "upgrade"}
    assert echo.test_client().get("/echo", headers=headers).status_code == 501


# Functions that the engine calls: no thread waits.


@pytest.fixture
def held(app: Flask):
    """At `/ws/<room>` messages are answered by a function; `app.ends` has the ends."""
    app.ends = []
    app.ended = threading.Semaphore(0)

    @app.websocket("/ws/<room>")
    def view(ws, room):
        @ws.on_message
        def answer(message):
            if message == "error":
                raise ZeroDivisionError("in a function")
            if message == "close":
                ws.close(4001, "as asked")
                return
            if message == "abort":
                abort(403)
            ws.send(f"{room} {message} {request.path} {session.get('name')} {current_app.name}")

        @ws.on_close
        def end(reason, message):
            app.ends.append((reason, message, request.path))
            app.ended.release()

    return app


def test_functions_get_messages_in_order_and_hold_no_thread(held, serve):
    live = serve(held)
    with live.connect("/ws/a") as one, live.connect("/ws/b") as two:
        for number in range(300):
            one.send(str(number))
            two.send(str(number))
        for number in range(300):
            assert one.recv(timeout=PATIENCE) == f"a {number} /ws/a None test_app"
            assert two.recv(timeout=PATIENCE) == f"b {number} /ws/b None test_app"
        assert live.server.websocket_threads[0] == 0
        one.close(4000, "bye")
        assert held.ended.acquire(timeout=PATIENCE)
        assert held.ends == [(4000, "bye", "/ws/a")]


@pytest.mark.parametrize(
    ("message", "end"), [("error", (1011, "")), ("close", (4001, "as asked")), ("abort", (1008, ""))]
)
def test_a_function_ends_the_connection(held, serve, caplog, message, end):
    with serve(held).connect("/ws/a") as client:
        client.send("before")
        assert client.recv(timeout=PATIENCE)
        client.send(message)
        assert closed(client) == end
    assert held.ended.acquire(timeout=PATIENCE)
    assert held.ends == [(*end, "/ws/a")]
    logged = [
        record for record in caplog.records if record.exc_info and record.exc_info[0] is ZeroDivisionError
    ]
    assert len(logged) == (1 if message == "error" else 0)
    if logged:
        assert "in answer" in logging.Formatter().formatException(logged[0].exc_info)


def test_functions_have_teardown_after_each_message(held, serve):
    calls: list[object] = []
    held.teardown_request(lambda error: calls.append(error))
    with serve(held).connect("/ws/a") as client:
        for _ in range(2):
            client.send("m")
            client.recv(timeout=PATIENCE)
        client.send("close")
        closed(client)
    assert held.ended.acquire(timeout=PATIENCE)
    # The view, three messages; that of the end may still be on its way.
    assert calls[:4] == [None] * 4


def test_a_function_that_blocks_does_not_delay_others(app, serve):
    go = threading.Event()

    @app.websocket("/ws")
    def view(ws):
        @ws.on_message
        def answer(message):
            if message == "wait":
                go.wait(PATIENCE)
            ws.send(message)

    live = serve(app)
    with live.connect("/ws") as slow, live.connect("/ws") as fast:
        for _ in range(30):
            fast.send("quick")
            assert fast.recv(timeout=PATIENCE) == "quick"
        slow.send("wait")
        for _ in range(30):
            fast.send("quick")
            assert fast.recv(timeout=PATIENCE) == "quick"
        go.set()
        assert slow.recv(timeout=PATIENCE) == "wait"


def test_a_stop_tells_the_function(held, serve):
    live = serve(held)
    with live.connect("/ws/a") as client:
        client.send("m")
        client.recv(timeout=PATIENCE)
        assert live.server.stop(PATIENCE, PATIENCE)
        assert closed(client) == (1001, "the server stops")
    assert held.ends == [(1001, "the server stops", "/ws/a")]


def test_coroutine_functions_are_for_async_views(app, serve, caplog):
    @app.websocket("/ws")
    def view(ws):
        ws.accept()

        @ws.on_message
        async def answer(message):
            pass

    with serve(app).connect("/ws") as client:
        assert closed(client) == (1011, "")


def test_an_async_view_has_ended_when_the_server_has(app, serve):
    """So that `after_serving` does not take away what the view still needs."""
    ends = []

    @app.websocket("/ws")
    async def view(ws):
        await ws.send("ready")
        try:
            await ws.receive()
        except ConnectionClosed as error:
            for _ in range(100):
                await asyncio.sleep(0)
            ends.append(error.reason)

    live = serve(app)
    with live.connect("/ws") as client:
        assert client.recv(timeout=PATIENCE) == "ready"
        assert live.server.stop(PATIENCE, PATIENCE)
        assert ends == [1001]


def test_an_async_view_that_awaits_something_else_is_cancelled_by_the_end(app, serve, monkeypatch):
    monkeypatch.setattr("hipflask.loop._LAST_SECONDS", 0.05)
    cancelled = threading.Event()

    @app.websocket("/ws")
    async def view(ws):
        await ws.send("ready")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    live = serve(app)
    with live.connect("/ws") as client:
        assert client.recv(timeout=PATIENCE) == "ready"
        assert live.server.stop(PATIENCE, PATIENCE)
    assert cancelled.wait(PATIENCE)
