"""Serve an application on Hipflask's engine: bind, say where, wait for a signal, stop in good order.

The engine itself (sockets, threads, timers) is `hipflask._core.Server`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import typing as t

from . import _core

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from logging import Logger

    from _typeshed.wsgi import WSGIApplication

    from .app import Flask

# What a process that reloads passes to its children: the number of the listening socket, which outlives them.
_SOCKET_VARIABLE = "HIPFLASK_SERVER_FD"
# Set in those children that were started because something changed.
_RELOADS_VARIABLE = "HIPFLASK_RELOADS"
_GRACE_SECONDS = 30.0
# How long a server that is told to stop waits before it says what it waits for.
_PATIENT_SECONDS = 0.5
# How long views get that are cut off.
_END_SECONDS = 0.5
_BACKLOG = 1024
# How many layers of middleware are looked through for the app.
_MIDDLEWARE_MOST = 32
# What the thread that stops a server tells the main thread, among the numbers of signals.
_ENDED, _STUCK = b"\0", b"\xff"


def server_logger() -> Logger:
    """The logger of the server: ``hipflask.server``.

    It writes to standard error unless the program has configured logging.

    Returns:
        The logger.
    """
    import logging

    logger = logging.getLogger("hipflask.server")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger


def _bind_text(host: str, port: int) -> str:
    if host.startswith(("unix:", "unix://")):
        return "unix:" + host.removeprefix("unix:").removeprefix("//")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_here(host: str, port: int) -> int:
    """Bind in this process, for the children of the reloader; returns the descriptor's number."""
    import socket

    if host.startswith("unix:"):
        path = host.removeprefix("unix:").removeprefix("//")
        listener = socket.socket(socket.AF_UNIX)
        if _is_stale(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(_BACKLOG)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.set_inheritable(True)
    return listener.detach()


def _is_stale(path: str) -> bool:
    """Whether a path is a socket that a server left behind, where nobody listens any more."""
    import socket
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


def _explain(error: OSError, host: str, port: int) -> t.NoReturn:
    """Say in one sentence why nothing can listen there and what to do, and leave."""
    import errno
    import socket

    is_unix = host.startswith("unix:")
    where = host if is_unix else f"{host} port {port}"
    other = "choose another path with --host" if is_unix else "choose another port with --port"
    if error.errno == errno.EADDRINUSE:
        reason = f"{where} is in use by another program: stop that program, or {other}."
        if sys.platform == "darwin" and port == 5000:
            reason += " (On macOS it may be the AirPlay receiver, which System Settings turns off.)"
    elif error.errno == errno.EACCES and is_unix:
        reason = f"This user may not write to the directory of {host}: {other}."
    elif error.errno == errno.EACCES:
        reason = f"Port {port} needs more rights than this user has: choose a port above 1023 with --port."
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = (
            f"{host} is not an address of this machine: choose one with --host, such as 127.0.0.1 or 0.0.0.0."
        )
    elif error.errno == errno.ENOENT and is_unix:
        reason = f"There is no directory for {host}: make it, or {other}."
    elif isinstance(error, socket.gaierror) or error.errno is None:
        reason = (
            f"{host!r} is no address and no known name: choose one with --host, such as 127.0.0.1 or 0.0.0.0."
        )
    else:
        reason = f"Cannot listen on {where}: {error.strerror or error}."
    print(f"Error: {reason}", file=sys.stderr)
    raise SystemExit(1) from error


def run(
    app: WSGIApplication,
    host: str = "127.0.0.1",
    port: int = 5000,
    *,
    use_reloader: bool = False,
    use_debugger: bool = False,
    use_evalex: bool = True,
    extra_files: Iterable[str] | None = None,
    exclude_patterns: Iterable[str] | None = None,
    reloader_interval: float = 1,
    reloader_type: str = "auto",
    threads: int | None = None,
    access_log: bool = False,
    quiet: bool = False,
    about: str = "",
    load: Callable[[], WSGIApplication] | None = None,
) -> None:
    """Serve an application until the process is told to stop.

    SIGTERM and SIGINT finish the requests that run and return; a second signal cuts them off.

    Args:
        app: A Flask app, or any WSGI callable.
        host: Name or address to listen on; ``unix:PATH`` for a Unix socket.
        port: Port; 0 takes a free one.
        use_reloader: Start again whenever a file of the program changes.
        use_debugger: Show the interactive debugger on errors.
        use_evalex: Let the debugger evaluate expressions.
        extra_files: Further files to watch.
        exclude_patterns: Patterns of files not to watch.
        reloader_interval: Seconds between looks at the files, where changes cannot be waited for.
        reloader_type: ``auto``, ``inotify``, ``stat``, ``watchfiles`` or ``watchdog``.
        threads: The most views that run at the same time.
        access_log: Write a line for each answer to standard error.
        quiet: Do not say where the server listens.
        about: What is served, for the line that says where.
        load: Imports what is served in the place of `app`, in the process that the reloader starts.

    Raises:
        SystemExit: If the address cannot be had.
    """
    from .werkzeug.serving import is_running_from_reloader

    if use_reloader and not is_running_from_reloader():
        try:
            descriptor = _listen_here(host, port)
        except OSError as error:
            _explain(error, host, port)
        os.environ[_SOCKET_VARIABLE] = str(descriptor)

    served = app

    def prepare() -> None:
        nonlocal served
        if load is not None:
            served = load()

    def serve() -> None:
        wsgi = served
        if use_debugger:
            from .werkzeug.debug import DebuggedApplication

            wsgi = debugged = DebuggedApplication(wsgi, evalex=use_evalex)
            debugged.trusted_hosts.append(host)
        _serve(wsgi, host, port, threads, access_log, "" if quiet else _ready_line(about))

    if not use_reloader:
        prepare()
        serve()
        return

    from .werkzeug._reloader import run_with_reloader

    if load is not None and not is_running_from_reloader():
        _warm_up(use_debugger)
    try:
        run_with_reloader(
            serve,
            extra_files=extra_files,
            exclude_patterns=exclude_patterns,
            interval=reloader_interval,
            reloader_type=reloader_type,
            prepare=None if load is None else prepare,
        )
    finally:
        if not is_running_from_reloader():
            _remove_socket(host)


def _warm_up(use_debugger: bool) -> None:
    """Import what applications import, so that copies of this process have it."""
    import logging  # noqa: F401

    import jinja2  # noqa: F401

    from . import app, blueprints, json, sessions, templating  # noqa: F401
    from .werkzeug import serving  # noqa: F401

    if use_debugger:
        from .werkzeug import debug  # noqa: F401


def _ready_line(about: str) -> str:
    """What to print when the server listens; `{}` stands for where."""
    if os.environ.get(_RELOADS_VARIABLE):
        return " * Ready again"
    return f" * Running on {{}} ({about}{'; ' if about else ''}press CTRL+C to quit)"


def _remove_socket(host: str) -> None:
    if host.startswith("unix:"):
        with contextlib.suppress(OSError):
            os.unlink(host.removeprefix("unix:").removeprefix("//"))


def _serve(
    app: WSGIApplication, host: str, port: int, threads: int | None, access_log: bool, ready_line: str
) -> None:
    descriptor = os.environ.get(_SOCKET_VARIABLE)
    if descriptor is None and host.startswith("unix:") and _is_stale(_bind_text(host, port)[5:]):
        os.unlink(_bind_text(host, port)[5:])
    bind = _bind_text(host, port) if descriptor is None else f"fd:{descriptor}"
    try:
        server = _core.Server(app, [bind], threads=threads, access_log=access_log)
    except OSError as error:
        _explain(error, host, port)
    server.start()
    # The reloader ends the process from the main thread: the engine's threads must be gone before Python is.
    import atexit

    atexit.register(end_at_exit, server)

    def announce() -> None:
        if ready_line:
            where = " and ".join(
                address if address.startswith("unix:") else f"http://{address}"
                for address in server.addresses
            )
            print(ready_line.format(where), flush=True)

    _wait_and_stop(server, announce)
    if descriptor is None:
        _remove_socket(host)


def begin_lifespan(app: object) -> None:
    """Run what an app does before it serves. Called by the engine when a server starts.

    Raises:
        BaseException: What the app's functions raise.
    """
    flask = _with_lifespan(app)
    if flask is not None:
        from .lifespan import begin

        try:
            begin(flask)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            server_logger().error(
                "The app could not prepare to serve, so the server does not start: %s", what
            )
            raise


def end_lifespan(app: object, most: float | None) -> None:
    """Run what an app does when it serves no longer. Called by the engine when a server has stopped.

    Args:
        app: As of `begin_lifespan`.
        most: Seconds to wait for it; None for as long as it takes.
    """
    flask = _with_lifespan(app)
    if flask is not None:
        from .lifespan import end

        error = end(flask, most)
        if error is not None:
            server_logger().error("Exception while the app stopped serving", exc_info=error)


def _with_lifespan(app: t.Any) -> Flask | None:
    """Return the Flask app inside of middleware, if it has functions to call when serving begins or ends."""
    from .app import Flask

    for _ in range(_MIDDLEWARE_MOST):
        if isinstance(app, Flask):
            has_any = app.before_serving_funcs or app.while_serving_gens or app.after_serving_funcs
            return app if has_any else None
        # Werkzeug's middleware keeps what it wraps under this name.
        app = getattr(app, "app", None)
    return None


def end_at_exit(server: _core.Server) -> None:
    """Stop a server because the process ends; a view that does not come back does not hold that up."""
    with _ignored_signals():
        ended = server.stop(0, _END_SECONDS)
        _finish_background(_END_SECONDS)
    if not ended:
        _leave()


def cut_off(server: _core.Server) -> t.NoReturn:
    """Stop a server at once, and end the process."""
    server.stop(0, _END_SECONDS)
    _finish_background(0)
    _leave()


def _finish_background(timeout: float) -> None:
    """Wait for what `Flask.background` was given, if anything ever was."""
    background = sys.modules.get(f"{__package__}.background")
    if background is not None:
        background.finish(max(timeout, 0.0))


def _leave() -> t.NoReturn:
    """End the process without taking Python apart, since a thread is in a view that does not come back."""
    import atexit

    atexit.unregister(end_at_exit)
    atexit._run_exitfuncs()
    print(" * A view did not come back and was cut off", file=sys.stderr, flush=True)
    sys.stdout.flush()
    module = sys.modules.get(f"{__package__}.werkzeug._reloader")
    os._exit(getattr(module, "exit_status", 0))


@contextlib.contextmanager
def _ignored_signals() -> Iterator[None]:
    """Ignore requests to stop, since that is what happens; only the main thread can."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_and_stop(server: _core.Server, announce: Callable[[], None]) -> None:
    """Wait for SIGTERM or SIGINT, then stop; a second signal stops at once.

    Args:
        server: What to stop.
        announce: Called when signals are heard: who reads that the server runs may send one.
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread alone: here the server runs until the process ends.
        announce()
        threading.Event().wait()
        return

    import socket

    told, tell = socket.socketpair()
    tell.setblocking(False)
    previous_fd = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    stopping = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, lambda *_: None) for number in stopping}
    try:
        announce()
        while told.recv(1)[0] not in stopping:
            pass

        def stop() -> None:
            deadline = time.monotonic() + _GRACE_SECONDS
            ended = server.stop(_GRACE_SECONDS)
            _finish_background(deadline - time.monotonic())
            # Nobody listens any more once a second signal has come.
            with contextlib.suppress(OSError):
                tell.send(_ENDED if ended else _STUCK)

        threading.Thread(target=stop, name="hipflask-stop", daemon=True).start()
        told.settimeout(_PATIENT_SECONDS)
        while True:
            try:
                number = told.recv(1)[0]
            except TimeoutError:
                told.settimeout(None)
                print(
                    " * Requests still run: waiting for them (press CTRL+C again to cut them off)", flush=True
                )
                continue
            if number == _ENDED[0]:
                break
            if number == _STUCK[0]:
                _leave()
            if number in stopping:
                cut_off(server)
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        told.close()
        tell.close()
