"""Feature extraction: a vector for each text, such that a query is near the texts that are relevant to it.

Shape suffixes: B = rows of a batch, P = texts of a batch, C = texts of a batch that are no queries, E = width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.data.relevant import RELEVANT
from tunesmith.spec.kinds import Kind
from tunesmith.spec.ranking import Cosine, Embedding, InBatch
from tunesmith.tasks.base import PARTS, Batch, Encoded, Encoding, Processor, Task
from tunesmith.tasks.vectors import Ranking, collate_parts, encode_alone, gains, pooled, rankings, relevant_texts, told
from tunesmith.tasks.windows import WINDOW

RANKING_METRICS = ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "map")
WANTED, BARRED, PASSAGE = "wanted", "barred", "passage"
"""Keys of an encoded query (texts of the corpus that it should find, and the one that it is itself), and of a text of the corpus."""


@dataclass(frozen=True)
class Asked:
    """The row of the table whose query is trained on."""

    row: int


class FeatureExtraction(Task):
    """The task of vectors by which queries find texts.

    What is answered for a split are its queries, and after them all texts of the corpus. What is trained on are pairs of a query and a
    text that is relevant to it, with the texts that were judged wrong.

    Args:
        options: pooling and loss.
        corpus: the texts that queries are ranked against; none where vectors alone are wanted.
        scored_texts: texts that queries are ranked against while training.
    """

    name = "feature-extraction"
    labels: tuple[str, ...] = ()

    def __init__(self, *, options: Embedding | None = None, corpus: Sequence[str] = (), scored_texts: int = 2000) -> None:
        self.options, self.corpus, self.scored_texts = options or Embedding(), list(corpus), scored_texts
        self.number_of = {text: number for number, text in enumerate(self.corpus)}
        self._encoded: dict[int, Encoding] = {}

    @property
    def kind(self) -> Kind:
        return "relevant"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "label")

    def encode(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        queries, texts = encode_alone(rows["text"].to_list(), processor, max_length), self._texts(processor, max_length)
        for row, text in zip(queries.rows, rows["text"], strict=True):
            row[BARRED] = self.number_of.get(text)
        if "label" in rows.columns:
            for row, wanted in zip(queries.rows, relevant_texts(rows["label"]), strict=True):
                row[WANTED] = [self.number_of[text] for text in wanted if text in self.number_of]
        return Encoding([*queries.rows, *texts.rows], [*queries.lengths, *texts.lengths], queries.cut, processor=processor)

    def _texts(self, processor: Processor, max_length: int) -> Encoding:
        """The corpus as encoded rows, made once."""
        if max_length not in self._encoded:
            texts = encode_alone(self.corpus, processor, max_length) if self.corpus else Encoding([], [], 0)
            for number, row in enumerate(texts.rows):
                row[PASSAGE] = number
            self._encoded[max_length] = texts
        return self._encoded[max_length]

    def cut_texts(self, processor: Processor, max_length: int) -> int:
        """How many texts of the corpus lose tokens."""
        return self._texts(processor, max_length).cut

    def training(self, rows: pl.DataFrame, processor: Processor, max_length: int) -> Encoding:
        """A row for each query and text relevant to it; with the loss by cosine, for each judged text."""
        texts = self._texts(processor, max_length)
        queries = encode_alone(rows["text"].to_list(), processor, max_length)
        known = dict(zip(self.corpus, texts.rows, strict=True))
        highest = max((entry["relevance"] for row in rows["label"].to_list() for entry in row), default=1.0)
        texts_of, out = rows["text"].to_list(), list[Encoded]()
        for number, (query, judged) in enumerate(zip(queries.rows, rows["label"].to_list(), strict=True)):
            asked = Asked(number)
            right = [entry["text"] for entry in judged if entry["relevance"] > 0]
            wrong = [entry["text"] for entry in judged if entry["relevance"] <= 0]
            if isinstance(self.options.loss, Cosine):
                out += [{**_row(asked, query, [known[entry["text"]]]), "labels": entry["relevance"] / highest} for entry in judged]
            else:
                rest = [known[text] for text in wrong]
                same = [self.number_of[text] for text in (*right, texts_of[number]) if text in self.number_of]  # none is wrong for itself
                out += [{**_row(asked, query, [known[text], *rest]), "known": same} for text in right]
        return Encoding(out, [max(len(text["input_ids"]) for text in row[PARTS]) for row in out], queries.cut + texts.cut)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """The texts of all rows. For training `queries` (B,) numbers those that are queries, `labels` the relevant texts among the others,
        and `allowed` (B, C) says which of the others count for a query: its own relevant one, and those neither relevant nor itself."""
        batch = collate_parts(rows)
        if PARTS not in rows[0]:
            return batch
        sizes = [len(row[PARTS]) for row in rows]
        starts = np.cumsum([0, *sizes[:-1]])
        batch["queries"] = torch.from_numpy(starts)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([float(row["labels"]) for row in rows])
            return batch
        owner_C = np.repeat(np.arange(len(rows)), np.array(sizes) - 1)
        text_C = np.array([text[PASSAGE] for row in rows for text in row[PARTS][1:]])
        own_B = starts - np.arange(len(rows))  # each query before takes one place less
        allowed_BC = np.stack([~np.isin(text_C, row["known"]) for row in rows])
        allowed_BC[np.arange(len(rows)), own_B] = True
        assert (owner_C[own_B] == np.arange(len(rows))).all(), "a query's own text comes after it"
        batch["labels"], batch["allowed"] = torch.from_numpy(own_B), torch.from_numpy(allowed_BC)
        return batch

    @property
    def head(self) -> Any:
        from transformers import AutoModel  # seconds to import: only when a model is needed

        return AutoModel

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        vectors_PE, rule = pooled(outputs, batch["attention_mask"], self.options.pooling), self.options.loss
        is_query_P = torch.zeros(len(vectors_PE), dtype=torch.bool, device=vectors_PE.device)
        is_query_P[batch["queries"]] = True
        query_BE, text_CE, count = vectors_PE[is_query_P], vectors_PE[~is_query_P], torch.tensor(float(len(batch["queries"])))
        if isinstance(rule, Cosine):
            return (((query_BE * text_CE).sum(1) - batch["labels"]) ** 2).sum(), count
        cosine_BC, own_B1 = query_BE @ text_CE.T, batch["labels"][:, None]
        if isinstance(rule, InBatch):
            scores_BC = (cosine_BC / rule.temperature).masked_fill(~batch["allowed"], -torch.inf)
            return F.cross_entropy(scores_BC, batch["labels"], reduction="sum"), count
        wrong_BC = cosine_BC.masked_fill(~batch["allowed"], -2.0).scatter(1, own_B1, -2.0)
        return torch.relu(rule.margin - cosine_BC.gather(1, own_B1).squeeze(1) + wrong_BC.amax(1)).sum(), count

    def answer(self, model: Any, batch: Batch) -> Tensor:
        """The vector of each text (P, E), of length one."""
        return pooled(model(**batch), batch["attention_mask"], self.options.pooling).cpu()

    def ranked(self, answers: Tensor, encoding: Encoding) -> list[Ranking]:
        """What each query of an encoding finds among the texts after them."""
        queries = [row for row in encoding.rows if PASSAGE not in row]
        texts = [row[PASSAGE] for row in encoding.rows[len(queries) :]]
        place_of = {number: place for place, number in enumerate(texts)}
        wanted = [[place_of[number] for number in row.get(WANTED, ()) if number in place_of] for row in queries]
        barred = [place_of.get(row[BARRED]) for row in queries]
        found = rankings(answers[: len(queries)], answers[len(queries) :], wanted, barred)
        return [Ranking(one.ranks, one.scores, [(texts[place], score) for place, score in one.best]) for one in found]

    def scores(self, answers: Tensor, encoding: Encoding) -> list[list[int]]:
        """The ranks of the relevant texts of each query, in the order of its label; 0 where one is not found."""
        return [one.ranks for one in self.ranked(answers, encoding)]

    def decode(self, answers: Tensor, encoding: Encoding) -> pl.DataFrame:
        """The best texts of each query with their cosines, and ranks and cosines of those that are relevant; without a corpus, vectors."""
        if not self.corpus:
            return pl.DataFrame({"predicted": pl.Series(answers.tolist(), dtype=pl.List(pl.Float32))})
        return told(self.ranked(answers, encoding), self.corpus)

    def scored(self, encoding: Encoding) -> Encoding:
        """The queries with at most `scored_texts` texts: those that they want, then others in the order of the corpus, which is random."""
        queries = [number for number, row in enumerate(encoding.rows) if PASSAGE not in row]
        wanted = {number for row in encoding.rows[: len(queries)] for number in row.get(WANTED, ())}
        texts = sorted(range(len(queries), len(encoding.rows)), key=lambda n: (encoding.rows[n][PASSAGE] not in wanted, n))
        return encoding.part([*queries, *sorted(texts[: max(self.scored_texts, len(wanted))])])

    def targets(self, rows: pl.DataFrame) -> np.ndarray:
        """The relevances of the relevant texts of each query (N,), as lists."""
        return gains(rows["label"])

    @property
    def metrics(self) -> tuple[str, ...]:
        return RANKING_METRICS

    @classmethod
    def example(cls) -> pl.DataFrame:
        queries = ["the parcel never came", "I was charged twice", "where is my parcel", "forgot my password"]
        texts = ["delivery takes three days", "refunds of double charges", "tracking a parcel", "how to reset a password"]
        label = [[{"text": text, "relevance": 1.0}, {"text": texts[n - 1], "relevance": 0.0}] for n, text in enumerate(texts)]
        return pl.DataFrame({"text": queries, "label": pl.Series(label, dtype=RELEVANT)})


def _row(asked: Asked, query: Encoded, texts: Sequence[Encoded]) -> Encoded:
    return {PARTS: [query, *texts], WINDOW: asked}
