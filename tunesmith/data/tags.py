"""Tags of tokens as spans, and spans as tags: one reading for BIO, IOB1, IOBES, BILOU and IO."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["BIO", "IOB1", "IOBES", "BILOU", "IO", "one tag a token"]
Run = tuple[int, int, str]
"""First token, the token after the last one, and the type."""

OUTSIDE = "O"
PREFIXED = re.compile(r"([BIESLUM])-(.+)\Z", re.DOTALL)
SAME = {"U": "S", "L": "E", "M": "I"}


def scheme_of(rows: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that lists of tags are written in.

    IOB1 is told from BIO by this: B- stands only where two spans of a type touch. Without prefixes, tags among which is O mark
    spans (IO); without O each token has a tag of its own, as parts of speech are.
    """
    prefixes, bare, touching, starts = set[str](), False, True, 0
    for tags in rows:
        before = (OUTSIDE, "")
        for tag in tags:
            prefix, name = _parts(tag, "")
            bare |= tag == OUTSIDE
            prefixes.add(prefix)
            touching &= prefix != "B" or before[1] == name
            starts += prefix == "I" and before[1] != name
            before = prefix, name
    prefixes -= {OUTSIDE, ""}
    if not prefixes:
        return "IO" if bare else "one tag a token"
    if prefixes & {"S", "E"}:
        return "IOBES"
    if prefixes == {"I"}:
        return "IO"
    return "IOB1" if "I" in prefixes and touching and starts else "BIO"


def runs_of(tags: Sequence[str], scheme: Scheme = "BIO") -> tuple[list[Run], int]:
    """The spans that tags mark, and how many tags were read in a way that their scheme does not know (I- where no span stands before).

    A span begins at B- and S-, and where another type or a gap stands before; it ends before the next one begins, at a gap, and after
    E- and S-: what conlleval (Tjong Kim Sang and Buchholz, 2000) counts, for all schemes.
    """
    runs: list[Run] = []
    start, before, broken = -1, (OUTSIDE, ""), 0
    for place, tag in enumerate(tags):
        prefix, name = _parts(tag, "S" if scheme == "one tag a token" else "I")
        fresh = before[0] in (OUTSIDE, "E", "S") or before[1] != name
        begins = prefix != OUTSIDE and (prefix in ("B", "S") or fresh)
        broken += begins and prefix in ("I", "E") and scheme in ("BIO", "IOBES", "BILOU")
        if start >= 0 and (begins or prefix == OUTSIDE or fresh):
            runs.append((start, place, before[1]))
            start = -1
        start = place if begins else start
        before = prefix, name
    if start >= 0:
        runs.append((start, len(tags), before[1]))
    return runs, broken


def tags_of(runs: Iterable[Run], tokens: int) -> list[str]:
    """BIO tags of so many tokens."""
    tags = [OUTSIDE] * tokens
    for start, end, name in runs:
        tags[start:end] = [f"B-{name}", *[f"I-{name}"] * (end - start - 1)]
    return tags


def _parts(tag: str, otherwise: str) -> tuple[str, str]:
    """Prefix and type; a tag without a prefix gets the other one."""
    found = PREFIXED.match(tag)
    if found:
        return SAME.get(found[1], found[1]), found[2]
    return (OUTSIDE, "") if tag == OUTSIDE else (otherwise, tag)
