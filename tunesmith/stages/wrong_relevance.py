"""Judgements of relevance that are probably wrong, by the cosines of vectors that the untrained network makes.

Shape suffixes: Q = queries, M = texts, E = width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from tunesmith.core.rundir import StageWriter
from tunesmith.data.label_relevance import Pairs, suspect_pairs
from tunesmith.models.forward import predict_logits
from tunesmith.models.load import load_model
from tunesmith.stages.context import Context
from tunesmith.stages.quality import EXAMPLE_CHARACTERS, EXAMPLES, Verdict, content_of, nothing_judged, tell
from tunesmith.tasks.feature_extraction import FeatureExtraction

QUERIES, TEXTS, BLOCK = 5_000, 2_000, 512
"""Most queries that are judged, by content hash; about how many texts they are compared with besides judged ones; queries at a time."""
FEWEST_TEXTS = 20
RULE = "a relevant text is suspect where it is less like its query than the least of as many normal likenesses of this spread, and a \
tenth of all texts are nearer; another one, where it is nearer than all relevant ones and more alike than half of all relevant pairs"
COLUMNS = {
    "row": pl.Int64, "id": pl.String, "text": pl.String, "given": pl.Float64, "suggested": pl.String, "quality": pl.Float64,
    "reason": pl.String,
}  # fmt: skip


def inspect_relevant(context: Context, stage: StageWriter) -> None:
    """Judged texts that are far from their query, and others that are near. Nothing is fitted, so there are no folds."""
    rows = np.sort(context.table("train")["id"].arg_sort().to_numpy()[:QUERIES])
    table = context.table("train")[rows.tolist()]
    judged = [(query, entry["text"], entry["relevance"]) for query, row in enumerate(table["label"].to_list()) for entry in row]
    texts = list(dict.fromkeys([*(text for _, text, _ in judged), *context.corpus[:: max(len(context.corpus) // TEXTS, 1)]]))
    if len(texts) < FEWEST_TEXTS:
        nothing_judged(context, stage, f"only {len(texts)} texts to compare with, fewer than {FEWEST_TEXTS}")
        return
    query_QE, text_ME = _vectors(context, table, texts)
    number = {text: place for place, text in enumerate(texts)}
    pairs = _compared(query_QE, text_ME, [(query, number[text], relevance) for query, text, relevance in judged])
    told: list[dict[str, Any]] = []
    for suspect in suspect_pairs(pairs):
        query, text, relevance = judged[suspect.pair]
        told.append({"row": int(rows[query]), "id": table["id"][query], "text": text, "given": relevance, "suggested": None,
                     "quality": suspect.chance, "reason": suspect.reason})  # fmt: skip
    suspects = pl.DataFrame(told, schema=COLUMNS)
    query_of = dict(zip(table["id"], table["text"], strict=True))
    shown = [{"text": query_of[one["id"]][:EXAMPLE_CHARACTERS], "given": f"{one['given']:g}: {one['text'][:EXAMPLE_CHARACTERS]}",
              "suggested": None, "quality": one["quality"], "reason": one["reason"]} for one in told[:EXAMPLES]]  # fmt: skip
    tell(context, stage, suspects, content_of(context, Verdict(suspects, shown, len(rows), RULE)))


def _vectors(context: Context, queries: pl.DataFrame, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Vectors of queries and of texts by the untrained network, of length one."""
    plain = FeatureExtraction(options=context.spec.embedding, corpus=texts)
    model = load_model(context.spec.model, plain.head, {})
    assert context.spec.model.max_length, "resolved specs have a length"
    encoding = plain.encode(queries.select("text"), context.processor, context.spec.model.max_length)
    made: Tensor = predict_logits(model, plain, encoding, context.rows_watch("inspect", "vectors of the untrained network"))
    return made[: len(queries)], made[len(queries) :]


def _compared(query_QE: Tensor, text_ME: Tensor, judged: list[tuple[int, int, float]]) -> Pairs:
    """How alike the judged pairs are, beside all texts."""
    query_P, text_P = (np.array([pair[side] for pair in judged], np.int64) for side in (0, 1))
    relevant_P = np.array([relevance > 0 for _, _, relevance in judged])
    likeness_P, nearer_P = np.zeros(len(judged)), np.zeros(len(judged))
    for start in range(0, len(query_QE), BLOCK):
        cosine_QM = (query_QE[start : start + BLOCK] @ text_ME.T).double().numpy()
        mean_Q, spread_Q = cosine_QM.mean(1), np.maximum(cosine_QM.std(1), 1e-12)
        for pair in np.flatnonzero((query_P >= start) & (query_P < start + len(cosine_QM))).tolist():
            here = int(query_P[pair]) - start
            cosine = cosine_QM[here, text_P[pair]]
            likeness_P[pair] = (cosine - mean_Q[here]) / spread_Q[here]
            nearer_P[pair] = (cosine_QM[here] > cosine).mean()
    return Pairs(query_P, relevant_P, likeness_P, nearer_P)
