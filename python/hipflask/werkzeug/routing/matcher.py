"""Werkzeug's matcher, for those who use it without a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import _core
from .exceptions import NoMatch, RequestAliasRedirect, RequestPath

if TYPE_CHECKING:
    from .rules import Rule


class StateMachineMatcher:
    """Matches paths to bound rules.

    A `Map` does not use it, as it has the native router at its base.

    Args:
        merge_slashes: Whether a path with doubled slashes is redirected to the same with single ones.
    """

    def __init__(self, merge_slashes: bool) -> None:
        self.merge_slashes = merge_slashes
        self._core = _core.MapBase()
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Add a rule that is bound to a map."""
        self._rules.append(rule)
        self._core._remap = True

    def update(self) -> None:
        """Compile the rules, if any were added."""
        self._core.merge_slashes = self.merge_slashes
        if self._core._remap:
            self._core._compile(self._rules, {})
            self._core._remap = False

    def match(self, domain: str, path: str, method: str, websocket: bool) -> tuple[Rule, dict[str, Any]]:
        """Return the rule for a request, and its variables' values.

        Raises:
            RequestPath: If another path is meant.
            RequestAliasRedirect: If the rule is an alias.
            NoMatch: If there is no rule.
        """
        self.update()
        bound = _core.MapAdapterBase(self._core, domain, "/", None, "http", path, method)
        kind, what, values = bound._find(path, method, websocket)
        if kind == 2:
            from urllib.parse import unquote

            raise RequestPath(unquote(what))
        if kind > 2:
            raise NoMatch(set(what) if kind == 3 else set(), kind == 4)
        if what.alias and what.map.redirect_defaults:
            raise RequestAliasRedirect(values, what.endpoint)
        return what, values
