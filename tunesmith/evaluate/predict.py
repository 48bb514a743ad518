"""Predictions of a model on a table, in the user's words."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunesmith.models.forward import Watch, predict_logits
from tunesmith.tasks.base import Encoding, Task


def predict(model: Any, task: Task, rows: pl.DataFrame, encoding: Encoding, watch: Watch | None = None) -> pl.DataFrame:
    """Predictions: the columns id and label of `rows` where they have them, then predicted, confidence, probabilities."""
    predicted = task.decode(predict_logits(model, task, encoding, watch), encoding)
    known = [name for name in ("id", "label") if name in rows.columns]
    return rows.select(known).hstack(predicted) if known else predicted
