"""Text to text: summaries, translations, any text to be written for a text, by an encoder with a decoder.

Shape suffixes: B = rows of a batch, L = tokens of targets, N = tokens that are learned, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.texts import LONGEST_TOKEN, collate_texts, encode_texts
from tunesmith.tasks.write import ends, write

WRITING_METRICS = ("chrf", "bleu", "rouge1", "rouge2", "rougeL", "exact_text")
SUMMARY_METRICS = ("rougeL", "rouge1", "rouge2", "chrf", "bleu", "exact_text")
UNTRAINED = -100
"""Where a target has ended: such places are not learned."""


class TextToText(Task):
    """The task of a text for a text.

    Args:
        prefix: put before every text.
        max_target: most tokens of a target; without it targets are not cut.
        label_smoothing: share of each target token spread evenly over the vocabulary.
    """

    name = "text2text-generation"
    labels: tuple[str, ...] = ()

    def __init__(self, *, prefix: str = "", max_target: int | None = None, label_smoothing: float = 0.0) -> None:
        self.prefix, self.max_target, self.label_smoothing = prefix, max_target, label_smoothing

    @property
    def kind(self) -> Kind:
        return "text"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        encoding = encode_texts(rows.with_columns(text=self.prefix + pl.col("text")), ("text",), processor, max_length)
        cut = 0
        if "label" in rows.columns:
            for row, target in zip(encoding.rows, self.target_tokens(rows, processor), strict=True):
                limit = self.max_target or len(target)
                row["labels"] = target[:limit]  # without its end where it is cut: the model is not to learn to stop there
                cut += len(target) > limit
        return replace(encoding, cut_targets=cut, processor=processor)

    def target_tokens(self, rows: pl.DataFrame, processor: Processor) -> list[list[int]]:
        """Tokens of each target, whole, its end included."""
        limit = (self.max_target or 10**6) * LONGEST_TOKEN
        tokens = processor(text_target=[text[:limit] for text in rows["label"].to_list()], truncation=False, verbose=False)["input_ids"]
        end = processor.eos_token_id
        return [ids if end is None or ids[-1:] == [end] else [*ids, end] for ids in tokens]

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        if "labels" in rows[0]:
            labels_BL = np.full((len(rows), max(len(row["labels"]) for row in rows)), UNTRAINED, dtype=np.int64)
            for number, row in enumerate(rows):
                labels_BL[number, : len(row["labels"])] = row["labels"]
            batch["labels"] = torch.from_numpy(labels_BL)
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModelForSeq2SeqLM  # seconds to import: only when a model is needed

        return AutoModelForSeq2SeqLM

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {}

    def inputs(self, model: Any, batch: Batch) -> Batch:
        given = super().inputs(model, batch)
        if "labels" in batch:  # each architecture starts its decoder in its own way
            given["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return given

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        labels_BL, logits = batch["labels"], outputs.logits.float()
        if logits.ndim == 2:  # of the places that carry a target, and of none
            labels_N, logits_NV = labels_BL[labels_BL != UNTRAINED], logits
            labels_N = F.pad(labels_N, (0, len(logits) - len(labels_N)), value=UNTRAINED)
        else:
            labels_N, logits_NV = labels_BL.flatten(), logits.flatten(0, 1)
        total = F.cross_entropy(logits_NV, labels_N, ignore_index=UNTRAINED, reduction="sum", label_smoothing=self.label_smoothing)
        return total, (labels_BL != UNTRAINED).sum()

    def answers(self, model: Any, batches: Iterable[tuple[list[int], Batch]]) -> Iterator[tuple[list[int], list[Any]]]:
        last = ends(model)
        for number, said in write(model, batches):
            yield [number], [(said, bool(said.tokens) and said.tokens[-1] in last)]

    def scores(self, answers: Any, encoding: Encoding) -> Any:
        return self.decode(answers, encoding)["predicted"].to_list()

    def decode(self, answers: Any, encoding: Encoding) -> pl.DataFrame:
        texts = encoding.processor.batch_decode([said.tokens for said, _ in answers], skip_special_tokens=True) if answers else []
        return pl.DataFrame(
            {
                "predicted": pl.Series(texts, dtype=pl.String),
                "tokens": pl.Series([len(said.tokens) for said, _ in answers], dtype=pl.Int64),
                "margin": pl.Series([said.margin for said, _ in answers], dtype=pl.Float64),
                "finished": pl.Series([finished for _, finished in answers], dtype=pl.Boolean),
            }
        )

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        return rows["label"].to_numpy().astype(object)

    @property
    def metrics(self) -> tuple[str, ...]:
        return WRITING_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "text": ["the parcel never came", "I was charged twice", "where is my parcel", "refund the second charge"],
                "label": ["parcel lost", "charged twice", "parcel lost", "refund please"],
            }
        )


class Translation(TextToText):
    """A text in another language."""

    name = "translation"


class Summarization(TextToText):
    """A short text that says what a long one says."""

    name = "summarization"

    @property
    def metrics(self) -> tuple[str, ...]:
        return SUMMARY_METRICS
