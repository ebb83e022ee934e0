"""The manual's examples and patterns on Flask itself: what they expect of Hipflask is what Flask does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent

#: The fixture of `tests/conftest.py`, which imports Hipflask, with the doors that lead into any app.
CONFTEST = """
import pytest
from doors import DOORS, Client

@pytest.fixture(params=["client", "wsgi"])
def through(request):
    opened = []

    def open_client(app, **options):
        opened.append(Client(app, DOORS[request.param], **options))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()
"""


@pytest.mark.parametrize("name", ["test_manual_examples.py", "test_manual_patterns.py"])
def test_the_examples_hold_on_flask(tmp_path, name):
    text = (TESTS / name).read_text()
    text = re.sub(r"(?m)^( *from )hipflask\.werkzeug", r"\1werkzeug", text)
    text = re.sub(r"(?m)^( *from )hipflask\b", r"\1flask", text)
    assert "hipflask" not in text.split('"""\n', 1)[1]
    (tmp_path / name).write_text(text)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
