"""What the server tells about itself: metrics for Prometheus, probes, the control socket of `hipflask top`.

The engine counts, on memory that all processes of a server share (`hipflask._core.Monitor`), and answers
without Python: a thread of its own in a server of one process, the supervisor where there are several. This
module connects that with the settings `metrics_bind`, `metrics_path` and `control`.
"""

from __future__ import annotations

import typing as t

from . import _core

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from .listening import Listener
    from .settings import Settings

#: Before the address of a listener that the application's requests do not come to.
ROLES = ("metrics", "control")


def binds(settings: Settings) -> list[str]:
    """Where the server tells about itself, for `hipflask.listening.open_all`."""
    found = []
    if settings["metrics_bind"] is not None:
        found.append(f"metrics:{settings['metrics_bind']}")
    if settings["control"] is not None:
        found.append(f"control:unix:{settings['control']}")
    return found


def is_wanted(settings: Settings) -> bool:
    """Whether anything is to be counted."""
    return any(settings[name] is not None for name in ("metrics_bind", "metrics_path", "control"))


def attend(
    monitor: _core.Monitor | None,
    settings: Settings,
    listeners: Iterable[Listener],
    slots: int = 1,
    crew: _core.Crew | None = None,
) -> _core.Monitor | None:
    """Let a monitor answer at the sockets that are its own.

    Args:
        monitor: The one that there is.
        settings: Those in force.
        listeners: All sockets of the server.
        slots: How many workers there will be.
        crew: Those that serve; None for this process alone.

    Returns:
        The monitor, a new one if there was none; None if nobody wants to know anything.
    """
    if monitor is None:
        if not is_wanted(settings):
            return None
        monitor = _core.Monitor(slots, crew)
    monitor.set_patience(settings["health_timeout"])
    monitor.listen([(each.socket.fileno(), each.role) for each in listeners if each.role is not None])
    return monitor


def path_of(app: t.Any, settings: Settings) -> str | None:
    """The path at which the application's own address tells the metrics.

    Returns:
        None if there shall be none, or if the application has a route for it, or can have: then a sentence of
        the log says so.
    """
    path: str | None = settings["metrics_path"]
    if path is None:
        return None
    from .serving import flask_inside, server_logger

    flask = flask_inside(app)
    if flask is None:
        server_logger().warning(
            "metrics_path = %r is not used, since only a Flask application says which paths are its own: use"
            " metrics_bind.",
            path,
        )
    elif _has_route(flask, path):
        server_logger().warning(
            "metrics_path = %r is not used, since the application has a route for it: choose another path, or"
            " use metrics_bind.",
            path,
        )
    else:
        return path
    return None


def _has_route(app: t.Any, path: str) -> bool:
    """Whether requests for a path go to one of an application's own views."""
    from .werkzeug.exceptions import MethodNotAllowed, NotFound
    from .werkzeug.routing import RequestRedirect

    hosts = {rule.host for rule in app.url_map.iter_rules()} | {None}
    for host in hosts:
        adapter = app.url_map.bind(host or app.config["SERVER_NAME"] or "localhost")
        try:
            adapter.match(path, "GET")
        except NotFound:
            continue
        except (MethodNotAllowed, RequestRedirect):
            pass
        return True
    return False
