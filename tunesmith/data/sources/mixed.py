"""Several sources as one table, in shares proportional to weights."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items

PATHS = ("image", "audio")


@dataclass(frozen=True)
class Mixed:
    """The rows of all sources, the folder their paths are relative to, and a row of counts per source.

    counts: part (from 1), format, weight, rows, kept, left_out, share (of the mixed rows).
    """

    table: pl.DataFrame
    root: Path | None
    counts: pl.DataFrame


def mixed(parts: Sequence[tuple[Items, float]], seed: int) -> Mixed:
    """As many rows as there can be without repeating one, each source's share of them proportional to its weight.

    Which rows stay is decided by a hash of seed, part and `source`: the same ones on every machine, and more of the
    same ones when a weight grows. Rows keep their order; shares are exact up to one row per source.

    Raises:
        DataError: no source, a weight that is not positive, another kind or other columns.
    """
    _check(parts)
    takes = shares([items.table.height for items, _ in parts], [weight for _, weight in parts])
    roots = [items.root for items, _ in parts if items.root is not None]
    root = Path(os.path.commonpath([path.resolve() for path in roots])) if roots else None
    columns = parts[0][0].table.columns
    frames = [
        _relative(items.table[chosen(items.table["source"], take, seed, number)], items.root, root).select(columns)
        for number, ((items, _), take) in enumerate(zip(parts, takes, strict=True))
    ]
    total = max(1, sum(takes))
    counts = [
        (number, items.format, float(weight), items.table.height, take, items.table.height - take, take / total)
        for number, ((items, weight), take) in enumerate(zip(parts, takes, strict=True), start=1)
    ]
    names = ["part", "format", "weight", "rows", "kept", "left_out", "share"]
    return Mixed(pl.concat(frames), root, pl.DataFrame(counts, schema=names, orient="row"))


def shares(heights: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many rows each source gives: in proportion to the weights, as many as there can be without repeating one."""
    scale = min(height / weight for height, weight in zip(heights, weights, strict=True))
    return [min(height, math.floor(scale * weight + 1e-9)) for height, weight in zip(heights, weights, strict=True)]


def chosen(sources: pl.Series, count: int, seed: int, number: int) -> list[int]:
    """Row numbers of the `count` rows with the smallest hashes of seed, number of the part (from 0) and `source`, in their order."""
    hashes = [hashlib.sha256(f"{seed}\x1f{number}\x1f{source}".encode()).digest() for source in sources]
    return sorted(sorted(range(len(hashes)), key=lambda row: (hashes[row], row))[:count])


def _check(parts: Sequence[tuple[Items, float]]) -> None:
    issues = [] if parts else [Issue("sources", "must be at least one", "none", "Name a source.")]
    for number, (items, weight) in enumerate(parts, start=1):
        where = f"source {number} ({items.format})"
        first = parts[0][0]
        if not (math.isfinite(weight) and weight > 0):
            issues.append(Issue(where, "must have a weight above 0", str(weight), "Leave the source out, or give it a weight."))
        if items.kind != first.kind:
            issues.append(Issue(where, f"must be {first.kind} like the first source", items.kind, "Mix sources of one kind."))
        elif dict(items.table.schema) != dict(first.table.schema):
            own, others = set(items.table.schema.items()), set(first.table.schema.items())
            found = ", ".join(sorted({name for name, _ in own ^ others}))
            issues.append(
                Issue(where, "must have the columns of the first source", f"differences in {found}", "Select and cast them first.")
            )
    if issues:
        raise DataError(issues)


def _relative(table: pl.DataFrame, old: Path | None, new: Path | None) -> pl.DataFrame:
    """The table with paths relative to the folder that all sources share."""
    if old is None or new is None or old.resolve() == new:
        return table
    prefix = old.resolve().relative_to(new).as_posix()
    return table.with_columns((pl.lit(f"{prefix}/") + pl.col(name)).alias(name) for name in PATHS if name in table.columns)
