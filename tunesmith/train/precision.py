"""Whether bfloat16 pays on this machine: measured, not guessed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

SECONDS = 0.2
SHAPE = (256, 384, 384)


@dataclass(frozen=True)
class Rates:
    """Matrix-multiplication rates in GFLOP/s."""

    float32: float
    bfloat16: float

    @property
    def fast_bfloat16(self) -> bool:
        """True when bfloat16 is at least a fifth faster, which leaves something after its casts."""
        return self.bfloat16 > 1.2 * self.float32


def measure_rates(device: torch.device) -> Rates:
    """Rates of a (256, 384) × (384, 384) product, in turn for 0.2 s: the medians of single products.

    In turn, because a machine that is disturbed for a moment is then disturbed in both.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    pairs = {dtype: _factors(dtype, device) for dtype in seconds}
    with torch.inference_mode():
        until = time.perf_counter() + SECONDS
        while len(seconds[torch.float32]) < 4 or time.perf_counter() < until:
            for dtype, (a, b) in pairs.items():
                start = time.perf_counter()
                a @ b
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[dtype].append(time.perf_counter() - start)
    return Rates(*(2 * math.prod(SHAPE) / sorted(taken)[len(taken) // 2] / 1e9 for taken in seconds.values()))


def _factors(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, inner, columns = SHAPE
    return torch.ones(rows, inner, dtype=dtype, device=device), torch.ones(inner, columns, dtype=dtype, device=device)
