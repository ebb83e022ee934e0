"""How long it takes from starting a server's command to its first answer.

usage: cold_start.py [--seconds S] [--rounds N] [--write]

Starts each server in turn, again and again, asks until it answers, and ends it. Prints the median and the
fastest start, and the processor time until then, for a Flask application of one view: on Hipflask, in the
standalone binary if it has been built, on gunicorn with Flask, and on uvicorn for a Starlette application.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from report import cell, measure_part, table
from servers import TICK, free_port

ROOT = Path(__file__).resolve().parent.parent
FLASK = """
from {} import Flask

app = Flask(__name__)
app.get("/")(lambda: "hello")
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def hello(request):
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/", hello)])
"""


def first_answer(command: list[str], folder: Path, port: int) -> tuple[float, float]:
    """Start a server, and end it when it has answered.

    Returns:
        Milliseconds until the answer, and milliseconds of processor time that all its processes took for it.
    """
    # All have bytecode of all modules, as installed packages do.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "cache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    server = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"hello"
                break
            except OSError:
                assert server.poll() is None, f"{command} ended"
                time.sleep(0.001)
        taken = time.perf_counter() - begin
        return taken * 1000, processor_time(server.pid) * 1000
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def processor_time(session: int) -> float:
    """Seconds of processor time of all processes of a session, and of their children that have ended."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            total += sum(map(int, fields[11:15]))
    return total / TICK


def commands() -> dict[str, list[str]]:
    """What is compared: the command of each, with `{}` for the port."""
    python = [sys.executable, "-m"]
    found = {"Hipflask": [*python, "hipflask", "--app", "ours", "run", "--port", "{}"]}
    binary = ROOT / "target/release/hipflask"
    if binary.exists():
        os.environ["VIRTUAL_ENV"] = sys.prefix
        found["Hipflask, the binary"] = [str(binary), "--app", "ours", "run", "--port", "{}"]
    if find_spec("flask"):
        found["Flask's development server"] = [*python, "flask", "--app", "theirs", "run", "--port", "{}"]
        if find_spec("gunicorn"):
            found["Flask on gunicorn"] = [*python, "gunicorn", "--bind", "127.0.0.1:{}", "theirs:app"]
    if find_spec("starlette"):
        found["Starlette on Hipflask"] = [*python, "hipflask", "run", "others:app", "--port", "{}"]
        if find_spec("uvicorn"):
            found["Starlette on uvicorn"] = [*python, "uvicorn", "others:app", "--port", "{}"]
    return found


def measure(seconds: float, rounds: int) -> dict:
    """{server: [{wall, cpu}, ...]}: milliseconds until the first answer of each start, all in turn.

    The number of starts is what fits into `seconds` for each round, were each a quarter of a second.
    """
    found: dict = {name: [] for name in commands()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours.py").write_text(FLASK.format("hipflask"))
        (folder / "theirs.py").write_text(FLASK.format("flask"))
        (folder / "others.py").write_text(STARLETTE)
        # The first turn writes bytecode, and is not counted.
        for turn in range(max(2, round(seconds * 4 * rounds)) + 1):
            for kind, command in commands().items():
                port = free_port()
                wall, cpu = first_answer([part.format(port) for part in command], folder, port)
                if turn:
                    found[kind].append({"wall": wall, "cpu": cpu})
    return found


def section(results: dict) -> list[str]:
    """The part of the report."""
    rows = [
        [
            kind,
            cell(runs, "wall", 0),
            f"{min(run['wall'] for run in runs):.0f}",
            cell(runs, "cpu", 0),
        ]
        for kind, runs in results.items()
    ]
    return [
        "## From the command to the first answer\n",
        "An application of one view, milliseconds; processor time is that of all processes until the answer."
        " By `benches/cold_start.py`.\n",
        table(["server", "median", "fastest", "processor time"], rows),
    ]


if __name__ == "__main__":
    measure_part("cold_start", measure, section, seconds=2.0)
