"""`hipflask top`: a running server in the terminal, by its control socket (the setting `control`).

Reads the status twice and shows what has happened between: rates, and percentiles out of the differences of
histograms, as exact as their buckets are. Draws with the plain sequences that every terminal knows.
"""

from __future__ import annotations

import os
import sys
import time
import typing as t

import click

if t.TYPE_CHECKING:
    from collections.abc import Iterator

Status = dict[str, t.Any]

#: By what routes may be sorted, in the order in which the key `s` goes through them.
ORDERS = ("rate", "p99", "errors", "total")
# Longest wait for an answer.
_PATIENCE = 5.0
# How often the terminal's size and keys are looked at.
_STEP = 0.1
_MIB = 1 << 20


class NoAnswer(Exception):
    """The control socket does not answer: a sentence that says why."""


class Route(t.NamedTuple):
    """What one route and method has done between two looks."""

    name: str
    #: Requests in this time, those that failed with 5xx, and all since the server began.
    requests: int
    errors: int
    total: int
    #: Seconds that they took together.
    seconds: float
    buckets: list[int]


@click.command("top", short_help="Watch a running server.")
@click.argument("socket", required=False)
@click.option("--once", is_flag=True, help="Print once, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print once all that the server tells, as JSON.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option(
    "--sort", type=click.Choice(ORDERS), default="rate", show_default=True, help="Which routes come first."
)
def top_command(socket: str | None, once: bool, as_json: bool, interval: float, sort: str) -> None:
    """Watch a server that was started with --control SOCKET.

    Without SOCKET, the setting 'control' says where it is. Keys: q quits, s sorts routes by something else.
    """
    if socket is None:
        from .setting_types import SettingError
        from .settings import Settings, parse

        try:
            given = os.environ.get("HIPFLASK_CONTROL")
            socket = parse("control", given) if given else Settings()["control"]
        except SettingError as error:
            raise click.UsageError(str(error)) from None
        if socket is None:
            raise click.UsageError(
                "Say which socket: 'hipflask top SOCKET', of a server started with '--control SOCKET'."
            )
    try:
        if as_json:
            click.echo(_ask(socket))
        elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
            before = read_status(socket)
            time.sleep(interval)
            click.echo("\n".join(render(before, read_status(socket), order=sort)))
        else:
            _watch(socket, interval, sort)
    except NoAnswer as error:
        raise click.ClickException(str(error)) from None


# Asking.


def _ask(path: str) -> str:
    import socket

    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(path)
            connection.sendall(b"GET /status HTTP/1.1\r\nHost: top\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := connection.recv(1 << 16):
                answer += data
    except OSError as error:
        raise NoAnswer(f"No server answers at {path}: {error.strerror or error}.") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise NoAnswer(f"What answers at {path} is no control socket.")
    return body.decode()


def read_status(path: str) -> Status:
    """Ask a server how it is.

    Args:
        path: Its control socket.

    Returns:
        What it tells.

    Raises:
        NoAnswer: If none answers there, or something else.
    """
    import json

    try:
        return t.cast("Status", json.loads(_ask(path)))
    except ValueError:
        raise NoAnswer(f"What answers at {path} is no control socket.") from None


# Numbers.


def quantile(bounds: list[float], buckets: list[int], share: float) -> float | None:
    """Estimate a quantile of a histogram.

    Args:
        bounds: Upper bounds of the buckets, in seconds.
        buckets: The count in each, and one more for what is above all bounds.
        share: Between 0 and 1.

    Returns:
        Seconds, the last bound for what is above it; None if nothing was counted.
    """
    wanted = sum(buckets) * share
    if not wanted:
        return None
    before, lower = 0, 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        if count and before + count >= wanted:
            return lower + (bound - lower) * (wanted - before) / count
        before, lower = before + count, bound
    return bounds[-1]


def routes_between(before: Status, after: Status) -> list[Route]:
    """What each route and method has done from one look to the next."""
    old = {(each["route"], each["method"], each["status"]): each for each in before["routes"]}
    found: dict[str, Route] = {}
    for each in after["routes"]:
        was = old.get((each["route"], each["method"], each["status"]))
        count = each["count"] - (was["count"] if was else 0)
        buckets = [
            now - then
            for now, then in zip(each["buckets"], was["buckets"] if was else _nothing(), strict=False)
        ]
        name = f"{each['method']} {each['route']}"
        sofar = found.get(name, Route(name, 0, 0, 0, 0.0, [0] * len(buckets)))
        found[name] = Route(
            name,
            sofar.requests + count,
            sofar.errors + (count if each["status"] == "5xx" else 0),
            sofar.total + each["count"],
            sofar.seconds + each["seconds"] - (was["seconds"] if was else 0),
            [one + other for one, other in zip(sofar.buckets, buckets, strict=True)],
        )
    return list(found.values())


def _nothing() -> Iterator[int]:
    while True:
        yield 0


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _age(seconds: float) -> str:
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86_400
    if days:
        return f"{days}d {hours % 24}h"
    return f"{hours}h {minutes % 60:02}m" if hours else f"{minutes}m {int(seconds) % 60:02}s"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"


def _bytes(number: float) -> str:
    if number < 10_000:
        return f"{number:.0f} B"
    return f"{number / 1e3:.0f} kB" if number < 1e7 else f"{number / 1e6:.0f} MB"


# Showing.


def render(
    before: Status, after: Status, width: int = 120, height: int | None = None, order: str = "rate"
) -> list[str]:
    """Describe what has happened between two looks.

    Args:
        before: The first one.
        after: The second one.
        width: Columns; longer lines are cut.
        height: Lines, at most; None for as many as there are.
        order: By what routes are sorted, one of `ORDERS`.

    Returns:
        Lines without line ends.
    """
    took = max(after["uptime"] - before["uptime"], 1e-9)
    if after["started"] != before["started"]:
        # Another server answers there now: all that it has counted is new.
        took, before = max(after["uptime"], 1e-9), {**after, "routes": [], "refusals": [], "parts": {}}
        before["counters"] = dict.fromkeys(after["counters"], 0)
    lines = _summary(before, after, took)
    routes = _routes(before, after, took, order)
    running, slow, workers = _running(after), _slow(after), _workers(after)
    if height is not None:
        # The table of routes gets what the others leave, and at least a third.
        room = height - len(lines)
        least = max(3, room // 3)
        for table in (workers, slow, running):
            others = sum(len(each) + 1 for each in (workers, slow, running) if each)
            if others > room - least:
                del table[max(4, len(table) - (others - (room - least))) :]
        routes = routes[: max(3, room - 1 - sum(len(each) + 1 for each in (running, slow, workers) if each))]
    for table in (routes, running, slow, workers):
        if table:
            lines += ["", *table]
    return [_clean(line)[:width] for line in lines][:height]


def _clean(line: str) -> str:
    """Leave nothing in a line that could move the cursor."""
    return "".join(character if character.isprintable() else "?" for character in line)


def _summary(before: Status, after: Status, took: float) -> list[str]:
    workers = after["workers"]

    def sum_of(name: str) -> int:
        return sum(worker[name] for worker in workers)

    def rate(name: str) -> float:
        return float(after["counters"][name] - before["counters"][name]) / took

    classes = dict.fromkeys(("2xx", "3xx", "4xx", "5xx"), 0)
    for sign, status in ((1, after), (-1, before)):
        for each in status["routes"]:
            if each["status"] in classes:
                classes[each["status"]] += sign * each["count"]
    refused = sum(each["count"] for each in after["refusals"]) - sum(
        each["count"] for each in before["refusals"]
    )
    parts = []
    for name, part in after["parts"].items():
        was = before["parts"].get(name, {"buckets": [0] * len(part["buckets"])})
        buckets = [now - then for now, then in zip(part["buckets"], was["buckets"], strict=True)]
        middle, high = (quantile(after["bounds"], buckets, share) for share in (0.5, 0.99))
        parts.append(f"{name} {_duration(middle)} / {_duration(high)}")
    number = len(workers)
    ready = "ready" if after["ready"] else "NOT READY"
    # A server of an older version does not say.
    late = sum(worker.get("stuck", 0) for worker in workers)
    stuck = f", {late} stuck" if late else ""
    return [
        f"hipflask {after['version']}   up {_age(after['uptime'])}   {ready}"
        f"   {number} worker{'' if number == 1 else 's'}, {after['restarts']} restarts"
        f"   {sum_of('memory') / _MIB:,.0f} MiB",
        f"requests  {_number(rate('requests'))}/s   "
        + "   ".join(f"{name} {_number(count / took)}/s" for name, count in classes.items())
        + f"   refused {_number(refused / took)}/s   in flight {sum_of('in_flight')}",
        f"threads   {sum_of('busy')} of {sum_of('threads_limit')} busy{stuck}"
        f"   queue {sum_of('queue')} of {sum_of('queue_limit'):,}   retakes {_number(rate('retakes'))}/s",
        f"clients   {sum_of('connections'):,} connections   {_number(rate('accepted'))}/s accepted"
        f"   {sum_of('event_streams')} event streams   {sum_of('websockets')} WebSockets"
        f"   in {_bytes(rate('received'))}/s   out {_bytes(rate('sent'))}/s",
        "p50 / p99 " + "   ".join(parts),
    ]


def _routes(before: Status, after: Status, took: float, order: str) -> list[str]:
    rows = []
    for route in routes_between(before, after):
        middle, high = (quantile(after["bounds"], route.buckets, share) for share in (0.5, 0.99))
        keys = {"rate": route.requests, "p99": high or 0, "errors": route.errors, "total": route.total}
        mean = route.seconds / route.requests if route.requests else None
        share = f"{100 * route.errors / route.requests:.1f} %" if route.requests else "-"
        line = (
            f"{_number(route.requests / took):>9} {_duration(middle):>9} {_duration(high):>9}"
            f" {_duration(mean):>9} {share:>8} {route.total:>11,}  {route.name}"
        )
        rows.append(((keys[order], route.total), line))
    rows.sort(key=lambda row: row[0], reverse=True)
    heading = f"{'RATE/s':>9} {'P50':>9} {'P99':>9} {'MEAN':>9} {'5XX':>8} {'TOTAL':>11}  ROUTE"
    return [heading, *(line for _, line in rows)]


def _running(status: Status) -> list[str]:
    runs = [(run["seconds"], worker["pid"], run) for worker in status["workers"] for run in worker["running"]]
    runs.sort(key=lambda run: run[0], reverse=True)
    lines = [
        f"{_duration(seconds):>9} {pid:>9} {_thread(run):>9}  {run['view']}" for seconds, pid, run in runs
    ]
    return [f"{'RUNS FOR':>9} {'WORKER':>9} {'THREAD':>9}  VIEW", *lines] if lines else []


def _slow(status: Status) -> list[str]:
    found = [slow for worker in status["workers"] for slow in worker["slow"]]
    found.sort(key=lambda slow: slow["total"], reverse=True)
    lines = [
        "".join(f"{_duration(slow[name]):>9} " for name in ("total", "queue", "gil", "view", "write"))
        + f"{_age(max(0, status['uptime'] - slow['at'])):>9} {slow['status']:>6}  {slow['request']}"
        for slow in found[:16]
    ]
    heading = "".join(f"{name:>9} " for name in ("SLOWEST", "QUEUE", "GIL", "VIEW", "WRITE", "AGO"))
    return [f"{heading}{'STATUS':>6}  REQUEST", *lines] if lines else []


def _workers(status: Status) -> list[str]:
    lines = [
        f"{worker['pid']:>9} {worker['state']:>9} {worker['connections']:>9,} {worker['in_flight']:>9,}"
        f" {worker['busy']:>9} {worker['queue']:>9,} {worker['memory'] / _MIB:>5,.0f} MiB"
        f" {_age(max(0, status['started'] + status['uptime'] - worker['started'])):>9}"
        for worker in status["workers"]
    ]
    names = ("WORKER", "STATE", "CLIENTS", "IN FLIGHT", "BUSY", "QUEUE", "MEMORY", "AGE")
    return [" ".join(f"{name:>9}" for name in names), *lines] if lines else []


# The terminal.


def _watch(path: str, interval: float, order: str) -> None:
    """Draw until somebody presses q."""
    import contextlib
    import termios
    import tty

    # The first look: a mistake is told before the screen changes.
    before = after = read_status(path)
    keyboard = sys.stdin.fileno()
    settings = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        # The other screen, without a cursor.
        _write("\x1b[?1049h\x1b[?25l")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                note = f"sorted by {order}   q quits, s sorts"
                pressed = _draw_until(time.monotonic() + interval, keyboard, before, after, order, note)
                if pressed == "q":
                    return
                if pressed == "s":
                    order = ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]
                    continue
                try:
                    before, after = after, read_status(path)
                except NoAnswer as error:
                    note = str(error)
                    if _draw_until(time.monotonic() + interval, keyboard, before, after, order, note) == "q":
                        return
    finally:
        _write("\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(keyboard, termios.TCSADRAIN, settings)


def _draw_until(
    deadline: float, keyboard: int, before: Status, after: Status, order: str, note: str
) -> str | None:
    """Draw, and again when the terminal's size has changed; returns the key that ended that, or None."""
    import select
    import shutil

    drawn = None
    while True:
        size = shutil.get_terminal_size()
        if size != drawn:
            drawn = size
            lines = render(before, after, size.columns, max(1, size.lines - 1), order)
            lines += [""] * (size.lines - 1 - len(lines)) + [_clean(note)[: size.columns - 1]]
            headings = {at + 1 for at, line in enumerate(lines) if line == ""} | {0}
            shown = [f"\x1b[1m{line}\x1b[0m" if at in headings else line for at, line in enumerate(lines)]
            # From the top, each line to its end: no flicker, and nothing left of what was there.
            _write("\x1b[H" + "\x1b[K\n".join(shown) + "\x1b[K\x1b[J")
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        ready, _, _ = select.select([keyboard], [], [], min(left, _STEP))
        if ready:
            key = os.read(keyboard, 64).decode(errors="replace").lower()
            # The end of the input is a terminal that has gone.
            if not key or "q" in key:
                return "q"
            if "s" in key:
                return "s"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _thread(run: dict[str, t.Any]) -> str:
    """The thread of a view that runs; a coroutine that waits has none."""
    return "-" if run["thread"] is None else str(run["thread"])
