"""Datasets of the Hugging Face hub: `hf://owner/name` or `hf://owner/name/config`, through the package `datasets`.

The reading itself is not tested here: it needs the network. No code of a dataset is run.
"""

from __future__ import annotations

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, dropped_table, held, warning

SCHEME = "hf://"


def recognise(address: str) -> str | None:
    """Why this is a dataset of the hub: the address begins with hf://; None otherwise."""
    return f"the address begins with {SCHEME}" if address.startswith(SCHEME) else None


def read(address: str, why: str) -> Items:
    """All rows of all splits, with `source` and `split`. Columns of pictures or sounds stay structs of path and bytes.

    Raises:
        DataError: the package is missing, the address is not owner/name[/config], or the dataset cannot be loaded.
    """
    parts = address.removeprefix(SCHEME).removeprefix("datasets/").strip("/").split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise DataError(Issue(address, "must be hf://owner/name or hf://owner/name/config", "another form", "Check the address."))
    name = "/".join(parts[:2])
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            Issue(address, "needs the package `datasets`", "it is not installed", "Install it: pip install tunesmith[hub].")
        ) from error
    try:
        found = datasets.load_dataset(name, parts[2] if len(parts) == 3 else None)
    except (OSError, ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(Issue(address, "must be a dataset that can be loaded", problem, "Check the name and the network.")) from error
    frames = [_sourced(data.to_polars(), name, str(split)) for split, data in found.items()]
    table = held(address, pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(), ())
    issues = (warning(address, "the version of the dataset should be fixed", "the newest one was loaded"),)
    return Items("table", "hub", why, None, table, dropped_table(()), issues)


def _sourced(table: pl.DataFrame, name: str, split: str) -> pl.DataFrame:
    kept = table.rename({own: f"{own}_in_file" for own in ("source", "split") if own in table.columns})
    numbers = pl.int_range(1, table.height + 1, eager=True).cast(pl.String)
    return kept.with_columns((pl.lit(f"{name} {split}:") + numbers).alias("source"), pl.lit(split).alias("split"))
