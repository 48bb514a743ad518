"""Near-duplicate texts: candidates by MinHash banding, every one verified by its exact Jaccard similarity.

MinHash: Broder (1997), "On the resemblance and containment of documents". Banding: Indyk & Motwani (1998).
Texts are compared as sets of four consecutive characters of their canonical form (compatibility form, lower case,
letters and digits only), so case, punctuation and spacing do not matter. What is reported is verified; what can be
missed is stated: a pair exactly at the threshold is no candidate with the probability `missed`.

Shape suffixes: N = texts, G = different canonical texts, C = characters, S = shingles, P = permutations, K = pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import bdtr

Array = np.ndarray[Any, np.dtype[Any]]

SHINGLE = 4
PERMUTATIONS = 120
MOST_MISSED = 1e-3
BAND_COMPARISONS = 1_500_000
MOST_PAIRS = 10_000_000
FEWEST_NEIGHBOURS, FEWEST_PARTNERS = 1, 8
CHUNK_CHARACTERS = 500_000
CHUNK_PAIRS = 100_000
ESTIMATE_SLACK = 0.15  # four standard errors of an estimate from 120 permutations
MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)


@dataclass(frozen=True)
class NearDuplicates:
    """Which texts are alike.

    group_N: number of each text's canonical form; equal numbers mean texts that differ in case, punctuation, spacing alone.
    left_K, right_K, jaccard_K: pairs of groups (left < right) at or above `threshold`, with their exact similarity.
    missed: probability that a pair exactly at the threshold was not looked at; pairs above it are missed less often.
    crowded: texts with so many look-alikes that not all were compared. Time and memory stay bounded: a band makes at most
        one and a half million comparisons (but one for each text), and ten million pairs are kept (but eight for each text).
    """

    group_N: Array
    left_K: Array
    right_K: Array
    jaccard_K: Array
    threshold: float
    missed: float
    crowded: int

    @property
    def clusters_N(self) -> Array:
        """Cluster number of each text: connected by pairs and equal canonical forms, in order of first appearance."""
        groups = int(self.group_N.max()) + 1 if len(self.group_N) else 0
        return connected(self.left_K, self.right_K, groups)[self.group_N]


def near_duplicates(texts: pl.Series, threshold: float) -> NearDuplicates:
    """All pairs of texts whose Jaccard similarity is at least `threshold` (0.5 to 1), but for those missed by chance."""
    canonical, group_N = _distinct(canonical_text(texts))
    rows_per_band, bands, missed = banding(threshold)
    if canonical.len() < 2:
        none = np.zeros(0, np.int64)
        return NearDuplicates(group_N, none, none, np.zeros(0), threshold, missed, 0)
    left_K, right_K, crowded = _candidates(_sketches(canonical, rows_per_band, bands), threshold)
    jaccard_K = _jaccard(canonical, left_K, right_K)
    kept = jaccard_K >= threshold
    return NearDuplicates(group_N, left_K[kept], right_K[kept], jaccard_K[kept], threshold, missed, crowded)


def whole_text(rows: pl.DataFrame) -> pl.Series:
    """The text of each row, with its pair where it has one."""
    return rows["text"] + "\n" + rows["text_pair"] if "text_pair" in rows.columns else rows["text"]


def canonical_text(texts: pl.Series) -> pl.Series:
    """Compatibility form (NFKC), lower case, runs of anything but letters, marks and digits as one space; as it was if that is empty."""
    plain = texts.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ").str.strip_chars()
    return plain.zip_with(plain != "", texts)


def banding(threshold: float) -> tuple[int, int, float]:
    """Rows of a band, bands, and the probability of missing a pair at the threshold: the longest bands that keep it below
    0.1 %, and what the estimate from the sketches lets go."""
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        missed = (1 - threshold**rows) ** bands
        if missed <= MOST_MISSED:
            break
    # A candidate is let go when fewer of its minima agree than the threshold less the slack: a binomial tail.
    agreeing = np.ceil((threshold - ESTIMATE_SLACK) * PERMUTATIONS) - 1
    return rows, bands, missed + float(bdtr(agreeing, PERMUTATIONS, threshold))


def connected(left_K: Array, right_K: Array, nodes: int) -> Array:
    """Component number of each node, numbered in order of first appearance."""
    graph = coo_array((np.ones(len(left_K), bool), (left_K, right_K)), shape=(nodes, nodes))
    labels = connected_components(graph, directed=False)[1] if nodes else np.zeros(0, np.int64)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _distinct(canonical: pl.Series) -> tuple[pl.Series, Array]:
    """The different texts in order of first appearance, and the number of each text's one."""
    distinct = canonical.unique(maintain_order=True).rename("text")
    numbers = pl.DataFrame({"text": distinct, "group": np.arange(distinct.len(), dtype=np.int64)})
    joined = canonical.rename("text").to_frame().join(numbers, on="text", how="left", maintain_order="left")
    return distinct, joined["group"].to_numpy()


def _shingles(texts: pl.Series) -> tuple[Array, Array]:
    """Hashes of the different shingles of each text, ascending within a text, and where each text's begin. Never empty."""
    padded = (" " + texts + " ").str.pad_end(SHINGLE, " ")
    lengths_N = padded.str.len_chars().to_numpy().astype(np.int64)
    characters_C = np.frombuffer("".join(padded.to_list()).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    windows = len(characters_C) - SHINGLE + 1
    hashes = sum((characters_C[k : windows + k] * MIX[k] for k in range(SHINGLE)), np.zeros(windows, np.uint64))
    hashes ^= hashes >> np.uint64(29)
    hashes *= MIX[0]
    row_C = np.repeat(np.arange(len(lengths_N), dtype=np.uint64), lengths_N)
    keys = (row_C[:windows] << np.uint64(32)) | (hashes >> np.uint64(32))
    keys = np.sort(keys[row_C[:windows] == row_C[SHINGLE - 1 :]])
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    starts = np.searchsorted(keys, np.arange(len(lengths_N), dtype=np.uint64) << np.uint64(32))
    return keys.astype(np.uint32), starts


@dataclass(frozen=True)
class _Sketches:
    """What is kept of each text: its number of shingles, a key for each band, and eight bits of each minimum."""

    sizes_G: Array
    keys_BG: Array
    bytes_GP: Array


def _sketches(canonical: pl.Series, rows: int, bands: int) -> _Sketches:
    """MinHash sketches, several texts at a time in several threads."""
    generator = np.random.default_rng(0)
    a_P = generator.integers(0, 2**32, PERMUTATIONS, np.uint32) | np.uint32(1)
    b_P = generator.integers(0, 2**32, PERMUTATIONS, np.uint32)
    count = canonical.len()
    made = _Sketches(np.empty(count, np.int64), np.empty((bands, count), np.uint64), np.empty((count, PERMUTATIONS), np.uint8))

    def fill(span: tuple[int, int]) -> None:
        place = slice(*span)
        hashes_S, starts = _shingles(canonical[place])
        made.sizes_G[place] = np.diff(starts, append=len(hashes_S))
        permuted_S = np.empty_like(hashes_S)
        smallest_PN = np.empty((PERMUTATIONS, span[1] - span[0]), np.uint32)
        for p in range(PERMUTATIONS):
            np.multiply(hashes_S, a_P[p], out=permuted_S)
            np.add(permuted_S, b_P[p], out=permuted_S)
            np.minimum.reduceat(permuted_S, starts, out=smallest_PN[p])
        made.bytes_GP[place] = (smallest_PN >> np.uint32(7)).astype(np.uint8).T
        for band in range(bands):
            made.keys_BG[band, place] = _band_keys(smallest_PN[band * rows : (band + 1) * rows])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, _spans(canonical.str.len_chars().to_numpy() + 2, CHUNK_CHARACTERS)))
    return made


def _spans(weights_N: Array, most: int) -> Iterator[tuple[int, int]]:
    """(start, end) of consecutive chunks that weigh about `most`."""
    ends = np.cumsum(weights_N)
    start = 0
    while start < len(weights_N):
        limit = (ends[start - 1] if start else 0) + most
        end = max(int(np.searchsorted(ends, limit, side="right")), start + 1)
        yield start, end
        start = end


def _candidates(made: _Sketches, threshold: float) -> tuple[Array, Array, int]:
    """Pairs that agree in a whole band, unless their sizes or sketches rule the threshold out; and how many texts are in crowds."""
    count = len(made.sizes_G)
    found = [np.zeros((2, 0), np.int64)]
    partners_G, crowded_G = np.zeros(count, np.int64), np.zeros(count, bool)
    enough = max(MOST_PAIRS // count, FEWEST_PARTNERS)
    for band, keys_G in enumerate(made.keys_BG):
        order = np.argsort(keys_G, kind="stable")
        keys = keys_G[order]
        same = keys[1:] == keys[:-1]
        in_group = np.concatenate([[False], same]) | np.concatenate([same, [False]])
        order, keys = order[in_group], keys[in_group]
        most = max(BAND_COMPARISONS // max(len(order), 1), FEWEST_NEIGHBOURS)
        for distance in range(1, most + 1):
            near = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(near):
                break
            pairs_2K = np.stack([order[near], order[near + distance]])  # stable sort: left < right
            full = (partners_G[pairs_2K] >= enough).all(0)
            crowded_G[pairs_2K[:, full]] = True
            if distance == most:
                crowded_G[pairs_2K] = True
            pairs_2K = _likely(made, pairs_2K[:, ~full], band, threshold)
            np.add.at(partners_G, pairs_2K.ravel(), 1)
            found.append(pairs_2K)
    left_K, right_K = np.concatenate(found, axis=1)
    order = np.lexsort((right_K, left_K))
    return left_K[order], right_K[order], int(crowded_G.sum())


def _likely(made: _Sketches, pairs_2K: Array, band: int, threshold: float) -> Array:
    """The pairs that no earlier band gave, whose sizes allow the threshold, and whose sketches agree nearly as much."""
    least, kept = threshold - ESTIMATE_SLACK, [pairs_2K[:, :0]]
    for start in range(0, pairs_2K.shape[1], CHUNK_PAIRS):
        part_2K = pairs_2K[:, start : start + CHUNK_PAIRS]
        sizes_2K = made.sizes_G[part_2K]
        part_2K = part_2K[:, sizes_2K.min(0) >= threshold * sizes_2K.max(0)]
        part_2K = part_2K[:, (made.bytes_GP[part_2K[0]] == made.bytes_GP[part_2K[1]]).mean(1) >= least]
        kept.append(part_2K[:, ~(made.keys_BG[:band, part_2K[0]] == made.keys_BG[:band, part_2K[1]]).any(0)])
    return np.concatenate(kept, axis=1)


def _band_keys(part_PG: Array) -> Array:
    """One number for each column."""
    keys_G = np.zeros(part_PG.shape[1], np.uint64)
    for row_G in part_PG:
        keys_G = (keys_G ^ row_G) * MIX[0]
        keys_G ^= keys_G >> np.uint64(32)
    return keys_G


def _jaccard(canonical: pl.Series, left_K: Array, right_K: Array) -> Array:
    """Exact Jaccard similarity of each pair; the shingles are made again, for the texts of a chunk of pairs at a time."""
    out = np.empty(len(left_K), np.float64)
    lengths_G = canonical.str.len_chars().to_numpy().astype(np.int64)
    for start, end in _spans(lengths_G[left_K] + lengths_G[right_K] + 4, CHUNK_CHARACTERS):
        left, right = left_K[start:end], right_K[start:end]
        rows = np.unique(np.concatenate([left, right]))
        hashes_S, starts = _shingles(canonical[rows])
        sizes = np.diff(starts, append=len(hashes_S))
        sides = []
        for side in (np.searchsorted(rows, left), np.searchsorted(rows, right)):
            pair = np.repeat(np.arange(len(side), dtype=np.uint64), sizes[side])
            place = (
                np.arange(len(pair)) - np.repeat(np.cumsum(sizes[side]) - sizes[side], sizes[side]) + np.repeat(starts[side], sizes[side])
            )
            sides.append((pair << np.uint64(32)) | hashes_S[place])
        keys = np.sort(np.concatenate(sides))
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
        shared = np.bincount(twice.astype(np.int64), minlength=end - start)
        both = sizes[np.searchsorted(rows, left)] + sizes[np.searchsorted(rows, right)]
        out[start:end] = shared / (both - shared)
    return out
