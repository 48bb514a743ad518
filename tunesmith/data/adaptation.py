"""Unlabelled texts that a model is adapted to: read, cleaned, without those that held-out rows know, and set apart by hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.clean import clean_texts, cleaned_text, content_ids
from tunesmith.data.columns import choose_columns, plain_table
from tunesmith.data.near import near_duplicates
from tunesmith.data.open import LINES, open_tables
from tunesmith.data.split import Shares, split, units_of
from tunesmith.data.uniform import uniform_texts
from tunesmith.spec.schema import Data, Spec

WHERE = "model.adapt.texts"
FEW, SHARE, MOST, LARGEST_SHARE = 20, 0.05, 2000, 0.2
"""Texts held out for selecting and for scoring, of each: a share of all, but at least and at most so many, and never a larger share."""
TEXTS = ("text", "text_pair")


class Left(StrEnum):
    """Why a text was left out."""

    EMPTY_TEXT = "empty_text"
    DUPLICATE = "duplicate"
    HELD_OUT = "held_out"
    LIKE_HELD_OUT = "like_held_out"


EXPLANATIONS: dict[Left, str] = {
    Left.EMPTY_TEXT: "The text is empty, or nothing but whitespace and control characters.",
    Left.DUPLICATE: "The same text appears before.",
    Left.HELD_OUT: "A row that the model will be selected or tested on has the same text.",
    Left.LIKE_HELD_OUT: "A row that the model will be selected or tested on has nearly the same text.",
}


@dataclass(frozen=True)
class Adaptation:
    """Texts to learn from, to select by and to score by (id, text, label, source), those left out with `reason`, and how many were read.

    `crowded`: texts with so many look-alikes that not all were compared.
    """

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    dropped: pl.DataFrame
    read: int
    crowded: int


def adaptation_texts(spec: Spec, held_out: Sequence[pl.DataFrame]) -> Adaptation:
    """The texts that `model.adapt` names, changed and cleaned as the rows of the task are.

    Args:
        spec: with `model.adapt`.
        held_out: prepared rows whose texts must not be learned from.

    Raises:
        DataError: they cannot be read, hold no column of texts, or too few are left.
    """
    assert spec.model.adapt is not None, "asked for only where the spec names texts"
    table = _plain(spec)
    cleaned = clean_texts(uniform_texts(table, spec.data).with_columns(cleaned_text(pl.col("text"))))
    dropped = [cleaned.dropped.select("source", "text", "reason", "detail")]
    rows, crowded, clusters_N = cleaned.kept, 0, None
    texts = pl.concat([part[name].rename("text") for part in held_out for name in TEXTS if name in part.columns])
    texts = texts.to_frame().select(cleaned_text(pl.col("text"))).to_series()
    same_N = rows["id"].is_in(content_ids(texts.to_frame()).unique().implode()).to_numpy()
    like_N = np.zeros(len(rows), np.bool_)
    if spec.data.near_duplicates is not None:
        near = near_duplicates(pl.concat([rows["text"], texts]), spec.data.near_duplicates.jaccard)
        own_N, known = near.group_N[: len(rows)], np.unique(near.group_N[len(rows) :])
        beside = (near.left_K[np.isin(near.right_K, known)], near.right_K[np.isin(near.left_K, known)])
        like_N, crowded = np.isin(own_N, np.concatenate([known, *beside])) & ~same_N, near.crowded
        clusters_N = near.clusters_N[: len(rows)]
    for mask_N, reason in ((same_N, Left.HELD_OUT), (like_N, Left.LIKE_HELD_OUT)):
        dropped.append(rows.filter(mask_N).select("source", "text", reason=pl.lit(str(reason)), detail=pl.lit("")))
    kept_N = ~(same_N | like_N)
    kept = rows.filter(kept_N)
    share = min(LARGEST_SHARE, max(FEW / max(len(kept), 1), min(SHARE, MOST / max(len(kept), 1))))
    units = units_of(kept["id"], None if clusters_N is None else clusters_N[kept_N])
    parts = split(kept, units, spec.seed, Shares(share, share), stratified=False)
    gone = pl.concat(dropped)
    if min(len(parts.train), len(parts.validation), len(parts.test)) == 0:
        raise DataError(_too_few(len(table), len(kept), gone))
    return Adaptation(parts.train, parts.validation, parts.test, gone, len(table), crowded)


def _plain(spec: Spec) -> pl.DataFrame:
    """The texts as they are in the files: text, label (the same) and source."""
    assert spec.model.adapt is not None
    hints = Data(train=spec.model.adapt.texts, delimiter=spec.data.delimiter, encoding=spec.data.encoding)
    table = open_tables(spec.model.adapt.texts, hints, seed=spec.seed, tasks=(LINES,))[0].table
    if spec.data.text and spec.data.text[0] in table.columns:  # called as in the labelled table
        hints = hints.model_copy(update={"text": spec.data.text[:1]})
    try:
        return plain_table(table, choose_columns(table, hints, LINES), hints)
    except DataError as error:
        remedy = "Give the column of texts the name that it has in the labelled table, or text."
        raise DataError([replace(issue, where=WHERE, remedy=remedy) for issue in error.issues]) from error


def _too_few(read: int, kept: int, dropped: pl.DataFrame) -> Issue:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped["reason"].value_counts().iter_rows()))
    found = f"{kept} of {read}{f' ({reasons})' if reasons else ''}"
    known = dropped.filter(pl.col("reason").is_in([str(Left.HELD_OUT), str(Left.LIKE_HELD_OUT)])).height
    if kept == 0 and known:
        return Issue(WHERE, "must hold texts that no validation or test row has", found, "Name other texts.")
    return Issue(WHERE, "must leave texts to learn from, to select by and to score by", found, "Name more texts.")
