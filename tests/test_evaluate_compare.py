"""Comparing runs: paired on common rows, honest about the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.verify_fixture import LABELS, WEIGHTS, make_run, npy, predict, weights
from tunesmith.core.errors import RunError
from tunesmith.core.rundir import RunDir
from tunesmith.evaluate.compare import COLUMNS, as_table, compare_runs


def worse(run: RunDir) -> RunDir:
    """The same run with a model that mixes two classes up."""
    (run.path / WEIGHTS).write_bytes(npy(weights()[:, [1, 0, 2]]))
    predict(run, "test").write_parquet(run.path / "predictions/test.parquet")
    return run


def test_runs_on_the_same_rows_are_paired_against_the_first(tmp_path: Path) -> None:
    one, two, three = (make_run(tmp_path / name) for name in ("one", "two", "three"))
    worse(two)
    comparisons = compare_runs([one.path, two.path, three.path])
    assert [(c.run, c.first, c.rows, c.note) for c in comparisons] == [("two", "one", 60, ""), ("three", "one", 60, "")]
    lost, same = comparisons
    accuracy = lost.differences[0]
    assert accuracy.metric.name == "accuracy" and accuracy.difference.value == pytest.approx((accuracy.run or 0) - (accuracy.first or 0))
    assert accuracy.difference.interval and accuracy.difference.interval[1] < 0
    assert lost.mcnemar_p < 0.001 and lost.corrected_p == pytest.approx(2 * lost.mcnemar_p)
    assert same.mcnemar_p == same.corrected_p == 1 and same.differences[0].difference.value == 0
    back = compare_runs([two.path, one.path])[0].differences[0].difference
    assert back.value == pytest.approx(-(accuracy.difference.value or 0))


def test_the_table_has_a_row_for_each_run_and_metric(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), worse(make_run(tmp_path / "two"))
    comparisons = compare_runs([one.path, two.path])
    rows = as_table(comparisons)
    assert all(len(row) == len(COLUMNS) for row in rows) and len(rows) == len(comparisons[0].differences)
    assert rows[0][:2] == ("two", "Accuracy ↑") and any(row[1] == "Log loss ↓" for row in rows)
    assert "two against one on 60 test rows" in str(comparisons[0])


def test_only_common_rows_are_compared_and_the_others_counted(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", rows=80)
    path = two.path / "predictions/test.parquet"
    rows = pl.read_parquet(path).slice(10).reverse()
    label = pl.when(pl.col("id") == rows["id"][-1]).then(pl.lit("unheard")).otherwise(pl.col("label")).alias("label")
    rows.with_columns(label).write_parquet(path)
    comparison = compare_runs([one.path, two.path])[0]
    assert (comparison.rows, comparison.only_in_first, comparison.only_in_run, comparison.other_label) == (49, 10, 20, 1)
    assert comparison.note == "49 common test rows compared; left out: 10 test rows only in one, 20 only in two, 1 with another label"
    assert comparison.differences[0].difference.value == 0


def test_runs_with_other_label_vocabularies_are_aligned_by_name(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    (two.path / "data/labels.json").write_text(json.dumps(["aaa", *LABELS]))
    path = two.path / "predictions/test.parquet"
    rows = pl.read_parquet(path)
    wider = [[0.0, *p] for p in rows["probabilities"].to_list()]
    rows.with_columns(pl.Series("probabilities", wider, dtype=pl.List(pl.Float32))).write_parquet(path)
    assert all(np.isclose(d.difference.value or 0, 0) for d in compare_runs([one.path, two.path])[0].differences)


def test_several_labels_a_row_lead_with_their_own_metric(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one", multi_label=True), make_run(tmp_path / "two", multi_label=True)
    comparison = compare_runs([one.path, two.path])[0]
    assert comparison.rows == 60 and comparison.differences[0].metric.name == "micro_f1"
    with pytest.raises(RunError, match="same kind of labels"):
        compare_runs([one.path, make_run(tmp_path / "three").path])


def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    with pytest.raises(RunError, match="at least two"):
        compare_runs([one.path])
    with pytest.raises(RunError, match="must be a run directory"):
        compare_runs([one.path, tmp_path / "three"])
    path = two.path / "predictions/test.parquet"
    pl.read_parquet(path).with_columns(pl.col("id").str.reverse()).write_parquet(path)
    with pytest.raises(RunError, match="in common"):
        compare_runs([one.path, two.path])
    path.unlink()
    with pytest.raises(RunError, match="not finished"):
        compare_runs([one.path, two.path])
