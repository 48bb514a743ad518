"""Plain tables, read by the table reader: what a file is when no other format fits."""

from __future__ import annotations

from tunesmith.core.errors import DataError
from tunesmith.data.load import SOURCE, load, open_table
from tunesmith.data.sources.base import Items, dropped_table, held, warning
from tunesmith.data.sources.place import Place
from tunesmith.spec.schema import Data


def recognise(place: Place) -> str | None:
    """Why this is a table: its header and encoding can be understood; None otherwise."""
    if place.shape == "folder":
        return None
    try:
        file = open_table(place.path, Data(train=(str(place.path),)))
    except DataError:
        return None  # `read` tells it, as nothing else fits
    return f"{place.name} is a table in the format {file.format}"


def read(place: Place, why: str) -> Items:
    """All rows as they are in the file, with `source`.

    Raises:
        DataError: the table cannot be read.
    """
    loaded = load([str(place.path)], Data(train=(str(place.path),)))
    table, issues = loaded.table, list(loaded.issues)
    if "source" in table.columns:
        table = table.rename({"source": "source_in_file"})
        issues.append(warning(place.name, "should have no column 'source'", "one", "It is now source_in_file."))
    table = table.rename({SOURCE: "source"})
    return Items("table", "table", why, None, held(str(place.path), table, ()), dropped_table(()), tuple(issues))
