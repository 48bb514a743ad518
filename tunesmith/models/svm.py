"""Linear support vector machines with calibrated probabilities, as the weights of a linear layer.

One machine per class against the rest, squared hinge loss, all fitted at once by L-BFGS: the optimum is that of scikit-learn's
LinearSVC (Fan et al. 2008), in a fraction of the time. Scores of rows that a machine has not seen are calibrated by a sigmoid
(Platt 1999); for more than two classes by its softmax form, one slope and an offset for each class.
Shape suffixes: N = rows, E = width, C = classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax
from torch import Tensor

from tunesmith.models.linear import Linear, Penalty

ITERATIONS = 300
STRENGTHS = (0.001, 0.01, 0.1)
NEVER = -20.0
Array = np.ndarray[Any, np.dtype[Any]]


def fit_svm(
    features_NE: Tensor, targets: Array, classes: int, penalty: Penalty, weights_N: Array | None = None, start: Linear | None = None
) -> Linear:
    """Scores of machines that tell each class from the rest, on features scaled to unit spread.

    Products are made in float32, sums in float64. The intercept is penalised like a weight, as LinearSVC does with
    intercept_scaling 1. A class without rows gets weights 0.

    Args:
        features_NE: frozen features.
        targets: class ids (N,), or a 0/1 matrix (N, C).
        classes: C.
        penalty: `strength` is LinearSVC's C; `balanced` is not used: classes are weighted by `weights_N`.
        weights_N: weight of each row in the loss; 1 when left out.
        start: machines of much the same rows, from which the optimum is near; it does not depend on them.
    """
    features = features_NE.numpy().astype(np.float64)
    mean, spread = features.mean(0) * penalty.intercept, max(float(features.std()), 1e-12)
    scaled_NE = ((features - mean) / spread).astype(np.float32)
    if penalty.intercept:
        scaled_NE = np.hstack([scaled_NE, np.ones((len(scaled_NE), 1), np.float32)])
    sign_NC = np.where(indicators(targets, classes), np.float32(1), np.float32(-1))
    cost_N1 = (penalty.strength * (np.ones((len(sign_NC), 1)) if weights_N is None else weights_N[:, None])).astype(np.float32)

    def loss(flat: Array) -> tuple[float, Array]:
        weight_CE = flat.reshape(classes, -1)
        missing_NC = np.maximum(0, 1 - sign_NC * (scaled_NE @ weight_CE.T.astype(np.float32)))
        pull_NC = cost_N1 * missing_NC
        gradient_CE = weight_CE - 2 * ((pull_NC * sign_NC).T @ scaled_NE)
        return 0.5 * float((flat**2).sum()) + float(np.einsum("nc,nc->", pull_NC, missing_NC, dtype=np.float64)), gradient_CE.ravel()

    weight_CE, ended = _minimum(loss, _begin(start, classes, mean, spread, penalty.intercept).ravel(), penalty.tolerance)
    weight_CE = weight_CE.reshape(classes, -1)
    bias_C = weight_CE[:, -1] if penalty.intercept else np.zeros(classes)
    weight_CE = (weight_CE[:, :-1] if penalty.intercept else weight_CE) / spread
    weight_CE[~indicators(targets, classes).any(0)] = 0.0
    bias_C = (bias_C - weight_CE @ mean) * penalty.intercept
    return Linear(torch.tensor(weight_CE, dtype=torch.float32), torch.tensor(bias_C, dtype=torch.float32), ended)


def _begin(start: Linear | None, classes: int, mean_E: Array, spread: float, intercept: bool) -> Array:
    """Where the search begins: nought, or given machines in terms of scaled features."""
    if start is None:
        return np.zeros((classes, len(mean_E) + intercept))
    weight_CE, bias_C = start.weight_CE.double().numpy(), start.bias_C.double().numpy()
    parts = [weight_CE * spread, *([(bias_C + weight_CE @ mean_E)[:, None]] if intercept else [])]
    return np.hstack(parts)


def fit_calibrated(
    features_NE: Tensor, targets: Array, classes: int, penalty: Penalty, parts: tuple[Array, Array | None]
) -> tuple[Linear, float]:
    """Machines whose logits are calibrated, and the log loss of their out-of-fold answers.

    Args:
        features_NE: frozen features.
        targets: class ids (N,), or a 0/1 matrix (N, C).
        classes: C; a class without rows gets the logit of a class that never happens.
        penalty: how they are fitted.
        parts: the fold of each row, two folds at least, and the weight of each row (None: all 1).
    """
    folds_N, weights_N = parts
    whole = fit_svm(features_NE, targets, classes, penalty, weights_N)
    scores_NC = np.zeros((len(targets), classes))
    for fold in np.unique(folds_N).tolist():
        held_N = np.asarray(folds_N == fold)
        own = None if weights_N is None else weights_N[~held_N]
        part = fit_svm(features_NE[~held_N], targets[~held_N], classes, penalty, own, whole)
        scores_NC[held_N] = part(features_NE[held_N]).numpy()
    slope_C, offset_C, loss = calibrate(scores_NC, targets, weights_N, intercept=penalty.intercept)
    slope, offset = torch.tensor(slope_C, dtype=torch.float32), torch.tensor(offset_C, dtype=torch.float32)
    return replace(whole, weight_CE=whole.weight_CE * slope[:, None], bias_C=whole.bias_C * slope + offset), loss


def calibrate(scores_NC: Array, targets: Array, weights_N: Array | None, *, intercept: bool = True) -> tuple[Array, Array, float]:
    """Slope and offset of each class that make logits of scores, and the log loss that is left; Platt's smoothed targets.

    Several labels a row: a sigmoid for each label. One: a softmax with one slope. Slopes are never negative.
    """
    truth_NC = indicators(targets, scores_NC.shape[1])
    present_C, count_C = np.asarray(truth_NC.any(0)), truth_NC.sum(0)
    score_NC, rows = scores_NC[:, present_C], np.ones(len(scores_NC)) if weights_N is None else weights_N.astype(np.float64)
    truth_NC, count_C, several = truth_NC[:, present_C], count_C[present_C], targets.ndim == 2
    classes = int(present_C.sum())
    if several:
        wanted_NC = np.where(truth_NC, (count_C + 1) / (count_C + 2), 1 / (len(truth_NC) - count_C + 2))
    else:
        own_N1 = count_C[truth_NC.argmax(1)][:, None]
        wanted_NC = np.where(truth_NC, (own_N1 + 1) / (own_N1 + 2), 1 / (own_N1 + 2) / max(classes - 1, 1))
    slopes = classes if several else 1

    def loss(flat: Array) -> tuple[float, Array]:
        logits_NC = flat[:slopes] * score_NC + flat[slopes:]
        if several:
            terms_NC = -wanted_NC * log_expit(logits_NC) - (1 - wanted_NC) * log_expit(-logits_NC)
            slack_NC = expit(logits_NC) - wanted_NC
        else:
            terms_NC, slack_NC = -wanted_NC * log_softmax(logits_NC, 1), softmax(logits_NC, 1) - wanted_NC
        slack_NC = slack_NC * rows[:, None]
        offset = slack_NC.sum(0) if intercept else np.zeros(classes)
        slope = (slack_NC * score_NC).sum(0) if several else np.array([(slack_NC * score_NC).sum()])
        return float(rows @ terms_NC.sum(1)), np.concatenate([slope, offset])

    bounds = [(0.0, None)] * slopes + [(None, None)] * classes
    best, _ = _minimum(loss, np.concatenate([np.ones(slopes), np.zeros(classes)]), 1e-6, bounds)
    slope_C, offset_C = np.ones(len(present_C)), np.full(len(present_C), NEVER)
    slope_C[present_C], offset_C[present_C] = best[:slopes], best[slopes:]
    return slope_C, offset_C if intercept else np.zeros_like(offset_C), loss(best)[0] / float(rows.sum())


def indicators(targets: Array, classes: int) -> Array:
    """True where a row carries a label, (N, C), from class ids or from a 0/1 matrix."""
    return np.asarray(targets[:, None] == np.arange(classes) if targets.ndim == 1 else targets.astype(bool))


def _minimum(loss: Callable[[Array], tuple[float, Array]], start: Array, tolerance: float, bounds: Any = None) -> tuple[Array, bool]:
    options = {"maxiter": ITERATIONS, "gtol": tolerance, "ftol": min(1e-6, tolerance * 1e-3)}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x), bool(found.nit < ITERATIONS)
