"""What the benchmarks of training share: the peer and our loop on the same encoded rows, and contenders in turn.

Every contender runs in a process of its own, seed by seed, so that none warms up another; medians are printed.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.interrupt import StopRequest
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Encoding
from tunesmith.train.fit import Job, fit, shortcuts_for
from tunesmith.train.precision import measure_rates
from tunesmith.train.prefix import Wish, with_prefix

BATCH = 32
TRAINERS = ("trainer-defaults", "trainer-best")
Result = dict[str, float]


def fast_bfloat16() -> bool:
    """Whether both contenders train in bfloat16 here."""
    return measure_rates(torch.device("cpu")).fast_bfloat16


def trainer(model: Any, rows: list[dict[str, Any]], collate: Callable[..., Any], options: Namespace, kind: str = "") -> Result:
    """Seconds of Trainer.train(), at its defaults or its best settings here: length groups, bfloat16 where it is fast.

    `kind` is "Seq2Seq" for models that write.
    """
    import transformers

    best = options.only == "trainer-best"
    extra: dict[str, Any] = {"bf16": fast_bfloat16()} if best else {}
    extra |= {"train_sampling_strategy": "group_by_length"} if best and "input_ids" in rows[0] else {}
    epochs = getattr(options, "peer_epochs", options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        arguments = getattr(transformers, f"{kind}TrainingArguments")(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH, learning_rate=options.rate, use_cpu=True,
            save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False, seed=options.seed, **extra)  # fmt: skip
        peer = getattr(transformers, f"{kind}Trainer")(model, arguments, train_dataset=rows, data_collator=collate)
        started = time.perf_counter()
        peer.train()
        return {"seconds": (time.perf_counter() - started) * options.epochs / epochs, "epochs": epochs}


def spec_of(options: Namespace) -> Spec:
    """A resolved spec of the same training: no warm-up, no decay, no early stopping."""
    dials = {
        "epochs": options.epochs, "batch_size": BATCH, "learning_rate": options.rate, "warmup_ratio": 0.0, "weight_decay": 0.0,
        "patience": None, "precision": "bfloat16" if fast_bfloat16() else "float32",
    }  # fmt: skip
    top = getattr(options, "top", None)
    strategy = {"kind": "full"} if top is None else {"kind": "layers", "top": top}
    return load_spec({"name": "bench", "seed": options.seed, "data": {"train": "unused"}, "train": dials, "strategy": strategy})


def ours(model: Any, task: Any, rows: Encoding, options: Namespace) -> Result:
    """Seconds of filling an empty store, where blocks are frozen, and of training for all epochs."""
    spec, few = spec_of(options), rows.part(range(min(64, len(rows.rows))))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        wish = Wish(spec.store, Path(folder) / "store", float(options.epochs))
        with with_prefix(model, task, [rows, few], wish, lambda *_: None) as (stored, encodings, used):
            shortcuts = shortcuts_for(model, encodings, spec)
            rising = itertools.count(1.0)  # the last weights are the best, and kept: the peer keeps its last ones
            job = Job(spec, stored, *shortcuts.encodings, lambda _logits: next(rising), True, Path(folder) / "checkpoints", "",
                      lambda _report: None, StopRequest())  # fmt: skip
            torch.manual_seed(options.seed)
            fit(model, job)
            shortcuts.undo()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "epochs": options.epochs, "store_seconds": used.seconds, "store_mb": used.bytes / 1e6 if used.used else 0.0}


def in_turn(contenders: Sequence[str], repeats: int) -> dict[str, Result]:
    """Medians of each contender, which is this script again with --only and --seed; every run is printed as it ends."""
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for seed in range(repeats):
        for name in contenders:
            command = [sys.executable, *sys.argv, "--only", name, "--seed", str(seed)]
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode:
                sys.exit(f"{name} failed:\n{ran.stderr[-3000:]}")
            results[name].append(json.loads(ran.stdout.splitlines()[-1]))
            print(f"seed {seed}  {name:<17} {results[name][-1]}", flush=True)
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}


def table(medians: dict[str, Result], own: str = "tunesmith") -> None:
    """Print seconds, how many times those of `own` they are, and the rest."""
    ours_seconds = medians.get(own, next(iter(medians.values())))["seconds"]
    for name, median in medians.items():
        rest = "  ".join(f"{key} {value:.4g}" for key, value in median.items() if key != "seconds")
        print(f"{name:<17} {median['seconds']:>8.1f} s {median['seconds'] / ours_seconds:>6.2f}x  {rest}", flush=True)
