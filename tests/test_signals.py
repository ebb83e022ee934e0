"""Signals: made when asked for, sent in order, and free while nobody listens."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hipflask
from hipflask import flash, g, render_template_string, stream_template_string

NAMES = [
    "appcontext_popped",
    "appcontext_pushed",
    "appcontext_tearing_down",
    "before_render_template",
    "got_request_exception",
    "message_flashed",
    "request_finished",
    "request_started",
    "request_tearing_down",
    "template_rendered",
]


@pytest.fixture
def heard(app):
    """The names and values of the signals that `app` sends."""
    events = []
    receivers = []
    for name in NAMES:

        def receive(sender, name=name, **values):
            assert sender is app
            values.pop("_async_wrapper", None)
            events.append((name, values))

        getattr(hipflask, name).connect(receive, app)
        receivers.append((name, receive))
    yield events
    for name, receive in receivers:
        getattr(hipflask, name).disconnect(receive, app)


def names(heard):
    return [name for name, _ in heard]


def test_the_signals_have_flasks_names():
    for name in NAMES:
        signal = getattr(hipflask.signals, name)
        assert signal.name == name.replace("_", "-")
        assert signal is getattr(hipflask, name)
        assert hipflask.signals._signals[signal.name] is signal
    assert set(NAMES) <= set(dir(hipflask.signals))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hipflask.signals.nothing  # noqa: B018


def test_the_order_in_a_request(app, heard, client):
    app.before_request(lambda: heard.append(("before", {})))
    app.after_request(lambda response: heard.append(("after", {})) or response)
    app.teardown_request(lambda exc: heard.append(("teardown", {})))
    app.teardown_appcontext(lambda exc: heard.append(("teardown app", {})))

    @app.route("/")
    def index():
        heard.append(("view", {}))
        return render_template_string("{{ x }}", x=1)

    assert client.get("/").text == "1"
    assert names(heard) == [
        "appcontext_pushed", "request_started", "before", "view", "before_render_template",
        "template_rendered", "after", "request_finished", "teardown", "request_tearing_down", "teardown app",
        "appcontext_tearing_down", "appcontext_popped",
    ]  # fmt: skip
    values = dict(heard)
    assert values["template_rendered"]["context"]["x"] == 1
    assert values["request_finished"]["response"].status_code == 200
    assert values["request_tearing_down"] == {"exc": None}


def test_an_error_is_announced_before_it_is_handled(app, heard, client):
    error = ZeroDivisionError()

    @app.route("/")
    def index():
        raise error

    @app.errorhandler(500)
    def handler(e):
        heard.append(("handler", {}))
        return "failed", 500

    assert client.get("/").text == "failed"
    assert names(heard)[2:5] == ["got_request_exception", "handler", "request_finished"]
    values = dict(heard)
    assert values["got_request_exception"] == {"exception": error}
    assert values["request_tearing_down"] == {"exc": error}
    assert values["appcontext_tearing_down"] == {"exc": error}


def test_a_handled_error_is_not_announced(app, heard, client):
    @app.route("/")
    def index():
        raise KeyError("x")

    app.register_error_handler(KeyError, lambda e: "handled")
    assert client.get("/").text == "handled"
    assert "got_request_exception" not in names(heard)


def test_flashing_is_announced(app, heard):
    with app.test_request_context():
        flash("text", "category")
    assert ("message_flashed", {"message": "text", "category": "category"}) in heard


def test_a_streamed_template_is_rendered_when_its_pieces_are_taken(app, heard):
    with app.test_request_context():
        pieces = stream_template_string("a{{ 1 }}")
        assert names(heard)[-1] == "before_render_template"
        assert "".join(pieces) == "a1"
        assert "template_rendered" in names(heard)


def test_a_receiver_can_use_the_context(app):
    def set_name(sender, **values):
        g.name = "pushed"

    with hipflask.appcontext_pushed.connected_to(set_name, app), app.app_context():
        assert g.name == "pushed"


def test_an_async_receiver_is_awaited(app, client):
    called = []

    async def receive(sender, **values):
        called.append(sender)

    app.add_url_rule("/", endpoint="x", view_func=lambda: "x")
    with hipflask.request_started.connected_to(receive, app):
        client.get("/")
    assert called == [app]


def test_blinker_is_not_imported_while_nobody_listens():
    program = """
import sys
from hipflask import Flask, Response
app = Flask("app")
app.add_url_rule("/", endpoint="x", view_func=lambda: "x")
environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
environ["wsgi.url_scheme"] = "http"
assert b"".join(app(environ, lambda *a: None)) == b"x"
assert "blinker" not in sys.modules
assert "click" not in sys.modules
assert "jinja2" not in sys.modules
from hipflask import request_started
assert "blinker" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
