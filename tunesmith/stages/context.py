"""What the stages of one run share: the spec, the run directory, who watches, and things loaded once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from tunesmith.core.errors import DataError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Issue, Progress
from tunesmith.core.rundir import RunDir, sha256_json
from tunesmith.core.seeding import seed_for
from tunesmith.evaluate.metrics import fast_score, metrics_for
from tunesmith.models.load import load_processor
from tunesmith.spec.defaults import read_resolved
from tunesmith.spec.schema import CorrectSuspects, DropSuspects, ReportSuspects, Spec
from tunesmith.tasks.base import Encoding, Task
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.make import make_task
from tunesmith.tasks.windows import WINDOW

SPLITS = ("train", "validation", "test")
ADAPTED_FILE = "config.json"
"""A file of an adapted model; its folder appears whole."""
STAGE_NAMES = ("prepare", "resolve", "adapt", "embed", "certify", "inspect", "augment", "train", "evaluate", "crossvalidate", "document")


def stage_inputs(rundir: RunDir, name: str, version: str) -> str:
    """The hash of all that a stage is made from: program version, spec, source data, and what earlier stages wrote."""
    manifest = rundir.manifest
    upstream = rundir.output_hashes(STAGE_NAMES[: STAGE_NAMES.index(name)])
    return sha256_json([version, name, manifest["spec"], manifest["data"], upstream])


@dataclass(frozen=True)
class Training:
    """What is trained on: row numbers of the train split, their targets, and their weights in the loss (None: all 1)."""

    rows: list[int]
    targets: np.ndarray
    weights_N: np.ndarray | None


@dataclass
class Context:
    """The working state of one run. Everything in it can be made again from the run directory.

    `store` and `adapted` say where frozen work and the adapted model are, for runs inside a run, which have none of their own.
    """

    given: Spec
    rundir: RunDir
    watch: Callable[[Progress], None]
    stop: StopRequest
    store: Path | None = None
    adapted: Path | None = None
    _tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    _encodings: dict[str, Encoding] = field(default_factory=dict)

    @cached_property
    def resolved(self) -> Spec:
        """The spec without open values; only after the resolve stage."""
        return read_resolved(self.rundir.path / "resolved.yaml")

    @property
    def spec(self) -> Spec:
        """The spec without open values, whose model is the adapted one as soon as there is one; only after the resolve stage."""
        folder = self.adapted_folder
        if self.resolved.model.adapt is None or not (folder / ADAPTED_FILE).exists():
            return self.resolved
        model = self.resolved.model.model_copy(update={"name": str(folder.absolute()), "revision": None})
        return self.resolved.model_copy(update={"model": model})

    @property
    def adapted_folder(self) -> Path:
        """Where the adapted model is, or will be."""
        return self.adapted or self.rundir.path / "adapted"

    @cached_property
    def labels(self) -> list[str]:
        """Label names in class-id order."""
        return list(json.loads((self.rundir.path / "data/labels.json").read_text("utf-8")))

    @cached_property
    def processor(self) -> Any:
        """The tokenizer."""
        return load_processor(self.given.model)

    @cached_property
    def task(self) -> Task:
        """The task with the run's labels; only after the resolve stage."""
        return make_task(self.spec, self.labels, self.table("train"), corpus=self.corpus)

    @cached_property
    def corpus(self) -> list[str]:
        """The texts that queries are ranked against, in the order of their ids; none where nothing is ranked."""
        path = self.rundir.path / "data/corpus.parquet"
        return pl.read_parquet(path)["text"].to_list() if path.exists() else []

    @cached_property
    def training_task(self) -> Task:
        """The task whose class weights count what is trained on: suspects as the spec says, and copies; only after the augment stage."""
        targets = self.training.targets
        if len(self.copies):
            targets = np.concatenate([targets, self.targets_of(self.copies["from"])])
        return make_task(self.spec, self.labels, self.table("train"), targets, self.corpus)

    @property
    def store_folder(self) -> Path:
        """Where frozen work is kept: where the spec says, or beside the run directories, so that other runs find it."""
        return self.store or Path(self.given.store.folder or self.rundir.path.parent / ".store")

    def table(self, split: str) -> pl.DataFrame:
        """Prepared rows of a split."""
        if split not in self._tables:
            self._tables[split] = pl.read_parquet(self.rundir.path / f"data/{split}.parquet")
        return self._tables[split]

    def encoding(self, split: str) -> Encoding:
        """Rows of a split as token ids of at most model.max_length."""
        if split not in self._encodings:
            assert self.spec.model.max_length, "resolved specs have a length"
            self._encodings[split] = self.task.encode(self.table(split), self.processor, self.spec.model.max_length)
        return self._encodings[split]

    @cached_property
    def training(self) -> Training:
        """The training rows after what the spec says about suspect labels; only after the inspect stage."""
        table, rule = self.table("train"), self.given.data.suspects
        targets, rows = self.task.targets(table), list(range(len(table)))
        path = self.rundir.path / "data/suspects.parquet"
        if rule is None or isinstance(rule, ReportSuspects) or not path.exists():
            return Training(rows, targets, None)
        suspects = pl.read_parquet(path)
        found = set(suspects["row"])
        if isinstance(rule, DropSuspects):
            kept = [row for row in rows if row not in found]
            return Training(kept, targets[kept], None)
        if isinstance(rule, CorrectSuspects):
            corrected = table.with_row_index("row").join(suspects.select("row", "suggested").unique("row"), on="row", how="left")
            return Training(rows, self.task.targets(corrected.with_columns(label=pl.coalesce("suggested", "label"))), None)
        return Training(rows, targets, np.array([rule.weight if row in found else 1.0 for row in rows], np.float32))

    @cached_property
    def copies(self) -> pl.DataFrame:
        """The changed copies of training rows that are trained on; only after the augment stage."""
        path = self.rundir.path / "data/augmented.parquet"
        return pl.read_parquet(path) if self.spec.train.augment else self.table("train").clear().with_columns(pl.lit("").alias("from"))

    def targets_of(self, ids: pl.Series) -> np.ndarray:
        """Targets of training rows by id, after what the spec says about suspect labels."""
        known = self.table("train")["id"].gather(self.training.rows)
        place_of = {row: place for place, row in enumerate(known)}
        return np.asarray(self.training.targets[[place_of[row] for row in ids]])

    def encoded(self, rows: pl.DataFrame) -> Encoding:
        """Rows without their labels as token ids of at most model.max_length."""
        assert self.spec.model.max_length, "resolved specs have a length"
        return self.task.encode(rows.drop("label"), self.processor, self.spec.model.max_length)

    def windows_in_order(self, split: str) -> list[int]:
        """Numbers of the windows of a split, rows by content hash: a random order that does not depend on the file's."""
        place_of = {row: place for place, row in enumerate(self.table(split)["id"].arg_sort().to_list())}
        windows = self.encoding(split).rows
        return sorted(range(len(windows)), key=lambda number: place_of[windows[number][WINDOW].row])

    def plain_encoding(self, split: str) -> Encoding:
        """Rows of a split as frozen features are computed of them: with nothing masked."""
        return self.encoded(self.table(split)) if self.given.kind == "masked" else self.encoding(split)

    def training_encoding(self) -> Encoding:
        """`training` and `copies` as encoded rows; windows over texts and pairs of texts come with their targets."""
        if self.given.kind in ("answers", "text", "spans"):
            return self.encoding("train")
        if self.given.kind in ("relevant", "masked"):
            return self._learned
        whole, training = self.encoding("train"), self.training
        rows = [whole.rows[row] for row in training.rows]
        lengths = [whole.lengths[row] for row in training.rows]
        targets, weights = list(training.targets), None if training.weights_N is None else training.weights_N.tolist()
        if len(self.copies):
            more = self.encoded(self.copies)
            rows, lengths, targets = rows + more.rows, lengths + more.lengths, targets + list(self.targets_of(self.copies["from"]))
            if weights is not None:
                known = dict(zip(self.table("train")["id"].gather(training.rows), weights, strict=True))
                weights += [known[row] for row in self.copies["from"]]
        labelled = [{**row, "labels": target} for row, target in zip(rows, targets, strict=True)]
        if weights is not None:
            labelled = [{**row, "weight": weight} for row, weight in zip(labelled, weights, strict=True)]
        return Encoding(labelled, lengths, whole.cut)

    @cached_property
    def _learned(self) -> Encoding:
        """What is trained on where it is not what is answered: pairs of queries and texts, or windows in which tokens are masked."""
        assert self.spec.model.max_length, "resolved specs have a length"
        return self.task.training(self.table("train"), self.processor, self.spec.model.max_length)

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric that decides."""
        return metrics_for(self.given.kind)[str(self.spec.evaluate.metric)].higher_is_better

    @cached_property
    def scored_rows(self) -> list[int] | None:
        """Numbers of the validation rows that weights are selected by, ascending; None for all of them."""
        if self.given.kind != "text":
            return None
        return sorted(self.table("validation")["id"].arg_sort().to_list()[: self.spec.generation.scored_rows])

    @property
    def scored_encoding(self) -> Encoding:
        """The validation rows that weights are selected by."""
        whole = self.encoding("validation")
        if isinstance(self.task, FeatureExtraction):
            return self.task.scored(whole)
        return whole if self.scored_rows is None else whole.part(self.scored_rows)

    def score(self, answers: Any, task: Task | None = None) -> float:
        """The deciding metric of answers on the validation split; `task` says what unit the logits of numbers are in."""
        scores = (task or self.task).scores(answers, self.scored_encoding)
        table = self.table("validation")
        targets = self.task.targets(table if self.scored_rows is None else table[self.scored_rows])
        name = str(self.spec.evaluate.metric)
        value = fast_score(name, self.given.kind, targets, scores)
        if math.isnan(value):
            remedy = "Choose another metric, give more validation rows, or lower train.learning_rate if training diverged."
            raise DataError(Issue("evaluate.metric", "must be defined on the validation rows", f"{name} is not a number", remedy))
        return value

    def seed(self, stream: str) -> None:
        """Seed torch's global stream for a named purpose."""
        torch.manual_seed(seed_for(self.given.seed, stream))

    def rows_watch(self, stage: str, note: str = "") -> Callable[[int, int], None]:
        """A watch for passes over rows, at most ten calls a second."""
        last = [0.0]

        def watch(done: int, total: int) -> None:
            if done == total or time.monotonic() - last[0] > 0.1:
                last[0] = time.monotonic()
                self.watch(Progress(stage, done, total, "row", note=note))

        return watch
