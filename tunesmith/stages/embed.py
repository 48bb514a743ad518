"""embed: what the frozen model says about the rows, computed once for the certificate, the head, the baseline and the features strategy."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
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
from tunesmith.models.forward import Frozen, frozen_features
from tunesmith.models.strategies import apply_strategy
from tunesmith.models.token_vectors import token_vectors
from tunesmith.spec.kinds import OF_CLASSES
from tunesmith.spec.schema import Features, Gradual, Layers, Spec
from tunesmith.stages.context import SPLITS, Context
from tunesmith.train.prefix import Wish, with_prefix, would_store

HEAD_ROWS = 5_000
BASELINE_ROWS = 20_000
CERTIFICATE_ROWS = 50_000
CERTIFICATE_BATCH = 2_500
CLASS_ROWS = 5
ALL_ROWS = sys.maxsize
TRAINED_ON = ("train", "validation")
Embedded = tuple[list[int], Frozen]


def embed(context: Context, stage: StageWriter) -> None:
    """Write features/<split>.safetensors: `row` numbers of the split, `head_input` and `mean` features of these rows."""
    model, made = build_model(context.spec, context.task), dict[str, Embedded]()
    network = Network(model, _wish(context, model))
    for split, rows in sorted(
        rows_to_embed(context).items(), reverse=True
    ):  # validation and test before train, which is compared with them
        made[split] = _embedded(context, network, split, rows)
    if context.spec.data.near_duplicates is not None and context.given.has_row_features:
        made["train"] = _with_likeliest(context, network, made)
    for split, (rows, features) in made.items():
        tensors = {"row": torch.tensor(rows), "head_input": features.head_input_NE, "mean": features.mean_NE}
        stage.write(f"features/{split}.safetensors", partial(save_file, tensors))
        claim, count = f"Rows of the {split} split whose frozen features were computed", len(context.table(split))
        stage.find(Finding(f"features/rows/{split}", claim, len(rows), "rows", count, note=_reason(len(rows), count)))
    if network.wish is not None:
        claim = "Rows whose frozen blocks were kept for training while features were computed"
        stage.find(Finding("store/embedded", claim, network.kept, "rows"))
    if not stage.outputs:
        context.watch(Progress("embed", 1, 1, note="nothing to do: nothing in the spec needs frozen features"))


@dataclass
class Network:
    """The untrained model. Where training will read frozen blocks, `wish` says how, and `kept` counts the rows kept for it so far."""

    model: Any
    wish: Wish | None
    kept: int = 0


def _wish(context: Context, model: Any) -> Wish | None:
    """What training will ask of the store, if it will use it: the blocks that it leaves frozen are then computed here and not again."""
    if not isinstance(context.spec.strategy, (Layers, Gradual)):
        return None
    apply_strategy(model, context.spec.strategy)
    wish = Wish(context.spec.store, context.store_folder, float(context.spec.train.epochs or 1))
    return wish if would_store(model, context.task, [context.encoding(split) for split in TRAINED_ON], wish) else None


def _embedded(context: Context, network: Network, split: str, rows: list[int]) -> Embedded:
    full = context.plain_encoding(split)
    chosen, watch = full.leading(rows), context.rows_watch("embed", split)
    if network.wish is None or split not in TRAINED_ON:
        return rows, frozen_features(network.model, context.task, chosen, watch)
    with with_prefix(network.model, context.task, [chosen], network.wish, context.rows_watch("embed", f"{split}, frozen blocks")) as stored:
        task, (chosen,), used = stored
        network.kept += used.computed
        return rows, frozen_features(network.model, task, chosen, watch)


def rows_to_embed(context: Context) -> dict[str, list[int]]:
    """Row numbers by split: all rows for the features strategy, else as many as head and baseline need."""
    return {
        split: list(range(len(context.table(split)))) if limit == ALL_ROWS else sample_rows(context, limit)
        for split, limit in splits_to_embed(context.spec).items()
    }


def splits_to_embed(spec: Spec) -> dict[str, int]:
    """The splits whose features a spec needs, and of how many rows at the most (ALL_ROWS for all)."""
    if not spec.has_row_features:
        return {}  # features are of whole texts, and an encoded row is a window or a pair
    ranked = spec.kind in ("relevant", "masked")  # they read no features, or vectors of their own
    baseline, everything = bool({"features", "retrieval"} & set(spec.evaluate.baselines)) and not ranked, _reads_features(spec)
    compared = spec.data.near_duplicates is not None
    inspected = (spec.data.suspects is not None or spec.train.augment is not None) and not ranked
    wants = {
        ALL_ROWS: everything,
        BASELINE_ROWS: baseline or inspected,
        HEAD_ROWS: spec.train.head_start == "fitted",
    }
    held_out = ALL_ROWS if baseline or compared or inspected else 0
    wanted = {"train": max((rows for rows, wish in wants.items() if wish), default=0), "validation": held_out, "test": held_out}
    if everything:
        wanted["validation"] = ALL_ROWS
    return {split: limit for split, limit in wanted.items() if limit}


def _with_likeliest(context: Context, network: Network, made: dict[str, Embedded]) -> Embedded:
    """The training rows so far, and more: those most like a row of another split first, until a batch of them holds no leak.

    How much alike is told by token vectors, which cost no forward pass. At most CERTIFICATE_ROWS are added.
    """
    table, near = context.table("train"), context.spec.data.near_duplicates
    assert near is not None, "asked for only where features are compared"
    rows, parts = (list(made["train"][0]), [made["train"][1]]) if "train" in made else (list[int](), list[Frozen]())
    left = np.setdiff1d(np.arange(len(table)), np.array(rows, np.int64))
    if len(left) > CERTIFICATE_BATCH:
        context.watch(Progress("embed", 0, 1, note="which training rows are most like rows of other splits"))
        train_NE, *others = (
            unit_rows(sums_NE) for sums_NE in token_vectors(network.model, [context.plain_encoding(split) for split in SPLITS])
        )
        left = left[np.argsort(-nearest(train_NE[left], torch.cat(others), 2.0).cosine_N, kind="stable")]
    held_out_NE = unit_rows(torch.cat([made[split][1].mean_NE for split in ("validation", "test")]))
    for start in range(0, min(len(left), CERTIFICATE_ROWS), CERTIFICATE_BATCH):
        batch, features = _embedded(context, network, "train", left[start : start + CERTIFICATE_BATCH].tolist())
        rows, parts = rows + batch, [*parts, features]
        if not (nearest(unit_rows(features.mean_NE), held_out_NE, near.cosine).above_N > 0).any():
            break
    order = np.argsort(rows, kind="stable")
    head_input_NE, mean_NE = torch.cat([part.head_input_NE for part in parts]), torch.cat([part.mean_NE for part in parts])
    return [rows[place] for place in order], Frozen(head_input_NE[order], mean_NE[order])


def sample_rows(context: Context, count: int) -> list[int]:
    """Row numbers of the first `count` training rows by content hash, and of the first rows of every class, ascending."""
    order = context.table("train")["id"].arg_sort().to_list()
    if context.given.kind not in OF_CLASSES:
        return sorted(order[:count])
    targets, seen = context.task.targets(context.table("train")), Counter[int]()
    chosen = set(order[:count])
    for row in order[count:]:
        for label in [int(targets[row])] if targets.ndim == 1 else targets[row].nonzero()[0].tolist():
            seen[label] += 1
            if seen[label] <= CLASS_ROWS:
                chosen.add(row)
    return sorted(chosen)


def _reads_features(spec: Spec) -> bool:
    """True for heads on features; attention pooling reads tokens, from the frozen-prefix store."""
    return isinstance(spec.strategy, Features) and spec.strategy.pooling != "attention"


def load_features(folder: Path, split: str) -> dict[str, Tensor]:
    """The tensors that `embed` wrote for a split."""
    return dict(load_file(folder / f"features/{split}.safetensors"))


def _reason(used: int, rows: int) -> str:
    return "" if used == rows else "the first by content hash, and those most like a row of another split, until none of them was a leak"
