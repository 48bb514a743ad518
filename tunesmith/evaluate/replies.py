"""Answers given and predicted for the same questions, compared as the script of SQuAD 2.0 does (Rajpurkar et al. 2018).

Shape suffixes: N = rows.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from tunesmith.evaluate.answers import Bools, Floats

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)
THRESHOLD = "answers/threshold"
"""Id of the finding that holds the margin above which a question has no answer."""


@dataclass(frozen=True, eq=False)
class Replies:
    """The right answers of each question, none where its text holds none, and the predicted one, "" for none."""

    labels: Sequence[Sequence[str]]
    predicted: Sequence[str]

    classes = 0

    def __len__(self) -> int:
        return len(self.predicted)

    @cached_property
    def has_N(self) -> Bools:
        """True where the text holds an answer."""
        return np.array([bool(_right(texts)[0]) for texts in self.labels], np.bool_)

    @cached_property
    def exact_N(self) -> Floats:
        """1 where the predicted answer is a right one, but for case, punctuation, articles and spaces."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return np.array([float(normalised(said) in map(normalised, _right(texts))) for texts, said in pairs], np.float64)

    @cached_property
    def f1_N(self) -> Floats:
        """Words shared with the right answer that shares most."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return np.array([max(word_f1(text, said) for text in _right(texts)) for texts, said in pairs], np.float64)


def normalised(text: str) -> str:
    """The text in lower case, without ASCII punctuation, English articles and needless spaces, as SQuAD's script has it."""
    bare = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def word_f1(right: str, said: str) -> float:
    """Harmonic mean of precision and recall of the words of an answer; where either has none, 1 if both have none."""
    gold, given = normalised(right).split(), normalised(said).split()
    if not gold or not given:
        return float(gold == given)
    shared = sum((Counter(gold) & Counter(given)).values())
    return 2 * shared / (len(gold) + len(given))


def replies_from_table(predictions: pl.DataFrame) -> Replies:
    """Replies as a predictions table holds them: `label` with texts and starts, `predicted` with a text, null for none."""
    labels = [[answer["text"] for answer in answers] for answers in predictions["label"].to_list()]
    return Replies(labels, predictions["predicted"].fill_null("").to_list())


def best_threshold(predictions: pl.DataFrame) -> tuple[float, float]:
    """The margin above which most F1 is reached by giving no answer, and that F1; the middle between two rows' margins.

    Args:
        predictions: with `margin`, and `predicted` the best span of every row.
    """
    given = replies_from_table(predictions)
    nothing_N = Replies(given.labels, [""] * len(given)).f1_N
    margin_N = predictions["margin"].to_numpy().astype(np.float64)
    order = np.argsort(margin_N, kind="stable")
    kept = np.concatenate([[0.0], np.cumsum(given.f1_N[order])])  # rows of small margins keep their span
    left = np.concatenate([np.cumsum(nothing_N[order][::-1])[::-1], [0.0]])
    ranked = margin_N[order]
    possible = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])  # equal margins are on one side
    total = np.where(possible, kept + left, -1.0)
    place = int(total.argmax())
    ends = np.concatenate([[ranked[0] - 2.0], ranked, [ranked[-1] + 2.0]])
    return float((ends[place] + ends[place + 1]) / 2), float(total[place] / max(len(given), 1))


def with_threshold(predictions: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """The predictions without the spans of rows whose margin is above the threshold: predicted is "", start and end are null."""
    none = pl.col("margin") > threshold
    return predictions.with_columns(
        pl.when(none).then(pl.lit("")).otherwise(pl.col("predicted")).alias("predicted"),
        *(pl.when(none).then(None).otherwise(pl.col(name)).alias(name) for name in ("start", "end")),
    )


def _right(texts: Sequence[str]) -> list[str]:
    """The right answers that have a word in them; a single empty one where there is none."""
    return [text for text in texts if normalised(text)] or [""]
