"""Behind proxies: who is believed about whom, in every lane, and what becomes of the request."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import struct

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hipflask import Flask, Response, _core, redirect, request, session, url_for
from hipflask.asgi import Host
from hipflask.setting_types import SettingError
from hipflask.settings import Settings, parse
from hipflask.tls import adhoc_files
from hipflask.websocket import WebSocket
from hipflask.werkzeug.middleware.proxy_fix import ProxyFix

PATIENCE = 20
TRUSTED = {"trusted_proxies": ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]}
ALL = {
    **TRUSTED,
    "forwarded_headers": [f"x-forwarded-{name}" for name in ("for", "proto", "host", "port", "prefix")],
}
STANDARD = {**TRUSTED, "forwarded_headers": ["forwarded"]}


def about() -> dict:
    environ = request.environ
    names = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SCRIPT_NAME")
    return {
        "addr": request.remote_addr,
        "route": list(request.access_route),
        "scheme": request.scheme,
        "secure": request.is_secure,
        "host": request.host,
        "root": request.script_root,
        "url": request.url,
        "outside": url_for("index", _external=True),
        "sent": request.headers.get("X-Forwarded-For"),
        "header": request.headers["Host"],
        "environ": {name: environ.get(name) for name in names},
        "kept": environ.get("HTTP_X_FORWARDED_FOR"),
    }


def application() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"

    @app.route("/", methods=["GET", "POST"])
    def index():
        return about()

    @app.get("/quick")
    def quick():
        return [request.remote_addr, list(request.access_route)]

    @app.get("/later")
    async def later():
        return about()

    @app.get("/slash/")
    def slash():
        return ""

    @app.get("/away")
    def away():
        return redirect(url_for("slash"))

    @app.get("/keep")
    def keep():
        session["seen"] = True
        return ""

    @app.get("/stream")
    def stream():
        return Response(iter([str(request.remote_addr)]))

    @app.websocket("/socket")
    def talk(ws: WebSocket):
        ws.send(json.dumps([request.remote_addr, request.scheme]))

    return app


def full_lane() -> Flask:
    app = application()
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start_response: inner(environ, start_response)
    return app


@contextlib.contextmanager
def serving(app, bind="127.0.0.1:0", tls=None, redirects=(), **settings):
    server = _core.Server(app, [bind], settings=settings, tls=tls, redirects=list(redirects))
    server.start()
    try:
        yield [int(address.rpartition(":")[2]) for address in server.addresses if "unix" not in address]
    finally:
        assert server.stop(0, PATIENCE)


@pytest.fixture(params=["fast", "full", "later"])
def ask(request):
    """Ask an app about a request, in each lane."""
    path = "/later" if request.param == "later" else "/"
    make = full_lane if request.param == "full" else application

    def asking(settings, headers=(), path=path):
        with serving(make(), **settings) as (port,):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers=list(headers), timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return asking


FORWARDED = [
    # Settings, what the proxy sends, and what comes of it.
    (TRUSTED, {}, {"addr": "127.0.0.1", "route": ["127.0.0.1"], "scheme": "http", "secure": False}),
    (TRUSTED, {"X-Forwarded-For": "192.0.2.1"}, {"addr": "192.0.2.1", "route": ["192.0.2.1"]}),
    (TRUSTED, {"X-Forwarded-For": "evil, 192.0.2.1"}, {"addr": "192.0.2.1", "route": ["192.0.2.1"]}),
    (TRUSTED, {"X-Forwarded-For": "9.9.9.9, 192.0.2.1"}, {"addr": "192.0.2.1", "sent": "9.9.9.9, 192.0.2.1"}),
    (
        TRUSTED,
        {"X-Forwarded-For": "9.9.9.9, 192.0.2.1, 10.0.0.7"},
        {"addr": "192.0.2.1", "route": ["192.0.2.1", "10.0.0.7"]},
    ),
    (TRUSTED, {"X-Forwarded-For": "[2001:dead::1]:99"}, {"addr": "2001:dead::1"}),
    (TRUSTED, {"X-Forwarded-For": "::ffff:192.0.2.1"}, {"addr": "192.0.2.1"}),
    (TRUSTED, {"X-Forwarded-For": "192.0.2.1, unknown"}, {"addr": None, "route": ["unknown"]}),
    (TRUSTED, {"X-Forwarded-Proto": "https"}, {"addr": "127.0.0.1", "scheme": "https", "secure": True}),
    (TRUSTED, {"X-Forwarded-Proto": "http, HTTPS"}, {"scheme": "https"}),
    (
        TRUSTED,
        {"X-Forwarded-Host": "evil.test", "X-Forwarded-Prefix": "/evil"},
        {"root": "", "header": "HOST"},
    ),
    (TRUSTED, {"Forwarded": "for=192.0.2.1;proto=https"}, {"addr": "127.0.0.1", "scheme": "http"}),
    (TRUSTED, {"X-Real-IP": "192.0.2.1", "X-Forwarded-Ssl": "on"}, {"addr": "127.0.0.1", "scheme": "http"}),
    (
        ALL,
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/app/"},
        {
            "host": "shop.test",
            "header": "shop.test",
            "root": "/app",
            "outside": "https://shop.test/app/",
        },
    ),
    (ALL, {"X-Forwarded-Host": "shop.test", "X-Forwarded-Port": "8443"}, {"host": "shop.test:8443"}),
    (
        ALL,
        {"X-Forwarded-Host": "shop.test", "X-Forwarded-Port": "443", "X-Forwarded-Proto": "https"},
        {"host": "shop.test", "outside": "https://shop.test/"},
    ),
    (
        STANDARD,
        {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"},
        {"addr": "127.0.0.1", "scheme": "http"},
    ),
    (
        STANDARD,
        {
            "Forwarded": "for=9.9.9.9;proto=http,"
            ' for="[2001:dead::1]:80";proto=https;host=shop.test, for=10.0.0.1'
        },
        {
            "addr": "2001:dead::1",
            "route": ["2001:dead::1", "10.0.0.1"],
            "outside": "https://shop.test/",
        },
    ),
    (STANDARD, {"Forwarded": "for=_secret"}, {"addr": None, "route": ["_secret"]}),
    ({"trusted_proxies": ["*"]}, {"X-Forwarded-For": "9.9.9.9, 192.0.2.1"}, {"addr": "9.9.9.9"}),
    # From somebody who is not trusted, or where nobody is.
    (
        {**ALL, "trusted_proxies": ["10.0.0.0/8", "unix:"]},
        {
            "X-Forwarded-For": "192.0.2.1",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "a/b",
            "X-Forwarded-Prefix": "junk",
        },
        {
            "addr": "127.0.0.1",
            "route": ["127.0.0.1"],
            "scheme": "http",
            "header": "HOST",
            "root": "",
            "sent": "192.0.2.1",
            "kept": "192.0.2.1",
        },
    ),
    (
        {},
        {"X-Forwarded-For": "192.0.2.1, junk", "X-Forwarded-Proto": "https"},
        {"addr": "127.0.0.1", "route": ["192.0.2.1", "junk"], "scheme": "http", "kept": "192.0.2.1, junk"},
    ),
    ({"root_path": "/mounted/"}, {}, {"root": "/mounted", "addr": "127.0.0.1"}),
    ({**ALL, "root_path": "/mounted"}, {"X-Forwarded-Prefix": "/other"}, {"root": "/other"}),
    ({**ALL, "root_path": "/mounted"}, {}, {"root": "/mounted"}),
    ({"root_path": "/Grüße"}, {}, {"root": "/Grüße"}),
]


@pytest.mark.parametrize(("settings", "headers", "expected"), FORWARDED, ids=lambda part: str(part)[:60])
def test_what_is_believed(ask, settings, headers, expected):
    found = ask(settings, headers.items())
    for name, value in expected.items():
        if value == "HOST":
            assert found["header"].startswith("127.0.0.1:")
        else:
            assert found[name] == value, found
    environ = found["environ"]
    assert environ["REMOTE_ADDR"] == found["addr"]
    assert environ["wsgi.url_scheme"] == found["scheme"]
    assert environ["HTTP_HOST"] == found["header"]
    assert environ["SCRIPT_NAME"].encode("latin1").decode() == found["root"]
    assert found["url"].startswith(f"{found['scheme']}://{found['host']}{found['root']}/")
    if found["addr"] not in ("127.0.0.1",):
        assert environ["REMOTE_PORT"] in (None, "80", "99")


@pytest.mark.parametrize(
    ("settings", "headers", "reason"),
    [
        (TRUSTED, {"X-Forwarded-For": "192.0.2.1, junk"}, "names no address"),
        (TRUSTED, {"X-Forwarded-Proto": "gopher"}, "unknown scheme"),
        (ALL, {"X-Forwarded-Host": "a/b"}, "malformed host"),
        (ALL, {"X-Forwarded-Port": "99999"}, "malformed port"),
        (ALL, {"X-Forwarded-Prefix": "//evil.test"}, "malformed prefix"),
        (STANDARD, {"Forwarded": 'for="'}, "Forwarded field is malformed"),
        (TRUSTED, {"X-Forwarded-For": ",".join(["10.0.0.1"] * 40)}, "too many proxies"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_cannot_be_read_is_refused_and_logged(caplog, settings, headers, reason):
    caplog.set_level(logging.WARNING, "hipflask")
    with serving(application(), **settings) as (port,):
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers=headers, timeout=PATIENCE)
        assert answer.status_code == 400
        assert reason in answer.text
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("127.0.0.1:")
    assert f"{reason}" in line
    assert "(bad_forwarded)" in line


def test_names_with_underscores_never_shadow():
    with serving(application(), **TRUSTED) as (port,), raw(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 192.0.2.1\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
    with serving(application(), **TRUSTED, underscores="keep") as (port,):
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"X_Forwarded_For": "192.0.2.1"})
        assert answer.json()["addr"] == "127.0.0.1"


def test_requests_of_one_connection_are_told_apart(capfd):
    server = _core.Server(application(), ["127.0.0.1:0"], settings=TRUSTED, access_log=True)
    server.start()
    port = int(server.addresses[0].rpartition(":")[2])
    with raw(port) as sock:
        lines = (b"X-Forwarded-For: 192.0.2.1\r\n", b"", b"X-Forwarded-For: 192.0.2.2\r\n")
        sock.sendall(b"".join(b"GET /quick HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n" for line in lines))
        sock.sendall(b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    assert server.stop(0, PATIENCE)
    assert [
        json.loads(body)[0] for body in text.split("\r\n\r\n")[1:] for body in [body.splitlines()[0]]
    ] == [
        "192.0.2.1",
        "127.0.0.1",
        "192.0.2.2",
        "127.0.0.1",
    ]
    logged = [line.split()[1] for line in capfd.readouterr().err.splitlines() if "/quick" in line]
    assert logged == ["192.0.2.1", "127.0.0.1", "192.0.2.2", "127.0.0.1"]


def test_what_follows_a_request_is_not_blamed_on_its_client(caplog):
    caplog.set_level(logging.WARNING, "hipflask")
    with serving(application(), **TRUSTED) as (port,), raw(port) as sock:
        sock.sendall(b"GET /quick HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
        assert b"192.0.2.1" in sock.recv(65536)
        sock.sendall(b"junk\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("127.0.0.1:")


def test_a_unix_socket_is_trusted_by_name(tmp_path):
    path = str(tmp_path / "socket")
    for trusted, expected in (("unix:", "192.0.2.1"), ("127.0.0.1", None), ("*", "192.0.2.1")):
        with serving(application(), f"unix:{path}", trusted_proxies=[trusted]):
            with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
                answer = client.get("http://a.test/", headers={"X-Forwarded-For": "192.0.2.1"})
            assert answer.json()["addr"] == expected


def test_redirects_and_cookies_are_those_of_the_outside():
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.test", "X-Forwarded-Prefix": "/app"}
    app = application()
    app.config["SESSION_COOKIE_SECURE"] = True
    with serving(app, **ALL) as (port,), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/slash", headers=headers).headers["Location"] == "https://shop.test/app/slash/"
        assert client.get("/away", headers=headers).headers["Location"] == "/app/slash/"
        assert "Secure" in client.get("/keep", headers=headers).headers["Set-Cookie"]


def test_hosts_are_matched_as_the_client_names_them():
    app = Flask(__name__, host_matching=True, static_host="static.test")

    @app.get("/", host="shop.test")
    def shop():
        return "shop"

    with serving(app, **ALL) as (port,):
        url = f"http://127.0.0.1:{port}/"
        assert httpx.get(url, headers={"X-Forwarded-Host": "shop.test"}).text == "shop"
        assert httpx.get(url, headers={"X-Forwarded-Host": "other.test"}).status_code == 404


def test_hsts_goes_to_clients_that_speak_tls_with_the_proxy():
    with serving(application(), **TRUSTED, hsts="max-age=60") as (port,):
        url = f"http://127.0.0.1:{port}/"
        assert httpx.get(url, headers={"X-Forwarded-Proto": "https"}).headers["Strict-Transport-Security"]
        assert "Strict-Transport-Security" not in httpx.get(url).headers
    with serving(application(), hsts="max-age=60") as (port,):
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"X-Forwarded-Proto": "https"})
        assert "Strict-Transport-Security" not in answer.headers


def test_the_redirecting_listener_sends_to_the_host_outside():
    tls = _core.Tls([adhoc_files()])
    with serving(application(), tls=tls, redirects=["127.0.0.1:0"], **ALL) as (port, clear):
        headers = {"X-Forwarded-Host": "shop.test:80"}
        answer = httpx.get(f"http://127.0.0.1:{clear}/quick?a=b", headers=headers)
        assert answer.headers["Location"] == f"https://shop.test:{port}/quick?a=b"


def test_http2_requests_have_clients_of_their_own():
    tls = _core.Tls([adhoc_files()])
    with (
        serving(application(), tls=tls, **TRUSTED) as (port,),
        httpx.Client(http2=True, verify=False, base_url=f"https://127.0.0.1:{port}") as client,
    ):
        for address in ("192.0.2.1", "192.0.2.2"):
            answer = client.get("/", headers={"X-Forwarded-For": address})
            assert answer.http_version == "HTTP/2"
            assert answer.json()["addr"] == address
        assert client.get("/").json()["addr"] == "127.0.0.1"
        assert client.get("/", headers={"X-Forwarded-For": "junk"}).status_code == 400
        assert client.get("/", headers={"X-Forwarded-Proto": "http"}).json()["scheme"] == "http"


def test_a_websocket_knows_its_client_and_the_page_that_opens_it():
    headers = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.test"}
    with serving(application(), **ALL) as (port,):
        url = f"ws://127.0.0.1:{port}/socket"
        with connect(url, additional_headers=headers, origin="https://shop.test") as ws:
            assert json.loads(ws.recv(PATIENCE)) == ["192.0.2.1", "https"]
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers=headers, origin=f"http://127.0.0.1:{port}")
        assert refused.value.response.status_code == 403


def test_an_asgi_application_gets_the_client():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.test",
        "X-Forwarded-Prefix": "/app",
    }
    with serving(Host(app, lifespan="off"), **ALL) as (port,):
        httpx.get(f"http://127.0.0.1:{port}/x", headers=headers)
        httpx.get(f"http://127.0.0.1:{port}/x")
    first, second = seen
    assert first["client"] == ("192.0.2.1", 0)
    assert (first["scheme"], first["root_path"], first["path"]) == ("https", "/app", "/app/x")
    assert dict(first["headers"])[b"host"] == b"shop.test"
    assert second["client"][0] == "127.0.0.1"
    assert second["client"][1] > 0
    assert (second["scheme"], second["root_path"], second["path"]) == ("http", "", "/x")
    with serving(Host(app, lifespan="off"), root_path="/app") as (port,):
        httpx.get(f"http://127.0.0.1:{port}/x")
    assert (seen[2]["root_path"], seen[2]["path"]) == ("/app", "/app/x")


def test_proxy_fix_goes_on_as_it_was():
    app = application()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)
    headers = {
        "X-Forwarded-For": "9.9.9.9, 192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.test",
        "X-Forwarded-Prefix": "/app",
    }
    with serving(app) as (port,):
        found = httpx.get(f"http://127.0.0.1:{port}/", headers=headers).json()
    assert (found["addr"], found["outside"]) == ("192.0.2.1", "https://shop.test/app/")


def test_proxy_fix_on_top_counts_for_itself():
    app = application()
    app.wsgi_app = ProxyFix(app.wsgi_app)
    with serving(app, **TRUSTED) as (port,):
        url = f"http://127.0.0.1:{port}/"
        one = httpx.get(url, headers={"X-Forwarded-For": "9.9.9.9, 192.0.2.1"}).json()
        two = httpx.get(url, headers={"X-Forwarded-For": "192.0.2.1, 10.0.0.1"}).json()
    assert one["addr"] == "192.0.2.1"
    # It believes the last value of whoever sends it: two proxies are one too many for it.
    assert two["addr"] == "10.0.0.1"
    assert two["route"] == ["192.0.2.1", "10.0.0.1"]


# The PROXY protocol.

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
ENDS = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack(">HH", 56324, 443)
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n"


def v2(block=ENDS, kind=0x21, family=0x11):
    return SIGNATURE + bytes([kind, family]) + struct.pack(">H", len(block)) + block


TLS_ADDITION = struct.pack(">BHBI", 0x20, 5, 1, 0)
ON = {"proxy_protocol": "on", "proxy_protocol_from": ["127.0.0.1"]}


@contextlib.contextmanager
def raw(port, source="127.0.0.1"):
    with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as sock:
        yield sock


def read(sock) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def body(text: bytes) -> dict:
    head, _, rest = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), text
    return json.loads(rest)


HEADERS = {
    "v1": (V1, "192.0.2.1", "56324", "http"),
    "v1 over IPv6": (b"PROXY TCP6 2001:dead::1 ::1 1 2\r\n", "2001:dead::1", "1", "http"),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1", None, "http"),
    "v2": (v2(), "192.0.2.1", "56324", "http"),
    "v2 with additions": (v2(ENDS + b"\x01\0\2h2" + b"\4\0\0"), "192.0.2.1", "56324", "http"),
    "v2 from TLS": (v2(ENDS + TLS_ADDITION), "192.0.2.1", "56324", "https"),
    "v2 local": (v2(b"", 0x20, 0), "127.0.0.1", None, "http"),
    "v2 from a Unix socket": (v2(bytes(216), family=0x31), None, None, "http"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("pieces", ["whole", "bytes", "alone"])
def test_a_proxy_header_names_the_client(name, pieces):
    header, address, port_of_client, scheme = HEADERS[name]
    with serving(application(), **ON) as (port,), raw(port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parts = {"whole": [header + GET + b"\r\n"], "alone": [header, GET + b"\r\n"]}
        for part in parts.get(pieces, [bytes([byte]) for byte in header + GET + b"\r\n"]):
            sock.sendall(part)
        found = body(read(sock))
    assert found["addr"] == found["environ"]["REMOTE_ADDR"] == address
    assert found["scheme"] == scheme
    if port_of_client or address is None:
        assert found["environ"]["REMOTE_PORT"] == port_of_client


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (GET + b"\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n" + GET + b"\r\n", "bad_proxy_header"),
        (b"PROXY " + b"x" * 200, "bad_proxy_header"),
        (v2(ENDS[:11]), "bad_proxy_header"),
        (v2(bytes(4081)), "bad_proxy_header"),
        (v2(family=0x12), "bad_proxy_header"),
        (b"PROXY TCP4 192", "cut_proxy_header"),
    ],
    ids=range(7),
)
def test_a_bad_proxy_header_ends_the_connection(caplog, sent, kind):
    caplog.set_level(logging.WARNING, "hipflask")
    with serving(application(), **ON) as (port,), raw(port) as sock:
        sock.sendall(sent)
        # It may be gone already, with bytes of this left: then it is reset.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert read(sock) == b""
    assert [f"({kind})" in record.getMessage() for record in caplog.records] == [True]


def test_only_those_who_may_send_a_proxy_header(caplog):
    caplog.set_level(logging.WARNING, "hipflask")
    with serving(application(), **ON) as (port,), raw(port, "127.0.0.2") as sock:
        sock.sendall(V1 + GET + b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert read(sock) == b""
    assert ["(untrusted_peer)" in record.getMessage() for record in caplog.records] == [True]
    with serving(application(), **{**ON, "proxy_protocol": "mixed"}) as (port,):
        with raw(port, "127.0.0.2") as sock:
            sock.sendall(GET + b"\r\n")
            assert body(read(sock))["addr"] == "127.0.0.2"
        with raw(port, "127.0.0.2") as sock:
            sock.sendall(V1 + GET + b"\r\n")
            assert read(sock).startswith(b"HTTP/1.1 400 ")
        with raw(port) as sock:
            sock.sendall(V1 + GET + b"\r\n")
            assert body(read(sock))["addr"] == "192.0.2.1"


def test_a_proxy_header_may_name_a_proxy_that_is_trusted():
    settings = {**ON, "trusted_proxies": ["10.0.0.0/8"]}
    named = b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n\r\n"
    with serving(application(), **settings) as (port,):
        for source, address, scheme in (
            (b"10.0.0.1", "192.0.2.9", "https"),
            (b"192.0.2.1", "192.0.2.1", "http"),
        ):
            with raw(port) as sock:
                sock.sendall(b"PROXY TCP4 %s 192.0.2.2 1 2\r\n" % source + GET + named)
                found = body(read(sock))
                assert (found["addr"], found["scheme"]) == (address, scheme)


def test_looks_whether_the_port_is_open_are_not_logged(caplog):
    with serving(application(), **ON) as (port,):
        with raw(port):
            pass
        with raw(port) as sock:
            sock.sendall(V1 + GET + b"\r\n")
            body(read(sock))
    assert not caplog.records


def test_a_slow_proxy_header_is_cut(caplog):
    caplog.set_level(logging.WARNING, "hipflask")
    with (
        serving(application(), **ON, handshake_timeout=0.2) as (port,),
        raw(port) as slow,
        raw(port) as silent,
    ):
        slow.sendall(V1[:10])
        with contextlib.suppress(ConnectionResetError):
            assert read(slow) == b""
        assert read(silent) == b""
    assert ["(slow_proxy_header)" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("header", [V1, v2()], ids=["v1", "v2"])
@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_a_proxy_header_comes_before_tls(header, alpn):
    tls = _core.Tls([adhoc_files()])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    with serving(application(), tls=tls, **ON) as (port,), raw(port) as sock:
        sock.sendall(header)
        with context.wrap_socket(sock, server_hostname="a.test") as secure:
            assert secure.selected_alpn_protocol() == alpn
            if alpn == "h2":
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0\0\0\0\0")
                # :method GET, :scheme https, :path /, :authority a.test
                block = b"\x82\x87\x84\x41\x06a.test"
                secure.sendall(struct.pack(">I", len(block))[1:] + b"\1\5\0\0\0\1" + block)
                text = b""
                while b'"route"' not in text:
                    text += secure.recv(65536)
                found = json.loads(text[text.index(b"{") : text.rindex(b"}") + 1])
            else:
                secure.sendall(GET + b"\r\n")
                found = body(read(secure))
    assert (found["addr"], found["scheme"]) == ("192.0.2.1", "https")


def test_http2_without_tls_comes_after_a_proxy_header():
    with serving(application(), **ON) as (port,), raw(port) as sock:
        sock.sendall(V1 + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0\0\0\0\0")
        block = b"\x82\x86\x84\x41\x06a.test"
        sock.sendall(struct.pack(">I", len(block))[1:] + b"\1\5\0\0\0\1" + block)
        text = b""
        while b'"route"' not in text:
            text += sock.recv(65536)
    assert json.loads(text[text.index(b"{") : text.rindex(b"}") + 1])["addr"] == "192.0.2.1"


# Settings.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("trusted_proxies", "10.0.0.0/8, ::1 unix:", ["10.0.0.0/8", "::1", "unix:"]),
        ("trusted_proxies", ["10.0.0.0/8 ::1", "*"], ["10.0.0.0/8", "::1", "*"]),
        ("trusted_proxies", "-", []),
        ("trusted_proxies", [], []),
        ("forwarded_headers", "Forwarded", ["forwarded"]),
        ("forwarded_headers", ["X-Forwarded-For"], ["x-forwarded-for"]),
        ("root_path", "/a/b/", "/a/b"),
        ("root_path", "/", "/"),
    ],
)
def test_settings_are_read(name, value, expected):
    assert parse(name, value) == expected
    _core.Server(Flask("x"), ["127.0.0.1:0"], settings={name: expected}).stop(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("trusted_proxies", value)
            for value in (
                "",
                "x",
                "10.0.0.1/8",
                "10.0.0.0/33",
                "10.0.0.0/255.0.0.0",
                "fe80::1%eth0",
                "1.2.3.4:5",
            )
        ),
        ("forwarded_headers", "x-real-ip"),
        ("proxy_protocol", "v1"),
        *(("root_path", value) for value in ("", "a", "//a", "/a?b", "/a\nb", "/a\\b")),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(SettingError):
        parse(name, value)
    given = [value] if name in ("trusted_proxies", "forwarded_headers") else value or "x"
    with pytest.raises((ValueError, TypeError)):
        _core.Server(Flask("x"), ["127.0.0.1:0"], settings={name: given})


@pytest.mark.parametrize(
    "text",
    [
        'proxy_protocol = "on"',
        'trusted_proxies = "::1"\nforwarded_headers = ["forwarded", "x-forwarded-for"]',
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path, text):
    file = tmp_path / "hipflask.toml"
    file.write_text(text)
    with pytest.raises(SettingError):
        Settings(path=str(file))
