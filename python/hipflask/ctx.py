"""The contexts of an app and of a request, as Python objects.

Implements `flask.ctx` (3.1). The engine's fast lane binds bare native frames instead. The objects here are
made of a frame when code asks for one (`_app_context_of`, `_request_context_of`), and share what it holds.
"""

from __future__ import annotations

import sys
from functools import update_wrapper

from . import signals
from .globals import _cv_app, _cv_request
from .werkzeug.exceptions import HTTPException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, TypeVar

    from _typeshed.wsgi import WSGIEnvironment

    from . import typing as ft
    from ._core import Frame, SlotToken
    from .app import Flask
    from .sessions import SessionMixin
    from .werkzeug.routing import MapAdapter
    from .wrappers import Request

    F = TypeVar("F", bound=Callable[..., Any])
    T_after_response = TypeVar("T_after_response", bound=ft.AfterResponseCallable)

# Stands for "not given" where None means something.
_sentinel: Any = object()


class _AppCtxGlobals:
    """A namespace for one app context, reached through the proxy `g`."""

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...
        def __delattr__(self, name: str) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def get(self, name: str, default: Any | None = None) -> Any:
        """Return the attribute `name`, or `default` if there is none."""
        return self.__dict__.get(name, default)

    def pop(self, name: str, default: Any = _sentinel) -> Any:
        """Remove the attribute `name` and return it, else `default`.

        Raises:
            KeyError: If there is neither.
        """
        if default is _sentinel:
            return self.__dict__.pop(name)
        return self.__dict__.pop(name, default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the attribute `name`, first setting it to `default` if there is none."""
        return self.__dict__.setdefault(name, default)

    def __contains__(self, item: str) -> bool:
        return item in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __repr__(self) -> str:
        context = _cv_app.get(None)
        if context is None:
            return object.__repr__(self)
        return f"<flask.g of '{context.app.name}'>"


def _request_context_for(caller: str) -> RequestContext:
    context = _cv_request.get(None)
    if context is None:
        raise RuntimeError(
            f"'{caller}' can only be used when a request context is active, such as in a view function."
        )
    return context


def after_this_request(f: ft.AfterRequestCallable[Any]) -> ft.AfterRequestCallable[Any]:
    """Call `f` with the response of the current request; its result is the response from then on.

    Raises:
        RuntimeError: Outside of a request.
    """
    _request_context_for("after_this_request")._after_request_functions.append(f)
    return f


def after_response(f: T_after_response) -> T_after_response:
    """Call `f` with the response of the current request, once its last byte is out.

    What `f` returns is ignored, its errors are logged. It runs in a copy of the request's context: `request`
    and `session` are readable as before (the session has been saved already), `g` is a new one. By the engine
    it is run on a thread beside later requests; by another WSGI server, when that closes the response; by the
    test client, before the client has the response.

    Raises:
        RuntimeError: Outside of a request.
    """
    _request_context_for("after_response")._after_response_functions.append(f)
    return f


def copy_current_request_context(f: F) -> F:
    """Make `f` run in a copy of the current request's context, for greenlets and threads.

    The request and session objects are the same ones, not copies.

    Raises:
        RuntimeError: Outside of a request.
    """
    context = _request_context_for("copy_current_request_context").copy()

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with context:
            return context.app.ensure_sync(f)(*args, **kwargs)

    return update_wrapper(wrapper, f)  # type: ignore[return-value]


def has_request_context() -> bool:
    """Tell whether `request` and `session` can be used now."""
    return _cv_request.bound()


def has_app_context() -> bool:
    """Tell whether `current_app` and `g` can be used now."""
    return _cv_app.bound()


class AppContext:
    """What `current_app` and `g` stand for. Each request has one; `Flask.app_context` makes more.

    Args:
        app: The app.
    """

    url_adapter: MapAdapter | None

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.url_adapter = app.create_url_adapter(None)
        self.g: _AppCtxGlobals = app.app_ctx_globals_class()
        self._cv_tokens: list[SlotToken] = []

    def push(self) -> None:
        """Make this the current app context."""
        self._cv_tokens.append(_cv_app.set(self))
        signals.send("appcontext_pushed", self.app)

    def pop(self, exc: BaseException | None = _sentinel) -> None:
        """Undo one `push`; with the last one, call the teardown functions.

        Args:
            exc: The error that ends the context; by default the one being handled.
        """
        try:
            if len(self._cv_tokens) == 1:
                if exc is _sentinel:
                    exc = sys.exc_info()[1]
                self.app.do_teardown_appcontext(exc)
        finally:
            popped = _cv_app.get()
            _cv_app.reset(self._cv_tokens.pop())
        if popped is not self:
            raise AssertionError(f"Popped wrong app context. ({popped!r} instead of {self!r})")
        signals.send("appcontext_popped", self.app)

    def __enter__(self) -> AppContext:
        self.push()
        return self

    def __exit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.pop(exc_value)

    def __getattr__(self, name: str) -> Any:
        # Only a context made of a bare frame lacks it.
        if name == "url_adapter" and "app" in self.__dict__:
            self.url_adapter = self.app.create_url_adapter(None)
            return self.url_adapter
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class RequestContext:
    """What `request` and `session` stand for; `Flask.request_context` makes one for a WSGI environment.

    Args:
        app: The app.
        environ: The WSGI environment.
        request: The request object; by default one is made of `environ`.
        session: The session; by default it is opened by `push`.
    """

    # The native frame that this object was made of, if it was.
    _frame: Frame | None = None
    url_adapter: MapAdapter | None
    _session: SessionMixin | None

    def __init__(
        self,
        app: Flask,
        environ: WSGIEnvironment,
        request: Request | None = None,
        session: SessionMixin | None = None,
    ) -> None:
        self.app = app
        if request is None:
            request = app.request_class(environ)
            request.json_module = app.json
        self.request: Request = request
        self.url_adapter = None
        self._adapt()
        self.flashes: list[tuple[str, str]] | None = None
        self._session = session
        self._after_request_functions: list[ft.AfterRequestCallable[Any]] = []
        self._after_response_functions: list[ft.AfterResponseCallable] = []
        # One for each push: the variable's token, and the app context if that push made one.
        self._cv_tokens: list[tuple[SlotToken, AppContext | None]] = []

    def _adapt(self) -> None:
        try:
            self.url_adapter = self.app.create_url_adapter(self.request)
        except HTTPException as error:
            # A bad host name, for example: raised as a routing error, so that error handlers see it.
            self.request.routing_exception = error

    def copy(self) -> RequestContext:
        """Return a context with the same request and session, for another greenlet or thread.

        The request object is shared: threads that use it at once must take turns.
        """
        return self.__class__(
            self.app, environ=self.request.environ, request=self.request, session=self._session
        )

    def match_request(self) -> None:
        """Find the rule for the request; an error is kept and raised when the request is dispatched."""
        try:
            result = self.url_adapter.match(return_rule=True)  # type: ignore[union-attr]
            self.request.url_rule, self.request.view_args = result  # type: ignore[assignment]
            if (compress := getattr(result[0], "compress", None)) is not None:
                # The server that called the app reads it there.
                self.request.environ["hipflask.compress"] = compress
            if "hipflask.route" in self.request.environ:
                # It asks for the rule, for its logs and metrics.
                self.request.environ["hipflask.route"] = result[0].rule
        except HTTPException as error:
            self.request.routing_exception = error

    @property
    def session(self) -> SessionMixin:
        """The session. Reading it counts as an access, which makes the response vary by cookie."""
        session = self._session
        assert session is not None, "The session has not yet been opened."
        session.accessed = True
        return session

    def push(self) -> None:
        """Make this the current request context, and open the session.

        The app's context is pushed too unless the current one is that app's.
        """
        app_ctx = _cv_app.get(None)
        if app_ctx is None or app_ctx.app is not self.app:
            app_ctx = self.app.app_context()
            app_ctx.push()
        else:
            app_ctx = None
        self._cv_tokens.append((_cv_request.set(self), app_ctx))

        # The session comes before the match, so that custom converters can read it.
        if self._session is None:
            interface = self.app.session_interface
            self._session = interface.open_session(self.app, self.request)
            if self._session is None:
                self._session = interface.make_null_session(self.app)
        if self.url_adapter is not None:
            self.match_request()

    def pop(self, exc: BaseException | None = _sentinel) -> None:
        """Undo one `push`; with the last one, call the teardown functions and close the request.

        Args:
            exc: The error that ends the request; by default the one being handled.
        """
        last = len(self._cv_tokens) == 1
        try:
            if last:
                if exc is _sentinel:
                    exc = sys.exc_info()[1]
                self._tear_down(exc)
        finally:
            popped = _cv_request.get()
            token, app_ctx = self._cv_tokens.pop()
            _cv_request.reset(token)
            if last:
                # The environment outlives the request in some servers: break the cycle.
                popped.request.environ["werkzeug.request"] = None
            if app_ctx is not None:
                app_ctx.pop(exc)
            if popped is not self:
                raise AssertionError(f"Popped wrong request context. ({popped!r} instead of {self!r})")

    def _tear_down(self, exc: BaseException | None) -> None:
        self.app.do_teardown_request(exc)
        close = getattr(self.request, "close", None)
        if close is not None:
            close()

    def _finish(self, exc: BaseException | None) -> None:
        """End the request of the frame that this object was made of: the fast lane's `pop`."""
        try:
            self._tear_down(exc)
        finally:
            if self._frame is not None and self._frame.owns_app_context:
                self.app.do_teardown_appcontext(exc)
                signals.send("appcontext_popped", self.app)

    def __enter__(self) -> RequestContext:
        self.push()
        return self

    def __exit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.pop(exc_value)

    def __getattr__(self, name: str) -> Any:
        # Only a context made of a bare frame lacks these.
        if self._frame is not None:
            if name == "_session":
                self._session = self._frame.open_session()
                return self._session
            if name == "url_adapter":
                self.url_adapter = None
                self._adapt()
                return self.url_adapter
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request.url!r} [{self.request.method}] of {self.app.name}>"


# Stands among a context's tokens for the frame that the context was made of: that is undone by the fast lane.
_PUSH_OF_THE_FRAME: Any = None


def _app_context_of(app: Flask, g: _AppCtxGlobals, is_pushed: bool) -> AppContext:
    """Make the app context of a bare frame. Called by `hipflask._core`."""
    context = AppContext.__new__(AppContext)
    context.app = app
    context.g = g
    context._cv_tokens = [_PUSH_OF_THE_FRAME] if is_pushed else []
    return context


def _request_context_of(frame: Frame, app: Flask, request: Request, is_pushed: bool) -> RequestContext:
    """Make the request context of a bare frame. Called by `hipflask._core`."""
    context = RequestContext.__new__(RequestContext)
    context._frame = frame
    context.app = app
    context.request = request
    context.flashes = None
    context._after_request_functions = []
    context._after_response_functions = []
    context._cv_tokens = [_PUSH_OF_THE_FRAME] if is_pushed else []
    return context
