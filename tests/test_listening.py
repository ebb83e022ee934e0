"""Where the server listens, as whom, and what its system hears of it."""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from processes import APP, Command, children, eventually, get, lives

from hipflask.listening import ListenError, open_all
from hipflask.process import PidFile, Service, ids_of

SETTINGS = {"backlog": 16, "socket_mode": None, "socket_owner": None}
HAS_V6 = os.path.exists("/proc/net/if_inet6") and socket.has_dualstack_ipv6()
needs_v6 = pytest.mark.skipif(not HAS_V6, reason="this machine has no IPv6")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def folder():
    # Not `tmp_path`, which others may not enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "hello.py").write_text(APP)
        yield folder


@pytest.fixture
def start(folder):
    commands = []

    def start(*args, **more):
        commands.append(Command(folder, *args, **more))
        return commands[-1]

    yield start
    for command in commands:
        command.close()


WORKERS = pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])


# Places.


@pytest.fixture
def listen():
    opened = []

    def listen(*binds, **settings):
        found = open_all(binds, {**SETTINGS, **settings})
        opened.extend(found)
        return found

    yield listen
    for listener in opened:
        listener.remove()
        listener.close()


def test_a_v4_address(listen):
    [listener] = listen("127.0.0.1:0")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", listener.address)
    assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@needs_v6
def test_a_v6_address(listen):
    [listener] = listen("[::1]:0")
    assert re.fullmatch(r"http://\[::1\]:\d+", listener.address)


@needs_v6
def test_every_v6_address_takes_v4_as_well(listen):
    [listener] = listen("[::]:0")
    socket.create_connection(("127.0.0.1", listener.socket.getsockname()[1]), 30).close()


@needs_v6
@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_name_stands_for_all_its_addresses_at_one_port(listen, host, monkeypatch):
    # Not everywhere does localhost have both.
    known = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(family, 1, 6, "", place) for family, place in known]
    )
    listeners = listen(f"{host}:0")
    assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
    port = listeners[0].socket.getsockname()[1]
    for address in ("127.0.0.1", "::1"):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.settimeout(30)
            client.connect((address, port))


@needs_v6
def test_a_name_may_have_an_address_that_this_machine_lacks(listen, monkeypatch):
    known = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("2001:db8::1", 0, 0, 0))]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(family, 1, 6, "", place) for family, place in known]
    )
    [listener] = listen("somewhere:0")
    assert listener.socket.getsockname()[0] == "127.0.0.1"


def test_what_a_killed_server_left_is_replaced_and_what_lives_is_not(listen, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    [listener] = listen(f"unix:{path}")
    assert listener.address == f"unix:{path}"
    with pytest.raises(ListenError, match="in use by another program"):
        listen(f"unix:{path}")
    # Another server's file is not removed.
    path.unlink()
    path.write_text("")
    listener.remove()
    assert path.exists()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_of_a_unix_socket(listen, tmp_path, umask):
    before = os.umask(umask)
    try:
        for name, mode, wanted in (("a", 0o660, 0o660), ("b", 0o600, 0o600), ("c", None, 0o777 & ~umask)):
            listen(f"unix:{tmp_path / name}", socket_mode=mode)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == wanted
    finally:
        assert os.umask(before) == umask


@needs_root
def test_owner_of_a_unix_socket(listen, tmp_path):
    nobody = pwd.getpwnam("nobody")
    listen(f"unix:{tmp_path / 'a'}", socket_owner=f"nobody:{nobody.pw_gid}")
    status = (tmp_path / "a").stat()
    assert (status.st_uid, status.st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert ids_of(":0") == (-1, 0)


def test_a_descriptor(listen):
    with socket.create_server(("127.0.0.1", 0)) as made:
        [listener] = listen(f"fd:{made.fileno()}")
        assert listener.socket.getsockname() == made.getsockname()
        assert listener.socket.fileno() != made.fileno()


WRONG = [
    ("nowhere", "'nowhere' is no place to listen"),
    ("::1:80", "'::1:80' is no place to listen"),
    ("127.0.0.1:70000", "is no place to listen"),
    ("fd:x", "'fd:x' names no descriptor"),
    ("fd:999", "Descriptor 999 cannot be used"),
    ("fd:2", "Descriptor .* is no listening socket|is a socket that does not listen"),
    ("unix:/no/such/socket", "There is no directory for unix:/no/such/socket"),
    ("no-such-name.invalid:80", "is no address and no known name"),
    ("192.0.2.1:0", "is not an address of this machine"),
]


@pytest.mark.parametrize(("bind", "message"), WRONG, ids=[bind for bind, _ in WRONG])
def test_where_nothing_can_listen(bind, message):
    with pytest.raises(ListenError, match=message):
        open_all([bind], SETTINGS)


@WORKERS
def test_several_places_at_once(start, folder, workers):
    unix = folder / "socket"
    with socket.create_server(("127.0.0.1", 0)) as made:
        os.set_inheritable(made.fileno(), True)
        command = start(
            *("-b", "127.0.0.1:0", "-b", f"unix:{unix}", "-b", f"fd:{made.fileno()}", "--socket-mode", "600"),
            *workers,
            pass_fds=[made.fileno()],
        )
        place = made.getsockname()[1]
    first, second = command.until(
        r"Running on http://127.0.0.1:(\d+) and unix:\S+ and http://\S+:(\d+) "
    ).groups()
    assert int(second) == place
    for where in (int(first), str(unix), place):
        assert get(where)
    assert stat.S_IMODE(unix.stat().st_mode) == 0o600
    assert command.stop() == 0
    assert not unix.exists()


# Who serves.


def readable_python(folder: Path) -> tuple[str, ...]:
    """What to put before a command so that others than root may read the Python that it runs.

    Where Python is installed below a directory of root's own, the command gets a view of the file system with
    that directory open.
    """
    closed = [parent for parent in Path(os.__file__).resolve().parents if not parent.stat().st_mode & 0o005]
    if not closed:
        return ()
    [closed_one] = closed
    name = Path(os.__file__).resolve().relative_to(closed_one).parts[0]
    view = folder / "view"
    (view / name).mkdir(parents=True)
    view.chmod(0o755)
    script = (
        f'mount --bind "{closed_one / name}" "{view / name}" && mount --rbind "{view}" "{closed_one}"'
        ' && exec "$@"'
    )
    return ("unshare", "--mount", "bash", "-c", script, "bash")


@needs_root
@pytest.mark.parametrize(
    "workers", [[], ["--workers", "1"], ["--preload"]], ids=["one process", "workers", "preload"]
)
def test_the_application_runs_as_somebody_else(start, folder, workers):
    nobody = pwd.getpwnam("nobody")
    unix = folder / "socket"
    (folder / "hello.py").write_text(
        APP + "\nassert os.getuid() and os.getgid() and 0 not in os.getgroups()\n"
    )
    place = ("-b", f"unix:{unix}", "--pid-file", "pid")
    command = start("--user", "nobody", *place, *workers, prefix=readable_python(folder))
    command.until("Running")
    assert get(str(unix)).split()[1:] == [str(nobody.pw_uid), str(nobody.pw_gid)]
    assert unix.stat().st_uid == 0
    assert command.stop() == 0


@needs_root
@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["one process", "workers"])
def test_the_group_may_be_another_than_the_users(start, folder, workers):
    (folder / "hello.py").write_text(APP)
    command = start("--user", "nobody", "--group", "daemon", *workers, prefix=readable_python(folder))
    found = get(command.port()).split()[1:]
    assert found == [str(pwd.getpwnam("nobody").pw_uid), str(grp.getgrnam("daemon").gr_gid)]
    assert command.stop() == 0


@needs_root
@pytest.mark.parametrize(
    "workers", [[], ["--workers", "1"], ["--preload"]], ids=["one process", "workers", "preload"]
)
def test_a_key_that_only_root_may_read(start, folder, workers):
    from hipflask.tls import adhoc_files

    cert, key = (Path(name) for name in adhoc_files())
    (folder / "cert.pem").write_bytes(cert.read_bytes())
    (folder / "key.pem").write_bytes(key.read_bytes())
    (folder / "key.pem").chmod(0o600)
    tls = ("--cert", "cert.pem", "--key", "key.pem")
    command = start("--user", "nobody", "--port", "0", *tls, *workers, prefix=readable_python(folder))
    port = int(command.until(r"Running on https://127.0.0.1:(\d+)")[1])
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda client=client: client.recv(1000), b""))
        assert answer.endswith(str(pwd.getpwnam("nobody").pw_gid).encode())
        if workers != ["--workers", "1"]:
            break
        command.signal(signal.SIGHUP)
        command.until("all workers are replaced")
    assert command.stop() == 0


@needs_root
@WORKERS
def test_a_user_that_is_not_there(start, workers):
    command = start("--port", "0", "--user", "no-such-user", *workers)
    assert command.wait() == 1
    assert command.text == "Error: There is no user 'no-such-user'.\n"


@WORKERS
def test_the_pid_file(start, folder, workers):
    path = folder / "pid"
    path.write_text("999999999\n")
    command = start("--port", "0", "--pid-file", "pid", *workers)
    command.until("Running")
    assert int(path.read_text()) == command.process.pid
    second = start("--port", "0", "--pid-file", "pid", *workers)
    assert second.wait() == 1
    assert second.text == f"Error: pid says that process {command.process.pid} serves already.\n"
    assert command.stop() == 0
    assert not path.exists()


def test_another_processs_pid_file_is_not_removed(tmp_path):
    file = PidFile(str(tmp_path / "pid"))
    (tmp_path / "pid").write_text("1\n")
    file.remove()
    assert (tmp_path / "pid").exists()


# systemd.


class FakeSystemd:
    """Listens where a service tells how it is."""

    def __init__(self, path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(30)
        self.texts: list[str] = []

    def until(self, text: str) -> str:
        """Wait for a message that has this line."""
        while True:
            self.texts.append(self.socket.recv(4096).decode())
            if text in self.texts[-1].splitlines():
                return self.texts[-1]


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request, tmp_path):
    name = str(tmp_path / "notify")
    systemd = FakeSystemd(name if request.param == "a path" else "\0" + name)
    systemd.variables = {"NOTIFY_SOCKET": name if request.param == "a path" else "@" + name}
    yield systemd
    systemd.socket.close()


@WORKERS
def test_systemd_hears_of_start_life_and_stop(start, systemd, workers):
    command = start("--port", "0", *workers, env={**systemd.variables, "WATCHDOG_USEC": "100000"})
    message = systemd.until("READY=1")
    assert f"MAINPID={command.process.pid}" in message.splitlines()
    systemd.until("WATCHDOG=1")
    systemd.until("WATCHDOG=1")
    command.signal(signal.SIGTERM)
    systemd.until("STOPPING=1")
    assert command.wait() == 0


def test_systemd_hears_of_a_reload(start, systemd, folder):
    command = start("--port", "0", "--workers", "1", env=systemd.variables)
    systemd.until("READY=1")
    before = time.monotonic_ns() // 1000
    command.signal(signal.SIGHUP)
    message = systemd.until("RELOADING=1")
    stamp = int(re.search(r"MONOTONIC_USEC=(\d+)", message)[1])
    assert before <= stamp <= time.monotonic_ns() // 1000
    systemd.until("READY=1")
    (folder / "hello.py").write_text("1 / 0")
    command.signal(signal.SIGHUP)
    systemd.until("RELOADING=1")
    assert "the last reload failed" in systemd.until("READY=1")
    assert command.stop() == 0


def test_systemd_hears_of_the_new_main_process(start, systemd):
    command = start("--port", "0", "--workers", "1", env=systemd.variables)
    systemd.until("READY=1")
    command.signal(signal.SIGUSR2)
    new = int(command.until(r"process (\d+) has taken over")[1])
    systemd.until(f"MAINPID={new}")
    assert command.process.wait(30) == 0
    os.kill(new, signal.SIGTERM)
    systemd.until("STOPPING=1")
    eventually(lambda: not lives(new), "the new program does not end")


def test_without_systemd_nothing_is_told(monkeypatch):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    service = Service()
    service.ready("x")
    assert service.interval is None
    monkeypatch.setenv("NOTIFY_SOCKET", "/no/such/socket")
    Service().ready("x")
    monkeypatch.setenv("NOTIFY_SOCKET", "/no/such/socket")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Service().interval is None


@WORKERS
def test_sockets_of_systemd_are_taken_over(start, folder, workers):
    """A connection that came before the service is answered when it is there."""
    unix = folder / "socket"
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(socket.AF_UNIX) as second:
        second.bind(str(unix))
        second.listen()
        port = first.getsockname()[1]
        early: list[str] = []
        client = threading.Thread(target=lambda: early.append(get(port)))
        client.start()
        one, two = first.fileno(), second.fileno()
        # The numbers must be 3 and 4, and LISTEN_PID that of the process that the shell becomes.
        script = f'exec 8<&{one} 9<&{two} 3<&8 4<&9 8<&- 9<&-; LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"'
        shell = ("bash", "-c", script, "bash")
        command = start("--port", "1", *workers, prefix=shell, pass_fds=[one, two])
    command.until(f"Running on http://127.0.0.1:{port} and unix:{unix} ")
    client.join()
    assert early[0]
    assert get(str(unix))
    assert get(port)
    assert command.stop() == 0
    # Whoever made it removes it.
    assert unix.exists()


def test_a_service_for_another_process_is_not_ours(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    [listener] = open_all(["127.0.0.1:0"], SETTINGS)
    listener.close()


@WORKERS
def test_the_environment_of_the_application_has_none_of_it(start, folder, workers, systemd):
    (folder / "hello.py").write_text(
        APP
        + "\nprint('inherited:', sorted(k for k in os.environ if k.startswith(('LISTEN', 'NOTIFY', 'WATCH')))"
        ", flush=True)\n"
    )
    command = start("--port", "0", *workers, env={**systemd.variables, "WATCHDOG_USEC": "9000000"})
    command.until(r"inherited: \[\]")
    command.until("Running")
    assert command.stop() == 0


def test_children_of_the_application_do_not_hold_the_socket(start, folder):
    (folder / "hello.py").write_text(
        APP
        + "\n@app.get('/spawn')\ndef spawn():\n    import subprocess\n"
        + "    return str(subprocess.Popen(['sleep', '60']).pid)\n"
    )
    command = start("--port", "0", "--workers", "1")
    port = command.port()
    child = int(get(port, "/spawn"))
    try:
        links = subprocess.run(["ls", "-l", f"/proc/{child}/fd"], capture_output=True, text=True).stdout
        assert "socket:" not in links
        assert children(command.process.pid)
    finally:
        os.kill(child, signal.SIGKILL)
    assert command.stop() == 0
