"""The test clients."""

from __future__ import annotations

import click
import pytest

from hipflask import Flask, current_app, g, jsonify, redirect, request, session, url_for
from hipflask.cli import ScriptInfo
from hipflask.sessions import SessionInterface
from hipflask.testing import EnvironBuilder, FlaskClient, FlaskCliRunner


@pytest.fixture
def app():
    app = Flask(__name__)
    app.secret_key = "k"

    @app.route("/")
    def index():
        g.seen = request.args.get("x")
        return request.url

    @app.route("/agent")
    def agent():
        return f"{request.user_agent} {request.remote_addr} {request.environ.get('custom')}"

    @app.route("/session")
    def show_session():
        return dict(session)

    @app.route("/away")
    def away():
        return redirect(url_for("index", x="redirected"))

    @app.route("/json", methods=["POST"])
    def echo():
        return jsonify(request.json)

    @app.route("/fail")
    def fail():
        raise ZeroDivisionError

    return app


@pytest.fixture
def client(app):
    return app.test_client()


BUILDERS = {
    "defaults": ({}, {}, "http://localhost/"),
    "server name": ({"SERVER_NAME": "example.com:5000"}, {"path": "/a?b=c"}, "http://example.com:5000/a?b=c"),
    "root": ({"APPLICATION_ROOT": "/root"}, {"path": "a"}, "http://localhost/root/a"),
    "scheme of the app": ({"PREFERRED_URL_SCHEME": "https"}, {}, "https://localhost/"),
    "scheme": ({}, {"url_scheme": "https"}, "https://localhost/"),
    "subdomain": ({"SERVER_NAME": "example.com"}, {"subdomain": "www"}, "http://www.example.com/"),
    "whole url": ({"SERVER_NAME": "example.com"}, {"path": "https://other/x?y=1"}, "https://other/x?y=1"),
    "base url": (
        {"SERVER_NAME": "example.com"},
        {"base_url": "https://b:1/r", "path": "p"},
        "https://b:1/r/p",
    ),
}


@pytest.mark.parametrize(("config", "arguments", "url"), BUILDERS.values(), ids=BUILDERS.keys())
def test_the_builder_takes_the_apps_defaults(app, config, arguments, url):
    app.config.update(config)
    builder = EnvironBuilder(app, **arguments)
    try:
        assert builder.get_request().url == url
    finally:
        builder.close()


def test_the_builder_refuses_contradictions(app):
    for more in ({"subdomain": "x"}, {"url_scheme": "https"}):
        with pytest.raises(AssertionError, match='Cannot pass "subdomain" or "url_scheme" with "base_url"'):
            EnvironBuilder(app, base_url="http://x/", **more)


def test_json_is_written_by_the_apps_provider(app, client):
    app.json.default = lambda value: "special"
    assert client.post("/json", json={"x": object()}).json == {"x": "special"}


def test_the_response_reads_json_by_the_apps_provider(app, client):
    response = client.post("/json", json=[1])
    assert response.json_module is app.json
    assert response.get_json() == [1]


def test_the_client_says_who_it_is(client):
    assert client.get("/agent").text == "Werkzeug/3.1.6 127.0.0.1 None"
    client.environ_base.update(HTTP_USER_AGENT="mine", REMOTE_ADDR="1.2.3.4")
    assert client.get("/agent", environ_base={"custom": 1}).text == "mine 1.2.3.4 1"


def test_requests_of_every_form(app, client):
    with app.test_request_context("/?x=1", environ_base={"REMOTE_ADDR": "9.9.9.9"}) as context:
        environ, made = context.request.environ, context.request
    builder = EnvironBuilder(app, "/?x=1")
    for first in (environ, made, builder, "/?x=1"):
        assert client.open(first).text == "http://localhost/?x=1"
    assert "HTTP_USER_AGENT" not in (builder.environ_base or {})
    assert "werkzeug.debug.preserve_context" not in made.environ


def test_redirects_are_followed(client):
    response = client.get("/away", follow_redirects=True)
    assert response.text == "http://localhost/?x=redirected"
    assert [before.status_code for before in response.history] == [302]


def test_the_context_stays_in_a_with_block(client):
    with client:
        client.get("/?x=1")
        assert request.args["x"] == "1"
        assert g.seen == "1"
        client.get("/?x=2")
        assert g.seen == "2"
    assert not request
    assert not current_app


def test_the_context_after_a_redirect_is_the_last(client):
    with client:
        client.get("/away", follow_redirects=True)
        assert request.path == "/"


def test_the_context_stays_after_an_error(app, client):
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with client:
        assert client.get("/fail").status_code == 500
        assert request.path == "/fail"
    assert not request


def test_with_blocks_do_not_nest(client):
    with client, pytest.raises(RuntimeError, match="Cannot nest client invocations"), client:
        pass


def test_teardown_runs_with_the_request_and_again_with_the_block(app, client):
    seen = []
    app.teardown_request(lambda error: seen.append(request.path))
    with client:
        client.get("/")
        assert seen == ["/"]
        client.get("/agent")
        assert seen == ["/", "/", "/agent"]
    assert seen == ["/", "/", "/agent", "/agent"]


def test_a_request_is_built_from_arguments_without_being_sent(client):
    # Flask-SocketIO's test client asks for it by this name.
    request = client._request_from_builder_args((), {"path": "/chat?x=1", "headers": {"X-A": "b"}})
    assert request.environ["QUERY_STRING"] == "x=1"
    assert request.environ["HTTP_X_A"] == "b"


def test_a_session_transaction(client):
    with client.session_transaction() as store:
        store["user"] = "me"
        store.permanent = True
    assert client.get("/session").json == {"_permanent": True, "user": "me"}
    with client.session_transaction() as store:
        assert store["user"] == "me"
        store.clear()
    assert client.get("/session").json == {}


def test_a_session_transaction_of_another_host(client):
    with client.session_transaction("/", base_url="http://other.example/") as store:
        store["n"] = 1
    assert client.get("/session").json == {}
    assert client.get("/session", base_url="http://other.example/").json == {"n": 1}


def test_a_session_transaction_needs_cookies(app):
    with (
        pytest.raises(TypeError, match="Cookies are disabled"),
        app.test_client(use_cookies=False).session_transaction(),
    ):
        pass


def test_a_session_transaction_needs_a_session(app):
    class Nothing(SessionInterface):
        def open_session(self, app, request):
            return None

    app.session_interface = Nothing()
    with (
        pytest.raises(RuntimeError, match="Session backend did not open a session"),
        app.test_client().session_transaction(),
    ):
        pass


def test_a_session_transaction_keeps_the_context_of_the_block(client):
    with client:
        client.get("/?x=outer")
        before = request._get_current_object()
        with client.session_transaction():
            assert request._get_current_object() is before
        assert request._get_current_object() is before


def test_a_client_class_of_its_own(app):
    class Mine(FlaskClient):
        def __init__(self, *args, user, **kwargs):
            super().__init__(*args, **kwargs)
            self.user = user

    app.test_client_class = Mine
    assert app.test_client(user="me").user == "me"


def test_the_cli_runner(app):
    @app.cli.command("hello")
    @click.argument("name")
    def hello(name):
        print(f"Hello {name} of {current_app.name}")

    runner = app.test_cli_runner()
    assert isinstance(runner, FlaskCliRunner)
    assert runner.invoke(args=["hello", "you"]).output == f"Hello you of {__name__}\n"
    assert runner.invoke(hello, ["you"]).output == f"Hello you of {__name__}\n"


def test_the_cli_runner_takes_another_object(app):
    other = Flask("other")

    @click.command()
    @click.pass_obj
    def show(info):
        print(info.load_app().name)

    runner = app.test_cli_runner()
    assert runner.invoke(show).output == f"{__name__}\n"
    assert runner.invoke(show, obj=ScriptInfo(create_app=lambda: other)).output == "other\n"
