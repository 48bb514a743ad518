"""Drafted specs load, say why, and find the splits that stand beside each other; the demo table is what it claims."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError
from tunesmith.data.draft import draft_spec, split_of
from tunesmith.data.prepare import prepare
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Spec
from tunesmith.tasks.make import metric_names

ROOT = Path(__file__).parent.parent


def table(path: Path, rows: int = 40, header: str = "body,queue,ticket_id") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [f"{number * 7919:x}" * 3 for number in range(rows)]  # no two texts are alike
    lines = [f"please help with {path.stem} {word},{('billing', 'tech')[n % 2]},{n}" for n, word in enumerate(words)]
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return path


def drafted(paths: str | list[str], folder: Path) -> tuple[str, Spec]:
    text = draft_spec(paths, folder)
    (folder / "spec.yaml").write_text(text, "utf-8")
    return text, load_spec(folder / "spec.yaml")


def test_a_table_becomes_a_spec_that_runs_and_says_why(tmp_path: Path) -> None:
    text, spec = drafted(str(table(tmp_path / "data" / "tickets.csv")), tmp_path)
    assert (spec.name, spec.data.text, spec.data.label) == ("tickets", ("body",), "queue")
    assert "train: data/tickets.csv" in text
    assert "# its name says that it is the text" in text
    assert "not used: ticket_id" in text
    assert spec.strategy.kind == "features"
    assert prepare(spec).profile["rows"]["read"] == 40
    assert draft_spec(str(tmp_path / "data"), tmp_path) == text


def test_many_rows_suggest_training_every_weight(tmp_path: Path) -> None:
    assert drafted(str(table(tmp_path / "t.csv", 400)), tmp_path)[1].strategy.kind == "full"


def test_splits_beside_a_train_table_are_used(tmp_path: Path) -> None:
    for name in ("intents-train.csv", "intents-dev.csv", "intents-test.csv", "other-test.csv"):
        table(tmp_path / name)
    text, spec = drafted(str(tmp_path / "intents-train.csv"), tmp_path)
    assert [Path(paths[0]).name for paths in (spec.data.validation or ("",), spec.data.test or ("",))] == [
        "intents-dev.csv",
        "intents-test.csv",
    ]
    assert "share" not in text
    assert "beside the train table" in text


def test_a_neighbour_with_other_columns_is_no_split(tmp_path: Path) -> None:
    table(tmp_path / "train.csv")
    table(tmp_path / "test.csv", header="a,b,c")
    assert drafted(str(tmp_path / "train.csv"), tmp_path)[1].data.test is None


def test_folders_and_lists_are_sorted_into_splits(tmp_path: Path) -> None:
    paths = [str(table(tmp_path / "d" / name)) for name in ("train-0.csv", "train-1.csv", "valid.csv", "test.csv")]
    for given in (str(tmp_path / "d"), paths):
        spec = drafted(given, tmp_path)[1]
        assert len(spec.data.train) == 2
        assert spec.data.validation and spec.data.test
        assert spec.name == "train-0"


def test_lists_of_labels_become_multi_label(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"some words {n}", "tags": ["x"]}) + "\n" for n in range(5)))
    assert drafted(str(path), tmp_path)[1].data.multi_label
    path.write_text("".join(json.dumps({"text": f"some words {n}", "tags": ("x|y", "x", "y", "y|z")[n % 4]}) + "\n" for n in range(40)))
    assert "# label_separator: '|'" in draft_spec(str(path), tmp_path) or '# label_separator: "|"' in draft_spec(str(path), tmp_path)


WORDS = [f"{n * 7919:x}" for n in range(30)]
DRAFTED: dict[str, list[dict[str, object]]] = {
    "text-classification": [{"text": f"about {word} here", "labels": ["a", "b"][: n % 3]} for n, word in enumerate(WORDS)],
    "text-regression": [{"text": f"about {word} here", "score": n * 0.37} for n, word in enumerate(WORDS)],
    "sentence-similarity": [{"sentence1": f"about {word}", "sentence2": f"of {word}", "score": n * 0.37} for n, word in enumerate(WORDS)],
    "token-classification": [{"tokens": ["about", word], "tags": ["O", "B-code"]} for word in WORDS],
    "question-answering": [
        {"question": f"which of {n}?", "context": f"about {word} here", "answers": {"text": [word], "answer_start": [6]}}
        for n, word in enumerate(WORDS)
    ],
    "translation": [{"en": f"about {word} here", "de": f"von {word} hier"} for word in WORDS],
    "feature-extraction": [{"query": f"which {n}?", "positive": f"about {word} here"} for n, word in enumerate(WORDS)],
    "fill-mask": [{"text": f"about {word} here"} for word in WORDS],
}


@pytest.mark.parametrize("task", DRAFTED)
def test_a_draft_of_every_task_can_be_used_as_it_is(task: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, DRAFTED[task])), "utf-8")
    _, spec = drafted(str(tmp_path / "rows.jsonl"), tmp_path)
    assert spec.task == task
    assert not check_spec(spec, metric_names(spec))
    assert prepare(spec).train.height


def test_awkward_names_are_quoted(tmp_path: Path) -> None:
    path = table(tmp_path / "a folder: #1" / "täble (v2).csv", header='"text: [the, one]","label # x",yes')
    spec = draft_spec([str(path)], tmp_path, text=["text: [the, one]"], label="label # x")
    (tmp_path / "s.yaml").write_text(spec, "utf-8")
    loaded = load_spec(tmp_path / "s.yaml")
    assert (loaded.data.text, loaded.data.label) == (("text: [the, one]",), "label # x")
    assert prepare(loaded).profile["rows"]["read"] == 40


def test_nothing_to_draft_from_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        draft_spec(str(tmp_path / "no.csv"), tmp_path)
    with pytest.raises(DataError, match="a folder with tables"):
        draft_spec(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "split"), [("train.csv", "train"), ("a_dev.jsonl.gz", "validation"), ("TEST.tsv", "test"), ("latest.csv", None)]
)
def test_splits_are_told_by_whole_words(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_the_demo_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = runpy.run_path(str(ROOT / "demo" / "docstrings.py"))
    assert demo["main"](str(tmp_path / "out.csv")) == 0
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 3500 < len(rows) < 9000
    assert list(rows[0]) == ["text", "area", "name", "module"]
    assert {row["area"] for row in rows} <= set(demo["AREAS"])
    assert all(len(row["text"].split()) >= 3 for row in rows)
    assert "left out" in capsys.readouterr().out
    modules = [module for names in demo["AREAS"].values() for module in names.split()]
    assert len(modules) == len(set(modules))


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ("f(a, b=(1, 2)) -> c\n\nGive back the sum.", "Give back the sum."),
        ("f(a) -> string with file data.", "string with file data."),
        ("f()\nDo one thing\nand another.\n\nMore.", "Do one thing\nand another."),
        ("Call f(x) to do it.", "Call f(x) to do it."),
        ("", ""),
    ],
)
def test_signatures_are_left_out(doc: str, text: str) -> None:
    assert runpy.run_path(str(ROOT / "demo" / "docstrings.py"))["first_paragraph"](doc) == text
