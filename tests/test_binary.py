"""The standalone binary: built, copied elsewhere, and run as its operator runs it.

The first test that needs it builds it (`cargo build -p hipflask`, with the settings that maturin gives PyO3,
so that most of it is there already).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import processes
import pytest
from processes import Command, Load, account, children, eventually, get

from hipflask import _core

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = processes.PATIENCE
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"),
    reason="this Python was built without the shared library (--enable-shared) that the binary links with",
)


@pytest.fixture(scope="module")
def binary(tmp_path_factory) -> Path:
    """A copy of the binary, far from the repository and without anything beside it."""
    environment = {
        **os.environ,
        "PYO3_PYTHON": str(Path(sys.prefix, "bin/python")),
        "PYO3_BUILD_EXTENSION_MODULE": "1",
        "PYO3_ENVIRONMENT_SIGNATURE": f"cpython-{PYTHON}-{64 if sys.maxsize > 2**32 else 32}bit",
    }
    subprocess.run(
        ["cargo", "build", "--quiet", "--package", "hipflask"],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=1800,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Path(shutil.copy(target / "debug/hipflask", tmp_path_factory.mktemp("elsewhere")))


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that uses the packages of the tests' one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HIPFLASK_", "FLASK_", "PYTHON"))}
    return {**kept, "VIRTUAL_ENV": sys.prefix, "PYTHONDONTWRITEBYTECODE": "1", **more}


def run(binary: Path, *arguments: str, cwd: Path, **more) -> subprocess.CompletedProcess[str]:
    """Run a command of the binary to its end."""
    more.setdefault("env", environment())
    return subprocess.run(
        [str(binary), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **more,
    )


@contextmanager
def serving(binary: Path, folder: Path, *arguments: str, source: str = processes.APP, **more):
    """A server of the binary."""
    (folder / "hello.py").write_text(source)
    env = {"VIRTUAL_ENV": sys.prefix, "PYTHONUNBUFFERED": "1", **more.pop("env", {})}
    command = Command(folder, "--port", "0", *arguments, program=[str(binary)], env=env, **more)
    try:
        yield command
    finally:
        command.close()


# What is in the file.


def test_it_runs_its_own_package_and_the_environments_others(binary, tmp_path):
    (tmp_path / "look.py").write_text(
        """
import importlib.metadata
import inspect
import os
import pkgutil
import sys

import jinja2
import hipflask
from hipflask import Flask, _core, debughelpers

app = Flask(__name__)


@app.cli.command()
def look():
    print("package", os.path.relpath(hipflask.__file__, os.path.dirname(sys.argv[0])))
    print("native", _core.__spec__.origin)
    print("jinja", os.path.relpath(jinja2.__file__, sys.prefix).split(os.sep)[0])
    print("source", inspect.getsource(debughelpers).startswith('\"\"\"'))
    print("data", len(pkgutil.get_data("hipflask.werkzeug.debug", "shared/style.css")) > 1000)
    print("version", importlib.metadata.version("hipflask"))
    print("python", os.path.relpath(sys.executable, sys.prefix))
    print("started", os.path.basename(sys.orig_argv[0]), *sys.orig_argv[1:])
    print("main", sys.modules["__main__"].__name__)
    print("here", "" in sys.path or os.getcwd() in sys.path)
"""
    )
    done = run(binary, "--app", "look", "look", cwd=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == {
        "package": "hipflask/hipflask/__init__.py",
        "native": "built-in",
        "jinja": "lib",
        "source": "True",
        "data": "True",
        "version": _core.__version__,
        "python": "bin/python",
        "started": "hipflask --app look look",
        "main": "__main__",
        "here": "True",
    }


def test_every_module_is_in_it(binary, tmp_path):
    package = ROOT / "python/hipflask"
    names = sorted(
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in package.rglob("*.py")
        if path.name != "__main__.py"
    )
    (tmp_path / "every.py").write_text(
        f"""
from importlib.util import find_spec
from hipflask import Flask

app = Flask(__name__)


@app.cli.command()
def every():
    for name in {names!r}:
        loader = find_spec(name).loader
        assert loader.get_code(name).co_filename == loader.get_filename(name), name
        # The bytecode was compiled when the binary was built; only of this text, if the build is complete.
        text = compile(loader.get_source(name), loader.get_filename(name), "exec", dont_inherit=True)
        assert loader.get_code(name) == text, name
"""
    )
    done = run(binary, "--app", "every", "every", cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_shell_has_the_application(binary, tmp_path):
    (tmp_path / "app.py").write_text("from hipflask import Flask\n\napp = Flask('in the shell')\n")
    done = run(binary, "shell", cwd=tmp_path, input="print(app.name, g)\nexit(7)\n")
    assert "in the shell <flask.g of 'in the shell'>" in done.stdout
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--version"], 0, "Hipflask"),
        (["--help"], 0, "Usage: hipflask "),
        (["routes", "--app", "nothing"], 2, "Error: "),
        (["run", "--prt", "1"], 2, "Error: "),
        (["--app", "hello", "routes"], 0, "/who"),
        (["--app", "hello", "config"], 0, "port"),
        (["--app", "broken", "routes"], 1, "raise ValueError('wäre falsch')"),
    ],
)
def test_commands_and_their_statuses(binary, tmp_path, arguments, status, said):
    (tmp_path / "hello.py").write_text(processes.APP)
    (tmp_path / "broken.py").write_text("raise ValueError('wäre falsch')\n", encoding="utf-8")
    done = run(binary, *arguments, cwd=tmp_path, env=environment(LC_ALL="C.UTF-8"))
    assert said in done.stdout + done.stderr
    assert done.returncode == status


def test_applications_that_say_flask(binary, tmp_path):
    (tmp_path / "app.py").write_text(
        "from flask import Flask\n\napp = Flask('theirs')\napp.get('/x')(print)\n"
    )
    done = run(binary, "--as-flask", "routes", cwd=tmp_path)
    assert "/x" in done.stdout, done.stderr
    assert done.returncode == 0


# Which Python.


def make_environment(folder: Path, version: str) -> Path:
    """A virtual environment that says of which Python it is, without packages."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "lib" / f"python{PYTHON}" / "site-packages").mkdir(parents=True)
    home = Path(sys.base_prefix, "bin")
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {version}.9\n"
    )
    return folder


def test_an_environment_of_another_python_is_refused(binary, tmp_path):
    folder = make_environment(tmp_path / "old", "3.4")
    done = run(binary, "--version", cwd=tmp_path, env=environment(VIRTUAL_ENV=str(folder)))
    assert done.returncode == 1
    assert re.fullmatch(
        rf"hipflask: this binary is built for Python {PYTHON}, and {folder} is an environment of Python 3\.4"
        r"\. .*\n",
        done.stderr,
    )


def test_an_environment_that_is_none_is_refused(binary, tmp_path):
    done = run(binary, "--version", cwd=tmp_path, env=environment(VIRTUAL_ENV=str(tmp_path)))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no pyvenv.cfg" in done.stderr


def test_missing_packages_are_named(binary, tmp_path):
    folder = make_environment(tmp_path / "empty", PYTHON)
    done = run(binary, "routes", cwd=tmp_path, env=environment(VIRTUAL_ENV=str(folder)))
    assert done.returncode == 1
    assert re.match(rf"hipflask: \w+ is not installed for Python {PYTHON} in {folder}\. ", done.stderr)


def test_the_environment_that_it_lies_in_is_used(binary, tmp_path):
    folder = make_environment(tmp_path / "around", PYTHON)
    copy = shutil.copy(binary, folder / "bin")
    without = environment()
    del without["VIRTUAL_ENV"]
    done = run(Path(copy), "routes", cwd=tmp_path, env=without)
    assert f"in {folder}. " in done.stderr


def test_another_version_beside_it_is_told(binary, tmp_path):
    site = tmp_path / "site-packages"
    (site / "hipflask-0.0.1.dist-info").mkdir(parents=True)
    done = run(binary, "--version", cwd=tmp_path, env=environment(PYTHONPATH=str(site)))
    assert done.returncode == 0
    assert done.stderr == (
        f"hipflask: this binary is version {_core.__version__} and is what runs; {site} has version 0.0.1.\n"
    )


# The server.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops(binary, tmp_path, number):
    with serving(binary, tmp_path) as server:
        port = server.port()
        assert get(port, "/count/a").split()[0] == str(server.process.pid)
        server.signal(number)
        assert server.wait() == 0


def test_the_example(binary, tmp_path):
    source = (ROOT / "examples/hello/app.py").read_text()
    with serving(binary, tmp_path, source=source) as server:
        assert get(server.port(), "/")
        assert server.stop() == 0


def test_workers_are_replaced_without_losing_a_request(binary, tmp_path):
    with serving(binary, tmp_path, "--workers", "2") as server:
        port = server.port()
        eventually(lambda: len(server.workers()) == 2, "no two workers")
        before = set(server.workers())
        load = Load(port)
        try:
            load.wait_for(20)
            server.signal(signal.SIGHUP)
            eventually(lambda: len(now := set(server.workers())) == 2 and not now & before, "not replaced")
            load.wait_for(20)
        finally:
            load.stop()
        assert account(load, tmp_path) == {}
        assert server.stop() == 0


def test_the_binary_takes_over_from_itself(binary, tmp_path):
    """SIGUSR2 starts what lies at the binary's path then, on the same sockets."""
    pid_file = tmp_path / "pid"
    with serving(binary, tmp_path, "--workers", "1", "--pid-file", str(pid_file)) as server:
        port = server.port()
        old = server.process.pid
        server.signal(signal.SIGUSR2)
        eventually(
            lambda: pid_file.exists() and pid_file.read_text().strip() not in ("", str(old)), "no successor"
        )
        new = int(pid_file.read_text())
        try:
            assert server.process.wait(PATIENCE) == 0
            assert os.readlink(f"/proc/{new}/exe") == str(binary)
            assert int(get(port).split()[0]) in children(new)
        finally:
            os.kill(new, signal.SIGTERM)
        eventually(lambda: not processes.lives(new), "the successor does not end")


def test_reload(binary, tmp_path):
    with serving(binary, tmp_path, "--debug") as server:
        port = server.port()
        assert get(port, "/count/a").split()[1] == "one"
        (tmp_path / "hello.py").write_text(processes.APP.replace('"one"', '"another"'))
        eventually(lambda: _version(port) == "another", "the new code is not served")
        server.signal(signal.SIGINT)
        server.wait()


def _version(port: int) -> str:
    try:
        return get(port, "/count/a").split()[1]
    except OSError:
        return ""


def test_programs_that_it_starts_get_a_python(binary, tmp_path):
    """`multiprocessing` starts `sys.executable`, which must not be a second server."""
    source = """
import multiprocessing
from hipflask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    process = multiprocessing.get_context("spawn").Process(target=abs, args=(-3,))
    process.start()
    process.join()
    return str(process.exitcode)
"""
    with serving(binary, tmp_path, source=source) as server:
        assert get(server.port(), "/") == "0"
        assert server.stop() == 0
