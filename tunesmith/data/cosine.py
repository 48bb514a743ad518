"""Exact cosine between two sets of feature vectors, block by block: every pair is looked at, none is kept that is not needed.

Shape suffixes: N, M = rows, E = width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK = 2048


@dataclass(frozen=True)
class Nearest:
    """For each of N rows: the largest cosine with any of the M others, its row number, and how many are at or above the threshold."""

    cosine_N: Array
    row_N: Array
    above_N: Array


def unit_rows(features_NE: Tensor) -> Tensor:
    """The rows at length 1 in float32; a row of zeros stays, and is like nothing."""
    return torch.nn.functional.normalize(features_NE.float(), dim=1, eps=1e-12)


def nearest(unit_NE: Tensor, unit_ME: Tensor, threshold: float, *, same: bool = False) -> Nearest:
    """The nearest of `unit_ME` for each row of `unit_NE`, both of length 1.

    Args:
        unit_NE: rows to ask about.
        unit_ME: rows to search, not empty.
        threshold: pairs at or above it are counted.
        same: the two are the same rows; a row is not its own neighbour.
    """
    best_N = torch.full((len(unit_NE),), -2.0)
    row_N = torch.zeros(len(unit_NE), dtype=torch.int64)
    above_N = torch.zeros(len(unit_NE), dtype=torch.int64)
    with torch.inference_mode():
        for start in range(0, len(unit_ME), BLOCK):
            block_EM = unit_ME[start : start + BLOCK].T
            for first in range(0, len(unit_NE), BLOCK):
                rows = slice(first, first + BLOCK)
                cosine_NM = unit_NE[rows] @ block_EM
                if same and first == start:
                    cosine_NM.fill_diagonal_(-2.0)
                value_N, place_N = cosine_NM.max(1)
                better_N = value_N > best_N[rows]
                best_N[rows] = torch.where(better_N, value_N, best_N[rows])
                row_N[rows] = torch.where(better_N, place_N + start, row_N[rows])
                near_N = value_N >= threshold
                if near_N.any():
                    above_N[rows][near_N] += (cosine_NM[near_N] >= threshold).sum(1)
    return Nearest(best_N.clamp(-1.0, 1.0).double().numpy(), row_N.numpy(), above_N.numpy())
