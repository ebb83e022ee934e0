"""What matching and building raise when there is no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import BadRequest, HTTPException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed.wsgi import WSGIEnvironment

    from ..wrappers.request import Request
    from ..wrappers.response import Response
    from .map import MapAdapter
    from .rules import Rule


class RoutingException(Exception):
    """An answer of the routing system that is neither a match nor a plain error."""


class RequestRedirect(HTTPException, RoutingException):
    """The request belongs to another URL.

    Args:
        new_url: The absolute URL.
    """

    code = 308

    def __init__(self, new_url: str) -> None:
        super().__init__(new_url)
        self.new_url = new_url

    def get_response(
        self,
        environ: WSGIEnvironment | Request | None = None,
        scope: dict[str, Any] | None = None,
    ) -> Response:
        """Return the redirect as a response."""
        from ..utils import redirect

        return redirect(self.new_url, self.code)


class RequestPath(RoutingException):
    """The request belongs to another path of the same host."""

    __slots__ = ("path_info",)

    def __init__(self, path_info: str) -> None:
        super().__init__()
        self.path_info = path_info


class RequestAliasRedirect(RoutingException):
    """The rule is an alias; the endpoint has a proper URL."""

    def __init__(self, matched_values: Mapping[str, Any], endpoint: Any) -> None:
        super().__init__()
        self.matched_values = matched_values
        self.endpoint = endpoint


class BuildError(RoutingException, LookupError):
    """No rule of the endpoint can be built with the values."""

    def __init__(
        self, endpoint: Any, values: Mapping[str, Any], method: str | None, adapter: MapAdapter | None = None
    ) -> None:
        super().__init__(endpoint, values, method)
        self.endpoint = endpoint
        self.values = values
        self.method = method
        self.adapter = adapter

    @property
    def suggested(self) -> Rule | None:
        """The rule that was probably meant; found once, when first asked for."""
        if "suggested" not in self.__dict__:
            self.__dict__["suggested"] = self.closest_rule(self.adapter)
        found: Rule | None = self.__dict__["suggested"]
        return found

    def closest_rule(self, adapter: MapAdapter | None) -> Rule | None:
        """Return the rule whose endpoint, then arguments and methods, are most like those wanted."""
        from difflib import SequenceMatcher

        rules = adapter.map._rules if adapter else []
        wanted = str(self.endpoint)

        def likeness(rule: Rule) -> float:
            score = 0.98 * SequenceMatcher(None, str(rule.endpoint), wanted).ratio()
            if rule.arguments.issuperset(self.values or ()):
                score += 0.01
            if rule.methods and self.method in rule.methods:
                score += 0.01
            return score

        return max(rules, key=likeness, default=None)

    def __str__(self) -> str:
        text = f"Could not build url for endpoint {self.endpoint!r}"
        if self.method:
            text += f" ({self.method!r})"
        if self.values:
            text += f" with values {sorted(self.values)!r}"
        return f"{text}.{self._advice()}"

    def _advice(self) -> str:
        rule = self.suggested
        if rule is None:
            return ""
        if rule.endpoint != self.endpoint:
            return f" Did you mean {rule.endpoint!r} instead?"
        advice = ""
        if self.method and rule.methods is not None and self.method not in rule.methods:
            advice = f" Did you mean to use methods {sorted(rule.methods)!r}?"
        missing = rule.arguments.union(rule.defaults or ()).difference(self.values)
        if missing:
            advice += f" Did you forget to specify values {sorted(missing)!r}?"
        return advice


class WebsocketMismatch(BadRequest):
    """A rule matches, but for the protocol: it is for WebSocket and the request is not, or the reverse."""


class NoMatch(Exception):
    """No rule matches."""

    __slots__ = ("have_match_for", "websocket_mismatch")

    def __init__(self, have_match_for: set[str], websocket_mismatch: bool) -> None:
        self.have_match_for = have_match_for
        self.websocket_mismatch = websocket_mismatch
