"""Flaws that servers of this kind have been seen to have: each test is one, and ours must not have it."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest
from doors import DOORS, Client

from hipflask import Flask, Response, abort, request, url_for
from hipflask._core import Server

LANES = ["live", "live-full-lane"]


@pytest.fixture(params=LANES)
def live(request: pytest.FixtureRequest, app: Flask):
    client = Client(app, DOORS[request.param])
    yield client
    client.close()


@pytest.fixture
def wire(app, live):
    """Sends bytes to the server and returns all that comes back until it closes."""

    def send(data: bytes, *, half_close: bool = False) -> bytes:
        if live._door is None:
            live._door = live._kind(app)
        address = live._door.connection.host, live._door.connection.port
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while piece := connection.recv(65536):
                    received += piece
            except ConnectionResetError:
                pass
            return received

    return send


@pytest.fixture
def seen(app):
    """The paths and bodies that views got."""
    got: list[tuple[str, bytes]] = []

    @app.route("/", methods=["GET", "POST"])
    @app.route("/<path:rest>", methods=["GET", "POST"])
    def any_view(rest=""):
        got.append((request.path, request.get_data()))
        return "ok"

    return got


SECOND = b"GET /smuggled HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /first HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n" + body


AMBIGUOUS = {
    "length-of-letters": post(b"Content-Length: abc\r\n"),
    "length-with-plus": post(b"Content-Length: +5\r\n", b"hello"),
    "length-twice-in-one": post(b"Content-Length: 5, 5\r\n", b"hello"),
    "two-lengths": post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
    "length-and-chunked": post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "unknown-coding": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "two-codings": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "negative-length": post(b"Content-Length: -5\r\n", b"hello"),
    "hex-length": post(b"Content-Length: 0x5\r\n", b"hello"),
    "huge-length": post(b"Content-Length: 99999999999999999999999\r\n", b"hello"),
    "no-host": b"GET /first HTTP/1.1\r\n\r\n",
    "two-hosts": b"GET /first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "bad-host": b"GET /first HTTP/1.1\r\nHost: a b\r\n\r\n",
    "folded-field": b"GET /first HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "space-before-colon": b"GET /first HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
    "bare-cr": b"GET /first HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_head_is_refused_and_smuggles_nothing(live, wire, seen, name):
    answer = wire(AMBIGUOUS[name] + SECOND)
    assert answer[:13] in {b"HTTP/1.1 400 ", b"HTTP/1.1 413 ", b"HTTP/1.1 501 "}
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not seen
    assert live.get("/alive").text == "ok"


CHUNKS = {
    "size-with-sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "size-with-space": b"3 \r\nabc\r\n0\r\n\r\n",
    "no-line-end-after-chunk": b"3\r\nabc0\r\n\r\n",
    "size-of-letters": b"xyz\r\nabc\r\n0\r\n\r\n",
    "size-beyond-64-bits": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "bare-line-feed": b"3\nabc\n0\n\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_malformed_chunk_ends_the_exchange_and_not_the_process(live, wire, seen, name):
    answer = wire(post(b"Transfer-Encoding: chunked\r\n", CHUNKS[name]) + SECOND)
    assert b"HTTP/1.1 200" not in answer
    assert not any(path == "/smuggled" for path, _ in seen)
    assert not any(path == "/first" and body for path, body in seen)
    assert live.get("/alive").text == "ok"


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"Content-Length: 10\r\n", b"half"),
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nhalf\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"9\r\nhalf"),
    ],
)
def test_a_body_cut_short_never_looks_complete(live, wire, seen, fields, body):
    answer = wire(post(fields, body), half_close=True)
    assert b"HTTP/1.1 200" not in answer
    assert not seen
    assert live.get("/alive").text == "ok"


def test_the_input_stream_gives_every_line_and_loses_no_byte(app, live):
    @app.route("/lines", methods=["POST"])
    def lines():
        return {"lines": [line.decode() for line in request.environ["wsgi.input"]]}

    @app.route("/reads", methods=["POST"])
    def reads():
        stream = request.environ["wsgi.input"]
        return {"reads": [stream.read(2).decode(), stream.readline().decode(), stream.read().decode()]}

    assert live.post("/lines", data="a\nbb\nc").json == {"lines": ["a\n", "bb\n", "c"]}
    assert live.post("/reads", data="abc\nd\ne").json == {"reads": ["ab", "c\n", "d\ne"]}


def test_forwarded_fields_are_believed_from_nobody_by_default(app, live):
    @app.route("/")
    def index():
        return {
            "peer": request.remote_addr,
            "host": request.host,
            "scheme": request.scheme,
            "root": request.root_path,
        }

    told = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-Prefix": "/x",
    }
    assert live.get("/", headers=told).json == {
        "peer": "127.0.0.1",
        "host": "localhost",
        "scheme": "http",
        "root": "",
    }


def test_a_field_with_underscores_does_not_shadow_the_real_one(app, live, wire):
    app.add_url_rule("/", "index", lambda: request.environ.get("HTTP_X_FORWARDED_FOR", "none"))
    answer = wire(
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 6.6.6.6\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert answer.endswith(b"1.1.1.1") or answer.startswith(b"HTTP/1.1 400")


def test_running_out_of_descriptors_closes_no_port(app, live, seen):
    assert live.get("/").text == "ok"
    address = live._door.connection.host, live._door.connection.port
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[socket.socket] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, hard), hard))
    try:
        with contextlib.suppress(OSError):
            for _ in range(400):
                held.append(socket.create_connection(address, timeout=5))
        assert len(held) < 400
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for connection in held:
            connection.close()
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    connection.close()


def test_repeated_and_non_ascii_values_all_arrive(app, live, wire):
    @app.route("/<word>", methods=["POST"])
    def view(word):
        return {
            "word": word,
            "query": request.args.getlist("a"),
            "form": request.form.getlist("f"),
            "x": request.headers.getlist("X-A"),
            "cookies": request.cookies.getlist("c"),
            "files": [file.filename for file in request.files.getlist("u")],
        }

    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="u"; filename="%s"\r\n\r\nx\r\n' % name
        for name in (b"1", b"2")
    )
    body += b"".join(b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n%d\r\n' % n for n in (1, 2))
    body += b"--b--\r\n"
    answer = wire(
        (
            "POST /%C3%A9%20%2B?a=1&a=%C3%BC&a=+ HTTP/1.1\r\nHost: h\r\nX-A: é\r\nX-A: b\r\n"
            "Cookie: c=1; c=2\r\nConnection: close\r\n"
        ).encode("latin1")
        + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    import json

    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert found["word"] == "é +"
    assert found["query"] == ["1", "ü", " "]
    assert found["form"] == ["1", "2"]
    assert found["files"] == ["1", "2"]
    assert found["cookies"] == ["1", "2"]
    assert found["x"] in (["é", "b"], ["é,b"])


def test_head_options_and_wrong_methods_are_no_404(app, live):
    app.add_url_rule("/", "index", lambda: "index")
    assert live.open("/", "HEAD").status_code == 200
    assert live.open("/", "HEAD").data == b""
    options = live.open("/", "OPTIONS")
    assert (options.status_code, sorted(options.header("Allow").split(", "))) == (
        200,
        ["GET", "HEAD", "OPTIONS"],
    )
    wrong = live.open("/", "DELETE")
    assert (wrong.status_code, sorted(wrong.header("Allow").split(", "))) == (405, ["GET", "HEAD", "OPTIONS"])


def test_nothing_returned_is_no_200_and_no_text_of_an_error_leaks(app, live):
    app.add_url_rule("/none", "none", lambda: None)
    app.add_url_rule("/raises", "raises", lambda: {}["the secret key"])
    for path in ("/none", "/raises"):
        answer = live.get(path)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "none" not in answer.text


def test_no_argument_of_a_view_comes_from_the_query(app, live):
    app.add_url_rule("/<name>", "view", lambda name, role="user": f"{name} {role}")
    assert live.get("/me?role=root&name=other").text == "me user"


def test_the_users_own_health_page_is_not_hidden(app, live):
    for path in ("/health", "/metrics"):
        app.add_url_rule(path, path[1:], lambda path=path: f"mine {path}")
    assert [live.get(path).text for path in ("/health", "/metrics")] == ["mine /health", "mine /metrics"]
    for path in ("/healthz", "/docs", "/openapi.json"):
        assert live.get(path).status_code == 404


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:0", "[::1]:0", "0.0.0.0:0"])
def test_names_and_ipv6_can_be_bound(app, bind):
    if "::" in bind and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        server = Server(app, [bind])
    except OSError:
        if "::" in bind:
            pytest.skip("no IPv6 here")
        raise
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=20)
    connection.request("GET", "/nothing")
    assert connection.getresponse().status == 404
    connection.close()
    server.stop()


def test_stopping_finishes_the_requests_that_run(app):
    begun, go = threading.Event(), threading.Event()

    @app.route("/")
    def slow():
        begun.set()
        go.wait(20)
        return "finished"

    server = Server(app, ["127.0.0.1:0"])
    server.start()
    host, _, port = server.addresses[0].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", "/")
    assert begun.wait(20)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    go.set()
    assert connection.getresponse().read() == b"finished"
    stopping.join(20)
    assert not stopping.is_alive()
    connection.close()


def test_sigterm_ends_the_process(tmp_path):
    (tmp_path / "app.py").write_text(
        "from hipflask import Flask\napp = Flask('a')\napp.add_url_rule('/', 'i', lambda: 'ok')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hipflask", "--app", "app", "run", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        for line in process.stdout:
            if "http://" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_static_files_have_ranges_and_no_way_out_of_their_folder(tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "static" / "link.txt").symlink_to(tmp_path / "secret.txt")
    with open(tmp_path / "static" / "big.bin", "wb") as file:
        file.truncate(64 * 1024 * 1024)
    app = Flask("files", root_path=str(tmp_path))
    client = Client(app, DOORS["live"])
    part = client.get("/static/big.bin", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.data) == (206, b"\0" * 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert client.open("/static/big.bin", "HEAD").header("Content-Length") == str(64 * 1024 * 1024)
    with_body = http.client.HTTPConnection(
        client._door.connection.host, client._door.connection.port, timeout=20
    )
    with_body.request("GET", "/static/big.bin")
    response = with_body.getresponse()
    while response.read(65536):
        pass
    with_body.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    for path in (
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        "link.txt",
        "x/../../secret.txt",
        "%00",
        "/etc/passwd",
    ):
        answer = client.get(f"/static/{path}")
        # Two slashes are merged by a redirect.
        assert answer.status_code in {400, 404, 308}, path
        assert b"secret" not in answer.data
    client.close()


def test_a_slow_view_stalls_nobody(app, live):
    gate = threading.Event()
    app.add_url_rule("/slow", "slow", lambda: str(gate.wait(20)))
    app.add_url_rule("/fast", "fast", lambda: "fast")
    assert live.get("/fast").text == "fast"
    address = live._door.connection.host, live._door.connection.port
    slow = [http.client.HTTPConnection(*address, timeout=20) for _ in range(4)]
    for connection in slow:
        connection.request("GET", "/slow")
    for _ in range(20):
        assert live.get("/fast").text == "fast"
    gate.set()
    assert [connection.getresponse().read() for connection in slow] == [b"True"] * 4
    for connection in slow:
        connection.close()


def test_a_generator_is_sent_piece_by_piece(app, live):
    gate = threading.Event()

    def pieces():
        yield "first"
        assert gate.wait(20)
        yield "second"

    app.add_url_rule("/", "index", lambda: Response(pieces()))
    app.add_url_rule("/ready", "ready", lambda: "ready")
    live.get("/ready")
    connection = http.client.HTTPConnection(
        live._door.connection.host, live._door.connection.port, timeout=20
    )
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    gate.set()
    assert response.read() == b"second"
    connection.close()


def test_close_is_obeyed_for_pipelined_requests(live, wire, seen):
    answer = wire(b"GET /first HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + SECOND)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert [path for path, _ in seen] == ["/first"]


def test_the_absolute_form_counts_more_than_the_host(app, live, wire):
    app.add_url_rule("/", "index", lambda: request.host)
    answer = wire(b"GET http://real.org/ HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nreal.org")


def test_trailers_do_not_become_fields(app, live, wire):
    app.add_url_rule(
        "/",
        "index",
        lambda: request.get_data() + request.headers.get("X-Late", "-").encode(),
        methods=["POST"],
    )
    answer = wire(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"1\r\na\r\n0\r\nX-Late: x\r\n\r\n"
    )
    assert answer.endswith(b"\r\n\r\na-")


def test_external_urls_name_the_host_that_was_asked(app, live):
    app.add_url_rule("/", "index", lambda: url_for("index", _external=True))
    assert live.open("/", host="shop.example:81").text == "http://shop.example:81/"


def test_hooks_run_from_the_app_inwards_and_strict_paths_differ(app, live):
    from hipflask import Blueprint

    order: list[str] = []
    blueprint = Blueprint("bp", __name__, url_prefix="/bp")
    app.before_request(lambda: order.append("app"))
    blueprint.before_request(lambda: order.append("bp"))
    blueprint.add_url_rule("/x", "x", lambda: "x")
    app.register_blueprint(blueprint)
    app.add_url_rule("/n/<int:n>", "n", lambda n: str(n))
    app.add_url_rule("/two/<a>-<b>", "two", lambda a, b: a + b)
    app.add_url_rule("/gen", "gen", lambda: Response(str(n) for n in range(3)))
    app.add_url_rule("/abort", "abort", lambda: abort(418))

    async def awaited():
        return "awaited"

    app.add_url_rule("/async", "async", awaited)
    assert live.get("/bp/x").text == "x"
    assert order == ["app", "bp"]
    assert live.get("/bp/x/").status_code == 404
    assert live.get("/n/-5").status_code == 404
    assert live.get("/n/99999999999999999999").text == "99999999999999999999"
    assert live.get("/two/a-b").text == "ab"
    assert live.get("/gen").text == "012"
    assert live.get("/abort").status_code == 418
    assert live.get("/async").text == "awaited"


def test_an_upload_is_not_held_in_memory_several_times(app, live):
    size = 48 * 1024 * 1024
    app.add_url_rule("/", "index", lambda: str(len(request.files["f"].read())), methods=["POST"])
    app.add_url_rule("/ready", "ready", lambda: "ready")
    live.get("/ready")
    connection = http.client.HTTPConnection(
        live._door.connection.host, live._door.connection.port, timeout=60
    )
    begin = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    end = b"\r\n--b--\r\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.putrequest("POST", "/")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", str(len(begin) + size + len(end)))
    connection.endheaders()
    connection.send(begin)
    for _ in range(size // 65536):
        connection.send(b"x" * 65536)
    connection.send(end)
    assert connection.getresponse().read() == str(size).encode()
    connection.close()
    # Once for what the view reads, and a little.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.6 * size / 1024


def test_half_sent_bodies_hold_no_thread_that_others_need(live, seen):
    assert live.get("/").text == "ok"
    address = live._door.connection.host, live._door.connection.port
    held = [socket.create_connection(address, timeout=20) for _ in range(64)]
    for connection in held:
        connection.sendall(b"POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nx")
    for _ in range(10):
        assert live.get("/").text == "ok"
    for connection in held:
        connection.close()
