"""Print what codings and levels make of pages, data and scripts, and how long they take.

usage: compression.py

Each sample is cut to sizes between 1 KiB and 1 MiB and compressed as a whole by the server's encoders; the
time is the least of several. The table of docs/architecture.md comes from here.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from pathlib import Path

from peers import ROOT

SIZES = {"1 KiB": 1 << 10, "10 KiB": 10 << 10, "100 KiB": 100 << 10, "1 MiB": 1 << 20}


def samples() -> dict[str, bytes]:
    """Texts of at least the largest size: records, a page of them, and the source of a program."""
    chance = random.Random(7)
    words = Path(ROOT, "docs/quickstart.md").read_text().split()
    records = [
        {
            "id": number,
            "name": " ".join(chance.choices(words, k=3)),
            "email": f"{chance.choice(words).lower()}@example.org",
            "price": round(chance.uniform(1, 500), 2),
            "active": chance.random() < 0.7,
            "tags": chance.sample(["new", "sale", "used", "rare", "large"], 2),
            "text": " ".join(chance.choices(words, k=12)),
        }
        for number in range(6000)
    ]
    rows = "\n".join(
        f'  <tr class="row"><td><a href="/items/{r["id"]}">{r["name"]}</a></td><td>{r["price"]}</td>'
        f'<td class="text">{r["text"]}</td></tr>'
        for r in records
    )
    source = b"\n".join(path.read_bytes() for path in sorted(Path(ROOT, "python/hipflask").rglob("*.py")))
    return {
        "json": json.dumps(records).encode(),
        "html": f"<!doctype html>\n<html><head><title>Items</title></head><body><table>\n{rows}".encode(),
        "source": source,
    }


def main() -> None:
    """Make the samples, compress, print one table for each size."""
    command = ["cargo", "run", "--release", "--quiet", "-p", "hipflask-server", "--example", "levels", "--"]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in samples().items():
            for label, size in SIZES.items():
                Path(folder, f"{name}-{label.replace(' ', '')}").write_bytes(text[:size])
        paths = [
            str(Path(folder, f"{name}-{label.replace(' ', '')}")) for label in SIZES for name in samples()
        ]
        output = subprocess.run([*command, *paths], cwd=ROOT, check=True, capture_output=True, text=True)
    rows: dict = {}
    for line in output.stdout.splitlines():
        name, coding, level, before, after, micros = line.split()
        kind, _, size = name.partition("-")
        rows.setdefault((size, coding, int(level)), {})[kind] = (
            100 * int(after) / int(before),
            float(micros),
        )
    kinds = list(samples())
    for size in dict.fromkeys(size for size, _, _ in rows):
        print(f"\n{size:18}" + "".join(f"{kind:>22}" for kind in kinds) + "   (% of the size, µs)")
        for (row_size, coding, level), found in rows.items():
            if row_size == size:
                cells = "".join(f"{found[kind][0]:11.1f}{found[kind][1]:11.0f}" for kind in kinds)
                print(f"{coding:>8} {level:<9}{cells}")


if __name__ == "__main__":
    main()
