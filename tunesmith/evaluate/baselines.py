"""What a model has to beat: the most frequent class, and logistic regression on frozen features.

Shape suffixes: N = rows, C = classes, E = width.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.models.linear import Linear, Penalty, fit_logistic
from tunesmith.tasks.base import Task


def majority(task: Task, train: pl.DataFrame, rows: pl.DataFrame, classes: int) -> pl.DataFrame:
    """Predictions that give every row the class frequencies of the training rows (per label, when there are several)."""
    targets = task.targets(train)
    shares_C = np.bincount(targets, minlength=classes) / len(targets) if targets.ndim == 1 else targets.mean(0)
    shares_C = np.clip(shares_C, 1e-6, 1 - 1e-6)
    logits_C = np.log(shares_C) if targets.ndim == 1 else np.log(shares_C / (1 - shares_C))
    return rows.select("id", "label").hstack(task.decode(torch.tensor(logits_C).expand(len(rows), -1)))


def features(task: Task, train_NE: Tensor, targets: np.ndarray, classes: int) -> Linear:
    """Logistic regression (C = 1) on frozen features: the probe that a tuned model is compared with."""
    return fit_logistic(train_NE, targets, classes, Penalty(strength=1.0))
