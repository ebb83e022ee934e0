"""Listening sockets: opened as settings say, inherited, or handed on to another process.

Sockets are opened here and not by the engine, which is given their numbers: so several processes can share
them, and rights can be dropped between opening them and loading the application.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What a program that is started anew inherits: numbers and names of listening sockets.
_INHERITED = "HIPFLASK_LISTENERS"
# The first descriptor that systemd passes (sd_listen_fds(3)).
_FIRST_OF_SYSTEMD = 3
_NEW_PORTS = 32
# Before the address of a socket at which the server tells about itself (`hipflask.metrics`).
_ROLES = {"metrics": "--metrics-bind", "control": "--control"}


class ListenError(Exception):
    """Nothing can listen there: a sentence that says why, and what to do."""


class Listener:
    """A listening socket.

    Args:
        bind: What asked for it: several sockets may come of one name.
        listening: The socket.
    """

    def __init__(self, bind: str, listening: socket.socket) -> None:
        self.bind = bind
        self.socket = listening
        role, _, _ = bind.partition(":")
        #: What it is for, if not for the application's requests: ``metrics`` or ``control``.
        self.role: str | None = role if role in _ROLES else None
        self._file = _file_of(listening)

    @property
    def address(self) -> str:
        """Where it listens: ``http://127.0.0.1:5000`` or ``unix:path``."""
        if self.socket.family == socket.AF_UNIX:
            name = self.socket.getsockname()
            return f"unix:{name if isinstance(name, str) else os.fsdecode(name).replace(chr(0), '@', 1)}"
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def number(self) -> str:
        """What the engine is told."""
        return f"fd:{self.socket.fileno()}"

    def close(self) -> None:
        """Listen no more, in this process."""
        self.socket.close()

    def remove(self) -> None:
        """Remove the file of a Unix socket, unless another server has put its own there."""
        given = self.bind.removeprefix(f"{self.role}:")
        if self._file is None or given.startswith(("fd:", "systemd:")):
            return
        path, *file = self._file
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if [status.st_dev, status.st_ino] == file:
                os.unlink(path)


def _file_of(listening: socket.socket) -> tuple[str | bytes, int, int] | None:
    """Path, device and number of a Unix socket's file."""
    if listening.family != socket.AF_UNIX:
        return None
    path = listening.getsockname()
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return path, status.st_dev, status.st_ino


def open_all(binds: Iterable[str], settings: Mapping[str, t.Any]) -> list[Listener]:
    """Open sockets, or take over those that were passed on.

    Args:
        binds: ``host:port``, ``[v6]:port``, ``:port``, ``unix:path`` or ``fd:number``, behind ``metrics:`` or
            ``control:`` if the server tells about itself there.
        settings: `backlog`, `socket_mode` and `socket_owner`.

    Returns:
        The sockets, listening.

    Raises:
        ListenError: If one cannot be had.
    """
    listeners = of_systemd()
    if listeners:
        # It activates the application's sockets; the server's own are opened as ever.
        binds = [bind for bind in binds if bind.partition(":")[0] in _ROLES]
    kept = _passed_on()
    for bind in binds:
        passed = [listener for listener in kept if listener.bind == bind]
        listeners += passed or _open(bind, settings)
        kept = [listener for listener in kept if listener.bind != bind]
    for listener in kept:
        listener.close()
    return listeners


def change(
    listeners: list[Listener], binds: Iterable[str], settings: Mapping[str, t.Any]
) -> tuple[list[Listener], list[Listener]]:
    """Open what is new in settings that have been read again.

    Args:
        listeners: What is open.
        binds: What is wanted now.
        settings: As for `open_all`.

    Returns:
        The sockets for these settings, and those that are no longer wanted.

    Raises:
        ListenError: If a new one cannot be had; then nothing has changed.
    """
    wanted = list(dict.fromkeys(binds))
    if any(listener.bind.startswith("systemd:") for listener in listeners):
        return listeners, []
    opened: list[Listener] = []
    try:
        for bind in wanted:
            if all(listener.bind != bind for listener in listeners):
                opened += _open(bind, settings)
    except ListenError:
        for listener in opened:
            listener.close()
        raise
    kept = [listener for listener in listeners if listener.bind in wanted]
    return [*kept, *opened], [listener for listener in listeners if listener.bind not in wanted]


# What others opened.


def of_systemd() -> list[Listener]:
    """The sockets that systemd listens on for this process (sd_listen_fds(3)); asked for once."""
    environ = os.environ
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    return [_adopt(f"systemd:{at}", at) for at in range(_FIRST_OF_SYSTEMD, _FIRST_OF_SYSTEMD + count)]


def pass_on(listeners: Iterable[Listener]) -> tuple[dict[str, str], list[int]]:
    """Prepare to start a process that takes the sockets over by `open_all`.

    Returns:
        What to add to its environment, and the descriptors to leave open.
    """
    numbers = [(listener.socket.fileno(), listener.bind) for listener in listeners]
    return {_INHERITED: "\n".join(f"{fd} {bind}" for fd, bind in numbers)}, [fd for fd, _ in numbers]


def _passed_on() -> list[Listener]:
    lines = os.environ.pop(_INHERITED, "").splitlines()
    return [_adopt(bind, int(fd)) for fd, _, bind in (line.partition(" ") for line in lines)]


def _adopt(bind: str, number: int) -> Listener:
    try:
        listener = socket.socket(fileno=number)
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.detach()
            raise ListenError(f"Descriptor {number} is a socket that does not listen.")
    except OSError as error:
        raise ListenError(f"Descriptor {number} is no listening socket: {error.strerror}.") from None
    listener.set_inheritable(False)
    listener.setblocking(False)
    return Listener(bind, listener)


# Opening.


def _open(bind: str, settings: Mapping[str, t.Any]) -> list[Listener]:
    role, _, rest = bind.partition(":")
    if role in _ROLES:
        if role == "control":
            # Whoever can connect sees what is asked for.
            settings = {**settings, "socket_mode": 0o600, "socket_owner": None}
        try:
            return [Listener(bind, listener.socket) for listener in _open(rest, settings)]
        except ListenError as error:
            # Another option says where.
            why = str(error).replace("--host", _ROLES[role]).replace("--port", _ROLES[role])
            raise ListenError(why) from error
    if bind.startswith("fd:"):
        number = bind[3:]
        if not number.isdecimal():
            raise ListenError(f"{bind!r} names no descriptor: 'fd:' and a number is expected.")
        # A copy, so that all listeners are closed alike.
        try:
            return [_adopt(bind, os.dup(int(number)))]
        except OSError as error:
            raise ListenError(f"Descriptor {number} cannot be used: {error.strerror}.") from None
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:").removeprefix("//")
        try:
            return [Listener(bind, _open_unix(path, settings))]
        except OSError as error:
            raise ListenError(_explain(error, bind, 0)) from error
    host, port = _split(bind)
    try:
        return [Listener(bind, each) for each in _open_tcp(host, port, settings["backlog"])]
    except OSError as error:
        raise ListenError(_explain(error, host, port)) from error


def _split(bind: str) -> tuple[str, int]:
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ListenError(
            f"{bind!r} is no place to listen: 'host:port', '[v6]:port', ':port', 'unix:path' or 'fd:number'"
            " is expected."
        )
    return host.strip("[]"), int(port)


def _open_tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on all addresses that a name stands for; on none, if one is taken."""
    places: list[tuple[socket.AddressFamily, t.Any]]
    if host == "":
        places = [(socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port))]
    else:
        # Bytes are taken as they are; a text would have the codec of international names imported.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        places = list(dict.fromkeys((socket.AddressFamily(family), place) for family, *_, place in found))
    for last in range(_NEW_PORTS, -1, -1):
        opened: list[socket.socket] = []
        failed: list[OSError] = []
        for family, place in places:
            # With port 0 all addresses get the port that the first one got.
            chosen = opened[0].getsockname()[1] if opened and not port else place[1]
            alone = host != "::" and len(places) > 1
            try:
                opened.append(_listen(family, (place[0], chosen, *place[2:]), backlog, alone))
            except OSError as error:
                failed.append(error)
        # Where a name has several addresses, the system may lack one family.
        lacking = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        fatal = [error for error in failed if not opened or error.errno not in lacking]
        if not fatal:
            return opened
        for each in opened:
            each.close()
        if port or not opened or not last:
            raise fatal[0]
    raise AssertionError


def _listen(
    family: socket.AddressFamily, place: tuple[t.Any, ...], backlog: int, only_v6: bool
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections have it from their listener: no call for each.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_v6))
        listener.bind(place)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _open_unix(path: str, settings: Mapping[str, t.Any]) -> socket.socket:
    if is_stale(path):
        os.unlink(path)
    mode, owner = settings["socket_mode"], settings["socket_owner"]
    listener = socket.socket(socket.AF_UNIX)
    try:
        # With a mode of its own nobody shall get in before it is set.
        umask = os.umask(0o777) if mode is not None or owner else None
        try:
            listener.bind(path)
        finally:
            if umask is not None:
                os.umask(umask)
        if owner:
            from .process import ids_of

            os.chown(path, *ids_of(owner))
        if umask is not None:
            os.chmod(path, 0o777 & ~umask if mode is None else mode)
        listener.listen(settings["backlog"])
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def is_stale(path: str) -> bool:
    """Whether a path is a socket that a server left behind, where nobody listens any more."""
    import stat

    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _explain(error: OSError, host: str, port: int) -> str:
    """Say in one sentence why nothing can listen there and what to do."""
    is_unix = host.startswith("unix:")
    where = host if is_unix else f"{host} port {port}"
    other = "choose another path with --host" if is_unix else "choose another port with --port"
    if error.errno == errno.EADDRINUSE:
        reason = f"{where} is in use by another program: stop that program, or {other}."
        if sys.platform == "darwin" and port == 5000:
            reason += " (On macOS it may be the AirPlay receiver, which System Settings turns off.)"
        return reason
    if error.errno in (errno.EACCES, errno.EPERM):
        if is_unix:
            return f"This user may not write to the directory of {host}: {other}."
        return f"Port {port} needs more rights than this user has: choose a port above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{host} is not an address of this machine: choose one with --host, such as 127.0.0.1 or 0.0.0.0."
        )
    if error.errno == errno.ENOENT and is_unix:
        return f"There is no directory for {host}: make it, or {other}."
    if not is_unix and (isinstance(error, socket.gaierror) or error.errno is None):
        return (
            f"{host!r} is no address and no known name: choose one with --host, such as 127.0.0.1 or 0.0.0.0."
        )
    return f"Cannot listen on {where}: {error.strerror or error}."
