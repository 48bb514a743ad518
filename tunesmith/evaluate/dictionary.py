"""What a tagger of spans has to beat: the spans of the training rows, found again word by word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunesmith.data.marked import TOKENS, token_places

WORD = re.compile(r"\w+|[^\w\s]")
Place = tuple[int, int]


@dataclass(frozen=True)
class Dictionary:
    """The type that each sequence of words has most often in training rows, and its share there."""

    entries: Mapping[tuple[str, ...], tuple[str, float]]
    longest: int


def learned(train: pl.DataFrame) -> Dictionary:
    """The spans of the training rows. A sequence of words stands in it when it is a span in at least half of its places."""
    types: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    rows = list(_rows(train))
    for text, places, spans in rows:
        for span in spans:
            words = tuple(text[a:b] for a, b in places if a < span["end"] and b > span["start"])
            types[words][span["label"]] += 1
    longest = max(map(len, types), default=0)
    seen: Counter[tuple[str, ...]] = Counter()
    for text, places, _ in rows:
        row = [text[a:b] for a, b in places]
        seen.update(key for start in range(len(row)) for key in _keys(row, start, longest) if key in types)
    entries = {}
    for key, counts in types.items():
        name, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if key and 2 * counts.total() >= seen[key]:
            entries[key] = name, count / max(seen[key], counts.total())
    return Dictionary(entries, longest)


def found(dictionary: Dictionary, rows: pl.DataFrame) -> pl.DataFrame:
    """Predictions by the longest match from the left: id, label, predicted and margin, as the model's own."""
    predicted = []
    for text, places, _ in _rows(rows):
        words, spans, start = [text[a:b] for a, b in places], [], 0
        while start < len(words):
            key = next((key for key in _keys(words, start, dictionary.longest) if key in dictionary.entries), None)
            if key:
                name, share = dictionary.entries[key]
                a, b = places[start][0], places[start + len(key) - 1][1]
                spans.append({"start": a, "end": b, "label": name, "text": text[a:b], "probability": share})
            start += len(key) if key else 1
        predicted.append(spans)
    kinds = {"start": pl.Int64, "end": pl.Int64, "label": pl.String, "text": pl.String, "probability": pl.Float32}
    made = pl.Series("predicted", predicted, pl.List(pl.Struct(kinds)))
    return rows.select("id", "label").with_columns(made, margin=pl.lit(1.0, pl.Float32))


def _keys(words: list[str], start: int, longest: int) -> Iterator[tuple[str, ...]]:
    """The sequences of words that begin here, the longest first."""
    for end in range(min(len(words), start + longest), start, -1):
        yield tuple(words[start:end])


def _rows(rows: pl.DataFrame) -> Iterator[tuple[str, list[Place], list[dict[str, Any]]]]:
    tokens = rows[TOKENS].to_list() if TOKENS in rows.columns else [None] * len(rows)
    for text, given, spans in zip(rows["text"].to_list(), tokens, rows["label"].to_list(), strict=True):
        places = [match.span() for match in WORD.finditer(text)] if given is None else token_places(given)
        yield text, places, spans
