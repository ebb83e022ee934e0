"""The set-up of an app: configuration, rules, blueprints, templates' environment, handler tables.

Implements `flask.sansio.app` (3.1). What happens with a request is in `hipflask.app`.
"""

from __future__ import annotations

import os
import sys
from functools import cache, cached_property

from .._lazy import imported
from ..config import Config, ConfigAttribute
from ..ctx import _AppCtxGlobals
from ..helpers import _split_blueprint_path, get_debug_flag
from ..limits import take as take_limits
from ..werkzeug.exceptions import BadRequest, BadRequestKeyError
from ..werkzeug.routing import BuildError
from .scaffold import Scaffold, _endpoint_from_view_func, find_package, setupmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, ValuesView
    from datetime import timedelta
    from typing import Any, TypeVar

    from .. import typing as ft
    from ..json.provider import JSONProvider
    from ..templating import DispatchingJinjaLoader, Environment
    from ..testing import FlaskClient, FlaskCliRunner
    from ..werkzeug.exceptions import Aborter
    from ..werkzeug.routing import Map, Rule
    from ..werkzeug.wrappers import Response as BaseResponse
    from ..wrappers import Response
    from .blueprints import Blueprint

    T_shell_context_processor = TypeVar("T_shell_context_processor", bound=ft.ShellContextProcessorCallable)
    T_serving = TypeVar("T_serving", bound=Callable[[], Any])
    T_teardown = TypeVar("T_teardown", bound=ft.TeardownCallable)
    T_template_filter = TypeVar("T_template_filter", bound=ft.TemplateFilterCallable)
    T_template_global = TypeVar("T_template_global", bound=ft.TemplateGlobalCallable)
    T_template_test = TypeVar("T_template_test", bound=ft.TemplateTestCallable)


def _make_timedelta(value: timedelta | int | None) -> timedelta | None:
    if value is None or hasattr(value, "total_seconds"):
        return value  # type: ignore[return-value]
    from datetime import timedelta

    return timedelta(seconds=value)


@cache
def _redirect() -> Callable[[str, int, type[BaseResponse]], BaseResponse]:
    # An import statement in a function costs 0.3 µs each time.
    from ..werkzeug.utils import redirect

    return redirect


class App(Scaffold):
    """The set-up part of `Flask`. See there for the arguments."""

    aborter_class: type[Aborter] = imported("werkzeug.exceptions", "Aborter")  # type: ignore[assignment]
    jinja_environment: type[Environment] = imported("templating", "Environment")  # type: ignore[assignment]
    app_ctx_globals_class = _AppCtxGlobals
    config_class = Config
    json_provider_class: type[JSONProvider] = imported(  # type: ignore[assignment]
        "json.provider", "DefaultJSONProvider"
    )
    jinja_options: dict[str, Any] = {}
    url_rule_class: type[Rule] = imported("werkzeug.routing", "Rule")  # type: ignore[assignment]
    url_map_class: type[Map] = imported("werkzeug.routing", "Map")  # type: ignore[assignment]
    test_client_class: type[FlaskClient] | None = None
    test_cli_runner_class: type[FlaskCliRunner] | None = None
    default_config: dict[str, Any]
    response_class: type[Response]

    testing: ConfigAttribute[bool] = ConfigAttribute("TESTING")
    secret_key: ConfigAttribute[str | bytes | None] = ConfigAttribute("SECRET_KEY")
    permanent_session_lifetime: ConfigAttribute[timedelta] = ConfigAttribute(
        "PERMANENT_SESSION_LIFETIME",
        get_converter=_make_timedelta,  # type: ignore[arg-type]
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
            static_folder=static_folder,
            static_url_path=static_url_path,
            template_folder=template_folder,
            root_path=root_path,
        )
        if instance_path is not None:
            if not os.path.isabs(instance_path):
                raise ValueError(
                    "If an instance path is provided it must be absolute. A relative path was given instead."
                )
            self.instance_path = instance_path

        self.config = self.make_config(instance_relative_config)
        self.url_build_error_handlers: list[Callable[[Exception, str, dict[str, Any]], str]] = []
        self.teardown_appcontext_funcs: list[ft.TeardownCallable] = []
        self.before_serving_funcs: list[Callable[[], Any]] = []
        self.while_serving_gens: list[Callable[[], Any]] = []
        self.after_serving_funcs: list[Callable[[], Any]] = []
        self.shell_context_processors: list[ft.ShellContextProcessorCallable] = []
        self.blueprints: dict[str, Blueprint] = {}
        self.extensions: dict[str, Any] = {}
        self.url_map = self.url_map_class(host_matching=host_matching)
        self.subdomain_matching = subdomain_matching
        self._got_first_request = False

    def _check_setup_finished(self, f_name: str) -> None:
        if self._got_first_request:
            raise AssertionError(
                f"The setup method '{f_name}' can no longer be called on the application. It has already"
                " handled its first request, any changes will not be applied consistently.\n"
                "Make sure all imports, decorators, functions, etc. needed to set up the application are"
                " done before running it."
            )

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The app's name: that of its module, or of the script's file."""
        if self.import_name != "__main__":
            return self.import_name
        path: str | None = getattr(sys.modules["__main__"], "__file__", None)
        return "__main__" if path is None else os.path.splitext(os.path.basename(path))[0]

    @cached_property
    def instance_path(self) -> str:
        """The folder for files of this deployment, such as configuration and databases."""
        return self.auto_find_instance_path()

    @cached_property
    def aborter(self) -> Aborter:
        """What `abort` calls."""
        return self.make_aborter()

    @cached_property
    def json(self) -> JSONProvider:
        """Makes and reads JSON for the app."""
        return self.json_provider_class(self)

    @cached_property
    def logger(self) -> logging.Logger:
        """The logger with the app's name. In debug mode its level is DEBUG unless it has one."""
        from ..logging import create_logger

        return create_logger(self)

    @cached_property
    def jinja_env(self) -> Environment:
        """The environment that templates are rendered in; made when first used."""
        return self.create_jinja_environment()

    def create_jinja_environment(self) -> Environment:
        """Make `jinja_env`. Override it to change the environment."""
        raise NotImplementedError

    def make_config(self, instance_relative: bool = False) -> Config:
        """Make `config` of the defaults.

        Args:
            instance_relative: Whether its files are found in the instance folder.
        """
        root_path = self.instance_path if instance_relative else self.root_path
        return self.config_class(root_path, {**self.default_config, "DEBUG": get_debug_flag()})

    def make_aborter(self) -> Aborter:
        """Make `aborter`."""
        return self.aborter_class()

    def auto_find_instance_path(self) -> str:
        """Find the instance folder: beside the app's module, or in the installation's `var`."""
        prefix, package_path = find_package(self.import_name)
        if prefix is None:
            return os.path.join(package_path, "instance")
        return os.path.join(prefix, "var", f"{self.name}-instance")

    def create_global_jinja_loader(self) -> DispatchingJinjaLoader:
        """Make the loader that asks the app and then each blueprint for a template."""
        from ..templating import DispatchingJinjaLoader

        return DispatchingJinjaLoader(self)

    def select_jinja_autoescape(self, filename: str | None) -> bool:
        """Tell whether values in a template are escaped: so they are in HTML, XML, SVG and strings."""
        return filename is None or filename.endswith((".html", ".htm", ".xml", ".xhtml", ".svg"))

    @property
    def debug(self) -> bool:
        """Whether the app is in debug mode. Set it before the app serves."""
        return self.config["DEBUG"]  # type: ignore[no-any-return]

    @debug.setter
    def debug(self, value: bool) -> None:
        self.config["DEBUG"] = value
        # An environment that does not exist yet will ask the configuration.
        if self.config["TEMPLATES_AUTO_RELOAD"] is None and "jinja_env" in self.__dict__:
            self.jinja_env.auto_reload = value

    @setupmethod
    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Register a blueprint.

        Args:
            blueprint: The blueprint.
            options: `url_prefix`, `subdomain`, `name`, `url_defaults`: they win over the blueprint's own.
        """
        blueprint.register(self, options)

    def iter_blueprints(self) -> ValuesView[Blueprint]:
        """Return the registered blueprints in their order."""
        return self.blueprints.values()

    @setupmethod
    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: ft.RouteCallable | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Register a rule for routing and for building URLs. See `Scaffold.add_url_rule`."""
        if endpoint is None:
            endpoint = _endpoint_from_view_func(view_func)
        options["endpoint"] = endpoint

        # A view function may know its methods: class-based views do.
        methods = options.pop("methods", None)
        if methods is None:
            methods = getattr(view_func, "methods", None) or ("GET",)
        if isinstance(methods, str):
            raise TypeError(
                'Allowed methods must be a list of strings, for example: @app.route(..., methods=["POST"])'
            )
        methods = {method.upper() for method in methods}
        required = set(getattr(view_func, "required_methods", ()))

        if provide_automatic_options is None:
            provide_automatic_options = getattr(view_func, "provide_automatic_options", None)
        if provide_automatic_options is None:
            provide_automatic_options = "OPTIONS" not in methods and self.config["PROVIDE_AUTOMATIC_OPTIONS"]
            if provide_automatic_options:
                required.add("OPTIONS")

        compress = options.pop("compress", None)
        if compress is None and getattr(view_func, "sends_static_files", False):
            compress = "static"
        limits = take_limits(options, view_func)
        made = self.url_rule_class(rule, methods=methods | required, **options)
        if limits is not None:
            made.limits = limits
        made.provide_automatic_options = provide_automatic_options
        made.compress = compress
        self.url_map.add(made)
        if view_func is not None:
            known = self.view_functions.setdefault(endpoint, view_func)
            if known != view_func:
                raise AssertionError(
                    f"View function mapping is overwriting an existing endpoint function: {endpoint}"
                )

    @setupmethod
    def template_filter(self, name: str | None = None) -> Callable[[T_template_filter], T_template_filter]:
        """Decorate a function to be a filter in templates, under its own name or `name`."""

        def decorator(f: T_template_filter) -> T_template_filter:
            self.add_template_filter(f, name=name)
            return f

        return decorator

    @setupmethod
    def add_template_filter(self, f: ft.TemplateFilterCallable, name: str | None = None) -> None:
        """Do as `template_filter`, without a decorator."""
        self.jinja_env.filters[name or f.__name__] = f

    @setupmethod
    def template_test(self, name: str | None = None) -> Callable[[T_template_test], T_template_test]:
        """Decorate a function to be a test in templates, under its own name or `name`."""

        def decorator(f: T_template_test) -> T_template_test:
            self.add_template_test(f, name=name)
            return f

        return decorator

    @setupmethod
    def add_template_test(self, f: ft.TemplateTestCallable, name: str | None = None) -> None:
        """Do as `template_test`, without a decorator."""
        self.jinja_env.tests[name or f.__name__] = f

    @setupmethod
    def template_global(self, name: str | None = None) -> Callable[[T_template_global], T_template_global]:
        """Decorate a function to be a global name in templates, under its own name or `name`."""

        def decorator(f: T_template_global) -> T_template_global:
            self.add_template_global(f, name=name)
            return f

        return decorator

    @setupmethod
    def add_template_global(self, f: ft.TemplateGlobalCallable, name: str | None = None) -> None:
        """Do as `template_global`, without a decorator."""
        self.jinja_env.globals[name or f.__name__] = f

    @setupmethod
    def teardown_appcontext(self, f: T_teardown) -> T_teardown:
        """Call `f` when an app context ends, with the unhandled error or None. It must not raise."""
        self.teardown_appcontext_funcs.append(f)
        return f

    @setupmethod
    def before_serving(self, f: T_serving) -> T_serving:
        """Call `f` before the server takes its first request: to open pools, to start tasks.

        It runs on the process's event loop with an app context, and may be a coroutine function. What it
        raises keeps the server from starting.
        """
        self.before_serving_funcs.append(f)
        return f

    @setupmethod
    def after_serving(self, f: T_serving) -> T_serving:
        """Call `f` when the server has answered its last request; it may be a coroutine function."""
        self.after_serving_funcs.append(f)
        return f

    @setupmethod
    def while_serving(self, f: T_serving) -> T_serving:
        """Run a generator function around the time that the app serves.

        What stands before its one `yield` runs after the functions of `before_serving`, the rest after those
        of `after_serving`. An async generator function runs in one task, so that it may hold a task group.
        """
        self.while_serving_gens.append(f)
        return f

    @setupmethod
    def shell_context_processor(self, f: T_shell_context_processor) -> T_shell_context_processor:
        """Add what `f` returns, a dict, to the names in `flask shell`."""
        self.shell_context_processors.append(f)
        return f

    def _find_error_handler(self, e: Exception, blueprints: list[str]) -> ft.ErrorHandlerCallable | None:
        """Return the handler for an error: a code's before a class', a blueprint's before the app's."""
        exc_class, code = self._get_exc_class_and_code(type(e))
        scopes = (*blueprints, None)
        for key in (None,) if code is None else (code, None):
            for scope in scopes:
                handlers = self.error_handler_spec[scope][key]
                if not handlers:
                    continue
                for cls in exc_class.__mro__:
                    handler = handlers.get(cls)
                    if handler is not None:
                        return handler
        return None

    def trap_http_exception(self, e: Exception) -> bool:
        """Tell whether an HTTP exception is treated as any other error: not turned into its response.

        The configuration's `TRAP_HTTP_EXCEPTIONS` and `TRAP_BAD_REQUEST_ERRORS` decide; in debug mode a
        missing form key is trapped too.
        """
        if self.config["TRAP_HTTP_EXCEPTIONS"]:
            return True
        trap_bad_request = self.config["TRAP_BAD_REQUEST_ERRORS"]
        if trap_bad_request is None and self.debug and isinstance(e, BadRequestKeyError):
            return True
        return bool(trap_bad_request) and isinstance(e, BadRequest)

    def should_ignore_error(self, error: BaseException | None) -> bool:
        """Tell whether teardown functions are spared an error. Override it; the default is False."""
        return False

    def redirect(self, location: str, code: int = 302) -> BaseResponse:
        """Make a redirect with the app's response class. The function `flask.redirect` calls it."""
        return _redirect()(location, code, self.response_class)

    def inject_url_defaults(self, endpoint: str, values: dict[str, Any]) -> None:
        """Let the `url_defaults` functions of the app and of the endpoint's blueprints change `values`."""
        table = self.url_default_functions
        if not table:
            return
        names: list[str | None] = [None]
        # The endpoint tells the blueprints: there may be no request.
        if "." in endpoint:
            names += reversed(_split_blueprint_path(endpoint.rpartition(".")[0]))
        for name in names:
            for function in table.get(name, ()):
                function(endpoint, values)

    def handle_url_build_error(self, error: BuildError, endpoint: str, values: dict[str, Any]) -> str:
        """Ask each of `url_build_error_handlers` for a URL; raise the last error when none has one."""
        for handler in self.url_build_error_handlers:
            try:
                url = handler(error, endpoint, values)
            except BuildError as again:
                error = again
            else:
                if url is not None:
                    return url
        # The same error keeps its traceback.
        if error is sys.exc_info()[1]:
            raise
        raise error
