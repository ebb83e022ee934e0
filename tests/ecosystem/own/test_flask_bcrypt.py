"""Flask-Bcrypt: its distribution has no tests."""

import pytest
from flask import Flask
from flask_bcrypt import Bcrypt, generate_password_hash


def test_a_password_is_checked_against_its_hash():
    app = Flask(__name__)
    app.config["BCRYPT_LOG_ROUNDS"] = 4
    bcrypt = Bcrypt(app)
    made = bcrypt.generate_password_hash("hunter2")
    assert made.startswith(b"$2b$04$")
    assert bcrypt.check_password_hash(made, "hunter2")
    assert not bcrypt.check_password_hash(made, "hunter3")


def test_long_passwords_are_hashed_whole():
    app = Flask(__name__)
    app.config.update(BCRYPT_LOG_ROUNDS=4, BCRYPT_HANDLE_LONG_PASSWORDS=True)
    bcrypt = Bcrypt()
    bcrypt.init_app(app)
    made = bcrypt.generate_password_hash("a" * 80)
    assert bcrypt.check_password_hash(made, "a" * 80)
    assert not bcrypt.check_password_hash(made, "a" * 81)


def test_an_empty_password_is_refused():
    with pytest.raises(ValueError):  # noqa: PT011
        generate_password_hash("", 4)
