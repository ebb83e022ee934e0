"""Maps of generated rules give the same answers as Werkzeug's.

Each example is a map: matching is compared for many paths, methods and protocols, building for many endpoints
and values. Rules, paths and values are drawn from small pools so that they meet often.
"""

from __future__ import annotations

import random
import uuid
from types import ModuleType
from typing import Any

import pytest
import werkzeug.datastructures
import werkzeug.routing
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hipflask.werkzeug.datastructures
import hipflask.werkzeug.routing

SIDES = (
    (werkzeug.routing, werkzeug.datastructures.MultiDict),
    (hipflask.werkzeug.routing, hipflask.werkzeug.datastructures.MultiDict),
)
UUID = "a8098c1a-f86e-11da-bd1a-00112444be1e"

STATIC = ["a", "b", "ab", "a-b", "x.y", "é", "a b", "12", "%", ""]
VARIABLES = {
    "<{}>": ["a", "ab", "é", "1"],
    "<string:{}>": ["a", "a b", "12"],
    "<string(length=2):{}>": ["ab", "02", "éé"],
    "<string(minlength=2, maxlength=3):{}>": ["ab", "abc"],
    "<int:{}>": ["1", "02", "٣", "99999999999999999999"],
    "<int(signed=True):{}>": ["-3", "12", "-99999999999999999999"],
    "<int(min=2, max=30):{}>": ["12", "2", "31"],
    "<int(fixed_digits=2):{}>": ["02", "12"],
    "<float:{}>": ["1.5", "0.0", "٣.٣"],
    "<float(signed=True, min=-2.5):{}>": ["-1.5", "1.5", "-3.5"],
    '<any(a, ab, "a-b", é):{}>': ["a", "ab", "a-b", "é"],
    "<path:{}>": ["a/b", "a", "ab/1/a-b"],
    "<uuid:{}>": [UUID],
    "<letters:{}>": ["a", "abc"],
    "<word:{}>": ["a-b", "é1"],
    "<even:{}>": ["12", "2", "1"],
    "<pair:{}>": ["a+b", "é+ü"],
    "<deep:{}>": ["a/b", "é/x"],
    "<light:{}>": ["ab", "1"],
}
MIXED = ["{}-{}", "x{}", "{}.{}", "{}{}", "{}-x", "a{}b{}", "{}.x.{}"]
TEXTS = [
    "a",
    "b",
    "ab",
    "a-b",
    "x.y",
    "é",
    "a b",
    "1",
    "12",
    "02",
    "-3",
    "1.5",
    "-1.5",
    "abc",
    "xab",
    "ab.c",
    UUID,
]
TEXTS += ["", "", "٣", "a\nb", "a+b", "x12", "99999999999999999999", "a1b2", "%", "a.x.b", "A", "\U0001d7d8"]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "get", "BREW"]
VALUES: list[Any] = [
    "a",
    "ab",
    "é/ü",
    "a b",
    1,
    12,
    -3,
    1.5,
    "12",
    True,
    None,
    [1, 2],
    ("x", None),
    {7},
    b"by\xff",
]
VALUES += ["a-b", uuid.UUID(UUID), "", "?&=+#%", 99999999999999999999, ["p", "q"], [], "Ω"]
NAMES = ["v0", "v1", "v2", "extra", "more"]


def converters(routing: ModuleType) -> dict[str, type]:
    class Letters(routing.BaseConverter):
        regex = "[a-c]+"

    class Word(routing.BaseConverter):
        regex = r"(?:\w|-)+"
        weight = 90

    class Even(routing.IntegerConverter):
        def to_python(self, value: str) -> int:
            number = super().to_python(value)
            if number % 2:
                raise routing.ValidationError
            return number

    class Pair(routing.BaseConverter):
        regex = "[^/+]+[+][^/+]+"

        def to_python(self, value: str) -> list[str]:
            return value.split("+")

        def to_url(self, value: Any) -> str:
            if len(value) != 2:
                raise routing.ValidationError
            return "+".join(super(Pair, self).to_url(item) for item in value)

    class Deep(routing.BaseConverter):
        regex = "[^/]+/[^/]+"

    class Light(routing.UnicodeConverter):
        weight = 10

    return {"letters": Letters, "word": Word, "even": Even, "pair": Pair, "deep": Deep, "light": Light}


@st.composite
def paths_of_rules(draw: st.DrawFn) -> str:
    """The path of a rule, with variables called v0, v1, …"""
    segments = []
    for _ in range(draw(st.integers(0, 3))):
        segment = draw(st.sampled_from([*STATIC, *["{}"] * 10, *MIXED]))
        segments.append(segment)
    path = "/" + "/".join(segments) + draw(st.sampled_from(["", "", "/"]))
    count = path.count("{}")
    kinds = [draw(st.sampled_from(list(VARIABLES))) for _ in range(count)]
    return path.format(*(kind.format(f"v{number}") for number, kind in enumerate(kinds)))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments of a rule."""
    rare = st.integers(0, 9).map(lambda number: number == 0)
    rule: dict[str, Any] = {
        "string": draw(paths_of_rules()),
        "endpoint": draw(st.sampled_from(["x", "y", "z"])),
    }
    if draw(st.booleans()):
        rule["methods"] = draw(
            st.lists(st.sampled_from(["GET", "POST", "DELETE", "OPTIONS"]), min_size=1, max_size=2)
        )
    if draw(rare):
        rule["websocket"] = True
        rule["methods"] = draw(st.sampled_from([None, ["GET"]]))
    if draw(st.integers(0, 3)) == 0:
        names = draw(st.lists(st.sampled_from(["v0", "v1"]), min_size=1, max_size=2, unique=True))
        rule["defaults"] = {name: draw(st.sampled_from(["a", "ab", 1, 12])) for name in names}
    for name in ("strict_slashes", "merge_slashes"):
        if draw(st.integers(0, 3)) == 0:
            rule[name] = draw(st.booleans())
    for name in ("build_only", "alias"):
        if draw(rare):
            rule[name] = True
    if draw(rare):
        rule["redirect_to"] = draw(st.sampled_from(["b/c", "/root", "http://other/", "q?x=1"]))
    domain = draw(st.sampled_from([None] * 12 + ["", "a", "<d>", "<any(a, b):d>", "a.<d>"]))
    rule["subdomain"] = domain
    rule["host"] = draw(st.sampled_from([None, "h.test", "<d>.test", "h.test:80"]))
    return rule


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rules and the options of their map."""
    options: dict[str, Any] = {}
    for name in ("strict_slashes", "merge_slashes", "redirect_defaults", "sort_parameters", "host_matching"):
        if draw(st.integers(0, 4)) == 0:
            options[name] = draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        options["default_subdomain"] = "a"
    return draw(st.lists(rules(), min_size=1, max_size=7)), options


def made(routing: ModuleType, given_rules: list[dict[str, Any]], options: dict[str, Any]) -> Any:
    """The map, or the name of what making it raises."""
    try:
        rules = [routing.Rule(**rule) for rule in given_rules]
        return routing.Map(rules, converters=converters(routing), **options)
    except Exception as error:
        return type(error).__name__


def matched(adapter: Any, **request: Any) -> Any:
    """What matching gives, in terms that can be compared."""
    try:
        rule, values = adapter.match(return_rule=True, **request)
    except Exception as error:
        name = type(error).__name__
        if name == "RequestRedirect":
            return name, error.new_url, error.code
        if name == "MethodNotAllowed":
            return name, sorted(error.valid_methods)
        return name
    shown = {name: (type(value).__name__, value) for name, value in values.items()}
    return rule.rule, rule.endpoint, rule.subdomain, repr(rule), shown


def allowed(adapter: Any, path: str) -> Any:
    """The methods that a path takes, or the name of what asking raises."""
    try:
        return sorted(adapter.allowed_methods(path))
    except Exception as error:
        return type(error).__name__


def built(adapter: Any, endpoint: str, values: Any, options: dict[str, Any]) -> Any:
    """The URL, or what building raises. Which of several wrong values is met first is nobody's promise."""
    try:
        return adapter.build(endpoint, values, **options)
    except LookupError as error:
        return type(error).__name__, str(error)
    except (TypeError, ValueError) as error:
        return "TypeError or ValueError" if not isinstance(error, UnicodeError) else type(error).__name__


def methods_sorted(text: Any) -> Any:
    """A rule's repr without the order of its methods, which is that of a set."""
    if not isinstance(text, tuple) or len(text) != 5:
        return text
    shown = text[3]
    if " (" in shown:
        head, _, rest = shown.rpartition(" (")
        inner, _, tail = rest.partition(")")
        shown = f"{head} ({', '.join(sorted(inner.split(', ')))}){tail}"
    return (*text[:3], shown, text[4])


@settings(examples(200), suppress_health_check=list(HealthCheck))
@given(maps(), st.integers(0, 2**32))
def test_maps_agree(given_map: tuple[list[dict[str, Any]], dict[str, Any]], seed: int) -> None:
    given_rules, options = given_map
    theirs, ours = (made(routing, given_rules, options) for routing, _ in SIDES)
    if isinstance(theirs, str) or isinstance(ours, str):
        assert ours == theirs
        return
    pick = random.Random(seed)
    hosts = ["h.test", "x.test", "h.test:80"]
    for _ in range(3):
        bound = {
            "server_name": pick.choice(hosts),
            "script_name": pick.choice(["/", "/app", "/app/", None]),
            "url_scheme": pick.choice(["http", "http", "http", "https", "https", "ws", "wss", ""]),
            "default_method": pick.choice(["GET"] * 4 + METHODS),
            "query_args": pick.choice([None, "q=1", {"q": "é &", "n": None, "l": ["1", "2"]}]),
        }
        if not options.get("host_matching"):
            bound["subdomain"] = pick.choice([None] * 6 + ["", "a", "b", "a.b", "<invalid>"])
        adapters = [side.bind(**bound) for side in (theirs, ours)]
        for _ in range(25):
            request: dict[str, Any] = {"path_info": path_for(pick, given_rules)}
            if pick.random() < 0.3:
                request["method"] = pick.choice(METHODS)
            if pick.random() < 0.1:
                request["websocket"] = pick.choice([True, False])
            expected, got = (methods_sorted(matched(adapter, **request)) for adapter in adapters)
            assert got == expected, (bound, request)
            expected, got = (allowed(adapter, request["path_info"]) for adapter in adapters)
            assert got == expected, (bound, request)
        for _ in range(25):
            endpoint = pick.choice([rule["endpoint"] for rule in given_rules] + ["nowhere"])
            values: Any = {name: pick.choice(VALUES) for name in [*NAMES, "d"] if pick.random() < 0.6}
            if pick.random() < 0.6:
                values |= {f"v{number}": pick.choice(["a", "ab", 1, 12]) for number in range(3)}
            wanted = {
                "method": pick.choice([None, None, "GET", "POST", "BREW"]),
                "force_external": pick.random() < 0.2,
                "append_unknown": pick.random() < 0.9,
                "url_scheme": pick.choice([None, None, "https", "", "ws"]),
            }
            both = [values, values]
            if pick.random() < 0.2:
                both = [multi(list(values.items()) * 2) for _, multi in SIDES]
            expected, got = (
                built(adapter, endpoint, given, wanted) for adapter, given in zip(adapters, both, strict=True)
            )
            assert got == expected, (bound, endpoint, values, wanted)


def path_for(pick: random.Random, given_rules: list[dict[str, Any]]) -> str:
    """A path: of pieces, or like a rule with something for each variable, and sometimes a mishap."""
    if pick.random() < 0.3:
        return "/".join(pick.choice(TEXTS) for _ in range(pick.randint(0, 4)))
    path = ""
    rest = pick.choice(given_rules)["string"]
    while rest:
        head, bracket, tail = rest.partition("<")
        path += head
        if bracket:
            inner, _, tail = tail.partition(">")
            kind = inner.rpartition(":")[0]
            path += pick.choice(
                VARIABLES[f"<{kind}:{{}}>" if kind else "<{}>"] if pick.random() < 0.9 else TEXTS
            )
        rest = tail
    mishap = pick.random()
    if mishap < 0.1:
        path = path.replace("/", "//", 1)
    elif mishap < 0.15:
        path = path.replace("/", "//")
    elif mishap < 0.3:
        path = path.removesuffix("/") if path.endswith("/") else path + "/"
    elif mishap < 0.35:
        path = path.replace("/", "///", 1)
    return path


@pytest.mark.parametrize("rule", ["/<", "/<>", "/<a", "/<1a>", "/<int:>", "/<no:x>", "/<re(a)b):c>"])
def test_malformed_rules_are_refused_alike(rule: str) -> None:
    raised = [made(routing, [{"string": rule, "endpoint": "x"}], {}) for routing, _ in SIDES]
    assert isinstance(raised[0], str)
    assert raised[0] == raised[1]


ARGUMENTS = [
    "",
    "1, 2.5, x, 'a b', \"c,d\"",
    "a=1,b=True , c=None, d=False,e='x'",
    "1,2",
    "12,34",
    "123,,",
    "1.",
    "1_000",
    "nan",
    "u'x'",
    "a b",
    "a,,b",
    "x='",
    " é ",
    "a.b",
    "-1",
    "a=-1",
    "'a\\'b'",
    "1 , 2",
]


@examples(300)
@given(st.one_of(st.sampled_from(ARGUMENTS), st.text("a1.,='\" -_é", max_size=12)))
def test_converter_arguments_are_parsed_alike(text: str) -> None:
    results = []
    for routing, _ in SIDES:
        try:
            results.append(repr(routing.parse_converter_args(text)))
        except Exception as error:
            results.append(f"{type(error).__name__}: {error}")
    assert results[0] == results[1]
