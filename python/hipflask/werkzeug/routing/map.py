"""Maps of rules, and maps bound to a request."""

from __future__ import annotations

from itertools import count
from operator import methodcaller
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, overload
from weakref import WeakSet

from ... import _core
from ..datastructures import ImmutableDict
from .converters import DEFAULT_CONVERTERS
from .exceptions import RequestRedirect, WebsocketMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from typing_extensions import Self

    from ..wrappers.request import Request
    from .converters import BaseConverter
    from .rules import Rule, RuleFactory


def _warn_of_host(text: str) -> None:
    """Warn at the caller of `bind_to_environ`. Filters written for Flask call our app's module so, too."""
    import sys
    import warnings

    caller = sys._getframe(2)
    module = str(caller.f_globals.get("__name__", "")).removeprefix("hip")
    warnings.warn_explicit(text, UserWarning, caller.f_code.co_filename, caller.f_lineno, module=module)


class Map(_core.MapBase):
    """All rules of an application.

    Args:
        rules: Rules and factories of rules.
        default_subdomain: The subdomain of rules that name none.
        strict_slashes: Redirect to a rule that ends with a slash when only the slash is missing.
        merge_slashes: Redirect from doubled slashes to single ones.
        redirect_defaults: Redirect to the rule that has the values of the path as its defaults.
        converters: Converters by name, beside or instead of the default ones.
        sort_parameters: Sort the query of built URLs.
        sort_key: The key to sort by, as for `sorted`; it gets pairs of key and value.
        host_matching: Tell rules apart by their `host`, not by their `subdomain`.

    Implements: werkzeug.routing.Map (3.1).
    """

    default_converters: Mapping[str, type[BaseConverter]] = ImmutableDict(DEFAULT_CONVERTERS)
    """The converters that every map of this class has."""

    _sharers: WeakSet[Map] | None = None

    lock_class = Lock
    """Makes the lock that is held while the map is compiled."""

    def __init__(
        self,
        rules: Iterable[RuleFactory] | None = None,
        default_subdomain: str = "",
        strict_slashes: bool = True,
        merge_slashes: bool = True,
        redirect_defaults: bool = True,
        converters: Mapping[str, type[BaseConverter]] | None = None,
        sort_parameters: bool = False,
        sort_key: Callable[[Any], Any] | None = None,
        host_matching: bool = False,
    ) -> None:
        self._rules_by_endpoint: dict[Any, list[Rule]] = {}
        self._places = count(1)
        self._remap_lock = self.lock_class()
        self.default_subdomain = default_subdomain
        self.strict_slashes = strict_slashes
        self.merge_slashes = merge_slashes
        self.redirect_defaults = redirect_defaults
        self.host_matching = host_matching
        self.converters: dict[str, type[BaseConverter]] = {**self.default_converters, **(converters or {})}
        self.sort_parameters = sort_parameters
        self.sort_key = sort_key
        for factory in rules or ():
            self.add(factory)

    def __copy__(self) -> Self:
        """A map with settings of its own and the same rules: one that is added to either is in both."""
        copy = type(self).__new__(type(self))
        if self._sharers is None:
            self._sharers = WeakSet((self,))
        vars(copy).update(vars(self))
        self._sharers.add(copy)
        copy.merge_slashes = self.merge_slashes
        copy.host_matching = self.host_matching
        return copy

    def is_endpoint_expecting(self, endpoint: Any, *arguments: str) -> bool:
        """Tell whether some rule of the endpoint has all these variables.

        Raises:
            KeyError: If there is no such endpoint.
        """
        self.update()
        return any(rule.arguments.issuperset(arguments) for rule in self._rules_by_endpoint[endpoint])

    @property
    def _rules(self) -> list[Rule]:
        return [rule for rules in self._rules_by_endpoint.values() for rule in rules]

    def iter_rules(self, endpoint: Any | None = None) -> Iterator[Rule]:
        """Iterate over all rules, or over those of one endpoint.

        Raises:
            KeyError: If there is no such endpoint.
        """
        self.update()
        return iter(self._rules if endpoint is None else self._rules_by_endpoint[endpoint])

    def add(self, rulefactory: RuleFactory) -> None:
        """Add a rule, or what a factory makes.

        Raises:
            RuntimeError: If a rule belongs to another map.
            ValueError: If a rule is malformed.
            LookupError: If a rule names an unknown converter.
        """
        for rule in rulefactory.get_rules(self):
            rule.bind(self)
            with self._remap_lock:
                rule._place = next(self._places)
                self._rules_by_endpoint.setdefault(rule.endpoint, []).append(rule)
                for sharer in self._sharers or (self,):
                    sharer._remap = True

    def bind(
        self,
        server_name: str,
        script_name: str | None = None,
        subdomain: str | None = None,
        url_scheme: str = "http",
        default_method: str = "GET",
        path_info: str | None = None,
        query_args: Mapping[str, Any] | str | None = None,
    ) -> MapAdapter:
        """Bind the map to a server and, if wanted, a request.

        Args:
            server_name: The host, with the port if it is not the scheme's own.
            script_name: The path under which the application is mounted.
            subdomain: The subdomain of the request; the map's default if not given.
            url_scheme: `http`, `https`, `ws` or `wss`.
            default_method: The method to match when `match` is given none.
            path_info: The path to match when `match` is given none.
            query_args: The query, kept by redirects.

        Raises:
            BadHost: If the host cannot be a name.
            RuntimeError: If a subdomain is given although the map matches hosts.
        """
        if self.host_matching:
            if subdomain is not None:
                raise RuntimeError("host matching enabled and a subdomain was provided")
        elif subdomain is None:
            subdomain = self.default_subdomain
        return MapAdapter(
            self,
            _ascii_host(server_name.lower()),
            "/" if script_name is None else script_name,
            subdomain,
            url_scheme,
            "/" if path_info is None else path_info,
            default_method,
            query_args,
        )

    def bind_to_environ(
        self,
        environ: WSGIEnvironment | Request,
        server_name: str | None = None,
        subdomain: str | None = None,
    ) -> MapAdapter:
        """Bind the map to a request.

        Args:
            environ: The WSGI environment, or a request that has one.
            server_name: The host that is no subdomain; the request's own host if not given.
            subdomain: The subdomain; what stands before `server_name` in the request's host if not given. A
                request for another host gets a subdomain that matches nothing, and a warning.
        """
        from .._internal import _get_environ, _wsgi_decoding_dance
        from ..wsgi import get_host

        env = _get_environ(environ)
        host = get_host(env).lower()
        scheme = _scheme(env)
        server_name = host if server_name is None else _without_standard_port(server_name.lower(), scheme)
        if subdomain is None and not self.host_matching:
            labels, known = host.split("."), server_name.split(".")
            if labels[-len(known) :] == known:
                subdomain = ".".join(filter(None, labels[: -len(known)]))
            else:
                _warn_of_host(
                    f"Current server name {host!r} doesn't match configured server name {server_name!r}"
                )
                subdomain = "<invalid>"
        script_name, path_info, query_args = (
            None if name not in env else _wsgi_decoding_dance(env[name])
            for name in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
        )
        return Map.bind(
            self,
            server_name,
            script_name,
            subdomain,
            scheme,
            env["REQUEST_METHOD"],
            path_info,
            query_args=query_args,
        )

    def update(self) -> None:
        """Compile the map, if rules were added since the last time. Matching and building do so, too."""
        if not self._remap:
            return
        with self._remap_lock:
            if not self._remap:
                return
            for rules in self._rules_by_endpoint.values():
                rules.sort(key=methodcaller("build_compare_key"))
            self._compile(sorted(self._rules, key=_place), self._rules_by_endpoint)
            self._remap = False

    def __repr__(self) -> str:
        from pprint import pformat

        return f"{type(self).__name__}({pformat(list(self.iter_rules()))})"


class MapAdapter(_core.MapAdapterBase):
    """A map bound to a server and a request; made by `Map.bind` and `Map.bind_to_environ`.

    Implements: werkzeug.routing.MapAdapter (3.1).
    """

    map: Map

    def __copy__(self) -> Self:
        bound = (self.map, self.server_name, self.script_name, self.subdomain, self.url_scheme)
        copy = type(self)(*bound, self.path_info, self.default_method, self.query_args)
        copy.websocket = self.websocket
        vars(copy).update(vars(self))
        return copy

    def dispatch(
        self,
        view_func: Callable[[str, Mapping[str, Any]], WSGIApplication],
        path_info: str | None = None,
        method: str | None = None,
        catch_http_exceptions: bool = False,
    ) -> WSGIApplication:
        """Match, and call a function with the endpoint and the values.

        Args:
            view_func: Gets the endpoint and a dict.
            path_info: The path, if not the bound one.
            method: The method, if not the bound one.
            catch_http_exceptions: Return an `HTTPException`, which is a WSGI application, instead of raising
                it. A redirect of the routing itself is always returned.
        """
        from ..exceptions import HTTPException

        try:
            try:
                endpoint, values = self.match(path_info, method)
            except RequestRedirect as redirect:
                return redirect
            return view_func(endpoint, values)
        except HTTPException as error:
            if catch_http_exceptions:
                return error
            raise

    @overload
    def match(
        self,
        path_info: str | None = None,
        method: str | None = None,
        return_rule: Literal[False] = False,
        query_args: Mapping[str, Any] | str | None = None,
        websocket: bool | None = None,
    ) -> tuple[Any, Mapping[str, Any]]: ...

    @overload
    def match(
        self,
        path_info: str | None = None,
        method: str | None = None,
        return_rule: Literal[True] = True,
        query_args: Mapping[str, Any] | str | None = None,
        websocket: bool | None = None,
    ) -> tuple[Rule, Mapping[str, Any]]: ...

    def match(
        self,
        path_info: str | None = None,
        method: str | None = None,
        return_rule: bool = False,
        query_args: Mapping[str, Any] | str | None = None,
        websocket: bool | None = None,
    ) -> tuple[Any | Rule, Mapping[str, Any]]:
        """Find the rule for a path.

        Args:
            path_info: The decoded path; the bound one if not given.
            method: The method; the bound one if not given.
            return_rule: Return the rule instead of its endpoint.
            query_args: The query, kept by redirects; the bound one if not given.
            websocket: Whether the request is a WebSocket handshake; by the scheme if not given.

        Returns:
            The endpoint or rule, and the variables' values.

        Raises:
            NotFound: If no rule matches.
            MethodNotAllowed: If rules match, but for the method.
            WebsocketMismatch: If rules match, but for the protocol.
            RequestRedirect: If the request belongs to another URL.
        """
        kind, rule, values = self._find(path_info, method, websocket)
        if kind == 1:
            self._redirect_from(rule, values, path_info, method, query_args)
        elif kind:
            self._refuse(kind, rule, query_args)
        return (rule if return_rule else rule.endpoint), values

    def _refuse(self, kind: int, what: Any, query_args: Mapping[str, Any] | str | None) -> None:
        from ..exceptions import MethodNotAllowed, NotFound

        if kind == 2:
            raise RequestRedirect(self.make_redirect_url(what, query_args))
        if kind == 3:
            raise MethodNotAllowed(valid_methods=what)
        raise WebsocketMismatch if kind == 4 else NotFound

    def _redirect_from(
        self,
        rule: Rule,
        values: MutableMapping[str, Any],
        path_info: str | None,
        method: str | None,
        query_args: Mapping[str, Any] | str | None,
    ) -> None:
        method = (method or self.default_method).upper()
        if query_args is None:
            query_args = self.query_args or {}
        if self.map.redirect_defaults:
            if rule.alias:
                domain = self.server_name
                if not self.map.host_matching and self.subdomain is not None:
                    domain = self.subdomain
                path = self.path_info if path_info is None else path_info
                path = f"{domain}|/{path.lstrip('/')}" if path else f"{domain}|"
                raise RequestRedirect(
                    self.make_alias_redirect_url(path, rule.endpoint, values, method, query_args)
                )
            url = self.get_default_redirect(rule, method, values, query_args)
            if url is not None:
                raise RequestRedirect(url)
        if rule.redirect_to is not None:
            from urllib.parse import urljoin

            if isinstance(rule.redirect_to, str):
                target = _filled(rule.redirect_to, rule, values)
            else:
                target = rule.redirect_to(self, **values)
            host = f"{self.subdomain}.{self.server_name}" if self.subdomain else self.server_name
            raise RequestRedirect(urljoin(f"{self.url_scheme or 'http'}://{host}{self.script_name}", target))

    def test(self, path_info: str | None = None, method: str | None = None) -> bool:
        """Tell whether a path matches, or is redirected."""
        from ..exceptions import HTTPException

        try:
            self.match(path_info, method)
        except RequestRedirect:
            return True
        except HTTPException:
            return False
        return True

    def allowed_methods(self, path_info: str | None = None) -> Iterable[str]:
        """Return the methods that a path takes; none if a rule takes them all."""
        from ..exceptions import HTTPException, MethodNotAllowed

        try:
            self.match(path_info, method="--")
        except MethodNotAllowed as error:
            return error.valid_methods or []
        except HTTPException:
            pass
        return []

    def get_host(self, domain_part: str | None) -> str:
        """Return the host of a subdomain or, if the map matches hosts, of a host; the bound one's if None."""
        if self.map.host_matching:
            return self.server_name if domain_part is None else domain_part
        subdomain = self.subdomain if domain_part is None else domain_part
        return f"{subdomain}.{self.server_name}" if subdomain else self.server_name

    def get_default_redirect(
        self,
        rule: Rule,
        method: str,
        values: MutableMapping[str, Any],
        query_args: Mapping[str, Any] | str,
    ) -> str | None:
        """Return the URL of a preferred rule that has these values as its defaults, if there is one."""
        assert self.map.redirect_defaults
        for other in self.map._rules_by_endpoint[rule.endpoint]:
            if other is rule:
                break
            if other.provides_defaults_for(rule) and other.suitable_for(values, method):
                values.update(other.defaults or {})
                built = other.build(values)
                if built is not None:
                    return self.make_redirect_url(built[1], query_args, domain_part=built[0])
        return None

    def encode_query_args(self, query_args: Mapping[str, Any] | str) -> str:
        """Return a query as text."""
        if isinstance(query_args, str):
            return query_args
        from ..urls import _urlencode

        return _urlencode(query_args)

    def make_redirect_url(
        self,
        path_info: str,
        query_args: Mapping[str, Any] | str | None = None,
        domain_part: str | None = None,
    ) -> str:
        """Return the absolute URL for an encoded path, with the query."""
        if query_args is None:
            query_args = self.query_args
        query = self.encode_query_args(query_args) if query_args else ""
        return _core.redirect_url(
            self.url_scheme or "http", self.get_host(domain_part), self.script_name, path_info, query
        )

    def make_alias_redirect_url(
        self,
        path: str,
        endpoint: Any,
        values: Mapping[str, Any],
        method: str,
        query_args: Mapping[str, Any] | str,
    ) -> str:
        """Return the proper URL for what an alias matched."""
        url = self.build(endpoint, values, method, append_unknown=False, force_external=True)
        if query_args:
            url += f"?{self.encode_query_args(query_args)}"
        assert url != path, "detected invalid alias setting. No canonical URL found"
        return url


def _place(rule: Rule) -> int:
    return rule._place


def _ascii_host(host: str) -> str:
    name, colon, port = host.partition(":")
    # The port is no part of the name. ASCII names without overlong or empty labels stay as they are.
    if not name.isascii() or len(name) > 63 or ".." in name or name.startswith("."):
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            from ..exceptions import BadHost

            raise BadHost from error
    return f"{name}{colon}{port}"


def _scheme(env: WSGIEnvironment) -> str:
    scheme: str = env["wsgi.url_scheme"]
    if env.get("HTTP_UPGRADE", "").lower() == "websocket":
        options = env.get("HTTP_CONNECTION", "").lower().split(",")
        if any(option.strip() == "upgrade" for option in options):
            return "wss" if scheme == "https" else "ws"
    return scheme


def _without_standard_port(host: str, scheme: str) -> str:
    if scheme in {"http", "ws"}:
        return host.removesuffix(":80")
    if scheme in {"https", "wss"}:
        return host.removesuffix(":443")
    return host


def _filled(target: str, rule: Rule, values: Mapping[str, Any]) -> str:
    head, *pieces = target.split("<")
    for piece in pieces:
        name, bracket, tail = piece.partition(">")
        if name and bracket:
            head += rule._converters[name].to_url(values[name]) + tail
        else:
            head += f"<{piece}"
    return head
