"""Logits and features of many rows, in length-sorted batches, without gradients.

Shape suffixes: N = all rows, B = rows of a batch, T = tokens, C = classes, E = width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.batches import length_batches
from tunesmith.models.anatomy import output_layer
from tunesmith.tasks.base import Encoding, Task

BATCH_ROWS = 64
Watch = Callable[[int, int], None]  # (rows done, rows in all)


@dataclass(frozen=True)
class Frozen:
    """What a frozen network says about rows: what its own output layer reads, and the mean of its last hidden states."""

    head_input_NE: Tensor
    mean_NE: Tensor


def predict_logits(model: Any, task: Task, encoding: Encoding, watch: Watch | None = None) -> Tensor:
    """Logits (N, C) in float32 on the CPU, in the order of the rows. The model's train/eval mode is left as it was."""
    parts: list[Tensor] = []
    order: list[int] = []
    with _inference(model) as device:
        for numbers in length_batches(encoding.lengths, BATCH_ROWS, None):
            batch = task.collate([encoding.rows[n] for n in numbers])
            batch.pop("labels", None)
            parts.append(model(**{k: v.to(device) for k, v in batch.items()}).logits.float().cpu())
            order += numbers
            if watch:
                watch(len(order), len(encoding.rows))
    return _in_order(parts, order)


def frozen_features(model: Any, task: Task, encoding: Encoding, watch: Watch | None = None) -> Frozen:
    """Features of all rows from one pass, in the order of the rows."""
    heads: list[Tensor] = []
    means: list[Tensor] = []
    order: list[int] = []
    seen: list[Tensor] = []
    output = output_layer(model, model.config.num_labels)[1]
    hook = output.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        with _inference(model) as device:
            for numbers in length_batches(encoding.lengths, BATCH_ROWS, None):
                batch = task.collate([encoding.rows[n] for n in numbers])
                batch.pop("labels", None)
                batch = {k: v.to(device) for k, v in batch.items()}
                hidden_BTE = model(**batch, output_hidden_states=True).hidden_states[-1].float()
                mask_BT1 = batch["attention_mask"].unsqueeze(-1)
                means.append(((hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1)).cpu())
                heads.append(_one_per_row(seen.pop(), batch).float().cpu())
                order += numbers
                if watch:
                    watch(len(order), len(encoding.rows))
    finally:
        hook.remove()
    return Frozen(_in_order(heads, order), _in_order(means, order))


def _one_per_row(inputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Decoder classifiers run their output layer on every token and use the last one that is not padding."""
    if inputs.dim() == 2:
        return inputs
    last_B = batch["attention_mask"].sum(1) - 1
    return inputs[torch.arange(len(inputs), device=inputs.device), last_B]


def _in_order(parts: list[Tensor], order: list[int]) -> Tensor:
    joined = torch.cat(parts)
    result = torch.empty_like(joined)
    result[torch.tensor(order)] = joined
    return result


@contextmanager
def _inference(model: Any) -> Any:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        for module, was in training.items():
            module.training = was
