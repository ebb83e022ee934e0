"""The servers that the benchmark compares, and how each is installed and started.

Each Python peer lives in an environment of its own under `benches/.envs`, made from PyPI at its current
version.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVS = HERE / ".envs"
APPS = HERE / "apps"

FLASK_WORKLOADS = [
    "plain",
    "json",
    "param",
    "post-json",
    "page",
    "form",
    "upload",
    "static",
    "routes",
    "session",
]
ASYNC_WORKLOADS = ["async", "async-sleep"]
BARE_WORKLOADS = ["plain", "json", "param", "post-json"]


@dataclass
class Peer:
    """A server under test.

    Attributes:
        name: What the tables call it.
        command: Its command line; `{port}` and `{python}` are filled in.
        workloads: What it can answer.
        packages: What its environment needs from PyPI.
        env: Environment variables.
        probe: The distribution whose version the report names.
    """

    name: str
    command: list[str]
    workloads: list[str]
    packages: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    probe: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of the peer's environment; peers with the same packages share one."""
        return ENVS / (self.packages[0] if self.packages else "none")

    @property
    def python(self) -> str:
        """The interpreter that runs the peer."""
        return str(self.folder / "bin" / "python") if self.packages else sys.executable

    def install(self) -> None:
        """Make the environment if it is not there.

        Raises:
            subprocess.CalledProcessError: If a package cannot be installed.
        """
        if self.packages and not (self.folder / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", *self.packages], check=True)
            (self.folder / ".ready").touch()

    def version(self) -> str:
        """The version of what is measured."""
        if self.probe is None:
            return ""
        code = f"import importlib.metadata as m; print(m.version({self.probe!r}))"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True).stdout.strip()

    def line(self, port: int) -> list[str]:
        """The command line for a port."""
        return [part.format(port=port, python=self.python, apps=APPS, root=ROOT) for part in self.command]


FLASK = ["flask==3.1.3", "werkzeug==3.1.6", "gunicorn", "granian"]
FLASK_ENV = {"BENCH_FRAMEWORK": "flask"}
GRANIAN = [
    "{python}",
    "-m",
    "granian",
    "--workers",
    "1",
    "--host",
    "127.0.0.1",
    "--port",
    "{port}",
    "--no-ws",
    "--log-level",
    "warning",
]

PEERS = [
    Peer(
        "raw loop without Python",
        ["{root}/target/release/examples/raw", "{port}"],
        ["plain", "json", "param"],
    ),
    Peer(
        "Hipflask",
        ["{python}", "-m", "hipflask", "--app", "{apps}/flask_app.py", "run", "--port", "{port}"],
        FLASK_WORKLOADS + ASYNC_WORKLOADS,
        probe="hipflask",
    ),
    Peer(
        "Starlette on Hipflask",
        ["{python}", "-m", "hipflask", "run", "starlette_app:app", "--port", "{port}"],
        ["plain", "param", *ASYNC_WORKLOADS],
        probe="starlette",
    ),
    Peer(
        "Starlette on Granian",
        [*GRANIAN, "--interface", "asgi", "--loop", "uvloop", "starlette_app:app"],
        ["plain", "param", *ASYNC_WORKLOADS],
        ["granian", "uvloop", "starlette"],
        probe="granian",
    ),
    Peer(
        "Starlette on uvicorn",
        [
            *("{python}", "-m", "uvicorn", "starlette_app:app", "--port", "{port}", "--no-access-log"),
            *("--log-level", "warning"),
        ],
        ["plain", "param", *ASYNC_WORKLOADS],
        ["uvicorn", "uvloop", "httptools", "starlette"],
        probe="starlette",
    ),
    Peer(
        "nginx",
        ["nginx", "-p", "{apps}", "-c", "{apps}/nginx.conf", "-g", "daemon off;"],
        ["plain", "json", "param", "static"],
    ),
    Peer(
        "bjoern, bare",
        ["{python}", "{apps}/serve_wsgi.py", "bjoern", "{port}"],
        BARE_WORKLOADS,
        ["bjoern", "falcon", "jinja2", "itsdangerous"],
        probe="bjoern",
    ),
    Peer(
        "fastpysgi, bare",
        ["{python}", "{apps}/serve_wsgi.py", "fastpysgi", "{port}"],
        BARE_WORKLOADS,
        ["fastpysgi"],
        probe="fastpysgi",
    ),
    Peer(
        "Granian RSGI, bare",
        [*GRANIAN, "--interface", "rsgi", "--loop", "asyncio", "rsgi_bare:app"],
        BARE_WORKLOADS,
        FLASK,
        probe="granian",
    ),
    Peer(
        "Granian WSGI, bare",
        [*GRANIAN, "--interface", "wsgi", "wsgi_bare:app"],
        BARE_WORKLOADS,
        FLASK,
        probe="granian",
    ),
    Peer(
        "Falcon on bjoern",
        ["{python}", "{apps}/serve_wsgi.py", "bjoern", "{port}"],
        FLASK_WORKLOADS,
        ["bjoern", "falcon", "jinja2", "itsdangerous"],
        {"BENCH_APP": "falcon"},
        probe="falcon",
    ),
    Peer("OxAPY", ["{python}", "{apps}/oxapy_app.py", "{port}"], FLASK_WORKLOADS, ["oxapy"], probe="oxapy"),
    Peer(
        "BustAPI",
        ["{python}", "{apps}/bustapi_app.py", "{port}"],
        FLASK_WORKLOADS,
        ["bustapi", "jinja2"],
        probe="bustapi",
    ),
    Peer(
        "Robyn",
        ["{python}", "{apps}/robyn_app.py", "{port}"],
        FLASK_WORKLOADS,
        ["robyn", "jinja2", "itsdangerous"],
        probe="robyn",
    ),
    Peer(
        "Flask on Granian",
        [*GRANIAN, "--interface", "wsgi", "flask_app:app"],
        FLASK_WORKLOADS,
        FLASK,
        FLASK_ENV,
        probe="flask",
    ),
    Peer(
        "Flask on gunicorn",
        [
            "{python}",
            "-m",
            "gunicorn",
            "--workers",
            "1",
            "--threads",
            "8",
            "--bind",
            "127.0.0.1:{port}",
            "--log-level",
            "warning",
            "flask_app:app",
        ],
        FLASK_WORKLOADS,
        FLASK,
        FLASK_ENV,
        probe="gunicorn",
    ),
]


def available(peer: Peer) -> bool:
    """Whether the peer's program is there (nginx comes from the system)."""
    program = peer.line(0)[0]
    return Path(program).exists() or shutil.which(program) is not None
