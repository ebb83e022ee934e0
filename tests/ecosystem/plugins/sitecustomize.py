"""Lets every interpreter that a suite starts, a subprocess too, serve Hipflask as `flask` when asked to.

`HIPFLASK_AS_FLASK=1` asks; without it Hipflask is not even imported.
"""

import os

if os.environ.get("HIPFLASK_AS_FLASK") == "1":
    import hipflask  # noqa: F401
