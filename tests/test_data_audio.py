"""Recordings: mono at one rate whatever the file, and a named problem for every kind of damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.audio import AUDIO_EXPLANATIONS, SCHEMA, AudioProblem, check_audio, read_audio


def tone(seconds: float = 1.0, rate: int = 16_000, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def problems(path: Path) -> list[str]:
    return check_audio([path])["problems"].to_list()[0]


def test_every_problem_is_explained() -> None:
    assert set(AUDIO_EXPLANATIONS) == set(AudioProblem)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_become_the_same_tone(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(rate=rate)] * 2, axis=1), rate)
    read = read_audio(tmp_path / "a.wav")
    assert read.converted == ("mean of 2 channels", f"{rate} Hz to 16000 Hz")
    assert read.samples is not None and read.samples.dtype == np.float32
    middle = slice(2000, 14_000)
    assert np.abs(read.samples[middle] - tone()[middle]).max() < 0.01


def test_wav_and_flac_have_one_content(tmp_path: Path) -> None:
    levels = np.round(tone() * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", levels, 16_000)
    soundfile.write(tmp_path / "a.flac", levels, 16_000)
    table = check_audio([tmp_path / "a.wav", tmp_path / "a.flac"])
    assert table["content"].n_unique() == 1
    assert table["problems"].to_list() == [[], []]
    assert list(table.columns) == list(SCHEMA)


def test_faults_of_the_recording_are_named(tmp_path: Path) -> None:
    rate = 16_000
    cases: dict[str, tuple[np.ndarray, list[str]]] = {
        "silent": (np.zeros(rate), ["silent"]),
        "clipped": (np.clip(tone(level=3), -1, 1), ["clipped"]),
        "offset": (tone() + 0.2, ["offset"]),
        "twice": (np.stack([tone()] * 2, axis=1), ["same_channels"]),
        "half": (np.stack([tone(), 0 * tone()], axis=1), ["empty_channel"]),
        "none": (np.zeros(0), ["empty"]),
        "good": (np.stack([tone(), tone(hertz=300)], axis=1), []),
    }
    for name, (samples, expected) in cases.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, rate, subtype="FLOAT")
        assert problems(tmp_path / f"{name}.wav") == expected, name


def test_damage_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.wav").write_text("not a recording" * 20)
    (tmp_path / "zero.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    assert problems(tmp_path / "cut.wav") == ["lying_header"]
    assert read_audio(tmp_path / "cut.wav").detail.startswith("16000 samples declared")
    assert problems(tmp_path / "text.wav") == ["not_audio"]
    assert problems(tmp_path / "zero.wav") == ["empty"]
    assert problems(tmp_path / "nan.wav") == ["corrupt"]
    assert problems(tmp_path / "none.wav") == ["missing"]
    assert read_audio(tmp_path / "a.wav", most_seconds=0.5).problems == (AudioProblem.TOO_LONG,)


def test_a_header_that_declares_too_much_is_not_believed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 4_000_000_000)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    assert problems(tmp_path / "a.wav") == ["lying_header"]


def test_outliers_show_against_the_others(tmp_path: Path) -> None:
    for n in range(10):
        soundfile.write(tmp_path / f"{n}.wav", tone(1 + n / 50), 16_000)
    soundfile.write(tmp_path / "a_long.wav", tone(8), 16_000)
    soundfile.write(tmp_path / "b_short.wav", tone(0.1), 16_000)
    soundfile.write(tmp_path / "c_rate.wav", tone(1, 8000), 8000)
    table = check_audio(sorted(tmp_path.iterdir()))
    assert table["problems"].to_list() == [[]] * 10 + [["long_outlier"], ["short_outlier"], ["other_rate"]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_raises(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    name = data.draw(st.sampled_from(["a.wav", "a.flac", "a.ogg", "a.aiff"]))
    soundfile.write(folder / name, tone(0.05), 16_000)
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    read = read_audio(folder / name)
    assert read.samples is not None or read.problems
