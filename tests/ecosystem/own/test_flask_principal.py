"""Flask-Principal: its distribution has no tests."""

import pytest
from flask import Flask, g
from flask_principal import (
    AnonymousIdentity,
    Identity,
    Permission,
    PermissionDenied,
    Principal,
    RoleNeed,
    identity_changed,
    identity_loaded,
)

editor = Permission(RoleNeed("editor"))


@pytest.fixture
def app():
    app = Flask(__name__)
    app.secret_key = "k"
    app.testing = True
    Principal(app)

    @identity_loaded.connect_via(app)
    def load(sender, identity):
        if identity.id == "ada":
            identity.provides.add(RoleNeed("editor"))

    @app.get("/as/<name>")
    def become(name):
        identity_changed.send(app, identity=Identity(name))
        return g.identity.id

    @app.get("/leave")
    def leave():
        identity_changed.send(app, identity=AnonymousIdentity())
        return "gone"

    @app.get("/edit")
    @editor.require(403)
    def edit():
        return "edited"

    @app.get("/raise")
    def denied():
        with editor.require():
            return "edited"

    return app


def test_an_identity_stays_in_the_session(app):
    client = app.test_client()
    assert client.get("/edit").status_code == 403
    assert client.get("/as/ada").text == "ada"
    assert client.get("/edit").text == "edited"
    with client.session_transaction() as session:
        assert session["identity.id"] == "ada"


def test_another_identity_may_not(app):
    client = app.test_client()
    client.get("/as/bob")
    assert client.get("/edit").status_code == 403


def test_a_denied_permission_is_raised(app):
    with pytest.raises(PermissionDenied):
        app.test_client().get("/raise")


def test_a_permission_answers_within_a_request(app):
    with app.test_request_context("/"):
        app.preprocess_request()
        assert not editor.can()
        identity_changed.send(app, identity=Identity("ada"))
        assert editor.can()
        assert editor.reverse().can() is False
