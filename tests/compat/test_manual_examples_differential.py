"""The examples of `test_manual_examples.py` on Flask itself: what they expect of Hipflask is what Flask does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def test_the_examples_hold_on_flask(tmp_path):
    text = (TESTS / "test_manual_examples.py").read_text()
    text = re.sub(r"(?m)^( *from )hipflask\.werkzeug", r"\1werkzeug", text)
    text = re.sub(r"(?m)^( *from )hipflask\b", r"\1flask", text)
    # The engine's doors lead into Hipflask only.
    text = text.replace("params=list(DOORS)", 'params=["client", "wsgi"]')
    assert "hipflask" not in text.partition('"""\n')[2]
    (tmp_path / "test_examples.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_examples.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
