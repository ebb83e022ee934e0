"""ASGI servers of others, each run by a thread of the test's process, on a port that is free.

`run(name, app)` gives the address of a server that is ready, and how to stop it. The socket listens before
the server is started, so nobody has to wait until it is.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

PATIENCE = 20


def listening() -> tuple[socket.socket, str]:
    """A socket that listens on a free port, and its address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    host, port = listener.getsockname()
    return listener, f"{host}:{port}"


class Uvicorn:
    """uvicorn, with one of its implementations of WebSockets."""

    def __init__(self, app: Any, websockets: str, grace: int | None = None) -> None:
        import uvicorn

        self._socket, self.address = listening()
        config = uvicorn.Config(
            app, ws=websockets, lifespan="off", log_config=None, timeout_graceful_shutdown=grace
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> bool:
        """Stop it as a signal does; give whether it has ended in time."""
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        self._socket.close()
        return not self._thread.is_alive()


class Hypercorn:
    """hypercorn."""

    def __init__(self, app: Any, grace: float = 1.0) -> None:
        from hypercorn.config import Config

        self._socket, self.address = listening()
        self._config = Config()
        self._config.bind = [f"fd://{self._socket.detach()}"]
        self._config.graceful_timeout = grace
        self._config.errorlog = None
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._begun.wait(PATIENCE)

    async def _run(self) -> None:
        from hypercorn.asyncio import serve

        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._begun.set()
        await serve(self._app, self._config, shutdown_trigger=self._stopped.wait)

    def stop(self) -> bool:
        """Stop it as a signal does; give whether it has ended in time."""
        assert self._loop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()


class Ours:
    """Hipflask's own server, with the app as itself, or as an ASGI application."""

    def __init__(self, app: Any) -> None:
        from hipflask import _core

        self._server = _core.Server(app, ["127.0.0.1:0"])
        self._server.start()
        self.address = self._server.addresses[0]

    def stop(self) -> bool:
        """Stop it as a signal does; give whether it has ended in time."""
        return self._server.stop(1, PATIENCE)


def run(name: str, app: Any) -> Uvicorn | Hypercorn | Ours:
    """Start a server for a Flask app."""
    if name == "engine":
        return Ours(app)
    if name == "engine-asgi":
        from hipflask.asgi import Host

        return Ours(Host(app.asgi_app, lifespan="off"))
    if name == "hypercorn":
        return Hypercorn(app.asgi_app)
    return Uvicorn(app.asgi_app, name.removeprefix("uvicorn-"))
