"""What is minimised and how: `train.optimizer` and `train.loss` in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.part import Part


class AdamW(Part):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    """Selects this optimiser."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Added to the denominator."""


class Adam(Part):
    """Adam (Kingma & Ba 2015); weight decay enters the gradient."""

    kind: Literal["adam"]
    """Selects this optimiser."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Added to the denominator."""


class SGD(Part):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"]
    """Selects this optimiser."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Share of the last update that is kept."""
    nesterov: bool = False
    """Nesterov's form of momentum; needs a momentum above 0."""


class Adafactor(Part):
    """Adafactor (Shazeer & Stern 2018): factored second moments, little memory."""

    kind: Literal["adafactor"]
    """Selects this optimiser."""


Optimizer = Annotated[AdamW | Adam | SGD | Adafactor, Field(discriminator="kind")]


class CrossEntropy(Part):
    """The negative log probability of the label; for several labels a row, the sum over all labels."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    """Selects this loss."""


class Focal(Part):
    """Cross-entropy times (1 - p)^gamma: what the model already knows counts less (Lin et al. 2017)."""

    kind: Literal["focal"]
    """Selects this loss."""
    gamma: float = Field(default=2.0, ge=0.0, le=10.0)
    """How much less; 0 is cross-entropy."""


class GeneralizedCrossEntropy(Part):
    """(1 - p^q) / q: between cross-entropy and the absolute error, so that wrong labels pull less (Zhang & Sabuncu 2018)."""

    kind: Literal["generalized_cross_entropy"]
    """Selects this loss. One label a row only."""
    q: float = Field(default=0.7, gt=0.0, le=1.0)
    """Towards 0 it is cross-entropy; at 1 it is 1 - p, which wrong labels hardly move and which learns slowly."""


class SymmetricCrossEntropy(Part):
    """Cross-entropy plus its reverse, where log 0 counts as -4: the reverse part tolerates wrong labels (Wang et al. 2019)."""

    kind: Literal["symmetric_cross_entropy"]
    """Selects this loss. One label a row only."""
    reverse: float = Field(default=1.0, ge=0.0, le=100.0)
    """Weight of the reverse part relative to cross-entropy: beta / alpha of the paper."""


Loss = Annotated[CrossEntropy | Focal | GeneralizedCrossEntropy | SymmetricCrossEntropy, Field(discriminator="kind")]
