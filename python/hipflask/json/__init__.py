"""JSON by the application's rules.

Each function asks the current application's provider (`app.json`), and follows Flask's default rules where
there is no application.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from .._core import bound_app
from ..globals import current_app

if TYPE_CHECKING:
    from ..wrappers import Response


def dumps(obj: Any, **kwargs: Any) -> str:
    """Write an object as JSON text.

    Args:
        obj: What to write.
        **kwargs: Passed to `app.json.dumps`, and by it to `json.dumps`.

    Implements: flask.json.dumps (3.1).
    """
    if current_app:
        return current_app.json.dumps(obj, **kwargs)
    from .provider import _default, _dumps

    kwargs.setdefault("default", _default)
    return _dumps(obj, kwargs)


def dump(obj: Any, fp: IO[str], **kwargs: Any) -> None:
    """Write an object as JSON text to a file.

    Implements: flask.json.dump (3.1).
    """
    if current_app:
        current_app.json.dump(obj, fp, **kwargs)
        return
    import json

    from .provider import _default

    kwargs.setdefault("default", _default)
    json.dump(obj, fp, **kwargs)


def loads(s: str | bytes, **kwargs: Any) -> Any:
    """Read JSON text.

    Implements: flask.json.loads (3.1).
    """
    if current_app:
        return current_app.json.loads(s, **kwargs)
    import json

    return json.loads(s, **kwargs)


def load(fp: IO[Any], **kwargs: Any) -> Any:
    """Read JSON text from a file.

    Implements: flask.json.load (3.1).
    """
    if current_app:
        return current_app.json.load(fp, **kwargs)
    import json

    return json.load(fp, **kwargs)


def jsonify(*args: Any, **kwargs: Any) -> Response:
    """Answer with JSON.

    One positional argument is the value itself, several are a list, keyword arguments an object.

    Returns:
        A response of the application's class, with `Content-Type: application/json`.

    Raises:
        TypeError: If positional and keyword arguments are mixed.

    Implements: flask.json.jsonify (3.1).
    """
    return (bound_app() or current_app).json.response(*args, **kwargs)
