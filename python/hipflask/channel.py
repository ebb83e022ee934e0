"""Channels: publish once, and every subscriber gets it.

Subscribers are clients that read server-sent events or have a WebSocket. The engine holds their connections:
ten thousand of them need neither threads nor tasks. A channel is of one process.
"""

from __future__ import annotations

from threading import Lock
from weakref import WeakValueDictionary

from ._core import ChannelCore, Subscription, encode_event
from .sse import HEARTBEAT, EventStream, _id_of, _is_asked, last_event_id, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._core import Membership
    from .asgi_connection import Membership as MemberElsewhere
    from .websocket import AsyncWebSocket, WebSocket

# Bytes that may wait for a slow subscriber before it is cut off: some hundred events of a chat.
QUEUE = 64 * 1024
# Seconds after which `Channels` forgets a channel that nobody uses: time for somebody to come back.
IDLE = 300.0
# So many new channels are made between two looks for forgotten ones, at least.
_LOOK_AFTER = 64

# Stands for "what the request says".
_FROM_REQUEST: Any = object()


class Channel:
    """Something to publish on and to subscribe to.

    `publish` may be called from anywhere: sync and async views, threads, background tasks. It does not wait
    for subscribers. One that does not take its events in time is cut off, so that it comes back and is given
    what it has missed.

    Args:
        name: For `repr`.
        history: How many events are kept for subscribers that come back (`Last-Event-ID`). With it events get
            ids.
        queue: How many bytes may wait for a subscriber before it is cut off; 64 KiB.
        heartbeat: Seconds of quiet after which subscribers get a comment; None for none.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        history: int = 0,
        queue: int = QUEUE,
        heartbeat: float | None = HEARTBEAT,
    ) -> None:
        self.name = name
        self.heartbeat = heartbeat
        self._core = ChannelCore(history, queue)
        self._queue = queue
        # WebSockets that servers of others hold, and how many of them were cut off.
        self._members: dict[int, MemberElsewhere] = {}
        self._lagged = 0

    def publish(self, data: Any = None, event: str | None = None, id: str | int | None = None) -> int:
        """Give an event to all subscribers, and return at once.

        Args:
            data: Text, or what is to be sent as JSON. WebSockets get this alone.
            event: The event's name.
            id: The event's id. With a history there is one by default.

        Returns:
            How many subscribers it was given to.

        Raises:
            ValueError: For a name or an id with a line break, or an event of nothing at all.
        """
        text = text_of(data)
        reached = self._core.publish(text, event, _id_of(id))
        if self._members:
            reached += self._tell(text)
        return reached

    def _tell(self, text: str | None) -> int:
        """Give data to the WebSockets that servers of others hold; give how many took it."""
        reached = 0
        for member in tuple(self._members.values()):
            # An event without data is nothing to a WebSocket.
            if text is None or member.take(text):
                reached += 1
            else:
                self._lagged += 1
        return reached

    def stream(
        self,
        *,
        last_event_id: str | None = _FROM_REQUEST,
        replay: int = 0,
        retry: int | None = None,
        status: int | str | None = None,
        headers: Any = None,
    ) -> EventStream:
        """Make the response that subscribes the client, for a view to return.

        Args:
            last_event_id: What the client has got already; by default what the request says. It gets what
                is kept of the events after that one, or all that is kept if that one is not.
            replay: How many of the kept events a client gets that comes for the first time.
            retry: After how many milliseconds clients come back when the connection ends.
            status: The status.
            headers: Further header fields.
        """
        return EventStream(
            self.subscribe(last_event_id=last_event_id, replay=replay, retry=retry),
            status=status,
            headers=headers,
        )

    def subscribe(
        self, *, last_event_id: str | None = _FROM_REQUEST, replay: int = 0, retry: int | None = None
    ) -> Subscription:
        """Subscribe in this process: an iterator of events as they are sent, as bytes.

        It waits for each event, and gives a comment after each `heartbeat` seconds without one. It gets what
        is published from now on; `close` ends it.

        Args:
            last_event_id: As of `stream`.
            replay: As of `stream`.
            retry: As of `stream`.
        """
        if last_event_id is _FROM_REQUEST:
            last_event_id = _asked_for()
        first = None if retry is None else encode_event(retry=retry)
        return self._core.subscribe(last_event_id, replay, self.heartbeat, first)

    def join(self, websocket: WebSocket | AsyncWebSocket) -> Membership:
        """Have the data of each event sent to a WebSocket, as a text message, from now on.

        It goes on until the connection ends, or until `leave` of what is returned is called. The view waits
        for what the client says meanwhile. The connection is opened if it is not.
        """
        return websocket.join(self)

    def close(self) -> None:
        """End all subscriptions, and those to come: their streams are complete. WebSockets stay open."""
        self._core.close()

    @property
    def published(self) -> int:
        """How many events were published."""
        return self._core.counts()[1]

    @property
    def dropped(self) -> int:
        """How many subscribers were cut off, since they did not take their events in time."""
        return self._core.counts()[2] + self._lagged

    def __len__(self) -> int:
        """How many subscribers there are."""
        return self._core.counts()[0] + len(self._members)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<{type(self).__name__}{name}: {len(self)} subscribers>"


def _asked_for() -> str | None:
    return last_event_id() if _is_asked() else None


class Channels:
    """Channels by name, made when first asked for: the rooms of a chat, the users of an application.

    A channel that has no subscribers and on which nothing was published for `idle` seconds is forgotten,
    unless somebody holds it.

    Args:
        idle: Those seconds; 300.
        options: Passed to each `Channel`.
    """

    def __init__(self, *, idle: float = IDLE, **options: Any) -> None:
        self._idle = idle
        self._options = options
        self._lock = Lock()
        self._known: WeakValueDictionary[str, Channel] = WeakValueDictionary()
        self._kept: dict[str, Channel] = {}
        self._look_at = _LOOK_AFTER

    def __getitem__(self, name: str) -> Channel:
        """Return the channel of this name; always the same one as long as it is used."""
        channel = self._kept.get(name)
        if channel is not None:
            return channel
        with self._lock:
            channel = self._known.get(name)
            if channel is None:
                channel = self._known[name] = Channel(name, **self._options)
            self._kept[name] = channel
            if len(self._kept) >= self._look_at:
                self._forget()
            return channel

    def _forget(self) -> None:
        # A name that somebody is just being given the channel of stays known, since they hold it.
        def is_used(channel: Channel) -> bool:
            seconds = channel._core.idle_seconds()
            return seconds is None or seconds < self._idle

        self._kept = {name: channel for name, channel in self._kept.items() if is_used(channel)}
        self._look_at = max(_LOOK_AFTER, 2 * len(self._kept))

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known))

    def __len__(self) -> int:
        """How many channels there are."""
        return len(self._known)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} channels>"
