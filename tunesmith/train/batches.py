"""The order of training: every epoch's batches, from the seed alone, so that a resumed run sees what an unbroken one would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith.core.seeding import seed_for
from tunesmith.data.batches import length_batches
from tunesmith.tasks.base import Batch


@dataclass(frozen=True)
class StepBatch:
    """The micro-batches of one optimiser step, and where it stands."""

    epoch: int
    ends_epoch: bool
    pieces: tuple[Batch, ...]
    tokens: int


@dataclass(frozen=True)
class Order:
    """What decides the order. `lengths` are token counts of the training rows; `pieces` is gradient_accumulation_steps."""

    lengths: Sequence[int]
    batch_size: int
    epochs: int
    pieces: int
    seed: int

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
        return length_batches(self.lengths, self.batch_size, seed_for(self.seed, f"order of epoch {epoch}"))


def step_batches(order: Order, collate: Callable[[list[int]], Batch], done: int = 0) -> Iterator[StepBatch]:
    """The StepBatches after the first `done` steps. `collate` makes a batch of row numbers."""
    first_epoch, skipped = divmod(done, order.steps_per_epoch)
    for epoch in range(first_epoch, order.epochs):
        batches = order.epoch_rows(epoch)
        for number in range(skipped, len(batches)):
            rows = batches[number]
            size = -(-len(rows) // order.pieces)
            pieces = tuple(collate(rows[at : at + size]) for at in range(0, len(rows), size))
            yield StepBatch(epoch, number == len(batches) - 1, pieces, sum(order.lengths[row] for row in rows))
        skipped = 0
