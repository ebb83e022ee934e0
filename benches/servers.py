"""Starting a server on a core of its own, and reading what it used."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from peers import APPS, ROOT, Peer

CONNECTIONS = 64
LOADGEN = ROOT / "target/release/loadgen"
TICK = os.sysconf("SC_CLK_TCK")
BROWSER_FIELDS = "User-Agent: hipflask-bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"


def request(method: str, path: str, body: bytes = b"", kind: str = "", fields: str = "") -> bytes:
    """One raw request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{BROWSER_FIELDS}{fields}"
    if body:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@dataclass
class Running:
    """A started server."""

    peer: Peer
    process: subprocess.Popen[bytes]
    port: int

    def pids(self) -> list[int]:
        """The server's processes, children included."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                # A thread may end while we look.
                with suppress(FileNotFoundError):
                    todo += [int(child) for child in task.read_text().split()]
        return found

    def cpu(self) -> float:
        """CPU seconds used so far."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def resident(self) -> float:
        """Resident memory in MiB."""
        total = 0
        for pid in self.pids():
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        """End the server and its children."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(peer: Peer, log: Path) -> Running:
    """Start a server on core 0 and wait for its first answer."""
    port = free_port()
    line = peer.line(port)
    if peer.name == "nginx":
        config = log.with_suffix(".conf")
        config.write_text(
            (APPS / "nginx.conf").read_text().replace("8999", str(port)).replace("root .", f"root {APPS}")
        )
        line[line.index("-c") + 1] = str(config)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *line],
            cwd=APPS,
            env={**os.environ, **peer.env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    for _ in range(3000):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/plain", timeout=5) as answer:
                answer.read()
                return Running(peer, process, port)
        except OSError:
            time.sleep(0.005)
            if process.poll() is not None:
                break
    raise SystemExit(f"{peer.name} did not start:\n{log.read_text()[-2000:]}")


def load(
    server: Running,
    files: list[tuple[float, Path]],
    seconds: float,
    rate: float = 0,
    connections: int = CONNECTIONS,
):
    """Run the load generator on core 1; returns what it printed, with the server's CPU µs per request."""
    line = [
        "taskset",
        "-c",
        "1",
        str(LOADGEN),
        f"127.0.0.1:{server.port}",
        str(connections),
        str(seconds),
        str(rate),
    ]
    for weight, file in files:
        line += [str(weight), str(file)]
    before = server.cpu()
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr else "failed"}
    result = json.loads(done.stdout)
    result["cpu"] = (server.cpu() - before) / max(result["requests"], 1) * 1e6
    result["rate"] = result["requests"] / result["seconds"]
    result["bad"] = sum(row["bad_status"] for row in result["classes"])
    return result
