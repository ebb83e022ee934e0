"""Bodies of forms: ``application/x-www-form-urlencoded`` and ``multipart/form-data``.

Implements: werkzeug.formparser (3.1); RFC 7578; the urlencoded parser of the URL standard.
"""

from __future__ import annotations

from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol

from hipflask._core import parse_urlencoded

from .datastructures import MultiDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIEnvironment

    from .datastructures import FileStorage, Headers
    from .sansio.multipart import Field, File

    ParseResult = tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]

_SPOOL_ABOVE = 500 * 1024
# A part may name its own charset; these decode without surprises.
_PART_CHARSETS = frozenset({"ascii", "us-ascii", "utf-8", "iso-8859-1"})


class TStreamFactory(Protocol):
    """Makes the file that an upload is written to."""

    def __call__(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """Make it."""


class MemoryFile(BytesIO):
    """An upload in memory: what `default_stream_factory` makes, for one that is known to be small.

    Who asks for a descriptor gets that of a temporary file with the same content.
    """

    mode = "rb+"
    name: str | None = None

    def fileno(self) -> int:
        """Return the descriptor of a file with the content, standing where this one does."""
        file: IO[bytes] | None = self.__dict__.get("_file")
        if file is None:
            from tempfile import TemporaryFile

            file = self._file = TemporaryFile("wb+")  # noqa: SIM115
            file.write(self.getvalue())
            file.seek(self.tell())
        return file.fileno()

    def close(self) -> None:
        """Give the memory back, and the file."""
        file: IO[bytes] | None = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()
        super().close()


def default_stream_factory(
    total_content_length: int | None,
    content_type: str | None,
    filename: str | None,
    content_length: int | None = None,
) -> IO[bytes]:
    """A temporary file that stays in memory up to 500 KiB.

    Args:
        total_content_length: Announced length of the whole body.
        content_type: The part's media type.
        filename: The name that the client gave.
        content_length: The part's own announced length.
    """
    from tempfile import SpooledTemporaryFile

    return SpooledTemporaryFile(max_size=_SPOOL_ABOVE, mode="rb+")


def parse_form_data(
    environ: WSGIEnvironment,
    stream_factory: TStreamFactory | None = None,
    max_form_memory_size: int | None = None,
    max_content_length: int | None = None,
    cls: type[MultiDict[str, Any]] | None = None,
    silent: bool = True,
    *,
    max_form_parts: int | None = None,
) -> ParseResult:
    """Parse the form in an environ's body; see :class:`FormDataParser` for the parameters.

    Returns:
        The stream (read, if there was a form), the fields and the files.
    """
    parser = FormDataParser(
        stream_factory, max_form_memory_size, max_content_length, cls, silent, max_form_parts=max_form_parts
    )
    return parser.parse_from_environ(environ)


class FormDataParser:
    """Parses a body as the form that its media type says.

    Args:
        stream_factory: Makes the file that an upload is written to.
        max_form_memory_size: Most bytes of fields that are not files.
        max_content_length: Most bytes of body.
        cls: Class of the results.
        silent: Treat a malformed body as an empty form instead of raising.
        max_form_parts: Most parts of a multipart body.
    """

    def __init__(
        self,
        stream_factory: TStreamFactory | None = None,
        max_form_memory_size: int | None = None,
        max_content_length: int | None = None,
        cls: type[MultiDict[str, Any]] | None = None,
        silent: bool = True,
        *,
        max_form_parts: int | None = None,
    ) -> None:
        self.stream_factory = default_stream_factory if stream_factory is None else stream_factory
        self.max_form_memory_size = max_form_memory_size
        self.max_content_length = max_content_length
        self.max_form_parts = max_form_parts
        self.cls: type[MultiDict[str, Any]] = MultiDict if cls is None else cls
        self.silent = silent

    def parse_from_environ(self, environ: WSGIEnvironment) -> ParseResult:
        """Parse the form in an environ's body."""
        from .http import parse_options_header
        from .wsgi import get_content_length, get_input_stream

        stream = get_input_stream(environ, max_content_length=self.max_content_length)
        mimetype, options = parse_options_header(environ.get("CONTENT_TYPE"))
        return self.parse(stream, mimetype, get_content_length(environ), options)

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> ParseResult:
        """Parse the form in a stream.

        Args:
            stream: The body.
            mimetype: Its media type.
            content_length: Its announced length.
            options: The media type's parameters, among them the boundary.

        Returns:
            The stream, the fields and the files.

        Raises:
            RequestEntityTooLarge: If a limit is passed.
            ValueError: If the body is malformed and the parser is not silent.
        """
        try:
            if mimetype == "multipart/form-data":
                return self._parse_multipart(stream, mimetype, content_length, options or {})
            if mimetype == "application/x-www-form-urlencoded":
                return self._parse_urlencoded(stream, mimetype, content_length, options or {})
        except ValueError:
            if not self.silent:
                raise
        return stream, self.cls(), self.cls()

    def _parse_multipart(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str]
    ) -> ParseResult:
        parser = MultiPartParser(
            self.stream_factory, self.max_form_memory_size, self.cls, max_form_parts=self.max_form_parts
        )
        boundary = options.get("boundary", "").encode("ascii")
        if not boundary:
            raise ValueError("Missing boundary")
        form, files = parser.parse(stream, boundary, content_length)
        return stream, form, files

    def _parse_urlencoded(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str]
    ) -> ParseResult:
        limit = self.max_form_memory_size
        length = 0 if content_length is None else content_length
        data = b""
        if limit is None or length <= limit:
            data = stream.read()
            length = len(data)
        # A body of unknown length is held to the same limit as one that announces its length.
        if limit is not None and length > limit:
            from .exceptions import RequestEntityTooLarge

            raise RequestEntityTooLarge()
        return stream, self.cls(parse_urlencoded(data)), self.cls()


class MultiPartParser:
    """Reads a ``multipart/form-data`` stream into fields and files; see :class:`FormDataParser`.

    Args:
        stream_factory: Makes the file that an upload is written to.
        max_form_memory_size: Most bytes of one field that is not a file.
        cls: Class of the results.
        buffer_size: Bytes per read.
        max_form_parts: Most parts.
    """

    def __init__(
        self,
        stream_factory: TStreamFactory | None = None,
        max_form_memory_size: int | None = None,
        cls: type[MultiDict[str, Any]] | None = None,
        buffer_size: int = 64 * 1024,
        max_form_parts: int | None = None,
    ) -> None:
        self.stream_factory = default_stream_factory if stream_factory is None else stream_factory
        self.max_form_memory_size = max_form_memory_size
        self.max_form_parts = max_form_parts
        self.cls: type[MultiDict[str, Any]] = MultiDict if cls is None else cls
        self.buffer_size = buffer_size

    def fail(self, message: str) -> NoReturn:
        """Refuse the body.

        Raises:
            ValueError: Always.
        """
        raise ValueError(message)

    def get_part_charset(self, headers: Headers) -> str:
        """The charset of a part: what it says if that is a harmless one, else UTF-8."""
        content_type = headers.get("content-type")
        if content_type:
            from .http import parse_options_header

            charset: str = parse_options_header(content_type)[1].get("charset", "").lower()
            if charset in _PART_CHARSETS:
                return charset
        return "utf-8"

    def start_file_streaming(self, event: File, total_content_length: int | None) -> IO[bytes]:
        """Make the file that an upload is written to."""
        from .sansio.utils import get_content_length

        return self.stream_factory(
            total_content_length=total_content_length,
            filename=event.filename,
            content_type=event.headers.get("content-type"),
            content_length=get_content_length(event.headers.get("content-length")) or 0,
        )

    def parse(
        self, stream: IO[bytes], boundary: bytes, content_length: int | None
    ) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
        """Read the stream to its end.

        Args:
            stream: The body.
            boundary: What separates its parts.
            content_length: The body's announced length.

        Raises:
            RequestEntityTooLarge: If a limit is passed.
            ValueError: If the body is malformed or ends early.
        """
        fields: list[tuple[str, str]] = []
        files: list[tuple[str, FileStorage]] = []
        opened: list[IO[bytes]] = []
        try:
            self._read(stream, boundary, content_length, fields, files, opened)
        except BaseException:
            # Nobody will ever see these uploads: give their disk space back now.
            for upload in opened:
                upload.close()
            raise
        return self.cls(fields), self.cls(files)

    def _read(
        self,
        stream: IO[bytes],
        boundary: bytes,
        content_length: int | None,
        fields: list[tuple[str, str]],
        files: list[tuple[str, FileStorage]],
        opened: list[IO[bytes]],
    ) -> None:
        from .datastructures import FileStorage
        from .exceptions import RequestEntityTooLarge
        from .sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

        limit = self.max_form_memory_size
        decoder = MultipartDecoder(boundary, limit, max_parts=self.max_form_parts)
        part: Field | File | None = None
        field: list[bytes] = []
        field_size = 0
        upload: IO[bytes] | None = None
        write: Callable[[bytes], Any] = field.append
        data: bytes | None = b""
        while data is not None:
            data = stream.read(self.buffer_size) or None
            decoder.receive_data(data)
            while not isinstance(event := decoder.next_event(), (Epilogue, NeedData)):
                if isinstance(event, Data):
                    if upload is None:
                        field_size += len(event.data)
                        if limit is not None and field_size > limit:
                            raise RequestEntityTooLarge()
                    write(event.data)
                    if event.more_data or part is None:
                        continue
                    if upload is None:
                        text = b"".join(field).decode(self.get_part_charset(part.headers), "replace")
                        fields.append((part.name, text))
                    elif isinstance(part, File):
                        upload.seek(0)
                        stored = FileStorage(upload, part.filename, part.name, headers=part.headers)
                        files.append((part.name, stored))
                elif isinstance(event, Field):
                    part, field, field_size, upload = event, [], 0, None
                    write = field.append
                elif isinstance(event, File):
                    part, upload = event, self.start_file_streaming(event, content_length)
                    opened.append(upload)
                    write = upload.write
