"""Cross-validation as tables: which rows take part, which fold each is in, and what a model of a fold sees.

Clusters of near-duplicates and groups stay whole, between folds and within one. Splits by time are followed by folds by
time: the rows of a fold are answered by a model of older units only, and the oldest rows are only trained on.

Shape suffixes: N = rows that take part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.seeding import seed_for
from tunesmith.data.clean import in_order, without_near_duplicates
from tunesmith.data.label_forms import has_classes, strata
from tunesmith.data.marked import SPANS
from tunesmith.data.near import near_duplicates, whole_text
from tunesmith.data.profile import label_counts
from tunesmith.data.split import Shares, Units, folds, split, split_by_time, time_folds, units_of
from tunesmith.spec.kinds import UNSTRATIFIED
from tunesmith.spec.schema import ByColumn, ByTime, Data, Spec

Array = np.ndarray[Any, np.dtype[Any]]

MOST_SELECTING = 0.5


@dataclass(frozen=True)
class Folding:
    """Rows that take part, in the order of the splits, and the fold of each (0: only trained on).

    `begins_N` is the moment of the earliest row of each row's unit, for folds by time. `selecting` is the share of a fold's
    other rows that selects its weights. `apart` counts the rows of given splits that take no part.
    """

    rows: pl.DataFrame
    fold_N: Array
    units: Units
    clusters_N: Array | None
    begins_N: Array | None
    selecting: float
    apart: dict[str, int]


@dataclass(frozen=True)
class Fold:
    """What one model is trained on, selected on, and asked. `repeated` rows were dropped from training as near-duplicates.

    `unseen` rows are asked of a class that the training rows lack. `problem` says why no model can be made; else it is empty.
    """

    number: int
    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    repeated: int
    unseen: int
    problem: str


def folding(splits: Mapping[str, pl.DataFrame], spec: Spec) -> Folding:
    """The rows of train, and of validation and test as far as they take part, dealt into `evaluate.folds` folds.

    A given test stays apart, and so does a test that a column names. A given validation table takes part, but not in
    folds by time: its rows have no time.
    """
    data, count = spec.data, spec.evaluate.folds
    assert isinstance(count, int), "only for a resolved spec with folds"
    left_out = [name for name in ("validation", "test") if stays_apart(name, data)]
    rows = in_order({name: table for name, table in splits.items() if name not in left_out})
    clusters_N = near_duplicates(whole_text(rows), data.near_duplicates.jaccard).clusters_N if data.near_duplicates else None
    units = units_of(rows["id"], clusters_N, rows["group"] if "group" in rows.columns else None)
    begins_N, fold_N = None, np.zeros(len(rows), np.int64)
    if isinstance(data.split, ByTime):
        begins_U = np.full(len(units.rows_U), np.iinfo(np.int64).max)
        np.minimum.at(begins_U, units.unit_N, rows["moment"].to_numpy())
        begins_N = begins_U[units.unit_N]
        for number, (_, asked) in enumerate(time_folds(begins_N, count), start=1):
            fold_N[asked] = number
    else:
        fold_N = folds(rows["label"], units, spec.seed, count, stratified=spec.kind not in UNSTRATIFIED) + 1
    selected = len(splits["validation"])
    selecting = min(selected / max(selected + len(splits["train"]), 1), MOST_SELECTING)
    return Folding(rows, fold_N, units, clusters_N, begins_N, selecting, {name: len(splits[name]) for name in left_out})


def fold_of(whole: Folding, number: int, spec: Spec) -> Fold:
    """What the model of fold `number` (1 … k) is trained on, selected on, and asked; the same parts every time."""
    asked_N = whole.fold_N == number
    rest_N = ~asked_N
    if whole.begins_N is not None:
        rest_N = whole.begins_N < whole.begins_N[asked_N].min(initial=np.iinfo(np.int64).max)
    rest, units = whole.rows.filter(rest_N), _units_among(whole.units, rest_N)
    shares = Shares(whole.selecting, 0.0)
    if whole.begins_N is not None:
        parts = split_by_time(rest, units, whole.begins_N[rest_N], shares)
    else:
        parts = split(rest, units, seed_for(spec.seed, f"fold {number}"), shares, stratified=spec.kind not in UNSTRATIFIED)
    train, repeated = parts.train, 0
    if whole.clusters_N is not None and spec.data.near_duplicates and spec.data.near_duplicates.in_train == "drop":
        numbers = whole.rows.select("id", cluster=whole.clusters_N)
        train, dropped = without_near_duplicates(train, train.join(numbers, on="id", maintain_order="left")["cluster"])
        repeated = len(dropped)
    test = whole.rows.filter(asked_N)
    classes = spec.kind != "text" and has_classes(train["label"])  # texts that are written look like names of classes
    unseen, problem = _unseen(train, test) if classes else 0, _problem(train, parts.validation, test, classes)
    return Fold(number, train, parts.validation, test, repeated, unseen, problem)


def stays_apart(name: str, data: Data) -> bool:
    """True when the rows of this split take no part in cross-validation."""
    given = data.model_dump()[name] is not None
    return given or isinstance(data.split, ByColumn) if name == "test" else given and isinstance(data.split, ByTime)


def _units_among(units: Units, rows_N: Array) -> Units:
    present, unit_N = np.unique(units.unit_N[rows_N], return_inverse=True)
    return Units(unit_N, np.bincount(unit_N, minlength=len(present)), [units.keys_U[unit] for unit in present])


def _unseen(train: pl.DataFrame, test: pl.DataFrame) -> int:
    known = pl.Series(list(label_counts(train["label"])), dtype=pl.String).implode()
    label = strata(test["label"])
    if label.dtype == pl.List:
        return int((~label.list.eval(pl.element().is_in(known)).list.all()).sum())
    return int((~label.is_in(known)).sum())


def _problem(train: pl.DataFrame, validation: pl.DataFrame, test: pl.DataFrame, classes: bool) -> str:
    if not len(test):
        return "it has no rows: there are fewer clusters and groups than folds"
    if classes and len(label_counts(train["label"])) < (1 if train.schema["label"] == SPANS else 2):
        return "the rows to train on have too few classes"
    return "" if len(validation) else "no rows are left to select the weights on"
