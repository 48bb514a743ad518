"""resolve: fill every open value of the spec from the data and the model."""

from __future__ import annotations

import json
from dataclasses import replace

import torch

from tunesmith.core.records import Finding, Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.models.advise import gather
from tunesmith.models.load import check_masked, device, is_embedder, load_config
from tunesmith.spec.defaults import resolve as fill
from tunesmith.spec.defaults import with_reading
from tunesmith.stages.context import SPLITS, Context
from tunesmith.stages.find_rate import FILE as RANGE_FILE
from tunesmith.stages.find_rate import find_rate
from tunesmith.stages.teacher import check_teacher
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.make import make_task
from tunesmith.tasks.masking import IGNORED
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.tasks.windows import WINDOW
from tunesmith.train.precision import measure_rates


def resolve(context: Context, stage: StageWriter) -> None:
    """Write resolved.yaml; count the rows whose text is longer than the model will see."""
    if context.given.model.adapt is not None or context.given.kind == "masked":
        check_masked(context.given.model)
    rates = measure_rates(torch.device(device()))
    config = load_config(context.given.model)
    splits = {split: context.table(split) for split in SPLITS}
    embeds = is_embedder(context.given.model)
    task = make_task(with_reading(context.given, embeds), context.labels, splits["train"], corpus=context.corpus)
    facts, lengths = gather(task, splits, context.processor, config, rates.fast_bfloat16)
    facts = replace(facts, embeds=embeds)
    check_teacher(context.given, context.labels, "text_pair" in splits["train"].columns)
    facts, test = find_rate(context.given, facts, task, splits["train"], context.processor)
    if test is not None:
        tested = stage.write_text(RANGE_FILE, json.dumps({"rates": test.rates, "losses": test.losses}))
        claim = "Learning rate after a range test"
        stage.find(Finding("train/range_test", claim, test.rate, n=len(test.rates), source="measured", artefact=tested, note=test.rule))
    artefact = stage.write_text("resolved.yaml", fill(context.given, facts).as_yaml())
    stage.find(*lengths.findings())
    stage.find(
        Finding(
            "environment/float32_gflops", "Matrix-multiplication rate in float32", round(rates.float32, 1), "GFLOP/s", source="measured"
        ),
        Finding(
            "environment/bfloat16_gflops", "Matrix-multiplication rate in bfloat16", round(rates.bfloat16, 1), "GFLOP/s", source="measured"
        ),
    )
    for split in SPLITS:
        encoding = context.encoding(split)
        claim = f"Rows of the {split} split whose text was cut"
        stage.find(
            Finding(f"data/truncated/{split}", claim, encoding.cut, "rows", len(encoding.rows), source="measured", artefact=artefact)
        )
    if context.given.kind == "masked":
        stage.find(*(finding for split in SPLITS for finding in _windows(context, split)))
    if isinstance(context.task, TokenClassification):
        stage.find(*(_widened(context, context.task, split) for split in SPLITS))
    for split in SPLITS if context.given.kind == "text" else ():
        encoding = context.encoding(split)
        claim = f"Targets of the {split} split that are longer than an answer may be, and were cut"
        counted = (encoding.cut_targets, "rows", len(encoding.rows))
        stage.find(Finding(f"data/truncated_targets/{split}", claim, *counted, source="measured", artefact=artefact))
    if isinstance(context.task, FeatureExtraction):
        claim, cut = "Texts of the corpus that were cut", context.task.cut_texts(context.processor, int(context.spec.model.max_length or 0))
        stage.find(Finding("data/truncated_corpus", claim, cut, "texts", len(context.corpus), source="measured", artefact=artefact))
    context.watch(Progress("resolve", 1, 1, note=f"at most {context.spec.model.max_length} tokens a row"))


def _windows(context: Context, split: str) -> list[Finding]:
    """How many windows the texts of a split are read in, and how many have no token that could be masked."""
    rows, counted = context.table(split), context.encoding(split).rows
    asked = {row[WINDOW].row for row in counted if any(label != IGNORED for label in row["labels"])}
    nothing = f"Texts of the {split} split with no token that could be masked, which count for nothing"
    return [
        Finding(
            f"data/windows/{split}", f"Windows over the texts of the {split} split", len(counted), "windows", len(rows), source="measured"
        ),
        Finding(f"data/unmaskable/{split}", nothing, len(rows) - len(asked), "rows", len(rows), source="measured"),
    ]


def _widened(context: Context, task: TokenClassification, split: str) -> Finding:
    """How many spans of a split are trained on with other words than they were labelled with; no answer can be right about them."""
    rows = context.table(split)
    claim = f"Labelled spans of the {split} split that hold a part of a word, and so are learned wider, or not at all"
    count = task.widened_spans(rows, context.encoding(split))
    return Finding(f"data/widened_spans/{split}", claim, count, "spans", int(rows["label"].list.len().sum()), source="measured")
