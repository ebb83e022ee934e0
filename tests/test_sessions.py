"""Sessions: cookies exchanged with the real Flask, what is refused, when headers are sent."""

from __future__ import annotations

import datetime
import hashlib
import subprocess
import sys
import textwrap
import uuid
import zlib

import itsdangerous
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from hipflask import Flask, session
from hipflask._core import session_open, session_seal
from hipflask.json.tag import JSONTag, TaggedJSONSerializer
from hipflask.sessions import (
    NullSession,
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)

KEY = "a secret é"
TEN_YEARS = 315_360_000


@pytest.fixture
def app():
    app = Flask(__name__)
    app.secret_key = KEY
    return app


def python_serializer(app):
    """What Flask uses: itsdangerous around the tagged JSON."""
    return itsdangerous.URLSafeTimedSerializer(
        [*(app.config["SECRET_KEY_FALLBACKS"] or ()), app.secret_key],
        salt="cookie-session",
        serializer=TaggedJSONSerializer(),
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )


def seal(app, data):
    return session_seal(data, app.secret_key, "cookie-session", app.json)


def unseal(app, value, max_age=TEN_YEARS):
    return session_open(
        value, app.secret_key, app.config["SECRET_KEY_FALLBACKS"], "cookie-session", max_age, app.json
    )


def frozen(monkeypatch, app, data):
    """The cookies of both at the same second."""
    while True:
        ours = seal(app, data)
        theirs = python_serializer(app).dumps(data)
        if ours is None or ours.split(".")[-2] == theirs.split(".")[-2]:
            return ours, theirs


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
moments = st.datetimes(min_value=datetime.datetime(1000, 1, 1), timezones=st.just(datetime.timezone.utc)).map(
    lambda moment: moment.replace(microsecond=0)
)
values = st.recursive(
    plain | st.binary() | st.uuids() | moments | st.text().map(Markup),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.sampled_from([" t", " di", " b", " t__", "x"]), inner, max_size=1)
    ),
    max_leaves=15,
)


@examples(200)
@given(st.dictionaries(st.text(), values))
def test_native_cookies_are_those_of_itsdangerous(data):
    app = Flask(__name__)
    app.secret_key = KEY
    with app.app_context():
        ours, theirs = frozen(None, app, data)
        assert ours == theirs or ours is None
        native = unseal(app, theirs)
        if native is not NotImplemented:
            assert native == python_serializer(app).loads(theirs) == data
            assert repr(native) == repr(python_serializer(app).loads(theirs))


SAMPLES = {
    "counter": {"n": 1},
    "permanent": {"_permanent": True, "user_id": 12, "csrf_token": "ab" * 20},
    "compressed": {"text": "spam " * 100},
    "tuple": {"t": (1, (2, "x"), [3, ()])},
    "bytes": {"b": b"\x00\xff"},
    "markup": {"m": Markup("<b>é</b>")},
    "uuid": {"u": uuid.UUID(int=7)},
    "datetime": {"d": datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.timezone.utc)},
    "naive": {"d": datetime.datetime(2024, 2, 29, 1, 2, 3)},
    "looks like a tag": {"x": {" t": [1]}, "y": {" t__": 1}, "z": {" di": {" b": "x"}}},
    "flashes": {"_flashes": [("message", "Hello"), ("error", "No")]},
    "unsorted": {"b": 1, "a": 2, "é": "\U0001f600"},
}


@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES.keys())
def test_usual_sessions_take_the_native_path(app, data):
    with app.app_context():
        ours, theirs = frozen(None, app, data)
        assert ours == theirs
        assert repr(unseal(app, ours)) == repr(python_serializer(app).loads(ours))


FLASK_SIDE = textwrap.dedent(
    """
    import datetime, sys, uuid
    from flask import Flask
    from markupsafe import Markup
    UUID = uuid.UUID
    app = Flask(__name__)
    app.secret_key = "a secret é"
    serializer = app.session_interface.get_signing_serializer(app)
    with app.app_context():
        for line in sys.stdin.read().splitlines():
            kind, _, text = line.partition(" ")
            if kind == "loads":
                print(repr(serializer.loads(text)))
            else:
                print(serializer.dumps(eval(text)))
    """
)


def test_cookies_are_exchanged_with_flask_in_both_directions(app):
    with app.app_context():
        lines = [f"loads {seal(app, data)}" for data in SAMPLES.values()]
        lines += [f"dumps {data!r}" for data in SAMPLES.values()]
        done = subprocess.run(
            [sys.executable, "-c", FLASK_SIDE],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={"PYTHONUTF8": "1"},
        )
        assert done.stderr == ""
        answers = done.stdout.splitlines()
        for data, read, written in zip(
            SAMPLES.values(), answers[: len(SAMPLES)], answers[len(SAMPLES) :], strict=True
        ):
            back = unseal(app, seal(app, data))
            assert read == repr(back)
            assert repr(unseal(app, written)) == repr(back)


@pytest.mark.parametrize("position", range(0, 60, 3))
def test_a_tampered_cookie_is_an_empty_session(app, position):
    with app.app_context():
        value = seal(app, {"user": "eve", "n": 1, "x": "y"})
        index = position % (len(value) - 1)
        changed = value[:index] + ("A" if value[index] != "A" else "B") + value[index + 1 :]
        assert unseal(app, changed) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "é.ü.ö",
        "e30.aaaa.",
        "\ud800",
        "e30.. ",
        "." * 5000,
        "A" * 100_000,
    ],
)
def test_garbage_is_an_empty_session(app, value):
    with app.app_context():
        opened = unseal(app, value)
        assert opened is None or (opened is NotImplemented and value == "\ud800")


def test_an_expired_cookie_is_an_empty_session(app):
    with app.app_context():
        value = seal(app, {"n": 1})
        assert unseal(app, value, max_age=60) == {"n": 1}
        assert unseal(app, value, max_age=-1) is None


def test_a_cookie_from_the_future_is_an_empty_session(app):
    signer = python_serializer(app).make_signer("cookie-session")
    signer.get_timestamp = lambda: 2**40
    assert unseal(app, signer.sign(b"e30").decode()) is None


def signed(app, payload: bytes) -> str:
    return python_serializer(app).make_signer("cookie-session").sign(payload).decode()


def test_a_compressed_bomb_is_an_empty_session(app):
    bomb = zlib.compress(b'{"x":"' + b"A" * 50_000_000 + b'"}')
    assert unseal(app, signed(app, b"." + itsdangerous.encoding.base64_encode(bomb))) is None


@pytest.mark.parametrize("data", [b"not zlib", zlib.compress(b"{}")[:-2], b""])
def test_broken_compression_is_an_empty_session(app, data):
    assert unseal(app, signed(app, b"." + itsdangerous.encoding.base64_encode(data))) is None


def test_a_signed_payload_that_is_no_json_is_an_empty_session(app):
    value = signed(app, itsdangerous.encoding.base64_encode(b'{" u":"no uuid"}'))
    with app.test_request_context(headers={"Cookie": f"session={value}"}):
        assert dict(session) == {}


def test_keys_rotate(app):
    with app.app_context():
        value = seal(app, {"n": 1})
        app.secret_key = "new"
        assert unseal(app, value) is None
        app.config["SECRET_KEY_FALLBACKS"] = ["other", KEY]
        assert unseal(app, value) == {"n": 1}
        assert python_serializer(app).loads(seal(app, {"n": 2})) == {"n": 2}
        app.config["SECRET_KEY_FALLBACKS"] = []
        app.secret_key = b"bytes"
        assert unseal(app, seal(app, {"n": 3})) == {"n": 3}
        app.secret_key = bytearray(b"odd")
        assert seal(app, {}) is None


def test_a_session_lives_through_requests(app):
    @app.route("/")
    def count():
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]


# Every use of the session makes the answer depend on the cookie.
ACCESSES = {
    "get": lambda: session.get("x"),
    "item": lambda: session["n"],
    "in": lambda: "x" in session,
    "len": lambda: len(session),
    "iteration": lambda: list(session),
    "bool": lambda: bool(session),
    "copy": lambda: session.copy(),
    "setdefault": lambda: session.setdefault("n", 2),
    "keys": lambda: session.keys(),
    "items": lambda: list(session.items()),
    "eq": lambda: session == {},
    "repr": lambda: repr(session),
    "permanent": lambda: session.permanent,
    "modified": lambda: session.modified,
    "new": lambda: session.new,
    "set": lambda: session.update(a=1),
    "delete": lambda: session.pop("n"),
    "clear": lambda: session.clear(),
    "set permanent": lambda: setattr(session, "permanent", True),
}


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES.keys())
def test_every_access_varies_by_cookie(app, access):
    @app.route("/set")
    def set_it():
        session["n"] = 1
        return ""

    @app.route("/")
    def use():
        access()
        return ""

    client = app.test_client()
    client.get("/set")
    assert client.get("/").headers["Vary"] == "Cookie"


def test_no_access_no_vary(app):
    app.add_url_rule("/", view_func=lambda: "")
    response = app.test_client().get("/")
    assert "Vary" not in response.headers
    assert "Set-Cookie" not in response.headers


def test_vary_is_kept_and_extended(app):
    @app.route("/")
    def use():
        session["n"] = 1
        return "", {"Vary": "Accept-Encoding, Accept-Language"}

    vary = app.test_client().get("/").headers["Vary"]
    assert [part.strip() for part in vary.split(",")] == ["Accept-Encoding", "Accept-Language", "Cookie"]


def test_the_cookie_has_all_its_attributes(app):
    app.config.update(
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_PATH="/app",
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PARTITIONED=True,
    )

    @app.route("/app/<do>")
    def use(do):
        if do == "clear":
            session.clear()
        else:
            session["n"] = 1
            session.permanent = True
        return ""

    client = app.test_client()
    cookie = client.get("/app/set", "https://example.com/").headers["Set-Cookie"]
    assert cookie.startswith("sid=")
    for part in ("Domain=example.com", "Path=/app", "Secure", "SameSite=Lax", "Partitioned", "Expires="):
        assert f"; {part}" in cookie
    assert "HttpOnly" not in cookie
    cookie = client.get("/app/clear", "https://example.com/").headers["Set-Cookie"]
    for part in ("Domain=example.com", "Path=/app", "Secure", "SameSite=Lax", "Partitioned", "Max-Age=0"):
        assert f"; {part}" in cookie


@pytest.mark.parametrize("refresh", [True, False])
def test_a_permanent_session_is_refreshed(app, refresh):
    app.config["SESSION_REFRESH_EACH_REQUEST"] = refresh

    @app.route("/<do>")
    def use(do):
        if do == "set":
            session.permanent = True
        return str(session.permanent)

    client = app.test_client()
    assert "Expires" in client.get("/set").headers["Set-Cookie"]
    assert ("Set-Cookie" in client.get("/look").headers) is refresh


def test_without_a_secret_key_the_session_refuses_changes():
    app = Flask(__name__)
    with app.test_request_context():
        assert session.get("x") is None
        assert isinstance(app.session_interface.make_null_session(app), NullSession)
        for change in (
            lambda: session.update(a=1),
            lambda: session.__setitem__("a", 1),
            lambda: session.pop("a"),
            lambda: session.clear(),
            lambda: session.setdefault("a", 1),
            lambda: setattr(session, "permanent", True),
        ):
            with pytest.raises(RuntimeError, match="no secret key was set"):
                change()


def test_an_interface_of_its_own(app):
    class Store(dict, SessionMixin):
        pass

    saved = []

    class Interface(SessionInterface):
        def open_session(self, app, request):
            return Store(user=request.args.get("u"))

        def save_session(self, app, session, response):
            saved.append(dict(session))

    app.session_interface = Interface()
    app.add_url_rule("/", view_func=lambda: session["user"])
    assert app.test_client().get("/?u=me").text == "me"
    assert saved == [{"user": "me"}]


def customised(**attributes):
    return type("Interface", (SecureCookieSessionInterface,), attributes)()


@pytest.mark.parametrize(
    ("interface", "native"),
    [
        (SecureCookieSessionInterface(), True),
        (customised(), True),
        (customised(salt="other"), True),
        (customised(digest_method=staticmethod(hashlib.sha256)), False),
        (customised(key_derivation="django-concat"), False),
        (customised(serializer=TaggedJSONSerializer()), False),
        (customised(get_signing_serializer=lambda self, app: None), False),
    ],
)
def test_only_an_interface_that_signs_as_flask_does_is_native(app, interface, native):
    assert interface._signs_natively() is native
    if interface.get_signing_serializer(app) is None:
        return
    app.session_interface = interface

    @app.route("/")
    def use():
        session["t"] = (*session.get("t", ()), 1)
        return str(session["t"])

    client = app.test_client()
    client.get("/")
    assert client.get("/").text == "(1, 1)"
    with app.app_context():
        value = client.get_cookie("session").value
        assert interface.get_signing_serializer(app).loads(value) == {"t": (1, 1)}


def test_a_tag_registered_with_the_shared_serializer_is_used(app):
    code = """
        from hipflask import Flask, session
        from hipflask.json.tag import JSONTag
        class Complex(JSONTag):
            key = " c"
            check = lambda self, value: isinstance(value, complex)
            to_json = lambda self, value: [value.real, value.imag]
            to_python = lambda self, value: complex(*value)
        app = Flask(__name__)
        app.secret_key = "k"
        app.session_interface.serializer.register(Complex)
        @app.route("/")
        def use():
            session["c"] = session.get("c", 0) + 1j
            return str(session["c"])
        client = app.test_client()
        client.get("/")
        assert client.get("/").text == "2j"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_provider_of_its_own_writes_the_session(app):
    calls = []

    class Provider(type(app.json)):
        def dumps(self, obj, **kwargs):
            calls.append(obj)
            return super().dumps(obj, **kwargs)

    app.json = Provider(app)

    @app.route("/")
    def use():
        session["n"] = 1
        return ""

    app.test_client().get("/")
    assert calls[-1] == {"n": 1}


def test_tags_are_registered_once():
    serializer = TaggedJSONSerializer()

    class Again(JSONTag):
        key = " t"

    with pytest.raises(KeyError, match="already registered"):
        serializer.register(Again)
    serializer.register(Again, force=True, index=0)
    assert isinstance(serializer.tags[" t"], Again)
    assert isinstance(serializer.order[0], Again)


def test_the_session_notes_changes():
    store = SecureCookieSession({"a": 1})
    assert not store.modified
    store["a"] = 1
    assert store.modified
    assert store.new is False
    assert SecureCookieSession().permanent is False


def test_a_session_is_made_without_loading_tags():
    code = """
        import sys, hipflask.sessions
        hipflask.sessions.SecureCookieSessionInterface()._signs_natively()
        assert "hipflask.json.tag" not in sys.modules
        assert "itsdangerous" not in sys.modules
        from hipflask.sessions import session_json_serializer as shared
        assert shared is hipflask.sessions.SecureCookieSessionInterface.serializer
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
