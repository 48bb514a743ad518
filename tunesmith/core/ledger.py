"""The ledger: every fact a stage learned, append-only, one JSON object a line. The last entry of an id is in force."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tunesmith.core.errors import RunError
from tunesmith.core.records import Finding, Issue, finding_from_dict


def append_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Append findings and force them to disk. A torn last line, left by a killed process, is cut off first."""
    text = "".join(json.dumps(f.as_dict(), ensure_ascii=False, allow_nan=False) + "\n" for f in findings)
    with open(path, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        if whole < size:
            file.truncate(whole)
        file.seek(0, os.SEEK_END)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_findings(path: Path) -> dict[str, Finding]:
    """Findings in force by id, in order of first appearance. Empty when there is no ledger yet.

    Raises:
        RunError: a complete line is not a finding, which means that somebody edited the file.
    """
    findings: dict[str, Finding] = {}
    if not path.exists():
        return findings
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            finding = finding_from_dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise RunError(
                Issue(
                    f"{path} line {number}", "must be a finding", str(error), "Restore the file, or delete the run directory and run again."
                )
            ) from error
        findings[finding.id] = finding
    return findings
