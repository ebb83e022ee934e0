"""Start again when a source file changes.

Two processes: the first one holds the listening socket and starts the second over and over; the second one
serves in a thread and watches files in its main thread. When a file changes it exits with status 3, which
means "once more". If it cannot even start, the first one waits for the next change.

Does not reload modules inside a running process: stale references would make that unreliable.

Implements: werkzeug._reloader (3.1).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

from ._internal import _log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

#: The exit status that asks to be started again.
_AGAIN = 3

#: The exit status that asks for the program's command to be run again, since a copy would be out of date.
_AFRESH = 4

#: Set by the first process: when it started the second one, in seconds since the epoch.
_STARTED_VARIABLE = "HIPFLASK_RELOADER_STARTED"

#: Set by the first process, if the second one is not the first of its kind: how many there were.
_RELOADS_VARIABLE = "HIPFLASK_RELOADS"

#: Seconds that the second process has for ending by itself.
_END_SECONDS = 5.0

#: Seconds within which a file that was moved away is back, if an editor is saving it.
_SAVING_SECONDS = 0.05

#: Seconds between two looks at the known files, whatever the interval between two searches for new ones.
_LOOK = 0.1

#: Directories whose files never matter, or follow from others that do.
_ignore_common_dirs = {
    "__pycache__",
    ".git",
    ".hg",
    ".tox",
    ".nox",
    ".pytest_cache",
    ".mypy_cache",
    "node_modules",
    ".ruff_cache",
    ".eggs",
}

#: Python's own modules do not change under a developer's hands.
_ignore_always = tuple({sys.base_prefix, sys.base_exec_prefix})

#: Where packages are installed: modules in use are watched, others not searched for.
_stat_ignore_scan = tuple({sys.prefix, sys.exec_prefix, *_ignore_always})


def run_with_reloader(
    main_func: Callable[[], None],
    extra_files: Iterable[str] | None = None,
    exclude_patterns: Iterable[str] | None = None,
    interval: int | float = 1,
    reloader_type: str = "auto",
    *,
    prepare: Callable[[], None] | None = None,
) -> None:
    """Run a function in a process that is started again when files change.

    The second process runs the program's command from its beginning. With `prepare`, it is a copy of the
    first one instead, which must have imported nothing of the application: that starts in a fraction of the
    time.

    Args:
        main_func: What to run; it is stopped by the end of its process.
        extra_files: Files and directories to watch beside the modules.
        exclude_patterns: Files to ignore (`fnmatch`).
        interval: Seconds between two searches for new files.
        reloader_type: A key of `reloader_loops`.
        prepare: Called in the second process before the function; loads the application.

    Raises:
        SystemExit: In the first process, with the status of the second when that ends for good; in the
            second, when a file has changed.
    """
    import signal

    signal.signal(signal.SIGTERM, lambda *args: sys.exit(0))
    loop = reloader_loops[reloader_type](extra_files, exclude_patterns, interval)
    try:
        if os.environ.get("WERKZEUG_RUN_MAIN") != "true":
            status = loop.restart_with_reloader(copy=prepare is not None)
            if status is not None:
                sys.exit(status)
        if prepare is not None:
            prepare()

        import threading

        ensure_echo_on()
        thread = threading.Thread(target=main_func, name="hipflask-main", daemon=True)
        with loop:
            thread.start()
            loop.run()
    except KeyboardInterrupt:
        pass
    except SystemExit as end:
        if _copied and end.code == exit_status:
            _leave_copy()
        raise


#: The status with which this process is about to end, for those who must end it in another way.
exit_status = 0


#: The files of modules that this process has from the one it is a copy of.
_copied: frozenset[str] = frozenset()


class _Child(Protocol):
    """What the first process does with the second: a part of `subprocess.Popen`."""

    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class _Copy:
    """A process that was forked. Does for it what `subprocess.Popen` does."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit status, negative for a signal."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            pid, status = os.waitpid(self._pid, 0 if until is None else os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            time.sleep(0.01)

    def terminate(self) -> None:
        """Ask it to end."""
        import signal

        os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        import signal

        os.kill(self._pid, signal.SIGKILL)


class _Command:
    """The program's command, in a process of its own."""

    def __init__(self, environ: dict[str, str]) -> None:
        import subprocess

        self._process = subprocess.Popen(_get_args_for_reloading(), env=environ, close_fds=False)
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and say as the others do that it takes too long."""
        import subprocess

        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None


def _child_environ(reloads: int) -> dict[str, str]:
    environ = {"WERKZEUG_RUN_MAIN": "true", "HIPFLASK_RUN_MAIN": "true", _STARTED_VARIABLE: repr(time.time())}
    if reloads:
        environ[_RELOADS_VARIABLE] = str(reloads)
    return environ


def _run_command(reloads: int) -> _Child:
    return _Command({**os.environ, **_child_environ(reloads)})


def _copy_process(reloads: int) -> _Child | None:
    """Fork; returns None in the copy."""
    global _copied

    for stream in (sys.stdout, sys.stderr):
        # What waits in a buffer would be printed twice.
        if stream is not None:
            stream.flush()
    pid = os.fork()
    if pid:
        return _Copy(pid)
    _copied = frozenset(_iter_module_paths())
    os.environ.update(_child_environ(reloads))
    return None


def _leave_copy() -> None:
    """End a copy, as the end of Python does but for taking apart what both processes have: that is slow."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(exit_status)


def _can_be_copied() -> bool:
    """Whether a copy of this process would do.

    It would not with several threads: the copy would have none of the others, but what they hold. Nor with
    modules of the application, which may have to be read again.
    """
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if any(not path.startswith((*_stat_ignore_scan, own)) for path in _iter_module_paths()):
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _wait_for(child: _Child) -> int:
    """Wait for the serving process, and pass the wish to stop on to it."""
    try:
        return child.wait()
    except KeyboardInterrupt:
        # A terminal has told the other process too.
        try:
            child.wait(_END_SECONDS)
        except (TimeoutError, KeyboardInterrupt):
            # It takes too long, or somebody has lost patience.
            _end(child)
        raise
    except BaseException:
        _end(child)
        raise


def _end(child: _Child) -> None:
    """End the serving process, by force if it does not end in time or somebody loses patience."""
    child.terminate()
    try:
        child.wait(_END_SECONDS)
    except (TimeoutError, KeyboardInterrupt):
        child.kill()
        child.wait()


def _forget_compiled(path: str) -> None:
    """Delete a module's compiled form: only whole seconds and the file's size tell it from a stale one."""
    import contextlib
    import importlib.util

    with contextlib.suppress(OSError, NotImplementedError):
        os.unlink(importlib.util.cache_from_source(path))


class ReloaderLoop:
    """A way to notice changes. Subclasses say how.

    Args:
        extra_files: Files and directories to watch beside the modules.
        exclude_patterns: Files to ignore (`fnmatch`).
        interval: Seconds between two searches for new files.
    """

    name = ""

    def __init__(
        self,
        extra_files: Iterable[str] | None = None,
        exclude_patterns: Iterable[str] | None = None,
        interval: int | float = 1,
    ) -> None:
        self.extra_files = {os.path.abspath(path) for path in extra_files or ()}
        self.exclude_patterns = set(exclude_patterns or ())
        self.interval = interval

    def __enter__(self) -> ReloaderLoop:
        """Remember how things are before anything runs."""
        self.run_step()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Give back what watching needed."""

    def run(self) -> None:
        """Look again and again, until something has changed."""
        while True:
            self.run_step()
            time.sleep(self.interval)

    def run_step(self) -> None:
        """Look once."""

    def restart_with_reloader(self, copy: bool = False) -> int | None:
        """Start the serving process until it ends with something else than the wish to be started again.

        One that fails after a change (a syntax error, say) is started again after the next change.

        Args:
            copy: Start copies of this process, not its command.

        Returns:
            The status of the last one; None in a copy.
        """
        reloads = 0
        while True:
            copy = copy and _can_be_copied()
            child = _copy_process(reloads) if copy else _run_command(reloads)
            if child is None:
                return None
            status = _wait_for(child)
            reloads += 1
            if status == _AFRESH:
                copy = False
            elif status != _AGAIN:
                if reloads == 1 or status <= 0:
                    return status
                _log("error", f" * The program ended with status {status}: waiting for the next change")
                self._wait_for_change()

    def _wait_for_change(self) -> None:
        os.environ.pop(_STARTED_VARIABLE, None)
        try:
            with self:
                self.run()
        except SystemExit as end:
            if end.code != _AGAIN:
                raise

    def trigger_reload(self, filename: str) -> None:
        """End this process, because of a file."""
        global exit_status

        self.log_reload(filename)
        _forget_compiled(filename)
        exit_status = _AFRESH if filename in _copied else _AGAIN
        sys.exit(exit_status)

    def log_reload(self, filename: str | bytes) -> None:
        """Say which file changed."""
        path = os.path.abspath(os.fsdecode(filename))
        _log("info", f" * Detected change in {path!r}, reloading")


class StatReloaderLoop(ReloaderLoop):
    """Asks the file system for the time of change of every file. Works everywhere."""

    name = "stat"

    def __enter__(self) -> ReloaderLoop:
        """Remember the times of all files."""
        self.mtimes: dict[str, float] = {}
        return super().__enter__()

    def run(self) -> None:
        """Search for files at each interval, and look at the known ones more often."""
        while True:
            self.run_step()
            again = time.monotonic() + self.interval
            while time.monotonic() < again:
                time.sleep(min(_LOOK, self.interval))
                self._look(list(self.mtimes))

    def run_step(self) -> None:
        """Search for files and look at all of them."""
        self._look(_find_stat_paths(self.extra_files, self.exclude_patterns))

    def _look(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                mtime = os.stat(path).st_mtime
            except OSError:
                # An editor may have moved it away for a moment; a module that is gone fails at its next
                # import.
                continue
            if mtime > self.mtimes.setdefault(path, mtime):
                self.trigger_reload(path)


class InotifyReloaderLoop(ReloaderLoop):
    """Lets the kernel tell, without any package. Linux alone has it."""

    name = "inotify"

    def __enter__(self) -> ReloaderLoop:
        """Watch the directories that matter."""
        from .._core import Watcher

        self._trouble: OSError | None = None
        self.watched: set[str] = set()
        self._modules = 0
        self._parent = os.getppid()
        self._started = float(os.environ.get(_STARTED_VARIABLE) or time.time())
        try:
            self.watcher = Watcher()
            self.run_step()
        except OSError as error:
            # The number of watches has a limit for each user.
            self._trouble = error
        return self

    def run_step(self) -> None:
        """Watch directories that modules were imported from since the last step; at first, all."""
        if self._modules == len(sys.modules):
            return
        self._modules = len(sys.modules)
        for directory in _find_directories(self.extra_files, self.exclude_patterns, self.watched):
            self._watch(directory)

    def _watch(self, directory: str) -> None:
        self.watched.add(directory)
        try:
            self.watcher.add(directory)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        # What was saved while this process started may have been read before.
        for entry in os.scandir(directory):
            if self._matters(entry.path) and self._is_new(entry.path):
                self.trigger_reload(entry.path)

    def _is_new(self, path: str) -> bool:
        """Whether a file was saved after this process was started. A time to come is a wrong clock."""
        try:
            return self._started < os.stat(path).st_mtime < time.time()
        except OSError:
            return False

    def _matters(self, path: str) -> bool:
        return _is_watched(path, self.extra_files, self.exclude_patterns)

    def run(self) -> None:
        """Wait for a change, and look now and then for new modules."""
        while self._trouble is None:
            try:
                for path, what in self.watcher.wait(self.interval):
                    self._notice(path, what)
                self.run_step()
            except OSError as error:
                self._trouble = error
            if os.getppid() != self._parent:
                # Nobody is left who could start this process again, or stop it.
                sys.exit(0)
        why = self._trouble.strerror
        _log("warning", f" * Cannot watch the directories ({why}): looking at each file instead")
        with StatReloaderLoop(self.extra_files, self.exclude_patterns, self.interval) as loop:
            loop.run()

    def _notice(self, path: str, what: str) -> None:
        if what == "created":
            # A file is told of again when it is written.
            if os.path.isdir(path) and os.path.basename(path) not in _ignore_common_dirs:
                for directory, _ in _source_directories(path):
                    self._watch(directory)
        elif not self._matters(path):
            return
        elif what == "attributes":
            if self._is_new(path):
                self.trigger_reload(path)
        else:
            if what == "gone":
                time.sleep(_SAVING_SECONDS)
            self.trigger_reload(path)


class WatchfilesReloaderLoop(ReloaderLoop):
    """Lets the operating system tell, through the `watchfiles` package."""

    name = "watchfiles"

    def run_step(self) -> None:
        """Nothing to remember: only changes from now on are told."""

    def run(self) -> None:
        """Wait for a change, and look now and then for new directories."""
        import watchfiles

        while True:
            roots = _find_project_paths(self.extra_files, self.exclude_patterns)
            changes = watchfiles.watch(
                *roots,
                watch_filter=lambda change, path: self._matters(path),
                debounce=20,
                step=5,
                rust_timeout=10_000,
                yield_on_timeout=True,
                raise_interrupt=True,
            )
            for batch in changes:
                for _, path in batch:
                    self.trigger_reload(path)
                if roots != _find_project_paths(self.extra_files, self.exclude_patterns):
                    break

    def _matters(self, path: str) -> bool:
        return _is_watched(path, self.extra_files, self.exclude_patterns)


class WatchdogReloaderLoop(ReloaderLoop):
    """Lets the operating system tell, through the `watchdog` package."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        import threading

        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        super().__init__(*args, **kwargs)
        loop = self

        class Handler(FileSystemEventHandler):  # type: ignore[misc]
            def dispatch(self, event: Any) -> None:
                path = os.fsdecode(event.src_path)
                if _is_watched(path, loop.extra_files, loop.exclude_patterns):
                    super().dispatch(event)

            def on_any_event(self, event: Any) -> None:
                # "opened" and "closed without writing" are events too, but change nothing.
                if event.event_type in ("closed", "created", "deleted", "modified", "moved"):
                    loop.trigger_reload(event.src_path)

        self.observer = Observer()
        kind = type(self.observer).__name__.lower().removesuffix("observer")
        self.name = f"watchdog ({kind})"
        self.event_handler = Handler()
        self.should_reload = threading.Event()
        self.watches: dict[str, Any] = {}

    def __enter__(self) -> ReloaderLoop:
        """Start the observer's thread."""
        self.observer.start()
        return super().__enter__()

    def __exit__(self, *exc_info: object) -> None:
        """End the observer's thread."""
        self.observer.stop()
        self.observer.join()

    def trigger_reload(self, filename: str | bytes) -> None:
        """Wake the main thread: leaving from the observer's thread would end nothing but that thread."""
        _forget_compiled(os.fsdecode(filename))
        self.should_reload.set()
        self.log_reload(filename)

    def run(self) -> None:
        """Wait for a change, and look now and then for new directories."""
        while not self.should_reload.wait(timeout=self.interval):
            self.run_step()
        sys.exit(_AGAIN)

    def run_step(self) -> None:
        """Watch the directories that matter now, and no others."""
        wanted = _find_project_paths(self.extra_files, self.exclude_patterns)
        for path in wanted - self.watches.keys():
            try:
                self.watches[path] = self.observer.schedule(self.event_handler, path, recursive=True)
            except OSError:
                # Remembered, so that it is not tried at each step.
                self.watches[path] = None
        for path in self.watches.keys() - wanted:
            watch = self.watches.pop(path)
            if watch is not None:
                self.observer.unschedule(watch)


class _Loops(dict[str, type[ReloaderLoop]]):
    """The kinds of loop; `auto` is decided when it is asked for."""

    def __missing__(self, key: str) -> type[ReloaderLoop]:
        if key != "auto":
            raise KeyError(key)
        if sys.platform == "linux":
            return InotifyReloaderLoop
        from importlib.util import find_spec

        return WatchfilesReloaderLoop if find_spec("watchfiles") is not None else StatReloaderLoop


reloader_loops: dict[str, type[ReloaderLoop]] = _Loops(
    inotify=InotifyReloaderLoop,
    stat=StatReloaderLoop,
    watchfiles=WatchfilesReloaderLoop,
    watchdog=WatchdogReloaderLoop,
)


def ensure_echo_on() -> None:
    """Make the terminal show what is typed. A debugger that a reload ended may have turned that off."""
    if sys.stdin is None or not sys.stdin.isatty():
        return
    try:
        import termios
    except ImportError:
        return
    attributes = termios.tcgetattr(sys.stdin)
    if not attributes[3] & termios.ECHO:
        attributes[3] |= termios.ECHO
        termios.tcsetattr(sys.stdin, termios.TCSANOW, attributes)


def _get_args_for_reloading() -> list[str]:
    """The command that started this process."""
    from ..process import start_command

    return start_command()


def _iter_module_paths() -> Iterator[str]:
    """The files of the modules that are loaded; for one in an archive, the archive."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path is None or path.startswith(_ignore_always):
            continue
        while path and not os.path.isfile(path):
            parent = os.path.dirname(path)
            path = "" if parent == path else parent
        if path:
            yield path


def _find_stat_paths(extra_files: set[str], exclude_patterns: set[str]) -> set[str]:
    """The files to ask for: loaded modules, Python files on `sys.path`, extra files and directories."""
    found = set(_iter_module_paths())
    for path in (*sys.path, *extra_files):
        path = os.path.abspath(path)
        if os.path.isfile(path):
            found.add(path)
        else:
            found.update(_walk(path))
    return _without(found, exclude_patterns)


def _walk(top: str) -> Iterator[str]:
    """The Python files below a directory."""
    for directory, sources in _source_directories(top):
        yield from (os.path.join(directory, name) for name in sources)


def _source_directories(top: str) -> Iterator[tuple[str, list[str]]]:
    """The directories from one downwards, and their Python files.

    Goes no deeper where neither a directory nor its parent has any, and into no virtual environment.
    """
    has_python = {os.path.dirname(top): True}
    for directory, subdirectories, files in os.walk(top):
        skipped = (
            directory.startswith(_stat_ignore_scan) or os.path.basename(directory) in _ignore_common_dirs
        )
        if skipped or "pyvenv.cfg" in files:
            subdirectories.clear()
            continue
        sources = [name for name in files if name.endswith((".py", ".pyc"))]
        yield directory, sources
        if not sources and not has_python[os.path.dirname(directory)]:
            subdirectories.clear()
        has_python[directory] = bool(sources)


def _find_directories(extra_files: set[str], exclude_patterns: set[str], known: set[str]) -> set[str]:
    """The directories to watch, each for itself: of modules, below `sys.path`, of extra files."""
    found = {os.path.dirname(path) for path in _iter_module_paths()}
    for path in (*sys.path, *extra_files):
        path = os.path.abspath(path)
        if os.path.isdir(path):
            if path not in known:
                found.update(directory for directory, _ in _source_directories(path))
        elif os.path.exists(path) or path in extra_files:
            found.add(os.path.dirname(path))
    found = {path for path in found - known if "-packages" not in path and os.path.isdir(path)}
    found = {path for path in found if not path.startswith(_ignore_always)}
    return _without(found, exclude_patterns)


def _find_watchdog_paths(extra_files: set[str], exclude_patterns: set[str]) -> set[str]:
    """The directories to watch with everything below them, none inside another."""
    found = {os.path.dirname(path) for path in _iter_module_paths()}
    for path in (*sys.path, *extra_files):
        path = os.path.abspath(path)
        found.add(os.path.dirname(path) if os.path.isfile(path) else path)
    return _find_common_roots(_without(found, exclude_patterns))


def _find_project_paths(extra_files: set[str], exclude_patterns: set[str]) -> set[str]:
    """The same without Python's library and installed packages: long to watch, and they seldom change."""
    library = os.path.dirname(os.__file__)
    roots = _find_watchdog_paths(extra_files, {*exclude_patterns, "*-packages*", f"{library}*"})
    return {root for root in roots if os.path.exists(root)}


def _find_common_roots(paths: Iterable[str]) -> set[str]:
    """Those paths that lie inside no other."""
    roots: set[str] = set()
    for path in sorted(filter(None, paths), key=len):
        parent = path
        while parent not in roots:
            above = os.path.dirname(parent)
            if above == parent:
                roots.add(path)
                break
            parent = above
    return roots


def _without(paths: set[str], patterns: Iterable[str]) -> set[str]:
    import fnmatch

    for pattern in patterns:
        paths.difference_update(fnmatch.filter(paths, pattern))
    return paths


def _is_watched(path: str, extra_files: set[str], exclude_patterns: set[str]) -> bool:
    """Whether a change of this file matters."""
    import fnmatch

    if not _ignore_common_dirs.isdisjoint(path.split(os.sep)):
        return False
    if any(fnmatch.fnmatch(path, pattern) for pattern in exclude_patterns):
        return False
    return path.endswith((".py", ".pyc", ".zip")) or any(
        path == extra or path.startswith(extra + os.sep) for extra in extra_files
    )
