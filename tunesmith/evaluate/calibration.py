"""How often the model is right at each confidence: the data of a reliability curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith.evaluate.answers import BINS, Answers, bin_of


@dataclass(frozen=True)
class Bin:
    """Decisions whose confidence lies above `low` and at most at `high`: their mean confidence, how often right, how many."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


def reliability(answers: Answers, bins: int = BINS) -> list[Bin]:
    """Bins of equal width from low to high confidence, without the empty ones. With several labels, each is a decision."""
    confidence, right = answers.decisions
    numbers = bin_of(confidence, bins)
    n = np.bincount(numbers, minlength=bins)
    sums = np.bincount(numbers, confidence, bins), np.bincount(numbers, right, bins)
    return [Bin(b / bins, (b + 1) / bins, float(sums[0][b] / n[b]), float(sums[1][b] / n[b]), int(n[b])) for b in range(bins) if n[b]]
