"""Copies planted among pictures and recordings: the share found of each kind, and the pairs reported that were not planted.

python bench/media_duplicates.py IMAGE_OR_AUDIO_FOLDER... [--rows 2000] [--share 0.3] [--kinds KIND...] [--show]

A fifth (--share) of the items gets one copy of a random kind. Pairs of two originals are counted as false here, although
some are copies that were in the data before; --show names them.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy.signal import istft, resample_poly, stft

Rng = np.random.Generator
Picture = Image.Image
Samples = NDArray[np.float32]
ROOT = Path(__file__).parent.parent


def jpeg(picture: Picture, rng: Rng) -> Picture:
    """Written as JPEG of quality 50 to 95 and read again."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(50, 96)))
    return Image.open(buffer).copy()


def cropped(picture: Picture, rng: Rng) -> Picture:
    """Without up to 10 % of each side."""
    left, top, right, bottom = rng.uniform(0, 0.1, 4)
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), width - round(right * width), height - round(bottom * height)))


def resized(picture: Picture, rng: Rng) -> Picture:
    """At 60 to 160 % of its size."""
    scale = rng.uniform(0.6, 1.6)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC)


def brightened(picture: Picture, rng: Rng) -> Picture:
    """80 to 120 % as bright."""
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.8, 1.2))


IMAGE_KINDS: dict[str, Callable[[Picture, Rng], Picture]] = {
    "bytes": lambda picture, rng: picture.copy(),
    "jpeg": jpeg,
    "resized": resized,
    "cropped": cropped,
    "cropped, same size": lambda picture, rng: cropped(picture, rng).resize(picture.size, Image.Resampling.BICUBIC),
    "cropped, jpeg": lambda picture, rng: jpeg(cropped(picture, rng), rng),
    "mirrored": lambda picture, rng: ImageOps.mirror(picture),
    "mirrored, cropped": lambda picture, rng: ImageOps.mirror(cropped(picture, rng)),
    "rotated": lambda picture, rng: picture.rotate(int(rng.choice([90, 180, 270])), expand=True),
    "brightness": brightened,
}


def coded(samples: Samples, rate: int, form: str, subtype: str) -> tuple[Samples, int]:
    """Written in another container or codec and read again."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), rate, format=form, subtype=subtype)
    buffer.seek(0)
    decoded, rate = soundfile.read(buffer, dtype="float32")
    return decoded, rate


def trimmed(samples: Samples, rng: Rng) -> Samples:
    """Without up to 10 % at each end."""
    start, end = (int(share * len(samples)) for share in rng.uniform(0, 0.1, 2))
    return samples[start : len(samples) - end]


def noisy(samples: Samples, rng: Rng) -> Samples:
    """With white noise 20 dB below."""
    noise = rng.standard_normal(len(samples)).astype(np.float32)
    return samples + noise * np.sqrt((samples**2).mean() / (noise**2).mean()) / 10


def pitched(samples: Samples, rate: int, semitones: float) -> Samples:
    """At another pitch in the same time: a phase vocoder stretches, resampling restores the length."""
    size, factor = (512 if rate <= 8000 else 1024), 2 ** (semitones / 12)
    spectrum = stft(samples, nperseg=size, noverlap=size * 3 // 4, boundary="even")[2]
    place = np.arange(0, spectrum.shape[1] - 1, 1 / factor)
    frame = place.astype(int)
    level = (1 - place + frame) * np.abs(spectrum[:, frame]) + (place - frame) * np.abs(spectrum[:, frame + 1])
    advance = np.angle(spectrum[:, frame + 1]) - np.angle(spectrum[:, frame])
    phase = np.cumsum(np.concatenate([np.angle(spectrum[:, :1]), advance[:, :-1]], axis=1), axis=1)
    stretched = istft(level * np.exp(1j * phase), nperseg=size, noverlap=size * 3 // 4)[1]
    turned = resample_poly(stretched, 1000, round(1000 * factor))[: len(samples)]
    return np.pad(turned, (0, len(samples) - len(turned))).astype(np.float32)


SEMITONES = (-2, -1.5, -1, 1, 1.5, 2)
AUDIO_KINDS: dict[str, Callable[[Samples, int, Rng], tuple[Samples, int]]] = {
    "flac": lambda x, rate, rng: coded(x, rate, "FLAC", "PCM_16"),
    "level": lambda x, rate, rng: (x * np.float32(10 ** (rng.uniform(-12, 3) / 20)), rate),
    "resampled": lambda x, rate, rng: (resample_poly(x, 3, 2).astype(np.float32), rate * 3 // 2),
    "trimmed": lambda x, rate, rng: (trimmed(x, rng), rate),
    "shifted": lambda x, rate, rng: (np.concatenate([np.zeros(int(rng.uniform(0.02, 0.3) * rate), np.float32), x]), rate),
    "ogg": lambda x, rate, rng: coded(x, rate, "OGG", "VORBIS"),
    "mp3": lambda x, rate, rng: coded(x, rate, "MP3", "MPEG_LAYER_III"),
    "trimmed, mp3": lambda x, rate, rng: coded(trimmed(x, rng), rate, "MP3", "MPEG_LAYER_III"),
    "noise at 20 dB": lambda x, rate, rng: (noisy(x, rng), rate),
    "pitch, 1 to 2 semitones": lambda x, rate, rng: (pitched(x, rate, float(rng.choice(SEMITONES))), rate),
    "pitch and tempo": lambda x, rate, rng: (
        resample_poly(x, 1000, round(1000 * 2 ** (rng.choice(SEMITONES) / 12))).astype(np.float32),
        rate,
    ),
}


def report(found: list[tuple[int, int]], planted: dict[int, tuple[int, str]], kinds: list[str], files: list[str], show: bool) -> None:
    """One line per kind, then the pairs that were not planted. `planted`: row of the copy to (row of the original, kind)."""
    pairs, rows = set(found), len(files) + len(planted)
    hits = {copy: (original, copy) in pairs for copy, (original, _) in planted.items()}
    for kind in kinds:
        mine = [hits[copy] for copy, (_, name) in planted.items() if name == kind]
        print(f"    {kind:24} {sum(mine):5} of {len(mine):5} found")
    family = {copy: original for copy, (original, _) in planted.items()}
    false = [(a, b) for a, b in found if family.get(a, a) != family.get(b, b)]
    original = [(a, b) for a, b in false if b < len(files)]
    share = len(false) / max(1, len(found))
    print(
        f"  recall {np.mean(list(hits.values())):.2%}, pairs reported {len(found)}, not planted {len(false)} ({share:.2%} of those", end=""
    )
    print(f" reported, {len(false) / (rows * (rows - 1) / 2):.1e} of all pairs), of which between originals {len(original)}")
    if show:
        for a, b in original[:40]:
            print("     ", files[a], files[b])


def images(files: list[Path], share: float, kinds: list[str], show: bool) -> None:
    """Plant, search and report for one folder of pictures."""
    from tunesmith.data.image_duplicates import find_image_pairs, thumbnail

    rng, kinds = np.random.default_rng(7), [kind for kind in IMAGE_KINDS if kind in kinds or not kinds]
    pictures = [Image.open(file) for file in files]
    pictures = [picture if picture.mode in ("L", "RGB") else picture.convert("RGB") for picture in pictures]
    chosen = rng.permutation(len(files))[: int(share * len(files))]
    planted = {len(files) + n: (int(row), kinds[n % len(kinds)]) for n, row in enumerate(chosen)}
    pictures += [IMAGE_KINDS[kind](pictures[row], rng) for row, kind in planted.values()]
    started = time.perf_counter()
    thumbnails = np.stack([thumbnail(np.asarray(picture)) for picture in pictures])
    made = time.perf_counter()
    pairs = find_image_pairs(thumbnails)
    print(f"  thumbnails {made - started:.1f} s, search {time.perf_counter() - made:.1f} s: {pairs.statement}")
    report(list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)), planted, kinds, [f.name for f in files], show)


def recordings(files: list[Path], share: float, kinds: list[str], show: bool) -> None:
    """Plant, search and report for one folder of recordings."""
    from tunesmith.data.audio import to_mono
    from tunesmith.data.audio_duplicates import FINGERPRINT_RATE, find_audio_pairs

    rng, kinds = np.random.default_rng(7), [kind for kind in AUDIO_KINDS if kind in kinds or not kinds]
    sounds = [soundfile.read(file, dtype="float32") for file in files]
    chosen = rng.permutation(len(files))[: int(share * len(files))]
    planted = {len(files) + n: (int(row), kinds[n % len(kinds)]) for n, row in enumerate(chosen)}
    sounds += [AUDIO_KINDS[kind](*sounds[row], rng) for row, kind in planted.values()]
    started = time.perf_counter()
    pairs = find_audio_pairs([to_mono(samples[:, None], rate, FINGERPRINT_RATE)[0] for samples, rate in sounds])
    print(f"  search {time.perf_counter() - started:.1f} s: {pairs.statement}")
    report(list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)), planted, kinds, [f.name for f in files], show)


def main() -> None:
    """Each folder in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--kinds", nargs="*", default=[], help="plant these kinds alone")
    parser.add_argument("--show", action="store_true", help="name the pairs that were not planted")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    for folder in options.folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".wav"))
        files = [files[i] for i in sorted(np.random.default_rng(1).permutation(len(files))[: options.rows])]
        print(f"{folder.name}: {len(files)} items", flush=True)
        (recordings if files[0].suffix.lower() == ".wav" else images)(files, options.share, options.kinds, options.show)


if __name__ == "__main__":
    main()
