"""The one asyncio loop of a serving process, on a thread of its own.

Coroutine functions that the engine's threads call (views, hooks, error handlers) run here, so that tasks,
locks and connection pools made by one request can be used by the next. Does not decide what is a coroutine
function: `Flask.ensure_sync` does.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Lock, Thread, get_ident

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterator
    from concurrent.futures import Future
    from contextvars import Context
    from typing import Any

    from ._core import LaterLine
    from .asgi import Requests
    from .later import Exchanges

# How long the end of the process waits for tasks that have been cancelled.
_LAST_SECONDS = 2.0

_WAITS_FOR_ITSELF = "The event loop cannot wait for itself: await the coroutine instead."

# What the running code was called by, if that was a coroutine of another loop.
_visit: ContextVar[Visit] = ContextVar("hipflask.visit")

# The thread that is inside of `collecting`, if any: only ever the loop's.
_collector: int | None = None

# What the loop serves. Touched by its thread alone.
_exchanges: dict[LaterLine, Exchanges | Requests] = {}

_lock = Lock()
_shared: Loop | None = None


def shared() -> Loop:
    """Return the loop of this process; the first call starts it."""
    global _shared
    with _lock:
        if _shared is None or _shared.pid != os.getpid():
            _shared = Loop()
        return _shared


def to_sync(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Return a function that runs a coroutine function to its end, on the shared loop or a `Visit`'s."""
    from functools import wraps

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        visit = _visit.get(None)
        if visit is not None:
            return visit.run(function, args, kwargs)
        if _core.body_is_arriving():
            # To read it is to wait for the client, which the shared loop must not.
            return _run_here(function, args, kwargs)
        return shared().run(function, args, kwargs)

    return run


def current_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that the calling thread's coroutines run on: that of its `Visit`, or the shared one.

    Raises:
        RuntimeError: If that is the calling thread's own, since who asks is about to wait for it.
    """
    import asyncio

    visit = _visit.get(None)
    loop = shared().loop if visit is None else visit._loop
    if asyncio._get_running_loop() is loop:
        raise RuntimeError(_WAITS_FOR_ITSELF)
    return loop


class Visit:
    """One call made from a running loop, in a thread of its own: its coroutines run on that loop.

    Args:
        loop: The loop, which must be running.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelled = False

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a sync function. Cancelling this cancels the coroutines that it waits for, and
        waits for its end.

        Returns:
            Its result.

        Raises:
            BaseException: What it raised.
        """
        import asyncio

        done = self._loop.create_future()
        context = copy_context()
        context.run(_visit.set, self)

        def work() -> None:
            error: BaseException | None = None
            result = None
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as caught:
                error = caught
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(finish, result, error)

        def finish(result: Any, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                # A future refuses StopIteration; the caller gets it as it would through a coroutine.
                done.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

        Thread(target=work, name="hipflask-visit", daemon=True).start()
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            self._cancelled = True
            for task in tuple(self._tasks):
                task.cancel()
            # Its teardown functions run before the caller goes on.
            await asyncio.wait((done,))
            if not done.cancelled():
                done.exception()
            raise

    def run(
        self, function: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a coroutine function on the loop, from another thread. See `Loop.run`."""
        import asyncio

        if asyncio._get_running_loop() is self._loop:
            raise RuntimeError(_WAITS_FOR_ITSELF)

        def note(task: asyncio.Task[Any]) -> None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if self._cancelled:
                task.cancel()

        return _run_on(self._loop, self._loop.call_soon_threadsafe, note, function, args, kwargs, None)


def _run_here(
    function: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a coroutine function in a loop of its own, on this thread."""
    import asyncio

    ends: list[Context] = []
    try:
        return asyncio.run(_within(sys.exc_info()[1], function, args, kwargs, ends))
    finally:
        if ends:
            _adopt(ends[0])


def attend(line: LaterLine) -> None:
    """Let the shared loop take the requests that a server leaves in `line`. Called by the engine."""
    loop = shared().loop

    def begin() -> None:
        host = line.host
        if host is not None:
            exchanges = host.attend(loop, line)
        else:
            from .later import Exchanges

            exchanges = Exchanges(loop, line)
        _exchanges[line] = exchanges
        loop.add_reader(line.fileno(), exchanges.take)

    loop.call_soon_threadsafe(begin)


def dismiss(line: LaterLine) -> None:
    """Undo `attend`: the server has ended. Views get a little time to end, then they are cancelled."""
    loop = shared().loop
    if not loop.is_closed() and not shared().is_here():
        from contextlib import suppress

        with suppress(TimeoutError):
            shared().run(_let_end, (line,), {}, most=2 * _LAST_SECONDS)

    def end() -> None:
        loop.remove_reader(line.fileno())
        # What the engine said last: which requests it no longer waits for.
        exchanges = _exchanges.pop(line, None)
        if exchanges is not None:
            exchanges.take()
        line.hand_in_by(None)

    if not loop.is_closed():
        loop.call_soon_threadsafe(end)


async def _let_end(line: LaterLine) -> None:
    """Wait for the views of a server: those of WebSockets end when they hear that it stops."""
    import asyncio

    exchanges: Any = _exchanges.get(line)
    # The tasks of an ASGI application are its host's.
    tasks = exchanges.running() if hasattr(exchanges, "running") else ()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_LAST_SECONDS)
        for task in late:
            task.cancel()


@contextmanager
def collecting() -> Iterator[None]:
    """Let `Flask.ensure_sync` give coroutine functions back as they are, for one call on this thread."""
    global _collector
    _collector = get_ident()
    try:
        yield
    finally:
        _collector = None


def is_collecting_here() -> bool:
    """Tell whether the calling thread is inside of `collecting`."""
    return _collector is not None and _collector == get_ident()


class Loop:
    """An asyncio loop that runs on its own thread until the process ends.

    Attributes:
        loop: The loop.
        bell: Where threads of the engine leave functions for it to call.
    """

    def __init__(self) -> None:
        import asyncio
        import atexit

        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.bell = _core.LoopBell()
        self._thread = Thread(target=self._live, name="hipflask-loop", daemon=True)
        # Calls that wait for the loop. Whoever adds the first one wakes it; it takes all of them at once.
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._thread.start()
        atexit.register(self._end)

    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        most: float | None = None,
    ) -> Any:
        """Run a coroutine function in a task of its own, and wait for it, at most so many seconds.

        It sees the context variables of the caller and the error being handled there; what it sets is seen by
        the caller afterwards.

        Returns:
            Its result.

        Raises:
            RuntimeError: If called on the loop's own thread, which would wait for itself.
            TimeoutError: If it takes longer; it goes on all the same.
            BaseException: What the coroutine raised.
        """
        if self.is_here():
            raise RuntimeError(_WAITS_FOR_ITSELF)
        return _run_on(self.loop, self._soon, None, function, args, kwargs, most)

    def is_here(self) -> bool:
        """Tell whether the calling thread is the loop's."""
        return get_ident() == self._thread.ident

    def _soon(self, start: Callable[[], None]) -> None:
        self._calls.append(start)
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # Before the look: a call that comes after the last look finds False and wakes the loop again.
        self._woken = False
        while self._calls:
            self._calls.popleft()()

    def _live(self) -> None:
        import asyncio

        asyncio.set_event_loop(self.loop)
        _core.begin_loop_thread()
        self.loop.add_reader(self.bell.fileno(), self.bell.take)
        try:
            self.loop.run_forever()
        finally:
            try:
                pending = asyncio.all_tasks(self.loop)
                for task in pending:
                    task.cancel()
                if pending:
                    self.loop.run_until_complete(asyncio.wait(pending, timeout=_LAST_SECONDS))
                self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            finally:
                asyncio.set_event_loop(None)
                self.loop.close()

    def _end(self) -> None:
        if self.pid == os.getpid() and not self.loop.is_closed():
            background = sys.modules.get("hipflask.background")
            if background is not None:
                # Its work may need the loop.
                background.finish()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2 * _LAST_SECONDS)


def _run_on(
    loop: asyncio.AbstractEventLoop,
    soon: Callable[[Callable[[], None]], object],
    note: Callable[[asyncio.Task[Any]], None] | None,
    function: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    most: float | None,
) -> Any:
    """Do what `Loop.run` says. `soon` lets the loop's thread call something; `note` gets the task."""
    from concurrent.futures import Future
    from concurrent.futures import TimeoutError as FutureTimeout

    handled = sys.exc_info()[1]
    context = copy_context()
    done: Future[Any] = Future()
    ends: list[Context] = []

    def start() -> None:
        task = context.run(loop.create_task, _within(handled, function, args, kwargs, ends))
        task.add_done_callback(lambda task: _settle(task, done))
        if note is not None:
            note(task)

    soon(start)
    try:
        return done.result(most)
    except FutureTimeout:
        if done.done():
            raise
        raise TimeoutError(f"The coroutine takes longer than {most} seconds.") from None
    finally:
        if ends:
            _adopt(ends[0])


async def _within(
    handled: BaseException | None,
    function: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    ends: list[Context],
) -> Any:
    """Await `function(...)`, as inside an `except` clause for `handled`; leave its last context in `ends`."""
    try:
        if handled is None:
            return await function(*args, **kwargs)
        traceback = handled.__traceback__
        try:
            raise handled
        except BaseException:
            handled.__traceback__ = traceback
            return await function(*args, **kwargs)
    finally:
        ends.append(copy_context())


def _settle(task: asyncio.Task[Any], done: Future[Any]) -> None:
    from asyncio import CancelledError

    if task.cancelled():
        done.set_exception(CancelledError())
        return
    error = task.exception()
    if error is None:
        done.set_result(task.result())
    else:
        done.set_exception(error)


def _adopt(context: Context) -> None:
    """Set the current context's variables to their values in another context."""
    missing = object()
    for variable, value in context.items():
        if variable.get(missing) is not value:
            variable.set(value)
