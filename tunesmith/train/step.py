"""A step: (model, batch) → (summed loss, number of valid targets). Variants wrap a step and keep this signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tunesmith.tasks.base import Batch, Task

Step = Callable[[Any, Batch], tuple[Tensor, Tensor]]


def task_step(task: Task) -> Step:
    """The plain step of a task: forward, then the task's own loss."""

    def step(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        return task.loss(model(**task.inputs(model, batch)), batch)

    return step
