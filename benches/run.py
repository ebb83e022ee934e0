"""Measure Hipflask beside its peers, all in one run, and write RESULTS.md, results.json and results.svg.

usage: run.py [--seconds S] [--rounds N] [--only NAME[,NAME...]] [--workloads A[,B...]] [--quick]

The servers run on core 0 and the load generator on core 1, over 64 keep-alive connections. Rounds are
interleaved: each visits every workload and every server, so that a drift of the machine touches all alike.
CPU µs per request is the CPU time that the server's processes used, as the kernel counts it, divided by the
requests answered.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import HERE, PEERS, ROOT, available
from report import PARTS, write_report
from servers import Running, load, request, start
from streams import measure_streams, raise_file_limit


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
        "async": [request("GET", "/async")],
        "async-sleep": [request("GET", "/async-sleep")],
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

    raise_file_limit()
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
        print(json.dumps({key: results[key] for key in ("mixes", "memory")}, indent=1))
        return
    if not options.only and not options.workloads:
        results["streams"] = measure_streams(options.seconds, options.rounds)
        for part in PARTS:
            found = importlib.import_module(part).measure(options.seconds, options.rounds)
            if found:
                results[part] = found
    (HERE / "results.json").write_text(json.dumps(results) + "\n")
    write_report(results)


if __name__ == "__main__":
    main()
