"""Thousands of requests of every kind leave nothing behind: the short form of `make soak`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benches"))

from soak import compare


def test_requests_of_every_kind_leave_nothing_behind():
    # A request that left one object would leave 3,000.
    for first, last in compare(early=1000, requests=4000):
        assert last["objects"] < first["objects"] + 500
        assert last["blocks"] < first["blocks"] + 2500
        assert last["descriptors"] <= first["descriptors"] + 2
        assert last["threads"] <= first["threads"] + 32
