"""Decisions of reviewers, applied to the rows before they are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from tunesmith.core.records import Issue
from tunesmith.data.clean import empty_dropped, in_order, without_reviewed
from tunesmith.data.profile import label_counts
from tunesmith.data.review import Decision, Decisions, apply, read_decisions
from tunesmith.spec.check import matching_files
from tunesmith.spec.schema import Data


@dataclass(frozen=True)
class Decided:
    """What reviewers decided: counts and reviewers, JSON-ready (None without review files), and entries that could not be used."""

    told: dict[str, Any] | None
    issues: tuple[Issue, ...] = ()


def decide(kept: dict[str, pl.DataFrame], data: Data) -> tuple[dict[str, pl.DataFrame], pl.DataFrame, Decided]:
    """The tables after the decisions of the review files; the rows dropped by them; what was decided by whom.

    Raises:
        DataError: a file cannot be read.
    """
    if data.decisions is None:
        return kept, empty_dropped(), Decided(None)
    rows = in_order(kept)
    labels = list(label_counts(rows["label"]))
    files = [Path(path) for pattern in data.decisions for path in matching_files(pattern)]
    read = [read_decisions(path, rows["id"].to_list(), labels) for path in files]
    decided = merged_decisions([found.decided for found in read])
    dropped = {d.id: ": ".join(filter(None, [d.reviewer, d.note])) for d in decided.values() if d.action == "drop"}
    everything = Decisions(decided, 0, 0, ())
    out, gone = {}, []
    for name, table in kept.items():
        out[name], left = without_reviewed(table, dropped)
        out[name] = apply(out[name], everything).rows
        gone.append(left)
    told = {
        **{action: sum(d.action == action for d in decided.values()) for action in ("keep", "relabel", "drop")},
        "undecided": sum(found.undecided for found in read),
        "unusable": sum(len(found.issues) for found in read),
        "reviewers": _reviewers(decided),
        "stay": sorted(d.id for d in decided.values() if d.action != "drop"),
    }
    issues = tuple(replace(issue, fatal=False) for found in read for issue in found.issues)
    return out, pl.concat(gone), Decided(told, issues)


def merged_decisions(files: Sequence[Mapping[str, Decision]]) -> dict[str, Decision]:
    """The decisions of several files as one; a later file overrules an earlier one."""
    return {row: decision for decided in files for row, decision in decided.items()}


def _reviewers(decided: Mapping[str, Decision]) -> list[dict[str, Any]]:
    """Who decided how many rows, and between which times, as the files say; an empty name for entries without one."""
    by_name: dict[str, list[str]] = {}
    for decision in decided.values():
        by_name.setdefault(decision.reviewer, []).append(decision.time)
    return [
        {"name": name, "decisions": len(times), "first": min(filter(None, times), default=""), "last": max(filter(None, times), default="")}
        for name, times in sorted(by_name.items())
    ]
