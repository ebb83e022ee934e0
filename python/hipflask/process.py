"""What a server is to its system: a user, a number in a file, a service of systemd.

Implements the protocol of sd_notify(3) and the watchdog of sd_watchdog_enabled(3) without its library.
"""

from __future__ import annotations

import contextlib
import os
import time


def start_command() -> list[str]:
    """Return the command that starts this program anew: the standalone binary, or the interpreter.

    `sys.executable` is an interpreter in the binary too, since programs start others by it.
    """
    import sys

    binary = "_hipflask" in sys.builtin_module_names
    return [sys.orig_argv[0] if binary else sys.executable, *sys.orig_argv[1:]]


class PrivilegeError(Exception):
    """This process cannot become what the settings ask for."""


def ids_of(names: str) -> tuple[int, int]:
    """Look up a user and a group.

    Args:
        names: ``user``, ``user:group`` or ``:group``, by name or number.

    Returns:
        Their numbers; -1 for one that is not named.

    Raises:
        PrivilegeError: If there is no such user or group.
    """
    user, _, group = names.partition(":")
    return (-1 if not user else _user(user)[0]), (-1 if not group else _group(group))


def _user(name: str) -> tuple[int, int | None, str | None]:
    """Number, group and name of a user."""
    import pwd

    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal():
            return int(name), None, None
        raise PrivilegeError(f"There is no user {name!r}.") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(name: str) -> int:
    import grp

    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise PrivilegeError(f"There is no group {name!r}.") from None


def check_privileges(user: str | None, group: str | None) -> None:
    """See whether `drop_privileges` would work.

    Raises:
        PrivilegeError: If not.
    """
    uid, gid = _wanted(user, group)
    may = os.geteuid() == 0
    if not may and (uid not in (None, os.getuid()) or gid not in (None, os.getgid())):
        raise PrivilegeError(
            "Only root can become another user: start the server as root, or without --user."
        )


def drop_privileges(user: str | None, group: str | None) -> None:
    """Become a user and a group, for good.

    Args:
        user: By name or number; None stays who this is.
        group: By name or number; None takes the user's.

    Raises:
        PrivilegeError: If there is no such user or group, or this process may not.
    """
    check_privileges(user, group)
    uid, gid = _wanted(user, group)
    if os.geteuid() != 0 or (uid is None and gid is None):
        return
    if gid is not None:
        name = _user(user)[2] if user else None
        if name is not None:
            os.initgroups(name, gid)
        else:
            os.setgroups([gid])
        os.setgid(gid)
    if uid is not None:
        os.setuid(uid)


def _wanted(user: str | None, group: str | None) -> tuple[int | None, int | None]:
    uid, own, _ = _user(user) if user else (None, None, None)
    return uid, _group(group) if group else own


# The pid file.


class PidFile:
    """A file that holds the number of this process.

    Args:
        path: Where; None for no file.

    Raises:
        SystemExit: If a living process stands in it, or it cannot be written.
    """

    def __init__(self, path: str | None, replaces: int | None = None) -> None:
        self.path = os.path.abspath(path) if path else None
        if self.path is None:
            return
        other = _read(self.path)
        if other not in (None, os.getpid(), replaces) and _lives(other):
            raise SystemExit(f"Error: {path} says that process {other} serves already.")
        self.write()

    def write(self) -> None:
        """Write the file at once, as whoever reads it expects.

        Raises:
            SystemExit: If it cannot be written.
        """
        if self.path is None:
            return
        unfinished = f"{self.path}.{os.getpid()}"
        try:
            with open(unfinished, "w") as file:
                file.write(f"{os.getpid()}\n")
            os.replace(unfinished, self.path)
        except OSError as error:
            raise SystemExit(
                f"Error: The pid file {self.path} cannot be written: {error.strerror}."
            ) from None

    def step_aside(self) -> None:
        """Move to ``.oldbin``, for a successor to write its own."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.replace(self.path, f"{self.path}.oldbin")
            self.path = f"{self.path}.oldbin"

    def step_back(self) -> None:
        """Take the place again, since there is no successor."""
        if self.path is not None:
            aside, self.path = self.path, self.path.removesuffix(".oldbin")
            with contextlib.suppress(OSError):
                os.replace(aside, self.path)

    def remove(self) -> None:
        """Remove the file, if it is still this process's."""
        if self.path is not None and _read(self.path) == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _read(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _lives(pid: int | None) -> bool:
    if pid is None or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# Succession: a new program on the same sockets.


class Succession:
    """What a process knows of the one whose place it takes, if there is one; asked for once."""

    _VARIABLE = "HIPFLASK_SUCCEEDS"

    def __init__(self) -> None:
        self._channel: int | None = None
        #: The number of the process that still serves.
        self.predecessor: int | None = None
        told = os.environ.pop(self._VARIABLE, None)
        if told is not None:
            channel, _, predecessor = told.partition(" ")
            self._channel, self.predecessor = int(channel), int(predecessor)
            os.set_inheritable(self._channel, False)

    @classmethod
    def environment(cls, channel: int) -> dict[str, str]:
        """What a successor needs, which will write to this descriptor."""
        return {cls._VARIABLE: f"{channel} {os.getpid()}"}

    def ready(self) -> None:
        """Tell the predecessor that it may go."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                os.write(self._channel, b"ready")
        self.forget()

    def forget(self) -> None:
        """Let another process tell it."""
        if self._channel is not None:
            os.close(self._channel)
            self._channel = None


# systemd.


class Service:
    """What systemd hears from this process, if it has started it with ``Type=notify``."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", None)
        interval = os.environ.pop("WATCHDOG_USEC", None)
        pid = os.environ.pop("WATCHDOG_PID", None)
        #: Seconds between signs of life; None if nobody waits for them.
        self.interval: float | None = None
        if interval is not None and pid in (None, str(os.getpid())) and self._address:
            # Half of what is asked for, as sd_watchdog_enabled(3) advises.
            self.interval = int(interval) / 2_000_000

    def environment(self) -> dict[str, str]:
        """What a successor needs to take this over."""
        if self._address is None:
            return {}
        found = {"NOTIFY_SOCKET": self._address}
        if self.interval is not None:
            found["WATCHDOG_USEC"] = str(int(self.interval * 2_000_000))
        return found

    def ready(self, status: str) -> None:
        """Requests are served."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        """Settings are read again; `ready` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=Reloading")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1\nSTATUS=Stopping")

    def successor(self, pid: int) -> None:
        """Another process is the service from now on."""
        self._tell(f"MAINPID={pid}\nREADY=1")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if self._address is None:
            return
        import socket

        # An abstract name begins with a NUL, which is written as '@'.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Nobody to tell is nothing to fail for.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(text.encode())


def working_directory() -> str:
    """The directory that this process was started in, by the name that was used.

    A service is often started in a link to its newest release: the link is what a new process shall follow.
    """
    name = os.environ.get("PWD")
    with contextlib.suppress(OSError):
        if name is not None and os.path.isabs(name) and os.path.samefile(name, os.curdir):
            return name
    return os.getcwd()


def resident_bytes() -> int:
    """The memory that this process holds, shared pages included; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
