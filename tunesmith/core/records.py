"""Records that travel between stages: plain frozen values, no behaviour beyond their own text form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Source = Literal["measured", "computed", "declared", "read", "unknown"]
Value = float | int | str | bool | None


@dataclass(frozen=True)
class Issue:
    """One problem: where it is, what was expected, what was found, and what to do about it."""

    where: str
    expected: str
    found: str = ""
    remedy: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        found = f", got {self.found}" if self.found else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{self.where}: {self.expected}{found}.{remedy}"


@dataclass(frozen=True)
class Artefact:
    """The file a finding was read from: path inside the run directory, its SHA-256, and where in it (`pointer`)."""

    path: str
    sha256: str
    pointer: str = ""


@dataclass(frozen=True)
class Finding:
    """One fact. A value that could not be determined is None with source "unknown" and the reason in `note`."""

    id: str
    claim: str
    value: Value
    unit: str = ""
    n: int | None = None
    interval: tuple[float, float] | None = None
    source: Source = "computed"
    artefact: Artefact | None = None
    note: str = ""
    stage: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields; the exact inverse of `finding_from_dict`."""
        return asdict(self)


def finding_from_dict(fields: dict[str, Any]) -> Finding:
    """The Finding whose `as_dict` gave `fields`."""
    artefact = fields.get("artefact")
    interval = fields.get("interval")
    return Finding(
        **{
            **fields,
            "artefact": Artefact(**artefact) if artefact else None,
            "interval": (float(interval[0]), float(interval[1])) if interval else None,
        }
    )


@dataclass(frozen=True)
class StepInfo:
    """What one optimiser step did. `loss` is the mean over valid targets of the whole accumulated batch."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    targets: int
    tokens: int
    grad_norm: float | None = None
    score: float | None = None
    is_best: bool = False
    epoch_ended: bool = False


@dataclass(frozen=True)
class Progress:
    """A line for whoever watches: the stage, how far it is (done of total), and values worth showing."""

    stage: str
    done: int
    total: int
    unit: str = ""
    epoch: float | None = None
    loss: float | None = None
    score: float | None = None
    note: str = ""
