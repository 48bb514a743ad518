"""The task that a table speaks for, by the names of its columns and what they hold."""

from __future__ import annotations

import re

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.data.columns import Columns, choose_columns
from tunesmith.data.load import SOURCE
from tunesmith.data.marked import check_spans, read_spans
from tunesmith.data.numbers import numbers
from tunesmith.data.relevant import check_relevant, read_relevant, speaks_of_ranking
from tunesmith.data.spans import check_answers, read_answers
from tunesmith.data.targets import pair_of, task_of
from tunesmith.spec.schema import Data

MOST_GRADES = 10
OWN_TARGETS = 0.5
"""Share of the targets that must differ for a table of texts to be written."""
SAMPLE_ROWS = 500
PLAIN_NAME = re.compile(r"[\w\s.-]+")


def recognise_task(table: pl.DataFrame, hints: Data) -> tuple[str, str, Columns]:
    """The task that the columns speak for, why, and the columns.

    Raises:
        DataError: no columns fit a task.
    """
    if asked := _answer_columns(table, hints):
        return "question-answering", f"the answers in {asked.label} are words of {asked.text[1]}", asked
    if marked := _span_columns(table, hints):
        return "token-classification", f"the column {marked.label} holds {marked.why[str(marked.label)].rpartition('; ')[2]}", marked
    if ranked := _ranked_columns(table, hints):
        why = f"a text that each {ranked.text[0]} finds; task: text-ranking reads both together, to rank a few candidates"
        return "feature-extraction", why, ranked
    if written := _written_columns(table, hints):
        task = task_of(written.text[0], str(written.label))
        return task, f"{written.label} holds a text of its own for each {written.text[0]}", written
    if alone := _texts_alone(table, hints):
        return "fill-mask", "one column of texts and no label", alone
    try:
        columns = choose_columns(table, hints)
    except DataError:
        if not _has_decimals(table, numbered := _number_columns(table, hints)):
            raise
        columns = numbered
    if columns.label is not None and columns.kind == "class" and _has_decimals(table, columns):
        columns = _number_columns(table, hints)
    if columns.kind != "number":
        return "text-classification", "the label names classes", columns
    why = f"the column {columns.label} holds decimal numbers"
    return ("sentence-similarity", f"two texts, and {why}", columns) if len(columns.text) > 1 else ("text-regression", why, columns)


def _texts_alone(table: pl.DataFrame, hints: Data) -> Columns | None:
    """The only column, where it holds texts; None where its name rather speaks of cells that were not cut apart."""
    names = [name for name in table.columns if name != SOURCE]
    if len(names) != 1 or table.schema[names[0]] != pl.String or not PLAIN_NAME.fullmatch(names[0]):
        return None
    return choose_columns(table, hints, "fill-mask")


def _ranked_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Query and text where the names speak of them; else None."""
    if not speaks_of_ranking(table.columns):
        return None
    try:
        columns = choose_columns(table, hints, "feature-extraction")
        read, _ = read_relevant(table.head(SAMPLE_ROWS), columns.text, str(columns.label), columns.negative, "data.train")
    except DataError:
        return None
    return None if check_relevant(read[str(columns.label)]) else columns


def _written_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Source and target where the names speak of them and most targets differ, as classes do not; else None."""
    pair = pair_of(table.select(name for name, kind in table.schema.items() if kind == pl.String))
    named = {*(hints.text or ()), *([hints.label] if isinstance(hints.label, str) else [])}
    if pair is None or not named <= {*pair[:2]}:
        return None
    columns = choose_columns(table, hints, "text2text-generation")
    given = table[str(columns.label)].drop_nulls()
    return columns if given.n_unique() > max(MOST_GRADES, len(given) * OWN_TARGETS) else None


def _answer_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Question, text and answers, where most answers are words of their text; else None."""
    try:
        columns = choose_columns(table, hints, "question-answering")
        if table.schema[str(columns.label)] not in (pl.String, pl.List, pl.Struct):
            return None
        read, _ = read_answers(table.head(SAMPLE_ROWS), (columns.text[1], str(columns.label)), hints.answer_start, "data.train")
    except DataError:
        return None
    return None if check_answers(read[str(columns.label)]) else columns


def _span_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Tokens and tags, or text and spans, where most rows are sound; else None."""
    try:
        columns = choose_columns(table, hints, "token-classification")
        read, _ = read_spans(table.head(SAMPLE_ROWS), (columns.text[0], str(columns.label)), columns.why)
    except DataError:
        return None
    return None if check_spans(read[str(columns.label)]) else columns


def _number_columns(table: pl.DataFrame, hints: Data) -> Columns:
    """The columns as a regression would have them; without a label where none can be one."""
    try:
        return choose_columns(table, hints, "text-regression")
    except DataError:
        return Columns((), None, "number", {})


def _has_decimals(table: pl.DataFrame, columns: Columns) -> bool:
    """True when the label is decimal numbers, of more kinds than classes would have."""
    if columns.label is None or table.schema[columns.label].is_nested():
        return False
    if not (table.schema[columns.label].is_numeric() or table.schema[columns.label] == pl.String):
        return False
    given = numbers(table[columns.label]).drop_nulls()
    return bool(len(given) and not given.is_nan().any() and (given != given.round(0)).any() and given.n_unique() > MOST_GRADES)
