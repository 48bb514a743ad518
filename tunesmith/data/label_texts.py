"""Targets that are probably those of another text: far from what a regression expects of their text, or of an odd length for it.

Shape suffixes: N = judged rows, E = width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from tunesmith.data.label_numbers import Floats, deviations, largest_expected

FAR, LONG, SHORT = "far from what its text suggests", "long for its text", "short for its text"
NEAREST = 1 - 1e-9
"""A cosine of one has no finite transform."""


@dataclass(frozen=True)
class SuspectTarget:
    """A judged row, the chance of so odd a value among normal ones, and what is odd about it."""

    row: int
    chance: float
    reason: str


def centred_cosines(said_NE: Floats, given_NE: Floats) -> Floats:
    """Cosine of expected and given features of each row, both less the mean of what is given: all texts share most of that."""
    mean_E = given_NE.mean(0)
    said_NE, given_NE = said_NE - mean_E, given_NE - mean_E
    lengths_N = np.linalg.norm(said_NE, axis=1) * np.linalg.norm(given_NE, axis=1)
    cosines: Floats = (said_NE * given_NE).sum(1) / np.maximum(lengths_N, 1e-12)
    return np.clip(cosines, -1.0, 1.0)


def suspect_targets(cosine_N: Floats, source: Sequence[str], target: Sequence[str]) -> list[SuspectTarget]:
    """Rows whose cosine is lower, or whose ratio of lengths is further from the others', than the largest that is expected of as many
    normal values of this spread; the least probable first.

    Cosines are judged after Fisher's transform (artanh), ratios of characters after the logarithm.

    Args:
        cosine_N: of what a regression expects that was fitted without the row, and the target as it is.
        source: the texts.
        target: their targets.
    """
    far_N = deviations(-np.arctanh(np.clip(cosine_N, -NEAREST, NEAREST)))
    ratio_N = deviations(np.log([(len(b) + 1) / (len(a) + 1) for a, b in zip(source, target, strict=True)]))
    found: dict[int, SuspectTarget] = {}
    if ratio_N is not None:
        for row in np.flatnonzero(np.abs(ratio_N) > largest_expected(len(ratio_N), sides=2)).tolist():
            found[row] = SuspectTarget(row, float(2 * ndtr(-abs(ratio_N[row]))), LONG if ratio_N[row] > 0 else SHORT)
    if far_N is not None:
        for row in np.flatnonzero(far_N > largest_expected(len(far_N), sides=1)).tolist():
            chance = float(ndtr(-far_N[row]))
            if row not in found or chance < found[row].chance:
                found[row] = SuspectTarget(row, chance, FAR)
    return sorted(found.values(), key=lambda suspect: (suspect.chance, suspect.row))
