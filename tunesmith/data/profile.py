"""What the data looked like: profile.json, and the findings that point into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunesmith.core.records import Finding, Issue
from tunesmith.data.clean import EXPLANATIONS, SPLITS, Reason
from tunesmith.data.columns import Columns
from tunesmith.data.consensus import agreement_findings
from tunesmith.data.label_forms import has_classes
from tunesmith.data.load import FileRecord
from tunesmith.data.marked import SPANS
from tunesmith.data.numbers import described
from tunesmith.data.relevant import described as described_relevant
from tunesmith.data.spans import described as described_answers
from tunesmith.data.split import Split
from tunesmith.data.targets import told_targets
from tunesmith.data.uniform import Uniform

QUANTILES = {"p1": 0.01, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99, "max": 1.0}
EXAMPLES = 5
EXAMPLE_CHARACTERS = 300
DECISIONS = {
    "keep": "rows whose label a reviewer confirmed",
    "relabel": "rows that a reviewer gave another label",
    "drop": "rows that a reviewer dropped",
    "undecided": "entries of review files without a usable decision",
}
SOURCE_COUNTS = {"kept": "rows kept of this source of training rows", "left_out": "rows left out of this source because of its weight"}
TARGETS = {
    "min": "the shortest target",
    "p50": "half of the targets have at most",
    "p99": "nearly all targets have at most",
    "max": "the longest target",
    "same": "targets that are the text itself",
}
JUDGED = {"relevant": "texts that are relevant to a query", "wrong": "texts that were judged not relevant to a query"}
SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Story:
    """What happened on the way from files to splits, besides the rows themselves."""

    files: Mapping[str, tuple[FileRecord, ...]]
    columns: Columns
    normalised: int
    across: int
    parts: Split
    issues: tuple[Issue, ...]
    alike: dict[str, Any]
    decisions: dict[str, Any] | None
    uniform: Uniform
    survey: dict[str, Any]
    sources: list[dict[str, Any]]
    annotators: dict[str, Any] | None


def profile(splits: Mapping[str, pl.DataFrame], dropped: pl.DataFrame, labels: list[str], story: Story) -> dict[str, Any]:
    """Content of profile.json: JSON-ready, every number in it counted from the tables."""
    reasons = dict(dropped["reason"].value_counts().iter_rows())
    return {
        "files": {name: [file.as_dict() for file in files] for name, files in story.files.items()},
        "sources": story.sources,
        "columns": {
            "text": list(story.columns.text),
            "label": story.columns.label,
            "found": story.columns.found,
            "kind": story.columns.kind,
            "why": story.columns.why,
        },
        "rows": {
            "read": sum(file.rows for files in story.files.values() for file in files),
            **{name: splits[name].height for name in SPLITS},
            "dropped": dropped.height,
        },
        "dropped": {str(reason): {"rows": reasons.get(str(reason), 0), "explanation": EXPLANATIONS[reason]} for reason in Reason},
        "duplicates_across_splits": story.across,
        "normalised_texts": story.normalised,
        "split": {
            "moved": story.parts.moved,
            "large_units": story.parts.large,
            "rare_rows": story.parts.rare_rows,
            "rare_class_count": len(story.parts.rare_classes),
        },
        "rare_classes": list(story.parts.rare_classes),
        "alike": story.alike,
        "decisions": story.decisions,
        "standardise": {
            "rows": story.uniform.looked_at,
            "proposals": story.uniform.proposals,
            "applied": story.uniform.applied,
            "masked": story.uniform.masked,
        },
        "survey": story.survey,
        "annotators": story.annotators,
        "class_count": len(labels),
        "classes": _classes(splits, labels),
        "numbers": {name: described(splits[name]["label"]) for name in SPLITS} if story.columns.kind == "number" else None,
        "answers": {name: described_answers(splits[name]["label"]) for name in SPLITS} if story.columns.kind == "answers" else None,
        "contexts": splits["train"]["text_pair"].n_unique() if story.columns.kind == "answers" else None,
        "relevant": {name: described_relevant(splits[name]["label"]) for name in SPLITS} if story.columns.kind == "relevant" else None,
        "corpus": None,
        "targets": {name: told_targets(splits[name]) for name in SPLITS} if story.columns.kind == "text" else None,
        "characters": {name: _lengths(splits[name]) for name in SPLITS},
        "examples": _examples(splits["train"]),
        "warnings": [str(issue) for issue in story.issues],
        "warning_count": len(story.issues),
    }


def findings(profile: Mapping[str, Any]) -> list[Finding]:
    """The data/* findings of a profile. Their order and ids are stable; `pointer_of` says where each value is."""
    rows, out = profile["rows"], []
    out.append(_count("data/rows/read", "rows read from the given files", rows["read"], "rows"))
    for name in SPLITS:
        out.append(_count(f"data/rows/{name}", f"rows in the {SPLIT_NAMES[name]} split", rows[name], "rows", rows["read"]))
    out.append(_count("data/rows/dropped", "rows dropped, each with its reason", rows["dropped"], "rows", rows["read"]))
    for reason in Reason:
        claim = f"rows dropped: {EXPLANATIONS[reason][0].lower()}{EXPLANATIONS[reason][1:].rstrip('.')}"
        out.append(_count(f"data/dropped/{reason}", claim, profile["dropped"][reason]["rows"], "rows", rows["read"]))
    out += _label_findings(profile)
    for entry in profile["sources"]:
        for name, words in SOURCE_COUNTS.items():
            out.append(_count(f"data/sources/{entry['name']}/{name}", words, entry[name], "rows", entry["rows"]))
    claim = "rows dropped because given splits share their text"
    out.append(_count("data/duplicates_across_splits", claim, profile["duplicates_across_splits"], "rows", rows["read"]))
    claim = "texts changed by cleaning: Unicode form, whitespace, control characters"
    out.append(_count("data/normalised_texts", claim, profile["normalised_texts"], "texts", rows["read"]))
    claim = "rows whose split was changed so that every class with enough rows is in every split"
    out.append(_count("data/split/moved", claim, profile["split"]["moved"], "rows", rows["read"]))
    claim = "clusters or groups kept in training because they are larger than the split they were drawn for"
    out.append(_count("data/split/large_units", claim, profile["split"]["large_units"], "units"))
    claim = "rows kept in training because their class has too few rows to split"
    out.append(_count("data/split/rare_rows", claim, profile["split"]["rare_rows"], "rows", rows["read"]))
    claim = "classes with too few rows to be tested"
    out.append(_count("data/split/rare_classes", claim, profile["split"]["rare_class_count"], "classes"))
    for name in ("p50", "p99", "max"):
        words = {"p50": "half of the training texts are", "p99": "nearly all training texts are", "max": "the longest training text is"}[
            name
        ]
        out.append(
            Finding(
                f"data/characters/{name}", f"{words} at most this long", profile["characters"]["train"][name], "characters", rows["train"]
            )
        )
    for entry in profile["standardise"]["applied"]:
        claim = f"rows whose {entry['column']} the rule {entry['name']} changed"
        out.append(_count(f"data/standardised/{entry['column']}/{entry['name']}", claim, entry["rows"], "rows", rows["read"]))
    for kind, matches in profile["standardise"]["masked"].items():
        out.append(_count(f"data/masked/{kind}", f"matches of {kind} that were masked", matches, "matches", rows["read"]))
    personal = profile["survey"]["personal"]
    claim = "rows with personal data, of those looked at"
    out.append(_count("data/personal/rows", claim, personal["rows_with"], "rows", personal["rows"]))
    for action, words in DECISIONS.items() if profile["decisions"] else ():
        out.append(_count(f"data/decisions/{action}", words, profile["decisions"][action], "rows"))
    for entry in profile["decisions"]["reviewers"] if profile["decisions"] else ():
        when = f"from {entry['first']} to {entry['last']}" if entry["first"] else "the review file says no time"
        name = entry["name"] or "unnamed"
        out.append(Finding(f"data/decisions/reviewer/{name}", f"rows that {name} decided about", entry["decisions"], "rows", note=when))
    out += [finding for finding, _ in agreement_findings(profile["annotators"])] if profile["annotators"] else []
    for entry in profile["classes"]:
        for name in SPLITS:
            claim = f"rows of this class in the {SPLIT_NAMES[name]} split"
            out.append(_count(f"data/class/{entry['label']}/{name}", claim, entry[name], "rows", rows[name]))
    out.append(_count("data/warnings", "warnings about the data", profile["warning_count"], "warnings"))
    return out


def _label_findings(profile: Mapping[str, Any]) -> list[Finding]:
    """What the labels are, by their kind."""
    out: list[Finding] = []
    if profile["numbers"]:
        return [_number(split, name, value) for split, told in profile["numbers"].items() for name, value in told.items() if name != "rows"]
    if profile["answers"]:
        for split, told in profile["answers"].items():
            claim = f"questions of the {SPLIT_NAMES[split]} split whose text holds no answer"
            out.append(_count(f"data/without_answer/{split}", claim, told["without"], "rows", told["rows"]))
        return [*out, _count("data/contexts", "different texts that the training questions are about", profile["contexts"], "texts")]
    if profile["relevant"]:
        for split, told in profile["relevant"].items():
            for key, words in JUDGED.items():
                out.append(_count(f"data/{key}/{split}", f"{words}, {SPLIT_NAMES[split]} split", told[key], "pairs", told["rows"]))
        return [*out, _count("data/corpus", "different texts that queries are ranked against", profile["corpus"], "texts")]
    if profile["columns"]["kind"] == "masked":
        return out
    if profile["targets"]:
        for split, told in profile["targets"].items():
            for key in (key for key in TARGETS if told[key] is not None):
                unit = "rows" if key == "same" else "characters"
                out.append(
                    _count(f"data/targets/{split}/{key}", f"{TARGETS[key]}, {SPLIT_NAMES[split]} split", told[key], unit, told["rows"])
                )
        return out
    return [_count("data/classes", "classes that the model learns", profile["class_count"], "classes")]


def pointers(profile: Mapping[str, Any]) -> dict[str, str]:
    """JSON pointer (RFC 6901) into profile.json for every finding whose value stands there as a number."""
    where = {f"data/rows/{name}": f"/rows/{name}" for name in profile["rows"]}
    where |= {f"data/dropped/{reason}": f"/dropped/{reason}/rows" for reason in Reason}
    where |= {f"data/characters/{name}": f"/characters/train/{name}" for name in QUANTILES}
    where |= {f"data/{name}": f"/{name}" for name in ("duplicates_across_splits", "normalised_texts")}
    where |= {"data/personal/rows": "/survey/personal/rows_with"}
    for number, entry in enumerate(profile["standardise"]["applied"]):
        where[f"data/standardised/{entry['column']}/{entry['name']}"] = f"/standardise/applied/{number}/rows"
    where |= {f"data/masked/{kind}": f"/standardise/masked/{kind}" for kind in profile["standardise"]["masked"]}
    where |= {"data/classes": "/class_count", "data/warnings": "/warning_count"}
    where |= {f"data/numbers/{s}/{name}": f"/numbers/{s}/{name}" for s, told in (profile["numbers"] or {}).items() for name in told}
    where |= {f"data/without_answer/{s}": f"/answers/{s}/without" for s in profile["answers"] or {}} | {"data/contexts": "/contexts"}
    where |= {f"data/{key}/{s}": f"/relevant/{s}/{key}" for s in profile["relevant"] or {} for key in JUDGED} | {"data/corpus": "/corpus"}
    where |= {f"data/targets/{s}/{key}": f"/targets/{s}/{key}" for s in profile["targets"] or {} for key in TARGETS}
    where |= {
        "data/split/moved": "/split/moved",
        "data/split/large_units": "/split/large_units",
        "data/split/rare_rows": "/split/rare_rows",
        "data/split/rare_classes": "/split/rare_class_count",
    }
    if profile["decisions"]:
        where |= {f"data/decisions/{action}": f"/decisions/{action}" for action in DECISIONS}
        for number, entry in enumerate(profile["decisions"]["reviewers"]):
            where[f"data/decisions/reviewer/{entry['name'] or 'unnamed'}"] = f"/decisions/reviewers/{number}/decisions"
    if profile["annotators"]:
        where |= {finding.id: f"/annotators{pointer}" for finding, pointer in agreement_findings(profile["annotators"])}
    for number, entry in enumerate(profile["sources"]):
        where |= {f"data/sources/{entry['name']}/{name}": f"/sources/{number}/{name}" for name in SOURCE_COUNTS}
    for number, entry in enumerate(profile["classes"]):
        where |= {f"data/class/{entry['label']}/{name}": f"/classes/{number}/{name}" for name in SPLITS}
    return where


def label_counts(label: pl.Series) -> dict[str, int]:
    """Rows of each label; a row with several labels counts for each; spans of each type. Numbers and answers are not counted."""
    if not has_classes(label):
        return {}
    if label.dtype == SPANS:
        label = label.explode(empty_as_null=True).struct.field("label")
    values = label.explode(empty_as_null=True) if label.dtype == pl.List else label
    return {str(name): int(count) for name, count in values.drop_nulls().value_counts().iter_rows()}


def _number(split: str, name: str, value: float | None) -> Finding:
    words = {"min": "the smallest", "max": "the largest", "mean": "the mean", "deviation": "the standard deviation", "p50": "the median",
             "p25": "the lower quartile", "p75": "the upper quartile"}  # fmt: skip
    claim = f"{words[name]} of the numbers of the {SPLIT_NAMES[split]} split"
    return Finding(f"data/numbers/{split}/{name}", claim, value, source="computed" if value is not None else "unknown")


def _count(name: str, claim: str, value: int, unit: str, n: int | None = None) -> Finding:
    return Finding(name, claim, value, unit, n)


def _classes(splits: Mapping[str, pl.DataFrame], labels: Iterable[str]) -> list[dict[str, Any]]:
    counts = {name: label_counts(splits[name]["label"]) for name in SPLITS}
    return [{"label": label, **{name: counts[name].get(label, 0) for name in SPLITS}} for label in labels]


def _lengths(rows: pl.DataFrame) -> dict[str, int | None]:
    """Quantiles of the characters of a row's text, with its pair; None for a split without rows."""
    length = rows["text"].str.len_chars()
    if "text_pair" in rows.columns:
        length = length + rows["text_pair"].str.len_chars()
    values = {name: length.quantile(share, "higher") for name, share in QUANTILES.items()}
    return {name: None if value is None else int(value) for name, value in values.items()}


def _examples(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The first rows by id, which is a random order that does not depend on the file's; long texts are cut."""
    texts = [pl.col(name).str.slice(0, EXAMPLE_CHARACTERS) for name in ("text", "text_pair") if name in rows.columns]
    return rows.bottom_k(EXAMPLES, by="id").sort("id").select(*texts, "label", "source").to_dicts()
