"""The benchmark's application in BustAPI."""

import os
import sys
import tempfile

from bustapi import BustAPI, render_template, request, session

app = BustAPI(__name__)
app.secret_key = "benchmark"
UPLOAD = tempfile.mkstemp()[1]
ROWS = [{"id": number, "name": f"row {number}", "tag": "<b>"} for number in range(20)]


@app.route("/plain")
def plain():
    return "Hello, World!"


@app.route("/json")
def json():
    return {"message": "Hello, World!"}


@app.route("/users/<int:number>")
def user(number):
    return {"id": number, "q": request.args.get("q", "")}


@app.route("/json", methods=["POST"])
def post_json():
    return {"items": len(request.get_json()["items"])}


@app.route("/form", methods=["POST"])
def form():
    return {"name": request.form["name"], "fields": len(request.form)}


@app.route("/upload", methods=["POST"])
def upload():
    # Its upload objects cannot be read, only saved.
    request.files["file"].save(UPLOAD)
    return {"size": os.path.getsize(UPLOAD)}


@app.route("/page")
def page():
    return render_template("page.html", title="A page", rows=ROWS)


@app.route("/session")
def count():
    session["n"] = session.get("n", 0) + 1
    return {"n": session["n"]}


def many(index):
    def view(name):
        return {"name": name}

    view.__name__ = f"many{index}"
    app.route(f"/many/{index}/<name>")(view)


for index in range(200):
    many(index)

app.run(host="127.0.0.1", port=int(sys.argv[1]), workers=1)
