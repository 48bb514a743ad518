"""A contact sheet of what each change does to recordings: waveform above log-mel spectrogram, and the changed sound as WAV.

Axis legend: S samples (float32, full scale 1), T frames, B mel bands, H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data import augment_audio as augment
from tunesmith.data.audio import RATE
from tunesmith.data.augment_audio import Floats, Rng
from tunesmith.data.augment_images import Pixels, row_rng
from tunesmith.data.preview_images import Sheet, png_bytes, sheet_of

SECONDS = 3.0
"""What is shown and heard of a recording, from its start: a page with many would be large."""
WIDTH, WAVE_HEIGHT, MEL_HEIGHT = 240, 56, 96
WINDOW, HOP, BANDS, FLOOR_DB = 512, 160, 64, 60.0
WAVE, GROUND = (49, 130, 189), (244, 244, 244)
SHADES = ((13, 8, 35), (84, 15, 109), (187, 55, 84), (249, 140, 10), (252, 255, 164))
"""From silence to the loudest."""


@dataclass(frozen=True)
class Sounds:
    """The sheet, and the WAV file of each original (first) and changed recording as [row][column]; None where none is heard.

    `clipped` is how many of them exceed full scale and are cut there in the WAV file.
    """

    sheet: Sheet
    wav: tuple[tuple[bytes | None, ...], ...]
    clipped: int


Change = Callable[[Floats, Rng], tuple[Floats, str]]


def gain(samples_S: Floats, rng: Rng) -> tuple[Floats, str]:
    """4 to 10 decibels softer or louder."""
    decibels = rng.uniform(4, 10) * rng.choice([-1, 1])
    return augment.gain(samples_S, (decibels, decibels), rng), f"{decibels:+.0f} dB"


def noise(samples_S: Floats, rng: Rng) -> tuple[Floats, str]:
    """With white noise 5 to 15 decibels below."""
    ratio = rng.uniform(5, 15)
    return augment.white_noise(samples_S, (ratio, ratio), rng), f"white noise {ratio:.0f} dB below"


def shift(samples_S: Floats, rng: Rng) -> tuple[Floats, str]:
    """Later or earlier by up to a fifth of the length."""
    return augment.shift(samples_S, 0.2, rng), "moved in time, silence fills in"


def speed(samples_S: Floats, rng: Rng) -> tuple[Floats, str]:
    """10 to 20 % faster or slower, with the pitch."""
    factor = rng.uniform(1.1, 1.2) ** rng.choice([-1, 1])
    return augment.speed(samples_S, factor), f"{factor:.2f} times as fast"


CHANGES: dict[str, Change] = {"gain": gain, "noise": noise, "shift": shift, "speed": speed}
MASKS = "spec_augment"
NAMES = (*CHANGES, MASKS)


def sound_sheet(names: Sequence[str], sounds: Sequence[tuple[str, Floats]], seed: int) -> Sounds:
    """Waveform, spectrogram and sound of these changes to each of (name, samples at RATE), cut to SECONDS.

    Waveforms of a row have one scale, so that a change of level is seen; the same arguments give the same bytes.
    """
    rows, captions, files, clipped = [], [], [], 0
    for name, whole_S in sounds:
        samples_S = whole_S[: round(SECONDS * RATE)]
        seconds, peak, mel_TB = len(samples_S) / RATE, float(np.abs(samples_S).max(initial=1e-6)), log_mel(samples_S)
        cells, said = [_cell(samples_S, mel_TB, peak, seconds)], []
        heard: list[Floats | None] = [samples_S]
        for change in names:
            rng = row_rng(seed, f"{name}:{change}", 0)
            if change == MASKS:
                changed_S, masked_TB = None, augment.mask_spectrogram(mel_TB, (2, 2), (20, 12), rng)
                cells.append(_cell(samples_S, masked_TB, peak, seconds))
                said.append("stripes of the spectrogram at its mean; the sound stays")
            else:
                changed_S, words = CHANGES[change](samples_S, rng)
                cells.append(_cell(changed_S, log_mel(changed_S), peak, seconds))
                said.append(words)
            heard.append(changed_S)
        clipped += sum(part_S is not None and bool((np.abs(part_S) > 1).any()) for part_S in heard)
        rows.append(cells)
        captions.append(tuple(said))
        files.append(tuple(None if part_S is None else _wav(part_S) for part_S in heard))
    sheet = Sheet(png_bytes(sheet_of(rows, ("original", *names))), tuple(names), tuple(name for name, _ in sounds), tuple(captions))
    return Sounds(sheet, tuple(files), clipped)


def log_mel(samples_S: Floats) -> Floats:
    """Decibels of BANDS mel bands every 10 ms at RATE, T x B, at most FLOOR_DB below the loudest."""
    from transformers.audio_utils import mel_filter_bank, spectrogram

    filters = _filters(mel_filter_bank)
    power_BT = spectrogram(
        np.pad(samples_S, (0, max(0, WINDOW - len(samples_S)))), np.hanning(WINDOW + 1)[:-1], WINDOW, HOP, power=2.0, mel_filters=filters
    )
    level_TB = 10 * np.log10(power_BT.T + 1e-10)
    return np.asarray(np.maximum(level_TB, level_TB.max() - FLOOR_DB), dtype=np.float32)


def _filters(mel_filter_bank: Callable[..., Any]) -> Any:
    return mel_filter_bank(WINDOW // 2 + 1, BANDS, 20.0, RATE / 2, RATE, mel_scale="htk")


def _cell(samples_S: Floats, mel_TB: Floats, peak: float, seconds: float) -> Pixels:
    """Waveform above spectrogram on a time axis of 1.25 times `seconds`, so that a slower copy is longer."""
    span = 1.25 * seconds
    return np.concatenate([_waveform(samples_S, peak, span), _spectrogram(mel_TB, span)])


def _waveform(samples_S: Floats, peak: float, span: float) -> Pixels:
    """Low and high of each column's samples, H x W x 3; full height is twice the peak of the original."""
    picture = np.full((WAVE_HEIGHT, WIDTH, 3), GROUND, np.uint8)
    used = max(1, min(WIDTH, round(WIDTH * len(samples_S) / RATE / span)))
    middle = WAVE_HEIGHT // 2
    for column, part_S in enumerate(np.array_split(samples_S, used)):
        if len(part_S):
            low, high = np.clip(np.array([part_S.min(), part_S.max()]) / (2 * peak), -1, 1) * (middle - 1)
            picture[middle - round(float(high)) : middle - round(float(low)) + 1, column] = WAVE
    return picture


def _spectrogram(mel_TB: Floats, span: float) -> Pixels:
    """Levels as shades, low bands below, H x W x 3."""
    from PIL import Image

    level_BT = (mel_TB.T[::-1] - mel_TB.max() + FLOOR_DB) / FLOOR_DB
    used = max(1, min(WIDTH, round(WIDTH * len(mel_TB) * HOP / RATE / span)))
    small = Image.fromarray(np.asarray(np.clip(level_BT, 0, 1) * 255, np.uint8)).resize((used, MEL_HEIGHT), Image.Resampling.BILINEAR)
    places = np.linspace(0, 255, len(SHADES))
    table = np.stack([np.interp(np.arange(256), places, [shade[c] for shade in SHADES]) for c in range(3)], axis=1).astype(np.uint8)
    picture = np.full((MEL_HEIGHT, WIDTH, 3), GROUND, np.uint8)
    picture[:, :used] = table[np.asarray(small)]
    return picture


def _wav(samples_S: Floats) -> bytes:
    """A WAV file of 16 bits at RATE."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(samples_S, -1, 1), RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()
