"""Logits and features of many rows, in length-sorted batches, without gradients.

Shape suffixes: N = all rows, B = rows of a batch, T = tokens, C = classes, E = width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.batches import length_batches
from tunesmith.models.anatomy import has_head, output_layer, says_tokens, writes
from tunesmith.models.attention import attending_quickly
from tunesmith.tasks.base import FOR_THE_LOSS, Batch, Encoding, Task

BATCH_ROWS, PICTURE_ROWS = 64, 32
"""Rows of a batch; what a convolution says of 64 pictures does not fit into the caches of a processor."""
Watch = Callable[[int, int], None]  # (rows done, rows in all)
Part = tuple[list[int], Tensor]  # row numbers of a batch, and a value for each


@dataclass(frozen=True)
class Frozen:
    """What a frozen network says about rows: what its own output layer reads, and the mean of its last hidden states."""

    head_input_NE: Tensor
    mean_NE: Tensor


def predict_logits(model: Any, task: Any, encoding: Encoding, watch: Watch | None = None) -> Any:
    """What the task's `answers` gives for all rows, in their order: logits (N, C) in float32 on the CPU, or a list with an entry a row.

    The model's train/eval mode is left as it was.
    """
    passes, done = list[tuple[list[int], Any]](), 0
    with _inference(model), attending_quickly(model) if writes(model) else nullcontext():
        for numbers, said in task.answers(model, _batches(model, task, encoding, None)):
            passes.append((numbers, said))
            done += len(numbers)
            if watch:
                watch(done, len(encoding.rows))
    if all(isinstance(said, Tensor) for _, said in passes):
        return _in_order(passes)
    answers = {number: one for numbers, said in passes for number, one in zip(numbers, said, strict=True)}
    return [answers[number] for number in range(len(encoding.rows))]


def frozen_features(model: Any, task: Task, encoding: Encoding, watch: Watch | None = None) -> Frozen:
    """Features of all rows from one pass, in the order of the rows."""
    if writes(model):
        return _encoder_features(model, task, encoding, watch)
    if not has_head(model):
        return _headless_features(model, task, encoding, watch)
    if says_tokens(model):
        return _headless_features(model.base_model, task, encoding, watch)
    heads: list[Part] = []
    means: list[Part] = []
    seen: list[Tensor] = []
    output = output_layer(model, model.config.num_labels)[1]
    hook = output.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        with _inference(model):
            for numbers, batch in _batches(model, task, encoding, watch):
                outputs = model(**batch, output_hidden_states=True)
                hidden_BTE, mask_BT1 = outputs.hidden_states[-1].float(), batch["attention_mask"].unsqueeze(-1)
                means.append((numbers, ((hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1)).cpu()))
                heads.append((numbers, one_per_row(seen.pop(), batch).float().cpu()))
    finally:
        hook.remove()
    return Frozen(_in_order(heads), _in_order(means))


def _encoder_features(model: Any, task: Task, encoding: Encoding, watch: Watch | None) -> Frozen:
    """For a model that writes: the mean of what its encoder says last; what its output layer reads is not there before it writes."""
    means, start = list[Part](), model.generation_config.decoder_start_token_id
    with _inference(model):
        for numbers, batch in _batches(model, task, encoding, watch):
            start_B1 = torch.full((len(numbers), 1), start, device=batch["attention_mask"].device)
            hidden_BTE = model(**batch, decoder_input_ids=start_B1).encoder_last_hidden_state.float()
            mask_BT1 = batch["attention_mask"].unsqueeze(-1)
            means.append((numbers, ((hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1)).cpu()))
    mean_NE = _in_order(means)
    return Frozen(mean_NE.new_zeros(len(mean_NE), 0), mean_NE)


def _headless_features(model: Any, task: Task, encoding: Encoding, watch: Watch | None) -> Frozen:
    """For a network that ends in states: their mean over the tokens of a row, beside each other where a row has several texts."""
    means = list[Part]()
    with _inference(model):
        for numbers, batch in _batches(model, task, encoding, watch):
            states = model(**task.inputs(model, batch)).last_hidden_state
            hidden_PTE, mask_PT1 = states.float(), batch["attention_mask"].unsqueeze(-1)
            means.append((numbers, ((hidden_PTE * mask_PT1).sum(1) / mask_PT1.sum(1)).reshape(len(numbers), -1).cpu()))
    mean_NE = _in_order(means)
    return Frozen(mean_NE.new_zeros(len(mean_NE), 0), mean_NE)


def token_features(model: Any, task: Task, encoding: Encoding, places: Sequence[Sequence[int]], watch: Watch | None = None) -> list[Tensor]:
    """What the output layer reads of some tokens of each row: a tensor (tokens, E) a row, in the order of the rows."""
    seen: list[Tensor] = []
    out: list[Tensor] = [torch.empty(0)] * len(encoding.rows)
    hook = output_layer(model, model.config.num_labels)[1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        with _inference(model):
            for numbers, batch in _batches(model, task, encoding, watch):
                model(**batch)
                states_BTE = seen.pop().float().cpu()
                for place, number in enumerate(numbers):
                    out[number] = states_BTE[place, list(places[number])]
    finally:
        hook.remove()
    return out


def batch_rows(model: Any) -> int:
    """Rows of a batch without gradients."""
    return PICTURE_ROWS if model.main_input_name == "pixel_values" else BATCH_ROWS


def _batches(model: Any, task: Task, encoding: Encoding, watch: Watch | None) -> Iterator[tuple[list[int], Batch]]:
    """Row numbers and batch without targets, longest rows first; a batch counts as done when the next one is asked for."""
    device, done = next(model.parameters()).device, 0
    for numbers in length_batches(encoding.lengths, batch_rows(model), None):
        batch = task.collate([encoding.rows[n] for n in numbers])
        batch = {name: value.to(device) for name, value in batch.items() if name not in FOR_THE_LOSS}
        yield numbers, batch
        done += len(numbers)
        if watch:
            watch(done, len(encoding.rows))


def one_per_row(inputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Decoder classifiers run their output layer on every token and use the last one that is not padding."""
    if inputs.dim() == 2:
        return inputs
    last_B = batch["attention_mask"].sum(1) - 1
    return inputs[torch.arange(len(inputs), device=inputs.device), last_B]


def _in_order(parts: list[Part]) -> Tensor:
    joined = torch.cat([values for _, values in parts])
    result = torch.empty_like(joined)
    result[torch.tensor([number for numbers, _ in parts for number in numbers])] = joined
    return result


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    with in_eval_mode(model), torch.inference_mode():
        yield


@contextmanager
def in_eval_mode(model: Any) -> Iterator[None]:
    """Meanwhile no module is in training mode; each is left in the mode that it had."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
