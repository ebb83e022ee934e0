"""What `hipflask run` serves: a Flask app, or an application of another framework, WSGI or ASGI.

Looks for Flask apps first, as Flask does. What is none is taken as it is: `hipflask.asgi` runs those that
speak ASGI, the engine itself those that speak WSGI.
"""

from __future__ import annotations

import re
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .locating import app_of_file, prepare_import

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

    from .cli import NoAppException
    from .locating import ScriptInfo

# Where frameworks' projects have their application, if nobody says where.
_NAMES = ("app", "application", "asgi_app")


def load(info: ScriptInfo, interface: str = "auto", lifespan: str = "auto") -> WSGIApplication:
    """Load what is to be served, ready for `hipflask._core.Server`.

    Args:
        info: What the command line says about it.
        interface: What it speaks: `wsgi`, `asgi`, or `auto` to find out.
        lifespan: Whether an ASGI application gets lifespan events: `auto`, `on` or `off`.

    Raises:
        NoAppException: If there is no application.
    """
    app: Any
    try:
        app = info.load_app()
        if interface == "auto":
            # One of Flask's: nothing to find out, and what ASGI needs is not imported.
            return app  # type: ignore[no-any-return]
        if interface == "asgi":
            app = app.asgi_app
    except Exception as error:
        from .cli import NoAppException

        if isinstance(error, NoAppException):
            app = _other_app(info, error)
        else:
            # A wrapper `def wrapper(*args)` around an application looks like a factory, and was called like
            # one.
            app = _named(info) if interface != "auto" else None
            app = app if isinstance(app, FunctionType) and _takes_anything(app) else None
        if app is None:
            raise
    if interface == "auto":
        from .asgi import is_asgi

        interface = "asgi" if is_asgi(app) else "wsgi"
    if interface == "asgi":
        from .asgi import Host

        return Host(app, lifespan)  # type: ignore[return-value]
    return app  # type: ignore[no-any-return]


def _other_app(info: ScriptInfo, error: NoAppException) -> Callable[..., Any] | None:
    """Find an application that is not Flask's, where `error` says that there is none of Flask's."""
    found = error.found if error.found is not None else _named(info)
    return found if callable(found) and not isinstance(found, ModuleType) and _takes_requests(found) else None


def _named(info: ScriptInfo) -> Any:
    """Return what the name behind the colon stands for, or a usual name if there is none; else None."""
    path = info.app_import_path or app_of_file()
    if not path:
        return None
    path, *name = re.split(r":(?![\\/])", path, maxsplit=1)
    module: Any = sys.modules.get(prepare_import(path))
    for candidate in name or _NAMES:
        found = module
        for part in candidate.strip().split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    return None


def _takes_anything(function: Callable[..., Any]) -> bool:
    """Tell whether a function's only parameters are `*args` and perhaps `**kwargs`."""
    import inspect

    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return kinds[:1] == [inspect.Parameter.VAR_POSITIONAL]


def _takes_requests(candidate: Callable[..., Any]) -> bool:
    """Tell whether it can be called as WSGI (two arguments) or ASGI (three) does."""
    import inspect

    try:
        signature = inspect.signature(candidate)
    except (TypeError, ValueError):
        return True
    for arguments in ((None, None), (None, None, None)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return True
    return False
