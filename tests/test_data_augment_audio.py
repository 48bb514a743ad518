"""Changed recordings: the ratio to the noise is exact, lengths are as said, and the same seed gives the same sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import augment_audio as augment
from tunesmith.data.augment_images import row_rng


def sound(seed: int = 0, count: int = 4000) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "gain": lambda x, rng: augment.gain(x, (-6, 6), rng),
    "noise": lambda x, rng: augment.white_noise(x, (5, 30), rng),
    "shift": lambda x, rng: augment.shift(x, 0.2, rng),
    "masks": lambda x, rng: augment.mask_spectrogram(x.reshape(100, 40), (2, 2), (20, 8), rng).ravel(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_length_and_type_stay_and_the_seed_decides(name: str) -> None:
    samples = sound()
    before = samples.copy()
    results = [CHANGES[name](samples, row_rng(1, row, 0)) for row in ("a", "a", "b", "c")]
    assert all(r.shape == samples.shape and r.dtype == np.float32 for r in results)
    np.testing.assert_array_equal(results[0], results[1])
    assert any((results[0] != r).any() for r in results[2:])
    np.testing.assert_array_equal(samples, before)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.floats(-10, 40), st.integers(10, 9000))
def test_the_ratio_to_the_noise_is_exact(seed: int, decibels: float, length: int) -> None:
    samples, noise = sound(seed), sound(seed + 1, length)
    added = augment.add_noise(samples, noise, decibels).astype(np.float64) - samples
    assert 10 * np.log10(np.mean(samples.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(decibels, abs=0.01)


def test_silence_gets_no_noise() -> None:
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(augment.add_noise(silence, sound(), 10), silence)
    np.testing.assert_array_equal(augment.add_noise(sound(), silence, 10), sound())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_a_shift_moves_and_does_not_wrap(seed: int) -> None:
    samples = np.arange(1, 101, dtype=np.float32)
    moved = augment.shift(samples, 0.3, np.random.default_rng(seed))
    heard = moved[moved > 0]
    assert (np.diff(heard) == 1).all() and 70 <= len(heard) <= 100
    assert heard[0] == 1 or heard[-1] == 100


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 1.25])
def test_speed_divides_the_length_and_raises_the_pitch(factor: float) -> None:
    rate = 8000
    tone = np.sin(2 * np.pi * 400 * np.arange(rate) / rate).astype(np.float32)
    faster = augment.speed(tone, factor)
    assert len(faster) == pytest.approx(rate / factor, abs=2)
    peak = np.fft.rfftfreq(len(faster), 1 / rate)[np.abs(np.fft.rfft(faster)).argmax()]
    assert peak == pytest.approx(400 * factor, abs=2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 80))
def test_masks_are_stripes_of_the_mean(seed: int, frames: int, bands: int) -> None:
    rng = np.random.default_rng(seed)
    spectrogram = rng.standard_normal((frames, bands)).astype(np.float32)
    masked = augment.mask_spectrogram(spectrogram, (1, 0), (10, 0), rng)
    changed = (masked != spectrogram).any(axis=1)
    assert changed.sum() <= max(0, frames // 5)
    assert (masked[changed] == spectrogram.mean()).all()
