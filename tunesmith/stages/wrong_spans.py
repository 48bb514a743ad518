"""Spans that are probably wrong or missing, by a logistic regression on frozen states of words that has not seen their row.

Shape suffixes: N = rows, W = words, E = width, C = types, none first.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.core.rundir import StageWriter
from tunesmith.data.label_spans import NONE, Mark, SuspectSpan, suspect_spans
from tunesmith.data.labels import out_of_fold, out_of_fold_loss
from tunesmith.data.tags import runs_of
from tunesmith.models.build import build_model
from tunesmith.models.linear import Penalty, fit_logistic
from tunesmith.models.tagging import sampled, word_states
from tunesmith.stages.context import Context
from tunesmith.stages.folding import training_folds
from tunesmith.stages.quality import (
    EXAMPLES,
    FOLDS,
    ONE_GROUP,
    TOLERANCE,
    Verdict,
    content_of,
    judged_features,
    nothing_judged,
    own_neighbours,
    tell,
    unlike_training,
)
from tunesmith.tasks.base import Encoding
from tunesmith.tasks.token_classification import TokenClassification, Words, word_tags
from tunesmith.tasks.windows import WINDOW

RULE = "a span is suspect where another type, or none, is at least as probable as it is on average for the spans that carry it"
STRENGTHS = (0.01, 0.1)
NO_SPAN = "no span"
AROUND = 80
"""Characters of the text that are shown before and after a suspect span."""
COLUMNS = {
    "row": pl.Int64, "id": pl.String, "start": pl.Int64, "end": pl.Int64, "span": pl.String, "given": pl.String, "suggested": pl.String,
    "probability": pl.Float64, "quality": pl.Float64, "reason": pl.String,
}  # fmt: skip


def inspect_spans(context: Context, stage: StageWriter) -> None:
    """Spans that the judges contradict and spans that they miss, with outliers."""
    task, table = context.task, context.table("train")
    assert isinstance(task, TokenClassification), "words have tags only there"
    folds_N = training_folds(context, table, FOLDS)
    sample = sampled(context.encoding("train"), context.windows_in_order("train"), len(task.tags))
    row_W = np.array([row[WINDOW].row for row in sample.rows for _ in row[WINDOW].at_W], np.int64)
    if len(np.unique(folds_N[row_W])) < 2:
        nothing_judged(context, stage, ONE_GROUP)
        return
    states = word_states(build_model(context.spec, task), task, sample, context.rows_watch("inspect", "frozen states of words"))
    given_W = np.array([(row["labels"][token] + 1) // 2 for row in sample.rows for token in row[WINDOW].at_W], np.int64)  # O, B, I, B, …
    strength, said_WC = _judged(torch.cat(states), given_W, folds_N[row_W], len(task.labels) + 1)
    rows, words = _by_row(sample, said_WC)
    marks = [_marks(words[row][0], table["label"][row].to_list(), task) for row in rows]
    found = suspect_spans(marks, [words[row][1] for row in rows])
    suspects = [_told(span, rows[span.row], words[rows[span.row]][0], task) for span in found]
    content = pl.DataFrame([{**one, "id": table["id"][one["row"]]} for one in suspects], schema=COLUMNS)
    verdict = Verdict(content, [_shown(one, table["text"][one["row"]]) for one in suspects[:EXAMPLES]], len(rows), RULE, FOLDS, strength)
    more = {}
    if context.spec.has_row_features:
        known, features_NE = judged_features(context)
        more["outliers"] = unlike_training(context, known, features_NE, own_neighbours(features_NE))
    tell(context, stage, content, content_of(context, verdict, **more))


def _judged(states_WE: Tensor, given_W: np.ndarray, folds_W: np.ndarray, types: int) -> tuple[float, np.ndarray]:
    """The strength with the least log loss, and what regressions of it say of each word without having seen its fold."""

    def fit(strength: float, features_WE: Tensor, targets_W: np.ndarray, weights_W: np.ndarray | None) -> Any:
        linear = fit_logistic(features_WE, targets_W, types, Penalty(strength, tolerance=TOLERANCE), weights_W)
        return lambda rows_WE: torch.softmax(linear(rows_WE).double(), -1).numpy()

    tried = [(strength, out_of_fold(states_WE, given_W, folds_W, partial(fit, strength))) for strength in STRENGTHS]
    strength, out = min(tried, key=lambda entry: out_of_fold_loss(entry[1], given_W))
    said_WC = out.probabilities_NC.copy()
    said_WC[~out.judged_N] = np.nan
    return strength, said_WC


def _by_row(sample: Encoding, said_WC: np.ndarray) -> tuple[list[int], dict[int, tuple[Words, np.ndarray]]]:
    """Numbers of the rows that have judged words, and for each its words and what is said of them; NaN for words that were not asked."""
    words: dict[int, tuple[Words, np.ndarray]] = {}
    place = 0
    for window in (row[WINDOW] for row in sample.rows):
        known = words.setdefault(window.row, (window, np.full((len(window.places), said_WC.shape[1]), np.nan)))
        known[1][window.number_W] = said_WC[place : place + len(window.at_W)]
        place += len(window.at_W)
    return sorted(words), words


def _marks(words: Words, spans: list[dict[str, Any]], task: TokenClassification) -> list[Mark]:
    return [(first, end, task.labels.index(name) + 1) for first, end, name in runs_of(word_tags(words.places, spans))[0]]


def _told(span: SuspectSpan, row: int, words: Words, task: TokenClassification) -> dict[str, Any]:
    """A row of suspects.parquet, without its id; None for no span."""
    start, end = words.places[span.first][0], words.places[span.end - 1][1]
    given, suggested = (None if kind == NONE else task.labels[kind - 1] for kind in (span.given, span.suggested))
    reason = "a span is missing" if given is None else "no span is expected" if suggested is None else "another type is expected"
    return {"row": row, "start": start, "end": end, "span": words.text[start:end], "given": given, "suggested": suggested,
            "probability": span.probability, "quality": span.quality, "reason": reason}  # fmt: skip


def _shown(one: dict[str, Any], text: str) -> dict[str, Any]:
    """The same for the documents: what is round the span, and the span with its type."""
    begin, stop = max(0, one["start"] - AROUND), one["end"] + AROUND
    around = f"{'…' if begin else ''}{text[begin:stop]}{'…' if stop < len(text) else ''}"
    given = f"“{one['span']}”: {one['given'] or NO_SPAN}"
    return {"text": around, "given": given, "suggested": one["suggested"] or NO_SPAN, "quality": one["quality"], "reason": one["reason"]}
