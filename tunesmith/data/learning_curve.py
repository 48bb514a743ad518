"""Would more rows help, and are there enough to tell? Scores at growing sizes, a power law through them, and row counts.

Shape suffixes: P = measured points, R = resamples, G = exponents tried, K = kinds of best point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.seeding import seed_for, unit_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_SIZES = 4
RESAMPLES = 200
CONFIDENCE = 0.95
GENTLEST, STEEPEST, EXPONENTS = 1e-3, 2.0, 1000
FEW, FEW_FOR_ONE_SCORE, FEW_FOR_CALIBRATION = 10, 100, 300


@dataclass(frozen=True)
class Point:
    """One score: how many training rows, in which draw."""

    rows: int
    draw: int
    score: float


@dataclass(frozen=True)
class Curve:
    """The scores measured, and how many (size, draw) pairs had none."""

    points: tuple[Point, ...]
    without_score: int


@dataclass(frozen=True)
class Forecast:
    """The score that the fitted power law gives for `rows` training rows, with its bootstrap interval."""

    rows: int
    score: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """score = limit + slope × rows^-exponent, and forecasts. `limit` is what endless rows would reach by it.

    The intervals hold the scatter of the draws, not that of the test rows (the same for all sizes), nor the doubt whether
    the curve stays a power law; forecasts far beyond the measured sizes are worth little.
    """

    limit: float
    slope: float
    exponent: float
    forecasts: tuple[Forecast, ...]


@dataclass(frozen=True)
class Untrusted:
    """A number that rests on too few rows: which metric, of what (a class, or all rows), on how many, and why."""

    metric: str
    subject: str
    rows: int
    reason: str


def curve_sizes(rows: int, fewest: int = 20, count: int = 6) -> list[int]:
    """Up to `count` training sizes, each twice the one before, that end with all rows; none below `fewest`."""
    return sorted({size for size in (rows >> power for power in range(count)) if size >= fewest})


def nested_subset(ids: Sequence[str], size: int, seed: int, draw: int) -> Ints:
    """Row numbers of the `size` rows that come first by a hash of their ids: the subsets of one draw contain each other."""
    units = np.array([unit_interval(seed, f"curve/{draw}/{name}") for name in ids])
    return np.sort(np.argsort(units, kind="stable")[:size])


def learning_curve(ids: Sequence[str], score: Callable[[Ints], float], sizes: Sequence[int], draws: int = 3, seed: int = 0) -> Curve:
    """Scores of models trained on nested subsets. All rows are one subset, which is scored once.

    Args:
        ids: of the training rows.
        score: row numbers to the score of a model trained on them; NaN where there is none.
        sizes: training sizes, at most the number of rows.
        draws: how many subsets of each size.
        seed: of the run.

    Raises:
        DataError: a size is not from 1 to the number of rows.
    """
    wrong = [size for size in sizes if not 0 < size <= len(ids)]
    if wrong:
        raise DataError(Issue("learning curve sizes", f"must be from 1 to {len(ids)}", str(wrong[0]), "Leave larger sizes out."))
    points, without = list[Point](), 0
    for draw in range(draws):
        for size in sorted(set(sizes)):
            if size == len(ids) and draw:
                continue
            value = float(score(nested_subset(ids, size, seed, draw)))
            if math.isfinite(value):
                points.append(Point(size, draw, value))
            else:
                without += 1
    return Curve(tuple(points), without)


def fit_power_law(curve: Curve, bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0, higher_is_better: bool = True) -> PowerLaw | None:
    """The power law with the least squared error, and forecasts at all, twice and four times the rows; None below four sizes.

    Bounded: the limit lies within `bounds`, the score gets better with rows, the exponent lies in (0, 2]. The interval is
    that of refits to resampled residuals, widened for the three fitted numbers.

    Args:
        curve: the measured scores.
        bounds: of the score; infinite where there are none.
        seed: of the resampling.
        higher_is_better: whether a higher score is the better one.
    """
    rows_P, scores_P = np.array([p.rows for p in curve.points], float), np.array([p.score for p in curve.points])
    if len(np.unique(rows_P)) < FEWEST_SIZES:
        return None
    largest, sign = float(rows_P.max()), -1.0 if higher_is_better else 1.0
    size_P = rows_P / largest  # so that slope and limit are of one size
    fitted_13 = _fit(size_P, scores_P[None], bounds, sign)
    limit, slope, exponent = map(float, fitted_13[0])
    inside_P = limit + slope * size_P**-exponent
    residual_P = (scores_P - inside_P) * math.sqrt(len(scores_P) / max(len(scores_P) - 3, 1))
    draw = np.random.Generator(np.random.PCG64(seed_for(seed, "learning curve")))
    refits_R3 = _fit(size_P, inside_P + draw.choice(residual_P, (RESAMPLES, len(residual_P))), bounds, sign)
    forecasts = []
    for times in (1, 2, 4):
        low, high = np.quantile(_forecast(refits_R3, times), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        value = float(_forecast(fitted_13, times)[0])
        forecasts.append(Forecast(int(largest) * times, value, (min(float(low), value), max(float(high), value))))
    return PowerLaw(limit, slope * largest**exponent, exponent, tuple(forecasts))


def rows_for_interval(score: float, width: float, confidence: float = CONFIDENCE) -> int:
    """How many test rows give a share of rows, such as accuracy, a Wilson interval (1927) no wider than `width`.

    Solves width² (n + z²)² = 4 z² (p (1 - p) n + z² / 4) for n.
    """
    z2, spread, width2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2, score * (1 - score), width**2
    half = z2 * (2 * spread - width2)
    root = half + math.sqrt(max(half**2 + width2 * z2**2 * (1 - width2), 0.0))
    return max(1, math.ceil(root / width2 - 1e-9))


def untrusted(class_rows: Mapping[str, int]) -> tuple[Untrusted, ...]:
    """Numbers of a test set that must not be relied on, given how many test rows each class has.

    Rules: recall and F1 of a class rest on its rows, and want 10; means over classes want that of every class; one score
    of all rows wants 100; a calibration error, which is a mean over 15 bins, wants 300, or 20 in each bin.
    """
    rows, few = sum(class_rows.values()), {name: n for name, n in class_rows.items() if n < FEW}
    found = []
    for name, n in few.items():
        reason = f"one row moves it by {100 / n:.0f} points" if n else "no test row has this label: it is not measured at all"
        found += [Untrusted(metric, name, n, reason) for metric in ("recall", "f1")]
    if few:
        share = f"{len(few)} of {len(class_rows)} classes have fewer than {FEW} test rows and count as much as the others"
        found += [Untrusted(metric, "all classes", rows, share) for metric in ("macro_f1", "macro_recall", "balanced_accuracy")]
    if rows < FEW_FOR_ONE_SCORE:
        width = math.ceil(100 * wilson_width(0.9, max(rows, 1)))
        found.append(Untrusted("accuracy", "all rows", rows, f"its 95 % interval is about {width} points wide"))
    if rows < FEW_FOR_CALIBRATION:
        found.append(Untrusted("ece", "all rows", rows, f"fewer than {FEW_FOR_CALIBRATION // 15} rows for each of its 15 bins"))
    return tuple(found)


def wilson_width(score: float, rows: int, confidence: float = CONFIDENCE) -> float:
    """The width of the Wilson interval of a share."""
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    return 2 * math.sqrt(z2 * (score * (1 - score) * rows + z2 / 4)) / (rows + z2)


def wilson_interval(hits: int, rows: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Wilson interval (1927) of a share of rows; everything from 0 to 1 without rows."""
    if not rows:
        return 0.0, 1.0
    z2, share = NormalDist().inv_cdf((1 + confidence) / 2) ** 2, hits / rows
    middle, half = (hits + z2 / 2) / (rows + z2), wilson_width(share, rows, confidence) / 2
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def _forecast(numbers_R3: Floats, times: float) -> Floats:
    """limit + slope × times^-exponent of each fit, where `times` counts in the largest size measured."""
    values_R: Floats = numbers_R3[:, 0] + numbers_R3[:, 1] * times ** -numbers_R3[:, 2]
    return values_R


def _fit(size_P: Floats, scores_RP: Floats, bounds: tuple[float, float], sign: float) -> Floats:
    """Limit, slope and exponent of the least squared error for each set of scores, (R, 3).

    For a fixed exponent the problem is a linear one with bounds, whose best point is inside, or at one of three edges. All
    exponents of a fine grid (ratio 1.008) are tried, so that the error's several valleys do not matter.
    """
    exponent_G = np.geomspace(GENTLEST, STEEPEST, EXPONENTS)
    x_GP, (low, high), n = size_P ** -exponent_G[:, None], bounds, len(size_P)
    x_G, xx_G, xy_RG = x_GP.sum(1), (x_GP**2).sum(1), scores_RP @ x_GP.T
    y_R1, yy_R1 = scores_RP.sum(1, keepdims=True), (scores_RP**2).sum(1, keepdims=True)

    def along(limit: float) -> tuple[Floats, Floats]:
        slope_RG = (xy_RG - limit * x_G) / xx_G
        return np.full_like(xy_RG, limit), np.where(sign * slope_RG > 0, slope_RG, 0.0)

    free_RG = (n * xy_RG - x_G * y_R1) / (n * xx_G - x_G**2)
    inside = ((y_R1 - free_RG * x_G) / n, free_RG)
    flat = (np.broadcast_to(np.clip(y_R1 / n, low, high), xy_RG.shape), np.zeros_like(xy_RG))
    pairs = [inside, flat, *(along(edge) for edge in bounds if math.isfinite(edge))]
    limit_KRG, slope_KRG = (np.stack(values) for values in zip(*pairs, strict=True))
    error_KRG = yy_R1 - 2 * limit_KRG * y_R1 - 2 * slope_KRG * xy_RG + n * limit_KRG**2
    error_KRG += 2 * limit_KRG * slope_KRG * x_G + slope_KRG**2 * xx_G
    error_KRG[(limit_KRG < low) | (limit_KRG > high) | (sign * slope_KRG < 0)] = np.inf
    place_R = error_KRG.transpose(1, 0, 2).reshape(len(scores_RP), -1).argmin(1)
    kind_R, grid_R = np.divmod(place_R, EXPONENTS)
    each = np.arange(len(scores_RP))
    return np.stack([limit_KRG[kind_R, each, grid_R], slope_KRG[kind_R, each, grid_R], exponent_G[grid_R]], 1)
