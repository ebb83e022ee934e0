"""Limits of connections: of a process, and of one address."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from processes import PATIENCE, Command, eventually

from hipflask import Flask, _core

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def serve():
    servers = []
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "hello")

    def serve(**settings):
        server = _core.Server(app, ["127.0.0.1:0"], settings=settings)
        server.start()
        servers.append(server)
        return int(server.addresses[0].rpartition(":")[2])

    yield serve
    for server in servers:
        server.stop(0, PATIENCE)


def connect(port: int, first: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(first)
    return connection


def answered(connection: socket.socket) -> bool:
    """Ask; whether an answer comes, or the connection ends."""
    try:
        connection.sendall(REQUEST)
        return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except (ConnectionResetError, BrokenPipeError):
        return False


def test_an_address_has_so_many_connections_and_no_more(serve, caplog):
    port = serve(max_connections_per_address=2)
    with contextlib.ExitStack() as stack:
        first, second, third = [stack.enter_context(connect(port)) for _ in range(3)]
        assert answered(first)
        assert answered(second)
        assert not answered(third)
        eventually(lambda: "as many connections as it may" in caplog.text, "it is logged")
        # Those that it has go on, and one that ends makes room.
        assert answered(first)
        first.close()

        def another() -> bool:
            return answered(stack.enter_context(connect(port)))

        eventually(another, "there is room again")
        assert answered(second)


@pytest.mark.parametrize(
    ("family", "same", "other"),
    [
        ("TCP4", ["192.0.2.1", "192.0.2.1"], "192.0.2.2"),
        ("TCP6", ["2001:db8::1", "2001:db8::2:3:4"], "2001:db8:0:1::1"),
    ],
)
def test_clients_behind_a_proxy_are_counted_by_what_it_announces(serve, family, same, other):
    port = serve(max_connections_per_address=1, proxy_protocol="on", proxy_protocol_from=["127.0.0.1"])

    def announce(address: str) -> bytes:
        return f"PROXY {family} {address} {address} 1 2\r\n".encode()

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(port, announce(same[0])))
        assert answered(first)
        assert not answered(stack.enter_context(connect(port, announce(same[1]))))
        assert answered(stack.enter_context(connect(port, announce(other))))
        assert answered(first)
        first.close()
        eventually(
            lambda: answered(stack.enter_context(connect(port, announce(same[1])))), "there is room again"
        )


def test_trusted_proxies_have_as_many_connections_as_they_like(serve):
    port = serve(max_connections_per_address=1, trusted_proxies=["127.0.0.1"])
    with contextlib.ExitStack() as stack:
        for connection in [stack.enter_context(connect(port)) for _ in range(5)]:
            assert answered(connection)


def test_without_the_limit_an_address_has_as_many_as_there_are(serve):
    port = serve()
    with contextlib.ExitStack() as stack:
        for connection in [stack.enter_context(connect(port)) for _ in range(50)]:
            assert answered(connection)


APP = """
from hipflask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello"
"""


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["one process", "workers"])
def test_at_the_limit_clients_wait_until_a_connection_ends_and_probes_are_answered(tmp_path, workers):
    (tmp_path / "hello.py").write_text(APP)
    places = ("--port", "0", "--metrics-bind", "127.0.0.1:0")
    command = Command(tmp_path, *places, "--max-connections", "2", *workers)
    with contextlib.ExitStack() as stack:
        stack.callback(command.close)
        port, probes = command.port(), int(command.until(r"Metrics on http://\S*:(\d+)")[1])
        first, second = [stack.enter_context(connect(port)) for _ in range(2)]
        assert answered(first)
        assert answered(second)
        # The kernel lets it connect, and nobody reads what it asks.
        third = stack.enter_context(connect(port, REQUEST))
        got = threading.Event()
        found: list[bytes] = []

        def wait() -> None:
            found.append(third.recv(4096))
            got.set()

        waits = threading.Thread(target=wait)
        waits.start()
        stack.callback(waits.join, PATIENCE)
        for path in ("/healthz", "/readyz", "/metrics"):
            with connect(
                probes, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            ) as ask:
                assert ask.recv(4096).startswith(b"HTTP/1.1 200 ")
        # The two that are open are served as before.
        assert answered(first)
        assert answered(second)
        assert not got.is_set()
        first.close()
        assert got.wait(PATIENCE)
        assert found[0].startswith(b"HTTP/1.1 200 ")
