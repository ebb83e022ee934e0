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

    from .wrappers import Response


class Blueprint(SansioBlueprint):
    """Routes, hooks, handlers, templates and static files that an app takes as one.

    Implements: flask.Blueprint (3.1).
    """

    def send_static_file(self, filename: str) -> Response:
        """The view of the static files' rule.

        Raises:
            RuntimeError: If there is no static folder.
        """
        if not self.has_static_folder:
            raise RuntimeError("'static_folder' must be set to serve static_files.")
        assert self.static_folder is not None
        max_age = self.get_send_file_max_age(filename)
        return send_from_directory(self.static_folder, filename, max_age=max_age)

    def open_resource(self, resource: str, mode: str = "rb", encoding: str | None = "utf-8") -> IO[Any]:
        """Open a file for reading, relative to the blueprint's root.

        Raises:
            ValueError: For a mode other than `"r"`, `"rt"` and `"rb"`.
        """
        return _open_resource(self.root_path, resource, mode, encoding)


def _open_resource(root: str, resource: str, mode: str, encoding: str | None) -> IO[Any]:
    if mode not in {"r", "rt", "rb"}:
        raise ValueError("Resources can only be opened for reading.")
    path = os.path.join(root, resource)
    if mode == "rb":
        return open(path, mode)
    return open(path, mode, encoding=encoding)
