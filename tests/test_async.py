"""Coroutine functions as views and hooks: through every door, and on the live engine's one loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import threading
import time

import pytest
from doors import Client, LiveDoor
from processes import PATIENCE

from hipflask import Flask, Response, abort, after_this_request, g, request, session
from hipflask.views import MethodView


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


def test_a_thousand_suspended_views_need_no_thousand_threads(app):
    many = 1000
    arrived: list[int] = []
    everybody: list[asyncio.Event] = []
    threads: list[int] = []

    @app.route("/<int:number>")
    async def view(number):
        if not everybody:
            everybody.append(asyncio.Event())
        arrived.append(number)
        if len(arrived) == many:
            threads.append(sum(1 for t in os.listdir("/proc/self/task")) if os.path.exists("/proc") else 0)
            everybody[0].set()
        await everybody[0].wait()
        return f"{request.path} {number}"

    async def fetch(number: int) -> bytes:
        reader, writer = await asyncio.open_connection(door.connection.host, door.connection.port)
        writer.write(b"GET /%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % number)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def fetch_all() -> list[bytes]:
        return await asyncio.wait_for(asyncio.gather(*map(fetch, range(many))), 60)

    door = LiveDoor(app)
    try:
        answers = asyncio.run(fetch_all())
    finally:
        door.close()
    for number, answer in enumerate(answers):
        assert answer.endswith(b"\r\n\r\n/%d %d" % (number, number))
    assert threads[0] < 20


def test_pipelined_requests_are_answered_in_order(app):
    @app.route("/slow")
    async def slow():
        await asyncio.sleep(0.05)
        return "slow"

    @app.route("/quick")
    def quick():
        return "quick"

    door = LiveDoor(app)
    get = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        wire = b"".join(get % path for path in (b"quick", b"slow", b"slow", b"quick", b"quick"))
        received = b""
        with socket.create_connection((door.connection.host, door.connection.port), timeout=20) as sock:
            sock.sendall(wire)
            while received.count(b"quick") < 3:
                received += sock.recv(65536)
        bodies = [head.partition(b"\r\n\r\n")[2] for head in received.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [b"quick", b"slow", b"slow", b"quick", b"quick"]
    finally:
        door.close()


def test_a_client_that_goes_away_cancels_the_view(app):
    begun, cancelled, torn_down = threading.Event(), threading.Event(), threading.Event()
    shielded = threading.Event()

    async def must_be_done():
        await asyncio.sleep(0.1)
        shielded.set()

    @app.teardown_request
    async def teardown(error):
        if isinstance(error, asyncio.CancelledError):
            torn_down.set()

    @app.route("/")
    async def view():
        begun.set()
        try:
            await asyncio.shield(must_be_done())
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @app.route("/next")
    async def following():
        return "next"

    door = LiveDoor(app)
    try:
        sock = socket.create_connection((door.connection.host, door.connection.port), timeout=20)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(10)
        sock.close()
        assert cancelled.wait(10)
        assert torn_down.wait(10)
        assert shielded.wait(10)
        assert door.exchange("GET", "http://localhost/next", [], b"").text == "next"
    finally:
        door.close()


def test_a_stop_cancels_what_its_grace_does_not_suffice_for(app):
    begun, cancelled = threading.Event(), threading.Event()

    @app.route("/")
    async def view():
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    door = LiveDoor(app)
    with socket.create_connection((door.connection.host, door.connection.port), timeout=20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(10)
        door.server.stop(0.1)
        assert cancelled.wait(10)


def test_a_view_that_never_lets_go_is_not_waited_for_by_sync_views(app):
    begun, over = threading.Event(), threading.Event()

    @app.route("/hold")
    async def hold():
        begun.set()
        over.wait(20)
        return "held"

    @app.route("/plain")
    def plain():
        return "plain"

    door = LiveDoor(app)
    with socket.create_connection((door.connection.host, door.connection.port), timeout=20) as sock:
        sock.sendall(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(10)
        assert door.exchange("GET", "http://localhost/plain", [], b"").text == "plain"
        over.set()
        assert sock.recv(65536).endswith(b"held")
    door.close()


def test_signals_are_sent_in_flask_s_order_around_a_coroutine_view(app, live):
    pytest.importorskip("blinker")
    from hipflask import signals

    heard: list[str] = []
    names = [
        "appcontext_pushed",
        "request_started",
        "request_finished",
        "request_tearing_down",
        "appcontext_tearing_down",
        "appcontext_popped",
    ]
    receivers = []
    for name in names:

        def receive(sender, _name=name, **values):
            heard.append(_name)

        receivers.append(receive)
        getattr(signals, name).connect(receive, app)

    async def receive_async(sender, **values):
        await asyncio.sleep(0)
        heard.append("async")

    signals.request_finished.connect(receive_async, app)

    @app.route("/")
    async def view():
        return "heard"

    assert live.get("/").text == "heard"
    heard.remove("async")
    assert heard == names


def test_blueprint_hooks_and_handlers_apply(app, client):
    from hipflask import Blueprint

    calls: list[str] = []
    outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)
    for scope, name in ((app, "app"), (outer, "outer"), (inner, "inner")):

        @scope.before_request
        async def before(name=name):
            calls.append(f"before {name}")

        @scope.after_request
        async def after(response, name=name):
            calls.append(f"after {name}")
            return response

        @scope.teardown_request
        def teardown(error, name=name):
            calls.append(f"teardown {name}")

    @inner.errorhandler(ZeroDivisionError)
    async def handler(error):
        return f"handled by {request.blueprint}"

    @inner.route("/<int:by>")
    async def divide(by):
        return str(1 // by)

    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    assert client.get("/0").text == "handled by outer.inner"
    order = ["app", "outer", "inner"]
    assert calls == [
        *[f"before {name}" for name in order],
        *[f"after {name}" for name in reversed(order)],
        *[f"teardown {name}" for name in reversed(order)],
    ]


def test_what_a_view_returns_becomes_a_response(app, client):
    @app.route("/<kind>")
    async def view(kind):
        await asyncio.sleep(0)
        return {
            "pair": ("pair", 201),
            "headers": ("headers", 202, {"X-Y": "z"}),
            "dict": {"a": 1},
            "response": Response("response", 203),
            "generator": (str(i) for i in range(3)),
            "none": None,
        }[kind]

    assert (client.get("/pair").text, client.get("/pair").status_code) == ("pair", 201)
    assert client.get("/headers").header("X-Y") == "z"
    assert client.get("/dict").json == {"a": 1}
    assert client.get("/response").status_code == 203
    assert client.get("/generator").text == "012"
    assert client.get("/none").status_code == 500
    assert client.open("/pair", "HEAD").text == ""
    assert client.open("/pair", "OPTIONS").header("Allow") is not None
    assert client.post("/pair").status_code == 405


def test_a_body_that_is_still_arriving_does_not_hold_up_the_loop(app, live):
    names: list[str] = []

    @app.post("/")
    async def view():
        names.append(threading.current_thread().name)
        await asyncio.sleep(0)
        return str(len(request.get_data()))

    for size in (1 << 20, 17 << 20, 1):
        assert live.post("/", data=b"x" * size).text == str(size)
    assert names[0] == names[2] == "hipflask-loop"
    assert names[1] != "hipflask-loop"


def test_a_response_is_closed_once_its_context_is_gone(app, client):
    from hipflask import has_request_context

    calls: list[str] = []

    @app.teardown_request
    async def teardown(error):
        calls.append("teardown")

    @app.route("/<kind>")
    async def view(kind):
        await asyncio.sleep(0)
        response = Response("text" if kind == "whole" else iter(["te", "xt"]))
        response.call_on_close(lambda: calls.append(f"closed {has_request_context()}"))
        return response

    for kind in ("whole", "pieces"):
        calls.clear()
        assert client.get(f"/{kind}").text == "text"
        assert calls == ["teardown", "closed False"]


def test_a_response_that_cannot_be_sent_is_a_500_nobody_else_is_told_of(app, live, caplog):
    errors: list[object] = []

    @app.teardown_request
    def teardown(error):
        errors.append(error)

    @app.errorhandler(500)
    def handler(error):
        return "not this"

    @app.route("/")
    async def view():
        return Response("", 42)

    answer = live.get("/")
    assert (answer.status_code, "Internal Server Error" in answer.text) == (500, True)
    assert errors == [None]


def test_an_error_of_a_teardown_function_is_a_500(app, live):
    @app.teardown_request
    async def teardown(error):
        raise RuntimeError("torn")

    @app.route("/")
    async def view():
        return "view"

    assert live.get("/").status_code == 500


def test_a_task_that_a_view_keeps_is_not_lent_to_the_next_request(app, live):
    """Views that do not wait are run one after another in a task; not in one that was kept."""
    kept: list[asyncio.Task[object]] = []
    called: list[object] = []
    variable = contextvars.ContextVar("variable", default="unset")

    @app.route("/keep")
    async def keep():
        kept.append(asyncio.current_task())
        return "kept"

    @app.route("/callback")
    async def callback():
        asyncio.current_task().add_done_callback(called.append)
        return "called"

    @app.route("/cancel")
    async def cancel():
        asyncio.current_task().cancel()
        return "cancelled too late"

    @app.route("/set")
    async def set_variable():
        before = variable.get()
        variable.set("set")
        return before

    live.get("/keep")
    live.get("/keep")
    assert live.get("/cancel").text == "cancelled too late"
    assert live.get("/callback").text == "called"
    assert live.get("/set").text == "unset"
    assert live.get("/set").text == "unset"
    assert len(set(kept)) == 2
    assert len(called) == 1


def test_pipelined_views_share_no_context_and_no_task_that_was_kept(app):
    """All of one batch, so that they are run one after another by the same hand."""
    variable = contextvars.ContextVar("variable", default=0)
    tasks: list[object] = []

    @app.route("/<int:number>")
    async def view(number):
        seen = variable.get()
        variable.set(number)
        if number % 3 == 0:
            await asyncio.sleep(0)
        if number % 5 == 0:
            tasks.append(asyncio.current_task())
        async with asyncio.Lock():
            inner = await asyncio.wait_for(asyncio.create_task(doubled(number)), 5) if number % 2 else 0
        return f"{seen} {inner} {request.path}."

    async def doubled(number: int) -> int:
        return number * 2 + (0 if request.path == f"/{number}" else 1000)

    door = LiveDoor(app)
    door.exchange("GET", "http://localhost/not/there", [], b"")
    socks = []
    for number in range(1, 41):
        sock = socket.create_connection((door.connection.host, door.connection.port), timeout=20)
        sock.sendall(f"GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        socks.append(sock)
    for number, sock in enumerate(socks, 1):
        received = b""
        while not received.endswith(b"."):
            received += sock.recv(65536)
        expected = f"0 {number * 2 if number % 2 else 0} /{number}."
        assert received.endswith(b"\r\n\r\n" + expected.encode())
        sock.close()
    door.close()
    assert len(set(tasks)) == len(tasks)


def test_an_error_after_a_wait_reaches_its_handler_with_its_traceback(app, live):
    import sys
    import traceback

    @app.errorhandler(LookupError)
    async def handler(error):
        assert sys.exc_info()[1] is error
        await asyncio.sleep(0)
        return traceback.extract_tb(error.__traceback__)[-1].name, 418

    @app.route("/<kind>")
    async def view(kind):
        if kind == "late":
            await asyncio.sleep(0)
        raise LookupError(kind)

    for kind in ("early", "late"):
        answer = live.get(f"/{kind}")
        assert (answer.status_code, answer.text) == (418, "view")


def test_app_wide_hooks_of_a_blueprint_may_be_coroutines(app, client):
    from hipflask import Blueprint

    calls: list[str] = []
    blueprint = Blueprint("b", __name__)

    @blueprint.before_app_request
    async def before():
        await asyncio.sleep(0)
        calls.append("before")

    @blueprint.after_app_request
    async def after(response):
        calls.append("after")
        return response

    @blueprint.teardown_app_request
    async def teardown(error):
        calls.append("teardown")

    @blueprint.app_errorhandler(KeyError)
    async def handler(error):
        return "handled"

    app.register_blueprint(blueprint)

    @app.route("/<kind>")
    async def view(kind):
        raise KeyError(kind)

    @app.teardown_appcontext
    async def teardown_app(error):
        calls.append("teardown app")

    assert client.get("/x").text == "handled"
    assert calls == ["before", "after", "teardown", "teardown app"]


def test_a_context_processor_may_be_a_coroutine_function(app, client):
    from hipflask import render_template_string

    @app.context_processor
    async def names():
        await asyncio.sleep(0)
        return {"name": f"of {request.path}"}

    @app.route("/x")
    def view():
        return render_template_string("{{ name }}")

    assert client.get("/x").text == "of /x"


def test_a_request_s_context_is_copied_for_sync_and_async_functions(app, client):
    from hipflask import copy_current_request_context

    @app.route("/<name>")
    async def view(name):
        @copy_current_request_context
        def in_a_thread():
            return f"{request.path} {session['name']}"

        async def in_a_task():
            await asyncio.sleep(0)
            return f"{request.path} {g.name}"

        g.name = name
        session["name"] = name
        task = asyncio.create_task(in_a_task())
        return f"{await asyncio.to_thread(in_a_thread)}, {await task}"

    assert client.get("/x").text == "/x x, /x x"


def test_async_context_managers_and_iterators_work_in_views(app, client):
    from contextlib import AsyncExitStack, asynccontextmanager

    calls: list[str] = []

    @asynccontextmanager
    async def resource(name):
        calls.append(f"open {name}")
        await asyncio.sleep(0)
        try:
            yield name
        finally:
            await asyncio.sleep(0)
            calls.append(f"close {name}")

    async def numbers():
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    @app.route("/")
    async def view():
        async with AsyncExitStack() as stack:
            names = [await stack.enter_async_context(resource(name)) for name in "ab"]
            return "".join(names) + "".join([str(number) async for number in numbers()])

    assert client.get("/").text == "ab012"
    assert calls == ["open a", "open b", "close b", "close a"]


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="TaskGroup came with Python 3.11")
def test_task_groups_and_timeouts_work_in_views_that_have_not_waited_yet(app, client):
    @app.route("/group")
    async def group():
        async def path(suffix):
            await asyncio.sleep(0)
            return request.path + suffix

        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(path(suffix)) for suffix in "ab"]
        return " ".join(task.result() for task in made)

    @app.route("/fails")
    async def fails():
        async def fail():
            raise LookupError("in a task")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.sleep(60)
        except Exception as group:
            return str(group.exceptions[0])

    @app.route("/timeout")
    async def timeout():
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "in time"

    @app.route("/none")
    async def none():
        async with asyncio.timeout(60), asyncio.TaskGroup():
            return asyncio.current_task().get_name()[:5]

    for path, expected in {
        "/group": "/groupa /groupb",
        "/fails": "in a task",
        "/timeout": "in time",
        "/none": "Task-",
    }.items():
        for _ in range(2):
            assert client.get(path).text == expected


def test_classes_of_coroutines_hold_no_threads(app):
    from hipflask.views import View

    class Both(MethodView):
        async def get(self, name):
            await asyncio.sleep(0)
            return f"got {name} on {threading.current_thread().name}"

        async def post(self, name):
            return f"posted {name} on {threading.current_thread().name}"

    class Mixed(MethodView):
        async def get(self):
            return threading.current_thread().name

        def post(self):
            return threading.current_thread().name

    class Single(View):
        init_every_request = False

        async def dispatch_request(self):
            await asyncio.sleep(0)
            return threading.current_thread().name

    def shout(view):
        return lambda **values: view(**values).upper()

    class Decorated(MethodView):
        decorators = [shout]

        async def get(self):
            return "decorated"

    app.add_url_rule("/both/<name>", view_func=Both.as_view("both"))
    for view in (Mixed, Single, Decorated):
        app.add_url_rule(f"/{view.__name__.lower()}", view_func=view.as_view(view.__name__))
    client = Client(app, LiveDoor)
    try:
        assert client.get("/both/x").text == "got x on hipflask-loop"
        assert client.post("/both/x").text == "posted x on hipflask-loop"
        assert client.open("/both/x", "HEAD").status_code == 200
        assert client.get("/mixed").text == "hipflask-loop"
        assert client.post("/mixed").text != "hipflask-loop"
        assert client.get("/single").text == "hipflask-loop"
        assert client.get("/decorated").text == "DECORATED"
    finally:
        client.close()


def test_servers_that_have_ended_leave_no_descriptor(app):
    @app.get("/")
    async def hello():
        await asyncio.sleep(0)
        return "hello"

    def serve() -> int:
        client = Client(app, LiveDoor)
        try:
            assert client.get("/").text == "hello"
        finally:
            client.close()
        return len(os.listdir("/proc/self/fd"))

    # The first brings the loop.
    before = serve()
    for _ in range(8):
        serve()
    # The loop lets go of a server a moment after its end.
    deadline = time.monotonic() + PATIENCE
    while len(os.listdir("/proc/self/fd")) > before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
