"""Seeds of the fuzz targets: `seeds/TARGET.txt` holds one input a line, escaped as in Python's bytes literals.

    python fuzz/seeds.py unpack DIRECTORY     # one folder a target with one file an input, as libFuzzer reads them
    python fuzz/seeds.py pack DIRECTORY       # and back, from a corpus that `cargo fuzz cmin` or `-merge=1` has made small
"""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path

SEEDS = Path(__file__).with_name("seeds")
# A longer one is worth its place in the repository only by hand.
LONGEST = 1000


def unpack(directory: Path) -> None:
    for packed in sorted(SEEDS.glob("*.txt")):
        folder = directory / packed.stem
        folder.mkdir(parents=True, exist_ok=True)
        for line in packed.read_text("ascii").splitlines():
            data = ast.literal_eval(f'b"{line}"')
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def pack(directory: Path) -> None:
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        inputs = {path.read_bytes() for path in folder.iterdir()}
        lines = [
            repr(b"'" + data)[3:-1].replace('\\"', '"').replace('"', '\\"')
            for data in sorted(inputs, key=lambda data: (len(data), data))
            if len(data) <= LONGEST
        ]
        (SEEDS / f"{folder.name}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")


if __name__ == "__main__":
    command, directory = sys.argv[1:]
    {"unpack": unpack, "pack": pack}[command](Path(directory))
