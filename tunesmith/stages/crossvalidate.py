"""crossvalidate: a score that rests on more rows than the test split has, from models of folds. None of them ships.

A fold is a small run of its own inside checkpoints/: the same stages inspect, augment and train work on its rows, with the
same resolved values. So there is one way of training, and a fold that was finished is not trained again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.core.records import Artefact, Finding, Progress
from tunesmith.core.rundir import RunDir, StageWriter, sha256_json
from tunesmith.data.folding import Fold, Folding, fold_of, folding
from tunesmith.evaluate.evaluate import FOLDS, Judging, differences, findings_of
from tunesmith.evaluate.folds import fold_findings
from tunesmith.evaluate.predict import predict
from tunesmith.evaluate.replies import best_threshold, with_threshold
from tunesmith.models.build import build_model
from tunesmith.models.forward import frozen_features
from tunesmith.models.headed import load_shipped
from tunesmith.spec.defaults import read_rule
from tunesmith.spec.schema import ReportSuspects
from tunesmith.stages import augment, inspect, train
from tunesmith.stages.baselines import baseline_answers
from tunesmith.stages.context import SPLITS, Context, stage_inputs
from tunesmith.stages.embed import load_features, rows_to_embed
from tunesmith.tasks.make import can_be_empty

COPIED = ("data/labels.json", "data/profile.json", "resolved.yaml")
PASSING = ("model", "features", "checkpoints", "data")


@dataclass(frozen=True)
class Stored:
    """Frozen features that the run has already: the place of each row id, and the tensors."""

    place_of: dict[str, int]
    tensors: dict[str, Tensor]


def crossvalidate(context: Context, stage: StageWriter) -> None:
    """Write predictions/folds.parquet, one file more for each baseline, and the folds/* and crossvalidate/* findings."""
    count, rule = context.spec.evaluate.folds, read_rule(context.rundir.path / "resolved.yaml", "evaluate.folds")
    if not isinstance(count, int):
        stage.find(Finding("crossvalidate/folds", "Models trained for cross-validation", 0, "models", note=rule))
        context.watch(Progress("crossvalidate", 1, 1, note=f"nothing to do: {rule}"))
        return
    whole = folding({split: context.table(split) for split in SPLITS}, context.spec)
    folds = [fold_of(whole, number, context.spec) for number in range(1, count + 1)]
    usable = [fold for fold in folds if not fold.problem]
    stored = _stored(context)
    done = [_trained(context, fold, stored, count) for fold in usable] if len(usable) > 1 else []
    stage.find(Finding("crossvalidate/folds", "Models trained for cross-validation", len(done), "models", count, note=rule))
    stage.find(*_about_rows(whole, folds, usable if done else []), *_about_training(context, usable, done))
    if done:
        _judge(context, stage, _pooled(whole, usable, done, "test"), usable, done)
    note = f"{len(done)} models, each judged on rows that it has not seen" if done else "not possible: see crossvalidate/not_asked"
    context.watch(Progress("crossvalidate", count, count, "fold", note=note))


def _judge(context: Context, stage: StageWriter, model: pl.DataFrame, usable: list[Fold], done: list[RunDir]) -> None:
    def judging(name: str, predictions: pl.DataFrame, prefix: str) -> Judging:
        artefact: Artefact = stage.write(f"predictions/{name}.parquet", predictions.write_parquet)
        return Judging(context.given.kind, context.labels, context.spec.evaluate, context.given.seed, prefix, artefact)

    stage.find(*fold_findings(model, judging(FOLDS, model, FOLDS)))
    for name in context.spec.evaluate.baselines:
        predictions = _pooled(model, usable, done, f"test.{name}")
        about = judging(f"{FOLDS}.{name}", predictions, f"{FOLDS}/baseline/{name}")
        stage.find(*findings_of(predictions, about), *differences(model, predictions, about))


def _pooled(whole: Folding | pl.DataFrame, usable: list[Fold], done: list[RunDir], name: str) -> pl.DataFrame:
    """The predictions of all folds in the order of the rows, with the number of the fold of each."""
    order = whole.rows if isinstance(whole, Folding) else whole
    number = pl.col("fold").cast(pl.Int64)
    parts = [
        pl.read_parquet(run.path / f"predictions/{name}.parquet").with_columns(pl.lit(fold.number).alias("fold"))
        for fold, run in zip(usable, done, strict=True)
    ]
    return order.select("id").join(pl.concat(parts), on="id", how="inner", maintain_order="left").with_columns(number)


def _trained(context: Context, fold: Fold, stored: Stored, count: int) -> RunDir:
    """The finished small run of a fold, with predictions/; what it needed besides is gone."""
    inputs = sha256_json([stage_inputs(context.rundir, "crossvalidate", version("tunesmith")), fold.number])
    rundir = RunDir(context.rundir.path / "checkpoints/folds" / f"{fold.number}-{inputs[:16]}")
    rundir.path.mkdir(parents=True, exist_ok=True)
    shared = context.store_folder, context.adapted_folder
    inner = Context(context.given, rundir, _watch(context, fold.number, count), context.stop, *shared)
    stages: tuple[tuple[str, Callable[[Context, StageWriter], None]], ...] = (
        ("prepare", partial(_prepare, context, fold, stored)),
        ("inspect", _inspect),
        ("augment", augment.augment),
        ("train", train.train),
        ("evaluate", _evaluate),
    )
    if not rundir.is_finished("evaluate", inputs):
        for name, work in stages:
            if not rundir.is_finished(name, inputs):
                with rundir.stage(name, inputs, {}) as writer:
                    work(inner, writer)
        for name in PASSING:
            shutil.rmtree(rundir.path / name, ignore_errors=True)
    context.watch(Progress("crossvalidate", fold.number, count, "fold"))
    return rundir


def _prepare(context: Context, fold: Fold, stored: Stored, inner: Context, stage: StageWriter) -> None:
    """Files as prepare, resolve and embed would leave them for these rows; what the run knows is not computed again."""
    for split, rows in (("train", fold.train), ("validation", fold.validation), ("test", fold.test)):
        stage.write(f"data/{split}.parquet", rows.write_parquet)
    for name in (*COPIED, *(name for name in (augment.PARAPHRASES, "data/corpus.parquet") if (context.rundir.path / name).exists())):
        shutil.copyfile(context.rundir.path / name, stage.path(name))
        stage.wrote(name)
    for split, numbers in rows_to_embed(inner).items():
        tensors = {"row": torch.tensor(numbers), **_features(context, stored, inner.table(split)[numbers])}
        stage.write(f"features/{split}.safetensors", partial(save_file, tensors))


def _features(context: Context, stored: Stored, rows: pl.DataFrame) -> dict[str, Tensor]:
    """`head_input` and `mean` of these rows: those that are stored, and the others computed."""
    known = rows["id"].is_in(list(stored.place_of))
    places = [stored.place_of[row] for row in rows.filter(known)["id"]]
    if known.all():
        return {name: tensor[places] for name, tensor in stored.tensors.items()}
    rest = rows.filter(~known)
    made = frozen_features(build_model(context.spec, context.task), context.task, context.encoded(rest).leading(range(len(rest))))
    fresh = {"head_input": made.head_input_NE, "mean": made.mean_NE}
    if not places:
        return fresh
    order = torch.cat([torch.tensor(known.arg_true().to_list()), torch.tensor((~known).arg_true().to_list())]).argsort()
    return {name: torch.cat([tensor[places], fresh[name]])[order] for name, tensor in stored.tensors.items()}


def _stored(context: Context) -> Stored:
    ids: list[str] = []
    parts: dict[str, list[Tensor]] = {"head_input": [], "mean": []}
    for split in rows_to_embed(context):
        loaded = load_features(context.rundir.path, split)
        ids += context.table(split)["id"].gather(loaded["row"].tolist()).to_list()
        for name, tensors in parts.items():
            tensors.append(loaded[name])
    return Stored({row: place for place, row in enumerate(ids)}, {name: torch.cat(some) for name, some in parts.items() if some})


def _inspect(inner: Context, stage: StageWriter) -> None:
    """The suspects among the fold's own training rows, where the spec does something about them."""
    rule = inner.given.data.suspects
    table = None if rule is None or isinstance(rule, ReportSuspects) else inspect.suspects(inner)
    if table is not None:
        stage.write("data/suspects.parquet", table.write_parquet)
        stage.find(Finding("labels/changed", "Training rows of the fold treated as the spec says", len(table), "rows"))


def _evaluate(inner: Context, stage: StageWriter) -> None:
    model = load_shipped(inner.task.head, inner.rundir.path / "model", inner.spec.model.trust_remote_code)
    rows = inner.table("test")
    predictions = predict(model, inner.task, rows, inner.encoding("test"), inner.rows_watch("evaluate"))
    if can_be_empty(inner.given, inner.table("train")):
        validation = predict(model, inner.task, inner.table("validation"), inner.encoding("validation"))
        predictions = with_threshold(predictions, best_threshold(validation)[0])
    stage.write("predictions/test.parquet", predictions.write_parquet)
    for name in inner.spec.evaluate.baselines:
        stage.write(f"predictions/test.{name}.parquet", baseline_answers(inner, stage, name).write_parquet)


def _watch(context: Context, number: int, count: int) -> Callable[[Progress], None]:
    """Tells what goes on inside a fold as progress of this stage."""

    def watch(inner: Progress) -> None:
        place = f" {inner.done}/{inner.total} {inner.unit}s" if inner.unit else ""
        note = f"fold {number} of {count}: {inner.stage}{place} {inner.note}".rstrip()
        context.watch(Progress("crossvalidate", number - 1, count, "fold", inner.epoch, inner.loss, note=note))

    return watch


def _about_rows(whole: Folding, folds: list[Fold], used: list[Fold]) -> list[Finding]:
    """Which rows took part, and what became of the others."""
    rows, asked = len(whole.rows), sum(len(fold.test) for fold in used)
    reasons = [f"fold {fold.number}: {fold.problem}" for fold in folds if fold.problem]
    if whole.begins_N is not None:
        reasons.insert(0, f"the oldest {int((whole.fold_N == 0).sum())} rows are only trained on")
    apart = "; ".join(f"{count} rows of the given {split} split" for split, count in whole.apart.items())
    unseen, repeated = sum(fold.unseen for fold in used), sum(fold.repeated for fold in used)
    claims = (
        ("rows", "Rows that took part in cross-validation", rows, None, "the rows of all splits" if not apart else ""),
        ("apart", "Rows that stay apart from cross-validation", sum(whole.apart.values()), None, apart),
        ("not_asked", "Rows that took part and that no model of a fold was asked about", rows - asked, rows, "; ".join(reasons)),
        ("unseen", "Rows of a class that the training rows of their fold lack, so that they must be got wrong", unseen, asked, ""),
        ("repeated", "Near-duplicates dropped from training, added up over folds", repeated, None, ""),
    )
    return [Finding(f"crossvalidate/{name}", claim, value, "rows", n, note=note) for name, claim, value, n, note in claims]


def _about_training(context: Context, usable: list[Fold], done: list[RunDir]) -> list[Finding]:
    """How many rows the models were trained and selected on, and what the spec's rules did in the folds, added up."""
    if not done:
        return []
    told = [run.findings for run in done]
    claims = [
        ("train_rows", "Fewest rows that a model of a fold was trained on", min(len(fold.train) for fold in usable)),
        ("selecting_rows", "Fewest rows that a model of a fold was selected on", min(len(fold.validation) for fold in usable)),
    ]
    for key, name, claim in (
        ("suspects", "labels/changed", "Training rows treated as suspects, added up over folds"),
        ("copies", "augment/kept", "Changed copies that were trained on, added up over folds"),
    ):
        if any(name in findings for findings in told):
            claims.append((key, claim, sum(int(findings[name].value or 0) for findings in told if name in findings)))
    return [Finding(f"crossvalidate/{name}", claim, value, "rows") for name, claim, value in claims]
