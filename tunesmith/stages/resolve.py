"""resolve: fill every open value of the spec from the data and the model."""

from __future__ import annotations

import torch

from tunesmith.core.records import Finding, Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.models.advise import gather
from tunesmith.models.load import device, load_config
from tunesmith.spec.defaults import resolve as fill
from tunesmith.stages.context import SPLITS, Context
from tunesmith.train.precision import measure_rates


def resolve(context: Context, stage: StageWriter) -> None:
    """Write resolved.yaml; count the rows whose text is longer than the model will see."""
    rates = measure_rates(torch.device(device()))
    config = load_config(context.given.model)
    splits = {split: context.table(split) for split in SPLITS}
    facts, lengths = gather(context.task, splits, context.processor, config, rates.fast_bfloat16)
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
    context.watch(Progress("resolve", 1, 1, note=f"at most {context.spec.model.max_length} tokens a row"))
