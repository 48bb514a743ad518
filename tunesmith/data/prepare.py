"""The data path in order: load, choose columns, clean, split, profile. Then the files of the prepare stage."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Finding, Issue
from tunesmith.core.rundir import StageWriter, sha256_file
from tunesmith.data.clean import SPLITS, Cleaned, clean, clean_across, without_unknown_labels
from tunesmith.data.columns import Columns, check_labels, choose_columns, plain_table, require_columns
from tunesmith.data.load import Loaded, load
from tunesmith.data.profile import Story, findings, label_counts, pointers, profile
from tunesmith.data.split import Split, split
from tunesmith.spec.check import matching_files
from tunesmith.spec.schema import Data, Spec


@dataclass(frozen=True)
class Prepared:
    """Clean splits, the rows that left, the classes, and what there is to say about them. `issues` are warnings."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    dropped: pl.DataFrame
    labels: list[str]
    profile: dict[str, Any]
    findings: list[Finding]
    issues: list[Issue]

    @property
    def is_pair(self) -> bool:
        """True when a row has two texts."""
        return "text_pair" in self.train.columns

    @property
    def is_multi_label(self) -> bool:
        """True when a row has a list of labels."""
        return self.train.schema["label"] == pl.List


def prepare(spec: Spec) -> Prepared:
    """Tables of the spec as clean splits.

    Raises:
        DataError: with every problem that makes training impossible.
    """
    loaded = _load(spec.data)
    columns, tables = _plain(loaded, spec.data)
    files = {name: table.files for name, table in loaded.items()}
    warnings = [issue for table in loaded.values() for issue in table.issues]
    del loaded
    issues = check_labels(tables["train"]["label"])
    if issues:
        raise DataError(issues)
    cleaned = {name: clean(tables.pop(name), spec.data.on_conflict) for name in list(tables)}
    kept, across = clean_across({name: part.kept for name, part in cleaned.items()})
    parts = _split(kept, spec)
    splits, unknown = without_unknown_labels({"train": parts.train, "validation": parts.validation, "test": parts.test})
    dropped = pl.concat([*(part.dropped for part in cleaned.values()), across, unknown], how="diagonal")
    _refuse_too_few(splits, dropped, spec.data)
    warnings += _warnings(splits, cleaned, parts)
    labels = sorted(label_counts(splits["train"]["label"]))
    normalised = sum(part.normalised for part in cleaned.values())
    story = Story(files, columns, normalised, across.height, parts.moved, parts.rare_classes, parts.rare_rows, tuple(warnings))
    content = profile(splits, dropped, labels, story)
    return Prepared(splits["train"], splits["validation"], splits["test"], dropped, labels, content, findings(content), warnings)


def write(prepared: Prepared, stage: StageWriter) -> None:
    """Write the files of data/ and add the findings, each with the artefact that its value stands in."""
    tables = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test, "dropped": prepared.dropped}
    for name, table in tables.items():
        stage.write(f"data/{name}.parquet", table.write_parquet)
    stage.write_text("data/labels.json", json.dumps(prepared.labels, ensure_ascii=False, indent=1) + "\n")
    artefact = stage.write_text("data/profile.json", json.dumps(prepared.profile, ensure_ascii=False, indent=1) + "\n")
    where = pointers(prepared.profile)
    stage.find(*(replace(finding, artefact=replace(artefact, pointer=where[finding.id])) for finding in prepared.findings))


def input_hashes(data: Data) -> dict[str, str]:
    """SHA-256 of every file that the spec's data paths name: what the prepare stage depends on besides the spec."""
    patterns = [pattern for patterns in (data.train, data.validation, data.test) for pattern in patterns or ()]
    return {path: sha256_file(Path(path)) for pattern in patterns for path in matching_files(pattern)}


def _load(data: Data) -> dict[str, Loaded]:
    loaded, issues = {}, []
    for name, patterns in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        if patterns is not None:
            try:
                loaded[name] = load(patterns, data)
            except DataError as error:
                issues += [issue for issue in error.issues if issue not in issues]
    if issues:
        raise DataError(issues)
    return loaded


def _plain(loaded: dict[str, Loaded], data: Data) -> tuple[Columns, dict[str, pl.DataFrame]]:
    columns = choose_columns(loaded["train"].table, data)
    issues = [issue for name in loaded for issue in require_columns(loaded[name].table, columns, name)]
    if issues:
        raise DataError(issues)
    return columns, {name: plain_table(part.table, columns, data) for name, part in loaded.items()}


def _split(kept: dict[str, pl.DataFrame], spec: Spec) -> Split:
    """Splits that are given stay; those that are not are cut from the training table."""
    shares = {name: 0.0 if name in kept else spec.data.model_dump()[f"{name}_share"] for name in ("validation", "test")}
    parts = split(kept["train"], spec.seed, shares["validation"], shares["test"])
    return replace(parts, validation=kept.get("validation", parts.validation), test=kept.get("test", parts.test))


def _refuse_too_few(splits: dict[str, pl.DataFrame], dropped: pl.DataFrame, data: Data) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped["reason"].value_counts().iter_rows()))
    after = f" after {dropped.height} were dropped ({reasons})" if dropped.height else ""
    issues = []
    for name in SPLITS:
        if splits[name].height == 0:
            remedy = "Add labelled rows: a class needs three to be in every split." if not data.model_dump()[name] else "Check that table."
            issues.append(Issue(f"the {name} split", "must have rows", f"none{after}", remedy))
    classes = label_counts(splits["train"]["label"])
    if splits["train"].height and len(classes) < 2:
        found = f"{len(classes)}{after}"
        issues.append(Issue("the train split", "must have at least two classes", found, "Add rows of other classes, or set data.label."))
    if issues:
        raise DataError(issues)


def _warnings(splits: dict[str, pl.DataFrame], cleaned: dict[str, Cleaned], parts: Split) -> list[Issue]:
    """What does not stop a run but should be known before its score is believed."""
    issues = []
    if parts.rare_classes:
        names = ", ".join(parts.rare_classes[:5]) + (", …" if len(parts.rare_classes) > 5 else "")
        found = f"{len(parts.rare_classes)} with fewer: {names}"
        issues.append(
            Issue(
                "data.train",
                "should have three rows or more of each class",
                found,
                "They stay in training and are not tested.",
                fatal=False,
            )
        )
    classes = label_counts(splits["train"]["label"])
    lower: dict[str, list[str]] = {}
    for name in sorted(classes):
        lower.setdefault(name.casefold(), []).append(name)
    for same in (group for group in lower.values() if len(group) > 1):
        issues.append(
            Issue("data.label", "should spell a class one way", " and ".join(same), "They are learned as different classes.", fatal=False)
        )
    for name in ("validation", "test"):
        missing = sorted(set(classes) - set(label_counts(splits[name]["label"])) - set(parts.rare_classes))
        if missing:
            found = f"none of {len(missing)}: {', '.join(missing[:5])}" + (", …" if len(missing) > 5 else "")
            issues.append(Issue(f"the {name} split", "should have rows of every class", found, "Their scores are unknown.", fatal=False))
    share = sum(part.dropped.height for part in cleaned.values()) / max(
        1, sum(part.kept.height + part.dropped.height for part in cleaned.values())
    )
    if share > 0.2:
        issues.append(
            Issue(
                "data", "should lose few rows to cleaning", f"{share:.0%} dropped", "See data/dropped.parquet for the reasons.", fatal=False
            )
        )
    return issues
