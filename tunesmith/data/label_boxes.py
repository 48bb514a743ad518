"""Boxes that are probably wrong or missing, and how well two sets of boxes agree.

Shape suffixes: L = given boxes of an image, M = other boxes of it. A box is (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.labels import Suspect, Suspects, noise_of, worst_first

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WORST_SCORE = 0.5
"""Scores are similarities (0.9 IoU + 0.1 nearness): below one half, two boxes are hardly of the same thing."""
WRONG_LABEL = "a confident model puts another label on this box"
WRONG_PLACE = "a model puts a box of this label elsewhere on the same thing"
MISSING_BOX = "a confident model sees something where no box is given"


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image: corners (L, 4), class ids (L,), and for predictions the probability of each (L,)."""

    corners_L4: Floats
    labels_L: Ints
    probabilities_L: Floats | None = None


def suspects_boxes(given: Sequence[Boxes], predicted: Sequence[Boxes], classes: int, confident: float = 0.95) -> Suspects:
    """(image, box) pairs with a wrong label, in a wrong place, or missing, by ObjectLab's scores (Tkachenko et al. 2023).

    `part` is the number of the given box; for a missing box (`given` None) that of the predicted one. The quality of an
    image is its worst score, 1 without any; the noise is counted over given boxes, missing ones beside them.

    Args:
        given: the boxes of each image.
        predicted: out-of-fold predictions for each image, with probabilities.
        classes: number of classes.
        confident: the probability from which a prediction may contradict a label or name a missing box.

    Raises:
        DataError: corners that are not numbers or the wrong way round, or labels outside the classes.
    """
    # cleanlab's own filter starts processes for every call and takes a long-gone numpy function: its scores are used here.
    from cleanlab.object_detection.rank import compute_badloc_box_scores, compute_overlooked_box_scores, compute_swap_box_scores

    for what, images in (("given", given), ("predicted", predicted)):
        _check(what, images, classes)
    orders = [np.argsort(image.labels_L, kind="stable") for image in predicted]  # cleanlab keeps predictions by class
    inputs: dict[str, Any] = {
        "labels": [{"bboxes": image.corners_L4.reshape(-1, 4), "labels": image.labels_L} for image in given],
        "predictions": [_by_class(image, classes) for image in predicted],
    }
    quality_N, suspects = np.ones(len(given)), list[Suspect]()
    if any(len(image.labels_L) for image in given) and any(len(image.labels_L) for image in predicted):
        swap = compute_swap_box_scores(**inputs, high_probability_threshold=confident)
        badloc = compute_badloc_box_scores(**inputs)
        overlooked = compute_overlooked_box_scores(**inputs, high_probability_threshold=confident)
    else:
        return Suspects((), quality_N, noise_of(0, sum(len(i.labels_L) for i in given)), note="no boxes to compare")
    for row, (image, other) in enumerate(zip(given, predicted, strict=True)):
        scores = np.concatenate([swap[row], badloc[row], overlooked[row]])
        quality_N[row] = float(np.nanmin(scores, initial=1.0)) if len(scores) else 1.0
        suspects += _wrong_boxes(row, (image, other), np.nan_to_num(swap[row], nan=1.0), np.nan_to_num(badloc[row], nan=1.0))
        for place in np.flatnonzero(overlooked[row] < WORST_SCORE):
            box, score = int(orders[row][place]), float(overlooked[row][place])
            suspects.append(Suspect(row, box, None, int(other.labels_L[box]), _probability(other, box), score, MISSING_BOX))
    boxes, wrong = sum(len(image.labels_L) for image in given), len({(s.row, s.part) for s in suspects if s.given is not None})
    return Suspects(worst_first(suspects), np.clip(quality_N, 0, 1), noise_of(wrong, boxes))


def iou(first_L4: Floats, second_M4: Floats) -> Floats:
    """Intersection over union of every pair of boxes (L, M); 0 where both have no area."""
    first, second = first_L4.reshape(-1, 1, 4), second_M4.reshape(1, -1, 4)
    overlap = np.maximum(np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0).prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - overlap
    shares: Floats = np.where(union > 0, overlap / np.where(union > 0, union, 1), 0.0)
    return shares


def matched_ious(first: Boxes, second: Boxes) -> Floats:
    """IoU of the pairs of boxes of one label that together overlap most (Hungarian method); pairs that do not touch are none."""
    from scipy.optimize import linear_sum_assignment

    overlap_LM = iou(first.corners_L4, second.corners_L4) * (first.labels_L[:, None] == second.labels_L[None, :])
    matched: Floats = overlap_LM[linear_sum_assignment(overlap_LM, maximize=True)]
    return matched[matched > 0]


def _wrong_boxes(row: int, pair: tuple[Boxes, Boxes], swap_L: Floats, badloc_L: Floats) -> list[Suspect]:
    """Given boxes with a wrong label, else in a wrong place; the suggestion is the predicted box that overlaps most."""
    image, other = pair
    overlap_LM = iou(image.corners_L4, other.corners_L4)
    out = []
    for box in np.flatnonzero(np.minimum(swap_L, badloc_L) < WORST_SCORE).tolist():
        label, wrong_label = int(image.labels_L[box]), bool(swap_L[box] < WORST_SCORE)
        candidates = np.flatnonzero((other.labels_L != label) == wrong_label)
        best = int(candidates[overlap_LM[box, candidates].argmax()])
        score, reason = (swap_L[box], WRONG_LABEL) if wrong_label else (badloc_L[box], WRONG_PLACE)
        out.append(Suspect(row, box, label, int(other.labels_L[best]), _probability(other, best), float(score), reason))
    return out


def _probability(image: Boxes, box: int) -> float | None:
    return None if image.probabilities_L is None else float(image.probabilities_L[box])


def _by_class(image: Boxes, classes: int) -> Any:
    probabilities_L = np.ones(len(image.labels_L)) if image.probabilities_L is None else image.probabilities_L
    rows_L5 = np.column_stack([image.corners_L4.reshape(-1, 4), probabilities_L]).astype(np.float64)
    by_class = np.empty(classes, dtype=object)
    for label in range(classes):
        by_class[label] = rows_L5[image.labels_L == label]
    return by_class


def _check(what: str, images: Sequence[Boxes], classes: int) -> None:
    for row, image in enumerate(images):
        corners = image.corners_L4.reshape(-1, 4)
        if not (np.isfinite(corners).all() and (corners[:, :2] <= corners[:, 2:]).all()):
            raise DataError(Issue(f"image {row}, {what} boxes", "must be (x1, y1, x2, y2), x1 <= x2 and y1 <= y2"))
        if len(image.labels_L) and not (image.labels_L.min() >= 0 and image.labels_L.max() < classes):
            raise DataError(Issue(f"image {row}, {what} boxes", f"must have labels from 0 to {classes - 1}"))
