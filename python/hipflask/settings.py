"""The settings of the server: where their values come from.

A setting is given by a flag (``--idle-timeout 30s``), by the environment (``HIPFLASK_IDLE_TIMEOUT``), or by
a file (``idle_timeout = "30s"`` in ``hipflask.toml``, or in the table ``[tool.hipflask]`` of
``pyproject.toml``); the first of these that has it wins. All of them are in `hipflask.setting_table`.

The settings of an application are elsewhere: `hipflask.Config`.
"""

from __future__ import annotations

import os
import sys
import typing as t
from collections.abc import Mapping

from .setting_table import BY_NAME
from .setting_types import PREFIX, SettingError

if t.TYPE_CHECKING:
    from . import _core

#: The file that is looked for in the working directory.
FILE = "hipflask.toml"

# What processes of Hipflask tell each other.
_OTHER_VARIABLES = ("listeners", "succeeds", "reloads", "reloader_started", "run_main", "adhoc_place")


def parse(name: str, value: object) -> t.Any:
    """Make the value of a setting of what was given.

    Raises:
        SettingError: If there is no such setting, or it cannot have this value.
    """
    key = name.replace("-", "_")
    row = BY_NAME.get(key)
    if row is None and isinstance(value, dict):
        raise SettingError(f"[{name}] is a table: all settings stand together, without headings")
    if row is None:
        raise SettingError(f"there is no setting {name!r}{_did_you_mean(key, BY_NAME)}")
    try:
        return row.kind.parse(value)
    except SettingError as error:
        raise SettingError(f"{name} = {value!r}: {error}") from None


def _did_you_mean(name: str, names: t.Iterable[str], likeness: float = 0.6) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1, likeness)
    return f": did you mean {close[0]!r}?" if close else ""


# Values and where they come from.


# Any of these asks for a supervisor.
_SUPERVISED = ("workers", "preload", "max_requests", "max_worker_age", "max_worker_memory")


class Settings:
    """The values in force, and the source of each.

    Args:
        given: What flags, the environment and the program say, with the source of each.
        path: The configuration file; None looks for one in the working directory.

    Raises:
        SettingError: If the file cannot be read, or says what it cannot.
    """

    def __init__(self, given: Mapping[str, tuple[t.Any, str]] | None = None, path: str | None = None) -> None:
        self._given = dict(given or {})
        self._implied: dict[str, tuple[t.Any, str]] = {}
        self._path = path
        #: The application that the file names, if any.
        self.app: str | None = None
        #: What the file is called in messages; empty if there is none.
        self.file = ""
        self.values: dict[str, t.Any] = {}
        self.sources: dict[str, str] = {}
        self._tls: _core.Tls | None = None
        self._read()

    def again(self) -> Settings:
        """Read the file again.

        Returns:
            The settings as they are now; these stay as they are.

        Raises:
            SettingError: If the file cannot be read, or says what it cannot.
        """
        fresh = Settings(self._given, self._path)
        fresh._implied = self._implied
        fresh._read()
        return fresh

    def tls(self) -> _core.Tls | None:
        """What a server needs to speak TLS, or None.

        Made once: its files may be readable only until rights are dropped, and workers that have it in common
        know each other's session tickets.

        Raises:
            SettingError: If a file is no good, or something is missing.
        """
        if self._tls is None and (self["cert"] is not None or self["redirect_bind"] is not None):
            from .tls import of_settings

            self._tls = of_settings(self)
        return self._tls

    def _read(self) -> None:
        name, found = read_file(self._path)
        app = found.pop("app", None)
        if app is not None and not isinstance(app, str):
            raise SettingError(f"{name}: app = {app!r}: a text is expected")
        try:
            of_file = {key.replace("-", "_"): parse(key, value) for key, value in found.items()}
        except SettingError as error:
            raise SettingError(f"{name}: {error}") from None
        values = {key: row.default for key, row in BY_NAME.items()}
        sources = dict.fromkeys(values, "default")
        for key, value in of_file.items():
            values[key], sources[key] = value, name
        for key, (value, source) in self._given.items():
            values[key], sources[key] = value, source
        for key, (value, source) in self._implied.items():
            if sources[key] == "default":
                values[key], sources[key] = value, source
        if values["proxy_protocol"] != "off" and not (
            values["proxy_protocol_from"] or values["trusted_proxies"]
        ):
            raise SettingError(
                "proxy_protocol needs proxy_protocol_from or trusted_proxies:"
                " else anybody could name any address"
            )
        headers = values["forwarded_headers"]
        if "forwarded" in headers and len(set(headers)) > 1:
            raise SettingError(
                "forwarded_headers: either 'forwarded' or X-Forwarded fields:"
                " the other family is the client's"
            )
        self.file, self.app, self.values, self.sources = name, app, values, sources

    def __getitem__(self, name: str) -> t.Any:
        """The value of a setting."""
        return self.values[name]

    def is_given(self, name: str) -> bool:
        """Whether anybody has set it."""
        return not self.sources[name].startswith("default")

    def is_direct(self, name: str) -> bool:
        """Whether it was set by a flag or by the program, for this run."""
        return name in self._given and not self.sources[name].startswith("environment")

    def binds(self) -> list[str]:
        """Where to listen: `bind`, unless host or port come from where more weight lies.

        Raises:
            SettingError: If both are given at the same place.
        """
        rank = {name: self._rank(name) for name in ("bind", "host", "port")}
        simple = max(rank["host"], rank["port"])
        if rank["bind"] > simple:
            return list(self["bind"])
        if rank["bind"] and rank["bind"] == simple:
            raise SettingError("give either bind or host and port, not both")
        host = self["host"].removeprefix("[").removesuffix("]")
        if host.startswith("unix:"):
            return [host]
        return [f"[{host}]:{self['port']}" if ":" in host else f"{host}:{self['port']}"]

    def redirects(self) -> list[str]:
        """Where to listen only to send clients to where TLS is."""
        return list(self["redirect_bind"] or ())

    def _rank(self, name: str) -> int:
        """How much weight a setting's source has."""
        if not self.is_given(name):
            return 0
        if name not in self._given:
            return 1
        return 3 if self.is_direct(name) else 2

    def workers(self) -> int | None:
        """The number of processes; None to serve in this one, without a supervisor."""
        number = self["workers"]
        if number == "auto":
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if number is None and self.supervised_by():
            return 1
        return t.cast("int | None", number)

    def imply(self, name: str, value: t.Any, source: str) -> None:
        """Set what nobody has set."""
        self._implied[name] = value, source
        self._read()

    def one_process(self) -> None:
        """Let nothing ask for a supervisor."""
        for name in _SUPERVISED:
            self._given[name] = BY_NAME[name].default, "default"
        self._read()

    def supervised_by(self) -> str | None:
        """The setting that asks for a supervisor, if one does."""
        return next((name for name in _SUPERVISED if self[name]), None)

    def engine(self) -> dict[str, t.Any]:
        """What the engine is to be told: all that somebody has set."""
        return {
            name: self[name]
            for name, row in BY_NAME.items()
            if row.engine and (self.is_given(name) or name in self._implied)
        }

    def access_log(self) -> dict[str, t.Any] | None:
        """How the access log is written; None for none."""
        wanted = self["access_log"]
        if wanted is None:
            wanted = self.is_given("access_log_to")
        if not wanted:
            return None
        return {name: self[f"access_log_{name}"] for name in ("to", "format", "sample")}

    def rows(self) -> t.Iterator[tuple[str, str, str]]:
        """Name, value and source of each setting, for `hipflask config`."""
        for name, row in BY_NAME.items():
            value = self[name]
            yield name, "-" if value is None else row.kind.show(value), self.sources[name]


def read_file(path: str | None = None) -> tuple[str, dict[str, t.Any]]:
    """Read the configuration file.

    Args:
        path: The file; None looks for ``hipflask.toml`` in the working directory, then for a
            ``pyproject.toml`` with a table ``[tool.hipflask]``.

    Returns:
        What to call the file in messages, and what it says; both empty if there is none.

    Raises:
        SettingError: If it cannot be read.
    """
    if path is not None:
        return path, _tables(path)
    if os.path.exists(FILE):
        return FILE, _tables(FILE)
    try:
        with open("pyproject.toml", "rb") as file:
            mentioned = b"tool.hipflask" in file.read()
    except OSError:
        mentioned = False
    return ("pyproject.toml", _tables("pyproject.toml")) if mentioned else ("", {})


def _tables(path: str) -> dict[str, t.Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise SettingError(
                f"{path}: Python 3.10 cannot read TOML by itself: pip install 'hipflask[toml]'"
            ) from None
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingError(f"{path} is not TOML: {error}") from None
    if os.path.basename(path) == "pyproject.toml":
        found = found.get("tool", {}).get("hipflask", {})
    return t.cast("dict[str, t.Any]", found)


def check_environment() -> None:
    """Refuse variables that look like a misspelt setting. Others with the prefix are nobody's business.

    Raises:
        SettingError: If there is one.
    """
    names = {name.upper() for name in (*BY_NAME, "config", "as_flask", *_OTHER_VARIABLES)}
    for variable in os.environ:
        name = variable.removeprefix(PREFIX)
        if name == variable or name in names:
            continue
        if guess := _did_you_mean(variable, (PREFIX + name for name in names), 0.9):
            raise SettingError(f"there is no variable {variable!r}{guess}")
