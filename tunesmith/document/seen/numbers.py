"""Rows with a number: the number between the smallest and the largest one, and what the network is asked for in its place."""

from __future__ import annotations

import numpy as np

from tunesmith.document.formats import formatted
from tunesmith.document.seen.view import Chip, Fact, Learned, Look, Meter, SeenRow
from tunesmith.tasks.text_regression import TextRegression

THIRDS = ("low", "middling", "high")


def types(learned: Learned) -> list[set[str]]:
    """Which third of the range each row's number is in."""
    bounds = _range(learned)
    meters = [Meter(float(row["labels"]), *bounds) for row in learned.encoding.rows]
    return [{f"a {THIRDS[min(int(3 * meter.share), 2)]} number"} for meter in meters]


def draw(learned: Learned, number: int) -> SeenRow:
    """The tokens of the text or of both texts, and the number."""
    task, meter = learned.task, _meter(learned, number)
    assert isinstance(task, TextRegression), "numbers are of this family"
    unit = "in spreads of the training numbers from their mean" if task.has_head else "as the cosine of the two vectors"
    chip = Chip(formatted(meter.value, "plain"), None, f"the network is asked for {formatted(task.wanted(meter.value), 'plain')}, {unit}")
    return SeenRow(learned.texts(number), [chip], meter=meter)


def facts(learned: Learned) -> list[Fact]:
    """The range of the numbers."""
    low, high = _range(learned)
    middle = float(np.median([row["labels"] for row in learned.encoding.rows]))
    return [Fact("numbers", f"{formatted(low, 'plain')} to {formatted(high, 'plain')}", f"median {formatted(middle, 'plain')}")]


def _meter(learned: Learned, number: int) -> Meter:
    return Meter(float(learned.encoded(number)[0]["labels"]), *_range(learned))


def _range(learned: Learned) -> tuple[float, float]:
    numbers_N = np.array([row["labels"] for row in learned.encoding.rows], np.float64)
    return float(numbers_N.min()), float(numbers_N.max())


LOOK = Look(types, draw, facts)
