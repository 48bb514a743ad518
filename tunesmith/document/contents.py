"""What a run directory holds for its documents. Only what stages before `document` left is looked at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from tunesmith.core.records import Artefact, Finding
from tunesmith.core.rundir import RunDir
from tunesmith.evaluate.metrics import metrics_for
from tunesmith.spec.kinds import Kind, kind_of

STAGES = ("prepare", "resolve", "adapt", "embed", "certify", "inspect", "augment", "items", "train", "tune", "evaluate", "crossvalidate")
PREDICTIONS = "predictions/test.parquet"


@dataclass(frozen=True)
class Contents:
    """The files of a run, read once. What is not there reads as empty; the documents then say that it is unknown."""

    path: Path
    findings: dict[str, Finding]
    stages: dict[str, dict[str, Any]]
    resolved: dict[str, dict[str, Any]]
    profile: dict[str, Any]
    certificate: dict[str, Any]
    quality: dict[str, Any]
    labels: list[str]
    history: list[dict[str, Any]]

    @classmethod
    def of(cls, run: RunDir) -> Contents:
        """The contents of a run directory."""
        entries = run.manifest.get("stages", {})
        history = run.path / "history.jsonl"
        return cls(
            path=run.path,
            findings={name: finding for name, finding in run.findings.items() if finding.stage in STAGES},
            stages={name: entries[name] for name in STAGES if name in entries},
            resolved=_yaml(run.path / "resolved.yaml"),
            profile=_json(run.path / "data/profile.json", {}),
            certificate=_json(run.path / "data/certificate.json", {}),
            quality=_json(run.path / "data/quality.json", {}),
            labels=_json(run.path / "data/labels.json", []),
            history=[json.loads(line) for line in history.read_text("utf-8").splitlines()] if history.exists() else [],
        )

    def setting(self, path: str, default: Any = None) -> Any:
        """A resolved value; the default when the spec of this run has no such field."""
        return self.resolved.get(path, {}).get("value", default)

    def artefact(self, path: str) -> Artefact | None:
        """The record of a file as its stage left it; None for a file that no stage before `document` wrote."""
        for entry in self.stages.values():
            if path in entry["outputs"]:
                return Artefact(path, entry["outputs"][path])
        return None

    @property
    def name(self) -> str:
        """Name of the run, as its spec says."""
        return str(self.setting("name", self.path.name))

    @property
    def kind(self) -> Kind:
        """What a row's label is."""
        return kind_of(str(self.setting("task", "text-classification")), bool(self.setting("data.multi_label", False)))

    @property
    def multi_label(self) -> bool:
        """True when a row can carry several labels."""
        return self.kind == "classes"

    @property
    def metric(self) -> str:
        """The metric that leads the documents."""
        return str(self.setting("evaluate.metric") or next(iter(metrics_for(self.kind))))

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines that the test findings speak of, in the order of the spec."""
        found = {name.split("/")[2] for name in self.findings if name.startswith("test/baseline/")}
        asked = [str(name) for name in self.setting("evaluate.baselines", [])]
        return [name for name in asked if name in found] + sorted(found - set(asked))

    @cached_property
    def test(self) -> pl.DataFrame:
        """Predictions on the test split: id, label, predicted, confidence, probabilities. Empty when there are none."""
        return self._table(PREDICTIONS)

    @cached_property
    def test_texts(self) -> pl.DataFrame:
        """The test split: id, text, (text_pair), label, source."""
        return self._table("data/test.parquet")

    @cached_property
    def dropped(self) -> pl.DataFrame:
        """Rows that were dropped: source, text, label, reason, detail."""
        return self._table("data/dropped.parquet")

    def _table(self, path: str) -> pl.DataFrame:
        return pl.read_parquet(self.path / path) if (self.path / path).exists() else pl.DataFrame()


def _json(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.exists() else otherwise


def _yaml(path: Path) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(path.read_text("utf-8")) or {}) if path.exists() else {}
