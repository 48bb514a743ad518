"""How far several annotators agree, what they say together, and how good each one is.

Input is a long table: one row for each label that an annotator gave an item; an item may lack annotators. Every measure of
agreement has a percentile bootstrap interval over items. Shape suffixes: I = items, A = annotators, C = labels, P = distinct
items (patterns), S = numbers kept of an item, R = resamples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.seeding import seed_for
from tunesmith.data.label_boxes import Boxes, matched_ious

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Literal["nominal", "ordinal", "interval"]
Measure = Callable[[Floats, Floats], Floats]

COLUMNS = ("item", "annotator", "label")
RESAMPLES = 1000
CONFIDENCE = 0.95
CHUNK_ELEMENTS = 2**21
UNDEFINED = "all labels are the same, so that agreement by chance is certain"
EM_STEPS, EM_TOLERANCE, PRIOR_COUNT = 500, 1e-6, 0.01
MATCH_IOU = 0.5


@dataclass(frozen=True)
class Ratings:
    """The labels of a long table as codes, -1 where an annotator gave an item none; and what was left out of it.

    `repeated` counts rows that say the same again, `contradictory` the (item, annotator) pairs with different labels, of
    which none is used, `empty` the rows with an empty cell. Labels are sorted, numbers by value and texts by letter, unless
    an order was given.
    """

    items: tuple[Any, ...]
    annotators: tuple[str, ...]
    labels: tuple[Any, ...]
    codes_IA: Ints
    repeated: int
    contradictory: int
    empty: int

    @property
    def counts_IC(self) -> Floats:
        """How many annotators gave each item each label."""
        counts = np.zeros((len(self.items), len(self.labels)))
        item, annotator = np.nonzero(self.codes_IA >= 0)
        np.add.at(counts, (item, self.codes_IA[item, annotator]), 1)
        return counts


@dataclass(frozen=True)
class Agreement:
    """A measure of agreement over `items` items, its interval, and why there is none. 1 is full agreement, 0 that of chance."""

    value: float | None
    interval: tuple[float, float] | None
    items: int
    note: str = ""


@dataclass(frozen=True)
class Consensus:
    """One label code for each item, -1 where there is none (a tie, or no label), with the probability or share of votes.

    `ties` holds the tied label codes of each item that has several winners.
    """

    codes_I: Ints
    shares_I: Floats
    ties: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class DawidSkene:
    """True labels and annotators' errors, estimated together. `errors_ACC[a, t, l]`: the chance that a says l where t is true."""

    posterior_IC: Floats
    prior_C: Floats
    errors_ACC: Floats
    steps: int
    converged: bool

    def accuracy_A(self) -> Floats:
        """How often each annotator would be right on items distributed like these."""
        accuracy: Floats = np.einsum("acc,c->a", self.errors_ACC, self.prior_C)
        return accuracy


@dataclass(frozen=True)
class AnnotatorQuality:
    """How good an annotator is. `accuracy` is agreement with the majority of the *others* over `judged` of `rated` items.

    The own vote does not count (leave one out), or rare annotators would agree with themselves; items whose other votes tie
    or are missing are not judged. A majority can be wrong together, which no such number shows.
    """

    annotator: str
    rated: int
    judged: int
    accuracy: float | None
    dawid_skene: float


def ratings(table: pl.DataFrame, order: Sequence[Any] | None = None) -> Ratings:
    """The ratings of a long table with columns item, annotator, label.

    Args:
        table: one row for each label given.
        order: all labels from low to high, for ordinal agreement of texts; None for sorted ones.

    Raises:
        DataError: a column is missing, there is no rating, or a label is not in the order.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(Issue("annotations", f"must have the columns {', '.join(COLUMNS)}", f"no {missing[0]}", "Rename the columns."))
    whole = table.select(COLUMNS).drop_nulls()
    distinct = whole.unique(maintain_order=True)
    agreed = distinct.filter(pl.len().over("item", "annotator") == 1)
    if not agreed.height:
        raise DataError(
            Issue(
                "annotations",
                "must have at least one usable label",
                f"{table.height} rows: empty, or annotators who contradict themselves",
                "Check the columns.",
            )
        )
    labels = tuple(agreed["label"].unique().sort()) if order is None else tuple(order)
    unknown = set(agreed["label"]) - set(labels)
    if unknown:
        raise DataError(Issue("annotations", f"must have labels of the order {labels}", repr(sorted(map(str, unknown))[0])))
    items, annotators = agreed["item"].unique(maintain_order=True), agreed["annotator"].cast(pl.String).unique().sort()
    places = [{value: n for n, value in enumerate(values)} for values in (items, annotators, labels)]
    codes_IA = np.full((len(items), len(annotators)), -1, np.int64)
    for item, annotator, label in agreed.with_columns(pl.col("annotator").cast(pl.String)).iter_rows():
        codes_IA[places[0][item], places[1][annotator]] = places[2][label]
    contradictory = distinct.filter(pl.len().over("item", "annotator") > 1).select("item", "annotator").n_unique()
    return Ratings(
        items=tuple(items),
        annotators=tuple(annotators),
        labels=labels,
        codes_IA=codes_IA,
        repeated=whole.height - distinct.height,
        contradictory=contradictory if distinct.height > agreed.height else 0,
        empty=table.height - whole.height,
    )


def cohen_kappas(given: Ratings, seed: int = 0) -> dict[tuple[str, str], Agreement]:
    """Cohen's kappa (1960) of every pair of annotators, over the items that both rated."""
    out, classes = dict[tuple[str, str], Agreement](), len(given.labels)
    cells_PS = np.stack(np.divmod(np.arange(classes**2), classes), 1).astype(np.float64)

    def kappa(cells_PS: Floats, weights_RP: Floats) -> Floats:
        table_RCC = weights_RP.reshape(-1, classes, classes)
        n_R = weights_RP.sum(1)
        observed_R = np.einsum("rcc->r", table_RCC) / n_R
        chance_R = (table_RCC.sum(2) * table_RCC.sum(1)).sum(1) / n_R**2
        return _ratio(observed_R - chance_R, 1 - chance_R)

    for a, b in itertools.combinations(range(len(given.annotators)), 2):
        first_I, second_I = given.codes_IA[:, a], given.codes_IA[:, b]
        both = (first_I >= 0) & (second_I >= 0)
        times_P = np.bincount(first_I[both] * classes + second_I[both], minlength=classes**2)
        out[given.annotators[a], given.annotators[b]] = _agreement(kappa, cells_PS, times_P, seed)
    return out


def fleiss_kappa(given: Ratings, seed: int = 0) -> Agreement:
    """Fleiss' kappa (1971) over the items with the usual number of ratings; it needs the same number for each."""
    counts_IC = given.counts_IC
    times = counts_IC.sum(1)
    several = times[times >= 2]
    if not len(several):
        return Agreement(None, None, 0, "no item has two ratings")
    usual = float(np.argmax(np.bincount(several.astype(int))))

    def kappa(counts_PC: Floats, weights_RP: Floats) -> Floats:
        observed_R = weights_RP @ ((counts_PC**2).sum(1) - usual) / (usual * (usual - 1) * weights_RP.sum(1))
        shares_RC = weights_RP @ counts_PC / (usual * weights_RP.sum(1, keepdims=True))
        chance_R = (shares_RC**2).sum(1)
        return _ratio(observed_R - chance_R, 1 - chance_R)

    patterns_PC, times_P = np.unique(counts_IC[times == usual], axis=0, return_counts=True)
    left_out = int((times != usual).sum())
    note = f"{left_out} items left out: they do not have {usual:.0f} ratings" if left_out else ""
    return _agreement(kappa, patterns_PC, times_P, seed, note)


def krippendorff_alpha(given: Ratings, level: Level, seed: int = 0) -> Agreement:
    """Krippendorff's alpha (2011): 1 - observed / expected disagreement of pairs of labels within and across items.

    The difference of two labels is 0 or 1 (nominal), the squared difference of the labels' numbers (interval), or of their
    places among all labels given, counted to the middle of each label's own (ordinal). Missing labels are allowed; items
    with one label form no pair, and are left out.

    Raises:
        DataError: interval alpha of labels that are not numbers.
    """
    counts_IC = given.counts_IC
    paired = counts_IC.sum(1) >= 2
    if level == "interval":
        try:
            values_C = np.array([float(label) for label in given.labels])
        except ValueError:
            raise DataError(Issue("annotations", "must be numbers for interval alpha", repr(given.labels[0]), "Use nominal.")) from None
    else:
        values_C = np.arange(len(given.labels), dtype=np.float64)

    def alpha(counts_PC: Floats, weights_RP: Floats) -> Floats:
        marginals_RC, of_item_P = weights_RP @ counts_PC, counts_PC.sum(1)
        n_R = marginals_RC.sum(1)
        if level == "nominal":
            observed_R = weights_RP @ ((of_item_P**2 - (counts_PC**2).sum(1)) / (of_item_P - 1))
            expected_R = n_R**2 - (marginals_RC**2).sum(1)
        else:
            place_RC = np.cumsum(marginals_RC, 1) - marginals_RC / 2 if level == "ordinal" else values_C[None, :]
            place_RC = place_RC - (marginals_RC * place_RC).sum(1, keepdims=True) / n_R[:, None]  # exact sums need small numbers
            spread_RP = 2 * (of_item_P * (place_RC**2 @ counts_PC.T) - (place_RC @ counts_PC.T) ** 2) / (of_item_P - 1)
            observed_R = (weights_RP * spread_RP).sum(1)
            expected_R = 2 * n_R * (marginals_RC * place_RC**2).sum(1)
        return 1 - _ratio((n_R - 1) * observed_R, expected_R)

    patterns_PC, times_P = np.unique(counts_IC[paired], axis=0, return_counts=True)
    alone = int((~paired).sum())
    return _agreement(alpha, patterns_PC, times_P, seed, f"{alone} items left out: fewer than two labels" if alone else "")


def box_agreement(images: Sequence[Mapping[str, Boxes]], seed: int = 0) -> dict[str, Agreement]:
    """`iou`: mean IoU of matched boxes; `f1`: share of boxes that another annotator has too, at an IoU of 0.5.

    Over all pairs of annotators of each image; boxes of one label are matched by the Hungarian method on IoU. Not corrected
    for chance. The interval is over images.
    """
    rows = []
    for image in images:
        pairs = list(itertools.combinations(image.values(), 2))
        overlaps = [matched_ious(a, b) for a, b in pairs]
        boxes = sum(len(a.labels_L) + len(b.labels_L) for a, b in pairs)
        if pairs:
            all_overlaps = np.concatenate(overlaps)
            rows.append([all_overlaps.sum(), len(all_overlaps), 2 * (all_overlaps >= MATCH_IOU).sum(), boxes])
    table_PS, times_P = np.array(rows, np.float64).reshape(-1, 4), np.ones(len(rows), np.int64)
    note = f"{len(images) - len(rows)} images left out: fewer than two annotators" if len(rows) < len(images) else ""
    return {
        "iou": _agreement(lambda t, w: _ratio(w @ t[:, 0], w @ t[:, 1]), table_PS, times_P, seed, note),
        "f1": _agreement(lambda t, w: _ratio(w @ t[:, 2], w @ t[:, 3]), table_PS, times_P, seed, note),
    }


def majority(given: Ratings) -> Consensus:
    """The label with the most votes for each item; none where several have the most."""
    counts_IC = given.counts_IC
    best_I = counts_IC.max(1)
    winners_IC = (counts_IC == best_I[:, None]) & (best_I[:, None] > 0)
    tied = np.flatnonzero(winners_IC.sum(1) > 1)
    codes_I = counts_IC.argmax(1)
    codes_I[winners_IC.sum(1) != 1] = -1
    shares_I = best_I / np.maximum(counts_IC.sum(1), 1)
    return Consensus(codes_I, shares_I, {int(i): tuple(np.flatnonzero(winners_IC[i]).tolist()) for i in tied})


def dawid_skene(given: Ratings) -> DawidSkene:
    """True labels and each annotator's confusion matrix by expectation maximisation (Dawid & Skene 1979, eq. 2.3 to 2.5).

    It starts at the shares of votes. Each cell of a confusion matrix starts with 0.01 ratings, so that what was never seen
    is unlikely and not impossible.
    """
    from scipy.sparse import csr_matrix

    items, annotators, classes = len(given.items), len(given.annotators), len(given.labels)
    item, annotator = np.nonzero(given.codes_IA >= 0)
    said = annotator * classes + given.codes_IA[item, annotator]
    votes = csr_matrix((np.ones(len(item)), (said, item)), shape=(annotators * classes, items))  # (A·C, I)
    posterior_IC = given.counts_IC / given.counts_IC.sum(1, keepdims=True)
    step, converged = 0, False
    while step < EM_STEPS and not converged:
        prior_C = posterior_IC.mean(0)
        counts_ACT = (votes @ posterior_IC).reshape(annotators, classes, classes) + PRIOR_COUNT
        errors_ACT = counts_ACT / counts_ACT.sum(1, keepdims=True)
        logs_IC = np.log(np.maximum(prior_C, 1e-300)) + votes.T @ np.log(errors_ACT).reshape(-1, classes)
        odds_IC = np.exp(logs_IC - logs_IC.max(1, keepdims=True))
        before_IC, posterior_IC = posterior_IC, odds_IC / odds_IC.sum(1, keepdims=True)
        step, converged = step + 1, bool(np.abs(posterior_IC - before_IC).max() < EM_TOLERANCE)
    return DawidSkene(posterior_IC, prior_C, errors_ACT.transpose(0, 2, 1), step, converged)


def dawid_skene_consensus(fitted: DawidSkene) -> Consensus:
    """The most probable true label of each item with its probability; none where several are equally probable."""
    shares_I = fitted.posterior_IC.max(1)
    winners_IC = fitted.posterior_IC >= shares_I[:, None] - 1e-9
    tied = np.flatnonzero(winners_IC.sum(1) > 1)
    codes_I = fitted.posterior_IC.argmax(1)
    codes_I[tied] = -1
    return Consensus(codes_I, shares_I, {int(i): tuple(np.flatnonzero(winners_IC[i]).tolist()) for i in tied})


def annotator_quality(given: Ratings, fitted: DawidSkene) -> tuple[AnnotatorQuality, ...]:
    """How good each annotator is by the majority of the others, and by Dawid-Skene, in the order of the names."""
    counts_IC, accuracy_A, out = given.counts_IC, fitted.accuracy_A(), []
    for number, name in enumerate(given.annotators):
        rated = np.flatnonzero(given.codes_IA[:, number] >= 0)
        own = given.codes_IA[rated, number]
        others = counts_IC[rated]
        others[np.arange(len(rated)), own] -= 1
        judged = ((others == others.max(1, keepdims=True)).sum(1) == 1) & (others.max(1) > 0)
        right = (others.argmax(1) == own)[judged]
        accuracy = float(right.mean()) if len(right) else None
        out.append(AnnotatorQuality(name, len(rated), int(judged.sum()), accuracy, float(accuracy_A[number])))
    return tuple(out)


def _agreement(measure: Measure, patterns_PS: Floats, times_P: Ints, seed: int, note: str = "") -> Agreement:
    """The measure of all items, and of resamples of them: items of one pattern are drawn together, which changes nothing."""
    items = int(times_P.sum())
    if not items:
        return Agreement(None, None, 0, note or "no item has labels of both")
    value = float(measure(patterns_PS, times_P[None].astype(np.float64))[0])
    if np.isnan(value):
        return Agreement(None, None, items, note or UNDEFINED)
    draw = np.random.Generator(np.random.PCG64(seed_for(seed, "annotators")))
    at_a_time = max(1, CHUNK_ELEMENTS // len(times_P))
    drawn = []
    for start in range(0, RESAMPLES, at_a_time):
        weights_RP = draw.multinomial(items, times_P / items, min(at_a_time, RESAMPLES - start)).astype(np.float64)
        drawn.append(measure(patterns_PS, weights_RP))
    values_R = np.concatenate(drawn)
    values_R = values_R[~np.isnan(values_R)]
    if len(values_R) < RESAMPLES / 2 or np.ptp(values_R) < 1e-12:
        return Agreement(value, None, items, "; ".join(filter(None, [note, "no interval: resampling these items cannot tell"])))
    low, high = np.quantile(values_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Agreement(value, (float(low), float(high)), items, note)


def _ratio(above_R: Floats, below_R: Floats) -> Floats:
    """The quotient, NaN where the divisor is 0."""
    small = np.abs(below_R) < 1e-12
    quotient: Floats = np.where(small, np.nan, above_R / np.where(small, 1, below_R))
    return quotient
