"""The ways into an app, behind one interface: a behaviour test runs through each of them.

A door takes `(method, url, headers, body)` and gives an `Answer`; `Client` adds what tests like to write. A
door for a live server needs `__init__(app)`, `exchange` and `close`, and an entry in `DOORS`.
"""

from __future__ import annotations

import contextlib
import io
import json as json_module
import sys
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit


class Answer:
    """A response as the client sees it."""

    def __init__(self, status: str, headers: list[tuple[str, str]], data: bytes) -> None:
        self.status = status
        self.status_code = int(status[:3])
        self.header_list = headers
        self.data = data

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        return json_module.loads(self.data)

    def header(self, name: str) -> str | None:
        return next(iter(self.headers(name)), None)

    def headers(self, name: str) -> list[str]:
        return [value for key, value in self.header_list if key.lower() == name.lower()]


class Door(Protocol):
    def __init__(self, app: Any) -> None: ...

    def exchange(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> Answer: ...

    def close(self) -> None: ...


class TestClientDoor:
    """Through `app.test_client()`."""

    __test__ = False

    def __init__(self, app: Any) -> None:
        self.client = app.test_client(use_cookies=False)

    def exchange(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        parts = urlsplit(url)
        response = self.client.open(
            parts.path,
            base_url=f"{parts.scheme}://{parts.netloc}",
            query_string=parts.query,
            method=method,
            headers=headers,
            data=body,
        )
        answer = Answer(response.status, list(response.headers), response.data)
        response.close()
        return answer

    def close(self) -> None:
        pass


class WsgiDoor:
    """Through `app(environ, start_response)`, as a WSGI server calls it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def exchange(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        from urllib.parse import unquote_to_bytes

        parts = urlsplit(url)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(parts.path).decode("latin1"),
            "QUERY_STRING": parts.query,
            "SERVER_NAME": parts.hostname,
            "SERVER_PORT": str(parts.port or 80),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": parts.netloc,
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": parts.scheme,
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if body:
            environ["CONTENT_LENGTH"] = str(len(body))
        for name, value in headers:
            key = name.upper().replace("-", "_")
            key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value

        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started.append((status, headers))
            return lambda data: None

        pieces = self.app(environ, start_response)
        try:
            data = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        ((status, given),) = started
        return Answer(status, given, b"" if method == "HEAD" else data)

    def close(self) -> None:
        pass


class LiveDoor:
    """Through the engine, on a real socket: the fast lane."""

    def __init__(self, app: Any) -> None:
        import http.client

        from hipflask import _core

        self.server = _core.Server(app, ["127.0.0.1:0"])
        self.server.start()
        host, _, port = self.server.addresses[0].rpartition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=20)

    def exchange(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        self.connection.putheader("Host", parts.netloc)
        for name, value in headers:
            self.connection.putheader(name, value)
        if body:
            self.connection.putheader("Content-Length", str(len(body)))
        # A body that is refused is not read to its end; the answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.endheaders(body or None)
        with self.connection.getresponse() as response:
            status = f"{response.status} {response.reason}"
            return Answer(status, response.getheaders(), response.read())

    def close(self) -> None:
        self.connection.close()
        self.server.stop()


class FullLaneDoor(LiveDoor):
    """Through the engine, with middleware around the app: the full lane."""

    def __init__(self, app: Any) -> None:
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start_response: inner(environ, start_response)
        super().__init__(app)


DOORS: dict[str, type[Door]] = {
    "client": TestClientDoor,
    "wsgi": WsgiDoor,
    "live": LiveDoor,
    "live-full-lane": FullLaneDoor,
}


class Client:
    """Sends requests through a door, and keeps cookies.

    The door is opened with the first request, so that a test can finish setting up its app before.
    """

    def __init__(self, app: Any, door: type[Door], host: str = "localhost") -> None:
        self.app = app
        self.host = host
        self.cookies: dict[str, str] = {}
        self._kind = door
        self._door: Door | None = None

    def open(
        self,
        path: str,
        method: str = "GET",
        *,
        headers: dict[str, str] | None = None,
        data: dict[str, str] | bytes | str | None = None,
        json: Any = None,
        host: str | None = None,
    ) -> Answer:
        sent = list((headers or {}).items())
        body = b""
        if json is not None:
            body = json_module.dumps(json).encode()
            sent.append(("Content-Type", "application/json"))
        elif isinstance(data, dict):
            body = urlencode(data).encode()
            sent.append(("Content-Type", "application/x-www-form-urlencoded"))
        elif data is not None:
            body = data.encode() if isinstance(data, str) else data
        if self.cookies:
            sent.append(("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        if self._door is None:
            self._door = self._kind(self.app)
        answer = self._door.exchange(method, f"http://{host or self.host}{path}", sent, body)
        for cookie in answer.headers("Set-Cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    def get(self, path: str, **options: Any) -> Answer:
        return self.open(path, "GET", **options)

    def post(self, path: str, **options: Any) -> Answer:
        return self.open(path, "POST", **options)

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
