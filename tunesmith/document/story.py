"""What a run has to say, in the order in which it is told: shared by report, card and summary. No text of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from tunesmith.core.records import Finding
from tunesmith.document import vocabulary
from tunesmith.document.contents import Contents
from tunesmith.document.tables import ClassRow, class_rows

FEW_TEST_ROWS = 30
LOW_RECALL = 0.5
Verdict = Literal["better", "worse", "level", "unknown"]


@dataclass(frozen=True)
class Comparison:
    """The model against a baseline on one metric. "level": the interval of the difference holds 0."""

    name: str
    title: str
    id: str
    verdict: Verdict

    @property
    def difference(self) -> str:
        """Id of the paired difference."""
        return f"{self.id}/difference"


@dataclass(frozen=True)
class Headline:
    """The metric that leads, its finding, and the comparisons."""

    name: str
    metric: vocabulary.Metric
    id: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Folded:
    """Cross-validation: the finding of its score, the comparisons over the same folds, ids of the folds' scores, and the classes."""

    id: str
    comparisons: tuple[Comparison, ...]
    scores: list[str]
    classes: list[ClassRow]


@dataclass(frozen=True)
class Limits:
    """What the findings say against the model: classes by trouble, and comparisons that it did not win."""

    untested: list[ClassRow]
    few_rows: list[ClassRow]
    low_recall: list[ClassRow]
    not_better: list[Comparison]
    truncated: list[str]


def headline(contents: Contents) -> Headline:
    """The answer of the run."""
    name = contents.metric
    return Headline(name, vocabulary.metric(name), f"test/{name}", comparisons(contents, name))


def comparisons(contents: Contents, metric: str, root: str = "test") -> tuple[Comparison, ...]:
    """The model against every baseline, the strongest baseline first. `root`: on the test, or over the folds."""
    lower = vocabulary.metric(metric).lower_is_better
    found = [_comparison(contents, f"{root}/baseline/{name}/{metric}", name, lower) for name in contents.baselines]
    return tuple(sorted(found, key=lambda c: _strength(contents.findings.get(c.id), lower)))


def metric_names(contents: Contents) -> list[str]:
    """Names of the test metrics, the leading one first, then in the reader's order."""
    found = [name.removeprefix("test/") for name, finding in contents.findings.items() if _is_metric(name, finding)]
    if "no_answer_accuracy" in found and contents.findings["test/no_answer_accuracy"].value is None:
        found = [name for name in found if name not in vocabulary.APART]  # every question has an answer: they say nothing of their own
    known = [name for name in vocabulary.METRICS if name in found]
    ordered = known + sorted(set(found) - set(known))
    return sorted(ordered, key=lambda name: name != contents.metric)


def folded(contents: Contents) -> Folded | None:
    """What cross-validation says; None when there was none."""
    identity, scores = f"folds/{contents.metric}", [name for name in contents.findings if name.startswith("folds/score/")]
    if identity not in contents.findings:
        return None
    return Folded(identity, comparisons(contents, contents.metric, "folds"), scores, class_rows(contents, "folds"))


def limits(contents: Contents) -> Limits:
    """The limitations that follow from the findings."""
    rows = class_rows(contents)
    tested = [row for row in rows if row.n > 0]
    truncated = [f"data/truncated/{split}" for split in vocabulary.SPLITS if _positive(contents.findings.get(f"data/truncated/{split}"))]
    return Limits(
        untested=[row for row in rows if row.n == 0],
        few_rows=sorted((row for row in tested if row.n < FEW_TEST_ROWS), key=lambda row: (row.n, row.label)),
        low_recall=sorted((r for r in tested if r.recall is not None and r.recall < LOW_RECALL), key=lambda r: (r.recall or 0.0, r.label)),
        not_better=[c for c in comparisons(contents, contents.metric) if c.verdict != "better"],
        truncated=truncated,
    )


def is_pair(contents: Contents) -> bool:
    """True when a row has two texts."""
    return len(contents.profile.get("columns", {}).get("text", [])) > 1 or "text_pair" in contents.test_texts.columns


def files(contents: Contents) -> list[dict[str, Any]]:
    """The data files with what was found about them, and the split that each was given for."""
    by_split = contents.profile.get("files", {})
    return [{"given_as": split, **record} for split, records in by_split.items() for record in records]


def file_names(contents: Contents) -> list[str]:
    """Base names of the data files."""
    return list(dict.fromkeys(PurePath(record["path"]).name for record in files(contents)))


def findings_under(contents: Contents, prefix: str) -> list[Finding]:
    """Findings whose id begins with the prefix, in the order of the ledger."""
    return [finding for name, finding in contents.findings.items() if name.startswith(prefix)]


def seconds_total(contents: Contents) -> float:
    """Seconds of all stages before this document."""
    return float(sum(entry["seconds"] for entry in contents.stages.values()))


def _comparison(contents: Contents, identity: str, name: str, lower: bool) -> Comparison:
    difference = contents.findings.get(f"{identity}/difference")
    return Comparison(name, vocabulary.baseline(name, contents.kind), identity, _verdict(difference, lower))


def _verdict(difference: Finding | None, lower: bool) -> Verdict:
    if difference is None or difference.interval is None:
        return "unknown"
    low, high = difference.interval if not lower else (-difference.interval[1], -difference.interval[0])
    return "better" if low > 0 else "worse" if high < 0 else "level"


def _strength(finding: Finding | None, lower: bool) -> float:
    if finding is None or not isinstance(finding.value, (int, float)):
        return float("inf")
    return finding.value if lower else -finding.value


def _is_metric(name: str, finding: Finding) -> bool:
    """Scores stand directly under test/, beside facts such as the number of rows."""
    last = name.removeprefix("test/")
    return name == f"test/{last}" and "/" not in last and (last in vocabulary.METRICS or finding.interval is not None)


def _positive(finding: Finding | None) -> bool:
    return finding is not None and isinstance(finding.value, (int, float)) and finding.value > 0
