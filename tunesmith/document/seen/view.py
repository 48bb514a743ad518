"""What the page of rows as the model reads them is made of: plain values, the same for every kind of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from tunesmith.document.seen.tokens import Mark, Reader, Strip
from tunesmith.tasks.base import PARTS, Encoded, Encoding, Task, parts_of
from tunesmith.tasks.windows import WINDOW

UNCUT = 10**9
"""A length that cuts nothing."""


@dataclass(frozen=True)
class Fact:
    """A number about all rows that are trained on."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Chip:
    """A label, or a part of one: its words, the number of its colour, what there is to say of it; the tone is "good" or "bad"."""

    text: str
    hue: int | None = None
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Meter:
    """A number between the smallest and the largest one."""

    value: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """Where the number lies, from 0 to 1."""
        return (self.value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


@dataclass(frozen=True)
class SeenRow:
    """A row of the training split as it is trained on. `why` says for what it was chosen, `more` counts strips that are not shown."""

    strips: list[Strip]
    chips: list[Chip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    meter: Meter | None = None
    more: int = 0
    beside: bool = False
    id: str = ""
    source: str = ""
    why: str = ""

    @property
    def lost(self) -> int:
        """Tokens that were cut."""
        return sum(strip.lost for strip in self.strips)


@dataclass(frozen=True, eq=False)
class Learned:
    """What is trained on: the task, the rows of the training split, and these as `Task.training` encodes them.

    `most`: tokens of a text that are shown.
    """

    task: Task
    rows: pl.DataFrame
    encoding: Encoding
    processor: Any
    max_length: int
    most: int = 400

    @cached_property
    def reader(self) -> Reader:
        """Reads tokens back."""
        return Reader(self.processor, self.max_length, self.most)

    @cached_property
    def places(self) -> dict[int, list[int]]:
        """Numbers of the encoded rows of each row of the table: windows over its text, or pairs of its query."""
        found: dict[int, list[int]] = {}
        for place, row in enumerate(self.encoding.rows):
            found.setdefault(row[WINDOW].row if WINDOW in row else place, []).append(place)
        return found

    def encoded(self, number: int) -> list[Encoded]:
        """The encoded rows of a row of the table."""
        return [self.encoding.rows[place] for place in self.places.get(number, [])]

    def whole(self, number: int) -> list[Encoded]:
        """The same, had nothing been cut, for tasks whose windows become one."""
        return self.task.encode(self.rows[number : number + 1], self.processor, UNCUT).rows

    def may_be_cut(self, number: int) -> bool:
        """True where a text of the row has all the tokens that it may have."""
        return any(len(text["input_ids"]) >= self.max_length for text in parts_of(self.encoded(number)))

    def strip(
        self, name: str, row: Encoded, whole: Encoded | None = None, *, pair: bool = False, marks: Mapping[int, Mark] | None = None,
        tone: str = "", note: str = "",
    ) -> Strip:  # fmt: skip
        """An encoded text beside what it was before it was cut."""
        halves = None if whole is None else self.reader.halves(whole, pair)
        return replace(self.reader.strip(name, self.reader.halves(row, pair), halves, marks), tone=tone, note=note)

    def texts(self, number: int) -> list[Strip]:
        """The texts of a row that has no windows: one, a pair read together, or several read apart."""
        row, whole = self.encoded(number)[0], self.whole(number)[0]
        if PARTS in row:
            both = zip(row[PARTS], whole[PARTS], strict=True)
            return [self.strip(f"text {n}, read alone", text, full) for n, (text, full) in enumerate(both, 1)]
        pair = "text_pair" in self.task.columns
        return [self.strip("both texts, read together" if pair else "text", row, whole, pair=pair)]


@dataclass(frozen=True)
class Look:
    """How rows of a kind of labels are looked at.

    `types` names what each row shows, so that rows are chosen that show everything; `draw` draws one; `facts` count over all; `legend`
    names colours; `may_be_cut` is true for rows that are worth comparing with their whole text; `unit` is what is counted as cut, nothing
    where the facts tell it themselves or windows leave nothing out.
    """

    types: Callable[[Learned], list[set[str]]]
    draw: Callable[[Learned, int], SeenRow]
    facts: Callable[[Learned], list[Fact]] = lambda learned: []
    legend: Callable[[Learned], list[Chip]] = lambda learned: []
    may_be_cut: Callable[[Learned, int], bool] = Learned.may_be_cut
    unit: str = "rows"
