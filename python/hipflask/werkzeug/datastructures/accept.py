"""What a client accepts: types, languages, character sets, encodings, each with a quality.

Implements: werkzeug.datastructures.accept (3.1); RFC 9110 §12.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex, overload

from .structures import ImmutableList


class Accept(ImmutableList[tuple[str, float]]):
    """The items of an ``Accept-*`` field with their qualities, the most specific and best first.

    Args:
        values: Pairs of item and quality; ``None`` if there is no field, for which ``provided`` is false.
    """

    def __init__(self, values: Accept | Iterable[tuple[str, float]] | None = ()) -> None:
        self.provided: bool = values.provided if isinstance(values, Accept) else values is not None
        if not isinstance(values, Accept):
            values = sorted(
                values or (), key=lambda pair: (self._specificity(pair[0]), pair[1]), reverse=True
            )
        list.__init__(self, values)

    def _specificity(self, value: str) -> tuple[bool, ...]:
        """How exact an item is; greater is more so."""
        return (value != "*",)

    def _value_matches(self, value: str, item: str) -> bool:
        """Whether a value is one that the client's item stands for."""
        return item == "*" or item.lower() == value.lower()

    def _match(self, value: str) -> tuple[str, float] | None:
        for pair in self:
            if self._value_matches(value, pair[0]):
                return pair
        return None

    @overload
    def __getitem__(self, key: str) -> float: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> tuple[str, float]: ...
    @overload
    def __getitem__(self, key: slice) -> list[tuple[str, float]]: ...
    def __getitem__(self, key: str | SupportsIndex | slice) -> Any:
        return self.quality(key) if isinstance(key, str) else list.__getitem__(self, key)

    def quality(self, key: str) -> float:
        """The quality of a value, 0 if the client does not accept it."""
        pair = self._match(key)
        return 0 if pair is None else pair[1]

    def __contains__(self, value: object) -> bool:
        return self._match(value) is not None  # type: ignore[arg-type]

    def __repr__(self) -> str:
        pairs = ", ".join(f"({item!r}, {quality})" for item, quality in self)
        return f"{type(self).__name__}([{pairs}])"

    def index(self, key: str | tuple[str, float]) -> int:  # type: ignore[override]
        """Where the item is that stands for a value.

        Raises:
            ValueError: If there is none.
        """
        if not isinstance(key, str):
            return list.index(self, key)
        for index, (item, _) in enumerate(self):
            if self._value_matches(key, item):
                return index
        raise ValueError(key)

    def find(self, key: str | tuple[str, float]) -> int:
        """Where the item is that stands for a value, or -1."""
        try:
            return self.index(key)
        except ValueError:
            return -1

    def values(self) -> Iterator[str]:
        """Iterate over the items without their qualities."""
        return (item for item, _ in self)

    def to_header(self) -> str:
        """The field's value."""
        return ",".join(item if quality == 1 else f"{item};q={quality}" for item, quality in self)

    def __str__(self) -> str:
        return self.to_header()

    @overload
    def best_match(self, matches: Iterable[str]) -> str | None: ...
    @overload
    def best_match(self, matches: Iterable[str], default: str = ...) -> str: ...
    def best_match(self, matches: Iterable[str], default: str | None = None) -> str | None:
        """The one of the server's values that the client likes best.

        Args:
            matches: The values; the first of those that the client likes equally, by items equally specific.
            default: What to return if the client accepts none.
        """
        best = default
        rank: tuple[float, tuple[bool, ...]] = (0, ())
        for value in matches:
            pair = self._match(value)
            if pair is None or pair[1] <= 0:
                continue
            candidate = (pair[1], self._specificity(pair[0]))
            if candidate > rank:
                best, rank = value, candidate
        return best

    @property
    def best(self) -> str | None:
        """The item that stands first, if there is one."""
        return self[0][0] if self else None


def _mime_parts(value: str) -> list[str]:
    """Type, subtype and parameters: what slashes and semicolons separate."""
    kind, *parameters = value.split(";")
    pieces = [piece.lstrip() for piece in parameters]
    parts = ";".join(
        [kind.rstrip() if pieces else kind, *[piece.rstrip() for piece in pieces[:-1]], *pieces[-1:]]
    )
    return parts.replace(";", "/").split("/")


class MIMEAccept(Accept):
    """The types that a client accepts."""

    def _specificity(self, value: str) -> tuple[bool, ...]:
        return tuple(part != "*" for part in _mime_parts(value))

    def _value_matches(self, value: str, item: str) -> bool:
        if "/" not in item:
            return False
        if "/" not in value:
            raise ValueError(f"invalid mimetype {value!r}")

        kind, subkind, *parameters = _mime_parts(value.lower())
        if kind == "*" and subkind != "*":
            raise ValueError(f"invalid mimetype {value!r}")

        item_kind, item_subkind, *item_parameters = _mime_parts(item.lower())
        if item_kind == "*" and item_subkind != "*":
            return False

        if "*" in (item_kind, kind):
            return (item_kind == item_subkind == "*") or (kind == subkind == "*")
        if item_kind != kind:
            return False
        if "*" in (item_subkind, subkind):
            return True
        return item_subkind == subkind and sorted(parameters) == sorted(item_parameters)

    @property
    def accept_html(self) -> bool:
        """Whether HTML is accepted, or else XHTML."""
        return self._match("text/html") is not None or self.accept_xhtml

    @property
    def accept_xhtml(self) -> bool:
        """Whether XHTML or XML is accepted."""
        return any(self._match(value) is not None for value in ("application/xhtml+xml", "application/xml"))

    @property
    def accept_json(self) -> bool:
        """Whether JSON is accepted."""
        return self._match("application/json") is not None


def _language_parts(value: str) -> list[str]:
    return value.replace("_", "-").split("-")


class LanguageAccept(Accept):
    """The languages that a client accepts."""

    def _value_matches(self, value: str, item: str) -> bool:
        return item == "*" or _language_parts(value.lower()) == _language_parts(item.lower())

    @overload
    def best_match(self, matches: Iterable[str]) -> str | None: ...
    @overload
    def best_match(self, matches: Iterable[str], default: str = ...) -> str: ...
    def best_match(self, matches: Iterable[str], default: str | None = None) -> str | None:
        """The one of the server's languages that the client likes best.

        Without an exact match, the client's languages are tried without their regions, then the server's.

        Args:
            matches: The languages; of two that the client likes equally the first wins.
            default: What to return if the client accepts none.
        """
        matches = list(matches)
        best = super().best_match(matches)
        if best is not None:
            return best

        best = Accept([(_language_parts(item)[0], quality) for item, quality in self]).best_match(matches)
        if best is not None:
            return best

        best = super().best_match([_language_parts(item)[0] for item in matches])
        if best is not None:
            return next(item for item in matches if item.startswith(best))
        return default


class CharsetAccept(Accept):
    """The character sets that a client accepts; different names of one set are the same."""

    def _value_matches(self, value: str, item: str) -> bool:
        return item == "*" or _charset_name(value) == _charset_name(item)


def _charset_name(name: str) -> str:
    import codecs

    try:
        return codecs.lookup(name).name
    except LookupError:
        return name.lower()
