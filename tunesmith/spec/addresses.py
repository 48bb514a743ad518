"""Where data lie: paths on this machine, and addresses (`scheme://…`) of databases, datasets and files elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)
SQLITE = re.compile(r"(sqlite(?:\+\w+)?://)/([^/?][^?]*)(.*)", re.IGNORECASE | re.DOTALL)
PASSWORD = re.compile(r"[^/?#]*://[^/?#@:]*:[^?#]+@|.*[?&;](password|passwd|pwd|token|secret|access_key)=[^&]", re.IGNORECASE)

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
IN_ARCHIVE = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, sorted(ARCHIVES, key=len, reverse=True)))}))(?:/+(.*))?", re.I | re.S)


def archive_of(path: str) -> tuple[str, str] | None:
    """The archive that a path or address names, and the name of the file in it (empty for the archive alone); None for others.

    `photos.zip/train.csv` names a file of an archive, unless photos.zip is a folder.
    """
    found = IN_ARCHIVE.fullmatch(path)
    if found is None or (not is_address(path) and os.path.isdir(found[1])):
        return None
    return found[1], found[2] or ""


def is_address(path: str) -> bool:
    """True for an address with a scheme, such as s3://bucket/file.csv or sqlite:///file.db?table=rows."""
    return ADDRESS.match(path) is not None


def has_password(address: str) -> bool:
    """True when a password stands in the address, as in postgresql://name:password@host/database."""
    return PASSWORD.match(address) is not None


def anchored(path: str, folder: Path) -> str:
    """A path that is relative to `folder`, as seen from the current directory. Addresses stay, but for SQLite files below `folder`."""
    if not is_address(path):
        return path if Path(path).is_absolute() else str(folder / path)
    return _of_sqlite_file(path, lambda name: (folder / name).as_posix())


def seen_from(path: str, folder: Path) -> str:
    """The opposite of `anchored`: a path as it is written into a spec in `folder`; absolute on another drive."""
    try:
        if not is_address(path):
            return Path(os.path.relpath(path, folder)).as_posix()
        return _of_sqlite_file(path, lambda name: Path(os.path.relpath(name, folder)).as_posix())
    except ValueError:
        return Path(path).resolve().as_posix()


def _of_sqlite_file(address: str, change: Callable[[str], str]) -> str:
    """The address with its file changed, where it is that of an SQLite file with a relative path; else the same."""
    found = SQLITE.match(address)
    return f"{found[1]}/{change(found[2])}{found[3]}" if found else address
