"""Rows as sums of the model's own token vectors: what costs no forward pass and tells which rows are worth one.

Shape suffixes: N = rows, E = width, V = vocabulary, K = tokens of many rows, in a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.tasks.base import Encoding, parts_of

RARE = 1e-3


def token_vectors(model: Any, encodings: Sequence[Encoding]) -> list[Tensor]:
    """Features (N, E) of the rows of each encoding: sums of token vectors, common tokens counting less.

    A token weighs a / (a + p), with p its share of all tokens, and the mean of all rows is taken off (Arora, Liang & Ma 2017).
    """
    table_VE = model.get_input_embeddings().weight.detach().float().cpu()
    rows = [[[token for part in parts_of([row]) for token in part["input_ids"]] for row in e.rows] for e in encodings]
    flat = [np.array([token for row in of_one for token in row], np.int64) for of_one in rows]
    counts_V = np.bincount(np.concatenate(flat), minlength=len(table_VE)).astype(np.float64)
    weights_V = torch.from_numpy(RARE / (RARE + counts_V / max(counts_V.sum(), 1.0))).float()
    weighted_VE = table_VE * weights_V[:, None]
    sums = []
    for ids_K, of_one in zip(flat, rows, strict=True):
        lengths_N = np.array([len(row) for row in of_one], np.int64)
        starts_N = np.concatenate([[0], np.cumsum(lengths_N)[:-1]]) if len(lengths_N) else lengths_N
        sums.append(torch.nn.functional.embedding_bag(torch.from_numpy(ids_K), weighted_VE, torch.from_numpy(starts_N), mode="mean"))
    centre_E = torch.cat(sums).mean(0)
    return [sum_NE - centre_E for sum_NE in sums]
