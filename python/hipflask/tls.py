"""TLS: what a server is given to speak it, and the certificates that clients show.

The protocol is the engine's. Here is how settings, `--cert` and `ssl_context` become a `_core.Tls`.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import _core
from .setting_types import SettingError

if t.TYPE_CHECKING:
    from datetime import datetime

    from .settings import Settings

#: In the place of a certificate: make one that vouches for itself, for development.
ADHOC = "adhoc"

# Where the first process has put its certificate.
_PLACE_VARIABLE = "HIPFLASK_ADHOC_PLACE"


@dataclass(frozen=True)
class ClientCertificate:
    """The certificate that a client has shown, and that the server has verified.

    `flask.Request.client_cert` is one.
    """

    pem: str
    """The certificate itself, in PEM format."""
    subject: tuple[tuple[str, str], ...]
    """Whom it is for: names of attributes, such as ``CN`` and ``O``, and values."""
    issuer: tuple[tuple[str, str], ...]
    """Who vouches for it."""
    serial_number: str
    """Its number, in hexadecimal digits."""
    not_before: datetime
    """Since when it is good."""
    not_after: datetime
    """Until when it is good."""
    dns_names: tuple[str, ...] = ()
    """The hosts in it."""
    emails: tuple[str, ...] = ()
    """The mail addresses in it."""
    uris: tuple[str, ...] = ()
    """The URIs in it, such as SPIFFE identities."""

    @property
    def common_name(self) -> str | None:
        """The last ``CN`` of the subject, or None."""
        return next((value for name, value in reversed(self.subject) if name == "CN"), None)

    @classmethod
    def from_pem(cls, pem: str) -> ClientCertificate:
        """Read a certificate.

        Args:
            pem: It, in PEM format.

        Raises:
            ValueError: If it is none.
        """
        from binascii import a2b_base64
        from datetime import datetime, timezone

        lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
        parts = _core.read_certificate(a2b_base64("".join(lines)))

        def moment(text: str) -> datetime:
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)

        return cls(
            pem=pem,
            subject=tuple(parts["subject"]),
            issuer=tuple(parts["issuer"]),
            serial_number=parts["serial_number"],
            not_before=moment(parts["not_before"]),
            not_after=moment(parts["not_after"]),
            dns_names=tuple(parts["dns_names"]),
            emails=tuple(parts["emails"]),
            uris=tuple(parts["uris"]),
        )


def of_settings(settings: Settings) -> _core.Tls | None:
    """Make what a server needs to speak TLS, as settings say.

    Args:
        settings: `cert`, `key` and what belongs to them.

    Returns:
        It, or None if there is to be none.

    Raises:
        SettingError: If a file is no good, or something is missing.
    """
    certs, keys = settings["cert"], settings["key"]
    if certs is None:
        for name in ("key", "client_ca", "redirect_bind"):
            if settings[name] is not None:
                raise SettingError(f"{name} is set, but there is no cert, so nothing speaks TLS")
        return None
    for bind in settings.redirects():
        if bind in settings.binds():
            raise SettingError(f"redirect_bind: {bind} is where TLS is spoken")
    if [cert.lower() for cert in certs] == [ADHOC]:
        if keys is not None:
            raise SettingError("with cert = 'adhoc' there is no key to give")
        pairs = [adhoc_files()]
    else:
        # A file may have both.
        pairs = list(zip(certs, keys or certs, strict=False))
        if keys is not None and len(certs) != len(keys):
            raise SettingError(f"there are {len(certs)} certificates in cert and {len(keys)} keys in key")
    if settings["client_certs"] != "none" and settings["client_ca"] is None:
        raise SettingError("client_certs is set, but client_ca does not say who vouches for clients")
    return _make(
        pairs,
        client_certs=settings["client_certs"],
        client_ca=settings["client_ca"],
        client_crl=settings["client_crl"],
        only_tls13=settings["min_tls"] == "1.3",
        http2=settings["http2"],
    )


def of_context(context: t.Any) -> _core.Tls | None:
    """Make what a server needs to speak TLS of Flask's `ssl_context`.

    Args:
        context: ``"adhoc"``, a pair of files, or None.

    Raises:
        TypeError: For an `ssl.SSLContext`, whose keys cannot be read.
        SettingError: If a file is no good.
    """
    if context is None:
        return None
    if context == ADHOC:
        return _make([adhoc_files()])
    if isinstance(context, tuple | list) and 1 <= len(context) <= 2:
        return _make([(str(context[0]), str(context[-1] if context[-1] is not None else context[0]))])
    raise TypeError(
        "The server does not use Python's TLS, and an ssl.SSLContext does not give its keys away:"
        " pass ssl_context=('cert.pem', 'key.pem') or ssl_context='adhoc'."
    )


def _make(pairs: list[tuple[str, str]], **more: t.Any) -> _core.Tls:
    try:
        return _core.Tls(pairs, **more)
    except ValueError as error:
        raise SettingError(str(error)) from None


def adhoc_files() -> tuple[str, str]:
    """Make a certificate for this machine that vouches for itself.

    Workers and what the reloader starts have that of the first process: a browser that was told to trust it
    once goes on.

    Returns:
        The paths of certificate and key, which are removed when the process that made them ends.
    """
    import os

    place = os.environ.get(_PLACE_VARIABLE, "")
    paths = os.path.join(place, "cert.pem"), os.path.join(place, "key.pem")
    if place and all(os.path.exists(path) for path in paths):
        return paths

    import atexit
    import shutil
    import socket
    import tempfile

    names = ["localhost", "127.0.0.1", "::1"]
    if (host := socket.gethostname().lower()).replace("-", "").replace(".", "").isalnum():
        names.append(host)
    place = tempfile.mkdtemp(prefix="hipflask-")
    pid = os.getpid()

    def remove() -> None:
        # Not by workers, which are copies.
        if os.getpid() == pid:
            shutil.rmtree(place, ignore_errors=True)

    atexit.register(remove)
    paths = os.path.join(place, "cert.pem"), os.path.join(place, "key.pem")
    for path, content in zip(paths, _core.self_signed_certificate(names), strict=True):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(content)
    os.environ[_PLACE_VARIABLE] = place
    return paths
