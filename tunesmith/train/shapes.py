"""Fewer shapes of products: a processor compiles a kernel for each one in bfloat16, and keeps it (LOG.md, 2026-11-29).

Where texts are written, a batch has two lengths and as many learned tokens as it happens to have: nearly every step met shapes that no
step before had. Places without a row, a token or a target change no loss. A GPU in bfloat16 gets the same
batches; nothing was measured there.

Shape suffixes: B = rows of a piece, T = tokens, N = tokens that are learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tunesmith.models.load import positions
from tunesmith.models.splice import GIVEN
from tunesmith.tasks.base import Batch
from tunesmith.tasks.text_to_text import UNTRAINED
from tunesmith.train.batches import StepBatch

TOKENS, ROWS = 8, 64
"""Lengths of batches become multiples of the one, rows of an output layer multiples of the other."""


def few_lengths(batches: Iterator[StepBatch], model: Any) -> Iterator[StepBatch]:
    """The batches of texts for texts with lengths that are multiples of TOKENS, as far as the model has positions."""
    limit = min(positions(model.config), default=None)
    filled = {"input_ids": model.config.pad_token_id or 0, "attention_mask": 0, "labels": UNTRAINED, GIVEN: 0}
    for group in batches:
        yield replace(group, pieces=tuple(_longer(piece, filled, limit) for piece in group.pieces))


def _longer(piece: Batch, filled: dict[str, int], limit: int | None) -> Batch:
    return {name: _with_tokens(value, filled[name], limit) if name in filled else value for name, value in piece.items()}


def _with_tokens(values: Tensor, fill: int, limit: int | None) -> Tensor:
    """(B, T, …) with more places at the end of T; never past the limit."""
    length = values.shape[1]
    more = -length % TOKENS
    if limit is not None:
        more = min(more, max(limit - length, 0))
    return F.pad(values, (0, 0) * (values.ndim - 2) + (0, more), value=fill) if more else values


def few_rows(values: Tensor) -> Tensor:
    """(N, …) with rows of noughts at the end: as many rows as a multiple of ROWS."""
    return F.pad(values, (0, 0) * (values.ndim - 1) + (0, -len(values) % ROWS))
