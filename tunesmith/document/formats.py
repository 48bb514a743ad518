"""How values are written: the same value looks the same in every document, on every machine, in every locale."""

from __future__ import annotations

import json
from typing import Any, Literal

from tunesmith.core.records import Value

Form = Literal["auto", "score", "difference", "count", "percent", "probability", "seconds", "bytes", "plain", "short_hash"]
DECIMALS = 3
MINUS = "−"


def formatted(value: Value, form: Form, unit: str = "") -> str:
    """The value as readers see it. "auto" goes by its unit and type; text stays as it is."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value[:12] if form == "short_hash" else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if form == "auto":
        form = _by_unit(value, unit)
    return _number(value, form)


def counted(number: float) -> str:
    """A count as readers see it."""
    return formatted(number, "count")


def between(bounds: tuple[float, float], form: Form, unit: str = "") -> str:
    """An interval as text; bounds with a sign are kept apart by a word, so that no dash is taken for a minus."""
    low, high = (formatted(bound, form, unit) for bound in bounds)
    return f"{low} to {high}" if form == "difference" or bounds[0] < 0 else f"{low}–{high}"


def setting(value: Any) -> str:
    """A value of a spec as it stands in resolved.yaml, without the quotes of text."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(setting(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _by_unit(value: float, unit: str) -> Form:
    if unit in ("seconds", "s"):
        return "seconds"
    if unit == "bytes":
        return "bytes"
    if isinstance(value, int):
        return "count"
    return "plain" if unit else "score"


def _number(value: float, form: Form) -> str:
    text = _unsigned(abs(value), form)
    if value < 0 and any(digit in text for digit in "123456789"):
        return f"{MINUS}{text}"
    return f"+{text}" if form == "difference" and value > 0 else text


def _unsigned(value: float, form: Form) -> str:
    if form == "count":
        return f"{value:,.0f}"
    if form == "percent":
        return f"{_trimmed(100 * value)} %"
    if form == "seconds":
        return _duration(value)
    if form == "bytes":
        return _size(value)
    if form == "probability":
        return "below 0.001" if value < 0.001 else _score(value)
    if form == "plain":
        return f"{value:,.0f}" if float(value).is_integer() and value < 1e12 else f"{value:.4g}"
    return _score(value)


def _score(value: float) -> str:
    """Three decimals; more when these would claim a 0 or a 1 that is none."""
    decimals = DECIMALS
    while decimals < 8 and round(value, decimals) in (0, 1) and round(value, decimals) != value:
        decimals += 1
    return f"{value:.{decimals}f}"


def _trimmed(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{_trimmed(seconds)} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds % 60)} s"


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{_trimmed(size)} {unit}"
        size /= 1000
    return f"{_trimmed(size)} TB"
