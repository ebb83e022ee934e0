"""Seeds of the fuzz targets: `seeds/TARGET.seeds` holds one input a line, odd bytes as `\\xNN`.

python fuzz/seeds.py unpack DIRECTORY     # a folder for each target, as libFuzzer reads them
python fuzz/seeds.py pack DIRECTORY       # and back, from a corpus that `-merge=1` has made small
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

SEEDS = Path(__file__).with_name("seeds")
# A longer one is worth its place in the repository only by hand.
LONGEST = 1000


def unpack(directory: Path) -> None:
    """Write each input into a file of its own."""
    for packed in sorted(SEEDS.glob("*.seeds")):
        folder = directory / packed.stem
        folder.mkdir(parents=True, exist_ok=True)
        for line in packed.read_bytes().splitlines():
            data = re.sub(rb"\\x(..)", lambda escape: bytes.fromhex(escape[1].decode()), line)
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def pack(directory: Path) -> None:
    """Write the files of each folder as lines, the shortest first."""
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        inputs = {path.read_bytes() for path in folder.iterdir()}
        short = sorted((len(data), data) for data in inputs if len(data) <= LONGEST)
        lines = ["".join(map(_escaped, data)) for _, data in short]
        (SEEDS / f"{folder.name}.seeds").write_text("".join(f"{line}\n" for line in lines), "ascii")


def _escaped(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}"


if __name__ == "__main__":
    command, directory = sys.argv[1:]
    {"unpack": unpack, "pack": pack}[command](Path(directory))
