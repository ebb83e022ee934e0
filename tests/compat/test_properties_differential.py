"""Headers, cookies, query strings, forms and URLs of any shape, on Flask and on Hipflask.

``HIPFLASK_EXAMPLES`` sets how many examples are tried.
"""

from __future__ import annotations

import os
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from stage import Kit, Wire, ask, between, through_wsgi

# Both leave what was spooled of a broken form to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
MANY = settings(
    max_examples=int(os.environ.get("HIPFLASK_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
TOKEN = st.text(string.ascii_letters + string.digits + "-!#$%&'*+.^`|~", min_size=1, max_size=10)
QUERY = st.text(string.ascii_letters + string.digits + "&=%+;?/:@[]!$'()*,~-._", max_size=40)


def echo(kit: Kit) -> Any:
    """An app that tells what it understood."""
    app = kit.app()
    request = kit.flask.request

    @app.route("/", methods=["GET", "POST"])
    def index() -> Any:
        skipped = {"Host", "Content-Length", "Connection"}
        return {
            "args": list(request.args.items(multi=True)),
            "cookies": list(request.cookies.items(multi=True)),
            "headers": sorted(pair for pair in request.headers.items() if pair[0] not in skipped),
            "form": list(request.form.items(multi=True)),
            "files": [
                (n, f.filename, f.content_type, f.read().decode("latin1"))
                for n, f in request.files.items(multi=True)
            ],
            "full_path": request.full_path,
        }

    return app


class Pair:
    """The reference, and ours through each door."""

    def __init__(self, build: Any) -> None:
        self.theirs = build(Kit("flask"))
        self.ours = build(Kit("hipflask"))
        self.fast = Wire(build(Kit("hipflask")))
        full = build(Kit("hipflask"))
        inner = full.wsgi_app
        full.wsgi_app = lambda environ, start_response: inner(environ, start_response)
        self.full = Wire(full)

    def compare(self, asked: Any) -> None:
        headers = list(asked.headers)
        expected = through_wsgi(self.theirs, asked, headers)
        assert not list(between(asked, expected, through_wsgi(self.ours, asked, headers), "wsgi"))
        for door in (self.fast, self.full):
            assert not list(between(asked, expected, door.send(asked, headers), "live"))

    def close(self) -> None:
        self.fast.close()
        self.full.close()


@pytest.fixture(scope="module")
def pair():
    made = Pair(echo)
    yield made
    made.close()


@MANY
@given(query=QUERY)
def test_queries(pair: Pair, query: str) -> None:
    pair.compare(ask("/?" + query))


@MANY
@given(
    names=st.lists(TOKEN, max_size=4, unique_by=str.lower), values=st.lists(VISIBLE, min_size=4, max_size=4)
)
def test_headers(pair: Pair, names: list[str], values: list[str]) -> None:
    known = {"content-length", "transfer-encoding", "host", "connection", "expect", "upgrade", "te", "cookie"}
    assume(not any(name.lower() in known for name in names))
    pair.compare(ask("/", headers=[("X-" + name, value) for name, value in zip(names, values, strict=False)]))


@MANY
@given(
    cookie=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
)
def test_cookies(pair: Pair, cookie: str) -> None:
    # Spaces around a field's value are not a part of it.
    pair.compare(ask("/", headers={"Cookie": cookie.strip(" ")}))


@MANY
@given(body=st.one_of(QUERY.map(str.encode), st.binary(max_size=60)))
def test_forms(pair: Pair, body: bytes) -> None:
    pair.compare(ask("POST /", body=body, headers={"Content-Type": "application/x-www-form-urlencoded"}))


FIELD = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=8)
PART = st.tuples(
    FIELD,
    st.none() | FIELD,
    st.none() | st.sampled_from(["text/plain", "a/b; c=d", "image/png"]),
    st.binary(max_size=30),
)


@MANY
@given(parts=st.lists(PART, max_size=4), cut=st.integers(0, 12))
def test_multipart(pair: Pair, parts: Any, cut: int) -> None:
    from stage import multipart

    headers, body = multipart(*parts)
    pair.compare(ask("POST /", headers=headers, body=body[: len(body) - cut]))


VALUES = st.fixed_dictionaries(
    {
        "text": TEXT.filter(lambda text: text and "/" not in text and text not in {".", ".."}),
        "number": st.integers(0, 10**12),
        "rest": TEXT.filter(
            lambda text: text and not text.startswith("/") and not text.endswith("/") and "//" not in text
        ),
        "extra": TEXT,
    }
)


@MANY
@given(values=VALUES)
def test_url_for_leads_back_to_its_view(values: dict[str, Any]) -> None:
    found = []
    for kit in (Kit("flask"), Kit("hipflask")):
        app = kit.app()
        app.add_url_rule(
            "/t/<text>/<int:number>/<path:rest>", "view", lambda **given: repr(sorted(given.items()))
        )
        with app.test_request_context():
            url = kit.flask.url_for("view", **values)
        with app.test_request_context(url):
            request = kit.flask.request
            found.append((url, request.view_args, request.args["extra"]))
    assert found[0] == found[1]
    if not any(ord(letter) < 32 for value in values.values() for letter in str(value)):
        # Line ends do not match in Werkzeug.
        wanted = {key: values[key] for key in ("text", "number", "rest")}
        assert found[0][1:] == (wanted, values["extra"])
