"""Rows whose tokens are hidden and asked for: the windows over a text, with one draw of what is hidden."""

from __future__ import annotations

import numpy as np

from tunesmith.core.seeding import seed_for
from tunesmith.document.formats import counted, formatted
from tunesmith.document.seen.tokens import Mark
from tunesmith.document.seen.view import Fact, Learned, Look, SeenRow
from tunesmith.tasks.base import Encoded
from tunesmith.tasks.fill_mask import MASKABLE, VOCABULARY, FillMask
from tunesmith.tasks.masking import Vocabulary, masked

HIDDEN, CHANGED, KEPT = 0, 1, 2
"""Colours of tokens that become the mask token, any other token, and stay."""
SHOWN = 4
"""Windows of a row that are shown."""


def draw(learned: Learned, number: int) -> SeenRow:
    """The windows of the text; marks say what would stand at the tokens that one draw asks for."""
    windows = learned.encoded(number)
    shown = windows[:SHOWN]
    names = ["text"] if len(windows) == 1 else [f"window {n} of {len(windows)}" for n in range(1, len(windows) + 1)]
    strips = [learned.strip(name, row, marks=_marks(learned, row)) for name, row in zip(names, shown, strict=False)]
    notes = ["One draw: every step hides other tokens. A mark says what the model reads at the place of a token that is asked for."]
    return SeenRow(strips, notes=notes, more=len(windows) - len(shown))


def facts(learned: Learned) -> list[Fact]:
    """How many tokens carry a target at each step, and how many windows there are."""
    rows, share = learned.encoding.rows, formatted(_task(learned).probability, "percent")
    may = sum(sum(row[MASKABLE]) for row in rows)
    several = sum(len(windows) > 1 for windows in learned.places.values())
    unread = len(learned.rows) - len(learned.places)
    return [
        Fact("tokens that carry a target", share, f"of {counted(may)} that are no special ones; drawn anew at every step"),
        Fact("windows", counted(len(rows)), f"{counted(several)} rows have several, which share nothing"),
        Fact("rows without a token to hide", counted(unread), "left out of training"),
    ]


def _marks(learned: Learned, row: Encoded) -> dict[int, Mark]:
    ids_T, places_M = np.array(row["input_ids"], np.int64), np.flatnonzero(row[MASKABLE])
    draw = np.random.Generator(np.random.PCG64(seed_for(_task(learned).seed, f"a look at {' '.join(map(str, row['input_ids']))}")))
    words = Vocabulary(int(row[VOCABULARY][0]), row[VOCABULARY][1:])
    shown_M, learned_M = masked(draw, ids_T[places_M], np.array([len(places_M)]), words, _task(learned).probability)
    marks = {}
    for place, token, asked in zip(places_M.tolist(), shown_M.tolist(), learned_M.tolist(), strict=True):
        if asked:
            kind = HIDDEN if token == words.mask else KEPT if token == ids_T[place] else CHANGED
            marks[place] = Mark(learned.reader.read([token])[0][0] if kind != KEPT else "stays", kind)
    return marks


def _task(learned: Learned) -> FillMask:
    assert isinstance(learned.task, FillMask), "tokens are hidden by this task"
    return learned.task


LOOK = Look(lambda learned: [set() for _ in range(len(learned.rows))], draw, facts, unit="")
