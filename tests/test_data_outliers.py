"""Neighbours are exact, planted outliers are named, and training rows set the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data import outliers as module
from tunesmith.data.outliers import NEIGHBOURS, distance_threshold, nearest, outliers, training_outliers

draws = st.integers(0, 10_000).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(draws, st.integers(0, 30), st.integers(1, 30), st.integers(1, 6), st.booleans())
def test_neighbours_are_those_of_the_whole_matrix(draw: Any, queries: int, rows: int, k: int, own: bool) -> None:
    base = draw.normal(size=(rows, 4))
    asked = base if own else draw.normal(size=(queries, 4))
    found = nearest(asked, None if own else base, k)
    cosines = (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ (base / np.linalg.norm(base, axis=1, keepdims=True)).T
    if own:
        np.fill_diagonal(cosines, -np.inf)
    width = min(k, rows - own)
    assert found.rows_QK.shape == (len(asked), width)
    assert np.allclose(found.cosines_QK, -np.sort(-cosines, axis=1)[:, :width], atol=1e-5)
    assert np.allclose(np.take_along_axis(cosines, found.rows_QK, 1), found.cosines_QK, atol=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(101, 8))
    whole = nearest(rows, None, 5)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 700)
    parts = nearest(rows, None, 5)
    assert np.array_equal(whole.rows_QK, parts.rows_QK) and np.allclose(whole.cosines_QK, parts.cosines_QK, atol=1e-6)


def test_scikit_learn_finds_the_same_neighbours() -> None:
    from sklearn.neighbors import NearestNeighbors

    draw = np.random.default_rng(0)
    base, asked = draw.normal(size=(200, 16)), draw.normal(size=(30, 16))
    distances, rows = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(base).kneighbors(asked)
    found = nearest(asked, base, 7)
    assert np.array_equal(found.rows_QK, rows) and np.allclose(1 - found.cosines_QK, distances, atol=1e-5)


def cloud(n: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(n, 16)) * 0.3 + np.eye(1, 16) * 3


def test_planted_outliers_are_named_first() -> None:
    train, test = cloud(500, 0), cloud(200, 1)
    planted = [7, 50, 180]
    test[planted] = np.random.default_rng(2).normal(size=(3, 16)) - np.eye(1, 16) * 2
    found = outliers(test, train, nearest(train, None, NEIGHBOURS))
    assert set(found.rows[:3].tolist()) == set(planted)
    assert (
        found.share <= 0.05 and found.interval[0] <= found.share == len(found.rows) / 200 <= found.interval[1] and found.expected <= 0.011
    )
    assert (np.diff(found.scores_Q[found.rows]) <= 0).all()
    assert found.neighbours.rows_QK.shape == (200, 10)
    train[3] = -train[3]
    assert training_outliers(nearest(train, None, NEIGHBOURS)).rows[0] == 3


def test_outliers_in_training_do_not_move_the_threshold_much() -> None:
    clean = np.random.default_rng(0).normal(1, 0.1, 1000)
    dirty = np.concatenate([clean, np.full(5, 50.0)])
    assert distance_threshold(dirty) < 1.1 * distance_threshold(clean)
    assert (np.exp(clean * 8) > distance_threshold(np.exp(clean * 8))).mean() <= 0.01


def test_too_few_rows_and_bad_features_are_said() -> None:
    lonely = training_outliers(nearest(np.ones((1, 3)), None, NEIGHBOURS))
    assert not len(lonely.rows) and "fewer than two" in lonely.note
    assert not len(outliers(np.ones((2, 3)), np.ones((1, 3)), nearest(np.ones((1, 3)), None, NEIGHBOURS)).rows)
    assert outliers(np.zeros((0, 3)), np.ones((4, 3)), nearest(np.ones((4, 3)), None, NEIGHBOURS)).share == 0.0
    zeros = nearest(np.zeros((1, 3)), np.ones((4, 3)), 2)
    assert (zeros.cosines_QK == 0).all()
    with pytest.raises(DataError, match="row 1"):
        nearest(np.array([[1.0], [np.nan]]), None, 1)
