"""The examples `examples/progress` and `examples/proxy`."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from test_sse import TIMEOUT, serving

from hipflask import Flask, Response, request

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # An application finds its templates by its module.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_told_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("progress", monkeypatch)
    module.app.config["PAUSE"] = 0.01
    with serving(module.app) as (host, port), httpx.Client(timeout=TIMEOUT) as client:
        base = f"http://{host}:{port}"
        assert "Start a task" in client.get(base).text
        page = client.post(f"{base}/tasks", follow_redirects=True)
        assert "EventSource" in page.text
        with client.stream("GET", f"{page.url}/events") as events:
            assert events.headers["content-type"] == "text/event-stream"
            done = 0
            for line in events.iter_lines():
                if line.startswith("data: "):
                    state = json.loads(line[6:])
                    assert state["done"] > done
                    done = state["done"]
                    if done == state["of"]:
                        break
        # One that comes back has missed what was said since its last event.
        with client.stream("GET", f"{page.url}/events", headers={"Last-Event-ID": "an old one"}) as events:
            assert '{"done": 20, "of": 20}' in next(
                line for line in events.iter_lines() if line.startswith("data: ")
            )


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A proxy in front of an app; gives the app and where the proxy is."""
    module = example("proxy", monkeypatch)
    upstream = Flask("upstream", static_folder=None)
    with serving(upstream) as (host, port):
        module.app.config["UPSTREAM"] = f"http://{host}:{port}"
        with serving(module.app) as where:
            yield upstream, where


def test_the_proxy_forwards(proxied: Any) -> None:
    upstream, (host, port) = proxied

    @upstream.route("/echo", methods=["GET", "POST", "PUT"])
    def echo() -> Response:
        response = Response(f"{request.method} {request.full_path} ".encode() + request.data, 203)
        response.headers["X-Seen"] = request.headers.get("X-Sent", "")
        return response

    with httpx.Client(base_url=f"http://{host}:{port}", timeout=TIMEOUT) as client:
        answer = client.put("/echo?a=1", content=b"body", headers={"X-Sent": "yes"})
        assert (answer.status_code, answer.content) == (203, b"PUT /echo?a=1 body")
        assert answer.headers["X-Seen"] == "yes"
        chunked = client.post("/echo", content=iter([b"in ", b"chunks"]))
        assert chunked.content == b"POST /echo? in chunks"
        assert client.get("/nothing").status_code == 404


def test_the_proxy_streams_in_both_directions(proxied: Any) -> None:
    upstream, where = proxied

    @upstream.post("/upper")
    def upper() -> Response:
        stream = request.stream
        return Response((line.upper() for line in stream), mimetype="text/plain")

    @upstream.get("/events")
    def events() -> Response:
        def pieces() -> Iterator[str]:
            for number in range(3):
                yield f"piece {number}\n"
                assert go_on.acquire(timeout=TIMEOUT)

        return Response(pieces())

    go_on = threading.Semaphore(0)
    with httpx.Client(base_url=f"http://{where[0]}:{where[1]}", timeout=TIMEOUT) as client:
        with client.stream("GET", "/events") as answer:
            for number, line in enumerate(answer.iter_lines()):
                assert line == f"piece {number}"
                go_on.release()
        # A large body passes through, and so does its answer.
        sent = b"line of text\n" * 200_000
        pieces = (sent[at : at + 50_000] for at in range(0, len(sent), 50_000))
        assert client.post("/upper", content=pieces).content == sent.upper()


def test_the_proxy_tells_that_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("proxy", monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        module.app.config["UPSTREAM"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert module.app.test_client().get("/").status_code == 502
