"""Tables from databases: `sqlite:///file.db?table=name` or `?query=SELECT …`; other databases by the address polars takes.

SQLite is opened read-only. Passwords of an address are never shown.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, dropped_table, held, warning
from tunesmith.data.sources.remote import without_secrets

SCHEMES = ("sqlite", "postgresql", "postgres", "mysql", "mssql", "oracle", "redshift", "clickhouse", "bigquery", "trino", "snowflake")
ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})(\+\w+)?://", re.IGNORECASE)
EXAMPLE = "Write sqlite:///folder/file.db?table=name or ?query=SELECT …"


def recognise(address: str) -> str | None:
    """Why this is a database: it begins with the name of one; None otherwise."""
    found = ADDRESS.match(address)
    return f"the address begins with {found[0]}" if found else None


def read(address: str, why: str) -> Items:
    """The rows of a table or query, with `source`. A database of one table needs no name.

    Raises:
        DataError: no such file or table, a query that fails, or a package that is missing.
    """
    base, _, rest = address.partition("?")
    given = parse_qs(rest, keep_blank_values=True, separator="&") if rest else {}
    query = unquote(rest.partition("query=")[2]) if rest.startswith("query=") else next(iter(given.pop("query", [])), None)
    table = next(iter(given.pop("table", [])), None)
    where = without_secrets(base)
    if base.lower().startswith("sqlite"):
        rows, name, issues = _sqlite(Path(unquote(base.partition("://")[2].removeprefix("/"))), table, query)
    else:
        rows, name, issues = _other(base, where, table, query)
    if "source" in rows.columns:
        rows = rows.rename({"source": "source_in_file"})
        issues.append(warning(where, "should have no column 'source'", "one", "It is now source_in_file."))
    numbers = pl.int_range(1, rows.height + 1, eager=True).cast(pl.String)
    rows = rows.insert_column(0, (pl.Series([f"{name}:"], dtype=pl.String).new_from_index(0, rows.height) + numbers).alias("source"))
    return Items("table", "sql", why, None, held(where, rows, ()), dropped_table(()), tuple(issues))


def _sqlite(path: Path, table: str | None, query: str | None) -> tuple[pl.DataFrame, str, list[Issue]]:
    """Rows, their name (file and table), and warnings."""
    if not path.is_file():
        raise DataError(Issue(str(path), "must be an SQLite file", "no such file", EXAMPLE))
    issues: list[Issue] = []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
            if query is None:
                table, issues = _table(path, connection, table)
                query = f"SELECT * FROM {_quoted(table)}"
            rows = pl.read_database(query, connection, infer_schema_length=None)
    except (sqlite3.Error, sqlite3.Warning, pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(Issue(str(path), "must give the rows of a table or query", problem, EXAMPLE)) from error
    binary = [name for name, kind in rows.schema.items() if kind in (pl.Binary, pl.Object)]
    if binary:
        issues.append(warning(str(path), "columns should hold text or numbers", f"{', '.join(binary)} with bytes", "They are not read."))
    return rows.drop(binary), f"{path.name} {table or 'query'}", issues


def _table(path: Path, connection: sqlite3.Connection, table: str | None) -> tuple[str, list[Issue]]:
    """The table to read: the named one, or the only one, which is told."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name")
    names = [str(name) for (name,) in found]
    if table is None and len(names) == 1:
        return names[0], [warning(str(path), "a table should be named", "none", f"The only one, {names[0]!r}, was read.")]
    if table not in names:
        expected = "must name a table of the database" if table is None else f"must hold the table {table!r}"
        raise DataError(Issue(str(path), expected, f"it holds {', '.join(names) or 'none'}", EXAMPLE))
    return table, []


def _other(base: str, where: str, table: str | None, query: str | None) -> tuple[pl.DataFrame, str, list[Issue]]:
    """Rows through the package that polars uses for the database. Not tested here: no server is at hand."""
    if query is None and table is None:
        raise DataError(Issue(where, "must name a table or a query", "neither", "Add ?table=name or ?query=SELECT …"))
    try:
        rows = pl.read_database_uri(query or f"SELECT * FROM {_quoted(str(table))}", base)
    except ImportError as error:
        remedy = "Install the package that reads this database: pip install connectorx."
        raise DataError(Issue(where, "must be a database that can be reached", str(error).splitlines()[0], remedy)) from error
    except (RuntimeError, OSError, ValueError, pl.exceptions.PolarsError) as error:
        problem = str(error).splitlines()[0].replace(base, where)
        raise DataError(Issue(where, "must give the rows of a table or query", problem, "Check address, table and query.")) from error
    return rows, f"{where} {table or 'query'}", []


def _quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
