"""A check of a run, and how one is made when what it needs is gone or damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl
import yaml
from safetensors import SafetensorError

from tunesmith.core.errors import TunesmithError
from tunesmith.core.records import Finding

SCORE_TOLERANCE = 1e-9
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


def difference(recorded: Finding | None, again: Finding) -> str:
    """What is wrong with a recorded finding; empty when nothing is."""
    if recorded is None:
        return "is not in the ledger"
    if not _is_close(recorded.value, again.value):
        return f"is {recorded.value} in the ledger, {again.value} computed again"
    if recorded.n != again.n:
        return f"has n {recorded.n} in the ledger, {again.n} computed again"
    bounds = zip(recorded.interval or (None, None), again.interval or (None, None), strict=True)
    return (
        ""
        if all(_is_close(a, b) for a, b in bounds)
        else f"has interval {recorded.interval} in the ledger, {again.interval} computed again"
    )


def _is_close(a: object, b: object) -> bool:
    numbers = (int, float)
    if isinstance(a, numbers) and isinstance(b, numbers):
        return abs(a - b) <= SCORE_TOLERANCE * max(1.0, abs(b))
    return a == b
