"""The table of the server's settings: kinds, sources, messages, and that the engine has the same."""

from __future__ import annotations

import re
import sys

import pytest
from click.testing import CliRunner

from hipflask import Flask, _core
from hipflask.cli import ScriptInfo, cli
from hipflask.setting_table import BY_NAME
from hipflask.setting_types import Mode, Seconds, SettingError, Size, Switch, Texts
from hipflask.settings import Settings, check_environment, parse

READ = [
    (Seconds(), "30", 30),
    (Seconds(), "1.5s", 1.5),
    (Seconds(), "250ms", 0.25),
    (Seconds(), "5 m", 300),
    (Seconds(), "2h", 7200),
    (Seconds(), 7, 7),
    (Size(), "64 KiB", 65536),
    (Size(), "1.5MB", 1_500_000),
    (Size(), "2g", 2 << 30),
    (Size(), 4096, 4096),
    (Switch(), "on", True),
    (Switch(), "0", False),
    (Switch(), True, True),
    (Mode(), "660", 0o660),
    (Mode(), "0o640", 0o640),
    (Mode(), 0o600, 0o600),
    (Texts(), "a:1, b:2", ["a:1", "b:2"]),
    (Texts(), ["a:1"], ["a:1"]),
    (BY_NAME["workers"].kind, "auto", "auto"),
    (BY_NAME["workers"].kind, "3", 3),
    (BY_NAME["underscores"].kind, "keep", "keep"),
]


@pytest.mark.parametrize(("kind", "given", "value"), READ, ids=lambda part: str(part)[:20])
def test_a_value_is_read_and_written_alike(kind, given, value):
    assert kind.parse(given) == value
    assert kind.parse(kind.show(value)) == value


WRONG = [
    ("threads", "many", "a whole number is expected"),
    ("threads", 0, "at least 1 is expected"),
    ("threads", 1.5, "a whole number is expected"),
    ("threads", True, "a whole number is expected"),
    ("port", 65536, "at most 65535 is expected"),
    ("idle_timeout", "soon", "a time is expected"),
    ("idle_timeout", -1, "at least 1ms is expected"),
    ("idle_timeout", float("nan"), "at least 1ms is expected"),
    ("idle_timeout", "1000 d", "at most 365d is expected"),
    ("max_body", "1 furlong", "a size is expected"),
    ("preload", "perhaps", "true or false is expected"),
    ("socket_mode", "999", "permissions in octal digits"),
    ("underscores", "drop", "one of guard, refuse, keep"),
    ("bind", [], "a text or a list of texts"),
    ("bind", 80, "a text or a list of texts"),
    ("user", "", "a text is expected"),
    ("wrokers", 2, "there is no setting 'wrokers': did you mean 'workers'?"),
    ("colour", "red", "there is no setting 'colour'"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=[f"{row[0]}={row[1]}" for row in WRONG])
def test_a_wrong_value_is_refused_with_a_reason(name, value, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        parse(name, value)


def test_the_engine_has_the_same_names_and_defaults():
    ours = {name: row.default for name, row in BY_NAME.items() if row.engine}
    assert ours == _core.engine_settings()
    for name, row in BY_NAME.items():
        assert row.text.endswith("."), name
        assert row.reason, name
        if row.default is not None:
            assert row.kind.parse(row.kind.show(row.default)) == row.default


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thread": 1}, "the engine has no setting"),
        ({"threads": 0}, "threads: at least 1"),
        ({"idle_timeout": 0.0}, "idle_timeout: at least 1 ms"),
        ({"idle_timeout": float("inf")}, "idle_timeout: "),
        ({"idle_timeout": 1e300}, "idle_timeout: "),
        ({"max_fields": "x"}, "max_fields: "),
        ({"max_fields": -1}, "max_fields: "),
        ({"underscores": "drop"}, "underscores: guard, refuse or keep"),
        ({"server_header": "a\r\nb"}, "server_header: printable"),
    ],
    ids=lambda part: str(part)[:30],
)
def test_the_engine_checks_again(settings, message):
    with pytest.raises(ValueError, match=message):
        _core.Server(Flask("x"), ["127.0.0.1:0"], settings=settings)


# Sources.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_go_before_the_environment_before_the_file(folder, monkeypatch):
    (folder / "hipflask.toml").write_text('threads = 3\nqueue = 4\nidle-timeout = "5m"\napp = "shop"\n')
    monkeypatch.setenv("HIPFLASK_QUEUE", "5")
    monkeypatch.setenv("HIPFLASK_THREADS", "6")
    app = Flask("app")
    arguments = ["config", "--threads", "7", "--max-body", "1GiB"]
    result = CliRunner().invoke(cli, arguments, obj=ScriptInfo(create_app=lambda: app))
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split(None, 2)[1:] for line in result.output.splitlines() if line}
    assert rows["threads"] == ["7", "command line"]
    assert rows["queue"] == ["5", "environment HIPFLASK_QUEUE"]
    assert rows["idle_timeout"] == ["5m", "hipflask.toml"]
    assert rows["max_body"] == ["1GiB", "command line"]
    assert rows["header_timeout"] == ["10s", "default"]
    assert rows["workers"] == ["-", "default"]
    assert rows["app"] == ["shop", "hipflask.toml"]
    assert list(rows)[list(rows).index("host") :][: len(BY_NAME)] == list(BY_NAME)


FILES = [
    ("hipflask.toml", "threads = 3\n"),
    ("pyproject.toml", "[project]\nname = 'x'\n[tool.hipflask]\nthreads = 3\n"),
]


@pytest.mark.parametrize(("name", "text"), FILES, ids=[name for name, _ in FILES])
def test_a_file_in_the_working_directory_is_found(folder, name, text):
    (folder / name).write_text(text)
    settings = Settings()
    assert (settings["threads"], settings.sources["threads"]) == (3, name)
    (folder / "other.toml").write_text("queue = 1\n")
    settings = Settings(path="other.toml")
    assert (settings["threads"], settings["queue"]) == (32, 1)


def test_the_own_file_goes_before_the_projects(folder):
    (folder / "pyproject.toml").write_text("[tool.hipflask]\nthreads = 3\n")
    (folder / "hipflask.toml").write_text("queue = 3\n")
    assert Settings()["threads"] == 32


def test_every_command_knows_the_files_application(folder, monkeypatch):
    for name in ("FLASK_APP", "FLASK_RUN_FROM_CLI"):
        monkeypatch.delenv(name, raising=False)
    (folder / "named_by_file.py").write_text(
        "from hipflask import Flask\napp = Flask('x')\napp.add_url_rule('/here', 'here', str)\n"
    )
    (folder / "hipflask.toml").write_text("app = 'named_by_file'\n")
    result = CliRunner().invoke(cli, ["routes"])
    assert "/here" in result.output


BROKEN = [
    ("threds = 1", "hipflask.toml: there is no setting 'threds': did you mean 'threads'?"),
    ("threads = 'x'", "hipflask.toml: threads = 'x': a whole number is expected"),
    ("threads =", "hipflask.toml is not TOML"),
    ("app = 1", "hipflask.toml: app = 1: a text is expected"),
    ("workers = 'x'", "hipflask.toml: workers = 'x': a whole number is expected, or 'auto'"),
    ("[limits]\nbody = 1", "hipflask.toml: [limits] is a table: all settings stand together"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[row[0][:12] for row in BROKEN])
def test_a_mistake_in_the_file_is_an_error(folder, text, message):
    (folder / "hipflask.toml").write_text(text)
    result = CliRunner().invoke(cli, ["run", "nothing"])
    assert result.exit_code == 2
    assert message in result.output


def test_a_file_that_is_named_must_be_there(folder):
    with pytest.raises(SettingError, match="no.toml cannot be read: No such file"):
        Settings(path="no.toml")


def test_settings_that_cannot_be_read_again_stay(folder):
    (folder / "hipflask.toml").write_text("threads = 3\n")
    settings = Settings()
    (folder / "hipflask.toml").write_text("threads = -3\n")
    with pytest.raises(SettingError):
        settings.again()
    (folder / "hipflask.toml").write_text("threads = 4\n")
    assert (settings["threads"], settings.again()["threads"]) == (3, 4)


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="newer Pythons read TOML")
def test_without_a_reader_of_toml_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomli", None)
    (folder / "hipflask.toml").write_text("threads = 3\n")
    with pytest.raises(SettingError, match=r"hipflask\[toml\]"):
        Settings()


def test_a_misspelt_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("HIPFLASK_SOMETHING_ELSE", "1")
    check_environment()
    monkeypatch.setenv("HIPFLASK_WORKRES", "1")
    with pytest.raises(SettingError, match="did you mean 'HIPFLASK_WORKERS'"):
        check_environment()


def test_an_unknown_flag_is_an_error_with_a_guess(folder):
    result = CliRunner().invoke(cli, ["run", "--worker", "2"])
    assert result.exit_code == 2
    assert "--workers" in result.output


BINDS = [
    ({}, "", ["127.0.0.1:5000"]),
    ({"host": "::1"}, "", ["[::1]:5000"]),
    ({"host": "unix:/run/x"}, "", ["unix:/run/x"]),
    ({"port": 80}, "bind = [':1', ':2']", ["127.0.0.1:80"]),
    ({}, "bind = [':1', ':2']", [":1", ":2"]),
    ({"bind": [":3"]}, "host = '::'", [":3"]),
    ({"bind": [":3"]}, "bind = ':4'", [":3"]),
]


@pytest.mark.parametrize(("flags", "file", "binds"), BINDS, ids=range(len(BINDS)))
def test_where_to_listen(folder, flags, file, binds):
    (folder / "hipflask.toml").write_text(file)
    assert Settings({name: (value, "command line") for name, value in flags.items()}).binds() == binds


def test_bind_and_port_at_one_place_are_a_contradiction(folder):
    result = CliRunner().invoke(cli, ["run", "--bind", ":1", "--port", "2"])
    assert result.exit_code == 2
    assert "not both" in result.output


def test_what_needs_a_supervisor_has_one(folder):
    assert Settings().workers() is None
    (folder / "hipflask.toml").write_text("max_requests = 1000\n")
    assert Settings().workers() == 1
    (folder / "hipflask.toml").write_text("workers = 'auto'\n")
    assert Settings().workers() >= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--debug"], "reloader works with one process"), (["--debugger"], "debugger works with one process")],
    ids=["reloader", "debugger"],
)
def test_several_processes_and_a_developers_tools_do_not_go_together(folder, more, message):
    result = CliRunner().invoke(cli, ["run", "--workers", "2", *more])
    assert result.exit_code == 2
    assert message in result.output
