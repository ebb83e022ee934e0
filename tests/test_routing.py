"""Matching paths to rules, and building URLs from endpoints."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import threading
import uuid
import warnings
import weakref
from typing import Any

import pytest

from hipflask.werkzeug import routing
from hipflask.werkzeug.datastructures import MultiDict
from hipflask.werkzeug.exceptions import BadHost, HTTPException, MethodNotAllowed, NotFound
from hipflask.werkzeug.routing import (
    BaseConverter,
    BuildError,
    EndpointPrefix,
    IntegerConverter,
    Map,
    MapAdapter,
    RequestRedirect,
    Rule,
    RuleFactory,
    RuleTemplate,
    Subdomain,
    Submount,
    ValidationError,
    WebsocketMismatch,
)

UUID = "a8098c1a-f86e-11da-bd1a-00112444be1e"


def one(path: str, **options: Any) -> MapAdapter:
    """A map of one rule, bound."""
    return Map([Rule(path, endpoint="it", **options)]).bind("host.test")


def outcome(adapter: MapAdapter, path: str, method: str = "GET") -> Any:
    """What a path leads to: endpoint and values, a URL, allowed methods, or a status."""
    try:
        return adapter.match(path, method)
    except RequestRedirect as redirect:
        return redirect.new_url
    except MethodNotAllowed as error:
        return sorted(error.valid_methods or [])
    except HTTPException as error:
        return error.code


CONVERTED = [
    ("/<x>", "/é", "é"),
    ("/<x>", "/a/b", 404),
    ("/<x>", "/a\nb", "a\nb"),
    ("/<string(length=2):x>", "/ab", "ab"),
    ("/<string(length=2):x>", "/abc", 404),
    ("/<string(minlength=2):x>", "/a", 404),
    ("/<string(maxlength=2):x>", "/abc", 404),
    ("/<int:x>", "/007", 7),
    ("/<int:x>", "/-5", 404),
    ("/<int:x>", "/٣", 3),
    ("/<int:x>", "/9223372036854775808", 2**63),
    ("/<int:x>", "/" + "9" * 60, int("9" * 60)),
    ("/<int:x>", "/" + "9" * 5000, 404),
    ("/<int(signed=True):x>", "/-5", -5),
    ("/<int(fixed_digits=3):x>", "/005", 5),
    ("/<int(fixed_digits=3):x>", "/5", 404),
    ("/<int(min=2, max=4):x>", "/1", 404),
    ("/<int(min=2, max=4):x>", "/4", 4),
    ("/<int(min=2, max=4):x>", "/99999999999999999999", 404),
    ("/<int(max=99999999999999999999):x>", "/99999999999999999999", 99999999999999999999),
    ("/<float:x>", "/1.50", 1.5),
    ("/<float:x>", "/1", 404),
    ("/<float(signed=True, max=2.5):x>", "/-2.5", -2.5),
    ("/<float(max=2.5):x>", "/2.6", 404),
    ('/<any(a, "b c", d.e):x>', "/b c", "b c"),
    ("/<any(a, b):x>", "/c", 404),
    ("/<path:x>", "/a/b/c", "a/b/c"),
    ("/<path:x>", "/a\nb", 404),
    ("/<uuid:x>", f"/{UUID}", uuid.UUID(UUID)),
    ("/<uuid:x>", f"/{UUID[:-1]}", 404),
]


@pytest.mark.parametrize(("rule", "path", "value"), CONVERTED)
def test_converters_accept_and_convert(rule: str, path: str, value: Any) -> None:
    found = outcome(one(rule), path)
    assert found == (value if value == 404 else ("it", {"x": value}))
    if value != 404:
        assert type(found[1]["x"]) is type(value)


SEGMENTS = [
    ("/<a>-<b>.<c>", "/x-y-z.tar.gz", {"a": "x-y", "b": "z.tar", "c": "gz"}),
    ("/<a>-<int:b>", "/x-1-2", {"a": "x-1", "b": 2}),
    ("/v<int:a>.<int:b>", "/v1.20", {"a": 1, "b": 20}),
    ("/<path:a>/x/<path:b>", "/1/x/2/x/3", {"a": "1", "b": "2/x/3"}),
    ("/<path:a>.<b>", "/dir/file.tar.gz", {"a": "dir/file", "b": "tar.gz"}),
    ("/<int:a><b>", "/12x", {"a": 12, "b": "x"}),
    ("/(<a>)[<b>]", "/(1)[2]", {"a": "1", "b": "2"}),
]


@pytest.mark.parametrize(("rule", "path", "values"), SEGMENTS)
def test_several_variables_share_a_segment(rule: str, path: str, values: dict[str, Any]) -> None:
    assert outcome(one(rule), path) == ("it", values)


def test_the_most_specific_rule_wins_whatever_the_order() -> None:
    asked = {
        "/page": "/page",
        "/p2": "/p<x>",
        "/2": "/<int:x>",
        "/x": "/<x>",
        "/x/y": "/<path:x>",
        "/x/y/edit": "/<path:x>/edit",
        "/page/edit": "/page/<x>",
        # The literal in the part of the path's variable weighs more than a variable without one.
        "/x/edit": "/<path:x>/edit",
    }
    rules = ["/<x>/edit", "/<path:x>", "/<x>", "/<int:x>", "/p<x>", "/page", "/<path:x>/edit", "/page/<x>"]
    adapter = Map([Rule(rule, endpoint=rule) for rule in rules]).bind("host.test")
    assert {path: adapter.match(path)[0] for path in asked} == asked


SLASHES = [
    ({}, "/a/", "/a", "http://host.test/a/"),
    ({}, "/a/", "/a/", ("it", {})),
    ({}, "/a", "/a/", 404),
    ({"strict_slashes": False}, "/a", "/a/", ("it", {})),
    ({"strict_slashes": False}, "/a/", "/a", ("it", {})),
    ({}, "/<path:x>/", "/a/b", "http://host.test/a/b/"),
    ({}, "/a/b", "//a/b", ("it", {})),
    ({}, "/a/b", "/a//b", "http://host.test/a/b"),
    ({}, "/a/b/", "/a//b", "http://host.test/a/b/"),
    ({"merge_slashes": False}, "/a/b", "/a//b", 404),
    ({"merge_slashes": False}, "/a//b", "/a//b", ("it", {})),
    ({}, "/a//b", "/a/b", ("it", {})),
    ({}, "/<path:x>", "/a//b", ("it", {"x": "a//b"})),
    ({}, "/é ?/", "/é ?", "http://host.test/%C3%A9%20%3F/"),
]


@pytest.mark.parametrize(("options", "rule", "path", "expected"), SLASHES)
def test_slashes(options: dict[str, Any], rule: str, path: str, expected: Any) -> None:
    assert outcome(one(rule, **options), path) == expected


def test_redirects_keep_script_scheme_subdomain_and_query() -> None:
    urls = Map([Rule("/a/", endpoint="a", subdomain="api")])
    adapter = urls.bind("host.test:8080", "/app", "api", "https", query_args={"q": "é &", "n": None})
    with pytest.raises(RequestRedirect) as caught:
        adapter.match("/a")
    assert caught.value.new_url == "https://api.host.test:8080/app/a/?q=%C3%A9+%26"
    assert caught.value.code == 308
    assert caught.value.get_response({}).headers["Location"] == caught.value.new_url
    with pytest.raises(RequestRedirect) as caught:
        adapter.match("/a", query_args="raw=1")
    assert caught.value.new_url.endswith("/a/?raw=1")


def test_methods_are_told_apart_and_named() -> None:
    adapter = Map(
        [
            Rule("/x", endpoint="read", methods=["get"]),
            Rule("/x", endpoint="write", methods=["POST"]),
            Rule("/<y>", endpoint="any", methods=["PUT"]),
            Rule("/free", endpoint="free"),
        ]
    ).bind("host.test")
    assert outcome(adapter, "/x", "HEAD") == ("read", {})
    assert outcome(adapter, "/x", "post") == ("write", {})
    assert outcome(adapter, "/x", "PUT") == ("any", {"y": "x"})
    assert outcome(adapter, "/x", "DELETE") == ["GET", "HEAD", "POST", "PUT"]
    assert sorted(adapter.allowed_methods("/x")) == ["GET", "HEAD", "POST", "PUT"]
    assert list(adapter.allowed_methods("/free")) == []
    assert list(adapter.allowed_methods("/no/where")) == []
    assert adapter.test("/x")
    assert not adapter.test("/x", "DELETE")


def test_defaults_redirect_to_the_preferred_rule() -> None:
    adapter = Map(
        [
            Rule("/all/", endpoint="all", defaults={"page": 1}),
            Rule("/all/<int:page>", endpoint="all"),
        ]
    ).bind("host.test")
    assert outcome(adapter, "/all/") == ("all", {"page": 1})
    assert outcome(adapter, "/all/2") == ("all", {"page": 2})
    assert outcome(adapter, "/all/1") == "http://host.test/all/"
    assert adapter.build("all", {"page": 1}) == "/all/"
    assert adapter.build("all", {"page": 2}) == "/all/2"
    adapter.map.redirect_defaults = False
    assert outcome(adapter, "/all/1") == ("all", {"page": 1})


def test_aliases_and_redirect_to() -> None:
    def target(adapter: MapAdapter, id: int) -> str:
        return f"foo/{id * 2}"

    adapter = Map(
        [
            Rule("/foo/<int:id>", endpoint="foo"),
            Rule("/old/<int:id>", endpoint="foo", alias=True),
            Rule("/text/<int:id>", redirect_to="foo/<id>?a<b"),
            Rule("/call/<int:id>", redirect_to=target),
        ]
    ).bind("host.test", "/app/")
    assert outcome(adapter, "/old/7") == "http://host.test/app/foo/7"
    assert outcome(adapter, "/text/7") == "http://host.test/app/foo/7?a<b"
    assert outcome(adapter, "/call/7") == "http://host.test/app/foo/14"
    assert adapter.build("foo", {"id": 1}) == "/app/foo/1"


def test_websocket_rules_match_handshakes_only() -> None:
    urls = Map([Rule("/ws", endpoint="ws", websocket=True), Rule("/both", endpoint="page")])
    page, socket = urls.bind("host.test"), urls.bind("host.test", url_scheme="wss")
    assert socket.match("/ws") == ("ws", {})
    with pytest.raises(WebsocketMismatch):
        page.match("/ws")
    with pytest.raises(WebsocketMismatch):
        socket.match("/both")
    assert page.match("/ws", websocket=True) == ("ws", {})
    assert page.build("ws") == "ws://host.test/ws"
    assert socket.build("page", force_external=True) == "https://host.test/both"
    with pytest.raises(ValueError, match="WebSocket rules"):
        Rule("/", websocket=True, methods=["POST"])


def test_subdomains_and_hosts() -> None:
    urls = Map([Rule("/", endpoint="user", subdomain="<user>"), Rule("/", endpoint="root")])
    assert urls.bind("host.test", subdomain="joe").match("/") == ("user", {"user": "joe"})
    bare = urls.bind("host.test")
    assert bare.match("/") == ("root", {})
    assert bare.build("user", {"user": "joe"}) == "http://joe.host.test/"
    urls = Map(
        [Rule("/", host="<x>.one", endpoint="one"), Rule("/", host="two", endpoint="two")], host_matching=True
    )
    assert urls.bind("a.one").match("/") == ("one", {"x": "a"})
    assert urls.bind("two").match("/") == ("two", {})
    assert urls.bind("two").build("two") == "/"
    assert urls.bind("two").build("one", {"x": "b"}) == "http://b.one/"
    with pytest.raises(RuntimeError, match="subdomain"):
        urls.bind("two", subdomain="x")


def environ(**fields: str) -> dict[str, Any]:
    base = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_PORT": "80",
    }
    return {**base, "SERVER_NAME": "host.test", "wsgi.url_scheme": "http", **fields}


def test_binding_to_an_environ() -> None:
    urls = Map([Rule("/é", endpoint="x"), Rule("/é", endpoint="sub", subdomain="a.b")])
    path = "/é".encode().decode("latin1")
    adapter = urls.bind_to_environ(environ(PATH_INFO=path, QUERY_STRING="q=1", HTTP_HOST="host.test:80"))
    assert (adapter.server_name, adapter.path_info, adapter.query_args) == ("host.test", "/é", "q=1")
    assert adapter.match() == ("x", {})
    adapter = urls.bind_to_environ(environ(PATH_INFO=path, HTTP_HOST="A.b.Host.test"), "Host.test:80")
    assert adapter.match() == ("sub", {})
    upgrade = environ(HTTP_CONNECTION="keep-alive, Upgrade", HTTP_UPGRADE="WebSocket")
    assert urls.bind_to_environ(upgrade).url_scheme == "ws"


def test_another_server_name_warns_and_matches_nothing() -> None:
    urls = Map([Rule("/", endpoint="x")])
    with pytest.warns(UserWarning, match="'other.test' doesn't match configured server name 'host.test'"):
        adapter = urls.bind_to_environ(environ(HTTP_HOST="other.test"), "host.test")
    assert outcome(adapter, "/") == 404


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("ExAmple", "example"),
        ("☃.net:80", "xn--n3h.net:80"),
        ("[::1]:5000", "[::1]:5000"),
        ("a." * 40, "a." * 40),
    ],
)
def test_hosts_become_ascii(host: str, name: str) -> None:
    assert Map().bind(host).server_name == name


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "é" * 64])
def test_impossible_hosts_are_refused(host: str) -> None:
    with pytest.raises(BadHost):
        Map().bind(host)


BUILT = [
    ("/<x>", {"x": "a b/é?"}, "/a%20b/%C3%A9%3F"),
    ("/<path:x>", {"x": "a/b&c"}, "/a/b&c"),
    ("/<x>", {"x": 5}, "/5"),
    ("/<int:x>", {"x": "5"}, "/5"),
    ("/<int(fixed_digits=4):x>", {"x": -5}, "/-005"),
    ("/<int:x>", {"x": 10**30}, "/1" + "0" * 30),
    ("/<float:x>", {"x": 1}, "/1.0"),
    ("/<uuid:x>", {"x": uuid.UUID(UUID)}, f"/{UUID}"),
    ("/<any(a, é):x>", {"x": "é"}, "/é"),
    ("/a b/<x>é", {"x": "1"}, "/a%20b/1%C3%A9"),
    ("/", {"q": "a b&c", "n": None}, "/?q=a+b%26c"),
    ("/", {"q": [1, None, "x"], "t": ("y",)}, "/?q=1&q=x&t=y"),
    ("/", {"q": []}, "/"),
    ("/", {"q": b"\xff"}, "/?q=%FF"),
    ("/", {"b": True, "f": 1.5}, "/?b=True&f=1.5"),
    ("/<x>", MultiDict([("x", "1"), ("q", "a"), ("q", "b")]), "/1?q=a&q=b"),
]


@pytest.mark.parametrize(("rule", "values", "url"), BUILT)
def test_building(rule: str, values: Any, url: str) -> None:
    assert one(rule).build("it", values) == url


def test_building_absolute_urls() -> None:
    adapter = Map([Rule("/x", endpoint="x"), Rule("/s", endpoint="s", subdomain="sub")]).bind(
        "host.test", "/app"
    )
    assert adapter.build("x") == "/app/x"
    assert adapter.build("x", force_external=True) == "http://host.test/app/x"
    assert adapter.build("x", force_external=True, url_scheme="https") == "https://host.test/app/x"
    assert adapter.build("x", force_external=True, url_scheme="") == "//host.test/app/x"
    assert adapter.build("s") == "http://sub.host.test/app/s"
    assert adapter.build("x", {"q": 1}, append_unknown=False) == "/app/x"


def test_the_parameters_of_a_query_are_sorted_if_the_map_says_so() -> None:
    rule = [Rule("/", endpoint="x")]
    values = {"b": "2", "a": "3", "c": "1"}
    assert Map(rule, sort_parameters=True).bind("h").build("x", values) == "/?a=3&b=2&c=1"
    rule = [rule[0].empty()]
    by_value = Map(rule, sort_parameters=True, sort_key=lambda pair: pair[1])
    assert by_value.bind("h").build("x", values) == "/?c=1&b=2&a=3"


def test_the_first_suitable_rule_is_built() -> None:
    adapter = Map(
        [
            Rule("/", endpoint="x"),
            Rule("/<a>", endpoint="x"),
            Rule("/<a>/<b>", endpoint="x", methods=["GET"]),
            Rule("/post/<a>/<b>", endpoint="x", methods=["POST"]),
        ]
    ).bind("host.test")
    assert adapter.build("x") == "/"
    assert adapter.build("x", {"a": 1, "c": 2}) == "/1?c=2"
    assert adapter.build("x", {"a": 1, "b": 2}) == "/1/2"
    assert adapter.build("x", {"a": 1, "b": 2}, method="POST") == "/post/1/2"
    assert adapter.build("x", {"a": 1, "b": 2}, method="BREW") == "/1?b=2"


def test_what_cannot_be_built_is_explained() -> None:
    adapter = Map([Rule("/<a>", endpoint="user.show", methods=["GET"])]).bind("host.test")
    for endpoint, values, method, advice in [
        ("user.shwo", {"a": 1}, None, "Did you mean 'user.show' instead?"),
        ("user.show", {"b": 1}, None, r"with values \['b'\]\. Did you forget to specify values \['a'\]\?"),
        ("user.show", {"a": 1}, "POST", r"Did you mean to use methods \['GET', 'HEAD'\]\?"),
    ]:
        with pytest.raises(BuildError, match=advice) as caught:
            adapter.build(endpoint, values, method)
        error = caught.value
        assert isinstance(error, LookupError)
        assert (error.endpoint, error.values, error.method, error.adapter) == (
            endpoint,
            values,
            method,
            adapter,
        )
        assert error.suggested is next(adapter.map.iter_rules())
    with pytest.raises(BuildError, match="Could not build url for endpoint 'x'.$"):
        Map().bind("h").build("x")
    with pytest.raises(ValueError, match="'z' is not one of 'a', 'b'"):
        one("/<any(b, a):x>").build("it", {"x": "z"})


class Listed(BaseConverter):
    """Words joined by plus signs; the word `no` is none."""

    regex = r"\w+(?:\+\w+)*"

    def to_python(self, value: str) -> list[str]:
        if value == "no":
            raise ValidationError
        return value.split("+")

    def to_url(self, value: Any) -> str:
        if not value:
            raise ValidationError
        return "+".join(BaseConverter.to_url(self, word) for word in value)


def test_converters_of_users_are_called() -> None:
    urls = Map(
        [Rule("/<list:x>-<int:y>", endpoint="list"), Rule("/<list:x>", endpoint="list", methods=["POST"])],
        converters={"list": Listed},
    )
    adapter = urls.bind("host.test")
    assert adapter.match("/a+é-5") == ("list", {"x": ["a", "é"], "y": 5})
    assert outcome(adapter, "/no-5") == 404
    assert outcome(adapter, "/no") == ["POST"]
    assert adapter.build("list", {"x": ["a b", "é"], "y": 1}) == "/a%20b+%C3%A9-1"
    assert adapter.build("list", {"x": "q"}, method="POST") == "/q"
    with pytest.raises(BuildError):
        adapter.build("list", {"x": [], "y": 1})


def test_what_a_converter_raises_is_not_hidden() -> None:
    class Broken(BaseConverter):
        def to_python(self, value: str) -> str:
            raise ZeroDivisionError

        def to_url(self, value: Any) -> str:
            raise ZeroDivisionError

    adapter = Map([Rule("/<broken:x>", endpoint="x")], converters={"broken": Broken}).bind("h")
    with pytest.raises(ZeroDivisionError):
        adapter.match("/a")
    with pytest.raises(ZeroDivisionError):
        adapter.build("x", {"x": 1})


def test_a_converter_for_several_segments_is_known_by_its_expression() -> None:
    class Deep(BaseConverter):
        regex = "[a-z]+/[a-z]+"

    class Deeper(Deep):
        pass

    class Whole(BaseConverter):
        regex = ".*?"
        part_isolating = False

    assert not Deep.part_isolating
    assert not Deeper.part_isolating
    urls = Map(
        [Rule("/<deep:x>/end", endpoint="x"), Rule("/w/<whole:x>", endpoint="w")],
        converters={"deep": Deep, "whole": Whole},
    )
    assert urls.bind("h").match("/a/b/end") == ("x", {"x": "a/b"})
    assert urls.bind("h").match("/w/") == ("w", {"x": ""})


def test_a_subclass_of_a_number_converter_keeps_its_limits() -> None:
    class Hexadecimal(IntegerConverter):
        regex = "[0-9a-f]+"
        num_convert = staticmethod(lambda text: int(str(text), 16))  # type: ignore[assignment]

    adapter = Map([Rule("/<hex(max=255):x>", endpoint="x")], converters={"hex": Hexadecimal}).bind("h")
    assert outcome(adapter, "/ff") == ("x", {"x": 255})
    assert outcome(adapter, "/100") == 404


def test_factories_make_rules() -> None:
    resource = RuleTemplate(
        [Rule("/$name/", endpoint="$name.list"), Rule("/$name/<int:id>", endpoint="$name.show")]
    )
    urls = Map(
        [
            Submount("/api/", [Subdomain("v2", [EndpointPrefix("p.", [Rule("/x", endpoint="x")])])]),
            resource(name="user"),
        ]
    )
    assert urls.bind("h", subdomain="v2").match("/api/x") == ("p.x", {})
    assert urls.bind("h").match("/user/5") == ("user.show", {"id": 5})
    with pytest.raises(NotImplementedError):
        RuleFactory().get_rules(urls)


def test_a_map_tells_of_its_rules() -> None:
    urls = Map(
        [Rule("/a/<x>", endpoint="a"), Rule("/a", endpoint="a"), Rule("/b", endpoint="b", build_only=True)]
    )
    assert [rule.rule for rule in urls.iter_rules()] == ["/a/<x>", "/a", "/b"]
    assert [rule.rule for rule in urls.iter_rules("b")] == ["/b"]
    assert urls.is_endpoint_expecting("a", "x")
    assert not urls.is_endpoint_expecting("a", "x", "y")
    assert outcome(urls.bind("h"), "/b") == 404
    assert repr(urls).startswith("Map([<Rule '/a/<x>' -> a>,")
    with pytest.raises(KeyError):
        urls.iter_rules("nowhere")


def test_rules_show_compare_and_copy_themselves() -> None:
    rule = Rule("/a/<int:x>", endpoint="x", methods=["POST"], defaults={"y": 1})
    assert repr(rule) == "<Rule (unbound)>"
    urls = Map([rule])
    assert repr(rule) == "<Rule '/a/<x>' (POST) -> x>"
    assert str(rule) == "/a/<int:x>"
    assert rule.arguments == {"x", "y"}
    assert rule.build({"x": 1, "q": 2}) == ("", "/a/1?q=2")
    assert rule.suitable_for({"x": 1}, "POST")
    assert not rule.suitable_for({"x": 1, "y": 2})
    fresh = rule.empty()
    assert fresh.map is None
    assert fresh.methods == {"POST"}
    with pytest.raises(RuntimeError, match="already bound"):
        Map([rule])
    Map([fresh])
    assert fresh == rule
    with pytest.raises(TypeError):
        hash(rule)
    assert isinstance(rule.get_converter("x", "int", (), {}), IntegerConverter)
    assert urls.converters["int"] is IntegerConverter


def test_a_rule_with_its_own_build_is_asked() -> None:
    class Odd(Rule):
        def suitable_for(self, values: Any, method: str | None = None) -> bool:
            return "odd" in values

        def build(self, values: Any, append_unknown: bool = True) -> tuple[str, str]:
            return "", "/odd!"

    adapter = Map([Odd("/odd", endpoint="x"), Rule("/even", endpoint="x")]).bind("h")
    assert adapter.build("x", {"odd": 1}) == "/odd!"
    assert adapter.build("x") == "/even"


BAD = [
    ("no slash", ValueError, "must start with a slash"),
    ("/<a", ValueError, "malformed url rule: '/<a'"),
    ("/<a>/<a>", ValueError, "variable name 'a' used twice"),
    ("/<nothing:a>", LookupError, "the converter 'nothing' does not exist"),
    ("/<string(a b):x>", ValueError, "Cannot parse converter argument"),
]


@pytest.mark.parametrize(("rule", "error", "text"), BAD)
def test_bad_rules_are_explained(rule: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Map([Rule(rule, endpoint="x")])
    with pytest.raises(TypeError, match="list of strings"):
        Rule("/", methods="GET")


def test_rules_may_be_added_and_taken_away_after_matching() -> None:
    urls = Map([Rule("/a", endpoint="a")])
    adapter = urls.bind("h")
    assert outcome(adapter, "/b") == 404
    urls.add(Rule("/b", endpoint="b"))
    assert outcome(adapter, "/b") == ("b", {})
    del urls._rules_by_endpoint["b"]
    urls._remap = True
    assert outcome(adapter, "/b") == 404
    urls.merge_slashes = False
    assert outcome(adapter, "/a//") == 404


def test_a_rule_may_be_changed_after_matching() -> None:
    rule = Rule("/a/", endpoint="a", methods=["GET"])
    adapter = Map([rule]).bind("h")
    assert outcome(adapter, "/a") == "http://h/a/"
    rule.strict_slashes = False
    rule.endpoint = "b"
    rule.methods = {"POST"}
    assert outcome(adapter, "/a", "POST") == ("b", {})
    rule.methods.add("PUT")
    rule.rule = "/c"
    rule.refresh()
    assert outcome(adapter, "/c", "PUT") == ("b", {})
    assert outcome(adapter, "/a", "PUT") == 404


def test_rules_may_be_added_while_others_match() -> None:
    urls = Map([Rule("/0", endpoint=0)])
    failures: list[BaseException] = []
    done = threading.Event()

    def match() -> None:
        adapter = urls.bind("h")
        try:
            while not done.is_set():
                assert adapter.match("/0") == (0, {})
                assert adapter.build(0) == "/0"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=match) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 200):
        urls.add(Rule(f"/{number}", endpoint=number))
        assert urls.bind("h").match(f"/{number}") == (number, {})
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_map_is_collected_with_its_rules() -> None:
    urls = Map([Rule("/<x>", endpoint="x")])
    assert urls.bind("h").match("/a") == ("x", {"x": "a"})
    gone = weakref.ref(urls)
    del urls
    gc.collect()
    assert gone() is None


def test_dispatch_calls_the_view_and_returns_redirects() -> None:
    adapter = Map([Rule("/a/<int:x>/", endpoint="x")]).bind("h")
    assert adapter.dispatch(lambda endpoint, values: (endpoint, values), "/a/1/") == ("x", {"x": 1})  # type: ignore
    assert isinstance(adapter.dispatch(lambda *_: None, "/a/1"), RequestRedirect)  # type: ignore
    with pytest.raises(NotFound):
        adapter.dispatch(lambda *_: None, "/b")  # type: ignore
    assert isinstance(adapter.dispatch(lambda *_: None, "/b", catch_http_exceptions=True), NotFound)  # type: ignore


def test_an_adapter_shows_and_takes_its_attributes() -> None:
    adapter = Map([Rule("/a", endpoint="a")]).bind("h", "/s", default_method="POST", path_info="/a")
    assert adapter.match() == ("a", {})
    names = (
        "server_name",
        "script_name",
        "subdomain",
        "url_scheme",
        "path_info",
        "default_method",
        "query_args",
    )
    assert [getattr(adapter, name) for name in names] == ["h", "/s/", "", "http", "/a", "POST", None]
    adapter.server_name = "other"
    adapter.extra = 1  # type: ignore[attr-defined]
    assert adapter.build("a", force_external=True) == "http://other/s/a"
    assert [*inspect.signature(MapAdapter).parameters][:3] == ["map", "server_name", "script_name"]
    assert [*inspect.signature(MapAdapter.build).parameters][1:3] == ["endpoint", "values"]


def test_hostile_paths_take_bounded_time() -> None:
    adapter = one("/" + "x".join(f"<path:v{number}>" for number in range(12)))
    with warnings.catch_warnings():
        assert outcome(adapter, "/" + "x" * 11 + "/" * 1500) == 404


def test_lone_surrogates_match_nothing() -> None:
    assert outcome(one("/<x>"), "/\udcff") == 404


def test_every_name_is_here() -> None:
    names = (
        "AnyConverter BaseConverter BuildError EndpointPrefix FloatConverter IntegerConverter Map MapAdapter "
    )
    names += "NoMatch PathConverter RequestAliasRedirect RequestPath RequestRedirect RoutingException Rule "
    names += (
        "RuleFactory RuleTemplate RuleTemplateFactory StateMachineMatcher Subdomain Submount UUIDConverter "
    )
    names += "UnicodeConverter ValidationError WebsocketMismatch parse_converter_args"
    assert all(hasattr(routing, name) for name in names.split())


def test_exceptions_can_be_copied_and_pickled() -> None:
    error = BuildError("x", {"a": 1}, "GET")
    assert copy.copy(error).endpoint == "x"
    assert pickle.loads(pickle.dumps(error)).values == {"a": 1}
    assert issubclass(ValidationError, ValueError)


def test_the_matcher_works_without_a_map() -> None:
    urls = Map([Rule("/<int:x>/", endpoint="x", methods=["GET"])])
    matcher = routing.StateMachineMatcher(merge_slashes=True)
    rule = next(urls.iter_rules())
    matcher.add(rule)
    assert matcher.match("", "/5/", "GET", False) == (rule, {"x": 5})
    with pytest.raises(routing.RequestPath) as path:
        matcher.match("", "/5", "GET", False)
    assert path.value.path_info == "/5/"
    with pytest.raises(routing.NoMatch) as none:
        matcher.match("", "/5/", "POST", False)
    assert none.value.have_match_for == {"GET", "HEAD"}
