"""How large a model is: parameters in all, those that are trained, and bytes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Size:
    """Counts of parameters, and the bytes of all weights."""

    total: int
    trainable: int
    bytes: int


def size_of(model: nn.Module) -> Size:
    """The Size of a model as it is configured now."""
    parameters = list(model.parameters())
    return Size(
        total=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
    )
