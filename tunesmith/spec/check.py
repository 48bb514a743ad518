"""Checks that need the spec alone: combinations that would have no effect, and files that are not there. All at once."""

from __future__ import annotations

import difflib
import glob
import os
from pathlib import Path

from tunesmith.core.records import Issue
from tunesmith.spec.addresses import archive_of, has_password, is_address
from tunesmith.spec.check_tasks import task_issues
from tunesmith.spec.heads import LOOPED
from tunesmith.spec.schema import (
    SGD,
    Beams,
    ByColumn,
    CrossEntropy,
    Features,
    Focal,
    Gradual,
    Layers,
    Lora,
    Mixup,
    Prompts,
    Soup,
    Spec,
)

LOOP_ONLY = (
    "epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "optimizer", "schedule", "warmup_ratio", "weight_decay",
    "max_grad_norm", "dropout", "head_start", "label_smoothing", "evaluations_per_epoch", "patience", "precision", "checkpoint_minutes",
    "loss", "sampling", "averaging", "regularization", "distill", "activation_checkpointing",
)  # fmt: skip
UNUSED_BY_A_HEAD = ("dropout", "head_start", "precision", "regularization", "distill", "activation_checkpointing")


def check_spec(spec: Spec, metrics: tuple[str, ...]) -> list[Issue]:
    """Every problem that can be seen without reading the data. `metrics` are the names that the task knows."""
    looked_at = (_files, _data, task_issues, _strategy, _training, _craft, _augmentation)
    return [*(issue for look in looked_at for issue in look(spec)), *_metric(spec, metrics)]


def matching_files(pattern: str) -> list[str]:
    """Files that a path or glob names, sorted; a path that exists is taken literally even if it holds glob characters."""
    return [pattern] if os.path.exists(pattern) else sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def _files(spec: Spec) -> list[Issue]:
    issues = []
    named = {f"data.{field}": spec.data.model_dump()[field] for field in ("train", "validation", "test", "decisions")}
    named["model.adapt.texts"] = spec.model.adapt.texts if spec.model.adapt else None
    for field, patterns in named.items():
        for number, pattern in enumerate(patterns or ()):
            where = field + (f"[{number}]" if number else "")
            if is_address(pattern):
                issues += _address(where, pattern)
            elif field == "data.decisions" and os.path.isdir(pattern):
                remedy = f"Name its files, such as {pattern.rstrip('/')}/*.csv."
                issues.append(Issue(where, "must be a file", f"the folder {pattern}", remedy))
            elif not matching_files(archive[0] if (archive := archive_of(pattern)) else pattern):
                folder = Path(pattern).parent
                near = difflib.get_close_matches(Path(pattern).name, os.listdir(folder) if folder.is_dir() else [], 1)
                issues.append(Issue(where, "must exist", pattern, f"Did you mean {folder / near[0]}?" if near else "Check the path."))
    return issues


def _address(where: str, address: str) -> list[Issue]:
    if where.startswith("data.decisions"):
        return [Issue(where, "must be a file on this machine", "an address", "Download it first.")]
    if has_password(address):
        remedy = "Leave it out: the program that reads the address finds it in its own settings or the environment."
        return [Issue(where, "must not hold a password: it would stand in the files of the run", "one", remedy)]
    return []


def _data(spec: Spec) -> list[Issue]:
    data, issues = spec.data, []
    if data.weights is not None and len(data.weights) != len(data.train):
        found = f"{len(data.train)} sources, {len(data.weights)} weights"
        remedy = "Add or remove weights in data.weights; a glob is one source."
        issues.append(Issue("data.train", "must name one source for each of data.weights", found, remedy))
    if data.text and len(set(data.text)) < len(data.text):
        issues.append(Issue("data.text", "must name two different columns", data.text[0]))
    labels = data.label if isinstance(data.label, tuple) else tuple(filter(None, [data.label]))
    issues += [Issue("data.label", "must not be a text column too", name) for name in dict.fromkeys(labels) if name in (data.text or ())]
    issues += _annotators(spec, labels)
    if data.label_separator and not data.multi_label:
        issues.append(
            Issue("data.label_separator", "has a meaning only with multi_label: true", data.label_separator, "Remove one or add the other.")
        )
    if not data.validation and not data.test and data.validation_share + data.test_share > 0.8:
        shares = f"{data.validation_share} and {data.test_share}"
        issues.append(
            Issue("data", "must leave a fifth of the rows for training", f"validation_share and test_share of {shares}", "Lower them.")
        )
    given = [split for split in ("validation", "test") if data.model_dump()[split]]
    if isinstance(data.split, ByColumn) and given:
        issues.append(Issue("data.split", "must not name a column beside given splits", f"data.{given[0]}", "Remove one of them."))
    if len(given) == 2 and "split" in data.model_fields_set:
        issues.append(Issue("data.split", "has no effect beside data.validation and data.test", data.split.kind, "Remove it."))
    for split in ("validation", "test"):
        table, share = data.model_dump()[split], f"{split}_share"
        if table and share in data.model_fields_set:
            issues.append(Issue(f"data.{share}", f"has no effect beside data.{split}", "", "Remove one of them."))
        if not table and data.model_dump()[share] == 0 and not isinstance(data.split, ByColumn):
            issues.append(Issue(f"data.{share}", f"must be > 0 without data.{split}", "0", f"Give a {split} table or a share."))
    return issues


def _annotators(spec: Spec, labels: tuple[str, ...]) -> list[Issue]:
    """What does not go together in a table that several annotators labelled."""
    data, issues = spec.data, []
    several = isinstance(data.label, tuple)
    if len(set(labels)) < len(labels):
        issues.append(Issue("data.label", "must name different columns", next(name for name in labels if labels.count(name) > 1)))
    if data.annotator and several:
        remedy = "Remove data.annotator: each label column is an annotator."
        issues.append(Issue("data.annotator", "has no effect beside several label columns", data.annotator, remedy))
    elif data.annotator and data.annotator in (*labels, *(data.text or ())):
        issues.append(Issue("data.annotator", "must not be a text or label column too", data.annotator, "Name the column that says who."))
    if not (data.annotator or several):
        if "consensus" in data.model_fields_set:
            remedy = "Name the annotators' column, or remove it."
            issues.append(Issue("data.consensus", "has no effect without data.annotator or several label columns", data.consensus, remedy))
        return issues
    if data.multi_label:
        remedy = "Bring the annotators together first: sets of labels have no consensus here."
        issues.append(Issue("data.multi_label", "must be false with several annotators", "true", remedy))
    if "on_conflict" in data.model_fields_set:
        remedy = "Remove it: data.consensus decides."
        issues.append(Issue("data.on_conflict", "has no effect with several annotators", data.on_conflict, remedy))
    return issues


def _strategy(spec: Spec) -> list[Issue]:
    strategy, issues = spec.strategy, []
    if isinstance(strategy, Layers) and strategy.parts is not None and "top" in strategy.model_fields_set:
        issues.append(Issue("strategy.top", "has no effect beside strategy.parts", str(strategy.top), "Remove one of them."))
    if isinstance(strategy, Lora) and strategy.kind == "qlora" and strategy.use_dora:
        issues.append(Issue("strategy.use_dora", "must be false with qlora", "true", "Remove it, or use strategy {kind: lora}."))
    if isinstance(strategy, Prompts) and spec.train.activation_checkpointing is True:
        remedy = "Remove it, or use strategy {kind: lora}."
        issues.append(Issue("train.activation_checkpointing", f"must not be true with {strategy.kind}", "true", remedy))
    if isinstance(strategy, Gradual) and spec.train.epochs and spec.train.epochs <= strategy.blocks * strategy.epochs_per_block:
        least = strategy.blocks * strategy.epochs_per_block + 1
        expected = f"must be at least {least}: {strategy.blocks} blocks join after {strategy.epochs_per_block} epochs each"
        issues.append(Issue("train.epochs", expected, str(spec.train.epochs), "Raise it, or lower strategy.blocks."))
    return issues


def _training(spec: Spec) -> list[Issue]:
    issues = []
    if isinstance(spec.strategy, Features):
        issues += _head(spec, spec.strategy)
    if isinstance(spec.train.optimizer, SGD) and spec.train.optimizer.nesterov and spec.train.optimizer.momentum == 0:
        issues.append(Issue("train.optimizer.nesterov", "needs a momentum above 0", "0"))
    if spec.train.batch_size and spec.train.gradient_accumulation_steps > spec.train.batch_size:
        issues.append(
            Issue("train.gradient_accumulation_steps", "must be at most train.batch_size", str(spec.train.gradient_accumulation_steps))
        )
    if spec.data.multi_label and spec.train.label_smoothing:
        issues.append(Issue("train.label_smoothing", "must be 0 with multi_label: true", str(spec.train.label_smoothing), "Remove it."))
    if not isinstance(spec.train.loss, CrossEntropy) and spec.train.label_smoothing:
        remedy = "Remove label_smoothing, or use loss: {kind: cross_entropy}."
        words = f"must be 0 with the {spec.train.loss.kind.replace('_', ' ')} loss"
        issues.append(Issue("train.label_smoothing", words, str(spec.train.label_smoothing), remedy))
    if spec.data.multi_label and not isinstance(spec.train.loss, (CrossEntropy, Focal)):
        remedy = "Use cross_entropy or focal: its paper defines it for one label a row."
        issues.append(Issue("train.loss", "is not defined with multi_label: true", spec.train.loss.kind, remedy))
    if spec.data.multi_label and spec.train.sampling != "none":
        issues.append(Issue("train.sampling", "must be none with multi_label: true", spec.train.sampling, "Remove it."))
    if spec.train.sampling != "none" and spec.train.class_weights == "balanced":
        found = f"class_weights: balanced and sampling: {spec.train.sampling}"
        issues.append(Issue("train.sampling", "must not correct for rare classes a second time", found, "Remove one of them."))
    if spec.data.multi_label and spec.train.class_weights == "balanced":
        issues.append(Issue("train.class_weights", "must be none with multi_label: true", "balanced", "Remove it."))
    return issues


def _head(spec: Spec, strategy: Features) -> list[Issue]:
    """Settings of the loop that a head has no use for, and poolings that it cannot have."""
    kind, given = strategy.head.kind, spec.train.model_fields_set
    if kind not in (*LOOPED, "search"):
        remedy = "Remove it, or use head: linear or mlp."
        issues = [Issue(f"train.{f}", f"has no effect with strategy.head: {kind}", "", remedy) for f in LOOP_ONLY if f in given]
    else:
        unused = [f for f in UNUSED_BY_A_HEAD if f in given and not (f == "dropout" and kind != "linear")]
        issues = [Issue(f"train.{field}", "has no effect with strategy.kind: features", "", "Remove it.") for field in unused]
    if strategy.pooling == "attention" and kind not in LOOPED:
        remedy = "Set strategy.head: linear or mlp, or another pooling."
        issues.append(Issue("strategy.pooling", "is learned together with the head, by the loop", f"attention with {kind}", remedy))
    return issues


def _craft(spec: Spec) -> list[Issue]:
    """Averages, regularization and teachers that could do nothing, or would make a score dishonest."""
    train, issues = spec.train, []
    if train.learning_rate == "find" and isinstance(spec.strategy, Features):
        remedy = "Remove it to use the default, or give a number."
        issues.append(Issue("train.learning_rate", "must not be find with strategy.kind: features", "find", remedy))
    if isinstance(train.averaging, Soup) and train.epochs and train.epochs * train.evaluations_per_epoch < 2:
        remedy = "Raise train.epochs or train.evaluations_per_epoch."
        issues.append(Issue("train.averaging", "needs at least two scored checkpoints", "one evaluation in all", remedy))
    if isinstance(train.regularization, Mixup) and train.batch_size == 1:
        issues.append(Issue("train.regularization", "mixes pairs of rows, and needs a train.batch_size above 1", "1"))
    if train.distill is not None:
        if not (Path(train.distill.teacher) / "manifest.json").is_file():
            remedy = "Name the directory of a finished run, such as runs/tickets."
            issues.append(Issue("train.distill.teacher", "must be a run directory", train.distill.teacher, remedy))
        if isinstance(spec.evaluate.folds, int):
            remedy = "Set evaluate.folds: null: the teacher was trained on rows that folds would hold out."
            issues.append(Issue("evaluate.folds", "must be null with train.distill", str(spec.evaluate.folds), remedy))
    return issues


def _augmentation(spec: Spec) -> list[Issue]:
    rule = spec.train.augment
    if rule is None:
        return []
    issues = []
    if not rule.operations and rule.paraphrase is None:
        remedy = "Name some, such as [keyboard, drop_words], or a model to paraphrase with."
        issues.append(Issue("train.augment.operations", "must name an operation", "none", remedy))
    if rule.paraphrase is not None and isinstance(rule.paraphrase.decoding, Beams) and rule.paraphrase.decoding.num_beams < rule.copies:
        found = f"{rule.copies} copies, {rule.paraphrase.decoding.num_beams} beams"
        remedy = "Raise num_beams, or use decoding: {kind: sample}."
        issues.append(Issue("train.augment.paraphrase.decoding.num_beams", "must be at least train.augment.copies", found, remedy))
    return issues


def _metric(spec: Spec, metrics: tuple[str, ...]) -> list[Issue]:
    if spec.evaluate.metric is None or spec.evaluate.metric in metrics:
        return []
    near = difflib.get_close_matches(spec.evaluate.metric, metrics, 1)
    remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(metrics)}."
    return [Issue("evaluate.metric", f"must be a metric of {spec.task}", spec.evaluate.metric, remedy)]
