"""How long it takes from starting a server's command to its first answer.

Starts each server in turn, again and again, asks until it answers, and ends it. Prints the median and the
fastest start, and the processor time until then, for a Flask application of one view: on Hipflask, in the
standalone binary if there is one, on gunicorn with Flask, and on uvicorn for a Starlette application.

    python benches/cold_start.py [--times 20] [--binary target/release/hipflask]
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    begin = time.perf_counter()
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
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


def main() -> None:
    """Measure all in turn, so that what else the machine does falls on each alike."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/hipflask")
    options = parser.parse_args()
    python = [sys.executable, "-m"]
    commands = {
        "Hipflask": [*python, "hipflask", "--app", "ours", "run", "--port", "{}"],
        "Flask on gunicorn": [*python, "gunicorn", "--bind", "127.0.0.1:{}", "theirs:app"],
        "Flask's development server": [*python, "flask", "--app", "theirs", "run", "--port", "{}"],
        "Starlette on Hipflask": [*python, "hipflask", "run", "others:app", "--port", "{}"],
        "Starlette on uvicorn": [*python, "uvicorn", "others:app", "--port", "{}"],
    }
    if options.binary.exists():
        os.environ["VIRTUAL_ENV"] = sys.prefix
        binary = str(options.binary.resolve())
        commands["Hipflask, the binary"] = [binary, "--app", "ours", "run", "--port", "{}"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours.py").write_text(FLASK.format("hipflask"))
        (folder / "theirs.py").write_text(FLASK.format("flask"))
        (folder / "others.py").write_text(STARLETTE)
        # The first round writes bytecode, and is not counted.
        for round_ in range(options.times + 1):
            for kind, command in commands.items():
                port = free_port()
                measured = first_answer([part.format(port) for part in command], folder, port)
                if round_:
                    found[kind].append(measured)
    print(f"{'':28} {'median':>8} {'fastest':>8} {'processor':>10}   of {options.times}, in ms")
    for kind, times in found.items():
        walls, processors = zip(*times, strict=True)
        middle, fastest, used = statistics.median(walls), min(walls), statistics.median(processors)
        print(f"{kind:28} {middle:8.0f} {fastest:8.0f} {used:10.0f}")


if __name__ == "__main__":
    main()
