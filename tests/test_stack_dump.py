"""SIGQUIT: where all threads and tasks are, even while the interpreter is held."""

from __future__ import annotations

import contextlib
import signal
import socket

import pytest
from processes import PATIENCE, Command, get

APP = """
import asyncio
import ctypes
import os
from hipflask import Flask

app = Flask(__name__)


def in_python():
    while not os.path.exists("over"):
        pass


@app.get("/who")
def who():
    return str(os.getpid())


@app.get("/burn")
def burn():
    print("burning", flush=True)
    in_python()
    return "burnt"


@app.get("/hold")
def hold():
    # Called so, the C library is entered with the interpreter held.
    print("holding", flush=True)
    ctypes.PyDLL(None).sleep(600)
    return "held"


async def somewhere():
    await asyncio.Event().wait()


@app.get("/waits")
async def waits():
    print("waiting", flush=True)
    await somewhere()
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    commands = []

    def start(*args):
        commands.append(Command(tmp_path, "--port", "0", *args))
        return commands[-1], commands[-1].port()

    yield start
    for command in commands:
        command.close()


def send(port: int, path: str) -> socket.socket:
    """A request whose answer is not waited for."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


BOTH = pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["one process", "workers"])


@BOTH
def test_views_in_python_and_tasks_are_written_down_and_all_goes_on(start, tmp_path, workers):
    command, port = start(*workers)
    # One after the other: what is printed is looked for in this order.
    with contextlib.ExitStack() as stack:
        burns = stack.enter_context(send(port, "/burn"))
        command.until("burning")
        stack.enter_context(send(port, "/waits?a=1"))
        command.until("waiting")
        for _ in range(2):
            command.signal(signal.SIGQUIT)
            command.until(r"hello\.py\", line \d+ in in_python")
            command.until("stacks were asked for")
            command.until(r"thread 0x\w+ hipflask-worker-\d+ runs GET /burn \(route /burn\) for \d")
            command.until(r"task \S+ waits at:")
            command.until(r"hello\.py\", line \d+, in somewhere")
        (tmp_path / "over").touch()
        assert burns.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert get(port)
    assert command.stop() == 0


@BOTH
def test_a_view_that_holds_the_interpreter_in_c_is_written_down(start, workers):
    command, port = start(*workers)
    with send(port, "/hold"):
        command.until("holding")
        command.signal(signal.SIGQUIT)
        command.until(r"hello\.py\", line \d+ in hold")


def test_workers_write_one_after_the_other(start):
    command, port = start("--workers", "3")
    assert get(port)
    command.signal(signal.SIGQUIT)
    for _ in range(3):
        pid = command.until(r"stacks of worker (\d+) follow")[1]
        command.until("most recent call first")
        command.until(rf"\[{pid}\] WARNING stacks were asked for")
    assert get(port)
    assert command.stop() == 0


def test_while_an_application_is_made_the_key_ends_the_server(start):
    command, port = start("--debug", "--no-reload", "--no-debugger")
    assert get(port)
    command.signal(signal.SIGQUIT)
    assert command.wait() == -signal.SIGQUIT
