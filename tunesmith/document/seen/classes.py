"""Rows with one class or several: the classes as chips beside the tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tunesmith.document.formats import counted
from tunesmith.document.seen.view import Chip, Fact, Learned, Look, SeenRow

NONE = "no class"


def classes_of(learned: Learned, number: int) -> list[int]:
    """The class ids that a row is trained on."""
    target = learned.encoded(number)[0]["labels"]
    return [int(target)] if np.ndim(target) == 0 else [int(c) for c in np.flatnonzero(target)]


def types(learned: Learned) -> list[set[str]]:
    """The names of each row's classes."""
    names = learned.task.labels
    return [{names[c] for c in classes_of(learned, number)} or {NONE} for number in range(len(learned.rows))]


def draw(learned: Learned, number: int) -> SeenRow:
    """The tokens of the row, and its classes."""
    chips = [Chip(learned.task.labels[c], c, f"class {c}") for c in classes_of(learned, number)]
    return SeenRow(learned.texts(number), chips or [Chip(NONE)])


def facts(learned: Learned) -> list[Fact]:
    """How many classes there are, and the rarest one."""
    counts = Counter(c for number in range(len(learned.rows)) for c in classes_of(learned, number))
    rarest = min(range(len(learned.task.labels)), key=lambda c: (counts[c], c))
    note = f"the rarest, {learned.task.labels[rarest]}, has {counted(counts[rarest])} rows"
    return [Fact("classes", counted(len(learned.task.labels)), note)]


LOOK = Look(types, draw, facts)
