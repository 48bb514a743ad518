"""Metrics of numbers against scipy and scikit-learn, on rows and on resamples; conformal intervals."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from tunesmith.core.errors import RunError
from tunesmith.evaluate.evaluate import Judging, differences, findings_of
from tunesmith.evaluate.intervals import resample_weights
from tunesmith.evaluate.metrics import METRICS, Sample
from tunesmith.evaluate.numbers import Numbers, conformal_half_width, numbers_from_table, with_intervals
from tunesmith.spec.schema import Evaluate

few = st.integers(-5, 5).map(float)
REFERENCES = {
    "spearman": lambda y, p: stats.spearmanr(y, p).statistic,
    "pearson": lambda y, p: stats.pearsonr(y, p).statistic,
    "rmse": lambda y, p: math.sqrt(mean_squared_error(y, p)),
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}


def repeated(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(values, weights.astype(int))


@given(st.lists(st.tuples(few, st.floats(-5, 5, width=32)), min_size=3, max_size=30), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_metric_of_a_resample_is_the_reference_on_its_rows(pairs: list[tuple[float, float]], seed: int) -> None:
    labels, predicted = (np.array(column, float) for column in zip(*pairs, strict=True))
    weights = next(resample_weights(len(labels), 4, seed))
    sample = Sample(Numbers(labels, predicted), weights)
    for name, reference in REFERENCES.items():
        values = METRICS["number"][name].statistic(sample)
        for row, value in zip(weights, values, strict=True):
            y, p = repeated(labels, row), repeated(predicted, row)
            if name in ("spearman", "pearson", "r2") and (np.ptp(y) < 1e-3 or (name != "r2" and np.ptp(p) < 1e-3)):
                continue
            assert value == pytest.approx(reference(y, p), abs=1e-7), name


def test_numbers_that_do_not_vary_have_no_correlation() -> None:
    same = Numbers(np.full(5, 0.1), np.arange(5.0))
    assert all(math.isnan(METRICS["number"][name].value(same)) for name in ("spearman", "pearson", "r2"))
    assert METRICS["number"]["mae"].value(same) == pytest.approx(1.94)


def test_intervals_hold_as_many_rows_as_they_say() -> None:
    draw = np.random.default_rng(0)
    held = []
    for _ in range(300):
        errors = draw.standard_t(3, 200)
        half = conformal_half_width(errors[:100], 0.9)
        held.append((np.abs(errors[100:]) <= half).mean())
    assert 0.9 <= np.mean(held) < 0.915  # at least 0.9, at most 0.9 + 1 / 101, and chance
    assert conformal_half_width(np.array([3.0, -1.0, 2.0]), 0.75) == 3.0
    assert math.isinf(conformal_half_width(np.ones(9), 0.95))


def table(labels: list[float], predicted: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"id": [str(n) for n in range(len(labels))], "label": labels, "predicted": predicted})


def test_findings_of_numbers_have_intervals_coverage_and_paired_differences() -> None:
    draw = np.random.default_rng(1)
    truth = draw.normal(size=300)
    good, poor = table(truth.tolist(), (truth + draw.normal(size=300) / 4).tolist()), table(truth.tolist(), draw.normal(size=300).tolist())
    judging = Judging("number", [], Evaluate(), 0, "test")
    found = {f.id: f for f in findings_of(with_intervals(good, 0.5), judging)}
    assert set(found) == {"test/rows", *(f"test/{name}" for name in METRICS["number"]), "test/intervals/coverage", "test/intervals/width"}
    assert found["test/intervals/coverage"].value == pytest.approx(0.954, abs=0.03)
    assert found["test/intervals/width"].value == pytest.approx(1.0)
    low, high = found["test/pearson"].interval or (0, 0)
    assert low < found["test/pearson"].value < high  # type: ignore[operator]
    compared = {f.id: f for f in differences(good, poor, Judging("number", [], Evaluate(), 0, "test/baseline/features"))}
    assert set(compared) == {f"test/baseline/features/{name}/difference" for name in METRICS["number"]}
    assert compared["test/baseline/features/rmse/difference"].interval[1] < 0  # type: ignore[index]
    assert not any("coverage" in f.id for f in findings_of(with_intervals(good, math.inf), judging))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predictions_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(RunError, match="finite"):
        numbers_from_table(table([1.0, 2.0], [1.0, bad]))
