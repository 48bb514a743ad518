"""Peak memory of `predict` on files of growing size, with a tiny model made in memory: it must not grow with the file.

python bench/predict.py [--rows 50000 200000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def prepare(folder: Path) -> None:
    """A finished run of a tiny model."""
    import tunesmith
    from tests import tiny

    model = tiny.save_pretrained(folder / "model")
    tunesmith.fit(tiny.table(90), target="label", model=str(model), strategy="features", resamples=100, name="tiny", runs=folder)


def measure(folder: Path, rows: int) -> None:
    """Predict a table of that many rows and print seconds and peak memory."""
    import tunesmith

    table = folder / "new.csv"
    with open(table, "w", encoding="utf-8") as file:
        file.write("text,number\n")
        file.writelines(f"my parcel number {n} is late and my card was charged,{n}\n" for n in range(rows))
    predictor = tunesmith.load(folder / "tiny")
    started = time.perf_counter()
    predictor.predict_file(str(table), folder / "out.parquet", 3, lambda _rows: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows:>9,} rows  {table.stat().st_size / 2**20:7.1f} MiB  {time.perf_counter() - started:7.1f} s  peak {peak:6.0f} MiB",
        flush=True,
    )


def main() -> None:
    """One process per size, so that each has a peak of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.folder:
        measure(options.folder, options.rows[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for rows in options.rows:
            subprocess.run([sys.executable, __file__, "--rows", str(rows), "--folder", folder], check=True)


if __name__ == "__main__":
    main()
