"""The client's end of a WebSocket, for tests of an application.

`FlaskClient.websocket_connect` opens one. The application is served by the engine on a free local port while
connections are open, since only there WebSockets work.
"""

from __future__ import annotations

import socket
import threading
from asyncio import to_thread
from base64 import b64encode
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ._core import Server, WebSocketCodec
from .websocket import ConnectionClosed
from .werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from .app import Flask
    from .werkzeug.wrappers import Request

# Any 16 bytes: the key guards against answers from caches, and there are none.
_KEY = b64encode(bytes(range(16))).decode()
# The servers of applications with open connections, and how many there are.
_servers: WeakKeyDictionary[Flask, tuple[Server, int]] = WeakKeyDictionary()
_lock = threading.Lock()


class WebSocketRefused(Exception):
    """The application did not open the WebSocket.

    Args:
        status_code: The status that it answered with.
        headers: The header fields of its answer.
        data: The body.
    """

    def __init__(self, status_code: int, headers: Headers, data: bytes) -> None:
        super().__init__(f"The WebSocket was refused with {status_code}.")
        self.status_code = status_code
        self.headers = headers
        self.data = data

    @property
    def text(self) -> str:
        """The body as text."""
        return self.data.decode("utf-8", "replace")


class WebSocketTestSession:
    """An open WebSocket of a test. `FlaskClient.websocket_connect` makes it.

    Args:
        app: The application.
        request: What the handshake is made of.
        subprotocols: Those to offer.
        timeout: The most seconds to wait for an answer or a message.
    """

    def __init__(self, app: Flask, request: Request, subprotocols: tuple[str, ...], timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._codec = WebSocketCodec()
        self._messages: deque[str | bytes] = deque()
        self._over: tuple[int, str] | None = None
        self._socket = _connect(app, timeout)
        try:
            rest = self._shake_hands(request, subprotocols)
        except BaseException:
            self._end()
            raise
        self._take(rest)

    def _shake_hands(self, request: Request, subprotocols: tuple[str, ...]) -> bytes:
        fields = [(name, value) for name, value in request.headers if name.lower() != "host"]
        fields += [
            ("Host", request.host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", _KEY),
            ("Sec-WebSocket-Version", "13"),
        ]
        if subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        target = request.full_path.rstrip("?")
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
        self._socket.sendall("\r\n".join(lines).encode("latin1"))
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *others = head.decode("latin1").split("\r\n")
        #: The header fields of the answer to the handshake.
        self.headers = Headers()
        for line in others:
            name, _, value = line.partition(": ")
            self.headers.add(name, value)
        status = int(first.split(" ")[1])
        if status != 101:
            raise WebSocketRefused(status, self.headers, self._rest_of_body(rest))
        return rest

    def _rest_of_body(self, data: bytes) -> bytes:
        """Receive the body of a refusal, of which `data` has come."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            while len(data) < int(self.headers.get("Content-Length", "0")):
                data += self._receive()
            return data
        body = b""
        while True:
            while b"\r\n" not in data:
                data += self._receive()
            line, _, data = data.partition(b"\r\n")
            size = int(line, 16)
            while len(data) < size + 2:
                data += self._receive()
            if not size:
                return body
            body += data[:size]
            data = data[size + 2 :]

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the application chose, or None."""
        return self.headers.get("Sec-WebSocket-Protocol")

    @property
    def close_reason(self) -> int | None:
        """The close code that the application sent, or None."""
        return self._over[0] if self._over is not None else None

    @property
    def close_message(self) -> str | None:
        """What the application said with it, or None."""
        return self._over[1] if self._over is not None else None

    def send(self, data: str | bytes) -> None:
        """Send a message.

        Args:
            data: Text, or bytes for a binary message.

        Raises:
            ConnectionClosed: If the connection is over.
        """
        if self._over is not None:
            raise ConnectionClosed(*self._over)
        frame = self._codec.text(data) if isinstance(data, str) else self._codec.binary(data)
        try:
            self._socket.sendall(frame)
        except OSError as error:
            self._over = (1006, "")
            raise ConnectionClosed(*self._over) from error

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Wait for a message.

        Args:
            timeout: The most seconds to wait; by default those of `websocket_connect`.

        Raises:
            ConnectionClosed: If the connection is over and all messages have been taken.
            TimeoutError: If none came in time.
        """
        deadline = monotonic() + (self._timeout if timeout is None else timeout)
        while not self._messages:
            if self._over is not None:
                raise ConnectionClosed(*self._over)
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError("The application sent no message in time.")
            self._socket.settimeout(left)
            try:
                self._take(self._receive())
            finally:
                self._socket.settimeout(self._timeout)
        return self._messages.popleft()

    def close(self, reason: int = 1000, message: str = "") -> None:
        """Close the connection, and wait for the application's answer.

        Args:
            reason: The close code.
            message: Why.
        """
        if self._over is None:
            try:
                self._socket.sendall(self._codec.close(reason, message))
                while self._over is None:
                    self._take(self._receive())
            except (OSError, ConnectionClosed):
                self._over = self._over or (1006, "")
        self._end()

    def __iter__(self) -> Iterator[str | bytes]:
        """Give messages until the connection is closed."""
        try:
            while True:
                yield self.receive()
        except ConnectionClosed:
            return

    def __enter__(self) -> WebSocketTestSession:
        return self

    def __exit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._over = self._over or (1006, "")
            raise ConnectionClosed(*self._over)
        return data

    def _take(self, data: bytes) -> None:
        for kind, what in self._codec.feed(data):
            if kind == "close":
                code, reason = what
                self._socket.sendall(self._codec.close(code, ""))
                self._over = (1005 if code is None else code, reason)
            elif kind == "ping":
                self._socket.sendall(self._codec.pong(what))
            elif kind != "pong":
                self._messages.append(what)

    def _end(self) -> None:
        if self._socket.fileno() != -1:
            self._socket.close()
            _disconnect(self._app)


class AsyncWebSocketTestSession:
    """The methods of a `WebSocketTestSession`, awaited. `AsyncFlaskClient.websocket_connect` makes it.

    Args:
        session: The connection.
    """

    def __init__(self, session: WebSocketTestSession) -> None:
        #: The connection.
        self.session = session

    async def send(self, data: str | bytes) -> None:
        """Do as `WebSocketTestSession.send`."""
        await to_thread(self.session.send, data)

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """Do as `WebSocketTestSession.receive`."""
        return await to_thread(self.session.receive, timeout)

    async def close(self, reason: int = 1000, message: str = "") -> None:
        """Do as `WebSocketTestSession.close`."""
        await to_thread(self.session.close, reason, message)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Give messages until the connection is closed."""
        try:
            while True:
                yield await self.receive()
        except ConnectionClosed:
            return

    async def __aenter__(self) -> AsyncWebSocketTestSession:
        return self

    async def __aexit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


def _connect(app: Flask, timeout: float) -> socket.socket:
    with _lock:
        server, count = _servers.get(app) or (_serve(app), 0)
        _servers[app] = (server, count + 1)
    host, _, port = server.addresses[0].rpartition(":")
    try:
        return socket.create_connection((host, int(port)), timeout=timeout)
    except BaseException:
        _disconnect(app)
        raise


def _serve(app: Flask) -> Server:
    server = Server(app, ["127.0.0.1:0"])
    server.start()
    return server


def _disconnect(app: Flask) -> None:
    with _lock:
        server, count = _servers.pop(app)
        if count > 1:
            _servers[app] = (server, count - 1)
            return
    # What the last connection has caused is over when the test looks.
    server.stop(5.0, 10.0)
