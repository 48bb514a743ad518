"""Rows that cannot be learned from, or must not be counted twice, leave; each with a reason. What stays is normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import polars as pl

from tunesmith.data.columns import cleaned_label
from tunesmith.data.label_forms import has_classes, label_text, shown_label, strata
from tunesmith.data.marked import PROBLEM, followed
from tunesmith.data.relevant import with_text_groups
from tunesmith.data.spans import ANSWERS, NOWHERE
from tunesmith.data.targets import kept_text

SPLITS = ("train", "validation", "test")
CHUNK = 65536


class Reason(StrEnum):
    """Why a row was dropped."""

    EMPTY_TEXT = "empty_text"
    EMPTY_LABEL = "empty_label"
    NO_NUMBER = "no_number"
    BAD_SPANS = "bad_spans"
    SAME_AS_TEXT = "same_as_text"
    OTHER_TARGET = "other_target"
    NO_ANSWER_THERE = "answer_not_in_text"
    NO_RELEVANT = "no_relevant"
    CONFLICTING_LABELS = "conflicting_labels"
    DUPLICATE = "duplicate"
    IN_OTHER_SPLIT = "in_other_split"
    UNKNOWN_LABEL = "unknown_label"
    NO_SPLIT = "no_split"
    NO_MOMENT = "no_moment"
    NEAR_DUPLICATE = "near_duplicate"
    REVIEWED = "reviewed"
    NO_ANNOTATOR = "no_annotator"
    NO_CONSENSUS = "no_consensus"
    JUDGEMENT = "judgement"


EXPLANATIONS: dict[Reason, str] = {
    Reason.EMPTY_TEXT: "The text is empty, or nothing but whitespace and control characters.",
    Reason.EMPTY_LABEL: "There is no label.",
    Reason.NO_NUMBER: "The label, or the relevance of a text, is not a finite number.",
    Reason.NO_RELEVANT: "No text is relevant to the query.",
    Reason.SAME_AS_TEXT: "The target is the text itself, which nobody would have to write or to find.",
    Reason.OTHER_TARGET: "The same text with another target appears before, in the same table: the first one stays.",
    Reason.BAD_SPANS: "A span is empty, outside the text, not at its text, over another or through a character; or tags are missing.",
    Reason.NO_ANSWER_THERE: "No answer is in the text at its start, or exactly once elsewhere.",
    Reason.CONFLICTING_LABELS: "The same text appears with different labels.",
    Reason.DUPLICATE: "The same text with the same label appears before, in the same table.",
    Reason.IN_OTHER_SPLIT: "The same text is in the test table, or a training row's text is in the validation table.",
    Reason.UNKNOWN_LABEL: "No training row has this label, so the model cannot learn it.",
    Reason.NO_SPLIT: "The column that names the split says neither train nor validation nor test.",
    Reason.NO_MOMENT: "The cell with the row's time is empty or cannot be read.",
    Reason.REVIEWED: "A reviewer decided to drop it.",
    Reason.NO_ANNOTATOR: "The cell that says who gave the label is empty.",
    Reason.NO_CONSENSUS: "The annotators of the text come to no label: a tie, or each of them gave it several.",
    Reason.JUDGEMENT: "A further judgement of a text, which stays once, with the consensus of its annotators.",
    Reason.NEAR_DUPLICATE: "Nearly the same text with the same label appears before, in the training split.",
}


@dataclass(frozen=True)
class Cleaned:
    """Rows that stay (with `id`), rows that left (with `reason` and `detail`), and how many texts were normalised."""

    kept: pl.DataFrame
    dropped: pl.DataFrame
    normalised: int


def clean(table: pl.DataFrame, on_conflict: Literal["drop", "majority"]) -> Cleaned:
    """One plain table, cleaned: normalised, then without empty rows, conflicting labels and duplicates, in this order.

    Texts: Unicode NFC; control characters become spaces; zero-width marks go; runs of spaces become one; line breaks
    stay, at most two in a row; outer whitespace goes. Case stays.
    """
    texts = [name for name in ("text", "text_pair") if name in table.columns]
    answers = table.schema["label"] == ANSWERS
    label = cleaned_label(pl.col("label")) if table.schema["label"] == pl.String else pl.col("label")
    changed_texts = texts[:1] if answers else texts  # answers point into the second text: it stays as it is
    given = table.with_columns(pl.col(name).fill_null("") for name in texts)
    rows = given.with_columns(*(cleaned_text(pl.col(name)) for name in changed_texts), label.alias("label"))
    if PROBLEM in rows.columns:
        rows = followed(given["text"], rows)
    changed = sum(int((rows[name] != table[name].fill_null("")).sum()) for name in texts)
    gone: list[pl.DataFrame] = []
    rows = _without(rows, pl.any_horizontal(cleaned_text(pl.col(name)) == "" for name in texts), Reason.EMPTY_TEXT, pl.lit(""), gone)
    empty = pl.col("label").fill_null("") == "" if rows.schema["label"] == pl.String else pl.col("label").is_null()
    rows = _without(rows, empty, Reason.EMPTY_LABEL, pl.lit(""), gone)
    if rows.schema["label"].is_numeric():
        rows = _without(rows, pl.col("label").is_nan(), Reason.NO_NUMBER, pl.lit(""), gone)
    if answers:
        rows = _without(rows, pl.col("label").list.first().struct.field("start") == NOWHERE, Reason.NO_ANSWER_THERE, pl.lit(""), gone)
    if PROBLEM in rows.columns:
        rows = _with_sound_spans(rows, gone)
    rows = rows.insert_column(0, content_ids(rows))
    rows = _without_conflicts(rows, on_conflict, gone)
    first = pl.col("source").first().over("id")
    rows = _without(rows, ~pl.col("id").is_first_distinct(), Reason.DUPLICATE, pl.format("same as {}", first), gone)
    return Cleaned(rows, _all(gone), changed)


def clean_targets(table: pl.DataFrame, *, copies: bool) -> Cleaned:
    """One plain table of texts and targets, cleaned: without empty ones, further targets of a text, and duplicates. Only NFC changes them.

    `copies`: rows whose target is the text itself stay.
    """
    rows = table.with_columns(kept_text(pl.col("text")), kept_text(pl.col("label")))
    changed = sum(int((rows[name] != table[name].fill_null("")).sum()) for name in ("text", "label"))
    gone: list[pl.DataFrame] = []
    rows = _without(rows, cleaned_text(pl.col("text")) == "", Reason.EMPTY_TEXT, pl.lit(""), gone)
    rows = _without(rows, cleaned_text(pl.col("label")) == "", Reason.EMPTY_LABEL, pl.lit(""), gone)
    if not copies:
        rows = _without(rows, cleaned_text(pl.col("text")) == cleaned_text(pl.col("label")), Reason.SAME_AS_TEXT, pl.lit(""), gone)
    rows = rows.insert_column(0, content_ids(rows))
    same, first = pl.format("same as {}", pl.col("source").first().over("id")), pl.col("id").is_first_distinct()
    another = pl.col("label") != pl.col("label").first().over("id")
    rows = _without(rows, another, Reason.OTHER_TARGET, pl.format("the text is that of {}", pl.col("source").first().over("id")), gone)
    return Cleaned(_without(rows, ~first, Reason.DUPLICATE, same, gone), _all(gone), changed)


def clean_texts(table: pl.DataFrame) -> Cleaned:
    """One plain table of texts without labels, cleaned: without empty ones and duplicates. Only NFC changes them; `label` is the text."""
    cleaned = clean_targets(table.with_columns(label=pl.col("text")), copies=True)
    return replace(cleaned, normalised=cleaned.normalised // 2)  # text and label are one, and changed alike


def clean_relevant(table: pl.DataFrame, *, together: bool) -> Cleaned:
    """One plain table of queries and judged texts, cleaned, with a row for each query; useless judgements leave, each with a reason.

    A text that is judged several times for a query keeps its highest relevance; one that is both relevant and not leaves.
    `together`: queries for one text get one `group`.
    """
    rows = table.with_columns(cleaned_text(pl.col("text")))
    changed, gone = int((rows["text"] != table["text"].fill_null("")).sum()), list[pl.DataFrame]()
    rows = _without(rows, pl.col("text") == "", Reason.EMPTY_TEXT, pl.lit(""), gone)
    rows = _without(rows, pl.col("label").list.len().fill_null(0) == 0, Reason.EMPTY_LABEL, pl.lit(""), gone)
    text, relevance = (pl.col("label").struct.field(name) for name in ("text", "relevance"))
    pairs = rows.explode("label", empty_as_null=True).with_columns(_found=cleaned_text(text), _value=relevance)
    changed += int((pairs["_found"] != pairs["label"].struct.field("text").fill_null("")).sum())
    pairs = pairs.with_columns(label=pl.concat_list(pl.struct(text="_found", relevance="_value")))
    pairs = _without(pairs, pl.col("_found") == "", Reason.EMPTY_LABEL, pl.lit(""), gone)
    pairs = _without(pairs, ~pl.col("_value").is_finite().fill_null(False), Reason.NO_NUMBER, pl.lit(""), gone)
    pairs = _without(pairs, pl.col("_found") == pl.col("text"), Reason.SAME_AS_TEXT, pl.lit(""), gone)
    pairs = pairs.insert_column(0, content_ids(pairs))
    value = pl.col("_value")
    torn = (value.max().over("id", "_found") > 0) & (value.min().over("id", "_found") <= 0)
    pairs = _without(pairs, torn, Reason.CONFLICTING_LABELS, pl.lit("relevant and not relevant to one query"), gone)
    pairs = pairs.with_columns(pl.col("_value").max().over("id", "_found"))
    first = pl.col("source").first().over("id", "_found")
    pairs = _without(pairs, ~pl.struct("id", "_found").is_first_distinct(), Reason.DUPLICATE, pl.format("same as {}", first), gone)
    entry, best_first = pl.struct(text="_found", relevance="_value"), pairs.sort("_value", "_found", descending=[True, False])
    judged = best_first.group_by("id").agg(entry.alias("label"))
    once = pairs.drop("label", "_found", "_value").unique("id", keep="first", maintain_order=True)
    kept = once.join(judged, on="id", maintain_order="left")
    order = [name for name in ("id", *table.columns) if name in kept.columns]
    any_relevant = pl.col("label").list.eval(pl.element().struct.field("relevance") > 0).list.any()
    kept = _without(kept.select(order), ~any_relevant, Reason.NO_RELEVANT, pl.lit(""), gone)
    return Cleaned(with_text_groups(kept) if together else kept, _all(gone), changed)


def clean_across(splits: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Given splits without texts that two of them share: they leave train, then validation; the test stays as it is."""
    kept, gone = dict(splits), list[pl.DataFrame]()
    for name, others in (("train", ("validation", "test")), ("validation", ("test",))):
        for other in others:
            if name in splits and other in splits:
                shared = pl.col("id").is_in(splits[other]["id"].implode())
                kept[name] = _without(kept[name], shared, Reason.IN_OTHER_SPLIT, pl.lit(f"also in {other}"), gone)
    return kept, _all(gone)


def without_unknown_labels(splits: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Splits whose validation and test rows have only labels that a training row has, and the rows that left."""
    kept, gone = dict(splits), list[pl.DataFrame]()
    known = splits["train"]["label"]
    if not has_classes(known):
        return kept, _all(gone)
    several = known.dtype == pl.List
    labels = (strata(known).explode(empty_as_null=True) if several else known).drop_nulls().unique().implode()
    for name in ("validation", "test"):
        if name in kept:
            here = strata(kept[name]["label"])
            unknown = ~(here.list.eval(pl.element().is_in(labels)).list.all() if several else here.is_in(labels))
            kept[name] = _without(kept[name], pl.lit(unknown), Reason.UNKNOWN_LABEL, pl.lit(f"in {name}"), gone)
    return kept, _all(gone)


def _with_sound_spans(rows: pl.DataFrame, gone: list[pl.DataFrame]) -> pl.DataFrame:
    """Rows whose spans are sound, without the column that says what is wrong with others."""
    return _without(rows, pl.col(PROBLEM).is_not_null(), Reason.BAD_SPANS, pl.col(PROBLEM), gone).drop(PROBLEM)


def in_order(kept: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """The rows of all tables, one after the other: train, validation, test."""
    return pl.concat([kept[name] for name in SPLITS if name in kept], how="diagonal")


def by_place(table: pl.DataFrame) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """The rows of each split that the column `place` names, without that column, and the rows for which it names none."""
    gone: list[pl.DataFrame] = []
    rows = _without(table, pl.col("place").is_null(), Reason.NO_SPLIT, pl.lit(""), gone)
    named = {name: rows.filter(pl.col("place") == name).drop("place") for name in SPLITS}
    return {name: part for name, part in named.items() if part.height or name == "train"}, _all(gone)


def without_moment(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows whose time is known, and those that left."""
    gone: list[pl.DataFrame] = []
    return _without(rows, pl.col("moment").is_null(), Reason.NO_MOMENT, pl.lit(""), gone), _all(gone)


def without_reviewed(rows: pl.DataFrame, details: Mapping[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that no reviewer dropped, and those that left; `details` has, by row id, who dropped it and why."""
    gone: list[pl.DataFrame] = []
    detail = pl.col("id").replace_strict(details, default="", return_dtype=pl.String)
    return _without(rows, pl.col("id").is_in(list(details)), Reason.REVIEWED, detail, gone), _all(gone)


def without_near_duplicates(rows: pl.DataFrame, clusters: pl.Series, *, labelled: bool = True) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first row of each cluster and label, and those that left; `clusters` has the cluster number of each row.

    `labelled`: false where the label is the text, which differs within a cluster.
    """
    gone: list[pl.DataFrame] = []
    marked = rows.with_columns(clusters.alias("_cluster"))
    key = pl.struct("_cluster", (label_text(rows["label"]) if labelled else pl.lit("")).alias("_label"))
    kept = _without(marked, ~key.is_first_distinct(), Reason.NEAR_DUPLICATE, pl.format("like {}", pl.col("source").first().over(key)), gone)
    return kept.drop("_cluster"), _all(gone)


def cleaned_text(text: pl.Expr) -> pl.Expr:
    """The text as it is trained on and predicted on; null becomes empty."""
    return (
        text.fill_null("")
        .str.replace_all("[\u200b\u2060\ufeff]", "")
        .str.normalize("NFC")
        .str.replace_all("\r\n?|\u2028|\u2029|\x85", "\n")
        .str.replace_all(r"[\p{Cc}\p{Z}--\n]+", " ")
        .str.replace_all(" ?\n ?", "\n")
        .str.replace_all("\n{3,}", "\n\n")
        .str.strip_chars()
    )


def content_ids(rows: pl.DataFrame) -> pl.Series:
    """`id` of each row: 16 hex of SHA-256 over its cleaned text (and pair), all whitespace as single spaces."""
    content = pl.col("text").str.replace_all(r"\s+", " ")
    if "text_pair" in rows.columns:
        content = content + "\x1e" + pl.col("text_pair").str.replace_all(r"\s+", " ")
    parts = []
    for chunk in rows.select(content).to_series().to_frame().iter_slices(CHUNK):
        parts.append(pl.Series("id", [hashlib.sha256(text.encode()).hexdigest()[:16] for text in chunk.to_series()], pl.String))
    return pl.concat(parts) if parts else pl.Series("id", [], pl.String)


def empty_dropped() -> pl.DataFrame:
    """The table of dropped rows without a row."""
    return pl.DataFrame(schema={"source": pl.String, "text": pl.String, "label": pl.String, "reason": pl.String, "detail": pl.String})


def _without_conflicts(rows: pl.DataFrame, on_conflict: str, gone: list[pl.DataFrame]) -> pl.DataFrame:
    marked = rows.with_columns(label_text(rows["label"]).alias("_name"))
    conflicting = marked.filter((pl.col("_name").n_unique() > 1).over("id"))
    if not conflicting.height:
        return rows
    votes = conflicting.group_by("id", "_name").len()
    best = votes.filter(pl.col("len") == pl.col("len").max().over("id")).filter(pl.len().over("id") == 1)
    winners = best.select("id", pl.col("_name").alias("_winner"))
    ids = conflicting["id"].unique()
    marked = marked.join(winners, on="id", how="left", maintain_order="left")
    shown = pl.col("_winner").str.replace_all("\x1f", ", ", literal=True)
    if on_conflict == "majority":
        leaves = pl.col("id").is_in(ids.implode()) & (pl.col("_winner").is_null() | (pl.col("_winner") != pl.col("_name")))
        detail = pl.when(pl.col("_winner").is_null()).then(pl.lit("a tie")).otherwise(pl.format("the majority says {}", shown))
    else:
        leaves, detail = pl.col("id").is_in(ids.implode()), pl.lit("all rows with this text")
    return _without(marked, leaves, Reason.CONFLICTING_LABELS, detail, gone).drop("_name", "_winner")


def _without(rows: pl.DataFrame, leaves: pl.Expr, reason: Reason, detail: pl.Expr, gone: list[pl.DataFrame]) -> pl.DataFrame:
    """Rows that stay; those that leave are put into `gone`, which is the shape of dropped.parquet."""
    mask = rows.select(leaves.alias("leaves")).to_series()
    if not mask.any():
        return rows
    gone.append(left_rows(rows.with_columns(detail.cast(pl.String).alias("detail")).filter(mask), reason, pl.col("detail")))
    return rows.filter(~mask)


def left_rows(rows: pl.DataFrame, reason: Reason, detail: pl.Expr) -> pl.DataFrame:
    """The rows in the shape of dropped.parquet."""
    pair = ["text_pair"] if "text_pair" in rows.columns else []
    return rows.select(
        "source",
        "text",
        *pair,
        shown_label(rows["label"]).alias("label"),
        pl.lit(str(reason)).alias("reason"),
        detail.cast(pl.String).alias("detail"),
    )


def _all(gone: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([empty_dropped(), *gone], how="diagonal")
