"""Facts for derived values: what the data and the model say about each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.records import Finding
from tunesmith.data.profile import label_counts
from tunesmith.data.relevant import judged_share
from tunesmith.models.load import max_length
from tunesmith.spec.defaults import Facts
from tunesmith.spec.kinds import TEXT_LABELS
from tunesmith.tasks.base import Task
from tunesmith.tasks.text_to_text import TextToText

SAMPLE_ROWS = 5000


@dataclass(frozen=True)
class Lengths:
    """Token lengths of training rows, uncut, special tokens counted; `rows` of them were tokenized."""

    p50: int
    p99: int
    longest: int
    rows: int

    def findings(self) -> list[Finding]:
        """The lengths as findings."""
        sampled = "lengths of a sample of the training rows" if self.rows == SAMPLE_ROWS else ""
        named = (("p50", "Median length of a training row", self.p50), ("p99", "Length that almost all training rows stay under", self.p99),
                 ("max", "Length of the longest training row", self.longest))  # fmt: skip
        return [
            Finding(f"data/tokens/{key}", claim, value, "tokens", self.rows, source="measured", note=sampled) for key, claim, value in named
        ]


def token_lengths(task: Task, train: pl.DataFrame, processor: Any, limit: int) -> Lengths:
    """Lengths up to `limit` tokens of at most 5,000 training rows, the first by content hash."""
    sample = train.sort("id").head(SAMPLE_ROWS)
    pairs = task.kind == "relevant"  # queries alone are shorter than the texts that they find
    lengths = (task.training(sample, processor, limit) if pairs else task.encode(sample.drop("label"), processor, limit)).lengths
    return Lengths(int(np.percentile(lengths, 50)), int(np.percentile(lengths, 99)), max(lengths), len(lengths))


def gather(task: Task, splits: Mapping[str, pl.DataFrame], processor: Any, config: Any, fast_bfloat16: bool) -> tuple[Facts, Lengths]:
    """The Facts that `spec.defaults.resolve` needs, and the lengths behind them. `splits` has train, validation and test."""
    limit = max_length(processor, config)
    lengths = token_lengths(task, splits["train"], processor, limit)
    tested, classes = ({}, {}) if task.kind in TEXT_LABELS else (label_counts(splits[name]["label"]) for name in ("test", "train"))
    fewest = min((tested.get(label, 0) for label in classes), default=len(splits["test"]))
    rows = sum(map(len, splits.values()))
    facts = Facts(len(splits["train"]), lengths.p99, limit, fast_bfloat16, task.metrics[0], rows, fewest, len(splits["validation"]))
    if task.kind == "relevant":
        facts = replace(facts, judged=judged_share(splits["train"]["label"]))
    if isinstance(task, TextToText):
        written = [len(tokens) for tokens in task.target_tokens(splits["train"].sort("id").head(SAMPLE_ROWS), processor)]
        facts = replace(facts, targets_p99=int(np.percentile(written, 99)))
    return facts, lengths
