"""Targets that are probably those of another text, by a ridge regression from frozen features of texts to those of their targets.

Shape suffixes: N = judged rows, E = width.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tunesmith.core.rundir import StageWriter
from tunesmith.data.label_texts import centred_cosines, suspect_targets
from tunesmith.evaluate.baselines import RIDGE_STRENGTHS
from tunesmith.models.build import build_model
from tunesmith.models.forward import frozen_features
from tunesmith.models.linear import ridge_without_fold
from tunesmith.stages.context import Context
from tunesmith.stages.folding import training_folds
from tunesmith.stages.quality import (
    EXAMPLE_CHARACTERS,
    FOLDS,
    ONE_GROUP,
    Verdict,
    content_of,
    judged_features,
    nothing_judged,
    own_neighbours,
    tell,
    unlike_training,
    with_texts,
)
from tunesmith.tasks.text_to_text import TextToText

RULE = "a target is suspect where its frozen features are further from what a regression on those of its text expects, or its length is \
further from what is usual, than the largest of as many normal values of this spread"
COLUMNS = {"row": pl.Int64, "id": pl.String, "given": pl.String, "suggested": pl.String, "quality": pl.Float64, "reason": pl.String}


def inspect_texts(context: Context, stage: StageWriter) -> None:
    """Suspect targets and outliers."""
    rows, source_NE = judged_features(context)
    table = context.table("train")[rows]
    folds_N = training_folds(context, table, FOLDS)
    if len(np.unique(folds_N)) < 2:
        nothing_judged(context, stage, ONE_GROUP)
        return
    target_NE = _target_features(context, table["label"])
    said = {strength: ridge_without_fold(source_NE, target_NE, folds_N, strength) for strength in RIDGE_STRENGTHS}
    strength = min(said, key=lambda c: float(((said[c] - target_NE) ** 2).mean()))
    found = suspect_targets(centred_cosines(said[strength], target_NE), table["text"].to_list(), table["label"].to_list())
    told = [{"row": rows[s.row], "id": table["id"][s.row], "given": table["label"][s.row], "suggested": None, "quality": s.chance,
             "reason": s.reason} for s in found]  # fmt: skip
    suspects = pl.DataFrame(told, schema=COLUMNS)
    shown = with_texts(context, suspects.with_columns(pl.col("given").str.slice(0, EXAMPLE_CHARACTERS)))
    verdict = Verdict(suspects, shown, len(rows), RULE, FOLDS, strength)
    outliers = unlike_training(context, rows, source_NE, own_neighbours(source_NE))
    tell(context, stage, suspects, content_of(context, verdict, outliers=outliers))


def _target_features(context: Context, targets: pl.Series) -> np.ndarray:
    """The mean of what the untrained encoder says last of each target, read as a text (N, E)."""
    task = TextToText()
    assert context.spec.model.max_length, "resolved specs have a length"
    encoding = task.encode(pl.DataFrame({"text": targets}), context.processor, context.spec.model.max_length)
    model = build_model(context.spec, context.task)
    return frozen_features(model, task, encoding, context.rows_watch("inspect", "features of targets")).mean_NE.numpy().astype(np.float64)
