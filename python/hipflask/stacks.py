"""Where views are: the log of those that run for long, of those that were overtaken by their deadline, and of
all when somebody asks by SIGQUIT.

`tell` is called by the engine on a thread of its own. Does not decide what is slow: the engine's timers do.
"""

from __future__ import annotations

import contextlib
import sys
import traceback

from .serving import server_logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from types import FrameType
    from typing import Any

    from ._core import LaterLine, Server

#: Frames of a stack that are written down, the innermost ones.
MOST_FRAMES = 60
#: Tasks of which is told where they wait.
MOST_TASKS = 100


def tell(
    request: str,
    route: str | None,
    took: float,
    answered: int | None,
    thread: tuple[str, int | None] | None,
    line: LaterLine | None,
    token: int,
) -> None:
    """Log that a view is slow, with the stack of where it is.

    Args:
        request: Method and target.
        route: Its rule.
        took: Seconds that it has run, or waited for a thread.
        answered: The status that the client got in the place of an answer; None if it still waits.
        thread: Name and number of the thread that runs it; no number if it has returned meanwhile. None if
            no thread does.
        line: The server's requests that are answered by coroutines.
        token: The request's name among those.
    """
    if answered == 503:
        # It has never run: there is nowhere that it could be.
        return
    about = _named(request, route)
    if thread is not None:
        name, number = thread
        frame = None if number is None else sys._current_frames().get(number)
        where, stack = f" on {name}", "" if frame is None else stack_of(frame)
    else:
        where, stack = _stack_of_coroutine(line, token)
    outcome = "has run for" if answered is None else f"was answered with {answered} after"
    tail = f", where it is at:\n{stack}" if stack else "; it has returned meanwhile"
    server_logger().warning("%s %s %.1f s%s%s", about, outcome, took, where, tail)
    if answered is not None and thread is None:
        _note_late(line, token)


def hear() -> None:
    """Let SIGQUIT write the stacks of all threads to standard error.

    The signal's handler is one in C, which needs no interpreter: it works while a view holds that, in
    Python or in an extension. Then the main thread is told, which adds what only Python knows
    (`tell_all`). Call it there.
    """
    import faulthandler
    import signal

    signal.signal(signal.SIGQUIT, lambda *_: None)
    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
        # Standard error may be no file.
        faulthandler.register(signal.SIGQUIT, all_threads=True, chain=True)


def ignore() -> None:
    """Undo `hear`."""
    import faulthandler
    import signal

    faulthandler.unregister(signal.SIGQUIT)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def tell_all(server: Server) -> None:
    """Log which thread runs which view, and where the tasks of the event loop wait.

    Args:
        server: Whose views.
    """
    lines = []
    for number, name, route, request, took, late in server.running():
        about = _named(request, route)
        outcome = ", answered by its deadline" if late else ""
        lines.append(f"thread 0x{number:016x} {name} runs {about} for {took:.1f} s{outcome}\n")
    stuck, most = server.stuck_threads
    if stuck:
        lines.append(f"{stuck} threads are stuck, {most} may be\n")
    lines += _all_tasks()
    text = "".join(lines) or "no view runs, and no task waits\n"
    logger = server_logger()
    logger.warning("stacks were asked for\n%s", text.rstrip("\n"))
    # The next worker's turn comes then, and a thread writes the log.
    for handler in logger.handlers:
        handler.flush()


def _named(request: str, route: str | None) -> str:
    """A request as the log has it."""
    # A control character could rewrite a terminal's lines.
    about = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in request)
    return about if route is None else f"{about} (route {route})"


def _all_tasks() -> list[str]:
    from . import loop

    shared = loop._shared
    if shared is None:
        return []
    import asyncio

    tasks = sorted(asyncio.all_tasks(shared.loop), key=lambda task: task.get_name())
    current = _running_task(shared)
    lines = []
    for task in tasks[:MOST_TASKS]:
        state = "runs" if task is current else "waits"
        lines += [f"task {task.get_name()} {state} at:\n", *_lines_of(task)]
    if len(tasks) > MOST_TASKS:
        lines.append(f"and {len(tasks) - MOST_TASKS} tasks more\n")
    return lines


def stack_of(frame: FrameType) -> str:
    """Write a thread's stack down, the innermost frame last."""
    frames = traceback.extract_stack(frame)
    text = "".join(traceback.format_list(frames[-MOST_FRAMES:]))
    return text.rstrip("\n")


def _stack_of_coroutine(line: LaterLine | None, token: int) -> tuple[str, str]:
    """Where a request is that a coroutine answers: the task's stack, or what keeps the loop from it."""
    from . import loop

    shared = loop._shared
    if line is None or shared is None:
        return "", ""
    exchanges: Any = loop._exchanges.get(line)
    task: Task[Any] | None = None if exchanges is None else exchanges.task_of(token)
    current = _running_task(shared)
    if task is not None and task is not current:
        return " on the event loop", "".join(_lines_of(task)).rstrip("\n")
    # Not awaiting anything: it runs at this moment, or waits for something that does.
    frame = sys._current_frames().get(shared._thread.ident or 0)
    return " on the event loop, which is busy", "" if frame is None else stack_of(frame)


def _note_late(line: LaterLine | None, token: int) -> None:
    """Let the request of an ASGI application know why it ends, now that its stack is written down."""
    from . import loop

    exchanges: Any = loop._exchanges.get(line) if line is not None else None
    note = getattr(exchanges, "note_late", None)
    if note is not None:
        note(token)


def _running_task(shared: Any) -> Task[Any] | None:
    import asyncio

    try:
        return asyncio.current_task(shared.loop)
    except RuntimeError:
        return None


def _lines_of(task: Task[Any]) -> list[str]:
    """The stack of a task that waits, from its coroutine down to what is awaited."""
    lines: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(lines) < MOST_FRAMES:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            lines += traceback.format_list([traceback.extract_stack(frame, limit=1)[-1]])
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return lines
