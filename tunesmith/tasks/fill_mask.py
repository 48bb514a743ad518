"""Fill-mask: the tokens of a text that are hidden. No labels are needed: a text is its own.

Shape suffixes: B = windows of a batch, T = tokens, M = masked tokens, K = candidates, N = rows, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.core.seeding import seed_for
from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.masking import IGNORED, Vocabulary, masked, only_at, places_of, vocabulary_of
from tunesmith.tasks.texts import collate_texts
from tunesmith.tasks.windows import WINDOW

MASKED_METRICS = ("masked_loss", "perplexity", "masked_accuracy")
MASKABLE, VOCABULARY, ASKED = "maskable", "vocabulary", "asked"
"""Keys of windows that are learned: which tokens may be masked, and the mask token followed by all tokens that may be drawn. Key of
a batch that is answered: the right token where one is asked for, UNTOLD where nobody knows it, IGNORED elsewhere."""
UNTOLD = -1
CANDIDATES = 5
"""Tokens that are told of a mask, the likeliest first, as transformers' pipeline tells them."""
TOLD = 20
"""Masked tokens that predictions tell of a row, those least expected."""
MOST_PLACES = 1024
"""Masked tokens whose logits are held at a time: each is as wide as the vocabulary."""
ROWS_AT_ONCE = 256
MASKS = pl.List(pl.Struct({"token": pl.String, "said": pl.String, "probability": pl.Float32}))
FILLED = pl.List(pl.List(pl.Struct({"token": pl.String, "probability": pl.Float32, "text": pl.String})))


@dataclass(frozen=True, eq=False)
class Piece:
    """A window over the text of row `row`."""

    row: int
    text: str


@dataclass(frozen=True, eq=False)
class Filled:
    """What is said of the masks of a window: the likeliest tokens with their log-probabilities (M, K), and that of the right token (M,)."""

    ids_MK: np.ndarray
    logs_MK: np.ndarray
    right_M: np.ndarray


class FillMask(Task):
    """The task of hidden tokens. An encoded row is a window over a text; long texts have several, which share nothing.

    Args:
        probability: share of the tokens of a text that are masked.
        seed: with a window's tokens, decides which are masked where answers are compared.
    """

    name = "fill-mask"
    labels: tuple[str, ...] = ()

    def __init__(self, *, probability: float = 0.15, seed: int = 0) -> None:
        self.probability, self.seed = probability, seed

    @property
    def kind(self) -> Kind:
        return "masked"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """Windows with masks that are always the same, where the table has labels; else as they are, asked about the masks they hold."""
        words, special = vocabulary_of(processor), frozenset(processor.all_special_ids)
        windows = _windows(rows["text"].to_list(), processor, max_length)
        for window in windows:
            if "label" in rows.columns:
                self._mask(window, special, words)
            else:
                window[ASKED] = [place for place, token in enumerate(window["input_ids"]) if token == words.mask]
        return _encoding(windows, processor)

    def training(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """Windows in which `train/masking.py` masks tokens anew at every step; those without a token that may be masked are left out."""
        words, special = vocabulary_of(processor), frozenset(processor.all_special_ids)
        drawn_V = np.concatenate([[words.mask], words.plain_V])
        kept: list[Encoded] = []
        for window in _windows(rows["text"].to_list(), processor, max_length):
            maskable = [token not in special for token in window["input_ids"]]
            if any(maskable):
                kept.append({**window, MASKABLE: maskable, VOCABULARY: drawn_V})
        return _encoding(kept, processor)

    def _mask(self, window: Encoded, special: frozenset[int], words: Vocabulary) -> None:
        """Mask a window by the seed and its own tokens, in place."""
        ids_T = np.array(window["input_ids"], np.int64)
        places_M = np.array([place for place, token in enumerate(window["input_ids"]) if token not in special], np.int64)
        draw = np.random.Generator(np.random.PCG64(seed_for(self.seed, f"masks of {' '.join(map(str, window['input_ids']))}")))
        shown_M, learned_M = masked(draw, ids_T[places_M], np.array([len(places_M)]), words, self.probability)
        labels_T = np.full(len(ids_T), IGNORED)
        labels_T[places_M[learned_M]] = ids_T[places_M[learned_M]]
        ids_T[places_M] = shown_M
        window["input_ids"], window["labels"] = ids_T.tolist(), labels_T.tolist()

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        shape = batch["input_ids"].shape
        if MASKABLE in rows[0]:
            maskable_BT = torch.zeros(shape, dtype=torch.bool)
            for number, row in enumerate(rows):
                maskable_BT[number, : len(row[MASKABLE])] = torch.tensor(row[MASKABLE])
            return {**batch, MASKABLE: maskable_BT, VOCABULARY: torch.from_numpy(rows[0][VOCABULARY])}
        asked_BT = torch.full(shape, IGNORED)
        for number, row in enumerate(rows):
            if "labels" in row:
                asked_BT[number, : len(row["labels"])] = torch.tensor(row["labels"])
            else:
                asked_BT[number, row[ASKED]] = UNTOLD
        return {**batch, ASKED: asked_BT, **({"labels": asked_BT} if "labels" in rows[0] else {})}

    @property
    def head(self) -> Any:
        from transformers import AutoModelForMaskedLM  # seconds to import: only when a model is needed

        return AutoModelForMaskedLM

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {}

    @property
    def redrawn(self) -> str:
        return "other tokens of a row are masked at every step, so what the frozen blocks say of it differs"

    def inputs(self, model: Any, batch: Batch) -> Batch:
        return {name: value for name, value in super().inputs(model, batch).items() if name != ASKED}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the tokens that have a label; logits (B, T, V) and labels (B, T) are of all tokens, or of some of them in one row."""
        labels_BT = batch["labels"]
        total = F.cross_entropy(outputs.logits.flatten(0, 1).float(), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, (labels_BT != IGNORED).sum()

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """What is said of the masks of each window."""
        given, asked_BT = self.inputs(model, batch), batch[ASKED]
        at_a_time = max(1, MOST_PLACES // max(int((asked_BT != IGNORED).sum(1).max()), 1))
        out: list[Any] = []
        for start in range(0, len(asked_BT), at_a_time):
            part = slice(start, start + at_a_time)
            out += _filled(model, {name: value[part] for name, value in given.items()}, asked_BT[part])
        return out

    def scores(self, answers: Any, encoding: Encoding) -> np.ndarray:
        """(N, 3): the summed negative log-likelihood of each row's masked tokens in nats, their number, and how many were likeliest."""
        return np.array(
            [
                [float(-right_M.sum()), len(right_M), int((ids_M == said_M).sum())]
                for ids_M, said_M, right_M in self._rows(answers, encoding)
            ]
        ).reshape(-1, 3)

    def decode(self, answers: Any, encoding: Encoding) -> pl.DataFrame:
        """Of windows with masks of ours: loss, tokens and hits of each row, and the tokens least expected. Of others: the texts, filled.

        `margin` is the smallest lead of a likeliest token over the next one, in log-probability; 1e9 where nothing was masked.
        """
        words = encoding.processor
        if not encoding.rows or "labels" not in encoding.rows[0]:
            return _told([fill(windows, said, words) for windows, said in _by_row(encoding, answers)])
        rows = list(self._rows(answers, encoding))
        leads = [min((float((s.logs_MK[:, 0] - s.logs_MK[:, 1]).min()) for s in said if len(s.logs_MK)), default=1e9)
                 for _, said in _by_row(encoding, answers)]  # fmt: skip
        scores_N3 = self.scores(answers, encoding)
        masks = [_least_expected(*row, words) for row in rows]
        return pl.DataFrame(
            {
                "loss": pl.Series(scores_N3[:, 0], dtype=pl.Float64),
                "tokens": pl.Series(scores_N3[:, 1].astype(np.int64), dtype=pl.Int64),
                "hits": pl.Series(scores_N3[:, 2].astype(np.int64), dtype=pl.Int64),
                "margin": pl.Series(leads, dtype=pl.Float64),
                "masks": pl.Series(masks, dtype=MASKS),
            }
        )

    def _rows(self, answers: Sequence[Filled], encoding: Encoding) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The right tokens of the masks of each row, the likeliest ones, and the log-probabilities of the right ones, (M,) each."""
        for windows, said in _by_row(encoding, answers):
            labels_M = np.array([token for window in windows for token in window["labels"] if token != IGNORED], np.int64)
            yield labels_M, np.concatenate([s.ids_MK[:, 0] for s in said]), np.concatenate([s.right_M for s in said]).astype(np.float64)

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        """The texts themselves (N,)."""
        return rows["label"].to_numpy().astype(object)

    @property
    def metrics(self) -> tuple[str, ...]:
        return MASKED_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        texts = ["the parcel never came", "I was charged twice for it", "where is my parcel", "refund the second charge"]
        return pl.DataFrame({"text": texts, "label": texts})


def fill(windows: Sequence[Encoded], said: Sequence[Filled], processor: Processor) -> tuple[str | None, list[list[dict[str, Any]]] | None]:
    """A text with each of its masks filled by the likeliest token, and the candidates for each mask; None where it has no mask."""
    text: str = windows[0][WINDOW].text
    pieces, best = text.split(processor.mask_token), list[int]()
    found: list[list[dict[str, Any]]] = []
    for window in said:
        for ids_K, logs_K in zip(window.ids_MK.tolist(), window.logs_MK.tolist(), strict=True):
            mask, told = len(found), list[dict[str, Any]]()
            before, after = (processor.mask_token.join(part) for part in (pieces[: mask + 1], pieces[mask + 1 :]))
            for token, log in zip(ids_K, logs_K, strict=True):
                filled = _joined(before, token, processor) + after
                told.append({"token": processor.convert_ids_to_tokens(token), "probability": float(np.exp(log)), "text": filled})
            found.append(told)
            best.append(ids_K[0])
    if not found:
        return None, None
    whole = pieces[0]
    for token, piece in zip(best, pieces[1:], strict=False):
        whole = _joined(whole, token, processor) + piece
    return whole, found


def _joined(before: str, token: int, processor: Processor) -> str:
    """A text with a token after it: word pieces follow without a space, and mask tokens that stand for their space too take it along."""
    piece: str = processor.convert_ids_to_tokens(token)
    if piece.startswith("##"):
        return before.rstrip() + piece.removeprefix("##")
    takes_space = processor.added_tokens_decoder[processor.mask_token_id].lstrip
    said: str = processor.decode([token])
    if takes_space:
        said = " " + said.lstrip() if piece[:1] in ("\u0120", "\u2581") else said  # how byte pairs and sentence pieces write a space
        before = before.rstrip()
    return before + said if before else said.lstrip()


def _windows(texts: Sequence[str], processor: Processor, max_length: int) -> list[Encoded]:
    """Windows of at most `max_length` tokens that share none, those of a text one after the other; at least one for each text."""
    out: list[Encoded] = []
    for begin in range(0, len(texts), ROWS_AT_ONCE):  # many long texts at once take much memory
        part = list(texts[begin : begin + ROWS_AT_ONCE])
        tokens = processor(part, truncation=True, max_length=max_length, stride=0, return_overflowing_tokens=True, verbose=False)
        kinds = [name for name in ("input_ids", "token_type_ids") if name in tokens]
        for number, owner in enumerate(tokens["overflow_to_sample_mapping"]):
            row = {name: tokens[name][number] for name in kinds}
            out.append({**row, "pad": processor.pad_token_id, WINDOW: Piece(begin + owner, part[owner])})
    return out


def _encoding(windows: list[Encoded], processor: Processor) -> Encoding:
    return Encoding(windows, [len(window["input_ids"]) for window in windows], 0, processor=processor)


def _filled(model: Any, given: Batch, asked_BT: Tensor) -> list[Filled]:
    """What a model says of the masks of a few windows; of windows without any, nothing is computed."""
    counts, places_M = (asked_BT != IGNORED).sum(1).tolist(), places_of(asked_BT)
    if not len(places_M):
        return [Filled(np.zeros((0, CANDIDATES), np.int64), np.zeros((0, CANDIDATES)), np.zeros(0)) for _ in counts]
    with only_at(model, places_M):
        logs_MV = model(**given).logits.squeeze(0).float().log_softmax(-1)
    best = logs_MV.topk(min(CANDIDATES, logs_MV.shape[1]))
    right_M = logs_MV.gather(1, asked_BT.flatten()[places_M].clamp(min=0).unsqueeze(1)).squeeze(1)
    parts = (best.indices.cpu().split(counts), best.values.cpu().split(counts), right_M.cpu().split(counts))
    return [Filled(ids.numpy(), logs.numpy(), right.numpy()) for ids, logs, right in zip(*parts, strict=True)]


def _by_row(encoding: Encoding, answers: Sequence[Filled]) -> Iterator[tuple[list[Encoded], list[Filled]]]:
    """The windows of each row with what was said of them."""
    for _, of_one in groupby(zip(encoding.rows, answers, strict=True), key=lambda pair: pair[0][WINDOW].row):
        pairs = list(of_one)
        yield [window for window, _ in pairs], [said for _, said in pairs]


def _least_expected(labels_M: np.ndarray, said_M: np.ndarray, right_M: np.ndarray, processor: Processor) -> list[dict[str, Any]]:
    """The masked tokens of a row whose probability was lowest, with what was likeliest instead."""
    order = np.argsort(right_M, kind="stable")[:TOLD]
    names = processor.convert_ids_to_tokens
    return [{"token": names(int(labels_M[m])), "said": names(int(said_M[m])), "probability": float(np.exp(right_M[m]))} for m in order]


def _told(rows: Sequence[tuple[str | None, Any]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "predicted": pl.Series([text for text, _ in rows], dtype=pl.String),
            "candidates": pl.Series([found for _, found in rows], dtype=FILLED),
        }
    )
