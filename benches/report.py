"""Turn the measurements of run.py, and of the scripts beside it, into RESULTS.md and results.svg."""

from __future__ import annotations

import argparse
import html
import importlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: The scripts that are a part of the report: each has `measure(seconds, rounds)`, and `section(results)`,
#: which gives lines of Markdown from what that returned.
PARTS = ("http2", "tls", "static", "workers", "cold_start", "restart")


def median_and_spread(runs: list[dict], key: str) -> tuple[float, float] | None:
    """The median of a figure over the rounds and half its range; None where the server gave wrong answers."""
    values = [run[key] for run in runs if key in run and not run.get("bad")]
    if not values:
        return None
    return statistics.median(values), (max(values) - min(values)) / 2


def cell(runs: list[dict] | None, key: str, digits: int) -> str:
    """A table's cell."""
    if not runs:
        return ""
    found = median_and_spread(runs, key)
    if found is None:
        return "fails"
    middle, spread = found
    return f"{middle:,.{digits}f} ±{spread:,.{digits}f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def measure_part(
    name: str, measure: Callable[[float, int], dict], section: Callable[[dict], list[str]], seconds: float
) -> None:
    """The command line of a script that is a part of the report: measure, print, and write if asked to.

    Args:
        name: The script's, as in `PARTS`.
        measure, section: The script's.
        seconds: How long each measurement takes if nothing else is said.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=seconds, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    options = parser.parse_args()
    results = measure(options.seconds, options.rounds)
    print("\n".join(section(results)))
    if options.write:
        path = HERE / "results.json"
        whole = json.loads(path.read_text())
        whole[name] = results
        path.write_text(json.dumps(whole) + "\n")
        write_report(whole)


def write_report(results: dict) -> None:
    """Write RESULTS.md and results.svg from what run.py measured."""
    workloads = results["workloads"]
    main = [name for name in workloads if not name.startswith("latency")]
    servers = list(results["versions"])
    machine = results["machine"]
    parts = [
        "# Results\n",
        f"Measured with `{machine['command']}` on {machine['date']}: {machine['cpu']},"
        f" {machine['cores']} cores, Linux {machine['kernel']}, CPython {machine['python']}. The server has"
        " one core, the load generator the other; 64 keep-alive connections; medians of interleaved rounds, ±"
        " half the range. “fails” means that answers were wrong or the connection broke.\n",
        "## CPU µs per request\n",
        table(
            ["server", *main],
            [[name, *(cell(workloads[load].get(name), "cpu", 1) for load in main)] for name in servers],
        ),
        "## Requests per second\n",
        table(
            ["server", *main],
            [[name, *(cell(workloads[load].get(name), "rate", 0) for load in main)] for name in servers],
        ),
        "## One connection: latency in µs\n",
        table(
            ["server", "p50", "p99"],
            [
                [
                    name,
                    *(
                        f"{statistics.median(run['classes'][0][key] for run in runs):,.0f}"
                        for key in ("p50", "p99")
                    ),
                ]
                for name, runs in workloads.get("latency of one connection", {}).items()
                if all("classes" in run for run in runs)
            ],
        ),
        "## Fast views beside slow ones\n",
        "400 requests a second at random times; milliseconds of the fast view (of the only view in the last"
        " mix), counted from the time at which the request was due.\n",
        table(
            ["load", "server", "p50", "p99"],
            [
                [name, server, *(f"{result['classes'][0][key] / 1e3:.2f}" for key in ("p50", "p99"))]
                for name, rows in results["mixes"].items()
                for server, result in rows.items()
                if "classes" in result
            ],
        ),
    ]
    for name, memory in results["memory"].items():
        parts.append(
            "## Memory\n\n"
            f"{name}: {memory['rest_mib']:.1f} MiB resident after the benchmark, "
            f"{memory['idle_connection_bytes']:,.0f} bytes more for each of 10,000 idle keep-alive"
            " connections.\n"
        )
    parts += streams(results.get("streams"))
    for part in PARTS:
        if part in results:
            parts += importlib.import_module(part).section(results[part])
    parts += [
        "## Versions\n",
        table(
            ["server", "version"],
            [[name, version or "system"] for name, version in results["versions"].items()],
        ),
        "![CPU µs per request](results.svg)\n",
    ]
    (HERE / "RESULTS.md").write_text("\n".join(parts))
    (HERE / "results.svg").write_text(plot(workloads, servers))


def streams(results: dict | None) -> list[str]:
    """The parts about what stays open, from what streams.py measured."""
    if not results:
        return []

    def rows(kind: str, keys: dict[str, int]) -> list[list[str]]:
        return [
            [name, f"{int(size):,}", *(cell(good(runs), key, digits) for key, digits in keys.items())]
            for name, sizes in results[kind].items()
            for size, runs in sizes.items()
        ]

    def good(runs: list[dict]) -> list[dict]:
        return [run for run in runs if "error" not in run] or [{}]

    figures = {"per_cpu_second": 0, "rate": 0, "p99": 0}
    beside = [
        [name, *(cell([{key: run[key] / 1e3} for run in good(runs) if run], key, 2) for key in BESIDE)]
        for name, runs in results["beside"].items()
    ]
    note = results.get("note", "")
    parts = [
        "## WebSocket echo\n",
        *([f"{note}\n"] if note else []),
        "100 connections, each with one text message on its way, without compression. CPU seconds are the"
        " server's, as the kernel counts them.\n",
        table(
            ["server", "bytes", "messages per CPU second", "messages per second", "p99, µs"],
            rows("echo", figures),
        ),
        "## Server-sent events to many\n",
        "An event of 100 bytes is published when every subscriber has got the last; the latency is that of"
        " the last subscriber, counted from the publishing request.\n",
        table(
            [
                "server",
                "subscribers",
                "events per CPU second",
                "events per second",
                "p99, µs",
                "bytes per subscriber",
            ],
            rows("fanout", {**figures, "bytes_per_subscriber": 0}),
        ),
    ]
    if beside:
        parts += [
            "A small view at 400 requests a second beside 1,000 open streams: its p99 in milliseconds.\n",
            table(["server", *BESIDE.values()], beside),
        ]
    return parts


#: The states in which another view is measured.
BESIDE = {"alone": "no streams", "quiet": "quiet streams", "busy": "10 events a second to each"}


def plot(
    workloads: dict, servers: list[str], shown: tuple[str, ...] = ("plain", "param", "post-json", "session")
) -> str:
    """Bars of CPU µs per request for a few workloads, cut at a length that keeps the short bars readable."""
    width, bar, gap, left = 760, 16, 5, 190
    top, lines = 30, []
    y = top
    for workload in shown:
        found = {
            name: median_and_spread(workloads[workload][name], "cpu")
            for name in servers
            if name in workloads.get(workload, {})
        }
        values = {name: pair[0] for name, pair in found.items() if pair}
        if not values:
            continue
        scale = (width - left - 90) / min(max(values.values()), 12 * min(values.values()))
        lines.append(f'<text x="8" y="{y}" class="head">{workload}: CPU µs per request</text>')
        y += 12
        for name, value in values.items():
            length = min(value * scale, width - left - 90)
            cut = " →" if value * scale > length else ""
            kind = "ours" if name == "Hipflask" else "raw" if name.startswith("raw") else "peer"
            lines.append(
                f'<text x="{left - 6}" y="{y + bar - 4}" class="name">{html.escape(name)}</text>'
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" class="{kind}"/>'
                f'<text x="{left + length + 5:.1f}" y="{y + bar - 4}">{value:.1f}{cut}</text>'
            )
            y += bar + gap
        y += 26
    style = (
        "text{font:12px sans-serif;fill:#555}.name{text-anchor:end}.head{font-weight:bold}"
        ".ours{fill:#2a7ae2}.peer{fill:#b8bec6}.raw{fill:#7fb77e}"
        "@media (prefers-color-scheme:dark){text{fill:#bbb}.peer{fill:#5b626b}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}"'
        f' role="img" aria-label="CPU time per request of several servers"><style>{style}</style>'
        + "".join(lines)
        + "</svg>\n"
    )
