"""A process that ends while a server of its runs: it ends in good order, whatever the views do."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading, time, urllib.request, hipflask
from hipflask import _core

app = hipflask.Flask("x")
inside = threading.Event()

@app.get("/sleeps")
def sleeps():
    inside.set()
    time.sleep(0.2)
    return "done"

@app.get("/sleeps-long")
def sleeps_long():
    inside.set()
    time.sleep(60)
    return "done"

@app.get("/computes")
def computes():
    inside.set()
    while True:
        pass

@app.get("/streams")
def streams():
    def pieces():
        while True:
            inside.set()
            time.sleep(0.01)
            yield "x"
    return pieces()

@app.get("/awaits")
async def awaits():
    import asyncio
    inside.set()
    await asyncio.sleep(60)
    return "done"

server = _core.Server(app, ["127.0.0.1:0"])
server.start()
if sys.argv[1] != "idle":
    url = "http://" + server.addresses[0] + "/" + sys.argv[1]
    def ask():
        try:
            urllib.request.urlopen(url).read()
        except OSError:
            pass
    threading.Thread(target=ask, daemon=True).start()
    inside.wait(30)
print("ends")
"""


@pytest.mark.parametrize("view", ["idle", "sleeps", "sleeps-long", "computes", "streams", "awaits"])
def test_a_server_that_nobody_stopped_takes_no_process_down(view):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, view], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
    assert "Fatal" not in done.stderr
