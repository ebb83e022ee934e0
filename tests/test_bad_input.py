"""Bad input through the live engine: what is refused, what is bounded, what the log says."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading

import pytest
from doors import DOORS, Client

from hipflask import Flask, request, session
from hipflask.werkzeug.exceptions import BadRequest

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARTS = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(params=["live", "live-full-lane"])
def live(request: pytest.FixtureRequest, app: Flask):
    client = Client(app, DOORS[request.param])
    yield client
    client.close()


@pytest.mark.parametrize("debug", [False, True])
def test_a_missing_key_is_named_in_debug_only(app, live, debug):
    app.debug = debug
    # Else the debugger shows the error.
    app.config["TRAP_BAD_REQUEST_ERRORS"] = False
    app.add_url_rule("/", "index", lambda: request.form["wanted"], methods=["POST"])
    answer = live.post("/", data={"other": "x"})
    assert answer.status_code == 400
    assert ("wanted" in answer.text) is debug
    assert "<title>400 Bad Request</title>" in answer.text


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", "{", 400),
        ("application/json", "", 400),
        ("application/json", "[1,]", 400),
        ("text/plain", "{}", 415),
        ("application/x-www-form-urlencoded", "a=1", 415),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_broken_json_is_400_and_another_type_415(app, live, kind, body, status, debug):
    app.debug = debug
    app.add_url_rule("/", "index", lambda: {"got": request.get_json()}, methods=["POST"])
    answer = live.post("/", data=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert ("Failed to decode JSON" in answer.text) is (debug and status == 400)


LIMITED = [
    pytest.param({"MAX_CONTENT_LENGTH": 100}, FORM, b"a=" + b"x" * 99, id="content"),
    pytest.param({"MAX_FORM_MEMORY_SIZE": 100}, FORM, b"a=" + b"x" * 99, id="form-memory"),
    pytest.param(
        {"MAX_FORM_MEMORY_SIZE": 100},
        PARTS,
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 101 + b"\r\n--b--\r\n",
        id="part-memory",
    ),
    pytest.param(
        {"MAX_FORM_PARTS": 2},
        PARTS,
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 3 + b"--b--\r\n",
        id="parts",
    ),
]


@pytest.mark.parametrize(("settings", "headers", "body"), LIMITED)
def test_each_limit_gives_413_and_the_next_request_is_served(app, live, settings, headers, body):
    app.config.update(settings)
    app.add_url_rule("/", "index", lambda: str(len(request.form)), methods=["POST"])
    assert live.post("/", data=body, headers=headers).status_code == 413
    assert live.post("/", data=b"a=1", headers=FORM).text == "1"


def session_cookie(app, **values):
    return app.session_interface.get_signing_serializer(app).dumps(values)


def test_tampered_and_expired_sessions_are_empty(app, live, monkeypatch):
    app.add_url_rule("/", "index", lambda: repr(sorted(session.items())))
    good = session_cookie(app, a=1)
    assert live.get("/", headers={"Cookie": f"session={good}"}).text == "[('a', 1)]"
    payload, stamp, signature = good.split(".")
    import time

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 40 * 86400)
    old = session_cookie(app, a=1)
    monkeypatch.undo()
    app_of_other = Flask("other")
    app_of_other.secret_key = "another"
    bad = [
        old,
        session_cookie(app_of_other, a=1),
        f"{payload}.{stamp}",
        payload,
        "",
        "." * 50,
        f"{payload}.{stamp}.{signature[:-2]}xx",
        f"{payload}x.{stamp}.{signature}",
        f"{payload}.{stamp[:-1]}.{signature}",
        "x" * 4000,
        "%00",
    ]
    for cookie in bad:
        answer = live.get("/", headers={"Cookie": f"session={cookie}"})
        assert (answer.status_code, answer.text) == (200, "[]"), cookie


UNREADABLE = {
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "a list of values": b"[1,2]",
    "text": b'"text"',
    "a tagged tuple": b'{" t":[1]}',
    "a tag that does not fit": b'{"a":{" u":"a"}}',
    "no JSON": b"{",
    "nothing": b"",
    "deep": b"[" * 3000,
}


@pytest.mark.parametrize("payload", [*UNREADABLE, "no compressed data"])
def test_a_signed_session_that_cannot_be_read_is_empty(app, client, payload):
    import hashlib
    from base64 import urlsafe_b64encode

    from itsdangerous import TimestampSigner

    signer = TimestampSigner(
        app.secret_key, salt="cookie-session", key_derivation="hmac", digest_method=hashlib.sha1
    )
    text = urlsafe_b64encode(UNREADABLE[payload]).rstrip(b"=") if payload in UNREADABLE else b".eJw"
    cookie = signer.sign(text).decode()
    app.add_url_rule("/", "index", lambda: repr(sorted(session.items())))
    answer = client.get("/", headers={"Cookie": f"session={cookie}"})
    assert (answer.status_code, answer.text) == (200, "[]")


def test_an_oversized_session_is_warned_about(app, live):
    noise = os.urandom(4000).hex()
    app.add_url_rule("/", "index", lambda: session.update(a=noise) or "ok")
    warned: list[str] = []
    import warnings

    show = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: warned.append(str(message))
        answer = live.get("/")
        warnings.showwarning = show
    assert answer.status_code == 200
    assert any("too large" in text for text in warned)


ACCESSES = {
    "get": lambda: session.get("a"),
    "item": lambda: session["a"],
    "in": lambda: "a" in session,
    "len": lambda: len(session),
    "iteration": lambda: list(session),
    "keys": lambda: list(session.keys()),
    "items": lambda: list(session.items()),
    "values": lambda: list(session.values()),
    "bool": lambda: bool(session),
    "copy": lambda: session.copy(),
    "setdefault": lambda: session.setdefault("a", 2),
    "pop": lambda: session.pop("b", None),
    "permanent": lambda: session.permanent,
    "set permanent": lambda: setattr(session, "permanent", True),
    "modified": lambda: session.modified,
    "set modified": lambda: setattr(session, "modified", True),
    "equality": lambda: session == {},
    "unpacking": lambda: {**session},
    "repr": lambda: repr(session),
    "new": lambda: session.new,
    "set": lambda: session.__setitem__("x", 1),
    "delete": lambda: session.__delitem__("a"),
    "clear": lambda: session.clear(),
}


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("sends", [True, False], ids=["with-cookie", "without"])
@pytest.mark.parametrize("hook", [True, False], ids=["hook", "bare"])
def test_every_access_to_the_session_makes_the_answer_vary_by_cookie(app, client, access, sends, hook):
    if hook:
        app.after_request(lambda response: response)

    @app.route("/")
    def index():
        with contextlib.suppress(KeyError):
            ACCESSES[access]()
        return "ok"

    app.add_url_rule("/none", "none", lambda: "none")
    headers = {"Cookie": f"session={session_cookie(app, a=1)}"} if sends else {}
    answer = client.get("/", headers=headers)
    assert answer.status_code == 200
    assert "Cookie" in (answer.header("Vary") or "")
    # A permanent session's cookie would be renewed.
    client.cookies.clear()
    assert client.get("/none", headers=headers).header("Vary") is None


def test_a_raising_view_is_500_with_its_traceback_in_the_log_only(app, live, caplog):
    @app.route("/")
    def index():
        raise LookupError("the secret reason")

    app.add_url_rule("/next", "next", lambda: "next")
    with caplog.at_level(logging.ERROR):
        answer = live.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "LookupError" not in answer.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "Exception on / [GET]"
    assert record.exc_info[0] is LookupError
    assert live.get("/next").text == "next"


@pytest.mark.parametrize("value", [None, (None, 200)], ids=["none", "none-in-tuple"])
def test_a_view_that_returns_nothing_is_told_so(app, live, caplog, value):
    app.add_url_rule("/", "forgetful", lambda: value)
    with caplog.at_level(logging.ERROR):
        assert live.get("/").status_code == 500
    error = caplog.records[0].exc_info[1]
    assert isinstance(error, TypeError)
    assert "'forgetful'" in str(error)
    assert "return" in str(error)


@pytest.mark.parametrize(
    "text", ["a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\rX-Injected: 1", "a\0b", "a\r\n\r\n<script>"]
)
@pytest.mark.parametrize("way", ["response", "tuple", "raw", "cookie", "redirect", "file"])
def test_a_header_value_with_line_ends_injects_nothing(app, live, caplog, text, way):
    import io

    from hipflask import Response, redirect, send_file

    @app.route("/")
    def index():
        if way == "response":
            response = Response("body")
            response.headers["X-Value"] = text
            return response
        if way == "tuple":
            return "body", {"X-Value": text}
        if way == "cookie":
            response = Response("body")
            response.set_cookie("a", text)
            return response
        if way == "redirect":
            return redirect("/" + text)
        if way == "file":
            return send_file(io.BytesIO(b"body"), download_name=text, mimetype="text/plain")
        response = Response("body")
        response.headers._list = [("X-Value", text)]
        return response

    app.add_url_rule("/next", "next", lambda: "next")
    with caplog.at_level(logging.ERROR):
        answer = live.get("/")
    assert answer.header("X-Injected") is None
    assert b"<script>" not in answer.data
    if way in {"response", "tuple"} and "\0" not in text:
        assert answer.status_code == 500
        assert any("newline" in str(record.exc_info[1]).lower() for record in caplog.records)
    assert live.get("/next").text == "next"


def test_a_header_that_the_server_refuses_is_500_with_the_reason_in_the_log(app, live, caplog):
    @app.route("/")
    def index():
        return "body", {"X-Value": "a\0b"}

    with caplog.at_level(logging.ERROR):
        assert live.get("/").status_code == 500
    assert any("X-Value" in str(record.exc_info and record.exc_info[1]) for record in caplog.records)


def test_a_request_object_outlives_its_request(app, live):
    """Kept by a closure and a thread, it still tells what it knows."""
    kept: list = []
    told: list = []
    gate = threading.Event()

    @app.route("/<name>", methods=["POST"])
    def view(name):
        mine = request._get_current_object()
        kept.append(mine)

        def later():
            gate.wait(10)
            told.append((mine.path, mine.args["q"], mine.headers["X-A"], mine.view_args))
            try:
                told.append(len(mine.get_data()))
            except (BadRequest, RuntimeError, ValueError, OSError) as error:
                told.append(type(error).__name__)

        thread = threading.Thread(target=later)
        thread.start()
        kept.append(thread)
        return "ok"

    assert live.post("/first?q=1", data=b"x" * 10, headers={"X-A": "a"}).text == "ok"
    assert live.post("/second?q=2", data=b"y" * 200_000, headers={"X-A": "b"}).text == "ok"
    gate.set()
    for thread in kept[1::2]:
        thread.join()
    paths = {entry[:3] for entry in told if isinstance(entry, tuple)}
    assert paths == {("/first", "1", "a"), ("/second", "2", "b")}
    assert kept[0].url.endswith("/first?q=1")
    assert kept[0].environ["PATH_INFO"] == "/first"


def test_a_torn_connection_does_not_end_the_server(app, live):
    app.add_url_rule("/", "index", lambda: str(len(request.get_data())), methods=["GET", "POST"])
    assert live.get("/").status_code == 200
    connection = live._door.connection
    for _ in range(20):
        with socket.create_connection((connection.host, connection.port)) as torn:
            torn.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
    assert live.get("/").status_code == 200
