"""Converters, JSON providers, sessions, request and response classes of users' own; tests of apps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hipflask import Config, Flask, Request, Response, json
from hipflask.json.provider import DefaultJSONProvider
from hipflask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from hipflask.testing import FlaskClient, FlaskCliRunner
from hipflask.werkzeug.routing import BaseConverter, Map, Rule
from hipflask.werkzeug.test import TestResponse


class ListConverter(BaseConverter):
    regex = r"\w+(?:,\w+)*"
    part_isolating = True

    def __init__(self, map: Map, separator: str = ",") -> None:
        super().__init__(map)
        self.separator = separator

    def to_python(self, value: str) -> list[str]:
        return value.split(self.separator)

    def to_url(self, value: list[str]) -> str:
        return self.separator.join(super(ListConverter, self).to_url(item) for item in value)


class Provider(DefaultJSONProvider):
    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps(obj, **kwargs)


class Sessions(SessionInterface):
    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        return SecureCookieSessionInterface().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        SecureCookieSessionInterface().save_session(app, session, response)


class OwnRequest(Request):
    max_content_length = 1024

    @property
    def token(self) -> str | None:
        return self.headers.get("X-Token")


class OwnResponse(Response):
    default_mimetype = "text/plain"


class App(Flask):
    request_class = OwnRequest
    response_class = OwnResponse
    json_provider_class = Provider
    session_interface = Sessions()


def create_app(**settings: Any) -> App:
    app = App(__name__, instance_relative_config=True)
    app.config.from_mapping(settings)
    app.config.from_prefixed_env()
    app.config.from_file("config.json", load=json.load, silent=True)
    config: Config = app.config
    config.update(TESTING=True)
    app.url_map.converters["list"] = ListConverter
    app.url_map.add(Rule("/plain", endpoint="plain"))
    return app


def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


def test_page(app: Flask, client: FlaskClient, runner: FlaskCliRunner) -> None:
    response: TestResponse = client.post(
        "/", json={"a": 1}, headers={"X-Token": "t"}, query_string={"q": "1"}
    )
    assert response.status_code == 200
    assert response.get_json() == {"a": 1}
    assert response.text == ""
    with client.session_transaction() as session:
        session["user"] = "a"
    with app.test_request_context("/?a=1", method="POST", data={"b": "2"}):
        app.preprocess_request()
    assert runner.invoke(args=["greet", "name"]).exit_code == 0
