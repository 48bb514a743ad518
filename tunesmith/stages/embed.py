"""embed: what the frozen model says about the rows, computed once for the certificate, the head, the baseline and the features strategy."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core.records import Finding, Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.data.cosine import nearest, unit_rows
from tunesmith.models.build import build_model
from tunesmith.models.forward import frozen_features
from tunesmith.models.token_vectors import token_vectors
from tunesmith.spec.schema import Features, Spec
from tunesmith.stages.context import SPLITS, Context
from tunesmith.tasks.base import Encoding

HEAD_ROWS = 5_000
BASELINE_ROWS = 20_000
CERTIFICATE_ROWS = 30_000
CLASS_ROWS = 5
ALL_ROWS = sys.maxsize


def embed(context: Context, stage: StageWriter) -> None:
    """Write features/<split>.safetensors: `row` numbers of the split, `head_input` and `mean` features of these rows."""
    model = build_model(context.spec, context.task)
    wanted = rows_to_embed(context)
    if context.spec.data.near_duplicates is not None:
        wanted["train"] = _with_nearest(context, model, wanted["train"])
    for split, rows in wanted.items():
        full = context.encoding(split)
        chosen = Encoding([full.rows[r] for r in rows], [full.lengths[r] for r in rows], 0)
        features = frozen_features(model, context.task, chosen, context.rows_watch("embed", split))
        tensors = {"row": torch.tensor(rows), "head_input": features.head_input_NE, "mean": features.mean_NE}
        stage.write(f"features/{split}.safetensors", lambda path, tensors=tensors: save_file(tensors, path))  # type: ignore[misc]
        claim = f"Rows of the {split} split whose frozen features were computed"
        stage.find(Finding(f"features/rows/{split}", claim, len(rows), "rows", len(full.rows), note=_reason(len(rows), len(full.rows))))
    if not stage.outputs:
        context.watch(Progress("embed", 1, 1, note="nothing to do: nothing in the spec needs frozen features"))


def rows_to_embed(context: Context) -> dict[str, list[int]]:
    """Row numbers by split: all rows for the features strategy, else as many as head and baseline need."""
    return {
        split: list(range(len(context.table(split)))) if limit == ALL_ROWS else sample_rows(context, limit)
        for split, limit in splits_to_embed(context.spec).items()
    }


def splits_to_embed(spec: Spec) -> dict[str, int]:
    """The splits whose features a spec needs, and of how many rows at the most (ALL_ROWS for all)."""
    baseline, everything = "features" in spec.evaluate.baselines, isinstance(spec.strategy, Features)
    compared, inspected = spec.data.near_duplicates is not None, spec.data.suspects is not None or spec.train.augment is not None
    wants = {
        ALL_ROWS: everything,
        BASELINE_ROWS: baseline or inspected or compared,
        HEAD_ROWS: spec.train.head_start == "fitted",
    }
    held_out = ALL_ROWS if baseline or compared or inspected else 0
    wanted = {"train": max((rows for rows, wish in wants.items() if wish), default=0), "validation": held_out, "test": held_out}
    if everything:
        wanted["validation"] = ALL_ROWS
    return {split: limit for split, limit in wanted.items() if limit}


def _with_nearest(context: Context, model: Any, rows: list[int]) -> list[int]:
    """These training rows and those most like a row of another split, CERTIFICATE_ROWS in all: the likeliest leaks.

    How much alike is told by token vectors, which cost no forward pass; the certificate then compares what the model says.
    """
    more = CERTIFICATE_ROWS - len(rows)
    if len(rows) == len(context.table("train")) or more <= 0:
        return rows
    context.watch(Progress("embed", 0, 1, note="which training rows are most like rows of other splits"))
    train_NE, *others = (unit_rows(sums_NE) for sums_NE in token_vectors(model, [context.encoding(split) for split in SPLITS]))
    likeness_N = nearest(train_NE, torch.cat(others), 2.0).cosine_N
    likeness_N[rows] = -2.0
    return sorted({*rows, *np.argsort(-likeness_N, kind="stable")[:more].tolist()})


def sample_rows(context: Context, count: int) -> list[int]:
    """Row numbers of the first `count` training rows by content hash, and of the first rows of every class, ascending."""
    order = context.table("train")["id"].arg_sort().to_list()
    targets, seen = context.task.targets(context.table("train")), Counter[int]()
    chosen = set(order[:count])
    for row in order[count:]:
        for label in [int(targets[row])] if targets.ndim == 1 else targets[row].nonzero()[0].tolist():
            seen[label] += 1
            if seen[label] <= CLASS_ROWS:
                chosen.add(row)
    return sorted(chosen)


def load_features(folder: Path, split: str) -> dict[str, Tensor]:
    """The tensors that `embed` wrote for a split."""
    return dict(load_file(folder / f"features/{split}.safetensors"))


def _reason(used: int, rows: int) -> str:
    return "" if used == rows else "the first by content hash, and those whose token vectors are most like a row of another split"
