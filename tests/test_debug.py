"""The interactive debugger: its pages, its prompts, and who may use them."""

from __future__ import annotations

import io
import re
import sys
import threading
import warnings
from collections import deque
from contextlib import contextmanager

import pytest

from hipflask.werkzeug import debug
from hipflask.werkzeug.debug import DebuggedApplication
from hipflask.werkzeug.debug.console import Console
from hipflask.werkzeug.debug.repr import DebugReprGenerator, debug_repr
from hipflask.werkzeug.debug.tbtools import DebugTraceback
from hipflask.werkzeug.test import Client
from hipflask.werkzeug.wrappers import Request, Response


def text_of(html):
    return re.sub("<[^>]*>", "", html).replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")


class Broken:
    def __repr__(self):
        raise ValueError("<no>")


class Named(list):
    pass


class TestRepr:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1, "1"),
            ("<a>", "'<a>'"),
            (b"x", "b'x'"),
            ([1, "a"], "[1, 'a']"),
            ((1, 2), "(1, 2)"),
            ({"a": [1]}, "{'a': [1]}"),
            (frozenset([1]), "frozenset([1])"),
            (deque([1]), "collections.deque([1])"),
            (None, "None"),
            (re.compile(r"a\d"), r"re.compile(r'a\d')"),
            (Named([1]), f"{__name__}.Named([1])"),
            (Broken(), "<broken repr (ValueError: <no>)>"),
            ([Broken()], "[<broken repr (ValueError: <no>)>]"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_value_reads_as_in_python(self, value, text):
        assert text_of(debug_repr(value)) == text

    @pytest.mark.parametrize("value", ["<script>", ["<script>"], re.compile("<script>"), {"<script>": 1}])
    def test_nothing_breaks_out(self, value):
        assert "<script>" not in debug_repr(value)

    def test_what_contains_itself_ends(self):
        endless = [1]
        endless.append(endless)
        assert text_of(debug_repr(endless)) == "[1, [...]]"
        mapping = {}
        mapping[1] = mapping
        assert text_of(debug_repr(mapping)) == "{1: {...}}"

    @pytest.mark.parametrize("value", ["x" * 100, list(range(20)), dict.fromkeys(range(9))])
    def test_what_is_long_is_folded(self, value):
        assert debug_repr(value).count('<span class="extended">') == 1
        assert text_of(debug_repr(value)) == repr(value)

    def test_the_attributes_of_an_object(self):
        class Holder:
            shown = 42

            @property
            def failing(self):
                raise RuntimeError

        html = DebugReprGenerator().dump_object(Holder())
        assert "Details for" in html
        assert re.search(r"<th>shown.*42", html)
        assert "failing" not in html
        assert "Contents of" in DebugReprGenerator().dump_object({"a": 1})


class TestConsole:
    @pytest.mark.parametrize(
        ("lines", "outputs"),
        [
            (["1 + 1"], ["2\n"]),
            (["x = 3", "x * 2", "_"], ["", "6\n", "6\n"]),
            (["print('<b>')"], ["<b>\n"]),
            (["None"], [""]),
            (["y = 5", "f = lambda: y", "f()"], ["", "", "5\n"]),
            (["given"], ["'local'\n"]),
            (["help"], ["Type help(object) for help about object.\n"]),
        ],
    )
    def test_a_line_is_answered(self, lines, outputs):
        console = Console({"given": "global"}, {"given": "local"})
        for line, output in zip(lines, outputs, strict=True):
            assert text_of(console.eval(line)) == f">>> {line}\n{output}"

    def test_a_block_is_awaited(self):
        console = Console()
        assert console.eval("for i in range(2):") == ">>> for i in range(2):\n"
        assert console.eval("    i") == "...     i\n"
        assert text_of(console.eval("")) == "... \n0\n1\n"
        assert console.eval("1").startswith(">>> 1\n")

    def test_an_error_is_shown_with_its_line(self):
        console = Console()
        html = console.eval("1 / 0")
        assert "ZeroDivisionError" in html
        assert "1 / 0</" in html.partition("\n")[2] or 'class="line current">1 / 0' in html
        html = console.eval("1 +* 2")
        assert "Syntax Error" in html

    def test_dump_and_help(self):
        console = Console(locals={"a": [1]})
        assert "Details for list object" in console.eval("dump(a)")
        assert "Local variables in frame" in console.eval("dump()")
        assert "Help on list object" in console.eval("help(a)")

    def test_the_real_output_is_left_alone(self, capsys):
        before = sys.stdout, sys.displayhook
        started, done = threading.Event(), threading.Event()

        def other():
            started.wait(5)
            print("from another thread")
            done.set()

        thread = threading.Thread(target=other)
        thread.start()
        html = Console(locals={"s": started, "d": done}).eval("s.set(); print(d.wait(5))")
        thread.join()
        assert "another thread" not in html
        assert "True" in html
        assert capsys.readouterr().out == "from another thread\n"
        assert (sys.stdout, sys.displayhook) == before


def raising():
    secret_of_the_frame = "value"  # noqa: F841
    try:
        raise ValueError("inner")
    except ValueError:
        raise KeyError("<outer>")  # noqa: B904


def traceback_of(function, **kwargs):
    try:
        function()
    except Exception as error:
        return DebugTraceback(error, **kwargs)
    raise AssertionError("nothing raised")


class TestTraceback:
    def test_html_shows_frames_source_and_chain_escaped(self):
        html = traceback_of(raising).render_traceback_html()
        assert html.count('class="exc-divider"') == 1
        assert "raise KeyError(&#34;&lt;outer&gt;&#34;)" in html
        assert "raise ValueError(&#34;inner&#34;)" in html
        assert "<outer>" not in html

    def test_text_is_what_python_prints(self):
        text = traceback_of(raising).render_traceback_text()
        assert text.startswith("Traceback (most recent call last):\n")
        assert text.endswith("KeyError: '<outer>'\n")

    def test_frames_can_be_skipped(self):
        names = [frame.name for frame in traceback_of(raising, skip=1).all_tracebacks[0][1].stack]
        assert names == ["raising"]

    @pytest.mark.parametrize(
        ("wishes", "shown"),
        [
            ([False, False, False], ["a", "b", "c"]),
            ([False, True, False], ["a", "c"]),
            ([False, "before", False], ["b", "c"]),
            ([False, "before_and_this", False], ["c"]),
            (["after", False, False], ["a"]),
            (["after_and_this", False, False], []),
            (["after", "reset", False], ["a", "b", "c"]),
            (["after", "reset_and_this", False], ["a", "c"]),
        ],
    )
    def test_frames_can_ask_to_be_hidden(self, wishes, shown):
        def c():
            __traceback_hide__ = wishes[2]  # noqa: F841
            raise ValueError

        def b():
            __traceback_hide__ = wishes[1]  # noqa: F841
            c()

        def a():
            __traceback_hide__ = wishes[0]  # noqa: F841
            b()

        names = [frame.name for frame in traceback_of(a).all_frames if frame.name in "abc"]
        assert names == shown
        assert [frame.name for frame in traceback_of(a, hide=False).all_frames][-3:] == ["a", "b", "c"]

    def test_a_chain_that_is_a_circle_ends(self):
        with pytest.raises(KeyError) as caught:
            raising()
        error = caught.value
        error.__context__.__context__ = error
        assert len(DebugTraceback(error).all_tracebacks) == 2

    def test_an_exception_that_was_never_raised(self):
        error = ValueError("x")
        error.__context__ = KeyError("y")
        assert "ValueError: x" in DebugTraceback(error).render_traceback_html()

    def test_source_that_is_missing_or_too_short(self):
        code = compile("\n\n\n1 / 0", "no-such-file.py", "exec")
        assert "no-such-file.py" in traceback_of(lambda: exec(code, {})).render_traceback_html()

    def test_code_runs_in_a_frame(self):
        frame = traceback_of(raising).all_tracebacks[0][1].stack[-1]
        assert "&#39;value&#39;" in frame.eval("secret_of_the_frame")

    def test_a_page_without_prompts_has_no_secret(self):
        traceback = traceback_of(raising)
        assert "s3cret" not in traceback.render_debugger_html(False, "s3cret", False)
        assert "s3cret" in traceback.render_debugger_html(True, "s3cret", False)

    def test_a_comment_cannot_be_closed_from_inside(self):
        def fail():
            raise ValueError("--><script>alert(1)</script>")

        html = traceback_of(fail).render_debugger_html(False, "", False)
        assert "--><script>" not in html


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(DebuggedApplication, "_delay", lambda self: None)
    monkeypatch.setenv("WERKZEUG_DEBUG_PIN", "123-456-789")
    monkeypatch.delenv("WERKZEUG_RUN_MAIN", raising=False)


@Request.application
def crashing(request):
    local = "in the frame"  # noqa: F841
    if request.path == "/fine":
        return Response("fine")
    raise RuntimeError("crashed")


class Visitor(Client):
    """A browser that has seen the error page."""

    def __init__(self, app, host="localhost"):
        super().__init__(app)
        self.host = host
        self.errors = io.StringIO()
        self.page = self.ask("/").text
        found = re.search('data-secret="([^"]+)"', self.page)
        self.secret = found[1] if found else None
        frames = re.findall('id="frame-([0-9]+)"', self.page)
        self.frame = frames[-1] if frames else None

    def ask(self, path, **query):
        return self.get(path, base_url=f"http://{self.host}", query_string=query, errors_stream=self.errors)

    def command(self, cmd, secret=None, **query):
        query.setdefault("frm", self.frame)
        return self.ask("/", __debugger__="yes", cmd=cmd, s=secret or self.secret or "", **query)


class TestDebuggedApplication:
    def test_an_answer_without_error_passes(self):
        assert Visitor(DebuggedApplication(crashing, evalex=True)).ask("/fine").text == "fine"

    def test_an_error_is_shown_and_logged(self):
        visitor = Visitor(DebuggedApplication(crashing))
        assert visitor.ask("/").status_code == 500
        assert "RuntimeError" in visitor.page
        assert visitor.secret is None
        assert "RuntimeError: crashed" in visitor.errors.getvalue()

    def test_an_error_in_the_middle_of_a_body_is_shown_and_the_body_closed(self):
        closed = []

        class Body:
            def __iter__(self):
                raise RuntimeError("late")

            def close(self):
                closed.append(True)

        def app(environ, start_response):
            start_response("200 OK", [])
            return Body()

        assert "late" in Visitor(DebuggedApplication(app)).page
        assert closed == [True]

    def test_the_resources_are_served(self):
        visitor = Visitor(DebuggedApplication(crashing))
        for name in re.findall("f=([a-z.]+)", visitor.page):
            response = visitor.ask("/", __debugger__="yes", cmd="resource", f=name)
            assert response.status_code == 200
            assert len(response.data) > 100
        assert visitor.ask("/", __debugger__="yes", cmd="resource", f="../console.py").status_code == 404

    def test_code_runs_after_the_pin(self):
        visitor = Visitor(DebuggedApplication(crashing, evalex=True))
        assert visitor.command("local").status_code == 500
        assert visitor.command("pinauth", pin="000").json == {"auth": False, "exhausted": False}
        assert visitor.command("local").status_code == 500
        assert visitor.command("pinauth", pin=" 123456789 ").json == {"auth": True, "exhausted": False}
        assert "in the frame" in visitor.command("local").text
        assert "data-trusted" in visitor.ask("/").text

    def test_without_the_secret_nothing_runs(self):
        visitor = Visitor(DebuggedApplication(crashing, evalex=True))
        visitor.command("pinauth", pin="123456789")
        for secret in ("x", "ü", "x" * 20):
            assert visitor.command("local", secret=secret).status_code == 500
            assert visitor.command("pinauth", secret=secret, pin="123456789").status_code == 500

    def test_an_untrusted_host_gets_neither_secret_nor_prompt(self):
        app = DebuggedApplication(crashing, evalex=True)
        known = Visitor(app)
        stranger = Visitor(app, host="evil.example")
        assert "RuntimeError" in stranger.page
        assert stranger.secret is None
        assert app.secret not in stranger.page
        for cmd in ("pinauth", "printpin"):
            assert stranger.command(cmd, secret=app.secret, pin="123456789").status_code == 400
        app.pin = None
        assert stranger.command("1", secret=app.secret, frm=known.frame).status_code == 400
        assert stranger.ask("/console").status_code == 400
        app.trusted_hosts.append("evil.example")
        assert Visitor(app, host="evil.example").secret == app.secret

    def test_too_many_wrong_pins_lock_the_prompt(self):
        visitor = Visitor(DebuggedApplication(crashing, evalex=True))
        for _ in range(10):
            assert visitor.command("pinauth", pin="1").json == {"auth": False, "exhausted": False}
        assert visitor.command("pinauth", pin="123456789").json == {"auth": False, "exhausted": True}

    def test_a_forged_or_old_cookie_is_worth_nothing(self, monkeypatch):
        app = DebuggedApplication(crashing, evalex=True)
        visitor = Visitor(app)
        visitor.command("pinauth", pin="123456789")
        cookie = visitor.get_cookie(app.pin_cookie_name)
        assert (cookie.http_only, cookie.same_site) == (True, "Strict")
        good = cookie.decoded_value
        since, _, signature = good.partition("|")
        for value in (f"{int(since) + 1}|{signature}", f"{since}|", "x|y", "", f"{since}|{'0' * 32}"):
            visitor.set_cookie(app.pin_cookie_name, value)
            assert visitor.command("local").status_code == 500
        visitor.set_cookie(app.pin_cookie_name, good)
        assert visitor.command("local").status_code == 200
        later = int(since) + debug.PIN_TIME + 1
        monkeypatch.setattr(debug.time, "time", lambda: later)
        assert visitor.command("local").status_code == 500

    def test_a_remembered_browser_stays_so_after_a_reload_but_not_with_another_pin(self, monkeypatch):
        first = DebuggedApplication(crashing, evalex=True)
        visitor = Visitor(first)
        visitor.command("pinauth", pin="123456789")
        visitor.application = DebuggedApplication(crashing, evalex=True)
        assert "data-trusted" in visitor.ask("/").text
        monkeypatch.setenv("WERKZEUG_DEBUG_PIN", "987-654-321")
        visitor.application = DebuggedApplication(crashing, evalex=True)
        assert "data-trusted" not in visitor.ask("/").text

    def test_the_pin_can_be_turned_off(self, monkeypatch):
        visitor = Visitor(DebuggedApplication(crashing, evalex=True, pin_security=False))
        assert "in the frame" in visitor.command("local").text
        monkeypatch.setenv("WERKZEUG_DEBUG_PIN", "off")
        app = DebuggedApplication(crashing, evalex=True)
        assert app.pin is None
        assert "in the frame" in Visitor(app).command("local").text

    def test_the_pin_is_the_same_each_time_and_differs_between_applications(self, monkeypatch):
        monkeypatch.delenv("WERKZEUG_DEBUG_PIN")
        pin, cookie = debug.get_pin_and_cookie_name(crashing)
        assert (pin, cookie) == debug.get_pin_and_cookie_name(crashing)
        assert re.fullmatch(r"\d{3}-\d{3}-\d{3}", pin)

        def another():
            pass

        assert debug.get_pin_and_cookie_name(another)[0] != pin

    def test_contexts_are_entered_around_each_command(self):
        log = []

        @contextmanager
        def context():
            log.append("in")
            yield
            log.append("out")

        def app(environ, start_response):
            environ["werkzeug.debug.preserve_context"](context())
            raise RuntimeError

        visitor = Visitor(DebuggedApplication(app, evalex=True, pin_security=False))
        assert visitor.command("1 + 1").status_code == 200
        assert log == ["in", "out"]

    def test_old_tracebacks_are_forgotten(self):
        app = DebuggedApplication(crashing, evalex=True, pin_security=False)
        first = Visitor(app)
        assert first.command("1").status_code == 200
        for _ in range(25):
            first.ask("/")
        assert first.command("1").status_code == 500
        assert len(app.frames) <= 20 * 5
        assert len(app.frames) == len(app.frame_contexts)

    def test_without_prompts_no_frame_is_kept(self):
        app = DebuggedApplication(crashing)
        Visitor(app)
        assert app.frames == {}

    def test_the_console_has_the_application_and_the_given_names(self):
        app = DebuggedApplication(
            crashing, evalex=True, pin_security=False, console_init_func=lambda: {"given": 7}
        )
        visitor = Visitor(app)
        assert "data-secret" in visitor.ask("/console").text
        assert "7" in text_of(visitor.command("given", frm="0").text)
        assert "function" in text_of(visitor.command("app", frm="0").text)
        assert Visitor(DebuggedApplication(crashing)).ask("/console").status_code == 500

    def test_the_pin_is_told_in_the_log_on_demand(self, caplog):
        with caplog.at_level("INFO", "werkzeug"), warnings.catch_warnings():
            Visitor(DebuggedApplication(crashing, evalex=True)).command("printpin")
        assert "123-456-789" in caplog.text
        assert "123-456-789" not in Visitor(DebuggedApplication(crashing, evalex=True)).page
