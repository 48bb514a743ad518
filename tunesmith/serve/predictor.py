"""A finished run as something to call: texts in, labels with probabilities out; tables of any size in constant memory."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import DataError, RunError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import RunDir, disk_errors, existing_run, sha256_file
from tunesmith.data.clean import cleaned_text
from tunesmith.data.columns import text_columns
from tunesmith.data.load import SOURCE
from tunesmith.data.marked import TOKENS
from tunesmith.data.open import open_batches
from tunesmith.data.targets import kept_text
from tunesmith.data.uniform import uniform_texts
from tunesmith.evaluate.numbers import INTERVAL, with_intervals
from tunesmith.evaluate.predict import predict
from tunesmith.evaluate.replies import THRESHOLD, with_threshold
from tunesmith.models.headed import load_shipped
from tunesmith.models.save import learned_weights
from tunesmith.serve.marked import texts_to_mark
from tunesmith.serve.write import join, refuse_rows, refuse_target
from tunesmith.spec.defaults import read_resolved
from tunesmith.spec.kinds import OF_CLASSES, TEXT_LABELS
from tunesmith.tasks.base import Encoding
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.fill_mask import FILLED
from tunesmith.tasks.make import make_task
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.token_classification import PREDICTED

CHUNK_ROWS = 4096
ROW = "__row__"


@dataclass(frozen=True)
class Prediction:
    """The predicted label, its probability, and every label's probability.

    In a multi-label run `label` is a tuple, and `probability` the mean over labels of max(p, 1 - p). In a run on numbers `label` is
    the number, and `interval` its bounds; there are no probabilities. In a run on answers in texts `label` is the answer, "" for none,
    and `span` its place in the text that was given, in characters. In a run that writes texts `label` is the text, and `finished` says
    whether it ended within the most tokens. In a run on spans `spans` has start, end, label, text and probability of each, and `label`
    their types. In a run that embeds texts `vector` is that of the text, and there is no label; in one that ranks them `label` is the
    relevance of the pair, from 0 to 1. In a run that fills masks `label` is the text with each mask filled by its likeliest token, None for
    a text without one, and `candidates` has for each mask the likeliest tokens with token, probability and text.
    """

    label: str | tuple[str, ...] | float | None
    probability: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    span: tuple[int, int] | None = None
    spans: tuple[dict[str, Any], ...] = ()
    finished: bool | None = None
    vector: tuple[float, ...] = ()
    candidates: tuple[tuple[dict[str, Any], ...], ...] = ()


class Predictor:
    """A loaded model with its processor and label names.

    So far, `unfilled` counts the rows of tables that had no mask to fill, and `cut` the texts that the model did not read to their end.
    """

    def __init__(self, run: RunDir) -> None:
        from transformers import AutoTokenizer

        if "train" not in run.manifest["stages"]:
            remedy = "Run the same command again until it is done."
            raise RunError(Issue(str(run.path), "must be a finished run", "no trained model yet", remedy))
        self.path = run.path
        self.spec = read_resolved(run.path / "resolved.yaml")
        self.labels: list[str] = json.loads((run.path / "data/labels.json").read_text("utf-8"))
        profile = json.loads((run.path / "data/profile.json").read_text("utf-8"))
        self.unfilled = self.cut = 0
        self.columns: list[str] = list(profile["columns"]["text"])
        self.found: str | None = profile["columns"].get("found")
        if self.spec.task == TextRanking.name:
            self.columns.append(str(self.found))
        self.task = make_task(self.spec, self.labels, _form_of_rows(self.columns, profile))
        self.half, self.threshold = (_measured(run, name) for name in (INTERVAL, THRESHOLD))
        self.processor = AutoTokenizer.from_pretrained(run.path / "model", trust_remote_code=self.spec.model.trust_remote_code)
        self.model: Any = load_shipped(self.task.head, run.path / "model", self.spec.model.trust_remote_code)

    @property
    def weights(self) -> str:
        """The fingerprint of the weights."""
        return sha256_file(learned_weights(self.path / "model")[0])

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """One Prediction per text, in order; pairs of texts for a model of sentence pairs."""
        if isinstance(texts, str):
            raise DataError(Issue("predict", "must get a list of texts", "one string", "Put it in a list."))
        if not texts:
            return []
        frame = self.predict_frame(_as_frame(texts, pair=len(self.columns) == 2))
        return [self._prediction(row) for row in frame.iter_rows(named=True)]

    def rank(self, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """The place of each text in the list and its score, the most relevant first: by cosine, or by the relevance of each pair.

        Raises:
            RunError: the run does not rank texts.
        """
        if self.task.kind != "relevant":
            remedy = "Use a run of the task feature-extraction or text-ranking."
            raise RunError(Issue("rank", "must be asked of a run that ranks texts", self.spec.task, remedy))
        if isinstance(self.task, TextRanking):
            scores = np.array([one.label for one in self.predict([(query, text) for text in texts])], np.float64)
        else:
            query_E, text_ME = self.vectors([query])[0], self.vectors(texts)
            scores = text_ME.astype(np.float64) @ query_E
        return [(int(place), float(scores[place])) for place in np.argsort(-scores, kind="stable")]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The vector of each text (N, E) in float32, of length one.

        Raises:
            RunError: the run does not embed texts.
        """
        self.must_embed("vectors")
        if not texts:
            return np.zeros((0, int(self.model.config.hidden_size)), np.float32)
        made = self.predict_frame(_as_frame(texts, pair=False))["predicted"].to_list()
        return np.array(made, np.float32).reshape(len(texts), -1)

    def must_embed(self, what: str) -> None:
        """Nothing, in a run that embeds texts.

        Raises:
            RunError: it is of another task.
        """
        if not isinstance(self.task, FeatureExtraction):
            remedy = "Use a run of the task feature-extraction."
            raise RunError(Issue(what, "must be asked of a run that embeds texts", self.spec.task, remedy))

    def _prediction(self, row: dict[str, Any]) -> Prediction:
        if isinstance(self.task, FeatureExtraction):
            return Prediction(None, vector=tuple(row["predicted"]))
        if isinstance(self.task, TextRanking):
            return Prediction(row["predicted"])
        if self.task.kind == "answers":
            span = None if row["start"] is None else (row["start"], row["end"])
            return Prediction(row["predicted"], row["score"], span=span)
        if self.task.kind == "text":
            return Prediction(row["predicted"], finished=row["finished"])
        if self.task.kind == "masked":
            return Prediction(row["predicted"], candidates=tuple(map(tuple, row["candidates"] or ())))
        if self.task.kind == "spans":
            return Prediction(tuple(s["label"] for s in row["predicted"]), spans=tuple(row["predicted"]))
        if self.task.kind == "number":
            return Prediction(row["predicted"], interval=(row["low"], row["high"]) if "low" in row else None)
        label = tuple(row["predicted"]) if self.task.kind == "classes" else row["predicted"]
        return Prediction(label, row["confidence"], dict(zip(self.labels, row["probabilities"], strict=True)))

    def predict_frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """predicted, confidence, probabilities (numbers: low, high) for rows with the columns text (and text_pair), plus id and label.

        Texts are changed as the training rows were: rules and masks of the spec, Unicode NFC, control characters, spaces.
        """
        encoding = self.encoded(rows)
        self.cut += encoding.cut
        predicted = predict(self.model, self.task, rows, encoding)
        if self.task.kind == "answers":
            return with_threshold(predicted, self.threshold)
        return with_intervals(predicted, self.half) if self.task.kind == "number" else predicted

    def encoded(self, rows: pl.DataFrame) -> Encoding:
        """Rows with the columns text (and text_pair) as token ids, their texts changed as the training rows were."""
        assert self.spec.model.max_length, "resolved specs have a length"
        if self.task.kind == "spans":  # places are those of the text as it was given
            kept = rows.select(name for name in ("text", TOKENS) if name in rows.columns)
            return self.task.encode(kept, self.processor, self.spec.model.max_length)
        given = uniform_texts(rows.select(name for name in ("text", "text_pair") if name in rows.columns), self.spec.data)
        changed = given.columns[:1] if self.task.kind == "answers" else given.columns  # places are those of the text as it was given
        clean = kept_text if self.task.kind in TEXT_LABELS else cleaned_text
        texts = given.with_columns(clean(pl.col(name)) for name in changed)
        return self.task.encode(texts, self.processor, self.spec.model.max_length)

    def predict_file(self, source: str, target: Path, top: int, watch: Callable[[int], None]) -> int:
        """Predict a table into a Parquet, CSV or JSONL file with constant memory; gives the number of rows. Answers in texts can go into
        .json as SQuAD's script reads them, and tags of tokens into .conll; these are held in memory whole.

        The input's columns are kept; added are `predicted`, `probability`, and `top_1` … `top_k` with their probabilities.
        Rows with an empty text get null predictions. The target appears only when it is complete. In CSV lists of texts have "|" between
        them, and other lists are JSON.

        Raises:
            RunError: the ending of the target is not for this task.
            DataError: the table cannot be read, or its rows cannot be written there: told before they are predicted.
        """
        refuse_target(target, self.task.kind)
        top = min(top, len(self.labels))
        parts = target.with_name(f".{target.name}.parts")
        with disk_errors(target):
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(parents=True)
            try:
                done = 0
                for number, rows in enumerate(open_batches(source, self.spec.data, CHUNK_ROWS, (self.spec.task,))):
                    _refuse_collisions(source, rows, self._schema(top))
                    refuse_rows(target, rows, self.columns[0])
                    self._with_predictions(rows, top).write_parquet(parts / f"{number:08d}.parquet")
                    done += len(rows)
                    watch(done)
                if not done:
                    raise DataError(Issue(source, "must have rows", "none"))
                join(parts, target, self.columns[0])
            finally:
                shutil.rmtree(parts, ignore_errors=True)
        return done

    def _with_predictions(self, rows: pl.DataFrame, top: int) -> pl.DataFrame:
        marks = self.task.kind == "spans"
        texts = texts_to_mark(rows, self.columns[0]) if marks else text_columns(rows, self.columns).drop("source")
        cleaned = (texts.select("text") if marks else uniform_texts(texts, self.spec.data)).select(cleaned_text(pl.all()))
        usable = cleaned.select(pl.all_horizontal(pl.all() != "")).to_series()
        index = usable.arg_true()
        predicted = self.predict_frame(texts.filter(usable)) if len(index) else None
        schema = self._schema(top)
        if predicted is None:
            answers = pl.DataFrame(schema=schema)
        else:
            plain = self.task.kind not in OF_CLASSES
            answers = predicted.select(list(schema)) if plain else _columns(predicted, self.labels, top)
            self.unfilled += answers["predicted"].null_count() if self.task.kind == "masked" else 0
        added = answers.with_columns(index.cast(pl.Int64).alias(ROW))
        kept = rows.drop(SOURCE, strict=False).with_columns(pl.int_range(pl.len()).alias(ROW))
        return kept.join(added, on=ROW, how="left", maintain_order="left").drop(ROW)

    def _schema(self, top: int) -> dict[str, Any]:
        if self.task.kind == "relevant":
            return {"predicted": pl.List(pl.Float32) if isinstance(self.task, FeatureExtraction) else pl.Float64}
        if self.task.kind == "answers":
            return {"predicted": pl.String, "start": pl.Int64, "end": pl.Int64, "score": pl.Float64}
        if self.task.kind == "spans":
            return {"predicted": PREDICTED}
        if self.task.kind == "text":
            return {"predicted": pl.String, "tokens": pl.Int64, "finished": pl.Boolean}
        if self.task.kind == "masked":
            return {"predicted": pl.String, "candidates": FILLED}
        if self.task.kind == "number":
            return dict.fromkeys(("predicted", "low", "high") if math.isfinite(self.half) else ("predicted",), pl.Float64)
        label: Any = pl.List(pl.String) if self.task.kind == "classes" else pl.String
        ranked = {name: kind for k in range(top) for name, kind in ((f"top_{k + 1}", pl.String), (f"top_{k + 1}_probability", pl.Float32))}
        return {"predicted": label, "probability": pl.Float32, **ranked}


def _form_of_rows(columns: Sequence[str], profile: dict[str, Any]) -> pl.DataFrame:
    """A table of no words in the form of the training rows; its numbers reach from the smallest to the largest that was learned."""
    texts = ("text", "text_pair")[: len(columns)]
    if not profile["numbers"]:
        return pl.DataFrame(schema=dict.fromkeys(texts, pl.String))
    ends = [profile["numbers"]["train"][name] for name in ("min", "max")]
    return pl.DataFrame({**{key: ["", ""] for key in texts}, "label": pl.Series(ends, dtype=pl.Float64)})


def _measured(run: RunDir, name: str) -> float:
    """The number of a finding; infinite where the run has none."""
    found = run.findings.get(name)
    return float(found.value) if found is not None and isinstance(found.value, (int, float)) else math.inf


def load(run: str | Path) -> Predictor:
    """The model of a finished run, ready to predict.

    Raises:
        RunError: there is no finished run at that path.
    """
    return Predictor(existing_run(Path(run)))


def _refuse_collisions(source: str, rows: pl.DataFrame, schema: dict[str, Any]) -> None:
    taken = [name for name in rows.columns if name in schema or name == ROW]
    if taken:
        raise DataError(
            Issue(source, "must not have columns that predictions are written to", ", ".join(taken), "Rename them in the table.")
        )


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
