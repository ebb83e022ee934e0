"""Multipart messages as events: bytes in, events out, and back.

The decoder is native. It accepts a lone LF or CR as a line break, which some clients send, holds no more than
one chunk beyond what it cannot yet decide on, and takes time linear in the length of the body.

Implements: RFC 7578, RFC 2046 §5.1; werkzeug.sansio.multipart (3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from hipflask._core import MultipartDecoder as MultipartDecoder

if TYPE_CHECKING:
    from ..datastructures import Headers


class Event:
    """Something found in, or to be written to, a multipart message."""


@dataclass(frozen=True)
class Preamble(Event):
    """What stands before the first boundary."""

    data: bytes


@dataclass(frozen=True)
class Field(Event):
    """The head of a part that is not a file."""

    name: str
    headers: Headers


@dataclass(frozen=True)
class File(Event):
    """The head of a part with a file name."""

    name: str
    filename: str
    headers: Headers


@dataclass(frozen=True)
class Data(Event):
    """A piece of a part's content; ``more_data`` tells whether others follow."""

    data: bytes
    more_data: bool


@dataclass(frozen=True)
class Epilogue(Event):
    """What stands after the last boundary."""

    data: bytes


class NeedData(Event):
    """The decoder has to be fed before it can tell more."""


NEED_DATA = NeedData()


class State(Enum):
    """Where in a message a decoder or encoder is."""

    PREAMBLE = auto()
    PART = auto()
    DATA = auto()
    DATA_START = auto()
    EPILOGUE = auto()
    COMPLETE = auto()


class MultipartEncoder:
    """Writes events as the bytes of a multipart message.

    Args:
        boundary: What separates the parts.
    """

    def __init__(self, boundary: bytes) -> None:
        self.boundary = boundary
        self.state = State.PREAMBLE

    def send_event(self, event: Event) -> bytes:
        """The bytes of the next event.

        Raises:
            ValueError: If the event may not follow the ones before it.
        """
        state = self.state
        if isinstance(event, Preamble) and state is State.PREAMBLE:
            self.state = State.PART
            return event.data
        if isinstance(event, (Field, File)) and state in (State.PREAMBLE, State.PART, State.DATA):
            self.state = State.DATA_START
            return self._part_head(event)
        if isinstance(event, Data) and state is State.DATA_START:
            self.state = State.DATA
            return b"\r\n" + event.data if event.data else b""
        if isinstance(event, Data) and state is State.DATA:
            return event.data
        if isinstance(event, Epilogue):
            self.state = State.COMPLETE
            return b"\r\n--" + self.boundary + b"--\r\n" + event.data
        raise ValueError(f"Cannot generate {event} in state: {state}")

    def _part_head(self, event: Field | File) -> bytes:
        lines = [f'Content-Disposition: form-data; name="{event.name}"']
        if isinstance(event, File):
            lines[0] += f'; filename="{event.filename}"'
        lines += [
            f"{name}: {value}" for name, value in event.headers if name.lower() != "content-disposition"
        ]
        return b"\r\n--" + self.boundary + b"\r\n" + "".join(f"{line}\r\n" for line in lines).encode()
