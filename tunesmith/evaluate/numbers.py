"""Numbers given and predicted for the same rows, their metrics, and conformal intervals.

Shape suffixes: R = resamples, N = rows, G = groups of equal numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from tunesmith.core.errors import RunError
from tunesmith.core.records import Issue
from tunesmith.evaluate.answers import Floats, Ids

INTERVAL = "calibration/half_width"
"""Id of the finding that holds half the width of the intervals."""


@dataclass(frozen=True, eq=False)
class Ties:
    """Rows in the order of a number: `order_N`, where each group of equal numbers begins in it, and the group of each row."""

    order_N: Ids
    starts_G: Ids
    group_N: Ids


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers as they are (N,) and as they were predicted (N,)."""

    labels: Floats
    predicted: Floats

    classes = 0

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def error_N(self) -> Floats:
        """Predicted minus true."""
        return self.predicted - self.labels

    @cached_property
    def ties(self) -> tuple[Ties, Ties]:
        """The order of the true and of the predicted numbers."""
        return _ties(self.labels), _ties(self.predicted)


def numbers_from_table(predictions: pl.DataFrame) -> Numbers:
    """Numbers as a predictions table holds them.

    Raises:
        RunError: one is not finite.
    """
    labels, predicted = (predictions[name].to_numpy().astype(np.float64) for name in ("label", "predicted"))
    if not (np.isfinite(labels).all() and np.isfinite(predicted).all()):
        remedy = "Training diverged: run again with a lower train.learning_rate."
        raise RunError(Issue("predictions", "must hold finite numbers", "NaN or infinity", remedy))
    return Numbers(labels, predicted)


def weighted_correlation(weights_RN: Floats, a: Floats, b: Floats) -> Floats:
    """Pearson's correlation (R,) of a and b, each (N,) or (R, N), rows weighted; NaN where one of them does not vary."""
    (a, spread_a_R), (b, spread_b_R) = (_centred(weights_RN, values) for values in (a, b))
    spread_R = np.sqrt(spread_a_R * spread_b_R)
    together_R = (weights_RN * a * b).sum(1)
    return np.asarray(np.divide(together_R, spread_R, out=np.full(len(spread_R), np.nan), where=spread_R > 0))


def _centred(weights_RN: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Values less their mean (R, N), and the sum of their squares (R,): 0 where it is nothing but rounding."""
    total_R1 = weights_RN.sum(1, keepdims=True)
    mean_R1 = (weights_RN * values).sum(1, keepdims=True) / total_R1
    centred = values - mean_R1
    spread_R = (weights_RN * centred**2).sum(1)
    rounding_R = 1e-24 * (total_R1 * mean_R1**2)[:, 0]
    return centred, np.where(spread_R > rounding_R, spread_R, 0.0)


def ranks(weights_RN: Floats, ties: Ties) -> Floats:
    """Rank of each row (R, N) where each counts `weights` times; equal numbers share the middle of their ranks."""
    groups_RG = np.add.reduceat(weights_RN[:, ties.order_N], ties.starts_G, axis=1)
    middle_RG = np.cumsum(groups_RG, 1) - groups_RG / 2
    return np.asarray(middle_RG[:, ties.group_N])


def conformal_half_width(error_N: Floats, confidence: float) -> float:
    """Half the width of an interval round a prediction that holds the truth with this probability, for rows like these.

    Split conformal prediction (Vovk et al. 2005; Lei et al. 2018, algorithm 2): the ⌈(n + 1) · confidence⌉-th smallest absolute
    error of n rows that played no part in training; infinite where n is too small for the confidence.
    """
    place = math.ceil((len(error_N) + 1) * confidence)
    return math.inf if place > len(error_N) else float(np.sort(np.abs(error_N))[place - 1])


def with_intervals(predictions: pl.DataFrame, half: float) -> pl.DataFrame:
    """The predictions with the columns low and high; without them where no width is known (infinite)."""
    if math.isinf(half):
        return predictions
    return predictions.with_columns(low=pl.col("predicted") - half, high=pl.col("predicted") + half)


def _ties(values_N: Floats) -> Ties:
    order = np.argsort(values_N, kind="stable")
    ranked = values_N[order]
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, bool)
    group = np.empty(len(values_N), np.int64)
    group[order] = np.cumsum(first) - 1
    return Ties(order, np.flatnonzero(first), group)
