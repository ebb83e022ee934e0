"""Clients of the test inside of running loops: the one that is awaited, and the ordinary one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hipflask import Flask, abort, g, redirect, request, session


def test_coroutine_views_and_hooks_run_on_the_loop_of_who_awaits(app):
    threads: list[tuple[str, str]] = []

    def note(what: str) -> None:
        threads.append((what, threading.current_thread().name))

    @app.before_request
    async def before():
        note("before")

    @app.errorhandler(418)
    async def handler(error):
        note("handler")
        return "teapot", 418

    @app.teardown_request
    async def teardown(error):
        note("teardown")

    @app.route("/async")
    async def async_view():
        note("async")
        await asyncio.sleep(0)
        abort(418)

    @app.route("/sync")
    def sync_view():
        note("sync")
        return "sync"

    async def test() -> None:
        client = app.async_test_client()
        assert (await client.get("/async")).status_code == 418
        assert (await client.get("/sync")).text == "sync"

    asyncio.run(test())
    main = threading.main_thread().name
    assert threads == [
        *((what, main) for what in ("before", "async", "handler", "teardown", "before")),
        ("sync", "hipflask-visit"),
        ("teardown", main),
    ]


def test_requests_may_wait_for_each_other(app):
    many = 50
    arrived: list[asyncio.Future[None]] = []

    @app.route("/<int:number>")
    async def view(number):
        arrived.append(asyncio.get_running_loop().create_future())
        if len(arrived) == many:
            for future in arrived:
                future.set_result(None)
        await arrived[-1] if len(arrived) == many else await arrived[len(arrived) - 1]
        return f"{request.path} {number}"

    async def test() -> list[str]:
        client = app.async_test_client()
        return [answer.text for answer in await asyncio.gather(*(client.get(f"/{i}") for i in range(many)))]

    assert asyncio.run(test()) == [f"/{i} {i}" for i in range(many)]


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options", "head", "trace"])
def test_every_method_can_be_sent(app, method):
    @app.route("/", methods=[method.upper()], provide_automatic_options=False)
    async def view():
        return "", {"X-Method": request.method, "X-Body": request.get_data(as_text=True)}

    async def test() -> None:
        answer = await getattr(app.async_test_client(), method)("/", data="body")
        assert (answer.headers["X-Method"], answer.headers["X-Body"]) == (method.upper(), "body")

    asyncio.run(test())


def test_cookies_redirects_and_sessions_work_as_in_the_ordinary_client(app):
    app.secret_key = "key"

    @app.route("/")
    async def view():
        session["n"] = session.get("n", 0) + 1
        return redirect("/n")

    @app.route("/n")
    async def number():
        return {"n": session["n"]}

    async def test() -> None:
        client = app.async_test_client()
        with client.session_transaction() as before:
            before["n"] = 41
        answer = await client.get("/", follow_redirects=True)
        assert answer.json == {"n": 42}
        assert client.client.get_cookie("session") is not None

    asyncio.run(test())


def test_a_block_keeps_the_context_of_the_last_request(app):
    @app.route("/<name>")
    async def view(name):
        g.name = name
        return name

    async def test() -> None:
        async with app.async_test_client() as client:
            await client.get("/a")
            await client.get("/b")
            assert (request.path, g.name) == ("/b", "b")
        assert not request

    asyncio.run(test())


def test_errors_reach_the_test(app):
    app.testing = True

    @app.route("/<kind>")
    async def view(kind):
        raise {"value": ValueError, "stop": StopAsyncIteration}[kind]("wrong")

    async def test() -> None:
        client = app.async_test_client()
        with pytest.raises(ValueError, match="wrong"):
            await client.get("/value")
        with pytest.raises(StopAsyncIteration):
            await client.get("/stop")

    asyncio.run(test())


def test_cancelling_a_request_cancels_its_view(app):
    calls: list[str] = []

    @app.teardown_request
    def teardown(error):
        calls.append("teardown")

    @app.route("/")
    async def view():
        try:
            await asyncio.sleep(60)
        finally:
            calls.append("cancelled")

    async def test() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(app.async_test_client().get("/"), 0.05)
        assert calls == ["cancelled", "teardown"]

    asyncio.run(test())


def test_the_ordinary_client_works_inside_of_a_running_loop(app):
    @app.route("/")
    async def view():
        await asyncio.sleep(0)
        return "served"

    async def test() -> None:
        assert app.test_client().get("/").text == "served"

    asyncio.run(test())


def test_middleware_and_replaced_methods_are_called():
    class Own(Flask):
        def full_dispatch_request(self):
            calls.append("dispatch")
            return super().full_dispatch_request()

    calls: list[str] = []
    own = Own("own")
    inner = own.wsgi_app

    def middleware(environ, start_response):
        calls.append("middleware")
        return inner(environ, start_response)

    own.wsgi_app = middleware  # type: ignore[method-assign]

    @own.route("/")
    async def view():
        return threading.current_thread().name

    async def test() -> None:
        assert (await own.async_test_client().get("/")).text == threading.main_thread().name

    asyncio.run(test())
    assert calls == ["middleware", "dispatch"]
