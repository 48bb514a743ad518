"""A step: (model, batch) → (summed loss, number of valid targets). Variants wrap a step and keep this signature.

Shape suffixes: B = rows of a batch, L = tokens of targets, N = tokens that are learned, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tunesmith.tasks.base import Batch, Task
from tunesmith.tasks.text_to_text import UNTRAINED
from tunesmith.train.shapes import few_rows

Step = Callable[[Any, Batch], tuple[Tensor, Tensor]]


def task_step(task: Task) -> Step:
    """The plain step of a task: forward, then the task's own loss."""

    def step(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        return task.loss(model(**task.inputs(model, batch)), batch)

    return step


def at_targets(step: Step, model: Any) -> Step:
    """The step of a model that writes, with its output layer computed at the places that carry a target and nowhere else.

    What it would say where a shorter target has ended is as wide as the vocabulary, and no loss reads it. The loss and the gradients
    stay the same; the logits (N, V) are those of the targets, one after the other, with a few rows behind them that no target belongs to.
    """
    layer = model.get_output_embeddings()

    def compact(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        trained_BL = batch["labels"] != UNTRAINED
        hook = layer.register_forward_pre_hook(lambda _layer, states: (few_rows(states[0][trained_BL]),))
        try:
            return step(model, batch)
        finally:
            hook.remove()

    return compact
