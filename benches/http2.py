"""HTTP/2 and TLS under load: h2load against Hipflask and, where it is installed, Granian.

`python benches/http2.py [--seconds S] [--rounds N] [--write]` prints requests per second and CPU time
per request of one process, for a hello over one connection with 100 streams (with and without TLS),
over more connections, and over HTTP/1.1 with TLS; `--write` puts it into RESULTS.md too. The servers
take turns, so that whatever else the machine does falls on all of them. Needs h2load (Debian:
nghttp2-client); `GRANIAN` names the other's command if it is neither on the path nor among the peers
that `run.py` has installed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from report import HERE, cell, measure_part, table

APPS = HERE / "apps"
TICKS = os.sysconf("SC_CLK_TCK")

# What is asked, and with what.
LOADS = {
    "HTTP/2, 100 streams": ("http", ["-c", "1", "-m", "100"]),
    "HTTP/2 with TLS, 100 streams": ("https", ["-c", "1", "-m", "100"]),
    "HTTP/2 with TLS, 16 connections": ("https", ["-c", "16", "-m", "10"]),
    "HTTP/1.1 with TLS, 16 connections": ("https", ["-c", "16", "--h1"]),
}


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its children have had."""
    total = 0
    for place in [Path("/proc", str(pid)), *children(pid)]:
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def children(pid: int) -> list[Path]:
    """The directories in /proc of a process's children."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [place for child in text.split() for place in [Path("/proc", child), *children(int(child))]]


@contextmanager
def running(command: list[str], port: int):
    """A server that answers on its port."""
    process = subprocess.Popen(command, cwd=APPS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def servers(cert: str, key: str) -> dict[str, dict[str, tuple[list[str], int]]]:
    """Commands and ports, by server and scheme."""
    found: dict[str, dict[str, tuple[list[str], int]]] = {}
    installed = next(HERE.glob(".envs/*/bin/granian"), None)
    granian = os.environ.get("GRANIAN") or shutil.which("granian") or (str(installed) if installed else None)
    for scheme in ("http", "https"):
        port = free_port()
        command = [sys.executable, "-m", "hipflask", "--app", "flask_app", "run", "--port", str(port)]
        tls = ["--cert", cert, "--key", key] if scheme == "https" else []
        found.setdefault("Hipflask, Flask's API", {})[scheme] = [*command, *tls], port
        if granian is None:
            continue
        for interface, app in (("wsgi", "wsgi_bare:app"), ("rsgi", "rsgi_bare:app")):
            port = free_port()
            command = [granian, "--interface", interface, "--http", "2", "--port", str(port), "--no-ws", app]
            tls = ["--ssl-certificate", cert, "--ssl-keyfile", key] if scheme == "https" else []
            found.setdefault(f"Granian, bare {interface.upper()}", {})[scheme] = [*command, *tls], port
    return found


def load(scheme: str, port: int, options: list[str], seconds: int) -> int:
    """Put load on a server; returns how many requests were answered well."""
    command = ["h2load", "-D", str(seconds), *options, f"{scheme}://127.0.0.1:{port}/plain"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", said)
    return int(found[1]) if found else 0


def measure(seconds: float, rounds: int) -> dict:
    """{load: {server: [{cpu, rate}, ...]}}: CPU µs of the server for each request, and how many a second."""
    from hipflask.tls import adhoc_files

    if not shutil.which("h2load"):
        return {}
    cert, key = adhoc_files()
    length = max(1, round(seconds))
    results: dict = {what: {} for what in LOADS}
    with ExitStack() as stack:
        pids: dict[tuple[str, str], tuple[int, int]] = {}
        for name, schemes in servers(cert, key).items():
            for scheme, (command, port) in schemes.items():
                pids[name, scheme] = stack.enter_context(running(command, port)), port
        for _ in range(rounds):
            for what, (scheme, options) in LOADS.items():
                for (name, at), (pid, port) in pids.items():
                    if at != scheme or ("--h1" in options and "Granian" in name):
                        continue
                    load(scheme, port, options, 1)
                    before, begin = cpu(pid), time.monotonic()
                    answered = load(scheme, port, options, length)
                    took, used = time.monotonic() - begin, cpu(pid) - before
                    figures = {"cpu": used / answered * 1e6, "rate": answered / took} if answered else {}
                    results[what].setdefault(name, []).append(figures)
    return results


def section(results: dict) -> list[str]:
    """The part of the report."""
    rows = [
        [what, server, cell(runs, "cpu", 1), cell(runs, "rate", 0)]
        for what, found in results.items()
        for server, runs in found.items()
    ]
    return [
        "## HTTP/2\n",
        "A hello asked for by h2load, which shares the cores with the server. By `benches/http2.py`.\n",
        table(["load", "server", "CPU µs per request", "requests a second"], rows),
    ]


if __name__ == "__main__":
    measure_part("http2", measure, section, seconds=3.0)
