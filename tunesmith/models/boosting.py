"""Gradient boosting by scikit-learn, taken out of it as arrays: what is kept and asked is `models.heads.Trees`.

Shape suffixes: N = rows, E = width, P = components, C = classes, R = trees, M = nodes of a tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.models.heads import Trees

COMPONENTS = 64
"""Most principal components that trees look at: they split one at a time, and the first ones say most."""
TREES, MOST_ROUNDS, FEWEST_ROUNDS = 1000, 100, 12
LEAVES, LEAST_ROWS, L2 = 15, 5, 1.0
MANY_ROUNDS, SLOW, FAST = 50, 0.1, 0.3
"""Learning rates with at least this many rounds, and with fewer."""
NEVER = -20.0
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Grown:
    """scikit-learn's trees, with the class that each adds to, and what is added to each class before."""

    trees: list[tuple[int, Any]]
    baseline_C: Array


def rounds_for(classes: int) -> int:
    """Rounds of boosting, a tree for each class in each: about 1,000 trees, at least 12 and at most 100 rounds."""
    return int(np.clip(TREES // max(classes, 1), FEWEST_ROUNDS, MOST_ROUNDS))


def fit_boosting(features_NE: Tensor, targets: Array, classes: int, weights_N: Array | None = None) -> Trees:
    """Gradient-boosted trees on the principal components of features; one label at a time where a row can carry several.

    Args:
        features_NE: frozen features.
        targets: class ids (N,), or a 0/1 matrix (N, C).
        classes: C; a class without rows gets the logit of a class that never happens.
        weights_N: weight of each row in the loss; 1 when left out.
    """
    features = features_NE.numpy().astype(np.float64)
    mean_E = features.mean(0)
    rotation_EP = components(features - mean_E, min(COMPONENTS, *features.shape))
    component_NP, rounds = (features - mean_E) @ rotation_EP, rounds_for(classes)
    baseline_C, trees = np.full(classes, NEVER), list[tuple[int, Any]]()
    if targets.ndim == 1:
        present = np.unique(targets)
        grown = grow(component_NP, np.searchsorted(present, targets), len(present), rounds, weights_N)
        baseline_C[present] = grown.baseline_C
        trees = [(int(present[place]), tree) for place, tree in grown.trees]
    else:
        for c in range(classes):
            wanted = targets[:, c].astype(np.int64)
            if wanted.min() == wanted.max():
                baseline_C[c] = NEVER if wanted[0] == 0 else -NEVER
                continue
            grown = grow(component_NP, wanted, 2, rounds, weights_N)
            baseline_C[c] = grown.baseline_C[1]
            trees += [(c, tree) for _, tree in grown.trees]
    return _as_arrays(trees, baseline_C, mean_E, rotation_EP)


def components(centred_NE: Array, count: int) -> Array:
    """The first principal axes (E, P), their signs such that the largest entry of each is positive."""
    axes_EP = np.linalg.eigh(centred_NE.T @ centred_NE)[1][:, ::-1][:, :count]
    largest_P = axes_EP[np.abs(axes_EP).argmax(0), np.arange(axes_EP.shape[1])]
    return np.asarray(axes_EP * np.where(largest_P < 0, -1.0, 1.0))


def grow(component_NP: Array, targets_N: Array, classes: int, rounds: int, weights_N: Array | None) -> Grown:
    """Trees by scikit-learn for the classes 0 … C - 1, each of which has rows. One class alone needs no tree."""
    if classes < 2:
        return Grown([], np.zeros(1))
    predictors, baseline = boosted(component_NP, targets_N, rounds, weights_N)
    single = classes == 2  # scikit-learn then grows one tree a round, for the second class
    baseline_C = np.concatenate([np.zeros(1), baseline.ravel()]) if single else baseline.ravel()
    return Grown([(place + single, tree) for group in predictors for place, tree in enumerate(group)], baseline_C)


def boosted(component_NP: Array, targets_N: Array, rounds: int, weights_N: Array | None) -> tuple[list[list[Any]], Array]:
    """Trees of each round by class, and the baseline, as scikit-learn holds them."""
    model = classifier(rounds).fit(component_NP, targets_N, sample_weight=weights_N)
    return model._predictors, np.asarray(model._baseline_prediction)


def classifier(rounds: int) -> Any:
    """scikit-learn's classifier with this project's settings. Nothing is set aside to stop early: that would cut clusters.

    The penalty on leaves matters where there are many classes: a leaf then holds little curvature, and would overshoot.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # two seconds to import: only when trees are grown

    return HistGradientBoostingClassifier(
        max_iter=rounds,
        learning_rate=SLOW if rounds >= MANY_ROUNDS else FAST,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAST_ROWS,
        l2_regularization=L2,
        early_stopping=False,
        random_state=0,
    )


def _as_arrays(trees: list[tuple[int, Any]], baseline_C: Array, mean_E: Array, rotation_EP: Array) -> Trees:
    tables = [tree.nodes for _, tree in trees]
    nodes = max((len(table) for table in tables), default=1)
    depth = max((int(table["depth"].max()) for table in tables), default=0)
    head = Trees(rotation_EP.shape[0], rotation_EP.shape[1], len(baseline_C), len(trees), nodes, depth)
    arrays: dict[str, Array] = {name: np.zeros((len(trees), nodes), np.int64) for name in ("feature_RM", "left_RM", "right_RM")}
    arrays |= {name: np.zeros((len(trees), nodes)) for name in ("threshold_RM", "value_RM")}
    for row, table in enumerate(tables):
        size, leaf = len(table), table["is_leaf"].astype(bool)
        own = np.arange(size)
        arrays["feature_RM"][row, :size] = np.where(leaf, 0, table["feature_idx"])
        arrays["threshold_RM"][row, :size] = np.where(leaf, 0.0, table["num_threshold"])
        arrays["left_RM"][row, :size] = np.where(leaf, own, table["left"])
        arrays["right_RM"][row, :size] = np.where(leaf, own, table["right"])
        arrays["value_RM"][row, :size] = table["value"]
    arrays |= {"baseline_C": baseline_C, "mean_E": mean_E, "rotation_EP": rotation_EP}
    arrays["class_R"] = np.array([c for c, _ in trees], np.int64)
    head.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})
    return head
