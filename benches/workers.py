"""Print how much more two workers do than one, and how evenly connections are spread over workers.

usage: workers.py [--seconds S] [--rounds N]

The view computes for about a millisecond, so that the load generator, which shares the cores, hardly counts.
Rounds are interleaved. The spread is that of 64 connections that are opened one after the other and kept,
over two and four workers; beside it that of 64 connections over sockets with SO_REUSEPORT, which the kernel
chooses by a hash of the addresses.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).resolve().parent.parent
LOADGEN = ROOT / "target/release/loadgen"
CONNECTIONS = 64
APP = """
import os
from hipflask import Flask

app = Flask(__name__)


@app.get("/work")
def work():
    return str(sum(number * number for number in range(16_000)))


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "loadgen"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        for workers in (2, 4):
            with server(folder, workers) as port:
                runs = [spread(port) for _ in range(options.rounds)]
            hashed = [spread_by_hash(workers) for _ in range(options.rounds)]
            print(f"{CONNECTIONS} connections over {workers} workers: {runs}; by SO_REUSEPORT: {hashed}")
        ratios = []
        with server(folder, 1) as one, server(folder, 2) as two:
            for _ in range(options.rounds):
                single, double = (rate(port, folder, options.seconds) for port in (one, two))
                ratios.append(double / single)
                print(f"one worker {single:.0f}/s, two {double:.0f}/s")
    print(f"two workers do {statistics.median(ratios):.2f} times as much as one, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
