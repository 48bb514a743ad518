"""Random changes of recordings that keep the label: level, noise, shift, speed, and masks on spectrograms.

Every function is pure: (samples, ..., rng) gives new samples. Take the rng from `tunesmith.data.augment_images.row_rng`.

Axis legend: S samples (float32, full scale 1), T frames, B bands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rng = np.random.Generator


def gain(samples_S: Floats, decibels: tuple[float, float], rng: Rng) -> Floats:
    """Louder or softer by a number of decibels drawn from the range; not clipped, so that no distortion is added."""
    return np.asarray(samples_S * 10 ** (rng.uniform(*decibels) / 20), dtype=np.float32)


def add_noise(samples_S: Floats, noise_S: Floats, decibels: float) -> Floats:
    """With noise at exactly this ratio of mean powers in decibels; silence in either leaves the samples as they are.

    Shorter noise is repeated, longer noise is cut.
    """
    noise_S = np.resize(noise_S, len(samples_S)).astype(np.float64)
    power, noise_power = np.mean(samples_S.astype(np.float64) ** 2), np.mean(noise_S**2)
    if not power or not noise_power:
        return samples_S.copy()
    return np.asarray(samples_S + noise_S * np.sqrt(power / noise_power / 10 ** (decibels / 10)), dtype=np.float32)


def white_noise(samples_S: Floats, decibels: tuple[float, float], rng: Rng) -> Floats:
    """With white noise at a ratio drawn from the range in decibels."""
    return add_noise(samples_S, rng.standard_normal(len(samples_S)).astype(np.float32), rng.uniform(*decibels))


def shift(samples_S: Floats, most: float, rng: Rng) -> Floats:
    """Later or earlier by up to this share of the length; silence fills in, nothing wraps round."""
    by = round(rng.uniform(-most, most) * len(samples_S))
    out = np.zeros_like(samples_S)
    if by >= 0:
        out[by:] = samples_S[: len(samples_S) - by]
    else:
        out[:by] = samples_S[-by:]
    return out


def speed(samples_S: Floats, factor: float) -> Floats:
    """Played `factor` times as fast, pitch included (Ko et al. 2015); the length is divided by the factor."""
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(1 / factor).limit_denominator(100)
    return np.asarray(resample_poly(samples_S, ratio.numerator, ratio.denominator), dtype=np.float32)


def mask_spectrogram(spectrogram_TB: Floats, masks: tuple[int, int], widths: tuple[int, int], rng: Rng) -> Floats:
    """With `masks` (in time, in bands) stripes of up to `widths` set to the mean (Park et al. 2019, SpecAugment).

    A stripe is at most a fifth of the frames, so that short recordings keep most of theirs.
    """
    out = spectrogram_TB.copy()
    mean = spectrogram_TB.mean()
    for axis, (count, most) in enumerate(zip(masks, widths, strict=True)):
        size = out.shape[axis]
        limit = min(most, size // 5 if axis == 0 else size)
        for _ in range(count):
            width = int(rng.integers(0, limit + 1))
            start = int(rng.integers(0, size - width + 1))
            stripe = (slice(start, start + width), slice(None))
            out[stripe if axis == 0 else stripe[::-1]] = mean
    return out
