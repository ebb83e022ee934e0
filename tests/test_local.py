"""`LocalProxy`, `Local`, `LocalStack` and `LocalManager`."""

from __future__ import annotations

import copy
import math
import operator
import threading
from contextvars import ContextVar, copy_context

import pytest

from hipflask.werkzeug.local import Local, LocalManager, LocalProxy, LocalStack, release_local


@pytest.fixture
def bound():
    """A proxy, and a function that binds what it stands for."""
    variable = ContextVar("variable")
    return LocalProxy(variable, unbound_message="nothing here"), variable.set


OPERATIONS = [
    pytest.param(lambda x: x + 2, 7, id="add"),
    pytest.param(lambda x: 2 + x, 7, id="radd"),
    pytest.param(lambda x: x - 2, 7, id="sub"),
    pytest.param(lambda x: 2 - x, 7, id="rsub"),
    pytest.param(lambda x: x * 2, 7, id="mul"),
    pytest.param(lambda x: 2 * x, [1], id="rmul-list"),
    pytest.param(lambda x: x / 2, 7, id="truediv"),
    pytest.param(lambda x: 2 / x, 7, id="rtruediv"),
    pytest.param(lambda x: x // 2, 7, id="floordiv"),
    pytest.param(lambda x: 20 // x, 7, id="rfloordiv"),
    pytest.param(lambda x: x % 2, 7, id="mod"),
    pytest.param(lambda x: 20 % x, 7, id="rmod"),
    pytest.param(lambda x: x % (1,), "%d", id="mod-str"),
    pytest.param(lambda x: divmod(x, 2), 7, id="divmod"),
    pytest.param(lambda x: divmod(20, x), 7, id="rdivmod"),
    pytest.param(lambda x: x**2, 7, id="pow"),
    pytest.param(lambda x: 2**x, 7, id="rpow"),
    pytest.param(lambda x: pow(x, 2, 5), 7, id="pow-mod"),
    pytest.param(lambda x: x << 2, 7, id="lshift"),
    pytest.param(lambda x: 2 << x, 7, id="rlshift"),
    pytest.param(lambda x: x >> 1, 7, id="rshift"),
    pytest.param(lambda x: 2000 >> x, 7, id="rrshift"),
    pytest.param(lambda x: x & 3, 7, id="and"),
    pytest.param(lambda x: 3 & x, 7, id="rand"),
    pytest.param(lambda x: x ^ 3, 7, id="xor"),
    pytest.param(lambda x: 3 ^ x, 7, id="rxor"),
    pytest.param(lambda x: x | 8, 7, id="or"),
    pytest.param(lambda x: 8 | x, 7, id="ror"),
    pytest.param(lambda x: x | {"b": 2}, {"a": 1}, id="or-dict"),
    pytest.param(operator.neg, 7, id="neg"),
    pytest.param(operator.pos, 7, id="pos"),
    pytest.param(abs, -7, id="abs"),
    pytest.param(operator.invert, 7, id="invert"),
    pytest.param(complex, 7, id="complex"),
    pytest.param(int, 7.5, id="int"),
    pytest.param(float, 7, id="float"),
    pytest.param(operator.index, 7, id="index"),
    pytest.param(round, 7.5, id="round"),
    pytest.param(lambda x: round(x, 1), 7.55, id="round-digits"),
    pytest.param(math.trunc, 7.5, id="trunc"),
    pytest.param(math.floor, 7.5, id="floor"),
    pytest.param(math.ceil, 7.5, id="ceil"),
    pytest.param(str, 7, id="str"),
    pytest.param(repr, "seven", id="repr"),
    pytest.param(bytes, bytearray(b"x"), id="bytes"),
    pytest.param(lambda x: f"{x:05d}", 7, id="format"),
    pytest.param(hash, "x", id="hash"),
    pytest.param(bool, [], id="false"),
    pytest.param(bool, [0], id="true"),
    pytest.param(dir, 7, id="dir"),
    pytest.param(len, "abc", id="len"),
    pytest.param(operator.length_hint, iter([1, 2]), id="length_hint"),
    pytest.param(lambda x: x[1], "abc", id="getitem"),
    pytest.param(lambda x: x[-1], "abc", id="getitem-negative"),
    pytest.param(lambda x: x[1:], "abc", id="slice"),
    pytest.param(list, "abc", id="iter"),
    pytest.param(lambda x: list(reversed(x)), "abc", id="reversed"),
    pytest.param(lambda x: "b" in x, "abc", id="contains"),
    pytest.param(lambda x: x("5"), int, id="call"),
    pytest.param(lambda x: x("ff", base=16), int, id="call-keywords"),
    pytest.param(lambda x: isinstance(5, x), int, id="instancecheck"),
    pytest.param(lambda x: issubclass(bool, x), int, id="subclasscheck"),
    pytest.param(lambda x: isinstance(x, str), "x", id="isinstance"),
    pytest.param(lambda x: x.__class__, "x", id="class"),
    pytest.param(lambda x: x.__doc__, "x", id="doc"),
    pytest.param(lambda x: x.upper(), "x", id="method"),
    pytest.param(copy.copy, [[1]], id="copy"),
    pytest.param(copy.deepcopy, [[1]], id="deepcopy"),
    pytest.param(lambda x: x < 8, 7, id="lt"),
    pytest.param(lambda x: x <= 7, 7, id="le"),
    pytest.param(lambda x: x == 7, 7, id="eq"),
    pytest.param(lambda x: x != 7, 7, id="ne"),
    pytest.param(lambda x: x > 8, 7, id="gt"),
    pytest.param(lambda x: x >= 8, 7, id="ge"),
]


@pytest.mark.parametrize(("operation", "value"), OPERATIONS)
def test_an_operation_on_a_proxy_gives_what_it_gives_on_the_object(bound, operation, value):
    proxy, bind = bound
    bind(copy.copy(value))
    assert operation(proxy) == operation(value)


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        (operator.iadd, [1], [1, 2]),
        (operator.ior, {1}, {1, 2}),
        (operator.iand, {1, 2, 3}, {2}),
        (operator.isub, {1, 2}, {1}),
        (operator.ixor, {1, 2}, {1}),
    ],
)
def test_augmented_assignment_changes_the_object_and_keeps_the_proxy(bound, operation, before, after):
    proxy, bind = bound
    bind(before)
    result = operation(proxy, type(before)([2]))
    assert result is proxy
    assert before == after


def test_augmented_assignment_of_a_number_changes_nothing(bound):
    proxy, bind = bound
    bind(1)
    number = proxy
    number += 5
    assert number == 1


def test_attributes_and_items_are_written_to_the_object(bound):
    class Thing(dict):
        pass

    proxy, bind = bound
    thing = Thing()
    bind(thing)
    proxy.colour = "red"
    proxy["size"] = 3
    assert (thing.colour, thing["size"]) == ("red", 3)
    del proxy.colour
    del proxy["size"]
    assert not hasattr(thing, "colour")
    assert not thing
    with pytest.raises(AttributeError):
        proxy.colour  # noqa: B018


def test_next_and_context_managers_are_forwarded(bound):
    proxy, bind = bound
    bind(iter([1]))
    assert next(proxy) == 1
    with pytest.raises(StopIteration):
        next(proxy)
    lock = threading.Lock()
    bind(lock)
    with proxy:
        assert lock.locked()
    assert not lock.locked()
    bind(5)
    with pytest.raises(TypeError, match="not an iterator"):
        next(proxy)


def test_an_unbound_proxy_can_be_looked_at_but_not_used(bound):
    proxy, _ = bound
    assert repr(proxy) == "<LocalProxy unbound>"
    assert not proxy
    assert dir(proxy) == []
    assert proxy.__class__ is LocalProxy
    assert isinstance(proxy.__wrapped__, ContextVar)
    assert proxy.__doc__ == LocalProxy.__doc__
    for use in (str, len, hash, lambda p: p.x, lambda p: p + 1, lambda p: p == 1, lambda p: p()):
        with pytest.raises(RuntimeError, match="^nothing here$"):
            use(proxy)


def test_the_default_message_of_an_unbound_proxy():
    with pytest.raises(RuntimeError, match="^object is not bound$"):
        LocalProxy(ContextVar("x"))._get_current_object()


def test_an_error_of_the_object_is_not_taken_for_an_unbound_proxy():
    def fail():
        raise ZeroDivisionError

    proxy = LocalProxy(fail)
    with pytest.raises(ZeroDivisionError):
        repr(proxy)
    with pytest.raises(ZeroDivisionError):
        bool(proxy)


def test_the_type_of_a_proxy_tells_it_from_the_object(bound):
    proxy, bind = bound
    bind("x")
    assert issubclass(type(proxy), LocalProxy)
    assert not issubclass(proxy.__class__, LocalProxy)
    assert proxy._get_current_object() == "x"


def test_a_dotted_name_is_followed():
    class Inner:
        value = 5

    class Outer:
        inner = Inner

    variable = ContextVar("outer")
    variable.set(Outer)
    assert LocalProxy(variable, "inner.value") == 5


@pytest.mark.parametrize("thing", [5, None, "name"])
def test_what_cannot_be_proxied_is_refused(thing):
    with pytest.raises(TypeError, match="Don't know how to proxy"):
        LocalProxy(thing)


def test_a_proxy_of_a_namespace_needs_a_name():
    with pytest.raises(TypeError, match="'name' is required"):
        LocalProxy(Local())


def test_a_subclass_keeps_its_own_attributes():
    class Named(LocalProxy):
        def shout(self):
            return str(self).upper()

    variable = ContextVar("x")
    variable.set("word")
    named = Named(variable)
    assert named.shout() == "WORD"
    assert named.title() == "Word"


def test_a_proxy_as_a_decorator_calls_the_function_each_time():
    calls = []

    @LocalProxy
    def counter():
        calls.append(1)
        return len(calls)

    assert counter == 1
    assert counter == 2


def test_a_proxy_to_a_proxy_reaches_the_object(bound):
    proxy, bind = bound
    bind([3])
    assert LocalProxy(lambda: proxy)[0] == 3


async def _values(proxy):
    return [item async for item in proxy]


def test_async_protocols_are_forwarded(bound):
    import asyncio

    async def numbers():
        yield 1
        yield 2

    async def five():
        return 5

    async def awaits(proxy):
        return await proxy

    proxy, bind = bound
    bind(numbers())
    assert asyncio.run(_values(proxy)) == [1, 2]
    bind(five())
    assert asyncio.run(awaits(proxy)) == 5


def test_a_namespace_belongs_to_its_context():
    local = Local()
    local.word = "outside"

    def inside():
        assert local.word == "outside"
        local.word = "inside"
        return local.word

    assert copy_context().run(inside) == "inside"
    assert local.word == "outside"
    assert dict(local) == {"word": "outside"}
    del local.word
    with pytest.raises(AttributeError, match="word"):
        local.word  # noqa: B018
    with pytest.raises(AttributeError, match="word"):
        del local.word


def test_a_namespace_makes_proxies_and_forgets():
    local = Local()
    proxy = local("word", unbound_message="no word")
    with pytest.raises(RuntimeError, match="no word"):
        len(proxy)
    local.word = "abc"
    assert proxy == "abc"
    release_local(local)
    assert not proxy


def test_a_stack_has_a_top_and_a_proxy_to_it():
    stack = LocalStack()
    proxy = stack()
    named = stack("real")
    assert stack.top is None
    assert stack.pop() is None
    assert not proxy
    assert stack.push(1) == [1]
    assert stack.push(2) == [1, 2]
    assert (stack.top, proxy, named) == (2, 2, 2)
    assert stack.pop() == 2
    assert proxy == 1
    release_local(stack)
    assert stack.top is None
    assert LocalStack[int]


def test_a_manager_releases_its_locals_after_the_response():
    local, stack = Local(), LocalStack()
    manager = LocalManager([local, stack])
    assert repr(manager) == "<LocalManager storages: 2>"

    @manager.middleware
    def app(environ, start_response):
        """The app."""
        local.user = "somebody"
        stack.push(1)
        yield b"body"

    assert app.__doc__ == "The app."
    answer = app({}, lambda *args: None)
    assert b"".join(answer) == b"body"
    assert local.user == "somebody"
    answer.close()
    assert not hasattr(local, "user")
    assert stack.top is None
    assert LocalManager().locals == []
    assert LocalManager(local).locals == [local]
