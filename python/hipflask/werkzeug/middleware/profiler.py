"""Profile each request with `cProfile`.

The body is read to its end inside the profile, so generators count; streams are therefore not streamed.

Implements: werkzeug.middleware.profiler (3.1).
"""

from __future__ import annotations

import os
import sys
import time
from cProfile import Profile
from pstats import Stats
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ProfilerMiddleware:
    """Prints or stores a profile of each request.

    Args:
        app: The application.
        stream: Where to print; None prints nothing.
        sort_by: Columns to sort by, as for `pstats.Stats.sort_stats`.
        restrictions: What to print, as for `pstats.Stats.print_stats`.
        profile_dir: Where to store a file for each request.
        filename_format: The file's name, with the fields `method`, `path` (`root` for the root), `elapsed`
            (milliseconds) and `time`; or a function of the environ, which has the last two under
            `werkzeug.profiler`.
    """

    def __init__(
        self,
        app: WSGIApplication,
        stream: IO[str] | None = sys.stdout,
        sort_by: Iterable[str] = ("time", "calls"),
        restrictions: Iterable[str | int | float] = (),
        profile_dir: str | None = None,
        filename_format: str | Callable[[WSGIEnvironment], str] = (
            "{method}.{path}.{elapsed:.0f}ms.{time:.0f}.prof"
        ),
    ) -> None:
        self._app = app
        self._stream = stream
        self._sort_by = sort_by
        self._restrictions = restrictions
        self._profile_dir = profile_dir
        self._filename_format = filename_format

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, then print and store the profile."""
        pieces: list[bytes] = []

        def collecting_start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            start_response(status, headers, exc_info)
            return pieces.append

        def run() -> None:
            body = self._app(environ, collecting_start_response)
            try:
                pieces.extend(body)
            finally:
                if hasattr(body, "close"):
                    body.close()

        profile = Profile()
        start = time.perf_counter()
        profile.runcall(run)
        elapsed = (time.perf_counter() - start) * 1000
        if self._profile_dir is not None:
            profile.dump_stats(os.path.join(self._profile_dir, self._filename(environ, elapsed)))
        if self._stream is not None:
            self._print(profile, environ, self._stream)
        return [b"".join(pieces)]

    def _filename(self, environ: WSGIEnvironment, elapsed: float) -> str:
        times = {"elapsed": elapsed, "time": time.time()}
        if callable(self._filename_format):
            environ["werkzeug.profiler"] = times
            return self._filename_format(environ)
        path = environ["PATH_INFO"].strip("/").replace("/", ".") or "root"
        return self._filename_format.format(method=environ["REQUEST_METHOD"], path=path, **times)

    def _print(self, profile: Profile, environ: WSGIEnvironment, stream: IO[str]) -> None:
        stats = Stats(profile, stream=stream)
        stats.sort_stats(*self._sort_by)
        rule = "-" * 80
        print(f"{rule}\nPATH: {environ.get('PATH_INFO', '')!r}", file=stream)
        stats.print_stats(*self._restrictions)
        print(f"{rule}\n", file=stream)
