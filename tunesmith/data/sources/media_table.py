"""Tables (CSV, TSV, JSON lines, Parquet) with a column of paths to images or sounds, alone or in the folder with these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.load import SOURCE, iter_batches, load
from tunesmith.data.sources.base import Items, Left, Reason, dropped_table, held, warning
from tunesmith.data.sources.place import AUDIO, IMAGES, KINDS, Place, ending_of, inside, joined, prefix_of, split_of_file
from tunesmith.spec.schema import Data

PATHS = (
    "file_name", "filename", "file", "image", "image_path", "img", "img_path", "audio", "audio_path", "wav", "path", "filepath",
    "file_path",
)  # fmt: skip
LABELS = ("label", "class", "category", "target", "class_name", "label_name")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
HEAD, SHARE = 50, 0.8
Found = tuple[Place, str, str]  # the table, its column of paths, "image" or "audio"


def recognise(place: Place) -> str | None:
    """Why this is a table of images or sounds: nearly all values of a column end like such files; None otherwise."""
    found = list(_tables(place))
    if not found:
        return None
    more = f" (and {len(found) - 1} more tables)" if found[1:] else ""
    return f"the column {found[0][1]!r} of {found[0][0].name}{more} names {found[0][2]} files"


def read(place: Place, why: str) -> Items:
    """A row per row of the tables: `image` or `audio` relative to the folder, `label`, and all other columns.

    `label` is the first of label, class, category, target, class_name, label_name that there is, else null. With
    several tables and no column `split`, their file names give it. Files of the folder that no row names are left out.

    Raises:
        DataError: a table cannot be read, or no row is left.
    """
    found = list(_tables(place))
    word = found[0][2]
    left: list[Left] = list(place.listing.left)
    issues: list[Issue] = []
    frames = []
    for table, column, kind in found:
        if kind != word:
            issues.append(warning(table.name, f"tables should all name {word} files", f"{kind} files", "This table was not read."))
            continue
        rows, told = _rows(table, column, word, (place.folder, left))
        if "split" not in rows.columns and len(found) > 1:
            rows = rows.with_columns(pl.lit(split_of_file(table.path), pl.String).alias("split"))
        frames.append(rows)
        issues += told
    kept = held(str(place.path), pl.concat(frames, how="diagonal_relaxed"), left)
    named = {row[word] for row in kept.select(word).iter_rows(named=True)}
    unlisted = [name for name in place.listing.ending(IMAGES if word == "image" else AUDIO) if name not in named]
    left += [(name, Reason.UNLISTED, "") for name in unlisted]
    if unlisted:
        issues.append(warning(place.name, f"each {word} file should be in the table", f"{len(unlisted):,} are not", "They are left out."))
    return Items(KINDS[word], f"{word}-table", why, place.folder, kept, dropped_table(left), tuple(issues))


def _tables(place: Place) -> Iterator[Found]:
    """The tables with a column of paths: the file itself; of a folder metadata.* alone where there is one, else all."""
    if place.shape != "folder":
        if _is_table(place.path.name) and (found := _column(place)):
            yield place, *found
        return
    names = [name for name in place.listing.files if _is_table(name) and name.count("/") <= 1]
    metadata = [name for name in names if name.rpartition("/")[2].lower().startswith("metadata.")]
    for name in metadata or [name for name in names if "/" not in name]:
        table = Place(place.path / name)
        try:
            found = _column(table)
        except DataError:
            if metadata or split_of_file(table.path):
                raise
            continue  # a damaged table that may have nothing to do with the media
        if found:
            yield table, *found


def _is_table(name: str) -> bool:
    return name.lower().removesuffix(".gz").removesuffix(".zst").endswith(TABLES)


def _column(place: Place) -> tuple[str, str] | None:
    """The column of paths and what they name. Columns with a usual name are looked at first."""
    head = next(iter_batches([str(place.path)], Data(train=(str(place.path),)), rows=HEAD), None)
    if head is None:
        return None
    names = sorted(head.columns, key=lambda name: PATHS.index(name.lower()) if name.lower() in PATHS else len(PATHS))
    kinds = dict(head.schema)  # asked once: a schema of thousands of columns is made anew for each question
    for name in names:
        values = head[name].drop_nulls().to_list() if kinds[name] == pl.String and name != SOURCE else []
        for word, endings in (("image", IMAGES), ("audio", AUDIO)):
            if values and sum(ending_of(value.strip()) in endings for value in values) >= SHARE * len(values):
                return name, word
    return None


def _rows(table: Place, column: str, word: str, state: tuple[Path, list[Left]]) -> tuple[pl.DataFrame, list[Issue]]:
    root, left = state
    loaded = load([str(table.path)], Data(train=(str(table.path),)))
    rows, issues = loaded.table, list(loaded.issues)
    taken = [name for name in rows.columns if name in ("source", word) and name != column]
    rows = rows.rename({name: f"{name}_in_file" for name in taken}).rename({SOURCE: "source", column: word})
    issues += [warning(table.name, f"should have no column {name!r}", "one", f"It is now {name}_in_file.") for name in taken]
    prefix = prefix_of(root, table.path.parent, ["", "images", "audio", "data", "clips", "wavs"], rows[word].head(HEAD).to_list())
    paths = [inside(root, joined(prefix, name)) for name in rows[word]]
    for source, name, path in zip(rows["source"], rows[word], paths, strict=True):
        if isinstance(path, Reason):
            left.append((source, path, str(name)))
    good = pl.Series(word, [None if isinstance(path, Reason) else path for path in paths], pl.String)
    rows = rows.with_columns(good).filter(pl.col(word).is_not_null())
    label = next((name for name in LABELS if name in rows.columns), None)
    if label is None:
        rest = ", ".join(name for name in rows.columns if name not in ("source", word)) or "none"
        issues.append(
            warning(table.name, "should have a column `label`", f"other columns: {rest}", "Items have no label: name the column.")
        )
        return rows.with_columns(pl.lit(None, pl.String).alias("label")).select(
            "source", word, "label", pl.exclude("source", word, "label")
        ), issues
    if label != "label":
        issues.append(warning(table.name, "should have a column `label`", f"{label!r} was taken"))
    kind = pl.List(pl.String) if rows.schema[label] == pl.List else pl.String
    rows = rows.with_columns(pl.col(label).cast(kind).alias("label"))
    return rows.select("source", word, "label", pl.exclude("source", word, "label")), issues
