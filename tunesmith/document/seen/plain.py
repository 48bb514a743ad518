"""Rows of a kind of labels that has no drawing of its own: their tokens."""

from __future__ import annotations

from tunesmith.document.seen.view import Learned, Look, SeenRow
from tunesmith.tasks.base import parts_of


def draw(learned: Learned, number: int) -> SeenRow:
    """Every encoded text of the row, as it is read."""
    texts = parts_of(learned.encoded(number))
    shown = texts[:SHOWN]
    names = ["text"] if len(texts) == 1 else [f"text {n} of {len(texts)}" for n in range(1, len(texts) + 1)]
    strips = [learned.strip(name, text) for name, text in zip(names, shown, strict=False)]
    return SeenRow(strips, more=len(texts) - len(shown))


SHOWN = 4
"""Texts of a row that are shown."""
LOOK = Look(types=lambda learned: [set() for _ in range(len(learned.rows))], draw=draw)
