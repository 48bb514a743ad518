"""From a run and filled-in review files to the spec of a run that applies the decisions. The run itself is not touched."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import RunDir
from tunesmith.data.clean import SPLITS
from tunesmith.data.decide import merged_decisions
from tunesmith.data.review import read_decisions
from tunesmith.spec.load import dump_spec, load_spec, read_yaml


@dataclass(frozen=True)
class Relabelled:
    """The text of the new spec, its run's name, what to tell, and entries that could not be used."""

    text: str
    name: str
    rows: list[tuple[str, str]]
    issues: tuple[Issue, ...]


def relabelled_spec(run: RunDir, reviews: list[Path], name: str | None) -> Relabelled:
    """The spec of `run` with the review files among its decisions; its paths count from the current directory, as the run's do.

    Raises:
        DataError: a file cannot be read, or decides nothing.
    """
    ids = [identity for split in SPLITS for identity in pl.read_parquet(run.path / f"data/{split}.parquet")["id"]]
    labels = json.loads((run.path / "data/labels.json").read_text("utf-8"))
    read = [read_decisions(path, ids, labels) for path in reviews]
    issues = tuple(issue for found in read for issue in found.issues)
    decided = merged_decisions([found.decided for found in read])
    if not decided:
        remedy = "Fill in the column decision: keep, drop, relabel, or relabel(another label)."
        raise DataError([*issues, Issue(", ".join(map(str, reviews)), "must hold decisions", "none that can be used", remedy)])
    given = load_spec(read_yaml(run.path / "spec.yaml"))
    files = (*(given.data.decisions or ()), *(os.path.relpath(path) for path in reviews))
    new = name or f"{given.name}-relabelled"
    data = given.data.model_copy(update={"decisions": tuple(dict.fromkeys(files))})
    spec = given.model_copy(update={"name": new, "data": data})
    counts, names = Counter(d.action for d in decided.values()), Counter(d.reviewer or "unnamed" for d in decided.values())
    rows = [
        ("decisions", ", ".join(f"{counts[action]} {action}" for action in ("keep", "relabel", "drop"))),
        ("by", ", ".join(f"{who} {n}" for who, n in names.most_common())),
        ("not decided", str(sum(found.undecided for found in read))),
    ]
    header = f"# The spec of {run.path} with the decisions of {', '.join(path.name for path in reviews)}.\n"
    return Relabelled(header + dump_spec(spec), new, rows, issues)
