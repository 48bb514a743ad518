"""Which columns hold a text and what is written for it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tunesmith.data.draft import draft_spec
from tunesmith.data.targets import pair_of, source_and_target

ENGLISH = [f"a dog runs {number}" for number in range(60)]
GERMAN = [f"ein Hund rennt {number}" for number in range(60)]


@pytest.mark.parametrize("name", ["id", "no", "No"])
@pytest.mark.parametrize("cells", [[f"x{number}" for number in range(60)], list(range(60)), [None] * 60])
def test_the_number_of_a_row_is_no_language(name: str, cells: list[object]) -> None:
    numbered = pl.DataFrame({name: cells, "en": ENGLISH, "de": GERMAN})
    assert (pair_of(numbered) or ())[:2] == ("en", "de")
    assert source_and_target(numbered, None, None, {}) == (("en",), "de")
    assert pair_of(numbered.drop("de")) is None


@pytest.mark.parametrize("name", ["id", "no"])
def test_indonesian_and_norwegian_are_languages(name: str) -> None:
    assert (pair_of(pl.DataFrame({name: GERMAN, "en": ENGLISH})) or ())[:2] == (name, "en")


def test_a_numbered_table_of_english_classes_is_no_translation(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": [f"x{number}" for number in range(60)], "en": ENGLISH, "label": ["pet", "wild"] * 30})
    table.write_csv(tmp_path / "t.csv")
    drafted = draft_spec(str(tmp_path / "t.csv"), tmp_path)
    assert "task: text-classification" in drafted and "text: en" in drafted
