"""Rows of the training split as the model will read them, on a page.

choose  rows that show every label, the longest row and one that is cut, by content hash
draw    each of them by the kind of its labels
count   what matters about all rows
render  one page without links
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tunesmith.document.formats import counted, formatted
from tunesmith.document.seen import answers, classes, numbers, plain, relevant, spans, written
from tunesmith.document.seen.tokens import Token
from tunesmith.document.seen.view import Chip, Fact, Learned, Look, SeenRow
from tunesmith.document.templating import rendered
from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import parts_of

LOOKS: dict[Kind, Look] = {
    "class": classes.LOOK,
    "classes": classes.LOOK,
    "number": numbers.LOOK,
    "answers": answers.LOOK,
    "text": written.LOOK,
    "spans": spans.LOOK,
    "relevant": relevant.LOOK,
}
"""How rows are drawn, by the kind of their labels; others show their tokens alone."""
TRIED = 100
"""Rows that are compared with their whole text to find one that is cut."""
MIXED, CUT_TOO = 3, 2
"""With so many rows or more the longest row is shown, or one that is cut."""


@dataclass(frozen=True)
class Change:
    """A row before and after an operation of augmentation; no operation where none changed it."""

    operation: str | None
    before: str
    after: str


@dataclass(frozen=True)
class About:
    """What is known of a run besides its encoded rows: name, task, model, rows of the splits, the rule that set the length, what is
    left to later stages, warnings, and what augmentation does."""

    name: str
    task: str
    model: str
    splits: dict[str, int]
    dropped: int
    rule: str
    notes: list[str]
    issues: list[str]
    changes: list[Change]


@dataclass(frozen=True)
class Seen:
    """What the page shows. `missed` are types of labels that no shown row has, `signs` what tokens have that is to be explained."""

    about: About
    facts: list[Fact]
    legend: list[Chip]
    rows: list[SeenRow]
    missed: list[str]
    signs: set[str]


def see(learned: Learned, about: About, count: int) -> Seen:
    """What the page shows of `count` rows; the order of the table does not matter."""
    look = LOOKS.get(learned.task.kind, plain.LOOK)
    types = look.types(learned)
    rows = [_drawn(learned, look, number, why) for number, why in chosen(learned, look, types, count).items()]
    shown = {row.id for row in rows}
    seen = set().union(*(some for some, name in zip(types, learned.rows["id"], strict=True) if name in shown))
    missed = sorted(set().union(*types) - seen)
    tokens = [piece for row in rows for strip in row.strips for piece in strip.pieces if isinstance(piece, Token)]
    signs = {sign for token in tokens for sign, there in _signs(token) if there}
    return Seen(about, facts(learned, look, about), look.legend(learned), rows, missed, signs)


def chosen(learned: Learned, look: Look, types: list[set[str]], count: int) -> dict[int, str]:
    """The rows to show, by number, with the reason: new types of labels, the longest row, one that is cut, then others."""
    order = [number for number in learned.rows["id"].arg_sort().to_list() if number in learned.places]
    special: dict[int, str] = {}
    cut = _cut(learned, look, order) if count >= CUT_TOO else None
    if cut is not None:
        special[cut] = "it is cut"
    if count >= MIXED:
        longest = _longest(learned)
        special[longest] = "the longest row" + (", and it is cut" if longest == cut else "")
    picked: dict[int, str] = {}
    seen = set().union(*(types[number] for number in special))
    for number in _showing(order, [some - seen for some in types], count - len(special)):
        fresh = types[number] - seen
        if fresh and number not in special and len(picked) + len(special) < count:
            picked[number] = f"it shows {', '.join(sorted(fresh))}"
            seen |= fresh
    for number in order:
        if len(picked) + len(special) < count and number not in special:
            picked.setdefault(number, "next by content hash")
    return picked | special


def facts(learned: Learned, look: Look, about: About) -> list[Fact]:
    """The numbers at the head of the page."""
    encoding, unknown = learned.encoding, learned.reader.unknown
    texts = parts_of(encoding.rows)
    tokens = sum(len(text["input_ids"]) for text in texts)
    rows = ", ".join(f"{counted(n)} {split}" for split, n in about.splits.items())
    lengths = f"median {formatted(float(np.median(encoding.lengths)), 'plain')}, longest {counted(max(encoding.lengths))}"
    out = [
        Fact("rows", rows, f"{counted(about.dropped)} dropped"),
        Fact("model.max_length", f"{counted(learned.max_length)} tokens", about.rule),
        Fact("tokens", counted(tokens), f"of the training split, as they are kept; {lengths} in a row"),
    ]
    if look.unit:
        out.append(Fact(f"{look.unit} cut", counted(encoding.cut), "of the training split"))
    if unknown is not None:
        strange = sum(text["input_ids"].count(unknown) for text in texts)
        out.append(Fact("tokens unknown to the tokenizer", counted(strange), f"of {counted(tokens)}"))
    return [*out, *look.facts(learned)]


def render(seen: Seen) -> str:
    """The page; the same rows give the same bytes."""
    return rendered("seen.html", seen=seen)


def _drawn(learned: Learned, look: Look, number: int, why: str) -> SeenRow:
    """A row with what there is to say of all kinds."""
    row = look.draw(learned, number)
    known = learned.rows.row(number, named=True)
    notes = [*row.notes, *_strange(row)]
    return replace(row, id=known["id"], source=known.get("source") or "", why=why, notes=notes)


def _showing(order: list[int], types: list[set[str]], room: int) -> list[int]:
    """The order in which rows are looked at for new types: where there is room for all types, those of the rarest type first."""
    counts = Counter(name for number in order for name in types[number])
    if len(counts) > room:
        return order
    rarest = sorted(counts, key=lambda name: (counts[name], name))
    first: dict[str, int] = {}
    for number in order:
        for name in types[number]:
            first.setdefault(name, number)
    return [*dict.fromkeys([*(first[name] for name in rarest), *order])]


def _signs(token: Token) -> Iterator[tuple[str, bool]]:
    yield "second", token.part > 0
    yield "unknown", token.unknown
    yield "lost", token.lost
    yield "pale", token.mark.faint
    yield "rest", not token.text


def _strange(row: SeenRow) -> Iterator[str]:
    foreign = sum(strip.foreign for strip in row.strips)
    if foreign:
        yield f"The text itself holds words that the tokenizer takes for special tokens: {counted(foreign)}."


def _cut(learned: Learned, look: Look, order: list[int]) -> int | None:
    """The first row by content hash that lost tokens; None where none did, or none is soon found."""
    if not learned.encoding.cut + learned.encoding.cut_targets:
        return None
    worth = [number for number in order if look.may_be_cut(learned, number)]
    return next((number for number in worth[:TRIED] if look.draw(learned, number).lost), None)


def _longest(learned: Learned) -> int:
    """The row with most tokens; of equal ones the one with most characters, then the first by content hash."""
    texts = [name for name in ("text", "text_pair") if name in learned.rows.columns]
    characters = learned.rows.select(pl.sum_horizontal(pl.col(texts).str.len_chars())).to_series().to_list()
    ids = learned.rows["id"].to_list()
    lengths = {number: sum(learned.encoding.lengths[place] for place in places) for number, places in learned.places.items()}
    return min(lengths, key=lambda number: (-lengths[number], -characters[number], ids[number]))
