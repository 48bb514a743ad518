"""The contract of a task: one file per task, the same members in the same order.

Shape suffixes: B = rows of a batch, T = tokens, C = classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from tunesmith.spec.kinds import Kind

Batch = dict[str, Tensor]
FOR_THE_LOSS = ("labels", "weights", "teacher", "queries", "allowed", "maskable", "vocabulary")
"""What of a batch is not given to the model: targets, weights of rows, what a teacher answered (logits), which texts are compared, and
which tokens may be masked by what."""
ABOUT_A_ROW = ("weight", "pad", "window", "known", "wanted", "barred", "passage")
"""What an encoded row holds besides its content: the network is not asked about it."""
PARTS = "parts"
"""The key of the texts of an encoded row that are read apart, each an encoded text of its own."""
Encoded = dict[str, Any]  # one row: input ids as a list of int, and the target in the form that `collate` wants
Processor = Any  # a transformers tokenizer


@dataclass(frozen=True)
class Encoding:
    """Rows as the model will see them. `lengths` are in tokens, as kept; `cut` counts the rows that lost tokens.

    Where targets are texts, `cut_targets` counts those that lost tokens, and `processor` turns answers into texts.
    """

    rows: list[Encoded]
    lengths: list[int]
    cut: int
    cut_targets: int = 0
    processor: Processor = None

    def part(self, numbers: Iterable[int]) -> Encoding:
        """Some of the rows, in this order; none of them counts as cut."""
        chosen = list(numbers)
        return replace(self, rows=[self.rows[n] for n in chosen], lengths=[self.lengths[n] for n in chosen], cut=0, cut_targets=0)

    def leading(self, numbers: Iterable[int]) -> Encoding:
        """One encoded row for each of these rows of the table, in this order: the first window where a row has several."""
        first: dict[int, int] = {}
        for place, row in enumerate(self.rows):
            first.setdefault(row["window"].row if "window" in row else place, place)
        return self.part(first[number] for number in numbers)


NOTHING = Encoding([], [], 0)
"""For answers that come from features of whole texts, where no row was encoded."""


def parts_of(rows: Iterable[Encoded]) -> list[Encoded]:
    """The encoded texts of rows, one after the other: a row without parts is one itself."""
    return [part for row in rows for part in row.get(PARTS, (row,))]


class Task(ABC):
    """What a model learns to do: from rows of a table to batches, loss and predictions in the user's words."""

    name: str
    """Name of the task in the spec, as in Hugging Face pipelines."""

    labels: tuple[str, ...]
    """Names of the classes in class-id order; empty where there are none."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What a row's label is."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the prepared tables that the task reads."""

    @abstractmethod
    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """Rows as token ids of at most `max_length`, with targets when the table has labels."""

    def training(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """What is trained on for labelled rows, where it is not the same as what is answered."""
        return self.encode(rows, processor, max_length)

    @abstractmethod
    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """One padded batch, ready for `model(**batch)` without what is FOR_THE_LOSS."""

    @property
    @abstractmethod
    def head(self) -> Any:
        """The transformers auto class whose `from_pretrained` loads the finished model."""

    @property
    @abstractmethod
    def model_options(self) -> Mapping[str, Any]:
        """Keyword arguments of `head.from_pretrained` that make the output layer fit the labels."""

    def inputs(self, model: Any, batch: Batch) -> Batch:
        """What of a batch the model is given in training."""
        return {name: value for name, value in batch.items() if name not in FOR_THE_LOSS}

    @property
    def redrawn(self) -> str:
        """Why what is read of a row differs from step to step, so that nothing said of it can be kept; empty where it does not."""
        return ""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(summed loss (), number of valid targets ()): the loop divides, so that accumulation changes nothing."""

    def answer(self, model: Any, batch: Batch) -> Tensor | list[Any]:
        """What the model says of a batch without targets: logits (B, C); a list with an entry a row where rows differ in shape."""
        logits: Tensor = model(**batch).logits.float().cpu()
        return logits

    def answers(self, model: Any, batches: Iterable[tuple[list[int], Batch]]) -> Iterator[tuple[list[int], Tensor | list[Any]]]:
        """What `answer` gives for all batches, with the numbers of their rows; rows may come back in other parts and another order."""
        for numbers, batch in batches:
            yield numbers, self.answer(model, batch)

    def probed(self, mean_NE: Tensor) -> Tensor:
        """What a regression on frozen features reads, from the mean of the last states of a row (N, E)."""
        return mean_NE

    @abstractmethod
    def scores(self, answers: Any, encoding: Encoding) -> Any:
        """What metrics are computed from: probabilities (N, C) of classes, numbers (N,) in the user's unit, …; a row each of the table.

        Args:
            answers: what `answer` gave for all encoded rows, in order.
            encoding: these rows.
        """

    @abstractmethod
    def decode(self, answers: Any, encoding: Encoding) -> pl.DataFrame:
        """Predictions in the user's words, a row for each of the table: the column predicted; for classes confidence, probabilities."""

    @abstractmethod
    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        """The rows' labels as class ids (N,), as a 0/1 matrix (N, C) when a row can carry several, or as numbers (N,)."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics; the first one decides unless the spec names another."""

    @classmethod
    @abstractmethod
    def example(cls) -> pl.DataFrame:
        """A few labelled rows in the form of the prepared tables, for contract tests and docs."""
