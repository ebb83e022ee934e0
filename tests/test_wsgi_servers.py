"""Our site on WSGI servers that are programs of their own: uWSGI, and Apache with mod_wsgi.

They are no packages that the tests could ask for: where a program is missing, its test is skipped.
`test_frameworks.py` has the servers that are written in Python.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from test_frameworks import OURS, PATIENCE, visit

import hipflask

APP = (
    OURS
    + """

@app.get("/async")
async def awaited():
    import asyncio

    await asyncio.sleep(0)
    return "awaited"


application = app
"""
)

APACHE = shutil.which("apache2") or shutil.which("httpd") or "/usr/sbin/apache2"
MODULES = next(
    (
        folder
        for folder in map(Path, ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"])
        if folder.is_dir()
    ),
    Path("/nowhere"),
)


def _why_not_apache() -> str:
    """Why mod_wsgi cannot run this interpreter's packages; empty if it can."""
    module = MODULES / "mod_wsgi.so"
    if not Path(APACHE).exists() or not module.exists():
        return "there is no Apache with mod_wsgi"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    linked = subprocess.run(["ldd", module], capture_output=True, text=True, check=False).stdout
    return "" if f"lib{version}" in linked else f"mod_wsgi is not built for {version}"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_of.py").write_text(APP)
    (tmp_path / "static").mkdir()
    (tmp_path / "static/file.txt").write_text("file")
    return tmp_path


def look_around(url: str) -> None:
    """Visit the site."""
    visit(url, chunked=False)
    assert httpx.get(f"{url}/async", timeout=PATIENCE).text == "awaited"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert httpx.get(f"{url}/socket", headers=upgrade, timeout=PATIENCE).status_code == 501


@pytest.mark.skipif(
    shutil.which("uwsgi", path=sysconfig.get_path("scripts")) is None, reason="there is no uWSGI"
)
@pytest.mark.parametrize(
    "options",
    [["--processes", "1"], ["--master", "--processes", "2", "--threads", "2"], ["--master", "--lazy-apps"]],
    ids=["plain", "forks and threads", "lazy"],
)
def test_under_uwsgi(folder, options):
    command = [Path(sysconfig.get_path("scripts")) / "uwsgi", "--http-socket", "127.0.0.1:0", "--need-app"]
    # It ends connections without saying so, of which clients that keep them hear too late.
    command += ["--add-header", "Connection: close"]
    command += ["--wsgi-file", "site_of.py", "--callable", "app", "--die-on-term", "--virtualenv", sys.prefix]
    with subprocess.Popen(
        [*command, *options],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as server:
        said = ""
        try:
            for line in server.stdout:
                said += line
                if found := re.search(r"bound to TCP address ([\d.]+:\d+)", line):
                    break
            else:
                pytest.fail(said)
            look_around(f"http://{found[1]}")
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.communicate(timeout=PATIENCE)
            finally:
                if server.poll() is None:
                    os.killpg(server.pid, signal.SIGKILL)


@contextmanager
def apache(folder: Path, group: str):
    """An Apache that serves the site with mod_wsgi, in an application group; gives its URL."""
    with socket.socket() as free:
        # Apache does not say which port it has been given.
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    package = Path(hipflask.__file__).parents[1]
    paths = f"{folder}:{package}:{sysconfig.get_path('purelib')}"
    # The directives that a distribution's own configuration would have.
    modules = [name for name in ("mpm_event", "authz_core", "wsgi") if (MODULES / f"mod_{name}.so").exists()]
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    (folder / "httpd.conf").write_text(
        "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules)
        + f"""
ServerRoot "{folder}"
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
Mutex file:{folder}
WSGISocketPrefix {folder}/wsgi
{user}
WSGIDaemonProcess ours threads=4 python-path={paths} home={folder}
WSGIProcessGroup ours
WSGIApplicationGroup {group}
WSGIScriptAlias / {folder}/site_of.py
<Directory {folder}>
Require all granted
</Directory>
"""
    )
    for parent in (folder, *folder.parents[:2]):
        # Its processes have another user.
        parent.chmod(parent.stat().st_mode | 0o055)
    with subprocess.Popen([APACHE, "-f", folder / "httpd.conf", "-DFOREGROUND"]) as server:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
                client.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(PATIENCE)


@pytest.mark.skipif(bool(_why_not_apache()), reason=_why_not_apache() or "it can be run")
def test_under_mod_wsgi(folder):
    with apache(folder, "%{GLOBAL}") as url:
        look_around(url)


@pytest.mark.skipif(bool(_why_not_apache()), reason=_why_not_apache() or "it can be run")
def test_a_subinterpreter_of_mod_wsgi_is_told_what_it_lacks(folder):
    """It would hang otherwise: the engine's threads attach to the main interpreter."""
    with apache(folder, "a-group-of-its-own") as url:
        assert httpx.get(url, timeout=PATIENCE).status_code == 500
    assert "main interpreter only" in (folder / "error.log").read_text()
