"""Clients and runners for tests of an application.

`FlaskClient` sends requests to the application in this process, `FlaskCliRunner` runs its commands.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from .background import _Held
from .werkzeug import test as _test
from .werkzeug.wrappers import Request as _BaseRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from _typeshed.wsgi import WSGIEnvironment
    from click.testing import Result

    from .app import Flask
    from .lifespan import Lifespan
    from .sessions import SessionMixin
    from .websocket_testing import AsyncWebSocketTestSession, WebSocketTestSession
    from .werkzeug.datastructures import Headers


class EnvironBuilder(_test.EnvironBuilder):
    """Builds the environ of a request, with an application's host, root and scheme.

    Args:
        app: Where the defaults come from: `SERVER_NAME`, `APPLICATION_ROOT`, `PREFERRED_URL_SCHEME`.
        path: The path, or a whole URL.
        base_url: Where the application is; instead of the defaults.
        subdomain: Stands before `SERVER_NAME`.
        url_scheme: Instead of `PREFERRED_URL_SCHEME`.
        args: As of `hipflask.werkzeug.test.EnvironBuilder`.
        kwargs: As of `hipflask.werkzeug.test.EnvironBuilder`.

    Implements: flask.testing.EnvironBuilder (3.1).
    """

    def __init__(
        self,
        app: Flask,
        path: str = "/",
        base_url: str | None = None,
        subdomain: str | None = None,
        url_scheme: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        assert base_url is None or not (subdomain or url_scheme), (
            'Cannot pass "subdomain" or "url_scheme" with "base_url".'
        )
        if base_url is None:
            from urllib.parse import urlsplit

            url = urlsplit(path)
            host = app.config.get("SERVER_NAME") or "localhost"
            if subdomain:
                host = f"{subdomain}.{host}"
            scheme = app.config["PREFERRED_URL_SCHEME"] if url_scheme is None else url_scheme
            root = app.config["APPLICATION_ROOT"].lstrip("/")
            base_url = f"{url.scheme or scheme}://{url.netloc or host}/{root}"
            path = f"{url.path}?{url.query}" if url.query else url.path
        self.app = app
        super().__init__(path, base_url, *args, **kwargs)

    def json_dumps(self, obj: Any, **kwargs: Any) -> str:
        """Write the argument `json` as the application would."""
        return self.app.json.dumps(obj, **kwargs)


class FlaskClient(_test.Client):
    """Sends requests to an application, without a server.

    In a `with` block the context of the last request stays, so that a test can look at `request`, `session`
    and `g`.

    Implements: flask.testing.FlaskClient (3.1).
    """

    application: Flask
    #: The most seconds to wait, before a response is returned, for what its request gave to
    #: `Flask.background`.
    background_timeout: float = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preserve_context = False
        self._new_contexts: list[AbstractContextManager[Any]] = []
        self._context_stack = ExitStack()
        #: Part of the environ of each request.
        self.environ_base = {"REMOTE_ADDR": "127.0.0.1", "HTTP_USER_AGENT": _user_agent()}

    @contextmanager
    def session_transaction(self, *args: Any, **kwargs: Any) -> Iterator[SessionMixin]:
        """Open the client's session; at the end of the `with` block it is saved.

        Args:
            args: As of `Flask.test_request_context`, for session interfaces that look at the request.
            kwargs: As of `Flask.test_request_context`.

        Raises:
            TypeError: If the client keeps no cookies.
            RuntimeError: If the session interface gives no session.
        """
        if self._cookies is None:
            raise TypeError("Cookies are disabled. Create a client with 'use_cookies=True'.")
        app = self.application
        context = app.test_request_context(*args, **kwargs)
        self._add_cookies_to_wsgi(context.request.environ)
        with context:
            session = app.session_interface.open_session(app, context.request)
        if session is None:
            raise RuntimeError("Session backend did not open a session.")
        yield session
        if app.session_interface.is_null_session(session):
            return
        response = app.response_class()
        with context:
            app.session_interface.save_session(app, session, response)
        self._update_cookies_from_response(
            context.request.host.partition(":")[0],
            context.request.path,
            response.headers.getlist("Set-Cookie"),
        )

    def _copy_environ(self, other: Mapping[str, Any]) -> WSGIEnvironment:
        environ = {**self.environ_base, **other}
        if self.preserve_context:
            # The application calls this with each context instead of letting it go.
            environ["werkzeug.debug.preserve_context"] = self._new_contexts.append
        return environ

    def _request_from_builder_args(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _BaseRequest:
        """Make the request from what `open` got: a builder, an environ, a request, or arguments."""
        first = args[0] if args else None
        if isinstance(first, _BaseRequest):
            return type(first)(self._copy_environ(first.environ))
        if isinstance(first, _test.EnvironBuilder):
            builder = copy(first)
            builder.environ_base = self._copy_environ(builder.environ_base or {})
            return builder.get_request()
        if isinstance(first, dict):
            return EnvironBuilder.from_environ(
                first, app=self.application, environ_base=self._copy_environ({})
            ).get_request()
        kwargs["environ_base"] = self._copy_environ(kwargs.get("environ_base", {}))
        builder = EnvironBuilder(self.application, *args, **kwargs)
        try:
            return builder.get_request()
        finally:
            builder.close()

    def open(
        self, *args: Any, buffered: bool = False, follow_redirects: bool = False, **kwargs: Any
    ) -> _test.TestResponse:
        """Send a request.

        Args:
            args: The arguments of `EnvironBuilder` without its application; or a builder, an environ or a
                request.
            buffered: Read the whole body at once.
            follow_redirects: Send further requests until one is not redirected.
            kwargs: As `args`.
        """
        request = self._request_from_builder_args(args, kwargs)
        # The contexts of the request before end now, not when the block does.
        self._context_stack.close()
        response = self._send(request, buffered, follow_redirects)
        self._keep_contexts()
        return response

    def _send(self, request: _BaseRequest, buffered: bool, follow_redirects: bool) -> _test.TestResponse:
        request.environ["hipflask.after_response"] = held = _Held()
        hints: list[Headers] = []
        request.environ["wsgi.early_hints"] = partial(_hint, hints)
        sent: list[Any] = []
        request.environ["hipflask.send_trailers"] = sent.append
        response = super().open(request, buffered=buffered, follow_redirects=follow_redirects)
        if held.is_streamed:
            response.call_on_close(held.finish)
        elif held.jobs:
            response.make_sequence()
            held.finish()
        held.wait(self.background_timeout)
        response.json_module = self.application.json
        response.early_hints = hints
        if sent and not response.history:
            response._take_trailers(sent[-1])
        return response

    def _keep_contexts(self) -> None:
        for context in self._new_contexts:
            self._context_stack.enter_context(context)
        self._new_contexts.clear()

    def websocket_connect(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        subprotocols: Iterable[str] = (),
        timeout: float = 5.0,
        **kwargs: Any,
    ) -> WebSocketTestSession:
        """Open a WebSocket to the application, served by the engine for as long as one is open.

        Args:
            path: The path, with a query string if there is one.
            headers: Header fields of the handshake. The client's cookies are added.
            subprotocols: Those to offer.
            timeout: The most seconds to wait for an answer or a message.
            kwargs: As of `EnvironBuilder`.

        Returns:
            The connection, to be used in a `with` block.

        Raises:
            WebSocketRefused: If the application answers with anything else.
        """
        from .websocket_testing import WebSocketTestSession

        request = self._request_from_builder_args((path,), {"headers": list(_items(headers)), **kwargs})
        self._add_cookies_to_wsgi(request.environ)
        session = WebSocketTestSession(self.application, request, tuple(subprotocols), timeout)
        if self._cookies is not None:
            self._update_cookies_from_response(
                request.host.partition(":")[0], request.path, session.headers.getlist("Set-Cookie")
            )
        return session

    def __enter__(self) -> FlaskClient:
        if self.preserve_context:
            raise RuntimeError("Cannot nest client invocations")
        self.preserve_context = True
        return self

    def __exit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.preserve_context = False
        self._context_stack.close()


def _hint(hints: list[Headers], headers: list[tuple[str, str]]) -> bool:
    from .werkzeug.datastructures import Headers

    # Checks what cannot be sent.
    hints.append(Headers(headers))
    return True


class AsyncFlaskClient:
    """Sends requests to an application from coroutines, without a server.

    Coroutine views and hooks run on the loop of whoever awaits, so that they share locks and pools with the
    test; sync views run in another thread. An `async with` block keeps the context of the last request, as
    `FlaskClient` does. Cancelling a request cancels the coroutines that answer it.

    Args:
        client: What makes the requests and keeps the cookies.
    """

    def __init__(self, client: FlaskClient) -> None:
        #: The client beneath, for cookies: `client.client.set_cookie(...)`.
        self.client = client

    @property
    def application(self) -> Flask:
        """The application."""
        return self.client.application

    async def open(self, *args: Any, follow_redirects: bool = False, **kwargs: Any) -> _test.TestResponse:
        """Send a request, and read the whole answer.

        Args:
            args: As of `FlaskClient.open`.
            follow_redirects: Send further requests until one is not redirected.
            kwargs: As of `FlaskClient.open`.
        """
        from asyncio import get_running_loop

        from .loop import Visit

        client = self.client
        request = client._request_from_builder_args(args, kwargs)
        client._context_stack.close()
        visit = Visit(get_running_loop())
        response: _test.TestResponse = await visit.call(client._send, request, True, follow_redirects)
        client._keep_contexts()
        return response

    async def websocket_connect(self, *args: Any, **kwargs: Any) -> AsyncWebSocketTestSession:
        """Do as `FlaskClient.websocket_connect`: `async with await client.websocket_connect(...) as ws:`."""
        from asyncio import to_thread

        from .websocket_testing import AsyncWebSocketTestSession

        return AsyncWebSocketTestSession(await to_thread(self.client.websocket_connect, *args, **kwargs))

    async def get(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a GET request."""
        return await self.open(*args, **{**kwargs, "method": "GET"})

    async def post(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a POST request."""
        return await self.open(*args, **{**kwargs, "method": "POST"})

    async def put(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a PUT request."""
        return await self.open(*args, **{**kwargs, "method": "PUT"})

    async def patch(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a PATCH request."""
        return await self.open(*args, **{**kwargs, "method": "PATCH"})

    async def delete(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a DELETE request."""
        return await self.open(*args, **{**kwargs, "method": "DELETE"})

    async def head(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a HEAD request."""
        return await self.open(*args, **{**kwargs, "method": "HEAD"})

    async def options(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send an OPTIONS request."""
        return await self.open(*args, **{**kwargs, "method": "OPTIONS"})

    async def trace(self, *args: Any, **kwargs: Any) -> _test.TestResponse:
        """Send a TRACE request."""
        return await self.open(*args, **{**kwargs, "method": "TRACE"})

    def session_transaction(self, *args: Any, **kwargs: Any) -> AbstractContextManager[SessionMixin]:
        """Open the client's session, for `with`; see `FlaskClient.session_transaction`."""
        return self.client.session_transaction(*args, **kwargs)

    async def __aenter__(self) -> AsyncFlaskClient:
        self.client.__enter__()
        return self

    async def __aexit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.client.__exit__(exc_type, exc_value, tb)


class TestApp:
    """An application in a test, between the functions of `before_serving` and those of `after_serving`.

    In `async with` they run on the running loop, in `with` on the loop of the process.

    Args:
        app: The application.
    """

    # Not a class of tests.
    __test__ = False

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._lifespan: Lifespan | None = None

    def test_client(self, use_cookies: bool = True, **kwargs: Any) -> Any:
        """Make a client: one to be awaited in `async with`, else an ordinary one.

        The arguments are those of `Flask.test_client`.
        """
        if self._lifespan is None:
            return self.app.test_client(use_cookies, **kwargs)
        return self.app.async_test_client(use_cookies, **kwargs)

    async def startup(self) -> None:
        """Run what the app does before it serves."""
        from .lifespan import Lifespan

        self._lifespan = Lifespan(self.app)
        await self._lifespan.start()

    async def shutdown(self) -> None:
        """Run what the app does when it serves no longer."""
        if self._lifespan is not None:
            await self._lifespan.stop()

    async def __aenter__(self) -> TestApp:
        await self.startup()
        return self

    async def __aexit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.shutdown()

    def __enter__(self) -> TestApp:
        from .lifespan import begin

        begin(self.app)
        return self

    def __exit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        from .lifespan import end

        error = end(self.app)
        if error is not None:
            raise error


def _items(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return headers.items() if hasattr(headers, "items") else headers


def _user_agent() -> str:
    from .alias import REFERENCE

    return "/".join(REFERENCE["werkzeug"])


class FlaskCliRunner(CliRunner):
    """Runs an application's commands.

    Implements: flask.testing.FlaskCliRunner (3.1).
    """

    def __init__(self, app: Flask, **kwargs: Any) -> None:
        self.app = app
        super().__init__(**kwargs)

    def invoke(self, cli: Any = None, args: Any = None, **kwargs: Any) -> Result:  # type: ignore[override]
        """Run a command in isolation.

        Args:
            cli: The command; by default the application's group.
            args: The command line.
            kwargs: As of `click.testing.CliRunner.invoke`. Without `obj`, commands find this application.
        """
        if cli is None:
            cli = self.app.cli
        if "obj" not in kwargs:
            from .cli import ScriptInfo

            kwargs["obj"] = ScriptInfo(create_app=lambda: self.app)
        return super().invoke(cli, args, **kwargs)
