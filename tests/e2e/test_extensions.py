"""An application with six extensions, served by the engine under the names `flask` and `werkzeug`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import pytest

NEEDED = ("flask_admin", "flask_cors", "flask_limiter", "flask_login", "flask_sqlalchemy", "flask_wtf")
MISSING = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

FRONT = "https://front.example"


@pytest.fixture(scope="module")
def site(serve) -> Iterator[str]:
    server = serve("--as-flask", "--app", "extensions_app", "run", "--port", "0", cwd=Path(__file__).parent)
    yield server.url
    server.stop()


class Visitor:
    """Keeps cookies, follows redirects, and returns answers of every status."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.opener: OpenerDirector = build_opener(HTTPCookieProcessor())

    def open(self, path: str, form: dict[str, str] | None = None, method: str | None = None, **headers: str):
        """Return the answer's status, headers, text and final URL."""
        body = urlencode(form).encode() if form is not None else None
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            answer = self.opener.open(Request(self.site + path, body, fields, method=method), timeout=10)
        except HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers, answer.read().decode(), answer.url

    def log_in(self, **form: str):
        """Fill in the form that `/me` leads to."""
        page = self.open("/me")[2]
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert token is not None, page
        return self.open("/login", {"csrf_token": token[1], **form})


@pytest.fixture
def client(site: str) -> Visitor:
    return Visitor(site)


def test_a_user_logs_in_and_out(client):
    status, _, text, url = client.log_in(name="ada", password="wrong")
    assert (status, "unknown" in text, url.endswith("/login")) == (200, True, True)
    status, _, text, url = client.log_in(name="ada", password="secret")
    assert (status, json.loads(text), url.endswith("/me")) == (200, {"name": "ada"}, True)
    assert client.open("/logout")[3].endswith("/login?next=%2Fme")


def test_a_form_without_its_token_is_refused(client):
    status, _, text, url = client.open("/login", {"name": "ada", "password": "secret"})
    assert (status, "The CSRF token is missing." in text) == (200, True)
    assert client.open("/me")[3].endswith("/login?next=%2Fme")


def test_the_database_is_queried(client):
    assert json.loads(client.open("/api/users")[2]) == {"total": 3, "names": ["ada", "grace"]}
    assert json.loads(client.open("/api/users?page=2")[2])["names"] == ["mary"]
    assert client.open("/api/users?page=9")[0] == 404


def test_a_preflight_from_the_front_end_is_granted(client):
    asked = {"Origin": FRONT, "Access_Control_Request_Method": "PUT"}
    status, headers, text, _ = client.open("/api/users", method="OPTIONS", **asked)
    assert (status, text) == (200, "")
    assert headers["Access-Control-Allow-Origin"] == FRONT
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert "PUT" in headers["Access-Control-Allow-Methods"]
    assert client.open("/api/users", Origin=FRONT)[1]["Access-Control-Allow-Origin"] == FRONT
    assert client.open("/api/users", Origin="https://evil.example")[1]["Access-Control-Allow-Origin"] is None
    assert client.open("/me", Origin=FRONT)[1]["Access-Control-Allow-Origin"] is None


def test_the_fourth_request_is_too_many(client):
    answers = [client.open("/limited") for _ in range(4)]
    assert [status for status, *_ in answers] == [200, 200, 200, 429]
    assert "3 per 1 minute" in answers[-1][2]


def test_the_administration_lists_users_for_those_who_may(client):
    assert client.open("/admin/user/")[3].endswith("/login")
    client.log_in(name="grace", password="secret")
    status, _, text, _ = client.open("/admin/user/")
    assert (status, all(name in text for name in ("ada", "grace", "mary"))) == (200, True)
    status, headers, _, _ = client.open("/admin/static/admin/js/helpers.js")
    assert (status, headers.get_content_type()) == (200, "text/javascript")
