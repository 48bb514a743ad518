"""Findings about cross-validation: all rows together, then each fold, and how far the folds lie apart."""

from __future__ import annotations

import math
import statistics

import polars as pl

from tunesmith.core.records import Finding
from tunesmith.evaluate.evaluate import FOLDS, Judging, findings_of
from tunesmith.evaluate.kinds import answered
from tunesmith.evaluate.metrics import metrics_for

NO_SCORE = "the metric is not defined on the rows of this fold"
FEW_SCORES = "the metric is defined on fewer than two folds"


def fold_findings(predictions: pl.DataFrame, judging: Judging) -> list[Finding]:
    """The metrics over all rows, every class, the deciding metric of each fold, and its lowest, highest and standard deviation.

    Args:
        predictions: those of all folds, with the column `fold` besides those that `findings_of` needs.
        judging: with the prefix "folds".

    Raises:
        RunError: the predictions do not fit the labels, or hold no finite numbers.
    """
    scores: list[float] = []
    told = []
    for number in sorted(predictions["fold"].unique().to_list()):
        answers = answered(predictions.filter(pl.col("fold") == number), judging.kind, judging.labels)
        metric = metrics_for(judging.kind)[str(judging.options.metric)]
        value = metric.value(answers)
        claim = f"{metric.title} of fold {number}"
        told.append(_finding(f"score/{number}", claim, value, len(answers), judging, NO_SCORE))
        scores += [] if math.isnan(value) else [value]
    enough = len(scores) > 1
    for name, claim, value in (
        ("lowest", "The lowest score of a fold", min(scores) if enough else math.nan),
        ("highest", "The highest score of a fold", max(scores) if enough else math.nan),
        ("deviation", "Standard deviation of the scores of the folds", statistics.stdev(scores) if enough else math.nan),
    ):
        told.append(_finding(name, claim, value, len(scores), judging, FEW_SCORES))
    return [*findings_of(predictions, judging), *told]


def _finding(name: str, claim: str, value: float, n: int, judging: Judging, undefined: str) -> Finding:
    known = not math.isnan(value)
    return Finding(
        f"{FOLDS}/{name}",
        claim,
        value if known else None,
        n=n,
        source="computed" if known else "unknown",
        artefact=judging.artefact,
        note="" if known else undefined,
    )
