"""Errors a user can act on. One hierarchy, one message form: where, what was expected, what was found, what to do.

TunesmithError
├── SpecError         the spec (YAML, --set, keyword arguments) says something impossible
├── DataError         a table cannot be read, or holds nothing that can be learned from
├── ModelError        a pretrained model cannot be found, loaded, or does not fit the strategy
├── RunError          a run directory is locked, unwritable, full, damaged, or belongs to another spec
├── UnsourcedNumber   a document holds a digit that comes from no finding (document/claims.py); a defect of ours
└── Interrupted       the user or the system asked the run to stop; the same command continues it
"""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.core.records import Issue


class TunesmithError(Exception):
    """Base of everything raised on purpose. `issues` holds every problem found, not only the first."""

    exit_code = 2

    def __init__(self, issues: Issue | Iterable[Issue]) -> None:
        self.issues: tuple[Issue, ...] = (issues,) if isinstance(issues, Issue) else tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


class SpecError(TunesmithError):
    """The spec says something impossible."""


class DataError(TunesmithError):
    """A table cannot be read, or holds nothing that can be learned from."""

    exit_code = 3


class ModelError(TunesmithError):
    """A pretrained model cannot be found, loaded, or does not fit the strategy."""

    exit_code = 4


class RunError(TunesmithError):
    """A run directory is locked, unwritable, full, damaged, or belongs to another spec."""

    exit_code = 5


class Interrupted(TunesmithError):
    """The user or the system asked the run to stop; the same command continues it."""

    exit_code = 130
