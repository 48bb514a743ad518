"""Question answering: the span of a text that answers a question, or none.

Shape suffixes: B = windows of a batch, T = tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tunesmith.data.spans import ANSWERS
from tunesmith.spec.answering import Answering
from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.texts import collate_texts
from tunesmith.tasks.windows import WINDOW, Span, Window, best_of_row, best_spans, encode_windows, with_targets

ANSWER_METRICS = ("f1", "exact_match", "has_answer_f1", "has_answer_exact", "no_answer_accuracy")
SPANS = pl.List(pl.Struct({"text": pl.String, "start": pl.Int64, "end": pl.Int64, "score": pl.Float64}))
CONSIDERED = 20
"""Spans whose logits a score is relative to, as the script of SQuAD 2.0 has it."""


class QuestionAnswering(Task):
    """The task of a span a row. An encoded row is a window over a text; rows with long texts have several.

    Args:
        options: how answers are found.
        can_be_empty: training rows without an answer exist: while training, the model may give none.
    """

    name = "question-answering"
    labels: tuple[str, ...] = ()

    def __init__(self, *, options: Answering | None = None, can_be_empty: bool = False) -> None:
        self.options = options or Answering()
        self.can_be_empty = can_be_empty

    @property
    def kind(self) -> Kind:
        return "answers"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "text_pair", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        encoding = encode_windows(rows, processor, max_length, self.options.stride)
        return with_targets(encoding, rows["label"]) if "label" in rows.columns else encoding

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModelForQuestionAnswering  # seconds to import: only when a model is needed

        return AutoModelForQuestionAnswering

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"num_labels": 2}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        mask_BT = batch["attention_mask"].bool()
        each = [
            cross_entropy(logits_BT.float().masked_fill(~mask_BT, -torch.inf), target_B, reduction="none")
            for logits_BT, target_B in zip((outputs.start_logits, outputs.end_logits), batch["labels"].unbind(1), strict=True)
        ]
        weights_B = batch.get("weights", torch.ones_like(each[0]))
        return ((each[0] + each[1]) / 2 * weights_B).sum(), weights_B.sum()

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """Start and end logits (2, T) of each window."""
        said = model(**batch)
        return list(torch.stack([said.start_logits, said.end_logits], 1).float().cpu().numpy())

    def scores(self, answers: Any, encoding: Encoding) -> np.ndarray:
        """The answer of each row (N,), "" for none; None where logits are not finite."""
        found = [
            (None if not np.isfinite(nothing) else "" if self.can_be_empty and _margin(spans, nothing) > 0 else _text(spans, text))
            for spans, nothing, text in self._rows(answers, encoding)
        ]
        return np.array(found, dtype=object)

    def decode(self, answers: Any, encoding: Encoding) -> pl.DataFrame:
        """The best span of each row: predicted, start, end, score, candidates; and margin, by which no answer is said to be better."""
        records = []
        for spans, nothing, text in self._rows(answers, encoding):
            scores = _softmax([*(span.score for span in spans), nothing])
            told = [
                {"text": text[span.start : span.end], "start": span.start, "end": span.end, "score": score}
                for span, score in zip(spans, scores, strict=False)
            ]
            best = told[0] if told else {"text": "", "start": None, "end": None, "score": 0.0}
            records.append(
                (best["text"], best["start"], best["end"], best["score"], _margin(spans, nothing), told[: self.options.candidates])
            )
        schema: Any = {"predicted": pl.String, "start": pl.Int64, "end": pl.Int64, "score": pl.Float64, "margin": pl.Float64,
                       "candidates": SPANS}  # fmt: skip
        return pl.DataFrame(records, schema, orient="row")

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        """The texts of the answers of each row (N,), as lists."""
        out = np.empty(len(rows), dtype=object)
        out[:] = [[answer["text"] for answer in answers] for answers in rows["label"].to_list()]
        return out

    @property
    def metrics(self) -> tuple[str, ...]:
        return ANSWER_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        text = ["the parcel came on monday by courier", "my card was charged twice", "the code is in the email"]
        answers = [[{"text": "monday", "start": 19}], [{"text": "twice", "start": 20}], []]
        return pl.DataFrame(
            {"text": ["when did it come", "how often", "who is it"], "text_pair": text, "label": pl.Series(answers, dtype=ANSWERS)}
        )

    def _rows(self, answers: Any, encoding: Encoding) -> Iterator[tuple[list[Span], float, str]]:
        """The best spans of each row, the score of no answer (the lowest of its windows), and its text."""
        pairs = zip(encoding.rows, answers, strict=True)
        for _, windows in groupby(pairs, key=lambda pair: pair[0][WINDOW].row):
            found, nothing, text = list[Span](), np.inf, ""
            for row, scores_2T in windows:
                window: Window = row[WINDOW]
                found += best_spans(scores_2T, window, self.options.max_tokens, CONSIDERED)
                nothing, text = min(nothing, float(scores_2T[:, window.nothing].astype(np.float64).sum())), window.text
            yield best_of_row(found, CONSIDERED), nothing, text


def _text(spans: list[Span], text: str) -> str:
    return text[spans[0].start : spans[0].end] if spans else ""


def _margin(spans: list[Span], nothing: float) -> float:
    """By how much no answer is better than the best span; 1e9 where there is no span."""
    return nothing - spans[0].score if spans else 1e9


def _softmax(scores: list[float]) -> list[float]:
    values = np.exp(np.array(scores) - max(scores))
    return [float(value) for value in values / values.sum()]
