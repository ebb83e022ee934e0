"""Print how much more two workers do than one, and how evenly connections are spread over workers.

usage: workers.py [--seconds S] [--rounds N] [--write]

The view computes for two milliseconds, so that the load generator, which shares the cores, hardly counts.
Rounds are interleaved. The spread is that of 64 connections that are opened one after the other and kept, and
of 64 that are opened at once, over two and four workers; beside it that of 64 connections over sockets with
SO_REUSEPORT, which the kernel chooses by a hash of the addresses.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

from report import measure_part, table

ROOT = Path(__file__).resolve().parent.parent
LOADGEN = ROOT / "target/release/loadgen"
CONNECTIONS = 64
APP = """
import os
from hipflask import Flask

app = Flask(__name__)


@app.get("/work")
def work():
    return str(sum(number * number for number in range(64_000)))


@app.get("/who")
def who():
    return str(os.getpid())
"""


@contextmanager
def server(folder: Path, workers: int):
    """A server with so many workers; gives its port."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "hipflask", "run", "app", "--port", "0", "--workers", str(workers)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = next(line for line in process.stdout if "Running on" in line)
        yield int(re.search(r":(\d+) ", line)[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def rate(port: int, folder: Path, seconds: float) -> float:
    """Requests answered in a second."""
    request = folder / "request"
    request.write_bytes(b"GET /work HTTP/1.1\r\nHost: x\r\n\r\n")
    command = [LOADGEN, f"127.0.0.1:{port}", "16", str(seconds), "0", "1", request]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["requests"] / found["seconds"]


def spread(port: int) -> list[int]:
    """How many of the connections each worker has."""
    with ExitStack() as stack:
        connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        found: Counter[bytes] = Counter()
        for connection in connections:
            stack.callback(connection.close)
            connection.connect()
        for connection in connections:
            connection.request("GET", "/who")
            found[connection.getresponse().read()] += 1
    return sorted(found.values())


def spread_of_burst(port: int) -> list[int]:
    """As `spread`, for connections that are opened at once."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(CONNECTIONS)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        found: Counter[bytes] = Counter()
        for client in clients:
            client.settimeout(60)
            client.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients:
            answer = b"".join(iter(lambda client=client: client.recv(4096), b""))
            found[answer.rpartition(b"\r\n\r\n")[2]] += 1
    return sorted(found.values())


def spread_by_hash(workers: int) -> list[int]:
    """The same, for sockets with SO_REUSEPORT."""
    with ExitStack() as stack:
        listeners: list[socket.socket] = []
        for _ in range(workers):
            port = listeners[0].getsockname()[1] if listeners else 0
            listeners.append(socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=CONNECTIONS))
            stack.enter_context(listeners[-1])
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(listeners[0].getsockname()))
        found = []
        for listener in listeners:
            listener.setblocking(False)
            found.append(0)
            while True:
                try:
                    stack.enter_context(listener.accept()[0])
                except BlockingIOError:
                    break
                found[-1] += 1
    return sorted(found)


def measure(seconds: float, rounds: int) -> dict:
    """{"rates": [[with one worker, with two], ...], "spread": {workers: {way: [[connections], ...]}}}."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "loadgen"], cwd=ROOT, check=True)
    spreads: dict = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        for workers in (2, 4):
            with server(folder, workers) as port:
                spreads[workers] = {
                    "shared listener": [spread(port) for _ in range(rounds)],
                    "shared listener, opened at once": [spread_of_burst(port) for _ in range(rounds)],
                    "SO_REUSEPORT": [spread_by_hash(workers) for _ in range(rounds)],
                }
        with server(folder, 1) as one, server(folder, 2) as two:
            rates = [[rate(port, folder, seconds) for port in (one, two)] for _ in range(rounds)]
    return {"rates": rates, "spread": spreads, "cores": os.cpu_count()}


def section(results: dict) -> list[str]:
    """The part of the report."""
    ratios = [double / single for single, double in results["rates"]]
    rows = [
        [str(workers), way, "; ".join(", ".join(map(str, run)) for run in runs)]
        for workers, ways in results["spread"].items()
        for way, runs in ways.items()
    ]
    return [
        "## Workers\n",
        f"Two workers answer {statistics.median(ratios):.2f} times (rounds: {min(ratios):.2f} to"
        f" {max(ratios):.2f}) as many requests a second as one, for a view that computes for two"
        f" milliseconds, on {results['cores']} cores which the load generator shares. By"
        f" `benches/workers.py`; so are the numbers of connections that each worker gets of {CONNECTIONS}"
        " that are opened one after the other and kept.\n",
        table(["workers", "by", "connections of each, in several runs"], rows),
    ]


if __name__ == "__main__":
    measure_part("workers", measure, section, seconds=3.0)
