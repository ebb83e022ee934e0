"""Errors and explanations that only debug mode gives.

Implements `flask.debughelpers` (3.1).
"""

from __future__ import annotations

from .blueprints import Blueprint
from .globals import request
from .sansio.app import App
from .werkzeug.routing import RequestRedirect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jinja2 import BaseLoader

    from .sansio.scaffold import Scaffold
    from .templating import Source
    from .wrappers import Request


class UnexpectedUnicodeError(AssertionError, UnicodeError):
    """Text came where bytes were expected, or the other way round."""


class DebugFilesKeyError(KeyError, AssertionError):
    """A file was asked for that the form sent as a plain field.

    Args:
        request: The request.
        key: The field's name.
    """

    def __init__(self, request: Request, key: str) -> None:
        self.msg = (
            f"You tried to access the file {key!r} in the request.files dictionary but it does not exist. The"
            f" mimetype for the request is {request.mimetype!r} instead of 'multipart/form-data' which means"
            " that no file contents were transmitted. To fix this error you should provide"
            ' enctype="multipart/form-data" in your form.'
        )
        names = request.form.getlist(key)
        if names:
            sent = ", ".join(map(repr, names))
            self.msg += f"\n\nThe browser instead transmitted some file names. This was submitted: {sent}"

    def __str__(self) -> str:
        return self.msg


class FormDataRoutingRedirect(AssertionError):
    """A request with a body went to a URL that redirects: browsers would drop the body.

    Args:
        request: The request, with its redirect as routing exception.
    """

    def __init__(self, request: Request) -> None:
        redirect = request.routing_exception
        assert isinstance(redirect, RequestRedirect)
        text = (
            f"A request was sent to '{request.url}', but routing issued a redirect to the canonical URL"
            f" '{redirect.new_url}'."
        )
        if f"{request.base_url}/" == redirect.new_url.partition("?")[0]:
            text += (
                " The URL was defined with a trailing slash. Flask will redirect to the URL with a trailing"
                " slash if it was accessed without one."
            )
        super().__init__(
            f"{text} Send requests to the canonical URL, or use 307 or 308 for routing redirects. Otherwise,"
            " browsers will drop form data.\n\nThis exception is only raised in debug mode."
        )


def attach_enctype_error_multidict(request: Request) -> None:
    """Make `request.files[key]` raise `DebugFilesKeyError` where the form has a field of that name."""
    base: Any = request.files.__class__

    class Files(base):  # type: ignore[misc]
        def __getitem__(self, key: str) -> Any:
            try:
                return super().__getitem__(key)
            except KeyError as error:
                if key not in request.form:
                    raise
                raise DebugFilesKeyError(request, key).with_traceback(error.__traceback__) from None

    Files.__name__ = base.__name__
    Files.__module__ = base.__module__
    request.files = Files(request.files)


def _dump_loader_info(loader: BaseLoader) -> Iterator[str]:
    yield f"class: {type(loader).__module__}.{type(loader).__name__}"
    for key, value in sorted(vars(loader).items()):
        if key.startswith("_"):
            continue
        if isinstance(value, (tuple, list)):
            if all(isinstance(item, str) for item in value):
                yield f"{key}:"
                for item in value:
                    yield f"  - {item}"
        elif isinstance(value, (str, int, float, bool)):
            yield f"{key}: {value!r}"


def _owner_text(owner: Scaffold) -> str:
    if isinstance(owner, App):
        return f"application {owner.import_name!r}"
    if isinstance(owner, Blueprint):
        return f"blueprint {owner.name!r} ({owner.import_name})"
    return repr(owner)


def explain_template_loading_attempts(
    app: App, template: str, attempts: list[tuple[BaseLoader, Scaffold, Source | None]]
) -> None:
    """Log where a template was looked for, and what was found there."""
    lines = [f"Locating template {template!r}:"]
    found = 0
    for number, (loader, owner, source) in enumerate(attempts, 1):
        lines.append(f"{number:5}: trying loader of {_owner_text(owner)}")
        lines.extend(f"       {line}" for line in _dump_loader_info(loader))
        if source is None:
            lines.append("       -> no match")
        else:
            found += 1
            lines.append(f"       -> found ({source[1] or '<string>'!r})")

    if found == 0:
        lines.append("Error: the template could not be found.")
    elif found > 1:
        lines.append("Warning: multiple loaders returned a match for the template.")
    blueprint = request.blueprint if request else None
    if found != 1 and blueprint is not None:
        lines.append(
            f"  The template was looked up from an endpoint that belongs to the blueprint {blueprint!r}."
        )
        lines.append("  Maybe you did not place a template in the right folder?")
        lines.append("  See https://flask.palletsprojects.com/blueprints/#templates")
    app.logger.info("\n".join(lines))
