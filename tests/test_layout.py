"""How the repository is laid out: which crate knows which, how long files are, what they do not mention."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hipflask

ROOT = Path(__file__).resolve().parent.parent
CRATES = ROOT / "crates"

#: The arrows of crates/README.md, and what else each crate needs; tests may use more.
EDGES = {
    "hipflask-http": {"base64", "memchr", "sha1", "zlib-rs"},
    "hipflask-router": set(),
    "hipflask-server": {
        *("hipflask-http", "brotli", "bytes", "h2", "http", "libc", "rcgen", "rustls", "tokio"),
        *("zlib-rs", "zstd"),
    },
    "hipflask-py": {
        *("hipflask-http", "hipflask-router", "hipflask-server", "pyo3"),
        *("base64", "hmac", "libc", "memchr", "sha1"),
    },
    "hipflask": {"hipflask-py", "libc", "pyo3"},
}

#: What touches more than bytes. (An IPv6 address is read as text, so `std::net` as such is not among them.)
OUTSIDE = re.compile(r"std::(net::(Tcp|Udp)|thread|fs|process|os)\b|Instant::now|\bunsafe\b")

#: Hosts that configuration may name: where the tools come from and where the project's manual points.
HOSTS = {"github.com", "rustup.rs", "sh.rustup.rs", "keepachangelog.com", "semver.org"}


def tracked() -> list[Path]:
    """The files that belong to the project: what git keeps, else what lies in its folders."""
    try:
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git working tree")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    """Each tracked text file's name and content, save inputs of tests and what programs write."""
    found = []
    for path in tracked():
        if path.suffix not in (".http", ".lock", ".seeds"):
            try:
                found.append((str(path.relative_to(ROOT)), path.read_text()))
            except UnicodeDecodeError:
                continue
    return found


def manifest(crate: str) -> dict:
    tomllib = pytest.importorskip("tomllib", reason="CPython 3.11 and newer have it")
    return tomllib.loads((CRATES / crate / "Cargo.toml").read_text())


@pytest.mark.parametrize("crate", list(EDGES))
def test_a_crate_knows_only_what_the_drawing_allows(crate: str) -> None:
    read = manifest(crate)
    per_target = [table.get("dependencies", {}) for table in read.get("target", {}).values()]
    assert set(read.get("dependencies", {})).union(*per_target) == EDGES[crate]


def test_every_crate_is_drawn() -> None:
    assert {path.parent.name for path in CRATES.glob("*/Cargo.toml")} == set(EDGES)
    drawing = (CRATES / "README.md").read_text()
    assert [crate for crate in EDGES if crate not in drawing] == []


@pytest.mark.parametrize("crate", list(EDGES))
def test_a_crate_names_no_other_in_its_source(crate: str) -> None:
    allowed = {name.replace("-", "_") for name in EDGES[crate]} | {crate.replace("-", "_")}
    for path in CRATES.glob(f"{crate}/src/**/*.rs"):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))
        named = set(re.findall(r"\b(hipflask_(?:http|router|server|py)|pyo3)::", code))
        assert named <= allowed, path.name


@pytest.mark.parametrize("crate", ["hipflask-http", "hipflask-router"])
def test_the_protocol_sees_no_socket_clock_or_thread(crate: str) -> None:
    for path in CRATES.glob(f"{crate}/src/**/*.rs"):
        code = path.read_text().partition("#[cfg(test)]")[0]
        code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("//"))
        assert not OUTSIDE.search(code), path.name


def test_no_file_is_longer_than_1200_lines() -> None:
    # The reference is written by docs/build_reference.py.
    counts = {name: text.count("\n") for name, text in texts() if not name.startswith("docs/reference/")}
    assert {name: count for name, count in counts.items() if count > 1200} == {}


def test_no_merge_was_left_half_done() -> None:
    marks = tuple(mark * 7 + " " for mark in "<>")
    assert [name for name, text in texts() if any(line.startswith(marks) for line in text.splitlines())] == []


def test_nothing_names_the_machine_that_it_was_made_on() -> None:
    places = [f"{ROOT}/", f"{Path.home()}/.", f"{sys.prefix}/"]
    assert [name for name, text in texts() if any(place in text for place in places)] == []


def test_crates_come_from_the_public_registry() -> None:
    for path in (ROOT / "Cargo.lock", ROOT / "fuzz" / "Cargo.lock"):
        sources = set(re.findall(r'^source = "(.*)"$', path.read_text(), re.MULTILINE))
        assert sources <= {"registry+https://github.com/rust-lang/crates.io-index"}, path


def test_configuration_names_no_registry() -> None:
    for path in tracked():
        if path.suffix in (".toml", ".txt", ".cfg", ".yml") or path.name in ("Makefile", "run"):
            hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text()))
            assert hosts <= HOSTS, path
            assert not re.search(r"index-url|replace-with|\[source\.", path.read_text()), path


def test_no_work_is_left_as_a_note() -> None:
    marks = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
    assert [name for name, text in texts() if marks.search(text)] == []


def test_every_python_module_says_what_it_is() -> None:
    silent = []
    for path in [*(ROOT / "python").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if not docstring and path.read_text().strip():
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def public_definitions(scope: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The public classes and functions of a module or class, without overloads and setters."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            if not any(mark.endswith((".setter", ".deleter", "overload")) for mark in marks):
                yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", inner) for name, inner in public_definitions(node))


def test_every_public_function_says_what_it_does() -> None:
    silent = []
    for path in (ROOT / "python").rglob("*.py"):
        for name, node in public_definitions(ast.parse(path.read_text())):
            if not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}: {name}")
    assert silent == []


def test_what_a_module_exports_is_there() -> None:
    for module in pkgutil.walk_packages(hipflask.__path__, "hipflask."):
        if module.name.endswith(("__main__", "pytest_alias")):
            continue
        loaded = importlib.import_module(module.name)
        names = getattr(loaded, "__all__", ())
        assert [name for name in names if not hasattr(loaded, name)] == [], module.name


def test_nothing_imports_the_real_flask() -> None:
    for path in (ROOT / "python").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & {"flask", "werkzeug"}, path


def test_a_program_that_imports_hipflask_imports_no_flask() -> None:
    code = "import sys, hipflask; hipflask.Flask(__name__); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert {"flask", "werkzeug"}.isdisjoint(printed.split())
