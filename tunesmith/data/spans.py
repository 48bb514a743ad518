"""Answers that are spans of a text: how cells are read and brought to their places, and which rows belong together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.cells import json_value
from tunesmith.data.sources.quotes import located

ANSWERS = pl.List(pl.Struct({"text": pl.String, "start": pl.Int64}))
"""Labels of questions: the answers with the place of each in characters; an empty list where the text holds none."""
NOWHERE = -1
"""The start of an answer that is not in its text: its row is dropped by `clean`."""
QUESTION_NAMES, CONTEXT_NAMES = ("question", "query"), ("context", "passage", "paragraph", "document", "text")
ANSWER_NAMES = ("answers", "answer", "answer_text")
START_NAMES = ("answer_start", "start", "answer_offset")
FEWEST_BYTES = 3
INVISIBLE = " \t\r\n\u200b\u2060\ufeff\u200c\u200d\u200e\u200f"

Given = tuple[str, object]


def question_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns of question and text by their names; fewer than two where they have others."""
    lower = {name.lower(): name for name in reversed(names)}
    found = [next((lower[name] for name in known if name in lower), None) for known in (QUESTION_NAMES, CONTEXT_NAMES)]
    return tuple(name for name in found if name)


def answer_column(names: Sequence[str]) -> str | None:
    """The column of answers by its name."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in ANSWER_NAMES if name in lower), None)


def read_answers(table: pl.DataFrame, columns: tuple[str, str], start: str | None, where: str) -> tuple[pl.DataFrame, list[Issue]]:
    """The table with its answers as ANSWERS, each at its place, and what was repaired or left out; null where a cell cannot be read.

    Cells are lists of objects with text and start (or answer_start), objects of two lists, JSON of either, or a text with its start in
    another column. An answer that is not at its place is moved when its text occurs exactly once. A row all of whose answers are
    nowhere keeps the first of them at NOWHERE. An empty text or list says that there is no answer.

    Args:
        table: the rows.
        columns: of the text and of the answers.
        start: column of the starts, where answers are texts; None looks for START_NAMES.
        where: which table this is, for the issues.

    Raises:
        DataError: starts count bytes, or their column is missing.
    """
    context, label = columns
    text = table.schema[label] == pl.String
    if start and start not in table.columns:
        raise DataError(Issue("data.answer_start", f"must name a column of the table: {start!r}", ", ".join(table.columns)))
    name = (start or next((n for n in START_NAMES if n in table.columns), None)) if text else None
    starts = table[name].cast(pl.Int64, strict=False).to_list() if name else [None] * len(table)
    counts: Counter[str] = Counter()
    cells = zip(table[label].to_list(), starts, table[context].cast(pl.String).to_list(), strict=True)
    read = [_row(_given(cell, begin, text), body or "", counts) for cell, begin, body in cells]
    _refuse_bytes(counts, where)
    return table.with_columns(pl.Series(label, read, ANSWERS)), _told(counts, where)


def context_groups(context: pl.Series) -> pl.Series:
    """The group of each question: 16 hex of the SHA-256 of its text, so that questions about one text stay together."""
    names = {text: hashlib.sha256(text.encode()).hexdigest()[:16] for text in context.drop_nulls().unique()}
    return pl.Series("group", [names.get(text) for text in context], pl.String)


def check_answers(label: pl.Series) -> list[Issue]:
    """Fatal problems of the answers of a whole training table: none at all, or hardly any that is in its text."""
    given = label.drop_nulls()
    answered = given.filter(given.list.len() > 0)
    if not len(answered):
        found = f"none in {len(label)} rows"
        return [Issue("data.label", "must hold answers", found, "Check that the right column was chosen: set data.label.")]
    lost = int((answered.list.first().struct.field("start") == NOWHERE).sum())
    if lost > len(answered) / 2:
        remedy = "Check data.text (question, then text) and data.label: answers must be copied from the text."
        return [Issue("data.label", "must hold answers that are in their texts", f"{lost} of {len(answered)} are not there", remedy)]
    return []


def shown_answers(label: str = "label") -> pl.Expr:
    """The texts of answers, one after the other, for readers."""
    return pl.col(label).list.eval(pl.element().struct.field("text")).list.join(" | ")


def key_of_answers(label: str = "label") -> pl.Expr:
    """A text that is equal where answers are."""
    answer = pl.format("{}:{}", pl.element().struct.field("start"), pl.element().struct.field("text"))
    return pl.col(label).list.eval(answer).list.join("\x1f")


def described(label: pl.Series) -> dict[str, int]:
    """Rows of a split, and how many of them have no answer."""
    return {"rows": len(label), "without": int((label.list.len() == 0).sum())}


def _given(cell: object, start: object, text: bool) -> list[Given] | None:
    """Pairs of text and start; None where the cell is none of the forms."""
    if text and isinstance(cell, str) and cell.strip()[:1] in ("[", "{"):
        try:
            return _pairs(json_value(cell))
        except json.JSONDecodeError:
            return [(cell, start)]
        except ValueError:
            return None
    if text:
        return [(str(cell), start)] if cell and str(cell).strip() else []
    return _pairs(cell)


def _pairs(value: object) -> list[Given] | None:
    """The same of a value that is no text."""
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
        if isinstance(texts, str):
            return [(texts, starts)]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return None
        return [(str(one), place) for one, place in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        return None
    value = [_object(one) for one in value]
    if all(isinstance(one, str) for one in value):
        return [(str(one), None) for one in value]
    objects = [one for one in value if isinstance(one, Mapping) and isinstance(one.get("text"), str)]
    return [(one["text"], one.get("answer_start", one.get("start"))) for one in objects] if len(objects) == len(value) else None


def _object(value: object) -> object:
    """A JSON object that stands in a text, as the readers of tables leave it; anything else as it is."""
    if isinstance(value, str) and value[:1] == "{" and '"text"' in value:
        try:
            return json_value(value)
        except ValueError:
            return value
    return value


def _row(given: list[Given] | None, context: str, counts: Counter[str]) -> list[dict[str, Any]] | None:
    if given is None:
        return None
    kept: dict[tuple[str, int], None] = {}
    for text, start in given:
        place = located(context, text, start) if text.strip(INVISIBLE) else None
        how = "left" if place is None else place[1] if start is not None or place[1] != "moved" else "searched"
        counts[how] += 1
        if how in ("left", "moved") and isinstance(start, int) and text and _at_byte(context, text, start):
            counts["bytes"] += 1
        if place is not None:
            kept[(text, place[0])] = None
    if given and not kept:
        return [{"text": given[0][0], "start": NOWHERE}]
    return [{"text": text, "start": start} for text, start in kept]


def _at_byte(context: str, text: str, start: int) -> bool:
    return start >= 0 and context.encode(errors="replace")[start:].startswith(text.encode(errors="replace"))


def _refuse_bytes(counts: Counter[str], where: str) -> None:
    """Nothing.

    Raises:
        DataError: most answers that are not at their place would be there if bytes were counted.
    """
    if counts["bytes"] >= FEWEST_BYTES and 2 * counts["bytes"] > counts["left"] + counts["moved"]:
        remedy = "Count characters: start = len(text_as_bytes[:start].decode('utf-8'))."
        raise DataError(Issue(where, "must count the starts of answers in characters", f"{counts['bytes']} counted in UTF-8 bytes", remedy))


def _told(counts: Counter[str], where: str) -> list[Issue]:
    expected = "answers should stand at their start"
    said = {
        "moved": "stood elsewhere, exactly once, and were moved",
        "utf16": "starts were counted in UTF-16 units and were converted",
        "left": "are not in their text, or there more than once and not at their start: left out",
        "searched": "came without a start, occur exactly once, and were found",
    }
    return [Issue(where, expected, f"{counts[how]} {words}", fatal=False) for how, words in said.items() if counts[how]]
