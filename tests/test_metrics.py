"""Metrics, probes and the control socket of the live server: what they say, whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import threading

import pytest
from processes import APP as COUNTING_APP
from processes import PATIENCE, Command, Load, eventually, get, lives
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

APP = """
import os
import time
from hipflask import Flask, Response

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello"


@app.get("/users/<int:user>")
def user(user):
    return str(user)


@app.get("/fails")
def fails():
    raise RuntimeError("on purpose")


@app.get("/until/<name>")
def until(name):
    while not os.path.exists(name):
        time.sleep(0.01)
    return name


@app.get("/wait/<name>")
async def wait(name):
    import asyncio

    while not os.path.exists(name):
        await asyncio.sleep(0.01)
    return name


@app.get("/burn/<name>")
def burn(name):
    while not os.path.exists(name):
        sum(range(10000))
    return name


@app.post("/echo")
def echo():
    from hipflask import request
    return request.get_data()
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    commands = []

    def start(*args):
        commands.append(Command(tmp_path, "--port", "0", *args))
        return commands[-1]

    yield start
    for command in commands:
        command.close()


def ports(command) -> tuple[int, int]:
    """The ports of the application and of the metrics."""
    return command.port(), int(command.until(r"Metrics on http://\S*:(\d+)")[1])


def ask(where: int | str, path: str, method: str = "GET", body: bytes | None = None, **fields: str):
    """Status, type and body of an answer."""
    if isinstance(where, int):
        connection = http.client.HTTPConnection("127.0.0.1", where, timeout=PATIENCE)
    else:
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        if isinstance(where, str):
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(where)
        connection.request(method, path, body, headers=fields)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()


def samples(where: int | str, path: str = "/metrics") -> dict[tuple[str, frozenset], float]:
    """All metrics by name and labels, as the official parser reads them."""
    status, kind, text = ask(where, path)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {}
    for family in read_prometheus(text):
        assert family.documentation, family
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def value(where: int | str, name: str, **labels: str) -> float:
    """One metric; 0 if it is not there."""
    return samples(where).get((name, frozenset(labels.items())), 0)


BOTH = pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])


# What is counted.


@BOTH
def test_requests_are_counted_once_whoever_answers_them(start, workers):
    app, metrics = ports(start("--metrics-bind", "127.0.0.1:0", *workers))
    for number in range(20):
        assert ask(app, f"/users/{number}")[0] == 200
    for _ in range(3):
        assert ask(app, "/nowhere")[0] == 404
    assert ask(app, "/fails")[0] == 500
    assert ask(app, "/echo", "POST", b"x" * 100_000)[2] == "x" * 100_000

    def answered(status):
        return value(metrics, "hipflask_responses_total", status=status)

    # A response is out before it is counted.
    eventually(lambda: answered("2xx") + answered("4xx") + answered("5xx") == 25, "all are counted")
    assert (answered("2xx"), answered("4xx"), answered("5xx")) == (21, 3, 1)
    found = samples(metrics)
    none: frozenset = frozenset()
    name, labels = "hipflask_request_duration_seconds", {"route": "/users/<int:user>", "method": "GET"}
    assert found[f"{name}_count", frozenset({**labels, "status": "2xx"}.items())] == 20
    assert found[f"{name}_bucket", frozenset({**labels, "status": "2xx", "le": "+Inf"}.items())] == 20
    for part in ("queue", "gil", "view", "write"):
        assert found["hipflask_request_part_seconds_count", frozenset({("part", part)})] >= 22
    assert found["hipflask_requests_total", none] == 25
    assert found["hipflask_connections_accepted_total", none] == 25
    assert found["hipflask_received_bytes_total", none] > 100_000
    assert found["hipflask_sent_bytes_total", none] > 100_000
    assert found["hipflask_requests_in_flight", none] == 0
    assert found["hipflask_ready", none] == 1
    assert found["hipflask_workers", none] == (2 if workers else 1)
    assert found["hipflask_threads_limit", none] == (64 if workers else 32)
    assert found["hipflask_memory_bytes", none] > 1_000_000
    assert found["process_start_time_seconds", none] > 1_600_000_000
    assert any(name == "hipflask_build_info" for name, _ in found)


def test_openmetrics_is_told_to_those_who_ask_for_it(start):
    app, metrics = ports(start("--metrics-bind", "127.0.0.1:0"))
    get(app, "/")
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    status, kind, text = ask(metrics, "/metrics", Accept=accept)
    assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = {family.name: family for family in read_openmetrics(text)}
    assert families["hipflask_requests"].type == "counter"
    assert families["hipflask_build"].type == "info"
    assert families["hipflask_request_duration_seconds"].type == "histogram"
    assert families["hipflask_connections"].type == "gauge"


def test_paths_that_clients_make_up_make_no_series(start):
    app, metrics = ports(start("--metrics-bind", "127.0.0.1:0"))
    for number in range(50):
        ask(app, f"/made-up/{number}")
        ask(app, f"/users/{number}")
    ask(app, "/", "BREW")
    eventually(lambda: value(metrics, "hipflask_responses_total", status="2xx") == 50, "all are counted")
    found = {labels for name, labels in samples(metrics) if name == "hipflask_request_duration_seconds_count"}
    assert {tuple(sorted(labels)) for labels in found} == {
        (("method", "GET"), ("route", "(none)"), ("status", "4xx")),
        (("method", "GET"), ("route", "/users/<int:user>"), ("status", "2xx")),
        (("method", "OTHER"), ("route", "(none)"), ("status", "4xx")),
    }


def test_routes_are_known_in_the_full_lane(start, tmp_path):
    wrapped = (
        "from hipflask.werkzeug.middleware.proxy_fix import ProxyFix\napp.wsgi_app = ProxyFix(app.wsgi_app)\n"
    )
    (tmp_path / "hello.py").write_text(APP + wrapped)
    app, metrics = ports(start("--metrics-bind", "127.0.0.1:0"))
    assert ask(app, "/users/7")[2] == "7"
    assert ask(app, "/nowhere")[0] == 404
    eventually(lambda: value(metrics, "hipflask_responses_total", status="4xx") == 1, "both are counted")
    found = samples(metrics)
    routes = {
        dict(labels)["route"] for name, labels in found if name == "hipflask_request_duration_seconds_count"
    }
    assert routes == {"/users/<int:user>", "(none)"}


def test_refusals_are_counted_by_kind(start):
    app, metrics = ports(start("--metrics-bind", "127.0.0.1:0", "--max-body", "10"))
    assert ask(app, "/echo", "POST", b"x" * 11)[0] == 413
    with socket.create_connection(("127.0.0.1", app)) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    refusals = {
        labels: count
        for (name, labels), count in samples(metrics).items()
        if name == "hipflask_refusals_total"
    }
    assert {tuple(sorted(labels)): count for labels, count in refusals.items()} == {
        (("kind", "long_body"), ("status", "4xx")): 1,
        (("kind", "bad_request_line"), ("status", "4xx")): 1,
    }


def test_counts_of_a_worker_that_is_killed_stay(start, tmp_path):
    (tmp_path / "hello.py").write_text(COUNTING_APP)
    command = start("--workers", "2", "--metrics-bind", "127.0.0.1:0")
    app, metrics = ports(command)
    load = Load(app)
    load.wait_for(100)
    last = value(metrics, "hipflask_requests_total")
    assert last >= 100
    victims = command.workers()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
        command.until(f"worker {victim} was ended")
        now = value(metrics, "hipflask_requests_total")
        assert now >= last
        last = now
        load.wait_for(50)
    load.stop()
    eventually(lambda: value(metrics, "hipflask_workers") == 2, "both are replaced")
    assert value(metrics, "hipflask_worker_restarts_total") == 2
    # What the dead ones had open is open no more.
    eventually(lambda: value(metrics, "hipflask_connections") == 0, "no connection is left")
    assert value(metrics, "hipflask_requests_in_flight") == 0
    assert value(metrics, "hipflask_requests_total") >= len(load.answers)


# Probes.


@BOTH
def test_probes_are_answered_while_all_threads_are_busy_and_one_burns(start, tmp_path, workers):
    app, metrics = ports(start("--threads", "2", "--queue", "3", "--metrics-bind", "127.0.0.1:0", *workers))
    clients = [
        threading.Thread(target=ask, args=(app, path))
        for path in ("/burn/over", "/until/over", *["/burn/over"] * 12)
    ]
    for client in clients:
        client.start()
    try:
        eventually(
            lambda: value(metrics, "hipflask_threads_busy") >= value(metrics, "hipflask_threads_limit"),
            "all threads are busy",
        )
        for _ in range(20):
            assert ask(metrics, "/healthz")[::2] == (200, "ok\n")
            assert ask(metrics, "/readyz")[::2] == (200, "ready\n")
    finally:
        (tmp_path / "over").touch()
        for client in clients:
            client.join(PATIENCE)
    eventually(lambda: value(metrics, "hipflask_threads_busy") == 0, "no thread is busy")


@BOTH
def test_a_server_that_stops_is_not_ready_from_the_beginning(start, tmp_path, workers):
    command = start("--metrics-bind", "127.0.0.1:0", *workers)
    app, metrics = ports(command)
    client = threading.Thread(target=ask, args=(app, "/until/over"))
    client.start()
    eventually(lambda: value(metrics, "hipflask_requests_in_flight") == 1, "the view runs")
    command.signal(signal.SIGTERM)
    eventually(lambda: ask(metrics, "/readyz")[0] == 503, "it is not ready any more")
    assert ask(metrics, "/healthz")[0] == 200
    assert value(metrics, "hipflask_ready") == 0
    (tmp_path / "over").touch()
    client.join(PATIENCE)
    assert command.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(metrics, "/healthz")


@BOTH
def test_a_server_is_not_ready_while_it_loads(start, tmp_path, workers):
    wait = "import os, time\nwhile not os.path.exists('loads'): time.sleep(0.01)\n"
    (tmp_path / "hello.py").write_text(wait + APP)
    command = start("--metrics-bind", "unix:metrics", *workers)
    where = str(tmp_path / "metrics")

    def ready():
        try:
            return ask(where, "/readyz")[0]
        except OSError:
            return None

    eventually(lambda: ready() == 503, "it tells that it is not ready")
    assert ask(where, "/healthz")[0] == 200
    (tmp_path / "loads").touch()
    command.port()
    assert ready() == 200
    assert command.stop() == 0
    assert not (tmp_path / "metrics").exists()


# Where it is told.


@pytest.mark.parametrize("path", ["/", "/users/5", "/echo"])
def test_the_users_own_route_is_never_hidden(start, path):
    command = start("--metrics-path", path)
    command.until("is not used, since the application has a route for it")
    app = command.port()
    status, _, body = ask(app, path)
    assert (status, "hipflask_requests" in body) == (405 if path == "/echo" else 200, False)


@BOTH
def test_metrics_are_told_at_a_path_of_the_application(start, workers):
    command = start("--metrics-path", "/metrics", *workers)
    app = command.port()
    for _ in range(10):
        get(app, "/")
    eventually(lambda: value(app, "hipflask_responses_total", status="2xx") >= 10, "all are counted")
    assert "Metrics on" not in command.text
    assert ask(app, "/healthz")[0] == 404
    assert ask(app, "/metrics", "POST")[0] == 404


def test_no_path_is_taken_from_an_application_that_does_not_say_which_are_its_own(start, tmp_path):
    (tmp_path / "hello.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n    return [b'my']\n"
    )
    command = start("--metrics-path", "/metrics")
    command.until("only a Flask application says which paths are its own")
    assert get(command.port(), "/metrics") == "my"


def test_the_metrics_address_has_nothing_else(start):
    _, metrics = ports(start("--metrics-bind", "127.0.0.1:0"))
    assert ask(metrics, "/")[0] == 404
    assert ask(metrics, "/users/1")[0] == 404
    assert ask(metrics, "/metrics", "POST")[0] == 405


@BOTH
def test_coroutine_views_that_wait_are_shown(start, tmp_path, workers):
    command = start("--control", "control", *workers)
    app, where = command.port(), tmp_path / "control"
    clients = [threading.Thread(target=ask, args=(app, "/wait/over?secret")) for _ in range(3)]
    for client in clients:
        client.start()

    def running():
        return [
            run
            for worker in json.loads(ask(str(where), "/status")[2])["workers"]
            for run in worker["running"]
        ]

    eventually(lambda: len(running()) == 3, "all wait")
    assert {(run["thread"], run["view"]) for run in running()} == {(None, "GET /wait/over")}
    (tmp_path / "over").touch()
    for client in clients:
        client.join(PATIENCE)
    eventually(lambda: not running(), "all have ended")
    assert command.stop() == 0


@BOTH
def test_the_control_socket_is_for_its_owner_alone(start, tmp_path, workers):
    command = start("--control", "control", *workers)
    app, where = command.port(), tmp_path / "control"
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    client = threading.Thread(target=ask, args=(app, "/until/over"))
    client.start()

    def status():
        code, kind, text = ask(str(where), "/status")
        assert (code, kind) == (200, "application/json")
        return json.loads(text)

    eventually(lambda: any(worker["running"] for worker in status()["workers"]), "the view runs")
    found = status()
    assert found["ready"] is True
    assert sorted(worker["pid"] for worker in found["workers"]) == sorted(
        command.workers() or [command.process.pid]
    )
    [running] = [run for worker in found["workers"] for run in worker["running"]]
    assert running["view"] == "GET /until/over"
    assert running["seconds"] > 0
    (tmp_path / "over").touch()
    client.join(PATIENCE)
    eventually(lambda: not any(worker["running"] for worker in status()["workers"]), "it has ended")
    eventually(lambda: any(worker["slow"] for worker in status()["workers"]), "it is among the slow ones")
    [slow] = [slow for worker in status()["workers"] for slow in worker["slow"]]
    assert slow["request"].startswith("GET /until/over")
    assert slow["total"] > 0
    assert command.stop() == 0
    assert not where.exists()


# Reload and succession.


def test_sighup_changes_where_metrics_are_told(start, tmp_path):
    (tmp_path / "hipflask.toml").write_text('workers = 1\nmetrics_bind = "unix:one"\n')
    command = start()
    app = command.port()
    for _ in range(5):
        get(app, "/")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    eventually(lambda: value(one, "hipflask_responses_total", status="2xx") == 5, "all are counted")
    (tmp_path / "hipflask.toml").write_text('workers = 1\nmetrics_bind = "unix:two"\n')
    command.signal(signal.SIGHUP)
    command.until("all workers are replaced")
    get(app, "/")
    eventually(lambda: value(two, "hipflask_responses_total", status="2xx") == 6, "it goes on counting")
    assert not os.path.exists(one)
    assert command.stop() == 0


def test_sighup_keeps_where_metrics_are_told(start, tmp_path):
    control = str(tmp_path / "control")
    command = start("--workers", "2", "--metrics-bind", "127.0.0.1:0", "--control", control)
    app, metrics = ports(command)
    for number in range(3):
        before = set(command.workers())
        command.signal(signal.SIGHUP)
        command.until("all workers are replaced")
        eventually(lambda before=before: not before & set(command.workers()), "all are others")
        get(app, "/")
        for path in ("/healthz", "/readyz"):
            assert ask(metrics, path)[0] == 200
        assert value(metrics, "hipflask_worker_restarts_total") == 2 * (number + 1)
        assert json.loads(ask(control, "/status")[2])["ready"]
    assert command.stop() == 0


def test_a_successor_has_the_same_address(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        metrics = probe.getsockname()[1]
    command = start("--workers", "1", "--metrics-bind", f"127.0.0.1:{metrics}")
    app = command.port()
    get(app, "/")
    before = value(metrics, "process_start_time_seconds")
    command.signal(signal.SIGUSR2)
    new = int(command.until(r"process (\d+) has taken over")[1])
    try:
        assert command.process.wait(PATIENCE) == 0
        assert value(metrics, "process_start_time_seconds") > before
        assert ask(metrics, "/readyz")[0] == 200
    finally:
        os.kill(new, signal.SIGTERM)
    eventually(lambda: not lives(new), "the new program does not end")
