"""Flask-SeaSurf: its distribution has no tests."""

import pytest
from flask import Flask, render_template_string
from flask_seasurf import SeaSurf


@pytest.fixture
def app():
    app = Flask(__name__)
    app.secret_key = "k"
    surf = SeaSurf(app)

    @app.route("/form")
    def form():
        return render_template_string("{{ csrf_token() }}")

    @app.post("/change")
    def change():
        return "changed"

    @app.post("/hook")
    @surf.exempt
    def hook():
        return "hooked"

    return app


def test_a_form_needs_the_token_of_its_cookie(app):
    client = app.test_client()
    token = client.get("/form").text
    assert client.get_cookie("_csrf_token").value == token
    assert client.post("/change").status_code == 403
    assert client.post("/change", data={"_csrf_token": token + "x"}).status_code == 403
    assert client.post("/change", data={"_csrf_token": token}).text == "changed"
    assert client.post("/change", headers={"X-CSRFToken": token}).text == "changed"


def test_over_https_the_referrer_counts(app):
    client = app.test_client()
    token = client.get("/form", base_url="https://a.example").text
    options = {"base_url": "https://a.example", "data": {"_csrf_token": token}}
    assert client.post("/change", **options).status_code == 403
    assert client.post("/change", headers={"Referer": "https://b.example/"}, **options).status_code == 403
    assert client.post("/change", headers={"Referer": "https://a.example/x"}, **options).text == "changed"


def test_an_exempt_view_needs_none(app):
    assert app.test_client().post("/hook").text == "hooked"


def test_the_cookie_varies_the_answer(app):
    answer = app.test_client().get("/form")
    assert "Cookie" in answer.headers["Vary"]
    assert "_csrf_token=" in answer.headers["Set-Cookie"]
