"""Cross-validation: folds that cut nothing, models trained as the run's own is, scores that can be made again, and resuming."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
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
from tests.test_run import raw_spec, weights
from tunesmith.core.errors import DataError, Interrupted, SpecError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Progress
from tunesmith.core.rundir import RunDir, StageWriter
from tunesmith.data.balance import balanced_weights
from tunesmith.data.folding import Fold, fold_of, folding
from tunesmith.spec.defaults import Facts, resolve
from tunesmith.spec.schema import Spec
from tunesmith.stages import crossvalidate
from tunesmith.stages.context import SPLITS, Context
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run

FEATURES = {"kind": "features"}


def spec_of(folder: Path, tiny_bert: Path, folds: object = 3, **changes: Any) -> Spec:
    evaluate = {"folds": folds, "baselines": ["features"], **changes.pop("evaluate", {})}
    return tunesmith.load_spec(raw_spec(folder, tiny_bert, evaluate=evaluate, **changes))


def predictions(done: tunesmith.Run, name: str = "folds") -> pl.DataFrame:
    return pl.read_parquet(done.path / f"predictions/{name}.parquet")


def splits_of(done: tunesmith.Run) -> dict[str, pl.DataFrame]:
    return {split: pl.read_parquet(done.path / f"data/{split}.parquet") for split in SPLITS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folds")


@pytest.fixture(scope="module")
def done(folder: Path, tiny_bert: Path) -> tunesmith.Run:
    """A run with three folds, every weight trained."""
    return tunesmith.run(spec_of(folder, tiny_bert), folder / "runs")


# ---- whole runs


def test_every_row_is_answered_once_by_a_model_that_has_not_seen_it(done: tunesmith.Run) -> None:
    answered, found = predictions(done), done.findings
    rows = pl.concat(splits_of(done).values())
    assert answered["id"].equals(rows["id"])
    assert answered["label"].equals(rows["label"])
    assert answered["fold"].value_counts()["count"].to_list() == [30, 30, 30]
    assert found["folds/rows"].value == len(rows) == found["folds/accuracy"].n
    assert found["folds/accuracy"].interval
    assert found["folds/accuracy"].value == pytest.approx((answered["label"] == answered["predicted"]).mean())
    each = [found[f"folds/score/{number}"].value for number in (1, 2, 3)]
    ends = (found["folds/lowest"].value, found["folds/highest"].value)
    assert ends == (min(each), max(each))  # type: ignore[type-var]
    assert found["folds/deviation"].value == pytest.approx(np.std(each, ddof=1))  # type: ignore[arg-type]
    difference = found["folds/baseline/features/accuracy/difference"]
    assert difference.n == 90
    assert difference.value == pytest.approx(float(found["folds/accuracy"].value) - float(found["folds/baseline/features/accuracy"].value))  # type: ignore[arg-type]
    assert not (done.path / "checkpoints").exists()


def test_what_ships_and_its_test_are_the_same_with_and_without_folds(done: tunesmith.Run, folder: Path, tiny_bert: Path) -> None:
    plain = tunesmith.run(spec_of(folder, tiny_bert, None, name="plain"), folder / "runs")
    assert all(torch.equal(a, b) for a, b in zip(weights(done.path).values(), weights(plain.path).values(), strict=True))
    assert predictions(done, "test").equals(predictions(plain, "test"))
    assert plain.findings["crossvalidate/folds"].note == "the spec says so"
    assert "Not done: " in plain.report_path.read_text("utf-8")
    assert not [name for name in plain.findings if name.startswith("folds/")]


def test_a_model_of_a_fold_is_what_a_run_on_its_rows_would_train(done: tunesmith.Run, tmp_path: Path, tiny_bert: Path) -> None:
    spec = spec_of(tmp_path, tiny_bert)
    fold = fold_of(folding(splits_of(done), spec), 2, spec)
    for name, rows in (("train", fold.train), ("validation", fold.validation), ("test", fold.test)):
        rows.select("text", "label").write_csv(tmp_path / f"{name}.csv")
    data = {name: str(tmp_path / f"{name}.csv") for name in SPLITS}
    resolved = tunesmith.spec.defaults.read_resolved(done.path / "resolved.yaml")
    model = {"name": str(tiny_bert), "max_length": resolved.model.max_length}
    alone = tunesmith.run(spec_of(tmp_path, tiny_bert, None, data=data, model=model), tmp_path / "runs")
    expected = dict(predictions(alone, "test").select("id", "probabilities").iter_rows())
    of_fold = predictions(done).filter(pl.col("fold") == 2)
    for row, got in of_fold.select("id", "probabilities").iter_rows():
        assert got == pytest.approx(expected[row], abs=1e-5)
    baseline = dict(predictions(alone, "test.features").select("id", "predicted").iter_rows())
    assert dict(predictions(done, "folds.features").filter(pl.col("fold") == 2).select("id", "predicted").iter_rows()) == baseline


@pytest.mark.parametrize("abrupt", [False, True], ids=["Ctrl-C", "killed"])
def test_a_finished_fold_is_not_trained_again(done: tunesmith.Run, folder: Path, tmp_path: Path, tiny_bert: Path, abrupt: bool) -> None:
    spec = spec_of(folder, tiny_bert)

    def stop(report: Progress) -> None:
        if report.stage == "crossvalidate" and "fold 2 of 3: train" in report.note and report.epoch is not None and report.epoch > 1:
            if abrupt:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt if abrupt else Interrupted):
        tunesmith.run(spec, tmp_path / "runs", stop)
    seen: list[Progress] = []
    again = tunesmith.run(spec, tmp_path / "runs", seen.append)
    notes = [report.note for report in seen if report.stage == "crossvalidate"]
    assert not [note for note in notes if note.startswith("fold 1")]
    trained = [report.epoch for report in seen if report.note.startswith("fold 2 of 3: train") and report.epoch is not None]
    assert min(trained) > 0.5  # the checkpoint of the fold was continued
    assert any(note.startswith("fold 3 of 3: train") for note in notes)
    assert predictions(again).equals(predictions(done))


def test_verification_makes_the_scores_again_and_admits_what_it_cannot(done: tunesmith.Run) -> None:
    checked = verify_run(RunDir(done.path), 2)
    assert checked.ok
    told = {check.what: check for check in checked.checks}
    for what in ("labels of", "scores of", "folds of"):
        assert told[f"{what} predictions/folds.parquet"].status == "verified"
    assert told["scores of predictions/folds.features.parquet"].status == "verified"
    skipped = told["predictions/folds.parquet from the weights"]
    assert (skipped.status, "not kept" in skipped.detail) == ("skipped", True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.with_columns(fold=pl.col("fold").reverse()), "folds of"),
        (lambda t: t.with_columns(label=pl.lit("billing")), "labels of"),
        (lambda t: t.with_columns(pl.col("probabilities", "predicted", "confidence").reverse()), "scores of"),
        (lambda t: t.head(80), "folds of"),
    ],
)  # fmt: skip
def test_verification_catches_changes(done: tunesmith.Run, change: Any, what: str) -> None:
    path = done.path / "predictions/folds.parquet"
    before = path.read_bytes()
    change(pl.read_parquet(path)).write_parquet(path)
    try:
        found = {check.what: check.status for check in verify_run(RunDir(done.path), 1).checks}
    finally:
        path.write_bytes(before)
    assert found[f"{what} predictions/folds.parquet"] == "mismatch"


def test_documents_show_both_scores(done: tunesmith.Run) -> None:
    report, card = done.report_path.read_text("utf-8"), (done.path / "MODEL_CARD.md").read_text("utf-8")
    assert 'id="crossvalidation"' in report
    assert "Cross-validated" in report
    assert "### Cross-validation" in card
    assert "on 90 rows that they had not seen" in card


def test_folds_by_time_look_forward_only(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(80).with_columns(day=pl.Series([f"2024-{1 + n % 12:02d}-{1 + n // 12:02d}" for n in range(80)]))
    table.write_csv(tmp_path / "tickets.csv")
    data = {"split": {"kind": "time", "column": "day"}, "text": "text"}
    ran = tunesmith.run(spec_of(tmp_path, tiny_bert, strategy=FEATURES, data=data), tmp_path / "runs")
    splits = splits_of(ran)
    moments = dict(pl.concat(splits.values()).select("id", "moment").iter_rows())
    answered, spec = predictions(ran), spec_of(tmp_path, tiny_bert, strategy=FEATURES, data=data)
    for number in (1, 2, 3):
        fold = fold_of(folding(splits, spec), number, spec)
        asked = answered.filter(pl.col("fold") == number)["id"].to_list()
        assert set(asked) == set(fold.test["id"])
        assert fold.train["moment"].max() < fold.validation["moment"].min()  # type: ignore[operator]
        assert fold.validation["moment"].max() < min(moments[row] for row in asked)  # type: ignore[operator]
    left = ran.findings["crossvalidate/not_asked"]
    assert left.value == 80 - len(answered) > 0
    assert "only trained on" in left.note
    assert verify_run(RunDir(ran.path), 2).ok


def test_suspects_and_copies_are_those_of_the_fold(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny.table(90)
    wrong = [label if n % 9 else "login" for n, label in enumerate(table["label"])]
    table.with_columns(label=pl.Series(wrong)).write_csv(tmp_path / "tickets.csv")
    seen: list[Context] = []
    train = crossvalidate.train.train

    def watched(context: Context, stage: StageWriter) -> None:
        if not context.spec.train.augment:
            raise AssertionError("the spec is that of the run")
        folder = context.rundir.path
        if "folds" in str(folder):
            own, held = set(context.table("train")["id"]), set(context.table("test")["id"])
            suspects = pl.read_parquet(folder / "data/suspects.parquet")
            assert set(suspects["id"]) <= own
            assert set(context.copies["from"]) <= own - set(suspects["id"])
            assert not (own | set(context.copies["from"])) & held
            assert_class_weights(context)
            seen.append(context)
        train(context, stage)

    monkeypatch.setattr(crossvalidate.train, "train", watched)
    sets = {"augment": {"operations": ["drop_words"], "gate": False}, "class_weights": "balanced", "epochs": 1}
    spec = spec_of(tmp_path, tiny_bert, 2, data={"suspects": {"kind": "drop"}}, train=sets)
    ran = tunesmith.run(spec, tmp_path / "runs")
    assert len(seen) == 2
    assert ran.findings["crossvalidate/copies"].value == sum(len(context.copies) for context in seen)
    assert ran.findings["crossvalidate/suspects"].value
    assert verify_run(RunDir(ran.path), 1).ok
    assert_class_weights(Context(spec, RunDir(ran.path), lambda _: None, StopRequest()))


def test_a_row_that_the_run_had_paraphrased_is_not_paraphrased_again(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import paraphrase

    asked: list[set[str]] = []

    def paraphrases(rows: pl.DataFrame, rule: object, copies: int, seed: int, watch: object = None) -> pl.DataFrame:
        asked.append(set(rows["id"]))
        text = pl.format("in other words {} so to say", "text").alias("text")
        return rows.select(pl.col("id") + "+1", pl.col("id").alias("from"), text, problem=pl.lit(""))

    monkeypatch.setattr(paraphrase, "paraphrases", paraphrases)
    sets = {"augment": {"paraphrase": {"model": "writer"}, "gate": False}}
    spec = spec_of(tmp_path, tiny_bert, 2, train=sets)
    ran = tunesmith.run(spec, tmp_path / "runs")
    splits, whole = splits_of(ran), folding(splits_of(ran), spec)
    own = set(splits["train"]["id"])
    assert asked == [own, *(set(fold_of(whole, number, spec).train["id"]) - own for number in (1, 2))]
    assert ran.findings["crossvalidate/copies"].value == sum(len(fold_of(whole, number, spec).train) for number in (1, 2))


def assert_class_weights(context: Context) -> None:
    """They count the rows that are trained on: without suspects, with copies."""
    counts = np.bincount([row["labels"] for row in context.training_encoding().rows], minlength=3)
    assert counts.sum() != len(context.table("train"))
    assert context.training_task.class_weights.tolist() == pytest.approx(balanced_weights(counts).tolist())  # type: ignore[attr-defined]


def test_several_labels_a_row_a_given_test_and_a_class_with_fewer_rows_than_folds(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90).with_columns(tags=pl.when(pl.int_range(90) % 4 == 0).then(pl.lit("login|billing")).otherwise("label"))
    rare = pl.DataFrame({"text": ["quite another matter"], "tags": ["rare"]})
    pl.concat([table.drop("label").head(60), rare]).write_csv(tmp_path / "tickets.csv")
    table.drop("label").tail(30).write_csv(tmp_path / "test.csv")
    data = {"label": "tags", "multi_label": True, "label_separator": "|", "test": str(tmp_path / "test.csv")}
    ran = tunesmith.run(spec_of(tmp_path, tiny_bert, 2, data=data, strategy=FEATURES), tmp_path / "runs")
    found, report = ran.findings, ran.report_path.read_text("utf-8")
    assert found["folds/rows"].value == 61
    assert (found["crossvalidate/apart"].value, found["crossvalidate/apart"].note) == (30, "30 rows of the given test split")
    assert "rows stay apart" in report
    assert found["crossvalidate/unseen"].value == 1
    assert found["folds/class/rare/recall"].value == 0
    assert "had to be got wrong" in report
    assert verify_run(RunDir(ran.path), 2).ok


def test_folds_that_cannot_be_are_refused_before_training(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(80).with_columns(who=pl.Series([f"p{n % 8}" for n in range(80)]))
    table.write_csv(tmp_path / "tickets.csv")
    spec = spec_of(tmp_path, tiny_bert, 9, data={"group": "who"})
    with pytest.raises(DataError, match=r"evaluate\.folds: must be at most 8, for 8 clusters and groups, got 9\. Lower it"):
        tunesmith.run(spec, tmp_path / "runs")
    assert not make_plan(spec, tmp_path).can_run
    for wrong in (1, 0, -2, 2.5, "many", 21):
        with pytest.raises(SpecError, match=r"evaluate\.folds"):
            spec_of(tmp_path, tiny_bert, wrong)


def test_the_plan_counts_the_folds(tmp_path: Path, tiny_bert: Path) -> None:
    with_folds, without = (make_plan(spec_of(tmp_path, tiny_bert, folds), tmp_path) for folds in (3, None))
    assert with_folds.fold_seconds > 0 == without.fold_seconds
    assert with_folds.seconds is not None
    assert with_folds.seconds > with_folds.fold_seconds


# ---- when, and which rows


@pytest.mark.parametrize(
    ("rows", "fewest", "given", "folds"),
    [
        (1000, 9, "auto", 5),
        (1001, 9, "auto", None),
        (1000, 10, "auto", None),
        (100, 0, "auto", 5),
        (10**6, 500, 7, 7),
        (100, 0, None, None),
    ],
)
def test_when_folds_are_made(rows: int, fewest: int, given: object, folds: int | None) -> None:
    facts = Facts(rows, 20, 512, False, "accuracy", rows, fewest, rows)
    resolved = resolve(tunesmith.load_spec({"name": "x", "data": {"train": "t.csv"}, "evaluate": {"folds": given}}), facts)
    assert resolved.spec.evaluate.folds == folds
    assert (str(fewest) in resolved.rules["evaluate.folds"]) == (given == "auto")


def parts_of(table: pl.DataFrame, count: int, seed: int, **data: Any) -> Iterator[Fold]:
    raw = {"name": "x", "seed": seed, "data": {"train": "t.csv", **data}, "evaluate": {"folds": count}}
    spec = tunesmith.load_spec(raw)
    cut = len(table) * 8 // 10, len(table) * 9 // 10
    whole = folding({"train": table[: cut[0]], "validation": table[cut[0] : cut[1]], "test": table[cut[1] :]}, spec)
    assert whole.rows.height == len(table)
    yield from (fold_of(whole, number, spec) for number in range(1, count + 1))


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=12, max_size=80),
    count=st.integers(2, 6),
    seed=st.integers(0, 99),
    by_time=st.booleans(),
)
def test_groups_are_never_cut_and_nothing_answers_what_it_has_seen(groups: list[int], count: int, seed: int, by_time: bool) -> None:
    size = len(groups)
    moments = [(n * 7) % size for n in range(size)]
    table = tiny.table(size, seed).with_columns(
        id=pl.Series([f"{n:04d}" for n in range(size)]), group=pl.Series([f"g{g}" for g in groups]), moment=pl.Series(moments)
    )
    more: dict[str, Any] = {"split": {"kind": "time", "column": "t"}} if by_time else {}
    asked: list[str] = []
    for fold in parts_of(table, count, seed, group="who", near_duplicates=None, **more):
        sides = [set(part["id"]) for part in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        named = [set(part["group"]) for part in (fold.train, fold.validation, fold.test)]
        assert not named[0] & named[2]
        assert not named[1] & named[2]
        assert not named[0] & named[1]
        if by_time:
            first = table.group_by("group").agg(pl.col("moment").min()).filter(pl.col("group").is_in(list(named[2])))["moment"].min()
            known = table.group_by("group").agg(pl.col("moment").min()).filter(pl.col("group").is_in(list(named[0] | named[1])))
            assert all(moment < first for moment in known["moment"])
        else:
            assert sum(map(len, sides)) == size
        asked += fold.test["id"].to_list()
    assert len(asked) == len(set(asked))
    assert by_time or len(asked) == size


def test_near_duplicates_share_a_fold_and_can_be_thinned() -> None:
    texts = [f"{word} the parcel of the customer number {n} never came to the door" for n in range(20) for word in ("indeed", "Indeed!")]
    labels = ["a" if n % 4 < 2 else "b" for n in range(40)]
    table = pl.DataFrame({"id": [f"{n:02d}" for n in range(40)], "text": texts, "label": labels, "source": [""] * 40})
    near = {"jaccard": 0.95, "in_train": "drop"}
    for fold in parts_of(table, 3, 0, near_duplicates=near):
        pairs = [{int(row) // 2 for row in part["id"]} for part in (fold.train, fold.validation, fold.test)]
        assert not pairs[0] & pairs[2]
        assert not pairs[1] & pairs[2]
        assert fold.repeated == len(fold.train) > 0


def test_a_fold_that_cannot_be_trained_says_why() -> None:
    table = tiny.table(30).with_columns(id=pl.Series([f"{n:02d}" for n in range(30)]), group=pl.lit("one"))
    problems = [fold.problem for fold in parts_of(table, 3, 0, group="who")]
    assert all(problems)
    assert any("fewer clusters and groups than folds" in problem for problem in problems)
