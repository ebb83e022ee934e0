"""URIs, which are ASCII, and IRIs, which are for people.

Implements: werkzeug.urls (3.1); RFC 3986, RFC 3987.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit, urlunsplit, uses_netloc

from .datastructures import iter_multi_items

if TYPE_CHECKING:
    from urllib.parse import SplitResult

# Characters that mean something else once they are not escaped, whatever part of a URI they are in.
_UNSAFE = frozenset((*range(33), 0x25, 0x7F))
_UNSAFE_FRAGMENT = _UNSAFE
_UNSAFE_QUERY = _UNSAFE | frozenset(b"&=+#")
_UNSAFE_PATH = _UNSAFE | frozenset(b"/?#")
_UNSAFE_USER = _UNSAFE | frozenset(b":@/?#")

# The links by which Apple's devices install apps; ``urlunsplit`` drops their slashes otherwise.
if "itms-services" not in uses_netloc:
    uses_netloc.append("itms-services")


def _quote_undecodable(error: UnicodeError) -> tuple[str, int]:
    """An error handler of decoders that leaves bytes percent-encoded."""
    assert isinstance(error, UnicodeDecodeError)
    return quote(error.object[error.start : error.end], safe=""), error.end


codecs.register_error("werkzeug.url_quote", _quote_undecodable)


def _unquote(text: str, unsafe: frozenset[int]) -> str:
    """Undo percent-encoding, but not that of unsafe characters and of bytes that are not UTF-8."""
    head, *pieces = text.split("%")
    out = [head]
    pending = bytearray()

    def flush() -> None:
        out.append(pending.decode("utf-8", "werkzeug.url_quote"))
        pending.clear()

    for piece in pieces:
        byte = unquote_to_bytes(f"%{piece[:2]}")
        if len(byte) != 1 or len(piece) < 2:
            flush()
            out.append(f"%{piece}")
            continue
        if byte[0] in unsafe:
            flush()
            out.append(f"%{piece}")
            continue
        pending += byte
        if len(piece) > 2:
            flush()
            out.append(piece[2:])
    flush()
    return "".join(out)


def _netloc(parts: SplitResult, host: str, user: str, password: str) -> str:
    if ":" in host:
        host = f"[{host}]"
    if parts.port:
        host = f"{host}:{parts.port}"
    if not user:
        return host
    return f"{user}:{password}@{host}" if password else f"{user}@{host}"


def uri_to_iri(uri: str) -> str:
    """A URI with everything readable that can be without changing its meaning.

    Args:
        uri: The URI.
    """
    parts = urlsplit(uri)
    netloc = _netloc(
        parts,
        _decode_idna(parts.hostname) if parts.hostname else "",
        _unquote(parts.username or "", _UNSAFE_USER),
        _unquote(parts.password or "", _UNSAFE_USER),
    )
    path = _unquote(parts.path, _UNSAFE_PATH)
    query = _unquote(parts.query, _UNSAFE_QUERY)
    return urlunsplit((parts.scheme, netloc, path, query, _unquote(parts.fragment, _UNSAFE_FRAGMENT)))


def iri_to_uri(iri: str) -> str:
    """An IRI in ASCII. What is escaped already stays, so that a URI comes out as it is.

    Args:
        iri: The IRI.
    """
    parts = urlsplit(iri)
    netloc = _netloc(
        parts,
        parts.hostname.encode("idna").decode("ascii") if parts.hostname else "",
        quote(parts.username or "", safe="%!$&'()*+,;="),
        quote(parts.password or "", safe="%!$&'()*+,;="),
    )
    path = quote(parts.path, safe="%!$&'()*+,/:;=@")
    query = quote(parts.query, safe="%!$&'()*+,/:;=?@")
    fragment = quote(parts.fragment, safe="%!#$&'()*+,/:;=?@")
    return urlunsplit((parts.scheme, netloc, path, query, fragment))


def _decode_idna(domain: str) -> str:
    """A domain without Punycode, as far as its labels can be decoded."""
    if not domain.isascii():
        return domain

    def decode(label: bytes) -> str:
        try:
            return label.decode("idna")
        except UnicodeDecodeError:
            return label.decode("ascii")

    data = domain.encode("ascii")
    try:
        return data.decode("idna")
    except UnicodeDecodeError:
        return ".".join(decode(label) for label in data.split(b"."))


def _urlencode(query: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """A query string of pairs; those whose value is ``None`` are left out."""
    items = [(key, value) for key, value in iter_multi_items(query) if value is not None]
    return urlencode(items, safe="!$'()*,/:;?@")
