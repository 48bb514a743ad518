"""What a report tells of answers in texts: scores by kind of question and length of answer, and the worst answers in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from tunesmith.document.contents import Contents
from tunesmith.evaluate.replies import Replies, replies_from_table

QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how many", "how much", "how")
LENGTHS = ((1, 1), (2, 3), (4, 6), (7, None))
"""Words of an answer, from and to."""
AROUND = 90
"""Characters shown on either side of an answer."""
FAR = 600
"""Characters of an answer that are shown."""


@dataclass(frozen=True)
class Group:
    """Test questions of a kind: how many, their mean exact match and F1. `low` and `high` are words of the answer, where these count."""

    name: str
    low: int | None
    high: int | None
    n: int
    exact: float
    f1: float


@dataclass(frozen=True)
class Piece:
    """A piece of a text, and whether it is part of a right answer and of the predicted one."""

    text: str
    right: bool
    said: bool


@dataclass(frozen=True)
class Wrong:
    """A test question that was answered wrongly: the right answers, the predicted one, and the text around both."""

    question: str
    right: list[str]
    said: str
    f1: float
    score: float
    pieces: list[Piece]
    source: str


def told_answers(contents: Contents) -> dict[str, Any]:
    """What the templates walk over; nothing of it for a run without test predictions."""
    if contents.test.is_empty():
        return {"by_word": [], "by_length": [], "wrong_answers": []}
    replies = replies_from_table(contents.test)
    texts = contents.test.select("id").join(contents.test_texts, on="id", how="left", maintain_order="left")
    return {
        "by_word": by_word(texts["text"].fill_null("").to_list(), replies),
        "by_length": by_length(replies),
        "wrong_answers": worst(contents.test, texts, replies, int(contents.setting("evaluate.mistakes", 20))),
    }


def by_word(questions: Sequence[str], replies: Replies) -> list[Group]:
    """Scores by the question word that a question holds first; those without one come last."""
    names = [question_word(question) for question in questions]
    groups = [_group(name, [n for n, one in enumerate(names) if one == name], replies) for name in dict.fromkeys(names)]
    return sorted(groups, key=lambda group: (group.name == "", -group.n, group.name))


def by_length(replies: Replies) -> list[Group]:
    """Scores by the words of the shortest right answer; those without an answer first."""
    words = [min((len(text.split()) for text in texts), default=0) for texts in replies.labels]
    parts = [("", 0, 0), *(("", low, high) for low, high in LENGTHS)]
    picked = [(part, [n for n, w in enumerate(words) if w >= part[1] and (part[2] is None or w <= part[2])]) for part in parts]
    return [_group(name, rows, replies, low, high) for (name, low, high), rows in picked if rows]


def question_word(question: str) -> str:
    """The first question word of a question, "" for none; "how many" and "how much" are words of their own."""
    words = "".join(c if c.isalnum() else " " for c in question.lower()).split()
    for place, word in enumerate(words):
        two = " ".join(words[place : place + 2])
        if two in QUESTION_WORDS or word in QUESTION_WORDS:
            return two if two in QUESTION_WORDS else word
    return ""


def worst(predictions: pl.DataFrame, texts: pl.DataFrame, replies: Replies, count: int) -> list[Wrong]:
    """The questions of lowest F1, of equal ones the surest first."""
    order = np.lexsort((predictions["id"].to_numpy(), -predictions["score"].to_numpy(), replies.f1_N))
    rows = [int(n) for n in order if replies.exact_N[n] == 0][:count]
    return [_wrong(predictions.row(n, named=True), texts.row(n, named=True), float(replies.f1_N[n])) for n in rows]


def pieces(text: str, right: Iterable[tuple[int, int]], said: tuple[int, int] | None) -> list[Piece]:
    """The text around the right answers and the predicted one, cut where they begin and end; "…" where it is left out."""
    right = list(right)
    spans = [*right, *([said] if said else [])]
    kept = sorted((max(start - AROUND, 0), min(min(end, start + FAR) + AROUND, len(text))) for start, end in spans) or [(0, 2 * AROUND)]
    merged = [kept[0]]
    for low, high in kept[1:]:
        if low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    out: list[Piece] = []
    for low, high in merged:
        if low > 0:
            out.append(Piece("… ", False, False))
        cuts = sorted({low, high, *(place for span in spans for place in span if low < place < high)})
        for start, end in pairwise(cuts):
            inside = [any(a <= start and end <= b for a, b in some) for some in (right, [said] if said else [])]
            out.append(Piece(text[start:end], *inside))
    return [*out, *([Piece(" …", False, False)] if merged[-1][1] < len(text) else [])]


def _group(name: str, rows: list[int], replies: Replies, low: int | None = None, high: int | None = None) -> Group:
    return Group(name, low, high, len(rows), float(replies.exact_N[rows].mean()), float(replies.f1_N[rows].mean()))


def _wrong(row: dict[str, Any], text: dict[str, Any], f1: float) -> Wrong:
    right = [(answer["start"], answer["start"] + len(answer["text"])) for answer in row["label"]]
    said = (row["start"], row["end"]) if row["start"] is not None else None
    shown = list(dict.fromkeys(answer["text"] for answer in row["label"]))
    body = text.get("text_pair") or ""
    around = pieces(body, right, said)
    return Wrong(text.get("text") or "", shown, row["predicted"] or "", f1, row["score"], around, text.get("source") or "")
