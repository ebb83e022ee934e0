"""Warn when a server or an application breaks the rules of WSGI or HTTP.

For development: every call is checked. Nothing is corrected and nothing refused.

Implements: werkzeug.middleware.lint (3.1); the rules are PEP 3333's and RFC 9110's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit
from warnings import warn

from ..datastructures import Headers
from ..http import is_entity_header
from ..wsgi import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


_REQUIRED = (
    "REQUEST_METHOD",
    "SERVER_NAME",
    "SERVER_PORT",
    "wsgi.version",
    "wsgi.input",
    "wsgi.errors",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.run_once",
)


class WSGIWarning(Warning):
    """A rule of PEP 3333 is broken."""


class HTTPWarning(Warning):
    """A rule of HTTP is broken."""


def check_type(context: str, obj: object, need: type = str) -> None:
    """Warn unless an object is of exactly this type."""
    if type(obj) is not need:
        _wsgi(f"{context!r} requires {need.__name__!r}, got {type(obj).__name__!r}.", 4)


class LintMiddleware:
    """Watches what passes between server and application.

    Args:
        app: The application.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, *args: Any, **kwargs: Any) -> Iterable[bytes]:
        """Call the application between two guards."""
        if len(args) != 2:
            _wsgi("A WSGI app takes two arguments.")
        if kwargs:
            _wsgi("A WSGI app does not take keyword arguments.")
        environ, start_response = args
        self.check_environ(environ)
        environ["wsgi.input"] = InputStream(environ["wsgi.input"])
        environ["wsgi.errors"] = ErrorStream(environ["wsgi.errors"])
        # A server's own wrapper would send the file past our counting.
        environ["wsgi.file_wrapper"] = FileWrapper

        started: list[Any] = []
        sizes: list[int] = []

        def checking_start_response(*args: Any, **kwargs: Any) -> Callable[[bytes], None]:
            if len(args) not in (2, 3):
                _wsgi(f"Invalid number of arguments: {len(args)}, expected 2 or 3.")
            if kwargs:
                _wsgi("'start_response' does not take keyword arguments.")
            status, headers, exc_info = (*args, None)[:3]
            started[:] = self.check_start_response(status, headers, exc_info)
            return GuardedWrite(start_response(status, headers, exc_info), sizes)

        body = self.app(environ, checking_start_response)
        self.check_iterator(body)
        return GuardedIterator(body, started, sizes)

    def check_environ(self, environ: WSGIEnvironment) -> None:
        """Look for keys that a server has to give."""
        if type(environ) is not dict:
            _wsgi("WSGI environment is not a standard Python dict.", 4)
        for key in _REQUIRED:
            if key not in environ:
                _wsgi(f"Required environment key {key!r} not found", 4)
        if environ.get("wsgi.version") != (1, 0):
            _wsgi("Environ is not a WSGI 1.0 environ.", 4)
        for key in ("SCRIPT_NAME", "PATH_INFO"):
            value = environ.get(key, "")
            if value and not value.startswith("/"):
                _wsgi(f"{key!r} does not start with a slash: {value!r}", 4)

    def check_start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any
    ) -> tuple[int, Headers]:
        """Look at the arguments of `start_response`; return status code and headers."""
        check_type("status", status, str)
        digits = status.split(None, 1)[0]
        if len(digits) != 3 or not digits.isdecimal():
            _wsgi("Status code must be three digits.", 4)
        if len(status) < 4 or status[3] != " ":
            _wsgi(
                f"Invalid value for status {status!r}. Valid status strings are three digits, a space and a"
                " status explanation.",
                4,
            )
        code = int(digits)
        if code < 100:
            _wsgi("Status code < 100 detected.", 4)

        if type(headers) is not list:
            _wsgi("Header list is not a list.", 4)
        for item in headers:
            if type(item) is not tuple or len(item) != 2:
                _wsgi("Header items must be 2-item tuples.", 4)
            name, value = item
            if type(name) is not str or type(value) is not str:
                _wsgi("Header keys and values must be strings.", 4)
            if name.lower() == "status":
                _wsgi("The status header is not supported due to conflicts with the CGI spec.", 4)
        if exc_info is not None and not isinstance(exc_info, tuple):
            _wsgi("Invalid value for exc_info.", 4)

        parsed = Headers([(name, value) for name, value in headers])
        self.check_headers(parsed)
        return code, parsed

    def check_headers(self, headers: Headers) -> None:
        """Look at the values of fields that are often wrong."""
        etag = headers.get("ETag")
        if etag is not None:
            if etag.startswith("w/"):
                _http("Weak etag indicator should be upper case.", 5)
            opaque = etag[2:] if etag[:2] in ("W/", "w/") else etag
            if not opaque[:1] == opaque[-1:] == '"':
                _http("Unquoted etag emitted.", 5)
        location = headers.get("Location")
        if location is not None and not urlsplit(location).netloc:
            _http("Absolute URLs required for location header.", 5)

    def check_iterator(self, app_iter: Iterable[bytes]) -> None:
        """Look at the kind of body."""
        if isinstance(app_iter, str):
            _wsgi(
                "The application returned a string. The response will send one character at a time to the"
                " client, which will kill performance. Return a list or iterable instead.",
                4,
            )


class InputStream:
    """`wsgi.input`, watched."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, *args: Any) -> bytes:
        """Read; how much should be said."""
        if not args:
            _wsgi(
                "WSGI does not guarantee an EOF marker on the input stream, thus making calls to"
                " 'wsgi.input.read()' unsafe. Conforming servers may never return from this call."
            )
        elif len(args) != 1:
            _wsgi("Too many parameters passed to 'wsgi.input.read()'.")
        return self._stream.read(*args)

    def readline(self, *args: Any) -> bytes:
        """Read a line."""
        if not args:
            _wsgi(
                "Calls to 'wsgi.input.readline()' without arguments are unsafe. Use 'wsgi.input.read()'"
                " instead."
            )
        elif len(args) == 1:
            _wsgi(
                "'wsgi.input.readline()' was called with a size hint. WSGI does not support this, although"
                " it's available on all major servers."
            )
        else:
            raise TypeError("Too many arguments passed to 'wsgi.input.readline()'.")
        return self._stream.readline(*args)

    def __iter__(self) -> Iterator[bytes]:
        try:
            return iter(self._stream)
        except TypeError:
            _wsgi("'wsgi.input' is not iterable.")
            return iter(())

    def close(self) -> None:
        """Close; only the server should."""
        _wsgi("The application closed the input stream!")
        self._stream.close()


class ErrorStream:
    """`wsgi.errors`, watched."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, s: str) -> None:
        """Write text."""
        check_type("wsgi.error.write()", s, str)
        self._stream.write(s)

    def flush(self) -> None:
        """Flush what was written."""
        self._stream.flush()

    def writelines(self, seq: Iterable[str]) -> None:
        """Write several texts."""
        for line in seq:
            self.write(line)

    def close(self) -> None:
        """Close; only the server should."""
        _wsgi("The application closed the error stream!")
        self._stream.close()


class GuardedWrite:
    """The function that `start_response` returns, watched."""

    def __init__(self, write: Callable[[bytes], object], chunks: list[int]) -> None:
        self._write = write
        self._chunks = chunks

    def __call__(self, s: bytes) -> None:
        """Write a piece of the body."""
        check_type("write()", s, bytes)
        self._write(s)
        self._chunks.append(len(s))


class GuardedIterator:
    """The body of a response, watched: its type, its length, its end."""

    def __init__(self, iterator: Iterable[bytes], headers_set: Any, chunks: list[int]) -> None:
        self.closed = False
        self.headers_set = headers_set
        self.chunks = chunks
        self._iterator = iterator
        self._next = iter(iterator).__next__

    def __iter__(self) -> GuardedIterator:
        return self

    def __next__(self) -> bytes:
        if self.closed:
            _wsgi("Iterated over closed 'app_iter'.")
        piece = self._next()
        if not self.headers_set:
            _wsgi("The application returned before it started the response.")
        check_type("application iterator items", piece, bytes)
        self.chunks.append(len(piece))
        return piece

    def close(self) -> None:
        """Close the body and compare it with the headers."""
        self.closed = True
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        if self.headers_set:
            self._compare(*self.headers_set)

    def _compare(self, code: int, headers: Headers) -> None:
        sent = sum(self.chunks)
        length = headers.get("Content-Length", type=int)
        if code == 304:
            for key, _ in headers:
                if key.lower() not in ("expires", "content-location") and is_entity_header(key):
                    _http(f"Entity header {key.lower()!r} found in 304 response.", 4)
            if sent:
                _http("304 responses must not have a body.", 4)
        elif 100 <= code < 200 or code == 204:
            if length != 0:
                _http(f"{code} responses must have an empty content length.", 4)
            if sent:
                _http(f"{code} responses must not have a body.", 4)
        elif length is not None and length != sent:
            _wsgi("Content-Length and the number of bytes sent to the client do not match.", 4)

    def __del__(self) -> None:
        if not self.closed:
            # Warnings may be errors, but a destructor has nobody to raise them to.
            with suppress(Exception):
                _wsgi("Iterator was garbage collected before it was closed.")


def _wsgi(message: str, stacklevel: int = 3) -> None:
    warn(message, WSGIWarning, stacklevel=stacklevel)


def _http(message: str, stacklevel: int) -> None:
    warn(message, HTTPWarning, stacklevel=stacklevel)
