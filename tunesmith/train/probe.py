"""What a run will cost, from a few real steps: seconds per step as a line in the number of tokens, and memory as a run expects it.

Written formula: seconds = Σ over steps (a + b · padded tokens of the step), a and b fitted to probe steps of five
batches from the shortest to the longest; one evaluation costs a third of b per token, because a backward pass is two forward passes.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.models.forward import batch_rows
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Encoding, Task
from tunesmith.train.averaging import most_scored_afterwards, update
from tunesmith.train.batches import Order, StepBatch, step_batches
from tunesmith.train.fit import full_batches, full_step, make_learner, order_of
from tunesmith.train.loop import train_steps
from tunesmith.train.memory import expected_peak, longest
from tunesmith.train.prefix import Used, Wish, with_prefix

QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)


@dataclass(frozen=True)
class Estimate:
    """Steps and estimated cost of the whole training on this machine; `store` says whether frozen blocks will be read, and its size."""

    steps: int
    seconds: float
    peak_bytes: int
    store: Used


def estimate(model: Any, spec: Spec, task: Task, train: Encoding, validation: Encoding) -> Estimate:
    """Estimate from real steps on `model`, whose strategy has been applied. The model's weights change: use a throw-away.

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
            peak = expected_peak(model, spec, stored, largest, held, order.steps)
            points = _timed(model, spec, stored, probed, order)
    slope, base = _line(points)
    per_epoch = sum(base + slope * len(rows) * max(train.lengths[n] for n in rows) for rows in order.epoch_rows(0))
    evaluations = order.epochs * spec.train.evaluations_per_epoch + most_scored_afterwards(spec.train.averaging)
    total = order.epochs * per_epoch + evaluations * slope / 3 * tokens
    return Estimate(order.steps, total, peak, replace(used, bytes=int(used.bytes / share)))


def _line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Seconds per token and per step, neither below zero."""
    tokens, seconds = np.array(points).T
    slope = max(float(np.polyfit(tokens, seconds, 1)[0]) if len(set(tokens)) > 1 else float(seconds.mean() / tokens.mean()), 0.0)
    return slope, max(float((seconds - slope * tokens).mean()), 0.0)


def _timed(model: Any, spec: Spec, task: Task, samples: list[Encoding], order: Order) -> list[tuple[int, float]]:
    """Padded tokens of each sample, and seconds of the second step on it: the first step of a shape compiles kernels for it."""
    points = list[tuple[int, float]]()
    learner = make_learner(model, spec, order.steps)
    model.train()
    step = full_step(task, model, spec)
    for sample in (*samples, *samples):
        chosen = Order(sample.lengths, len(sample.rows), 1, order.pieces, 0, together=order.together)
        batch = next(step_batches(chosen, lambda numbers, rows=sample.rows: task.collate([rows[n] for n in numbers])))  # type: ignore[misc]
        start = time.perf_counter()
        for info in train_steps(learner, full_batches(iter([batch]), model, spec), step):
            update(learner.average, model, max(info.step, order.steps), order.steps)
        points.append((_padded(batch), time.perf_counter() - start))
    return points[len(samples) :]


def _padded(batch: StepBatch) -> int:
    return sum(piece["input_ids"].numel() for piece in batch.pieces)
