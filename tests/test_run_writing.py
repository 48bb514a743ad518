"""Texts written for texts, from table to report: the same stages, files and checks as for classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

import tunesmith
from tests import tiny, writers
from tests.test_cli import call
from tunesmith.cli import commands
from tunesmith.core.errors import DataError, ModelError, SpecError
from tunesmith.core.rundir import RunDir
from tunesmith.data.clean import clean_targets
from tunesmith.data.draft import draft_spec
from tunesmith.data.targets import kept_text, source_and_target
from tunesmith.document.written import aligned
from tunesmith.models.generation import set_generation
from tunesmith.pipeline import check
from tunesmith.spec.check import check_spec
from tunesmith.spec.generation import Generation
from tunesmith.spec.schema import Spec
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.make import metric_names
from tunesmith.tasks.text_to_text import TextToText
from tunesmith.tasks.write import Said, leading, write
from tunesmith.train.shapes import ROWS
from tunesmith.train.step import at_targets, task_step

KINDS = ("t5", "bart", "marian")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny T5, a tiny BART and a tiny Marian."""
    folder = tmp_path_factory.mktemp("writers")
    return {kind: writers.save_pretrained(folder / kind, kind) for kind in KINDS}


def spec_of(folder: Path, model: Path, rows: pl.DataFrame | None = None, **changes: Any) -> dict[str, Any]:
    data = folder / "t.jsonl"
    (writers.table(120) if rows is None else rows).write_ndjson(data)
    base: dict[str, Any] = {
        "name": "t", "task": "translation", "data": {"train": str(data)}, "model": {"name": str(model)},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"},
        "evaluate": {"resamples": 100, "mistakes": 3},
    }  # fmt: skip
    return {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in changes.items()}}


def loaded(folder: Path, model: Path, *settings: str, **changes: Any) -> Spec:
    return tunesmith.load_spec(spec_of(folder, model, **changes), list(settings))


def run(folder: Path, model: Path, *settings: str, **changes: Any) -> tunesmith.Run:
    return tunesmith.run(loaded(folder, model, *settings, **changes), folder / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> tunesmith.Run:
    """A finished run of the tiny BART, with a prefix."""
    changes: dict[str, Any] = {"generation": {"prefix": "say: "}, "train": {"epochs": 8}, "data": {"test_share": 0.2}}
    return run(tmp_path_factory.mktemp("done"), models["bart"], **changes)


def test_a_translation_is_a_run_like_any_other(done: tunesmith.Run) -> None:
    found = done.findings
    for name in ("chrf", "bleu", "rouge1", "rouge2", "rougeL", "exact_text"):
        assert found[f"test/{name}"].value is not None and f"test/baseline/retrieval/{name}/difference" in found, name
    assert found["test/chrf"].value > 5 + found["test/baseline/copy/chrf"].value  # type: ignore[operator]
    assert found["metrics/bleu"].value.startswith("nrefs:1|case:mixed|eff:no|tok:13a")  # type: ignore[union-attr]
    assert found["train/best_score"].n == found["train/scored_rows"].value == found["data/rows/validation"].value
    assert json.loads((done.path / "data/labels.json").read_text()) == [] and "data/classes" not in found
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    assert stored.columns == ["id", "label", "predicted", "tokens", "margin", "finished"] and stored.schema["label"] == pl.String
    assert found["test/lengths/unfinished"].value == (~stored["finished"]).sum()
    report = verify_run(RunDir(done.path), 2)
    assert report.ok, [check for check in report.checks if check.status == "mismatch"]


def test_the_documents_speak_of_texts(done: tunesmith.Run) -> None:
    report, card = ((done.path / name).read_text("utf-8") for name in ("report.html", "MODEL_CARD.md"))
    assert "How is a text said in another language?" in report and "The worst texts" in report and "Words of the right text" in report
    for word in ("Confusions", "Class by class", "Can its confidence be believed", "which number", "not recorded by this run"):
        assert word not in report.split("The evidence")[0], word
    assert "AutoModelForSeq2SeqLM" in card and "fluent and wrong" in card and "classes" not in card.split("## Evidence")[0]


def test_the_card_s_lines_run_and_the_saved_model_writes_what_was_tested(done: tunesmith.Run) -> None:
    code = (done.path / "MODEL_CARD.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    exec(code.replace("runs/t/model", str(done.path / "model")), {})
    rows, stored = (pl.read_parquet(done.path / name) for name in ("data/test.parquet", "predictions/test.parquet"))
    model = AutoModelForSeq2SeqLM.from_pretrained(done.path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(done.path / "model")
    for text, said in zip(rows["text"], stored["predicted"], strict=True):
        given = tokenizer(["say: " + text], truncation=True, return_tensors="pt", return_token_type_ids=False)
        assert tokenizer.batch_decode(model.generate(**given), skip_special_tokens=True) == [said]


def test_texts_are_predicted_one_by_one_and_by_table(done: tunesmith.Run, tmp_path: Path) -> None:
    one = tunesmith.load(done.path).predict(["parcel late", "door box"])[0]
    assert isinstance(one.label, str) and one.finished in (True, False) and one.probability is None
    source = tmp_path / "new.jsonl"
    pl.DataFrame({"en": ["parcel late", "", "door\n  box"], "note": [1, 2, 3]}).write_ndjson(source)
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        assert call("predict", done.path, source, "--output", tmp_path / name)[0] == 0
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.columns == ["en", "note", "predicted", "tokens", "finished"] and out["predicted"].is_null().to_list() == [False, True, False]


def test_a_run_names_targets_of_other_texts_and_of_odd_lengths(tmp_path: Path, models: dict[str, Path]) -> None:
    rows, wrong = writers.table(240), set(range(0, 240, 24))
    said = rows["de"].to_list()
    for place in wrong:
        said[place] = said[place + 1] if place % 48 else said[place] + " und so weiter" * 9
    rows = rows.with_columns(de=pl.Series(said))
    spec = loaded(tmp_path, models["t5"], rows=rows, train={"epochs": 1}, evaluate={"baselines": []})
    finished, checked = tunesmith.run(spec, tmp_path / "runs"), check(spec, tmp_path / "checks")
    suspects = pl.read_parquet(finished.path / "data/suspects.parquet")
    train = pl.read_parquet(finished.path / "data/train.parquet")
    planted = set(train["text"]) & set(rows["en"].gather(sorted(wrong)))
    assert len(planted & set(train["text"].gather(suspects["row"]))) >= 0.6 * len(planted) > 2
    assert {"long for its text", "far from what its text suggests"} <= set(suspects["reason"])
    assert finished.findings["labels/suspects"].value == len(suspects) and "outliers/test" in finished.findings
    for report in (finished.path / "report.html", checked / "data_report.html"):
        assert "have a target that is far from what it expects, or of an odd length" in (page := report.read_text("utf-8"))
        assert "long for its text" in page
    assert verify_run(RunDir(finished.path), 1).ok


def test_models_of_folds_write_every_row(tmp_path: Path, models: dict[str, Path]) -> None:
    finished = run(tmp_path, models["t5"], rows=writers.table(60), evaluate={"baselines": ["copy"], "folds": 3}, train={"epochs": 1})
    assert finished.findings["folds/chrf"].value is not None
    stored = pl.read_parquet(finished.path / "predictions/folds.parquet")
    assert len(stored) == 60 and stored.schema["predicted"] == pl.String and set(stored["fold"]) == {1, 2, 3}
    assert verify_run(RunDir(finished.path), 2).ok


@pytest.mark.parametrize("strategy", ["full", "layers", "lora", "ia3", "gradual"])
def test_strategies_learn_to_write(tmp_path: Path, models: dict[str, Path], strategy: str) -> None:
    more = ["train.epochs=4"] if strategy == "gradual" else []
    finished = run(tmp_path, models["t5"], f"strategy.kind={strategy}", *more, evaluate={"baselines": ["copy"]})
    first, *_, last = [json.loads(line)["loss"] for line in (finished.path / "history.jsonl").read_text().splitlines()]
    assert last < first
    assert finished.findings["store/used"].value == ("yes" if strategy in ("layers", "gradual") else "no")
    assert verify_run(RunDir(finished.path), 2).ok


def test_the_store_changes_no_loss(tmp_path: Path, models: dict[str, Path]) -> None:
    losses, scores = [], []
    for mode in ("always", "never"):
        finished = run(tmp_path, models["t5"], "strategy.kind=layers", "strategy.top=3", f"store.mode={mode}", "train.dropout=0", name=mode)
        losses.append([json.loads(line)["loss"] for line in (finished.path / "history.jsonl").read_text().splitlines()])
        scores.append(pl.read_parquet(finished.path / "predictions/test.parquet")["predicted"].to_list())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert scores[0] == scores[1]


def test_beams_summaries_and_selection_by_a_part_of_the_rows(tmp_path: Path, models: dict[str, Path]) -> None:
    rows = writers.table(120).rename({"en": "document", "de": "summary"})
    finished = run(
        tmp_path, models["t5"], "generation.search={kind: beams, num_beams: 3, length_penalty: 0.6}", "generation.no_repeat_ngram_size=2",
        "generation.scored_rows=5", rows=rows, task="summarization", evaluate={"baselines": ["copy"]}, train={"label_smoothing": 0.1},
    )  # fmt: skip
    assert finished.findings["train/scored_rows"].value == 5 and finished.findings["test/rougeL"].value is not None
    assert "What does a long text say, in short?" in (finished.path / "report.html").read_text("utf-8")
    assert GenerationConfig.from_pretrained(finished.path / "model").num_beams == 3
    assert verify_run(RunDir(finished.path), 2).ok


def test_plan_and_init_know_texts(tmp_path: Path, models: dict[str, Path]) -> None:
    plan = make_plan(loaded(tmp_path, models["t5"]), tmp_path / "runs")
    assert plan.can_run and plan.steps and plan.seconds is not None, plan.issues
    assert "task: translation" in draft_spec(str(tmp_path / "t.jsonl"), tmp_path)
    for names, task in ((("article", "highlights"), "summarization"), (("code", "docstring"), "text2text-generation")):
        writers.table(60).rename(dict(zip(("en", "de"), names, strict=True))).write_csv(tmp_path / "x.csv")
        assert f"task: {task}" in draft_spec(str(tmp_path / "x.csv"), tmp_path)
    with pytest.raises(ModelError, match=r"holds texts to be written.*tunesmith init .*set model\.name"):
        commands.check(str(tmp_path / "x.csv"), tmp_path / "checks", False)
    assert not (tmp_path / "checks").exists()  # told before anything is begun
    tiny.table(60).rename({"text": "input", "label": "output"}).write_csv(tmp_path / "classes.csv")
    assert "text2text" not in draft_spec(str(tmp_path / "classes.csv"), tmp_path)


# ---- learning and writing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_pieces_of_a_batch_add_up_to_its_gradient(models: dict[str, Path], kind: str, smoothing: float) -> None:
    model, words = AutoModelForSeq2SeqLM.from_pretrained(models[kind]).eval(), AutoTokenizer.from_pretrained(models[kind])
    task, rows = TextToText(label_smoothing=smoothing), writers.table(8).rename({"en": "text", "de": "label"})
    encoded = task.encode(rows, words, 64).rows
    step, gradients = task_step(task), []
    for pieces in ([encoded], [encoded[:1], encoded[1:3], encoded[3:]]):
        model.zero_grad()
        results = [step(model, task.collate(piece)) for piece in pieces]
        torch.autograd.backward([loss for loss, _ in results])
        total = sum(int(count) for _, count in results)
        gradients.append(torch.cat([p.grad.flatten() / total for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    if smoothing == 0.0:
        batch = task.collate(encoded)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        loss, count = step(model, batch)
        torch.testing.assert_close(loss / count, model(**inputs).loss)


def restless(folder: Path, longest: int, **rule: Any) -> tuple[Any, Any]:
    """A model whose rows say different things and end at different places, and its tokenizer."""
    model, words = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_({"t5": 0.3, "bart": 0.15, "marian": 0.05}[folder.name] * torch.randn_like(parameter))
    set_generation(model, Generation(max_new_tokens=longest), words)
    task, texts = TextToText(), writers.table(40).rename({"en": "text"}).select("text")
    said = model.generate(**task.collate(task.encode(texts, words, 64).rows))[:, 1:].tolist()
    late = sorted({token for row in said for token in row[3:] if token not in row[:3]})
    model.generation_config.eos_token_id = [2, *late]
    set_generation(model, Generation(max_new_tokens=longest, **rule), words)
    return model, words


def written(model: Any, batches: list[tuple[list[int], dict[str, torch.Tensor]]]) -> list[Said]:
    """What is written for each row, in their order."""
    found = dict(write(model, batches))
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_output_layer_computes_targets_alone(models: dict[str, Path], kind: str, smoothing: float) -> None:
    model, words = AutoModelForSeq2SeqLM.from_pretrained(models[kind]).eval(), AutoTokenizer.from_pretrained(models[kind])
    task = TextToText(label_smoothing=smoothing)
    batch = task.collate(task.encode(writers.table(60).rename({"en": "text", "de": "label"}), words, 64).rows)
    rows, results = [], []
    hook = model.get_output_embeddings().register_forward_hook(lambda _m, _a, said: rows.append(said[..., 0].numel()))
    for step in (task_step(task), at_targets(task_step(task), model)):
        model.zero_grad()
        loss, count = step(model, batch)
        loss.backward()
        results.append((loss.detach(), count, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    hook.remove()
    for plain, compact in zip(*results, strict=True):
        torch.testing.assert_close(compact, plain, rtol=1e-5, atol=1e-5)
    assert rows == [batch["labels"].numel(), -(-int(results[0][1]) // ROWS) * ROWS] and rows[1] < rows[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [{}, {"no_repeat_ngram_size": 2}, {"search": {"kind": "beams", "num_beams": 3}}])
def test_writing_is_plain_generate(models: dict[str, Path], kind: str, rule: dict[str, Any]) -> None:
    model, words = restless(models[kind], 24, **rule)
    task = TextToText()
    encoding = task.encode(writers.table(40).rename({"en": "text"}).select("text"), words, 64)
    batch = task.collate(encoding.rows)
    plain = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    said = written(model, [(list(range(40)), {name: batch[name] for name in ("input_ids", "attention_mask")})])
    assert words.batch_decode([one.tokens for one in said], skip_special_tokens=True) == words.batch_decode(plain, skip_special_tokens=True)
    assert len({len(one.tokens) for one in said}) > 1
    assert all(one.margin is None if "search" in rule else one.margin >= 0 for one in said)  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("waiting", [0, 128])
def test_rows_of_many_batches_are_written_together(
    models: dict[str, Path], kind: str, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, words = restless(models[kind], 12)
    monkeypatch.setattr("tunesmith.tasks.write.WAITING", waiting)
    task = TextToText()
    encoding = task.encode(writers.table(40).rename({"en": "text"}).select("text"), words, 64)
    alone = [model.generate(input_ids=torch.tensor([row["input_ids"]]))[0, 1:].tolist() for row in encoding.rows]
    sizes, seen = [], []
    hook = model.register_forward_pre_hook(lambda _m, _a, given: seen.append(len(given["decoder_input_ids"])), with_kwargs=True)
    for size in (3, 17, 40):
        seen.clear()
        batches = [list(range(start, min(start + size, 40))) for start in range(0, 40, size)]
        said = written(model, [(numbers, task.collate([encoding.rows[n] for n in numbers])) for numbers in batches])
        assert [one.tokens for one in said] == alone
        sizes.append(sum(seen))
    hook.remove()
    assert len(set(sizes)) == 1 and sizes[0] == sum(len(tokens) for tokens in alone)  # nothing is computed for rows that have ended


@pytest.mark.parametrize("words", [2, 63, 64, 65, 200])
def test_the_leading_token_is_the_first_largest_one(words: int) -> None:
    torch.manual_seed(words)
    scores = torch.cat([torch.randn(50, words), torch.randint(0, 3, (50, words)).float(), torch.full((1, words), -2.0)])
    best, lead = leading(scores)
    assert torch.equal(best, (scores == scores.amax(-1, keepdim=True)).int().argmax(-1))
    torch.testing.assert_close(lead, scores.topk(2).values.diff(dim=-1)[:, 0].neg())


def test_memory_with_room_remembers_as_transformers_does() -> None:
    from transformers.cache_utils import DynamicLayer

    from tunesmith.tasks.group import Memory

    torch.manual_seed(0)
    first = [torch.randn(5, 2, 3, 4) for _ in range(2)]
    plain, roomy = DynamicLayer(), Memory(*(x.clone() for x in first))
    plain.update(*first)
    for _ in range(40):
        fresh = [torch.randn(5, 2, 1, 4) for _ in range(2)]
        for ours, theirs in zip(roomy.update(*fresh), plain.update(*fresh), strict=True):
            assert torch.equal(ours, theirs)
    assert roomy.get_seq_length() == plain.get_seq_length() == 43 and roomy.get_mask_sizes(1) == plain.get_mask_sizes(1)


def test_a_model_that_remembers_in_another_way_is_left_to_generate(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, words = restless(models["t5"], 9)
    monkeypatch.setattr("tunesmith.tasks.group.with_room", lambda _memory: False)
    task = TextToText()
    batch = task.collate(task.encode(writers.table(9).rename({"en": "text"}).select("text"), words, 64).rows)
    plain = model.generate(**batch)
    said = written(model, [(list(range(9)), batch)])
    assert words.batch_decode([one.tokens for one in said], skip_special_tokens=True) == words.batch_decode(plain, skip_special_tokens=True)
    assert all(one.margin is None for one in said)


def test_a_model_with_settings_of_its_own_is_left_to_generate(models: dict[str, Path]) -> None:
    model, words = AutoModelForSeq2SeqLM.from_pretrained(models["bart"]).eval(), AutoTokenizer.from_pretrained(models["bart"])
    model.generation_config.forced_bos_token_id = 7
    set_generation(model, Generation(max_new_tokens=6), words)
    batch = TextToText().collate(TextToText().encode(pl.DataFrame({"text": ["door"]}), words, 64).rows)
    assert written(model, [([0], batch)])[0].tokens[0] == 7


def test_targets_are_cut_counted_and_not_ended(models: dict[str, Path]) -> None:
    words = AutoTokenizer.from_pretrained(models["t5"])
    encoding = TextToText(max_target=3).encode(pl.DataFrame({"text": ["a", "b"], "label": ["a b c d e f", "a"]}), words, 64)
    long, short = (row["labels"] for row in encoding.rows)
    assert encoding.cut_targets == 1 and len(long) == 3 and words.eos_token_id not in long and short[-1] == words.eos_token_id


# ---- bad input


def test_useless_rows_are_counted_and_dropped(tmp_path: Path, models: dict[str, Path]) -> None:
    rows = pl.concat([writers.table(100), pl.DataFrame({"en": ["x", " ", "same", "y y", "y y"], "de": ["", "z", "same", "u", "v"]})])
    finished = run(tmp_path, models["t5"], rows=rows, train={"epochs": 1}, evaluate={"baselines": []})
    reasons = ("empty_label", "empty_text", "same_as_text", "other_target")
    dropped = {reason: finished.findings[f"data/dropped/{reason}"].value for reason in reasons}
    assert dropped == dict.fromkeys(dropped, 1)
    table = pl.DataFrame({"text": ["same"], "label": ["same"], "source": ["1"]})
    assert len(clean_targets(table, copies=True).kept) == 1  # a text that needs no correction


def test_code_keeps_its_lines(tmp_path: Path, models: dict[str, Path]) -> None:
    code = [f"def f{n}(x):\n    if x:\n\n\n        return {n}\n" for n in range(60)]
    rows = pl.DataFrame({"code": code, "docstring": [f"Returns {n}.\n\n    Args:\n\tx: e\u0301 {n}" for n in range(60)]})
    spec = loaded(tmp_path, models["t5"], rows=rows, task="text2text-generation", data={"near_duplicates": None})
    from tunesmith.data.prepare import prepare

    kept = prepare(spec).train
    assert set(kept["text"]) <= set(code) and all("\n\n    Args:\n\tx: é " in target for target in kept["label"])


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_cleaning_is_unicode_normal_form_alone(text: str) -> None:
    import unicodedata

    text = text.encode("utf-8", "ignore").decode()
    assert pl.select(kept_text(pl.lit(text))).item() == unicodedata.normalize("NFC", text)


@given(st.lists(st.tuples(st.one_of(st.none(), st.text(max_size=5)), st.one_of(st.none(), st.text(max_size=5))), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_table_is_cleaned_with_every_row_kept_or_explained(cells: list[tuple[str | None, str | None]]) -> None:
    rows = [(*(None if c is None else c.encode("utf-8", "ignore").decode() for c in pair), str(n)) for n, pair in enumerate(cells)]
    table = pl.DataFrame(rows, schema={"text": pl.String, "label": pl.String, "source": pl.String}, orient="row")
    done = clean_targets(table, copies=False)
    assert len(done.kept) + len(done.dropped) == len(table) and done.kept["id"].is_unique().all()
    assert not (done.kept["text"] == done.kept["label"]).any()


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_aligned_texts_lose_nothing(right: str, said: str) -> None:
    for text, pieces in zip((right, said), aligned(right, said), strict=True):
        assert "".join(piece.text for piece in pieces) == text
    assert not any(piece.alone for piece in aligned(right, right)[0])


@pytest.mark.parametrize(("text", "label", "expected"), [
    (None, None, (("en",), "de")), (("de",), None, (("de",), "en")), (None, "en", (("de",), "en")), (("en",), "de", (("en",), "de")),
])  # fmt: skip
def test_either_language_can_be_the_source(text: tuple[str, ...] | None, label: str | None, expected: Any) -> None:
    assert source_and_target(writers.table(3), text, label, {}) == expected


def test_columns_that_hold_no_texts_are_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    for number, column in enumerate(([["a"]] * 30, ["only this"] * 30, [""] * 30)):
        with pytest.raises(DataError, match=r"column 'de'|must hold different texts"):
            run(tmp_path, models["t5"], rows=pl.DataFrame({"en": [f"w {n}" for n in range(30)], "de": column}), name=f"r{number}")
    with pytest.raises(DataError, match=r"data\.label"):
        run(tmp_path, models["t5"], rows=pl.DataFrame({"a": ["x"], "b": ["y"], "c": ["z"]}), name="c")


@pytest.mark.parametrize("setting", [
    "train.class_weights=balanced", "train.sampling=balanced", "train.loss.kind=focal", "data.multi_label=true", "data.suspects.kind=drop",
    "strategy.kind=features", "strategy.kind=prompt_tuning", "train.regularization.kind=r_drop", "train.head_start=fitted",
    "data.on_conflict=majority", "evaluate.baselines=[majority]",
])  # fmt: skip
def test_what_has_no_meaning_for_texts_is_refused(tmp_path: Path, models: dict[str, Path], setting: str) -> None:
    spec = loaded(tmp_path, models["t5"], setting)
    assert any(issue.where.startswith(setting.split("=")[0].rsplit(".kind", 1)[0]) for issue in check_spec(spec, metric_names(spec)))


def test_generation_is_for_texts(tmp_path: Path, tiny_bert: Path, models: dict[str, Path]) -> None:
    tiny.table(30).write_csv(tmp_path / "c.csv")
    spec = tunesmith.load_spec({"name": "c", "data": {"train": str(tmp_path / "c.csv")}}, ["generation.prefix=x"])
    assert any(issue.where == "generation" for issue in check_spec(spec, metric_names(spec)))
    with pytest.raises(SpecError):
        tunesmith.load_spec(spec_of(tmp_path, models["t5"]), ["generation.search={kind: greedy, num_beams: 3}"])
    with pytest.raises(ModelError, match="must be a model that writes"):
        run(tmp_path, tiny_bert)
