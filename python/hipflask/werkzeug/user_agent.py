"""The ``User-Agent`` header as an object that a parser may fill in."""

from __future__ import annotations


class UserAgent:
    """A ``User-Agent`` value; only :attr:`string` is known unless a subclass parses it.

    Args:
        string: The header's value.

    Implements: werkzeug.user_agent.UserAgent (3.1).
    """

    platform: str | None = None
    """Name of the operating system, where a subclass knows it."""

    browser: str | None = None
    """Name of the browser, where a subclass knows it."""

    version: str | None = None
    """Version of the browser, where a subclass knows it."""

    language: str | None = None
    """Language of the browser, where a subclass knows it."""

    def __init__(self, string: str) -> None:
        self.string: str = string

    def __str__(self) -> str:
        return self.string

    def __bool__(self) -> bool:
        return bool(self.browser)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.browser}/{self.version}>"

    def to_header(self) -> str:
        """The value as it was sent."""
        return self.string
