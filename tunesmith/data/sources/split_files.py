"""A folder with a file for each split, such as train.jsonl and test.jsonl: questions, conversations, tags or spans, not tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import polars as pl

from tunesmith.data.sources.base import Items, warning
from tunesmith.data.sources.place import Place, split_of_name, without_split

FORMATS = ("SQuAD questions", "conversations", "CoNLL columns", "tags or spans as JSON lines")
"""Names of the formats of one file that are looked for; other tables are a matter of the spec."""
ENDINGS = (".jsonl", ".ndjson", ".json", ".conll", ".bio", ".iob", ".iob2", ".tsv", ".txt")
Reader = Callable[[Place, str], Items]
Known = Callable[[Place], tuple[str, Reader] | None]


def recognise(place: Place, known: Known) -> str | None:
    """Why this is a folder of splits: a file named train and others, all of one known format; None otherwise."""
    files = _files(place)
    formats = {name: found[0] for name in files if (found := known(Place(place.path / name)))}
    if len(formats) < 2 or len(formats) < len(files) or len(set(formats.values())) > 1:
        return None
    return f"{place.name} holds {', '.join(files)}, each of which is {next(iter(formats.values()))}"


def read(place: Place, why: str, known: Known) -> Items:
    """The rows of all files, `split` by their names; other files of the folder are told.

    Raises:
        DataError: a file cannot be read, or no item of it is left.
    """
    files = _files(place)
    parts = []
    for name in files:
        found = known(Place(place.path / name))
        assert found, "recognised before"
        own = f"{found[0]} in {name}"
        parts.append(found[1](Place(place.path / name), own))
    frames = [part.table.drop("split", strict=False).with_columns(pl.lit(split_of_name(name)).alias("split"))
              for part, name in zip(parts, files, strict=True)]  # fmt: skip
    others = [name for name in place.listing.files if name not in files]
    issues = [issue for part in parts for issue in part.issues]
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5:,} more" if others[5:] else "")
        issues.append(warning(place.name, "should hold a file for each split and no more", f"also {shown}", "They were not read."))
    dropped = reduce(lambda a, b: a.vstack(b), [part.dropped for part in parts])
    return Items(parts[0].kind, parts[0].format, why, None, pl.concat(frames, how="diagonal_relaxed"), dropped, tuple(issues))


def _files(place: Place) -> list[str]:
    """The files of the folder itself that are named like splits, one for each: those that differ from the train file in that word only."""
    if place.shape != "folder":
        return []
    names = [name for name in place.listing.files if "/" not in name and _plain(name).endswith(ENDINGS) and split_of_name(name)]
    train = min((name for name in names if split_of_name(name) == "train"), key=len, default=None)
    alike = [name for name in names if train is not None and without_split(name) == without_split(train)]
    of_split = {split_of_name(name): name for name in reversed(alike)}
    return sorted(of_split.values())


def _plain(name: str) -> str:
    return name.lower().removesuffix(".gz").removesuffix(".zst")
