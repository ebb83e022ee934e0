"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from doors import DOORS, Client

from hipflask import Flask


@pytest.fixture
def app() -> Flask:
    """An app with a secret key. Its errors become responses, as in production."""
    app = Flask("test_app", root_path=__file__.rpartition("/")[0])
    app.secret_key = "for tests only"
    return app


@pytest.fixture(params=list(DOORS))
def client(request: pytest.FixtureRequest, app: Flask) -> Iterator[Client]:
    """A client of `app`, once for each door."""
    client = Client(app, DOORS[request.param])
    yield client
    client.close()
