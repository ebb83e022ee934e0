"""What one route may take: the options `timeout`, `max_body` and `inline` of `route` and `add_url_rule`.

Does not enforce anything: the engine does, for requests that come through it. Other servers, and the test
client, know no such limits.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMES = ("timeout", "max_body", "inline")


class RouteLimits:
    """The limits of one route, as the attribute `limits` of its rule.

    Args:
        timeout: Seconds that a request may take; 0 for as long as it likes, None for the server's setting.
        max_body: Bytes of a body at most, or a text such as ``"1 MiB"``; None for the server's setting.
        inline: True for a view that is always fast: it is called at once, even when all threads are busy.
            False for one that never is. None: the server finds out.

    Raises:
        TypeError: If one is of another type.
        ValueError: If one is negative or cannot be read.
    """

    __slots__ = _NAMES

    def __init__(
        self,
        timeout: float | None = None,
        max_body: int | str | None = None,
        inline: bool | None = None,
    ) -> None:
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, int | float):
                raise TypeError("'timeout' must be a number of seconds.")
            # Neither a negative number nor one that is none passes.
            if not 0 <= timeout <= _MOST_SECONDS:
                raise ValueError("'timeout' must be a number of seconds, 0 for as long as it likes.")
        if isinstance(max_body, str):
            from .setting_types import SettingError, Size

            try:
                max_body = Size(0).parse(max_body)
            except SettingError as error:
                raise ValueError(f"'max_body': {error}") from None
        if max_body is not None:
            if isinstance(max_body, bool) or not isinstance(max_body, int):
                raise TypeError("'max_body' must be a number of bytes, or a text such as '1 MiB'.")
            if not 0 <= max_body < 1 << 63:
                raise ValueError("'max_body' must be a number of bytes.")
        if inline is not None and not isinstance(inline, bool):
            raise TypeError("'inline' must be True, False or None.")
        self.timeout = None if timeout is None else float(timeout)
        self.max_body: int | None = max_body
        self.inline = inline

    def __repr__(self) -> str:
        given = [f"{name}={getattr(self, name)!r}" for name in _NAMES if getattr(self, name) is not None]
        return f"RouteLimits({', '.join(given)})"


_MOST_SECONDS = 365 * 86400.0


def take(options: dict[str, Any], view_func: object) -> RouteLimits | None:
    """Take the limits out of a rule's options; a class-based view may have them as attributes.

    Args:
        options: Of `add_url_rule`; what is taken is no option of the rule.
        view_func: The view.

    Returns:
        The limits, if there are any.
    """
    view_class = getattr(view_func, "view_class", None)
    found = {}
    for name in _NAMES:
        value = options.pop(name, None)
        if value is None and view_class is not None:
            value = getattr(view_class, name, None)
        if value is not None:
            found[name] = value
    return RouteLimits(**found) if found else None
