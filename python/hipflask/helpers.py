"""Functions for views: responses, URLs, messages, files.

Implements `flask.helpers` (3.1).
"""

from __future__ import annotations

import os
import sys
from contextvars import copy_context
from functools import cache, update_wrapper

from . import signals
from ._core import bound_app
from ._core import url_for as url_for
from .globals import _cv_app, _cv_request, current_app, request, request_ctx, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import IO, Any, AnyStr, Literal, NoReturn, TypeVar, overload

    from . import werkzeug as werkzeug
    from .werkzeug.wrappers import Response as BaseResponse
    from .wrappers import Response

    F = TypeVar("F", bound=Callable[..., Any])


def __getattr__(name: str) -> Any:
    # Code that replaces `flask.helpers.werkzeug.utils.send_file`, as tests do, finds ours here.
    if name == "werkzeug":
        from . import werkzeug
        from .werkzeug import utils as utils

        return werkzeug
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_debug_flag() -> bool:
    """Tell whether `FLASK_DEBUG` asks for debug mode."""
    return os.environ.get("FLASK_DEBUG", "").lower() not in {"", "0", "false", "no"}


def get_load_dotenv(default: bool = True) -> bool:
    """Tell whether dotenv files shall be loaded: `default` unless `FLASK_SKIP_DOTENV` says otherwise."""
    value = os.environ.get("FLASK_SKIP_DOTENV", "").lower()
    return value in {"0", "false", "no"} if value else default


if TYPE_CHECKING:

    @overload
    def stream_with_context(generator_or_function: Iterator[AnyStr]) -> Iterator[AnyStr]: ...

    @overload
    def stream_with_context(generator_or_function: AsyncIterator[AnyStr]) -> AsyncIterator[AnyStr]: ...

    @overload
    def stream_with_context(
        generator_or_function: Callable[..., Iterator[AnyStr]],
    ) -> Callable[[Iterator[AnyStr]], Iterator[AnyStr]]: ...

    @overload
    def stream_with_context(
        generator_or_function: Callable[..., AsyncIterator[AnyStr]],
    ) -> Callable[..., AsyncIterator[AnyStr]]: ...


def stream_with_context(generator_or_function: Any) -> Any:
    """Keep the request's context while a generator runs, which is after the view has returned.

    Args:
        generator_or_function: An iterator or async iterator, or a function that gives one (as a decorator).

    Raises:
        RuntimeError: Outside of a request.
    """
    is_async = hasattr(generator_or_function, "__aiter__")
    try:
        pieces = generator_or_function if is_async else iter(generator_or_function)
    except TypeError:

        def decorator(*args: Any, **kwargs: Any) -> Any:
            return stream_with_context(generator_or_function(*args, **kwargs))

        return update_wrapper(decorator, generator_or_function)

    req_ctx = _cv_request.get(None)
    if req_ctx is None:
        raise RuntimeError(
            "'stream_with_context' can only be used when a request context is active, such as in a view"
            " function."
        )
    if is_async:
        from .streaming import with_contexts

        return with_contexts(pieces, _cv_app.get(), req_ctx)
    return _kept(pieces, _cv_app.get(), req_ctx)


def send_early_hints(*links: str, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> bool:
    """Tell the client, before the response is made, what it will need for it: 103 (Early Hints).

    A browser fetches the style sheets and scripts that are named while the view is still at work. Call it as
    early as possible, in a hook or a view, sync or async; several times if more becomes known. Only clients
    of HTTP/2 get them, unless the server's setting `early_hints` says otherwise.

    Args:
        links: Values of `Link` fields, such as `"</style.css>; rel=preload; as=style"`.
        headers: Further fields.

    Returns:
        Whether they are on their way. They are not if the client is not to get any, or if the server is
        another one that knows neither `wsgi.early_hints` nor ASGI's `http.response.early_hint`.

    Raises:
        RuntimeError: Outside of a request, or if the response has begun.
        ValueError: If a value cannot be sent, for example with a line end.

    Implements: RFC 8297.
    """
    send = request.environ.get("wsgi.early_hints")
    if send is None:
        return False
    items = headers.items() if hasattr(headers, "items") else headers
    # Others' servers return nothing.
    return send([*(("Link", link) for link in links), *items]) is not False


def stream_request_body(view: F) -> F:
    """Have the server call a coroutine view as soon as the request's head is there, while its body arrives.

    Such a view reads with `async for piece in request.body`, or awaits `request.get_data_async()`. Without
    this the server reads the body first, up to 16 MiB.

    Args:
        view: The view.
    """
    view.streams_request_body = True  # type: ignore[attr-defined]
    return view


def _kept(pieces: Iterator[Any], app_ctx: Any, req_ctx: Any) -> Iterator[Any]:
    """Take each piece in a context of its own, where the app's and the request's contexts are pushed.

    A server may ask for each piece on another thread, so what is pushed there would not be found again.
    """

    def inside() -> Iterator[Any]:
        # The app's context first, so that the request's does not make another one.
        with app_ctx, req_ctx:
            try:
                yield from pieces
            finally:
                # `yield from` closes generators; other iterators of a WSGI app may need it too.
                close = getattr(pieces, "close", None)
                if close is not None:
                    close()

    context = copy_context()
    iterator = inside()
    end = object()
    try:
        while (piece := context.run(next, iterator, end)) is not end:
            yield piece
    finally:
        context.run(iterator.close)  # type: ignore[attr-defined]


def make_response(*args: Any) -> Response:
    """Make a response object of what a view may return, to set headers on it.

    Args:
        args: Nothing for an empty response, else what the view would return, as one or several arguments.
    """
    app = bound_app() or current_app
    if not args:
        return app.response_class()
    return app.make_response(args[0] if len(args) == 1 else args)


def redirect(location: str, code: int = 302, Response: type[BaseResponse] | None = None) -> BaseResponse:
    """Make a redirect to `location`, with the current app's `redirect` if there is an app.

    Args:
        location: The URL.
        code: 301, 302, 303, 305, 307 or 308.
        Response: The response class where there is no app.
    """
    app = bound_app()
    if app is not None:
        return app.redirect(location, code=code)
    from .werkzeug.utils import redirect

    return redirect(location, code=code, Response=Response)


def abort(code: int | BaseResponse, *args: Any, **kwargs: Any) -> NoReturn:
    """Raise the exception for an HTTP status code, with the current app's `aborter` if there is an app.

    Args:
        code: The status code, or a response to send.
        args: Passed to the exception.
        kwargs: Passed to the exception.
    """
    app = bound_app()
    if app is not None:
        app.aborter(code, *args, **kwargs)
    from .werkzeug.exceptions import abort

    abort(code, *args, **kwargs)


def get_template_attribute(template_name: str, attribute: str) -> Any:
    """Return a macro or variable that a template exports, for use from Python."""
    return getattr(current_app.jinja_env.get_template(template_name).module, attribute)


def flash(message: str, category: str = "message") -> None:
    """Keep a message in the session for the next request.

    Args:
        message: The text.
        category: For example `"message"`, `"error"`, `"info"` or `"warning"`.
    """
    # Sessions kept elsewhere may not notice that a list inside of them changes: set it again.
    flashes = session.get("_flashes", [])
    flashes.append((category, message))
    session["_flashes"] = flashes
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    signals.send("message_flashed", app, message=message, category=category)


if TYPE_CHECKING:

    @overload
    def get_flashed_messages(
        with_categories: Literal[False] = False, category_filter: Iterable[str] = ()
    ) -> list[str]: ...
    @overload
    def get_flashed_messages(
        with_categories: Literal[True], category_filter: Iterable[str] = ()
    ) -> list[tuple[str, str]]: ...
    @overload
    def get_flashed_messages(
        with_categories: bool = False, category_filter: Iterable[str] = ()
    ) -> list[str] | list[tuple[str, str]]: ...


def get_flashed_messages(
    with_categories: bool = False, category_filter: Iterable[str] = ()
) -> list[str] | list[tuple[str, str]]:
    """Take the kept messages out of the session. Further calls in the same request return them again.

    Args:
        with_categories: Return pairs of category and message.
        category_filter: Return the messages of these categories only.
    """
    context = request_ctx._get_current_object()
    flashes = context.flashes
    if flashes is None:
        flashes = session.pop("_flashes") if "_flashes" in session else []
        context.flashes = flashes
    if category_filter:
        flashes = [pair for pair in flashes if pair[0] in category_filter]
    return flashes if with_categories else [message for _, message in flashes]


def _file_options(options: dict[str, Any]) -> dict[str, Any]:
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    if options.get("max_age") is None:
        options["max_age"] = app.get_send_file_max_age
    options.update(
        environ=request.environ,
        use_x_sendfile=app.config["USE_X_SENDFILE"],
        response_class=app.response_class,
        _root_path=app.root_path,
    )
    return options


def send_file(
    path_or_file: os.PathLike[AnyStr] | str | IO[bytes],
    mimetype: str | None = None,
    as_attachment: bool = False,
    download_name: str | None = None,
    conditional: bool = True,
    etag: bool | str = True,
    last_modified: datetime | int | float | None = None,
    max_age: None | (int | Callable[[str | None], int | None]) = None,
) -> Response:
    """Respond with a file's contents. Never pass a path that a user gave: see `send_from_directory`.

    Args:
        path_or_file: A path, relative to the app's root, or a binary file object.
        mimetype: The content's type; by default guessed from the name.
        as_attachment: Tell the browser to save the file.
        download_name: The name to save it under.
        conditional: Answer 304 or 206 when the request allows it.
        etag: Compute an ETag, or use this one.
        last_modified: The time of the last change; by default the file's.
        max_age: For how many seconds it may be cached, or a function of the path that tells.

    Implements: flask.send_file (3.1).
    """
    from .werkzeug import utils

    options = {
        "path_or_file": path_or_file,
        "mimetype": mimetype,
        "as_attachment": as_attachment,
        "download_name": download_name,
        "conditional": conditional,
        "etag": etag,
        "last_modified": last_modified,
        "max_age": max_age,
    }
    return utils.send_file(**_file_options(options))  # type: ignore[return-value]


def send_from_directory(
    directory: os.PathLike[str] | str, path: os.PathLike[str] | str, **kwargs: Any
) -> Response:
    """Respond with a file of a directory; a path that leads out of it is not found.

    Args:
        directory: The directory, relative to the app's root. Not from the user.
        path: The file's path below it. May be from the user.
        kwargs: Passed to `send_file`.

    Raises:
        NotFound: If there is no such file in the directory.
    """
    from .werkzeug import utils

    return utils.send_from_directory(directory, path, **_file_options(kwargs))  # type: ignore[return-value]


def get_root_path(import_name: str) -> str:
    """Return the folder of a module, or the current one if it has none.

    Raises:
        RuntimeError: For a namespace package, which has several.
    """
    module = sys.modules.get(import_name)
    path: str | None = getattr(module, "__file__", None)
    if path is not None:
        return os.path.dirname(os.path.abspath(path))

    from importlib.util import find_spec

    try:
        spec = find_spec(import_name)
    except (ImportError, ValueError):
        spec = None
    loader = None if spec is None else spec.loader
    if loader is None:
        # The main module of an interactive session, for example.
        return os.getcwd()

    if hasattr(loader, "get_filename"):
        path = loader.get_filename(import_name)
    else:
        __import__(import_name)
        path = getattr(sys.modules[import_name], "__file__", None)
        if path is None:
            raise RuntimeError(
                f"No root path can be found for the provided module {import_name!r}. It is a namespace"
                " package, or it came from an import hook that gives no file name: pass 'root_path'."
            )
    return os.path.dirname(os.path.abspath(path))


@cache
def _split_blueprint_path(name: str) -> list[str]:
    """Return the names of a nested blueprint and those around it, innermost first."""
    names = [name]
    while "." in name:
        name = name.rpartition(".")[0]
        names.append(name)
    return names
