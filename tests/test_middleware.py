"""The applications that stand in front of another one."""

from __future__ import annotations

import io
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hipflask.werkzeug.middleware.dispatcher import DispatcherMiddleware
from hipflask.werkzeug.middleware.http_proxy import ProxyMiddleware
from hipflask.werkzeug.middleware.lint import HTTPWarning, LintMiddleware, WSGIWarning
from hipflask.werkzeug.middleware.profiler import ProfilerMiddleware
from hipflask.werkzeug.middleware.proxy_fix import ProxyFix
from hipflask.werkzeug.middleware.shared_data import SharedDataMiddleware
from hipflask.werkzeug.test import Client, create_environ, run_wsgi_app
from hipflask.werkzeug.testapp import test_app as info_app
from hipflask.werkzeug.wrappers import Request, Response


@pytest.mark.parametrize(
    ("trust", "base", "headers", "expected"),
    [
        ({}, {}, {"X-Forwarded-For": "1.1.1.1, 2.2.2.2"}, {"REMOTE_ADDR": "2.2.2.2"}),
        ({"x_for": 2}, {}, {"X-Forwarded-For": "1.1.1.1, 2.2.2.2"}, {"REMOTE_ADDR": "1.1.1.1"}),
        ({"x_for": 3}, {}, {"X-Forwarded-For": "1.1.1.1, 2.2.2.2"}, {"REMOTE_ADDR": "9.9.9.9"}),
        ({"x_for": 0}, {}, {"X-Forwarded-For": "1.1.1.1"}, {"REMOTE_ADDR": "9.9.9.9"}),
        ({}, {}, {"X-Forwarded-For": ""}, {"REMOTE_ADDR": "9.9.9.9"}),
        ({}, {}, {"X-Forwarded-Proto": "https"}, {"wsgi.url_scheme": "https"}),
        ({"x_proto": 0}, {}, {"X-Forwarded-Proto": "https"}, {"wsgi.url_scheme": "http"}),
        ({}, {}, {"X-Forwarded-Host": "evil"}, {"HTTP_HOST": "localhost"}),
        (
            {"x_host": 1},
            {},
            {"X-Forwarded-Host": "example.com:8080"},
            {"HTTP_HOST": "example.com:8080", "SERVER_NAME": "example.com", "SERVER_PORT": "8080"},
        ),
        (
            {"x_host": 1},
            {},
            {"X-Forwarded-Host": "[::1]"},
            {"HTTP_HOST": "[::1]", "SERVER_NAME": "[::1]", "SERVER_PORT": "80"},
        ),
        (
            {"x_port": 1},
            {"HTTP_HOST": "localhost:1"},
            {"X-Forwarded-Port": "8080"},
            {"HTTP_HOST": "localhost:8080", "SERVER_PORT": "8080"},
        ),
        (
            {"x_port": 1},
            {"HTTP_HOST": "[::1]"},
            {"X-Forwarded-Port": "8080"},
            {"HTTP_HOST": "[::1]:8080"},
        ),
        ({"x_prefix": 1}, {}, {"X-Forwarded-Prefix": "/root"}, {"SCRIPT_NAME": "/root"}),
    ],
)
def test_proxy_fix_believes_as_many_proxies_as_it_is_told(trust, base, headers, expected):
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [])
        return []

    environ = create_environ(headers=headers, environ_overrides={"REMOTE_ADDR": "9.9.9.9", **base})
    run_wsgi_app(ProxyFix(app, **trust), environ)
    assert {key: seen[key] for key in expected} == expected
    original = seen["werkzeug.proxy_fix.orig"]
    assert original == {key: environ.get(key) for key in original}
    assert set(original) == {
        "REMOTE_ADDR",
        "wsgi.url_scheme",
        "HTTP_HOST",
        "SERVER_NAME",
        "SERVER_PORT",
        "SCRIPT_NAME",
    }


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "root||/"),
        ("/a", "a|/a|"),
        ("/a/", "a|/a|/"),
        ("/a/x/y", "a|/a|/x/y"),
        ("/a/b/c", "ab|/a/b|/c"),
        ("/ab", "root||/ab"),
    ],
)
def test_dispatcher_chooses_the_longest_mount_point(path, text):
    def app(name):
        def answer(environ, start_response):
            start_response("200 OK", [])
            return [f"{name}|{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]

        return answer

    mounted = DispatcherMiddleware(app("root"), {"/a": app("a"), "/a/b": app("ab")})
    assert Client(mounted).get(path).text == text


class TestSharedData:
    @pytest.fixture
    def client(self, tmp_path):
        (tmp_path / "one.txt").write_text("one")
        (tmp_path / "secret.cfg").write_text("x")
        (tmp_path.parent / "outside.txt").write_text("x")

        @Request.application
        def app(request):
            return Response("app", 404)

        exports = {
            "/dir": str(tmp_path),
            "/file.txt": str(tmp_path / "one.txt"),
            "/pack": ("hipflask", "werkzeug"),
        }
        return Client(SharedDataMiddleware(app, exports, disallow="*.cfg"))

    @pytest.mark.parametrize("path", ["/dir/one.txt", "/file.txt"])
    def test_an_exported_file_is_sent(self, client, path):
        response = client.get(path)
        assert (response.status_code, response.text) == (200, "one")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["Content-Length"] == "3"
        response.close()
        again = client.get(path, headers={"If-None-Match": response.headers["ETag"]})
        assert again.status_code == 304

    @pytest.mark.parametrize(
        "path", ["/dir/two.txt", "/dir/../outside.txt", "/dir/secret.cfg", "/dir", "/", "/dirone.txt"]
    )
    def test_everything_else_is_the_applications(self, client, path):
        assert client.get(path).text == "app"

    def test_a_package_can_be_exported(self, client):
        response = client.get("/pack/security.py")
        assert b"safe_join" in response.data
        response.close()
        assert client.get("/pack/missing.py").text == "app"

    def test_without_cache_there_is_no_tag(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(b"x")
        response = Client(SharedDataMiddleware(None, {"/": str(tmp_path)}, cache=False)).get("/a.bin")
        assert "ETag" not in response.headers
        assert response.headers["Cache-Control"] == "public"
        response.close()

    def test_a_strange_export_is_refused(self):
        with pytest.raises(TypeError, match="unknown def"):
            SharedDataMiddleware(None, {"/": 3})


class TestProfiler:
    def test_it_prints_a_profile(self):
        stream = io.StringIO()
        app = ProfilerMiddleware(info_app, stream, restrictions=(5,))
        assert Client(app).get("/x").status_code == 200
        assert "PATH: '/x'" in stream.getvalue()
        assert "function calls" in stream.getvalue()

    def test_it_stores_a_profile_under_a_made_up_name(self, tmp_path):
        Client(ProfilerMiddleware(info_app, None, profile_dir=str(tmp_path))).get("/a/b")
        (file,) = tmp_path.iterdir()
        assert file.name.startswith("GET.a.b.")
        assert file.suffix == ".prof"

    def test_a_function_may_choose_the_name(self, tmp_path):
        def name(environ):
            assert set(environ["werkzeug.profiler"]) == {"elapsed", "time"}
            return "mine.prof"

        Client(ProfilerMiddleware(info_app, None, profile_dir=str(tmp_path), filename_format=name)).get()
        assert (tmp_path / "mine.prof").exists()


class TestLint:
    def test_a_clean_application_is_left_in_peace(self):
        def app(environ, start_response):
            environ["wsgi.input"].read(3)
            environ["wsgi.errors"].flush()
            start_response("200 OK", [("Content-Length", "3")])
            return [b"abc"]

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert b"".join(run_wsgi_app(LintMiddleware(app), create_environ(), buffered=True)[0]) == b"abc"

    @pytest.mark.parametrize(
        ("status", "headers", "body", "category", "message"),
        [
            ("200", [], [], WSGIWarning, "Invalid value for status"),
            ("2000 OK", [], [], WSGIWarning, "three digits"),
            ("200 OK", (), [], WSGIWarning, "not a list"),
            ("200 OK", [("Status", "x")], [], WSGIWarning, "status header"),
            ("200 OK", [["a", "b"]], [], WSGIWarning, "2-item tuples"),
            ("200 OK", [("Content-Length", "5")], [b"x"], WSGIWarning, "do not match"),
            ("200 OK", [], "text", WSGIWarning, "returned a string"),
            ("200 OK", [("ETag", "x")], [], HTTPWarning, "Unquoted etag"),
            ("200 OK", [("ETag", 'w/"x"')], [], HTTPWarning, "upper case"),
            ("302 FOUND", [("Location", "/x")], [], HTTPWarning, "Absolute URLs"),
            ("304 NOT MODIFIED", [("Content-Type", "a/b")], [], HTTPWarning, "Entity header"),
            ("304 NOT MODIFIED", [], [b"x"], HTTPWarning, "must not have a body"),
            ("204 NO CONTENT", [("Content-Length", "0")], [b"x"], HTTPWarning, "must not have a body"),
        ],
    )
    def test_a_broken_response_is_warned_about(self, status, headers, body, category, message):
        def app(environ, start_response):
            start_response(status, headers)
            return body

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run_wsgi_app(LintMiddleware(app), create_environ(), buffered=True)
        assert any(w.category is category and message in str(w.message) for w in caught)

    @pytest.mark.parametrize(
        ("use", "message"),
        [
            (lambda stream: stream.read(), "EOF marker"),
            (lambda stream: stream.readline(), "unsafe"),
            (lambda stream: stream.close(), "closed the input"),
        ],
    )
    def test_unsafe_uses_of_the_input_are_warned_about(self, use, message):
        def app(environ, start_response):
            use(environ["wsgi.input"])
            start_response("200 OK", [])
            return []

        with pytest.warns(WSGIWarning, match=message):
            run_wsgi_app(LintMiddleware(app), create_environ(), buffered=True)

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ({"PATH_INFO": "x"}, "PATH_INFO"),
            ({"SCRIPT_NAME": "x"}, "SCRIPT_NAME"),
            ({"wsgi.version": (2, 0)}, "WSGI 1.0"),
        ],
    )
    def test_a_broken_environ_is_warned_about(self, override, message):
        with pytest.warns(WSGIWarning, match=message):
            run_wsgi_app(LintMiddleware(info_app), create_environ(environ_overrides=override), buffered=True)


class Upstream(BaseHTTPRequestHandler):
    """Answers with what it got."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        text = "\n".join(
            [self.command, self.path, self.headers["Host"], self.headers.get("X-Added", "-"), body]
        )
        self.send_response(201)
        self.send_header("X-Upstream", "yes")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST

    def log_message(self, *args):
        pass


@pytest.fixture
def upstream():
    server = HTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


class TestProxy:
    @pytest.mark.parametrize(
        ("options", "path", "host", "added"),
        [
            ({}, "/up/a%20b?q=1", "127.0.0.1", "-"),
            ({"remove_prefix": True}, "/base/a%20b?q=1", "127.0.0.1", "-"),
            ({"host": None}, "/up/a%20b?q=1", "localhost", "-"),
            ({"host": "other", "headers": {"X-Added": "1"}}, "/up/a%20b?q=1", "other", "1"),
        ],
    )
    def test_a_request_is_forwarded(self, upstream, options, path, host, added):
        target = {"target": f"http://127.0.0.1:{upstream}/base/", **options}
        response = Client(ProxyMiddleware(None, {"/up/": target})).post("/up/a b?q=1", data="body")
        assert response.status_code == 201
        assert response.headers["X-Upstream"] == "yes"
        assert "Connection" not in response.headers
        assert response.text.split("\n") == ["POST", path, host, added, "body"]

    def test_other_paths_are_the_applications_and_a_dead_target_is_502(self):
        @Request.application
        def app(request):
            return Response("app")

        client = Client(ProxyMiddleware(app, {"/up": {"target": "http://127.0.0.1:1"}}, timeout=1))
        assert client.get("/upper").text == "app"
        assert client.get("/up/x").status_code == 502


def test_the_test_application_shows_the_environ_escaped():
    text = Client(info_app).get("/<x>").text
    assert "REQUEST_METHOD" in text
    assert "&lt;x&gt;" in text
    assert "<x>" not in text
