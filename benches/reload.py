"""How long it takes from saving a file to the first answer of the new code, under `hipflask run --debug`.

Writes a five-line application to a temporary folder, serves it, and then again and again changes the text
that it answers with and asks for it until the new text comes. Prints each time, the median and the spread.

    python benches/reload.py [--times 20] [--type auto]
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

APP = """
from hipflask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    return "{}"
"""


def answer(port: int) -> str:
    """What the application says now. A connection that must wait for the new process waits here."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (ConnectionResetError, http.client.RemoteDisconnected):
        # The old process had taken the connection when it was told to end.
        return ""
    finally:
        connection.close()


def measure(times: int, kind: str) -> list[float]:
    """The milliseconds of each reload."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "hello.py")
        source.write_text(APP.format("first"))
        command = [sys.executable, "-m", "hipflask", "run", "--app", "hello", "--debug", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--reloader", kind],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert server.stdout is not None
            found = None
            while found is None:
                line = server.stdout.readline()
                assert line, "the server ended"
                found = re.search(r"http://[^:]+:(\d+)", line)
            threading.Thread(target=server.stdout.read, daemon=True).start()
            port = int(found[1])
            assert answer(port) == "first"
            taken = []
            for number in range(times):
                # As at a desk: the last reload is over, and the new process has settled.
                time.sleep(0.5)
                source.write_text(APP.format(f"text {number}"))
                begin = time.perf_counter()
                while answer(port) != f"text {number}":
                    time.sleep(0.001)
                taken.append((time.perf_counter() - begin) * 1000)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument(
        "--type", default="auto", help="the reloader: auto, inotify, watchfiles, watchdog, stat"
    )
    options = parser.parse_args()
    taken = measure(options.times, options.type)
    print(" ".join(f"{milliseconds:.0f}" for milliseconds in taken))
    print(
        f"median {statistics.median(taken):.0f} ms, fastest {min(taken):.0f} ms, slowest {max(taken):.0f} ms,"
        f" {options.times} reloads, {options.type}"
    )


if __name__ == "__main__":
    main()
