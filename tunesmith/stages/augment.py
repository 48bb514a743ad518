"""augment: changed copies of training rows, kept when a regression on frozen features is no worse for them."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.core.records import Finding, Progress, Source
from tunesmith.core.rundir import StageWriter
from tunesmith.data.augment_text import augmented, usable_paraphrases
from tunesmith.data.near import canonical_text, whole_text
from tunesmith.evaluate.answers import answers_from_table
from tunesmith.evaluate.intervals import Estimate, Resampling, paired_differences
from tunesmith.evaluate.metrics import metrics_for
from tunesmith.models.build import build_model
from tunesmith.models.forward import frozen_features
from tunesmith.models.linear import Linear, Penalty, fit_logistic
from tunesmith.models.load import public_id
from tunesmith.spec.schema import Model
from tunesmith.stages.context import Context
from tunesmith.stages.embed import BASELINE_ROWS, load_features, sample_rows
from tunesmith.tasks.base import NOTHING

PARAPHRASES = "data/paraphrases.parquet"
"""What the model said about rows, whether it is used or not. A fold begins with what the run has: no row is asked about twice."""
FAILURES = {
    "too_long": "Copies not paraphrased because the model would not have seen the whole text",
    "unfinished": "Copies not paraphrased because the paraphrase did not end within train.augment.paraphrase.max_new_tokens",
    "empty": "Copies not paraphrased because the paraphrase was empty",
    "unchanged": "Copies not paraphrased because the paraphrase was the text but for case, punctuation or spacing",
    "repeated": "Copies not paraphrased because an earlier copy of the row says the same",
}


def augment(context: Context, stage: StageWriter) -> None:
    """Write data/augmented.parquet (empty when the gate closes) and features/augmented.safetensors, and say which way it went."""
    rule = context.spec.train.augment
    if rule is None:
        context.watch(Progress("augment", 1, 1, note="nothing to do: train.augment is not set"))
        return
    rows = context.table("train")[context.training.rows]
    said = None if rule.paraphrase is None else _paraphrased(context, stage, rows)
    made = augmented(rows, rule.operations, rule.copies, context.given.seed, said)
    unchanged = int(made["unchanged"].sum())
    made = made.filter(~pl.col("unchanged")).drop("unchanged")
    held_out = canonical_text(pl.concat([whole_text(context.table(split)) for split in ("validation", "test")]))
    known = canonical_text(whole_text(made)).is_in(held_out.implode())
    made = made.filter(~known)
    left_out = Finding("augment/in_other_split", "Copies left out because validation or test has their text", int(known.sum()), "rows")
    stage.find(Finding("augment/unchanged", "Copies left out because nothing changed in them", unchanged, "rows", len(rows)), left_out)
    if not len(made):
        _nothing(context, stage, made)
        return
    targets = context.targets_of(made["from"])
    features = frozen_features(
        build_model(context.spec, context.task), context.task, context.encoded(made), context.rows_watch("augment", "copies")
    )
    difference = _difference(context, features.mean_NE, made["from"], targets)
    worse = difference.value is not None and (difference.value < 0) == context.higher_is_better and difference.value != 0
    kept = not (rule.gate and worse)
    used = made if kept else made.clear()
    artefact = stage.write("data/augmented.parquet", used.write_parquet)
    tensors = {"head_input": features.head_input_NE[: len(used)].contiguous()}
    stage.write("features/augmented.safetensors", lambda path: save_file(tensors, path))
    metric = str(context.spec.evaluate.metric)
    claim = f"Validation {metric} of a regression on frozen features with the copies, minus that without, paired by row"
    source: Source = "unknown" if difference.value is None else "computed"
    n = len(context.table("validation"))
    used_by = json.dumps(dict(sorted(made["operations"].explode(empty_as_null=True).drop_nulls().value_counts().iter_rows())))
    stage.find(
        Finding("augment/copies", "Changed copies of training rows", len(made), "rows", len(rows), artefact=artefact, note=used_by),
        Finding("augment/difference", claim, difference.value, "", n, difference.interval, source, note=difference.note),
        Finding(
            "augment/kept", "Copies that were trained on", len(used), "rows", len(made), artefact=artefact, note=_said(rule.gate, worse)
        ),
    )
    context.watch(Progress("augment", 1, 1, note=f"{len(used)} copies kept: {_said(rule.gate, worse)}"))


def _paraphrased(context: Context, stage: StageWriter, rows: pl.DataFrame) -> dict[str, str]:
    """The paraphrases that may be used, by id of the copy; how many failed, and why, becomes findings."""
    from tunesmith.models.paraphrase import paraphrases  # what writes text is loaded only where it is asked for

    rule = context.given.train.augment
    assert rule is not None and rule.paraphrase is not None, "asked for only where the spec has one"
    watch = context.rows_watch("augment", "paraphrases")
    known = pl.read_parquet(context.rundir.path / PARAPHRASES) if (context.rundir.path / PARAPHRASES).exists() else None
    new = rows if known is None else rows.filter(~pl.col("id").is_in(known["from"].implode()))
    made = paraphrases(new, rule.paraphrase, rule.copies, context.given.seed, watch) if len(new) or known is None else known.clear()
    every = made if known is None else pl.concat([known, made])
    stage.write(PARAPHRASES, every.write_parquet)
    said, failed = usable_paraphrases(rows, every.filter(pl.col("from").is_in(rows["id"].implode())))
    asked = len(rows) * rule.copies
    name = public_id(Model(name=rule.paraphrase.model))
    useless = "Copies whose paraphrase was of no use, so that an operation took its place if one is named"
    stage.find(
        Finding("augment/paraphrased", "Copies that a model said in other words", len(said), "rows", asked, note=name),
        Finding("augment/not_paraphrased", useless, sum(failed.values()), "rows", asked),
        *(Finding(f"augment/paraphrase/{reason}", FAILURES[reason], failed.get(reason, 0), "rows", asked) for reason in FAILURES),
    )
    return said


def _nothing(context: Context, stage: StageWriter, made: pl.DataFrame) -> None:
    note = "no operation changed a text that may be used"
    stage.write("data/augmented.parquet", made.write_parquet)
    stage.find(Finding("augment/copies", "Changed copies of training rows", 0, "rows", note=note))
    stage.find(Finding("augment/kept", "Copies that were trained on", 0, "rows", note=note))
    context.watch(Progress("augment", 1, 1, note=note))


def _said(gate: bool, worse: bool) -> str:
    if not gate:
        return "the gate is open, as the spec says"
    return "the gate closed: the validation score fell" if worse else "the validation score did not fall"


def _difference(context: Context, copies_NE: Tensor, origin: pl.Series, targets: np.ndarray) -> Estimate:
    """The paired difference of the deciding metric on validation: regression with the copies minus without."""
    loaded, training = load_features(context.rundir.path, "train"), context.training
    wanted = set(sample_rows(context, BASELINE_ROWS))
    place_of = {row: place for place, row in enumerate(loaded["row"].tolist()) if row in wanted}
    chosen = [number for number, row in enumerate(training.rows) if row in place_of]
    plain_NE = loaded["mean"][[place_of[training.rows[number]] for number in chosen]]
    ids = set(context.table("train")["id"].gather([training.rows[number] for number in chosen]))
    near = [number for number, row in enumerate(origin) if row in ids]
    classes, given = len(context.labels), training.targets[chosen]
    fits = [
        fit_logistic(plain_NE, given, classes, Penalty(1.0)),
        fit_logistic(torch.cat([plain_NE, copies_NE[near]]), np.concatenate([given, targets[near]]), classes, Penalty(1.0)),
    ]
    without, with_copies = (answers_from_table(_answered(context, linear), context.labels) for linear in fits)
    name, options = str(context.spec.evaluate.metric), context.spec.evaluate
    metric = {name: metrics_for(context.given.kind)[name]}
    resampling = Resampling(context.given.seed, options.resamples, options.confidence)
    return paired_differences(with_copies, without, metric, resampling)[name]


def _answered(context: Context, linear: Linear) -> pl.DataFrame:
    held_out = load_features(context.rundir.path, "validation")["mean"]
    return context.table("validation").select("id", "label").hstack(context.task.decode(linear(held_out), NOTHING))
