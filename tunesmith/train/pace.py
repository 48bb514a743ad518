"""What training was expected to take after its first steps, beside what it took.

Written formula: seconds = Σ over steps (a + b · tokens of the step) + evaluations · seconds of one, with a and b fitted to steps 61 to 120,
or to the second sixth of a shorter run. An evaluation is a pass without gradients in float32, which two batches are timed for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.core.records import StepInfo
from tunesmith.models.forward import batch_rows, predict_logits
from tunesmith.tasks.base import Encoding

PROBED, SHORTEST = 120, 60
"""The last step that is looked at, the earlier half of them being slow: kernels are compiled for shapes that are new. And the steps of a
run that is too short to be foreseen; of others at most a third is looked at."""
EVALUATED = (0.25, 0.75)
"""Where in the order of lengths the batches are taken that tell what an evaluation takes."""


@dataclass
class Pace:
    """Collects tokens and seconds of each step. `evaluation_seconds` are expected of one evaluation; whoever evaluates counts them."""

    evaluation_seconds: float
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evaluations: int = 0

    def steps(self, infos: Iterable[StepInfo]) -> Iterator[StepInfo]:
        """The same steps, each timed; what the caller does between them is not counted."""
        started = time.perf_counter()
        for info in infos:
            self.tokens.append(info.tokens)
            self.seconds.append(time.perf_counter() - started)
            yield info
            started = time.perf_counter()

    def expected(self) -> float | None:
        """Seconds that the steps after the probe and all evaluations were expected to take, with the probe's own; None for short runs."""
        if len(self.tokens) <= SHORTEST:
            return None
        probed = min(PROBED, len(self.tokens) // 3)
        slope, base = line(self.tokens[probed // 2 : probed], self.seconds[probed // 2 : probed])
        rest = self.tokens[probed:]
        steps = base * len(rest) + slope * sum(rest)
        return sum(self.seconds[:probed]) + steps + self.evaluations * self.evaluation_seconds


def evaluation_seconds(model: Any, task: Any, rows: Encoding) -> float:
    """Seconds that the answers to all rows are expected to take, from two batches."""
    order = sorted(range(len(rows.lengths)), key=lambda row: rows.lengths[row])
    size = min(batch_rows(model), len(order))
    timed = [rows.part(order[start : start + size]) for start in (int(share * (len(order) - size)) for share in EVALUATED)]
    started = time.perf_counter()
    for part in timed:
        predict_logits(model, task, part)
    return (time.perf_counter() - started) * sum(rows.lengths) / sum(sum(part.lengths) for part in timed)


def line(tokens: list[int], seconds: list[float]) -> tuple[float, float]:
    """Seconds per token and per step, neither below zero: through the medians of the shorter and the longer half, then both as much larger
    as all steps together took longer: what is expected is a sum."""
    order = np.argsort(tokens, kind="stable")
    x, y = np.array(tokens, float)[order], np.array(seconds)[order]
    half = len(x) // 2
    (x0, y0), (x1, y1) = ((float(np.median(x[part])), float(np.median(y[part]))) for part in (slice(0, half), slice(half, None)))
    slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
    slope = min(max(slope, 0.0), y1 / max(x1, 1.0))
    base = max(y1 - slope * x1, 0.0)
    longer = float(y.sum() / (slope * x.sum() + base * len(x))) if y1 else 1.0
    return slope * longer, base * longer
