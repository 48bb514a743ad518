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
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from peers import TRAINERS, in_turn, ours, table, trainer

from tunesmith.models.build import has_bias, set_head
from tunesmith.models.forward import frozen_features, predict_logits
from tunesmith.models.linear import Penalty, fit_logistic
from tunesmith.models.load import load_processor, model_path
from tunesmith.spec.schema import Model
from tunesmith.stages.embed import HEAD_ROWS
from tunesmith.tasks.text_classification import TextClassification

CONTENDERS = (*TRAINERS, "tunesmith-random", "tunesmith")
RATE = 1e-4


def read(folder: Path, split: str, limit: int | None) -> list[dict[str, str]]:
    """Rows of a split; about `limit` of them, spread evenly."""
    with gzip.open(folder / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return rows[:: max(len(rows) // limit, 1)] if limit else rows


def one(options: argparse.Namespace) -> dict[str, float]:
    """Seconds, test accuracy and peak memory of one contender, in this process. Ours include embedding where the head starts fitted."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    train, test = (pl.DataFrame(read(options.data, split, limit)) for split, limit in (("train", options.limit), ("test", None)))
    task, path = TextClassification(sorted(set(train["label"]))), model_path(Model())
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(options.seed)
    model = AutoModelForSequenceClassification.from_pretrained(path, **task.model_options)
    rows, started = task.encode(train, tokenizer, 128), time.perf_counter()
    if options.only in TRAINERS:
        plain = [{"input_ids": r["input_ids"], "attention_mask": [1] * len(r["input_ids"]), "labels": int(r["labels"])} for r in rows.rows]
        result = trainer(model, plain, DataCollatorWithPadding(tokenizer), options)
    else:
        if options.only == "tunesmith":
            sample = rows.part(range(0, len(rows.rows), 2)).part(range(min(HEAD_ROWS, len(rows.rows) // 2)))
            targets = np.array([row["labels"] for row in sample.rows])
            features = frozen_features(model, task, sample).head_input_NE
            set_head(model, fit_logistic(features, targets, len(task.labels), Penalty(intercept=has_bias(model))))
        embedding = time.perf_counter() - started
        result = ours(model, task, rows, options)
        result["seconds"] += embedding
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    logits = predict_logits(model, task, task.encode(test, tokenizer, 128))
    return {**result, "accuracy": float((logits.argmax(1).numpy() == task.targets(test)).mean()), "peak_mib": peak}


def physical_limit(folder: Path, epochs: int, limit: int | None) -> tuple[str, float, float]:
    """Faster precision, its rate in GFLOP/s on a (512, 384) × (384, 1536) product (median of 30), and seconds for the arithmetic alone.

    6 operations per weight of the blocks and per token: 2 forward, 4 backward.
    """
    rates: dict[str, float] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rows = 512  # about the tokens of a batch
        a, b = torch.ones(rows, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
        times = []
        for _ in range(30):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        rates[name] = 2 * rows * 384 * 1536 / statistics.median(times) / 1e9
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
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(one(options)))
        return
    medians = in_turn(options.contenders, options.repeats)
    precision, rate, seconds = physical_limit(options.data, options.epochs, options.limit)
    print(f"\n{precision} matrix multiplication: {rate:.0f} GFLOP/s; the blocks' arithmetic alone: {seconds:.0f} s")
    table({name: {**median, "of_limit": seconds / median["seconds"]} for name, median in medians.items()}, "tunesmith-random")


if __name__ == "__main__":
    main()
