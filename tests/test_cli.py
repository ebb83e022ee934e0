"""The command line: finding the application, options, commands, and what a mistake is told."""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hipflask import Blueprint, Flask, current_app
from hipflask.cli import (
    AppGroup,
    FlaskGroup,
    NoAppException,
    ScriptInfo,
    cli,
    find_app_by_string,
    find_best_app,
    load_dotenv,
    locate_app,
    prepare_import,
    run_command,
    with_appcontext,
)

HIPFLASK = [sys.executable, "-m", "hipflask"]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("FLASK_", "HIPFLASK_"))]:
        monkeypatch.delenv(name)
    # Commands set these; the monkeypatch takes them away again.
    for name in ("FLASK_DEBUG", "FLASK_RUN_FROM_CLI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture
def runner():
    return CliRunner()


def module(**names):
    made = types.ModuleType("mod")
    vars(made).update(names)
    return made


def factory(name="factory", **kwargs):
    return Flask(name)


def needs_arguments(a, b, *, c=0):
    app = Flask("args")
    app.args = (a, b, c)
    return app


def broken():
    raise TypeError("from within")


ONE, TWO = Flask("one"), Flask("two")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"app": ONE, "other": TWO}, "one"),
        ({"application": ONE, "other": TWO}, "one"),
        ({"myapp": ONE}, "one"),
        ({"create_app": factory}, "factory"),
        ({"make_app": factory}, "factory"),
        ({"app": ONE, "create_app": factory}, "one"),
        ({"create_app": lambda: 1, "make_app": factory}, "factory"),
    ],
)
def test_the_best_app(names, found):
    assert find_best_app(module(**names)).name == found


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "Failed to find Flask application or factory in module 'mod'"),
        ({"a": ONE, "b": TWO}, "Detected multiple Flask applications in module 'mod'"),
        ({"create_app": needs_arguments}, "could not call it without arguments"),
        ({"app": 1, "create_app": 2}, "Failed to find Flask application"),
    ],
)
def test_no_best_app(names, message):
    with pytest.raises(NoAppException, match=message):
        find_best_app(module(**names))


def test_a_type_error_within_a_factory_is_raised():
    for find in (find_best_app, lambda module: find_app_by_string(module, "create_app")):
        with pytest.raises(TypeError, match="from within"):
            find(module(create_app=broken))


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("make(1, 'x')", (1, "x", 0)),
        (" make([1], {'a': None}, c=2) ", ([1], {"a": None}, 2)),
        ("make(b=2, a=1)", (1, 2, 0)),
    ],
)
def test_a_factory_with_arguments(text, args):
    assert find_app_by_string(module(make=needs_arguments), text).args == args


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "Failed to find attribute 'no' in 'mod'"),
        ("make(", "Failed to parse 'make\\('"),
        ("1", "Failed to parse '1' as an attribute name or function call"),
        ("a.b", "Failed to parse"),
        ("a.b()", "Function reference must be a simple name"),
        ("make(x)", "Failed to parse arguments as literal values"),
        ("make(1)", "could not be called with the specified arguments"),
        ("number", "A valid Flask application was not obtained from 'mod:number'"),
    ],
)
def test_a_string_that_names_no_app(text, message):
    with pytest.raises(NoAppException, match=message):
        find_app_by_string(module(make=needs_arguments, number=1), text)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with applications, which is the working directory."""
    files = {
        "app.py": "from hipflask import Flask\napp = Flask('here')\n@app.cli.command()\ndef hi():"
        " print('hi')\n",
        "pkg/__init__.py": "",
        "pkg/sub/__init__.py": "from hipflask import Flask\napplication = Flask('inner')\n",
        "imports.py": "import no_such_module_here",
        "raises.py": "raise RuntimeError('at import')",
        "no_app.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("app", "pkg", "pkg.sub", "imports", "raises", "no_app"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("app.py", "app"),
        ("app", "app"),
        ("pkg/sub", "pkg.sub"),
        ("pkg/sub/__init__.py", "pkg.sub"),
        ("pkg/sub/new.py", "pkg.sub.new"),
    ],
)
def test_prepare_import(project, path, name):
    assert prepare_import(path) == name
    assert sys.path[0] == str(project.resolve())


def test_locate_app(project):
    prepare_import("app.py")
    assert locate_app("app", None).name == "here"
    assert locate_app("pkg.sub", "application").name == "inner"
    assert locate_app("nothing", None, raise_if_not_found=False) is None
    with pytest.raises(NoAppException, match="Could not import 'nothing'"):
        locate_app("nothing", None)
    with pytest.raises(NoAppException, match="(?s)While importing 'imports'.*no_such_module_here"):
        locate_app("imports", None, raise_if_not_found=False)
    with pytest.raises(RuntimeError, match="at import"):
        locate_app("raises", None)


@pytest.mark.parametrize(
    ("path", "name"),
    [(None, "here"), ("app", "here"), ("app.py:app", "here"), ("pkg/sub:application", "inner")],
)
def test_script_info(project, path, name):
    info = ScriptInfo(app_import_path=path)
    app = info.load_app()
    assert app.name == name
    assert info.load_app() is app
    assert app.debug is False


def test_script_info_with_a_factory_and_debug(monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert ScriptInfo(create_app=factory).load_app().debug is True
    app = factory()
    app.debug = False
    assert ScriptInfo(create_app=lambda: app, set_debug_flag=False).load_app().debug is False


def test_script_info_without_an_app(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoAppException, match="Could not locate a Flask application"):
        ScriptInfo().load_app()


def hip(*args, cwd, **env):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("FLASK_", "HIPFLASK_"))}
    return subprocess.run(
        [*HIPFLASK, *args], cwd=cwd, env=environ | env, capture_output=True, text=True, timeout=60
    )


def test_commands_of_the_app_are_found_and_listed(project):
    assert hip("hi", cwd=project).stdout == "hi\n"
    listing = hip("--help", cwd=project).stdout
    assert all(name in listing for name in ("hi", "routes", "run", "shell"))


MISTAKES = {
    ("--app", "nothing", "routes"): "Error: Could not import 'nothing'.",
    ("--app", "no_app", "routes"): "Failed to find Flask application or factory in module 'no_app'",
    ("--app", "app:other", "run"): "Failed to find attribute 'other' in 'app'.",
    ("run", "nothing:app"): "Error: Could not import 'nothing'.",
    ("bad",): "No such command 'bad'",
    ("--env-file", "no", "routes"): "does not exist",
}


@pytest.mark.parametrize("args", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_a_sentence(project, args):
    done = hip(*args, cwd=project)
    assert done.returncode == 2
    assert MISTAKES[args] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told_in_a_sentence(project):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = hip("run", "app:app", "--port", str(port), cwd=project)
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_that_fails_shows_its_error_beside_the_commands(project):
    done = hip("--app", "raises", "--help", cwd=project)
    assert "RuntimeError: at import" in done.stderr
    assert "routes" in done.stdout


def test_version(runner):
    out = runner.invoke(cli, ["--version"]).output
    assert "Flask 3.1.3" in out
    assert "Werkzeug 3.1.6" in out
    assert f"Python {sys.version.split()[0]}" in out


def test_as_flask_serves_an_app_that_imports_flask(tmp_path):
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            """
            from flask import Flask
            from werkzeug.exceptions import NotFound
            app = Flask(__name__)

            @app.cli.command()
            def whose():
                print(Flask.__module__, NotFound.__module__)
            """
        )
    )
    assert hip("--as-flask", "whose", cwd=tmp_path).stdout == "hipflask.app hipflask.werkzeug.exceptions\n"
    assert hip("whose", cwd=tmp_path, FLASK_AS_FLASK="1").stdout.startswith("hipflask.app")
    assert hip("whose", cwd=tmp_path, HIPFLASK_AS_FLASK="1").stdout.startswith("hipflask.app")
    assert "whose" in hip("--as-flask", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("command", ["routes", "shell"])
def test_the_app_may_be_named_behind_the_command(project, command):
    done = subprocess.run(
        [*HIPFLASK, command, "--as-flask", "-A", "pkg/sub:application"],
        cwd=project,
        input="print(app.name)",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert ("inner" if command == "shell" else "static") in done.stdout


@pytest.mark.parametrize(
    ("args", "env", "debug"),
    [
        ([], {}, "False"),
        (["--debug"], {}, "True"),
        (["--no-debug"], {"FLASK_DEBUG": "1"}, "False"),
        ([], {"FLASK_DEBUG": "1"}, "True"),
        ([], {"FLASK_DEBUG": "no"}, "False"),
    ],
)
def test_the_debug_flag(runner, monkeypatch, args, env, debug):
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    group = FlaskGroup(create_app=factory)
    group.command("show")(lambda: print(current_app.debug))
    assert runner.invoke(group, [*args, "show"]).output == f"{debug}\n"


def test_app_commands_have_a_context(runner):
    app = Flask("with_commands")

    @app.cli.command("in")
    def inside():
        print(current_app.name)

    @app.cli.command("out", with_appcontext=False)
    def outside():
        print(bool(current_app))

    @app.cli.group()
    def sub():
        pass

    @sub.command()
    @click.argument("word")
    def deep(word):
        print(current_app.name, word)

    blueprint = Blueprint("bp", __name__, cli_group="tools")
    blueprint.cli.command("go")(lambda: print("gone"))
    app.register_blueprint(blueprint)

    assert isinstance(sub, AppGroup)
    run = app.test_cli_runner().invoke
    assert run(args=["in"]).output == "with_commands\n"
    assert run(args=["out"]).output == "False\n"
    assert run(args=["sub", "deep", "x"]).output == "with_commands x\n"
    assert run(args=["tools", "go"]).output == "gone\n"


def test_with_appcontext_outside_of_an_app_group(runner):
    @click.command()
    @with_appcontext
    def show():
        """Doc."""
        print(current_app.name)

    assert show.help == "Doc."
    assert runner.invoke(show, obj=ScriptInfo(create_app=factory)).output == "factory\n"


def test_a_plugin_gives_commands(tmp_path, project):
    info = tmp_path / "site" / "plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[flask.commands]\nextra = plugin:extra\nrun = plugin:extra\n")
    (info.parent / "plugin.py").write_text(
        "import click\n@click.command()\ndef extra(): print('from a plugin')\n"
    )
    site = {"PYTHONPATH": str(info.parent)}
    assert hip("extra", cwd=project, **site).stdout == "from a plugin\n"
    assert hip("run", cwd=project, **site).stdout == "from a plugin\n"
    assert "extra" in hip("--help", cwd=project, **site).stdout


def test_without_plugins_no_metadata_is_loaded(project, tmp_path):
    # Extensions with commands may be installed here: let the process see only what Hipflask needs.
    site = tmp_path / "site"
    site.mkdir()
    for name in ("hipflask", "click", "jinja2", "markupsafe", "itsdangerous", "blinker"):
        (site / name).symlink_to(Path(importlib.util.find_spec(name).origin).parent)
    code = """
        import sys
        from hipflask.cli import cli
        cli.main(["hi"], standalone_mode=False)
        print("importlib.metadata" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(code)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "hi\nFalse\n", done.stderr


@pytest.fixture
def routes():
    app = Flask("routes", static_folder=None)
    app.add_url_rule("/b/<int:n>", "a_two", methods=["POST", "GET"])
    app.add_url_rule("/a", "b_one")
    app.add_url_rule("/c", "c", methods=["DELETE"])
    return app


@pytest.mark.parametrize(
    ("args", "order"),
    [
        ([], ["a_two", "b_one", "c"]),
        (["-s", "rule"], ["b_one", "a_two", "c"]),
        (["-s", "methods"], ["c", "b_one", "a_two"]),
        (["-s", "match"], ["b_one", "c", "a_two"]),
        (["-s", "domain"], ["a_two", "b_one", "c"]),
    ],
)
def test_routes(routes, args, order):
    info = ScriptInfo(create_app=lambda: routes)
    lines = CliRunner().invoke(cli, ["routes", *args], obj=info).output.splitlines()
    assert lines[0].split() == ["Endpoint", "Methods", "Rule", "Lane"]
    assert all(line.rstrip().endswith(" fast") for line in lines[2:])
    assert set(lines[1]) == {"-", " "}
    if "domain" not in args and "match" not in args:
        assert [line.split()[0] for line in lines[2:]] == order
    else:
        assert {line.split()[0] for line in lines[2:]} == set(order)
    assert any("GET, POST" in line for line in lines)


def test_routes_with_all_methods_and_hosts(runner):
    app = Flask("hosts", static_host="static.example.com", host_matching=True)
    app.add_url_rule("/", "index", host="<x>.example.com")
    out = runner.invoke(cli, ["routes", "--all-methods"], obj=ScriptInfo(create_app=lambda: app)).output
    assert "Host" in out.splitlines()[0]
    assert "<x>.example.com" in out
    assert "GET, HEAD, OPTIONS" in out
    assert all(line.rstrip().endswith("full: rules match by host") for line in out.splitlines()[2:])


@pytest.mark.parametrize("middleware", [False, True])
def test_routes_tell_how_each_is_served(runner, middleware):
    app = Flask("lanes", static_folder=None)
    app.add_url_rule("/", "plain", lambda: "")

    @app.route("/later")
    async def later():
        return ""

    if middleware:
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start_response: inner(environ, start_response)
    out = runner.invoke(cli, ["routes"], obj=ScriptInfo(create_app=lambda: app)).output
    lanes = {line.split()[0]: line for line in out.splitlines()[2:]}
    usual = "full: app.wsgi_app is wrapped by middleware" if middleware else "fast"
    assert lanes["plain"].rstrip().endswith(f" {usual}")
    assert lanes["later"].rstrip().endswith(f"/later  {usual}{'; ' if middleware else ': '}on the event loop")


def test_help_under_the_alias_knows_the_app_that_an_env_file_names(tmp_path):
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\ndef create_app(name):\n    app = Flask(name)\n"
        "    app.cli.command('greet')(lambda: print('hello'))\n    return app\n"
    )
    (tmp_path / ".flaskenv").write_text("FLASK_APP=shop.py:create_app('a')\n")
    done = hip("--as-flask", "--help", cwd=tmp_path)
    assert "greet" in done.stdout
    assert done.stderr == ""
    assert hip("--as-flask", "greet", cwd=tmp_path).stdout == "hello\n"


def test_routes_under_the_alias_are_flasks_table_with_the_lanes_below(tmp_path):
    (tmp_path / "app.py").write_text(
        "from flask import Flask\napp = Flask('app', static_folder=None)\n"
        "@app.get('/')\ndef index(): pass\n@app.post('/a')\nasync def later(): pass\n"
    )
    assert hip("--as-flask", "routes", cwd=tmp_path).stdout == (
        "Endpoint  Methods  Rule\n--------  -------  ----\nindex     GET      /   \nlater     POST     /a  \n"
        "\nLane: fast (index)\nLane: fast: on the event loop (later)\n"
    )


def test_no_routes(runner):
    app = Flask("empty", static_folder=None)
    out = runner.invoke(cli, ["routes"], obj=ScriptInfo(create_app=lambda: app)).output
    assert out == "No routes were registered.\n"


def test_shell(project):
    done = subprocess.run(
        [*HIPFLASK, "shell"],
        cwd=project,
        input="print(app.name, g)\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "here" in done.stdout
    assert "Traceback" not in done.stderr


def test_dotenv(project, monkeypatch):
    (project / ".flaskenv").write_text("HIP_A=flaskenv\nHIP_B=flaskenv\nHIP_C=flaskenv\n")
    (project / ".env").write_text("HIP_B=env\nHIP_C=env\nHIP_D\n")
    (project / "own").write_text("HIP_C=own\nHIP_SET=own\n")
    for name in ("HIP_A", "HIP_B", "HIP_C", "HIP_D"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HIP_SET", "already")
    assert load_dotenv("own") is True
    assert [os.environ.get(f"HIP_{name}") for name in ("A", "B", "C", "D", "SET")] == [
        "flaskenv",
        "env",
        "own",
        None,
        "already",
    ]
    assert load_dotenv("missing", load_defaults=False) is False


def test_dotenv_names_the_app(tmp_path):
    (tmp_path / "mine.py").write_text("from hipflask import Flask\nweb = Flask('from_env')\n")
    (tmp_path / ".flaskenv").write_text("FLASK_APP=mine:web\n")
    assert "static" in hip("routes", cwd=tmp_path).stdout
    assert hip("routes", cwd=tmp_path, FLASK_SKIP_DOTENV="1").returncode == 2


def test_without_python_dotenv(project, monkeypatch, capsys, runner):
    monkeypatch.setitem(sys.modules, "dotenv", None)
    assert load_dotenv() is False
    assert capsys.readouterr().err == ""
    (project / ".env").write_text("A=1")
    assert load_dotenv() is False
    assert "Install python-dotenv" in capsys.readouterr().err
    result = runner.invoke(FlaskGroup(create_app=factory), ["-e", "app.py", "routes"])
    assert result.exit_code == 2
    assert "python-dotenv must be installed" in result.output


def test_cert_and_key(project, monkeypatch):
    for name in ("cert.pem", "key.pem"):
        (project / name).write_text("")
    cert, key = str(project.resolve() / "cert.pem"), str(project.resolve() / "key.pem")

    def parse(*args):
        return run_command.make_context("run", list(args)).params["cert"]

    assert parse("--cert", cert, "--key", key) == (cert, key)
    assert parse() is None
    context = module(ctx=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    monkeypatch.setitem(sys.modules, "ssl_here", context)
    assert parse("--cert", "ssl_here.ctx") is context.ctx
    for args in (
        ["--cert", cert],
        ["--key", key],
        ["--cert", "ssl_here.ctx", "--key", key],
        ["--cert", "no.such.file"],
    ):
        with pytest.raises(click.BadParameter):
            parse(*args)


def test_adhoc_takes_no_key():
    assert run_command.make_context("run", ["--cert", "ADHOC"]).params["cert"] == "adhoc"
    with pytest.raises(click.BadParameter, match="adhoc"):
        run_command.make_context("run", ["--cert", "adhoc", "--key", __file__])


def test_paths_are_separated():
    params = run_command.make_context("run", ["--extra-files", os.pathsep.join(["a", "b"])]).params
    assert params["extra_files"] == ["a", "b"]


RUN = [
    ([], {"use_reloader": False, "use_debugger": False, "threads": 32}),
    (["--debug"], {"use_reloader": True, "use_debugger": True}),
    (["--debug", "--no-reload"], {"use_reloader": False, "use_debugger": True}),
    (["--reload", "--without-threads"], {"use_reloader": True, "use_debugger": False, "threads": 1}),
    (["--exclude-patterns", "*.tmp"], {"exclude_patterns": ["*.tmp"]}),
]


@pytest.mark.parametrize(("args", "options"), RUN, ids=[" ".join(args) for args, _ in RUN])
def test_run(runner, monkeypatch, args, options):
    import hipflask.serving

    calls = []
    monkeypatch.setattr(hipflask.serving, "run", lambda *args, **kwargs: calls.append((args, kwargs)))
    result = runner.invoke(FlaskGroup(create_app=factory), ["run", "-p", "80", "-h", "0.0.0.0", *args])
    assert result.exit_code == 0, result.output
    [((load, settings), keywords)] = calls
    assert load().name == "factory"
    assert settings.binds() == ["0.0.0.0:80"]
    assert {**keywords, **settings.values}.items() >= options.items()
    assert keywords["about"].endswith(f"debug mode {'on' if '--debug' in args else 'off'}")


@pytest.mark.parametrize("args", [["pkg/sub:application"], ["--app", "pkg/sub:application"]], ids=len)
def test_run_takes_the_app_behind_its_name(runner, monkeypatch, project, args):
    import hipflask.serving

    calls = []
    monkeypatch.setattr(hipflask.serving, "run", lambda *args, **kwargs: calls.append(args))
    result = runner.invoke(cli, ["run", *args])
    assert result.exit_code == 0, result.output
    [(load, settings)] = calls
    assert load().name == "inner"
    assert settings.binds() == ["127.0.0.1:5000"]


def test_under_the_reloader_a_broken_app_is_served_as_its_error(runner, monkeypatch, project):
    import hipflask.serving

    calls = []
    monkeypatch.setattr(hipflask.serving, "run", lambda *args, **kwargs: calls.append(args))
    assert runner.invoke(cli, ["run", "raises"]).exit_code == 0
    with pytest.raises(RuntimeError, match="at import"):
        calls.pop()[0]()
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")
    monkeypatch.setenv("HIPFLASK_RELOADS", "1")
    assert runner.invoke(cli, ["run", "raises"]).exit_code == 0
    with pytest.raises(RuntimeError, match="at import"):
        calls.pop()[0]()({}, None)


def test_app_run_does_nothing_while_a_command_imports_it(tmp_path):
    (tmp_path / "app.py").write_text("from hipflask import Flask\napp = Flask('x')\napp.run()\n")
    done = hip("routes", cwd=tmp_path)
    assert done.returncode == 0
    assert "Ignoring a call to 'app.run()'" in done.stdout + done.stderr


# Checking and configuration.


@pytest.fixture
def production(project):
    app = Flask("production")
    app.config.update(
        SECRET_KEY="0123456789abcdef0123456789abcdef",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
        TRUSTED_HOSTS=["example.com"],
        MAX_CONTENT_LENGTH=1000,
    )
    return app


def check(app, *args):
    return CliRunner().invoke(cli, ["check", *args], obj=ScriptInfo(create_app=lambda: app))


def test_a_good_app_passes_the_check(production):
    result = check(production, "--strict")
    assert result.exit_code == 0, result.output
    assert "problem" not in result.output
    assert "advice" not in result.output
    assert "Lane         fast, for /static/<path:filename>" in result.output


PROBLEMS = [
    ({"SECRET_KEY": None}, "problem   SECRET_KEY is not set"),
    ({"SECRET_KEY": "dev"}, "problem   SECRET_KEY can be guessed"),
    ({"SECRET_KEY": "0123456789"}, "problem   SECRET_KEY has 10 bytes, fewer than 20"),
    ({"TESTING": True}, "problem   TESTING is on"),
    ({"SESSION_COOKIE_HTTPONLY": False}, "problem   SESSION_COOKIE_HTTPONLY is off"),
]


@pytest.mark.parametrize(("settings", "line"), PROBLEMS, ids=[line for _, line in PROBLEMS])
def test_problems_fail_the_check(production, settings, line):
    production.config.update(settings)
    result = check(production)
    assert result.exit_code == 1
    assert line in result.output


ADVICE = ["SESSION_COOKIE_SECURE", "SESSION_COOKIE_SAMESITE", "TRUSTED_HOSTS", "MAX_CONTENT_LENGTH"]


@pytest.mark.parametrize("name", ADVICE)
def test_advice_fails_the_strict_check_only(production, name):
    production.config[name] = None
    assert f"advice    {name} is" in check(production).output
    assert check(production).exit_code == 0
    assert check(production, "--strict").exit_code == 1


def test_debug_mode_fails_the_check(production, monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert "problem   DEBUG is on" in check(production).output


def test_the_check_shows_what_the_app_is_made_of(production):
    from hipflask.werkzeug.middleware.proxy_fix import ProxyFix

    production.wsgi_app = ProxyFix(production.wsgi_app)
    production.extensions["thing"] = object()
    production.before_request(needs_arguments)
    Blueprint("pages", "pages").after_request(broken)
    production.add_url_rule("/nothing", "nowhere")
    output = check(production).output
    # Extensions that other tests have imported into this process are listed beside it.
    assert re.search(r"^(Extensions)? +flask_thing$", output, re.MULTILINE)
    assert "Middleware   hipflask.werkzeug.middleware.proxy_fix.ProxyFix" in output
    assert "before_request test_cli.needs_arguments" in output
    assert "full, for all 2 routes: app.wsgi_app is wrapped by middleware" in output
    assert "problem   /nothing has no view" in output


COMMANDS = [
    ("gunicorn app:app", "--app app:app"),
    ("gunicorn -b :80 app:app", "--app app:app --host 0.0.0.0 --port 80"),
    ("poetry run gunicorn --bind=127.0.0.1:80 a", "--app a --host 127.0.0.1 --port 80"),
    ("gunicorn -b unix:/run/a.sock 'a:make(1)'", "--app 'a:make(1)' --host unix:/run/a.sock"),
    ("gunicorn -b [::1]:80 --threads 4 --reload a", "--app a --host ::1 --port 80 --threads 4 --reload"),
    ("gunicorn --access-logfile - -w2 a", "--app a --access-log-to - --workers 2"),
    ("gunicorn --preload --max-requests 9 -u www a", "--app a --preload --max-requests 9 --user www"),
    ("gunicorn --max-requests 0 -b :1 -b unix:a a", "--app a --bind 0.0.0.0:1 --bind unix:a"),
    ("gunicorn --graceful-timeout 9 --keep-alive 5 a", "--app a --grace 9 --idle-timeout 5"),
    ("gunicorn --certfile c.pem --keyfile k.pem a", "--app a --cert c.pem --key k.pem"),
    ("gunicorn -b fd://3 -p /run/pid a", "--app a --bind fd:3 --pid-file /run/pid"),
    ("uwsgi --http :80 --module a:app --master", "--app a:app --host 0.0.0.0 --port 80"),
    ("uwsgi --http-socket=:80 --wsgi-file a.py --callable app", "--app a.py:app --host 0.0.0.0 --port 80"),
]


@pytest.mark.parametrize(("line", "ours"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_options_of_other_servers_are_translated(line, ours):
    import shlex

    from hipflask.migration import from_command

    words = shlex.split(from_command(line).command)
    assert words[:2] == ["hipflask", "run"]
    assert sorted(words[2:]) == sorted(shlex.split(ours))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Procfile", "worker: x\nweb: gunicorn -w 3 -b 0.0.0.0:80 app:app\n"),
        (
            "gunicorn.conf.py",
            "import os\nworkers = os.cpu_count()\nbind = '0.0.0.0:80'\nwsgi_app = 'app:app'\n",
        ),
        ("uwsgi.ini", "[uwsgi]\nmodule = app:app\nhttp = 0.0.0.0:80\nprocesses = 3\n"),
    ],
)
def test_options_are_found_in_files(production, project, name, text):
    (project / name).write_text(text)
    output = check(production).output
    assert f"{name} becomes:" in output
    for part in (
        "--app app:app",
        "--host 0.0.0.0 --port 80",
        "--workers auto" if "conf" in name else "--workers 3",
    ):
        assert part in output


def test_an_unknown_option_is_named(production):
    output = check(production, "--from-gunicorn", "gunicorn --made-up 3 app:app").output
    assert "made_up 3  unknown here" in output
    result = check(production, "--from-gunicorn", "waitress app:app")
    assert result.exit_code == 2
    assert "there is neither 'gunicorn' nor 'uwsgi' in it" in result.output


def test_settings_and_their_sources(production, monkeypatch):
    pytest.importorskip("dotenv")
    production.config["SQLALCHEMY_DATABASE_URI"] = "postgresql://ann:secret@host/db"
    monkeypatch.setenv("FLASK_RUN_HOST", "0.0.0.0")
    info = ScriptInfo(create_app=lambda: production)
    result = CliRunner().invoke(cli, ["config", "--port", "81", "--debug"], obj=info)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line}
    assert rows["port"] == ["81", "command", "line"]
    assert rows["host"] == ["0.0.0.0", "environment", "FLASK_RUN_HOST"]
    assert rows["reload"] == ["true", "default,", "as", "debug"]
    assert rows["SECRET_KEY"] == ["(hidden)", "application"]
    assert rows["SQLALCHEMY_DATABASE_URI"] == ["'postgresql://...@host/db'", "application"]
    assert rows["SESSION_COOKIE_NAME"] == ["'session'", "default"]


def test_a_command_of_the_app_goes_before_ours(production):
    @production.cli.command("check")
    def own():
        click.echo("own check")

    assert check(production).output == "own check\n"


def test_a_traceback_begins_with_the_developers_code(project):
    (project / "typo.py").write_text("def broken(:\n")
    done = hip("--app", "typo", "run", cwd=project)
    assert done.returncode == 1
    assert done.stderr.count("File") == 1
    assert "SyntaxError" in done.stderr
    done = hip("--app", "raises", "run", cwd=project)
    assert done.returncode == 1
    assert done.stderr.count("File") == 1
    assert "RuntimeError: at import" in done.stderr
