"""Texts given and written for the same rows, counted once a row, so that a corpus metric on a resample is a matrix product.

chrF: Popović (2015), six orders of characters, beta 2. BLEU: Papineni et al. (2002), with the tokens and the smoothing of sacrebleu.
ROUGE: Lin (2004), by rouge-score, with words of every script.
Shape suffixes: R = resamples, N = rows, K = counts of a row.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import RunError
from tunesmith.core.records import Issue
from tunesmith.evaluate.answers import Bools, Floats

CHARACTERS, BETA, WORDS = 6, 2.0, 4
ROUGE = ("rouge1", "rouge2", "rougeL")
WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts as they should be and as they were written, N of each."""

    labels: list[str]
    predicted: list[str]

    classes = 0

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def right_N(self) -> Bools:
        """True where the text is the right one, but for outer spaces."""
        return np.array([said.strip() == wanted.strip() for said, wanted in self._pairs()], np.bool_)

    @cached_property
    def characters_NK(self) -> Floats:
        """Sequences of 1 … 6 characters, spaces left out: of each order those written, those wanted, and those in both."""
        return _counted(self._pairs(), character_counts, 3 * CHARACTERS)

    @cached_property
    def words_NK(self) -> Floats:
        """Length written and length wanted, then sequences of 1 … 4 words in both, then those written: sacrebleu's counts."""
        return _counted(self._pairs(), word_counts, 2 + 2 * WORDS)

    @cached_property
    def rouge_NK(self) -> Floats:
        """F1 by single words, by pairs of words, and by the longest common sequence of words."""
        return _counted(self._pairs(), rouge_scores, len(ROUGE))

    def _pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.predicted, self.labels, strict=True))


def texts_from_table(predictions: pl.DataFrame) -> Texts:
    """Texts as a predictions table holds them.

    Raises:
        RunError: one is missing.
    """
    missing = predictions["predicted"].null_count() + predictions["label"].null_count()
    if missing:
        raise RunError(Issue("predictions", "must hold a text for each row", f"{missing} cells without one"))
    return Texts(predictions["label"].to_list(), predictions["predicted"].to_list())


def character_counts(said: str, wanted: str) -> list[int]:
    """For each order of characters: sequences written, wanted, and in both."""
    said, wanted = "".join(said.split()), "".join(wanted.split())
    out: list[int] = []
    for order in range(1, CHARACTERS + 1):
        a, b = (Counter(text[n : n + order] for n in range(len(text) - order + 1)) for text in (said, wanted))
        both = sum(min(count, b[piece]) for piece, count in a.items())
        # What sacrebleu does where nothing is wanted: what is written then counts as nothing too.
        out += [sum(a.values()) if b else 0, sum(b.values()), both]
    return out


def word_counts(said: str, wanted: str) -> list[int]:
    """Length written, length wanted, matches of each order, sequences written of each order."""
    score = _bleu().corpus_score([said], [[wanted]])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def rouge_scores(said: str, wanted: str) -> list[float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L."""
    found = _rouge().score(wanted, said)
    return [float(found[name].fmeasure) for name in ROUGE]


def chrf(sample: Any) -> Floats:
    """chrF of each resample, 0 … 100: precision and recall averaged over the orders that both sides have."""
    return _chrf(sample.weights_RN @ sample.answers.characters_NK)


def chrf_of_rows(answers: Texts) -> Floats:
    """chrF of each row by itself, (N,)."""
    return _chrf(answers.characters_NK)


def _chrf(counts_RK: Floats) -> Floats:
    counts = counts_RK.reshape(-1, CHARACTERS, 3)
    said, wanted, both = counts[..., 0], counts[..., 1], counts[..., 2]
    counted = (said > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(1), 1)
    precision, recall = (np.divide(both, side, out=np.zeros_like(both), where=counted).sum(1) / orders for side in (said, wanted))
    below = BETA**2 * precision + recall
    return np.asarray(100 * np.divide((1 + BETA**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0))


def bleu(sample: Any) -> Floats:
    """BLEU of each resample, 0 … 100, smoothed as sacrebleu does: an order without a match halves with each such order before it."""
    counts = sample.weights_RN @ sample.answers.words_NK
    said, wanted, both, total = counts[:, 0], counts[:, 1], counts[:, 2 : 2 + WORDS], counts[:, 2 + WORDS :]
    halvings = 2.0 ** np.cumsum(both == 0, axis=1)
    share = np.divide(np.where(both > 0, both, 1 / halvings), total, out=np.zeros_like(both), where=total > 0)
    usable = (share > 0).all(1) & (both > 0).any(1)
    logs = np.log(np.where(share > 0, share, 1.0)).mean(1)
    brevity = np.where(said < wanted, np.exp(1 - np.divide(wanted, said, out=np.full_like(said, np.inf), where=said > 0)), 1.0)
    return np.asarray(np.where(usable, 100 * brevity * np.exp(logs), 0.0))


def rouge(sample: Any, name: str) -> Floats:
    """Mean F1 of a ROUGE, 0 … 1."""
    return np.asarray(sample.mean(sample.answers.rouge_NK[:, ROUGE.index(name)]))


def length_ratio(sample: Any) -> Floats:
    """Words written for each word wanted; NaN where none is wanted."""
    lengths = sample.weights_RN @ sample.answers.words_NK[:, :2]
    return np.asarray(np.divide(lengths[:, 0], lengths[:, 1], out=np.full(len(lengths), np.nan), where=lengths[:, 1] > 0))


def signatures() -> dict[str, str]:
    """How sacrebleu would describe the two metrics that follow it, by metric."""
    from importlib.metadata import version

    release = version("sacrebleu")
    return {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{release}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:{CHARACTERS}|nw:0|space:no|version:{release}",
    }


class _Words:
    """Words of any script in lower case, in place of rouge-score's, which knows none but those of a to z."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return WORD.findall(text.lower())


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # a moment to import: only where texts are scored

    return BLEU(effective_order=False)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(list(ROUGE), tokenizer=_Words())


def _counted(pairs: list[tuple[str, str]], count: Any, width: int) -> Floats:
    return np.array([count(said, wanted) for said, wanted in pairs], np.float64).reshape(-1, width)
