"""Signals, changed certificates and killed workers under load: every request is accounted for.

HTTP/1.1 and HTTP/2, with TLS and without, short and slow views, coroutines, uploads, streams.
"""

from __future__ import annotations

import contextlib
import os
import signal
import ssl

import pytest
from processes import Command, children, eventually, lives
from traffic import APP, Traffic

from hipflask import _core

TRANSPORTS = ["plain", "tls"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hello.py").write_text(APP)
    return tmp_path


def renew(folder) -> None:
    """Put a new certificate in the place of the one before, as programs that fetch certificates do."""
    for name, text in zip(("crt", "key"), _core.self_signed_certificate(["localhost"]), strict=True):
        (folder / f"new.{name}").write_text(text)
    # All that were ever in force, for clients; the key first: a pair that does not fit is left alone.
    with (folder / "trusted.pem").open("a") as file:
        file.write((folder / "new.crt").read_text())
    (folder / "new.key").rename(folder / "server.key")
    (folder / "new.crt").rename(folder / "server.crt")


@pytest.fixture(params=TRANSPORTS)
def site(request, folder):
    """Starts the server, and traffic on it."""
    with contextlib.ExitStack() as stack:

        def start(*args):
            secure = request.param == "tls"
            if secure:
                renew(folder)
                args = (*args, "--cert", "server.crt", "--key", "server.key")
            command = Command(folder, "--port", "0", *args)
            stack.callback(command.close)
            port = int(command.until(r"Running on https?://\S*:(\d+)")[1])
            traffic = Traffic(port, folder / "trusted.pem" if secure else None)
            stack.callback(setattr, traffic, "stopping", True)
            traffic.wait_for(150)
            return command, traffic

        yield start


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_sigterm(site, folder, workers):
    command, traffic = site(*workers)
    command.signal(signal.SIGTERM)
    traffic.wait_for_refusal()
    assert command.wait() == 0
    traffic.stop()
    assert traffic.account(folder) == {}
    assert "Traceback" not in command.text


def test_sighup(site, folder):
    command, traffic = site("--workers", "2")
    before = set(command.workers())
    command.signal(signal.SIGHUP)
    command.until("all workers are replaced")
    traffic.wait_for(150)
    traffic.stop()
    assert traffic.refused == 0
    assert traffic.account(folder) == {}
    assert traffic.pids() > before
    assert command.stop() == 0


def test_sigusr2(site, folder):
    command, traffic = site("--workers", "2")
    command.signal(signal.SIGUSR2)
    new = int(command.until(r"process (\d+) has taken over")[1])
    try:
        traffic.wait_for(150)
        assert command.process.wait(60) == 0
        traffic.wait_for(50)
        traffic.stop()
        assert traffic.refused == 0
        assert traffic.account(folder) == {}
        assert traffic.pids() > set(children(new))
    finally:
        os.kill(new, signal.SIGTERM)
        eventually(lambda: not lives(new), "the new program does not end")


def test_a_killed_worker(site, folder):
    command, traffic = site("--workers", "2")
    victim = command.workers()[0]
    os.kill(victim, signal.SIGKILL)
    command.until(f"worker {victim} was ended by SIGKILL")
    traffic.wait_for(150)
    traffic.stop()
    assert traffic.refused == 0
    assert set(traffic.account(folder).values()) <= {victim}
    # What no view got was on a connection of its, too.
    cut = {outcome.pid for outcome in traffic.outcomes.values() if outcome.what == "cut"}
    assert cut <= {victim, None}
    assert command.stop() == 0


@pytest.mark.parametrize("site", ["tls"], indirect=True)
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_changed_certificates(site, folder, workers):
    command, traffic = site(*workers)
    for _ in range(2):
        renew(folder)
        latest = (folder / "server.crt").read_text()
        # Whoever connects has them looked at, once a second.
        command.until("certificates have changed and are in use")
        traffic.wait_for(50)
    eventually(
        lambda: ssl.get_server_certificate(("127.0.0.1", traffic.port)) == latest, "an old certificate"
    )
    traffic.stop()
    assert traffic.refused == 0
    assert traffic.account(folder) == {}
    assert traffic.count("cut") == 0
    assert command.stop() == 0
