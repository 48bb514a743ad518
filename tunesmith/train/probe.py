"""What a run will cost, from some real steps: seconds per step as a line in the number of tokens, and memory as a run expects it.

Written formula: seconds = Σ over steps (a + b · padded tokens of the step), a and b fitted to probe steps of five
batches from the shortest to the longest, in turn for twenty seconds or a tenth of the training; evaluations · tokens of the
validation rows · measured seconds of a pass without gradients.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from tunesmith.models.anatomy import running_blocks
from tunesmith.models.forward import batch_rows
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Encoding, Task
from tunesmith.train.averaging import most_scored_afterwards, update
from tunesmith.train.batches import Order, step_batches
from tunesmith.train.fit import full_batches, full_step, make_learner, order_of
from tunesmith.train.loop import train_steps
from tunesmith.train.memory import expected_peak, longest
from tunesmith.train.prefix import Used, Wish, with_prefix

QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
Point = tuple[int, float]  # padded tokens of a step, and seconds
PROBE_SECONDS, PROBE_SHARE = 20.0, 0.1
"""Steps are measured until they have taken so long, or so large a share of the training they tell of: a shared machine was seen to be
a quarter slower or quicker for ten seconds at a time."""


@dataclass(frozen=True)
class Estimate:
    """Steps and estimated cost of the whole training on this machine; `store` says whether frozen blocks will be read, and its size.

    `probe_seconds` went into steps that only an estimate needs.
    """

    steps: int
    seconds: float
    probe_seconds: float
    peak_bytes: int
    store: Used


def estimate(model: Any, spec: Spec, task: Task, train: Encoding, validation: Encoding, forward: float) -> Estimate:
    """Estimate from real steps on `model`, whose strategy has been applied. The model's weights change: use a throw-away.

    `forward` are seconds per token of a pass without gradients through all blocks, which is in float32 whatever steps are in.

    Where training will read frozen blocks from the store, so do these steps, from a store of their own rows. Filling the
    real one is not part of the seconds.
    """
    order = order_of(spec, train)
    by_length = sorted(range(len(train.lengths)), key=lambda n: train.lengths[n])
    size = min(order.batch_size, len(by_length))
    starts = [int(quantile * (len(by_length) - size)) for quantile in QUANTILES]
    samples, most = [by_length[start : start + size] for start in starts], longest(train, size)
    evaluated, tokens = validation.part(longest(validation, batch_rows(model))), sum(validation.lengths)
    encodings = [*map(train.part, samples), train.part(most), evaluated]
    trained = sum(train.lengths[n] for n in set(most).union(*samples))
    share = (trained + sum(evaluated.lengths)) / (sum(train.lengths) + tokens)
    with tempfile.TemporaryDirectory() as folder:
        options = spec.store.model_copy(update={"max_gb": spec.store.max_gb * share})
        wish = Wish(options, Path(folder), float(order.epochs))
        with with_prefix(model, task, encodings, wish, lambda *_: None) as (stored, (*probed, largest, held), used):
            peak = expected_peak(model, spec, stored, largest, held, order)
            began = time.perf_counter()
            per_epoch = _epoch_seconds(_timed(model, spec, stored, probed, order), order)
            probe_seconds = time.perf_counter() - began
    evaluations = order.epochs * spec.train.evaluations_per_epoch + most_scored_afterwards(spec.train.averaging)
    total = order.epochs * per_epoch + evaluations * forward * (1 - stored_share(model, used)) * tokens
    return Estimate(order.steps, total, probe_seconds, peak, replace(used, bytes=int(used.bytes / share)))


def _epoch_seconds(steps: Iterator[Point], order: Order) -> float:
    """Seconds of an epoch, from as many rounds of steps as it takes to believe them."""
    points, seconds, spent = list[Point](), math.inf, 0.0
    tokens = [len(rows) * max(order.lengths[n] for n in rows) for rows in order.epoch_rows(0)]
    while spent < min(PROBE_SECONDS, PROBE_SHARE * order.epochs * seconds):
        points += islice(steps, len(QUANTILES))
        slope, base = line(points)
        seconds, spent = slope * sum(tokens) + base * len(tokens), sum(taken for _, taken in points)
    return seconds


def stored_share(model: Any, used: Used) -> float:
    """Share of the blocks whose work the store keeps."""
    return used.depth / len(running_blocks(model)) if used.used else 0.0


def line(points: list[Point]) -> tuple[float, float]:
    """Seconds per token and per step: least squares with neither below zero (Lawson & Hanson 1974)."""
    tokens, seconds = np.array(points).T
    (slope, base), _ = nnls(np.stack([tokens, np.ones_like(tokens)], 1), seconds)
    return float(slope), float(base)


def _timed(model: Any, spec: Spec, task: Task, samples: list[Encoding], order: Order) -> Iterator[Point]:
    """The samples in turn, without end, after a round that is not measured: the first step of a shape compiles kernels for it."""
    learner = make_learner(model, spec, order.steps)
    model.train()
    step = full_step(task, model, spec)
    for number, sample in enumerate(cycle(samples)):
        chosen = Order(sample.lengths, len(sample.rows), 1, order.pieces, 0, together=order.together)
        batch = next(step_batches(chosen, lambda numbers, rows=sample.rows: task.collate([rows[n] for n in numbers])))  # type: ignore[misc]
        start = time.perf_counter()
        for info in train_steps(learner, full_batches(iter([batch]), model, spec), step):
            update(learner.average, model, max(info.step, order.steps), order.steps)
        if number >= len(samples):
            yield len(sample.rows) * max(sample.lengths), time.perf_counter() - start
