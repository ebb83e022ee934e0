"""Requests of coroutine views, taken through Flask's order of hooks, view and teardown on the event loop.

Implements what `Flask.wsgi_app` does between a request's coming and its answer, awaiting what is a coroutine
function. What needs no awaiting is done by the engine (`hipflask._core.LaterExchange`).
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from . import _core, signals
from .app import Flask, _is_coroutine_function
from .loop import collecting
from .serving import server_logger
from .werkzeug.exceptions import InternalServerError

if TYPE_CHECKING:
    from .wrappers import Response


# What `LaterExchange.run` says of a view that waits.
_SUSPENDED = 2


class Exchanges:
    """The requests of one server that are under way on a loop.

    Args:
        loop: The loop, running.
        line: Where the engine leaves them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, line: _core.LaterLine) -> None:
        self._loop = loop
        self._line = line
        # The loop knows its tasks by weak references only.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._start = _eager_starter(loop)

        line.hand_in_by(lambda: loop.call_soon(line.hand_in))

    def take(self) -> None:
        """Begin what waits."""
        self._line.take(self._run_all, self._begin, self._gone)

    def _run_all(self, exchanges: list[_core.LaterExchange]) -> None:
        waiting = deque(exchanges)
        while waiting:
            self._start(self._run(waiting))

    async def _run(self, waiting: deque[_core.LaterExchange]) -> None:
        """Answer one after another, as long as none has to wait: then this task is that one's own."""
        task: Any = asyncio.current_task()
        while waiting:
            exchange = waiting.popleft()
            try:
                state = exchange.run(task)
                if state == _SUSPENDED:
                    self._tasks[exchange.token] = task
                    await exchange
            except BaseException as error:
                _fail(exchange, error)
                return
            finally:
                if self._tasks.get(exchange.token) is task:
                    del self._tasks[exchange.token]
            if state:
                return

    def _begin(self, exchange: _core.LaterExchange) -> None:
        task = self._start(_answer(exchange))
        if not task.done():
            token = exchange.token
            self._tasks[token] = task
            task.add_done_callback(lambda task: self._end(token, task))

    def _end(self, token: int, task: asyncio.Task[None]) -> None:
        # The next request of the same connection may have come already.
        if self._tasks.get(token) is task:
            del self._tasks[token]
        if not task.cancelled():
            task.exception()

    def task_of(self, token: int) -> asyncio.Task[None] | None:
        """The task that answers a request, if it has had to wait."""
        return self._tasks.get(token)

    def running(self) -> set[asyncio.Task[None]]:
        """The tasks that have not ended."""
        return set(self._tasks.values())

    def _gone(self, token: int) -> None:
        task = self._tasks.get(token)
        if task is not None:
            task.cancel()


def _eager_starter(loop: asyncio.AbstractEventLoop) -> Callable[[Any], asyncio.Task[None]]:
    """Return a function that makes a task and runs it up to where it first waits, if it does."""
    if sys.version_info >= (3, 12):
        return lambda coroutine: asyncio.Task(coroutine, loop=loop, context=copy_context(), eager_start=True)

    caught: list[tuple[Any, Any]] = []

    def catch(callback: Any, *args: Any, context: Any = None) -> None:
        caught.append((callback, context))

    def start(coroutine: Any) -> asyncio.Task[None]:
        # A new task asks its loop to call its first step soon; here it is called at once.
        loop.call_soon = catch  # type: ignore[method-assign, assignment]
        try:
            task = asyncio.Task(coroutine, loop=loop)
        finally:
            del loop.call_soon
        step, context = caught.pop()
        context.run(step)
        return task

    try:
        loop.call_soon = loop.call_soon  # type: ignore[method-assign]
        del loop.call_soon
    except AttributeError:
        # A loop written in C takes no attributes.
        return loop.create_task
    return start


async def _answer(exchange: _core.LaterExchange) -> None:
    await _end(exchange, _dispatch(exchange))


async def _complete(exchange: _core.LaterExchange, value: Any) -> None:
    """Answer with what a view has returned that was run without a task of its own."""
    await _end(exchange, _respond(exchange, _given(value)))


async def _recover(exchange: _core.LaterExchange, error: BaseException, is_views: bool) -> None:
    """Answer after an error of such a view, or of writing what it returned."""
    await _end(exchange, _respond(exchange, _rescued(exchange.app, error, is_views)))


async def _end(
    exchange: _core.LaterExchange, answering: Coroutine[Any, Any, BaseException | None] | None = None
) -> None:
    """Await what answers and gives the error that became a 500; then tear down and send."""
    error: BaseException | None = None
    try:
        try:
            if answering is not None:
                error = await answering
        except BaseException as caught:
            error = caught
            exchange.write_error()
            if not isinstance(caught, asyncio.CancelledError):
                server_logger().error("Exception in the application", exc_info=caught)
        await _tear_down(exchange.app, exchange, error)
    except BaseException as caught:
        exchange.write_error()
        server_logger().error("Exception in the application", exc_info=caught)
    finally:
        exchange.send()


def _fail(exchange: _core.LaterExchange, error: BaseException) -> None:
    """Answer after an error that nothing foresees."""
    server_logger().error("Exception in the application", exc_info=error)
    exchange.write_error()
    exchange.send()


async def _respond(exchange: _core.LaterExchange, value: Awaitable[Any]) -> BaseException | None:
    """Answer with what is awaited, or for its error; give the error that became a 500."""
    app = exchange.app
    try:
        exchange.write_response(await _finalize(app, exchange, await value))
    except Exception as error:
        exchange.write_response(await _handle_exception(app, exchange, error))
        return error
    return None


async def _dispatch(exchange: _core.LaterExchange) -> BaseException | None:
    exchange.bind()
    return await _respond(exchange, _dispatched(exchange))


async def _given(value: Any) -> Any:
    return value


async def _rescued(app: Flask, error: BaseException, is_views: bool) -> Any:
    """What the app's handlers make of an error; only those of a view's have one."""
    try:
        raise error
    except Exception as caught:
        if not is_views:
            raise
        return await _collected(app.handle_user_exception, caught)


async def _dispatched(exchange: _core.LaterExchange) -> Any:
    """Do as `Flask.wsgi_app` between push and pop, up to what the view or an error's handler returns."""
    app = exchange.app
    await _send(app, "appcontext_pushed")
    exchange.open()
    try:
        await _send(app, "request_started")
        value = await _preprocess(app, exchange)
        if value is None:
            value = exchange.call_view()
            if hasattr(value, "__await__"):
                value = await value
        return value
    except Exception as error:
        return await _collected(app.handle_user_exception, error)


async def _call(function: Callable[..., Any], *args: Any) -> Any:
    value = function(*args)
    return await value if _is_coroutine_function(function) else value


async def _collected(method: Callable[..., Any], *args: Any) -> Any:
    """Call a method of the app that ends by calling a handler; a coroutine is awaited."""
    with collecting():
        value = method(*args)
    return await value if isinstance(value, Awaitable) else value


async def _preprocess(app: Flask, exchange: _core.LaterExchange) -> Any:
    request = exchange.request
    names = (None, *reversed(request.blueprints))
    for name in names:
        for preprocess in app.url_value_preprocessors.get(name, ()):
            preprocess(request.endpoint, request.view_args)
    for name in names:
        for before in app.before_request_funcs.get(name, ()):
            value = await _call(before)
            if value is not None:
                return value
    return None


async def _finalize(
    app: Flask, exchange: _core.LaterExchange, value: Any, from_error_handler: bool = False
) -> Response:
    response = app.make_response(value)
    try:
        response = await _process(app, exchange, response)
        await _send(app, "request_finished", response=response)
    except Exception:
        if not from_error_handler:
            raise
        app.logger.exception("Request finalizing failed with an error while handling an error")
    return response


async def _process(app: Flask, exchange: _core.LaterExchange, response: Any) -> Any:
    context = exchange.request_ctx
    if context is not None:
        for after in context._after_request_functions:
            response = await _call(after, response)
    for after in _outwards(exchange.request, app.after_request_funcs):
        response = await _call(after, response)
    exchange.save_session(response)
    return response


def _outwards(request: Any, table: dict[Any, list[Any]]) -> Iterable[Any]:
    """The functions of a table of hooks: the innermost blueprint's first, in each scope the last first."""
    if table:
        for name in (*request.blueprints, None):
            yield from reversed(table.get(name, ()))


async def _handle_exception(app: Flask, exchange: _core.LaterExchange, error: Exception) -> Any:
    """Do as `Flask.handle_exception`, which an app that overrides it is asked for."""
    if type(app).handle_exception is not Flask.handle_exception or "handle_exception" in app.__dict__:
        return app.handle_exception(error)
    exc_info = sys.exc_info()
    await _send(app, "got_request_exception", exception=error)
    propagate = app.config["PROPAGATE_EXCEPTIONS"]
    if app.testing or app.debug if propagate is None else propagate:
        raise error
    app.log_exception(exc_info)
    value: Any = InternalServerError(original_exception=error)
    handler = app._find_error_handler(value, exchange.request.blueprints)
    if handler is not None:
        value = await _call(handler, value)
    return await _finalize(app, exchange, value, from_error_handler=True)


async def _tear_down(app: Flask, exchange: _core.LaterExchange, error: BaseException | None) -> None:
    if error is not None and app.should_ignore_error(error):
        error = None
    try:
        await _tear_down_request(app, exchange.request, error)
    finally:
        await _tear_down_app(app, error)
        await _send(app, "appcontext_popped")


async def _tear_down_request(app: Flask, request: Any, error: BaseException | None) -> None:
    for teardown in _outwards(request, app.teardown_request_funcs):
        await _call(teardown, error)
    await _send(app, "request_tearing_down", exc=error)
    close = getattr(request, "close", None)
    if close is not None:
        close()


async def _tear_down_app(app: Flask, error: BaseException | None) -> None:
    for teardown in reversed(app.teardown_appcontext_funcs):
        await _call(teardown, error)
    await _send(app, "appcontext_tearing_down", exc=error)


async def _send(app: Flask, name: str, **values: Any) -> None:
    signal = signals._made.get(name)
    if signal is not None and signal.receivers:
        await signal.send_async(app, _sync_wrapper=_as_coroutine_function, **values)


def _as_coroutine_function(receiver: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return receiver(*args, **kwargs)

    return call
