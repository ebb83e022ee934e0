"""Work after the response and beside requests, through every door."""

from __future__ import annotations

import contextvars
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from doors import DOORS, Client

import hipflask
from hipflask import Blueprint, Flask, after_response, current_app, g, has_request_context, request, session
from hipflask.background import BackgroundQueueFull

TIMEOUT = 20


def settle(app: Flask) -> None:
    assert app.background_tasks.wait(TIMEOUT), app.background_tasks


class TestAfterResponse:
    def test_runs_once_the_response_is_made_with_the_response(self, app: Flask, client: Client) -> None:
        seen: list[Any] = []

        @app.route("/")
        def view() -> tuple[str, int]:
            @after_response
            def note(response: hipflask.Response) -> str:
                seen.append((response.status_code, request.path, request.args["a"], current_app.name))
                return "ignored"

            assert not seen
            return "body", 201

        answer = client.get("/?a=1")
        settle(app)
        assert (answer.status_code, answer.text) == (201, "body")
        assert seen == [(201, "/", "1", "test_app")]

    def test_of_blueprint_and_app_run_in_this_order(self, app: Flask, client: Client) -> None:
        seen: list[str] = []
        bp = Blueprint("bp", __name__)
        other = Blueprint("other", __name__)
        app.after_response(lambda response: seen.append("app"))
        bp.after_response(lambda response: seen.append("blueprint"))
        other.after_response(lambda response: seen.append("other"))
        other.after_app_response(lambda response: seen.append("from other"))

        @bp.route("/")
        def view() -> dict[str, int]:
            after_response(lambda response: seen.append("view"))
            return {"a": 1}

        app.register_blueprint(bp)
        app.register_blueprint(other)
        assert client.get("/").json == {"a": 1}
        settle(app)
        assert seen == ["view", "blueprint", "app", "from other"]

    def test_of_the_app_run_for_every_answer(self, app: Flask, client: Client) -> None:
        seen: list[int] = []
        app.after_response(lambda response: seen.append(response.status_code))
        app.add_url_rule("/text", "text", lambda: "text")
        app.add_url_rule("/broken", "broken", lambda: str(1 / 0))
        app.add_url_rule("/missing", "missing", lambda: hipflask.abort(404))
        for path in ("/text", "/broken", "/missing", "/nothing"):
            client.get(path)
            settle(app)
        client.post("/text")
        settle(app)
        assert seen == [200, 500, 404, 404, 405]

    def test_reads_what_the_request_had(self, app: Flask, client: Client) -> None:
        seen: list[Any] = []
        user = contextvars.ContextVar[str]("user")

        @app.post("/")
        def view() -> str:
            session["name"] = "Ada"
            g.opened = True
            user.set("Grace")
            assert request.form["field"] == "value"

            @after_response
            def note(response: hipflask.Response) -> None:
                seen.append((request.form["field"], session["name"], "opened" in g, user.get()))
                seen.append(hipflask.url_for("view"))

            return "ok"

        assert client.post("/", data={"field": "value"}).text == "ok"
        settle(app)
        assert seen == [("value", "Ada", False, "Grace"), "/"]

    def test_teardown_functions_run_for_it_too(self, app: Flask, client: Client) -> None:
        seen: list[str] = []
        app.teardown_request(lambda error: seen.append("request"))
        app.teardown_appcontext(lambda error: seen.append("app"))

        @app.route("/")
        def view() -> str:
            after_response(lambda response: seen.append("after"))
            return "ok"

        client.get("/")
        settle(app)
        assert seen == ["request", "app", "after", "request", "app"]

    def test_an_error_is_logged_and_the_others_run(
        self, app: Flask, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[str] = []

        @app.route("/")
        def view() -> str:
            @after_response
            def first(response: hipflask.Response) -> None:
                raise LookupError("not there")

            after_response(lambda response: seen.append("second"))
            return "ok"

        assert client.get("/").text == "ok"
        settle(app)
        assert seen == ["second"]
        (record,) = [record for record in caplog.records if record.exc_info]
        assert "first" in record.getMessage()
        assert isinstance(record.exc_info[1], LookupError)  # type: ignore[index]

    def test_waits_for_the_end_of_a_stream(self, app: Flask, client: Client) -> None:
        seen: list[str] = []

        @app.route("/")
        def view() -> Any:
            after_response(lambda response: seen.append("after"))

            def pieces() -> Any:
                for piece in "abc":
                    seen.append(piece)
                    yield piece
                seen.append("end")

            return pieces()

        assert client.get("/").text == "abc"
        settle(app)
        assert seen == ["a", "b", "c", "end", "after"]

    def test_runs_after_a_file(self, app: Flask, client: Client) -> None:
        seen: list[int] = []

        @app.route("/")
        def view() -> Any:
            after_response(lambda response: seen.append(response.status_code))
            return hipflask.send_file(__file__)

        with open(__file__, "rb") as file:
            assert client.get("/").data == file.read()
        settle(app)
        assert seen == [200]

    def test_coroutine_functions_run(self, app: Flask, client: Client) -> None:
        seen: list[str] = []

        @app.route("/")
        def view() -> str:
            @after_response
            async def note(response: hipflask.Response) -> None:
                seen.append(request.path)

            return "ok"

        assert client.get("/").text == "ok"
        settle(app)
        assert seen == ["/"]

    @pytest.mark.parametrize("hooked", [False, True], ids=["plain", "with hooks"])
    def test_runs_after_coroutine_views(self, app: Flask, client: Client, hooked: bool) -> None:
        seen: list[Any] = []
        if hooked:
            app.after_response(lambda response: seen.append("app"))

        @app.route("/<kind>")
        async def view(kind: str) -> Any:
            @after_response
            async def note(response: hipflask.Response) -> None:
                seen.append((response.status_code, request.path))

            if kind == "broken":
                raise LookupError(kind)
            return "ok"

        assert client.get("/good").text == "ok"
        settle(app)
        assert client.get("/broken").status_code == 500
        settle(app)
        app_too = ["app"] if hooked else []
        assert seen == [(200, "/good"), *app_too, (500, "/broken"), *app_too]

    def test_needs_a_request(self, app: Flask) -> None:
        with app.app_context(), pytest.raises(RuntimeError, match="after_response"):
            after_response(print)

    def test_does_not_hold_up_the_client(self, app: Flask) -> None:
        """The client has the whole response, and is served on, while the function waits."""
        go_on = threading.Event()

        @app.route("/")
        def view() -> str:
            @after_response
            def note(response: hipflask.Response) -> None:
                assert go_on.wait(TIMEOUT)

            return "ok"

        client = Client(app, DOORS["live"])
        try:
            for _ in range(3):
                assert client.get("/").text == "ok"
            assert app.background_tasks.waiting + app.background_tasks.running == 3
            go_on.set()
            settle(app)
            assert (app.background_tasks.finished, app.background_tasks.failed) == (3, 0)
        finally:
            go_on.set()
            client.close()

    def test_runs_when_the_client_has_gone(self, app: Flask) -> None:
        import socket

        from hipflask import _core

        gone = threading.Event()

        @app.route("/")
        def view() -> Any:
            @after_response
            def note(response: hipflask.Response) -> None:
                gone.set()

            def pieces() -> Any:
                while True:
                    yield b"x" * 65536

            return pieces()

        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        try:
            host, _, port = server.addresses[0].rpartition(":")
            with socket.create_connection((host, int(port)), TIMEOUT) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(1024)
            assert gone.wait(TIMEOUT)
        finally:
            server.stop()

    def test_the_test_client_has_it_done_before_it_returns(self, app: Flask) -> None:
        seen: list[str] = []

        @app.route("/")
        def view() -> str:
            after_response(lambda response: seen.append("after"))
            app.background(seen.append, "beside").result(TIMEOUT)
            return "ok"

        @app.route("/stream")
        def stream() -> Any:
            after_response(lambda response: seen.append("after"))
            return iter(["a", "b"])

        client = app.test_client()
        response = client.get("/")
        assert seen == ["beside", "after"]
        assert response.text == "ok"
        seen.clear()
        response = client.get("/stream")
        assert response.text == "ab"
        assert not seen
        response.close()
        assert seen == ["after"]


class TestBackground:
    def test_runs_beside_the_request(self, app: Flask, client: Client) -> None:
        seen: list[Any] = []

        def task(a: int, *, b: int) -> int:
            seen.append((a, b, has_request_context(), current_app.name, threading.current_thread().name))
            return a + b

        @app.route("/")
        def view() -> str:
            future = app.background(task, 1, b=2)
            return str(future.result(TIMEOUT))

        assert client.get("/").text == "3"
        settle(app)
        ((a, b, has_request, name, thread),) = seen
        assert (a, b, has_request, name) == (1, 2, False, "test_app")
        assert thread.startswith("hipflask-background-")

    def test_takes_coroutine_functions(self, app: Flask, client: Client) -> None:
        async def task(number: int) -> str:
            return f"{current_app.name} {number}"

        @app.route("/")
        def view() -> Any:
            return app.background(task, 3).result(TIMEOUT)

        assert client.get("/").text == "test_app 3"

    def test_coroutines_share_the_loop_of_the_process(self, app: Flask) -> None:
        import asyncio

        closed: list[Any] = []

        @app.teardown_appcontext
        async def close(error: BaseException | None) -> None:
            await asyncio.sleep(0)
            closed.append(error)

        async def task() -> asyncio.AbstractEventLoop:
            await asyncio.sleep(0)
            assert current_app.name == "test_app"
            return asyncio.get_running_loop()

        async def failing() -> None:
            raise LookupError("not there")

        loops = {app.background(task).result(TIMEOUT) for _ in range(3)}
        assert len(loops) == 1
        assert isinstance(app.background(failing).exception(TIMEOUT), LookupError)
        settle(app)
        assert [type(error) for error in closed] == [type(None)] * 3 + [LookupError]
        assert (app.background_tasks.finished, app.background_tasks.failed) == (4, 1)

    def test_coroutines_are_bounded(self, app: Flask) -> None:
        import asyncio

        app.config["BACKGROUND_QUEUE"] = 1

        async def task(go_on: asyncio.Event) -> None:
            await go_on.wait()

        from hipflask.loop import shared

        go_on = asyncio.Event()
        future = app.background(task, go_on)
        with pytest.raises(BackgroundQueueFull):
            app.background(task, go_on)
        shared().loop.call_soon_threadsafe(go_on.set)
        assert future.result(TIMEOUT) is None
        settle(app)

    def test_needs_no_request(self, app: Flask) -> None:
        assert app.background(lambda: current_app.name).result(TIMEOUT) == "test_app"

    def test_context_variables_come_along(self, app: Flask) -> None:
        number = contextvars.ContextVar[int]("number")
        number.set(5)
        assert app.background(number.get).result(TIMEOUT) == 5

    def test_an_error_is_logged_and_kept(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        def task() -> None:
            raise LookupError("not there")

        future = app.background(task)
        assert isinstance(future.exception(TIMEOUT), LookupError)
        settle(app)
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.ERROR, app.name)
        assert "task" in record.getMessage()
        assert app.background_tasks.failed == 1

    def test_threads_and_queue_are_bounded(self, app: Flask) -> None:
        app.config.update(BACKGROUND_THREADS=2, BACKGROUND_QUEUE=3)
        go_on = threading.Event()
        began = threading.Semaphore(0)

        def task() -> None:
            began.release()
            assert go_on.wait(TIMEOUT)

        futures = [app.background(task) for _ in range(2)]
        for _ in futures:
            assert began.acquire(timeout=TIMEOUT)
        futures += [app.background(task) for _ in range(3)]
        tasks = app.background_tasks
        assert (tasks.running, tasks.waiting) == (2, 3)
        with pytest.raises(BackgroundQueueFull, match="BACKGROUND_QUEUE"):
            app.background(task)
        assert tasks.refused == 1
        assert futures[-1].cancel()
        assert not tasks.wait(0)
        go_on.set()
        settle(app)
        assert (tasks.running, tasks.waiting, tasks.finished) == (0, 0, 5)
        assert "0 waiting" in repr(tasks)

    def test_work_after_a_response_that_finds_the_queue_full_is_logged(
        self, app: Flask, caplog: pytest.LogCaptureFixture
    ) -> None:
        app.config.update(BACKGROUND_THREADS=1, BACKGROUND_QUEUE=1)
        go_on = threading.Event()
        began = threading.Event()

        def task() -> None:
            began.set()
            assert go_on.wait(TIMEOUT)

        @app.route("/")
        def view() -> str:
            after_response(lambda response: None)
            return "ok"

        app.background(task)
        assert began.wait(TIMEOUT)
        app.background(task)
        client = Client(app, DOORS["live"])
        try:
            assert client.get("/").text == "ok"
            # The next request comes after the last response was seen to be out.
            assert client.get("/").text == "ok"
            assert app.background_tasks.refused >= 1
        finally:
            go_on.set()
            settle(app)
            client.close()
        assert any("queue" in record.getMessage() for record in caplog.records)

    @pytest.mark.parametrize("grace", [30, 0], ids=["in time", "too late"])
    def test_is_finished_before_the_process_ends(self, grace: int) -> None:
        program = f"""
import asyncio, time, hipflask, hipflask.background as background
background.GRACE = {grace}
app = hipflask.Flask("script")
def task():
    time.sleep(0.3)
    print("done", flush=True)
async def coroutine():
    await asyncio.sleep(0.3)
    print("done", flush=True)
app.config["BACKGROUND_THREADS"] = 1
app.background(task)
app.background(task)
app.background(coroutine)
"""
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        if grace:
            assert ran.stdout.split() == ["done"] * 3
            assert not ran.stderr
        else:
            assert "background work of 'script' is not done" in ran.stderr

    def test_is_finished_before_a_server_ends(self, tmp_path: Path) -> None:
        import signal
        import urllib.request

        tmp_path.joinpath("served.py").write_text("""
import time, hipflask
from hipflask import after_response
app = hipflask.Flask("served")
@app.route("/")
def view():
    @after_response
    def task(response):
        time.sleep(1)
        print("done", flush=True)
    return "ok"
""")
        command = [sys.executable, "-u", "-m", "hipflask", "--app", "served", "run", "--port", "0"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as server:
            assert server.stdout is not None
            line = next(line for line in server.stdout if "http://" in line)
            url = next(word for word in line.split() if word.startswith("http://"))
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                assert response.read() == b"ok"
            server.send_signal(signal.SIGTERM)
            assert "done" in server.communicate(timeout=60)[0]
            assert server.returncode == 0

    def test_a_forked_process_begins_without_it(self, app: Flask) -> None:
        import os
        import warnings

        assert app.background(int).result(TIMEOUT) == 0
        with warnings.catch_warnings():
            # That threads live when a process forks is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            status = 1
            try:
                status = app.background(int).result(TIMEOUT)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
