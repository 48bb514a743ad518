"""Copies planted among pictures and recordings: the share found of each kind, and the pairs reported that were not planted.

python bench/media_duplicates.py IMAGE_OR_AUDIO_FOLDER... [--rows 2000] [--share 0.3] [--show]

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
from PIL import Image, ImageEnhance, ImageOps

Rng = np.random.Generator
Picture = Image.Image
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


def report(found: list[tuple[int, int]], planted: dict[int, tuple[int, str]], kinds: list[str], files: list[str], show: bool) -> None:
    """One line per kind, then the pairs that were not planted. `planted`: row of the copy to (row of the original, kind)."""
    pairs, rows = set(found), len(files) + len(planted)
    hits = {copy: (original, copy) in pairs for copy, (original, _) in planted.items()}
    for kind in kinds:
        mine = [hits[copy] for copy, (_, name) in planted.items() if name == kind]
        print(f"    {kind:20} {sum(mine):5} of {len(mine):5} found")
    family = {copy: original for copy, (original, _) in planted.items()}
    false = [(a, b) for a, b in found if family.get(a, a) != family.get(b, b)]
    original = [(a, b) for a, b in false if b < len(files)]
    share = len(false) / max(1, len(found))
    print(f"  recall {np.mean(list(hits.values())):.2%}, pairs reported {len(found)}, not planted {len(false)} ({share:.2%} of those", end="")
    print(f" reported, {len(false) / (rows * (rows - 1) / 2):.1e} of all pairs), of which between originals {len(original)}")
    if show:
        for a, b in original[:40]:
            print("     ", files[a], files[b])


def images(files: list[Path], share: float, show: bool) -> None:
    """Plant, search and report for one folder of pictures."""
    from tunesmith.data.image_duplicates import find_image_pairs, thumbnail

    rng, kinds = np.random.default_rng(7), list(IMAGE_KINDS)
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


def main() -> None:
    """Each folder in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--show", action="store_true", help="name the pairs that were not planted")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    for folder in options.folders:
        pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        order = np.random.default_rng(1).permutation(len(pictures))[: options.rows]
        print(f"{folder.name}: {len(order)} items")
        images([pictures[i] for i in sorted(order)], options.share, options.show)


if __name__ == "__main__":
    main()
