"""Sources of a run other than local tables: read, mixed, counted, hashed, drafted; what is no text with labels is refused by name."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import tunesmith
from tests import source_files, tiny
from tunesmith.core.errors import DataError, RunError
from tunesmith.core.rundir import RunDir, sha256_file
from tunesmith.data.draft import draft_spec
from tunesmith.data.load import SOURCE
from tunesmith.data.open import open_batches, open_tables, rows_identity, shown
from tunesmith.data.prepare import Prepared, input_hashes, prepare
from tunesmith.serve.predictor import load as load_predictor
from tunesmith.spec.addresses import anchored, has_password, is_address, seen_from
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Data, Spec
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of remote files belong to the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def database(path: Path, table: pl.DataFrame, name: str = "tickets") -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {name} (text TEXT, label TEXT)")
        connection.executemany(f"INSERT INTO {name} VALUES (?, ?)", table.select("text", "label").rows())
    return f"sqlite:///{path}?table={name}"


def changed(address: str, statement: str) -> None:
    with closing(sqlite3.connect(address.removeprefix("sqlite:///").partition("?")[0])) as connection, connection:
        connection.execute(statement)


def in_memory(name: str, table: pl.DataFrame) -> str:
    address = f"memory://{name}"
    with fsspec.open(address, "wb") as file:
        table.write_csv(file)
    return address


def export(folder: Path, table: pl.DataFrame) -> str:
    """A Label Studio export with the rows of the table, one task that was skipped, and one that nobody saw."""
    tasks = [
        source_files.label_task(number, {"text": row["text"]}, [source_files.choice(row["label"])])
        for number, row in enumerate(table.iter_rows(named=True), start=1)
    ]
    tasks.append(source_files.label_task(len(tasks) + 1, {"text": "never seen"}))
    return str(source_files.document(folder / "export.json", tasks))


def spec_of(train: Any, **data: Any) -> Spec:
    return load_spec({"name": "t", "data": {"train": train, **data}})


def values(done: Prepared) -> dict[str, Any]:
    return {finding.id: finding.value for finding in done.findings}


KINDS = {"sql": 0, "query": 0, "remote": 0, "label studio": 1}  # and the items that cannot be used


def source(kind: str, folder: Path, table: pl.DataFrame) -> str:
    if kind == "sql":
        return database(folder / "t.db", table)
    if kind == "query":
        return database(folder / "t.db", table).partition("?")[0] + "?query=SELECT text, label FROM tickets WHERE text LIKE '%'"
    return in_memory(f"{folder.name}/t.csv", table) if kind == "remote" else export(folder, table)


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_rows_of_the_table(tmp_path: Path, kind: str) -> None:
    table = tiny.table(90)
    table.write_csv(tmp_path / "t.csv")
    plain, done = prepare(spec_of(str(tmp_path / "t.csv"))), prepare(spec_of(source(kind, tmp_path, table)))
    for name in ("train", "validation", "test"):
        assert vars(plain)[name].drop("source").sort("id").equals(vars(done)[name].drop("source").sort("id"))
    (file,), (entry,) = done.profile["files"]["train"], done.profile["sources"]
    assert file["rows"] == entry["kept"] == 90
    assert file["why"] and file["bytes"] > 0 and len(file["sha256"]) == 64
    assert file["format"] == {"sql": "sql", "query": "sql", "remote": "csv", "label studio": "label-studio"}[kind]
    assert sum(entry["unusable"].values()) == KINDS[kind]
    assert values(done)[f"data/sources/{entry['name']}/kept"] == 90
    json.dumps(done.profile)


def test_what_an_export_leaves_out_is_a_warning(tmp_path: Path) -> None:
    done = prepare(spec_of(export(tmp_path, tiny.table(60))))
    assert done.profile["sources"][0]["unusable"] == {"not_annotated": 1}
    assert any("1 left out. Nobody has annotated the item" in str(issue) for issue in done.issues)


DRAFTED = dict.fromkeys(("token-classification", "text-spans"), "token-classification") | {"question-answering": "question-answering"}
"""Kinds of items that a task reads, so that `init` drafts it."""


@pytest.mark.parametrize("name", [name for name, (_, _, kind) in source_files.MAKERS.items() if kind != "table"])
def test_a_source_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    make, _, kind = source_files.MAKERS[name]
    path = make(tmp_path)
    spec = spec_of(str(path))
    assert check_spec(spec, ()) == []
    acts = [lambda: prepare(spec), lambda: draft_spec(str(path), tmp_path)]
    if kind in DRAFTED:
        assert f"task: {DRAFTED[kind]}" in acts.pop()()
    for act in acts:
        with pytest.raises(DataError) as caught:
            act()
        (issue,) = caught.value.issues
        assert issue.where.startswith(str(path)) and "Read as" in issue.found and f"tunesmith check {path}" in issue.remedy
    if path.is_dir():
        with pytest.raises(DataError, match="Read as"):
            input_hashes(spec.data)


def test_a_table_with_paths_of_pictures_and_a_text_is_a_table(tmp_path: Path) -> None:
    tiny.table(60).with_columns(image=pl.lit("a.jpg")).write_csv(tmp_path / "t.csv")
    assert prepare(spec_of(str(tmp_path / "t.csv"))).profile["rows"]["read"] == 60


def test_a_folder_of_tables_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tiny.table(9).write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"a folder\. Name its files, such as .*\*\.csv"):
        prepare(spec_of(str(tmp_path)))


def test_a_dataset_of_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    spec = spec_of("hf://owner/name")
    for act in (lambda: prepare(spec), lambda: input_hashes(spec.data), lambda: draft_spec("hf://owner/name", Path())):
        with pytest.raises(DataError, match=r"pip install tunesmith\[hub\]"):
            act()


def test_problems_of_all_sources_come_at_once(tmp_path: Path) -> None:
    given_sources = [f"sqlite:///{tmp_path}/no.db?table=t", str(tmp_path / "no.csv"), "memory://no/such.csv", "nowhere://x/y.csv"]
    with pytest.raises(DataError) as caught:
        prepare(spec_of(given_sources))
    assert len(caught.value.issues) == 4
    remote = in_memory("bad/empty.csv", pl.DataFrame({"text": []}))
    with pytest.raises(DataError) as caught:
        prepare(spec_of(remote))
    assert caught.value.issues[0].where == remote


def three(folder: Path) -> list[str]:
    """90 rows of a table, 30 of a database, 30 of a remote file, all different."""
    tables = [tiny.table(rows, seed).with_columns(pl.col("text") + f" from {seed}") for seed, rows in ((1, 90), (2, 30), (3, 30))]
    tables[0].with_columns(extra=1).write_csv(folder / "a.csv")
    return [str(folder / "a.csv"), database(folder / "b.db", tables[1]), in_memory(f"{folder.name}/c.csv", tables[2])]


def test_sources_are_mixed_by_weight_and_counted(tmp_path: Path) -> None:
    sources = three(tmp_path)
    plain, done = prepare(spec_of(sources)), prepare(spec_of(sources, weights=[2, 1, 0.5]))
    assert [entry["kept"] for entry in plain.profile["sources"]] == [90, 30, 30]
    names = [entry["name"] for entry in done.profile["sources"]]
    assert names == sources
    found = values(done)
    assert [found[f"data/sources/{name}/kept"] for name in names] == [60, 30, 15]
    assert [found[f"data/sources/{name}/left_out"] for name in names] == [30, 0, 15]
    rows = done.profile["rows"]
    assert rows["read"] == 150
    assert rows["train"] + rows["validation"] + rows["test"] + rows["dropped"] == 105
    again = prepare(spec_of(sources, weights=[4, 2, 1]))
    assert again.train.equals(done.train)
    other = prepare(load_spec({"name": "t", "seed": 1, "data": {"train": sources, "weights": [2, 1, 0.5]}}))
    assert set(other.train["source"]) != set(done.train["source"])


def test_the_database_s_rows_are_those_of_the_database(tmp_path: Path) -> None:
    sources = three(tmp_path)
    loaded, counts = open_tables(sources, Data(train=tuple(sources)), [1, 1, 1])
    kept = [loaded.table.filter(pl.col("text").str.ends_with(f"from {seed}")) for seed in (1, 2, 3)]
    assert [part.height for part in kept] == [entry.kept for entry in counts] == [30, 30, 30]
    assert all(name.startswith("b.db tickets:") for name in kept[1][SOURCE])


def test_weights_are_checked(tmp_path: Path) -> None:
    sources = three(tmp_path)
    (issue,) = check_spec(spec_of(sources, weights=[1, 2]), ())
    assert issue.where == "data.train" and issue.found == "3 sources, 2 weights" and "data.weights" in issue.remedy
    assert [issue.where for issue in make_plan(spec_of(sources, weights=[1, 2]), tmp_path).issues] == ["data.train"]
    with pytest.raises(DataError, match="Name each file once"):
        prepare(spec_of([sources[0], sources[0]], weights=[1, 2]))
    assert [entry["kept"] for entry in prepare(spec_of([sources[0], sources[0]])).profile["sources"]] == [90]


def test_hashes_notice_every_change_and_no_other(tmp_path: Path) -> None:
    table = tiny.table(60)
    base, memory = database(tmp_path / "t.db", table), in_memory(f"{tmp_path.name}/t.csv", table)
    spec = spec_of([base, memory, export(tmp_path, table)], decisions=str(tmp_path / "none.csv"))
    before = input_hashes(spec.data)
    assert set(before) == {base, memory, str(tmp_path / "export.json")}
    assert before[str(tmp_path / "export.json")] == sha256_file(tmp_path / "export.json")
    changed(base, "CREATE TABLE other (x TEXT)")
    assert input_hashes(spec.data) == before
    changed(base, "UPDATE tickets SET label = 'billing' WHERE rowid = 2")
    in_memory(f"{tmp_path.name}/t.csv", table.head(59))
    after = input_hashes(spec.data)
    assert [name for name in before if before[name] != after[name]] == [base, memory]


@given(st.permutations(range(6)))
def test_the_hash_of_rows_does_not_depend_on_their_order(order: list[int]) -> None:
    table = tiny.table(6).with_columns(source=pl.int_range(6).cast(pl.String))
    mixed = table[order].with_columns(source=pl.int_range(6).cast(pl.String))
    assert rows_identity(mixed) == rows_identity(table)
    assert rows_identity(table.rename({"label": "other"}))[0] != rows_identity(table)[0]


def test_a_run_from_a_database_and_a_remote_file(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    base, test = database(tmp_path / "t.db", table), in_memory(f"{tmp_path.name}/test.csv", tiny.table(24, seed=5))
    raw = {
        "name": "t", "data": {"train": base, "test": test}, "model": {"name": str(tiny_bert)}, "strategy": {"kind": "features"},
        "evaluate": {"resamples": 100, "folds": None},
    }  # fmt: skip
    done = tunesmith.run(load_spec(raw), tmp_path / "runs")
    assert verify_run(RunDir(done.path), 2).ok
    report = done.report_path.read_text("utf-8")
    assert "t.db?table=tickets" in report and ">sql<" in report
    assert RunDir(done.path).manifest["data"].keys() == {base, test}
    assert tunesmith.run(load_spec(raw), tmp_path / "runs").path == done.path
    predictor = load_predictor(done.path)
    batches = list(open_batches(base, predictor.spec.data, 40))
    assert [batch.height for batch in batches] == [40, 40, 10]
    assert [batch.height for batch in open_batches(test, predictor.spec.data, 40)] == [24]
    changed(base, "DELETE FROM tickets WHERE rowid = 1")
    with pytest.raises(RunError, match=r"begun with other data.*t\.db\?table=tickets"):
        tunesmith.run(load_spec(raw), tmp_path / "runs")


def drafted(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Prepared]:
    """The draft in `folder`, and what it prepares when it is loaded from there."""
    text = draft_spec(path, folder)
    (folder / "spec.yaml").write_text(text, "utf-8")
    monkeypatch.chdir(folder)
    return text, prepare(load_spec({"name": "t", **{k: v for k, v in yaml.safe_load(text).items() if k != "name"}}))


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_can_be_drafted_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    text, done = drafted(source(kind, tmp_path, tiny.table(90)), tmp_path, monkeypatch)
    assert "text: text" in text and "label: label" in text and "90 rows" in text
    assert done.profile["rows"]["read"] == 90


def test_a_draft_names_a_database_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    database(tmp_path / "data" / "t.db", tiny.table(90))
    monkeypatch.chdir(tmp_path)
    draft = yaml.safe_load(draft_spec("sqlite:///data/t.db?table=tickets", tmp_path / "specs"))
    assert draft["data"]["train"] == "sqlite:///../data/t.db?table=tickets"
    assert "name: t\n" in draft_spec("sqlite:///data/t.db", tmp_path)


def test_stray_files_of_a_folder_are_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "labels.json").write_text('["billing", "login"]')
    tiny.table(60).write_csv(folder / "train.csv")
    tiny.table(30, seed=1).write_csv(folder / "test.csv")
    tiny.table(30, seed=2).write_csv(folder / "extra.csv")
    text, done = drafted(str(folder), tmp_path, monkeypatch)
    assert "# Left out: d/labels.json;" in text and "# Left out: d/extra.csv;" in text
    assert done.profile["rows"]["read"] == 90
    with pytest.raises(DataError, match="must be named like a split"):
        draft_spec([str(folder / "train.csv"), str(folder / "labels.json")], tmp_path)
    (folder / "train.csv").rename(folder / "rest.csv")
    assert "# Left out: d/labels.json;" in draft_spec(str(folder), tmp_path)


@pytest.mark.parametrize(
    ("address", "is_one", "secret", "told"),
    [
        ("s3://bucket/a.csv", True, False, "s3://bucket/a.csv"),
        ("https://me:key@host/a.csv?token=1", True, True, "https://host/a.csv"),
        ("postgresql://me:key@host/db?sslmode=x&table=t", True, True, "postgresql://host/db?table=t"),
        ("postgresql://me@host/db?query=SELECT '?'", True, False, "postgresql://host/db?query=SELECT '?'"),
        ("sqlite:///a@b:c.db?table=t", True, False, "sqlite:///a@b:c.db?table=t"),
        ("hf://owner/name", True, False, "hf://owner/name"),
        ("C:/a.csv", False, False, "C:/a.csv"),
        ("data/a?.csv", False, False, "data/a?.csv"),
    ],
)
def test_addresses_are_told_and_shown_without_secrets(address: str, is_one: bool, secret: bool, told: str) -> None:
    assert (is_address(address), has_password(address), shown(address)) == (is_one, secret, told)
    issues = check_spec(spec_of(address), ())
    assert any("password" in issue.expected for issue in issues) == secret
    assert all("key" not in str(issue) for issue in issues)
    if is_one:
        assert [issue.where for issue in check_spec(spec_of("memory://x.csv", decisions=address), ())] == ["data.decisions"]


@pytest.mark.parametrize("path", ["a.csv", "sub/a*.csv", "sqlite:///a.db?table=t", "sqlite:///sub/ä b.db?query=SELECT 'x//y'"])
def test_paths_of_a_spec_are_anchored_and_seen_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    there = anchored(path, Path("specs/deep"))
    assert "specs/deep/" in there
    assert seen_from(there, Path("specs/deep")) == path
    assert anchored(path, Path()) == path


@pytest.mark.parametrize("path", ["s3://b/a.csv", "hf://o/n", "memory://a.csv", "sqlite:////abs/a.db?table=t"])
def test_other_addresses_stay_as_they_are(path: str) -> None:
    assert anchored(path, Path("specs")) == path
    assert seen_from(path, Path("specs")) == path
    assert anchored(os.path.abspath("a.csv"), Path("specs")) == os.path.abspath("a.csv")


def test_rows_to_predict_on_are_read_as_a_table_whatever_else_they_could_be(tmp_path: Path) -> None:
    rows = pl.DataFrame({"text": ["Ada in Bonn", "no one"], "spans": [[{"start": 0, "end": 3, "label": "person"}], []]})
    rows.write_ndjson(tmp_path / "t.jsonl")
    for task in ("text-classification", "text-regression"):
        [batch] = open_batches(str(tmp_path / "t.jsonl"), Data(train=("t",)), 10, (task,))
        assert batch["text"].to_list() == rows["text"].to_list()
