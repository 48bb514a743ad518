"""Craft around the step: `train.averaging`, `train.regularization` and `train.distill` in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.part import Part


class Ema(Part):
    """An exponential moving average of the weights, taken after every step."""

    kind: Literal["ema"]
    """Selects this average."""
    decay: float = Field(default=0.99, gt=0.0, lt=1.0)
    """Share of the average that stays at each step: 0.99 looks back over about 100 steps."""


class Swa(Part):
    """The plain mean of the weights after each of the last steps (Izmailov et al. 2018). Only averaged weights are scored and kept."""

    kind: Literal["swa"]
    """Selects this average."""
    last: float = Field(default=0.25, gt=0.0, le=1.0)
    """Share of all steps, at the end, whose weights are averaged."""


class Soup(Part):
    """A greedy soup of scored checkpoints: the best one, and each next one that does not lower validation (Wortsman et al. 2022)."""

    kind: Literal["soup"]
    """Selects this average."""
    checkpoints: int = Field(default=5, ge=2, le=100)
    """How many of the best scored checkpoints are kept on disk until the end, as candidates."""


class WiseFT(Part):
    """A point between the weights before and after training, an adapter's own too, the best by validation (Wortsman et al. 2022)."""

    kind: Literal["wise_ft"]
    """Selects this average."""
    shares: Annotated[tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...], Field(min_length=1, max_length=100)] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Shares of the trained weights that are tried, besides all of them; 0 is the model before training."""


Averaging = Annotated[Ema | Swa | Soup | WiseFT, Field(discriminator="kind")]


class RDrop(Part):
    """Every batch is computed twice with different dropout, and disagreement of the two costs (Liang et al. 2021)."""

    kind: Literal["r_drop"]
    """Selects this rule."""
    weight: float = Field(default=1.0, gt=0.0, le=100.0)
    """Weight of the mean of the two Kullback-Leibler divergences between the passes."""


class Mixup(Part):
    """Hidden states and targets of pairs of rows are mixed inside the trained blocks (Verma et al. 2019)."""

    kind: Literal["mixup"]
    """Selects this rule."""
    alpha: float = Field(default=0.4, gt=0.0, le=100.0)
    """Shares are drawn from Beta(alpha, alpha): small values mix little, 1 draws them evenly."""
    block: int | None = Field(default=None, ge=0)
    """Block whose input is mixed, counted from 0 at the bottom; a trained block drawn anew for each step when left out."""


Regularization = Annotated[RDrop | Mixup, Field(discriminator="kind")]


class Distill(Part):
    """Besides the labels, the answers of a finished run on the training rows are learned (Hinton et al. 2015)."""

    teacher: str = Field(min_length=1)
    """Directory of a finished run with the same task and the same labels."""
    temperature: float = Field(default=2.0, gt=0.0, le=100.0)
    """Logits of both are divided by it, and the term is multiplied by its square."""
    weight: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of the teacher's term in the loss; the labels have the rest."""
