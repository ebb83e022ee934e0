"""Input made to cost much: 5 MiB of it takes bounded memory, and work in proportion to its length.

Work is counted in CPU time, never in time on the wall, and compared to that of a shorter input.
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import zlib
from base64 import urlsafe_b64encode

import pytest
from doors import DOORS, Client
from itsdangerous import TimestampSigner

from hipflask import Flask, request, session

MIB = 1024 * 1024
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARTS = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
FILE = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'


@pytest.fixture(params=["live", "live-full-lane"])
def live(request: pytest.FixtureRequest, app: Flask):
    client = Client(app, DOORS[request.param])
    yield client
    client.close()


def memory(name):
    """A size in bytes from Linux's account of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:"))


def peak_of(act):
    """By how much the process grew at most while `act` ran, and its result.

    Not by `tracemalloc`: to start and stop it while another thread begins crashes CPython 3.11 (gh-128679).
    """
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = memory("VmRSS")
    result = act()
    return memory("VmHWM") - before, result


def cpu_of(act):
    before = resource.getrusage(resource.RUSAGE_SELF)
    act()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def colliding(count):
    """Keys of numbers whose hashes are equal modulo 2**61 - 1, as text: harmless for a keyed string hash."""
    return [str(number * (2**61 - 1)) for number in range(count)]


COSTLY = {
    "percents": (FORM, lambda n: b"a=" + b"%" * n),
    "percents-as-name": (FORM, lambda n: b"%" * n),
    "percent-pairs": (FORM, lambda n: b"a=" + b"%41" * (n // 3)),
    "not-utf-8": (FORM, lambda n: b"a=" + b"%ff" * (n // 3)),
    "many-keys": (FORM, lambda n: b"&".join(b"k%d=" % i for i in range(n // 8))),
    "colliding-keys": (FORM, lambda n: "=1&".join(colliding(n // 26)).encode()),
    "separators": (FORM, lambda n: b"&" * n),
    "equals": (FORM, lambda n: b"=" * n),
    "equal-keys": (FORM, lambda n: b"&".join([b"a=b"] * (n // 4))),
    "deep-json": (JSON, lambda n: b"[" * n),
    "deep-closed-json": (JSON, lambda n: b"[" * (n // 2) + b"]" * (n // 2)),
    "deep-objects": (JSON, lambda n: b'{"a":' * (n // 5)),
    "many-deep-lists": (JSON, lambda n: b"[" + (b"[" * 150 + b"]" * 150 + b",") * (n // 301) + b"1]"),
    "empty-lists": (JSON, lambda n: b"[" + b"[]," * (n // 3) + b"1]"),
    "colliding-json": (JSON, lambda n: json.dumps(dict.fromkeys(colliding(n // 27), 1)).encode()),
    "long-number": (JSON, lambda n: b"1" * n),
    "long-exponent": (JSON, lambda n: b"1e" + b"1" * n),
    "parts": (PARTS, lambda n: FIELD * (n // len(FIELD)) + b"--b--\r\n"),
    "files": (PARTS, lambda n: (FILE + b"x\r\n") * (n // len(FILE)) + b"--b--\r\n"),
    "unterminated": (PARTS, lambda n: FILE + b"x" * n),
    "unterminated-field": (PARTS, lambda n: FIELD + b"x" * n),
    "line-ends": (PARTS, lambda n: FILE + b"\r\n" * (n // 2)),
    "almost-boundaries": (PARTS, lambda n: FILE + b"\r\n--" * (n // 4)),
    "dashes": (PARTS, lambda n: FILE + b"-" * n),
    "endless-header": (PARTS, lambda n: b"--b\r\nContent-Disposition: " + b"x" * n),
    "header-lines": (PARTS, lambda n: FILE[:-4] + b"\r\nX: y" * (n // 6) + b"\r\n\r\n--b--"),
    "no-boundary": (PARTS, lambda n: b"x" * n),
}

#: How many times the body's length an input takes, where the objects that Python makes of it are larger than
#: the text: each needs 50 to 200 bytes. `json.loads` alone takes as much.
LARGER = {
    "many-keys": 26,
    "colliding-keys": 12,
    "equal-keys": 6,
    "many-deep-lists": 55,
    "empty-lists": 32,
    "colliding-json": 9,
    # What could not be decoded is escaped again; Python copies the digits.
    "not-utf-8": 4,
    "long-number": 4,
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_body_takes_bounded_memory(app, live, name):
    app.config.update(MAX_FORM_MEMORY_SIZE=None, MAX_FORM_PARTS=1000)
    headers, make = COSTLY[name]
    body = make(5 * MIB)

    @app.route("/", methods=["POST"])
    def index():
        if headers is JSON:
            return {"found": request.get_json(silent=True) is not None}
        return {"found": len(request.form) + len(request.files)}

    app.add_url_rule("/alive", "alive", lambda: "alive")
    live.get("/alive")
    live.post("/", data=make(1000), headers=headers)
    peak, answer = peak_of(lambda: live.post("/", data=body, headers=headers))
    assert answer.status_code in {200, 400, 413}
    assert peak < LARGER.get(name, 2) * len(body) + 4 * MIB
    assert live.get("/alive").text == "alive"


@pytest.mark.parametrize("name", COSTLY)
def test_the_work_for_a_costly_body_grows_with_its_length_only(app, live, name):
    app.config.update(MAX_FORM_MEMORY_SIZE=None, MAX_FORM_PARTS=1_000_000)
    headers, make = COSTLY[name]
    read = (
        (lambda: request.get_json(silent=True))
        if headers is JSON
        else (lambda: request.form and request.files)
    )
    app.add_url_rule("/", "index", lambda: read() and "ok" or "none", methods=["POST"])
    # Forms in parts are read in another way up to 500 KiB.
    shorter, times = (MIB, 6) if headers is PARTS else (MIB // 8, 16)
    small, large = make(shorter), make(times * shorter)
    live.post("/", data=small, headers=headers)
    first = min(cpu_of(lambda: live.post("/", data=small, headers=headers)) for _ in range(3))
    second = min(cpu_of(lambda: live.post("/", data=large, headers=headers)) for _ in range(2))
    # Quadratic work would be `times * times` as much. CPU of this process, not time on the wall.
    assert second < 0.6 * times * times * max(first, 0.003)


@pytest.mark.parametrize("name", ["percents", "many-keys", "colliding-keys", "equal-keys", "header-lines"])
def test_a_form_beyond_the_default_limits_is_refused_at_once(app, live, name):
    headers, make = COSTLY[name]
    body = make(5 * MIB)
    app.add_url_rule("/", "index", lambda: {"found": len(request.form)}, methods=["GET", "POST"])
    live.get("/")
    peak, answer = peak_of(lambda: live.post("/", data=body, headers=headers))
    assert answer.status_code == 413
    assert peak < 4 * MIB


HEADS = {
    "path": lambda n: ("/" + "%" * n, {}),
    "escaped-path": lambda n: ("/" + "%2e%2e%2f" * (n // 9), {}),
    "slashes": lambda n: ("/" * n, {}),
    "query": lambda n: ("/?" + "%" * n, {}),
    "cookie": lambda n: ("/", {"Cookie": "; ".join(f"{key}=1" for key in colliding(n // 26))}),
    "quoted-cookie": lambda n: ("/", {"Cookie": 'a="' + "\\" * n}),
    "header": lambda n: ("/", {"Accept": "a/b;q=0.5," * (n // 10)}),
    "range": lambda n: ("/", {"Range": "bytes=" + "0-1," * (n // 4)}),
    "etags": lambda n: ("/", {"If-None-Match": 'W/"a",' * (n // 6)}),
    "options": lambda n: ("/", {"Content-Type": "text/html" + '; a="b"' * (n // 7)}),
    "authorization": lambda n: ("/", {"Authorization": "Digest " + 'a="b",' * (n // 6)}),
}


def read_everything():
    """Look at all that is made of a request's head."""
    request.args, request.cookies, request.accept_mimetypes, request.range, request.if_none_match  # noqa: B018
    request.mimetype_params, request.authorization, request.url, request.full_path  # noqa: B018
    return "ok"


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_5_mib_is_refused_by_the_engine(app, live, name):
    app.add_url_rule("/", "index", read_everything)
    live.get("/")
    url, headers = HEADS[name](5 * MIB)
    peak, answer = peak_of(lambda: live.get(url, headers=headers))
    assert answer.status_code in {414, 431}
    # The client's copies of the head are in this process, too.
    assert peak < 25 * MIB
    assert live.get("/").text == "ok"


@pytest.mark.parametrize("name", HEADS)
def test_the_work_for_a_head_that_another_server_let_through_grows_with_its_length_only(app, name):
    """Through WSGI, where Hipflask's engine has set no limits."""
    app.add_url_rule("/", "index", read_everything)
    app.register_error_handler(404, lambda error: read_everything())

    def environ(length):
        url, headers = HEADS[name](length)
        path, _, query = url.partition("?")
        fields = {f"HTTP_{key.upper().replace('-', '_')}": value for key, value in headers.items()}
        fields["CONTENT_TYPE"] = fields.pop("HTTP_CONTENT_TYPE", "")
        return {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            **fields,
        }

    def ask(given):
        list(app(dict(given), lambda status, headers, exc_info=None: None))

    small, large = environ(MIB // 8), environ(2 * MIB)
    ask(small)
    first = min(cpu_of(lambda: ask(small)) for _ in range(3))
    second = min(cpu_of(lambda: ask(large)) for _ in range(2))
    assert second < 100 * max(first, 0.003)


def signed(app, payload):
    """Sign a session's payload as the app does, whatever it is."""
    signer = TimestampSigner(
        app.secret_key, salt="cookie-session", key_derivation="hmac", digest_method=hashlib.sha1
    )
    return signer.sign(payload).decode()


@pytest.mark.parametrize("has_key", [True, False], ids=["signed", "forged"])
@pytest.mark.parametrize("door", ["live", "live-full-lane", "wsgi"])
def test_a_compressed_session_does_not_unpack_without_bound(app, door, has_key):
    # As much as a cookie of 16 KiB can unpack to; through WSGI another server may let more through.
    unpacked = 500 * MIB if door == "wsgi" else 8 * MIB
    packer = zlib.compressobj(9)
    packed = packer.compress(b'{"a":"') + b"".join(
        packer.compress(b"x" * MIB) for _ in range(unpacked // MIB)
    )
    bomb = b"." + urlsafe_b64encode(packed + packer.compress(b'"}') + packer.flush()).rstrip(b"=")
    app.add_url_rule("/", "index", lambda: str(len(session)))
    cookie = signed(app, bomb) if has_key else bomb.decode() + ".aaaaaa." + "a" * 27
    client = Client(app, DOORS[door])
    client.get("/")
    peak, answer = peak_of(lambda: client.get("/", headers={"Cookie": f"session={cookie}"}))
    client.close()
    assert (answer.status_code, answer.text) == (200, "0")
    assert peak < 4 * MIB + 4 * len(cookie)
