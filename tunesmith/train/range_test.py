"""A learning-rate range test (Smith 2017): a few dozen steps on a throw-away copy, the rate growing by a constant factor.

Written rule: the loss is smoothed by a moving average with factor 0.8, corrected for its start. The suggestion is the rate
at which the smoothed loss falls most steeply per logarithm of the rate, but at most a fifth of the rate where it is lowest,
rounded to two digits. Where the smoothed loss never falls by more than the losses differ from step to step (standard deviation
over the first third), nothing was learned from the test, and the default stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from tunesmith.core.errors import ModelError
from tunesmith.core.seeding import seed_for
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Encoding, Task
from tunesmith.train.batches import step_batches
from tunesmith.train.fit import full_batches, full_step, make_learner, order_of
from tunesmith.train.loop import train_steps

STEPS = 60
BELOW, ABOVE = 1e-2, 1e2
"""The range, relative to the default rate of the strategy."""
SMOOTHING, SAFETY, DIVERGED = 0.8, 5.0, 3.0


@dataclass(frozen=True)
class RangeTest:
    """Rates and the smoothed losses at them, the suggested rate, and the rule in words. `rate` is the default where nothing was learned."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    rate: float
    rule: str


def range_test(model: Any, spec: Spec, task: Task, train: Encoding) -> RangeTest:
    """The test on `model`, whose strategy has been applied and whose weights change: use a throw-away.

    `spec` is resolved, with the default rate. The same seed gives the same curve; the generator of random numbers is put back.
    """
    default = spec.train.learning_rate
    assert isinstance(default, float), "the spec has the default rate"
    growth = (ABOVE / BELOW) ** (1 / (STEPS - 1))
    lowest = spec.model_copy(update={"train": spec.train.model_copy(update={"learning_rate": default * BELOW, "epochs": STEPS})})
    order = order_of(lowest, train)
    learner = make_learner(model, lowest, STEPS)
    learner.scheduler = LambdaLR(learner.optimizer, lambda step: growth**step)
    cuda = [next(model.parameters()).device] if next(model.parameters()).device.type == "cuda" else []
    losses: list[float] = []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed_for(spec.seed, "range test"))
        model.train()
        batches = full_batches(step_batches(order, lambda rows: task.collate([train.rows[r] for r in rows])), model, spec)
        with suppress(ModelError):  # a loss that is not finite is where the range ends
            for info in train_steps(learner, batches, full_step(task, model, spec)):
                losses.append(info.loss)
                if len(losses) == STEPS or losses[-1] > DIVERGED * max(losses[0], math.log(2)):
                    break
    return suggest([default * BELOW * growth**n for n in range(len(losses))], losses, default)


def suggest(rates: Sequence[float], losses: Sequence[float], default: float) -> RangeTest:
    """The suggestion for losses at growing rates, by the rule above."""
    smoothed = smooth(losses)
    if len(losses) < 8:
        return RangeTest(tuple(rates), tuple(smoothed), default, f"range test: diverged after {len(losses)} steps, so the default stays")
    slopes = np.gradient(smoothed, np.log(rates))
    lowest, steepest = int(np.argmin(smoothed)), int(np.argmin(slopes[: int(np.argmin(smoothed)) + 1]))
    fall, noise = max(smoothed[: lowest + 1]) - smoothed[lowest], float(np.std(np.diff(losses[: max(len(losses) // 3, 3)])))
    if fall <= noise or lowest == 0:
        return RangeTest(tuple(rates), tuple(smoothed), default, "range test: the loss fell clearly at no rate, so the default stays")
    safe = rates[lowest] / SAFETY
    rate = float(f"{min(rates[steepest], safe):.2g}")
    why = "steepest fall of the smoothed loss" if rates[steepest] <= safe else f"a fifth of {rates[lowest]:.2g}, where the loss is lowest"
    words = f"range test: {why}, over {len(losses)} steps from {rates[0]:.2g} to {rates[-1]:.2g}; the default would be {default:.2g}"
    return RangeTest(tuple(rates), tuple(smoothed), rate, words)


def smooth(losses: Sequence[float]) -> list[float]:
    """Moving average with factor 0.8, divided by its total weight, so that the first values count fully."""
    mean, out = 0.0, list[float]()
    for number, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        out.append(mean / (1 - SMOOTHING**number))
    return out
