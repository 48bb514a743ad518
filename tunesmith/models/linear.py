"""Logistic and ridge regression on frozen features, as the weights of a linear layer.

Shape suffixes: N = rows, E = width, C = classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

ITERATIONS = 200
TOLERANCE = 1e-3
RIDGE = 1000.0
STRENGTHS = (0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True)
class Linear:
    """logits_NC = features_NE @ weight_CE.T + bias_C. `converged` is False when a solver ran out of iterations."""

    weight_CE: Tensor
    bias_C: Tensor
    converged: bool

    def __call__(self, features_NE: Tensor) -> Tensor:
        return features_NE @ self.weight_CE.T + self.bias_C


@dataclass(frozen=True)
class Penalty:
    """How a regression is fitted: scikit-learn's C, whether classes are weighted by rarity, an intercept, when the solver stops."""

    strength: float = 1.0
    balanced: bool = False
    intercept: bool = True
    tolerance: float = TOLERANCE


def fit_logistic(features_NE: Tensor, targets: np.ndarray, classes: int, penalty: Penalty, weights_N: np.ndarray | None = None) -> Linear:
    """Logistic regression on features scaled to unit spread.

    Args:
        features_NE: frozen features.
        targets: class ids (N,), or a 0/1 matrix (N, C): then one regression per label.
        classes: C; a class without rows gets the logit of a class that never happens.
        penalty: how it is fitted. Without an intercept the biases are 0.
        weights_N: weight of each row in the loss; 1 when left out.
    """
    features = features_NE.numpy().astype(np.float64)
    mean, spread = features.mean(0) * penalty.intercept, max(float(features.std()), 1e-12)
    scaled = (features - mean) / spread
    weight, bias, converged = np.zeros((classes, features.shape[1])), np.full(classes, -20.0), True
    columns = [(None, targets)] if targets.ndim == 1 else [(c, targets[:, c]) for c in range(classes)]
    for column, wanted in columns:
        present = np.unique(wanted)
        if len(present) == 1:
            bias[int(present[0]) if column is None else column] = 20.0 if column is None or present[0] else -20.0
            continue
        model, ended = _fit(scaled, wanted, penalty, weights_N)
        converged &= ended
        if column is not None:
            weight[column], bias[column] = model.coef_[0], model.intercept_[0]
        elif len(present) == 2:  # scikit-learn gives one row of weights for two classes
            weight[present], bias[present] = np.stack([-model.coef_[0], model.coef_[0]]) / 2, np.array([-1, 1]) * model.intercept_[0] / 2
        else:
            weight[present], bias[present] = model.coef_, model.intercept_
    weight /= spread
    bias = (bias - weight @ mean) * penalty.intercept
    return Linear(torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32), converged)


def fit_ridge(features_NE: Tensor, targets: np.ndarray, penalty: Penalty, weights_N: np.ndarray | None = None) -> Linear:
    """Least squares with an L2 penalty of N / (1000 · strength) on features scaled to unit spread, solved exactly.

    Args:
        features_NE: frozen features.
        targets: numbers (N,), for one output, or (N, C).
        penalty: how it is fitted. Without an intercept the bias is 0.
        weights_N: weight of each row in the loss; 1 when left out.
    """
    features, wanted_NC = features_NE.numpy().astype(np.float64), targets.astype(np.float64).reshape(len(targets), -1)
    weights = np.ones(len(features)) if weights_N is None else weights_N.astype(np.float64)
    total, centre = weights.sum(), float(penalty.intercept)
    mean, level_C = weights @ features / total * centre, weights @ wanted_NC / total * centre
    spread = max(float(features.std()), 1e-12)
    scaled = (features - mean) / spread
    gram = (scaled * weights[:, None]).T @ scaled + np.eye(scaled.shape[1]) * total / (RIDGE * penalty.strength)
    weight_CE = np.linalg.solve(gram, scaled.T @ (weights[:, None] * (wanted_NC - level_C))).T / spread
    bias_C = level_C - weight_CE @ mean
    return Linear(torch.tensor(weight_CE, dtype=torch.float32), torch.tensor(bias_C, dtype=torch.float32), True)


def ridge_without_fold(features_NE: Tensor, targets: np.ndarray, folds_N: np.ndarray, strength: float) -> np.ndarray:
    """What a ridge regression says of each row, in the shape of the targets, without having seen its fold."""
    said = np.zeros(targets.shape)
    for fold in np.unique(folds_N):
        inside = folds_N == fold
        linear = fit_ridge(features_NE[~inside], targets[~inside], Penalty(strength))
        said[inside] = linear(features_NE[inside]).numpy().reshape(said[inside].shape)
    return said


@dataclass(frozen=True)
class Chosen:
    """The regression with the best score, its strength, and the score of every strength tried."""

    linear: Linear
    strength: float
    scores: dict[float, float]


def choose_logistic(
    fit: Callable[[Penalty], Linear], penalty: Penalty, score: Callable[[Linear], float], strengths: Sequence[float] = STRENGTHS
) -> Chosen:
    """The best of several strengths by `score` (higher is better; validation rows only). Ties go to the stronger penalty."""
    fitted = {strength: fit(replace(penalty, strength=strength)) for strength in strengths}
    scores = {strength: score(linear) for strength, linear in fitted.items()}
    best = max(strengths, key=lambda strength: scores[strength])
    return Chosen(fitted[best], best, scores)


def _fit(features: np.ndarray, wanted: np.ndarray, penalty: Penalty, weights_N: np.ndarray | None) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning  # two seconds to import: only when a regression is fitted
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(
            C=penalty.strength,
            max_iter=ITERATIONS,
            tol=penalty.tolerance,
            class_weight="balanced" if penalty.balanced else None,
            fit_intercept=penalty.intercept,
        )
        model.fit(features, wanted, weights_N)
    return model, not any(issubclass(w.category, ConvergenceWarning) for w in caught)
