"""Agreement against published worked examples and references; consensus and quality against planted truth."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_data_labels import boxes
from tunesmith.core.errors import DataError
from tunesmith.data.annotators import (
    Level,
    Ratings,
    annotator_quality,
    box_agreement,
    cohen_kappas,
    dawid_skene,
    dawid_skene_consensus,
    fleiss_kappa,
    krippendorff_alpha,
    majority,
    ratings,
)

OBSERVERS = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def long_table(by_annotator: dict[str, list[Any]]) -> pl.DataFrame:
    rows = [(n, name, label) for name, labels in by_annotator.items() for n, label in enumerate(labels)]
    return pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row")


def of_codes(codes_IA: Any, labels: int) -> Ratings:
    names = tuple(f"a{n}" for n in range(codes_IA.shape[1]))
    return Ratings(tuple(range(len(codes_IA))), names, tuple(range(labels)), codes_IA, 0, 0, 0)


def planted(items: int = 400, seed: int = 0, accuracies: tuple[float, ...] = (0.95, 0.9, 0.55, 0.5, 0.5)) -> tuple[Any, Ratings]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, items)
    wrong = draw.random((items, len(accuracies))) > np.array(accuracies)
    codes = np.where(wrong, (truth[:, None] + draw.integers(1, 3, wrong.shape)) % 3, truth[:, None])
    return truth, of_codes(np.where(draw.random(codes.shape) < 0.1, -1, codes), 3)


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_worked_example(level: Level, value: float) -> None:
    found = krippendorff_alpha(ratings(long_table(OBSERVERS)), level)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert found.interval and found.interval[0] < value < found.interval[1]
    assert found.items == 11 and found.note == "1 items left out: fewer than two labels"


def test_fleiss_kappa_of_the_worked_example() -> None:
    by_item = [[label for label, count in enumerate(row) for _ in range(count)] for row in FLEISS]
    found = fleiss_kappa(ratings(long_table({f"r{a:02}": [row[a] for row in by_item] for a in range(14)})))
    assert found.value == pytest.approx(0.210, abs=5e-4)
    assert found.items == 10 and found.interval


ratings_of = st.integers(0, 10_000).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(ratings_of, st.integers(2, 12), st.integers(2, 4), st.integers(2, 4), st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_that_of_all_pairs(draw: Any, items: int, annotators: int, labels: int, level: Level) -> None:
    codes = draw.integers(-1, labels, (items, annotators))
    found = krippendorff_alpha(of_codes(codes, labels), level)
    units = [[c for c in row if c >= 0] for row in codes.tolist()]
    units = [unit for unit in units if len(unit) > 1]
    every = [c for unit in units for c in unit]
    counts = np.bincount(np.array(every, int), minlength=labels)

    def difference(c: int, k: int) -> float:
        low, high = min(c, k), max(c, k)
        ordinal = float(counts[low : high + 1].sum() - (counts[c] + counts[k]) / 2)
        return {"nominal": float(c != k), "interval": float(c - k) ** 2, "ordinal": ordinal**2 if c != k else 0.0}[level]

    observed = sum(difference(c, k) / (len(unit) - 1) for unit in units for c, k in itertools.permutations(unit, 2))
    expected = sum(difference(c, k) for c, k in itertools.permutations(every, 2)) / max(len(every) - 1, 1)
    assert found.items == len(units)
    if expected == 0:
        assert found.value is None and found.note
    else:
        assert found.value == pytest.approx(1 - observed / expected)


@settings(max_examples=40, deadline=None)
@given(ratings_of, st.integers(1, 40), st.integers(2, 4))
def test_cohen_is_that_of_scikit_learn(draw: Any, items: int, labels: int) -> None:
    from sklearn.metrics import cohen_kappa_score

    codes = draw.integers(-1, labels, (items, 3))
    for (first, second), found in cohen_kappas(of_codes(codes, labels)).items():
        a, b = codes[:, int(first[1])], codes[:, int(second[1])]
        both = (a >= 0) & (b >= 0)
        assert found.items == both.sum()
        if not both.any() or len(set(a[both]) | set(b[both])) == 1:
            assert found.value is None and found.note
            continue
        assert found.value == pytest.approx(cohen_kappa_score(a[both], b[both], labels=range(labels)))
        if found.interval:
            assert found.interval[0] <= found.interval[1]


def test_the_interval_covers_the_agreement_of_many_items() -> None:
    wide = krippendorff_alpha(planted(20_000)[1], "nominal").value
    assert wide is not None
    covered = 0
    for seed in range(40):
        found = krippendorff_alpha(planted(150, seed + 1)[1], "nominal", seed)
        assert found.interval
        covered += found.interval[0] <= wide <= found.interval[1]
    assert covered >= 34
    assert krippendorff_alpha(planted(50)[1], "nominal", 3) == krippendorff_alpha(planted(50)[1], "nominal", 3)


def test_majority_states_its_ties() -> None:
    found = majority(of_codes(np.array([[0, 0, 1], [0, 1, -1], [-1, -1, -1], [2, 1, 0]]), 3))
    assert found.codes_I.tolist() == [0, -1, -1, -1]
    assert found.ties == {1: (0, 1), 3: (0, 1, 2)}
    assert found.shares_I.tolist() == pytest.approx([2 / 3, 0.5, 0, 1 / 3])


def test_dawid_skene_beats_the_majority_and_knows_the_annotators() -> None:
    truth, given_ratings = planted()
    fitted = dawid_skene(given_ratings)
    consensus = dawid_skene_consensus(fitted)
    assert fitted.converged and not consensus.ties
    right, votes = (consensus.codes_I == truth).mean(), (majority(given_ratings).codes_I == truth).mean()
    assert right > 0.9 > votes
    assert np.allclose(fitted.accuracy_A(), [0.95, 0.9, 0.55, 0.5, 0.5], atol=0.07)
    assert np.allclose(fitted.errors_ACC.sum(2), 1)


def test_dawid_skene_is_the_plain_loop() -> None:
    _, given_ratings = planted(60)
    codes = given_ratings.codes_IA
    posterior = np.array([[np.sum(row == c) for c in range(3)] for row in codes], float)
    posterior /= posterior.sum(1, keepdims=True)
    fitted = dawid_skene(given_ratings)
    for _ in range(fitted.steps):
        errors = np.full((5, 3, 3), 0.01)
        for item, row in enumerate(codes):
            for annotator, label in enumerate(row):
                if label >= 0:
                    errors[annotator, :, label] += posterior[item]
        errors /= errors.sum(2, keepdims=True)
        prior, new = posterior.mean(0), np.zeros_like(posterior)
        for item, row in enumerate(codes):
            new[item] = prior * np.prod([errors[a, :, label] for a, label in enumerate(row) if label >= 0], axis=0)
        posterior = new / new.sum(1, keepdims=True)
    assert np.allclose(fitted.posterior_IC, posterior, atol=1e-8) and np.allclose(fitted.errors_ACC, errors, atol=1e-8)


def test_the_own_vote_does_not_count() -> None:
    codes = np.array([[0, 0, 1], [1, 1, 1], [0, 1, -1], [0, -1, -1]])
    given_ratings = of_codes(codes, 2)
    first, second, third = annotator_quality(given_ratings, dawid_skene(given_ratings))
    assert (first.rated, first.judged, first.accuracy) == (4, 2, 0.5)  # tied others, and nobody else, are not judged
    assert (second.rated, second.judged, second.accuracy) == (3, 2, 0.5)
    assert (third.rated, third.judged, third.accuracy) == (2, 2, 0.5)


def test_what_is_left_out_of_a_table_is_counted() -> None:
    rows = [(1, "x", "a"), (1, "x", "a"), (1, "y", "b"), (1, "y", "a"), (2, "x", None), (2, "y", "b")]
    found = ratings(pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"))
    assert (found.repeated, found.contradictory, found.empty) == (1, 1, 1)
    assert found.items == (1, 2) and found.labels == ("a", "b") and found.codes_IA.tolist() == [[0, -1], [-1, 1]]


def test_bad_tables_are_refused() -> None:
    table = long_table({"x": ["low", "high"], "y": ["high", "mid"]})
    with pytest.raises(DataError, match="no label"):
        ratings(table.drop("label"))
    with pytest.raises(DataError, match="usable"):
        ratings(table.clear())
    with pytest.raises(DataError, match="mid"):
        ratings(table, ["low", "high"])
    assert ratings(table, ["low", "mid", "high"]).labels == ("low", "mid", "high")
    with pytest.raises(DataError, match="numbers for interval"):
        krippendorff_alpha(ratings(table), "interval")


def test_agreement_on_boxes() -> None:
    same, moved, empty = boxes((0, 0, 10, 10, 0), (20, 20, 30, 30, 1)), boxes((0, 0, 10, 5, 0), (20, 20, 30, 30, 0)), boxes()
    full = box_agreement([{"x": same, "y": same}, {"x": same, "y": same}])
    assert full["iou"].value == full["f1"].value == 1.0 and full["f1"].interval is None
    some = box_agreement([{"x": same, "y": moved}, {"x": same, "y": empty}, {"x": same}])
    assert some["iou"].value == pytest.approx(0.5)
    assert some["f1"].value == pytest.approx(2 * 1 / 6)
    assert some["f1"].items == 2 and "1 images left out" in some["f1"].note
    assert box_agreement([])["f1"].value is None
