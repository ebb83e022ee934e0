"""The `hipflask` command: how it finds the application, and its commands, from `run` to `config`.

An application adds commands of its own by `@app.cli.command()`, an installed distribution by the entry point
group `flask.commands`. The environment variables are Flask's: `FLASK_APP`, `FLASK_DEBUG`, `FLASK_RUN_PORT`
and so on.
"""

from __future__ import annotations

import os
import sys
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from .bundle import bundle_command
from .fast_start import DOTENV_FILES, dotenv_file, may_have_plugins, serve_settings, version_lines
from .globals import current_app
from .helpers import get_debug_flag
from .locating import ScriptInfo as ScriptInfo
from .locating import app_of_file as app_of_file
from .locating import find_app_by_string as find_app_by_string
from .locating import find_best_app as find_best_app
from .locating import locate_app as locate_app
from .locating import prepare_import as prepare_import
from .precompress import compress_command
from .setting_options import RunCommand, setting_options, settings_of, want_one_process, where
from .settings import Settings
from .top import top_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .app import Flask

F = TypeVar("F", bound="Callable[..., Any]")


class NoAppException(click.UsageError):
    """There is no application where one was looked for, or it cannot be imported."""

    #: What is there in the place of a Flask app.
    found: Any = None


# Tracebacks.


def short_traceback(error: BaseException) -> str:
    """Write a traceback from the first frame that is the developer's, not the command line's."""
    import traceback

    folders = (os.path.dirname(os.path.abspath(path)) for path in (__file__, click.__file__))
    machinery = tuple(folder + os.sep for folder in folders)
    trace = error.__traceback__
    while trace is not None:
        path = os.path.abspath(trace.tb_frame.f_code.co_filename)
        if not path.startswith(machinery) and trace.tb_frame.f_globals.get("__name__") != "__main__":
            break
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):
        trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace))


pass_script_info = click.make_pass_decorator(ScriptInfo, ensure=True)


def with_appcontext(f: F) -> F:
    """Run a command's function within the application's context.

    Commands registered by `app.cli` have one already.
    """

    @click.pass_context
    def decorator(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        if not current_app:
            ctx.with_resource(ctx.ensure_object(ScriptInfo).load_app().app_context())
        return ctx.invoke(f, *args, **kwargs)

    return update_wrapper(decorator, f)  # type: ignore[return-value]


# Groups of commands.


class AppGroup(click.Group):
    """A group whose commands run within the application's context.

    Implements: flask.cli.AppGroup (3.1).
    """

    def command(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Register a command, as `click.Group.command`.

        Args:
            with_appcontext: If False, the command is run without a context.
        """
        in_context = kwargs.pop("with_appcontext", True)
        register = super().command(*args, **kwargs)

        def decorator(f: Callable[..., Any]) -> click.Command:
            return register(with_appcontext(f) if in_context else f)  # type: ignore[no-any-return]

        return decorator

    def group(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> Callable[[Callable[..., Any]], click.Group]:
        """Register a group, an `AppGroup` unless `cls` says otherwise."""
        kwargs.setdefault("cls", AppGroup)
        return super().group(*args, **kwargs)  # type: ignore[no-any-return]


def get_version(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Print the versions of Python, Hipflask, and the Flask and Werkzeug that it implements, and exit."""
    if not value or ctx.resilient_parsing:
        return
    click.echo("\n".join(version_lines()), color=ctx.color)
    ctx.exit()


version_option = click.Option(
    ["--version"],
    help="Show the Flask version.",
    expose_value=False,
    callback=get_version,
    is_flag=True,
    is_eager=True,
)


def _set_alias(ctx: click.Context, param: click.Option, value: bool) -> bool:
    if value and not ctx.resilient_parsing:
        from .alias import install_as_flask

        try:
            install_as_flask()
        except RuntimeError as error:
            raise click.UsageError(str(error)) from None
    return value


_as_flask_option = click.Option(
    ["--as-flask"],
    help="Let 'import flask' and 'import werkzeug' mean Hipflask, for applications and extensions that say"
    " so.",
    is_flag=True,
    # Eager, and first of all: nothing may import an application before it.
    is_eager=True,
    expose_value=False,
    callback=_set_alias,
)


def _set_app(ctx: click.Context, param: click.Option, value: str | None) -> str | None:
    # Behind a command's name as before it: `hipflask run --app hello`.
    if value is not None:
        ctx.ensure_object(ScriptInfo).app_import_path = value
    return value


_app_option = click.Option(
    ["-A", "--app"],
    metavar="IMPORT",
    help=(
        "The application or its factory: 'module:name', where the module is a dotted name or a file. The"
        " name may be"
        " left out if it is 'app', 'application', 'create_app' or 'make_app', and may be a call:"
        " 'name(args)'."
    ),
    # Eager, so that --help shows the application's commands.
    is_eager=True,
    expose_value=False,
    callback=_set_app,
)


def _set_debug(ctx: click.Context, param: click.Option, value: bool) -> bool | None:
    # Left alone unless given, so that FLASK_DEBUG from the environment or an env file counts.
    source = ctx.get_parameter_source(param.name)
    if source in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
        return None
    # By the environment, since a factory may look at it before there is an application.
    os.environ["FLASK_DEBUG"] = "1" if value else "0"
    return value


_debug_option = click.Option(
    ["--debug/--no-debug"], help="Set debug mode.", expose_value=False, callback=_set_debug
)


def _env_file_callback(ctx: click.Context, param: click.Option, value: str | None) -> str | None:
    if value is not None and not _has_dotenv():
        raise click.BadParameter(
            "python-dotenv must be installed to load an env file.", ctx=ctx, param=param
        ) from None
    if value is not None or ctx.obj.load_dotenv_defaults:
        load_dotenv(value, load_defaults=ctx.obj.load_dotenv_defaults)
    return value


_env_file_option = click.Option(
    ["-e", "--env-file"],
    type=click.Path(exists=True, dir_okay=False),
    help=(
        "Read environment variables from this file; they win over those of '.env' and '.flaskenv', not over"
        " those that"
        " are set already. Needs python-dotenv."
    ),
    is_eager=True,
    expose_value=False,
    callback=_env_file_callback,
)


class FlaskGroup(AppGroup):
    """The group at the top: it finds the application, and offers its commands beside the built-in ones.

    Args:
        add_default_commands: Offer `run`, `shell`, `routes`, `check` and `config`.
        create_app: Makes the application, instead of importing it.
        add_version_option: Offer `--version`.
        load_dotenv: Read `.env` and `.flaskenv`.
        set_debug_flag: Set `app.debug` from `FLASK_DEBUG`.
        extra: As of `click.Group`.

    Implements: flask.cli.FlaskGroup (3.1).
    """

    def __init__(
        self,
        add_default_commands: bool = True,
        create_app: Callable[..., Flask] | None = None,
        add_version_option: bool = True,
        load_dotenv: bool = True,
        set_debug_flag: bool = True,
        **extra: Any,
    ) -> None:
        params: list[click.Parameter] = list(extra.pop("params", None) or ())
        # Callbacks of options, not of the group: that one is free for its user. The env file comes before the
        # application's name, which it may set.
        params += (_env_file_option, _app_option, _debug_option)
        if add_version_option:
            params.append(version_option)
        extra.setdefault("context_settings", {}).setdefault("auto_envvar_prefix", "FLASK")
        super().__init__(params=params, **extra)
        self.create_app = create_app
        self.load_dotenv = load_dotenv
        self.set_debug_flag = set_debug_flag
        if add_default_commands:
            for command in (run_command, shell_command, routes_command, *_OWN_COMMANDS):
                self.add_command(command)
        self._loaded_plugin_commands = False

    def _load_plugin_commands(self, name: str | None = None) -> None:
        """Load the commands of plugins; given a name, only if one of them has it.

        Loading a plugin imports its extension, and so Flask or what stands for it. That must not happen
        before the options behind a built-in command's name have been read.
        """
        if self._loaded_plugin_commands:
            return
        if may_have_plugins(name):
            from importlib.metadata import entry_points

            found = entry_points(group="flask.commands")
            if name is not None and all(entry_point.name != name for entry_point in found):
                return
            for entry_point in found:
                self.add_command(entry_point.load(), entry_point.name)
        elif name is not None:
            return
        self._loaded_plugin_commands = True

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Find a command: built in, of a plugin, of the application.

        The first two work without an application, or with one that fails to load. A plugin's replaces a
        built-in one.
        """
        self._load_plugin_commands(name)
        command = super().get_command(ctx, name)
        if command is not None and command not in _OWN_COMMANDS:
            return command
        try:
            app = ctx.ensure_object(ScriptInfo).load_app()
        except NoAppException as error:
            if command is None:
                click.secho(f"Error: {error.format_message()}\n", err=True, fg="red")
            return command
        except Exception:
            if command is None:
                raise
            return command
        own = app.cli.get_command(ctx, name)
        if own is None or own is command:
            # Flask does not have these, so that an application may have them.
            return command
        if not current_app or current_app._get_current_object() is not app:  # type: ignore[attr-defined]
            ctx.with_resource(app.app_context())
        return own

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands; an application that fails to load is reported, and the others are listed."""
        self._load_plugin_commands()
        names = {*super().list_commands(ctx)}
        try:
            names.update(ctx.ensure_object(ScriptInfo).load_app().cli.list_commands(ctx))
        except NoAppException as error:
            click.secho(f"Error: {error.format_message()}\n", err=True, fg="red")
        except Exception:
            import traceback

            click.secho(f"{traceback.format_exc()}\n", err=True, fg="red")
        return sorted(names)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context in which commands run, with a `ScriptInfo` as its object."""
        # A module that calls `app.run()` when imported must not serve while a command imports it.
        os.environ["FLASK_RUN_FROM_CLI"] = "true"
        if "obj" not in extra and "obj" not in self.context_settings:
            extra["obj"] = ScriptInfo(
                create_app=self.create_app,
                set_debug_flag=self.set_debug_flag,
                load_dotenv_defaults=self.load_dotenv,
            )
        return super().make_context(info_name, args, parent=parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options, those that find the application before help is printed."""
        others = [arg for arg in args if arg != "--as-flask"]
        wants_help = len(others) == 1 and others[0] in self.get_help_option_names(ctx)
        if wants_help or (not others and self.no_args_is_help):
            # Help ends the parsing before values from the environment are looked at.
            given = {"as_flask": True} if len(others) < len(args) else {}
            for option in (_as_flask_option, _env_file_option, _app_option):
                if option in self.params:
                    option.handle_parse_result(ctx, given if option is _as_flask_option else {}, [])
        return super().parse_args(ctx, args)


# The environment.


#: The environment variables that dotenv files have set, and the file of each.
_variables_of_files: dict[str, str] = {}


def _has_dotenv() -> bool:
    try:
        import dotenv  # noqa: F401
    except ImportError:
        return False
    return True


def load_dotenv(path: str | os.PathLike[str] | None = None, load_defaults: bool = True) -> bool:
    """Set environment variables from dotenv files.

    The file of `path` wins over `.env`, which wins over `.flaskenv`; a variable that is set already stays.
    Without `python-dotenv` nothing is loaded.

    Args:
        path: A file.
        load_defaults: Look for `.flaskenv` and `.env`, in the working directory and above.

    Returns:
        Whether a file had variables.

    Implements: flask.cli.load_dotenv (3.1).
    """
    if path is None and not (load_defaults and any(map(dotenv_file, DOTENV_FILES))):
        return False
    if not _has_dotenv():
        if path or os.path.isfile(".env") or os.path.isfile(".flaskenv"):
            click.secho(
                " * Tip: There are .env files present. Install python-dotenv to use them.",
                fg="yellow",
                err=True,
            )
        return False
    import dotenv

    files = [dotenv.find_dotenv(name, usecwd=True) for name in DOTENV_FILES] if load_defaults else []
    if path is not None and os.path.isfile(path):
        files.append(os.fspath(path))
    variables: dict[str, str | None] = {}
    sources: dict[str, str] = {}
    for file in filter(None, files):
        found = dotenv.dotenv_values(file, encoding="utf-8")
        variables |= found
        sources |= dict.fromkeys(found, os.path.relpath(file))
    for key, value in variables.items():
        if value is not None and key not in os.environ:
            os.environ[key] = value
            _variables_of_files[key] = sources[key]
    return bool(variables)


# Types of options.


class CertParamType(click.ParamType):  # type: ignore[type-arg]
    """The value of `--cert`: a file, `adhoc`, or the dotted name of an `ssl.SSLContext`."""

    name = "path"

    def __init__(self) -> None:
        self.path_type = click.Path(exists=True, dir_okay=False, resolve_path=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the file's path, `"adhoc"`, or the context."""
        try:
            import ssl
        except ImportError:
            raise click.BadParameter(
                'Using "--cert" requires Python to be compiled with SSL support.', ctx, param
            ) from None
        try:
            return self.path_type(value, param, ctx)
        except click.BadParameter:
            name = click.STRING(value, param, ctx)
            if name.lower() == "adhoc":
                return "adhoc"
            from .werkzeug.utils import import_string

            context = import_string(name, silent=True)
            if isinstance(context, ssl.SSLContext):
                return context
            raise


def _validate_key(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Pair the key with its certificate; only a certificate's file has one."""
    cert = ctx.params.get("cert")
    if value is None:
        if isinstance(cert, str) and cert != "adhoc":
            raise click.BadParameter('Required when using "--cert".', ctx, param)
    elif cert == "adhoc":
        raise click.BadParameter('When "--cert" is "adhoc", "--key" is not used.', ctx, param)
    elif not cert:
        raise click.BadParameter('"--cert" must also be specified.', ctx, param)
    elif not isinstance(cert, str):
        raise click.BadParameter('When "--cert" is an SSLContext object, "--key" is not used.', ctx, param)
    else:
        ctx.params["cert"] = cert, value
    return value


class SeparatedPathType(click.Path):
    """Several paths in one value, separated as in `PATH`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the list of paths."""
        convert = super().convert
        return [convert(item, param, ctx) for item in self.split_envvar_value(value)]


# The commands.


def show_server_banner(debug: bool, app_import_path: str | None) -> None:
    """Say what is served, unless the reloader has said so."""
    from .werkzeug.serving import is_running_from_reloader

    if is_running_from_reloader():
        return
    if app_import_path is not None:
        click.echo(f" * Serving Flask app '{app_import_path}'")
    if debug is not None:
        click.echo(f" * Debug mode: {'on' if debug else 'off'}")


@click.command("run", short_help="Serve the application.", cls=RunCommand)
@click.argument("import_path", metavar="[IMPORT]", required=False)
@click.option(
    "--cert",
    type=CertParamType(),
    is_eager=True,
    envvar="HIPFLASK_CERT",
    help="Speak TLS with this certificate, in PEM format with its chain; 'adhoc' makes one for development.",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    callback=_validate_key,
    expose_value=False,
    envvar="HIPFLASK_KEY",
    help="The private key of --cert.",
)
@click.option("--reload/--no-reload", default=None, help="Start again when code changes. On in debug mode.")
@click.option("--debugger/--no-debugger", default=None, help="Show errors in the browser. On in debug mode.")
@click.option("--with-threads/--without-threads", default=True, help="Run views at the same time.")
@click.option(
    "--extra-files",
    type=SeparatedPathType(),
    help=f"More files to start again for, separated by {os.pathsep!r}.",
)
@click.option(
    "--exclude-patterns",
    type=SeparatedPathType(),
    help=f"Patterns of files not to start again for, separated by {os.pathsep!r}.",
)
@click.option(
    "--reloader",
    type=click.Choice(("auto", "inotify", "stat", "watchfiles", "watchdog")),
    default="auto",
    help="How changes are noticed. 'stat' works on every file system.",
)
@click.option(
    "--config",
    type=click.Path(),
    envvar="HIPFLASK_CONFIG",
    help="The file of settings, in the place of 'hipflask.toml' or 'pyproject.toml'.",
)
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    import_path: str | None,
    reload: bool | None,
    debugger: bool | None,
    with_threads: bool,
    cert: Any,
    extra_files: Iterable[str] | None,
    exclude_patterns: Iterable[str] | None,
    reloader: str,
    config: str | None,
    **given: Any,
) -> None:
    """Serve the application that IMPORT, --app or FLASK_APP names.

    With --debug, code is reloaded when it changes and errors are shown in the browser. What stands below the
    headings may also be set by the environment and a file: see 'hipflask config'.
    """
    settings = settings_of(ctx)
    info = ctx.ensure_object(ScriptInfo)
    if import_path is not None:
        info.app_import_path, info.create_app = import_path, None
    debug = get_debug_flag()
    use_reloader = debug if reload is None else reload
    use_debugger = debug if debugger is None else debugger
    if use_reloader or use_debugger:
        want_one_process(settings, "reloader" if use_reloader else "debugger")
    serve_settings(
        lambda: _load_to_serve(info, settings),
        settings,
        info.app_import_path,
        use_reloader=use_reloader,
        use_debugger=use_debugger,
        extra_files=extra_files,
        exclude_patterns=exclude_patterns,
        reloader_type=reloader,
    )


run_command.params[1:1] = setting_options()


def _load_to_serve(info: ScriptInfo, settings: Settings) -> WSGIApplication:
    """Load the application; after a reload, one that cannot be loaded is served as its error."""
    from .hosting import load

    try:
        return load(info, settings["interface"], settings["lifespan"])
    except Exception as error:
        if not os.environ.get("HIPFLASK_RELOADS"):
            raise
        # The reloader waits for the next change; until then the browser shows what is wrong.
        click.echo(short_traceback(error), err=True, nl=False)
        return _failing_app(error)


run_command.params[:0] = (_as_flask_option, _app_option, _debug_option)


def _failing_app(error: Exception) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise error from None

    return app


@click.command("shell", short_help="Run a shell in the app context.")
@with_appcontext
def shell_command() -> None:
    """Open a Python shell within the application's context.

    Names that the application's shell context processors return are there from the start.
    """
    import code

    names: dict[str, Any] = {}
    startup = os.environ.get("PYTHONSTARTUP")
    if startup and os.path.isfile(startup):
        with open(startup) as file:
            exec(compile(file.read(), startup, "exec"), names)
    names.update(current_app.make_shell_context())
    _complete_names(names)
    banner = (
        f"Python {sys.version} on {sys.platform}\n"
        f"App: {current_app.import_name}\n"
        f"Instance: {current_app.instance_path}"
    )
    code.interact(banner=banner, local=names)


def _complete_names(names: dict[str, Any]) -> None:
    """Let the Tab key complete the shell's names, not those of this command's main module."""
    hook = getattr(sys, "__interactivehook__", None)
    if hook is None:
        return
    try:
        import readline
        from rlcompleter import Completer
    except ImportError:
        pass
    else:
        readline.set_completer(Completer(names).complete)
    hook()


@click.command("routes", short_help="Show the routes for the app.")
@click.option(
    "--sort",
    "-s",
    type=click.Choice(("endpoint", "methods", "domain", "rule", "match")),
    default="endpoint",
    help="What to sort by. 'match' is the order in which the routes are tried.",
)
@click.option("--all-methods", is_flag=True, help="Show HEAD and OPTIONS, too.")
@with_appcontext
def routes_command(sort: str, all_methods: bool) -> None:
    """List the routes with their endpoints and methods, and how the engine serves each."""
    from .alias import is_installed

    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    rules = list(app.url_map.iter_rules())
    if not rules:
        click.echo("No routes were registered.")
        return
    hidden = set() if all_methods else {"HEAD", "OPTIONS"}
    by_host = app.url_map.host_matching
    domains = [(rule.host if by_host else rule.subdomain) or "" for rule in rules]
    lanes = _lanes(app, [rule.endpoint for rule in rules])
    columns = {
        "endpoint": ("Endpoint", [rule.endpoint for rule in rules]),
        "methods": ("Methods", [", ".join(sorted((rule.methods or set()) - hidden)) for rule in rules]),
        "domain": ("Host" if by_host else "Subdomain", domains),
        "rule": ("Rule", [rule.rule for rule in rules]),
        "lane": ("Lane", lanes),
    }
    if not any(domains):
        del columns["domain"]
    # Who says `flask` gets Flask's table.
    if is_installed():
        del columns["lane"]
    rows = list(zip(*(cells for _, cells in columns.values()), strict=True))
    if sort in columns:
        rows.sort(key=lambda row: row[list(columns).index(sort)])
    table = [tuple(heading for heading, _ in columns.values()), *rows]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    table.insert(1, tuple("-" * width for width in widths))
    for row in table:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))
    if "lane" not in columns:
        click.echo()
        for lane in dict.fromkeys(lanes):
            endpoints = sorted({rule.endpoint for rule, its in zip(rules, lanes, strict=True) if its == lane})
            click.echo(f"Lane: {lane}" + (f" ({', '.join(endpoints)})" if len(set(lanes)) > 1 else ""))


def _lanes(app: Flask, endpoints: list[str]) -> list[str]:
    """How the engine serves each endpoint: in which lane, and why."""
    import inspect

    from ._core import lane_of

    lane, reason = lane_of(app)
    found = []
    for endpoint in endpoints:
        waits = inspect.iscoroutinefunction(app.view_functions.get(endpoint))
        why = "; ".join(filter(None, (reason, "on the event loop" if waits else "")))
        found.append(f"{lane}: {why}" if why else lane)
    return found


@click.command("check", short_help="Check the app for production.")
@click.argument("import_path", metavar="[IMPORT]", required=False)
@click.option(
    "--from-gunicorn", "line", metavar="COMMAND", help="A command line of gunicorn or uWSGI to translate."
)
@click.option("--strict", is_flag=True, help="Take advice for problems.")
@pass_script_info
def check_command(info: ScriptInfo, import_path: str | None, line: str | None, strict: bool) -> None:
    """Import the application that IMPORT, --app or FLASK_APP names, and report what matters in production.

    The exit status is 1 if there is a problem.
    """
    from . import checkup, migration

    if import_path is not None:
        info.app_import_path, info.create_app = import_path, None
    try:
        translated = (
            ("--from-gunicorn", migration.from_command(line)) if line else migration.found_in(os.curdir)
        )
    except (ValueError, SyntaxError) as error:
        raise click.UsageError(f"The gunicorn or uWSGI options cannot be read: {error}.") from None
    app = info.load_app()
    folder = os.path.relpath(app.root_path)
    _print_list("Application", [app.name if folder == os.curdir else f"{app.name} in {folder}"])
    _print_list("Extensions", checkup.extensions(app) or ["none"])
    _print_list("Middleware", checkup.middleware(app) or ["none"])
    _print_list("Hooks", checkup.hooks(app) or ["none"])
    lanes: dict[str, list[str]] = {}
    rules = list(app.url_map.iter_rules())
    for rule, its in zip(rules, _lanes(app, [rule.endpoint for rule in rules]), strict=True):
        lanes.setdefault(its, []).append(rule.rule)
    _print_list("Lane", [_about_lane(lane, routes, len(rules)) for lane, routes in lanes.items()] or ["none"])
    found = sorted(
        checkup.findings(app), key=lambda finding: ("problem", "advice", "ok").index(finding.level)
    )
    colours = {"problem": "red", "advice": "yellow", "ok": "green"}
    for level, name, text in found:
        click.echo(f"{click.style(f'{level:<9}', fg=colours[level])} {name} {text}")
    if translated is not None:
        _print_translation(*translated)
    if any(finding.level == "problem" or (strict and finding.level == "advice") for finding in found):
        raise click.exceptions.Exit(1)


def _about_lane(lane: str, routes: list[str], count: int) -> str:
    kind, colon, reason = lane.partition(": ")
    which = ", ".join(routes[:5]) + (f" and {len(routes) - 5} more" if len(routes) > 5 else "")
    if len(routes) == count > 1:
        which = f"all {count} routes"
    return f"{kind}, for {which}{colon}{reason}"


def _print_list(heading: str, items: list[str]) -> None:
    for item in items:
        click.echo(f"{heading:<13}{item}")
        heading = ""


def _print_translation(source: str, translation: Any) -> None:
    click.echo(f"\n{source} becomes:\n\n    {translation.command}\n")
    width = max((len(name) for name, _ in translation.notes), default=0)
    for name, meaning in translation.notes:
        click.echo(f"{name:<{width}}  {meaning}")


@click.command(
    "config",
    short_help="Show the settings in force.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("run_options", metavar="[RUN OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def config_command(ctx: click.Context, run_options: tuple[str, ...]) -> None:
    """Show the settings with which 'hipflask run' would serve, and where each comes from.

    Takes the options of 'hipflask run'. Secrets are not shown.
    """
    from . import checkup

    with run_command.make_context("run", list(run_options), parent=ctx.parent) as run_context:
        rows = [("Server", "", ""), *_server_settings(run_context)]
        info = run_context.ensure_object(ScriptInfo)
        if run_context.params["import_path"] is not None:
            info.app_import_path = run_context.params["import_path"]
        failure: click.ClickException | None = None
        try:
            app = info.load_app()
        except click.ClickException as error:
            # The server's settings can be told without.
            failure = error
        else:
            rows += [("", "", ""), ("Application", "", ""), *checkup.app_settings(app)]
    # A long value pushes its own source to the right, not all the others.
    widths = [min(max(len(row[column]) for row in rows), most) for column, most in ((0, 40), (1, 27))]
    for name, value, source in rows:
        click.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip())
    if failure is not None:
        raise failure


def _server_settings(ctx: click.Context) -> list[tuple[str, str, str]]:
    """The options of `run` with the values that it would use, and their sources."""
    settings = settings_of(ctx)
    app_path = ctx.ensure_object(ScriptInfo).app_import_path
    debug = get_debug_flag()
    rows = [("app", app_path, where(ctx, "app", "FLASK_APP"))] if app_path else []
    if not app_path and settings.app:
        rows = [("app", settings.app, settings.file)]
    rows.append(("debug", str(debug).lower(), where(ctx, "debug", "FLASK_DEBUG")))
    for name in ("reload", "debugger"):
        value, source = ctx.params[name], where(ctx, name, f"FLASK_RUN_{name.upper()}")
        if value is None:
            value, source = debug, "default, as debug"
        rows.append((name, str(value).lower(), source))
    for name in ("reloader", "extra_files", "exclude_patterns"):
        value = ctx.params[name]
        text = " ".join(value) if isinstance(value, list) else value or "-"
        rows.append((name, text, where(ctx, name, f"FLASK_RUN_{name.upper()}")))
    return [*rows, *settings.rows()]


for _command in (shell_command, routes_command, bundle_command, check_command, config_command):
    _command.params[:0] = (_as_flask_option, _app_option)

# The commands that Flask does not have.
_OWN_COMMANDS = (bundle_command, check_command, compress_command, config_command, top_command)

cli = FlaskGroup(
    name="hipflask",
    params=[_as_flask_option],
    help=(
        "Run Flask applications on Hipflask.\n\n"
        "The application is named by '--app' or FLASK_APP, or is in 'wsgi.py' or 'app.py' in the working"
        " directory."
    ),
)


def main() -> None:
    """Run the command line, whatever it is; the console script is `hipflask.fast_start.main`."""
    try:
        cli.main()
    except Exception as error:
        click.echo(short_traceback(error), err=True, nl=False)
        sys.exit(1)


def fail_with(error: BaseException) -> None:
    """End as `run` does when it has raised `error`.

    Raises:
        SystemExit: Always.
    """

    def failed(**options: Any) -> None:
        raise error

    run_command.callback = failed
    main()


if __name__ == "__main__":
    main()
