"""WebSocket views on servers of others: one table of behaviour for them, our own server and the test client.

What is our own server's alone (pings, compression, what frames may be) is in `test_websocket.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from typing import Any

import asgi_servers
import pytest
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hipflask import Channels, Flask, abort, g, request, session
from hipflask.websocket import ConnectionClosed
from hipflask.websocket_testing import WebSocketRefused

PATIENCE = 20
OTHERS = ["uvicorn-websockets-sansio", "uvicorn-wsproto", "hypercorn", "engine-asgi"]
ALL = ["client", "engine", *OTHERS]


class Refused(Exception):
    """The handshake was answered with an error."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.headers = headers
        self.body = body


class ThroughNetwork:
    """A client's end of a connection."""

    def __init__(self, address: str, path: str, subprotocols, origin, headers, max_size) -> None:
        try:
            opening = connect(
                f"ws://{address}{path}",
                subprotocols=subprotocols or None,
                origin=origin,
                additional_headers=headers,
                open_timeout=PATIENCE,
                compression=None,
                max_size=max_size,
            )
            self.connection = opening.__enter__()
        except InvalidStatus as error:
            answer = error.response
            raise Refused(answer.status_code, answer.headers, answer.body or b"") from None
        self.headers = self.connection.response.headers
        self.subprotocol = self.connection.subprotocol
        self.send = self.connection.send
        self.close = self.connection.close

    def receive(self):
        """A message, or how it ended."""
        try:
            return self.connection.recv(timeout=PATIENCE)
        except ClientClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


class ThroughTestClient:
    """The test client's."""

    def __init__(self, app: Flask, path: str, subprotocols, origin, headers, max_size) -> None:
        fields = {**(headers or {}), **({"Origin": origin} if origin else {})}
        client = app.test_client(use_cookies=False)
        try:
            self.connection = client.websocket_connect(
                path, subprotocols=tuple(subprotocols or ()), headers=fields
            )
        except WebSocketRefused as error:
            raise Refused(error.status_code, error.headers, error.data) from None
        self.headers = self.connection.headers
        self.subprotocol = self.connection.subprotocol
        self.send = self.connection.send
        self.close = self.connection.close

    def receive(self):
        """A message, or how it ended."""
        try:
            return self.connection.receive(PATIENCE)
        except ConnectionClosed as error:
            return error.reason, error.message


class Live:
    """An app on a server."""

    def __init__(self, app: Flask, name: str) -> None:
        self.app = app
        self.name = name
        self.server = None if name == "client" else asgi_servers.run(name, app)

    @contextlib.contextmanager
    def connect(self, path, subprotocols=(), origin=None, headers=None, max_size=1 << 20):
        options = (subprotocols, origin, headers, max_size)
        if self.server is None:
            client = ThroughTestClient(self.app, path, *options)
        else:
            client = ThroughNetwork(self.server.address, path, *options)
        try:
            yield client
        finally:
            client.close()

    def refused(self, path, **options) -> Refused:
        with pytest.raises(Refused) as caught, self.connect(path, **options):
            pass
        return caught.value

    def stop(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            assert server.stop()


@pytest.fixture
def start():
    lives = []

    def start(app: Flask, name: str) -> Live:
        lives.append(Live(app, name))
        return lives[-1]

    yield start
    for live in lives:
        live.stop()


@pytest.fixture(params=ALL)
def serve(request, start):
    return lambda app: start(app, request.param)


@pytest.fixture(params=OTHERS)
def serve_elsewhere(request, start):
    return lambda app: start(app, request.param)


class Notes:
    """What views note, for tests that wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.all: list[Any] = []

    def add(self, note: Any) -> None:
        with self._changed:
            self.all.append(note)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, PATIENCE), self.all
            return self.all


class Errors(logging.Handler):
    """The classes of the errors that are logged; a view's is logged after its client has been told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = Notes()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.notes.add(record.exc_info[0])


@pytest.fixture
def errors():
    handler = Errors()
    logging.getLogger().addHandler(handler)
    yield handler.notes
    logging.getLogger().removeHandler(handler)


FORMS = ["sync", "async", "functions"]


@pytest.fixture(params=FORMS)
def echo(request, app: Flask):
    """An echo view at `/echo`."""
    if request.param == "sync":

        @app.websocket("/echo")
        def echo(ws):
            for message in ws:
                ws.send(message)

    elif request.param == "async":

        @app.websocket("/echo")
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

    else:

        @app.websocket("/echo")
        def echo(ws):
            ws.on_message(ws.send)

    app.form = request.param
    return app


def test_messages_come_back_as_they_were_sent(echo, serve):
    messages = ["text", b"bytes", "", b"", "grüße 🙂", "x" * 70_000, b"y" * 200, *map(str, range(300))]
    with serve(echo).connect("/echo") as client:
        for message in messages:
            client.send(message)
        assert [client.receive() for _ in messages] == messages


def test_what_is_too_long_ends_the_connection(echo, serve):
    echo.config["WEBSOCKET_MAX_MESSAGE_SIZE"] = 10
    with serve(echo).connect("/echo") as client:
        client.send("é" * 5)
        assert client.receive() == "é" * 5
        client.send("é" * 6)
        assert client.receive() == (1009, "the message is too long")


def test_subprotocols_and_fields(app, serve):
    @app.websocket("/ws", subprotocols=["b", "a"])
    def view(ws):
        assert ws.subprotocols == ["a", "b"]
        with pytest.raises(ValueError, match="does not offer"):
            ws.accept("c")
        with pytest.raises(ValueError, match="not allowed in a header"):
            ws.accept(headers={"X-Room": "7\r\nX-Evil: 1"})
        ws.accept(headers={"X-Room": "7"})
        ws.send(ws.subprotocol)

    with serve(app).connect("/ws", subprotocols=["a", "b"]) as client:
        assert (client.subprotocol, client.receive()) == ("b", "b")
        assert client.headers["X-Room"] == "7"


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_handshake_is_refused_with_the_apps_own_response(app, serve, form):
    @app.before_request
    def before():
        return ("not you", 401) if "hook" in request.args else None

    @app.errorhandler(403)
    def forbidden(error):
        return "handled", 403, {"X-Why": "not yours"}

    def answer():
        kind = request.args.get("kind")
        if kind == "stream":
            return iter([b"one ", b"two"]), 409
        if kind == "error":
            raise ZeroDivisionError
        return abort(403)

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            return answer()

    else:

        @app.websocket("/ws")
        async def view(ws):
            return answer()

    live = serve(app)
    for query, status, body in [
        ("?hook", 401, b"not you"),
        ("?kind=stream", 409, b"one two"),
        ("", 403, b"handled"),
        ("/nowhere", 404, b""),
        ("?kind=error", 500, b""),
    ]:
        refused = live.refused(f"/ws{query}")
        assert refused.status == status
        assert body in refused.body
    assert live.refused("/ws").headers["X-Why"] == "not yours"


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 101), ("same", 101), ("http://evil.test", 403), ("null", 403)]
)
def test_pages_of_other_hosts_may_not_connect(app, serve, origin, status):
    @app.websocket("/ws")
    def view(ws):
        ws.send("open")

    live = serve(app)
    host = "localhost" if live.server is None else live.server.address
    options = {"origin": f"http://{host}" if origin == "same" else origin}
    if status == 101:
        with live.connect("/ws", **options) as client:
            assert client.receive() == "open"
    else:
        assert live.refused("/ws", **options).status == status


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("nothing", (1000, "")),
        ("close", (1000, "")),
        ("says", (4001, "as asked")),
        ("long", (4002, "é" * 61)),
        ("invalid", (1011, "")),
        ("error", (1011, "")),
        ("abort", (1008, "")),
    ],
)
def test_how_a_view_ends_the_connection(echo, serve, errors, what, end):
    def go(ws):
        if what == "close":
            return ws.close()
        if what == "says":
            return ws.close(4001, "as asked")
        if what == "long":
            return ws.close(4002, "é" * 80)
        if what == "invalid":
            return ws.close(1005)
        if what == "error":
            raise ZeroDivisionError
        if what == "abort":
            abort(403)
        return None

    @echo.websocket("/sync")
    def sync_view(ws):
        ws.send(ws.receive())
        go(ws)

    @echo.websocket("/async")
    async def async_view(ws):
        await ws.send(await ws.receive())
        ending = go(ws)
        if ending is not None:
            await ending

    @echo.websocket("/functions")
    def functions(ws):
        @ws.on_message
        def answer(message):
            ws.send(message)
            if what == "nothing":
                ws.close()
            go(ws)

    live = serve(echo)
    with live.connect(f"/{echo.form}") as client:
        client.send("first")
        assert client.receive() == "first"
        assert client.receive() == end
    live.stop()
    expected = {"error": [ZeroDivisionError], "invalid": [ValueError]}.get(what, [])
    assert errors.wait(len(expected)) == expected


@pytest.fixture
def learning(app: Flask):
    """Views at `/sync`, `/async` and `/functions` note how their connection ends in `app.notes`."""
    app.notes = Notes()

    @app.websocket("/sync")
    def sync_view(ws):
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
            app.notes.add((error.reason, error.message, ws.connected, ws.close_reason))

    @app.websocket("/async")
    async def async_view(ws):
        assert await ws.receive(timeout=0.01) is None
        await ws.send("ready")
        try:
            while True:
                await ws.receive()
        except ConnectionClosed as error:
            with pytest.raises(ConnectionClosed):
                await ws.send("too late")
            app.notes.add((error.reason, error.message, ws.connected, ws.close_reason))

    @app.websocket("/functions")
    def functions(ws):
        ws.on_message(lambda message: None)

        @ws.on_close
        def end(reason, message):
            with pytest.raises(ConnectionClosed):
                ws.send("too late")
            app.notes.add((reason, message, ws.connected, ws.close_reason))

        ws.send("ready")

    return app


@pytest.mark.parametrize("form", FORMS)
def test_what_a_view_learns_about_the_clients_end(learning, serve, form):
    live = serve(learning)
    with live.connect(f"/{form}") as client:
        assert client.receive() == "ready"
        client.close(4000, "bye")
    # hypercorn does not tell applications what the client has said.
    code, reason = (1006, "") if live.name == "hypercorn" else (4000, "bye")
    assert learning.notes.wait(1) == [(code, reason, False, code)]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_view_learns_when_the_server_stops(learning, serve, form):
    live = serve(learning)
    with live.connect(f"/{form}") as client:
        assert client.receive() == "ready"
        if live.name == "client":
            return
        name = live.name
        if name == "hypercorn" and sys.version_info >= (3, 12):
            pytest.skip("from Python 3.12 on its stop waits for open connections, whatever the application")
        live.stop()
        code = client.receive()[0]
    ((reason, _, _, _),) = learning.notes.wait(1)
    # uvicorn says to both sides that it restarts, and hypercorn drops its connections.
    expected = {"hypercorn": {1001, 1006}, "engine": {1001}, "engine-asgi": {1001}}.get(name, {1012})
    assert {reason, code} <= expected


@pytest.mark.parametrize("form", FORMS[:2])
def test_hooks_run_once_and_see_the_handshakes_request(app, serve, form):
    notes = Notes()
    app.secret_key = "secret"

    @app.before_request
    async def before():
        g.user = request.args.get("user")

    @app.after_request
    def after(response):
        notes.add(("after", response.status_code, g.user))
        return response

    @app.teardown_request
    def teardown(error):
        notes.add(("teardown", error, request.path))

    @app.teardown_appcontext
    def teardown_app(error):
        # Not for the lifespan's context.
        if "user" in g:
            notes.add(("app", error))

    def told():
        return f"{g.user} {session.get('name')} {request.endpoint} {request.scheme} {request.args['user']}"

    if form == "sync":

        @app.websocket("/<room>")
        def view(ws, room):
            ws.send(f"{room} {told()}")

    else:

        @app.websocket("/<room>")
        async def view(ws, room):
            await asyncio.sleep(0)
            await ws.send(f"{room} {told()}")

    cookie = app.session_interface.get_signing_serializer(app).dumps({"name": "ann"})
    with serve(app).connect("/hall?user=bob", headers={"Cookie": f"session={cookie}"}) as client:
        assert client.receive() == "hall bob ann view http bob"
        assert client.receive() == (1000, "")
    assert notes.wait(3) == [("after", 101, "bob"), ("teardown", None, "/hall"), ("app", None)]


def test_functions_have_a_context_for_each_message(app, serve):
    notes = Notes()

    @app.teardown_request
    def teardown(error):
        notes.add(("teardown", type(error).__name__))

    @app.websocket("/<room>")
    def view(ws, room):
        @ws.on_message
        def answer(message):
            assert "seen" not in g
            g.seen = message
            if message == "error":
                raise ZeroDivisionError
            ws.send(f"{room} {message} {request.path}")

        @ws.on_close
        def end(reason, message):
            notes.add((reason, request.path))

    with serve(app).connect("/hall") as client:
        for number in range(100):
            client.send(str(number))
        assert [client.receive() for _ in range(100)] == [f"hall {number} /hall" for number in range(100)]
        client.send("error")
        assert client.receive() == (1011, "")
    ends = [("teardown", "NoneType")] * 101 + [("teardown", "ZeroDivisionError")]
    assert notes.wait(104) == [*ends, (1011, "/hall"), ("teardown", "NoneType")]


def test_threads_of_sync_views_are_bounded(echo, serve):
    echo.config["WEBSOCKET_THREADS"] = 2
    live = serve(echo)
    with live.connect("/echo") as one, live.connect("/echo") as two:
        for client in (one, two):
            client.send("a")
            assert client.receive() == "a"
        if echo.form == "sync":
            refused = live.refused("/echo")
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            assert refused.body == b"too many WebSockets hold a thread"
        else:
            with live.connect("/echo") as three:
                three.send("a")
                assert three.receive() == "a"


@pytest.mark.parametrize("form", FORMS[1:])
def test_connections_without_sync_views_hold_no_thread(app, serve_elsewhere, form):
    @app.websocket("/async")
    async def async_view(ws):
        async for message in ws:
            await ws.send(message)

    @app.websocket("/functions")
    def functions(ws):
        ws.on_message(ws.send)

    live = serve_elsewhere(app)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(live.connect(f"/{form}")) for _ in range(20)]
        for client in clients:
            client.send("a")
        for client in clients:
            assert client.receive() == "a"
        visits = [thread for thread in threading.enumerate() if thread.name == "hipflask-visit"]
        for thread in visits:
            # What is left of the last calls.
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_client_that_takes_nothing_makes_the_view_wait(app, serve_elsewhere, form):
    sent = [0]
    block = bytes(64 * 1024)

    if form == "sync":

        @app.websocket("/ws")
        def view(ws):
            for _ in range(512):
                ws.send(block)
                sent[0] += 1

    else:

        @app.websocket("/ws")
        async def view(ws):
            for _ in range(512):
                await ws.send(block)
                sent[0] += 1

    with serve_elsewhere(app).connect("/ws") as client:
        assert client.receive() == block
        assert sent[0] < 400
        for _ in range(511):
            assert client.receive() == block
        assert client.receive() == (1000, "")


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_view_that_takes_nothing_makes_the_client_wait(app, serve_elsewhere, form):
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

    with serve_elsewhere(app).connect("/ws") as client:

        def give():
            for _ in range(total):
                client.send(block)

        giver = threading.Thread(target=give)
        giver.start()
        giver.join(0.3)
        assert giver.is_alive()
        go.set()
        assert client.receive() == "all"
        giver.join(PATIENCE)


def test_what_is_published_reaches_members(app, serve):
    rooms = Channels()

    @app.websocket("/sync/<room>")
    def sync_view(ws, room):
        ws.join(rooms[room])
        ws.on_message(rooms[room].publish)

    @app.websocket("/async/<room>")
    async def async_view(ws, room):
        ws.join(rooms[room])
        async for message in ws:
            if message == "leave":
                ws.leave(rooms[room])
                await ws.send("left")
            else:
                rooms[room].publish(message)

    live = serve(app)
    with live.connect("/sync/hall") as ann, live.connect("/async/hall") as bob:
        for client in (ann, bob):
            client.send("hello")
            assert [each.receive() for each in (ann, bob)] == ["hello"] * 2
        assert len(rooms["hall"]) == 2
        assert rooms["hall"].publish({"a": 1}) == 2
        assert rooms["hall"].publish(event="nothing for these") == 2
        assert [each.receive() for each in (ann, bob)] == ['{"a": 1}'] * 2
        bob.send("leave")
        assert bob.receive() == "left"
        assert rooms["hall"].publish("alone") == 1
        assert ann.receive() == "alone"


def test_members_that_have_gone_are_forgotten(app, serve_elsewhere):
    rooms = Channels()
    notes = Notes()

    @app.websocket("/<room>")
    def view(ws, room):
        ws.join(rooms[room])
        ws.on_close(lambda reason, message: notes.add(reason))

    live = serve_elsewhere(app)
    with live.connect("/hall"):
        assert rooms["hall"].publish("to one") == 1
    notes.wait(1)
    assert len(rooms["hall"]) == 0
    assert rooms["hall"].publish("to nobody") == 0


def test_middleware_around_the_app_is_passed(echo, serve):
    inner = echo.wsgi_app

    def outer(environ, start_response):
        environ["through"] = "middleware"
        return inner(environ, start_response)

    echo.wsgi_app = outer

    @echo.websocket("/sync")
    def sync_view(ws):
        ws.send(request.environ["through"])

    @echo.websocket("/async")
    async def async_view(ws):
        await ws.send(request.environ["through"])

    live = serve(echo)
    for path in ["/sync", "/async"]:
        with live.connect(path) as client:
            assert client.receive() == "middleware"
    with live.connect("/echo") as client:
        client.send("a")
        assert client.receive() == "a"


# What a server does is written down here: no server.


class Script:
    """A server that gives the events of a list, and then waits."""

    def __init__(self, *events: dict[str, Any], extensions: tuple[str, ...] = ()) -> None:
        self.events = [{"type": "websocket.connect"}, *events]
        self.given = 0
        self.sent: list[dict[str, Any]] = []
        self.has_sent = asyncio.Event()
        self.scope = {
            "type": "websocket",
            "scheme": "wss",
            "path": "/ws",
            "headers": [(b"host", b"localhost")],
            "extensions": dict.fromkeys(extensions, {}),
        }

    async def receive(self) -> dict[str, Any]:
        if self.given == len(self.events):
            await asyncio.Event().wait()
        if self.given:
            # A client is heard once the connection is open.
            while not self.sent:
                self.has_sent.clear()
                await self.has_sent.wait()
        self.given += 1
        return self.events[self.given - 1]

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.has_sent.set()


def play(app: Flask, script: Script) -> list[str]:
    """Let a server play its script; give the types of what the app sends."""
    asyncio.run(asyncio.wait_for(app.asgi_app(script.scope, script.receive, script.send), PATIENCE))
    return [message["type"] for message in script.sent]


@pytest.mark.parametrize("extensions", [(), ("websocket.http.response",)])
def test_without_the_extension_a_refusal_is_a_close(app, extensions):
    @app.websocket("/ws")
    def view(ws):
        return "no", 418

    script = Script(extensions=extensions)
    if extensions:
        expected = ["websocket.http.response.start", "websocket.http.response.body"]
    else:
        expected = ["websocket.close"]
    assert play(app, script) == expected
    assert script.sent[0].get("status", 418) == 418


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ({"code": 4000, "reason": "bye"}, (4000, "bye")),
        ({"code": 1001}, (1001, "")),
        ({"code": None, "reason": None}, (1005, "")),
        ({}, (1005, "")),
    ],
)
def test_what_servers_say_about_the_end(app, event, end):
    ends = []

    @app.websocket("/ws")
    def view(ws):
        assert request.scheme == "https"
        ws.accept()
        try:
            ws.receive()
        except ConnectionClosed as error:
            ends.append((error.reason, error.message))

    assert play(app, Script({"type": "websocket.disconnect", **event})) == ["websocket.accept"]
    assert ends == [end]


@pytest.mark.parametrize(
    ("message", "count"), [("x", 256), (b"x" * 300_000, 4)], ids=["by number", "by bytes"]
)
def test_nothing_is_received_while_the_inbox_is_full(app, message, count):
    key = "text" if isinstance(message, str) else "bytes"
    total = 3 * count
    script = Script(*[{"type": "websocket.receive", key: message}] * total)
    seen = []

    @app.websocket("/ws")
    async def view(ws):
        await ws.accept()
        # All that the loop will do without the view's doing.
        for _ in range(1000):
            await asyncio.sleep(0)
        seen.append(script.given)
        for _ in range(total):
            assert await ws.receive() == message

    assert play(app, script) == ["websocket.accept", "websocket.close"]
    assert seen == [1 + count]


@pytest.mark.parametrize("form", FORMS)
def test_a_task_that_is_cancelled_ends_the_view(learning, form):
    ended = []
    learning.teardown_request(ended.append)

    async def cancel() -> Script:
        script = Script()
        script.scope["path"] = f"/{form}"
        task = asyncio.ensure_future(learning.asgi_app(script.scope, script.receive, script.send))
        while [message.get("text") for message in script.sent][-1:] != ["ready"]:
            script.has_sent.clear()
            await asyncio.wait_for(script.has_sent.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        return script

    script = asyncio.run(cancel())
    assert script.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": "the server stops"}
    assert learning.notes.all == [(1001, "the server stops", False, 1001)]
    assert ended == [None] * (2 if form == "functions" else 1)


def test_an_async_view_that_awaits_something_else_is_cancelled_in_the_end(app, monkeypatch):
    monkeypatch.setattr("hipflask.asgi_websocket._LAST_SECONDS", 0.05)
    ended = []
    app.teardown_request(ended.append)

    @app.websocket("/ws")
    async def view(ws):
        await ws.send("ready")
        await asyncio.Event().wait()

    async def cancel() -> None:
        script = Script()
        task = asyncio.ensure_future(app.asgi_app(script.scope, script.receive, script.send))
        while len(script.sent) < 2:
            script.has_sent.clear()
            await asyncio.wait_for(script.has_sent.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)

    asyncio.run(cancel())
    assert len(ended) == 1
    assert isinstance(ended[0], asyncio.CancelledError)


def test_coroutines_run_on_the_servers_loop_in_the_requests_context(app):
    seen = []

    @app.before_request
    async def before():
        seen.append(asyncio.get_running_loop())

    @app.websocket("/ws")
    async def view(ws):
        seen.append(asyncio.get_running_loop())
        await ws.send(request.path)

    async def outer(scope, receive, send):
        seen.append(asyncio.get_running_loop())
        await inner(scope, receive, send)

    inner, app.asgi_app = app.asgi_app, outer
    script = Script()
    assert play(app, script) == ["websocket.accept", "websocket.send", "websocket.close"]
    assert script.sent[1]["text"] == "/ws"
    assert seen[1:] == [seen[0]] * 2


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("a bug")])
def test_an_error_of_the_server_ends_the_connection(app, caplog, error):
    ends = []

    @app.websocket("/ws")
    def view(ws):
        ws.accept()
        try:
            ws.receive()
        except ConnectionClosed as closed:
            ends.append((closed.reason, closed.message))

    script = Script()

    async def send(message):
        raise error

    script.send = send
    assert play(app, script) == []
    assert ends == [(1006, "")]
    assert [record.exc_info[1] for record in caplog.records] == (
        [error] if type(error) is RuntimeError else []
    )


def test_a_client_that_takes_nothing_for_long_is_cut_off(app, monkeypatch):
    monkeypatch.setattr("hipflask.asgi_connection._SEND_SECONDS", 0.05)
    ends = []

    @app.websocket("/ws")
    def view(ws):
        try:
            while True:
                ws.send(bytes(100_000))
        except ConnectionClosed as closed:
            ends.append(closed.reason)

    script = Script()

    async def send(message):
        await asyncio.Event().wait()

    script.send = send
    play(app, script)
    assert ends == [1006]


def test_a_member_that_lags_behind_is_cut_off(app):
    rooms = Channels(queue=1000)
    ends = []

    @app.websocket("/ws")
    def view(ws):
        ws.join(rooms["hall"])
        assert rooms["hall"].publish("x" * 600) == 1
        assert rooms["hall"].publish("y" * 600) == 0
        try:
            ws.receive()
        except ConnectionClosed as closed:
            ends.append(closed.reason)

    script = Script()

    async def send(message):
        await asyncio.Event().wait()

    script.send = send
    play(app, script)
    assert ends == [1006]
    assert (len(rooms["hall"]), rooms["hall"].dropped) == (0, 1)


def test_a_sync_socket_does_not_stop_the_loop(app):
    """Its functions may be called by a coroutine, which must not wait for its own loop."""

    @app.websocket("/ws")
    def view(ws):
        async def wrong():
            ws.receive()

        with pytest.raises(RuntimeError, match="wait for itself"):
            app.ensure_sync(wrong)()

    assert play(app, Script()) == ["websocket.accept", "websocket.close"]
