"""WebSocket views of a Flask app on the ASGI servers of others.

A view gets the socket that it gets on Hipflask's own server; what the engine does there for it, a
`Handshake` and a `Connection` of `hipflask.asgi_connection` do here. The protocol is the server's: frames,
compression, pings and the time that a handshake may take. A sync view holds a thread, an `async def` view a
task of the server's loop, and a connection whose messages are for functions (`on_message`) a task.

Implements: ASGI 3.0, WebSocket specification 2.3, with the extension `websocket.http.response`.
"""

from __future__ import annotations

import asyncio
import io
import sys
from contextvars import Context, copy_context
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from . import signals
from .app import Flask, _is_coroutine_function
from .asgi_app import _Gone, _Response, environ_of
from .asgi_connection import Connection, Handshake
from .ctx import RequestContext
from .globals import request
from .loop import Visit, _visit
from .serving import server_logger
from .websocket import ConnectionClosed, _told
from .werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable

    from .asgi_app import Receive, Scope, Send

# Threads that sync views of an app may hold, unless `WEBSOCKET_THREADS` says otherwise.
_THREADS = 64
# Messages that a function gets in one go before others have their turn.
_SHARE = 64
# How long a view that awaits something else gets when the server stops.
_LAST_SECONDS = 2.0

# What decides how a request is answered: an app that has its own of one is called as a whole.
_STEPS = (
    "__call__",
    "wsgi_app",
    "full_dispatch_request",
    "dispatch_request",
    "ensure_sync",
    "async_to_sync",
)


class WebSockets:
    """The WebSockets of one app.

    Args:
        app: The app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._threads = Semaphore(app.config.get("WEBSOCKET_THREADS", _THREADS))

    async def serve(self, room: asyncio.Semaphore, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one from its handshake to its end.

        Args:
            room: For what takes a thread for a short time.
            scope: What it is.
            receive: Gives events.
            send: Takes events.
        """
        if (await receive())["type"] != "websocket.connect":
            return
        loop = asyncio.get_running_loop()
        connection = Connection(loop, receive, send)
        visit = _OneWebSocket(self._app, self._threads, room, scope, send, connection)
        # Of these only the server's events are cut off: view and teardown functions are left to their end.
        life = loop.create_task(visit.live())
        pump = loop.create_task(connection.pump())
        try:
            try:
                await asyncio.wait((life,))
            except asyncio.CancelledError:
                connection.close(1001, "the server stops")
                await asyncio.wait((life,), timeout=_LAST_SECONDS)
                visit.cancel()
                await asyncio.wait((life,))
                raise
        finally:
            pump.cancel()
            await asyncio.wait((pump,))
        life.result()


class _OneWebSocket:
    """What happens to one WebSocket, in order."""

    def __init__(
        self,
        app: Flask,
        threads: Semaphore,
        room: asyncio.Semaphore,
        scope: Scope,
        send: Send,
        connection: Connection,
    ) -> None:
        self._app = app
        self._threads = threads
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._handshake = Handshake(connection, list(scope.get("subprotocols") or ()))
        self._environ = _environ_of(scope, self._handshake)
        self._can_respond = "websocket.http.response" in (scope.get("extensions") or ())
        self._send = send
        self._response = _Response(self._loop, send, False, "websocket.http.response")
        self._view: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Cancel an `async def` view, if one runs."""
        if self._view is not None:
            self._view.cancel()

    async def live(self) -> None:
        """Call the app, and give what comes to its functions; say goodbye."""
        connection = self._connection
        writer = self._loop.create_task(connection.write())
        try:
            is_answered = await self._answer()
            if connection.is_open:
                if connection.held is not None:
                    await self._attend(Handler(*connection.held))
                connection.close(1000, "")
                if connection.says_goodbye:
                    await asyncio.wait((writer,))
            elif is_answered:
                await self._refuse()
        finally:
            writer.cancel()
            await asyncio.wait((writer,))

    async def _answer(self) -> bool:
        """Call the app; give whether its response is for the client."""
        try:
            form = _form_of(self._app, self._environ)
            if form == "async":
                await self._step_by_step()
            elif form == "sync":
                if not self._threads.acquire(blocking=False):
                    fields = [("Retry-After", "1"), ("Content-Type", "text/plain; charset=utf-8")]
                    self._response.start("503 Service Unavailable", fields)
                    await self._give(b"too many WebSockets hold a thread")
                    return True
                try:
                    await Visit(self._loop).call(self._whole)
                finally:
                    self._threads.release()
            else:
                async with self._room:
                    await Visit(self._loop).call(self._whole)
        except _Gone:
            return False
        except Exception as error:
            server_logger().error("Exception in the application", exc_info=error)
            self._connection.close(1011, "")
            if self._response.sent:
                return False
            self._response = _Response(self._loop, self._send, False, "websocket.http.response")
            self._response.start("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            await self._give(b"Internal Server Error\n")
        return True

    def _whole(self) -> None:
        """Call the app as WSGI says, in the thread."""
        self._take(self._app(self._environ, self._response.start))

    def _take(self, pieces: Iterable[bytes]) -> None:
        """Send a response's body if it is for the client, in the thread."""
        try:
            if self._handshake.refuse() and self._can_respond:
                for piece in pieces:
                    self._response.give(piece)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    async def _step_by_step(self) -> None:
        """Call the app, with its view as a task of the loop and everything else in threads."""
        visit = Visit(self._loop)
        context = copy_context()
        context.run(_visit.set, visit)
        steps = _steps(self._app, self._environ, self._response.start)
        step: Callable[[], Any] = lambda: next(steps)  # noqa: E731

        def go() -> tuple[bool, Any]:
            try:
                return False, step()
            except StopIteration as end:
                self._take(end.value)
                return True, None

        while True:
            async with self._room:
                is_over, value = await visit.call(context.run, go)
            if is_over:
                return
            self._view = _task_in(context, self._loop, value)
            try:
                given = await self._view
            except BaseException as error:
                step = _raising(steps, error)
            else:
                step = _sending(steps, given)
            finally:
                self._view = None

    async def _attend(self, handler: Handler) -> None:
        """Give messages to the functions of a connection that has some, up to its end."""
        connection = self._connection
        while True:
            await _told(connection.when_received)
            async with self._room:
                if await Visit(self._loop).call(handler.take, self._app, connection):
                    return

    async def _refuse(self) -> None:
        """Answer the handshake with the app's response."""
        try:
            if self._can_respond:
                await self._response.finish()
            else:
                await self._send({"type": "websocket.close", "code": 1000})
        except OSError:
            return

    async def _give(self, body: bytes) -> None:
        if self._handshake.refuse():
            self._response.collect(body)


class Handler:
    """Functions that get what comes, each time in a context for the handshake's request.

    Args:
        request: The handshake's.
        functions: For messages, for the end, for errors of these two.
    """

    def __init__(self, request: Any, functions: tuple[Callable[..., Any], ...]) -> None:
        self._request = request
        self._on_message, self._on_close, self._on_error = functions

    def take(self, app: Flask, connection: Connection) -> bool:
        """Hand over some messages, in the thread; give whether the end was among them."""
        for _ in range(_SHARE):
            try:
                message = connection.poll()
            except ConnectionClosed as closed:
                self._call(app, self._on_close, closed.reason, closed.message)
                return True
            if message is None:
                return False
            self._call(app, self._on_message, message)
        return False

    def _call(self, app: Flask, function: Callable[..., Any], *args: Any) -> None:
        try:
            context = RequestContext(app, self._request.environ, self._request)
            error: BaseException | None = None
            try:
                context.push()
                function(*args)
            except Exception as caught:
                error = caught
                self._on_error(caught)
            finally:
                context.pop(error)
        except Exception as error:
            server_logger().error("Exception while a WebSocket's message was handled", exc_info=error)


def _environ_of(scope: Scope, handshake: Handshake) -> dict[str, Any]:
    """Make the WSGI environ of a handshake."""
    schemes = {"ws": "http", "wss": "https"}
    http = {
        "query_string": b"",
        "http_version": "1.1",
        **scope,
        "method": "GET",
        "scheme": schemes.get(scope.get("scheme") or "ws", "http"),
    }
    environ = environ_of(http, io.BytesIO())
    # What routing looks for, and what HTTP/2 has another name for.
    environ["HTTP_CONNECTION"] = "Upgrade"
    environ["HTTP_UPGRADE"] = "websocket"
    environ["hipflask.websocket"] = handshake
    return environ


def _form_of(app: Flask, environ: dict[str, Any]) -> str | None:
    """Tell how a handshake's view is to be called: `sync`, `async`; None if it has none."""
    for name in _STEPS:
        if name in app.__dict__ or getattr(type(app), name) is not getattr(Flask, name):
            # What it does with a coroutine is its own matter.
            return "sync"
    try:
        rule = app.create_url_adapter(app.request_class(environ)).match(return_rule=True)[0]  # type: ignore[union-attr]
    except HTTPException:
        return None
    except Exception:
        # A converter wants to know more of the request, which it will.
        return "sync"
    return "async" if _is_coroutine_function(app.view_functions.get(rule.endpoint)) else "sync"


def _steps(
    app: Flask, environ: dict[str, Any], start_response: Any
) -> Generator[Coroutine[Any, Any, Any], Any, Iterable[bytes]]:
    """Do as `Flask.wsgi_app`, giving away the coroutine of the view, whose result or error comes back."""
    context = app.request_context(environ)
    error: BaseException | None = None
    try:
        try:
            context.push()
            response = yield from _dispatch(app)
        except Exception as caught:
            error = caught
            response = app.handle_exception(caught)
        except BaseException as caught:
            error = caught
            raise
        if context._after_response_functions or app.after_response_funcs:
            from .background import _schedule

            _schedule(app, context, response, environ)
        return response(environ, start_response)  # type: ignore[no-any-return]
    finally:
        if error is not None and app.should_ignore_error(error):
            error = None
        context.pop(error)


def _dispatch(app: Flask) -> Generator[Coroutine[Any, Any, Any], Any, Any]:
    """Do as `Flask.full_dispatch_request`."""
    app._got_first_request = True
    try:
        signals.send("request_started", app)
        value = app.preprocess_request()
        if value is None:
            rule = request.url_rule
            view = app.view_functions.get(rule.endpoint) if rule is not None else None
            if request.routing_exception is None and _is_coroutine_function(view):
                value = yield view(**request.view_args)  # type: ignore[misc, arg-type]
            else:
                value = app.dispatch_request()
    except Exception as error:
        value = app.handle_user_exception(error)
    return app.finalize_request(value)


def _sending(steps: Generator[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: steps.send(value)


def _raising(steps: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def _task_in(
    context: Context, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]
) -> asyncio.Task[Any]:
    """Start a task in a context; before Python 3.11, in a copy of it."""
    if sys.version_info >= (3, 11):
        return loop.create_task(coroutine, context=context)
    return context.run(loop.create_task, coroutine)
