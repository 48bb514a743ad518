"""Label Studio's JSON export: rectangles on images, spans of text, or choices about a text; whatever most results are.

Rectangles are percentages of the picture. Spans count characters, or UTF-16 units as the browser does. Predictions in
the file are no labels and are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, Left, Reason, counted, dropped_table, frame, held, warning
from tunesmith.data.sources.boxes import Pictures, as_number
from tunesmith.data.sources.place import Place, inside
from tunesmith.data.sources.quotes import located

SPANS = pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64, "label": pl.String}))
VOTES = pl.List(pl.Struct({"annotator": pl.String, "label": pl.String}))
TYPES = ("rectanglelabels", "labels", "choices")
Annotation = tuple[str, str, dict[str, Any], list[dict[str, Any]]]  # source, annotator, the task's data, results


def recognise(place: Place) -> str | None:
    """Why this is a Label Studio export: a JSON list of tasks with `data` and `annotations`; None otherwise."""
    good = any(isinstance(t.get("data"), dict) and isinstance(t.get("annotations"), list) for t in place.first_objects)
    return f"{place.name} is a list of tasks with `data` and `annotations`" if place.shape == "list" and good else None


def read(place: Place, why: str) -> Items:
    """Rectangles as detection rows, spans as `text` and `spans`, choices as `text`, `label` and `annotations`.

    Rectangles and spans: a row for each annotation, `annotator` says whose. Choices: a row for each task; `label` is
    what most annotators chose (null for a tie), `annotations` what each of them did.

    Raises:
        DataError: the JSON is damaged, no result is of these types, or no item is left.
    """
    left: list[Left] = []
    annotations = list(_annotations(place, left))
    counts = Counter(kind for *_, results in annotations for result in results if (kind := _type(result)) in TYPES)
    if not counts:
        found = ", ".join(sorted({str(_type(result)) for *_, results in annotations for result in results})) or "none"
        raise DataError(Issue(str(place.path), f"must hold results of the types {', '.join(TYPES)}", found, "Export another project."))
    main = max(TYPES, key=lambda kind: counts[kind])
    annotations = [(s, who, data, list(_of_type(s, results, main, left))) for s, who, data, results in annotations]
    readers: dict[str, Callable[..., Items]] = {"rectanglelabels": _rectangles, "labels": _spans, "choices": _choices}
    return readers[main](place, why, annotations, left)


def _annotations(place: Place, left: list[Left]) -> Iterator[Annotation]:
    """Each annotation that was not skipped, even with an empty result; tasks without one go to `left`."""
    for where, task in place.objects(left):
        source = f"{where} task {task['id']}" if isinstance(task.get("id"), (int, str)) else where
        data, annotations = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(annotations, list):
            left.append((source, Reason.MALFORMED, "a task needs data and annotations"))
            continue
        if not annotations:
            left.append((source, Reason.NOT_ANNOTATED, ""))
        for number, annotation in enumerate(annotations, start=1):
            name = f"{source} annotation {number}"
            results = annotation.get("result") if isinstance(annotation, dict) else None
            if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
                left.append((name, Reason.MALFORMED, "an annotation needs a list of results"))
            elif annotation.get("was_cancelled") is True:
                left.append((name, Reason.CANCELLED, ""))
            else:
                yield name, _annotator(annotation.get("completed_by")), data, results


def _annotator(value: object) -> str:
    """The number of the annotator as text; names and addresses are not carried along."""
    found = value.get("id") if isinstance(value, dict) else value
    return str(found) if isinstance(found, (int, str)) else "unknown"


def _type(result: dict[str, Any]) -> object:
    return result.get("type")


def _of_type(source: str, results: list[dict[str, Any]], main: str, left: list[Left]) -> Iterator[dict[str, Any]]:
    for result in results:
        value = result.get("value")
        if result.get("type") != main:
            left.append((source, Reason.UNSUPPORTED, f"a result of the type {result.get('type')}; the file is read for {main}"))
        elif not isinstance(value, dict) or not _labels(value, main):
            left.append((source, Reason.MALFORMED, f"a result without {main}"))
        else:
            yield result


def _labels(value: dict[str, Any], main: str) -> list[str]:
    labels = value.get(main)
    return [label for label in labels if isinstance(label, str) and label.strip()] if isinstance(labels, list) else []


def _rectangles(place: Place, why: str, annotations: list[Annotation], left: list[Left]) -> Items:
    pictures = Pictures(place.folder, {"annotator": pl.String}, left=left)
    for source, who, data, results in annotations:
        size = next(((r.get("original_width"), r.get("original_height")) for r in results), (None, None))
        row = pictures.picture(source, _image(data, place.folder), size, len(results))
        for result in results:
            if row is not None:
                row["annotator"] = who
                _rectangle(source, result["value"], row, pictures)
        if row is not None:
            row["annotator"] = who
    return pictures.items("label-studio", why, place, [*place.encoding[1], *_several(place, annotations)])


def _rectangle(source: str, value: dict[str, Any], row: dict[str, Any], pictures: Pictures) -> None:
    label = _labels(value, "rectanglelabels")[0]
    if value.get("rotation") not in (None, 0, 0.0):
        pictures.left.append((source, Reason.BOX_ROTATED, f"{label} by {value['rotation']} degrees"))
    else:
        sides = {"x": row["width"], "y": row["height"], "width": row["width"], "height": row["height"]}
        pictures.box(source, row, label, [as_number(value.get(name)) / 100 * side for name, side in sides.items()])


def _image(data: dict[str, Any], root: Path) -> object:
    """The image of a task as a path to look for: of an upload or a local file the part after Label Studio's own prefix."""
    name = data.get("image", data.get("img"))
    if not isinstance(name, str) or not name.startswith("/data/"):
        return name
    parts = urlsplit(name)
    path = parse_qs(parts.query).get("d", [parts.path.removeprefix("/data/upload/").removeprefix("/data/")])[0]
    base = path.rpartition("/")[2]
    tried = (path, base, f"images/{base}")
    return next((candidate for candidate in tried if not isinstance(inside(root, candidate), Reason)), path)


def _spans(place: Place, why: str, annotations: list[Annotation], left: list[Left]) -> Items:
    rows = []
    counts: Counter[str] = Counter()
    for source, who, data, results in annotations:
        text = _text(source, data, left)
        if text is not None:
            spans = [span for result in results for span in _spans_of(source, text, result["value"], (left, counts))]
            rows.append({"source": source, "text": text, "spans": spans, "annotator": who})
    schema = {"source": pl.String, "text": pl.String, "spans": SPANS, "annotator": pl.String}
    table = held(str(place.path), frame(rows, schema), left)
    issues = [
        *place.encoding[1],
        *_several(place, annotations),
        *counted(place.name, counts["moved"], "spans should hold their text", "stood elsewhere, exactly once, and were moved"),
        *counted(place.name, counts["utf16"], "spans should count characters", "were counted in UTF-16 units and were converted"),
    ]
    return Items("text-spans", "label-studio", why, None, table, dropped_table(left), tuple(issues))


def _spans_of(source: str, text: str, value: dict[str, Any], state: tuple[list[Left], Counter[str]]) -> list[dict[str, Any]]:
    left, counts = state
    start, end, quote = value.get("start"), value.get("end"), value.get("text")
    if isinstance(quote, str):
        found = located(text, quote, start)
        span = (found[0], found[0] + len(quote)) if found else None
        counts[found[1] if found else "lost"] += 1
    elif isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text):
        span = (start, end)
    else:
        span = None
    if span is None:
        left.append((source, Reason.TEXT_NOT_THERE, f"{str(quote)[:60]!r} at {start} to {end}"))
        return []
    return [{"start": span[0], "end": span[1], "label": label} for label in _labels(value, "labels")]


def _choices(place: Place, why: str, annotations: list[Annotation], left: list[Left]) -> Items:
    controls = Counter(str(result.get("from_name")) for *_, results in annotations for result in results)
    control = max(controls, key=lambda name: controls[name], default="")
    tasks: dict[str, dict[str, Any]] = {}
    for source, who, data, results in annotations:
        mine = [result for result in results if str(result.get("from_name")) == control]
        other = len(results) - len(mine)
        left += [(source, Reason.UNSUPPORTED, f"an answer to another question than {control!r}")] * other
        chosen = list(dict.fromkeys(label for result in mine for label in _labels(result["value"], "choices")))
        task = source.rpartition(" annotation ")[0]
        if not chosen:
            left.append((source, Reason.NOT_ANNOTATED, ""))
        elif task in tasks or (text := _text(task, data, left)) is not None:
            row = tasks.setdefault(task, {"source": task, "text": text, "ballots": []})
            row["ballots"].append((who, chosen))
    multiple = any(len(chosen) > 1 for row in tasks.values() for _, chosen in row["ballots"])
    rows = [_voted(row, multiple) for row in tasks.values()]
    schema = {"source": pl.String, "text": pl.String, "label": pl.List(pl.String) if multiple else pl.String, "annotations": VOTES}
    ties = 0 if multiple else sum(row["label"] is None for row in rows)
    issues = [*place.encoding[1], *counted(place.name, ties, "most annotators should agree", "tasks are a tie; they have no label")]
    table = held(str(place.path), frame(rows, schema), left)
    return Items("table", "label-studio", why, None, table, dropped_table(left), tuple(issues))


def _voted(row: dict[str, Any], multiple: bool) -> dict[str, Any]:
    """The row with its label: the one that most chose, or, with several choices a person, all that more than half chose."""
    ballots = row["ballots"]
    votes = Counter(label for _, chosen in ballots for label in chosen).most_common()
    if multiple:
        label: object = [name for name, count in votes if 2 * count > len(ballots)]
    else:
        label = votes[0][0] if len(votes) == 1 or votes[0][1] > votes[1][1] else None
    given = [{"annotator": who, "label": name} for who, chosen in ballots for name in chosen]
    return {"source": row["source"], "text": row["text"], "label": label, "annotations": given}


def _text(source: str, data: dict[str, Any], left: list[Left]) -> str | None:
    """The text of a task: `text`, or the only value that is text."""
    texts = [data["text"]] if isinstance(data.get("text"), str) else [value for value in data.values() if isinstance(value, str)]
    if len(texts) == 1 and texts[0].strip():
        return texts[0]
    left.append((source, Reason.MALFORMED, "the data of the task need one text, called `text`"))
    return None


def _several(place: Place, annotations: list[Annotation]) -> list[Issue]:
    tasks = Counter(source.rpartition(" annotation ")[0] for source, *_ in annotations)
    count = sum(number > 1 for number in tasks.values())
    if not count:
        return []
    remedy = "Choose by the column `annotator`, or compare the annotators first."
    return [warning(place.name, "a task should have one annotation", f"{count:,} tasks have several, a row for each", remedy)]
