"""Seeds: one number of the spec from which every random stream is derived by name, so that streams do not disturb each other."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, stream: str) -> int:
    """A 63-bit seed for the named stream: the first 8 bytes of SHA-256(seed, stream), sign bit cleared."""
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def unit_interval(seed: int, content: str) -> float:
    """A number in [0, 1) that depends only on the seed and the content: a row's place in a stable random order."""
    return seed_for(seed, content) / 2**63
