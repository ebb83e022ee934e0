"""The short way to `hipflask run`: what it reads like the long way, what it leaves alone, what it loads."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import textwrap

import pytest

from hipflask import cli, fast_start

PLAIN = [
    (["run"], {}),
    (["run", "app"], {}),
    (["run", "app:create()", "--port", "0"], {}),
    (["--app", "app", "run"], {}),
    (["-A", "app", "run", "-p", "8000", "-h", "0.0.0.0"], {}),
    (["--app=one", "run", "--app=two"], {}),
    (["--app=one", "run", "three", "--app=two"], {}),
    (["run"], {"FLASK_APP": "of_environment"}),
    (["--app", "app", "run"], {"FLASK_APP": "of_environment", "FLASK_DEBUG": "0"}),
    (["run", "--bind", "127.0.0.1:0", "--bind=unix:here"], {}),
    (["run"], {"HIPFLASK_BIND": "127.0.0.1:0 127.0.0.2:0", "HIPFLASK_PORT": ""}),
    (["run", "--port", "1", "--port", "2"], {"HIPFLASK_PORT": "3"}),
    (["run"], {"HIPFLASK_PORT": "3", "HIPFLASK_ACCESS_LOG": "yes"}),
    (["run", "--access-log", "--workers=2", "--grace", "5s"], {}),
    (["run", "--idle-timeout", "1m", "--config", "settings.toml"], {}),
    (["run"], {"FLASK_SECRET_KEY": "an application's own", "FLASK_RUN_FROM_CLI": "true"}),
]
UNUSUAL = [
    ([], {}),
    (["routes"], {}),
    (["--help"], {}),
    (["run", "--help"], {}),
    (["run", "--debug"], {}),
    (["run"], {"FLASK_DEBUG": "1"}),
    (["run", "--reload"], {}),
    (["run", "--no-access-log"], {}),
    (["run", "--cert", "adhoc"], {}),
    (["run"], {"HIPFLASK_CERT": "adhoc"}),
    (["run"], {"FLASK_RUN_PORT": "1"}),
    (["run"], {"HIPFLASK_RELOADS": "1"}),
    (["run"], {"_HIPFLASK_COMPLETE": "bash_complete"}),
    (["run", "-p8000"], {}),
    (["run", "--port"], {}),
    (["run", "--port", "many"], {}),
    (["run", "--prot", "1"], {}),
    (["run", "--port", "1", "--bind", "127.0.0.1:1"], {}),
    (["run"], {"HIPFLASK_PORT": "many"}),
    (["run"], {"HIPFLASK_PROT": "1"}),
    (["run", "one", "two"], {}),
    (["run", "--", "one"], {}),
    (["run", ""], {}),
    (["one", "run"], {}),
    (["--as-flask", "run"], {}),
    (["--env-file", "x", "run"], {}),
    (["run", "--config", "none.toml"], {}),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory and an environment that say nothing."""
    for name in os.environ:
        if name.startswith(("FLASK_", "HIPFLASK_")):
            monkeypatch.delenv(name)
    (tmp_path / "settings.toml").write_text('app = "of_file"\ngrace = "7s"\n')
    monkeypatch.chdir(tmp_path)
    # Extensions that are installed here may offer commands, though none is called `run`.
    return tmp_path


def _names(cases):
    return [" ".join([*(f"{key}={value}" for key, value in env.items()), *args]) for args, env in cases]


@pytest.mark.parametrize(("args", "env"), PLAIN, ids=_names(PLAIN))
def test_a_plain_command_line_is_read_as_by_the_long_way(args, env, place, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    plain = fast_start._read(args)
    assert plain is not None
    served = []
    monkeypatch.setattr(
        cli, "serve_settings", lambda load, settings, app, **_: served.append((app, settings))
    )
    cli.cli.main(args, standalone_mode=False)
    [(app, settings)] = served
    assert plain[0] == app
    assert plain[1].values == settings.values
    assert plain[1].sources == settings.sources
    assert plain[1].app == settings.app


@pytest.mark.parametrize(("args", "env"), UNUSUAL, ids=_names(UNUSUAL))
def test_what_is_unusual_or_wrong_is_left_to_the_long_way(args, env, place, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert fast_start._read(args) is None


def test_files_of_variables_are_left_to_the_long_way(place, monkeypatch):
    (place / "below").mkdir()
    (place / ".env").write_text("FLASK_RUN_PORT=1\n")
    monkeypatch.chdir(place / "below")
    assert fast_start._read(["run"]) is None
    monkeypatch.setenv("FLASK_SKIP_DOTENV", "1")
    assert fast_start._read(["run"]) is not None


def test_a_plugin_that_is_called_run_is_left_to_the_long_way(place, monkeypatch):
    info = place / "plugin-1.dist-info"
    info.mkdir()
    monkeypatch.syspath_prepend(place)
    (info / "entry_points.txt").write_text("[flask.commands]\ndb = plugin:run\n")
    assert fast_start._read(["run"]) is not None
    assert fast_start.may_have_plugins()
    (info / "entry_points.txt").write_text("[flask.commands]\n run = plugin:run\n")
    assert fast_start._read(["run"]) is None


APP = """
import sys
from hipflask import Flask

app = Flask("app", static_folder=None)

@app.get("/")
def modules():
    return " ".join(sys.modules)
"""
# What a small application's first answer takes none of, and what takes the longest to import.
SPARED = {
    "argparse", "ast", "asyncio", "blinker", "click", "dotenv", "email", "importlib.metadata", "inspect",
    "jinja2", "mimetypes", "pathlib", "ssl", "subprocess", "tempfile", "urllib.parse", "uuid", "hipflask.cli",
    "hipflask.setting_options", "hipflask.supervisor", "hipflask.templating",
}  # fmt: skip


@pytest.mark.parametrize(
    "command", [["-m", "hipflask", "--app", "app", "run"], ["-m", "hipflask", "run", "app"]]
)
def test_a_server_loads_no_module_that_its_first_answer_does_not_need(command, place):
    (place / "app.py").write_text(APP)
    server = subprocess.Popen(
        [sys.executable, *command, "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=place
    )
    try:
        line = server.stdout.readline()
        address = line.partition("http://")[2].partition(" ")[0]
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("GET", "/")
        loaded = set(connection.getresponse().read().decode().split())
        connection.close()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0
    assert "hipflask.serving" in loaded
    site = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True
    )
    assert sorted((SPARED & loaded) - set(site.stdout.split())) == []


@pytest.mark.parametrize(
    ("args", "spared"),
    [
        (["--version"], {"click", "hipflask.cli", "hipflask.settings", "platform"}),
        (["routes"], {"asyncio", "dotenv", "email", "importlib.metadata", "ssl", "hipflask.supervisor"}),
        (["config"], {"asyncio", "dotenv", "email", "importlib.metadata", "ssl", "hipflask.supervisor"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_loads_little(args, spared, place):
    (place / "app.py").write_text(APP)
    code = """
        import sys
        before = set(sys.modules)
        sys.argv[0] = "hipflask"
        from hipflask.fast_start import main
        try:
            main()
        finally:
            print("LOADED", *set(sys.modules) - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args], capture_output=True, text=True, cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert sorted(spared & set(done.stdout.rpartition("LOADED")[2].split())) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Error: Failed to find Flask application or factory in module 'app'"),
        ("import nothing_of_that_name", "Error: While importing 'app', an ImportError was raised:"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("raise KeyboardInterrupt", "Aborted!"),
    ],
    ids=["no application", "a missing module", "an error", "interrupted"],
)
def test_what_fails_is_reported_as_by_the_long_way(text, error, place):
    (place / "app.py").write_text(text)
    ways = ["from hipflask.fast_start import main; main()", "from hipflask.cli import main; main()"]
    said = []
    for way in ways:
        done = subprocess.run(
            [sys.executable, "-c", way, "run", "app", "--port", "0"],
            capture_output=True,
            text=True,
            cwd=place,
        )
        said.append((done.returncode, done.stdout, done.stderr))
    assert said[0] == said[1]
    assert error in said[0][2]


def test_the_version_is_that_of_the_long_way(place):
    ways = ["from hipflask.fast_start import main; main()", "from hipflask.cli import main; main()"]
    said = [
        subprocess.run([sys.executable, "-c", way, "--version"], capture_output=True, text=True).stdout
        for way in ways
    ]
    assert said[0] == said[1] != ""
