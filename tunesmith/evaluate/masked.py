"""What was said of masked tokens, added up by row, so that a mean over tokens on a resample is a matrix product.

Shape suffixes: N = rows, R = resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import RunError
from tunesmith.core.records import Issue
from tunesmith.evaluate.answers import Floats


@dataclass(frozen=True, eq=False)
class Masked:
    """For each row (N,): the summed negative log-likelihood of its masked tokens in nats, their number, and how many were likeliest."""

    loss_N: Floats
    tokens_N: Floats
    hits_N: Floats

    classes = 0

    def __len__(self) -> int:
        return len(self.loss_N)


def masked_from_table(predictions: pl.DataFrame) -> Masked:
    """Sums as a predictions table holds them.

    Raises:
        RunError: a loss is not finite.
    """
    columns = [predictions[name].cast(pl.Float64).to_numpy() for name in ("loss", "tokens", "hits")]
    if not np.isfinite(columns[0]).all():
        raise RunError(Issue("predictions", "must hold a finite loss for each row", "others"))
    return Masked(*columns)


def per_token(sample: Any, values_N: Floats) -> Floats:
    """The mean over the masked tokens of each resample (R,); NaN where there is none."""
    tokens_R = sample.weights_RN @ sample.answers.tokens_N
    return np.asarray(np.divide(sample.weights_RN @ values_N, tokens_R, out=np.full_like(tokens_R, np.nan), where=tokens_R > 0))
