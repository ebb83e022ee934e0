"""The response object of WSGI applications.

Constructor, status, data and outgoing headers are native (``hipflask._core.ResponseBase``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hipflask._core import ResponseBase

from ..sansio.response import Response as _SansIOResponse
from ..utils import cached_property

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from http import HTTPStatus
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Self

    from ..datastructures import Headers
    from .request import Request
    from .trailers import ResponseTrailers


# Where a response's own attributes are.
_attributes: Any = vars(ResponseBase)["__dict__"]


class Response(_SansIOResponse):
    """A response with its body; also a WSGI application that sends it.

    Args:
        response: The body: text, bytes, or an iterable of either.
        status: The code, or code and phrase.
        headers: The header fields.
        mimetype: The media type; a charset is added to text.
        content_type: The media type with its parameters, as it is.
        direct_passthrough: Hand the iterable to the server as it is: for what
            :func:`~hipflask.werkzeug.wsgi.wrap_file` makes.

    Implements: werkzeug.wrappers.Response (3.1).
    """

    implicit_sequence_conversion = True
    """Whether reading the body of a stream may turn it into a list."""

    autocorrect_location_header = False
    """Whether ``Location`` becomes absolute when it goes out."""

    automatically_set_content_length = True
    """Whether ``Content-Length`` is set where the length is known."""

    json_module: Any = json
    """What ``get_json`` calls ``loads`` of."""

    if not TYPE_CHECKING:

        @property
        def __dict__(self) -> dict[str, Any]:
            """The attributes, those that are kept natively too: ``vars(response)`` shows them.

            One response takes the state of another by ``self.__dict__ = other.__dict__``.
            """
            attributes = _attributes.__get__(self)
            attributes.update(self._native_state())
            return attributes

        @__dict__.setter
        def __dict__(self, attributes: dict[str, Any]) -> None:
            _attributes.__set__(self, attributes)
            self.__setstate__({name: attributes[name] for name in self._native_state() if name in attributes})

    if TYPE_CHECKING:

        def __init__(
            self,
            response: Iterable[bytes] | bytes | Iterable[str] | str | None = None,
            status: int | str | HTTPStatus | None = None,
            headers: Headers
            | Mapping[str, str | Iterable[str]]
            | Iterable[tuple[str, str | Iterable[str]]]
            | None = None,
            mimetype: str | None = None,
            content_type: str | None = None,
            direct_passthrough: bool = False,
        ) -> None: ...
    else:
        # The native constructor as it is: a Python one would cost as much again.
        __init__ = ResponseBase.__init__

    @property
    def trailers(self) -> Headers:
        """Fields that are sent behind the body, as far as they are known; may be filled until it has ended.

        They reach clients that take some: all of HTTP/2, and those of HTTP/1.1 that say ``TE: trailers``.
        """
        return self._own_trailers().fields

    @trailers.setter
    def trailers(self, fields: Headers | Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        from ..datastructures import Headers

        self._own_trailers().fields = fields if isinstance(fields, Headers) else Headers(fields)

    def call_for_trailers(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Call a function for further trailers once the body's last piece has been made.

        Args:
            func: Called without arguments and outside of the request's context; returns headers, a mapping or
                pairs, or None. What it raises breaks the response off.

        Returns:
            The function: this is a decorator, too.
        """
        self._own_trailers().functions.append(func)
        return func

    def _own_trailers(self) -> ResponseTrailers:
        trailers: ResponseTrailers | None = self._trailers
        if trailers is None:
            from .trailers import ResponseTrailers

            trailers = self._trailers = ResponseTrailers()
        return trailers

    def __repr__(self) -> str:
        if self.is_sequence:
            body = f"{sum(map(len, self.iter_encoded()))} bytes"
        else:
            body = "streamed" if self.is_streamed else "likely-streamed"
        return f"<{type(self).__name__} {body} [{self.status}]>"

    @classmethod
    def force_type(cls, response: Any, environ: WSGIEnvironment | None = None) -> Self:
        """Make a response, or what a WSGI application answers, an instance of this class.

        Args:
            response: A response, which is changed in place, or a WSGI application, which is run.
            environ: The environ to run it with.

        Raises:
            TypeError: If it is an application and there is no environ.
        """
        if not isinstance(response, Response):
            if environ is None:
                raise TypeError("cannot convert WSGI application into response objects without an environ")
            from ..test import run_wsgi_app

            response = Response(*run_wsgi_app(response, environ))
        response.__class__ = cls
        made: Self = response
        return made

    @classmethod
    def from_app(cls, app: WSGIApplication, environ: WSGIEnvironment, buffered: bool = False) -> Self:
        """Run a WSGI application and make a response of its answer.

        Args:
            app: The application.
            environ: The environ to run it with.
            buffered: Read the whole answer now.
        """
        from ..test import run_wsgi_app

        return cls(*run_wsgi_app(app, environ, buffered))

    @property
    def data(self) -> Any:
        """The whole body as bytes; see ``get_data`` and ``set_data``."""
        return self.get_data()

    @data.setter
    def data(self, value: bytes | str) -> None:
        self.set_data(value)

    def calculate_content_length(self) -> int | None:
        """The length of the body; None if it may not be read into memory."""
        try:
            self._ensure_sequence()
        except RuntimeError:
            return None
        return sum(map(len, self.iter_encoded()))

    def _ensure_sequence(self, mutable: bool = False) -> None:
        if self.is_sequence:
            if mutable and not isinstance(self.response, list):
                self.response = list(self.response)
            return
        if self.direct_passthrough:
            raise RuntimeError(
                "The response is in direct passthrough mode: its body cannot be read into a sequence."
            )
        if not self.implicit_sequence_conversion:
            raise RuntimeError(
                "The response needs its body as a sequence, and implicit conversion is off:"
                " call make_sequence()."
            )
        self.make_sequence()

    def make_sequence(self) -> None:
        """Read the body into a list, if it is not a sequence."""
        if not self.is_sequence:
            close = getattr(self.response, "close", None)
            self.response = list(self.iter_encoded())
            if close is not None:
                self.call_on_close(close)

    def iter_encoded(self) -> Iterator[bytes]:
        """Iterate over the body, text encoded as UTF-8."""
        return (piece.encode() if isinstance(piece, str) else piece for piece in self.response)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def freeze(self) -> None:
        """Read the body into a list, set its length and add a tag: then the response can be stored."""
        pieces = list(self.iter_encoded())
        self.response = pieces
        self.headers["Content-Length"] = str(sum(map(len, pieces)))
        self.add_etag()

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        """The body as it goes out: nothing for HEAD and for statuses without a body."""
        # A relative name would be resolved anew for each response, in Python.
        from hipflask.werkzeug.wsgi import ClosingIterator

        if not _has_body(environ, self):
            return ClosingIterator((), self.close)
        if self.direct_passthrough:
            body: Iterable[bytes] = self.response
            return body
        return ClosingIterator(self.iter_encoded(), self.close)

    def get_wsgi_response(
        self, environ: WSGIEnvironment
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Body, status and header fields as WSGI wants them for a request."""
        headers = self.get_wsgi_headers(environ)
        return self.get_app_iter(environ), self.status, headers.to_wsgi_list()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request with this response."""
        body, status, headers = self.get_wsgi_response(environ)
        trailers = self._trailers
        if trailers is not None and "hipflask.send_trailers" in environ and _has_body(environ, self):
            names = trailers.names()
            if names and not any(name.lower() == "trailer" for name, _ in headers):
                headers.append(("Trailer", names))
            environ["hipflask.send_trailers"](trailers)
        start_response(status, headers)
        return body

    @property
    def json(self) -> Any:
        """The body as JSON, or None if the media type is not JSON."""
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False) -> Any:
        """Parse the body as JSON, which tests want.

        Args:
            force: Parse whatever the media type is.
            silent: Return None instead of failing.

        Returns:
            None if the media type is not JSON.
        """
        if not (force or self.is_json):
            return None
        try:
            return self.json_module.loads(self.get_data())
        except ValueError:
            if not silent:
                raise
            return None

    @cached_property
    def stream(self) -> ResponseStream:
        """A file whose writes are appended to the body."""
        return ResponseStream(self)

    def make_conditional(
        self,
        request_or_environ: WSGIEnvironment | Request,
        accept_ranges: bool | str = False,
        complete_length: int | None = None,
    ) -> Self:
        """Answer 304, 412 or 206 where the request's conditions and range allow it.

        Does nothing unless the method is GET or HEAD. The body is dropped when the response goes out.

        Args:
            request_or_environ: The request.
            accept_ranges: Whether parts may be asked for; or the unit, if it is not bytes.
            complete_length: Length of the whole body, needed for ranges.

        Returns:
            The response itself.

        Raises:
            RequestedRangeNotSatisfiable: If the range asked for does not exist.

        Implements: RFC 9110 §13 conditional requests, §14 ranges.
        """
        environ: WSGIEnvironment
        environ = getattr(request_or_environ, "environ", request_or_environ)  # type: ignore[arg-type]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self
        from ..http import http_date, is_resource_modified, parse_etags

        headers = self.headers
        if "date" not in headers:
            headers["Date"] = http_date()
        if not self._process_range_request(
            environ, complete_length, accept_ranges
        ) and not is_resource_modified(environ, headers.get("etag"), None, headers.get("last-modified")):
            self.status_code = 412 if parse_etags(environ.get("HTTP_IF_MATCH")) else 304
        if self.automatically_set_content_length and "content-length" not in headers:
            length = self.calculate_content_length()
            if length is not None:
                headers["Content-Length"] = str(length)
        return self

    def _is_range_request_processable(self, environ: WSGIEnvironment) -> bool:
        if "HTTP_RANGE" not in environ:
            return False
        if "HTTP_IF_RANGE" not in environ:
            return True
        from ..http import is_resource_modified

        headers = self.headers
        return not is_resource_modified(
            environ, headers.get("etag"), None, headers.get("last-modified"), ignore_if_range=False
        )

    def _process_range_request(
        self, environ: WSGIEnvironment, complete_length: int | None, accept_ranges: bool | str
    ) -> bool:
        if not accept_ranges or not complete_length or not self._is_range_request_processable(environ):
            return False
        from ..exceptions import RequestedRangeNotSatisfiable
        from ..http import parse_range_header

        wanted = parse_range_header(environ.get("HTTP_RANGE"))
        part = None if wanted is None else wanted.range_for_length(complete_length)
        content_range = None if wanted is None else wanted.to_content_range_header(complete_length)
        if part is None or content_range is None:
            raise RequestedRangeNotSatisfiable(complete_length)
        start, stop = part
        self.headers["Content-Length"] = str(stop - start)
        self.headers["Accept-Ranges"] = "bytes" if accept_ranges is True else accept_ranges
        self.content_range = content_range
        self.status_code = 206
        self._wrap_range_response(start, stop - start)
        return True

    def _wrap_range_response(self, start: int, length: int) -> None:
        if self.status_code == 206:
            from ..wsgi import _RangeWrapper

            self.response = _RangeWrapper(self.response, start, length)

    def add_etag(self, overwrite: bool = False, weak: bool = False) -> None:
        """Set a tag made of the body's SHA-1.

        Args:
            overwrite: Replace a tag that is there.
            weak: Whether equal tags mean equivalent rather than identical bodies.
        """
        if overwrite or "etag" not in self.headers:
            from ..http import generate_etag

            self.set_etag(generate_etag(self.get_data()), weak)


def _has_body(environ: WSGIEnvironment, response: Response) -> bool:
    """Tell whether a response to this request has a body at all."""
    status = response.status_code
    return environ["REQUEST_METHOD"] != "HEAD" and not 100 <= status < 200 and status not in (204, 304)


class ResponseStream:
    """A file that appends to a response's body; see ``Response.stream``."""

    mode = "wb+"

    def __init__(self, response: Response) -> None:
        self.response = response
        self.closed = False

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def write(self, value: bytes) -> int:
        """Append to the body."""
        self._check_open()
        self.response._ensure_sequence(mutable=True)
        self.response.response.append(value)
        self.response.headers.pop("Content-Length", None)
        return len(value)

    def writelines(self, seq: Iterable[bytes]) -> None:
        """Append several pieces."""
        for item in seq:
            self.write(item)

    def close(self) -> None:
        """Refuse further writes."""
        self.closed = True

    def flush(self) -> None:
        """Do nothing, if the stream is open."""
        self._check_open()

    def isatty(self) -> bool:
        """False."""
        self._check_open()
        return False

    def tell(self) -> int:
        """The length of the body."""
        self.response._ensure_sequence()
        return sum(map(len, self.response.response))

    @property
    def encoding(self) -> str:
        """How text is encoded."""
        return "utf-8"
