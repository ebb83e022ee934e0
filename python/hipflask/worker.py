"""What a worker process does: load, serve, and end when the supervisor, a signal or its age says so.

A worker and its supervisor (`hipflask.supervisor`) talk through a pair of sockets, a line of JSON each time:

=============================  =============================================================
worker to supervisor
=============================  =============================================================
``{"ready": true}``            it serves
``{"failed": text}``           it cannot serve
``{"replace": why}``           it is due to be replaced
``{"closed": true}``           it accepts no more connections
``{"alive": true}``            answers a ping
``{"told": true}``             has written down where its threads are
=============================  =============================================================

=============================  =============================================================
supervisor to worker
=============================  =============================================================
``{"stop": seconds, ...}``     finish what runs; ``hand_over``: leave connections that are not
                               accepted yet to others
``{"cut": true}``              end at once
``{"ping": true}``             is Python running?
``{"look": true}``             another worker has died, and a connection may wait that was its to accept
``{"reopen": true}``           the access log's file was moved away
=============================  =============================================================

The end of that connection is the end of the supervisor: then the worker finishes what runs, and goes.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import signal
import socket
import time
import typing as t

from . import stacks
from .process import resident_bytes
from .serving import ENDED, STUCK, ServeError, cut_off, leave, make_server, stop_beside

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

    from . import _core
    from .listening import Listener
    from .settings import Settings

# How often age and memory are looked at.
_LOOK_SECONDS = 1.0
# What the engine tells the main thread, among the numbers of signals.
_EVENTS = {"served": b"\xfe", "closed": b"\xfd", "stuck": b"\xfc"}


class Channel:
    """One end of the connection between a worker and its supervisor."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.setblocking(False)
        self._rest = b""
        #: The other end is gone.
        self.closed = False

    def fileno(self) -> int:
        """For `select`."""
        return self.end.fileno()

    def send(self, **message: t.Any) -> None:
        """Send a message, unless the other end is gone."""
        self.end.settimeout(_LOOK_SECONDS)
        with contextlib.suppress(OSError):
            self.end.sendall(json.dumps(message).encode() + b"\n")
        self.end.setblocking(False)

    def receive(self) -> list[dict[str, t.Any]]:
        """The messages that have come."""
        while True:
            try:
                data = self.end.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self.end.close()


def work(
    channel: Channel,
    load: Callable[[], WSGIApplication],
    listeners: list[Listener],
    settings: Settings,
    **more: t.Any,
) -> None:
    """Serve until told to end.

    Args:
        channel: To the supervisor.
        load: Imports what is served.
        listeners: The sockets, shared with the other workers.
        settings: Those in force.
        more: For the server: where to count.

    Raises:
        SystemExit: If the application cannot be loaded.
    """
    import faulthandler

    # A crash shall say where it was.
    with contextlib.suppress(Exception):
        faulthandler.enable()
    told, tell = socket.socketpair()
    tell.setblocking(False)
    try:
        app = load()
        most = settings["max_requests"]
        if most is not None:
            most += random.randint(0, settings["max_requests_jitter"])
        server = make_server(
            app,
            listeners,
            settings,
            shared=True,
            tell=lambda what: tell.send(_EVENTS[what]),
            most=most,
            **more,
        )
    except BaseException as error:
        channel.send(failed=describe(error))
        raise SystemExit(1) from None
    signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    stacks.hear()
    channel.send(ready=True)
    _Life(channel, server, settings, told, tell).run()


class _Life:
    """A worker's main thread, from the first request to the last."""

    def __init__(
        self,
        channel: Channel,
        server: _core.Server,
        settings: Settings,
        told: socket.socket,
        tell: socket.socket,
    ) -> None:
        self.channel = channel
        self.server = server
        self.settings = settings
        self.told = told
        self.tell = tell
        self.stopping = False
        self.asked = False
        age = settings["max_worker_age"]
        self.last_day = None if age is None else time.monotonic() + age * random.uniform(1, 1.1)

    def run(self) -> None:
        """Wait, and do what is asked."""
        watched: list[socket.socket | Channel] = [self.told, self.channel]
        while True:
            looks = not self.asked and (self.last_day or self.settings["max_worker_memory"])
            ready, _, _ = select.select(watched, [], [], _LOOK_SECONDS if looks else None)
            if self.told in ready and self._is_over(self.told.recv(64)):
                return
            if self.channel in ready:
                for message in self.channel.receive():
                    self._obey(message)
                if self.channel.closed:
                    # Nobody is left who would start others, or stop this one.
                    watched.remove(self.channel)
                    self._stop(self.settings["grace"], hand_over=False)
            if looks:
                self._look()

    def _is_over(self, numbers: bytes) -> bool:
        if _EVENTS["served"][0] in numbers:
            self._ask("it has served its requests")
        if _EVENTS["stuck"][0] in numbers:
            self._ask("too many of its threads are stuck in views")
        if _EVENTS["closed"][0] in numbers:
            self.channel.send(closed=True)
        if signal.SIGUSR1 in numbers:
            self.server.reopen_log()
        if signal.SIGQUIT in numbers:
            stacks.tell_all(self.server)
            self.channel.send(told=True)
        if signal.SIGTERM in numbers:
            self._stop(self.settings["grace"], hand_over=True)
        if STUCK[0] in numbers:
            leave()
        return ENDED[0] in numbers

    def _obey(self, message: dict[str, t.Any]) -> None:
        if "ping" in message:
            self.channel.send(alive=True)
        elif "look" in message:
            self.server.look()
        elif "reopen" in message:
            self.server.reopen_log()
        elif "cut" in message:
            cut_off(self.server)
        elif "stop" in message:
            self._stop(message["stop"], message["hand_over"])

    def _stop(self, grace: float, hand_over: bool) -> None:
        if not self.stopping:
            self.stopping = True
            stop_beside(self.server, grace, self.tell, hand_over)

    def _look(self) -> None:
        if self.last_day is not None and time.monotonic() >= self.last_day:
            self._ask("it is old")
        most = self.settings["max_worker_memory"]
        if most is not None and (held := resident_bytes()) > most:
            self._ask(f"it holds {held >> 20} MiB")

    def _ask(self, why: str) -> None:
        """Ask to be replaced."""
        if not self.asked and not self.stopping:
            self.asked = True
            self.channel.send(replace=why)


def describe(error: BaseException) -> str:
    """Why an application cannot be loaded: a sentence for mistakes of use, a traceback for others."""
    import click

    from .cli import short_traceback
    from .process import PrivilegeError

    if isinstance(error, click.ClickException):
        return f"Error: {error.format_message()}\n"
    if isinstance(error, PrivilegeError | ServeError):
        return f"Error: {error}\n"
    if isinstance(error, SystemExit):
        return f"Error: The application ended the process with status {error.code} while it was loaded.\n"
    return short_traceback(error)


def end_signals() -> None:
    """Undo, in a new worker, what its supervisor has set up. Until it serves, SIGTERM ends it at once."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)
    # Meant for the supervisor: a terminal sends them to all. They are not ignored, since children of the
    # application would inherit that.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
