"""Tracebacks whose frames stay alive, as text and as HTML.

Does not decide who may see them: that is `DebuggedApplication`'s task.

Implements: werkzeug.debug.tbtools (3.1).
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from functools import lru_cache
from itertools import count, islice
from typing import TYPE_CHECKING

from markupsafe import escape

from ..utils import cached_property
from .console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType
    from typing import Any

#: How many lines of source are shown on either side.
_CONTEXT = 5

_numbers = count(1)

_CAUSE = "The above exception was the direct cause of the following exception"
_WHILE = "During handling of the above exception, another exception occurred"


class DebugTraceback:
    """An exception, those that led to it, and all their frames.

    Args:
        exc: The exception.
        te: What `traceback` found out about it, if that is known already.
        skip: How many of the outermost frames to leave out.
        hide: Leave out frames that ask for it by a variable `__traceback_hide__`.
    """

    def __init__(
        self,
        exc: BaseException,
        te: traceback.TracebackException | None = None,
        *,
        skip: int = 0,
        hide: bool = True,
    ) -> None:
        if te is None:
            te = traceback.TracebackException.from_exception(exc, lookup_lines=False)
        self._te = te
        _keep_frames(exc, te, skip, hide)

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._te}>"

    @cached_property
    def all_tracebacks(self) -> list[tuple[str | None, traceback.TracebackException]]:
        """The exceptions, the last one first, each with how it follows from the next in the list."""
        found: list[tuple[str | None, traceback.TracebackException]] = []
        current: traceback.TracebackException | None = self._te
        while current is not None:
            message, earlier = None, None
            if current.__cause__ is not None:
                message, earlier = _CAUSE, current.__cause__
            elif current.__context__ is not None and not current.__suppress_context__:
                message, earlier = _WHILE, current.__context__
            found.append((message, current))
            current = earlier
        return found

    @cached_property
    def all_frames(self) -> list[DebugFrameSummary]:
        """The frames of all the exceptions."""
        return [frame for _, te in self.all_tracebacks for frame in te.stack]  # type: ignore[misc]

    def render_traceback_text(self) -> str:
        """What Python would print."""
        return "".join(self._te.format())

    def render_traceback_html(self, include_title: bool = True) -> str:
        """The frames as a list, the exception below.

        Args:
            include_title: Say above that it is a traceback.
        """
        kinds = {frame.is_library for frame in self.all_frames}
        rows = []
        for message, te in reversed(self.all_tracebacks):
            if message is not None:
                rows.append(f'<li><div class="exc-divider">{message}:</div>')
            for frame in te.stack:
                assert isinstance(frame, DebugFrameSummary)
                info = f' title="{escape(frame.info)}"' if frame.info else ""
                rows.append(f"<li{info}>{frame.render_html(mark_library=len(kinds) == 2)}")

        syntax = self._type_name == "SyntaxError"
        text = escape("".join(self._te.format_exception_only()))
        title = "Syntax Error" if syntax else "Traceback <em>(most recent call last)</em>"
        tag = "pre" if syntax else "blockquote"
        return (
            f'<div class="traceback{"" if rows else " noframe-traceback"}">\n'
            + (f"<h3>{title}</h3>\n" if include_title else "")
            + (f"<ul>{''.join(rows)}</ul>\n" if rows else "")
            + f"<{tag}>{text}</{tag}>\n</div>\n"
        )

    def render_debugger_html(self, evalex: bool, secret: str, evalex_trusted: bool) -> str:
        """The whole page.

        Args:
            evalex: Offer a prompt in each frame.
            secret: What the page needs to talk to us. Not written into the page unless `evalex` is true.
            evalex_trusted: The visitor has given the PIN already.
        """
        lines = list(self._te.format_exception_only())
        text = self.render_traceback_text()
        return _page(
            lines[0],
            f"<h1>{escape(self._type_name)}</h1>\n"
            f'<p class="errormsg">{escape("".join(lines))}</p>\n'
            "<h2>Traceback <em>(most recent call last)</em></h2>\n"
            f"{self.render_traceback_html(include_title=False)}"
            '<details class="plain"><summary>As text</summary>\n'
            f"<textarea rows=12 readonly>{escape(text)}</textarea></details>\n",
            secret=secret,
            evalex=evalex,
            trusted=evalex_trusted,
            # For those who see the page in a terminal. Two hyphens would end the comment.
            comment=text.replace("--", "-&#45;"),
        )

    @property
    def _type_name(self) -> str:
        if sys.version_info >= (3, 13):
            return self._te.exc_type_str.rpartition(".")[2]
        return self._te.exc_type.__name__


class DebugFrameSummary(traceback.FrameSummary):
    """A frame in which code can be run.

    Args:
        locals: The frame's variables.
        globals: Its module's variables.
        kwargs: Handed to `traceback.FrameSummary`.
    """

    def __init__(self, *, locals: dict[str, Any], globals: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(locals=None, **kwargs)
        #: What the page calls the frame. Not `id()`, which another frame may get when this one is forgotten.
        self.id = next(_numbers)
        self.local_ns = locals
        self.global_ns = globals

    @cached_property
    def info(self) -> str | None:
        """What the frame says of itself in a variable `__traceback_info__`."""
        return self.local_ns.get("__traceback_info__")

    @cached_property
    def is_library(self) -> bool:
        """Whether the code belongs to Python or to an installed package."""
        return self.filename.startswith(_library_paths())

    @cached_property
    def console(self) -> Console:
        """A prompt in the frame."""
        return Console(self.global_ns, self.local_ns)

    def eval(self, code: str) -> str:
        """Run code in the frame; return what it shows as HTML."""
        return self.console.eval(code)

    def render_html(self, mark_library: bool) -> str:
        """The frame with the source around its line.

        Args:
            mark_library: Show frames of libraries less prominently.
        """
        library = " library" if mark_library and self.is_library else ""
        return (
            f'<div class="frame{library}" id="frame-{self.id}">\n'
            f'<h4>File <cite class="filename">"{escape(self.filename)}"</cite>, '
            f'line <em class="line">{self.lineno}</em>, '
            f'in <code class="function">{escape(self.name)}</code></h4>\n'
            f'<div class="source">{"".join(self._source())}</div>\n</div>\n'
        )

    def _source(self) -> Iterator[str]:
        lines = linecache.getlines(self.filename, self.global_ns)
        current = (self.lineno or 0) - 1
        if not 0 <= current < len(lines):
            return
        for number in range(max(0, current - _CONTEXT), min(len(lines), current + _CONTEXT + 1)):
            line = lines[number].rstrip()
            html = str(escape(line)) or " "
            if number == current:
                yield f'<pre class="line current">{html}{self._arrows(line)}</pre>'
            else:
                yield f'<pre class="line {"before" if number < current else "after"}">{html}</pre>'

    def _arrows(self, line: str) -> str:
        """Carets below the part of the line that failed, where Python knows it (3.11 and newer)."""
        start, end = getattr(self, "colno", None), getattr(self, "end_colno", None)
        if start is None or end is None or getattr(self, "end_lineno", self.lineno) != self.lineno:
            return ""
        # Positions count bytes of UTF-8; carets stand below characters.
        encoded = line.encode()
        before, marked = encoded[:start].decode(errors="replace"), encoded[start:end].decode(errors="replace")
        if marked.strip() == line.strip():
            return ""
        blank = "".join("\t" if character == "\t" else " " for character in before)
        return f'\n<span class="arrows">{blank}{"^" * len(marked)}</span>'


def render_console_html(secret: str, evalex_trusted: bool) -> str:
    """A page with nothing but a prompt."""
    body = (
        "<h1>Interactive Console</h1>\n"
        "<p>Python expressions are evaluated in the application's process.</p>\n"
        '<div class="frame console-page" id="frame-0"><noscript>This needs JavaScript.</noscript></div>\n'
    )
    return _page("Console", body, secret=secret, evalex=True, trusted=evalex_trusted)


def _page(title: str, body: str, *, secret: str, evalex: bool, trusted: bool, comment: str = "") -> str:
    """A page of the debugger. What scripts need stands in data attributes, so that none is inline."""
    data = f' data-secret="{escape(secret)}"{" data-trusted" if trusted else ""}' if evalex else ""
    resource = "?__debugger__=yes&amp;cmd=resource&amp;f="
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        f"<title>{escape(title)} // Debugger</title>\n"
        f'<link rel=stylesheet href="{resource}style.css">\n'
        f'<script src="{resource}debugger.js" defer></script>\n'
        f"</head>\n<body{data}>\n{body}</body>\n</html>\n" + (f"<!--\n{comment}-->\n" if comment else "")
    )


def _keep_frames(exc: BaseException, te: traceback.TracebackException, skip: int, hide: bool) -> None:
    """Replace the frames in `te`, and in those that led to it, by ones that can run code."""
    limit = getattr(sys, "tracebacklimit", None)
    frames: Iterable[tuple[FrameType, int]] = traceback.walk_tb(exc.__traceback__)
    if limit is not None:
        frames = islice(frames, max(limit, 0))
    pairs = list(zip((frame for frame, _ in frames), te.stack, strict=False))[skip:]
    if hide:
        pairs = _visible(pairs)
    te.stack[:] = [_debuggable(frame, summary) for frame, summary in pairs]

    for earlier, earlier_te in ((exc.__context__, te.__context__), (exc.__cause__, te.__cause__)):
        if earlier is not None and earlier_te is not None:
            _keep_frames(earlier, earlier_te, 0, hide)


def _debuggable(frame: FrameType, summary: traceback.FrameSummary) -> DebugFrameSummary:
    kwargs: dict[str, Any] = {"filename": summary.filename, "lineno": summary.lineno, "name": summary.name}
    if sys.version_info >= (3, 11):
        kwargs.update(end_lineno=summary.end_lineno, colno=summary.colno, end_colno=summary.end_colno)
    return DebugFrameSummary(locals=frame.f_locals, globals=frame.f_globals, lookup_line=False, **kwargs)


_Pair = tuple["FrameType", traceback.FrameSummary]


def _visible(pairs: list[_Pair]) -> list[_Pair]:
    """Leave out frames with `__traceback_hide__`: true hides one; `before` and `after` all on that side, and
    `reset` ends `after`; with `_and_this` the frame itself too."""
    shown: list[_Pair] = []
    hiding = False
    for frame, summary in pairs:
        wish = frame.f_locals.get("__traceback_hide__", False)
        side, this = "", bool(wish)
        if isinstance(wish, str):
            side = wish.removesuffix("_and_this")
            this = wish != side or side not in ("before", "reset", "after")
        if side == "before":
            shown.clear()
        if side in ("before", "reset"):
            hiding = False
        hidden = this or (hiding and side != "after")
        if side == "after":
            hiding = True
        if not hidden:
            shown.append((frame, summary))
    return shown


@lru_cache(maxsize=1)
def _library_paths() -> tuple[str, ...]:
    import sysconfig

    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [*sysconfig.get_paths().values(), own]
    return tuple({*paths, *(os.path.realpath(path) for path in paths)})
