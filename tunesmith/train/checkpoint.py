"""Checkpoints: all that an interrupted run needs to go on as if nothing had happened, in one file, replaced atomically."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.train.averaging import statistics
from tunesmith.train.loop import Learner
from tunesmith.train.stopping import Patience


@dataclass(frozen=True)
class Position:
    """Where training stands: optimiser steps done, seconds spent so far, best step, and the state of early stopping."""

    step: int
    seconds: float
    best_step: int
    patience: Patience


def trained_state(model: Any) -> dict[str, Tensor]:
    """Copies of the trained parameters, and of the batch-norm statistics that training updates, on the CPU, by name."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad} | statistics(model)
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in trained.items()}


@torch.no_grad()
def load_trained(model: Any, state: dict[str, Tensor]) -> None:
    """Write saved parameters and statistics back into the model."""
    parameters = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, value in state.items():
        parameters[name].copy_(value)


def save_checkpoint(path: Path, learner: Learner, position: Position, inputs: str) -> None:
    """Write weights, optimiser, schedule, random state, position, and the hash of what training depends on."""
    patience = position.patience
    state = {
        "weights": trained_state(learner.model),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": {"last_epoch": learner.scheduler.last_epoch},
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "position": [position.step, position.seconds, position.best_step],
        "patience": [patience.best, patience.waited],
        "average": {"weights": learner.average.weights, "count": learner.average.count, "candidates": learner.average.candidates},
        "inputs": inputs,
    }
    temporary = path.with_name(f".{path.name}.writing")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, learner: Learner, patience: Patience, inputs: str) -> Position | None:
    """Restore a learner; gives the position, or None when there is no checkpoint, it cannot be read, or has other inputs."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError):
        return None
    if state["inputs"] != inputs or "average" not in state:
        return None
    load_trained(learner.model, state["weights"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.scheduler.last_epoch = state["scheduler"]["last_epoch"]
    for group, base, factor in zip(learner.optimizer.param_groups, learner.scheduler.base_lrs, learner.scheduler.lr_lambdas, strict=True):
        group["lr"] = base * factor(learner.scheduler.last_epoch)
    saved, device = state["average"], learner.accelerator.device
    learner.average.weights = {name: value.to(device) for name, value in saved["weights"].items()}
    learner.average.count, learner.average.candidates = saved["count"], [(score, step) for score, step in saved["candidates"]]
    torch.set_rng_state(state["random"])
    if state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    step, seconds, best_step = state["position"]
    best, waited = state["patience"]
    return Position(step, seconds, best_step, Patience(patience.limit, patience.higher_is_better, best, waited))
