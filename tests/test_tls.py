"""TLS: certificates, clients with certificates, redirects, and the same behaviour as without."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest

from hipflask import Flask, Response, _core, jsonify, redirect, request, session, url_for
from hipflask.setting_types import SettingError
from hipflask.settings import Settings
from hipflask.tls import ClientCertificate, adhoc_files, of_context, of_settings
from hipflask.werkzeug.serving import make_server


def application():
    app = Flask(__name__)
    app.secret_key = "secret"

    @app.get("/")
    def index():
        return "hello"

    @app.get("/about")
    def about():
        keys = ("HTTPS", "SSL_PROTOCOL", "SSL_CLIENT_VERIFY", "wsgi.url_scheme")
        found = {key: request.environ.get(key) for key in keys}
        return found | {"secure": request.is_secure, "scheme": request.scheme, "url": request.url}

    @app.post("/form")
    def form():
        return jsonify(fields=request.form.to_dict(flat=False), files=list(request.files))

    @app.post("/json")
    def json():
        return request.get_json()

    @app.put("/length")
    def length():
        return str(sum(len(piece) for piece in iter(lambda: request.stream.read(65536), b"")))

    @app.get("/stream")
    def stream():
        return Response(f"{number}\n" for number in range(1000))

    @app.get("/session")
    def keep():
        session["seen"] = session.get("seen", 0) + 1
        return str(session["seen"])

    @app.get("/away")
    def away():
        return redirect(url_for("index", _external=True))

    @app.get("/error")
    def error():
        raise ValueError("expected by this test")

    @app.get("/later")
    async def later():
        return "from the loop"

    @app.get("/who")
    def who():
        certificate = request.client_cert
        return "nobody" if certificate is None else str(certificate.common_name)

    return app


@contextmanager
def serving(app=None, *, redirects=(), **options):
    tls = _core.Tls(options.pop("pairs", [adhoc_files()]), **options)
    server = _core.Server(app or application(), ["127.0.0.1:0"], tls=tls, redirects=list(redirects))
    server.start()
    try:
        yield [address.rpartition(":")[2] for address in server.addresses]
    finally:
        server.stop(5)


def trusting(*files, certificate=None):
    context = ssl.create_default_context()
    for file in files or (adhoc_files()[0],):
        context.load_verify_locations(file)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


@pytest.fixture(scope="module")
def client():
    with (
        serving() as ports,
        httpx.Client(base_url=f"https://localhost:{ports[0]}", verify=trusting()) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def plain():
    server = _core.Server(application(), ["127.0.0.1:0"])
    server.start()
    with httpx.Client(base_url=f"http://{server.addresses[0]}") as client:
        yield client
    server.stop(5)


SAME = [
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("OPTIONS", "/", {}),
    ("POST", "/", {}),
    ("GET", "/missing", {}),
    ("GET", "/stream", {}),
    ("GET", "/error", {}),
    ("GET", "/later", {}),
    ("GET", "/who", {}),
    ("POST", "/json", {"json": {"a": [1, 2, {"b": None}]}}),
    ("POST", "/json", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/form", {"data": {"a": "1", "b": ["2", "3"]}}),
    ("POST", "/form", {"data": {"a": "1"}, "files": {"f": ("name", b"x" * 300_000)}}),
    ("PUT", "/length", {"content": b"x" * 2_000_000}),
    ("PUT", "/length", {"content": b"x" * 70_000}),
]


@pytest.mark.parametrize(("method", "path", "more"), SAME, ids=lambda part: str(part)[:24])
def test_answers_are_those_of_a_connection_without_tls(client, plain, method, path, more):
    ours, theirs = client.request(method, path, **more), plain.request(method, path, **more)
    assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
    both = [
        {k: v for k, v in answer.headers.items() if k not in ("date", "set-cookie")}
        for answer in (ours, theirs)
    ]
    assert both[0] == both[1]


def test_streamed_bodies_with_and_without_length(client):
    def pieces():
        for _ in range(50):
            yield b"y" * 10_000

    assert client.put("/length", content=pieces()).text == "500000"


def test_the_request_knows_that_it_is_secure(client):
    answer = client.get("/about").json()
    assert answer["secure"] is True
    assert answer["scheme"] == answer["wsgi.url_scheme"] == "https"
    assert answer["url"].startswith("https://localhost:")
    assert answer["HTTPS"] == "on"
    assert answer["SSL_PROTOCOL"] == "TLSv1.3"
    assert answer["SSL_CLIENT_VERIFY"] == "NONE"
    assert client.get("/away").headers["Location"].startswith("https://localhost")


def test_sessions_live_in_cookies(client):
    assert [client.get("/session").text for _ in range(3)] == ["1", "2", "3"]


def test_clients_with_certificates(tmp_path):
    ada = tmp_path / "ada.pem", tmp_path / "ada.key"
    for path, text in zip(ada, openssl_pair(tmp_path, "ada"), strict=True):
        path.write_text(text)
    # Whoever vouches for itself is its own authority.
    options = {"client_certs": "optional", "client_ca": str(ada[0])}
    with serving(**options) as (port, *_):
        known = trusting(certificate=tuple(map(str, ada)))
        assert httpx.get(f"https://localhost:{port}/who", verify=known).text == "ada"
        assert httpx.get(f"https://localhost:{port}/who", verify=trusting()).text == "nobody"
        stranger = trusting(certificate=adhoc_files())
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://localhost:{port}/who", verify=stranger)
    with serving(**options | {"client_certs": "required"}) as (port, *_):
        assert httpx.get(f"https://localhost:{port}/who", verify=known).text == "ada"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://localhost:{port}/who", verify=trusting())


def openssl_pair(place: Path, name: str) -> tuple[str, str]:
    """A certificate of a client, made by somebody else's program."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/O=Engines/CN={name}",
    ]
    command += ["-addext", f"subjectAltName=DNS:{name}.test,email:{name}@test,URI:spiffe://test/{name}"]
    command += [
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        f"{place}/k",
        "-out",
        f"{place}/c",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return (place / "c").read_text(), (place / "k").read_text()


def test_a_certificate_is_read(tmp_path):
    pem, _ = openssl_pair(tmp_path, "ada")
    certificate = ClientCertificate.from_pem(pem)
    assert certificate.subject == certificate.issuer == (("O", "Engines"), ("CN", "ada"))
    assert certificate.common_name == "ada"
    assert certificate.dns_names == ("ada.test",)
    assert certificate.emails == ("ada@test",)
    assert certificate.uris == ("spiffe://test/ada",)
    assert certificate.not_before < datetime.now(timezone.utc) < certificate.not_after
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=pem, text=True, capture_output=True, check=True
    )
    assert told.stdout.strip() == f"serial={certificate.serial_number}"
    with pytest.raises(ValueError, match="no certificate"):
        ClientCertificate.from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_another_server_may_pass_the_certificate_on(tmp_path):
    pem, _ = openssl_pair(tmp_path, "ada")
    client = application().test_client()
    assert client.get("/who", environ_overrides={"SSL_CLIENT_CERT": pem}).text == "ada"
    assert client.get("/who", headers={"SSL-Client-Cert": "x"}).text == "nobody"
    assert client.get("/who").text == "nobody"


def test_http_on_the_port_of_tls_is_told_so(client):
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 BAD REQUEST\r\n")
    assert answer.endswith(b"this port speaks HTTPS: use https:// in the address")


def test_a_listener_that_only_redirects():
    with serving(redirects=["127.0.0.1:0"]) as (port, other):
        answer = httpx.get(f"http://localhost:{other}/a?b=c")
        assert (answer.status_code, answer.headers["Location"]) == (301, f"https://localhost:{port}/a?b=c")
        assert httpx.post(f"http://localhost:{other}/form", data={"a": "b"}).status_code == 308
        followed = httpx.get(f"http://localhost:{other}/", follow_redirects=True, verify=trusting())
        assert followed.text == "hello"


def test_names_choose_certificates(tmp_path):
    pairs = []
    for name in ("one.test", "two.test"):
        cert, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        for path, text in zip((cert, key), _core.self_signed_certificate([name]), strict=True):
            path.write_text(text)
        pairs.append((str(cert), str(key)))
    with serving(pairs=pairs) as (port, *_):
        for name, (cert, _) in zip(("one.test", "two.test"), pairs, strict=True):
            context = trusting(cert)
            sock = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
            with context.wrap_socket(sock, server_hostname=name) as secure:
                assert secure.getpeercert()["subjectAltName"] == (("DNS", name),)


def test_certificates_are_renewed_without_a_pause(tmp_path):
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"

    def renew() -> None:
        for path, text in zip((cert, key), _core.self_signed_certificate(["localhost"]), strict=True):
            path.write_text(text)

    renew()
    tls = _core.Tls([(str(cert), str(key))])
    server = _core.Server(application(), ["127.0.0.1:0"], tls=tls)
    server.start()
    url = f"https://localhost:{server.addresses[0].rpartition(':')[2]}/"
    with httpx.Client(verify=trusting(str(cert))) as before:
        assert before.get(url).text == "hello"
        renew()
        tls.reload()
        assert httpx.get(url, verify=trusting(str(cert))).text == "hello"
        assert before.get(url).text == "hello"
    server.stop(5)


def test_no_request_is_lost_while_certificates_change(tmp_path):
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    pairs = [_core.self_signed_certificate(["localhost"]) for _ in range(2)]

    def put(pair):
        for path, text in zip((cert, key), pair, strict=True):
            path.write_text(text)

    put(pairs[0])
    tls = _core.Tls([(str(cert), str(key))])
    server = _core.Server(application(), ["127.0.0.1:0"], tls=tls)
    server.start()
    url = f"https://localhost:{server.addresses[0].rpartition(':')[2]}/"
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    enough = threading.Event()
    answers: list[int] = []
    seen: set[bytes] = set()

    def ask(stays: bool, http2: bool) -> None:
        """Over one connection, or a new one each time."""
        while not enough.is_set():
            with httpx.Client(verify=context, http2=http2) as client:
                for _ in range(50 if stays else 1):
                    response = client.get(url)
                    answers.append(response.status_code)
                stream = response.extensions["network_stream"]
                seen.add(stream.get_extra_info("ssl_object").getpeercert(True))

    with ThreadPoolExecutor() as pool:
        askers = [pool.submit(ask, stays, http2) for stays in (True, False) for http2 in (True, False)]
        try:
            for turn in range(1, 30):
                before = len(answers)
                put(pairs[turn % 2])
                tls.reload()
                while len(answers) < before + 10 and not any(asker.done() for asker in askers):
                    time.sleep(0.01)
        finally:
            enough.set()
        for asker in askers:
            asker.result(30)
    assert set(answers) == {200}
    assert len(seen) == 2
    assert server.stop(5)


def settings(**given):
    return Settings({name: (value, "test") for name, value in given.items()})


def test_settings_that_fit():
    cert, key = adhoc_files()
    assert of_settings(settings()) is None
    assert of_settings(settings(cert=["adhoc"])) is not None
    assert of_settings(settings(cert=[cert], key=[key], min_tls="1.3")) is not None
    asking = settings(cert=[cert], key=[key], client_certs="required", client_ca=cert)
    assert of_settings(asking) is not None


REFUSED = [
    ({"key": ["k"]}, "key is set, but there is no cert"),
    ({"redirect_bind": [":80"]}, "redirect_bind is set, but there is no cert"),
    ({"cert": ["adhoc"], "key": ["k"]}, "there is no key to give"),
    ({"cert": ["a", "b"], "key": ["k"]}, "there are 2 certificates in cert and 1 keys in key"),
    ({"cert": ["adhoc"], "redirect_bind": ["127.0.0.1:5000"]}, "127.0.0.1:5000 is where TLS is spoken"),
    ({"cert": ["/no/such.pem"], "key": ["k"]}, "/no/such.pem cannot be read: No such file"),
    ({"cert": ["adhoc"], "client_certs": "required"}, "client_ca does not say who vouches"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda part: str(part)[:30])
def test_settings_that_do_not_fit(given, message):
    with pytest.raises(SettingError, match=message):
        of_settings(settings(**given))


def test_contexts():
    assert of_context(None) is None
    assert of_context("adhoc") is not None
    assert of_context(adhoc_files()) is not None
    with pytest.raises(TypeError, match=r"pass ssl_context=\('cert\.pem', 'key\.pem'\)"):
        of_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_the_development_server_speaks_tls():
    import threading

    server = make_server("127.0.0.1", 0, application(), ssl_context="adhoc")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert httpx.get(f"https://localhost:{server.port}/", verify=trusting()).text == "hello"
    finally:
        server.shutdown()
        thread.join(10)


@contextmanager
def running(tmp_path, *args):
    (tmp_path / "shop.py").write_text(
        "from hipflask import Flask\napp = Flask('shop')\n@app.get('/')\ndef index():\n    return 'hello'\n"
    )
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("HIPFLASK_", "FLASK_"))}
    command = [sys.executable, "-m", "hipflask", "--app", "shop", "run", "--port", "0", *args]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        seen = ""
        while "Running on" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        yield seen
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--hsts", "max-age=60")], ids=str)
def test_the_command_line(tmp_path, more):
    with running(tmp_path, "--cert", "adhoc", *more) as said:
        url = said.partition("Running on ")[2].split()[0]
        assert url.startswith("https://127.0.0.1:")
        # The command's own certificate: whoever develops looks away, or trusts it in the browser.
        answer = httpx.get(url, verify=False)
        assert answer.text == "hello"
        assert answer.headers.get("Strict-Transport-Security") == (more[1] if "--hsts" in more else None)


def test_the_command_line_with_a_redirect(tmp_path):
    cert, key = adhoc_files()
    with running(tmp_path, "--cert", cert, "--key", key, "--redirect-bind", "localhost:0") as said:
        assert said.count("https://") == 1


def test_the_command_line_says_what_is_wrong(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    command = [
        sys.executable,
        "-m",
        "hipflask",
        "run",
        "--port",
        "0",
        "--cert",
        "cert.pem",
        "--key",
        "cert.pem",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("cert.pem has no certificate in PEM format.")


def test_curl_agrees(client):
    command = ["curl", "-sS", "--cacert", adhoc_files()[0], "--http1.1", "--tlsv1.2", "--tls-max", "1.2"]
    done = subprocess.run([*command, str(client.base_url)], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("hello", "")


def test_openssl_resumes_sessions(client, tmp_path):
    place = tmp_path / "session"
    address = f"127.0.0.1:{client.base_url.port}"
    said = []
    for option in ("-sess_out", "-sess_in"):
        command = ["openssl", "s_client", "-connect", address, "-tls1_2", option, str(place)]
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=30)
        said.append(done.stdout)
    assert "New, TLSv1.2" in said[0]
    assert "Reused, TLSv1.2" in said[1]


def test_many_handshakes_at_once_do_not_hold_up_others(client):
    half = []
    for _ in range(100):
        sock = socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10)
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        half.append(sock)
    begin = time.monotonic()
    assert client.get("/").text == "hello"
    assert time.monotonic() - begin < 9
    for sock in half:
        sock.close()
