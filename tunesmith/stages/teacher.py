"""The teacher of a run: a finished run whose answers on this run's rows are computed once and kept in its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core.errors import RunError
from tunesmith.core.records import Finding, Issue
from tunesmith.core.rundir import RunDir, StageWriter, existing_run, sha256_json
from tunesmith.models.forward import predict_logits
from tunesmith.serve.predictor import Predictor
from tunesmith.spec.defaults import read_resolved
from tunesmith.spec.schema import Spec
from tunesmith.stages.context import Context

FILE = "features/teacher.safetensors"


def check_teacher(spec: Spec, labels: list[str], pair: bool) -> None:
    """Nothing, when the spec names no teacher, or one that can teach these labels.

    Raises:
        RunError: it is no finished run, or learned another task or other labels.
    """
    if spec.train.distill is None:
        return
    run, where = existing_run(Path(spec.train.distill.teacher)), "train.distill.teacher"
    if "train" not in run.manifest.get("stages", {}):
        raise RunError(Issue(where, "must be a finished run", f"{run.path}: no trained model yet", "Finish it first."))
    theirs, words = read_resolved(run.path / "resolved.yaml"), json.loads((run.path / "data/labels.json").read_text("utf-8"))
    columns = json.loads((run.path / "data/profile.json").read_text("utf-8"))["columns"]["text"]
    found = []
    if str(theirs.task) != str(spec.task):
        found.append(f"task {theirs.task}")
    if theirs.data.multi_label != spec.data.multi_label:
        found.append("several labels a row" if theirs.data.multi_label else "one label a row")
    if (len(columns) == 2) != pair:
        found.append("pairs of texts" if len(columns) == 2 else "single texts")
    if set(words) != set(labels):
        odd = sorted(set(words) ^ set(labels))
        found.append(f"{len(odd)} labels that only one of the two has, such as {odd[0]!r}")
    if found:
        raise RunError(Issue(where, "must have the same task and the same labels", "; ".join(found), "Name another run."))


def teacher_answers(context: Context, stage: StageWriter) -> dict[str, Tensor]:
    """The teacher's logits on the training rows (with copies) and the validation rows, in this run's order of labels.

    They are computed once: a file of this run that was made from the same rows and the same teacher is read instead.
    """
    assert context.spec.train.distill is not None
    run = RunDir(Path(context.spec.train.distill.teacher))
    rows = {"train": _training_rows(context), "validation": context.table("validation")}
    weights = run.findings["model/weights_sha256"].value
    key = sha256_json([weights, context.labels, *(part["id"].to_list() for part in rows.values()), rows["train"]["text"].to_list()])
    path = stage.path(FILE)
    answers = _kept(path, key)
    if answers is None:
        teacher = Predictor(run)
        order = [teacher.labels.index(label) for label in context.labels]
        answers = {
            name: predict_logits(teacher.model, teacher.task, teacher.encoded(part), context.rows_watch("train", f"teacher, {name}"))[
                :, order
            ]
            for name, part in rows.items()
        }
        stage.write(FILE, lambda target: save_file({n: v.contiguous() for n, v in answers.items()}, target, {"key": key}))
    stage.wrote(FILE)
    stage.find(*_findings(context, run, answers))
    return answers


def pupil_finding(context: Context, pupil_NC: Tensor, teacher_NC: Tensor) -> Finding:
    """How often the trained model and its teacher agree on validation rows."""
    return _agreement(
        "distill/agreement",
        "Validation decisions on which the model and its teacher agree",
        _said(context, pupil_NC),
        _said(context, teacher_NC),
    )


def _training_rows(context: Context) -> pl.DataFrame:
    table = context.table("train")[context.training.rows]
    names = ["id", *(name for name in ("text", "text_pair") if name in table.columns)]
    return pl.concat([table.select(names), context.copies.select(names)]) if len(context.copies) else table.select(names)


def _kept(path: Path, key: str) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("key") != key:
            return None
    answers: dict[str, Tensor] = load_file(path)
    return answers


def _said(context: Context, logits_NC: Tensor) -> Tensor:
    """Decisions: class ids (N,), or a 0/1 matrix (N, C)."""
    return (logits_NC > 0).long() if context.given.data.multi_label else logits_NC.argmax(-1)


def _agreement(name: str, claim: str, one: Tensor, other: Tensor) -> Finding:
    return Finding(name, claim, float((one == other).double().mean()), n=len(one), source="measured")


def _findings(context: Context, run: RunDir, answers: dict[str, Tensor]) -> list[Finding]:
    metric, known = context.spec.evaluate.metric, run.findings
    targets = torch.from_numpy(np.stack([row["labels"] for row in context.training_encoding().rows])).long()
    tested = known.get(f"test/{metric}")
    seen = set(pl.read_parquet(run.path / "data/train.parquet", columns=["id"])["id"])
    leaks = sum(row in seen for split in ("validation", "test") for row in context.table(split)["id"])
    judged = len(context.table("validation")) + len(context.table("test"))
    found = [
        Finding("distill/teacher", "Run whose answers were learned", run.path.name, source="declared", note=str(known["model/name"].value)),
        Finding(
            "distill/teacher_score",
            f"Validation {metric} of the teacher",
            context.score(answers["validation"]),
            n=len(answers["validation"]),
            source="measured",
        ),
        _agreement(
            "distill/teacher_labels",
            "Training decisions on which the teacher and the labels agree",
            _said(context, answers["train"]),
            targets,
        ),
        Finding("distill/known_rows", "Validation and test rows that the teacher was trained on", leaks, "rows", judged),
    ]
    if tested is not None:
        found.append(
            Finding(
                "distill/teacher_test_score",
                f"Test {metric} of the teacher, on its own test rows",
                tested.value,
                n=tested.n,
                interval=tested.interval,
                source="read",
            )
        )
    return found
