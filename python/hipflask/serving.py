"""Serve an application on Hipflask's engine: say where, wait for a signal, stop in good order.

This is one process. Several under a supervisor are `hipflask.supervisor`'s; the engine itself (sockets,
threads, timers) is `hipflask._core.Server`.
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
    from socket import socket

    from _typeshed.wsgi import WSGIApplication

    from .app import Flask
    from .asgi import Host
    from .listening import Listener
    from .process import Service, Succession
    from .settings import Settings

# Set in those children of the reloader that were started because something changed.
_RELOADS_VARIABLE = "HIPFLASK_RELOADS"
# How long a server that is told to stop waits before it says what it waits for.
_PATIENT_SECONDS = 0.5
# When a server that has begun to serve prepares for what may go wrong.
_SETTLED_SECONDS = 0.1
# How long views get that are cut off.
_END_SECONDS = 0.5
# How many layers of middleware are looked through for the app.
_MIDDLEWARE_MOST = 32
# Whether this process has a server: it will not be forked any more.
_is_serving = False
# What the thread that stops a server tells the main thread, among the numbers of signals.
ENDED, STUCK = b"\0", b"\xff"
# Servers of this process whose threads may live.
_unstopped: set[_core.Server] = set()


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
        handler: logging.Handler
        try:
            from .server_log import LineHandler

            handler = LineHandler()
        except OSError:
            # Descriptors have run out before anything was to be said, and importing takes one.
            handler = logging.StreamHandler()
        process = " [%(process)d]" if "hipflask.supervisor" in sys.modules else ""
        handler.setFormatter(logging.Formatter(f"[%(asctime)s]{process} %(levelname)s %(message)s"))
        logger.addHandler(handler)
    if _is_serving and "hipflask.server_log" in sys.modules:
        from .server_log import LineHandler

        for each in logger.handlers:
            if isinstance(each, LineHandler):
                # Threads that serve must not wait for who reads standard error.
                each.detach()
    return logger


def run(
    load: Callable[[], WSGIApplication],
    settings: Settings,
    *,
    use_reloader: bool = False,
    use_debugger: bool = False,
    use_evalex: bool = True,
    extra_files: Iterable[str] | None = None,
    exclude_patterns: Iterable[str] | None = None,
    reloader_interval: float = 1,
    reloader_type: str = "auto",
    about: str = "",
) -> None:
    """Serve an application until the process is told to stop.

    SIGTERM and SIGINT finish the requests that run and return; a second signal cuts them off.

    Args:
        load: Imports what is served: a Flask app, or any WSGI callable.
        settings: Where to listen, and all else.
        use_reloader: Start again whenever a file of the program changes.
        use_debugger: Show the interactive debugger on errors.
        use_evalex: Let the debugger evaluate expressions.
        extra_files: Further files to watch.
        exclude_patterns: Patterns of files not to watch.
        reloader_interval: Seconds between looks at the files, where changes cannot be waited for.
        reloader_type: ``auto``, ``inotify``, ``stat``, ``watchfiles`` or ``watchdog``.
        about: What is served, for the line that says where.

    Raises:
        SystemExit: If an address or a user cannot be had.
    """
    if use_debugger:
        plain = load

        def load() -> WSGIApplication:
            from .werkzeug.debug import DebuggedApplication

            app = plain()
            if _asgi_host(app) is not None:
                # The debugger is made for WSGI.
                return app
            debugged = DebuggedApplication(app, evalex=use_evalex)
            debugged.trusted_hosts.append(settings["host"])
            return debugged

    if not use_reloader:
        _run_here(load, settings, about)
        return

    from .werkzeug._reloader import run_with_reloader
    from .werkzeug.serving import is_running_from_reloader

    is_first = not is_running_from_reloader()
    listeners = open_listeners(settings)
    if is_first:
        # They outlive the processes that are started again and again.
        from .listening import pass_on

        for listener in listeners:
            listener.socket.set_inheritable(True)
        os.environ.update(pass_on(listeners)[0])
        _warm_up(use_debugger)
    served: list[WSGIApplication] = []
    try:
        run_with_reloader(
            lambda: _serve(served[0], listeners, settings, about),
            extra_files=extra_files,
            exclude_patterns=exclude_patterns,
            interval=reloader_interval,
            reloader_type=reloader_type,
            prepare=lambda: served.append(load()),
        )
    finally:
        if not is_running_from_reloader():
            for listener in listeners:
                listener.remove()


def _run_here(load: Callable[[], WSGIApplication], settings: Settings, about: str) -> None:
    """Serve in this process, as the system's service if it is one."""
    from .process import PidFile, PrivilegeError, Service, Succession, drop_privileges

    succession, service = Succession(), Service()
    listeners = open_listeners(settings)
    pid_file = PidFile(settings["pid_file"], succession.predecessor)
    try:
        try:
            drop_privileges(settings["user"], settings["group"])
        except PrivilegeError as error:
            fail(str(error))
        # Before the application is loaded: probes shall learn that it is not ready.
        monitor = _monitor(settings, listeners)
        _serve(load(), listeners, settings, about, service, succession, monitor)
    finally:
        for listener in listeners:
            listener.remove()
        pid_file.remove()


def all_binds(settings: Settings) -> list[str]:
    """Where to listen, for whatever purpose."""
    from .metrics import binds

    return [*settings.binds(), *settings.redirects(), *binds(settings)]


def open_listeners(settings: Settings) -> list[Listener]:
    """Listen as settings say.

    Returns:
        The sockets.

    Raises:
        SystemExit: If one cannot be had.
    """
    from .listening import ListenError, open_all
    from .process import PrivilegeError
    from .setting_types import SettingError

    try:
        # Before anything else is done: files may be missing, and rights may be given up afterwards.
        settings.tls()
        return open_all(all_binds(settings), settings.values)
    except (ListenError, PrivilegeError, SettingError) as error:
        fail(str(error), error)


def fail(reason: str, error: BaseException | None = None) -> t.NoReturn:
    """Say in one sentence why nothing is served, and leave.

    Raises:
        SystemExit: Always.
    """
    print(f"Error: {reason}", file=sys.stderr)
    raise SystemExit(1) from error


def _warm_up(use_debugger: bool) -> None:
    """Import what applications import, so that copies of this process have it."""
    import logging  # noqa: F401

    import jinja2  # noqa: F401

    from . import app, blueprints, json, sessions, templating  # noqa: F401
    from .werkzeug import serving  # noqa: F401

    if use_debugger:
        from .werkzeug import debug  # noqa: F401


def ready_line(listeners: list[Listener], settings: Settings, about: str) -> str:
    """What to print when the server listens."""
    if os.environ.get(_RELOADS_VARIABLE):
        return " * Ready again"
    redirects = settings.redirects()
    served = [
        listener.address for listener in listeners if listener.bind not in redirects and not listener.role
    ]
    if settings["cert"] is not None:
        served = [address.replace("http:", "https:", 1) for address in served]
    where = " and ".join(served)
    line = f" * Running on {where} ({about}{'; ' if about else ''}press CTRL+C to quit)"
    for listener in listeners:
        if listener.role == "metrics":
            line += f"\n * Metrics on {listener.address}"
    return line


class ServeError(Exception):
    """A server cannot be made as settings say."""


class LogError(ServeError):
    """The access log cannot be written where it is wanted."""


def _trace(app: WSGIApplication) -> None:
    """Make spans of OpenTelemetry for an application's requests.

    Raises:
        ServeError: If what that needs is not installed.
    """
    flask = flask_inside(app)
    if flask is None:
        server_logger().warning("otel is not used, since the application is none of Flask's.")
        return
    try:
        from . import otel

        otel.set_up()
        otel.instrument_app(flask)
    except ImportError as error:
        raise ServeError(
            f"otel needs a package that is not installed ({error.name}): pip install 'hipflask[otel]'"
            " opentelemetry-exporter-otlp-proto-http"
        ) from error
    except ValueError as error:
        raise ServeError(str(error)) from error


def _warn_of_proxy_fix(app: WSGIApplication, settings: Settings) -> None:
    """Tell if two of a kind correct the client's address."""
    module = sys.modules.get(f"{__package__}.werkzeug.middleware.proxy_fix")
    if module and settings["trusted_proxies"] and isinstance(getattr(app, "wsgi_app", app), module.ProxyFix):
        server_logger().warning(
            "ProxyFix and trusted_proxies both change the client's address, and ProxyFix believes"
            " whoever connects: leave one out."
        )


def make_server(
    app: WSGIApplication, listeners: list[Listener], settings: Settings, **more: t.Any
) -> _core.Server:
    """Make the engine's server for settings, and start it.

    The sockets are the engine's from then on: they are closed here.

    Raises:
        ServeError: If the access log cannot be opened, or a package is missing.
    """
    global _is_serving
    _warn_of_proxy_fix(app, settings)
    if settings["otel"]:
        _trace(app)
    redirects = settings.redirects()
    tls = settings.tls()
    if tls is not None:
        more["tls"] = tls
        more["redirects"] = [listener.number for listener in listeners if listener.bind in redirects]
        more["redirect_port"] = settings["redirect_port"]
    if more.get("monitor") is not None:
        from .metrics import path_of

        more["metrics_path"] = path_of(app, settings)
    numbers = [
        listener.number for listener in listeners if listener.bind not in redirects and not listener.role
    ]
    log = settings.access_log()
    try:
        server = _core.Server(app, numbers, access_log=log, settings=settings.engine(), **more)
    except OSError as error:
        if log is None or error.filename != log["to"]:
            raise
        why = os.strerror(error.errno) if error.errno else error.strerror
        raise LogError(f"The access log {log['to']} cannot be opened: {why}.") from None
    server.start()
    for listener in listeners:
        listener.close()
    _is_serving = True
    return server


def _serve(
    app: WSGIApplication,
    listeners: list[Listener],
    settings: Settings,
    about: str,
    service: Service | None = None,
    succession: Succession | None = None,
    monitor: _core.Monitor | None = None,
) -> None:
    line = ready_line(listeners, settings, about)
    if monitor is None:
        monitor = _monitor(settings, listeners)
    try:
        server = make_server(app, listeners, settings, monitor=monitor)
    except ServeError as error:
        fail(str(error), error)

    def announce() -> None:
        print(line, flush=True)
        if service is not None:
            service.ready("Serving")
        if succession is not None:
            succession.ready()

    _wait_and_stop(server, announce, settings["grace"], service)


def _monitor(settings: Settings, listeners: list[Listener]) -> _core.Monitor | None:
    """What tells about a server of one process, on a thread of its own."""
    from .metrics import attend

    monitor = attend(None, settings, listeners)
    if monitor is not None:
        monitor.start()
    return monitor


def begin_lifespan(app: object) -> None:
    """Run what an app does before it serves. Called by the engine when a server starts.

    Raises:
        BaseException: What the app's functions raise.
    """
    host, flask = _asgi_host(app), _with_lifespan(app)
    if host is not None or flask is not None:
        try:
            if host is not None:
                host.begin()
            else:
                from .lifespan import begin

                begin(t.cast("Flask", flask))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            server_logger().error(
                "The app could not prepare to serve, so the server does not start: %s", what
            )
            raise


def end_lifespan(app: object, most: float | None, left: float) -> None:
    """Run what an app does when it serves no longer. Called by the engine when a server has stopped.

    Args:
        app: As of `begin_lifespan`.
        most: Seconds to wait for it; None for as long as it takes.
        left: Seconds that are left to requests whose client needs no answer any more.
    """
    host = _asgi_host(app)
    if host is not None:
        host.end(left)
        return
    flask = _with_lifespan(app)
    if flask is not None:
        from .lifespan import end

        error = end(flask, most)
        if error is not None:
            server_logger().error("Exception while the app stopped serving", exc_info=error)


def _asgi_host(app: object) -> Host | None:
    """Return what was given to a server, if that is the host of an ASGI application."""
    module = sys.modules.get(f"{__package__}.asgi")
    return app if module is not None and isinstance(app, module.Host) else None


def _with_lifespan(app: t.Any) -> Flask | None:
    """Return the Flask app inside of middleware, if it has functions to call when serving begins or ends."""
    flask = flask_inside(app)
    if flask is None:
        return None
    has_any = flask.before_serving_funcs or flask.while_serving_gens or flask.after_serving_funcs
    return flask if has_any else None


def flask_inside(app: t.Any) -> Flask | None:
    """Return the Flask app inside of middleware, if there is one."""
    from .app import Flask

    for _ in range(_MIDDLEWARE_MOST):
        if isinstance(app, Flask):
            return app
        # Werkzeug's middleware keeps what it wraps under this name.
        app = getattr(app, "app", None)
    return None


def stop_at_exit(server: _core.Server) -> None:
    """Have a server stopped when the process ends. Called by the engine when it has started.

    Else the interpreter would be taken from under threads that serve, which ends in a crash.
    """
    import atexit

    if not _unstopped:
        atexit.register(end_at_exit)
    _unstopped.add(server)


def is_stopped(server: _core.Server) -> None:
    """Forget a server whose threads have ended. Called by the engine."""
    import atexit

    _unstopped.discard(server)
    if not _unstopped:
        atexit.unregister(end_at_exit)


def end_at_exit() -> None:
    """Stop all servers because the process ends; a view that does not come back does not hold that up."""
    with _ignored_signals():
        ended = [server.stop(0, _END_SECONDS) for server in list(_unstopped)]
        _finish_background(_END_SECONDS)
    if not all(ended):
        leave()


def cut_off(server: _core.Server) -> t.NoReturn:
    """Stop a server at once, and end the process."""
    server.stop(0, _END_SECONDS)
    _finish_background(0)
    leave()


def _finish_background(timeout: float) -> None:
    """Wait for what `Flask.background` was given, if anything ever was."""
    background = sys.modules.get(f"{__package__}.background")
    if background is not None:
        background.finish(max(timeout, 0.0))


def leave() -> t.NoReturn:
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


def _wait_and_stop(
    server: _core.Server, announce: Callable[[], None], grace: float, service: Service | None
) -> None:
    """Wait for SIGTERM or SIGINT, then stop; a second signal stops at once.

    Args:
        server: What to stop.
        announce: Called when signals are heard: who reads that the server runs may send one.
        grace: Seconds that requests get to finish.
        service: Who wants to know that this process lives, and that it stops.
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread alone: here the server runs until the process ends.
        announce()
        threading.Event().wait()
        return

    from socket import socketpair

    from . import stacks
    from .helpers import get_debug_flag

    told, tell = socketpair()
    tell.setblocking(False)
    previous_fd = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    stopping = (signal.SIGTERM, signal.SIGINT)
    heard = (*stopping, signal.SIGUSR1)
    previous = {number: signal.signal(number, lambda *_: None) for number in heard}
    # While an application is made, a key that ends whatever hangs is worth more than stacks.
    dumps = service is not None and not get_debug_flag()
    if dumps:
        stacks.hear()
    try:
        announce()
        told.settimeout(_SETTLED_SECONDS)
        while True:
            try:
                number = told.recv(1)[0]
                if number in stopping:
                    break
                if number == signal.SIGUSR1:
                    server.reopen_log()
                if number == signal.SIGQUIT:
                    stacks.tell_all(server)
            except TimeoutError:
                # What is to be said when descriptors have run out must not need one to be imported; the first
                # requests need not wait for it.
                try:
                    from . import server_log  # noqa: F401
                except OSError:
                    # They have run out already. A server at its limit goes on.
                    continue
                told.settimeout(service.interval if service is not None else None)
            if service is not None and service.interval is not None:
                service.alive()
        if service is not None:
            service.stopping()
        stop_beside(server, grace, tell)
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
            if number == ENDED[0]:
                break
            if number == STUCK[0]:
                leave()
            if number in stopping:
                cut_off(server)
            if number == signal.SIGQUIT:
                stacks.tell_all(server)
    finally:
        if dumps:
            stacks.ignore()
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        told.close()
        tell.close()


def stop_beside(server: _core.Server, grace: float, tell: socket, hand_over: bool = False) -> None:
    """Stop a server from a thread of its own, which says by a byte whether all of it has ended.

    Args:
        server: What to stop.
        grace: Seconds that requests get to finish.
        tell: Where to send `ENDED` or `STUCK`.
        hand_over: Whether others accept the connections that wait.
    """
    import threading

    def stop() -> None:
        deadline = time.monotonic() + grace
        ended = server.stop(grace, hand_over=hand_over)
        _finish_background(deadline - time.monotonic())
        # Nobody listens any more once a second signal has come.
        with contextlib.suppress(OSError):
            tell.send(ENDED if ended else STUCK)

    threading.Thread(target=stop, name="hipflask-stop", daemon=True).start()
