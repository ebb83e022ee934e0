"""Workers and signals on the live server, under load: what is replaced, and that nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import threading

import pytest
from processes import APP, Command, Load, account, children, eventually, get, lives


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    # Workers may run as somebody else.
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def start(folder):
    commands = []

    def start(*args, port="0", **more):
        place = () if port is None else ("--port", port)
        commands.append(Command(folder, *place, *args, **more))
        return commands[-1]

    yield start
    for command in commands:
        command.close()


def rewrite(folder, old: str, new: str) -> None:
    """Change the application."""
    path = folder / "hello.py"
    path.write_text(path.read_text().replace(old, new))


# Signals, under load.


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_a_stop_loses_nothing_that_was_accepted(start, folder, workers):
    command = start(*workers)
    load = Load(command.port())
    load.wait_for(200)
    command.signal(signal.SIGTERM)
    load.wait_for_refusal()
    assert command.wait() == 0
    load.stop()
    assert account(load, folder) == {}
    assert "Traceback" not in command.text


def test_sighup_replaces_workers_one_by_one(start, folder):
    command = start("--workers", "2")
    load = Load(command.port())
    load.wait_for(200)
    before = set(command.workers())
    rewrite(folder, '"one"', '"two"')
    command.signal(signal.SIGHUP)
    command.until("all workers are replaced")
    load.wait_for(200)
    load.stop()
    assert load.refused == 0
    assert account(load, folder) == {}
    assert load.pids() > before
    eventually(lambda: not before & set(command.workers()), "the old workers are there")
    new = {pid: version for pid, version in load.answers.values() if pid not in before}
    assert set(new.values()) == {"two"}
    assert set(new) <= set(command.workers())
    assert get(command_port(command), "/count/last").split()[1] == "two"
    assert command.stop() == 0


def command_port(command) -> int:
    """The port that the first line names."""
    return int(re.search(r"http://\S*:(\d+)", command.text)[1])


def test_sigusr2_hands_the_sockets_to_a_new_program(start, folder):
    unix = folder / "socket"
    pid_file = folder / "pid"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    binds = ("-b", f"127.0.0.1:{port}", "-b", f"unix:{unix}")
    command = start("--workers", "2", "--pid-file", "pid", *binds, port=None)
    with contextlib.ExitStack() as stack:
        command.until("Running on")
        load = Load(port)
        load.wait_for(200)
        old = command.process.pid
        rewrite(folder, '"one"', '"two"')
        command.signal(signal.SIGUSR2)
        new = int(command.until(r"process (\d+) has taken over")[1])
        stack.callback(lambda: kill_all(new))
        load.wait_for(200)
        assert command.process.wait(30) == 0
        load.wait_for(100)
        load.stop()
        assert load.refused == 0
        assert account(load, folder) == {}
        assert int(pid_file.read_text()) == new != old
        assert not (folder / "pid.oldbin").exists()
        assert load.pids() > set(children(new))
        assert int(get(str(unix)).split()[0]) in children(new)
        os.kill(new, signal.SIGTERM)
        eventually(lambda: not lives(new), "the new program does not end")
        assert not pid_file.exists()
        assert not unix.exists()


def kill_all(pid: int) -> None:
    """End a program that is not ours to wait for."""
    for each in (pid, *children(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def test_a_worker_that_is_killed_loses_its_own_requests_alone(start, folder):
    command = start("--workers", "2")
    load = Load(command.port())
    load.wait_for(200)
    victim = command.workers()[0]
    os.kill(victim, signal.SIGKILL)
    command.until(f"worker {victim} was ended by SIGKILL: another one is started now")
    load.wait_for(200)
    load.stop()
    lost = account(load, folder)
    assert set(lost.values()) <= {victim}
    # What no view got was on a connection of its, too.
    assert set(load.lost.values()) <= {victim, None}
    assert load.refused == 0
    assert victim not in command.workers()
    assert len(command.workers()) == 2
    assert command.stop() == 0


def test_what_a_killed_worker_was_woken_for_is_accepted_by_another(start, folder):
    """The kernel wakes one process for a connection. Here that is one that does not accept it, and no other
    connection follows that would wake somebody else."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.closing(select.epoll()) as first:
        listener.setblocking(False)
        # Who has waited longest is woken.
        first.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        woken = []
        waiter = threading.Thread(target=lambda: woken.extend(first.poll(30)))
        waiter.start()
        number = listener.fileno()
        command = start("--workers", "2", "--bind", f"fd:{number}", port=None, pass_fds=(number,))
        command.until("Running on")
        victim, other = command.workers()
        # Nor does a new worker come to accept it.
        rewrite(folder, "app = Flask(__name__)", "app = Flask(__name__)\ntime.sleep(600)")
        with socket.create_connection(listener.getsockname(), 30) as client:
            client.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
            waiter.join()
            assert woken
            os.kill(victim, signal.SIGKILL)
            assert f"{other} ".encode() in client.recv(65536)


RECYCLED = {
    "requests": (["--max-requests", "50", "--max-requests-jitter", "20"], "it has served its requests"),
    "age": (["--max-worker-age", "1"], "it is old"),
    "memory": (["--max-worker-memory", "1MiB"], r"it holds \d+ MiB"),
}


@pytest.mark.parametrize(("args", "why"), RECYCLED.values(), ids=list(RECYCLED))
def test_workers_are_replaced_when_due(start, folder, args, why):
    command = start("--workers", "2", *args)
    load = Load(command.port())
    for _ in range(3):
        command.until(f"worker \\d+ is replaced: {why}")
    load.wait_for(50)
    load.stop()
    assert load.refused == 0
    assert account(load, folder) == {}
    assert len(load.pids()) >= 3
    assert command.stop() == 0


# Failure.


BROKEN = {
    "an error": ("raise ValueError('at import')", "ValueError: at import"),
    "a missing module": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "no application": ("app = None", "Failed to find Flask application or factory in module 'hello'"),
    "an end": ("raise SystemExit(4)", "ended the process with status 4 while it was loaded"),
    "a crash": ("os.kill(os.getpid(), 9)", r"Worker \d+ was ended by SIGKILL before it could serve"),
}


@pytest.mark.parametrize(("line", "message"), BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
def test_an_application_that_cannot_be_loaded_is_told_once(start, folder, line, message, preload):
    if preload and "kill" in line:
        pytest.skip("that ends the supervisor itself")
    (folder / "hello.py").write_text(APP + line + "\n")
    command = start("--workers", "3", *preload)
    assert command.wait() in ((1, 2, 4) if preload else (1,))
    if not (preload and "SystemExit" in line):
        assert len(re.findall(message, command.text)) == 1, command.text
    assert "Running" not in command.text


def test_new_code_that_cannot_be_loaded_leaves_the_old_at_work(start, folder):
    command = start("--workers", "2", "--pid-file", "pid")
    port = command.port()
    before = command.workers()
    rewrite(folder, 'VERSION = "one"', "import no_such_module")
    command.signal(signal.SIGHUP)
    command.until("worker .* cannot serve")
    command.until("ModuleNotFoundError: No module named 'no_such_module'")
    command.until("no worker is replaced: those that serve go on")
    assert command.workers() == before
    command.signal(signal.SIGUSR2)
    command.until("ModuleNotFoundError: No module named 'no_such_module'")
    command.until("the program that was to take over ended with status 1: this one goes on")
    assert int((folder / "pid").read_text()) == command.process.pid
    assert get(port, "/count/last").split()[1] == "one"
    rewrite(folder, "import no_such_module", 'VERSION = "two"')
    command.signal(signal.SIGHUP)
    command.until("all workers are replaced")
    assert get(port, "/count/now").split()[1] == "two"
    assert command.stop() == 0


def test_workers_that_keep_dying_are_replaced_ever_more_slowly(start):
    command = start("--workers", "1")
    port = command.port()
    for when in ("now", "in 0.5 s", "in 1 s"):
        with pytest.raises(OSError, match=r".*"):
            get(port, "/die")
        # One that dies at its first request may not yet have said that it serves.
        command.until(f"another (one|worker) is started {when}")
    assert get(port)
    assert command.stop() == 0


def test_a_worker_whose_python_stands_still_is_replaced(start, folder):
    (folder / "hello.py").write_text(
        APP + "\n@app.get('/hold')\ndef hold():\n    import ctypes\n    ctypes.PyDLL(None).sleep(60)\n"
    )
    command = start("--workers", "1", "--worker-timeout", "1")
    port = command.port()
    with pytest.raises(OSError, match=r".*"):
        get(port, "/hold")
    command.until("gives no sign of life")
    command.until("was ended by SIGABRT")
    # Where it was.
    assert "in hold" in command.text
    assert get(port)


def test_workers_end_when_their_supervisor_is_killed(start, folder):
    command = start("--workers", "2")
    port = command.port()
    workers = command.workers()
    answers = []
    client = threading.Thread(target=lambda: answers.append(get(port, "/count/slow?sleep=0.5")))
    client.start()
    eventually(lambda: (folder / "seen").read_text(), "the view does not run")
    command.signal(signal.SIGKILL)
    client.join()
    assert answers[0].split()[2] == "slow"
    eventually(lambda: not any(map(lives, workers)), "the workers live")
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_second_signal_cuts_off(start, folder, number):
    command = start("--workers", "2")
    port = command.port()
    client = threading.Thread(target=lambda: pytest.raises(OSError, get, port, "/count/slow?sleep=60"))
    client.start()
    eventually(lambda: (folder / "seen").read_text(), "the view does not run")
    command.signal(number)
    eventually(lambda: len(command.workers()) == 1, "the idle worker goes on")
    command.signal(number)
    assert command.wait() == 0
    client.join()


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["one process", "workers"])
def test_requests_are_cut_off_after_their_grace(start, folder, workers):
    command = start("--grace", "200ms", *workers)
    port = command.port()
    client = threading.Thread(target=lambda: pytest.raises(OSError, get, port, "/count/slow?sleep=60"))
    client.start()
    eventually(lambda: (folder / "seen").read_text(), "the view does not run")
    assert command.stop() == 0
    client.join()


# Settings.


def test_sighup_reads_settings_again(start, folder):
    path = folder / "hipflask.toml"
    path.write_text("workers = 1\nserver_header = 'first'\n")
    command = start()
    port = command.port()
    assert b"\r\nServer: first\r\n" in raw(port)
    path.write_text("workers = 2\nserver_header = 'second'\n")
    command.signal(signal.SIGHUP)
    command.until("2 workers are wanted, not 1")
    command.until("all workers are replaced")
    assert len(command.workers()) >= 2
    assert b"\r\nServer: second\r\n" in raw(port)
    path.write_text("workers = 2\nserver_heder = 'third'\n")
    command.signal(signal.SIGHUP)
    command.until(
        "the settings stay as they were: hipflask.toml: there is no setting 'server_heder': did you"
    )
    assert b"\r\nServer: second\r\n" in raw(port)
    assert command.stop() == 0


def test_a_new_release_is_found_where_a_link_leads(start, folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "hello.py").write_text(APP.replace('"one"', f'"{name}"'))
        (folder / name / "hipflask.toml").write_text(f"workers = 1\nserver_header = '{name}'\n")
    link = folder / "current"
    link.symlink_to("one")
    command = start(cwd=link, env={"PWD": str(link)})
    port = command.port()
    assert get(port, "/count/a").split()[1] == "one"
    link.unlink()
    link.symlink_to("two")
    command.signal(signal.SIGHUP)
    command.until("all workers are replaced")
    assert get(port, "/count/a").split()[1] == "two"
    assert b"\r\nServer: two\r\n" in raw(port)
    assert command.stop() == 0


def raw(port: int, request: bytes = b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> bytes:
    """All that comes for a request."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_workers_are_added_and_taken_away(start):
    command = start("--workers", "1")
    command.port()
    command.signal(signal.SIGTTIN)
    eventually(lambda: len(command.workers()) == 2, "no second worker")
    command.signal(signal.SIGTTOU)
    eventually(lambda: len(command.workers()) == 1, "two workers")
    assert command.stop() == 0


def test_preloaded_code_is_loaded_once_and_renewed_by_a_new_program(start, folder):
    rewrite(folder, "app = Flask(__name__)", "app = Flask(__name__)\nprint('loaded by', os.getpid())")
    command = start("--workers", "2", "--preload")
    port = command.port()
    assert re.findall("loaded by (.*)", command.text) == [str(command.process.pid)]
    assert {int(get(port).split()[0]) for _ in range(8)} == set(command.workers())
    rewrite(folder, '"one"', '"two"')
    command.signal(signal.SIGHUP)
    new = int(command.until(r"process (\d+) has taken over")[1])
    try:
        assert command.process.wait(30) == 0
        assert get(port, "/count/now").split()[1] == "two"
    finally:
        os.kill(new, signal.SIGTERM)
        eventually(lambda: not lives(new), "the new program does not end")


RUN_BEFORE = """
import asyncio

begun = []

@app.get("/async")
async def wait():
    await asyncio.sleep(0)
    return f"{os.getpid()} {begun}"

@app.get("/background")
def background():
    app.background(lambda: print("background in", os.getpid(), flush=True))
    return str(os.getpid())

@app.before_serving
async def begin():
    begun.append(os.getpid())

with app.test_client() as client:
    assert client.get("/async").text == f"{os.getpid()} []"
    client.get("/background")
"""


def test_what_has_run_before_the_fork_runs_after_it(start, folder):
    """The event loop, the threads for work beside requests, and the native module itself."""
    (folder / "hello.py").write_text(APP + RUN_BEFORE)
    command = start("--workers", "2", "--preload")
    port = command.port()
    for _ in range(4):
        pid, begun = get(port, "/async").split()
        assert begun == f"[{pid}]"
        assert int(pid) in command.workers()
    pid = get(port, "/background")
    command.until(f"background in {pid}")
    assert command.stop() == 0


LIMITS = [
    (["--max-request-line", "32"], b"GET /" + b"x" * 64 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
    (["--max-fields", "2"], b"GET / HTTP/1.1\r\nHost: x\r\na: 1\r\nb: 1\r\n\r\n", b"431"),
    (["--max-body", "10B"], b"POST /count/x HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", b"413"),
    (["--header-timeout", "50ms"], b"GET / HTTP/1.1\r\n", b"408"),
    (["--body-timeout", "50ms"], b"POST /count/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1", b"408"),
    (["--idle-timeout", "50ms"], b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
    (["--server-header", "-"], b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
    (["--underscores", "refuse"], b"GET /who HTTP/1.1\r\nHost: x\r\na_b: 1\r\n\r\n", b"400"),
    (["--no-utf8-target"], "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(), b"400"),
]


@pytest.mark.parametrize(("args", "request_", "status"), LIMITS, ids=[row[0][0][2:] for row in LIMITS])
def test_settings_reach_the_engine(start, args, request_, status):
    answer = raw(start(*args).port(), request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (b"\r\nServer: " in answer) == (args[0] != "--server-header")
