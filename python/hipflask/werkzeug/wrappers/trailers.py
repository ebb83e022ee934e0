"""The fields that follow a response's body: what a response is told of them, until somebody sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    #: What a function may return that is called for trailers.
    Fields = Headers | Mapping[str, Any] | Iterable[tuple[str, Any]] | None


class ResponseTrailers:
    """The trailers of one response. Called by whoever has sent the body's last piece, it gives them."""

    def __init__(self) -> None:
        self.fields = Headers()
        self.functions: list[Callable[[], Fields]] = []

    def names(self) -> str:
        """What is known of them beforehand, as the value of a ``Trailer`` field; empty for nothing."""
        names = {name.lower(): name for name in self.fields.keys()}  # noqa: SIM118
        return ", ".join(names.values())

    def __call__(self) -> list[tuple[str, str]]:
        # First the functions: they may fill in the fields, too.
        made = [Headers(function()) for function in self.functions]
        return [pair for fields in (self.fields, *made) for pair in fields]
