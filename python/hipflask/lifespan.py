"""What an app does before its first request and after its last: open pools, start tasks, close them again.

One task of the event loop lives as long as the app serves. It runs the functions of `before_serving` and
the first halves of the generators of `while_serving`, and at the end the functions of `after_serving` and the
second halves. Being one task, a generator may hold a task group or a timeout across its `yield`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from inspect import isgenerator
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .globals import _cv_app
from .later import _call, _send, _tear_down_app
from .loop import shared
from .serving import server_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
    from types import TracebackType

    from .app import Flask

# How many servers of this process serve each app, and the lifespan that they share.
_served: WeakKeyDictionary[Flask, tuple[Lifespan, int]] = WeakKeyDictionary()
_lock = Lock()


class Lifespan:
    """One run of an app's serving functions; an async context manager.

    Args:
        app: The app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._begun: asyncio.Future[BaseException | None] | None = None
        self._ending: asyncio.Event | None = None
        self._task: asyncio.Task[BaseException | None] | None = None

    async def start(self) -> None:
        """Run the functions of `before_serving` and the generators of `while_serving` up to their `yield`.

        Raises:
            BaseException: What one of them raised. Generators that had begun have been ended then.
        """
        error = await self._start()
        if error is not None:
            raise error

    async def stop(self) -> None:
        """Run the functions of `after_serving`, then the rest of the generators of `while_serving`.

        Raises:
            Exception: The first error. Those that followed are logged; what comes after one runs too.
        """
        error = await self._stop()
        if error is not None:
            raise error

    async def _start(self) -> BaseException | None:
        self._begun = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(self._live(self._begun, self._ending))
        return await self._begun

    async def _stop(self) -> BaseException | None:
        if self._task is None or self._ending is None:
            return None
        self._ending.set()
        return await self._task

    async def __aenter__(self) -> Lifespan:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def _live(
        self, begun: asyncio.Future[BaseException | None], ending: asyncio.Event
    ) -> BaseException | None:
        """Give errors back rather than raise them: one that ends the process would end the loop first."""
        app = self._app
        generators: list[Any] = []
        try:
            async with _app_context(app):
                for function in app.before_serving_funcs:
                    await _call(function)
                for generate in app.while_serving_gens:
                    generator = generate()
                    if not await _advance(generator):
                        raise RuntimeError(f"{generate!r} of while_serving ended without a yield.")
                    generators.append(generator)
        except BaseException as error:
            await _all(app, [_ending_of(generator) for generator in reversed(generators)])
            if not begun.done():
                begun.set_result(error)
            return None
        if not begun.done():
            begun.set_result(None)
        # Cancelled if the process ends without having stopped its server.
        with suppress(asyncio.CancelledError):
            await ending.wait()
        ends = [*app.after_serving_funcs, *(_ending_of(generator) for generator in reversed(generators))]
        return await _all(app, ends)


async def _all(app: Flask, functions: list[Callable[[], Any]]) -> BaseException | None:
    """Call each of `functions`, whatever the others raise; give the first error."""
    first: BaseException | None = None
    if not functions:
        return None
    try:
        async with _app_context(app):
            for function in functions:
                try:
                    await _call(function)
                except BaseException as error:
                    if first is None:
                        first = error
                    else:
                        server_logger().error("Exception while the app stopped serving", exc_info=error)
    except BaseException as error:
        first = first or error
    return first


def _ending_of(generator: Any) -> Callable[[], Any]:
    async def end() -> None:
        if await _advance(generator):
            raise RuntimeError(f"{generator!r} of while_serving has more than one yield.")

    return end


async def _advance(generator: AsyncGenerator[Any] | Generator[Any]) -> bool:
    """Take the next item of a generator; tells whether there was one."""
    end = object()
    if isgenerator(generator):
        return next(generator, end) is not end
    try:
        await generator.__anext__()  # type: ignore[union-attr]
    except StopAsyncIteration:
        return False
    return True


@asynccontextmanager
async def _app_context(app: Flask) -> AsyncIterator[None]:
    """Do as `with app.app_context()`, awaiting what its end calls."""
    context = app.app_context()
    token = _cv_app.set(context)
    context._cv_tokens.append(token)
    error: BaseException | None = None
    try:
        await _send(app, "appcontext_pushed")
        yield
    except BaseException as caught:
        error = caught
        raise
    finally:
        try:
            await _tear_down_app(app, error)
        finally:
            context._cv_tokens.pop()
            _cv_app.reset(token)
        await _send(app, "appcontext_popped")


def begin(app: Flask) -> None:
    """Start an app's lifespan on the shared loop, unless another server of this process has.

    Raises:
        BaseException: What a function of `before_serving` or a generator of `while_serving` raised.
    """
    with _lock:
        lifespan, count = _served.get(app, (None, 0))
        if lifespan is None:
            lifespan = Lifespan(app)
            error = shared().run(lifespan._start, (), {})
            if error is not None:
                raise error
        _served[app] = lifespan, count + 1


def end(app: Flask, most: float | None = None) -> BaseException | None:
    """Stop an app's lifespan if no other server of this process needs it.

    Args:
        app: The app.
        most: Seconds to wait; as long as it takes if None.

    Returns:
        The first error, if there was one.
    """
    with _lock:
        lifespan, count = _served.pop(app, (None, 0))
        if lifespan is None:
            return None
        if count > 1:
            _served[app] = lifespan, count - 1
            return None
    loop = shared()
    if loop.loop.is_closed():
        return None
    try:
        return loop.run(lifespan._stop, (), {}, most)  # type: ignore[no-any-return]
    except TimeoutError as error:
        return error
