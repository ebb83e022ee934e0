"""Mount applications below paths of another one.

Does not look at hosts: routing by host is the router's business.

Implements: werkzeug.middleware.dispatcher (3.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class DispatcherMiddleware:
    """Calls the application that is mounted at the longest matching path.

    The mount point moves from `PATH_INFO` to `SCRIPT_NAME`, so that the mounted application finds and
    builds its URLs.

    Args:
        app: Answers what is below no mount point.
        mounts: Paths, without a slash at the end, and the applications there.
    """

    def __init__(self, app: WSGIApplication, mounts: dict[str, WSGIApplication] | None = None) -> None:
        self.app = app
        self.mounts = mounts or {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Hand the request on."""
        mount, rest = environ.get("PATH_INFO", ""), ""
        while mount not in self.mounts and "/" in mount:
            mount, _, segment = mount.rpartition("/")
            rest = f"/{segment}{rest}"
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + mount
        environ["PATH_INFO"] = rest
        return self.mounts.get(mount, self.app)(environ, start_response)
