"""Uploaded files.

Implements: werkzeug.datastructures.file_storage (3.1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

from .._internal import _plain_int
from .headers import Headers
from .structures import MultiDict


class FileStorage:
    """An uploaded file. Attributes that it does not have are those of its stream.

    Args:
        stream: The content; empty without it.
        filename: The name that the client gave, by default the stream's if that is one of a real file. Not to
            be trusted: see ``secure_filename``.
        name: The form field's name.
        content_type: The type that the client gave.
        content_length: The length that the client gave.
        headers: The header fields of the file's part.
    """

    def __init__(
        self,
        stream: IO[bytes] | None = None,
        filename: str | None = None,
        name: str | None = None,
        content_type: str | None = None,
        content_length: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        if filename is None:
            filename = getattr(stream, "name", None)
            if filename is not None:
                filename = os.fsdecode(filename)
            # Streams without a name of their own are called <stdin> or <fdopen>.
            if filename and filename[0] == "<" and filename[-1] == ">":
                filename = None
        else:
            filename = os.fsdecode(filename)
        if not stream:
            from io import BytesIO

            stream = BytesIO()

        self.name = name
        self.stream = stream
        self.filename = filename
        self.headers = Headers() if headers is None else headers
        if content_type is not None:
            self.headers["Content-Type"] = content_type
        if content_length is not None:
            self.headers["Content-Length"] = str(content_length)

    @property
    def content_type(self) -> str | None:
        """The type as the client gave it, with its parameters."""
        return self.headers.get("content-type")

    @property
    def content_length(self) -> int:
        """The length as the client gave it, 0 if it did not. Usually it does not."""
        try:
            return _plain_int(self.headers.get("content-length", "0"))
        except ValueError:
            return 0

    @property
    def mimetype(self) -> str:
        """The type without its parameters, in lower case."""
        return self._type_and_options()[0].lower()

    @property
    def mimetype_params(self) -> dict[str, str]:
        """The parameters of the type."""
        return self._type_and_options()[1]

    def _type_and_options(self) -> tuple[str, dict[str, str]]:
        parsed: tuple[str, dict[str, str]] | None = self.__dict__.get("_parsed_content_type")
        if parsed is None:
            from ..http import parse_options_header

            parsed = self._parsed_content_type = parse_options_header(self.content_type)
        return parsed

    def save(self, dst: str | os.PathLike[str] | IO[bytes], buffer_size: int = 16384) -> None:
        """Copy the content, from where the stream stands.

        Args:
            dst: A path, or a file open for writing bytes, which stays open. A path must not come from the
                client without ``secure_filename``.
            buffer_size: How many bytes to copy at a time.
        """
        from shutil import copyfileobj

        if hasattr(dst, "__fspath__"):
            dst = os.fspath(dst)
        if isinstance(dst, str):
            with open(dst, "wb") as file:
                copyfileobj(self.stream, file, buffer_size)
        else:
            copyfileobj(self.stream, dst, buffer_size)

    def close(self) -> None:
        """Close the stream; errors of that do not matter any more."""
        try:  # noqa: SIM105
            self.stream.close()
        except Exception:
            pass

    def __bool__(self) -> bool:
        return bool(self.filename)

    def __getattr__(self, name: str) -> Any:
        if name == "stream":
            # Asked before ``__init__`` ran, by ``copy`` or ``pickle``.
            raise AttributeError(name)
        try:
            return getattr(self.stream, name)
        except AttributeError:
            # Before Python 3.11 a SpooledTemporaryFile lacks parts of the file that it wraps.
            if hasattr(self.stream, "_file"):
                return getattr(self.stream._file, name)
            raise

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stream)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.filename!r} ({self.content_type!r})>"


class FileMultiDict(MultiDict[str, FileStorage]):
    """A ``MultiDict`` of files."""

    def add_file(
        self,
        name: str,
        file: str | os.PathLike[str] | IO[bytes] | FileStorage,
        filename: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """Add a file.

        Args:
            name: The form field's name.
            file: A path, a file open for reading bytes, or a ``FileStorage``.
            filename: The name of the file, by default the path.
            content_type: The type, by default guessed from the name.
        """
        if isinstance(file, FileStorage):
            self.add(name, file)
            return
        stream: IO[bytes]
        if isinstance(file, (str, os.PathLike)):
            if filename is None:
                filename = os.fspath(file)
            stream = open(file, "rb")  # noqa: SIM115
        else:
            stream = file  # type: ignore[assignment]
        if filename and content_type is None:
            from mimetypes import guess_type

            content_type = guess_type(filename)[0] or "application/octet-stream"
        self.add(name, FileStorage(stream, filename, name, content_type))
