"""Headers and dicts with several values for a key: what they promise, each promise a row."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
import weakref
from io import BytesIO
from threading import Thread
from typing import Any

import pytest

from hipflask._core import _request_from_wire
from hipflask.werkzeug import datastructures as ds
from hipflask.werkzeug.exceptions import BadRequestKeyError
from hipflask.werkzeug.wrappers import Request


@pytest.mark.parametrize(
    ("source", "pairs"),
    [
        pytest.param(None, [], id="nothing"),
        pytest.param({"A": "1"}, [("A", "1")], id="dict"),
        pytest.param({"A": ["1", 2], "B": ("3",), "C": []}, [("A", "1"), ("A", "2"), ("B", "3")], id="lists"),
        pytest.param([("A", b"x"), ("a", None)], [("A", "b'x'"), ("a", "None")], id="values become text"),
        pytest.param(ds.MultiDict([("A", "1"), ("A", "2")]), [("A", "1"), ("A", "2")], id="multi dict"),
        pytest.param(ds.Headers([("A", "1")]), [("A", "1")], id="headers"),
    ],
)
def test_headers_are_made_of(source: Any, pairs: list[tuple[str, str]]) -> None:
    assert list(ds.Headers(source)) == pairs


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\r\nSet-Cookie: x=1", "\n"])
@pytest.mark.parametrize("method", ["add", "set", "add_header", "setdefault", "__setitem__"])
def test_a_header_value_with_a_line_break_is_refused(method: str, value: str) -> None:
    headers = ds.Headers()
    with pytest.raises(ValueError, match="must not contain newline characters"):
        getattr(headers, method)("X", value)
    with pytest.raises(ValueError, match="must not contain newline characters"):
        ds.Headers([("X", value)])
    assert len(headers) == 0


def test_header_names_compare_without_regard_to_case() -> None:
    headers = ds.Headers([("Content-Type", "a"), ("X-É", "b")])
    assert headers["CONTENT-type"] == "a"
    assert headers["x-é"] == "b"
    assert "content-TYPE" in headers
    assert headers == ds.Headers([("x-é", "b"), ("content-type", "a")])


def test_setting_a_header_keeps_the_place_of_the_first_and_drops_the_others() -> None:
    headers = ds.Headers([("A", "1"), ("B", "2"), ("a", "3")])
    headers["a"] = 4
    assert list(headers) == [("a", "4"), ("B", "2")]


def test_parameters_of_a_header_are_keyword_arguments() -> None:
    headers = ds.Headers()
    headers.add("Content-Disposition", "attachment", filename="a b.txt", x_y=None, z_1=2)
    assert headers.to_wsgi_list() == [("Content-Disposition", 'attachment; filename="a b.txt"; z-1=2')]


def test_a_missing_key_is_a_bad_request() -> None:
    for made in (ds.Headers(), ds.MultiDict(), ds.ImmutableMultiDict(), ds.CombinedMultiDict()):
        with pytest.raises(KeyError) as raised:
            made["missing"]
        assert isinstance(raised.value, BadRequestKeyError)
        assert raised.value.code == 400
        assert raised.value.args == ("missing",)


def test_the_interpreter_tells_when_a_header_name_is_no_string() -> None:
    with pytest.raises(TypeError):
        ds.Headers([(1, "x")])
    with pytest.raises(TypeError):
        ds.Headers().get(1)


def test_a_subclass_of_headers_sees_every_field_added() -> None:
    class Logged(ds.Headers):
        def __init__(self, log: list[str]) -> None:
            self.log = log
            super().__init__([("A", "1")])

        def add(self, key: str, value: Any, /, **kwargs: Any) -> None:
            self.log.append(key)
            super().add(key, value, **kwargs)

    log: list[str] = []
    headers = Logged(log)
    headers.extend({"B": "2"})
    headers.setlist("C", ["3", "4"])
    assert log == ["A", "B", "C"]
    restored = pickle.loads(pickle.dumps(ds.Headers(headers)))
    assert list(restored) == [("A", "1"), ("B", "2"), ("C", "3"), ("C", "4")]


ENVIRON = {"HTTP_X_A": "1", "HTTP_CONTENT_TYPE": "no", "CONTENT_TYPE": "", "CONTENT_LENGTH": "5", "wsgi.x": 1}


def test_environ_headers_follow_the_environ() -> None:
    environ = dict(ENVIRON)
    headers = ds.EnvironHeaders(environ)
    assert list(headers) == [("X-A", "1"), ("Content-Length", "5")]
    environ["HTTP_LATER"] = "2"
    assert headers["later"] == "2"
    assert headers.environ is environ
    assert headers == ds.EnvironHeaders(environ)
    assert headers != ds.EnvironHeaders(dict(environ))


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("__setitem__", ("a", "b")),
        ("__delitem__", ("a",)),
        ("__ior__", ({},)),
        ("add", ("a", "b")),
        ("add_header", ("a", "b")),
        ("clear", ()),
        ("extend", ({},)),
        ("insert", (0, "a")),
        ("pop", ("a",)),
        ("popitem", ()),
        ("remove", ("a",)),
        ("set", ("a", "b")),
        ("setdefault", ("a", "b")),
        ("setlist", ("a", [])),
        ("setlistdefault", ("a", [])),
        ("update", ({},)),
    ],
)
def test_environ_headers_cannot_be_changed(method: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="'EnvironHeaders' objects are immutable"):
        getattr(ds.EnvironHeaders(dict(ENVIRON)), method)(*args)


def test_the_engine_s_headers_read_as_if_from_an_environ() -> None:
    lines = ["GET / HTTP/1.1", "Host: x", "X-Foo: 1", "x-foo: 2", "Cookie: a=b", "Cookie: c=d", "X-L: \xe9"]
    head = "\r\n".join([*lines, "", ""]).encode("latin1")
    request = _request_from_wire(Request, head)
    headers = request.headers
    assert isinstance(headers, ds.EnvironHeaders)
    assert headers.get("X_FOO") == headers["x-foo"] == "1,2"
    assert headers.getlist("cookie") == ["a=b; c=d"]
    assert headers["X-L"] == "\xe9"
    assert "nothing" not in headers
    assert len(headers) == len(list(headers)) == 4
    before = sorted(headers)
    assert headers.environ is request.environ
    assert before == sorted(ds.EnvironHeaders(request.environ))
    with pytest.raises(KeyError, match="HTTP_NOTHING"):
        headers["nothing"]
    with pytest.raises(TypeError, match="immutable"):
        headers.set("a", "b")


def test_environ_headers_in_a_cycle_are_collected() -> None:
    class Owner:
        headers: Any

    owner = Owner()
    owner.headers = ds.EnvironHeaders({"owner": owner})
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("cls", [ds.MultiDict, ds.ImmutableMultiDict])
def test_a_multi_dict_passes_for_a_dict_of_first_values(cls: Any) -> None:
    made = cls([("a", "1"), ("a", "2"), ("b", "3")])
    assert isinstance(made, dict)
    assert dict(made) == {"a": "1", "b": "3"} == {**made} == made.to_dict()
    assert (lambda **kwargs: kwargs)(**made) == {"a": "1", "b": "3"}
    assert json.loads(json.dumps(made)) == {"a": "1", "b": "3"}
    assert made.to_dict(flat=False) == {"a": ["1", "2"], "b": ["3"]}
    assert sorted(made) == ["a", "b"]
    assert repr(made) == f"{cls.__name__}([('a', '1'), ('a', '2'), ('b', '3')])"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "made",
    [
        ds.Headers([("A", "1"), ("a", "2")]),
        ds.EnvironHeaders(dict(ENVIRON, **{"wsgi.x": None})),
        ds.MultiDict([("a", "1"), ("a", "2")]),
        ds.ImmutableMultiDict([("a", "1"), ("a", "2")]),
        ds.CombinedMultiDict([ds.MultiDict([("a", "1")])]),
        ds.ImmutableDict(a=1),
        ds.ImmutableList([1, 2]),
        ds.ImmutableTypeConversionDict({"a": 1}),
        ds.TypeConversionDict({"a": 1}),
    ],
    ids=lambda made: type(made).__name__,
)
def test_pickling_and_copying(made: Any, protocol: int) -> None:
    restored = pickle.loads(pickle.dumps(made, protocol))
    assert type(restored) is type(made)
    if isinstance(made, ds.EnvironHeaders):
        assert restored.environ == made.environ
        return
    assert restored == made
    if isinstance(made, ds.CombinedMultiDict):
        assert list(restored.items(multi=True)) == list(made.items(multi=True))
        return
    assert copy.deepcopy(made) == made
    assert copy.copy(made) == made


def test_a_copy_does_not_share_its_lists() -> None:
    made = ds.MultiDict([("a", 1)])
    made.copy().add("a", 2)
    copy.copy(made).setlistdefault("a").append(3)
    assert made.getlist("a") == [1]
    nested = ds.MultiDict([("a", [])])
    copy.deepcopy(nested)["a"].append(1)
    assert nested["a"] == []


def test_conversion_falls_back_to_the_default() -> None:
    made = ds.MultiDict([("n", "x"), ("n", "2")])
    assert made.get("n", type=int) is None
    assert made.get("n", 5, int) == 5
    assert made.get("none", default=6, type=int) == 6
    assert made.getlist("n", type=int) == [2]
    with pytest.raises(ZeroDivisionError):
        made.get("n", type=lambda value: 1 / 0)


def test_a_subclass_decides_what_reading_means() -> None:
    class Upper(ds.MultiDict[str, str]):
        def __getitem__(self, key: str) -> str:
            return super().__getitem__(key).upper()

    assert Upper({"a": "b"}).get("a") == "B"
    assert ds.MultiDict({"a": "b"}).get("a") == "b"


def test_immutable_dicts_have_a_hash_and_refuse_changes() -> None:
    for made in (ds.ImmutableMultiDict({"a": 1}), ds.ImmutableDict(a=1)):
        assert hash(made) == hash(type(made)(made))
        assert copy.copy(made) is made
        for change in ("clear", "popitem"):
            with pytest.raises(TypeError, match=f"'{type(made).__name__}' objects are immutable"):
                getattr(made, change)()
        with pytest.raises(TypeError):
            made["a"] = 2
        with pytest.raises(TypeError):
            made |= {"a": 2}
        changed = made.copy()
        changed["a"] = 2
        assert made["a"] == 1


def test_the_ordered_dicts_warn() -> None:
    with pytest.warns(DeprecationWarning, match="OrderedMultiDict"):
        cls = ds.OrderedMultiDict
    with pytest.warns(DeprecationWarning, match="Use 'MultiDict' instead"):
        made = cls([("a", 1), ("b", 2), ("a", 3)])
    assert list(made.items(multi=True)) == [("a", 1), ("b", 2), ("a", 3)]
    made.setlist("a", [4])
    assert list(made.items(multi=True)) == [("b", 2), ("a", 4)]
    assert made.popitem() == ("a", 4)


def test_a_header_set_forgets_what_is_removed_in_another_case() -> None:
    changes: list[str] = []
    made = ds.HeaderSet(["Cookie", "Accept"], lambda changed: changes.append(str(changed)))
    made.remove("COOKIE")
    made.add("accept")
    made.update(["X", "x"])
    made.discard("nothing")
    assert list(made) == ["Accept", "X"]
    assert changes == ["Accept", "Accept, X"]
    assert "ACCEPT" in made
    assert made.index("x") == 1


def test_a_callback_dict_tells_of_changes_only() -> None:
    changes: list[int] = []
    made = ds.CallbackDict({"a": 1}, lambda changed: changes.append(len(changed)))
    made.setdefault("a", 2)
    made.pop("none", None)
    assert changes == []
    made["b"] = 2
    made |= {"c": 3}
    del made["a"]
    made.popitem()
    made.update(d=4)
    made.clear()
    assert changes == [2, 3, 2, 1, 2, 0]


def test_an_uploaded_file_is_its_stream_too(tmp_path: Any) -> None:
    file = ds.FileStorage(BytesIO(b"a\nb"), "x.txt", "field", "Text/Plain; charset=x", 3)
    assert (file.mimetype, file.mimetype_params, file.content_length) == ("text/plain", {"charset": "x"}, 3)
    assert file.read(1) == b"a"
    file.seek(0)
    assert list(file) == [b"a\n", b"b"]
    file.seek(0)
    file.save(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"a\nb"
    out = BytesIO()
    file.seek(0)
    file.save(out, buffer_size=1)
    assert out.getvalue() == b"a\nb"
    assert repr(file) == "<FileStorage: 'x.txt' ('Text/Plain; charset=x')>"
    assert not ds.FileStorage()
    with pytest.raises(AttributeError):
        _ = file.nothing


def test_a_file_is_added_by_its_path(tmp_path: Any) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"x")
    files = ds.FileMultiDict()
    files.add_file("f", path)
    files.add_file("f", BytesIO(b"y"), filename="y.bin")
    assert [file.content_type for file in files.getlist("f")] == ["text/html", "application/octet-stream"]
    assert files["f"].read() == b"x"
    files["f"].close()


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (ds.Headers, "(defaults=None)"),
        (ds.MultiDict, "(mapping=None)"),
        (ds.EnvironHeaders, "(environ)"),
        (ds.MultiDict.get, "(self, /, key, default=None, type=None)"),
        (ds.Headers.getlist, "(self, /, key, type=None)"),
        (ds.Headers.add, "(self, key, value, /, **kwargs)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_can_be_read(function: Any, signature: str) -> None:
    assert str(inspect.signature(function)) == signature


def test_nothing_leaks_when_dicts_and_headers_come_and_go() -> None:
    def work() -> None:
        made = ds.ImmutableMultiDict([("a", object())])
        ds.MultiDict(made).copy().pop("a")
        headers = ds.Headers([("A", "1"), ("A", "2")])
        headers["A"] = "3"
        headers.remove("A")
        ds.EnvironHeaders({"HTTP_A": "1"}).get("a")

    work()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        work()
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_many_headers_of_one_name_are_replaced_in_one_go() -> None:
    # In proportion to the square this would take hours.
    headers = ds.Headers([("A", "1")] * 1_000_000)
    headers["a"] = "2"
    assert list(headers) == [("a", "2")]


@pytest.mark.parametrize(
    "cls", [ds.MultiDict, ds.TypeConversionDict, ds.FileMultiDict, ds.ImmutableMultiDict]
)
def test_a_dict_that_holds_itself_is_collected(cls: Any) -> None:
    values: list[Any] = []
    made = cls({"a": [values]})
    values.append(made)
    gone = weakref.ref(made)
    del made, values
    gc.collect()
    assert gone() is None


def test_headers_survive_changes_from_many_threads() -> None:
    headers = ds.Headers()

    def work(name: str) -> None:
        for number in range(500):
            headers.add(name, number)
            headers["shared"] = number
            headers.get(name)
            list(headers)

    threads = [Thread(target=work, args=(f"X-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, headers.getlist("X-1"))) == list(range(500))
    assert headers.getlist("shared") == ["499"]


def test_a_star_import_has_every_name() -> None:
    names: dict[str, Any] = {}
    exec("from hipflask.werkzeug.datastructures import *", names)
    assert {*ds.__all__} <= names.keys()
    assert {*ds.__all__} <= {*dir(ds)}


@pytest.mark.parametrize("kind", [tuple, list, "".join, iter], ids=["tuple", "list", "str", "iterator"])
@pytest.mark.parametrize("cls", [ds.Headers, ds.MultiDict])
def test_a_pair_is_any_iterable_of_two(cls, kind):
    assert list(cls([kind("ab")]).items()) == [("a", "b")]


@pytest.mark.parametrize("cls", [ds.Headers, ds.MultiDict])
def test_what_is_no_pair_is_refused(cls):
    with pytest.raises(ValueError, match="two items"):
        cls([("a", "b", "c")])
