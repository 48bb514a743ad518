"""The frozen-prefix store in training: what the untrained lower blocks say of a row is computed once and read ever after.

`with_prefix` gives back rows and a task that behave like any other; the loop does not know. A row's key is made of its
content, the weights below the cut, the cut and the number format, so one new row costs one row, and a network that was
trained below the cut never shares with another.
Shape suffixes: B = rows of a batch, T = tokens, E = width.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.data.batches import length_batches
from tunesmith.data.store import Shelf, content_key, prune
from tunesmith.models.adapters import is_adapted
from tunesmith.models.anatomy import encoder_depth
from tunesmith.models.convolution import quick_convolutions
from tunesmith.models.forward import batch_rows, in_eval_mode
from tunesmith.models.fused import fused
from tunesmith.models.splice import GIVEN, Cut, capture, find_cut, frozen_depth, spliced, weights_below
from tunesmith.spec.schema import Store
from tunesmith.tasks.base import ABOUT_A_ROW, FOR_THE_LOSS, PARTS, Batch, Encoded, Encoding, parts_of
from tunesmith.train.head import for_the_loss

Watch = Callable[[int, int], None]
EXAMPLE_ROWS = 3
RECOMPUTED_SHARE = 0.01
ADAPTED = "base_model.model."
"""How PEFT begins the names of the weights that it adapts."""
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
"""Largest difference between a stored and a recomputed state, relative to the largest state of the row."""


@dataclass(frozen=True)
class Used:
    """What became of the store: `reason` says why it was used or not; the counts are rows, `bytes` what these rows take on disk."""

    depth: int
    used: bool
    reason: str
    rows: int = 0
    computed: int = 0
    damaged: int = 0
    recomputed: int = 0
    difference: float = 0.0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Wish:
    """What is asked of the store: the spec's options, the folder, and how many times the rows will be read, on average."""

    options: Store
    folder: Path
    passes: float


class PrefixTask:
    """A task whose batches carry what the frozen blocks said: wraps a task and changes only `collate`."""

    def __init__(self, task: Any, main_input: str, cut: Cut) -> None:
        self.task, self.loss, self.answers, self.inputs = task, task.loss, task.answers, task.inputs
        self.text, self.main_input, self.cut = main_input == "input_ids", main_input, cut

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """The task's own batch with `hidden`: (B, T, E) padded with zeros, or stacked where rows have one shape."""
        if self.text:
            batch: Batch = self.task.collate(rows)
        else:
            batch = for_the_loss(rows)
            batch[self.main_input] = torch.zeros(()).expand(len(rows), *self.cut.main[1:])
        batch[GIVEN] = padded([part["stored"] for part in parts_of(rows)])
        return batch


def padded(states: Sequence[np.ndarray]) -> Tensor:
    """States of rows as one float32 batch; shorter rows end in zeros."""
    if len({state.shape for state in states}) == 1:
        return torch.from_numpy(np.stack(states).astype(np.float32, copy=False))
    out = np.zeros((len(states), max(len(state) for state in states), *states[0].shape[1:]), np.float32)
    for number, state in enumerate(states):
        out[number, : len(state)] = state
    return torch.from_numpy(out)


@contextmanager
def with_prefix(
    model: Any, task: Any, encodings: Sequence[Encoding], wish: Wish, watch: Watch
) -> Iterator[tuple[Any, list[Encoding], Used]]:
    """Task, rows and facts; meanwhile the model reads the store, if that pays. Whether it did, and why not, is in the facts.

    Args:
        model: with the strategy applied.
        task: how rows become batches.
        encodings: all rows that the model will see meanwhile.
        wish: what is asked for.
        watch: hears of rows done while the store is filled.

    Raises:
        ModelError: the spec insists on a store that cannot be had.
    """
    plan = _planned(model, task, encodings, wish)
    rows, cut, used = list(encodings), None, plan if isinstance(plan, Used) else plan[1]
    if not isinstance(plan, Used):
        cut = plan[0]
        rows, used = _stored(model, task, encodings, wish, cut, used, watch)
    if not used.used and wish.options.mode == "always":
        raise ModelError(Issue("store.mode", "cannot be had as the spec says (always)", used.reason, "Set store.mode: auto."))
    if cut is None or not used.used:
        yield task, rows, used
        return
    with spliced(model, cut):
        yield PrefixTask(task, model.main_input_name, cut), rows, used


def would_store(model: Any, task: Any, encodings: Sequence[Encoding], wish: Wish) -> bool:
    """Whether `with_prefix` would use the store, as far as can be said before it is filled."""
    return not isinstance(_planned(model, task, encodings, wish), Used)


def _planned(model: Any, task: Any, encodings: Sequence[Encoding], wish: Wish) -> Used | tuple[Cut, Used]:
    """The cut and what it will take; or why there is none."""
    if wish.options.mode == "never":
        return Used(0, False, "the spec says never")
    if task.redrawn:
        return Used(0, False, task.redrawn)
    try:
        depth = min(frozen_depth(model), encoder_depth(model))
    except ModelError:
        return Used(0, False, "the model is not built of blocks")
    if depth == 0:
        return Used(0, False, "the lowest block is trained: nothing is frozen that could be kept")
    if wish.passes <= 1 and wish.options.mode == "auto":
        return Used(depth, False, "the rows are read once: there is nothing to save")
    try:
        cut = find_cut(model, _inputs(model, task, _example(encodings), next(model.parameters()).device), depth)
    except ModelError as error:
        return Used(depth, False, error.issues[0].found)
    texts = _texts(encodings)
    per_token = int(np.prod(cut.example[2:])) if len(cut.example) == 3 else int(np.prod(cut.example[1:]))
    if len(cut.example) == 3 and model.main_input_name == "input_ids":
        tokens = sum(length for _, length in texts)
    else:
        tokens = len(texts) * (cut.example[1] if len(cut.example) == 3 else 1)
    size = per_token * tokens * np.dtype(wish.options.dtype).itemsize
    rows = len(texts)
    if size > wish.options.max_gb * 1e9:
        return Used(depth, False, f"it would take {size / 1e9:.1f} GB, more than store.max_gb: {wish.options.max_gb:g}", rows, bytes=size)
    return cut, Used(depth, True, f"{rows} rows are read {wish.passes:g} times", rows, bytes=size)


def _stored(
    model: Any, task: Any, encodings: Sequence[Encoding], wish: Wish, cut: Cut, used: Used, watch: Watch
) -> tuple[list[Encoding], Used]:
    """Rows with their stored states, computing those that are missing; a random share of the others is computed again and compared."""
    started, root, plain = time.perf_counter(), wish.folder, list(encodings)
    try:
        shelf = Shelf(root, _kind(model, cut, wish.options))
        texts = _texts(encodings)
        rows, lengths = [row for row, _ in texts], [length for _, length in texts]
        keys = [_key(row) for row in rows]
        found = shelf.find(keys)
        missing = list({key: n for n, key in enumerate(keys) if key not in found.rows}.values())
        draw = random.Random(len(keys))
        again = draw.sample(range(len(keys)), max(1, int(len(keys) * RECOMPUTED_SHARE))) if found.rows else []
        again = [n for n in again if keys[n] in found.rows]
        difference = _difference(model, task, rows, lengths, cut, {n: found.rows[keys[n]] for n in again})
        if difference > TOLERANCE[wish.options.dtype]:
            shelf.clear()
            found, missing = replace(found, rows={}, damaged=len(found.rows)), list({key: n for n, key in enumerate(keys)}.values())
        coming = used.bytes * len(missing) // len(keys)
        prune(root, int(wish.options.max_gb * 1e9) - coming, keep=shelf.path.name)
        free = shutil.disk_usage(root).free
        if coming > free:
            return plain, replace(
                used, used=False, reason=f"it would take {coming / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB free"
            )
        computed = _computed(model, task, [rows[n] for n in missing], [lengths[n] for n in missing], cut.depth, watch)
        shelf.add((keys[missing[number]], state) for number, state in computed)
        states = found.rows | shelf.find([keys[n] for n in missing]).rows
    except OSError as error:
        return plain, replace(used, used=False, reason=f"it could not be written: {error.strerror or error} ({error.filename or root})")
    if gone := len(set(keys) - states.keys()):
        return plain, replace(used, used=False, reason=f"{gone} rows were removed by another program while it was filled")
    stored = {id(row): {**row, "stored": states[key]} for row, key in zip(rows, keys, strict=True)}
    out = [replace(e, rows=[_with_parts(row, stored) if PARTS in row else stored[id(row)] for row in e.rows]) for e in encodings]
    seconds = time.perf_counter() - started
    return out, replace(used, computed=len(missing), damaged=found.damaged, recomputed=len(again), difference=difference, seconds=seconds)


def _texts(encodings: Sequence[Encoding]) -> list[tuple[Encoded, int]]:
    """What the frozen blocks are asked about, each once, with its length: encoded rows, or the texts that they have for parts."""
    found: dict[int, tuple[Encoded, int]] = {}
    for encoding in encodings:
        for row, length in zip(encoding.rows, encoding.lengths, strict=True):
            for part in row.get(PARTS, (row,)):
                found[id(part)] = part, len(part["input_ids"]) if PARTS in row else length
    return list(found.values())


def _with_parts(row: Encoded, stored: dict[int, Encoded]) -> Encoded:
    return {**row, PARTS: [stored[id(part)] for part in row[PARTS]]}


def _computed(
    model: Any, task: Any, rows: Sequence[Encoded], lengths: Sequence[int], depth: int, watch: Watch
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and unpadded states of each row, longest rows first."""
    if not rows:
        return
    device, done = next(model.parameters()).device, 0
    with in_eval_mode(model), fused(model, _inputs(model, task, rows[:2], device)), quick_convolutions(model):
        for numbers in length_batches(lengths, batch_rows(model), None):
            inputs = _inputs(model, task, [rows[n] for n in numbers], device)
            hidden = capture(model, inputs, [depth])[depth].float().cpu().numpy()
            for place, number in enumerate(numbers):
                yield number, hidden[place, : lengths[number]] if "input_ids" in inputs else hidden[place]
            done += len(numbers)
            watch(done, len(rows))


def _difference(model: Any, task: Any, rows: Sequence[Encoded], lengths: Sequence[int], cut: Cut, stored: dict[int, np.ndarray]) -> float:
    """Largest difference between stored states and those computed now, relative to the largest state of the row; 1 for another shape."""
    numbers, worst = list(stored), 0.0
    computed = _computed(model, task, [rows[n] for n in numbers], [lengths[n] for n in numbers], cut.depth, lambda *_: None)
    for number, state in computed:
        before = stored[numbers[number]]
        if before.shape != state.shape:
            return 1.0
        worst = max(worst, float(np.abs(before - state).max() / max(float(np.abs(state).max()), 1e-12)))
    return worst


def _key(row: Encoded) -> bytes:
    named = sorted(name for name in row if name not in (*FOR_THE_LOSS, *ABOUT_A_ROW, "stored"))
    return content_key(part for name in named for part in (name.encode(), np.asarray(row[name])))


def _kind(model: Any, cut: Cut, options: Store) -> dict[str, Any]:
    """What all rows of a shelf have in common. The weights below the cut are part of it, so no trained prefix is ever shared.

    A network with adapters above the cut shares with the same network without.
    """
    digest = hashlib.sha256()
    for name, value in weights_below(model, cut):
        digest.update(name.removeprefix(ADAPTED).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return {
        "model": type(model.get_base_model() if is_adapted(model) else model).__name__,
        "weights": digest.hexdigest(),
        "depth": cut.depth,
        "dtype": options.dtype,
        "transformers": version("transformers"),
    }


def _example(encodings: Sequence[Encoding]) -> list[Encoded]:
    """A few rows of about the median length."""
    texts = sorted(_texts([max(encodings, key=lambda e: len(e.rows))]), key=lambda text: text[1])
    middle = len(texts) // 2
    count = EXAMPLE_ROWS if texts[min(middle + EXAMPLE_ROWS, len(texts)) - 1][1] != EXAMPLE_ROWS else EXAMPLE_ROWS - 1
    return [row for row, _ in texts[max(middle - 1, 0) :][:count]]


def _inputs(model: Any, task: Any, rows: Sequence[Encoded], device: torch.device) -> Batch:
    batch = task.inputs(model, task.collate(rows))
    return {name: value.to(device) for name, value in batch.items()}
