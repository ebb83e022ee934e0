"""Files that tests write."""

from __future__ import annotations

from pathlib import Path


def write(folder: Path, **files: str) -> None:
    """Write templates below a folder: `pages__index="..."` becomes `pages/index.html`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
