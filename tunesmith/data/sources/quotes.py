"""Where a marked piece of text stands: at the place that was given, or, when that is wrong, at the only other one."""

from __future__ import annotations

from typing import Literal

Found = Literal["there", "utf16", "moved"]


def located(text: str, quote: str, start: object) -> tuple[int, Found] | None:
    """The start of `quote` in `text` in characters, and how it was found; None where it is not there, or not once.

    "there": at `start`. "utf16": at `start` counted in UTF-16 units, as browsers count. "moved": elsewhere, once.
    """
    if not quote:
        return None
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        if text.startswith(quote, start):
            return start, "there"
        characters = from_utf16(text, start)
        if characters is not None and text.startswith(quote, characters):
            return characters, "utf16"
    first = text.find(quote)
    return (first, "moved") if first >= 0 and text.find(quote, first + 1) < 0 else None


def from_utf16(text: str, units: int) -> int | None:
    """The number of characters that `units` UTF-16 code units at the start of `text` hold; None inside a pair or beyond."""
    content = text.encode("utf-16-le")
    if not 0 <= 2 * units <= len(content):
        return None
    try:
        return len(content[: 2 * units].decode("utf-16-le"))
    except UnicodeDecodeError:
        return None
