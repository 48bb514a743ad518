"""Folds of training rows that cut neither clusters of near-duplicates nor groups: for judging labels, and for comparing heads."""

from __future__ import annotations

import numpy as np
import polars as pl

from tunesmith.data.near import near_duplicates, whole_text
from tunesmith.data.split import folds, units_of
from tunesmith.spec.kinds import UNSTRATIFIED
from tunesmith.stages.context import Context


def training_folds(context: Context, table: pl.DataFrame, count: int) -> np.ndarray:
    """The fold of each of these training rows. There can be fewer than `count` where there are few clusters."""
    near = context.given.data.near_duplicates
    clusters_N = near_duplicates(whole_text(table), near.jaccard).clusters_N if near else None
    units = units_of(table["id"], clusters_N, table["group"] if "group" in table.columns else None)
    return np.asarray(folds(table["label"], units, context.given.seed, count, stratified=context.given.kind not in UNSTRATIFIED))
