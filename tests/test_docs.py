"""The documentation is true: its Python runs, its transcripts are real, its numbers the code's.

In a page, in this order:

- a Python block whose first line is a comment with a file's name (`# hello.py`) is written to that file,
  as is a template that begins so (`{# templates/page.html -#}`);
- any other Python block is run as a program of its own, or as a doctest if it has prompts; `no-run` behind
  the language leaves it alone;
- in a console block, `$ hipflask ... run` starts a server that stays until the next one, and other commands
  with `hipflask`, `curl` or `python` are run. What they print must be what the page shows.

`python tests/test_docs.py --write [PAGE...]` puts into the pages what the commands print.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
    if "```" in path.read_text()
]
FENCE = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```$", re.M | re.S)
#: What differs from one run to the next, and what is shown in its place.
CHANGING = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"), "2026-11-22 20:00:00,000"),
    (re.compile(r"(?m)^(Date|Last-Modified): .*$"), r"\1: Sun, 22 Nov 2026 20:00:00 GMT"),
    (re.compile(r"(session=)[\w.-]+"), r"\1eyJ2aXNpdHMiOjF9.aSIWYA.9Yqj3uXvFqJmJ1mYF0E3sZb2kGs"),
    (re.compile(r" in \d+\.\d+s"), " in 0.10s"),
    (re.compile(r"(127\.0\.0\.1:)\d{5}\b"), r"\g<1>42160"),
]


class Page:
    """A page at work: a folder for its files, and the server that it started last."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        self.folder = folder
        self.server: subprocess.Popen[str] | None = None
        self.address = ("", "")
        scripts = sysconfig.get_path("scripts")
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("FLASK_", "HIPFLASK_"))
            },
            "PATH": f"{scripts}:{os.environ.get('PATH', '')}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "80",
        }

    def run(self) -> str:
        """Run every block; the page with what was really printed."""
        return FENCE.sub(self.block, self.text)

    def block(self, match: re.Match[str]) -> str:
        language, marks, body = match[1], match[2], match[3]
        if language in ("python", "jinja") and "no-run" not in marks:
            named = re.match(r"(?:# (\S+\.py)|\{# (\S+) -#\})\n", body)
            if named:
                path = self.folder / (named[1] or named[2])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body)
            else:
                self.program(body)
        elif language == "console":
            return f"```console\n{self.transcript(body)}```"
        return match[0]

    def program(self, body: str) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".py", dir=self.folder) as file:
            file.write(body)
            file.flush()
            doctest = ["-m", "doctest"] if body.startswith(">>> ") else []
            done = self.shell([sys.executable, "-W", "error", *doctest, file.name])
        assert done.returncode == 0, f"{body}\n{done.stdout}"

    def transcript(self, body: str) -> str:
        shown = []
        for part in re.split(r"^(?=\$ )", body, flags=re.M):
            if not part:
                continue
            command = part.partition("\n")[0][2:]
            words = command.split()
            if words[0] == "hipflask" and words[-1] == "run":
                output = self.serve(command)
            elif words[0] in ("hipflask", "curl", "python"):
                if words[0] == "curl" and shutil.which("curl") is None:
                    pytest.skip("curl is not installed")
                output = self.normal(self.shell(self.to_server(command)).stdout)
                if self.server and "$SERVER" in command:
                    # It was told to stop.
                    self.server.wait(20)
            else:
                output = part.partition("\n")[2]
            shown.append(
                f"$ {command}\n{output if output.endswith(chr(10)) or not output else output + chr(10)}"
            )
        return "".join(shown)

    def shell(self, command: str | list[str]) -> subprocess.CompletedProcess[str]:
        # Into a pipe curl writes a progress meter that a terminal would not show.
        quiet = 'curl() { command curl -s "$@"; }\n'
        return subprocess.run(
            quiet + command if isinstance(command, str) else command,
            shell=isinstance(command, str),
            executable="/bin/bash" if isinstance(command, str) else None,
            cwd=self.folder,
            env={**self.environment, "SERVER": str(self.server.pid) if self.server else ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )

    def serve(self, command: str) -> str:
        self.stop()
        self.server = subprocess.Popen(
            ["/bin/bash", "-c", f"exec {command} --port 0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.server.stdout is not None
        lines = []
        for line in self.server.stdout:
            where = re.search(r"http://(127\.0\.0\.1:\d+)", line)
            if where:
                self.address = ("127.0.0.1:5000", where[1])
            lines.append(line.replace(self.address[1], self.address[0]) if where else line)
            if where:
                return "".join(lines)
        raise AssertionError(f"{command} ended:\n{''.join(lines)}")

    def to_server(self, command: str) -> str:
        return command.replace(*self.address) if self.server else command

    def normal(self, output: str) -> str:
        if self.server:
            output = output.replace(self.address[1], self.address[0])
        output = output.replace("\r\n", "\n").replace(str(self.folder), "/srv/app")
        for pattern, shown in CHANGING:
            output = pattern.sub(shown, output)
        return output

    def stop(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            server.send_signal(signal.SIGTERM)
            output, _ = server.communicate(timeout=20)
            assert server.returncode == 0, output


@contextmanager
def at_work(path: Path) -> Iterator[Page]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        page = Page(path.read_text(), folder)
        stack.callback(page.stop)
        yield page


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_a_page_shows_what_happens(path):
    with at_work(path) as page:
        assert page.run() == page.text


LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def heading_anchors(text: str) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    dead = []
    for path in [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("*/README.md"),
        *ROOT.glob("docs/**/*.md"),
    ]:
        text = FENCE.sub("", path.read_text())
        for target, anchor in LINK.findall(text):
            if "://" in target:
                continue
            there = (path.parent / target).resolve()
            if not there.exists():
                dead.append(f"{path.relative_to(ROOT)}: {target}")
            elif anchor and anchor[1:] not in heading_anchors(there.read_text()):
                dead.append(f"{path.relative_to(ROOT)}: {target}{anchor}")
    assert dead == []


def test_the_settings_are_those_of_the_server(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from build_reference import with_settings

    text = (ROOT / "docs/configuration.md").read_text()
    # If not: .venv/bin/python docs/build_reference.py
    assert with_settings(text) == text


def test_the_settings_are_those_of_flask():
    from hipflask import Flask

    text = (ROOT / "docs/configuration.md").read_text()
    shown = dict(re.findall(r"(?m)^\| `([A-Z_]+)` \| (.+?) \|", text))
    assert set(shown) == set(Flask.default_config)
    for name, value in Flask(__name__).config.items():
        if name in shown:
            told = f"{value.days} days" if isinstance(value, timedelta) else repr(value)
            told = f"{value:,}" if type(value) is int else told
            assert shown[name].strip("`").replace('"', "'") == told, name


PUBLIC_MODULES = [
    *("app", "blueprints", "cli", "config", "ctx", "globals", "helpers", "json", "json.provider", "json.tag"),
    *(
        "sessions",
        "signals",
        "templating",
        "testing",
        "typing",
        "views",
        "wrappers",
        "werkzeug.datastructures",
    ),
    *("werkzeug.exceptions", "werkzeug.formparser", "werkzeug.http", "werkzeug.routing", "werkzeug.security"),
    *("werkzeug.serving", "werkzeug.test", "werkzeug.urls", "werkzeug.utils", "werkzeug.wrappers"),
    *("werkzeug.wrappers.request", "werkzeug.wrappers.response", "werkzeug.wsgi"),
]


def undocumented(module: str) -> Iterator[str]:
    """The public functions, classes and methods of a module that lack a docstring of their own."""
    import inspect

    module = f"hipflask.{module}"
    loaded = importlib.import_module(module)
    if not loaded.__doc__:
        yield module
    for name, value in vars(loaded).items():
        home = getattr(value, "__module__", None) or ""
        if name.startswith("_") or not (home == module or home.startswith(f"{module}.")):
            continue
        if inspect.isfunction(value) and not value.__doc__:
            yield f"{module}.{name}"
        elif inspect.isclass(value):
            if not value.__dict__.get("__doc__"):
                yield f"{module}.{name}"
            for member, attribute in vars(value).items():
                function = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
                if member.startswith("_") or not inspect.isfunction(function):
                    continue
                if function.__doc__ or attribute.__doc__:
                    continue
                # What overrides a documented method does what that says.
                if not any(
                    getattr(getattr(base, member, None), "__doc__", None) for base in value.__mro__[1:]
                ):
                    yield f"{module}.{name}.{member}"


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_has_a_docstring(module):
    assert list(undocumented(module)) == []


def test_every_export_has_a_docstring():
    import hipflask

    names = [*hipflask._EXPORTS, "install_as_flask"]
    assert [name for name in names if not getattr(hipflask, name).__doc__] == []


def test_the_reference_has_every_export():
    import hipflask

    for name, module in hipflask._EXPORTS.items():
        page = (ROOT / "docs/reference" / f"{module}.md").read_text()
        assert re.search(rf"(?m)^## (class )?`{name}\b", page), f"{name}: run `make docs`"


if __name__ == "__main__":
    names = [Path(name).resolve() for name in sys.argv[2:]]
    for path in names or PAGES:
        with at_work(path) as page:
            path.write_text(page.run())
        print(path.relative_to(ROOT))
