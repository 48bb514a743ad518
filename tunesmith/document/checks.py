"""A check of a run, and how one is made when what it needs is gone or damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl
import yaml
from safetensors import SafetensorError

from tunesmith.core.errors import TunesmithError

Status = Literal["verified", "mismatch", "missing", "stale", "skipped"]
UNREADABLE = (
    TunesmithError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    pl.exceptions.PolarsError, yaml.YAMLError, SafetensorError,
)  # fmt: skip
"""What reading, recomputing from or predicting with a damaged file can raise."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. "stale": it was right, but something that it rests on changed afterwards."""

    level: int
    what: str
    status: Status
    detail: str = ""


def attempt(level: int, what: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks; one that cannot be made, because what it reads is gone or damaged, says so instead of stopping the rest."""
    try:
        return list(checks())
    except FileNotFoundError as error:
        return [Check(level, what, "missing", f"{error.filename or line(error)} is not there")]
    except UNREADABLE as error:
        return [Check(level, what, "mismatch", f"cannot be checked: {line(error)}")]
    except pl.exceptions.PanicException as error:  # how polars reports some damaged files; not an Exception
        return [Check(level, what, "mismatch", f"cannot be read: {line(error)}")]


def line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
