"""Mounts with options of their own: lists of directories, pages for them, and for how long files are kept."""

from __future__ import annotations

import json
import os
import socket
import threading
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest
from live_server import Server

from hipflask import Flask, _core
from hipflask.asgi import Host

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
ODD = "a<b>&\"'%:ä?#.txt"


@pytest.fixture
def serve():
    servers = []

    def start(*mounts, app=None, **settings):
        servers.append(Server(app or application(), mount=list(mounts), **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def application():
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/", "top", lambda: "view of ")
    app.add_url_rule("/<path:path>", "view", lambda path: f"view of {path}", methods=["GET", "POST"])
    return app


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    for directory in ("sub/deeper", "zoo", ".git", "page", "with space"):
        (root / directory).mkdir(parents=True)
    for name in ("b.txt", "a.txt", ".env", "page/index.html", "sub/deeper/x", ODD):
        (root / name).write_text(name)
    os.utime(root / "a.txt", (86_400, 86_400))
    (root / "out").symlink_to("../secret")
    (root / "outdir").symlink_to("../outside")
    (root / "dangling").symlink_to("nothing")
    (root / "inner").symlink_to("a.txt")
    os.mkfifo(root / "fifo")
    return root


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.tags: set[str] = set()
        self._at = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "a":
            self._at = dict(attrs)["href"]

    def handle_data(self, data):
        if self._at:
            self.links[data] = self._at
            self._at = None


NAMES = ["sub/", "with space/", "zoo/", "a.txt", ODD, "b.txt", "inner"]


def test_a_directory_is_listed_with_what_can_be_sent(serve, tree):
    server = serve(f"/files={tree}:listing")
    response = server.ask("/files/", **HTML)
    page = Links(response.data.decode())
    assert response.status == 200
    assert response.getheader("Content-Type") == "text/html; charset=utf-8"
    assert (response.getheader("Cache-Control"), response.getheader("Vary")) == ("no-cache", "Accept")
    assert list(page.links) == ["page/", *NAMES]
    assert page.tags == {"html", "meta", "title", "h1", "table", "tr", "th", "td", "a"}
    assert b"<td>5<td>Fri, 02 Jan 1970 00:00:00 GMT" in response.data
    for name, link in page.links.items():
        answer = server.ask(urljoin("/files/", link), **HTML)
        assert answer.status == 200, link
        if not name.endswith("/"):
            assert answer.data.decode() == ("a.txt" if name == "inner" else name)
    deeper = Links(server.ask("/files/sub/deeper/").data.decode())
    assert deeper.links == {"../": "../", "x": "./x"}


def test_programs_get_json(serve, tree):
    server = serve(f"/files={tree}:listing")
    response = server.ask("/files/", **JSON)
    assert response.getheader("Content-Type") == "application/json"
    entries = json.loads(response.data)
    assert [entry["name"] for entry in entries] == [name.rstrip("/") for name in ["page/", *NAMES]]
    assert entries[0]["type"] == "directory"
    assert "size" not in entries[0]
    a = next(entry for entry in entries if entry["name"] == "a.txt")
    assert a == {"name": "a.txt", "type": "file", "mtime": "Fri, 02 Jan 1970 00:00:00 GMT", "size": 5}
    for accept in ("text/html, application/json", "*/*", "application/json2"):
        assert server.ask("/files/", Accept=accept).getheader("Content-Type").startswith("text/html")


def test_conditions_and_head(serve, tree):
    server = serve(f"/files={tree}:listing")
    first = server.ask("/files/")
    head = server.ask("/files/", method="HEAD")
    assert (head.status, head.data) == (200, b"")
    for name in ("Content-Length", "ETag", "Content-Type"):
        assert head.getheader(name) == first.getheader(name)
    tag = first.getheader("ETag")
    known = server.ask("/files/", If_None_Match=tag)
    assert (known.status, known.data, known.getheader("ETag")) == (304, b"", tag)
    assert server.ask("/files/", If_None_Match=tag, **JSON).status == 200
    assert server.ask("/files/", If_Match='"other"').status == 412
    (tree / "b.txt").write_text("longer than before")
    changed = server.ask("/files/", If_None_Match=tag)
    assert changed.status == 200
    assert changed.getheader("ETag") != tag


def test_an_index_wins_where_it_is_wanted(serve, tree):
    for server in (serve(f"/f={tree}:listing:index"), serve(f"/f={tree}:listing", mount_index=True)):
        assert server.ask("/f/page/").data == b"page/index.html"
        assert b"Index of /f/sub/" in server.ask("/f/sub/").data
    assert b"Index of /f/page/" in serve(f"/f={tree}:listing").ask("/f/page/").data
    assert serve(f"/f={tree}:index").ask("/f/sub/").data == b"view of f/sub/"


def test_a_directory_without_its_slash_is_redirected(serve, tree):
    server = serve(f"/f={tree}:listing")
    for path, expected in [
        ("/f/sub", "/f/sub/"),
        ("/f/sub/deeper?a=b%0d&c", "/f/sub/deeper/?a=b%0d&c"),
        ("/f/with%20space", "/f/with%20space/"),
    ]:
        response = server.ask(path)
        assert response.status == 308
        assert urljoin(path, response.getheader("Location")) == expected
        assert server.ask(expected).status == 200
    for path in ("/f/a.txt/", "/f/missing", "/f/missing/", "/f"):
        assert server.ask(path).data == b"view of " + path[1:].encode()


def test_nothing_else_is_listed(serve, tree):
    server = serve(f"/f={tree}:listing", f"/g={tree}")
    for path in [".git/", "outdir/", "outdir", "../", "sub/../", "%2e%2e/", "..%2f", "sub//", "fifo/", "./"]:
        response = server.ask(f"/f/{path}")
        assert b"Index of" not in response.data, path
        assert response.status in (200, 308, 400, 404), path
        assert response.status != 308 or "outdir" not in path
        assert b"secret" not in response.data
    assert server.ask("/g/").data == b"view of g/"
    assert server.ask("/g/sub").data == b"view of g/sub"
    assert server.ask("/f/", method="POST").data == b"view of f/"


def test_at_the_root_no_other_host_is_reached(serve, tree):
    (tree / "evil.example").mkdir()
    server = serve(f"/={tree}:listing")
    assert b"Index of /<" in server.ask("/").data
    for path in ("//evil.example", "/%2fevil.example"):
        assert server.ask(path).getheader("Location") is None or server.ask(path).status == 308
        location = server.ask(path).getheader("Location")
        assert location is None or urljoin("http://here/", location).startswith("http://here/"), path


def test_a_long_directory_is_cut_and_says_so(serve, tree):
    many = tree / "many"
    many.mkdir()
    for number in range(10_050):
        os.close(os.open(many / f"f{number:05}", os.O_CREAT | os.O_WRONLY))
    server = serve(f"/f={tree}:listing")
    page = server.ask("/f/many/").data.decode()
    assert len(Links(page).links) == 10_001
    assert "more than these 10000 entries" in page
    assert len(json.loads(server.ask("/f/many/", **JSON).data)) == 10_000


def test_lists_are_compressed_with_static_files_and_travel_over_http_2(tree):
    for number in range(100):
        (tree / f"file-{number}").write_text("")
    server = Server(application(), mount=[f"/f={tree}:listing:max_age=60"], compression="static")
    url = f"http://{server._server.addresses[0]}"
    try:
        for options in ({"http1": False, "http2": True}, {}):
            with httpx.Client(base_url=url, **options) as client:
                response = client.get("/f/", headers={"Accept-Encoding": "gzip"})
                assert response.headers["Content-Encoding"] == "gzip"
                assert response.headers["Vary"] == "Accept, Accept-Encoding"
                assert len(Links(response.text).links) == 108
                tag = response.headers["ETag"]
                assert tag.startswith("W/")
                fields = {"Accept-Encoding": "gzip", "If-None-Match": tag}
                assert client.get("/f/", headers=fields).status_code == 304
                assert client.head("/f/").status_code == 200
                assert client.get("/f/zoo").headers["Location"] == "./zoo/"
                assert client.get("/f/a.txt").headers["Cache-Control"] == "public, max-age=60"
    finally:
        server.close()


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_any_application_may_have_them(serve, tree, interface):
    def hosted(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hosted"]

    async def asynchronous(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hosted"})

    server = serve(f"/f={tree}:listing", app=hosted if interface == "wsgi" else Host(asynchronous))
    assert b"Index of /f/" in server.ask("/f/").data
    assert server.ask("/f/missing").data == b"hosted"


# Options.


def test_each_mount_says_how_long_its_files_are_kept(serve, tree):
    (tree / "app.3f2a9c1b.js").write_text("")
    server = serve(
        f"/plain={tree}",
        f"/hour={tree}:max_age=1h",
        f"/never={tree}:max_age=0",
        f"/always={tree}:immutable:index",
        immutable=["*.{hash}.*"],
    )
    year = "public, max-age=31536000, immutable"
    for path, control in [
        ("/plain/a.txt", "no-cache"),
        ("/hour/a.txt", "public, max-age=3600"),
        ("/never/a.txt", "no-cache, max-age=0"),
        ("/always/a.txt", year),
        ("/always/page/", year),
        ("/hour/app.3f2a9c1b.js", year),
    ]:
        assert server.ask(path).getheader("Cache-Control") == control, path
    assert server.ask("/hour/a.txt").getheader("Expires") is not None
    tag = server.ask("/hour/a.txt").getheader("ETag")
    known = server.ask("/hour/a.txt", If_None_Match=tag)
    assert (known.status, known.getheader("Cache-Control")) == (304, "public, max-age=3600")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("listings", '\'?"listings" is no option: index, listing, immutable and max_age=TIME are'),
        ("", '"" is no option'),
        ("index=1", '"index=1" is no option'),
        ("max_age", '"max_age" is no option'),
        ("max_age=", "a time such as"),
        ("max_age=-1", 'not "-1"'),
        ("max_age=1y", "a time such as"),
        ("max_age=1h:immutable", "immutable files have no max_age"),
    ],
)
def test_an_option_that_is_none_is_refused(tree, options, why):
    with pytest.raises(ValueError, match=f"mount: .*{why}"):
        _core.Server(application(), ["127.0.0.1:0"], settings={"mount": [f"/f={tree}:{options}"]})


# Files that change.


@pytest.mark.parametrize("length", [10, 3000, 200_000])
def test_what_becomes_of_a_file_is_seen_at_once(serve, tree, length):
    file = tree / "file.txt"
    file.write_text("a" * length)
    server = serve(f"/f={tree}")
    first = server.ask("/f/file.txt")
    assert first.data == b"a" * length
    seen = {first.getheader("ETag")}

    def check(text):
        response = server.ask("/f/file.txt", If_None_Match=first.getheader("ETag"))
        assert (response.status, response.data.decode()) == (200, text)
        tag = response.getheader("ETag")
        assert tag not in seen
        seen.add(tag)

    # Written over, replaced by another, of the same length too.
    file.write_text("b" * length)
    check("b" * length)
    (tree / "new").write_text("c" * (length + 1))
    (tree / "new").replace(file)
    check("c" * (length + 1))
    file.write_text("short")
    check("short")
    file.unlink()
    assert server.ask("/f/file.txt").data == b"view of f/file.txt"
    file.mkdir()
    assert server.ask("/f/file.txt").data == b"view of f/file.txt"
    file.rmdir()
    file.symlink_to("../secret")
    assert server.ask("/f/file.txt").data == b"view of f/file.txt"
    file.unlink()
    file.write_text("again")
    check("again")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_no_longer_be_read_is_not_sent(serve, tree):
    server = serve(f"/f={tree}")
    assert server.ask("/f/a.txt").data == b"a.txt"
    (tree / "a.txt").chmod(0)
    assert server.ask("/f/a.txt").data == b"view of f/a.txt"


def test_a_file_cut_while_it_is_sent_ends_the_connection(serve, tree):
    size = 64 << 20
    with (tree / "large").open("wb") as file:
        file.truncate(size)
    server = serve(f"/f={tree}")
    host, _, port = server._server.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(b"GET /f/large HTTP/1.1\r\nHost: a\r\n\r\n")
        got = len(client.recv(1000))
        os.truncate(tree / "large", 1 << 20)
        while piece := client.recv(1 << 20):
            got += len(piece)
    assert got < size
    assert server.ask("/f/a.txt").data == b"a.txt"


def test_thousands_of_names_cost_no_descriptors(serve, tree):
    many = tree / "many"
    many.mkdir()
    server = serve(f"/f={tree}")
    for number in range(2000):
        (many / f"{number}.txt").write_text(str(number))
    server.ask("/f/a.txt")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2000):
        assert server.ask(f"/f/many/{number}.txt").data == str(number).encode()
    assert len(os.listdir("/proc/self/fd")) <= before + threading.active_count()
