"""Metrics: the same numbers as scikit-learn, also on resamples; and what has no value says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunesmith.core.errors import RunError
from tunesmith.evaluate.answers import BINS, SMALLEST, Answers, answers_from_arrays, answers_from_table
from tunesmith.evaluate.calibration import reliability
from tunesmith.evaluate.metrics import Sample, class_scores, confusion_matrix, fast_score, metrics_for
from tunesmith.tasks.text_classification import MANY_LABEL_METRICS, ONE_LABEL_METRICS


@st.composite
def one_label(draw: st.DrawFn) -> Answers:
    """A few rows with random classes; rounded probabilities, so that ties happen; some classes may not occur."""
    n, classes, seed = draw(st.integers(1, 40)), draw(st.integers(2, 5)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, draw(st.integers(1, classes)), n)
    probabilities = rng.dirichlet(np.ones(classes), n).round(draw(st.integers(1, 6)))
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(1)
    return answers_from_arrays(targets, np.clip(probabilities, 0, 1))


@st.composite
def many_labels(draw: st.DrawFn) -> Answers:
    """A few rows with random label sets, perhaps empty ones."""
    n, classes, seed = draw(st.integers(1, 30)), draw(st.integers(2, 5)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    probabilities = rng.random((n, classes)).round(draw(st.integers(1, 6)))
    return answers_from_arrays((rng.random((n, classes)) < draw(st.floats(0, 1))).astype(np.float32), probabilities)


def quiet(function: Callable[..., Any], *args: Any, **options: Any) -> float:
    """scikit-learn's value without its warnings about classes that do not occur."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*args, **options))


def reference_one(a: Answers, rows: np.ndarray) -> dict[str, float]:
    """scikit-learn's values on the given rows."""
    y, z, p = a.labels[rows], a.predicted[rows], a.probabilities_NC[rows]
    zero = {"zero_division": 0}
    binary = np.eye(a.classes)[y]
    mixed = [c for c in range(a.classes) if 0 < binary[:, c].sum() < len(y)]
    return {
        "accuracy": quiet(sk.accuracy_score, y, z),
        "balanced_accuracy": quiet(sk.balanced_accuracy_score, y, z),
        "macro_precision": quiet(sk.precision_score, y, z, average="macro", **zero),
        "macro_recall": quiet(sk.recall_score, y, z, average="macro", **zero),
        "macro_f1": quiet(sk.f1_score, y, z, average="macro", **zero),
        "weighted_f1": quiet(sk.f1_score, y, z, average="weighted", **zero),
        "micro_f1": quiet(sk.f1_score, y, z, average="micro", **zero),
        "mcc": quiet(sk.matthews_corrcoef, y, z),
        "roc_auc": float(np.mean([sk.roc_auc_score(binary[:, c], p[:, c]) for c in mixed])) if mixed else np.nan,
        "log_loss": float(np.mean([-np.log(min(max(p[i, y[i]], SMALLEST), 1 - SMALLEST)) for i in range(len(y))])),
        "ece": slow_ece(p[np.arange(len(y)), z], y == z),
        "brier": quiet(sk.brier_score_loss, y, p, labels=range(a.classes), scale_by_half=False) if a.classes > 2 else two_class_brier(y, p),
    }


def two_class_brier(y: np.ndarray, p: np.ndarray) -> float:
    """With two classes both squared errors count, so the sum is twice the usual binary score."""
    return quiet(sk.brier_score_loss, y, p[:, 0], pos_label=0) + quiet(sk.brier_score_loss, y, p[:, 1], pos_label=1)


def slow_ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error, written as its definition reads."""
    total = 0.0
    for b in range(BINS):
        low, high = b / BINS, (b + 1) / BINS
        inside = (confidence > low) & (confidence <= high) if b else confidence <= high
        if inside.any():
            total += abs(confidence[inside].mean() - right[inside].mean()) * inside.sum()
    return total / len(confidence)


def reference_many(a: Answers, rows: np.ndarray) -> dict[str, float]:
    """scikit-learn's values on the given rows; averages over the labels that occur or were given."""
    y, z, p = a.labels[rows].astype(int), a.predicted[rows].astype(int), a.probabilities_NC[rows]
    occurs = np.flatnonzero((y + z).any(0))
    macro = {"labels": occurs, "average": "macro", "zero_division": 0}
    mixed = [c for c in range(a.classes) if 0 < y[:, c].sum() < len(y)]
    clipped = np.clip(np.where(y == 1, p, 1 - p), SMALLEST, 1 - SMALLEST)
    nothing = not len(occurs)
    return {
        "micro_f1": np.nan if nothing else quiet(sk.f1_score, y, z, average="micro"),
        "macro_f1": np.nan if nothing else quiet(sk.f1_score, y, z, **macro),
        "weighted_f1": np.nan if not y.any() else quiet(sk.f1_score, y, z, average="weighted", zero_division=0),
        "subset_accuracy": quiet(sk.accuracy_score, y, z),
        "macro_precision": np.nan if nothing else quiet(sk.precision_score, y, z, **macro),
        "macro_recall": np.nan if nothing else quiet(sk.recall_score, y, z, **macro),
        "hamming_loss": quiet(sk.hamming_loss, y, z),
        "roc_auc": float(np.mean([sk.roc_auc_score(y[:, c], p[:, c]) for c in mixed])) if mixed else np.nan,
        "log_loss": float(-np.log(clipped).mean()),
        "ece": slow_ece(np.where(z == 1, p, 1 - p).ravel(), (y == z).ravel()),
        "brier": float(np.mean((p - y) ** 2)),
    }


@settings(max_examples=30, deadline=None)
@given(one_label(), st.integers(0, 2**32 - 1))
def test_one_label_metrics_agree_with_scikit_learn_on_rows_and_resamples(answers: Answers, seed: int) -> None:
    check_against(answers, reference_one, seed)


@settings(max_examples=30, deadline=None)
@given(many_labels(), st.integers(0, 2**32 - 1))
def test_many_label_metrics_agree_with_scikit_learn_on_rows_and_resamples(answers: Answers, seed: int) -> None:
    check_against(answers, reference_many, seed)


def check_against(answers: Answers, reference: Callable[[Answers, np.ndarray], dict[str, float]], seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, len(answers), (2, len(answers)))
    rows = [np.arange(len(answers)), *drawn]
    sample = Sample(answers, np.stack([np.bincount(r, minlength=len(answers)) for r in rows]).astype(float))
    expected = [reference(answers, r) for r in rows]
    for name, metric in metrics_for("classes" if answers.multi_label else "class").items():
        values = metric.statistic(sample)
        assert values.shape == (3,)
        np.testing.assert_allclose(values, [e[name] for e in expected], atol=1e-12, err_msg=name)
        known = values[~np.isnan(values)]
        assert (known >= metric.lower - 1e-12).all() and (metric.upper is None or (known <= metric.upper + 1e-12).all()), name


@settings(max_examples=30, deadline=None)
@given(one_label())
def test_classes_and_confusions_agree_with_scikit_learn(answers: Answers) -> None:
    labels = range(answers.classes)
    assert (confusion_matrix(answers) == sk.confusion_matrix(answers.labels, answers.predicted, labels=labels)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = sk.precision_recall_fscore_support(answers.labels, answers.predicted, labels=labels, zero_division=np.nan)
    scores = class_scores(answers)
    np.testing.assert_allclose(scores.precision, parts[0])
    np.testing.assert_allclose(scores.recall, parts[1])
    np.testing.assert_array_equal(scores.n, parts[3])
    np.testing.assert_allclose(scores.f1[scores.n > 0], parts[2][scores.n > 0])
    assert np.isnan(scores.f1[scores.n == 0]).all()


@settings(max_examples=30, deadline=None)
@given(st.one_of(one_label(), many_labels()))
def test_the_reliability_curve_adds_up_to_the_calibration_error(answers: Answers) -> None:
    bins = reliability(answers)
    confidence, right = answers.decisions
    assert sum(b.n for b in bins) == len(confidence) and all(b.n and 0 <= b.low < b.high <= 1 for b in bins)
    gap = sum(abs(b.confidence - b.accuracy) * b.n for b in bins) / len(confidence)
    assert gap == pytest.approx(metrics_for("classes" if answers.multi_label else "class")["ece"].value(answers), abs=1e-12)
    assert sum(b.accuracy * b.n for b in bins) == pytest.approx(right.sum())


def test_log_loss_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 50)
    y = rng.integers(0, 4, 50)
    assert fast_score("log_loss", "class", y, p) == pytest.approx(sk.log_loss(y, p, labels=range(4)))


def test_the_tasks_list_the_metrics_in_the_same_order() -> None:
    assert tuple(metrics_for("class")) == ONE_LABEL_METRICS
    assert tuple(metrics_for("classes")) == MANY_LABEL_METRICS


@pytest.mark.parametrize("multi_label", [False, True])
def test_every_metric_is_described_without_digits(multi_label: bool) -> None:
    for name, metric in metrics_for("classes" if multi_label else "class").items():
        text = (metric.title + metric.explanation + metric.undefined).replace("F1", "")
        assert metric.name == name and metric.explanation.endswith(".") and not any(c.isnumeric() for c in text)
        assert metric.higher_is_better != (name in ("hamming_loss", "log_loss", "ece", "brier"))


def test_what_has_no_value_is_nan_and_a_diverged_model_too() -> None:
    p = np.full((3, 2), 0.5)
    assert np.isnan(fast_score("roc_auc", "class", np.zeros(3, int), p))
    assert np.isnan(fast_score("micro_f1", "classes", np.zeros((3, 2)), p * 0.1))
    assert np.isnan(fast_score("accuracy", "class", np.zeros(3, int), p * np.nan))


def test_ties_count_half_in_the_roc_auc() -> None:
    assert fast_score("roc_auc", "class", np.array([0, 1, 0, 1]), np.full((4, 2), 0.5)) == 0.5


def table(label: list[Any], predicted: list[Any], probabilities: list[list[float]]) -> pl.DataFrame:
    kind = pl.List(pl.String) if label and isinstance(label[0], list) else pl.String
    columns = {"label": pl.Series(label, dtype=kind), "predicted": pl.Series(predicted, dtype=kind)}
    return pl.DataFrame({**columns, "probabilities": pl.Series(probabilities, dtype=pl.List(pl.Float32))})


def test_a_predictions_table_is_read_as_it_stands() -> None:
    one = answers_from_table(table(["b", "a"], ["b", "b"], [[0.25, 0.75], [0.5, 0.5]]), ["a", "b"])
    assert one.labels.tolist() == [1, 0] and one.predicted.tolist() == [1, 1] and one.probabilities_NC[0, 1] == 0.75
    many = answers_from_table(table([["a", "b"], []], [[], ["b"]], [[0.1, 0.2], [0.1, 0.9]]), ["a", "b"])
    assert many.labels.tolist() == [[True, True], [False, False]] and many.predicted.tolist() == [[False, False], [False, True]]
    assert len(answers_from_table(table(["a"], ["a"], [[1.0, 0.0]]).clear(), ["a", "b"])) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table(["c"], ["a"], [[0.5, 0.5]]), "must be a label"),
        (table([["a", "z"]], [["a"]], [[0.5, 0.5]]), "must be a label"),
        (table(["a"], ["a"], [[0.5]]), "2 probabilities"),
        (table(["a"], ["a"], [[float("nan"), 0.5]]), "finite"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(rows: pl.DataFrame, message: str) -> None:
    with pytest.raises(RunError, match=message):
        answers_from_table(rows, ["a", "b"])
