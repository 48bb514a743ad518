"""train: fit the weights that the strategy names, and save the model in plain Hugging Face layout."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from tunesmith.core.records import Finding, Progress
from tunesmith.core.rundir import StageWriter, sha256_file, sha256_json
from tunesmith.models.build import build_model, has_bias, in_plain_numbers, in_units, set_head
from tunesmith.models.forward import predict_logits
from tunesmith.models.headed import load_shipped
from tunesmith.models.linear import Linear, Penalty, fit_logistic, fit_ridge
from tunesmith.models.load import public_id
from tunesmith.models.recompute import recomputing
from tunesmith.models.save import learned_weights, save_model, save_pooling
from tunesmith.models.size import Size, size_of
from tunesmith.models.strategies import apply_strategy
from tunesmith.models.tagging import fit_tags, sampled, word_states
from tunesmith.spec.schema import Features
from tunesmith.stages.context import Context
from tunesmith.stages.craft import craft_findings
from tunesmith.stages.embed import HEAD_ROWS, sample_rows
from tunesmith.stages.head_search import search
from tunesmith.stages.heads import Shop, check_parity, fit_features, head_findings, store_findings, trained_features
from tunesmith.stages.teacher import FILE as TEACHER_FILE
from tunesmith.stages.teacher import pupil_finding, teacher_answers
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.sentence_similarity import SimilarityApart
from tunesmith.tasks.text_regression import TextRegression
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.train.distill import taught, with_teacher
from tunesmith.train.fit import Fitted, Job, fit, order_of, shortcuts_for
from tunesmith.train.memory import decide_recompute, expected_peak
from tunesmith.train.prefix import Wish, with_prefix


def train(context: Context, stage: StageWriter) -> None:
    """Write model/, and history.jsonl where the loop ran."""
    strategy = context.spec.strategy
    model = build_model(context.spec, context.task)
    made = None
    if isinstance(strategy, Features):
        made = fit_features(Shop(model, context, _job), stage, search)
        model, size, fitted = made.model, made.size, made.fitted
    else:
        model, size, fitted = _weights(model, context, stage)
    context.processor.model_max_length = context.spec.model.max_length  # what a pipeline with truncation=True then cuts at
    for name in save_model(model, context.processor, stage.path("model")):
        stage.wrote(f"model/{name}")
    if isinstance(context.task, (FeatureExtraction, SimilarityApart)):
        pooling, length = context.spec.embedding.pooling, int(context.spec.model.max_length or 0)
        for name in save_pooling(stage.path("model"), pooling, model.config.hidden_size, length):
            stage.wrote(f"model/{name}")
    if (context.rundir.path / "history.jsonl").exists():
        stage.wrote("history.jsonl")
    stage.find(*_model_findings(context, stage, size))
    if fitted:
        stage.find(*_fit_findings(context, stage, fitted))
    if made:
        shipped = load_shipped(context.task.head, context.rundir.path / "model", context.spec.model.trust_remote_code)
        stage.find(check_parity(context, made, shipped), *head_findings(stage, shipped))


def _weights(model: Any, context: Context, stage: StageWriter) -> tuple[Any, Size, Fitted]:
    if context.spec.train.head_start == "fitted":
        linear = _fitted_tags(model, context) if isinstance(context.task, TokenClassification) else fitted_head(model, context)
        set_head(model, linear)
        note = "" if linear.converged else "the solver stopped at its limit of iterations"
        stage.find(Finding("train/head_start", "The head starts from a regression on frozen features", "fitted", note=note))
    units = in_units(context.training_task, model)
    model = apply_strategy(model, context.spec.strategy)
    size = size_of(model)
    encodings, task = [context.training_encoding(), context.scored_encoding], units
    answers = teacher_answers(context, stage) if context.spec.train.distill else None
    if answers is not None:
        encodings[0] = with_teacher(encodings[0], answers["train"])
    wish = Wish(context.spec.store, context.store_folder, float(context.spec.train.epochs or 1))
    with with_prefix(model, task, encodings, wish, context.rows_watch("train", "frozen blocks")) as (task, rows, used):
        stage.find(*store_findings(used))
        shortcuts = shortcuts_for(model, rows, context.spec)
        job = replace(_job(context, taught(task, context.spec), *shortcuts.encodings), score=partial(context.score, task=units))
        if answers is not None:
            job = replace(job, inputs=sha256_json([job.inputs, sha256_file(context.rundir.path / TEACHER_FILE)]))
        again = decide_recompute(model, context.spec, job.task, job.train)
        with recomputing(model) if again.used else nullcontext():
            order = order_of(context.spec, job.train)
            expected = expected_peak(model, context.spec, job.task, job.train, job.validation, order)
            claim = "Memory expected at the peak of training, from passes of the longest rows"
            stage.find(Finding("train/expected_memory_bytes", claim, expected, "bytes"))
            fitted = fit(model, job)
        if answers is not None:
            stage.find(pupil_finding(context, predict_logits(model, job.task, job.validation), answers["validation"]))
        shortcuts.undo()
    if isinstance(units, TextRegression) and units.has_head:
        in_plain_numbers(model, units.scale)
    stage.find(*craft_findings(context, fitted, again))
    return model, size, fitted


def fitted_head(model: Any, context: Context) -> Linear:
    """A regression on what the output layer of the untrained model reads, from a sample that holds every class."""
    context.watch(Progress("train", 0, 1, note="fitting the head on frozen features"))
    features_NE, training = trained_features(context, set(sample_rows(context, HEAD_ROWS)))
    task = in_units(context.training_task, model)
    if isinstance(task, TextRegression):
        targets_N = (training.targets - task.scale.mean) / task.scale.deviation
        return fit_ridge(features_NE, targets_N, _penalty(context, model), training.weights_N)
    return fit_logistic(features_NE, training.targets, len(context.labels), _penalty(context, model), training.weights_N)


def _fitted_tags(model: Any, context: Context) -> Linear:
    """A regression on what the output layer of the untrained model reads at the words of a sample that holds every tag."""
    task, encoding = context.task, context.encoding("train")
    assert isinstance(task, TokenClassification), "words have tags only there"
    sample = sampled(encoding, context.windows_in_order("train"), len(task.tags))
    watch = context.rows_watch("train", "fitting the head on frozen features")
    return fit_tags(word_states(model, task, sample, watch), sample, len(task.tags), _penalty(context, model))


def _penalty(context: Context, model: Any) -> Penalty:
    return Penalty(1.0, context.spec.train.class_weights == "balanced", has_bias(model))


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
        inputs=sha256_json(context.rundir.output_hashes(("prepare", "resolve", "adapt", "embed", "certify", "inspect", "augment"))),
        watch=context.watch,
        stop=context.stop,
    )


def _model_findings(context: Context, stage: StageWriter, size: Size) -> list[Finding]:
    learned, config = learned_weights(stage.rundir.path / "model")
    files = [*learned.parent.glob("*.safetensors"), *(config.parent.glob("*.safetensors") if config.parent != learned.parent else ())]
    artefact = stage.wrote(str(learned.relative_to(stage.rundir.path)))
    return [
        Finding("model/name", "Pretrained model", public_id(context.given.model), source="declared"),
        Finding(
            "model/architecture",
            "Architecture",
            json.loads(config.read_text())["architectures"][0],
            source="read",
        ),
        Finding("model/parameters/total", "Parameters", size.total, "parameters", artefact=artefact),
        Finding("model/parameters/trainable", "Trained parameters", size.trainable, "parameters"),
        Finding("model/size_bytes", "Size of the weights on disk", sum(f.stat().st_size for f in files), "bytes", artefact=artefact),
        Finding("model/weights_sha256", "Fingerprint of the weights", sha256_file(learned), artefact=artefact),
    ]


def _fit_findings(context: Context, stage: StageWriter, fitted: Fitted) -> list[Finding]:
    history = stage.wrote("history.jsonl")
    lines = (stage.rundir.path / "history.jsonl").read_text("utf-8").splitlines()
    metric, steps_per_epoch = context.spec.evaluate.metric, fitted.steps / fitted.epochs_run
    rows = len(context.scored_encoding.rows) if context.scored_rows else len(context.table("validation"))
    expected = []
    if context.scored_rows:
        claim, note = "Validation rows that weights were selected by", "the first by content hash (generation.scored_rows)"
        expected.append(Finding("train/scored_rows", claim, rows, "rows", len(context.table("validation")), note=note))
    if fitted.expected_seconds is not None:
        claim = "Training time expected after the first steps, evaluations with it"
        expected.append(Finding("train/expected_seconds", claim, round(fitted.expected_seconds, 1), "seconds"))
    best_epoch = round(fitted.best_step / steps_per_epoch, 3)
    which = "trained" if fitted.averaged is not None and fitted.averaged.share is not None else "kept"
    return [
        Finding("train/seconds", "Training time", round(fitted.seconds, 1), "seconds", source="measured"),
        *expected,
        Finding("train/steps", "Optimiser steps", fitted.steps, "steps", artefact=history),
        Finding("train/epochs_run", "Passes over the training rows", fitted.epochs_run, "epochs", artefact=history),
        Finding("train/best_epoch", f"Epoch of the {which} weights", best_epoch, "epochs", artefact=history),
        Finding(
            "train/best_score", f"Validation {metric} of the kept weights", fitted.best_score, n=rows, source="measured", artefact=history
        ),
        Finding("train/stopped_by", "Why training ended", fitted.stopped_by),
        Finding("train/precision", "Arithmetic of training", str(context.spec.train.precision)),
        Finding("train/final_loss", "Training loss of the last step", json.loads(lines[-1])["loss"], artefact=history, source="measured"),
        Finding("train/peak_memory_bytes", "Peak memory of training", fitted.peak_memory_bytes, "bytes", source="measured"),
        Finding("train/resumed_at", "Step at which the last process began", fitted.resumed_at, "steps"),
    ]
