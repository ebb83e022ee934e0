"""A running engine, and requests to it that `http.client` writes as they are asked for."""

from __future__ import annotations

import http.client

from hipflask import _core


class Server:
    """A running server and requests to it, on one connection.

    Args:
        app: What it serves.
        settings: Settings of the engine.
    """

    def __init__(self, app, **settings) -> None:
        self._server = _core.Server(app, ["127.0.0.1:0"], settings=settings)
        self._server.start()
        host, _, port = self._server.addresses[0].rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=20)

    def ask(self, path: str, accept: str | None = None, method: str = "GET", **fields: str):
        """Ask; the response with its body as `data`.

        Args:
            path: The target.
            accept: What `Accept-Encoding` says; None for no such field.
            method: The method.
            fields: Further fields, with underscores for hyphens.
        """
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        if accept is not None:
            self._connection.putheader("Accept-Encoding", accept)
        for name, value in fields.items():
            self._connection.putheader(name.replace("_", "-"), value)
        self._connection.endheaders()
        response = self._connection.getresponse()
        response.data = response.read()
        return response

    def close(self) -> None:
        self._connection.close()
        self._server.stop()
