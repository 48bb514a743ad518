"""The preview of pictures, boxes and recordings: the same seed gives the same page, boxes move with what they name, nothing is silent."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from tests.test_cli import call
from tunesmith.cli import commands
from tunesmith.core.errors import DataError
from tunesmith.data.preview_audio import log_mel, sound_sheet
from tunesmith.data.preview_images import CHANGES, Boxed, picture_sheet
from tunesmith.data.sources.base import Items, dropped_table
from tunesmith.stages.items import items_of
from tunesmith.stages.preview import Choice, preview_items


def picture(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A smooth gradient with a bright square."""
    rng = np.random.default_rng(seed)
    grey = np.add.outer(np.linspace(40, 120, size[0]), np.linspace(0, 60, size[1]))[..., None] * rng.uniform(0.5, 1, 3)
    return grey.astype(np.uint8)


def photos(folder: Path) -> Path:
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(picture(number + 10 * (label == "dog"))).save(folder / label / f"{label}{number}.png")
    return folder


def boxes(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(5):
        pixels = picture(number)
        pixels[10:20, 30:44] = 250
        Image.fromarray(pixels).save(folder / f"images/p{number}.png")
        images.append({"id": number, "file_name": f"p{number}.png", "width": 64, "height": 48})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [30, 10, 14, 10]})
    raw = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "<b>cell</b>"}]}
    (folder / "instances.json").write_text(json.dumps(raw))
    return folder


def sounds(folder: Path) -> Path:
    for label, pitch in (("low", 200), ("high", 900)):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            tone = 0.5 * np.sin(2 * np.pi * (pitch + 30 * number) * np.arange(8000) / 16_000)
            soundfile.write(folder / label / f"{label}{number}.wav", tone, 16_000)
    return folder


def page(folder: Path, name: str, **choice: object) -> str:
    items = items_of(str(folder))
    assert items is not None
    target = folder.parent / name
    return preview_items(items, "a & <b>", Choice(**choice), target).read_text("utf-8")  # type: ignore[arg-type]


def sheet_of(text: str) -> np.ndarray:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert found
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


@pytest.mark.parametrize("make", [photos, boxes, sounds])
def test_the_same_seed_gives_the_same_page(tmp_path: Path, make: object) -> None:
    folder = make(tmp_path / "data")  # type: ignore[operator]
    one = page(folder, "a.html", rows=2, seed=1)
    assert one == page(folder, "b.html", rows=2, seed=1)
    assert one != page(folder, "c.html", rows=2, seed=2)
    assert "a &amp; &lt;b&gt;" in one and "<b>cell" not in one and "http" not in one.replace("http-equiv", "")


def test_every_change_is_seen_and_no_picture_is_lost(tmp_path: Path) -> None:
    one = Boxed("one", picture(0))
    pictures = [one, *(Boxed(f"p{n}", picture(n)) for n in range(1, 5))]
    for name, change in CHANGES.items():
        for seed in range(20):
            changed, said = change(one, pictures[1:], np.random.default_rng(seed))
            difference = np.abs(changed.pixels.astype(int) - one.pixels).mean()
            assert changed.pixels.shape == one.pixels.shape and said
            assert difference > 0.5, (name, seed)
            assert changed.pixels.std() > 3, (name, seed)


@pytest.mark.parametrize("name", ["flip", "rotate", "scale", "crop", "mixup", "mosaic"])
def test_boxes_are_where_their_squares_are(name: str) -> None:
    def square(seed: int) -> Boxed:
        pixels = np.zeros((90, 120), np.uint8)
        left, top = np.random.default_rng(seed).integers(20, 60, 2)
        pixels[top : top + 20, left : left + 30] = 255
        return Boxed(f"s{seed}", pixels, None, np.array([[left, top, left + 30.0, top + 20]]), ("square",))

    for seed in range(20):
        changed, _ = CHANGES[name](square(seed), [square(seed + n) for n in (1, 2, 3)], np.random.default_rng(seed))
        assert changed.boxes_B4 is not None and len(changed.boxes_B4) == len(changed.labels_B)
        bright = (changed.pixels > 150) if name != "mixup" else changed.pixels > 60
        covered = np.zeros_like(bright)
        for left, top, right, bottom in np.round(changed.boxes_B4).astype(int):
            covered[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
            assert bright[top:bottom, left:right].mean() > 0.45
        assert (bright & ~covered).sum() <= 0.25 * 600 * 2  # a box mostly out of view goes, and leaves its rest behind


def test_a_cell_does_not_depend_on_the_other_changes(tmp_path: Path) -> None:
    pictures = [Boxed(f"p{n}", picture(n)) for n in range(5)]
    whole = picture_sheet(pictures[:2], pictures, tuple(CHANGES), 3)
    part = picture_sheet(pictures[:2], pictures, ("erase",), 3)
    column = list(CHANGES).index("erase")
    assert [row[column] for row in whole.captions] == [row[0] for row in part.captions]
    wide, narrow = (np.asarray(Image.open(io.BytesIO(sheet.png))) for sheet in (whole, part))
    cell = (narrow.shape[1] - 24) // 2
    start = 24 + (column + 1) * cell
    np.testing.assert_array_equal(wide[24:, start : start + cell], narrow[24:, 24 + cell :])


def test_sound_is_drawn_and_heard(tmp_path: Path) -> None:
    tone = (0.9 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)).astype(np.float32)
    made = sound_sheet(("gain", "noise", "shift", "speed", "spec_augment"), [("a", tone), ("b", np.tile(tone, 5))], 0)
    assert [file is None for file in made.wav[0]] == [False] * 5 + [True]
    heard = [soundfile.read(io.BytesIO(file)) for file in made.wav[1] if file]
    assert all(rate == 16_000 for _, rate in heard) and len(heard[0][0]) == 48_000
    assert made.clipped == sum(
        abs(part).max() > 0.9999 for row in made.wav for file in row if file for part in [soundfile.read(io.BytesIO(file))[0]]
    )
    mel_TB = log_mel(tone)
    assert mel_TB.shape[1] == 64 and abs(int(mel_TB.mean(axis=0).argmax()) - 22) <= 1  # 1000 Hz on 64 bands to 8000 Hz, by the mel scale


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    folder = photos(tmp_path / "data")
    for file in sorted(folder.rglob("*.png"))[:3]:
        file.write_bytes(file.read_bytes()[:60])
    text = page(folder, "a.html", rows=5)
    assert re.search(r"3 could not be read|2 could not be read|1 could not be read", text)
    assert sheet_of(text).shape[1] > 1000


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    boxes(tmp_path / "cells")
    code, said = call("preview", "photos", "--rows", 2, "--only", "flip,rotate")
    assert code == 0 and "preview-photos.html" in said
    text = (tmp_path / "preview-photos.html").read_text("utf-8")
    assert "<th>rotate</th>" in text and "<th>erase</th>" not in text
    code, said = call("preview", "cells", "-o", "p.html", "--seed", 4)
    assert code == 0 and "cutmix is not shown" in (tmp_path / "p.html").read_text("utf-8")
    code, said = call("preview", "cells/instances.json", "-o", "q.html")
    assert code == 0 and (tmp_path / "q.html").exists()
    for wrong in (("--only", "cutmix"), ("--only", "turn"), ("--set", "seed=1")):
        code, said = call("preview", "cells", *wrong)
        assert code == 2 and wrong[0] in said
    (tmp_path / "t.csv").write_text("text,label\na,b\n")
    code, said = call("preview", "t.csv")
    assert code == 3 and "pictures" in said
    code, said = call("preview", "absent.yaml", "--seed", 1)
    assert code == 2 and "--seed" in said


def test_a_table_is_pointed_to_a_spec_and_to_no_augmentation(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,b\n")
    rows = Items("table", "table", "its ending", None, pl.DataFrame({"text": ["a"], "source": ["t:1"]}), dropped_table([]), ())
    for ask in (
        lambda: commands.preview_items(tmp_path / "t.csv", 3, 0, None, None),
        lambda: preview_items(rows, "t.csv", Choice(), tmp_path / "page.html"),
    ):
        with pytest.raises(DataError) as raised:
            ask()
        assert "a spec" in raised.value.issues[0].remedy and "train.augment" not in raised.value.issues[0].remedy
