"""Files that are sent without a view's work.

Mounts, names that never change, pages of single-page applications, files that a response names, and those of
WSGI applications.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from urllib.parse import quote
from wsgiref.validate import validator

import brotli
import pytest
import zstandard
from flask import Flask as RealFlask
from flask import send_file as real_send_file

from hipflask import Flask, Response, _core, abort, send_file
from hipflask.precompress import compressed

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def tree(tmp_path):
    """A directory of files, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".well-known").mkdir()
    for name, text in {
        "a.txt": "0123456789",
        "index.html": "<p>index",
        "sub/index.html": "<p>sub",
        "app.3f2a9c1b.js": "hashed",
        ".env": "KEY=1",
        ".git/config": "x",
        ".well-known/security.txt": "well known",
        "ä.txt": "umlaut",
    }.items():
        (root / name).write_text(text)
    (root / "out").symlink_to("../secret")
    os.mkfifo(root / "fifo")
    return root


def view_of(name="view"):
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/<path:path>", name, lambda path: f"view of {path}")
    return app


def middleware(app):
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start_response: inner(environ, start_response)
    return app


# Mounts.


@pytest.mark.parametrize("index", [False, True])
def test_a_mounted_directory_is_sent_without_the_application(serve, tree, index):
    server = serve(view_of(), mount=[f"/assets={tree}"], mount_index=index)
    found = {
        "/assets/a.txt": "0123456789",
        "/assets/%C3%A4.txt": "umlaut",
        "/assets/.well-known/security.txt": "well known",
    }
    indexes = {"/assets/": "<p>index", "/assets/sub/": "<p>sub"}
    for path, text in {**found, **(indexes if index else {})}.items():
        response = server.ask(path)
        assert (response.status, response.data.decode()) == (200, text), path
        assert server.ask(path, method="HEAD").getheader("Content-Length") == str(len(text.encode()))
        assert server.ask(path, If_None_Match=response.getheader("ETag")).status == 304
    assert server.ask("/assets/a.txt", Range="bytes=2-3").data == b"23"
    others = ["a", "missing", ".env", ".git/config", "out", "fifo", "sub", "../secret", "%2e%2e/secret"]
    others += ["..%2fsecret", "a.txt%00", "sub/../a.txt", "A.txt", *([] if index else ["", "sub/"])]
    for path in others:
        response = server.ask(f"/assets/{path}")
        assert response.data not in (b"secret", b"0123456789", b"KEY=1"), path
        assert response.data.startswith(b"view of ") or response.status == 404, path
    assert server.ask("/assets/a.txt", method="POST").status == 405
    assert server.ask("/assetsa.txt").data == b"view of assetsa.txt"


def test_any_application_may_have_mounts(serve, tree):
    def hosted(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hosted"]

    server = serve(hosted, mount=[f"/a={tree}", f"/b/={tree / 'sub'}"], mount_index=True)
    for path, text in [("/a/a.txt", "0123456789"), ("/b/", "<p>sub"), ("/b/a.txt", "hosted")]:
        assert server.ask(path).data.decode() == text, path


@pytest.mark.parametrize("text", ["assets=.", "/assets", "/assets=", "/assets=/does/not/exist"])
def test_a_mount_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="mount: "):
        _core.Server(view_of(), ["127.0.0.1:0"], settings={"mount": [text]})


# Names.


def test_names_with_a_hash_are_kept_for_a_year(serve, tree):
    app = Flask(__name__, static_folder=str(tree), static_url_path="/static")
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 60
    server = serve(app, immutable=["*.{hash}.*"], mount=[f"/assets={tree}"])
    year = "public, max-age=31536000, immutable"
    for path, control in [
        ("/static/app.3f2a9c1b.js", year),
        ("/assets/app.3f2a9c1b.js", year),
        ("/static/a.txt", "public, max-age=60"),
        ("/assets/a.txt", "no-cache"),
    ]:
        response = server.ask(path)
        assert response.getheader("Cache-Control") == control, path
        assert (
            server.ask(path, If_None_Match=response.getheader("ETag")).getheader("Cache-Control") == control
        )
    assert serve(app).ask("/static/app.3f2a9c1b.js").getheader("Cache-Control") == "public, max-age=60"


# Single-page applications.


def single_page(tree, attended=False):
    app = Flask(__name__, static_folder=str(tree), static_url_path="/static")
    app.static_fallback()
    app.add_url_rule("/api/<int:id>", "api", lambda id: {"id": id})
    app.add_url_rule("/gone", "gone", lambda: abort(404))
    app.add_url_rule("/form", "form", lambda: "form", methods=["POST"])
    app.add_url_rule("/folder/", "folder", lambda: "folder")
    if attended:
        app.before_request(lambda: None)
    return app


@pytest.mark.parametrize("attended", [False, True])
def test_pages_of_a_single_page_application_get_its_file(tree, through, attended):
    client = through(single_page(tree, attended))
    for path in ("/", "/users", "/users/7/edit", "/users/", "/api/x", "/v1.2/users"):
        answer = client.get(path, headers=PAGE)
        assert (answer.status_code, answer.text) == (200, "<p>index"), path
        assert answer.header("Content-Type") == "text/html; charset=utf-8"
        assert client.open(path, "HEAD", headers=PAGE).status_code == 200


@pytest.mark.parametrize("attended", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "accept", "status"),
    [
        ("GET", "/users", "application/json", 404),
        ("GET", "/users", "*/*", 404),
        ("GET", "/users", None, 404),
        ("GET", "/users", "text/html;q=0, application/json", 404),
        ("GET", "/favicon.ico", PAGE["Accept"], 404),
        ("GET", "/js/app.js", PAGE["Accept"], 404),
        ("POST", "/users", PAGE["Accept"], 404),
        ("GET", "/gone", PAGE["Accept"], 404),
        ("GET", "/form", PAGE["Accept"], 405),
        ("GET", "/static/missing", PAGE["Accept"], 404),
        ("GET", "/folder", PAGE["Accept"], 308),
        ("GET", "/api/7", PAGE["Accept"], 200),
    ],
)
def test_what_is_no_page_is_answered_as_ever(tree, through, attended, method, path, accept, status):
    client = through(single_page(tree, attended))
    headers = {} if accept is None else {"Accept": accept}
    answer = client.open(path, method, headers=headers)
    assert answer.status_code == status
    assert "<p>index" not in answer.text


def test_without_the_file_it_is_not_found(tree, through):
    (tree / "index.html").unlink()
    assert through(single_page(tree)).get("/users", headers=PAGE).status_code == 404


# Files that a response names.


def naming(root):
    app = Flask(__name__, static_folder=None)
    app.use_x_sendfile = True

    @app.get("/name/<path:name>")
    def name(name):
        response = Response("not this", mimetype="text/x-own")
        response.headers["X-Sendfile"] = f"{root}/{name}"
        response.headers["X-Mark"] = "kept"
        response.set_cookie("a", "b")
        return response

    @app.get("/url/<path:name>")
    def url(name):
        response = Response()
        del response.headers["Content-Type"]
        response.headers["X-Accel-Redirect"] = f"/protected/{quote(name)}?x=y"
        response.headers["X-Accel-Buffering"] = "no"
        return response

    @app.get("/raw")
    def raw():
        return Response(headers={"X-Sendfile": str(root.parent / "secret")})

    @app.get("/send")
    def send():
        return send_file(root / "a.txt")

    @app.get("/later/<name>")
    async def later(name):
        return Response(headers={"X-Sendfile": f"{root}/{name}"})

    @app.get("/stream/<name>")
    def stream(name):
        return Response((piece for piece in ["a", "b"]), headers={"X-Sendfile": f"{root}/{name}"})

    @app.get("/plain")
    def plain():
        return "plain"

    return app


@pytest.mark.parametrize("full", [False, True])
def test_a_response_names_the_file_that_is_its_body(serve, tree, full):
    app = naming(tree)
    server = serve(middleware(app) if full else app, sendfile=[str(tree), f"/protected={tree}"])
    response = server.ask("/name/a.txt")
    assert (response.status, response.data) == (200, b"0123456789")
    assert response.getheader("Content-Type") == "text/x-own; charset=utf-8"
    assert (response.getheader("X-Mark"), response.getheader("X-Sendfile")) == ("kept", None)
    assert response.getheader("Set-Cookie") == "a=b; Path=/"
    etag = response.getheader("ETag")
    same = server.ask("/name/a.txt", If_None_Match=etag)
    assert (same.status, same.data, same.getheader("X-Sendfile")) == (304, b"", None)
    part = server.ask("/name/a.txt", Range="bytes=3-4")
    assert (part.status, part.data, part.getheader("Content-Range")) == (206, b"34", "bytes 3-4/10")
    head = server.ask("/name/a.txt", method="HEAD")
    assert (head.status, head.getheader("Content-Length"), head.data) == (200, "10", b"")
    assert server.ask("/name/%C3%A4.txt").data == b"umlaut"
    for path in ("/url/a.txt", "/url/sub/index.html", "/url/%C3%A4.txt", "/later/a.txt", "/stream/a.txt"):
        response = server.ask(path)
        assert (response.status, response.getheader("X-Accel-Redirect")) == (200, None), path
        assert response.getheader("X-Accel-Buffering") is None
        assert response.data in (b"0123456789", b"<p>sub", b"umlaut"), path
    assert server.ask("/url/a.txt").getheader("Content-Type") == "text/plain; charset=utf-8"
    assert server.ask("/plain").data == b"plain"
    (tree / "large").write_bytes(os.urandom(300_000))
    assert server.ask("/name/large").data == (tree / "large").read_bytes()


@pytest.mark.parametrize("full", [False, True])
def test_no_other_file_is_sent_and_no_path_leaks(serve, tree, caplog, full):
    app = naming(tree)
    server = serve(middleware(app) if full else app, sendfile=[str(tree), f"/protected={tree}"])
    paths = ["/name/missing", "/name/out", "/name/fifo", "/name/sub", "/name/%2e%2e/secret", "/raw"]
    paths += ["/url/..%2fsecret", "/url/out", "/later/out", "/stream/missing"]
    for path in paths:
        response = server.ask(path)
        assert (response.status, response.data) == (404, b"Not Found"), path
        assert (response.getheader("X-Sendfile"), response.getheader("Set-Cookie")) == (None, None)
    assert "which is no file that may be sent" in caplog.text


def test_the_setting_of_flask_works_with_the_server(serve, tree):
    app = naming(tree)
    app.config["USE_X_SENDFILE"] = True
    server = serve(app, sendfile=[str(tree)])
    response = server.ask("/send")
    assert (response.data, response.getheader("X-Sendfile")) == (b"0123456789", None)
    assert response.getheader("Content-Type") == "text/plain; charset=utf-8"
    part = server.ask("/send", Range="bytes=3-4")
    assert (part.status, part.data, part.getheader("Content-Range")) == (206, b"34", "bytes 3-4/10")
    assert server.ask("/send", If_None_Match=response.getheader("ETag")).status == 304


def test_without_the_setting_the_fields_are_ordinary_ones(serve, tree):
    response = serve(naming(tree)).ask("/name/a.txt")
    assert (response.data, response.getheader("X-Sendfile")) == (b"not this", f"{tree}/a.txt")


# WSGI applications.


@pytest.mark.parametrize("checked", [False, True])
def test_a_file_wrapper_sends_the_file(serve, tree, checked):
    (tree / "large").write_bytes(os.urandom(300_000))
    closed = []

    def hosted(environ, start_response):
        path = tree / environ["PATH_INFO"].lstrip("/")
        file = path.open("rb")
        headers = [("Content-Type", "application/octet-stream")]
        if environ["QUERY_STRING"] == "part":
            file.seek(3)
            headers.append(("Content-Length", "4"))
        start_response("200 OK", headers)
        wrapped = environ["wsgi.file_wrapper"](file, 4096)
        closed.append(file)
        return wrapped

    server = serve(validator(hosted) if checked else hosted)
    assert server.ask("/large").data == (tree / "large").read_bytes()
    if not checked:
        assert server.ask("/a.txt?part").data == b"3456"
        response = server.ask("/a.txt")
        assert (response.data, response.getheader("Content-Length")) == (b"0123456789", "10")
        assert server.ask("/a.txt", method="HEAD").getheader("Content-Length") == "10"
    assert all(file.closed for file in closed)


def test_files_of_the_real_flask_are_sent(serve, tree):
    (tree / "large").write_bytes(os.urandom(300_000))
    app = RealFlask(__name__)
    app.add_url_rule("/", "file", lambda: real_send_file(tree / "large"))
    server = serve(app)
    assert server.ask("/").data == (tree / "large").read_bytes()
    assert server.ask("/", Range="bytes=100-199").data == (tree / "large").read_bytes()[100:200]


# Compressing beforehand.


def test_the_command_writes_siblings_that_are_sent(serve, tree):
    text = "compressible " * 1000
    (tree / "long.css").write_text(text)
    (tree / "noise.bin").write_bytes(os.urandom(5000))
    (tree / "noise.txt").write_bytes(os.urandom(5000))
    line = [sys.executable, "-m", "hipflask", "compress", str(tree)]
    for _ in range(2):
        done = subprocess.run(line, check=True, capture_output=True, text=True)
        assert done.stdout.startswith("1 files, 13000 bytes: br ")
    assert sorted(path.name for path in tree.glob("*.*") if path.suffix in {".br", ".zst", ".gz"}) == [
        "long.css.br",
        "long.css.gz",
        "long.css.zst",
    ]
    server = serve(view_of(), mount=[f"/assets={tree}"])
    for coding, decode in [
        ("br", brotli.decompress),
        ("zstd", zstandard.ZstdDecompressor().decompress),
        ("gzip", gzip.decompress),
    ]:
        response = server.ask("/assets/long.css", Accept_Encoding=coding)
        assert response.getheader("Content-Encoding") == coding
        assert decode(response.data) == text.encode()


def test_a_file_that_has_changed_loses_its_old_sibling(tree):
    path = tree / "a.css"
    path.write_text("compressible " * 1000)
    assert compressed(str(path), "gzip") == (tree / "a.css.gz").stat().st_size
    path.write_text("short now")
    assert compressed(str(path), "gzip") is None
    assert not (tree / "a.css.gz").exists()
    with pytest.raises(ValueError, match="none of br, zstd, gzip"):
        _core.compress(b"x", "lzma")
