"""The vectors of HTTP/1.1 on the live server, with TLS and without: what is to be refused is refused.

Rust's tests run all of them, whole and in pieces, through parser and engine; here is the rest of the way.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from pathlib import Path

import pytest

from hipflask import Flask, _core

VECTORS = {path.stem: path.read_text() for path in Path(__file__).parent.glob("wire/vectors/*.http")}
ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


def test_every_vector_names_its_source():
    assert len(VECTORS) >= 150
    assert [name for name, text in VECTORS.items() if not re.match(r"# .*RFC \d+", text)] == []


def sent(text: str) -> bytes:
    """The bytes of a vector."""
    lines = text.partition("\n---")[0].split("\n")
    joined = "".join(line for line in lines if not line.startswith("# "))
    data = b""
    for plain, escape in re.findall(r"([^\\]+)|\\(x..|.)", joined):
        if plain:
            data += plain.encode()
        else:
            data += bytes.fromhex(escape[1:]) if escape[0] == "x" else ESCAPES[escape]
    return data


@pytest.fixture(scope="module", params=["plain", "tls"])
def address(request, tmp_path_factory):
    """Where a server listens, and whether with TLS."""
    app = Flask("vectors")
    app.add_url_rule(
        "/", "index", lambda **_: "ok\n", methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE"]
    )
    tls = None
    if request.param == "tls":
        folder = tmp_path_factory.mktemp("vectors")
        for name, text in zip(("crt", "key"), _core.self_signed_certificate(["localhost"]), strict=True):
            (folder / name).write_text(text)
        tls = _core.Tls([(str(folder / "crt"), str(folder / "key"))])
    server = _core.Server(app, ["127.0.0.1:0"], tls=tls)
    server.start()
    yield int(server.addresses[0].rpartition(":")[2]), tls is not None
    server.stop()


REFUSED = {name: text for name, text in VECTORS.items() if re.search(r"^refused ", text, re.M)}
# To the server it is what it looks like: HTTP/2.
del REFUSED["version-2-preface"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_over_every_transport(address, name):
    port, secure = address
    status = re.search(r"^refused \w+ (\d+)", REFUSED[name], re.M)[1]
    client = socket.create_connection(("127.0.0.1", port), 20)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = context.wrap_socket(client)
    with client:
        client.sendall(sent(REFUSED[name]))
        got = b""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while data := client.recv(65536):
                got += data
    # Nothing comes after it: what follows in the connection is not looked at.
    assert re.findall(rb"^HTTP/1\.1 (\d+) ", got, re.M)[-1:] == [status.encode()]
