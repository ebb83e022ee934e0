"""What a served process does when it is told to stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAM = """
import sys, time
from hipflask import Flask
from hipflask.serving import run

app = Flask(__name__)

@app.get("/<float:seconds>")
def sleep(seconds):
    print("inside", flush=True)
    time.sleep(seconds)
    return "done"

run(app, port=0)
print("ended", flush=True)
"""


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that serves PROGRAM, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


@contextmanager
def asked(process: subprocess.Popen[str], port: int, path: str) -> Iterator[socket.socket]:
    """A connection whose request is inside the view."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        yield client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_request_finish(number):
    # The client keeps the connection; the server closes it, long before any of its deadlines.
    with served() as (process, port), asked(process, port, "/0.3") as client:
        process.send_signal(number)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        assert answer.endswith(b"\r\n\r\ndone")
        output, errors = process.communicate(timeout=20)
        assert (process.returncode, output.splitlines()[-1], errors) == (0, "ended", "")


def test_a_second_signal_cuts_the_running_request_off():
    with served() as (process, port), asked(process, port, "/2.5") as client:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert "still run" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert client.recv(1) == b""
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in errors
