"""A small application with a little of everything: a page, JSON, a form, a session, an error page.

Start it with `hipflask run` in this directory.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation

from hipflask import (
    Flask,
    abort,
    flash,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)

app = Flask(__name__)
# Good enough to try things out. A site that is more than an example has a key of its own, and tells nobody.
app.secret_key = os.environ.get("SECRET_KEY", "an example has no secrets")

#: Who signed the guest book, newest first. It is in memory: it ends with the process.
guests: list[dict[str, object]] = []
KEPT = 20


@app.route("/")
def index():
    """The page, which counts how often this browser has seen it."""
    session["visits"] = session.get("visits", 0) + 1
    return render_template("index.html", visits=session["visits"], guests=guests)


@app.post("/guests")
def sign():
    """Take the form."""
    name = request.form["name"].strip()
    if not name:
        flash("Please tell us your name.", "error")
    elif len(name) > 40:
        flash("That name is longer than 40 characters.", "error")
    else:
        guests.insert(0, {"name": name, "at": datetime.now(timezone.utc)})
        del guests[KEPT:]
        flash(f"Welcome, {name}!")
    return redirect(url_for("index"))


@app.get("/api/guests")
def guests_as_json():
    """The guest book for programs: dates become HTTP dates."""
    return jsonify(guests=guests, count=len(guests))


@app.get("/api/add/<int(signed=True):a>/<int(signed=True):b>")
def add(a: int, b: int):
    """A dictionary is JSON, too."""
    return {"a": a, "b": b, "sum": a + b}


def amount(text: str) -> Decimal:
    """Read a number; `args.get` falls back to its default when this raises ValueError."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None


@app.get("/api/price")
def price():
    """Numbers from the query string: `?net=10.50&tax=0.19`."""
    net = request.args.get("net", default=Decimal(10), type=amount)
    tax = request.args.get("tax", default=Decimal("0.19"), type=amount)
    return {"net": net, "tax": tax, "gross": net * (1 + tax)}


@app.post("/api/echo")
def echo():
    """Give back the JSON that came in."""
    return jsonify(request.get_json())


@app.post("/forget")
def forget():
    """Empty the session."""
    session.clear()
    flash("Forgotten.")
    return redirect(url_for("index"))


@app.get("/teapot")
def teapot():
    """An error on purpose."""
    abort(418)


@app.errorhandler(404)
@app.errorhandler(418)
def error_page(error):
    """Errors look like the rest of the site, and are JSON for programs."""
    if request.path.startswith("/api/"):
        return {"error": error.name, "message": error.description}, error.code
    return make_response(render_template("error.html", error=error), error.code)
