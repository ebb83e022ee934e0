"""Werkzeug's way to start a server, on our engine, and the reloader."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

from hipflask.werkzeug import _reloader, serving
from hipflask.werkzeug.serving import (
    BaseWSGIServer,
    ThreadedWSGIServer,
    WSGIRequestHandler,
    make_server,
    run_simple,
)
from hipflask.werkzeug.wrappers import Request, Response


@Request.application
def app(request):
    if request.path == "/crash":
        raise RuntimeError("crashed")
    return Response(f"{request.method} {request.url} {request.get_data(as_text=True)}")


@pytest.fixture
def start():
    """Starts a server in a thread; all are stopped at the end."""
    running = []

    def begin(application=app, **kwargs):
        server = make_server("127.0.0.1", 0, application, **kwargs)
        failures = []

        def serve():
            try:
                server.serve_forever()
            except RuntimeError as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        running.append((server, thread))
        server.failures = failures
        server.thread = thread
        return server

    yield begin
    for server, thread in running:
        server.shutdown()
        thread.join(15)
        assert not thread.is_alive()


def ask(server, path="/", method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class TestServer:
    @pytest.mark.parametrize("threaded", [False, True])
    def test_it_answers_until_it_is_shut_down(self, start, threaded):
        server = start(threaded=threaded)
        assert type(server) is (ThreadedWSGIServer if threaded else BaseWSGIServer)
        url = f"http://127.0.0.1:{server.port}"
        assert ask(server, "/a?b=c") == (200, f"GET {url}/a?b=c ")
        assert ask(server, "/", "POST", "body") == (200, f"POST {url}/ body")
        server.shutdown()
        with pytest.raises(ConnectionError):
            ask(server)

    def test_a_crash_is_500_and_the_next_request_is_served(self, start):
        server = start()
        assert ask(server, "/crash")[0] == 500
        assert ask(server)[0] == 200

    def test_a_handler_of_ones_own_writes_the_log(self, start):
        lines = []

        class Handler(WSGIRequestHandler):
            def log_request(self, code="-", size="-"):
                lines.append((self.address_string(), self.requestline, code))

        ask(start(request_handler=Handler), "/x?y")
        assert lines == [("127.0.0.1", "GET /x?y HTTP/1.1", "200")]

    def test_an_error_that_passes_through_stops_the_server(self, start):
        server = start(passthrough_errors=True)
        ask(server, "/crash")
        server.thread.join(15)
        assert [str(error) for error in server.failures] == ["crashed"]

    def test_a_bound_socket_can_be_taken_over(self, start):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = start(fd=listener.fileno())
            assert server.port == listener.getsockname()[1]
            assert ask(server)[0] == 200

    def test_a_unix_socket(self, tmp_path):
        path = tmp_path / "s"
        for _ in range(2):
            server = make_server(f"unix://{path}", 0, app)
            assert server.server_address == str(path)
            server.server_close()

    def test_a_port_in_use_is_told_in_words(self, capsys):
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(SystemExit):
            make_server("127.0.0.1", listener.getsockname()[1], app)
        assert "is taken by another program" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("kwargs", "error"),
        [
            ({"threaded": True, "processes": 2}, ValueError),
            ({"processes": 2}, ValueError),
            ({"ssl_context": ("no.pem", "no.key")}, ValueError),
            ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, TypeError),
        ],
    )
    def test_what_the_engine_cannot_do_is_refused(self, kwargs, error):
        with pytest.raises(error):
            make_server("127.0.0.1", 0, app, **kwargs)

    def test_the_port_must_be_a_number(self):
        with pytest.raises(TypeError, match="port must be an integer"):
            run_simple("127.0.0.1", "5000", app)

    @pytest.mark.parametrize(
        ("host", "lines"),
        [("127.0.0.1", ["http://127.0.0.1:"]), ("0.0.0.0", ["all addresses (0.0.0.0)", "http://127.0.0.1:"])],
    )
    def test_the_log_says_where(self, caplog, host, lines):
        server = make_server(host, 0, app)
        with caplog.at_level("INFO", "werkzeug"):
            server.log_startup()
        server.server_close()
        assert all(line in caplog.text for line in lines)
        assert str(server.port) in caplog.text


@pytest.mark.parametrize(
    ("host", "family", "address"),
    [
        ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 80)),
        ("::1", socket.AF_INET6, ("::1", 80, 0, 0)),
        ("unix:///tmp/x", socket.AF_UNIX, "/tmp/x"),
    ],
)
def test_the_kind_of_an_address(host, family, address):
    assert serving.select_address_family(host, 80) == family
    assert serving.get_sockaddr(host, 80, family) == address


def test_a_control_character_cannot_reach_the_terminal(caplog):
    server = make_server("127.0.0.1", 0, app)
    server.server_close()
    with caplog.at_level("INFO", "werkzeug"):
        WSGIRequestHandler(("1.2.3.4", 5), "GET /\x1b[2J%s HTTP/1.1", server).log_request(200, 3)
    (record,) = caplog.records
    assert record.getMessage().startswith("1.2.3.4 - - [")
    assert record.getMessage().endswith('"GET /\\x1b[2J%s HTTP/1.1" 200 3')


class TestReloader:
    @pytest.mark.parametrize("find", [_reloader._find_stat_paths, _reloader._find_watchdog_paths])
    def test_patterns_exclude_paths(self, find):
        paths = find(set(), set())
        excluded = next(iter(paths))
        assert excluded not in find(set(), {f"{excluded}*"})

    def test_extra_files_and_directories_are_watched(self, tmp_path):
        (tmp_path / "template.html").touch()
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "module.py").touch()
        found = _reloader._find_stat_paths({str(tmp_path / "template.html"), str(tmp_path)}, set())
        assert {str(tmp_path / "template.html"), str(tmp_path / "sub" / "module.py")} <= found

    def test_common_roots(self):
        assert _reloader._find_common_roots(["/a/b", "/a", "/c/d", "/c/de", ""]) == {"/a", "/c/d", "/c/de"}

    def test_a_change_ends_the_process_with_3(self, tmp_path, capsys):
        path = tmp_path / "a.cfg"
        path.touch()
        with _reloader.StatReloaderLoop([str(path)]) as loop:
            loop.run_step()
            os.utime(path, (time.time() + 10, time.time() + 10))
            with pytest.raises(SystemExit) as caught:
                loop.run_step()
        assert caught.value.code == 3

    @pytest.mark.parametrize(
        ("path", "watched"),
        [
            ("/p/a.py", True),
            ("/p/extra.html", True),
            ("/p/other.html", False),
            ("/p/__pycache__/a.pyc", False),
            ("/p/skip/a.py", False),
        ],
    )
    def test_which_changes_matter(self, path, watched):
        assert _reloader._is_watched(path, {"/p/extra.html"}, {"*/skip/*"}) is watched

    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(KeyError):
            _reloader.run_with_reloader(lambda: None, reloader_type="none")

    def test_a_saved_file_is_served_anew_on_the_same_port(self, tmp_path):
        (tmp_path / "part.py").write_text("TEXT = 'one'\n")
        (tmp_path / "main.py").write_text(
            "import part\n"
            "from hipflask.werkzeug.serving import run_simple\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            "    return [part.TEXT.encode()]\n"
            "run_simple('127.0.0.1', 0, app, use_reloader=True, reloader_type='stat')\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-u", "main.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        try:
            line = next(line for line in process.stderr if "Running on" in line)
            port = int(line.strip().rpartition(":")[2])
            # The log of requests would fill the pipe.
            reader = threading.Thread(target=process.stderr.read)
            reader.start()
            assert self.fetch(port) == "one"
            # Several times, since each process that ends must first take its engine's threads down.
            for text in ("two", "three", "four", "five"):
                (tmp_path / "part.py").write_text(f"TEXT = '{text} times'\n")
                deadline = time.monotonic() + 20
                while self.fetch(port) != f"{text} times":
                    assert time.monotonic() < deadline
                    assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(15) == 0
            reader.join()
            process.stderr.close()

    @staticmethod
    def fetch(port):
        """The answer. The port is open all the time; a connection that the old process held may break."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (ConnectionResetError, http.client.HTTPException):
            return ""
        finally:
            connection.close()
