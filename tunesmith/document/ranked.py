"""What a report tells of rankings: where the first relevant text stands, and the queries that find theirs last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.document.contents import Contents

PLACES = ((1, 1), (2, 3), (4, 10), (11, 100), (101, None))
SHOWN = 3
"""Texts of a ranking that are shown."""


@dataclass(frozen=True)
class Place:
    """Test queries whose first relevant text stands from `low` to `high`; not found at all where there is no `low`."""

    low: int | None
    high: int | None
    n: int
    share: float


@dataclass(frozen=True)
class Query:
    """A test query whose relevant text stands far down: that text, its rank (None: not found), and the texts that stand first."""

    text: str
    wanted: str
    rank: int | None
    first: list[str]
    source: str


def told_rankings(contents: Contents) -> dict[str, Any]:
    """What the templates walk over; nothing of it for a run without test predictions."""
    if contents.test.is_empty():
        return {"places": [], "hard_queries": []}
    ranks = [_first(row) for row in contents.test["ranks"].to_list()]
    limits = [*PLACES, (None, None)]
    counts = [sum(_is_in(rank, *limit) for rank in ranks) for limit in limits]
    places = [Place(*limit, n, n / len(ranks)) for limit, n in zip(limits, counts, strict=True)]
    return {"places": places, "hard_queries": hard_queries(contents, int(contents.setting("evaluate.mistakes", 20)))}


def hard_queries(contents: Contents, count: int) -> list[Query]:
    """The queries whose first relevant text stands farthest down, those without one first."""
    known = {row["id"]: row for row in contents.test_texts.iter_rows(named=True)}
    rows = [(row, _first(row["ranks"])) for row in contents.test.iter_rows(named=True) if row["id"] in known]
    wrong = sorted((item for item in rows if item[1] != 1), key=lambda item: (item[1] is not None, -(item[1] or 0), item[0]["id"]))
    return [_query(row, known[row["id"]], rank) for row, rank in wrong[:count]]


def _query(row: dict[str, Any], known: dict[str, Any], rank: int | None) -> Query:
    wanted = [entry["text"] for entry in row["label"] if entry["relevance"] > 0]
    place = row["ranks"].index(rank) if rank is not None else 0
    return Query(known["text"], wanted[place], rank, [entry["text"] for entry in row["predicted"][:SHOWN]], known["source"] or "")


def _first(ranks: list[int]) -> int | None:
    return min((rank for rank in ranks if rank), default=None)


def _is_in(rank: int | None, low: int | None, high: int | None) -> bool:
    if low is None or rank is None:
        return low is None and rank is None
    return rank >= low and (high is None or rank <= high)
