"""flask-babel: its distribution has no tests."""

from datetime import datetime

import pytest
from flask import Flask, render_template_string, request
from flask_babel import (
    Babel,
    force_locale,
    format_currency,
    format_datetime,
    format_decimal,
    get_locale,
    gettext,
    lazy_gettext,
    ngettext,
    refresh,
)

WHEN = datetime(2026, 4, 12, 13, 46)


@pytest.fixture
def app():
    app = Flask(__name__)
    Babel(
        app,
        locale_selector=lambda: request.accept_languages.best_match(["de", "en"]) if request else None,
        timezone_selector=lambda: "Europe/Vienna",
    )

    @app.get("/")
    def index():
        return render_template_string("{{ when | datetimeformat }} {{ 12345.6 | decimalformat }}", when=WHEN)

    return app


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Apr 12, 2026, 3:46:00\u202fPM 12,345.6"),
        ("de-AT, de;q=0.8", "12.04.2026, 15:46:00 12.345,6"),
        ("fr, en;q=0.5", "Apr 12, 2026, 3:46:00\u202fPM 12,345.6"),
    ],
)
def test_the_browsers_language_decides(app, language, text):
    assert app.test_client().get("/", headers={"Accept-Language": language}).text == text


def test_a_locale_is_kept_for_the_request_and_can_be_forced(app):
    with app.test_request_context("/", headers={"Accept-Language": "de"}):
        assert str(get_locale()) == "de"
        with force_locale("en"):
            assert format_decimal(1234.5) == "1,234.5"
        assert format_decimal(1234.5) == "1.234,5"
        assert format_currency(3, "EUR") == "3,00\xa0€"
        refresh()
        assert format_datetime(WHEN, "yyyy") == "2026"


def test_texts_without_translation_are_as_they_are(app):
    lazy = lazy_gettext("Hello %(name)s", name="you")
    with app.test_request_context("/"):
        assert gettext("Hello %(name)s", name="me") == "Hello me"
        assert ngettext("%(num)s cat", "%(num)s cats", 3) == "3 cats"
        assert str(lazy) == "Hello you"
