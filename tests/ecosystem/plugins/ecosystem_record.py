"""A pytest plugin that writes each test's outcome to the file named by `ECOSYSTEM_RECORD`, as it happens.

A line is an outcome, a tab and the test's id; of several lines for one test the last that is not `passed`
counts.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

_OUTCOMES = open(os.environ["ECOSYSTEM_RECORD"], "a", buffering=1)  # noqa: SIM115  (open as long as the process)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: Any) -> None:
    """Note a test's call, and its set-up or tear-down where they did not pass."""
    if report.when == "call" or report.outcome != "passed":
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        elif report.failed and report.when != "call":
            outcome = "error"
        _OUTCOMES.write(f"{outcome}\t{report.nodeid}\n")


def pytest_collectreport(report: Any) -> None:
    """Note a file that could not be collected: its tests are missing for that reason."""
    if report.failed:
        _OUTCOMES.write(f"error\t{report.nodeid} (collection)\n")


def pytest_unconfigure() -> None:
    """Leave no open file behind for suites that count those."""
    _OUTCOMES.close()
