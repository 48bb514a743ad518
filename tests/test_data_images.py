"""Pictures: one canonical form whatever the file, and a named problem for every kind of damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from tunesmith.data.images import IMAGE_EXPLANATIONS, SCHEMA, ImageProblem, check_images, content_hash, read_image


def picture(seed: int = 0, size: tuple[int, int] = (40, 48), channels: int = 3) -> Pillow.Image:
    shape = (*size, channels) if channels > 1 else size
    return Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_every_problem_is_explained() -> None:
    assert set(IMAGE_EXPLANATIONS) == set(ImageProblem)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_copies_have_one_content(tmp_path: Path, name: str, channels: int) -> None:
    picture(channels=channels).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    read = read_image(tmp_path / name)
    assert read.pixels is not None
    assert content_hash(read.pixels) == content_hash(np.asarray(picture(channels=channels)))


def test_every_conversion_is_named(tmp_path: Path) -> None:
    rgb = picture()
    cases = {
        "palette.png": (rgb.convert("P"), {}, ["P to RGB"]),
        "cmyk.jpg": (rgb.convert("CMYK"), {}, ["CMYK to RGB"]),
        "bit.png": (rgb.convert("1"), {}, ["1 to L"]),
        "alpha.png": (rgb.convert("RGBA"), {}, ["transparency on white"]),
        "deep.png": (Pillow.fromarray(np.full((20, 20), 65535, np.uint16)), {}, ["16 bit to 8"]),
        "frames.gif": (rgb.convert("P"), {"save_all": True, "append_images": [picture(1).convert("P")]}, ["first of 2 frames", "P to RGB"]),
        "plain.png": (rgb, {}, []),
    }
    for name, (image, options, converted) in cases.items():
        image.save(tmp_path / name, **options)
        read = read_image(tmp_path / name)
        assert list(read.converted) == converted, name
        assert read.pixels is not None and read.pixels.dtype == np.uint8 and read.mode in ("L", "RGB")
    deep = read_image(tmp_path / "deep.png").pixels
    assert deep is not None and (deep == 255).all()


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "turned.png", exif=exif)
    read = read_image(tmp_path / "turned.png")
    assert read.converted == ("turned as EXIF says",)
    assert read.pixels is not None
    np.testing.assert_array_equal(read.pixels, np.rot90(np.asarray(picture()), -1))


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    Pillow.new("RGBA", (20, 20), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    pixels = read_image(tmp_path / "clear.png").pixels
    assert pixels is not None and (pixels == 255).all()


def test_damage_is_a_named_problem(tmp_path: Path) -> None:
    picture().save(tmp_path / "whole.jpg")
    picture(size=(60, 60)).save(tmp_path / "big.png")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not a picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    data = bytearray((tmp_path / "big.png").read_bytes())
    data[60:90] = b"\x00" * 30
    (tmp_path / "corrupt.png").write_bytes(bytes(data))
    Pillow.new("L", (30, 30), 7).save(tmp_path / "flat.png")
    picture(size=(4, 40)).save(tmp_path / "odd.png")
    names = ["whole.jpg", "cut.jpg", "text.jpg", "empty.png", "corrupt.png", "big.png", "flat.png", "odd.png", "none.png"]
    table = check_images([tmp_path / name for name in names], most_pixels=3000)
    expected = [
        [], ["truncated"], ["not_an_image"], ["empty"], ["too_many_pixels"], ["too_many_pixels"], ["near_constant"],
        ["tiny", "odd_aspect"], ["missing"],
    ]  # fmt: skip
    assert table["problems"].to_list() == expected
    assert read_image(tmp_path / "corrupt.png").problem in (ImageProblem.CORRUPT, ImageProblem.TRUNCATED)
    assert list(table.columns) == list(SCHEMA)


def test_a_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    Pillow.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    read = read_image(tmp_path / "bomb.png")
    assert (read.problem, read.pixels) == (ImageProblem.TOO_MANY_PIXELS, None)


def test_an_odd_aspect_shows_against_the_others(tmp_path: Path) -> None:
    for n in range(12):
        picture(n, (30, 30)).save(tmp_path / f"{n:02}.png")
    picture(99, (30, 90)).save(tmp_path / "99.png")
    assert check_images(sorted(tmp_path.iterdir()))["problems"].to_list() == [[]] * 12 + [["odd_aspect"]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_raises(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    name = data.draw(st.sampled_from(["a.png", "a.jpg", "a.gif", "a.tiff", "a.bmp", "a.webp"]))
    picture(size=(16, 16)).save(folder / name)
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    read = read_image(folder / name)
    assert (read.pixels is None) == (read.problem is not None)


def test_no_paths_give_an_empty_table() -> None:
    assert check_images([]).height == 0
