"""Judgements of relevance that likeness contradicts: relevant texts as far from their query as any other text, and wrong ones that are near.

Shape suffixes: P = judged pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tunesmith.data.label_numbers import Floats, deviations, largest_expected

FAR, NEAR = "as far from its query as other texts", "nearer to its query than the relevant texts"
FARTHER_HALF = 0.5


@dataclass(frozen=True)
class Pairs:
    """Judged pairs: the query of each, whether its text is relevant, and how alike they are.

    `likeness_P` is the cosine in standard deviations above the mean over all texts for this query, `nearer_P` the share of texts that are
    nearer to the query.
    """

    query_P: npt.NDArray[np.int64]
    relevant_P: npt.NDArray[np.bool_]
    likeness_P: Floats
    nearer_P: Floats


@dataclass(frozen=True)
class SuspectPair:
    """A judged pair, the chance of so small a likeness among relevant pairs (for wrong ones of so large a one), and what is odd."""

    pair: int
    chance: float
    reason: str


def suspect_pairs(pairs: Pairs) -> list[SuspectPair]:
    """Pairs whose judgement is contradicted, the least probable first.

    A relevant text is suspect where its likeness is lower than the lowest that is expected of as many normal values of this spread, or
    where half of all texts are nearer to the query. A text that is not relevant is suspect where it is nearer than every relevant text of
    its query, and more alike than half of all relevant pairs.
    """
    relevant = np.flatnonzero(pairs.relevant_P)
    off_N = deviations(pairs.likeness_P[relevant])
    found: list[SuspectPair] = []
    if off_N is not None:
        low = off_N < -largest_expected(len(off_N), sides=1)
        for place in np.flatnonzero(low & (pairs.nearer_P[relevant] > FARTHER_HALF)).tolist():
            found.append(SuspectPair(int(relevant[place]), float(ndtr(off_N[place])), FAR))
    return found
