"""The app: routes, return values, hooks, configuration, set-up."""

from __future__ import annotations

import datetime
import gc
import os
import subprocess
import sys
import weakref

import pytest

import hipflask
from hipflask import Flask, after_this_request, g, make_response, redirect, request, session, url_for
from hipflask.werkzeug.datastructures import Headers
from hipflask.werkzeug.routing import BuildError
from hipflask.werkzeug.wrappers import Response as BaseResponse


def wsgi(environ, start_response):
    start_response("202 Accepted", [("X-From", "wsgi")])
    return [b"wsgi"]


RETURNED = [
    pytest.param("text é", (200, "text é", "text/html; charset=utf-8"), id="str"),
    pytest.param(b"bytes", (200, "bytes", "text/html; charset=utf-8"), id="bytes"),
    pytest.param(bytearray(b"array"), (200, "array", "text/html; charset=utf-8"), id="bytearray"),
    pytest.param({"b": 1, "a": [None]}, (200, '{"a":[null],"b":1}\n', "application/json"), id="dict"),
    pytest.param([1, "é"], (200, '[1,"\\u00e9"]\n', "application/json"), id="list"),
    pytest.param(lambda: iter(["a", "b"]), (200, "ab", "text/html; charset=utf-8"), id="iterator"),
    pytest.param(lambda: (x for x in [b"a", b"b"]), (200, "ab", "text/html; charset=utf-8"), id="generator"),
    pytest.param(("t", 201), (201, "t", "text/html; charset=utf-8"), id="status"),
    pytest.param(("t", "201 Made"), (201, "t", "text/html; charset=utf-8"), id="status-line"),
    pytest.param(({"a": 1}, 201), (201, '{"a":1}\n', "application/json"), id="dict-status"),
    pytest.param(("t", {"Content-Type": "text/plain"}), (200, "t", "text/plain"), id="headers-dict"),
    pytest.param(("t", [("Content-Type", "text/plain")]), (200, "t", "text/plain"), id="headers-list"),
    pytest.param(("t", Headers({"Content-Type": "text/plain"})), (200, "t", "text/plain"), id="headers"),
    pytest.param(("t", 404, {"Content-Type": "text/plain"}), (404, "t", "text/plain"), id="both"),
    pytest.param(([1], 404, {"Content-Type": "text/plain"}), (404, "[1]\n", "text/plain"), id="list-both"),
    pytest.param(wsgi, (202, "wsgi", "text/plain; charset=utf-8"), id="wsgi"),
    pytest.param((wsgi, 203), (203, "wsgi", "text/plain; charset=utf-8"), id="wsgi-status"),
]


@pytest.mark.parametrize(("value", "expected"), RETURNED)
def test_what_a_view_returns_becomes_a_response(app, client, value, expected):
    # Iterators are made for each request.
    app.add_url_rule(
        "/", "view", lambda: value() if type(value) is type(wsgi) and value is not wsgi else value
    )
    answer = client.get("/")
    assert (answer.status_code, answer.text, answer.header("Content-Type")) == expected


@pytest.mark.parametrize("cls", [BaseResponse, hipflask.Response])
def test_responses_of_any_class_are_taken(app, client, cls):
    app.add_url_rule("/", "view", lambda: (cls("x", 201, {"A": "1", "B": "1"}), 202, {"B": "2"}))
    answer = client.get("/")
    assert (answer.status_code, answer.text, answer.headers("A"), answer.headers("B")) == (
        202,
        "x",
        ["1"],
        ["2"],
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            None,
            "The view function for 'view' did not return a valid response. The function either returned None",
        ),
        ((None, 404), "The view function for 'view' did not return a valid response"),
        (5, "must be a string, dict, list, .*, but it was a int"),
        (True, "but it was a bool"),
        (("a",), "did not return a valid response tuple"),
        (("a", 1, {}, 2), r"must have the form \(body, status, headers\)"),
        (lambda environ: None, r"positional argument.*\n.*but it was a function"),
    ],
)
def test_what_is_no_response_is_told(app, value, message):
    app.testing = True
    app.add_url_rule("/", "view", lambda: value)
    with pytest.raises(TypeError, match=f"(?s){message}"):
        app.test_client().get("/")


def test_methods(app, client):
    for method in ("get", "post", "put", "patch", "delete"):
        getattr(app, method)(f"/{method}", endpoint=method)(lambda method=method: method)
    app.get("/g")(lambda: "got")
    app.post("/p", endpoint="named")(lambda: "posted")
    assert client.get("/get").text == "get"
    assert client.open("/delete", "DELETE").text == "delete"
    assert client.open("/delete", "GET").status_code == 405
    assert client.post("/p").text == "posted"
    head = client.open("/g", "HEAD")
    assert (head.status_code, head.data, head.header("Content-Length")) == (200, b"", "3")
    assert sorted(client.open("/g", "OPTIONS").header("Allow").split(", ")) == ["GET", "HEAD", "OPTIONS"]


def test_options_can_be_the_views_own(app, client):
    app.add_url_rule("/", "view", lambda: request.method, methods=["GET", "OPTIONS"])
    assert client.open("/", "OPTIONS").text == "OPTIONS"
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app._got_first_request = False
    app.add_url_rule("/none", "none", lambda: "")
    assert client.open("/none", "OPTIONS").status_code == 405


def test_a_view_function_can_carry_its_methods(app, client):
    def view():
        return request.method

    view.methods = ["post"]
    view.required_methods = ["PUT"]
    app.add_url_rule("/", view_func=view)
    assert client.post("/").text == "POST"
    assert client.open("/", "PUT").text == "PUT"
    assert client.get("/").status_code == 405


def test_an_endpoint_can_get_its_view_later(app, client):
    app.add_url_rule("/", endpoint="late")

    @app.endpoint("late")
    def view():
        return "late"

    assert client.get("/").text == "late"


@pytest.mark.parametrize(
    ("setup", "error", "message"),
    [
        (lambda app: app.route("/", methods="POST")(print), TypeError, "must be a list of strings"),
        (lambda app: app.get("/", methods=["GET"]), TypeError, "Use the 'route' decorator"),
        (lambda app: app.add_url_rule("/"), AssertionError, "expected view func if endpoint is not provided"),
        (
            lambda app: [app.add_url_rule("/", "x", view) for view in (print, repr)],
            AssertionError,
            "overwriting an existing endpoint function: x",
        ),
        (lambda app: app.add_url_rule("no-slash", "x"), ValueError, "must start with a slash"),
        (lambda app: Flask("x", instance_path="relative"), ValueError, "it must be absolute"),
        (lambda app: Flask("x", static_host="h"), AssertionError, "Invalid static_host/host_matching"),
        (lambda app: Flask("x", host_matching=True), AssertionError, "Invalid static_host/host_matching"),
    ],
)
def test_mistakes_at_set_up_are_told(app, setup, error, message):
    with pytest.raises(error, match=message):
        setup(app)


LATE = [
    lambda app: app.route("/late"),
    lambda app: app.add_url_rule("/late", "late"),
    lambda app: app.before_request(print),
    lambda app: app.after_request(print),
    lambda app: app.teardown_request(print),
    lambda app: app.teardown_appcontext(print),
    lambda app: app.errorhandler(404),
    lambda app: app.context_processor(dict),
    lambda app: app.template_filter(),
    lambda app: app.register_blueprint(hipflask.Blueprint("late", __name__)),
    lambda app: app.shell_context_processor(dict),
    lambda app: app.url_defaults(print),
]


@pytest.mark.parametrize("setup", LATE)
def test_set_up_after_the_first_request_is_refused(app, setup):
    app.test_client().get("/")
    with pytest.raises(AssertionError, match="can no longer be called on the application"):
        setup(app)


def test_hooks_run_in_order_and_can_answer(app, client):
    order = []
    app.before_request(lambda: order.append("before 1"))
    app.before_request(lambda: order.append("before 2"))
    app.before_request(lambda: "early" if "stop" in request.args else None)
    app.after_request(lambda response: order.append("after 1") or response)
    app.after_request(lambda response: order.append("after 2") or response)
    app.teardown_request(lambda exc: order.append("teardown 1"))
    app.teardown_request(lambda exc: order.append("teardown 2"))

    @app.route("/")
    def view():
        after_this_request(lambda response: order.append("this 1") or response)
        after_this_request(lambda response: order.append("this 2") or response)
        order.append("view")
        return "view"

    assert client.get("/").text == "view"
    assert order == [
        "before 1", "before 2", "view", "this 1", "this 2", "after 2", "after 1", "teardown 2", "teardown 1",
    ]  # fmt: skip
    order.clear()
    assert client.get("/?stop").text == "early"
    assert "view" not in order
    assert order[-3:] == ["after 1", "teardown 2", "teardown 1"]


def test_an_after_hook_replaces_the_response(app, client):
    app.after_request(lambda response: make_response(response.data + b"!", 201))
    app.add_url_rule("/", "view", lambda: "x")
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (201, "x!")


def test_a_session_lasts_from_request_to_request(app, client):
    @app.route("/set")
    def put():
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    app.add_url_rule("/none", "none", lambda: "x")
    answer = client.get("/set")
    assert (answer.text, answer.header("Vary")) == ("1", "Cookie")
    assert client.get("/set").text == "2"
    answer = client.get("/none")
    assert (answer.header("Vary"), answer.header("Set-Cookie")) == (None, None)


def test_an_app_without_a_secret_key_has_read_only_sessions():
    app = Flask("keyless")
    app.testing = True
    app.add_url_rule("/get", "get", lambda: str(session.get("x")))
    app.add_url_rule("/set", "set", lambda: session.update(x=1))
    assert app.test_client().get("/get").text == "None"
    with pytest.raises(RuntimeError, match="session is unavailable because no secret key was set"):
        app.test_client().get("/set")


def test_async_views_and_hooks(app, client):
    @app.before_request
    async def before():
        g.x = 1

    @app.after_request
    async def after(response):
        response.headers["X-After"] = str(g.x)
        return response

    @app.errorhandler(ValueError)
    async def handler(e):
        return f"handled {request.path}", 418

    @app.route("/")
    async def view():
        return f"{g.x} {request.path}"

    @app.route("/fail")
    async def fail():
        raise ValueError

    answer = client.get("/")
    assert (answer.text, answer.header("X-After")) == ("1 /", "1")
    assert client.get("/fail").text == "handled /fail"


def test_a_coroutine_function_is_known_in_any_dress(app):
    from functools import partial

    class Thing:
        async def method(self):
            pass

        def plain(self):
            pass

    async def function(x):
        pass

    for target in (function, Thing().method, partial(function, 1), partial(partial(function), 1)):
        assert app.ensure_sync(target) is not target
    for target in (print, Thing().plain, partial(print), Thing, lambda: None):
        assert app.ensure_sync(target) is target


URLS = [
    pytest.param("/", lambda: url_for("item", id=3), "/item/3", id="path"),
    pytest.param("/", lambda: url_for("item", id=3, q="a b", n=[1, 2]), "/item/3?q=a+b&n=1&n=2", id="query"),
    pytest.param("/", lambda: url_for("item", id=3, _anchor="a b/ö"), "/item/3#a%20b/%C3%B6", id="anchor"),
    pytest.param(
        "/", lambda: url_for("item", id=3, _external=True), "http://localhost/item/3", id="external"
    ),
    pytest.param(
        "/", lambda: url_for("item", id=3, _scheme="https"), "https://localhost/item/3", id="scheme"
    ),
    pytest.param("/", lambda: url_for("item", id=3, _method="POST"), "/items/3", id="method"),
    pytest.param("/", lambda: url_for("static", filename="a/b c.css"), "/static/a/b%20c.css", id="static"),
    pytest.param("/", lambda: redirect(url_for(".item", id=1)).location, "/item/1", id="dot"),
]


@pytest.mark.parametrize(("path", "build", "expected"), URLS)
def test_urls_are_built(app, path, build, expected):
    app.add_url_rule("/item/<int:id>", "item")
    app.add_url_rule("/items/<int:id>", "item", methods=["POST"])
    with app.test_request_context(path):
        assert build() == expected


def test_urls_outside_of_a_request(app):
    app.add_url_rule("/x", "x")
    with app.app_context(), pytest.raises(RuntimeError, match="without 'SERVER_NAME' configured"):
        url_for("x")
    app.config.update(SERVER_NAME="example.com", APPLICATION_ROOT="/root", PREFERRED_URL_SCHEME="https")
    with app.app_context():
        assert url_for("x") == "https://example.com/root/x"
        assert url_for("x", _external=False) == "/root/x"
        with pytest.raises(ValueError, match="'_external' must be True"):
            url_for("x", _scheme="http", _external=False)


def test_a_url_that_cannot_be_built(app):
    with (
        app.test_request_context(),
        pytest.raises(BuildError, match="Could not build url for endpoint 'none'"),
    ):
        url_for("none")
    seen = []

    def handler(error, endpoint, values):
        seen.append((endpoint, values["_anchor"]))
        return None if endpoint == "none" else "/found"

    app.url_build_error_handlers.append(handler)
    with app.test_request_context():
        assert url_for("other", x=1, _anchor="a") == "/found"
        with pytest.raises(BuildError):
            url_for("none")
    assert seen == [("other", "a"), ("none", None)]


def test_trusted_hosts(app, client):
    app.config["TRUSTED_HOSTS"] = ["localhost", ".example.com"]
    app.add_url_rule("/", "view", lambda: request.host)
    assert client.get("/").text == "localhost"
    assert client.get("/", host="a.example.com").text == "a.example.com"
    assert client.get("/", host="bad.example").status_code == 400


def test_subdomains():
    app = Flask("sub", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    app.add_url_rule("/", "user", lambda user: user, subdomain="<user>")
    app.add_url_rule("/", "index", lambda: "index")
    client = app.test_client()
    assert client.get("/", base_url="http://you.example.com").text == "you"
    assert client.get("/", base_url="http://example.com").text == "index"


def test_host_matching():
    app = Flask("hosts", host_matching=True, static_host="static.example")
    app.add_url_rule("/", "a", lambda: "a", host="a.example")
    app.add_url_rule("/", "b", lambda name: name, host="<name>.b.example")
    client = app.test_client()
    assert client.get("/", base_url="http://a.example").text == "a"
    assert client.get("/", base_url="http://x.b.example").text == "x"
    assert client.get("/", base_url="http://c.example").status_code == 404


def test_static_files(app, client, tmp_path):
    (tmp_path / "a.css").write_text("css")
    app.static_folder = str(tmp_path)
    answer = client.get("/static/a.css")
    assert (answer.text, answer.header("Content-Type")) == ("css", "text/css; charset=utf-8")
    assert answer.header("Cache-Control") == "no-cache"
    again = client.get("/static/a.css", headers={"If-None-Match": answer.header("ETag")})
    assert (again.status_code, again.data) == (304, b"")
    # A setting that changes while the app serves counts from the next request.
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = datetime.timedelta(hours=1)
    assert "max-age=3600" in client.get("/static/a.css").header("Cache-Control")
    assert client.get("/static/../app.py").status_code == 404


@pytest.mark.parametrize("age", [datetime.timedelta(hours=1), 3600])
def test_static_files_may_be_cached(app, client, tmp_path, age):
    (tmp_path / "a.css").write_text("css")
    app.static_folder = str(tmp_path)
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = age
    assert "max-age=3600" in client.get("/static/a.css").header("Cache-Control")


@pytest.mark.parametrize(
    ("options", "folder", "path"),
    [
        ({}, "/root/static", "/static"),
        ({"static_folder": "files/"}, "/root/files", "/files"),
        ({"static_folder": "/abs/files"}, "/abs/files", "/files"),
        ({"static_url_path": "/s/"}, "/root/static", "/s"),
        ({"static_url_path": ""}, "/root/static", ""),
        ({"static_folder": None}, None, None),
        ({"static_folder": None, "static_url_path": "/s"}, None, "/s"),
        ({"static_folder": ""}, "/root/", ""),
    ],
)
def test_where_static_files_are(options, folder, path):
    app = Flask("static", root_path="/root", **options)
    assert (app.static_folder, app.static_url_path) == (folder, path)
    assert app.has_static_folder == (folder is not None)
    assert ("static" in app.view_functions) == (folder is not None)


def test_the_static_view_does_not_keep_the_app_alive():
    app = Flask("garbage")
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_resources_and_the_instance_folder(app, tmp_path):
    app.instance_path = str(tmp_path)
    with app.open_instance_resource("note.txt", "w") as file:
        file.write("é")
    with app.open_instance_resource("note.txt") as file:
        assert file.read() == "é".encode()
    with app.open_resource("test_app.py", "r", "utf-8") as file:
        assert file.readline().startswith('"""The app')
    with pytest.raises(ValueError, match="only be opened for reading"):
        app.open_resource("x", "w")


def test_the_instance_folder_lies_beside_the_module():
    assert Flask(__name__).instance_path == os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "instance"
    )
    assert Flask("hipflask.json", root_path="/").instance_path.endswith("instance")


def test_names_and_configuration_attributes(app):
    assert repr(app) == "<Flask 'test_app'>"
    assert app.name == "test_app"
    app.secret_key = "key"
    assert app.config["SECRET_KEY"] == "key"
    app.testing = True
    assert app.config["TESTING"]
    app.permanent_session_lifetime = 60
    assert app.permanent_session_lifetime == datetime.timedelta(minutes=1)
    assert Flask("x").permanent_session_lifetime == datetime.timedelta(days=31)
    assert not app.debug
    app.debug = True
    assert app.config["DEBUG"]


@pytest.mark.parametrize(
    ("value", "debug"), [("1", True), ("true", True), ("0", False), ("No", False), ("", False)]
)
def test_debug_comes_from_the_environment(monkeypatch, value, debug):
    monkeypatch.setenv("FLASK_DEBUG", value)
    assert Flask("x").debug is debug


def test_a_subclass_names_its_parts():
    from hipflask.json.provider import DefaultJSONProvider
    from hipflask.werkzeug.routing import Map, Rule

    class Provider(DefaultJSONProvider):
        pass

    class OwnRule(Rule):
        pass

    class OwnMap(Map):
        pass

    class Own(Flask):
        json_provider_class = Provider
        url_rule_class = OwnRule
        url_map_class = OwnMap
        default_config = {**Flask.default_config, "MINE": 1}

        class request_class(hipflask.Request):
            def shout(self):
                return self.path.upper()

        class response_class(hipflask.Response):
            default_mimetype = "text/plain"

    app = Own("own")
    app.add_url_rule("/x", "x", lambda: request.shout())
    assert isinstance(app.json, Provider)
    assert isinstance(app.url_map, OwnMap)
    assert all(isinstance(rule, OwnRule) for rule in app.url_map.iter_rules())
    assert app.config["MINE"] == 1
    answer = app.test_client().get("/x")
    assert (answer.text, answer.mimetype) == ("/X", "text/plain")


def test_middleware_around_wsgi_app(app, client):
    inner = app.wsgi_app

    def middleware(environ, start_response):
        environ["PATH_INFO"] = "/real"
        return inner(environ, start_response)

    app.wsgi_app = middleware
    app.add_url_rule("/real", "real", lambda: "real")
    assert client.get("/fake").text == "real"


def test_overridden_steps_are_called():
    calls = []

    class Own(Flask):
        def preprocess_request(self):
            calls.append("preprocess")
            return super().preprocess_request()

        def dispatch_request(self):
            calls.append("dispatch")
            return super().dispatch_request()

        def make_response(self, rv):
            calls.append("make")
            return super().make_response(rv)

        def process_response(self, response):
            calls.append("process")
            return super().process_response(response)

        def full_dispatch_request(self):
            calls.append("full")
            return super().full_dispatch_request()

        def create_url_adapter(self, request):
            calls.append("adapter")
            return super().create_url_adapter(request)

    app = Own("own")
    app.add_url_rule("/", "x", lambda: "x")
    assert app.test_client().get("/").text == "x"
    assert calls == ["adapter", "adapter", "full", "preprocess", "dispatch", "make", "process"]


def test_shell_context(app):
    app.shell_context_processor(lambda: {"model": 1})
    with app.app_context():
        names = app.make_shell_context()
    assert names["app"] is app
    assert names["model"] == 1
    assert "g" in names


def test_running_inside_the_command_is_ignored(app, monkeypatch, capsys):
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    app.run()
    assert "Ignoring a call to 'app.run()'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("server_name", "given", "expected"),
    [
        (None, (None, None), ("127.0.0.1", 5000)),
        (None, ("0.0.0.0", 80), ("0.0.0.0", 80)),
        ("name.example:8080", (None, None), ("name.example", 8080)),
        ("name.example", (None, None), ("name.example", 5000)),
        ("name.example:8080", ("host", 0), ("host", 0)),
    ],
)
def test_where_run_listens(app, monkeypatch, server_name, given, expected):
    calls = []
    app.config["SERVER_NAME"] = server_name
    monkeypatch.setattr(
        "hipflask.werkzeug.serving.run_simple",
        lambda host, port, app, **options: calls.append((host, port, options)),
    )
    monkeypatch.setattr("hipflask.cli.show_server_banner", lambda *args: None)
    app.run(*given, debug=True, load_dotenv=False, threaded=False)
    ((host, port, options),) = calls
    assert (host, port) == expected
    assert options == {"use_reloader": True, "use_debugger": True, "threaded": False}


def test_the_public_names():
    names = {name for name in dir(hipflask) if not name.startswith("_")}
    expected = set(hipflask._EXPORTS) | {"json"}
    assert len(expected) == 46
    assert expected <= names
    for name in expected:
        assert getattr(hipflask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hipflask.nothing  # noqa: B018
    with pytest.warns(DeprecationWarning, match="'__version__' attribute"):
        assert hipflask.__version__


def test_an_app_costs_no_module_that_it_does_not_use():
    program = """
import sys
from hipflask import Flask
app = Flask("app")
heavy = {"jinja2", "click", "blinker", "logging", "asyncio", "json", "itsdangerous", "inspect", "email"}
heavy |= {"hashlib", "http.client", "datetime", "socket", "ssl", "decimal", "uuid"}
print(*sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
