"""Recordings as mono samples at one rate, and what is wrong with those that have none or carry no content."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE = 16_000
MOST_SECONDS = 4 * 3600.0
"""Recordings that declare or hold more are refused: 4 hours are 1 GB as samples."""
SILENT_PEAK = 10 ** (-60 / 20)
CLIPPED_SHARE, CLIP_LEVEL, CLIP_RUN = 0.001, 0.999, 3
DC_SHARE = 0.1
"""Offset beyond this share of the root mean square (and above -60 dB) is a fault of the recording chain."""
LENGTH_DEVIATIONS, LENGTH_FACTOR = 6.0, 3.0
SCHEMA: dict[str, Any] = {
    "path": pl.String, "problems": pl.List(pl.String), "detail": pl.String, "seconds": pl.Float64, "rate": pl.Int64,
    "channels": pl.Int64, "format": pl.String, "converted": pl.List(pl.String), "peak": pl.Float64, "rms": pl.Float64,
    "clipped": pl.Float64, "offset": pl.Float64, "content": pl.String,
}  # fmt: skip


class AudioProblem(StrEnum):
    """What is wrong with a recording; the first five mean that it has no samples."""

    MISSING = "missing"
    NOT_AUDIO = "not_audio"
    CORRUPT = "corrupt"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    LYING_HEADER = "lying_header"
    SILENT = "silent"
    CLIPPED = "clipped"
    OFFSET = "offset"
    SAME_CHANNELS = "same_channels"
    EMPTY_CHANNEL = "empty_channel"
    SHORT_OUTLIER = "short_outlier"
    LONG_OUTLIER = "long_outlier"
    OTHER_RATE = "other_rate"


AUDIO_EXPLANATIONS: dict[AudioProblem, str] = {
    AudioProblem.MISSING: "There is no file at this path, or it cannot be opened.",
    AudioProblem.NOT_AUDIO: "The bytes are in no known audio format, whatever the name says.",
    AudioProblem.CORRUPT: "The header is that of a recording, but its data cannot be decoded, or holds values that are not numbers.",
    AudioProblem.EMPTY: "There is not one sample.",
    AudioProblem.TOO_LONG: "The header declares, or the file holds, more seconds than the limit; it was not used.",
    AudioProblem.LYING_HEADER: "The header declares another number of samples than the file holds.",
    AudioProblem.SILENT: "No sample is louder than -60 dB of full scale.",
    AudioProblem.CLIPPED: f"More than {CLIPPED_SHARE:.1%} of the samples lie in runs of {CLIP_RUN} or more at full scale.",
    AudioProblem.OFFSET: f"The mean is further from zero than {DC_SHARE:.0%} of the root mean square.",
    AudioProblem.SAME_CHANNELS: "All channels hold the same samples: mono stored as more.",
    AudioProblem.EMPTY_CHANNEL: "A channel is silent while another is not.",
    AudioProblem.SHORT_OUTLIER: "Much shorter than the other recordings.",
    AudioProblem.LONG_OUTLIER: "Much longer than the other recordings.",
    AudioProblem.OTHER_RATE: "Another sampling rate than most recordings have.",
}


@dataclass(frozen=True)
class Audio:
    """A recording: mono samples (float32, full scale 1) at `rate` Hz, what was converted, and problems.

    `channels_SC` are the samples as stored, at `stored_rate` Hz; None where `problems` says that there are none.
    """

    path: str
    samples: Floats | None = None
    rate: int = RATE
    stored_rate: int = 0
    channels_SC: Floats | None = None
    format: str = ""
    converted: tuple[str, ...] = ()
    problems: tuple[AudioProblem, ...] = ()
    detail: str = ""


def read_audio(path: str | Path, rate: int = RATE, most_seconds: float = MOST_SECONDS) -> Audio:
    """The recording as mono at `rate` Hz (polyphase resampling), or its problem. Never raises for a damaged file."""
    import soundfile

    record = Audio(str(path), rate=rate)
    try:
        if Path(path).stat().st_size == 0:
            return replace(record, problems=(AudioProblem.EMPTY,))
        with soundfile.SoundFile(str(path)) as file:
            stored, form, declared = file.samplerate, f"{file.format} {file.subtype}", file.frames
            most = int(most_seconds * stored)
            if declared > most and not 0 < Path(path).stat().st_size < declared // 64:
                return replace(record, problems=(AudioProblem.TOO_LONG,), detail=f"{declared / stored:.0f} s declared")
            samples_SC = file.read(frames=most + 1, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        known = any(word in str(error).lower() for word in ("not recognised", "unknown format"))
        return replace(record, problems=(AudioProblem.NOT_AUDIO if known else AudioProblem.CORRUPT,), detail=str(error))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return replace(record, problems=(AudioProblem.MISSING,), detail=str(error))
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return replace(record, problems=(AudioProblem.CORRUPT,), detail=str(error))
    if not len(samples_SC):
        return replace(record, problems=(AudioProblem.EMPTY,))
    if len(samples_SC) > most:
        return replace(record, problems=(AudioProblem.TOO_LONG,), detail=f"more than {most_seconds:.0f} s")
    if not np.isfinite(samples_SC).all():
        return replace(record, problems=(AudioProblem.CORRUPT,), detail="samples that are not finite")
    declared = _declared_frames(path) or declared
    lying = (AudioProblem.LYING_HEADER,) if declared != len(samples_SC) else ()
    detail = f"{declared} samples declared, {len(samples_SC)} found" if lying else ""
    mono, converted = to_mono(samples_SC, stored, rate)
    return replace(
        record, samples=mono, stored_rate=stored, channels_SC=samples_SC, format=form, converted=converted, problems=lying, detail=detail
    )


def to_mono(samples_SC: Floats, stored_rate: int, rate: int) -> tuple[Floats, tuple[str, ...]]:
    """The mean of the channels at `rate` Hz, and the names of what was done."""
    converted = []
    mono = samples_SC[:, 0]
    if samples_SC.shape[1] > 1:
        mono = samples_SC.mean(axis=1)
        converted.append(f"mean of {samples_SC.shape[1]} channels")
    if stored_rate != rate:
        mono = resampled(mono, stored_rate, rate)
        converted.append(f"{stored_rate} Hz to {rate} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32), tuple(converted)


def resampled(mono: Floats, stored_rate: int, rate: int) -> Floats:
    """Samples at another rate, by polyphase filtering."""
    from scipy.signal import resample_poly

    divisor = gcd(stored_rate, rate)
    return np.asarray(resample_poly(mono, rate // divisor, stored_rate // divisor), dtype=np.float32)


def check_audio(paths: Sequence[str | Path], most_seconds: float = MOST_SECONDS) -> pl.DataFrame:
    """One row a path in order: problems (empty where sound), detail, seconds, rate, channels, levels, content hash.

    The hash is SHA-256 of the stored samples in 16 bits, so that WAV and FLAC of the same recording agree.
    """
    rows = [_row(read_audio(path, most_seconds=most_seconds)) for path in paths]
    return pl.DataFrame(_with_outliers(rows), schema=SCHEMA)


def _row(audio: Audio) -> dict[str, Any]:
    row: dict[str, Any] = {
        **dict.fromkeys(SCHEMA),
        "path": audio.path,
        "detail": audio.detail,
        "problems": [str(p) for p in audio.problems],
    }
    row["converted"] = list(audio.converted)
    samples_SC = audio.channels_SC
    if samples_SC is None:
        return row
    peaks = np.abs(samples_SC).max(axis=0)
    rms = float(np.sqrt(np.mean(samples_SC.astype(np.float64) ** 2)))
    offset = float(np.abs(samples_SC.mean(axis=0, dtype=np.float64)).max())
    clipped = max(_clipped_share(samples_SC[:, c]) for c in range(samples_SC.shape[1]))
    several = samples_SC.shape[1] > 1
    found = {
        AudioProblem.SILENT: peaks.max() < SILENT_PEAK,
        AudioProblem.CLIPPED: clipped > CLIPPED_SHARE,
        AudioProblem.OFFSET: offset > max(DC_SHARE * rms, SILENT_PEAK),
        AudioProblem.SAME_CHANNELS: several and bool((samples_SC == samples_SC[:, :1]).all()),
        AudioProblem.EMPTY_CHANNEL: several and peaks.min() < SILENT_PEAK <= peaks.max(),
    }
    words = np.round(np.clip(samples_SC * 32768, -32768, 32767)).astype("<i2")
    content = hashlib.sha256(f"{words.shape} {audio.stored_rate}".encode() + words.tobytes()).hexdigest()
    row["problems"] += [str(problem) for problem, holds in found.items() if holds]
    row.update(seconds=len(samples_SC) / audio.stored_rate, rate=audio.stored_rate, channels=samples_SC.shape[1], format=audio.format)
    row.update(peak=float(peaks.max()), rms=rms, clipped=clipped, offset=offset, content=content)
    return row


def _clipped_share(samples: Floats) -> float:
    """Share of samples in runs of CLIP_RUN or more at full scale or at one loudest level: single peaks are not clipping."""
    loud = np.abs(samples) >= CLIP_LEVEL
    edges = np.diff(np.concatenate([[0], loud.astype(np.int8), [0]]))
    runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return float(runs[runs >= CLIP_RUN].sum() / len(samples))


def _with_outliers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the problems that show only against the others: length far from the median, a rate few have."""
    sound = [row for row in rows if row["seconds"]]
    if len(sound) < 10:
        return rows
    lengths = np.log([row["seconds"] for row in sound])
    centre = float(np.median(lengths))
    deviation = 1.4826 * float(np.median(np.abs(lengths - centre)))
    limit = max(LENGTH_DEVIATIONS * deviation, float(np.log(LENGTH_FACTOR)))
    usual = Counter(row["rate"] for row in sound).most_common(1)[0][0]
    for row, length in zip(sound, lengths, strict=True):
        if abs(length - centre) > limit:
            row["problems"].append(str(AudioProblem.LONG_OUTLIER if length > centre else AudioProblem.SHORT_OUTLIER))
        if row["rate"] != usual:
            row["problems"].append(str(AudioProblem.OTHER_RATE))
    return rows


def _declared_frames(path: str | Path) -> int | None:
    """Samples per channel that a WAV header declares (the library trusts the file's length instead); None for other formats."""
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return None
        align = 0
        while len(head := file.read(8)) == 8:
            name, size = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"data":
                return size // align if align else None
            body = file.read(16) if name == b"fmt " else b""
            align = struct.unpack("<H", body[12:14])[0] if len(body) == 16 else align
            file.seek(size + size % 2 - len(body), 1)
    return None
