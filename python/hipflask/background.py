"""Work beside and after requests: what `Flask.background` and `after_response` are given.

Jobs run on a few threads of the app's own. Those of the engine are for requests: a job of a minute on each of
them would leave none to answer; and without the engine, in tests and under other servers, there are none.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextvars import copy_context
from functools import partial
from time import monotonic

from . import signals
from ._core import JobQueue, unbind_contexts
from .globals import _cv_app

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

    from .app import Flask
    from .ctx import RequestContext
    from .werkzeug.wrappers import Response

# Jobs that run at the same time: they wait for mail servers and the like rather than compute.
THREADS = 8
# Jobs that wait. At 8 threads and 50 ms a job that is 6 s of work.
QUEUE = 1024
# Seconds that jobs get to finish when the process ends; as long as requests get.
GRACE = 30.0
# Seconds that a thread waits for its next job before it ends.
_PATIENCE = 10.0
# The key in a WSGI environ of what takes work for after the response.
_KEY = "hipflask.after_response"

_pools: weakref.WeakSet[BackgroundTasks] = weakref.WeakSet()
_is_watched = False
# When the process ends, for all that still runs.
_deadline: float | None = None


class BackgroundQueueFull(RuntimeError):
    """As many tasks wait as may wait (`BACKGROUND_QUEUE`); the new one was not taken."""


class BackgroundTasks:
    """The work that an app does beside its requests; `Flask.background_tasks` has it.

    Args:
        app: The app. `BACKGROUND_THREADS` (8) in its configuration is how many tasks run at the same time,
            `BACKGROUND_QUEUE` (1024) how many wait for a thread, and how many coroutines run.
    """

    def __init__(self, app: Flask) -> None:
        self._name = app.name
        self._most = int(app.config.get("BACKGROUND_QUEUE", QUEUE))
        self._threads = int(app.config.get("BACKGROUND_THREADS", THREADS))
        self._queue = JobQueue(self._most, self._threads)
        self._tasks: set[asyncio.Task[bool]] = set()
        _watch_process()
        _pools.add(self)

    @property
    def waiting(self) -> int:
        """How many tasks wait: for a thread, or for their response to be out."""
        return self._queue.counts()[0]

    @property
    def running(self) -> int:
        """How many tasks run, on threads and on the event loop."""
        return self._queue.counts()[1]

    @property
    def finished(self) -> int:
        """How many tasks have ended, well or not."""
        return self._queue.counts()[2]

    @property
    def failed(self) -> int:
        """How many of those have failed."""
        return self._queue.counts()[3]

    @property
    def refused(self) -> int:
        """How many were not taken, since the queue was full."""
        return self._queue.counts()[4]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no task waits or runs.

        Args:
            timeout: The most seconds; as long as it takes if None.

        Returns:
            Whether that is so.
        """
        return self._queue.wait(timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name!r}: {self.waiting} waiting, {self.running} running>"

    def _submit(self, app: Flask, func: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
        from concurrent.futures import Future

        from .app import _is_coroutine_function

        future: Future[Any] = Future()
        call = partial(func, *args, **kwargs)
        if _is_coroutine_function(func):
            taken = self._begin_on_loop(app, future, call)
        else:
            taken = self._put(partial(copy_context().run, _run_task, app, future, call))
        if not taken:
            raise BackgroundQueueFull(
                f"{self._most} background tasks wait already: as many as BACKGROUND_QUEUE lets."
            )
        return future

    def _begin_on_loop(self, app: Flask, future: Future[Any], call: partial[Any]) -> bool:
        """Run a coroutine function on the loop of the process."""
        from .loop import shared

        queue = self._queue
        if not queue.loop_starts():
            return False
        loop = shared().loop
        context = copy_context()

        def end(task: asyncio.Task[bool]) -> None:
            self._tasks.discard(task)
            queue.loop_done(task.cancelled() or task.result())

        def start() -> None:
            task = context.run(loop.create_task, _run_coroutine(app, future, call))
            # The loop itself knows its tasks by weak references only.
            self._tasks.add(task)
            task.add_done_callback(end)

        loop.call_soon_threadsafe(start)
        return True

    def _put(self, job: Callable[[], bool]) -> bool:
        added = self._queue.put(job)
        self._provide_thread()
        return added

    def _provide_thread(self) -> None:
        """Start a thread if there are jobs for it."""
        queue = self._queue
        if queue.wants_thread():
            number = queue.counts()[5]
            # Daemons, since the end of the process waits for jobs, not for threads, and not without end.
            thread = threading.Thread(target=self._work, name=f"hipflask-background-{number}", daemon=True)
            try:
                thread.start()
            except BaseException:
                queue.leave()
                raise

    def _work(self) -> None:
        """The life of a thread."""
        queue = self._queue
        while (job := queue.take(_PATIENCE)) is not None:
            failed = True
            try:
                self._provide_thread()
                failed = job()
            finally:
                queue.done(failed)
                del job

    def _renew(self) -> None:
        """Begin anew in a process that was forked off: neither threads nor jobs have come along."""
        self._queue = JobQueue(self._most, self._threads)


def _name_of(func: Any) -> str:
    return getattr(func, "__qualname__", None) or repr(func)


def _run_task(app: Flask, future: Future[Any], call: partial[Any]) -> bool:
    """Run a task in a context of its own; whether it failed."""
    if not future.set_running_or_notify_cancel():
        return False
    # What the request had bound is gone by now, or soon.
    unbind_contexts()
    try:
        with app.app_context():
            result = call()
    except BaseException as error:
        _fail(app, future, call, error)
        return True
    future.set_result(result)
    return False


async def _run_coroutine(app: Flask, future: Future[Any], call: partial[Any]) -> bool:
    """Do as `_run_task` on the event loop."""
    if not future.set_running_or_notify_cancel():
        return False
    unbind_contexts()
    try:
        async with _AsyncAppContext(app):
            result = await call()
    except BaseException as error:
        _fail(app, future, call, error)
        if not isinstance(error, Exception):
            raise
        return True
    future.set_result(result)
    return False


def _fail(app: Flask, future: Future[Any], call: partial[Any], error: BaseException) -> None:
    app.logger.error("Exception in background task %s", _name_of(call.func), exc_info=error)
    future.set_exception(error)


class _AsyncAppContext:
    """An app context whose teardown functions are awaited where they are coroutine functions."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    async def __aenter__(self) -> None:
        self._token = _cv_app.set(self._app.app_context())
        signals.send("appcontext_pushed", self._app)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        app = self._app
        try:
            for teardown in reversed(app.teardown_appcontext_funcs):
                ended: Any = teardown(error)
                if hasattr(ended, "__await__"):
                    await ended
            signals.send("appcontext_tearing_down", app, exc=error)
        finally:
            _cv_app.reset(self._token)
        signals.send("appcontext_popped", app)


def _prepare(
    app: Flask, ctx: RequestContext, response: Response
) -> tuple[BackgroundTasks, Callable[[], bool]] | None:
    """Make the job of what is to be done after a response. Called by the engine too.

    Returns:
        Whose the job is, and the job; None if there is nothing to do.
    """
    functions = list(ctx._after_response_functions)
    table = app.after_response_funcs
    if table:
        for name in (*ctx.request.blueprints, None):
            functions.extend(table.get(name, ()))
    if not functions:
        return None
    return app.background_tasks, partial(copy_context().run, _run_after, app, ctx, response, functions)


def _run_after(app: Flask, ctx: RequestContext, response: Response, functions: list[Any]) -> bool:
    """Call functions with a response that is out; whether one failed."""
    failed = False
    unbind_contexts()
    try:
        with ctx.copy():
            for function in functions:
                try:
                    app.ensure_sync(function)(response)
                except Exception:
                    failed = True
                    app.logger.exception("Exception after the response, in %s", _name_of(function))
    except Exception:
        # A teardown function, or the making of a context.
        app.logger.exception("Exception after the response")
        return True
    return failed


def _schedule(app: Flask, ctx: RequestContext, response: Response, environ: dict[str, Any]) -> None:
    """Have done what is to be done after a response that goes through WSGI."""
    prepared = _prepare(app, ctx, response)
    if prepared is None:
        return
    take = environ.get(_KEY)
    if isinstance(take, _Held):
        take.jobs.append(prepared[1])
        take.is_streamed = response.is_streamed
    elif take is not None:
        take(*prepared)
    elif response.direct_passthrough:
        # Servers close the body itself.
        from .werkzeug.wsgi import ClosingIterator

        def end() -> None:
            prepared[1]()

        response.response = ClosingIterator(response.response, end)
    else:
        # Servers call this when the bytes are out, on the request's thread.
        response.call_on_close(prepared[1])


class _Held:
    """Holds the work of a test client's request, to be done before the client has the response."""

    def __init__(self) -> None:
        # What is to be done after the response, and whether the app streams that.
        self.jobs: list[Callable[[], bool]] = []
        self.is_streamed = False
        # What the request gave to `Flask.background`.
        self.tasks: list[Future[Any]] = []

    def finish(self) -> None:
        """Do the work after the response."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    def wait(self, timeout: float) -> None:
        """Wait for the tasks."""
        if self.tasks:
            from concurrent.futures import wait

            wait(self.tasks, timeout)


def finish(timeout: float | None = None) -> bool:
    """Wait for the work of all apps of this process, since it is about to end.

    Args:
        timeout: The most seconds, 30 by default. Later calls can only bring the deadline nearer.

    Returns:
        Whether all is done. What is not is named in the log.
    """
    global _deadline
    now = monotonic()
    timeout = GRACE if timeout is None else timeout
    _deadline = now + timeout if _deadline is None else min(_deadline, now + timeout)
    done = True
    for tasks in list(_pools):
        if not tasks.wait(max(0.0, _deadline - monotonic())):
            done = False
            from .serving import server_logger

            server_logger().warning(
                "the process ends while background work of %r is not done: %d running, %d waiting",
                tasks._name,
                tasks.running,
                tasks.waiting,
            )
    return done


def _watch_process() -> None:
    """Have the end of the process wait for jobs, and its forks begin without them."""
    global _is_watched
    if not _is_watched:
        _is_watched = True
        import atexit

        atexit.register(_finish_at_exit)
        os.register_at_fork(after_in_child=_renew_all)


def _finish_at_exit() -> None:
    if _pools:
        finish()


def _renew_all() -> None:
    for tasks in list(_pools):
        tasks._renew()
