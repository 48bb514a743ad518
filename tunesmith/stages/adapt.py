"""adapt: the pretrained model goes on with masked tokens of unlabelled texts, before anything of the task is learned.

It is a training like that of `fill-mask`: the same task, loop, checkpoints and resume. All later stages start from what it leaves.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Finding, Issue, Progress
from tunesmith.core.rundir import StageWriter, sha256_json
from tunesmith.data.adaptation import EXPLANATIONS, WHERE, Adaptation, adaptation_texts
from tunesmith.evaluate.adapted import METRIC, loss_findings
from tunesmith.evaluate.intervals import Resampling
from tunesmith.evaluate.metrics import fast_score
from tunesmith.evaluate.predict import predict
from tunesmith.models.build import built
from tunesmith.models.recompute import recomputing
from tunesmith.models.save import save_adapted
from tunesmith.models.strategies import apply_strategy
from tunesmith.spec.defaults import adaptation
from tunesmith.spec.schema import Spec
from tunesmith.stages.context import SPLITS, Context
from tunesmith.tasks.base import Encoding, Task
from tunesmith.tasks.make import make_task
from tunesmith.train.fit import Fitted, Job, fit, shortcuts_for
from tunesmith.train.memory import decide_recompute

SUMS = ("id", "loss", "tokens", "hits")
FOLDER = "checkpoints/adapt"


@dataclass(frozen=True)
class Adapting:
    """What an adaptation works on: its texts, its spec, its task, and the windows to learn from, to select by and to score by."""

    texts: Adaptation
    spec: Spec
    task: Task
    train: Encoding
    validation: Encoding
    test: Encoding


def adapt(context: Context, stage: StageWriter) -> None:
    """Write adapted/, data/adaptation*.parquet and the adapt/* findings; nothing where the spec names no texts."""
    if context.resolved.model.adapt is None:
        context.watch(Progress("adapt", 1, 1, note="nothing to do: the spec names no texts to adapt the model to"))
        return
    context.watch(Progress("adapt", 0, 1, note="reading texts"))
    work = adapting(context.resolved, {split: context.table(split) for split in SPLITS}, context.processor)
    model, absent = built(work.spec, work.task)
    before = predict(model, work.task, work.texts.test, work.test, context.rows_watch("adapt", "before"))
    model, fitted = _fitted(context, work, model)
    after = predict(model, work.task, work.texts.test, work.test, context.rows_watch("adapt", "after"))
    for name in save_adapted(model, work.spec.model, context.processor, context.adapted_folder):
        stage.wrote(f"adapted/{name}")
    before, after = before.select(SUMS), after.select(SUMS)
    told = {
        "before": stage.write("data/adaptation_before.parquet", before.write_parquet),
        "after": stage.write("data/adaptation_after.parquet", after.write_parquet),
    }
    options = context.resolved.evaluate
    stage.find(*_about_texts(context, stage, work), *_about_training(work, fitted, absent))
    stage.find(*loss_findings(before, after, Resampling(context.given.seed, options.resamples, options.confidence), told))
    folder = context.rundir.path / FOLDER
    stage.write_text("data/adaptation_history.jsonl", (folder / "history.jsonl").read_text("utf-8"))
    shutil.rmtree(folder)


def adapting(resolved: Spec, splits: Mapping[str, pl.DataFrame], processor: Any) -> Adapting:
    """What the adaptation of a resolved spec works on.

    Where models of folds will be tested on training rows, texts like these leave too.

    Raises:
        DataError: the texts cannot be read, too few are left, or none has a token that could be masked.
    """
    held_out = SPLITS if isinstance(resolved.evaluate.folds, int) else SPLITS[1:]
    texts = adaptation_texts(resolved, [splits[split] for split in held_out])
    spec = adaptation(resolved, len(texts.train))
    task, length = make_task(spec, [], texts.train), int(spec.model.max_length or 0)
    train = task.training(texts.train, processor, length)
    if not train.rows:
        raise DataError(Issue(WHERE, "must hold tokens that could be masked", f"none in {len(texts.train)} texts", "Name other texts."))
    held = (task.encode(rows, processor, length) for rows in (texts.validation, texts.test))
    return Adapting(texts, spec, task, train, *held)


def _fitted(context: Context, work: Adapting, model: Any) -> tuple[Any, Fitted]:
    context.seed("adaptation")
    model = apply_strategy(model, work.spec.strategy)
    shortcuts = shortcuts_for(model, [work.train, work.validation], work.spec)

    def score(answers: Any) -> float:
        value = fast_score(METRIC, "masked", work.task.targets(work.texts.validation), work.task.scores(answers, work.validation))
        if math.isnan(value):
            found, remedy = "no finite masked loss", "Name more texts, or lower model.adapt.learning_rate if training diverged."
            raise DataError(Issue(WHERE, "must hold texts to select the weights by", found, remedy))
        return value

    job = Job(
        spec=work.spec,
        task=work.task,
        train=shortcuts.encodings[0],
        validation=shortcuts.encodings[1],
        score=score,
        higher_is_better=False,
        folder=context.rundir.path / FOLDER / "loop",
        inputs=sha256_json([context.rundir.output_hashes(("prepare", "resolve")), work.texts.train["id"].to_list()]),
        watch=lambda progress: context.watch(replace(progress, stage="adapt")),
        stop=context.stop,
    )
    again = decide_recompute(model, work.spec, job.task, job.train)
    with recomputing(model) if again.used else nullcontext():
        fitted = fit(model, job)
    shortcuts.undo()
    return model, fitted


def _about_texts(context: Context, stage: StageWriter, work: Adapting) -> list[Finding]:
    texts, rule = work.texts, context.resolved.model.adapt
    assert rule is not None, "there is an adaptation"
    parts = {"train": texts.train, "validation": texts.validation, "test": texts.test}
    placed = pl.concat([rows.select("id", "source", split=pl.lit(name)) for name, rows in parts.items()])
    kept = stage.write("data/adaptation.parquet", placed.write_parquet)
    dropped = stage.write("data/adaptation_dropped.parquet", texts.dropped.write_parquet)
    counted, read = Counter(texts.dropped["reason"].to_list()), texts.read
    crowded = f"; {texts.crowded} with too many look-alikes to compare all" if texts.crowded else ""
    held_out, claim = len(texts.validation) + len(texts.test), "Unlabelled texts held out, to select the weights and to score them"
    return [
        Finding("adapt/texts", "Unlabelled texts that the model was adapted to", len(texts.train), "texts", read, artefact=kept,
                note=", ".join(rule.texts)),
        Finding("adapt/held_out", claim, held_out, "texts", read, artefact=kept),
        Finding("adapt/left_out", "Unlabelled texts left out, each with its reason", len(texts.dropped), "texts", read, artefact=dropped,
                note=f"compared with the rows that the model is selected and tested on{crowded}"),
        *(Finding(f"adapt/left_out/{reason}", f"Unlabelled texts left out: {words}", counted[str(reason)], "texts", read, artefact=dropped)
          for reason, words in EXPLANATIONS.items()),
    ]  # fmt: skip


def _about_training(work: Adapting, fitted: Fitted, absent: list[str]) -> list[Finding]:
    best = fitted.best_step / (fitted.steps / fitted.epochs_run)
    drawn = "Weights of the output layer for words that the pretrained files lack, so that they were drawn at random"
    return [
        Finding("adapt/windows", "Windows over these texts", len(work.train.rows), "windows", len(work.texts.train)),
        Finding("adapt/tokens", "Tokens in these windows", sum(work.train.lengths), "tokens"),
        Finding("adapt/new_weights", drawn, len(absent), "tensors", note=", ".join(absent)),
        Finding("adapt/batch_size", "Windows in a step of adaptation", int(work.spec.train.batch_size or 0), "windows"),
        Finding("adapt/steps", "Optimiser steps of adaptation", fitted.steps, "steps"),
        Finding("adapt/best_epoch", "Epoch of the kept weights of adaptation", round(best, 3), "epochs"),
        Finding("adapt/seconds", "Time of adaptation", round(fitted.seconds, 1), "seconds", source="measured"),
        Finding("adapt/resumed_at", "Step at which the last process of adaptation began", fitted.resumed_at, "steps"),
    ]
