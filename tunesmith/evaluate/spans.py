"""Spans given and predicted for the same texts, counted by row and type, so that a resample is a matrix product.

Shape suffixes: N = rows, C = types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunesmith.evaluate.answers import Floats

Marks = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Spans:
    """How many spans of each type a row has (N, C), was given, and was given rightly; how many of either touch one of their type."""

    labels: Floats
    predicted: Floats
    hits: Floats
    found: Floats
    touching: Floats

    multi_label = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of types."""
        return int(self.labels.shape[1])


def compared(labels: Sequence[Marks], predicted: Sequence[Marks], types: Sequence[str]) -> Spans:
    """Spans of the same rows, counted. A prediction is right when start, end and type are (as seqeval counts, and conlleval).

    `found` counts the true spans that a predicted one of their type overlaps, `touching` the predicted ones that overlap a true one.
    """
    ids = {name: number for number, name in enumerate(types)}
    counts = np.zeros((5, len(labels), len(types)))
    for row, (true, said) in enumerate(zip(labels, predicted, strict=True)):
        exact = {_key(span) for span in true}
        for span in true:
            counts[0, row, ids[span["label"]]] += 1
            counts[3, row, ids[span["label"]]] += any(_touch(span, other) for other in said)
        for span in said:
            counts[1, row, ids[span["label"]]] += 1
            counts[2, row, ids[span["label"]]] += _key(span) in exact
            counts[4, row, ids[span["label"]]] += any(_touch(span, other) for other in true)
    return Spans(*counts)


def spans_from_table(predictions: pl.DataFrame, types: Sequence[str]) -> Spans:
    """Spans as a predictions table holds them."""
    labels, predicted = predictions["label"].to_list(), predictions["predicted"].to_list()
    return compared(labels, predicted, types)


def spans_of(labels: Sequence[Marks], predicted: Sequence[Marks]) -> Spans:
    """Spans with the types that occur among them."""
    return compared(labels, predicted, sorted({span["label"] for rows in (labels, predicted) for row in rows for span in row}))


def _key(span: Mapping[str, Any]) -> tuple[int, int, str]:
    return span["start"], span["end"], span["label"]


def _touch(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["label"] == other["label"] and one["start"] < other["end"] and other["start"] < one["end"])
