"""CoNLL columns: a token a line, a blank line between sentences, the token in the first column and its tag in the last."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import polars as pl

from tunesmith.data.sources.base import Items, Left, Reason, counted, dropped_table, frame, held
from tunesmith.data.sources.place import COLUMN_FILES, Place, ending_of

SCHEMA = {"source": pl.String, "tokens": pl.List(pl.String), "tags": pl.List(pl.String)}
TAG = re.compile(r"(O|[BIESLUM]-\S+)\Z")
SAMPLE = 200
SHARE = 0.9
Split = Callable[[str], list[str]]
Sentence = list[tuple[int, list[str]]]  # line number, columns


def recognise(place: Place) -> str | None:
    """Why these are CoNLL columns: nearly all lines have the same number of columns, and the last one looks like tags."""
    if place.shape != "text":
        return None
    lines = [line.rstrip("\r\n") for line in islice(place.first_lines, SAMPLE)]
    split = _splitter(lines)
    rows = [split(line) for line in _token_lines(lines)]
    usual, share = _usual(rows)
    if usual < 2 or share < SHARE:
        return None
    tags = [row[-1] for row in rows if len(row) == usual]
    like_tags = sum(bool(TAG.match(tag)) for tag in tags) >= SHARE * len(tags)
    sentences = any(not line.strip() for line in lines) or any(line.startswith("-DOCSTART-") for line in lines)
    if like_tags or (ending_of(place.path.name) in COLUMN_FILES and sentences):
        kind = "tags such as B-person and O" if like_tags else "tags, by the name of the file"
        return f"the lines of {place.name} have {usual} columns, the last one holding {kind}"
    return None


def read(place: Place, why: str) -> Items:
    """A row per sentence, its tokens and its tags; `source` names the first line of the sentence.

    A sentence is left out when one of its lines has another number of columns than most lines of the file: without
    that line it would be another sentence. Tags that break their scheme (I-person after O) stay and are counted.

    Raises:
        DataError: no sentence is left.
    """
    lines = list(place.lines())
    split = _splitter(line for _, line in lines)
    usual = _usual([split(line) for line in _token_lines(line for _, line in lines)])[0]
    left: list[Left] = []
    rows = []
    broken = unclear = 0
    for sentence in _sentences(lines, split, usual):
        source = f"{place.name}:{sentence[0][0]}"
        wrong = next(((number, row) for number, row in sentence if len(row) != usual), None)
        if wrong:
            left.append((source, Reason.COLUMN_COUNT, f"line {wrong[0]} has {len(wrong[1])} columns, most have {usual}"))
            continue
        tags = [row[-1] for _, row in sentence]
        broken += breaks(tags)
        unclear += any(tag != "O" and not TAG.match(tag) for tag in tags) and any(TAG.match(tag) is not None for tag in tags)
        rows.append({"source": source, "tokens": [row[0] for _, row in sentence], "tags": tags})
    issues = place.encoding[1] + counted(
        place.name, broken, "I- tags should continue an entity of their kind", "tags begin one instead; they are kept"
    )
    issues += counted(place.name, unclear, "tags should be O or begin with B- or I-", "sentences hold other tags too; they are kept")
    table = held(str(place.path), frame(rows, SCHEMA), left)
    return Items("token-classification", "conll", why, None, table, dropped_table(left), tuple(issues))


def breaks(tags: list[str]) -> int:
    """How many tags continue an entity (I-, M-, E-, L-) that does not stand before them.

    In the older IOB1 scheme every entity may begin with I-; where a file has no B- at the start of entities, these
    are counted too.
    """
    before, count = "O", 0
    for tag in tags:
        if tag[:2] in ("I-", "M-", "E-", "L-") and (before[:2] in ("E-", "L-", "S-", "U-") or before[2:] != tag[2:] or before == "O"):
            count += 1
        before = tag
    return count


def _splitter(lines: Iterable[str]) -> Split:
    """How a line becomes columns: at tabs where most lines hold one, else at spaces."""
    some = _token_lines(islice(lines, SAMPLE))
    if some and sum("\t" in line for line in some) > len(some) / 2:
        return lambda line: [part.strip() for part in line.split("\t")]
    return lambda line: re.split(" +", line.strip(" \t"))


def _token_lines(lines: Iterable[str]) -> list[str]:
    """Lines that surely hold a token: not blank, no document mark, nothing that may be a comment."""
    return [line for line in lines if line.strip() and not line.startswith(("-DOCSTART-", "# "))]


def _usual(rows: list[list[str]]) -> tuple[int, float]:
    """The number of columns that most lines have, and their share."""
    counts = Counter(map(len, rows)).most_common(1)
    return (counts[0][0], counts[0][1] / len(rows)) if counts else (0, 0.0)


def _sentences(lines: list[tuple[int, str]], split: Split, usual: int) -> Iterator[Sentence]:
    """Lines between blank ones; document marks and comments (`# …` with another number of columns) are no tokens."""
    sentence: Sentence = []
    for number, line in lines:
        row = split(line)
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield sentence
            sentence = []
        elif not (line.startswith("# ") and not sentence and len(row) != usual):
            sentence.append((number, row))
    if sentence:
        yield sentence
