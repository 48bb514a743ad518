"""Text ranking: how relevant a text is to a query, both read together (a cross-encoder); the best of a few candidates.

Shape suffixes: B = pairs of a batch, N = queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.data.bm25 import Bm25
from tunesmith.spec.kinds import Kind
from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.feature_extraction import RANKING_METRICS, FeatureExtraction
from tunesmith.tasks.texts import collate_texts, encode_texts
from tunesmith.tasks.vectors import Ranking, gains, ranking, relevant_texts, told
from tunesmith.tasks.windows import WINDOW

BESIDE = 20
"""Texts that are ranked beside judged ones of which none is wrong."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A text of the corpus that is ranked for the query of a row, and the texts that this query should find; no text for a plain pair."""

    row: int
    text: int | None
    wanted: tuple[int, ...] = ()


class TextRanking(Task):
    """The task of the relevance of a text. An encoded row is a query with one of its candidates.

    Args:
        corpus: the texts that candidates are of.
        candidates: how many texts of the corpus are ranked for a query, the most alike by BM25; "judged": those of its own label.
        negatives: texts learned as wrong beside each relevant one.
    """

    name = "text-ranking"
    labels: tuple[str, ...] = ()

    def __init__(self, *, corpus: Sequence[str] = (), candidates: int | str | None = 20, negatives: int = 4) -> None:
        self.corpus, self.candidates, self.negatives = list(corpus), candidates, negatives
        self.number_of = {text: number for number, text in enumerate(self.corpus)}

    @cached_property
    def index(self) -> Bm25:
        """The corpus, to be searched by words."""
        return Bm25(self.corpus)

    @property
    def kind(self) -> Kind:
        return "relevant"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """Each query with its candidates, one after the other; for rows with `text_pair`, this one pair."""
        if "text_pair" in rows.columns:
            pairs = encode_texts(rows, ("text", "text_pair"), processor, max_length)
            for number, row in enumerate(pairs.rows):
                row[WINDOW] = Candidate(number, None)
            return pairs
        wanted: list[list[int]] = [[] for _ in range(len(rows))]
        if "label" in rows.columns:
            wanted = [[self.number_of[t] for t in texts if t in self.number_of] for texts in relevant_texts(rows["label"])]
        chosen = self.candidates_of(rows)
        asked = [(number, text) for number, texts in enumerate(chosen) for text in texts]
        pairs = self._pairs(rows["text"].to_list(), asked, processor, max_length)
        for (number, text), row in zip(asked, pairs.rows, strict=True):
            row[WINDOW] = Candidate(number, text, tuple(wanted[number]))
        return pairs

    def candidates_of(self, rows: pl.DataFrame) -> list[list[int]]:
        """The texts of the corpus that are ranked for each query; at least one."""
        if self.candidates == "judged" and "label" in rows.columns:
            return self._judged(rows)
        return self._alike(rows["text"].to_list(), self.candidates if isinstance(self.candidates, int) else len(self.corpus))

    def _alike(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """The texts that are most alike by BM25, the query's own text left out."""
        found = self.index.best(queries, count + 1)
        return [[n for n in best if self.corpus[n] != query][:count] for query, best in zip(queries, found, strict=True)]

    def _judged(self, rows: pl.DataFrame) -> list[list[int]]:
        """The judged texts of each query; where none of them is wrong, any order would be perfect, so those most alike are ranked too."""
        labels = rows["label"].to_list()
        chosen = [[self.number_of[entry["text"]] for entry in row] for row in labels]
        easy = [number for number, row in enumerate(labels) if all(entry["relevance"] > 0 for entry in row)]
        for number, alike in zip(easy, self._alike(rows["text"].gather(easy).to_list(), BESIDE), strict=True):
            chosen[number] += [text for text in alike if text not in chosen[number]]
        return chosen

    def _pairs(self, queries: Sequence[str], asked: Sequence[tuple[int, int]], processor: Processor, max_length: int) -> Encoding:
        table = pl.DataFrame(
            {"text": pl.Series([queries[n] for n, _ in asked], dtype=pl.String),
             "text_pair": pl.Series([self.corpus[text] for _, text in asked], dtype=pl.String)})  # fmt: skip
        return encode_texts(table, ("text", "text_pair"), processor, max_length)

    def training(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """Each query with its relevant texts, and with wrong ones: those that were judged, then those most alike by BM25."""
        queries, labels = rows["text"].to_list(), rows["label"].to_list()
        highest = max((entry["relevance"] for row in labels for entry in row), default=1.0)
        most = max((len(row) for row in labels), default=0) * (self.negatives + 1) + 1
        near = self.index.best(queries, min(most, len(self.corpus)))
        asked: list[tuple[int, int]] = []
        targets: list[float] = []
        for number, (query, judged, alike) in enumerate(zip(queries, labels, near, strict=True)):
            right = [(self.number_of[e["text"]], e["relevance"] / highest) for e in judged if e["relevance"] > 0]
            wrong = [self.number_of[e["text"]] for e in judged if e["relevance"] <= 0]
            known = {text for text, _ in right} | set(wrong)
            wrong += [text for text in alike if text not in known and self.corpus[text] != query]
            told_apart = [*right, *((text, 0.0) for text in wrong[: len(right) * self.negatives])]
            asked += [(number, text) for text, _ in told_apart]
            targets += [value for _, value in told_apart]
        pairs = self._pairs(queries, asked, processor, max_length)
        for (number, text), row, target in zip(asked, pairs.rows, targets, strict=True):
            row[WINDOW], row["labels"] = Candidate(number, text), target
        return pairs

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate_texts(rows)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([float(row["labels"]) for row in rows])
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModelForSequenceClassification  # seconds to import: only when a model is needed

        return AutoModelForSequenceClassification

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"num_labels": 1, "id2label": {0: "relevance"}, "label2id": {"relevance": 0}}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_B, target_B = outputs.logits.float().squeeze(-1), batch["labels"]
        each_B = F.binary_cross_entropy_with_logits(logits_B, target_B, reduction="none")
        weights_B = batch.get("weights", torch.ones_like(each_B))
        return (each_B * weights_B).sum(), weights_B.sum()

    def rankings(self, answers: Tensor, encoding: Encoding) -> Iterator[Ranking]:
        """What each query finds among its candidates."""
        pairs = zip(encoding.rows, answers.double().squeeze(-1).tolist(), strict=True)
        for _, of_one in groupby(pairs, key=lambda pair: pair[0][WINDOW].row):
            found = [(row[WINDOW], score) for row, score in of_one]
            yield ranking(np.array([score for _, score in found]), found[0][0].wanted, [one.text for one, _ in found])

    def scores(self, answers: Tensor, encoding: Encoding) -> list[list[int]]:
        """The ranks of the relevant texts of each query among its candidates, in the order of its label; 0 where one is not among them."""
        return [one.ranks for one in self.rankings(answers, encoding)]

    def decode(self, answers: Tensor, encoding: Encoding) -> pl.DataFrame:
        """The best candidates of each query with their logits, and ranks and logits of the relevant; of plain pairs, the relevance."""
        if encoding.rows and encoding.rows[0][WINDOW].text is None:
            return pl.DataFrame({"predicted": pl.Series(torch.sigmoid(answers.double()).squeeze(-1).tolist(), dtype=pl.Float64)})
        return told(list(self.rankings(answers, encoding)), self.corpus)

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        """The relevances of the relevant texts of each query (N,), as lists."""
        return gains(rows["label"])

    @property
    def metrics(self) -> tuple[str, ...]:
        return RANKING_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        return FeatureExtraction.example()
