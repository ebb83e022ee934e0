"""Serve an application on Hipflask's engine: bind, say where, wait for a signal, stop in good order.

The engine itself (sockets, threads, timers) is `hipflask._core.Server`.
"""

from __future__ import annotations

import os
import sys
import typing as t

from . import _core

if t.TYPE_CHECKING:
    from collections.abc import Iterable
    from logging import Logger

    from _typeshed.wsgi import WSGIApplication

# What a process that reloads passes to its children: the number of the listening socket, which outlives them.
_SOCKET_VARIABLE = "HIPFLASK_SERVER_FD"
_GRACE_SECONDS = 30.0


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
        listener.bind(path)
        listener.listen(1024)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
    listener.set_inheritable(True)
    return listener.detach()


def _address_in_use(error: OSError, host: str, port: int) -> t.NoReturn:
    """Say in one sentence what to do about a port that cannot be had."""
    import errno

    if error.errno == errno.EADDRINUSE:
        reason = (
            f"Port {port} on {host} is in use by another program:"
            " stop that program, or choose another port with --port."
        )
    elif error.errno == errno.EACCES:
        reason = f"Port {port} needs more rights than this user has: choose a port above 1023 with --port."
    else:
        reason = f"Cannot listen on {host} port {port}: {error.strerror or error}."
    print(reason, file=sys.stderr)
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
        reloader_type: ``auto``, ``stat`` or ``watchfiles``.
        threads: The most views that run at the same time.
        access_log: Write a line for each answer to standard error.
        quiet: Do not say where the server listens.

    Raises:
        SystemExit: If the address cannot be had.
    """
    if use_debugger:
        from .werkzeug.debug import DebuggedApplication

        debugged = DebuggedApplication(app, evalex=use_evalex)
        debugged.trusted_hosts.append(host)
        app = debugged

    if not use_reloader:
        _serve(app, host, port, threads, access_log, quiet, os.environ.get(_SOCKET_VARIABLE))
        return

    from .werkzeug._reloader import run_with_reloader
    from .werkzeug.serving import is_running_from_reloader

    if not is_running_from_reloader():
        try:
            descriptor = _listen_here(host, port)
        except OSError as error:
            _address_in_use(error, host, port)
        os.environ[_SOCKET_VARIABLE] = str(descriptor)

    run_with_reloader(
        lambda: _serve(app, host, port, threads, access_log, quiet, os.environ.get(_SOCKET_VARIABLE)),
        extra_files=extra_files,
        exclude_patterns=exclude_patterns,
        interval=reloader_interval,
        reloader_type=reloader_type,
    )


def _serve(
    app: WSGIApplication,
    host: str,
    port: int,
    threads: int | None,
    access_log: bool,
    quiet: bool,
    descriptor: str | None,
) -> None:
    bind = _bind_text(host, port) if descriptor is None else f"fd:{descriptor}"
    try:
        server = _core.Server(app, [bind], threads=threads, access_log=access_log)
    except OSError as error:
        _address_in_use(error, host, port)
    server.start()
    # The reloader ends the process from the main thread: the engine's threads must be gone before Python is.
    import atexit

    atexit.register(server.stop, 0)
    if not quiet:
        for address in server.addresses:
            where = address if address.startswith("unix:") else f"http://{address}"
            print(f" * Running on {where} (Press CTRL+C to quit)", flush=True)
    _wait_and_stop(server)


def _wait_and_stop(server: _core.Server) -> None:
    """Wait for SIGTERM or SIGINT, then stop; a second signal stops at once."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread alone: here the server runs until the process ends.
        threading.Event().wait()
        return

    import socket

    told, tell = socket.socketpair()
    tell.setblocking(False)
    previous_fd = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    stopping = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, lambda *_: None) for number in stopping}
    try:
        while told.recv(1)[0] not in stopping:
            pass

        def stop() -> None:
            server.stop(_GRACE_SECONDS)
            tell.send(b"\0")

        threading.Thread(target=stop, name="hipflask-stop", daemon=True).start()
        while (number := told.recv(1)[0]) != 0:
            if number in stopping:
                server.stop(0)
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        told.close()
        tell.close()
