"""Verification with everything it needs: rendering for level 0, predictions from the saved weights for level 2."""

from __future__ import annotations

import polars as pl

from tunesmith.core.rundir import RunDir
from tunesmith.document.document import render
from tunesmith.document.verify import Verification, verify
from tunesmith.serve.predictor import Predictor
from tunesmith.stages.context import STAGE_NAMES, stage_inputs


def verify_run(rundir: RunDir, level: int) -> Verification:
    """Every check of the levels up to `level`."""
    loaded: list[Predictor] = []

    def predict(run: RunDir, split: str) -> pl.DataFrame:
        if not loaded:
            loaded.append(Predictor(run))
        return loaded[0].predict_frame(pl.read_parquet(run.path / f"data/{split}.parquet"))

    def inputs(run: RunDir) -> dict[str, str]:
        stages = run.manifest["stages"]
        return {name: stage_inputs(run, name, stages[name]["versions"]["tunesmith"]) for name in STAGE_NAMES if name in stages}

    return verify(rundir.path, level, predict, render, inputs)
