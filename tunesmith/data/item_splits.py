"""Splits of items: what given ones know of each other by copies, or a split that parts no cluster of copies.

Shape suffix: N = items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.certificate import DIRECTIONS
from tunesmith.data.clean import SPLITS
from tunesmith.data.item_copies import Copies, leaks_of
from tunesmith.data.leaks import leaking
from tunesmith.data.split import Shares, split, units_of

Array = np.ndarray[Any, np.dtype[Any]]

SEED, SHARE = 0, 0.1
LEAKS_SHOWN = 200
LIKENESS = {
    "image": "pictures that are copies",
    "audio": "recordings that are copies",
    "jaccard": "texts that are copies",
    "context": "questions on nearly the same text",
}


def given_splits(
    copies: Copies, names: pl.Series, labels: Sequence[str | None], places: tuple[Array, int]
) -> tuple[dict[str, Any], pl.DataFrame]:
    """What the given splits have in common, as plain values, and a row per item that an earlier split knows.

    `names` are distinct. `places`: place in SPLITS of each item's split, -1 for none; and how many have none.
    """
    leaks, pairs = leaks_of(copies, names, places[0])
    leaks, pairs = leaks.cast({"split": pl.String, "other_split": pl.String}), pairs.cast({"split": pl.String, "other_split": pl.String})
    found = {name: len(leaking(leaks, name)) for name in ("test", "validation")}
    kinds = [_kind(kind, leaks, pairs) for kind in (copies.kind, *(["context"] if copies.contexts else []))]
    label_of = dict(zip(names, labels, strict=True))
    shown = leaks.filter(pl.col("split") == "test").sort("similarity", "id", descending=[True, False])
    rows = [{**row, "label": label_of[row["id"]], "other_label": label_of[row["other_id"]]} for row in shown.head(LEAKS_SHOWN).to_dicts()]
    sizes = {name: int((places[0] == number).sum()) for number, name in enumerate(SPLITS)}
    content = {
        "rows": sizes,
        "without": places[1],
        "kinds": kinds,
        "test": found["test"],
        "validation": found["validation"],
        "statement": _statement(sum(entry["count"] for kind in kinds for entry in kind["pairs"])),
        "shown": rows,
        "more": max(0, shown.height - LEAKS_SHOWN),
    }
    return content, leaks


def proposed_split(
    copies: Copies, names: pl.Series, stable: pl.Series, keys: Sequence[frozenset[str] | None]
) -> tuple[dict[str, Any], pl.DataFrame]:
    """A split that parts no cluster, as plain values, and a row per item: item, split, cluster.

    `names` are distinct. `stable` names each item by its content or path, so that it keeps its place when others are added.
    Classes are spread over the splits where items have few of them.
    """
    held_N = copies.held_N
    classes = {name for key in keys if key for name in key}
    stratified = 1 < len(classes) <= max(2, len(keys) // 10)
    rows = pl.DataFrame({"row": np.arange(len(keys)), "label": pl.Series([sorted(key or ()) for key in keys], dtype=pl.List(pl.String))})
    made = split(rows, units_of(stable, held_N), SEED, Shares(SHARE, SHARE), stratified=stratified)
    place_N = np.zeros(len(keys), np.int64)
    for place, part in enumerate((made.train, made.validation, made.test)):
        place_N[part["row"].to_numpy()] = place
    straddling = int(leaks_of(copies, names, place_N)[1]["pairs"].sum())
    content = {
        "seed": SEED,
        "share": SHARE,
        "rows": {name: int((place_N == place).sum()) for place, name in enumerate(SPLITS)},
        "stratified": stratified,
        "moved": made.moved,
        "large": made.large,
        "rare": [name for name in made.rare_classes if name],
        "straddling": straddling,
        "statement": _statement(straddling),
    }
    named = pl.Series("split", [SPLITS[place] for place in place_N], dtype=pl.String)
    return content, pl.DataFrame({"item": names, "split": named, "cluster": held_N})


def _kind(kind: str, leaks: pl.DataFrame, pairs: pl.DataFrame) -> dict[str, Any]:
    counted = {(split, other): n for split, other, k, n in pairs.iter_rows() if k == kind}
    mine = leaks.filter(pl.col("kind") == kind)
    return {
        "kind": kind,
        "likeness": LIKENESS[kind],
        "pairs": [{"split": a, "other": b, "count": counted.get((a, b), 0)} for a, b in DIRECTIONS],
        "leaking_test": len(leaking(mine, "test")),
    }


def _statement(pairs: int) -> str:
    found = f"{pairs:,} pairs of copies straddle the splits" if pairs else "No pair of copies straddles the splits"
    return f"{found}, by the search described under copies; it speaks of that likeness and threshold and of nothing else."
