"""Texts, or pairs of texts, as token ids and as padded batches: what tasks on whole texts share.

Shape suffixes: B = rows of a batch, T = tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch

from tunesmith.tasks.base import Batch, Encoded, Encoding, Processor

LONGEST_TOKEN = 64
"""Characters. Texts are cut before tokenizing too, and counted: tokenizing a megabyte to keep a few hundred tokens costs seconds."""


def encode_texts(rows: pl.DataFrame, names: Sequence[str], processor: Processor, max_length: int) -> Encoding:
    """Rows of one or two text columns as token ids of at most `max_length`, without targets."""
    columns = [rows[name].to_list() for name in names]
    limit = max_length * LONGEST_TOKEN
    texts = [[text[:limit] for text in column] for column in columns]
    long = {number for column in columns for number, text in enumerate(column) if len(text) > limit}
    tokens = processor(*texts, truncation=False, verbose=False)
    kinds = [name for name in ("input_ids", "token_type_ids") if name in tokens]
    encoded: list[Encoded] = [dict(zip(kinds, values, strict=True)) for values in zip(*(tokens[n] for n in kinds), strict=True)]
    cut = [number for number, row in enumerate(encoded) if len(row["input_ids"]) > max_length]
    if cut:
        kept = processor(*([column[n] for n in cut] for column in texts), truncation=True, max_length=max_length, verbose=False)
        for place, number in enumerate(cut):
            encoded[number] = {name: kept[name][place] for name in kinds}
    for row in encoded:
        row["pad"] = processor.pad_token_id
    return Encoding(encoded, [len(row["input_ids"]) for row in encoded], len(long.union(cut)))


def collate_texts(rows: Sequence[Encoded]) -> Batch:
    """One padded batch; `weights` (B,) where the rows have them."""
    longest = max(len(row["input_ids"]) for row in rows)
    shape = (len(rows), longest)
    ids_BT = np.full(shape, rows[0]["pad"], dtype=np.int64)
    mask_BT = np.zeros(shape, dtype=np.int64)
    types_BT = np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids_BT[number, :length] = row["input_ids"]
        mask_BT[number, :length] = 1
        types_BT[number, :length] = row.get("token_type_ids", 0)
    batch = {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.from_numpy(mask_BT)}
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = torch.from_numpy(types_BT)
    if "weight" in rows[0]:
        batch["weights"] = torch.tensor([row["weight"] for row in rows])
    return batch
