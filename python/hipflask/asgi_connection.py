"""A WebSocket on the ASGI server of others, between the server's loop and the view that uses it.

`Handshake` and `Connection` stand for those of `hipflask._core`, which the engine has for its own: they hold
the messages that have come and those that are to be sent. Does not call the app: `hipflask.asgi_websocket`
does.

Implements: ASGI 3.0, WebSocket specification 2.3.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING, Any

from .serving import server_logger
from .websocket import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .asgi_app import Message, Receive, Send
    from .channel import Channel

# What may wait for a view before nothing more is received, as on our own server.
_INBOX_MESSAGES = 256
_INBOX_BYTES = 1 << 20
# Bytes not yet taken by the server from which on sending waits, and down to which it does.
_SEND_HIGH = 256 * 1024
_SEND_LOW = 64 * 1024
# How long the server may take for one message, before the client counts as one that takes nothing.
_SEND_SECONDS = 30.0

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Handshake:
    """A request to open a WebSocket, as `hipflask._core.Handshake` is one."""

    #: The server has judged it.
    refusal = None

    def __init__(self, connection: Connection, protocols: list[str]) -> None:
        self._connection = connection
        self.protocols = protocols

    def accept(
        self,
        protocol: str | None,
        headers: list[tuple[str, str]],
        *,
        max_message_size: int,
        channel: Channel | None = None,
        **of_the_protocol: Any,
    ) -> Connection:
        """Open the WebSocket.

        Args:
            protocol: The subprotocol chosen, one of those offered.
            headers: Further fields of the answer.
            max_message_size: The most bytes of a message from the client.
            channel: Joined before the client knows that the connection is open.
            of_the_protocol: Compression and pings, which are the server's.

        Raises:
            RuntimeError: If the request has been answered.
            ValueError: If a field cannot stand in a response.
        """
        fields = []
        for name, value in headers:
            if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
                raise ValueError(
                    f"header {name!r} with value {value!r} has characters that are not allowed in a header"
                )
            fields.append((name.lower().encode("latin1"), value.encode("latin1")))
        message = {"type": "websocket.accept", "subprotocol": protocol, "headers": fields}
        self._connection.open(message, max_message_size, channel)
        return self._connection

    def refuse(self) -> bool:
        """Note that the app answers by HTTP; give whether it still can."""
        return self._connection.refuse()


class Connection:
    """A WebSocket, as `hipflask._core.Connection` is one, between the loop and whoever uses it.

    Args:
        loop: The server's.
        receive: Gives the server's events.
        send: Takes events; one task of the loop calls it, so that they keep their order.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, send: Send) -> None:
        self._loop = loop
        self._receive = receive
        self._send = send
        self._most = 0
        # Its lock guards all that follows.
        self._changed = Condition()
        self._is_answered = False
        #: Whether the app has opened it.
        self.is_open = False
        #: Whether a close is among what is to be sent.
        self.says_goodbye = False
        #: How it ended, once it has: close code and reason.
        self.over: tuple[int, str] | None = None
        #: The request and the functions that get the messages after the view, if any do.
        self.held: tuple[Any, tuple[Callable[..., Any], ...]] | None = None
        self._inbox: deque[str | bytes] = deque()
        self._inbox_bytes = 0
        self._out: deque[tuple[Message, int]] = deque()
        self._queued = 0
        self._member_most: int | None = None
        self._memberships: list[Membership] = []
        self._received: Callable[[], object] | None = None
        self._sent: list[Callable[[], object]] = []
        self._is_paused = False
        self._resumed = asyncio.Event()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[Any] | None = None
        self._writer: asyncio.Task[Any] | None = None
        self._takes_nothing = False

    # For the loop.

    async def pump(self) -> None:
        """Take what comes, as long as there is room for it."""
        self._pump = asyncio.current_task()
        try:
            while self.over is None:
                message = await self._receive()
                kind = message["type"]
                if kind == "websocket.disconnect":
                    code = message.get("code")
                    self._end(1005 if code is None else code, message.get("reason") or "")
                elif kind == "websocket.receive":
                    data = message.get("text")
                    self._deliver(message["bytes"] if data is None else data)
                    if self._is_paused:
                        await self._resumed.wait()
        except Exception as error:
            _log_of_server(error)
            self._end(1006, "")

    async def write(self) -> None:
        """Send what is to be sent, up to the close."""
        self._writer = asyncio.current_task()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._out:
                    message, size = self._out.popleft()
                    is_last = message["type"] == "websocket.close"
                    if is_last and self._pump is not None:
                        # Some servers cannot close a connection that somebody still waits for.
                        self._pump.cancel()
                        await asyncio.wait((self._pump,))
                    timer = self._loop.call_later(_SEND_SECONDS, self.abort)
                    try:
                        await self._send(message)
                    finally:
                        timer.cancel()
                    self._note_sent(size)
                    if is_last:
                        return
        except asyncio.CancelledError:
            if not self._takes_nothing:
                raise
        except Exception as error:
            _log_of_server(error)
            self._end(1006, "")

    def abort(self) -> None:
        """Cut off a client that does not take what it is sent; on the loop."""
        self._takes_nothing = True
        self._end(1006, "")
        if self._writer is not None:
            self._writer.cancel()

    def _deliver(self, data: str | bytes) -> None:
        size = _size(data)
        if size > self._most:
            self.close(1009, "the message is too long")
            return
        with self._changed:
            if self.over is not None:
                return
            self._inbox.append(data)
            self._inbox_bytes += size
            if len(self._inbox) >= _INBOX_MESSAGES or self._inbox_bytes >= _INBOX_BYTES:
                self._is_paused = True
                self._resumed.clear()
            self._changed.notify_all()
            ring, self._received = self._received, None
        if ring is not None:
            ring()

    def _note_sent(self, size: int) -> None:
        with self._changed:
            self._queued -= size
            if self._queued > _SEND_LOW:
                return
            self._changed.notify_all()
            rings, self._sent = self._sent, []
        for ring in rings:
            ring()

    # For everybody.

    def open(self, message: Message, most: int, channel: Channel | None) -> None:
        """Have the handshake answered."""
        with self._changed:
            if self._is_answered:
                raise RuntimeError("the request has been answered already")
            self._is_answered = self.is_open = True
            self._most = most
            self._out.append((message, 0))
            if channel is not None:
                self.join(channel)
        self._soon(self._wake.set)

    def refuse(self) -> bool:
        """Keep it from being opened; give whether it is not open."""
        with self._changed:
            self._is_answered = True
            return not self.is_open

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Do as the native one."""
        end = None if timeout is None else monotonic() + timeout
        with self._changed:
            while (data := self._pop()) is None:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    return None
                self._wait(left)
            return data

    def poll(self) -> str | bytes | None:
        """Do as the native one."""
        with self._changed:
            return self._pop()

    def when_received(self, call: Callable[[], object]) -> bool:
        """Do as the native one, on any thread."""
        with self._changed:
            if self._inbox or self.over is not None:
                return False
            self._received = call
            return True

    def send(self, data: Any) -> None:
        """Do as the native one."""
        message, size = _message(data)
        with self._changed:
            if self._queued > _SEND_HIGH:
                while self._queued > _SEND_LOW and self.over is None:
                    self._wait(None)
            self._put(message, size)
        self._soon(self._wake.set)

    def send_now(self, data: Any) -> bool:
        """Do as the native one."""
        message, size = _message(data)
        with self._changed:
            if self._queued > _SEND_HIGH and self.over is None:
                return False
            self._put(message, size)
        self._soon(self._wake.set)
        return True

    def when_sent(self, call: Callable[[], object]) -> None:
        """Do as the native one, on any thread."""
        with self._changed:
            if self._queued > _SEND_LOW and self.over is None:
                self._sent.append(call)
                return
        call()

    def close(self, code: int, reason: str) -> None:
        """Do as the native one."""
        if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise ValueError(f"{code} is no close code that may be sent")
        # A close frame has room for so many bytes (RFC 6455, 5.5).
        said = reason.encode()[:123].decode("utf-8", "ignore")
        with self._changed:
            if self.is_open and self.over is None:
                self.says_goodbye = True
                self._out.append(({"type": "websocket.close", "code": code, "reason": said}, 0))
        self._soon(self._wake.set)
        self._end(code, reason)

    def join(self, channel: Channel) -> Membership:
        """Do as the native one."""
        membership = Membership(self, channel)
        with self._changed:
            if self.over is None:
                self._memberships.append(membership)
                most = channel._queue if self._member_most is None else self._member_most
                self._member_most = min(most, channel._queue)
                channel._members[id(membership)] = membership
        return membership

    def forget(self, membership: Membership) -> None:
        """Note that a membership has ended."""
        with self._changed:
            if membership in self._memberships:
                self._memberships.remove(membership)

    def first_membership(self) -> Membership | None:
        """Do as the native one."""
        return self._memberships[0] if self._memberships else None

    def take_event(self, text: str) -> bool:
        """Send what was published on a channel; give False if the client lags behind, and is cut off."""
        size = _size(text)
        with self._changed:
            if self.over is not None:
                return True
            fits = self._queued == 0 or self._queued + size <= (self._member_most or 0)
            if fits:
                self._put({"type": "websocket.send", "text": text}, size)
        self._soon(self._wake.set if fits else self.abort)
        return fits

    def hold(
        self, handshake: Any, request: Any, times: Any, functions: tuple[Callable[..., Any], ...]
    ) -> None:
        """Have functions called with what comes. See the native one; `times` is for the engine alone."""
        self.held = request, functions

    def _pop(self) -> str | bytes | None:
        if self._inbox:
            data = self._inbox.popleft()
            self._inbox_bytes -= _size(data)
            is_low = len(self._inbox) <= _INBOX_MESSAGES // 2 and self._inbox_bytes <= _INBOX_BYTES // 2
            if self._is_paused and is_low:
                self._is_paused = False
                self._soon(self._resumed.set)
            return data
        if self.over is not None:
            raise ConnectionClosed(*self.over)
        return None

    def _put(self, message: Message, size: int) -> None:
        if self.over is not None:
            raise ConnectionClosed(*self.over)
        self._out.append((message, size))
        self._queued += size

    def _wait(self, seconds: float | None) -> None:
        if asyncio._get_running_loop() is self._loop:
            raise RuntimeError("The event loop cannot wait for itself: the view has to be 'async def'.")
        self._changed.wait(seconds)

    def _end(self, code: int, reason: str) -> None:
        """Note how it ended, the first time, and tell everybody who waits."""
        with self._changed:
            if self.over is None:
                self.over = (code, reason)
            self._changed.notify_all()
            rings, self._sent = self._sent, []
            if self._received is not None:
                rings.append(self._received)
                self._received = None
            memberships, self._memberships = self._memberships, []
        self._soon(self._resumed.set)
        for membership in memberships:
            membership.leave()
        for ring in rings:
            ring()

    def _soon(self, function: Callable[[], object]) -> None:
        """Have a function called by the loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)


class Membership:
    """A connection's part in a channel, as `hipflask._core.Membership` is one."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self._connection = connection
        self._channel = channel
        #: Takes what is published; gives False if the client lags behind.
        self.take = connection.take_event

    def leave(self) -> None:
        """Get no further events; the connection stays."""
        self._channel._members.pop(id(self), None)
        self._connection.forget(self)


def _message(data: Any) -> tuple[Message, int]:
    """Make the event that sends a message; give its size, too."""
    if isinstance(data, str):
        return {"type": "websocket.send", "text": data}, _size(data)
    if isinstance(data, bytes | bytearray | memoryview):
        content = bytes(data)
        return {"type": "websocket.send", "bytes": content}, len(content)
    raise TypeError(f"a message is str or bytes, not {type(data).__name__}")


def _size(data: str | bytes) -> int:
    """How many bytes a message has; text as UTF-8."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())


def _log_of_server(error: Exception) -> None:
    """Log what the server has raised, unless that is its way to say that the client has gone."""
    if not isinstance(error, OSError):
        server_logger().error("Exception in the server below", exc_info=error)
