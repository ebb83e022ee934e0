"""Coroutine functions as views and hooks: through every door, and on the live engine's one loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from doors import Client, LiveDoor

from hipflask import Flask, Response, abort, after_this_request, g, request, session
from hipflask.views import MethodView

pytest.importorskip("asgiref")


@pytest.fixture
def live(app: Flask):
    client = Client(app, LiveDoor)
    yield client
    client.close()


def test_hooks_and_views_of_both_kinds_run_in_flask_s_order(app, client):
    calls: list[str] = []

    @app.before_request
    def sync_before():
        calls.append("before")
        g.x = 1

    @app.before_request
    async def async_before():
        await asyncio.sleep(0)
        calls.append(f"async before {g.x}")

    @app.after_request
    async def async_after(response: Response):
        calls.append("async after")
        return response

    @app.after_request
    def sync_after(response: Response):
        calls.append("after")
        return response

    @app.teardown_request
    async def teardown(error):
        calls.append(f"teardown {error}")

    @app.route("/sync")
    def sync_view():
        return "sync"

    @app.route("/async")
    async def async_view():
        await asyncio.sleep(0)
        return "async"

    for kind in ("sync", "async"):
        calls.clear()
        assert client.get(f"/{kind}").text == kind
        assert calls == ["before", "async before 1", "after", "async after", "teardown None"]


def test_request_session_and_g_are_those_of_the_request(app, client):
    @app.route("/<int:number>")
    async def view(number):
        session["n"] = number
        g.n = number
        await asyncio.sleep(0.001)

        @after_this_request
        def add(response):
            response.headers["X-N"] = str(g.n)
            return response

        return f"{request.path} {session['n']} {g.n}"

    answer = client.get("/7")
    assert (answer.text, answer.header("X-N")) == ("/7 7 7", "7")
    assert "session" in client.cookies


def test_errors_reach_their_handlers(app, client):
    @app.errorhandler(ValueError)
    async def wrong(error):
        await asyncio.sleep(0)
        return f"wrong: {error}", 418

    @app.errorhandler(404)
    def missing(error):
        return "missing", 404

    @app.route("/value")
    async def value():
        await asyncio.sleep(0)
        raise ValueError("x")

    @app.route("/abort")
    async def gone():
        abort(404)

    @app.route("/unhandled")
    async def unhandled():
        await asyncio.sleep(0)
        raise KeyError("nobody handles this")

    assert client.get("/value").text == "wrong: x"
    assert client.get("/value").status_code == 418
    assert client.get("/abort").text == "missing"
    assert client.get("/unhandled").status_code == 500


def test_methods_of_a_class_may_be_coroutines(app, client):
    class Thing(MethodView):
        async def get(self):
            await asyncio.sleep(0)
            return "got"

        def post(self):
            return "posted"

    app.add_url_rule("/", view_func=Thing.as_view("thing"))
    assert client.get("/").text == "got"
    assert client.post("/").text == "posted"


def test_a_body_is_read_in_a_coroutine(app, client):
    @app.post("/")
    async def view():
        await asyncio.sleep(0)
        return str(len(request.get_data()))

    for size in (1, 70_000, 3_000_000):
        assert client.post("/", data=b"x" * size).text == str(size)


def test_a_variable_set_by_a_hook_is_seen_by_the_view(app, client):
    variable = contextvars.ContextVar("variable", default="unset")

    @app.before_request
    async def before():
        variable.set("set by a hook")

    @app.route("/")
    def view():
        return variable.get()

    assert client.get("/").text == "set by a hook"


def test_all_requests_share_one_loop_and_its_objects(app, live):
    seen: list[tuple[asyncio.AbstractEventLoop, str]] = []
    shared: dict[str, asyncio.Task[str]] = {}

    def note() -> None:
        seen.append((asyncio.get_running_loop(), threading.current_thread().name))

    @app.before_request
    async def before():
        note()

    @app.route("/begin")
    async def begin():
        note()
        shared["task"] = asyncio.create_task(asyncio.sleep(0.01, "made by another request"))
        return ""

    @app.route("/end")
    async def end():
        note()
        return await shared["task"]

    @app.route("/plain")
    def plain():
        return ""

    live.get("/begin")
    live.get("/plain")
    assert live.get("/end").text == "made by another request"
    assert len(seen) == 5
    assert len({loop for loop, _ in seen}) == 1
    assert {name for _, name in seen} == {"hipflask-loop"}


def test_tasks_and_timeouts_of_asyncio_work(app, live):
    @app.route("/gather")
    async def gather():
        async def path() -> str:
            await asyncio.sleep(0)
            return request.path

        return " ".join(await asyncio.gather(path(), path()))

    @app.route("/timeout")
    async def timeout():
        try:
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        except asyncio.TimeoutError:
            return "in time"

    assert live.get("/gather").text == "/gather /gather"
    assert live.get("/timeout").text == "in time"


def test_suspended_views_let_each_other_run(app):
    """Sixteen views that wait for each other: one after the other, or on loops of their own, none ends."""
    many = 16
    arrived: list[str] = []
    everybody: list[asyncio.Event] = []

    @app.route("/<name>")
    async def view(name):
        if not everybody:
            everybody.append(asyncio.Event())
        arrived.append(name)
        if len(arrived) == many:
            everybody[0].set()
        await asyncio.wait_for(everybody[0].wait(), 20)
        return f"{request.path} {name}"

    door = LiveDoor(app)
    answers: dict[str, str] = {}

    def fetch(name: str) -> None:
        import http.client

        connection = http.client.HTTPConnection(door.connection.host, door.connection.port, timeout=30)
        connection.request("GET", f"/{name}")
        answers[name] = connection.getresponse().read().decode()
        connection.close()

    threads = [threading.Thread(target=fetch, args=(f"n{i}",)) for i in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    door.close()
    assert answers == {f"n{i}": f"/n{i} n{i}" for i in range(many)}


def test_a_stop_waits_for_running_coroutines(app):
    import http.client

    begun = threading.Event()

    @app.route("/")
    async def view():
        begun.set()
        await asyncio.sleep(0.3)
        return "finished"

    door = LiveDoor(app)
    connection = http.client.HTTPConnection(door.connection.host, door.connection.port, timeout=20)
    connection.request("GET", "/")
    assert begun.wait(10)
    stopping = threading.Thread(target=door.close)
    stopping.start()
    assert connection.getresponse().read() == b"finished"
    connection.close()
    stopping.join()


def test_asgiref_is_not_needed_on_the_engine(app, live, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "asgiref.sync", None)

    @app.route("/")
    async def view():
        return "served"

    assert live.get("/").text == "served"


def test_an_app_may_bring_a_loop_of_its_own(app):
    class Own(Flask):
        def async_to_sync(self, func):
            return lambda *args, **kwargs: "own: " + asyncio.run(func(*args, **kwargs))

    own = Own("own")

    @own.route("/")
    async def view():
        return threading.current_thread().name.partition("-worker")[0]

    client = Client(own, LiveDoor)
    try:
        assert client.get("/").text.startswith("own: ")
    finally:
        client.close()


def test_the_loop_does_not_wait_for_itself():
    from hipflask.loop import shared

    async def inner():
        return 1

    async def outer():
        return shared().run(inner, (), {})

    with pytest.raises(RuntimeError, match="cannot wait for itself"):
        shared().run(outer, (), {})
    assert shared().run(inner, (), {}) == 1
