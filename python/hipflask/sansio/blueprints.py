"""Blueprints: routes and hooks that are recorded now and registered on an app later.

Implements `flask.sansio.blueprints` (3.1).
"""

from __future__ import annotations

from collections import defaultdict
from functools import update_wrapper

from .scaffold import Scaffold, _endpoint_from_view_func, _sentinel, setupmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .. import typing as ft
    from .app import App

    DeferredSetupFunction = Callable[["BlueprintSetupState"], None]
    T_after_request = TypeVar("T_after_request", bound=ft.AfterRequestCallable[Any])
    T_after_response = TypeVar("T_after_response", bound=ft.AfterResponseCallable)
    T_before_request = TypeVar("T_before_request", bound=ft.BeforeRequestCallable)
    T_error_handler = TypeVar("T_error_handler", bound=ft.ErrorHandlerCallable)
    T_serving = TypeVar("T_serving", bound=Callable[[], Any])
    T_teardown = TypeVar("T_teardown", bound=ft.TeardownCallable)
    T_template_context_processor = TypeVar(
        "T_template_context_processor", bound=ft.TemplateContextProcessorCallable
    )
    T_template_filter = TypeVar("T_template_filter", bound=ft.TemplateFilterCallable)
    T_template_global = TypeVar("T_template_global", bound=ft.TemplateGlobalCallable)
    T_template_test = TypeVar("T_template_test", bound=ft.TemplateTestCallable)
    T_url_defaults = TypeVar("T_url_defaults", bound=ft.URLDefaultCallable)
    T_url_value_preprocessor = TypeVar("T_url_value_preprocessor", bound=ft.URLValuePreprocessorCallable)


class BlueprintSetupState:
    """One registration of a blueprint on an app: what recorded functions get.

    Args:
        blueprint: The blueprint.
        app: The app.
        options: The arguments of `register_blueprint`.
        first_registration: Whether the blueprint is new to the app.
    """

    def __init__(self, blueprint: Blueprint, app: App, options: Any, first_registration: bool) -> None:
        self.app = app
        self.blueprint = blueprint
        self.options = options
        self.first_registration = first_registration

        subdomain = options.get("subdomain")
        self.subdomain = blueprint.subdomain if subdomain is None else subdomain
        url_prefix = options.get("url_prefix")
        self.url_prefix = blueprint.url_prefix if url_prefix is None else url_prefix
        self.name = options.get("name", blueprint.name)
        self.name_prefix = options.get("name_prefix", "")
        self.url_defaults = {**blueprint.url_values_defaults, **dict(options.get("url_defaults", ()))}

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: ft.RouteCallable | None = None,
        **options: Any,
    ) -> None:
        """Add a rule to the app, with the prefixes of this registration."""
        if self.url_prefix is not None:
            rule = f"{self.url_prefix.rstrip('/')}/{rule.lstrip('/')}" if rule else self.url_prefix
        options.setdefault("subdomain", self.subdomain)
        if endpoint is None:
            endpoint = _endpoint_from_view_func(view_func)
        defaults = self.url_defaults
        if "defaults" in options:
            defaults = {**defaults, **options.pop("defaults")}
        full_name = f"{self.name_prefix}.{self.name}.{endpoint}".lstrip(".")
        self.app.add_url_rule(rule, full_name, view_func, defaults=defaults, **options)


class Blueprint(Scaffold):
    """The set-up part of `hipflask.Blueprint`.

    Args:
        name: The blueprint's name, put before its endpoints' names.
        import_name: The name of the module that makes it, usually `__name__`.
        static_folder: A folder of files to serve.
        static_url_path: Where to serve them, below the blueprint's prefix.
        template_folder: A folder of templates, searched after the app's.
        url_prefix: Put before the paths of its rules.
        subdomain: For its rules.
        url_defaults: Values for the variables of its rules.
        root_path: What paths are relative to; by default the folder of `import_name`.
        cli_group: The name of its group of commands; None puts them beside the app's.
    """

    _got_registered_once = False

    def __init__(
        self,
        name: str,
        import_name: str,
        static_folder: str | os.PathLike[str] | None = None,
        static_url_path: str | None = None,
        template_folder: str | os.PathLike[str] | None = None,
        url_prefix: str | None = None,
        subdomain: str | None = None,
        url_defaults: dict[str, Any] | None = None,
        root_path: str | None = None,
        cli_group: str | None = _sentinel,
    ) -> None:
        super().__init__(
            import_name=import_name,
            static_folder=static_folder,
            static_url_path=static_url_path,
            template_folder=template_folder,
            root_path=root_path,
        )
        if not name:
            raise ValueError("'name' may not be empty.")
        if "." in name:
            raise ValueError("'name' may not contain a dot '.' character.")
        self.name = name
        self.url_prefix = url_prefix
        self.subdomain = subdomain
        self.deferred_functions: list[DeferredSetupFunction] = []
        self.url_values_defaults = {} if url_defaults is None else url_defaults
        self.cli_group = cli_group
        self._blueprints: list[tuple[Blueprint, dict[str, Any]]] = []

    def _check_setup_finished(self, f_name: str) -> None:
        if self._got_registered_once:
            raise AssertionError(
                f"The setup method '{f_name}' can no longer be called on the blueprint '{self.name}'. It has"
                " already been registered at least once, any changes will not be applied consistently.\n"
                "Make sure all imports, decorators, functions, etc. needed to set up the blueprint are done"
                " before registering it."
            )

    @setupmethod
    def record(self, func: DeferredSetupFunction) -> None:
        """Call `func` with a `BlueprintSetupState` at each registration."""
        self.deferred_functions.append(func)

    @setupmethod
    def record_once(self, func: DeferredSetupFunction) -> None:
        """Call `func` with a `BlueprintSetupState` at the first registration on an app."""

        def wrapper(state: BlueprintSetupState) -> None:
            if state.first_registration:
                func(state)

        self.record(update_wrapper(wrapper, func))

    def make_setup_state(
        self, app: App, options: dict[str, Any], first_registration: bool = False
    ) -> BlueprintSetupState:
        """Make the object that recorded functions get. Override it to use another class."""
        return BlueprintSetupState(self, app, options, first_registration)

    @setupmethod
    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Nest another blueprint in this one; the options are those of `Flask.register_blueprint`."""
        if blueprint is self:
            raise ValueError("Cannot register a blueprint on itself")
        self._blueprints.append((blueprint, options))

    def register(self, app: App, options: dict[str, Any]) -> None:
        """Register everything recorded, and nested blueprints, on the app. `register_blueprint` calls it.

        Raises:
            ValueError: If the name is taken.
        """
        own_name = options.get("name", self.name)
        name = f"{options.get('name_prefix', '')}.{own_name}".lstrip(".")
        if name in app.blueprints:
            which = "this" if app.blueprints[name] is self else "a different"
            where = f" '{name}'" if own_name != name else ""
            raise ValueError(
                f"The name '{own_name}' is already registered for {which} blueprint{where}. Use 'name=' to"
                " provide a unique name."
            )
        first = not any(known is self for known in app.blueprints.values())
        app.blueprints[name] = self
        self._got_registered_once = True
        state = self.make_setup_state(app, options, first)

        if self.has_static_folder:
            state.add_url_rule(
                f"{self.static_url_path}/<path:filename>",
                view_func=self.send_static_file,  # type: ignore[attr-defined]
                endpoint="static",
            )
        self._merge_blueprint_funcs(app, name)
        for deferred in self.deferred_functions:
            deferred(state)
        self._register_commands(app, name, options.get("cli_group", self.cli_group))
        for blueprint, nested in self._blueprints:
            blueprint.register(app, self._nested_options(state, blueprint, nested, name))

    def _register_commands(self, app: App, name: str, group: str | None) -> None:
        # A blueprint without a command has not made its group, and click need not be imported.
        if "cli" not in self.__dict__ or not self.cli.commands:
            return
        if group is None:
            app.cli.commands.update(self.cli.commands)
            return
        self.cli.name = name if group is _sentinel else group
        app.cli.add_command(self.cli)

    @staticmethod
    def _nested_options(
        state: BlueprintSetupState, blueprint: Blueprint, options: dict[str, Any], name: str
    ) -> dict[str, Any]:
        """Join a nested blueprint's prefix and subdomain to those of the one around it."""
        options = {**options, "name_prefix": name}
        subdomain = options.get("subdomain")
        parts = [blueprint.subdomain if subdomain is None else subdomain, state.subdomain]
        given = [part for part in parts if part is not None]
        if given:
            options["subdomain"] = ".".join(given)

        prefix = options.get("url_prefix")
        inner = blueprint.url_prefix if prefix is None else prefix
        if inner is None:
            inner = state.url_prefix
        elif state.url_prefix is not None:
            inner = f"{state.url_prefix.rstrip('/')}/{inner.lstrip('/')}"
        if inner is not None:
            options["url_prefix"] = inner
        return options

    def _merge_blueprint_funcs(self, app: App, name: str) -> None:
        """Enter the blueprint's hooks, handlers and views in the app's tables, under its registered name."""

        def full(key: str | None) -> str:
            return name if key is None else f"{name}.{key}"

        for key, handlers in self.error_handler_spec.items():
            copied = {code: dict(by_class) for code, by_class in handlers.items()}
            app.error_handler_spec[full(key)] = defaultdict(dict, copied)
        app.view_functions.update(self.view_functions)
        for table in (
            "before_request_funcs",
            "after_request_funcs",
            "after_response_funcs",
            "teardown_request_funcs",
            "url_default_functions",
            "url_value_preprocessors",
            "template_context_processors",
        ):
            target = getattr(app, table)
            for key, functions in getattr(self, table).items():
                target[full(key)].extend(functions)

    @setupmethod
    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: ft.RouteCallable | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Record a rule for the app. See `Scaffold.add_url_rule`."""
        if endpoint and "." in endpoint:
            raise ValueError("'endpoint' may not contain a dot '.' character.")
        if view_func and "." in getattr(view_func, "__name__", ""):
            raise ValueError("'view_func' name may not contain a dot '.' character.")

        def add(state: BlueprintSetupState) -> None:
            state.add_url_rule(
                rule, endpoint, view_func, provide_automatic_options=provide_automatic_options, **options
            )

        self.record(add)

    @setupmethod
    def app_template_filter(
        self, name: str | None = None
    ) -> Callable[[T_template_filter], T_template_filter]:
        """Decorate a filter for all templates of the app."""

        def decorator(f: T_template_filter) -> T_template_filter:
            self.add_app_template_filter(f, name=name)
            return f

        return decorator

    @setupmethod
    def add_app_template_filter(self, f: ft.TemplateFilterCallable, name: str | None = None) -> None:
        """Do as `app_template_filter`, without a decorator."""
        self.record_once(lambda state: state.app.jinja_env.filters.update({name or f.__name__: f}))

    @setupmethod
    def app_template_test(self, name: str | None = None) -> Callable[[T_template_test], T_template_test]:
        """Decorate a test for all templates of the app."""

        def decorator(f: T_template_test) -> T_template_test:
            self.add_app_template_test(f, name=name)
            return f

        return decorator

    @setupmethod
    def add_app_template_test(self, f: ft.TemplateTestCallable, name: str | None = None) -> None:
        """Do as `app_template_test`, without a decorator."""
        self.record_once(lambda state: state.app.jinja_env.tests.update({name or f.__name__: f}))

    @setupmethod
    def app_template_global(
        self, name: str | None = None
    ) -> Callable[[T_template_global], T_template_global]:
        """Decorate a global function for all templates of the app."""

        def decorator(f: T_template_global) -> T_template_global:
            self.add_app_template_global(f, name=name)
            return f

        return decorator

    @setupmethod
    def add_app_template_global(self, f: ft.TemplateGlobalCallable, name: str | None = None) -> None:
        """Do as `app_template_global`, without a decorator."""
        self.record_once(lambda state: state.app.jinja_env.globals.update({name or f.__name__: f}))

    @setupmethod
    def before_app_serving(self, f: T_serving) -> T_serving:
        """Call `f` before the server takes its first request, as `Flask.before_serving`."""
        self.record_once(lambda state: state.app.before_serving_funcs.append(f))
        return f

    @setupmethod
    def after_app_serving(self, f: T_serving) -> T_serving:
        """Call `f` when the server has answered its last request, as `Flask.after_serving`."""
        self.record_once(lambda state: state.app.after_serving_funcs.append(f))
        return f

    @setupmethod
    def while_app_serving(self, f: T_serving) -> T_serving:
        """Run a generator function around the time that the app serves, as `Flask.while_serving`."""
        self.record_once(lambda state: state.app.while_serving_gens.append(f))
        return f

    @setupmethod
    def before_app_request(self, f: T_before_request) -> T_before_request:
        """Call `f` before each request of the app."""
        self.record_once(lambda state: state.app.before_request_funcs.setdefault(None, []).append(f))
        return f

    @setupmethod
    def after_app_request(self, f: T_after_request) -> T_after_request:
        """Call `f` with each response of the app."""
        self.record_once(lambda state: state.app.after_request_funcs.setdefault(None, []).append(f))
        return f

    @setupmethod
    def after_app_response(self, f: T_after_response) -> T_after_response:
        """Call `f` with each response of the app once it is out."""
        self.record_once(lambda state: state.app.after_response_funcs.setdefault(None, []).append(f))
        return f

    @setupmethod
    def teardown_app_request(self, f: T_teardown) -> T_teardown:
        """Call `f` when the context of any request of the app ends."""
        self.record_once(lambda state: state.app.teardown_request_funcs.setdefault(None, []).append(f))
        return f

    @setupmethod
    def app_context_processor(self, f: T_template_context_processor) -> T_template_context_processor:
        """Add what `f` returns to the variables of all templates of the app."""
        self.record_once(lambda state: state.app.template_context_processors.setdefault(None, []).append(f))
        return f

    @setupmethod
    def app_errorhandler(self, code: type[Exception] | int) -> Callable[[T_error_handler], T_error_handler]:
        """Decorate a handler for errors of any request of the app."""

        def decorator(f: T_error_handler) -> T_error_handler:
            self.record_once(lambda state: state.app.register_error_handler(code, f))
            return f

        return decorator

    @setupmethod
    def app_url_value_preprocessor(self, f: T_url_value_preprocessor) -> T_url_value_preprocessor:
        """Call `f` with the endpoint and the URL's values of each request of the app."""
        self.record_once(lambda state: state.app.url_value_preprocessors.setdefault(None, []).append(f))
        return f

    @setupmethod
    def app_url_defaults(self, f: T_url_defaults) -> T_url_defaults:
        """Call `f` with the endpoint and values of each URL of the app that is built."""
        self.record_once(lambda state: state.app.url_default_functions.setdefault(None, []).append(f))
        return f
