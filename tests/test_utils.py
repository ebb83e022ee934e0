"""Properties, file names, redirects, files and imports by name."""

from __future__ import annotations

import io
import os
import sys
from datetime import datetime, timezone

import pytest

from hipflask.werkzeug import utils
from hipflask.werkzeug.exceptions import NotFound, RequestedRangeNotSatisfiable
from hipflask.werkzeug.http import http_date, parse_date
from hipflask.werkzeug.test import create_environ
from hipflask.werkzeug.wrappers import Response


class TestCachedProperty:
    def test_it_is_computed_once_can_be_set_and_forgotten(self):
        class Counter:
            calls = 0

            @utils.cached_property
            def value(self):
                """Its documentation."""
                self.calls += 1
                return self.calls

        counter = Counter()
        assert (counter.value, counter.value) == (1, 1)
        counter.value = 10
        assert counter.value == 10
        del counter.value
        assert counter.value == 2
        assert Counter.value.__doc__ == "Its documentation."
        assert isinstance(Counter.value, property)

    def test_it_remembers_in_a_slot_and_shares_nothing(self):
        class Slotted:
            __slots__ = ("_cache_value", "seen")

            @utils.cached_property
            def value(self):
                return object()

        one, other = Slotted(), Slotted()
        assert one.value is one.value
        assert one.value is not other.value
        first = one.value
        del one.value
        assert one.value is not first

    def test_an_inherited_one_is_computed_for_each_instance(self):
        class Base:
            @utils.cached_property
            def value(self):
                return [type(self).__name__]

        class Derived(Base):
            pass

        assert Derived().value == ["Derived"]
        assert Base().value == ["Base"]


def test_environ_property_converts_falls_back_and_is_read_only():
    class Holder:
        environ = {"number": "3", "broken": "x"}
        number = utils.environ_property("number", None, int)
        broken = utils.environ_property("broken", -1, int)
        missing = utils.environ_property("missing", "default")
        writable = utils.environ_property("number", read_only=False)

    holder = Holder()
    assert (holder.number, holder.broken, holder.missing) == (3, -1, "default")
    with pytest.raises(AttributeError):
        holder.number = 4
    holder.writable = "5"
    assert holder.number == 5


def test_header_property_reads_and_writes_headers():
    class Holder:
        headers = {}
        age = utils.header_property("Age", None, int, str)

    holder = Holder()
    assert holder.age is None
    holder.age = 7
    assert holder.headers == {"Age": "7"}
    assert holder.age == 7
    del holder.age
    assert holder.headers == {}


@pytest.mark.parametrize(
    ("mimetype", "full"),
    [
        ("text/html", "text/html; charset=utf-8"),
        ("application/javascript", "application/javascript; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml; charset=utf-8"),
        ("application/json", "application/json"),
        ("image/png", "image/png"),
    ],
)
def test_only_text_gets_a_charset(mimetype, full):
    assert utils.get_content_type(mimetype, "utf-8") == full


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("My cool movie.mov", "My_cool_movie.mov"),
        ("../../../etc/passwd", "etc_passwd"),
        ("i contain cool \xfcml\xe4uts.txt", "i_contain_cool_umlauts.txt"),
        ("__filename__", "filename"),
        ("foo$&^*)bar", "foobar"),
        (".. .", ""),
        ("\u5317\u4eac", ""),
        (" a \t b ", "a_b"),
        ("a\x00b\n", "ab"),
    ],
)
def test_secure_filename(name, safe):
    assert utils.secure_filename(name) == safe


def test_secure_filename_avoids_windows_devices(monkeypatch):
    monkeypatch.setattr("os.name", "nt")
    assert utils.secure_filename("aux.txt") == "_aux.txt"
    assert utils.secure_filename("") == ""


class TestRedirect:
    def test_it_sends_the_location_and_a_page_that_escapes_it(self):
        response = utils.redirect('/x?a="<b>"&c', 303)
        assert response.status_code == 303
        assert response.headers["Location"] == '/x?a="<b>"&c'
        assert response.mimetype == "text/html"
        assert b'href="/x?a=&#34;&lt;b&gt;&#34;&amp;c"' in response.get_data()

    def test_the_default_is_302_and_the_class_can_be_chosen(self):
        class Own(Response):
            pass

        assert utils.redirect("/").status_code == 302
        assert type(utils.redirect("/", Response=Own)) is Own

    @pytest.mark.parametrize(
        ("path", "query", "location"),
        [
            ("/a/b", "", "b/"),
            ("/b", "x=y&z", "b/?x=y&z"),
            ("b", "", "b/"),
            ("", "", "./"),
        ],
    )
    def test_a_slash_is_appended_relative_to_the_last_segment(self, path, query, location):
        response = utils.append_slash_redirect({"PATH_INFO": path, "QUERY_STRING": query})
        assert (response.status_code, response.headers["Location"]) == (308, location)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_bytes(b"<p>0123456789")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


def body(response):
    response.direct_passthrough = False
    data = response.get_data()
    response.close()
    return data


class TestSendFile:
    def test_a_path_tells_everything(self, page):
        response = utils.send_file(page, create_environ())
        headers = response.headers
        assert response.direct_passthrough
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Length"] == "13"
        assert headers["Content-Disposition"] == "inline; filename=page.html"
        assert headers["Last-Modified"] == http_date(1_600_000_000)
        assert headers["Cache-Control"] == "no-cache"
        assert "ETag" in headers
        assert body(response) == b"<p>0123456789"

    def test_the_open_file_is_kept_for_the_server(self, page):
        response = utils.send_file(page, create_environ())
        assert os.path.samestat(os.fstat(response.response.file.fileno()), os.stat(page))
        response.close()

    def test_a_file_in_memory_has_a_size_but_neither_tag_nor_date(self):
        response = utils.send_file(io.BytesIO(b"abc"), create_environ(), mimetype="text/plain")
        assert response.headers["Content-Length"] == "3"
        assert "ETag" not in response.headers
        assert "Last-Modified" not in response.headers
        assert "Content-Disposition" not in response.headers
        assert body(response) == b"abc"

    def test_a_name_or_a_type_is_needed(self):
        with pytest.raises(TypeError, match="MIME type"):
            utils.send_file(io.BytesIO(), create_environ())
        with pytest.raises(TypeError, match="No name provided"):
            utils.send_file(io.BytesIO(), create_environ(), mimetype="a/b", as_attachment=True)

    def test_a_file_in_text_mode_is_refused(self):
        with pytest.raises(ValueError, match="binary mode"):
            utils.send_file(io.StringIO(), create_environ(), mimetype="text/plain")

    def test_a_missing_file_is_an_os_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            utils.send_file(tmp_path / "no", create_environ())

    @pytest.mark.parametrize(
        ("name", "disposition"),
        [
            ("a.txt", "attachment; filename=a.txt"),
            ("a b.txt", 'attachment; filename="a b.txt"'),
            ("Vögel.txt", "attachment; filename=Vogel.txt; filename*=UTF-8''V%C3%B6gel.txt"),
            ("a'b\xe9.txt", "attachment; filename=a'be.txt; filename*=UTF-8''a%27b%C3%A9.txt"),
        ],
    )
    def test_the_name_of_a_download(self, name, disposition):
        response = utils.send_file(io.BytesIO(b""), create_environ(), as_attachment=True, download_name=name)
        assert response.headers["Content-Disposition"] == disposition
        response.close()

    def test_a_coding_is_told_only_if_the_file_is_shown(self, tmp_path):
        path = tmp_path / "a.tar.gz"
        path.touch()
        for attachment, coding in ((False, "gzip"), (True, None)):
            response = utils.send_file(path, create_environ(), as_attachment=attachment)
            assert response.mimetype == "application/x-tar"
            assert response.headers.get("Content-Encoding") == coding
            response.close()

    @pytest.mark.parametrize(
        ("max_age", "control"),
        [(None, "no-cache"), (0, "no-cache, max-age=0"), (60, "public, max-age=60")],
    )
    def test_max_age_may_be_a_function_of_the_path(self, page, max_age, control):
        seen = []

        def ask(path):
            seen.append(path)
            return max_age

        for value in (max_age, ask):
            response = utils.send_file(page, create_environ(), max_age=value)
            parts = {part.strip() for part in response.headers["Cache-Control"].split(",")}
            assert parts == {part.strip() for part in control.split(",")}
            assert ("Expires" in response.headers) == (max_age is not None)
            response.close()
        assert seen == [str(page)]

    def test_a_fresh_copy_is_answered_with_304(self, page):
        first = utils.send_file(page, create_environ())
        first.close()
        for headers in (
            {"If-None-Match": first.headers["ETag"]},
            {"If-Modified-Since": first.headers["Last-Modified"]},
        ):
            response = utils.send_file(page, create_environ(headers=headers))
            assert response.status_code == 304
            response.close()
            response = utils.send_file(page, create_environ(headers=headers), conditional=False)
            assert response.status_code == 200
            response.close()

    @pytest.mark.parametrize(
        ("value", "expected", "content_range"),
        [
            ("bytes=0-2", b"<p>", "bytes 0-2/13"),
            ("bytes=-3", b"789", "bytes 10-12/13"),
            ("bytes=10-", b"789", "bytes 10-12/13"),
        ],
    )
    def test_a_range_is_answered_with_206(self, page, value, expected, content_range):
        response = utils.send_file(page, create_environ(headers={"Range": value}))
        assert response.status_code == 206
        assert response.headers["Content-Range"] == content_range
        assert body(response) == expected

    def test_an_impossible_range_closes_the_file(self):
        file = io.BytesIO(b"1")
        environ = create_environ(headers={"Range": "bytes=9-"})
        with pytest.raises(RequestedRangeNotSatisfiable):
            utils.send_file(file, environ, mimetype="a/b")
        assert file.closed

    def test_etag_and_date_can_be_given(self, page):
        when = datetime(1999, 1, 1, tzinfo=timezone.utc)
        response = utils.send_file(page, create_environ(), etag="mine", last_modified=when)
        assert response.headers["ETag"] == '"mine"'
        assert parse_date(response.headers["Last-Modified"]) == when
        response.close()
        response = utils.send_file(page, create_environ(), etag=False)
        assert "ETag" not in response.headers
        response.close()

    def test_x_sendfile_names_the_path_and_opens_nothing(self, page):
        response = utils.send_file(page, create_environ(), use_x_sendfile=True)
        assert response.headers["X-Sendfile"] == str(page)
        assert response.get_data() == b""
        fresh = create_environ(headers={"If-None-Match": response.headers["ETag"]})
        assert "X-Sendfile" not in utils.send_file(page, fresh, use_x_sendfile=True).headers

    def test_the_servers_file_wrapper_is_used(self, page):
        environ = create_environ(environ_overrides={"wsgi.file_wrapper": lambda file, size: (file, size)})
        response = utils.send_file(page, environ, conditional=False)
        file, size = response.response
        assert file.read() == b"<p>0123456789"
        assert size > 0
        file.close()


class TestSendFromDirectory:
    def test_a_file_below_is_sent(self, page):
        response = utils.send_from_directory(page.parent, "page.html", create_environ())
        assert body(response) == b"<p>0123456789"

    @pytest.mark.parametrize("path", ["../page.html", "/etc/passwd", "missing", ".", "", "a\0b"])
    def test_anything_else_is_not_found(self, page, path):
        directory = page.parent / "inner" if path.startswith("..") else page.parent
        with pytest.raises(NotFound):
            utils.send_from_directory(directory, path, create_environ())

    def test_the_root_goes_in_front_of_a_relative_directory(self, page):
        root = page.parent.parent
        response = utils.send_from_directory(
            page.parent.name, "page.html", create_environ(), _root_path=str(root)
        )
        assert body(response) == b"<p>0123456789"


class TestImports:
    @pytest.mark.parametrize("name", ["os.path.join", "os.path:join", "posixpath:join"])
    def test_a_name_in_a_module(self, name):
        assert utils.import_string(name) is os.path.join

    def test_a_module(self):
        assert utils.import_string("os.path") is os.path

    @pytest.mark.parametrize("name", ["no_such_module", "os.nothing", "os:nothing.more"])
    def test_what_is_missing(self, name):
        assert utils.import_string(name, silent=True) is None
        with pytest.raises(utils.ImportStringError) as caught:
            utils.import_string(name)
        error = caught.value
        assert isinstance(error, ImportError)
        assert error.import_name == name.replace(":", ".")
        assert "not found" in str(error)
        assert repr(error).startswith("<ImportStringError(")

    def test_an_error_in_the_module_is_not_hidden(self, tmp_path, monkeypatch):
        (tmp_path / "broken_module_x.py").write_text("1/0")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(ZeroDivisionError):
            utils.import_string("broken_module_x.name", silent=True)

    def test_the_modules_of_a_package(self, tmp_path, monkeypatch):
        package = tmp_path / "pack_for_test"
        (package / "sub").mkdir(parents=True)
        for path in ("__init__.py", "one.py", "sub/__init__.py", "sub/two.py"):
            (package / path).touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        find = utils.find_modules
        assert list(find("pack_for_test")) == ["pack_for_test.one"]
        assert list(find("pack_for_test", include_packages=True)) == [
            "pack_for_test.one",
            "pack_for_test.sub",
        ]
        assert list(find("pack_for_test", recursive=True)) == ["pack_for_test.one", "pack_for_test.sub.two"]
        with pytest.raises(ValueError, match="is not a package"):
            list(find("pack_for_test.one"))
        for name in [name for name in sys.modules if name.startswith("pack_for_test")]:
            del sys.modules[name]
