"""Header fields: parsing them into objects and writing them from objects.

What nearly every request needs is native; dates, conditions and ranges are here. Nothing that costs time to
import is imported before it is used.

Implements: werkzeug.http (3.1); RFC 9110, RFC 6265, RFC 8187.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from hipflask import _core
from hipflask._core import dump_cookie as dump_cookie
from hipflask._core import dump_options_header as dump_options_header
from hipflask._core import parse_dict_header as parse_dict_header
from hipflask._core import parse_list_header as parse_list_header
from hipflask._core import parse_options_header as parse_options_header
from hipflask._core import quote_header_value as quote_header_value
from hipflask._core import unquote_header_value as unquote_header_value

from ._internal import _dt_as_utc, _plain_int

if TYPE_CHECKING:
    from datetime import date, datetime, timedelta
    from time import struct_time

    from . import datastructures as ds
    from .datastructures.cache_control import _CacheControl

    AnyAccept = TypeVar("AnyAccept", bound=ds.Accept)
    AnyCacheControl = TypeVar("AnyCacheControl", bound=_CacheControl)
    AnyPolicy = TypeVar("AnyPolicy", bound=ds.ContentSecurityPolicy)
    AnyDict = TypeVar("AnyDict", bound=ds.MultiDict[str, str])

_entity_headers = frozenset(
    [
        "allow",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-md5",
        "content-range",
        "content-type",
        "expires",
        "last-modified",
    ]
)
_hop_by_hop_headers = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
# Without months, days and leap years: 0001-01-01 is day 1, 1970-01-01 is day 719163.
_EPOCH_DAY = 719_163
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1
    )
}

HTTP_STATUS_CODES = {
    100: "Continue",
    101: "Switching Protocols",
    102: "Processing",
    103: "Early Hints",
    200: "OK",
    201: "Created",
    202: "Accepted",
    203: "Non Authoritative Information",
    204: "No Content",
    205: "Reset Content",
    206: "Partial Content",
    207: "Multi Status",
    208: "Already Reported",
    226: "IM Used",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    305: "Use Proxy",
    306: "Switch Proxy",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    414: "Request URI Too Long",
    415: "Unsupported Media Type",
    416: "Requested Range Not Satisfiable",
    417: "Expectation Failed",
    418: "I'm a teapot",
    421: "Misdirected Request",
    422: "Unprocessable Entity",
    423: "Locked",
    424: "Failed Dependency",
    425: "Too Early",
    426: "Upgrade Required",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    449: "Retry With",
    451: "Unavailable For Legal Reasons",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    506: "Variant Also Negotiates",
    507: "Insufficient Storage",
    508: "Loop Detected",
    510: "Not Extended",
    511: "Network Authentication Failed",
}


class COEP(Enum):
    """Values of ``Cross-Origin-Embedder-Policy``."""

    UNSAFE_NONE = "unsafe-none"
    REQUIRE_CORP = "require-corp"


class COOP(Enum):
    """Values of ``Cross-Origin-Opener-Policy``."""

    UNSAFE_NONE = "unsafe-none"
    SAME_ORIGIN_ALLOW_POPUPS = "same-origin-allow-popups"
    SAME_ORIGIN = "same-origin"


def dump_header(iterable: dict[str, Any] | Iterable[Any]) -> str:
    """Write a comma-separated list of values, or of ``key=value`` for a dict.

    In a dict a key whose value is ``None`` stands alone; the value of a key that ends in ``*`` is not quoted.
    """
    if not isinstance(iterable, dict):
        return ", ".join(map(quote_header_value, iterable))

    def item(key: str, value: Any) -> str:
        if value is None:
            return key
        return f"{key}={value if key[-1] == '*' else quote_header_value(value)}"

    return ", ".join(item(key, value) for key, value in iterable.items())


def dump_csp_header(header: ds.ContentSecurityPolicy) -> str:
    """Write a content security policy; directives are expected in their final form."""
    return "; ".join(f"{directive} {value}" for directive, value in header.items())


@overload
def parse_accept_header(value: str | None) -> ds.Accept: ...
@overload
def parse_accept_header(value: str | None, cls: type[AnyAccept] | None = None) -> AnyAccept: ...
def parse_accept_header(value: str | None, cls: type[Any] | None = None) -> Any:
    """Read an ``Accept`` field or one of its kin; items whose quality is no number from 0 to 1 are left out.

    Args:
        value: The field's value.
        cls: A subclass of ``Accept`` to make.
    """
    if cls is None:
        from .datastructures.accept import Accept

        cls = Accept

    if not value:
        return cls(None)
    accepted = []
    for item in parse_list_header(value):
        name, options = parse_options_header(item)
        quality: float | None = 1
        if "q" in options:
            quality = _quality(options.pop("q").strip())
        if quality is not None:
            accepted.append((dump_options_header(name, options) if options else name, quality))
    return cls(accepted)


def _quality(text: str) -> float | None:
    """A number from 0 to 1, written with ASCII digits and at most one point between them."""
    digits = text.removeprefix("-")
    whole, point, fraction = digits.partition(".")
    if not (digits.isascii() and whole.isdigit() and (fraction.isdigit() or not point)):
        return None
    quality = float(text)
    return quality if 0 <= quality <= 1 else None


@overload
def parse_cache_control_header(
    value: str | None, on_update: Callable[[_CacheControl], None] | None = None
) -> ds.RequestCacheControl: ...
@overload
def parse_cache_control_header(
    value: str | None,
    on_update: Callable[[_CacheControl], None] | None = None,
    cls: type[AnyCacheControl] | None = None,
) -> AnyCacheControl: ...
def parse_cache_control_header(
    value: str | None,
    on_update: Callable[[Any], None] | None = None,
    cls: type[Any] | None = None,
) -> Any:
    """Read a ``Cache-Control`` field.

    Args:
        value: The field's value.
        on_update: A function to call with the object after every change.
        cls: What to make, if not ``RequestCacheControl``.
    """
    if cls is None:
        from .datastructures.cache_control import RequestCacheControl

        cls = RequestCacheControl

    return cls(parse_dict_header(value) if value else (), on_update)


@overload
def parse_csp_header(
    value: str | None, on_update: Callable[[ds.ContentSecurityPolicy], None] | None = None
) -> ds.ContentSecurityPolicy: ...
@overload
def parse_csp_header(
    value: str | None,
    on_update: Callable[[ds.ContentSecurityPolicy], None] | None = None,
    cls: type[AnyPolicy] | None = None,
) -> AnyPolicy: ...
def parse_csp_header(
    value: str | None,
    on_update: Callable[[Any], None] | None = None,
    cls: type[Any] | None = None,
) -> Any:
    """Read a ``Content-Security-Policy`` field; directives without a value are left out.

    Args:
        value: The field's value.
        on_update: A function to call with the object after every change.
        cls: What to make, if not ``ContentSecurityPolicy``.
    """
    if cls is None:
        from .datastructures.csp import ContentSecurityPolicy

        cls = ContentSecurityPolicy

    items = []
    for policy in (value or "").split(";"):
        directive, space, text = policy.strip().partition(" ")
        if space:
            items.append((directive.strip(), text.strip()))
    return cls(items if value is not None else (), on_update)


def parse_set_header(
    value: str | None, on_update: Callable[[ds.HeaderSet], None] | None = None
) -> ds.HeaderSet:
    """Read a comma-separated list as a set without regard to case.

    Args:
        value: The field's value.
        on_update: A function to call with the set after every change.
    """
    from .datastructures.structures import HeaderSet

    return HeaderSet(parse_list_header(value) if value else None, on_update)


def parse_if_range_header(value: str | None) -> ds.IfRange:
    """Read an ``If-Range`` field, which has a date or an entity tag."""
    from .datastructures.range import IfRange

    if not value:
        return IfRange()
    moment = parse_date(value)
    return IfRange(unquote_etag(value)[0]) if moment is None else IfRange(date=moment)


def parse_range_header(value: str | None, make_inclusive: bool = True) -> ds.Range | None:
    """Read a ``Range`` field.

    Returns:
        The ranges with ends that are exclusive, or ``None`` if the field is missing or wrong.
    """
    if not value or "=" not in value:
        return None

    from .datastructures.range import Range

    units, _, text = value.partition("=")
    ranges: list[tuple[int, int | None]] = []
    # Where the next range may start at the earliest; none may follow one that has no end.
    earliest: int | None = 0
    for item in text.split(","):
        first, dash, last = item.strip().partition("-")
        if not dash or earliest is None:
            return None
        try:
            if not first:
                start, stop = _plain_int(f"-{last}"), None
            else:
                start = _plain_int(first)
                stop = _plain_int(last) + 1 if last.strip() else None
        except ValueError:
            return None
        if first and (start < earliest or (stop is not None and start >= stop)):
            return None
        ranges.append((start, stop))
        earliest = stop
    return Range(units.strip().lower(), ranges)


def parse_content_range_header(
    value: str | None, on_update: Callable[[ds.ContentRange], None] | None = None
) -> ds.ContentRange | None:
    """Read a ``Content-Range`` field.

    Args:
        value: The field's value.
        on_update: A function to call with the object after every change.

    Returns:
        ``None`` if the field is missing or wrong.
    """
    units, _, rest = " ".join((value or "").strip().split(None, 1)).partition(" ")
    span, slash, size = rest.partition("/")
    if not slash:
        return None
    first, dash, last = span.partition("-")
    start = stop = None
    try:
        length = None if size == "*" else _plain_int(size)
        if span != "*":
            if not dash:
                return None
            start, stop = _plain_int(first), _plain_int(last) + 1
    except ValueError:
        return None
    if not is_byte_range_valid(start, stop, length):
        return None

    from .datastructures.range import ContentRange

    return ContentRange(units, start, stop, length, on_update=on_update)


def quote_etag(etag: str, weak: bool = False) -> str:
    """Put an entity tag into quotes.

    Raises:
        ValueError: If there is a quote in it.
    """
    if '"' in etag:
        raise ValueError("invalid etag")
    return f'W/"{etag}"' if weak else f'"{etag}"'


@overload
def unquote_etag(etag: str) -> tuple[str, bool]: ...
@overload
def unquote_etag(etag: None) -> tuple[None, None]: ...
def unquote_etag(etag: str | None) -> tuple[str, bool] | tuple[None, None]:
    """An entity tag without quotes, and whether it is a weak one."""
    if not etag:
        return None, None
    etag = etag.strip()
    weak = etag.startswith(("W/", "w/"))
    if weak:
        etag = etag[2:]
    if etag[:1] == etag[-1:] == '"':
        etag = etag[1:-1]
    return etag, weak


def parse_etags(value: str | None) -> ds.ETags:
    """Read a list of entity tags, or ``*``."""
    from .datastructures.etag import ETags

    strong: list[Any] = []
    weak: list[Any] = []
    for is_weak, quoted, tag in _etag_items(value or ""):
        if tag == "*" and not quoted:
            return ETags(star_tag=True)
        (weak if is_weak else strong).append(tag)
    return ETags(strong, weak)


def _etag_items(value: str) -> Iterator[tuple[bool, bool, str | None]]:
    """Weakness, quotedness and text of every tag; one need not be quoted, and empty quotes have no text."""
    import re

    # Quotes that a comma or the end follows, found once: looking from every tag takes quadratic time.
    closing = [match.start() for match in re.finditer(r'"(?=\s*,|\Z)', value)]
    closing.reverse()
    pos = 0
    while pos < len(value):
        is_weak = value[pos : pos + 2] in ("W/", "w/")
        start = pos + 2 if is_weak else pos
        while closing and closing[-1] <= start:
            closing.pop()
        quoted = value[start : start + 1] == '"' and bool(closing)
        comma = value.find(",", closing[-1] if quoted else start)
        if quoted:
            yield is_weak, True, value[start + 1 : closing[-1]] or None
        else:
            yield is_weak, False, value[start:] if comma < 0 else value[start:comma].rstrip()
        if comma < 0:
            return
        pos = comma + 1
        while value[pos : pos + 1].isspace():
            pos += 1


def generate_etag(data: bytes) -> str:
    """An entity tag that depends on the content alone."""
    from hashlib import sha1

    return sha1(data).hexdigest()


def parse_date(value: str | None) -> datetime | None:
    """Read a date of HTTP or e-mail.

    Returns:
        An aware ``datetime``, or ``None`` if the value is missing or no date.
    """
    if value is None:
        return None

    from datetime import datetime, timezone

    # Sun, 06 Nov 1994 08:49:37 GMT, as everybody writes it now, without the weight of the e-mail package.
    if fixed := _fixdate(value):
        try:
            return datetime(*fixed, tzinfo=timezone.utc)
        except ValueError:
            return None

    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _fixdate(value: str) -> tuple[int, int, int, int, int, int] | None:
    """The numbers of an ``IMF-fixdate``; whether they make a date is not checked."""
    if len(value) != 29 or not value.isascii() or value[25:] != " GMT" or value[3:5] != ", ":
        return None
    if not value[7] == value[11] == value[16] == " " or not value[19] == value[22] == ":":
        return None
    month = _MONTHS.get(value[8:11])
    digits = value[12:16], value[5:7], value[17:19], value[20:22], value[23:25]
    # A year before 1000 is one of two digits to the e-mail package.
    if month is None or digits[0] < "1000" or not "".join(digits).isdigit():
        return None
    year, day, hour, minute, second = map(int, digits)
    return year, month, day, hour, minute, second


def http_date(timestamp: datetime | date | int | float | struct_time | None = None) -> str:
    """Write a date as HTTP has it.

    Args:
        timestamp: A ``datetime`` (UTC if it has no zone), a ``date``, seconds since 1970 or a
            ``struct_time`` in local time; the present without it.
    """
    import time

    seconds: float
    if timestamp is None:
        seconds = time.time()
    elif isinstance(timestamp, time.struct_time):
        seconds = time.mktime(timestamp)
    elif isinstance(timestamp, (int, float)):
        seconds = timestamp
    elif hasattr(timestamp, "hour"):
        moment = _dt_as_utc(cast("datetime", timestamp))
        seconds = _midnight(moment) + moment.hour * 3600 + moment.minute * 60 + moment.second
    elif hasattr(timestamp, "toordinal"):
        seconds = _midnight(timestamp)
    else:
        seconds = float(cast("float", timestamp))

    text = _core.format_date(seconds)
    if text is None:
        raise ValueError(f"no date has the timestamp {timestamp!r}")
    return text


def _midnight(day: date) -> int:
    """When a day of UTC begins, in seconds since 1970."""
    return (day.toordinal() - _EPOCH_DAY) * 86400


def parse_age(value: str | None = None) -> timedelta | None:
    """Read seconds, not negative, as a ``timedelta``; ``None`` for anything else."""
    if not value:
        return None

    from datetime import timedelta

    try:
        seconds = int(value)
        return timedelta(seconds=seconds) if seconds >= 0 else None
    except (ValueError, OverflowError):
        return None


def dump_age(age: timedelta | int | None = None) -> str | None:
    """Write a time span in seconds.

    Raises:
        ValueError: If it is negative.
    """
    if age is None:
        return None
    seconds = int(age.total_seconds() if hasattr(age, "total_seconds") else age)
    if seconds < 0:
        raise ValueError("age cannot be negative")
    return str(seconds)


def is_resource_modified(
    environ: Mapping[str, Any],
    etag: str | None = None,
    data: bytes | None = None,
    last_modified: datetime | str | None = None,
    ignore_if_range: bool = True,
) -> bool:
    """Whether the conditions of a request ask for the resource to be sent.

    Args:
        environ: The request's WSGI environ.
        etag: The resource's entity tag.
        data: The resource itself, to make a tag of.
        last_modified: When it changed last.
        ignore_if_range: Whether to leave ``If-Range`` aside.

    Raises:
        TypeError: If both ``etag`` and ``data`` are given.
    """
    from .sansio import http as sansio

    return sansio.is_resource_modified(
        http_range=environ.get("HTTP_RANGE"),
        http_if_range=environ.get("HTTP_IF_RANGE"),
        http_if_modified_since=environ.get("HTTP_IF_MODIFIED_SINCE"),
        http_if_none_match=environ.get("HTTP_IF_NONE_MATCH"),
        http_if_match=environ.get("HTTP_IF_MATCH"),
        etag=etag,
        data=data,
        last_modified=last_modified,
        ignore_if_range=ignore_if_range,
    )


def remove_entity_headers(
    headers: ds.Headers | list[tuple[str, str]],
    allowed: Iterable[str] = ("expires", "content-location"),
) -> None:
    """Remove, in place, the fields that describe a body, except those allowed."""
    kept = {name.lower() for name in allowed}
    headers[:] = [
        (name, value) for name, value in headers if not is_entity_header(name) or name.lower() in kept
    ]


def remove_hop_by_hop_headers(headers: ds.Headers | list[tuple[str, str]]) -> None:
    """Remove, in place, the fields that are meant for one connection."""
    headers[:] = [(name, value) for name, value in headers if not is_hop_by_hop_header(name)]


def is_entity_header(header: str) -> bool:
    """Whether a field describes a body."""
    return header.lower() in _entity_headers


def is_hop_by_hop_header(header: str) -> bool:
    """Whether a field is meant for one connection."""
    return header.lower() in _hop_by_hop_headers


@overload
def parse_cookie(header: Mapping[str, Any] | str | None) -> ds.MultiDict[str, str]: ...
@overload
def parse_cookie(header: Mapping[str, Any] | str | None, cls: type[AnyDict] | None = None) -> AnyDict: ...
def parse_cookie(header: Mapping[str, Any] | str | None, cls: type[Any] | None = None) -> Any:
    """Read a ``Cookie`` field whose characters are bytes, as WSGI has it; the bytes are UTF-8.

    Bytes that are not UTF-8 become replacement characters: a client's mistake is not to be our error.

    Args:
        header: The field's value, or a WSGI environ.
        cls: A dict to make, if not ``MultiDict``.
    """
    cookie: str | None = header.get("HTTP_COOKIE") if isinstance(header, dict) else header  # type: ignore[assignment]
    if cookie and not cookie.isascii():
        cookie = cookie.encode("latin1").decode(errors="replace")
    return _core.parse_cookie(cookie, cls)


def is_byte_range_valid(start: int | None, stop: int | None, length: int | None) -> bool:
    """Whether a range, its stop exclusive, makes sense for a body of that length."""
    if start is None or stop is None:
        return start is stop and (length is None or length >= 0)
    if length is None:
        return 0 <= start < stop
    return start < stop and 0 <= start < length
