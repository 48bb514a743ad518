"""Spans that are probably wrong, and spans that are probably missing, from what a regression says of words whose row it has not seen.

The rule is that of confident learning (Northcutt, Jiang & Chuang, JAIR 2021), on spans instead of rows: a span is contradicted where
another type, or none, is at least as probable as the spans that carry it are on average.
Shape suffixes: W = words of a row, C = types, none first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mark = tuple[int, int, int]
"""First word of a span, the word after the last one, and its type; nought is none."""
NONE = 0


@dataclass(frozen=True)
class SuspectSpan:
    """Words of a row, the type that they carry, the one that is suggested (NONE where there is none), and the probabilities of both."""

    row: int
    first: int
    end: int
    given: int
    suggested: int
    probability: float
    quality: float


def suspect_spans(marks: Sequence[Sequence[Mark]], probabilities: Sequence[Floats]) -> list[SuspectSpan]:
    """Spans that are contradicted and runs of words that lack one; those first whose suggestion is surest before what is given.

    A run that lacks a span is one of words outside all spans for which one type is the most probable. The probability of a type for
    several words is the mean over them.

    Args:
        marks: the spans of each row.
        probabilities: of the types for each word of each row (W, C), out of fold; NaN for words that were not judged.
    """
    told, outside = list[tuple[int, Mark, Floats]](), [np.zeros(0)]
    for row, (given, words_WC) in enumerate(zip(marks, probabilities, strict=True)):
        free_W = np.ones(len(words_WC), bool)
        for mark in given:
            free_W[mark[0] : mark[1]] = False
            told.append((row, mark, words_WC[mark[0] : mark[1]].mean(0)))
        outside.append(words_WC[free_W, NONE])
        told += [(row, mark, words_WC[mark[0] : mark[1]].mean(0)) for mark in _lacking(words_WC, free_W)]
    judged = [entry for entry in told if np.isfinite(entry[2]).all()]
    if not judged:
        return []
    least_C = _self_confidence(judged, np.concatenate(outside))
    found = []
    for row, (first, end, kind), mean_C in judged:
        other = int(np.where(np.arange(len(mean_C)) == kind, -1.0, mean_C).argmax())
        if mean_C[other] > mean_C[kind] and mean_C[other] >= least_C[other]:
            found.append(SuspectSpan(row, first, end, kind, other, float(mean_C[other]), float(mean_C[kind])))
    return sorted(found, key=lambda span: (span.quality - span.probability, span.row, span.first))


def _self_confidence(judged: Sequence[tuple[int, Mark, Floats]], outside_W: Floats) -> Floats:
    """Mean probability of each type over the spans that carry it; of none, over the words outside spans; above 1 where there are none."""
    least_C = np.full(len(judged[0][2]), 2.0)
    known_W = outside_W[np.isfinite(outside_W)]
    if len(known_W):
        least_C[NONE] = known_W.mean()
    for kind in {mark[2] for _, mark, _ in judged} - {NONE}:
        least_C[kind] = np.mean([mean_C[kind] for _, mark, mean_C in judged if mark[2] == kind])
    return least_C


def _lacking(words_WC: Floats, free_W: npt.NDArray[np.bool_]) -> Iterator[Mark]:
    """Runs of free words for which one type, and not none, is the most probable; they carry NONE."""
    best_W = np.where(free_W, np.nan_to_num(words_WC).argmax(1), NONE)
    for kind, words in groupby(range(len(best_W)), key=lambda word: int(best_W[word])):
        places = list(words)
        if kind != NONE:
            yield places[0], places[-1] + 1, NONE
