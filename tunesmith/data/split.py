"""Which rows train, select and test: by content hash, so that a row keeps its place when other rows are added.

u = hash(seed, id) in [0, 1): test if u < test share, validation if u < test share + validation share, else train.
Classes with three rows or more get at least one row in each split that is made: the smallest u goes to the test, the
next to validation, the largest stays in train. Only rows moved by this rule, and rows of classes with fewer than
three rows (which stay in train), can change place when rows are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tunesmith.core.seeding import unit_interval

FEWEST_ROWS = 3
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """The rows of each split in the order of the table, and what the rules for small classes did."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    moved: int
    rare_classes: tuple[str, ...]
    rare_rows: int


def split(rows: pl.DataFrame, seed: int, validation_share: float, test_share: float) -> Split:
    """The cleaned rows of one table cut into splits; a share of 0 makes none. A multi-label row counts for its rarest label."""
    strata = _strata(rows["label"])
    units_N = np.array([unit_interval(seed, content) for content in rows["id"]], dtype=np.float64)
    codes_N = strata.rank("dense").to_numpy().astype(np.int64) - 1 if rows.height else np.zeros(0, np.int64)
    natural_N = np.where(units_N < test_share, TEST, np.where(units_N < test_share + validation_share, VALIDATION, TRAIN))
    places_N = _with_every_class(units_N, codes_N, natural_N, (validation_share > 0, test_share > 0))
    sizes = np.bincount(codes_N) if rows.height else np.zeros(0, np.int64)
    rare_N = (sizes < FEWEST_ROWS)[codes_N] if rows.height else np.zeros(0, bool)
    return Split(
        train=rows.filter(places_N == TRAIN),
        validation=rows.filter(places_N == VALIDATION),
        test=rows.filter(places_N == TEST),
        moved=int(((places_N != natural_N) & ~rare_N).sum()),
        rare_classes=tuple(sorted(set(strata.filter(rare_N)))),
        rare_rows=int(rare_N.sum()),
    )


def _strata(label: pl.Series) -> pl.Series:
    """The class of each row; for lists the row's label with the fewest rows, "" for a row without labels."""
    if label.dtype != pl.List:
        return label
    rows = pl.DataFrame({"row": np.arange(label.len()), "label": label}).explode("label", empty_as_null=True)
    rows = rows.with_columns(pl.col("label").fill_null("")).with_columns(pl.len().over("label").alias("size"))
    return rows.sort("row", "size", "label").unique("row", keep="first", maintain_order=True)["label"]


def _with_every_class(
    units_N: np.ndarray[tuple[int], np.dtype[np.float64]],
    codes_N: np.ndarray[tuple[int], np.dtype[np.int64]],
    natural_N: np.ndarray[tuple[int], np.dtype[np.int64]],
    made: tuple[bool, bool],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Places after the rules for small classes. Within a class, ordered by u, the splits are test | validation | train."""
    places_N = natural_N.copy()
    order_N = np.lexsort((units_N, codes_N))
    starts = np.flatnonzero(np.diff(codes_N[order_N], prepend=-1))
    for rows in np.split(order_N, starts[1:]) if len(order_N) else ():
        size = len(rows)
        if size < FEWEST_ROWS:
            places_N[rows] = TRAIN
            continue
        validation, test = int((natural_N[rows] == VALIDATION).sum()), int((natural_N[rows] == TEST).sum())
        validation, test = max(validation, int(made[0])), max(test, int(made[1]))
        while validation + test >= size:
            validation, test = (validation - 1, test) if validation > test else (validation, test - 1)
        places_N[rows[:test]], places_N[rows[test : test + validation]], places_N[rows[test + validation :]] = TEST, VALIDATION, TRAIN
    return places_N
