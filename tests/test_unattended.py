"""Static files, 404 and 405: answered by the engine alone, unless the app could notice."""

from __future__ import annotations

import pytest
from doors import DOORS, Client

from hipflask import Flask, request_finished, session

TARGETS = [("/static/a.css", "GET", 200), ("/nowhere", "GET", 404), ("/page", "DELETE", 405)]


@pytest.fixture(params=["live", "live-full-lane"])
def live(request, app, tmp_path):
    """A client of the engine, and a folder with one static file."""
    (tmp_path / "a.css").write_text("body {}")
    app.static_folder = str(tmp_path)
    app.add_url_rule("/page", "page", lambda: "page")
    client = Client(app, DOORS[request.param])
    yield client
    client.close()


@pytest.mark.parametrize(("path", "method", "status"), TARGETS)
def test_the_answer_is_the_same_without_the_app(app, live, path, method, status):
    alone = live.open(path, method)
    live.close()
    # With a hook the app answers itself, in the same lane.
    client = Client(app, type(live._door))
    app._got_first_request = False
    app.before_request(lambda: None)
    attended = client.open(path, method)
    client.close()
    assert alone.status == attended.status
    assert alone.status_code == status
    assert alone.data == attended.data
    unstable = {"date"}
    fields = [
        sorted((k, v) for k, v in answer.header_list if k.lower() not in unstable)
        for answer in (alone, attended)
    ]
    assert fields[0] == fields[1]


@pytest.mark.parametrize(("path", "method", "status"), TARGETS)
def test_hooks_see_the_request(app, live, path, method, status):
    seen = []
    app.before_request(lambda: seen.append("before"))
    app.teardown_request(lambda error: seen.append("teardown"))

    @app.after_request
    def mark(response):
        response.headers["X-Mark"] = "yes"
        return response

    answer = live.open(path, method)
    assert (answer.status_code, answer.header("X-Mark")) == (status, "yes")
    assert seen == ["before", "teardown"]


@pytest.mark.parametrize(("path", "method", "status"), TARGETS)
def test_receivers_of_signals_hear_of_it(app, live, path, method, status):
    seen = []

    def heard(sender, response, **_):
        seen.append(response.status_code)

    with request_finished.connected_to(heard, app):
        assert live.open(path, method).status_code == status
    assert seen == [status]


@pytest.mark.parametrize(("path", "method", "status"), TARGETS)
def test_a_permanent_session_is_renewed_by_every_answer(app, live, path, method, status):
    @app.get("/login/<int:permanent>")
    def login(permanent):
        session.permanent = bool(permanent)
        session["user"] = "ada"
        return "in"

    live.get("/login/1")
    assert "session=" in live.open(path, method).header("Set-Cookie")
    live.get("/login/0")
    assert live.open(path, method).header("Set-Cookie") is None


def test_error_handlers_are_asked(app, live):
    app.register_error_handler(404, lambda error: ("own page", 404))
    app.register_error_handler(405, lambda error: ("own method page", 405))
    assert live.get("/nowhere").text == "own page"
    assert live.get("/static/nowhere").text == "own page"
    assert live.open("/page", "DELETE").text == "own method page"


def test_untrusted_hosts_are_refused(app, live):
    assert live.get("/static/a.css", host="evil.example").status_code == 200
    app.config["TRUSTED_HOSTS"] = ["localhost"]
    assert live.get("/static/a.css", host="evil.example").status_code == 400
    assert live.get("/nowhere", host="evil.example").status_code == 400
    assert live.get("/static/a.css").status_code == 200


def test_a_changed_folder_counts_at_once(app, live, tmp_path):
    assert live.get("/static/a.css").text == "body {}"
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.css").write_text("other")
    app.static_folder = str(other)
    assert live.get("/static/a.css").text == "other"


def test_an_overridden_method_is_called(live, tmp_path):
    class Own(Flask):
        def get_send_file_max_age(self, filename):
            return 77

    (tmp_path / "b.css").write_text("b")
    app = Own("own", static_folder=str(tmp_path), static_url_path="/static")
    client = Client(app, type(live._door) if live._door else DOORS["live"])
    assert "max-age=77" in client.get("/static/b.css").header("Cache-Control")
    client.close()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../a.css",
        "/static/%2e%2e/secret",
        "/static//etc/passwd",
        "/static/a.css%00",
        "/static/link",
        "/static/",
    ],
)
def test_nothing_outside_the_folder_is_sent(app, live, tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    app.static_folder = str(folder)
    answer = live.get(path)
    assert "secret" not in answer.text
    # Doubled slashes redirect to the same path with single ones.
    assert answer.status_code == (308 if "//" in path else 404)


def test_links_inside_the_folder_are_followed(app, live, tmp_path):
    (tmp_path / "b.css").symlink_to(tmp_path / "a.css")
    assert live.get("/static/b.css").text == "body {}"
