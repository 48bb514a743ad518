"""Predictions on many bootstrap resamples at once, and what a metric is: a function of them.

Shape suffixes: R = resamples, N = rows, C = classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.evaluate.answers import Answers, Bools, Floats, Ids
from tunesmith.evaluate.masked import Masked
from tunesmith.evaluate.numbers import Numbers
from tunesmith.evaluate.ranked import Ranked
from tunesmith.evaluate.replies import Replies
from tunesmith.evaluate.spans import Spans
from tunesmith.evaluate.texts import Texts


@dataclass(frozen=True, eq=False)
class Sample:
    """The same answers, counted `weights_RN` times each: a row of weights is a resample. `answers` are of the metric's kind."""

    answers: Any
    weights_RN: Floats

    @classmethod
    def whole(cls, answers: Answered) -> Sample:
        """Every row once."""
        return cls(answers, np.ones((1, len(answers))))

    @cached_property
    def rows_R(self) -> Floats:
        """How many rows each resample has."""
        return np.asarray(self.weights_RN.sum(1))

    @cached_property
    def labelled_RC(self) -> Floats:
        """Rows that carry each label."""
        return self._per_class(self.answers.labels)

    @cached_property
    def predicted_RC(self) -> Floats:
        """Rows that were given each label."""
        return self._per_class(self.answers.predicted)

    @cached_property
    def hits_RC(self) -> Floats:
        """Rows that carry each label and were given it."""
        answers = self.answers
        if isinstance(answers, Spans):
            return np.asarray(self.weights_RN @ answers.hits)
        if answers.multi_label:
            return self._per_class(np.asarray(answers.truth_NC & answers.predicted.astype(np.bool_)))
        right = np.flatnonzero(answers.right_N)
        return _counts(answers.labels[right], self.weights_RN.take(right, 1), answers.classes)

    @cached_property
    def precision_RC(self) -> Floats:
        """Share of the rows given a label that carry it; 0 where none was given it."""
        return ratio(self.hits_RC, self.predicted_RC)

    @cached_property
    def recall_RC(self) -> Floats:
        """Share of the rows carrying a label that were given it; 0 where none carries it."""
        return ratio(self.hits_RC, self.labelled_RC)

    @cached_property
    def f1_RC(self) -> Floats:
        """Harmonic mean of precision and recall; 0 where a label neither occurs nor is given."""
        return ratio(2 * self.hits_RC, self.labelled_RC + self.predicted_RC)

    @cached_property
    def occurs_RC(self) -> Bools:
        """True where a label is carried or given: the classes that averages are taken over."""
        return np.asarray(self.labelled_RC + self.predicted_RC > 0)

    def mean(self, values_N: Floats | Bools) -> Floats:
        """Mean of a row's value over the rows of each resample."""
        return np.asarray(self.weights_RN @ values_N.astype(np.float64) / self.rows_R)

    def _per_class(self, labels: Ids | Bools) -> Floats:
        if labels.ndim == 2:
            return np.asarray(self.weights_RN @ labels.astype(np.float64))
        return _counts(labels, self.weights_RN, self.answers.classes)


Statistic = Callable[[Sample], Floats]
Answered = Answers | Masked | Numbers | Ranked | Replies | Spans | Texts
"""Labels and predictions of some rows."""


@dataclass(frozen=True)
class Metric:
    """A metric: its direction and bounds (None: no bound), a sentence for readers, and its value on every resample.

    `is_row_share` marks a share of rows, whose sure interval at 0 and 1 is that of a binomial. `undefined` says when
    there is no value, which the statistic shows as NaN.
    """

    name: str
    title: str
    explanation: str
    statistic: Statistic
    higher_is_better: bool = True
    lower: float = 0.0
    upper: float | None = 1.0
    is_row_share: bool = False
    undefined: str = "no row carries a label and none was given one"

    def value(self, answers: Answered) -> float:
        """The metric on the rows as they are; NaN when it has no value."""
        return float(self.statistic(Sample.whole(answers))[0]) if len(answers) else float("nan")


def ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _counts(ids_N: npt.NDArray[np.generic], weights_RN: Floats, classes: int) -> Floats:
    resamples = len(weights_RN)
    cells = np.arange(resamples)[:, None] * classes + ids_N.astype(np.int64)
    counts = np.bincount(cells.ravel(), weights_RN.ravel(), resamples * classes)
    return counts.reshape(resamples, classes).astype(np.float64)
