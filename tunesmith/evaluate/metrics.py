"""The metrics. Each is a function of a Sample, so that one call gives its value on many bootstrap resamples.

Shape suffixes: R = resamples, N = rows, C = classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.evaluate.answers import Answers, Bools, Floats, Ids, answers_from_arrays
from tunesmith.evaluate.masked import Masked, per_token
from tunesmith.evaluate.numbers import Numbers, ranks, weighted_correlation
from tunesmith.evaluate.ranked import Ranked
from tunesmith.evaluate.replies import Replies
from tunesmith.evaluate.sample import Answered as Answered
from tunesmith.evaluate.sample import Metric as Metric
from tunesmith.evaluate.sample import Sample as Sample
from tunesmith.evaluate.sample import Statistic as Statistic
from tunesmith.evaluate.sample import ratio as ratio
from tunesmith.evaluate.spans import Spans, spans_of
from tunesmith.evaluate.texts import Texts, bleu, chrf, rouge
from tunesmith.spec.kinds import Kind


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, (C,). Precision is NaN where the class was never given, recall and F1 where no row carries it."""

    n: Ids
    given: Ids
    precision: Floats
    recall: Floats
    f1: Floats


def metrics_for(kind: Kind) -> dict[str, Metric]:
    """Metrics for a kind of labels, by name in the order of display; the first one decides."""
    return METRICS[kind]


def fast_score(name: str, kind: Kind, targets: npt.NDArray[np.generic], scores: Any) -> float:
    """The named metric of what a task's `scores` gives, against its targets. NaN when it has no value."""
    if kind == "text":
        return METRICS[kind][name].value(Texts([str(target) for target in targets], [str(said) for said in scores]))
    if kind == "spans":
        return METRICS[kind][name].value(spans_of(targets.tolist(), scores))
    if kind == "answers":
        said = [None if text is None else str(text) for text in scores.tolist()]
        return float("nan") if None in said else METRICS[kind][name].value(Replies(targets.tolist(), [text or "" for text in said]))
    if kind == "relevant":
        return METRICS[kind][name].value(Ranked(targets.tolist(), scores))
    if not np.isfinite(scores).all():
        return float("nan")
    if kind == "masked":
        return METRICS[kind][name].value(Masked(*scores.astype(np.float64).T))
    if kind == "number":
        return METRICS[kind][name].value(Numbers(targets.astype(np.float64), scores.astype(np.float64)))
    return METRICS[kind][name].value(answers_from_arrays(targets, scores))


def confusion_matrix(answers: Answers) -> Ids:
    """Rows by true class (first axis) and predicted class; only for one label a row."""
    assert not answers.multi_label, "with several labels a row there is no single predicted class"
    cells = answers.labels * answers.classes + answers.predicted
    return np.bincount(cells, minlength=answers.classes**2).reshape(answers.classes, -1).astype(np.int64)


def class_scores(answers: Answers | Spans) -> ClassScores:
    """Precision, recall, F1 and rows of each class."""
    sample = Sample.whole(answers)
    n, given = sample.labelled_RC[0], sample.predicted_RC[0]
    return ClassScores(
        n.astype(np.int64),
        given.astype(np.int64),
        np.where(given > 0, sample.precision_RC[0], np.nan),
        np.where(n > 0, sample.recall_RC[0], np.nan),
        np.where(n > 0, sample.f1_RC[0], np.nan),
    )


def _mean_where(values_RC: Floats, counts_RC: Bools) -> Floats:
    """Mean over the classes that count; NaN where none does."""
    number = counts_RC.sum(1)
    return np.where(number > 0, (values_RC * counts_RC).sum(1) / np.maximum(number, 1), np.nan)


def _or_nan(part_R: Floats, whole_R: Floats) -> Floats:
    return np.divide(part_R, whole_R, out=np.full_like(part_R, np.nan), where=whole_R != 0)


def _mean_of(sample: Sample, values_N: Floats, counts_N: Bools) -> Floats:
    """Mean over the rows that count; NaN where none does."""
    return _or_nan(sample.weights_RN @ (values_N * counts_N), sample.weights_RN @ counts_N.astype(np.float64))


def _share_right(sample: Sample) -> Floats:
    return sample.mean(sample.answers.right_N)


def _weighted_f1(sample: Sample) -> Floats:
    return _or_nan((sample.f1_RC * sample.labelled_RC).sum(1), sample.labelled_RC.sum(1))


def _micro_f1(sample: Sample) -> Floats:
    return _or_nan(2 * sample.hits_RC.sum(1), (sample.labelled_RC + sample.predicted_RC).sum(1))


def _mcc(sample: Sample) -> Floats:
    """Gorodkin's R_K (2004), 0 where all rows have one label or were given one."""
    rows, hits = sample.rows_R, sample.hits_RC.sum(1)
    labelled, predicted = sample.labelled_RC, sample.predicted_RC
    together = hits * rows - (labelled * predicted).sum(1)
    spread = (rows**2 - (labelled**2).sum(1)) * (rows**2 - (predicted**2).sum(1))
    return ratio(together, np.sqrt(spread))


def _roc_auc(sample: Sample) -> Floats:
    """One class against the rest, the mean over classes; ties count half.

    With every row ranked, the weight below a positive row counts negatives and positives; the positives' share of that
    is always half the square of their weight.
    """
    weights_NR = np.ascontiguousarray(sample.weights_RN.T)
    total, count = np.zeros(len(sample.weights_RN)), np.zeros(len(sample.weights_RN))
    for ranking in sample.answers.rankings:
        below = np.cumsum(ranking.segments @ weights_NR, 0)
        below = np.concatenate([np.zeros((1, below.shape[1])), below])
        positive = weights_NR[ranking.positives]
        positives = positive.sum(0)
        wins = (positive * (below[ranking.low] + below[ranking.high])).sum(0) / 2 - positives**2 / 2
        pairs = positives * (sample.rows_R - positives)
        total += ratio(wins, pairs)
        count += pairs > 0
    return _or_nan(total, count)


def _ece(sample: Sample) -> Floats:
    """Expected calibration error (Guo et al. 2017) with 15 equal-width bins of confidence."""
    return np.asarray(np.abs(sample.weights_RN @ sample.answers.calibration_gap_NB).sum(1) / sample.rows_R)


def _overlap_f1(sample: Sample) -> Floats:
    """Harmonic mean of the shares of predicted and of true spans that overlap one of the other side, of their type."""
    true_R, said_R = sample.labelled_RC.sum(1), sample.predicted_RC.sum(1)
    precision_R = ratio((sample.weights_RN @ sample.answers.touching).sum(1), said_R)
    recall_R = ratio((sample.weights_RN @ sample.answers.found).sum(1), true_R)
    return np.where(true_R + said_R > 0, ratio(2 * precision_R * recall_R, precision_R + recall_R), np.nan)


def _recall(sample: Sample, depth: int) -> Floats:
    return sample.mean(sample.answers.recall_N(depth))


def _spearman(sample: Sample) -> Floats:
    true, predicted = (ranks(sample.weights_RN, ties) for ties in sample.answers.ties)
    return weighted_correlation(sample.weights_RN, true, predicted)


def _r2(sample: Sample) -> Floats:
    """NaN where the true numbers do not vary."""
    labels_N = sample.answers.labels
    spread = sample.mean(labels_N**2) - sample.mean(labels_N) ** 2
    return 1 - _or_nan(sample.mean(sample.answers.error_N**2), np.where(spread > 1e-12 * sample.mean(labels_N**2), spread, 0.0))


def _by_name(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


ACCURACY = Metric("accuracy", "Accuracy", "Share of rows that got the right label.", _share_right, is_row_share=True)
SUBSET_ACCURACY = Metric(
    "subset_accuracy", "Subset accuracy", "Share of rows whose whole set of labels is right.", _share_right, is_row_share=True
)  # fmt: skip
BALANCED_ACCURACY = Metric(
    "balanced_accuracy", "Balanced accuracy", "Recall averaged over the classes that occur, rare ones counting as much as common ones.",
    lambda sample: _mean_where(sample.recall_RC, sample.labelled_RC > 0),
)  # fmt: skip
MACRO_PRECISION = Metric(
    "macro_precision", "Macro precision", "Precision averaged over classes; a class that was never given counts as nought.",
    lambda sample: _mean_where(sample.precision_RC, sample.occurs_RC),
)  # fmt: skip
MACRO_RECALL = Metric(
    "macro_recall", "Macro recall", "Recall averaged over classes; a class that was given but that no row carries counts as nought.",
    lambda sample: _mean_where(sample.recall_RC, sample.occurs_RC),
)  # fmt: skip
MACRO_F1 = Metric(
    "macro_f1", "Macro F1", "Harmonic mean of precision and recall, averaged over the classes that occur or were given.",
    lambda sample: _mean_where(sample.f1_RC, sample.occurs_RC),
)  # fmt: skip
WEIGHTED_F1 = Metric("weighted_f1", "Weighted F1", "F1 averaged over classes by their number of rows.", _weighted_f1)
MICRO_F1 = Metric("micro_f1", "Micro F1", "F1 over all decisions about labels taken together.", _micro_f1)
MICRO_F1_ONE_LABEL = Metric(
    "micro_f1", "Micro F1", "F1 over all rows taken together; with one label a row it equals accuracy.", _share_right, is_row_share=True
)  # fmt: skip
MCC = Metric(
    "mcc", "Matthews correlation", "Agreement of predictions and labels beyond chance; nought is chance, one is perfect.", _mcc, lower=-1.0
)  # fmt: skip
ROC_AUC = Metric(
    "roc_auc", "ROC AUC", "Chance that a row of a class is ranked above a row without it, averaged over classes.", _roc_auc,
    undefined="no class has both rows with it and rows without it",
)  # fmt: skip
HAMMING_LOSS = Metric(
    "hamming_loss", "Hamming loss", "Share of the decisions about single labels that are wrong.",
    lambda sample: sample.mean(sample.answers.wrong_share_N), higher_is_better=False,
)  # fmt: skip
LOG_LOSS = Metric(
    "log_loss", "Log loss", "Negative logarithm of the probability given to the truth, averaged over rows (and labels).",
    lambda sample: sample.mean(sample.answers.log_loss_N), higher_is_better=False, upper=None,
)  # fmt: skip
ECE = Metric(
    "ece", "Calibration error", "Gap between confidence and how often it is right, averaged over equal-width bins of confidence.",
    _ece, higher_is_better=False,
)  # fmt: skip
BRIER = Metric(
    "brier", "Brier score", "Squared error of the probabilities, summed over classes, averaged over rows.",
    lambda sample: sample.mean(sample.answers.squared_error_N), higher_is_better=False, upper=2.0,
)  # fmt: skip
BRIER_MANY_LABELS = Metric(
    "brier", "Brier score", "Squared error of the probabilities, averaged over labels and rows.",
    lambda sample: sample.mean(sample.answers.squared_error_N), higher_is_better=False,
)  # fmt: skip

ONE_LABEL = _by_name(
    ACCURACY, BALANCED_ACCURACY, MACRO_PRECISION, MACRO_RECALL, MACRO_F1, WEIGHTED_F1, MICRO_F1_ONE_LABEL, MCC, ROC_AUC, LOG_LOSS,
    ECE, BRIER,
)  # fmt: skip
MANY_LABELS = _by_name(
    MICRO_F1, MACRO_F1, WEIGHTED_F1, SUBSET_ACCURACY, MACRO_PRECISION, MACRO_RECALL, HAMMING_LOSS, ROC_AUC, LOG_LOSS, ECE,
    BRIER_MANY_LABELS,
)  # fmt: skip

SPEARMAN = Metric(
    "spearman", "Spearman correlation", "Whether rows come in the right order; one is the right order, nought is chance.", _spearman,
    lower=-1.0, undefined="all numbers are the same, given or predicted",
)  # fmt: skip
PEARSON = Metric(
    "pearson", "Pearson correlation", "Whether predicted and true numbers lie on a line; one is a line, nought is chance.",
    lambda sample: weighted_correlation(sample.weights_RN, sample.answers.labels, sample.answers.predicted),
    lower=-1.0, undefined="all numbers are the same, given or predicted",
)  # fmt: skip
MSE = Metric(
    "mse", "Mean squared error", "Squared difference between predicted and true number, averaged over rows.",
    lambda sample: sample.mean(sample.answers.error_N**2), higher_is_better=False, upper=None,
)  # fmt: skip
RMSE = Metric(
    "rmse", "Root mean squared error", "Square root of the mean squared error: in the unit of the numbers, large errors counting more.",
    lambda sample: np.sqrt(sample.mean(sample.answers.error_N**2)), higher_is_better=False, upper=None,
)  # fmt: skip
MAE = Metric(
    "mae", "Mean absolute error", "Difference between predicted and true number, averaged over rows; in their unit.",
    lambda sample: sample.mean(np.abs(sample.answers.error_N)), higher_is_better=False, upper=None,
)  # fmt: skip
R2 = Metric(
    "r2", "R²", "Share of the variance of the numbers that the predictions explain; nought is what their mean would.", _r2, lower=-np.inf,
    undefined="all true numbers are the same",
)  # fmt: skip
NUMBER = _by_name(SPEARMAN, PEARSON, RMSE, MAE, MSE, R2)

F1 = Metric(
    "f1", "F1 of words", "Words that predicted and right answer share, averaged over questions; no answer counts as right or wrong.",
    lambda sample: sample.mean(sample.answers.f1_N),
)  # fmt: skip
EXACT_MATCH = Metric(
    "exact_match", "Exact match", "Share of questions whose answer is right but for case, punctuation and articles.",
    lambda sample: sample.mean(sample.answers.exact_N), is_row_share=True,
)  # fmt: skip
HAS_ANSWER_F1 = Metric(
    "has_answer_f1", "F1 where there is an answer", "F1 of words over the questions whose text holds an answer.",
    lambda sample: _mean_of(sample, sample.answers.f1_N, sample.answers.has_N), undefined="no question has an answer",
)  # fmt: skip
HAS_ANSWER_EXACT = Metric(
    "has_answer_exact", "Exact match where there is an answer", "Exact match over the questions whose text holds an answer.",
    lambda sample: _mean_of(sample, sample.answers.exact_N, sample.answers.has_N), undefined="no question has an answer",
)  # fmt: skip
NO_ANSWER_ACCURACY = Metric(
    "no_answer_accuracy", "Right where there is none", "Share of the questions without an answer that were given none.",
    lambda sample: _mean_of(sample, sample.answers.exact_N, ~sample.answers.has_N), undefined="every question has an answer",
)  # fmt: skip
ANSWERS = _by_name(F1, EXACT_MATCH, HAS_ANSWER_F1, HAS_ANSWER_EXACT, NO_ANSWER_ACCURACY)

CHRF = Metric("chrf", "chrF", "Characters and sequences of up to six that written and right text share, 0 to 100.", chrf, upper=100.0)
BLEU = Metric("bleu", "BLEU", "Sequences of up to four words that the right texts have too, 0 to 100; short texts lose.", bleu, upper=100.0)
EXACT_TEXT = Metric(
    "exact_text", "Exact match", "Share of rows whose text is the right one, character by character.", _share_right, is_row_share=True
)  # fmt: skip
ROUGES = tuple(
    Metric(name, title, f"{what} that written and right text share: F1, averaged over rows.", partial(rouge, name=name))
    for name, title, what in (
        ("rouge1", "ROUGE-1", "Words"), ("rouge2", "ROUGE-2", "Pairs of words"), ("rougeL", "ROUGE-L", "Longest common sequence of words"),
    )
)  # fmt: skip
TEXT = _by_name(CHRF, BLEU, *ROUGES, EXACT_TEXT)
NO_SPANS = "there is no span, and none was predicted"
SPAN_F1 = Metric(
    "span_f1", "Span F1", "F1 over all spans: a predicted one is right when start, end and type are.", _micro_f1, undefined=NO_SPANS
)  # fmt: skip
SPAN_PRECISION = Metric(
    "span_precision", "Span precision", "Share of the predicted spans whose start, end and type are right.",
    lambda sample: _or_nan(sample.hits_RC.sum(1), sample.predicted_RC.sum(1)), undefined="no span was predicted",
)  # fmt: skip
SPAN_RECALL = Metric(
    "span_recall", "Span recall", "Share of the true spans that were predicted with the right start, end and type.",
    lambda sample: _or_nan(sample.hits_RC.sum(1), sample.labelled_RC.sum(1)), undefined="there is no span",
)  # fmt: skip
MACRO_SPAN_F1 = Metric(
    "macro_span_f1", "Macro span F1", "F1 of each type of spans, averaged over the types that occur or were predicted.",
    lambda sample: _mean_where(sample.f1_RC, sample.occurs_RC), undefined=NO_SPANS,
)  # fmt: skip
OVERLAP_F1 = Metric(
    "overlap_f1", "Overlap F1", "F1 where a span is right when it overlaps one of its type: how far errors are only of boundaries.",
    _overlap_f1, undefined=NO_SPANS,
)  # fmt: skip
SPANS = _by_name(SPAN_F1, SPAN_PRECISION, SPAN_RECALL, MACRO_SPAN_F1, OVERLAP_F1)
RECALLS = tuple(
    Metric(f"recall_at_{depth}", f"Recall@{depth}", f"Share of the relevant texts that are among the first {depth}, averaged over queries.",
           partial(_recall, depth=depth)) for depth in (1, 5, 10)
)  # fmt: skip
RELEVANT = _by_name(
    Metric("ndcg_at_10", "nDCG@10", "Gain of the first ten places, of the best that there could be; averaged over queries.",
           lambda sample: sample.mean(sample.answers.ndcg_N)),
    Metric("mrr_at_10", "MRR@10", "One divided by the place of the first relevant text, nought after the tenth; averaged over queries.",
           lambda sample: sample.mean(sample.answers.reciprocal_N)),
    *RECALLS,
    Metric("map", "MAP", "Share of relevant texts down to each relevant one, averaged over these and over queries.",
           lambda sample: sample.mean(sample.answers.average_precision_N)),
)  # fmt: skip
NO_MASKS = "no token of these rows could be masked"
MASKED = _by_name(
    Metric("masked_loss", "Masked loss", "Negative log-likelihood of the right token in nats, averaged over the masked tokens.",
           lambda sample: per_token(sample, sample.answers.loss_N), higher_is_better=False, upper=None, undefined=NO_MASKS),
    Metric("perplexity", "Perplexity", "The exponential of the masked loss: as many equally likely tokens would be as hard to tell.",
           lambda sample: np.exp(per_token(sample, sample.answers.loss_N)), higher_is_better=False, lower=1.0, upper=None,
           undefined=NO_MASKS),
    Metric("masked_accuracy", "Masked accuracy", "Share of the masked tokens for which the right one is likeliest.",
           lambda sample: per_token(sample, sample.answers.hits_N), undefined=NO_MASKS),
)  # fmt: skip
METRICS: dict[Kind, dict[str, Metric]] = {
    "class": ONE_LABEL, "classes": MANY_LABELS, "number": NUMBER, "answers": ANSWERS, "text": TEXT, "spans": SPANS, "relevant": RELEVANT,
    "masked": MASKED,
}  # fmt: skip
