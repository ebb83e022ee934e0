"""Flask's API on a Rust engine."""

import os as _os

from . import _bootstrap as _bootstrap
from .alias import install_as_flask as install_as_flask

if _os.environ.get("HIPFLASK_AS_FLASK", "0") not in ("", "0"):
    install_as_flask()
