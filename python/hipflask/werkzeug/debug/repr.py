"""Show Python objects as HTML: colours by kind, long parts folded, nothing that can break out of the page.

Implements: werkzeug.debug.repr (3.1).
"""

from __future__ import annotations

import re
import sys
from collections import deque
from typing import TYPE_CHECKING

from markupsafe import escape

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_missing = object()

#: How much of a value is shown unfolded.
_STRING, _ITEMS, _PAIRS = 70, 8, 4

#: The kinds of sequences, and what stands around their items.
_SEQUENCES: list[tuple[type[Iterable[Any]], str, str]] = [
    (list, "[", "]"),
    (tuple, "(", ")"),
    (set, "set([", "])"),
    (frozenset, "frozenset([", "])"),
    (deque, '<span class="module">collections.</span>deque([', "])"),
]


def debug_repr(obj: object) -> str:
    """An object as HTML."""
    return DebugReprGenerator().repr(obj)


def dump(obj: object = _missing) -> None:
    """Print an object's attributes, or without an object the caller's variables. For use in the console."""
    generator = DebugReprGenerator()
    caller = sys._getframe(1)
    html = generator.dump_locals(caller.f_locals) if obj is _missing else generator.dump_object(obj)
    _print(html)


class _Helper:
    """`help` for the console: prints instead of paging."""

    def __repr__(self) -> str:
        return "Type help(object) for help about object."

    def __call__(self, topic: object = None) -> None:
        if topic is None:
            _print(_span("help", repr(self)))
            return
        import pydoc

        text = pydoc.render_doc(topic, title="Help on %s:", renderer=pydoc.plaintext)  # type: ignore[attr-defined]
        title, _, body = text.partition("\n")
        html = f'<div class="box"><h3>{escape(title)}</h3><pre class="help">{escape(body)}</pre></div>'
        _print(html)


helper = _Helper()


class DebugReprGenerator:
    """Shows objects; remembers which ones it is inside of."""

    def __init__(self) -> None:
        self._inside: list[object] = []

    def repr(self, obj: object) -> str:
        """An object as HTML, even if its own `__repr__` fails."""
        recursive = any(obj is outer for outer in self._inside)
        self._inside.append(obj)
        try:
            return self._dispatch(obj, recursive)
        except Exception as error:
            text = escape(f"{type(error).__name__}: {error}")
            return f'<span class="brokenrepr">&lt;broken repr ({text})&gt;</span>'
        finally:
            self._inside.pop()

    def _dispatch(self, obj: Any, recursive: bool) -> str:
        if obj is helper:
            return f'<span class="help">{obj!r}</span>'
        if isinstance(obj, (int, float, complex)):
            return _span("number", escape(repr(obj)))
        if isinstance(obj, (str, bytes)):
            return self._string(obj)
        if isinstance(obj, re.Pattern):
            pattern = obj.pattern if isinstance(obj.pattern, str) else obj.pattern.decode("latin1")
            return f"re.compile({_span('string regex', f'r{chr(39)}{escape(pattern)}{chr(39)}')})"
        if isinstance(obj, dict):
            return self._mapping(obj, recursive)
        for kind, start, end in _SEQUENCES:
            if isinstance(obj, kind):
                items = ["..."] if recursive else [self.repr(item) for item in obj]
                return _subclass(start + _fold(items, _ITEMS) + end, obj, kind)
        return _span("object", escape(repr(obj)))

    def _string(self, obj: str | bytes) -> str:
        kind = str if isinstance(obj, str) else bytes
        text = kind.__repr__(obj)
        html = str(escape(text[:_STRING]))
        if len(text) > _STRING:
            html += _span("extended", escape(text[_STRING:]))
        return _subclass(_span("string", html), obj, kind)

    def _mapping(self, obj: dict[Any, Any], recursive: bool) -> str:
        if recursive:
            return _subclass("{...}", obj, dict)
        pairs = [
            _span("pair", f"{_span('key', self.repr(key))}: {_span('value', self.repr(value))}")
            for key, value in obj.items()
        ]
        return _subclass("{" + _fold(pairs, _PAIRS) + "}", obj, dict)

    def dump_object(self, obj: object) -> str:
        """A table of an object's attributes, or of a dict's items."""
        if isinstance(obj, dict) and all(isinstance(key, str) for key in obj):
            rows = [(key, self.repr(value)) for key, value in obj.items()]
            return self.render_object_dump(rows, "Contents of", self.repr(obj))
        rows = []
        for name in dir(obj):
            try:
                rows.append((name, self.repr(getattr(obj, name))))
            except Exception:
                # A property may fail; the others are still worth showing.
                continue
        title = f"Details for {object.__repr__(obj)[1:-1]}"
        return self.render_object_dump(rows, title, self.repr(obj))

    def dump_locals(self, d: dict[str, Any]) -> str:
        """A table of variables."""
        rows = [(name, self.repr(value)) for name, value in d.items()]
        return self.render_object_dump(rows, "Local variables in frame")

    def render_object_dump(
        self, items: Iterable[tuple[str, str]], title: str, repr: str | None = None
    ) -> str:
        """A table of names and values that are HTML already."""
        rows = "".join(f"<tr><th>{escape(name)}<td><pre class=repr>{html}</pre>\n" for name, html in items)
        value = f"<pre class=repr>{repr}</pre>\n" if repr else ""
        table = f"<table>\n{rows}</table>\n" if rows else "<em>Nothing</em>\n"
        return f'<div class="box"><h3>{escape(title)}</h3>\n{value}<div class="repr">{table}</div></div>\n'


def _print(html: str) -> None:
    """Print markup in a console; anywhere else it is text like any other."""
    getattr(sys.stdout, "_write", sys.stdout.write)(html)


def _span(kind: str, html: str) -> str:
    return f'<span class="{kind}">{html}</span>'


def _fold(parts: list[str], limit: int) -> str:
    """Parts with commas, the later ones folded away."""
    shown = ", ".join(parts[:limit])
    return shown if len(parts) <= limit else f"{shown}, {_span('extended', ', '.join(parts[limit:]))}"


def _subclass(html: str, obj: object, base: type) -> str:
    """Put the name of a subclass around what shows its base."""
    cls = type(obj)
    if cls is base:
        return html
    return f'<span class="module">{escape(cls.__module__)}.</span>{escape(cls.__name__)}({html})'
