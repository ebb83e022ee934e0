"""`hipflask top`: what it makes of two looks at a server, and how it behaves in a terminal."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from processes import PATIENCE, Command, eventually, get

from hipflask.top import ORDERS, quantile, read_status, render, routes_between

BOUNDS = [0.001, 0.01, 0.1]


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([100, 0, 0, 0], 0.5, 0.0005),
        ([100, 0, 0, 0], 1.0, 0.001),
        ([50, 50, 0, 0], 0.5, 0.001),
        ([50, 50, 0, 0], 0.75, 0.0055),
        ([99, 0, 1, 0], 0.99, 0.001),
        ([99, 0, 1, 0], 1.0, 0.1),
        ([0, 0, 0, 7], 0.5, 0.1),
    ],
)
def test_quantiles_are_estimated_within_buckets(buckets, share, expected):
    assert quantile(BOUNDS, buckets, share) == (expected if expected is None else pytest.approx(expected))


def route(name, buckets, method="GET", status="2xx"):
    seconds = sum(buckets) * 0.005
    return {
        "route": name,
        "method": method,
        "status": status,
        "count": sum(buckets),
        "seconds": seconds,
        "buckets": buckets,
    }


def worker(pid=7, **more):
    numbers = dict.fromkeys(
        [
            "connections",
            "http2_streams",
            "in_flight",
            "queue",
            "queue_limit",
            "threads",
            "busy",
            "threads_limit",
            "event_streams",
            "websockets",
        ],
        1,
    )
    base = {"pid": pid, "state": "ready", "started": 1000, "memory": 50 << 20, "running": [], "slow": []}
    return {**base, **numbers, **more}


def status(uptime=10.0, routes=(), workers=(), started=1000.0, **more):
    names = (
        "accepted tls_handshakes tls_failures http2_connections"
        " requests received sent accept_pauses retakes streams_begun"
    )
    return {
        "version": "1",
        "started": started,
        "uptime": uptime,
        "ready": True,
        "restarts": 0,
        "bounds": BOUNDS,
        "counters": dict.fromkeys(names.split(), sum(each["count"] for each in routes)),
        "workers": list(workers),
        "refusals": [],
        "routes": list(routes),
        "parts": {"view": {"count": 0, "seconds": 0, "buckets": [0, 0, 0, 0]}},
        **more,
    }


def test_rates_are_of_the_time_between_two_looks():
    before = status(10, [route("/a", [5, 0, 0, 0])])
    after = status(12, [route("/a", [5, 10, 0, 0]), route("/a", [0, 10, 0, 0], status="5xx")])
    [found] = routes_between(before, after)
    assert (found.name, found.requests, found.errors, found.total) == ("GET /a", 20, 10, 25)
    assert found.buckets == [0, 20, 0, 0]
    lines = render(before, after)
    [line] = [line for line in lines if line.endswith("GET /a")]
    assert line.split()[:8] == ["10", "5.5", "ms", "9.9", "ms", "5.0", "ms", "50.0"]
    assert "requests  10/s   2xx 5/s   3xx 0/s   4xx 0/s   5xx 5/s" in lines[1]


def test_stuck_threads_are_told_if_there_are_any():
    for stuck, told in ((0, "threads   2 of 2 busy   queue"), (3, "threads   2 of 2 busy, 4 stuck   queue")):
        workers = [worker(stuck=stuck), worker(stuck=min(stuck, 1))]
        assert render(status(10, workers=workers), status(12, workers=workers))[2].startswith(told)


def test_a_server_that_was_started_anew_counts_from_nothing():
    before = status(1000, [route("/a", [500, 0, 0, 0])])
    after = status(2, [route("/a", [4, 0, 0, 0])], started=2000.0)
    assert "requests  2/s" in render(before, after)[1]


@pytest.mark.parametrize(
    ("order", "first"), [("rate", "/often"), ("p99", "/slow"), ("errors", "/fails"), ("total", "/old")]
)
def test_routes_are_sorted(order, first):
    before = status(10, [route("/old", [900, 0, 0, 0])])
    after = status(
        11,
        [
            route("/old", [901, 0, 0, 0]),
            route("/often", [50, 0, 0, 0]),
            route("/slow", [0, 0, 2, 0]),
            route("/fails", [3, 0, 0, 0], status="5xx"),
        ],
    )
    lines = render(before, after, order=order)
    heading = next(at for at, line in enumerate(lines) if line.endswith("ROUTE"))
    assert lines[heading + 1].endswith(f"GET {first}")
    assert order in ORDERS


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 12), (10, 5), (1, 1)])
def test_what_is_shown_fits_the_terminal(width, height):
    slow = {
        "request": "GET /slow",
        "status": 200,
        "at": 1,
        "total": 2,
        "queue": 0,
        "gil": 0,
        "view": 2,
        "write": 0,
    }
    runs = [{"thread": at or None, "view": f"GET /{at}", "seconds": at} for at in range(30)]
    after = status(
        11,
        [route(f"/{at}", [at, 0, 0, 0]) for at in range(50)],
        [worker(pid, running=runs, slow=[slow] * 16) for pid in range(8)],
    )
    lines = render(status(10), after, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    if height == 40:
        headings = "\n".join(lines)
        assert all(word in headings for word in ("ROUTE", "VIEW", "REQUEST", "WORKER"))


def test_nothing_that_a_client_sends_moves_the_cursor():
    after = status(11, workers=[worker(running=[{"thread": 1, "view": "GET /\x1b[2J\r\n", "seconds": 1}])])
    assert all(line.isprintable() for line in render(status(10), after))


# With a server.

APP = """
import os
import time
from hipflask import Flask

app = Flask(__name__)


@app.get("/users/<int:user>")
def user(user):
    return str(user)


@app.get("/until/<name>")
def until(name):
    while not os.path.exists(name):
        time.sleep(0.01)
    return name
"""


@pytest.fixture
def control(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    command = Command(tmp_path, "--port", "0", "--control", "control", "--workers", "2")
    port = command.port()
    for user in range(20):
        get(port, f"/users/{user}")
    path = str(tmp_path / "control")
    eventually(lambda: sum(each["count"] for each in read_status(path)["routes"]) == 20, "all are counted")
    yield path
    command.close()


def top(*args, **more):
    return subprocess.run(
        [sys.executable, "-m", "hipflask", "top", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **more,
    )


def test_once_prints_and_exits(control):
    done = top(control, "--once", "--interval", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 workers, 0 restarts" in done.stdout
    assert re.search(r" 20  GET /users/<int:user>$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout
    told = json.loads(top(control, "--json").stdout)
    assert told["counters"]["requests"] == 20


def test_the_setting_says_where_the_socket_is(control, tmp_path):
    (tmp_path / "hipflask.toml").write_text('control = "control"\n')
    assert "GET /users" in top("--once", "--interval", "0.1", cwd=tmp_path).stdout


def test_a_mistake_is_a_sentence(tmp_path):
    done = top(str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr == f"Error: No server answers at {tmp_path}/nowhere: No such file or directory.\n"
    assert "--control" in top(cwd=tmp_path).stderr


class Terminal:
    """A terminal in which `hipflask top` runs."""

    def __init__(self, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hipflask", "top", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")},
        )
        self.slave = slave
        self.text = ""
        self.decode = codecs.getincrementaldecoder("utf-8")().decode

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def until(self, pattern: str) -> str:
        """Wait until a whole screen shows something; returns that screen."""
        deadline = time.monotonic() + PATIENCE
        while True:
            screens = self.text.split("\x1b[H")
            for at, screen in enumerate(screens[1:], 1):
                if "\x1b[J" in screen and re.search(pattern, screen):
                    self.text = "\x1b[H".join(["", *screens[at + 1 :]])
                    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.partition("\x1b[J")[0])
            assert time.monotonic() < deadline, self.text
            self.read()

    def read(self) -> None:
        if select.select([self.master], [], [], 0.5)[0]:
            with contextlib.suppress(OSError):
                self.text += self.decode(os.read(self.master, 1 << 16))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(control):
    terminal = Terminal(control, "--interval", "0.2")
    yield terminal
    terminal.close()


def test_in_a_terminal_it_draws_until_q(terminal):
    screen = terminal.until("GET /users/<int:user>")
    lines = screen.split("\r\n")
    assert len(lines) == 30
    assert all(len(line) <= 100 for line in lines)
    assert "sorted by rate" in lines[-1]
    terminal.press("s")
    terminal.until("sorted by p99")
    terminal.resize(60, 12)
    small = terminal.until(r"\A(?:[^\n]*\n){11}[^\n]*\Z").split("\r\n")
    assert max(len(line) for line in small) <= 60
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0
    terminal.read()
    # The screen, the cursor and the keyboard are as they were.
    assert terminal.text.endswith("\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_it_says_when_the_server_has_gone(control, tmp_path):
    terminal = Terminal(control, "--interval", "0.2")
    try:
        terminal.until("GET /users")
        os.rename(control, tmp_path / "moved")
        terminal.until("No server answers at")
        os.rename(tmp_path / "moved", control)
        terminal.until("sorted by rate")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()
