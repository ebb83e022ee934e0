"""The arrows of crates/README.md: which crate may know which, and who may know Python."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: What each crate depends on, beside the standard library; tests may use more.
ARROWS = {
    "hipflask-http": {"memchr"},
    "hipflask-router": set(),
    "hipflask-server": {"hipflask-http", "libc"},
}


def dependencies(crate: str) -> set[str]:
    """The names in the `[dependencies]` tables of a crate's manifest."""
    text = (ROOT / "crates" / crate / "Cargo.toml").read_text()
    tables = re.findall(r"(?m)^\[([^\]\n]*)\]\n((?:(?!\[).*\n?)*)", text)
    return {
        name
        for title, body in tables
        if title.split(".")[-1] == "dependencies"
        for name in re.findall(r"(?m)^([\w-]+)(?=[.\s]*[\w.]*\s*=)", body)
    }


@pytest.mark.parametrize("crate", list(ARROWS))
def test_a_crate_knows_only_what_the_drawing_allows(crate):
    assert dependencies(crate) == ARROWS[crate]


def test_only_one_crate_knows_python():
    assert "pyo3" in dependencies("hipflask-py")
    knowing = {
        path.relative_to(ROOT / "crates").parts[0]
        for path in (ROOT / "crates").glob("*/**/*.rs")
        if "pyo3" in path.read_text()
    }
    assert knowing == {"hipflask-py"}


@pytest.mark.parametrize("crate", ["hipflask-http", "hipflask-router"])
def test_the_protocol_and_the_rules_see_no_socket_clock_or_thread(crate):
    found = {
        f"{path.name}: {match}"
        for path in (ROOT / "crates" / crate / "src").glob("**/*.rs")
        for match in re.findall(
            r"std::(?:thread|fs|process|os)\b|\b(?:TcpStream|TcpListener|UdpSocket)\b|\bInstant::now|SystemTime::now",
            path.read_text(),
        )
    }
    assert found == set()


def test_the_package_imports_neither_flask_nor_werkzeug():
    pattern = re.compile(r"(?m)^\s*(?:import|from) (?:flask|werkzeug)\b")
    files = list((ROOT / "python").glob("**/*.py"))
    assert len(files) > 50
    assert [str(path) for path in files if pattern.search(path.read_text())] == []


def test_a_program_that_imports_hipflask_imports_no_flask():
    import subprocess

    code = "import sys, hipflask; hipflask.Flask(__name__); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert {"flask", "werkzeug"}.isdisjoint(printed.split())
