"""Text tasks against the peers that people use for them, on the same rows, epochs and starting weights: seconds and scores.

    python bench/tasks_text.py similarity DATA [--limit 3000] [--epochs 1] [--repeats 3]     STS-B: full fine-tuning
    python bench/tasks_text.py similarity DATA --top 2 --epochs 5                            the same with frozen lower blocks

DATA has train.jsonl.gz and test.jsonl.gz. The peer is transformers.Trainer at its best settings here (length groups, bfloat16 where
it is fast). Every contender runs in a process of its own, in turn; medians of --repeats are printed. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
import torch
from peers import in_turn, ours, table, trainer
from strategies import freeze

RATE = 1e-4


def read(folder: Path, split: str, limit: int | None) -> pl.DataFrame:
    """Rows of a split as prepared tables have them."""
    rows = pl.read_ndjson(folder / f"{split}.jsonl.gz")
    return rows.select(text="sentence1", text_pair="sentence2", label="score").head(limit or rows.height)


def similarity(options: argparse.Namespace) -> dict[str, float]:
    """One contender on STS-B; a head drawn at random in both."""
    from scipy import stats
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    from tunesmith.models.forward import predict_logits
    from tunesmith.models.load import model_path
    from tunesmith.spec.schema import Model
    from tunesmith.tasks.text_regression import SentenceSimilarity

    torch.manual_seed(options.seed)
    path, task = model_path(Model()), SentenceSimilarity()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, **task.model_options)
    if options.top:
        freeze(model, options.top)
    train, test = read(options.data, "train", options.limit), read(options.data, "test", None)
    rows = task.encode(train, tokenizer, 128)
    if options.only == "tunesmith":
        result = ours(model, task, rows, options)
    else:
        names = ("input_ids", "token_type_ids")
        plain = [{**{n: r[n] for n in names}, "attention_mask": [1] * len(r["input_ids"]), "labels": float(r["labels"])} for r in rows.rows]
        result = trainer(model, plain, DataCollatorWithPadding(tokenizer), options)
    answers = predict_logits(model, task, task.encode(test, tokenizer, 128))
    return {**result, "spearman": float(stats.spearmanr(task.targets(test), np.asarray(answers).squeeze(1)).statistic)}


def main() -> None:
    """Print one line per run and medians with ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("similarity",))
    parser.add_argument("data", type=Path)
    parser.add_argument("--top", type=int, default=0, help="train the top blocks alone; 0: every weight")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps({"similarity": similarity}[options.what](options)))
        return
    table(in_turn(("trainer-best", "tunesmith"), options.repeats))


if __name__ == "__main__":
    main()
