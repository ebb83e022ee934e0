"""Send requests below some paths to other servers.

For development, where a front-end's own server runs beside the application. One connection per request;
does not speak WebSocket or HTTP/2.

Implements: werkzeug.middleware.http_proxy (3.1); RFC 9110 §7.6.1 for the fields that end at a hop.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ..datastructures import EnvironHeaders
from ..exceptions import BadGateway
from ..http import is_hop_by_hop_header
from ..wsgi import get_input_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from http.client import HTTPResponse
    from typing import Any
    from urllib.parse import SplitResult

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ProxyMiddleware:
    """Forwards what is below a path to a server, and leaves the rest to the application.

    Args:
        app: The application.
        targets: Paths and how to forward what is below them, each a dict: `target`, the server's URL;
            `remove_prefix`, whether the path itself is cut off (false); `host`, the `Host` to send, None
            for the client's, `"<auto>"` for the target's (the default); `headers`, more fields to send;
            `ssl_context`, how to check the server.
        chunk_size: How many bytes of a body to hold at a time.
        timeout: How many seconds the server may take for one step.
    """

    def __init__(
        self,
        app: WSGIApplication,
        targets: Mapping[str, dict[str, Any]],
        chunk_size: int = 2 << 13,
        timeout: int = 10,
    ) -> None:
        defaults = {"remove_prefix": False, "host": "<auto>", "headers": {}, "ssl_context": None}
        self.app = app
        self.targets = {f"/{path.strip('/')}/": {**defaults, **options} for path, options in targets.items()}
        self.chunk_size = chunk_size
        self.timeout = timeout

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Forward the request, or hand it to the application."""
        path = environ["PATH_INFO"]
        for prefix, options in self.targets.items():
            if path.startswith(prefix):
                return self.proxy_to(options, path, prefix)(environ, start_response)
        return self.app(environ, start_response)

    def proxy_to(self, opts: dict[str, Any], path: str, prefix: str) -> WSGIApplication:
        """An application that forwards to one target.

        Args:
            opts: The target's options.
            path: The path that was asked for.
            prefix: The part of it that selected the target.
        """
        target = urlsplit(opts["target"])
        host = (target.hostname or "").encode("idna").decode("ascii")
        if opts["remove_prefix"]:
            path = f"{target.path.rstrip('/')}/{path[len(prefix) :].lstrip('/')}"

        def forward(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # "%" stays, since the path may hold escapes already; the rest is what a path segment may contain.
            url = quote(path, safe="!$&'()*+,/:;=@%")
            if environ["QUERY_STRING"]:
                url = f"{url}?{environ['QUERY_STRING']}"
            length = environ.get("CONTENT_LENGTH")
            chunked = length == "" or (length is None and "HTTP_TRANSFER_ENCODING" in environ)
            try:
                connection = self._connect(target, host, opts)
                connection.putrequest(environ["REQUEST_METHOD"], url, skip_host=True)
                for name, value in _forwarded_headers(environ, opts, host, chunked):
                    connection.putheader(name, value)
                connection.endheaders()
                self._send_body(connection, environ, chunked)
                response = connection.getresponse()
            except OSError:
                return BadGateway()(environ, start_response)

            start_response(
                f"{response.status} {response.reason}",
                [(k.title(), v) for k, v in response.getheaders() if not is_hop_by_hop_header(k)],
            )
            return self._pieces(response)

        return forward

    def _connect(self, target: SplitResult, host: str, opts: dict[str, Any]) -> HTTPConnection:
        connection: HTTPConnection
        if target.scheme == "http":
            connection = HTTPConnection(host, target.port or 80, timeout=self.timeout)
        elif target.scheme == "https":
            connection = HTTPSConnection(
                host, target.port or 443, timeout=self.timeout, context=opts["ssl_context"]
            )
        else:
            raise RuntimeError(f"Target scheme must be 'http' or 'https', got {target.scheme!r}.")
        connection.connect()
        return connection

    def _send_body(self, connection: HTTPConnection, environ: WSGIEnvironment, chunked: bool) -> None:
        stream = get_input_stream(environ)
        while data := stream.read(self.chunk_size):
            connection.send(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        if chunked:
            connection.send(b"0\r\n\r\n")

    def _pieces(self, response: HTTPResponse) -> Iterator[bytes]:
        while data := response.read(self.chunk_size):
            yield data


def _forwarded_headers(
    environ: WSGIEnvironment, opts: dict[str, Any], host: str, chunked: bool
) -> Iterator[tuple[str, str]]:
    """The client's fields without those that end here, with those that the target needs."""
    for name, value in EnvironHeaders(environ):
        if not is_hop_by_hop_header(name) and name.lower() not in ("content-length", "host"):
            yield name, value
    yield "Connection", "close"
    if opts["host"] == "<auto>":
        yield "Host", host
    else:
        yield "Host", environ["HTTP_HOST"] if opts["host"] is None else opts["host"]
    for name, value in opts["headers"].items():
        yield name, "close" if name.lower() == "connection" else value
    if chunked:
        yield "Transfer-Encoding", "chunked"
    elif environ.get("CONTENT_LENGTH"):
        yield "Content-Length", environ["CONTENT_LENGTH"]
