"""Config, JSON, sessions, commands, clients: done with Flask and with Hipflask, the answers compared."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import importlib
import re
import types
import uuid

import flask
import pytest
from click.testing import CliRunner

import hipflask

BOTH = (flask, hipflask)


def part(package, name):
    return importlib.import_module(f"{package.__name__}.{name}")


def outcome(function, *args, **kwargs):
    """The value, or the exception's type by name and its text."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)


def same(function, *args):
    """Run it with both; the result is the one that they share."""
    theirs, ours = (function(package, *args) for package in BOTH)
    assert ours == theirs
    return theirs


@dataclasses.dataclass
class Point:
    x: int
    y: tuple = ()


class Html:
    def __html__(self):
        return "<b>"


VALUES = {
    "scalars": [None, True, 1, -1.5, 1e20, 1e-7, 2**80, 'é\n"\\/\x7f\u2028', float("inf")],
    "keys": {"b": 1, "a": 2, "é": 3, "B": 4},
    "int keys": {2: 1, 10: 2},
    "mixed keys": {"a": 1, 2: 2},
    "odd key": {(1,): 2},
    "dates": [datetime.date(2020, 2, 29), datetime.datetime(2020, 1, 1, 1, 2, 3)],
    "zone": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    "decimal": decimal.Decimal("1.20"),
    "uuid": uuid.UUID(int=1),
    "dataclass": Point(1, (2, {"z": Point(3)})),
    "html": Html(),
    "unknown": object,
    "set": {1},
    "surrogate": "\udc80",
}
SETTINGS = {
    "default": {},
    "unsorted": {"sort_keys": False},
    "unicode": {"ensure_ascii": False},
    "spacious": {"compact": False},
    "mimetype": {"mimetype": "text/json"},
}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_json(value, settings, debug):
    def answers(package):
        app = package.Flask("x")
        app.debug = debug
        vars(app.json).update(settings)

        def respond():
            response = package.jsonify(value)
            return response.get_data(), response.mimetype

        with app.app_context():
            return (
                outcome(respond),
                outcome(package.json.dumps, value),
                outcome(package.json.dumps, value, indent=1, sort_keys=False),
                outcome(package.render_template_string, "{{ x|tojson }}", x=value),
            )

    same(answers)


def session_app(package, **config):
    app = package.Flask("x")
    app.secret_key = "key"
    app.config.update(config)

    @app.route("/set")
    def put():
        package.session["n"] = 1
        package.session["t"] = (1, b"x", uuid.UUID(int=2))
        return ""

    @app.route("/permanent")
    def permanent():
        package.session.permanent = True
        return ""

    @app.route("/clear")
    def clear():
        package.session.clear()
        return ""

    @app.route("/read")
    def read():
        return repr(sorted(package.session.items()))

    @app.route("/flash")
    def flash():
        package.flash("one")
        package.flash("two", "error")
        return ""

    @app.route("/flashes")
    def flashes():
        return repr(package.get_flashed_messages(with_categories=True))

    @app.route("/nothing")
    def nothing():
        return "", {"Vary": "Accept"}

    @app.route("/list")
    def mutate():
        package.session.setdefault("list", []).append(1)
        return repr(package.session.modified)

    return app


def without_time(cookie):
    """A Set-Cookie header without what depends on the second: the time stamp, the signature, the end."""
    cookie = re.sub(r"=(\.?[\w-]+)\.[\w-]+\.[\w-]+", r"=\1", cookie, count=1)
    return re.sub(r"Expires=[^;]+", "Expires", cookie)


WALKS = [
    ["/read"],
    ["/nothing"],
    ["/set", "/read", "/nothing", "/clear", "/read", "/clear"],
    ["/permanent", "/read", "/nothing", "/read"],
    ["/flash", "/flashes", "/flashes", "/read"],
    ["/list", "/list", "/read"],
]
CONFIGS = {
    "default": {},
    "attributes": {
        "SESSION_COOKIE_NAME": "sid",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_SAMESITE": "Strict",
        "SESSION_COOKIE_PARTITIONED": True,
        "SESSION_COOKIE_HTTPONLY": False,
    },
    "root": {"APPLICATION_ROOT": "/app"},
    "no refresh": {"SESSION_REFRESH_EACH_REQUEST": False},
    "no key": {"SECRET_KEY": None},
    "domain": {"SESSION_COOKIE_DOMAIN": "localhost"},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("walk", WALKS, ids=" ".join)
def test_sessions(walk, config):
    def answers(package):
        app = session_app(package, **config)
        client = app.test_client()
        seen = []
        for path in walk:
            response = client.get(path, "https://localhost/")
            body = "" if response.status_code == 500 else response.text
            cookies = [without_time(cookie) for cookie in response.headers.getlist("Set-Cookie")]
            seen.append((response.status_code, body, cookies, response.headers.get("Vary")))
        return seen

    same(answers)


@pytest.mark.parametrize("writer", BOTH, ids=lambda package: package.__name__)
@pytest.mark.parametrize("change", ["none", "payload", "stamp", "signature", "cut", "key", "fallback"])
def test_each_reads_the_others_cookie_and_refuses_the_same(writer, change):
    client = session_app(writer).test_client()
    client.get("/set")
    value = client.get_cookie("session").value
    payload, stamp, signature = value.rsplit(".", 2)
    config = {}
    if change == "payload":
        value = f"{payload[:-1]}A.{stamp}.{signature}"
    elif change == "stamp":
        value = f"{payload}.AAAA.{signature}"
    elif change == "signature":
        value = f"{payload}.{stamp}.A{signature[1:]}"
    elif change == "cut":
        value = f"{payload}.{stamp}"
    elif change == "key":
        config = {"SECRET_KEY": "other"}
    elif change == "fallback":
        config = {"SECRET_KEY": "other", "SECRET_KEY_FALLBACKS": ["x", "key"]}

    def read(package):
        client = session_app(package, **config).test_client(use_cookies=False)
        return client.get("/read", headers={"Cookie": f"session={value}"}).text

    text = same(read)
    assert (text == "[]") is (change not in ("none", "fallback"))


def test_config(tmp_path, monkeypatch):
    (tmp_path / "c.py").write_text("A = 1\nb = 2")
    (tmp_path / "bad.py").write_text("A = ")
    (tmp_path / "oserror.py").write_text("open('/no/such/file')")
    monkeypatch.setenv("FLASK_X__Y", "[1]")
    monkeypatch.setenv("FLASK_Z", "text")
    monkeypatch.setenv("EMPTY", "")

    def answers(package):
        config = package.Config(tmp_path, {"D": 1})
        steps = [
            lambda: config.from_pyfile("c.py"),
            lambda: config.from_pyfile("none.py"),
            lambda: config.from_pyfile("none.py", silent=True),
            lambda: config.from_pyfile("bad.py"),
            lambda: config.from_pyfile("oserror.py", silent=True),
            lambda: config.from_file("c.py", load=lambda file: {"TEXT": file.read(), "low": 1}),
            lambda: config.from_file("none", load=str),
            lambda: config.from_object("string.Formatter"),
            lambda: config.from_prefixed_env(),
            lambda: config.from_mapping({"M": 1, "n": 2}, O=3),
            lambda: config.from_envvar("EMPTY", silent=True),
            lambda: config.get_namespace("X", lowercase=False),
        ]
        return [outcome(step) for step in steps], repr(config)

    same(answers)


def module(package, **names):
    made = types.ModuleType("mod")
    vars(made).update(Flask=package.Flask, **names)
    return made


SOURCES = {
    "nothing": "",
    "app": "app = Flask('a'); other = Flask('b')",
    "only": "mine = Flask('a')",
    "two": "one = Flask('a'); two = Flask('b')",
    "factory": "def create_app(): return Flask('f')",
    "arguments": "def create_app(x, y=2): return Flask(f'f{x}{y}')",
    "not an app": "app = 1\ndef make_app(): return 2",
    "type error": "def create_app(): return None + 1",
}
NAMES = [
    None,
    "app",
    "mine",
    "create_app",
    "create_app()",
    "create_app('q')",
    "create_app(y=1, x=0)",
    "x.y",
    "f(",
    "create_app(z)",
    "1+1",
    "",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_apps_are_found_and_missed_alike(source, name):
    def answers(package):
        cli = part(package, "cli")
        made = module(package)
        exec(source, vars(made))

        def find():
            return (cli.find_best_app(made) if name is None else cli.find_app_by_string(made, name)).name

        return outcome(find)

    same(answers)


@pytest.mark.parametrize(
    "options",
    [[], ["--all-methods"], *(["--sort", by] for by in ("endpoint", "methods", "rule", "match", "domain"))],
)
@pytest.mark.parametrize("hosts", [False, True])
def test_routes_are_listed_alike(options, hosts):
    def answers(package):
        app = package.Flask("x", static_folder=None, host_matching=hosts)
        app.add_url_rule(
            "/b/<int:n>", "z", methods=["GET", "POST"], **({"host": "b.example"} if hosts else {})
        )
        app.add_url_rule("/a", "a", methods=["PUT"], **({"host": "a.example"} if hosts else {}))
        app.add_url_rule("/a/<path:p>", "m", **({"host": "a.example"} if hosts else {}))
        cli = part(package, "cli")
        info = cli.ScriptInfo(create_app=lambda: app)
        lines = CliRunner().invoke(cli.cli, ["routes", *options], obj=info).output.splitlines()
        if package.__name__ == "flask":
            return lines
        # The last column tells the engine's lane.
        width = lines[1].rindex("  ")
        return [line[:width] for line in lines]

    same(answers)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "/a?b=c"},
        {"path": "http://other/x", "subdomain": None},
        {"subdomain": "www"},
        {"url_scheme": "https"},
        {"base_url": "https://b/r"},
        {"base_url": "https://b/r", "subdomain": "x"},
        {"json": {"b": 1, "a": decimal.Decimal(1)}},
        {"query_string": {"a": "é"}, "headers": {"X-Y": "z"}},
    ],
)
def test_environs_are_built_alike(arguments):
    def answers(package):
        app = package.Flask("x")
        app.config["SERVER_NAME"] = "example.com"

        def build():
            builder = part(package, "testing").EnvironBuilder(app, **arguments)
            environ = builder.get_environ()
            builder.close()
            body = environ.pop("wsgi.input").read()
            return {key: value for key, value in environ.items() if isinstance(value, (str, tuple))}, body

        return outcome(build)

    same(answers)
