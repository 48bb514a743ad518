"""Token classification: spans of a text and their types, from a tag for each word.

Shape suffixes: B = windows of a batch, T = tokens, C = tags, W = words of a window.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.data.marked import TOKENS, token_places
from tunesmith.data.tags import OUTSIDE, runs_of, tags_of
from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.texts import collate_texts
from tunesmith.tasks.windows import WINDOW

IGNORED = -100
OVERLAP = 4
"""A quarter of a window is shared with the next one, so that every word is read with words on both sides."""
ROWS_AT_ONCE = 256
SPAN_METRICS = ("span_f1", "span_precision", "span_recall", "macro_span_f1", "overlap_f1")
PREDICTED = pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64, "label": pl.String, "text": pl.String, "probability": pl.Float32}))
Word = tuple[int, int]
"""Start and end of a word in its text, in characters."""


@dataclass(frozen=True, eq=False)
class Words:
    """The words of the text of row `row` that a window answers: the token `at_W` that begins each, and the word's number in the text."""

    row: int
    at_W: list[int]
    number_W: list[int]
    places: list[Word]
    text: str


class TokenClassification(Task):
    """The task of spans with types. The tags are O, and B- and I- of each type; the first token of a word carries its tag.

    Args:
        types: names of the types of spans.
    """

    name = "token-classification"

    def __init__(self, types: Sequence[str]) -> None:
        self.labels = tuple(types)
        self.tags = (OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in ("B", "I")))

    @property
    def kind(self) -> Kind:
        return "spans"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        tokens: list[Any] = rows[TOKENS].to_list() if TOKENS in rows.columns else [None] * len(rows)
        labels = rows["label"].to_list() if "label" in rows.columns else None
        encoded: list[Encoded] = []
        for begin in range(0, len(rows), ROWS_AT_ONCE):  # offsets of many long texts at once take much memory
            texts = rows["text"][begin : begin + ROWS_AT_ONCE].to_list()
            for number, windows in enumerate(_windows(texts, processor, max_length), begin):
                text = texts[number - begin]
                encoded += _answering(windows, number, text, None if tokens[number] is None else token_places(tokens[number]))
        if labels is not None:
            ids = {tag: place for place, tag in enumerate(self.tags)}
            for number, of_one in groupby(encoded, key=lambda row: row[WINDOW].row):
                together = list(of_one)
                tags = word_tags(together[0][WINDOW].places, labels[number])
                for row in together:
                    row["labels"] = _targets(row, tags, ids)
        return Encoding(encoded, [len(row["input_ids"]) for row in encoded], 0)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        if "labels" in rows[0]:
            labels_BT = torch.full(batch["input_ids"].shape, IGNORED)
            for number, row in enumerate(rows):
                labels_BT[number, : len(row["labels"])] = torch.tensor(row["labels"])
            batch["labels"] = labels_BT
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModelForTokenClassification  # seconds to import: only when a model is needed

        return AutoModelForTokenClassification

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {
            "num_labels": len(self.tags),
            "id2label": dict(enumerate(self.tags)),
            "label2id": {tag: number for number, tag in enumerate(self.tags)},
        }

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_BTC, labels_BT = outputs.logits.float(), batch["labels"]
        total = F.cross_entropy(logits_BTC.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, (labels_BT != IGNORED).sum()

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """For each window (T, 3): the best tag of each token, its probability, and its lead over the second best."""
        best_BT3 = best_tags(model(**batch).logits)
        return [best_BT3[row, :length].numpy() for row, length in enumerate(batch["attention_mask"].sum(1).tolist())]

    def scores(self, answers: Any, encoding: Encoding) -> list[list[dict[str, Any]]]:
        """The predicted spans of each row, with text and probability: the mean of the probabilities of its words' tags."""
        return [row[0] for row in self._rows(answers, encoding)]

    def decode(self, answers: Any, encoding: Encoding) -> pl.DataFrame:
        """Also `margin`: the smallest lead of a word's tag over the second best; 1 where there is no word."""
        rows = list(self._rows(answers, encoding))
        spans, margins = [row[0] for row in rows], [row[1] for row in rows]
        return pl.DataFrame({"predicted": pl.Series(spans, dtype=PREDICTED), "margin": pl.Series(margins, dtype=pl.Float32)})

    def _rows(self, answers: Sequence[np.ndarray], encoding: Encoding) -> Iterator[tuple[list[dict[str, Any]], float]]:
        """Spans and margin of each row of the table, from its windows."""
        place, count = 0, len(encoding.rows)
        while place < count:
            words: Words = encoding.rows[place][WINDOW]
            said: dict[int, np.ndarray] = {}
            while place < count and encoding.rows[place][WINDOW].row == words.row:
                here: Words = encoding.rows[place][WINDOW]
                said |= dict(zip(here.number_W, answers[place][here.at_W], strict=True))
                place += 1
            tags = [self.tags[int(said[number][0])] if number in said else OUTSIDE for number in range(len(words.places))]
            found = []
            for first, end, name in runs_of(tags)[0]:
                chars = slice(words.places[first][0], words.places[end - 1][1])
                sure = float(np.mean([said[number][1] for number in range(first, end)]))
                found.append({"start": chars.start, "end": chars.stop, "label": name, "text": words.text[chars], "probability": sure})
            yield found, min((float(one[2]) for one in said.values()), default=1.0)

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        targets = np.empty(len(rows), object)
        targets[:] = rows["label"].to_list()
        return targets

    def widened_spans(self, rows: pl.DataFrame, encoding: Encoding) -> int:
        """How many labelled spans do not begin and end with words, so that the tags of the words say others."""
        places = {row[WINDOW].row: row[WINDOW].places for row in encoding.rows}
        return sum(len(_parted(places.get(number, []), spans)) for number, spans in enumerate(rows["label"].to_list()))

    @property
    def metrics(self) -> tuple[str, ...]:
        return SPAN_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        texts = ["Ada Lovelace wrote to London", "the parcel never came", "Bonn answered Ada", "where is Grace Hopper"]
        spans = [[(0, 12, "person"), (22, 28, "place")], [], [(0, 4, "place"), (14, 17, "person")], [(9, 21, "person")]]
        label = [[dict(zip(("start", "end", "label"), span, strict=True)) for span in row] for row in spans]
        return pl.DataFrame({"text": texts, "label": label})


def _targets(row: Encoded, tags: Sequence[str], ids: Mapping[str, int]) -> list[int]:
    """The tag's id at the first token of each word that the window answers; IGNORED elsewhere."""
    targets = [IGNORED] * len(row["input_ids"])
    for token, number in zip(row[WINDOW].at_W, row[WINDOW].number_W, strict=True):
        targets[token] = ids.get(tags[number], 0)
    return targets


def best_tags(logits_BTC: Tensor) -> Tensor:
    """(B, T, 3): the best tag of each token, its probability, and its lead over the second best."""
    top = torch.softmax(logits_BTC.double(), -1).topk(2)
    return torch.stack([top.indices[..., 0].double(), top.values[..., 0], top.values[..., 0] - top.values[..., 1]], -1).float().cpu()


def word_tags(places: Sequence[Word], spans: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tag of each word: a word belongs to the first span that has a character of it."""
    runs, word = [], 0
    for span in spans:
        while word < len(places) and places[word][1] <= span["start"]:
            word += 1
        first = word
        while word < len(places) and places[word][0] < span["end"]:
            word += 1
        if word > first:
            runs.append((first, word, span["label"]))
    return tags_of(runs, len(places))


def _parted(places: Sequence[Word], spans: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The spans that the tags of words do not say as they are."""
    said = {(places[first][0], places[end - 1][1], name) for first, end, name in runs_of(word_tags(places, spans))[0]}
    return [span for span in spans if (span["start"], span["end"], span["label"]) not in said]


def _windows(texts: Sequence[str], processor: Processor, max_length: int) -> list[list[Encoded]]:
    """The windows of each text as token ids, with `places` of tokens in characters and the tokenizer's word of each."""
    overlap = max_length // OVERLAP if max_length > 2 * processor.num_special_tokens_to_add() + OVERLAP else 0
    tokens = processor(
        list(texts), truncation=True, max_length=max_length, stride=overlap, return_overflowing_tokens=True, return_offsets_mapping=True,
        verbose=False,
    )  # fmt: skip
    kinds = [name for name in ("input_ids", "token_type_ids") if name in tokens]
    out: list[list[Encoded]] = [[] for _ in texts]
    for window, row in enumerate(tokens["overflow_to_sample_mapping"]):
        encoded = {name: tokens[name][window] for name in kinds}
        out[row].append({**encoded, "places": tokens["offset_mapping"][window], "words": tokens.word_ids(window)})
    for windows in out:
        for encoded in windows:
            encoded["pad"] = processor.pad_token_id
    return out


def _answering(windows: list[Encoded], row: int, text: str, given: list[Word] | None) -> list[Encoded]:
    """The windows of a text, each with the words that it answers: every word in the window where most tokens stand round its first."""
    places = _words(windows, text) if given is None else given
    best: dict[int, tuple[float, int, int]] = {}
    for window, encoded in enumerate(windows):
        inside = next((token for token, word in enumerate(encoded["words"]) if word is not None), 0)
        for token, word in _begun(encoded, places, text):
            left = float("inf") if window == 0 else token - inside
            right = float("inf") if window == len(windows) - 1 else len(encoded["words"]) - token
            context = (min(left, right), -window, -token)
            if word not in best or context > best[word]:
                best[word] = context
    chosen: list[list[tuple[int, int]]] = [[] for _ in windows]
    for word, (_, window, token) in sorted(best.items()):
        chosen[-window].append((-token, word))
    out = []
    for encoded, words in zip(windows, chosen, strict=True):
        kept = {name: value for name, value in encoded.items() if name not in ("places", "words")}
        out.append({**kept, WINDOW: Words(row, [t for t, _ in words], [w for _, w in words], places, text)})
    return out


def _begun(encoded: Encoded, places: Sequence[Word], text: str) -> Iterator[tuple[int, int]]:
    """(token, word) for the first token of a window in each word."""
    word, last = -1, -1
    for token, place in _seen(encoded, text):
        if word < 0:  # a window may begin far into its text
            word = bisect_right(places, place[0], key=lambda known: known[1])
        while word < len(places) and places[word][1] <= place[0]:
            word += 1
        if word == len(places):
            return
        if word != last and place[1] > places[word][0]:
            last = word
            yield token, word


def _words(windows: Sequence[Encoded], text: str) -> list[Word]:
    """The words of a text: what the tokenizer takes for words, cut at punctuation, and at each token of scripts without spaces."""
    words: list[Word] = []
    before = None
    for encoded in windows:
        for token, (start, end) in _seen(encoded, text):
            if words and end <= words[-1][1]:  # known from the window before, or a further token of one character
                continue
            joined = words and start <= words[-1][1] and encoded["words"][token] == before
            if joined and not (_apart(text[start]) or _apart(text[start - 1])):
                words[-1] = (words[-1][0], end)
            else:
                words.append((max(start, words[-1][1]) if words else start, end))
            before = encoded["words"][token]
    return words


def _seen(encoded: Encoded, text: str) -> Iterator[tuple[int, Word]]:
    """Tokens that stand for characters, with their places less the space before."""
    for token, ((start, end), word) in enumerate(zip(encoded["places"], encoded["words"], strict=True)):
        if word is None:
            continue
        while start < end and text[start].isspace():
            start += 1
        if start < end:
            yield token, (start, end)


def _apart(character: str) -> bool:
    """True for punctuation and ASCII symbols, and for scripts that are written without spaces: each such token is a word."""
    code = ord(character)
    if code < 128:
        return not character.isalnum() and not character.isspace()
    spaceless = 0x0E00 <= code <= 0x0EFF or 0x1000 <= code <= 0x109F or 0x1780 <= code <= 0x17FF or 0x3040 <= code <= 0x30FF
    han = 0x3400 <= code <= 0x4DBF or 0x4E00 <= code <= 0x9FFF or 0x20000 <= code <= 0x323AF or 0xF900 <= code <= 0xFAFF
    return spaceless or han or unicodedata.category(character).startswith("P")
