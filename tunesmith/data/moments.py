"""Dates and times of any usual form as one number."""

from __future__ import annotations

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue


def moments(column: pl.Series) -> pl.Series:
    """Microseconds since 1970 of dates, times, ISO 8601 text or numbers (seconds); null where a cell is none of these."""
    name = f"column {column.name!r}"
    if column.dtype.is_numeric():
        whole = column.cast(pl.Float64).fill_nan(None)
        return (whole * 1e6).cast(pl.Int64, strict=False)
    if column.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).cast(pl.Int64)
    if column.dtype != pl.String:
        raise DataError(Issue(name, "must hold dates or times", str(column.dtype), "Write them as 2024-05-31 or 2024-05-31T14:00:00Z."))
    text = (
        column.str.strip_chars().str.replace(r"(?i)z$", "+00:00").str.replace(r"^(\d{4})/(\d\d)/(\d\d)", "$1-$2-$3").str.replace(" ", "T")
    )
    parsed = text.to_frame("t").select(
        pl.coalesce(
            pl.col("t").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="us").dt.convert_time_zone("UTC").dt.epoch("us"),
            pl.col("t").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us").dt.epoch("us"),
            pl.col("t").str.to_datetime("%Y-%m-%dT%H:%M", strict=False, time_unit="us").dt.epoch("us"),
            pl.col("t").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.epoch("us"),
            (pl.col("t").str.extract(r"^(\d{9,10}(?:\.\d+)?)$").cast(pl.Float64) * 1e6).cast(pl.Int64),
        )
    )
    return parsed.to_series()
