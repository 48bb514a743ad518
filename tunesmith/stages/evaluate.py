"""evaluate: the validation split, then the test split, once, with the saved model as anybody would load it."""

from __future__ import annotations

import math
import platform
import time
from functools import partial
from importlib.metadata import version

import polars as pl
import psutil
import torch

from tunesmith.core.records import Finding
from tunesmith.core.rundir import StageWriter
from tunesmith.evaluate import baselines
from tunesmith.evaluate.baselines import Known
from tunesmith.evaluate.dictionary import found, learned
from tunesmith.evaluate.evaluate import Judging, clean_findings, differences, findings_of
from tunesmith.evaluate.lexical import most_frequent, nearest_sentence
from tunesmith.evaluate.metrics import fast_score
from tunesmith.evaluate.numbers import INTERVAL, conformal_half_width, numbers_from_table, with_intervals
from tunesmith.evaluate.predict import predict
from tunesmith.evaluate.replies import THRESHOLD, best_threshold, with_threshold
from tunesmith.evaluate.texts import signatures
from tunesmith.models.build import build_model
from tunesmith.models.headed import load_shipped
from tunesmith.models.linear import Linear, Penalty, choose_logistic
from tunesmith.models.load import device
from tunesmith.models.tagging import fit_tags, sampled, tags_by, word_states
from tunesmith.stages.certify import leaking_test_rows
from tunesmith.stages.context import Context
from tunesmith.stages.embed import BASELINE_ROWS, load_features, sample_rows
from tunesmith.tasks.base import NOTHING
from tunesmith.tasks.make import can_be_empty
from tunesmith.tasks.token_classification import TokenClassification

PACKAGES = ("tunesmith", "torch", "transformers", "accelerate", "peft", "polars", "scikit-learn", "numpy", "safetensors")


def evaluate(context: Context, stage: StageWriter) -> None:
    """Write predictions/ and the scores of the model and of its baselines."""
    model = load_shipped(context.task.head, context.rundir.path / "model", context.spec.model.trust_remote_code)
    started = time.perf_counter()
    test, half, threshold = pl.DataFrame(), None, None
    for split in ("validation", "test"):
        rows = context.table(split)
        test = predict(model, context.task, rows, context.encoding(split), context.rows_watch("evaluate", split))
        if context.given.kind == "number":
            half = _half_width(context, stage, test) if half is None else half
            test = with_intervals(test, half)
        if context.given.kind == "answers":
            threshold = _threshold(context, stage, test) if threshold is None else threshold
            test = with_threshold(test, threshold)
        judging = _judge(context, stage, test, split)
    stage.find(*clean_findings(test, leaking_test_rows(context.rundir.path), judging))
    rows_seen = len(context.table("validation")) + len(context.table("test"))
    speed = rows_seen / (time.perf_counter() - started)
    stage.find(
        Finding("environment/rows_per_second", "Rows predicted in a second on this machine", round(speed, 1), "rows/s", source="measured")
    )
    if context.given.kind == "text":
        stage.find(*(Finding(f"metrics/{name}", f"How {name} is computed", how, source="read") for name, how in signatures().items()))
    for name in context.spec.evaluate.baselines:
        predictions = baseline_answers(context, stage, name)
        judging = _judge(context, stage, predictions, f"test.{name}", f"test/baseline/{name}")
        stage.find(*differences(test, predictions, judging))
    stage.find(*_environment())


def _judge(context: Context, stage: StageWriter, predictions: pl.DataFrame, file: str, prefix: str | None = None) -> Judging:
    artefact = stage.write(f"predictions/{file}.parquet", predictions.write_parquet)
    judging = Judging(context.given.kind, context.labels, context.spec.evaluate, context.given.seed, prefix or file, artefact)
    stage.find(*findings_of(predictions, judging))
    return judging


def baseline_answers(context: Context, stage: StageWriter, name: str) -> pl.DataFrame:
    """Predictions of a baseline, learned from the context's training rows, on its test rows."""
    if context.given.kind == "text":
        return _texts(context, stage, name)
    if context.given.kind == "answers":
        test = context.table("test")
        return most_frequent(context.table("train"), test) if name == "majority" else nearest_sentence(test)
    if context.given.kind == "spans":
        return found(learned(context.table("train")), context.table("test")) if name == "dictionary" else _tagged(context, stage)
    return _majority(context) if name == "majority" else _features(context, stage)


def _texts(context: Context, stage: StageWriter, name: str) -> pl.DataFrame:
    """Texts that nobody had to write: the text itself, or the target of the training row that is most like it."""
    test = context.table("test")
    if name == "copy":
        return baselines.copied(test)
    loaded = load_features(context.rundir.path, "train")
    known = Known(context.table("train")["label"].gather(loaded["row"].numpy()), loaded["mean"])
    claim, rows = "Training rows whose targets the retrieval baseline may give", len(context.table("train"))
    stage.find(Finding("retrieval/rows", claim, len(known.targets), "rows", rows))
    return baselines.retrieved(test, load_features(context.rundir.path, "test")["mean"], known)


def _tagged(context: Context, stage: StageWriter) -> pl.DataFrame:
    """A regression on what the untrained network says of words, its strength chosen by the spans of the validation rows."""
    task, validation, test = context.task, context.encoding("validation"), context.encoding("test")
    assert isinstance(task, TokenClassification), "words have tags only there"
    model = build_model(context.spec, task)
    sample = sampled(context.encoding("train"), context.windows_in_order("train"), len(task.tags))
    targets = task.targets(context.table("validation"))

    fitted_on, held_out, asked = (word_states(model, task, encoding) for encoding in (sample, validation, test))

    def score(linear: Linear) -> float:
        return fast_score("span_f1", "spans", targets, task.scores(tags_by(linear, held_out, validation), validation))

    chosen = choose_logistic(partial(fit_tags, fitted_on, sample, len(task.tags)), Penalty(), score, baselines.BASELINE_STRENGTHS)
    note = "" if chosen.linear.converged else "the solver stopped at its limit of iterations"
    claim = "Inverse regularisation of the feature baseline, chosen on validation rows"
    stage.find(Finding("features/strength", claim, chosen.strength, n=len(sample.rows), note=note))
    return context.table("test").select("id", "label").hstack(task.decode(tags_by(chosen.linear, asked, test), test))


def _majority(context: Context) -> pl.DataFrame:
    return baselines.majority(context.task, context.table("train"), context.table("test"), len(context.labels))


def _half_width(context: Context, stage: StageWriter, validation: pl.DataFrame) -> float:
    """Half the width of the intervals round predicted numbers, from the errors on the validation rows."""
    half = conformal_half_width(numbers_from_table(validation).error_N, context.spec.evaluate.confidence)
    claim = f"Half the width of the intervals round predicted numbers, to hold {context.spec.evaluate.confidence:g} of the rows"
    note = "from validation rows, by which the weights were chosen too: coverage on the test rows says how far to believe it"
    if math.isinf(half):
        why = f"{len(validation)} validation rows are too few for this confidence"
        stage.find(Finding(INTERVAL, claim, None, n=len(validation), source="unknown", note=why))
    else:
        stage.find(Finding(INTERVAL, claim, half, n=len(validation), note=note))
    return half


def _threshold(context: Context, stage: StageWriter, validation: pl.DataFrame) -> float:
    """The margin above which a question gets no answer, from the validation rows; infinite where every training row has one."""
    claim = "By how much the logits of no answer must be above those of the best span for a question to get none"
    if not can_be_empty(context.given, context.table("train")):
        told = context.given.answers.no_answer == "never" and "the spec says that there is always an answer"
        note = told or "every training row has an answer, so every question gets one"
        stage.find(Finding(THRESHOLD, claim, None, source="unknown", note=note))
        return math.inf
    threshold, reached = best_threshold(validation)
    note = f"chosen for the F1 of the validation rows, {reached:.4f}, by which the weights were chosen too"
    stage.find(Finding(THRESHOLD, claim, threshold, n=len(validation), note=note))
    return threshold


def _features(context: Context, stage: StageWriter) -> pl.DataFrame:
    def rows(split: str, wanted: set[int]) -> baselines.Rows:
        loaded = load_features(context.rundir.path, split)
        here = [place for place, row in enumerate(loaded["row"].tolist()) if row in wanted]
        return baselines.Rows(loaded["mean"][here], context.task.targets(context.table(split))[loaded["row"][here].tolist()])

    train = rows("train", set(sample_rows(context, BASELINE_ROWS)))
    chosen = baselines.features(context.task, train, rows("validation", set(range(len(context.table("validation"))))))
    note = "" if chosen.linear.converged else "the solver stopped at its limit of iterations"
    claim = "Inverse regularisation of the feature baseline, chosen on validation rows"
    stage.find(Finding("features/strength", claim, chosen.strength, note=note))
    test = load_features(context.rundir.path, "test")
    return context.table("test").select("id", "label").hstack(context.task.decode(chosen.linear(test["mean"]), NOTHING))


def _environment() -> list[Finding]:
    versions = [Finding(f"environment/{name}", f"Version of {name}", version(name), source="read") for name in PACKAGES]
    name = torch.cuda.get_device_name() if device() == "cuda" else "cpu"
    return [
        *versions,
        Finding("environment/python", "Version of Python", platform.python_version(), source="read"),
        Finding("environment/platform", "Operating system", platform.platform(), source="read"),
        Finding("environment/cpus", "Processor cores", psutil.cpu_count(logical=True) or 1, "cores", source="read"),
        Finding("environment/device", "Device", name, source="read"),
    ]
