"""What the report tells of texts that were written: how they fare by length, and the worst of them beside what was right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from tunesmith.document.contents import Contents
from tunesmith.evaluate.texts import Texts, chrf_of_rows

PIECE = re.compile(r"\w+|\s+|[^\w\s]")
LENGTHS = ((1, 5), (6, 10), (11, 20), (21, 50), (51, None))
"""Words of the right text, in bands."""
MOST_PIECES = 2000
"""Longer texts are shown without marks: aligning them takes too long."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a text; `alone` where the other text does not have it in this place."""

    text: str
    alone: bool


@dataclass(frozen=True)
class Written:
    """A test row: what was given, what was right and what was written, with the chrF of the row and the tokens written."""

    text: str
    right: list[Piece]
    said: list[Piece]
    chrf: float
    tokens: int
    finished: bool
    source: str


@dataclass(frozen=True)
class Band:
    """Test rows by the words of their right text; `ratio` is words written for each word wanted."""

    low: int
    high: int | None
    n: int
    chrf: float
    ratio: float


def told_texts(contents: Contents) -> dict[str, Any]:
    """What the sections about written texts walk over."""
    rows = contents.test
    if rows.is_empty():
        return {"bands": [], "worst_texts": []}
    answers = Texts(rows["label"].to_list(), rows["predicted"].to_list())
    scores_N = chrf_of_rows(answers)
    return {"bands": _bands(answers, scores_N), "worst_texts": _worst(contents, scores_N)}


def aligned(right: str, said: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, word by word; a piece stands alone where the other text lacks it."""
    a, b = PIECE.findall(right), PIECE.findall(said)
    if len(a) + len(b) > MOST_PIECES:
        return [Piece(right, False)], [Piece(said, False)]
    left, beside = list[Piece](), list[Piece]()
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if a1 > a0:
            left.append(Piece("".join(a[a0:a1]), kind != "equal"))
        if b1 > b0:
            beside.append(Piece("".join(b[b0:b1]), kind != "equal"))
    return left, beside


def _bands(answers: Texts, scores_N: np.ndarray) -> list[Band]:
    said_N, wanted_N = answers.words_NK[:, 0], answers.words_NK[:, 1]
    out = []
    for low, high in LENGTHS:
        inside = (wanted_N >= low) & (wanted_N <= (high or np.inf))
        if inside.any():
            ratio = float(said_N[inside].sum() / wanted_N[inside].sum())
            out.append(Band(low, high, int(inside.sum()), float(scores_N[inside].mean()), ratio))
    return out


def _worst(contents: Contents, scores_N: np.ndarray) -> list[Written]:
    """The test rows with the lowest chrF, as many as the spec asks for."""
    rows, texts = contents.test, contents.test_texts
    order = sorted(range(len(rows)), key=lambda n: (scores_N[n], rows["id"][n]))[: int(contents.setting("evaluate.mistakes", 20))]
    wanted = [rows["id"][n] for n in order]
    by_id = {row["id"]: row for row in texts.iter_rows(named=True) if row["id"] in set(wanted)} if len(texts) else {}
    out = []
    for n in order:
        row = rows.row(n, named=True)
        given = by_id.get(row["id"], {})
        right, said = aligned(row["label"], row["predicted"])
        out.append(Written(given.get("text", ""), right, said, float(scores_N[n]), row["tokens"], row["finished"], given.get("source", "")))
    return out
