"""Numbers that are probably wrong: those that a ridge regression without their fold misses by far more than the others."""

from __future__ import annotations

import numpy as np
import polars as pl

from tunesmith.core.rundir import StageWriter
from tunesmith.data.label_numbers import suspect_numbers
from tunesmith.evaluate.baselines import RIDGE_STRENGTHS
from tunesmith.models.linear import ridge_without_fold
from tunesmith.stages.context import Context
from tunesmith.stages.folding import training_folds
from tunesmith.stages.quality import (
    FOLDS,
    ONE_GROUP,
    Regressed,
    Verdict,
    content_of,
    curve_of,
    judged_features,
    nothing_judged,
    own_neighbours,
    tell,
    unlike_training,
    with_texts,
)

RULE = "missed by more than the largest of as many normal errors of this spread"


def inspect_numbers(context: Context, stage: StageWriter) -> None:
    """Suspects by the size of an error, outliers, learning curve. No review: nothing takes decisions back in yet."""
    rows, features_NE = judged_features(context)
    table = context.table("train")[rows]
    targets, folds_N = context.task.targets(table), training_folds(context, table, FOLDS)
    if len(np.unique(folds_N)) < 2:
        nothing_judged(context, stage, ONE_GROUP)
        return
    said = {strength: ridge_without_fold(features_NE, targets, folds_N, strength) for strength in RIDGE_STRENGTHS}
    strength = min(said, key=lambda c: float(((said[c] - targets) ** 2).mean()))
    found = suspect_numbers(targets.astype(np.float64), said[strength])
    columns = {
        "row": [rows[s.row] for s in found], "id": [table["id"][s.row] for s in found], "given": [float(targets[s.row]) for s in found],
        "suggested": [s.suggested for s in found], "quality": [s.chance for s in found],
    }  # fmt: skip
    kinds = {"row": pl.Int64, "id": pl.String, "given": pl.Float64, "suggested": pl.Float64, "quality": pl.Float64}
    suspects = pl.DataFrame(columns, schema=kinds)
    verdict = Verdict(suspects, with_texts(context, suspects), len(rows), RULE, FOLDS, strength)
    judged = Regressed(rows, features_NE, targets, strength)
    outliers = unlike_training(context, rows, features_NE, own_neighbours(features_NE))
    tell(context, stage, suspects, content_of(context, verdict, outliers=outliers, curve=curve_of(context, judged)))
