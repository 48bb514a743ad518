"""How far two sets of rows differ: lengths, classes, words, and whether a classifier can tell them apart.

Shape suffixes: A, B = rows of the two sets, N = A + B, F = features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import log, sqrt
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tunesmith.data.label_forms import strata
from tunesmith.data.marked import SPANS

Floats = NDArray[np.float64]

CHUNK = 65536
WORD = r"\w+"
TELLING = 15
PRIOR_WORDS = 1000.0
FOLDS = 5
MOST_ROWS = 5000
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class LengthDrift:
    """Kolmogorov-Smirnov statistic of the characters of the texts (0 same … 1 apart), its p, and the medians; None without rows."""

    statistic: float | None
    p: float | None
    median_a: float | None
    median_b: float | None


@dataclass(frozen=True)
class LabelDrift:
    """Total variation of the class shares (0 same … 1 apart) and the chi-square test that both come from the same shares.

    lowest_expected: the smallest expected count; below 5 the p is rough. None without rows, and p None with one class.
    """

    total_variation: float | None
    chi_square: float | None
    p: float | None
    freedom: int
    lowest_expected: float | None


@dataclass(frozen=True)
class VocabularyDrift:
    """Words (\\w+, lower-cased): share of B's words, each as often as it stands there, that A lacks; overlap of both vocabularies."""

    unseen_share: float | None
    jaccard: float | None
    words_a: int
    words_b: int
    different_a: int
    different_b: int


@dataclass(frozen=True)
class ClassifierDrift:
    """Area under the curve of a logistic regression that tells A from B, cross-validated: 0.5 it cannot, 1 it always can.

    interval: 95 %. None, with the reason in `note`, where there are too few rows. rows: looked at.
    """

    auc: float | None
    interval: tuple[float, float] | None
    rows: int
    note: str = ""


@dataclass(frozen=True)
class TellingWord:
    """A word, how often it stands in A and in B, and the z of its log-odds ratio: above 0 it speaks for A, below 0 for B."""

    word: str
    z: float
    count_a: int
    count_b: int


@dataclass(frozen=True)
class Drift:
    """Everything that was compared of two sets of rows; what was not given is None."""

    rows_a: int
    rows_b: int
    lengths: LengthDrift
    vocabulary: VocabularyDrift
    words_a: tuple[TellingWord, ...]
    words_b: tuple[TellingWord, ...]
    labels: LabelDrift | None
    classifier: ClassifierDrift | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)


def drift(a: pl.DataFrame, b: pl.DataFrame, features: tuple[Floats, Floats] | None = None, seed: int = 0) -> Drift:
    """How far the rows of A and B differ: their `text` (and `text_pair`), their `label` if both have one, and given features.

    features: of A and of B, float[A, F] and float[B, F], such as embeddings.
    """
    texts_a, texts_b = _texts(a), _texts(b)
    counts_a, counts_b = word_counts(texts_a), word_counts(texts_b)
    telling = telling_words(counts_a, counts_b)
    both = "label" in a.columns and "label" in b.columns
    return Drift(
        rows_a=a.height,
        rows_b=b.height,
        lengths=length_drift(texts_a, texts_b),
        vocabulary=vocabulary_drift(counts_a, counts_b),
        words_a=tuple(word for word in telling[:TELLING] if word.z > 0),
        words_b=tuple(word for word in reversed(telling[-TELLING:]) if word.z < 0),
        labels=label_drift(a["label"], b["label"]) if both else None,
        classifier=classifier_drift(*features, seed=seed) if features else None,
    )


def length_drift(a: pl.Series, b: pl.Series) -> LengthDrift:
    """The difference of the texts' lengths in characters; null has none. The p is that of Kolmogorov's limit."""
    lengths_A, lengths_B = (texts.drop_nulls().str.len_chars().to_numpy().astype(np.float64) for texts in (a, b))
    if not len(lengths_A) or not len(lengths_B):
        return LengthDrift(None, None, None, None)
    from scipy.special import kolmogorov  # scipy.stats takes a second to import

    lengths_N = np.concatenate([lengths_A, lengths_B])
    below_A, below_B = (np.searchsorted(np.sort(lengths), lengths_N, "right") / len(lengths) for lengths in (lengths_A, lengths_B))
    statistic = float(np.abs(below_A - below_B).max())
    p = float(kolmogorov(statistic * sqrt(len(lengths_A) * len(lengths_B) / len(lengths_N))))
    return LengthDrift(statistic, p, float(np.median(lengths_A)), float(np.median(lengths_B)))


def label_drift(a: pl.Series, b: pl.Series) -> LabelDrift:
    """The difference of the shares of classes; a row with several labels counts once for each."""
    classes_of = [strata(labels) if labels.dtype == SPANS else labels for labels in (a, b)]
    counts = [Counter((c.explode(empty_as_null=True) if c.dtype == pl.List else c).drop_nulls().to_list()) for c in classes_of]
    classes = sorted(counts[0].keys() | counts[1].keys(), key=str)
    observed = np.array([[count[name] for name in classes] for count in counts], np.float64)
    totals = observed.sum(1, keepdims=True)
    if not classes or (totals == 0).any():
        return LabelDrift(None, None, None, 0, None)
    shares = observed / totals
    expected = totals * observed.sum(0) / observed.sum()
    statistic, freedom = float(((observed - expected) ** 2 / expected).sum()), len(classes) - 1
    from scipy.special import chdtrc

    p = float(chdtrc(freedom, statistic)) if freedom else None
    return LabelDrift(float(np.abs(shares[0] - shares[1]).sum() / 2), statistic, p, freedom, float(expected.min()))


def word_counts(texts: pl.Series) -> Counter[str]:
    """How often each word (\\w+, lower-cased) stands in the texts."""
    counts: Counter[str] = Counter()
    for chunk in texts.drop_nulls().alias("word").to_frame().iter_slices(CHUNK):
        words = chunk["word"].str.to_lowercase().str.extract_all(WORD).explode(empty_as_null=True).drop_nulls().value_counts()
        for word, count in words.iter_rows():
            counts[word] += count
    return counts


def vocabulary_drift(a: Counter[str], b: Counter[str]) -> VocabularyDrift:
    """What the words of B have that those of A do not."""
    words_b = b.total()
    unseen = sum(count for word, count in b.items() if word not in a)
    union = len(a.keys() | b.keys())
    jaccard = len(a.keys() & b.keys()) / union if union else None
    return VocabularyDrift(unseen / words_b if words_b else None, jaccard, a.total(), words_b, len(a), len(b))


def telling_words(a: Counter[str], b: Counter[str]) -> list[TellingWord]:
    """Every word with the z of its log-odds ratio between A and B, from the most telling of A to that of B.

    Monroe, Colaresi and Quinn 2008 ("Fightin' Words"), eq. 15 to 22, with an informative Dirichlet prior: the shares of the
    words in A and B together, worth 1,000 words.
    """
    total_a, total_b = a.total(), b.total()
    found = []
    for word in a.keys() | b.keys():
        prior = PRIOR_WORDS * (a[word] + b[word]) / (total_a + total_b)
        in_a, in_b = a[word] + prior, b[word] + prior
        rest_a, rest_b = total_a + PRIOR_WORDS - in_a, total_b + PRIOR_WORDS - in_b
        if rest_a > 0 and rest_b > 0:
            z = (log(in_a / rest_a) - log(in_b / rest_b)) / sqrt(1 / in_a + 1 / in_b)
            found.append(TellingWord(word, z, a[word], b[word]))
    return sorted(found, key=lambda entry: (-entry.z, entry.word))


def classifier_drift(a_AF: Floats, b_BF: Floats, seed: int = 0) -> ClassifierDrift:
    """Whether a logistic regression on features tells A from B (Lopez-Paz and Oquab 2017), on at most 5,000 rows of each.

    Each fold's area is that of rows the classifier has not seen. The interval takes DeLong's variance of a fold and the
    correction of Nadeau and Bengio 2003 for folds that share their training rows: 1 / folds + test rows / training rows.
    """
    rng = np.random.default_rng(seed)
    a, b = (rows[np.sort(rng.permutation(len(rows))[:MOST_ROWS])] for rows in (np.asarray(a_AF, float), np.asarray(b_BF, float)))
    rows = len(a) + len(b)
    if min(len(a), len(b)) < 2 * FOLDS:
        return ClassifierDrift(None, None, rows, f"fewer than {2 * FOLDS} rows in one of the sets")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features_NF, is_a_N = np.concatenate([a, b]), np.arange(rows) < len(a)
    areas, variances = [], []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(features_NF, is_a_N):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
        scores = model.fit(features_NF[train], is_a_N[train]).decision_function(features_NF[test])
        area, variance = area_under_curve(scores[is_a_N[test]], scores[~is_a_N[test]])
        areas.append(area)
        variances.append(variance)
    mean, half = float(np.mean(areas)), NORMAL_95 * sqrt(float(np.mean(variances)) * (1 / FOLDS + 1 / (FOLDS - 1)))
    return ClassifierDrift(mean, (max(0.0, mean - half), min(1.0, mean + half)), rows)


def area_under_curve(higher_A: Floats, lower_B: Floats) -> tuple[float, float]:
    """The chance that a score of A is above one of B, ties half, and its variance (DeLong et al. 1988). Both need two scores."""
    from scipy.stats import rankdata

    n, m = len(higher_A), len(lower_B)
    ranks_N = rankdata(np.concatenate([higher_A, lower_B]))
    below_A = (ranks_N[:n] - rankdata(higher_A)) / m
    above_B = 1 - (ranks_N[n:] - rankdata(lower_B)) / n
    return float(below_A.mean()), float(below_A.var(ddof=1) / n + above_B.var(ddof=1) / m)


def _texts(rows: pl.DataFrame) -> pl.Series:
    """The text of each row, with its pair."""
    names = [name for name in ("text", "text_pair") if name in rows.columns]
    return rows.select(pl.concat_str(names, separator="\n", ignore_nulls=True).alias("text")).to_series()
