"""Requests on both of their backings, and responses."""

from __future__ import annotations

import gc
import io
import pickle
import threading
import weakref

import pytest

from hipflask import Flask
from hipflask import Request as FlaskRequest
from hipflask import Response as FlaskResponse
from hipflask._core import _request_from_wire
from hipflask.werkzeug.datastructures import Headers, ImmutableMultiDict, MultiDict
from hipflask.werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    SecurityError,
    UnsupportedMediaType,
)
from hipflask.werkzeug.sansio.request import Request as SansIORequest
from hipflask.werkzeug.wrappers import Request, Response
from hipflask.werkzeug.wsgi import FileWrapper


def from_environ(cls, method, target, fields, body):
    path, _, query = target.partition("?")
    from urllib.parse import unquote_to_bytes

    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
    }
    for name, value in fields.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return cls(environ)


def from_wire(cls, method, target, fields, body):
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return _request_from_wire(cls, "\r\n".join([*lines, "", ""]).encode("latin1"), body)


@pytest.fixture(params=[from_environ, from_wire], ids=["environ", "engine"])
def make(request):
    """Makes a request on one of the two backings."""

    def make(target="/", method="GET", body=b"", cls=Request, **fields):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        fields.setdefault("Host", "localhost")
        if body:
            fields.setdefault("Content-Length", str(len(body)))
        return request.param(cls, method, target, fields, body)

    return make


def test_method_path_and_query_are_read_from_the_request(make):
    request = make("/caf%C3%A9/x?a=1&b=two%20words&a=3&c", method="POST")
    assert request.method == "POST"
    assert request.path == "/café/x"
    assert request.query_string == b"a=1&b=two%20words&a=3&c"
    assert request.full_path == "/café/x?a=1&b=two%20words&a=3&c"
    assert request.args == ImmutableMultiDict([("a", "1"), ("b", "two words"), ("a", "3"), ("c", "")])
    assert request.args.getlist("a") == ["1", "3"]
    assert request.remote_addr == "127.0.0.1"
    assert request.root_path == request.script_root == ""
    assert repr(request).startswith("<Request 'http://localhost/café/x?a=1")


def test_bytes_in_the_path_that_are_not_utf8_become_replacement_characters(make):
    assert make("/%ff").path == "/\ufffd"


def test_escapes_in_the_query_that_are_not_utf8_stay_escaped(make):
    assert make("/?a=%ff%41").args["a"] == "%FFA"


def test_raw_bytes_in_the_query_that_are_not_utf8_count_as_escaped():
    assert from_environ(Request, "GET", "/?a=\xff", {}, b"").args["a"] == "%FF"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("example.com", "http://example.com/a?b=c"),
        ("example.com:80", "http://example.com/a?b=c"),
        ("example.com:8080", "http://example.com:8080/a?b=c"),
        ("EXAMPLE.com", "http://example.com/a?b=c"),
        ("xn--n3h.net", "http://☃.net/a?b=c"),
    ],
)
def test_url_parts(make, host, url):
    request = make("/a?b=c", Host=host)
    assert request.url == url
    assert request.base_url == url.partition("?")[0]
    assert request.host_url == request.root_url == request.url_root == url.partition("a?")[0]
    assert not request.is_secure
    assert request.scheme == "http"


def test_url_keeps_what_has_to_stay_escaped(make):
    assert make("/a%20b/%C3%A9?x=%26%C3%A9").url == "http://localhost/a%20b/é?x=%26é"


def test_a_host_that_is_not_trusted_is_refused(make):
    class Guarded(Request):
        trusted_hosts = ["example.com", ".example.org"]

    assert make(cls=Guarded, Host="a.example.org:90").host == "a.example.org:90"
    for host in ("example.net", "evil-example.org"):
        with pytest.raises(SecurityError):
            _ = make(cls=Guarded, Host=host).host


def test_headers_and_cookies(make):
    request = make(
        X_A="one", Cookie="a=1; b=%22; a=2", User_Agent="curl", Accept="text/html;q=0.5, text/plain"
    )
    assert request.headers["x-a"] == "one"
    assert "X-B" not in request.headers
    assert request.headers.get("User-Agent") == request.user_agent.string == "curl"
    assert request.cookies["a"] == "1"
    assert request.cookies.getlist("a") == ["1", "2"]
    assert request.accept_mimetypes.best == "text/plain"
    with pytest.raises(TypeError):
        request.headers["X-B"] = "no"


def test_access_route_and_authorization(make):
    request = make(X_Forwarded_For="1.1.1.1, 2.2.2.2", Authorization="Basic dTpw")
    assert request.access_route == ["1.1.1.1", "2.2.2.2"]
    assert (request.authorization.username, request.authorization.password) == ("u", "p")
    assert make().access_route == ["127.0.0.1"]


def test_a_form_is_parsed_once_and_the_stream_is_then_empty(make):
    body = b"a=1&b=%C3%A9&a=2&empty="
    request = make("/?q=1", "POST", body, Content_Type="application/x-www-form-urlencoded")
    assert request.want_form_data_parsed
    assert list(request.form.items(multi=True)) == [("a", "1"), ("a", "2"), ("b", "é"), ("empty", "")]
    assert request.form is request.form
    assert isinstance(request.form, ImmutableMultiDict)
    assert request.values["q"] == "1"
    assert request.values.getlist("a") == ["1", "2"]
    assert request.stream.read() == b""
    assert request.data == b""
    assert not request.files


def test_values_leave_the_form_out_for_get(make):
    request = make("/?q=1", "GET", b"a=1", Content_Type="application/x-www-form-urlencoded")
    assert dict(request.values) == {"q": "1"}


def test_cached_data_can_still_be_parsed_as_a_form(make):
    request = make("/", "POST", b"a=1", Content_Type="application/x-www-form-urlencoded")
    assert request.get_data() == b"a=1"
    assert request.get_data(as_text=True) == "a=1"
    assert request.form["a"] == "1"


def test_a_form_that_is_not_utf8_is_no_form(make):
    request = make("/", "POST", b"a=\xff", Content_Type="application/x-www-form-urlencoded")
    assert not request.form


def test_a_form_above_the_memory_limit_is_refused(make):
    class Small(Request):
        max_form_memory_size = 2

    request = make("/", "POST", b"a=1", Small, Content_Type="application/x-www-form-urlencoded")
    with pytest.raises(RequestEntityTooLarge):
        _ = request.form


def test_a_body_above_the_limit_is_refused(make):
    class Small(Request):
        max_content_length = 3

    assert make("/", "POST", b"123", Small).data == b"123"
    with pytest.raises(RequestEntityTooLarge):
        make("/", "POST", b"1234", Small).get_data()


def test_the_form_parser_may_be_replaced(make):
    from hipflask.werkzeug.formparser import FormDataParser

    class Shouting(FormDataParser):
        def parse(self, stream, mimetype, content_length, options=None):
            stream, form, files = super().parse(stream, mimetype, content_length, options)
            return stream, MultiDict((k, v.upper()) for k, v in form.items(multi=True)), files

    class Mine(Request):
        form_data_parser_class = Shouting

    request = make("/", "POST", b"a=x", Mine, Content_Type="application/x-www-form-urlencoded")
    assert request.form["a"] == "X"


def test_parameter_storage_class_may_be_replaced(make):
    class Mine(Request):
        parameter_storage_class = dict

    request = make("/?a=1", "POST", b"b=2", Mine, Content_Type="application/x-www-form-urlencoded")
    assert request.args == {"a": "1"}
    assert type(request.args) is type(request.form) is dict


def test_a_subclass_may_override_what_others_are_made_of(make):
    class Mine(Request):
        @property
        def host(self):
            return "other.example"

        def _load_form_data(self):
            super()._load_form_data()
            self.form = MultiDict({"a": "b"})

    request = make("/x", "POST", b"a=1", Mine, Content_Type="application/x-www-form-urlencoded")
    assert request.url == "http://other.example/x"
    assert request.form == MultiDict({"a": "b"})


def test_a_subclass_with_its_own_init_is_called_with_an_environ(make):
    class Mine(Request):
        def __init__(self, environ, *args, **kwargs):
            super().__init__(environ, *args, **kwargs)
            self.mine = environ["REQUEST_METHOD"]

    assert make("/x", "PUT", b"1", Mine).mine == "PUT"

    class New(Request):
        def __new__(cls, environ):
            self = super().__new__(cls)
            self.mine = environ["REQUEST_METHOD"]
            return self

    assert make("/x", "PUT", b"1", New).mine == "PUT"


def test_attributes_may_be_replaced_and_deleted(make):
    request = make("/?a=1")
    request.args = MultiDict({"b": "2"})
    assert request.args["b"] == "2"
    del request.args
    assert request.args["a"] == "1"
    request.path = "/other"
    assert request.full_path == "/other?a=1"
    request.headers = Headers({"Content-Type": "text/x"})
    assert request.mimetype == "text/x"
    with pytest.raises(AttributeError):
        request.mimetype = "no"
    with pytest.raises(AttributeError):
        del request.url
    request.anything = 1
    assert request.anything == 1


def test_json_is_parsed_and_kept(make):
    request = make("/", "POST", b'{"a": [1]}', Content_Type="application/vnd.x+json; charset=utf-8")
    assert request.is_json
    assert request.json == {"a": [1]}
    assert request.json is request.get_json()
    assert request.get_data() == b'{"a": [1]}'


def test_json_of_another_type_is_415_unless_forced_or_silent(make):
    request = make("/", "POST", b"1", Content_Type="text/plain")
    with pytest.raises(UnsupportedMediaType):
        _ = request.json
    assert request.get_json(silent=True) is None
    assert request.get_json(force=True) == 1


def test_broken_json_is_400_with_its_cause(make):
    request = make("/", "POST", b"{", Content_Type="application/json")
    with pytest.raises(BadRequest, match="Failed to decode JSON object") as caught:
        _ = request.json
    assert isinstance(caught.value.__context__, ValueError)
    assert request.get_json(silent=True) is None


def test_deep_json_is_an_error_and_not_a_crash(make):
    request = make("/", "POST", b"[" * 200_000, Content_Type="application/json")
    with pytest.raises((BadRequest, RecursionError)):
        _ = request.json


def test_on_json_loading_failed_may_give_a_value(make):
    class Mine(Request):
        def on_json_loading_failed(self, e):
            return "instead"

    assert make("/", "POST", b"{", Mine, Content_Type="application/json").json == "instead"


def test_a_request_and_its_environ_are_collected(make):
    request = make("/?a=1")
    assert request.args
    assert request.environ["PATH_INFO"] == "/"
    alive = weakref.ref(request)
    del request
    gc.collect()
    assert alive() is None


def test_environ_is_complete_and_the_same_each_time(make):
    request = make("/a%2Fb?x", "POST", b"abc", Content_Type="text/plain", X_Y="1")
    environ = request.environ
    assert environ is request.environ
    assert environ["PATH_INFO"] == "/a/b"
    assert environ["QUERY_STRING"] == "x"
    assert environ["HTTP_X_Y"] == "1"
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert environ["CONTENT_LENGTH"] == "3"
    assert environ["wsgi.input"].read() == b"abc"
    assert type(environ) is dict


def test_the_engines_environ_is_a_valid_wsgi_environ():
    from wsgiref.validate import check_environ

    environ = from_wire(Request, "GET", "/x?y=1", {"Host": "h", "Cookie": "a=b"}, b"").environ
    environ = {**environ, "wsgi.input": io.BufferedReader(io.BytesIO())}
    check_environ(environ)


def test_a_name_with_an_underscore_does_not_shadow_another():
    with pytest.raises(ValueError, match="underscores"):
        from_wire(Request, "GET", "/", {"Host": "h", "X_Forwarded_For": "6.6.6.6"}, b"")
    request = from_wire(Request, "GET", "/", {"Host": "h", "X_Other": "6.6.6.6"}, b"")
    assert "HTTP_X_OTHER" not in request.environ
    assert "X-Other" not in request.headers
    assert request.access_route == ["127.0.0.1"]


def test_an_absolute_target_names_the_host():
    request = from_wire(Request, "GET", "http://real.example/x", {"Host": "other"}, b"")
    assert request.host == request.headers["Host"] == request.environ["HTTP_HOST"] == "real.example"
    assert request.path == "/x"


def test_repeated_fields_are_joined_as_wsgi_does():
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n"
    request = _request_from_wire(Request, head)
    assert request.environ["HTTP_X_A"] == request.headers["X-A"] == "1,2"
    assert dict(request.cookies) == {"a": "1", "b": "2"}


LINES = b"first\nsecond\r\n\nlast"


@pytest.mark.parametrize("guarded", [False, True], ids=["wsgi.input", "stream"])
@pytest.mark.parametrize(
    ("read", "parts"),
    [
        (lambda s: [s.read()], [LINES]),
        (lambda s: [s.read(2), s.read(), s.read(), s.read(1)], [b"fi", LINES[2:], b"", b""]),
        (lambda s: list(s), LINES.splitlines(keepends=True)),
        (lambda s: s.readlines(), LINES.splitlines(keepends=True)),
        (lambda s: s.readlines(7), LINES.splitlines(keepends=True)[:2]),
        (lambda s: [s.readline(3), s.readline(), s.read(-1)], [b"fir", b"st\n", LINES[6:]]),
        (lambda s: [s.readline(), *s], LINES.splitlines(keepends=True)),
        (lambda s: [io.BufferedReader(s).read()], [LINES]),
        (lambda s: [io.TextIOWrapper(s).read()], [LINES.decode().replace("\r\n", "\n")]),
    ],
)
def test_the_engines_stream_is_a_file(guarded, read, parts):
    request = from_wire(Request, "POST", "/", {"Host": "h", "Content-Length": str(len(LINES))}, LINES)
    assert read(request.stream if guarded else request.environ["wsgi.input"]) == parts


def test_readinto_fills_what_it_is_given():
    stream = from_wire(Request, "POST", "/", {"Host": "h", "Content-Length": "5"}, b"12345").stream
    buffer = bytearray(3)
    assert stream.readinto(buffer) == 3
    assert bytes(buffer) == b"123"
    assert stream.tell() == 3
    assert stream.readinto(buffer) == 2
    assert bytes(buffer) == b"453"
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read()


def test_two_readers_share_what_is_left():
    request = from_wire(Request, "POST", "/", {"Host": "h", "Content-Length": "4"}, b"1234")
    assert request.environ["wsgi.input"].read(1) == b"1"
    assert request.stream.read() == b"234"


def test_a_request_may_be_used_from_several_threads():
    request = from_wire(Request, "GET", "/?a=1", {"Host": "h"}, b"")
    seen = []

    def look():
        for _ in range(200):
            seen.append((request.args["a"], request.path, request.url, request.environ is not None))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {("1", "/", "http://h/?a=1", True)}


def test_a_sansio_request_is_made_of_parts():
    headers = Headers([("Cookie", "a=1"), ("Cookie", "b=2"), ("Content-Type", "application/json")])
    request = SansIORequest("get", "https", ("h", 443), "/app/", "x", b"q=1", headers, None)
    assert request.method == "GET"
    assert request.url == "https://h/app/x?q=1"
    assert request.is_secure
    assert request.is_json
    assert dict(request.cookies) == {"a": "1", "b": "2"}
    assert request.access_route == []
    assert SansIORequest in Request.__mro__


def test_a_shallow_request_does_not_read():
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b"x"), "CONTENT_LENGTH": "1"}
    request = Request(environ, shallow=True)
    assert "werkzeug.request" not in environ
    with pytest.raises(RuntimeError):
        _ = request.data
    assert Request(environ) is environ["werkzeug.request"]


def test_closing_a_request_closes_its_files(make):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
    )
    with make("/", "POST", body, Content_Type="multipart/form-data; boundary=b") as request:
        upload = request.files["f"]
        assert (upload.filename, upload.mimetype, upload.read()) == ("x.txt", "text/plain", b"hello")
    assert upload.stream.closed


def test_request_application_answers_http_exceptions():
    from hipflask.werkzeug.test import run_wsgi_app

    @Request.application
    def app(request):
        if request.path == "/bad":
            raise BadRequest("no")
        return Response(request.path)

    def ask(path):
        return run_wsgi_app(app, Request.from_values(path).environ)

    body, status, _ = ask("/x")
    assert (b"".join(body), status) == (b"/x", "200 OK")
    assert ask("/bad")[1] == "400 BAD REQUEST"


def test_flasks_request_takes_its_limits_from_the_config(make):
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=3, MAX_FORM_PARTS=7, MAX_FORM_MEMORY_SIZE=9)
    request = make("/", "POST", b"1234", FlaskRequest)
    assert (request.max_content_length, request.max_form_memory_size, request.max_form_parts) == (
        None,
        500_000,
        1000,
    )
    with app.app_context():
        assert (request.max_content_length, request.max_form_memory_size, request.max_form_parts) == (3, 9, 7)
        with pytest.raises(RequestEntityTooLarge):
            request.get_data()
        request.max_content_length = 4
        assert request.get_data() == b"1234"


def test_flasks_request_knows_what_routing_found(make):
    request = make(cls=FlaskRequest)
    assert request.url_rule is request.view_args is request.routing_exception is None
    assert request.endpoint is request.blueprint is None
    assert request.blueprints == []

    class Rule:
        endpoint = "outer.inner.view"

    request.url_rule = Rule()
    assert request.endpoint == "outer.inner.view"
    assert request.blueprint == "outer.inner"
    assert request.blueprints == ["outer.inner", "outer"]


def test_flasks_json_failure_hides_the_parsers_words_unless_debugging(make):
    app = Flask(__name__)
    for debug, shown in ((False, False), (True, True)):
        app.debug = debug
        with app.app_context(), pytest.raises(BadRequest) as caught:
            _ = make("/", "POST", b"{", FlaskRequest, Content_Type="application/json").json
        assert ("Failed to decode" in caught.value.description) is shown


# Responses


def test_a_response_of_text_has_type_and_length():
    response = FlaskResponse("hällo")
    assert response.status == "200 OK"
    assert response.status_code == 200
    assert list(response.headers) == [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "6")]
    assert response.data == response.get_data() == "hällo".encode()
    assert response.get_data(as_text=True) == "hällo"
    assert response.response == ["hällo".encode()]
    assert Response().mimetype == "text/plain"
    assert repr(response) == "<Response 6 bytes [200 OK]>"


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (404, "404 NOT FOUND", 404),
        ("404", "404 NOT FOUND", 404),
        ("404 Gone fishing", "404 Gone fishing", 404),
        (" 200 ok ", "200 ok", 200),
        ("Strange", "0 Strange", 0),
        ("Two words", "0 Two words", 0),
        (999, "999 UNKNOWN", 999),
    ],
)
def test_status(given, status, code):
    response = Response(status=given)
    assert (response.status, response.status_code) == (status, code)
    response = Response()
    response.status = given
    assert (response.status, response.status_code) == (status, code)


def test_an_http_status_is_a_status():
    from http import HTTPStatus

    response = Response(status=HTTPStatus.CREATED)
    assert response.status == "201 CREATED"
    response.status_code = HTTPStatus.NOT_FOUND
    assert response.status == "404 NOT FOUND"


@pytest.mark.parametrize(("status", "error"), [("", ValueError), ("  ", ValueError), (object(), TypeError)])
def test_an_impossible_status_is_refused(status, error):
    with pytest.raises(error):
        Response(status=status)


def test_a_header_with_a_line_break_is_refused():
    for make in (
        lambda: Response(headers={"X": "a\r\nSet-Cookie: b"}),
        lambda: Response(content_type="text/html\r\nX: y"),
        lambda: Response(mimetype="text/html\nX: y"),
    ):
        with pytest.raises(ValueError, match="newline"):
            make()


def test_mimetype_content_type_and_headers_of_the_constructor():
    assert Response("", mimetype="application/json").content_type == "application/json"
    assert Response("", mimetype="application/x+xml").content_type == "application/x+xml; charset=utf-8"
    assert Response("", content_type="text/x").content_type == "text/x"
    assert Response("", headers={"Content-Type": "a/b"}).content_type == "a/b"
    headers = Headers([("X", "1")])
    assert Response("", headers=headers).headers is headers
    assert Response("", headers=[("X", "1"), ("X", "2")]).headers.getlist("X") == ["1", "2"]


def test_a_subclass_may_override_set_data_and_defaults():
    class Mine(Response):
        default_status = 201
        default_mimetype = None
        automatically_set_content_length = False

        def set_data(self, value):
            super().set_data(value[::-1])

    response = Mine("abc")
    assert (response.status_code, response.data, list(response.headers)) == (201, b"cba", [])


def test_an_iterable_is_streamed_until_somebody_wants_it_whole():
    closed = []

    def body():
        try:
            yield "a"
            yield b"b"
        finally:
            closed.append(True)

    response = Response(body())
    assert response.is_streamed
    assert not response.is_sequence
    assert "Content-Length" not in response.headers
    assert response.get_data() == b"ab"
    assert response.is_sequence
    response.close()
    assert closed == [True]


def test_direct_passthrough_is_not_read():
    response = Response(FileWrapper(io.BytesIO(b"abc")), direct_passthrough=True)
    with pytest.raises(RuntimeError):
        response.get_data()
    assert response.calculate_content_length() is None
    strict = Response(iter("a"))
    strict.implicit_sequence_conversion = False
    with pytest.raises(RuntimeError):
        _ = strict.data


def test_close_calls_what_was_asked_for():
    calls = []
    response = Response("x")
    assert response.call_on_close(lambda: calls.append(1))
    with response:
        response.call_on_close(lambda: calls.append(2))
    assert calls == [1, 2]


def test_cookies_are_set_and_deleted():
    response = Response()
    response.set_cookie("a", "b", max_age=3, httponly=True, samesite="Lax", secure=True, partitioned=True)
    response.delete_cookie("a", path="/x", domain="example.com")
    first, second = response.headers.getlist("Set-Cookie")
    assert first.startswith("a=b; Expires=")
    assert first.endswith("; Max-Age=3; Secure; HttpOnly; Path=/; SameSite=Lax; Partitioned")
    assert second.startswith(
        "a=; Domain=example.com; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/x"
    )


def test_an_oversized_cookie_is_warned_about():
    with pytest.warns(UserWarning, match="too large"):
        Response().set_cookie("a", "x" * 5000)


@pytest.mark.parametrize("status", [204, 304, 100])
def test_statuses_without_a_body_send_none(status):
    response = Response("body", status=status, headers={"ETag": '"x"', "Last-Modified": "yesterday"})
    body, _, headers = response.get_wsgi_response(Request.from_values().environ)
    assert b"".join(body) == b""
    names = {name for name, _ in headers}
    assert "Content-Length" not in names
    assert ("Content-Type" in names) is (status != 304)
    assert "ETag" in names


def test_head_sends_the_length_and_no_body():
    response = Response("body")
    body, _, headers = response.get_wsgi_response(Request.from_values(method="HEAD").environ)
    assert b"".join(body) == b""
    assert ("Content-Length", "4") in headers


def test_locations_are_escaped_and_made_absolute_if_asked():
    environ = Request.from_values("/base/", "http://localhost/app").environ
    for auto, target, sent in [
        (False, "/é x", "/%C3%A9%20x"),
        (False, "/plain?a=b", "/plain?a=b"),
        (True, "sub", "http://localhost/app/base/sub"),
        (True, "/sub", "http://localhost/sub"),
        (False, "http://☃.net/", "http://xn--n3h.net/"),
    ]:
        response = Response(headers={"Location": target})
        response.autocorrect_location_header = auto
        assert response.get_wsgi_headers(environ)["Location"] == sent
        assert response.headers["Location"] == target


def test_conditional_answers():
    response = Response("abc")
    response.set_etag("x")
    response.make_conditional(Request.from_values(headers={"If-None-Match": '"x"'}))
    assert response.status_code == 304
    response = Response("abc")
    response.set_etag("x")
    response.make_conditional(Request.from_values(headers={"If-Match": '"y"'}))
    assert response.status_code == 412
    response = Response("abc").make_conditional(Request.from_values(method="POST"))
    assert "Date" not in response.headers


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", b"0"),
        ("bytes=2-4", b"234"),
        ("bytes=7-", b"789"),
        ("bytes=-3", b"789"),
        ("bytes=5-99", b"56789"),
    ],
)
def test_ranges(seekable, asked, part):
    digits = b"0123456789"
    body = FileWrapper(io.BytesIO(digits), 4) if seekable else iter([digits[:3], digits[3:4], digits[4:]])
    environ = Request.from_values(headers={"Range": asked}).environ
    response = Response(body, direct_passthrough=seekable)
    response.make_conditional(environ, accept_ranges=True, complete_length=10)
    sent, status, _ = response.get_wsgi_response(environ)
    assert status == "206 PARTIAL CONTENT"
    assert b"".join(sent) == part
    assert response.content_length == len(part)
    assert response.content_range.length == 10


def test_a_response_is_picklable_and_collected():
    response = Response("abc", 201, {"X": "1"})
    response.extra = "kept"
    copied = pickle.loads(pickle.dumps(response))
    assert (copied.data, copied.status, copied.headers["X"], copied.extra) == (
        b"abc",
        "201 CREATED",
        "1",
        "kept",
    )
    response.itself = response
    alive = weakref.ref(response)
    del response
    gc.collect()
    assert alive() is None


def test_a_response_takes_the_state_of_another():
    class Adopting(FlaskResponse):
        def __init__(self, other):
            self.__dict__ = other.__dict__
            self.timeout = 10

    other = FlaskResponse("abc", 201, {"X": "1"})
    other.extra = "kept"
    closed = []
    other.call_on_close(lambda: closed.append(True))
    adopting = Adopting(other)
    assert (adopting.data, adopting.status, adopting.extra) == (b"abc", "201 CREATED", "kept")
    assert adopting.headers is other.headers
    assert adopting.response is other.response
    assert other.timeout == 10
    adopting.close()
    assert closed == [True]
    assert vars(other).keys() >= {"headers", "response", "extra", "timeout"}
    other.status = 404
    assert vars(other)["status"] == "404 NOT FOUND"


def test_force_type_changes_the_class():
    response = Response("x", 418)
    assert type(FlaskResponse.force_type(response)) is FlaskResponse
    assert response.status_code == 418
    with pytest.raises(TypeError):
        FlaskResponse.force_type(lambda environ, start: [b""])
    made = FlaskResponse.force_type(Response("y", 202), Request.from_values().environ)
    assert made.get_data() == b"y"


def test_header_properties_are_written_back():
    response = Response()
    response.cache_control.max_age = 5
    response.vary.add("Cookie")
    response.allow = ["GET", "HEAD"]
    response.content_security_policy.default_src = "'self'"
    response.access_control_allow_credentials = True
    response.mimetype_params["x"] = "y"
    response.retry_after = 3
    response.cross_origin_opener_policy = type(response.cross_origin_opener_policy).SAME_ORIGIN
    headers = response.headers
    assert headers["Cache-Control"] == "max-age=5"
    assert headers["Vary"] == "Cookie"
    assert headers["Allow"] == "GET, HEAD"
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Content-Type"] == "text/plain; charset=utf-8; x=y"
    assert headers["Retry-After"] == "3"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_the_stream_of_a_response_appends():
    response = Response("a")
    response.stream.write(b"b")
    assert (response.data, "Content-Length" in response.headers) == (b"ab", False)
    assert response.stream.tell() == 2


def test_json_of_a_response():
    assert FlaskResponse('{"a": 1}', mimetype="application/json").json == {"a": 1}
    assert FlaskResponse("x").json is None
    assert FlaskResponse("x", mimetype="application/json").get_json(silent=True) is None
