"""Rows of one split that are already known from another: which, from where, and how alike they are.

A later split leaks when an earlier one knows its rows: test from validation or train, validation from train.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.clean import SPLITS
from tunesmith.data.cosine import Nearest
from tunesmith.data.near import NearDuplicates

Array = np.ndarray[Any, np.dtype[Any]]

ORDER = pl.Enum(SPLITS)
SCHEMA: dict[str, Any] = {
    "split": ORDER,
    "id": pl.String,
    "kind": pl.String,
    "similarity": pl.Float64,
    "other_split": ORDER,
    "other_id": pl.String,
}
PAIRS: dict[str, Any] = {"split": ORDER, "other_split": ORDER, "kind": pl.String, "pairs": pl.Int64}


def text_leaks(near: NearDuplicates, ids: pl.Series, place_N: Array) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leaks by the Jaccard similarity of texts: see `_leaks`. `place_N` is the split of each text, by its place in SPLITS."""
    edges = pl.DataFrame({"key": near.left_K, "other_key": near.right_K, "similarity": near.jaccard_K})
    rows = pl.DataFrame({"id": ids, "split": place_N, "key": near.group_N})
    return _leaks(rows, pl.concat([edges, edges.select(key="other_key", other_key="key", similarity="similarity")]), "jaccard")


def group_leaks(groups: pl.Series, ids: pl.Series, place_N: Array) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leaks by groups that have rows in several splits: see `_leaks`. Rows without a group leak nothing."""
    rows = pl.DataFrame({"id": ids, "split": place_N, "key": groups}).drop_nulls()
    return _leaks(rows, pl.DataFrame(schema={"key": pl.String, "other_key": pl.String, "similarity": pl.Float64}), "group")


def cosine_leaks(nearest: Nearest, split: str, ids: pl.Series, other_split: str, other_ids: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leaks by the cosine of frozen features, from a search of `split` against `other_split`: see `_leaks`."""
    above = np.flatnonzero(nearest.above_N)
    table = pl.DataFrame(
        {
            "split": [split] * len(above),
            "id": ids.gather(above),
            "kind": ["cosine"] * len(above),
            "similarity": nearest.cosine_N[above],
            "other_split": [other_split] * len(above),
            "other_id": other_ids.gather(nearest.row_N[above]),
        },
        schema=SCHEMA,
    )
    pairs = pl.DataFrame({"split": [split], "other_split": [other_split], "kind": ["cosine"], "pairs": [int(nearest.above_N.sum())]}, PAIRS)
    return table, pairs


def leaking(leaks: pl.DataFrame, split: str) -> pl.Series:
    """The ids of the rows of a split that an earlier split knows, each once."""
    return leaks.filter(pl.col("split") == split)["id"].unique(maintain_order=True)


def _leaks(rows: pl.DataFrame, edges: pl.DataFrame, kind: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each leaking row with the most similar row of each earlier split that knows it, and the number of pairs by splits.

    Rows with equal keys are alike (similarity 1), and so are those whose keys an edge joins. Pairs are counted from the
    sizes of keys, so a thousand copies in each of two splits cost no more than two rows.
    """
    sized = rows.group_by("key", "split").agg(pl.len().alias("rows"), pl.col("id").min().alias("first"))
    keys = sized["key"].unique()
    same = pl.DataFrame({"key": keys, "other_key": keys, "similarity": pl.Series([1.0] * len(keys), dtype=pl.Float64)})
    other = sized.rename({"key": "other_key", "split": "other_split", "rows": "other_rows", "first": "other_id"})
    joined = sized.join(pl.concat([same, edges]), on="key").join(other, on="other_key").filter(pl.col("split") > pl.col("other_split"))
    pairs = (
        joined.group_by("split", "other_split")
        .agg((pl.col("rows") * pl.col("other_rows")).sum().alias("pairs"))
        .sort("split", "other_split")
    )
    best = joined.sort("similarity", "other_id", descending=[True, False]).unique(["key", "split", "other_split"], keep="first")
    leaks = rows.join(best.drop("rows", "first"), on=["key", "split"], maintain_order="left").sort(
        "split", "other_split", maintain_order=True
    )
    return _named(leaks, kind).select(*SCHEMA), _named(pairs, kind).select(*PAIRS)


def _named(table: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Places as names of splits; what a table of leaks or of pairs has in common."""
    names = dict(enumerate(SPLITS))
    places = (pl.col(name).replace_strict(names, return_dtype=ORDER) for name in ("split", "other_split"))
    return table.with_columns(*places, pl.lit(kind).alias("kind")).cast({"pairs": pl.Int64} if "pairs" in table.columns else {})
