"""Labels, predicted labels and probabilities of the same rows as arrays: what every metric is computed from.

Shape suffixes: N = rows, C = classes, B = bins of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_array

from tunesmith.core.errors import RunError
from tunesmith.core.records import Issue

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]

THRESHOLD = 0.5
BINS = 15
SMALLEST = float(np.finfo(np.float32).eps)
"""Probabilities are stored as float32; one nearer than this to 0 or 1 counts as this near, so that logarithms are finite."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows in the order of their probability for one class, cut into segments at the ties of the positive rows.

    `segments` (segments, N) sums row weights by segment; the tie of a positive row lies between two cuts: after the
    segments `low` and before those from `high` on.
    """

    segments: csr_array
    positives: Ids
    low: Ids
    high: Ids


@dataclass(frozen=True, eq=False)
class Answers:
    """Class ids (N,), or 0/1 matrices (N, C) when a row can carry several labels, with probabilities (N, C)."""

    labels: Ids | Bools
    predicted: Ids | Bools
    probabilities_NC: Floats

    def __len__(self) -> int:
        return len(self.probabilities_NC)

    @property
    def classes(self) -> int:
        """How many classes there are, whether they occur or not."""
        return int(self.probabilities_NC.shape[1])

    @property
    def multi_label(self) -> bool:
        """True when a row can carry several labels."""
        return self.labels.ndim == 2

    @cached_property
    def truth_NC(self) -> Bools:
        """True where the row carries the label."""
        if self.multi_label:
            return self.labels.astype(np.bool_)
        return np.asarray(self.labels[:, None] == np.arange(self.classes))

    @cached_property
    def right_N(self) -> Bools:
        """True where the predicted label, or the whole set of labels, is right."""
        same = np.asarray(self.labels == self.predicted)
        return np.asarray(same.all(1)) if self.multi_label else same

    @cached_property
    def wrong_share_N(self) -> Floats:
        """Share of the decisions about a row's labels that are wrong."""
        return np.asarray((self.truth_NC != self.predicted).mean(1))

    @cached_property
    def log_loss_N(self) -> Floats:
        """Negative logarithm of the probability of the truth; the mean over labels when there are several."""
        if not self.multi_label:
            return -np.log(np.clip(self.probabilities_NC[np.arange(len(self)), self.labels], SMALLEST, 1 - SMALLEST))
        given_to_truth = np.where(self.truth_NC, self.probabilities_NC, 1 - self.probabilities_NC)
        return np.asarray(-np.log(np.clip(given_to_truth, SMALLEST, 1 - SMALLEST)).mean(1))

    @cached_property
    def squared_error_N(self) -> Floats:
        """Squared distance of probabilities from the truth: summed over classes, or the mean over labels when there are several."""
        squared = (self.probabilities_NC - self.truth_NC) ** 2
        return np.asarray(squared.mean(1) if self.multi_label else squared.sum(1))

    @cached_property
    def decisions(self) -> tuple[Floats, Bools]:
        """(confidence, right) of each decision: one a row, or one a row and label, row by row, when there are several."""
        if self.multi_label:
            given_to_answer = np.where(self.predicted, self.probabilities_NC, 1 - self.probabilities_NC)
            return given_to_answer.ravel(), (self.truth_NC == self.predicted).ravel()
        return self.probabilities_NC[np.arange(len(self)), self.predicted], self.right_N

    @cached_property
    def calibration_gap_NB(self) -> Floats:
        """Confidence minus rightness of a row's decisions, in the column of their confidence bin; the mean over a row's decisions."""
        confidence, right = self.decisions
        each = len(confidence) // max(len(self), 1)
        cells = np.arange(len(confidence)) // max(each, 1) * BINS + bin_of(confidence)
        return np.bincount(cells, confidence - right, len(self) * BINS).reshape(-1, BINS) / max(each, 1)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """One ranking for every class that some rows have and some do not."""
        mixed = np.flatnonzero(self.truth_NC.any(0) & ~self.truth_NC.all(0))
        return [_ranking(self.probabilities_NC[:, c], self.truth_NC[:, c]) for c in mixed]


def bin_of(confidence: Floats, bins: int = BINS) -> Ids:
    """Number of the equal-width bin that holds each confidence; a bin includes its upper bound."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def answers_from_arrays(targets: npt.NDArray[np.generic], probabilities_NC: npt.NDArray[np.floating]) -> Answers:
    """Answers that take the most probable class, or every label of at least even odds when `targets` is a 0/1 matrix."""
    probabilities = probabilities_NC.astype(np.float64)
    if targets.ndim == 2:
        return Answers(targets.astype(np.bool_), probabilities >= THRESHOLD, probabilities)
    return Answers(targets.astype(np.int64), probabilities.argmax(1), probabilities)


def answers_from_table(predictions: pl.DataFrame, labels: Sequence[str]) -> Answers:
    """Answers as a predictions table holds them; `labels` gives the order of the probabilities.

    Raises:
        RunError: a label is not in `labels`, or a row's probabilities are not one finite number per label.
    """
    lengths = predictions["probabilities"].list.len()
    if not (lengths == len(labels)).all():
        raise RunError(Issue("predictions", f"must have {len(labels)} probabilities a row", str(lengths.unique().to_list()[:3])))
    probabilities = np.zeros((len(predictions), len(labels)))
    if len(predictions):
        probabilities = predictions["probabilities"].list.to_array(len(labels)).to_numpy().astype(np.float64)
    if not np.isfinite(probabilities).all():
        remedy = "Training diverged: run again with a lower train.learning_rate."
        raise RunError(Issue("predictions", "must hold finite probabilities", "NaN or infinity", remedy))
    if (np.abs(probabilities - 0.5) > 0.5 + 1e-4).any():
        raise RunError(Issue("predictions", "must hold probabilities from 0 to 1", f"{probabilities.min():g} to {probabilities.max():g}"))
    return Answers(_ids(predictions["label"], labels), _ids(predictions["predicted"], labels), probabilities)


def _ids(column: pl.Series, labels: Sequence[str]) -> Ids | Bools:
    many = isinstance(column.dtype, pl.List)
    names = [name for row in column.to_list() for name in row] if many else column.to_list()
    numbers = {label: number for number, label in enumerate(labels)}
    unknown = sorted({str(name) for name in names if name not in numbers})
    if unknown:
        raise RunError(Issue(f"predictions: {column.name}", "must be a label of data/labels.json", repr(unknown[0])))
    ids = np.array([numbers[name] for name in names], dtype=np.int64)
    if not many:
        return ids
    matrix = np.zeros((len(column), len(labels)), dtype=np.bool_)
    matrix[np.repeat(np.arange(len(column)), column.list.len().to_numpy()), ids] = True
    return matrix


def _ranking(scores_N: Floats, positive_N: Bools) -> Ranking:
    order = np.argsort(scores_N, kind="stable")
    ranked = scores_N[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    ends = np.append(starts[1:], len(ranked))
    places = np.flatnonzero(positive_N[order])
    ties = np.searchsorted(starts, places, side="right") - 1
    cuts = np.unique(np.concatenate([[0, len(ranked)], starts[ties], ends[ties]])).astype(np.int32)
    segments = csr_array((np.ones(len(ranked)), order.astype(np.int32), cuts), shape=(len(cuts) - 1, len(ranked)))
    return Ranking(segments, order[places], np.searchsorted(cuts, starts[ties]), np.searchsorted(cuts, ends[ties]))
