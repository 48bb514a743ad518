"""Sentence similarity: how alike two texts are, as a number; both read together, or each embedded apart and compared by cosine.

Shape suffixes: B = rows of a batch, E = width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.spec.ranking import Embedding
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor
from tunesmith.tasks.text_regression import Scale, TextRegression
from tunesmith.tasks.vectors import collate_parts, encode_alone, pooled, together


class SentenceSimilarity(TextRegression):
    """How alike two texts are; both are read together (a cross-encoder)."""

    name = "sentence-similarity"

    def __init__(self, *, pair: bool = True, scale: Scale | None = None) -> None:
        assert pair, "similarity is of two texts"
        super().__init__(pair=True, scale=scale)


class SimilarityApart(SentenceSimilarity):
    """How alike two texts are; each is embedded, and their cosine is the number in the unit of `scale`: mean + deviation · cosine.

    Args:
        scale: the number at a cosine of nought, and what a cosine of one adds.
        options: how a text becomes a vector.
    """

    has_head = False

    def __init__(self, *, scale: Scale | None = None, options: Embedding | None = None) -> None:
        super().__init__(scale=scale)
        self.options = options or Embedding()

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        encoding = together([encode_alone(rows[name].to_list(), processor, max_length) for name in ("text", "text_pair")])
        if "label" in rows.columns:
            for row, target in zip(encoding.rows, self.targets(rows), strict=True):
                row["labels"] = target
        return encoding

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_parts(rows)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([float(row["labels"]) for row in rows], dtype=torch.float64)
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModel  # seconds to import: only when a model is needed

        return AutoModel

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        wanted_B = self.wanted(batch["labels"]).float()
        each_B = (self._cosine(outputs, batch) - wanted_B) ** 2
        weights_B = batch.get("weights", torch.ones_like(each_B))
        return (each_B * weights_B).sum(), weights_B.sum()

    def answer(self, model: Any, batch: Batch) -> Tensor:
        """The cosine of the two texts of each row (B, 1)."""
        return self._cosine(model(**batch), batch)[:, None].cpu()

    def probed(self, mean_NE: Tensor) -> Tensor:
        """The products of the two vectors, number by number: their sum is the cosine."""
        first_NE, second_NE = (F.normalize(part, dim=-1) for part in mean_NE.chunk(2, dim=-1))
        return first_NE * second_NE

    def _cosine(self, outputs: Any, batch: Batch) -> Tensor:
        vectors = pooled(outputs, batch["attention_mask"], self.options.pooling)
        return (vectors[0::2] * vectors[1::2]).sum(1)
