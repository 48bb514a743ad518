"""Labels that are numbers: how cells are read, what makes them useless, and the classes that stand for them where rows are spread."""

from __future__ import annotations

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.marked import SPANS, span_texts, types_of
from tunesmith.data.spans import ANSWERS, key_of_answers, shown_answers

BANDS = 10
MOST_UNREADABLE = 0.5
QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "max": 1.0}


def numbers(cells: pl.Series) -> pl.Series:
    """Each cell as a float64: null where it is empty, NaN where it is no finite number (text, "nan", infinite).

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
    return read.set(read.is_infinite(), float("nan"))


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


def has_classes(label: pl.Series) -> bool:
    """True for labels that are classes; False for numbers and for answers."""
    return not label.dtype.is_numeric() and label.dtype != ANSWERS


def strata(label: pl.Series) -> pl.Series:
    """The classes that splits and folds spread evenly: the labels themselves; for numbers, the tenth of the rows that each is in."""
    if label.dtype == ANSWERS:
        return (label.list.len() == 0).replace_strict({True: "no answer", False: "answer"}, return_dtype=pl.String)
    if label.dtype == SPANS:
        return types_of(label)
    if not label.dtype.is_numeric():
        return label
    rank = label.rank("min").fill_null(1) - 1  # equal numbers are in one tenth
    return (rank * BANDS / max(len(label), 1)).floor().cast(pl.Int64).cast(pl.String)


def label_text(label: pl.Series) -> pl.Expr:
    """The column `label` as a text that is equal where labels are; `label` says of which kind it is."""
    if label.dtype == ANSWERS:
        return key_of_answers()
    if label.dtype == SPANS:
        return span_texts().list.join("\x1f")
    if label.dtype == pl.List:
        return pl.col("label").list.join("\x1f")
    return pl.col("label").cast(pl.String) if label.dtype.is_numeric() else pl.col("label")


def shown_label(label: pl.Series) -> pl.Expr:
    """The column `label` as a text for readers."""
    if label.dtype == ANSWERS:
        return shown_answers()
    if label.dtype == SPANS:
        return span_texts().list.join(", ")
    return pl.col("label").list.join(", ") if label.dtype == pl.List else label_text(label)


def described(label: pl.Series) -> dict[str, float | int | None]:
    """Rows, quantiles, mean and standard deviation of the numbers of a split; None where there are none."""
    values = {name: label.quantile(share, "linear") for name, share in QUANTILES.items()}
    return {"rows": len(label), **values, "mean": label.mean(), "deviation": label.std()}  # type: ignore[dict-item]
