"""A page that shows how far a task has come, by server-sent events.

The task runs beside the requests (`app.background`) and publishes on a channel of its own. The page reads the
channel with `EventSource`; one that loses the line comes back by itself and is told what it has missed.
"""

from __future__ import annotations

import time
from uuid import uuid4

from hipflask import Channels, Flask, redirect, render_template, url_for
from hipflask.typing import ResponseReturnValue

app = Flask(__name__)
tasks = Channels(history=1)

STEPS = 20
app.config["PAUSE"] = 0.2


def work(task: str) -> None:
    """Do what takes its time."""
    for step in range(1, STEPS + 1):
        time.sleep(app.config["PAUSE"])
        tasks[task].publish({"done": step, "of": STEPS}, event="progress")


@app.get("/")
def index() -> ResponseReturnValue:
    return render_template("index.html")


@app.post("/tasks")
def start() -> ResponseReturnValue:
    task = uuid4().hex
    app.background(work, task)
    return redirect(url_for("show", task=task), 303)


@app.get("/tasks/<task>")
def show(task: str) -> ResponseReturnValue:
    return render_template("task.html", task=task)


@app.get("/tasks/<task>/events")
def events(task: str) -> ResponseReturnValue:
    # Who comes late is told the last state.
    return tasks[task].stream(replay=1)
