"""The learning rate that a spec leaves to a range test: the test with the model that will be trained, before anything is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from tunesmith.models.build import build_model, has_bias, set_head
from tunesmith.models.forward import frozen_features
from tunesmith.models.linear import Penalty, fit_logistic
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.strategies import apply_strategy
from tunesmith.spec.defaults import FIND, Facts, resolve
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Task
from tunesmith.train.optim import decay_is_linear
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
    if start.train.head_start == "fitted":
        rows = (
            train
            if spec.data.multi_label
            else train.with_columns(turn=pl.int_range(pl.len()).over("label")).sort("turn", maintain_order=True)
        )
        sample = task.encode(rows.head(HEAD_ROWS), processor, start.model.max_length)
        penalty = Penalty(1.0, start.train.class_weights == "balanced", has_bias(model))
        features = frozen_features(model, task, sample).head_input_NE
        set_head(model, fit_logistic(features, task.targets(rows.head(HEAD_ROWS)), model.config.num_labels, penalty))
    model = apply_strategy(model, start.strategy)
    encoding = task.encode(train, processor, start.model.max_length)
    shortcuts = Shortcuts(model, [encoding], linear_decay=decay_is_linear(start.train))
    test = range_test(model, start, task, shortcuts.encodings[0])
    return replace(facts, found_rate=(test.rate, test.rule)), test
