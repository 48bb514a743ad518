"""Texts as vectors: encoded rows of several texts, pooling, and the ranks of wanted texts. What tasks that embed share.

Shape suffixes: B = rows of a batch, P = texts of a batch, T = tokens, E = width, N = queries, M = texts that are ranked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.tasks.base import PARTS, Batch, Encoded, Encoding, Processor, parts_of
from tunesmith.tasks.texts import collate_texts, encode_texts

SHOWN = 10
"""Texts of a ranking that predictions tell."""
BLOCK = 512
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a query finds: ranks (from 1; 0 for not found) and scores of its wanted texts, and the best texts with their scores."""

    ranks: list[int]
    scores: list[float]
    best: list[tuple[int, float]]


def encode_alone(texts: Sequence[str], processor: Processor, max_length: int) -> Encoding:
    """Each text as an encoded row of its own."""
    return encode_texts(pl.DataFrame({"text": pl.Series(list(texts), dtype=pl.String)}), ("text",), processor, max_length)


def together(parts: Sequence[Encoding]) -> Encoding:
    """Rows whose texts are those of several encodings, in order. The texts that were cut are those of the encoding with most."""
    rows: list[Encoded] = [{PARTS: list(texts)} for texts in zip(*(part.rows for part in parts), strict=True)]
    lengths = [max(len(text["input_ids"]) for text in row[PARTS]) for row in rows]
    return Encoding(rows, lengths, max((part.cut for part in parts), default=0))


def collate_parts(rows: Sequence[Encoded]) -> Batch:
    """One padded batch of all texts of the rows, one after the other."""
    return collate_texts(parts_of(rows))


def pooled(outputs: Any, mask_PT: Tensor, pooling: str) -> Tensor:
    """A vector of length one for each text (P, E): the mean of its last states, or that of its first token."""
    states_PTE = outputs.last_hidden_state.float()
    if pooling == "cls":
        return F.normalize(states_PTE[:, 0], dim=-1)
    mask_PT1 = mask_PT.unsqueeze(-1).to(states_PTE.dtype)
    return F.normalize((states_PTE * mask_PT1).sum(1) / mask_PT1.sum(1).clamp(min=1), dim=-1)


def rankings(query_NE: Tensor, text_ME: Tensor, wanted: Sequence[Sequence[int]], barred: Sequence[int | None]) -> Iterator[Ranking]:
    """The ranking of all texts for each query, by inner product. Of equal scores the text that comes first is ranked higher.

    Args:
        query_NE: vectors of queries.
        text_ME: vectors of texts.
        wanted: numbers of the texts that each query should find.
        barred: number of a text that a query must not find, because it is the query itself; None for none.
    """
    for start in range(0, len(query_NE), BLOCK):
        scores_NM = (query_NE[start : start + BLOCK] @ text_ME.T).double()
        for place, score_M in enumerate(scores_NM, start):
            if (own := barred[place]) is not None:
                score_M[own] = -torch.inf
            yield ranking(score_M.numpy(), wanted[place], range(len(score_M)))


def ranking(score_M: Array, wanted: Sequence[int], candidates: Sequence[int]) -> Ranking:
    """The ranking of candidates, whose scores are `score_M` in their order, for one query."""
    places = {number: place for place, number in enumerate(candidates)} if not isinstance(candidates, range) else None
    ranks, scores = [], []
    for number in wanted:
        place = number if places is None else places.get(number)
        if place is None or score_M[place] == -np.inf:
            ranks.append(0)
            scores.append(float("nan"))
            continue
        own = score_M[place]
        ranks.append(1 + int((score_M > own).sum()) + int((score_M[:place] == own).sum()))
        scores.append(float(own))
    shown = min(SHOWN, len(score_M))
    near = np.argpartition(-score_M, shown - 1)[:shown] if shown else np.zeros(0, np.int64)
    if shown:  # ties at the edge: those that come first
        near = np.flatnonzero(score_M >= score_M[near].min())
    order = near[np.lexsort((near, -score_M[near]))][:shown]
    best = [(int(candidates[place]), float(score_M[place])) for place in order if np.isfinite(score_M[place])]
    return Ranking(ranks, scores, best)


def told(found: Sequence[Ranking], corpus: Sequence[str]) -> pl.DataFrame:
    """Predictions: `predicted` (the best texts with scores), `ranks` and `scores` of the wanted texts."""
    predicted = [[{"text": corpus[number], "score": score} for number, score in one.best] for one in found]
    return pl.DataFrame(
        {
            "predicted": pl.Series(predicted, dtype=pl.List(pl.Struct({"text": pl.String, "score": pl.Float64}))),
            "ranks": pl.Series([one.ranks for one in found], dtype=pl.List(pl.Int64)),
            "scores": pl.Series([one.scores for one in found], dtype=pl.List(pl.Float64)),
        }
    )


def relevant_texts(label: pl.Series) -> list[list[str]]:
    """The relevant texts of each query, in the order of its label."""
    return [[entry["text"] for entry in row if entry["relevance"] > 0] for row in label.to_list()]


def gains(label: pl.Series) -> Array:
    """The relevances of these texts (N,), as lists."""
    out = np.empty(len(label), object)
    out[:] = [[entry["relevance"] for entry in row if entry["relevance"] > 0] for row in label.to_list()]
    return out
