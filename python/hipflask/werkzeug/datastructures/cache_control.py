"""``Cache-Control`` of requests and of responses.

Implements: werkzeug.datastructures.cache_control (3.1); RFC 9111 §5.2, RFC 5861, RFC 8246.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .mixins import ImmutableDictMixin
from .structures import CallbackDict

if TYPE_CHECKING:
    from typing import Literal


def cache_control_property(key: str, empty: Any, type: type[Any] | None, *, doc: str | None = None) -> Any:
    """An attribute for one directive.

    Args:
        key: The directive's name.
        empty: What the attribute is when the directive has no value.
        type: ``bool`` for a directive that is either there or not; else what converts its value, or ``None``.
        doc: The attribute's description.
    """
    if doc is None:
        kind = "bool" if type is bool else "str" if type is None else type.__name__
        doc = f"The ``{key}`` directive, a ``{kind}``."

    def read(self: _CacheControl) -> Any:
        return self._get_cache_value(key, empty, type)

    def write(self: _CacheControl, value: Any) -> None:
        self._set_cache_value(key, value, type)

    def delete(self: _CacheControl) -> None:
        self._del_cache_value(key)

    return property(read, write, delete, doc)


class _CacheControl(CallbackDict[str, str | None]):
    """The directives of a ``Cache-Control`` field; those without a value have ``None``.

    Args:
        values: The directives.
        on_update: A function to call with the object after every change.
    """

    no_store: bool = cache_control_property("no-store", None, bool)
    max_age: int | None = cache_control_property("max-age", None, int)
    no_transform: bool = cache_control_property("no-transform", None, bool)
    stale_if_error: int | None = cache_control_property("stale-if-error", None, int)

    def __init__(
        self,
        values: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = (),
        on_update: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(values, on_update)
        self.provided = values is not None

    def _get_cache_value(self, key: str, empty: Any, type: type[Any] | None) -> Any:
        if type is bool:
            return key in self
        if key not in self:
            return None
        value = self[key]
        if value is None:
            return empty
        if type is None:
            return value
        try:
            return type(value)
        except ValueError:
            return None

    def _set_cache_value(self, key: str, value: Any, type: type[Any] | None) -> None:
        if value is None or value is False or (type is bool and not value):
            self.pop(key, None)
        elif value is True or type is bool:
            self[key] = None
        else:
            self[key] = str(value if type is None else type(value))

    def _del_cache_value(self, key: str) -> None:
        if key in self:
            del self[key]

    def to_header(self) -> str:
        """The field's value."""
        from ..http import dump_header

        return dump_header(self)

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        directives = " ".join(f"{key}={value!r}" for key, value in sorted(self.items()))
        return f"<{type(self).__name__} {directives}>"

    cache_property = staticmethod(cache_control_property)


class RequestCacheControl(ImmutableDictMixin[str, str | None], _CacheControl):  # type: ignore[misc]
    """The ``Cache-Control`` of a request, which cannot be changed."""

    no_cache: bool = cache_control_property("no-cache", None, bool)
    max_stale: int | Literal[True] | None = cache_control_property("max-stale", True, int)
    min_fresh: int | None = cache_control_property("min-fresh", None, int)
    only_if_cached: bool = cache_control_property("only-if-cached", None, bool)


class ResponseCacheControl(_CacheControl):
    """The ``Cache-Control`` of a response."""

    no_cache: str | Literal[True] | None = cache_control_property("no-cache", True, None)
    public: bool = cache_control_property("public", None, bool)
    private: str | Literal[True] | None = cache_control_property("private", True, None)
    must_revalidate: bool = cache_control_property("must-revalidate", None, bool)
    proxy_revalidate: bool = cache_control_property("proxy-revalidate", None, bool)
    s_maxage: int | None = cache_control_property("s-maxage", None, int)
    immutable: bool = cache_control_property("immutable", None, bool)
    must_understand: bool = cache_control_property("must-understand", None, bool)
    stale_while_revalidate: int | None = cache_control_property("stale-while-revalidate", None, int)
