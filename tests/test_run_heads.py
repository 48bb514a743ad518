"""Whole runs of heads on features: each is what was fitted, alone or beside the network; the search; resuming; refusals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tunesmith
from tests import tiny
from tests.test_run import assert_pipeline_agrees, raw_spec
from tunesmith.core.errors import Interrupted, ModelError, SpecError
from tunesmith.core.records import Progress
from tunesmith.core.rundir import RunDir
from tunesmith.evaluate.answers import answers_from_arrays
from tunesmith.models import boosting
from tunesmith.models.forward import predict_logits
from tunesmith.models.headed import Headed, load_shipped
from tunesmith.spec.check import check_spec
from tunesmith.spec.heads import LINEAR, SEARCHED
from tunesmith.spec.load import load_spec
from tunesmith.stages import head_search, heads, train
from tunesmith.stages.heads import Rows, Settled
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.base import Encoding

COMBINATIONS = [
    ("logistic", "cls"), ("linear_svm", "mean"), ("knn", "model"), ("gradient_boosting", "cls"), ("mlp", "mean"), ("linear", "cls"),
    ("linear", "attention"), ("mlp", "attention"),
]  # fmt: skip
LOOP = {"epochs": 2, "batch_size": 16}


@pytest.fixture(autouse=True, scope="module")
def few_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boosting, "FEWEST_ROUNDS", 5)
        patch.setattr(boosting, "TREES", 15)
        yield


def spec_of(folder: Path, tiny_bert: Path, head: Any, pooling: str = "mean", **changes: Any) -> Any:
    kind = head if isinstance(head, str) else head["kind"]
    strategy = {"kind": "features", "head": head, "pooling": pooling}
    base = {"data": {"suspects": None}, "evaluate": {"folds": None, "resamples": 100, "mistakes": 3, "baselines": []}, "strategy": strategy}
    raw = raw_spec(folder, tiny_bert, **{**base, **changes})
    raw["train"] = {**(LOOP if kind in ("linear", "mlp", "search") else {}), **changes.get("train", {})}
    return load_spec(raw)


def probabilities(done: tunesmith.Run, file: str = "test") -> np.ndarray:
    return np.array(pl.read_parquet(done.path / f"predictions/{file}.parquet")["probabilities"].to_list())


# ---- every head


@pytest.mark.parametrize(("kind", "pooling"), COMBINATIONS, ids=lambda s: s)
def test_every_head_ships_what_was_tested(tmp_path: Path, tiny_bert: Path, kind: str, pooling: str) -> None:
    evaluate = {"folds": 2, "resamples": 100, "mistakes": 3, "baselines": []}
    done = tunesmith.run(spec_of(tmp_path, tiny_bert, kind, pooling, evaluate=evaluate), tmp_path / "runs")
    assert verify_run(RunDir(done.path), 2).ok
    beside = kind not in LINEAR or pooling == "attention"
    assert (done.model_path / "head.json").exists() == (done.model_path / "head.safetensors").exists() == beside
    assert not [p for p in done.path.rglob("*") if p.suffix in (".pkl", ".joblib", ".bin", ".pt")]
    assert float(done.findings["model/parity"].value or 0) < 1e-4
    assert done.findings["folds/rows"].value == 90
    texts = pl.read_parquet(done.path / "data/test.parquet")["text"].to_list()
    again = [[*p.probabilities.values()] for p in tunesmith.load(done.path).predict(texts)]
    assert np.allclose(again, probabilities(done), atol=1e-5)
    card = (done.path / "MODEL_CARD.md").read_text("utf-8")
    assert ("tunesmith.load(" in card) == beside == ("pipeline(" not in card)
    if beside:
        assert done.findings["model/head"].value == ("attention" if pooling == "attention" else kind)
        assert ("a vector of every training row" in card) == (kind == "knn")
        network = json.loads((done.model_path / "config.json").read_text())
        assert network["architectures"] == ["BertForSequenceClassification"]
    else:
        assert_pipeline_agrees(done)


@pytest.mark.parametrize("kind", ["knn", "search"])
def test_several_labels_a_row(tmp_path: Path, tiny_bert: Path, kind: str) -> None:
    table = tiny.table(90)
    second = table["label"].gather([(n + 1) % 90 for n in range(90)])
    tags = [a if n % 3 else f"{a}|{b}" for n, (a, b) in enumerate(zip(table["label"], second, strict=True))]
    table.with_columns(pl.Series("tags", tags)).drop("label").write_csv(tmp_path / "tags.csv")
    data = {"train": str(tmp_path / "tags.csv"), "label": "tags", "multi_label": True, "label_separator": "|", "suspects": None}
    done = tunesmith.run(spec_of(tmp_path, tiny_bert, kind, data=data), tmp_path / "runs")
    assert verify_run(RunDir(done.path), 2).ok
    assert isinstance(tunesmith.load(done.path).predict(["late parcel refund"])[0].label, tuple)


@pytest.mark.parametrize("kind", ["linear_svm", "gradient_boosting", "mlp"])
def test_weights_copies_and_rare_classes_reach_the_head(
    tmp_path: Path, tiny_bert: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Rows] = []
    settle = heads.settle

    def spied(shop: heads.Shop, name: str, rows: Rows) -> Settled:
        seen.append(rows)
        return settle(shop, name, rows)

    monkeypatch.setattr(heads, "settle", spied)
    pl.concat([tiny.table(60), tiny.table(90, seed=5).filter(pl.col("label") == "login")]).write_csv(tmp_path / "rare.csv")
    data = {"train": str(tmp_path / "rare.csv"), "suspects": {"kind": "down_weight", "weight": 0.25}}
    extra = {"class_weights": "balanced", "augment": {"operations": ["drop_words"], "copies": 1, "gate": False}}
    done = tunesmith.run(spec_of(tmp_path, tiny_bert, kind, data=data, train=extra), tmp_path / "runs")
    rows = seen[0]
    copies, weights = len(rows.targets) - rows.originals, rows.weights_N
    assert copies == done.findings["augment/kept"].value and len(rows.features_NE) == len(rows.encoding.rows) == len(rows.targets)
    assert weights is not None and len(weights) == len(rows.targets)
    suspects = int(done.findings["labels/changed"].value or 0)
    by_class = [weights[: rows.originals][rows.targets[: rows.originals] == c] for c in range(3)]
    assert suspects and sum(int((of >= 3.9 * of.min()).sum()) for of in by_class if np.ptp(of)) > 0
    assert len({float(of.max()) for of in by_class}) > 1
    origin = pl.read_parquet(done.path / "data/augmented.parquet")["from"]
    place = {row: n for n, row in enumerate(pl.read_parquet(done.path / "data/train.parquet")["id"])}
    assert [rows.folds_N[place[row]] for row in origin] == rows.folds_N[rows.originals :].tolist()
    assert verify_run(RunDir(done.path), 2).ok


# ---- attention pooling


def test_attention_reads_the_last_block_from_the_store(tmp_path: Path, tiny_bert: Path) -> None:
    kept = tunesmith.run(spec_of(tmp_path, tiny_bert, "linear", "attention"), tmp_path / "runs")
    assert kept.findings["store/used"].value == "yes" and kept.findings["store/depth"].value == 2
    spec = spec_of(tmp_path, tiny_bert, "linear", "attention", name="plain", store={"mode": "never"})
    plain = tunesmith.run(spec, tmp_path / "runs")
    assert plain.findings["store/used"].value == "no"
    assert np.allclose(probabilities(kept), probabilities(plain), atol=1e-4)
    assert "features/rows/train" in kept.findings or not (kept.path / "features/train.safetensors").exists()


# ---- the search


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    folder = tmp_path_factory.mktemp("searched")
    return tunesmith.run(spec_of(folder, tiny_bert, "search"), folder / "runs")


def test_a_search_compares_five_heads_out_of_fold(searched: tunesmith.Run) -> None:
    found = searched.findings
    scores = {kind: found[f"heads/{kind}/score"] for kind in SEARCHED}
    rows = len(pl.read_parquet(searched.path / "data/train.parquet"))
    assert all(score.n == rows and score.interval for score in scores.values())
    chosen = str(found["heads/chosen"].value)
    assert scores[chosen].value == max(float(score.value or 0) for score in scores.values())
    assert "out of fold" in found["heads/chosen"].note
    report = (searched.path / "report.html").read_text("utf-8")
    assert "Heads that were compared" in report and all(f"heads/{kind}/score" in report for kind in SEARCHED)
    assert verify_run(RunDir(searched.path), 2).ok
    assert not (searched.path / "checkpoints").exists()


@pytest.mark.parametrize("stage", ["heads", "network"])
def test_an_interrupted_search_goes_on(tmp_path: Path, tiny_bert: Path, searched: tunesmith.Run, stage: str) -> None:
    spec = load_spec(RunDir(searched.path).path / "spec.yaml")
    signs = {"heads": "5 folds of gradient_boosting", "network": "mlp-2: step 3"}

    def stop(report: Progress) -> None:
        if report.note.startswith(signs[stage]):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        tunesmith.run(spec, tmp_path / "runs", stop)
    done = tunesmith.run(spec, tmp_path / "runs")
    assert np.array_equal(probabilities(done), probabilities(searched))
    for kind in SEARCHED:
        assert done.findings[f"heads/{kind}/score"] == searched.findings[f"heads/{kind}/score"]


def test_rows_of_one_group_leave_the_search_nothing_to_compare(tmp_path: Path, tiny_bert: Path) -> None:
    tables = {
        name: tiny.table(60, seed=n).with_columns(pl.lit(name).alias("source")) for n, name in enumerate(("train", "validation", "test"))
    }
    for name, table in tables.items():
        table.write_csv(tmp_path / f"{name}.csv")
    data = {**{name: str(tmp_path / f"{name}.csv") for name in tables}, "group": "source"}
    done = tunesmith.run(spec_of(tmp_path, tiny_bert, "search", data=data), tmp_path / "runs")
    assert done.findings["heads/chosen"].value == "logistic" and "not compared" in done.findings["heads/chosen"].note
    assert "not compared" in (done.path / "report.html").read_text("utf-8")


def judged(shares: dict[str, float], metric: str = "accuracy") -> tuple[str, list[Any]]:
    """The judgement on heads that get these shares of 200 rows right."""
    targets = np.arange(200) % 2
    given = {}
    for kind, share in shares.items():
        right = np.arange(200) < share * 200
        sure = np.where(right, 0.9, 0.1)
        given[kind] = answers_from_arrays(targets, np.where(np.eye(2, dtype=bool)[targets], sure[:, None], 1 - sure[:, None]))
    options = SimpleNamespace(metric=metric, resamples=100, confidence=0.95)
    context = SimpleNamespace(
        spec=SimpleNamespace(evaluate=options), given=SimpleNamespace(seed=0, kind="class", data=SimpleNamespace(multi_label=False))
    )
    return head_search.judged(SimpleNamespace(context=context), given, dict.fromkeys(shares, ""))  # type: ignore[arg-type]


def test_the_best_head_is_chosen_and_ties_go_to_the_simpler_one() -> None:
    best, findings = judged({"logistic": 0.8, "knn": 0.9, "mlp": 0.9})
    told = {finding.id: finding for finding in findings}
    assert best == "knn" and "as good as mlp" in told["heads/chosen"].note
    best, findings = judged({"logistic": 0.5, "knn": 0.9})
    note = {finding.id: finding for finding in findings}["heads/chosen"].note
    assert best == "knn" and "for certain" not in note and "beside the network" in note
    assert "for certain" in judged({"logistic": 0.8, "knn": 0.81})[1][-2].note
    assert judged({"logistic": 0.5, "knn": 0.9}, "log_loss")[0] == "knn"


def test_a_held_out_row_and_its_copies_are_not_fitted_on(tmp_path: Path) -> None:
    encoding = Encoding([{"labels": n} for n in range(8)], [1] * 8, 0)
    rows = Rows(torch.arange(8.0)[:, None], np.arange(8) % 2, None, np.array([0, 0, 1, 1, 2, 2, 0, 1]), encoding, 6)
    fitted: list[Rows] = []

    def fit(part: Rows, _name: str) -> Any:
        fitted.append(part)
        return (lambda features: torch.zeros(len(features), 2)), None

    job = SimpleNamespace(folder=tmp_path, inputs="0" * 64)
    context = SimpleNamespace(given=SimpleNamespace(data=SimpleNamespace(multi_label=False)))
    shop: Any = SimpleNamespace(context=context, classes=2, job=lambda *_: job)
    assert head_search._out_of_fold(shop, Settled(fit), rows, "knn").shape == (6, 2)
    assert [part.features_NE[:, 0].tolist() for part in fitted] == [[2, 3, 4, 5, 7], [0, 1, 4, 5, 6], [0, 1, 2, 3, 6, 7]]
    assert [part.originals for part in fitted] == [4, 4, 4]


# ---- the gate, and what the spec refuses


def test_a_model_that_says_something_else_is_not_shipped(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(*arguments: Any) -> Any:
        model = load_shipped(*arguments)
        assert isinstance(model, Headed)
        model.head.share_C += torch.tensor([5.0, 0.0, 0.0])  # type: ignore[operator]
        return model

    monkeypatch.setattr(train, "load_shipped", spoiled)
    with pytest.raises(ModelError, match="must say what was fitted"):
        tunesmith.run(spec_of(tmp_path, tiny_bert, "knn"), tmp_path / "runs")
    assert "train" not in RunDir(tmp_path / "runs/t").manifest["stages"]


def issues(strategy: dict[str, Any], **settings: Any) -> list[str]:
    spec = load_spec({"name": "x", "data": {"train": __file__}, "strategy": {"kind": "features", **strategy}, "train": settings})
    return [issue.where for issue in check_spec(spec, ())]


@pytest.mark.parametrize("kind", ["logistic", "linear_svm", "knn", "gradient_boosting", "search"])
def test_attention_is_refused_beside_a_head_that_no_loop_trains(kind: str) -> None:
    assert issues({"head": kind, "pooling": "attention"}) == ["strategy.pooling"]
    assert issues({"head": "mlp", "pooling": "attention"}) == []


def test_settings_without_effect_are_refused() -> None:
    for kind in ("logistic", "linear_svm", "knn", "gradient_boosting"):
        assert issues({"head": kind}, epochs=3, label_smoothing=0.1) == ["train.epochs", "train.label_smoothing"]
    assert issues({"head": "search"}, epochs=3, dropout=0.3) == issues({"head": "mlp"}, epochs=3, dropout=0.3) == []
    assert issues({"head": "linear"}, dropout=0.3) == ["train.dropout"]


def test_a_head_has_a_name_or_settings() -> None:
    spec = {"name": "x", "data": {"train": "a.csv"}}
    assert load_spec({**spec, "strategy": {"kind": "features", "head": "knn"}}) == load_spec(
        {**spec, "strategy": {"kind": "features", "head": {"kind": "knn"}}}
    )
    with pytest.raises(SpecError, match=r"strategy\.head\.hidden.*neighbours"):
        load_spec({**spec, "strategy": {"kind": "features", "head": {"kind": "knn", "hidden": 3}}})
    with pytest.raises(SpecError, match="gradient_boosting"):
        load_spec({**spec, "strategy": {"kind": "features", "head": "forest"}})


def test_logits_of_a_network_with_a_head_do_not_depend_on_the_order(searched: tunesmith.Run) -> None:
    predictor = tunesmith.load(searched.path)
    rows = pl.read_parquet(searched.path / "data/train.parquet")
    encoding = predictor.task.encode(rows, predictor.processor, 32)
    reverse = Encoding(encoding.rows[::-1], encoding.lengths[::-1], 0)
    forward = predict_logits(predictor.model, predictor.task, encoding)
    assert torch.allclose(forward, predict_logits(predictor.model, predictor.task, reverse).flip(0), atol=1e-3)
