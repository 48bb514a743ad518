"""Seconds and peak memory of loading, cleaning and splitting a generated table of short rows.

    python bench/rows.py [ROWS]          default 1,000,000

The work runs in a process of its own, whose peak resident memory is that of the whole job. Exit code 1 when it took
60 s or 2 GB or more.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS, MEGABYTES = 60.0, 2000.0
WORDS = ["card", "money", "refund", "late", "please", "why", "does", "not", "work", "account", "transfer", "today", "wrong", "café", "app"]
WORK = """
import sys, resource
from tunesmith.data.prepare import prepare
from tunesmith.spec.load import load_spec
prepared = prepare(load_spec({"name": "rows", "data": {"train": sys.argv[1]}}))
rows = prepared.profile["rows"]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
print(peak, rows["read"], rows["train"], rows["validation"], rows["test"], rows["dropped"])
"""


def generate(path: Path, rows: int) -> None:
    """Write a CSV of short texts with 20 labels; about 1 % are duplicates, a few are empty."""
    stream = random.Random(0)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write("id,text,label\n")
        for number in range(rows):
            content = number if stream.random() > 0.01 else number // 2
            words = " ".join(stream.choices(WORDS, k=8))
            text = "" if number % 5000 == 1 else f'"{words}, {content}"' if content == number else f"the same text {content // 100}"
            file.write(f"{number},{text},label {stream.randrange(20)}\n")


def main() -> int:
    """Exit code: 0 when the job stayed within both limits."""
    rows = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        generate(path, rows)
        size = path.stat().st_size / 1e6
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", WORK, str(path)], capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak, *counts = done.stdout.split()
    print(f"{rows:,} rows ({size:.0f} MB): {seconds:.1f} s, peak {float(peak):.0f} MB")
    print("read {}, train {}, validation {}, test {}, dropped {}".format(*counts))
    return 0 if seconds < SECONDS and float(peak) < MEGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
