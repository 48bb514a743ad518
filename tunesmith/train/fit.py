"""Training, in order: learner, resume, loop, best weights. Everything with a side effect is in the body of one `for`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core.errors import RunError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Issue, Progress, StepInfo
from tunesmith.models.anatomy import has_head
from tunesmith.models.forward import predict_logits
from tunesmith.models.load import device
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.strategies import blocks_from_the_top, frozen_prefix, rate_levels
from tunesmith.spec.schema import Gradual, Mixup, Prompts, Soup, Spec, WiseFT
from tunesmith.tasks.base import Batch, Encoding, Task
from tunesmith.train.averaging import (
    Average,
    Averaged,
    Weights,
    begun,
    best_share,
    blend,
    drop_others,
    greedy_soup,
    keep_candidate,
    load_candidate,
    swapped,
    trained_parameters,
    update,
)
from tunesmith.train.batches import Order, StepBatch, ahead, step_batches
from tunesmith.train.checkpoint import Position, load_checkpoint, load_trained, save_checkpoint, trained_state
from tunesmith.train.gradual import complete_from, unfreezing
from tunesmith.train.loop import Learner, train_steps
from tunesmith.train.masking import at_masks, masked_anew
from tunesmith.train.optim import decay_is_linear, make_optimizer, make_scheduler, parameter_groups
from tunesmith.train.pace import SHORTEST, Pace, evaluation_seconds
from tunesmith.train.peak import Trim, begin_peak, peak_bytes
from tunesmith.train.regularize import mixable_blocks, mixed, regularized
from tunesmith.train.shapes import few_lengths
from tunesmith.train.step import Step, at_targets, task_step
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
    """What training came to. `seconds` add up over interruptions; `resumed_at` is the step that this process began at.

    `best_step` is where the kept weights were taken; for a soup, the step of its best member; for WiSE-FT, that of the trained ones.
    `expected_seconds` were expected after the first steps; None for short and for resumed runs, and where texts are written.
    """

    steps: int
    epochs_run: float
    best_step: int
    best_score: float
    stopped_by: str
    seconds: float
    resumed_at: int
    peak_memory_bytes: int
    averaged: Averaged | None = None
    expected_seconds: float | None = None


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
    scheduler, bfloat16 = make_scheduler(optimizer, train, steps), train.precision == "bfloat16"
    return Learner(model, optimizer, scheduler, accelerator, train.max_grad_norm, bfloat16, Average(train.averaging))


def shortcuts_for(model: Any, encodings: Sequence[Encoding], spec: Spec) -> Shortcuts:
    """The shortcuts that a resolved spec's optimiser and precision allow, in force until they are undone."""
    return Shortcuts(model, encodings, linear_decay=decay_is_linear(spec.train), bfloat16=spec.train.precision == "bfloat16")


def order_of(spec: Spec, rows: Encoding) -> Order:
    """The order of training that a resolved spec asks for, for these training rows."""
    train = spec.train
    assert train.batch_size and train.epochs, "resolved specs have a batch size and epochs"
    together = 2 if isinstance(train.regularization, Mixup) else 1
    plain = Order(rows.lengths, train.batch_size, train.epochs, train.gradient_accumulation_steps, spec.seed, together=together)
    if train.sampling == "none":
        return plain
    targets_N = np.array([row["labels"] for row in rows.rows], np.int64)
    return replace(plain, sampling="balanced" if train.sampling == "balanced" else "square-root", targets_N=targets_N)


def full_step(task: Task, model: Any, spec: Spec) -> Step:
    """The step of a task with all that the spec wraps around it."""
    step = task_step(task)
    if spec.kind == "masked":
        step = at_masks(step)
    elif spec.kind == "text":
        step = at_targets(step, model)
    return regularized(step, model, spec)


def full_batches(batches: Iterator[StepBatch], model: Any, spec: Spec, done: int = 0) -> Iterator[StepBatch]:
    """The batches after the first `done` steps with what the spec's step reads besides rows."""
    rule = spec.train.regularization
    if spec.kind == "masked":
        return masked_anew(batches, spec.train.mlm_probability, spec.seed, done)
    if spec.kind == "text" and spec.train.precision == "bfloat16" and not isinstance(spec.strategy, Prompts):  # which take places too
        return few_lengths(batches, model)
    return mixed(batches, rule, mixable_blocks(model, rule), spec.seed, done) if isinstance(rule, Mixup) else batches


def fit(model: Any, job: Job) -> Fitted:
    """Train a model whose strategy has been applied, in place; at the end it carries the best weights.

    A checkpoint in `job.folder` is continued. When asked to stop, the step is finished, a checkpoint written, and
    Interrupted raised.
    """
    order = order_of(job.spec, job.train)
    learner = make_learner(model, job.spec, order.steps)
    begin_peak(learner.accelerator.device)
    job.folder.mkdir(parents=True, exist_ok=True)
    patience = job.spec.train.patience
    assert patience != "auto", "resolved specs say how long to wait"
    fresh = Position(0, 0.0, 0, Patience(patience, job.higher_is_better))
    if isinstance(learner.average.rule, WiseFT):
        learner.average.start = {name: p.detach().to("cpu", copy=True) for name, p in trained_parameters(learner.model)}
    start = load_checkpoint(job.folder / "last.pt", learner, fresh.patience, job.inputs) or fresh
    foreseen = not start.step and job.spec.kind != "text" and order.steps > SHORTEST  # nobody knows how long a text will be
    pace = Pace(evaluation_seconds(model, job.task, job.validation) if foreseen else 0.0)
    position, stopped_by = _loop(learner, job, order, start, pace)
    began = time.perf_counter()
    position, averaged = _finished(learner, job, order, position, pace)
    position = replace(position, seconds=position.seconds + time.perf_counter() - began)
    assert position.patience.best is not None, "the last step is always scored"
    return Fitted(
        steps=position.step,
        epochs_run=round(position.step / order.steps_per_epoch, 3),
        best_step=position.best_step,
        best_score=position.patience.best,
        stopped_by=stopped_by,
        seconds=position.seconds,
        resumed_at=start.step,
        peak_memory_bytes=peak_bytes(learner.accelerator.device),
        averaged=averaged,
        expected_seconds=pace.expected() if foreseen else None,
    )


def _loop(learner: Learner, job: Job, order: Order, position: Position, pace: Pace) -> tuple[Position, str]:
    prefix = frozen_prefix(learner.model, job.spec.strategy)
    _train_mode(learner.model, prefix)
    began, saved = time.perf_counter() - position.seconds, time.perf_counter()
    history = _History(job.folder.parent / "history.jsonl", position.step)
    if position.patience.exhausted:
        return position, "early stopping"

    def collate(rows: list[int]) -> Batch:
        return job.task.collate([job.train.rows[row] for row in rows])

    evaluations = _evaluation_steps(order, job.spec.train.evaluations_per_epoch)
    trim = Trim(learner.accelerator.device)
    with job.stop.deferred():
        plain = ahead(step_batches(order, collate, position.step))
        batches, step = _in_turns(learner, job, full_batches(plain, learner.model, job.spec, position.step))
        for info in pace.steps(trim.between(train_steps(learner, batches, step, position.step))):
            position = replace(position, step=info.step, seconds=time.perf_counter() - began)
            update(learner.average, learner.model, info.step, order.steps)
            if info.step in evaluations:
                pace.evaluations += 1
                info, position = _evaluated(info, position, learner, (job, order))
                position = replace(position, seconds=time.perf_counter() - began)
            history.add(info)
            job.watch(Progress("train", info.step, order.steps, "step", info.step / order.steps_per_epoch, info.loss, info.score))
            asked = job.stop.signal is not None
            if asked or info.step in evaluations or time.perf_counter() - saved > 60 * job.spec.train.checkpoint_minutes:
                history.flush()
                save_checkpoint(job.folder / "last.pt", learner, position, job.inputs)
                drop_others(learner.average, job.folder)
                saved = time.perf_counter()
            if asked:
                raise job.stop.error()
            if position.patience.exhausted:
                return position, "early stopping"
    return position, "all epochs done"


def _in_turns(learner: Learner, job: Job, batches: Iterator[StepBatch]) -> tuple[Iterator[StepBatch], Step]:
    """The batches and the step of training; where blocks join in turns, those whose turn has not come are left out."""
    strategy, step = job.spec.strategy, full_step(job.task, learner.model, job.spec)
    if not isinstance(strategy, Gradual):
        return batches, step
    blocks = blocks_from_the_top(learner.model, strategy.blocks)
    return unfreezing(batches, step, blocks if has_head(learner.model) else blocks[1:], strategy.epochs_per_block)


def _evaluated(info: StepInfo, position: Position, learner: Learner, asked: tuple[Job, Order]) -> tuple[StepInfo, Position]:
    job, order = asked
    with swapped(learner.model, learner.average.weights, lambda: _plain_batches(job, order)):
        score = job.score(predict_logits(learner.model, job.task, job.validation))
        if not begun(learner.average):
            return replace(info, score=score), position
        patience = position.patience.update(score)
        if patience.improved or not (job.folder / "best.safetensors").exists():
            _save_best(trained_state(learner.model), job.folder)
            position = replace(position, best_step=info.step)
    if isinstance(learner.average.rule, Soup):
        weights = {name: p.detach().cpu().contiguous() for name, p in trained_parameters(learner.model)}
        keep_candidate(learner.average, weights, (score, info.step), job.folder, job.higher_is_better)
    waits = info.epoch < complete_from(job.spec.strategy, has_head(learner.model))  # early stopping counts from then
    counted = replace(patience, waited=0) if waits else patience
    return replace(info, score=score, is_best=patience.improved), replace(position, patience=counted)


def _save_best(weights: Weights, folder: Path) -> None:
    temporary = folder / ".best.safetensors.writing"
    save_file(weights, temporary)
    os.replace(temporary, folder / "best.safetensors")


def _plain_batches(job: Job, order: Order) -> Iterator[Batch]:
    return (job.task.collate([job.train.rows[row] for row in rows]) for rows in order.epoch_rows(0))


def _finished(learner: Learner, job: Job, order: Order, position: Position, pace: Pace) -> tuple[Position, Averaged | None]:
    """The best weights go into the model, and what averaging came to; a soup, and a point between two weights, are made here."""
    average, rule, model = learner.average, learner.average.rule, learner.model
    best, state = position.patience.best, load_file(job.folder / "best.safetensors")
    assert best is not None, "the last step is always scored"

    def batches() -> Iterator[Batch]:
        return _plain_batches(job, order)

    def score() -> float:
        pace.evaluations += 1
        job.watch(Progress("train", position.step, order.steps, "step", note="scoring averages of weights"))
        return job.score(predict_logits(model, job.task, job.validation))

    def score_of(weights: Weights) -> float:
        with swapped(model, weights, batches):
            return score()

    def score_at(share: float) -> float:
        blend(model, average.start, state, share, batches)
        return score()

    averaged, plain = None, best
    if isinstance(rule, Soup):
        plain = average.candidates[0][0]
        soup, best, members = greedy_soup(average.candidates, partial(load_candidate, job.folder), score_of, job.higher_is_better)
        averaged = Averaged(len(members), len(average.candidates), plain)
        with swapped(model, soup, batches):
            state = trained_state(model)
    elif isinstance(rule, WiseFT):
        share, best = best_share(rule.shares, score_at, best, job.higher_is_better)
        averaged = Averaged(tried := len(set(rule.shares)) + 1, tried, plain, share)
        if share < 1:
            blend(model, average.start, state, share, batches)
            state = trained_state(model)
    elif rule is not None:
        averaged = Averaged(average.count, position.step, score())
    load_trained(model, state)
    return replace(position, patience=replace(position.patience, best=best)), averaged


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
