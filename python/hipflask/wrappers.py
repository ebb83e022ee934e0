"""Flask's request and response classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import json
from .globals import current_app
from .werkzeug.wrappers import Request as RequestBase
from .werkzeug.wrappers import Response as ResponseBase

if TYPE_CHECKING:
    from .werkzeug.exceptions import HTTPException
    from .werkzeug.routing import Rule


def _limit(name: str, key: str, doc: str) -> Any:
    """A limit that may be set on one request and otherwise comes from the app's config."""
    own = f"_{name}"

    def read(self: Request) -> int | None:
        value: int | None = getattr(self, own)
        if value is None:
            value = current_app.config[key] if current_app else getattr(RequestBase, name)
        return value

    def write(self: Request, value: int | None) -> None:
        setattr(self, own, value)

    return property(read, write, doc=doc)


class Request(RequestBase):
    """The request as a view sees it: Werkzeug's, with what routing found.

    Implements: flask.Request (3.1).
    """

    json_module: Any = json

    if TYPE_CHECKING:
        url_rule: Rule | None
        view_args: dict[str, Any] | None
        routing_exception: HTTPException | None

    _max_content_length: int | None = None
    _max_form_memory_size: int | None = None
    _max_form_parts: int | None = None

    max_content_length = _limit(
        "max_content_length",
        "MAX_CONTENT_LENGTH",
        "Most bytes of body; more is answered with 413. From ``MAX_CONTENT_LENGTH`` unless set here.",
    )
    max_form_memory_size = _limit(
        "max_form_memory_size",
        "MAX_FORM_MEMORY_SIZE",
        "Most bytes of one form field that is not a file. From ``MAX_FORM_MEMORY_SIZE`` unless set here.",
    )
    max_form_parts = _limit(
        "max_form_parts",
        "MAX_FORM_PARTS",
        "Most parts of a multipart form. From ``MAX_FORM_PARTS`` unless set here.",
    )

    @property
    def endpoint(self) -> str | None:
        """The endpoint that matched, or None."""
        rule = self.url_rule
        return None if rule is None else rule.endpoint

    @property
    def blueprint(self) -> str | None:
        """The name of the blueprint that the endpoint belongs to, or None."""
        endpoint = self.endpoint
        return endpoint.rpartition(".")[0] if endpoint is not None and "." in endpoint else None

    @property
    def blueprints(self) -> list[str]:
        """The names of that blueprint and of those it is nested in, the innermost first."""
        name = self.blueprint
        if name is None:
            return []
        from .helpers import _split_blueprint_path

        return _split_blueprint_path(name)

    def _load_form_data(self) -> None:
        super()._load_form_data()
        # A developer who forgot the form's enctype is told so when looking for the missing file.
        if current_app and current_app.debug and self.mimetype != "multipart/form-data" and not self.files:
            from .debughelpers import attach_enctype_error_multidict

            attach_enctype_error_multidict(self)

    def on_json_loading_failed(self, e: ValueError | None) -> Any:
        """Called when the body is not JSON: a bare 400 in production, the parser's words in debug mode.

        Args:
            e: The parser's error; None if the media type was not JSON.

        Raises:
            BadRequest: If the body could not be parsed.
            UnsupportedMediaType: If the media type was not JSON.
        """
        from .werkzeug.exceptions import BadRequest

        try:
            return super().on_json_loading_failed(e)
        except BadRequest as error:
            if current_app and current_app.debug:
                raise
            raise BadRequest() from error


class Response(ResponseBase):
    """The response that views return: Werkzeug's, with HTML as its default media type.

    Implements: flask.Response (3.1).
    """

    default_mimetype: str | None = "text/html"

    json_module: Any = json

    autocorrect_location_header = False

    @property
    def max_cookie_size(self) -> int:  # type: ignore[override]
        """Longest cookie that goes without a warning: the app's ``MAX_COOKIE_SIZE``."""
        if current_app:
            return current_app.config["MAX_COOKIE_SIZE"]  # type: ignore[no-any-return]
        return super().max_cookie_size
