"""`before_serving`, `while_serving` and `after_serving`: on the live engine and in tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from doors import Client, LiveDoor

from hipflask import Blueprint, Flask, current_app, g
from hipflask.werkzeug.middleware.proxy_fix import ProxyFix


def recorded(app: Flask) -> list[str]:
    """Give an app one function of each kind, which note when they run."""
    calls: list[str] = []

    def note(what: str) -> None:
        calls.append(f"{what} {current_app.name} {threading.current_thread().name}")

    @app.before_serving
    async def before():
        await asyncio.sleep(0)
        note("before")

    @app.before_serving
    def sync_before():
        note("sync before")

    @app.while_serving
    async def around():
        note("begin")
        yield
        note("end")

    @app.while_serving
    def sync_around():
        note("sync begin")
        yield
        note("sync end")

    @app.after_serving
    async def after():
        await asyncio.sleep(0)
        note("after")

    @app.after_serving
    def sync_after():
        note("sync after")

    return calls


BEGIN = ["before", "sync before", "begin", "sync begin"]
END = ["after", "sync after", "sync end", "end"]


def noted(names: list[str], thread: str = "hipflask-loop") -> list[str]:
    return [f"{name} app {thread}" for name in names]


@pytest.fixture
def app() -> Flask:
    return Flask("app")


def test_a_server_runs_them_on_the_loop_when_it_starts_and_ends(app):
    calls = recorded(app)
    app.add_url_rule("/", view_func=lambda: "served")
    door = LiveDoor(app)
    assert calls == noted(BEGIN)
    assert door.exchange("GET", "http://localhost/", [], b"").text == "served"
    door.close()
    assert calls == noted(BEGIN + END)
    door.server.stop(0)
    assert calls == noted(BEGIN + END)


def test_they_are_found_inside_of_middleware(app):
    calls = recorded(app)
    LiveDoor(ProxyFix(ProxyFix(app))).close()  # type: ignore[arg-type]
    assert calls == noted(BEGIN + END)


def test_two_servers_of_one_app_share_a_lifespan(app):
    calls = recorded(app)
    first, second = LiveDoor(app), LiveDoor(app)
    assert calls == noted(BEGIN)
    first.close()
    assert calls == noted(BEGIN)
    second.close()
    assert calls == noted(BEGIN + END)


def test_blueprints_have_them_too(app):
    calls: list[str] = []
    blueprint = Blueprint("b", __name__)
    blueprint.before_app_serving(lambda: calls.append("before"))
    blueprint.after_app_serving(lambda: calls.append("after"))

    @blueprint.while_app_serving
    async def around():
        calls.append("begin")
        yield
        calls.append("end")

    app.register_blueprint(blueprint)
    LiveDoor(app).close()
    assert calls == ["before", "begin", "after", "end"]


def test_what_they_make_is_there_for_requests(app):
    held: dict[str, object] = {}

    @app.while_serving
    async def pool():
        held["lock"] = asyncio.Lock()
        held["task"] = asyncio.create_task(asyncio.sleep(0, "made at the start"))
        yield
        held.clear()

    @app.route("/")
    async def view():
        async with held["lock"]:
            return await held["task"]

    door = Client(app, LiveDoor)
    try:
        assert door.get("/").text == "made at the start"
    finally:
        door.close()
    assert not held


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
def test_a_task_group_may_span_the_time_of_serving(app):
    done: list[str] = []

    @app.while_serving
    async def group():
        async with asyncio.TaskGroup() as app.tasks:
            yield
        done.append("closed")

    @app.route("/")
    async def view():
        async def work():
            await asyncio.sleep(0.05)
            done.append("worked")

        app.tasks.create_task(work())
        return "accepted"

    door = Client(app, LiveDoor)
    assert door.get("/").text == "accepted"
    door.close()
    assert done == ["worked", "closed"]


def test_an_error_at_the_start_keeps_the_server_from_starting(app):
    calls: list[str] = []

    @app.while_serving
    async def around():
        calls.append("begin")
        yield
        calls.append("end")

    @app.while_serving
    async def failing():
        raise OSError("no database")
        yield

    @app.after_serving
    def after():
        calls.append("after")

    with pytest.raises(OSError, match="no database"):
        LiveDoor(app)
    assert calls == ["begin", "end"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_generator_without_a_yield_or_with_two_is_an_error(app, kind):
    async def none():
        if not app:
            yield

    async def two():
        yield
        yield

    app.while_serving_gens.append(none)
    with pytest.raises(RuntimeError, match="without a yield"), app.test_app():
        pass
    app.while_serving_gens[:] = [two]
    with pytest.raises(RuntimeError, match="more than one yield"), app.test_app():
        pass


def test_an_error_at_the_end_is_logged_and_holds_nothing_up(app, caplog):
    calls: list[str] = []

    @app.after_serving
    async def failing():
        raise OSError("cannot close")

    @app.after_serving
    async def following():
        calls.append("following")

    LiveDoor(app).close()
    assert calls == ["following"]
    assert "cannot close" in caplog.text


def test_teardown_functions_and_signals_see_the_app_context(app):
    calls: list[object] = []

    @app.teardown_appcontext
    async def teardown(error):
        calls.append((error, g.value))

    @app.before_serving
    async def before():
        g.value = 1

    @app.after_serving
    async def after():
        g.value = 2

    with app.test_app():
        assert calls == [(None, 1)]
    assert calls == [(None, 1), (None, 2)]


def test_in_a_test_with_async_with_they_run_on_the_running_loop(app):
    calls = recorded(app)
    held: dict[str, asyncio.Lock] = {}

    @app.before_serving
    async def lock():
        held["lock"] = asyncio.Lock()

    @app.route("/")
    async def view():
        async with held["lock"]:
            return str(asyncio.get_running_loop() is loops[0])

    loops: list[asyncio.AbstractEventLoop] = []

    async def test() -> None:
        loops.append(asyncio.get_running_loop())
        async with app.test_app() as test_app:
            client = test_app.test_client()
            async with held["lock"]:
                # The view waits for what the test holds.
                asking = asyncio.create_task(client.get("/"))
                await asyncio.sleep(0.01)
                assert not asking.done()
            assert (await asking).text == "True"

    asyncio.run(test())
    assert calls == noted(BEGIN + END, threading.main_thread().name)


def test_in_a_test_with_with_they_run_on_the_loop_of_the_process(app):
    calls = recorded(app)

    @app.route("/")
    async def view():
        return threading.current_thread().name

    with app.test_app() as test_app:
        assert test_app.test_client().get("/").text == "hipflask-loop"
        assert calls == noted(BEGIN)
    assert calls == noted(BEGIN + END)


PROGRAM = """
    from hipflask import Flask

    app = Flask("app")

    @app.before_serving
    async def before():
        {before}

    @app.after_serving
    async def after():
        print("after", flush=True)
"""


def command(tmp_path: Path, before: str, *options: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM).format(before=before))
    return [sys.executable, "-m", "hipflask", "--app", str(path), "run", "--port", "0", *options]


@pytest.mark.parametrize("options", [(), ("--debugger",)], ids=["plain", "debugger"])
def test_a_program_whose_app_cannot_begin_says_why_and_ends(tmp_path, options):
    ran = subprocess.run(
        command(tmp_path, 'raise OSError("no database")', *options),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "could not prepare to serve, so the server does not start: OSError: no database" in ran.stderr
    assert "Running on" not in ran.stdout


@pytest.mark.parametrize("options", [(), ("--debugger",), ("--reload",)], ids=["plain", "debugger", "reload"])
def test_a_program_that_is_stopped_runs_what_comes_after(tmp_path, options):
    import signal

    arguments = command(tmp_path, 'print("before", flush=True)', *options)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Running on" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    output = "".join(lines)
    assert output.index("before") < output.index("Running on") < output.index("after")
