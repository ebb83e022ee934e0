"""The benchmark's application in Flask's API: on Hipflask, or with BENCH_FRAMEWORK=flask on Flask itself."""

import asyncio
import os

if os.environ.get("BENCH_FRAMEWORK", "hipflask") == "flask":
    from flask import Flask, render_template, request, session
else:
    from hipflask import Flask, render_template, request, session
import time

app = Flask(__name__)
app.secret_key = "benchmark"
ROWS = [{"id": number, "name": f"row {number}", "tag": "<b>"} for number in range(20)]


def spin_count(milliseconds: float) -> int:
    """How many turns of the loop in `spin` take so long on this machine."""
    start = time.thread_time()
    total = 0
    for number in range(1_000_000):
        total += number
    return int(1_000_000 * milliseconds / 1000 / (time.thread_time() - start))


SPIN = spin_count(20)


@app.route("/plain")
def plain():
    return "Hello, World!"


@app.route("/async")
async def coroutine():
    return "Hello, World!"


@app.route("/async-sleep")
async def sleeping():
    await asyncio.sleep(0)
    return "Hello, World!"


@app.route("/json")
def json():
    return {"message": "Hello, World!"}


@app.route("/users/<int:number>")
def user(number):
    return {"id": number, "q": request.args.get("q", "")}


@app.post("/json")
def post_json():
    return {"items": len(request.get_json()["items"])}


@app.post("/form")
def form():
    return {"name": request.form["name"], "fields": len(request.form)}


@app.post("/upload")
def upload():
    return {"size": len(request.files["file"].read())}


@app.route("/page")
def page():
    return render_template("page.html", title="A page", rows=ROWS)


@app.route("/session")
def count():
    session["n"] = session.get("n", 0) + 1
    return {"n": session["n"]}


@app.route("/sleep50")
def sleep50():
    time.sleep(0.05)
    return "slept"


@app.route("/sleep1")
def sleep1():
    time.sleep(0.001)
    return "slept"


@app.route("/spin")
def spin():
    total = 0
    for number in range(SPIN):
        total += number
    return "spun"


for index in range(200):
    app.add_url_rule(f"/many/{index}/<name>", f"many{index}", lambda name: {"name": name})
