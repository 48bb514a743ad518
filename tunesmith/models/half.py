"""Training in bfloat16: the weights of products are rounded once, and the states between blocks stay in bfloat16.

torch's autocast rounds every weight at every step and every input of every product, and rounds gradients back. Here a linear layer
keeps a bfloat16 copy of its weights, made anew when they have changed; weights, gradients and the optimiser stay in float32. A copy is
rounded as autocast would, so both give the same products. Only where autocast is on and gradients are wanted: scores and saved models
are those of the float32 weights.
Shape suffixes: N = rows of a product, I = inputs, O = outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from tunesmith.models.anatomy import first_computed

HALF = torch.bfloat16
COPIES, HIDDEN = "_copies", "hidden_states"


class _Product(torch.autograd.Function):
    """x Wᵀ + b in bfloat16, with gradients of the float32 weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, copies: Sequence[Tensor | None]) -> Tensor:
        half = x.to(HALF)
        ctx.save_for_backward(half, copies[0])
        ctx.given = x.dtype
        with torch.autocast("cpu", enabled=False):
            return F.linear(half, copies[0], copies[1])  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight_OI = ctx.saved_tensors
        g_NO, x_NI = gradient.to(HALF).reshape(-1, weight_OI.shape[0]), x.reshape(-1, weight_OI.shape[1])
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        return (
            (g_NO @ weight_OI).view(x.shape).to(ctx.given) if wants_x else None,
            (g_NO.t() @ x_NI).float() if wants_weight else None,
            g_NO.sum(0, dtype=torch.float32) if wants_bias else None,
            None,
        )


class HalfLinear(nn.Linear):
    """A linear layer that computes with bfloat16 copies of its weights where autocast is on and gradients are wanted."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """The product; in bfloat16 under autocast."""
        return product(self, input, self.weight)


class HalfConv1D(Conv1D):  # type: ignore[misc]
    """The same for the layer of GPT-2, whose weights are stored the other way round."""

    def forward(self, x: Tensor) -> Tensor:
        """The product; in bfloat16 under autocast."""
        return product(self, x, self.weight.t())


def product(layer: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
    """x Wᵀ + b for a layer, `weight_OI` being a view of its weight: with copies in bfloat16 where these are wanted."""
    if not is_wanted():
        return F.linear(x, weight_OI, layer.bias)
    weight, bias = copies_of(layer)
    return half_product(x, weight_OI, layer.bias, (weight.as_strided(weight_OI.shape, weight_OI.stride()), bias))


def half_product(x: Tensor, weight_OI: Tensor | None, bias_O: Tensor | None, copies: Sequence[Tensor | None]) -> Tensor:
    """x Wᵀ + b in bfloat16 with copies of weight and bias; gradients go to those that are given."""
    return _Product.apply(x, weight_OI, bias_O, copies)  # type: ignore[no-any-return,no-untyped-call]


HALVED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: HalfLinear, Conv1D: HalfConv1D}


def copies_of(layer: Any) -> tuple[Tensor, Tensor | None]:
    """The layer's weights in bfloat16, rounded again only after they have changed."""
    kept = layer.__dict__.get(COPIES)
    versions = (layer.weight._version, None if layer.bias is None else layer.bias._version)
    if kept is None or kept[0] != versions:
        copies = layer.weight.detach().to(HALF), None if layer.bias is None else layer.bias.detach().to(HALF)
        layer.__dict__[COPIES] = kept = (versions, copies)
    return kept[1]  # type: ignore[no-any-return]


def copies_in(model: nn.Module) -> list[Tensor]:
    """All copies that a model's layers keep at the moment."""
    return [copy for layer in model.modules() if COPIES in layer.__dict__ for copy in layer.__dict__[COPIES][1] if copy is not None]


def is_wanted() -> bool:
    """True where autocast is on and gradients are wanted."""
    return torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()


@contextmanager
def halved(model: Any) -> Iterator[None]:
    """Meanwhile products on a processor are computed so, and what enters the first block that is computed is rounded to bfloat16.

    Blocks whose answers come from the store are to be changed before.
    """
    if next(model.parameters()).device.type != "cpu":
        yield  # on a GPU rounding costs little beside the rest
        return
    layers = [(module, type(module)) for module in model.modules() if type(module) in HALVED]
    hooks = [block.register_forward_pre_hook(_rounded, with_kwargs=True) for block in first_computed(model)]
    for module, kind in layers:
        module.__class__ = HALVED[kind]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, kind in layers:
            module.__class__ = kind
            module.__dict__.pop(COPIES, None)


def _rounded(_block: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a block is given, with its hidden states in bfloat16."""
    if not is_wanted():
        return arguments, options
    if arguments:
        return (arguments[0].to(HALF), *arguments[1:]), options
    return arguments, {**options, HIDDEN: options[HIDDEN].to(HALF)}
