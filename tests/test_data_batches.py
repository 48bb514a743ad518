"""Batches by length: every row exactly once, and reproducible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.batches import length_batches


@given(lengths=st.lists(st.integers(1, 512), max_size=300), size=st.integers(1, 40), seed=st.none() | st.integers(0, 99))
def test_every_row_exactly_once(lengths: list[int], size: int, seed: int | None) -> None:
    batches = length_batches(lengths, size, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)
    assert len(batches) == -(-len(lengths) // size)
    assert batches == length_batches(lengths, size, seed)


@given(lengths=st.lists(st.integers(1, 512), min_size=1, max_size=300), size=st.integers(1, 40))
def test_prediction_goes_longest_first(lengths: list[int], size: int) -> None:
    flat = [lengths[row] for batch in length_batches(lengths, size, None) for row in batch]
    assert flat == sorted(lengths, reverse=True)


def test_training_pads_little_and_differs_by_seed() -> None:
    lengths = [1 + (n * 7919) % 100 for n in range(4096)]
    batches = length_batches(lengths, 32, 0)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded / sum(lengths) < 1.05
    assert batches != length_batches(lengths, 32, 1)
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest != sorted(longest)


def test_a_batch_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        length_batches([1], 0, None)
