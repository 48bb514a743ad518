"""Dropout that costs a quarter of torch's on a processor: the same distribution, another stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuickDropout(nn.Dropout):
    """Dropout of which one 64-bit draw of torch's generator decides on four elements.

    The probability is rounded to a multiple of 2^-16, and the survivors are scaled by the rounded one.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """`input`, with elements dropped in training mode."""
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        return quick_dropout(input, self.p)


def quick_dropout(values: Tensor, p: float) -> Tensor:
    """`values` with each element set to 0 with probability p, the others scaled up."""
    dropped = round(p * 65536)
    if dropped == 0:
        return values
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: values.numel()].view(values.shape) >= dropped - 32768
    return values * keep.to(values.dtype).mul_(65536 / (65536 - dropped))
