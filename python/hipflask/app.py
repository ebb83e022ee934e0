"""The app: what happens with a request, from the WSGI call to the last teardown function.

Implements `flask.app` (3.1). This is the full lane: every method can be overridden and is called where Flask
calls it. For apps that override none, the engine does the same natively. Set-up is in `hipflask.sansio.app`.
"""

from __future__ import annotations

import os
import sys
import weakref

# The C half of `datetime` is all that a default needs: before 3.12 the other half takes 2 ms to import.
from _datetime import timedelta  # type: ignore[import-not-found]
from collections.abc import Iterator
from functools import cached_property, partial
from types import FunctionType, MethodType

from . import signals
from ._core import UrlFor, add_template_names, bind_environ, quick_url_for
from ._lazy import imported
from .blueprints import _open_resource, _send_static_file
from .ctx import AppContext, RequestContext
from .globals import _cv_app, _cv_request, g, request, request_ctx, session
from .helpers import get_debug_flag, get_load_dotenv
from .sansio.app import App
from .sansio.scaffold import _sentinel, _template_context, setupmethod
from .werkzeug.datastructures import Headers, ImmutableDict
from .werkzeug.exceptions import (
    BadRequestKeyError,
    HTTPException,
    InternalServerError,
    NotFound,
    default_exceptions,
)
from .werkzeug.routing import BuildError, Map, RequestRedirect, RoutingException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import IO, Any, NoReturn

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from . import typing as ft
    from .background import BackgroundTasks
    from .sessions import SessionInterface
    from .templating import Environment
    from .testing import AsyncFlaskClient, FlaskClient, FlaskCliRunner, TestApp
    from .typing import HeadersValue
    from .werkzeug.routing import MapAdapter
    from .wrappers import Request, Response

_CO_COROUTINE = 0x80


def _is_coroutine_function(func: Any) -> bool:
    """Do as `inspect.iscoroutinefunction`, without importing `inspect` for ordinary functions."""
    while True:
        if isinstance(func, MethodType):
            func = func.__func__
        elif isinstance(func, partial):
            func = func.func
        else:
            break
    if type(func) is FunctionType and func.__code__.co_flags & _CO_COROUTINE:
        return True
    if getattr(func, "_is_coroutine_mark", None) is not None:
        from inspect import iscoroutinefunction

        return iscoroutinefunction(func)
    return False


def _is_coroutine_view(view: Any) -> bool:
    """Tell whether a view gives coroutines on the event loop: a coroutine function or a class of such."""
    if _is_coroutine_function(view):
        return True
    cls = getattr(view, "view_class", None)
    # What decorates the function may look at what it returns.
    if cls is None or cls.decorators:
        return False
    from .views import MethodView, http_method_funcs

    if cls.dispatch_request is not MethodView.dispatch_request:
        return _is_coroutine_function(cls.dispatch_request)
    methods = [getattr(cls, name) for name in http_method_funcs if hasattr(cls, name)]
    return bool(methods) and all(map(_is_coroutine_function, methods))


class Flask(App):
    """A web app: a WSGI callable, and what views, hooks, rules and templates are registered on.

    Args:
        import_name: The name of the module that makes the app, usually `__name__`.
        static_url_path: Where static files are served; by default below the folder's name.
        static_folder: The folder of static files, relative to `root_path`; None for no such files.
        static_host: The host that serves them; needed with `host_matching`.
        host_matching: Match rules by host.
        subdomain_matching: Match rules by the subdomain of `SERVER_NAME`.
        template_folder: The folder of templates, relative to `root_path`.
        instance_path: The folder for files of this deployment; by default found beside the module.
        instance_relative_config: Read configuration files from there.
        root_path: What paths are relative to; by default the folder of `import_name`.

    Implements: flask.Flask (3.1).
    """

    default_config = ImmutableDict(
        {
            "DEBUG": None,
            "TESTING": False,
            "PROPAGATE_EXCEPTIONS": None,
            "SECRET_KEY": None,
            "SECRET_KEY_FALLBACKS": None,
            "PERMANENT_SESSION_LIFETIME": timedelta(days=31),
            "USE_X_SENDFILE": False,
            "TRUSTED_HOSTS": None,
            "SERVER_NAME": None,
            "APPLICATION_ROOT": "/",
            "SESSION_COOKIE_NAME": "session",
            "SESSION_COOKIE_DOMAIN": None,
            "SESSION_COOKIE_PATH": None,
            "SESSION_COOKIE_HTTPONLY": True,
            "SESSION_COOKIE_SECURE": False,
            "SESSION_COOKIE_PARTITIONED": False,
            "SESSION_COOKIE_SAMESITE": None,
            "SESSION_REFRESH_EACH_REQUEST": True,
            "MAX_CONTENT_LENGTH": None,
            "MAX_FORM_MEMORY_SIZE": 500_000,
            "MAX_FORM_PARTS": 1_000,
            "SEND_FILE_MAX_AGE_DEFAULT": None,
            "TRAP_BAD_REQUEST_ERRORS": None,
            "TRAP_HTTP_EXCEPTIONS": False,
            "EXPLAIN_TEMPLATE_LOADING": False,
            "PREFERRED_URL_SCHEME": "http",
            "TEMPLATES_AUTO_RELOAD": None,
            "MAX_COOKIE_SIZE": 4093,
            "PROVIDE_AUTOMATIC_OPTIONS": True,
        }
    )
    request_class: type[Request] = imported("wrappers", "Request")  # type: ignore[assignment]
    response_class: type[Response] = imported("wrappers", "Response")  # type: ignore[assignment]
    session_interface: SessionInterface = imported(  # type: ignore[assignment]
        "sessions", "SecureCookieSessionInterface", call=True
    )

    def __init__(
        self,
        import_name: str,
        static_url_path: str | None = None,
        static_folder: str | os.PathLike[str] | None = "static",
        static_host: str | None = None,
        host_matching: bool = False,
        subdomain_matching: bool = False,
        template_folder: str | os.PathLike[str] | None = "templates",
        instance_path: str | None = None,
        instance_relative_config: bool = False,
        root_path: str | None = None,
    ) -> None:
        super().__init__(
            import_name=import_name,
            static_url_path=static_url_path,
            static_folder=static_folder,
            static_host=static_host,
            host_matching=host_matching,
            subdomain_matching=subdomain_matching,
            template_folder=template_folder,
            instance_path=instance_path,
            instance_relative_config=instance_relative_config,
            root_path=root_path,
        )
        # The folder need not exist yet: it may be made while the server runs.
        if self.has_static_folder:
            assert bool(static_host) == host_matching, "Invalid static_host/host_matching combination"
            # The view must not keep the app alive.
            this = weakref.ref(self)

            def static(**values: Any) -> Response:
                return this().send_static_file(**values)  # type: ignore[union-attr]

            # Tells the engine that it may send these files itself.
            static.sends_static_files = True  # type: ignore[attr-defined]
            self.add_url_rule(
                f"{self.static_url_path}/<path:filename>",
                endpoint="static",
                host=static_host,
                view_func=static,
            )

    # Requests, in the order of what happens.

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request as WSGI says. Middleware wraps `wsgi_app`, not this."""
        return self.wsgi_app(environ, start_response)

    @cached_property
    def asgi_app(self) -> Any:
        """The app as an ASGI application, for other servers: `uvicorn module:app.asgi_app`.

        ASGI middleware wraps it: `app.asgi_app = Middleware(app.asgi_app)`.
        """
        from .asgi_app import AsgiApp

        return AsgiApp(self)

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request: push its context, dispatch it, turn errors into responses, pop the context."""
        ctx = self.request_context(environ)
        error: BaseException | None = None
        try:
            try:
                ctx.push()
                response = self.full_dispatch_request()
            except Exception as caught:
                error = caught
                response = self.handle_exception(caught)
            except BaseException as caught:
                error = caught
                raise
            if ctx._after_response_functions or self.after_response_funcs:
                from .background import _schedule

                _schedule(self, ctx, response, environ)
            return response(environ, start_response)
        finally:
            preserve = environ.get("werkzeug.debug.preserve_context")
            if preserve is not None:
                preserve(_cv_app.get())
                preserve(_cv_request.get())
            if error is not None and self.should_ignore_error(error):
                error = None
            ctx.pop(error)

    def full_dispatch_request(self) -> Response:
        """Run hooks and view for the current request and return the response; errors go to their handlers."""
        self._got_first_request = True
        try:
            signals.send("request_started", self)
            rv = self.preprocess_request()
            if rv is None:
                rv = self.dispatch_request()
        except Exception as error:
            rv = self.handle_user_exception(error)
        return self.finalize_request(rv)

    def preprocess_request(self) -> ft.ResponseReturnValue | None:
        """Run the URL value preprocessors and the `before_request` functions, the app's first.

        Returns:
            What the first function returned that did not return None: the rest, and the view, are skipped.
        """
        current = request._get_current_object()  # type: ignore[attr-defined]
        names = (None, *reversed(current.blueprints))
        for name in names:
            for preprocess in self.url_value_preprocessors.get(name, ()):
                preprocess(current.endpoint, current.view_args)
        for name in names:
            for before in self.before_request_funcs.get(name, ()):
                rv = self.ensure_sync(before)()
                if rv is not None:
                    return rv  # type: ignore[no-any-return]
        return None

    def dispatch_request(self) -> ft.ResponseReturnValue:
        """Call the view of the current request and return what it returns.

        Raises:
            HTTPException: If no rule matched the request.
        """
        current = request._get_current_object()  # type: ignore[attr-defined]
        if current.routing_exception is not None:
            if self._static_fallback is not None and self._is_for_a_page(current):
                return self.send_static_file(self._static_fallback)
            self.raise_routing_exception(current)
        rule = current.url_rule
        if current.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
            return self.make_default_options_response()
        view = self.ensure_sync(self.view_functions[rule.endpoint])
        return view(**current.view_args)  # type: ignore[no-any-return]

    def raise_routing_exception(self, request: Request) -> NoReturn:
        """Raise the error that routing left on the request.

        In debug mode a redirect that would lose a form's data is raised as `FormDataRoutingRedirect` instead.
        """
        error = request.routing_exception
        if (
            not self.debug
            or not isinstance(error, RequestRedirect)
            or error.code in {307, 308}
            or request.method in {"GET", "HEAD", "OPTIONS"}
        ):
            raise error  # type: ignore[misc]
        from .debughelpers import FormDataRoutingRedirect

        raise FormDataRoutingRedirect(request)

    def make_default_options_response(self) -> Response:
        """Answer OPTIONS with the methods that the URL has."""
        response = self.response_class()
        response.allow.update(request_ctx.url_adapter.allowed_methods())  # type: ignore[union-attr]
        return response

    def handle_user_exception(self, e: Exception) -> HTTPException | ft.ResponseReturnValue:
        """Find what to answer for an error in a view or hook: its handler's result, or an HTTP error itself.

        Raises:
            Exception: The error again if nothing handles it.
        """
        if isinstance(e, BadRequestKeyError) and (self.debug or self.config["TRAP_BAD_REQUEST_ERRORS"]):
            e.show_exception = True
        if isinstance(e, HTTPException) and not self.trap_http_exception(e):
            return self.handle_http_exception(e)
        handler = self._find_error_handler(e, request.blueprints)
        if handler is not None:
            return self.ensure_sync(handler)(e)  # type: ignore[no-any-return]
        ours = _of_real_werkzeug(e)
        if ours is not None and not self.trap_http_exception(ours):
            return self.handle_http_exception(ours)
        raise e

    def handle_http_exception(self, e: HTTPException) -> HTTPException | ft.ResponseReturnValue:
        """Return what the handler for an HTTP error returns, or the error, which is a response of its own."""
        # An error without a code is a response wrapped up; a routing exception is a redirect of ours.
        if e.code is None or isinstance(e, RoutingException):
            return e
        handler = self._find_error_handler(e, request.blueprints)
        if handler is None:
            return e
        return self.ensure_sync(handler)(e)  # type: ignore[no-any-return]

    def handle_exception(self, e: Exception) -> Response:
        """Answer an error that nothing handled with 500, and log it.

        In debug mode and in tests (or as `PROPAGATE_EXCEPTIONS` says) it is raised instead. A handler for 500
        gets an `InternalServerError` with the error as its `original_exception`.
        """
        exc_info = sys.exc_info()
        signals.send("got_request_exception", self, exception=e)
        propagate = self.config["PROPAGATE_EXCEPTIONS"]
        if propagate is None:
            propagate = self.testing or self.debug
        if propagate:
            # The error being handled keeps its traceback.
            if exc_info[1] is e:
                raise
            raise e

        self.log_exception(exc_info)
        server_error: Any = InternalServerError(original_exception=e)
        handler = self._find_error_handler(server_error, request.blueprints)
        if handler is not None:
            server_error = self.ensure_sync(handler)(server_error)
        return self.finalize_request(server_error, from_error_handler=True)

    def log_exception(
        self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]
    ) -> None:
        """Log an error that became a 500, with its traceback. Override it to log elsewhere."""
        self.logger.error(f"Exception on {request.path} [{request.method}]", exc_info=exc_info)

    def finalize_request(
        self, rv: ft.ResponseReturnValue | HTTPException, from_error_handler: bool = False
    ) -> Response:
        """Turn a view's return value into a response, and run the hooks on it.

        Args:
            rv: The value.
            from_error_handler: Log errors of the hooks instead of raising them.
        """
        response = self.make_response(rv)
        try:
            response = self.process_response(response)
            signals.send("request_finished", self, response=response)
        except Exception:
            if not from_error_handler:
                raise
            self.logger.exception("Request finalizing failed with an error while handling an error")
        return response

    def make_response(self, rv: ft.ResponseReturnValue) -> Response:
        """Turn what a view returned into a response.

        Args:
            rv: A string, bytes, dict, list, iterator or async iterator of strings or bytes, response, WSGI
                callable, or a tuple `(body, status)`, `(body, headers)` or `(body, status, headers)`.

        Raises:
            TypeError: For anything else.
        """
        value: Any = rv
        status: Any = None
        headers: HeadersValue | None = None
        if isinstance(value, tuple):
            if len(value) == 3:
                value, status, headers = value
            elif len(value) != 2:
                raise TypeError(
                    "The view function did not return a valid response tuple. The tuple must have the form"
                    " (body, status, headers), (body, status), or (body, headers)."
                )
            elif isinstance(value[1], (Headers, dict, tuple, list)):
                value, headers = value
            else:
                value, status = value

        kind = type(value)
        if kind is dict or kind is list:
            # Before the others: it takes long to find out that a dictionary is no iterator.
            response = self.json.response(value)
        elif isinstance(value, self.response_class):
            response = value
        elif isinstance(value, (str, bytes, bytearray, Iterator)):
            # The constructor sets status and headers.
            return self.response_class(value, status, headers)  # type: ignore[arg-type]
        elif isinstance(value, (dict, list)):
            response = self.json.response(value)
        elif hasattr(value, "__aiter__"):
            return self.response_class(value, status, headers)
        elif value is None:
            raise TypeError(
                f"The view function for {request.endpoint!r} did not return a valid response. The function"
                " either returned None or ended without a return statement."
            )
        else:
            response = self._force_response(value)

        if status is not None:
            if isinstance(status, (str, bytes, bytearray)):
                response.status = status  # type: ignore[assignment]
            else:
                response.status_code = status
        if headers:
            response.headers.update(headers)
        return response

    def _force_response(self, value: Any) -> Response:
        allowed = (
            "The view function did not return a valid response. The return type must be a string, dict, list,"
            " tuple with headers or status, Response instance, or WSGI callable, but it was a"
            f" {type(value).__name__}."
        )
        if not callable(value):
            raise TypeError(allowed)
        try:
            # A response of another class, or any WSGI app.
            return self.response_class.force_type(value, request.environ)
        except TypeError as error:
            raise TypeError(f"{error}\n{allowed}").with_traceback(error.__traceback__) from None

    def process_response(self, response: Response) -> Response:
        """Run the `after_request` functions on the response, innermost first, and save the session in it."""
        ctx = request_ctx._get_current_object()
        for after in ctx._after_request_functions:
            response = self.ensure_sync(after)(response)
        table = self.after_request_funcs
        if table:
            for name in (*ctx.request.blueprints, None):
                for after in reversed(table.get(name, ())):
                    response = self.ensure_sync(after)(response)
        interface = self.session_interface
        if not interface.is_null_session(ctx._session):
            interface.save_session(self, ctx._session, response)
        return response

    def do_teardown_request(self, exc: BaseException | None = _sentinel) -> None:
        """Run the `teardown_request` functions, innermost first. The request's context calls it when it ends.

        Args:
            exc: The unhandled error; by default the one being handled.
        """
        if exc is _sentinel:
            exc = sys.exc_info()[1]
        table = self.teardown_request_funcs
        if table:
            for name in (*request.blueprints, None):
                for teardown in reversed(table.get(name, ())):
                    self.ensure_sync(teardown)(exc)
        signals.send("request_tearing_down", self, exc=exc)

    def do_teardown_appcontext(self, exc: BaseException | None = _sentinel) -> None:
        """Run the `teardown_appcontext` functions, last first. The app's context calls it when it ends.

        Args:
            exc: The unhandled error; by default the one being handled.
        """
        if exc is _sentinel:
            exc = sys.exc_info()[1]
        for teardown in reversed(self.teardown_appcontext_funcs):
            self.ensure_sync(teardown)(exc)
        signals.send("appcontext_tearing_down", self, exc=exc)

    # Contexts.

    def app_context(self) -> AppContext:
        """Make an app context, for `with`: inside, `current_app` is this app."""
        return AppContext(self)

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        """Make a request context for a WSGI environment."""
        return RequestContext(self, environ)

    def test_request_context(self, *args: Any, **kwargs: Any) -> RequestContext:
        """Make a request context for a made-up request; the arguments are those of `EnvironBuilder`."""
        from .testing import EnvironBuilder

        builder = EnvironBuilder(self, *args, **kwargs)
        try:
            return self.request_context(builder.get_environ())
        finally:
            builder.close()

    # Async functions.

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`, wrapped by `async_to_sync` if it is a coroutine function."""
        return self.async_to_sync(func) if _is_coroutine_function(func) else func

    def async_to_sync(self, func: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """Return a function that runs a coroutine function to its end. Override it to use another loop.

        It runs on the one loop of the process; in a request of an async test client, on the client's loop.
        The calling thread waits.
        """
        from .loop import is_collecting_here, to_sync

        return func if is_collecting_here() else to_sync(func)

    # Work beside requests.

    @cached_property
    def background_tasks(self) -> BackgroundTasks:
        """The work that was given to `background` and `after_response`: how much waits and runs."""
        from .background import BackgroundTasks

        return BackgroundTasks(self)

    def background(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function soon, on a thread beside the requests, and return at once.

        It runs in an app context of its own and a copy of the caller's context variables; there is no
        request. An error is logged. When the process is told to stop, what runs and what waits is finished
        first, for as long as requests are.

        Args:
            func: A function, or a coroutine function.
            args: Passed to it.
            kwargs: Passed to it.

        Returns:
            A future for the result. Nobody has to look at it.

        Raises:
            BackgroundQueueFull: If `BACKGROUND_QUEUE` tasks (1024) wait already.
        """
        future = self.background_tasks._submit(self, func, args, kwargs)
        current = request._get_current_object() if _cv_request.bound() else None  # type: ignore[attr-defined]
        if current is not None and getattr(current, "_has_environ", True):
            held = current.environ.get("hipflask.after_response")
            if hasattr(held, "is_streamed"):
                held.tasks.append(future)
        return future

    # URLs.

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Bind the URL map to a request, or to `SERVER_NAME` when there is no request.

        Raises:
            SecurityError: If the request's host is not one of `TRUSTED_HOSTS`.
        """
        config = self.config
        if request is None:
            if config["SERVER_NAME"] is None:
                return None
            return self.url_map.bind(
                config["SERVER_NAME"],
                script_name=config["APPLICATION_ROOT"],
                url_scheme=config["PREFERRED_URL_SCHEME"],
            )

        if config["TRUSTED_HOSTS"] is not None:
            request.trusted_hosts = config["TRUSTED_HOSTS"]
        server_name = config["SERVER_NAME"]
        subdomain = None
        if self.url_map.host_matching:
            # With a server's name the request's host would be ignored.
            server_name = None
        elif not self.subdomain_matching:
            subdomain = self.url_map.default_subdomain or ""
            lacking = not getattr(request, "_has_environ", True)
            if lacking and server_name is None and "Upgrade" not in request.headers:
                # The same as below, without making an environment of the engine's request.
                return self.url_map.bind(
                    request.host,
                    script_name=request.root_path,
                    subdomain=subdomain,
                    url_scheme=request.scheme,
                    default_method=request.method,
                    path_info=request.path,
                    query_args=request.query_string.decode(errors="replace"),
                )

            if server_name is None and type(self.url_map) is Map and request.trusted_hosts is None:
                adapter: MapAdapter | None = bind_environ(self.url_map, request.environ, subdomain)
                if adapter is not None:
                    return adapter

        from .werkzeug.wsgi import get_host

        environ = request.environ
        request.host = get_host(environ, request.trusted_hosts)
        return self.url_map.bind_to_environ(environ, server_name=server_name, subdomain=subdomain)

    def url_for(
        self,
        /,
        endpoint: str,
        *,
        _anchor: str | None = None,
        _method: str | None = None,
        _scheme: str | None = None,
        _external: bool | None = None,
        **values: Any,
    ) -> str:
        """Build the URL of an endpoint.

        Args:
            endpoint: The endpoint's name; one that begins with a dot is looked up in the current blueprint.
            _anchor: Put after a `#`.
            _method: Take the endpoint's rule for this method.
            _scheme: Put before an external URL.
            _external: Include scheme and host; so it is by default where there is no request.
            values: The rule's variables; others make the query string.

        Raises:
            BuildError: If there is no such endpoint, or a value is missing or wrong.
            RuntimeError: If there is neither a request nor a `SERVER_NAME`.
            ValueError: For `_scheme` without `_external`.
        """
        quick = quick_url_for(self, endpoint, values, _anchor, _method, _scheme, _external)
        if quick is not None:
            return quick
        req_ctx = _cv_request.get(None)
        if req_ctx is not None:
            url_adapter = req_ctx.url_adapter
            if endpoint[:1] == ".":
                blueprint = req_ctx.request.blueprint
                endpoint = endpoint[1:] if blueprint is None else f"{blueprint}{endpoint}"
            if _external is None:
                _external = _scheme is not None
        else:
            app_ctx = _cv_app.get(None)
            url_adapter = self.create_url_adapter(None) if app_ctx is None else app_ctx.url_adapter
            if url_adapter is None:
                raise RuntimeError(
                    "Unable to build URLs outside an active request without 'SERVER_NAME' configured. Also"
                    " configure 'APPLICATION_ROOT' and 'PREFERRED_URL_SCHEME' as needed."
                )
            if _external is None:
                _external = True
        if _scheme is not None and not _external:
            raise ValueError("When specifying '_scheme', '_external' must be True.")

        self.inject_url_defaults(endpoint, values)
        return self._build_url(url_adapter, endpoint, values, _anchor, _method, _scheme, _external)  # type: ignore[arg-type]

    def _build_url(
        self,
        url_adapter: MapAdapter,
        endpoint: str,
        values: dict[str, Any],
        anchor: str | None,
        method: str | None,
        scheme: str | None,
        external: bool,
    ) -> str:
        """What `url_for` does once defaults are among the values; the native one may end here."""
        try:
            url = url_adapter.build(
                endpoint, values, method=method, url_scheme=scheme, force_external=external
            )
        except BuildError as error:
            values.update(_anchor=anchor, _method=method, _scheme=scheme, _external=external)
            return self.handle_url_build_error(error, endpoint, values)
        if anchor is not None:
            from urllib.parse import quote

            url += "#" + quote(anchor, safe="%!#$&'()*+,/:;=?@")
        return url

    # Files.

    def send_static_file(self, filename: str) -> Response:
        """The view of the static files' rule.

        Raises:
            RuntimeError: If there is no static folder.
            NotFound: If there is no such file, or it is a link that leads out of the folder.
        """
        return _send_static_file(self, filename)

    _static_fallback: str | None = None

    @setupmethod
    def static_fallback(self, filename: str = "index.html") -> None:
        """Answer pages that no rule matches with a static file: for single-page applications.

        A request is for a page if it is a GET or HEAD, names `text/html` in its `Accept` field, as browsers
        do when they navigate, and the last part of its path has no dot. All others, of scripts and for
        missing files, are still 404, and so is what a view aborts with.

        Args:
            filename: Of the file, relative to `static_folder`.
        """
        self._static_fallback = filename

    @staticmethod
    def _is_for_a_page(request: Request) -> bool:
        """Tell whether `static_fallback` is the answer. The engine does the same by itself where it may."""
        return (
            request.method in {"GET", "HEAD"}
            and type(request.routing_exception) is NotFound
            and "." not in request.path.rpartition("/")[2]
            and any(kind == "text/html" and quality > 0 for kind, quality in request.accept_mimetypes)
        )

    def open_resource(self, resource: str, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        """Open a file for reading, relative to the app's root.

        Raises:
            ValueError: For a mode other than `"r"`, `"rt"` and `"rb"`.
        """
        return _open_resource(self.root_path, resource, mode, encoding)

    def open_instance_resource(
        self, resource: str, mode: str = "rb", encoding: str | None = "utf-8"
    ) -> IO[Any]:
        """Open a file of the instance folder, for reading or writing."""
        path = os.path.join(self.instance_path, resource)
        return open(path, mode) if "b" in mode else open(path, mode, encoding=encoding)

    # Templates.

    def create_jinja_environment(self) -> Environment:
        """Make `jinja_env`: Jinja's environment with the app's options, loader and global names."""
        options = dict(self.jinja_options)
        options.setdefault("autoescape", self.select_jinja_autoescape)
        if "auto_reload" not in options:
            auto_reload = self.config["TEMPLATES_AUTO_RELOAD"]
            options["auto_reload"] = self.debug if auto_reload is None else auto_reload
        environment = self.jinja_environment(self, **options)
        from .helpers import get_flashed_messages

        environment.globals.update(
            url_for=UrlFor(self) if self._builds_urls_itself() else self.url_for,
            get_flashed_messages=get_flashed_messages,
            config=self.config,
            # A rendered template gets the objects themselves; imported ones have these proxies.
            request=request,
            session=session,
            g=g,
        )
        environment.policies["json.dumps_function"] = self.json.dumps
        return environment

    def _builds_urls_itself(self) -> bool:
        return type(self).url_for is Flask.url_for and "url_for" not in self.__dict__

    def update_template_context(self, context: dict[str, Any]) -> None:
        """Add what the context processors return to a template's variables, which win over it."""
        table = self.template_context_processors
        if len(table) == 1 and table.get(None) == [_template_context]:
            add_template_names(context)
            return
        given = context.copy()
        names: tuple[str | None, ...] = (None,)
        if request:
            names = (None, *reversed(request.blueprints))
        for name in names:
            for processor in self.template_context_processors.get(name, ()):
                context.update(self.ensure_sync(processor)())
        context.update(given)

    # Tools.

    def make_shell_context(self) -> dict[str, Any]:
        """Return the names that `flask shell` starts with."""
        names: dict[str, Any] = {"app": self, "g": g}
        for processor in self.shell_context_processors:
            names.update(processor())
        return names

    def test_client(self, use_cookies: bool = True, **kwargs: Any) -> FlaskClient:
        """Make a client that sends requests to the app without a server."""
        cls: Any = self.test_client_class
        if cls is None:
            from .testing import FlaskClient as cls
        return cls(self, self.response_class, use_cookies=use_cookies, **kwargs)  # type: ignore[no-any-return]

    def async_test_client(self, use_cookies: bool = True, **kwargs: Any) -> AsyncFlaskClient:
        """Make a client whose requests are awaited; coroutine views run on the loop of whoever awaits.

        The arguments are those of `test_client`.
        """
        from .testing import AsyncFlaskClient

        return AsyncFlaskClient(self.test_client(use_cookies, **kwargs))

    def test_app(self) -> TestApp:
        """Run what the app does around the time that it serves, in a test: for `with` or `async with`."""
        from .testing import TestApp

        return TestApp(self)

    def test_cli_runner(self, **kwargs: Any) -> FlaskCliRunner:
        """Make a runner of the app's commands."""
        cls: Any = self.test_cli_runner_class
        if cls is None:
            from .testing import FlaskCliRunner as cls
        return cls(self, **kwargs)  # type: ignore[no-any-return]

    def run(
        self,
        host: str | None = None,
        port: int | None = None,
        debug: bool | None = None,
        load_dotenv: bool = True,
        **options: Any,
    ) -> None:
        """Serve the app for development.

        Args:
            host: The address; by default that of `SERVER_NAME`, or 127.0.0.1.
            port: The port; by default that of `SERVER_NAME`, or 5000.
            debug: Set debug mode.
            load_dotenv: Read `.env` and `.flaskenv` first.
            options: Passed to the server: `use_reloader`, `use_debugger`, `threaded`, `ssl_context`, ...
        """
        from .werkzeug.serving import is_running_from_reloader

        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
            # The command that imports this app will serve it.
            if not is_running_from_reloader():
                from click import secho

                secho(
                    " * Ignoring a call to 'app.run()' that would block the current 'flask' CLI command.\n"
                    "   Only call 'app.run()' in an 'if __name__ == \"__main__\"' guard.",
                    fg="red",
                )
            return

        reloaded = is_running_from_reloader()
        if get_load_dotenv(load_dotenv):
            if not reloaded:
                # Afterwards the variables are inherited.
                from .cli import load_dotenv as load_files

                load_files()
            if "FLASK_DEBUG" in os.environ:
                self.debug = get_debug_flag()
        if debug is not None:
            self.debug = bool(debug)

        named_host, _, named_port = (self.config.get("SERVER_NAME") or "").partition(":")
        host = host or named_host or "127.0.0.1"
        if port is None:
            port = named_port or 5000  # type: ignore[assignment]
        options.setdefault("use_reloader", self.debug)
        options.setdefault("use_debugger", self.debug)
        options.setdefault("threaded", True)

        if not reloaded:
            from .cli import show_server_banner

            show_server_banner(self.debug, self.name)
        from .werkzeug.serving import run_simple

        try:
            run_simple(host, int(port), self, **options)  # type: ignore[arg-type]
        finally:
            # An interactive session may change the app and run it again.
            self._got_first_request = False


def _of_real_werkzeug(error: Exception) -> HTTPException | None:
    """Return our likeness of an HTTP error of the installed Werkzeug, which libraries may raise beside us."""
    module = sys.modules.get("werkzeug.exceptions")
    theirs = getattr(module, "HTTPException", None)
    if theirs is None or theirs is HTTPException or not isinstance(error, theirs):
        return None
    cls = default_exceptions.get(error.code, HTTPException)
    ours = cls(description=error.description, response=error.response)
    ours.code = error.code
    ours.__cause__ = error
    return ours
