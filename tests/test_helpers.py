"""Helpers for views: flashing, files, streams, redirects, root paths."""

from __future__ import annotations

import io
import os
import sys
import types

import pytest

import hipflask
from hipflask import (
    abort,
    flash,
    g,
    get_flashed_messages,
    make_response,
    redirect,
    request,
    send_file,
    send_from_directory,
    session,
    stream_with_context,
)
from hipflask.helpers import _split_blueprint_path, get_debug_flag, get_load_dotenv, get_root_path
from hipflask.werkzeug.exceptions import Aborter, Forbidden, NotFound
from hipflask.werkzeug.wrappers import Response as BaseResponse


@pytest.mark.parametrize(
    ("value", "debug", "dotenv"),
    [
        ("", False, True),
        ("0", False, True),
        ("False", False, True),
        ("No", False, True),
        ("1", True, False),
        ("True", True, False),
        ("yes", True, False),
    ],
)
def test_flags_of_the_environment(monkeypatch, value, debug, dotenv):
    monkeypatch.setenv("FLASK_DEBUG", value)
    monkeypatch.setenv("FLASK_SKIP_DOTENV", value)
    assert get_debug_flag() is debug
    assert get_load_dotenv() is dotenv
    monkeypatch.delenv("FLASK_SKIP_DOTENV")
    assert get_load_dotenv(False) is False


class TestFlash:
    def test_messages_are_taken_by_the_next_request(self, app, client):
        @app.route("/put")
        def put():
            flash("one")
            flash("two", "error")
            return ""

        app.add_url_rule("/take", "take", lambda: [get_flashed_messages(True), get_flashed_messages()])
        client.get("/put")
        assert client.get("/take").json == [[["message", "one"], ["error", "two"]], ["one", "two"]]
        assert client.get("/take").json == [[], []]

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, ["a", "b", "c"]),
            ({"with_categories": True}, [("message", "a"), ("error", "b"), ("info", "c")]),
            ({"category_filter": ["error"]}, ["b"]),
            (
                {"category_filter": ["info", "error"], "with_categories": True},
                [("error", "b"), ("info", "c")],
            ),
            ({"category_filter": ["none"]}, []),
        ],
    )
    def test_messages_are_filtered(self, app, options, expected):
        with app.test_request_context():
            flash("a")
            flash("b", "error")
            flash("c", "info")
            assert get_flashed_messages(**options) == expected
            assert "_flashes" not in session


class TestResponses:
    def test_make_response_takes_what_a_view_returns(self, app):
        with app.test_request_context():
            assert make_response().data == b""
            assert make_response("x").data == b"x"
            assert make_response("x", 201).status_code == 201
            assert make_response(("x", 202, {"A": "1"})).headers["A"] == "1"

    def test_redirect_is_the_apps(self, app):
        with app.app_context():
            answer = redirect("/x", 303)
            assert (answer.status_code, answer.location, type(answer)) == (303, "/x", app.response_class)
            app.redirect = lambda location, code: f"{code} {location}"
            assert redirect("/x", 301) == "301 /x"

    def test_redirect_without_an_app(self):
        class Own(BaseResponse):
            pass

        assert isinstance(redirect("/x", Response=Own), Own)

    def test_abort_is_the_apps(self, app):
        class Own(Aborter):
            pass

        class Teapot(Forbidden):
            code = 700

        app.aborter = Own(extra={700: Teapot})
        with app.app_context(), pytest.raises(Teapot):
            abort(700)
        with pytest.raises(LookupError, match="700"):
            abort(700)
        with pytest.raises(NotFound, match="reason"):
            abort(404, "reason")


class TestFiles:
    @pytest.fixture
    def app(self, app, tmp_path):
        (tmp_path / "a.txt").write_text("contents")
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "b.bin").write_bytes(bytes(range(10)))
        app.root_path = str(tmp_path)
        return app

    def test_a_path_is_relative_to_the_app(self, app, client):
        app.add_url_rule("/", "view", lambda: send_file("a.txt"))
        answer = client.get("/")
        assert (answer.text, answer.header("Content-Type")) == ("contents", "text/plain; charset=utf-8")
        assert answer.header("Content-Length") == "8"
        assert answer.header("Last-Modified")
        assert client.get("/", headers={"If-None-Match": answer.header("ETag")}).status_code == 304

    def test_a_part_of_a_file(self, app, client):
        app.add_url_rule("/", "view", lambda: send_file("sub/b.bin"))
        answer = client.get("/", headers={"Range": "bytes=2-4"})
        assert (answer.status_code, answer.data) == (206, b"\2\3\4")
        assert answer.header("Content-Range") == "bytes 2-4/10"
        assert client.get("/", headers={"Range": "bytes=20-"}).status_code == 416

    def test_an_attachment_in_memory(self, app, client):
        def view():
            return send_file(io.BytesIO(b"x"), as_attachment=True, download_name="näme.txt", max_age=5)

        app.add_url_rule("/", "view", view)
        answer = client.get("/")
        assert answer.header("Content-Disposition") == (
            "attachment; filename=name.txt; filename*=UTF-8''n%C3%A4me.txt"
        )
        assert "max-age=5" in answer.header("Cache-Control")
        assert (answer.data, answer.header("Content-Type")) == (b"x", "text/plain; charset=utf-8")

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("sub/b.bin", 200),
            ("none", 404),
            ("sub", 404),
            ("../x", 404),
            ("sub/../../x", 404),
            ("/etc/passwd", 404),
        ],
    )
    def test_only_files_of_the_directory_are_sent(self, app, client, path, status):
        app.add_url_rule("/", "view", lambda: send_from_directory(".", path))
        assert client.get("/").status_code == status

    def test_the_function_that_sends_can_be_replaced(self, app, monkeypatch):
        monkeypatch.setattr(hipflask.helpers.werkzeug.utils, "send_file", lambda **options: options)
        with app.test_request_context():
            options = send_file("a.txt")
        assert options["path_or_file"] == "a.txt"
        assert options["max_age"] == app.get_send_file_max_age
        assert options["response_class"] is app.response_class
        assert options["_root_path"] == app.root_path


class TestStreams:
    def test_a_generator_keeps_the_request(self, app, client):
        @app.route("/<name>")
        def view(name):
            g.name = name

            @stream_with_context
            def generate():
                yield request.path
                yield f" {g.name} "
                yield session.get("x", "none")

            return generate()

        assert client.get("/a").text == "/a a none"

    def test_an_iterator_is_closed(self, app, client):
        events = []

        class Pieces:
            def __init__(self):
                self.left = ["a", "b"]

            def __iter__(self):
                return self

            def __next__(self):
                if not self.left:
                    raise StopIteration
                return self.left.pop(0) + request.method

            def close(self):
                events.append("closed")

        app.add_url_rule("/", "view", lambda: stream_with_context(Pieces()))
        assert client.get("/").text == "aGETbGET"
        assert events == ["closed"]

    def test_it_needs_a_request(self):
        with pytest.raises(RuntimeError, match="'stream_with_context' can only be used when a request"):
            stream_with_context(iter([]))

    def test_teardown_functions_run_after_the_stream_too(self, app):
        events = []
        app.teardown_request(lambda exc: events.append("teardown"))

        @app.route("/")
        def view():
            def generate():
                yield "x"
                events.append("end")

            return stream_with_context(generate())

        with app.test_client() as client:
            response = client.get("/", buffered=False)
            assert b"".join(response.response) == b"x"
            response.close()
        assert events[-2:] == ["end", "teardown"]


class TestRootPath:
    def test_of_a_module(self):
        assert get_root_path(__name__) == os.path.dirname(os.path.abspath(__file__))
        assert get_root_path("hipflask") == os.path.dirname(os.path.abspath(hipflask.__file__))

    @pytest.mark.parametrize("name", ["no_such_module", "__main__x", "no.such.module"])
    def test_of_what_does_not_exist_is_the_current_folder(self, name):
        assert get_root_path(name) == os.getcwd()

    def test_of_a_module_that_is_not_imported(self, tmp_path, monkeypatch):
        (tmp_path / "fresh_module.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert get_root_path("fresh_module") == str(tmp_path)
        assert "fresh_module" not in sys.modules

    def test_of_a_namespace_package_is_told(self, monkeypatch):
        class Loader:
            pass

        module = types.ModuleType("nowhere")
        module.__spec__ = types.SimpleNamespace(loader=Loader())
        monkeypatch.setitem(sys.modules, "nowhere", module)
        with pytest.raises(RuntimeError, match="No root path can be found for the provided module 'nowhere'"):
            get_root_path("nowhere")


def test_names_of_nested_blueprints():
    assert _split_blueprint_path("a") == ["a"]
    assert _split_blueprint_path("a.b.c") == ["a.b.c", "a.b", "a"]
