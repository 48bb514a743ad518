"""What the report tells of masked tokens: how they fare by the length of texts, and the texts that surprise the model most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunesmith.document.contents import Contents

LENGTHS = ((1, 2), (3, 5), (6, 20), (21, 100), (101, None))
"""Masked tokens of a row, in bands."""
FEWEST = 2
"""Masked tokens of a row that is shown among the worst, where there are enough such rows: a single one says little about a text."""
SHOWN = 6
"""Masked tokens of a row that are shown."""


@dataclass(frozen=True)
class Band:
    """Test rows by the number of their masked tokens: rows, masked tokens, loss of a token, and the share that was likeliest."""

    low: int
    high: int | None
    n: int
    tokens: int
    loss: float
    right: float


@dataclass(frozen=True)
class Surprise:
    """A test row with the loss of a masked token, and those that were least expected: what was right, what was said, how likely."""

    text: str
    loss: float
    tokens: int
    masks: list[dict[str, Any]]
    source: str


def told_masks(contents: Contents) -> dict[str, Any]:
    """What the sections about masked tokens walk over."""
    rows = contents.test
    if rows.is_empty():
        return {"bands": [], "surprises": []}
    return {"bands": _bands(rows), "surprises": _surprises(contents)}


def _bands(rows: pl.DataFrame) -> list[Band]:
    loss_N, tokens_N, hits_N = (rows[name].to_numpy() for name in ("loss", "tokens", "hits"))
    out = []
    for low, high in LENGTHS:
        inside = (tokens_N >= low) & (tokens_N <= (high or np.inf))
        if inside.any():
            tokens = int(tokens_N[inside].sum())
            out.append(
                Band(low, high, int(inside.sum()), tokens, float(loss_N[inside].sum() / tokens), float(hits_N[inside].sum() / tokens))
            )
    return out


def _surprises(contents: Contents) -> list[Surprise]:
    """The test rows with the highest loss of a masked token, as many as the spec asks for."""
    count = int(contents.setting("evaluate.mistakes", 20))
    known = {row["id"]: row for row in contents.test_texts.iter_rows(named=True)}
    mean = pl.col("loss") / pl.col("tokens")
    ranked = contents.test.filter(pl.col("tokens") > 0).with_columns(few=pl.col("tokens") < FEWEST, mean=mean)
    out = []
    for row in ranked.sort("few", "mean", "id", descending=[False, True, False]).head(count).iter_rows(named=True):
        given = known.get(row["id"], {})
        out.append(Surprise(row["label"], row["mean"], row["tokens"], row["masks"][:SHOWN], given.get("source") or ""))
    return out
