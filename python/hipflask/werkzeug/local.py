"""Context-local data and proxies to it, under the names of `werkzeug.local` (3.1).

Everything is kept in context variables, so each thread, greenlet and asyncio task sees its own values.
`LocalProxy` is native (see `hipflask._core`).
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import update_wrapper
from types import GenericAlias

from .._core import LocalProxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Generic, TypeVar

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    T = TypeVar("T")
else:
    # `typing` costs more to import than everything here.
    T = object

    class Generic:
        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)


__all__ = ["Local", "LocalManager", "LocalProxy", "LocalStack", "release_local"]


def release_local(local: Local | LocalStack[Any]) -> None:
    """Forget what `local` holds in the current context."""
    local.__release_local__()


class Local:
    """A namespace whose attributes belong to the current context.

    Args:
        context_var: Where to keep the attributes; by default a new context variable.
    """

    __slots__ = ("_Local__storage",)

    def __init__(self, context_var: ContextVar[dict[str, Any]] | None = None) -> None:
        if context_var is None:
            context_var = ContextVar(f"werkzeug.Local<{id(self)}>.storage")
        object.__setattr__(self, "_Local__storage", context_var)

    def __values(self) -> dict[str, Any]:
        storage: ContextVar[dict[str, Any]] = object.__getattribute__(self, "_Local__storage")
        return storage.get({})

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.__values().items())

    def __call__(self, name: str, *, unbound_message: str | None = None) -> LocalProxy[Any]:
        """Return a proxy to the attribute `name` of this namespace."""
        return LocalProxy(self, name, unbound_message=unbound_message)

    def __release_local__(self) -> None:
        self.__storage.set({})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__values()[name]
        except KeyError:
            raise AttributeError(name) from None

    # The stored dict is shared with copies of the context, so it is replaced, never changed.
    def __setattr__(self, name: str, value: Any) -> None:
        self.__storage.set({**self.__values(), name: value})

    def __delattr__(self, name: str) -> None:
        values = self.__values()
        if name not in values:
            raise AttributeError(name)
        self.__storage.set({key: value for key, value in values.items() if key != name})


class LocalStack(Generic[T]):
    """A stack whose items belong to the current context.

    Args:
        context_var: Where to keep the items; by default a new context variable.
    """

    __slots__ = ("_storage",)

    def __init__(self, context_var: ContextVar[list[T]] | None = None) -> None:
        self._storage = context_var or ContextVar(f"werkzeug.LocalStack<{id(self)}>.storage")

    def __release_local__(self) -> None:
        self._storage.set([])

    def push(self, obj: T) -> list[T]:
        """Put `obj` on top and return the new stack."""
        stack = [*self._storage.get([]), obj]
        self._storage.set(stack)
        return stack

    def pop(self) -> T | None:
        """Remove the topmost item and return it; None if there is none."""
        stack = self._storage.get([])
        if not stack:
            return None
        self._storage.set(stack[:-1])
        return stack[-1]

    @property
    def top(self) -> T | None:
        """The topmost item, or None."""
        stack = self._storage.get([])
        return stack[-1] if stack else None

    def __call__(self, name: str | None = None, *, unbound_message: str | None = None) -> LocalProxy[Any]:
        """Return a proxy to the topmost item, or to its attribute `name`."""
        return LocalProxy(self, name, unbound_message=unbound_message)


class LocalManager:
    """Release several locals together, for example at the end of a request.

    Args:
        locals: One local, or an iterable of them.
    """

    __slots__ = ("locals",)

    def __init__(
        self, locals: Local | LocalStack[Any] | Iterable[Local | LocalStack[Any]] | None = None
    ) -> None:
        self.locals: list[Local | LocalStack[Any]]
        if locals is None:
            self.locals = []
        elif isinstance(locals, (Local, LocalStack)):
            self.locals = [locals]
        else:
            self.locals = list(locals)

    def cleanup(self) -> None:
        """Release every managed local in the current context."""
        for local in self.locals:
            release_local(local)

    def make_middleware(self, app: WSGIApplication) -> WSGIApplication:
        """Wrap a WSGI app so that `cleanup` runs once its response has been sent."""

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            from .wsgi import ClosingIterator

            return ClosingIterator(app(environ, start_response), self.cleanup)

        return application

    def middleware(self, func: WSGIApplication) -> WSGIApplication:
        """Do what `make_middleware` does, as a decorator that keeps the function's name and docstring."""
        return update_wrapper(self.make_middleware(func), func)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} storages: {len(self.locals)}>"
