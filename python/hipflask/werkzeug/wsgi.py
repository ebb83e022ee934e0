"""Helpers for WSGI applications and servers: URLs from an environ, guarded input streams, closing iterators.

Implements: PEP 3333; werkzeug.wsgi (3.1).
"""

from __future__ import annotations

import functools
import io
from typing import IO, TYPE_CHECKING, Any, cast

from hipflask._core import InputStream

from .sansio import utils as _sansio_utils
from .sansio.utils import host_is_trusted as host_is_trusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


def responder(f: Callable[..., WSGIApplication]) -> WSGIApplication:
    """Make a WSGI application of a function that returns one.

    Args:
        f: Called with environ and start_response (and whatever stands before them); its result is called as
            the application.
    """

    @functools.wraps(f)
    def application(*args: Any) -> Iterable[bytes]:
        return f(*args)(*args[-2:])

    return application


def _get_server(environ: WSGIEnvironment) -> tuple[str, int | None] | None:
    name = environ.get("SERVER_NAME")
    if name is None:
        return None
    try:
        return name, int(environ.get("SERVER_PORT", ""))
    except (TypeError, ValueError):
        return name, None


def get_host(environ: WSGIEnvironment, trusted_hosts: Iterable[str] | None = None) -> str:
    """The host that a request asked for, without its scheme's default port.

    Args:
        environ: The request's environ.
        trusted_hosts: Names to accept; None accepts all.

    Raises:
        SecurityError: If the host is not trusted.
    """
    return _sansio_utils.get_host(
        environ["wsgi.url_scheme"], environ.get("HTTP_HOST"), _get_server(environ), trusted_hosts
    )


def get_current_url(
    environ: WSGIEnvironment,
    root_only: bool = False,
    strip_querystring: bool = False,
    host_only: bool = False,
    trusted_hosts: Iterable[str] | None = None,
) -> str:
    """Put a request's URL together as an IRI.

    Args:
        environ: The request's environ.
        root_only: Stop after the application's root.
        strip_querystring: Stop before the query.
        host_only: Stop after the host.
        trusted_hosts: Hosts to accept; None accepts all.

    Raises:
        SecurityError: If the host is not trusted.
    """
    root_path = path = query = None
    if not host_only:
        root_path = environ.get("SCRIPT_NAME", "")
        if not root_only:
            path = environ.get("PATH_INFO", "")
            if not strip_querystring:
                query = environ.get("QUERY_STRING", "").encode("latin1")
    host = get_host(environ, trusted_hosts)
    return _sansio_utils.get_current_url(environ["wsgi.url_scheme"], host, root_path, path, query)


def get_path_info(environ: WSGIEnvironment) -> str:
    """The path as text; bytes that are not UTF-8 become replacement characters."""
    raw: bytes = environ.get("PATH_INFO", "").encode("latin1")
    return raw.decode(errors="replace")


def get_content_length(environ: WSGIEnvironment) -> int | None:
    """The announced length of a body: None if not known beforehand, 0 if the header makes no sense."""
    return _sansio_utils.get_content_length(
        environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    )


def get_input_stream(
    environ: WSGIEnvironment, safe_fallback: bool = True, max_content_length: int | None = None
) -> IO[bytes]:
    """The body's stream, guarded so that reading it ends.

    Args:
        environ: The request's environ.
        safe_fallback: Give an empty stream where neither a length nor the server tells the end.
        max_content_length: Most bytes that may be read.

    Raises:
        RequestEntityTooLarge: If the announced length is above ``max_content_length``.
    """
    stream: IO[bytes] = environ["wsgi.input"]
    length = get_content_length(environ)
    if length is not None and max_content_length is not None and length > max_content_length:
        from .exceptions import RequestEntityTooLarge

        raise RequestEntityTooLarge()
    if isinstance(stream, InputStream):
        # The engine's own stream counts and tells a broken body from an ended one by itself.
        return cast("IO[bytes]", stream.guarded(max_content_length))
    if "wsgi.input_terminated" in environ:
        if max_content_length is None:
            return stream
        return cast("IO[bytes]", LimitedStream(stream, max_content_length, is_max=True))
    if length is not None:
        return cast("IO[bytes]", LimitedStream(stream, length))
    return io.BytesIO() if safe_fallback else stream


def wrap_file(environ: WSGIEnvironment, file: IO[bytes], buffer_size: int = 8192) -> Iterable[bytes]:
    """Wrap a file for a response, by the server's own wrapper if it has one.

    The result goes out unread: use it with ``direct_passthrough=True``.

    Args:
        environ: The request's environ.
        file: A binary file.
        buffer_size: Bytes per piece.
    """
    wrapper: Callable[[IO[bytes], int], Iterable[bytes]] = environ.get("wsgi.file_wrapper", FileWrapper)
    return wrapper(file, buffer_size)


class ClosingIterator:
    """An iterator that runs callbacks when it is closed.

    Args:
        iterable: What to iterate; its own ``close`` runs first.
        callbacks: One function or several.
    """

    def __init__(
        self,
        iterable: Iterable[bytes],
        callbacks: None | Callable[[], None] | Iterable[Callable[[], None]] = None,
    ) -> None:
        self._next = iter(iterable).__next__
        closing: list[Callable[[], None]] = []
        own_close = getattr(iterable, "close", None)
        if own_close:
            closing.append(own_close)
        if callable(callbacks):
            closing.append(callbacks)
        elif callbacks is not None:
            closing.extend(callbacks)
        self._callbacks = closing

    def __iter__(self) -> ClosingIterator:
        return self

    def __next__(self) -> bytes:
        return self._next()

    def close(self) -> None:
        """Run the callbacks."""
        for callback in self._callbacks:
            callback()


class FileWrapper:
    """An iterator over a file's pieces.

    Args:
        file: A binary file.
        buffer_size: Bytes per piece.
    """

    def __init__(self, file: IO[bytes], buffer_size: int = 8192) -> None:
        self.file = file
        self.buffer_size = buffer_size

    def close(self) -> None:
        """Close the file."""
        if hasattr(self.file, "close"):
            self.file.close()

    def seekable(self) -> bool:
        """Tell whether the file can seek."""
        if hasattr(self.file, "seekable"):
            return self.file.seekable()
        return hasattr(self.file, "seek")

    def seek(self, *args: Any) -> None:
        """Move within the file, if it can."""
        if hasattr(self.file, "seek"):
            self.file.seek(*args)

    def tell(self) -> int | None:
        """The position within the file, if it knows."""
        return self.file.tell() if hasattr(self.file, "tell") else None

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        piece = self.file.read(self.buffer_size)
        if not piece:
            raise StopIteration
        return piece


class _RangeWrapper:
    """The bytes of an iterable from ``start_byte`` on, ``byte_range`` of them (or all that follow).

    Seeks where the iterable can; otherwise reads and drops what stands before the range. Pieces stay as large
    as the iterable makes them.
    """

    def __init__(
        self, iterable: Iterable[bytes] | IO[bytes], start_byte: int = 0, byte_range: int | None = None
    ) -> None:
        self.iterable = iter(iterable)
        self.start_byte = start_byte
        self.byte_range = byte_range
        self.end_byte = None if byte_range is None else start_byte + byte_range
        self.seekable: bool = hasattr(iterable, "seekable") and iterable.seekable()
        self._pieces = self._run()

    def _run(self) -> Iterator[bytes]:
        skip, left = self.start_byte, self.byte_range
        if self.seekable:
            self.iterable.seek(skip)  # type: ignore[attr-defined]
            skip = 0
        for piece in self.iterable:
            if skip >= len(piece) and skip:
                skip -= len(piece)
                continue
            if skip:
                piece, skip = piece[skip:], 0
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if not piece:
                return
            yield piece
            if left == 0:
                return

    def __iter__(self) -> _RangeWrapper:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Close the iterable."""
        if hasattr(self.iterable, "close"):
            self.iterable.close()


class LimitedStream(io.RawIOBase):
    """A stream that reads no more than so many bytes of another one.

    Args:
        stream: A readable binary stream.
        limit: Most bytes to read.
        is_max: Whether the limit is a ceiling, above which the request is refused, rather than the announced
            length, below which the client must have gone away.
    """

    def __init__(self, stream: IO[bytes], limit: int, is_max: bool = False) -> None:
        self._stream = stream
        self._pos = 0
        self.limit = limit
        self._limit_is_max = is_max

    @property
    def is_exhausted(self) -> bool:
        """Whether the limit is reached."""
        return self._pos >= self.limit

    def on_exhausted(self) -> None:
        """Called by a read beyond the limit.

        Raises:
            RequestEntityTooLarge: If the limit is a ceiling.
        """
        if self._limit_is_max:
            from .exceptions import RequestEntityTooLarge

            raise RequestEntityTooLarge()

    def on_disconnect(self, error: Exception | None = None) -> None:
        """Called when nothing comes before the limit is reached.

        Args:
            error: What the underlying stream raised, if it did.

        Raises:
            ClientDisconnected: Unless the limit is a ceiling and there was no error.
        """
        if error is not None or not self._limit_is_max:
            from .exceptions import ClientDisconnected

            raise ClientDisconnected()

    def exhaust(self) -> bytes:
        """Read and return what is left."""
        return b"" if self.is_exhausted else self.readall()

    def readinto(self, b: Any) -> int | None:
        """Read into a buffer; see :meth:`io.RawIOBase.readinto`."""
        most = min(len(b), self.limit - self._pos)
        if self.limit <= self._pos:
            self.on_exhausted()
            return 0
        try:
            if hasattr(self._stream, "readinto"):
                got = self._stream.readinto(memoryview(b)[:most]) or 0
            else:
                piece = self._stream.read(most)
                got = len(piece)
                b[:got] = piece
        except (OSError, ValueError) as error:
            self.on_disconnect(error=error)
            return 0
        if not got:
            self.on_disconnect()
            return 0
        self._pos += got
        return got

    def readall(self) -> bytes:
        """Read what is left, up to the limit."""
        if self.is_exhausted:
            self.on_exhausted()
            return b""
        pieces = []
        while not self.is_exhausted:
            piece = self.read(64 * 1024)
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces)

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._pos

    def readable(self) -> bool:
        """True."""
        return True
