"""Drift between two sets: nothing between equal sets, everything between apart ones, and the numbers of reference libraries."""

from __future__ import annotations

import json
from collections import Counter
from math import log, sqrt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from tunesmith.data.drift import (
    PRIOR_WORDS,
    area_under_curve,
    classifier_drift,
    drift,
    label_drift,
    length_drift,
    telling_words,
    vocabulary_drift,
    word_counts,
)

TEXTS = st.lists(st.text(st.sampled_from("ab cé "), max_size=12), min_size=1, max_size=20)
LABELS = st.lists(st.sampled_from("xyz"), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_lengths_follow_the_definition_and_equal_sets_do_not_differ(a: list[str], b: list[str]) -> None:
    found = length_drift(pl.Series(a), pl.Series(b))
    shares = [[sum(len(text) <= length for text in column) / len(column) for length in range(13)] for column in (a, b)]
    assert found.statistic == pytest.approx(max(abs(x - y) for x, y in zip(*shares, strict=True)))
    assert length_drift(pl.Series(a), pl.Series(a)).statistic == 0


def test_the_p_of_lengths_is_near_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for shift in (0, 1, 2):
        a, b = (pl.Series(["x" * int(length) for length in rng.integers(10 + more, 40 + more, 400)]) for more in (0, shift))
        want = stats.ks_2samp(a.str.len_chars(), b.str.len_chars(), method="asymp")
        assert length_drift(a, b).p == pytest.approx(want.pvalue, rel=0.15)  # scipy corrects the limit for few rows


@settings(max_examples=100, deadline=None)
@given(LABELS, LABELS)
def test_labels_agree_with_scipy(a: list[str], b: list[str]) -> None:
    found = label_drift(pl.Series(a), pl.Series(b))
    classes = sorted({*a, *b})
    if len(classes) > 1:
        want = stats.chi2_contingency([[column.count(name) for name in classes] for column in (a, b)], correction=False)
        assert (found.chi_square, found.p, found.freedom) == (pytest.approx(want.statistic), pytest.approx(want.pvalue), want.dof)
        assert found.lowest_expected == pytest.approx(want.expected_freq.min())
    assert found.total_variation == pytest.approx(sum(abs(a.count(c) / len(a) - b.count(c) / len(b)) for c in classes) / 2)
    assert label_drift(pl.Series(a), pl.Series(a)).total_variation == 0


def test_label_lists_count_for_each_label() -> None:
    found = label_drift(pl.Series([["x", "y"], []], dtype=pl.List(pl.String)), pl.Series([["x"], ["y"]]))
    assert (found.total_variation, found.freedom) == (0, 1)


def test_words_and_their_overlap() -> None:
    a, b = word_counts(pl.Series(["The cat, the dog", None])), word_counts(pl.Series(["the BIRD bird naïve_1"]))
    assert a == {"the": 2, "cat": 1, "dog": 1}
    found = vocabulary_drift(a, b)
    assert (found.unseen_share, found.jaccard) == (0.75, 0.2)
    assert (found.words_a, found.words_b, found.different_a, found.different_b) == (4, 4, 3, 3)
    assert vocabulary_drift(a, a).unseen_share == 0
    assert vocabulary_drift(Counter(), Counter()).jaccard is None


def test_telling_words_follow_the_paper() -> None:
    a, b = Counter({"x": 10, "y": 5, "z": 85}), Counter({"x": 2, "y": 50, "z": 148})
    found = {word.word: word for word in telling_words(a, b)}
    alpha = PRIOR_WORDS * 12 / 300
    odds_a = log((10 + alpha) / (100 + PRIOR_WORDS - 10 - alpha))
    odds_b = log((2 + alpha) / (200 + PRIOR_WORDS - 2 - alpha))
    assert found["x"].z == pytest.approx((odds_a - odds_b) / sqrt(1 / (10 + alpha) + 1 / (2 + alpha)))
    assert found["x"].z > 0 > found["y"].z
    assert (found["y"].count_a, found["y"].count_b) == (5, 50)
    assert telling_words(Counter(), Counter()) == []
    assert telling_words(Counter("a"), Counter("a")) == []  # one word tells nothing


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS)
def test_telling_words_are_antisymmetric(a: list[str], b: list[str]) -> None:
    counts = word_counts(pl.Series(a)), word_counts(pl.Series(b))
    forth, back = telling_words(*counts), telling_words(*reversed(counts))
    assert {word.word: word.z for word in forth} == pytest.approx({word.word: -word.z for word in back})
    assert [word.z for word in forth] == sorted((word.z for word in forth), reverse=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=2, max_size=30), st.lists(st.integers(0, 8), min_size=2, max_size=30))
def test_the_area_agrees_with_scikit_learn_and_its_variance_with_the_definition(a: list[int], b: list[int]) -> None:
    area, variance = area_under_curve(np.array(a, float), np.array(b, float))
    assert area == pytest.approx(roc_auc_score([1] * len(a) + [0] * len(b), [*a, *b]))
    wins = np.array([[(x > y) + 0.5 * (x == y) for y in b] for x in a])
    assert variance == pytest.approx(wins.mean(1).var(ddof=1) / len(a) + wins.mean(0).var(ddof=1) / len(b))


def test_a_classifier_cannot_tell_equal_sets_and_can_tell_shifted_ones() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(20):
        same = classifier_drift(rng.normal(size=(150, 4)), rng.normal(size=(100, 4)))
        assert same.auc is not None and same.interval is not None
        covered += same.interval[0] <= 0.5 <= same.interval[1]
    assert covered >= 16
    moved = classifier_drift(rng.normal(size=(150, 4)), rng.normal(size=(100, 4)) + 2)
    assert moved.auc is not None and moved.auc > 0.95 and moved.interval is not None and moved.interval[0] > 0.9
    assert moved.rows == 250


def test_few_rows_are_unknown_with_the_reason() -> None:
    few = classifier_drift(np.zeros((3, 2)), np.zeros((50, 2)))
    assert (few.auc, few.interval) == (None, None)
    assert "fewer than" in few.note


def test_the_record_is_ready_for_json_and_repeats() -> None:
    rng = np.random.default_rng(1)
    a = pl.DataFrame({"text": ["cheap pills now", "buy cheap now"] * 10, "label": ["spam", "ham"] * 10})
    b = pl.DataFrame({"text": ["see you at noon", None] * 10, "label": ["ham", "ham"] * 10})
    features = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    record = drift(a, b, features)
    assert record == drift(a, b, features)
    assert {word.word for word in record.words_a[:2]} == {"cheap", "now"}
    assert all(word.z < 0 for word in record.words_b) and {word.word for word in record.words_b} == {"see", "you", "at", "noon"}
    assert record.labels is not None and record.labels.total_variation == 0.5
    assert json.loads(json.dumps(record.as_dict()))["vocabulary"]["unseen_share"] == 1


def test_without_labels_features_and_rows_nothing_is_made_up() -> None:
    a = pl.DataFrame({"text": ["a"], "text_pair": ["b c"]})
    record = drift(a, a.clear())
    assert (record.labels, record.classifier, record.lengths.statistic, record.vocabulary.unseen_share) == (None, None, None, None)
    assert record.vocabulary.words_a == 3
