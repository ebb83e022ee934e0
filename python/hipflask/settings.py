"""The settings of the server: one table, and the places that their values come from.

A setting is given by a flag (``--idle-timeout 30s``), by the environment (``HIPFLASK_IDLE_TIMEOUT``), or by
a file (``idle_timeout = "30s"`` in ``hipflask.toml``, or in the table ``[tool.hipflask]`` of
``pyproject.toml``); the first of these that has it wins. `SETTINGS` is what the options of ``hipflask run``,
the file's keys and the pages of the manual are made from. What `Setting.engine` marks is checked once more by
the engine, which also has the defaults: ``_core.engine_settings()``.

The settings of an application are elsewhere: `hipflask.Config`.
"""

from __future__ import annotations

import os
import re
import typing as t
from collections.abc import Mapping

#: The file that is looked for in the working directory.
FILE = "hipflask.toml"

_PREFIX = "HIPFLASK_"


class SettingError(ValueError):
    """A setting that does not exist, or a value that it cannot have."""


# Kinds of values.


class Kind:
    """What a setting's values are. This one: any text."""

    metavar = "TEXT"

    def parse(self, value: object) -> t.Any:
        """Make the value of what a flag, a variable or the file gives.

        Raises:
            SettingError: With a sentence that says what is expected.
        """
        if not isinstance(value, str) or not value:
            raise SettingError("a text is expected")
        return value

    def show(self, value: t.Any) -> str:
        """Write a value as it may be given."""
        return str(value)


class Path(Kind):
    """A file or directory."""

    metavar = "PATH"


class Texts(Kind):
    """Several texts; in one, they are separated by commas or spaces."""

    def parse(self, value: object) -> list[str]:
        """Make a list."""
        if isinstance(value, str):
            value = re.split(r"[\s,]+", value.strip())
        if (
            not isinstance(value, list | tuple)
            or not value
            or not all(isinstance(v, str) and v for v in value)
        ):
            raise SettingError("a text or a list of texts is expected")
        return list(value)

    def show(self, value: list[str]) -> str:
        """Write them with spaces between."""
        return " ".join(value)


class Switch(Kind):
    """On or off."""

    metavar = ""

    def parse(self, value: object) -> bool:
        """Make a bool."""
        if isinstance(value, bool):
            return value
        word = value.lower() if isinstance(value, str) else value
        if word in ("1", "true", "yes", "on", 1):
            return True
        if word in ("0", "false", "no", "off", 0):
            return False
        raise SettingError("true or false is expected")

    def show(self, value: bool) -> str:
        """Write it as TOML has it."""
        return "true" if value else "false"


class Choice(Kind):
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = f"[{'|'.join(words)}]"

    def parse(self, value: object) -> str:
        """Check that it is one."""
        if value not in self.words:
            raise SettingError(f"one of {', '.join(self.words)} is expected")
        return t.cast("str", value)


class Count(Kind):
    """A whole number."""

    metavar = "NUMBER"

    def __init__(self, least: int = 1, most: int | None = None) -> None:
        self.least = least
        self.most = most

    def parse(self, value: object) -> int:
        """Make an int."""
        number = _number(value, {"": 1})
        if number is None or number != int(number):
            raise SettingError("a whole number is expected")
        return int(_within(number, self.least, self.most, self.show))


class Size(Count):
    """A number of bytes: ``64 KiB``, ``1.5MB``, ``4096``."""

    metavar = "SIZE"
    _UNITS: t.ClassVar = {
        "": 1, "b": 1,
        "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
        "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
        "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    }  # fmt: skip

    def parse(self, value: object) -> int:
        """Make a number of bytes."""
        number = _number(value, self._UNITS)
        if number is None:
            raise SettingError("a size is expected, such as 65536, 64KiB or 1.5GB")
        return int(_within(number, self.least, self.most, self.show))

    def show(self, value: float) -> str:
        """Write it with the largest unit that leaves a whole number."""
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if value and value % self._UNITS[unit.lower()] == 0:
                return f"{int(value // self._UNITS[unit.lower()])}{unit}"
        return f"{int(value)}B"


class Seconds(Kind):
    """A duration: ``30``, ``1.5s``, ``250ms``, ``5m``, ``2h``, ``7d``."""

    metavar = "TIME"
    _UNITS: t.ClassVar = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
    #: No timer of the engine or the system goes beyond it.
    _MOST = 365 * 86400.0

    def __init__(self, least: float = 0.001) -> None:
        self.least = least

    def parse(self, value: object) -> float:
        """Make a number of seconds."""
        number = _number(value, self._UNITS)
        if number is None:
            raise SettingError("a time is expected, such as 30, 1.5s, 250ms, 5m or 2h")
        return _within(number, self.least, self._MOST, self.show)

    def show(self, value: float) -> str:
        """Write it with the largest unit that leaves a whole number."""
        for unit in ("d", "h", "m", "s"):
            if value and value % self._UNITS[unit] == 0:
                return f"{int(value // self._UNITS[unit])}{unit}"
        return f"{value:g}s" if value >= 1 or not value else f"{value * 1000:g}ms"


class Workers(Count):
    """A number of processes, or ``auto``: one for each core that this process may use."""

    metavar = "[NUMBER|auto]"

    def parse(self, value: object) -> int | t.Literal["auto"]:  # type: ignore[override]
        """Make an int, or leave ``auto``."""
        return "auto" if value == "auto" else super().parse(value)


class Mode(Kind):
    """The permissions of a file, in octal digits: ``660``."""

    metavar = "MODE"

    def parse(self, value: object) -> int:
        """Make an int of the digits; an int is taken as it is."""
        if isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{3}", value):
            return int(value, 8)
        if isinstance(value, int) and 0 <= value <= 0o777:
            return value
        raise SettingError("permissions in octal digits are expected, such as '660'")

    def show(self, value: int) -> str:
        """Write the digits."""
        return f"{value:03o}"


class Names(Kind):
    """A user and a group: ``user``, ``user:group`` or ``:group``, by name or by number."""

    metavar = "USER:GROUP"


def _number(value: object, units: Mapping[str, float]) -> float | None:
    """The number that a value is, in the unit of its text; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    match = re.fullmatch(r"(\d+(?:[\d_]*\d)?(?:\.\d+)?)\s*([a-zA-Z]*)", str(value).strip())
    if match is None or match[2].lower() not in units:
        return None
    number, unit = float(match[1].replace("_", "")), units[match[2].lower()]
    # Thousandths are not exact in binary: a division of whole numbers is closer.
    return number / round(1 / unit) if unit < 1 else number * unit


def _within(number: float, least: float, most: float | None, show: t.Callable[[t.Any], str]) -> float:
    if not number >= least:
        raise SettingError(f"at least {show(least)} is expected")
    if most is not None and number > most:
        raise SettingError(f"at most {show(most)} is expected")
    return number


# The table.


class Setting(t.NamedTuple):
    """A row of the table."""

    name: str
    """In the file. Flag and variable are made of it."""
    kind: Kind
    default: t.Any
    """None stands for what `text` says."""
    text: str
    """What it sets, for people who read ``hipflask run --help``."""
    reason: str = ""
    """Why the default is what it is."""
    beyond: str = ""
    """What a client gets that goes beyond it, or what happens then."""
    engine: bool = False
    """Whether the engine is told."""
    short: str = ""
    """A flag of one letter."""

    @property
    def flag(self) -> str:
        """The option of ``hipflask run``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return _PREFIX + self.name.upper()


def _engine(*row: t.Any) -> Setting:
    return Setting(*row, engine=True)


_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30

#: All settings, by the headings under which help and manual show them.
SETTINGS: dict[str, list[Setting]] = {
    "Listening": [
        Setting(
            "host",
            Kind(),
            "127.0.0.1",
            "An address or name to listen on, or 'unix:' and a socket's path.",
            reason="nobody else sees what was not meant to be seen",
            short="h",
        ),
        Setting(
            "port",
            Count(0, 65535),
            5000,
            "The port to listen on; 0 for a free one.",
            reason="Flask's",
            short="p",
        ),
        Setting(
            "bind",
            Texts(),
            None,
            "Where to listen, in the place of host and port; may be given several times: 'host:port',"
            " '[v6]:port', ':port' for all addresses, 'unix:path', 'fd:number'.",
            reason="host and port",
            short="b",
        ),
        Setting("socket_mode", Mode(), None, "Permissions of Unix sockets.", "as the umask leaves them"),
        Setting("socket_owner", Names(), None, "Owner of Unix sockets.", "the user that starts the server"),
        Setting(
            "backlog",
            Count(),
            1024,
            "Connections that wait in the kernel until they are accepted.",
            reason="a second's worth; the kernel caps it by net.core.somaxconn",
            beyond="they try again, by TCP's rules",
        ),
    ],
    "Processes": [
        Setting(
            "workers",
            Workers(),
            None,
            "Serve with so many processes and a supervisor; 'auto': one per core.",
            reason="one process without a supervisor",
            short="w",
        ),
        Setting(
            "preload",
            Switch(),
            False,
            "Import the application once, before the processes are made of it.",
            reason="without it, SIGHUP loads new code",
        ),
        Setting(
            "grace",
            Seconds(0),
            30.0,
            "What running requests get to finish when the server stops.",
            reason="longer than most requests, shorter than a service manager's patience",
            beyond="they are cut off",
            engine=True,
        ),
        Setting(
            "boot_timeout",
            Seconds(),
            120.0,
            "What a worker may take to load the application.",
            reason="large models take a minute",
            beyond="it is ended and tried again",
        ),
        Setting("max_requests", Count(), None, "Replace a worker after so many requests.", "never"),
        Setting(
            "max_requests_jitter",
            Count(0),
            0,
            "Up to so many requests more, at random.",
            reason="a tenth of max_requests keeps workers from being replaced all at once",
        ),
        Setting(
            "max_worker_age",
            Seconds(1),
            None,
            "Replace a worker after this time, and up to a tenth more.",
            reason="never",
        ),
        Setting(
            "max_worker_memory",
            Size(_MIB),
            None,
            "Replace a worker that holds more memory.",
            reason="never",
        ),
        Setting("pid_file", Path(), None, "Write the number of the process that takes signals here.", "none"),
        Setting(
            "user",
            Kind(),
            None,
            "Run the application as this user; started as root.",
            reason="the one that starts the server",
            short="u",
        ),
        Setting(
            "group",
            Kind(),
            None,
            "Run the application as this group; started as root.",
            reason="the user's",
            short="g",
        ),
    ],
    "Load": [
        Setting(
            "threads",
            Count(1, 4096),
            32,
            "Views that run at the same time in a process, at most.",
            reason="beyond that many blocking views, threads are the wrong design",
            beyond="requests wait",
            engine=True,
        ),
        _engine(
            "queue",
            Count(),
            1024,
            "Requests that wait for a thread, at most.",
            "at 50 ms a view, the last one waits 1.6 s",
            "503 with Retry-After",
        ),
        _engine(
            "max_connections",
            Count(),
            16_384,
            "Open connections of a process, at most.",
            "some 400 bytes each when idle, and a descriptor",
            "they wait in the kernel's queue",
        ),
    ],
    "Times": [
        _engine(
            "header_timeout",
            Seconds(),
            10.0,
            "For a head, from its first byte to its last.",
            "a head is one to three packets, even on a bad line",
            "408",
        ),
        _engine(
            "body_timeout",
            Seconds(),
            20.0,
            "Longest pause in a body, and the time after which its rate counts.",
            "a phone may change its cell",
            "408; 400 in a view that reads",
        ),
        _engine(
            "body_rate",
            Count(),
            500,
            "Least bytes per second of a body, on average.",
            "below any modem, above a trickle",
            "as body_timeout",
        ),
        _engine(
            "idle_timeout",
            Seconds(),
            75.0,
            "For the next request on an open connection.",
            "longer than the usual 60 s of a proxy, which must be the one to close",
            "closed",
        ),
        _engine(
            "write_timeout",
            Seconds(),
            30.0,
            "Longest pause of a client in taking a response.",
            "as for bodies, and a little more",
            "closed",
        ),
        _engine(
            "write_rate",
            Count(),
            500,
            "Least bytes per second that a client takes, on average.",
            "as for bodies",
            "closed",
        ),
        _engine(
            "linger_timeout",
            Seconds(0),
            2.0,
            "For reading on after the last response on a connection.",
            "so that the client sees the response, not a reset",
            "closed",
        ),
        _engine(
            "last_call",
            Seconds(0),
            0.25,
            "For requests on idle connections when the server stops.",
            "a request may be on its way already",
            "closed",
        ),
    ],
    "Sizes": [
        _engine(
            "max_request_line",
            Size(16),
            16 * _KIB,
            "Request line.",
            "RFC 9112 §3 asks for 8,000 bytes at least; twice that leaves room for long queries",
            "414",
        ),
        _engine(
            "max_method",
            Size(3),
            32,
            "Method.",
            "the longest registered one has 17",
            "501",
        ),
        _engine(
            "max_field",
            Size(16),
            16 * _KIB,
            "One field of a head.",
            "several cookies of 4 KiB, or a Kerberos ticket",
            "431",
        ),
        _engine(
            "max_fields",
            Count(),
            100,
            "Number of fields of a head.",
            "browsers send about 20, proxies add a dozen",
            "431",
        ),
        _engine(
            "max_head",
            Size(64),
            64 * _KIB,
            "The whole head.",
            "browsers keep at most some 4 KiB of cookies per host and name",
            "431",
        ),
        _engine(
            "max_empty_lines",
            Count(0),
            1,
            "Empty lines before a request.",
            "RFC 9112 §2.2 asks for at least one",
            "400",
        ),
        _engine(
            "max_body",
            Size(0),
            4 * _GIB,
            "A body. MAX_CONTENT_LENGTH of the application sets a lower one.",
            "guards the disk; bodies are not kept in memory",
            "413",
        ),
        _engine(
            "max_chunk_extensions",
            Size(0),
            4 * _KIB,
            "Chunk extensions of a body, summed.",
            "nobody uses them; without a limit they are traffic that no body limit counts",
            "400",
        ),
        _engine(
            "max_trailers",
            Size(0),
            8 * _KIB,
            "Trailer section of a body.",
            "a signature and a digest",
            "431",
        ),
        _engine(
            "max_trailer_fields",
            Count(0),
            32,
            "Number of trailer fields.",
            "as many as anybody sends",
            "431",
        ),
        _engine(
            "buffer_body",
            Size(0),
            256 * _KIB,
            "A body up to this is read before the view is called.",
            "what forms and small uploads need",
            "the view reads it, on a thread",
        ),
        _engine(
            "buffer_bodies",
            Size(0),
            64 * _MIB,
            "All bodies that are being read before their views, together.",
            "many slow clients together cannot take more",
            "views read theirs",
        ),
        _engine(
            "drain_body",
            Size(0),
            64 * _KIB,
            "What is left of an unread body is dropped up to this.",
            "keeps the connection",
            "closed",
        ),
    ],
    "Behaviour": [
        _engine(
            "utf8_target",
            Switch(),
            True,
            "Take UTF-8 in request targets.",
            "command lines send it, and nothing is corrected by it",
            "400",
        ),
        _engine(
            "underscores",
            Choice("guard", "refuse", "keep"),
            "guard",
            "Field names with an underscore: refuse those that pose as trusted ones and leave out the others"
            " (guard), refuse all, keep all.",
            "WSGI cannot tell X_Forwarded_For from the proxy's X-Forwarded-For",
            "400",
        ),
        _engine(
            "server_header",
            Kind(),
            "hipflask",
            "The field 'Server' of responses; '-' for none.",
            "clients and operators can tell who answered",
        ),
        Setting(
            "access_log", Switch(), None, "Log each answer. On in debug mode.", "a proxy writes better ones"
        ),
    ],
}

BY_NAME: dict[str, Setting] = {row.name: row for rows in SETTINGS.values() for row in rows}
"""The same by name."""


def parse(name: str, value: object) -> t.Any:
    """Make the value of a setting of what was given.

    Raises:
        SettingError: If there is no such setting, or it cannot have this value.
    """
    key = name.replace("-", "_")
    row = BY_NAME.get(key)
    if row is None:
        raise SettingError(f"there is no setting {name!r}{_did_you_mean(key, BY_NAME)}")
    try:
        return row.kind.parse(value)
    except SettingError as error:
        raise SettingError(f"{name} = {value!r}: {error}") from None


def _did_you_mean(name: str, names: t.Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    return f": did you mean {close[0]!r}?" if close else ""


# Values and where they come from.


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
        self._path = path
        #: The application that the file names, if any.
        self.app: str | None = None
        self.values: dict[str, t.Any] = {}
        self.sources: dict[str, str] = {}
        self.read()

    def read(self) -> None:
        """Read the file, again if need be. If that fails, everything stays as it was.

        Raises:
            SettingError: If the file cannot be read, or says what it cannot.
        """
        name, found = read_file(self._path)
        app = found.pop("app", None)
        if app is not None and not isinstance(app, str):
            raise SettingError(f"{name}: app = {app!r}: a text is expected")
        try:
            of_file = {key.replace("-", "_"): parse(key, value) for key, value in found.items()}
        except SettingError as error:
            raise SettingError(f"{name}: {error}") from None
        values = {name: row.default for name, row in BY_NAME.items()}
        sources = dict.fromkeys(values, "default")
        for key, value in of_file.items():
            values[key], sources[key] = value, name
        for key, (value, source) in self._given.items():
            values[key], sources[key] = value, source
        self.app, self.values, self.sources = app, values, sources

    def __getitem__(self, name: str) -> t.Any:
        """The value of a setting."""
        return self.values[name]

    def is_given(self, name: str) -> bool:
        """Whether anybody has set it."""
        return self.sources[name] != "default"

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

    def supervised_by(self) -> str | None:
        """The setting that asks for a supervisor, if one does."""
        names = ("workers", "preload", "max_requests", "max_worker_age", "max_worker_memory")
        return next((name for name in names if self[name]), None)

    def engine(self) -> dict[str, t.Any]:
        """What the engine is to be told: all that somebody has set."""
        return {name: self[name] for name, row in BY_NAME.items() if row.engine and self.is_given(name)}

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
    try:
        import tomllib
    except ImportError:
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
        return t.cast("dict[str, t.Any]", found.get("tool", {}).get("hipflask", {}))
    return found


def check_environment() -> None:
    """Refuse variables that look like a misspelt setting. Others with the prefix are nobody's business.

    Raises:
        SettingError: If there is one.
    """
    known = {row.variable for row in BY_NAME.values()} | {f"{_PREFIX}CONFIG", f"{_PREFIX}AS_FLASK"}
    for name in os.environ:
        if name.startswith(_PREFIX) and name not in known and (guess := _did_you_mean(name, known)):
            raise SettingError(f"there is no variable {name!r}{guess}")
