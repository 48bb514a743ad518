"""Subsets are nested, planted power laws are found and forecast, and row counts give the interval they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tunesmith.core.errors import DataError
from tunesmith.data.learning_curve import (
    Curve,
    Point,
    curve_sizes,
    fit_power_law,
    learning_curve,
    nested_subset,
    rows_for_interval,
    untrusted,
    wilson_interval,
    wilson_width,
)

IDS = [f"row {n}" for n in range(640)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_subsets_are_nested_and_do_not_depend_on_the_order(small: int, large: int, draw: int) -> None:
    small, large = sorted((small, large))
    inner, outer = nested_subset(IDS[:60], small, 0, draw), nested_subset(IDS[:60], large, 0, draw)
    assert len(inner) == small and set(inner) <= set(outer)
    backwards = nested_subset(IDS[:60][::-1], small, 0, draw)
    assert {IDS[59 - n] for n in backwards} == {IDS[n] for n in inner}


def test_sizes_double_up_to_all_rows() -> None:
    assert curve_sizes(640) == [20, 40, 80, 160, 320, 640]
    assert curve_sizes(50) == [25, 50] and curve_sizes(5) == []


def test_every_size_and_draw_is_scored_once() -> None:
    seen: list[tuple[int, ...]] = []

    def score(rows: np.ndarray) -> float:
        seen.append(tuple(rows))
        return math.nan if len(rows) == 20 else len(rows) / 1000

    curve = learning_curve(IDS, score, curve_sizes(640), draws=3)
    assert len(seen) == len(set(seen)) == 5 * 3 + 1
    assert curve.without_score == 3 and len(curve.points) == 13
    assert all(p.score == p.rows / 1000 for p in curve.points)
    with pytest.raises(DataError, match="from 1 to 640"):
        learning_curve(IDS, score, [641])


def planted(limit: float, slope: float, exponent: float, noise: float, seed: int = 0, draws: int = 3) -> Curve:
    draw, points = np.random.default_rng(seed), []
    for number in range(draws):
        for rows in curve_sizes(2560, count=8):
            if not (rows == 2560 and number):
                points.append(Point(rows, number, limit + slope * rows**-exponent + noise * draw.normal()))
    return Curve(tuple(points), 0)


@pytest.mark.parametrize(
    ("limit", "slope", "exponent", "higher"),
    [(0.95, -1.5, 0.5, True), (0.8, -0.9, 0.25, True), (0.99, -4, 1.0, True), (0.2, 3.0, 0.4, False)],
)
def test_a_power_law_without_noise_is_found(limit: float, slope: float, exponent: float, higher: bool) -> None:
    fitted = fit_power_law(planted(limit, slope, exponent, 0.0), (0.0, 1.0 if higher else math.inf), higher_is_better=higher)
    assert fitted
    assert (fitted.limit, fitted.exponent) == pytest.approx((limit, exponent), rel=0.02)
    assert fitted.slope == pytest.approx(slope, rel=0.05)
    for forecast, times in zip(fitted.forecasts, (1, 2, 4), strict=True):
        assert forecast.rows == 2560 * times
        assert forecast.score == pytest.approx(limit + slope * forecast.rows**-exponent, abs=1e-3)


def test_scipy_finds_no_better_curve() -> None:
    from scipy.optimize import least_squares

    for seed in range(5):
        curve = planted(0.93, -1.2, 0.45, 0.02, seed)
        rows, scores = np.array([p.rows for p in curve.points]), np.array([p.score for p in curve.points])
        fitted = fit_power_law(curve)
        assert fitted

        def residuals(f: np.ndarray, rows: np.ndarray = rows, scores: np.ndarray = scores) -> np.ndarray:
            return f[0] + f[1] * (rows / 2560) ** -f[2] - scores

        box = ([0, -np.inf, 1e-3], [1, 0, 2])
        best = min(least_squares(residuals, [0.9, -0.05, e], bounds=box, x_scale=[0.1, 0.1, 0.5]).cost for e in (0.2, 0.6, 1.2))
        found = 0.5 * (residuals(np.array([fitted.limit, fitted.slope * 2560.0**-fitted.exponent, fitted.exponent])) ** 2).sum()
        assert found <= best * 1.001


def test_forecasts_cover_the_planted_curve() -> None:
    covered = 0
    for seed in range(40):
        fitted = fit_power_law(planted(0.93, -1.2, 0.45, 0.01, seed, draws=4), seed=seed)
        assert fitted
        last = fitted.forecasts[-1]
        covered += last.interval[0] <= 0.93 - 1.2 * last.rows**-0.45 <= last.interval[1]
        assert 0 <= last.interval[0] <= last.score <= last.interval[1] <= 1
        assert last.interval[1] - last.interval[0] < 0.1
    assert covered >= 32


def test_flat_and_falling_scores_do_not_promise_anything() -> None:
    flat = fit_power_law(Curve(tuple(Point(rows, 0, 0.7) for rows in (20, 40, 80, 160)), 0))
    falling = fit_power_law(Curve(tuple(Point(rows, 0, 0.9 - rows / 1000) for rows in (20, 40, 80, 160)), 0))
    assert flat and falling
    assert flat.forecasts[-1].score == pytest.approx(0.7, abs=1e-3)
    assert falling.forecasts[-1].score == pytest.approx(0.9 - 75 / 1000, abs=1e-2)
    assert fit_power_law(Curve(tuple(Point(rows, 0, 0.7) for rows in (20, 40, 80)), 0)) is None


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0.005, 0.9), st.sampled_from([0.8, 0.95, 0.99]))
def test_rows_for_an_interval_are_the_fewest(score: float, width: float, confidence: float) -> None:
    rows = rows_for_interval(score, width, confidence)
    assert wilson_width(score, rows, confidence) <= width + 1e-6
    assert rows == 1 or wilson_width(score, rows - 1, confidence) > width - 1e-6


def test_the_width_is_that_of_scipy() -> None:
    for hits, rows in ((0, 7), (9, 10), (450, 500)):
        interval = binomtest(hits, rows).proportion_ci(0.95, "wilson")
        assert wilson_width(hits / rows, rows) == pytest.approx(interval.high - interval.low)
        assert wilson_interval(hits, rows) == pytest.approx((interval.low, interval.high))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert rows_for_interval(0.9, 0.04) == 868


def test_what_cannot_be_trusted_says_why() -> None:
    found = {(u.metric, u.subject): u for u in untrusted({"a": 60, "b": 4, "c": 0})}
    assert set(found) == {
        *((m, s) for m in ("recall", "f1") for s in "bc"),
        *((m, "all classes") for m in ("macro_f1", "macro_recall", "balanced_accuracy")),
        ("accuracy", "all rows"),
        ("ece", "all rows"),
    }
    assert "25 points" in found["recall", "b"].reason and "not measured" in found["recall", "c"].reason
    assert "2 of 3 classes" in found["macro_f1", "all classes"].reason
    assert untrusted({"a": 150, "b": 150}) == ()
    assert untrusted({})[0].metric == "accuracy"
