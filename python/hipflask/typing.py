"""Types of what users write: views, hooks, handlers and their results.

Implements `flask.typing` (3.1).
"""

# `X | Y` cannot be evaluated where one side is a string.
# ruff: noqa: UP007, UP045

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication  # noqa: F401

    from .werkzeug.datastructures import Headers  # noqa: F401
    from .werkzeug.sansio.response import Response  # noqa: F401

# What becomes a body.
ResponseValue = Union[
    "Response",
    str,
    bytes,
    list[Any],
    # A dict, rather; but a TypedDict is only known to be a Mapping.
    Mapping[str, Any],
    Iterator[str],
    Iterator[bytes],
    AsyncIterable[str],
    AsyncIterable[bytes],
]

HeaderValue = Union[str, list[str], tuple[str, ...]]
HeadersValue = Union["Headers", Mapping[str, HeaderValue], Sequence[tuple[str, HeaderValue]]]

# What a view returns.
ResponseReturnValue = Union[
    ResponseValue,
    tuple[ResponseValue, HeadersValue],
    tuple[ResponseValue, int],
    tuple[ResponseValue, int, HeadersValue],
    "WSGIApplication",
]

# A hook may name any subclass of the base response as its argument.
ResponseClass = TypeVar("ResponseClass", bound="Response")

# None for the app, else a blueprint's name.
AppOrBlueprintKey = Optional[str]
AfterRequestCallable = Union[
    Callable[[ResponseClass], ResponseClass], Callable[[ResponseClass], Awaitable[ResponseClass]]
]
# What it returns is ignored.
AfterResponseCallable = Callable[[Any], Any]
BeforeFirstRequestCallable = Union[Callable[[], None], Callable[[], Awaitable[None]]]
BeforeRequestCallable = Union[
    Callable[[], ResponseReturnValue | None], Callable[[], Awaitable[ResponseReturnValue | None]]
]
ShellContextProcessorCallable = Callable[[], dict[str, Any]]
TeardownCallable = Union[
    Callable[[BaseException | None], None], Callable[[BaseException | None], Awaitable[None]]
]
TemplateContextProcessorCallable = Union[
    Callable[[], dict[str, Any]], Callable[[], Awaitable[dict[str, Any]]]
]
TemplateFilterCallable = Callable[..., Any]
TemplateGlobalCallable = Callable[..., Any]
TemplateTestCallable = Callable[..., bool]
URLDefaultCallable = Callable[[str, dict[str, Any]], None]
URLValuePreprocessorCallable = Callable[[str | None, dict[str, Any] | None], None]

# The argument is any: a handler names the class that it was registered for.
ErrorHandlerCallable = Union[
    Callable[[Any], ResponseReturnValue], Callable[[Any], Awaitable[ResponseReturnValue]]
]
RouteCallable = Union[Callable[..., ResponseReturnValue], Callable[..., Awaitable[ResponseReturnValue]]]
