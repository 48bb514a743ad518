"""Queries, keys and values as one product where all three are made of the same states: fewer and larger products on a processor.

Which layers belong together is told by their names, and whether they are given the same states is seen in the first pass: in the
attention of a decoder to its encoder they are not. Used in bfloat16, where products are so quick that their number counts.
Shape suffixes: I = inputs, O = outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.half import HALF, HalfLinear, half_product, is_wanted

TRIOS = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"))
FAMILY = "_family"


class Family:
    """Layers that may be given the same states, in the order in which they are called."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers, self.given, self.alike = layers, list[Tensor](), False
        self.waiting: dict[int, Tensor] = {}
        self.kept: tuple[Any, list[Tensor | None]] | None = None

    def say(self, layer: Any, x: Tensor) -> Tensor | None:
        """What the layer says of `x`, made with that of its siblings; None where it has to say it itself."""
        place = self.layers.index(layer)
        if not self.alike:
            self._watch(place, x)
            return None
        if place == 0:
            self.waiting = dict(enumerate(torch.split(self._product(x), [one.out_features for one in self.layers], -1)))
            self.given = [x]
        if place not in self.waiting or self.given[0] is not x:
            self.alike, self.waiting, self.given = False, {}, []  # other states after all
            return None
        return self.waiting.pop(place)

    def _watch(self, place: int, x: Tensor) -> None:
        """Take note of what the layers are given, until all of them were called once."""
        self.given = [*self.given, x] if place == len(self.given) else [x] if place == 0 else []
        if len(self.given) == len(self.layers):
            self.alike, self.given = all(one is self.given[0] for one in self.given), []

    def _product(self, x: Tensor) -> Tensor:
        parts = [[layer.weight for layer in self.layers], [layer.bias for layer in self.layers if layer.bias is not None]]
        versions = [[parameter._version for parameter in part] for part in parts]
        if self.kept is None or self.kept[0] != versions:
            copies = [torch.cat([parameter.detach() for parameter in part]).to(HALF) if part else None for part in parts]
            self.kept = versions, copies
        learned = [torch.cat(part) if any(parameter.requires_grad for parameter in part) else None for part in parts]
        return half_product(x, learned[0], learned[1], self.kept[1])


class Sibling(HalfLinear):
    """A layer of a family."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """The product."""
        said = self.__dict__[FAMILY].say(self, input) if is_wanted() else None
        return super().forward(input) if said is None else said


def families_in(model: nn.Module) -> list[list[HalfLinear]]:
    """Layers of each module that are queries, keys and values of as many inputs, with biases or without."""
    found = []
    for module in model.modules():
        for names in TRIOS:
            layers = [module._modules.get(name) for name in names]
            if all(type(layer) is HalfLinear for layer in layers):
                trio: list[Any] = layers
                if len({(layer.in_features, layer.bias is None) for layer in trio}) == 1:
                    found.append(trio)
    return found


def join(model: nn.Module) -> None:
    """Make families of a model's layers whose class is HalfLinear; `part` undoes it."""
    for layers in families_in(model):
        family = Family(layers)
        for layer in layers:
            layer.__class__ = Sibling
            layer.__dict__[FAMILY] = family


def part(model: nn.Module) -> None:
    """Undo `join`."""
    for module in model.modules():
        if type(module) is Sibling:
            module.__class__ = HalfLinear  # type: ignore[assignment]
            del module.__dict__[FAMILY]
