"""A `hipflask run` as its operator sees it, and clients that keep an account of every request.

`APP` writes a line for each request that a view gets, so that what clients got can be compared with it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

HIPFLASK = [sys.executable, "-u", "-m", "hipflask"]
#: Longest wait for anything.
PATIENCE = 30.0

APP = """
import os
import time
from hipflask import Flask, request

app = Flask(__name__)
VERSION = "one"
seen = os.open("seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


@app.route("/count/<name>", methods=["GET", "POST"])
def count(name):
    os.write(seen, f"{os.getpid()} {name}\\n".encode())
    time.sleep(float(request.args.get("sleep", 0)))
    return f"{os.getpid()} {VERSION} {name} {len(request.data)}"


@app.get("/who")
def who():
    return f"{os.getpid()} {os.getuid()} {os.getgid()}"


@app.get("/die")
def die():
    os._exit(3)
"""


class Command:
    """A running `hipflask run`, and what it prints.

    Args:
        folder: Where it runs; what it is told to serve is `hello.py` there.
        args: Further arguments.
        prefix: Words before the command, of a shell for example.
        program: The command; the standalone binary instead of the installed one, for example.
        more: For `subprocess.Popen`.
    """

    def __init__(
        self, folder: Path, *args: str, prefix: tuple[str, ...] = (), program: list[str] = HIPFLASK, **more
    ) -> None:
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("HIPFLASK_", "FLASK_")) and k != "PWD"
        }
        environment.update(more.pop("env", {}))
        self.folder = folder
        self.process = subprocess.Popen(
            [*prefix, *program, "run", "hello", *args],
            cwd=more.pop("cwd", folder),
            env={"PWD": str(folder), **environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **more,
        )
        self.lines: list[str] = []
        self.read_to = 0
        self.ended = False
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line)
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    @property
    def text(self) -> str:
        """All that it has printed."""
        return "".join(self.lines)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line; those before it are not looked at again."""
        deadline = time.monotonic() + PATIENCE
        with self.news:
            while True:
                for at in range(self.read_to, len(self.lines)):
                    found = re.search(pattern, self.lines[at])
                    if found:
                        self.read_to = at + 1
                        return found
                assert not self.ended, self.text
                assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text}"
                self.news.wait(1)

    def port(self) -> int:
        """The port, when it serves."""
        return int(self.until(r"Running on http://\S*:(\d+)")[1])

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end, and for all that holds its output; returns the status."""
        status = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        assert not self.reader.is_alive(), "somebody still has the server's output:\n" + self.text
        return status

    def stop(self) -> int:
        """Send SIGTERM and wait."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def workers(self) -> list[int]:
        """The numbers of its worker processes."""
        return children(self.process.pid)

    def close(self) -> None:
        """End what still runs."""
        for pid in (*self.workers(), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stdout.close()


def children(pid: int) -> list[int]:
    """The children of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def lives(pid: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition, what: str) -> None:
    """Wait until something is so that nobody tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def get(where: int | str, path: str = "/who") -> str:
    """The body of an answer, by a port or by a Unix socket's path."""
    if isinstance(where, int):
        connection = http.client.HTTPConnection("127.0.0.1", where, timeout=PATIENCE)
    else:
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(where)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


class Load:
    """Clients that send one request after the other, and know what became of each.

    Some keep their connections, some open one for each request, some send bodies, some ask for slow views.
    """

    KINDS = ("kept", "kept", "kept", "fresh", "fresh", "slow", "body")

    def __init__(self, port: int) -> None:
        self.port = port
        self.lock = threading.Condition()
        #: The name of each request, and the answer: process, version.
        self.answers: dict[str, tuple[int, str]] = {}
        #: Requests that got no answer, and the process that had answered on their connection before.
        self.lost: dict[str, int | None] = {}
        #: Connections that were refused: then nobody listened.
        self.refused = 0
        self.wrong: list[str] = []
        self._stopping = False
        self.threads = [
            threading.Thread(target=self._run, args=(kind, number)) for number, kind in enumerate(self.KINDS)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, kind: str, number: int) -> None:
        connection: socket.socket | None = None
        pid: int | None = None
        at = 0
        while not self._stopping:
            at += 1
            name = f"{kind}-{number}-{at}"
            if connection is None:
                pid = None
                try:
                    connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
                except ConnectionRefusedError:
                    with self.lock:
                        self.refused += 1
                        self.lock.notify_all()
                    return
                except ConnectionResetError:
                    continue
            answer, closes = self._exchange(connection, kind, name)
            with self.lock:
                if answer is None:
                    self.lost[name] = pid
                    closes = True
                else:
                    process, version, echoed, length = answer.split()
                    if echoed != name or int(length) != (1000 if kind == "body" else 0):
                        self.wrong.append(f"{name}: {answer}")
                    pid = int(process)
                    self.answers[name] = pid, version
                self.lock.notify_all()
            if closes or kind == "fresh":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _exchange(self, connection: socket.socket, kind: str, name: str) -> tuple[str | None, bool]:
        query = "?sleep=0.2" if kind == "slow" else ""
        head = f"{'POST' if kind == 'body' else 'GET'} /count/{name}{query} HTTP/1.1\r\nHost: x\r\n"
        body = b"x" * 1000 if kind == "body" else b""
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        got = b""
        try:
            connection.sendall(head.encode() + b"\r\n" + body)
            while True:
                top, _, rest = got.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", top)
                if length and len(rest) >= int(length[1]):
                    break
                data = connection.recv(65536)
                if not data:
                    return None, True
                got += data
        except OSError:
            return None, True
        if not got.startswith(b"HTTP/1.1 200 "):
            self.wrong.append(f"{name}: {got[:200]!r}")
            return f"0 none {name} {len(body)}", True
        return rest.decode(), b"connection: close" in top.lower()

    def wait_for(self, number: int) -> None:
        """Wait until so many more requests have been answered."""
        with self.lock:
            wanted = len(self.answers) + number
            done = self.lock.wait_for(
                lambda: len(self.answers) >= wanted or self.refused == len(self.KINDS), PATIENCE
            )
            assert done, f"{len(self.answers)} of {wanted} answers came"

    def wait_for_refusal(self) -> None:
        """Wait until no client can connect any more."""
        with self.lock:
            assert self.lock.wait_for(lambda: self.refused == len(self.KINDS), PATIENCE)

    def stop(self) -> Load:
        """Let each client finish its request."""
        self._stopping = True
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return self

    def pids(self) -> set[int]:
        """The processes that have answered."""
        return {pid for pid, _ in self.answers.values()}


def account(load: Load, folder: Path) -> dict[str, int]:
    """Check that every request that a view got has its one answer, and every answer its view.

    Returns:
        Requests that a view got but whose client got no answer, and the process that had them.
    """
    assert load.wrong == []
    seen: dict[str, int] = {}
    lines = (folder / "seen").read_text().splitlines()
    for line in lines:
        pid, name = line.split()
        seen[name] = int(pid)
    repeated = [name for name, times in Counter(line.split()[1] for line in lines).items() if times > 1]
    assert repeated == []
    assert {name: pid for name, (pid, _) in load.answers.items()}.items() <= seen.items()
    return {name: pid for name, pid in seen.items() if name in load.lost}
