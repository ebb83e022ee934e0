"""The app's logger.

Implements `flask.logging` (3.1).
"""

from __future__ import annotations

import logging
import sys

from .globals import request
from .werkzeug.local import LocalProxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from .sansio.app import App


@LocalProxy
def wsgi_errors_stream() -> TextIO:
    """The stream for errors: the server's during a request, else `sys.stderr`."""
    if request:
        return request.environ["wsgi.errors"]  # type: ignore[no-any-return]
    return sys.stderr


def has_level_handler(logger: logging.Logger) -> bool:
    """Tell whether a handler of the logger, or of one above it, takes the logger's level."""
    level = logger.getEffectiveLevel()
    current: logging.Logger | None = logger
    while current is not None:
        if any(handler.level <= level for handler in current.handlers):
            return True
        if not current.propagate:
            return False
        current = current.parent
    return False


# Writes to `wsgi_errors_stream`. Only apps whose logger has no handler get it.
default_handler = logging.StreamHandler(wsgi_errors_stream)
default_handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s in %(module)s: %(message)s"))


def create_logger(app: App) -> logging.Logger:
    """Return the logger with the app's name. Give it a handler, and in debug mode a level, if it has none."""
    logger = logging.getLogger(app.name)
    if app.debug and not logger.level:
        logger.setLevel(logging.DEBUG)
    if not has_level_handler(logger):
        logger.addHandler(default_handler)
    return logger
