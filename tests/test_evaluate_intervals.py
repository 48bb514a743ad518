"""Intervals: coverage, what the bootstrap cannot tell, pairs, exact tests, and findings that come out the same every time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesmith.core.errors import RunError
from tunesmith.core.records import Artefact, Finding, finding_from_dict
from tunesmith.evaluate import intervals
from tunesmith.evaluate.answers import Answers, answers_from_arrays
from tunesmith.evaluate.evaluate import Judging, differences, findings_of
from tunesmith.evaluate.intervals import Resampling, clopper_pearson, estimates, holm, mcnemar_p, paired_differences, resample_weights
from tunesmith.evaluate.metrics import metrics_for
from tunesmith.spec.schema import Evaluate

ONE = metrics_for("class")


def simulated(n: int, accuracy: float, seed: int, classes: int = 3) -> Answers:
    """Rows that are right with the given chance; the truth comes from its own stream, so that it is the same for all."""
    truth = np.random.default_rng([seed, 0]).integers(0, classes, n)
    rng = np.random.default_rng([seed, 1, int(accuracy * 1000)])
    predicted = np.where(rng.random(n) < accuracy, truth, (truth + 1) % classes)
    p = np.full((n, classes), 0.1)
    p[np.arange(n), predicted] = 1 - 0.1 * (classes - 1) - rng.random(n) * 0.05
    return answers_from_arrays(truth, p)


def frame(answers: Answers, labels: list[str]) -> pl.DataFrame:
    name = np.array(labels)
    if answers.multi_label:
        label, predicted = ([list(name[row]) for row in matrix] for matrix in (answers.labels, answers.predicted))
    else:
        label, predicted = list(name[answers.labels]), list(name[answers.predicted])
    kind = pl.List(pl.String) if answers.multi_label else pl.String
    return pl.DataFrame(
        {
            "id": [f"{n:016x}" for n in range(len(answers))],
            "label": pl.Series(label, dtype=kind),
            "predicted": pl.Series(predicted, dtype=kind),
            "probabilities": pl.Series(answers.probabilities_NC.tolist(), dtype=pl.List(pl.Float32)),
        }
    )


def judging(prefix: str = "test", labels: tuple[str, ...] = ("a", "b", "c"), resamples: int = 200, kind: Any = "class") -> Judging:
    return Judging(kind, list(labels), Evaluate(resamples=resamples), 7, prefix, Artefact(f"predictions/{prefix}.parquet", "0" * 64))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(120):
        interval = estimates(simulated(150, 0.8, seed), {"accuracy": ONE["accuracy"]}, Resampling(seed, 300))["accuracy"].interval
        assert interval
        covered += interval[0] <= 0.8 <= interval[1]
    assert 0.88 <= covered / 120 <= 0.995


def test_paired_differences_cover_the_truth_and_are_narrower_than_unpaired_ones() -> None:
    covered, metric = 0, {"accuracy": ONE["accuracy"]}
    for seed in range(80):
        found = paired_differences(simulated(200, 0.85, seed), simulated(200, 0.75, seed), metric, Resampling(seed, 300))["accuracy"]
        assert found.interval
        covered += found.interval[0] <= 0.1 <= found.interval[1]
    assert covered / 80 >= 0.87
    same = simulated(300, 0.8, 1)
    nearly = Answers(same.labels, same.predicted.copy(), same.probabilities_NC)
    nearly.predicted[:5] = (nearly.predicted[:5] + 1) % 3
    difference = paired_differences(nearly, same, metric, Resampling(0))["accuracy"].interval
    alone = estimates(same, metric, Resampling(0))["accuracy"].interval
    assert difference and alone and difference[1] - difference[0] < (alone[1] - alone[0]) / 2


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_all_right_or_all_wrong_gets_an_exact_interval_and_says_so(accuracy: float) -> None:
    found = estimates(simulated(20, accuracy, 0), ONE, Resampling(0, 100))
    expected = stats.binomtest(round(20 * accuracy), 20).proportion_ci(0.95, "exact")
    for name in ("accuracy", "micro_f1"):
        assert found[name].value == accuracy and found[name].interval == pytest.approx((expected.low, expected.high))
        assert "Clopper-Pearson" in found[name].note
    if accuracy:
        assert found["macro_f1"].value == 1 and found["macro_f1"].interval is None and "cannot tell" in found["macro_f1"].note


def test_one_row_has_a_value_and_no_invented_interval() -> None:
    found = estimates(simulated(1, 1.0, 0), ONE, Resampling(0, 100))
    assert found["accuracy"].interval == pytest.approx((0.025, 1.0))
    assert found["roc_auc"].value is None and "no class" in found["roc_auc"].note
    others = [e for name, e in found.items() if name not in ("accuracy", "micro_f1")]
    assert all(e.interval is None and e.note for e in others)


def test_no_rows_is_unknown_everywhere() -> None:
    none = frame(simulated(4, 0.5, 0), ["a", "b", "c"]).clear()
    found = {f.id: f for f in findings_of(none, judging())}
    assert found["test/rows"].value == 0
    assert found["test/accuracy"].value is None and found["test/accuracy"].source == "unknown" and found["test/accuracy"].note
    assert all(f.value is None for f in differences(none, none, judging("test/baseline/majority")))


@given(st.integers(1, 200), st.data())
@settings(max_examples=40, deadline=None)
def test_exact_intervals_and_tests_agree_with_scipy(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    expected = stats.binomtest(hits, n).proportion_ci(0.9, "exact")
    assert clopper_pearson(hits, n, 0.9) == pytest.approx((expected.low, expected.high))
    one = np.arange(n) < hits
    assert mcnemar_p(one, ~one) == pytest.approx(stats.binomtest(hits, n).pvalue)
    assert mcnemar_p(one, one) == 1.0


def test_holm_corrects_in_order_and_never_reverses_it() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_identical_predictions_differ_by_nothing_within_an_exact_bound() -> None:
    one = simulated(50, 0.8, 0)
    found = paired_differences(one, one, ONE, Resampling(0, 100))
    assert found["accuracy"].value == 0 and found["accuracy"].interval and "exact" in found["accuracy"].note
    low, high = found["accuracy"].interval
    assert low == -high and 0.05 < high < 0.1
    assert found["log_loss"].interval is None and found["log_loss"].note


def test_always_right_against_always_wrong_has_bounds_below_one() -> None:
    found = paired_differences(simulated(30, 1.0, 0), simulated(30, 0.0, 0), ONE, Resampling(0, 100))["accuracy"]
    assert found.value == 1 and found.interval and 0.7 < found.interval[0] < 1 and found.interval[1] == 1


def test_resamples_do_not_depend_on_how_many_come_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resample_weights(7, 20, 3)))
    monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", 15)
    parts = list(resample_weights(7, 20, 3))
    assert len(parts) == 10 and (np.concatenate(parts) == whole).all()
    assert (whole.sum(1) == 7).all()


def test_a_metric_that_would_take_too_long_gets_fewer_resamples_or_none_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = simulated(60, 0.7, 0)
    monkeypatch.setattr(intervals, "RANKING_BUDGET", 60 * 3 * 120)
    found = estimates(answers, ONE, Resampling(0, 300))
    assert found["roc_auc"].interval and found["roc_auc"].note.startswith("120 resamples instead of 300")
    assert not found["accuracy"].note
    monkeypatch.setattr(intervals, "RANKING_BUDGET", 60 * 3 * 99)
    assert estimates(answers, ONE, Resampling(0, 300))["roc_auc"].interval is None


def test_resamples_without_a_value_are_left_out_and_counted() -> None:
    rare = answers_from_arrays(np.array([0] * 4 + [1] + [0] * 5), np.tile([0.6, 0.4], (10, 1)) + np.arange(10)[:, None] * [0.01, -0.01])
    found = estimates(rare, {"roc_auc": ONE["roc_auc"]}, Resampling(0, 200))["roc_auc"]
    assert found.value is not None and "left out" in found.note


def findings(answers: Answers, prefix: str = "test") -> dict[str, Finding]:
    kind = "classes" if answers.multi_label else "class"
    return {f.id: f for f in findings_of(frame(answers, ["a", "b", "c"]), judging(prefix, kind=kind))}


def test_findings_have_the_promised_ids_and_fields() -> None:
    found = findings(simulated(80, 0.8, 0))
    metrics = {f"test/{name}" for name in ONE}
    classes = {f"test/class/{label}/{part}" for label in "abc" for part in ("precision", "recall", "f1", "n")}
    assert set(found) == {"test/rows", *metrics, *classes}
    for finding in found.values():
        assert finding.artefact and finding.n and not any(c.isdigit() for c in finding.claim.replace("F1", "")), finding
        assert finding_from_dict(finding.as_dict()) == finding
    low, high = found["test/accuracy"].interval or (1, 0)
    assert low <= float(found["test/accuracy"].value or 0) <= high
    assert set(findings(simulated(80, 0.8, 0), "validation")) == {"validation/rows", *(f"validation/{name}" for name in ONE)}
    assert set(findings(simulated(80, 0.8, 0), "test/baseline/majority")) == {f"test/baseline/majority/{name}" for name in ONE}


def test_difference_findings_have_the_promised_ids_and_sign() -> None:
    model, baseline = (frame(simulated(80, a, 0), ["a", "b", "c"]) for a in (0.9, 0.4))
    found = {f.id: f for f in differences(model, baseline, judging("test/baseline/features"))}
    assert set(found) == {f"test/baseline/features/{name}/difference" for name in ONE} | {"test/baseline/features/mcnemar_p"}
    accuracy = found["test/baseline/features/accuracy/difference"]
    assert accuracy.interval and accuracy.interval[0] > 0 and float(found["test/baseline/features/mcnemar_p"].value or 1) < 0.01
    with pytest.raises(RunError, match="same order"):
        differences(model.reverse(), baseline, judging("test/baseline/features"))


def test_the_same_predictions_and_seed_give_the_same_findings() -> None:
    answers = simulated(60, 0.7, 3)
    assert findings(answers) == findings(answers)
    other = Judging("class", ["a", "b", "c"], Evaluate(resamples=200), 8, "test")
    assert findings_of(frame(answers, ["a", "b", "c"]), other)[1].interval != findings(answers)["test/accuracy"].interval


def test_a_class_without_rows_or_never_given_is_unknown_with_the_reason() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0]])
    found = findings(answers_from_arrays(np.array([0, 0, 1, 1]), p))
    assert found["test/class/c/n"].value == 0
    for part in ("precision", "recall", "f1"):
        assert found[f"test/class/c/{part}"].value is None and found[f"test/class/c/{part}"].note
    assert found["test/class/a/recall"].interval == pytest.approx(clopper_pearson(2, 2, 0.95))


def test_many_labels_are_told_by_the_type_of_the_column() -> None:
    rng = np.random.default_rng(0)
    answers = answers_from_arrays((rng.random((40, 3)) < 0.4).astype(np.float32), rng.random((40, 3)))
    found = findings(answers)
    assert next(iter(metrics_for("classes"))) == "micro_f1" and {f"test/{m}" for m in metrics_for("classes")} <= set(found)
    assert "test/accuracy" not in found and found["test/class/a/n"].value == answers.labels[:, 0].sum()
    same = frame(answers, ["a", "b", "c"])
    ids = [f.id for f in differences(same, same, judging("test/baseline/majority", kind="classes"))]
    assert all(a != b for a, b in pairwise(ids)) and ids[-1] == "test/baseline/majority/mcnemar_p"
