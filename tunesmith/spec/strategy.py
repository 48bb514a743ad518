"""Which weights are trained: `strategy` in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.part import Part


class Features(Part):
    """Frozen encoder: its outputs are computed once, and a linear head is fitted on them. Fast; good for few rows."""

    kind: Literal["features"]
    """Selects this strategy."""
    head: Literal["logistic", "linear"] = "logistic"
    """"logistic": scikit-learn logistic regression, its strength chosen on validation. "linear": trained by the loop."""
    pooling: Literal["mean", "model"] = "mean"
    """"mean": mean over tokens. "model": what the model's own classification head reads."""


class Layers(Part):
    """The top blocks and the head are trained; embeddings and the blocks below stay as they are."""

    kind: Literal["layers"]
    """Selects this strategy."""
    top: int = Field(default=2, ge=0)
    """How many blocks are trained, counted from the top; 0 trains the head only."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Learning rate of each block relative to the block above it."""


class Full(Part):
    """Every weight is trained. The best score when there are enough rows."""

    kind: Literal["full"]
    """Selects this strategy."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Learning rate of each block relative to the block above it; the embeddings count as the lowest block."""


class Lora(Part):
    """Low-rank adapters (Hu et al. 2021) beside frozen weights; merged when saved, and kept beside the model."""

    kind: Literal["lora"]
    """Selects this strategy."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update of each weight matrix."""
    alpha: float = Field(default=32.0, gt=0.0)
    """Scale of the update: alpha / rank multiplies it."""
    dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Dropout on the input of the adapters."""
    targets: Literal["all-linear", "attention"] | tuple[str, ...] = "all-linear"
    """Which weights get an adapter: every linear layer, the attention projections, or names of modules."""


Strategy = Annotated[Features | Layers | Full | Lora, Field(discriminator="kind")]
