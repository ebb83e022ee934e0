"""Start again when a source file changes.

Two processes: the first one holds the listening socket and starts the second over and over; the second one
serves in a thread and watches files in its main thread. When a file changes it exits with status 3, which
means "once more".

Does not reload modules inside a running process: stale references would make that unreliable.

Implements: werkzeug._reloader (3.1).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from ._internal import _log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

#: The exit status that asks to be started again.
_AGAIN = 3

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
) -> None:
    """Run a function in a process that is started again when files change.

    Args:
        main_func: What to run; it is stopped by the end of its process.
        extra_files: Files and directories to watch beside the modules.
        exclude_patterns: Files to ignore (`fnmatch`).
        interval: Seconds between two searches for new files.
        reloader_type: A key of `reloader_loops`.

    Raises:
        SystemExit: In the first process, with the status of the second when that ends for good; in the
            second, when a file has changed.
    """
    import signal

    signal.signal(signal.SIGTERM, lambda *args: sys.exit(0))
    loop = reloader_loops[reloader_type](extra_files, exclude_patterns, interval)
    try:
        if os.environ.get("WERKZEUG_RUN_MAIN") != "true":
            sys.exit(loop.restart_with_reloader())

        import threading

        ensure_echo_on()
        thread = threading.Thread(target=main_func, name="hipflask-main", daemon=True)
        with loop:
            thread.start()
            loop.run()
    except KeyboardInterrupt:
        pass


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

    def restart_with_reloader(self) -> int:
        """Start the serving process until it ends with something else than the wish to be started again."""
        import subprocess

        environ = {**os.environ, "WERKZEUG_RUN_MAIN": "true", "HIPFLASK_RUN_MAIN": "true"}
        while True:
            _log("info", f" * Restarting with {self.name}")
            status = subprocess.call(_get_args_for_reloading(), env=environ, close_fds=False)
            if status != _AGAIN:
                return status

    def trigger_reload(self, filename: str) -> None:
        """End this process, because of a file."""
        self.log_reload(filename)
        sys.exit(_AGAIN)

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
        from importlib.util import find_spec

        return WatchfilesReloaderLoop if find_spec("watchfiles") is not None else StatReloaderLoop


reloader_loops: dict[str, type[ReloaderLoop]] = _Loops(
    stat=StatReloaderLoop, watchfiles=WatchfilesReloaderLoop, watchdog=WatchdogReloaderLoop
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
    return [sys.executable, *sys.orig_argv[1:]]


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
    """The Python files below a directory. Goes no deeper where neither a directory nor its parent has any."""
    has_python = {os.path.dirname(top): True}
    for directory, subdirectories, files in os.walk(top):
        if directory.startswith(_stat_ignore_scan) or os.path.basename(directory) in _ignore_common_dirs:
            subdirectories.clear()
            continue
        sources = [name for name in files if name.endswith((".py", ".pyc"))]
        yield from (os.path.join(directory, name) for name in sources)
        if not sources and not has_python[os.path.dirname(directory)]:
            subdirectories.clear()
        has_python[directory] = bool(sources)


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
    return path.endswith((".py", ".pyc", ".zip")) or path in extra_files
