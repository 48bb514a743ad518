"""Spans predicted for tables: rows of texts or tokens in, spans or CoNLL columns out."""

from __future__ import annotations

from typing import Any, TextIO

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.columns import text_columns
from tunesmith.data.marked import TOKENS, is_tokens, text_of_tokens, token_places
from tunesmith.tasks.token_classification import word_tags

Span = dict[str, Any]


def texts_to_mark(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """`text` of each row, as it is given; of a column of tokens their text, and `tokens` beside it. Empty cells are "" and no token.

    Raises:
        DataError: the column is missing, or holds neither text nor lists of text.
    """
    if column not in rows.columns or not is_tokens(rows[column]):
        return text_columns(rows, (column,)).drop("source").with_columns(pl.col("text").fill_null(""))
    tokens = [text_of_tokens(words or []) for words in rows[column].to_list()]
    return pl.DataFrame({"text": [" ".join(words) for words in tokens], TOKENS: tokens}, {"text": pl.String, TOKENS: pl.List(pl.String)})


def refuse_no_conll(rows: pl.DataFrame, column: str) -> None:
    """Nothing, where a column holds tokens that CoNLL can hold.

    Raises:
        DataError: the table holds texts, or a token with a space; or the column is missing.
    """
    if column not in rows.columns:
        text_columns(rows, (column,))
    if not is_tokens(rows[column]):
        remedy = "Write .jsonl, .parquet or .csv: spans with places in the text."
        raise DataError(Issue("--output", "can be .conll only for a table of tokens", f"texts in {column!r}", remedy))
    for words in rows[column].drop_nulls().to_list():
        if any(word is None or not word or any(c.isspace() for c in word) for word in words):
            raise DataError(Issue(f"column {column!r}", "must hold tokens without spaces to be CoNLL", repr(words)[:80], "Write .jsonl."))


def write_conll(rows: pl.DataFrame, column: str, target: TextIO) -> None:
    """Write a token and its tag a line, in BIO, an empty line after each row; tokens are those of the table, in its own letters."""
    for words, spans in rows.select(column, "predicted").iter_rows():
        tags = word_tags(token_places(text_of_tokens(words or [])), spans or [])
        target.writelines(f"{word}\t{tag}\n" for word, tag in zip(words or [], tags, strict=True))
        target.write("\n")
