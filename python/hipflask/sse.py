"""Server-sent events: a response that goes on, which browsers read with `EventSource`.

`EventStream` sends what a generator or an async generator yields. For events that many clients get at the
same time there is `hipflask.Channel`, which needs no generator.

Implements: HTML Living Standard §9.2.
"""

from __future__ import annotations

from ._core import EventBody, Subscription, encode_event
from .globals import _cv_app, _cv_request, current_app, request
from .wrappers import Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
    from typing import Any

    from .typing import HeadersValue

# Seconds of quiet after which a comment is sent. Proxies end connections that are quiet for 30 to 60 s.
HEARTBEAT = 15.0


class ServerSentEvent:
    """One event.

    Args:
        data: What the client gets as `event.data`: text, or what is to be sent as JSON. None for an event
            without data, which only sets `id` or `retry`.
        event: The event's name, for `addEventListener`; `"message"` if None. It has no line breaks.
        id: What the client says as `Last-Event-ID` when it comes back. It has no line breaks.
        retry: After how many milliseconds the client comes back when the connection ends.
        comment: What clients ignore.

    Raises:
        ValueError: From `encode`, for a name or an id with a line break, or an event of nothing at all.
    """

    __slots__ = ("comment", "data", "event", "id", "retry")

    def __init__(
        self,
        data: Any = None,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comment = comment

    def encode(self) -> bytes:
        """Return the event as it is sent."""
        return encode_event(text_of(self.data), self.event, _id_of(self.id), self.retry, self.comment)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerSentEvent) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        given = (f"{name}={getattr(self, name)!r}" for name in ("data", "event", "id", "retry", "comment"))
        return f"{type(self).__name__}({', '.join(part for part in given if not part.endswith('=None'))})"


class EventStream(Response):
    """A response of server-sent events.

    Args:
        source: A generator or another iterable, also an async one, of `ServerSentEvent`s, or of data: text,
            or what is to be sent as JSON. A sync generator that waits holds a thread meanwhile.
        heartbeat: Seconds of quiet after which the server sends a comment, so that proxies do not end the
            connection, and those who are gone are noticed; None for none. Hipflask's server does so while a
            generator waits; other servers cannot.
        retry: After how many milliseconds clients come back when the connection ends; by default they decide.
        status: The status.
        headers: Further header fields.
    """

    default_mimetype = "text/event-stream"

    def __init__(
        self,
        source: Iterable[Any] | AsyncIterable[Any],
        *,
        heartbeat: float | None = HEARTBEAT,
        retry: int | None = None,
        status: int | str | None = None,
        headers: HeadersValue | None = None,
    ) -> None:
        body: Any
        if isinstance(source, Subscription):
            body = source
        else:
            first = None if retry is None else encode_event(retry=retry)
            pieces: Any
            if hasattr(source, "__aiter__"):
                from .streaming import AsyncPieces

                pieces = AsyncPieces(_encoded_async(source, first))  # type: ignore[arg-type]
            else:
                pieces = _encoded(source, first)
            body = EventBody(pieces, heartbeat)
        super().__init__(body, status, headers, content_type="text/event-stream", direct_passthrough=True)
        # Neither stored by caches nor collected by proxies.
        self.headers.setdefault("Cache-Control", "no-cache")
        self.headers.setdefault("X-Accel-Buffering", "no")


def last_event_id() -> str | None:
    """Return the id of the last event that the client of the current request has got, if it comes back.

    Raises:
        RuntimeError: Outside of a request.
    """
    value = request.headers.get("Last-Event-ID")
    # A header's text stands for bytes; ids are UTF-8.
    return None if value is None else value.encode("latin-1").decode(errors="replace")


def text_of(data: Any) -> str | None:
    """Return data as the text that is sent: text as it is, bytes as UTF-8, all else as JSON."""
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, (bytes, bytearray)):
        return data.decode()
    if _cv_app.bound():
        return current_app.json.dumps(data)
    from .json import dumps

    return dumps(data)


def _id_of(id: str | int | None) -> str | None:
    return id if id is None or isinstance(id, str) else str(id)


def _bytes_of(item: Any) -> bytes:
    return (item if isinstance(item, ServerSentEvent) else ServerSentEvent(item)).encode()


def _encoded(source: Iterable[Any], first: bytes | None) -> Iterator[bytes]:
    try:
        if first is not None:
            yield first
        for item in source:
            if item is not None:
                yield _bytes_of(item)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


async def _encoded_async(source: AsyncIterable[Any], first: bytes | None) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield first
        async for item in source:
            if item is not None:
                yield _bytes_of(item)
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def _is_asked() -> bool:
    return _cv_request.bound()
