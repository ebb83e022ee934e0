"""Werkzeug's modules, under Werkzeug's names, on the native core. The names below are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .serving import run_simple as run_simple
    from .test import Client as Client
    from .wrappers import Request as Request
    from .wrappers import Response as Response

#: The version of Werkzeug whose behaviour this is.
__version__ = "3.1.6"

_HOMES = {"run_simple": "serving", "Client": "test", "Request": "wrappers", "Response": "wrappers"}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return sorted(_HOMES)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOMES.keys())
