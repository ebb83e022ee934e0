"""The access log, names of requests, traces and `Server-Timing`, on a server as its operator runs it."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter

import pytest
from http2_frames import END_HEADERS, HEADERS, Wire, block, headers
from http2_frames import request as request_fields
from processes import HIPFLASK, PATIENCE, Command
from raw_websocket import RawWebSocket, frame

from hipflask import Flask, request
from hipflask.setting_types import SettingError
from hipflask.settings import Settings, parse

APP = """
import asyncio
import sys
import time
from hipflask import Flask, Response, abort, request

app = Flask(__name__)


@app.get("/")
def index():
    return "hello"


@app.get("/user/<int:number>")
def user(number):
    time.sleep(0.003)
    return {"number": number}


@app.get("/later")
async def later():
    await asyncio.sleep(0.003)
    return "later"


@app.get("/pieces")
def pieces():
    return Response(iter(["one", "two"]))


@app.post("/upload")
def upload():
    return str(len(request.get_data()))


@app.get("/broken")
def broken():
    abort(500)


@app.websocket("/socket/<name>")
def talk(ws, name):
    while True:
        ws.send(ws.receive())


@app.get("/names")
def names():
    return {"id": request.request_id, "trace": request.trace_id, "field": request.headers.get("X-Request-ID")}
"""

HOSTED = """
def app(environ, start_response):
    body = environ.get("hipflask.request_id", "none").encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def run(tmp_path):
    """Start servers of `APP`, or of another program."""
    running = []

    def start(*args: str, app: str = APP, **more) -> Command:
        (tmp_path / "hello.py").write_text(app)
        command = Command(tmp_path, "--port", "0", *args, **more)
        running.append(command)
        return command

    yield start
    for command in running:
        command.close()


def ask(port: int, target: str = "/", method: str = "GET", body: bytes | None = None, **fields: str):
    """One request on a connection of its own: the response and its body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as client:
        client.request(
            method, target, body, {name.replace("_", "-"): value for name, value in fields.items()}
        )
        response = client.getresponse()
        return response, response.read()


def lines_of(path, count: int) -> list[str]:
    """The lines of a file, when there are so many."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        assert time.monotonic() < deadline, f"only {lines}"
        time.sleep(0.02)


class TestFormats:
    """What lines have in them."""

    @pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
    def test_every_answer_has_its_line(self, run, tmp_path, workers):
        log = tmp_path / "access.log"
        command = run("--access-log-to", str(log), "--access-log-format", "json", *workers)
        port = command.port()
        asked = [
            ("/", "GET", None, 200, "/"),
            ("/user/7?a=b", "GET", None, 200, "/user/<int:number>"),
            ("/later", "GET", None, 200, "/later"),
            ("/pieces", "GET", None, 200, "/pieces"),
            ("/upload", "POST", b"x" * 300_000, 200, "/upload"),
            ("/upload", "POST", b"x" * 10, 200, "/upload"),
            ("/broken", "GET", None, 500, "/broken"),
            ("/nowhere", "GET", None, 404, None),
            ("/upload", "GET", None, 405, None),
        ]
        for target, method, body, status, _ in asked:
            response, _ = ask(port, target, method, body, User_Agent="test/1", traceparent=PARENT)
            assert response.status == status
        found = [json.loads(line) for line in lines_of(log, len(asked))]
        by_target = {(line["method"], line["target"], line["received"]): line for line in found}
        for target, method, body, status, route in asked:
            line = by_target[method, target, len(body or b"")]
            assert (line["status"], line.get("route"), line["user_agent"]) == (status, route, "test/1")
            assert (line["client"], line["trace_id"], line["complete"]) == ("127.0.0.1", TRACE, True)
            steps = sum(line[f"{step}_ms"] for step in ("receive", "queue", "gil", "view", "write"))
            assert steps <= line["total_ms"] + 0.01
            if target.startswith("/user") or target == "/later":
                assert line["view_ms"] >= 3
        assert command.stop() == 0

    def test_a_view_that_is_late_has_its_time(self, run, tmp_path):
        log = tmp_path / "access.log"
        late = """

@app.get("/late", timeout=0.1)
def late():
    time.sleep(0.5)
    return ""


@app.get("/late-coroutine", timeout=0.1)
async def late_coroutine():
    await asyncio.sleep(60)
"""
        command = run("--access-log-to", str(log), "--access-log-format", "%U %s %{view}x", app=APP + late)
        port = command.port()
        for target in ("/late", "/late-coroutine"):
            assert ask(port, target)[0].status == 504
        for line in lines_of(log, 2):
            assert float(line.split()[2]) >= 90, line

    def test_other_protocols_have_lines_too(self, run, tmp_path):
        log = tmp_path / "access.log"
        command = run("--access-log-to", str(log), "--access-log-format", "%r %s %B %{route}x %{id}x %{X-A}i")
        port = command.port()
        wire = Wire(("127.0.0.1", port))
        with contextlib.closing(wire):
            wire.send(headers(1, request_fields("GET", "/user/2?a", ("x-a", "b"))))
            assert wire.response()[0] == 200
            wire.send(headers(3, request_fields("GET", "/pieces")))
            assert wire.response(3)[2] == b"onetwo"
            wire.send(headers(5, request_fields("GET", "/nowhere")))
            assert wire.response(5)[0] == 404
        assert Counter(line.rsplit(" ", 3)[0].rsplit(" ", 1)[0] for line in lines_of(log, 3)) == {
            "GET /user/2?a HTTP/2.0 200": 1,
            "GET /pieces HTTP/2.0 200": 1,
            "GET /nowhere HTTP/2.0 404": 1,
        }
        assert any(line.endswith(" 13 /user/<int:number> - b") for line in lines_of(log, 3))
        with contextlib.closing(RawWebSocket(f"127.0.0.1:{port}", "/socket/a")) as socket_:
            socket_.send(frame(0x81, b"hello"))
            assert socket_.receive()
        line = lines_of(log, 4)[3]
        assert re.fullmatch(r"GET /socket/a HTTP/1\.1 101 \d+ /socket/<name> - -", line)
        # A tunnel of HTTP/2 is opened by another status.
        fields = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":authority": "x"}
        fields |= {":path": "/socket/b", "sec-websocket-version": "13"}
        with contextlib.closing(Wire(("127.0.0.1", port))) as wire:
            wire.send(headers(1, block(*fields.items()), flags=END_HEADERS))
            while (got := wire.read()) is not None and got.kind != HEADERS:
                pass
        line = lines_of(log, 5)[4]
        assert re.fullmatch(r"\w+ /socket/b HTTP/2\.0 200 \d+ /socket/<name> - -", line)

    def test_the_full_lane_names_its_routes(self, run, tmp_path):
        log = tmp_path / "access.log"
        app = APP + "\n\ninner = app.wsgi_app\napp.wsgi_app = lambda *both: inner(*both)\n"
        command = run("--access-log-to", str(log), "--access-log-format", "%U %s %{route}x", app=app)
        port = command.port()
        for target in ("/user/1", "/broken", "/nowhere", "/pieces"):
            ask(port, target)
        assert command.stop() == 0
        assert Counter(log.read_text().splitlines()) == Counter(
            ["/user/1 200 /user/<int:number>", "/broken 500 /broken", "/nowhere 404 -", "/pieces 200 /pieces"]
        )

    def test_standard_output_and_directives(self, run):
        command = run("--access-log-to", "-", "--access-log-format", "%m|%U|%q|%s|%b|%{X-A}i|%{route}x")
        port = command.port()
        ask(port, "/user/3?x", X_A='a"')
        assert command.until(r"^GET")[0]
        assert 'GET|/user/3|?x|200|13|a\\"|/user/<int:number>\n' in command.text

    def test_short_in_debug_mode_and_combined_otherwise(self, run):
        command = run("--access-log")
        ask(command.port(), "/", Referer="https://x.example/")
        command.until(
            r'^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\] "GET / HTTP/1\.1" 200 5 '
            r'"https://x\.example/" "-"$'
        )
        command = run(prefix=("env", "FLASK_DEBUG=1"))
        response, _ = ask(command.port(), "/")
        command.until(r"^\[[\d:]{8}\] 127\.0\.0\.1 GET / 200 \d+\.\d ms$")
        assert response.headers["Server-Timing"].startswith("queue;dur=")

    @pytest.mark.parametrize("format", ["combined", "json", "short"])
    def test_no_client_can_forge_lines(self, run, tmp_path, format):
        log = tmp_path / "access.log"
        port = run("--access-log-to", str(log), "--access-log-format", format).port()
        hostile = [
            b"GET /%0d%0aforged HTTP/1.1\r\nHost: x\r\nUser-Agent: \x80\x9b31m\xff\r\n",
            b'GET /"%22\xe2\x80\xae HTTP/1.1\r\nHost: x\r\nReferer: " 200 1 "\\\r\n',
            b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: tab\there\r\n",
            b"\x16\x03\x01nonsense\r\n",
        ]
        for head in hostile:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(head + b"Connection: close\r\n\r\n")
                while client.recv(65536):
                    pass
        lines = lines_of(log, len(hostile))
        assert len(lines) == len(hostile)
        for line in lines:
            assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", line)
            if format == "json":
                json.loads(line)
            elif format == "combined":
                assert re.fullmatch(
                    r'\S+ - - \[[^]]+\] "(?:[^"\\]|\\.)*" \d{3} \S+ "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*"', line
                )

    @pytest.mark.parametrize(
        ("args", "why"),
        [
            (["--access-log-format", "%k"], "there is no directive '%k'"),
            (["--access-log-format", "apache"], "there is no format"),
            (["--access-log-sample", "2"], "at most 1 is expected"),
            (["--access-log-to", "nowhere/at/all.log"], "nowhere/at/all.log cannot be opened: No such file"),
            (["--access-log-to", "nowhere/a.log", "--workers", "1"], "nowhere/a.log cannot be opened"),
            (["--access-log-to", "syslog:/nowhere"], "syslog:/nowhere cannot be opened: No such file"),
            (["--request-id-header", "X Y", "--request-id", "trust"], "the name of a header field"),
        ],
    )
    def test_mistakes_are_told_at_the_start(self, run, args, why):
        command = run(*args)
        assert command.wait() != 0
        assert why in command.text
        assert "Traceback" not in command.text or "--request-id" in args

    def test_the_kinds_of_the_settings(self):
        assert [parse("access_log_sample", text) for text in ("0.01", "1%", 0, "100%")] == [0.01, 0.01, 0, 1]
        for text in ("", "2", "-1", "101%", "x%", True):
            with pytest.raises(SettingError):
                parse("access_log_sample", text)
        assert Settings().access_log() is None
        to = Settings({"access_log_to": ("-", "")}).access_log()
        assert to == {"to": "-", "format": "combined", "sample": 1.0}
        off = {"access_log_to": ("-", ""), "access_log": (False, "")}
        assert Settings(off).access_log() is None


class TestPlaces:
    """Where lines go."""

    @pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
    def test_a_signal_opens_the_file_anew(self, run, tmp_path, workers):
        log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
        command = run("--access-log-to", str(log), "--access-log-format", "%U", *workers)
        port = command.port()
        ask(port, "/first")
        lines_of(log, 1)
        log.rename(moved)
        command.signal(signal.SIGUSR1)
        lines_of(log, 0)
        deadline = time.monotonic() + PATIENCE
        while not log.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ask(port, "/second")
        assert lines_of(log, 1) == ["/second"] or workers
        assert command.stop() == 0
        assert sorted(lines_of(moved, 1) + log.read_text().splitlines()) == ["/first", "/second"]

    def test_lines_are_out_before_the_end(self, run, tmp_path):
        log = tmp_path / "access.log"
        command = run("--access-log-to", str(log), "--access-log-format", "%U")
        port = command.port()
        for number in range(50):
            ask(port, f"/{number}")
        assert command.stop() == 0
        assert log.read_text().splitlines() == [f"/{number}" for number in range(50)]

    @pytest.mark.parametrize("kind", ["unix", "udp"])
    def test_syslog(self, run, tmp_path, kind):
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as daemon:
            daemon.bind(str(tmp_path / "log") if kind == "unix" else ("127.0.0.1", 0))
            daemon.settimeout(PATIENCE)
            name = daemon.getsockname()
            where = name if kind == "unix" else f"127.0.0.1:{name[1]}"
            port = run("--access-log-to", f"syslog:{where}", "--access-log-format", "%r %s").port()
            ask(port, "/user/1")
            message = daemon.recv(10_000).decode()
        assert re.fullmatch(
            r"<30>1 \d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z \S+ hipflask \d+ - - GET /user/1 HTTP/1\.1 200", message
        )

    @pytest.mark.parametrize("refused", [False, True], ids=["answers", "refusals"])
    def test_a_pipe_that_nobody_reads_stops_nothing(self, tmp_path, refused):
        (tmp_path / "hello.py").write_text(APP)
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        args = ["run", "hello", "--port", "0", "--access-log", "--access-log-format", "combined"]
        with subprocess.Popen(
            [*HIPFLASK, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=writing, text=True
        ) as process:
            try:
                line = next(line for line in process.stdout if "Running on" in line)
                port = int(re.search(r":(\d+) ", line)[1])
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    for _ in range(100):
                        client.sendall(b"GET /" + b"x" * 200 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                        assert client.recv(65536).startswith(b"HTTP/1.1 404")
                for _ in range(100 if refused else 0):
                    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                        client.sendall(b"nonsense\r\n\r\n")
                        assert client.recv(65536).startswith(b"HTTP/1.1 400")
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
                os.close(reading)
                os.close(writing)


class TestSampling:
    """Which answers are logged."""

    def test_errors_always_are(self, run, tmp_path):
        log = tmp_path / "access.log"
        command = run("--access-log-to", str(log), "--access-log-sample", "0", "--access-log-format", "%s %U")
        port = command.port()
        for _ in range(20):
            for target in ("/", "/nowhere", "/broken"):
                ask(port, target)
        assert command.stop() == 0
        assert Counter(log.read_text().splitlines()) == {"404 /nowhere": 20, "500 /broken": 20}


class TestNames:
    """Names and traces of requests."""

    def test_names_reach_view_response_and_log(self, run, tmp_path):
        log = tmp_path / "access.log"
        command = run(
            "--request-id", "generate", "--access-log-to", str(log), "--access-log-format", "%{id}x %{trace}x"
        )
        port = command.port()
        response, body = ask(port, "/names", X_Request_ID="forged", traceparent=PARENT)
        name = response.headers["X-Request-ID"]
        assert re.fullmatch("[0-9a-f]{32}", name)
        assert json.loads(body) == {"id": name, "trace": TRACE, "field": name}
        assert lines_of(log, 1) == [f"{name} {TRACE}"]
        again, _ = ask(port, "/nowhere", traceparent="00-nonsense")
        other = again.headers["X-Request-ID"]
        assert other != name
        assert lines_of(log, 2)[1] == f"{other} -"

    @pytest.mark.parametrize(("sent", "taken"), [("abc-1", True), ("a b", False), ("x" * 129, False)])
    def test_a_name_is_taken_from_who_is_trusted(self, run, sent, taken):
        port = run("--request-id", "trust", "--request-id-header", "X-Trace", app=HOSTED).port()
        response, body = ask(port, X_Trace=sent)
        assert response.headers["X-Trace"] == body.decode()
        assert (body.decode() == sent) is taken

    @pytest.mark.parametrize(("proxies", "taken"), [("127.0.0.1", True), ("192.0.2.0/24", False)])
    def test_where_proxies_are_trusted_only_they_name_requests(self, run, proxies, taken):
        port = run("--request-id", "trust", "--trusted-proxies", proxies).port()
        response, _ = ask(port, X_Request_ID="mine")
        assert (response.headers["X-Request-ID"] == "mine") is taken

    def test_without_the_setting_there_is_none(self, run):
        response, body = ask(run().port(), "/names", X_Request_ID="mine", traceparent=PARENT)
        assert "X-Request-ID" not in response.headers
        assert "Server-Timing" not in response.headers
        assert json.loads(body) == {"id": None, "trace": TRACE, "field": "mine"}

    @pytest.mark.parametrize(
        ("value", "trace"),
        [(PARENT, TRACE), (PARENT.upper(), None), (f"{PARENT}, {PARENT}", None), ("", None), ("é", None)],
    )
    def test_traces_elsewhere(self, value, trace):
        app = Flask(__name__)
        with app.test_request_context("/", headers={"traceparent": value}):
            assert request.trace_id == trace
            assert request.request_id is None
        with app.test_request_context("/", environ_overrides={"hipflask.request_id": "given"}):
            assert request.request_id == "given"


def test_server_timing_says_where_the_time_went(run):
    port = run("--server-timing").port()
    for target in ("/", "/user/1", "/later", "/pieces"):
        value = ask(port, target)[0].headers["Server-Timing"]
        match = re.fullmatch(r"queue;dur=[\d.]+, gil;dur=[\d.]+, view;dur=([\d.]+)", value)
        assert match, value
        if target in ("/user/1", "/later"):
            assert float(match[1]) >= 3
