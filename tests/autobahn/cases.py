"""The cases of the Autobahn testsuite, run by kosoku against a server.

kosoku 0.1.0 hands the compression cases a message that came uncompressed as text, which they cannot take. RFC
7692 (6.1) lets a server send such messages, and ours does so with short ones: here they become bytes.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from kosoku import FailureError, _caseindex, run_fuzzingclient

#: The sections, as the testsuite names them.
SECTIONS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "close",
    "9": "large and many messages",
    "10": "fragments of our own",
    "12": "compression of different data",
    "13": "compression with different parameters",
}
#: What takes minutes: large messages, and a thousand compressed messages in each case.
SLOW = ["9.*", "12.*", "13.*"]


def run_cases(url: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Any]:
    """Run the cases and give each one's result, whatever it is."""
    _mend()

    async def run() -> list[Any]:
        try:
            return await run_fuzzingclient(url, list(include) or None, list(exclude) or None, concurrency=4)
        except FailureError as failure:
            return failure.results

    return asyncio.run(run())


def failures(results: list[Any]) -> list[str]:
    """What did not pass, or was left undone: 'case: what it did, how it closed, why'."""
    return [
        f"{row.case_id}: {row.behavior.value}, {row.behavior_close.value}: {row.result} {row.result_close}"
        for row in results
        if not row.passed or row.behavior.value == "UNIMPLEMENTED"
    ]


def _mend() -> None:
    _caseindex.initialize_shims()
    module = importlib.import_module("case12_x_x")
    for case in (*module.Case12_X_X, *module.Case13_X_X):
        if not hasattr(case.onMessage, "__wrapped__"):
            case.onMessage = _taking_bytes(case.onMessage)


def _taking_bytes(on_message: Callable[[Any, Any, bool], None]) -> Callable[[Any, Any, bool], None]:
    @wraps(on_message)
    def wrapped(self: Any, message: Any, binary: bool) -> None:
        if isinstance(message, str):
            message = message.encode("latin-1" if binary else "utf-8")
        on_message(self, message, binary)

    return wrapped
