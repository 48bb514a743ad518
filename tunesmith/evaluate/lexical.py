"""What a reader of spans has to beat: the most frequent answer, and the sentence that shares most words with the question."""

from __future__ import annotations

import re
from collections import Counter

import polars as pl

from tunesmith.evaluate.replies import normalised

SENTENCE = re.compile(r"[^.!?。！？؟\n]+(?:[.!?。！？؟]+(?!\s)[^.!?。！？؟\n]+)*[.!?。！？؟]*")
"""A sentence ends at a line break, or at a mark with a space after it: "3.5" and "e.g." inside a sentence do not end it."""


def most_frequent(train: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Predictions that give every row the most frequent of the training rows' answers, which can be none; ties by the alphabet."""
    counts = Counter(normalised(answers[0]["text"]) if answers else "" for answers in train["label"].to_list())
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return rows.select("id", "label", pl.lit(best).alias("predicted"))


def nearest_sentence(rows: pl.DataFrame) -> pl.DataFrame:
    """Predictions that give every row the sentence of its text with most words of the question; of equal ones, the shortest, then first.

    After the sliding window of Richardson et al. (2013), with sentences for windows.
    """
    pairs = rows.select("text", "text_pair").iter_rows()
    return rows.select("id", "label").with_columns(pl.Series("predicted", [_sentence(q, text) for q, text in pairs], pl.String))


def _sentence(question: str, text: str) -> str:
    wanted = set(normalised(question).split())
    sentences = [match.group().strip() for match in SENTENCE.finditer(text)]
    sentences = [sentence for sentence in sentences if sentence] or [text.strip()]
    return min(sentences, key=lambda sentence: (-len(wanted & set(normalised(sentence).split())), len(sentence)))
