"""What an app and a blueprint have in common: routes, hooks, error handlers, a place in the file system.

Implements `flask.sansio.scaffold` (3.1). Everything here runs at set-up time.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from functools import cached_property, update_wrapper

from .._core import app_changed
from ..helpers import get_root_path
from ..werkzeug.exceptions import HTTPException, default_exceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from click import Group
    from jinja2 import BaseLoader

    from .. import typing as ft

    F = TypeVar("F", bound=Callable[..., Any])
    T_after_request = TypeVar("T_after_request", bound=ft.AfterRequestCallable[Any])
    T_after_response = TypeVar("T_after_response", bound=ft.AfterResponseCallable)
    T_before_request = TypeVar("T_before_request", bound=ft.BeforeRequestCallable)
    T_error_handler = TypeVar("T_error_handler", bound=ft.ErrorHandlerCallable)
    T_teardown = TypeVar("T_teardown", bound=ft.TeardownCallable)
    T_template_context_processor = TypeVar(
        "T_template_context_processor", bound=ft.TemplateContextProcessorCallable
    )
    T_url_defaults = TypeVar("T_url_defaults", bound=ft.URLDefaultCallable)
    T_url_value_preprocessor = TypeVar("T_url_value_preprocessor", bound=ft.URLValuePreprocessorCallable)
    T_route = TypeVar("T_route", bound=ft.RouteCallable)

# Stands for "not given" where None means something.
_sentinel: Any = object()


def setupmethod(f: F) -> F:
    """Mark a method that changes the set-up: it fails once the object is in use."""
    name = f.__name__

    def wrapper(self: Scaffold, *args: Any, **kwargs: Any) -> Any:
        self._check_setup_finished(name)
        try:
            return f(self, *args, **kwargs)
        finally:
            app_changed()

    return update_wrapper(wrapper, f)  # type: ignore[return-value]


def _template_context() -> dict[str, Any]:
    from ..templating import _default_template_ctx_processor

    return _default_template_ctx_processor()


def _error_table() -> dict[int | None, dict[type[Exception], ft.ErrorHandlerCallable]]:
    return defaultdict(dict)


class Scaffold:
    """The common part of `Flask` and `Blueprint`.

    Args:
        import_name: The name of the module that makes the object, usually `__name__`.
        static_folder: A folder of files to serve, relative to `root_path`.
        static_url_path: Where to serve them; by default below the folder's name.
        template_folder: A folder of templates, relative to `root_path`.
        root_path: What paths are relative to; by default the folder of `import_name`.
    """

    name: str
    _static_folder: str | None = None
    _static_url_path: str | None = None

    def __init__(
        self,
        import_name: str,
        static_folder: str | os.PathLike[str] | None = None,
        static_url_path: str | None = None,
        template_folder: str | os.PathLike[str] | None = None,
        root_path: str | None = None,
    ) -> None:
        self.import_name = import_name
        self.static_folder = static_folder
        self.static_url_path = static_url_path
        self.template_folder = template_folder
        self.root_path = get_root_path(import_name) if root_path is None else root_path

        # View functions by endpoint.
        self.view_functions: dict[str, ft.RouteCallable] = {}
        # The tables below are keyed by blueprint name; None stands for the whole app.
        self.error_handler_spec: dict[
            ft.AppOrBlueprintKey, dict[int | None, dict[type[Exception], ft.ErrorHandlerCallable]]
        ] = defaultdict(_error_table)
        self.before_request_funcs: dict[ft.AppOrBlueprintKey, list[ft.BeforeRequestCallable]] = defaultdict(
            list
        )
        self.after_request_funcs: dict[ft.AppOrBlueprintKey, list[ft.AfterRequestCallable[Any]]] = (
            defaultdict(list)
        )
        self.after_response_funcs: dict[ft.AppOrBlueprintKey, list[ft.AfterResponseCallable]] = defaultdict(
            list
        )
        self.teardown_request_funcs: dict[ft.AppOrBlueprintKey, list[ft.TeardownCallable]] = defaultdict(list)
        self.template_context_processors: dict[
            ft.AppOrBlueprintKey, list[ft.TemplateContextProcessorCallable]
        ] = defaultdict(list, {None: [_template_context]})
        self.url_value_preprocessors: dict[ft.AppOrBlueprintKey, list[ft.URLValuePreprocessorCallable]] = (
            defaultdict(list)
        )
        self.url_default_functions: dict[ft.AppOrBlueprintKey, list[ft.URLDefaultCallable]] = defaultdict(
            list
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _check_setup_finished(self, f_name: str) -> None:
        raise NotImplementedError

    @cached_property
    def cli(self) -> Group:
        """The click group for commands of this object. It is made, and click imported, when first used."""
        from ..cli import AppGroup

        return AppGroup(name=self.name)

    @property
    def static_folder(self) -> str | None:
        """The absolute path of the folder of static files, or None."""
        if self._static_folder is None:
            return None
        return os.path.join(self.root_path, self._static_folder)

    @static_folder.setter
    def static_folder(self, value: str | os.PathLike[str] | None) -> None:
        self._static_folder = None if value is None else os.fspath(value).rstrip(r"\/")
        app_changed()

    @property
    def has_static_folder(self) -> bool:
        """Whether there is a folder of static files."""
        return self.static_folder is not None

    @property
    def static_url_path(self) -> str | None:
        """The prefix of the URLs of static files; by default made of the folder's name."""
        if self._static_url_path is not None:
            return self._static_url_path
        if self.static_folder is None:
            return None
        return f"/{os.path.basename(self.static_folder)}".rstrip("/")

    @static_url_path.setter
    def static_url_path(self, value: str | None) -> None:
        self._static_url_path = None if value is None else value.rstrip("/")

    @cached_property
    def jinja_loader(self) -> BaseLoader | None:
        """Loads templates from the object's template folder, or None if it has none."""
        if self.template_folder is None:
            return None
        from jinja2 import FileSystemLoader

        return FileSystemLoader(os.path.join(self.root_path, self.template_folder))

    def get_send_file_max_age(self, filename: str | None) -> int | None:
        """Return for how many seconds browsers may keep a file; None means that they ask each time.

        The default is the configuration's `SEND_FILE_MAX_AGE_DEFAULT`; override it to decide by file name.
        """
        from ..globals import current_app

        value = current_app.config["SEND_FILE_MAX_AGE_DEFAULT"]
        return int(value.total_seconds()) if hasattr(value, "total_seconds") else value

    def _method_route(self, method: str, rule: str, options: dict[str, Any]) -> Callable[[T_route], T_route]:
        if "methods" in options:
            raise TypeError("Use the 'route' decorator to use the 'methods' argument.")
        return self.route(rule, methods=[method], **options)

    @setupmethod
    def get(self, rule: str, **options: Any) -> Callable[[T_route], T_route]:
        """Do as `route` with `methods=["GET"]`."""
        return self._method_route("GET", rule, options)

    @setupmethod
    def post(self, rule: str, **options: Any) -> Callable[[T_route], T_route]:
        """Do as `route` with `methods=["POST"]`."""
        return self._method_route("POST", rule, options)

    @setupmethod
    def put(self, rule: str, **options: Any) -> Callable[[T_route], T_route]:
        """Do as `route` with `methods=["PUT"]`."""
        return self._method_route("PUT", rule, options)

    @setupmethod
    def delete(self, rule: str, **options: Any) -> Callable[[T_route], T_route]:
        """Do as `route` with `methods=["DELETE"]`."""
        return self._method_route("DELETE", rule, options)

    @setupmethod
    def patch(self, rule: str, **options: Any) -> Callable[[T_route], T_route]:
        """Do as `route` with `methods=["PATCH"]`."""
        return self._method_route("PATCH", rule, options)

    @setupmethod
    def route(self, rule: str, **options: Any) -> Callable[[T_route], T_route]:
        """Decorate a view function: call it for requests whose path matches `rule`.

        Args:
            rule: The path, with variable parts such as `<int:id>`.
            options: `methods`, `endpoint` and whatever else `add_url_rule` takes.
        """

        def decorator(f: T_route) -> T_route:
            endpoint = options.pop("endpoint", None)
            self.add_url_rule(rule, endpoint, f, **options)
            return f

        return decorator

    @setupmethod
    def websocket(
        self,
        rule: str,
        *,
        subprotocols: Iterable[str] = (),
        origins: str | Iterable[str] | None = None,
        max_message_size: int | None = None,
        compression: bool | None = None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        **options: Any,
    ) -> Callable[[F], F]:
        """Decorate a view of WebSockets: call it with a socket, and the values from the URL.

        A sync function gets a `hipflask.websocket.WebSocket`, an `async def` function an `AsyncWebSocket`.
        What is not given is taken from the configuration.

        Args:
            rule: The path, with variable parts such as `<room>`.
            subprotocols: Those that the view speaks, the favourite first.
            origins: Pages that may connect, such as `https://example.com`; `"*"` lets all. By default
                `WEBSOCKET_ORIGINS`, else only pages of the same host.
            max_message_size: The most bytes of a message from the client; `WEBSOCKET_MAX_MESSAGE_SIZE`,
                1 MiB.
            compression: Whether messages may be compressed; `WEBSOCKET_COMPRESSION`, True.
            ping_interval: Seconds between pings, 0 for none; `WEBSOCKET_PING_INTERVAL`, 25.
            ping_timeout: Seconds that a client has to answer one; `WEBSOCKET_PING_TIMEOUT`, 20.
            options: `endpoint` and whatever else `add_url_rule` takes.
        """

        def decorator(f: F) -> F:
            from ..websocket import Options, view_of

            endpoint = options.pop("endpoint", None)
            given = Options(subprotocols, origins, max_message_size, compression, ping_interval, ping_timeout)
            options.setdefault("provide_automatic_options", False)
            self.add_url_rule(rule, endpoint, view_of(f, given), websocket=True, **options)
            return f

        return decorator

    @setupmethod
    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: ft.RouteCallable | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Register a rule for routing and for building URLs.

        Args:
            rule: The path, with variable parts such as `<int:id>`.
            endpoint: The rule's name; by default that of the view function.
            view_func: What to call; it can also be registered later with `endpoint`.
            provide_automatic_options: Whether OPTIONS is answered without the view.
            options: `compress`, whether the server compresses the responses (True: whoever they are for,
                since they hold no secret; False: never). All others are passed to the rule: `methods`,
                `defaults`, `subdomain`, `host`, `strict_slashes`, ...

        Raises:
            AssertionError: If the endpoint has another view function already.
        """
        raise NotImplementedError

    @setupmethod
    def endpoint(self, endpoint: str) -> Callable[[F], F]:
        """Decorate the view function of a rule that was added by endpoint name only."""

        def decorator(f: F) -> F:
            self.view_functions[endpoint] = f
            return f

        return decorator

    @setupmethod
    def before_request(self, f: T_before_request) -> T_before_request:
        """Call `f` before each request; anything but None that it returns is the response.

        On a blueprint: before each request that the blueprint handles. So it is with the other hooks.
        """
        self.before_request_funcs.setdefault(None, []).append(f)
        return f

    @setupmethod
    def after_request(self, f: T_after_request) -> T_after_request:
        """Call `f` with each response; it returns the response to send. Not called when an error escapes."""
        self.after_request_funcs.setdefault(None, []).append(f)
        return f

    @setupmethod
    def after_response(self, f: T_after_response) -> T_after_response:
        """Call `f` with each response once it is out. What it returns is ignored, its errors are logged.

        It runs beside later requests, in a copy of the request's context: see `hipflask.after_response`.
        """
        self.after_response_funcs.setdefault(None, []).append(f)
        return f

    @setupmethod
    def teardown_request(self, f: T_teardown) -> T_teardown:
        """Call `f` when a request's context ends, with the unhandled error or None. It must not raise."""
        self.teardown_request_funcs.setdefault(None, []).append(f)
        return f

    @setupmethod
    def context_processor(self, f: T_template_context_processor) -> T_template_context_processor:
        """Add what `f` returns, a dict, to the variables of each rendered template."""
        self.template_context_processors[None].append(f)
        return f

    @setupmethod
    def url_value_preprocessor(self, f: T_url_value_preprocessor) -> T_url_value_preprocessor:
        """Call `f` with the endpoint and the URL's values of each request; it may change the values."""
        self.url_value_preprocessors[None].append(f)
        return f

    @setupmethod
    def url_defaults(self, f: T_url_defaults) -> T_url_defaults:
        """Call `f` with the endpoint and values of each URL that is built; it may add values."""
        self.url_default_functions[None].append(f)
        return f

    @setupmethod
    def errorhandler(
        self, code_or_exception: type[Exception] | int
    ) -> Callable[[T_error_handler], T_error_handler]:
        """Decorate a function that makes a response of an error.

        Args:
            code_or_exception: An HTTP status code or an exception class.
        """

        def decorator(f: T_error_handler) -> T_error_handler:
            self.register_error_handler(code_or_exception, f)
            return f

        return decorator

    @setupmethod
    def register_error_handler(
        self, code_or_exception: type[Exception] | int, f: ft.ErrorHandlerCallable
    ) -> None:
        """Do as `errorhandler`, without a decorator.

        Raises:
            ValueError: For a code that is no HTTP error, or a class that is no exception.
            TypeError: For an exception object.
        """
        exc_class, code = self._get_exc_class_and_code(code_or_exception)
        self.error_handler_spec[None][code][exc_class] = f

    @staticmethod
    def _get_exc_class_and_code(
        exc_class_or_code: type[Exception] | int,
    ) -> tuple[type[Exception], int | None]:
        exc_class: type[Exception]
        if isinstance(exc_class_or_code, int):
            try:
                exc_class = default_exceptions[exc_class_or_code]
            except KeyError:
                raise ValueError(
                    f"'{exc_class_or_code}' is not a recognized HTTP error code."
                    " Use a subclass of HTTPException with that code instead."
                ) from None
        else:
            exc_class = exc_class_or_code

        only = "Handlers can only be registered for Exception classes or HTTP error codes."
        if isinstance(exc_class, Exception):
            raise TypeError(f"{exc_class!r} is an instance, not a class. {only}")
        if not issubclass(exc_class, Exception):
            raise ValueError(f"'{exc_class.__name__}' is not a subclass of Exception. {only}")
        return exc_class, exc_class.code if issubclass(exc_class, HTTPException) else None


def _endpoint_from_view_func(view_func: ft.RouteCallable | None) -> str:
    assert view_func is not None, "expected view func if endpoint is not provided."
    return view_func.__name__


def _find_package_path(import_name: str) -> str:
    """Return the folder that `import_name` would be imported from."""
    from importlib.util import find_spec

    try:
        spec = find_spec(import_name.partition(".")[0])
    except (ImportError, ValueError):
        # The name is invalid, or it is `__main__`, which has no spec.
        spec = None
    if spec is None:
        return os.getcwd()
    if not spec.submodule_search_locations:
        return os.path.dirname(spec.origin or "")
    if spec.origin is not None and spec.origin != "namespace":
        return os.path.dirname(os.path.dirname(spec.origin))

    # A namespace package has several folders: take the one that holds the module.
    locations = list(spec.submodule_search_locations)
    inner = find_spec(import_name)
    if inner is not None and inner.submodule_search_locations:
        inside = os.path.commonpath(list(inner.submodule_search_locations))
        for location in locations:
            if os.path.commonpath([inside, location]) == os.path.normpath(location):
                return os.path.dirname(location)
    return os.path.dirname(locations[0])


def find_package(import_name: str) -> tuple[str | None, str]:
    """Tell where a package is installed.

    Returns:
        The prefix of the installation (None if the package is not installed but found on the path), and the
        folder that it is imported from.
    """
    package_path = _find_package_path(import_name)
    prefix = os.path.abspath(sys.prefix)
    if os.path.abspath(package_path).startswith(prefix.rstrip(os.sep) + os.sep):
        return prefix, package_path

    above, folder = os.path.split(package_path)
    if folder.lower() != "site-packages":
        return None, package_path
    parent, name = os.path.split(above)
    if name.lower() == "lib":
        # Windows: prefix/Lib/site-packages
        return parent, package_path
    if os.path.basename(parent).lower() == "lib":
        # Elsewhere: prefix/lib/pythonX.Y/site-packages
        return os.path.dirname(parent), package_path
    return above, package_path
