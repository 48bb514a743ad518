"""Text classification: one label per text, several labels per text, or one label per pair of sentences.

Shape suffixes: B = rows of a batch, T = tokens, C = classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.data.balance import focal_loss, focal_loss_multi_label
from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.losses import RowLoss
from tunesmith.tasks.texts import collate_texts, encode_texts

ONE_LABEL_METRICS = (
    "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_f1", "micro_f1", "mcc", "roc_auc",
    "log_loss", "ece", "brier",
)  # fmt: skip
MANY_LABEL_METRICS = (
    "micro_f1", "macro_f1", "weighted_f1", "subset_accuracy", "macro_precision", "macro_recall", "hamming_loss", "roc_auc",
    "log_loss", "ece", "brier",
)  # fmt: skip


class TextClassification(Task):
    """The task for a given label vocabulary.

    Args:
        labels: names in class-id order.
        multi_label: a row can carry several labels, or none.
        pair: rows have a second text, `text_pair`.
        label_smoothing: share of the target spread evenly over the classes.
        class_weights: weight of each class in the loss, in class-id order; None for equal weights.
        focal_gamma: exponent of the focal loss; None for cross-entropy.
        row_loss: another loss of one label a row, (logits (B, C), labels (B,)) → (B,); None for cross-entropy.
    """

    name = "text-classification"

    def __init__(
        self,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        pair: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        focal_gamma: float | None = None,
        row_loss: RowLoss | None = None,
    ) -> None:
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self.pair = pair
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)
        self.focal_gamma = focal_gamma
        self.row_loss = row_loss

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "text_pair", "label") if self.pair else ("text", "label")

    @property
    def kind(self) -> Kind:
        return "classes" if self.multi_label else "class"

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        encoding = encode_texts(rows, self.columns[:-1], processor, max_length)
        if "label" in rows.columns:
            for row, target in zip(encoding.rows, self.targets(rows), strict=True):
                row["labels"] = target
        return encoding

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        if "labels" in rows[0]:
            batch["labels"] = torch.from_numpy(np.stack([row["labels"] for row in rows]))
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModelForSequenceClassification  # seconds to import: only when a model is needed

        return AutoModelForSequenceClassification

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "problem_type": "multi_label_classification" if self.multi_label else "single_label_classification",
        }

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_BC, labels = outputs.logits.float(), batch["labels"]
        weights_B = batch.get("weights", torch.ones(len(labels), device=logits_BC.device))
        if self.focal_gamma is not None:
            return self._focal(logits_BC, labels, weights_B, self.focal_gamma)
        if self.multi_label:
            each_BC = F.binary_cross_entropy_with_logits(logits_BC, labels.float(), reduction="none")
            return (each_BC.sum(1) * weights_B).sum(), weights_B.sum() * labels.shape[1]
        weights_C = None if self.class_weights is None else self.class_weights.to(logits_BC.device)
        if self.row_loss is not None:
            each_B = self.row_loss(logits_BC, labels) * (1.0 if weights_C is None else weights_C[labels])
        else:
            each_B = F.cross_entropy(logits_BC, labels, weight=weights_C, label_smoothing=self.label_smoothing, reduction="none")
        return (each_B * weights_B).sum(), (weights_B if weights_C is None else weights_B * weights_C[labels]).sum()

    def _focal(self, logits_BC: Tensor, labels: Tensor, weights_B: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """The focal loss and its count; rows of one weight are summed together, and there are one or two weights."""
        total = count = torch.zeros((), device=logits_BC.device)
        for weight in sorted(set(weights_B.tolist())):
            rows = weights_B == weight
            if self.multi_label:
                terms, counted = focal_loss_multi_label(logits_BC[rows], labels[rows], gamma)
            else:
                terms, counted = focal_loss(logits_BC[rows], labels[rows], gamma, self.class_weights)
            total, count = total + weight * terms, count + weight * counted
        return total, count

    def scores(self, answers: Tensor, encoding: Encoding) -> np.ndarray:
        logits = answers.double()
        probabilities: np.ndarray = (torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, -1)).numpy()
        return probabilities

    def decode(self, answers: Tensor, encoding: Encoding) -> pl.DataFrame:
        probabilities = self.scores(answers, encoding)
        if self.multi_label:
            predicted: list[Any] = [[self.labels[c] for c in np.flatnonzero(row >= 0.5)] for row in probabilities]
            confidence = np.maximum(probabilities, 1 - probabilities).mean(1)
            kind: Any = pl.List(pl.String)
        else:
            predicted = [self.labels[c] for c in probabilities.argmax(1)]
            confidence = probabilities.max(1)
            kind = pl.String
        return pl.DataFrame(
            {
                "predicted": pl.Series(predicted, dtype=kind),
                "confidence": pl.Series(confidence.astype(np.float32)),
                "probabilities": pl.Series(probabilities.astype(np.float32).tolist(), dtype=pl.List(pl.Float32)),
            }
        )

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        ids = {label: number for number, label in enumerate(self.labels)}
        if not self.multi_label:
            return np.array([ids[label] for label in rows["label"]], dtype=np.int64)
        matrix = np.zeros((len(rows), len(self.labels)), dtype=np.float32)
        for number, labels in enumerate(rows["label"]):
            matrix[number, [ids[label] for label in labels]] = 1
        return matrix

    @property
    def metrics(self) -> tuple[str, ...]:
        return MANY_LABEL_METRICS if self.multi_label else ONE_LABEL_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "text": ["the parcel never came", "I was charged twice", "where is my parcel", "refund the second charge"],
                "text_pair": ["delivery", "money", "delivery", "money"],
                "label": ["delivery", "billing", "delivery", "billing"],
            }
        )
