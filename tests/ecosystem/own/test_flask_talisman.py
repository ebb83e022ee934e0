"""flask-talisman: its distribution has no tests."""

import pytest
from flask import Flask, render_template_string
from flask_talisman import ALLOW_FROM, Talisman


@pytest.fixture
def app():
    return Flask(__name__)


def test_plain_requests_are_sent_to_https(app):
    Talisman(app)
    app.add_url_rule("/", "index", lambda: "ok")
    answer = app.test_client().get("/?a=1")
    assert (answer.status_code, answer.location) == (302, "https://localhost/?a=1")
    answer = app.test_client().get("/", headers={"X-Forwarded-Proto": "https"})
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31556926; includeSubDomains"


def test_the_headers_of_a_page(app):
    Talisman(app, permissions_policy={"camera": "()"}, referrer_policy="no-referrer")
    app.add_url_rule("/", "index", lambda: "ok")
    headers = app.test_client().get("/", base_url="https://localhost").headers
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'self'; object-src 'none'"
    assert headers["Permissions-Policy"] == "camera=()"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_view_has_options_of_its_own(app):
    talisman = Talisman(app)

    @app.route("/embedded")
    @talisman(frame_options=ALLOW_FROM, frame_options_allow_from="https://a.example", force_https=False)
    def embedded():
        return "ok"

    answer = app.test_client().get("/embedded")
    assert answer.status_code == 200
    assert answer.headers["X-Frame-Options"] == "ALLOW-FROM https://a.example"


def test_a_page_has_its_nonce(app):
    policy = {"default-src": "'self'", "script-src": "'self'"}
    Talisman(
        app,
        content_security_policy=policy,
        content_security_policy_nonce_in=["script-src"],
        force_https=False,
    )
    app.add_url_rule("/", "index", lambda: render_template_string("{{ csp_nonce() }}"))
    answer = app.test_client().get("/")
    assert len(answer.text) == 32
    assert f"script-src 'self' 'nonce-{answer.text}'" in answer.headers["Content-Security-Policy"]


def test_cookies_are_secure(app):
    app.secret_key = "k"
    Talisman(app, session_cookie_samesite="Strict")
    app.test_client().get("/")
    assert app.config["SESSION_COOKIE_SECURE"]
    assert app.config["SESSION_COOKIE_HTTPONLY"]
    assert app.config["SESSION_COOKIE_SAMESITE"] == "Strict"
