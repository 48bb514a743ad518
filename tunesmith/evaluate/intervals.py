"""How sure a score is: percentile bootstrap intervals, paired differences, exact tests. Everything is seeded.

One stream of resamples depends on the seed and the number of rows alone, so that two sets of predictions of the same
rows are resampled together. Shape suffixes: A = prediction sets, R = resamples, N = rows, C = classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, betaincinv

from tunesmith.core.seeding import seed_for
from tunesmith.evaluate.answers import Answers, Bools, Floats
from tunesmith.evaluate.metrics import Answered, Metric, Sample, Statistic, class_scores
from tunesmith.evaluate.spans import Spans

CHUNK_ELEMENTS = 2**21
RANKING_BUDGET = 2 * 10**9
"""Rows × classes × resamples that the ROC AUC may cost: a few seconds."""
FEWEST_RESAMPLES = 100
ALL_ONE_WAY = "every row has the same outcome, so the bootstrap cannot tell: exact binomial (Clopper-Pearson) interval"
NO_DISAGREEMENT = (
    "both fare alike on every row, so the bootstrap cannot tell: exact binomial bound on the share of rows where they would not"
)
NO_SPREAD = "no interval: every resample gives the same value, so the bootstrap cannot tell how sure it is"
TOO_MANY = "no interval: too many rows and classes to resample"
OUTSIDE = "the value lies outside the interval, because resampling by itself moves this metric"
NO_ROWS = "there are no rows"
NO_SPAN_OR_ROW = {
    False: ("no row carries this label", "no row was given this label"),
    True: ("there is no span of this type", "no span of this type was predicted"),
}


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: the run's seed, the number of resamples, and the coverage."""

    seed: int
    resamples: int = 1000
    confidence: float = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval. None with the reason in `note` where there is none."""

    value: float | None
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class ClassEstimates:
    """Estimates of one class; `n` is the number of rows that carry it, `given` of those that were given it."""

    n: int
    given: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


def estimates(answers: Answered, metrics: Mapping[str, Metric], resampling: Resampling) -> dict[str, Estimate]:
    """Every metric with its percentile bootstrap interval."""
    limits = {name: _limit(name, answers, resampling) for name in metrics}
    drawn = replicates([answers], {name: m.statistic for name, m in metrics.items()}, limits, resampling.seed)
    return {name: _estimate(metric, answers, drawn[name][0], resampling) for name, metric in metrics.items()}


def paired_differences(model: Answered, baseline: Answered, metrics: Mapping[str, Metric], resampling: Resampling) -> dict[str, Estimate]:
    """Every metric's difference, model minus baseline, where both answer the same rows in the same order."""
    assert len(model) == len(baseline), "paired means the same rows"
    limits = {name: _limit(name, model, resampling) for name in metrics}
    drawn = replicates([model, baseline], {name: m.statistic for name, m in metrics.items()}, limits, resampling.seed)
    return {name: _difference(metric, (model, baseline), drawn[name], resampling) for name, metric in metrics.items()}


def class_estimates(answers: Answers | Spans, resampling: Resampling) -> list[ClassEstimates]:
    """Precision, recall and F1 of every class with their intervals, in class-id order."""
    statistics: dict[str, Statistic] = {
        "precision": lambda sample: np.where(sample.predicted_RC > 0, sample.precision_RC, np.nan),
        "recall": lambda sample: np.where(sample.labelled_RC > 0, sample.recall_RC, np.nan),
        "f1": lambda sample: np.where(sample.labelled_RC > 0, sample.f1_RC, np.nan),
    }
    limits = dict.fromkeys(statistics, resampling.resamples if len(answers) else 0)
    drawn = replicates([answers], statistics, limits, resampling.seed)
    scores, no_row, not_given = class_scores(answers), *NO_SPAN_OR_ROW[isinstance(answers, Spans)]
    out = []
    for c in range(answers.classes):
        n, given = int(scores.n[c]), int(scores.given[c])
        values = {name: drawn[name][0][:, c] for name in statistics}
        out.append(
            ClassEstimates(
                n,
                given,
                _interval(float(scores.precision[c]), values["precision"], resampling, given, not_given),
                _interval(float(scores.recall[c]), values["recall"], resampling, n, no_row),
                _interval(float(scores.f1[c]), values["f1"], resampling, None, no_row),
            )
        )
    return out


def replicates(sets: Sequence[Answered], statistics: Mapping[str, Statistic], limits: Mapping[str, int], seed: int) -> dict[str, Floats]:
    """Each statistic on its number of resamples, (A, R) or (A, R, C). The same resamples for every set and statistic."""
    parts: dict[str, list[Floats]] = {name: [] for name in statistics}
    done = 0
    for weights_RN in resample_weights(len(sets[0]), max(limits.values(), default=0), seed):
        samples = [Sample(answers, weights_RN) for answers in sets]
        for name, statistic in statistics.items():
            wanted = limits[name] - done
            if wanted > 0:
                parts[name].append(np.stack([statistic(sample)[:wanted] for sample in samples]))
        done += len(weights_RN)
    return {name: np.concatenate(part, 1) if part else np.zeros((len(sets), 0, sets[0].classes)) for name, part in parts.items()}


def resample_weights(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of n rows is drawn in each resample, (r, n) at a time; how many come at a time changes nothing."""
    draw = np.random.Generator(np.random.PCG64(seed_for(seed, "bootstrap")))
    at_a_time = max(1, CHUNK_ELEMENTS // max(n, 1))
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        yield np.stack([np.bincount(draw.integers(0, n, n), minlength=n) for _ in range(size)]).astype(np.float64)


def percentiles(values_R: Floats, confidence: float) -> tuple[float, float]:
    """The bounds that leave out equal shares of the values at both ends."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail])
    return float(low), float(high)


def clopper_pearson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Exact interval of a binomial share (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def mcnemar_p(right_N: Bools, other_right_N: Bools) -> float:
    """Exact two-sided p of McNemar's test (1947): chance of so uneven a split of the rows that only one of the two got right."""
    only_one, only_other = int((right_N & ~other_right_N).sum()), int((~right_N & other_right_N).sum())
    if only_one == only_other:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the order given."""
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = running
    return corrected


def _limit(name: str, answers: Answered, resampling: Resampling) -> int:
    """Resamples that a metric gets. Only the ROC AUC, which must walk every row of every class, can get fewer."""
    if not len(answers):
        return 0
    if name != "roc_auc":
        return resampling.resamples
    affordable = RANKING_BUDGET // (len(answers) * answers.classes)
    return min(resampling.resamples, affordable) if affordable >= FEWEST_RESAMPLES else 0


def _estimate(metric: Metric, answers: Answered, drawn_R: Floats, resampling: Resampling) -> Estimate:
    if not len(answers):
        return Estimate(None, note=NO_ROWS)
    shares_of = len(answers) if metric.is_row_share else None
    return _interval(metric.value(answers), drawn_R, resampling, shares_of, metric.undefined)


def _interval(value: float, drawn_R: Floats, resampling: Resampling, shares_of: int | None, undefined: str) -> Estimate:
    """The value with its interval; `shares_of` is the number of rows when it is a share of rows."""
    if np.isnan(value):
        return Estimate(None, note=undefined)
    if shares_of and value in (0.0, 1.0):
        return Estimate(value, clopper_pearson(round(value * shares_of), shares_of, resampling.confidence), ALL_ONE_WAY)
    return _with_percentiles(value, drawn_R, resampling)


def _difference(metric: Metric, pair: tuple[Answered, Answered], drawn_AR: Floats, resampling: Resampling) -> Estimate:
    model, baseline = pair
    if not len(model):
        return Estimate(None, note=NO_ROWS)
    value = metric.value(model) - metric.value(baseline)
    if np.isnan(value):
        return Estimate(None, note=metric.undefined)
    if metric.is_row_share and isinstance(model, Answers) and isinstance(baseline, Answers):
        outcome_N = model.right_N.astype(np.int64) - baseline.right_N
        if (outcome_N == outcome_N[0]).all():
            return Estimate(value, _one_outcome(int(outcome_N[0]), len(model), resampling.confidence), NO_DISAGREEMENT)
    return _with_percentiles(value, drawn_AR[0] - drawn_AR[1], resampling)


def _one_outcome(outcome: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of a difference of shares when all n rows have one outcome (-1, 0, 1), from the bound on the rows that would not."""
    others = clopper_pearson(0, n, confidence)[1] * (1 + abs(outcome))
    return max(-1.0, outcome - others), min(1.0, outcome + others)


def _with_percentiles(value: float, drawn_R: Floats, resampling: Resampling) -> Estimate:
    if not len(drawn_R):
        return Estimate(value, note=TOO_MANY)
    drawn = drawn_R[~np.isnan(drawn_R)]
    if not len(drawn) or np.ptp(drawn) <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, note=NO_SPREAD)
    low, high = percentiles(drawn, resampling.confidence)
    notes = []
    if len(drawn_R) < resampling.resamples:
        notes.append(f"{len(drawn_R)} resamples instead of {resampling.resamples}: more would take too long")
    if len(drawn) < len(drawn_R):
        notes.append(f"{len(drawn_R) - len(drawn)} of {len(drawn_R)} resamples had no value and were left out")
    if not low <= value <= high:
        notes.append(OUTSIDE)
    return Estimate(value, (low, high), "; ".join(notes))
