"""TLS beside nginx: handshakes, full and resumed, and bodies of 10 KiB and 1 MiB.

`python benches/tls.py [--seconds S] [--rounds N] [--write]` prints what it costs; `--write` puts it
into RESULTS.md too. Each with a certificate for ECDSA P-256 and one for RSA with 2048 bits. The server
has core 0 and the client core 1; the servers take turns. Handshakes are made by `openssl s_time`, one
after the other, each with one short request; bodies are asked for by h2load over HTTP/1.1 on 8
connections. Needs openssl, h2load (Debian: nghttp2-client) and nginx, which is left out if it is not
there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from http2 import cpu, free_port, running
from report import cell, measure_part, table

ON_SERVER_CORE, ON_CLIENT_CORE = ["taskset", "-c", "0"], ["taskset", "-c", "1"]
SIZES = {"tiny": 6, "10 KiB": 10 << 10, "1 MiB": 1 << 20}
KEYS = {
    "ECDSA P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "RSA 2048": ["rsa:2048"],
}
HANDSHAKES = {
    "full, TLS 1.3": ["-new", "-tls1_3"],
    "resumed, TLS 1.3": ["-reuse", "-tls1_3"],
    "full, TLS 1.2": ["-new", "-tls1_2"],
    "resumed, TLS 1.2": ["-reuse", "-tls1_2"],
}
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on; ssl_session_cache shared:s:10m;
    location /files/ {{ alias {folder}/files/; }}
  }}
}}
"""


def certificate(kind: str, folder: Path) -> tuple[Path, Path]:
    """A certificate of this kind of key, and the key."""
    name = kind.replace(" ", "-")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    what = ["-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-newkey", *KEYS[kind]]
    subprocess.run(
        ["openssl", "req", *what, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    return cert, key


def commands(kind: str, folder: Path) -> dict[str, tuple[list[str], int]]:
    """Commands and ports of the servers."""
    cert, key = certificate(kind, folder)
    port = free_port()
    ours = [sys.executable, "-m", "hipflask", "--app", "files_app", "run", "--port", str(port)]
    found = {"Hipflask": ([*ours, "--cert", str(cert), "--key", str(key)], port)}
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx:
        port = free_port()
        config = folder / f"nginx-{port}.conf"
        config.write_text(NGINX.format(folder=folder, port=port, cert=cert, key=key))
        found["nginx"] = ([nginx, "-c", str(config)], port)
    return found


def handshakes(port: int, options: list[str], seconds: float) -> int:
    """Connect again and again; how often."""
    time_ = str(max(1, round(seconds)))
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-time", time_, "-www", "/files/tiny"]
    said = subprocess.run([*ON_CLIENT_CORE, *command, *options], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+) connections in [\d.]+ ?s?;", said.stdout)
    return int(found[1]) if found else 0


def bodies(port: int, name: str, seconds: float) -> int:
    """Ask for a file again and again; how often."""
    time_ = str(max(1, round(seconds)))
    # h2load escapes nothing.
    url = f"https://127.0.0.1:{port}/files/{name.replace(' ', '%20')}"
    command = ["h2load", "--h1", "-D", time_, "-c", "8", url]
    said = subprocess.run([*ON_CLIENT_CORE, *command], capture_output=True, text=True, check=True).stdout
    found = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", said)
    return int(found[1]) if found else 0


@contextmanager
def measured(pid: int, result: dict[str, float]):
    """Adds what happens inside to `result`, which gets its `count` there."""
    before, begin = cpu(pid), time.monotonic()
    yield
    took, used = time.monotonic() - begin, cpu(pid) - before
    if result.get("count"):
        result |= {"cpu": used / result["count"] * 1e6, "rate": result["count"] / took}


def measure(seconds: float, rounds: int) -> dict:
    """{key: {what: {server: [{cpu, rate}, ...]}}}: CPU µs of the server for each, and how many a second."""
    results: dict = {}
    if not (shutil.which("h2load") and shutil.which("openssl")):
        return results
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        # What nginx's worker reads is read by another user.
        folder.chmod(0o755)
        (folder / "files").mkdir()
        for size, count in SIZES.items():
            (folder / "files" / size).write_bytes(os.urandom(count))
        os.environ["FILES"] = str(folder / "files")
        servers = {
            kind: {
                server: (stack.enter_context(running([*ON_SERVER_CORE, *command], port)), port)
                for server, (command, port) in commands(kind, folder).items()
            }
            for kind in KEYS
        }
        for turn in range(rounds + 1):
            for kind, found in servers.items():
                rows = results.setdefault(kind, {})
                loads = {what: (handshakes, options) for what, options in HANDSHAKES.items()}
                if kind == next(iter(KEYS)):
                    # The key has no part in what follows the handshake.
                    loads |= {f"a body of {size}": (bodies, size) for size in list(SIZES)[1:]}
                for what, (load, option) in loads.items():
                    for server, (pid, port) in found.items():
                        result: dict[str, float] = {}
                        with measured(pid, result):
                            result["count"] = load(port, option, seconds if turn else 1)
                        if turn:
                            rows.setdefault(what, {}).setdefault(server, []).append(result)
    return results


def section(results: dict) -> list[str]:
    """The part of the report."""
    rows = [
        [what, kind if "body" not in what else "", server, cell(runs, "cpu", 1), cell(runs, "rate", 0)]
        for kind, loads in results.items()
        for what, servers in loads.items()
        for server, runs in servers.items()
    ]
    return [
        "## TLS\n",
        "Handshakes one after the other, each with a short request; files of static routes over 8 connections"
        " of HTTP/1.1. By `benches/tls.py`.\n",
        table(["what", "key", "server", "CPU µs each", "a second"], rows),
    ]


if __name__ == "__main__":
    measure_part("tls", measure, section, seconds=2.0)
