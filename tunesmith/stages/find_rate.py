"""The learning rate that a spec leaves to a range test: the test with the model that will be trained, before anything is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from tunesmith.models.build import build_model, has_bias, in_units, set_head
from tunesmith.models.forward import frozen_features
from tunesmith.models.linear import Linear, Penalty, fit_logistic, fit_ridge
from tunesmith.models.strategies import apply_strategy
from tunesmith.models.tagging import fit_tags, sampled, word_states
from tunesmith.spec.defaults import FIND, Facts, resolve
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Task
from tunesmith.tasks.make import make_task
from tunesmith.tasks.text_regression import TextRegression
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.train.fit import shortcuts_for
from tunesmith.train.range_test import RangeTest, range_test

HEAD_ROWS = 1000
FILE = "data/range_test.json"


def find_rate(spec: Spec, facts: Facts, task: Task, train: pl.DataFrame, processor: Any) -> tuple[Facts, RangeTest | None]:
    """The facts with the rate that a range test suggests, and the test; the facts alone where the spec does not ask for one.

    The copy starts as the model will: with a head fitted on frozen features, here of at most 1,000 rows that hold every class.
    A teacher and augmented copies take no part.
    """
    if spec.train.learning_rate != FIND:
        return facts, None
    start = resolve(spec, facts).spec
    assert start.model.max_length, "resolved specs have a length"
    model = build_model(start, task)
    if isinstance(task, TextRegression):
        task = in_units(make_task(spec, [], train, task.targets(train)), model)
    if start.train.head_start == "fitted" and isinstance(task, TokenClassification):
        encoded = task.encode(train.head(HEAD_ROWS), processor, start.model.max_length)
        sample = sampled(encoded, list(range(len(encoded.rows))), len(task.tags))
        states = word_states(model, task, sample)
        set_head(model, fit_tags(states, sample, len(task.tags), Penalty(1.0, intercept=has_bias(model))))
    elif start.train.head_start == "fitted":
        turns = train.with_columns(turn=pl.int_range(pl.len()).over("label")).sort("turn", maintain_order=True)
        rows = turns if spec.kind == "class" else train
        sample = task.encode(rows.head(HEAD_ROWS), processor, start.model.max_length)
        penalty = Penalty(1.0, start.train.class_weights == "balanced", has_bias(model))
        features = frozen_features(model, task, sample).head_input_NE
        set_head(model, _regression(task, features, task.targets(rows.head(HEAD_ROWS)), penalty))
    model = apply_strategy(model, start.strategy)
    encoding = task.training(train, processor, start.model.max_length)
    shortcuts = shortcuts_for(model, [encoding], start)
    test = range_test(model, start, task, shortcuts.encodings[0])
    return replace(facts, found_rate=(test.rate, test.rule)), test


def _regression(task: Task, features_NE: Tensor, targets: np.ndarray, penalty: Penalty) -> Linear:
    if isinstance(task, TextRegression):
        return fit_ridge(features_NE, (targets - task.scale.mean) / task.scale.deviation, penalty)
    return fit_logistic(features_NE, targets, len(task.labels), penalty)
