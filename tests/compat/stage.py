"""One app, written once, played on Flask and on Hipflask: what both answer, call and log is compared.

A *scene* is a function that builds an app from a `Kit`, which is either of the two frameworks, and a list of
requests. `play` runs it through a door and gives what was seen; `differences` compares two such records.
Dates, and what a server adds of its own, are left out; a session's cookie is compared by what it says.
"""

from __future__ import annotations

import http.client
import importlib
import io
import itertools
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

HERE = Path(__file__).parent
OF_THE_SERVER = {"date", "server", "connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Ask:
    """A request; `target` is sent as it stands."""

    target: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    host: str = "localhost"

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


def ask(
    what: str,
    *,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    body: bytes | str = b"",
    form: dict[str, str] | list[tuple[str, str]] | None = None,
    json_body: Any = None,
    host: str = "localhost",
) -> Ask:
    """Make a request from ``"METHOD target"``, or a target alone for GET."""
    method, _, target = what.rpartition(" ")
    fields = list(headers.items() if isinstance(headers, dict) else headers or ())
    data = body.encode() if isinstance(body, str) else body
    if form is not None:
        data = urlencode(form).encode()
        fields.append(("Content-Type", "application/x-www-form-urlencoded"))
    elif json_body is not None:
        data = json.dumps(json_body).encode()
        fields.append(("Content-Type", "application/json"))
    return Ask(target, method or "GET", tuple(fields), data, host)


def multipart(*parts: tuple[str, str | None, str | None, bytes]) -> tuple[dict[str, str], bytes]:
    """Header fields and body of a form with files; each part is name, file name, type and content."""
    body = b""
    for name, filename, kind, content in parts:
        body += f'--frontier\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if filename is not None:
            body += f'; filename="{filename}"'.encode()
        if kind is not None:
            body += f"\r\nContent-Type: {kind}".encode()
        body += b"\r\n\r\n" + content + b"\r\n"
    return {"Content-Type": "multipart/form-data; boundary=frontier"}, body + b"--frontier--\r\n"


class Kit:
    """One of the two frameworks, and the notebook of a scene."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.flask = importlib.import_module("flask" if name == "flask" else "hipflask")
        self.notes: list[Any] = []

    def module(self, name: str) -> ModuleType:
        """Import ``flask.…`` or ``werkzeug.…``, or ours of that name."""
        if self.name == "flask":
            return importlib.import_module(name)
        top, _, rest = name.partition(".")
        ours = "hipflask" if top == "flask" else "hipflask.werkzeug"
        return importlib.import_module(f"{ours}.{rest}" if rest else ours)

    def app(self, **options: Any) -> Any:
        """An app with a secret key, whose files are those beside this one."""
        options = {"root_path": str(HERE / "site"), **options}
        app = self.flask.Flask("stage", **options)
        app.secret_key = "for the stage"
        return app

    def note(self, *what: Any) -> None:
        """Remember that something happened."""
        self.notes.append(what[0] if len(what) == 1 else what)

    def noting(self, what: Any, answer: Any = None) -> Callable[..., Any]:
        """A function that notes its call and returns `answer`."""

        def noting(*args: Any, **kwargs: Any) -> Any:
            self.note(what)
            return answer

        return noting


@dataclass
class Scene:
    """A way to build an app, and what to ask it."""

    name: str
    build: Callable[[Kit], Any]
    requests: list[Ask]

    def __str__(self) -> str:
        return self.name


SCENES: list[Scene] = []


def scene(*requests: str | Ask, each: list[Any] | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Register a scene; with `each`, one for each value, which the builder gets as one more argument."""
    asked = [ask(request) if isinstance(request, str) else request for request in requests]

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        if each is None:
            SCENES.append(Scene(build.__name__, build, asked))
        for index, value in enumerate(each or ()):
            label = re.sub(r"\W+", "-", str(value))[:30].strip("-")
            made = lambda kit, value=value: build(kit, value)  # noqa: E731
            SCENES.append(Scene(f"{build.__name__}-{index}-{label}", made, asked))
        return build

    return register


@dataclass
class Answer:
    """A response, as far as it can be compared."""

    status: str
    fields: list[tuple[str, str]]
    body: bytes
    raised: str | None = None


@dataclass
class Record:
    """What a play of a scene gave."""

    answers: list[Answer] = field(default_factory=list)
    notes: list[Any] = field(default_factory=list)
    logged: list[tuple[str, str, str | None]] = field(default_factory=list)


def through_wsgi(app: Any, asked: Ask, headers: list[tuple[str, str]]) -> Answer:
    """Call the app as a WSGI server does."""
    host, target = asked.host, asked.target
    if target.startswith("http://"):
        # The absolute form counts more than the field (RFC 9112 §3.2.2).
        host, _, target = target[7:].partition("/")
        target = "/" + target
    path, _, query = target.partition("?")
    name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": asked.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin1")).decode("latin1"),
        "QUERY_STRING": query,
        "RAW_URI": target,
        "REQUEST_URI": target,
        "SERVER_NAME": name,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(asked.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if asked.body or asked.method in {"POST", "PUT", "PATCH"}:
        environ["CONTENT_LENGTH"] = str(len(asked.body))
    for key, value in headers:
        value = value.strip(" \t")
        key = key.upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        if key == "HTTP_COOKIE" and key in environ:
            environ[key] += "; " + value
        else:
            environ[key] = f"{environ[key]},{value}" if key in environ else value
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, fields))
        return lambda data: None

    try:
        pieces = app(environ, start_response)
        data = b"".join(pieces)
    except Exception as error:
        return Answer("raised", [], b"", f"{type(error).__name__}: {error}")
    status, fields = started[-1]
    answer = Answer(status, list(fields), data)
    try:
        if hasattr(pieces, "close"):
            pieces.close()
    except Exception as error:
        # Too late to change what the client has got.
        answer.raised = f"{type(error).__name__}: {error}"
    return answer


class Wire:
    """A connection to a live server; the bytes of a request are those of its `Ask`."""

    def __init__(self, app: Any) -> None:
        from hipflask import _core

        self.server = _core.Server(app, ["127.0.0.1:0"])
        self.server.start()
        host, _, port = self.server.addresses[0].rpartition(":")
        self.address = (host, int(port))
        self.socket: socket.socket | None = None

    def send(self, asked: Ask, headers: list[tuple[str, str]]) -> Answer:
        if self.socket is None:
            self.socket = socket.create_connection(self.address, timeout=20)
        head = f"{asked.method} {asked.target} HTTP/1.1\r\nHost: {asked.host}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers)
        if asked.body or asked.method in {"POST", "PUT", "PATCH"}:
            head += f"Content-Length: {len(asked.body)}\r\n"
        self.socket.sendall(head.encode("latin1") + b"\r\n" + asked.body)
        response = http.client.HTTPResponse(self.socket, method=asked.method)
        try:
            response.begin()
            answer = Answer(f"{response.status} {response.reason}", response.getheaders(), response.read())
        except http.client.HTTPException as error:
            answer = Answer("broken", [], b"", type(error).__name__)
        if response.will_close or answer.status == "broken":
            self.hang_up()
        response.close()
        return answer

    def hang_up(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def close(self) -> None:
        self.hang_up()
        self.server.stop()


class Catcher(logging.Handler):
    """Keeps what is logged: level, message, and the class of the error that goes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info and record.exc_info[0]
        self.lines.append((record.levelname, record.getMessage(), kind.__name__ if kind else None))


DOORS = ["wsgi", "fast lane", "full lane"]


def play(scene: Scene, kit: Kit, door: str) -> Record:
    """Build the scene's app and send it the scene's requests, keeping cookies."""
    record = Record(notes=kit.notes)
    catcher = Catcher()
    logger = logging.getLogger("stage")
    logger.addHandler(catcher)
    logger.propagate = False
    app = scene.build(kit)
    if door == "full lane":
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start_response: inner(environ, start_response)
    wire = None if door == "wsgi" else Wire(app)
    jar: dict[str, str] = {}
    try:
        for asked in scene.requests:
            headers = list(asked.headers)
            if jar and not any(name.lower() == "cookie" for name, _ in headers):
                headers.append(("Cookie", "; ".join(f"{name}={value}" for name, value in jar.items())))
            answer = wire.send(asked, headers) if wire else through_wsgi(app, asked, headers)
            record.answers.append(answer)
            for name, value in answer.fields:
                if name.lower() == "set-cookie":
                    keep(jar, value)
    finally:
        if wire is not None:
            wire.close()
        logger.removeHandler(catcher)
        logger.propagate = True
    record.logged = catcher.lines
    return record


def keep(jar: dict[str, str], cookie: str) -> None:
    name, _, value = cookie.partition(";")[0].partition("=")
    if "Max-Age=0" in cookie:
        jar.pop(name, None)
    else:
        jar[name] = value


def told(name: str, value: str) -> tuple[str, str]:
    """A header field in a form that compares: times are dropped, a session is what it says."""
    if name.lower() == "set-cookie":
        value = re.sub(r"(Expires=)[^;]+", r"\1…", value)
        match = re.match(r'(\w+)="?([\w.-]+)\.[\w-]{6}\.[\w-]{27}"?(.*)', value, re.S)
        if match:
            value = f"{match[1]}={contents(match[2])}{match[3]}"
    if name.lower() == "expires":
        value = "…"
    if name.lower() == "allow":
        # Flask joins a set.
        value = ", ".join(sorted(value.split(", ")))
    return name, value


def contents(payload: str) -> str:
    """What a signed session holds."""
    from itsdangerous import URLSafeSerializer

    return str(URLSafeSerializer("").load_payload(payload.encode()))


def differences(scene: Scene, theirs: Record, ours: Record, door: str) -> Iterator[str]:
    """Tell in lines where the two records differ."""
    for asked, expected, got in zip(scene.requests, theirs.answers, ours.answers, strict=True):
        yield from (f"{asked}: {line}" for line in between(asked, expected, got, door))
    for what, left, right in (("notes", theirs.notes, ours.notes), ("log", theirs.logged, ours.logged)):
        if left != right:
            pairs = zip(left, right, strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            yield f"{what} from {same}: {left[same : same + 8]}\n    ours {right[same : same + 8]}"


def between(asked: Ask, expected: Answer, got: Answer, door: str) -> Iterator[str]:
    if expected.status == "raised" and door != "wsgi":
        # A WSGI server answers what its app raised.
        if got.status != "500 INTERNAL SERVER ERROR" or expected.raised.encode() in got.body:
            yield f"raised {expected.raised}, ours {got.status} {got.body!r}"
        return
    if door == "wsgi" and expected.raised != got.raised:
        yield f"raised {expected.raised}, ours {got.raised}"
    if expected.status != got.status:
        yield f"status {expected.status}, ours {got.status}"
    body = expected.body
    if door != "wsgi" and (asked.method == "HEAD" or expected.status[:3] in {"204", "205", "304"}):
        body = b""
    if body != got.body:
        same = len(os.path.commonprefix([body, got.body]))
        begin = max(same - 60, 0)
        yield f"body from {begin} {body[begin : same + 200]!r}\n    ours {got.body[begin : same + 200]!r}"
    left = sorted(told(*pair) for pair in expected.fields if pair[0].lower() not in OF_THE_SERVER)
    right = sorted(told(*pair) for pair in got.fields if pair[0].lower() not in OF_THE_SERVER)
    if door != "wsgi" and not any(name.lower() == "content-length" for name, _ in left):
        # The server measures what the app did not.
        right = [pair for pair in right if pair != ("Content-Length", str(len(got.body)))]
    if door != "wsgi" and (expected.status[:3] == "205" or any(name == "X-Sendfile" for name, _ in left)):
        # The length is that of a body that must not be sent (RFC 9110 §15.3.6), or that another server sends.
        left, right = ([pair for pair in side if pair[0] != "Content-Length"] for side in (left, right))
    if left != right:
        yield f"fields {[p for p in left if p not in right]}, ours {[p for p in right if p not in left]}"
