"""Whether one short recording is another at another pitch, with its tempo or without.

A shifted copy moves everything along the log-frequency axis alike, the formants too. Another take of the word keeps the formants
of its speaker where they are, however it is sung. So it counts how much better two recordings agree when one is moved.

Axis legend: T frames, B bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE = 8_000
WINDOW, HOP, POINTS = 1024, 160, 2048
"""128 ms resolve the harmonics of a voice; 20 ms."""
LOWEST_HZ, HIGHEST_HZ, BANDS_PER_OCTAVE = 100.0, 3600.0, 24
RANGE_DB = 50.0
BROAD_FRAMES, BROAD_BANDS = 6.0, 24.0
"""What is broader than 120 ms or an octave is what all recordings of one voice and microphone share."""
LEAST_STEP, MOST_STEP = 1.2, 5
"""Shifts searched, in bands of half a semitone: 0.6 to 2.5 semitones; smaller ones are not told from none."""
OVERLAP = 0.75
PROMISING = 0.6
"""Correlation from which it is tried whether the tempo changed with the pitch."""
LIKENESS, LIKENESS_PLAYED, GAIN = 0.88, 0.91, 0.02
"""Least correlation of copies, at the same tempo and at that of the pitch, and least gain of the shift: planted copies of spoken
digits and other takes of them part there."""


@dataclass(frozen=True)
class Pitched:
    """Normalised correlation of two recordings at their best shift and offset, and the semitones by which the other is higher.

    `gain` is how much less they agree without a shift, `played` whether the tempo was taken to change with the pitch.
    """

    likeness: float
    gain: float
    semitones: float
    played: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether the one is the other at another pitch."""
        return self.likeness >= (LIKENESS_PLAYED if self.played else LIKENESS) and self.gain >= GAIN


def pitch_spectrum(samples: Floats) -> Floats:
    """Decibels of half-semitone bands without what is broad in time and frequency, T x B; samples at RATE."""
    from scipy.ndimage import gaussian_filter

    frames = max(1, 1 + (len(samples) - 1) // HOP)
    padded = np.pad(samples, (WINDOW // 2, WINDOW // 2 + HOP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames] * np.hanning(WINDOW)
    place, share = _places()
    power = np.abs(np.fft.rfft(windows, POINTS)) ** 2
    level = 10 * np.log10((1 - share) * power[:, place] + share * power[:, place + 1] + 1e-12)
    spectrum_TB = np.clip(level - np.percentile(level.max(axis=1), 95) + RANGE_DB, 0, None)
    return np.asarray(spectrum_TB - gaussian_filter(spectrum_TB, (BROAD_FRAMES, BROAD_BANDS)), dtype=np.float32)


def pitched(one_TB: Floats, other_TB: Floats) -> Pitched:
    """How well the two agree where `other` is `one` at another pitch, at its tempo or at that of the pitch; both from `pitch_spectrum`."""
    found = _agreement(one_TB, other_TB)
    if found.likeness < PROMISING or found.is_copy:
        return found
    factor = 2 ** (found.semitones / 12)
    place = np.clip(np.arange(round(len(other_TB) * factor)) / factor, 0, len(other_TB) - 1)
    before = place.astype(np.int64)
    share_T1 = (place - before).astype(np.float32)[:, None]
    slower_TB = (1 - share_T1) * other_TB[before] + share_T1 * other_TB[np.minimum(before + 1, len(other_TB) - 1)]
    played = _agreement(one_TB, slower_TB)
    unmoved = found.likeness - found.gain
    return found if found.likeness >= played.likeness else Pitched(played.likeness, played.likeness - unmoved, played.semitones, True)


def _agreement(one_TB: Floats, other_TB: Floats) -> Pitched:
    """The best offset and shift by one correlation over both axes."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    size = next_fast_len(len(one_TB) + len(other_TB), real=True), next_fast_len(one_TB.shape[1] + MOST_STEP + 1, real=True)
    correlation = irfft2(rfft2(one_TB, size) * rfft2(other_TB, size).conj(), size)
    offsets, steps = np.arange(size[0]), np.arange(-MOST_STEP, MOST_STEP + 1)
    offsets[offsets > len(one_TB)] -= size[0]
    overlap = np.minimum(len(one_TB) - np.maximum(offsets, 0), len(other_TB) - np.maximum(-offsets, 0))
    offsets = offsets[overlap >= max(1, OVERLAP * min(len(one_TB), len(other_TB)))]
    sums = correlation[np.ix_(offsets, steps)]
    moved = np.abs(steps) >= LEAST_STEP
    likeness, step = _best(one_TB, other_TB, sums[:, moved], offsets, steps[moved])
    unmoved, _ = _best(one_TB, other_TB, sums[:, ~moved], offsets, steps[~moved])
    return Pitched(likeness, likeness - unmoved, -step * 12 / BANDS_PER_OCTAVE)


def _best(one_TB: Floats, other_TB: Floats, sums: NDArray[Any], offsets: NDArray[Any], steps: NDArray[Any]) -> tuple[float, int]:
    """Normalised correlation where the sum of products is largest, and the bands by which `one` is higher there."""
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    offset, step = int(offsets[row]), int(steps[column])
    frames = min(len(one_TB) - max(offset, 0), len(other_TB) - max(-offset, 0))
    bands = one_TB.shape[1] - abs(step)
    x = one_TB[max(offset, 0) :][:frames, max(step, 0) :][:, :bands]
    y = other_TB[max(-offset, 0) :][:frames, max(-step, 0) :][:, :bands]
    return float((x * y).sum() / np.sqrt(float((x * x).sum()) * float((y * y).sum()) + 1e-9)), step


@cache
def _places() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The Fourier bin below each band's centre, and the share of the next one."""
    bands = int(np.log2(HIGHEST_HZ / LOWEST_HZ) * BANDS_PER_OCTAVE)
    centres = LOWEST_HZ * 2 ** (np.arange(bands) / BANDS_PER_OCTAVE) * POINTS / RATE
    place = centres.astype(np.int64)
    return place, centres - place
