"""Optimisers and learning-rate schedules, from the spec's own words to torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from tunesmith.spec.schema import SGD, Adafactor, Adam, AdamW, Train

NORM_WORDS = ("norm", "ln_")


def parameter_groups(model: nn.Module, rates: Mapping[str, float], train: Train) -> list[dict[str, Any]]:
    """Optimiser groups by (rate, decay): biases and norms get no weight decay; `rates` scales the learning rate by name."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or any(word in name.lower() for word in NORM_WORDS)
            groups.setdefault((rates.get(name, 1.0), 0.0 if plain else train.weight_decay), []).append(parameter)
    assert isinstance(train.learning_rate, float), "resolved specs have a learning rate"
    return [{"params": p, "lr": train.learning_rate * rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def make_optimizer(groups: list[dict[str, Any]], train: Train) -> torch.optim.Optimizer:
    """The spec's optimiser over the groups; fused where torch has it."""
    chosen = train.optimizer
    if isinstance(chosen, AdamW):
        return torch.optim.AdamW(groups, betas=chosen.betas, eps=chosen.eps, fused=True)
    if isinstance(chosen, Adam):
        return torch.optim.Adam(groups, betas=chosen.betas, eps=chosen.eps, fused=True)
    if isinstance(chosen, SGD):
        return torch.optim.SGD(groups, momentum=chosen.momentum, nesterov=chosen.nesterov, fused=True)
    assert isinstance(chosen, Adafactor)
    return torch.optim.Adafactor(groups)


def decay_is_linear(train: Train) -> bool:
    """True when an element without gradient is only multiplied by a factor: what `CompactVocabulary` needs."""
    return isinstance(train.optimizer, (AdamW, SGD))


def schedule(train: Train, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step (counted from 0): linear warm-up, then the spec's course down to 0."""
    warmup = math.ceil(train.warmup_ratio * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(steps - warmup, 1)
        return {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress)), "constant": 1.0}[train.schedule]

    return factor


def make_scheduler(optimizer: torch.optim.Optimizer, train: Train, steps: int) -> LambdaLR:
    """The schedule bound to an optimiser."""
    return LambdaLR(optimizer, schedule(train, steps))
