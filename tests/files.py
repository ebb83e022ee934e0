"""Files that tests write."""

from __future__ import annotations


def write(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name.replace('__', '/')}.html").write_text(text)
