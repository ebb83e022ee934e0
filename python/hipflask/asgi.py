"""Serve ASGI applications (Starlette, FastAPI, Django, ...) on Hipflask's engine.

Their coroutines run on the process's one event loop; the engine reads requests, sends responses and holds
connections, so that no thread waits for a client. Does not make a Flask app an ASGI application:
`hipflask.asgi_app` does.

Implements: ASGI 3.0: HTTP and WebSocket specification 2.3, lifespan 2.0, the extensions
`http.response.pathsend`, `http.response.early_hint`, `http.response.trailers` and
`websocket.http.response`. ASGI has no trailers of requests: those who look find them as `trailers` in the
last `http.request` message, if the scope has the extension `hipflask.request.trailers`. As since 2.4, `send`
raises `OSError` when the client has gone, so that nobody goes on sending for ever.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .later import _eager_starter
from .loop import shared
from .serving import server_logger
from .streaming import _below, _readable
from .websocket import MAX_MESSAGE_SIZE, PING_INTERVAL, PING_TIMEOUT, ConnectionClosed, _told
from .werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import TypeAlias

    from ._core import AsgiExchange, Connection, Feed, LaterLine

    Message: TypeAlias = MutableMapping[str, Any]
    Application: TypeAlias = Callable[
        [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
        Awaitable[None],
    ]

# The longest piece of a request's body in one message.
_PIECE = 65_536
# `send` waits while more bytes than these wait for the client.
_WAITING_MOST = 65_536
# How long a response that broke waits for the client to take what came before.
_BREAK_SECONDS = 5.0
# How long the application gets to end once its requests have been cut off.
_LAST_SECONDS = 2.0
# How long a task whose request was late has between `http.disconnect` and being cancelled.
_LATE_SECONDS = 1.0
_VERSIONS = {"version": "3.0", "spec_version": "2.3"}
_LIFESPAN_VERSIONS = {"version": "3.0", "spec_version": "2.0"}


class LifespanError(RuntimeError):
    """The application has said that it cannot begin, or end, as it should."""


class Host:
    """An ASGI application as `hipflask._core.Server` takes it.

    Args:
        app: The application.
        lifespan: Whether the application gets lifespan events: `auto` if it wants them, `on` if it must,
            `off`.
        root_path: Where the application is mounted, without a slash at the end.
    """

    def __init__(self, app: Application, lifespan: str = "auto", root_path: str = "") -> None:
        self.app = app
        self.root_path = root_path
        #: What the application has left in its lifespan's `state`; None if it has no lifespan.
        self.state: dict[str, Any] | None = None
        self._mode = lifespan
        self._lifespan: _Lifespan | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Run the application's startup. Called when a server starts.

        Raises:
            LifespanError: If it fails.
        """
        if self._mode == "off":
            return
        lifespan = _Lifespan(self.app, must=self._mode == "on")
        error = shared().run(lifespan.start, (), {})
        if error is not None:
            raise error
        self._lifespan = lifespan
        self.state = lifespan.state if lifespan.is_wanted else None

    def end(self, most: float | None) -> None:
        """Wait for requests that still run, cancel those that take too long, run the application's shutdown.

        Args:
            most: Seconds that requests get.
        """
        if not shared().loop.is_closed():
            shared().run(self._end, (most,), {})

    async def _end(self, most: float | None) -> None:
        for wait in (most, _LAST_SECONDS):
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=wait)
            for task in self._tasks:
                task.cancel()
        if self._lifespan is not None:
            error = await self._lifespan.stop()
            self._lifespan = None
            if error is not None:
                server_logger().error("The application could not end in good order: %s", error)

    def attend(self, loop: asyncio.AbstractEventLoop, line: LaterLine) -> Requests:
        """Return what takes the requests of a server on a loop."""
        return Requests(loop, line, self)

    def scope(self, exchange: AsgiExchange) -> dict[str, Any]:
        """Make a request's scope."""
        scope: dict[str, Any] = {"asgi": _VERSIONS.copy()}
        exchange.describe(scope, self.root_path)
        if self.state is not None:
            scope["state"] = self.state.copy()
        return scope


class Requests:
    """The requests of one server that are under way.

    Args:
        loop: The loop, running.
        line: Where the engine leaves them.
        host: Of the application.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, line: LaterLine, host: Host) -> None:
        self._loop = loop
        self._line = line
        self._host = host
        self._open: dict[int, _Http | _Socket] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._start = _eager_starter(loop)
        line.hand_in_by(lambda: loop.call_soon(line.hand_in))

    def take(self) -> None:
        """Begin what waits."""
        # None can be answered without its task.
        self._line.take(_none, self._begin, self._gone)

    def _begin(self, exchange: Any) -> None:
        request = (_Socket if exchange.is_websocket else _Http)(exchange, self._host)
        token = exchange.token
        self._open[token] = request
        task = self._start(request.run())
        if task.done():
            self._end(token, request)
            return
        self._host._tasks.add(task)
        self._tasks[token] = task

        def end(task: asyncio.Task[None]) -> None:
            self._host._tasks.discard(task)
            self._end(token, request)

        task.add_done_callback(end)

    def _end(self, token: int, request: _Http | _Socket) -> None:
        # The next request of the same connection may have come already.
        if self._open.get(token) is request:
            del self._open[token]
            self._tasks.pop(token, None)

    def task_of(self, token: int) -> asyncio.Task[None] | None:
        """The task that answers a request, if it has had to wait."""
        return self._tasks.get(token)

    def note_late(self, token: int) -> None:
        """Note that a request has been answered by its deadline, before that is told as its client's leaving.

        Called by the thread that has written down where the task is.
        """
        request = self._open.get(token)
        if request is not None:
            request.is_late = True

    def _gone(self, token: int) -> None:
        request = self._open.get(token)
        if request is None:
            return
        request.leave()
        task = self._tasks.get(token)
        if request.is_late and task is not None:
            # It hears of it first, as it does of clients that leave, and may end by itself.
            timer = self._loop.call_later(_LATE_SECONDS, task.cancel)
            task.add_done_callback(lambda task: timer.cancel())


class _Response:
    """The messages that make a response, for a request or in the place of a WebSocket."""

    def __init__(self, exchange: AsgiExchange) -> None:
        self._exchange = exchange
        self._feed: Feed | None = None
        #: The response has no body, whatever the application gives.
        self._mute = False
        #: The application has said that trailers come, and the fields that have come.
        self._announced = False
        self._trailers: list[Any] = []
        # Only they are missing.
        self._body_ended = False
        self.started = False
        self.complete = False
        #: Nothing can be sent any more.
        self.gone = False
        #: The response is out, or the client has left.
        self.over = asyncio.Event()

    def start(self, message: Message) -> None:
        if self.started:
            raise RuntimeError("The response has been started already.")
        self._exchange.start(message["status"], message.get("headers", ()))
        self._announced = bool(message.get("trailers", False))
        self.started = True

    async def body(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        self._check()
        if self._body_ended:
            raise RuntimeError("The response's body is complete: what comes now are its trailers.")
        feed = self._feed
        if feed is None:
            if not more and not self._announced:
                self._exchange.finish(body)
                self._finish()
                return
            trailed = self._announced and self._exchange.takes_trailers
            feed = self._feed = self._exchange.stream(trailed)
            self._mute = not feed.is_open
            if not self._mute:
                feed.on_end(shared().bell, self._ended)
        if len(body) and not self._mute:
            piece = bytes(body) if isinstance(body, memoryview) else body
            while not feed.send(piece):
                await _below(feed, 0)
            if feed.queued > _WAITING_MOST:
                await _below(feed, _WAITING_MOST)
        if not more:
            if self._announced:
                self._body_ended = True
            else:
                self._end(feed)

    def trailers(self, message: Message) -> None:
        if self.started and not self._announced:
            raise RuntimeError("The response has no trailers: 'http.response.start' has not said so.")
        self._check()
        if self._feed is None or not self._body_ended:
            raise RuntimeError("Trailers come behind the whole body.")
        self._trailers.extend(message.get("headers", ()))
        if not message.get("more_trailers", False):
            self._end(self._feed)

    def _end(self, feed: Feed) -> None:
        feed.finish(self._trailers)
        self.complete = True
        if self._mute:
            self.over.set()

    def file(self, message: Message) -> None:
        self._check()
        if self._feed is not None:
            raise RuntimeError("The response has a body already.")
        self._exchange.finish_with_file(message["path"])
        self._finish()

    async def fail(self) -> None:
        """Answer with a 500, or break what was begun."""
        if self._feed is None:
            self._exchange.fail()
        elif not self.complete:
            # The client sees the break behind what it was to get.
            with suppress(asyncio.CancelledError, asyncio.TimeoutError):
                await asyncio.wait_for(_below(self._feed, 0), _BREAK_SECONDS)
            self._feed.abort()
        self._finish()

    def leave(self) -> None:
        """Note that the client has gone."""
        if not self.complete:
            self.gone = True
        self.over.set()

    def _check(self) -> None:
        if self.gone:
            raise ConnectionResetError("the client has gone")
        if not self.started:
            raise RuntimeError("The response has not been started: 'http.response.start' comes first.")
        if self.complete:
            raise RuntimeError("The response is complete already.")

    def _finish(self) -> None:
        self.complete = True
        self.over.set()

    def _ended(self, complete: bool) -> None:
        if not complete:
            self.gone = True
        self.over.set()


class _Http:
    """One HTTP request."""

    #: It was answered by its deadline.
    is_late = False

    def __init__(self, exchange: AsgiExchange, host: Host) -> None:
        self._exchange = exchange
        self._host = host
        self._response = _Response(exchange)
        self._body = exchange.body()
        self._is_read = False
        # What the body is refused with, if it is.
        self._fault: HTTPException | None = None

    def leave(self) -> None:
        """Note that the client has gone."""
        self._response.leave()

    async def run(self) -> None:
        """Call the application."""
        response = self._response
        try:
            scope = self._host.scope(self._exchange)
            scope["extensions"] = {"http.response.pathsend": {}}
            if self._exchange.takes_trailers:
                scope["extensions"]["http.response.trailers"] = {}
            if self._body is not None:
                scope["extensions"]["hipflask.request.trailers"] = {}
            if self._exchange.informs:
                scope["extensions"]["http.response.early_hint"] = {}
            await self._host.app(scope, self.receive, self.send)
        except BaseException as error:
            if not (response.gone and _is_of_client(error)) and self._fault is None:
                _log("Exception in the application", error)
            await self._fail()
            return
        if not response.complete and not response.gone:
            if self._fault is None:
                what = "no complete response" if response.started else "no response"
                server_logger().error("The application has returned and sent %s.", what)
            await self._fail()
        elif not response.complete:
            await response.fail()

    async def _fail(self) -> None:
        fault, response = self._fault, self._response
        if fault is not None and not response.started and not response.gone:
            fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            response.start({"status": fault.code, "headers": fields})
            await response.body({"body": f"{fault.name}\n".encode()})
        else:
            await response.fail()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        if not self._is_read:
            if self._body is None:
                self._is_read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            try:
                while (awaited := self._body.pull(_PIECE)) is not None:
                    await _readable(*awaited)
                piece = self._body.pulled(_PIECE)
            except HTTPException as error:
                self._fault = error
                self._is_read = True
                return {"type": "http.disconnect"}
            self._is_read = not piece or self._body.is_over
            message: Message = {"type": "http.request", "body": piece, "more_body": not self._is_read}
            if self._is_read and (trailers := self._body.trailers()):
                message["trailers"] = [
                    (name.lower().encode("latin1"), value.encode("latin1")) for name, value in trailers
                ]
            return message
        if self._fault is None:
            await self._response.over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        kind = message["type"]
        if kind == "http.response.start":
            self._response.start(message)
        elif kind == "http.response.body":
            await self._response.body(message)
        elif kind == "http.response.trailers":
            self._response.trailers(message)
        elif kind == "http.response.pathsend":
            self._response.file(message)
        elif kind == "http.response.early_hint":
            if self._response.started:
                raise RuntimeError("Early hints are sent before the response.")
            self._exchange.hint(message["links"])
        else:
            raise ValueError(f"A message of type {kind!r} is not expected here.")


class _Socket:
    """One WebSocket."""

    #: Its handshake was answered by its deadline.
    is_late = False

    def __init__(self, exchange: AsgiExchange, host: Host) -> None:
        self._exchange = exchange
        self._host = host
        self._handshake = exchange.handshake()
        self._response = _Response(exchange)
        self._connection: Connection | None = None
        self._has_connected = False
        # The handshake has been answered, in whatever way, or the client has left.
        self._settled = asyncio.Event()

    def leave(self) -> None:
        """Note that the client has gone."""
        self._response.leave()
        self._settled.set()

    async def run(self) -> None:
        """Call the application."""
        refusal = self._handshake.refusal
        if refusal is not None:
            status, reason, fields = refusal
            headers = [(name.encode("latin1"), value.encode("latin1")) for name, value in fields]
            await self._refuse(status, [*headers, (b"content-type", b"text/plain; charset=utf-8")], reason)
            return
        try:
            scope = self._host.scope(self._exchange)
            scope["subprotocols"] = self._handshake.protocols
            scope["extensions"] = {"websocket.http.response": {}}
            await self._host.app(scope, self.receive, self.send)
        except BaseException as error:
            is_gone = self._response.gone or (self._connection is not None and self._connection.over)
            if not (is_gone and _is_of_client(error)):
                _log("Exception in the application", error)
            await self._end(1011)
            return
        if self._connection is None and not self._response.complete and not self._response.gone:
            server_logger().error("The application has returned and not answered the handshake.")
        await self._end(1000)

    async def _end(self, code: int) -> None:
        if self._connection is None:
            await self._response.fail()
        elif self._connection.over is None:
            self._connection.close(code, "")

    async def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], reason: str) -> None:
        self._response.start({"status": status, "headers": headers})
        await self._response.body({"body": reason.encode()})
        self._settled.set()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        if not self._has_connected:
            self._has_connected = True
            return {"type": "websocket.connect"}
        if self._connection is None:
            await self._settled.wait()
        connection = self._connection
        if connection is None:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        try:
            while (message := connection.poll()) is None:
                await _told(connection.when_received)
        except ConnectionClosed as closed:
            return {"type": "websocket.disconnect", "code": closed.reason, "reason": closed.message}
        key = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", key: message}

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        kind = message["type"]
        connection = self._connection
        if connection is None:
            await self._answer(kind, message)
        elif kind == "websocket.send":
            data = message.get("bytes")
            if data is None:
                data = message["text"]
            try:
                while not connection.send_now(data):
                    await _told(connection.when_sent)
            except ConnectionClosed as closed:
                raise ConnectionResetError("the connection is over") from closed
        elif kind == "websocket.close":
            if connection.over is None:
                connection.close(message.get("code") or 1000, message.get("reason") or "")
        else:
            raise ValueError(f"A message of type {kind!r} is not expected on an open connection.")

    async def _answer(self, kind: str, message: Message) -> None:
        """Take a message that answers the handshake."""
        if self._response.gone:
            raise ConnectionResetError("the client has gone")
        if kind == "websocket.http.response.start":
            self._response.start(message)
        elif kind == "websocket.http.response.body":
            await self._response.body(message)
            if self._response.complete:
                self._settled.set()
        elif self._response.started:
            raise RuntimeError("The handshake has been refused already.")
        elif kind == "websocket.accept":
            protocol = message.get("subprotocol")
            if protocol is not None and protocol not in self._handshake.protocols:
                raise ValueError(f"The client does not offer the subprotocol {protocol!r}.")
            headers = [
                (bytes(name).decode("latin1"), bytes(value).decode("latin1"))
                for name, value in message.get("headers") or ()
            ]
            self._connection = self._handshake.accept(
                protocol,
                headers,
                max_message_size=MAX_MESSAGE_SIZE,
                compression=True,
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_TIMEOUT,
            )
            self._settled.set()
        elif kind == "websocket.close":
            await self._refuse(403, [(b"content-type", b"text/plain; charset=utf-8")], "Forbidden")
        else:
            raise ValueError(f"A message of type {kind!r} is not expected before the connection is accepted.")


class _Lifespan:
    """The task in which an application lives through startup and shutdown."""

    def __init__(self, app: Application, must: bool) -> None:
        self._app = app
        self._must = must
        self.state: dict[str, Any] = {}
        self.is_wanted = False

    async def start(self) -> Exception | None:
        """Give the error with which the application refuses to start."""
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[Exception | None] = loop.create_future()
        self._ended: asyncio.Future[Exception | None] = loop.create_future()
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._live())
        return await self._begun

    async def stop(self) -> Exception | None:
        """Give the error with which the application ends, if it does with one."""
        if not self.is_wanted:
            return None
        self._events.put_nowait({"type": "lifespan.shutdown"})
        error = await self._ended
        if not self._task.done():
            await asyncio.wait((self._task,), timeout=_LAST_SECONDS)
        return error

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": _LIFESPAN_VERSIONS.copy(), "state": self.state}
        error: BaseException | None = None
        try:
            await self._app(scope, self._events.get, self._send)
        except BaseException as caught:
            error = caught
        if not self._begun.done():
            if self._must:
                why = f"it has no lifespan ({error!r})" if error is not None else "it has no lifespan"
                self._begun.set_result(LifespanError(why))
            else:
                if error is not None:
                    server_logger().info("The application takes no lifespan events (%r).", error)
                self._begun.set_result(None)
        if not self._ended.done():
            self._ended.set_result(error if isinstance(error, Exception) else None)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        future = self._begun if kind.startswith("lifespan.startup.") else self._ended
        if future.done():
            raise RuntimeError(f"A message of type {kind!r} is not expected here.")
        if kind == "lifespan.startup.complete":
            self.is_wanted = True
            future.set_result(None)
        elif kind == "lifespan.shutdown.complete":
            future.set_result(None)
        elif kind in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            future.set_result(LifespanError(message.get("message") or "it gives no reason"))
        else:
            raise ValueError(f"A message of type {kind!r} is not expected in a lifespan.")


def is_asgi(app: Any) -> bool:
    """Tell whether an application speaks ASGI rather than WSGI.

    It does if it is a coroutine function, or an object whose `__call__` is one, or takes three arguments.
    Flask apps are served as such, natively.
    """
    import inspect

    from .app import Flask

    if isinstance(app, Flask) or inspect.isclass(app):
        return False
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        return True
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return len(needed) == 3


def _none(exchanges: object) -> None:
    pass


def _is_of_client(error: BaseException | None) -> bool:
    """Whether an error comes of the client's having gone."""
    seen = 0
    while error is not None and seen < 16:
        if isinstance(error, OSError | asyncio.CancelledError):
            return True
        error = error.__cause__ or error.__context__
        seen += 1
    return False


def _log(what: str, error: BaseException) -> None:
    if not isinstance(error, asyncio.CancelledError):
        server_logger().error(what, exc_info=error)
