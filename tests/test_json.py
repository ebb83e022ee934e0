"""JSON: the native writer and reader against `json`, and the provider's rules."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import io
import json
import math
import sys
import uuid

import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st

from hipflask import Flask, request
from hipflask import json as hip_json
from hipflask._core import json_dumps, json_loads
from hipflask.json.provider import DefaultJSONProvider, _default

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.dates()
    | st.decimals()
    | st.uuids()
)
keys = st.text() | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())), inner)
        | st.dictionaries(st.integers(), inner)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(st.text(), inner).map(collections.OrderedDict)
    ),
    max_leaves=20,
)
layouts = st.sampled_from(
    [
        {},
        {"separators": (",", ":")},
        {"indent": 2},
        {"indent": 0},
        {"indent": "\t", "separators": (", ", " = ")},
        {"separators": ("", "")},
    ]
)


def outcome(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


def dumps(obj, **kwargs):
    """What the provider does: natively if possible, else in Python."""
    text = json_dumps(obj, **kwargs)
    return json.dumps(obj, **kwargs) if text is None else text


@examples(500)
@given(values, layouts, st.booleans(), st.booleans())
def test_the_writer_gives_the_bytes_of_the_standard_library(obj, layout, sort_keys, ensure_ascii):
    kwargs = {"default": _default, "sort_keys": sort_keys, "ensure_ascii": ensure_ascii, **layout}
    assert outcome(dumps, obj, **kwargs) == outcome(json.dumps, obj, **kwargs)


@examples(1000)
@given(st.floats())
@example(5e-324)
@example(1e16)
@example(9999999999999998.0)
@example(0.0001)
@example(0.00001)
@example(-0.0)
@example(1.7976931348623157e308)
@example(123456789012345680.0)
@example(70368744177664.625)
@example(-2092116248923723.25)
def test_a_float_is_written_as_its_repr(number):
    assert json_dumps(number) == json.dumps(number)


@examples(500)
@given(values.map(lambda value: json.dumps(value, default=str, skipkeys=True)) | st.text())
@example("[1e999]")
@example('{"a":1,"a":2}')
@example("[NaN, Infinity, -Infinity]")
@example('"\\ud83d\\ude00"')
@example('"\\ud83d"')
@example('"\\ud83d\\u0041"')
@example("01")
@example("-")
@example("1.")
@example(" [1 , 2 ] ")
@example("[1,]")
@example('{"a":1,}')
@example('"\t"')
@example("\ufeff1")
@example("123456789012345678901234567890")
@example("-9223372036854775808")
def test_the_reader_gives_the_values_of_the_standard_library(text):
    for source in (text, text.encode("utf-8", "surrogatepass")):
        value = json_loads(source)
        if value is not NotImplemented:
            assert repr(value) == repr(json.loads(source))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "0",
        "-0",
        '""',
        "true",
        "false",
        "null",
        '{"a":[1,2.5,"x",null,{"b":false}]}',
        '"\\u00e9\\n"',
        '"é"',
    ],
)
def test_plain_texts_are_read_natively(text):
    value = json_loads(text)
    assert value is not NotImplemented
    assert value == json.loads(text)


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


class Html:
    def __html__(self):
        return "<b>hi</b>"


class Text(str):
    __slots__ = ()


class OddItems(dict):
    def items(self):
        return [("z", 1), ("a", 2)]


Pair = collections.namedtuple("Pair", "a b")
NAIVE = datetime.datetime(2024, 2, 29, 23, 59, 58, 999)

ROWS = {
    "escapes": '"\\\b\f\n\r\t\0\x1f\x7f/é\u2028😀',
    "surrogate": "\ud800x",
    "str enum": Colour.RED,
    "int enum": Size.BIG,
    "str subclass": Text("é"),
    "big int": 2**70,
    "small int": -(2**63),
    "too many digits": 10**5000,
    "nan": [math.nan, math.inf, -math.inf],
    "namedtuple": Pair(1, 2),
    "int keys": {10: 1, 9: 2, -1: 3},
    "bool keys": {True: 1},
    "none key": {None: 1},
    "float key": {1.5: 1},
    "enum keys": {Size.BIG: 1},
    "mixed keys": {1: 1, "a": 2},
    "tuple key": {(1, 2): 3},
    "ordered": collections.OrderedDict(b=1, a=2),
    "default dict": collections.defaultdict(list, {"x": [1]}),
    "items of its own": OddItems(x=1),
    "empty": [{}, [], (), OddItems()],
    "date": datetime.date(2024, 1, 1),
    "naive": NAIVE,
    "utc": NAIVE.replace(tzinfo=datetime.timezone.utc),
    "zone": NAIVE.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    "year 1": datetime.datetime.min,
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID(int=5),
    "dataclass": Point(1, datetime.date(2024, 1, 1)),
    "dataclass itself": Point,
    "html": Html(),
    "set": {1},
    "bytes": b"x",
    "object": object,
    "deep": eval("[" * 90 + "]" * 90),
}


@pytest.mark.parametrize("sort_keys", [True, False])
@pytest.mark.parametrize(
    "layout", [{}, {"indent": 2}, {"separators": (",", ":")}], ids=["plain", "indent", "compact"]
)
@pytest.mark.parametrize("obj", ROWS.values(), ids=ROWS.keys())
def test_odd_values(obj, layout, sort_keys):
    for ensure_ascii in (True, False):
        kwargs = {"default": _default, "sort_keys": sort_keys, "ensure_ascii": ensure_ascii, **layout}
        assert outcome(dumps, obj, **kwargs) == outcome(json.dumps, obj, **kwargs)


def test_a_cycle_is_an_error():
    around: list = [1]
    around.append({"x": around})
    with pytest.raises(ValueError, match="Circular reference"):
        dumps(around)
    with pytest.raises(ValueError, match="Circular reference"):
        dumps(object(), default=lambda value: value)


def test_deep_nesting_is_an_error_not_a_crash():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        dumps(deep)
    assert json_loads("[" * 100_000) is NotImplemented
    while deep:  # Freed step by step.
        deep = deep[0]


def test_the_same_value_twice_is_no_cycle():
    shared = {"a": [1]}
    assert dumps([shared, shared]) == json.dumps([shared, shared])


def test_what_default_raises_is_raised():
    def default(value):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        dumps([object()], default=default)


def test_a_mutation_while_writing_is_harmless():
    data: dict = {}

    def default(value):
        data.clear()
        return "x"

    data.update({"a": object(), "b": [1], "c": {"d": 1}})
    assert json_dumps(data, default=default, sort_keys=True) == '{"a": "x", "b": [1], "c": {"d": 1}}'


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 500_000, "[" * 100_000 + "]" * 100_000], ids=len)
def test_deep_nesting_in_a_request_is_the_clients_mistake(app, text):
    app.add_url_rule("/", view_func=lambda: request.get_json(), methods=["POST"])
    response = app.test_client().post("/", data=text, content_type="application/json")
    assert response.status_code == 400


@pytest.fixture
def app():
    return Flask(__name__)


def test_functions_follow_the_provider(app):
    assert hip_json.dumps({"b": 1, "a": NAIVE}) == '{"b": 1, "a": "Thu, 29 Feb 2024 23:59:58 GMT"}'
    with app.app_context():
        assert hip_json.dumps({"b": "é", "a": 1}) == '{"a": 1, "b": "\\u00e9"}'
        app.json.sort_keys = False
        app.json.ensure_ascii = False
        assert hip_json.dumps({"b": "é", "a": 1}) == '{"b": "é", "a": 1}'
        out = io.StringIO()
        hip_json.dump([1], out)
        assert out.getvalue() == "[1]"
        assert hip_json.load(io.BytesIO(b"[1]")) == [1]
        assert hip_json.loads("[1.5]", parse_float=decimal.Decimal) == [decimal.Decimal("1.5")]


@pytest.mark.parametrize(
    ("args", "kwargs", "body"),
    [
        ((), {}, b"null\n"),
        ((1,), {}, b"1\n"),
        ((1, 2), {}, b"[1,2]\n"),
        ((), {"b": 1, "a": [True]}, b'{"a":[true],"b":1}\n'),
        (({"x": "é"},), {}, b'{"x":"\\u00e9"}\n'),
    ],
)
def test_jsonify(app, args, kwargs, body):
    with app.app_context():
        response = hip_json.jsonify(*args, **kwargs)
    assert response.get_data() == body
    assert response.mimetype == "application/json"


def test_jsonify_takes_positional_or_keyword_arguments(app):
    with app.app_context(), pytest.raises(TypeError, match="either args or kwargs"):
        hip_json.jsonify(1, a=2)


def test_responses_are_indented_in_debug_mode(app):
    app.debug = True
    with app.app_context():
        assert hip_json.jsonify(a=[1]).get_data() == b'{\n  "a": [\n    1\n  ]\n}\n'
        app.json.compact = True
        assert hip_json.jsonify(a=[1]).get_data() == b'{"a":[1]}\n'
    app.debug = False
    with app.app_context():
        app.json.compact = False
        assert hip_json.jsonify(a=[1]).get_data() == b'{\n  "a": [\n    1\n  ]\n}\n'


def test_a_provider_may_have_its_own_default(app):
    class Provider(DefaultJSONProvider):
        mimetype = "application/vnd.test"

        @staticmethod
        def default(o):
            return "mine" if isinstance(o, complex) else DefaultJSONProvider.default(o)

    app.json = Provider(app)
    with app.app_context():
        response = hip_json.jsonify([1j, decimal.Decimal(1)])
    assert response.get_data() == b'["mine","1"]\n'
    assert response.mimetype == "application/vnd.test"


@pytest.mark.skipif(
    not hasattr(sys, "set_int_max_str_digits"), reason="this Python writes integers of any length"
)
def test_too_long_an_integer_is_pythons_error():
    with pytest.raises(ValueError, match="limit"):
        dumps(10**5000)
