"""The data path from files to splits: columns, refusals, counts that add up, and the files of the stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.rundir import RunDir, sha256_file
from tunesmith.data.clean import Reason
from tunesmith.data.prepare import Prepared, input_hashes, prepare, write
from tunesmith.spec.load import load_spec

WORDS = ("card", "lost", "money", "late", "refund", "please", "account", "today")


def phrases(count: int, classes: int = 2) -> list[dict[str, Any]]:
    return [
        {"text": f"{WORDS[n % 8]} {WORDS[n // 8 % 8]} {n}", "label": f"class {'ab'[n % 2] if classes == 2 else n % classes}"}
        for n in range(count)
    ]


def saved(folder: Path, rows: list[dict[str, Any]], name: str = "t.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def prepared(folder: Path, rows: list[dict[str, Any]], **data: Any) -> Prepared:
    return prepare(load_spec({"name": "t", "data": {"train": saved(folder, rows), **data}}))


def adds_up(done: Prepared) -> None:
    rows = done.profile["rows"]
    assert rows["read"] == rows["train"] + rows["validation"] + rows["test"] + rows["dropped"]
    assert rows["dropped"] == sum(entry["rows"] for entry in done.profile["dropped"].values())
    assert set(done.dropped["reason"]) <= {str(reason) for reason in Reason}
    for part in (done.train, done.validation, done.test):
        assert part["id"].n_unique() == part.height
    assert not set(done.train["id"]) & set(done.test["id"])
    assert not set(done.validation["id"]) & (set(done.test["id"]) | set(done.train["id"]))


def test_a_plain_table_is_split_and_counted(tmp_path: Path) -> None:
    done = prepared(tmp_path, phrases(200))
    adds_up(done)
    assert done.train.columns == ["id", "text", "label", "source"]
    assert done.labels == ["class a", "class b"]
    assert done.profile["columns"]["why"] == {"text": "its name says that it is the text", "label": "its name says that it is the label"}
    assert (done.is_pair, done.issues) == (False, [])
    values = {finding.id: finding.value for finding in done.findings}
    assert values["data/rows/read"] == 200
    assert values["data/class/class a/train"] == done.train.filter(pl.col("label") == "class a").height
    assert not any(character.isdigit() for finding in done.findings for character in finding.claim)


def test_the_stage_writes_files_that_the_findings_point_into(tmp_path: Path) -> None:
    done = prepared(tmp_path, [*phrases(60), {"text": "", "label": "class a"}])
    run = RunDir(tmp_path / "run")
    with run.locked(), run.stage("prepare", "inputs", {}) as stage:
        write(done, stage)
    assert pl.read_parquet(run.path / "data/train.parquet").equals(done.train)
    assert pl.read_parquet(run.path / "data/dropped.parquet").columns == ["source", "text", "label", "reason", "detail"]
    assert json.loads((run.path / "data/labels.json").read_text("utf-8")) == done.labels
    profile = json.loads((run.path / "data/profile.json").read_text("utf-8"))
    assert profile == done.profile
    for finding in run.findings.values():
        assert finding.artefact is not None
        assert finding.artefact.sha256 == sha256_file(run.path / finding.artefact.path)
        here: Any = profile
        for key in finding.artefact.pointer.split("/")[1:]:
            here = here[int(key)] if isinstance(here, list) else here[key]
        assert here == finding.value


def test_preparing_twice_gives_the_same(tmp_path: Path) -> None:
    first, second = (prepared(tmp_path, phrases(120)) for _ in range(2))
    assert first.train.equals(second.train)
    assert first.profile == second.profile
    path = str(tmp_path / "t.jsonl")
    assert input_hashes(load_spec({"name": "t", "data": {"train": path}}).data) == {path: sha256_file(Path(path))}


def test_given_splits_are_kept_apart(tmp_path: Path) -> None:
    rows = phrases(100)
    test = saved(tmp_path, [*rows[:3], {"text": "new", "label": "class a"}, {"text": "odd", "label": "class z"}], "test.jsonl")
    done = prepared(tmp_path, rows, test=test)
    adds_up(done)
    assert done.test.height == 4
    assert done.profile["duplicates_across_splits"] == 3
    assert done.profile["dropped"]["unknown_label"]["rows"] == 1


def test_sentence_pairs_are_inferred(tmp_path: Path) -> None:
    rows = [{"premise": row["text"], "hypothesis": "so", "label": row["label"]} for row in phrases(50)]
    done = prepared(tmp_path, rows)
    assert done.is_pair
    assert done.train.columns == ["id", "text", "text_pair", "label", "source"]
    adds_up(done)


def test_multi_label_lists_and_separated_text(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "tags": ["x", "y"] if n % 3 else []} for n, row in enumerate(phrases(60))]
    lists = prepared(tmp_path, rows, multi_label=True)
    cells = prepared(
        tmp_path, [{"text": row["text"], "tags": " y| x|x" if row["tags"] else ""} for row in rows], multi_label=True, label_separator="|"
    )
    assert lists.labels == ["x", "y"]
    assert lists.train.drop("source").equals(cells.train.drop("source"))
    adds_up(lists)
    with pytest.raises(DataError, match="multi_label: true"):
        prepared(tmp_path, rows)
    with pytest.raises(DataError, match=r"data\.label_separator"):
        prepared(tmp_path, phrases(60), multi_label=True)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([3.0, 1.0], ["1", "3"]),
        ([0, 1], ["0", "1"]),
        ([True, False], ["false", "true"]),
        (["3.0", "1"], ["1", "3"]),
        (["007", "7"], ["007", "7"]),
        ([0.5, 1.0], ["0.5", "1.0"]),
        ([" yes ", "no"], ["no", "yes"]),
    ],
)
def test_labels_become_readable_text(tmp_path: Path, values: list[Any], labels: list[str]) -> None:
    rows = [{"text": row["text"], "label": values[n % 2]} for n, row in enumerate(phrases(40))]
    assert prepared(tmp_path, rows).labels == labels


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "missing column": (phrases(20), {"label": "lable"}, "Did you mean 'label'"),
    "missing text": (phrases(20), {"text": "txt"}, "Did you mean 'text'"),
    "one class": ([{"text": f"t {n}", "label": "same"} for n in range(20)], {}, "only 'same'"),
    "null labels": ([{"text": f"t {n}", "label": None} for n in range(20)], {}, "no label at all"),
    "regression": ([{"text": f"t {n}", "label": n / 7} for n in range(50)], {}, "regression"),
    "many values": ([{"text": f"t {n}", "label": f"id {n // 2}"} for n in range(20_000)], {}, "an id or free text"),
    "fewer rows than classes": ([{"text": f"t {n}", "label": f"l {n}"} for n in range(5)], {}, "more rows than classes"),
    "one column": ([{"text": f"t {n}"} for n in range(5)], {}, "one column"),
    "no label column": ([{"text": f"t {n}", "when": f"{n} o'clock now", "url": n} for n in range(500)], {}, "data.label"),
    "no text column": ([{"a": n % 2, "b": n} for n in range(50)], {}, "data.text"),
    "all texts empty": ([{"text": " ", "label": "ab"[n % 2]} for n in range(20)], {}, "none after 20 were dropped"),
    "too few rows": (phrases(4), {}, "validation split: must have rows"),
    "one class left": ([*phrases(20)[::2], {"text": "", "label": "class b"}], {}, "at least two classes"),
    "text that is a list": ([{"text": ["x"], "label": "ab"[n % 2]} for n in range(20)], {"text": "text"}, "must hold text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_is_refused(tmp_path: Path, case: str) -> None:
    rows, data, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, rows, **data)


def test_problems_of_all_tables_come_at_once(tmp_path: Path) -> None:
    empty = saved(tmp_path, [], "empty.jsonl")
    with pytest.raises(DataError) as caught:
        prepare(
            load_spec({"name": "t", "data": {"train": str(tmp_path / "no.csv"), "validation": empty, "test": str(tmp_path / "none.csv")}})
        )
    assert len(caught.value.issues) == 3


def test_a_class_with_one_row_stays_in_training_with_a_warning(tmp_path: Path) -> None:
    done = prepared(tmp_path, [*phrases(80), {"text": "only one", "label": "rare"}])
    assert done.train.filter(pl.col("label") == "rare").height == 1
    assert "three rows or more" in str(done.issues[0])
    assert not done.issues[0].fatal
    assert done.profile["split"]["rare_rows"] == 1


def test_labels_that_differ_in_case_are_told(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": ("Spam", "spam", "ham")[n % 3]} for n, row in enumerate(phrases(60))]
    assert "Spam and spam" in str(prepared(tmp_path, rows).issues[0])


values = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(width=32), st.sampled_from(["a", "b", "A ", "", "x y z"]), st.text(max_size=5)
)
tables = st.lists(
    st.fixed_dictionaries({}, optional={"text": values, "label": values, "other": st.one_of(values, st.lists(values, max_size=2))}),
    max_size=40,
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "multi_label": st.booleans(),
        "label_separator": st.just("|"),
        "on_conflict": st.sampled_from(["drop", "majority"]),
        "text": st.sampled_from(["text", "other", ["text", "other"]]),
        "label": st.sampled_from(["label", "other"]),
        "test_share": st.sampled_from([0.1, 0.5]),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables, data=choices, repeat=st.integers(1, 3))
def test_any_table_is_prepared_or_refused(tmp_path: Path, rows: list[dict[str, Any]], data: dict[str, Any], repeat: int) -> None:
    numbered = [{**row, "text": f"{row['text']} {n}"} if n % 3 and "text" in row else row for n, row in enumerate(rows * repeat)]
    try:
        adds_up(prepared(tmp_path, numbered, **data))
    except DataError as error:
        assert all(issue.where and issue.expected for issue in error.issues)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", "", None]), min_size=30, max_size=80),
    texts=st.lists(st.integers(0, 60), min_size=80, max_size=80),
    test=st.lists(st.tuples(st.integers(0, 80), st.sampled_from("abz")), min_size=5, max_size=20),
    majority=st.booleans(),
)
def test_counts_add_up_with_a_given_test(
    tmp_path: Path, labels: list[Any], texts: list[int], test: list[tuple[int, str]], majority: bool
) -> None:
    rows = [{"text": f"text {n}", "label": label} for n, label in zip(texts, labels, strict=False)]
    path = saved(tmp_path, [{"text": f"text {n}", "label": label} for n, label in test], "test.jsonl")
    try:
        adds_up(prepared(tmp_path, rows, test=path, on_conflict="majority" if majority else "drop"))
    except DataError as error:
        assert "split" in str(error) or "class" in str(error)


def test_dropped_pairs_keep_both_texts(tmp_path: Path) -> None:
    rows = [{"a": f"text {n}", "b": f"pair {n}", "label": "xy"[n % 2]} for n in range(30)]
    pl.DataFrame([*rows, rows[0]]).write_parquet(tmp_path / "t.parquet")
    spec = load_spec({"name": "t", "data": {"train": str(tmp_path / "t.parquet"), "text": ["a", "b"], "label": "label"}})
    dropped = prepare(spec).dropped
    assert dropped.select("text", "text_pair", "reason").row(0) == ("text 0", "pair 0", "duplicate")
