"""What a report tells of spans: the test rows with most wrong and missed spans, drawn in their text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tunesmith.document.contents import Contents

AROUND = 120
"""Characters of the text that are shown before the first span and after the last one."""


@dataclass(frozen=True)
class Piece:
    """A piece of a text: in a true span, in a predicted one, in both or in none; the types that begin with it."""

    text: str
    right: bool
    said: bool
    true_type: str
    said_type: str


@dataclass(frozen=True)
class MarkedRow:
    """A test row with errors: its text in pieces, and how many spans were missed and predicted wrongly."""

    pieces: list[Piece]
    missed: int
    wrong: int
    source: str


def told_spans(contents: Contents) -> dict[str, Any]:
    """What the templates walk over: the worst rows first, those with most errors; of these the one with the surest wrong span."""
    if contents.test.is_empty() or contents.test_texts.is_empty():
        return {"marked_rows": []}
    known = {row["id"]: row for row in contents.test_texts.iter_rows(named=True)}
    found = [(row, _errors(row)) for row in contents.test.iter_rows(named=True) if row["id"] in known]
    wrong = [(row, errors) for row, errors in found if any(errors[:2])]
    wrong.sort(key=lambda item: (-item[1][0] - item[1][1], -item[1][2], item[0]["id"]))
    shown = wrong[: int(contents.setting("evaluate.mistakes", 20))]
    return {"marked_rows": [MarkedRow(_pieces(known[row["id"]]["text"], row), *e[:2], known[row["id"]]["source"]) for row, e in shown]}


def _errors(row: dict[str, Any]) -> tuple[int, int, float]:
    """Spans missed, spans predicted wrongly, and the highest probability of these."""
    true, said = ({(s["start"], s["end"], s["label"]) for s in row[name]} for name in ("label", "predicted"))
    sure = [s["probability"] for s in row["predicted"] if (s["start"], s["end"], s["label"]) not in true]
    return len(true - said), len(said - true), max(sure, default=0.0)


def _pieces(text: str, row: dict[str, Any]) -> list[Piece]:
    """The text cut where spans begin and end; what is far from all of them is left out, with "…" in its place."""
    true, said = row["label"], row["predicted"]
    first, last = min(s["start"] for s in [*true, *said]), max(s["end"] for s in [*true, *said])
    begin, stop = max(0, first - AROUND), min(len(text), last + AROUND)
    cuts = sorted({begin, stop, *(s[edge] for s in [*true, *said] for edge in ("start", "end"))})
    pieces = [Piece("…", False, False, "", "")] if begin else []
    for a, b in pairwise(cuts):
        inside = [[s for s in spans if s["start"] <= a and b <= s["end"]] for spans in (true, said)]
        types = [" ".join(s["label"] for s in spans if s["start"] == a) for spans in inside]
        pieces.append(Piece(text[a:b], bool(inside[0]), bool(inside[1]), *types))
    return [*pieces, *([Piece("…", False, False, "", "")] if stop < len(text) else [])]
