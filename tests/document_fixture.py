"""Synthetic finished runs for the tests of documents: four or 77 classes, several labels, and words that mean harm."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.certified import certify
from tunesmith.core.records import Artefact, Finding
from tunesmith.core.rundir import RunDir, StageWriter
from tunesmith.spec.defaults import Facts, resolve
from tunesmith.spec.load import load_spec

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=https://evil.example/x onerror=alert(2)>",
    "{{7*7}}{% for x in y %}",
    "a | b\nc `d` _e_ **f** [g](https://evil.example) www.evil.example",
    "שלום עולם 3 \u202eevil\u202c",
    "🎉 fête \"quoted\" 'single' & ampersand",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2,
    "\ue0000\ue00299\ue001 private",
    "```\n---\nkey: value # 12",
    "100",
)
SHARED = ("macro_precision", "macro_recall", "macro_f1", "weighted_f1", "micro_f1", "roc_auc", "log_loss", "ece", "brier")
METRICS = ("accuracy", "balanced_accuracy", "mcc", *SHARED)
MANY = ("subset_accuracy", "hamming_loss", *SHARED)
REASONS = {
    "empty_text": "The text is empty, or nothing but whitespace and control characters.",
    "conflicting_labels": "The same text appears with different labels.",
    "duplicate": "The same text with the same label appears before, in the same table.",
    "unknown_label": "No training row has this label, so the model cannot learn it.",
}


@dataclass(frozen=True)
class Shape:
    """What kind of run to make."""

    labels: tuple[str, ...]
    rows: int = 200
    multi_label: bool = False
    pair: bool = False
    hostile: bool = False
    history: bool = True
    spec: tuple[tuple[str, Any], ...] = ()
    untested: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Prefixes of findings that the run does not have."""


FOUR = Shape(("billing", "delivery", "other", "returns"))
VERBS = ("cancel", "change", "find", "lost", "open", "pay", "why")
NOUNS = ("account", "card", "cash_withdrawal", "exchange_rate", "fee", "limit", "password", "pin", "refund", "top_up", "transfer")
SEVENTY_SEVEN = Shape(tuple(f"{verb}_{noun}" for verb in VERBS for noun in NOUNS), rows=1540)
SEVERAL = Shape(("angry", "late", "lost", "money", "praise"), multi_label=True)
HARM = Shape(tuple(sorted(HOSTILE)), hostile=True, pair=True)


def make_run(path: Path, shape: Shape = FOUR) -> RunDir:
    """A run directory as the stages before `document` leave it."""
    run, rng = RunDir(path), np.random.default_rng(7)
    path.mkdir(parents=True)
    run.update_manifest(spec="0" * 64, data={}, stages={})
    test, predictions = _test(shape, rng)
    for name, write in (
        ("prepare", lambda stage: _prepare(stage, shape, test)),
        ("resolve", lambda stage: _resolve(stage, shape)),
        ("certify", lambda stage: _certify(stage, test)),
        ("train", lambda stage: _train(stage, shape, rng)),
        ("evaluate", lambda stage: _evaluate(stage, shape, predictions)),
    ):
        with run.stage(name, "1" * 64, {"tunesmith": "0.1.0"}) as stage:
            write(stage)
            stage.findings = [f for f in stage.findings if not f.id.startswith(shape.without)] if shape.without else stage.findings
    seconds = {name: {**entry, "seconds": 12.345} for name, entry in run.manifest["stages"].items()}
    run.update_manifest(stages=seconds)
    return run


def _test(shape: Shape, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The test split, and predictions that are right about nine times in ten."""
    tested = [label for label in shape.labels if label not in shape.untested]
    texts = [_text(shape, number) for number in range(shape.rows)]
    ids = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    if shape.multi_label:
        truth_NC = rng.random((shape.rows, len(shape.labels))) < 0.3
        probabilities_NC = np.clip(truth_NC * 0.8 + 0.1 + rng.normal(0, 0.25, truth_NC.shape), 0.01, 0.99)
        true: list[Any] = [[label for label, on in zip(shape.labels, row, strict=True) if on] for row in truth_NC]
        predicted: list[Any] = [[label for label, p in zip(shape.labels, row, strict=True) if p >= 0.5] for row in probabilities_NC]
        confidence = np.maximum(probabilities_NC, 1 - probabilities_NC).mean(1)
        kind: Any = pl.List(pl.String)
    else:
        index = {label: number for number, label in enumerate(shape.labels)}
        true = [tested[number % len(tested)] for number in range(shape.rows)]
        logits_NC = rng.normal(0, 1, (shape.rows, len(shape.labels)))
        logits_NC[np.arange(shape.rows), [index[label] for label in true]] += 2.2 + 0.55 * np.log(len(shape.labels))
        probabilities_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(1, keepdims=True)
        predicted = [shape.labels[number] for number in probabilities_NC.argmax(1)]
        confidence = probabilities_NC.max(1)
        kind = pl.String
    rows = {"id": ids, "text": texts, "label": pl.Series(true, dtype=kind), "source": [f"tickets.csv:{n + 1}" for n in range(shape.rows)]}
    if shape.pair:
        rows["text_pair"] = [f"second text of row {number}" for number in range(shape.rows)]
    predictions = {
        "id": ids,
        "label": pl.Series(true, dtype=kind),
        "predicted": pl.Series(predicted, dtype=kind),
        "confidence": pl.Series(confidence.astype(np.float32)),
        "probabilities": pl.Series(probabilities_NC.astype(np.float32).tolist(), dtype=pl.List(pl.Float32)),
    }
    return pl.DataFrame(rows), pl.DataFrame(predictions)


def _text(shape: Shape, number: int) -> str:
    if shape.hostile:
        return f"{HOSTILE[number % len(HOSTILE)]} ({number})"
    words = ("I still have not received my parcel", "why was I charged twice for order", "please tell me how to return item", "my code is")
    return f"{words[number % len(words)]} {number}"


def _prepare(stage: StageWriter, shape: Shape, test: pl.DataFrame) -> None:
    for split in ("train", "validation", "test"):
        stage.write(f"data/{split}.parquet", test.write_parquet)
    source, label = ("tickets.csv:3", "tickets.csv:9", "tickets.csv:11"), shape.labels[0]
    texts = ["", HOSTILE[0] if shape.hostile else "where is it?", HOSTILE[2] if shape.hostile else "where is it?"]
    dropped = {"source": source, "text": texts, "label": [label] * 3, "reason": ["empty_text", "duplicate", "duplicate"],
               "detail": ["", "same as tickets.csv:2", "same as tickets.csv:2"]}  # fmt: skip
    stage.write("data/dropped.parquet", pl.DataFrame(dropped).write_parquet)
    stage.write_text("data/labels.json", json.dumps(shape.labels, ensure_ascii=False))
    counts = [max(40 - 3 * (number % 13), 4) for number in range(len(shape.labels))]
    tested = _support(test, shape.labels)
    classes = [{"label": name, "train": 8 * n, "validation": n, "test": tested[name]} for name, n in zip(shape.labels, counts, strict=True)]
    profile = _profile(shape, test, classes)
    artefact = stage.write_text("data/profile.json", json.dumps(profile, ensure_ascii=False))
    stage.find(*_counts(profile, artefact))


def _profile(shape: Shape, test: pl.DataFrame, classes: list[dict[str, Any]]) -> dict[str, Any]:
    path = HOSTILE[1] + ".csv" if shape.hostile else "data/tickets.csv"
    rows = {"train": sum(c["train"] for c in classes), "validation": sum(c["validation"] for c in classes), "test": len(test), "dropped": 3}
    file = {"path": path, "sha256": "ab12" * 16, "bytes": 123456, "format": "csv", "compression": "none", "encoding": "utf-8",
            "delimiter": ",", "rows": sum(rows.values())}  # fmt: skip
    quantiles = {"p1": 8, "p25": 31, "p50": 47, "p75": 71, "p99": 188, "max": 433}
    counts = {"empty_text": 1, "duplicate": 2}
    columns = test.select("text", "label", "source", *(["text_pair"] if shape.pair else [])).head(3)
    return {
        "files": {"train": [file]},
        "columns": {"text": ["text", "text_pair"] if shape.pair else ["text"], "label": "area", "multi_label": shape.multi_label,
                    "why": {"text": "its name, and the longest texts", "area": f"its name, and {len(classes)} values"}},
        "rows": {"read": sum(rows.values()), **rows},
        "dropped": {reason: {"rows": counts.get(reason, 0), "explanation": words} for reason, words in REASONS.items()},
        "duplicates_across_splits": 0,
        "normalised_texts": 17,
        "rare_classes": [],
        "class_count": len(classes),
        "classes": classes,
        "characters": dict.fromkeys(("train", "validation", "test"), quantiles),
        "examples": columns.to_dicts(),
        "warnings": [],
    }  # fmt: skip


def _counts(profile: dict[str, Any], artefact: Artefact) -> Iterable[Finding]:
    rows = profile["rows"]
    for name in rows:
        yield Finding(f"data/rows/{name}", f"rows: {name}", rows[name], "rows", artefact=replace(artefact, pointer=f"/rows/{name}"))
    for reason, entry in profile["dropped"].items():
        yield Finding(f"data/dropped/{reason}", "rows dropped", entry["rows"], "rows", rows["read"], artefact=artefact)
    yield Finding("data/classes", "classes that the model learns", profile["class_count"], "classes", artefact=artefact)
    yield Finding("data/duplicates_across_splits", "rows in two given splits", 0, "rows", artefact=artefact)
    for number, entry in enumerate(profile["classes"]):
        for split in ("train", "validation", "test"):
            at = replace(artefact, pointer=f"/classes/{number}/{split}")
            yield Finding(f"data/class/{entry['label']}/{split}", "rows of this class", entry[split], "rows", rows[split], artefact=at)


def _resolve(stage: StageWriter, shape: Shape) -> None:
    raw: dict[str, Any] = {"name": "tickets", "data": {"train": "data/tickets.csv", "multi_label": shape.multi_label}, **dict(shape.spec)}
    facts = Facts(4000, 47, 512, True, "micro_f1" if shape.multi_label else "accuracy", rows=5000, fewest_test_rows=3, validation_rows=500)
    artefact = stage.write_text("resolved.yaml", resolve(load_spec(raw), facts).as_yaml())
    stage.find(
        *(
            Finding(f"data/tokens/{key}", "tokens of a row", value, "tokens", 4000)
            for key, value in (("p50", 12), ("p99", 47), ("max", 131))
        )
    )
    for split, cut in (("train", 9), ("validation", 1), ("test", 0)):
        stage.find(Finding(f"data/truncated/{split}", "rows whose text was cut", cut, "rows", 4000, artefact=artefact))


def _certify(stage: StageWriter, test: pl.DataFrame) -> None:
    other = test.with_columns(pl.col("id").str.reverse(), ("other words, " + pl.col("text").str.reverse()).alias("text"))
    known = pl.concat([other, test.head(2).with_columns(pl.col("id").str.reverse())])
    certify(
        stage,
        {
            "train": known,
            "validation": other.with_columns(("v" + pl.col("id")).alias("id"), ("validation " + pl.col("text")).alias("text")),
            "test": test,
        },
    )


def _train(stage: StageWriter, shape: Shape, rng: np.random.Generator) -> None:
    stage.path("model/model.safetensors").write_bytes(b"weights")
    weights = stage.wrote("model/model.safetensors")
    stage.find(
        Finding("model/name", "Pretrained model", "sentence-transformers/all-MiniLM-L6-v2", source="declared"),
        Finding("model/parameters/total", "Parameters", 22713216, "parameters", artefact=weights),
        Finding("model/parameters/trainable", "Trained parameters", 22713216, "parameters"),
        Finding("model/size_bytes", "Size of the weights on disk", 90868376, "bytes", artefact=weights),
        Finding("model/weights_sha256", "Fingerprint of the weights", weights.sha256, artefact=weights),
        Finding("train/stopped_by", "Why training ended", "all epochs done" if shape.history else "the solver converged"),
        Finding("train/best_score", "Validation score of the kept weights", 0.9241, n=400, source="measured"),
    )
    if not shape.history:
        return
    steps, epochs = 500, 4
    lines = [_step(step, steps // epochs, steps, float(rng.normal(0, 0.1))) for step in range(1, steps + 1)]
    history = stage.write_text("history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    stage.find(
        Finding("train/seconds", "Training time", 61.2, "seconds", source="measured"),
        Finding("train/steps", "Optimiser steps", steps, "steps", artefact=history),
        Finding("train/epochs_run", "Passes over the training rows", 4.0, "epochs", artefact=history),
        Finding("train/best_epoch", "Epoch of the kept weights", 3.0, "epochs", artefact=history),
        Finding("train/precision", "Arithmetic of training", "bfloat16"),
        Finding("train/final_loss", "Training loss of the last step", lines[-1]["loss"], artefact=history, source="measured"),
        Finding(
            "train/peak_memory_bytes",
            "Peak memory of the process",
            None,
            "bytes",
            source="unknown",
            note="this system does not tell (code 7)",
        ),
    )


def _step(step: int, per_epoch: int, steps: int, noise: float) -> dict[str, Any]:
    ended = step % per_epoch == 0
    return {
        "step": step,
        "epoch": (step - 1) // per_epoch + 1,
        "loss": max(3.1 * math.exp(-step / 120) + 0.15 + noise * math.exp(-step / 300), 0.02),
        "learning_rate": 2e-4 * (1 - step / steps),
        "targets": 32,
        "tokens": 700,
        "grad_norm": 1.0,
        "score": (0.71, 0.88, 0.9241, 0.9189)[step // per_epoch - 1] if ended else None,
        "is_best": ended and step <= 3 * per_epoch,
        "epoch_ended": ended,
    }


def _evaluate(stage: StageWriter, shape: Shape, predictions: pl.DataFrame) -> None:
    names = MANY if shape.multi_label else METRICS
    for split in ("validation", "test"):
        artefact = stage.write(f"predictions/{split}.parquet", predictions.write_parquet)
        stage.find(*(_score(f"{split}/{name}", name, _share_right(predictions), len(predictions), artefact) for name in names))
    stage.find(Finding("test/rows", "rows of the test split", len(predictions), "rows"), *_per_class(shape.labels, predictions, artefact))
    right = _share_right(predictions)
    stage.find(*(_score(f"test/clean/{name}", name, right - 0.004, len(predictions) - 2, artefact) for name in names))
    for baseline, gap in (("majority", 0.61), ("features", 0.024)):
        other = stage.write(f"predictions/test.{baseline}.parquet", predictions.write_parquet)
        for name in names:
            stage.find(_score(f"test/baseline/{baseline}/{name}", name, right - gap, len(predictions), other))
            sign = -1 if name in ("log_loss", "ece", "brier", "hamming_loss") else 1
            low, high = sorted((sign * (gap - 0.015), sign * (gap + 0.031)))
            claim = "model minus baseline"
            stage.find(
                Finding(
                    f"test/baseline/{baseline}/{name}/difference",
                    claim,
                    sign * gap,
                    n=len(predictions),
                    interval=(low, high),
                    artefact=artefact,
                )
            )
        stage.find(Finding(f"test/baseline/{baseline}/mcnemar_p", "McNemar test", 0.00004, n=len(predictions), artefact=artefact))
    for name, version in (("python", "3.11.2"), ("torch", "2.13.0"), ("platform", "Linux-6.1-x86_64")):
        stage.find(Finding(f"environment/{name}", f"Version of {name}", version, source="read"))
    stage.find(Finding("environment/cpus", "Processor cores", 2, "cores", source="read"))


def _score(identity: str, metric: str, right: float, n: int, artefact: Artefact) -> Finding:
    value = {"log_loss": 0.4213, "ece": 0.0312, "brier": 0.1307, "hamming_loss": 1 - right}.get(metric, right)
    return Finding(
        identity,
        f"{metric} of the model",
        value,
        n=n,
        interval=(value - 0.02, min(value + 0.018, 1.0)),
        source="measured",
        artefact=artefact,
    )


def _per_class(labels: Sequence[str], predictions: pl.DataFrame, artefact: Artefact) -> Iterable[Finding]:
    support = _support(predictions, labels)
    for number, label in enumerate(labels):
        n, prefix = support[label], f"test/class/{label}"
        yield Finding(f"{prefix}/n", "test rows of the class", n, "rows", artefact=artefact)
        for key, value in (("precision", 0.97), ("recall", 0.93), ("f1", 0.95)):
            score = max(value - 0.06 * ((number * 7) % 11), 0.05)
            unknown = Finding(f"{prefix}/{key}", f"{key} of the class", None, n=0, source="unknown", note="no test row has this class")
            yield Finding(f"{prefix}/{key}", f"{key} of the class", score, n=n, artefact=artefact) if n else unknown


def _support(rows: pl.DataFrame, labels: Sequence[str]) -> dict[str, int]:
    column = rows["label"].to_list()
    return {label: sum(label in row if isinstance(row, list) else row == label for row in column) for label in labels}


def _share_right(predictions: pl.DataFrame) -> float:
    pairs = predictions.select("label", "predicted").iter_rows()
    return sum(true == predicted for true, predicted in pairs) / len(predictions)
