"""The examples of Flask's manual, typed in: on Flask and on Hipflask the same comes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PAGES = [
    "api",
    "appcontext",
    "async-await",
    "blueprints",
    "cli",
    "config",
    "errorhandling",
    "extensiondev",
    "lifecycle",
    "logging",
    "quickstart",
    "reqcontext",
    "server",
    "signals",
    "templating",
    "testing",
    "views",
    "web-security",
    "patterns/appdispatch",
    "patterns/appfactories",
    "patterns/celery",
    "patterns/deferredcallbacks",
    "patterns/favicon",
    "patterns/fileuploads",
    "patterns/flashing",
    "patterns/javascript",
    "patterns/lazyloading",
    "patterns/methodoverrides",
    "patterns/mongoengine",
    "patterns/packages",
    "patterns/requestchecksum",
    "patterns/singlepageapplications",
    "patterns/sqlalchemy",
    "patterns/sqlite3",
    "patterns/streaming",
    "patterns/subclassing",
    "patterns/urlprocessors",
    "patterns/viewdecorators",
    "patterns/wtforms",
    "tutorial/blog",
    "tutorial/database",
    "tutorial/factory",
    "tutorial/tests",
    "tutorial/views",
]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_do_the_same(tutorial: Path, tmp_path: Path, page: str) -> None:
    text = tutorial.parents[1] / "docs" / f"{page}.rst"
    outputs = []
    for alias in ({}, {"HIPFLASK_AS_FLASK": "1"}):
        work = tmp_path / f"work-{len(outputs)}"
        # Of the same name for both, since it may be shown.
        (work / "typed").mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(HERE / "type_in.py"), str(text)],
            cwd=work / "typed",
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", **alias},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.replace(str(work), "").splitlines())
    theirs, ours = outputs
    assert theirs
    assert ours == theirs
