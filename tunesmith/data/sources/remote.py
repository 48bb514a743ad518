"""Files elsewhere (`s3://`, `gs://`, `https://`, `memory://`, …): copied once to a local folder through fsspec."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.spec.addresses import is_address

VERSION = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created", "md5", "sha256")


def is_remote(path: str) -> bool:
    """True for an address with a scheme, such as s3://bucket/file.csv."""
    return is_address(path)


def without_secrets(address: str) -> str:
    """The address without user, password and query, which may hold keys."""
    scheme, _, rest = address.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def fetched(address: str, cache: Path | None = None) -> Path:
    """The local copy of a file or folder; copied again only when its address, size or version changed there.

    `cache`: the folder for copies, by default tunesmith/sources in the user's cache folder. A `file://` address is the
    local path itself, not copied.

    Raises:
        DataError: a package is missing, the address is unknown or cannot be read, or the disk is full.
    """
    if "::" in address:
        raise DataError(Issue(address, "must be a single address", "a chain with ::", "Name the file itself."))
    if address.startswith("file://"):
        return Path(address.removeprefix("file://"))
    system, path = _opened(address)
    shown = without_secrets(address)
    home = copies(cache)
    try:
        files = _files(system, path)
        version = _version(files)
        key = hashlib.sha256(f"{address}\n{version}".encode()).hexdigest()[:24]
        target = home / key / (path.partition("?")[0].rstrip("/").rpartition("/")[2] or "data")
        if version is None or not target.exists():
            _copy(system, path, files, target)
    except (OSError, ValueError, NotImplementedError) as error:
        told = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        problem = told.splitlines()[0].replace(address, shown)
        raise DataError(Issue(shown, "must be readable", problem, "Check the address and your access to it.")) from error
    return target


def copies(cache: Path | None = None) -> Path:
    """The folder for copies: the given one, or tunesmith/sources in the user's cache folder."""
    return cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith" / "sources"


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        scheme, shown = address.partition("://")[0], without_secrets(address)
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "http": "aiohttp"}
        name = package.get(scheme.removesuffix("s") if scheme == "https" else scheme, "")
        remedy = f"pip install {name}" if name else str(error).splitlines()[0]
        raise DataError(Issue(shown, f"needs a package to read {scheme}://", "it is not installed", f"{remedy}.")) from error
    except (ValueError, OSError, TypeError) as error:
        shown = without_secrets(address)
        problem = (str(error) or type(error).__name__).splitlines()[0].replace(address, shown)
        raise DataError(Issue(shown, "must be an address that can be read", problem, "Check the address.")) from error
    return system, str(path)


def _files(system: Any, path: str) -> dict[str, dict[str, Any]]:
    """What there is at a path: relative names (empty for a single file) and what the file system says about each."""
    info = system.info(path)
    if info.get("type") != "directory":
        return {"": info}
    top = str(info.get("name") or path).rstrip("/") + "/"
    found = {str(name).removeprefix(top): about for name, about in system.find(path, detail=True).items()}
    unsafe = [name for name in found if name.startswith("/") or ".." in name.replace("\\", "/").split("/")]
    if unsafe:
        raise ValueError(f"a name that leads out of the folder: {unsafe[0]!r}")
    if not found:
        raise FileNotFoundError("no file in this folder")
    return found


def _version(files: dict[str, dict[str, Any]]) -> str | None:
    """What changes when a file changes; None where the file system tells nothing but sizes."""
    marks = {name: [str(about[key]) for key in VERSION if about.get(key)] for name, about in files.items()}
    if not all(marks.values()):
        return None
    return repr(sorted((name, mark, files[name].get("size")) for name, mark in marks.items()))


def _copy(system: Any, path: str, files: dict[str, dict[str, Any]], target: Path) -> None:
    """Copy everything beside the target, then rename it, so that a copy that was cut off is never used."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copying-") as folder:
        copy = Path(folder) / "copy"
        for name in files:
            local = copy / name if name else copy
            local.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(f"{path.rstrip('/')}/{name}" if name else path, str(local))
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(copy, target)
