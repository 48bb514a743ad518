"""Gradual unfreezing (Howard & Ruder 2018, ULMFiT): the head first, then one block more from the top at a time.
Without a head the top block is first.

Blocks whose turn has not come stand aside for the length of a forward pass: no gradient, no dropout, and so no state in
the optimiser. Between the passes every weight counts as trained, for checkpoints, for the best weights, and for the
frozen-prefix store, which holds what is below the lowest block that will ever be trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tunesmith.spec.schema import Gradual, Strategy
from tunesmith.tasks.base import Batch
from tunesmith.train.batches import StepBatch
from tunesmith.train.step import Step


def complete_from(strategy: Strategy, has_head: bool) -> int:
    """The epoch, counted from 0, from which everything that a strategy trains is trained."""
    return (strategy.blocks - (not has_head)) * strategy.epochs_per_block if isinstance(strategy, Gradual) else 0


def unfreezing(
    batches: Iterator[StepBatch], step: Step, blocks: Sequence[nn.Module], epochs_per_block: int
) -> tuple[Iterator[StepBatch], Step]:
    """The same batches, and a step that leaves out the blocks whose turn has not come by the epoch of the batch last drawn.

    Args:
        batches: drawn one at a time, each before its step is made.
        step: what is done with a batch.
        blocks: in the order of their turns, the top one first.
        epochs_per_block: block n (from 0) joins after (n + 1) times as many epochs.
    """
    waiting: list[nn.Module] = []

    def following() -> Iterator[StepBatch]:
        for batch in batches:
            waiting[:] = blocks[batch.epoch // epochs_per_block :]
            yield batch

    def without_waiting(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        with _aside(waiting):
            return step(model, batch)

    return following(), without_waiting


@contextmanager
def _aside(blocks: Sequence[nn.Module]) -> Iterator[None]:
    for block in blocks:
        block.requires_grad_(False).eval()
    try:
        yield
    finally:
        for block in blocks:
            block.requires_grad_(True).train()
