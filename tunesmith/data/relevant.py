"""Labels that are texts relevant to a query: how cells are read, what makes a judgement useless, and what queries have in common.

Prepared tables have a row for each query; its label lists the texts that were judged for it, each with its relevance: above nought
for those that are relevant, nought for those that are not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.cells import json_value
from tunesmith.data.numbers import FLOAT32_MAX, numbers

RELEVANT = pl.List(pl.Struct({"text": pl.String, "relevance": pl.Float64}))
QUERY_NAMES = ("query", "anchor", "question", "user", "search", "search_term", "sentence1", "text1", "premise")
TEXT_NAMES = (
    "positive", "positives", "passage", "passages", "document", "doc", "item", "product", "pos", "relevant", "context", "answer",
    "sentence2", "text2", "text",
)  # fmt: skip
NEGATIVE_NAMES = ("negative", "negatives", "neg", "hard_negative", "hard_negatives", "irrelevant")
RELEVANCE_NAMES = ("relevance", "relevant", "label", "score", "rating", "grade", "clicked", "y")
SPOKEN = ("anchor", "positive"), ("query", "positive"), ("query", "passage"), ("query", "document"), ("query", "doc"), ("user", "item")
"""Pairs of names that speak of a query and a text for it, whatever the cells hold."""
MOST_UNREADABLE = 0.5
ENTRY_TEXTS, ENTRY_VALUES = ("text", "passage", "document"), ("relevance", "score", "label")


def ranked_columns(
    table: pl.DataFrame, text: tuple[str, ...] | None, label: str | None, why: dict[str, str]
) -> tuple[tuple[str, ...], str | None]:
    """(query,) and the column of its texts; or (query, text) and the column of the text's relevance.

    Raises:
        DataError: the only columns that are named like a relevance hold none, so that every text would count as relevant.
    """
    lower = {name.lower(): name for name in reversed(table.columns)}
    free = {name: column for name, column in lower.items() if column not in (*(text or ()), label)}

    def named(names: Sequence[str], reason: str) -> str | None:
        found = next((free[name] for name in names if name in free), None)
        if found is not None:
            why[found] = reason
            free.pop(found.lower())
        return found

    query = text[0] if text else named(QUERY_NAMES, "its name says that it is the query")
    if query is None:
        return (), None
    if text and len(text) > 1:
        return text, label or named(RELEVANCE_NAMES, "its name says that it is the relevance")
    if label is not None:
        return (query,), label
    holding = [name for name in RELEVANCE_NAMES if name in free and _unreadable(table[free[name]]) <= MOST_UNREADABLE]
    found = named([name for name in TEXT_NAMES if name not in holding], "its name says that it is what a query finds")
    if found is None:
        return (query,), None
    if holding:
        why[free[holding[0]]] = "its name and its numbers say that it is the relevance"
        return (query, found), free[holding[0]]
    _refuse_unused([table[free[name]] for name in RELEVANCE_NAMES if name in free], found)
    return (query,), found


def _refuse_unused(columns: Sequence[pl.Series], found: str) -> None:
    """Nothing.

    Raises:
        DataError: a column that is named like a relevance has cells.
    """
    column = next((one for one in columns if one.null_count() < len(one)), None)
    if column is None:
        return
    shown = f"cells of type {column.dtype}, most of which are none"
    remedy = f"Correct them; or set data.label: {found}, which takes every text there as relevant."
    raise DataError(Issue(f"column {column.name!r}", "must hold relevances as numbers, or as yes and no", shown, remedy))


def speaks_of_ranking(columns: Sequence[str]) -> bool:
    """True where the names of the columns are those of a query and a text for it."""
    lower = {name.lower() for name in columns}
    return any({*pair} <= lower for pair in SPOKEN)


def negative_column(columns: Sequence[str], asked: str | None) -> str | None:
    """The column of texts that are not relevant: the one that the spec names, else by its name."""
    lower = {name.lower(): name for name in reversed(columns)}
    return asked or next((lower[name] for name in NEGATIVE_NAMES if name in lower), None)


def _unreadable(column: pl.Series) -> float:
    """Share of the cells that are no relevance; 1 where there is none at all."""
    if column.dtype.is_nested() or column.dtype.is_temporal() or column.dtype == pl.Binary:
        return 1.0
    given = _relevances(column).drop_nulls()
    return float(given.is_nan().mean()) if len(given) else 1.0  # type: ignore[arg-type]


def read_relevant(
    table: pl.DataFrame, text: tuple[str, ...], label: str, negative: str | None, where: str
) -> tuple[pl.DataFrame, list[Issue]]:
    """The table with its label as RELEVANT, and what was left out; null where a cell cannot be read. A relevance that is no number is NaN.

    Cells of texts are texts, lists of them, lists of objects with text (or passage) and relevance (or score), or JSON of these.

    Args:
        table: the rows.
        text: column of the query, and of the text where the label is its relevance.
        label: column of the texts or of the relevance.
        negative: column of texts that are not relevant, where there is one; a table may lack it.
        where: which table this is, for the issues.
    """
    lost, unread = Counter[str](), Counter[str]()
    if len(text) > 1:
        relevance = _relevances(table[label]).to_list()
        judged: list[Any] = [None if value is None or cell is None else [(str(cell), value)]
                             for cell, value in zip(table[text[1]].cast(pl.String).to_list(), relevance, strict=True)]  # fmt: skip
    else:
        judged = [_entries(cell, 1.0, lost) for cell in table[label].to_list()]
    if negative in table.columns:
        wrong = [_entries(cell, 0.0, unread) or [] for cell in table[str(negative)].to_list()]
        judged = [None if row is None else [*row, *others] for row, others in zip(judged, wrong, strict=True)]
    rows = [None if row is None else [{"text": one, "relevance": value} for one, value in row] for row in judged]
    return table.with_columns(pl.Series(label, rows, RELEVANT)), _told(
        lost["entries"] + unread["entries"], unread["cells"], negative, where
    )


def _told(entries: int, cells: int, negative: str | None, where: str) -> list[Issue]:
    issues = []
    if entries:
        found = f"{entries} entries that are neither: left out"
        issues.append(Issue(where, "lists of judged texts should hold texts, or objects with a text", found, fatal=False))
    if cells:
        found = f"{cells} cells that cannot be read: taken as empty"
        issues.append(Issue(where, f"{negative} should hold texts that are not relevant", found, fatal=False))
    return issues


def _relevances(column: pl.Series) -> pl.Series:
    """Relevance as a number; yes and no, true and false count as one and nought."""
    if column.dtype == pl.Boolean:
        return column.cast(pl.Float64)
    if column.dtype == pl.String:
        words = {"true": "1", "yes": "1", "relevant": "1", "false": "0", "no": "0", "irrelevant": "0", "not relevant": "0"}
        column = column.str.strip_chars().str.to_lowercase().replace(words)
    return numbers(column)


def _entries(cell: object, value: float, lost: Counter[str]) -> list[tuple[str, float]] | None:
    """Texts of a cell, each with its relevance; None where it holds none. Counts the cells and entries that cannot be read."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        try:
            cell = json_value(cell)
        except json.JSONDecodeError:
            return [(str(cell), value)]
        except ValueError:
            lost["cells"] += 1
            return None
    if isinstance(cell, str):
        return [(cell, value)] if cell.strip() else None
    entries = [cell] if isinstance(cell, Mapping) else cell
    if not isinstance(entries, list):
        lost["cells"] += cell is not None
        return None
    read = [found for entry in entries if (found := _entry(entry, value)) is not None]
    lost["entries"] += len(entries) - len(read)
    return read or None


def _entry(entry: object, value: float) -> tuple[str, float] | None:
    if isinstance(entry, str):
        given = _object(entry)
        if not isinstance(given, Mapping):
            return None if given is None else (entry, value)
        entry = given
    if not isinstance(entry, Mapping):
        return None
    text = next((entry[name] for name in ENTRY_TEXTS if isinstance(entry.get(name), str)), None)
    given = next((entry[name] for name in ENTRY_VALUES if entry.get(name) is not None), value)
    if text is None:
        return None
    return text, float(given) if isinstance(given, (int, float)) and abs(given) <= FLOAT32_MAX else float("nan")


def _object(entry: str) -> object:
    """A JSON object with a text that stands in a text, as the readers of tables leave it; None for one that no table can hold."""
    if entry[:1] != "{":
        return entry
    try:
        value = json_value(entry)
    except json.JSONDecodeError:
        return entry
    except ValueError:
        return None
    return value if isinstance(value, Mapping) and any(isinstance(value.get(name), str) for name in ENTRY_TEXTS) else entry


def check_relevant(label: pl.Series) -> list[Issue]:
    """Fatal problems of the judgements of a whole training table."""
    given = label.drop_nulls()
    values = given.explode(empty_as_null=True).drop_nulls().struct.field("relevance")
    if not len(values):
        found = f"none in {len(label)} rows"
        return [Issue("data.label", "must hold texts that a query finds", found, "Check that the right column was chosen: set data.label.")]
    unreadable = int(values.is_nan().sum())
    if unreadable > MOST_UNREADABLE * len(values):
        return [Issue("data.label", "must hold relevances as numbers", f"{unreadable} of {len(values)} cells that are none")]
    if not bool((values.fill_nan(0.0) > 0).any()):
        found = f"{len(values)} judgements, all of them nought"
        return [Issue("data.label", "must hold texts that are relevant", found, "A relevance above nought says that a text is relevant.")]
    return []


def with_text_groups(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with a `group` that joins queries for one text, directly or by way of others; groups that they have are joined too."""
    pairs = rows.with_row_index("row").explode("label", empty_as_null=True)
    pairs = pairs.filter(pl.col("label").struct.field("relevance") > 0).select("row", key=pl.col("label").struct.field("text"))
    edges = [pairs.select("row", key=pl.format("text:{}", "key"))]
    if "group" in rows.columns:
        own = rows.with_row_index("row").filter(pl.col("group").is_not_null())
        edges.append(own.select("row", key=pl.format("group:{}", "group")))
    joined = pl.concat(edges)
    codes = joined["key"].rank("dense").to_numpy().astype(np.int64) - 1
    size = len(rows) + int(codes.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(joined)), (joined["row"].to_numpy(), len(rows) + codes)), (size, size))
    component_N = connected_components(graph, directed=False)[1][: len(rows)]
    names = rows.select("id", component=component_N).with_columns(group=pl.col("id").min().over("component"))
    return rows.with_columns(names["group"])


def corpus_of(labels: Sequence[pl.Series], further: Sequence[str] = ()) -> pl.DataFrame:
    """Every text that a query can find, once, with `id`: 16 hex of its SHA-256; in the order of the ids."""
    texts = {text for label in labels for text in label.explode(empty_as_null=True).drop_nulls().struct.field("text").to_list()}
    texts |= {text for text in further if text}
    table = pl.DataFrame({"id": [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts], "text": list(texts)},
                         schema={"id": pl.String, "text": pl.String})  # fmt: skip
    return table.sort("id")


def judged_share(label: pl.Series) -> float:
    """Share of the queries that come with a text that is not relevant."""
    wrong = label.list.eval(pl.element().struct.field("relevance") <= 0).list.any()
    return float(wrong.mean() or 0.0)  # type: ignore[arg-type]


def shown_relevant(label: str = "label") -> pl.Expr:
    """The relevant texts, one after the other, for readers."""
    kept = pl.element().struct.field("text").filter(pl.element().struct.field("relevance") > 0)
    return pl.col(label).list.eval(kept).list.join(" | ")


def key_of_relevant(label: str = "label") -> pl.Expr:
    """A text that is equal where judgements are."""
    entry = pl.format("{}:{}", pl.element().struct.field("relevance"), pl.element().struct.field("text"))
    return pl.col(label).list.eval(entry).list.join("\x1f")


def described(label: pl.Series) -> dict[str, int]:
    """Queries of a split, its texts that are relevant and that are not, each pair counted, and the different texts."""
    entries = label.explode(empty_as_null=True).drop_nulls()
    values, texts = entries.struct.field("relevance"), entries.struct.field("text")
    return {"rows": len(label), "relevant": int((values > 0).sum()), "wrong": int((values <= 0).sum()), "texts": texts.n_unique()}


def refuse_unread(texts: pl.Series, where: str) -> None:
    """Nothing.

    Raises:
        DataError: a table of further texts has none.
    """
    if not texts.drop_nulls().str.strip_chars().str.len_chars().sum():
        raise DataError(Issue(where, "must hold texts", "none", "Name the column as data.label, or text."))
