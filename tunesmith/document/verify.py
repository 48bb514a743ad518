"""Whether a run still agrees with its evidence, at three levels, each with what it can and cannot show.

0  files against the manifest, findings against the ledger's record, documents against a fresh rendering: shows damage
   and edits of single files, but not a forger who also recomputes every hash;
1  every score against the stored predictions, their labels against the stored data, texts against their ids;
2  the stored predictions against what the saved weights predict now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.records import Finding
from tunesmith.core.rundir import RunDir, existing_run, sha256_file, sha256_json
from tunesmith.document.checks import UNREADABLE, Check, attempt, line
from tunesmith.document.recompute import Predict, check_scores, check_weights
from tunesmith.spec.defaults import flatten
from tunesmith.spec.load import load_spec

Render = Callable[[RunDir], dict[str, str]]
Inputs = Callable[[RunDir], dict[str, str]]

SHOWN = 3


@dataclass(frozen=True)
class Verification:
    """Every check that was made, in order."""

    run: Path
    level: int
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True when nothing disagrees, is missing or is stale. What was skipped says so and is no failure."""
        return all(check.status in ("verified", "skipped") for check in self.checks)


def verify(
    run: Path, level: int = 2, predict: Predict | None = None, render: Render | None = None, inputs: Inputs | None = None
) -> Verification:
    """Every check of the levels up to `level`.

    Args:
        run: the run directory.
        level: 0 files and documents, 1 also scores, 2 also predictions.
        predict: (run, split) → predictions of the saved weights with the columns id, predicted, probabilities.
        render: run → text of each document by its path.
        inputs: run → hash of each stage's inputs as they are now; tells stages that were made from something else.

    Raises:
        RunError: there is no run directory.
    """
    rundir = existing_run(run)
    try:
        stages = rundir.manifest.get("stages", {})
        whole = all(isinstance(entry["outputs"], dict) and entry["output_hash"] for entry in stages.values())
    except UNREADABLE as error:
        return Verification(run, level, (Check(0, "manifest.json", "mismatch", f"cannot be read: {line(error)}"),))
    if not stages or not whole:
        return Verification(run, level, (Check(0, "manifest.json", "missing", "no finished stage"),))
    checks = [*_files(rundir), *_spec(rundir), *_sources(rundir), *_ledger(rundir), *_artefacts(rundir)]
    checks += [*_inputs(rundir, inputs), *_documents(rundir, render)]
    if level >= 1:
        checks += check_scores(rundir)
    if level >= 2:
        checks += check_weights(rundir, predict)
    return Verification(run, level, tuple(checks))


def _files(run: RunDir) -> Iterator[Check]:
    for stage, entry in run.manifest["stages"].items():
        outputs: dict[str, str] = entry["outputs"]
        bad = 0
        for name, expected in outputs.items():
            path = run.path / name
            if not path.is_file():
                yield Check(0, name, "missing", f"the stage {stage} wrote it, and it is gone")
            elif (found := sha256_file(path)) != expected:
                yield Check(0, name, "mismatch", f"SHA-256 is {found[:12]}, the stage {stage} wrote {expected[:12]}")
            else:
                continue
            bad += 1
        if entry["output_hash"] != sha256_json(outputs):
            yield Check(0, f"manifest of the stage {stage}", "mismatch", "its list of files is not the one that its hash was made from")
        elif not bad:
            yield Check(0, f"files of the stage {stage}", "verified", f"{len(outputs)} files")


def _spec(run: RunDir) -> list[Check]:
    def checks() -> Iterator[Check]:
        expected = run.manifest.get("spec")
        if expected is None:
            yield Check(0, "spec.yaml", "skipped", "the manifest does not record its hash")
            return
        raw = yaml.safe_load((run.path / "spec.yaml").read_text("utf-8"))
        if sha256_json(flatten(load_spec(dict(raw)))) == expected:
            yield Check(0, "spec.yaml", "verified")
        else:
            yield Check(0, "spec.yaml", "mismatch", "says something else than the run was made from")

    return attempt(0, "spec.yaml", checks)


def _sources(run: RunDir) -> Iterator[Check]:
    """The user's own tables: they may be elsewhere by now, but where they are they should be as they were."""
    for name, expected in run.manifest.get("data", {}).items():
        if not Path(name).is_file():
            yield Check(0, f"source {name}", "skipped", "not on this machine")
        elif sha256_file(Path(name)) != expected:
            yield Check(0, f"source {name}", "stale", "the table changed after the run")
        else:
            yield Check(0, f"source {name}", "verified")


def _ledger(run: RunDir) -> list[Check]:
    def checks() -> Iterator[Check]:
        batches = _batches(run.path / "ledger.jsonl")
        entries = run.manifest["stages"]
        for stage, entry in entries.items():
            last = next((batch for batch in [*reversed(batches.get(stage, [])), []] if sha256_json(batch) == entry["findings"]), None)
            what = f"findings of the stage {stage}"
            if last is None:
                yield Check(0, what, "mismatch", "the ledger does not hold what the stage wrote")
                continue
            left = sorted({f["id"] for batch in batches[stage] for f in batch} - {f["id"] for f in last}) if last else []
            if left or (batches.get(stage) and batches[stage][-1] is not last):
                yield Check(0, what, "stale", f"findings of another run of this stage are in force: {', '.join(left[:SHOWN])}")
            else:
                yield Check(0, what, "verified", f"{len(last)} findings")
        for stage in sorted(batches.keys() - entries.keys()):
            yield Check(0, f"findings of the stage {stage}", "stale", "the stage has no entry in the manifest: it did not finish")

    return attempt(0, "ledger.jsonl", checks)


def _batches(path: Path) -> dict[str, list[list[dict[str, Any]]]]:
    """Findings of each stage as lists, one list each time that the stage wrote; an empty one for a stage without findings.

    A stage that runs again after being killed appends once more: a new batch begins where an id comes again, or where
    another stage wrote in between.
    """
    batches: dict[str, list[list[dict[str, Any]]]] = {}
    before = None
    for text in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        finding = json.loads(text)
        own = batches.setdefault(finding["stage"], [])
        if before != finding["stage"] or any(f["id"] == finding["id"] for f in own[-1]):
            own.append([])
        own[-1].append(finding)
        before = finding["stage"]
    return batches


def _artefacts(run: RunDir) -> list[Check]:
    """Findings say which version of a file they were read from; it must be the one that is in force."""

    def checks() -> Iterator[Check]:
        current = {name: sha for entry in run.manifest["stages"].values() for name, sha in entry["outputs"].items()}
        old = [f for f in run.findings.values() if f.artefact and current.get(f.artefact.path, f.artefact.sha256) != f.artefact.sha256]
        if old:
            detail = f"{len(old)} were read from a version that a later stage replaced: {_names(old)}"
            yield Check(0, "files behind the findings", "stale", detail)
        else:
            yield Check(0, "files behind the findings", "verified")

    return attempt(0, "files behind the findings", checks)


def _inputs(run: RunDir, inputs: Inputs | None) -> list[Check]:
    def checks() -> Iterator[Check]:
        for stage, expected in inputs(run).items() if inputs else ():
            entry = run.manifest["stages"].get(stage)
            if entry is None:
                yield Check(0, f"stage {stage}", "missing", "it did not finish: run the same command again")
            elif entry["inputs"] != expected:
                yield Check(0, f"stage {stage}", "stale", "an earlier stage, the spec or tunesmith changed after it ran")

    return attempt(0, "inputs of the stages", checks)


def _documents(run: RunDir, render: Render | None) -> list[Check]:
    if render is None:
        return [Check(0, "documents", "skipped", "nothing to render them with")]

    def checks() -> Iterator[Check]:
        outputs = {name: sha for entry in run.manifest["stages"].values() for name, sha in entry["outputs"].items()}
        for name, text in render(run).items():
            path = run.path / name
            if not path.is_file():
                yield Check(0, name, "missing", "no such document")
            elif path.read_bytes() == text.encode():
                yield Check(0, name, "verified", "renders to the same bytes")
            elif sha256_file(path) == outputs.get(name):
                yield Check(0, name, "stale", "as it was written, but what it is rendered from, or tunesmith itself, changed since")
            else:
                yield Check(0, name, "mismatch", "does not say what the run says")

    return attempt(0, "documents", checks)


def _names(findings: list[Finding]) -> str:
    return ", ".join(f.id for f in findings[:SHOWN]) + (", …" if len(findings) > SHOWN else "")
