"""What a run would do and cost, without training: everything checked, a few real steps measured, nothing written."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import TunesmithError
from tunesmith.core.records import Issue
from tunesmith.data.folding import stays_apart
from tunesmith.data.prepare import Prepared
from tunesmith.data.prepare import prepare as prepare_data
from tunesmith.models.advise import gather
from tunesmith.models.build import build_model
from tunesmith.models.forward import frozen_features
from tunesmith.models.load import check_masked, device, is_embedder, load_config, load_processor, public_id
from tunesmith.models.quantized import missing_for
from tunesmith.models.recompute import recomputing
from tunesmith.models.size import Size, size_of
from tunesmith.models.strategies import apply_strategy
from tunesmith.spec.check import check_spec
from tunesmith.spec.defaults import Resolved, resolve, with_reading
from tunesmith.spec.schema import Features, Soup, Spec, WiseFT
from tunesmith.stages.adapt import Adapting, adapting
from tunesmith.stages.embed import CERTIFICATE_BATCH, splits_to_embed
from tunesmith.stages.find_rate import find_rate
from tunesmith.stages.teacher import check_teacher
from tunesmith.tasks.base import Encoding, Task
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.make import make_task, metric_names
from tunesmith.train.fit import shortcuts_for
from tunesmith.train.memory import Recompute, decide_recompute
from tunesmith.train.peak import peak_bytes
from tunesmith.train.precision import measure_rates
from tunesmith.train.prefix import Used
from tunesmith.train.probe import Estimate, estimate, stored_share
from tunesmith.train.range_test import RangeTest

MODEL_COPIES = 6  # on disk while training: best weights, and a checkpoint with two optimiser moments written beside the last one
HEAD_SECONDS_PER_ROW = 1e-3
SEARCHED_HEADS = 40  # what a search of heads takes, in heads: five kinds, the trees most of it, fitted on five folds and on all rows
HELD_BY_STAGES = 2**27  # what a run holds when training begins, and a plan does not: measured, LOG.md
FORWARD_SECONDS, FORWARD_PASSES = 3.0, 8  # so long are passes without gradients measured, or so many
SECONDS_PER_FOLD = 2.0  # loading and saving a model, and fitting the baselines


@dataclass
class Plan:
    """The answer of `plan`. `issues` are problems (fatal ones stop a run); None stands for what could not be found out."""

    spec: Spec
    issues: list[Issue] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    cut: int | None = None
    resolved: Resolved | None = None
    model: str = ""
    size: Size | None = None
    steps: int = 0
    seconds: float | None = None
    probe_seconds: float = 0.0
    fold_seconds: float = 0.0
    adapted_texts: int = 0
    adapt_seconds: float = 0.0
    store: Used | None = None
    range_test: RangeTest | None = None
    recompute: Recompute | None = None
    averaging_bytes: int = 0
    peak_memory_bytes: int | None = None
    disk_bytes: int | None = None
    disk_free_bytes: int | None = None

    @property
    def can_run(self) -> bool:
        """False when something must be mended first."""
        return not any(issue.fatal for issue in self.issues)


def make_plan(spec: Spec, runs: Path) -> Plan:
    """Check the spec, the data and the model; measure some steps; put all problems into one Plan."""
    began = time.perf_counter()
    plan = Plan(spec, [*check_spec(spec, metric_names(spec)), *missing_for(spec.strategy)])
    prepared = None
    files_missing = any(issue.where.split("[")[0] in ("data.train", "data.validation", "data.test") for issue in plan.issues)
    if not files_missing:
        try:
            prepared = prepare_data(spec)
            _add_data(plan, prepared)
        except TunesmithError as error:
            plan.issues += error.issues
    try:
        plan.model = public_id(spec.model)
        load_config(spec.model)
        if spec.model.adapt is not None or spec.kind == "masked":
            check_masked(spec.model)
        if prepared is not None and plan.can_run:
            _add_model(plan, prepared)
            if plan.seconds is not None:  # a run prepares what a plan does
                plan.seconds += time.perf_counter() - began - plan.probe_seconds
    except TunesmithError as error:
        plan.issues += error.issues
    _add_disk(plan, runs)
    return plan


def _add_data(plan: Plan, prepared: Prepared) -> None:
    plan.issues += prepared.issues
    plan.rows = {"train": len(prepared.train), "validation": len(prepared.validation), "test": len(prepared.test)}
    plan.dropped = dict(Counter(prepared.dropped["reason"].to_list()).most_common())
    plan.classes = len(prepared.labels)


def _add_model(plan: Plan, prepared: Prepared) -> None:
    spec = plan.spec
    spec, corpus = with_reading(spec, is_embedder(spec.model)), [] if prepared.corpus is None else prepared.corpus["text"].to_list()
    task, processor = make_task(spec, prepared.labels, prepared.train, corpus=corpus), load_processor(spec.model)
    rates = measure_rates(torch.device(device()))
    splits = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    facts, _ = gather(task, splits, processor, load_config(spec.model), rates.fast_bfloat16)
    facts = replace(facts, embeds=is_embedder(spec.model))
    check_teacher(spec, prepared.labels, "text_pair" in prepared.train.columns)
    facts, plan.range_test = find_rate(spec, facts, task, prepared.train, processor)
    plan.resolved = resolve(plan.spec, facts)
    spec = plan.resolved.spec
    task = make_task(spec, prepared.labels, prepared.train, corpus=corpus)  # with the lengths that are known by now
    assert spec.model.max_length, "resolved specs have a length"
    encodings = {split: task.encode(rows, processor, spec.model.max_length) for split, rows in splits.items()}
    apart = spec.kind in ("relevant", "masked")  # what is trained on is not what is answered
    learned = task.training(prepared.train, processor, spec.model.max_length) if apart else encodings["train"]
    plan.cut = sum(encoding.cut for encoding in encodings.values())
    model = build_model(spec, task)
    began = time.perf_counter()
    forward = _forward_seconds(model, task, encodings["train"])
    plan.probe_seconds = time.perf_counter() - began
    if not isinstance(spec.strategy, Features):
        model = apply_strategy(model, spec.strategy)
        plan.size = size_of(model)
        shortcuts = shortcuts_for(model, [learned, _scored(task, spec, encodings["validation"])], spec)
        plan.recompute = decide_recompute(model, spec, task, shortcuts.encodings[0])
        with recomputing(model) if plan.recompute.used else nullcontext():
            cost = estimate(model, spec, task, shortcuts.encodings[0], shortcuts.encodings[1], forward)
        plan.store, plan.peak_memory_bytes = cost.store, cost.peak_bytes
        plan.probe_seconds += cost.probe_seconds
        plan.steps, training = cost.steps, cost.seconds + _fill_seconds(cost.store, model, encodings, forward)
    else:
        heads = SEARCHED_HEADS if spec.strategy.head.kind == "search" else 1
        plan.size, training = size_of(apply_strategy(model, spec.strategy)), heads * HEAD_SECONDS_PER_ROW * len(prepared.train)
        plan.peak_memory_bytes = peak_bytes(torch.device(device()))
    plan.fold_seconds = _fold_seconds(spec, plan.rows, encodings, training, forward)
    if spec.model.adapt is not None:
        work = adapting(spec, splits, processor)
        plan.adapted_texts, cost = len(work.texts.train), _adapt_cost(work, forward)
        plan.adapt_seconds = cost.seconds + 2 * forward * sum(work.test.lengths)
        plan.probe_seconds += cost.probe_seconds
        plan.peak_memory_bytes = max(plan.peak_memory_bytes, cost.peak_bytes)
    plan.peak_memory_bytes += HELD_BY_STAGES if device() == "cpu" else 0
    plan.seconds = plan.adapt_seconds + training + _other_seconds(spec, encodings, forward) + plan.fold_seconds
    if spec.kind == "text":
        found = f"{plan.rows['validation'] + plan.rows['test']} texts, each of at most {spec.generation.max_new_tokens} tokens"
        plan.issues.append(Issue("generation", "takes time that this plan leaves out", found, "Lower it for shorter texts.", fatal=False))


def _scored(task: Task, spec: Spec, validation: Encoding) -> Encoding:
    """The validation rows that weights are selected by."""
    if isinstance(task, FeatureExtraction):
        return task.scored(validation)
    rows = len(validation.rows)
    return validation.part(range(min(spec.generation.scored_rows, rows) if spec.kind == "text" else rows))


def _adapt_cost(work: Adapting, per_token: float) -> Estimate:
    """What adaptation costs, from real steps; the passes that score it before and after come on top."""
    model = apply_strategy(build_model(work.spec, work.task), work.spec.strategy)
    shortcuts = shortcuts_for(model, [work.train, work.validation], work.spec)
    return estimate(model, work.spec, work.task, shortcuts.encodings[0], shortcuts.encodings[1], per_token)


def _fill_seconds(store: Used, model: Any, encodings: dict[str, Encoding], per_token: float) -> float:
    """Seconds to fill an empty store: a pass of the training and validation rows through the frozen blocks."""
    return stored_share(model, store) * per_token * sum(sum(encodings[split].lengths) for split in ("train", "validation"))


def _fold_seconds(spec: Spec, rows: dict[str, int], encodings: dict[str, Encoding], training: float, per_token: float) -> float:
    """Seconds of cross-validation: each model is trained on its share of the rows, and each row is predicted once."""
    count = spec.evaluate.folds
    if not isinstance(count, int):
        return 0.0
    taking_part = [split for split in rows if split == "train" or not stays_apart(split, spec.data)]
    trained = sum(rows[split] for split in taking_part) * (1 - 1 / count) * rows["train"] / (rows["train"] + rows["validation"])
    return (
        count * (SECONDS_PER_FOLD + training * trained / rows["train"])
        + sum(sum(encodings[split].lengths) for split in taking_part) * per_token
    )


def _forward_seconds(model: object, task: Task, encoding: Encoding) -> float:
    """Seconds per token of a pass without gradients, from rows spread over all lengths: again and again, for one pass says little."""
    order = sorted(range(len(encoding.lengths)), key=lambda n: encoding.lengths[n])
    rows = order[:: max(len(order) // 64, 1)][:64]
    sample, passes = encoding.part(rows), 0
    started = time.perf_counter()
    while not passes or (time.perf_counter() - started < FORWARD_SECONDS and passes < FORWARD_PASSES):
        frozen_features(model, task, sample)
        passes += 1
    padded = max(sample.lengths) * len(rows)
    return (time.perf_counter() - started) / padded / passes


def _other_seconds(spec: Spec, encodings: dict[str, Encoding], per_token: float) -> float:
    """Seconds of what is not training: frozen features, the heads fitted on them, and predictions."""
    lengths = encodings["train"].lengths
    needed = splits_to_embed(spec)
    compared = CERTIFICATE_BATCH if spec.data.near_duplicates is not None else 0
    embedded = min(needed.get("train", 0) + compared, len(lengths))
    tokens = sum(lengths) * embedded / len(lengths)
    for split in ("validation", "test"):
        tokens += sum(encodings[split].lengths) * (2 if split in needed else 1)  # predicted in any case
    return tokens * per_token + HEAD_SECONDS_PER_ROW * embedded


def _add_disk(plan: Plan, runs: Path) -> None:
    place = next(p for p in (runs.absolute(), *runs.absolute().parents) if p.exists())
    plan.disk_free_bytes = shutil.disk_usage(place).free
    if plan.size is not None and plan.resolved is not None:
        averaging, weights = plan.resolved.spec.train.averaging, 4 * plan.size.trainable
        plan.averaging_bytes = weights * (averaging.checkpoints + 2 if isinstance(averaging, Soup) else averaging is not None)
        stored = plan.store.bytes if plan.store and plan.store.used else 0
        copies = MODEL_COPIES + (plan.spec.model.adapt is not None)  # the adapted model stays beside the trained one
        saved = 0 if isinstance(averaging, WiseFT) else plan.averaging_bytes  # the weights before training are made again
        plan.disk_bytes = copies * plan.size.bytes + saved + stored
        if plan.disk_bytes > plan.disk_free_bytes:
            need, free = (f"{b / 2**30:.1f} GiB" for b in (plan.disk_bytes, plan.disk_free_bytes))
            plan.issues.append(
                Issue(str(place), f"must have {need} free", free, "Free some space, or choose another place with --runs DIR.")
            )
