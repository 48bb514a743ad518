"""inspect: labels that are probably wrong, classes that overlap, rows unlike all others, and what more rows would bring.

Everything comes from regressions on frozen features. What is done with suspect labels is the spec's choice (`data.suspects`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.core.records import Artefact, Finding, Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.data.label_numbers import suspect_numbers
from tunesmith.data.labels import (
    Suspects,
    class_overlap,
    conflicting_neighbours,
    noise_of,
    out_of_fold,
    out_of_fold_loss,
    suspects_multi_label,
    suspects_single,
    trust,
)
from tunesmith.data.learning_curve import curve_sizes, fit_power_law, learning_curve, untrusted, wilson_interval
from tunesmith.data.near import whole_text
from tunesmith.data.outliers import NEIGHBOURS, Neighbours, nearest, outliers, training_outliers
from tunesmith.data.profile import label_counts
from tunesmith.data.review import label_studio_config, review_items, write_review_csv, write_review_tasks
from tunesmith.evaluate.baselines import RIDGE_STRENGTHS
from tunesmith.evaluate.metrics import metrics_for
from tunesmith.models.linear import Penalty, fit_logistic, fit_ridge
from tunesmith.spec.kinds import OF_CLASSES
from tunesmith.stages.context import SPLITS, Context
from tunesmith.stages.embed import BASELINE_ROWS, load_features, sample_rows
from tunesmith.stages.folding import training_folds

FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0)
TOLERANCE = 1e-2
CURVE_ROWS = 10_000
CURVE_DRAWS = 3
EXAMPLES = 20
EXAMPLE_CHARACTERS = 300


@dataclass(frozen=True)
class Regressed:
    """Training rows with features: their rows in the table, targets, and the strength of the regression that judges them."""

    rows: list[int]
    features_NE: Tensor
    targets: np.ndarray
    strength: float


@dataclass(frozen=True)
class Judged(Regressed):
    """The same of classes, and what a regression without each row says."""

    probabilities_NC: np.ndarray
    judged_N: np.ndarray
    suspects: Suspects


def inspect(context: Context, stage: StageWriter) -> None:
    """Write data/suspects.parquet, data/quality.json and review/, and the labels/* and outliers/* findings."""
    if context.given.data.suspects is None:
        context.watch(Progress("inspect", 1, 1, note="nothing to do: data.suspects is null"))
        return
    if context.given.kind == "number":
        _inspect_numbers(context, stage)
        return
    if context.given.kind not in OF_CLASSES:
        note = f"the labels of {context.given.task} are not judged yet: only classes are"
        stage.find(Finding("labels/judged", "Training rows whose label was judged, out of fold", 0, "rows", note=note))
        context.watch(Progress("inspect", 1, 1, note=note))
        return
    judged = _judge(context)
    if judged is None:
        note = "all training rows are one group: there are no two folds to judge with"
        stage.find(Finding("labels/judged", "Training rows whose label was judged, out of fold", 0, "rows", note=note))
        context.watch(Progress("inspect", 1, 1, note=note))
        return
    table = _suspects_table(context, judged)
    stage.write("data/suspects.parquet", table.write_parquet)
    _write_review(context, stage, judged)
    content = _content(context, judged, table)
    artefact = stage.write_text("data/quality.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    stage.find(*_findings(content, artefact))
    context.watch(Progress("inspect", 1, 1, note=f"{content['suspects']['rows']} labels are probably wrong"))


def _inspect_numbers(context: Context, stage: StageWriter) -> None:
    """The same of numbers: suspects by the size of an error, outliers, learning curve. No review: nothing takes decisions back in yet."""
    rows, features_NE = _features(context)
    table = context.table("train")[rows]
    targets, folds_N = context.task.targets(table), training_folds(context, table, FOLDS)
    if len(np.unique(folds_N)) < 2:
        note = "all training rows are one group: there are no two folds to judge with"
        stage.find(Finding("labels/judged", "Training rows whose label was judged, out of fold", 0, "rows", note=note))
        return
    said = {strength: _said(features_NE, targets, folds_N, strength) for strength in RIDGE_STRENGTHS}
    strength = min(said, key=lambda c: float(((said[c] - targets) ** 2).mean()))
    found = suspect_numbers(targets.astype(np.float64), said[strength])
    columns = {
        "row": [rows[s.row] for s in found], "id": [table["id"][s.row] for s in found], "given": [float(targets[s.row]) for s in found],
        "suggested": [s.suggested for s in found], "quality": [s.chance for s in found],
    }  # fmt: skip
    kinds = {"row": pl.Int64, "id": pl.String, "given": pl.Float64, "suggested": pl.Float64, "quality": pl.Float64}
    suspects = pl.DataFrame(columns, schema=kinds)
    stage.write("data/suspects.parquet", suspects.write_parquet)
    content = _number_content(context, suspects, Regressed(rows, features_NE, targets, strength))
    artefact = stage.write_text("data/quality.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    stage.find(*_findings(content, artefact))
    context.watch(Progress("inspect", 1, 1, note=f"{len(suspects)} numbers are probably wrong"))


def _said(features_NE: Tensor, targets: np.ndarray, folds_N: np.ndarray, strength: float) -> np.ndarray:
    """What a ridge regression says of each row without having seen its fold."""
    said_N = np.zeros(len(targets))
    for fold in np.unique(folds_N):
        inside = folds_N == fold
        linear = fit_ridge(features_NE[~inside], targets[~inside], Penalty(strength))
        said_N[inside] = linear(features_NE[inside]).squeeze(1).numpy()
    return said_N


def _number_content(context: Context, suspects: pl.DataFrame, judged: Regressed) -> dict[str, Any]:
    """Content of quality.json for numbers, in the form of that for classes."""
    train, count = context.table("train"), len(judged.rows)
    texts = train.select("id", text=whole_text(train).str.slice(0, EXAMPLE_CHARACTERS))
    return {
        "rows": len(train),
        "judged": count,
        "folds": FOLDS,
        "strength": judged.strength,
        "agreement": None,
        "suspects": {
            "rows": len(suspects), "labels": count, "share": len(suspects) / count, "interval": list(wilson_interval(len(suspects), count)),
            "note": "missed by more than the largest of as many normal errors of this spread",
        },
        "action": "report",
        "changed_rows": 0,
        "examples": suspects.head(EXAMPLES).join(texts, on="id", maintain_order="left").drop("row").to_dicts(),
        "overlap": [],
        "conflicting_neighbours": None,
        "outliers": _outliers(context, judged, nearest(judged.features_NE.numpy(), None, NEIGHBOURS)),
        "curve": _curve(context, judged),
        "untrusted": [],
    }  # fmt: skip


def _features(context: Context) -> tuple[list[int], Tensor]:
    """Rows of the train split that are judged, and their features."""
    loaded = load_features(context.rundir.path, "train")
    wanted = set(sample_rows(context, BASELINE_ROWS))
    places = [place for place, row in enumerate(loaded["row"].tolist()) if row in wanted]
    return loaded["row"][places].tolist(), context.task.probed(loaded["mean"][places])


def suspects(context: Context) -> pl.DataFrame | None:
    """The rows of data/suspects.parquet for the training rows of a context; None where no two folds can judge them."""
    judged = _judge(context)
    return None if judged is None else _suspects_table(context, judged)


def _judge(context: Context) -> Judged | None:
    """Out-of-fold answers on the training rows, the strength chosen by their log loss, and the suspects; None without two folds."""
    rows, features_NE = _features(context)
    table = context.table("train")[rows]
    targets = context.task.targets(table)
    folds_N = training_folds(context, table, FOLDS)
    if len(np.unique(folds_N)) < 2:
        return None
    found = []
    for number, strength in enumerate(STRENGTHS):
        context.watch(Progress("inspect", number, len(STRENGTHS), note=f"{FOLDS} folds, regression with strength {strength:g}"))
        out = out_of_fold(features_NE, targets, folds_N, partial(_fitted, context, strength))
        found.append((out_of_fold_loss(out, targets), strength, out))
    _, strength, out = min(found, key=lambda entry: entry[0])
    if targets.ndim == 1:
        context.watch(Progress("inspect", len(STRENGTHS), len(STRENGTHS), note="judged again, doubtful labels counting less"))
        out = out_of_fold(features_NE, targets, folds_N, partial(_fitted, context, strength), trust(out, targets))
        suspects = suspects_single(targets, out.probabilities_NC, out.judged_N)
    else:
        suspects = _judged_alone(suspects_multi_label(targets.astype(np.int64), out.probabilities_NC), folds_N, set(out.missing))
    decided = set(_decided(context))
    ids = table["id"]
    suspects = replace(suspects, suspects=tuple(s for s in suspects.suspects if ids[s.row] not in decided))
    return Judged(rows, features_NE, targets, strength, out.probabilities_NC, out.judged_N, suspects)


def _judged_alone(found: Suspects, folds_N: np.ndarray, missing: set[tuple[int, int]]) -> Suspects:
    """Without suspects of labels that no row outside their fold carries: nothing could be learned about those."""
    kept = tuple(s for s in found.suspects if (int(folds_N[s.row]), s.part) not in missing)
    unjudged = sum(int((folds_N == fold).sum()) for fold, _ in missing)
    noise = noise_of(len(kept), max(found.noise.n - unjudged, len(kept)), found.noise.inferred, found.noise.joint_CC)
    return replace(found, suspects=kept, noise=noise, not_judged=found.not_judged + unjudged)


def _decided(context: Context) -> list[str]:
    """Ids of rows whose label a reviewer has confirmed or given: they are not suspected again."""
    profile = json.loads((context.rundir.path / "data/profile.json").read_text("utf-8"))
    return list(profile["decisions"]["stay"]) if profile["decisions"] else []


def _fitted(context: Context, strength: float, features_NE: Tensor, targets: np.ndarray, weights_N: np.ndarray | None) -> Any:
    linear = fit_logistic(features_NE, targets, len(context.labels), Penalty(strength, tolerance=TOLERANCE), weights_N)

    def predict(rows_NE: Tensor) -> np.ndarray:
        logits_NC = linear(rows_NE).double()
        return (torch.sigmoid(logits_NC) if targets.ndim == 2 else torch.softmax(logits_NC, -1)).numpy()

    return predict


def _suspects_table(context: Context, judged: Judged) -> pl.DataFrame:
    """One row for each suspect row: its number in the train split, id, labels given and suggested, quality, reason."""
    items = review_items(judged.suspects, context.table("train")[judged.rows], context.labels)
    several = context.given.data.multi_label
    kind: Any = pl.List(pl.String) if several else pl.String

    def as_label(names: tuple[str, ...]) -> Any:
        return sorted(names) if several else names[0]

    return pl.DataFrame(
        {
            "row": pl.Series([judged.rows[row] for row in judged.suspects.rows], dtype=pl.Int64),
            "id": pl.Series([item.id for item in items], dtype=pl.String),
            "given": pl.Series([as_label(item.given) for item in items], dtype=kind),
            "suggested": pl.Series([as_label(item.suggested) for item in items], dtype=kind),
            "probability": pl.Series([item.probability for item in items], dtype=pl.Float64),
            "quality": pl.Series([item.quality for item in items], dtype=pl.Float64),
            "reason": pl.Series([item.reason for item in items], dtype=pl.String),
        }
    )


def _write_review(context: Context, stage: StageWriter, judged: Judged) -> None:
    items = review_items(judged.suspects, context.table("train")[judged.rows], context.labels)
    stage.write("review/suspects.csv", lambda path: write_review_csv(path, items))
    stage.write("review/label_studio_tasks.json", lambda path: write_review_tasks(path, items, f"tunesmith {version('tunesmith')}"))
    stage.write_text("review/label_studio_config.xml", label_studio_config(context.labels, several=context.given.data.multi_label))


def _content(context: Context, judged: Judged, table: pl.DataFrame) -> dict[str, Any]:
    """Content of quality.json, JSON-ready."""
    rule, suspects = context.given.data.suspects, judged.suspects
    single = judged.targets.ndim == 1
    train = context.table("train")
    texts = train.select("id", text=whole_text(train).str.slice(0, EXAMPLE_CHARACTERS))
    own = nearest(judged.features_NE.numpy(), None, NEIGHBOURS)
    conflicts = conflicting_neighbours(own, judged.targets) if single else ()
    overlap = class_overlap(judged.probabilities_NC[judged.judged_N], judged.targets[judged.judged_N]) if single else ()
    return {
        "rows": len(train),
        "judged": len(judged.rows) - suspects.not_judged if single else len(judged.rows),
        "folds": FOLDS,
        "strength": judged.strength,
        "agreement": suspects.agreement,
        "suspects": {
            "rows": len(table),
            "labels": suspects.noise.n,
            "share": suspects.noise.share,
            "interval": list(suspects.noise.interval),
            "note": suspects.note,
        },
        "action": rule.kind if rule else "report",
        "changed_rows": 0 if rule is None or rule.kind == "report" else len(table),
        "examples": table.head(EXAMPLES).join(texts, on="id", maintain_order="left").drop("row").to_dicts(),
        "overlap": [{"first": context.labels[o.first], "second": context.labels[o.second], "share": o.share} for o in overlap[:EXAMPLES]],
        "conflicting_neighbours": len(conflicts) if single else None,
        "outliers": _outliers(context, judged, own),
        "curve": _curve(context, judged),
        "untrusted": [asdict(entry) for entry in untrusted(_test_counts(context))],
    }


def _test_counts(context: Context) -> dict[str, int]:
    counted = label_counts(context.table("test")["label"])
    return {label: counted.get(label, 0) for label in context.labels}


def _outliers(context: Context, judged: Regressed, own: Neighbours) -> dict[str, Any]:
    """Rows of each split far from the training rows, with the furthest as examples."""
    out = {}
    for split in SPLITS:
        table = context.table(split)
        if split == "train":
            rows, found = judged.rows, training_outliers(own)
        else:
            loaded = load_features(context.rundir.path, split)
            rows, found = loaded["row"].tolist(), outliers(context.task.probed(loaded["mean"]).numpy(), judged.features_NE.numpy(), own)
        texts = whole_text(table)
        furthest = [{"text": texts[rows[n]][:EXAMPLE_CHARACTERS], "distance": float(found.scores_Q[n])} for n in found.rows[:5].tolist()]
        out[split] = {
            "rows": len(found.rows),
            "compared": len(found.scores_Q),
            "share": found.share,
            "interval": list(found.interval),
            "threshold": found.threshold if np.isfinite(found.threshold) else None,
            "furthest": furthest,
        }
    return out


def _curve(context: Context, judged: Regressed) -> dict[str, Any] | None:
    """The validation score of a regression on growing parts of the training rows, and what a power law makes of it."""
    held_out = context.task.probed(load_features(context.rundir.path, "validation")["mean"])
    names = context.table("train")[judged.rows]["id"]
    first = names.arg_sort()[:CURVE_ROWS].to_numpy()  # by content hash: a random part, whatever the order of the file
    rows, ids = len(first), names.gather(first).to_list()

    def score(numbers: np.ndarray) -> float:
        chosen = first[numbers]
        targets = judged.targets[chosen]
        if len(np.unique(targets)) < 2:
            return float("nan")
        features_NE, penalty = judged.features_NE[chosen.tolist()], Penalty(judged.strength, tolerance=TOLERANCE)
        if context.given.kind == "number":
            return context.score(fit_ridge(features_NE, targets, penalty)(held_out))
        return context.score(fit_logistic(features_NE, targets, len(context.labels), penalty)(held_out))

    context.watch(Progress("inspect", len(STRENGTHS), len(STRENGTHS), note="learning curve on frozen features"))
    curve = learning_curve(ids, score, curve_sizes(rows), CURVE_DRAWS, context.given.seed)
    metric = metrics_for(context.given.kind)[str(context.spec.evaluate.metric)]
    bounds = (metric.lower, np.inf if metric.upper is None else metric.upper)
    law = fit_power_law(curve, bounds, context.given.seed, context.higher_is_better)
    forecasts = [] if law is None else [{"rows": f.rows, "score": f.score, "interval": list(f.interval)} for f in law.forecasts[1:]]
    sizes = sorted({p.rows for p in curve.points})
    means = [[size, float(np.mean([p.score for p in curve.points if p.rows == size]))] for size in sizes]
    return {"metric": str(context.spec.evaluate.metric), "points": means, "forecasts": forecasts, "validation_rows": len(held_out)}


def _findings(content: dict[str, Any], artefact: Artefact) -> list[Finding]:
    def at(pointer: str) -> Artefact:
        return Artefact(artefact.path, artefact.sha256, pointer)

    suspects, judged, rows = content["suspects"], content["judged"], content["rows"]
    low, high = suspects["interval"]
    told: list[tuple[str, str, str, int | None]] = [
        ("labels/judged", "Training rows whose label was judged, out of fold", "/judged", rows),
        ("labels/suspects", "Training rows whose label is probably wrong", "/suspects/rows", judged),
        ("labels/changed", f"Training rows treated as the spec says ({content['action']})", "/changed_rows", rows),
    ]
    if content["conflicting_neighbours"] is not None:
        claim = "Training rows most of whose nearest rows have one other label"
        told.append(("labels/conflicting_neighbours", claim, "/conflicting_neighbours", judged))
    out = [Finding(name, claim, _value(content, pointer), "rows", n, artefact=at(pointer)) for name, claim, pointer, n in told]
    claim = "Share of judged labels that are probably wrong"
    where, note = at("/suspects/share"), suspects["note"]
    out.append(
        Finding("labels/suspect_share", claim, suspects["share"], n=suspects["labels"], interval=(low, high), artefact=where, note=note)
    )
    claim = "Inverse regularisation of the judging regressions, by their log loss"
    out.append(Finding("labels/strength", claim, content["strength"], artefact=at("/strength")))
    if content["agreement"] is not None:
        n = suspects["labels"]
        interval = wilson_interval(round(content["agreement"] * n), n)
        claim = "Share of training labels that a regression on frozen features agrees with, out of fold"
        out.append(Finding("labels/agreement", claim, content["agreement"], n=n, interval=interval, artefact=at("/agreement")))
    for split, entry in content["outliers"].items():
        claim = f"Rows of the {split} split unlike the training rows, by their nearest ones"
        out.append(Finding(f"outliers/{split}", claim, entry["rows"], "rows", entry["compared"], artefact=at(f"/outliers/{split}/rows")))
    for number, forecast in enumerate((content["curve"] or {}).get("forecasts", [])):
        claim = f"Validation {content['curve']['metric']} of a regression on frozen features, extrapolated to more rows"
        low, high = forecast["interval"]
        where = at(f"/curve/forecasts/{number}/score")
        out.append(Finding(f"curve/forecast/{number}", claim, forecast["score"], n=forecast["rows"], interval=(low, high), artefact=where))
    return out


def _value(content: dict[str, Any], pointer: str) -> Any:
    value: Any = content
    for key in pointer.split("/")[1:]:
        value = value[key]
    return value
