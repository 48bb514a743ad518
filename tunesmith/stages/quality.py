"""What inspect tells of a run's labels: data/suspects.parquet, data/quality.json and the findings about them, for every kind of labels.

Shape suffixes: N = judged rows, E = width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from tunesmith.core.records import Artefact, Finding, Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.data.learning_curve import curve_sizes, fit_power_law, learning_curve, wilson_interval
from tunesmith.data.near import whole_text
from tunesmith.data.outliers import NEIGHBOURS, Neighbours, nearest, outliers, training_outliers
from tunesmith.evaluate.metrics import metrics_for
from tunesmith.models.linear import Penalty, fit_logistic, fit_ridge
from tunesmith.stages.context import SPLITS, Context
from tunesmith.stages.embed import BASELINE_ROWS, load_features, sample_rows

FOLDS = 5
TOLERANCE = 1e-2
CURVE_ROWS = 10_000
CURVE_DRAWS = 3
EXAMPLES = 20
EXAMPLE_CHARACTERS = 300
ONE_GROUP = "all training rows are one group: there are no two folds to judge with"


@dataclass(frozen=True)
class Regressed:
    """Training rows with features: their rows in the table, targets, and the strength of the regression that judges them."""

    rows: list[int]
    features_NE: Tensor
    targets: np.ndarray
    strength: float


@dataclass(frozen=True)
class Verdict:
    """Labels that are probably wrong where labels are no classes.

    `table` has a row for each, the worst first: row, id, given, suggested, quality, reason, and what else the kind of labels needs.
    `shown` are the first of them as the documents show them. `rule` says in words what makes a label suspect; `folds` and `strength`
    are those of the regressions that judged, None where none did.
    """

    table: pl.DataFrame
    shown: list[dict[str, Any]]
    judged: int
    rule: str
    folds: int | None = None
    strength: float | None = None


def nothing_judged(context: Context, stage: StageWriter, note: str) -> None:
    """Say why no label was judged."""
    stage.find(Finding("labels/judged", "Training rows whose label was judged", 0, "rows", note=note))
    context.watch(Progress("inspect", 1, 1, note=note))


def tell(context: Context, stage: StageWriter, table: pl.DataFrame, content: dict[str, Any]) -> None:
    """Write the suspects and the content of quality.json, with its findings."""
    stage.write("data/suspects.parquet", table.write_parquet)
    artefact = stage.write_text("data/quality.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    stage.find(*_findings(content, artefact))
    context.watch(Progress("inspect", 1, 1, note=f"{content['suspects']['rows']} labels are probably wrong"))


def content_of(context: Context, verdict: Verdict, **more: Any) -> dict[str, Any]:
    """Content of quality.json for labels that are no classes, in the form of that for classes; nothing is done about suspects.

    Args:
        context: of the run.
        verdict: what was found.
        **more: entries besides: outliers, curve.
    """
    rows = verdict.table["row"].n_unique()
    return {
        "rows": len(context.table("train")),
        "judged": verdict.judged,
        "folds": verdict.folds,
        "strength": verdict.strength,
        "agreement": None,
        "suspects": {
            "rows": rows, "labels": verdict.judged, "share": rows / max(verdict.judged, 1),
            "interval": list(wilson_interval(rows, verdict.judged)), "note": verdict.rule,
        },
        "action": "report",
        "changed_rows": 0,
        "examples": verdict.shown,
        "overlap": [],
        "conflicting_neighbours": None,
        "outliers": {},
        "curve": None,
        "untrusted": [],
        **more,
    }  # fmt: skip


def with_texts(context: Context, table: pl.DataFrame) -> list[dict[str, Any]]:
    """The first rows of a table of suspects, each with the beginning of its text."""
    train = context.table("train")
    texts = train.select("id", text=whole_text(train).str.slice(0, EXAMPLE_CHARACTERS))
    return table.head(EXAMPLES).join(texts, on="id", maintain_order="left").drop("row").to_dicts()


def judged_features(context: Context) -> tuple[list[int], Tensor]:
    """Rows of the train split that are judged, and their features."""
    loaded = load_features(context.rundir.path, "train")
    wanted = set(sample_rows(context, BASELINE_ROWS))
    places = [place for place, row in enumerate(loaded["row"].tolist()) if row in wanted]
    return loaded["row"][places].tolist(), context.task.probed(loaded["mean"][places])


def own_neighbours(features_NE: Tensor) -> Neighbours:
    """The nearest judged rows of each judged row."""
    return nearest(features_NE.numpy(), None, NEIGHBOURS)


def unlike_training(context: Context, rows: list[int], features_NE: Tensor, own: Neighbours) -> dict[str, Any]:
    """Rows of each split far from the training rows, with the furthest as examples."""
    out = {}
    for split in SPLITS:
        table = context.table(split)
        if split == "train":
            numbers, found = rows, training_outliers(own)
        else:
            loaded = load_features(context.rundir.path, split)
            numbers, found = loaded["row"].tolist(), outliers(context.task.probed(loaded["mean"]).numpy(), features_NE.numpy(), own)
        texts = whole_text(table)
        furthest = [{"text": texts[numbers[n]][:EXAMPLE_CHARACTERS], "distance": float(found.scores_Q[n])} for n in found.rows[:5].tolist()]
        out[split] = {
            "rows": len(found.rows),
            "compared": len(found.scores_Q),
            "share": found.share,
            "interval": list(found.interval),
            "threshold": found.threshold if np.isfinite(found.threshold) else None,
            "furthest": furthest,
        }
    return out


def curve_of(context: Context, judged: Regressed) -> dict[str, Any] | None:
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

    context.watch(Progress("inspect", 1, 1, note="learning curve on frozen features"))
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
    how = "out of fold" if content["folds"] else "by the untrained network"
    told: list[tuple[str, str, str, int | None]] = [
        ("labels/judged", f"Training rows whose label was judged, {how}", "/judged", rows),
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
    if content["strength"] is not None:
        claim = "Inverse regularisation of the judging regressions"
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
