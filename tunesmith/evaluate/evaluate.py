"""Findings about predictions: every metric with its interval, every class, and the paired difference to a baseline.

The same predictions, options and seed give the same findings; verification relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from tunesmith.core.errors import RunError
from tunesmith.core.records import Artefact, Finding, Issue
from tunesmith.evaluate.answers import Answers
from tunesmith.evaluate.intervals import (
    NO_ROWS,
    Estimate,
    Resampling,
    class_estimates,
    clopper_pearson,
    estimates,
    mcnemar_p,
    paired_differences,
)
from tunesmith.evaluate.kinds import answered
from tunesmith.evaluate.metrics import Answered, Metric, metrics_for
from tunesmith.evaluate.spans import Spans
from tunesmith.evaluate.texts import Texts, length_ratio
from tunesmith.spec.kinds import Kind
from tunesmith.spec.schema import Evaluate

CLEAN = "clean"
FOLDS = "folds"


@dataclass(frozen=True)
class Judging:
    """What findings are made with. `prefix` of their ids: "validation", "test", "folds", or "test/baseline/NAME"."""

    kind: Kind
    labels: list[str]
    options: Evaluate
    seed: int
    prefix: str
    artefact: Artefact | None = None

    @property
    def resampling(self) -> Resampling:
        """How intervals are made."""
        return Resampling(self.seed, self.options.resamples, self.options.confidence)

    @property
    def subject(self) -> str:
        """Whose predictions on what, to end a claim."""
        split, *baseline = self.prefix.split("/")
        if split == FOLDS:
            return f"of the baseline {baseline[-1]} on the same folds" if baseline else "on rows that the answering model has not seen"
        if baseline == [CLEAN]:
            return f"on the {split} rows that no earlier split knows"
        return f"of the baseline {baseline[-1]} on the {split} split" if baseline else f"on the {split} split"


def findings_of(predictions: pl.DataFrame, judging: Judging) -> list[Finding]:
    """The metrics; for a split also its rows; for the test split and for folds also every class.

    Args:
        predictions: columns label, predicted, and for classes probabilities; for numbers also low and high, where there are intervals.
        judging: what to make the findings with.

    Raises:
        RunError: the predictions do not fit the labels, or hold no finite numbers.
    """
    answers = answered(predictions, judging.kind, judging.labels)
    findings = [] if "/" in judging.prefix else [_rows(answers, judging)]
    metrics = metrics_for(judging.kind)
    for name, estimate in estimates(answers, metrics, judging.resampling).items():
        findings.append(_finding(name, f"{metrics[name].title} {judging.subject}", len(answers), estimate, judging))
    if isinstance(answers, (Answers, Spans)) and judging.prefix in ("test", FOLDS):
        findings += _classes(answers, judging)
    if isinstance(answers, Texts):
        findings += _written(predictions, answers, judging)
    if "low" in predictions.columns and judging.prefix == "test":
        findings += _intervals(predictions, judging)
    return findings


def clean_findings(predictions: pl.DataFrame, leaking: pl.Series, judging: Judging) -> list[Finding]:
    """The metrics on the rows that do not leak, with prefix "test/clean"; nothing where no row leaks.

    Args:
        predictions: of the test split.
        leaking: ids of the rows that an earlier split knows.
        judging: that of the test split.
    """
    if not len(leaking):
        return []
    clean = predictions.filter(~pl.col("id").is_in(leaking.implode()))
    return findings_of(clean, replace(judging, prefix=f"{judging.prefix}/{CLEAN}"))


def differences(model: pl.DataFrame, baseline: pl.DataFrame, judging: Judging) -> list[Finding]:
    """Every metric's difference, model minus baseline, on the same rows, and McNemar's test. `judging` is the baseline's.

    Raises:
        RunError: the two tables do not answer the same rows in the same order, or not with the same labels.
    """
    if not (model["id"].equals(baseline["id"]) and model["label"].equals(baseline["label"])):
        raise RunError(Issue(judging.prefix, "must answer the rows of the model, in the same order", "other ids or labels"))
    ours, theirs = (answered(table, judging.kind, judging.labels) for table in (model, baseline))
    metrics, name = metrics_for(judging.kind), judging.prefix.rsplit("/", 1)[-1]
    findings = []
    for metric, estimate in paired_differences(ours, theirs, metrics, judging.resampling).items():
        claim = f"{metrics[metric].title}: the model minus the baseline {name}, on the same rows"
        findings.append(_finding(f"{metric}/difference", claim, len(ours), estimate, judging))
    if not (isinstance(ours, Answers) and isinstance(theirs, Answers)):
        return findings
    claim = f"McNemar's exact test: chance of so uneven a split between the model and the baseline {name} if they were equally often right"
    p = Estimate(mcnemar_p(ours.right_N, theirs.right_N)) if len(ours) else Estimate(None, note=NO_ROWS)
    return [*findings, _finding("mcnemar_p", claim, len(ours), p, judging)]


def _intervals(predictions: pl.DataFrame, judging: Judging) -> list[Finding]:
    """How often the truth lies in its interval, and how wide the intervals are."""
    inside = predictions.select((pl.col("label") >= pl.col("low")) & (pl.col("label") <= pl.col("high"))).to_series()
    width, n = (predictions["high"] - predictions["low"]).mean(), len(inside)
    if not n:
        return [_finding("intervals/coverage", "Rows whose number lies in its interval", 0, Estimate(None, note=NO_ROWS), judging)]
    hits = int(inside.sum())
    share = Estimate(hits / n, clopper_pearson(hits, n, judging.options.confidence))
    claim = f"Share of rows {judging.subject} whose number lies in its interval; {judging.options.confidence:g} is asked for"
    return [
        _finding("intervals/coverage", claim, n, share, judging),
        _finding("intervals/width", f"Width of the intervals {judging.subject}", n, Estimate(float(width)), judging),  # type: ignore[arg-type]
    ]


LENGTH_RATIO = Metric(
    "lengths/ratio", "Words written for each word wanted", "One where texts are as long as the right ones.", length_ratio, upper=None,
    undefined="no word is wanted",
)  # fmt: skip


def _written(predictions: pl.DataFrame, answers: Texts, judging: Judging) -> list[Finding]:
    """How long the texts are, and how many have no end."""
    ratio = estimates(answers, {LENGTH_RATIO.name: LENGTH_RATIO}, judging.resampling)[LENGTH_RATIO.name]
    found = [_finding(LENGTH_RATIO.name, f"{LENGTH_RATIO.title} {judging.subject}", len(answers), ratio, judging)]
    if "finished" in predictions.columns:
        claim, open_ = f"Texts {judging.subject} that did not end within the most tokens", int((~predictions["finished"]).sum())
        found.append(Finding(f"{judging.prefix}/lengths/unfinished", claim, open_, "rows", len(answers), artefact=judging.artefact))
    return found


def _rows(answers: Answered, judging: Judging) -> Finding:
    return Finding(f"{judging.prefix}/rows", f"Rows {judging.subject}", len(answers), "rows", len(answers), artefact=judging.artefact)


def _classes(answers: Answers | Spans, judging: Judging) -> list[Finding]:
    findings, unit = [], "spans" if isinstance(answers, Spans) else "rows"
    for label, scores in zip(judging.labels, class_estimates(answers, judging.resampling), strict=True):
        stem = f"class/{label}"
        parts = {"precision": (scores.precision, scores.given), "recall": (scores.recall, scores.n), "f1": (scores.f1, scores.n)}
        for name, (estimate, n) in parts.items():
            claim = f"{name.capitalize()} of the {'type' if unit == 'spans' else 'class'} {label} {judging.subject}"
            findings.append(_finding(f"{stem}/{name}", claim, n, estimate, judging))
        claim = f"{'Spans of the type' if unit == 'spans' else 'Rows of the class'} {label} {judging.subject}"
        findings.append(Finding(f"{judging.prefix}/{stem}/n", claim, scores.n, unit, len(answers), artefact=judging.artefact))
    return findings


def _finding(name: str, claim: str, n: int, estimate: Estimate, judging: Judging) -> Finding:
    return Finding(
        f"{judging.prefix}/{name}",
        claim,
        estimate.value,
        n=n,
        interval=estimate.interval,
        source="computed" if estimate.value is not None else "unknown",
        artefact=judging.artefact,
        note=estimate.note,
    )
