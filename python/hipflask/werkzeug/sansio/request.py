"""The parts of a request that need no I/O: method, URL and headers.

The attributes that every request reads are native (``hipflask._core.RequestBase``); here are the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hipflask._core import RequestBase

from ..datastructures import ImmutableList, ImmutableMultiDict
from ..user_agent import UserAgent
from ..utils import cached_property, header_property

if TYPE_CHECKING:
    from datetime import datetime

    from ..datastructures import (
        Accept,
        Authorization,
        CharsetAccept,
        ETags,
        Headers,
        HeaderSet,
        IfRange,
        LanguageAccept,
        MIMEAccept,
        MultiDict,
        Range,
        RequestCacheControl,
    )


def _parse_date(value: str | None) -> datetime | None:
    from ..http import parse_date

    return parse_date(value)


def _parse_set_header(value: str) -> HeaderSet:
    from ..http import parse_set_header

    return parse_set_header(value)


class Request(RequestBase):
    """A request without its body, for those who implement a server interface.

    Args:
        method: The method, in any case.
        scheme: The URL's scheme.
        server: Name and port of the server, ``(path, None)`` for a Unix socket, None if unknown.
        root_path: Where the application is mounted.
        path: The path below ``root_path``.
        query_string: What follows the ``?``.
        headers: The header fields.
        remote_addr: The client's address.

    Implements: werkzeug.sansio.request.Request (3.1).
    """

    parameter_storage_class: type[MultiDict[str, Any]] = ImmutableMultiDict
    """Class of ``args``, ``form`` and ``files``."""

    dict_storage_class: type[MultiDict[str, Any]] = ImmutableMultiDict
    """Class of ``cookies``."""

    list_storage_class: type[list[Any]] = ImmutableList
    """Class of ``access_route``."""

    user_agent_class: type[UserAgent] = UserAgent
    """Class of ``user_agent``; a subclass may parse the header."""

    trusted_hosts: list[str] | None = None
    """Hosts to accept, None for all; a leading dot stands for all subdomains."""

    def __init__(
        self,
        method: str,
        scheme: str,
        server: tuple[str, int | None] | None,
        root_path: str,
        path: str,
        query_string: bytes,
        headers: Headers,
        remote_addr: str | None,
    ) -> None:
        self.method = method.upper()
        self.scheme = scheme
        self.server = server
        self.root_path = root_path.rstrip("/")
        self.path = "/" + path.lstrip("/")
        self.query_string = query_string
        self.headers = headers
        self.remote_addr = remote_addr

    def __repr__(self) -> str:
        try:
            url = self.url
        except Exception as error:
            url = f"(invalid URL: {error})"
        return f"<{type(self).__name__} {url!r} [{self.method}]>"

    @cached_property
    def access_route(self) -> list[str]:
        """The addresses from the client's to the last proxy's.

        On a server with `trusted_proxies`, those that are certain; else as ``X-Forwarded-For`` claims them.
        """
        if (route := self._trusted_route) is not None:
            return self.list_storage_class(route)
        forwarded = self.headers.get("X-Forwarded-For")
        if forwarded is not None:
            from ..http import parse_list_header

            return self.list_storage_class(parse_list_header(forwarded))
        return self.list_storage_class([] if self.remote_addr is None else [self.remote_addr])

    @cached_property
    def _parsed_content_type(self) -> tuple[str, dict[str, str]]:
        from ..http import parse_options_header

        return parse_options_header(self.headers.get("Content-Type", ""))

    @property
    def mimetype_params(self) -> dict[str, str]:
        """The parameters of the body's media type."""
        return self._parsed_content_type[1]

    content_encoding = header_property[str](
        "Content-Encoding", doc="The codings applied to the body.", read_only=True
    )
    content_md5 = header_property[str]("Content-MD5", doc="A digest of the body.", read_only=True)
    referrer = header_property[str]("Referer", doc="The page that led here.", read_only=True)
    date = header_property["datetime | None"](
        "Date", None, _parse_date, doc="When the message was made.", read_only=True
    )
    max_forwards = header_property[int](
        "Max-Forwards", None, int, doc="How many more proxies a TRACE or OPTIONS may pass.", read_only=True
    )
    origin = header_property[str](
        "Origin", doc="The origin of the page that sends the request.", read_only=True
    )
    access_control_request_headers = header_property["HeaderSet"](
        "Access-Control-Request-Headers",
        load_func=_parse_set_header,
        doc="The header fields that a cross-origin request would send (in a preflight).",
        read_only=True,
    )
    access_control_request_method = header_property[str](
        "Access-Control-Request-Method",
        doc="The method that a cross-origin request would use (in a preflight).",
        read_only=True,
    )

    @cached_property
    def pragma(self) -> HeaderSet:
        """Directives for old caches."""
        return _parse_set_header(self.headers.get("Pragma", ""))

    @cached_property
    def accept_mimetypes(self) -> MIMEAccept:
        """The media types that the client prefers."""
        from ..datastructures import MIMEAccept
        from ..http import parse_accept_header

        return parse_accept_header(self.headers.get("Accept"), MIMEAccept)

    @cached_property
    def accept_charsets(self) -> CharsetAccept:
        """The charsets that the client prefers."""
        from ..datastructures import CharsetAccept
        from ..http import parse_accept_header

        return parse_accept_header(self.headers.get("Accept-Charset"), CharsetAccept)

    @cached_property
    def accept_encodings(self) -> Accept:
        """The content codings that the client prefers."""
        from ..http import parse_accept_header

        return parse_accept_header(self.headers.get("Accept-Encoding"))

    @cached_property
    def accept_languages(self) -> LanguageAccept:
        """The languages that the client prefers."""
        from ..datastructures import LanguageAccept
        from ..http import parse_accept_header

        return parse_accept_header(self.headers.get("Accept-Language"), LanguageAccept)

    @cached_property
    def cache_control(self) -> RequestCacheControl:
        """What the client tells caches."""
        from ..datastructures import RequestCacheControl
        from ..http import parse_cache_control_header

        return parse_cache_control_header(self.headers.get("Cache-Control"), None, RequestCacheControl)

    @cached_property
    def if_match(self) -> ETags:
        """The tags of which one has to match."""
        from ..http import parse_etags

        return parse_etags(self.headers.get("If-Match"))

    @cached_property
    def if_none_match(self) -> ETags:
        """The tags that the client has already."""
        from ..http import parse_etags

        return parse_etags(self.headers.get("If-None-Match"))

    @cached_property
    def if_modified_since(self) -> datetime | None:
        """The age of what the client has already."""
        return _parse_date(self.headers.get("If-Modified-Since"))

    @cached_property
    def if_unmodified_since(self) -> datetime | None:
        """The time since which nothing may have changed."""
        return _parse_date(self.headers.get("If-Unmodified-Since"))

    @cached_property
    def if_range(self) -> IfRange:
        """The tag or date for which ``range`` is meant."""
        from ..http import parse_if_range_header

        return parse_if_range_header(self.headers.get("If-Range"))

    @cached_property
    def range(self) -> Range | None:
        """The part of the resource that is wanted."""
        from ..http import parse_range_header

        return parse_range_header(self.headers.get("Range"))

    @cached_property
    def user_agent(self) -> UserAgent:
        """The client's program, as it calls itself."""
        return self.user_agent_class(self.headers.get("User-Agent", ""))

    @cached_property
    def authorization(self) -> Authorization | None:
        """The credentials sent, or None."""
        from ..datastructures import Authorization

        return Authorization.from_header(self.headers.get("Authorization"))
