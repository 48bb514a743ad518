"""Review files survive the trip to a spreadsheet and back, run no formula, and every entry is a decision or counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data.labels import suspects_multi_label, suspects_single
from tunesmith.data.review import (
    SHOWN_CHARACTERS,
    ReviewItem,
    apply,
    label_studio_config,
    neutralised,
    read_decisions,
    restored,
    review_items,
    write_review_csv,
    write_review_tasks,
)

LABELS = ["billing", "delivery", "=late (again)"]
IDS = [f"id{n}" for n in range(8)]


def item(number: int, given_label: str = "billing", suggested: str = "delivery", content: str = "a text") -> ReviewItem:
    return ReviewItem(f"id{number}", content, (given_label,), (suggested,), 0.9, 0.05, "a model of the other rows says so")


def written(path: Path, *lines: tuple[str, ...], header: str = "id,suggested_label,decision,reviewer,note,time") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(header.split(","))
        out.writerows(lines)
    return path


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("=+-@'\t\r\n ab＝"), max_size=6) | st.text(max_size=20))
def test_neutralising_is_exact_and_leaves_no_formula(cell: str) -> None:
    safe = neutralised(cell)
    assert restored(safe) == cell
    assert not safe.lstrip().startswith(("=", "+", "-", "@", "＝"))
    assert safe == cell or safe == f"'{cell}"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=8)), max_size=5)
)
def test_cells_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("review") / "review.csv"
    assert write_review_csv(path, [item(n, label, label, text) for n, (text, label) in enumerate(rows)])["rows"] == len(rows)
    with open(path, encoding="utf-8-sig", newline="") as file:
        back = list(csv.DictReader(file))
    assert [(restored(r["text"]), restored(r["given_label"])) for r in back] == rows
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in back for cell in row.values())
    assert read_decisions(path, IDS, LABELS).undecided == len(rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_decisions_of_a_spreadsheet_are_taken_back(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "review.csv"
    items = [item(0), item(1), item(2, suggested="=late (again)"), item(3), item(4)]
    assert write_review_csv(path, items) == {"rows": 5, "shortened": 0}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, decision in zip(rows, ["keep", "Drop ", "relabel", "relabel(=late (again))", ""], strict=True):
        row.update(decision=decision, reviewer="Ada" if decision else "", note='clear; "as day"' if decision == "keep" else "")
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        out.writeheader()
        out.writerows(rows)
    found = read_decisions(path, IDS, LABELS, "2026-01-02")
    assert not found.issues and found.undecided == 1 and found.repeated == 0
    said = {row: (d.action, d.labels) for row, d in found.decided.items()}
    late = ("=late (again)",)
    assert said == {"id0": ("keep", ()), "id1": ("drop", ()), "id2": ("relabel", late), "id3": ("relabel", late)}
    assert found.decided["id0"].reviewer == "Ada" and found.decided["id0"].time == "2026-01-02"
    assert found.decided["id0"].note == 'clear; "as day"'


def test_every_unusable_entry_is_one_issue(tmp_path: Path) -> None:
    path = written(
        tmp_path / "r.csv",
        ("id9", "", "keep"),
        ("id0", "", "maybe"),
        ("id1", "", "relabel(biling)"),
        ("id2", "", "relabel"),
        ("id3", "", "keep", "Ada"),
        ("id3", "", "drop", "Bo"),
        ("id4", "", "drop", "Ada", "a", "monday"),
        ("id4", "", "drop", "Bo", "b", ""),
        ("id5", "", "  "),
    )
    found = read_decisions(path, IDS, LABELS, "today")
    places = [str(issue).split(",")[0] for issue in found.issues]
    assert [p.split(": ")[0] for p in places] == ["r.csv:2", "r.csv:3", "r.csv:4", "r.csv:5", "r.csv"]
    assert "'biling'" in str(found.issues[2]) and "keep (r.csv:6), drop (r.csv:7)" in str(found.issues[4])
    assert found.undecided == 7 and found.repeated == 1
    assert list(found.decided) == ["id4"]
    both = found.decided["id4"]
    assert (both.reviewer, both.time, both.note) == ("Ada, Bo", "monday, today", "a, b")


entries = st.lists(
    st.tuples(
        st.sampled_from([*IDS[:3], "nobody", ""]),
        st.sampled_from(["billing", ""]),
        st.sampled_from(["keep", "drop", "relabel", "relabel(delivery)", "relabel()", "Keep", "what", "", "relabel(x|y)"]),
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(entries)
def test_entries_add_up(tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str, str]]) -> None:
    found = read_decisions(written(tmp_path_factory.mktemp("review") / "r.csv", *lines), IDS, LABELS)
    assert len(found.decided) + found.undecided + found.repeated == len(lines)
    done = apply(table(True), found)
    assert done.rows.height + done.dropped.height == 8
    assert sum(done.counts.values()) == len(found.decided)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="readable"):
        read_decisions(tmp_path / "none.csv", IDS, LABELS)
    with pytest.raises(DataError, match="no decision"):
        read_decisions(written(tmp_path / "a.csv", header="id,text"), IDS, LABELS)
    for name, content in {
        "latin.csv": b"id,decision,note\nid1,keep,caf\xe9\n",
        "quote.csv": b'id,decision\n"id1"x,keep\n',
        "no.json": b"{",
        "wrong.json": b'{"tasks": []}',
        "odd.json": b'[{"data": {"id": "id1"}, "annotations": [3]}]',
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_decisions(tmp_path / name, IDS, LABELS)


def table(several: bool = False) -> pl.DataFrame:
    labels = [["billing"]] * 8 if several else ["billing"] * 8
    return pl.DataFrame({"id": IDS, "text": [f"text {n}" for n in range(8)], "label": labels})


def test_decisions_are_applied_and_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "r.csv", ("id1", "delivery", "relabel"), ("id2", "", "drop", "Ada", "spam"), ("id3", "", "keep"), ("gone", "", "drop")
    )
    done = apply(table(), read_decisions(path, [*IDS, "gone"], LABELS))
    assert done.counts == {"keep": 1, "relabel": 1, "drop": 1, "absent": 1}
    assert done.rows["id"].to_list() == [row for row in IDS if row != "id2"]
    assert done.rows["label"].to_list() == ["billing", "delivery", *["billing"] * 5]
    assert done.dropped.rows() == [("id2", "text 2", "billing", "review", "Ada: spam")]
    many = apply(
        table(True),
        read_decisions(written(tmp_path / "m.csv", ("id1", "", "relabel(delivery | billing)"), ("id2", "", "relabel()")), IDS, LABELS),
    )
    assert many.rows["label"].to_list()[1:3] == [["delivery", "billing"], []]
    with pytest.raises(DataError, match="one label"):
        apply(table(), read_decisions(tmp_path / "m.csv", IDS, LABELS))


def test_items_come_from_suspects() -> None:
    values = np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.2, 0.8], [0.05, 0.95]] * 4)
    targets = values.argmax(1)
    targets[4] = 0
    rows = pl.DataFrame({"id": [f"r{n}" for n in range(20)], "text": ["t"] * 20, "label": [LABELS[t] for t in targets]})
    (first,) = review_items(suspects_single(targets, values), rows, LABELS)
    assert (first.id, first.given, first.suggested, first.probability) == ("r4", ("billing",), ("delivery",), 0.95)
    many = np.stack([targets, 1 - targets], 1)
    lists = rows.with_columns(pl.Series("label", [[LABELS[c] for c in np.flatnonzero(row)] for row in many]))
    found = review_items(suspects_multi_label(many, values[:, ::-1]), lists, LABELS)
    assert [(i.id, i.given, i.suggested) for i in found] == [("r4", ("delivery",), ("billing",))]


def test_long_texts_are_shortened_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    assert write_review_csv(path, [item(0, content="x" * 500_000), item(1)]) == {"rows": 2, "shortened": 1}
    assert path.stat().st_size < SHOWN_CHARACTERS + 1000
    assert read_decisions(path, IDS, LABELS).undecided == 2


def annotation(label: str | None = None, decision: str | None = None, **more: Any) -> dict[str, Any]:
    chosen = [(name, value) for name, value in (("label", label), ("decision", decision)) if value]
    result = [{"from_name": n, "to_name": "content", "type": "choices", "value": {"choices": [v]}} for n, v in chosen]
    return {"completed_by": {"id": 1, "email": "ada@example.org"}, "created_at": "2026-01-02T03:04:05Z", "result": result, **more}


def test_label_studio_tasks_come_back_as_decisions(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    write_review_tasks(path, [item(n) for n in range(8)], "tunesmith")
    tasks = json.loads(path.read_text("utf-8"))
    assert tasks[0]["data"]["text"] == "a text" and tasks[0]["predictions"][0]["result"][0]["value"] == {"choices": ["delivery"]}
    given_annotations = [
        [annotation("billing")],
        [annotation("delivery")],
        [annotation("billing", "drop")],
        [annotation("delivery", was_cancelled=True)],
        [],
        [annotation("delivery"), annotation("billing")],
        [annotation("delivery", "keep")],
        [annotation(decision="keep")],
    ]
    for task, made in zip(tasks, given_annotations, strict=True):
        task["annotations"] = made
    path.write_text(json.dumps(tasks), "utf-8")
    found = read_decisions(path, IDS, LABELS)
    said = {row: (d.action, *d.labels) for row, d in found.decided.items()}
    assert said == {"id0": ("keep",), "id1": ("relabel", "delivery"), "id2": ("drop",), "id7": ("keep",)}
    assert found.undecided == 5 and len(found.issues) == 2
    assert found.decided["id1"].reviewer == "ada@example.org" and found.decided["id1"].time == "2026-01-02T03:04:05Z"


def test_the_labelling_page_is_xml_with_all_names() -> None:
    page = ElementTree.fromstring(label_studio_config([*LABELS, 'a "quoted" <label> & more'], "Image", several=True))
    assert [c.get("value") for c in page.iter("Choice")] == [*LABELS, 'a "quoted" <label> & more', "keep", "drop"]
    assert page.find("Image") is not None and page.find("Image").get("value") == "$path"  # type: ignore[union-attr]
