"""What a model has to beat: the most frequent class or the mean number, and a regression on frozen features.

Shape suffixes: N = rows, C = classes, E = width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.data.cosine import nearest, unit_rows
from tunesmith.evaluate.metrics import fast_score
from tunesmith.models.linear import Chosen, Linear, Penalty, choose_logistic, fit_logistic, fit_ridge
from tunesmith.tasks.base import NOTHING, Task
from tunesmith.tasks.text_regression import TextRegression

BASELINE_STRENGTHS = (0.1, 1.0)
RIDGE_STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def majority(task: Task, train: pl.DataFrame, rows: pl.DataFrame, classes: int) -> pl.DataFrame:
    """Predictions that give every row the class frequencies of the training rows (per label, when there are several), or their mean."""
    targets = task.targets(train)
    if isinstance(task, TextRegression):  # `decode` reads numbers in the unit of the network's output
        mean = float(task.wanted(targets.mean()))
        return rows.select("id", "label").hstack(task.decode(torch.full((len(rows), 1), mean, dtype=torch.float64), NOTHING))
    shares_C = np.bincount(targets, minlength=classes) / len(targets) if targets.ndim == 1 else targets.mean(0)
    shares_C = np.clip(shares_C, 1e-6, 1 - 1e-6)
    logits_C = np.log(shares_C) if targets.ndim == 1 else np.log(shares_C / (1 - shares_C))
    return rows.select("id", "label").hstack(task.decode(torch.tensor(logits_C).expand(len(rows), -1), NOTHING))


def copied(rows: pl.DataFrame) -> pl.DataFrame:
    """The text of each row as what would be written for it."""
    return rows.select("id", "label", predicted="text")


@dataclass(frozen=True)
class Known:
    """Targets of training rows, and their features."""

    targets: pl.Series
    features_NE: Tensor


def retrieved(rows: pl.DataFrame, features_NE: Tensor, known: Known) -> pl.DataFrame:
    """For each row the target of the known row whose features have the largest cosine with its own."""
    found = nearest(unit_rows(features_NE), unit_rows(known.features_NE), 2.0)
    return rows.select("id", "label").with_columns(predicted=known.targets.gather(found.row_N))


@dataclass(frozen=True)
class Rows:
    """Features and targets of some rows."""

    features_NE: Tensor
    targets: np.ndarray


def features(task: Task, train: Rows, validation: Rows) -> Chosen:
    """A regression on frozen features, its strength chosen by validation log loss (numbers: squared error): the probe to be beaten."""
    name, classes = ("mse", 1) if task.kind == "number" else ("log_loss", len(task.labels))

    def score(linear: Linear) -> float:
        return -fast_score(name, task.kind, validation.targets, task.scores(linear(validation.features_NE), NOTHING))

    def fitted(penalty: Penalty) -> Linear:
        if isinstance(task, TextRegression):
            return fit_ridge(train.features_NE, task.wanted(train.targets), penalty)
        return fit_logistic(train.features_NE, train.targets, classes, penalty)

    return choose_logistic(fitted, Penalty(), score, RIDGE_STRENGTHS if task.kind == "number" else BASELINE_STRENGTHS)
