"""A WSGI application that shows what the server and the interpreter tell about themselves.

Does not belong on a public server: the page shows the environment.

Implements: werkzeug.testapp (3.1).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .wrappers.request import Request
from .wrappers.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-top: 1px solid #ccc; padding: .2rem .5rem; text-align: left; vertical-align: top }
th { width: 16rem; font-weight: normal; color: #555 }
code { overflow-wrap: anywhere }
.missing { color: #999; text-decoration: line-through }
"""


@Request.application
def test_app(req: Request) -> Response:
    """Answer every request with a page about interpreter, environ, packages and paths."""
    return Response("".join(_page(req)), mimetype="text/html")


# Keeps pytest from taking it for a test.
test_app.__test__ = False  # type: ignore[attr-defined]


def iter_sys_path() -> Iterator[tuple[str, bool, bool]]:
    """Each entry of `sys.path` as shown, whether it is no directory, and whether it was relative."""
    import os

    home = os.path.expanduser("~")
    for item in sys.path:
        path = os.path.join(os.getcwd(), item or os.curdir)
        shown = os.path.normpath(path)
        if os.name == "posix" and shown.startswith(home):
            shown = "~" + shown[len(home) :]
        yield shown, not os.path.isdir(path), path != item


def _page(req: Request) -> Iterator[str]:
    import os
    from importlib.metadata import distributions

    interpreter = {
        "Python": sys.version,
        "Platform": f"{sys.platform} [{os.name}]",
        "API version": sys.api_version,
        "Byte order": sys.byteorder,
    }
    variables = sorted(req.environ.items(), key=lambda item: repr(item[0]).lower())
    packages = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}

    yield f"<!doctype html>\n<html lang=en>\n<title>WSGI Information</title>\n<style>{_STYLE}</style>\n"
    yield "<h1>WSGI Information</h1>\n<h2>Python Interpreter</h2>\n"
    yield from _table(interpreter.items())
    yield "<h2>WSGI Environment</h2>\n"
    yield from _table((str(key), repr(value)) for key, value in variables)
    yield "<h2>Installed Packages</h2>\n"
    yield from _table(sorted(packages.items(), key=lambda item: item[0].lower()))
    yield "<h2>System Path</h2>\n<ul>\n"
    for path, missing, _ in iter_sys_path():
        yield f"<li{' class=missing' if missing else ''}><code>{_escape(path)}</code>\n"
    yield "</ul>\n"


def _table(rows: Iterable[tuple[str, object]]) -> Iterator[str]:
    yield "<table>\n"
    for key, value in rows:
        yield f"<tr><th>{_escape(key)}<td><code>{_escape(value)}</code>\n"
    yield "</table>\n"


def _escape(value: object) -> str:
    from markupsafe import escape

    return str(escape(value))


if __name__ == "__main__":
    from .serving import run_simple

    run_simple("localhost", 5000, test_app, use_reloader=True)
