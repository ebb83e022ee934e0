"""The options of `hipflask run` that the table of settings asks for, and what becomes of them."""

from __future__ import annotations

import os
import typing as t

import click
from click.core import ParameterSource

from .helpers import get_debug_flag
from .setting_table import BY_NAME, SETTINGS
from .setting_types import Setting, SettingError, Switch, Texts
from .settings import Settings, check_environment

# What Flask's command has too, and reads by rules of its own.
_FLASKS = ("cert", "key")


class _SettingType(click.ParamType):  # type: ignore[type-arg]
    """The values of a setting, as a flag or a variable has them."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Name the kind of value for the help."""
        return self.setting.kind.metavar

    def convert(self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None) -> t.Any:
        """Return the setting's value."""
        try:
            return self.setting.kind.parse(value)
        except SettingError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def setting_options() -> list[click.Option]:
    """An option for each setting, in the order of the table."""
    return [_setting_option(setting) for setting in BY_NAME.values() if setting.name not in _FLASKS]


def _setting_option(setting: Setting) -> click.Option:
    """An option of `run` that gives a setting. Its default is the setting's own, or the file's."""
    kind = setting.kind
    names = [setting.flag, *([f"-{setting.short}"] if setting.short else [])]
    default = "" if setting.default is None else f"  [{kind.show(setting.default)}]"
    more: dict[str, t.Any] = {"default": None, "envvar": setting.variable, "help": setting.text + default}
    if isinstance(kind, Switch):
        return click.Option([f"{setting.flag}/--no-{setting.flag[2:]}"], **more)
    if isinstance(kind, Texts):
        return click.Option(names, multiple=True, **more)
    return click.Option(names, type=_SettingType(setting), **more)


class RunCommand(click.Command):
    """`run`, whose options are shown under the headings of the table of settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into the help."""
        headings = {row.name: heading for heading, rows in SETTINGS.items() for row in rows}
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(headings.get(param.name or "", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def settings_of(ctx: click.Context) -> Settings:
    """The settings that the options of `run`, the environment and the file give.

    Raises:
        click.UsageError: If one does not exist, or cannot have its value.
    """
    given: dict[str, tuple[t.Any, str]] = {}
    if (cert := ctx.params.get("cert")) is not None:
        given |= _given_certificate(ctx, cert)
    for name, row in BY_NAME.items():
        value = ctx.params.get(name) if name not in _FLASKS else None
        if value is None or value == ():
            continue
        variable = row.variable if os.environ.get(row.variable) else f"FLASK_RUN_{name.upper()}"
        given[name] = (
            row.kind.parse(value) if isinstance(value, tuple) else value,
            where(ctx, name, variable),
        )
    if not ctx.params["with_threads"]:
        given["threads"] = 1, where(ctx, "with_threads", "FLASK_RUN_WITH_THREADS")
    try:
        check_environment()
        settings = Settings(given, ctx.params["config"])
        settings.binds()
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from None
    if get_debug_flag():
        settings.imply("access_log", True, "default, as debug")
        settings.imply("access_log_format", "short", "default, as debug")
        settings.imply("server_timing", True, "default, as debug")
    return settings


def _given_certificate(ctx: click.Context, cert: t.Any) -> dict[str, tuple[t.Any, str]]:
    """What `--cert` and `--key` give, as Flask's command reads them.

    Raises:
        click.UsageError: For a context of Python's TLS.
    """
    source = where(ctx, "cert", "HIPFLASK_CERT" if os.environ.get("HIPFLASK_CERT") else "FLASK_RUN_CERT")
    if isinstance(cert, str):
        return {"cert": ([cert], source)}
    if isinstance(cert, tuple):
        return {"cert": ([cert[0]], source), "key": ([cert[1]], source)}
    raise click.UsageError(
        "The server does not use Python's TLS, and an ssl.SSLContext does not give its keys away:"
        " give the files with --cert and --key.",
        ctx,
    )


def want_one_process(settings: Settings, why: str) -> None:
    """Do without a supervisor, since the reloader or the debugger works with one process.

    Raises:
        click.UsageError: If several were asked for on the command line.
    """
    name = settings.supervised_by()
    if name is None:
        return
    row = BY_NAME[name]
    if settings.is_direct(name):
        raise click.UsageError(f"The {why} works with one process: leave out {row.flag}, or add --no-{why}.")
    source = settings.sources[name]
    click.echo(
        f" * One process, for the {why}: {name} = {row.kind.show(settings[name])} ({source}) is not used"
    )
    settings.one_process()


def where(ctx: click.Context, name: str, variable: str) -> str:
    """Say where the value of a parameter comes from.

    Args:
        ctx: The command's context, or that of a command below.
        name: The parameter.
        variable: The environment variable that may give it.

    Returns:
        ``command line``, ``environment`` and the variable, or ``default``.
    """
    from .cli import _variables_of_files

    here: click.Context | None = ctx
    while here is not None:
        if here.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            return "command line"
        here = here.parent
    if variable not in os.environ:
        return "default"
    file = _variables_of_files.get(variable)
    return f"environment {variable}" + (f", from {file}" if file else "")
