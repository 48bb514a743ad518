"""Whole runs on a tiny model: every strategy and kind of label, skipping, resuming, refusing, and plain loading."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tunesmith
from tests import tiny
from tunesmith.core.errors import Interrupted, RunError, SpecError, TunesmithError
from tunesmith.core.records import Progress
from tunesmith.core.rundir import RunDir
from tunesmith.pipeline import STAGES
from tunesmith.stages.verify import verify_run

STRATEGIES = [
    {"kind": "full"},
    {"kind": "layers", "top": 1},
    {"kind": "lora", "rank": 2},
    {"kind": "features"},
    {"kind": "features", "head": "linear"},
    {"kind": "features", "pooling": "model"},
]


def raw_spec(folder: Path, tiny_bert: Path, **changes: Any) -> dict[str, Any]:
    data = folder / "tickets.csv"
    if not data.exists():
        tiny.table(90).write_csv(data)
    strategy = changes.get("strategy", {})
    no_loop = strategy.get("kind") == "features" and strategy.get("head", "logistic") == "logistic"
    train = {} if no_loop else {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3}
    base: dict[str, Any] = {
        "name": "t", "data": {"train": str(data)}, "model": {"name": str(tiny_bert)}, "train": train,
        "evaluate": {"resamples": 100, "mistakes": 3, "folds": None},
    }  # fmt: skip
    return {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in changes.items()}}


def run(folder: Path, tiny_bert: Path, **changes: Any) -> tunesmith.Run:
    return tunesmith.run(tunesmith.load_spec(raw_spec(folder, tiny_bert, **changes)), folder / "runs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    """A finished run with the default strategy, shared by tests that only read it."""
    return run(tmp_path_factory.mktemp("finished"), tiny_bert, train={"epochs": 6})


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: "-".join(map(str, s.values())))
def test_every_strategy_gives_a_checked_run_that_plain_transformers_loads(
    tmp_path: Path, tiny_bert: Path, strategy: dict[str, Any]
) -> None:
    done = run(tmp_path, tiny_bert, strategy=strategy)
    for name in (
        "report.html",
        "MODEL_CARD.md",
        "resolved.yaml",
        "predictions/test.parquet",
        "model/model.safetensors",
        "data/dropped.parquet",
    ):
        assert (done.path / name).stat().st_size > 0
    assert verify_run(RunDir(done.path), 2).ok
    assert_pipeline_agrees(done)
    assert not (done.path / "checkpoints").exists()
    assert (done.path / "model/adapter/adapter_config.json").exists() == (strategy["kind"] == "lora")


def assert_pipeline_agrees(done: tunesmith.Run) -> None:
    from transformers import pipeline

    rows = pl.read_parquet(done.path / "data/test.parquet")
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    classify = pipeline("text-classification", model=str(done.model_path), device="cpu", truncation=True)
    long = "late parcel refund " * 200
    assert classify([long])[0]["score"] == pytest.approx(tunesmith.load(done.path).predict([long])[0].probability, abs=1e-5)
    labels = json.loads((done.path / "data/labels.json").read_text())
    for row, kept, answer in zip(
        rows.iter_rows(named=True), stored.iter_rows(named=True), classify(rows["text"].to_list(), top_k=None), strict=True
    ):
        scores = {a["label"]: a["score"] for a in answer}
        assert scores == pytest.approx(dict(zip(labels, kept["probabilities"], strict=True)), abs=1e-5), row["text"]


def test_sentence_pairs(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(60).with_columns(pl.col("text").reverse().alias("hypothesis")).rename({"text": "premise"})
    table.write_csv(tmp_path / "pairs.csv")
    done = run(tmp_path, tiny_bert, data={"train": str(tmp_path / "pairs.csv"), "text": ["premise", "hypothesis"], "label": "label"})
    predictions = tunesmith.load(done.path).predict([("the parcel", "is late"), ("a", "b")])
    assert len(predictions) == 2
    with pytest.raises(TunesmithError, match="pair of strings"):
        tunesmith.load(done.path).predict(["one text"])
    assert verify_run(RunDir(done.path), 2).ok


def test_several_labels_a_row(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    second = table["label"].gather([(n + 1) % 90 for n in range(90)])
    tags = [a if n % 3 else (f"{a}|{b}" if n % 2 else "") for n, (a, b) in enumerate(zip(table["label"], second, strict=True))]
    table.with_columns(pl.Series("tags", tags)).drop("label").write_csv(tmp_path / "tags.csv")
    data = {"train": str(tmp_path / "tags.csv"), "label": "tags", "multi_label": True, "label_separator": "|"}
    for strategy in ({"kind": "full"}, {"kind": "features"}):
        done = run(tmp_path, tiny_bert, name=strategy["kind"], data=data, strategy=strategy)
        prediction = tunesmith.load(done.path).predict(["late parcel refund"])[0]
        assert isinstance(prediction.label, tuple)
        assert set(prediction.probabilities) == set(tiny.WORDS)
        assert verify_run(RunDir(done.path), 2).ok


def test_a_finished_run_is_skipped_and_unchanged(finished: tunesmith.Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*") if p.is_file() and p.name != ".lock"}
    spec = tunesmith.load_spec(json.loads(json.dumps(read_spec(finished))))
    seen: list[Progress] = []
    tunesmith.run(spec, finished.path.parent, seen.append)
    assert [s.note for s in seen] == ["finished earlier"] * len(STAGES)
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.rglob("*") if p.is_file() and p.name != ".lock"}


def read_spec(done: tunesmith.Run) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((done.path / "spec.yaml").read_text()))


def test_another_spec_on_the_same_directory_is_refused(finished: tunesmith.Run) -> None:
    spec = tunesmith.load_spec(read_spec(finished), ["train.epochs=7"])
    with pytest.raises(RunError, match=r"train\.epochs was 6, is 7"):
        tunesmith.run(spec, finished.path.parent)


def test_other_data_on_the_same_directory_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    run(tmp_path, tiny_bert, strategy={"kind": "features"})
    tiny.table(93).write_csv(tmp_path / "tickets.csv")
    with pytest.raises(RunError, match=r"tickets\.csv"):
        run(tmp_path, tiny_bert, strategy={"kind": "features"})


def test_all_problems_of_a_spec_are_told_before_anything_is_written(tmp_path: Path, tiny_bert: Path) -> None:
    spec = tunesmith.load_spec({"name": "x", "data": {"train": "nowhere.csv", "label_separator": ","}, "evaluate": {"metric": "f2"}})
    with pytest.raises(SpecError) as caught:
        tunesmith.run(spec, tmp_path / "runs")
    assert len(caught.value.issues) == 3
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_absent_offline_says_how_to_get_it(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(TunesmithError, match="copy the model's folder"):
        run(tmp_path, tiny_bert, model={"name": "nobody/nothing"})
    with pytest.raises(TunesmithError, match=r"config\.json"):
        run(tmp_path, tiny_bert, name="u", model={"name": str(tmp_path / "none")})


def _hold(path: str, ready: Any, release: Any) -> None:
    with RunDir(Path(path)).locked():
        ready.set()
        release.wait(20)


def test_two_processes_on_one_run(tmp_path: Path, tiny_bert: Path) -> None:
    methods = multiprocessing.get_context("spawn")
    ready, release = methods.Event(), methods.Event()
    holder = methods.Process(target=_hold, args=(str(tmp_path / "runs/t"), ready, release))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(RunError, match="another process"):
            run(tmp_path, tiny_bert)
    finally:
        release.set()
        holder.join()


def weights(done: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(done / "model/model.safetensors"))


@pytest.mark.parametrize("stage", ["prepare", "resolve", "embed", "certify", "inspect", "augment", "train", "evaluate", "document"])
def test_an_interruption_at_any_stage_loses_nothing(tmp_path: Path, tiny_bert: Path, finished: tunesmith.Run, stage: str) -> None:
    folder = finished.path.parent.parent
    spec = tunesmith.load_spec(read_spec(finished))

    def stop(report: Progress) -> None:
        if report.stage == stage and not (stage == "train" and report.epoch is None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        tunesmith.run(spec, tmp_path / "runs", stop)
    assert caught.value.exit_code == 143
    done = tunesmith.run(spec, tmp_path / "runs")
    expected, got = weights(folder / "runs/t"), weights(done.path)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert pl.read_parquet(done.path / "predictions/test.parquet").equals(pl.read_parquet(finished.path / "predictions/test.parquet"))


def test_kill_9_while_training_then_the_same_command(tmp_path: Path, tiny_bert: Path) -> None:
    raw = raw_spec(tmp_path, tiny_bert, train={"epochs": 15, "patience": None, "checkpoint_minutes": 1e-6})
    (tmp_path / "t.json").write_text(json.dumps(raw))
    command = [sys.executable, "-m", "tunesmith.cli.main", "run", str(tmp_path / "t.json"), "--runs", str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "runs/t/checkpoints/last.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert checkpoint.exists()
    assert "train" not in RunDir(tmp_path / "runs/t").manifest["stages"]
    done = tunesmith.run(tunesmith.load_spec(raw), tmp_path / "runs")
    plain = tunesmith.run(tunesmith.load_spec({**raw, "name": "plain"}), tmp_path / "runs")
    assert done.findings["train/resumed_at"].value
    assert all(torch.equal(a, b) for a, b in zip(weights(done.path).values(), weights(plain.path).values(), strict=True))


def test_no_space_left(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from tunesmith.core.rundir import StageWriter

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(StageWriter, "write_text", full)
        with pytest.raises(RunError, match=r"No space left on device.*Free some space"):
            run(tmp_path, tiny_bert, strategy={"kind": "features"})
    assert run(tmp_path, tiny_bert, strategy={"kind": "features"}).report_path.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "file").write_text("x")
    spec = tunesmith.load_spec(raw_spec(tmp_path, tiny_bert))
    with pytest.raises(RunError, match="--runs"):
        tunesmith.run(spec, tmp_path / "file")


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path, tiny_bert: Path) -> None:
    precious = tmp_path / "runs/t/model/precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("x")
    with pytest.raises(RunError, match="must be empty or a run directory"):
        run(tmp_path, tiny_bert)
    assert precious.read_text() == "x"


def test_fit_takes_polars_pandas_and_dicts(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(60)
    dials: dict[str, Any] = {"model": str(tiny_bert), "strategy": "features", "resamples": 100, "runs": tmp_path}
    scores = [
        tunesmith.fit(kind, target="label", name=name, **dials).findings["test/accuracy"].value
        for name, kind in {"polars": table, "pandas": _pandas(table), "dicts": table.to_dicts()}.items()
    ]
    assert len(set(scores)) == 1
    with pytest.raises(SpecError, match="not a dial"):
        tunesmith.fit(table, target="label", epohcs=3, **dials)
    with pytest.raises(TunesmithError, match="polars or pandas"):
        tunesmith.fit(3, target="label", **dials)


def _pandas(table: pl.DataFrame) -> Any:
    import pandas as pd

    return pd.DataFrame(table.to_dicts())


def test_findings_hold_what_the_design_promises(finished: tunesmith.Run) -> None:
    found = finished.findings
    data = ("data/rows/train", "data/truncated/test", "model/parameters/trainable", "train/seconds", "train/peak_memory_bytes")
    test = ("test/accuracy", "test/baseline/majority/accuracy/difference", "test/baseline/features/mcnemar_p", "environment/torch")
    for name in (*data, *test):
        assert found[name].value is not None, name
    assert found["test/accuracy"].n == found["data/rows/test"].value
    assert found["test/accuracy"].interval is not None
    assert found["test/accuracy"].artefact is not None


def test_predicting_files_of_every_kind(finished: tunesmith.Run, tmp_path: Path) -> None:
    predictor = tunesmith.load(finished.path)
    table = pl.DataFrame({"text": ["late parcel", "", None, "refund card"] * 3000, "ticket": list(range(12000))})
    table.write_csv(tmp_path / "new.csv")
    for name in ("out.parquet", "out.csv", "out.jsonl"):
        assert predictor.predict_file(str(tmp_path / "new.csv"), tmp_path / name, 2, lambda _rows: None) == 12000
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.columns[:2] == ["text", "ticket"]
    assert {"predicted", "probability", "top_1", "top_1_probability", "top_2", "top_2_probability"} <= set(out.columns)
    assert out["predicted"].null_count() == 6000
    assert out["ticket"].cast(int).to_list() == list(range(12000))
    single = predictor.predict(["late parcel"])[0]
    assert out["predicted"][0] == single.label
    assert out["probability"][0] == pytest.approx(single.probability, abs=1e-6)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(TunesmithError, match="'text'"):
        table.rename({"text": "body"}).write_csv(tmp_path / "bad.csv")
        predictor.predict_file(str(tmp_path / "bad.csv"), tmp_path / "x.parquet", 2, lambda _rows: None)


def test_predicting_jsonl_whose_types_change_and_refusing_what_cannot_be_written(finished: tunesmith.Run, tmp_path: Path) -> None:
    predictor = tunesmith.load(finished.path)
    rows: list[dict[str, Any]] = [{"text": "", "size": None} for _ in range(5000)]
    rows += [{"text": "late parcel", "size": 3} for _ in range(5000)] + [{"text": "refund", "size": 2.5} for _ in range(5000)]
    source = tmp_path / "new.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predictor.predict_file(str(source), tmp_path / "out.parquet", 1, lambda _rows: None) == 15000
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["predicted"].null_count() == 5000
    assert float(out["size"][-1]) == 2.5
    with pytest.raises(TunesmithError, match="predicted"):
        predictor.predict_file(str(tmp_path / "out.parquet"), tmp_path / "again.parquet", 1, lambda _rows: None)
    nested = {"text": ["late", "card"], "parts": [[1, 2], None], "more": [{"a": "é"}, None], "tags": [["x", "y"], None]}
    pl.DataFrame(nested).write_parquet(tmp_path / "nested.parquet")
    assert predictor.predict_file(str(tmp_path / "nested.parquet"), tmp_path / "out.csv", 1, lambda _rows: None) == 2
    flat = pl.read_csv(tmp_path / "out.csv").select("parts", "more", "tags").rows()
    assert flat == [("[1,2]", '{"a":"é"}', "x|y"), (None, None, None)]


def test_what_cannot_be_written_is_told_before_anything_is_predicted(
    finished: tunesmith.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, asked = tunesmith.load(finished.path), list[int]()
    monkeypatch.setattr(predictor, "predict_frame", lambda rows: asked.append(len(rows)))
    pl.DataFrame({"text": ["late"], "raw": [[b"x"]]}).write_parquet(tmp_path / "raw.parquet")
    for source, name, said in (
        ("raw.parquet", "out.csv", "bytes in the column 'raw'"),
        ("raw.parquet", "out.jsonl", "bytes in the column 'raw'"),
        ("raw.parquet", "out.conll", "is for tokens with tags"),
        ("raw.parquet", "out.json", "is for answers in texts"),
        ("raw.parquet", "out.txt", "must end in"),
    ):
        with pytest.raises(TunesmithError, match=said):
            predictor.predict_file(str(tmp_path / source), tmp_path / name, 1, lambda _rows: None)
    assert not asked and [path.name for path in tmp_path.iterdir()] == ["raw.parquet"]


def test_an_unfinished_run_cannot_predict(tmp_path: Path, tiny_bert: Path) -> None:
    def stop(report: Progress) -> None:
        if report.stage == "embed":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        tunesmith.run(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert)), tmp_path / "runs", stop)
    with pytest.raises(RunError, match="finished run"):
        tunesmith.load(tmp_path / "runs/t")


def test_a_checkpoint_of_other_inputs_is_not_continued(tmp_path: Path, tiny_bert: Path) -> None:
    def stop(report: Progress) -> None:
        if report.stage == "train" and report.epoch is not None:
            os.kill(os.getpid(), signal.SIGINT)

    spec = tunesmith.load_spec(raw_spec(tmp_path, tiny_bert))
    with pytest.raises(Interrupted):
        tunesmith.run(spec, tmp_path / "runs", stop)
    path = tmp_path / "runs/t/checkpoints/last.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "inputs": "others"}, path)
    assert tunesmith.run(spec, tmp_path / "runs").findings["train/resumed_at"].value == 0


def test_a_model_without_its_blocks_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(tiny_bert, folder)
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.1." not in k}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TunesmithError, match="absent or of another size"):
        run(tmp_path, tiny_bert, model={"name": str(folder)})


def test_rare_classes_reach_the_fitted_head(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.stages import embed, train

    monkeypatch.setattr(embed, "BASELINE_ROWS", 5)
    monkeypatch.setattr(train, "HEAD_ROWS", 5)
    done = run(tmp_path, tiny_bert)
    head = weights(done.path)["classifier.bias"]
    assert float(head.min()) > -10


def test_missing_cells_of_pandas_are_missing() -> None:
    import pandas as pd

    from tunesmith.quick import as_frame

    frame = as_frame(pd.DataFrame({"text": ["a", None], "label": [float("nan"), "x"], "n": [1.5, float("nan")]}))
    assert frame.null_count().row(0) == (1, 1, 1)


def test_a_label_that_looks_like_markup_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from tunesmith.cli.progress import Display

    with Display(Console()) as display:
        display(Progress("prepare", 1, 1, note="warning: class [/b] has one row"))
    assert "[/b]" in capsys.readouterr().out


def test_verification_catches_swapped_weights(tmp_path: Path, tiny_bert: Path) -> None:
    done = run(tmp_path, tiny_bert, strategy={"kind": "features"})
    from safetensors.torch import save_file

    state = weights(done.path)
    save_file(
        {k: v + 0.5 * torch.randn_like(v) if "classifier" in k else v for k, v in state.items()},
        done.path / "model/model.safetensors",
        {"format": "pt"},
    )
    level_0 = verify_run(RunDir(done.path), 0)
    assert not level_0.ok
    caught = [c for c in verify_run(RunDir(done.path), 2).checks if c.level == 2 and c.status == "mismatch"]
    assert caught


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.text(max_size=12), st.sampled_from(["a", "b", "c", "", "a "]) | st.text(max_size=3)), max_size=40),
    kind=st.sampled_from(["features", "layers"]),
    share=st.sampled_from([0.1, 0.5]),
)
def test_any_table_gives_a_run_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, rows: list[tuple[str, str]], kind: str, share: float
) -> None:
    folder = tmp_path_factory.mktemp("any")
    table = pl.DataFrame(rows, schema={"text": pl.String, "label": pl.String}, orient="row")
    table.write_parquet(folder / "t.parquet")
    raw = raw_spec(folder, tiny_bert, strategy={"kind": kind})
    raw["data"] = {"train": str(folder / "t.parquet"), "text": "text", "label": "label", "test_share": share}
    raw["train"] = {"epochs": 1} if kind == "layers" else {}
    try:
        done = tunesmith.run(tunesmith.load_spec(raw), folder / "runs")
    except TunesmithError as error:
        assert error.issues
    else:
        assert done.report_path.exists()


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="this system has no /dev/full")
def test_a_full_device_is_a_clear_error_whatever_library_meets_it(tmp_path: Path) -> None:
    from tunesmith.core.rundir import disk_errors

    with pytest.raises(RunError, match="No space left"), disk_errors(tmp_path):
        Path("/dev/full").write_text("x" * 100_000)
    with pytest.raises(RunError, match="No space left"), disk_errors(tmp_path):
        raise RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)")
    with pytest.raises(ValueError, match="other"), disk_errors(tmp_path):
        raise ValueError("other")
