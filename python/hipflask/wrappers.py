"""Flask's request and response classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import json
from ._core import RequestBase as _RequestBase
from .globals import current_app
from .werkzeug.wrappers import Request as RequestBase
from .werkzeug.wrappers import Response as ResponseBase

if TYPE_CHECKING:
    from .streaming import RequestBody
    from .tls import ClientCertificate
    from .werkzeug.datastructures import Headers
    from .werkzeug.exceptions import HTTPException
    from .werkzeug.routing import Rule


class Request(RequestBase):
    """The request as a view sees it: Werkzeug's, with what routing found.

    Implements: flask.Request (3.1).
    """

    json_module: Any = json

    if TYPE_CHECKING:
        url_rule: Rule | None
        view_args: dict[str, Any] | None
        routing_exception: HTTPException | None

    max_content_length: int | None = _RequestBase._app_max_content_length
    max_form_memory_size: int | None = _RequestBase._app_max_form_memory_size
    max_form_parts: int | None = _RequestBase._app_max_form_parts

    endpoint: str | None = _RequestBase._endpoint
    blueprint: str | None = _RequestBase._blueprint
    blueprints: list[str] = _RequestBase._blueprints

    @property
    def client_cert(self) -> ClientCertificate | None:
        """The certificate that the client has shown to a server that asks for one, verified; else None."""
        pem = self.environ.get("SSL_CLIENT_CERT")
        if not pem:
            return None
        from .tls import ClientCertificate

        return ClientCertificate.from_pem(pem)

    @property
    def request_id(self) -> str | None:
        """The name by which logs know this request, if the server gives names (setting ``request_id``)."""
        return self._request_id

    @property
    def trace_id(self) -> str | None:
        """The trace that the caller says this request belongs to, as 32 hexadecimal digits.

        Implements: W3C Trace Context, the field ``traceparent``. A malformed one is as none.
        """
        return self._trace_id

    @property
    def trailers(self) -> Headers:
        """The fields that followed the body, immutable: none before the body has been read to its end.

        Those that decide how a message is read, such as ``Content-Length`` or ``Authorization``, are left
        out. They are never among ``headers``.

        Implements: RFC 9110 §6.5 trailer fields.
        """
        return self._trailers

    def _load_form_data(self) -> None:
        super()._load_form_data()
        # A developer who forgot the form's enctype is told so when looking for the missing file.
        if current_app and current_app.debug and self.mimetype != "multipart/form-data" and not self.files:
            from .debughelpers import attach_enctype_error_multidict

            attach_enctype_error_multidict(self)

    @property
    def body(self) -> RequestBody:
        """The body as it arrives, for coroutine functions: `async for piece in request.body`.

        Awaited, it is the whole body. A view that `stream_request_body` marks runs while its body arrives.
        """
        from .streaming import RequestBody

        return RequestBody(self)

    async def get_data_async(
        self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False
    ) -> Any:
        """Do as `get_data`, without blocking the event loop until the body is here."""
        await self._arrived()
        return self.get_data(cache, as_text, parse_form_data)  # type: ignore[call-overload]

    async def get_json_async(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Do as `get_json`, without blocking the event loop until the body is here."""
        await self._arrived()
        return self.get_json(force, silent, cache)

    async def get_form_async(self) -> Any:
        """Return `form`, without blocking the event loop until the body is here; then `files` is there."""
        await self._arrived()
        return self.form

    async def _arrived(self) -> None:
        from .streaming import arrived

        await arrived(self)

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
