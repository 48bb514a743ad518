"""What a check or a draft can be pointed at besides a table: archives, addresses, folders with a file for each split."""

from __future__ import annotations

import gzip
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from PIL import Image

from tests import tiny
from tests.test_cli import call
from tunesmith.core.errors import DataError
from tunesmith.data.draft import draft_spec
from tunesmith.data.open import open_tables, source_hashes
from tunesmith.data.prepare import Prepared, prepare
from tunesmith.data.sources import hub
from tunesmith.data.sources.base import Items, Reason, dropped_table
from tunesmith.data.sources.detect import open_source
from tunesmith.data.sources.place import split_of_file, split_of_name, without_split
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Data
from tunesmith.stages.items import items_of, name_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def archive(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path.name


def drafted(source: str) -> tuple[dict[str, Any], Prepared]:
    raw = yaml.safe_load(draft_spec(source, Path()))
    spec = load_spec(raw)
    assert not check_spec(spec, ("accuracy",))
    return raw["data"], prepare(spec)


QUESTIONS = [
    {
        "id": str(n),
        "question": f"What is number {n}?",
        "context": f"Here stands {n} alone.",
        "answers": {"text": [str(n)], "answer_start": [12]},
    }
    for n in range(12)
]
CHATS = [{"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"So: {n}"}]} for n in range(12)]
TAGGED = [{"tokens": ["Anna", "met", f"Bob{n}"], "tags": ["B-person", "O", "B-person"]} for n in range(12)]
MARKED = [{"text": f"a table for {n} people", "spans": [{"slot": "people", "start": 12, "end": 13, "text": str(n)}]} for n in range(10)]


@pytest.mark.parametrize(
    ("rows", "kind", "ending"),
    [
        (QUESTIONS, "question-answering", ".jsonl"),
        (CHATS, "chat", ".jsonl.gz"),
        (TAGGED, "token-classification", ".jsonl.gz"),
        (MARKED, "text-spans", ".jsonl"),
    ],
)
def test_a_folder_with_a_file_for_each_split(tmp_path: Path, rows: list[dict[str, Any]], kind: str, ending: str) -> None:
    for split, part in (("train", rows[:6]), ("test", rows[6:8]), ("validation", rows[8:])):
        lines(tmp_path / "set" / f"{split}{ending}", part)
    lines(tmp_path / "set" / f"test_de{ending}", rows[:2])
    (tmp_path / "set/README.md").write_text("about it")
    items = items_of("set")
    assert items is not None and items.kind == kind
    assert dict(items.table["split"].value_counts().iter_rows()) == {"train": 6, "test": 2, "validation": len(rows) - 8}
    assert any(f"test_de{ending}" in str(issue) and "README.md" in str(issue) for issue in items.issues)
    code, said = call("check", "set")
    assert code == 0 and "test known before" in said and "warning" in said


def test_split_files_of_different_formats_or_alone_are_no_such_folder(tmp_path: Path) -> None:
    lines(tmp_path / "mixed/train.jsonl", CHATS)
    lines(tmp_path / "mixed/test.jsonl", TAGGED)
    lines(tmp_path / "alone/train.jsonl", CHATS)
    assert items_of("mixed") is None and items_of("alone") is None


def test_tags_and_spans_as_lines_leave_out_what_is_damaged(tmp_path: Path) -> None:
    bad_tags = [*TAGGED, {"tokens": ["a"], "tags": ["O", "O"]}, {"text": "no tokens"}]
    found = open_source(str(lines(tmp_path / "t.jsonl", bad_tags)))
    assert found.table.height == 12 and found.dropped["reason"].to_list() == [Reason.MALFORMED] * 2
    spans = [
        {"slot": "x", "start": 0, "end": 99},
        {"slot": "x", "start": 3, "end": 6, "text": "two"},
        {"slot": "x", "start": 0, "end": 4, "text": "none"},
    ]
    found = open_source(str(lines(tmp_path / "s.jsonl", [*MARKED, {"text": "one two", "spans": spans}])))
    assert found.table["spans"][-1].to_list() == [{"start": 4, "end": 7, "label": "x"}]
    assert found.dropped["reason"].to_list() == [Reason.MALFORMED, Reason.TEXT_NOT_THERE]
    assert any("were moved" in str(issue) for issue in found.issues)
    numbers = open_source(str(lines(tmp_path / "n.jsonl", [{"tokens": ["a", "b"], "ner_tags": [0, 3]}])))
    assert numbers.table["tags"].to_list() == [["0", "3"]]


def test_one_list_of_split_words() -> None:
    words = {"train.csv": "train", "my-dev.jsonl.gz": "validation", "holdout.csv": "test", "eval_1.json": "validation", "latest.csv": None}
    assert {name: split_of_name(name) for name in words} == words
    assert split_of_file(Path("testing/a.csv")) == "test"
    assert without_split("intents-train.v2.jsonl.gz") == without_split("intents_test-v2.csv") == "intents-v2"


def test_a_table_in_an_archive_is_prepared_and_what_was_refused_is_told(tmp_path: Path) -> None:
    name = archive(tmp_path / "one.zip", {"d/tickets.csv": tiny.table(90).write_csv().encode(), "../up.csv": b"x", "d/in.zip": b"x"})
    data, done = drafted(name)
    assert data["train"] == "one.zip/tickets.csv" and done.profile["rows"]["read"] == 90
    told = [str(issue) for issue in done.issues]
    assert sum("archives in archives are not opened" in issue for issue in told) == 1
    assert done.profile["sources"][0]["unusable"] == {"outside_folder": 1, "nested_archive": 1}
    assert set(source_hashes(["one.zip"])) == {"one.zip/tickets.csv"}
    before = source_hashes(["one.zip"])
    archive(tmp_path / "one.zip", {"d/tickets.csv": tiny.table(80).write_csv().encode()})
    assert source_hashes(["one.zip"]) != before


def test_splits_in_an_archive_and_one_of_its_files(tmp_path: Path) -> None:
    members = {
        "train.csv": tiny.table(90).write_csv().encode(),
        "test.csv": tiny.table(30, seed=5).write_csv().encode(),
        "labels.json": b'["a"]',
    }
    name = archive(tmp_path / "two.zip", members)
    data, done = drafted(name)
    assert (data["train"], data["test"]) == ("two.zip/train.csv", "two.zip/test.csv") and done.profile["rows"]["read"] == 120
    data, done = drafted("two.zip/test.csv")
    assert done.profile["rows"]["read"] == 30
    with pytest.raises(DataError, match=r"must hold one table, got 3 files.*two\.zip/\*\.csv"):
        open_tables(["two.zip"], Data(train=("two.zip",)))
    assert open_tables(["two.zip/*.csv"], Data(train=("two.zip/*.csv",)))[0].table.height == 120
    issues = check_spec(load_spec({"name": "t", "data": {"train": "tow.zip/train.csv"}}), ("accuracy",))
    assert [issue.where for issue in issues] == ["data.train"]
    code, said = call("init", "two.zip/train.csv")
    assert code == 0 and (tmp_path / "two.yaml").exists() and "two.zip/train.csv" in said


def test_pictures_in_an_archive_are_checked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as file:
        for n in range(8):
            path = tmp_path / "p.png"
            Image.effect_noise((32, 32), 40 + n).save(path)
            file.add(path, f"pets/{'cat' if n % 2 else 'dog'}/{n}.png")
        link = tarfile.TarInfo("pets/cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    items = items_of("pets.tar.gz")
    assert items is not None and items.table.height == 8 and items.table["label"].n_unique() == 2
    assert items.dropped["reason"].to_list() == [Reason.ARCHIVE_LINK] and any("is a link" in str(issue) for issue in items.issues)
    assert name_of("pets.tar.gz") == "pets"
    with pytest.raises(DataError, match="pictures"):
        open_tables(["pets.tar.gz"], Data(train=("pets.tar.gz",)))
    code, said = call("check", "pets.tar.gz")
    assert code == 0 and "archive_link" in said


def test_a_database_and_remote_files_are_checked_by_their_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    from tunesmith import pipeline

    monkeypatch.setattr(pipeline, "CHECKS", pipeline.CHECKS[:1])  # what comes after the data are read is tested elsewhere
    monkeypatch.setattr(pipeline, "render_data_report", lambda run: "")
    table = tiny.table(36)
    with closing(sqlite3.connect(tmp_path / "f.db")) as connection, connection:
        connection.execute("create table t (text, label)")
        connection.executemany("insert into t values (?, ?)", table.select("text", "label").rows())
    code, said = call("check", "sqlite:///f.db?table=t")
    assert code == 0 and "checks/f/data_report.html" in said
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{tmp_path.name}/chat/train.jsonl", lines(tmp_path / "x.jsonl", CHATS[:8]).read_bytes())
    memory.pipe(f"/{tmp_path.name}/chat/test.jsonl", lines(tmp_path / "x.jsonl", CHATS[8:]).read_bytes())
    memory.pipe(f"/{tmp_path.name}/set/train.csv", table.write_csv().encode())
    memory.pipe(f"/{tmp_path.name}/set/test.csv", tiny.table(30, seed=4).write_csv().encode())
    memory.pipe(f"/{tmp_path.name}/z.zip", (tmp_path / archive(tmp_path / "z.zip", {"t.csv": table.write_csv().encode()})).read_bytes())
    top = f"memory://{tmp_path.name}"
    items = items_of(f"{top}/chat")
    assert items is not None and items.kind == "chat" and items.table.height == 12 and name_of(f"{top}/chat") == "chat"
    for source in (f"{top}/set/train.csv", f"file://{tmp_path}/x.jsonl"):
        assert (items_of(source) is None) == source.startswith("memory")
    data, done = drafted(f"{top}/set")
    assert data["test"] == f"{top}/set/test.csv" and done.profile["rows"]["read"] == 66
    assert drafted(f"{top}/z.zip")[1].profile["rows"]["read"] == 36
    code, said = call("check", f"{top}/none.csv")
    assert code != 0 and "no such file" in said


def test_a_dataset_of_the_hub_keeps_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny.table(90).with_columns(
        pl.Series("split", ["train"] * 70 + ["test"] * 20), pl.Series("source", [f"o/n:{n}" for n in range(90)])
    )
    monkeypatch.setattr(hub, "read", lambda address, why: Items("table", "hub", why, None, rows, dropped_table(()), ()))
    data, done = drafted("hf://owner/name")
    assert data["split"] == {"kind": "column", "column": "split"} and done.profile["rows"]["test"] == 20
    assert items_of("hf://owner/name") is None
    rows.drop("source").write_csv("own.csv")
    assert "split" not in yaml.safe_load(draft_spec("own.csv", Path()))["data"]
    assert "# split: {kind: column, column: split}" in draft_spec("own.csv", Path())
