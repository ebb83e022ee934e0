"""What the request, the session and `g` hold."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from typing_extensions import assert_type

from hipflask import Flask, current_app, flash, g, get_flashed_messages, request, session
from hipflask.werkzeug.datastructures import (
    Authorization,
    FileStorage,
    Headers,
    ImmutableMultiDict,
    MultiDict,
)
from hipflask.werkzeug.routing import Rule

app = Flask(__name__)


@app.post("/")
def view() -> str:
    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.query_string, bytes)
    assert_type(request.args, MultiDict[str, str])
    assert_type(request.args["a"], str)
    assert_type(request.args.get("a"), str | None)
    assert_type(request.args.get("a", ""), str)
    assert_type(request.args.get("a", type=int), int | None)
    assert_type(request.args.get("a", 0, type=int), int)
    assert_type(request.args.get("a", None, int), int | None)
    assert_type(request.args.getlist("a"), list[str])
    assert_type(request.args.getlist("a", int), list[int])
    assert_type(request.args.to_dict(), dict[str, str])
    assert_type(request.args.to_dict(flat=False), dict[str, list[str]])
    assert_type(request.form, ImmutableMultiDict[str, str])
    assert_type(request.files["f"], FileStorage)
    assert_type(request.files["f"].filename, str | None)
    assert_type(request.cookies.get("c"), str | None)
    assert_type(request.headers.get("X-Number", type=int), int | None)
    assert_type(request.headers["Host"], str)
    assert_type(request.get_data(), bytes)
    assert_type(request.get_data(as_text=True), str)
    assert_type(request.authorization, Authorization | None)
    assert_type(request.if_modified_since, datetime | None)
    assert_type(request.url_rule, Rule | None)
    assert_type(request.endpoint, str | None)
    assert_type(request.blueprints, list[str])
    assert_type(request.content_length, int | None)
    assert_type(request.remote_addr, str | None)
    payload: Any = request.get_json(silent=True)
    best = request.accept_mimetypes.best_match(["application/json", "text/html"])
    assert_type(best, str | None)
    session["user"] = payload["user"]
    session.permanent = True
    user: str = session.get("user", "")
    g.user = user
    if "user" in g:
        g.pop("user")
    flash("done", "info")
    for category, message in get_flashed_messages(with_categories=True):
        print(category, message)
    secret: str = current_app.config["SECRET_KEY"]
    return f"{g.get('user')} {secret}"


headers = Headers([("A", "b")])
assert_type(headers.get("A"), str | None)
assert_type(headers["A"], str)
assert_type(headers.getlist("A"), list[str])
headers.add("Content-Disposition", "attachment", filename="a.txt")
pairs: list[tuple[str, int]] = [("a", 1), ("a", 2)]
numbers = MultiDict(pairs)
assert_type(numbers, MultiDict[str, int])
assert_type(numbers.getlist("a"), list[int])
