"""The search for a head: every kind is asked about rows that it has not seen, and the best one is fitted on all of them.

Only training rows are asked. What is open in a kind (the strength of a regression) is settled once, on all training rows and
validation, before the folds; a fold is fitted with that. Copies of rows are trained on where their row is, and never asked.
Shape suffixes: N = training rows, C = classes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tunesmith.core.records import Finding, Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.evaluate.answers import Answers, answers_from_arrays
from tunesmith.evaluate.intervals import Estimate, Resampling, estimates, paired_differences
from tunesmith.evaluate.metrics import Metric, metrics_for
from tunesmith.models.svm import NEVER
from tunesmith.spec.heads import LINEAR, SEARCHED
from tunesmith.stages.heads import FOLDS, Rows, Settled, Shop, settle

Array = np.ndarray[Any, np.dtype[Any]]
ONE_PART = "all training rows are one cluster or group, so that no head can be asked about rows that it has not seen"


def search(shop: Shop, rows: Rows, stage: StageWriter) -> Settled:
    """How the kind with the best out-of-fold score is fitted. Ties go to the simpler kind."""
    if len(np.unique(rows.folds_N)) < 2:
        stage.find(Finding("heads/chosen", "Head that the search chose", SEARCHED[0], note=f"not compared: {ONE_PART}"))
        return settle(shop, SEARCHED[0], rows)
    settled: dict[str, Settled] = {}
    answers: dict[str, Answers] = {}
    for number, kind in enumerate(SEARCHED):
        shop.context.watch(Progress("train", number, len(SEARCHED), "head", note=f"{FOLDS} folds of {kind}"))
        started = time.perf_counter()
        settled[kind] = settle(shop, kind, rows)
        answers[kind] = answers_from_arrays(rows.targets[: rows.originals], _out_of_fold(shop, settled[kind], rows, kind))
        claim = f"Time to settle {kind} and to fit it on each fold"
        stage.find(Finding(f"heads/{kind}/seconds", claim, round(time.perf_counter() - started, 1), "seconds", source="measured"))
    chosen, findings = judged(shop, answers, {kind: way.note for kind, way in settled.items()})
    stage.find(*findings)
    return settled[chosen]


def judged(shop: Shop, answers: dict[str, Answers], notes: dict[str, str]) -> tuple[str, list[Finding]]:
    """The best of several heads by the deciding metric, and the findings: each score with its interval, the choice, and its reason."""
    context, options = shop.context, shop.context.spec.evaluate
    name = str(options.metric)
    metric = metrics_for(context.given.kind)[name]
    resampling = Resampling(context.given.seed, options.resamples, options.confidence)
    scored = {kind: estimates(given, {name: metric}, resampling)[name] for kind, given in answers.items()}
    sign = 1 if metric.higher_is_better else -1
    order = sorted(scored, key=lambda kind: -np.inf if (value := scored[kind].value) is None else sign * value, reverse=True)
    best, second = order[0], order[1]
    rows = len(answers[best])
    findings = [
        Finding(f"heads/{kind}/score", f"{metric.title} of {kind} on training rows that it has not seen", score.value, n=rows,
                interval=score.interval, source="computed" if score.value is not None else "unknown",
                note="; ".join(filter(None, (notes[kind], score.note))))
        for kind, score in scored.items()
    ]  # fmt: skip
    gap = paired_differences(answers[best], answers[second], {name: metric}, resampling)[name]
    findings.append(Finding("heads/chosen", "Head that the search chose", best, n=rows, note=_reason(metric, best, second, gap)))
    claim = f"{metric.title}: the chosen head minus the next best, {second}, on the same rows"
    known = "computed" if gap.value is not None else "unknown"
    findings.append(Finding("heads/lead", claim, gap.value, n=rows, interval=gap.interval, source=known, note=gap.note))  # type: ignore[arg-type]
    return best, findings


def _reason(metric: Metric, best: str, second: str, gap: Estimate) -> str:
    if not gap.value:
        return f"it is as good as {second} out of fold, and simpler"
    told = gap.interval is not None and not gap.interval[0] <= 0 <= gap.interval[1]
    doubt = "" if told else f"; these rows do not tell it from {second} for certain"
    beside = "" if best in LINEAR else "; transformers alone cannot hold it: it lies beside the network"
    return f"the best {metric.title.lower()} out of fold{doubt}{beside}"


def _out_of_fold(shop: Shop, settled: Settled, rows: Rows, kind: str) -> Array:
    """Probabilities (N, C) of rows, not of copies, from heads that have not seen their fold; kept until the run has ended."""
    job = shop.job(shop.context, None, None, None)
    kept = job.folder / "search" / f"{kind}-{job.inputs[:16]}.safetensors"
    known = _read(kept)
    if known is not None:
        return known
    logits_NC = np.full((rows.originals, shop.classes), NEVER, np.float64)
    for fold in np.unique(rows.folds_N).tolist():
        asked_N = rows.folds_N[: rows.originals] == fold
        answer, _ = settled.fit(rows[rows.folds_N != fold], f"{kind}-{fold}")
        with torch.inference_mode():
            logits_NC[asked_N] = answer(rows.features_NE[: rows.originals][asked_N]).double().numpy()
    several = shop.context.given.data.multi_label
    logits = torch.from_numpy(logits_NC)
    probabilities_NC = (torch.sigmoid(logits) if several else torch.softmax(logits, -1)).numpy()
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file({"probabilities": probabilities_NC}, kept)
    return probabilities_NC


def _read(path: Path) -> Array | None:
    """Probabilities that an earlier process left; None where there are none, or they were cut off."""
    try:
        return np.asarray(load_file(path)["probabilities"]) if path.exists() else None
    except (SafetensorError, KeyError, OSError):
        return None
