"""The task of a run, from its spec and its data."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.balance import balanced_weights
from tunesmith.spec.schema import Focal, Spec
from tunesmith.tasks.base import Task
from tunesmith.tasks.losses import robust_loss
from tunesmith.tasks.text_classification import MANY_LABEL_METRICS, ONE_LABEL_METRICS, TextClassification

TASKS: dict[str, type[Task]] = {TextClassification.name: TextClassification}


def metric_names(spec: Spec) -> tuple[str, ...]:
    """Names of the metrics of the spec's task."""
    return MANY_LABEL_METRICS if spec.data.multi_label else ONE_LABEL_METRICS


def make_task(spec: Spec, labels: list[str], train: pl.DataFrame, trained: np.ndarray | None = None) -> Task:
    """The spec's task for these labels. Balanced class weights are rows / (classes × rows of the class).

    They are counted from `trained`, the targets of the rows that are trained on; from the rows of `train` when left out.
    """
    options: dict[str, Any] = {"multi_label": spec.data.multi_label, "pair": "text_pair" in train.columns}
    gamma = spec.train.loss.gamma if isinstance(spec.train.loss, Focal) else None
    weights = None
    if spec.train.class_weights == "balanced":
        targets_N = TextClassification(labels, **options).targets(train) if trained is None else trained
        weights = balanced_weights(np.bincount(targets_N, minlength=len(labels))).tolist()
    options |= {"label_smoothing": spec.train.label_smoothing, "focal_gamma": gamma, "row_loss": robust_loss(spec.train.loss)}
    return TextClassification(labels, **options, class_weights=weights)
