"""Texts ranked for a query by the words that they share (Robertson & Walker 1994; BM25 as in Robertson & Zaragoza 2009, eq. 3.15).

Shape suffixes: D = texts, V = words, Q = queries.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

WORD = re.compile(r"\w+")
SATURATION, LENGTH = 1.2, 0.75
"""k1: how soon more of a word counts no more; b: how much long texts count less."""
BLOCK, CELLS = 1024, 2**24
"""Queries that are scored at once at the most, and their scores."""
Array = np.ndarray[Any, np.dtype[Any]]


class Bm25:
    """An index of texts. Scores are 0 where no word is shared."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words_of(text)) for text in texts]
        self.ids = {word: number for number, word in enumerate(sorted({word for count in counts for word in count}))}
        rows = np.repeat(np.arange(len(texts)), [len(count) for count in counts])
        columns = np.array([self.ids[word] for count in counts for word in count], np.int64)
        times = np.array([n for count in counts for n in count.values()], np.float64)
        length_D = np.array([sum(count.values()) for count in counts], np.float64)
        found_V = np.bincount(columns, minlength=len(self.ids))
        rarity_V = np.log1p((len(texts) - found_V + 0.5) / (found_V + 0.5))
        slowed = times + SATURATION * (1 - LENGTH + LENGTH * length_D[rows] / max(float(length_D.mean()) if len(texts) else 1.0, 1e-12))
        weights = rarity_V[columns] * times * (SATURATION + 1) / slowed
        self.weights_VD = csr_array((weights, (columns, rows)), (len(self.ids), len(texts)))
        self.size = len(texts)

    def scores(self, queries: Sequence[str]) -> Iterable[Array]:
        """Scores (D,) of all texts for each query."""
        rows_at_once = max(1, min(BLOCK, CELLS // max(self.size, 1)))
        for start in range(0, len(queries), rows_at_once):
            block = [Counter(word for word in words_of(query) if word in self.ids) for query in queries[start : start + rows_at_once]]
            rows = np.repeat(np.arange(len(block)), [len(count) for count in block])
            columns = np.array([self.ids[word] for count in block for word in count], np.int64)
            times = np.array([n for count in block for n in count.values()], np.float64)
            asked_QV = csr_array((times, (rows, columns)), (len(block), len(self.ids)))
            found_QD = (asked_QV @ self.weights_VD).tocsr()
            for number in range(len(block)):
                part = slice(found_QD.indptr[number], found_QD.indptr[number + 1])
                score_D = np.zeros(self.size)
                score_D[found_QD.indices[part]] = found_QD.data[part]
                yield score_D

    def best(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """The `count` texts of highest score for each query, equal ones in the order of the index, also where no word is shared."""
        return [_best(score_D, min(count, self.size)) for score_D in self.scores(queries)]


def _best(score_D: Array, count: int) -> list[int]:
    """Places of the highest scores, equal ones in order: those above the last of them are sorted, and the first that equal it follow."""
    if not count:
        return []
    last = np.partition(score_D, len(score_D) - count)[len(score_D) - count]
    above = np.flatnonzero(score_D > last)
    above = above[np.argsort(-score_D[above], kind="stable")]
    return [*above.tolist(), *np.flatnonzero(score_D == last)[: count - len(above)].tolist()]


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: letters, digits and underscores."""
    return WORD.findall(text.lower())
