"""What probes are told of servers that are not well: engines that stand still, stuck threads, full queues."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading

import pytest
from processes import PATIENCE, Command, eventually

APP = """
import os
import time
from hipflask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello"


@app.route("/late", timeout=0.05)
def late():
    while not os.path.exists("over"):
        time.sleep(0.01)
    return "late"


@app.get("/waits")
def waits():
    while not os.path.exists("over"):
        time.sleep(0.01)
    return "waited"
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    commands = []

    def start(*args):
        command = Command(
            tmp_path, "--port", "0", "--metrics-bind", "127.0.0.1:0", "--health-timeout", "1s", *args
        )
        commands.append(command)
        return command, command.port(), int(command.until(r"Metrics on http://\S*:(\d+)")[1])

    yield start
    for command in commands:
        for pid in command.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        command.close()


def ask(port: int, path: str) -> tuple[int, str]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_a_server_is_not_alive_while_none_of_its_engines_turns(start):
    command, _, probes = start("--workers", "2", "--worker-timeout", "600")
    assert ask(probes, "/healthz") == (200, "ok\n")
    one, two = command.workers()
    os.kill(one, signal.SIGSTOP)
    told = f"process {one} has not turned for"
    eventually(lambda: told in ask(probes, "/healthz")[1], "the one that stands still is named")
    assert ask(probes, "/healthz")[0] == ask(probes, "/readyz")[0] == 200
    os.kill(two, signal.SIGSTOP)
    eventually(lambda: ask(probes, "/healthz")[0] == 503, "none turns")
    status, why = ask(probes, "/readyz")
    assert status == 503
    assert why.startswith("not ready\n")
    assert f"process {two} has not turned for" in why
    for pid in (one, two):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: ask(probes, "/healthz") == (200, "ok\n"), "both turn")
    assert ask(probes, "/readyz") == (200, "ready\n")


def test_a_worker_whose_engine_does_not_turn_is_replaced(start):
    # Its Python would answer: only the engine is asked here.
    command, _, _ = start("--workers", "1", "--worker-timeout", "1s")
    (pid,) = command.workers()
    os.kill(pid, signal.SIGSTOP)
    command.until(f"worker {pid} gives no sign of life")
    command.until(f"worker {pid} was ended")


def test_a_process_with_too_many_stuck_threads_is_not_ready(start, tmp_path):
    command, app, probes = start("--stuck-threads", "1")
    assert ask(app, "/late")[0] == 504
    assert ask(probes, "/readyz") == (200, "ready\n")
    assert ask(app, "/late")[0] == 504
    eventually(lambda: ask(probes, "/readyz")[0] == 503, "two are more than one")
    assert f"process {command.process.pid} has 2 threads that are stuck" in ask(probes, "/readyz")[1]
    # It lives, and what needs no thread is served.
    assert ask(probes, "/healthz") == (200, "ok\n")
    (tmp_path / "over").touch()
    eventually(lambda: ask(probes, "/readyz")[0] == 200, "they are back")


def test_a_process_whose_queue_stays_full_is_not_ready(start, tmp_path):
    _, app, probes = start("--threads", "1", "--queue", "1")
    clients = [threading.Thread(target=ask, args=(app, "/waits")) for _ in range(3)]
    for client in clients:
        client.start()
    eventually(lambda: "has had a full queue for" in ask(probes, "/readyz")[1], "it is full for long")
    assert ask(probes, "/readyz")[0] == 503
    assert ask(probes, "/healthz") == (200, "ok\n")
    (tmp_path / "over").touch()
    for client in clients:
        client.join(PATIENCE)
    eventually(lambda: ask(probes, "/readyz")[0] == 200, "there is room")
