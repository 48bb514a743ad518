"""SQuAD JSON, versions 1 and 2, and the same questions flat: an object a line with question, context and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl

from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, Left, Reason, counted, dropped_table, frame, held
from tunesmith.data.sources.place import Place
from tunesmith.data.sources.quotes import located

ANSWERS = pl.List(pl.Struct({"text": pl.String, "start": pl.Int64}))
SCHEMA = {"source": pl.String, "id": pl.String, "question": pl.String, "context": pl.String, "answers": ANSWERS}
Asked = tuple[str, dict[str, Any], object]  # source, the question's object, its context


def recognise(place: Place) -> str | None:
    """Why these are questions on a text: `data` with paragraphs, or objects with question, context and answers."""
    if place.shape == "object":
        data = place.document.get("data") if isinstance(place.document, dict) else None
        paragraphs = data[0].get("paragraphs") if isinstance(data, list) and data and isinstance(data[0], dict) else None
        return f"{place.name} is a JSON object whose `data` holds paragraphs" if isinstance(paragraphs, list) else None
    if any({"question", "context", "answers"} <= record.keys() for record in place.first_objects):
        return f"the objects of {place.name} have question, context and answers"
    return None


def read(place: Place, why: str) -> Items:
    """A row per question. `answers` is empty where the text holds no answer; `start` counts characters.

    An answer that is not at its place is moved when its text occurs exactly once, and else left out; a question all
    of whose answers were left out goes too, for it would read as one without an answer.

    Raises:
        DataError: the JSON is damaged, or no question is left.
    """
    left: list[Left] = []
    rows: list[dict[str, Any]] = []
    seen: dict[str, tuple[object, ...]] = {}
    counts: Counter[str] = Counter()
    asked = _nested(place, left) if place.shape == "object" else ((s, record, record.get("context")) for s, record in place.objects(left))
    for source, record, context in asked:
        row = _row(source, record, context, (left, counts))
        if row is None:
            continue
        content = (row["question"], row["context"], str(row["answers"]))
        if seen.get(row["id"]) == content:
            left.append((source, Reason.DUPLICATE_ID, f"id {row['id']}"))
            continue
        counts["again"] += row["id"] in seen
        seen[row["id"]] = content
        rows.append(row)
    table = held(str(place.path), frame(rows, SCHEMA), left)
    issues = tuple(place.encoding[1] + _told(place, counts))
    return Items("question-answering", "squad", why, None, table, dropped_table(left), issues)


def _told(place: Place, counts: Counter[str]) -> list[Issue]:
    at_start = "answers should stand at answer_start"
    return [
        *counted(place.name, counts["moved"], at_start, "stood elsewhere, exactly once, and were moved"),
        *counted(place.name, counts["utf16"], at_start, "starts were counted in UTF-16 units and were converted"),
        *counted(place.name, counts["again"], "ids should be unique", "were used again for another question, which is kept"),
        *counted(place.name, counts["no id"], "questions should have an id", "have none; their place in the file serves as one"),
    ]


def _nested(place: Place, left: list[Left]) -> Iterator[Asked]:
    """Each question of a SQuAD file; its source is like "dev.json article 1 paragraph 2 question 3"."""
    for where, article in _objects(f"{place.name} article", place.document.get("data"), left):
        for part, paragraph in _objects(f"{where} paragraph", article.get("paragraphs"), left):
            for source, question in _objects(f"{part} question", paragraph.get("qas"), left):
                yield source, question, paragraph.get("context")


def _objects(where: str, value: object, left: list[Left]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, list):
        left.append((where, Reason.MALFORMED, "not a list"))
        return
    for number, record in enumerate(value, start=1):
        if isinstance(record, dict):
            yield f"{where} {number}", record
        else:
            left.append((f"{where} {number}", Reason.MALFORMED, "not a JSON object"))


def _row(source: str, record: dict[str, Any], context: object, state: tuple[list[Left], Counter[str]]) -> dict[str, Any] | None:
    left, counts = state
    question, number = record.get("question"), record.get("id")
    if not isinstance(question, str) or not isinstance(context, str) or not question.strip() or not context.strip():
        left.append((source, Reason.MALFORMED, "question and context must be text"))
        return None
    given = _answers(record.get("answers"))
    impossible = record.get("is_impossible")
    if given is None and impossible is not True:
        left.append((source, Reason.NOT_ANNOTATED, "no list of answers"))
        return None
    if given == [] and impossible is False:
        left.append((source, Reason.NOT_ANNOTATED, "no answer, and yet is_impossible is false"))
        return None
    answers = [] if impossible is True else [found for a in given or () if (found := _answer(source, a, context, state))]
    if given and not answers and impossible is not True:
        left.append((source, Reason.NO_ANSWER_LEFT, question[:60]))
        return None
    counts["no id"] += not isinstance(number, (str, int))
    name = str(number) if isinstance(number, (str, int)) else source
    return {"source": source, "id": name, "question": question, "context": context, "answers": answers}


def _answers(value: object) -> list[tuple[object, object]] | None:
    """Pairs of text and start, from a list of objects or from an object of two lists; None where there is neither."""
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
        return None
    if not isinstance(value, list):
        return None
    return [(a.get("text"), a.get("answer_start", a.get("start"))) if isinstance(a, dict) else (None, None) for a in value]


def _answer(source: str, given: tuple[object, object], context: str, state: tuple[list[Left], Counter[str]]) -> dict[str, Any] | None:
    left, counts = state
    text, start = given
    if not isinstance(text, str):
        left.append((source, Reason.MALFORMED, "an answer needs a text"))
        return None
    found = located(context, text, start)
    if found is None:
        left.append((source, Reason.TEXT_NOT_THERE, f"{text[:60]!r} at {start}"))
        return None
    counts[found[1]] += 1
    return {"text": text, "start": found[0]}
