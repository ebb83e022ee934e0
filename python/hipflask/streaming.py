"""Bodies of responses that are made by async iterators, and bodies of requests that are read by them.

On Hipflask's server a task of the event loop takes the pieces and gives them to the engine, which holds no
thread for them; it takes no more while the client has not read what came before. Everywhere else the pieces
are taken one by one from a task of the loop, by whoever iterates.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ._core import InputStream
from .globals import _cv_app, _cv_request
from .loop import current_loop, shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Generator

    from ._core import Feed
    from .ctx import AppContext, RequestContext
    from .wrappers import Request

# No more is asked for while so many bytes wait for the client.
_WAITING_MOST = 65_536
# How long a body that broke waits for the client to take what came before.
_BREAK_SECONDS = 5.0
# The longest piece of a request's body.
_PIECE = 65_536
_END = object()
# The loop knows its tasks by weak references only.
_feeding: set[asyncio.Task[None]] = set()


class AsyncPieces:
    """An async iterable as the body of a response, for those who iterate over it with `for`, too.

    Args:
        source: The async iterable, which yields text or bytes.
    """

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = source
        self._pump: _Pump | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._source.__aiter__()

    def __iter__(self) -> AsyncPieces:
        return self

    def __next__(self) -> Any:
        if self._pump is None:
            self._pump = _Pump(self._source)
        piece = self._pump.next()
        if piece is _END:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the iterator, if it has begun, where it waits."""
        if self._pump is not None:
            self._pump.close()

    def __del__(self) -> None:
        if self._pump is not None:
            self._pump.leave()

    def _feed(self, feed: Feed, response: Any) -> None:
        """Let a task of the shared loop give the pieces to the engine. Called by the engine."""
        home = shared()

        def begin() -> None:
            task = home.loop.create_task(_feed(self._source, feed, response))
            _feeding.add(task)
            task.add_done_callback(_feeding.discard)
            feed.on_end(home.bell, lambda complete: complete or task.cancel())

        # Without what is bound here: the request is over.
        if home.is_here():
            home.loop.call_soon(begin)
        else:
            home.loop.call_soon_threadsafe(begin)


async def _feed(source: AsyncIterable[Any], feed: Feed, response: Any) -> None:
    iterator: Any = None
    try:
        # Not at all for HEAD.
        if feed.is_open:
            iterator = source.__aiter__()
            async for piece in iterator:
                while not feed.send(piece):
                    await _below(feed, 0)
                if feed.queued > _WAITING_MOST:
                    await _below(feed, _WAITING_MOST)
            feed.finish()
    except asyncio.CancelledError:
        feed.abort()
    except BaseException as error:
        # What `send` raises when the client has gone is no news.
        if feed.is_open or not isinstance(error, ConnectionError):
            _log("Exception while a response's body was being sent", error)
            # The client sees the break behind what it was to get.
            with suppress(asyncio.CancelledError, asyncio.TimeoutError):
                await asyncio.wait_for(_below(feed, 0), _BREAK_SECONDS)
        feed.abort()
    finally:
        await _close(iterator, response)


async def _below(feed: Feed, count: int) -> None:
    """Wait until the client has taken all but so many bytes, or has gone."""
    taken = asyncio.Event()
    feed.notify_below(count, shared().bell, taken.set)
    await taken.wait()


async def _close(iterator: Any, response: Any) -> None:
    from .loop import collecting

    try:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
    except BaseException as error:
        _log("Exception while a response's body was being closed", error)
    try:
        with collecting():
            response.close()
    except BaseException as error:
        _log("Exception while a response was being closed", error)


def _log(what: str, error: BaseException) -> None:
    from .serving import server_logger

    server_logger().error(what, exc_info=error)


class RequestBody:
    """A request's body as it arrives: to be iterated over with `async for`, or awaited as a whole.

    Args:
        request: The request.
    """

    def __init__(self, request: Request) -> None:
        self._request = request

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._request.get_data_async().__await__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces of at most 64 KiB, each as soon as it is here.

        Raises:
            RequestEntityTooLarge: If there is more than `max_content_length`.
            ClientDisconnected: If the client goes before the end.
        """
        stream = self._request.stream
        while True:
            if isinstance(stream, InputStream):
                while (awaited := stream.pull(_PIECE)) is not None:
                    await _readable(*awaited)
                piece = stream.pulled(_PIECE)
            else:
                piece = await asyncio.to_thread(stream.read, _PIECE)
            if not piece:
                return
            yield piece


async def arrived(request: Request) -> None:
    """Wait until all of a request's body is here, so that reading it does not wait."""
    stream = request.stream
    if isinstance(stream, InputStream):
        while (awaited := stream.pull()) is not None:
            await _readable(*awaited)


async def _readable(descriptor: int, seconds: float) -> None:
    """Wait until a descriptor can be read from, or the time is over."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(readable.wait(), seconds)
    finally:
        loop.remove_reader(descriptor)


class _Pump:
    """Takes the pieces in one task of a loop, each when somebody asks for it."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._loop = current_loop()
        self._asked: asyncio.Queue[Future[Any] | None] = asyncio.Queue()
        self._closed: Future[None] = Future()
        self._is_over = False
        context = copy_context()

        def begin() -> None:
            self._task = context.run(self._loop.create_task, self._run(source.__aiter__()))

        self._loop.call_soon_threadsafe(begin)

    def next(self) -> Any:
        if self._is_over:
            return _END
        answer: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._asked.put_nowait, answer)
        try:
            piece = answer.result()
        except BaseException:
            self._is_over = True
            raise
        self._is_over = piece is _END
        return piece

    def close(self) -> None:
        if self.leave():
            self._closed.result()

    def leave(self) -> bool:
        """Let the task end, without waiting for it; tells whether it is going to."""
        self._is_over = True
        if self._loop.is_closed():
            return False
        self._loop.call_soon_threadsafe(self._asked.put_nowait, None)
        return True

    async def _run(self, iterator: Any) -> None:
        answer: Future[Any] | None = None
        try:
            while (answer := await self._asked.get()) is not None:
                try:
                    answer.set_result(await iterator.__anext__())
                except StopAsyncIteration:
                    answer.set_result(_END)
                    break
                except BaseException as error:
                    answer.set_exception(error)
                    break
        finally:
            try:
                if hasattr(iterator, "aclose"):
                    await iterator.aclose()
            except BaseException as error:
                self._closed.set_exception(error)
            else:
                self._closed.set_result(None)


async def with_contexts(
    pieces: AsyncIterable[Any], app_ctx: AppContext, req_ctx: RequestContext
) -> AsyncIterator[Any]:
    """Yield the pieces while an app's and a request's context are bound; their ends are awaited."""
    from .later import _send, _tear_down_app, _tear_down_request

    app = app_ctx.app
    iterator: Any = pieces.__aiter__()
    error: BaseException | None = None
    app_ctx._cv_tokens.append(_cv_app.set(app_ctx))
    req_ctx._cv_tokens.append((_cv_request.set(req_ctx), None))
    try:
        await _send(app, "appcontext_pushed")
        async for piece in iterator:
            yield piece
    except BaseException as caught:
        error = caught
        raise
    finally:
        try:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()
            if len(req_ctx._cv_tokens) == 1:
                await _tear_down_request(app, req_ctx.request, error)
        finally:
            _cv_request.reset(req_ctx._cv_tokens.pop()[0])
            try:
                if len(app_ctx._cv_tokens) == 1:
                    await _tear_down_app(app, error)
            finally:
                _cv_app.reset(app_ctx._cv_tokens.pop())
            await _send(app, "appcontext_popped")
