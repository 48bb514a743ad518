"""inspect: labels that are probably wrong, classes that overlap, rows unlike all others, and what more rows would bring.

Everything comes from regressions on frozen features. What is done with suspect labels is the spec's choice (`data.suspects`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.core.records import Progress
from tunesmith.core.rundir import StageWriter
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
from tunesmith.data.learning_curve import untrusted
from tunesmith.data.profile import label_counts
from tunesmith.data.review import label_studio_config, review_items, write_review_csv, write_review_tasks
from tunesmith.models.linear import Penalty, fit_logistic
from tunesmith.spec.kinds import Kind
from tunesmith.stages.context import Context
from tunesmith.stages.folding import training_folds
from tunesmith.stages.quality import (
    EXAMPLES,
    FOLDS,
    ONE_GROUP,
    TOLERANCE,
    Regressed,
    curve_of,
    judged_features,
    nothing_judged,
    own_neighbours,
    tell,
    unlike_training,
    with_texts,
)
from tunesmith.stages.wrong_answers import inspect_answers
from tunesmith.stages.wrong_numbers import inspect_numbers
from tunesmith.stages.wrong_relevance import inspect_relevant
from tunesmith.stages.wrong_spans import inspect_spans
from tunesmith.stages.wrong_texts import inspect_texts

STRENGTHS = (0.01, 0.1, 1.0)


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
    JUDGES[context.given.kind](context, stage)


def _inspect_classes(context: Context, stage: StageWriter) -> None:
    judged = _judge(context)
    if judged is None:
        nothing_judged(context, stage, ONE_GROUP)
        return
    table = _suspects_table(context, judged)
    _write_review(context, stage, judged)
    tell(context, stage, table, _content(context, judged, table))


def suspects(context: Context) -> pl.DataFrame | None:
    """The rows of data/suspects.parquet for the training rows of a context; None where no two folds can judge them."""
    judged = _judge(context)
    return None if judged is None else _suspects_table(context, judged)


def _judge(context: Context) -> Judged | None:
    """Out-of-fold answers on the training rows, the strength chosen by their log loss, and the suspects; None without two folds."""
    rows, features_NE = judged_features(context)
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
    own = own_neighbours(judged.features_NE)
    conflicts = conflicting_neighbours(own, judged.targets) if single else ()
    overlap = class_overlap(judged.probabilities_NC[judged.judged_N], judged.targets[judged.judged_N]) if single else ()
    return {
        "rows": len(context.table("train")),
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
        "examples": with_texts(context, table),
        "overlap": [{"first": context.labels[o.first], "second": context.labels[o.second], "share": o.share} for o in overlap[:EXAMPLES]],
        "conflicting_neighbours": len(conflicts) if single else None,
        "outliers": unlike_training(context, judged.rows, judged.features_NE, own),
        "curve": curve_of(context, judged),
        "untrusted": [asdict(entry) for entry in untrusted(_test_counts(context))],
    }


def _test_counts(context: Context) -> dict[str, int]:
    counted = label_counts(context.table("test")["label"])
    return {label: counted.get(label, 0) for label in context.labels}


JUDGES: dict[Kind, Callable[[Context, StageWriter], None]] = {
    "class": _inspect_classes,
    "classes": _inspect_classes,
    "number": inspect_numbers,
    "spans": inspect_spans,
    "text": inspect_texts,
    "relevant": inspect_relevant,
    "answers": inspect_answers,
    "masked": partial(nothing_judged, note="a text is its own label: there is none that could be wrong"),
}
