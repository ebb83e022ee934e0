"""How many generated examples a test tries.

The examples are the same in each run, so that a change fails for what it changed. `HIPFLASK_EXAMPLES=20`
tries twenty times as many, and others each time.
"""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = int(os.environ.get("HIPFLASK_EXAMPLES", "1"))


def examples(number: int) -> settings:
    """The settings of a test that tries `number` examples, or as many times more as the environment says."""
    return settings(max_examples=number * FACTOR, deadline=None, derandomize=FACTOR == 1, database=None)
