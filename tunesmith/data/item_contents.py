"""What is in the items of a source: texts, labels, counts of classes, problems, sizes. Everything as plain values for a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.clean import SPLITS
from tunesmith.data.sources.base import EXPLANATIONS, Items, Reason
from tunesmith.data.sources.conll import breaks
from tunesmith.data.sources.place import SPLIT_NAMES

EXAMPLES = 6
QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99, "max": 1.0}
TEXT_EXPLANATIONS = {
    "lost_bytes": "The text holds the replacement character: bytes were lost when it was written or read.",
    "controls": "The text holds control characters that nobody sees.",
    "broken_tags": "A tag continues an entity that does not stand before it.",
    "same_role_twice": "Two turns of one role follow each other.",
    "no_last_answer": "The last turn is not the assistant's.",
    "echo": "The assistant's turn repeats the turn before it.",
    "size_differs": "The annotations declare another width and height than the picture has; boxes may be in the wrong place.",
}
NOUNS = {
    "image-classification": ("picture", "class"),
    "object-detection": ("picture", "class of boxes"),
    "audio-classification": ("recording", "class"),
    "token-classification": ("sentence", "tag"),
    "question-answering": ("question", "kind of question"),
    "chat": ("conversation", "role of turns"),
    "text-spans": ("text", "label of spans"),
    "table": ("text", "class"),
}
"""What an item of each kind is called, and what is counted in it."""


def one_each(items: Items) -> pl.DataFrame:
    """The first row of each item: where several annotators saw one picture or text, it has several rows."""
    table = items.table
    if "annotator" not in table.columns:
        return table
    key = "image" if "image" in table.columns else "source"
    task = pl.col("source").str.replace(r" annotation \d+$", "") if key == "source" else pl.col(key)
    return table.with_columns(task.alias("_item")).unique("_item", keep="first", maintain_order=True).drop("_item")


def texts_of(table: pl.DataFrame, kind: str) -> pl.Series:
    """The whole text of each item: tokens joined by spaces, question and text, all turns, or the text."""
    if kind == "token-classification":
        return table["tokens"].list.join(" ")
    if kind == "question-answering":
        return table["question"] + "\n" + table["context"]
    if kind == "chat":
        return table.select(pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n")).to_series()
    return table["text"]


def labels_of(table: pl.DataFrame, kind: str) -> tuple[list[str | None], list[frozenset[str] | None]]:
    """What each item is labelled with: as text for readers, and as a set of what must agree between copies."""
    if kind == "object-detection":
        counts = [Counter(box["label"] for box in boxes) for boxes in table["boxes"].to_list()]
        shown: list[str | None] = [", ".join(f"{n} {name}" for name, n in sorted(c.items())) or "no box" for c in counts]
        return shown, [frozenset([str(text)]) for text in shown]
    if kind == "token-classification":
        rows = table.select("tokens", "tags").iter_rows()
        shown = [", ".join(f"{token}/{tag}" for token, tag in zip(*row, strict=True) if tag != "O") or "no entity" for row in rows]
        return shown, [frozenset([" ".join(tags)]) for tags in table["tags"].to_list()]
    if kind == "question-answering":
        answers = [[answer["text"] for answer in row] for row in table["answers"].to_list()]
        return [" | ".join(dict.fromkeys(row)) or "no answer" for row in answers], [frozenset(map(str.lower, row)) for row in answers]
    if kind == "text-spans":
        marked = [[(s["label"], text[s["start"] : s["end"]]) for s in spans] for text, spans in table.select("text", "spans").iter_rows()]
        shown = [", ".join(f"{label}: {quote}" for label, quote in row) or "no span" for row in marked]
        return shown, [frozenset(f"{label}: {quote.lower()}" for label, quote in row) for row in marked]
    if "label" not in table.columns:
        return [None] * table.height, [None] * table.height
    values = [[v] if isinstance(v, str) else v for v in table["label"].to_list()]
    return [None if v is None else ", ".join(v) for v in values], [None if v is None else frozenset(v) for v in values]


def conflicts(kind: str, keys: Sequence[frozenset[str] | None], pairs: pl.DataFrame) -> list[bool]:
    """For each pair of copies, whether their labels contradict each other.

    Labels that stand at places of a text can be compared only where the texts are equal.
    """
    only_same = kind in ("token-classification", "question-answering", "text-spans")
    out = []
    for left, right, same in pairs.select("left", "right", "same").iter_rows():
        a, b = keys[left], keys[right]
        differ = a is not None and b is not None and a != b and (kind != "question-answering" or a.isdisjoint(b))
        out.append(differ and (same or not only_same))
    return out


def text_contents(table: pl.DataFrame, kind: str) -> pl.DataFrame:
    """A row per item: source, problems (codes of TEXT_EXPLANATIONS), characters, and tokens, turns or answers."""
    texts = texts_of(table, kind)
    out = pl.DataFrame({"source": table["source"], "characters": texts.str.len_chars().cast(pl.Int64)})
    lists = {"token-classification": ("tokens", "tokens"), "chat": ("messages", "turns"), "question-answering": ("answers", "answers")}
    if kind in lists:
        column, name = lists[kind]
        out = out.with_columns(table[column].list.len().cast(pl.Int64).alias(name))
    lost, controls = texts.str.contains("\ufffd"), texts.str.contains(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
    problems: list[list[str]] = [["lost_bytes"] * a + ["controls"] * b for a, b in zip(lost, controls, strict=True)]
    if kind == "token-classification":
        for found, tags in zip(problems, table["tags"].to_list(), strict=True):
            found += ["broken_tags"] * bool(breaks(tags))
    if kind == "chat":
        for found, turns in zip(problems, table["messages"].to_list(), strict=True):
            found += _turn_problems(turns)
    return out.with_columns(pl.Series("problems", problems, dtype=pl.List(pl.String)), pl.lit("").alias("detail"))


def _turn_problems(turns: list[dict[str, str]]) -> list[str]:
    following = list(pairwise(turns))
    twice = any(a["role"] == b["role"] and a["role"] != "tool" for a, b in following)
    echo = any(b["role"] == "assistant" and a["content"].strip() == b["content"].strip() for a, b in following)
    return ["same_role_twice"] * twice + ["no_last_answer"] * (turns[-1]["role"] != "assistant") + ["echo"] * echo


def places_of(table: pl.DataFrame) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int] | None:
    """Place in SPLITS of each item's split (-1 for none), and how many values are none of them. None where no item has a split."""
    if "split" not in table.columns:
        return None
    names = [SPLIT_NAMES.get(str(value).strip().lower()) if value is not None else None for value in table["split"].to_list()]
    place = np.array([SPLITS.index(name) if name else -1 for name in names], np.int64)
    return (place, int((place < 0).sum())) if (place >= 0).any() else None


def counts_of(table: pl.DataFrame, kind: str, splits: Sequence[str | None]) -> list[dict[str, Any]]:
    """How often each class, tag or role occurs: name, all, and by split; the most frequent first."""
    counted: dict[str, Counter[str]] = {}
    for names, split in zip(_named(table, kind), splits, strict=True):
        for name in names:
            counted.setdefault(name, Counter()).update(["all", *([split] if split else [])])
    rows = [{"name": name, **counts} for name, counts in counted.items()]
    return sorted(rows, key=lambda row: (-row["all"], row["name"]))


def _named(table: pl.DataFrame, kind: str) -> Iterable[list[str]]:
    if kind == "object-detection":
        return ([box["label"] for box in boxes] for boxes in table["boxes"].to_list())
    if kind == "token-classification":
        return iter(table["tags"].to_list())
    if kind == "question-answering":
        return (["with an answer" if answers else "without an answer"] for answers in table["answers"].to_list())
    if kind == "chat":
        return ([turn["role"] for turn in turns] for turns in table["messages"].to_list())
    if kind == "text-spans":
        return ([span["label"] for span in spans] for spans in table["spans"].to_list())
    values = table["label"].to_list() if "label" in table.columns else [None] * table.height
    return ([] if v is None else [v] if isinstance(v, str) else list(v) for v in values)


def left_out(items: Items) -> list[dict[str, Any]]:
    """What was left out, by reason: count, explanation, examples; the most frequent first."""
    out = []
    for reason, count in Counter(items.dropped["reason"].to_list()).most_common():
        rows = items.dropped.filter(pl.col("reason") == reason).head(EXAMPLES).select("source", "detail").to_dicts()
        out.append({"reason": reason, "count": count, "explanation": EXPLANATIONS[Reason(reason)], "examples": rows})
    return out


def names_of(table: pl.DataFrame) -> pl.Series:
    """What readers call each item: the path of its file, or where it stands in the source; distinct, by the row where two are equal."""
    names = table[next(name for name in ("image", "audio", "source") if name in table.columns)].rename("name")
    if names.n_unique() == len(names):
        return names
    return pl.Series("name", [f"{name} (row {row})" for row, name in enumerate(names, start=1)], dtype=pl.String)


def problems_of(contents: pl.DataFrame, names: pl.Series, explanations: dict[str, str]) -> list[dict[str, Any]]:
    """Problems of contents by code: count, explanation, example rows; the most frequent first."""
    flat = (
        contents.with_columns(names)
        .with_row_index("row")
        .select("row", "name", "detail", "problems")
        .explode("problems")
        .drop_nulls("problems")
    )
    out = []
    for code, count in Counter(flat["problems"].to_list()).most_common():
        rows = flat.filter(pl.col("problems") == code).head(EXAMPLES).select("row", "name", "detail").to_dicts()
        out.append({"code": code, "count": count, "explanation": explanations[code], "examples": rows})
    return out


def conversions_of(contents: pl.DataFrame) -> list[dict[str, Any]]:
    """Conversions that reading made, with counts."""
    made = contents["converted"].explode().drop_nulls().to_list() if "converted" in contents.columns else []
    return [{"what": what, "count": count} for what, count in Counter(made).most_common()]


def quantiles(what: str, values: Iterable[float | None]) -> dict[str, Any] | None:
    """The quantiles of the values that are there, rounded; None where there is none."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return None
    method = "inverted_cdf" if (known == np.round(known)).all() else "linear"
    return {"what": what, **{name: round(float(np.quantile(known, q, method=method)), 4) for name, q in QUANTILES.items()}}  # type: ignore[call-overload]


def sizes_of(contents: pl.DataFrame) -> list[dict[str, Any]]:
    """Quantiles of widths and heights, seconds, or lengths of texts."""
    titles = {
        "width": "width in pixels", "height": "height in pixels", "seconds": "seconds", "characters": "characters",
        "tokens": "tokens", "turns": "turns", "answers": "answers",
    }  # fmt: skip
    found = (quantiles(title, contents[name].to_list()) for name, title in titles.items() if name in contents.columns)
    return [row for row in found if row]
