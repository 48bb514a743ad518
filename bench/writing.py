"""Rows written in a second, greedy: finished rows leaving the batch, against plain `generate` on padded batches of several sizes.

Run: python bench/writing.py RUN, with the directory of a finished run that writes texts. One thread; both say the same texts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import polars as pl
import torch

from tunesmith.models.forward import predict_logits
from tunesmith.serve.predictor import load

ROWS, SIZES = 192, (8, 32, 64)


def main(run: Path) -> None:
    """Print a line for each way."""
    torch.set_num_threads(1)
    predictor = load(run)
    rows = pl.read_parquet(run / "data/test.parquet").head(ROWS).select("text")
    encoding = predictor.encoded(rows)
    model, task = predictor.model.eval(), predictor.task
    predict_logits(model, task, encoding.part(range(8)))  # the first pass is slower than those after it
    began = time.perf_counter()
    said = [one.tokens for one, _ in predict_logits(model, task, encoding)]
    ours = len(rows) / (time.perf_counter() - began)
    print(f"here: {ours:.1f} rows/s; {sum(map(len, said)) / len(said):.1f} tokens a row, longest {max(map(len, said))}")
    best = 0.0
    for size in SIZES:
        began = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, len(rows), size):
                batch = task.collate(encoding.rows[start : start + size])
                model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        best = max(best, speed := len(rows) / (time.perf_counter() - began))
        print(f"generate, batches of {size}: {speed:.1f} rows/s")
    print(f"{ours / best:.2f} times generate at its best")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
