"""Suspects: planted wrong labels are found, every row is accounted for, and cleanlab agrees where it is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data.label_boxes import MISSING_BOX, WRONG_LABEL, WRONG_PLACE, Boxes, iou, matched_ious, suspects_boxes
from tunesmith.data.labels import (
    OutOfFold,
    class_overlap,
    conflicting_neighbours,
    out_of_fold,
    out_of_fold_loss,
    suspects_multi_label,
    suspects_regression,
    suspects_single,
    suspects_tokens,
    trust,
)
from tunesmith.data.outliers import nearest


def planted(n: int = 300, classes: int = 3, share: float = 0.1, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Features around class centres, noisy labels, the mask of wrong ones, folds."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, n)
    centres = np.eye(classes, 8) * 4
    features = (centres[truth] + draw.normal(size=(n, 8))).astype(np.float32)
    wrong = draw.random(n) < share
    noisy = np.where(wrong, (truth + draw.integers(1, classes, n)) % classes, truth)
    return features, noisy, wrong, np.arange(n) % 5


def nearest_centre(features: Any, targets: Any, weights: Any = None, classes: int = 3) -> Any:
    """A classifier whose probabilities are a softmax over squared distances to the classes' means."""
    weights = np.ones(len(targets)) if weights is None else weights
    mine = [(features[targets == c], weights[targets == c]) for c in range(classes)]
    means = np.stack([np.average(rows, 0, weight) if len(rows) else np.zeros(8) for rows, weight in mine])

    def predict(rows: Any) -> Any:
        logits = -0.5 * ((rows[:, None] - means) ** 2).sum(-1)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    return predict


probabilities = st.integers(0, 10_000).map(np.random.default_rng)


@settings(max_examples=150, deadline=None)
@given(probabilities, st.integers(0, 40), st.integers(2, 5), st.sampled_from([0.05, 1.0, 20.0]))
def test_single_suspects_are_ranked_judged_rows_whose_label_is_not_the_best(draw: Any, n: int, classes: int, sharpness: float) -> None:
    values, targets, judged = draw.dirichlet(np.full(classes, 1 / sharpness), n), draw.integers(0, classes, n), draw.random(n) < 0.8
    found = suspects_single(targets, values, judged)
    quality = [s.quality for s in found.suspects]
    assert quality == sorted(quality)
    assert len(found.rows) == len(found.suspects) == round(found.noise.share * found.noise.n)
    assert found.not_judged + found.noise.n == n
    assert np.array_equal(np.isnan(found.quality_N), ~judged)
    low, high = found.noise.interval
    assert 0 <= low <= found.noise.share <= high <= 1
    for suspect in found.suspects:
        assert judged[suspect.row] and suspect.given == targets[suspect.row] != suspect.suggested
        assert suspect.quality == values[suspect.row, targets[suspect.row]] <= (suspect.probability or 0)
    if found.noise.joint_CC is not None:
        assert found.noise.joint_CC.sum() == pytest.approx(1)
        assert np.allclose(found.noise.joint_CC.sum(1), np.bincount(targets[judged], minlength=classes) / max(judged.sum(), 1))


def test_planted_labels_are_found_and_corrected() -> None:
    features, noisy, wrong, folds = planted()
    out = out_of_fold(features, noisy, folds, nearest_centre)
    found = suspects_single(noisy, out.probabilities_NC, out.judged_N)
    rows = np.zeros(len(noisy), bool)
    rows[found.rows] = True
    assert (rows & wrong).sum() >= 0.9 * wrong.sum()
    assert (rows & wrong).sum() >= 0.9 * rows.sum()
    assert found.noise.inferred == pytest.approx(wrong.mean(), abs=0.04)
    assert found.agreement == pytest.approx(1 - wrong.mean(), abs=0.03) and not found.note
    assert found.noise.interval[0] < wrong.mean() < found.noise.interval[1]


def test_cleanlab_names_the_same_rows() -> None:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    features, noisy, _, folds = planted(share=0.2)
    values = out_of_fold(features, noisy, folds, nearest_centre).probabilities_NC
    found = suspects_single(noisy, values)
    reference = find_label_issues(
        noisy, values, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    ).tolist()
    assert found.rows == [row for row in reference if values[row].argmax() != noisy[row]]
    assert np.allclose(found.quality_N, get_label_quality_scores(noisy, values, method="self_confidence"))


def test_classes_without_training_rows_get_nothing_and_are_counted() -> None:
    features, noisy, _, folds = planted(60)
    noisy[noisy == 2] = 0
    noisy[[3, 8]], folds[[3, 8]] = 2, 3  # class 2 has rows in fold 3 alone
    out = out_of_fold(features, noisy, folds, nearest_centre)
    assert out.missing == {(3, 2): 2}
    assert np.flatnonzero(~out.judged_N).tolist() == [3, 8]
    assert (out.probabilities_NC[folds == 3, 2] == 0).all()
    assert np.allclose(out.probabilities_NC.sum(1), 1)
    assert suspects_single(noisy, out.probabilities_NC, out.judged_N).not_judged == 2


def test_the_loss_is_that_of_scikit_learn_over_judged_rows() -> None:
    from sklearn.metrics import log_loss

    draw = np.random.default_rng(0)
    values, targets, judged = draw.dirichlet(np.ones(3), 50), draw.integers(0, 3, 50), draw.random(50) < 0.7
    out = OutOfFold(values, judged, {})
    assert out_of_fold_loss(out, targets) == pytest.approx(log_loss(targets[judged], values[judged], labels=range(3)))
    many = (values > 0.4).astype(int)
    assert out_of_fold_loss(OutOfFold(values, ~judged, {}), many) == pytest.approx(
        np.mean([log_loss(many[~judged, c], values[~judged, c], labels=[0, 1]) for c in range(3)])
    )
    assert np.isnan(out_of_fold_loss(OutOfFold(values, judged & False, {}), targets))


def test_no_row_is_in_the_training_part_that_judges_it() -> None:
    seen: list[tuple[set[int], set[int]]] = []

    def fit(features: Any, targets: Any, weights: Any) -> Any:
        assert weights is None or weights.tolist() == features[:, 0].tolist()

        def predict(rows: Any) -> Any:
            seen.append((set(features[:, 0].tolist()), set(rows[:, 0].tolist())))
            return np.full((len(rows), 2), 0.5)

        return predict

    numbers = np.arange(20)[:, None]
    out_of_fold(numbers, np.arange(20) % 2, np.arange(20) % 4, fit)
    assert all(not (train & held) for train, held in seen)
    assert set().union(*(held for _, held in seen)) == set(range(20))
    out_of_fold(numbers, np.arange(20) % 2, np.arange(20) % 4, fit, np.arange(20.0))
    many = out_of_fold(numbers, np.stack([np.arange(20) % 2, np.arange(20) == 0], 1), np.arange(20) % 4, fit)
    assert many.missing == {(0, 1): 1} and not many.judged_N[0]
    with pytest.raises(DataError, match="two or more"):
        out_of_fold(numbers, np.zeros(20, int), np.zeros(20, int), fit)


def test_trust_is_1_for_the_most_probable_label_and_for_rows_that_were_not_judged() -> None:
    values = np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]])
    believed = trust(OutOfFold(values, np.array([True, True, False]), {}), np.array([0, 1, 0]))
    assert believed.tolist() == pytest.approx([1.0, 0.4 / 0.6, 1.0])


def test_judges_that_trust_doubtful_labels_less_are_surer_of_the_right_ones() -> None:
    features, noisy, wrong, folds = planted(share=0.35)
    first = out_of_fold(features, noisy, folds, nearest_centre)
    second = out_of_fold(features, noisy, folds, nearest_centre, trust(first, noisy))
    given = [out.probabilities_NC[np.arange(len(noisy)), noisy] for out in (first, second)]
    assert given[1][wrong].mean() < given[0][wrong].mean() and given[1][~wrong].mean() > given[0][~wrong].mean()


def test_impossible_probabilities_are_refused_and_one_class_is_said() -> None:
    with pytest.raises(DataError, match="row 1"):
        suspects_single(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]))
    weak = suspects_single(np.arange(90) % 3, np.random.default_rng(0).dirichlet(np.ones(3), 90))
    assert weak.agreement is not None and weak.agreement < 0.5 and "may be right" in weak.note
    alone = suspects_single(np.array([0, 0]), np.array([[0.5, 0.5], [0.1, 0.9]]))
    assert alone.suspects == () and "nothing to compare" in alone.note


@settings(max_examples=60, deadline=None)
@given(probabilities, st.integers(0, 30), st.integers(1, 4))
def test_multi_label_pairs_are_accounted_for(draw: Any, n: int, classes: int) -> None:
    values, targets = draw.random((n, classes)), draw.integers(0, 2, (n, classes))
    found = suspects_multi_label(targets, values)
    quality = np.where(targets == 1, values, 1 - values)
    judged = [c for c in range(classes) if n and 0 < targets[:, c].sum() < n]
    assert found.noise.n == n * len(judged) and found.not_judged == n * classes - found.noise.n
    assert np.allclose(found.quality_N, quality[:, judged].min(1, initial=1.0))
    for suspect in found.suspects:
        assert suspect.part in judged and suspect.given == targets[suspect.row, suspect.part] == 1 - (suspect.suggested or 0)
        assert suspect.quality == pytest.approx(quality[suspect.row, suspect.part]) and suspect.quality < 0.5


def test_cleanlab_names_the_same_pairs() -> None:
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    draw = np.random.default_rng(1)
    values, targets = draw.random((200, 3)), draw.integers(0, 2, (200, 3))
    lists = [np.flatnonzero(row).tolist() for row in targets]
    reference = find_multilabel_issues_per_class(lists, values, filter_by="low_self_confidence", n_jobs=1)
    found = suspects_multi_label(targets, values)
    assert {(s.row, s.part) for s in found.suspects} == set(map(tuple, np.argwhere(reference).tolist()))
    per_class = get_label_quality_scores_per_class(lists, values)
    assert all(s.quality == pytest.approx(per_class[s.row, s.part]) for s in found.suspects)


def test_planted_multi_labels_are_found() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, (400, 4))
    wrong = draw.random(truth.shape) < 0.05
    values = np.clip(np.where(truth == 1, 0.9, 0.1) + draw.normal(0, 0.05, truth.shape), 0, 1)
    found = suspects_multi_label(np.where(wrong, 1 - truth, truth), values)
    named, planted_pairs = {(s.row, s.part) for s in found.suspects}, set(map(tuple, np.argwhere(wrong).tolist()))
    assert named < planted_pairs and len(named) > 0.7 * len(planted_pairs)
    assert found.noise.inferred == pytest.approx(wrong.mean(), abs=0.01)


@settings(max_examples=40, deadline=None)
@given(probabilities, st.lists(st.integers(0, 6), max_size=8))
def test_tokens_are_those_of_the_flat_table(draw: Any, lengths: list[int]) -> None:
    values = [draw.dirichlet(np.ones(3), length) for length in lengths]
    targets = [draw.integers(-1, 3, length) for length in lengths]
    found = suspects_tokens(targets, values)
    assert found.not_judged == sum(int((row < 0).sum()) for row in targets)
    for suspect in found.suspects:
        assert suspect.part is not None and targets[suspect.row][suspect.part] == suspect.given >= 0
        assert values[suspect.row][suspect.part, int(suspect.given)] == suspect.quality
    for row, quality in enumerate(found.quality_N):
        kept = [values[row][t, label] for t, label in enumerate(targets[row]) if label >= 0]
        assert quality == min([1.0, *kept])


def test_cleanlab_names_the_same_tokens() -> None:
    from cleanlab.token_classification.filter import find_label_issues

    features, noisy, _, folds = planted(400)
    values = out_of_fold(features, noisy, folds, nearest_centre).probabilities_NC
    targets, parts = np.split(noisy, 40), np.split(values, 40)
    reference = find_label_issues([t.tolist() for t in targets], parts, filter_by="low_self_confidence", n_jobs=1)
    wanted = [(r, t) for r, t in reference if parts[r][t].argmax() != targets[r][t]]
    assert [(s.row, s.part) for s in suspects_tokens(targets, parts).suspects] == wanted
    with pytest.raises(DataError, match="row 0"):
        suspects_tokens([noisy[:3]], [values[:2]])


def test_planted_values_of_a_regression_are_found() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(100, 30, 500)
    wrong = np.arange(500) % 25 == 0
    found = suspects_regression(truth + wrong * 40.0, truth + 7 + draw.normal(0, 3, 500))
    assert sorted(r for r in found.rows if wrong[r]) == np.flatnonzero(wrong).tolist()
    assert len(found.rows) <= wrong.sum() + 3
    first = found.suspects[0]
    assert abs((first.suggested or 0) - truth[first.row]) < 12 and "above" in first.reason
    assert suspects_regression(np.ones(5), np.ones(5)).note.startswith("more than half")
    with pytest.raises(DataError, match="row 1"):
        suspects_regression(np.array([1.0, np.nan]), np.ones(2))


def test_neighbours_that_disagree_are_the_evidence() -> None:
    features, noisy, wrong, _ = planted(300)
    found = conflicting_neighbours(nearest(features, None, 9), noisy)
    rows = np.zeros(300, bool)
    rows[[c.row for c in found]] = True
    assert (rows & wrong).sum() >= 0.8 * max(wrong.sum(), rows.sum())
    for conflict in found:
        votes = noisy[list(conflict.neighbours)]
        assert conflict.row not in conflict.neighbours and len(votes) == 9
        assert conflict.votes == (votes == conflict.other).sum() > 4 and conflict.other != conflict.given == noisy[conflict.row]
    assert [c.votes for c in found] == sorted((c.votes for c in found), reverse=True)
    assert conflicting_neighbours(nearest(features[:1], None, 9), noisy[:1]) == ()


def test_confused_classes_come_first() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 4, 600)
    noisy = np.where((truth == 1) & (draw.random(600) < 0.3), 2, truth)
    values = np.full((600, 4), 0.02)
    values[np.arange(600), truth] = 0.94
    pairs = class_overlap(values, noisy)
    assert (pairs[0].first, pairs[0].second) == (1, 2)
    assert pairs[0].share == pytest.approx((noisy != truth).mean(), abs=0.02)
    assert pairs[0].second_is_first == pairs[0].share
    assert class_overlap(values[:1], noisy[:1]) == ()


def boxes(*rows: tuple[float, float, float, float, int], probability: float | None = None) -> Boxes:
    table = np.array(rows, float).reshape(-1, 5)
    return Boxes(table[:, :4], table[:, 4].astype(int), None if probability is None else np.full(len(table), probability))


def test_wrong_boxes_are_named_with_what_is_wrong() -> None:
    truth = boxes((0, 0, 10, 10, 0), (20, 20, 40, 40, 1), (60, 60, 80, 90, 1), probability=0.99)
    given_images = [
        boxes((0, 0, 10, 10, 0), (20, 20, 40, 40, 1), (60, 60, 80, 90, 1)),
        boxes((0, 0, 10, 10, 0), (20, 20, 40, 40, 0), (60, 60, 80, 90, 1)),
        boxes((0, 0, 10, 10, 0), (60, 60, 80, 90, 1)),
        boxes((0, 0, 10, 10, 0), (20, 20, 40, 40, 1), (70, 78, 100, 130, 1)),
        boxes(),
    ]
    found = suspects_boxes(given_images, [truth] * 4 + [boxes(probability=0.9)], 2)
    named = {(s.row, s.part, s.reason, s.given, s.suggested) for s in found.suspects}
    assert named == {(1, 1, WRONG_LABEL, 0, 1), (2, 1, MISSING_BOX, None, 1), (3, 2, WRONG_PLACE, 1, 1)}
    assert found.noise.n == 11 and found.noise.share == pytest.approx(2 / 11)
    assert found.quality_N[0] > 0.9 and found.quality_N[1:4].max() < 0.5 and found.quality_N[4] == 1
    assert "no boxes" in suspects_boxes([boxes()], [truth], 2).note
    with pytest.raises(DataError, match="image 0, given boxes"):
        suspects_boxes([boxes((5, 5, 1, 1, 0))], [truth], 2)
    with pytest.raises(DataError, match="labels from 0 to 0"):
        suspects_boxes([boxes()], [truth], 1)


random_boxes = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2)), max_size=5
).map(lambda rows: boxes(*((x, y, x + w, y + h, c) for x, y, w, h, c in rows), probability=0.97))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(random_boxes, random_boxes), min_size=1, max_size=4))
def test_any_boxes_can_be_judged(images: list[tuple[Boxes, Boxes]]) -> None:
    found = suspects_boxes([g for g, _ in images], [p for _, p in images], 3)
    assert ((found.quality_N >= 0) & (found.quality_N <= 1)).all()
    for suspect in found.suspects:
        of_given, of_predicted = images[suspect.row]
        labels = of_predicted.labels_L if suspect.given is None else of_given.labels_L
        assert labels[suspect.part] == (suspect.suggested if suspect.given is None else suspect.given)


@settings(max_examples=60, deadline=None)
@given(random_boxes, random_boxes)
def test_overlap_is_symmetric_and_matches_are_one_to_one(first: Boxes, second: Boxes) -> None:
    shares = iou(first.corners_L4, second.corners_L4)
    assert np.allclose(shares, iou(second.corners_L4, first.corners_L4).T) and ((shares >= 0) & (shares <= 1)).all()
    assert len(matched_ious(first, second)) <= min(len(first.labels_L), len(second.labels_L))
    assert len(matched_ious(first, first)) == len(first.labels_L) and np.allclose(matched_ious(first, first), 1)
