"""Measure what stays open: WebSocket echo, server-sent events to many, and other views beside open streams.

usage: streams.py [--seconds S] [--rounds N] [--only NAME[,NAME...]] [--no-latency] [--note TEXT] [--quick]

The server runs on core 0 and the load generator on core 1, one server after the other in each round. Without
`--quick` the figures go into results.json and RESULTS.md, beside what run.py measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import ROOT, Peer, available
from servers import LOADGEN, Running, load, request, start

ECHO_CONNECTIONS = 100
ECHO_SIZES = (64, 4096)
SUBSCRIBERS = (1_000, 10_000)
#: How many streams are open beside other views, and how many of those a second are asked for.
BESIDE_STREAMS, BESIDE_RATE = 1_000, 400.0

HIPFLASK = ["{python}", "-m", "hipflask", "--app", "{apps}/streams_app.py", "run", "--port", "{port}"]
PACKAGES = ["websockets", "uvicorn", "wsproto", "uvloop", "httptools", "starlette"]
UVICORN = ["{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning", "--backlog", "16384"]

#: Who echoes, and at which path.
ECHO = [
    (Peer("Hipflask callback", HIPFLASK, [], probe="hipflask"), "/echo/callback"),
    (Peer("Hipflask async view", HIPFLASK, [], probe="hipflask"), "/echo/async"),
    (Peer("Hipflask sync view", HIPFLASK, [], probe="hipflask"), "/echo/sync"),
    (
        Peer(
            "websockets on uvloop",
            ["{python}", "{apps}/echo_websockets.py", "{port}"],
            [],
            PACKAGES,
            probe="websockets",
        ),
        "/echo",
    ),
    *(
        (
            Peer(f"uvicorn {kind}", [*UVICORN, "--ws", kind, "echo_asgi:app"], [], PACKAGES, probe="uvicorn"),
            "/echo",
        )
        for kind in ("websockets", "websockets-sansio", "wsproto")
    ),
    (
        Peer(
            "socketify",
            ["{python}", "{apps}/echo_socketify.py", "{port}"],
            [],
            ["socketify"],
            probe="socketify",
        ),
        "/echo",
    ),
]

FANOUT = [
    Peer("Hipflask Channel", HIPFLASK, [], probe="hipflask"),
    Peer("Starlette on uvicorn", [*UVICORN, "fanout_starlette:app"], [], PACKAGES, probe="starlette"),
]


@contextmanager
def started(peer: Peer, log: Path) -> Iterator[Running]:
    """A server, stopped at the end."""
    server = start(peer, log)
    try:
        yield server
    finally:
        server.stop()


def reason(error: str) -> str:
    """What the load generator says about why it gave up."""
    lines = [line for line in error.splitlines() if line and not line.startswith(("note:", "thread"))]
    return lines[0] if lines else "failed"


def echo(server: Running, path: str, size: int, seconds: float) -> dict:
    """Messages there and back on 100 connections."""
    before = server.cpu()
    line = [str(LOADGEN), "websocket", f"127.0.0.1:{server.port}", path]
    line += [str(ECHO_CONNECTIONS), str(seconds), str(size)]
    done = subprocess.run(["taskset", "-c", "1", *line], capture_output=True, text=True)
    if done.returncode:
        return {"error": reason(done.stderr)}
    result = json.loads(done.stdout)
    used = server.cpu() - before
    return {
        "rate": result["requests"] / result["seconds"],
        "per_cpu_second": result["requests"] / max(used, 0.01),
        "p99": result["classes"][0]["p99"],
    }


class Subscribers:
    """Open streams of events, held by a load generator that waits to be told to publish."""

    def __init__(self, server: Running, count: int, seconds: float, folder: Path, rate: float = 0) -> None:
        files = []
        for name, raw in (
            ("subscribe", request("GET", "/events")),
            ("publish", request("POST", "/publish", b"x", "text/plain")),
        ):
            files.append(folder / f"{name}.http")
            files[-1].write_bytes(raw)
        line = [str(LOADGEN), "fanout", f"127.0.0.1:{server.port}", str(count), str(seconds), str(rate)]
        self.process = subprocess.Popen(
            ["taskset", "-c", "1", *line, *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline() == "ready\n"

    def publish(self) -> None:
        """Begin to publish."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> dict:
        """Wait for the end; what the load generator printed, or its error."""
        out, error = self.process.communicate()
        if self.process.returncode:
            return {"error": reason(error)}
        return json.loads(out)


def fanout(server: Running, count: int, seconds: float, folder: Path) -> dict:
    """Events to many subscribers: each event is published when all have got the last."""
    rest = server.resident()
    streams = Subscribers(server, count, seconds, folder)
    if not streams.ready:
        return streams.result()
    held = server.resident()
    before = server.cpu()
    streams.publish()
    result = streams.result()
    if "error" in result:
        return result
    used = server.cpu() - before
    return {
        "rate": result["requests"] / result["seconds"],
        "per_cpu_second": result["requests"] / max(used, 0.01),
        "p99": result["classes"][0]["p99"],
        "bytes_per_subscriber": (held - rest) * 2**20 / count,
    }


def beside(server: Running, seconds: float, folder: Path) -> dict:
    """Another view's p99 alone, and beside open streams that get an event ten times a second."""
    raw = folder / "plain.http"
    raw.write_bytes(request("GET", "/plain"))
    # A p99 of fewer requests is that of the moment at which the streams were opened.
    seconds = max(seconds, 3)
    load(server, [(1, raw)], 1, BESIDE_RATE)
    alone = load(server, [(1, raw)], seconds, BESIDE_RATE)
    streams = Subscribers(server, BESIDE_STREAMS, seconds + 1, folder, rate=10)
    if not streams.ready:
        return streams.result()
    quiet = load(server, [(1, raw)], seconds, BESIDE_RATE)
    streams.publish()
    busy = load(server, [(1, raw)], seconds, BESIDE_RATE)
    result = streams.result()
    if "error" in result:
        return result
    kinds = (("alone", alone), ("quiet", quiet), ("busy", busy))
    return {name: found["classes"][0]["p99"] for name, found in kinds}


def measure_streams(seconds: float, rounds: int, only: list[str] | None = None, latency: bool = True) -> dict:
    """The figures of each round by server, in `echo` and `fanout` also by size or number of subscribers."""
    results: dict = {"echo": {}, "fanout": {}, "beside": {}, "versions": {}}
    paths = {peer.name: path for peer, path in ECHO}
    everyone = [peer for peer, _ in ECHO] + FANOUT
    peers = [peer for peer in everyone if only is None or peer.name in only]
    for peer in peers:
        peer.install()
        results["versions"][peer.name] = peer.version()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for turn in range(rounds):
            for peer in peers:
                if not available(peer):
                    continue
                log = folder / f"{peer.name}.log"
                if path := paths.get(peer.name):
                    rows = results["echo"].setdefault(peer.name, {})
                    with started(peer, log) as server:
                        echo(server, path, 64, 0.5)
                        for size in ECHO_SIZES:
                            rows.setdefault(str(size), []).append(echo(server, path, size, seconds))
                    continue
                rows = results["fanout"].setdefault(peer.name, {})
                # A fresh server each time: memory that is free again would hide what a stream costs.
                for count in SUBSCRIBERS:
                    with started(peer, log) as server:
                        rows.setdefault(str(count), []).append(fanout(server, count, seconds, folder))
                if not latency:
                    continue
                with started(peer, log) as server:
                    results["beside"].setdefault(peer.name, []).append(beside(server, seconds, folder))
            print(f"streams: round {turn + 1} of {rounds} done", file=sys.stderr)
    return results


def print_table(results: dict) -> None:
    """Medians, for reading at once."""
    for kind in ("echo", "fanout"):
        for name, rows in results[kind].items():
            for size, runs in rows.items():
                good = [run for run in runs if "error" not in run]
                text = runs[0].get("error", "") if not good else ""
                for key in good[0] if good else ():
                    text += f" {key} {statistics.median(run[key] for run in good):,.0f}"
                print(f"{kind:8} {name:28} {size:>6} {text}")
    for name, runs in results["beside"].items():
        print(f"beside   {name:28} {runs}")


def main() -> None:
    """Parse the command line, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of servers, separated by commas")
    parser.add_argument("--quick", action="store_true", help="print the table only")
    parser.add_argument("--note", default="", help="what a reader of the report has to know of this run")
    parser.add_argument("--no-latency", action="store_true", help="leave out views beside streams")
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "loadgen"], cwd=ROOT, check=True)
    raise_file_limit()
    only = options.only.split(",") if options.only else None
    results = measure_streams(options.seconds, options.rounds, only, not options.no_latency)
    results["note"] = options.note
    print_table(results)
    if not options.quick:
        from report import keep

        keep("streams", results)


def raise_file_limit() -> None:
    """Allow as many open connections as the system does, for this process and those that it starts."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
