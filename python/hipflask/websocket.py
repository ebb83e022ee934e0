"""WebSockets in views: sync, as users of flask-sock know them, and awaited.

`@app.websocket("/path")` registers a view that gets a `WebSocket`, or an `AsyncWebSocket` if it is an
`async def` function. The engine does the protocol: it decodes, answers pings, asks for signs of life and
holds the connection. The view takes messages and sends some. The connection opens when the view first uses
it; until then hooks and view may answer with an HTTP error instead.

Implements: RFC 6455 with permessage-deflate (RFC 7692), on Hipflask's own server. On the ASGI servers
of others the protocol is theirs: see `hipflask.asgi_websocket`.
"""

from __future__ import annotations

from functools import update_wrapper

from .globals import current_app, request
from .werkzeug import exceptions
from .werkzeug.exceptions import Forbidden, HTTPException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeAlias, TypeVar

    from ._core import Connection, HandlerTimes, Handshake, Membership
    from .channel import Channel
    from .wrappers import Request

    Data: TypeAlias = str | bytes | bytearray | memoryview
    Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
    F = TypeVar("F", bound=Callable[..., Any])

#: The most bytes of a message from the client, unless `WEBSOCKET_MAX_MESSAGE_SIZE` says otherwise: messages
#: are held in memory. Longer ones end the connection with 1009.
MAX_MESSAGE_SIZE = 1 << 20
#: Seconds between pings (`WEBSOCKET_PING_INTERVAL`): less than the 30 to 60 after which proxies drop a quiet
#: connection.
PING_INTERVAL = 25.0
#: Seconds that a client has to answer a ping (`WEBSOCKET_PING_TIMEOUT`): as long as a phone may take to
#: change its cell.
PING_TIMEOUT = 20.0

#: Close codes that say that a message was wrong: RFC 6455, 7.4.1.
_FAULTS = (1002, 1007, 1009)


class ConnectionClosed(Exception):
    """The connection is over.

    Args:
        reason: The close code: 1000 for a normal end, 1001 when the page was left or the server stops,
            1005 if the client gave none, 1006 if the connection broke.
        message: What the close frame said.
    """

    def __init__(self, reason: int = 1005, message: str = "") -> None:
        super().__init__(f"Connection closed: {reason} {message}".rstrip())
        self.reason = reason
        self.message = message


class Options:
    """What a route says about its WebSockets; None stands for the app's configuration.

    Args:
        subprotocols: Those that the view speaks, the favourite first.
        origins: Pages that may connect, such as `https://example.com`; `"*"` lets all. By default
            `WEBSOCKET_ORIGINS`, else only pages of the same host. Clients that send no `Origin` are no
            browsers, and may always connect.
        max_message_size: The most bytes of a message from the client.
        compression: Whether messages may be compressed.
        ping_interval: Seconds between pings; 0 for none.
        ping_timeout: Seconds that a client has to answer one.
    """

    def __init__(
        self,
        subprotocols: Iterable[str] = (),
        origins: str | Iterable[str] | None = None,
        max_message_size: int | None = None,
        compression: bool | None = None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
    ) -> None:
        self.subprotocols = tuple(subprotocols)
        self.origins = origins
        self.max_message_size = max_message_size
        self.compression = compression
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self._times: HandlerTimes | None = None

    def times(self) -> HandlerTimes:
        """Return what the engine knows about how long the route's handlers take."""
        if self._times is None:
            from ._core import HandlerTimes

            self._times = HandlerTimes()
        return self._times


class _Socket:
    """What both kinds of sockets have in common."""

    def __init__(self, request: Request, options: Options) -> None:
        self._options = options
        self._connection: Connection | None = None
        self._handshake = _handshake(request)
        self._protocol: str | None = None
        _check_origin(request, options)
        offered = self._handshake.protocols
        for name in options.subprotocols:
            if name in offered:
                self._protocol = name
                break
        self._request = request
        self._is_reported = False
        self._memberships: dict[Channel, Membership] = {}

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
        return self._protocol

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, its favourite first."""
        return self._handshake.protocols

    @property
    def accepted(self) -> bool:
        """Whether the connection was opened. Until then the view may answer with an HTTP error."""
        return self._connection is not None

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._connection is not None and self._connection.over is None

    @property
    def close_reason(self) -> int | None:
        """The close code once the connection is over, else None."""
        over = self._connection.over if self._connection is not None else None
        return over[0] if over is not None else None

    @property
    def close_message(self) -> str | None:
        """What was said with the close code, or None."""
        over = self._connection.over if self._connection is not None else None
        return over[1] if over is not None else None

    def _open(
        self, subprotocol: str | None = None, headers: Headers = (), channel: Channel | None = None
    ) -> Connection:
        if self._connection is None:
            config = current_app.config
            options = self._options

            def setting(value: Any, key: str, default: Any) -> Any:
                return config.get(key, default) if value is None else value

            if subprotocol is not None:
                if subprotocol not in self._handshake.protocols:
                    raise ValueError(f"The client does not offer the subprotocol {subprotocol!r}.")
                self._protocol = subprotocol
            items = headers.items() if hasattr(headers, "items") else headers
            self._connection = self._handshake.accept(
                self._protocol,
                list(items),
                max_message_size=setting(
                    options.max_message_size, "WEBSOCKET_MAX_MESSAGE_SIZE", MAX_MESSAGE_SIZE
                ),
                compression=setting(options.compression, "WEBSOCKET_COMPRESSION", True),
                ping_interval=setting(options.ping_interval, "WEBSOCKET_PING_INTERVAL", PING_INTERVAL)
                or None,
                ping_timeout=setting(options.ping_timeout, "WEBSOCKET_PING_TIMEOUT", PING_TIMEOUT),
                channel=channel,
            )
        return self._connection

    def join(self, channel: Channel) -> Membership:
        """Have the data of each event of a channel sent as a text message, without the view's doing.

        A client that does not take them in time is cut off. A sync view may return after this: the engine
        holds the connection, and no thread waits.

        Args:
            channel: A `hipflask.Channel`. One that was joined before is not joined twice.

        Returns:
            What ends it, with its method `leave`, before the connection ends.

        Raises:
            TypeError: If it is no channel.
        """
        from .channel import Channel

        if not isinstance(channel, Channel):
            raise TypeError("Only a hipflask.Channel can be joined.")
        membership = self._memberships.get(channel)
        if membership is None and self._connection is None:
            # The client may rely on it as soon as it knows that the connection is open.
            membership = self._open(channel=channel).first_membership()
        if membership is None:
            membership = self._open().join(channel)
        self._memberships[channel] = membership
        return membership

    def leave(self, channel: Channel) -> None:
        """Undo `join`."""
        membership = self._memberships.pop(channel, None)
        if membership is not None:
            membership.leave()

    def _report(self) -> None:
        """Log a connection that ended since something was wrong with what came, once."""
        over = self._connection.over if self._connection is not None else None
        if over is not None and over[0] in _FAULTS and not self._is_reported:
            from .serving import server_logger

            self._is_reported = True
            server_logger().warning(
                "%s: closed with %d: %s", request.remote_addr, over[0], ascii(over[1])[1:-1]
            )

    def _close(self, reason: int | None, message: str | None) -> None:
        connection = self._open()
        # An end of the app's own making is no fault.
        self._is_reported = self._is_reported or self.connected
        connection.close(1000 if reason is None else reason, message or "")

    def _hold(self) -> bool:
        return False

    def _fail(self, error: BaseException) -> bool:
        """End the connection after an error in the view; give whether that was no error."""
        self._report()
        if self._connection is None:
            return False
        if isinstance(error, ConnectionClosed):
            return True
        refused = isinstance(error, HTTPException) and error.code is not None and error.code < 500
        self._close(1008 if refused else 1011, None)
        return False

    def _end(self, value: Any) -> Any:
        """End the connection after the view, or let the engine hold it; give the response."""
        self._report()
        if self._connection is None and value is not None:
            return value
        if not self._hold():
            self._close(1000, None)
        # Nobody gets it: it is for `after_request` functions and signals.
        return current_app.response_class(status=101)


class WebSocket(_Socket):
    """A WebSocket in a view.

    It opens when first used. A thread waits while the view does; their number is bounded by the
    configuration's `WEBSOCKET_THREADS`. With `on_message` none waits.
    """

    _on_message: Callable[..., Any] | None = None
    _on_close: Callable[..., Any] | None = None

    def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """Open the connection now; without this, it opens with the first message taken or sent.

        Args:
            subprotocol: One of those offered; by default the first of the route's that the client offers.
            headers: Further fields of the answer. Cookies cannot be set later.

        Raises:
            ValueError: If the client does not offer the subprotocol.
        """
        self._open(subprotocol, headers)

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Wait for a message.

        Args:
            timeout: The most seconds to wait; for ever if None.

        Returns:
            Text, or bytes of a binary message; None if none came in time.

        Raises:
            ConnectionClosed: If the connection is over and all messages have been taken.
        """
        return self._open().receive(timeout)

    def send(self, data: Data) -> None:
        """Send a message, waiting while the client takes too little of what was sent before.

        Args:
            data: Text, or bytes for a binary message.

        Raises:
            ConnectionClosed: If the connection is over.
        """
        self._open().send(data)

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the connection.

        Args:
            reason: The close code; 1000 by default.
            message: Why, in at most 123 bytes of UTF-8.
        """
        self._close(reason, message)

    def on_message(self, function: F) -> F:
        """Decorate a function that gets each message, and let the view return: no thread waits then.

        After the view the engine holds the connection and calls the function as it calls views, with the
        request's context, for one message at a time and in order. `send` and `close` work as before, from
        everywhere.

        Raises:
            TypeError: For a coroutine function: an `async def` view holds no thread anyway.
        """
        self._on_message = _plain(function)
        return function

    def on_close(self, function: F) -> F:
        """Decorate a function that gets close code and message after the last message.

        Only a connection that is held for `on_message` calls it.
        """
        self._on_close = _plain(function)
        return function

    def _hold(self) -> bool:
        on_message = self._on_message
        if on_message is None:
            if not self._memberships:
                return False
            # It listens to channels, and what the client says is for nobody.
            on_message = _ignore
        functions = (on_message, self._over, self._handler_failed)
        self._open().hold(self._handshake, self._request, self._options.times(), functions)
        return True

    def _over(self, reason: int, message: str) -> None:
        """Report the end of a connection that was held. Called by the engine."""
        self._report()
        if self._on_close is not None:
            self._on_close(reason, message)

    def _handler_failed(self, error: BaseException) -> None:
        """End the connection after an error in `on_message` or `on_close`. Called by the engine."""
        if self._fail(error) or isinstance(error, HTTPException):
            # What aborts a view is no error of the app's either.
            return
        from . import signals

        app = current_app._get_current_object()  # type: ignore[attr-defined]
        signals.send("got_request_exception", app, exception=error)
        app.log_exception((type(error), error, error.__traceback__))

    def __iter__(self) -> Iterator[str | bytes]:
        """Give messages until the connection is closed."""
        connection = self._open()
        try:
            while True:
                message = connection.receive()
                if message is not None:
                    yield message
        except ConnectionClosed:
            return


class AsyncWebSocket(_Socket):
    """A WebSocket in an `async def` view: the methods of `WebSocket`, awaited. It holds no thread."""

    async def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """Do as `WebSocket.accept`."""
        self._open(subprotocol, headers)

    async def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Do as `WebSocket.receive`."""
        connection = self._open()
        message = connection.poll()
        if message is not None:
            return message
        if timeout is not None:
            import asyncio

            try:
                return await asyncio.wait_for(self.receive(), timeout)
            except asyncio.TimeoutError:
                return None
        while message is None:
            await _told(connection.when_received)
            message = connection.poll()
        return message

    async def send(self, data: Data) -> None:
        """Do as `WebSocket.send`."""
        connection = self._open()
        while not connection.send_now(data):
            await _told(connection.when_sent)

    async def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Do as `WebSocket.close`."""
        self._close(reason, message)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Give messages until the connection is closed."""
        try:
            while True:
                message = await self.receive()
                if message is not None:
                    yield message
        except ConnectionClosed:
            return


async def _told(register: Callable[[Callable[[], None]], bool | None]) -> None:
    """Wait until a function that is given to `register` is called, from the shared loop's thread."""
    import asyncio

    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def settle() -> None:
        if not told.done():
            told.set_result(None)

    def tell() -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            settle()
        elif not loop.is_closed():
            # The app runs its coroutines on a loop of its own.
            loop.call_soon_threadsafe(settle)

    if register(tell) is False:
        return
    await told


def view_of(function: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """Make a view of a function that takes a socket and the values from the URL."""
    from .app import _is_coroutine_function

    if _is_coroutine_function(function):

        async def async_view(**values: Any) -> Any:
            socket = AsyncWebSocket(_request(), options)
            try:
                value = await function(socket, **values)
            except BaseException as error:
                if not socket._fail(error):
                    raise
                value = None
            return socket._end(value)

        return update_wrapper(async_view, function)

    def view(**values: Any) -> Any:
        socket = WebSocket(_request(), options)
        try:
            value = function(socket, **values)
        except BaseException as error:
            if not socket._fail(error):
                raise
            value = None
        return socket._end(value)

    return update_wrapper(view, function)


def _ignore(message: str | bytes) -> None:
    pass


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    from .app import _is_coroutine_function

    if _is_coroutine_function(function):
        raise TypeError("The engine calls plain functions: make the view an 'async def' function instead.")
    return function


def _request() -> Request:
    return request._get_current_object()  # type: ignore[attr-defined,no-any-return]


def _handshake(request: Request) -> Handshake:
    handshake: Handshake | None = request.environ.get("hipflask.websocket")
    if handshake is None:
        raise exceptions.NotImplemented("WebSockets need Hipflask's own server, or an ASGI server.")
    refusal = handshake.refusal
    if refusal is not None:
        from .wrappers import Response

        status, reason, fields = refusal
        error = HTTPException(response=Response(f"{reason}\n", status, list(fields), mimetype="text/plain"))
        error.code = status
        raise error
    return handshake


def _check_origin(request: Request, options: Options) -> None:
    """Refuse pages of other sites: browsers send cookies to a WebSocket whoever opens it."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    allowed = options.origins
    if allowed is None:
        allowed = current_app.config.get("WEBSOCKET_ORIGINS")
    if allowed is None:
        allowed = (request.host_url.rstrip("/"),)
        # The scheme is what the client used, which a proxy in front may have taken off.
        if origin.partition("://")[2].lower() == request.host.lower():
            return
    elif isinstance(allowed, str):
        allowed = (allowed,)
    if "*" not in allowed and origin.lower() not in {name.lower().rstrip("/") for name in allowed}:
        raise Forbidden("Pages of this origin may not open this WebSocket.")
