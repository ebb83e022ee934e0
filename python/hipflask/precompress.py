"""The command `hipflask compress`: static files compressed beforehand, for the server to send.

The server's setting `precompressed` says how they are used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from . import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

#: By coding, what the name of a compressed file ends with.
_ENDINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

#: Files that become smaller: text, and binary formats that are not compressed by themselves.
_WORTHWHILE = {
    *(".atom", ".bmp", ".cjs", ".css", ".csv", ".eot", ".geojson", ".htm", ".html", ".ico", ".js", ".json"),
    *(".jsonld", ".map", ".md", ".mjs", ".otf", ".rss", ".svg", ".toml", ".tsv", ".ttf", ".txt", ".wasm"),
    *(".webmanifest", ".xhtml", ".xml", ".yaml", ".yml"),
}


def compressed(path: str, coding: str, least: int = 1024) -> int | None:
    """Compress one file, unless it has been since it was changed.

    Args:
        path: Of the file.
        coding: `br`, `zstd` or `gzip`.
        least: Files below this size, in bytes, are left alone.

    Returns:
        The size of the result; None if there is none: it would not be a tenth smaller, or the file is
        too short. One that is there from before is removed then.
    """
    about = os.stat(path)
    sibling = path + _ENDINGS[coding]
    try:
        there = os.stat(sibling)
    except FileNotFoundError:
        there = None
    if there is not None and there.st_mtime_ns == about.st_mtime_ns:
        return there.st_size
    if about.st_size >= least:
        with open(path, "rb") as file:
            small = _core.compress(file.read(), coding)
        if len(small) < about.st_size * 0.9:
            # Whole or not at all, as the server may be sending the old one.
            unfinished = f"{sibling}.{os.getpid()}"
            with open(unfinished, "wb") as file:
                file.write(small)
            os.chmod(unfinished, about.st_mode & 0o777)
            os.utime(unfinished, ns=(about.st_atime_ns, about.st_mtime_ns))
            os.replace(unfinished, sibling)
            return len(small)
    if there is not None:
        os.unlink(sibling)
    return None


def worthwhile(directory: str) -> Iterator[str]:
    """Find files below a directory that compression makes smaller, by their names. Links are not followed."""
    for folder, _, names in os.walk(directory):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.splitext(name)[1].lower() in _WORTHWHILE and not os.path.islink(path):
                yield path


@click.command("compress", short_help="Compress static files beforehand.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--coding",
    "codings",
    type=click.Choice(list(_ENDINGS)),
    multiple=True,
    help="Which forms to make; all if not given.",
)
@click.option("--min-size", default=1024, show_default=True, help="Leave shorter files alone.")
def compress_command(directory: str, codings: tuple[str, ...], min_size: int) -> None:
    """Write compressed forms beside the files below DIRECTORY, for the server to send to who takes them.

    Those that are there and as old as their file are kept.
    """
    from concurrent.futures import ThreadPoolExecutor

    codings = codings or tuple(_ENDINGS)
    total, sums, count = 0, dict.fromkeys(codings, 0), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            (path, [pool.submit(compressed, path, coding, min_size) for coding in codings])
            for path in worthwhile(directory)
        ]
        for path, results in jobs:
            sizes = [result.result() for result in results]
            if any(size is not None for size in sizes):
                count += 1
                plain = os.path.getsize(path)
                total += plain
                for coding, size in zip(codings, sizes, strict=True):
                    sums[coding] += plain if size is None else size
    shares = (
        ", ".join(f"{coding} {100 * size / total:.0f} %" for coding, size in sums.items()) if total else ""
    )
    click.echo(f"{count} files, {total} bytes" + (f": {shares}" if shares else ""))
