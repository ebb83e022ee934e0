"""Rendering templates: what they see, where they are found, when they are streamed."""

from __future__ import annotations

import logging

import jinja2
import pytest

import hipflask
from hipflask import (
    Blueprint,
    Flask,
    g,
    get_template_attribute,
    render_template,
    render_template_string,
    request,
    session,
    stream_template,
    stream_template_string,
)
from hipflask.templating import Environment


@pytest.fixture
def app(app, tmp_path):
    """The app, with a template folder that holds a few."""
    folder = tmp_path / "templates"
    folder.mkdir()
    files = {
        "page.html": "<p>{{ text }}</p>",
        "page.txt": "{{ text }}",
        "child.html": "{% extends 'base.html' %}{% block body %}{{ text }}{% endblock %}",
        "base.html": "<{% block body %}{% endblock %}>",
        "macro.html": "{% macro hello(name) %}Hello {{ name }}{% endmacro %}{% set answer = 42 %}",
        "imports.html": "{% from 'uses.html' import path %}{{ path() }}",
        "uses.html": "{% macro path() %}{{ request.path }} {{ g.x }} {{ session.y }}{% endmacro %}",
        "broken.html": "line\n{{ 1 / 0 }}",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    app.root_path = str(tmp_path)
    return app


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page.html", "<p>&lt;b&gt;</p>"),
        ("page.txt", "<b>"),
        ("child.html", "<&lt;b&gt;>"),
        (["none.html", "page.txt"], "<b>"),
    ],
)
def test_a_template_is_rendered_and_html_is_escaped(app, name, expected):
    with app.app_context():
        assert render_template(name, text="<b>") == expected
        assert "".join(stream_template(name, text="<b>")) == expected


def test_a_template_object_can_be_passed(app):
    with app.app_context():
        template = app.jinja_env.get_template("page.txt")
        assert render_template(template, text="x") == "x"


def test_strings_are_escaped(app):
    with app.app_context():
        assert render_template_string("{{ a }}{{ a|safe }}", a="<") == "&lt;<"
        assert "".join(stream_template_string("{{ a }}", a="<")) == "&lt;"


def test_a_missing_template_is_told(app):
    with app.app_context(), pytest.raises(jinja2.TemplateNotFound, match="none.html"):
        render_template("none.html")
    with app.app_context(), pytest.raises(jinja2.TemplatesNotFound):
        render_template(["a.html", "b.html"])
    with pytest.raises(RuntimeError, match="Working outside of application context"):
        render_template("page.html")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ request.path }}", "/page"),
        ("{{ g.x }}", "in g"),
        ("{{ session.y }}", "in session"),
        ("{{ config.TESTING }}", "True"),
        ("{{ url_for('static', filename='a') }}", "/static/a"),
        ("{{ get_flashed_messages() }}", "[]"),
        ("{{ {'b': 1, 'a': [none]}|tojson }}", '{"a": [null], "b": 1}'),
        ("{{ '<'|tojson }}", '"\\u003c"'),
        ("{{ 'x' if request else 'y' }}", "x"),
    ],
)
def test_what_templates_see(app, source, expected):
    app.testing = True
    with app.test_request_context("/page"):
        g.x = "in g"
        session["y"] = "in session"
        assert render_template_string(source) == expected


def test_imported_templates_see_the_proxies(app):
    with app.test_request_context("/page"):
        g.x = 1
        session["y"] = 2
        assert render_template("imports.html") == "/page 1 2"


def test_templates_outside_of_a_request(app):
    with app.app_context():
        assert render_template_string("{{ g.x }}{{ 'yes' if request else 'no' }}", x=1) == "no"


def test_context_processors_give_variables_that_arguments_override(app):
    app.context_processor(lambda: {"a": "processor", "b": "processor"})
    with app.test_request_context():
        assert render_template_string("{{ a }} {{ b }}", b="given") == "processor given"


def test_an_async_context_processor(app):
    @app.context_processor
    async def processor():
        return {"a": 1}

    with app.test_request_context():
        assert render_template_string("{{ a }}") == "1"


def test_filters_tests_and_globals(app):
    @app.template_filter()
    def backwards(text):
        return text[::-1]

    @app.template_test("even")
    def is_even(number):
        return number % 2 == 0

    @app.template_global("double")
    def twice(number):
        return number * 2

    app.add_template_filter(str.upper, "loud")
    app.add_template_test(callable)
    app.add_template_global(len)
    with app.app_context():
        source = (
            "{{ 'ab'|backwards|loud }} {{ 2 is even }} {{ double(3) }} {{ len('abc') }} {{ len is callable }}"
        )
        assert render_template_string(source) == "BA True 6 3 True"


def test_the_name_of_a_template_decides_on_escaping():
    app = Flask("x")
    names = ["a.html", "a.htm", "a.xml", "a.xhtml", "a.svg", None]
    assert all(app.select_jinja_autoescape(name) for name in names)
    assert not any(app.select_jinja_autoescape(name) for name in ["a.txt", "a", "a.js", "html"])


def test_blueprints_templates_come_after_the_apps(app, tmp_path):
    folder = tmp_path / "bp" / "templates"
    folder.mkdir(parents=True)
    (folder / "page.txt").write_text("blueprint")
    (folder / "own.txt").write_text("own")
    app.register_blueprint(
        Blueprint("bp", __name__, root_path=str(tmp_path / "bp"), template_folder="templates")
    )
    with app.app_context():
        assert render_template("page.txt", text="app") == "app"
        assert render_template("own.txt") == "own"
    assert {"own.txt", "page.txt", "page.html"} <= set(app.jinja_env.list_templates())


def test_loading_is_explained_on_request(app, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    app.config["EXPLAIN_TEMPLATE_LOADING"] = True
    app.register_blueprint(Blueprint("bp", __name__, root_path=str(tmp_path), template_folder="templates"))
    with app.app_context():
        render_template("page.txt", text="x")
        with pytest.raises(jinja2.TemplateNotFound):
            render_template("none.txt")
    found, missing = (record.getMessage() for record in caplog.records)
    assert "1: trying loader of application 'test_app'" in found
    assert "2: trying loader of blueprint 'bp' (test_templating)" in found
    assert "class: jinja2.loaders.FileSystemLoader" in found
    assert "Warning: multiple loaders returned a match for the template." in found
    assert "Error: the template could not be found." in missing


def test_macros_and_variables_of_a_template(app):
    with app.app_context():
        assert get_template_attribute("macro.html", "hello")("you") == "Hello you"
        assert get_template_attribute("macro.html", "answer") == 42
        with pytest.raises(AttributeError):
            get_template_attribute("macro.html", "none")


@pytest.mark.parametrize(
    ("config", "debug", "reloads"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_when_templates_are_reloaded(config, debug, reloads):
    app = Flask("x")
    app.config["TEMPLATES_AUTO_RELOAD"] = config
    app.debug = debug
    assert app.jinja_env.auto_reload is reloads


def test_debug_set_late_reaches_the_environment():
    app = Flask("x")
    assert not app.jinja_env.auto_reload
    app.debug = True
    assert app.jinja_env.auto_reload


def test_options_and_class_of_the_environment():
    class Own(Environment):
        pass

    class OwnApp(Flask):
        jinja_environment = Own
        jinja_options = {"trim_blocks": True, "autoescape": False}

    app = OwnApp("x")
    assert isinstance(app.jinja_env, Own)
    assert app.jinja_env.trim_blocks
    assert app.jinja_env.app is app
    with app.app_context():
        assert render_template_string("{{ '<' }}") == "<"


def test_an_app_without_templates():
    app = Flask("x", template_folder=None)
    assert app.jinja_loader is None
    with app.app_context(), pytest.raises(jinja2.TemplateNotFound):
        render_template("x.html")


def test_a_streamed_template_keeps_the_request(app, client):
    @app.route("/<name>")
    def view(name):
        session["seen"] = True
        return stream_template_string("{{ request.path }} {{ g.x }} {{ session.seen }}", g={"x": name})

    assert client.get("/a").text == "/a a True"


def test_an_error_in_a_template_names_its_line(app):
    with app.app_context(), pytest.raises(ZeroDivisionError) as caught:
        render_template("broken.html")
    assert (caught.traceback[-1].path.name, caught.traceback[-1].lineno + 1) == ("broken.html", 2)


def test_the_functions_are_exported():
    for name in ("render_template", "render_template_string", "stream_template", "stream_template_string"):
        assert getattr(hipflask, name) is getattr(hipflask.templating, name)


def test_a_view_renders(app, client):
    app.add_url_rule("/", "view", lambda: render_template("page.html", text=request.args["q"]))
    assert client.get("/?q=%3Cb%3E").text == "<p>&lt;b&gt;</p>"
