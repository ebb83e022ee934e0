"""`hipflask bundle`: the Dockerfile that it writes; its instructions are carried out too, without Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from hipflask import _core

PATIENCE = 30
VERSION = _core.__version__


def bundle(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLASK_", "HIPFLASK_"))}
    return subprocess.run(
        [sys.executable, "-m", "hipflask", *before, "bundle", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def instructions(text: str) -> list[tuple[str, str]]:
    """The lines of a Dockerfile, each with its first word apart."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def settings(text: str) -> dict[str, str]:
    """The environment of the last stage."""
    last = [value for word, value in instructions(text) if word == "ENV"][-1]
    return dict(part.split("=", 1) for part in shlex.split(last))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, [f"RUN pip install hipflask=={VERSION}"]),
        (
            {"requirements.txt": "flask-login\n"},
            ["COPY requirements.txt .", f"RUN pip install hipflask=={VERSION} -r requirements.txt"],
        ),
        (
            {"requirements.txt": "hipflask[dotenv]>=0.1\n"},
            ["COPY requirements.txt .", "RUN pip install -r requirements.txt"],
        ),
        (
            {"requirements.txt": "hipflask-login\n"},
            ["COPY requirements.txt .", f"RUN pip install hipflask=={VERSION} -r requirements.txt"],
        ),
        (
            {"pyproject.toml": '[project]\nname = "notes"\ndependencies = [\n  "hipflask",\n]\n'},
            ["COPY . .", "RUN pip install ."],
        ),
        (
            {"pyproject.toml": '[project]\nname = "notes"\n'},
            ["COPY . .", f"RUN pip install hipflask=={VERSION} ."],
        ),
        ({"pyproject.toml": "[tool.ruff]\n"}, [f"RUN pip install hipflask=={VERSION}"]),
        (
            {"wheels/hipflask-1-py3-none-any.whl": ""},
            ["COPY wheels /wheels", f"RUN pip install --find-links /wheels hipflask=={VERSION}"],
        ),
    ],
    ids=["nothing", "requirements", "named", "another", "project", "unnamed", "tools", "wheels"],
)
def test_what_is_installed(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = bundle(tmp_path, "--output", "-")
    assert done.returncode == 0, done.stderr
    assert "\n".join(expected) in done.stdout
    assert done.stdout.count("RUN pip install") == 1


def test_wheels_are_not_left_in_the_image(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "hipflask-1-py3-none-any.whl").write_text("")
    steps = instructions(bundle(tmp_path, "--output", "-").stdout)
    last = steps[[at for at, (word, _) in enumerate(steps) if word == "FROM"][-1] :]
    assert [value for word, value in last if word == "COPY"] == [
        "--from=build /venv /venv",
        "--from=build /srv/app .",
    ]
    assert ("RUN", "rm -r /srv/app/wheels") in steps


def test_an_application_that_cannot_be_imported_is_no_hindrance(tmp_path):
    (tmp_path / "app.py").write_text("raise RuntimeError('no database')\n")
    done = bundle(tmp_path, "--output", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# syntax=")


def test_nothing_is_overwritten_unless_asked(tmp_path):
    (tmp_path / ".dockerignore").write_text("mine\n")
    assert bundle(tmp_path).returncode == 0
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    refused = bundle(tmp_path)
    assert refused.returncode == 1
    assert "Dockerfile is there already" in refused.stderr
    assert (tmp_path / "Dockerfile").read_text() == "FROM scratch\n"
    assert (tmp_path / ".dockerignore").read_text() == "mine\n"
    assert bundle(tmp_path, "--force").returncode == 0
    assert (tmp_path / "Dockerfile").read_text() != "FROM scratch\n"
    assert ".env\n" in (tmp_path / ".dockerignore").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--python", "3"],
        ["--python", "3.12 AS x"],
        ["--workers", "many"],
        ["--port", "0"],
        ["--port", "9100"],
        ["app:make('$HOME')"],
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, arguments):
    done = bundle(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")
    assert not (tmp_path / "Dockerfile").exists()


@pytest.mark.parametrize(
    ("before", "arguments", "expected"),
    [
        ((), (), {}),
        ((), ("shop:app",), {"FLASK_APP": "shop:app"}),
        (("--app", "shop"), ("--workers", "auto"), {"FLASK_APP": "shop", "HIPFLASK_WORKERS": "auto"}),
        (("--as-flask",), (), {"HIPFLASK_AS_FLASK": "1"}),
    ],
)
def test_settings(tmp_path, before, arguments, expected):
    done = bundle(tmp_path, "--output", "-", *arguments, before=before)
    found = settings(done.stdout)
    for name in ("PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
        del found[name]
    assert found == {
        "HIPFLASK_BIND": "0.0.0.0:8000",
        "HIPFLASK_METRICS_BIND": "127.0.0.1:9100",
        **expected,
    }


def free_ports() -> tuple[int, int]:
    """Two ports that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def test_the_instructions_serve_the_application(tmp_path):
    """What the last stage sets and runs, run here as the image would; so is its health check."""
    (tmp_path / "app.py").write_text(
        "from hipflask import Flask\n\napp = Flask(__name__)\napp.get('/')(lambda: 'hello')\n"
    )
    port, health = free_ports()
    assert bundle(tmp_path, "--port", str(port), "--health-port", str(health)).returncode == 0
    text = (tmp_path / "Dockerfile").read_text()
    steps = instructions(text)
    words = [word for word, _ in steps]
    assert words.count("FROM") == 2
    # The user comes after all that needs root, and before the command.
    assert words.index("USER") > max(at for at, word in enumerate(words) if word in ("RUN", "COPY"))
    assert ("EXPOSE", str(port)) in steps
    assert ("STOPSIGNAL", "SIGTERM") in steps
    environment = settings(text)
    # Where this test's interpreter is, in the place of the image's environment.
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = json.loads(dict(steps)["CMD"])
    assert command == ["hipflask", "run"]
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if "Running on" in line:
                break
        else:
            pytest.fail("".join(lines))
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE).text == "hello"
        check = json.loads(re.search(r"CMD (\[.*\])", dict(steps)["HEALTHCHECK"])[1])
        healthy = subprocess.run(check, env=environment, capture_output=True, timeout=PATIENCE, check=False)
        assert healthy.returncode == 0, healthy.stderr
        server.terminate()
        assert server.wait(PATIENCE) == 0
        ill = subprocess.run(check, env=environment, capture_output=True, timeout=PATIENCE, check=False)
        assert ill.returncode != 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
