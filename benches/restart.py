"""What replacing the workers of a running server costs its clients: requests lost, and the longest pause.

usage: restart.py [--seconds S] [--rounds N] [--write]

Clients ask all the time, some with a new connection for each request, some on one that they keep. Meanwhile
the server is told to replace its workers (SIGHUP), or to start a new one of itself on the same sockets
(SIGUSR2), again and again. Lost is what was refused, reset or answered with an error. A kept connection that
is closed when the next request is sent is counted apart: the client cannot know whether the request was read,
and asks again (RFC 9112 section 9.3.1). The pause is the longest time between two answers of all clients.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from report import cell, measure_part, table
from servers import free_port

APP = """
import os
from {} import Flask

app = Flask(__name__)


@app.get("/")
def who():
    return str(os.getpid())
"""
#: Clients that connect for every request, and clients that keep a connection.
CONNECTING, KEEPING = 3, 3
#: Seconds between two requests of one client: what the clients ask for is far below what two cores can do.
PAUSE = 0.004


@dataclass
class Clients:
    """Clients that ask until they are stopped."""

    port: int
    answers: list[tuple[float, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    asked_again: int = 0
    stopping: bool = False

    def start(self) -> None:
        """Start all of them."""
        self.threads = [
            threading.Thread(target=self.ask, args=(number < KEEPING,))
            for number in range(CONNECTING + KEEPING)
        ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Have them end."""
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def ask(self, keep: bool) -> None:
        """One client."""
        connection: http.client.HTTPConnection | None = None
        while not self.stopping:
            kept = connection is not None
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status != 200:
                    raise OSError(f"status {answer.status}")
                self.answers.append((time.monotonic(), text))
                if not keep or answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = None
                if kept and isinstance(error, ConnectionError):
                    self.asked_again += 1
                else:
                    self.lost.append(repr(error))
            time.sleep(PAUSE)

    def pids(self) -> set[str]:
        """Processes that have answered."""
        return {text for _, text in self.answers}

    def wait(self, condition) -> None:
        """Wait until something is true of the answers so far."""
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"the workers were not replaced; lost: {self.lost[:3]}")
            time.sleep(0.01)


def replace(command: list[str], folder: Path, number: int, seconds: float) -> dict:
    """Start a server, ask, replace its workers again and again.

    Returns:
        How often, and how many requests were answered, lost and asked again; the pause is in ms.
    """
    port = free_port()
    line = [part.format(port) for part in command]
    (folder / "pid").unlink(missing_ok=True)
    process = subprocess.Popen(
        line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    clients = Clients(port)
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/")
                connection.getresponse().read()
                break
            except OSError:
                time.sleep(0.01)
        clients.start()
        times, end = 0, time.monotonic() + seconds
        while times == 0 or time.monotonic() < end:
            enough = len(clients.answers) + 100
            clients.wait(lambda enough=enough: len(clients.answers) > enough)
            before = clients.pids()
            os.kill(int((folder / "pid").read_text()), number)
            # Two new ones have answered, and the old ones do no more.
            clients.wait(lambda before=before: len(clients.pids() - before) >= 2)
            clients.wait(lambda before=before: not {text for _, text in clients.answers[-60:]} & before)
            times += 1
        clients.stop()
        moments = sorted(moment for moment, _ in clients.answers)
        pause = max(after - before for before, after in zip(moments, moments[1:], strict=False))
        return {
            "lost": len(clients.lost),
            "asked_again": clients.asked_again,
            "requests": len(moments),
            "pause": pause * 1000,
            "times": times,
        }
    finally:
        clients.stopping = True
        # The process that a new one has taken the place of may have ended.
        for pid in {process.pid, int((folder / "pid").read_text() or 0) or process.pid}:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        process.wait()


def measure(seconds: float, rounds: int) -> dict:
    """{server and signal: [{lost, requests, pause, times}, ...]}."""
    ours = [sys.executable, "-m", "hipflask", "run", "ours:app", "--port", "{}", "--workers", "2"]
    kinds = {
        "Hipflask, SIGHUP": ([*ours, "--pid-file", "pid"], signal.SIGHUP),
        "Hipflask, SIGUSR2": ([*ours, "--pid-file", "pid"], signal.SIGUSR2),
    }
    if find_spec("gunicorn") and find_spec("flask"):
        theirs = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:{}", "-w", "2", "-p", "pid"]
        kinds["Flask on gunicorn, SIGHUP"] = [*theirs, "--threads", "4", "theirs:app"], signal.SIGHUP
    found: dict = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours.py").write_text(APP.format("hipflask"))
        (folder / "theirs.py").write_text(APP.format("flask"))
        for _ in range(rounds):
            for kind, (command, number) in kinds.items():
                found.setdefault(kind, []).append(replace(command, folder, number, seconds))
    return found


def section(results: dict) -> list[str]:
    """The part of the report."""
    rows = [
        [
            kind,
            *(f"{sum(run[key] for run in runs):,}" for key in ("times", "requests", "lost", "asked_again")),
            cell(runs, "pause", 0),
        ]
        for kind, runs in results.items()
    ]
    return [
        "## Replacing the workers of a running server\n",
        f"Two workers, {CONNECTING + KEEPING} clients that ask all the time. A request is lost if it was"
        " refused, reset, or answered with an error; it is asked again if a kept connection was closed as it"
        " was sent. The pause is the longest between two answers. By `benches/restart.py`.\n",
        table(["server", "replaced", "answered", "lost", "asked again", "longest pause, ms"], rows),
    ]


if __name__ == "__main__":
    measure_part("restart", measure, section, seconds=5.0)
