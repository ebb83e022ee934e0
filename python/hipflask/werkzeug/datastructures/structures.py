"""Dicts and lists with several values for a key, without changes, or with somebody listening to them.

``MultiDict`` and ``TypeConversionDict`` are native; what is built on them stands here.

Implements: werkzeug.datastructures.structures (3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSet
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeVar

from hipflask._core import MultiDict as MultiDict
from hipflask._core import TypeConversionDict as TypeConversionDict

from .mixins import ImmutableDictMixin, ImmutableListMixin, ImmutableMultiDictMixin, UpdateDictMixin

if TYPE_CHECKING:
    from typing_extensions import Self

K = TypeVar("K")
V = TypeVar("V")

_DEPRECATED = {
    "OrderedMultiDict": "MultiDict",
    "ImmutableOrderedMultiDict": "ImmutableMultiDict",
}


def iter_multi_items(
    mapping: MultiDict[K, V] | Mapping[K, V | list[V] | tuple[V, ...] | set[V]] | Iterable[tuple[K, V]],
) -> Iterator[tuple[K, V]]:
    """Iterate over every key and value of a ``MultiDict``, a mapping or pairs.

    A list, tuple or set in a plain mapping is taken as several values of its key.
    """
    if isinstance(mapping, MultiDict):
        yield from mapping.items(multi=True)
        return
    if not isinstance(mapping, Mapping):
        yield from mapping
        return
    for key, value in mapping.items():
        if isinstance(value, (list, tuple, set)):
            for one in value:
                yield key, one
        else:
            yield key, value


class ImmutableList(ImmutableListMixin, list[V]):  # type: ignore[misc]
    """A list that cannot be changed."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list.__repr__(self)})"


class ImmutableTypeConversionDict(  # type: ignore[misc]
    ImmutableDictMixin[K, V], TypeConversionDict[K, V]
):
    """A ``TypeConversionDict`` that cannot be changed."""

    def copy(self) -> TypeConversionDict[K, V]:
        """A copy that can be changed."""
        copied: TypeConversionDict[K, V] = TypeConversionDict(self)
        return copied

    def __copy__(self) -> Self:
        return self


class ImmutableDict(ImmutableDictMixin[K, V], dict[K, V]):  # type: ignore[misc]
    """A dict that cannot be changed."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict.__repr__(self)})"

    def copy(self) -> dict[K, V]:
        """A copy that can be changed."""
        return dict(self)

    def __copy__(self) -> Self:
        return self


class ImmutableMultiDict(ImmutableMultiDictMixin[K, V], MultiDict[K, V]):  # type: ignore[misc]
    """A ``MultiDict`` that cannot be changed: what a request's arguments and form are.

    Args:
        mapping: What it holds: another ``MultiDict``, a mapping (lists become several values) or pairs.
    """

    # No state of its own: the native constructor makes these without calling Python.
    __slots__ = ()

    def copy(self) -> MultiDict[K, V]:  # type: ignore[override]
        """A copy that can be changed."""
        return MultiDict(self)

    def __copy__(self) -> Self:
        return self


class CombinedMultiDict(ImmutableMultiDictMixin[K, V], MultiDict[K, V]):  # type: ignore[misc]
    """Several ``MultiDict`` objects read as one; the first that has a key wins.

    Args:
        dicts: The objects, which are kept and not copied.
    """

    def __init__(self, dicts: Iterable[MultiDict[K, V]] | None = None) -> None:
        super().__init__()
        self.dicts: list[MultiDict[K, V]] = list(dicts or ())

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return type(self), (self.dicts,)

    @classmethod
    def fromkeys(cls, keys: Any, value: Any = None) -> NoReturn:
        """Refused: there is nothing to combine."""
        raise TypeError(f"cannot create {cls.__name__!r} instances by fromkeys")

    def __getitem__(self, key: K) -> V:
        for one in self.dicts:
            if key in one:
                return one[key]

        from ..exceptions import BadRequestKeyError

        raise BadRequestKeyError(key)

    def get(self, key: K, default: Any = None, type: Callable[[V], Any] | None = None) -> Any:
        """The first value of ``key`` that ``type`` takes, or ``default``.

        Args:
            key: The key.
            default: What to return when there is no such value.
            type: A callable that converts the value; after ``ValueError`` or ``TypeError`` the next dict is
                asked.
        """
        for one in self.dicts:
            if key not in one:
                continue
            if type is None:
                return one[key]
            try:
                return type(one[key])
            except (ValueError, TypeError):
                continue
        return default

    def getlist(self, key: K, type: Callable[[V], Any] | None = None) -> list[Any]:
        """The values of ``key`` in all dicts."""
        return [value for one in self.dicts for value in one.getlist(key, type)]

    def _all_keys(self) -> dict[K, None]:
        return {key: None for one in self.dicts for key in one}

    def keys(self) -> Iterable[K]:  # type: ignore[override]
        """The keys of all dicts, each once."""
        return self._all_keys().keys()

    def __iter__(self) -> Iterator[K]:
        return iter(self._all_keys())

    def items(self, multi: bool = False) -> Iterable[tuple[K, V]]:  # type: ignore[override]
        """Iterate over keys and first values, or with ``multi`` over keys and every value."""
        seen = set()
        for one in self.dicts:
            for key, value in one.items(multi):
                if multi:
                    yield key, value
                elif key not in seen:
                    seen.add(key)
                    yield key, value

    def values(self) -> Iterable[V]:  # type: ignore[override]
        """Iterate over the first values."""
        for _, value in self.items():
            yield value

    def lists(self) -> Iterable[tuple[K, list[V]]]:  # type: ignore[override]
        """Keys, each with its values in all dicts."""
        joined: dict[K, list[V]] = {}
        for one in self.dicts:
            for key, values in one.lists():
                joined.setdefault(key, []).extend(values)
        return joined.items()

    def listvalues(self) -> Iterable[list[V]]:
        """Iterate over the lists of values."""
        return (values for _, values in self.lists())

    def copy(self) -> MultiDict[K, V]:  # type: ignore[override]
        """A ``MultiDict`` with all of it."""
        return MultiDict(self)

    def __len__(self) -> int:
        return len(self._all_keys())

    def __contains__(self, key: object) -> bool:
        return any(key in one for one in self.dicts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dicts!r})"


class CallbackDict(UpdateDictMixin[K, V], dict[K, V]):
    """A dict that calls a function after every change.

    Args:
        initial: What to start with.
        on_update: The function, which gets the dict itself.
    """

    def __init__(
        self,
        initial: Mapping[K, V] | Iterable[tuple[K, V]] | None = None,
        on_update: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(() if initial is None else initial)
        self.on_update = on_update

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {super().__repr__()}>"


class HeaderSet(MutableSet[str]):
    """A set of strings without regard to case, in order, as fields such as ``Vary`` and ``Allow`` have.

    Args:
        headers: The strings.
        on_update: A function to call with the set after every change.
    """

    def __init__(
        self,
        headers: Iterable[str] | None = None,
        on_update: Callable[[Any], None] | None = None,
    ) -> None:
        self._headers = list(headers or ())
        self._set = {header.lower() for header in self._headers}
        self.on_update = on_update

    def _changed(self) -> None:
        if self.on_update is not None:
            self.on_update(self)

    def add(self, header: str) -> None:
        """Add a string if it is not there."""
        self.update((header,))

    def remove(self, header: str) -> None:
        """Remove a string.

        Raises:
            KeyError: If it is not there.
        """
        key = header.lower()
        if key not in self._set:
            raise KeyError(header)
        self._set.remove(key)
        del self._headers[self.index(header)]
        self._changed()

    def update(self, iterable: Iterable[str]) -> None:
        """Add those strings that are not there."""
        before = len(self._set)
        for header in iterable:
            key = header.lower()
            if key not in self._set:
                self._headers.append(header)
                self._set.add(key)
        if len(self._set) != before:
            self._changed()

    def discard(self, header: str) -> None:
        """Remove a string if it is there."""
        if header.lower() in self._set:
            self.remove(header)

    def find(self, header: str) -> int:
        """Where a string is, or -1."""
        key = header.lower()
        for index, item in enumerate(self._headers):
            if item.lower() == key:
                return index
        return -1

    def index(self, header: str) -> int:
        """Where a string is.

        Raises:
            IndexError: If it is not there.
        """
        index = self.find(header)
        if index < 0:
            raise IndexError(header)
        return index

    def clear(self) -> None:
        """Remove everything."""
        self._set.clear()
        self._headers.clear()
        self._changed()

    def as_set(self, preserve_casing: bool = False) -> set[str]:
        """A plain set of the strings, in lower case unless told otherwise."""
        return set(self._headers) if preserve_casing else set(self._set)

    def to_header(self) -> str:
        """The field's value."""
        from ..http import quote_header_value

        return ", ".join(map(quote_header_value, self._headers))

    def __getitem__(self, idx: SupportsIndex) -> str:
        return self._headers[idx]

    def __delitem__(self, idx: SupportsIndex) -> None:
        self._set.remove(self._headers.pop(idx).lower())
        self._changed()

    def __setitem__(self, idx: SupportsIndex, value: str) -> None:
        self._set.remove(self._headers[idx].lower())
        self._headers[idx] = value
        self._set.add(value.lower())
        self._changed()

    def __contains__(self, header: object) -> bool:
        return header.lower() in self._set  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self._set)

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __bool__(self) -> bool:
        return bool(self._set)

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._headers!r})"


def __getattr__(name: str) -> Any:
    if name in ("_OrderedMultiDict", "_ImmutableOrderedMultiDict"):
        from . import _ordered

        return getattr(_ordered, name[1:])
    if name not in _DEPRECATED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    import warnings

    from . import _ordered

    warnings.warn(
        f"'{name}' is deprecated and will be removed in Werkzeug 3.2. Use '{_DEPRECATED[name]}' instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(_ordered, name)
