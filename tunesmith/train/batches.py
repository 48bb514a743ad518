"""The order of training: every epoch's batches, from the seed alone, so that a resumed run sees what an unbroken one would."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tunesmith.core.seeding import seed_for
from tunesmith.data.balance import Sampling, epoch_order
from tunesmith.data.batches import length_batches
from tunesmith.tasks.base import Batch

Item = TypeVar("Item")


@dataclass(frozen=True)
class StepBatch:
    """The micro-batches of one optimiser step, and where it stands."""

    epoch: int
    ends_epoch: bool
    pieces: tuple[Batch, ...]
    tokens: int


@dataclass(frozen=True)
class Order:
    """What decides the order. `lengths` are token counts of the training rows; `pieces` is gradient_accumulation_steps.

    Each run of `together` rows of a batch is in one piece. With `sampling`, an epoch draws as many rows as there are, by
    their class ids in `targets_N`: rare ones several times.
    """

    lengths: Sequence[int]
    batch_size: int
    epochs: int
    pieces: int
    seed: int
    sampling: Sampling | None = None
    targets_N: np.ndarray | None = None
    together: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch; the last batch may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.steps_per_epoch * self.epochs

    def epoch_rows(self, epoch: int) -> list[list[int]]:
        """Row numbers of each batch of an epoch (counted from 0)."""
        seed = seed_for(self.seed, f"order of epoch {epoch}")
        if self.sampling is None or self.targets_N is None:
            return length_batches(self.lengths, self.batch_size, seed)
        drawn = epoch_order(self.targets_N, self.sampling, self.seed, epoch).tolist()
        batches = length_batches([self.lengths[row] for row in drawn], self.batch_size, seed)
        return [[drawn[place] for place in batch] for batch in batches]


def step_batches(order: Order, collate: Callable[[list[int]], Batch], done: int = 0) -> Iterator[StepBatch]:
    """The StepBatches after the first `done` steps. `collate` makes a batch of row numbers."""
    first_epoch, skipped = divmod(done, order.steps_per_epoch)
    for epoch in range(first_epoch, order.epochs):
        batches = order.epoch_rows(epoch)
        for number in range(skipped, len(batches)):
            rows = batches[number]
            size = order.together * -(-len(rows) // (order.pieces * order.together))
            pieces = tuple(collate(rows[at : at + size]) for at in range(0, len(rows), size))
            yield StepBatch(epoch, number == len(batches) - 1, pieces, sum(order.lengths[row] for row in rows))
        skipped = 0


def ahead(items: Iterator[Item], count: int = 2) -> Iterator[Item]:
    """The same items, up to `count` of them made beforehand by a thread: no step waits for collation or for the disk."""
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = deque(pool.submit(next, items, None) for _ in range(count))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item
