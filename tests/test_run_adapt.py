"""Adaptation to unlabelled texts before the task: what is read, left out, learned, kept, and that all later stages start from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM

import tunesmith
from tests import tiny, writers
from tests.test_run_masked import lines
from tunesmith.core.errors import DataError, ModelError, SpecError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Progress
from tunesmith.core.rundir import RunDir
from tunesmith.data.adaptation import adaptation_texts
from tunesmith.models.build import build_model
from tunesmith.models.forward import frozen_features
from tunesmith.models.load import load_model
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Model, Spec
from tunesmith.stages import plan as plan_stage
from tunesmith.stages.context import Context
from tunesmith.stages.embed import load_features
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run


def spec_of(folder: Path, network: Path, texts: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in (lines() if texts is None else texts)), "utf-8")
    tiny.table(90).write_csv(folder / "t.csv")
    adapt = {"texts": str(folder / "texts.txt"), "epochs": 2, "learning_rate": 5e-3}
    base: dict[str, Any] = {
        "name": "t", "data": {"train": str(folder / "t.csv")}, "model": {"name": str(network), "adapt": adapt},
        "train": {"epochs": 1, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 100, "mistakes": 3, "folds": None},
    }  # fmt: skip
    return {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in changes.items()}}


def loaded(folder: Path, network: Path, *settings: str, **changes: Any) -> Spec:
    return load_spec(spec_of(folder, network, **changes), list(settings))


def run(folder: Path, network: Path, *settings: str, **changes: Any) -> tunesmith.Run:
    return tunesmith.run(loaded(folder, network, *settings, **changes), folder / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    """A finished run whose model was adapted; among the texts are those of the labelled table."""
    folder = tmp_path_factory.mktemp("adapt")
    known = [*tiny.table(90)["text"].to_list(), *(f"{text.upper()} !!" for text in tiny.table(90)["text"])]
    return run(folder, tiny_bert, texts=[*lines(), *known, "", "door door", "door door"])


def context_of(done: tunesmith.Run) -> Context:
    spec = load_spec(done.path / "spec.yaml")
    return Context(spec, RunDir(done.path), lambda _progress: None, StopRequest())


def test_the_model_is_adapted_and_said_to_be(done: tunesmith.Run) -> None:
    found = done.findings
    before, after, difference = (found[f"adapt/masked_loss/{name}"] for name in ("before", "after", "difference"))
    assert after.value < before.value and difference.value == pytest.approx(after.value - before.value)  # type: ignore[operator]
    assert difference.interval is not None and after.n == before.n == len(pl.read_parquet(done.path / "data/adaptation_after.parquet"))
    assert found["adapt/new_weights"].value and found["model/name"].value == "bert" and found["adapt/resumed_at"].value == 0
    card, report = ((done.path / name).read_text("utf-8") for name in ("MODEL_CARD.md", "report.html"))
    assert "unlabelled texts before the task was learned" in card and "Adaptation before the task" in report
    assert "went on with masked tokens" in card and f"{after.value:.3f}" in card
    checks = verify_run(RunDir(done.path), 2)
    assert checks.ok, [check for check in checks.checks if check.status == "mismatch"]
    assert any(check.what == "data/adaptation.parquet" and check.status == "verified" for check in checks.checks)


def test_texts_that_held_out_rows_know_leave_and_are_counted(done: tunesmith.Run) -> None:
    found, used = done.findings, pl.read_parquet(done.path / "data/adaptation.parquet")
    held_out = pl.concat([pl.read_parquet(done.path / f"data/{split}.parquet") for split in ("validation", "test")])
    dropped = pl.read_parquet(done.path / "data/adaptation_dropped.parquet")
    counted = dict(dropped["reason"].value_counts().iter_rows())
    assert counted["held_out"] == len(held_out) and counted["like_held_out"] >= len(held_out) and counted["duplicate"] == 1
    assert set(dropped.filter(pl.col("reason") == "held_out")["text"]) == set(held_out["text"])
    assert not set(used["id"]) & set(held_out["id"])
    assert {reason: found[f"adapt/left_out/{reason}"].value for reason in counted} == counted
    assert found["adapt/left_out"].value == len(dropped) and found["adapt/texts"].value == len(used.filter(pl.col("split") == "train"))
    assert found["adapt/texts"].value + found["adapt/held_out"].value + len(dropped) == found["adapt/texts"].n  # type: ignore[operator]


def test_the_adapted_folder_is_a_plain_one_with_every_weight(done: tunesmith.Run, tiny_bert: Path) -> None:
    adapted, before = AutoModel.from_pretrained(done.path / "adapted"), AutoModel.from_pretrained(tiny_bert)
    pairs = {name: (value, before.state_dict()[name]) for name, value in adapted.state_dict().items()}
    assert not torch.equal(*pairs["encoder.layer.0.attention.self.query.weight"])
    assert torch.equal(*pairs["pooler.dense.weight"]) and torch.equal(*pairs["pooler.dense.bias"])  # fill-mask has no use for it
    network, report = AutoModelForMaskedLM.from_pretrained(done.path / "adapted", output_loading_info=True)
    assert not report["missing_keys"] and network.config.model_type == "bert"


def test_later_stages_start_from_the_adapted_weights(done: tunesmith.Run, tiny_bert: Path) -> None:
    context = context_of(done)
    assert context.spec.model.name == str(done.path / "adapted") and context.resolved.model.name == str(tiny_bert)
    rows = load_features(done.path, "test")
    for spec, same in ((context.spec, True), (context.resolved, False)):
        again = frozen_features(build_model(spec, context.task), context.task, context.encoding("test").leading(rows["row"].tolist()))
        assert torch.allclose(again.mean_NE, rows["mean"], atol=1e-5) == same


def test_weights_that_training_leaves_are_the_adapted_ones(tmp_path: Path, tiny_bert: Path) -> None:
    changes: dict[str, Any] = {"strategy": {"kind": "layers", "top": 1}, "evaluate": {"folds": 2, "baselines": []}}
    finished = run(tmp_path, tiny_bert, "store.mode=always", **changes)
    trained, adapted = (load_file(finished.path / name / "model.safetensors") for name in ("model", "adapted"))
    below = [name for name in trained if "embeddings" in name or ".layer.0." in name]
    assert below and all(torch.equal(trained[name], adapted[name]) for name in below)
    assert finished.findings["crossvalidate/folds"].value == 2 and finished.findings["store/used"].value == "yes"
    used = set(pl.read_parquet(finished.path / "data/adaptation.parquet")["id"])
    assert not used & set(pl.read_parquet(finished.path / "data/train.parquet")["id"])  # models of folds are tested on them


def test_an_interrupted_adaptation_goes_on(tmp_path: Path, tiny_bert: Path) -> None:
    settings, base = ["strategy.kind=layers", "train.checkpoint_minutes=0.000001"], spec_of(tmp_path, tiny_bert)
    whole = tunesmith.run(load_spec({**base, "name": "whole"}, settings), tmp_path / "runs")

    def watch(progress: Progress) -> None:
        if progress.stage == "adapt" and progress.unit == "step" and progress.done == 7:
            raise KeyboardInterrupt

    spec = load_spec({**base, "name": "cut"}, settings)
    with pytest.raises(KeyboardInterrupt):
        tunesmith.run(spec, tmp_path / "runs", watch)
    assert not (tmp_path / "runs/cut/adapted").exists()
    cut = tunesmith.run(spec, tmp_path / "runs")
    assert (cut.path / "adapted/model.safetensors").read_bytes() == (whole.path / "adapted/model.safetensors").read_bytes()
    assert cut.findings["adapt/resumed_at"].value == 6 and whole.findings["adapt/resumed_at"].value == 0
    assert cut.findings["test/accuracy"].value == whole.findings["test/accuracy"].value
    seen: list[Progress] = []
    tunesmith.run(spec, tmp_path / "runs", seen.append)
    assert any(p.stage == "adapt" and p.note == "finished earlier" for p in seen)


def test_without_texts_nothing_changes(tmp_path: Path, tiny_bert: Path) -> None:
    spec = load_spec({**spec_of(tmp_path, tiny_bert), "model": {"name": str(tiny_bert)}}, ["strategy.kind=layers"])
    finished = tunesmith.run(spec, tmp_path / "runs")
    assert not (finished.path / "adapted").exists() and not any(name.startswith("adapt/") for name in finished.findings)
    assert RunDir(finished.path).manifest["stages"]["adapt"]["outputs"] == {}
    plain = load_model(Model(name=str(tiny_bert)), AutoModel, {}).state_dict()
    saved = load_file(finished.path / "model/model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(saved[f"bert.{name}"], plain[name])
    assert "adapted to" not in (finished.path / "MODEL_CARD.md").read_text("utf-8")


def test_plan_says_what_adaptation_takes(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.stages.plan._adapt_cost", lambda *of, cost=plan_stage._adapt_cost: replace(cost(*of), peak_bytes=10**15))
    plan = make_plan(loaded(tmp_path, tiny_bert), tmp_path / "runs")
    assert plan.peak_memory_bytes is not None and plan.peak_memory_bytes >= 10**15  # the larger of the two trainings
    assert plan.can_run and plan.adapted_texts > 50 and 0 < plan.adapt_seconds < plan.seconds, plan.issues  # type: ignore[operator]
    from tunesmith.cli.commands import _plan_rows

    assert any(name == "adaptation" and "unlabelled texts" in told for name, told in _plan_rows(plan))


def test_tables_of_texts_are_read_by_the_name_of_the_column(tmp_path: Path, tiny_bert: Path) -> None:
    pl.DataFrame({"id": range(60), "message": lines(60), "text": [f"other {text}" for text in lines(60, 1)]}).write_csv(
        tmp_path / "more.csv"
    )
    base = spec_of(tmp_path, tiny_bert)
    adapt = {**base["model"]["adapt"], "texts": str(tmp_path / "more.csv")}
    spec = load_spec({**base, "model": {**base["model"], "adapt": adapt}})
    assert all(text.startswith("other") for text in adaptation_texts(spec, [tiny.table(3)]).train["text"])
    pl.DataFrame({"a": [1, 2], "b": [3, 4]}).write_csv(tmp_path / "more.csv")
    with pytest.raises(DataError, match=r"model\.adapt\.texts: must be found among the columns"):
        adaptation_texts(spec, [tiny.table(3)])


def test_pairs_and_masks_of_personal_data_count_too(tmp_path: Path, tiny_bert: Path) -> None:
    spec = loaded(tmp_path, tiny_bert, "data.mask=[email]", texts=[*lines(60), "write to anna@example.org now", "the second side"])
    pairs = pl.DataFrame({"text": ["first"], "text_pair": ["the second side"]})
    texts = adaptation_texts(spec, [pairs])
    kept = pl.concat([texts.train, texts.validation, texts.test])["text"].to_list()
    assert "write to [EMAIL] now" in kept and "the second side" not in kept


# ---- bad input


def test_texts_that_all_leak_are_one_clear_error(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(60)
    table.head(20).write_csv(tmp_path / "test.csv")
    with pytest.raises(
        DataError, match=r"model\.adapt\.texts: must hold texts that no validation or test row has, got 0 of 20 \(20 held_out\)"
    ):
        run(tmp_path, tiny_bert, texts=table.head(20)["text"].to_list(), data={"test": str(tmp_path / "test.csv")})


@pytest.mark.parametrize(
    ("content", "words"), [("", "empty file"), ("one\ntwo\n", "must leave texts to learn from"), ("\U0001f600\n" * 2, "must leave texts")]
)
def test_too_few_texts_are_refused(tmp_path: Path, tiny_bert: Path, content: str, words: str) -> None:
    spec = loaded(tmp_path, tiny_bert)
    (tmp_path / "texts.txt").write_text(content, "utf-8")
    with pytest.raises(DataError, match=words):
        tunesmith.run(spec, tmp_path / "runs")


def test_texts_that_are_not_there_are_said_before_anything_is_done(tmp_path: Path, tiny_bert: Path) -> None:
    spec = loaded(tmp_path, tiny_bert, f"model.adapt.texts={tmp_path / 'text.txt'}")
    with pytest.raises(SpecError, match=r"model\.adapt\.texts: must exist, got .*Did you mean .*texts\.txt"):
        tunesmith.run(spec, tmp_path / "runs")
    assert not make_plan(spec, tmp_path / "runs").can_run


def test_paths_are_relative_to_the_spec_s_file(tmp_path: Path, tiny_bert: Path) -> None:
    spec_of(tmp_path, tiny_bert)
    (tmp_path / "s.yaml").write_text(json.dumps({"data": {"train": "t.csv"}, "model": {"adapt": {"texts": "texts.txt"}}}))
    adapt = load_spec(tmp_path / "s.yaml").model.adapt
    assert adapt is not None and adapt.texts == (str(tmp_path / "texts.txt"),)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_only_encoders_are_adapted(tmp_path: Path, kind: str) -> None:
    network = writers.save_pretrained(tmp_path / kind, kind) if kind == "t5" else tiny.save_pretrained(tmp_path / kind, kind)
    with pytest.raises(ModelError, match=r"model\.name: must be an encoder that fills masks"):
        run(tmp_path, network)
    assert any("must be an encoder that fills masks" in str(issue) for issue in make_plan(loaded(tmp_path, network), tmp_path / "r").issues)


def test_a_changed_text_is_another_run(tmp_path: Path, tiny_bert: Path) -> None:
    from tunesmith.core.errors import RunError

    spec = load_spec({**spec_of(tmp_path, tiny_bert), "train": {}}, ["strategy.kind=features"])
    tunesmith.run(spec, tmp_path / "runs")
    with (tmp_path / "texts.txt").open("a") as file:
        file.write("one more text\n")
    with pytest.raises(RunError, match="was begun with other data"):
        tunesmith.run(spec, tmp_path / "runs")
