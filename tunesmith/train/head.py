"""A head on frozen features, trained by the same loop as whole models.

Shape suffixes: N = rows, B = rows of a batch, C = classes, E = width.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.tasks.base import Batch, Encoded, Encoding, Task


class LinearHead(nn.Module):
    """An output layer alone, on features computed beforehand; same call as a whole classifier."""

    main_input_name = "features"

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        self.output = output

    def forward(self, features: Tensor) -> SimpleNamespace:
        """An object with logits (B, C)."""
        return SimpleNamespace(logits=self.output(features))


def for_the_loss(rows: Sequence[Encoded]) -> Batch:
    """What of these rows the loss reads: labels and weights, those that they have."""
    batch: Batch = {}
    if "labels" in rows[0]:
        batch["labels"] = torch.from_numpy(np.stack([row["labels"] for row in rows]))
    if "weight" in rows[0]:
        batch["weights"] = torch.tensor([row["weight"] for row in rows])
    return batch


class FeatureTask:
    """A task whose batches are features instead of token ids: wraps a task and changes only `collate`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.loss = task.loss
        self.answers, self.inputs = task.answers, task.inputs

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """{"features": (B, E), "labels": …}."""
        return {"features": torch.stack([row["features"] for row in rows]), **for_the_loss(rows)}


def feature_encoding(features_NE: Tensor, encoding: Encoding) -> Encoding:
    """The rows of an encoding with features in place of token ids; each counts as one token."""
    rows: list[dict[str, Any]] = []
    for feature, row in zip(features_NE, encoding.rows, strict=True):
        rows.append({"features": feature, **{name: row[name] for name in ("labels", "weight") if name in row}})
    return Encoding(rows, [1] * len(rows), 0)
