"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from doors import DOORS, Client
from live_server import Server

from hipflask import Flask

# A shell has its background jobs ignore the terminal's signals, which the servers that tests interrupt would
# inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Undo what a test does to the environment: commands leave marks in it for the app that they load."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


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


@pytest.fixture(params=list(DOORS))
def through(request):
    """Opens a client of any app, through one door after the other."""
    opened = []

    def open_client(app, **options):
        opened.append(Client(app, DOORS[request.param], **options))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def serve():
    """Starts live servers for apps, with settings; they end with the test."""
    servers = []

    def start(app, **settings):
        servers.append(Server(app, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
