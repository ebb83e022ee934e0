"""A pytest plugin that serves Hipflask as `flask` before other plugins are loaded.

Use: `pytest -p hipflask.pytest_alias`, or the same in `addopts`. Plugins named by `-p` come before those that
installed distributions register, which is early enough for plugins that import `flask` themselves.
"""

from .alias import install_as_flask

install_as_flask()
