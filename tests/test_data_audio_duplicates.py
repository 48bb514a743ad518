"""Copies among recordings: planted copies are found, other takes are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import butter, resample_poly, sosfilt

from tunesmith.data.audio import resampled, to_mono
from tunesmith.data.audio_duplicates import FINGERPRINT_RATE, find_audio_pairs, spectrogram
from tunesmith.data.audio_pitch import pitch_spectrum, pitched

RATE = FINGERPRINT_RATE
FSDD = Path(__file__).parents[2] / "shared" / "data" / "fsdd" / "audio"


def speech(seed: int, seconds: float = 1.2, pitch: float = 1.0) -> np.ndarray:
    """Syllables: harmonics of a wandering pitch through moving formants."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    knots = np.linspace(0, 1, 8)
    base = np.interp(np.linspace(0, 1, count), knots, rng.uniform(100, 240, 8)) * pitch
    loud = np.interp(np.linspace(0, 1, count), knots, rng.uniform(0, 1, 8)) ** 2
    phase = 2 * np.pi * np.cumsum(base) / RATE
    formants = [np.interp(np.linspace(0, 1, count), knots, rng.uniform(low, high, 8)) for low, high in ((250, 900), (900, 2600))]
    voice = np.zeros(count)
    for k in range(1, 16):
        gain = sum(np.exp(-(((k * base / pitch - f) / 150) ** 2)) for f in formants) + 0.02
        voice += gain * np.sin(k * phase)
    return (0.2 * loud * voice + 1e-4 * rng.standard_normal(count)).astype(np.float32)


def coded(samples: np.ndarray, form: str, subtype: str) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=form, subtype=subtype)
    buffer.seek(0)
    decoded, rate = soundfile.read(buffer, dtype="float32", always_2d=True)
    return to_mono(decoded, rate, RATE)[0]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x.copy(),
    "level": lambda x: 0.2 * x,
    "inverted": lambda x: -x,
    "trimmed": lambda x: x[700:-900],
    "shifted": lambda x: np.concatenate([np.zeros(1234, np.float32), x]),
    "resampled": lambda x: resampled(resample_poly(x, 11_025, 8000).astype(np.float32), 11_025, RATE),
    "flac": lambda x: coded(x, "FLAC", "PCM_16"),
    "ogg": lambda x: coded(x, "OGG", "VORBIS"),
    "mp3": lambda x: coded(x, "MP3", "MPEG_LAYER_III"),
    "noisy": lambda x: x + (0.1 * np.sqrt((x**2).mean()) * np.random.default_rng(0).standard_normal(len(x))).astype(np.float32),
    "filtered": lambda x: sosfilt(butter(2, 2500, fs=RATE, output="sos"), x).astype(np.float32),
}


def test_planted_copies_are_found_and_nothing_else() -> None:
    originals = [speech(seed) for seed in range(30)]
    found = find_audio_pairs(originals + [change(originals[n]) for n, change in enumerate(CHANGES.values())])
    assert list(zip(found.left, found.right, strict=True)) == [(n, 30 + n) for n in range(len(CHANGES))]
    assert found.statement.startswith(f"{len(CHANGES)} pairs among {30 + len(CHANGES)} recordings")


@pytest.mark.parametrize(("factor", "semitones"), [(2 ** (1.5 / 12), 1.5), (2 ** (-1.5 / 12), -1.5)])
def test_another_pitch_is_found_and_measured(factor: float, semitones: float) -> None:
    def voice(seed: int, shift: float) -> np.ndarray:
        """Tones on a melody of their own: a shift moves all of them alike."""
        rng = np.random.default_rng(seed)
        count = 4 * RATE
        melodies = [np.repeat(rng.uniform(350, 2500, 20), count // 20) for _ in range(3)]
        return sum(0.2 * np.sin(2 * np.pi * np.cumsum(m) * shift / RATE) for m in melodies).astype(np.float32)

    found = find_audio_pairs([*(voice(seed, 1) for seed in range(12)), voice(3, factor)])
    assert list(zip(found.left, found.right, strict=True)) == [(3, 12)]
    assert found.match == (f"spectrum, {semitones:+g} semitones",)


def test_silence_is_counted_not_paired() -> None:
    found = find_audio_pairs([np.zeros(4000, np.float32), speech(0), np.zeros(4000, np.float32), np.zeros(0, np.float32)])
    assert found.silent.tolist() == [0, 2, 3]
    assert len(found.left) == 0


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_and_very_short_recordings(count: int) -> None:
    assert len(find_audio_pairs([np.random.default_rng(n).standard_normal(10).astype(np.float32) for n in range(count)]).left) == 0


def test_the_spectrogram_does_not_know_the_level() -> None:
    np.testing.assert_allclose(spectrogram(speech(1)), spectrogram(0.1 * speech(1)), atol=0.05)


@pytest.mark.skipif(not FSDD.is_dir(), reason="the data for measuring is not there")
def test_takes_of_one_word_are_not_copies() -> None:
    takes = [soundfile.read(path, dtype="float32")[0] for path in sorted(FSDD.glob("3_theo_*.wav"))]
    copies = [CHANGES["mp3"](x) for x in takes[:10]] + [CHANGES["trimmed"](x) for x in takes[10:20]]
    found = find_audio_pairs(takes + copies)
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == {(n, len(takes) + n) for n in range(20)}


@pytest.mark.parametrize("semitones", [-2.0, -1.0, 1.0, 1.5, 2.0])
def test_short_copies_at_another_pitch_are_found(semitones: float) -> None:
    factor = 2 ** (semitones / 12)
    originals = [speech(seed, 0.6) for seed in range(15)]
    same_tempo = [speech(seed, 0.6, factor) for seed in range(3)]
    faster = [resample_poly(originals[seed], 1000, round(1000 * factor)).astype(np.float32) for seed in range(3, 6)]
    found = find_audio_pairs([*originals, *same_tempo, *faster])
    assert list(zip(found.left, found.right, strict=True)) == [(n, 15 + n) for n in range(6)]
    heard = [float(match.split()[1]) for match in found.match]
    assert np.allclose(heard, semitones, atol=0.5)


def test_the_shift_is_that_of_the_other_and_none_is_no_copy() -> None:
    one, other = pitch_spectrum(speech(1, 0.6)), pitch_spectrum(speech(1, 0.6, 2 ** (1.5 / 12)))
    there, back = pitched(one, other), pitched(other, one)
    assert there.semitones == 1.5 and back.semitones == -1.5
    assert there.likeness == pytest.approx(back.likeness, abs=1e-4)
    assert there.is_copy and not pitched(one, one).is_copy


@pytest.mark.skipif(not FSDD.is_dir(), reason="the recordings of spoken digits are not here")
def test_a_digit_at_another_pitch_is_told_from_other_takes_of_it() -> None:
    files = [FSDD / f"{digit}_{speaker}_{take}.wav" for digit in (0, 8) for speaker in ("george", "nicolas") for take in range(10)]
    takes = [to_mono(samples, rate, RATE)[0] for samples, rate in (soundfile.read(f, dtype="float32", always_2d=True) for f in files)]
    moved = [
        resample_poly(takes[n], 1000, round(1000 * 2 ** (s / 12))).astype(np.float32) for n, s in ((0, 2), (11, -2), (22, 1), (33, -1))
    ]
    found = find_audio_pairs([*takes, *moved])
    pairs = set(zip(found.left.tolist(), found.right.tolist(), strict=True))
    assert {(0, 40), (11, 41), (22, 42), (33, 43)} <= pairs
    assert not [pair for pair in pairs if pair[1] < 40] and len(pairs) <= 6
