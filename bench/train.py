"""Training speed, accuracy and memory against transformers.Trainer: same rows, epochs, batch size, learning rate, machine.

    python bench/train.py DATA_DIR [--repeats 3] [--epochs 1] [--limit ROWS]

DATA_DIR holds train.jsonl.gz and test.jsonl.gz with `text` and `label` (Banking77 in the published figures). Every
contender runs in a process of its own, in turn, seed by seed; medians are printed, with the measured rate of matrix
multiplication and the time that the arithmetic alone would take at that rate. Let nothing else run meanwhile.

Contenders:
    trainer-defaults   TrainingArguments as they are, dynamic padding
    trainer-best       the same with length groups, and bfloat16 where it is measured to be faster
    tunesmith-random   the loop with the head drawn at random, as Trainer does: the same work
    tunesmith          the default: the head starts from a regression on frozen features, whose time is counted
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTENDERS = ("trainer-defaults", "trainer-best", "tunesmith-random", "tunesmith")
BATCH, RATE = 32, 1e-4


def read(folder: Path, split: str, limit: int | None) -> list[dict[str, str]]:
    """Rows of a split; about `limit` of them, spread evenly."""
    with gzip.open(folder / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return rows[:: max(len(rows) // limit, 1)] if limit else rows


def with_trainer(train: list[dict[str, str]], test: list[dict[str, str]], options: argparse.Namespace, best: bool) -> dict[str, float]:
    """Seconds of Trainer.train() and the test accuracy."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from tunesmith.models.load import model_path
    from tunesmith.spec.schema import Model
    from tunesmith.train.precision import measure_rates

    set_seed(options.seed)
    path = model_path(Model())
    tokenizer = AutoTokenizer.from_pretrained(path)
    labels = sorted({row["label"] for row in train})

    def encode(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=128)
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": labels.index(row["label"])}
            for ids, mask, row in zip(encoded["input_ids"], encoded["attention_mask"], rows, strict=True)
        ]

    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(labels))
    extra: dict[str, Any] = {}
    if best:
        extra = {"train_sampling_strategy": "group_by_length", "bf16": measure_rates(torch.device("cpu")).fast_bfloat16}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=RATE,
            seed=options.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **extra,
        )
        trainer = Trainer(model, arguments, train_dataset=encode(train), data_collator=DataCollatorWithPadding(tokenizer))
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = trainer.predict(encode(test))  # in an order of its own when rows are grouped by length
    accuracy = float((answer.predictions.argmax(-1) == answer.label_ids).mean())
    return {"seconds": seconds, "accuracy": accuracy, "peak_bytes": peak}


def with_tunesmith(train: list[dict[str, str]], test: list[dict[str, str]], options: argparse.Namespace, start: str) -> dict[str, float]:
    """Seconds of embed (when the head needs it) and train, and the test accuracy, on the same rows as Trainer."""
    import polars as pl
    import torch

    from tunesmith.core.interrupt import StopRequest
    from tunesmith.models.build import build_model, has_bias, set_head
    from tunesmith.models.forward import frozen_features, predict_logits
    from tunesmith.models.linear import Penalty, fit_logistic
    from tunesmith.models.load import load_processor
    from tunesmith.models.shortcuts import Shortcuts
    from tunesmith.models.strategies import apply_strategy
    from tunesmith.spec.load import load_spec
    from tunesmith.stages.embed import HEAD_ROWS
    from tunesmith.tasks.base import Encoding
    from tunesmith.tasks.text_classification import TextClassification
    from tunesmith.train.fit import Job, fit
    from tunesmith.train.precision import measure_rates

    precision = "bfloat16" if measure_rates(torch.device("cpu")).fast_bfloat16 else "float32"
    dials = {
        "epochs": options.epochs,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "precision": precision,
    }
    spec = load_spec({"name": "bench", "seed": options.seed, "data": {"train": "unused"}, "train": dials})
    frame, held_out = pl.DataFrame(train), pl.DataFrame(test)
    task = TextClassification(sorted(set(frame["label"])))
    processor = load_processor(spec.model)
    rows, few = task.encode(frame, processor, 128), task.encode(held_out.head(64), processor, 128)
    model = build_model(spec, task)
    started = time.perf_counter()
    if start == "fitted":
        sample = Encoding(rows.rows[::2][:HEAD_ROWS], rows.lengths[::2][:HEAD_ROWS], 0)
        features = frozen_features(model, task, sample).head_input_NE
        targets = task.targets(frame)[::2][:HEAD_ROWS]
        set_head(model, fit_logistic(features, targets, len(task.labels), Penalty(intercept=has_bias(model))))
    model = apply_strategy(model, spec.strategy)
    shortcuts = Shortcuts(model, [rows, few], linear_decay=True)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            spec,
            task,
            *shortcuts.encodings,
            lambda _logits: 0.0,
            True,
            Path(folder) / "checkpoints",
            "",
            lambda _report: None,
            StopRequest(),
        )
        torch.manual_seed(options.seed)
        fit(model, job)
    shortcuts.undo()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    logits = predict_logits(model, task, task.encode(held_out, processor, 128))
    accuracy = float((logits.argmax(1).numpy() == task.targets(held_out)).mean())
    return {"seconds": seconds, "accuracy": accuracy, "peak_bytes": peak}


def one(options: argparse.Namespace) -> dict[str, float]:
    """Run one contender in this process."""
    train, test = read(options.data, "train", options.limit), read(options.data, "test", None)
    if options.only.startswith("trainer"):
        return with_trainer(train, test, options, best=options.only == "trainer-best")
    return with_tunesmith(train, test, options, "random" if options.only == "tunesmith-random" else "fitted")


def physical_limit(folder: Path, epochs: int, limit: int | None) -> tuple[str, float, float]:
    """Faster precision, its rate in GFLOP/s on a (2048, 384) × (384, 1536) product, and seconds for the arithmetic alone.

    6 operations per weight of the blocks and per token: 2 forward, 4 backward.
    """
    import torch

    from tunesmith.models.load import load_processor
    from tunesmith.spec.schema import Model

    rates: dict[str, float] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rows = 2048 if name == "float32" else 256
        a, b = torch.ones(rows, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        rates[name] = 2 * rows * 384 * 1536 / min(times) / 1e9
    best = max(rates, key=lambda name: rates[name])
    tokens = sum(len(ids) for ids in load_processor(Model())([r["text"] for r in read(folder, "train", limit)])["input_ids"])
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    return best, rates[best], 6 * weights * tokens * epochs / rates[best] / 1e9


def main() -> None:
    """Print one line per run and a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(one(options)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.contenders}
    for seed in range(options.repeats):
        for name in options.contenders:
            command = [sys.executable, __file__, str(options.data), "--only", name, "--seed", str(seed), "--epochs", str(options.epochs)]
            command += ["--limit", str(options.limit)] if options.limit else []
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            results[name].append(json.loads(output.splitlines()[-1]))
            print(f"seed {seed}  {name:<17} {results[name][-1]}", flush=True)
    precision, rate, seconds = physical_limit(options.data, options.epochs, options.limit)
    print(f"\n{precision} matrix multiplication: {rate:.0f} GFLOP/s; the blocks' arithmetic alone: {seconds:.0f} s")
    print(f"{'':<17} {'seconds':>8} {'of limit':>9} {'accuracy':>9} {'peak MiB':>9}")
    for name, runs in results.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        share = seconds / median["seconds"]
        print(f"{name:<17} {median['seconds']:>8.1f} {share:>9.0%} {median['accuracy']:>9.4f} {median['peak_bytes'] / 2**20:>9.0f}")


if __name__ == "__main__":
    main()
