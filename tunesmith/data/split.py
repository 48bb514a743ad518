"""Which rows train, select and test. Rows that belong together (a *unit*: one cluster, one group) never part.

By hash: u = hash(seed, key of the unit) in [0, 1): test if u < test share, validation if u < test share + validation
share, else train; so a row keeps its place when other rows are added. A unit with more rows than a split is to have
stays in train. For stratified splits every class with three units or more gets a unit in each split: the one of
smallest u moves. Classes with fewer stay in train.
By time: the units that begin last are the test, those before them validation. A unit counts as of its earliest row, so later
rows of an early unit stay in train; they are counted.

Shape suffixes: N = rows, U = units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.seeding import unit_interval
from tunesmith.data.label_forms import has_classes, strata
from tunesmith.data.near import connected

Array = np.ndarray[Any, np.dtype[Any]]

FEWEST_UNITS = 3
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Units:
    """Rows that must stay together. unit_N: unit of each row, 0 … U-1. rows_U: rows of each. keys_U: names that stay the same."""

    unit_N: Array
    rows_U: Array
    keys_U: list[str]


@dataclass(frozen=True)
class Shares:
    """How much is set aside: shares of all rows; 0 makes no such split."""

    validation: float
    test: float

    @property
    def made(self) -> list[int]:
        """The splits besides train that are made."""
        return [place for place, share in ((TEST, self.test), (VALIDATION, self.validation)) if share > 0]


@dataclass(frozen=True)
class Split:
    """The rows of each split in the order of the table; how many units there were, and what the rules did.

    `large` units stayed in train for their size; `late` training rows are not older than the test (splits by time).
    """

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    units: int
    moved: int = 0
    late: int = 0
    large: int = 0
    rare_classes: tuple[str, ...] = ()
    rare_rows: int = 0


def units_of(ids: pl.Series, clusters_N: Array | None = None, groups: pl.Series | None = None) -> Units:
    """Units from clusters (numbers) and groups (names; null for a row that has none): what either joins stays together.

    The key of a unit is its smallest group name, or its smallest content id where no row has a group.
    """
    rows = len(ids)
    unit_N = np.arange(rows) if clusters_N is None else clusters_N
    if groups is not None:
        codes_N = groups.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
        named_N = codes_N >= 0
        first = int(unit_N.max()) + 1 if rows else 0
        unit_N = connected(unit_N[named_N], first + codes_N[named_N], first + int(codes_N.max(initial=-1)) + 1)[unit_N]
    unit_N = np.unique(unit_N, return_inverse=True)[1]
    table = pl.DataFrame({"unit": unit_N, "id": ids, "group": groups if groups is not None else pl.Series([None] * rows, dtype=pl.String)})
    keys = table.group_by("unit").agg(pl.len(), pl.col("group").min(), pl.col("id").min()).sort("unit")
    return Units(unit_N, keys["len"].to_numpy(), keys["group"].fill_null(keys["id"]).to_list())


def split(rows: pl.DataFrame, units: Units, seed: int, shares: Shares, *, stratified: bool = True) -> Split:
    """The cleaned rows of one table, set apart by hash."""
    units_U = np.array([unit_interval(seed, key) for key in units.keys_U])
    natural_U = np.where(units_U < shares.test, TEST, np.where(units_U < shares.test + shares.validation, VALIDATION, TRAIN))
    most_U = np.select([natural_U == TEST, natural_U == VALIDATION], [shares.test * len(rows), shares.validation * len(rows)], np.inf)
    large_U = (units.rows_U > np.maximum(most_U, 1)) & (natural_U != TRAIN)
    natural_U = np.where(large_U, TRAIN, natural_U)
    if not stratified:
        return _parted(rows, units, natural_U, large=int(large_U.sum()))
    pairs = _classes_of_units(strata(rows["label"]), units.unit_N)
    counts = pairs.group_by("label").len().sort("label")
    rare = [] if not has_classes(rows["label"]) else counts.filter(pl.col("len") < FEWEST_UNITS)["label"].to_list()
    rare_units = pairs.filter(pl.col("label").is_in(rare))["unit"].unique().to_numpy()
    places_U = natural_U.copy()
    places_U[rare_units] = TRAIN
    most = min(share for share in (shares.test, shares.validation, 1.0) if share > 0) * len(rows)
    oversized_U = np.where(units.rows_U > max(most, 1), units.rows_U, 0)
    _give_every_class(places_U, (oversized_U, units_U), pairs.filter(~pl.col("label").is_in(rare)), shares.made)
    changed_U = places_U != natural_U
    changed_U[rare_units] = False
    in_rare_N = np.isin(units.unit_N, rare_units)
    return _parted(
        rows,
        units,
        places_U,
        moved=int(units.rows_U[changed_U].sum()),
        large=int(large_U.sum()),
        rare_classes=tuple(rare),
        rare_rows=int(in_rare_N.sum()),
    )


def split_by_time(rows: pl.DataFrame, units: Units, times_N: Array, shares: Shares) -> Split:
    """The cleaned rows in the order of time: train, validation, test. A unit counts as of its earliest row.

    So every row of the test is later than the start of every unit before it. Units that begin at the same moment stay together.
    """
    begins_U = np.full(len(units.rows_U), np.iinfo(np.int64).max)
    np.minimum.at(begins_U, units.unit_N, times_N)
    moments, step_U = np.unique(begins_U, return_inverse=True)
    before = np.cumsum(np.bincount(step_U, weights=units.rows_U, minlength=len(moments)))
    share = before / max(len(rows), 1)
    step_place = np.where(share > 1 - shares.test, TEST, np.where(share > 1 - shares.test - shares.validation, VALIDATION, TRAIN))
    parts = _parted(rows, units, step_place[step_U])
    first = times_N[step_place[step_U][units.unit_N] == TEST].min(initial=np.iinfo(np.int64).max)
    return replace(parts, late=int((times_N[step_place[step_U][units.unit_N] == TRAIN] >= first).sum()))


def folds(label: pl.Series, units: Units, seed: int, count: int, *, stratified: bool = True) -> Array:
    """Fold number (N,) of each row for cross-validation: units stay whole, classes are spread evenly, sizes nearly equal.

    Units of a class (of their rarest one) are dealt like cards, the largest first, in a random order that depends on
    their keys alone; each class begins where the one before it ended. Where labels are not `stratified` all are one class.
    """
    pairs = _classes_of_units(strata(label) if stratified else pl.Series("label", [""] * len(label), pl.String), units.unit_N)
    pairs = pairs.with_columns(pl.len().over("label").alias("size")).sort("unit", "size", "label").unique("unit", keep="first")
    pairs = pairs.join(pl.DataFrame({"unit": np.arange(len(units.rows_U)), "rows": units.rows_U.astype(np.int64)}), on="unit", how="right")
    draw = [unit_interval(seed, f"fold {key}") for key in units.keys_U]
    dealt = pairs.sort("unit").with_columns(pl.Series("draw", draw)).sort("size", "label", -pl.col("rows"), "draw", nulls_last=True)
    fold_U = np.empty(len(units.rows_U), np.int64)
    fold_U[dealt["unit"].to_numpy()] = np.arange(len(dealt)) % count
    return fold_U[units.unit_N]


def time_folds(times_N: Array, count: int) -> list[tuple[Array, Array]]:
    """(train rows, test rows) of each fold: `count` tests of later and later rows, each after all of its training rows."""
    order = np.argsort(times_N, kind="stable")
    edges = [int(len(order) * part / (count + 1)) for part in range(count + 2)]
    out = []
    for start, end in pairwise(edges[1:]):
        test, train = order[start:end], order[:start]
        out.append((train[times_N[train] < times_N[test].min(initial=np.iinfo(np.int64).max)], test))
    return out


def _classes_of_units(label: pl.Series, unit_N: Array) -> pl.DataFrame:
    """`unit` and `label`, once for each class that a unit has; the label "" stands for a row without labels."""
    table = pl.DataFrame({"unit": unit_N, "label": label})
    if label.dtype == pl.List:
        table = table.explode("label", empty_as_null=True).with_columns(pl.col("label").fill_null(""))
    return table.unique()


def _give_every_class(places_U: Array, order: tuple[Array, Array], pairs: pl.DataFrame, made: list[int]) -> None:
    """Move units, in place, until every class of `pairs` has one in train and in each split that is made, as far as units go round.

    A unit is only taken from where none of its classes is then missing. Units go in `order`: those not larger than a split first, by u.
    """
    places = pl.Series("place", places_U[pairs["unit"].to_numpy()])
    present = pairs.with_columns(places).group_by("label").agg(pl.col("place").n_unique()).sort("label")
    lacking = present.filter(pl.col("place") < len(made) + 1)["label"].to_list()
    if not lacking:
        return
    classes_of = dict(pairs.group_by("unit").agg("label").iter_rows())
    by_class = pairs.group_by("label").agg("unit").iter_rows()
    units_of_class = {label: sorted(units, key=lambda u: (order[0][u], order[1][u])) for label, units in by_class}
    left = {label: np.bincount(places_U[units], minlength=3) for label, units in units_of_class.items()}
    for label in lacking:
        for place in (*made, TRAIN):
            candidates = units_of_class[label] if place != TRAIN else units_of_class[label][::-1]
            if left[label][place]:
                continue
            movable = (u for u in candidates if all(left[other][places_U[u]] > 1 for other in classes_of[u]))
            unit = next(movable, None)
            if unit is not None:
                for other in classes_of[unit]:
                    left[other][places_U[unit]] -= 1
                    left[other][place] += 1
                places_U[unit] = place


def _parted(rows: pl.DataFrame, units: Units, places_U: Array, **told: Any) -> Split:
    places_N = places_U[units.unit_N]
    train, validation, test = (rows.filter(places_N == place) for place in (TRAIN, VALIDATION, TEST))
    return Split(train, validation, test, len(units.rows_U), **told)
