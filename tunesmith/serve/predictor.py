"""A finished run as something to call: texts in, labels with probabilities out; tables of any size in constant memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import RunDir, disk_errors, existing_run
from tunesmith.data.clean import cleaned_text
from tunesmith.data.load import iter_batches
from tunesmith.evaluate.predict import predict
from tunesmith.models.load import load_finished
from tunesmith.spec.defaults import read_resolved
from tunesmith.tasks.text_classification import TextClassification

CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Prediction:
    """The predicted label (a tuple of labels in a multi-label run), its probability, and every label's probability."""

    label: str | tuple[str, ...]
    probability: float
    probabilities: dict[str, float]


class Predictor:
    """A loaded model with its processor and label names."""

    def __init__(self, run: RunDir) -> None:
        from transformers import AutoTokenizer

        self.spec = read_resolved(run.path / "resolved.yaml")
        self.labels: list[str] = json.loads((run.path / "data/labels.json").read_text("utf-8"))
        profile = json.loads((run.path / "data/profile.json").read_text("utf-8"))
        self.columns: list[str] = list(profile["columns"]["text"])
        self.task = TextClassification(self.labels, multi_label=self.spec.data.multi_label, pair=len(self.columns) == 2)
        self.processor = AutoTokenizer.from_pretrained(run.path / "model")
        self.model: Any = load_finished(self.task.head, run.path / "model")
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """One Prediction per text, in order; pairs of texts for a model of sentence pairs."""
        if isinstance(texts, str):
            raise DataError(Issue("predict", "must get a list of texts", "one string", "Put it in a list."))
        if not texts:
            return []
        frame = self.predict_frame(_as_frame(texts, pair=len(self.columns) == 2))
        return [
            Prediction(
                label=tuple(row["predicted"]) if self.task.multi_label else row["predicted"],
                probability=row["confidence"],
                probabilities=dict(zip(self.labels, row["probabilities"], strict=True)),
            )
            for row in frame.iter_rows(named=True)
        ]

    def predict_frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """predicted, confidence, probabilities for rows with the columns text (and text_pair), plus id and label if there.

        Texts are cleaned as the training rows were: Unicode NFC, control characters, runs of spaces.
        """
        assert self.spec.model.max_length, "resolved specs have a length"
        texts = rows.select(cleaned_text(pl.col(c)) for c in ("text", "text_pair") if c in rows.columns)
        encoding = self.task.encode(texts, self.processor, self.spec.model.max_length)
        return predict(self.model, self.task, rows, encoding)

    def predict_file(self, source: str, target: Path, top: int, watch: Callable[[int], None]) -> int:
        """Predict a table into a Parquet, CSV or JSONL file with constant memory; gives the number of rows.

        The input's columns are kept; added are `predicted`, `probability`, and `top_1` … `top_k` with their probabilities.
        Rows with an empty text get null predictions. The target appears only when it is complete.
        """
        parts = target.with_name(f".{target.name}.parts")
        with disk_errors(target):
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(parents=True)
            try:
                done = 0
                for number, rows in enumerate(self._chunks(source)):
                    self._with_predictions(rows, top).write_parquet(parts / f"{number:08d}.parquet")
                    done += len(rows)
                    watch(done)
                if not done:
                    raise DataError(Issue(source, "must have rows", "none"))
                _join(parts, target)
            finally:
                shutil.rmtree(parts, ignore_errors=True)
        return done

    def _chunks(self, source: str) -> Iterator[pl.DataFrame]:
        data = self.spec.data
        for rows in iter_batches((source,), data, CHUNK_ROWS):
            missing = [c for c in self.columns if c not in rows.columns]
            if missing:
                raise DataError(Issue(source, f"must have the column {missing[0]!r}", ", ".join(rows.columns), "Rename it in the table."))
            yield rows

    def _with_predictions(self, rows: pl.DataFrame, top: int) -> pl.DataFrame:
        names = ["text", "text_pair"][: len(self.columns)]
        texts = rows.select(pl.col(c).cast(pl.String).alias(n) for c, n in zip(self.columns, names, strict=True))
        usable = texts.select(pl.all_horizontal(pl.all().is_not_null() & (pl.all().str.strip_chars() != ""))).to_series()
        index = usable.arg_true()
        predicted = self.predict_frame(texts.filter(usable)) if len(index) else None
        added = pl.DataFrame({"#": index.cast(pl.Int64)})
        if predicted is not None:
            added = added.hstack(_columns(predicted, self.labels, min(top, len(self.labels))))
        kept = rows.drop([c for c in rows.columns if c in added.columns or c == "__source__"])
        return kept.with_columns(pl.int_range(pl.len()).alias("#")).join(added, on="#", how="left", maintain_order="left").drop("#")


def load(run: str | Path) -> Predictor:
    """The model of a finished run, ready to predict.

    Raises:
        RunError: there is no finished run at that path.
    """
    return Predictor(existing_run(Path(run)))


def _as_frame(texts: Sequence[str | tuple[str, str]], pair: bool) -> pl.DataFrame:
    for number, text in enumerate(texts):
        good = (
            isinstance(text, (tuple, list)) and len(text) == 2 and all(isinstance(t, str) for t in text) if pair else isinstance(text, str)
        )
        if not good:
            expected = "must be a pair of strings" if pair else "must be a string"
            raise DataError(Issue(f"predict: text {number}", expected, repr(text)[:60]))
    if pair:
        return pl.DataFrame({"text": [t[0] for t in texts], "text_pair": [t[1] for t in texts]})
    return pl.DataFrame({"text": list(texts)})


def _columns(predicted: pl.DataFrame, labels: list[str], top: int) -> pl.DataFrame:
    columns = [predicted["predicted"], predicted["confidence"].alias("probability")]
    ranked = predicted["probabilities"].list.eval(pl.element().arg_sort(descending=True))
    names = pl.Series(labels)
    for k in range(top):
        ids = ranked.list.get(k)
        columns.append(names.gather(ids).alias(f"top_{k + 1}"))
        best = [row[i] for row, i in zip(predicted["probabilities"], ids, strict=True)]
        columns.append(pl.Series(f"top_{k + 1}_probability", best, dtype=pl.Float32))
    return pl.DataFrame(columns)


def _join(parts: Path, target: Path) -> None:
    whole = pl.scan_parquet(parts / "*.parquet", missing_columns="insert")
    temporary = target.with_name(f".{target.name}.writing")
    if target.suffix == ".csv":
        whole.with_columns(pl.selectors.by_dtype(pl.List(pl.String)).list.join("|")).sink_csv(temporary)
    elif target.suffix == ".jsonl":
        whole.sink_ndjson(temporary)
    else:
        whole.sink_parquet(temporary)
    os.replace(temporary, target)
