"""Question answering from table to report: the same stages, files and checks as for classes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tunesmith
from tests import tiny
from tests.test_cli import call
from tests.test_data_suspects import asked
from tunesmith.core.errors import DataError
from tunesmith.core.rundir import RunDir
from tunesmith.data.draft import draft_spec
from tunesmith.data.spans import ANSWERS
from tunesmith.pipeline import check
from tunesmith.spec.check import check_spec
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.make import metric_names


def table(rows: int = 120, empty: float = 0.0, seed: int = 0) -> pl.DataFrame:
    """Questions about three words of a text; a share of them about a word that is not there."""
    draw, records = random.Random(seed), []
    for number in range(rows // 3):
        words = {name: draw.choice(some) for name, some in tiny.WORDS.items()}
        order = draw.sample(sorted(words), 3)
        context = " ".join(f"{draw.choice(tiny.FILLER)} {words[name]} {draw.choice(tiny.FILLER)}" for name in order) + f" {number}"
        for name in order:
            there = draw.random() >= empty
            answers = [{"text": words[name], "start": context.index(words[name])}] if there else []
            body = context if there else " ".join(word if word != words[name] else "the" for word in context.split())
            records.append({"id": f"q{len(records)}", "question": f"how {name[0]} {number}", "context": body, "answers": answers})
    return pl.DataFrame(records, schema_overrides={"answers": ANSWERS})


def spec_of(folder: Path, tiny_model: Path, rows: pl.DataFrame | None = None, **changes: Any) -> Any:
    data = folder / "asked.jsonl"
    (table() if rows is None else rows).write_ndjson(data)
    base: dict[str, Any] = {
        "name": "t", "task": "question-answering", "data": {"train": str(data)}, "model": {"name": str(tiny_model)},
        "train": {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"},
        "evaluate": {"resamples": 100, "mistakes": 3, "folds": None},
    }  # fmt: skip
    return {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in changes.items()}}


def run(folder: Path, tiny_model: Path, **changes: Any) -> tunesmith.Run:
    return tunesmith.run(tunesmith.load_spec(spec_of(folder, tiny_model, **changes)), folder / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    """A finished run on questions of which some have no answer, with two folds."""
    return run(tmp_path_factory.mktemp("answers"), tiny_bert, rows=table(120, 0.3), evaluate={"folds": 2})


def test_answers_are_a_run_like_any_other(done: tunesmith.Run) -> None:
    found = done.findings
    for name in ("f1", "exact_match", "has_answer_f1", "has_answer_exact", "no_answer_accuracy"):
        assert found[f"test/{name}"].value is not None and f"test/baseline/lexical/{name}/difference" in found, name
    assert found["answers/threshold"].value is not None and found["data/without_answer/train"].value > 0  # type: ignore[operator]
    assert found["folds/f1"].value is not None and "data/classes" not in found
    assert found["labels/judged"].value == 0 and "data/contexts" in found
    assert verify_run(RunDir(done.path), 2).ok
    resolved = (done.path / "resolved.yaml").read_text()
    assert "no start for a head that reads tokens" in resolved


def test_a_run_names_answers_of_other_questions(done: tunesmith.Run, tmp_path: Path, tiny_bert: Path) -> None:
    assert "No label was judged: only 63 questions" in (done.path / "MODEL_CARD.md").read_text("utf-8")
    questions, texts, answers = (list(column) for column in zip(*asked(100, 0), strict=True))
    wrong = set(range(0, 300, 12))
    for row in wrong:
        answers[row] = answers[row + 1]
    ids = [f"q{row}" for row in range(300)]
    rows = pl.DataFrame({"id": ids, "question": questions, "context": texts, "answers": answers}, schema_overrides={"answers": ANSWERS})
    spec = tunesmith.load_spec(spec_of(tmp_path, tiny_bert, rows=rows, data={"near_duplicates": None}, evaluate={"baselines": []}))
    finished, checked = tunesmith.run(spec, tmp_path / "runs"), check(spec, tmp_path / "checks")
    suspects = pl.read_parquet(finished.path / "data/suspects.parquet").join(
        pl.read_parquet(finished.path / "data/train.parquet").select("id", "text"), on="id"
    )
    named, planted = set(suspects["text"]), {questions[row] for row in wrong}
    assert len(named & planted) >= 8 and len(named - planted) <= len(named & planted)
    assert finished.findings["labels/suspects"].value == len(suspects) and finished.findings["labels/judged"].value > 100  # type: ignore[operator]
    for report in (finished.path / "report.html", checked / "data_report.html"):
        assert "have an answer that is more like those of other questions" in (said := report.read_text("utf-8"))
        assert suspects["text"][0] in said
    assert "a weak judge of words and forms" in (finished.path / "MODEL_CARD.md").read_text("utf-8")
    assert verify_run(RunDir(finished.path), 1).ok


def test_the_documents_show_the_answers_in_their_texts(done: tunesmith.Run) -> None:
    report, card = ((done.path / name).read_text("utf-8") for name in ("report.html", "MODEL_CARD.md"))
    assert "Which words of a text answer a question?" in report and "The worst answers" in report and 'class="right"' in report
    for word in ("Confusions", "Class by class", "Can its confidence be believed", "Numbers", "not recorded by this run"):
        assert word not in report.split("The evidence")[0], word
    assert "AutoModelForQuestionAnswering" in card and "classes" not in card.split("## Evidence")[0]


def test_questions_about_one_text_stay_together(done: tunesmith.Run, tmp_path: Path, tiny_bert: Path) -> None:
    parts = [set(pl.read_parquet(done.path / f"data/{split}.parquet")["text_pair"]) for split in ("train", "validation", "test")]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert done.findings["certificate/group/leaking_test_rows"].value == 0
    apart = run(tmp_path, tiny_bert, data={"contexts": "apart", "near_duplicates": None})
    parts = [set(pl.read_parquet(apart.path / f"data/{split}.parquet")["text_pair"]) for split in ("train", "test")]
    assert parts[0] & parts[1]


def test_a_tampered_answer_is_found(done: tunesmith.Run, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "t"
    shutil.copytree(done.path, copy)
    path = copy / "predictions/test.parquet"
    pl.read_parquet(path).with_columns(predicted=pl.lit("something")).write_parquet(path)
    bad = [check.what for check in verify_run(RunDir(copy), 2).checks if check.status == "mismatch"]
    assert {"labels of predictions/test.parquet", "scores of predictions/test.parquet", "predictions/test.parquet from the weights"} <= set(
        bad
    )


def test_predictions_point_into_the_text_as_it_was_given(done: tunesmith.Run, tmp_path: Path) -> None:
    text = "  the\u200b  refund 😀   שלום is here\r\n\r\n\r\nand so is the parcel "
    for one in tunesmith.load(done.path).predict([("how r", text)] * 2):
        assert one.label == ("" if one.span is None else text[slice(*one.span)])
    rows = table(30, 0.3, seed=1).select("id", "question", "context")
    rows = pl.concat([rows, rows.head(1).with_columns(id=pl.lit("empty"), context=pl.lit(" "))])
    rows.write_csv(tmp_path / "new.csv")
    for name in ("out.json", "out.csv", "out.jsonl"):
        assert call("predict", done.path, tmp_path / "new.csv", "--output", tmp_path / name)[0] == 0
    said = pl.read_csv(tmp_path / "out.csv")
    assert said.columns == ["id", "question", "context", "predicted", "start", "end", "score"]
    content = json.loads((tmp_path / "out.json").read_text())
    assert content == dict(zip(said["id"], said["predicted"].fill_null(""), strict=True)) and content["empty"] == ""
    for row in said.drop_nulls("start").iter_rows(named=True):
        assert row["context"][row["start"] : row["end"]] == row["predicted"]


def test_the_saved_model_answers_the_same_plainly(tmp_path: Path, tiny_bert: Path) -> None:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    finished = run(tmp_path, tiny_bert, evaluate={"baselines": []})
    network = AutoModelForQuestionAnswering.from_pretrained(finished.model_path).eval()
    words, asked = AutoTokenizer.from_pretrained(finished.model_path), table(30, seed=2).select("question", "context").rows()
    compared = 0
    for (question, context), said in zip(asked, tunesmith.load(finished.path).predict(asked), strict=True):
        given = words(question, context, return_tensors="pt", return_offsets_mapping=True)
        places, inside = given.pop("offset_mapping")[0].tolist(), [part == 1 for part in given.sequence_ids(0)]
        with torch.no_grad():
            out = network(**given)
        start_T, end_T = out.start_logits[0], out.end_logits[0]
        pairs = [(a, b) for a in range(len(inside)) if inside[a] for b in range(a, min(a + 30, len(inside))) if inside[b]]
        start, end = max(pairs, key=lambda pair: float(start_T[pair[0]] + end_T[pair[1]]))
        if said.span is not None:
            assert said.span == (places[start][0], places[end][1])
            compared += 1
    assert compared > 10


def test_squad_json_is_read_drafted_and_predicted(done: tunesmith.Run, tmp_path: Path, tiny_bert: Path) -> None:
    records = table(60).to_dicts()
    for row in records:
        row["answers"] = [{"text": a["text"], "answer_start": a["start"]} for a in row["answers"]]
    paragraphs = [{"context": r["context"], "qas": [{k: r[k] for k in ("id", "question", "answers")}]} for r in records]
    (tmp_path / "squad.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "x", "paragraphs": paragraphs}]}))
    assert "task: question-answering" in draft_spec(str(tmp_path / "squad.json"), tmp_path)
    finished = run(tmp_path, tiny_bert, data={"train": str(tmp_path / "squad.json")}, evaluate={"baselines": []})
    assert finished.findings["data/rows/read"].value == 60
    assert call("predict", done.path, tmp_path / "squad.json", "--output", tmp_path / "said.json")[0] == 0
    assert json.loads((tmp_path / "said.json").read_text()).keys() == {row["id"] for row in records}


@pytest.mark.parametrize("strategy", [{"kind": "layers", "top": 1}, {"kind": "lora", "rank": 2}, {"kind": "bitfit"}])
def test_strategies_and_the_store(tmp_path: Path, tiny_bert: Path, strategy: dict[str, Any]) -> None:
    losses = []
    for mode in ("auto", "never") if strategy["kind"] == "layers" else ("auto",):
        moved = pl.struct(pl.element().struct.field("text"), pl.element().struct.field("start") + 320)
        longer = pl.concat_str(pl.lit("the box is late " * 20), "context")
        rows = table(60).with_columns(context=longer, answers=pl.col("answers").list.eval(moved))
        finished = run(tmp_path, tiny_bert, name=mode, rows=rows, strategy=strategy, store={"mode": mode}, evaluate={"baselines": []},
                       train={"epochs": 2}, model={"max_length": 48})  # fmt: skip
        losses.append([json.loads(line)["loss"] for line in (finished.path / "history.jsonl").read_text().splitlines()])
        used = strategy["kind"] == "layers" and mode == "auto"
        assert finished.findings["store/used"].value == ("yes" if used else "no")
    if len(losses) == 2:
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_plan_and_init_know_answers(tmp_path: Path, tiny_bert: Path) -> None:
    plan = make_plan(tunesmith.load_spec(spec_of(tmp_path, tiny_bert)), tmp_path / "runs")
    assert plan.can_run and plan.steps and plan.seconds is not None
    assert "task: question-answering" in draft_spec(str(tmp_path / "asked.jsonl"), tmp_path)
    yes_no = table(60).with_columns(answers=pl.Series(["true", "false"] * 30))
    yes_no.write_csv(tmp_path / "boolean.csv")
    assert "task: text-classification" in draft_spec(str(tmp_path / "boolean.csv"), tmp_path, label="answers")


def test_rows_that_cannot_be_learned_from_are_counted_and_dropped(tmp_path: Path, tiny_bert: Path) -> None:
    rows = table(60).to_dicts()
    rows[0]["question"], rows[1]["context"] = " ", "\u200b"
    rows[2]["answers"], rows[3]["answers"] = [{"text": "nowhere", "start": 3}], None
    rows[4]["answers"][0]["start"] += 1
    finished = run(tmp_path, tiny_bert, rows=pl.DataFrame(rows, schema_overrides={"answers": ANSWERS}), evaluate={"baselines": []})
    found = finished.findings
    dropped = {key: found[f"data/dropped/{key}"].value for key in ("empty_text", "answer_not_in_text", "empty_label")}
    assert dropped == {"empty_text": 2, "answer_not_in_text": 1, "empty_label": 1}
    assert any("1 stood elsewhere" in line for line in json.loads((finished.path / "data/profile.json").read_text())["warnings"])


@pytest.mark.parametrize(("change", "expected"), [
    ({"answers": pl.Series([[]] * 120, dtype=ANSWERS)}, "must hold answers"),
    ({"answers": pl.Series([[{"text": "zebra", "start": 1}]] * 120, dtype=ANSWERS)}, "are in their texts"),
])  # fmt: skip
def test_tables_without_answers_are_refused(tmp_path: Path, tiny_bert: Path, change: dict[str, pl.Series], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        run(tmp_path, tiny_bert, rows=table().with_columns(**change))


@pytest.mark.parametrize("setting", [
    "strategy.kind=features", "strategy.kind=prompt_tuning", "train.head_start=fitted", "evaluate.baselines=[features]",
    "data.mask=[email]", "data.standardise=[html]", "train.label_smoothing=0.1", "data.multi_label=true", "model.max_length=8",
    "train.regularization.kind=r_drop",
])  # fmt: skip
def test_what_has_no_meaning_for_answers_is_refused(tmp_path: Path, tiny_bert: Path, setting: str) -> None:
    spec = tunesmith.load_spec(spec_of(tmp_path, tiny_bert), [setting])
    assert check_spec(spec, metric_names(spec)), setting


@pytest.mark.parametrize(("setting", "expected"), [
    ("answers.stride=3", "is for answers in a text"), ("data.answer_start=start", "is for answers in a text"),
    ("data.contexts=apart", "is for answers in a text"), ("evaluate.baselines=[lexical]", "must be of majority and features"),
])  # fmt: skip
def test_what_is_for_answers_is_refused_elsewhere(tmp_path: Path, tiny_bert: Path, setting: str, expected: str) -> None:
    tiny.table(30).write_csv(tmp_path / "tickets.csv")
    base = {"name": "t", "data": {"train": str(tmp_path / "tickets.csv")}, "model": {"name": str(tiny_bert)}}
    spec = tunesmith.load_spec(base, [setting])
    assert any(expected in str(issue) for issue in check_spec(spec, metric_names(spec)))


def test_runs_are_compared_by_f1(done: tunesmith.Run, tmp_path: Path) -> None:
    code, said = call("compare", done.path, done.path)[:2]
    assert code == 0 and "F1 of words" in said


def test_the_most_frequent_answer_can_be_none() -> None:
    from tunesmith.evaluate.lexical import most_frequent

    rows = pl.DataFrame({"id": ["1"], "label": pl.Series([[]], dtype=ANSWERS)})
    train = pl.DataFrame({"label": pl.Series([[], [], [{"text": "The box", "start": 0}]], dtype=ANSWERS)})
    assert most_frequent(train, rows)["predicted"].to_list() == [""]
    assert most_frequent(train.tail(1), rows)["predicted"].to_list() == ["box"]
