"""Class-based views."""

from __future__ import annotations

import pytest

from hipflask import request
from hipflask.views import MethodView, View


def test_a_view_gets_arguments_and_url_values(app, client):
    class Greet(View):
        """Greets."""

        def __init__(self, word, end="!"):
            self.text = word + end

        def dispatch_request(self, name):
            return f"{self.text} {name}"

    function = Greet.as_view("greet", "Hello", end=",")
    app.add_url_rule("/<name>", view_func=function)
    assert client.get("/you").text == "Hello, you"
    assert (function.__name__, function.__doc__, function.view_class) == ("greet", "Greets.", Greet)
    assert function.__module__ == __name__


def test_the_base_class_answers_nothing():
    with pytest.raises(NotImplementedError):
        View().dispatch_request()


@pytest.mark.parametrize(("every", "expected"), [(True, ["1", "1"]), (False, ["1", "2"])])
def test_one_object_for_each_request_or_for_all(app, client, every, expected):
    class Count(View):
        init_every_request = every

        def __init__(self):
            self.n = 0

        def dispatch_request(self):
            self.n += 1
            return str(self.n)

    app.add_url_rule("/", view_func=Count.as_view("count"))
    assert [client.get("/").text for _ in range(2)] == expected


def test_a_method_view_answers_its_methods(app, client):
    class Item(MethodView):
        def get(self):
            return "got"

        def post(self):
            return f"posted {request.form['x']}"

        def propfind(self):
            return "never"

    app.add_url_rule("/", view_func=Item.as_view("item"))
    assert Item.methods == {"GET", "POST"}
    assert client.get("/").text == "got"
    assert client.post("/", data={"x": "1"}).text == "posted 1"
    assert client.open("/", "PUT").status_code == 405
    assert sorted(client.open("/", "OPTIONS").header("Allow").split(", ")) == [
        "GET",
        "HEAD",
        "OPTIONS",
        "POST",
    ]
    head = client.open("/", "HEAD")
    assert (head.status_code, head.data) == (200, b"")


def test_head_has_a_method_of_its_own_if_wanted(app, client):
    class Item(MethodView):
        def get(self):
            return "got"

        def head(self):
            return "", {"X-Method": "HEAD"}

    app.add_url_rule("/", view_func=Item.as_view("item"))
    assert client.open("/", "HEAD").header("X-Method") == "HEAD"


def test_methods_are_inherited_and_can_be_set():
    class Base(MethodView):
        def get(self):
            pass

    class Mixin:
        def put(self):
            pass

    class Both(Base, Mixin):
        def post(self):
            pass

    class Fixed(Base):
        methods = ["DELETE"]

    class Declared(Fixed):
        def patch(self):
            pass

    assert Both.methods == {"GET", "POST", "PUT"}
    assert Fixed.methods == ["DELETE"]
    assert Declared.methods == {"DELETE", "GET", "PATCH"}
    assert MethodView.methods is None


def test_a_method_that_is_announced_but_missing_is_an_error(app):
    class Item(MethodView):
        methods = ["GET", "PROPFIND"]

    app.testing = True
    app.add_url_rule("/", view_func=Item.as_view("item"))
    with pytest.raises(AssertionError, match="Unimplemented method 'PROPFIND'"):
        app.test_client().open("/", method="PROPFIND")


def test_decorators_wrap_the_function(app, client):
    def twice(function):
        def wrapped(**values):
            return function(**values) * 2

        return wrapped

    class Word(View):
        decorators = [twice, twice]

        def dispatch_request(self):
            return "x"

    function = Word.as_view("word")
    app.add_url_rule("/", view_func=function)
    assert client.get("/").text == "xxxx"
    assert (function.__name__, function.__module__) == ("word", __name__)


@pytest.mark.parametrize(("automatic", "status"), [(None, 200), (True, 405), (False, 405)])
def test_options_is_added_unless_the_class_says_anything(app, client, automatic, status):
    class Item(View):
        provide_automatic_options = automatic

        def dispatch_request(self):
            return "x"

    app.add_url_rule("/", view_func=Item.as_view("item"))
    assert client.open("/", "OPTIONS").status_code == status


def test_the_view_class_can_be_replaced(app, client):
    class One(View):
        def dispatch_request(self):
            return "one"

    class Two(View):
        def dispatch_request(self):
            return "two"

    function = One.as_view("view")
    app.add_url_rule("/", view_func=function)
    function.view_class = Two
    assert client.get("/").text == "two"


def test_async_methods(app, client):
    class Item(MethodView):
        async def get(self):
            return "awaited"

    app.add_url_rule("/", view_func=Item.as_view("item"))
    assert client.get("/").text == "awaited"
