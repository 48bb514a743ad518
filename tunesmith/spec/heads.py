"""Heads on frozen features: `strategy.head` in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tunesmith.spec.part import Part

SEARCHED = ("logistic", "linear_svm", "knn", "gradient_boosting", "mlp")
"""Heads that a search tries. Earlier ones are simpler, and win ties."""
LINEAR = ("logistic", "linear_svm", "linear")
"""Heads that a transformers classifier can hold."""
LOOPED = ("linear", "mlp")
"""Heads that are trained by the loop."""


class Head(Part):
    """A head without settings of its own."""

    kind: Literal["logistic", "linear_svm", "gradient_boosting", "linear", "search"] = "logistic"
    """"logistic": regression (numbers: ridge). "linear_svm": calibrated. "gradient_boosting": trees. "linear": a loop. "search": all."""


class KNN(Part):
    """The labels of the most similar training rows, by cosine; nearer ones count more (Dudani 1976). Keeps a vector of every row."""

    kind: Literal["knn"]
    """Selects this head."""
    neighbours: int = Field(default=15, ge=1, le=1000)
    """How many rows are asked."""


class MLP(Part):
    """A network with one hidden layer, trained by the loop; `train.dropout` (0.1 when left out) is its dropout."""

    kind: Literal["mlp"]
    """Selects this head."""
    hidden: int = Field(default=256, ge=1, le=65536)
    """Width of the hidden layer."""


def _named(value: object) -> object:
    """`head: mlp` says the same as `head: {kind: mlp}`."""
    return {"kind": value} if isinstance(value, str) else value


AnyHead = Annotated[Head | KNN | MLP, Field(discriminator="kind"), BeforeValidator(_named)]
