"""Runs side by side: paired differences from the first one on the test rows that both answered with the same label."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from tunesmith.core.errors import RunError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import existing_run
from tunesmith.evaluate.answers import Answers
from tunesmith.evaluate.intervals import Estimate, Resampling, holm, mcnemar_p, paired_differences
from tunesmith.evaluate.kinds import answered
from tunesmith.evaluate.metrics import Answered, Metric, metrics_for
from tunesmith.spec.defaults import read_resolved
from tunesmith.spec.kinds import Kind
from tunesmith.spec.schema import Spec

PREDICTIONS = "predictions/test.parquet"
MAIN: dict[Kind, tuple[str, ...]] = {
    "class": ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"),
    "classes": ("micro_f1", "macro_f1", "subset_accuracy", "log_loss", "ece"),
    "number": ("spearman", "pearson", "rmse", "mae"),
    "answers": ("f1", "exact_match", "has_answer_f1", "no_answer_accuracy"),
    "spans": ("span_f1", "span_precision", "span_recall", "macro_span_f1", "overlap_f1"),
}
MAIN["text"] = ("chrf", "bleu", "rougeL", "exact_text")
MAIN["masked"] = ("masked_loss", "perplexity", "masked_accuracy")
MAIN["relevant"] = ("ndcg_at_10", "mrr_at_10", "recall_at_10", "map")
COLUMNS = ("run", "metric", "first run", "this run", "difference", "interval", "rows")


@dataclass(frozen=True)
class Difference:
    """One metric of a run against the first run, on the same rows; `difference` is run minus first."""

    metric: Metric
    first: float | None
    run: float | None
    difference: Estimate


@dataclass(frozen=True)
class Comparison:
    """A run against the first one. `rows` are those compared; the other counts say how many were left out, and why.

    `mcnemar_p` compares which rows each got right; `corrected_p` is that p after Holm's correction over all runs compared. Numbers are not
    right or wrong, and have neither.
    """

    run: str
    first: str
    rows: int
    only_in_first: int
    only_in_run: int
    other_label: int
    differences: tuple[Difference, ...]
    mcnemar_p: float | None
    corrected_p: float | None

    @property
    def note(self) -> str:
        """What a reader must know about the rows; empty when both runs have the same test rows and labels."""
        left_out = {
            f"test rows only in {self.first}": self.only_in_first,
            f"only in {self.run}": self.only_in_run,
            "with another label": self.other_label,
        }
        reasons = ", ".join(f"{n} {what}" for what, n in left_out.items() if n)
        return f"{self.rows} common test rows compared; left out: {reasons}" if reasons else ""

    def __str__(self) -> str:
        lines = [f"{self.run} against {self.first} on {self.rows} test rows"]
        lines += [f"  {' '.join(row[1:6])}" for row in as_table([self])]
        if self.mcnemar_p is not None:
            lines.append(f"  McNemar p {self.mcnemar_p:.4g}, corrected for the number of runs {self.corrected_p:.4g}")
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


@dataclass(frozen=True)
class _Tested:
    """A run with its test predictions."""

    name: str
    spec: Spec
    labels: list[str]
    predictions: pl.DataFrame


def compare_runs(paths: list[Path]) -> list[Comparison]:
    """Every other run against the first one, in the order given.

    Raises:
        RunError: fewer than two runs, a run without test predictions, no common test row, or one and several labels a row.
    """
    if len(paths) < 2:
        raise RunError(Issue("compare", "needs at least two runs", str(len(paths)), "Name another run directory."))
    first, *others = [_tested(path) for path in paths]
    comparisons = [_compare(first, other) for other in others]
    given = [c.mcnemar_p for c in comparisons if c.mcnemar_p is not None]
    corrected = iter(holm(given))
    return [c if c.mcnemar_p is None else replace(c, corrected_p=next(corrected)) for c in comparisons]


def as_table(comparisons: list[Comparison]) -> list[tuple[str, ...]]:
    """One row of text for each run and metric, in the order of COLUMNS; arrows say which way is better."""
    rows: list[tuple[str, ...]] = []
    for comparison in comparisons:
        for line in comparison.differences:
            arrow = "↑" if line.metric.higher_is_better else "↓"
            low_high = line.difference.interval
            between = f"{low_high[0]:+.4f} to {low_high[1]:+.4f}" if low_high else "no interval"
            values = (_text(line.first), _text(line.run), _text(line.difference.value, "+"))
            rows.append((comparison.run, f"{line.metric.title} {arrow}", *values, between, str(comparison.rows)))
    return rows


def _text(value: float | None, sign: str = "") -> str:
    return "unknown" if value is None else f"{value:{sign}.4f}"


def _tested(path: Path) -> _Tested:
    run = existing_run(path)
    needed = (PREDICTIONS, "resolved.yaml", "data/labels.json")
    missing = [name for name in needed if not (run.path / name).is_file()]
    if missing:
        raise RunError(
            Issue(str(run.path), f"must have {missing[0]}", "no such file", "The run is not finished: run the same command again.")
        )
    labels = list(json.loads((run.path / "data/labels.json").read_text("utf-8")))
    predictions = pl.read_parquet(run.path / PREDICTIONS).unique("id", keep="first", maintain_order=True)
    return _Tested(run.path.name, read_resolved(run.path / "resolved.yaml"), labels, predictions)


def _compare(first: _Tested, other: _Tested) -> Comparison:
    if first.spec.kind != other.spec.kind:
        words: dict[Kind, str] = {
            "text": "texts to be written",
            "class": "one label a row",
            "classes": "several labels a row",
            "number": "numbers",
            "answers": "answers in texts",
            "spans": "spans of texts",
            "relevant": "texts that are relevant to queries",
            "masked": "masked tokens",
        }
        found = f"{words[first.spec.kind]} in one run and {words[other.spec.kind]} in the other"
        raise RunError(Issue(f"{first.name} and {other.name}", "must have the same kind of labels", found))
    in_both = first.predictions.join(other.predictions.select("id", pl.col("label").alias("_label")), on="id", maintain_order="left")
    agreed = in_both.filter(pl.col("label") == pl.col("_label")).select("id")
    if not len(agreed):
        raise RunError(Issue(f"{first.name} and {other.name}", "must have test rows in common", "none", "Compare runs on the same data."))
    labels = sorted({*first.labels, *other.labels})
    one, two = (_answers(run, agreed, labels) for run in (first, other))
    options = first.spec.evaluate
    metrics = _main_metrics(first.spec)
    estimated = paired_differences(two, one, metrics, Resampling(first.spec.seed, options.resamples, options.confidence))
    return Comparison(
        run=other.name,
        first=first.name,
        rows=len(agreed),
        only_in_first=len(first.predictions) - len(in_both),
        only_in_run=len(other.predictions) - len(in_both),
        other_label=len(in_both) - len(agreed),
        differences=tuple(Difference(m, _value(m, one), _value(m, two), estimated[name]) for name, m in metrics.items()),
        mcnemar_p=mcnemar_p(two.right_N, one.right_N) if isinstance(one, Answers) and isinstance(two, Answers) else None,
        corrected_p=None,
    )


def _answers(run: _Tested, ids: pl.DataFrame, labels: list[str]) -> Answered:
    """Answers on the given rows in their order; a label that the run does not know gets probability 0."""
    rows = ids.join(run.predictions, on="id", maintain_order="left")
    if run.labels != labels:
        places = [run.labels.index(label) if label in run.labels else None for label in labels]
        widened = [[0.0 if place is None else row[place] for place in places] for row in rows["probabilities"].to_list()]
        rows = rows.with_columns(pl.Series("probabilities", widened, dtype=pl.List(pl.Float32)))
    return answered(rows, run.spec.kind, labels)


def _main_metrics(spec: Spec) -> dict[str, Metric]:
    """The deciding metric of the first run, then the main ones."""
    known = metrics_for(spec.kind)
    names = dict.fromkeys([spec.evaluate.metric or next(iter(known)), *MAIN[spec.kind]])
    return {name: known[name] for name in names if name in known}


def _value(metric: Metric, answers: Answered) -> float | None:
    value = metric.value(answers)
    return None if value != value else value
