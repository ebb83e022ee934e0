"""The example `examples/hello`."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "examples" / "hello" / "app.py"


@pytest.fixture
def client(monkeypatch):
    spec = importlib.util.spec_from_file_location("hello_example", APP)
    module = importlib.util.module_from_spec(spec)
    # An application finds its templates by its module.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module.app.test_client()


def test_the_page_counts_visits(client):
    assert "first visit" in client.get("/").text
    page = client.get("/").text
    assert "2 times" in page
    with client.get(re.search(r'href="([^"]+\.css)"', page)[1]) as style:
        assert style.mimetype == "text/css"


def test_the_form_signs_the_guest_book(client):
    response = client.post("/guests", data={"name": " <Ann> "}, follow_redirects=True)
    assert "Welcome, &lt;Ann&gt;!" in response.text
    assert [guest["name"] for guest in client.get("/api/guests").json["guests"]] == ["<Ann>"]
    assert "Welcome" not in client.get("/").text


@pytest.mark.parametrize(
    ("name", "message"), [("  ", "Please tell us your name"), ("x" * 41, "longer than 40")]
)
def test_a_bad_name_is_told(client, name, message):
    assert message in client.post("/guests", data={"name": name}, follow_redirects=True).text
    assert client.get("/api/guests").json["count"] == 0


def test_a_form_without_the_field_is_refused(client):
    assert client.post("/guests").status_code == 400


def test_the_session_is_forgotten(client):
    client.get("/")
    assert "first visit" in client.post("/forget", follow_redirects=True).text


def test_json(client):
    assert client.get("/api/add/-40/2").json == {"a": -40, "b": 2, "sum": -38}
    assert client.get("/api/price?net=10.50").json == {"net": "10.50", "tax": "0.19", "gross": "12.4950"}
    assert client.get("/api/price?net=no").json["net"] == "10"
    assert client.post("/api/echo", json={"x": [None]}).json == {"x": [None]}
    assert client.post("/api/echo", data="x").status_code == 415


def test_errors(client):
    response = client.get("/api/nowhere")
    assert (response.status_code, response.json["error"]) == (404, "Not Found")
    assert "404 Not Found" in client.get("/nowhere").text
    assert client.get("/teapot").status_code == 418
