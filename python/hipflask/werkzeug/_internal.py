"""Small helpers that several modules, and some extensions, share.

Implements: werkzeug._internal (3.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, MutableMapping
    from datetime import datetime

    from .wrappers import Request

T = TypeVar("T")
_TAccessorValue = TypeVar("_TAccessorValue")

_logger: logging.Logger | None = None


class _Missing:
    """The type of ``_missing``."""

    def __repr__(self) -> str:
        return "no value"

    def __reduce__(self) -> str:
        return "_missing"


_missing = _Missing()


def _wsgi_decoding_dance(s: str) -> str:
    """Read a WSGI string, whose characters are bytes, as UTF-8."""
    return s.encode("latin1").decode(errors="replace")


def _wsgi_encoding_dance(s: str) -> str:
    """Write a string as WSGI wants it: one character for each byte of its UTF-8."""
    return s.encode().decode("latin1")


def _get_environ(obj: dict[str, Any] | Request) -> dict[str, Any]:
    env = getattr(obj, "environ", obj)
    assert isinstance(env, dict), f"{type(obj).__name__!r} is not a WSGI environment (has to be a dict)"
    return env


def _has_level_handler(logger: logging.Logger) -> bool:
    """Whether some handler on the way to the root takes what the logger lets through."""
    level = logger.getEffectiveLevel()
    current: logging.Logger | None = logger
    while current is not None:
        if any(handler.level <= level for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False


def _log(type: str, message: str, *args: Any, **kwargs: Any) -> None:
    """Log through the ``werkzeug`` logger, which gets a handler and a level if nobody gave it one."""
    global _logger

    if _logger is None:
        import logging

        _logger = logging.getLogger("werkzeug")
        if _logger.level == logging.NOTSET:
            _logger.setLevel(logging.INFO)
        if not _has_level_handler(_logger):
            _logger.addHandler(logging.StreamHandler())

    getattr(_logger, type)(message.rstrip(), *args, **kwargs)


@overload
def _dt_as_utc(dt: None) -> None: ...
@overload
def _dt_as_utc(dt: datetime) -> datetime: ...
def _dt_as_utc(dt: datetime | None) -> datetime | None:
    """The same moment in UTC; a time without a zone is taken as UTC already."""
    if dt is None:
        return None

    from datetime import timezone

    return dt.replace(tzinfo=timezone.utc) if dt.tzinfo is None else dt.astimezone(timezone.utc)


class _DictAccessorProperty(Generic[T]):
    """An attribute that stands for one key of a mapping that its object has."""

    read_only = False

    def __init__(
        self,
        name: str,
        default: T | None = None,
        load_func: Callable[[str], T] | None = None,
        dump_func: Callable[[T], str] | None = None,
        read_only: bool | None = None,
        doc: str | None = None,
    ) -> None:
        self.name = name
        self.default = default
        self.load_func = load_func
        self.dump_func = dump_func
        if read_only is not None:
            self.read_only = read_only
        self.__doc__ = doc

    def lookup(self, instance: Any) -> MutableMapping[str, Any]:
        """The mapping; subclasses say where it is."""
        raise NotImplementedError

    @overload
    def __get__(self, instance: None, owner: type) -> _DictAccessorProperty[T]: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> T: ...
    def __get__(self, instance: Any | None, owner: type) -> T | None | _DictAccessorProperty[T]:
        if instance is None:
            return self
        storage = self.lookup(instance)
        if self.name not in storage:
            return self.default
        value = storage[self.name]
        if self.load_func is None:
            return value  # type: ignore[no-any-return]
        try:
            return self.load_func(value)
        except (ValueError, TypeError):
            return self.default

    def __set__(self, instance: Any, value: T) -> None:
        self._check_writable()
        self.lookup(instance)[self.name] = value if self.dump_func is None else self.dump_func(value)

    def __delete__(self, instance: Any) -> None:
        self._check_writable()
        self.lookup(instance).pop(self.name, None)

    def _check_writable(self) -> None:
        if self.read_only:
            raise AttributeError("read only property")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _plain_int(value: str) -> int:
    """Read ASCII digits with an optional minus; unlike ``int``, no plus, underscores or other scripts.

    Raises:
        ValueError: If the value is anything else.
    """
    value = value.strip()
    if not (value.isascii() and value.removeprefix("-").isdigit()):
        raise ValueError
    return int(value)


def _immutable_error(self: Any) -> NoReturn:
    raise TypeError(f"{type(self).__name__!r} objects are immutable")
