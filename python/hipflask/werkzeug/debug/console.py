"""A Python prompt that answers in HTML.

Output is caught for the evaluating context alone: what other threads print meanwhile goes where it always
went.

Implements: werkzeug.debug.console (3.1).
"""

from __future__ import annotations

import code
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from markupsafe import escape

from .repr import debug_repr, dump, helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType
    from typing import Any


class Console:
    """A prompt in some namespace.

    Args:
        globals: Names that are looked up last.
        locals: Names that are looked up first.
    """

    def __init__(self, globals: dict[str, Any] | None = None, locals: dict[str, Any] | None = None) -> None:
        # One namespace, since functions typed here look their free names up in globals only.
        names = {**(globals or {}), **(locals or {}), "dump": dump, "help": helper}
        self._interpreter = _Interpreter(names)

    def eval(self, code: str) -> str:
        """Run a line; return the prompt, the line and its output as HTML."""
        return self._interpreter.evaluate(code)


class HTMLStringO:
    """A text stream that collects HTML; what is written as text is escaped."""

    def __init__(self) -> None:
        self._buffer: list[str] = []

    def write(self, x: str) -> int:
        """Write text."""
        self._write(str(escape(x)))
        return len(x)

    def writelines(self, x: Iterable[str]) -> None:
        """Write several texts."""
        for text in x:
            self.write(text)

    def _write(self, x: str) -> None:
        """Write HTML."""
        self._buffer.append(x)

    def reset(self) -> str:
        """Take what was written."""
        html = "".join(self._buffer)
        self._buffer.clear()
        return html

    def isatty(self) -> bool:
        """Whether somebody types here; no."""
        return False

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to close."""


_stream: ContextVar[HTMLStringO | None] = ContextVar("hipflask.debug.console.stream", default=None)
_namespace: ContextVar[dict[str, Any] | None] = ContextVar("hipflask.debug.console.namespace", default=None)


class _Stdout:
    """Stands for `sys.stdout`: the catching stream in a console's context, the real one elsewhere."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        stream = _stream.get()
        return getattr(self._real if stream is None else stream, name)


_lock = threading.Lock()
_users = 0
_replaced: tuple[Any, Any] = (None, None)


@contextmanager
def _catching() -> Iterator[HTMLStringO]:
    """Catch this context's output. The stand-ins are in place only while some console needs them."""
    global _users, _replaced
    with _lock:
        if _users == 0:
            _replaced = sys.stdout, sys.displayhook
            sys.stdout = _Stdout(sys.stdout)
            sys.displayhook = _display
        _users += 1
    stream = HTMLStringO()
    token = _stream.set(stream)
    try:
        yield stream
    finally:
        _stream.reset(token)
        with _lock:
            _users -= 1
            if _users == 0:
                sys.stdout, sys.displayhook = _replaced


def _display(value: object) -> None:
    """Show the value of an expression, in colour if it was typed in a console."""
    stream, namespace = _stream.get(), _namespace.get()
    if stream is None or namespace is None:
        _replaced[1](value)
    elif value is not None:
        namespace["_"] = value
        stream._write(debug_repr(value) + "\n")


class _Source:
    """Gives the text of typed code back to tracebacks, in the place of a module loader."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def add(self, text: str) -> str:
        name = f"<console {len(self._texts) + 1}>"
        self._texts[name] = text
        # The trailing None keeps linecache from asking the file system whether the entry is stale.
        import linecache

        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        return name


class _Interpreter(code.InteractiveInterpreter):
    """Runs one typed piece after the other, and waits when one is not complete."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self._source = _Source()
        self._waiting: list[str] = []

    def evaluate(self, line: str) -> str:
        line = line.rstrip()
        prompt = "... " if self._waiting else ">>> "
        token = _namespace.set(self.locals)
        try:
            with _catching() as stream:
                text = "\n".join([*self._waiting, line])
                if self.runsource(text, self._source.add(text), "single"):
                    self._waiting.append(line)
                else:
                    self._waiting.clear()
                output = stream.reset()
        finally:
            _namespace.reset(token)
        return f"{prompt}{escape(line)}\n{output}"

    def runcode(self, code: CodeType) -> None:
        """Run compiled code and show what it raises."""
        try:
            exec(code, self.locals)
        except Exception:
            self.showtraceback()

    def showtraceback(self) -> None:
        """Show the exception that typed code raised, without our own frames."""
        self._show(skip=1)

    def showsyntaxerror(self, filename: str | None = None, **kwargs: Any) -> None:
        """Show what is wrong with typed code; where our compiler was does not matter."""
        self._show(skip=sys.maxsize)

    def _show(self, skip: int) -> None:
        from .tbtools import DebugTraceback

        error = sys.exc_info()[1]
        assert error is not None
        html = DebugTraceback(error, skip=skip).render_traceback_html()
        stream = _stream.get()
        if stream is not None:
            stream._write(html)

    def write(self, data: str) -> None:
        """What the base class says goes to the same place."""
        sys.stdout.write(data)
