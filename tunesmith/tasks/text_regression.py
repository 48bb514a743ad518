"""Text regression: a number for each text, or for each pair of texts (how alike they are).

Shape suffixes: B = rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.texts import collate_texts, encode_texts

NUMBER_METRICS = ("spearman", "pearson", "rmse", "mae", "mse", "r2")


@dataclass(frozen=True)
class Scale:
    """The unit that a network's output is in: number = mean + deviation · output. Training is in units of the training rows' spread."""

    mean: float = 0.0
    deviation: float = 1.0


class TextRegression(Task):
    """The task of one number a row.

    Args:
        pair: rows have a second text, `text_pair`.
        scale: the unit of the network's output; plain numbers when left out, as saved models give them.
    """

    name = "text-regression"
    labels: tuple[str, ...] = ()
    has_head = True
    """An output layer makes the number: its unit can be changed there."""

    def __init__(self, *, pair: bool = False, scale: Scale | None = None) -> None:
        self.pair = pair
        self.scale = scale or Scale()

    @property
    def kind(self) -> Kind:
        return "number"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "text_pair", "label") if self.pair else ("text", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        encoding = encode_texts(rows, self.columns[:-1], processor, max_length)
        if "label" in rows.columns:
            for row, target in zip(encoding.rows, self.targets(rows), strict=True):
                row["labels"] = target
        return encoding

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([float(row["labels"]) for row in rows], dtype=torch.float64)
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModelForSequenceClassification  # seconds to import: only when a model is needed

        return AutoModelForSequenceClassification

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"num_labels": 1, "problem_type": "regression", "id2label": {0: "number"}, "label2id": {"number": 0}}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        wanted_B = self.wanted(batch["labels"]).float()
        each_B = (outputs.logits.float().squeeze(-1) - wanted_B) ** 2
        weights_B = batch.get("weights", torch.ones_like(each_B))
        return (each_B * weights_B).sum(), weights_B.sum()

    def wanted(self, numbers: Any) -> Any:
        """What the network is asked for in the place of numbers: the same in the unit of its output.

        Numbers are float64 here: in float32, moments in seconds are two minutes apart, and their mean takes the rest.
        """
        return (numbers - self.scale.mean) / self.scale.deviation

    def scores(self, answers: Tensor, encoding: Encoding) -> np.ndarray:
        numbers: np.ndarray = answers.double().squeeze(-1).numpy() * self.scale.deviation + self.scale.mean
        return numbers

    def decode(self, answers: Tensor, encoding: Encoding) -> pl.DataFrame:
        return pl.DataFrame({"predicted": pl.Series(self.scores(answers, encoding), dtype=pl.Float64)})

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        return rows["label"].to_numpy().astype(np.float64)

    @property
    def metrics(self) -> tuple[str, ...]:
        return NUMBER_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "text": ["the parcel never came", "I was charged twice", "thank you, it arrived", "all is well now"],
                "text_pair": ["my parcel is lost", "I was charged two times", "no parcel has arrived", "where are you"],
                "label": [4.5, 5.0, 1.25, 0.0],
            }
        )
