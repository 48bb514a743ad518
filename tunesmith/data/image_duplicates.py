"""Pairs of pictures that are copies: the same, re-encoded, resized, brighter, mirrored, turned, or cropped a little.

A thumbnail's cosine coefficients over any window of it are a linear map of the thumbnail, so the 64-bit hash of a picture
in all 8 orientations and under 256 crops costs two small matrix products. Candidates are all pairs whose hashes differ by
at most a radius (an exact search); each is then aligned and verified by a correlation of 150 coefficients.

Axis legend: N pictures, Q queries, V variants (orientation x crop), W windows along one axis, S thumbnail side,
K frequencies along one axis, F coefficients kept, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.hamming import CHUNK_BITS, CHUNKS, Ints, Words, hash_index, within_radius

Floats = NDArray[np.float32]

SIDE = 32
FREQUENCIES, HASH_FREQUENCIES = 16, 10
TERMS, HASH_BITS = 150, 64
CROPS = (0.0, 1 / 30, 2 / 30, 0.1)
MOST_CROP, FINEST = 0.125, 1 / 160
FLAT = 2.0
"""Grey levels (of 255) of standard deviation below which a picture has nothing to be recognised by."""
NOISE = 1e-3
"""Variance of a unit-length coefficient that re-encoding and resampling add; weighs fine coefficients down."""
COARSE = 0.75
"""Correlation of the lowest coefficients below which a candidate is not aligned; copies lie above 0.8."""
PRIOR_ROWS = 50
BLOCK_PICTURES = 128
FEW, MANY = 5_000, 20_000
BIT_LEAST = 0.005
"""Share of the length of the coefficients above which one of them sets its bit."""
ORIENTATIONS = (
    "as it is", "mirrored", "upside down", "turned by 180", "transposed", "turned right", "turned left", "transposed the other way",
)  # fmt: skip
"""Name of orientation o: bit 0 mirrors left and right, bit 1 top and bottom, bit 2 transposes, before both."""
INVERSES = (0, 1, 2, 3, 4, 6, 5, 7)


@dataclass(frozen=True)
class ImagePairs:
    """Verified pairs: row numbers left < right, similarity (at most 1), what was done to left to get right, what was searched.

    `statement` says it in one sentence; `compared` are the candidates that were aligned, `flat` the rows without detail.
    """

    left: Ints
    right: Ints
    similarity: Floats
    transform: tuple[str, ...]
    flat: Ints
    rows: int
    compared: int
    statement: str


def thumbnail(pixels: NDArray[np.uint8]) -> Floats:
    """The picture as SIDE x SIDE grey levels (0-255, float), squeezed to a square; pixels are HxW or HxWx3."""
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L").convert("F")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)


def image_hashes(thumbnails_NSS: Floats) -> Words:
    """64 bits per picture: signs of its lowest cosine coefficients, without the constant one (Zauner 2010, pHash)."""
    return _packed(_bits(_coefficients(thumbnails_NSS, np.zeros((len(thumbnails_NSS), 4)))[:, :HASH_BITS]))


def image_pairs(hashes_N: Words, radius: int) -> tuple[Ints, Ints, NDArray[np.uint8]]:
    """All (left, right, distance) with left < right whose hashes differ in at most `radius` bits, sorted."""
    found = [(q[q < n], n[q < n], d[q < n]) for q, n, d in within_radius(hashes_N, hash_index(hashes_N), radius)]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
    left, right, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((right, left))
    return left[order], right[order], distance[order]


def find_image_pairs(thumbnails_NSS: Floats, threshold: float = 0.97, radius: int = 7, crop_radius: int | None = None) -> ImagePairs:
    """All verified pairs among the pictures; of equal thumbnails each is paired with the first alone.

    A pair is a candidate where the hash of one in one of 8 orientations differs from the other's by at most `radius` bits,
    or by at most `crop_radius` bits after one of 255 crops (0, 3, 7 or 10 % a side); by default 7, from 5,000 pictures 5,
    from 20,000 3, which is faster and finds fewer crops. It is verified where after alignment (crops of up to 12.5 % a side)
    the correlation of their whitened coefficients reaches `threshold`.
    """
    if crop_radius is None:
        crop_radius = 7 if len(thumbnails_NSS) < FEW else 5 if len(thumbnails_NSS) < MANY else 3
    flat = np.flatnonzero(thumbnails_NSS.std(axis=(1, 2)) < FLAT)
    _, first, inverse = np.unique(thumbnails_NSS.reshape(-1, SIDE * SIDE), axis=0, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[inverse] != np.arange(len(inverse)))
    copies = copies[~np.isin(copies, flat)]
    rows = np.setdiff1d(np.sort(first), flat)
    pairs = _verified(thumbnails_NSS[rows], threshold, radius, crop_radius)
    left = np.concatenate([rows[pairs.left], first[inverse[copies]]])
    right = np.concatenate([rows[pairs.right], copies])
    similarity = np.concatenate([pairs.similarity, np.ones(len(copies), np.float32)])
    names = (*pairs.names, *(ORIENTATIONS[0] for _ in copies))
    order = np.lexsort((right, left))
    statement = (
        f"{len(order)} pairs with a similarity of at least {threshold} among {len(thumbnails_NSS)} pictures, of which {len(flat)} "
        f"have no detail and were not compared; searched: all hashes within {radius} of 64 bits in 8 orientations and within "
        f"{crop_radius} bits under crops of up to 10 % a side; {pairs.compared} candidates compared"
    )
    transform = tuple(names[place] for place in order)
    return ImagePairs(left[order], right[order], similarity[order], transform, flat, len(thumbnails_NSS), pairs.compared, statement)


@dataclass(frozen=True)
class _Verified:
    left: Ints
    right: Ints
    similarity: Floats
    names: list[str]
    compared: int


@dataclass(frozen=True)
class _Whitening:
    """Mean and whitening matrix of the coefficients, so that what most pictures of a set share does not count as likeness."""

    mean_F: Floats
    matrix_FF: Floats

    def __call__(self, unit_PF: Floats) -> Floats:
        return _unit((unit_PF - self.mean_F) @ self.matrix_FF)


def _verified(thumbnails_NSS: Floats, threshold: float, radius: int, crop_radius: int) -> _Verified:
    """Pairs of distinct pictures with detail."""
    base_NF = _coefficients(thumbnails_NSS, np.zeros((len(thumbnails_NSS), 4)))
    white = _whitening(base_NF)
    white_NF = white(base_NF)
    parts, compared = [], 0
    for left, right, orientation, crop in _candidates(thumbnails_NSS, base_NF[:, :HASH_BITS], (radius, crop_radius)):
        compared += len(left)
        for steps, least in (((4, 2), threshold - 0.1), ((2, 1, 1), threshold)):
            similarity, crop = _aligned(_turned(thumbnails_NSS[left], orientation), white_NF[right], crop, white, steps)
            keep = similarity >= least
            left, right, orientation = left[keep], right[keep], orientation[keep]
            crop, similarity = crop[keep], similarity[keep]
        parts.append((left, right, similarity, orientation, crop.max(axis=1)))
    if not parts:
        return _Verified(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), [], 0)
    left, right, similarity, orientation, crop = (np.concatenate(column) for column in zip(*parts, strict=True))
    low, high = np.minimum(left, right), np.maximum(left, right)
    orientation = np.where(left > right, np.array(INVERSES)[orientation], orientation)
    order = np.lexsort((-similarity, high, low))
    best = order[_firsts(low[order], high[order])]
    names = [ORIENTATIONS[orientation[i]] + (", cropped" if crop[i] > 0.015 else "") for i in best]
    return _Verified(low[best], high[best], np.minimum(similarity[best], 1), names, compared)


def _candidates(thumbnails_NSS: Floats, base_NF: Floats, radii: tuple[int, int]) -> Iterator[tuple[Ints, Ints, Ints, Floats]]:
    """Blocks of (left, right, orientation, crop_P4): for each pair in the radius the variant of left most like right."""
    white = _whitening(_unit(base_NF))
    index, coarse_NF = hash_index(_packed(_bits(base_NF))), white(_unit(base_NF))
    crops_V4 = np.array([(a, b, c, d) for a in CROPS for b in CROPS for c in CROPS for d in CROPS], np.float32)
    variants = 8 * len(crops_V4)
    for start in range(0, len(base_NF), BLOCK_PICTURES):
        both_N2VF = _both_ways(thumbnails_NSS[start : start + BLOCK_PICTURES])
        queries_Q = _variant_hashes(both_N2VF)
        plain = np.arange(len(queries_Q)) % len(crops_V4) == 0
        hits = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        for chosen, radius in ((np.flatnonzero(plain), radii[0]), (np.flatnonzero(~plain), radii[1])):
            for query, right, _ in within_radius(queries_Q[chosen], index, radius):
                query = chosen[query]
                other = start + query // variants != right
                query, right = query[other], right[other]
                likeness = np.einsum("pf,pf->p", white(_unit(_variant(both_N2VF, query))), coarse_NF[right])
                near = likeness > COARSE
                hits.append((query[near], right[near], likeness[near]))
        query, right, likeness = (np.concatenate(column) for column in zip(*hits, strict=True))
        left = start + query // variants
        order = np.lexsort((-likeness, right, left))
        best = order[_firsts(left[order], right[order])]
        for part in range(0, len(best), 4096):
            piece = best[part : part + 4096]
            orientation, crop = np.divmod(query[piece] % variants, len(crops_V4))
            yield left[piece], right[piece], orientation, crops_V4[crop]


def _both_ways(thumbnails_NSS: Floats) -> Floats:
    """The lowest coefficients of each picture and of its transpose under all crops, N x 2 x V x F."""
    ends = [(a, b) for a in CROPS for b in CROPS]
    basis = np.concatenate([_basis(a, b)[:HASH_FREQUENCIES] for a, b in ends])
    size = (len(thumbnails_NSS), len(ends), HASH_FREQUENCIES, len(ends), HASH_FREQUENCIES)
    full = (basis @ thumbnails_NSS @ basis.T).reshape(size)
    along, across = _terms(HASH_BITS)
    shape = (len(thumbnails_NSS), 1, len(ends) ** 2, HASH_BITS)
    upright = full.transpose(0, 1, 3, 2, 4)[..., along, across].reshape(shape)
    transposed = full.transpose(0, 3, 1, 4, 2)[..., along, across].reshape(shape)
    return np.concatenate([upright, transposed], axis=1)


@cache
def _flips() -> tuple[Ints, Floats]:
    """For each of 4 flips (lower bits of the orientation): the crop that it makes of each crop, and signs of coefficients.

    Mirroring swaps the crops of left and right and changes the sign of odd frequencies.
    """
    crops = np.arange(len(CROPS) ** 4).reshape((len(CROPS),) * 4)
    along, across = _terms(HASH_BITS)
    places, signs = [], []
    for flip in range(4):
        turned = crops.transpose((1, 0, 2, 3) if flip & 2 else (0, 1, 2, 3))
        turned = turned.transpose((0, 1, 3, 2) if flip & 1 else (0, 1, 2, 3))
        places.append(turned.ravel())
        signs.append((-1.0) ** ((along * (flip >> 1)) + across * (flip & 1)))
    return np.stack(places), np.array(signs, np.float32)


def _variant_hashes(both_N2VF: Floats) -> Words:
    """Hashes of all orientations and crops, (N * 8 * V)."""
    places, signs = _flips()
    least = BIT_LEAST * np.linalg.norm(both_N2VF, axis=-1, keepdims=True)
    over, under = both_N2VF > least, both_N2VF < -least
    variants = [np.where(signs[flip] > 0, over, under)[:, :, places[flip]] for flip in range(4)]
    return _packed(np.stack(variants, axis=2).reshape(-1, HASH_BITS))


def _variant(both_N2VF: Floats, query_P: Ints) -> Floats:
    """Coefficients of the variants with these numbers in `_variant_hashes`."""
    places, signs = _flips()
    picture, orientation, crop = np.unravel_index(query_P, (len(both_N2VF), 8, both_N2VF.shape[2]))
    return np.asarray(both_N2VF[picture, orientation >> 2, places[orientation & 3, crop]] * signs[orientation & 3])


def _aligned(
    thumbnails_PSS: Floats, target_PF: Floats, crop_P4: Floats, white: _Whitening, steps: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Best similarity to the target and the crop (top, bottom, left, right shares) that gives it: coordinate search."""
    moves = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    crop_P4 = np.round(crop_P4 / FINEST).astype(np.int64)
    most = round(MOST_CROP / FINEST)
    rows = np.arange(len(crop_P4))
    best = np.full(len(crop_P4), -1.0, np.float32)
    for step in steps:
        for axis in (0, 2):
            tried_PM4 = np.repeat(crop_P4[:, None], len(moves), axis=1)
            tried_PM4[:, :, axis : axis + 2] += step * moves
            tried_PM4 = np.clip(tried_PM4, 0, most)
            unit = _coefficients(thumbnails_PSS, tried_PM4.astype(np.float64) * FINEST)
            similarity = np.einsum("pmf,pf->pm", white(unit), target_PF)
            choice = similarity.argmax(axis=1)
            crop_P4, best = tried_PM4[rows, choice], similarity[rows, choice]
    return best.astype(np.float32), (crop_P4 * FINEST).astype(np.float32)


def _coefficients(thumbnails_PSS: Floats, crop_PM4: NDArray[np.float64]) -> Floats:
    """Unit vectors of the TERMS lowest cosine coefficients (no constant) of windows of the thumbnails; P x F or P x M x F."""
    index = np.round(crop_PM4 / FINEST).astype(np.int64)
    table = _bases()
    along, across = _terms(TERMS)
    out = []
    for start in range(0, len(index), 256):
        piece = index[start : start + 256]
        half = np.matmul(
            table[piece[..., 0], piece[..., 1]], thumbnails_PSS[start : start + 256][(slice(None), *[None] * (index.ndim - 2))]
        )
        full = np.matmul(half, table[piece[..., 2], piece[..., 3]].swapaxes(-1, -2))
        out.append(_unit(full[..., along, across]))
    return np.concatenate(out) if out else np.empty((*index.shape[:-1], TERMS), np.float32)


@cache
def _bases() -> Floats:
    """The cosine basis of every window [start, 1 - end] in steps of FINEST, indexed by both."""
    steps = round(MOST_CROP / FINEST) + 1
    return np.stack([np.stack([_basis(a * FINEST, b * FINEST) for b in range(steps)]) for a in range(steps)])


def _basis(start: float, end: float) -> Floats:
    """FREQUENCIES x SIDE: integrals over each cell of cos(pi k (u - start) / length) within the window [start, 1 - end]."""
    length = 1 - end - start
    edges = np.clip(np.linspace(0, 1, SIDE + 1), start, 1 - end)
    k = np.arange(1, FREQUENCIES)[:, None]
    waves = np.diff(np.sin(np.pi * k * (edges - start) / length), axis=1) / (np.pi * k) * np.sqrt(2)
    return np.concatenate([np.diff(edges)[None] / length, waves]).astype(np.float32)


@cache
def _terms(count: int) -> tuple[Ints, Ints]:
    """Frequencies (along y, along x) of the lowest `count` coefficients, the constant one left out."""
    pairs = [(i, j) for i in range(FREQUENCIES) for j in range(FREQUENCIES) if i + j]
    lowest = sorted(pairs, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:count]
    along, across = np.array(lowest).T
    return along, across


def _whitening(base_NF: Floats) -> _Whitening:
    """Mean and covariance of the coefficients of this set, drawn to those of natural pictures (1/f) where the set is small."""
    along, across = _terms(base_NF.shape[1])
    prior = 1 / (along**2 + across**2)
    share = len(base_NF) / (len(base_NF) + PRIOR_ROWS)
    mean = base_NF.mean(axis=0) if len(base_NF) else np.zeros(len(prior))
    centred = base_NF - mean
    spread = centred.T @ centred / max(1, len(base_NF))
    values, vectors = np.linalg.eigh(share * spread + (1 - share) * np.diag(prior / prior.sum()))
    return _Whitening((share * mean).astype(np.float32), (vectors / np.sqrt(values + NOISE)).astype(np.float32))


def _turned(thumbnails_PSS: Floats, orientation_P: Ints) -> Floats:
    """Each thumbnail in its orientation (see ORIENTATIONS)."""
    turned = np.where((orientation_P & 4 > 0)[:, None, None], thumbnails_PSS.swapaxes(1, 2), thumbnails_PSS)
    turned = np.where((orientation_P & 2 > 0)[:, None, None], turned[:, ::-1], turned)
    return np.where((orientation_P & 1 > 0)[:, None, None], turned[:, :, ::-1], turned)


def _unit(values: NDArray[Any]) -> Floats:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12), dtype=np.float32)


def _bits(values_NF: Floats) -> NDArray[np.bool_]:
    """Where a coefficient is clearly positive: noise about zero, as in symmetric pictures, sets no bit."""
    return np.asarray(values_NF > BIT_LEAST * np.linalg.norm(values_NF, axis=-1, keepdims=True))


def _packed(bits_N64: NDArray[np.bool_]) -> Words:
    """64 bits as one word, spread so that each 16-bit chunk has low and high frequencies."""
    spread = bits_N64.reshape(-1, CHUNK_BITS, CHUNKS).swapaxes(1, 2).reshape(-1, HASH_BITS)
    return np.packbits(spread, axis=1).view(np.uint64).ravel()


def _firsts(left: Ints, right: Ints) -> NDArray[np.bool_]:
    """Where a sorted list of pairs has a pair for the first time."""
    new = np.ones(len(left), bool)
    new[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return new
