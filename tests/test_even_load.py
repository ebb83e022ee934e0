"""How connections are spread over workers, and that none waits for one that does not come."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest
from processes import APP, PATIENCE, Command, eventually, get, lives

CONNECTIONS = 64
#: A worker that the machine keeps from running for long gets fewer, in one round.
ROUNDS = 4


@pytest.fixture
def start(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    commands = []

    def start(*args):
        commands.append(Command(tmp_path, "--port", "0", *args))
        return commands[-1]

    yield start
    for command in commands:
        for pid in command.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        command.close()


def in_turn(port: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(CONNECTIONS)]


def at_once(port: int) -> list[socket.socket]:
    found = []
    for _ in range(CONNECTIONS):
        found.append(socket.socket())
        found[-1].setblocking(False)
        found[-1].connect_ex(("127.0.0.1", port))
    for connection in found:
        connection.settimeout(PATIENCE)
    return found


def stand_still(pid: int) -> None:
    """Stop a process; each of its threads runs on until it hears of that."""
    os.kill(pid, signal.SIGSTOP)

    def states() -> set[str]:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks}

    eventually(lambda: states() == {"T"}, "all of it stands still")


def who(connection: socket.socket) -> int:
    """The process that has a connection."""
    connection.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
        data = connection.recv(4096)
        assert data, answer
        answer += data
    return int(answer.rpartition(b"\r\n\r\n")[2].split()[0])


def spread(port: int, connect) -> Counter[int]:
    """How many of many connections each process has."""
    connections = connect(port)
    try:
        return Counter(who(connection) for connection in connections)
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("connect", [in_turn, at_once])
@pytest.mark.parametrize("workers", [2, 4])
def test_each_worker_gets_its_share_of_the_connections(start, workers, connect):
    port = start("--workers", str(workers)).port()
    share = CONNECTIONS // workers
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(spread(port, connect))
        assert sum(rounds[-1].values()) == CONNECTIONS
        if len(rounds[-1]) == workers and all(
            share / 2 <= count <= share * 1.5 for count in rounds[-1].values()
        ):
            return
    pytest.fail(f"no round is even: {rounds}")


def test_a_worker_that_stands_still_gets_no_connection_and_keeps_none_from_others(start):
    command = start("--workers", "2", "--worker-timeout", "600")
    port = command.port()
    still, other = command.workers()
    stand_still(still)
    # One after the other: nobody but the kernel's choice wakes the one that runs.
    for _ in range(8):
        assert int(get(port).split()[0]) == other
    assert spread(port, in_turn) == {other: CONNECTIONS}
    assert lives(still)
    os.kill(still, signal.SIGCONT)
    eventually(lambda: len(spread(port, in_turn)) == 2, "the other one takes part again")


def test_a_worker_that_was_killed_is_not_waited_for_and_its_successor_takes_part(start):
    command = start("--workers", "3")
    port = command.port()
    for victim in command.workers():
        with contextlib.ExitStack() as stack:
            for connection in in_turn(port):
                stack.callback(connection.close)
            os.kill(victim, signal.SIGKILL)
            found = spread(port, at_once)
            assert sum(found.values()) == CONNECTIONS
            assert victim not in found
        command.until(f"worker {victim} was ended")
    eventually(lambda: len(spread(port, in_turn)) == 3, "all three take part")
    assert command.stop() == 0


def test_a_worker_that_is_full_leaves_connections_to_the_others(start):
    port = start("--workers", "2", "--max-connections", "40").port()
    assert sum(spread(port, in_turn).values()) == CONNECTIONS


def test_more_workers_than_were_planned_serve_all_the_same(start):
    command = start("--workers", "1")
    port = command.port()
    for number in range(2, 12):
        command.signal(signal.SIGTTIN)
        command.until(f"{number} workers are wanted")
        eventually(lambda number=number: len(command.workers()) == number, "another one is there")
    assert sum(spread(port, in_turn).values()) == CONNECTIONS
    assert command.stop() == 0
