"""Rules, and factories that make rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import _core
from .converters import ValidationError, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import CodeType

    from .converters import BaseConverter
    from .map import Map


class RuleFactory:
    """Anything that a map can be made of: a rule, or a subclass that makes rules."""

    def get_rules(self, map: Map) -> Iterable[Rule]:
        """Return the rules. Subclasses must define this."""
        raise NotImplementedError


class Subdomain(RuleFactory):
    """Puts rules under a subdomain.

    Args:
        subdomain: The subdomain, itself a rule: `www`, `<user>`.
        rules: The rules and factories.
    """

    def __init__(self, subdomain: str, rules: Iterable[RuleFactory]) -> None:
        self.subdomain = subdomain
        self.rules = rules

    def get_rules(self, map: Map) -> Iterator[Rule]:
        """Yield copies of the rules, each with the subdomain."""
        for rule in _copies(self.rules, map):
            rule.subdomain = self.subdomain
            yield rule


class Submount(RuleFactory):
    """Puts rules under a path.

    Args:
        path: What to put before each rule.
        rules: The rules and factories.
    """

    def __init__(self, path: str, rules: Iterable[RuleFactory]) -> None:
        self.path = path.rstrip("/")
        self.rules = rules

    def get_rules(self, map: Map) -> Iterator[Rule]:
        """Yield copies of the rules, each with the path before it."""
        for rule in _copies(self.rules, map):
            rule.rule = self.path + rule.rule
            yield rule


class EndpointPrefix(RuleFactory):
    """Puts a prefix before the endpoints of rules.

    Args:
        prefix: What to put before each endpoint.
        rules: The rules and factories, with endpoints that are strings.
    """

    def __init__(self, prefix: str, rules: Iterable[RuleFactory]) -> None:
        self.prefix = prefix
        self.rules = rules

    def get_rules(self, map: Map) -> Iterator[Rule]:
        """Yield copies of the rules, each with the prefix before its endpoint."""
        for rule in _copies(self.rules, map):
            rule.endpoint = self.prefix + rule.endpoint
            yield rule


class RuleTemplate:
    """Rules with `$name` in them; call it with the names' values to get rules for a map.

    Args:
        rules: Rules whose path, endpoint, subdomain and defaults may hold placeholders.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = list(rules)

    def __call__(self, *args: Any, **kwargs: Any) -> RuleTemplateFactory:
        """Fill in the placeholders from a mapping or keyword arguments."""
        return RuleTemplateFactory(self.rules, dict(*args, **kwargs))


class RuleTemplateFactory(RuleFactory):
    """The rules of a template with its placeholders filled in.

    Args:
        rules: The template's rules.
        context: The placeholders' values.
    """

    def __init__(self, rules: Iterable[RuleFactory], context: dict[str, Any]) -> None:
        self.rules = rules
        self.context = context

    def get_rules(self, map: Map) -> Iterator[Rule]:
        """Yield the rules."""
        for factory in self.rules:
            for rule in factory.get_rules(map):
                defaults = rule.defaults
                yield Rule(
                    self._filled(rule.rule),
                    {key: self._filled(value) for key, value in defaults.items()} if defaults else None,
                    self._filled(rule.subdomain),
                    rule.methods,
                    rule.build_only,
                    self._filled(rule.endpoint),
                    rule.strict_slashes,
                )

    def _filled(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        from string import Template

        return Template(value).substitute(self.context)


class Rule(RuleFactory):
    """One URL pattern and the endpoint that it leads to.

    Args:
        string: The path. `<name>`, `<converter:name>` and `<converter(arguments):name>` stand for variables.
            A path that ends with a slash is also found without it, by a redirect.
        defaults: Values that the view gets beside those from the path. If another rule of the endpoint takes
            them from the path, a request for just these values is redirected here.
        subdomain: The subdomain, itself with variables if wanted.
        methods: The methods; all if not given. `GET` brings `HEAD` with it.
        build_only: The rule never matches.
        endpoint: What to call; any hashable object.
        strict_slashes: Redirect from a missing slash at the end, as the map says if not given.
        merge_slashes: Redirect from doubled slashes, as the map says if not given.
        redirect_to: Instead of matching redirect to this path, which may name the rule's variables in angle
            brackets, or to what this function returns.
        alias: Another rule of the endpoint is the proper one; redirect there.
        host: The host, itself with variables if wanted, if the map matches hosts.
        websocket: For WebSocket handshakes only.

    Raises:
        ValueError: If the path does not begin with a slash.
        TypeError: If `methods` is a string.

    Implements: werkzeug.routing.Rule (3.1).
    """

    map: Map
    _place = 0
    """Its number in the order in which the map's rules were added."""

    def __init__(
        self,
        string: str,
        defaults: Mapping[str, Any] | None = None,
        subdomain: str | None = None,
        methods: Iterable[str] | None = None,
        build_only: bool = False,
        endpoint: Any | None = None,
        strict_slashes: bool | None = None,
        merge_slashes: bool | None = None,
        redirect_to: str | Callable[..., str] | None = None,
        alias: bool = False,
        host: str | None = None,
        websocket: bool = False,
    ) -> None:
        if not string.startswith("/"):
            raise ValueError(f"URL rule '{string}' must start with a slash.")
        self.rule = string
        self.is_branch = string.endswith("/")
        self.is_leaf = not self.is_branch
        self.map = None  # type: ignore[assignment]
        self.strict_slashes = strict_slashes
        self.merge_slashes = merge_slashes
        self.subdomain = subdomain
        self.host = host
        self.defaults = defaults
        self.build_only = build_only
        self.alias = alias
        self.websocket = websocket
        self.methods = _method_set(methods, websocket)
        self.endpoint: Any = endpoint
        self.redirect_to = redirect_to
        self.arguments = {str(name) for name in defaults or ()}
        self._converters: dict[str, BaseConverter] = {}
        self._trace: list[tuple[bool, str]] = []

    def empty(self) -> Rule:
        """Return a copy that is bound to no map."""
        return type(self)(self.rule, **self.get_empty_kwargs())

    def get_empty_kwargs(self) -> Mapping[str, Any]:
        """Return the keyword arguments for `empty`. A subclass with more of them adds its own."""
        return {
            "defaults": dict(self.defaults) if self.defaults else None,
            "subdomain": self.subdomain,
            "methods": self.methods,
            "build_only": self.build_only,
            "endpoint": self.endpoint,
            "strict_slashes": self.strict_slashes,
            "redirect_to": self.redirect_to,
            "alias": self.alias,
            "host": self.host,
        }

    def get_rules(self, map: Map) -> Iterator[Rule]:
        """Yield the rule itself."""
        yield self

    def refresh(self) -> None:
        """Compile the rule again. Needed after its path, or an object such as `methods`, was changed."""
        self.bind(self.map, rebind=True)
        self.map._remap = True

    def bind(self, map: Map, rebind: bool = False) -> None:
        """Make the rule a map's own and take from it what the rule leaves open.

        Raises:
            RuntimeError: If the rule belongs to a map already.
        """
        if self.map is not None and not rebind:
            raise RuntimeError(f"url rule {self!r} already bound to map {self.map!r}")
        self.map = map
        if self.strict_slashes is None:
            self.strict_slashes = map.strict_slashes
        if self.merge_slashes is None:
            self.merge_slashes = map.merge_slashes
        if self.subdomain is None:
            self.subdomain = map.default_subdomain
        self.compile()

    def get_converter(
        self, variable_name: str, converter_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> BaseConverter:
        """Make the converter of a variable.

        Raises:
            LookupError: If the map has no such converter.
        """
        if converter_name not in self.map.converters:
            raise LookupError(f"the converter {converter_name!r} does not exist")
        return self.map.converters[converter_name](self.map, *args, **kwargs)

    def compile(self) -> None:
        """Parse the rule and make its converters.

        Raises:
            ValueError: If the rule is malformed.
            LookupError: If it names an unknown converter.
        """
        assert self.map is not None, "rule not bound"
        domain = (self.host if self.map.host_matching else self.subdomain) or ""
        self._compiled = _core.CompiledRule(
            domain, self.rule, bool(self.merge_slashes), self.defaults or None, self._describe
        )
        self._trace = self._compiled.trace
        self._converters = self._compiled.converters

    @staticmethod
    def _get_func_code(code: CodeType, name: str) -> Callable[..., tuple[str, str]]:
        """The function of this name that compiled code defines. Rules need none here; others call it."""
        names: dict[str, Any] = {}
        exec(code, {}, names)
        function: Callable[..., tuple[str, str]] = names[name]
        return function

    def build(self, values: Mapping[str, Any], append_unknown: bool = True) -> tuple[str, str] | None:
        """Return subdomain (or host) and path for these values, or None if a converter refuses one."""
        try:
            return self._compiled.build(dict(values), append_unknown, self.map)
        except ValidationError:
            return None

    def provides_defaults_for(self, rule: Rule) -> bool:
        """Tell whether this rule has as defaults what the other takes from the path."""
        return bool(
            self.defaults
            and not self.build_only
            and self.endpoint == rule.endpoint
            and self.arguments == rule.arguments
            and self != rule
        )

    def suitable_for(self, values: Mapping[str, Any], method: str | None = None) -> bool:
        """Tell whether the values are enough, and the method right, to build this rule."""
        if method is not None and self.methods is not None and method not in self.methods:
            return False
        defaults = self.defaults or {}
        if any(name not in defaults and name not in values for name in self.arguments):
            return False
        return not any(name in values and value != values[name] for name, value in defaults.items())

    def build_compare_key(self) -> tuple[int, int, int]:
        """Return the key by which an endpoint's rules are sorted for building."""
        return (1 if self.alias else 0, -len(self.arguments), -len(self.defaults or ()))

    @property
    def _overridden(self) -> bool:
        kind = type(self)
        return kind.build is not Rule.build or kind.suitable_for is not Rule.suitable_for

    def _describe(self, name: str, converter: str | None, arguments: str | None) -> tuple[Any, ...]:
        args, kwargs = parse_converter_args(arguments) if arguments else ((), {})
        made = self.get_converter(name, converter or "default", args, kwargs)
        self.arguments.add(name)
        return describe(made)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in _COMPILED_INTO_MAP and self.__dict__.get("map") is not None:
            self.map._remap = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._trace == other._trace

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.rule

    def __repr__(self) -> str:
        name = type(self).__name__
        if self.map is None:
            return f"<{name} (unbound)>"
        text = "".join(f"<{piece}>" if variable else piece for variable, piece in self._trace).lstrip("|")
        methods = f" ({', '.join(self.methods)})" if self.methods is not None else ""
        return f"<{name} {text!r}{methods} -> {self.endpoint}>"


_COMPILED_INTO_MAP = frozenset(
    [
        "alias",
        "arguments",
        "defaults",
        "endpoint",
        "merge_slashes",
        "methods",
        "redirect_to",
        "strict_slashes",
    ]
)
"""What a map's compiled form holds of a rule: a new value makes the map compile itself again."""


def parse_converter_args(argstr: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Parse what stands in parentheses after a converter's name.

    Returns:
        The positional and the keyword arguments: numbers, `True`, `False`, `None`, or strings.

    Raises:
        ValueError: If something between two arguments is none.
    """
    import re

    argument = re.compile(
        r"\s*(?:(?P<name>\w+)\s*=\s*)?"
        r"(?P<value>True|False|\d+.\d+|\d+.|[\w.]+|[urUR]?(?P<quoted>\"[^\"]*\"|'[^']*'))\s*,"
    )
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    end = 0
    for found in argument.finditer(argstr + ","):
        if found.start() != end:
            raise ValueError(f"Cannot parse converter argument '{argstr[end : found.start()]}'")
        end = found.end()
        value = _constant(found["quoted"] or found["value"])
        if found["name"]:
            kwargs[found["name"]] = value
        else:
            args.append(value)
    return tuple(args), kwargs


def _constant(text: str) -> Any:
    named = {"None": None, "True": True, "False": False}
    if text in named:
        return named[text]
    for number in int, float:
        try:
            return number(text)
        except ValueError:
            pass
    if text[0] in "\"'" and text[0] == text[-1]:
        return text[1:-1]
    return text


def _method_set(methods: Iterable[str] | None, websocket: bool) -> set[str] | None:
    if methods is None:
        return None
    if isinstance(methods, str):
        raise TypeError("'methods' should be a list of strings.")
    found = {method.upper() for method in methods}
    if "GET" in found:
        found.add("HEAD")
    if websocket and not found <= {"GET", "HEAD", "OPTIONS"}:
        raise ValueError("WebSocket rules can only use 'GET', 'HEAD', and 'OPTIONS' methods.")
    return found


def _copies(factories: Iterable[RuleFactory], map: Map) -> Iterator[Rule]:
    for factory in factories:
        for rule in factory.get_rules(map):
            yield rule.empty()
