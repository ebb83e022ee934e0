"""Utilities, environs, cookies, redirects and files compared with Werkzeug's."""

from __future__ import annotations

import inspect
import io
import os
import string

import pytest
import werkzeug.middleware.proxy_fix
import werkzeug.security
import werkzeug.test
import werkzeug.utils
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

import hipflask.werkzeug.middleware.proxy_fix
import hipflask.werkzeug.security
import hipflask.werkzeug.test
import hipflask.werkzeug.utils

OURS, THEIRS = hipflask.werkzeug, werkzeug
BOTH = (OURS, THEIRS)


def both(function):
    """What a function of the package makes of each, errors included."""
    answers = []
    for package in BOTH:
        try:
            answers.append(function(package))
        except Exception as error:
            answers.append((type(error).__name__, str(error)))
    return answers


paths = st.text(alphabet="ab./\\~ é%", max_size=12)


@given(st.lists(paths, min_size=1, max_size=4))
def test_safe_join(parts):
    ours, theirs = both(lambda package: package.security.safe_join(*parts))
    assert ours == theirs


@given(st.one_of(st.text(max_size=20), paths))
def test_secure_filename(name):
    ours, theirs = both(lambda package: package.utils.secure_filename(name))
    assert ours == theirs


@examples(10)
@given(
    st.text(max_size=10).filter(lambda text: "\0" not in text),
    st.sampled_from(["scrypt:2048:8:1", "pbkdf2:sha1:5"]),
)
def test_a_hash_of_one_is_accepted_by_the_other(password, method):
    hashes = [package.security.generate_password_hash(password, method) for package in BOTH]
    for package in BOTH:
        for hashed in hashes:
            assert package.security.check_password_hash(hashed, password)
            assert not package.security.check_password_hash(hashed, password + "x")


@pytest.mark.parametrize("mimetype", ["text/x", "a/b", "a/b+xml", "application/xml", "application/sql", ""])
def test_get_content_type(mimetype):
    ours, theirs = both(lambda package: package.utils.get_content_type(mimetype, "utf-8"))
    assert ours == theirs


def shown(response):
    """Status, headers as a multiset, body."""
    response.direct_passthrough = False
    body = response.get_data()
    response.close()
    return response.status, sorted((k.lower(), v) for k, v in response.headers), body


@given(
    st.text(alphabet=string.printable.replace("\r", "").replace("\n", ""), max_size=20),
    st.sampled_from([301, 302, 303, 305, 307, 308]),
)
def test_redirect(location, code):
    ours, theirs = both(lambda package: shown(package.utils.redirect(location, code)))
    assert ours == theirs


@pytest.mark.parametrize("path", ["/a", "/a/b", "a", "", "/a/b/"])
@pytest.mark.parametrize("query", ["", "x=1&y"])
def test_append_slash_redirect(path, query):
    environ = {"PATH_INFO": path, "QUERY_STRING": query}
    ours, theirs = both(lambda package: shown(package.utils.append_slash_redirect(environ)))
    assert ours == theirs


HEADERS = [
    {},
    {"Range": "bytes=0-3"},
    {"Range": "bytes=-4"},
    {"Range": "bytes=5-"},
    {"Range": "bytes=100-"},
    {"Range": "lines=1-2"},
    {"Range": "bytes=0-1,3-4"},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "Sun, 13 Sep 2020 12:26:40 GMT"},
    {"If-Modified-Since": "Sun, 13 Sep 2020 12:26:39 GMT"},
    {"If-Match": '"other"'},
    {"Range": "bytes=0-3", "If-Range": '"other"'},
]
OPTIONS = [
    {},
    {"as_attachment": True},
    {"download_name": "Käse & Wein.txt"},
    {"download_name": "plain name.txt", "as_attachment": True},
    {"mimetype": "a/b", "etag": False},
    {"etag": "mine", "last_modified": 1_000_000_000},
    {"max_age": 0},
    {"max_age": lambda path: -1},
    {"conditional": False},
    {"use_x_sendfile": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("headers", HEADERS, ids=str)
@pytest.mark.parametrize("name", ["page.html", "archive.tar.gz", "unknown"])
def test_send_file(tmp_path, monkeypatch, name, headers, options):
    path = tmp_path / name
    path.write_bytes(b"0123456789")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    monkeypatch.setattr("werkzeug.utils.time", lambda: 1_700_000_000.0)

    def send(package):
        environ = package.test.create_environ(headers=headers)
        return shown(package.utils.send_file(path, environ, **options))

    ours, theirs = both(send)
    without_date = [
        (a[0], [h for h in a[1] if h[0] != "date"], a[2]) if len(a) == 3 else a for a in (ours, theirs)
    ]
    assert without_date[0] == without_date[1]


def flat(environ):
    """An environ with its streams read."""
    out = {}
    for key, value in environ.items():
        out[key] = value.read() if key == "wsgi.input" else value
    return out


BUILDS = [
    {},
    {"path": "/a b/ü?x=ä&y=%20"},
    {"path": "/x%2Fy", "query_string": "a=b"},
    {"path": "http://example.com/abs?x"},
    {"path": "//double"},
    {"base_url": "https://exämple.com:444/r%20t/"},
    {"base_url": "http://[::1]:80/"},
    {"base_url": "http://host?x"},
    {"base_url": "http://host:port/"},
    {"query_string": {"a": ["1", "2"], "b": "ü&="}},
    {"query_string": {"a": 1}},
    {"method": "post", "data": {"a": "b", "c": ["d", "e"]}},
    {"data": "text"},
    {"data": "text", "content_type": "text/plain"},
    {"data": b"bytes", "content_length": 99},
    {"data": "", "method": "POST"},
    {"data": {"a": "ü"}, "content_type": "application/x-www-form-urlencoded; charset=utf-8"},
    {"json": [1, "ü"]},
    {"json": None},
    {"json": {"a": 1}, "content_type": "application/vnd.api+json"},
    {"json": 1, "data": "x"},
    {"auth": ("üser", "pass:word")},
    {"headers": {"X-A": "b", "Content-Type": "a/b", "Content-Length": "7"}},
    {"headers": [("X-A", "1"), ("x-a", "2"), ("Cookie", "a=b"), ("Cookie", "c=d")]},
    {"input_stream": b"stream"},
    {"input_stream": b"stream", "data": "x"},
    {"environ_base": {"REMOTE_ADDR": "1.2.3.4", "PATH_INFO": "lost"}},
    {"environ_overrides": {"wsgi.url_scheme": "ftp", "x": None}},
    {"mimetype": "text/html"},
    {"mimetype": "application/json", "data": "{}"},
    {"multithread": True, "multiprocess": True, "run_once": True},
]


@pytest.mark.parametrize("kwargs", BUILDS, ids=str)
def test_environ(kwargs):
    def build(package):
        arguments = dict(kwargs)
        if "input_stream" in arguments:
            arguments["input_stream"] = io.BytesIO(arguments["input_stream"])
        environ = package.test.create_environ(**arguments)
        again = package.test.EnvironBuilder.from_environ(dict(environ)).get_environ()
        again.pop("wsgi.input")
        return flat(environ), again

    ours, theirs = both(build)
    assert ours == theirs


@given(
    path=st.text(alphabet="abü/%2 ?#&=.+;", max_size=15).map(lambda text: "/" + text.lstrip("/")),
    query=st.one_of(st.none(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)),
)
def test_any_path_and_query(path, query):
    ours, theirs = both(lambda package: flat(package.test.create_environ(path, query_string=query)))
    assert ours == theirs


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8), max_size=3),
    st.dictionaries(st.text(min_size=1, max_size=5), st.binary(max_size=8), max_size=2),
)
def test_any_multipart_body(fields, files):
    def encode(package):
        data = {**fields}
        for name, content in files.items():
            data[name] = (io.BytesIO(content), f"{name}.txt")
        builder = package.test.EnvironBuilder(data=data)
        combined = package.test.CombinedMultiDict([builder.form, builder.files])
        return package.test.encode_multipart(combined, boundary="b")

    ours, theirs = both(encode)
    assert ours == theirs


@pytest.mark.parametrize(
    "header",
    [
        "a=b",
        "a=b; Path=/x; Domain=example.com; Secure; HttpOnly; SameSite=Lax; Max-Age=5",
        'a="q\\"uoted"; Path=/',
        "a=; Max-Age=0",
        "a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "a=b; expires=Wed, 21 Oct 2015 07:28:00 GMT; path=/deep/er",
        "a = spaced ;Path=",
        "a=b; Max-Age=",
    ],
)
@pytest.mark.parametrize("path", ["/", "/x", "/x/y", "/deep/er/still", "/xy"])
def test_cookie(header, path):
    def parse(package):
        cookie = package.test.Cookie._from_response_header("localhost", "/x/y", header)
        shown = {name: getattr(cookie, name) for name in package.test.Cookie.__dataclass_fields__}
        hosts = ("localhost", "example.com", "sub.example.com", "badexample.com")
        return shown, [cookie._matches_request(host, path) for host in hosts], cookie._should_delete

    ours, theirs = both(parse)
    assert ours == theirs


@given(
    st.fixed_dictionaries(
        {},
        optional={
            f"HTTP_X_FORWARDED_{name}": st.text(alphabet='a1:.,]["/ ', max_size=10)
            for name in ("FOR", "PROTO", "HOST", "PORT", "PREFIX")
        },
    ),
    st.tuples(*[st.integers(0, 2)] * 5),
    st.sampled_from([None, "host", "host:80", "[::1]", "[::1]:80"]),
)
def test_proxy_fix(forwarded, trust, host):
    def fix(package):
        seen = {}
        environ = {"SERVER_NAME": "n", "SERVER_PORT": "1", **forwarded}
        if host is not None:
            environ["HTTP_HOST"] = host
        app = package.middleware.proxy_fix.ProxyFix(lambda environ, start: seen.update(environ) or [], *trust)
        app(environ, None)
        return seen

    ours, theirs = both(fix)
    assert ours == theirs


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("test", "EnvironBuilder"),
        ("test", "Client"),
        ("test", "run_wsgi_app"),
        ("test", "stream_encode_multipart"),
        ("utils", "send_file"),
        ("utils", "send_from_directory"),
        ("utils", "redirect"),
        ("security", "generate_password_hash"),
        ("security", "check_password_hash"),
    ],
)
def test_signature(module, name):
    signatures = [
        [
            (p.name, p.kind, p.default)
            for p in inspect.signature(getattr(getattr(b, module), name)).parameters.values()
        ]
        for b in BOTH
    ]
    assert signatures[0] == signatures[1]
