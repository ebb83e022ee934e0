"""How an application writes and reads JSON.

The default provider writes natively whatever is made of plain types, and hands the rest to the standard
library, whose bytes and errors are the reference.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any
from weakref import proxy

from .._core import json_dumps, json_loads, json_response_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..sansio.app import App
    from ..wrappers import Response


class JSONProvider:
    """What an application needs to speak JSON. A subclass must give `dumps` and `loads`.

    Set `app.json` to an instance, or `json_provider_class` on the application's class.

    Implements: flask.json.provider.JSONProvider (3.1).
    """

    def __init__(self, app: App) -> None:
        self._app: App = proxy(app)

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Write an object as JSON text."""
        raise NotImplementedError

    def dump(self, obj: Any, fp: IO[str], **kwargs: Any) -> None:
        """Write an object as JSON text to a file."""
        fp.write(self.dumps(obj, **kwargs))

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Read JSON text."""
        raise NotImplementedError

    def load(self, fp: IO[Any], **kwargs: Any) -> Any:
        """Read JSON text from a file."""
        return self.loads(fp.read(), **kwargs)

    def _prepare_response_obj(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and kwargs:
            raise TypeError("app.json.response() takes either args or kwargs, not both")
        if len(args) == 1:
            return args[0]
        return args or kwargs or None

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Answer with JSON: of one argument, of a list of several, or of an object of keyword arguments.

        Raises:
            TypeError: If positional and keyword arguments are mixed.
        """
        obj = self._prepare_response_obj(args, kwargs)
        response: Response = self._app.response_class(self.dumps(obj), mimetype="application/json")
        return response


def _default(o: Any) -> Any:
    """Turn a value that JSON does not know into one that it does."""
    from datetime import date

    if isinstance(o, date):
        from ..werkzeug.http import http_date

        return http_date(o)
    from decimal import Decimal
    from uuid import UUID

    if isinstance(o, (Decimal, UUID)):
        return str(o)
    from dataclasses import asdict, is_dataclass

    if is_dataclass(o):
        return asdict(o)  # type: ignore[arg-type]
    if hasattr(o, "__html__"):
        return str(o.__html__())
    raise TypeError(f"Object of type {type(o).__name__} is not JSON serializable")


_NATIVE = {"default", "sort_keys", "ensure_ascii", "separators", "indent"}


def _dumps(obj: Any, kwargs: dict[str, Any]) -> str:
    """Write natively if the arguments and the object allow it, else as `json.dumps` does."""
    if kwargs.keys() <= _NATIVE:
        text = json_dumps(obj, **kwargs)
        if text is not None:
            return text
    import json

    return json.dumps(obj, **kwargs)


class DefaultJSONProvider(JSONProvider):
    """Flask's rules for JSON.

    Dates become HTTP dates, `decimal.Decimal` and `uuid.UUID` text, dataclasses objects, and what has
    `__html__` its markup.

    Implements: flask.json.provider.DefaultJSONProvider (3.1).
    """

    #: Called with a value that JSON does not know.
    default: Callable[[Any], Any] = staticmethod(_default)
    #: Write other characters than ASCII as escapes.
    ensure_ascii = True
    #: Sort the keys of objects, so that equal objects are equal text, which caches need.
    sort_keys = True
    #: Whether responses are without spaces. None: indented in debug mode.
    compact: bool | None = None
    #: The media type of responses.
    mimetype = "application/json"

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Write an object as JSON text.

        Args:
            obj: What to write.
            **kwargs: As of `json.dumps`; they win over the provider's settings.
        """
        kwargs.setdefault("default", self.default)
        kwargs.setdefault("ensure_ascii", self.ensure_ascii)
        kwargs.setdefault("sort_keys", self.sort_keys)
        return _dumps(obj, kwargs)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Read JSON text.

        Args:
            s: Text, or bytes in UTF-8.
            **kwargs: As of `json.loads`.

        Raises:
            ValueError: If the text is malformed, or nested deeper than Python's recursion limit.
        """
        if not kwargs:
            value = json_loads(s)
            if value is not NotImplemented:
                return value
        import json

        try:
            return json.loads(s, **kwargs)
        except RecursionError:
            # Who sends such a text has made a mistake; this server has not.
            raise ValueError("JSON text is nested too deeply") from None

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Answer with JSON and a newline at its end, indented by two spaces in debug mode unless `compact`
        says more.

        Raises:
            TypeError: If positional and keyword arguments are mixed.
        """
        obj = self._prepare_response_obj(args, kwargs)
        text = json_response_text(self, obj)
        if text is not None:
            return self._app.response_class(text, mimetype=self.mimetype)
        layout: dict[str, Any]
        if self.compact is False or (self.compact is None and self._app.debug):
            layout = {"indent": 2}
        else:
            layout = {"separators": (",", ":")}
        response: Response = self._app.response_class(
            self.dumps(obj, **layout) + "\n", mimetype=self.mimetype
        )
        return response
