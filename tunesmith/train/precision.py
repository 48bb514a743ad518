"""Whether bfloat16 pays on this machine: measured, not guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

SECONDS = 0.1
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
    """Rates of a (256, 384) × (384, 384) product, about 0.1 s each: the median of single products."""
    return Rates(_rate(torch.float32, device), _rate(torch.bfloat16, device))


def _rate(dtype: torch.dtype, device: torch.device) -> float:
    rows, inner, columns = SHAPE
    a, b = torch.ones(rows, inner, dtype=dtype, device=device), torch.ones(inner, columns, dtype=dtype, device=device)
    seconds: list[float] = []
    with torch.inference_mode():
        until = time.perf_counter() + SECONDS
        while len(seconds) < 4 or time.perf_counter() < until:
            start = time.perf_counter()
            a @ b
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / sorted(seconds)[len(seconds) // 2] / 1e9
