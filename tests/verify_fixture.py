"""A small finished run made by hand with the real run directory, and a model of a few numbers that really predicts."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import polars as pl

from tests.certified import certify
from tunesmith.core.records import Artefact, Finding
from tunesmith.core.rundir import RunDir, StageWriter, sha256_file, sha256_json
from tunesmith.data.clean import SPLITS, content_ids
from tunesmith.data.leaks import leaking
from tunesmith.evaluate.evaluate import Judging, clean_findings, differences, findings_of
from tunesmith.spec.defaults import Resolved, flatten
from tunesmith.spec.load import dump_spec, load_spec
from tunesmith.spec.schema import Spec

LABELS = ["billing", "delivery", "login"]
WORDS = {"billing": "invoice refund price", "delivery": "parcel courier address", "login": "password session username"}
WEIGHTS = "model/weights.npy"


def table(split: str, rows: int, multi_label: bool = False) -> pl.DataFrame:
    rng = np.random.default_rng(len(split))
    records = []
    for number in range(rows):
        label = LABELS[int(rng.integers(3))]
        told = label if rng.random() < 0.8 else LABELS[int(rng.integers(3))]
        text = f"{split} {number} {WORDS[told].split()[number % 3]}"
        records.append({"text": text, "label": sorted({label, told}) if multi_label else label, "source": f"t.csv:{number + 1}"})
    if split != "validation" and records:  # one test row that training knows
        records[0]["text"] = f"where is my parcel, the courier has lost the address, asks somebody in {split}"
    frame = pl.DataFrame(records)
    return frame.insert_column(0, content_ids(frame))


def spec(name: str, multi_label: bool = False) -> Spec:
    data = {"train": "t.csv", "multi_label": multi_label}
    evaluate = {"metric": "micro_f1" if multi_label else "accuracy", "resamples": 100, "baselines": ["majority"], "folds": None}
    return load_spec({"name": name, "seed": 3, "data": data, "evaluate": evaluate})


def weights() -> np.ndarray:
    """(words, classes): how much each word speaks for each class."""
    return np.array([[2.0 if word in WORDS[label] else 0.0 for label in LABELS] for words in WORDS.values() for word in words.split()])


def predict(run: RunDir, split: str) -> pl.DataFrame:
    """What the stored weights predict, as the real model would: in the columns of a predictions file."""
    rows = pl.read_parquet(run.path / f"data/{split}.parquet")
    multi_label = isinstance(rows.schema["label"], pl.List)
    words = [word for texts in WORDS.values() for word in texts.split()]
    counts = np.array([[text.count(word) for word in words] for text in rows["text"]], dtype=float)
    bias = np.array([[hashlib.sha256(f"{t}{c}".encode()).digest()[0] / 256 for c in LABELS] for t in rows["text"]])
    logits = counts @ np.load(run.path / WEIGHTS) + bias
    return answered(rows, 1 / (1 + np.exp(1.2 - logits)) if multi_label else np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


def answered(rows: pl.DataFrame, p: np.ndarray) -> pl.DataFrame:
    if isinstance(rows.schema["label"], pl.List):
        predicted = pl.Series([[LABELS[c] for c in np.flatnonzero(row >= 0.5)] for row in p], dtype=pl.List(pl.String))
        confidence = np.maximum(p, 1 - p).mean(1)
    else:
        predicted, confidence = pl.Series([LABELS[c] for c in p.argmax(1)]), p.max(1)
    probabilities = pl.Series(p.astype(np.float32).tolist(), dtype=pl.List(pl.Float32))
    known = rows.select("id", "label")
    return known.with_columns(predicted=predicted, confidence=pl.Series(confidence.astype(np.float32)), probabilities=probabilities)


def render(run: RunDir) -> dict[str, str]:
    lines = [f"{f.id}: {f.value}" for f in run.findings.values() if f.stage in ("prepare", "train", "evaluate")]
    return {"MODEL_CARD.md": "# Card\n" + "\n".join(lines) + "\n", "report.html": f"<p>{len(lines)} findings</p>\n"}


def make_run(path: Path, multi_label: bool = False, rows: int = 60) -> RunDir:
    run, asked = RunDir(path), spec(path.name, multi_label)
    path.mkdir(parents=True)
    (path / "spec.yaml").write_text(dump_spec(asked), "utf-8")
    run.update_manifest(spec=sha256_json(flatten(asked)), data={}, stages={})
    stages = {"prepare": _prepare, "resolve": _resolve, "certify": _certify, "train": _train, "evaluate": _evaluate, "document": _document}
    for name, stage in stages.items():
        with run.stage(name, f"inputs of {name}", {"tunesmith": "0.1.0"}) as writer:
            stage(writer, asked, rows)
    return run


def _prepare(stage: StageWriter, asked: Spec, rows: int) -> None:
    for split in ("train", "validation", "test"):
        split_rows = table(split, rows, asked.data.multi_label)
        artefact = stage.write(f"data/{split}.parquet", split_rows.write_parquet)
        stage.find(Finding(f"data/rows/{split}", f"Rows of the {split} split", len(split_rows), "rows", artefact=artefact))
    stage.write_text("data/labels.json", json.dumps(LABELS))


def _resolve(stage: StageWriter, asked: Spec, rows: int) -> None:
    stage.write_text("resolved.yaml", Resolved(asked, dict.fromkeys(flatten(asked), "given")).as_yaml())


def _certify(stage: StageWriter, asked: Spec, rows: int) -> None:
    certify(stage, {name: pl.read_parquet(stage.rundir.path / f"data/{name}.parquet") for name in SPLITS})


def _train(stage: StageWriter, asked: Spec, rows: int) -> None:
    artefact = stage.write(WEIGHTS, lambda path: path.write_bytes(npy(weights())))
    stage.find(Finding("model/parameters/total", "Parameters", int(weights().size), artefact=artefact))


def _evaluate(stage: StageWriter, asked: Spec, rows: int) -> None:
    test = pl.DataFrame()
    for split in ("validation", "test"):
        test = predict(stage.rundir, split)
        judging = _judge(stage, asked, test, split, split)
    stage.find(*clean_findings(test, leaking(pl.read_parquet(stage.rundir.path / "data/leaks.parquet"), "test"), judging))
    stage.find(Finding("test/rows_per_second", "Rows predicted in a second", 123.4, "rows/s", source="measured"))
    majority = answered(test, np.tile([0.5, 0.3, 0.2], (rows, 1)))
    judging = _judge(stage, asked, majority, "test.majority", "test/baseline/majority")
    stage.find(*differences(test, majority, judging))


def _judge(stage: StageWriter, asked: Spec, predictions: pl.DataFrame, file: str, prefix: str) -> Judging:
    artefact: Artefact = stage.write(f"predictions/{file}.parquet", predictions.write_parquet)
    judging = Judging(asked.kind, LABELS, asked.evaluate, asked.seed, prefix, artefact)
    stage.find(*findings_of(predictions, judging))
    return judging


def _document(stage: StageWriter, asked: Spec, rows: int) -> None:
    for name, text in render(stage.rundir).items():
        stage.write_text(name, text)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def forge(path: Path) -> None:
    """Hide an edit from level 0: every hash of the manifest is made again from the files as they are now."""
    run = RunDir(path)
    stages = run.manifest["stages"]
    for entry in stages.values():
        entry["outputs"] = {name: sha256_file(run.path / name) for name in entry["outputs"]}
        entry["output_hash"] = sha256_json(entry["outputs"])
    run.update_manifest(stages=stages)
