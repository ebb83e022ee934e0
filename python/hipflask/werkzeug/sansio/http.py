"""Conditions and cookies, from plain strings instead of a WSGI environ.

Implements: werkzeug.sansio.http (3.1); RFC 9110 §13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from hipflask import _core

from .._internal import _dt_as_utc
from ..http import generate_etag, parse_date, parse_etags, parse_if_range_header, unquote_etag

if TYPE_CHECKING:
    from datetime import datetime

    from .. import datastructures as ds

    AnyDict = TypeVar("AnyDict", bound=ds.MultiDict[str, str])


def is_resource_modified(
    http_range: str | None = None,
    http_if_range: str | None = None,
    http_if_modified_since: str | None = None,
    http_if_none_match: str | None = None,
    http_if_match: str | None = None,
    etag: str | None = None,
    data: bytes | None = None,
    last_modified: datetime | str | None = None,
    ignore_if_range: bool = True,
) -> bool:
    """Whether the conditions of a request ask for the resource to be sent.

    Args:
        http_range: The request's ``Range``.
        http_if_range: Its ``If-Range``.
        http_if_modified_since: Its ``If-Modified-Since``.
        http_if_none_match: Its ``If-None-Match``.
        http_if_match: Its ``If-Match``.
        etag: The resource's entity tag.
        data: The resource itself, to make a tag of.
        last_modified: When it changed last.
        ignore_if_range: Whether to leave ``If-Range`` aside.

    Raises:
        TypeError: If both ``etag`` and ``data`` are given.
    """
    if data is not None:
        if etag is not None:
            raise TypeError("both data and etag given")
        etag = generate_etag(data)
    if isinstance(last_modified, str):
        last_modified = parse_date(last_modified)

    if_range = None
    if http_range is not None and not ignore_if_range:
        if_range = parse_if_range_header(http_if_range)

    unmodified = False
    if last_modified is not None:
        since = if_range.date if if_range is not None else None
        since = since or parse_date(http_if_modified_since)
        # HTTP knows no fractions of seconds.
        changed = _dt_as_utc(last_modified.replace(microsecond=0))
        unmodified = since is not None and changed <= since

    if not etag:
        return not unmodified
    tag, _ = unquote_etag(etag)
    if if_range is not None and if_range.etag is not None:
        return not parse_etags(if_range.etag).contains(tag)
    if none_match := parse_etags(http_if_none_match):
        # GET compares weakly here, as a stale cache entry costs less than a body sent for nothing.
        unmodified = none_match.contains_weak(tag)
    if match := parse_etags(http_if_match):
        unmodified = not match.is_strong(tag)
    return not unmodified


@overload
def parse_cookie(cookie: str | None = None) -> ds.MultiDict[str, str]: ...
@overload
def parse_cookie(cookie: str | None = None, cls: type[AnyDict] | None = None) -> AnyDict: ...
def parse_cookie(cookie: str | None = None, cls: type[Any] | None = None) -> Any:
    """Read a ``Cookie`` field.

    Args:
        cookie: The field's value.
        cls: A dict to make, if not ``MultiDict``.
    """
    return _core.parse_cookie(cookie, cls)
