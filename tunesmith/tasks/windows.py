"""Questions with windows over their texts, and the best spans of them.

Shape suffixes: T = tokens of a window, D = lengths of a span, K = spans.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunesmith.tasks.base import Encoded, Encoding, Processor
from tunesmith.tasks.texts import LONGEST_TOKEN

WINDOW = "window"
"""The key of a window's place in an encoded row."""
ROWS_AT_ONCE = 256
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Window:
    """A window over the text of row `row`: token `first` is the first of the text, `spans_T2` their places in characters.

    `nothing` is the token whose start and end say that there is no answer.
    """

    row: int
    first: int
    spans_T2: Array
    nothing: int
    text: str


@dataclass(frozen=True)
class Span:
    """A span of a text: its characters, the sum of its logits, and which window said it."""

    score: float
    start: int
    end: int


def encode_windows(rows: pl.DataFrame, processor: Processor, max_length: int, stride: int) -> Encoding:
    """Windows of at most `max_length` tokens, those of a row one after the other; at least one a row. Without targets.

    Questions longer than half a window are cut, and counted. `stride` tokens are shared by two windows, at most a quarter.
    """
    room = max_length // 2
    questions, cut = _short(rows["text"].to_list(), processor, room)
    encoded: list[Encoded] = []
    texts = rows["text_pair"].to_list()
    for begin in range(0, len(texts), ROWS_AT_ONCE):  # offsets of many long texts at once take much memory
        part = slice(begin, begin + ROWS_AT_ONCE)
        encoded += _encoded(questions[part], texts[part], begin, (processor, max_length, min(stride, max_length // 4)))
    return Encoding(encoded, [len(row["input_ids"]) for row in encoded], cut)


def with_targets(encoding: Encoding, label: pl.Series) -> Encoding:
    """The windows with `labels`: the first and last token of the row's first answer, or twice the token that says there is none."""
    first = [answers[0] if answers else None for answers in label.to_list()]
    return Encoding(
        [{**row, "labels": _target(row[WINDOW], first[row[WINDOW].row])} for row in encoding.rows], encoding.lengths, encoding.cut
    )


def best_spans(scores_2T: Array, window: Window, longest: int, count: int) -> list[Span]:
    """The `count` spans of a window's text of highest sum of start and end logits, at most `longest` tokens each, the best first."""
    begin, size = window.first, len(window.spans_T2)
    starts_T, ends_T = (row.astype(np.float64)[begin : begin + size] for row in scores_2T)
    visible_T = window.spans_T2[:, 1] > window.spans_T2[:, 0]
    starts_T, ends_T = np.where(visible_T, starts_T, -np.inf), np.where(visible_T, ends_T, -np.inf)
    lengths = min(longest, size)
    padded_T = np.concatenate([ends_T, np.full(lengths, -np.inf)])
    sums_TD = starts_T[:, None] + np.lib.stride_tricks.sliding_window_view(padded_T, lengths)[:size]
    flat = sums_TD.ravel()
    chosen_K = np.argpartition(-flat, min(count, len(flat) - 1))[:count]
    chosen_K = chosen_K[np.lexsort((chosen_K, -flat[chosen_K]))]
    found = [(float(flat[k]), *divmod(int(k), lengths)) for k in chosen_K if flat[k] > -np.inf]
    return [Span(score, int(window.spans_T2[t, 0]), int(window.spans_T2[t + d, 1])) for score, t, d in found]


def best_of_row(spans: Iterable[Span], count: int) -> list[Span]:
    """The best spans of all windows of a row, each once; equal scores in the order of the text."""
    best: dict[tuple[int, int], float] = {}
    for span in spans:
        place = (span.start, span.end)
        best[place] = max(span.score, best.get(place, -np.inf))
    ranked = heapq.nsmallest(count, ((-score, start, end) for (start, end), score in best.items()))
    return [Span(-score, start, end) for score, start, end in ranked]


def _short(questions: Sequence[str], processor: Processor, room: int) -> tuple[list[str], int]:
    """The questions, cut where they have more than `room` tokens, and how many were."""
    limit = room * LONGEST_TOKEN
    tokens = processor([text[:limit] for text in questions], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    out = [text if len(places) <= room and len(text) <= limit else text[: places[: room][-1][1]] if places else text[:limit]
           for text, places in zip(questions, tokens["offset_mapping"], strict=True)]  # fmt: skip
    return out, sum(short != text for short, text in zip(out, questions, strict=True))


def _encoded(questions: Sequence[str], texts: Sequence[str], begin: int, how: tuple[Processor, int, int]) -> list[Encoded]:
    processor, max_length, stride = how
    tokens = processor(
        list(questions), list(texts), truncation="only_second", max_length=max_length, stride=stride, return_overflowing_tokens=True,
        return_offsets_mapping=True, verbose=False,
    )  # fmt: skip
    kinds = [name for name in ("input_ids", "token_type_ids") if name in tokens]
    out: list[Encoded] = []
    for number, owner in enumerate(tokens["overflow_to_sample_mapping"]):
        of_text = [place for place, part in enumerate(tokens.sequence_ids(number)) if part == 1]
        first, last = (of_text[0], of_text[-1] + 1) if of_text else (0, 0)
        ids = tokens["input_ids"][number]
        nothing = ids.index(processor.cls_token_id) if processor.cls_token_id in ids else 0
        spans = np.array(tokens["offset_mapping"][number][first:last], np.int32).reshape(-1, 2)
        row = {name: tokens[name][number] for name in kinds}
        out.append({**row, "pad": processor.pad_token_id, WINDOW: Window(begin + owner, first, spans, nothing, texts[owner])})
    return out


def _target(window: Window, answer: dict[str, Any] | None) -> tuple[int, int]:
    none = (window.nothing, window.nothing)
    if answer is None or not len(window.spans_T2):
        return none
    start, end = answer["start"], answer["start"] + len(answer["text"])
    seen_T = np.flatnonzero(window.spans_T2[:, 1] > window.spans_T2[:, 0])
    if not len(seen_T) or start < window.spans_T2[seen_T[0], 0] or end > window.spans_T2[seen_T[-1], 1]:
        return none
    inside = seen_T[(window.spans_T2[seen_T, 1] > start) & (window.spans_T2[seen_T, 0] < end)]
    return (window.first + int(inside[0]), window.first + int(inside[-1])) if len(inside) else none
