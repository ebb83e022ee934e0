"""Errors that are answers: each HTTP error status as an exception that can render itself.

An exception carries what its response needs (description, extra headers) and turns into a response only
when asked. Raising one costs no more than raising any other exception: nothing is formatted until
`get_response`. The markup and the sentences in the default pages are those of Werkzeug, byte for byte,
since clients and tests see them.

Does not decide which page a client prefers (HTML or JSON): an application does that with an error handler.

Implements: werkzeug.exceptions (3.1); RFC 9110 §15 status codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from typing import Any, NoReturn

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .datastructures import WWWAuthenticate
    from .sansio.response import Response as SansIOResponse
    from .wrappers.request import Request
    from .wrappers.response import Response


class HTTPException(Exception):
    """The base of all HTTP errors; also a WSGI application that sends its own page.

    Args:
        description: Replaces the sentence of the page. Plain text is escaped, `Markup` is not.
        response: A finished response that is sent instead of the default page.
    """

    code: int | None = None
    description: str | None = None

    def __init__(self, description: str | None = None, response: SansIOResponse | None = None) -> None:
        super().__init__()
        if description is not None:
            self.description = description
        self.response = response

    @property
    def name(self) -> str:
        """The reason phrase that belongs to `code`."""
        from .http import HTTP_STATUS_CODES

        return HTTP_STATUS_CODES.get(self.code, "Unknown Error")  # type: ignore[arg-type]

    def get_description(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> str:
        """The description as a paragraph of HTML, line breaks kept."""
        from markupsafe import Markup, escape

        text = escape("" if self.description is None else self.description)
        text = text.replace("\n", Markup("<br>"))
        return f"<p>{text}</p>"

    def get_body(self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None) -> str:
        """The whole HTML page."""
        from markupsafe import escape

        title = escape(self.name)
        paragraph = self.get_description(environ)
        return (
            f"<!doctype html>\n<html lang=en>\n<title>{self.code} {title}</title>\n"
            f"<h1>{title}</h1>\n{paragraph}\n"
        )

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The header fields of the answer; subclasses append theirs."""
        return [("Content-Type", "text/html; charset=utf-8")]

    def get_response(
        self,
        environ: WSGIEnvironment | Request | None = None,
        scope: dict[str, Any] | None = None,
    ) -> Response:
        """A response for this error.

        Args:
            environ: The WSGI environ, or a request that has one; handed to `get_body` and `get_headers`.
            scope: An ASGI scope, handed on in the same way.

        Returns:
            The response given at construction if there is one, else a new one with the default page.
        """
        if self.response is not None:
            return self.response  # type: ignore[return-value]

        from .wrappers.response import Response

        if environ is not None and not isinstance(environ, dict):
            environ = environ.environ

        headers = self.get_headers(environ, scope)
        return Response(self.get_body(environ, scope), self.code, headers)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request with this error."""
        return self.get_response(environ)(environ, start_response)

    def _shown_code(self) -> str:
        return "???" if self.code is None else str(self.code)

    def __str__(self) -> str:
        return f"{self._shown_code()} {self.name}: {self.description}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} '{self._shown_code()}: {self.name}'>"


class BadRequest(HTTPException):
    """400: the request is malformed or makes no sense to the application."""

    code = 400
    description: str | None = "The browser (or proxy) sent a request that this server could not understand."


class BadRequestKeyError(BadRequest, KeyError):
    """400 for a key that the client should have sent; `except KeyError` catches it too.

    Args:
        arg: The missing key. Shown in the page only if `show_exception` is true.
    """

    _description: str | None = BadRequest.description
    #: Name the missing key in the page. For development only: it tells strangers what the code looks up.
    show_exception = False

    def __init__(self, arg: object | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        KeyError.__init__(self, *(() if arg is None else (arg,)))

    @property
    def description(self) -> str | None:
        """The sentence of the page, followed by the key if `show_exception` says so."""
        if not self.show_exception:
            return self._description
        return f"{self._description}\nKeyError: {KeyError.__str__(self)}"

    @description.setter
    def description(self, value: str | None) -> None:
        self._description = value


class ClientDisconnected(BadRequest):
    """The client went away in the middle of its request; nobody will read the answer."""


class SecurityError(BadRequest):
    """400 for a request that a security check refused, such as an untrusted host."""


class BadHost(BadRequest):
    """400 for a `Host` that is not a host name."""


class Unauthorized(HTTPException):
    """401: credentials are missing or wrong.

    Args:
        www_authenticate: One challenge or several, each sent as a `WWW-Authenticate` field of its own.
    """

    code = 401
    description = (
        "The server could not verify that you are authorized to access the URL requested. You either"
        " supplied the wrong credentials (e.g. a bad password), or your browser doesn't understand how to"
        " supply the credentials required."
    )

    def __init__(
        self,
        description: str | None = None,
        response: SansIOResponse | None = None,
        www_authenticate: WWWAuthenticate | Iterable[WWWAuthenticate] | None = None,
    ) -> None:
        super().__init__(description, response)
        if www_authenticate is not None:
            from .datastructures import WWWAuthenticate

            if isinstance(www_authenticate, WWWAuthenticate):
                www_authenticate = (www_authenticate,)
        self.www_authenticate = www_authenticate

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The usual fields and the challenges."""
        challenges = self.www_authenticate or ()
        return [*super().get_headers(environ, scope), *(("WWW-Authenticate", str(c)) for c in challenges)]


class Forbidden(HTTPException):
    """403: the client is known, but may not do this."""

    code = 403
    description = (
        "You don't have the permission to access the requested resource. It is either read-protected or"
        " not readable by the server."
    )


class NotFound(HTTPException):
    """404: there is nothing at this URL."""

    code = 404
    description = (
        "The requested URL was not found on the server. If you entered the URL manually please check your"
        " spelling and try again."
    )


class MethodNotAllowed(HTTPException):
    """405: the URL exists, but not for this method.

    Args:
        valid_methods: What the URL does answer; becomes the `Allow` field that RFC 9110 §15.5.6 asks for.
    """

    code = 405
    description = "The method is not allowed for the requested URL."

    def __init__(
        self,
        valid_methods: Iterable[str] | None = None,
        description: str | None = None,
        response: SansIOResponse | None = None,
    ) -> None:
        super().__init__(description, response)
        self.valid_methods = valid_methods

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The usual fields and `Allow`."""
        headers = super().get_headers(environ, scope)
        if self.valid_methods:
            headers.append(("Allow", ", ".join(self.valid_methods)))
        return headers


class NotAcceptable(HTTPException):
    """406: nothing that the server has fits the client's `Accept` fields."""

    code = 406
    description = (
        "The resource identified by the request is only capable of generating response entities which"
        " have content characteristics not acceptable according to the accept headers sent in the"
        " request."
    )


class RequestTimeout(HTTPException):
    """408: the client took too long to send its request."""

    code = 408
    description = (
        "The server closed the network connection because the browser didn't finish the request within"
        " the specified time."
    )


class Conflict(HTTPException):
    """409: the request clashes with the present state of the resource."""

    code = 409
    description = (
        "A conflict happened while processing the request. The resource might have been modified while"
        " the request was being processed."
    )


class Gone(HTTPException):
    """410: there was something at this URL, and it will not come back."""

    code = 410
    description = (
        "The requested URL is no longer available on this server and there is no forwarding address. If"
        " you followed a link from a foreign page, please contact the author of this page."
    )


class LengthRequired(HTTPException):
    """411: a body came without a length, and the server wants one."""

    code = 411
    description = "A request with this method requires a valid <code>Content-Length</code> header."


class PreconditionFailed(HTTPException):
    """412: an `If-Match`, `If-None-Match` or `If-Unmodified-Since` does not hold."""

    code = 412
    description = "The precondition on the request for the URL failed positive evaluation."


class RequestEntityTooLarge(HTTPException):
    """413: the body is larger than a limit of the server or the application."""

    code = 413
    description = "The data value transmitted exceeds the capacity limit."


class RequestURITooLarge(HTTPException):
    """414: the URL is longer than the server reads."""

    code = 414
    description = (
        "The length of the requested URL exceeds the capacity limit for this server. The request cannot"
        " be processed."
    )


class UnsupportedMediaType(HTTPException):
    """415: the body has a type that this URL does not take."""

    code = 415
    description = "The server does not support the media type transmitted in the request."


class RequestedRangeNotSatisfiable(HTTPException):
    """416: no byte of the requested range exists.

    Args:
        length: The size of the whole representation, sent as `Content-Range: <units> */<length>`.
        units: The unit of the range.
    """

    code = 416
    description = "The server cannot provide the requested range."

    def __init__(
        self,
        length: int | None = None,
        units: str = "bytes",
        description: str | None = None,
        response: SansIOResponse | None = None,
    ) -> None:
        super().__init__(description, response)
        self.length = length
        self.units = units

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The usual fields and, if the length is known, `Content-Range`."""
        headers = super().get_headers(environ, scope)
        if self.length is not None:
            headers.append(("Content-Range", f"{self.units} */{self.length}"))
        return headers


class ExpectationFailed(HTTPException):
    """417: the server cannot do what `Expect` demands."""

    code = 417
    description = "The server could not meet the requirements of the Expect header"


class ImATeapot(HTTPException):
    """418: coffee was asked of a teapot (RFC 2324)."""

    code = 418
    description = "This server is a teapot, not a coffee machine"


class MisdirectedRequest(HTTPException):
    """421: the request reached a server that cannot answer for this host."""

    code = 421
    description = "The server is not able to produce a response."


class UnprocessableEntity(HTTPException):
    """422: well-formed, but the content does not make sense."""

    code = 422
    description = "The request was well-formed but was unable to be followed due to semantic errors."


class Locked(HTTPException):
    """423: somebody holds a lock on the resource."""

    code = 423
    description = "The resource that is being accessed is locked."


class FailedDependency(HTTPException):
    """424: another action failed that this one needed."""

    code = 424
    description = (
        "The method could not be performed on the resource because the requested action depended on"
        " another action and that action failed."
    )


class PreconditionRequired(HTTPException):
    """428: the server wants a conditional request, so that no update gets lost."""

    code = 428
    description = 'This request is required to be conditional; try using "If-Match" or "If-Unmodified-Since".'


class _RetryAfter(HTTPException):
    """An error that may say when to come back.

    Args:
        retry_after: Seconds from now, or a point in time; becomes `Retry-After`.
    """

    def __init__(
        self,
        description: str | None = None,
        response: SansIOResponse | None = None,
        retry_after: datetime | int | None = None,
    ) -> None:
        super().__init__(description, response)
        self.retry_after = retry_after

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The usual fields and, if known, `Retry-After`."""
        headers = super().get_headers(environ, scope)
        if self.retry_after:
            from datetime import datetime

            if isinstance(self.retry_after, datetime):
                from .http import http_date

                headers.append(("Retry-After", http_date(self.retry_after)))
            else:
                headers.append(("Retry-After", str(self.retry_after)))
        return headers


class TooManyRequests(_RetryAfter):
    """429: the client sends requests faster than it may."""

    code = 429
    description = "This user has exceeded an allotted request count. Try again later."


class RequestHeaderFieldsTooLarge(HTTPException):
    """431: one header field, or all of them together, are too large."""

    code = 431
    description = "One or more header fields exceeds the maximum size."


class UnavailableForLegalReasons(HTTPException):
    """451: the law forbids the answer (RFC 7725)."""

    code = 451
    description = "Unavailable for legal reasons."


class InternalServerError(HTTPException):
    """500: the application failed.

    Args:
        original_exception: What went wrong, for error handlers; never shown to the client.
    """

    code = 500
    description = (
        "The server encountered an internal error and was unable to complete your request. Either the"
        " server is overloaded or there is an error in the application."
    )

    def __init__(
        self,
        description: str | None = None,
        response: SansIOResponse | None = None,
        original_exception: BaseException | None = None,
    ) -> None:
        super().__init__(description, response)
        self.original_exception = original_exception


class NotImplemented(HTTPException):
    """501: the server cannot do what the method asks."""

    code = 501
    description = "The server does not support the action requested by the browser."


class BadGateway(HTTPException):
    """502: a server behind this one gave an unusable answer."""

    code = 502
    description = "The proxy server received an invalid response from an upstream server."


class ServiceUnavailable(_RetryAfter):
    """503: overloaded or under maintenance, for now."""

    code = 503
    description = (
        "The server is temporarily unable to service your request due to maintenance downtime or capacity"
        " problems. Please try again later."
    )


class GatewayTimeout(HTTPException):
    """504: a server behind this one did not answer in time."""

    code = 504
    description = "The connection to an upstream server timed out."


class HTTPVersionNotSupported(HTTPException):
    """505: the server does not speak this version of HTTP."""

    code = 505
    description = "The server does not support the HTTP protocol version used in the request."


#: The exception for each status code. Where several share a code, the one that the others derive from.
default_exceptions: dict[int, type[HTTPException]] = {}

for _cls in list(globals().values()):
    if isinstance(_cls, type) and issubclass(_cls, HTTPException) and _cls.code is not None:
        default_exceptions.setdefault(_cls.code, _cls)
del _cls


class Aborter:
    """Raises the exception that belongs to a status code.

    Args:
        mapping: Status codes and their exceptions; `default_exceptions` if not given.
        extra: Entries that are added to the mapping.
    """

    def __init__(
        self,
        mapping: Mapping[int, type[HTTPException]] | None = None,
        extra: Mapping[int, type[HTTPException]] | None = None,
    ) -> None:
        self.mapping = dict(default_exceptions if mapping is None else mapping)
        if extra is not None:
            self.mapping.update(extra)

    def __call__(self, code: int | SansIOResponse, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise the exception for `code`, or one that wraps a finished response.

        Raises:
            HTTPException: Always, made from the remaining arguments.
            LookupError: If no exception is known for the code.
        """
        if not isinstance(code, int):
            from .sansio.response import Response

            if isinstance(code, Response):
                raise HTTPException(response=code)

        exception = self.mapping.get(code)
        if exception is None:
            raise LookupError(f"no exception for {code!r}")
        raise exception(*args, **kwargs)


_aborter = Aborter()


def abort(status: int | SansIOResponse, *args: Any, **kwargs: Any) -> NoReturn:
    """Stop here and answer with an error.

    Args:
        status: A status code, or a finished response to send as it is.
        args: Handed to the exception's constructor, as are `kwargs`.

    Raises:
        HTTPException: Always, unless the code is unknown.
        LookupError: If no exception is known for the code.
    """
    _aborter(status, *args, **kwargs)
