"""Labels that are numbers: how cells are read, what makes them useless, and what they look like."""

from __future__ import annotations

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue

MOST_UNREADABLE = 0.5
FLOAT32_MAX = 3.4028234663852886e38
"""The largest number that a network can be asked for: beyond it, float32 is infinite."""
QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "max": 1.0}


def numbers(cells: pl.Series) -> pl.Series:
    """Each cell as a float64: null where it is empty, NaN where it is no finite number (text, "nan", infinite, beyond FLOAT32_MAX).

    Raises:
        DataError: the column holds lists, structures or dates.
    """
    if cells.dtype.is_nested() or cells.dtype.is_temporal() or cells.dtype == pl.Binary:
        found = f"column {cells.name!r}"
        raise DataError(Issue(found, "must hold one number a row", str(cells.dtype), "Choose another with data.label."))
    if cells.dtype == pl.String:
        text = cells.str.replace_all(r"^[\p{Cc}\p{Z}]+|[\p{Cc}\p{Z}]+$", "")
        text = text.set(text == "", None)
        read = text.cast(pl.Float64, strict=False)
        read = read.set(read.is_null() & text.is_not_null(), float("nan"))
    else:
        read = cells.cast(pl.Float64)
    return read.set(read.abs() > FLOAT32_MAX, float("nan"))


def check_numbers(label: pl.Series) -> list[Issue]:
    """Fatal problems of the numbers of a whole training table: hardly any can be read, or all are the same."""
    given = label.drop_nulls()
    unreadable = int(given.is_nan().sum())
    if unreadable > MOST_UNREADABLE * len(given):
        remedy = "Write them as 3.5, or choose another column with data.label; for classes, set task: text-classification."
        return [Issue("data.label", "must hold numbers", f"{unreadable} of {len(given)} cells that are none", remedy)]
    finite = given.filter(given.is_finite())
    if finite.n_unique() < 2:
        found = f"only {finite[0]:g}" if len(finite) else "no number at all"
        return [Issue("data.label", "must hold different numbers", found, "Check that the right column was chosen: set data.label.")]
    return []


def described(label: pl.Series) -> dict[str, float | int | None]:
    """Rows, quantiles, mean and standard deviation of the numbers of a split; None where there are none."""
    values = {name: label.quantile(share, "linear") for name, share in QUANTILES.items()}
    return {"rows": len(label), **values, "mean": label.mean(), "deviation": label.std()}  # type: ignore[dict-item]
