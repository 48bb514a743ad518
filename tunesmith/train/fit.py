"""Training, in order: learner, resume, loop, best weights. Everything with a side effect is in the body of one `for`."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core.errors import RunError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Issue, Progress, StepInfo
from tunesmith.models.forward import predict_logits
from tunesmith.models.load import device
from tunesmith.models.strategies import frozen_prefix, rate_levels
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Batch, Encoding, Task
from tunesmith.train.batches import Order, step_batches
from tunesmith.train.checkpoint import Position, load_checkpoint, load_trained, save_checkpoint, trained_state
from tunesmith.train.loop import Learner, train_steps
from tunesmith.train.optim import make_optimizer, make_scheduler, parameter_groups
from tunesmith.train.step import task_step
from tunesmith.train.stopping import Patience


@dataclass(frozen=True)
class Job:
    """What `fit` works on.

    `score` judges validation logits; `watch` hears of progress; `stop` says when to leave early. A checkpoint in `folder`
    is continued only when it was made from the same `inputs`, a hash of all that training depends on.
    """

    spec: Spec
    task: Task
    train: Encoding
    validation: Encoding
    score: Callable[[Tensor], float]
    higher_is_better: bool
    folder: Path
    inputs: str
    watch: Callable[[Progress], None]
    stop: StopRequest


@dataclass(frozen=True)
class Fitted:
    """What training came to. `seconds` add up over interruptions; `resumed_at` is the step that this process began at."""

    steps: int
    epochs_run: float
    best_step: int
    best_score: float
    stopped_by: str
    seconds: float
    resumed_at: int
    peak_memory_bytes: int


def make_learner(model: Any, spec: Spec, steps: int) -> Learner:
    """Optimiser, schedule and accelerator for a model whose strategy has been applied."""
    train = spec.train
    accelerator = Accelerator(cpu=device() == "cpu")
    if accelerator.num_processes > 1:
        found = f"{accelerator.num_processes} processes"
        raise RunError(
            Issue("launcher", "must start one process: training over several is not there yet", found, "Start without a launcher.")
        )
    model = accelerator.prepare(model)
    optimizer = make_optimizer(parameter_groups(model, rate_levels(model, spec.strategy), train), train)
    return Learner(
        model, optimizer, make_scheduler(optimizer, train, steps), accelerator, train.max_grad_norm, train.precision == "bfloat16"
    )


def order_of(spec: Spec, rows: Encoding) -> Order:
    """The order of training that a resolved spec asks for, for these training rows."""
    train = spec.train
    assert train.batch_size and train.epochs, "resolved specs have a batch size and epochs"
    plain = Order(rows.lengths, train.batch_size, train.epochs, train.gradient_accumulation_steps, spec.seed)
    if train.sampling == "none":
        return plain
    targets_N = np.array([row["labels"] for row in rows.rows], np.int64)
    return replace(plain, sampling="balanced" if train.sampling == "balanced" else "square-root", targets_N=targets_N)


def fit(model: Any, job: Job) -> Fitted:
    """Train a model whose strategy has been applied, in place; at the end it carries the best weights.

    A checkpoint in `job.folder` is continued. When asked to stop, the step is finished, a checkpoint written, and
    Interrupted raised.
    """
    order = order_of(job.spec, job.train)
    learner = make_learner(model, job.spec, order.steps)
    job.folder.mkdir(parents=True, exist_ok=True)
    fresh = Position(0, 0.0, 0, Patience(job.spec.train.patience, job.higher_is_better))
    start = load_checkpoint(job.folder / "last.pt", learner, fresh.patience, job.inputs) or fresh
    position, stopped_by = _loop(learner, job, order, start)
    load_trained(learner.model, load_file(job.folder / "best.safetensors"))
    assert position.patience.best is not None, "the last step is always scored"
    return Fitted(
        steps=position.step,
        epochs_run=round(position.step / order.steps_per_epoch, 3),
        best_step=position.best_step,
        best_score=position.patience.best,
        stopped_by=stopped_by,
        seconds=position.seconds,
        resumed_at=start.step,
        peak_memory_bytes=peak_memory_bytes(),
    )


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _loop(learner: Learner, job: Job, order: Order, position: Position) -> tuple[Position, str]:
    prefix = frozen_prefix(learner.model, job.spec.strategy)
    _train_mode(learner.model, prefix)
    began, saved = time.perf_counter() - position.seconds, time.perf_counter()
    history = _History(job.folder.parent / "history.jsonl", position.step)
    if position.patience.exhausted:
        return position, "early stopping"

    def collate(rows: list[int]) -> Batch:
        return job.task.collate([job.train.rows[row] for row in rows])

    evaluations = _evaluation_steps(order, job.spec.train.evaluations_per_epoch)
    with job.stop.deferred():
        for info in train_steps(learner, step_batches(order, collate, position.step), task_step(job.task), position.step):
            position = replace(position, step=info.step, seconds=time.perf_counter() - began)
            if info.step in evaluations:
                info, position = _evaluated(info, position, learner, job)
            history.add(info)
            job.watch(Progress("train", info.step, order.steps, "step", info.step / order.steps_per_epoch, info.loss, info.score))
            asked = job.stop.signal is not None
            if asked or info.step in evaluations or time.perf_counter() - saved > 60 * job.spec.train.checkpoint_minutes:
                history.flush()
                save_checkpoint(job.folder / "last.pt", learner, position, job.inputs)
                saved = time.perf_counter()
            if asked:
                raise job.stop.error()
            if position.patience.exhausted:
                return position, "early stopping"
    return position, "all epochs done"


def _evaluated(info: StepInfo, position: Position, learner: Learner, job: Job) -> tuple[StepInfo, Position]:
    score = job.score(predict_logits(learner.model, job.task, job.validation))
    patience = position.patience.update(score)
    if patience.improved or not (job.folder / "best.safetensors").exists():
        temporary = job.folder / ".best.safetensors.writing"
        save_file(trained_state(learner.model), temporary)
        os.replace(temporary, job.folder / "best.safetensors")
        position = replace(position, best_step=info.step)
    return replace(info, score=score, is_best=patience.improved), replace(position, patience=patience)


def _evaluation_steps(order: Order, per_epoch: int) -> set[int]:
    per_epoch = min(per_epoch, order.steps_per_epoch)
    within = {round(order.steps_per_epoch * (k + 1) / per_epoch) for k in range(per_epoch)}
    return {epoch * order.steps_per_epoch + step for epoch in range(order.epochs) for step in within}


def _train_mode(model: Any, prefix: list[Any]) -> None:
    model.train()
    for module in prefix:
        module.training = False


class _History:
    """history.jsonl: one line per step; lines after a resumed step are cut off first."""

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        self.lines = path.read_text("utf-8").splitlines()[:done] if path.exists() else []

    def add(self, info: StepInfo) -> None:
        self.lines.append(json.dumps(asdict(info)))

    def flush(self) -> None:
        temporary = self.path.with_name(".history.jsonl.writing")
        temporary.write_text("".join(f"{line}\n" for line in self.lines), "utf-8")
        os.replace(temporary, self.path)
