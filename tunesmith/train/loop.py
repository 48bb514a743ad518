"""The training loop, as a generator. It steps; whoever iterates logs, scores, saves and stops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue, StepInfo
from tunesmith.train.averaging import Average
from tunesmith.train.batches import StepBatch
from tunesmith.train.step import Step


@dataclass
class Learner:
    """What changes while training: the model, its optimiser, schedule and average, on the accelerator's device."""

    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    accelerator: Any
    max_grad_norm: float | None
    bfloat16: bool
    average: Average = field(default_factory=Average)


def train_steps(learner: Learner, batches: Iterable[StepBatch], step: Step, done: int = 0) -> Iterator[StepInfo]:
    """Yield one StepInfo per optimiser step, until the batches end or the caller stops iterating.

    The loss of every micro-batch is divided by the number of valid targets of the whole step, so that accumulating does
    not change the gradient. A loss that is not finite raises before any weight is touched.

    Raises:
        ModelError: the loss is not finite.
    """
    accelerator, trained = learner.accelerator, [p for p in learner.model.parameters() if p.requires_grad]
    for number, group in enumerate(batches, start=done + 1):
        pieces = [{name: value.to(accelerator.device) for name, value in piece.items()} for piece in group.pieces]
        losses, counts = [], []
        for piece in pieces:
            # torch's own context: accelerate keeps one precision for the whole process, and a process may hold many runs.
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=learner.bfloat16):
                loss, count = step(learner.model, piece)
            losses.append(loss.detach())
            counts.append(count)
            accelerator.backward(loss)  # divided below: the number of targets of the step is known when all pieces are done
        total, targets = float(torch.stack(losses).sum()), float(torch.stack([c.float() for c in counts]).sum())
        if not math.isfinite(total):
            remedy = "Lower train.learning_rate, or set train.precision: float32."
            raise ModelError(Issue(f"step {number}", "must have a finite loss", str(total), remedy))
        gradients = [p.grad for p in trained if p.grad is not None]
        norm = float(torch.stack([torch.dot(g.reshape(-1), g.reshape(-1)) for g in gradients]).sum().sqrt()) / targets
        limit = learner.max_grad_norm
        shrink = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
        rate = max(group_["lr"] for group_ in learner.optimizer.param_groups)
        _step_divided(learner.optimizer, gradients, targets / shrink)
        learner.scheduler.step()
        learner.optimizer.zero_grad()
        yield StepInfo(number, group.epoch, total / targets, rate, int(targets), group.tokens, norm, epoch_ended=group.ends_epoch)


def _step_divided(optimizer: Any, gradients: list[Tensor], divisor: float) -> None:
    """A step of the optimiser with gradients divided. Fused ones divide while they read them, which saves a pass over all."""
    if optimizer.defaults.get("fused"):
        device = gradients[0].device
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(divisor, device=device), torch.zeros((), device=device)
    else:
        torch._foreach_mul_(gradients, 1 / divisor)
    optimizer.step()
    # Fused optimisers leave the version counters as they are, and copies of weights (models/half.py) go by these.
    torch.autograd.graph.increment_version([p for group in optimizer.param_groups for p in group["params"]])
