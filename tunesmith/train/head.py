"""Heads on frozen features: a regression whose strength is chosen on validation, or a linear layer trained by the loop.

Shape suffixes: N = rows, B = rows of a batch, C = classes, E = width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.models.linear import Linear, Penalty, fit_logistic
from tunesmith.tasks.base import Batch, Encoded, Encoding, Task

STRENGTHS = (0.1, 1.0, 10.0)


def choose_logistic(
    train_NE: Tensor, targets: np.ndarray, penalty: Penalty, score: Callable[[Linear], float], higher_is_better: bool
) -> tuple[Linear, dict[float, float]]:
    """The regression with the best validation score, and the score of each strength tried (ties: the stronger penalty)."""
    classes = int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]
    fitted = {c: fit_logistic(train_NE, targets, classes, Penalty(c, penalty.balanced, penalty.intercept)) for c in STRENGTHS}
    scores = {strength: score(linear) for strength, linear in fitted.items()}
    best = max(STRENGTHS, key=lambda c: scores[c] if higher_is_better else -scores[c])
    return fitted[best], scores


class LinearHead(nn.Module):
    """An output layer alone, on features computed beforehand; same call as a whole classifier."""

    def __init__(self, output: nn.Linear) -> None:
        super().__init__()
        self.output = output

    def forward(self, features: Tensor) -> SimpleNamespace:
        """An object with logits (B, C)."""
        return SimpleNamespace(logits=self.output(features))


class FeatureTask:
    """A task whose batches are features instead of token ids: wraps a task and changes only `collate`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.loss = task.loss
        self.decode = task.decode

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """{"features": (B, E), "labels": …}."""
        batch: Batch = {"features": torch.stack([row["features"] for row in rows])}
        if "labels" in rows[0]:
            batch["labels"] = torch.from_numpy(np.stack([row["labels"] for row in rows]))
        return batch


def feature_encoding(features_NE: Tensor, encoding: Encoding) -> Encoding:
    """The rows of an encoding with features in place of token ids; each counts as one token."""
    rows: list[dict[str, Any]] = []
    for feature, row in zip(features_NE, encoding.rows, strict=True):
        rows.append({"features": feature, **({"labels": row["labels"]} if "labels" in row else {})})
    return Encoding(rows, [1] * len(rows), 0)
