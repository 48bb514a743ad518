"""train: fit the weights that the strategy names, and save the model in plain Hugging Face layout."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.records import Finding, Progress
from tunesmith.core.rundir import StageWriter, sha256_file, sha256_json
from tunesmith.models.anatomy import output_layer
from tunesmith.models.build import build_model, has_bias, set_head
from tunesmith.models.linear import Linear, Penalty, choose_logistic, fit_logistic
from tunesmith.models.load import public_id
from tunesmith.models.save import save_model
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.size import Size, size_of
from tunesmith.models.strategies import apply_strategy
from tunesmith.spec.schema import Features
from tunesmith.stages.context import Context, Training
from tunesmith.stages.embed import HEAD_ROWS, load_features, sample_rows
from tunesmith.train.fit import Fitted, Job, fit, peak_memory_bytes
from tunesmith.train.head import FeatureTask, LinearHead, feature_encoding
from tunesmith.train.optim import decay_is_linear
from tunesmith.train.prefix import Used, Wish, with_prefix


def train(context: Context, stage: StageWriter) -> None:
    """Write model/, and history.jsonl where the loop ran."""
    strategy = context.spec.strategy
    model = build_model(context.spec, context.task)
    if isinstance(strategy, Features):
        model = apply_strategy(model, strategy)
        size = size_of(model)
        fitted = _logistic(model, context, stage) if strategy.head == "logistic" else _linear(model, context)
    else:
        model, size, fitted = _weights(model, context, stage)
    context.processor.model_max_length = context.spec.model.max_length  # what a pipeline with truncation=True then cuts at
    for name in save_model(model, context.processor, stage.path("model")):
        stage.wrote(f"model/{name}")
    if (context.rundir.path / "history.jsonl").exists():
        stage.wrote("history.jsonl")
    stage.find(*_model_findings(context, stage, size))
    if fitted:
        stage.find(*_fit_findings(context, stage, fitted))


def _weights(model: Any, context: Context, stage: StageWriter) -> tuple[Any, Size, Fitted]:
    if context.spec.train.head_start == "fitted":
        linear = fitted_head(model, context)
        set_head(model, linear)
        note = "" if linear.converged else "the solver stopped at its limit of iterations"
        stage.find(Finding("train/head_start", "The head starts from a regression on frozen features", "fitted", note=note))
    model = apply_strategy(model, context.spec.strategy)
    size = size_of(model)
    encodings = [context.training_encoding(), context.encoding("validation")]
    wish = Wish(context.spec.store, context.store_folder, float(context.spec.train.epochs or 1))
    with with_prefix(model, context.training_task, encodings, wish, context.rows_watch("train", "frozen blocks")) as (task, rows, used):
        stage.find(*_store_findings(used))
        shortcuts = Shortcuts(model, rows, linear_decay=decay_is_linear(context.spec.train))
        fitted = fit(model, _job(context, task, *shortcuts.encodings))
        shortcuts.undo()
    return model, size, fitted


def _store_findings(used: Used) -> list[Finding]:
    """Whether frozen work was done once, and what that took."""
    what = [Finding("store/used", "Whether frozen blocks were read from the store", "yes" if used.used else "no", note=used.reason)]
    if used.used:
        note = f"{used.damaged} rows of damaged files were computed again" if used.damaged else ""
        what += [
            Finding("store/depth", "Frozen blocks that were not computed while training", used.depth, "blocks"),
            Finding("store/computed", "Rows whose frozen blocks were computed for this run", used.computed, "rows", used.rows, note=note),
            Finding("store/bytes", "Size of these rows in the store", used.bytes, "bytes"),
            Finding("store/seconds", "Time to fill and check the store", round(used.seconds, 1), "seconds", source="measured"),
        ]
    if used.recomputed:
        claim = "Largest relative difference between stored and recomputed rows"
        what.append(Finding("store/difference", claim, used.difference, n=used.recomputed, source="measured"))
    return what


def fitted_head(model: Any, context: Context) -> Linear:
    """A regression on what the output layer of the untrained model reads, from a sample that holds every class."""
    context.watch(Progress("train", 0, 1, note="fitting the head on frozen features"))
    features_NE, training = _trained_features(context, set(sample_rows(context, HEAD_ROWS)))
    return fit_logistic(features_NE, training.targets, len(context.labels), _penalty(context, model), training.weights_N)


def _trained_features(context: Context, wanted: set[int] | None = None) -> tuple[Tensor, Training]:
    """What the output layer reads for the training rows whose features are there, of `wanted` rows only when given; and these rows."""
    features, training = load_features(context.rundir.path, "train"), context.training
    place_of = {row: place for place, row in enumerate(features["row"].tolist()) if wanted is None or row in wanted}
    chosen = [number for number, row in enumerate(training.rows) if row in place_of]
    rows = [training.rows[number] for number in chosen]
    weights_N = None if training.weights_N is None else training.weights_N[chosen]
    chosen_NE, targets = features["head_input"][[place_of[row] for row in rows]], training.targets[chosen]
    if wanted is None and len(context.copies):
        chosen_NE = torch.cat([chosen_NE, load_features(context.rundir.path, "augmented")["head_input"]])
        targets = np.concatenate([targets, context.targets_of(context.copies["from"])])
        if weights_N is not None:
            weights_N = np.array([row["weight"] for row in context.training_encoding().rows], np.float32)
    return chosen_NE, Training(rows, targets, weights_N)


def _penalty(context: Context, model: Any) -> Penalty:
    return Penalty(1.0, context.spec.train.class_weights == "balanced", has_bias(model))


def _logistic(model: Any, context: Context, stage: StageWriter) -> Fitted | None:
    features_NE, training = _trained_features(context)
    held_out = load_features(context.rundir.path, "validation")["head_input"]
    sign = 1 if context.higher_is_better else -1

    def fitted(penalty: Penalty) -> Linear:
        context.watch(Progress("train", 0, 1, note=f"regression with strength {penalty.strength:g}"))
        return fit_logistic(features_NE, training.targets, len(context.labels), penalty, training.weights_N)

    chosen = choose_logistic(fitted, _penalty(context, model), lambda linear: sign * context.score(linear(held_out)))
    set_head(model, chosen.linear)
    tried = json.dumps({f"{c:g}": round(sign * value, 4) for c, value in chosen.scores.items()})
    best, metric = sign * chosen.scores[chosen.strength], context.spec.evaluate.metric
    ended = "the solver converged" if chosen.linear.converged else "the solver's limit of iterations"
    stage.find(
        Finding("train/best_score", f"Validation {metric} of the chosen head", best, n=len(held_out), source="measured"),
        Finding(
            "train/strength", "Inverse regularisation of the chosen head", chosen.strength, note=f"validation {metric} by strength: {tried}"
        ),
        Finding("train/peak_memory_bytes", "Peak memory of the process", peak_memory_bytes(), "bytes", source="measured"),
        Finding("train/stopped_by", "Why training ended", ended),
    )
    return None


def _linear(model: Any, context: Context) -> Fitted:
    output = output_layer(model, model.config.num_labels)[1]
    validation = load_features(context.rundir.path, "validation")["head_input"]
    parts = ((_trained_features(context)[0], context.training_encoding()), (validation, context.encoding("validation")))
    encodings = [feature_encoding(features_NE, encoding) for features_NE, encoding in parts]
    head = LinearHead(output).requires_grad_(True)
    return fit(head, _job(context, FeatureTask(context.training_task), *encodings))


def _job(context: Context, task: Any, train_rows: Any, validation_rows: Any) -> Job:
    context.seed("dropout")
    return Job(
        spec=context.spec,
        task=task,
        train=train_rows,
        validation=validation_rows,
        score=context.score,
        higher_is_better=context.higher_is_better,
        folder=context.rundir.path / "checkpoints",
        inputs=sha256_json(context.rundir.output_hashes(("prepare", "resolve", "embed", "certify", "inspect", "augment"))),
        watch=context.watch,
        stop=context.stop,
    )


def _model_findings(context: Context, stage: StageWriter, size: Size) -> list[Finding]:
    weights = stage.rundir.path / "model/model.safetensors"
    files = [weights] if weights.exists() else sorted(weights.parent.glob("*.safetensors"))
    artefact = stage.wrote(str(files[0].relative_to(stage.rundir.path)))
    return [
        Finding("model/name", "Pretrained model", public_id(context.given.model), source="declared"),
        Finding(
            "model/architecture",
            "Architecture",
            json.loads((weights.parent / "config.json").read_text())["architectures"][0],
            source="read",
        ),
        Finding("model/parameters/total", "Parameters", size.total, "parameters", artefact=artefact),
        Finding("model/parameters/trainable", "Trained parameters", size.trainable, "parameters"),
        Finding("model/size_bytes", "Size of the weights on disk", sum(f.stat().st_size for f in files), "bytes", artefact=artefact),
        Finding("model/weights_sha256", "Fingerprint of the weights", sha256_file(files[0]), artefact=artefact),
    ]


def _fit_findings(context: Context, stage: StageWriter, fitted: Fitted) -> list[Finding]:
    history = stage.wrote("history.jsonl")
    lines = (stage.rundir.path / "history.jsonl").read_text("utf-8").splitlines()
    metric, steps_per_epoch = context.spec.evaluate.metric, fitted.steps / fitted.epochs_run
    rows = len(context.table("validation"))
    return [
        Finding("train/seconds", "Training time", round(fitted.seconds, 1), "seconds", source="measured"),
        Finding("train/steps", "Optimiser steps", fitted.steps, "steps", artefact=history),
        Finding("train/epochs_run", "Passes over the training rows", fitted.epochs_run, "epochs", artefact=history),
        Finding("train/best_epoch", "Epoch of the kept weights", round(fitted.best_step / steps_per_epoch, 3), "epochs", artefact=history),
        Finding(
            "train/best_score", f"Validation {metric} of the kept weights", fitted.best_score, n=rows, source="measured", artefact=history
        ),
        Finding("train/stopped_by", "Why training ended", fitted.stopped_by),
        Finding("train/precision", "Arithmetic of training", str(context.spec.train.precision)),
        Finding("train/final_loss", "Training loss of the last step", json.loads(lines[-1])["loss"], artefact=history, source="measured"),
        Finding("train/peak_memory_bytes", "Peak memory of the process", fitted.peak_memory_bytes, "bytes", source="measured"),
        Finding("train/resumed_at", "Step at which the last process began", fitted.resumed_at, "steps"),
    ]
