"""Convolutions as a processor wants them, where channels are last.

A convolution of one pixel is a product of every pixel's channels with a matrix: as one it takes a third of the time. What comes back
from a mean over pixels is brought to the same layout, or every layer below would work across its memory. And where a layer copies its
input into a larger one to pad it alike on all sides (TensorFlow's "SAME", in MobileNet), the convolution pads instead.
Shape suffixes: B = rows, H = height, W = width, C = channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.anatomy import padding_layers
from tunesmith.models.half import COPIES, product

LEAST_CHANNELS = 96
"""With fewer channels in or out the convolution is as quick."""


class PixelProduct(nn.Conv2d):
    """A convolution of one pixel, as a product."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """(B, C, H, W), channels last; the convolution itself where channels are not last."""
        if not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        return product(self, input.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


class EvenMean(nn.AdaptiveAvgPool2d):
    """A mean over pixels whose gradient has its channels last."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """The mean."""
        if input.requires_grad and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
        return super().forward(input)


@contextmanager
def quick_convolutions(model: Any) -> Iterator[None]:
    """Meanwhile the layers of a model on a processor that this is quicker for are computed so. Parameters keep their names."""
    quick = next(model.parameters()).device.type == "cpu"
    found = [layer for layer in padding_layers(model) if quick and _pads_evenly(layer.convolution)]
    padded = [(layer, layer.config, layer.convolution.padding) for layer in found]
    for module, config, _ in padded:
        module.config, conv = _unpadded(config), module.convolution
        conv.padding = tuple(dilation * (size - 1) // 2 for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True))
    changed = [(module, type(module)) for module in model.modules() if quick and _quicker(module) is not None]
    for module, _ in changed:
        module.__class__ = _quicker(module)
    try:
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
            module.__dict__.pop(COPIES, None)
        for module, config, padding in padded:
            module.config, module.convolution.padding = config, padding


def _pads_evenly(conv: nn.Conv2d) -> bool:
    return conv.stride == (1, 1) and conv.padding == (0, 0) and all(size % 2 for size in conv.kernel_size)


def _unpadded(config: Any) -> Any:
    plain = copy(config)
    plain.tf_padding = False
    return plain


def _quicker(module: nn.Module) -> Any:
    """The class that a layer gets; None for a layer that stays as it is."""
    if type(module) is nn.AdaptiveAvgPool2d:
        return EvenMean
    return PixelProduct if _is_pixel_product(module) else None


def _is_pixel_product(module: nn.Module) -> bool:
    if type(module) is not nn.Conv2d:
        return False
    plain = module.kernel_size == (1, 1) and module.stride == (1, 1) and module.padding in ((0, 0), "valid") and module.groups == 1
    return plain and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
