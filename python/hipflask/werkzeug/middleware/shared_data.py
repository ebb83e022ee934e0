"""Serve files in front of an application.

For applications on other servers: our own engine serves static files without Python. Does not list
directories.

Implements: werkzeug.middleware.shared_data (3.1); RFC 9110 §13 conditional requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING

from ..http import http_date, is_resource_modified
from ..security import safe_join
from ..utils import get_content_type
from ..wsgi import get_path_info, wrap_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Opens a file: the file, when it changed, its size.
_TOpener = Callable[[], "tuple[IO[bytes], datetime, int]"]
#: Finds a file by the path below its export, or the export itself for None: its name, and what opens it.
_TLoader = Callable[["str | None"], "tuple[str | None, _TOpener | None]"]


class SharedDataMiddleware:
    """Answers requests for exported files, and leaves all others to the application.

    Args:
        app: The application.
        exports: URL paths and what is there: a file, a directory, or a package with a directory in it.
        disallow: A pattern of names (`fnmatch`) that are not served.
        cache: Let clients keep copies and ask whether they are fresh.
        cache_timeout: How many seconds a copy is good.
        fallback_mimetype: The type of files whose name tells none.

    Raises:
        TypeError: If an export is something else.
    """

    def __init__(
        self,
        app: WSGIApplication,
        exports: Mapping[str, str | tuple[str, str]] | Iterable[tuple[str, str | tuple[str, str]]],
        disallow: str | None = None,
        cache: bool = True,
        cache_timeout: int = 60 * 60 * 12,
        fallback_mimetype: str = "application/octet-stream",
    ) -> None:
        self.app = app
        self.cache = cache
        self.cache_timeout = cache_timeout
        self.fallback_mimetype = fallback_mimetype
        pairs = exports.items() if isinstance(exports, Mapping) else exports
        self.exports: list[tuple[str, _TLoader]] = [(path, self._loader(value)) for path, value in pairs]
        if disallow is not None:
            from fnmatch import fnmatch

            pattern = disallow
            self.is_allowed = lambda filename: not fnmatch(filename, pattern)  # type: ignore[method-assign]

    def _loader(self, value: str | tuple[str, str]) -> _TLoader:
        if isinstance(value, tuple):
            return self.get_package_loader(*value)
        if not isinstance(value, str):
            raise TypeError(f"unknown def {value!r}")
        return self.get_file_loader(value) if os.path.isfile(value) else self.get_directory_loader(value)

    def is_allowed(self, filename: str) -> bool:
        """Whether a file of this name may be served. Subclasses decide."""
        return True

    def get_file_loader(self, filename: str) -> _TLoader:
        """What serves one file."""
        return lambda path: (os.path.basename(filename), _opener(filename))

    def get_directory_loader(self, directory: str) -> _TLoader:
        """What serves the files of a directory."""

        def load(path: str | None) -> tuple[str | None, _TOpener | None]:
            file = directory if path is None else safe_join(directory, path)
            if file is None or not os.path.isfile(file):
                return None, None
            return os.path.basename(file), _opener(file)

        return load

    def get_package_loader(self, package: str, package_path: str) -> _TLoader:
        """What serves the files of a directory in a package, even in an archive."""
        import importlib.util
        import posixpath

        loaded = datetime.now(timezone.utc)
        spec = importlib.util.find_spec(package)
        reader = spec.loader.get_resource_reader(package)  # type: ignore[union-attr]

        def load(path: str | None) -> tuple[str | None, _TOpener | None]:
            inside = None if path is None else safe_join(package_path, path)
            if inside is None:
                return None, None
            try:
                resource = reader.open_resource(inside)
            except OSError:
                return None, None
            if hasattr(resource, "getbuffer"):
                opened = resource, loaded, resource.getbuffer().nbytes
            else:
                opened = resource, *_facts(resource.name)
            return posixpath.basename(inside), lambda: opened

        return load

    def generate_etag(self, mtime: datetime, file_size: int, real_filename: str) -> str:
        """The entity tag of a file, without its quotes."""
        from zlib import adler32

        return f"wzsdm-{mtime.timestamp()}-{file_size}-{adler32(os.fsencode(real_filename))}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with a file, or let the application answer."""
        name, opener = self._find(get_path_info(environ))
        if name is None or opener is None or not self.is_allowed(name):
            return self.app(environ, start_response)

        import mimetypes
        from time import time

        file, mtime, size = opener()
        headers = [("Date", http_date())]
        if self.cache:
            etag = self.generate_etag(mtime, size, name)
            headers += [("Etag", f'"{etag}"'), ("Cache-Control", f"max-age={self.cache_timeout}, public")]
            if not is_resource_modified(environ, etag, last_modified=mtime):
                file.close()
                start_response("304 Not Modified", headers)
                return []
            headers.append(("Expires", http_date(time() + self.cache_timeout)))
        else:
            headers.append(("Cache-Control", "public"))

        mimetype = mimetypes.guess_type(name)[0] or self.fallback_mimetype
        headers += [
            ("Content-Type", get_content_type(mimetype, "utf-8")),
            ("Content-Length", str(size)),
            ("Last-Modified", http_date(mtime)),
        ]
        start_response("200 OK", headers)
        return wrap_file(environ, file)

    def _find(self, path: str) -> tuple[str | None, _TOpener | None]:
        for export, loader in self.exports:
            name, opener = loader(None) if path == export else (None, None)
            folder = export if export.endswith("/") else f"{export}/"
            if opener is None and path.startswith(folder):
                name, opener = loader(path[len(folder) :])
            if opener is not None:
                return name, opener
        return None, None


def _facts(filename: str) -> tuple[datetime, int]:
    """When a file changed, and its size."""
    stat = os.stat(filename)
    return datetime.fromtimestamp(stat.st_mtime, tz=timezone.utc), stat.st_size


def _opener(filename: str) -> _TOpener:
    return lambda: (open(filename, "rb"), *_facts(filename))
