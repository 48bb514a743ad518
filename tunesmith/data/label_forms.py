"""What every kind of labels has, by the type of the column: what splits spread evenly, a key, a text for readers, fatal problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from tunesmith.core.records import Issue
from tunesmith.data.marked import SPANS, check_spans, span_texts, types_of
from tunesmith.data.numbers import check_numbers
from tunesmith.data.relevant import RELEVANT, check_relevant, key_of_relevant, shown_relevant
from tunesmith.data.spans import ANSWERS, check_answers, key_of_answers, shown_answers

BANDS = 10


@dataclass(frozen=True)
class Form:
    """A form of labels.

    `strata` are the classes that splits and folds spread evenly; `key` is a text that is equal where labels are; `shown` is for readers;
    `check` tells what makes a whole training table useless. `classes`: there is a vocabulary that test rows may not leave.
    """

    strata: Callable[[pl.Series], pl.Series]
    key: Callable[[], pl.Expr]
    shown: Callable[[], pl.Expr]
    check: Callable[[pl.Series], list[Issue]]
    classes: bool = False


def _tenths(label: pl.Series) -> pl.Series:
    """The tenth of the rows that each number is in; equal numbers are in one."""
    rank = label.rank("min").fill_null(1) - 1
    return (rank * BANDS / max(len(label), 1)).floor().cast(pl.Int64).cast(pl.String)


def _answered(label: pl.Series) -> pl.Series:
    return (label.list.len() == 0).replace_strict({True: "no answer", False: "answer"}, return_dtype=pl.String)


def _one(label: pl.Series) -> pl.Series:
    return pl.Series(label.name, ["query"] * len(label), pl.String)


def _unchecked(_label: pl.Series) -> list[Issue]:
    return []


LABEL = pl.col("label")
NUMBERS = Form(_tenths, lambda: LABEL.cast(pl.String), lambda: LABEL.cast(pl.String), check_numbers)
TEXTS = Form(lambda label: label, lambda: LABEL, lambda: LABEL, _unchecked, classes=True)
LISTS = Form(lambda label: label, lambda: LABEL.list.join("\x1f"), lambda: LABEL.list.join(", "), _unchecked, classes=True)
FORMS: dict[pl.DataType, Form] = {
    ANSWERS: Form(_answered, key_of_answers, shown_answers, check_answers),
    SPANS: Form(
        types_of, lambda: span_texts().list.join("\x1f"), lambda: span_texts().list.join(", "), check_spans, classes=True
    ),
    RELEVANT: Form(_one, key_of_relevant, shown_relevant, check_relevant),
}  # fmt: skip


def form_of(label: pl.Series) -> Form:
    """The form of a column of labels."""
    if label.dtype.is_numeric():
        return NUMBERS
    known = next((form for kind, form in FORMS.items() if label.dtype == kind), None)
    return known or (LISTS if label.dtype == pl.List else TEXTS)


def has_classes(label: pl.Series) -> bool:
    """True for labels that are classes, or have types."""
    return form_of(label).classes


def strata(label: pl.Series) -> pl.Series:
    """The classes that splits and folds spread evenly."""
    return form_of(label).strata(label)


def label_text(label: pl.Series) -> pl.Expr:
    """The column `label` as a text that is equal where labels are; `label` says of which form it is."""
    return form_of(label).key()


def shown_label(label: pl.Series) -> pl.Expr:
    """The column `label` as a text for readers."""
    return form_of(label).shown()
