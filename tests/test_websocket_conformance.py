"""The core cases of the Autobahn testsuite against the live engine; `make autobahn` runs all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hipflask import Flask, _core

RUN = Path(__file__).parent / "autobahn" / "run"
#: With the core cases, one compression case of each section with all that it takes: about five seconds.
CASES = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.1.1,9.2.1,9.7.1,9.8.1,10.*,12.1.5,12.2.11,13.3.5,13.5.6,13.7.7"


def echo_sync(app: Flask) -> None:
    @app.websocket("/")
    def view(ws):
        for message in ws:
            ws.send(message)


def echo_async(app: Flask) -> None:
    @app.websocket("/")
    async def view(ws):
        async for message in ws:
            await ws.send(message)


def echo_callback(app: Flask) -> None:
    @app.websocket("/")
    def view(ws):
        ws.on_message(ws.send)


@pytest.mark.parametrize("echo", [echo_sync, echo_async, echo_callback])
def test_the_autobahn_testsuites_core_cases_pass(app, echo):
    app.config["WEBSOCKET_MAX_MESSAGE_SIZE"] = 16 << 20
    app.config["WEBSOCKET_PING_INTERVAL"] = 0
    echo(app)
    server = _core.Server(app, ["127.0.0.1:0"])
    server.start()
    try:
        line = [sys.executable, str(RUN), "--url", f"ws://{server.addresses[0]}/", "--cases", CASES]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    finally:
        server.stop()
    assert done.returncode == 0, done.stdout + done.stderr
