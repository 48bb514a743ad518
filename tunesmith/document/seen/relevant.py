"""Rows with a query: the texts that it should find and those that it should not, as the loss meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl

from tunesmith.document.formats import counted, formatted
from tunesmith.document.seen.tokens import Strip
from tunesmith.document.seen.view import UNCUT, Chip, Fact, Learned, Look, SeenRow
from tunesmith.spec.ranking import Cosine
from tunesmith.tasks.base import PARTS, Encoded
from tunesmith.tasks.feature_extraction import PASSAGE, FeatureExtraction
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.texts import encode_texts
from tunesmith.tasks.windows import WINDOW

SHOWN = 8
"""Texts of a query that are shown."""
RIGHT, WRONG, ALIKE = "relevant", "not relevant, as judged", "not relevant, as nobody judged it: among the most alike by BM25"


def types(learned: Learned) -> list[set[str]]:
    """Whether texts were judged not relevant to each query."""
    wrong = [any(entry["relevance"] <= 0 for entry in judged) for judged in learned.rows["label"].to_list()]
    return [{"texts judged not relevant" if found else "relevant texts alone"} for found in wrong]


def draw(learned: Learned, number: int) -> SeenRow:
    """The query with its texts, the relevant ones first."""
    told = list((_vectors if isinstance(learned.task, FeatureExtraction) else _pairs)(learned, number))
    query = [_alone(learned, "query", row[PARTS][0], _query(learned, number)) for row in learned.encoded(number)[:1] if PARTS in row]
    told.sort(key=lambda strip: strip.tone != "good")
    right = sum(strip.tone == "good" for strip in told)
    chips = [Chip(f"{counted(right)} relevant", tone="good"), Chip(f"{counted(len(told) - right)} not relevant", tone="bad")]
    return SeenRow([*query, *told[:SHOWN]], chips, _said(learned), more=max(len(told) - SHOWN, 0))


def facts(learned: Learned) -> list[Fact]:
    """How many queries and pairs there are, how many texts they find, and where wrong ones come from."""
    rows, task = learned.encoding.rows, learned.task
    assert isinstance(task, (FeatureExtraction, TextRanking)), "queries are of these tasks"
    pairs = counted(len(rows))
    cut = counted(learned.encoding.cut)
    out = [Fact("texts", counted(len(task.corpus)), "that queries are ranked against")]
    if isinstance(task, FeatureExtraction):
        wrong = sum(max(len(row[PARTS]) - 2, row.get("labels", 1.0) <= 0) for row in rows)
        out.append(Fact("pairs", pairs, f"of a query and a text; {counted(wrong)} wrong texts beside them were judged"))
        return [*out, Fact("texts cut", cut, "of the training queries and of all texts")]
    right = sum(row["labels"] > 0 for row in rows)
    judged = [{entry["text"] for entry in _judged(learned, number)} for number in range(len(learned.rows))]
    alike = sum(task.corpus[row[WINDOW].text] not in judged[row[WINDOW].row] for row in rows)
    known = f"{counted(right)} relevant, {counted(len(rows) - right - alike)} judged wrong"
    out.append(Fact("pairs", pairs, f"{known}, {counted(alike)} wrong because BM25 finds them and nobody judged them"))
    return [*out, Fact("pairs cut", cut, f"of {pairs}")]


def _vectors(learned: Learned, number: int) -> Iterator[Strip]:
    """The texts that are embedded beside the query, each once."""
    task, seen = learned.task, set[int]()
    assert isinstance(task, FeatureExtraction), "texts read alone"
    right = {entry["text"] for entry in _judged(learned, number) if entry["relevance"] > 0}
    for row in learned.encoded(number):
        for text in row[PARTS][1:]:
            if text[PASSAGE] in seen:
                continue
            seen.add(text[PASSAGE])
            words = task.corpus[text[PASSAGE]]
            note = f"cosine wanted: {formatted(float(row['labels']), 'plain')}" if "labels" in row else ""
            name, tone = (RIGHT, "good") if words in right else (WRONG, "bad")
            yield replace(_alone(learned, name, text, words), tone=tone, note=note)


def _pairs(learned: Learned, number: int) -> Iterator[Strip]:
    """The query with each of its texts, read together."""
    task = learned.task
    assert isinstance(task, TextRanking), "query and text read together"
    judged = {entry["text"] for entry in _judged(learned, number)}
    for row in learned.encoded(number):
        text = task.corpus[row[WINDOW].text]
        table = pl.DataFrame({"text": [_query(learned, number)], "text_pair": [text]})
        whole = encode_texts(table, ("text", "text_pair"), learned.processor, UNCUT).rows[0]
        target = float(row["labels"])
        name, tone = (RIGHT, "good") if target > 0 else (WRONG if text in judged else ALIKE, "bad")
        note = f"relevance wanted: {formatted(target, 'plain')}"
        yield learned.strip(name, row, whole, pair=True, tone=tone, note=note)


def _alone(learned: Learned, name: str, row: Encoded, words: str) -> Strip:
    """A text that is read alone."""
    whole = encode_texts(pl.DataFrame({"text": [words]}), ("text",), learned.processor, UNCUT).rows[0]
    return learned.strip(name, row, whole)


def _said(learned: Learned) -> list[str]:
    task = learned.task
    if isinstance(task, FeatureExtraction) and not isinstance(task.options.loss, Cosine):
        return ["The texts of the other queries of its batch count as wrong ones too, except those that are known to be relevant to it."]
    return []


def _query(learned: Learned, number: int) -> str:
    return str(learned.rows["text"][number])


def _judged(learned: Learned, number: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = learned.rows["label"][number].to_list()
    return entries


LOOK = Look(types, draw, facts, unit="")
