"""Pairs of recordings that are copies: another container or level, resampled, trimmed, shifted, lossy, noisy, or re-pitched.

Candidates are the nearest neighbours of each recording by a whitened spectral profile of 3 x 64 numbers, also after moving
it along the log-frequency axis. A candidate is verified by the normalised correlation of the waveforms at their best
offset, or of the local detail of their log-frequency spectrograms at their best offset and pitch shift. Short ones at another pitch
are told from other takes by how much better they agree when shifted (see audio_pitch).

Axis legend: N recordings, T frames, B bands, F profile numbers, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.audio_pitch import GAIN, LIKENESS, pitch_spectrum, pitched

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FINGERPRINT_RATE = 8_000
"""Hz; what all recordings have in common, also telephone ones and those from lossy codecs."""
WINDOW, HOP, POINTS = 256, 80, 512
BANDS, BANDS_PER_OCTAVE, LOWEST_HZ = 64, 16, 230.0
RANGE_DB, LOUD_DB = 50.0, 25.0
PITCH_STEPS = tuple(range(-3, 4))
"""Shifts searched, in bands of 0.75 semitones: up to 2.25 semitones either way."""
OVERLAP = 0.6
NEIGHBOURS, PITCHED_NEIGHBOURS = 20, 8
SHORT_SECONDS, LONG_SECONDS = 1.0, 3.0
"""Up to the first, detail tells copies of another pitch from other takes only by the gain of a shift; from the second, it does alone."""
PRIOR_ROWS, PROFILE_NOISE = 50, 0.3
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class AudioPairs:
    """Verified pairs: row numbers left < right, similarity (at most 1), how they match, and what was searched.

    `match` is "waveform", or "spectrum" with the pitch shift in semitones. `silent` are the rows that were not compared,
    `compared` the candidates that were aligned. `statement` says it in one sentence.
    """

    left: Ints
    right: Ints
    similarity: Floats
    match: tuple[str, ...]
    silent: Ints
    rows: int
    compared: int
    statement: str


def find_audio_pairs(recordings: Sequence[Floats], waveform: float = 0.95, short: float = 0.93, long: float = 0.55) -> AudioPairs:
    """All verified pairs among mono recordings at FINGERPRINT_RATE (see `tunesmith.data.audio.read_audio`).

    A pair is verified where waveforms correlate by at least `waveform`, or spectral detail by at least `short` in overlaps of
    up to 1 s and `long` from 3 s on (between them linear): two takes of one word are alike by nature, two sentences are not.
    """
    peaks = np.array([np.abs(x).max() if len(x) else 0.0 for x in recordings])
    silent, heard = np.flatnonzero(peaks < 1e-3), np.flatnonzero(peaks >= 1e-3)
    spectra = [spectrogram(recordings[int(row)]) for row in heard]
    prints = [_print(recordings[int(row)], spectrum) for row, spectrum in zip(heard, spectra, strict=True)]
    found, compared = [], 0
    for a, b in _candidates(spectra):
        compared += 1
        match = _match(prints[a], prints[b], waveform, (short, long))
        if match is not None:
            found.append((int(heard[a]), int(heard[b]), *match))
    found.sort()
    statement = (
        f"{len(found)} pairs among {len(recordings)} recordings, of which {len(silent)} are silent and were not compared; "
        f"searched: the {NEIGHBOURS} nearest of each by spectral profile and {PITCHED_NEIGHBOURS} more at each of "
        f"{len(PITCH_STEPS) - 1} pitch shifts of up to 2.25 semitones; {compared} candidates compared, with a waveform "
        f"correlation of at least {waveform} or a spectral one of at least {short} (up to 1 s) to {long} (from 3 s), "
        f"over at least {OVERLAP:.0%} of the shorter one, or up to 3 s one of at least {LIKENESS} at another pitch that is {GAIN} "
        f"better than at the same"
    )
    left_P, right_P = (np.array([pair[side] for pair in found], np.int64) for side in (0, 1))
    similarity_P = np.array([pair[2] for pair in found], np.float32)
    return AudioPairs(left_P, right_P, similarity_P, tuple(pair[3] for pair in found), silent, len(recordings), compared, statement)


@dataclass(frozen=True)
class _Print:
    """What is compared of a recording: samples, detail of its spectrogram, and for short ones the finer one for pitch."""

    samples: Floats
    detail_TB: Floats
    pitch_TB: Floats | None

    @property
    def seconds(self) -> float:
        return len(self.samples) / FINGERPRINT_RATE


def _print(samples: Floats, spectrum_TB: Floats) -> _Print:
    short = len(samples) <= LONG_SECONDS * FINGERPRINT_RATE
    return _Print(samples, _detail(spectrum_TB), pitch_spectrum(samples) if short else None)


def _match(one: _Print, other: _Print, waveform: float, spectral: tuple[float, float]) -> tuple[float, str] | None:
    """Similarity of two recordings and how they match; None where they are not copies."""
    likeness = _waveform_similarity(one.samples, other.samples)
    if likeness >= waveform:
        return likeness, "waveform"
    steps = (0,) if min(one.seconds, other.seconds) <= SHORT_SECONDS else PITCH_STEPS
    likeness, step, frames = _spectral_similarity(one.detail_TB, other.detail_TB, steps)
    if likeness >= np.interp(frames * HOP / FINGERPRINT_RATE, [SHORT_SECONDS, LONG_SECONDS], spectral):
        return likeness, f"spectrum, {step * 12 / BANDS_PER_OCTAVE:+g} semitones" if step else "spectrum"
    if one.pitch_TB is None or other.pitch_TB is None:
        return None
    moved = pitched(one.pitch_TB, other.pitch_TB)
    return (moved.likeness, f"spectrum, {moved.semitones:+g} semitones") if moved.is_copy else None


def spectrogram(samples: Floats) -> Floats:
    """Decibels above a floor 50 dB below the loud frames, T x BANDS, log-frequency bands of 0.75 semitones from 230 Hz."""
    frames = max(1, 1 + (len(samples) - WINDOW) // HOP)
    padded = np.pad(samples, (0, max(0, WINDOW + HOP * (frames - 1) - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows, POINTS)) ** 2 @ _band_weights().T
    level = 10 * np.log10(power + 1e-12)
    return np.asarray(np.clip(level - np.percentile(level.max(axis=1), 95) + RANGE_DB, 0, None), dtype=np.float32)


@cache
def _band_weights() -> NDArray[np.float64]:
    """Triangles about each band's centre, at least one Fourier bin wide, with unit sum."""
    centres = LOWEST_HZ * 2 ** (np.arange(BANDS) / BANDS_PER_OCTAVE)
    width = np.maximum(centres * (2 ** (1 / BANDS_PER_OCTAVE) - 1), FINGERPRINT_RATE / POINTS)
    bins = np.fft.rfftfreq(POINTS, 1 / FINGERPRINT_RATE)
    weights = np.maximum(0, 1 - np.abs(bins - centres[:, None]) / width[:, None])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _profile(spectrum_TB: Floats) -> Floats:
    """Mean, deviation and mean change of each band over the loud frames, 3 x B: no gain, offset or silence in it."""
    level = spectrum_TB.mean(axis=1)
    loud = level > np.percentile(level, 95) - LOUD_DB
    heard = spectrum_TB[loud] if loud.sum() > 4 else spectrum_TB
    mean = heard.mean(axis=0)
    change = np.abs(np.diff(heard, axis=0)).mean(axis=0) if len(heard) > 1 else np.zeros_like(mean)
    return np.stack([mean - mean.mean(), heard.std(axis=0), change])


def _candidates(spectra: Sequence[Floats]) -> Iterator[tuple[int, int]]:
    """Pairs a < b where one is among the nearest of the other, as it is or with its pitch moved, each once, in order."""
    if len(spectra) < 2:
        return
    profiles = np.stack([_profile(spectrum) for spectrum in spectra])
    flat_NF = profiles.reshape(len(profiles), -1)
    mean_F, matrix_FF = _whitening(flat_NF)
    base_NF = _unit((flat_NF - mean_F) @ matrix_FF)
    pairs: set[tuple[int, int]] = set()
    for step in PITCH_STEPS:
        count = min(NEIGHBOURS if step == 0 else PITCHED_NEIGHBOURS, len(base_NF) - 1)
        # Bands that come into view repeat the outermost one: what leaves at the other end is no likeness of theirs.
        moved = profiles[:, :, np.clip(np.arange(BANDS) - step, 0, BANDS - 1)].reshape(flat_NF.shape)
        for start in range(0, len(base_NF), BLOCK_ROWS):
            query = _unit((moved[start : start + BLOCK_ROWS] - mean_F) @ matrix_FF)
            likeness = query @ base_NF.T
            own = np.arange(len(query))
            likeness[own, start + own] = -2
            nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
            pairs.update((min(start + i, int(j)), max(start + i, int(j))) for i, row in enumerate(nearest) for j in row)
    yield from sorted(pairs)


def _whitening(flat_NF: Floats) -> tuple[Floats, Floats]:
    """Mean and whitening matrix of the profiles, drawn to equal variances where the set is small."""
    centred = flat_NF - flat_NF.mean(axis=0)
    spread = centred.T @ centred / len(flat_NF)
    share = len(flat_NF) / (len(flat_NF) + PRIOR_ROWS)
    size = len(spread)
    values, vectors = np.linalg.eigh(share * spread + (1 - share) * np.trace(spread) / size * np.eye(size))
    return flat_NF.mean(axis=0), np.asarray(vectors / np.sqrt(np.maximum(values, 0) + PROFILE_NOISE), dtype=np.float32)


def _unit(values_NF: NDArray[Any]) -> Floats:
    return np.asarray(values_NF / np.maximum(np.linalg.norm(values_NF, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _detail(spectrum_TB: Floats) -> Floats:
    """The spectrogram without what is broad in time (60 ms) and frequency (6 semitones): what two takes do not share."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(spectrum_TB - gaussian_filter(spectrum_TB, (6, 8)), dtype=np.float32)


def _waveform_similarity(one: Floats, other: Floats) -> float:
    """Largest normalised correlation (of either sign) over all offsets with enough overlap."""
    correlation, offsets, overlap = _correlation(one[:, None], other[:, None])
    starts, other_starts = np.maximum(offsets, 0), np.maximum(-offsets, 0)
    energy, other_energy = (np.concatenate([[0.0], np.cumsum(x.astype(np.float64) ** 2)]) for x in (one, other))
    product = (energy[starts + overlap] - energy[starts]) * (other_energy[other_starts + overlap] - other_energy[other_starts])
    least = (0.5 * np.sqrt(energy[-1] * other_energy[-1])) ** 2
    return float(np.max(np.abs(correlation) / np.sqrt(np.maximum(product, least))))


def _spectral_similarity(one_TB: Floats, other_TB: Floats, steps: Sequence[int]) -> tuple[float, int, int]:
    """Best normalised correlation, the pitch step of `other` against `one` that gives it, and the overlap in frames."""
    best = (-1.0, 0, 0)
    for step in steps:
        a = one_TB[:, : BANDS - step] if step >= 0 else one_TB[:, -step:]
        b = other_TB[:, step:] if step >= 0 else other_TB[:, : BANDS + step]
        correlation, offsets, overlap = _correlation(a, b)
        place = int(correlation.argmax())
        offset, frames = int(offsets[place]), int(overlap[place])
        x = a[max(offset, 0) : max(offset, 0) + frames]
        y = b[max(-offset, 0) : max(-offset, 0) + frames]
        likeness = float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum() + 1e-9))
        best = max(best, (likeness, step, frames))
    return best


def _correlation(one_TB: Floats, other_TB: Floats) -> tuple[NDArray[np.float64], Ints, Ints]:
    """Sum of products at each offset (start of `other` in `one`) with enough overlap, the offsets, and the overlaps."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(len(one_TB) + len(other_TB), real=True)
    products = rfft(one_TB, size, axis=0) * rfft(other_TB, size, axis=0).conj()
    correlation = irfft(products.sum(axis=1), size)
    offsets = np.arange(size)
    offsets[offsets > len(one_TB)] -= size
    overlap = np.minimum(len(one_TB) - np.maximum(offsets, 0), len(other_TB) - np.maximum(-offsets, 0))
    enough = overlap >= max(1, OVERLAP * min(len(one_TB), len(other_TB)))
    return np.asarray(correlation[enough], np.float64), offsets[enough], overlap[enough]
