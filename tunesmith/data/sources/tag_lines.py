"""Tagged tokens and marked spans as JSON lines: `tokens` with a list of `tags`, or a `text` with a list of `spans`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from tunesmith.data.sources.base import Items, Left, Reason, counted, dropped_table, frame, held
from tunesmith.data.sources.conll import SCHEMA, breaks
from tunesmith.data.sources.place import Place
from tunesmith.data.sources.quotes import located

TAGS = ("tags", "ner_tags", "pos_tags", "labels")
SPANS = ("spans", "entities")
LABELS = ("label", "slot", "type", "tag", "entity", "category")
SHARE = 0.8
SPAN = pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64, "label": pl.String}))


def recognise(place: Place) -> str | None:
    """Why these are tagged tokens or marked spans: the first objects hold lists of both, of the same length; None otherwise."""
    records = place.first_objects if place.shape in ("lines", "list") else []
    if _most([_tags(record) is not None for record in records]):
        return f"the objects of {place.name} have `tokens` and a list of tags of the same length"
    marked = [_spans(record) for record in records]
    if any(marked) and _most([spans is not None for spans in marked]):
        return f"the objects of {place.name} have a `text` and a list of spans with start, end and label"
    return None


def read(place: Place, why: str) -> Items:
    """A row per sentence with `tokens` and `tags` (numbers as text), or per text with `spans`; `start` and `end` count characters.

    A span whose own `text` is not at its place is moved when the text occurs exactly once, and else left out.

    Raises:
        DataError: no item is left.
    """
    left: list[Left] = []
    counts: Counter[str] = Counter()
    tagged = any(_tags(record) is not None for record in place.first_objects)
    rows: list[dict[str, Any]] = []
    for source, record in place.objects(left):
        tags, spans = _tags(record), _spans(record)
        if tagged and tags is not None:
            counts["broken"] += breaks(tags)
            rows.append({"source": source, "tokens": record["tokens"], "tags": tags})
        elif not tagged and spans is not None:
            rows.append({"source": source, "text": record["text"], "spans": _placed(source, record["text"], spans, (left, counts))})
        else:
            left.append((source, Reason.MALFORMED, "not of the shape of the first objects"))
    schema: dict[str, Any] = SCHEMA if tagged else {"source": pl.String, "text": pl.String, "spans": SPAN}
    issues = place.encoding[1] + counted(
        place.name, counts["broken"], "I- tags should continue an entity of their kind", "tags begin one instead; they are kept"
    )
    issues += counted(place.name, counts["moved"], "spans should be where they say", "were moved to where their text is")
    table = held(str(place.path), frame(rows, schema), left)
    kind = "token-classification" if tagged else "text-spans"
    return Items(kind, "tag-lines", why, None, table, dropped_table(left), tuple(issues))  # type: ignore[arg-type]


def _most(fits: list[bool]) -> bool:
    return sum(fits) >= SHARE * len(fits) > 0


def _tags(record: dict[str, Any]) -> list[str] | None:
    """The tags of an object as text; None where it is of another shape."""
    tokens, tags = record.get("tokens"), next((record[name] for name in TAGS if name in record), None)
    if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags):
        return None
    good = all(isinstance(token, str) for token in tokens) and all(type(tag) in (str, int) for tag in tags)
    return [str(tag) for tag in tags] if good else None


def _spans(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The spans of an object; None where it is of another shape."""
    spans = next((record[name] for name in SPANS if name in record), None)
    if not isinstance(record.get("text"), str) or not isinstance(spans, list):
        return None
    return spans if all(isinstance(span, dict) and {"start", "end"} <= span.keys() and _label(span) for span in spans) else None


def _label(span: dict[str, Any]) -> str | None:
    return next((span[name] for name in LABELS if isinstance(span.get(name), str) and span[name].strip()), None)


def _placed(source: str, text: str, spans: list[dict[str, Any]], state: tuple[list[Left], Counter[str]]) -> list[dict[str, Any]]:
    left, counts = state
    out = []
    for span in spans:
        start, end, said = span["start"], span["end"], span.get("text")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            left.append((source, Reason.MALFORMED, f"a span from {start} to {end} of {len(text)} characters"))
            continue
        if isinstance(said, str) and said and text[start:end] != said:
            found = located(text, said, start)
            if found is None:
                left.append((source, Reason.TEXT_NOT_THERE, said[:100]))
                continue
            counts["moved"] += 1
            start, end = found[0], found[0] + len(said)
        out.append({"start": start, "end": end, "label": _label(span)})
    return out
