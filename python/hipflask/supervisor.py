"""The supervisor: starts worker processes, replaces them, and hands their sockets on.

It imports no application (unless `preload` asks for that), so that workers forked from it later have the code
as it is then, and it serves no request. The listening sockets are open here for as long as anything serves: a
connection that comes while a worker is replaced waits for the next one.

=========================  ==========================================================================
SIGTERM, SIGINT            stop: finish what runs, at most for `grace`; the same again: cut off
SIGHUP                     read settings again, then replace workers one by one
SIGUSR1                    open the access log anew, since its file was moved away
SIGUSR2                    start this program anew on the same sockets, and stop when that one serves
SIGTTIN, SIGTTOU           one worker more, one less
SIGQUIT                    write down where all threads of all workers are, one worker after the other
=========================  ==========================================================================
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import select
import selectors
import signal
import socket
import sys
import time
import typing as t

from . import _core
from .listening import ListenError, change, pass_on
from .metrics import attend
from .process import (
    PidFile,
    PrivilegeError,
    Service,
    Succession,
    check_privileges,
    drop_privileges,
    start_command,
    working_directory,
)
from .serving import all_binds, fail, open_listeners, ready_line, server_logger
from .setting_types import SettingError
from .worker import Channel, end_signals, work

if t.TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

    from .settings import Settings

# A worker that lived so long has not failed for what made the last one fail.
_LONG_LIFE = 10.0
# Until the second replacement in a row, then twice that, and so on.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# What a worker gets beyond its grace to end by itself.
_END_SECONDS = 5.0
# Beside those that are wanted, workers that can take part in sharing connections evenly: replacements, and
# such as SIGTTIN adds. Each costs a descriptor.
_SPARE_PLACES = 8
# How often it is looked whether connections wait that nobody takes.
_LOOK_SECONDS = 1.0
# What a worker gets to write down where its threads are, before the next one does.
_DUMP_SECONDS = 1.0
# As many times a worker is asked for a sign of life within `worker_timeout`.
_PINGS = 3

_STOP = (signal.SIGTERM, signal.SIGINT)
_HEARD = (
    *_STOP,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGQUIT,
    signal.SIGCHLD,
)


class _Forked(BaseException):
    """Leaves the supervisor's functions in a process that is a worker from now on."""

    def __init__(self, channel: Channel, slot: int) -> None:
        super().__init__()
        self.channel = channel
        self.slot = slot


class _Worker:
    """A worker process, as the supervisor knows it."""

    def __init__(self, pid: int, slot: int, channel: Channel, boot_timeout: float) -> None:
        self.pid = pid
        self.slot = slot
        self.channel = channel
        self.serves = False
        self.stops = False
        #: It accepts no more connections.
        self.closed = False
        #: Why it cannot serve, in its own words.
        self.failure: str | None = None
        self.began = time.monotonic()
        #: When it is killed.
        self.deadline: float | None = self.began + boot_timeout
        #: When it last said anything, and when it is asked next.
        self.heard = self.asked = self.began
        #: The one that it takes the place of.
        self.replaces: _Worker | None = None


def run(load: Callable[[], WSGIApplication], settings: Settings, about: str = "") -> None:
    """Serve an application with several processes until this one is told to stop.

    Args:
        load: Imports what is served; called in each worker, or here with `preload`.
        settings: Where to listen, how many processes, and all else.
        about: What is served, for the line that says where.

    Raises:
        SystemExit: If the server cannot start: an address is taken, the application cannot be loaded.
    """
    supervisor = Supervisor(load, settings, about)
    try:
        supervisor.run()
    except _Forked as forked:
        channel, slot = forked.channel, forked.slot
    else:
        return
    supervisor.become(channel, slot)


class Supervisor:
    """Keeps as many workers as the settings say.

    Args:
        load: Imports what is served.
        settings: Where to listen, how many processes, and all else.
        about: What is served, for the line that says where.
    """

    def __init__(self, load: Callable[[], WSGIApplication], settings: Settings, about: str) -> None:
        self.load = load
        self.settings = settings
        self.about = about
        self.target = settings.workers() or 1
        self.directory = working_directory()
        self.workers: dict[int, _Worker] = {}
        #: When a worker is started in a slot that has none.
        self.pending: dict[int, float] = {}
        #: How often in a row the worker of a slot has failed.
        self.failures: collections.Counter[int] = collections.Counter()
        #: Slots whose workers are to be replaced, one at a time.
        self.replacing: collections.deque[int] = collections.deque()
        self.reloading = False
        #: All workers have served at once.
        self.announced = False
        self.stopping = False
        self.status = 0
        self.successor: subprocess.Popen[bytes] | None = None
        #: Where the successor says that it serves.
        self.heir: socket.socket | None = None
        self.succeeded = False
        self.log = server_logger()
        #: Counts what workers do, and tells it.
        self.monitor: _core.Monitor | None = None
        #: Has workers share connections evenly, and tells whether their engines turn.
        self.crew: _core.Crew | None = None
        #: Workers whose engines have not answered, and for how long.
        self.silent: dict[int, float] = {}
        self._silent_at = 0.0
        #: Connections waited at the last look.
        self._waited = False
        self._looks_at = 0.0
        #: Workers that are still to write down where their threads are, and when the next one does at the
        #: latest.
        self.dumping: collections.deque[int] = collections.deque()
        self._dump_at: float | None = None
        #: Slots that have had a worker.
        self.begun: set[int] = set()

    # From start to end.

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            SystemExit: If the server cannot start.
        """
        settings = self.settings
        try:
            check_privileges(settings["user"], settings["group"])
        except PrivilegeError as error:
            fail(str(error))
        self.succession = Succession()
        self.listeners = open_listeners(settings)
        self.pid_file = PidFile(settings["pid_file"], self.succession.predecessor)
        self.service = Service()
        self._has_terminal = os.isatty(0)
        if settings["preload"]:
            self._preload()
        self.selector = selectors.PollSelector()
        self.told, self.tell = socket.socketpair()
        for end in (self.told, self.tell):
            end.setblocking(False)
        self.selector.register(self.told, selectors.EVENT_READ, self._hear_signals)
        signal.set_wakeup_fd(self.tell.fileno(), warn_on_full_buffer=False)
        for number in _HEARD:
            signal.signal(number, lambda *_: None)
        self.crew = _core.Crew(self.target + _SPARE_PLACES)
        self._attend()
        for slot in range(self.target):
            self._start(slot)
        while self.workers or self.pending or not self.stopping:
            for key, _ in self.selector.select(self._patience()):
                key.data()
            self._reap()
            self._tick()
        self._end()

    def _attend(self) -> None:
        """Tell about the server where the settings say so."""
        before = self.monitor
        try:
            self.monitor = attend(before, self.settings, self.listeners, self.target, self.crew)
        except OSError as error:
            # Whatever is wrong with telling about the server, that is no reason to end it.
            self.log.error("metrics cannot be told: %s", error)
        if self.monitor is not None and before is None:
            self.selector.register(self.monitor, selectors.EVENT_READ, self.monitor.turn)

    def _preload(self) -> None:
        """Load the application here: workers share its memory until they write to it."""
        try:
            drop_privileges(self.settings["user"], self.settings["group"])
            app = self.load()
        except BaseException:
            self._remove_files()
            raise
        self.load = lambda: app

    def _end(self) -> None:
        for listener in self.listeners:
            listener.close()
        self._remove_files()
        signal.set_wakeup_fd(-1)
        if self.status:
            raise SystemExit(self.status)

    def _remove_files(self) -> None:
        if not self.succeeded:
            for listener in self.listeners:
                listener.remove()
        self.pid_file.remove()

    # Starting workers.

    def _start(self, slot: int, replaces: _Worker | None = None) -> None:
        """Fork a worker. In the worker, leaves by `_Forked`."""
        ours, theirs = socket.socketpair()
        # What lives now is left alone by the workers' garbage collectors, which would copy its pages.
        gc.collect()
        gc.freeze()
        # A signal that came to the child before it is set up would be taken for one to the supervisor.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            ours.close()
            theirs.close()
            self.log.error("no worker can be started: %s", error.strerror)
            self._start_later(slot)
            return
        if pid == 0:
            end_signals()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            ours.close()
            raise _Forked(Channel(theirs), slot)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        theirs.close()
        worker = _Worker(pid, slot, Channel(ours), self.settings["boot_timeout"])
        worker.replaces = replaces
        self.workers[pid] = worker
        self.pending.pop(slot, None)
        if self.monitor is not None and slot in self.begun:
            self.monitor.count_restart()
        self.begun.add(slot)
        self.selector.register(worker.channel, selectors.EVENT_READ, lambda: self._hear(worker))

    def become(self, channel: Channel, slot: int) -> None:
        """Be a worker: close what is the supervisor's, then load and serve."""
        if self.monitor is not None:
            self.monitor.close()
        for worker in self.workers.values():
            worker.channel.close()
        for end in (self.told, self.tell, self.heir):
            if end is not None:
                end.close()
        self.succession.forget()
        self.selector.close()
        with contextlib.suppress(OSError):
            os.chdir(self.directory)

        def load() -> WSGIApplication:
            drop_privileges(self.settings["user"], self.settings["group"])
            import importlib

            importlib.invalidate_caches()
            return self.load()

        shared = {"monitor": self.monitor, "slot": slot, "crew": self.crew}
        work(channel, load, self.listeners, self.settings, **shared)

    def _start_later(self, slot: int) -> float:
        """Plan a worker for a slot; each time in a row that it fails doubles the pause. Returns the pause."""
        self.failures[slot] += 1
        times = self.failures[slot]
        pause = 0.0 if times == 1 else min(_FIRST_PAUSE * 2.0 ** (times - 2), _LONGEST_PAUSE)
        self.pending[slot] = time.monotonic() + pause
        return pause

    def _of_slot(self, slot: int) -> list[_Worker]:
        return [worker for worker in self.workers.values() if worker.slot == slot and not worker.stops]

    # What workers say.

    def _hear(self, worker: _Worker) -> None:
        for message in worker.channel.receive():
            worker.heard = time.monotonic()
            if "ready" in message:
                self._serves(worker)
            elif "closed" in message:
                worker.closed = True
            elif "told" in message:
                self._dump_next()
            elif "failed" in message:
                worker.failure = message["failed"]
            elif "replace" in message and not worker.stops and worker.slot < self.target:
                self.log.info("worker %d is replaced: %s", worker.pid, message["replace"])
                self.replacing.append(worker.slot)
        if worker.channel.closed:
            self.selector.unregister(worker.channel)

    def _serves(self, worker: _Worker) -> None:
        worker.serves = True
        worker.deadline = None
        if worker.replaces is not None:
            self._stop_worker(worker.replaces)
            worker.replaces = None
        if not self.announced and sum(each.serves for each in self.workers.values()) >= self.target:
            self.announced = True
            number = f"{self.target} worker{'s' if self.target > 1 else ''}"
            print(
                ready_line(self.listeners, self.settings, ", ".join(filter(None, (self.about, number)))),
                flush=True,
            )
            self.service.ready(f"Serving with {number}")
            self.succession.ready()

    def _reap(self) -> None:
        for worker in list(self.workers.values()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                # What it said last may still be unread.
                if not worker.channel.closed:
                    self._hear(worker)
                if not worker.channel.closed:
                    self.selector.unregister(worker.channel)
                worker.channel.close()
                del self.workers[pid]
                self.silent.pop(pid, None)
                if self.crew is not None:
                    self.crew.forget(pid)
                if self.monitor is not None:
                    self.monitor.forget(pid)
                self._ended(worker, os.waitstatus_to_exitcode(status))
        if self.successor is not None and self.successor.poll() is not None and not self.succeeded:
            self._no_successor()

    def _ended(self, worker: _Worker, status: int) -> None:
        """A worker is no more: see what that means."""
        for other in self.workers.values():
            if other.replaces is worker:
                other.replaces = None
            if other.serves and not other.closed:
                # The kernel may have woken the dead one, and nobody else, for a connection.
                other.channel.send(look=True)
        if self.stopping or worker.stops:
            return
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if not worker.serves:
            why = worker.failure or f"Error: Worker {worker.pid} {how} before it could serve.\n"
            if not self.announced:
                print(why, end="", file=sys.stderr, flush=True)
                self.status = 1
                self._stop(cut=True)
                return
            self.log.error("worker %d cannot serve:\n%s", worker.pid, why.rstrip("\n"))
            if self._of_slot(worker.slot):
                self._give_up_replacing()
                return
        elif self._of_slot(worker.slot):
            # Its replacement is on the way.
            return
        if worker.slot >= self.target:
            return
        if worker.serves and time.monotonic() - worker.began >= _LONG_LIFE:
            self.failures[worker.slot] = 0
        pause = self._start_later(worker.slot)
        when = f"in {pause:g} s" if pause else "now"
        if worker.serves:
            self.log.error("worker %d %s: another one is started %s", worker.pid, how, when)
        else:
            self.log.error("another worker is started %s", when)

    # Replacing workers.

    def _replace_next(self) -> None:
        """Start the next replacement, unless one is on its way."""
        if any(worker.replaces is not None for worker in self.workers.values()):
            return
        while self.replacing:
            slot = self.replacing.popleft()
            old = [worker for worker in self._of_slot(slot) if worker.serves]
            if slot < self.target and old:
                self._start(slot, old[0])
                return
        if not self.reloading or self.pending:
            return
        # Those that go may still take connections until they say that they do not.
        if all(worker.closed if worker.stops else worker.serves for worker in self.workers.values()):
            self.reloading = False
            self.log.info("all workers are replaced")
            self.service.ready(f"Serving with {self.target} workers")

    def _give_up_replacing(self) -> None:
        self.replacing.clear()
        self.reloading = False
        self.log.error("no worker is replaced: those that serve go on")
        self.service.ready(f"Serving with {self.target} workers; the last reload failed")

    def _stop_worker(self, worker: _Worker, hand_over: bool = True) -> None:
        if worker.stops:
            return
        worker.stops = True
        grace = self.settings["grace"]
        worker.deadline = time.monotonic() + grace + _END_SECONDS
        if worker.serves:
            worker.channel.send(stop=grace, hand_over=hand_over)
        else:
            self._kill(worker, signal.SIGTERM)

    def _kill(self, worker: _Worker, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, number)

    # Time.

    def _patience(self) -> float | None:
        """Seconds until something is due."""
        times = [*self.pending.values()]
        times += [worker.deadline for worker in self.workers.values() if worker.deadline is not None]
        times += [
            worker.asked + self._ping_interval()
            for worker in self.workers.values()
            if worker.serves and not worker.stops
        ]
        if self.service.interval is not None:
            times.append(self._alive_at)
        if self._dump_at is not None:
            times.append(self._dump_at)
        if self.announced and not self.stopping:
            times += [self._looks_at, self._silent_at]
        return max(0.0, min(times) - time.monotonic()) if times else None

    #: When systemd's watchdog wants the next sign of life.
    _alive_at = 0.0

    def _ping_interval(self) -> float:
        return t.cast("float", self.settings["worker_timeout"]) / _PINGS

    def _tick(self) -> None:
        now = time.monotonic()
        if self.service.interval is not None and now >= self._alive_at:
            self.service.alive()
            self._alive_at = now + self.service.interval
        if self._dump_at is not None and now >= self._dump_at:
            self._dump_next()
        self._look(now)
        for worker in list(self.workers.values()):
            self._watch(worker, now)
        if self.stopping:
            return
        for slot, when in list(self.pending.items()):
            if when <= now:
                self._start(slot)
        if self.announced:
            self._replace_next()

    def _look(self, now: float) -> None:
        """Ask whether engines turn, and look whether connections wait for one that does not."""
        if self.stopping or not self.announced:
            return
        if self.crew is not None and now >= self._silent_at:
            self._silent_at = now + self._ping_interval()
            self.silent = dict(self.crew.silent())
        if now < self._looks_at:
            return
        self._looks_at = now + _LOOK_SECONDS
        poll = select.poll()
        for listener in self.listeners:
            if listener.role is None:
                poll.register(listener.socket, select.POLLIN)
        waits = bool(poll.poll(0))
        if waits and self._waited:
            # The kernel may have woken one that hangs, and nobody else.
            for worker in self.workers.values():
                if worker.serves and not worker.closed:
                    worker.channel.send(look=True)
        self._waited = waits

    def _watch(self, worker: _Worker, now: float) -> None:
        """End a worker that is late, and ask the others for a sign of life."""
        if worker.deadline is not None:
            if now >= worker.deadline:
                worker.deadline = None
                if not worker.stops:
                    worker.failure = f"Error: Worker {worker.pid} took longer than boot_timeout to load.\n"
                self._kill(worker, signal.SIGKILL)
        elif worker.serves and now >= worker.asked + self._ping_interval():
            most = self.settings["worker_timeout"]
            stands = now - worker.heard >= most and worker.asked > worker.heard
            if stands or self.silent.get(worker.pid, 0.0) >= most:
                whose = "" if stands else " from its engine"
                self.log.error("worker %d gives no sign of life%s: it is ended", worker.pid, whose)
                # Its traceback goes to standard error, by `faulthandler`.
                self._kill(worker, signal.SIGABRT)
                worker.deadline = now + _END_SECONDS
                return
            worker.asked = now
            worker.channel.send(ping=True)

    # Signals.

    def _hear_signals(self) -> None:
        for number in self.told.recv(64):
            if number in _STOP:
                self._stop(cut=self.stopping)
            elif number == signal.SIGQUIT:
                self.dumping.extend(pid for pid, worker in self.workers.items() if worker.serves)
                self._dump_next()
            elif self.stopping:
                continue
            elif number == signal.SIGHUP:
                if self._has_terminal and not os.isatty(0):
                    # The terminal is gone: that is what the signal was made for.
                    self._stop()
                else:
                    self._reload()
            elif number == signal.SIGUSR1:
                for worker in self.workers.values():
                    worker.channel.send(reopen=True)
            elif number == signal.SIGUSR2:
                self._succeed()
            elif number in (signal.SIGTTIN, signal.SIGTTOU):
                self._resize(max(1, self.target + (1 if number == signal.SIGTTIN else -1)))

    def _dump_next(self) -> None:
        """Have the next worker write down where its threads are: two at once would write into each other."""
        self._dump_at = None
        while self.dumping:
            worker = self.workers.get(self.dumping.popleft())
            if worker is not None:
                self.log.info("stacks of worker %d follow", worker.pid)
                # Its handler is in C, for a worker whose interpreter stands still cannot be asked.
                self._kill(worker, signal.SIGQUIT)
                self._dump_at = time.monotonic() + _DUMP_SECONDS
                return

    def _stop(self, *, cut: bool = False, hand_over: bool = False) -> None:
        """Stop all workers.

        Args:
            cut: At once.
            hand_over: Another program listens on the same sockets.
        """
        if not self.stopping:
            self.stopping = True
            if self.monitor is not None:
                self.monitor.set_draining(True)
                if hand_over:
                    # The other program answers there.
                    self.monitor.listen([])
            self.pending.clear()
            self.replacing.clear()
            self.service.stopping()
            if self.successor is not None and not self.succeeded:
                self.successor.terminate()
            for worker in self.workers.values():
                self._stop_worker(worker, hand_over)
            for listener in self.listeners:
                listener.close()
        if cut:
            for worker in self.workers.values():
                worker.channel.send(cut=True)
                worker.deadline = time.monotonic() + _END_SECONDS

    def _resize(self, target: int) -> None:
        """Have so many workers."""
        if target == self.target:
            return
        self.log.info("%d workers are wanted, not %d", target, self.target)
        before, self.target = self.target, target
        for slot in range(before, target):
            self.pending[slot] = time.monotonic()
        for slot in range(target, before):
            self.pending.pop(slot, None)
            for worker in self._of_slot(slot):
                self._stop_worker(worker)

    def _reload(self) -> None:
        """Read the settings again, and replace all workers."""
        if not self.announced:
            self.log.warning("the server has not started yet: there is nothing to reload")
            return
        if self.settings["preload"]:
            # A process cannot load its code twice.
            self._succeed()
            return
        self.service.reloading()
        try:
            # The file may be that of a new release, in the place that a link leads to now.
            with contextlib.suppress(OSError):
                os.chdir(self.directory)
            settings = self.settings.again()
            settings.tls()
            self.listeners, unwanted = change(self.listeners, all_binds(settings), settings.values)
        except (ListenError, SettingError, PrivilegeError) as error:
            self.log.error("the settings stay as they were: %s", error)
            self.service.ready("Serving; the last reload failed")
            return
        self.settings = settings
        self._attend()
        self.log.info("settings are read again, and workers replaced")
        for worker in [worker for worker in self.workers.values() if not worker.serves and not worker.stops]:
            # It may have the old settings, or half of the old code.
            self._stop_worker(worker)
            if worker.replaces is None:
                self.pending[worker.slot] = time.monotonic()
            worker.replaces = None
        for listener in unwanted:
            listener.remove()
            listener.close()
        kept = min(self.target, self.settings.workers() or 1)
        self._resize(self.settings.workers() or 1)
        self.failures.clear()
        self.replacing = collections.deque(range(kept))
        self.reloading = True

    # Succession.

    def _succeed(self) -> None:
        """Start this program anew, with these sockets."""
        import subprocess

        if self.successor is not None:
            self.log.warning("process %d is taking over already", self.successor.pid)
            return
        if os.getpid() == 1:
            self.log.error("process 1 cannot be succeeded: start a new container instead")
            return
        ours, theirs = socket.socketpair()
        environment, numbers = pass_on(self.listeners)
        self.pid_file.step_aside()
        try:
            self.successor = subprocess.Popen(
                start_command(),
                pass_fds=(*numbers, theirs.fileno()),
                cwd=self.directory,
                env={
                    **os.environ,
                    **environment,
                    **self.service.environment(),
                    **Succession.environment(theirs.fileno()),
                },
            )
        except OSError as error:
            self.log.error("the program cannot be started anew: %s", error)
            self.pid_file.step_back()
            ours.close()
        else:
            self.log.info("process %d is started to take over", self.successor.pid)
            self.heir = ours
            self.selector.register(ours, selectors.EVENT_READ, self._hear_successor)
        finally:
            theirs.close()

    def _hear_successor(self) -> None:
        if self.heir is None:
            return
        told = self.heir.recv(64)
        self.selector.unregister(self.heir)
        self.heir.close()
        self.heir = None
        if told and self.successor is not None:
            self.log.info("process %d has taken over", self.successor.pid)
            self.succeeded = True
            self.service.successor(self.successor.pid)
            self._stop(hand_over=True)

    def _no_successor(self) -> None:
        if self.successor is None:
            return
        status = self.successor.returncode
        self.successor = None
        self.pid_file.step_back()
        self.log.error("the program that was to take over ended with status %d: this one goes on", status)
