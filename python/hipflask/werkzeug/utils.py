"""Small things that applications import: properties, file names, redirects, files, imports by name.

Does not serve static files on its own: the engine does that without Python, and `send_file` is for files
that a view chooses.

Implements: werkzeug.utils (3.1); RFC 6266 and RFC 8187 for the names of downloads.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from ._internal import _DictAccessorProperty, _missing
from .security import _windows_device_files, safe_join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import IO, Any

    from _typeshed.wsgi import WSGIEnvironment

    from .datastructures import Headers
    from .wrappers.request import Request
    from .wrappers.response import Response

_T = TypeVar("_T")
_V = TypeVar("_V")

#: Types outside `text/` that are text all the same and have a charset parameter in IANA's registry.
_charset_mimetypes = {
    "application/ecmascript",
    "application/javascript",
    "application/sql",
    "application/xml",
    "application/xml-dtd",
    "application/xml-external-parsed-entity",
}


class cached_property(property, Generic[_T]):
    """A property that is computed at the first access and remembered.

    Setting replaces the remembered value, deleting forgets it. A class with `__slots__` has to name a slot
    `_cache_<name>`.
    """

    def __init__(self, fget: Callable[[Any], _T], name: str | None = None, doc: str | None = None) -> None:
        super().__init__(fget, doc=doc)
        self.__name__ = name or fget.__name__
        self.slot_name = f"_cache_{self.__name__}"
        self.__module__ = fget.__module__

    def __get__(self, obj: object, type: type | None = None) -> _T:  # type: ignore[override]
        """The remembered value, computed if there is none."""
        if obj is None:
            return self  # type: ignore[return-value]
        attributes = getattr(obj, "__dict__", None)
        if attributes is None:
            value = getattr(obj, self.slot_name, _missing)
        else:
            value = attributes.get(self.__name__, _missing)
        if value is _missing:
            value = self.fget(obj)  # type: ignore[misc]
            self.__set__(obj, value)
        return value  # type: ignore[return-value]

    def __set__(self, obj: object, value: _T) -> None:
        """Remember a value without computing it."""
        if hasattr(obj, "__dict__"):
            obj.__dict__[self.__name__] = value
        else:
            setattr(obj, self.slot_name, value)

    def __delete__(self, obj: object) -> None:
        """Forget the value; the next access computes it again."""
        if hasattr(obj, "__dict__"):
            del obj.__dict__[self.__name__]
        else:
            setattr(obj, self.slot_name, _missing)


class environ_property(_DictAccessorProperty[_V]):
    """An attribute that reads a key of `self.environ`, converted and with a default.

    Read-only unless `read_only=False` is given. A converter's ValueError or TypeError means the default.
    """

    read_only = True

    def lookup(self, obj: Request) -> WSGIEnvironment:
        """The mapping that is read."""
        return obj.environ


class header_property(_DictAccessorProperty[_V]):
    """An attribute that reads and writes a field of `self.headers`."""

    def lookup(self, obj: Request | Response) -> Headers:  # type: ignore[override]
        """The headers that are read: no mapping by their type, but enough of one here."""
        return obj.headers


def get_content_type(mimetype: str, charset: str) -> str:
    """A media type with its charset, if it is text.

    Args:
        mimetype: The bare type.
        charset: Appended to `text/*`, `*+xml` and other types known to be text.
    """
    textual = mimetype.startswith("text/") or mimetype.endswith("+xml") or mimetype in _charset_mimetypes
    return f"{mimetype}; charset={charset}" if textual else mimetype


def secure_filename(filename: str) -> str:
    r"""A name that is safe to store a client's file under.

    Args:
        filename: Whatever the client calls its file.

    Returns:
        ASCII letters, digits, `_`, `-` and `.`, without separators or leading dots. May be empty: choose a
        name of your own then.

    >>> secure_filename("summer holidays (2).jpeg")
    'summer_holidays_2.jpeg'
    >>> secure_filename("../.ssh/authorized_keys")
    'ssh_authorized_keys'
    """
    import re

    filename = _to_ascii(filename)
    for separator in (os.sep, os.path.altsep):
        if separator:
            filename = filename.replace(separator, " ")

    filename = re.sub(r"[^A-Za-z0-9_.-]", "", "_".join(filename.split())).strip("._")
    if os.name == "nt" and filename.partition(".")[0].upper() in _windows_device_files:
        filename = f"_{filename}"
    return filename


_REDIRECT_PAGE = (
    "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n"
    '<p>You should be redirected automatically to the target URL: <a href="',
    '">',
    "</a>. If not, click the link.\n",
)


@cache
def _escape() -> Callable[[Any], str]:
    from markupsafe import escape

    return escape


def redirect(location: str, code: int = 302, Response: type[Response] | None = None) -> Response:
    """Send the client to another URL.

    Args:
        location: The URL, absolute or relative to the current one.
        code: 301, 302, 303, 305, 307 or 308.
        Response: The class of the response.

    Returns:
        A response with `Location` and a page for clients that do not follow it.
    """
    if Response is None:
        from .wrappers.response import Response as Default

        Response = Default

    link = _escape()(location)
    # Joined, since a format string asks `Markup` for its way of formatting.
    page = "".join((_REDIRECT_PAGE[0], link, _REDIRECT_PAGE[1], link, _REDIRECT_PAGE[2]))
    response = Response(page, code, mimetype="text/html")
    response.headers["Location"] = location
    return response


def append_slash_redirect(environ: WSGIEnvironment, code: int = 308) -> Response:
    """Send the client to the current URL with a slash at its end.

    The `Location` is relative and holds the last segment only, so that proxies may change the path.

    Args:
        environ: Where path and query come from. The path must not end with a slash.
        code: The status; 308 keeps method and body.
    """
    last = environ["PATH_INFO"].rpartition("/")[2]
    location = f"{last}/" if last else "./"
    if query := environ.get("QUERY_STRING"):
        location = f"{location}?{query}"
    return redirect(location, code)


def send_file(
    path_or_file: os.PathLike[str] | str | IO[bytes],
    environ: WSGIEnvironment,
    mimetype: str | None = None,
    as_attachment: bool = False,
    download_name: str | None = None,
    conditional: bool = True,
    etag: bool | str = True,
    last_modified: datetime | int | float | None = None,
    max_age: int | Callable[[str | None], int | None] | None = None,
    use_x_sendfile: bool = False,
    response_class: type[Response] | None = None,
    _root_path: os.PathLike[str] | str | None = None,
) -> Response:
    """Respond with the contents of a file.

    Args:
        path_or_file: A trusted path, or a file opened in binary mode. For a client's path there is
            `send_from_directory`.
        environ: The environ of the request, or the request itself.
        mimetype: The media type; guessed from the name if not given.
        as_attachment: Ask the client to save the file rather than to show it.
        download_name: The name that the client saves under; the path's last part if not given.
        conditional: Answer 304, 206 or 416 where the request's fields call for it.
        etag: An entity tag, or whether to make one from path, size and time of change.
        last_modified: When the file changed; read from the file system if not given.
        max_age: How many seconds the client may keep its copy, or a function from the path to that.
        use_x_sendfile: Leave it to a server in front to send the path (`X-Sendfile`).
        response_class: The class of the response.

    Returns:
        A response over the open file, which the server sends without reading it in Python where it can.

    Raises:
        OSError: If the path cannot be opened.
        TypeError: If neither name nor media type can be known.
        ValueError: If the file is opened in text mode.
        RequestedRangeNotSatisfiable: If no requested byte exists.

    Implements: werkzeug.utils.send_file (3.1); RFC 9110 §13 conditional requests, §14 ranges; RFC 6266.
    """
    from .datastructures import Headers
    from .http import http_date, quote_etag

    if response_class is None:
        from .wrappers.response import Response

        response_class = Response

    path: str | None = None
    file: IO[bytes] | None = None
    size: int | None = None
    if isinstance(path_or_file, str) or hasattr(path_or_file, "__fspath__"):
        name = os.fspath(path_or_file)
        path = os.path.abspath(name) if _root_path is None else os.path.join(_root_path, name)
        stat = os.stat(path)
        size = stat.st_size
        if last_modified is None:
            last_modified = stat.st_mtime
        if download_name is None:
            download_name = os.path.basename(path)
    else:
        file = path_or_file

    headers = Headers()
    if mimetype is None:
        mimetype, encoding = _guess_type(download_name)
        # A browser that saves an encoded file would store it decoded under its encoded name.
        if encoding is not None and not as_attachment:
            headers.set("Content-Encoding", encoding)
    _set_disposition(headers, download_name, as_attachment)

    body: Any = None
    if use_x_sendfile and path is not None:
        headers.set("X-Sendfile", path)
    else:
        if file is None:
            file = open(path, "rb")  # type: ignore[arg-type]  # noqa: SIM115
        else:
            size = _size_of(file)
        body = _wrap(environ, file)

    if size is not None:
        headers.set("Content-Length", str(size))
    if last_modified is not None:
        headers.set("Last-Modified", http_date(last_modified))
    _set_caching(headers, max_age(path) if callable(max_age) else max_age)
    if isinstance(etag, str):
        headers.set("ETag", quote_etag(etag))
    elif etag and path is not None:
        from zlib import adler32

        tag = f"{stat.st_mtime}-{size}-{adler32(path.encode())}"
        headers.set("ETag", quote_etag(tag))

    response = response_class(body, mimetype=mimetype, headers=headers, direct_passthrough=True)
    if conditional:
        try:
            response = response.make_conditional(environ, accept_ranges=True, complete_length=size)
        except BaseException:
            if file is not None:
                file.close()
            raise
        # Some servers send the named file even with a status that has no body.
        if response.status_code == 304:
            response.headers.pop("X-Sendfile", None)
    return response


def send_from_directory(
    directory: os.PathLike[str] | str,
    path: os.PathLike[str] | str,
    environ: WSGIEnvironment,
    **kwargs: Any,
) -> Response:
    """Respond with a file below a directory, whatever path the client gives.

    Args:
        directory: The trusted directory.
        path: The client's path, relative to the directory.
        environ: The environ of the request.
        kwargs: Handed to `send_file`.

    Raises:
        NotFound: If the path leaves the directory or is not a regular file.
    """
    from .exceptions import NotFound

    joined = safe_join(os.fspath(directory), os.fspath(path))
    if joined is None:
        raise NotFound()
    if "_root_path" in kwargs:
        joined = os.path.join(kwargs["_root_path"], joined)
    if not os.path.isfile(joined):
        raise NotFound()
    return send_file(joined, environ, **kwargs)


def import_string(import_name: str, silent: bool = False) -> Any:
    """Import a module, or something in it, by its dotted name.

    Args:
        import_name: `package.module`, `package.module.name` or `package.module:name`.
        silent: Return None instead of raising.

    Raises:
        ImportStringError: If nothing can be imported under the name.
    """
    dotted = import_name.replace(":", ".")
    try:
        try:
            __import__(dotted)
            return sys.modules[dotted]
        except ImportError:
            if "." not in dotted:
                raise
        module_name, _, attribute = dotted.rpartition(".")
        module = __import__(module_name, fromlist=[attribute])
        try:
            return getattr(module, attribute)
        except AttributeError as error:
            raise ImportError(error) from None
    except ImportError as error:
        if silent:
            return None
        raise ImportStringError(dotted, error).with_traceback(error.__traceback__) from None


def find_modules(import_path: str, include_packages: bool = False, recursive: bool = False) -> Iterator[str]:
    """The dotted names of the modules in a package.

    Args:
        import_path: The package.
        include_packages: Name sub-packages too.
        recursive: Go into sub-packages, which imports them.

    Raises:
        ValueError: If the path is not a package.
    """
    import pkgutil

    package = import_string(import_path)
    search_path = getattr(package, "__path__", None)
    if search_path is None:
        raise ValueError(f"{import_path!r} is not a package")
    for module in pkgutil.iter_modules(search_path, prefix=f"{package.__name__}."):
        if include_packages or not module.ispkg:
            yield module.name
        if recursive and module.ispkg:
            yield from find_modules(module.name, include_packages, recursive=True)


class ImportStringError(ImportError):
    """`import_string` failed; the message says how far it came.

    Args:
        import_name: The name that could not be imported.
        exception: Why.
    """

    import_name: str
    exception: BaseException

    def __init__(self, import_name: str, exception: BaseException) -> None:
        self.import_name = import_name
        self.exception = exception
        super().__init__(self._explain())

    def _explain(self) -> str:
        found: list[tuple[str, str | None]] = []
        parts = self.import_name.replace(":", ".").split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            part = import_string(name, silent=True)
            if part is None:
                steps = [f"- {known!r} found in {place!r}." for known, place in found]
                steps.append(f"- {name!r} not found.")
                break
            found.append((name, getattr(part, "__file__", None)))
        else:
            return self.import_name
        return (
            f"cannot import {self.import_name!r}:\n\n" + "\n".join(steps) + "\n\n"
            f"{type(self.exception).__name__}: {self.exception}\n\n"
            "Look for a misspelt name, a package without __init__.py, a path missing from sys.path, or"
            " another package of the same name that comes earlier in sys.path."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.import_name!r}, {self.exception!r})>"


def _to_ascii(text: str) -> str:
    """Text with its letters reduced to ASCII and everything else dropped."""
    if text.isascii():
        return text
    import unicodedata

    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _guess_type(name: str | None) -> tuple[str, str | None]:
    """Media type and content coding that a file name suggests."""
    import mimetypes

    if name is None:
        raise TypeError(
            "Unable to detect the MIME type because a file name is not available. Either set"
            " 'download_name', pass a path instead of a file, or set 'mimetype'."
        )
    mimetype, encoding = mimetypes.guess_type(name)
    return mimetype or "application/octet-stream", encoding


def _set_disposition(headers: Headers, name: str | None, as_attachment: bool) -> None:
    """Tell the client the file's name; beyond ASCII in both forms of RFC 6266 §4.3."""
    if name is None:
        if as_attachment:
            raise TypeError(
                "No name provided for attachment. Either set 'download_name' or pass a path instead of a"
                " file."
            )
        return
    names = {"filename": name}
    if not name.isascii():
        from urllib.parse import quote

        # The characters of RFC 8187's attr-char.
        names = {"filename": _to_ascii(name), "filename*": "UTF-8''" + quote(name, safe="!#$&+-.^_`|~")}
    headers.set("Content-Disposition", "attachment" if as_attachment else "inline", **names)


def _set_caching(headers: Headers, max_age: int | None) -> None:
    """Let the client keep its copy for a time, or make it ask each time."""
    if max_age is None:
        headers.set("Cache-Control", "no-cache")
        return
    from time import time

    from .http import http_date

    kind = "public" if max_age > 0 else "no-cache"
    headers.set("Cache-Control", f"{kind}, max-age={max_age}")
    headers.set("Expires", http_date(int(time() + max_age)))


def _size_of(file: IO[bytes]) -> int | None:
    """The size of a file in memory; other files do not say."""
    import io

    if isinstance(file, io.BytesIO):
        return file.getbuffer().nbytes
    if isinstance(file, io.TextIOBase):
        raise ValueError("Files must be opened in binary mode or use BytesIO.")
    return None


def _wrap(environ: WSGIEnvironment, file: IO[bytes]) -> Any:
    """The file in the server's wrapper, or in ours."""
    from .wsgi import wrap_file

    return wrap_file(environ if isinstance(environ, dict) else {}, file)
