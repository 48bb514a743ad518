"""Suspects on paper: a file that people decide in, and their decisions taken back into the rows.

A review file is a CSV for spreadsheets or a list of Label Studio tasks. One decision for each row: `keep` the label, `drop`
the row, `relabel` to the suggestion, or `relabel(other label)`; several labels are written `relabel(one | other)`.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.labels import Suspects

Action = Literal["keep", "relabel", "drop"]
Kind = Literal["text", "path"]

SHOWN_CHARACTERS = 2000
"""A reviewer sees that much of a text; spreadsheets refuse cells above 32,767 characters."""
SEVERAL = " | "
FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")
NEUTRALISED = re.compile(r"'+(\s*[=+\-@＝＋－＠]|[\t\r\n])")
RELABEL = re.compile(r"relabel\s*\((.*)\)", re.DOTALL | re.IGNORECASE)
WORDS: dict[str, Action] = {"keep": "keep", "relabel": "relabel", "drop": "drop"}
ACTIONS = "keep, drop, relabel or relabel(label)"


@dataclass(frozen=True)
class ReviewItem:
    """A row to look at: its content (text, or path of a file), labels as in the data, and why it is here."""

    id: str
    content: str
    given: tuple[str, ...]
    suggested: tuple[str, ...]
    probability: float | None
    quality: float
    reason: str


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided about a row, who and when (as written; empty where not known), and where it was read."""

    id: str
    action: Action
    labels: tuple[str, ...]
    reviewer: str
    time: str
    note: str
    where: str


@dataclass(frozen=True)
class Decisions:
    """Decisions by row id; `undecided` entries have none (empty, cancelled, or with one of `issues`); `repeated` say one again."""

    decided: dict[str, Decision]
    undecided: int
    repeated: int
    issues: tuple[Issue, ...]


@dataclass(frozen=True)
class Applied:
    """Rows after the decisions; those that left, with `reason` and `detail`; and how many were kept, relabelled, dropped, absent."""

    rows: pl.DataFrame
    dropped: pl.DataFrame
    counts: dict[str, int]


def review_items(suspects: Suspects, rows: pl.DataFrame, labels: Sequence[str], kind: Kind = "text") -> list[ReviewItem]:
    """One item for each row with a suspect, worst first; the suspects of one multi-label row become one suggestion.

    Args:
        suspects: of single or multi-label rows.
        rows: the rows they were found in, with `id`, `label`, and a column named like the kind.
        labels: names in class-id order.
        kind: whether the content is a text or a path.
    """
    ids, contents, given = rows["id"], rows[kind], rows["label"]
    by_row: dict[int, list[Any]] = {}
    for suspect in suspects.suspects:
        by_row.setdefault(suspect.row, []).append(suspect)
    items = []
    for row, found in by_row.items():
        worst = found[0]
        names = (given[row],) if isinstance(given[row], str) else tuple(given[row])
        if worst.part is None:
            suggested: tuple[str, ...] = (labels[int(worst.suggested)],)
        else:
            turned = {labels[suspect.part] for suspect in found}
            suggested = tuple(name for name in labels if (name in names) != (name in turned))
        content = str(contents[row])
        items.append(ReviewItem(str(ids[row]), content, names, suggested, worst.probability, worst.quality, worst.reason))
    return items


def write_review_csv(path: Path, items: Iterable[ReviewItem], kind: Kind = "text") -> dict[str, int]:
    """Write items for a spreadsheet; the result counts `rows` and those whose content was `shortened` to 2,000 characters.

    Cells that a spreadsheet would run as a formula get an apostrophe in front, which `read_decisions` takes away.
    """
    rows = shortened = 0
    with open(path, "w", encoding="utf-8-sig", newline="") as file:  # the mark lets Excel read UTF-8
        out = csv.writer(file, quoting=csv.QUOTE_ALL)
        out.writerow(("id", kind, "given_label", "suggested_label", "quality", "reason", "decision", "reviewer", "note"))
        for item in items:
            content = _shown(item.content)
            labels = (SEVERAL.join(item.given), SEVERAL.join(item.suggested))
            out.writerow([neutralised(cell) for cell in (item.id, content, *labels, f"{item.quality:.4f}", item.reason, "", "", "")])
            rows, shortened = rows + 1, shortened + (content != item.content)
    return {"rows": rows, "shortened": shortened}


def write_review_tasks(path: Path, items: Iterable[ReviewItem], version: str, kind: Kind = "text") -> dict[str, int]:
    """Write items as Label Studio tasks whose predictions are the suggestions; `label_studio_config` is their page."""
    tasks = []
    for item in items:
        value = {"choices": list(item.suggested)}
        result = {"from_name": "label", "to_name": "content", "type": "choices", "value": value}
        labels = {"given_label": SEVERAL.join(item.given), "suggested_label": SEVERAL.join(item.suggested)}
        data: dict[str, Any] = {"id": item.id, **labels, "reason": item.reason}
        data |= {kind: item.content, "quality": round(item.quality, 4)}
        prediction = {"model_version": version, "score": item.probability, "result": [result]}
        tasks.append({"data": data, "predictions": [prediction]})
    path.write_text(json.dumps(tasks, ensure_ascii=False, indent=1, allow_nan=False), "utf-8")
    return {"rows": len(tasks), "shortened": 0}


def label_studio_config(labels: Sequence[str], tag: Literal["Text", "Image", "Audio"] = "Text", several: bool = False) -> str:
    """The labelling page of the tasks: a choice of labels (the given one keeps it), and one to keep or drop the row."""
    kind = "text" if tag == "Text" else "path"
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View><{tag} name="content" value="${kind}"/><Header value="Given: $given_label ($reason)"/>'
        f'<Choices name="label" toName="content" choice="{"multiple" if several else "single"}">{choices}</Choices>'
        '<Choices name="decision" toName="content" choice="single"><Choice value="keep"/><Choice value="drop"/></Choices></View>'
    )


def read_decisions(path: Path, ids: Collection[str], labels: Collection[str], when: str = "") -> Decisions:
    """The decisions in a review file: CSV, or a Label Studio export (JSON).

    Each entry that cannot be used is one issue, and its row stays undecided: an id or label that is not known, a decision
    that is none of the three, decisions of one row that contradict each other.

    Args:
        path: the file.
        ids: of the rows that can be decided.
        labels: names that rows can have.
        when: the time for entries that state none.

    Raises:
        DataError: the file is missing, unreadable, or lacks the columns.
    """
    ids, labels = set(ids), set(labels)
    found: dict[str, list[Decision]] = {}
    issues, undecided = list[Issue](), 0
    try:
        entries = list(_json_entries(path) if path.suffix.lower() == ".json" else _csv_entries(path))
    except (OSError, UnicodeError, csv.Error, ValueError) as error:
        remedy = "Give a CSV saved as UTF-8, or a JSON export of Label Studio."
        raise DataError(Issue(str(path), "must be a readable review file", str(error), remedy)) from error
    for where, entry in entries:
        decision = _decision(where, entry, (ids, labels), when)
        if isinstance(decision, Issue):
            issues.append(decision)
        if isinstance(decision, Decision):
            found.setdefault(decision.id, []).append(decision)
        else:
            undecided += 1
    decided = {}
    for row, same in found.items():
        if len({(d.action, d.labels) for d in same}) > 1:
            said = ", ".join(f"{_said(d)} ({d.where})" for d in same)
            issues.append(Issue(f"{path.name}: row {row}", "must have one decision", said, "Leave one, and empty the others."))
            undecided += len(same)
        else:
            reviewer, time, note = (", ".join(dict.fromkeys(filter(None, said))) for said in zip(*map(_words, same), strict=True))
            decided[row] = replace(same[0], reviewer=reviewer, time=time, note=note)
    repeated = len(entries) - undecided - len(decided)
    return Decisions(decided, undecided, repeated, tuple(issues))


def apply(rows: pl.DataFrame, decisions: Decisions) -> Applied:
    """Rows with the decided labels, without the dropped ones; a decision for a row that is not there is counted as absent.

    Raises:
        DataError: a decision gives several labels where rows have one.
    """
    several = rows.schema["label"] == pl.List
    wrong = [d for d in decisions.decided.values() if d.action == "relabel" and not several and len(d.labels) != 1]
    if wrong:
        raise DataError([Issue(d.where, "must give one label", _said(d), "Rows of this table have one label each.") for d in wrong])
    places = {row: place for place, row in enumerate(rows["id"].to_list())}
    present = {places[row]: decision for row, decision in decisions.decided.items() if row in places}
    values = rows["label"].to_list()
    for place, decision in present.items():
        if decision.action == "relabel":
            values[place] = list(decision.labels) if several else decision.labels[0]
    actions = Counter(decision.action for decision in present.values())
    relabelled = rows.with_columns(pl.Series("label", values, rows.schema["label"]))
    leaving = {place: decision for place, decision in present.items() if decision.action == "drop"}
    gone = sorted(leaving)
    details = [": ".join(filter(None, [leaving[p].reviewer, leaving[p].note])) for p in gone]
    dropped = rows[gone].with_columns(pl.lit("review").alias("reason"), pl.Series("detail", details, pl.String))
    counts = {**{name: actions[action] for name, action in WORDS.items()}, "absent": len(decisions.decided) - len(present)}
    return Applied(relabelled[[place for place in range(len(rows)) if place not in leaving]], dropped, counts)


def neutralised(cell: str) -> str:
    """The cell with an apostrophe in front when a spreadsheet could run it as a formula; `restored` is the exact inverse."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def restored(cell: str) -> str:
    """The cell as it was before `neutralised`."""
    return cell[1:] if NEUTRALISED.match(cell) else cell


def _shown(content: str) -> str:
    return content if len(content) <= SHOWN_CHARACTERS else content[:SHOWN_CHARACTERS] + "…"


def _said(decision: Decision) -> str:
    return f"relabel({SEVERAL.join(decision.labels)})" if decision.action == "relabel" else decision.action


def _words(decision: Decision) -> tuple[str, str, str]:
    return decision.reviewer, decision.time, decision.note


def _decision(where: str, entry: Mapping[str, str], known: tuple[Collection[str], Collection[str]], when: str) -> Decision | Issue | None:
    """The entry's decision, None where it has none, or what is wrong with it."""
    ids, names = known
    row, said = entry["id"].strip(), entry["decision"].strip()
    if not said:
        return None
    if row not in ids:
        return Issue(where, "must be the id of a row that can be decided", repr(row), "Ids must stay as they were written.", fatal=False)
    other = RELABEL.fullmatch(said)
    action = WORDS.get("relabel" if other else said.lower())
    if action is None:
        return Issue(where, f"decision must be {ACTIONS}", repr(said), "Correct the cell, or empty it.", fatal=False)
    labels: tuple[str, ...] = ()
    if action == "relabel":
        wanted = other.group(1) if other else entry.get("suggested_label") or ""
        labels = _names(wanted, names)
        unknown = [name for name in labels if name not in names]
        if unknown or not (labels or other):
            found = repr(unknown[0]) if unknown else "no label"
            return Issue(where, "must relabel to a label of the data", found, "Labels must be written as in the data.", fatal=False)
    return Decision(
        id=row,
        action=action,
        labels=labels,
        reviewer=(entry.get("reviewer") or "").strip(),
        time=(entry.get("time") or "").strip() or when,
        note=(entry.get("note") or "").strip(),
        where=where,
    )


def _names(wanted: str, known: Collection[str]) -> tuple[str, ...]:
    """The label as it is written where it is known, with and without outer spaces; else the parts between bars."""
    for whole in (wanted, wanted.strip(), restored(wanted.strip())):
        if whole in known:
            return (whole,)
    return tuple(dict.fromkeys(part.strip() for part in wanted.split("|") if part.strip()))


def _csv_entries(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Cells by column of each line, with its place. Spreadsheets save with the delimiter of the user's country."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)
        file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        lacking = [name for name in ("id", "decision") if name not in (reader.fieldnames or ())]
        if lacking:
            raise DataError(Issue(str(path), "must have the columns id and decision", f"no {lacking[0]}", "Keep the first line as it was."))
        for cells in reader:
            more = cells.pop(None, None) or []  # a comma in a note that nobody quoted
            values = {name: restored(cell or "") for name, cell in cells.items()}
            values["note"] = delimiter.join([values.get("note", ""), *more])
            yield f"{path.name}:{reader.line_num}", values


def _json_entries(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """One entry for each annotation of each task; a task without one, and a cancelled annotation, is an entry without decision."""
    tasks = json.loads(path.read_text("utf-8"))
    if not (isinstance(tasks, list) and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks)):
        raise ValueError("not a list of tasks with data")
    for number, task in enumerate(tasks):
        where = f"{path.name}: task {task.get('id', number)}"
        data = {name: str(task["data"].get(name) or "") for name in ("id", "given_label", "suggested_label")}
        annotations = task.get("annotations") or [{}]
        if not (isinstance(annotations, list) and all(isinstance(annotation, dict) for annotation in annotations)):
            raise ValueError(f"{where} has annotations that are not a list of objects")
        for annotation in annotations:
            decision = "" if annotation.get("was_cancelled") else _said_in(annotation, data["given_label"])
            who = annotation.get("completed_by")
            reviewer = who.get("email") or who.get("id") if isinstance(who, dict) else who
            time = annotation.get("updated_at") or annotation.get("created_at") or ""
            note = SEVERAL.join(_chosen(annotation, "note", "text"))
            yield where, {**data, "decision": decision, "reviewer": str(reviewer or ""), "time": str(time), "note": note}


def _said_in(annotation: Mapping[str, Any], given: str) -> str:
    """An annotation in the words of the CSV: an explicit keep or drop goes before the chosen labels."""
    said, chosen = _chosen(annotation, "decision", "choices"), _chosen(annotation, "label", "choices")
    same = chosen == [given] or set(chosen) == set(given.split(SEVERAL))
    if said:
        return "keep and another label" if said == ["keep"] and chosen and not same else said[0]
    return "" if not chosen else "keep" if same else f"relabel({SEVERAL.join(chosen)})"


def _chosen(annotation: Mapping[str, Any], name: str, field: str) -> list[str]:
    results = [r for r in annotation.get("result") or () if isinstance(r, dict) and r.get("from_name") == name]
    values = [r["value"].get(field) for r in results if isinstance(r.get("value"), dict)]
    return [str(one) for value in values for one in (value if isinstance(value, list) else [value]) if one]
