"""All pairs of 64-bit hashes within a Hamming radius: an exact search that does not compare every pair.

Axis legend: Q queries, N rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

CHUNKS, CHUNK_BITS = 4, 16
BLOCK_HITS = 1_000_000


@dataclass(frozen=True)
class HashIndex:
    """Hashes, and for each 16-bit chunk the rows ordered by its value and where each value starts."""

    hashes_N: Words
    tables: tuple[tuple[Ints, Ints], ...]


def hash_index(hashes_N: Words) -> HashIndex:
    """The index in which `within_radius` looks."""
    keys = [_chunk(hashes_N, chunk) for chunk in range(CHUNKS)]
    counts = [np.bincount(key, minlength=1 << CHUNK_BITS) for key in keys]
    starts = [np.concatenate([[0], np.cumsum(count)]) for count in counts]
    return HashIndex(hashes_N, tuple((np.argsort(key, kind="stable"), start) for key, start in zip(keys, starts, strict=True)))


def within_radius(queries_Q: Words, index: HashIndex, radius: int) -> Iterator[tuple[Ints, Ints, NDArray[np.uint8]]]:
    """Blocks of (query, row, distance): every pair that differs in at most `radius` of 64 bits, each exactly once.

    Multi-index hashing (Norouzi, Punjani and Fleet 2012): one of four 16-bit chunks differs in at most radius/4 bits.
    """
    reach = radius // CHUNKS
    for chunk, (order, starts) in enumerate(index.tables):
        keys_Q = _chunk(queries_Q, chunk)
        for mask in _masks(reach):
            probes = keys_Q ^ mask
            for query, place in _members(starts[probes], starts[probes + 1]):
                row = order[place]
                differing = queries_Q[query] ^ index.hashes_N[row]
                distance = np.bitwise_count(differing)
                keep = np.flatnonzero(distance <= radius)
                if chunk:
                    keep = keep[_is_first(differing[keep], chunk, reach)]
                if len(keep):
                    yield query[keep], row[keep], distance[keep]


def _chunk(words: Words, chunk: int) -> Ints:
    return ((words >> np.uint64(CHUNK_BITS * chunk)) & np.uint64((1 << CHUNK_BITS) - 1)).astype(np.int64)


@cache
def _masks(reach: int) -> list[int]:
    """All 16-bit words with at most `reach` bits set."""
    return [mask for mask in range(1 << CHUNK_BITS) if mask.bit_count() <= reach]


def _is_first(differing: Words, chunk: int, reach: int) -> NDArray[np.bool_]:
    """Whether no earlier chunk has already found this pair."""
    return np.asarray(np.all([np.bitwise_count(_chunk(differing, earlier)) > reach for earlier in range(chunk)], axis=0))


def _members(starts_Q: Ints, stops_Q: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Blocks of (query, place) for every place in [start, stop) of each query, in bounded memory."""
    queries = np.flatnonzero(stops_Q > starts_Q)
    sizes = (stops_Q - starts_Q)[queries]
    ends = np.cumsum(sizes)
    first = 0
    while first < len(queries):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + BLOCK_HITS, side="right")))
        size = sizes[first:last]
        offset = np.cumsum(size) - size
        place = np.arange(size.sum()) + np.repeat(starts_Q[queries[first:last]] - offset, size)
        yield np.repeat(queries[first:last], size), place
        first = last
