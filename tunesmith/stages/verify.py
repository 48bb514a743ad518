"""Verification with everything it needs: rendering for level 0, predictions from the saved weights for level 2."""

from __future__ import annotations

import polars as pl

from tunesmith.core.rundir import RunDir
from tunesmith.document.document import render
from tunesmith.document.verify import Verification, verify
from tunesmith.evaluate.predict import predict as predict_rows
from tunesmith.serve.predictor import Predictor
from tunesmith.stages.context import STAGE_NAMES, stage_inputs
from tunesmith.tasks.make import make_task


def verify_run(rundir: RunDir, level: int) -> Verification:
    """Every check of the levels up to `level`."""
    loaded: list[Predictor] = []

    def predict(run: RunDir, split: str) -> pl.DataFrame:
        if not loaded:
            loaded.append(Predictor(run))
        rows = pl.read_parquet(run.path / f"data/{split}.parquet")
        return _judged(loaded[0], run, rows) if loaded[0].task.kind in ("relevant", "masked") else loaded[0].predict_frame(rows)

    def inputs(run: RunDir) -> dict[str, str]:
        stages = run.manifest["stages"]
        return {name: stage_inputs(run, name, stages[name]["versions"]["tunesmith"]) for name in STAGE_NAMES if name in stages}

    return verify(rundir.path, level, predict, render, inputs)


def _judged(predictor: Predictor, run: RunDir, rows: pl.DataFrame) -> pl.DataFrame:
    """What is said of rows with their labels: what queries find among the texts of the run, or what stands under the masks of the run."""
    path = run.path / "data/corpus.parquet"
    corpus = pl.read_parquet(path)["text"].to_list() if path.exists() else []
    task = make_task(predictor.spec, predictor.labels, rows, corpus=corpus)
    assert predictor.spec.model.max_length, "resolved specs have a length"
    return predict_rows(predictor.model, task, rows, task.encode(rows, predictor.processor, predictor.spec.model.max_length))
