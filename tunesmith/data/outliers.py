"""Rows unlike anything in the training data: exact nearest neighbours by cosine of frozen features.

Score of a row: mean cosine distance (1 - cosine, in [0, 2]) to its k nearest training rows; a training row does not count
itself. Threshold: a robust upper quantile of the training rows' own scores. Shape suffixes: N = training rows, Q = rows
asked about, E = width, K = neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.learning_curve import wilson_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_ELEMENTS = 2**23
"""Similarities held at a time: 32 MiB."""
NEIGHBOURS = 10
SPREADS = 3.5
"""Robust standard deviations above the median (Iglewicz & Hoaglin 1993)."""
QUANTILE = 0.99


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each row asked about, nearest first: their numbers and cosine similarities, (Q, K)."""

    rows_QK: Ints
    cosines_QK: Floats


@dataclass(frozen=True)
class Outliers:
    """Rows of one split that lie outside the training data, furthest first, with every row's score.

    `share` is the share of such rows with its Wilson interval; `expected` is the share among the training rows themselves, by
    the same threshold.
    """

    rows: Ints
    scores_Q: Floats
    threshold: float
    share: float
    interval: tuple[float, float]
    expected: float
    neighbours: Neighbours
    note: str = ""


def nearest(queries_QE: ArrayLike, base_NE: ArrayLike | None, k: int) -> Neighbours:
    """The k nearest base rows of each query by cosine, exact, a block of queries at a time.

    Args:
        queries_QE: rows asked about.
        base_NE: rows to look in; None for the queries themselves, where a row is not its own neighbour (a copy of it is).
        k: neighbours; fewer where there are fewer base rows.

    Raises:
        DataError: a value is not finite.
    """
    import torch  # seconds to import: only when neighbours are asked for

    queries_QE = _unit(queries_QE, "features")
    base = queries_QE if base_NE is None else _unit(base_NE, "training features")
    own = base_NE is None
    k = max(0, min(k, len(base) - own))
    rows_QK, cosines_QK = np.zeros((len(queries_QE), k), np.int64), np.zeros((len(queries_QE), k))
    if k:
        base_EN = torch.from_numpy(base).T
        step = max(1, BLOCK_ELEMENTS // len(base))
        for start in range(0, len(queries_QE), step):
            cosines_BN = torch.from_numpy(queries_QE[start : start + step]) @ base_EN
            if own:
                places = torch.arange(len(cosines_BN))
                cosines_BN[places, start + places] = -torch.inf
            best = cosines_BN.topk(k, dim=1)
            rows_QK[start : start + step], cosines_QK[start : start + step] = best.indices.numpy(), best.values.numpy()
    return Neighbours(rows_QK, np.clip(cosines_QK, -1.0, 1.0))


def distance_threshold(scores_N: Floats, spreads: float = SPREADS, quantile: float = QUANTILE) -> float:
    """The larger of median + `spreads` robust standard deviations (1.4826 × MAD) and the `quantile` of the training scores.

    The median and MAD are not moved by outliers among the training rows; the quantile keeps a skewed distribution from
    naming more than 1 - quantile of its own rows.
    """
    median = float(np.median(scores_N))
    spread = 1.4826 * float(np.median(np.abs(scores_N - median)))
    return max(median + spreads * spread, float(np.quantile(scores_N, quantile)))


def training_outliers(train: Neighbours) -> Outliers:
    """Training rows far from all other training rows, from the neighbours that they have among themselves."""
    return _outliers(train, None)


def outliers(rows_QE: ArrayLike, train_NE: ArrayLike, train: Neighbours) -> Outliers:
    """Rows of another split that lie outside the training data, by the threshold of the training rows and their own neighbours."""
    return _outliers(nearest(rows_QE, train_NE, NEIGHBOURS), train)


def _outliers(found: Neighbours, train: Neighbours | None) -> Outliers:
    scores_Q = _distances(found)
    train_N = scores_Q if train is None else _distances(train)
    enough = (found if train is None else train).rows_QK.shape[1] > 0
    threshold = distance_threshold(train_N) if enough else float("inf")
    rows = np.flatnonzero(scores_Q > threshold)
    return Outliers(
        rows=rows[np.argsort(-scores_Q[rows], kind="stable")],
        scores_Q=scores_Q,
        threshold=threshold,
        share=len(rows) / len(scores_Q) if len(scores_Q) else 0.0,
        interval=wilson_interval(len(rows), len(scores_Q)),
        expected=float((train_N > threshold).mean()) if len(train_N) else 0.0,
        neighbours=found,
        note="" if enough else "fewer than two training rows: nothing to compare with, so no row is named",
    )


def _distances(found: Neighbours) -> Floats:
    """Mean distance of each row; 0 where there is nothing to compare with."""
    if not found.rows_QK.shape[1]:
        return np.zeros(len(found.rows_QK))
    distances: Floats = 1.0 - found.cosines_QK.mean(1)
    return distances


def _unit(features_NE: ArrayLike, what: str) -> NDArray[np.float32]:
    """Rows scaled to length 1; a row of zeros stays, and is at a right angle to all others."""
    features = np.asarray(features_NE, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise DataError(Issue(f"{what}, row {bad[0]}", "must be finite numbers", f"{len(bad)} rows that are not", "Leave these rows out."))
    lengths_N1 = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.ascontiguousarray(features / np.where(lengths_N1 > 0, lengths_N1, 1), dtype=np.float32)
    return scaled
