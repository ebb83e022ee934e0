"""The live server as a developer meets it: what it prints, how it stops, what it says of mistakes."""

from __future__ import annotations

import contextlib
import http.client
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

HIPFLASK = [sys.executable, "-m", "hipflask"]

APP = """
import threading
from hipflask import Flask

app = Flask(__name__)
came = threading.Event()

@app.get("/")
def index():
    print("seen by the developer")
    return "Hello"

@app.get("/stop")
def stop():
    value = 41
    breakpoint()
    return str(value)

@app.get("/forever")
def forever():
    print("stuck")
    came.wait()
"""


class Terminal:
    """A `hipflask` command in a terminal of its own, or a program."""

    def __init__(self, folder, *args, program=HIPFLASK) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execv(program[0], [*program, *args])
        self.text = ""
        self.status = None

    def read_until(self, pattern: str) -> re.Match:
        """Read on until the pattern comes; what was read before it is forgotten."""
        deadline = time.monotonic() + 30
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < deadline, self.text
            assert self._read(1), self.text
        self.text = self.text[found.end() :]
        return found

    def _read(self, seconds: float) -> bool:
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            # How a terminal tells that nobody is at its other end.
            return False
        self.text += data.decode()
        return bool(data)

    def type(self, text: str) -> None:
        """Type, as on a keyboard."""
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        """Read the rest; returns the exit status."""
        deadline = time.monotonic() + 30
        while self._read(0.1):
            assert time.monotonic() < deadline, self.text
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def close(self) -> None:
        """End what still runs."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("FLASK_", "HIPFLASK_", "WERKZEUG_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "hello.py").write_text(APP)
    return tmp_path


MODES = {"plain": [], "debug": ["--debug"], "debug without reloader": ["--debug", "--no-reload"]}


@pytest.fixture(params=list(MODES))
def terminal(request, folder):
    terminal = Terminal(folder, "run", "--app", "hello", "--port", "0", *MODES[request.param])
    terminal.mode = request.param
    terminal.port = int(terminal.read_until(r"Running on http://127\.0\.0\.1:(\d+) .*CTRL\+C")[1])
    yield terminal
    terminal.close()


def connect(port: int, path: str) -> http.client.HTTPConnection:
    """Send a request, and leave the connection open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    return connection


def test_the_developers_print_is_seen(terminal):
    connection = connect(terminal.port, "/")
    assert connection.getresponse().read() == b"Hello"
    connection.close()
    terminal.read_until("seen by the developer")


def test_breakpoint_in_a_view_has_the_terminal(terminal):
    connection = connect(terminal.port, "/stop")
    terminal.read_until(r"\(Pdb\) ")
    terminal.type("value + 1\n")
    terminal.read_until("42")
    terminal.type("value = 7\n")
    terminal.read_until(r"\(Pdb\) ")
    terminal.type("c\n")
    assert connection.getresponse().read() == b"7"
    connection.close()


def test_control_c_ends_an_idle_server_with_open_connections(terminal):
    connection = connect(terminal.port, "/")
    connection.getresponse().read()
    terminal.type("\x03")
    assert terminal.wait() == 0
    connection.close()
    assert "Traceback" not in terminal.text


def test_control_c_twice_cuts_off_a_stuck_view(terminal):
    connection = connect(terminal.port, "/forever")
    terminal.read_until("stuck")
    terminal.type("\x03")
    if "reloader" in terminal.mode or terminal.mode == "plain":
        terminal.read_until("Requests still run: waiting for them")
        terminal.type("\x03")
    assert terminal.wait() == 0
    connection.close()
    assert "cut off" in terminal.text
    assert "Traceback" not in terminal.text


def test_answers_and_refusals_are_logged_in_debug_mode(folder):
    terminal = Terminal(folder, "run", "--app", "hello", "--port", "0", "--debug")
    try:
        port = int(terminal.read_until(r"http://127\.0\.0\.1:(\d+)")[1])
        for path in ("/?a=1", "/missing"):
            connection = connect(port, path)
            connection.getresponse().read()
            connection.close()
        terminal.read_until(r"\[\d\d:\d\d:\d\d\] 127\.0\.0\.1 GET /\?a=1 \S*200\S* \d+\.\d ms")
        terminal.read_until(r"GET /missing \S*404\S* \d+\.\d ms")
        with socket.create_connection(("127.0.0.1", port), 30) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
        terminal.read_until(r"refused with 400: [a-zA-Z ]+ \(bad_host\)")
    finally:
        terminal.close()


def run(folder, *args) -> subprocess.CompletedProcess:
    """Run a command that is to fail."""
    return subprocess.run([*HIPFLASK, *args], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (["--metrics-bind", "127.0.0.1:{port}"], "in use by another program"),
        (["--control", "no/such/socket"], "There is no directory for unix:no/such/socket"),
    ],
)
def test_the_option_is_named_that_chooses_another_place(folder, place, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [word.format(port=taken.getsockname()[1]) for word in place]
        done = run(folder, "run", "--app", "hello", "--port", "0", *given)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.endswith(f" with {place[0]}.\n")


def test_settings_are_shown_where_there_is_no_application(folder):
    done = run(folder, "config", "nothing", "--threads", "7")
    assert done.returncode == 2
    assert re.search(r"(?m)^threads +7 +command line$", done.stdout)
    assert "Could not import 'nothing'" in done.stderr


@pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))
def test_a_port_in_use_is_told_in_one_sentence(folder, mode):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(folder, "run", "--app", "hello", "--port", str(port), *mode)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: 127.0.0.1 port {port} is in use by another program: stop that program, or choose another"
        " port with --port.\n"
    )


MISTAKES = [
    (["--app", "hello", "--host", "192.0.2.1"], "is not an address of this machine"),
    (["--app", "hello", "--host", "unix:missing/socket"], "There is no directory for unix:missing/socket"),
    (["--app", "hello", "--port", "65536"], "at most 65535 is expected"),
    (
        ["--app", "hello", "--cert", "hello.py", "--key", "hello.py"],
        "hello.py has no certificate in PEM format.",
    ),
    (["--app", "nothing"], "Could not import 'nothing'"),
    (["--app", "hello:nothing"], "Failed to find attribute 'nothing' in 'hello'"),
    (["--app", "hello:index(1)"], "could not be called with the specified arguments"),
]


@pytest.mark.parametrize("mode", [[], ["--debug"]], ids=["plain", "debug"])
@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=[" ".join(args) for args, _ in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(folder, args, message, mode):
    done = run(folder, "run", *args, *mode)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [[], ["--debug"]], ids=["plain", "debug"])
def test_a_unix_socket_is_served_and_removed(folder, mode):
    path = folder / "socket"
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as stale:
            # A server that was killed leaves its socket behind.
            stale.bind(str(path))
        process = subprocess.Popen(
            [*HIPFLASK, "run", "--app", "hello", "--host", f"unix:{path}", *mode],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            next(line for line in process.stdout if "Running on" in line)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(1000), b""))
            assert answer.endswith(b"\r\n\r\nHello")
        finally:
            process.terminate()
            process.stdout.read()
            process.stdout.close()
            assert process.wait(30) == 0
        assert not path.exists()


def test_the_package_runs_as_a_module(folder):
    assert run(folder, "--app", "hello", "routes").stdout.startswith("Endpoint")


def test_app_run_takes_flasks_variables(folder):
    (folder / "main.py").write_text(APP + "\napp.run(port=0, use_reloader=False)\n")
    process = subprocess.Popen(
        [sys.executable, "-u", "main.py"],
        cwd=folder,
        env={**os.environ, "FLASK_DEBUG": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        text = ""
        while "Running on" not in text:
            line = process.stdout.readline()
            assert line, text
            text += line
        assert "Debug mode: on" in text
        rest = threading.Thread(target=process.stdout.read)
        rest.start()
        connection = connect(int(re.search(r":(\d+)\n", text)[1]), "/")
        assert connection.getresponse().read() == b"Hello"
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        rest.join()
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize("reload", [False, True], ids=["plain", "reloader"])
def test_control_c_ends_app_run_with_a_stuck_view(folder, reload):
    (folder / "main.py").write_text(APP + f"\napp.run(port=0, use_reloader={reload})\n")
    terminal = Terminal(folder, "main.py", program=[sys.executable])
    try:
        port = int(terminal.read_until(r"Running on http://127\.0\.0\.1:(\d+)")[1])
        with contextlib.closing(connect(port, "/forever")):
            terminal.read_until("stuck")
            terminal.type("\x03")
            terminal.read_until("Requests still run|cut off")
            terminal.type("\x03")
            assert terminal.wait() == 0
        assert "Traceback" not in terminal.text
    finally:
        terminal.close()
