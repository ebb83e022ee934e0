"""Class-based views.

Implements `flask.views` (3.1).
"""

from __future__ import annotations

from . import _core
from .globals import current_app, request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, ClassVar

    from . import typing as ft

http_method_funcs = frozenset(["get", "post", "head", "options", "delete", "put", "trace", "patch"])


def _call(function: Callable[..., Any], values: dict[str, Any]) -> ft.ResponseReturnValue:
    """Call a method; on the event loop a coroutine is given back, since the request awaits it there."""
    if _core.on_loop_thread():
        return function(**values)  # type: ignore[no-any-return]
    return current_app.ensure_sync(function)(**values)  # type: ignore[no-any-return]


class View:
    """A view as a class: override `dispatch_request`, and register what `as_view` returns."""

    # The methods of the rule; None for GET.
    methods: ClassVar[Collection[str] | None] = None
    # Whether OPTIONS is answered without the view; None for the app's default.
    provide_automatic_options: ClassVar[bool | None] = None
    # The limits of the view's rules, as the options of `route` of the same names; None for the server's.
    timeout: ClassVar[float | None] = None
    max_body: ClassVar[int | str | None] = None
    inline: ClassVar[bool | None] = None
    # Applied to the view function, the first one innermost.
    decorators: ClassVar[list[Callable[..., Any]]] = []
    # Whether each request gets an object of its own. If not, keep no request's data on `self`.
    init_every_request: ClassVar[bool] = True

    # The type of a method that takes any arguments lets subclasses name theirs.
    def dispatch_request(self, *args: Any, **kwargs: Any) -> ft.ResponseReturnValue:
        """Answer a request. URL variables come as keyword arguments."""
        raise NotImplementedError

    @classmethod
    def as_view(cls, name: str, *class_args: Any, **class_kwargs: Any) -> ft.RouteCallable:
        """Make a view function of the class.

        Args:
            name: The function's name, which is its default endpoint.
            class_args: Passed to the class.
            class_kwargs: Passed to the class.
        """
        if cls.init_every_request:

            def view(**kwargs: Any) -> ft.ResponseReturnValue:
                instance = result.view_class(*class_args, **class_kwargs)
                return _call(instance.dispatch_request, kwargs)

        else:
            shared = cls(*class_args, **class_kwargs)

            def view(**kwargs: Any) -> ft.ResponseReturnValue:
                return _call(shared.dispatch_request, kwargs)

        view.__name__ = name
        view.__module__ = cls.__module__
        result: Any = view
        for decorator in cls.decorators:
            result = decorator(result)

        # `view_class` can be replaced, and tells what the function came from.
        result.view_class = cls
        result.__name__ = name
        result.__doc__ = cls.__doc__
        result.__module__ = cls.__module__
        result.methods = cls.methods
        result.provide_automatic_options = cls.provide_automatic_options
        return result  # type: ignore[no-any-return]


class MethodView(View):
    """A view with one method for each HTTP method: `get`, `post`, ...; they make the rule's methods."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "methods" in cls.__dict__:
            return
        methods: set[str] = set()
        for base in cls.__bases__:
            methods.update(getattr(base, "methods", None) or ())
        methods.update(name.upper() for name in http_method_funcs if hasattr(cls, name))
        if methods:
            cls.methods = methods

    def dispatch_request(self, **kwargs: Any) -> ft.ResponseReturnValue:
        """Call the method for the request's HTTP method; HEAD may be answered by `get`."""
        verb = request.method
        method = getattr(self, verb.lower(), None)
        if method is None and verb == "HEAD":
            method = getattr(self, "get", None)
        assert method is not None, f"Unimplemented method {verb!r}"
        return _call(method, kwargs)
