"""The wheel as its users meet it: installed into an empty environment, with no compiler at hand."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HELLO = """\
from hipflask import Flask
app = Flask(__name__)
@app.route("/")
def hello():
    return "Hello, World!"
"""

#: What an app that renders nothing, sends no signal and logs nothing has no use for.
HEAVY = ("jinja2", "click", "blinker", "asyncio", "logging")


def maturin(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "maturin", *arguments], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `HIPFLASK_WHEEL` names, else one of the code as it is, in the profile of `make test`."""
    if os.environ.get("HIPFLASK_WHEEL"):
        return Path(os.environ["HIPFLASK_WHEEL"]).resolve()
    folder = tmp_path_factory.mktemp("wheel")
    profile = os.environ.get("TEST_PROFILE") or "dev"
    maturin("build", "--profile", profile, "--interpreter", sys.executable, "--out", str(folder))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel],
        check=True,
        env=without_tools(),
    )
    return python


def without_tools() -> dict[str, str]:
    """An environment in which neither a compiler nor the development environment can be found."""
    names = ("PIP_", "SSL_", "HTTP", "NO_PROXY")
    kept = {key: value for key, value in os.environ.items() if key.startswith(names)}
    return {**kept, "HOME": os.environ.get("HOME", "/"), "PATH": "/nowhere"}


@pytest.fixture
def hello(python: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The five-line app, served by the installed command."""
    (tmp_path / "hello.py").write_text(HELLO)
    process = subprocess.Popen(
        [python.parent / "hipflask", "run", "--app", "hello", "--port", "0"],
        cwd=tmp_path,
        env={**without_tools(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"https?://\S+:\d+", line):
            yield process, found[0]
            break
    else:
        pytest.fail("the server ended without listening:\n" + "".join(said))
    if process.poll() is None:
        process.kill()
        process.wait()
    process.stdout.close()


def test_it_serves_five_lines_and_stops_when_asked(hello: tuple[subprocess.Popen[str], str]) -> None:
    process, url = hello
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert (answer.status, answer.read()) == (200, b"Hello, World!")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_it_stays_small(hello: tuple[subprocess.Popen[str], str]) -> None:
    process, url = hello
    with urllib.request.urlopen(url, timeout=10) as answer:
        answer.read()
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024
    assert resident < 25, "MiB of resident memory"


def test_an_app_imports_nothing_heavy(python: Path) -> None:
    program = "import sys, hipflask; hipflask.Flask('x'); print(*sys.modules)"
    loaded = subprocess.run(
        [python, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "hipflask._core" in loaded
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_what_the_wheel_holds(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = zipfile.ZipFile(wheel).read("hipflask-0.1.0.dist-info/METADATA").decode()
    assert "License-Expression: BSD-3-Clause" in metadata
    assert "Requires-Python: >=3.10" in metadata
    assert {"hipflask/py.typed", "hipflask/_core.pyi", "hipflask/__init__.py"} <= set(names)
    assert any(name.startswith("hipflask/_core.") and name.endswith(".so") for name in names)
    ours = {path.relative_to(ROOT / "python").as_posix() for path in (ROOT / "python").rglob("*.py")}
    assert ours <= set(names)
    assert [name for name in names if not name.startswith(("hipflask/", "hipflask-0.1.0.dist-info/"))] == []


def test_the_source_distribution_holds_what_a_build_needs(tmp_path: Path) -> None:
    maturin("sdist", "--out", str(tmp_path))
    with tarfile.open(tmp_path / "hipflask-0.1.0.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    crates = {
        f"crates/{crate}/Cargo.toml" for crate in ("hipflask-http", "hipflask-router", "hipflask-server")
    }
    assert crates | {"Cargo.lock", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} <= names
    assert "python/hipflask/__init__.py" in names
    assert [name for name in names if name.endswith((".so", ".pyc"))] == []


def test_importing_is_timed_beside_flask(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints how long each takes; `-s` shows it. A machine's load decides too much to assert it."""
    program = (
        "import time; t = time.perf_counter(); import {0}; {0}.Flask('x'); print(time.perf_counter() - t)"
    )
    best = {}
    for name, interpreter in (("hipflask", str(python)), ("flask", sys.executable)):
        runs = [
            subprocess.run(
                [interpreter, "-c", program.format(name)], check=True, capture_output=True, text=True
            )
            for _ in range(5)
        ]
        best[name] = min(float(run.stdout) for run in runs) * 1000
    with capsys.disabled():
        print("\nimport and Flask('x'): " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in best.items()))
    assert shutil.which("flask", path=str(python.parent)) is None
