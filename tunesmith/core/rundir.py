"""The run directory: the one interface between stages, and between a run and everything that reads it.

A stage computes in memory or writes into place file by file, each file atomically; its entry in manifest.json comes
last. So a stage with an entry is finished, one without simply runs again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from tunesmith.core.errors import RunError, TunesmithError
from tunesmith.core.ledger import append_findings, read_findings
from tunesmith.core.records import Artefact, Finding, Issue

LOCK_REMEDY = "Wait for it to end, or give this run another name."


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of a JSON-able value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


REMEDIES = {
    errno.ENOSPC: "Free some space and run the same command again; finished stages are kept.",
    errno.EDQUOT: "Free some of your quota and run the same command again; finished stages are kept.",
    errno.EROFS: "Choose a writable place with --runs DIR.",
    errno.EACCES: "Choose a writable place with --runs DIR.",
    errno.EPERM: "Choose a writable place with --runs DIR.",
    errno.ENOTDIR: "Choose another place with --runs DIR.",
    errno.EEXIST: "Choose another place with --runs DIR.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
FULL_BYTES = 65536


class disk_errors:
    """Turns "no space", "read-only" and "not permitted" into one RunError that names the place and the remedy.

    Libraries report a full disk with errors of their own kinds, so the words and the free space are looked at too.
    """

    def __init__(self, where: Path) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OSError) and error.errno in REMEDIES:
            place, number = str(error.filename or self.where), error.errno
        elif isinstance(error, Exception) and not isinstance(error, TunesmithError) and self._is_full(error):
            place, number = str(self.where), errno.ENOSPC
        else:
            return
        raise RunError(Issue(place, "must be writable", os.strerror(number), REMEDIES[number])) from error

    def _is_full(self, error: Exception) -> bool:
        place = next(p for p in (self.where.absolute(), *self.where.absolute().parents) if p.exists())
        return "No space left" in str(error) or shutil.disk_usage(place).free < FULL_BYTES


@dataclass
class StageWriter:
    """What a stage may do to its run directory: write files, add findings. Nothing counts until the stage ends."""

    rundir: RunDir
    name: str
    findings: list[Finding] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)

    def path(self, relative: str) -> Path:
        """The absolute path of a file of this run, its folder made. Call `wrote` when it is complete."""
        path = self.rundir.path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, relative: str, write: Callable[[Path], object]) -> Artefact:
        """Write a file atomically: `write` gets a temporary path beside the target, which is then renamed."""
        target = self.path(relative)
        temporary = target.with_name(f".{target.name}.writing")
        write(temporary)
        os.replace(temporary, target)
        return self.wrote(relative)

    def write_text(self, relative: str, text: str) -> Artefact:
        """Write a UTF-8 text file atomically, with "\\n" line ends on every system."""
        return self.write(relative, lambda path: path.write_bytes(text.encode()))

    def wrote(self, relative: str) -> Artefact:
        """Take a complete file into this stage's outputs; gives its artefact record."""
        self.outputs[relative] = sha256_file(self.rundir.path / relative)
        return Artefact(relative, self.outputs[relative])

    def find(self, *findings: Finding) -> None:
        """Add findings; they enter the ledger when the stage ends."""
        self.findings.extend(findings)


class RunDir:
    """A run directory on disk. Reading needs no lock; `locked()` guards writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @property
    def manifest(self) -> dict[str, Any]:
        """manifest.json as a dict: {"spec": …, "stages": {name: entry}}; empty when there is none."""
        path = self.path / "manifest.json"
        if not path.exists():
            return {}
        try:
            manifest = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise RunError(
                Issue(str(path), "must be JSON", str(error), "Restore it, or delete the run directory and run again.")
            ) from error
        return dict(manifest)

    @property
    def findings(self) -> dict[str, Finding]:
        """Findings in force, by id."""
        return read_findings(self.path / "ledger.jsonl")

    def artefact(self, relative: str, pointer: str = "") -> Artefact:
        """The record of a file as a finished stage left it, or as it is now when no stage lists it."""
        for entry in self.manifest.get("stages", {}).values():
            if relative in entry["outputs"]:
                return Artefact(relative, entry["outputs"][relative], pointer)
        return Artefact(relative, sha256_file(self.path / relative), pointer)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing. The lock is the operating system's, so a killed process leaves none behind.

        Raises:
            RunError: another process holds it, or the place cannot be written.
        """
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout as error:
                raise RunError(Issue(str(self.path), "must be free", "another process is working on this run", LOCK_REMEDY)) from error
        try:
            with disk_errors(self.path):
                yield
        finally:
            lock.release()

    def update_manifest(self, **entries: object) -> None:
        """Set top-level entries of manifest.json, atomically."""
        path = self.path / "manifest.json"
        temporary = path.with_name(".manifest.json.writing")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({**self.manifest, **entries}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def is_finished(self, stage: str, inputs: str) -> bool:
        """True when the stage has an entry made from the same inputs and all its files are still there."""
        entry = self.manifest.get("stages", {}).get(stage)
        return bool(entry) and entry["inputs"] == inputs and all((self.path / name).exists() for name in entry["outputs"])

    @contextmanager
    def stage(self, name: str, inputs: str, versions: Mapping[str, str]) -> Iterator[StageWriter]:
        """Run a stage: on a clean end its findings enter the ledger, then its entry the manifest."""
        writer, started = StageWriter(self, name), time.perf_counter()
        yield writer
        append_findings(self.path / "ledger.jsonl", [_with_stage(f, name) for f in writer.findings])
        entry = {
            "inputs": inputs,
            "outputs": writer.outputs,
            "output_hash": sha256_json(writer.outputs),
            "findings": sha256_json([_with_stage(f, name).as_dict() for f in writer.findings]),
            "seconds": round(time.perf_counter() - started, 3),
            "versions": dict(versions),
        }
        self.update_manifest(stages={**self.manifest.get("stages", {}), name: entry})

    def output_hashes(self, stages: Iterable[str]) -> dict[str, str]:
        """The output hash of each named stage that has finished."""
        entries = self.manifest.get("stages", {})
        return {name: entries[name]["output_hash"] for name in stages if name in entries}


def _with_stage(finding: Finding, stage: str) -> Finding:
    return Finding(**{**vars(finding), "stage": stage})


def existing_run(path: Path) -> RunDir:
    """The run directory at `path`.

    Raises:
        RunError: there is no run; the message lists the runs beside it.
    """
    if (path / "manifest.json").is_file():
        return RunDir(path)
    beside = sorted(p.parent.name for p in path.parent.glob("*/manifest.json")) if path.parent.is_dir() else []
    remedy = f"Runs there: {', '.join(beside[:10])}." if beside else "Make one with: tunesmith run SPEC."
    raise RunError(Issue(str(path), "must be a run directory", "no manifest.json", remedy))
