"""Rankings of texts for queries, and their metrics: every one is a mean over queries.

Shape suffixes: N = queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from tunesmith.evaluate.answers import Floats

DEPTH = 10
"""Places of a ranking that nDCG and the reciprocal rank look at."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Relevances of the relevant texts of each query, and the rank of each of them: from 1, 0 for one that was not found."""

    labels: Sequence[Sequence[float]]
    predicted: Sequence[Sequence[int]]

    classes = 0

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def reciprocal_N(self) -> Floats:
        """One divided by the rank of the first relevant text, 0 where it is not among the first ten (Craswell 2009)."""
        first = [min((rank for rank in ranks if 0 < rank <= DEPTH), default=0) for ranks in self.predicted]
        return np.array([1 / rank if rank else 0.0 for rank in first])

    @cached_property
    def average_precision_N(self) -> Floats:
        """The mean, over relevant texts, of the share of relevant ones down to each; one that was not found counts 0."""
        out = []
        for ranks in self.predicted:
            found = sorted(rank for rank in ranks if rank)
            out.append(sum((place + 1) / rank for place, rank in enumerate(found)) / max(len(ranks), 1))
        return np.array(out, np.float64)

    @cached_property
    def ndcg_N(self) -> Floats:
        """Gain of the first ten places, discounted by the logarithm of the place, of the best that there could be.

        The gain of a text is its relevance (Järvelin & Kekäläinen 2002).
        """
        out = []
        for gains, ranks in zip(self.labels, self.predicted, strict=True):
            reached = sum(gain / np.log2(rank + 1) for gain, rank in zip(gains, ranks, strict=True) if 0 < rank <= DEPTH)
            best = sum(gain / np.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:DEPTH]))
            out.append(reached / best if best else 0.0)
        return np.array(out, np.float64)

    def recall_N(self, depth: int) -> Floats:
        """Share of the relevant texts that are among the first `depth`."""
        return np.array([sum(0 < rank <= depth for rank in ranks) / max(len(ranks), 1) for ranks in self.predicted], np.float64)


def ranked_from_table(predictions: pl.DataFrame) -> Ranked:
    """Rankings as a predictions table holds them: `label` with texts and relevances, `ranks` of the relevant ones."""
    kept = pl.element().struct.field("relevance").filter(pl.element().struct.field("relevance") > 0)
    gains = predictions.select(pl.col("label").list.eval(kept)).to_series().to_list()
    return Ranked(gains, predictions["ranks"].to_list())
