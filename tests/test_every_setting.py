"""Each row of the table of settings changes what the server does: `EFFECTS` names how that is seen.

A function here tries it, with the setting and without. `Elsewhere` names the test that does, and a word of
its file by which the setting is given. A setting without an entry fails.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import http.client
import socket
import ssl
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import APP, PATIENCE, Command, eventually, get

from hipflask import Flask, _core, request
from hipflask.setting_table import BY_NAME
from hipflask.setting_types import SettingError
from hipflask.settings import Settings
from hipflask.tls import adhoc_files, of_settings

HERE = Path(__file__).parent
#: Nothing ends for being slow, but for what a row says.
PATIENT = dict.fromkeys(
    ("header_timeout", "body_timeout", "idle_timeout", "write_timeout", "handshake_timeout"), 600.0
)


class Elsewhere(NamedTuple):
    """A test in another file."""

    file: str
    test: str
    #: A part of that file.
    given_as: str


def application() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index():
        return "hello"

    @app.post("/read")
    def read():
        return str(len(request.get_data()))

    @app.post("/unread")
    def unread():
        return "unread"

    @app.get("/large")
    def large():
        return bytes(50_000_000)

    @app.get("/sleep")
    def sleep():
        time.sleep(1)
        return "slept"

    @app.get("/from")
    def sender():
        return f"{request.remote_addr} {request.script_root}"

    return app


@contextlib.contextmanager
def serving(app=None, **settings):
    """A server; gives its port, and the server."""
    more = settings.pop("more", {})
    server = _core.Server(app or application(), ["127.0.0.1:0"], settings=PATIENT | settings, **more)
    server.start()
    try:
        yield int(server.addresses[0].rpartition(":")[2]), server
    finally:
        server.stop(0, PATIENCE)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def exchange(port: int, sent: bytes) -> bytes:
    """What a client gets until an answer's head has come, or the connection ends."""
    with connect(port) as client:
        client.sendall(sent)
        got = b""
        while b"\r\n\r\n" not in got and (data := client.recv(65536)):
            got += data
        return got


def head(more: str = "", line: str = "GET / HTTP/1.1") -> bytes:
    return f"{line}\r\nHost: x\r\n{more}\r\n".encode()


def post(path: str, length: int, body: bytes = b"") -> bytes:
    return head(f"Content-Length: {length}\r\n", f"POST {path} HTTP/1.1") + body


CHUNKED = "Transfer-Encoding: chunked\r\n"
#: Settings, what is sent, and what is in the answer to it with them, and is not without.
ANSWERS = {
    "max_request_line": ({"max_request_line": 64}, head(line=f"GET /{'a' * 99} HTTP/1.1"), b" 414 "),
    "max_method": ({"max_method": 3}, head(line="OPTIONS / HTTP/1.1"), b" 501 "),
    "max_field": ({"max_field": 16}, head("X-Long: 123456789012345\r\n"), b" 431 "),
    "max_fields": ({"max_fields": 1}, head("A: b\r\n"), b" 431 "),
    "max_head": ({"max_head": 64}, head(f"A: {'b' * 99}\r\n"), b" 431 "),
    "max_empty_lines": ({"max_empty_lines": 0}, b"\r\n" + head(), b" 400 "),
    "max_body": ({"max_body": 4}, post("/read", 5, b"12345"), b" 413 "),
    "max_chunk_extensions": (
        {"max_chunk_extensions": 0},
        head(CHUNKED, "POST /read HTTP/1.1") + b"1;a=b\r\nx\r\n0\r\n\r\n",
        b" 400 ",
    ),
    "max_trailers": (
        {"max_trailers": 0},
        head(CHUNKED, "POST /read HTTP/1.1") + b"1\r\nx\r\n0\r\nA: b\r\n\r\n",
        b" 431 ",
    ),
    "max_trailer_fields": (
        {"max_trailer_fields": 1},
        head(CHUNKED, "POST /read HTTP/1.1") + b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n",
        b" 431 ",
    ),
    "utf8_target": ({"utf8_target": False}, head(line="GET /\u00e9 HTTP/1.1"), b" 400 "),
    "underscores": ({"underscores": "refuse"}, head("Some_Name: 1\r\n"), b" 400 "),
    "server_header": ({"server_header": "other"}, head(), b"Server: other\r\n"),
    "http2": ({"http2": False}, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), b"HTTP/1.1 "),
    "drain_body": ({"drain_body": 0}, post("/nowhere", 10), b"Connection: close"),
    "spool_bodies": (
        {"spool_bodies": 1, "threads": 1, "buffer_body": 4},
        post("/read", 100, bytes(100)),
        b" 503 ",
    ),
    "request_id": ({"request_id": "generate"}, head(), b"X-Request-ID: "),
    "server_timing": ({"server_timing": True}, head(), b"Server-Timing: "),
    "root_path": ({"root_path": "/app"}, head(line="GET /from HTTP/1.1"), b"/app"),
}


def answers(name: str) -> None:
    """See that the answer is another one with the setting."""
    settings, sent, part = ANSWERS[name]
    assert name in settings
    others = {key: value for key, value in settings.items() if key != name}
    with serving(**settings) as (port, _):
        assert part in exchange(port, sent)
    with serving(**others) as (port, _):
        got = exchange(port, sent)
        assert got
        assert part not in got


def header_timeout() -> None:
    with serving(header_timeout=0.1) as (port, _):
        assert b" 408 " in exchange(port, b"GET / HT")


def body_timeout() -> None:
    with serving(body_timeout=0.1) as (port, _):
        assert b" 408 " in exchange(port, post("/read", 10, b"1"))


def idle_timeout() -> None:
    with serving(idle_timeout=0.1) as (port, _), connect(port) as client:
        client.sendall(head())
        # To the end of the connection.
        assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"hello")


def body_rate() -> None:
    def trickle(rate: int) -> bytes:
        with serving(body_timeout=2.0, body_rate=rate) as (port, _), connect(port) as client:
            client.sendall(post("/read", 30))
            with contextlib.suppress(ConnectionError):
                for _ in range(30):
                    client.sendall(b"x")
                    time.sleep(0.1)
            return client.recv(4096)

    assert b" 408 " in trickle(1_000_000)
    assert b" 200 " in trickle(1)


def write_timeout(caplog) -> None:
    with serving(write_timeout=0.2) as (port, _), connect(port) as client:
        client.sendall(head(line="GET /large HTTP/1.1"))
        eventually(lambda: "takes the response too slowly" in caplog.text, "it is cut off")


def write_rate(caplog) -> None:
    with serving(write_timeout=1.0, write_rate=1_000_000_000) as (port, _), connect(port) as client:
        client.sendall(head(line="GET /large HTTP/1.1"))

        def is_cut() -> bool:
            # It never pauses for long.
            with contextlib.suppress(ConnectionError):
                client.recv(1000)
            return "takes the response too slowly" in caplog.text

        eventually(is_cut, "it is cut off")


def linger_timeout() -> None:
    def is_read(**settings) -> bool:
        with serving(max_body=10, **settings) as (port, _), connect(port) as client:
            client.sendall(post("/read", 100_000_000))
            assert b" 413 " in client.recv(4096)
            try:
                for _ in range(20):
                    client.sendall(b"x" * 100)
                    time.sleep(0.02)
            except ConnectionError:
                return False
            return True

    assert not is_read(linger_timeout=0.0)
    assert is_read(linger_timeout=600.0)


def last_call() -> None:
    def is_heard(seconds: float) -> bool:
        with serving(last_call=seconds) as (port, server), connect(port) as client:
            client.sendall(head())
            assert b" 200 " in client.recv(4096)
            stops = threading.Thread(target=server.stop, args=(60.0,))
            stops.start()

            def is_closed() -> bool:
                try:
                    connect(port).close()
                except OSError:
                    return True
                return False

            eventually(is_closed, "nobody can connect any more")
            try:
                client.sendall(head())
                return b" 200 " in client.recv(4096)
            except ConnectionError:
                return False
            finally:
                server.stop(0.0)
                stops.join()

    assert is_heard(600.0)
    assert not is_heard(0.0)


def begins_without_its_body(name: str) -> None:
    """A view that does not read is called while its body arrives, since that is not collected first."""
    with serving(**{name: 0}) as (port, _):
        assert b" 200 " in exchange(port, post("/unread", 10))
    with serving() as (port, _), connect(port) as client:
        client.sendall(post("/unread", 10))
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE)
        client.sendall(bytes(10))
        assert b" 200 " in client.recv(4096)


def slow_request(caplog) -> None:
    with serving(slow_request=0.1) as (port, _):
        assert b" 200 " in exchange(port, head(line="GET /sleep HTTP/1.1"))
        eventually(lambda: "has run for" in caplog.text, "it is logged")
    caplog.clear()
    with serving(slow_request=0.0) as (port, _):
        assert b" 200 " in exchange(port, head(line="GET /sleep HTTP/1.1"))
    assert "has run for" not in caplog.text


def forwarded_headers() -> None:
    sent = head("Forwarded: for=192.0.2.9\r\n", "GET /from HTTP/1.1")
    trusted = {"trusted_proxies": ["127.0.0.1"]}
    with serving(**trusted, forwarded_headers=["forwarded"]) as (port, _):
        assert get(port, "/from").startswith("127.0.0.1")
        with connect(port) as client:
            client.sendall(sent)
            assert b"192.0.2.9" in client.recv(4096)
    with serving(**trusted) as (port, _), connect(port) as client:
        client.sendall(sent)
        assert b"192.0.2.9" not in client.recv(4096)


def precompressed(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("long " * 1000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"long " * 1000))
    sent = head("Accept-Encoding: gzip\r\n", "GET /static/a.txt HTTP/1.1")
    for value in (True, False):
        app = Flask(__name__, static_folder=str(tmp_path), static_url_path="/static")
        with serving(app, precompressed=value) as (port, _):
            assert (b"Content-Encoding: gzip" in exchange(port, sent)) is value


def settings_of(**given) -> Settings:
    return Settings({name: (value, "test") for name, value in given.items()})


def backlog() -> None:
    from hipflask.listening import open_all

    for most in (7, 9):
        (listener,) = open_all(["127.0.0.1:0"], settings_of(backlog=most).values)
        try:
            # The field that counts lost packets of a connection is the length of the queue of a listener.
            found = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            assert struct.unpack_from("I", found, 28) == (most,)
        finally:
            listener.close()


def min_tls() -> None:
    cert, key = adhoc_files()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for least in ("1.2", "1.3"):
        tls = of_settings(settings_of(cert=[cert], key=[key], min_tls=least))
        with serving(more={"tls": tls}) as (port, _), connect(port) as client:
            if least == "1.2":
                old.wrap_socket(client).close()
            else:
                with pytest.raises(ssl.SSLError):
                    old.wrap_socket(client)


def redirect_port() -> None:
    cert, key = adhoc_files()
    tls = of_settings(settings_of(cert=[cert], key=[key]))
    more = {"tls": tls, "redirects": ["127.0.0.1:0"], "redirect_port": 4443}
    with serving(more=more) as (_, server):
        port = int(server.addresses[1].rpartition(":")[2])
        assert b"Location: https://x:4443/\r\n" in exchange(port, head())
    row = settings_of(cert=["adhoc"], redirect_bind=[":80"], redirect_port=4443)
    assert row["redirect_port"] == 4443


def client_crl(tmp_path) -> None:
    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "conf").write_text(
        "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ncertificate=ca.pem\ncrlnumber=number\n"
        "private_key=ca.key\ndefault_md=sha256\ndefault_days=2\ndefault_crl_days=2\npolicy=p\n"
        "x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nbasicConstraints=CA:FALSE\n"
        "extendedKeyUsage=clientAuth\n"
    )
    (tmp_path / "index").write_text("")
    (tmp_path / "serial").write_text("01\n")
    (tmp_path / "number").write_text("01\n")
    ca = ("-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *ca, "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("good", "bad"):
        more = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", *more)
        openssl("ca", "-batch", "-config", "conf", "-in", f"{name}.csr", "-out", f"{name}.pem")
    openssl("ca", "-config", "conf", "-revoke", "bad.pem")
    openssl("ca", "-config", "conf", "-gencrl", "-out", "crl.pem")
    cert, key = adhoc_files()
    given = {"cert": [cert], "key": [key], "client_certs": "required", "client_ca": str(tmp_path / "ca.pem")}

    def is_let_in(name: str, **more: str) -> bool:
        with serving(more={"tls": of_settings(settings_of(**given, **more))}) as (port, _):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
            client = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
            try:
                client.request("GET", "/")
                return client.getresponse().status == 200
            except OSError:
                return False
            finally:
                client.close()

    assert is_let_in("good")
    assert is_let_in("bad")
    crl = str(tmp_path / "crl.pem")
    assert is_let_in("good", client_crl=crl)
    assert not is_let_in("bad", client_crl=crl)
    (tmp_path / "old.pem").write_text("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n")
    with pytest.raises(SettingError, match=r"old\.pem cannot be used"):
        of_settings(settings_of(**given, client_crl=str(tmp_path / "old.pem")))


def boot_timeout(command) -> None:
    ended = command("--workers", "1", "--boot-timeout", "1s", app="import time\ntime.sleep(600)\n")
    ended.until("took longer than boot_timeout to load")
    assert ended.wait() == 1


def max_requests_jitter(command) -> None:
    kept = command("--workers", "1", "--max-requests", "1", "--max-requests-jitter", "1000000000", app=APP)
    port = kept.port()
    assert len({get(port) for _ in range(20)}) == 1
    replaced = command("--workers", "1", "--max-requests", "1", app=APP)
    port = replaced.port()
    assert get(port)
    replaced.until("it has served its requests")


EFFECTS = {
    **dict.fromkeys(ANSWERS, answers),
    **{
        function.__name__: function
        for function in (
            header_timeout,
            body_timeout,
            body_rate,
            idle_timeout,
            write_timeout,
            write_rate,
            linger_timeout,
            last_call,
            slow_request,
            forwarded_headers,
            precompressed,
            backlog,
            min_tls,
            redirect_port,
            client_crl,
            boot_timeout,
            max_requests_jitter,
        )
    },
    "buffer_body": begins_without_its_body,
    "buffer_bodies": begins_without_its_body,
    "host": Elsewhere("test_serving.py", "test_a_unix_socket_is_served_and_removed", "--host"),
    "port": Elsewhere("test_supervisor.py", "test_sighup_reads_settings_again", "--port"),
    "bind": Elsewhere("test_listening.py", "test_several_places_at_once", "--bind"),
    "socket_mode": Elsewhere("test_listening.py", "test_permissions_of_a_unix_socket", "socket_mode"),
    "socket_owner": Elsewhere("test_listening.py", "test_owner_of_a_unix_socket", "socket_owner"),
    "cert": Elsewhere("test_tls.py", "test_the_command_line", "--cert"),
    "key": Elsewhere("test_tls.py", "test_certificates_are_renewed_without_a_pause", "key"),
    "client_certs": Elsewhere("test_tls.py", "test_clients_with_certificates", "client_certs"),
    "client_ca": Elsewhere("test_tls.py", "test_clients_with_certificates", "client_ca"),
    "redirect_bind": Elsewhere("test_tls.py", "test_the_command_line_with_a_redirect", "--redirect-bind"),
    "hsts": Elsewhere("test_tls.py", "test_the_command_line", "--hsts"),
    "handshake_timeout": Elsewhere(
        "test_proxies.py",
        "test_a_slow_proxy_header_is_cut",
        "handshake_timeout",
    ),
    "http2_streams": Elsewhere(
        "test_http2_websocket.py", "test_open_connections_count_among_the_streams", "http2_streams"
    ),
    "early_hints": Elsewhere("test_early_hints.py", "test_the_setting_says_who_gets_them", "early_hints"),
    "workers": Elsewhere("test_supervisor.py", "test_sighup_replaces_workers_one_by_one", "--workers"),
    "preload": Elsewhere(
        "test_supervisor.py",
        "test_preloaded_code_is_loaded_once_and_renewed_by_a_new_program",
        "--preload",
    ),
    "grace": Elsewhere("test_supervisor.py", "test_requests_are_cut_off_after_their_grace", "--grace"),
    "worker_timeout": Elsewhere(
        "test_supervisor.py", "test_a_worker_whose_python_stands_still_is_replaced", "--worker-timeout"
    ),
    "max_requests": Elsewhere("test_supervisor.py", "test_workers_are_replaced_when_due", "--max-requests"),
    "max_worker_age": Elsewhere(
        "test_supervisor.py", "test_workers_are_replaced_when_due", "--max-worker-age"
    ),
    "max_worker_memory": Elsewhere(
        "test_supervisor.py", "test_workers_are_replaced_when_due", "--max-worker-memory"
    ),
    "pid_file": Elsewhere("test_listening.py", "test_the_pid_file", "--pid-file"),
    "user": Elsewhere("test_listening.py", "test_the_application_runs_as_somebody_else", "--user"),
    "group": Elsewhere("test_listening.py", "test_the_group_may_be_another_than_the_users", "--group"),
    "interface": Elsewhere("test_hosting.py", "test_run_serves_applications_of_others", "--interface"),
    "lifespan": Elsewhere(
        "test_asgi.py", "test_an_application_without_lifespan_is_served_unless_it_must_have_one", "lifespan"
    ),
    "mount": Elsewhere("test_static.py", "test_a_mounted_directory_is_sent_without_the_application", "mount"),
    "mount_index": Elsewhere(
        "test_static.py", "test_a_mounted_directory_is_sent_without_the_application", "mount_index"
    ),
    "immutable": Elsewhere("test_static.py", "test_names_with_a_hash_are_kept_for_a_year", "immutable"),
    "sendfile": Elsewhere("test_static.py", "test_a_response_names_the_file_that_is_its_body", "sendfile"),
    "compression": Elsewhere("test_compression.py", "test_what_may_be_compressed_is", "compression"),
    "compression_min": Elsewhere("test_compression.py", "test_the_least_size_can_be_set", "compression_min"),
    "compression_cache": Elsewhere(
        "test_compression.py",
        "test_nothing_is_kept_without_room_and_a_large_file_is_whole",
        "compression_cache",
    ),
    "threads": Elsewhere(
        "test_limits.py", "test_a_request_that_waits_too_long_for_a_thread_is_never_run", "threads"
    ),
    "stuck_threads": Elsewhere(
        "test_probes.py", "test_a_process_with_too_many_stuck_threads_is_not_ready", "--stuck-threads"
    ),
    "queue": Elsewhere("test_probes.py", "test_a_process_whose_queue_stays_full_is_not_ready", "--queue"),
    "max_connections": Elsewhere(
        "test_connections.py",
        "test_at_the_limit_clients_wait_until_a_connection_ends_and_probes_are_answered",
        "--max-connections",
    ),
    "max_connections_per_address": Elsewhere(
        "test_connections.py",
        "test_an_address_has_so_many_connections_and_no_more",
        "max_connections_per_address",
    ),
    "request_timeout": Elsewhere(
        "test_limits.py", "test_a_request_that_waits_too_long_for_a_thread_is_never_run", "request_timeout"
    ),
    "metrics_bind": Elsewhere(
        "test_metrics.py", "test_the_metrics_address_has_nothing_else", "--metrics-bind"
    ),
    "metrics_path": Elsewhere(
        "test_metrics.py", "test_metrics_are_told_at_a_path_of_the_application", "--metrics-path"
    ),
    "control": Elsewhere("test_metrics.py", "test_the_control_socket_is_for_its_owner_alone", "--control"),
    "health_timeout": Elsewhere(
        "test_probes.py",
        "test_a_server_is_not_alive_while_none_of_its_engines_turns",
        "--health-timeout",
    ),
    "otel": Elsewhere("test_otel.py", "test_the_setting_needs_no_code", "--otel"),
    "trusted_proxies": Elsewhere(
        "test_connections.py",
        "test_trusted_proxies_have_as_many_connections_as_they_like",
        "trusted_proxies",
    ),
    "proxy_protocol": Elsewhere(
        "test_connections.py",
        "test_clients_behind_a_proxy_are_counted_by_what_it_announces",
        "proxy_protocol",
    ),
    "proxy_protocol_from": Elsewhere(
        "test_connections.py",
        "test_clients_behind_a_proxy_are_counted_by_what_it_announces",
        "proxy_protocol_from",
    ),
    "access_log": Elsewhere(
        "test_access_log.py", "test_short_in_debug_mode_and_combined_otherwise", "--access-log"
    ),
    "access_log_to": Elsewhere("test_access_log.py", "test_every_answer_has_its_line", "--access-log-to"),
    "access_log_format": Elsewhere(
        "test_access_log.py", "test_every_answer_has_its_line", "--access-log-format"
    ),
    "access_log_sample": Elsewhere("test_access_log.py", "test_errors_always_are", "--access-log-sample"),
    "request_id_header": Elsewhere(
        "test_access_log.py", "test_a_name_is_taken_from_who_is_trusted", "--request-id-header"
    ),
}


def test_every_setting_has_an_effect_that_is_tested():
    assert set(EFFECTS) == set(BY_NAME)


@pytest.mark.parametrize("name", [name for name, how in EFFECTS.items() if isinstance(how, Elsewhere)])
def test_the_test_that_is_named_is_there_and_gives_the_setting(name):
    how = EFFECTS[name]
    text = (HERE / how.file).read_text()
    functions = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    assert how.test in functions
    assert how.given_as in text
    assert how.given_as.removeprefix("--").replace("-", "_") == name


@pytest.fixture
def command(tmp_path):
    commands = []

    def start(*args: str, app: str) -> Command:
        (tmp_path / "hello.py").write_text(app)
        commands.append(Command(tmp_path, "--port", "0", *args))
        return commands[-1]

    yield start
    for each in commands:
        each.close()


@pytest.mark.parametrize("name", [name for name, how in EFFECTS.items() if not isinstance(how, Elsewhere)])
def test_the_setting_has_its_effect(name, request):
    how = EFFECTS[name]
    wanted = how.__code__.co_varnames[: how.__code__.co_argcount]
    how(*(name if word == "name" else request.getfixturevalue(word) for word in wanted))
