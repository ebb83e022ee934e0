"""Host names, URLs and lengths worked out from the parts of a request.

Does not look at a WSGI environ (see :mod:`hipflask.werkzeug.wsgi`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATH_SAFE = "!$&'()*+,/:;=@%"
_QUERY_SAFE = "!$&'()*+,/:;=?@%"
_DEFAULT_PORTS = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}


def _ascii_name(host: str) -> str | None:
    """The host without its port, in IDNA form; None if it cannot be a host name."""
    try:
        return host.partition(":")[0].encode("idna").decode("ascii")
    except UnicodeEncodeError:
        return None


def host_is_trusted(hostname: str | None, trusted_list: Iterable[str]) -> bool:
    """Tell whether a host is one of the trusted ones.

    Args:
        hostname: Name to look for, with or without a port.
        trusted_list: Trusted names, or one name; a leading dot stands for all subdomains.

    Returns:
        False for an empty or impossible host name, or if any trusted name met on the way is impossible.

    Implements: werkzeug.sansio.utils.host_is_trusted (3.1).
    """
    if not hostname or (name := _ascii_name(hostname)) is None:
        return False
    for trusted in [trusted_list] if isinstance(trusted_list, str) else trusted_list:
        wanted = _ascii_name(trusted.removeprefix("."))
        if wanted is None:
            return False
        if name == wanted or (trusted.startswith(".") and name.endswith("." + wanted)):
            return True
    return False


def get_host(
    scheme: str,
    host_header: str | None,
    server: tuple[str, int | None] | None = None,
    trusted_hosts: Iterable[str] | None = None,
) -> str:
    """The host that a request asked for, without its scheme's default port.

    Args:
        scheme: ``http``, ``https``, ``ws`` or ``wss``.
        host_header: Value of the ``Host`` header.
        server: Name and port to use when there is no such header; port None for a Unix socket.
        trusted_hosts: Names to accept; None accepts all.

    Raises:
        SecurityError: If the host is not trusted.

    Implements: werkzeug.sansio.utils.get_host (3.1).
    """
    if host_header is not None:
        host = host_header
    elif server is not None:
        host, port = server
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        if port is not None:
            host = f"{host}:{port}"
    else:
        host = ""
    default_port = _DEFAULT_PORTS.get(scheme)
    if default_port is not None:
        host = host.removesuffix(default_port)
    if trusted_hosts is not None and not host_is_trusted(host, trusted_hosts):
        from ..exceptions import SecurityError

        raise SecurityError(f"Host {host!r} is not trusted.")
    return host


def get_current_url(
    scheme: str,
    host: str,
    root_path: str | None = None,
    path: str | None = None,
    query_string: bytes | None = None,
) -> str:
    """Put a request's URL together as an IRI; the first part left out ends it.

    Args:
        scheme: The URL's scheme.
        host: The host, see :func:`get_host`.
        root_path: Where the application is mounted.
        path: The path below ``root_path``.
        query_string: What follows the ``?``.

    Implements: werkzeug.sansio.utils.get_current_url (3.1).
    """
    from urllib.parse import quote

    from ..urls import uri_to_iri

    url = f"{scheme}://{host}/"
    if root_path is not None:
        url = f"{url[:-1]}{quote(root_path.rstrip('/'), safe=_PATH_SAFE)}/"
        if path is not None:
            url += quote(path.lstrip("/"), safe=_PATH_SAFE)
            if query_string:
                url = f"{url}?{quote(query_string, safe=_QUERY_SAFE)}"
    return uri_to_iri(url)


def get_content_length(
    http_content_length: str | None = None, http_transfer_encoding: str | None = None
) -> int | None:
    """The announced length of a body.

    Args:
        http_content_length: Value of ``Content-Length``.
        http_transfer_encoding: Value of ``Transfer-Encoding``.

    Returns:
        None if the length is not known beforehand; 0 if the header makes no sense.

    Implements: werkzeug.sansio.utils.get_content_length (3.1).
    """
    if http_content_length is None or http_transfer_encoding == "chunked":
        return None
    digits = http_content_length.strip()
    if not (digits.isascii() and digits.isdigit()):
        return 0
    try:
        return int(digits)
    except ValueError:
        # Above int's own limit on the number of digits.
        return 0
