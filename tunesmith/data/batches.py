"""Which rows go through the model together: rows of similar length, so that little is padding."""

from __future__ import annotations

import random
from collections.abc import Sequence

WINDOW_BATCHES = 512


def length_batches(lengths: Sequence[int], batch_size: int, seed: int | None) -> list[list[int]]:
    """Batches of row numbers, each row exactly once, at most `batch_size` rows each.

    With a seed, for training: rows are shuffled, cut into windows of 512 batches, sorted by length inside a window, cut
    into batches, and the batches shuffled. Without a seed, for prediction: longest first, so that memory peaks at once.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    rows = list(range(len(lengths)))
    if seed is None:
        rows.sort(key=lambda row: (-lengths[row], row))
        return _cut(rows, batch_size)
    shuffle = random.Random(seed)
    shuffle.shuffle(rows)
    window = batch_size * WINDOW_BATCHES
    batches = [
        batch
        for start in range(0, len(rows), window)
        for batch in _cut(sorted(rows[start : start + window], key=lengths.__getitem__), batch_size)
    ]
    shuffle.shuffle(batches)
    return batches


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
