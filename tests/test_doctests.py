"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parent.parent / "python"
MODULES = [
    ".".join(path.relative_to(PYTHON).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PYTHON.rglob("*.py"))
    if any(line.lstrip().startswith(">>> ") for line in path.read_text().splitlines())
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
