"""Limits of routes and deadlines of requests, on a live server."""

from __future__ import annotations

import asyncio
import http.client
import logging
import threading
import time

import pytest

from hipflask import Blueprint, Flask, _core, request
from hipflask.limits import RouteLimits
from hipflask.views import MethodView

SOON = 0.1


class Live:
    """A server of an app, with what a test holds back in its views."""

    def __init__(self, app, **settings) -> None:
        self.server = _core.Server(app, ["127.0.0.1:0"], settings=settings)
        self.server.start()
        self.host = self.server.addresses[0]

    def ask(self, path, method="GET", body=None, headers=None):
        connection = http.client.HTTPConnection(self.host, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


@pytest.fixture
def gate():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def serve(gate):
    lives = []

    def start(app, **settings) -> Live:
        lives.append(Live(app, **settings))
        return lives[-1]

    yield start
    gate.set()
    for live in lives:
        assert live.server.stop(5)


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def in_c(gate):
    gate.wait(30)


def in_python(gate):
    while not gate.is_set():
        pass


@pytest.mark.parametrize("lane", ["fast", "full"])
@pytest.mark.parametrize("inline", [True, False, None])
@pytest.mark.parametrize("block", [in_c, in_python])
def test_a_late_sync_view_is_answered_with_504_and_its_stack_is_logged(
    serve, gate, caplog, block, inline, lane
):
    app = Flask(__name__)
    ended = []
    app.teardown_request(lambda error: ended.append(error))

    @app.route("/late", timeout=SOON, inline=inline)
    def late():
        block(gate)
        return "too late"

    if lane == "full":
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start: inner(environ, start)
    live = serve(app)
    assert live.ask("/late") == (504, "the request took longer than it may")
    until(lambda: "504" in caplog.text)
    assert f"in {block.__name__}" in caplog.text
    assert "GET /late (route /late)" in caplog.text
    assert live.server.stuck_threads[0] == 1
    assert [(route, late) for _, _, route, _, _, late in live.server.running()] == [("/late", True)]
    gate.set()
    until(lambda: live.server.stuck_threads[0] == 0)
    assert ended == [None]


def test_a_late_coroutine_is_cancelled_and_where_it_waits_is_logged(serve, caplog):
    app = Flask(__name__)
    cancelled = threading.Event()

    async def somewhere():
        await asyncio.Event().wait()

    @app.route("/late", timeout=SOON)
    async def late():
        try:
            await somewhere()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    live = serve(app)
    assert live.ask("/late")[0] == 504
    assert cancelled.wait(30)
    assert "in somewhere" in caplog.text


@pytest.mark.parametrize("hints", ["http2", "all"])
def test_a_late_coroutine_leaves_the_connection_to_the_next_request(serve, hints):
    app = Flask(__name__)
    ended = threading.Semaphore(0)

    @app.route("/late", methods=["GET", "POST"], timeout=SOON)
    async def late():
        try:
            await asyncio.Event().wait()
        finally:
            ended.release()

    @app.route("/again/<int:number>")
    async def again(number):
        await asyncio.sleep(0)
        return str(number)

    live = serve(app, early_hints=hints)
    connection = http.client.HTTPConnection(live.host, timeout=30)
    for number in range(5):
        connection.request("POST", "/late", b"a body")
        answer = connection.getresponse()
        answer.read()
        # A hint of the cancelled coroutine's could still come, where there are any.
        assert (answer.status, answer.getheader("Connection")) == (504, "close" if hints == "all" else None)
        # It is cancelled, and what it leaves means nobody else.
        connection.request("GET", f"/again/{number}")
        assert connection.getresponse().read() == str(number).encode()
        assert ended.acquire(timeout=30)
    connection.close()


def test_clients_that_leave_after_a_late_coroutine_are_forgotten(serve):
    app = Flask(__name__)
    begun, ended = threading.Semaphore(0), threading.Semaphore(0)

    @app.route("/late", timeout=SOON)
    async def late():
        await asyncio.Event().wait()

    @app.route("/waits")
    async def waits():
        try:
            begun.release()
            await asyncio.Event().wait()
        finally:
            ended.release()

    live = serve(app)
    connection = http.client.HTTPConnection(live.host, timeout=30)
    connection.request("GET", "/late")
    assert connection.getresponse().read()
    connection.request("GET", "/waits")
    assert begun.acquire(timeout=30)
    connection.close()
    # The end of the connection is the end of the request that it has now.
    assert ended.acquire(timeout=30)


def test_a_request_that_waits_too_long_for_a_thread_is_never_run(serve, gate):
    app = Flask(__name__)
    ran, begun = [], threading.Event()

    @app.route("/holds", inline=False, timeout=0)
    def holds():
        begun.set()
        gate.wait(30)
        return ""

    @app.route("/waits", inline=False)
    def waits():
        ran.append(1)
        return ""

    live = serve(app, threads=1, request_timeout=SOON)
    holder = threading.Thread(target=live.ask, args=("/holds",))
    holder.start()
    assert begun.wait(30)
    assert live.ask("/waits")[0] == 503
    gate.set()
    holder.join()
    assert not ran


def test_a_health_check_is_answered_while_all_threads_are_stuck(serve, gate):
    app = Flask(__name__)

    @app.route("/holds", inline=False)
    def holds():
        gate.wait(30)
        return ""

    app.add_url_rule("/health", view_func=lambda: "well", endpoint="health", inline=True)
    live = serve(app, threads=2, queue=1)
    threads = [threading.Thread(target=live.ask, args=("/holds",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(live.server.running()) == 2)
    for _ in range(3):
        assert live.ask("/health") == (200, "well")
        assert live.ask("/missing")[0] == 404
    gate.set()
    for thread in threads:
        thread.join()


class Search(MethodView):
    max_body = "10 B"

    def post(self):
        return request.get_data()


@pytest.mark.parametrize("path", ["/text", "/number", "/blueprint", "/class"])
def test_a_route_s_longest_body_comes_before_the_server_s(serve, path):
    app = Flask(__name__)
    echo = lambda: request.get_data()  # noqa: E731
    app.add_url_rule("/text", "text", echo, methods=["POST"], max_body="10 B")
    app.add_url_rule("/number", "number", echo, methods=["POST"], max_body=10)
    blueprint = Blueprint("bp", __name__)
    blueprint.route("/blueprint", methods=["POST"], max_body=10)(lambda: request.get_data())
    app.register_blueprint(blueprint)
    app.add_url_rule("/class", view_func=Search.as_view("search"))
    live = serve(app, max_body=5)
    assert live.ask(path, "POST", "x" * 10) == (200, "x" * 10)
    assert live.ask(path, "POST", "x" * 11)[0] == 413


def test_a_body_beyond_the_app_s_limit_is_not_asked_for(serve):
    import socket

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 10
    app.register_error_handler(413, lambda error: ("too much", 413))
    app.add_url_rule("/", "echo", lambda: request.get_data(), methods=["POST"])
    live = serve(app)
    host, port = live.host.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        answer = raw.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 413 "), answer


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"max_body": -1}, ValueError),
        ({"max_body": "much"}, ValueError),
        ({"max_body": 1.5}, TypeError),
        ({"inline": 1}, TypeError),
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused_at_once(options, error):
    with pytest.raises(error):
        Flask(__name__).add_url_rule("/", "x", lambda: "", **options)


def test_limits_are_shown_and_are_no_options_of_the_rule():
    app = Flask(__name__)
    app.add_url_rule("/", "x", lambda: "", timeout=2, max_body="1 KiB")
    rule = next(rule for rule in app.url_map.iter_rules() if rule.endpoint == "x")
    assert repr(rule.limits) == repr(RouteLimits(2.0, 1024)) == "RouteLimits(timeout=2.0, max_body=1024)"


def test_a_flood_of_bad_requests_is_logged_as_a_few_and_a_number(serve, caplog):
    import socket

    caplog.set_level(logging.WARNING)
    app = Flask(__name__)
    live = serve(app)
    host, port = live.host.rsplit(":", 1)
    for _ in range(50):
        with socket.create_connection((host, int(port)), 30) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 400 ")
    live.server.stop(5)
    lines = [record.getMessage() for record in caplog.records]
    told = [line for line in lines if "refused with 400" in line]
    more = [int(line.split()[1]) for line in lines if line.startswith("and ")]
    assert len(told) + sum(more) == 50
    assert more
    assert len(told) < 50
