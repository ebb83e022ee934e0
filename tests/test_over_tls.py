"""What lives long or speaks ASGI, over TLS and HTTP/2: the same as over plain HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys

import httpx
import pytest
from processes import Command
from websockets.sync.client import connect

from hipflask import Channel, EventStream, Flask, Response, ServerSentEvent, _core
from hipflask.asgi import Host
from hipflask.tls import adhoc_files
from hipflask.websocket import WebSocket

PATIENCE = 20


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.contextmanager
def serving(app):
    server = _core.Server(app, ["127.0.0.1:0"], tls=_core.Tls([adhoc_files()]))
    server.start()
    try:
        yield f"//{server.addresses[0]}"
    finally:
        assert server.stop(0, PATIENCE)


@pytest.fixture(params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def client(request):
    with httpx.Client(http2=request.param, verify=trusting(), timeout=PATIENCE) as client:
        client.version = "HTTP/2" if request.param else "HTTP/1.1"
        yield client


async def asgi(scope, receive, send):
    """Echo a request's body piece by piece behind what its scope says; end when the client goes."""
    if scope["path"] == "/wait":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        scope["state"]["gone"].set()
        return
    if scope["path"] == "/error":
        raise ValueError("expected by this test")
    described = {name: scope[name] for name in ("type", "http_version", "scheme", "path", "method")}
    described["host"] = dict(scope["headers"])[b"host"].decode()
    described["query"] = scope["query_string"].decode()
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
    await send({"type": "http.response.body", "body": json.dumps(described).encode(), "more_body": True})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


def test_an_asgi_application_answers_over_tls(client):
    with serving(Host(asgi, lifespan="off")) as place:
        body = bytes(range(256)) * 4096
        answer = client.post(f"https:{place}/x?y=z", content=body)
    assert (answer.status_code, answer.http_version) == (201, client.version)
    assert answer.headers.get_list("x-a") == ["1", "2"]
    head, _, rest = answer.content.partition(b"}")
    assert rest == body
    described = json.loads(head + b"}")
    assert described == {
        "type": "http",
        "http_version": client.version.removeprefix("HTTP/"),
        "scheme": "https",
        "path": "/x",
        "method": "POST",
        "host": place.removeprefix("//"),
        "query": "y=z",
    } | {"http_version": "2" if client.version == "HTTP/2" else "1.1"}


def test_an_asgi_application_hears_that_a_client_has_gone(client):
    gone = asyncio.Event()

    async def app(scope, receive, send):
        await asgi({**scope, "state": {"gone": gone}}, receive, send)

    with serving(Host(app, lifespan="off")) as place:
        with client.stream("GET", f"https:{place}/wait") as answer:
            assert next(answer.iter_raw()) == b"begun"
        client.close()
        deadline = asyncio.new_event_loop()
        try:
            deadline.run_until_complete(asyncio.wait_for(_until(gone.is_set), PATIENCE))
        finally:
            deadline.close()


async def _until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def test_an_asgi_application_that_fails_answers_500_over_tls(client, caplog):
    with serving(Host(asgi, lifespan="off")) as place:
        assert client.get(f"https:{place}/error").status_code == 500
        assert client.get(f"https:{place}/").status_code == 201
    assert "expected by this test" in caplog.text


def streams() -> tuple[Flask, Channel]:
    app = Flask(__name__)
    channel = Channel()

    @app.get("/events")
    def events():
        return EventStream(ServerSentEvent(data=str(number)) for number in range(3))

    @app.get("/news")
    def news():
        return channel.stream()

    @app.get("/pieces")
    def pieces():
        return Response(f"{number}\n" for number in range(2000))

    @app.get("/awaited")
    async def awaited():
        async def pieces():
            for number in range(2000):
                yield f"{number}\n"

        return Response(pieces())

    @app.websocket("/echo")
    def echo(ws: WebSocket):
        while True:
            ws.send(ws.receive())

    @app.websocket("/listen")
    def listen(ws: WebSocket):
        channel.join(ws)
        ws.send("joined")
        ws.receive()

    return app, channel


def test_streams_arrive_whole_over_tls(client):
    with serving(streams()[0]) as place:
        assert client.get(f"https:{place}/events").text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        whole = "".join(f"{number}\n" for number in range(2000))
        for path in ("/pieces", "/awaited"):
            assert client.get(f"https:{place}{path}").text == whole


def test_a_channel_reaches_its_subscribers_over_tls(client):
    app, channel = streams()
    with serving(app) as place, client.stream("GET", f"https:{place}/news") as answer:
        lines = answer.iter_lines()
        for number in range(3):
            assert channel.publish({"number": number}) == 1
            line = next(line for line in lines if line.startswith("data:"))
            assert json.loads(line.removeprefix("data:")) == {"number": number}


@pytest.mark.parametrize("size", [0, 1, 20_000, 500_000])
def test_websockets_echo_over_tls(size):
    with serving(streams()[0]) as place, connect(f"wss:{place}/echo", ssl=trusting(), max_size=None) as ws:
        for message in ("ä" * (size // 2), bytes(size)):
            ws.send(message)
            assert ws.recv(PATIENCE) == message


def test_a_channel_reaches_websockets_over_tls():
    app, channel = streams()
    with serving(app) as place, connect(f"wss:{place}/listen", ssl=trusting()) as ws:
        assert ws.recv(PATIENCE) == "joined"
        assert channel.publish("news") == 1
        assert "news" in ws.recv(PATIENCE)


@pytest.mark.parametrize(("workers", "expected"), [((), "False"), (("--workers", "2"), "True")])
def test_views_know_whether_there_are_other_processes(tmp_path, workers, expected):
    (tmp_path / "hello.py").write_text(
        "from hipflask import Flask, request\n"
        "app = Flask(__name__)\n"
        "@app.get('/')\n"
        "def index():\n"
        "    assert request.is_multiprocess == request.environ['wsgi.multiprocess']\n"
        "    return str(request.is_multiprocess)\n"
    )
    command = Command(tmp_path, "--port", "0", *workers)
    try:
        port = command.port()
        assert {httpx.get(f"http://127.0.0.1:{port}/").text for _ in range(10)} == {expected}
        assert command.stop() == 0
    finally:
        command.close()


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="newer Pythons read TOML")
def test_the_extra_reads_toml(tmp_path, monkeypatch):
    pytest.importorskip("tomli")
    from hipflask.settings import Settings

    monkeypatch.chdir(tmp_path)
    (tmp_path / "hipflask.toml").write_text('trusted_proxies = ["10.0.0.0/8"]\n')
    assert Settings()["trusted_proxies"] == ["10.0.0.0/8"]
