"""evaluate: the validation split, then the test split, once, with the saved model as anybody would load it."""

from __future__ import annotations

import math
import platform
import time
from importlib.metadata import version

import polars as pl
import psutil
import torch

from tunesmith.core.records import Finding
from tunesmith.core.rundir import StageWriter
from tunesmith.evaluate.evaluate import Judging, clean_findings, differences, findings_of
from tunesmith.evaluate.numbers import INTERVAL, conformal_half_width, numbers_from_table, with_intervals
from tunesmith.evaluate.predict import predict
from tunesmith.evaluate.replies import THRESHOLD, best_threshold, with_threshold
from tunesmith.evaluate.texts import signatures
from tunesmith.models.headed import load_shipped
from tunesmith.models.load import device
from tunesmith.stages.baselines import baseline_answers
from tunesmith.stages.certify import leaking_test_rows
from tunesmith.stages.context import Context
from tunesmith.tasks.make import can_be_empty
from tunesmith.tasks.text_ranking import TextRanking

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
    if isinstance(context.task, TextRanking):
        stage.find(_reachable(test))
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


def _reachable(test: pl.DataFrame) -> Finding:
    """How many relevant texts are among the candidates at all: no model of this task can rank the others."""
    ranks = test["ranks"].explode(empty_as_null=True)
    claim, share = "Share of the relevant texts of the test split that are among the candidates", float((ranks > 0).mean() or 0.0)  # type: ignore[arg-type]
    return Finding("ranking/reachable", claim, share, n=len(ranks))


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
