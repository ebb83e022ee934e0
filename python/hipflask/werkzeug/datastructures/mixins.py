"""What makes a list, a dict or headers immutable, and what makes a dict tell of its changes.

Implements: werkzeug.datastructures.mixins (3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, SupportsIndex, TypeVar

from .._internal import _immutable_error, _missing

if TYPE_CHECKING:
    from typing_extensions import Self

K = TypeVar("K")
V = TypeVar("V")


class ImmutableListMixin:
    """Refuses every change of a list, and so can have a hash."""

    def __hash__(self) -> int:
        return hash(tuple(self))  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return type(self), (list(self),)  # type: ignore[call-overload]

    def __delitem__(self, key: Any) -> NoReturn:
        _immutable_error(self)

    def __iadd__(self, other: Any) -> NoReturn:
        _immutable_error(self)

    def __imul__(self, other: Any) -> NoReturn:
        _immutable_error(self)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        _immutable_error(self)

    def append(self, item: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def remove(self, item: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def extend(self, iterable: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def insert(self, pos: Any, value: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def pop(self, index: Any = -1) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def reverse(self: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def sort(self, key: Any = None, reverse: Any = False) -> NoReturn:
        """Refused."""
        _immutable_error(self)


class ImmutableDictMixin(Generic[K, V]):
    """Refuses every change of a dict, and so can have a hash."""

    __slots__ = ()

    @classmethod
    def fromkeys(cls, keys: Iterable[K], value: V | None = None) -> ImmutableDictMixin[K, Any]:
        """Make one with the same value for every key."""
        return cls([(key, value) for key in keys])  # type: ignore[call-arg]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return type(self), (dict(self),)  # type: ignore[call-overload]

    def _iter_hashitems(self) -> Iterable[Any]:
        return self.items()  # type: ignore[attr-defined,no-any-return]

    def __hash__(self) -> int:
        return hash(frozenset(self._iter_hashitems()))

    def setdefault(self, key: Any, default: Any = None) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def update(self, arg: Any, /, **kwargs: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def __ior__(self, other: Any) -> NoReturn:
        _immutable_error(self)

    def pop(self, key: Any, default: Any = None) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def popitem(self) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        _immutable_error(self)

    def __delitem__(self, key: Any) -> NoReturn:
        _immutable_error(self)

    def clear(self) -> NoReturn:
        """Refused."""
        _immutable_error(self)


class ImmutableMultiDictMixin(ImmutableDictMixin[K, V]):
    """Refuses every change of a ``MultiDict``."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return type(self), (list(self.items(multi=True)),)  # type: ignore[attr-defined]

    def _iter_hashitems(self) -> Iterable[Any]:
        return self.items(multi=True)  # type: ignore[attr-defined,no-any-return]

    def add(self, key: Any, value: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def popitemlist(self) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def poplist(self, key: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def setlist(self, key: Any, new_list: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def setlistdefault(self, key: Any, default_list: Any = None) -> NoReturn:
        """Refused."""
        _immutable_error(self)


class ImmutableHeadersMixin:
    """Refuses every change of ``Headers``."""

    __slots__ = ()

    def __delitem__(self, key: Any, **kwargs: Any) -> NoReturn:
        _immutable_error(self)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        _immutable_error(self)

    def set(self, key: Any, value: Any, /, **kwargs: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def setlist(self, key: Any, values: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def add(self, key: Any, value: Any, /, **kwargs: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def add_header(self, key: Any, value: Any, /, **kwargs: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def remove(self, key: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def extend(self, arg: Any, /, **kwargs: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def update(self, arg: Any, /, **kwargs: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def __ior__(self, other: Any) -> NoReturn:
        _immutable_error(self)

    def insert(self, pos: Any, value: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def pop(self, key: Any = None, default: Any = _missing) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def popitem(self) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def setdefault(self, key: Any, default: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)

    def setlistdefault(self, key: Any, default: Any) -> NoReturn:
        """Refused."""
        _immutable_error(self)


class UpdateDictMixin(dict[K, V]):
    """Calls ``on_update`` with the dict itself after every change."""

    on_update: Callable[[Any], None] | None = None

    def _changed(self) -> None:
        if self.on_update is not None:
            self.on_update(self)

    def setdefault(self, key: K, default: V | None = None) -> V:
        """As of a dict; a key that was there already is no change."""
        new = key not in self
        value = super().setdefault(key, default)  # type: ignore[arg-type]
        if new:
            self._changed()
        return value

    def pop(self, key: K, default: Any = _missing) -> Any:
        """As of a dict; a key that was not there is no change."""
        there = key in self
        value = super().pop(key) if default is _missing else super().pop(key, default)
        if there:
            self._changed()
        return value

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self._changed()

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._changed()

    def clear(self) -> None:
        """As of a dict."""
        super().clear()
        self._changed()

    def popitem(self) -> tuple[K, V]:
        """As of a dict."""
        item = super().popitem()
        self._changed()
        return item

    def update(  # type: ignore[override]
        self, arg: Mapping[K, V] | Iterable[tuple[K, V]] | None = None, /, **kwargs: V
    ) -> None:
        """As of a dict."""
        super().update(() if arg is None else arg, **kwargs)
        self._changed()

    def __ior__(self, other: Mapping[K, V] | Iterable[tuple[K, V]]) -> Self:  # type: ignore[override,misc]
        result = super().__ior__(other)
        self._changed()
        return result
