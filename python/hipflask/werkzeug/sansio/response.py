"""The parts of a response that need no I/O: status and headers.

The constructor and the status are native (``hipflask._core.ResponseBase``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hipflask._core import ResponseBase

from ..utils import get_content_type, header_property

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from http import HTTPStatus

    from ..datastructures import (
        ContentRange,
        ContentSecurityPolicy,
        Headers,
        HeaderSet,
        ResponseCacheControl,
        WWWAuthenticate,
    )
    from ..http import COEP, COOP  # noqa: F401


def _http(name: str) -> Callable[..., Any]:
    """A function of :mod:`hipflask.werkzeug.http`, imported when it is first called."""

    def call(*args: Any) -> Any:
        from .. import http

        return getattr(http, name)(*args)

    return call


def _set_property(name: str, doc: str) -> property:
    """A property that shows a list-valued field as a set; changes of the set are written back."""

    def read(self: Response) -> HeaderSet:
        from ..http import parse_set_header

        def write_back(values: HeaderSet) -> None:
            if values:
                self.headers[name] = values.to_header()
            else:
                self.headers.pop(name, None)

        return parse_set_header(self.headers.get(name), write_back)

    def write(self: Response, value: str | dict[str, str | int] | Iterable[str] | None) -> None:
        if not value:
            del self.headers[name]
        elif isinstance(value, str):
            self.headers[name] = value
        else:
            from ..http import dump_header

            self.headers[name] = dump_header(value)

    return property(read, write, doc=doc)


def _csp_property(name: str, doc: str) -> property:
    """A property that shows a content security policy; changes of it are written back."""

    def write(self: Response, value: ContentSecurityPolicy | str | None) -> None:
        if not value:
            del self.headers[name]
        else:
            self.headers[name] = value if isinstance(value, str) else value.to_header()

    def read(self: Response) -> ContentSecurityPolicy:
        from ..datastructures import ContentSecurityPolicy
        from ..http import parse_csp_header

        def write_back(policy: ContentSecurityPolicy) -> None:
            write(self, policy)

        policy = parse_csp_header(self.headers.get(name), write_back)
        return ContentSecurityPolicy(None, on_update=write_back) if policy is None else policy

    return property(read, write, doc=doc)


class _PolicyProperty(header_property["COOP | COEP"]):
    """A cross-origin policy, ``unsafe-none`` where the field is missing or unknown."""

    def __init__(self, name: str, policy: str, doc: str) -> None:
        super().__init__(name, doc=doc)
        self.policy = policy

    def _values(self) -> Any:
        from .. import http

        return getattr(http, self.policy)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        values = self._values()
        try:
            return values(self.lookup(instance).get(self.name, "unsafe-none"))
        except ValueError:
            return values.UNSAFE_NONE

    def __set__(self, instance: Any, value: Any) -> None:
        self.lookup(instance)[self.name] = value.value


class Response(ResponseBase):
    """A response without its body, for those who implement a server interface.

    Args:
        status: The code, or code and phrase.
        headers: The header fields.
        mimetype: The media type; a charset is added to text.
        content_type: The media type with its parameters, as it is.

    Implements: werkzeug.sansio.response.Response (3.1).
    """

    default_status = 200
    """Status when none is given."""

    default_mimetype: str | None = "text/plain"
    """Media type when none is given."""

    max_cookie_size = 4093
    """Longest ``Set-Cookie`` value that goes without a warning; 0 for any."""

    def __init__(
        self,
        status: int | str | HTTPStatus | None = None,
        headers: Headers
        | Mapping[str, str | Iterable[str]]
        | Iterable[tuple[str, str | Iterable[str]]]
        | None = None,
        mimetype: str | None = None,
        content_type: str | None = None,
    ) -> None:
        self._init_head(status, headers, mimetype, content_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status}]>"

    def set_cookie(
        self,
        key: str,
        value: str = "",
        max_age: timedelta | int | None = None,
        expires: str | datetime | int | float | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = None,
        partitioned: bool = False,
    ) -> None:
        """Set a cookie; warns if it is longer than :attr:`max_cookie_size`.

        Args:
            key: Its name.
            value: Its value.
            max_age: Seconds that it lives; None for as long as the browser runs.
            expires: When it ends: a date, a timestamp or the header's text.
            path: Path below which it is sent.
            domain: Domain below which it is sent; None for this host alone.
            secure: Send it over HTTPS only.
            httponly: Hide it from scripts.
            samesite: ``Strict``, ``Lax`` or ``None``.
            partitioned: Keep it apart for each embedding site.
        """
        from ..http import dump_cookie

        cookie = dump_cookie(
            key,
            value=value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            max_size=self.max_cookie_size,
            samesite=samesite,
            partitioned=partitioned,
        )
        self.headers.add("Set-Cookie", cookie)

    def delete_cookie(
        self,
        key: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = None,
        partitioned: bool = False,
    ) -> None:
        """Tell the client to forget a cookie; path, domain and flags have to be those it was set with."""
        self.set_cookie(
            key,
            expires=0,
            max_age=0,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )

    @property
    def is_json(self) -> bool:
        """Whether the media type is a JSON type."""
        kind = self.mimetype or ""
        return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))

    @property
    def mimetype(self) -> str | None:
        """The media type without parameters."""
        content_type = self.headers.get("content-type")
        return content_type.split(";", 1)[0].strip() if content_type else None

    @mimetype.setter
    def mimetype(self, value: str) -> None:
        self.headers["Content-Type"] = get_content_type(value, "utf-8")

    @property
    def mimetype_params(self) -> dict[str, str]:
        """The media type's parameters; changes are written back."""
        from ..datastructures import CallbackDict
        from ..http import dump_options_header, parse_options_header

        def write_back(params: CallbackDict[str, str]) -> None:
            self.headers["Content-Type"] = dump_options_header(self.mimetype, params)

        params = parse_options_header(self.headers.get("content-type", ""))[1]
        return CallbackDict(params, write_back)

    location = header_property[str]("Location", doc="Where to go, or what was made.")
    age = header_property["timedelta | None"](
        "Age", None, _http("parse_age"), _http("dump_age"), doc="How long a cache has had the response."
    )
    content_type = header_property[str]("Content-Type", doc="The media type with its parameters.")
    content_length = header_property[int](
        "Content-Length", None, int, str, doc="The length of the body in bytes."
    )
    content_location = header_property[str]("Content-Location", doc="The URL of just this representation.")
    content_encoding = header_property[str]("Content-Encoding", doc="The codings applied to the body.")
    content_md5 = header_property[str]("Content-MD5", doc="A digest of the body.")
    date = header_property["datetime | None"](
        "Date", None, _http("parse_date"), _http("http_date"), doc="When the response was made."
    )
    expires = header_property["datetime | None"](
        "Expires", None, _http("parse_date"), _http("http_date"), doc="When the response becomes stale."
    )
    last_modified = header_property["datetime | None"](
        "Last-Modified", None, _http("parse_date"), _http("http_date"), doc="When the resource last changed."
    )

    @property
    def retry_after(self) -> datetime | None:
        """When to ask again; may be set to a date, seconds or the header's text."""
        value = self.headers.get("retry-after")
        if value is None:
            return None
        try:
            seconds = int(value)
        except ValueError:
            from ..http import parse_date

            return parse_date(value)
        from datetime import datetime, timedelta, timezone

        return datetime.now(timezone.utc) + timedelta(seconds=seconds)

    @retry_after.setter
    def retry_after(self, value: datetime | int | str | None) -> None:
        if value is None:
            self.headers.pop("retry-after", None)
            return
        if not isinstance(value, (int, str)):
            from ..http import http_date

            value = http_date(value)
        self.headers["Retry-After"] = str(value)

    vary = _set_property("Vary", doc="The request fields that the response depends on.")
    content_language = _set_property("Content-Language", doc="The languages of the audience.")
    allow = _set_property("Allow", doc="The methods that the resource supports.")

    @property
    def cache_control(self) -> ResponseCacheControl:
        """What caches may do; changes are written back."""
        from ..datastructures import ResponseCacheControl
        from ..http import parse_cache_control_header

        def write_back(control: Any) -> None:
            if control:
                self.headers["Cache-Control"] = control.to_header()
            else:
                self.headers.pop("cache-control", None)

        return parse_cache_control_header(self.headers.get("cache-control"), write_back, ResponseCacheControl)

    def set_etag(self, etag: str, weak: bool = False) -> None:
        """Set the response's tag.

        Args:
            etag: The tag, unquoted.
            weak: Whether equal tags mean equivalent rather than identical bodies.
        """
        from ..http import quote_etag

        self.headers["ETag"] = quote_etag(etag, weak)

    def get_etag(self) -> tuple[str, bool] | tuple[None, None]:
        """The response's tag and whether it is weak; ``(None, None)`` if there is none."""
        from ..http import unquote_etag

        return unquote_etag(self.headers.get("ETag"))

    accept_ranges = header_property[str]("Accept-Ranges", doc="The unit in which parts may be asked for.")

    @property
    def content_range(self) -> ContentRange:
        """Which part of the resource the body is; changes are written back."""
        from ..datastructures import ContentRange
        from ..http import parse_content_range_header

        def write_back(part: ContentRange) -> None:
            self.content_range = part

        part = parse_content_range_header(self.headers.get("content-range"), write_back)
        return ContentRange(None, None, None, on_update=write_back) if part is None else part

    @content_range.setter
    def content_range(self, value: ContentRange | str | None) -> None:
        if not value:
            del self.headers["content-range"]
        else:
            self.headers["Content-Range"] = value if isinstance(value, str) else value.to_header()

    @property
    def www_authenticate(self) -> WWWAuthenticate:
        """How to authenticate; changes are written back. May be set to a list, for several schemes."""
        from ..datastructures import WWWAuthenticate

        challenge = WWWAuthenticate.from_header(self.headers.get("WWW-Authenticate"))
        return self._written_back(WWWAuthenticate("basic") if challenge is None else challenge)

    @www_authenticate.setter
    def www_authenticate(self, value: WWWAuthenticate | list[WWWAuthenticate] | None) -> None:
        if not value:
            del self.www_authenticate
        elif isinstance(value, list):
            self.headers.setlist("WWW-Authenticate", [challenge.to_header() for challenge in value])
        else:
            self.headers.set("WWW-Authenticate", value.to_header())
            self._written_back(value)

    @www_authenticate.deleter
    def www_authenticate(self) -> None:
        self.headers.pop("WWW-Authenticate", None)

    def _written_back(self, challenge: WWWAuthenticate) -> WWWAuthenticate:
        def write_back(value: WWWAuthenticate) -> None:
            self.www_authenticate = value

        challenge._on_update = write_back
        return challenge

    content_security_policy = _csp_property(
        "Content-Security-Policy", doc="What the page may load; changes are written back."
    )
    content_security_policy_report_only = _csp_property(
        "Content-Security-Policy-Report-Only",
        doc="What the page should load, for reports only; changes are written back.",
    )

    @property
    def access_control_allow_credentials(self) -> bool:
        """Whether a cross-origin page may send credentials."""
        return "Access-Control-Allow-Credentials" in self.headers

    @access_control_allow_credentials.setter
    def access_control_allow_credentials(self, value: bool | None) -> None:
        if value is True:
            self.headers["Access-Control-Allow-Credentials"] = "true"
        else:
            self.headers.pop("Access-Control-Allow-Credentials", None)

    access_control_allow_headers = header_property["HeaderSet"](
        "Access-Control-Allow-Headers",
        load_func=_http("parse_set_header"),
        dump_func=_http("dump_header"),
        doc="The header fields that a cross-origin page may send.",
    )
    access_control_allow_methods = header_property["HeaderSet"](
        "Access-Control-Allow-Methods",
        load_func=_http("parse_set_header"),
        dump_func=_http("dump_header"),
        doc="The methods that a cross-origin page may use.",
    )
    access_control_allow_origin = header_property[str](
        "Access-Control-Allow-Origin", doc="The origin that may read the response, or ``*``."
    )
    access_control_expose_headers = header_property["HeaderSet"](
        "Access-Control-Expose-Headers",
        load_func=_http("parse_set_header"),
        dump_func=_http("dump_header"),
        doc="The header fields that a cross-origin page may read.",
    )
    access_control_max_age = header_property[int](
        "Access-Control-Max-Age",
        load_func=int,
        dump_func=str,
        doc="Seconds that the answer to a preflight may be remembered.",
    )

    cross_origin_opener_policy = _PolicyProperty(
        "Cross-Origin-Opener-Policy", "COOP", doc="Whether the page shares its group with those it opens."
    )
    cross_origin_embedder_policy = _PolicyProperty(
        "Cross-Origin-Embedder-Policy", "COEP", doc="Whether the page may embed what has not agreed to it."
    )
