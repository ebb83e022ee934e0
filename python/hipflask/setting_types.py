"""What a setting of the server is, and the kinds of values there are: times, sizes, numbers, names.

A kind reads what flags, variables and files give, and writes a value as it may be given. The settings
themselves are in `hipflask.settings`.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

#: Of the environment variables.
PREFIX = "HIPFLASK_"


class SettingError(ValueError):
    """A setting that does not exist, or a value that it cannot have."""


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


class Networks(Texts):
    """Addresses and networks, ``unix:`` for clients of Unix sockets, ``*`` for everybody; ``-`` for none."""

    metavar = "NETWORK"

    def parse(self, value: object) -> list[str]:
        """Make a list of those that can be read."""
        if value == "-" or value in ([], ["-"], ("-",)):
            return []
        found = [part for text in super().parse(value) for part in super(Networks, self).parse(text)]
        for text in found:
            self._check(text)
        return found

    def _check(self, text: str) -> None:
        import ipaddress

        if text in ("*", "unix:"):
            return
        try:
            if not re.fullmatch(r"[0-9a-fA-F.:]+(/[0-9]+)?", text):
                raise ValueError(f"{text!r} is none")
            ipaddress.ip_network(text)
        except ValueError as error:
            raise SettingError(
                f"networks such as 10.0.0.0/8, 2001:db8::/32, unix: or * are expected: {error}"
            ) from None

    def show(self, value: list[str]) -> str:
        """Write them with spaces between."""
        return super().show(value) or "-"


class Words(Texts):
    """Some of some words."""

    metavar = "NAME"

    def __init__(self, *words: str) -> None:
        self.words = words

    def parse(self, value: object) -> list[str]:
        """Check that they are among them; case does not matter."""
        parts = [part for text in super().parse(value) for part in super(Words, self).parse(text)]
        found = [part.lower() for part in parts]
        if not set(found) <= set(self.words):
            raise SettingError(f"some of {', '.join(self.words)} are expected")
        return found


class Mount(Kind):
    """A path under which the application is to be found."""

    metavar = "PATH"

    def parse(self, value: object) -> str:
        """Take slashes off the end; the root stays one."""
        if not isinstance(value, str) or not re.fullmatch(r"/(?!/)[^\x00-\x1f\x7f?#\\]*", value):
            raise SettingError("a path that begins with a slash is expected")
        return value.rstrip("/") or "/"


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
        return str(value)


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


class Share(Kind):
    """A part of all, from 0 to 1: ``0.01``, ``1%``."""

    metavar = "SHARE"

    def parse(self, value: object) -> float:
        """Make a number."""
        number = _number(value, {"": 1})
        if number is None and isinstance(value, str) and value.strip().endswith("%"):
            number = _number(value.strip()[:-1], {"": 1})
            number = None if number is None else number / 100
        if number is None:
            raise SettingError("a part of all is expected, such as 0.01 or 1%")
        return _within(number, 0, 1, self.show)

    def show(self, value: float) -> str:
        """Write the number."""
        return f"{value:g}"


class LogFormat(Kind):
    """What lines of the access log are."""

    metavar = "FORMAT"

    def parse(self, value: object) -> str:
        """Check that the engine can write it."""
        from . import _core

        try:
            _core.check_access_log_format(super().parse(value))
        except ValueError as error:
            raise SettingError(str(error)) from None
        return str(value)


class Workers(Count):
    """A number of processes, or ``auto``: one for each core that this process may use."""

    metavar = "[NUMBER|auto]"

    def parse(self, value: object) -> int | t.Literal["auto"]:  # type: ignore[override]
        """Make an int, or leave ``auto``."""
        try:
            return "auto" if value == "auto" else super().parse(value)
        except SettingError as error:
            raise SettingError(f"{error}, or 'auto'") from None


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
        return PREFIX + self.name.upper()
