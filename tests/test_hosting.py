"""WSGI applications of others behind the engine, and `hipflask run` for applications that are not Flask's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import Any
from wsgiref.validate import validator

import httpx
import pytest

from hipflask import _core

PATIENCE = 20


@pytest.fixture
def serve():
    servers = []

    def start(app: Any) -> str:
        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        servers.append(server)
        return f"http://{server.addresses[0]}"

    yield start
    for server in servers:
        assert server.stop(0, PATIENCE)


# PEP 3333. `wsgiref.validate` raises AssertionError for what is against it: then there is a 500.


def test_the_environ(serve):
    environs = []

    def app(environ, start_response):
        environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    url = serve(validator(app))
    answer = httpx.post(f"{url}/a%20b?c=d", content=b"xyz", headers={"X-Field": "1"}, timeout=PATIENCE)
    assert (answer.status_code, answer.text) == (200, "ok")
    (environ,) = environs
    host, port = url[7:].split(":")
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=d",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_FIELD": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    assert {name: environ[name] for name in expected} == expected
    assert type(environ) is dict


def _all(stream):
    return stream.read(1000) + stream.read(1000)


def _by_iteration(stream):
    return b"".join(stream)


def _by_lines(stream):
    lines = []
    while line := stream.readline():
        lines.append(line)
    return b"".join(lines)


@pytest.mark.parametrize(
    "read",
    [_all, _by_iteration, _by_lines, lambda stream: b"".join(stream.readlines())],
    ids=["read", "iteration", "readline", "readlines"],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_ways_to_read_a_body(serve, read, chunked):
    def app(environ, start_response):
        data = read(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [data]

    data = b"one\ntwo\n\nthree"
    content = iter([data[:5], data[5:]]) if chunked else data
    assert httpx.post(serve(validator(app)), content=content, timeout=PATIENCE).content == data


class Iterable:
    """A body that notes when it is closed."""

    def __init__(self, pieces):
        self.pieces = pieces
        self.closed = 0

    def __iter__(self):
        return iter(self.pieces)

    def close(self):
        self.closed += 1


def _list(start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"one", b"two"]


def _generator(start):
    start("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b""
    yield b"two"


def _write(start):
    start("200 OK", [("Content-Type", "text/plain")])(b"one")
    return [b"two"]


def _write_while_streaming(start):
    write = start("200 OK", [("Content-Type", "text/plain")])
    yield b"o"
    write(b"n")
    yield b"e"
    write(b"two")


def _second_thoughts(start):
    start("200 OK", [("Content-Type", "text/html")])
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        start("200 OK", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"onetwo"]


@pytest.mark.parametrize("kind", [_list, _generator, _write, _write_while_streaming, _second_thoughts])
def test_the_ways_to_answer(serve, kind):
    def app(environ, start_response):
        return kind(start_response)

    answer = httpx.get(serve(validator(app)), timeout=PATIENCE)
    assert (answer.text, answer.headers["content-type"]) == ("onetwo", "text/plain")


def test_a_body_is_closed_once(serve):
    body = Iterable([b"one", b"two"])

    def app(environ, start_response):
        start_response("200 OK", [])
        return body

    url = serve(app)
    assert httpx.get(url, timeout=PATIENCE).text == "onetwo"
    assert httpx.head(url, timeout=PATIENCE).text == ""
    assert body.closed == 2


def test_second_thoughts_after_the_head_break_the_response(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        try:
            raise ZeroDivisionError("too late")
        except ZeroDivisionError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"two"

    with pytest.raises(httpx.TransportError):
        httpx.get(serve(app), timeout=PATIENCE)
    assert "too late" in caplog.text


# Frameworks.


def test_flask_itself(serve):
    import flask

    app = flask.Flask("theirs")

    @app.route("/<int:number>", methods=["POST"])
    def view(number):
        return {"number": number, "form": flask.request.form.to_dict()}

    answer = httpx.post(f"{serve(validator(app))}/3", data={"a": "b"}, timeout=PATIENCE)
    assert answer.json() == {"number": 3, "form": {"a": "b"}}


def test_bottle(serve, tmp_path):
    import bottle

    (tmp_path / "file.txt").write_text("file")
    app = bottle.Bottle()

    @app.post("/<name>")
    def view(name):
        return {"name": name, "field": bottle.request.forms.field}

    @app.get("/file")
    def file():
        return bottle.static_file("file.txt", root=str(tmp_path))

    url = serve(validator(app))
    assert httpx.post(f"{url}/n", data={"field": "f"}, timeout=PATIENCE).json() == {"name": "n", "field": "f"}
    assert httpx.get(f"{url}/file", timeout=PATIENCE).text == "file"


# The command.

SOURCE = """
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        print("shut down", flush=True)
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"asgi"})

def unclear(environ, *rest):
    return wsgi(environ, *rest)

def wrapped(*args):
    environ, start_response = args
    return wsgi(environ, start_response)

class Inside:
    app = staticmethod(asgi)

application = wsgi
"""


@contextmanager
def running(folder, *arguments):
    (folder / "others.py").write_text(SOURCE)
    command = [sys.executable, "-m", "hipflask", "run", "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        url, lines = "", []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"http://[\w.:]+", line):
                url = found[0]
                break
        assert url, "".join(lines)
        yield url, process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["others:wsgi"], "wsgi"),
        (["others"], "wsgi"),
        (["others:asgi"], "asgi"),
        (["others:Inside.app"], "asgi"),
        (["others:unclear", "--interface", "wsgi"], "wsgi"),
        (["others:wrapped", "--interface", "wsgi"], "wsgi"),
        (["others:asgi", "--interface", "asgi", "--lifespan", "on"], "asgi"),
    ],
)
def test_run_serves_applications_of_others(tmp_path, arguments, expected):
    with running(tmp_path, *arguments) as (url, process):
        assert httpx.get(url, timeout=PATIENCE).text == expected
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert ("shut down" in out) is (expected == "asgi")


@pytest.mark.parametrize("name", ["others:nothing", "others:SOURCE", "nowhere:app"])
def test_run_says_that_there_is_no_application(tmp_path, name):
    (tmp_path / "others.py").write_text("SOURCE = 1")
    command = [sys.executable, "-m", "hipflask", "run", "--port", "0", name]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(("Usage:", "Error:"))
