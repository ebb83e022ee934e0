"""Header fields: what is read from them and how they are written, a row for each case."""

from __future__ import annotations

import time
import warnings
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from hipflask.werkzeug import datastructures as ds
from hipflask.werkzeug import http, urls
from hipflask.werkzeug.sansio import http as sansio


@pytest.mark.parametrize(
    ("field", "value", "options"),
    [
        (None, "", {}),
        ("text/html", "text/html", {}),
        ("text/html; charset=UTF-8", "text/html", {"charset": "UTF-8"}),
        ('a; B="x;y" ; c=d', "a", {"b": "x;y", "c": "d"}),
        (r'a; b="\"\\"', "a", {"b": '"\\'}),
        ('a; b="%22"', "a", {"b": '"'}),
        ("a; f*=UTF-8''%E2%82%AC; f=x", "a", {"f": "x"}),
        ("a; f*=utf-8'en'%e2%82%ac", "a", {"f": "€"}),
        ("a; f*0*=iso-8859-1''%e9; f*1=t; f*2*=%e9", "a", {"f": "été"}),
        ("a; f*=utf-16''%00", "a", {"f": "%00"}),
        ('a; b="never closed; c=d', "a", {"c": "d"}),
        ("a; =b; c; d=", "a", {}),
        ("; b=c", "", {}),
    ],
)
def test_a_value_with_parameters_is_read(field: str | None, value: str, options: dict[str, str]) -> None:
    assert http.parse_options_header(field) == (value, options)


@pytest.mark.parametrize(
    ("header", "options", "text"),
    [
        ("a", {}, "a"),
        (None, {"b": "c"}, "b=c"),
        ("a", {"b": "x y", "c": None, "d": 1, "e*": "utf-8''%20"}, "a; b=\"x y\"; d=1; e*=utf-8''%20"),
        ("a", {"b": '"\\', "c": ""}, 'a; b="\\"\\\\"; c=""'),
    ],
)
def test_a_value_with_parameters_is_written(header: str | None, options: dict[str, Any], text: str) -> None:
    assert http.dump_options_header(header, options) == text


@pytest.mark.parametrize(
    ("field", "items"),
    [
        ("", []),
        ('a, "b,c" ,d', ["a", "b,c", "d"]),
        ("a,,b,", ["a", "", "b"]),
        (r'"a\"b", c', ['a"b', "c"]),
        ('a"b,c"d', ['a"b,c"d']),
    ],
)
def test_a_list_is_read(field: str, items: list[str]) -> None:
    assert http.parse_list_header(field) == items
    assert list(http.parse_set_header(field)) == items


def test_a_dict_is_read_and_written() -> None:
    made = http.parse_dict_header("a=\"b c\", d, e=, f*=UTF-8''%c3%a9, =x")
    assert made == {"a": "b c", "d": None, "e": "", "f": "é"}
    assert http.dump_header(made) == 'a="b c", d, e="", f="é"'
    assert http.dump_header(["a", "b c", 1]) == 'a, "b c", 1'


COOKIES = [
    pytest.param("a=b", {"a": ["b"]}, id="one"),
    pytest.param("a=b; c=d;", {"a": ["b"], "c": ["d"]}, id="two"),
    pytest.param("a=1; a=2", {"a": ["1", "2"]}, id="the same twice"),
    pytest.param("a", {"a": [""]}, id="no value"),
    pytest.param("=b; ; a=", {"a": [""]}, id="no name"),
    pytest.param(" a = b c ", {"a": ["b c"]}, id="spaces"),
    pytest.param('a="b;c"; d=e', {"a": ["b;c"], "d": ["e"]}, id="quoted"),
    pytest.param('a="b; c="d', {"a": ['"b'], "c": ['"d']}, id="never closed"),
    pytest.param(r'a="\342\202\254\054\"\\"', {"a": ['€,"\\']}, id="escapes"),
    pytest.param(r'a="\377"', {"a": ["\ufffd"]}, id="escapes that are not UTF-8"),
    pytest.param("a=b=c", {"a": ["b=c"]}, id="equals sign in the value"),
    pytest.param("", {}, id="empty"),
    pytest.param(None, {}, id="missing"),
]


@pytest.mark.parametrize(("field", "cookies"), COOKIES)
def test_cookies_are_read(field: str | None, cookies: dict[str, list[str]]) -> None:
    made = sansio.parse_cookie(field)
    assert type(made) is ds.MultiDict
    assert made.to_dict(flat=False) == cookies
    assert http.parse_cookie({"HTTP_COOKIE": field}).to_dict(flat=False) == cookies
    assert type(http.parse_cookie(field, cls=ds.ImmutableMultiDict)) is ds.ImmutableMultiDict


def test_cookies_in_wsgi_strings_are_utf_8() -> None:
    assert http.parse_cookie("a=\xe2\x82\xac")["a"] == "€"
    assert http.parse_cookie("a=\xff; b=c").to_dict() == {"a": "\ufffd", "b": "c"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "k=v; Path=/"),
        ({"value": "a b"}, 'k="a b"; Path=/'),
        ({"value": 'é;"'}, r'k="\303\251\073\""; Path=/'),
        ({"key": "é"}, "k=v; Path=/".replace("k", "\xc3\xa9")),
        ({"path": None}, "k=v"),
        ({"path": "/é ;x"}, "k=v; Path=/%C3%A9%20%3Bx"),
        ({"domain": ".Bücher.example:80"}, "k=v; Domain=xn--bcher-kva.example; Path=/"),
        ({"max_age": 5, "sync_expires": False}, "k=v; Max-Age=5; Path=/"),
        ({"max_age": timedelta(minutes=1), "sync_expires": False}, "k=v; Max-Age=60; Path=/"),
        ({"expires": 0}, "k=v; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/"),
        ({"expires": datetime(2026, 1, 2)}, "k=v; Expires=Fri, 02 Jan 2026 00:00:00 GMT; Path=/"),
        ({"expires": "soon"}, "k=v; Expires=soon; Path=/"),
        ({"secure": True, "httponly": True}, "k=v; Secure; HttpOnly; Path=/"),
        ({"samesite": "lax", "partitioned": True}, "k=v; Secure; Path=/; SameSite=Lax; Partitioned"),
    ],
)
def test_a_cookie_is_written(arguments: dict[str, Any], text: str) -> None:
    assert http.dump_cookie(**{"key": "k", "value": "v", **arguments}) == text


def test_max_age_sets_expires_too() -> None:
    before = int(time.time())
    text = http.dump_cookie("k", "v", max_age=100)
    expires = http.parse_date(text.split("Expires=")[1].split(";")[0])
    assert expires is not None
    assert before + 100 <= expires.timestamp() <= time.time() + 100


def test_a_wrong_same_site_is_refused() -> None:
    with pytest.raises(ValueError, match="SameSite must be 'Strict', 'Lax', or 'None'"):
        http.dump_cookie("k", samesite="x")


def test_a_cookie_that_browsers_ignore_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="The 'k' cookie is too large: the value was 4093 bytes") as caught:
        http.dump_cookie("k", "v" * 4093)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        http.dump_cookie("k", "v" * 5000, max_size=0)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777.9, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.9999999, "Sun, 06 Nov 1994 08:49:38 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (date(1994, 11, 6), "Sun, 06 Nov 1994 00:00:00 GMT"),
        (datetime(1994, 11, 6, 8, 49, 37, 999999), "Sun, 06 Nov 1994 08:49:37 GMT"),
        (
            datetime(1994, 11, 6, 9, 49, 37, tzinfo=timezone(timedelta(hours=1))),
            "Sun, 06 Nov 1994 08:49:37 GMT",
        ),
        (time.localtime(784111777), "Sun, 06 Nov 1994 08:49:37 GMT"),
        (datetime(1, 1, 1), "Mon, 01 Jan 0001 00:00:00 GMT"),
        (datetime(9999, 12, 31, 23, 59, 59), "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_a_date_is_written(moment: Any, text: str) -> None:
    assert http.http_date(moment) == text


@pytest.mark.parametrize("moment", [253402300800, 1e20, float("inf"), -(10**12)])
def test_a_date_beyond_four_digits_of_year_is_refused(moment: float) -> None:
    with pytest.raises(ValueError, match="no date"):
        http.http_date(moment)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 09:49:37 +0100",
    ],
)
def test_every_form_of_date_is_read(text: str) -> None:
    moment = http.parse_date(text)
    assert moment == datetime(1994, 11, 6, 8, 49, 37, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text", [None, "", "x", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT"]
)
def test_what_is_no_date_is_none(text: str | None) -> None:
    assert http.parse_date(text) is None


def test_now_is_the_default_date() -> None:
    now = http.parse_date(http.http_date())
    assert now is not None
    assert abs(now.timestamp() - time.time()) < 5


@pytest.mark.parametrize(
    ("field", "ranges"),
    [
        ("bytes=0-9", [(0, 10)]),
        ("Bytes = 0-9 , 20- ", [(0, 10), (20, None)]),
        ("bytes=-5", [(-5, None)]),
        ("bytes=0-0,-1", [(0, 1), (-1, None)]),
        ("bytes=5-4", None),
        ("bytes=5-9,0-1", None),
        ("bytes=5-,7-9", None),
        ("bytes=-5,0-1", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-20", None),
        ("bytes=--5", None),
        ("bytes=", None),
        ("bytes", None),
        ("", None),
        (None, None),
    ],
)
def test_a_range_is_read(field: str | None, ranges: Any) -> None:
    made = http.parse_range_header(field)
    assert (made and made.ranges) == ranges
    if made is not None:
        assert made.units == "bytes"


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("bytes 0-98/100", ("bytes", 0, 99, 100)),
        ("bytes 0-98/*", ("bytes", 0, 99, None)),
        ("bytes */100", ("bytes", None, None, 100)),
        ("bytes 98-0/100", None),
        ("bytes 0-100/100", ("bytes", 0, 101, 100)),
        ("bytes 100-200/100", None),
        ("bytes 0/100", None),
        ("bytes", None),
        ("", None),
        (None, None),
    ],
)
def test_a_content_range_is_read(field: str | None, parts: Any) -> None:
    made = http.parse_content_range_header(field)
    assert (made and (made.units, made.start, made.stop, made.length)) == parts


def test_a_content_range_tells_of_changes() -> None:
    changes: list[str] = []
    made = ds.ContentRange("bytes", 0, 5, 10, on_update=lambda changed: changes.append(str(changed)))
    made.length = None
    made.set(1, 3, 4)
    made.unset()
    assert changes == ["bytes 0-4/10", "bytes 0-4/*", "bytes 1-2/4", ""]
    assert not made


@pytest.mark.parametrize(
    ("field", "strong", "weak", "star"),
    [
        (None, set(), set(), False),
        ('"a", W/"b" , w/c', {"a"}, {"b", "c"}, False),
        ('"a,b", c', {"a,b", "c"}, set(), False),
        ("*", set(), set(), True),
        ('"*"', {"*"}, set(), False),
    ],
)
def test_entity_tags_are_read(field: str | None, strong: set[str], weak: set[str], star: bool) -> None:
    made = http.parse_etags(field)
    assert made.as_set() == strong
    assert made.as_set(include_weak=True) == strong | weak
    assert made.star_tag is star
    assert made.contains("else") is star
    assert bool(made) is bool(strong or weak or star)


@pytest.mark.parametrize(
    ("fields", "resource", "modified"),
    [
        ({}, {"etag": "a"}, True),
        ({"IF_NONE_MATCH": '"a"'}, {"etag": "a"}, False),
        ({"IF_NONE_MATCH": 'W/"a"'}, {"etag": "a"}, False),
        ({"IF_NONE_MATCH": '"b"'}, {"etag": "a"}, True),
        ({"IF_NONE_MATCH": "*"}, {"etag": "a"}, False),
        ({"IF_NONE_MATCH": '"a"'}, {"data": b"body"}, True),
        ({"IF_MATCH": '"a"'}, {"etag": "a"}, True),
        ({"IF_MATCH": 'W/"a"'}, {"etag": "a"}, False),
        (
            {"IF_MODIFIED_SINCE": "Sun, 06 Nov 1994 08:49:37 GMT"},
            {"last_modified": datetime(1994, 11, 6)},
            False,
        ),
        (
            {"IF_MODIFIED_SINCE": "Sun, 06 Nov 1994 08:49:37 GMT"},
            {"last_modified": datetime(1995, 1, 1)},
            True,
        ),
        (
            {"RANGE": "bytes=0-1", "IF_RANGE": '"a"'},
            {"etag": "a", "ignore_if_range": False},
            False,
        ),
        (
            {"RANGE": "bytes=0-1", "IF_RANGE": '"b"'},
            {"etag": "a", "ignore_if_range": False},
            True,
        ),
    ],
)
def test_conditions(fields: dict[str, str], resource: dict[str, Any], modified: bool) -> None:
    environ = {f"HTTP_{name}": value for name, value in fields.items()}
    assert http.is_resource_modified(environ, **resource) is modified


def test_a_tag_and_data_to_make_one_of_are_too_much() -> None:
    with pytest.raises(TypeError, match="both data and etag given"):
        http.is_resource_modified({}, etag="a", data=b"")


@pytest.mark.parametrize(
    ("cls", "field", "offers", "best"),
    [
        (
            ds.MIMEAccept,
            "text/html;q=0.5, application/json",
            ["text/html", "application/json"],
            "application/json",
        ),
        (ds.MIMEAccept, "text/*;q=0.9, text/html;q=0.1", ["text/html", "text/plain"], "text/plain"),
        (ds.MIMEAccept, "*/*", ["text/html", "application/json"], "text/html"),
        (ds.MIMEAccept, "text/html;level=1", ["text/html", "text/html;level=1"], "text/html;level=1"),
        (ds.MIMEAccept, "text/html;q=0", ["text/html"], None),
        (ds.LanguageAccept, "en-GB, de;q=0.5", ["fr", "en"], "en"),
        (ds.LanguageAccept, "de", ["de_AT", "fr"], "de_AT"),
        (ds.CharsetAccept, "latin-1", ["utf-8", "iso-8859-1"], "iso-8859-1"),
        (ds.Accept, "gzip;q=1.5, br;q=x, zstd", ["gzip", "br", "zstd"], "zstd"),
        (ds.Accept, None, ["gzip"], None),
    ],
)
def test_negotiation(cls: Any, field: str | None, offers: list[str], best: str | None) -> None:
    made = http.parse_accept_header(field, cls)
    assert made.best_match(offers) == best
    assert made.best_match(offers, "other") == (best or "other")
    assert made.provided is (field is not None)


def test_cache_control() -> None:
    request = http.parse_cache_control_header("no-cache, max-age=5, max-stale, min-fresh=x")
    assert (request.no_cache, request.max_age, request.max_stale, request.min_fresh) == (True, 5, True, None)
    with pytest.raises(TypeError, match="immutable"):
        request.max_age = 6
    changes: list[str] = []
    response = ds.ResponseCacheControl((), lambda changed: changes.append(str(changed)))
    response.max_age = 10
    response.private = "set-cookie"
    response.public = True
    response.no_cache = True
    response.max_age = None
    del response.private
    response.public = False
    assert changes[-1] == "no-cache"
    assert changes[3] == "max-age=10, private=set-cookie, public, no-cache"


def test_content_security_policy() -> None:
    made = http.parse_csp_header("default-src 'self'; img-src *; upgrade; script-src ")
    assert dict(made) == {"default-src": "'self'", "img-src": "*"}
    made.img_src = None
    made.font_src = "x y"
    assert str(made) == "default-src 'self'; font-src x y"


@pytest.mark.parametrize(
    ("field", "kind", "parameters", "token"),
    [
        ("Basic dXNlcjpwYTpzcw==", "basic", {"username": "user", "password": "pa:ss"}, None),
        ('Digest realm="a b", qop=auth', "digest", {"realm": "a b", "qop": "auth"}, None),
        ("Bearer abc==", "bearer", {}, "abc=="),
    ],
)
def test_credentials(field: str, kind: str, parameters: dict[str, str], token: str | None) -> None:
    made = ds.Authorization.from_header(field)
    assert made is not None
    assert (made.type, made.parameters, made.token) == (kind, parameters, token)
    assert made.missing is None
    assert made == ds.Authorization.from_header(made.to_header())


@pytest.mark.parametrize("field", [None, "", "Basic a", "Basic /w==", "Basic é"])
def test_broken_credentials_are_none(field: str | None) -> None:
    assert ds.Authorization.from_header(field) is None


def test_a_challenge_tells_of_changes() -> None:
    made = ds.WWWAuthenticate("Digest", {"realm": "x", "algorithm": "MD5"})
    changes: list[str] = []
    made._on_update = lambda changed: changes.append(str(changed))
    made.nonce = "y"
    made["algorithm"] = None
    del made.realm
    assert made.to_header() == 'Digest nonce="y"'
    assert changes[-1] == 'Digest nonce="y"'
    assert made == ds.WWWAuthenticate.from_header('digest nonce="y"')


def test_fields_for_one_connection_and_for_the_body_are_removed() -> None:
    headers = ds.Headers(
        [("Connection", "close"), ("Keep-Alive", "x"), ("Content-Type", "a"), ("Expires", "0")]
    )
    http.remove_hop_by_hop_headers(headers)
    assert [name for name, _ in headers] == ["Content-Type", "Expires"]
    http.remove_entity_headers(headers)
    assert list(headers) == [("Expires", "0")]


@pytest.mark.parametrize(
    ("uri", "iri"),
    [
        ("http://xn--n3h.net/", "http://\u2603.net/"),
        ("http://%C3%BCser:p%C3%A4ss@x.de/p%C3%A5th?q=%E2%82%AC#%C3%A9", "http://üser:päss@x.de/påth?q=€#é"),
        ("/%2F%3F%23%25%20x", "/%2F%3F%23%25%20x"),
        ("/?a=%26%3D%2B%23", "/?a=%26%3D%2B%23"),
        ("/%FF%E2%82", "/%FF%E2%82"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("itms-services://?a=b", "itms-services://?a=b"),
    ],
)
def test_uris_and_iris(uri: str, iri: str) -> None:
    assert urls.uri_to_iri(uri) == iri
    assert urls.iri_to_uri(iri) == uri


COSTLY = [
    pytest.param(http.parse_options_header, "a; " + "b=c; " * 40_000, id="many parameters"),
    pytest.param(http.parse_options_header, 'a; b="' + '\\"' * 100_000, id="a quote that never closes"),
    pytest.param(http.parse_options_header, "a" + '; b="' * 40_000, id="many that never close"),
    pytest.param(
        http.parse_options_header, "a; " + "".join(f"k{n}=v; " for n in range(20_000)), id="many names"
    ),
    pytest.param(http.parse_list_header, ',"' * 100_000, id="list"),
    pytest.param(http.parse_cookie, 'a="' * 60_000, id="cookie quotes"),
    pytest.param(http.parse_cookie, 'a="b;' * 40_000, id="cookie quotes and semicolons"),
    pytest.param(http.parse_cookie, "a=" + " " * 200_000 + "b", id="cookie spaces"),
    pytest.param(http.parse_etags, '"a,' * 20_000, id="tags that never close"),
    pytest.param(http.parse_etags, 'W/"a" ' * 20_000, id="tags without commas"),
    pytest.param(http.parse_range_header, "bytes=" + "0-0," * 20_000, id="ranges"),
    pytest.param(http.parse_accept_header, "a;q=" + "9" * 20_000, id="quality"),
]


@pytest.mark.parametrize(("function", "text"), COSTLY)
def test_costly_fields_take_time_in_proportion(function: Any, text: str) -> None:
    # In proportion to the square this would take hours.
    function(text * 20)
