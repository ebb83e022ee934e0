"""The request object of WSGI applications.

What is read on every request is native (``hipflask._core.RequestBase``).
"""

from __future__ import annotations

import functools
import json
from typing import IO, TYPE_CHECKING, Any

from ..formparser import FormDataParser, default_stream_factory
from ..sansio.request import Request as _SansIORequest
from ..utils import environ_property

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from typing_extensions import Self

    from ..exceptions import HTTPException


class Request(_SansIORequest):
    """A request, read from a WSGI environ or straight from the engine.

    Args:
        environ: The request's environ.
        populate_request: Store the request as ``werkzeug.request`` in the environ.
        shallow: Forbid reading the body (and leave the environ alone).

    Implements: werkzeug.wrappers.Request (3.1).
    """

    max_content_length: int | None = None
    """Most bytes of body; more is answered with 413."""

    max_form_memory_size: int | None = 500_000
    """Most bytes of one form field that is not a file, or of an urlencoded form; more is a 413."""

    max_form_parts: int | None = 1000
    """Most parts of a multipart form; more are answered with 413."""

    form_data_parser_class: type[FormDataParser] = FormDataParser
    """Class that parses forms."""

    json_module: Any = json
    """What ``get_json`` calls ``loads`` of."""

    def __init__(
        self, environ: WSGIEnvironment, populate_request: bool = True, shallow: bool = False
    ) -> None:
        self._bind_environ(environ, shallow)
        if populate_request and not shallow:
            environ["werkzeug.request"] = self

    @classmethod
    def from_values(cls, *args: Any, **kwargs: Any) -> Self:
        """Make a request up; see :class:`~hipflask.werkzeug.test.EnvironBuilder` for the parameters."""
        from ..test import EnvironBuilder

        builder = EnvironBuilder(*args, **kwargs)
        try:
            made: Self = builder.get_request(cls)  # type: ignore[assignment]
            return made
        finally:
            builder.close()

    @classmethod
    def application(cls, f: Callable[..., WSGIApplication]) -> WSGIApplication:
        """Make a WSGI application of a function that takes a request and returns a response.

        An :exc:`~hipflask.werkzeug.exceptions.HTTPException` raised in it becomes the response.
        """

        @functools.wraps(f)
        def application(*args: Any) -> Iterable[bytes]:
            from ..exceptions import HTTPException

            *bound, environ, start_response = args
            with cls(environ) as request:
                response: WSGIApplication | HTTPException
                try:
                    response = f(*bound, request)
                except HTTPException as error:
                    response = error.get_response(environ)
                return response(environ, start_response)

        return application

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """Make the file that an upload is written to.

        Args:
            total_content_length: Announced length of the whole body.
            content_type: The part's media type.
            filename: The name that the client gave.
            content_length: The part's own announced length.
        """
        return default_stream_factory(total_content_length, content_type, filename, content_length)

    def make_form_data_parser(self) -> FormDataParser:
        """Make the parser for this request's form, with its limits."""
        return self.form_data_parser_class(
            stream_factory=self._get_file_stream,
            max_form_memory_size=self.max_form_memory_size,
            max_content_length=self.max_content_length,
            max_form_parts=self.max_form_parts,
            cls=self.parameter_storage_class,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def on_json_loading_failed(self, e: ValueError | None) -> Any:
        """Called when the body is not JSON; what it returns becomes ``get_json``'s result.

        Args:
            e: The parser's error; None if the media type was not JSON.

        Raises:
            BadRequest: If the body could not be parsed.
            UnsupportedMediaType: If the media type was not JSON.
        """
        from ..exceptions import BadRequest, UnsupportedMediaType

        if e is not None:
            raise BadRequest(f"Failed to decode JSON object: {e}")
        raise UnsupportedMediaType(
            "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
        )

    input_stream = environ_property[IO[bytes]](
        "wsgi.input", doc="The body as the server gives it, without any guard: use ``stream`` instead."
    )
    remote_user = environ_property[str]("REMOTE_USER", doc="The user that the server has authenticated.")
    is_multithread = environ_property[bool]("wsgi.multithread", doc="Whether the server has several threads.")
    is_multiprocess = environ_property[bool](
        "wsgi.multiprocess", doc="Whether the server has several processes."
    )
    is_run_once = environ_property[bool](
        "wsgi.run_once", doc="Whether the process ends after this request, as under CGI."
    )
