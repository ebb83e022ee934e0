"""Blueprints with what serving needs: static files and resources.

Implements `flask.blueprints` (3.1).
"""

from __future__ import annotations

import os

from .helpers import send_from_directory
from .sansio.blueprints import Blueprint as SansioBlueprint
from .sansio.blueprints import BlueprintSetupState as BlueprintSetupState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from .app import Flask
    from .wrappers import Response


class Blueprint(SansioBlueprint):
    """Routes, hooks, handlers, templates and static files that an app takes as one.

    Implements: flask.Blueprint (3.1).
    """

    def send_static_file(self, filename: str) -> Response:
        """The view of the static files' rule.

        Raises:
            RuntimeError: If there is no static folder.
            NotFound: If there is no such file, or it is a link that leads out of the folder.
        """
        return _send_static_file(self, filename)

    def open_resource(self, resource: str, mode: str = "rb", encoding: str | None = "utf-8") -> IO[Any]:
        """Open a file for reading, relative to the blueprint's root.

        Raises:
            ValueError: For a mode other than `"r"`, `"rt"` and `"rb"`.
        """
        return _open_resource(self.root_path, resource, mode, encoding)


def _send_static_file(owner: Flask | Blueprint, filename: str) -> Response:
    """Respond with a file of an app's or blueprint's static folder."""
    folder = owner.static_folder
    if folder is None:
        raise RuntimeError("'static_folder' must be set to serve static_files.")
    # The engine, which sends most of these files itself, follows no link out of the folder either.
    try:
        real = os.path.realpath(os.path.join(folder, filename))
    except ValueError:
        # A NUL in the name.
        real = ""
    if not real.startswith(os.path.join(os.path.realpath(folder), "")):
        from .werkzeug.exceptions import NotFound

        raise NotFound()
    return send_from_directory(folder, filename, max_age=owner.get_send_file_max_age(filename))


def _open_resource(root: str, resource: str, mode: str, encoding: str | None) -> IO[Any]:
    if mode not in {"r", "rt", "rb"}:
        raise ValueError("Resources can only be opened for reading.")
    path = os.path.join(root, resource)
    if mode == "rb":
        return open(path, mode)
    return open(path, mode, encoding=encoding)
