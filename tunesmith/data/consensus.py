"""One label for each text that several annotators judged, how far they agree, and how good each of them is.

A judgement is a row of a plain table with a column `annotator`. Judgements of one text (after cleaning) become one row with
their consensus; everything that leaves is counted with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Finding, Issue
from tunesmith.data.clean import Reason, cleaned_text, content_ids, empty_dropped, left_rows
from tunesmith.data.columns import Columns, cleaned_label
from tunesmith.data.item_agreement import rated
from tunesmith.data.load import SOURCE
from tunesmith.spec.schema import Data

TEXT_CHARACTERS = 300
NAMES = (
    "annotator", "annotator_id", "annotatorid", "annotator_name", "worker", "worker_id", "workerid", "rater", "rater_id", "raterid",
    "coder", "coder_id", "labeler", "labeller", "labeler_id", "labeller_id", "labelled_by", "labeled_by", "annotated_by", "judge",
    "judge_id", "completed_by", "reviewer", "user_id",
)  # fmt: skip
NUMBERED = re.compile(r"(.*?)[ _.-]?(\d{1,2}|[a-zA-Z])")
STEMS = ("label", "annotator", "annotation", "rater", "rating", "coder", "judge", "worker", "labeler", "labeller")


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
        DataError: texts times annotators are more than can be held, or every annotator contradicts themselves on every text.
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
        name, value = f"data/annotators/accuracy/{row['annotator']}", row["accuracy"]
        unknown = Finding(name, claim, None, n=row["judged"], source="unknown", note="no text with a majority of others")
        out.append((unknown if value is None else Finding(name, claim, value, n=row["judged"]), f"/annotators/{place}/accuracy"))
    return out


def unnamed_annotators(table: pl.DataFrame, columns: Columns, data: Data) -> list[Issue]:
    """A warning where the spec names no annotators and a column, or several, look like them; nothing is taken without being asked."""
    if data.annotator or isinstance(data.label, tuple):
        return []
    field, what = ("data.annotator", one) if (one := annotator_column(table, columns)) else ("data.label", label_columns(table, columns))
    if not what:
        return []
    remedy = f"Set {field}: {what[0]} to train on the consensus of the annotators; until then each row stands for itself."
    return [Issue(field, "should be named if several people labelled the same texts", f"{what[0]}: {what[1]}", remedy, fatal=False)]


def annotator_column(table: pl.DataFrame, columns: Columns) -> tuple[str, str] | None:
    """A column that seems to say who gave a label, and why: texts repeat, it has at most one row for each text and value, and it
    is named so, or holds few enough values to be people."""
    text, height = list(columns.text), table.height
    texts = table.select(text).n_unique()
    if texts > 0.9 * height:
        return None
    kinds = dict(table.schema)
    others = [name for name in table.columns if name not in (*text, columns.label, SOURCE) and _may_name(kinds[name])]
    for name in sorted(others, key=lambda name: name.lower() not in NAMES):
        filled = table.select(*text, name).drop_nulls(name)
        people, named = filled[name].n_unique(), name.lower() in NAMES
        if people < 2 or filled.height < 0.9 * height or filled.n_unique() < 0.98 * filled.height:
            continue
        if named or (people <= height / 5 and texts <= 0.6 * height and not _numbers_repeats(table, text, name)):
            return name, f"{height:,} rows hold {texts:,} texts, and each of its {people:,} values at most once with a text"
    return None


def label_columns(table: pl.DataFrame, columns: Columns) -> tuple[str, str] | None:
    """Columns that seem to hold the labels of one annotator each, as a list in YAML, and why: they are numbered and share labels."""
    numbered: dict[str, list[str]] = {}
    for name in table.columns:
        if found := NUMBERED.fullmatch(name):
            numbered.setdefault(found[1].lower(), []).append(name)
    kinds = dict(table.schema)
    for stem, names in numbered.items():
        if stem in STEMS and 2 <= len(names) <= 26 and all(_may_name(kinds[name]) and name not in columns.text for name in names):
            values = [set(table[name].drop_nulls().cast(pl.String)) for name in names]
            if all(len(own & values[0]) >= len(own) / 2 and own for own in values) and len(set().union(*values)) <= table.height / 2:
                return f"[{', '.join(names)}]", "numbered columns that hold the same labels"
    return None


def _may_name(kind: pl.DataType) -> bool:
    return not (kind.is_nested() or kind.is_float() or kind.is_temporal() or kind in (pl.Binary, pl.Boolean))


def _numbers_repeats(table: pl.DataFrame, text: list[str], name: str) -> bool:
    """True for a column that only numbers the rows of a text (0, 1, 2, …), which says nothing about who."""
    return table[name].dtype.is_integer() and bool((table[name] <= table.select(pl.len().over(text)).to_series()).all())


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
