"""Tables computed from stored files: confusions, calibration, mistakes, classes, curves. Plain values, nothing rendered."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from tunesmith.document.contents import Contents

BINS = 15  # as the calibration error has them
CURVE_POINTS = 120
SCATTER_POINTS, BANDS = 600, 5
RANGE_FILE = "data/range_test.json"


@dataclass(frozen=True)
class ClassRow:
    """A class with its test rows and F1 score (None when unknown); `prefix` is the stem of its finding ids."""

    label: str
    prefix: str
    n: int
    f1: float | None
    recall: float | None


@dataclass(frozen=True)
class Confusion:
    """Rows of one class that were given another (or the same); `share` is of the rows of the true class."""

    true: str
    predicted: str
    rows: int
    share: float


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence lies between `low` and `high`: how many, their mean confidence, how often right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Mistake:
    """A test row that the model got wrong; labels are lists for multi-label runs, else lists of one."""

    text: str
    text_pair: str
    true: list[str]
    predicted: list[str]
    confidence: float
    source: str


@dataclass(frozen=True)
class Band:
    """Test rows with true numbers from `low` to `high`: how many, their means, and their mean absolute error."""

    low: float
    high: float
    n: int
    true: float
    predicted: float
    error: float


@dataclass(frozen=True)
class Miss:
    """A test row whose number was missed."""

    text: str
    text_pair: str
    true: float
    predicted: float
    source: str


@dataclass(frozen=True)
class Evaluation:
    """The validation score taken after a step."""

    step: int
    epoch: int
    score: float
    is_best: bool


def class_rows(contents: Contents, root: str = "test") -> list[ClassRow]:
    """Classes from the lowest F1 to the highest; then those without a score. Their findings stand under `root`."""
    rows = []
    for label in contents.labels:
        prefix = f"{root}/class/{label}"
        scores = {key: _value(contents, f"{prefix}/{key}") for key in ("n", "f1", "recall")}
        n = scores["n"] if scores["n"] is not None else _value(contents, f"data/class/{label}/test")
        rows.append(ClassRow(label, prefix, int(n or 0), scores["f1"], scores["recall"]))
    return sorted(rows, key=lambda row: (row.n == 0 or row.f1 is None, row.f1 or 0.0, -row.n, row.label))


def confusions(predictions: pl.DataFrame) -> list[Confusion]:
    """Every pair of true and predicted class that occurs, the most frequent first. Nothing for multi-label rows."""
    if predictions.is_empty() or predictions.schema["label"] != pl.String or "finished" in predictions.columns:
        return []
    counts = predictions.group_by("label", "predicted").len()
    counts = counts.with_columns((pl.col("len") / pl.col("len").sum().over("label")).alias("share"))
    ordered = counts.sort(["len", "label", "predicted"], descending=[True, False, False])
    return [Confusion(*row) for row in ordered.select("label", "predicted", "len", "share").iter_rows()]


def calibration(contents: Contents) -> list[Bin]:
    """Equal bins of confidence; empty ones are left out. Multi-label: every decision about a label is a prediction."""
    rows = contents.test
    if rows.is_empty():
        return []
    if rows.schema["label"] == pl.String:
        confidence_N = rows["confidence"].to_numpy().astype(np.float64)
        right_N = (rows["label"] == rows["predicted"]).to_numpy()
    else:
        probabilities_NC = np.array(rows["probabilities"].to_list(), dtype=np.float64)
        true_NC = np.array([[label in labels for label in contents.labels] for labels in rows["label"].to_list()])
        confidence_N = np.maximum(probabilities_NC, 1 - probabilities_NC).ravel()
        right_N = ((probabilities_NC >= 0.5) == true_NC).ravel()
    bins_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = bins_N == number
        if inside.any():
            means = float(confidence_N[inside].mean()), float(right_N[inside].mean())
            bins.append(Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), *means))
    return bins


def mistakes(contents: Contents) -> list[Mistake]:
    """The most confident mistakes on the test split, as many as the spec asks for, with their texts."""
    rows, texts = contents.test, contents.test_texts
    if rows.is_empty():
        return []
    lists = rows.schema["label"] != pl.String
    same = (
        [sorted(a) == sorted(b) for a, b in rows.select("label", "predicted").iter_rows()] if lists else rows["label"] == rows["predicted"]
    )
    wrong = rows.filter(~pl.Series(same, dtype=pl.Boolean)).sort(["confidence", "id"], descending=[True, False])
    wrong = wrong.head(int(contents.setting("evaluate.mistakes", 20)))
    by_id = {row["id"]: row for row in texts.filter(pl.col("id").is_in(wrong["id"].implode())).iter_rows(named=True)} if len(texts) else {}
    return [_mistake(row, by_id.get(row["id"], {}), lists) for row in wrong.iter_rows(named=True)]


def scatter(predictions: pl.DataFrame) -> list[tuple[float, float]]:
    """(true, predicted) of the test rows; of every k-th row in the order of the true numbers where there are many."""
    if predictions.is_empty():
        return []
    ordered = predictions.sort("label", "id").gather_every(-(-len(predictions) // SCATTER_POINTS))
    return list(ordered.select("label", "predicted").iter_rows())


def bands(predictions: pl.DataFrame) -> list[Band]:
    """The test rows in fifths by their true number, equal numbers together; what the model said of each."""
    if predictions.is_empty():
        return []
    label = pl.col("label")
    part = ((label.rank("min") - 1) * BANDS / pl.len()).floor()
    told = predictions.group_by(part.alias("band")).agg(
        label.min().alias("low"), label.max().alias("high"), pl.len(), label.mean().alias("true"),
        pl.col("predicted").mean().alias("said"), (pl.col("predicted") - label).abs().mean().alias("error"),
    )  # fmt: skip
    return [Band(*row) for row in told.sort("band").drop("band").iter_rows()]


def largest_errors(contents: Contents) -> list[Miss]:
    """The test rows whose number was missed by most, as many as the spec asks for, with their texts."""
    if contents.test.is_empty():
        return []
    off = (pl.col("predicted") - pl.col("label")).abs()
    worst = contents.test.sort(off, "id", descending=[True, False]).head(int(contents.setting("evaluate.mistakes", 20)))
    texts = contents.test_texts
    by_id = {row["id"]: row for row in texts.filter(pl.col("id").is_in(worst["id"].implode())).iter_rows(named=True)} if len(texts) else {}
    rows = [(row, by_id.get(row["id"], {})) for row in worst.iter_rows(named=True)]
    return [Miss(t.get("text", ""), t.get("text_pair") or "", row["label"], row["predicted"], t.get("source", "")) for row, t in rows]


def loss_curve(contents: Contents) -> list[tuple[float, float]]:
    """(step, loss) of training; long curves are means over runs of steps, weighted by their targets."""
    steps = [entry for entry in contents.history if entry.get("loss") is not None]
    width = -(-len(steps) // CURVE_POINTS) or 1
    points = []
    for start in range(0, len(steps), width):
        chunk = steps[start : start + width]
        weights = [float(entry.get("targets") or 1) for entry in chunk]
        loss = sum(w * entry["loss"] for w, entry in zip(weights, chunk, strict=True)) / sum(weights)
        points.append((float(chunk[-1]["step"]), float(loss)))
    return points


def range_curve(contents: Contents) -> list[tuple[float, float]]:
    """(learning rate, smoothed loss) of a range test; empty when there was none."""
    path = contents.path / RANGE_FILE
    tested = json.loads(path.read_text("utf-8")) if path.exists() else {"rates": [], "losses": []}
    return list(zip(tested["rates"], tested["losses"], strict=True))


def evaluations(contents: Contents) -> list[Evaluation]:
    """Validation scores in order of steps. `is_best` marks the one whose weights were kept: the last improvement."""
    scored = [entry for entry in contents.history if entry.get("score") is not None]
    best = max((entry["step"] for entry in scored if entry.get("is_best")), default=None)
    return [Evaluation(entry["step"], entry["epoch"], float(entry["score"]), entry["step"] == best) for entry in scored]


def dropped_examples(dropped: pl.DataFrame, each: int) -> dict[str, list[dict[str, Any]]]:
    """The first dropped rows of every reason, in the order of the file."""
    if dropped.is_empty():
        return {}
    first = dropped.group_by("reason", maintain_order=True).head(each).sort("reason", maintain_order=True)
    rows = first.iter_rows(named=True)
    return {reason: list(group) for reason, group in groupby(rows, key=lambda row: str(row["reason"]))}


def dropped_counts(dropped: pl.DataFrame) -> dict[str, int]:
    """Dropped rows by reason, the most frequent first."""
    counts = Counter(dropped["reason"].to_list()) if len(dropped) else Counter()
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _mistake(row: dict[str, Any], text: dict[str, Any], lists: bool) -> Mistake:
    true, predicted = (list(row[key]) if lists else [row[key]] for key in ("label", "predicted"))
    shown = text.get("text", "")
    return Mistake(shown, text.get("text_pair") or "", true, predicted, float(row["confidence"]), text.get("source", ""))


def _value(contents: Contents, name: str) -> float | None:
    finding = contents.findings.get(name)
    return float(finding.value) if finding is not None and isinstance(finding.value, (int, float)) else None
