"""Flask's API on a Rust engine."""

from . import _bootstrap as _bootstrap
