"""``Range``, ``If-Range`` and ``Content-Range``.

Implements: werkzeug.datastructures.range (3.1); RFC 9110 §14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..http import http_date, is_byte_range_valid, quote_etag

if TYPE_CHECKING:
    from datetime import datetime


class IfRange:
    """An ``If-Range`` field: an entity tag or a date.

    Args:
        etag: The tag, without quotes.
        date: The date.
    """

    def __init__(self, etag: str | None = None, date: datetime | None = None) -> None:
        self.etag = etag
        self.date = date

    def to_header(self) -> str:
        """The field's value."""
        if self.date is not None:
            return http_date(self.date)
        return "" if self.etag is None else quote_etag(self.etag)

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self)!r}>"


class Range:
    """A ``Range`` field.

    Args:
        units: The unit, nearly always ``bytes``.
        ranges: Starts and exclusive stops; without a stop, to the end; a negative start counts from the end.

    Raises:
        ValueError: If a range is empty or has no start.
    """

    def __init__(self, units: str, ranges: Sequence[tuple[int, int | None]]) -> None:
        for start, stop in ranges:
            if start is None or (stop is not None and not 0 <= start < stop):
                raise ValueError(f"{(start, stop)} is not a valid range.")
        self.units = units
        self.ranges = ranges

    def range_for_length(self, length: int | None) -> tuple[int, int] | None:
        """Start and exclusive stop within a body of that length, if there is exactly one range, of bytes."""
        if self.units != "bytes" or length is None or len(self.ranges) != 1:
            return None
        start, stop = self.ranges[0]
        if stop is None:
            stop = length
            if start < 0:
                start += length
        return (start, min(stop, length)) if is_byte_range_valid(start, stop, length) else None

    def make_content_range(self, length: int | None) -> ContentRange | None:
        """The ``Content-Range`` of the answer, if it can be satisfied."""
        span = self.range_for_length(length)
        return None if span is None else ContentRange(self.units, *span, length)

    def to_header(self) -> str:
        """The field's value."""

        def item(start: int, stop: int | None) -> str:
            if stop is not None:
                return f"{start}-{stop - 1}"
            return f"{start}-" if start >= 0 else str(start)

        return f"{self.units}={','.join(item(*span) for span in self.ranges)}"

    def to_content_range_header(self, length: int | None) -> str | None:
        """The value of the answer's ``Content-Range``, if it can be satisfied."""
        span = self.range_for_length(length)
        return None if span is None else f"{self.units} {span[0]}-{span[1] - 1}/{length}"

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self)!r}>"


def _noticed(name: str, doc: str) -> Any:
    """An attribute whose changes ``on_update`` hears of."""

    def read(self: ContentRange) -> Any:
        return self.__dict__[name]

    def write(self: ContentRange, value: Any) -> None:
        self.__dict__[name] = value
        self._changed()

    return property(read, write, None, doc)


class ContentRange:
    """A ``Content-Range`` field.

    Args:
        units: The unit; ``None`` for no field.
        start: Where the part starts; ``None`` if the range was not satisfiable.
        stop: Where it stops, exclusive.
        length: The whole body's length, if known.
        on_update: A function to call with the object after every change.
    """

    units: str | None = _noticed("_units", "The unit.")
    start: int | None = _noticed("_start", "Where the part starts.")
    stop: int | None = _noticed("_stop", "Where the part stops, exclusive.")
    length: int | None = _noticed("_length", "The whole body's length.")

    def __init__(
        self,
        units: str | None,
        start: int | None,
        stop: int | None,
        length: int | None = None,
        on_update: Callable[[ContentRange], None] | None = None,
    ) -> None:
        self.on_update = on_update
        self.set(start, stop, length, units)

    def _changed(self) -> None:
        if self.on_update is not None:
            self.on_update(self)

    def set(
        self,
        start: int | None,
        stop: int | None,
        length: int | None = None,
        units: str | None = "bytes",
    ) -> None:
        """Change everything at once."""
        assert is_byte_range_valid(start, stop, length), "Bad range provided"
        self.__dict__.update(_units=units, _start=start, _stop=stop, _length=length)
        self._changed()

    def unset(self) -> None:
        """Make it no field."""
        self.set(None, None, units=None)

    def to_header(self) -> str:
        """The field's value."""
        if self.units is None:
            return ""
        size = "*" if self.length is None else self.length
        if self.start is None or self.stop is None:
            return f"{self.units} */{size}"
        return f"{self.units} {self.start}-{self.stop - 1}/{size}"

    def __bool__(self) -> bool:
        return self.units is not None

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self)!r}>"
