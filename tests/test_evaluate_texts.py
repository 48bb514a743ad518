"""Scores of written texts: the same as those of the reference libraries, also on rows that are repeated."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tunesmith.core.errors import RunError
from tunesmith.evaluate.intervals import Resampling, estimates, paired_differences
from tunesmith.evaluate.metrics import METRICS, Sample
from tunesmith.evaluate.texts import ROUGE, Texts, bleu, chrf, chrf_of_rows, length_ratio, rouge, signatures, texts_from_table

WORDS = st.sampled_from(
    ["the", "a", "cat", "sat", "on", "mat", "dog", "Über", "große", "12,3", "don't", "(", "end", ")", ".", "!", "猫", "x-ray", "\t", "\n"]
)
SENTENCES = st.lists(WORDS, max_size=9).map(" ".join)
ROWS = st.lists(st.tuples(SENTENCES, SENTENCES, st.booleans(), st.integers(0, 3)), min_size=1, max_size=8)


def repeated(rows: list[tuple[str, str, bool, int]]) -> tuple[Texts, np.ndarray, list[str], list[str]]:
    """Texts with weights, and the same texts as often as they weigh: right ones, written ones."""
    right, said = [r for r, _, _, _ in rows], [r if same else s for r, s, same, _ in rows]
    weights = np.array([[float(count) for *_, count in rows]])
    many = [(r, s) for r, s, (*_, count) in zip(right, said, rows, strict=True) for _ in range(count)]
    return Texts(right, said), weights, [r for r, _ in many], [s for _, s in many]


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_corpus_scores_are_sacrebleus_on_repeated_rows(rows: list[tuple[str, str, bool, int]]) -> None:
    answers, weights_RN, right, said = repeated(rows)
    if not right:
        return
    sample = Sample(answers, weights_RN)
    assert chrf(sample)[0] == pytest.approx(sacrebleu.corpus_chrf(said, [right]).score, abs=1e-9)
    assert bleu(sample)[0] == pytest.approx(sacrebleu.corpus_bleu(said, [right]).score, abs=1e-9)


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_scores_of_rows_and_bounds(rows: list[tuple[str, str, bool, int]]) -> None:
    answers, *_ = repeated(rows)
    for number, (right, said) in enumerate(zip(answers.labels, answers.predicted, strict=True)):
        assert chrf_of_rows(answers)[number] == pytest.approx(sacrebleu.corpus_chrf([said], [[right]]).score, abs=1e-9)
    for name, metric in METRICS["text"].items():
        assert metric.lower <= metric.value(answers) <= (metric.upper or np.inf) + 1e-9, name


def test_rouge_is_rouge_scores_on_latin_letters_and_knows_others() -> None:
    right, said = ["The cat sat on the mat.", "nothing alike", ""], ["a cat sat near that mat", "other words", "text"]
    sample = Sample.whole(Texts(right, said))
    for name in ROUGE:
        peer = RougeScorer([name])
        assert rouge(sample, name)[0] == pytest.approx(np.mean([peer.score(r, s)[name].fmeasure for r, s in zip(right, said, strict=True)]))
    assert rouge(Sample.whole(Texts(["собака спит"], ["собака спит"])), "rougeL")[0] == 1.0


def test_signatures_are_sacrebleus() -> None:
    metrics = {"bleu": sacrebleu.BLEU(), "chrf": sacrebleu.CHRF()}
    for name, metric in metrics.items():
        metric.corpus_score(["a text"], [["a text"]])
        assert signatures()[name] == str(metric.get_signature())


def test_intervals_hold_the_score_and_differences_are_paired() -> None:
    draw = np.random.default_rng(0)
    words = ["one", "two", "three", "four", "five", "six"]
    right = [" ".join(draw.choice(words, 6)) for _ in range(60)]
    better = [r if draw.random() < 0.6 else " ".join(draw.choice(words, 6)) for r in right]
    worse = [" ".join(draw.choice(words, 5)) for _ in right]
    ours, theirs = Texts(right, better), Texts(right, worse)
    for name, estimate in estimates(ours, METRICS["text"], Resampling(0, 200)).items():
        assert estimate.interval and estimate.interval[0] < estimate.value < estimate.interval[1], name  # type: ignore[operator]
    same = paired_differences(ours, ours, METRICS["text"], Resampling(0, 100))
    assert all(one.value == 0 for one in same.values())
    assert paired_differences(ours, theirs, METRICS["text"], Resampling(0, 200))["chrf"].interval[0] > 0  # type: ignore[index]


def test_lengths_and_missing_texts() -> None:
    assert length_ratio(Sample.whole(Texts(["one two", "three"], ["one", "two three four five six"])))[0] == 2.0
    with pytest.raises(RunError, match="1 cells"):
        texts_from_table(pl.DataFrame({"label": ["a", "b"], "predicted": ["a", None]}))
