"""Bodies that the event loop makes, compressed: those of async generators and of hosted ASGI applications."""

from __future__ import annotations

import asyncio
import http.client
import random
import threading
import zlib

import httpx
import pytest
from test_compression import TEXT, decode

from hipflask import Flask, Response
from hipflask.asgi import Host

CODINGS = ["gzip", "br", "zstd"]
LARGE = "".join(f"row {number}, " for number in range(300_000))


def flask_app(bodies):
    """A Flask app whose views answer with async generators."""
    app = Flask(__name__, static_folder=None)
    for name, (make, fields) in bodies.items():

        def view(make=make, fields=fields):
            async def pieces():
                async for piece in make():
                    yield piece

            response = Response(pieces(), mimetype="text/plain")
            for field, value in fields.items():
                response.headers[field] = value
            return response

        app.add_url_rule(f"/{name}", name, view)
    return app


def asgi_app(bodies):
    """The same as a hosted ASGI application."""

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        make, fields = bodies[scope["path"][1:]]
        fields = {"Content-Type": "text/plain", **fields}
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in make():
            body = piece.encode() if isinstance(piece, str) else piece
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    return Host(application)


async def several():
    for piece in ("first ", "", TEXT, b"bytes"):
        yield piece
        await asyncio.sleep(0)


SEVERAL = "first " + TEXT + "bytes"


async def large():
    for at in range(0, len(LARGE), 100_000):
        yield LARGE[at : at + 100_000]


async def nothing():
    return
    yield ""


BODIES = {
    "several": (several, {}),
    "tagged": (several, {"ETag": '"v1"'}),
    "sized": (several, {"Content-Length": str(len(SEVERAL))}),
    "large": (large, {}),
    "nothing": (nothing, {}),
    "events": (several, {"Content-Type": "text/event-stream"}),
    "fixed": (several, {"Cache-Control": "no-transform"}),
    "encoded": (several, {"Content-Encoding": "x-own"}),
    "cookie": (several, {"Set-Cookie": "a=b"}),
    "picture": (several, {"Content-Type": "image/png"}),
    "short": (several, {"Content-Length": str(len(SEVERAL)), "Content-Type": "application/octet-stream"}),
}


@pytest.fixture(params=[flask_app, asgi_app], ids=["flask", "asgi"])
def make(request):
    return request.param


@pytest.mark.parametrize("coding", CODINGS)
def test_pieces_of_the_loop_are_compressed(serve, make, coding):
    server = serve(make(BODIES), compression="all")
    for path, text in [("several", SEVERAL), ("tagged", SEVERAL), ("sized", SEVERAL), ("large", LARGE)]:
        response = server.ask(f"/{path}", coding)
        assert response.getheader("Content-Encoding") == coding, path
        assert response.getheader("Vary") == "Accept-Encoding"
        assert response.getheader("Content-Length") is None
        if coding == "gzip" or path != "large":
            assert decode(response) == text.encode(), path
        assert response.getheader("ETag") == ('W/"v1"' if path == "tagged" else None)
        if path != "tagged":
            head = server.ask(f"/{path}", coding, method="HEAD")
            assert (head.status, head.data) == (200, b"")
    assert decode(server.ask("/nothing", coding)) == b""


def test_what_must_stay_as_it_is_stays(serve, make):
    server = serve(make(BODIES), compression="all")
    for path in ("events", "fixed", "encoded", "cookie", "picture", "short"):
        response = server.ask(f"/{path}", "gzip")
        assert response.getheader("Content-Encoding") == ("x-own" if path == "encoded" else None), path
        assert response.data.decode() == SEVERAL, path
        assert response.getheader("Vary") is None
    plain = server.ask("/several", None)
    assert (plain.data.decode(), plain.getheader("Content-Encoding")) == (SEVERAL, None)
    assert plain.getheader("Vary") == "Accept-Encoding"
    assert server.ask("/several", "gzip", Cookie="a=b").getheader("Content-Encoding") is None
    assert serve(make(BODIES)).ask("/several", "gzip").getheader("Content-Encoding") is None


def test_over_http_2(serve, make):
    server = serve(make(BODIES), compression="all")
    url = f"http://{server._server.addresses[0]}"
    with httpx.Client(http1=False, http2=True, base_url=url, timeout=20) as client:
        for coding in CODINGS:
            for path, text in [("several", SEVERAL), ("sized", SEVERAL), ("large", LARGE)]:
                response = client.get(f"/{path}", headers={"Accept-Encoding": coding})
                assert (response.http_version, response.headers["Content-Encoding"]) == ("HTTP/2", coding)
                assert response.text == text, path


def test_each_piece_can_be_read_before_the_next_is_made(serve, make):
    read = threading.Event()

    async def slow():
        yield "one"
        assert await asyncio.to_thread(read.wait, 20)
        yield "two"

    server = serve(make({"slow": (slow, {})}), compression="all")
    connection = server._connection
    connection.request("GET", "/slow", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    inflate, got = zlib.decompressobj(31), b""
    while got != b"one":
        got += inflate.decompress(response.read1())
    read.set()
    assert inflate.decompress(response.read()) == b"two"
    assert inflate.eof


def test_a_client_that_reads_slowly_stops_the_generator(serve, make):
    made = []
    # Nothing that becomes smaller, or the buffers would take thousands of them.
    noise = random.Random(6).randbytes(200_000)

    async def endless():
        while True:
            made.append(len(noise))
            yield noise

    server = serve(make({"endless": (endless, {})}), compression="all")
    connection = server._connection
    connection.request("GET", "/endless", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert len(response.read(1000)) == 1000
    # Other requests go on beside it, and it makes no more than the buffers take.
    other = serve(make(BODIES), compression="all")
    before = -1
    for _ in range(100):
        if len(made) == before:
            break
        before = len(made)
        for _ in range(20):
            assert decode(other.ask("/several", "gzip")).decode() == SEVERAL
    assert len(made) == before, "it does not wait"
    connection.close()


def test_an_error_in_the_middle_cuts_the_body(serve, make, caplog):
    async def broken():
        yield TEXT
        raise RuntimeError("expected by this test")

    server = serve(make({"broken": (broken, {}), **BODIES}), compression="all")
    with pytest.raises((OSError, http.client.HTTPException)):
        server.ask("/broken", "gzip")
    server._connection.close()
    assert decode(server.ask("/several", "gzip")).decode() == SEVERAL


def test_a_body_shorter_than_it_says_is_cut(serve, make, caplog):
    fields = {"Content-Length": str(len(SEVERAL) + 10)}
    server = serve(make({"less": (several, fields), **BODIES}), compression="all")
    with pytest.raises((OSError, http.client.HTTPException)):
        server.ask("/less", "gzip")
    server._connection.close()
    assert decode(server.ask("/several", "gzip")).decode() == SEVERAL
