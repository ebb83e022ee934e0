"""The command `hipflask`, and its short way to `hipflask run`.

Loading click, and making an option of each setting, takes as long as importing and serving a small
application. A plain command line needs none of that: `run` with flags that the table of settings knows, and
an environment without anything unusual. All else, and whatever is wrong, is left to `hipflask.cli`, which
reads the same command line from its beginning: so this module prints no message of its own and knows no
second truth about an option.
"""

from __future__ import annotations

import os
import sys

from .helpers import get_debug_flag, get_load_dotenv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

    from .setting_types import Setting
    from .settings import Settings

#: Files of environment variables that are looked for, in the working directory and above; the later one wins.
DOTENV_FILES = (".flaskenv", ".env")

# Variables of Flask's command that are read here. Others that begin so may be options of `run`.
_KNOWN_VARIABLES = frozenset({"FLASK_APP", "FLASK_DEBUG", "FLASK_SKIP_DOTENV", "FLASK_RUN_FROM_CLI"})
# Those of options that the group of commands has.
_GROUP_VARIABLES = frozenset({"FLASK_ENV_FILE", "FLASK_AS_FLASK"})
# What makes the server another one: left to the long way.
_HIPFLASK_VARIABLES = frozenset({"HIPFLASK_RELOADS", "HIPFLASK_CERT", "HIPFLASK_KEY", "HIPFLASK_CONFIG"})


def main() -> None:
    """Run the command line; the console script `hipflask`."""
    args = sys.argv[1:]
    if args == ["--version"] and not any(map(_completes, os.environ)):
        print("\n".join(version_lines()))
        return
    plain = _read(args)
    if plain is None:
        from .cli import main as long_way

        long_way()
        return
    app, settings = plain
    try:
        _serve(app, settings)
    except (Exception, KeyboardInterrupt) as error:
        from .cli import fail_with

        fail_with(error)


def version_lines() -> list[str]:
    """The versions of Python, Hipflask, and the Flask and Werkzeug that it implements."""
    from ._core import __version__
    from .alias import REFERENCE

    lines = [f"Python {sys.version.split()[0]}", f"Hipflask {__version__}"]
    return lines + [f"{name} {version}" for name, version in REFERENCE.values()]


def _serve(app: str | None, settings: Settings) -> None:
    """Do what `hipflask.cli.run_command` does, without debug mode."""
    from .hosting import load
    from .locating import ScriptInfo

    # A module that calls `app.run()` when imported must not serve while a command imports it.
    os.environ["FLASK_RUN_FROM_CLI"] = "true"
    info = ScriptInfo(app)
    serve_settings(lambda: load(info, settings["interface"], settings["lifespan"]), settings, app)


def serve_settings(
    load: Callable[[], WSGIApplication], settings: Settings, app: str | None, **reloading: Any
) -> None:
    """Serve as settings say: in this process, or in several.

    Args:
        load: Imports what is served.
        settings: Where to listen, and all else.
        app: What names the application, if the settings' file does not.
        reloading: For `hipflask.serving.run`, in debug mode.
    """
    debug = "on" if get_debug_flag() else "off"
    about = f"{app or settings.app or 'the app'}, debug mode {debug}"
    if settings.workers() is not None:
        from .supervisor import run as run_several

        run_several(load, settings, about)
        return
    from .serving import run

    run(load, settings, about=about, **reloading)


# Reading a plain command line.


def _read(args: list[str]) -> tuple[str | None, Settings] | None:
    """The application's name and the settings that a plain `run` has; None if it is not plain, or wrong."""
    if "run" not in args or not _is_plain_environment() or may_have_plugins("run"):
        return None
    from .setting_types import SettingError
    from .settings import Settings, check_environment

    words = _words(args)
    if words is None:
        return None
    app, config, flags = words
    try:
        given = _of_environment() | {
            name: (_of_words(setting, texts), "command line") for name, (setting, texts) in flags.items()
        }
        check_environment()
        settings = Settings(given, config)
        settings.binds()
    except SettingError:
        return None
    return app, settings


def _words(args: list[str]) -> tuple[str | None, str | None, dict[str, tuple[Setting, list[str]]]] | None:
    """Sort a command line: the application, the file of settings, the flags; None if anything is unusual."""
    from .setting_table import BY_NAME
    from .setting_types import Switch

    rows = {row.flag: row for name, row in BY_NAME.items() if name not in ("cert", "key")}
    rows |= {f"-{row.short}": row for row in rows.values() if row.short}
    app = os.environ.get("FLASK_APP") or None
    command = args.index("run")
    config = path = None
    flags: dict[str, tuple[Setting, list[str]]] = {}
    for words, is_run in ((args[:command], False), (args[command + 1 :], True)):
        rest = iter(words)
        for word in rest:
            if not word.startswith("-"):
                if not is_run or not word or path is not None:
                    return None
                path = word
                continue
            flag, equals, text = word.partition("=")
            # In a short option, what follows would be the value, sign and all.
            if equals and not flag.startswith("--"):
                return None
            row = rows.get(flag) if is_run else None
            switch = row is not None and isinstance(row.kind, Switch)
            if switch and not equals and row is not None:
                flags[row.name] = row, ["true"]
                continue
            if switch or (row is None and flag not in ("--app", "-A", "--config")):
                return None
            if not equals:
                following = next(rest, None)
                if following is None:
                    return None
                text = following
            if row is not None:
                flags.setdefault(row.name, (row, []))[1].append(text)
            elif flag != "--config":
                app = text
            elif is_run:
                config = text
            else:
                return None
    return path or app, config, flags


def _of_words(setting: Setting, texts: list[str]) -> Any:
    """The value of a setting that a flag gives, once or several times."""
    from .setting_types import Texts

    return setting.kind.parse(texts if isinstance(setting.kind, Texts) else texts[-1])


def _of_environment() -> dict[str, tuple[Any, str]]:
    """The settings that the environment gives, with their sources."""
    from .setting_table import BY_NAME
    from .setting_types import Texts

    given = {}
    for name, row in BY_NAME.items():
        if text := os.environ.get(row.variable):
            several = isinstance(row.kind, Texts)
            given[name] = row.kind.parse(text.split() if several else text), f"environment {row.variable}"
    return given


def _is_plain_environment() -> bool:
    """Tell whether the environment says nothing that only the long way understands."""
    if get_debug_flag():
        return False
    for name in os.environ:
        if name in _GROUP_VARIABLES or name in _HIPFLASK_VARIABLES or _completes(name):
            return False
        if name.startswith("FLASK_RUN_") and name not in _KNOWN_VARIABLES:
            return False
    return not (get_load_dotenv() and any(map(dotenv_file, DOTENV_FILES)))


def _completes(variable: str) -> bool:
    """Tell whether a variable makes click complete words for a shell."""
    return variable.startswith("_") and variable.endswith("_COMPLETE")


# What is installed, and what lies here.


def dotenv_file(name: str) -> str | None:
    """The file of this name in the working directory, or else in the nearest one above that has it."""
    folder = os.getcwd()
    while True:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def may_have_plugins(name: str | None = None) -> bool:
    """Tell whether an installed distribution may have an entry point in the group `flask.commands`.

    Most installations have none, and finding that out here spares loading `importlib.metadata`, which is a
    large part of the time that a command takes to start.

    Args:
        name: Of the entry point; None for any.
    """
    from importlib.machinery import PathFinder

    for finder in sys.meta_path:
        plain = finder is PathFinder or type(finder).__module__ == "hipflask.alias"
        if hasattr(finder, "find_distributions") and not plain:
            return True
    for place in sys.path:
        try:
            files = os.listdir(place or os.curdir)
        except FileNotFoundError:
            continue
        except OSError:
            return True
        for file in files:
            if file.endswith(".egg"):
                return True
            if file.endswith((".dist-info", ".egg-info")) and _offers(os.path.join(place, file), name):
                return True
    return False


def _offers(distribution: str, name: str | None) -> bool:
    """Tell whether the text of a distribution's entry points may have one of that name in the group."""
    try:
        with open(os.path.join(distribution, "entry_points.txt"), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    if "flask.commands" not in text:
        return False
    return name is None or any(line.partition("=")[0].strip() == name for line in text.splitlines())
