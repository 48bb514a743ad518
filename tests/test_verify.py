"""Verification: an untouched run holds, and every kind of tampering is caught at the level that promises it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.verify_fixture import WEIGHTS, forge, make_run, npy, predict, render, weights
from tunesmith.core.errors import RunError
from tunesmith.core.ledger import append_findings
from tunesmith.core.records import Finding
from tunesmith.core.rundir import RunDir
from tunesmith.document.verify import Verification, verify

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tickets").path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "tickets"))


def checked(run: Path, level: int = 2) -> Verification:
    return verify(run, level, predict, render)


def troubles(verification: Verification, level: int | None = None) -> dict[str, str]:
    """What did not hold, with its status; only of one level if asked."""
    wrong = [c for c in verification.checks if c.status not in ("verified", "skipped")]
    return {c.what: c.status for c in wrong if level is None or c.level == level}


def flip(run: Path, name: str, at: float = 0.5) -> None:
    data = bytearray((run / name).read_bytes())
    data[int(len(data) * at)] ^= 1
    (run / name).write_bytes(data)


def change_table(run: Path, name: str, *columns: pl.Expr) -> None:
    table = pl.read_parquet(run / name)
    table.with_columns(*columns).write_parquet(run / name)


def first_row(column: str, value: object) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


def other_label(run: Path) -> str:
    now = pl.read_parquet(run / "data/test.parquet")["label"][0]
    return "login" if now != "login" else "billing"


def change_ledger(run: Path, id_: str, **fields: object) -> None:
    lines = [json.loads(line) for line in (run / "ledger.jsonl").read_text("utf-8").splitlines()]
    lines = [{**line, **fields} if line["id"] == id_ else line for line in lines]
    (run / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def edit_card(run: Path) -> None:
    text = (run / "MODEL_CARD.md").read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("test/accuracy: "))
    digit = line[-1]
    (run / "MODEL_CARD.md").write_text(text.replace(line, line[:-1] + str((int(digit) + 1) % 10)), "utf-8")


def swap_weights(run: Path) -> None:
    (run / WEIGHTS).write_bytes(npy(weights()[::-1]))


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_untouched_run_verifies(tmp_path: Path, multi_label: bool) -> None:
    verification = checked(make_run(tmp_path / "run", multi_label).path)
    assert verification.ok, troubles(verification)
    assert {c.level for c in verification.checks if c.status == "verified"} == {0, 1, 2}
    assert [c.what for c in verification.checks if c.status == "skipped"] == ["test/rows_per_second"]


def test_levels_stop_where_they_are_told_and_say_what_was_skipped(run: Path) -> None:
    assert {c.level for c in checked(run, 0).checks} == {0}
    assert {c.level for c in checked(run, 1).checks} == {0, 1}
    bare = verify(run)
    assert bare.ok and {c.what for c in bare.checks if c.status == "skipped"} >= {"documents", "predictions of the saved weights"}


def edit_spec(run: Path) -> None:
    text = (run / "spec.yaml").read_text("utf-8")
    (run / "spec.yaml").write_text(text.replace("seed: 3", "seed: 4"), "utf-8")


def edit_label(run: Path) -> None:
    change_table(run, "data/test.parquet", first_row("label", other_label(run)))


EVALUATE = "findings of the stage evaluate"
LEVEL_0: dict[str, tuple[Edit, str, str]] = {
    "a byte of the predictions": (lambda run: flip(run, "predictions/test.parquet"), "predictions/test.parquet", "mismatch"),
    "a byte of a baseline": (lambda run: flip(run, "predictions/test.majority.parquet"), "predictions/test.majority.parquet", "mismatch"),
    "a byte of the weights": (lambda run: flip(run, WEIGHTS, 0.9), WEIGHTS, "mismatch"),
    "other weights": (swap_weights, WEIGHTS, "mismatch"),
    "a digit of the card": (edit_card, "MODEL_CARD.md", "mismatch"),
    "a label in the data": (edit_label, "data/test.parquet", "mismatch"),
    "a value in the ledger": (lambda run: change_ledger(run, "test/accuracy", value=1.0), EVALUATE, "mismatch"),
    "a note in the ledger": (lambda run: change_ledger(run, "test/accuracy", note="sic"), EVALUATE, "mismatch"),
    "a stage's name in the ledger": (lambda run: change_ledger(run, "test/accuracy", stage="train"), EVALUATE, "mismatch"),
    "no ledger": (lambda run: (run / "ledger.jsonl").unlink(), EVALUATE, "mismatch"),
    "a ledger that is no JSON": (lambda run: flip(run, "ledger.jsonl", 0.0), "ledger.jsonl", "mismatch"),
    "a deleted file": (lambda run: (run / "data/labels.json").unlink(), "data/labels.json", "missing"),
    "a deleted report": (lambda run: (run / "report.html").unlink(), "report.html", "missing"),
    "the spec": (edit_spec, "spec.yaml", "mismatch"),
    "no spec": (lambda run: (run / "spec.yaml").unlink(), "spec.yaml", "missing"),
}


@pytest.mark.parametrize("name", LEVEL_0)
def test_level_0_catches(run: Path, name: str) -> None:
    edit, what, status = LEVEL_0[name]
    edit(run)
    verification = checked(run, 0)
    assert not verification.ok and troubles(verification)[what] == status


@pytest.mark.parametrize("name", LEVEL_0)
def test_damage_never_stops_the_deeper_levels(run: Path, name: str) -> None:
    LEVEL_0[name][0](run)
    assert not checked(run, 2).ok


LEVEL_1: dict[str, tuple[Edit, str]] = {
    "a label in the predictions": (
        lambda run: change_table(run, "predictions/test.parquet", first_row("label", other_label(run))),
        "labels of predictions/test.parquet",
    ),
    "a label in the data": (
        edit_label,
        "labels of predictions/test.parquet",
    ),
    "a label in both": (
        lambda run: [
            change_table(run, name, first_row("label", other_label(run)))
            for name in ("predictions/test.parquet", "predictions/test.majority.parquet", "data/test.parquet")
        ],
        "scores of predictions/test.parquet",
    ),
    "a predicted label": (
        lambda run: change_table(run, "predictions/test.parquet", pl.col("label").alias("predicted")),
        "labels of predictions/test.parquet",
    ),
    "a confidence": (
        lambda run: change_table(run, "predictions/test.parquet", first_row("confidence", 0.5).cast(pl.Float32)),
        "labels of predictions/test.parquet",
    ),
    "the baseline": (
        lambda run: change_table(run, "predictions/test.majority.parquet", pl.lit("login").alias("predicted")),
        "scores of predictions/test.majority.parquet",
    ),
    "a text": (lambda run: change_table(run, "data/train.parquet", first_row("text", "something else")), "texts of data/train.parquet"),
    "fewer rows": (
        lambda run: pl.read_parquet(run / "predictions/test.parquet").head(50).write_parquet(run / "predictions/test.parquet"),
        "labels of predictions/test.parquet",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEVEL_1)
def test_level_1_catches_what_forged_hashes_hide_from_level_0(run: Path, name: str) -> None:
    edit, what = LEVEL_1[name]
    edit(run)
    forge(run)
    verification = checked(run, 1)
    assert not {w: s for w, s in troubles(verification, 0).items() if w != "files behind the findings"}, "the forgery is complete"
    assert troubles(verification, 1)[what] == "mismatch"


@pytest.mark.parametrize("fields", [{"value": 0.99}, {"interval": [0.1, 0.2]}, {"n": 61}, {"value": None}])
def test_level_1_catches_a_score_that_the_predictions_do_not_give(run: Path, fields: dict[str, object]) -> None:
    change_ledger(run, "test/baseline/majority/accuracy/difference", **fields)
    detail = next(c.detail for c in checked(run, 1).checks if c.what == "scores of predictions/test.majority.parquet")
    assert detail.startswith("1 findings: test/baseline/majority/accuracy/difference ")


def test_level_1_catches_an_invented_score(run: Path) -> None:
    append_findings(run / "ledger.jsonl", [Finding("test/wisdom", "Wisdom", 1.0, stage="evaluate")])
    assert "test/wisdom comes from no prediction" in str(checked(run, 1).checks)


@pytest.mark.parametrize(
    "edit", [swap_weights, lambda run: (run / WEIGHTS).write_bytes(npy(weights() * 1.01)), lambda run: (run / WEIGHTS).write_bytes(b"")]
)
def test_level_2_catches_other_weights_under_forged_hashes(run: Path, edit: Edit) -> None:
    edit(run)
    forge(run)
    assert not troubles(checked(run, 1), 1)
    assert set(troubles(checked(run, 2), 2)) == {
        "predictions/validation.parquet from the weights",
        "predictions/test.parquet from the weights",
    }


def test_level_2_catches_predictions_that_agree_with_their_scores_but_not_with_the_weights(run: Path) -> None:
    """A forger who writes better predictions and every score that follows from them still cannot write the weights."""
    shutil.rmtree(run)

    def better(rundir: RunDir, split: str) -> pl.DataFrame:
        honest = predict(rundir, split)
        lifted = np.array(honest["probabilities"].to_list()) * 0.998 + 0.001
        return honest.with_columns(pl.Series("probabilities", lifted.astype(np.float32).tolist(), dtype=pl.List(pl.Float32)))

    made = make_run(run)
    verification = verify(made.path, 2, better, render)
    assert not troubles(verification, 0) and not troubles(verification, 1) and len(troubles(verification, 2)) == 2


def test_rounding_within_the_tolerance_is_no_mismatch(run: Path) -> None:
    def nearly(rundir: RunDir, split: str) -> pl.DataFrame:
        honest = predict(rundir, split)
        p = np.array(honest["probabilities"].to_list()) + 5e-5 * np.array([1, -1, 0])
        return honest.with_columns(pl.Series("probabilities", p.astype(np.float32).tolist(), dtype=pl.List(pl.Float32)))

    assert verify(run, 2, nearly, render).ok

    def flipped(rundir: RunDir, split: str) -> pl.DataFrame:
        return predict(rundir, split).with_columns(first_row("predicted", other_label(run)))

    assert not verify(run, 2, flipped, render).ok


def test_what_changed_upstream_makes_what_follows_stale(run: Path) -> None:
    rundir = RunDir(run)
    with rundir.stage("prepare", "other inputs", {}) as writer:
        for split in ("train", "validation", "test"):
            rows = pl.read_parquet(run / f"data/{split}.parquet").head(59)
            writer.find(Finding(f"data/rows/{split}", "Rows", 59, artefact=writer.write(f"data/{split}.parquet", rows.write_parquet)))
        writer.wrote("data/labels.json")
    wrong = troubles(checked(run, 1))
    assert wrong["MODEL_CARD.md"] == "stale" and wrong["labels of predictions/test.parquet"] == "mismatch"
    assert "files of the stage prepare" not in wrong and "findings of the stage prepare" not in wrong
    now = {name: "inputs of " + name for name in ("prepare", "train", "tune")}
    chained = {c.what: c.status for c in verify(run, 0, inputs=lambda _run: now).checks}
    assert chained["stage prepare"] == "stale" and chained["stage tune"] == "missing" and "stage train" not in chained


def test_a_finding_read_from_a_file_that_was_replaced_is_stale(run: Path) -> None:
    (run / WEIGHTS).write_bytes(npy(weights() * 2))
    forge(run)
    assert troubles(checked(run, 0)) == {"files behind the findings": "stale"}


def test_a_stage_that_was_killed_and_ran_again_is_no_tampering(run: Path) -> None:
    """The ledger then holds its findings twice, and the manifest speaks of the second time."""
    rundir = RunDir(run)
    torn = [f for f in rundir.findings.values() if f.stage == "evaluate"][:5]
    append_findings(run / "ledger.jsonl", torn)
    assert troubles(checked(run, 0)) == {"findings of the stage evaluate": "stale"}
    append_findings(run / "ledger.jsonl", [f for f in rundir.findings.values() if f.stage == "evaluate"])
    assert not troubles(checked(run, 0))


def test_a_changed_source_table_is_stale_and_an_absent_one_is_not_held_against_the_run(run: Path) -> None:
    source = run.parent / "t.csv"
    source.write_text("text,label\n")
    RunDir(run).update_manifest(data={str(source): "0" * 64, "elsewhere.csv": "0" * 64})
    found = {c.what: c.status for c in checked(run, 0).checks if c.what.startswith("source")}
    assert found == {f"source {source}": "stale", "source elsewhere.csv": "skipped"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"stages": {"train": {}}}', b'{"stages": []}', b'{"stages": 3}', b"\xff\xfe"]
)
def test_a_broken_manifest_is_a_finding_not_a_traceback(run: Path, content: bytes) -> None:
    (run / "manifest.json").write_bytes(content)
    assert not checked(run).ok


def test_no_run_directory_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must be a run directory"):
        verify(tmp_path)


def test_flipping_any_byte_of_any_file_of_a_stage_is_caught_without_a_traceback(run: Path) -> None:
    rng = np.random.default_rng(0)
    names = [name for entry in RunDir(run).manifest["stages"].values() for name in entry["outputs"]]
    for name in names:
        honest = (run / name).read_bytes()
        flip(run, name, float(rng.random()))
        assert troubles(checked(run, 1))[name] == "mismatch"
        (run / name).write_bytes(honest)
    assert checked(run, 1).ok
