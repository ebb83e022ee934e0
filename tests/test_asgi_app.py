"""Our apps as ASGI applications: called directly, and under uvicorn."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest

from hipflask import Flask, Response, request

PATIENCE = 20


def scope_of(path: str, method: str = "GET", headers=(), **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("10.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        **more,
    }


def call(app: Any, scope: dict[str, Any], *pieces: bytes) -> tuple[int, dict[bytes, bytes], list[bytes]]:
    """Call an ASGI application with a body; give status, fields and the pieces sent."""
    sent: list[Any] = []
    left = list(pieces) or [b""]

    async def receive():
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), PATIENCE))
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]
    return start["status"], dict(start["headers"]), [body["body"] for body in bodies]


@pytest.fixture
def app():
    app = Flask(__name__)

    @app.route("/who/<name>", methods=["GET", "POST"])
    def who(name):
        return {"name": name, "args": request.args, "from": request.remote_addr, "root": request.script_root}

    @app.post("/form")
    def form():
        return dict(request.form)

    @app.get("/stream")
    def stream():
        return Response(iter([b"one", b"", b"two"]))

    @app.get("/async-stream")
    async def async_stream():
        async def pieces():
            for number in range(3):
                await asyncio.sleep(0)
                yield f"{number}"

        return pieces()

    @app.get("/broken")
    def broken():
        raise ZeroDivisionError

    return app


def test_a_request_is_answered_in_one_piece(app):
    scope = scope_of("/api/who/é", query_string=b"a=b", root_path="/api")
    status, fields, pieces = call(app.asgi_app, scope)
    assert status == 200
    assert fields[b"content-type"] == b"application/json"
    (body,) = pieces
    assert Response(body, mimetype="application/json").json == {
        "name": "é",
        "args": {"a": "b"},
        "from": "10.0.0.1",
        "root": "/api",
    }


def test_a_body_in_pieces_is_read(app):
    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"7")]
    _, _, pieces = call(app.asgi_app, scope_of("/form", "POST", headers), b"a=1", b"&b", b"=2")
    assert Response(pieces[0], mimetype="application/json").json == {"a": "1", "b": "2"}


def test_a_stream_is_sent_in_pieces(app):
    assert call(app.asgi_app, scope_of("/stream"))[2] == [b"one", b"two", b""]
    assert call(app.asgi_app, scope_of("/async-stream"))[2] == [b"0", b"1", b"2", b""]


def test_coroutines_run_on_the_servers_loop(app):
    loops = []

    @app.get("/loop")
    async def loop():
        loops.append(asyncio.get_running_loop())
        return ""

    async def outer(scope, receive, send):
        loops.append(asyncio.get_running_loop())
        await app.asgi_app(scope, receive, send)

    assert call(outer, scope_of("/loop"))[0] == 200
    assert loops[0] is loops[1]


def test_errors_are_answered(app):
    assert call(app.asgi_app, scope_of("/broken"))[0] == 500
    assert call(app.asgi_app, scope_of("/nowhere"))[0] == 404
    assert call(app.asgi_app, scope_of("/who/a", "HEAD"))[0] == 200


def test_names_with_underscores_are_dropped(app):
    @app.get("/fields")
    def fields():
        return request.headers.get("X-Forwarded-For", "none")

    headers = [(b"x_forwarded_for", b"1.2.3.4")]
    assert call(app.asgi_app, scope_of("/fields", headers=headers))[2] == [b"none"]


def test_middleware_can_wrap_it(app):
    inner = app.asgi_app

    async def outer(scope, receive, send):
        await inner({**scope, "path": "/who/middleware"}, receive, send)

    app.asgi_app = outer
    assert b"middleware" in call(app.asgi_app, scope_of("/"))[2][0]


SOURCE = """
import asyncio
from hipflask import Flask, request

app = Flask(__name__)

@app.before_serving
async def before():
    print("before", flush=True)

@app.after_serving
def after():
    print("after", flush=True)

@app.post("/")
def echo():
    return request.get_data()

@app.get("/stream")
async def stream():
    async def pieces():
        for number in range(100):
            await asyncio.sleep(0)
            yield "x" * 1000
    return pieces()
"""


def test_under_uvicorn(tmp_path):
    (tmp_path / "ours.py").write_text(SOURCE)
    command = [sys.executable, "-m", "uvicorn", "ours:app.asgi_app", "--port", "0", "--lifespan", "on"]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, url = "", ""
        for line in process.stdout:
            said += line
            if found := re.search(r"http://[\w.:]+", line):
                url = found[0]
                break
        assert "before" in said
        data = bytes(range(256)) * 1000
        assert httpx.post(url, content=data, timeout=PATIENCE).content == data
        assert httpx.get(f"{url}/stream", timeout=PATIENCE).text == "x" * 100_000
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
        assert "after" in out
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
