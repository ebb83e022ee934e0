"""Bodies that arrive over a socket, in both lanes: streamed, chunked, cut short, too long, read too late."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator

import pytest
from doors import DOORS

from hipflask import Flask
from hipflask import request as asked
from hipflask.werkzeug.exceptions import HTTPException

BIG = bytes(range(256)) * 12_000


@pytest.fixture
def seen() -> queue.Queue:
    """What the views have seen, or how reading failed."""
    return queue.Queue()


@pytest.fixture(params=["live", "live-full-lane"])
def address(request: pytest.FixtureRequest, app: Flask, seen: queue.Queue) -> Iterator[tuple[str, int]]:
    """Where an app listens whose views read the body in every way."""

    def read(how):
        try:
            result = how()
        except HTTPException as error:
            seen.put(error.code)
            raise
        seen.put(result)
        return "ok"

    def upload():
        return asked.files["f"].filename, asked.files["f"].read()

    app.add_url_rule("/data", "data", lambda: read(asked.get_data), methods=["POST"])
    app.add_url_rule("/lines", "lines", lambda: read(lambda: list(asked.stream)), methods=["POST"])
    app.add_url_rule("/form", "form", lambda: read(lambda: asked.form.to_dict()), methods=["POST"])
    app.add_url_rule("/file", "file", lambda: read(upload), methods=["POST"])
    app.add_url_rule("/nothing", "nothing", lambda: read(lambda: None), methods=["POST"])
    app.add_url_rule("/keep", "keep", lambda: read(asked._get_current_object), methods=["POST"])
    door = DOORS[request.param](app)
    yield door.connection.host, door.connection.port
    door.close()


def send(address, path, *pieces, fields="", close_early=False):
    """Sends a request in pieces and returns the status of the answer (0 for none)."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n".encode())
        try:
            for piece in pieces:
                connection.sendall(piece)
            if close_early:
                connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        except ConnectionError:
            return 0
    return int(answer.split(b" ", 2)[1]) if answer else 0


def length(body, more=""):
    return f"Content-Length: {len(body)}\r\n{more}"


CHUNKED = "Transfer-Encoding: chunked\r\n"


def chunks(body, size):
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def test_a_long_body_arrives_whole(address, seen):
    assert send(address, "/data", BIG[:1000], BIG[1000:], fields=length(BIG)) == 200
    assert seen.get_nowait() == BIG


def test_a_chunked_body_arrives_whole(address, seen):
    assert send(address, "/data", *chunks(BIG, 50_000), fields=CHUNKED) == 200
    assert seen.get_nowait() == BIG


def test_lines_may_be_cut_anywhere(address, seen):
    body = b"first line\nsecond\n\nlast"
    assert send(address, "/lines", *chunks(body, 3), fields=CHUNKED) == 200
    assert seen.get_nowait() == body.splitlines(keepends=True)


def test_an_upload_is_parsed_from_the_stream(address, seen):
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + BIG + b"\r\n--b--\r\n"
    fields = length(body, "Content-Type: multipart/form-data; boundary=b\r\n")
    assert send(address, "/file", body[:70_000], body[70_000:], fields=fields) == 200
    assert seen.get_nowait() == ("x", BIG)


@pytest.mark.parametrize("path", ["/data", "/lines", "/form", "/file"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_cut_short_is_never_taken_for_a_whole_one(address, seen, path, framing):
    kind = "multipart/form-data; boundary=b" if path == "/file" else "application/x-www-form-urlencoded"
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + b"x" * 200_000
    fields = f"Content-Type: {kind}\r\n" + ("Content-Length: 400000\r\n" if framing == "length" else CHUNKED)
    pieces = [body] if framing == "length" else [b"%x\r\n%s\r\n" % (len(body), body)]
    assert send(address, path, *pieces, fields=fields, close_early=True) in (0, 400)
    while not seen.empty():
        assert seen.get_nowait() == 400


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_above_the_limit_is_refused(address, seen, app, framing):
    app.config["MAX_CONTENT_LENGTH"] = 100_000
    if framing == "length":
        fields = "Content-Length: 3000000\r\n"
        assert send(address, "/data", b"x" * 50_000, fields=fields, close_early=True) in (0, 413)
    else:
        assert send(address, "/data", *chunks(BIG, 50_000), fields=CHUNKED) in (0, 413)
    while not seen.empty():
        assert seen.get_nowait() == 413
    assert send(address, "/data", b"x" * 100_000, fields="Content-Length: 100000\r\n") == 200
    assert seen.get_nowait() == b"x" * 100_000


def test_a_view_need_not_read_its_body(address, seen):
    assert send(address, "/nothing", b"x" * 1000, fields="Content-Length: 1000\r\n") == 200


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_request_kept_after_its_answer_fails_cleanly(address, seen, size):
    body = b"x" * size
    send(address, "/keep", body, fields=length(body))
    kept = seen.get(timeout=10)
    assert kept.path == "/keep"
    assert kept.headers["Content-Length"] == str(size)
    assert kept.environ["REQUEST_METHOD"] == "POST"
    try:
        data = kept.get_data()
    except (OSError, RuntimeError, HTTPException):
        return
    assert data == body


def test_a_chunked_form_is_held_to_the_limit_of_forms(address, seen):
    fields = CHUNKED + "Content-Type: application/x-www-form-urlencoded\r\n"
    assert send(address, "/form", *chunks(b"a=" + b"x" * 600_000, 50_000), fields=fields) in (0, 413)
    assert seen.get(timeout=10) == 413
    assert send(address, "/form", *chunks(b"a=" + b"x" * 6000, 1000), fields=fields) == 200
    assert seen.get_nowait() == {"a": "x" * 6000}
