"""Believe what trusted proxies say about the client.

Each proxy appends what it saw to the `X-Forwarded-…` fields, so only the last values, as many as there are
proxies of one's own, are worth anything: a client may have sent the rest. Does not read `Forwarded` (RFC
7239).

Implements: werkzeug.middleware.proxy_fix (3.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..http import parse_list_header

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ProxyFix:
    """Puts the values of trusted proxies into the environ and calls the application.

    What was there before is kept in `environ["werkzeug.proxy_fix.orig"]`.

    Args:
        app: The application.
        x_for: How many proxies set `X-Forwarded-For`, the client's address.
        x_proto: How many set `X-Forwarded-Proto`, the scheme.
        x_host: How many set `X-Forwarded-Host`.
        x_port: How many set `X-Forwarded-Port`.
        x_prefix: How many set `X-Forwarded-Prefix`, the path under which the application is mounted.
    """

    def __init__(
        self,
        app: WSGIApplication,
        x_for: int = 1,
        x_proto: int = 1,
        x_host: int = 0,
        x_port: int = 0,
        x_prefix: int = 0,
    ) -> None:
        self.app = app
        self.x_for = x_for
        self.x_proto = x_proto
        self.x_host = x_host
        self.x_port = x_port
        self.x_prefix = x_prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Correct the environ, then answer."""
        kept = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME")
        environ["werkzeug.proxy_fix.orig"] = {key: environ.get(key) for key in kept}

        if address := self._get_real_value(self.x_for, environ.get("HTTP_X_FORWARDED_FOR")):
            environ["REMOTE_ADDR"] = address
        if scheme := self._get_real_value(self.x_proto, environ.get("HTTP_X_FORWARDED_PROTO")):
            environ["wsgi.url_scheme"] = scheme
        if host := self._get_real_value(self.x_host, environ.get("HTTP_X_FORWARDED_HOST")):
            name, port = _split_port(host)
            environ["HTTP_HOST"] = host
            environ["SERVER_NAME"] = name
            if port is not None:
                environ["SERVER_PORT"] = port
        if port := self._get_real_value(self.x_port, environ.get("HTTP_X_FORWARDED_PORT")):
            if host := environ.get("HTTP_HOST"):
                environ["HTTP_HOST"] = f"{_split_port(host)[0]}:{port}"
            environ["SERVER_PORT"] = port
        if prefix := self._get_real_value(self.x_prefix, environ.get("HTTP_X_FORWARDED_PREFIX")):
            environ["SCRIPT_NAME"] = prefix
        return self.app(environ, start_response)

    def _get_real_value(self, trusted: int, value: str | None) -> str | None:
        """The value that the outermost of so many trusted proxies appended to a field, if it did."""
        if not trusted or not value:
            return None
        values = parse_list_header(value)
        return values[-trusted] if len(values) >= trusted else None


def _split_port(host: str) -> tuple[str, str | None]:
    """Name and port. A bracket at the end closes an IPv6 address without a port."""
    if ":" not in host or host.endswith("]"):
        return host, None
    name, _, port = host.rpartition(":")
    return name, port
