"""Print what the calls inside a view cost: CPU ns per call, Flask's and Hipflask's in one run.

usage: inside.py [--only WORD[,WORD...]] [--rounds N]

Each package runs in a process of its own, in turn, several times; the median of the rounds is shown.
Hipflask's calls run in a view that its server calls, Flask's in a pushed request context. Cases that read
the request, and those called "first", get a new request for every call; Hipflask's server gets twenty at a
time, so that its caches are as warm as Flask's, which gets no request from a socket. "Full lane" cases are
whole requests through WSGI. A "hook" is what a request costs more with one such function, which does nothing,
than without: through WSGI in Flask, through the server's fast lane in Hipflask.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

JSON_BODY = json.dumps(
    {"items": [{"id": n, "name": f"item {n}", "price": n * 1.5} for n in range(24)]}
).encode()
FORM_BODY = b"&".join(b"field%d=value+number+%d" % (n, n) for n in range(8))
UPLOAD_BODY = (
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="data.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) * 256 + b"\r\n--frontier--\r\n"
)
BROWSER = {
    "User-Agent": "hipflask-bench/1.0",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "Cookie": "a=1; b=2",
}
PAGE = "<ul>{% for n in names %}<li>{{ n }}</li>{% endfor %}</ul><a href='{{ link }}'>x</a>"


class Bench:
    """The cases, for one package.

    Args:
        package: `flask` or `hipflask`.
    """

    def __init__(self, package: str) -> None:
        self.native = package == "hipflask"
        self.flask: Any = importlib.import_module(package)
        self.job: Callable[[], None] | None = None
        self.servers: list[Any] = []
        self.app = self._make_app()
        self.results: dict[str, float] = {}

    def _make_app(self) -> Any:
        flask = self.flask
        app = flask.Flask("inside")
        app.secret_key = "a key"
        app.add_url_rule("/", "index", self.view, methods=["GET", "POST"])
        app.add_url_rule("/users/<int:number>/<name>", "user", self.view, methods=["GET", "POST"])
        blueprint = flask.Blueprint("admin", "inside", url_prefix="/admin")
        blueprint.add_url_rule("/page/<name>", "page", self.view)
        app.register_blueprint(blueprint)
        localized = flask.Blueprint("localized", "inside", url_prefix="/<language>")
        localized.add_url_rule("/", "index", self.view)
        localized.url_defaults(lambda endpoint, values: values.setdefault("language", "de"))
        app.register_blueprint(localized)
        jinja2 = importlib.import_module("jinja2")
        app.jinja_loader = jinja2.DictLoader({"page.html": PAGE, "url.html": "{{ url_for('index') }}"})
        return app

    def hooked(self, *kinds: str) -> Any:
        """An app with one function of each of these kinds of hook."""
        app = self._make_app()
        for kind in kinds:
            getattr(app, kind)(HOOKS[kind])
        return app

    def hooks(self) -> None:
        """What each kind of hook adds to a request."""
        if not wanted("hook"):
            return
        cases = {
            "": self.hooked(),
            **{kind: self.hooked(kind) for kind in HOOKS},
            "three": self.hooked(*THREE),
        }
        rounds: dict[str, list[float]] = {name: [] for name in cases}
        if self.native:
            asks = {name: self.live(app) for name, app in cases.items()}
        else:
            asks = {name: self.through_wsgi(app) for name, app in cases.items()}
        for _ in range(60):
            for name, ask in asks.items():
                start = time.process_time_ns()
                ask(100)
                rounds[name].append((time.process_time_ns() - start) / 100)
        plain = statistics.median(rounds.pop(""))
        for name, times in rounds.items():
            self.results[f"hook: {name}"] = statistics.median(times) - plain

    def live(self, app: Any) -> Callable[[int], None]:
        """Serves an app; gives what sends it so many requests at once and reads the answers."""
        from hipflask import _core

        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        self.servers.append(server)
        host, _, port = server.addresses[0].rpartition(":")
        client = socket.create_connection((host, int(port)))
        request = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: hipflask-bench/1.0\r\n\r\n"

        def ask(count: int) -> None:
            for _ in range(count // 20):
                client.sendall(request * 20)
                receive(client, 20)

        for _ in range(20):
            ask(20)
        return ask

    def through_wsgi(self, app: Any) -> Callable[[int], None]:
        """Gives what calls an app through WSGI so often."""

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return None

        def ask(count: int) -> None:
            for _ in range(count):
                pieces = app(self.environ("/"), start_response)
                b"".join(pieces)
                pieces.close()

        ask(50)
        return ask

    def environ(self, target: str, body: bytes = b"", kind: str = "", cookie: str = "") -> dict[str, Any]:
        """A WSGI environ as gunicorn makes it."""
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST" if body else "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost:8000",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in BROWSER.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        if body:
            environ |= {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(len(body))}
        return environ

    def within(
        self,
        job: Callable[[], None],
        target: str,
        body: bytes = b"",
        kind: str = "",
        cookie: str = "",
        times: int = 1,
    ) -> None:
        """Run something within new requests: Flask's pushed context, a view that Hipflask's server calls."""
        if not self.native:
            for _ in range(times):
                with self.app.request_context(self.environ(target, body, kind, cookie)):
                    job()
            return
        fields = BROWSER | {"Host": "localhost:8000"}
        if cookie:
            fields["Cookie"] = cookie
        if body:
            fields |= {"Content-Type": kind, "Content-Length": str(len(body))}
        lines = [
            f"{'POST' if body else 'GET'} {target} HTTP/1.1",
            *(f"{k}: {v}" for k, v in fields.items()),
            "",
            "",
        ]
        self.job = job
        self.socket.sendall(("\r\n".join(lines).encode() + body) * times)
        receive(self.socket, times)

    def view(self, **values: Any) -> str:
        """Every view."""
        if self.job is not None:
            self.job()
        return "hello"

    def connect(self) -> None:
        """Serve the app, and be its client."""
        self.job = None
        if not self.native:
            return
        from hipflask import _core

        self.server = _core.Server(self.app, ["127.0.0.1:0"])
        self.server.start()
        # Those of the hooks are idle from now on.
        for server in self.servers:
            server.stop()
        host, _, port = self.server.addresses[0].rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        for _ in range(300):
            self.within(lambda: None, "/")

    def again(
        self, name: str, call: Callable[[], Any], target: str = "/", count: int = 3000, **options: Any
    ) -> None:
        """Time a call that is repeated within one request."""
        if not wanted(name):
            return

        def job() -> None:
            for _ in range(50):
                call()
            nothing = type(call)((lambda: None).__code__, {})
            clock = time.thread_time_ns
            start = clock()
            for _ in range(count):
                call()
            middle = clock()
            for _ in range(count):
                nothing()
            self.results[name] = (2 * middle - start - clock()) / count

        self.within(job, target, **options)

    def fresh(
        self, name: str, call: Callable[[], Any], target: str = "/", count: int = 400, **options: Any
    ) -> None:
        """Time a call that is the first of its kind in each request."""
        if not wanted(name):
            return
        clock = time.perf_counter_ns
        times = []

        def job() -> None:
            start = clock()
            call()
            times.append(clock() - start)

        # A body is better sent alone: many at once fill the socket while nobody reads the answers.
        at_once = 1 if "body" in options else 20
        for _ in range(count // at_once):
            self.within(job, target, times=at_once, **options)
        self.results[name] = statistics.median(times) - 80

    def whole(self, name: str, app: Any, target: str = "/", count: int = 1500, **options: Any) -> None:
        """Time whole requests through WSGI."""
        if not wanted(name):
            return

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return None

        environs = [self.environ(target, **options) for _ in range(count + 50)]
        for environ in environs[:50]:
            b"".join(app(environ, start_response))
        start = time.process_time_ns()
        for environ in environs[50:]:
            pieces = app(environ, start_response)
            b"".join(pieces)
            if hasattr(pieces, "close"):
                pieces.close()
        self.results[name] = (time.process_time_ns() - start) / count

    def run(self) -> dict[str, float]:
        """All cases."""
        flask = self.flask
        self.whole("full lane, hello", self.app)
        self.whole("full lane, hooks", self.hooked(*THREE))
        self.whole("full lane, variables", self.app, "/users/7/ada")
        self.hooks()
        self.connect()
        url_for, request, session, g = flask.url_for, flask.request, flask.session, flask.g
        self.again("url_for('index')", lambda: url_for("index"))
        self.again("url_for, two variables", lambda: url_for("user", number=7, name="ada"))
        self.again("url_for, query", lambda: url_for("index", q="a b", n=3))
        self.again("url_for, _external", lambda: url_for("index", _external=True))
        self.again("url_for, _scheme", lambda: url_for("index", _external=True, _scheme="https"))
        self.again("url_for, _anchor", lambda: url_for("index", _anchor="top"))
        self.again("url_for, _method", lambda: url_for("index", _method="POST"))
        self.again("url_for('.page') in a blueprint", lambda: url_for(".page", name="x"), "/admin/page/y")
        self.again("url_for, url_defaults", lambda: url_for("localized.index"))
        self.fresh("first url_for", lambda: url_for("user", number=7, name="ada"))

        names = [f"name {n}" for n in range(10)]
        jinja2 = importlib.import_module("jinja2")
        environment = jinja2.Environment(loader=self.app.jinja_loader, autoescape=True)
        environment.globals.update(self.app.jinja_env.globals)
        template = environment.get_template("page.html")
        self.again("Jinja alone", lambda: template.render(names=names, link="/x"), count=2000)
        render = flask.render_template
        self.again("render_template", lambda: render("page.html", names=names, link="/x"), count=2000)
        self.fresh("first render_template", lambda: render("page.html", names=names, link="/x"))
        self.app.template_context_processors[None].append(dict)
        self.again(
            "with a context processor", lambda: render("page.html", names=names, link="/x"), count=2000
        )
        self.again("render_template with url_for", lambda: render("url.html"), count=2000)

        self.fresh("get_json, 1 KiB", lambda: request.get_json(), body=JSON_BODY, kind="application/json")
        kind = "application/x-www-form-urlencoded"
        self.fresh("form, 8 fields", lambda: request.form["field3"], body=FORM_BODY, kind=kind)
        kind = "multipart/form-data; boundary=frontier"
        self.fresh("upload, 64 KiB", lambda: request.files["file"].read(), body=UPLOAD_BODY, kind=kind)

        cookie = self.sealed({"n": 1, "name": "ada"})
        self.fresh("first session['n']", lambda: session["n"], cookie=cookie)
        self.again("session.get", lambda: session.get("n"), cookie=cookie)
        self.again("session['n']", lambda: session["n"], cookie=cookie)
        self.again("'n' in session", lambda: "n" in session, cookie=cookie)
        self.again("session['n'] = 1", lambda: session.__setitem__("n", 1), cookie=cookie)
        self.again("g.x = 1", lambda: setattr(g, "x", 1))
        self.again("g.x", lambda: g.x if "x" in g else setattr(g, "x", 1))

        self.again("make_response('text')", lambda: flask.make_response("text"))
        self.again("make_response(dict, 201)", lambda: flask.make_response({"a": 1}, 201))
        self.again("redirect", lambda: flask.redirect("/login"))
        self.again("jsonify", lambda: flask.jsonify(a=1, b="x"))

        def aborted() -> None:
            with contextlib.suppress(Exception):
                flask.abort(404)

        self.again("abort(404)", aborted)
        self.again("request.headers.get", lambda: request.headers.get("User-Agent"))
        self.fresh("first request.headers.get", lambda: request.headers.get("User-Agent"))
        self.fresh("request.url", lambda: request.url)
        self.fresh("request.url, escapes", lambda: request.url, "/users/1/a%20b?q=%C3%A9%20x")
        self.fresh("request.cookies", lambda: request.cookies["a"])
        self.fresh("request.args", lambda: request.args["q"], "/?q=1&r=2")
        return self.results

    def sealed(self, values: dict[str, Any]) -> str:
        """A session cookie."""
        serializer = self.app.session_interface.get_signing_serializer(self.app)
        return f"session={serializer.dumps(values)}"


HOOKS: dict[str, Callable[..., Any]] = {
    "before_request": lambda: None,
    "after_request": lambda response: response,
    "teardown_request": lambda error: None,
    "teardown_appcontext": lambda error: None,
    "url_value_preprocessor": lambda endpoint, values: None,
}
THREE = ("before_request", "after_request", "teardown_request")


def receive(client: socket.socket, count: int) -> None:
    """Read so many answers of a view's."""
    answers = b""
    while answers.count(b"hello") < count:
        answers += client.recv(65536)
    assert answers.count(b"HTTP/1.1 200 ") == count, answers


def wanted(name: str) -> bool:
    return not ONLY or any(word in name for word in ONLY)


def measure(package: str, only: str) -> dict[str, float]:
    """Run the cases in a process of their own."""
    command = [sys.executable, __file__, "--package", package, "--only", only]
    results: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--package", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.package:
        ONLY.extend(filter(None, arguments.only.split(",")))
        print(json.dumps(Bench(arguments.package).run()), flush=True)
        os._exit(0)
    rounds: dict[str, list[dict[str, float]]] = {"flask": [], "hipflask": []}
    for _ in range(arguments.rounds):
        for package, found in rounds.items():
            found.append(measure(package, arguments.only))
    print(f"{'CPU ns per call':36}{'Flask':>12}{'Hipflask':>12}{'ratio':>8}")
    for name in rounds["flask"][0]:
        flask, ours = (statistics.median(one[name] for one in rounds[package]) for package in rounds)
        print(f"{name:36}{flask:12,.0f}{ours:12,.0f}{flask / max(ours, 1):8.1f}")


ONLY: list[str] = []

if __name__ == "__main__":
    main()
