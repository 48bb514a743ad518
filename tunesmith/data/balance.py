"""Rare classes given more weight: in the loss, in how often rows are drawn, or by what the loss looks at.

Shape suffixes: N = rows, C = classes, B = rows of a batch. Nothing here imports torch before a loss is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.seeding import seed_for

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sampling = Literal["balanced", "square-root"]


def balanced_weights(counts_C: Ints) -> Floats:
    """Rows / (classes × rows of the class); a class without rows counts as one row. Rows weigh 1 on average."""
    counts = np.maximum(np.asarray(counts_C, np.float64), 1)
    weights: Floats = np.asarray(counts_C).sum() / (len(counts) * counts)
    return weights


def effective_number_weights(counts_C: Ints, beta: float = 0.999) -> Floats:
    """(1 - beta) / (1 - beta^n) of each class, scaled so that they sum to the number of classes (Cui et al. 2019, eq. 5).

    A class without rows counts as one row. Beta 0 gives equal weights; towards 1 they become those of the inverse count.
    """
    counts = np.maximum(np.asarray(counts_C, np.float64), 1)
    weights = (1 - beta) / -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones(len(counts))
    scaled: Floats = weights * len(counts) / weights.sum()
    return scaled


def row_chances(targets_N: Ints, how: Sampling) -> Floats:
    """The chance of each row to be drawn, summing to 1: classes equally often, or as often as the square root of their rows."""
    counts_C = np.bincount(targets_N)
    shares_C = np.where(counts_C > 0, 1.0 if how == "balanced" else np.sqrt(counts_C), 0.0)
    chances: Floats = (shares_C / shares_C.sum() / np.maximum(counts_C, 1))[targets_N] if len(targets_N) else np.zeros(0)
    return chances


def epoch_order(targets_N: Ints, how: Sampling, seed: int, epoch: int) -> Ints:
    """Exactly N row numbers for an epoch, in random order, the same for the same seed and epoch.

    Each class gets its share of the N draws, rounded to whole draws by largest remainder. Within a class every row is drawn
    once before any is drawn again, so that a class with at least as many draws as rows, as rare ones have, is seen whole;
    from a frequent class other rows are drawn in each epoch.
    """
    n, draw = len(targets_N), np.random.Generator(np.random.PCG64(seed_for(seed, f"balance/{epoch}")))
    if not n:
        return np.zeros(0, np.int64)
    shares_C = np.bincount(targets_N, weights=row_chances(targets_N, how)) * n
    draws_C = np.floor(shares_C + 1e-9).astype(np.int64)
    draws_C[np.argsort(draws_C - shares_C, kind="stable")[: n - draws_C.sum()]] += 1
    chosen = []
    for label in np.flatnonzero(draws_C):
        rows, wanted = np.flatnonzero(targets_N == label), int(draws_C[label])
        rounds = [draw.permutation(rows) for _ in range(-(-wanted // len(rows)))]
        chosen.append(np.concatenate(rounds)[:wanted])
    return draw.permutation(np.concatenate(chosen))


def focal_loss(logits_BC: Tensor, targets_B: Tensor, gamma: float = 2.0, weights_C: Tensor | None = None) -> tuple[Tensor, Any]:
    """Sum of -(1 - p)^gamma log p over the batch, and the rows it counts (Lin et al. 2017, eq. 4); gamma 0 is cross-entropy.

    With class weights both the terms and the count are weighted, as in torch's cross-entropy.
    """
    from torch.nn import functional as F

    logs_B = F.log_softmax(logits_BC.float(), -1).gather(1, targets_B[:, None]).squeeze(1)
    # 1 - p of a log probability close to 0 without cancellation; the small floor keeps the gradient of the power finite.
    missed_B = (-logs_B.expm1()).clamp_min(1e-12)
    terms_B = -(missed_B**gamma) * logs_B
    if weights_C is None:
        return terms_B.sum(), len(targets_B)
    of_row_B = weights_C.to(logs_B)[targets_B]
    return (terms_B * of_row_B).sum(), of_row_B.sum()


def focal_loss_multi_label(logits_BC: Tensor, targets_BC: Tensor, gamma: float = 2.0) -> tuple[Tensor, int]:
    """Sum of the focal binary cross-entropy over rows and labels, and their number; gamma 0 is binary cross-entropy."""
    from torch.nn import functional as F

    targets = targets_BC.to(logits_BC.dtype).float()
    terms_BC = F.binary_cross_entropy_with_logits(logits_BC.float(), targets, reduction="none")
    missed_BC = (-(-terms_BC).expm1()).clamp_min(1e-12)  # the term is -log p of what is given
    return (missed_BC**gamma * terms_BC).sum(), targets_BC.numel()
