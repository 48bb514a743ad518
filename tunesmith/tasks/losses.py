"""Losses of one label a row that wrong labels pull less than cross-entropy: a value for each row.

Shape suffixes: B = rows of a batch, C = classes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from tunesmith.spec.schema import GeneralizedCrossEntropy, Loss, SymmetricCrossEntropy

RowLoss = Callable[[Tensor, Tensor], Tensor]
LOG_OF_ZERO = -4.0


def generalized_cross_entropy(logits_BC: Tensor, labels_B: Tensor, q: float) -> Tensor:
    """(1 - p^q) / q of each row (B,), p being the probability of its label (Zhang & Sabuncu 2018, eq. 6)."""
    logs_B = F.log_softmax(logits_BC, -1).gather(1, labels_B[:, None]).squeeze(1)
    return -(q * logs_B).expm1() / q


def symmetric_cross_entropy(logits_BC: Tensor, labels_B: Tensor, reverse: float) -> Tensor:
    """Cross-entropy of each row (B,) plus `reverse` times -Σ p log y, log 0 being -4 (Wang et al. 2019, eq. 7 and section 3.3)."""
    logs_B = F.log_softmax(logits_BC, -1).gather(1, labels_B[:, None]).squeeze(1)
    return -logs_B + reverse * LOG_OF_ZERO * logs_B.expm1()


def robust_loss(loss: Loss) -> RowLoss | None:
    """The value for each row of a noise-robust loss; None for losses of another kind."""
    if isinstance(loss, GeneralizedCrossEntropy):
        return lambda logits_BC, labels_B: generalized_cross_entropy(logits_BC, labels_B, loss.q)
    if isinstance(loss, SymmetricCrossEntropy):
        return lambda logits_BC, labels_B: symmetric_cross_entropy(logits_BC, labels_B, loss.reverse)
    return None
