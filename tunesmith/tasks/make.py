"""The task of a run, from its spec and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.balance import balanced_weights
from tunesmith.spec.kinds import Kind
from tunesmith.spec.schema import Focal, Spec
from tunesmith.tasks.base import Task
from tunesmith.tasks.feature_extraction import RANKING_METRICS, FeatureExtraction
from tunesmith.tasks.fill_mask import MASKED_METRICS, FillMask
from tunesmith.tasks.losses import robust_loss
from tunesmith.tasks.question_answering import ANSWER_METRICS, QuestionAnswering
from tunesmith.tasks.sentence_similarity import SentenceSimilarity, SimilarityApart
from tunesmith.tasks.text_classification import MANY_LABEL_METRICS, ONE_LABEL_METRICS, TextClassification
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.text_regression import NUMBER_METRICS, Scale, TextRegression
from tunesmith.tasks.text_to_text import WRITING_METRICS, Summarization, TextToText, Translation
from tunesmith.tasks.token_classification import SPAN_METRICS, TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        TextClassification, TextRegression, SentenceSimilarity, QuestionAnswering, TokenClassification, FeatureExtraction, TextRanking,
        FillMask,
    )
}  # fmt: skip
WRITERS: dict[str, type[TextToText]] = {task.name: task for task in (Summarization, Translation, TextToText)}
TASKS |= WRITERS
METRICS: dict[Kind, tuple[str, ...]] = {
    "class": ONE_LABEL_METRICS,
    "classes": MANY_LABEL_METRICS,
    "number": NUMBER_METRICS,
    "answers": ANSWER_METRICS,
    "text": WRITING_METRICS,
    "spans": SPAN_METRICS,
    "relevant": RANKING_METRICS,
    "masked": MASKED_METRICS,
}


def metric_names(spec: Spec) -> tuple[str, ...]:
    """Names of the metrics of the spec's task."""
    return METRICS[spec.kind]


def make_task(spec: Spec, labels: list[str], train: pl.DataFrame, trained: np.ndarray | None = None, corpus: Sequence[str] = ()) -> Task:
    """The spec's task for these labels.

    Args:
        spec: which task, and its losses.
        labels: names of the classes in class-id order; empty where there are none.
        train: the training rows.
        trained: targets of the rows that are trained on. Balanced class weights, rows / (classes × rows of the class), are counted
            from them, or from `train` when left out. Numbers are learned in units of their spread, and are plain when left out.
        corpus: the texts that queries are ranked against; none where there is only to predict.
    """
    if spec.kind == "relevant":
        return _ranking(spec, corpus)
    if spec.kind == "masked":
        return FillMask(probability=spec.train.mlm_probability, seed=spec.seed)
    if spec.kind == "text":
        rule = spec.generation
        options: dict[str, Any] = {"prefix": rule.prefix, "max_target": rule.max_new_tokens}
        return WRITERS[spec.task](**options, label_smoothing=spec.train.label_smoothing)
    pair = "text_pair" in train.columns
    if spec.kind == "answers":
        return QuestionAnswering(options=spec.answers, can_be_empty=can_be_empty(spec, train))
    if spec.kind == "spans":
        return TokenClassification(labels)
    if spec.kind == "number":
        if spec.task == SentenceSimilarity.name and spec.embedding.reading == "apart":
            return SimilarityApart(scale=_range(train), options=spec.embedding)
        scale = None if trained is None else Scale(float(trained.mean()), max(float(trained.std()), 1e-12))
        return (SentenceSimilarity if spec.task == SentenceSimilarity.name else TextRegression)(pair=pair, scale=scale)
    options = {"multi_label": spec.data.multi_label, "pair": pair}
    gamma = spec.train.loss.gamma if isinstance(spec.train.loss, Focal) else None
    weights = None
    if spec.train.class_weights == "balanced" and (trained is not None or "label" in train.columns):  # not where there is only to predict
        targets_N = TextClassification(labels, **options).targets(train) if trained is None else trained
        weights = balanced_weights(np.bincount(targets_N, minlength=len(labels))).tolist()
    options |= {"label_smoothing": spec.train.label_smoothing, "focal_gamma": gamma, "row_loss": robust_loss(spec.train.loss)}
    return TextClassification(labels, **options, class_weights=weights)


def _ranking(spec: Spec, corpus: Sequence[str]) -> Task:
    rule = spec.ranking
    if spec.task == FeatureExtraction.name:
        return FeatureExtraction(options=spec.embedding, corpus=corpus, scored_texts=rule.scored_texts)
    return TextRanking(corpus=corpus, candidates=rule.candidates, negatives=rule.negatives)


def _range(train: pl.DataFrame) -> Scale | None:
    """The unit in which cosines from nought to one are the numbers of the training rows, the smallest to the largest."""
    if "label" not in train.columns:
        return None
    low, high = (float(value) for value in (train["label"].min(), train["label"].max()))  # type: ignore[arg-type]
    return Scale(low, max(high - low, 1e-12))


def can_be_empty(spec: Spec, train: pl.DataFrame) -> bool:
    """True where training rows have no answer, and the spec does not say that there is always one."""
    asked = spec.kind == "answers" and spec.answers.no_answer == "auto" and "label" in train.columns
    return asked and bool((train["label"].list.len() == 0).any())
