"""Regression and similarity from table to report: the same stages, files and checks as for classes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tunesmith
from tests import tiny
from tests.test_cli import call
from tunesmith.core.errors import DataError, SpecError
from tunesmith.core.rundir import RunDir
from tunesmith.data.draft import draft_spec
from tunesmith.data.label_forms import strata
from tunesmith.data.label_numbers import suspect_numbers
from tunesmith.data.numbers import numbers
from tunesmith.models.linear import Penalty, fit_ridge
from tunesmith.spec.check import check_spec
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.base import NOTHING
from tunesmith.tasks.make import metric_names
from tunesmith.tasks.text_regression import Scale, TextRegression
from tunesmith.train.head import for_the_loss


def table(rows: int = 320, unit: float = 1000.0) -> pl.DataFrame:
    """Texts whose number can be told from their words: how many are about billing, in thousands."""
    draw, records = random.Random(0), []
    for number in range(rows):
        count = draw.randint(0, 4)
        words = [draw.choice(tiny.WORDS["billing"]) for _ in range(count)] + [draw.choice(tiny.WORDS["login"]) for _ in range(4 - count)]
        draw.shuffle(words)
        records.append({"text": " ".join(words) + f" {number}", "score": unit * (count + draw.random() / 4)})
    return pl.DataFrame(records)


def spec_of(folder: Path, tiny_model: Path, rows: pl.DataFrame | None = None, **changes: Any) -> Any:
    data = folder / "scores.csv"
    (table() if rows is None else rows).write_csv(data)
    base: dict[str, Any] = {
        "name": "t", "task": "text-regression", "data": {"train": str(data)}, "model": {"name": str(tiny_model)},
        "train": {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"},
        "evaluate": {"resamples": 100, "mistakes": 3, "folds": None},
    }  # fmt: skip
    return {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in changes.items()}}


def run(folder: Path, tiny_model: Path, **changes: Any) -> tunesmith.Run:
    return tunesmith.run(tunesmith.load_spec(spec_of(folder, tiny_model, **changes)), folder / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    """A finished regression with three folds."""
    return run(tmp_path_factory.mktemp("regression"), tiny_bert, evaluate={"folds": 3, "confidence": 0.8})


def test_a_regression_is_a_run_like_any_other(done: tunesmith.Run) -> None:
    found = done.findings
    for name in ("spearman", "pearson", "rmse", "mae", "mse", "r2"):
        assert found[f"test/{name}"].value is not None and f"test/baseline/features/{name}/difference" in found, name
    assert found["test/spearman"].value > 0.5 and abs(found["test/baseline/majority/r2"].value) < 0.2  # type: ignore[operator]
    assert found["data/numbers/train/max"].value < 4251 and "data/classes" not in found  # type: ignore[operator]
    assert found["folds/spearman"].value is not None and found["folds/spearman"].n > found["test/spearman"].n  # type: ignore[operator]
    assert json.loads((done.path / "data/labels.json").read_text()) == []
    assert verify_run(RunDir(done.path), 2).ok


def test_the_documents_speak_of_numbers(done: tunesmith.Run) -> None:
    report, card = ((done.path / name).read_text("utf-8") for name in ("report.html", "MODEL_CARD.md"))
    assert "Which number belongs to a text?" in report and "The largest errors" in report and "What it said, and what is true" in report
    for word in ("Confusions", "Class by class", "Can its confidence be believed", "not recorded by this run"):
        assert word not in report.split("The evidence")[0], word
    assert "which number belongs to a text" in card and 'function_to_apply="none"' in card and "classes" not in card.split("## Evidence")[0]


def test_the_saved_model_says_plain_numbers_and_so_does_a_pipeline(done: tunesmith.Run) -> None:
    from transformers import pipeline

    rows = pl.read_parquet(done.path / "data/test.parquet")
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    plain = pipeline("text-classification", model=str(done.path / "model"), function_to_apply="none")
    said = [answer["score"] for answer in plain(rows["text"].to_list())]
    np.testing.assert_allclose(said, stored["predicted"].to_numpy(), rtol=1e-4, atol=0.5)
    assert stored["predicted"].std() > 100  # in the unit of the table, not of the training


def test_predictions_carry_intervals(done: tunesmith.Run, tmp_path: Path) -> None:
    one = tunesmith.load(done.path).predict(["refund invoice charge paid"])[0]
    assert isinstance(one.label, float) and one.interval is not None and one.interval[0] < one.label < one.interval[1]
    assert one.probability is None and one.probabilities == {}
    source = tmp_path / "new.csv"
    table(9).select("text").write_csv(source)
    assert call("predict", done.path, source, "--output", tmp_path / "out.csv")[0] == 0
    out = pl.read_csv(tmp_path / "out.csv")
    assert out.columns == ["text", "predicted", "low", "high"] and (out["low"] < out["predicted"]).all()


def test_numbers_do_not_depend_on_their_unit(tmp_path: Path, tiny_bert: Path) -> None:
    stored = []
    for unit in (1.0, 1e6):
        folder = tmp_path / f"{unit:g}"
        folder.mkdir()
        finished = run(folder, tiny_bert, rows=table(90, unit), evaluate={"baselines": []}, train={"epochs": 2})
        stored.append(pl.read_parquet(finished.path / "predictions/validation.parquet").sort("id")["predicted"].to_numpy() / unit)
    np.testing.assert_allclose(stored[0], stored[1], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("strategy", [{"kind": "layers", "top": 1}, {"kind": "lora", "rank": 2}, {"kind": "bitfit"}, {"kind": "features"}])
def test_strategies_learn_numbers(tmp_path: Path, tiny_bert: Path, strategy: dict[str, Any]) -> None:
    spec = spec_of(tmp_path, tiny_bert, strategy=strategy, evaluate={"baselines": ["majority"]})
    if strategy["kind"] == "features":
        spec["train"] = {}
    if strategy["kind"] == "lora":
        spec["train"]["epochs"] = 20  # adapters of rank two learn slowly
    finished = tunesmith.run(tunesmith.load_spec(spec), tmp_path / "runs")
    assert finished.findings["test/rmse"].value < finished.findings["test/baseline/majority/rmse"].value  # type: ignore[operator]
    if strategy["kind"] != "features":
        assert finished.findings["store/used"].value == ("yes" if strategy["kind"] == "layers" else "no")
    else:
        assert verify_run(RunDir(finished.path), 2).ok


def test_a_head_without_a_bias_learns_numbers(tmp_path: Path) -> None:
    gpt2 = tiny.save_pretrained(tmp_path / "gpt2", "gpt2")
    finished = run(tmp_path, gpt2, evaluate={"baselines": ["majority"]})
    assert finished.findings["test/rmse"].value < 3 * finished.findings["test/baseline/majority/rmse"].value  # type: ignore[operator]
    assert verify_run(RunDir(finished.path), 2).ok


def test_pairs_have_a_similarity(tmp_path: Path, tiny_bert: Path) -> None:
    rows = table(90).select(pl.col("text").alias("sentence1"), pl.col("text").reverse().alias("sentence2"), "score")
    finished = run(tmp_path, tiny_bert, rows=rows, task="sentence-similarity", evaluate={"baselines": ["features"]})
    assert "How alike are two texts" in (finished.path / "report.html").read_text("utf-8")
    one = tunesmith.load(finished.path).predict([("refund", "invoice")])[0]
    assert isinstance(one.label, float)
    with pytest.raises(DataError, match="two columns"):
        run(tmp_path, tiny_bert, task="sentence-similarity", name="single")


def test_plan_and_init_know_numbers(tmp_path: Path, tiny_bert: Path) -> None:
    plan = make_plan(tunesmith.load_spec(spec_of(tmp_path, tiny_bert)), tmp_path / "runs")
    assert plan.can_run and plan.steps and plan.seconds is not None
    assert "task: text-regression" in draft_spec(str(tmp_path / "scores.csv"), tmp_path)
    pairs = table(90).select(pl.col("text").alias("sentence1"), pl.col("text").reverse().alias("sentence2"), "score")
    pairs.write_csv(tmp_path / "pairs.csv")
    assert "task: sentence-similarity" in draft_spec(str(tmp_path / "pairs.csv"), tmp_path)
    tiny.table(60).write_csv(tmp_path / "tickets.csv")
    assert "task: text-classification" in draft_spec(str(tmp_path / "tickets.csv"), tmp_path)


# ---- bad input


def test_cells_that_are_no_numbers_are_counted_and_dropped(tmp_path: Path, tiny_bert: Path) -> None:
    rows = table(100).with_columns(pl.col("score").cast(pl.String))
    bad = ["nan", "inf", "-inf", "three", "1,5", "", None, "1e400", "1e39", "-4e38"]
    rows = rows.with_columns(pl.Series("score", [*bad, *rows["score"].to_list()[len(bad) :]]))
    finished = run(tmp_path, tiny_bert, rows=rows, train={"epochs": 1}, evaluate={"baselines": []})
    assert finished.findings["data/dropped/no_number"].value == 8 and finished.findings["data/dropped/empty_label"].value == 2


@pytest.mark.parametrize(("column", "expected"), [
    (["good", "bad"] * 50, "must hold numbers"),
    (["3.5"] * 100, "must hold different numbers"),
    ([""] * 100, "must hold different numbers"),
])  # fmt: skip
def test_columns_that_cannot_be_regressed_on_are_refused(tmp_path: Path, tiny_bert: Path, column: list[str], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        run(tmp_path, tiny_bert, rows=table(100).with_columns(pl.Series("score", column)))


@pytest.mark.parametrize("setting", [
    "train.label_smoothing=0.1", "train.class_weights=balanced", "train.sampling=balanced", "train.loss.kind=focal",
    "data.multi_label=true", "data.suspects.kind=drop",
    "strategy={kind: features, head: knn}", "train.regularization.kind=r_drop", "data.standardise=[label_spelling]",
])  # fmt: skip
def test_what_is_for_classes_is_refused(tmp_path: Path, tiny_bert: Path, setting: str) -> None:
    spec = tunesmith.load_spec(spec_of(tmp_path, tiny_bert), [setting])
    assert any("is for classes, not for text-regression" in str(issue) for issue in check_spec(spec, metric_names(spec)))


def test_an_unknown_task_is_refused_with_the_known_ones(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(SpecError, match="text-regression"):
        tunesmith.load_spec(spec_of(tmp_path, tiny_bert, task="text-regresion"))


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=6), st.floats().map(str), st.sampled_from(["1e39", "-1e300"]), st.integers().map(str)),
        max_size=30,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_cell_is_a_finite_number_or_said_to_be_none(cells: list[str | None]) -> None:
    read = numbers(pl.Series("x", cells, dtype=pl.String)).to_list()
    for cell, value in zip(cells, read, strict=True):
        if cell is None or re.fullmatch(r"[\s\x00-\x1f\x7f-\x9f]*", cell):
            assert value is None
        else:
            assert value is not None and not np.isinf(np.float32(value))


def test_equal_numbers_are_spread_together() -> None:
    assert strata(pl.Series([1.0, 1.0, 5.0, 1.0, 9.0])).to_list() == ["0", "0", "6", "0", "8"]


def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge

    draw = np.random.default_rng(0)
    x, weights = draw.normal(size=(80, 5)) * 3 + 1, draw.uniform(0.2, 2, 80)
    y = x @ np.arange(5.0) + 7 + draw.normal(size=80)
    for intercept in (True, False):
        ours = fit_ridge(torch.tensor(x), y, Penalty(0.05, intercept=intercept), weights)
        peer = Ridge(alpha=weights.sum() / 50 * x.std() ** 2, fit_intercept=intercept).fit(x, y, weights)
        np.testing.assert_allclose(ours(torch.tensor(x, dtype=torch.float32)).squeeze(1).numpy(), peer.predict(x), rtol=1e-4, atol=1e-4)


def test_the_loss_is_in_units_of_the_spread() -> None:
    task = TextRegression(scale=Scale(100.0, 20.0))
    outputs = type("Outputs", (), {"logits": torch.tensor([[0.5], [-1.0]])})
    total, count = task.loss(outputs, {"labels": torch.tensor([110.0, 100.0])})
    assert (float(total), float(count)) == (1.0, 2.0)
    assert task.decode(outputs.logits, NOTHING)["predicted"].to_list() == [110.0, 80.0]  # type: ignore[attr-defined]


def test_large_numbers_keep_their_digits_in_the_loss() -> None:
    seconds = [1_700_000_000.0 + step for step in range(64)]
    rows = pl.DataFrame({"text": ["a"] * 64, "label": seconds})
    targets = TextRegression().targets(rows)
    task = TextRegression(scale=Scale(float(targets.mean()), float(targets.std())))
    batch = task.collate(task.encode(rows, tiny.tokenizer(), 8).rows)
    wanted = (np.arange(64) - 31.5) / np.arange(64).std()
    for labels in (batch["labels"], for_the_loss([{"labels": target} for target in targets])["labels"]):
        outputs = type("Outputs", (), {"logits": torch.tensor(wanted, dtype=torch.float32)[:, None]})
        total, _ = task.loss(outputs, {"labels": labels})
        assert total.dtype == torch.float32 and float(total) < 1e-8


# ---- numbers that are probably wrong


@given(st.integers(20, 400), st.integers(0, 9), st.floats(1e-3, 1e6))
@settings(max_examples=60, deadline=None)
def test_planted_wrong_numbers_come_first_and_hardly_any_other(rows: int, seed: int, unit: float) -> None:
    draw = np.random.default_rng(seed)
    said = draw.normal(size=rows) * unit * 3
    numbers_N = said + draw.normal(size=rows) * unit
    wrong = draw.choice(rows, max(rows // 50, 1), replace=False)
    numbers_N[wrong] += 12 * unit
    found = [suspect.row for suspect in suspect_numbers(numbers_N, said)]
    assert set(found[: len(wrong)]) == set(wrong.tolist()) and len(found) <= len(wrong) + 6


def test_errors_without_a_spread_name_nobody() -> None:
    assert suspect_numbers(np.arange(9.0), np.arange(9.0)) == ()
    assert suspect_numbers(np.array([0.0] * 9 + [5.0]), np.zeros(10)) == ()
    assert suspect_numbers(np.zeros(1), np.ones(1)) == ()


def test_a_run_names_its_wrong_numbers(done: tunesmith.Run, tmp_path: Path, tiny_bert: Path) -> None:
    assert done.findings["labels/judged"].value > 100 and "outliers/test" in done.findings  # type: ignore[operator]
    rows = table(200).with_row_index().with_columns(score=pl.when(pl.col("index") % 60 == 7).then(1e6).otherwise("score")).drop("index")
    finished = run(tmp_path, tiny_bert, rows=rows, train={"epochs": 1}, evaluate={"baselines": []})
    suspects = pl.read_parquet(finished.path / "data/suspects.parquet")
    assert (suspects["given"] == 1e6).sum() >= 2 and suspects["given"][0] == 1e6
    assert "have a number that it misses by far more" in (finished.path / "report.html").read_text("utf-8")
    assert verify_run(RunDir(finished.path), 1).ok
