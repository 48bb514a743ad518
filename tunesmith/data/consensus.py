"""One label for each text that several annotators judged, how far they agree, and how good each of them is.

A judgement is a row of a plain table with a column `annotator`. Judgements of one text (after cleaning) become one row with
their consensus; everything that leaves is counted with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Finding, Issue
from tunesmith.data.clean import Reason, cleaned_text, content_ids, empty_dropped, left_rows
from tunesmith.data.columns import cleaned_label
from tunesmith.data.item_agreement import rated
from tunesmith.data.load import SOURCE
from tunesmith.spec.schema import Data

TEXT_CHARACTERS = 300
ID_CHARACTERS = 16
NAMES = (
    "annotator", "annotator_id", "annotatorid", "annotator_name", "worker", "worker_id", "workerid", "rater", "rater_id", "raterid",
    "coder", "coder_id", "labeler", "labeller", "labeler_id", "labeller_id", "labelled_by", "labeled_by", "annotated_by", "judge",
    "judge_id", "completed_by", "reviewer", "user_id",
)  # fmt: skip


@dataclass(frozen=True)
class Agreed:
    """Plain tables with a row per text, the rows that left, what the annotators' labels say (None: not asked for), warnings.

    `consensus`: a row for each text that was judged, with the labels by majority and by Dawid and Skene; None as `told` is.
    """

    tables: dict[str, pl.DataFrame]
    dropped: pl.DataFrame
    told: dict[str, Any] | None
    consensus: pl.DataFrame | None
    issues: tuple[Issue, ...]


def judgements(table: pl.DataFrame, data: Data) -> tuple[pl.DataFrame, Data]:
    """The table in long form, and the spec that fits it: with several label columns, each row becomes one for each filled cell.

    `__source__` stays that of the row; a row without any label stays once. Tables with one label column stay as they are.

    Raises:
        DataError: a label column is missing.
    """
    if not isinstance(data.label, tuple):
        return table, data
    missing = [name for name in data.label if name not in table.columns]
    if missing:
        others = ", ".join(name for name in table.columns if name != SOURCE)
        raise DataError(Issue("data.label", f"must name columns of the table: {missing[0]!r}", others, "Check the names."))
    label, annotator = (_free(name, table.columns) for name in ("label", "annotator"))
    kinds = {table.schema[name] for name in data.label}
    same = table if len(kinds) == 1 else table.with_columns(pl.col(name).cast(pl.String) for name in data.label)
    ids = [name for name in table.columns if name not in data.label]
    rows = same.with_row_index("__row__").unpivot(data.label, index=["__row__", *ids], variable_name=annotator, value_name=label)
    empty = pl.col(label).is_null() | (pl.col(label).cast(pl.String).str.strip_chars() == "")
    kept = rows.filter(~empty | (empty.all().over("__row__") & (pl.col(annotator) == data.label[0])))
    return kept.sort("__row__", maintain_order=True).drop("__row__"), data.model_copy(update={"label": label, "annotator": annotator})


def agree(tables: Mapping[str, pl.DataFrame], data: Data) -> Agreed:
    """The tables with one row for each text that annotators judged, labelled with their consensus as `data.consensus` says.

    The first row of a text stays. All tables with a column `annotator` are judged together, since an annotator is one person
    in all of them; the same text in two tables is two items. Rows without text or label are left to cleaning.

    Raises:
        DataError: texts times annotators are more than can be held.
    """
    judged = [name for name, table in tables.items() if "annotator" in table.columns]
    if not judged:
        return Agreed(dict(tables), empty_dropped(), None, None, ())
    rows = pl.concat([_keyed(tables[name], name) for name in judged], how="diagonal").with_row_index("_row")
    usable = rows.filter("_usable")
    nameless = usable.filter(pl.col("annotator").is_null())
    gone = [left_rows(nameless.unique("source", maintain_order=True, keep="first"), Reason.NO_ANNOTATOR, pl.lit(""))]
    usable = usable.filter(pl.col("annotator").is_not_null())
    rest = rows.filter(~pl.col("_usable")).unique(["_table", "source"], maintain_order=True, keep="first")
    rest = rest.join(usable, on=["_table", "source"], how="anti", maintain_order="left")  # a row with one label is not without
    votes = usable.select("item", "annotator", pl.col("_label").alias("label"))
    found = rated(votes, "text", data.annotator or "")
    if found is None:
        kept, issues = usable, [_one_annotator(usable)]
        told, consensus = None, None
    else:
        told, consensus = _with_texts(found, usable)
        kept, left = _decided(usable, consensus, data.consensus)
        gone += left
        issues = _warnings(told, data)
    kept = pl.concat([kept, rest]).sort("_row")
    out = {name: _plain(kept.filter(pl.col("_table") == name), tables[name]) for name in judged}
    missing = [_gold(name) for name in tables if name not in judged]
    return Agreed({**tables, **out}, pl.concat(gone, how="diagonal"), told, consensus, (*issues, *missing))


def agreement_findings(told: Mapping[str, Any]) -> list[tuple[Finding, str]]:
    """The data/agreement/* and data/annotators/* findings, each with its pointer below `annotators` of profile.json."""
    out: list[tuple[Finding, str]] = []
    counts = {
        "judgements": ("labels that annotators gave", "judgements", "judgements"),
        "items": ("texts that annotators judged", "texts", "items"),
        "several": ("texts that several annotators judged", "texts", "several"),
        "ties": ("texts whose annotators are a tie by majority", "texts", "ties"),
        "undecided": ("texts for which majority and the model of Dawid and Skene do not give the same label", "texts", "undecided"),
        "contradictory": ("times that one annotator gave one text two labels, of which none is used", "times", "contradictory"),
    }
    for name, (claim, unit, key) in counts.items():
        out.append((Finding(f"data/annotators/{name}", claim, told[key], unit, told["items"]), f"/{key}"))
    for place, row in enumerate(told["measures"]):
        source = "computed" if row["value"] is not None else "unknown"
        claim, interval = f"agreement of annotators: {row['name']}, by text", tuple(row["interval"]) if row["interval"] else None
        finding = Finding(f"data/agreement/{row['id']}", claim, row["value"], "", row["n"], interval, source, note=row["note"])  # type: ignore[arg-type]
        out.append((finding, f"/measures/{place}/value"))
    for place, row in enumerate(told["annotators"]):
        claim = f"share of texts on which {row['annotator']} agrees with the majority of the others"
        source, note = ("computed", "") if row["accuracy"] is not None else ("unknown", "no text with a majority of others")
        finding = Finding(
            f"data/annotators/accuracy/{row['annotator']}", claim, row["accuracy"], "", row["judged"], source=source, note=note
        )  # type: ignore[arg-type]
        out.append((finding, f"/annotators/{place}/accuracy"))
    return out


def looks_like_annotators(table: pl.DataFrame, text: tuple[str, ...], label: str | None) -> tuple[str, str] | None:
    """A column that seems to say who gave a label, and why: it is named so, or texts repeat and none has a value of it twice."""
    others = [name for name in table.columns if name not in (*text, label, SOURCE)]
    height, texts = table.height, table.select(text).n_unique() if text else table.height
    if not text or texts > 0.9 * height:
        return None
    kinds = dict(table.schema)
    for name in sorted(others, key=lambda name: name.lower() not in NAMES):
        if kinds[name].is_nested() or kinds[name].is_float() or kinds[name].is_temporal() or kinds[name] == pl.Binary:
            continue
        people = table[name].drop_nulls().n_unique()
        once = table.select(*text, name).drop_nulls(name).n_unique() >= 0.98 * table[name].drop_nulls().len()
        if people < 2 or not once or table[name].null_count() > height / 10:
            continue
        named = name.lower() in NAMES
        if named or (people <= height / 5 and texts <= 0.6 * height and not _follows(table, text, name)):
            what = "its name says so" if named else "no text has one of its values twice"
            return name, f"{what}; {height:,} rows hold {texts:,} texts and {people:,} values of it"
    return None


def _follows(table: pl.DataFrame, text: tuple[str, ...], name: str) -> bool:
    """True for a column that only numbers the repeats of a text (0, 1, 2, …), which says nothing about who."""
    return table[name].dtype.is_integer() and bool((table[name] <= table.select(pl.len().over(list(text))).to_series()).all())


def _free(name: str, taken: list[str]) -> str:
    return name if name not in taken else _free(f"{name}_", taken)


def _keyed(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows with `item` (table, split and content of the text), the cleaned label, and whether there are text and label."""
    texts = [column for column in ("text", "text_pair") if column in table.columns]
    cleaned = table.with_columns(cleaned_text(pl.col(column)) for column in texts)
    place = pl.col("place").fill_null("") if "place" in table.columns else pl.lit("")
    rows = table.with_columns(content_ids(cleaned).alias("_id"), cleaned_label(pl.col("label")).fill_null("").alias("_label"))
    full = pl.all_horizontal(*(cleaned[column] != "" for column in texts), pl.col("_label") != "")
    return rows.with_columns(
        pl.lit(name).alias("_table"), pl.format("{} {} {}", pl.lit(name), place, "_id").alias("item"), full.alias("_usable")
    )


def _decided(usable: pl.DataFrame, consensus: pl.DataFrame, rule: str) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """The first row of each text with its consensus, and the rows that left."""
    rows = usable.unique(["_table", "source"], maintain_order=True, keep="first")
    rows = rows.join(consensus.select("item", pl.col(rule).alias("_agreed"), "votes"), on="item", how="left", maintain_order="left")
    first, agreed = pl.col("item").is_first_distinct(), pl.col("_agreed").is_not_null()
    said = pl.coalesce("votes", pl.lit("each of its annotators gave it several labels"))
    undecided = left_rows(rows.filter(~agreed), Reason.NO_CONSENSUS, said)
    rows = rows.with_columns(pl.format("same text as {}", pl.col("source").first().over("item")).alias("_same"), first.alias("_first"))
    further = left_rows(rows.filter(agreed & ~pl.col("_first")), Reason.JUDGEMENT, pl.col("_same"))
    kept = rows.filter(agreed & pl.col("_first")).with_columns(pl.col("_agreed").alias("label"))
    return kept.select(usable.columns), [undecided, further]


def _with_texts(found: tuple[dict[str, Any], pl.DataFrame], usable: pl.DataFrame) -> tuple[dict[str, Any], pl.DataFrame]:
    """The same, with texts beside the items, and the number of judgements."""
    content, consensus = found
    texts = usable.unique("item", keep="first").select("item", pl.col("text").str.slice(0, TEXT_CHARACTERS))
    table = consensus.join(texts, on="item", how="left", maintain_order="left")
    shown = dict(texts.filter(pl.col("item").is_in([row["item"] for row in content["examples"]])).iter_rows())
    examples = [{**row, "item": shown[row["item"]]} for row in content["examples"]]
    return {**content, "judgements": usable.height, "examples": examples}, table


def _plain(kept: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    return kept.select(name for name in like.columns if name != "annotator")


def _one_annotator(usable: pl.DataFrame) -> Issue:
    found = f"one, {usable['annotator'][0]!r}" if usable.height else "empty cells"
    return Issue(
        "data.annotator", "should name several annotators", found, "There is no consensus of one: labels stay as they are.", fatal=False
    )


def _gold(name: str) -> Issue:
    return Issue(f"data.{name}", "should say who gave its labels", "no such column", "Its labels are taken as they are.", fatal=False)


def _warnings(told: Mapping[str, Any], data: Data) -> list[Issue]:
    if told["several"]:
        return []
    remedy = "Choose the column of the person who gave the label."
    found = f"no text with judgements of two ({told['items']:,} texts)"
    return [Issue("data.annotator", "should name annotators of the same texts", found, remedy, fatal=False)]
