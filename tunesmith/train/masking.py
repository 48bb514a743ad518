"""Tokens that are masked anew at every step, and a step whose output layer reads these alone: for fill-mask.

Shape suffixes: B = rows of a piece, T = tokens, M = tokens that may be masked, R = rows of a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.core.seeding import seed_for
from tunesmith.tasks.base import Batch
from tunesmith.tasks.fill_mask import MASKABLE, VOCABULARY
from tunesmith.tasks.masking import IGNORED, Vocabulary, masked, only_at, places_of
from tunesmith.train.batches import StepBatch
from tunesmith.train.shapes import few_rows
from tunesmith.train.step import Step


def masked_anew(batches: Iterable[StepBatch], probability: float, seed: int, done: int = 0) -> Iterator[StepBatch]:
    """The batches with masks, and the hidden tokens as `labels`. All from the seed and the step's number and over the tokens of the whole
    step, so that neither resuming nor the number of pieces nor padding changes it."""
    for number, group in enumerate(batches, start=done + 1):
        draw = np.random.Generator(np.random.PCG64(seed_for(seed, f"masks of step {number}")))
        drawn_V = group.pieces[0][VOCABULARY].numpy()
        ids_M = np.concatenate([piece["input_ids"][piece[MASKABLE]].numpy() for piece in group.pieces])
        sizes_R = np.concatenate([piece[MASKABLE].sum(1).numpy() for piece in group.pieces])
        shown_M, learned_M = masked(draw, ids_M, sizes_R, Vocabulary(int(drawn_V[0]), drawn_V[1:]), probability)
        labels_M, pieces, start = np.where(learned_M, ids_M, IGNORED), list[Batch](), 0
        for piece in group.pieces:
            here = slice(start, start := start + int(piece[MASKABLE].sum()))
            pieces.append(_with_masks(piece, torch.from_numpy(shown_M[here]), torch.from_numpy(labels_M[here])))
        yield replace(group, pieces=tuple(pieces))


def _with_masks(piece: Batch, shown_M: Tensor, labels_M: Tensor) -> Batch:
    where_BT = piece[MASKABLE]
    ids_BT, labels_BT = piece["input_ids"].clone(), torch.full_like(piece["input_ids"], IGNORED)
    ids_BT[where_BT], labels_BT[where_BT] = shown_M, labels_M
    rest = {name: value for name, value in piece.items() if name not in (MASKABLE, VOCABULARY)}
    return {**rest, "input_ids": ids_BT, "labels": labels_BT}


def at_masks(step: Step) -> Step:
    """The step with the output layer of its model computed at the masked tokens and hardly any other: the same loss and the same gradients.

    The labels of the batch become those of these tokens in one row, with a few that are ignored at its end.
    """

    def compact(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        places_M = places_of(batch["labels"])
        read_M = few_rows(places_M)
        labels_M = F.pad(batch["labels"].flatten()[places_M], (0, len(read_M) - len(places_M)), value=IGNORED)
        with only_at(model, read_M):
            return step(model, {**batch, "labels": labels_M.unsqueeze(0)})

    return compact
