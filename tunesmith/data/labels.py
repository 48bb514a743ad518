"""Labels that are probably wrong, from what models say about rows they were not trained on.

Confident learning (Northcutt, Jiang & Chuang, JAIR 2021) as cleanlab implements it. The number of suspects is the
off-diagonal count of the confident joint; which rows they are is decided by the lowest self-confidence, the probability
of the given label (cleanlab's filter "low_self_confidence"; `bench/labels.py` compares it with cleanlab's default).
Shape suffixes: N = rows, C = classes, E = width, K = neighbours, T = tokens, L = boxes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.learning_curve import wilson_interval
from tunesmith.data.outliers import Neighbours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Predict = Callable[[Any], Floats]
Fit = Callable[[Any, Any, Any], Predict]

FILTER = "low_self_confidence"
ROBUST_Z = 3.5
"""Robust standard deviations of a residual that is no longer usual (Iglewicz & Hoaglin 1993)."""
WEAK = 0.75
"""Agreement below which most suspects had right labels in `bench/labels.py`: 58 % of them at 73 %, 76 to 87 % at a third."""
ONE_CLASS = "all judged rows have one label: nothing to compare"


@dataclass(frozen=True)
class OutOfFold:
    """What models say about rows they were not trained on.

    `judged_N` is False where the row's label had no row in the training part, so that its probability of 0 says nothing.
    `missing` counts, for each (fold, class) whose training part lacks the class, the rows of the fold.
    """

    probabilities_NC: Floats
    judged_N: Bools
    missing: dict[tuple[int, int], int]


@dataclass(frozen=True)
class Suspect:
    """One label that is probably wrong. `part` is the token, box or label of the row; None where the row has one label.

    `given` and `suggested` are class numbers (0/1 for one label of a multi-label row; values for a regression).
    `suggested` None means: no label. `probability` belongs to the suggestion; None where there is none.
    """

    row: int
    part: int | None
    given: float | None
    suggested: float | None
    probability: float | None
    quality: float
    reason: str


@dataclass(frozen=True)
class Noise:
    """How many of `n` judged labels are suspects, with the Wilson interval of that share, and what confident learning infers.

    `inferred` is the off-diagonal mass of the estimated joint distribution of given and true labels, `joint_CC` (rows:
    given; columns: true); both None where there is no such estimate.
    """

    n: int
    share: float
    interval: tuple[float, float]
    inferred: float | None = None
    joint_CC: Floats | None = None


@dataclass(frozen=True)
class Suspects:
    """Suspects, worst first; the quality in [0, 1] of every row's labels (NaN where not judged), and what was not judged.

    `agreement` is the share of judged labels that the models give too. Suspects are as good as these models: where they agree
    with few labels, most suspects are right, and `note` says so. Review before anything is dropped.
    """

    suspects: tuple[Suspect, ...]
    quality_N: Floats
    noise: Noise
    not_judged: int = 0
    note: str = ""
    agreement: float | None = None

    @property
    def rows(self) -> list[int]:
        """Row numbers of the suspects, worst first, each once."""
        return list(dict.fromkeys(suspect.row for suspect in self.suspects))


@dataclass(frozen=True)
class Conflict:
    """A row most of whose neighbours share another label: the neighbours' rows, how many have it, and their mean cosine."""

    row: int
    given: int
    other: int
    votes: int
    neighbours: tuple[int, ...]
    cosine: float


@dataclass(frozen=True)
class Overlap:
    """Two classes, the estimated share of all rows whose label is one and should be the other, and both directions."""

    first: int
    second: int
    share: float
    first_is_second: float
    second_is_first: float


def out_of_fold(features_NE: Any, targets: NDArray[Any], folds_N: Ints, fit: Fit, weights_N: Floats | None = None) -> OutOfFold:
    """Probabilities (N, C) of each row from a model that was fitted without the row's fold.

    A class that a training part lacks gets probability 0 in its fold, the others are scaled to sum to 1, and both the
    class and the rows that carry it are counted.

    Args:
        features_NE: an array or tensor that takes a mask of rows.
        targets: class ids (N,), or a 0/1 matrix (N, C).
        folds_N: the fold of each row, such that rows of one group share a fold; at least two folds.
        fit: features, targets and weights (or None) to a function of features that gives probabilities of all C classes.
        weights_N: how much each row counts when others are judged, such as `trust`; None for all alike.

    Raises:
        DataError: there are not two folds.
    """
    folds = np.unique(folds_N)
    if len(folds) < 2:
        raise DataError(Issue("folds", "must be two or more", str(len(folds)), "Give more rows, or fewer groups."))
    parts: list[tuple[Bools, Floats]] = []
    judged_N, missing = np.ones(len(folds_N), bool), dict[tuple[int, int], int]()
    for fold in folds.tolist():
        held_N = np.asarray(folds_N == fold)
        predict = fit(features_NE[~held_N], targets[~held_N], None if weights_N is None else weights_N[~held_N])
        probabilities = np.array(predict(features_NE[held_N]), dtype=np.float64)
        classes = probabilities.shape[1]
        single = targets.ndim == 1
        seen_C = np.bincount(targets[~held_N], minlength=classes) > 0 if single else targets[~held_N].any(0)
        probabilities[:, ~seen_C] = 0.0
        if single:
            probabilities /= np.maximum(probabilities.sum(1, keepdims=True), 1e-12)
        for lacking in np.flatnonzero(~seen_C).tolist():
            rows = targets[held_N] == lacking if single else targets[held_N][:, lacking] > 0
            missing[fold, lacking] = int(rows.sum())
            judged_N[np.flatnonzero(held_N)[rows]] = False
        parts.append((held_N, probabilities))
    whole = np.zeros((len(folds_N), parts[0][1].shape[1]))
    for held_N, probabilities in parts:
        whole[held_N] = probabilities
    return OutOfFold(whole, judged_N, missing)


def out_of_fold_loss(out: OutOfFold, targets: NDArray[Any]) -> float:
    """Mean log loss of the judged rows' given labels, NaN without one: of several fits, the one with the least names suspects best.

    Wrong labels need no truth for that: an overconfident model is punished by them. `bench/labels.py` shows it for the
    penalty of a logistic regression.
    """
    rows = np.flatnonzero(out.judged_N)
    if not len(rows):
        return float("nan")
    values, given = out.probabilities_NC[rows], targets[rows]
    of_given = values[np.arange(len(rows)), given] if targets.ndim == 1 else np.where(given > 0, values, 1 - values)
    return float(-np.log(np.maximum(of_given, 1e-12)).mean())


def trust(out: OutOfFold, targets_N: Ints) -> Floats:
    """How far each label is believed, 0 to 1: its out-of-fold probability over that of the most probable label; 1 where not judged.

    As weights of a second judging they keep wrong labels from teaching the judges. In `bench/labels.py` that named suspects
    better on every set.
    """
    given_N = out.probabilities_NC[np.arange(len(targets_N)), targets_N]
    believed_N: Floats = np.where(out.judged_N, given_N / np.maximum(out.probabilities_NC.max(1), 1e-12), 1.0)
    return believed_N


def suspects_single(targets_N: Ints, probabilities_NC: Floats, judged_N: Bools | None = None) -> Suspects:
    """Rows whose one label is probably wrong. Quality is self-confidence: the probability of the given label.

    Args:
        targets_N: class ids.
        probabilities_NC: out-of-fold probabilities.
        judged_N: rows to judge, such as `OutOfFold.judged_N`; None for all.

    Raises:
        DataError: a probability is not a number in [0, 1].
    """
    probabilities_NC = _checked(probabilities_NC)
    judged_N = np.ones(len(targets_N), bool) if judged_N is None else judged_N
    rows = np.flatnonzero(judged_N)
    found = _confident(targets_N[rows], probabilities_NC[rows])
    quality_N = np.full(len(targets_N), np.nan)
    quality_N[rows] = probabilities_NC[rows, targets_N[rows]]
    suspects = [_suspect(int(row), None, int(targets_N[row]), probabilities_NC[row]) for row in rows[found.places]]
    return Suspects(tuple(suspects), quality_N, found.noise, len(targets_N) - len(rows), found.note, found.agreement)


def suspects_multi_label(targets_NC: Ints, probabilities_NC: Floats) -> Suspects:
    """(row, label) pairs that are probably wrong, each label judged by itself; `part` is the label, `given` 1 or 0.

    Quality of a pair is the probability of what is given, that of a row is its worst judged label's. Labels that all rows
    or no row carry are not judged, and counted.
    """
    probabilities_NC = _checked(probabilities_NC)
    suspects, unjudged, off_diagonal, agreement, quality_N = list[Suspect](), 0, 0.0, 0.0, np.ones(len(targets_NC))
    classes = probabilities_NC.shape[1]
    for label in range(classes):
        given_N = targets_NC[:, label].astype(np.int64)
        if not len(given_N) or given_N.min() == given_N.max():
            unjudged += 1
            continue
        both_N2 = np.stack([1 - probabilities_NC[:, label], probabilities_NC[:, label]], 1)
        found = _confident(given_N, both_N2)
        quality_N = np.minimum(quality_N, both_N2[np.arange(len(given_N)), given_N])
        off_diagonal += found.noise.inferred or 0.0
        agreement += found.agreement or 0.0
        suspects += [_suspect(int(row), label, int(given_N[row]), both_N2[row]) for row in found.places]
    judged = classes - unjudged
    noise = noise_of(len(suspects), judged * len(targets_NC), off_diagonal / judged if judged else None)
    note = f"{unjudged} labels that no row or every row carries are not judged" if unjudged else ""
    agreed = agreement / judged if judged else None
    return Suspects(worst_first(suspects), quality_N, noise, unjudged * len(targets_NC), note, agreed)


def suspects_tokens(targets: Sequence[Ints], probabilities: Sequence[Floats]) -> Suspects:
    """(row, token) pairs that are probably wrong. Quality of a row is that of its worst token (1 for a row without tokens).

    Args:
        targets: class ids of the tokens of each row (T,); negative ones are not judged, and counted.
        probabilities: out-of-fold probabilities of the tokens of each row (T, C).
    """
    lengths = [len(tokens) for tokens in targets]
    for row, (length, values) in enumerate(zip(lengths, probabilities, strict=True)):
        if len(values) != length:
            raise DataError(Issue(f"row {row}", f"must have probabilities for its {length} tokens", str(len(values))))
    flat = np.concatenate([np.zeros(0, np.int64), *targets]).astype(np.int64)
    judged = flat >= 0
    values = np.concatenate(list(probabilities)) if sum(lengths) else np.zeros((0, 2))
    whole = suspects_single(np.where(judged, flat, 0), values, judged)
    row_of, token_of = np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.zeros(0, int), *map(np.arange, lengths)])
    quality_N = np.ones(len(lengths))
    np.minimum.at(quality_N, row_of[judged], whole.quality_N[judged])
    placed = [replace(s, row=int(row_of[s.row]), part=int(token_of[s.row])) for s in whole.suspects]
    return replace(whole, suspects=tuple(placed), quality_N=quality_N)


def suspects_regression(targets_N: Floats, predicted_N: Floats) -> Suspects:
    """Rows whose value is far from its out-of-fold prediction: |residual - median| above 3.5 robust standard deviations.

    Quality is cleanlab's residual score, exp(-|residual|), of residuals in robust standard deviations (1.4826 × MAD).
    The suggestion is the prediction shifted by the median residual; it has no probability.
    """
    from cleanlab.regression.rank import get_label_quality_scores

    targets_N, predicted_N = np.asarray(targets_N, np.float64), np.asarray(predicted_N, np.float64)
    bad = np.flatnonzero(~np.isfinite(targets_N) | ~np.isfinite(predicted_N))
    if len(bad):
        raise DataError(Issue(f"row {bad[0]}", "must have a finite value and prediction", "", "Leave such rows out."))
    if len(targets_N) < 2:
        return Suspects((), np.ones(len(targets_N)), noise_of(0, len(targets_N)), note="fewer than two rows: no usual residual")
    residual_N = targets_N - predicted_N
    shift = float(np.median(residual_N))
    spread = 1.4826 * float(np.median(np.abs(residual_N - shift)))
    if spread <= 0:
        note = "more than half of the rows have the same residual: no spread to judge by"
        return Suspects((), np.ones(len(targets_N)), noise_of(0, len(targets_N)), note=note)
    scaled_N = (residual_N - shift) / spread
    quality_N = get_label_quality_scores(scaled_N, np.zeros_like(scaled_N), method="residual")
    worst = np.argsort(-np.abs(scaled_N), kind="stable")
    suspects = tuple(
        Suspect(int(r), None, float(targets_N[r]), float(predicted_N[r] + shift), None, float(quality_N[r]), _residual(scaled_N[r]))
        for r in worst[np.abs(scaled_N[worst]) > ROBUST_Z]
    )
    return Suspects(suspects, quality_N, noise_of(len(suspects), len(targets_N)))


def conflicting_neighbours(found: Neighbours, targets_N: Ints) -> tuple[Conflict, ...]:
    """Rows more than half of whose k nearest rows (cosine, exact) have one other label, most votes first, then nearest."""
    if not found.rows_QK.shape[1]:
        return ()
    labels_NK = targets_N[found.rows_QK]
    ordered_NK = np.sort(labels_NK, axis=1)
    k = ordered_NK.shape[1]
    middle_N = ordered_NK[:, k // 2]  # a label with more than half of the votes is the middle one
    votes_N = (labels_NK == middle_N[:, None]).sum(1)
    rows = np.flatnonzero((votes_N * 2 > k) & (middle_N != targets_N))
    cosines_N = np.where(labels_NK == middle_N[:, None], found.cosines_QK, 0.0).sum(1) / np.maximum(votes_N, 1)
    rows = rows[np.lexsort((-cosines_N[rows], -votes_N[rows]))]
    return tuple(
        Conflict(
            row=int(row),
            given=int(targets_N[row]),
            other=int(middle_N[row]),
            votes=int(votes_N[row]),
            neighbours=tuple(found.rows_QK[row].tolist()),
            cosine=float(cosines_N[row]),
        )
        for row in rows
    )


def class_overlap(probabilities_NC: Floats, targets_N: Ints) -> tuple[Overlap, ...]:
    """Pairs of classes that the confident joint confuses, the largest share of rows first; pairs without confusion are left out."""
    joint_CC = _confident(targets_N, _checked(probabilities_NC)).noise.joint_CC
    if joint_CC is None:
        return ()
    pairs = [
        Overlap(a, b, float(joint_CC[a, b] + joint_CC[b, a]), float(joint_CC[a, b]), float(joint_CC[b, a]))
        for a, b in itertools.combinations(range(len(joint_CC)), 2)
        if joint_CC[a, b] + joint_CC[b, a] > 0
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.share))


@dataclass(frozen=True)
class _Found:
    places: Ints
    noise: Noise
    note: str
    agreement: float | None = None


def _confident(targets_N: Ints, probabilities_NC: Floats) -> _Found:
    """Places of the suspects, lowest self-confidence first, and the joint of given and true labels."""
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues

    if len(np.unique(targets_N)) < 2:
        return _Found(np.zeros(0, np.int64), noise_of(0, len(targets_N)), ONE_CLASS)
    # One process: cleanlab would start one for each core, which costs more than the work and breaks in notebooks.
    options: dict[str, Any] = {"filter_by": FILTER, "return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    places = np.asarray(find_label_issues(targets_N, probabilities_NC, **options), np.int64)
    # The label of the highest probability is never a suspect, however low that is.
    places = places[probabilities_NC[places].argmax(1) != targets_N[places]]
    joint_CC = np.asarray(estimate_joint(targets_N, probabilities_NC), np.float64)
    agreement = float((probabilities_NC.argmax(1) == targets_N).mean())
    note = "" if agreement >= WEAK else f"the models give only {agreement:.0%} of the labels that rows have: most suspects may be right"
    return _Found(places, noise_of(len(places), len(targets_N), 1.0 - float(joint_CC.trace()), joint_CC), note, agreement)


def _suspect(row: int, part: int | None, given: int, probabilities_C: Floats) -> Suspect:
    suggested = int(probabilities_C.argmax())
    quality, probability = float(probabilities_C[given]), float(probabilities_C[suggested])
    return Suspect(row, part, given, suggested, probability, quality, f"a model of the other rows gives its label {quality:.0%}")


def _residual(scaled: float) -> str:
    return f"{abs(scaled):.1f} robust standard deviations {'above' if scaled > 0 else 'below'} the prediction"


def worst_first(suspects: Sequence[Suspect]) -> tuple[Suspect, ...]:
    """Suspects in the order in which to look at them: lowest quality first."""
    return tuple(sorted(suspects, key=lambda s: (s.quality, s.row, -1 if s.part is None else s.part)))


def noise_of(suspects: int, n: int, inferred: float | None = None, joint_CC: Floats | None = None) -> Noise:
    """The share of suspects among n judged labels with its Wilson interval, and what confident learning infers."""
    return Noise(n, suspects / n if n else 0.0, wilson_interval(suspects, n), inferred, joint_CC)


def _checked(probabilities_NC: Floats) -> Floats:
    values: Floats = np.asarray(probabilities_NC, np.float64)
    bad = np.flatnonzero(~((values >= -1e-6) & (values <= 1 + 1e-6)).all(1))
    if len(bad):
        raise DataError(Issue(f"probabilities of row {bad[0]}", "must be numbers from 0 to 1", f"{len(bad)} rows that are not"))
    return np.clip(values, 0.0, 1.0)
