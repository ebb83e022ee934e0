"""How the server's own log reaches standard error without ever holding a request up."""

from __future__ import annotations

import logging
import sys

from . import _core

# What the end of the process waits for lines that nobody has taken yet.
_END_SECONDS = 1.0


class LineHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error; once `detach` was called, on a thread that alone waits for its reader."""

    def __init__(self) -> None:
        super().__init__()
        self._writer: _core.LineWriter | None = None

    def detach(self) -> None:
        """Write on a thread from now on. Not before a fork, which would leave the thread behind."""
        if self._writer is None and self.stream is sys.__stderr__:
            self._writer = _core.LineWriter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or give it to the thread; lines that nobody takes for long are lost."""
        if self._writer is None or self.stream is not sys.__stderr__:
            super().emit(record)
            return
        try:
            self._writer.put(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait a moment for what is not written yet."""
        if self._writer is None:
            super().flush()
        else:
            self._writer.flush(_END_SECONDS)
