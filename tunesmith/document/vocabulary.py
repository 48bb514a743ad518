"""Names and meanings in the reader's words. No digit may stand here, except in the names that `claims.TERMS` lists."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric for readers: its name inside a sentence, what it says, and its direction."""

    title: str
    meaning: str
    lower_is_better: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "share of rows that got the right label"),
    "subset_accuracy": Metric("subset accuracy", "share of rows whose whole set of labels is right"),
    "balanced_accuracy": Metric("balanced accuracy", "recall averaged over classes, so that rare classes count as much as common ones"),
    "macro_precision": Metric("macro precision", "precision averaged over classes"),
    "macro_recall": Metric("macro recall", "recall averaged over classes"),
    "macro_f1": Metric("macro F1", "harmonic mean of precision and recall, averaged over classes"),
    "weighted_f1": Metric("weighted F1", "F1 averaged over classes by their number of rows"),
    "micro_f1": Metric("micro F1", "F1 over all decisions taken together"),
    "mcc": Metric("Matthews correlation", "agreement of predictions and labels beyond chance; nought is chance, one is perfect"),
    "roc_auc": Metric("ROC AUC", "chance that a row of a class is ranked above a row of another, averaged over classes"),
    "hamming_loss": Metric("Hamming loss", "share of single label decisions that are wrong", True),
    "log_loss": Metric("log loss", "how surprised the model is by the right label", True),
    "ece": Metric("calibration error", "average gap between confidence and how often it is right", True),
    "brier": Metric("Brier score", "squared distance between probabilities and the truth", True),
    "spearman": Metric("Spearman correlation", "whether rows come in the right order; one is the right order, nought is chance"),
    "pearson": Metric("Pearson correlation", "whether predicted and true numbers lie on a line; one is a line, nought is chance"),
    "rmse": Metric("root mean squared error", "size of the errors, in the unit of the numbers; large errors count more", True),
    "mae": Metric("mean absolute error", "how far a prediction is from the truth on average, in the unit of the numbers", True),
    "mse": Metric("mean squared error", "squared size of the errors on average", True),
    "chrf": Metric("chrF", "sequences of up to six characters that written and right text share, nought to a hundred"),
    "bleu": Metric("BLEU", "sequences of up to four words that the right texts have too, nought to a hundred; short texts lose"),
    "rougeL": Metric("ROUGE-L", "the longest common sequence of words of written and right text, as F1"),
    "rouge1": Metric("ROUGE-1", "words that written and right text share, as F1"),
    "rouge2": Metric("ROUGE-2", "pairs of words that written and right text share, as F1"),
    "exact_text": Metric("exact match", "share of rows whose text is the right one, character by character"),
    "f1": Metric("F1 of words", "words that predicted and right answer share, averaged over questions"),
    "exact_match": Metric("exact match", "share of questions whose answer is right, but for case, punctuation and articles"),
    "has_answer_f1": Metric("F1 where there is an answer", "the same over the questions whose text holds an answer"),
    "has_answer_exact": Metric("exact match where there is an answer", "the same over the questions whose text holds an answer"),
    "no_answer_accuracy": Metric("right where there is none", "share of the questions without an answer that were given none"),
    "r2": Metric("R squared", "share of the variance of the numbers that the predictions explain; nought is what their mean would"),
}

METRICS |= {
    "span_f1": Metric("span F1", "F1 over all spans; a predicted one is right when its start, end and type are"),
    "span_precision": Metric("span precision", "share of the predicted spans that are right"),
    "span_recall": Metric("span recall", "share of the true spans that were predicted rightly"),
    "macro_span_f1": Metric("macro span F1", "F1 of each type of spans, averaged over types"),
    "overlap_f1": Metric("overlap F1", "F1 where overlapping a span of the right type is enough"),
}

METRICS |= {
    "ndcg_at_10": Metric("nDCG@10", "how far up relevant texts stand among the first ten, of the best that there could be"),
    "mrr_at_10": Metric("MRR@10", "one divided by the place of the first relevant text, averaged over queries; nought after the tenth"),
    "recall_at_1": Metric("recall@1", "share of the relevant texts that stand first"),
    "recall_at_5": Metric("recall@5", "share of the relevant texts that are among the first five"),
    "recall_at_10": Metric("recall@10", "share of the relevant texts that are among the first ten"),
    "map": Metric("mean average precision", "share of relevant texts down to each relevant one, averaged over these and over queries"),
}

METRICS |= {
    "masked_loss": Metric("masked loss", "how surprised the model is by the right token where one is masked, in nats", True),
    "perplexity": Metric("perplexity", "how many equally likely tokens would be as hard to tell; one is certainty", True),
    "masked_accuracy": Metric("masked accuracy", "share of the masked tokens for which the right one is likeliest"),
}

APART = ("has_answer_f1", "has_answer_exact", "no_answer_accuracy")
"""Metrics that tell questions with an answer from those without."""

QUESTIONS = {
    "sentence-similarity": "How alike are two texts, as a number?",
    "translation": "How is a text said in another language?",
    "summarization": "What does a long text say, in short?",
    "text2text-generation": "Which text is to be written for a text?",
    "question-answering": "Which words of a text answer a question?",
    "feature-extraction": "Which texts does a query find, by vectors of both?",
    "text-ranking": "Which of a few texts are most relevant to a query?",
    "fill-mask": "Which words are hidden in a text?",
}
"""What a run asks, for tasks whose question holds no number."""
ANSWERS = {
    "sentence-similarity": "Tells how alike two texts are, as a number.",
    "translation": "Says a text in another language.",
    "summarization": "Says in short what a long text says.",
    "text2text-generation": "Writes a text for a text.",
    "question-answering": "Tells which words of a text answer a question.",
    "feature-extraction": "Makes a vector of a text, so that a query is near the texts that are relevant to it.",
    "text-ranking": "Tells how relevant a text is to a query.",
    "fill-mask": "Tells which tokens are likely where a text has a mask.",
}
"""What a model does, for these tasks."""

BASELINES = {
    "majority": "always answering the most frequent class",
    "features": "logistic regression on frozen features",
}
OTHER_BASELINES: dict[str, dict[str, str]] = {
    "classes": {"majority": "always giving the labels that most rows have"},
    "number": {"majority": "always answering the mean of the training numbers", "features": "ridge regression on frozen features"},
    "answers": {"majority": "always giving the most frequent answer, or none", "lexical": "giving the sentence most like the question"},
    "spans": {"dictionary": "finding the spans of the training rows again", "features": "logistic regression on frozen states of words"},
}
OTHER_BASELINES["relevant"] = {"lexical": "ranking by shared words, as BM25 does", "features": "cosines of the untrained network"}
OTHER_BASELINES["masked"] = {"majority": "the frequencies of tokens in the training rows", "untrained": "the same network before training"}
OTHER_BASELINES["text"] = {"copy": "writing the text itself", "retrieval": "the target of the most similar training row"}
BASELINE_NAMES = {"majority": "most frequent class", "features": "frozen features"}
OTHER_BASELINE_NAMES: dict[str, dict[str, str]] = {
    "number": {"majority": "mean number"},
    "answers": {"majority": "most frequent answer", "lexical": "nearest sentence"},
    "spans": {"dictionary": "spans of training rows", "features": "frozen states"},
}
OTHER_BASELINE_NAMES["relevant"] = {"lexical": "shared words", "features": "untrained vectors"}
OTHER_BASELINE_NAMES["masked"] = {"majority": "frequencies of tokens", "untrained": "before training"}
OTHER_BASELINE_NAMES["text"] = {"copy": "the text itself", "retrieval": "nearest training row"}
NUMBERS = {"min": "smallest", "p25": "lower quartile", "p50": "median", "p75": "upper quartile", "max": "largest", "mean": "mean",
           "deviation": "standard deviation"}  # fmt: skip

STAGES = {
    "prepare": "reads, cleans and splits the tables",
    "resolve": "fills every open value of the spec",
    "adapt": "adapts the pretrained model to unlabelled texts, if the spec names some",
    "embed": "computes what the untrained model says, for the certificate, the head and the baseline",
    "certify": "searches the splits for rows that know each other",
    "inspect": "looks for labels that are probably wrong, and for outliers",
    "items": "examines pictures, recordings or texts, and looks for copies",
    "augment": "makes changed copies of training rows, and keeps them if they do no harm",
    "train": "fits the weights",
    "tune": "searches for better settings",
    "evaluate": "scores the model and its baselines",
    "crossvalidate": "trains models of folds, and scores what they say about rows that they have not seen",
}

LIKENESS = {
    "jaccard": ("Nearly the same text", "letters and digits in lower case, four at a time: Jaccard similarity"),
    "cosine": ("Nearly the same features", "frozen features of the pretrained model: cosine"),
    "group": ("The same group", "equal values of the group column"),
}
"""Kinds of likeness that the certificate knows: what is alike, and how it is measured."""


class Judges(NamedTuple):
    """How labels that are no classes were judged: who judged, what a suspect has, the title beside its label, and what its quality is."""

    how: str
    wrong: str
    beside: str
    quality: str
    by: str = "regressions on frozen features that had not seen them"


JUDGES = {
    "number": Judges(
        "A regression on frozen features was asked about every training row without having seen it.",
        "have a number that it misses by far more than the others", "Suggested", "the chance of so large an error",
    ),
    "spans": Judges(
        "A regression on frozen states of words was asked about the words of every training row without having seen it.",
        "have a span that it contradicts, or lack one that it finds", "Suggested", "the probability of what is given",
        "regressions on frozen states of words that had not seen them",
    ),
    "text": Judges(
        "A regression from frozen features of texts to those of their targets was asked about every training row without having seen it, "
        "and lengths were compared.",
        "have a target that is far from what it expects, or of an odd length", "Why", "the chance of so odd a value",
    ),
    "answers": Judges(
        "A weak judge that knows where words of the question stand and which form of answers goes with it compared each answer with the "
        "other answers of its text, without having seen this text.",
        "have an answer that is more like those of other questions", "Why", "the judge's probability of the answer",
        "a weak judge of words and forms that had not seen their texts",
    ),
    "relevant": Judges(
        "The untrained network compared every query with the texts that were judged for it, and with the other texts.",
        "have a judgement that it contradicts", "Why", "the chance of so odd a likeness among relevant pairs",
        "the untrained network",
    ),
}  # fmt: skip
"""By kind of labels."""

SUSPECT_RULES = {"drop": "not trained on", "correct": "trained on as suggested", "down_weight": "counted less in the loss"}

STRATEGIES = {
    "features": "the encoder stays as it is, and a head is fitted on its outputs",
    "layers": "the top blocks and the head are trained, the rest stays as it is",
    "full": "every weight is trained",
    "gradual": "the head is trained first, then one block more from the top at a time",
    "bitfit": "biases and the head are trained, the rest stays as it is",
    "lora": "low-rank adapters are trained beside frozen weights, and merged into them at the end",
    "qlora": "low-rank adapters are trained beside frozen weights of 4 bits, and merged into them at the end",
    "ia3": "factors on keys, values and feed-forward activations are trained, and merged into the weights at the end",
    "prompt_tuning": "vectors before the text and the head are trained, the rest stays as it is",
    "prefix_tuning": "keys and values that every block reads and the head are trained, the rest stays as it is",
}

BESIDE_A_MODEL = ("prompt_tuning", "prefix_tuning")
"""Strategies whose model is a folder of PEFT: what they learn cannot be merged into weights."""

HEADS = {
    "logistic": "logistic regression",
    "linear_svm": "support vector machines, calibrated",
    "knn": "labels of the most similar training rows",
    "gradient_boosting": "gradient-boosted trees",
    "mlp": "a network with one hidden layer",
    "attention": "attention over tokens, with a head of its own",
}

TARGETS = {"min": "shortest", "p50": "half up to", "p99": "nearly all up to", "max": "longest"}
LENGTHS = {"a quarter up to": "p25", "half up to": "p50", "three quarters up to": "p75", "nearly all up to": "p99", "longest": "max"}

SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def metric(name: str) -> Metric:
    """The metric for readers; a name that is not listed speaks for itself."""
    return METRICS.get(name, Metric(name.replace("_", " "), ""))


def baseline(name: str, kind: str = "class") -> str:
    """What a baseline does, to follow "than"."""
    return OTHER_BASELINES.get(kind, {}).get(name) or BASELINES.get(name, name.replace("_", " "))


def baseline_name(name: str, kind: str = "class") -> str:
    """A baseline in two words."""
    return OTHER_BASELINE_NAMES.get(kind, {}).get(name) or BASELINE_NAMES.get(name, name.replace("_", " "))
