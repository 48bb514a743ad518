"""Judgements of relevance that likeness contradicts: relevant texts as far from their query as other texts, and wrong ones that are near.

Shape suffixes: P = judged pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tunesmith.data.label_numbers import Floats, deviations, largest_expected

FAR, NEAR = "as far from its query as other texts", "nearer to its query than the relevant texts"
NEARER = 0.1
"""Share of all texts that are nearer to a query than a text of it that is far."""


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
    """A judged pair, the chance of so odd a likeness among relevant pairs, and what is odd about it."""

    pair: int
    chance: float
    reason: str


def suspect_pairs(pairs: Pairs) -> list[SuspectPair]:
    """Pairs whose judgement is contradicted, the least probable first.

    A relevant text is suspect where its likeness is lower than the lowest that is expected of as many normal values of this spread, and a
    tenth of all texts are nearer to the query. A text that is not relevant is suspect where it is nearer than every relevant text of its
    query, and more alike than half of all relevant pairs; its chance is the share of these that are more alike still.
    """
    right = np.flatnonzero(pairs.relevant_P)
    off_N, found = deviations(pairs.likeness_P[right]), list[SuspectPair]()
    if off_N is None:
        return found
    far_N = (off_N < -largest_expected(len(off_N), sides=1)) & (pairs.nearer_P[right] > NEARER)
    found += [SuspectPair(int(right[place]), float(ndtr(off_N[place])), FAR) for place in np.flatnonzero(far_N)]
    usual = np.sort(pairs.likeness_P[right])
    nearest: dict[int, float] = {}
    for pair in right.tolist():
        query = int(pairs.query_P[pair])
        nearest[query] = max(nearest.get(query, -np.inf), float(pairs.likeness_P[pair]))
    for pair in np.flatnonzero(~pairs.relevant_P).tolist():
        likeness = float(pairs.likeness_P[pair])
        more_alike = 1 - np.searchsorted(usual, likeness, side="right") / len(usual)
        if likeness > nearest.get(int(pairs.query_P[pair]), np.inf) and more_alike < 0.5:
            found.append(SuspectPair(pair, float(more_alike), NEAR))
    return sorted(found, key=lambda suspect: (suspect.chance, suspect.pair))
