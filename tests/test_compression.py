"""Compression by the server: what is compressed, for whom, and what a response says about it."""

from __future__ import annotations

import gzip
import time

import brotli
import httpx
import pytest
import zstandard
from flask import Flask as RealFlask
from live_server import Server

from hipflask import Flask, Response, make_response, session

TEXT = "compressible " * 500
NOISE = bytes(range(256)) * 8


def decode(response) -> bytes:
    match response.getheader("Content-Encoding"):
        case "gzip":
            return gzip.decompress(response.data)
        case "br":
            return brotli.decompress(response.data)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(response.data)
        case None:
            return response.data
        case other:
            raise AssertionError(other)


@pytest.fixture
def app(tmp_path) -> Flask:
    app = Flask(__name__, static_folder=str(tmp_path), static_url_path="/static")
    app.secret_key = "k"
    (tmp_path / "a.css").write_text(TEXT)
    (tmp_path / "small.css").write_text("b{}")
    (tmp_path / "a.png").write_bytes(TEXT.encode())

    def answer(body=TEXT, status=200, **fields):
        def view():
            response = Response(body() if callable(body) else body, status, mimetype="text/plain")
            for name, value in fields.items():
                response.headers[name.replace("_", "-")] = value
            return response

        return view

    def pieces():
        yield "first "
        yield ""
        yield TEXT

    views = {
        "text": lambda: TEXT,
        "json": lambda: {"text": TEXT},
        "error": answer(status=404),
        "small": lambda: "small",
        "noise": answer(NOISE[::-1], Content_Type="application/octet-stream"),
        "stream": answer(pieces),
        "sized": answer(lambda: iter([TEXT]), Content_Length=str(len(TEXT))),
        "events": answer(pieces, Content_Type="text/event-stream"),
        "encoded": answer(Content_Encoding="x-own"),
        "fixed": answer(Cache_Control="no-transform"),
        "private": answer(Cache_Control="private, max-age=1"),
        "unstored": answer(Cache_Control="no-store"),
        "cookie": answer(Set_Cookie="a=b"),
        "etag": answer(ETag='"v1"'),
        "part": answer(status=206, Content_Range="bytes 0-9/10"),
    }
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, view)
        app.add_url_rule(f"/always/{name}", f"always-{name}", view, compress=True)
        app.add_url_rule(f"/never/{name}", f"never-{name}", view, compress=False)

    @app.get("/session")
    def of_session():
        return TEXT + session.get("name", "")

    @app.get("/later")
    async def later():
        return TEXT

    return app


@pytest.fixture(params=["fast", "full"])
def serve(request, app):
    servers = []

    def start(**settings):
        if request.param == "full":
            inner = app.wsgi_app
            app.wsgi_app = lambda environ, start_response: inner(environ, start_response)
        servers.append(Server(app, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


COMPRESSED = ["text", "json", "error", "stream", "sized", "etag", "later"]
AS_THEY_ARE = ["small", "noise", "events", "encoded", "fixed", "private", "unstored", "cookie", "part"]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip", "gzip"),
        ("br;q=0.1, gzip;q=0.2", "gzip"),
        ("*", "zstd"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("", None),
        (None, None),
    ],
)
def test_what_may_be_compressed_is(serve, accept, coding):
    server = serve(compression="all")
    for name in COMPRESSED:
        response = server.ask(f"/{name}", accept)
        assert response.getheader("Content-Encoding") == coding, name
        assert response.getheader("Vary") == "Accept-Encoding", name
        data = decode(response)
        assert TEXT in data.decode(), name
        if coding:
            assert len(response.data) < len(data) / 2
            assert response.getheader("ETag") in (None, 'W/"v1"')
        if response.getheader("Content-Length") is not None:
            assert response.getheader("Content-Length") == str(len(response.data))
        head = server.ask(f"/{name}", accept, "HEAD")
        assert (head.status, head.data) == (response.status, b"")
        same = ["Content-Encoding", "Vary", "ETag", "Content-Type"]
        assert [head.getheader(n) for n in same] == [response.getheader(n) for n in same], name
        if coding:
            assert head.getheader("Content-Length") is None


def test_what_is_for_one_client_or_fixed_is_left_alone(serve):
    server = serve(compression="all")
    for name in [*AS_THEY_ARE, "session"]:
        response = server.ask(f"/{name}", "gzip")
        assert response.getheader("Content-Encoding") in (None, "x-own"), name
        assert "Accept-Encoding" not in (response.getheader("Vary") or ""), name


@pytest.mark.parametrize("fields", [{"Cookie": "a=b"}, {"Authorization": "Basic eA=="}])
def test_a_request_with_a_secret_gets_no_compressed_answer(serve, fields):
    server = serve(compression="all")
    response = server.ask("/text", "gzip", **fields)
    assert (response.getheader("Content-Encoding"), response.getheader("Vary")) == (None, "Accept-Encoding")
    assert response.data == TEXT.encode()
    response = server.ask("/always/text", "gzip", **fields)
    assert (response.getheader("Content-Encoding"), decode(response)) == ("gzip", TEXT.encode())


def test_a_route_decides_for_itself(serve):
    for scope in ("routes", "static", "all"):
        server = serve(compression=scope)
        for name in ("text", "stream", "private", "unstored", "cookie"):
            assert server.ask(f"/always/{name}", "gzip").getheader("Content-Encoding") == "gzip", name
        for name in ("encoded", "fixed", "small", "noise"):
            assert server.ask(f"/always/{name}", "gzip").getheader("Content-Encoding") != "gzip", name
        for name in ("text", "stream", "json"):
            response = server.ask(f"/never/{name}", "gzip")
            assert (response.getheader("Content-Encoding"), response.getheader("Vary")) == (None, None), name


def test_nothing_is_compressed_by_default(serve):
    server = serve()
    for path in ("/text", "/stream", "/static/a.css"):
        response = server.ask(path, "gzip")
        assert (response.getheader("Content-Encoding"), response.getheader("Vary")) == (None, None), path


def test_the_least_size_can_be_set(serve):
    server = serve(compression="all", compression_min=6)
    assert server.ask("/small", "gzip").getheader("Content-Encoding") is None
    server = serve(compression="all", compression_min=len(TEXT) + 1)
    assert server.ask("/text", "gzip").getheader("Content-Encoding") is None


def test_a_weak_tag_is_known_again(serve):
    server = serve(compression="all")
    app = server.ask("/etag", "gzip")
    assert app.getheader("ETag") == 'W/"v1"'


def test_each_piece_of_a_stream_arrives_before_the_next_is_made(app):
    import threading
    import zlib

    read = threading.Event()

    @app.get("/slow", compress=True)
    def slow():
        def pieces():
            yield "one"
            assert read.wait(20)
            yield "two"

        return Response(pieces(), mimetype="text/plain")

    server = Server(app)
    try:
        connection = server._connection
        connection.request("GET", "/slow", headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        assert response.getheader("Content-Encoding") == "gzip"
        inflate, got = zlib.decompressobj(31), b""
        while got != b"one":
            got += inflate.decompress(response.read1())
        read.set()
        assert inflate.decompress(response.read()) == b"two"
        assert inflate.eof
    finally:
        read.set()
        server.close()


def kept(server, path, accept, **fields):
    """The response once the file has been compressed: whoever comes while it is, gets it as it is."""
    for _ in range(200):
        response = server.ask(path, accept, **fields)
        if response.getheader("Content-Length") and response.getheader("Content-Encoding"):
            return response
        time.sleep(0.01)
    raise AssertionError("it was not kept")


@pytest.mark.parametrize("scope", ["static", "all"])
@pytest.mark.parametrize("attended", [False, True])
def test_static_files_are_compressed_once_and_kept(app, scope, attended):
    if attended:
        app.before_request(lambda: None)
    server = Server(app, compression=scope)
    try:
        for accept, coding in [("gzip", "gzip"), ("gzip, br, zstd", "br"), ("zstd", "zstd")]:
            first = server.ask("/static/a.css", accept, Cookie="a=b")
            assert first.getheader("Content-Encoding") == coding
            again = kept(server, "/static/a.css", accept)
            for response in (first, again):
                assert decode(response) == TEXT.encode()
                assert response.getheader("Vary") == "Accept-Encoding"
                assert response.getheader("ETag").startswith('W/"')
                assert response.getheader("Content-Type") == "text/css; charset=utf-8"
            etag = again.getheader("ETag")
            same = server.ask("/static/a.css", accept, If_None_Match=etag)
            assert (same.status, same.getheader("ETag")) == (304, etag)
            assert same.getheader("Vary") == "Accept-Encoding"
        part = server.ask("/static/a.css", "gzip", Range="bytes=0-4")
        assert (part.status, part.data, part.getheader("Content-Encoding")) == (206, b"compr", None)
        if not attended:
            # Flask takes a weak tag for a strong one here, which no client may send.
            whole = server.ask("/static/a.css", "gzip", Range="bytes=0-4", If_Range=etag)
            assert (whole.status, decode(whole)) == (200, TEXT.encode())
        for path in ("small.css", "a.png"):
            response = server.ask(f"/static/{path}", "gzip")
            assert (response.getheader("Content-Encoding"), response.getheader("Vary")) == (None, None)
    finally:
        server.close()


def test_a_changed_file_is_compressed_anew(app, tmp_path):
    server = Server(app, compression="static")
    try:
        kept(server, "/static/a.css", "gzip")
        (tmp_path / "a.css").write_text(TEXT[::-1])
        assert decode(server.ask("/static/a.css", "gzip")) == TEXT[::-1].encode()
    finally:
        server.close()


def test_nothing_is_kept_without_room_and_a_large_file_is_whole(app, tmp_path):
    text = "".join(f"line {n * 7919 % 100_003}\n" for n in range(300_000)).encode()
    (tmp_path / "large.txt").write_bytes(text)
    for room in (0, 32 << 20):
        server = Server(app, compression="static", compression_cache=room)
        try:
            for _ in range(3):
                assert decode(server.ask("/static/large.txt", "zstd, gzip;q=0.5")) == text
        finally:
            server.close()


def test_an_application_that_compresses_by_itself_is_not_compressed_twice(serve, app):
    @app.after_request
    def compress(response):
        response.data = gzip.compress(response.get_data())
        response.headers["Content-Encoding"] = "gzip"
        response.vary.add("Accept-Encoding")
        return response

    server = serve(compression="all")
    response = server.ask("/text", "gzip")
    assert decode(response) == TEXT.encode()
    assert response.msg.get_all("Vary") == ["Accept-Encoding"]


def test_other_applications_are_compressed_too():
    def hosted(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(TEXT)))])
        return [TEXT.encode()]

    real = RealFlask(__name__)
    real.add_url_rule("/", "text", lambda: TEXT)
    for app in (hosted, real):
        server = Server(app, compression="all")
        try:
            response = server.ask("/", "br")
            assert (response.getheader("Content-Encoding"), decode(response)) == ("br", TEXT.encode())
        finally:
            server.close()


def test_http_1_0_and_bodiless_answers_are_left_alone(app):
    @app.get("/none")
    def none():
        return make_response("", 204)

    server = Server(app, compression="all")
    try:
        response = server.ask("/none", "gzip")
        assert (response.status, response.getheader("Content-Encoding")) == (204, None)
        server._connection._http_vsn_str = "HTTP/1.0"
        response = server.ask("/text", "gzip")
        assert (response.getheader("Content-Encoding"), response.data) == (None, TEXT.encode())
    finally:
        server.close()


def test_http_2_is_compressed_alike(app, tmp_path):
    app.add_url_rule("/pieces", "pieces", lambda: Response(iter([TEXT, TEXT]), mimetype="text/plain"))
    server = Server(app, compression="all")
    url = f"http://{server._server.addresses[0]}"
    try:
        with httpx.Client(http1=False, http2=True, base_url=url) as client:
            for coding in ("gzip", "br", "zstd"):
                for path, text in [
                    ("/text", TEXT),
                    ("/pieces", TEXT * 2),
                    ("/later", TEXT),
                    ("/static/a.css", TEXT),
                    ("/static/a.css", TEXT),
                ]:
                    response = client.get(path, headers={"Accept-Encoding": coding})
                    assert (response.http_version, response.text) == ("HTTP/2", text), path
                    assert response.headers["Vary"] == "Accept-Encoding"
                    encoding = response.headers.get("Content-Encoding")
                    assert encoding == coding, path
                    head = client.head(path, headers={"Accept-Encoding": coding})
                    assert head.headers["Content-Encoding"] == coding
                    assert "Content-Length" not in head.headers
    finally:
        server.close()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_compressed_file_beside_another_has_parts_conditions_and_heads_of_its_own(app, tmp_path, version):
    small = gzip.compress(TEXT.encode())
    (tmp_path / "a.css.gz").write_bytes(small)
    server = Server(app, mount=[f"/mounted={tmp_path}"])
    options = {"http1": False, "http2": True} if version == "HTTP/2" else {}
    try:
        with httpx.Client(base_url=f"http://{server._server.addresses[0]}", **options) as client:
            for path in ("/static/a.css", "/mounted/a.css"):
                plain = client.get(path, headers={"Accept-Encoding": "identity"})
                coded = client.get(path, headers={"Accept-Encoding": "gzip"})
                assert (plain.http_version, plain.text, coded.text) == (version, TEXT, TEXT)
                assert plain.headers["Content-Length"] == str(len(TEXT))
                assert coded.headers["Content-Length"] == str(len(small))
                tags = plain.headers["ETag"], coded.headers["ETag"]
                assert tags[0] != tags[1]
                assert not tags[1].startswith("W/")
                for coding, tag, other, size in [
                    ("identity", tags[0], tags[1], len(TEXT)),
                    ("gzip", tags[1], tags[0], len(small)),
                ]:
                    fields = {"Accept-Encoding": coding}
                    head = client.head(path, headers=fields)
                    assert head.headers["Content-Length"] == str(size)
                    assert head.headers.get("Content-Encoding") == (coding if coding == "gzip" else None)
                    with client.stream("GET", path, headers={**fields, "Range": "bytes=2-9"}) as part:
                        raw = b"".join(part.iter_raw())
                    whole = small if coding == "gzip" else TEXT.encode()
                    assert (part.status_code, raw) == (206, whole[2:10])
                    assert part.headers["Content-Range"] == f"bytes 2-9/{size}"
                    assert client.get(path, headers={**fields, "If-None-Match": tag}).status_code == 304
                    assert client.get(path, headers={**fields, "If-None-Match": other}).status_code == 200
                    stale = {**fields, "Range": "bytes=2-9", "If-Range": other}
                    assert client.get(path, headers=stale).status_code == 200
                    known = client.get(path, headers={**fields, "If-None-Match": tag})
                    for response in (plain, coded, head, part, known):
                        assert response.headers["Vary"] == "Accept-Encoding", path
    finally:
        server.close()


def test_a_weak_tag_is_none_for_if_match(tmp_path, app):
    # RFC 9110 §13.1.1 compares strongly: what was made smaller on the way is not the same byte for byte.
    server = Server(app, compression="static", mount=[f"/mounted={tmp_path}"])
    try:
        plain = server.ask("/mounted/a.css")
        coded = kept(server, "/mounted/a.css", "gzip")
        strong, weak = plain.getheader("ETag"), coded.getheader("ETag")
        assert weak == f"W/{strong}"
        for tag, status in [(strong, 200), (weak, 412), (f"{weak}, {strong}", 200), ("*", 200)]:
            assert server.ask("/mounted/a.css", "gzip", If_Match=tag).status == status, tag
        for tag in (strong, weak, "*"):
            assert server.ask("/mounted/a.css", "gzip", If_None_Match=tag).status == 304, tag
        # A part is never of the compressed form, and `If-Range` compares strongly too.
        for tag, status in [(strong, 206), (weak, 200)]:
            response = server.ask("/mounted/a.css", "gzip", Range="bytes=0-3", If_Range=tag)
            assert response.status == status, tag
    finally:
        server.close()
