"""Batch norms folded into the convolutions before them and activations in place, for passes without gradients: a third of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
IN_PLACE = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.SiLU)
"""Activations that may write into what they read."""
TOLERANCE = 1e-3
"""Largest difference of logits that fusing may make, relative to the largest logit."""


@contextmanager
def fused(model: Any, inputs: dict[str, Tensor]) -> Iterator[None]:
    """Meanwhile batch norms whose input is a convolution's output are part of it, and activations write into what they read.

    In eval mode only; the weights are then as before. Where the model then answers otherwise, activations stay as they are; where it
    still does, so do batch norms.

    Args:
        model: which layers follow each other is found by watching one pass.
        inputs: of that pass; a row is enough.
    """
    pairs, before = _pairs(model, inputs)
    kept = [(conv, conv.weight, conv.bias) for conv, _ in pairs]
    activations = [m for m in model.modules() if pairs and type(m) in IN_PLACE and not m.inplace]
    try:
        for activation in activations:
            activation.inplace = True
        for conv, norm in pairs:
            assert norm.running_mean is not None and norm.running_var is not None, "batch norms without statistics are no pairs"
            whole, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            layout = torch.channels_last if conv.weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
            conv.weight = nn.Parameter(whole.detach().contiguous(memory_format=layout), False)
            conv.bias = nn.Parameter(bias.detach(), False)
            norm.__dict__["forward"] = _same
        if activations and not _alike(before, _answer(model, inputs)):  # something else reads what an activation reads
            _write_apart(activations)
        if pairs and not _alike(before, _answer(model, inputs)):  # something else reads a convolution too
            _restore(pairs, kept)
        yield
    finally:
        _write_apart(activations)
        _restore(pairs, kept)


def _write_apart(activations: list[Any]) -> None:
    for activation in activations:
        activation.inplace = False


def _restore(pairs: list[Pair], kept: list[tuple[nn.Conv2d, Any, Any]]) -> None:
    for conv, weight, bias in kept:
        conv.weight, conv.bias = weight, bias
    for _, norm in pairs:
        norm.__dict__.pop("forward", None)


def _answer(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = model(**inputs).logits
    return answer


def _alike(before: Tensor, after: Tensor) -> bool:
    return bool((before - after).abs().max() <= TOLERANCE * before.abs().max())


def _pairs(model: Any, inputs: dict[str, Tensor]) -> tuple[list[Pair], Tensor]:
    """Each convolution with the batch norm that reads it, neither of which runs more than once; and what the model answers."""
    norms = [m for m in model.modules() if type(m) is nn.BatchNorm2d and m.running_mean is not None]
    said: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def spoke(conv: Any, _inputs: Any, output: Tensor) -> None:
        said[id(output)] = conv, output  # held, so that its id is not used again

    def read(norm: Any, read_inputs: Any) -> None:
        if id(read_inputs[0]) in said:
            found.append((said[id(read_inputs[0])][0], norm))

    hooks = [m.register_forward_hook(spoke) for m in model.modules() if type(m) is nn.Conv2d] if norms else []
    hooks += [norm.register_forward_pre_hook(read) for norm in norms]
    try:
        answer = _answer(model, inputs) if norms else torch.zeros(())
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(id(layer) for pair in found for layer in pair)
    return [pair for pair in found if times[id(pair[0])] == times[id(pair[1])] == 1], answer


def _same(values: Tensor) -> Tensor:
    return values
