"""The deprecated ``OrderedMultiDict``, which keeps the order of all pairs, also between keys.

Implements: werkzeug.datastructures.OrderedMultiDict and ImmutableOrderedMultiDict (3.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeVar

from .._internal import _missing
from ..exceptions import BadRequestKeyError
from .mixins import ImmutableMultiDictMixin
from .structures import MultiDict, iter_multi_items

if TYPE_CHECKING:
    from typing_extensions import Self

K = TypeVar("K")
V = TypeVar("V")

# The dict below ours, whose values are not what the class says they are.
_raw: Any = dict


class OrderedMultiDict(MultiDict[K, V]):
    """A ``MultiDict`` that remembers the order in which pairs were added.

    The dict itself holds, for each key, the numbers of its pairs; ``_pairs`` has the pairs by number.
    """

    def __init__(
        self,
        mapping: MultiDict[K, V]
        | Mapping[K, V | list[V] | tuple[V, ...] | set[V]]
        | Iterable[tuple[K, V]]
        | None = None,
    ) -> None:
        warnings.warn(
            "'OrderedMultiDict' is deprecated and will be removed in Werkzeug 3.2. Use 'MultiDict' instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__()
        self._pairs: dict[int, tuple[K, V]] = {}
        self._next = 0
        if mapping is not None:
            self._fill(mapping)

    def _fill(self, mapping: Any) -> None:
        for key, value in iter_multi_items(mapping):
            OrderedMultiDict.add(self, key, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MultiDict):
            return NotImplemented
        if isinstance(other, OrderedMultiDict):
            return list(self.items(multi=True)) == list(other.items(multi=True))
        return len(self) == len(other) and all(other.getlist(key) == values for key, values in self.lists())

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return type(self), (list(self.items(multi=True)),)

    def __getstate__(self) -> Any:
        return list(self.items(multi=True))

    def __setstate__(self, value: Any) -> None:
        self.clear()
        self._fill(value)

    def __getitem__(self, key: K) -> V:
        if key not in self:
            raise BadRequestKeyError(key)
        return self._pairs[_raw.__getitem__(self, key)[0]][1]

    def __setitem__(self, key: K, value: V) -> None:
        self.poplist(key)
        self.add(key, value)

    def __delitem__(self, key: K) -> None:
        self.pop(key)

    def __iter__(self) -> Iterator[K]:
        return iter(dict.fromkeys(key for key, _ in self._pairs.values()))

    def keys(self) -> Iterable[K]:  # type: ignore[override]
        """Iterate over the keys, in the order of their first pairs."""
        return iter(self)

    def values(self) -> Iterable[V]:  # type: ignore[override]
        """Iterate over the first values."""
        return (value for _, value in self.items())

    def items(self, multi: bool = False) -> Iterable[tuple[K, V]]:  # type: ignore[override]
        """Iterate over keys and first values, or with ``multi`` over every pair in order."""
        if multi:
            return iter(list(self._pairs.values()))
        return iter([(key, self[key]) for key in self])

    def lists(self) -> Iterable[tuple[K, list[V]]]:  # type: ignore[override]
        """Iterate over keys and their lists of values."""
        return ((key, self.getlist(key)) for key in self)

    def listvalues(self) -> Iterable[list[V]]:
        """Iterate over the lists of values."""
        return (values for _, values in self.lists())

    def add(self, key: K, value: V) -> None:
        """Add a pair after all others."""
        _raw.setdefault(self, key, []).append(self._next)
        self._pairs[self._next] = (key, value)
        self._next += 1

    def getlist(self, key: K, type: Callable[[V], Any] | None = None) -> list[Any]:
        """The values of ``key``; those that ``type`` refuses are left out."""
        values = [self._pairs[number][1] for number in _raw.get(self, key, ())]
        if type is None:
            return values
        return MultiDict([(key, value) for value in values]).getlist(key, type)

    def setlist(self, key: K, new_list: Iterable[V]) -> None:
        """Replace the values of ``key``; the new pairs are the last."""
        self.poplist(key)
        for value in new_list:
            self.add(key, value)

    def setlistdefault(self, key: Any, default_list: Any = None) -> NoReturn:
        """Refused: the list would not be the one that is kept."""
        raise TypeError("setlistdefault is unsupported for ordered multi dicts")

    def update(self, mapping: Any) -> None:
        """Add the items of a ``MultiDict``, a mapping or pairs."""
        for key, value in iter_multi_items(mapping):
            self.add(key, value)

    def poplist(self, key: K) -> list[V]:
        """Remove ``key`` and return its values."""
        return [self._pairs.pop(number)[1] for number in _raw.pop(self, key, ())]

    def pop(self, key: K, default: Any = _missing) -> Any:
        """Remove ``key`` and return its first value, or ``default`` if it is not there."""
        if values := self.poplist(key):
            return values[0]
        if default is not _missing:
            return default
        raise BadRequestKeyError(key)

    def popitem(self) -> tuple[K, V]:
        """Remove the last key and return it with its first value."""
        key, values = self.popitemlist()
        return key, values[0]

    def popitemlist(self) -> tuple[K, list[V]]:
        """Remove the last key and return it with its values."""
        try:
            key, numbers = _raw.popitem(self)
        except KeyError as error:
            raise BadRequestKeyError(error.args[0]) from None
        return key, [self._pairs.pop(number)[1] for number in numbers]

    def clear(self) -> None:
        """Remove everything."""
        super().clear()
        self._pairs.clear()


class ImmutableOrderedMultiDict(ImmutableMultiDictMixin[K, V], OrderedMultiDict[K, V]):  # type: ignore[misc]
    """An ``OrderedMultiDict`` that cannot be changed."""

    def _iter_hashitems(self) -> Iterable[Any]:
        return enumerate(self.items(multi=True))

    __hash__ = ImmutableMultiDictMixin.__hash__  # type: ignore[assignment]

    def copy(self) -> OrderedMultiDict[K, V]:  # type: ignore[override]
        """A copy that can be changed."""
        return OrderedMultiDict(self)

    def __copy__(self) -> Self:
        return self
