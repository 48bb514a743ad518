"""Answers that are probably those of another question about the same text, by a weak judge that has not seen the text."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from tunesmith.core.rundir import StageWriter
from tunesmith.data.label_answers import ODD, Candidates, candidates, odd_answers
from tunesmith.data.spans import context_groups
from tunesmith.models.linear import Penalty, fit_logistic
from tunesmith.stages.context import Context
from tunesmith.stages.folding import training_folds
from tunesmith.stages.quality import EXAMPLE_CHARACTERS, EXAMPLES, FOLDS, ONE_GROUP, TOLERANCE, Verdict, content_of, nothing_judged, tell

RULE = (
    "a weak judge that knows words and forms of answers: an answer is suspect where it tells it from the other answers of its text by "
    f"{ODD:g} robust standard deviations less than is usual"
)
FEWEST = 100
"""Rows with other answers to compare with, below which nothing is judged."""
STRENGTH = 0.1
COLUMNS = {"row": pl.Int64, "id": pl.String, "given": pl.String, "suggested": pl.String, "quality": pl.Float64, "reason": pl.String}


def inspect_answers(context: Context, stage: StageWriter) -> None:
    """Suspect answers of questions whose text holds answers of other questions too."""
    table = context.table("train")
    answers = table["label"].to_list()
    found = candidates(table["text"].to_list(), table["text_pair"].to_list(), answers)
    rows = np.unique(found.row_N)
    if len(rows) < FEWEST:
        nothing_judged(context, stage, f"only {len(rows)} questions are about a text with other answers, fewer than {FEWEST}")
        return
    texts = table.with_columns(context_groups(table["text_pair"]))
    folds_N = training_folds(context, texts, FOLDS)[found.row_N]
    if len(np.unique(folds_N)) < 2:
        nothing_judged(context, stage, ONE_GROUP)
        return
    logit_N = judged(found, folds_N)
    own = np.flatnonzero(found.own_N)
    told = [(int(found.row_N[own[place]]), 1 / (1 + np.exp(-logit_N[own[place]]))) for place, _ in odd_answers(logit_N[own])]
    suspects = pl.DataFrame(
        [{"row": row, "id": table["id"][row], "given": answers[row][0]["text"], "suggested": None, "quality": float(chance),
          "reason": "more like the answer of another question"} for row, chance in told], schema=COLUMNS)  # fmt: skip
    asked = table.select("id", text=pl.col("text").str.slice(0, EXAMPLE_CHARACTERS))
    shown = suspects.head(EXAMPLES).join(asked, on="id", maintain_order="left").drop("row").to_dicts()
    tell(context, stage, suspects, content_of(context, Verdict(suspects, shown, len(rows), RULE, FOLDS, STRENGTH)))


def judged(found: Candidates, folds_N: np.ndarray) -> np.ndarray:
    """The logit of each pair being a question and its own answer, by a regression that has not seen its fold."""
    spread_K = np.maximum(found.numbers_NK.std(0), 1e-9)
    numbers_NK = torch.tensor((found.numbers_NK - found.numbers_NK.mean(0)) / spread_K, dtype=torch.float32)
    targets_N, penalty, logit_N = found.own_N.astype(np.int64), Penalty(STRENGTH, tolerance=TOLERANCE), np.zeros(len(numbers_NK))
    for fold in np.unique(folds_N):
        held = folds_N == fold
        said_N2 = fit_logistic(numbers_NK[~held], targets_N[~held], 2, penalty)(numbers_NK[held]).numpy()
        logit_N[held] = said_N2[:, 1] - said_N2[:, 0]
    return logit_N
