"""Unlabelled texts from file to report: masks, scores, documents, predictions, resume, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AutoModelForMaskedLM, pipeline

import tunesmith
from tests import tiny, writers
from tests.test_cli import call
from tunesmith.core.errors import DataError, Interrupted, ModelError
from tunesmith.core.records import Progress
from tunesmith.core.rundir import RunDir
from tunesmith.data.draft import draft_spec
from tunesmith.data.prepare import prepare
from tunesmith.evaluate.compare import compare_runs
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Spec
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.make import metric_names


def lines(rows: int = 120, seed: int = 0) -> list[str]:
    """Texts in which every word tells the next one."""
    draw, words = random.Random(seed), tiny.WORDS["billing"] + tiny.WORDS["login"]
    return [" ".join(words[(start + n) % len(words)] for n in range(draw.randint(4, 9))) + f" {row}"
            for row in range(rows) for start in [draw.randrange(len(words))]]  # fmt: skip


def spec_of(folder: Path, network: Path, texts: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    data = folder / "texts.txt"
    data.write_text("".join(f"{text}\n" for text in (lines() if texts is None else texts)), "utf-8")
    base: dict[str, Any] = {
        "name": "t", "task": "fill-mask", "data": {"train": str(data)}, "model": {"name": str(network)},
        "train": {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32"},
        "evaluate": {"resamples": 100, "mistakes": 3},
    }  # fmt: skip
    return {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in changes.items()}}


def loaded(folder: Path, network: Path, *settings: str, **changes: Any) -> Spec:
    return load_spec(spec_of(folder, network, **changes), list(settings))


def run(folder: Path, network: Path, *settings: str, **changes: Any) -> tunesmith.Run:
    return tunesmith.run(loaded(folder, network, *settings, **changes), folder / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    """A finished run."""
    return run(tmp_path_factory.mktemp("masked"), tiny_bert, data={"test_share": 0.2}, train={"epochs": 10})


def test_texts_without_labels_are_a_run_like_any_other(done: tunesmith.Run) -> None:
    found = done.findings
    for name in ("masked_loss", "perplexity", "masked_accuracy"):
        assert found[f"test/{name}"].value is not None and found[f"test/{name}"].interval is not None
        assert all(f"test/baseline/{baseline}/{name}/difference" in found for baseline in ("majority", "untrained"))
    loss = {name: found[f"test/{name}masked_loss"].value for name in ("", "baseline/majority/", "baseline/untrained/")}
    assert loss[""] < loss["baseline/majority/"] and loss[""] < loss["baseline/untrained/"]  # type: ignore[operator]
    assert found["untrained/new_weights"].value and "cls.predictions" in found["untrained/new_weights"].note
    assert found["store/used"].value == "no" and found["data/unmaskable/test"].value == 0 and "data/classes" not in found
    assert found["certificate/cosine/threshold"].value and json.loads((done.path / "data/labels.json").read_text()) == []
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    assert stored.columns == ["id", "label", "loss", "tokens", "hits", "margin", "masks"]
    same = [pl.read_parquet(done.path / f"predictions/test.{name}.parquet")["tokens"].to_list() for name in ("majority", "untrained")]
    assert same == [stored["tokens"].to_list()] * 2
    report = verify_run(RunDir(done.path), 2)
    assert report.ok, [check for check in report.checks if check.status == "mismatch"]


def test_the_documents_speak_of_masked_words(done: tunesmith.Run) -> None:
    report, card = ((done.path / name).read_text("utf-8") for name in ("report.html", "MODEL_CARD.md"))
    assert "Which words are hidden in a text?" in report and "The texts that surprise it most" in report
    for word in ("Class by class", "which number", "Which number", "labelled rows", "in <b>None"):
        assert word not in report, word
    assert "pipeline_tag: fill-mask" in card and "classes" not in card.split("## Evidence")[0]
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace("runs/t/model", str(done.path / "model")), {})
    code, out = call("show", done.path)
    assert code == 0 and "windows over texts" in out


def test_masks_are_filled_one_by_one_and_by_table(done: tunesmith.Run, tmp_path: Path) -> None:
    predictor, plain = tunesmith.load(done.path), pipeline("fill-mask", model=str(done.path / "model"))
    text = "invoice charge [MASK] money"
    one, other = predictor.predict([text, "no mask"])
    wanted = plain(text)
    assert [c["probability"] for c in one.candidates[0]] == pytest.approx([c["score"] for c in wanted], rel=1e-4)
    assert [c["token"] for c in one.candidates[0]] == [c["token_str"] for c in wanted]
    assert one.label == text.replace("[MASK]", one.candidates[0][0]["token"]) and other.label is None and other.candidates == ()
    source = tmp_path / "new.txt"
    source.write_text(f"{text}\n\nno mask\n", "utf-8")
    code, out = call("predict", done.path, source, "--output", tmp_path / "out.parquet")
    assert code == 0 and "1 of them hold no [MASK]" in out
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table.columns == ["text", "predicted", "candidates"] and table["predicted"].to_list() == [one.label, None]
    assert call("predict", done.path, source, "--output", tmp_path / "out.jsonl")[0] == 0


def test_the_saved_model_says_what_was_tested(done: tunesmith.Run) -> None:
    from tunesmith.evaluate.predict import predict
    from tunesmith.models.load import load_processor
    from tunesmith.spec.schema import Model
    from tunesmith.tasks.fill_mask import FillMask

    rows, stored = (pl.read_parquet(done.path / name) for name in ("data/test.parquet", "predictions/test.parquet"))
    task, words = FillMask(seed=0), load_processor(Model(name=str(done.path / "model")))
    length = int(words.model_max_length)
    again = predict(AutoModelForMaskedLM.from_pretrained(done.path / "model"), task, rows, task.encode(rows, words, length))
    assert again["loss"].to_list() == pytest.approx(stored["loss"].to_list(), rel=1e-4)


def test_an_interrupted_run_goes_on_bit_identically(tmp_path: Path, tiny_bert: Path) -> None:
    small: dict[str, Any] = {"train": {"epochs": 2}, "evaluate": {"baselines": []}}
    whole = run(tmp_path, tiny_bert, name="whole", **small)

    def watch(progress: Progress) -> None:
        if progress.stage == "train" and progress.unit == "step" and progress.done == 15:
            raise KeyboardInterrupt

    spec = loaded(tmp_path, tiny_bert, "train.checkpoint_minutes=0.000001", name="cut", **small)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        tunesmith.run(spec, tmp_path / "runs", watch)
    cut = tunesmith.run(spec, tmp_path / "runs")
    assert cut.findings["train/resumed_at"].value == 14
    assert (cut.path / "model/model.safetensors").read_bytes() == (whole.path / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("strategy", ["layers", "lora", "gradual"])
def test_strategies_learn_what_is_hidden(tmp_path: Path, tiny_bert: Path, strategy: str) -> None:
    finished = run(tmp_path, tiny_bert, f"strategy.kind={strategy}", evaluate={"baselines": ["untrained"]})
    assert finished.findings["test/baseline/untrained/masked_loss/difference"].value < 0  # type: ignore[operator]
    assert finished.findings["store/used"].value == "no"
    assert AutoModelForMaskedLM.from_pretrained(finished.path / "model").config.model_type == "bert"
    assert verify_run(RunDir(finished.path), 2).ok


def test_two_runs_are_compared_on_the_same_masks(tmp_path: Path, tiny_bert: Path, done: tunesmith.Run) -> None:
    short = run(tmp_path, tiny_bert, "train.epochs=1", name="short", data={"test_share": 0.2}, evaluate={"baselines": []})
    compared = compare_runs([done.path, short.path])[0]
    assert (
        compared.mcnemar_p is None
        and compared.differences[0].metric.name == "masked_loss"
        and compared.rows == len(pl.read_parquet(done.path / "data/test.parquet"))
    )


def test_the_whole_text_counts_where_it_is_longer_than_a_window(tmp_path: Path, tiny_bert: Path) -> None:
    texts = [" ".join(lines(6, seed)) for seed in range(40)]
    finished = run(tmp_path, tiny_bert, texts=texts, model={"max_length": 16}, evaluate={"baselines": ["majority"]})
    found = finished.findings
    assert found["data/truncated/train"].value == 0 and found["data/windows/train"].value > found["data/rows/train"].value  # type: ignore[operator]
    assert pl.read_parquet(finished.path / "predictions/test.parquet")["tokens"].min() > 3  # type: ignore[operator]


# ---- tables, files, init, plan


def test_init_and_plan_know_texts_alone(tmp_path: Path, tiny_bert: Path) -> None:
    plan = make_plan(loaded(tmp_path, tiny_bert), tmp_path / "runs")
    assert plan.can_run and plan.steps and plan.store is not None and "masked at every step" in plan.store.reason, plan.issues
    drafted = draft_spec(str(tmp_path / "texts.txt"), tmp_path)
    assert "task: fill-mask" in drafted and "label:" not in drafted
    (tmp_path / "drafted.yaml").write_text(drafted)
    assert len(prepare(load_spec(tmp_path / "drafted.yaml")).train) > 50
    pl.DataFrame({"notes": lines(40)}).write_csv(tmp_path / "notes.csv")
    assert "task: fill-mask" in draft_spec(str(tmp_path / "notes.csv"), tmp_path)
    tiny.table(40).write_csv(tmp_path / "labelled.csv")
    assert "task: fill-mask" not in draft_spec(str(tmp_path / "labelled.csv"), tmp_path)


def test_lines_are_read_and_useless_rows_counted(tmp_path: Path, tiny_bert: Path) -> None:
    texts = [
        *lines(60),
        "",
        "twice here",
        "twice here",
        "\u200b \ufeff",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0634\u0644\u0648\u0645 parcel",
        "door",
    ]
    prepared = prepare(loaded(tmp_path, tiny_bert, texts=texts, data={"near_duplicates": None}))
    assert dict(prepared.dropped["reason"].value_counts().iter_rows()) == {"duplicate": 1, "empty_text": 1}
    rows = pl.concat([prepared.train, prepared.validation, prepared.test])
    assert len(rows) == 64 and (rows["text"] == rows["label"]).all()
    assert prepared.profile["files"]["train"][0]["format"] == "lines" and "texts.txt:61" not in set(rows["source"])


def test_a_table_with_more_columns_has_its_text_named(tmp_path: Path, tiny_bert: Path) -> None:
    table = pl.DataFrame({"id": range(60), "body": lines(60), "who": ["anna"] * 60})
    table.write_csv(tmp_path / "t.csv")
    spec = load_spec({"name": "t", "task": "fill-mask", "data": {"train": str(tmp_path / "t.csv")}, "model": {"name": str(tiny_bert)}})
    assert prepare(spec).profile["columns"]["text"] == ["body"]
    same = [f"{text} door" for text in lines(1) for _ in range(30)]
    pl.DataFrame({"text": same}).write_csv(tmp_path / "same.csv")
    with pytest.raises(DataError, match=r"data\.text: must hold different texts"):
        prepare(load_spec({"name": "t", "task": "fill-mask", "data": {"train": str(tmp_path / "same.csv")}}))


def test_near_duplicates_leave_training_whatever_their_label(tmp_path: Path, tiny_bert: Path) -> None:
    texts = [*lines(60), *(f"{text} !" for text in lines(60))]
    prepared = prepare(loaded(tmp_path, tiny_bert, "data.near_duplicates.in_train=drop", texts=texts))
    assert dict(prepared.dropped["reason"].value_counts().iter_rows())["near_duplicate"] >= 40


@pytest.mark.parametrize(("content", "words"), [("", "empty"), (" \n\n", "empty"), ("one text\n", "must")])
def test_files_without_texts_are_refused(tmp_path: Path, tiny_bert: Path, content: str, words: str) -> None:
    spec = loaded(tmp_path, tiny_bert)
    (tmp_path / "texts.txt").write_text(content, "utf-8")
    with pytest.raises(DataError, match=words):
        tunesmith.run(spec, tmp_path / "runs")


def test_texts_of_one_token_and_of_very_many_are_learned(tmp_path: Path, tiny_bert: Path) -> None:
    words = sorted({word for known in tiny.WORDS.values() for word in known})
    texts = [*words, " ".join(words * 600)]
    finished = run(
        tmp_path, tiny_bert, "data.near_duplicates=null", texts=texts, train={"epochs": 1, "batch_size": 64},
        data={"validation_share": 0.2, "test_share": 0.2}, evaluate={"baselines": []},
    )  # fmt: skip
    assert sum(finished.findings[f"data/windows/{split}"].value for split in ("train", "validation", "test")) > 290  # type: ignore[misc]
    assert pl.read_parquet(finished.path / "predictions/test.parquet")["tokens"].min() == 1


# ---- what is refused


@pytest.mark.parametrize("setting", [
    "data.label=text", "data.text=[a, b]", "data.on_conflict=majority", "data.multi_label=true", "data.suspects.kind=report",
    "strategy.kind=features", "strategy.kind=prompt_tuning", "train.head_start=fitted", "train.regularization.kind=r_drop",
    "train.class_weights=balanced", "train.label_smoothing=0.1", "evaluate.folds=3", "evaluate.baselines=[features]",
    "model.adapt={texts: x.txt}", "train.sampling=balanced", "generation.prefix=x", "train.augment={operations: [keyboard]}",
])  # fmt: skip
def test_what_has_no_meaning_for_masked_tokens_is_refused(tmp_path: Path, tiny_bert: Path, setting: str) -> None:
    spec = loaded(tmp_path, tiny_bert, setting)
    where = setting.split("=")[0].rsplit(".kind", 1)[0]
    assert any(where.startswith(issue.where.rsplit(".kind", 1)[0]) for issue in check_spec(spec, metric_names(spec)))


def test_the_store_is_refused_with_the_reason(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="masked at every step"):
        run(tmp_path, tiny_bert, "strategy.kind=layers", "store.mode=always")


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_networks_that_fill_no_masks_are_refused(tmp_path: Path, kind: str) -> None:
    network = writers.save_pretrained(tmp_path / kind, kind) if kind == "t5" else tiny.save_pretrained(tmp_path / kind, kind)
    with pytest.raises(ModelError, match=r"model\.name: must be an encoder that fills masks"):
        run(tmp_path, network)


def test_the_share_is_for_masks_alone(tmp_path: Path) -> None:
    spec = load_spec({"name": "t", "data": {"train": "t.csv"}}, ["train.mlm_probability=0.3"])
    assert any(issue.where == "train.mlm_probability" for issue in check_spec(spec, metric_names(spec)))
