"""HTTP errors as exceptions, pages and WSGI applications."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timezone

import pytest
from markupsafe import Markup

from hipflask.werkzeug import exceptions
from hipflask.werkzeug.datastructures import WWWAuthenticate
from hipflask.werkzeug.test import create_environ
from hipflask.werkzeug.wrappers import Response


@pytest.mark.parametrize("code", sorted(exceptions.default_exceptions))
def test_every_code_has_an_exception_that_answers_with_it(code):
    with pytest.raises(exceptions.HTTPException) as caught:
        exceptions.abort(code)
    error = caught.value
    assert type(error) is exceptions.default_exceptions[code]
    response = error.get_response()
    assert response.status_code == code
    assert response.mimetype == "text/html"
    assert response.get_data(as_text=True) == error.get_body()


def test_the_default_exception_of_400_is_bad_request_itself():
    assert exceptions.default_exceptions[400] is exceptions.BadRequest


def test_a_page_escapes_text_keeps_line_breaks_and_trusts_markup():
    assert exceptions.NotFound("<b>\nnext").get_description() == "<p>&lt;b&gt;<br>next</p>"
    assert exceptions.NotFound(Markup("<b>x</b>")).get_description() == "<p><b>x</b></p>"


def test_a_bare_exception_says_what_is_unknown():
    error = exceptions.HTTPException()
    assert str(error) == "??? Unknown Error: None"
    assert repr(error) == "<HTTPException '???: Unknown Error'>"
    assert error.get_description() == "<p></p>"


def test_str_and_repr_show_code_name_and_description():
    error = exceptions.Gone("moved away")
    assert str(error) == "410 Gone: moved away"
    assert repr(error) == "<Gone '410: Gone'>"


@pytest.mark.parametrize(
    ("error", "field", "value"),
    [
        (exceptions.MethodNotAllowed(["GET", "HEAD"]), "Allow", ["GET, HEAD"]),
        (exceptions.MethodNotAllowed(), "Allow", []),
        (exceptions.RequestedRangeNotSatisfiable(10), "Content-Range", ["bytes */10"]),
        (exceptions.RequestedRangeNotSatisfiable(0, "lines"), "Content-Range", ["lines */0"]),
        (exceptions.RequestedRangeNotSatisfiable(), "Content-Range", []),
        (exceptions.TooManyRequests(retry_after=20), "Retry-After", ["20"]),
        (exceptions.TooManyRequests(), "Retry-After", []),
        (
            exceptions.ServiceUnavailable(retry_after=datetime(2020, 1, 4, 18, 52, 16, tzinfo=timezone.utc)),
            "Retry-After",
            ["Sat, 04 Jan 2020 18:52:16 GMT"],
        ),
        (exceptions.Unauthorized(), "WWW-Authenticate", []),
        (
            exceptions.Unauthorized(www_authenticate=WWWAuthenticate("basic", {"realm": "a"})),
            "WWW-Authenticate",
            ["Basic realm=a"],
        ),
        (
            exceptions.Unauthorized(
                www_authenticate=[
                    WWWAuthenticate("basic", {"realm": "a"}),
                    WWWAuthenticate("bearer", {"realm": "b"}),
                ]
            ),
            "WWW-Authenticate",
            ["Basic realm=a", "Bearer realm=b"],
        ),
    ],
)
def test_an_exception_adds_its_header(error, field, value):
    assert error.get_response().headers.getlist(field) == value


def test_a_key_error_names_the_key_only_when_told_to():
    error = exceptions.BadRequestKeyError("secret")
    assert "secret" not in error.get_body()
    assert error.args == ("secret",)
    error.show_exception = True
    assert "KeyError: &#39;secret&#39;" in error.get_body()
    error.description = "gone"
    assert error.description == "gone\nKeyError: 'secret'"
    with pytest.raises(KeyError):
        raise error


def test_an_internal_error_remembers_its_cause():
    cause = ValueError("x")
    assert exceptions.InternalServerError(original_exception=cause).original_exception is cause


def test_abort_with_a_response_sends_that_response():
    response = Response("made by hand", 299)
    with pytest.raises(exceptions.HTTPException) as caught:
        exceptions.abort(response)
    assert caught.value.get_response() is response


def test_abort_with_an_unknown_code_is_a_lookup_error():
    with pytest.raises(LookupError, match="no exception for 299"):
        exceptions.abort(299)
    with pytest.raises(LookupError, match="no exception for 'x'"):
        exceptions.abort("x")


def test_an_aborter_takes_extra_exceptions():
    class Special(exceptions.HTTPException):
        code = 299

    aborter = exceptions.Aborter(extra={299: Special})
    with pytest.raises(Special):
        aborter(299)
    with pytest.raises(exceptions.NotFound, match="not here"):
        aborter(404, "not here")
    with pytest.raises(LookupError):
        exceptions.Aborter(mapping={299: Special})(404)


def test_an_exception_is_a_wsgi_application():
    started = []
    body = exceptions.NotFound()(create_environ(), lambda *args: started.append(args))
    assert b"<h1>Not Found</h1>" in b"".join(body)
    assert started[0][0] == "404 NOT FOUND"


def test_get_response_takes_a_request_or_an_environ():
    seen = []

    class Looking(exceptions.NotFound):
        def get_body(self, environ=None, scope=None):
            seen.append(environ)
            return "body"

    class Request:
        environ = create_environ("/here")

    assert Looking().get_response(Request()).get_data() == b"body"
    Looking().get_response(Request.environ)
    assert seen == [Request.environ, Request.environ]


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_exceptions_can_be_copied_and_pickled(duplicate):
    error = duplicate(exceptions.NotFound("nothing"))
    assert isinstance(error, exceptions.NotFound)
    assert error.description == "nothing"
