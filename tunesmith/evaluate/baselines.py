"""What a model has to beat: the most frequent class, and logistic regression on frozen features.

Shape suffixes: N = rows, C = classes, E = width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.evaluate.metrics import fast_score
from tunesmith.models.linear import Chosen, Linear, Penalty, choose_logistic, fit_logistic
from tunesmith.tasks.base import Task

BASELINE_STRENGTHS = (0.1, 1.0)


def majority(task: Task, train: pl.DataFrame, rows: pl.DataFrame, classes: int) -> pl.DataFrame:
    """Predictions that give every row the class frequencies of the training rows (per label, when there are several)."""
    targets = task.targets(train)
    shares_C = np.bincount(targets, minlength=classes) / len(targets) if targets.ndim == 1 else targets.mean(0)
    shares_C = np.clip(shares_C, 1e-6, 1 - 1e-6)
    logits_C = np.log(shares_C) if targets.ndim == 1 else np.log(shares_C / (1 - shares_C))
    return rows.select("id", "label").hstack(task.decode(torch.tensor(logits_C).expand(len(rows), -1)))


@dataclass(frozen=True)
class Rows:
    """Features and targets of some rows."""

    features_NE: Tensor
    targets: np.ndarray


def features(train: Rows, validation: Rows, classes: int) -> Chosen:
    """Logistic regression on frozen features, its strength chosen by validation log loss: the probe to be beaten."""
    multi_label = train.targets.ndim == 2

    def score(linear: Linear) -> float:
        logits_NC = linear(validation.features_NE)
        probabilities = torch.sigmoid(logits_NC) if multi_label else torch.softmax(logits_NC, -1)
        return -fast_score("log_loss", validation.targets, probabilities.double().numpy(), multi_label)

    return choose_logistic(
        lambda penalty: fit_logistic(train.features_NE, train.targets, classes, penalty), Penalty(), score, BASELINE_STRENGTHS
    )
