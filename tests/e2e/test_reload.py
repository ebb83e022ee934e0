"""Reloading under `hipflask run --debug`: what makes the server start again, and what a client sees of it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
import time

import pytest

APP = """
import os
from hipflask import Flask, render_template

import part

app = Flask(__name__)

@app.get("/")
def index():
    return part.TEXT

@app.get("/page")
def page():
    return render_template("page.html")

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.get("/setting")
def setting():
    return SETTING

with open("setting.txt") as file:
    SETTING = file.read()
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "page.html").write_text("page one")
    (tmp_path / "setting.txt").write_text("setting one")
    (tmp_path / "part.py").write_text("TEXT = 'one'\n")
    (tmp_path / "website.py").write_text(APP)
    return tmp_path


@pytest.fixture(params=["inotify", "stat", "command"])
def server(request, project, serve):
    args = ["--reloader", "stat"] if request.param == "stat" else []
    args += ["--extra-files", "setting.txt", "--exclude-patterns", "*_skipped.py"]
    if request.param == "command":
        # A program that has imported the application already cannot be copied.
        (project / "manage.py").write_text("import part\nfrom hipflask.cli import main\nmain()\n")
    script = project / "manage.py" if request.param == "command" else None
    server = serve("run", "--app", "website.py", "--debug", "--port", "0", *args, cwd=project, script=script)
    server.kind = request.param
    yield server
    assert server.stop() == 0, "".join(server.output)


def answer(server, path: str = "/") -> str:
    """What the application says. A connection that the old process had taken may break; none is refused."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (ConnectionResetError, BrokenPipeError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def wait_for(server, text: str, path: str = "/") -> None:
    """Ask until the answer comes."""
    deadline = time.monotonic() + 30
    while text not in (now := answer(server, path)):
        assert time.monotonic() < deadline, now + "".join(server.output)


def wait_for_output(server, text: str) -> None:
    """Wait until the server has said something."""
    deadline = time.monotonic() + 30
    while text not in "".join(server.output):
        assert time.monotonic() < deadline, "".join(server.output)
        time.sleep(0.02)


def test_saved_modules_extra_files_and_templates_show(server, project):
    assert answer(server) == "one"
    for text in ("two", "six", "ten"):
        # Texts of one length, saved within a second: what was compiled before must not be taken for it.
        (project / "part.py").write_text(f"TEXT = '{text}'\n")
        wait_for(server, text)
    assert any("Detected change in" in line and "part.py" in line for line in server.output)

    (project / "setting.txt").write_text("setting two")
    wait_for(server, "setting two", "/setting")

    pid = answer(server, "/pid")
    (project / "templates" / "page.html").write_text("page two")
    (project / "new_skipped.py").write_text("")
    wait_for(server, "page two", "/page")
    assert answer(server, "/pid") == pid


def test_a_file_that_an_editor_replaces_shows(server, project):
    (project / "part.py.new").write_text("TEXT = 'replaced'\n")
    os.replace(project / "part.py.new", project / "part.py")
    wait_for(server, "replaced")


def test_a_syntax_error_waits_for_the_next_save(server, project):
    for _ in range(2):
        (project / "part.py").write_text("TEXT = (\n")
        if server.kind == "command":
            # It cannot even start; connections wait.
            wait_for_output(server, "waiting for the next change")
            server.output.clear()
        else:
            wait_for(server, "SyntaxError")
        (project / "part.py").write_text("TEXT = 'mended'\n")
        wait_for(server, "mended")
    if server.kind != "command":
        output = "".join(server.output)
        assert re.search(r'File ".*part\.py", line 1', output)
        assert "click" not in output


def test_no_connection_is_refused_while_the_server_starts_again(server, project):
    failures, stop, count = [], threading.Event(), 0

    def hammer() -> None:
        nonlocal count
        while not stop.is_set():
            try:
                answer(server)
                count += 1
            except OSError as error:
                failures.append(error)

    clients = [threading.Thread(target=hammer) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for number in range(5):
            (project / "part.py").write_text(f"TEXT = 'number {number}'\n")
            wait_for(server, f"number {number}")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert not failures
    assert count > 5


def test_a_module_that_appears_and_goes_is_noticed(server, project):
    (project / "package").mkdir()
    (project / "package" / "__init__.py").write_text("TEXT = 'of a package'\n")
    (project / "part.py").write_text("from package import TEXT\n")
    wait_for(server, "of a package")
    (project / "package" / "__init__.py").write_text("TEXT = 'changed there'\n")
    wait_for(server, "changed there")


def test_a_server_whose_first_process_is_killed_ends(project, serve):
    server = serve("run", "--app", "website.py", "--debug", "--port", "0", cwd=project)
    serving = int(answer(server, "/pid"))
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(20)
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{serving}") and "zombie" not in _state(serving):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.process.stdout.close()


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/status") as file:
            return file.read()
    except FileNotFoundError:
        return "zombie"
