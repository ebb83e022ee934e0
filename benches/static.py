"""Print what files cost beside nginx: small, large, compressed beforehand and when asked for.

usage: static.py [--seconds S] [--rounds N] [--write]

Each server has core 0 and the load generator core 1, over 64 keep-alive connections (8 for the large file).
Rounds are interleaved. CPU µs per request is what the server's process used, as the kernel counts it; a load
generator that is slower than the server does not change it.
"""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from peers import ROOT, Peer
from report import cell, measure_part, median_and_spread, table
from servers import CONNECTIONS, Running, free_port, load, request

NGINX = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    default_type application/octet-stream;
    types {{ text/css css; application/json json; }}
    sendfile on;
    tcp_nopush on;
    open_file_cache max=100;
    gzip_static on;
    gzip_types application/json;
    gzip_min_length 1024;
    client_body_temp_path {folder}/body;
    server {{
        listen 127.0.0.1:{port};
        location /assets/ {{ alias {folder}/files/; }}
        location /made/ {{ alias {folder}/files/; gzip on; gzip_comp_level 4; }}
    }}
}}
"""

APP = """
from hipflask import Flask

app = Flask(__name__, static_folder="files", static_url_path="/assets")
made = open("files/made.json").read()


@app.get("/made/made.json", compress=True)
def made_json():
    return made, {"Content-Type": "application/json"}
"""

NOT_CHANGED = "10 KiB, not changed"
#: By name: path, further fields, connections. All take gzip.
ROWS = {
    "10 KiB": ("/assets/small.css", "", CONNECTIONS),
    NOT_CHANGED: ("/assets/small.css", "If-None-Match: *\r\n", CONNECTIONS),
    "10 MiB": ("/assets/large.bin", "", 8),
    "40 KiB, gzip beforehand": ("/assets/text.css", "", CONNECTIONS),
    "40 KiB of JSON, gzip each time": ("/made/made.json", "", CONNECTIONS),
}


def write_files(folder: Path) -> None:
    """What is asked for."""
    chance = random.Random(5)
    words = [f"word{number}" for number in range(800)]
    text = " ".join(chance.choices(words, k=6000)).encode()[: 40 * 1024]
    folder.mkdir()
    (folder / "small.css").write_bytes(text[: 10 * 1024])
    (folder / "large.bin").write_bytes(chance.randbytes(10 << 20))
    (folder / "text.css").write_bytes(text)
    (folder / "text.css.gz").write_bytes(gzip.compress(text, 9))
    (folder / "made.json").write_bytes(text)


def start(name: str, folder: Path) -> Running:
    """Start a server on core 0."""
    port = free_port()
    if name == "nginx":
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
        line = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    else:
        (folder / "app.py").write_text(APP)
        line = [sys.executable, "-m", "hipflask", "run", "app", "--port", str(port)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *line], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    for _ in range(2000):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/assets/small.css", timeout=5).read()
            return Running(Peer(name, line, []), process, port)
        except OSError:
            time.sleep(0.01)
    raise SystemExit((folder / f"{name}.log").read_text())


def measure(seconds: float, rounds: int) -> dict:
    """{row: {server: [{cpu, rate}, ...]}}: CPU µs of the server for each answer, and how many a second."""
    results: dict = {}
    if not shutil.which("nginx"):
        return results
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "loadgen"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_files(folder / "files")
        servers = [start(server, folder) for server in ("Hipflask", "nginx")]
        try:
            for turn in range(rounds + 1):
                for row, (path, fields, connections) in ROWS.items():
                    file = folder / "request.http"
                    file.write_bytes(request("GET", path, fields=fields))
                    for server in servers:
                        length = seconds if turn else 0.5
                        result = load(server, [(1, file)], length, connections=connections)
                        if row == NOT_CHANGED and "bad" in result:
                            # The load generator counts as bad what is not 2xx.
                            result["bad"] = result["requests"] - result["bad"]
                        if turn:
                            results.setdefault(row, {}).setdefault(server.peer.name, []).append(result)
        finally:
            for server in servers:
                server.stop()
    return results


def section(results: dict) -> list[str]:
    """The part of the report."""
    rows = []
    for row, found in results.items():
        ours, theirs = (median_and_spread(found[name], "cpu") for name in ("Hipflask", "nginx"))
        ratio = f"{ours[0] / theirs[0]:.2f}" if ours and theirs else ""
        rows.append([row, *(cell(found[name], "cpu", 1) for name in ("Hipflask", "nginx")), ratio])
    return [
        "## Files beside nginx\n",
        "CPU µs per answer; nginx with `sendfile` and its cache of open files. By `benches/static.py`.\n",
        table(["", "Hipflask", "nginx", "ratio"], rows),
    ]


if __name__ == "__main__":
    measure_part("static", measure, section, seconds=2.0)
