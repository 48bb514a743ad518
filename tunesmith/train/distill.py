"""Learning from a teacher's answers besides the labels: a task whose rows carry the teacher's logits (Hinton et al. 2015).

Shape suffixes: B = rows of a batch, N = all rows, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith.spec.schema import Distill, Spec
from tunesmith.tasks.base import Batch, Encoded, Encoding


class TaughtTask:
    """A task with a teacher: wraps a task and changes only `collate` and `loss`."""

    def __init__(self, task: Any, rule: Distill) -> None:
        self.task, self.rule, self.answers, self.inputs = task, rule, task.answers, task.inputs

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """The task's own batch, with the teacher's logits (B, C) where the rows have them."""
        batch: Batch = self.task.collate(rows)
        if "teacher" in rows[0]:
            batch["teacher"] = torch.from_numpy(np.stack([row["teacher"] for row in rows]))
        return batch

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(1 - weight) times the task's loss plus weight times T² KL(teacher ‖ model) at temperature T; the task's own count."""
        hard, count = self.task.loss(outputs, batch)
        each_B = self.rule.temperature**2 * teaching(outputs.logits, batch["teacher"], batch["labels"], self.rule.temperature)
        weights_B = batch.get("weights", torch.ones_like(each_B))
        return (1 - self.rule.weight) * hard + self.rule.weight * (each_B * weights_B).sum(), count


def taught(task: Any, spec: Spec) -> Any:
    """The task with the spec's teacher; the task itself when there is none."""
    return task if spec.train.distill is None else TaughtTask(task, spec.train.distill)


def teaching(logits_BC: Tensor, teacher_BC: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ model) of each row (B,) with both logits divided by the temperature; summed over labels where a row can have several."""
    own, other = logits_BC.float() / temperature, teacher_BC.float() / temperature
    if labels.ndim == own.ndim:
        p = other.sigmoid()
        return (p * (F.logsigmoid(other) - F.logsigmoid(own)) + (1 - p) * (F.logsigmoid(-other) - F.logsigmoid(-own))).sum(-1)
    logs = other.log_softmax(-1)
    return (logs.exp() * (logs - own.log_softmax(-1))).sum(-1)


def with_teacher(encoding: Encoding, teacher_NC: Tensor) -> Encoding:
    """The rows with the teacher's logits, in order."""
    answers = teacher_NC.float().numpy()
    return replace(encoding, rows=[{**row, "teacher": answer} for row, answer in zip(encoding.rows, answers, strict=True)])
