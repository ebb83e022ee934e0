"""Types the examples of a page of Flask's manual in, one after the other, and prints what became of each.

Use: python type_in.py PAGE.rst, once with Flask installed and once with `HIPFLASK_AS_FLASK=1`.

Examples are the page's indented blocks that are Python or a Python session. Those of one page share their
names, as for a reader who types all of them into one module; names that a page takes for granted are there.
Each new route without arguments is asked for. Prints one line of JSON for each example: its first line, what
it printed or the error that ended it, and what its routes answered.
"""

from __future__ import annotations

import ast
import code
import contextlib
import io
import json
import os
import re
import sys
import textwrap
import warnings
from typing import Any

#: What the pages take for granted.
GIVEN = """
import os, sys, typing as t, datetime, json
from flask import *
from flask import current_app, g, request, session, blueprints, views
from flask.views import MethodView, View
from markupsafe import Markup, escape
import click, werkzeug
app = Flask(__name__)
app.secret_key = "typed in"
app.testing = True
"""
#: Differs from one run to the next, or between the two.
VARIES = [
    (r"0x[0-9a-f]+", "0x"),
    (r"'?(hip)?flask\.werkzeug\b", "werkzeug"),
    (r"\bhipflask\b", "flask"),
    (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r'File "[^"]*", line \d+', "File"),
]


def examples(page: str) -> list[str]:
    """The indented blocks that are Python."""
    found, block = [], []
    for line in [*page.splitlines(), "end"]:
        if not line.strip() or line.startswith("    "):
            block.append(line)
            continue
        text = textwrap.dedent("\n".join(block)).strip("\n")
        # Options of the directive.
        text = re.sub(r"\A(:\w+:.*\n+)+", "", text)
        block = []
        if not text.strip():
            continue
        if text.startswith((">>>", "$ python")):
            found.append(text[text.find(">>>") :])
            continue
        with contextlib.suppress(SyntaxError, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not all(isinstance(each, ast.Expr) for each in ast.parse(text).body):
                found.append(text)
    return found


def typed(example: str, names: dict[str, Any]) -> str:
    """Run an example; what it printed, and the error that ended it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        if example.startswith(">>>"):
            session = code.InteractiveConsole(names)
            for line in example.splitlines():
                if line.startswith((">>>", "...")):
                    session.push(line[4:])
            session.push("")
        else:
            try:
                exec(compile(example, "manual", "exec"), names)
            except BaseException as error:
                print(told(error))
    return out.getvalue()


def told(error: BaseException) -> str:
    """An error without its advice, which each gives in words of its own."""
    text = "" if type(error).__name__ == "ImportStringError" else str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}"


def answers(names: dict[str, Any], known: set[tuple[int, str]]) -> list[Any]:
    """Ask for each route that has come and needs no arguments."""
    from flask import Flask

    found: list[Any] = []
    for app in [value for value in names.values() if isinstance(value, Flask)]:
        for rule in list(app.url_map.iter_rules()):
            if rule.arguments or (id(app), rule.rule) in known:
                continue
            known.add((id(app), rule.rule))
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                try:
                    response = app.test_client().open(rule.rule, method=method)
                    found.append([rule.rule, method, response.status_code, response.get_data(as_text=True)])
                except Exception as error:
                    found.append([rule.rule, method, told(error)])
    return found


def main() -> None:
    names: dict[str, Any] = {"__name__": "typed"}
    exec(GIVEN, names)
    known: set[tuple[int, str]] = set()
    with open(sys.argv[1]) as page:
        found = examples(page.read())
    for example in found:
        line = json.dumps([example.partition("\n")[0], typed(example, names), answers(names, known)])
        for pattern, same in VARIES:
            line = re.sub(pattern, same, line)
        print(line)


if __name__ == "__main__":
    if os.environ.get("HIPFLASK_AS_FLASK"):
        import hipflask  # noqa: F401
    main()
