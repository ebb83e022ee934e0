"""A Flask app as an ASGI application, for servers that are not ours.

`app.asgi_app` is one: `uvicorn module:app.asgi_app`. Each request is answered by `wsgi_app` in a thread of
its own; coroutine functions and async iterators of the app run on the server's loop. The functions of
`before_serving`, `while_serving` and `after_serving` are the lifespan. WebSockets are those of
`hipflask.asgi_websocket`.

Implements: ASGI 3.0, HTTP specification 2.3, lifespan 2.0; the extensions `http.response.early_hint` and
`http.response.trailers` of servers that have them.
"""

from __future__ import annotations

import asyncio
import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .app import Flask
    from .asgi_websocket import WebSockets

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

#: Requests of one app that are answered at the same time, each by a thread; more wait. As many threads as
#: Hipflask's own server has.
THREADS = 32
# Bodies of a known length up to this one are collected, and sent in one message.
_WHOLE_MOST = 65_536


class AsgiApp:
    """A Flask app, called as ASGI says.

    Args:
        app: The app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._room: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._websockets: WebSockets | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live through the lifespan.

        Args:
            scope: What it is.
            receive: Gives events.
            send: Takes events.
        """
        kind = scope["type"]
        if kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            if self._websockets is None:
                from .asgi_websocket import WebSockets

                self._websockets = WebSockets(self._app)
            await self._websockets.serve(self._threads(), scope, receive, send)
        else:
            raise ValueError(f"A scope of type {kind!r} is not known.")

    def _threads(self) -> asyncio.Semaphore:
        """Bounds the threads that the running loop's requests hold."""
        loop = asyncio.get_running_loop()
        if self._room is None or self._room[0] is not loop:
            self._room = loop, asyncio.Semaphore(THREADS)
        return self._room[1]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        from .loop import Visit

        loop = asyncio.get_running_loop()
        body = _Body(loop, receive)
        response = _Response(loop, send, scope["method"] == "HEAD")
        environ = environ_of(scope, io.BufferedReader(body))
        if "http.response.early_hint" in (scope.get("extensions") or ()):
            environ["wsgi.early_hints"] = response.hint
        if scope["method"] != "HEAD" and "http.response.trailers" in (scope.get("extensions") or ()):
            environ["hipflask.send_trailers"] = response.trail
        environ["hipflask.trailers"] = body.trailers
        async with self._threads():
            try:
                await Visit(loop).call(self._run, environ, response)
            except _Gone:
                return
        await response.finish()

    def _run(self, environ: dict[str, Any], response: _Response) -> None:
        """In the thread."""
        pieces: Any = self._app(environ, response.start)
        try:
            for piece in pieces:
                response.give(piece)
            response.end()
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        from .lifespan import Lifespan

        lifespan = Lifespan(self._app)
        for event, act in (("startup", lifespan.start), ("shutdown", lifespan.stop)):
            await receive()
            try:
                await act()
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                await send({"type": f"lifespan.{event}.failed", "message": message})
                return
            await send({"type": f"lifespan.{event}.complete"})


def environ_of(scope: Scope, body: Any) -> dict[str, Any]:
    """Make a WSGI environ of an ASGI scope.

    Field names with underscores are dropped: they could pose as a proxy's.

    Args:
        scope: Of a request.
        body: The request's body, a binary file.
    """
    root, path = scope.get("root_path") or "", scope["path"]
    if root and path.startswith(root):
        path = path[len(root) :]
    host, port = scope.get("server") or ("localhost", None)
    secure = scope.get("scheme") == "https"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": _wsgi(root),
        "PATH_INFO": _wsgi(path),
        "QUERY_STRING": scope["query_string"].decode("latin1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or (443 if secure else 80)),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme") or "http",
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    raw = scope.get("raw_path")
    if raw is not None:
        target = raw.decode("latin1")
        if scope["query_string"]:
            target += f"?{environ['QUERY_STRING']}"
        environ["REQUEST_URI"] = environ["RAW_URI"] = target
    if scope.get("client"):
        environ["REMOTE_ADDR"], port = scope["client"][:2]
        environ["REMOTE_PORT"] = str(port)
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin1"), raw_value.decode("latin1")
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value
    return environ


def _wsgi(text: str) -> str:
    """Text as WSGI has it: each byte of its UTF-8 is one character."""
    return text.encode("utf-8", "surrogateescape").decode("latin1")


class _Gone(OSError):
    """The client has gone: nobody is there to answer."""


class _Body(io.RawIOBase):
    """A request's body, for a thread that is not the loop's to read."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        self._loop = loop
        self._receive = receive
        self._rest = b""
        self._is_read = False
        self._trailers: list[tuple[str, str]] = []

    def trailers(self) -> list[tuple[str, str]]:
        """The fields that followed the body, if it has been read and the server tells: Hipflask's does."""
        return self._trailers if self._is_read and not self._rest else []

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._is_read:
            message = asyncio.run_coroutine_threadsafe(_awaited(self._receive()), self._loop).result()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client has gone before the end of the body")
            self._rest = message.get("body", b"")
            self._is_read = not message.get("more_body", False)
            trailers = message.get("trailers", ())
            self._trailers = [(name.decode("latin1"), value.decode("latin1")) for name, value in trailers]
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class _Response:
    """A response, made by a thread and sent by the loop. `kind` begins the names of its messages."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Send, is_head: bool, kind: str = "http.response"
    ) -> None:
        self._loop = loop
        self._send = send
        self._kind = kind
        self._is_head = is_head
        self._head: Message | None = None
        self._collected: list[bytes] = []
        self._is_whole = False
        #: Whether its head is on its way.
        self.sent = False
        self._trailers: Any = None
        self._fields: list[tuple[bytes, bytes]] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """WSGI's `start_response`."""
        if exc_info is not None and self.sent:
            raise exc_info[1]
        if exc_info is None and self._head is not None:
            raise AssertionError("start_response was called twice without exc_info")
        fields = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers]
        length = next((value for name, value in fields if name == b"content-length"), b"")
        self._is_whole = self._is_head or (length.isdigit() and int(length) <= _WHOLE_MOST)
        self._head = {"type": f"{self._kind}.start", "status": int(status[:3]), "headers": fields}
        return self.give

    def trail(self, trailers: Any) -> None:
        """Take the response's trailers, or what is to be asked for them; in the thread."""
        if self.sent:
            raise RuntimeError("trailers are given before the first piece of the body")
        self._trailers = trailers

    def end(self) -> None:
        """Note that the last piece has been made; in the thread."""
        if self._trailers is not None:
            from ._core import checked_trailers

            self._fields = checked_trailers(self._trailers)

    def hint(self, headers: list[tuple[str, str]]) -> bool:
        """Send 103 (Early Hints), of which ASGI knows links only; in the thread or on the loop."""
        if self._head is not None:
            raise RuntimeError("early hints are sent before the response")
        links = [value.encode("latin1") for name, value in headers if name.lower() == "link"]
        sending = self._send({"type": "http.response.early_hint", "links": links})
        asyncio.run_coroutine_threadsafe(_awaited(sending), self._loop)
        return True

    def give(self, piece: bytes) -> None:
        """Send a piece of the body, waiting as long as the server lets us; in the thread."""
        if self._head is None:
            raise AssertionError("the application did not call start_response")
        if self._is_whole:
            self._collected.append(piece)
        elif piece:
            future = asyncio.run_coroutine_threadsafe(self._send_piece(piece), self._loop)
            try:
                future.result()
            except OSError as error:
                raise _Gone(str(error)) from error

    def collect(self, piece: bytes) -> None:
        """Keep a piece until the end."""
        self._collected.append(piece)

    async def finish(self) -> None:
        """Send what has not been sent."""
        await self._begin()
        await self._send({"type": f"{self._kind}.body", "body": b"".join(self._collected)})
        if self._trailers is not None:
            fields = [(name.lower(), value) for name, value in self._fields]
            await self._send({"type": "http.response.trailers", "headers": fields})

    async def _send_piece(self, piece: bytes) -> None:
        await self._begin()
        await self._send({"type": f"{self._kind}.body", "body": piece, "more_body": True})

    async def _begin(self) -> None:
        if not self.sent:
            if self._head is None:
                raise AssertionError("the application did not call start_response")
            self.sent = True
            if self._trailers is not None:
                self._head["trailers"] = True
            await self._send(self._head)
