"""What a step takes of memory, and whether it fits: what autograd keeps of a few long rows is measured and scaled to a batch.

Written formula: bytes = 4 · (2 · trained + moments · trained) + kept of a row · rows of a piece, the first part being
gradients, an average and the optimiser's moments; the weights are in memory already. `moments` is 2 for Adam, 1 for SGD.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import ModelError
from tunesmith.models.anatomy import running_blocks
from tunesmith.models.forward import batch_rows, predict_logits
from tunesmith.models.half import copies_in
from tunesmith.spec.schema import SGD, Adafactor, Ema, Prompts, Spec, Swa, WiseFT
from tunesmith.tasks.base import Batch, Encoding, Task
from tunesmith.train.batches import Order, step_batches
from tunesmith.train.fit import full_batches, full_step, order_of
from tunesmith.train.peak import begin_peak, free_bytes, kept_when_freed, peak_bytes

SAMPLE_ROWS = 2
SHARE = 0.8
"""Share of the free memory that a step may take: other things grow too."""
KERNELS, KERNEL_BYTES = 1024, 450_000
"""oneDNN keeps a kernel for each shape of a product in bfloat16: so many at the most, of about so many bytes each (measured: LOG.md)."""
OF_LAYER, OF_ATTENTION = 3, 6
"""Products of a linear layer, and of attention, in a step: of each two factors one forward pass, and one backward for either."""


@dataclass(frozen=True)
class Recompute:
    """Whether blocks are computed again in the backward pass, and why; `needed` and `free` in bytes where they were measured."""

    used: bool
    reason: str
    needed: int | None = None
    free: int | None = None


def kept_bytes(step: Any, model: Any, batch: Any) -> int:
    """Bytes that autograd keeps of one forward pass for the backward pass; weights, and memory kept twice, count once or not at all."""
    storages: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that its place is not used again meanwhile
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = step(model, batch)
    del loss
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *copies_in(model))}
    return sum(size for place, (size, _) in storages.items() if place not in weights)


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Meanwhile the model may be run in training mode; modes, buffers, gradients and random numbers are then as before."""
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    model.zero_grad()
    with torch.no_grad():
        for buffer, value in buffers.items():
            buffer.copy_(value)
    for module, was in modes.items():
        module.training = was


def longest(encoding: Encoding, rows: int) -> list[int]:
    """Numbers of the longest rows, longest first."""
    return sorted(range(len(encoding.lengths)), key=lambda n: -encoding.lengths[n])[:rows]


def _piece(model: Any, spec: Spec, task: Task, train: Encoding, rows: int) -> Batch:
    """The first piece of a batch of the longest rows, with what the spec's step reads besides rows."""
    order = order_of(spec, train)
    most = train.part(longest(train, rows))
    sample = Order(most.lengths, len(most.rows), 1, 1, 0, together=order.together)
    batches = full_batches(step_batches(sample, lambda rows: task.collate([most.rows[n] for n in rows])), model, spec)
    return {name: value.to(next(model.parameters()).device) for name, value in next(batches).pieces[0].items()}


def _piece_rows(spec: Spec, train: Encoding) -> int:
    order = order_of(spec, train)
    return -(-min(order.batch_size, len(train.lengths)) // order.pieces)


def step_bytes(model: Any, spec: Spec, task: Task, train: Encoding) -> int:
    """Bytes that a step on the longest rows takes besides the weights, from two of them. The model and random numbers stay as they are."""
    with _undisturbed(model):
        piece = _piece(model, spec, task, train, SAMPLE_ROWS)
        model.train()
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=spec.train.precision == "bfloat16"):
            kept = kept_bytes(full_step(task, model, spec), model, piece)
    trained = int(sum(p.numel() for p in model.parameters() if p.requires_grad))
    copies = 1 + state_copies(spec, next(model.parameters()).device)
    return 4 * copies * trained + kept * _piece_rows(spec, train) // min(SAMPLE_ROWS, len(train.lengths))


def expected_peak(model: Any, spec: Spec, task: Task, train: Encoding, validation: Encoding, order: Order) -> int:
    """Bytes held at the peak of training in this order, from two forward and backward passes of the longest rows and one evaluation batch.

    Written formula: what was held at the peak of these passes, and 4 · (moments + averages) · trained; on a processor 4 · trained
    more, for the copy of the best weights, what glibc may keep of what is freed, and in bfloat16 `kernel_bytes`. The model stays as it is.
    """
    device = next(model.parameters()).device
    begin_peak(device)
    with _undisturbed(model):
        piece = _piece(model, spec, task, train, _piece_rows(spec, train))
        step = full_step(task, model, spec)
        model.train()
        for _ in range(2):  # the first one leaves memory in pieces that the second cannot use
            with torch.autocast(device.type, torch.bfloat16, enabled=spec.train.precision == "bfloat16"):
                loss, count = step(model, piece)
            torch.autograd.backward(loss)
        del loss, count, piece
    predict_logits(model, task, validation.part(longest(validation, batch_rows(model))))
    trained = int(sum(p.numel() for p in model.parameters() if p.requires_grad))
    copies = state_copies(spec, device) + int(device.type == "cpu")
    return peak_bytes(device) + 4 * copies * trained + kernel_bytes(model, spec, order) + kept_when_freed(device)


def kernel_bytes(model: Any, spec: Spec, order: Order) -> int:
    """Bytes of the kernels that a processor keeps for products in bfloat16: for each shape of a batch as many as there are products."""
    if next(model.parameters()).device.type != "cpu" or spec.train.precision != "bfloat16":
        return 0
    layers = {module.weight.shape for module in model.modules() if isinstance(module, nn.Linear | Conv1D)}
    products = OF_LAYER * len(layers) + OF_ATTENTION
    if spec.kind == "text":  # targets have lengths of their own: hardly a step is like another
        return KERNEL_BYTES * min(KERNELS, products * order.steps)
    shapes = set[tuple[int, int]]()
    for epoch in range(order.epochs):
        shapes |= {(len(rows), max(order.lengths[row] for row in rows)) for rows in order.epoch_rows(epoch)}
        if products * len(shapes) > KERNELS:
            break
    return KERNEL_BYTES * min(KERNELS, products * len(shapes))


def state_copies(spec: Spec, device: torch.device) -> int:
    """How many numbers the optimiser and an average keep for each trained weight, where the model is."""
    moments = 1 if isinstance(spec.train.optimizer, SGD) else 0 if isinstance(spec.train.optimizer, Adafactor) else 2
    started = isinstance(spec.train.averaging, WiseFT) and device.type == "cpu"
    return moments + (isinstance(spec.train.averaging, (Ema, Swa)) or started)


def decide_recompute(model: Any, spec: Spec, task: Task, train: Encoding) -> Recompute:
    """Whether blocks are to be computed again: as the spec says; with "auto", when a step would not fit into free memory."""
    if isinstance(spec.strategy, Prompts):
        return Recompute(False, "blocks that read prompts are not computed again: PEFT's keys and values would be there twice")
    asked = spec.train.activation_checkpointing
    if isinstance(asked, bool):
        return Recompute(asked, "the spec says so")
    try:
        running_blocks(model)
    except ModelError:
        return Recompute(False, "the model is not built of blocks")
    needed, free = step_bytes(model, spec, task, train), free_bytes(next(model.parameters()).device)
    sizes = f"a step takes about {needed / 2**20:,.0f} MiB besides the weights, and {free / 2**20:,.0f} MiB are free"
    return Recompute(needed > SHARE * free, sizes, needed, free)
