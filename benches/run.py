"""Measure Hipflask beside its peers, all in one run, and write RESULTS.md, results.json and results.svg.

usage: run.py [--seconds S] [--rounds N] [--only NAME[,NAME...]] [--workloads A[,B...]] [--quick]

The servers run on core 0 and the load generator on core 1, over 64 keep-alive connections. Rounds are
interleaved: each visits every workload and every server, so that a drift of the machine touches all alike.
CPU µs per request is the CPU time that the server's processes used, as the kernel counts it, divided by the
requests answered.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from peers import APPS, HERE, PEERS, ROOT, Peer, available
from report import write_report

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


def workload_requests() -> dict[str, list[bytes]]:
    """For each workload the requests that it sends in turn."""
    items = {"items": [{"id": n, "name": f"item {n}", "price": n * 1.5} for n in range(24)]}
    posted = json.dumps(items).encode()[:2000]
    form = b"&".join(b"field%d=value+number+%d" % (n, n) for n in range(8)) + b"&name=Ada%20Lovelace"
    upload = (
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="data.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n"
        + random.Random(7).randbytes(65536)
        + b"\r\n--frontier--\r\n"
    )
    picks = random.Random(3)
    return {
        "plain": [request("GET", "/plain")],
        "json": [request("GET", "/json")],
        "param": [request("GET", "/users/42?q=flask")],
        "post-json": [request("POST", "/json", posted, "application/json")],
        "page": [request("GET", "/page")],
        "form": [request("POST", "/form", form, "application/x-www-form-urlencoded")],
        "upload": [request("POST", "/upload", upload, "multipart/form-data; boundary=frontier")],
        "static": [request("GET", "/static/style.css")],
        "routes": [request("GET", f"/many/{picks.randrange(200)}/ada") for _ in range(16)],
        "session": [request("GET", "/session")],
    }


@dataclass
class Running:
    """A started server."""

    peer: Peer
    process: subprocess.Popen[bytes]
    port: int
    first_answer: float

    def pids(self) -> list[int]:
        """The server's processes, children included."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
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
    began = time.perf_counter()
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
                return Running(peer, process, port, time.perf_counter() - began)
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


def measure_workloads(servers: list[Running], folder: Path, options) -> dict:
    """{workload: {server: [result, ...]}} over the rounds."""
    files = {}
    for name, requests in workload_requests().items():
        files[name] = []
        for number, raw in enumerate(requests):
            path = folder / f"{name}-{number}.http"
            path.write_bytes(raw)
            files[name].append((1, path))
    wanted = options.workloads.split(",") if options.workloads else list(files)
    results: dict = {name: {} for name in wanted}
    for turn in range(options.rounds + 1):
        for workload in wanted:
            for server in servers:
                if workload in server.peer.workloads:
                    # The first round warms up: caches, allocators, what a server learns about its routes.
                    result = load(server, files[workload], options.seconds if turn else 0.5)
                    if turn:
                        results[workload].setdefault(server.peer.name, []).append(result)
        print(f"round {turn} of {options.rounds} done", file=sys.stderr)
    results["latency of one connection"] = {
        server.peer.name: [
            load(server, files["plain"], options.seconds, connections=1) for _ in range(options.rounds)
        ]
        for server in servers
    }
    return results


MIXES = {
    "5 % of views sleep 50 ms": ("/sleep50", 5),
    "1 % of views burn 20 ms of CPU": ("/spin", 1),
    "all views sleep 1 ms": ("/sleep1", 100),
}


def measure_mixes(servers: list[Running], folder: Path, options) -> dict:
    """{mix: {server: result}}; class 0 is the fast view, class 1 the other."""
    fast = folder / "fast.http"
    fast.write_bytes(request("GET", "/json"))
    results: dict = {}
    for server in servers:
        if (
            "session" not in server.peer.workloads
            or "Flask" not in server.peer.name
            and server.peer.name != "Hipflask"
        ):
            continue
        # A load that every server here can carry, so that what is compared is waiting, not saturation.
        rate = 400.0
        alone = load(server, [(1, fast)], options.seconds * 2, rate)
        results.setdefault("fast views alone", {})[server.peer.name] = alone
        for name, (path, weight) in MIXES.items():
            slow = folder / "slow.http"
            slow.write_bytes(request("GET", path))
            mix = [(100 - weight, fast), (weight, slow)] if weight < 100 else [(1, slow)]
            load(server, mix, 1, rate)
            results.setdefault(name, {})[server.peer.name] = load(server, mix, options.seconds * 2, rate)
    return results


def measure_memory(server: Running, connections: int = 10_000) -> dict:
    """Resident memory: at rest, and per idle keep-alive connection after one request on each."""
    rest = server.resident()
    held = []
    raw = request("GET", "/plain")
    for _ in range(connections):
        held.append(socket.create_connection(("127.0.0.1", server.port)))
        held[-1].sendall(raw)
    for connection in held:
        connection.recv(4096)
    time.sleep(1)
    loaded = server.resident()
    for connection in held:
        connection.close()
    return {"rest_mib": rest, "idle_connection_bytes": (loaded - rest) * 2**20 / connections}


def machine() -> dict:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": "make bench" if len(sys.argv) == 1 else "benches/run.py " + " ".join(sys.argv[1:]),
    }


def main() -> None:
    """Parse the command line, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of servers, separated by commas")
    parser.add_argument("--workloads", help="names of workloads, separated by commas")
    parser.add_argument(
        "--quick", action="store_true", help="print the table only; leave the report as it is"
    )
    options = parser.parse_args()

    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "loadgen"], cwd=ROOT, check=True)
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "-p", "hipflask-server", "--example", "raw"],
        cwd=ROOT,
        check=True,
    )
    chosen = [peer for peer in PEERS if not options.only or peer.name in options.only.split(",")]
    for peer in chosen:
        peer.install()
    missing = [peer.name for peer in chosen if not available(peer)]
    if missing:
        print("not installed, left out:", ", ".join(missing), file=sys.stderr)

    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536, hard)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers = []
        try:
            for peer in chosen:
                if available(peer):
                    servers.append(start(peer, folder / f"{len(servers)}.log"))
            results = {
                "machine": machine(),
                "versions": {server.peer.name: server.peer.version() for server in servers},
                "first_answer_ms": {server.peer.name: server.first_answer * 1e3 for server in servers},
                "workloads": measure_workloads(servers, folder, options),
                "mixes": measure_mixes(servers, folder, options),
                "memory": {
                    server.peer.name: measure_memory(server)
                    for server in servers
                    if server.peer.name == "Hipflask"
                },
            }
        finally:
            for server in servers:
                server.stop()
    if options.quick:
        for workload, rows in results["workloads"].items():
            for server_name, runs in rows.items():
                good = [run["cpu"] for run in runs if "cpu" in run]
                rates = [run["rate"] for run in runs if "cpu" in run]
                if good:
                    cost, rate = statistics.median(good), statistics.median(rates)
                    print(f"{workload:28} {server_name:30} {cost:8.1f} µs {rate:9.0f}/s")
                else:
                    print(f"{workload:28} {server_name:30} {runs[0].get('error')}")
        print(json.dumps({key: results[key] for key in ("mixes", "memory", "first_answer_ms")}, indent=1))
        return
    (HERE / "results.json").write_text(json.dumps(results) + "\n")
    write_report(results)


if __name__ == "__main__":
    main()
