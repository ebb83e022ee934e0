"""Data structures for requests and responses: headers, dicts with several values for a key, parsed fields.

The structures that nearly every request needs are there at once; a module with the rest is imported with the
first of its names.

Implements: werkzeug.datastructures (3.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .headers import EnvironHeaders as EnvironHeaders
from .headers import Headers as Headers
from .mixins import ImmutableDictMixin as ImmutableDictMixin
from .mixins import ImmutableHeadersMixin as ImmutableHeadersMixin
from .mixins import ImmutableListMixin as ImmutableListMixin
from .mixins import ImmutableMultiDictMixin as ImmutableMultiDictMixin
from .mixins import UpdateDictMixin as UpdateDictMixin
from .structures import _DEPRECATED
from .structures import CallbackDict as CallbackDict
from .structures import CombinedMultiDict as CombinedMultiDict
from .structures import HeaderSet as HeaderSet
from .structures import ImmutableDict as ImmutableDict
from .structures import ImmutableList as ImmutableList
from .structures import ImmutableMultiDict as ImmutableMultiDict
from .structures import ImmutableTypeConversionDict as ImmutableTypeConversionDict
from .structures import MultiDict as MultiDict
from .structures import TypeConversionDict as TypeConversionDict
from .structures import iter_multi_items as iter_multi_items

if TYPE_CHECKING:
    from .accept import Accept as Accept
    from .accept import CharsetAccept as CharsetAccept
    from .accept import LanguageAccept as LanguageAccept
    from .accept import MIMEAccept as MIMEAccept
    from .auth import Authorization as Authorization
    from .auth import WWWAuthenticate as WWWAuthenticate
    from .cache_control import RequestCacheControl as RequestCacheControl
    from .cache_control import ResponseCacheControl as ResponseCacheControl
    from .csp import ContentSecurityPolicy as ContentSecurityPolicy
    from .etag import ETags as ETags
    from .file_storage import FileMultiDict as FileMultiDict
    from .file_storage import FileStorage as FileStorage
    from .range import ContentRange as ContentRange
    from .range import IfRange as IfRange
    from .range import Range as Range

__all__ = [
    "Accept",
    "Authorization",
    "CallbackDict",
    "CharsetAccept",
    "CombinedMultiDict",
    "ContentRange",
    "ContentSecurityPolicy",
    "ETags",
    "EnvironHeaders",
    "FileMultiDict",
    "FileStorage",
    "HeaderSet",
    "Headers",
    "IfRange",
    "ImmutableDict",
    "ImmutableDictMixin",
    "ImmutableHeadersMixin",
    "ImmutableList",
    "ImmutableListMixin",
    "ImmutableMultiDict",
    "ImmutableMultiDictMixin",
    "ImmutableTypeConversionDict",
    "LanguageAccept",
    "MIMEAccept",
    "MultiDict",
    "Range",
    "RequestCacheControl",
    "ResponseCacheControl",
    "TypeConversionDict",
    "UpdateDictMixin",
    "WWWAuthenticate",
    "iter_multi_items",
]

_LATER = {
    "Accept": "accept",
    "CharsetAccept": "accept",
    "LanguageAccept": "accept",
    "MIMEAccept": "accept",
    "Authorization": "auth",
    "WWWAuthenticate": "auth",
    "RequestCacheControl": "cache_control",
    "ResponseCacheControl": "cache_control",
    "ContentSecurityPolicy": "csp",
    "ETags": "etag",
    "FileMultiDict": "file_storage",
    "FileStorage": "file_storage",
    "ContentRange": "range",
    "IfRange": "range",
    "Range": "range",
}
_MODULES = frozenset(_LATER.values())


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LATER:
        value = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
        return value
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _DEPRECATED:
        import warnings

        from . import _ordered

        warnings.warn(
            f"'{name}' is deprecated and will be removed in Werkzeug 3.2. Use '{_DEPRECATED[name]}' instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(_ordered, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
