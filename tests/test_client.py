"""The environ builder and the test client, without Flask."""

from __future__ import annotations

import io
import sys
from datetime import datetime, timezone

import pytest

from hipflask.werkzeug.datastructures import Authorization, FileStorage, Headers, MultiDict
from hipflask.werkzeug.test import (
    Client,
    ClientRedirectError,
    Cookie,
    EnvironBuilder,
    TestResponse,
    create_environ,
    encode_multipart,
    run_wsgi_app,
    stream_encode_multipart,
)
from hipflask.werkzeug.utils import redirect
from hipflask.werkzeug.wrappers import Request, Response


class TestEnvironBuilder:
    def test_the_defaults_are_a_plain_get_of_the_root(self):
        environ = create_environ()
        expected = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "HTTP_HOST": "localhost",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
        }
        assert {key: environ[key] for key in expected} == expected
        assert environ["wsgi.input"].read() == b""
        assert "CONTENT_TYPE" not in environ
        assert "CONTENT_LENGTH" not in environ

    @pytest.mark.parametrize(
        ("kwargs", "expected"),
        [
            ({"path": "/a%20b?x=1"}, {"PATH_INFO": "/a b", "QUERY_STRING": "x=1", "RAW_URI": "/a%20b?x=1"}),
            ({"path": "/é"}, {"PATH_INFO": "/\xc3\xa9"}),
            ({"path": "/", "query_string": {"a": "b c", "d": "ü"}}, {"QUERY_STRING": "a=b+c&d=%C3%BC"}),
            ({"query_string": MultiDict([("a", "1"), ("a", "2")])}, {"QUERY_STRING": "a=1&a=2"}),
            (
                {"base_url": "https://example.com:8443/root/"},
                {
                    "wsgi.url_scheme": "https",
                    "SERVER_NAME": "example.com",
                    "SERVER_PORT": "8443",
                    "HTTP_HOST": "example.com:8443",
                    "SCRIPT_NAME": "/root",
                },
            ),
            ({"base_url": "https://example.com"}, {"SERVER_PORT": "443"}),
            ({"headers": [("X-A", "1"), ("X-A", "2")]}, {"HTTP_X_A": "1, 2"}),
            ({"auth": ("user", "pass")}, {"HTTP_AUTHORIZATION": "Basic dXNlcjpwYXNz"}),
            ({"auth": Authorization("bearer", token="t")}, {"HTTP_AUTHORIZATION": "Bearer t"}),
            ({"data": b"abc"}, {"CONTENT_LENGTH": "3"}),
            (
                {"data": {"a": "b"}},
                {"CONTENT_LENGTH": "3", "CONTENT_TYPE": "application/x-www-form-urlencoded"},
            ),
            ({"json": {"a": 1}}, {"CONTENT_LENGTH": "8", "CONTENT_TYPE": "application/json"}),
            ({"data": "x", "mimetype": "text/plain"}, {"CONTENT_TYPE": "text/plain; charset=utf-8"}),
            ({"content_type": "a/b"}, {"CONTENT_TYPE": "a/b"}),
            (
                {"environ_base": {"REMOTE_ADDR": "1"}, "environ_overrides": {"PATH_INFO": "x"}},
                {"PATH_INFO": "x"},
            ),
            ({"method": "POST", "multithread": True, "run_once": True}, {"wsgi.multithread": True}),
        ],
    )
    def test_an_argument_ends_up_in_its_keys(self, kwargs, expected):
        environ = create_environ(**kwargs)
        assert {key: environ[key] for key in expected} == expected
        assert "HTTP_CONTENT_TYPE" not in environ
        assert "HTTP_CONTENT_LENGTH" not in environ

    @pytest.mark.parametrize(
        ("kwargs", "error"),
        [
            ({"path": "/?a", "query_string": "b"}, ValueError),
            ({"base_url": "http://a/?b"}, ValueError),
            ({"data": "x", "json": 1}, TypeError),
            ({"data": "x", "input_stream": io.BytesIO()}, TypeError),
        ],
    )
    def test_contradictions_are_refused(self, kwargs, error):
        with pytest.raises(error):
            EnvironBuilder(**kwargs)

    def test_a_form_with_files_is_multipart(self):
        builder = EnvironBuilder(
            method="POST",
            data={
                "text": ["one", "two"],
                "file": (io.BytesIO(b"content"), "a.txt"),
                "typed": (io.BytesIO(b"{}"), "b", "application/json"),
            },
        )
        assert builder.content_type == "multipart/form-data"
        request = builder.get_request()
        assert request.form.getlist("text") == ["one", "two"]
        assert request.files["file"].filename == "a.txt"
        assert request.files["file"].mimetype == "text/plain"
        assert request.files["file"].read() == b"content"
        assert request.files["typed"].mimetype == "application/json"
        request.close()
        builder.close()
        assert builder.closed

    def test_form_and_stream_exclude_each_other(self):
        builder = EnvironBuilder(data={"a": "b"})
        builder.input_stream = io.BytesIO(b"x")
        with pytest.raises(AttributeError):
            _ = builder.form
        builder.form = MultiDict({"c": "d"})
        assert builder.input_stream is None
        builder.query_string = "a=b"
        with pytest.raises(AttributeError):
            _ = builder.args
        builder.args = MultiDict({"x": "y"})
        assert builder.query_string == "x=y"

    def test_the_type_and_its_parameters_live_in_the_headers(self):
        builder = EnvironBuilder(content_type="text/html; charset=utf-8")
        assert builder.mimetype == "text/html"
        assert dict(builder.mimetype_params) == {"charset": "utf-8"}
        builder.mimetype_params["charset"] = "latin1"
        assert builder.headers["Content-Type"] == "text/html; charset=latin1"
        builder.content_type = None
        builder.content_length = None
        assert "Content-Type" not in builder.headers

    def test_an_environ_can_be_turned_back(self):
        first = create_environ(
            "/ü b",
            "https://example.com/root",
            "q=ä",
            "PUT",
            headers={"X-A": "1"},
            data=b"body",
            content_type="a/b",
        )
        again = EnvironBuilder.from_environ(first).get_environ()
        raw = {"REQUEST_URI", "RAW_URI"}
        assert {k: v for k, v in again.items() if k not in raw} == {
            k: v for k, v in first.items() if k not in raw
        }
        assert EnvironBuilder.from_environ(first, path="/other").get_environ()["PATH_INFO"] == "/other"

    def test_a_subclass_chooses_request_class_and_json(self):
        class Own(Request):
            pass

        class Builder(EnvironBuilder):
            request_class = Own
            json_dumps = staticmethod(lambda value: "dumped")

        assert type(Builder().get_request()) is Own
        assert type(Builder().get_request(Request)) is Request
        assert Builder(json=1).input_stream.read() == b"dumped"


class TestMultipart:
    def test_a_large_body_goes_to_disk(self):
        data = {"f": FileStorage(io.BytesIO(b"x" * 1000), "n", "f")}
        stream, length, boundary = stream_encode_multipart(data, threshold=100, boundary="b")
        with stream:
            assert not isinstance(stream, io.BytesIO)
            assert stream.fileno() > 0
            content = stream.read()
        assert boundary == "b"
        assert length == len(content)
        assert content.lstrip().startswith(b"--b\r\n")
        assert content.endswith(b"\r\n--b--\r\n")

    def test_two_bodies_have_different_boundaries(self):
        assert encode_multipart({"a": 1})[0] != encode_multipart({"a": 1})[0]


@Request.application
def echo(request):
    """Answer with what the request says, so that a test can look at it."""
    return Response(
        f"{request.method} {request.url} {request.get_data(as_text=True)} {request.headers.get('Cookie', '')}"
    )


class TestClient:
    @pytest.mark.parametrize("method", ["get", "post", "put", "delete", "patch", "options", "head", "trace"])
    def test_each_method_has_its_own(self, method):
        seen = []

        @Request.application
        def app(request):
            seen.append(request.method)
            return Response("x")

        response = getattr(Client(app), method)("/")
        assert seen == [method.upper()]
        assert isinstance(response, TestResponse)
        assert response.request.method == method.upper()

    def test_open_takes_a_builder_an_environ_or_a_request(self):
        client = Client(echo)
        expected = "GET http://localhost/a  "
        assert client.open(EnvironBuilder("/a")).text == expected
        assert client.open(create_environ("/a")).text == expected
        assert client.open(EnvironBuilder("/a").get_request()).text == expected
        assert client.open("/a").text == expected
        assert client.open(path="/a", method="GET").text == expected

    def test_text_and_json_of_a_response(self):
        @Request.application
        def app(request):
            return Response('{"a": "ü"}', mimetype="application/json")

        response = Client(app).get()
        assert response.text == '{"a": "ü"}'
        assert response.json == {"a": "ü"}

    def test_a_response_class_is_mixed_with_ours(self):
        class Own(Response):
            def hello(self):
                return self.status_code

        response = Client(echo, Own).get()
        assert isinstance(response, Own)
        assert isinstance(response, TestResponse)
        assert response.hello() == 200
        assert Client(echo, Response).response_wrapper is TestResponse

    def test_no_type_is_made_up(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"x"]

        assert Client(app).get().content_type is None

    def test_an_exception_of_the_application_comes_out(self):
        def app(environ, start_response):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Client(app).get()


def site(environ, start_response):
    """Redirects of every kind."""
    request = Request(environ)
    code, _, target = request.path[1:].partition("/")
    if code.isdecimal():
        response = redirect(request.args.get("to", f"/{target}"), int(code))
    else:
        response = Response(f"{request.method} {request.url} {request.get_data(as_text=True)}")
    return response(environ, start_response)


class TestRedirects:
    @pytest.mark.parametrize(
        ("method", "code", "expected"),
        [
            ("POST", 302, "GET http://localhost/end "),
            ("POST", 303, "GET http://localhost/end "),
            ("POST", 301, "GET http://localhost/end "),
            ("POST", 307, "POST http://localhost/end body"),
            ("PUT", 308, "PUT http://localhost/end body"),
            ("DELETE", 302, "GET http://localhost/end "),
        ],
    )
    def test_only_307_and_308_keep_method_and_body(self, method, code, expected):
        response = Client(site).open(f"/{code}/end", method=method, data="body", follow_redirects=True)
        assert response.text == expected
        assert [step.status_code for step in response.history] == [code]
        assert response.history[0].location == "/end"

    def test_head_stays_head(self):
        response = Client(site).head("/302/end", follow_redirects=True)
        assert response.request.method == "HEAD"

    def test_a_redirect_is_not_followed_unless_asked(self):
        response = Client(site).get("/302/end")
        assert (response.status_code, response.history) == (302, ())

    def test_a_circle_is_noticed(self):
        client = Client(Request.application(lambda request: redirect("/again")))
        with pytest.raises(ClientRedirectError, match="Loop detected: A 302 redirect to /again"):
            client.get("/", follow_redirects=True)

    def test_other_hosts_are_refused_and_subdomains_on_demand(self):
        client = Client(site)
        with pytest.raises(RuntimeError, match="external"):
            client.get("/302/?to=http://example.com/", follow_redirects=True)
        with pytest.raises(RuntimeError, match="subdomain"):
            client.get("/302/?to=http://sub.localhost/end", follow_redirects=True)
        client = Client(site, allow_subdomain_redirects=True)
        response = client.get("/302/?to=https://sub.localhost/end", follow_redirects=True)
        assert response.text == "GET https://sub.localhost/end "

    @pytest.mark.parametrize(
        ("location", "script", "path"),
        [("/root/x", "/root", "/x"), ("/other/x", "", "/other/x"), ("/rootless", "", "/rootless")],
    )
    def test_the_mount_point_is_taken_off_the_path(self, location, script, path):
        seen = []

        @Request.application
        def app(request):
            seen.append((request.environ["SCRIPT_NAME"], request.environ["PATH_INFO"]))
            return redirect(location) if len(seen) == 1 else Response("")

        Client(app).get("/", base_url="http://localhost/root", follow_redirects=True)
        assert seen[1] == (script, path)

    def test_the_bodies_of_redirects_are_closed(self):
        closed = []

        class Body:
            def __iter__(self):
                return iter([b"x"])

            def close(self):
                closed.append(True)

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/":
                start_response("302 FOUND", [("Location", "/end")])
                return Body()
            start_response("200 OK", [])
            return []

        Client(app).get("/", follow_redirects=True)
        assert closed == [True]


class TestCookies:
    def test_a_cookie_comes_back_until_it_is_deleted(self):
        @Request.application
        def app(request):
            response = Response(request.cookies.get("a", "none"))
            if "set" in request.args:
                response.set_cookie("a", "ü;1", httponly=True, samesite="Lax", secure=True, max_age=60)
            if "delete" in request.args:
                response.delete_cookie("a")
            return response

        client = Client(app)
        assert client.get("/?set").text == "none"
        assert client.get("/").text == "ü;1"
        cookie = client.get_cookie("a")
        assert isinstance(cookie, Cookie)
        assert (cookie.decoded_value, cookie.max_age, cookie.http_only) == ("ü;1", 60, True)
        assert (cookie.secure, cookie.same_site, cookie.path, cookie.domain) == (
            True,
            "Lax",
            "/",
            "localhost",
        )
        assert client.get("/?delete").text == "ü;1"
        assert client.get("/").text == "none"
        assert client.get_cookie("a") is None

    @pytest.mark.parametrize(
        ("domain", "origin_only", "path", "url", "sent"),
        [
            ("localhost", True, "/", "http://localhost/", True),
            ("localhost", True, "/", "http://sub.localhost/", False),
            ("localhost", False, "/", "http://sub.localhost/", True),
            ("localhost", False, "/", "http://notlocalhost/", False),
            ("localhost", True, "/a", "http://localhost/a", True),
            ("localhost", True, "/a", "http://localhost/a/b", True),
            ("localhost", True, "/a/", "http://localhost/a/b", True),
            ("localhost", True, "/a", "http://localhost/ab", False),
            ("example.com", True, "/", "http://localhost/", False),
            ("localhost", True, "/", "http://localhost:8080/", True),
        ],
    )
    def test_a_cookie_goes_where_it_belongs(self, domain, origin_only, path, url, sent):
        client = Client(echo)
        client.set_cookie("k", "v", domain=domain, origin_only=origin_only, path=path)
        base, slash, rest = url.partition("://")[2].partition("/")
        text = client.get(f"/{rest}", base_url=f"http://{base}").text
        assert text.endswith(" k=v") == sent

    def test_set_and_delete_by_hand(self):
        client = Client(echo)
        client.set_cookie("a", "1")
        client.set_cookie("b", "2", path="/p")
        assert client.get_cookie("b", path="/p").decoded_value == "2"
        client.set_cookie("a", "", max_age=0)
        assert client.get_cookie("a") is None
        client.delete_cookie("b", path="/p")
        client.delete_cookie("b", path="/p")
        assert client.get_cookie("b", path="/p") is None

    def test_an_expired_cookie_is_forgotten(self):
        client = Client(echo)
        client.set_cookie("a", "1")
        client.set_cookie("a", "", expires=datetime.fromtimestamp(0, timezone.utc))
        assert client.get_cookie("a") is None

    def test_without_cookies_nothing_is_kept(self):
        @Request.application
        def app(request):
            response = Response(request.headers.get("Cookie", "-"))
            response.set_cookie("a", "1")
            return response

        client = Client(app, use_cookies=False)
        client.get()
        assert client.get().text == "-"
        assert client.get(headers={"Cookie": "own=1"}).text == "own=1"
        for call in (client.get_cookie, client.set_cookie, client.delete_cookie):
            with pytest.raises(TypeError, match="Cookies are disabled"):
                call("a")


class TestRunWsgiApp:
    def test_the_applications_changes_to_the_environ_stay_unseen(self):
        def app(environ, start_response):
            environ["PATH_INFO"] = "changed"
            start_response("200 OK", [])
            return []

        environ = create_environ("/x")
        run_wsgi_app(app, environ)
        assert environ["PATH_INFO"] == "/x"

    @pytest.mark.parametrize("buffered", [True, False])
    def test_written_and_returned_pieces_come_in_order(self, buffered):
        def app(environ, start_response):
            write = start_response("200 OK", [("X-A", "1")])
            write(b"one ")
            yield b"two "
            yield b"three"

        body, status, headers = run_wsgi_app(app, create_environ(), buffered)
        assert b"".join(body) == b"one two three"
        assert status == "200 OK"
        assert isinstance(headers, Headers)
        assert headers["X-A"] == "1"

    @pytest.mark.parametrize("buffered", [True, False])
    def test_the_body_is_closed_once(self, buffered):
        closed = []

        class Body:
            def __iter__(self):
                return iter([b"x"])

            def close(self):
                closed.append(True)

        def app(environ, start_response):
            start_response("200 OK", [])
            return Body()

        body, _, _ = run_wsgi_app(app, create_environ(), buffered)
        if not buffered:
            assert closed == []
            body.close()
        assert closed == [True]

    def test_exc_info_raises_the_error(self):
        def app(environ, start_response):
            try:
                raise KeyError("x")
            except KeyError:
                start_response("500 ERROR", [], sys.exc_info())
            return []

        with pytest.raises(KeyError):
            run_wsgi_app(app, create_environ())

    def test_an_application_that_never_starts_is_an_error(self):
        with pytest.raises(RuntimeError, match="start_response"):
            run_wsgi_app(lambda environ, start_response: [], create_environ())
