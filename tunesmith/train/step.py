"""A step: (model, batch) → (summed loss, number of valid targets). Variants wrap a step and keep this signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tunesmith.tasks.base import FOR_THE_LOSS, Batch, Task

Step = Callable[[Any, Batch], tuple[Tensor, Tensor]]


def task_step(task: Task) -> Step:
    """The plain step of a task: forward, then the task's own loss."""

    def step(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs = model(**{name: value for name, value in batch.items() if name not in FOR_THE_LOSS})
        return task.loss(outputs, batch)

    return step
