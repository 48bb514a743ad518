"""Predictions tables as what the metrics of each kind of labels are computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from tunesmith.evaluate.answers import answers_from_table
from tunesmith.evaluate.masked import masked_from_table
from tunesmith.evaluate.metrics import Answered
from tunesmith.evaluate.numbers import numbers_from_table
from tunesmith.evaluate.ranked import ranked_from_table
from tunesmith.evaluate.replies import replies_from_table
from tunesmith.evaluate.spans import spans_from_table
from tunesmith.evaluate.texts import texts_from_table
from tunesmith.spec.kinds import Kind


def answered(predictions: pl.DataFrame, kind: Kind, labels: Sequence[str]) -> Answered:
    """Labels and predictions of a table; `labels` are the classes in the order of the probabilities.

    Raises:
        RunError: the table does not fit the kind and its classes, or holds no finite numbers.
    """
    read: dict[Kind, Callable[[pl.DataFrame], Answered]] = {
        "text": texts_from_table, "answers": replies_from_table, "number": numbers_from_table, "relevant": ranked_from_table,
        "spans": lambda table: spans_from_table(table, labels), "masked": masked_from_table,
    }  # fmt: skip
    return read[kind](predictions) if kind in read else answers_from_table(predictions, labels)
