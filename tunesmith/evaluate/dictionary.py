"""What a tagger of spans has to beat: the spans of the training rows, found again word by word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunesmith.data.marked import TOKENS, token_places

WORD = re.compile(r"\w+|[^\w\s]")
Place = tuple[int, int]
Key = tuple[str, ...]
Lengths = Mapping[str, tuple[int, ...]]
"""The numbers of words of the sequences that begin with a word, the largest first."""


@dataclass(frozen=True)
class Dictionary:
    """The type that each sequence of words has most often in training rows, and its share there."""

    entries: Mapping[Key, tuple[str, float]]
    lengths: Lengths


def learned(train: pl.DataFrame) -> Dictionary:
    """The spans of the training rows. A sequence of words stands in it when it is a span in at least half of its places."""
    types: defaultdict[Key, Counter[str]] = defaultdict(Counter)
    rows = list(_rows(train))
    for text, places, spans in rows:
        for span in spans:
            words = tuple(text[a:b] for a, b in places if a < span["end"] and b > span["start"])
            types[words][span["label"]] += 1
    lengths, seen = _lengths(types), Counter[Key]()
    for text, places, _ in rows:
        row = [text[a:b] for a, b in places]
        seen.update(key for start in range(len(row)) for key in _keys(row, start, lengths) if key in types)
    entries = {}
    for key, counts in types.items():
        name, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if key and 2 * counts.total() >= seen[key]:
            entries[key] = name, count / max(seen[key], counts.total())
    return Dictionary(entries, _lengths(entries))


def found(dictionary: Dictionary, rows: pl.DataFrame) -> pl.DataFrame:
    """Predictions by the longest match from the left: id, label, predicted and margin, as the model's own."""
    predicted = []
    for text, places, _ in _rows(rows):
        words, spans, start = [text[a:b] for a, b in places], [], 0
        while start < len(words):
            key = next((key for key in _keys(words, start, dictionary.lengths) if key in dictionary.entries), None)
            if key:
                name, share = dictionary.entries[key]
                a, b = places[start][0], places[start + len(key) - 1][1]
                spans.append({"start": a, "end": b, "label": name, "text": text[a:b], "probability": share})
            start += len(key) if key else 1
        predicted.append(spans)
    kinds = {"start": pl.Int64, "end": pl.Int64, "label": pl.String, "text": pl.String, "probability": pl.Float32}
    made = pl.Series("predicted", predicted, pl.List(pl.Struct(kinds)))
    return rows.select("id", "label").with_columns(made, margin=pl.lit(1.0, pl.Float32))


def _lengths(keys: Iterable[Key]) -> Lengths:
    found: defaultdict[str, set[int]] = defaultdict(set)
    for key in keys:
        if key:
            found[key[0]].add(len(key))
    return {word: tuple(sorted(lengths, reverse=True)) for word, lengths in found.items()}


def _keys(words: list[str], start: int, lengths: Lengths) -> Iterator[Key]:
    """The sequences of words that begin here and are as long as one that does in the dictionary, the longest first."""
    for length in lengths.get(words[start], ()):
        if start + length <= len(words):
            yield tuple(words[start : start + length])


def _rows(rows: pl.DataFrame) -> Iterator[tuple[str, list[Place], list[dict[str, Any]]]]:
    tokens = rows[TOKENS].to_list() if TOKENS in rows.columns else [None] * len(rows)
    for text, given, spans in zip(rows["text"].to_list(), tokens, rows["label"].to_list(), strict=True):
        places = [match.span() for match in WORD.finditer(text)] if given is None else token_places(given)
        yield text, places, spans
