"""Archives (zip, tar, also compressed): unpacked once, beside the copies of remote files, and nothing that they say is trusted.

A member leaves with its reason when its name leads out of the folder, when it is a link, a device, encrypted, damaged, an
archive itself, or when its name was there before. An archive is refused whole when it holds more entries or bytes than the
limits, or unpacks to so many times its size that it can only be a bomb. Sizes are counted as they are written, not as declared.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, BinaryIO, NoReturn

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import sha256_file
from tunesmith.data.sources import remote
from tunesmith.data.sources.base import Left, Reason
from tunesmith.data.sources.place import Place, shown
from tunesmith.spec.addresses import ARCHIVES, archive_of, is_address

MOST_ENTRIES = 500_000
MOST_BYTES = 32 * 2**30
MOST_TIMES, TIMES_FROM = 200, 64 * 2**20
"""Largest ratio of unpacked to packed bytes, looked at from so many unpacked bytes on."""
MOST_AT_ONCE = 16 * 2**20
"""Bytes of one piece of a tar file; more is only asked for by a header that wants to fill the memory."""
PIECE = 2**20
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, UnicodeError)


@dataclass(frozen=True)
class Located:
    """Where a path, address or archive lies on this machine, unpacked; and the members of the archive that were refused."""

    path: Path
    left: tuple[Left, ...] = ()


class _Refused(ValueError):
    """The archive asks for more than is given to any."""


def located(source: str, cache: Path | None = None) -> Located:
    """Where a path, glob, address or archive lies; of an archive its folder, or the file in it that `archive.zip/name` names.

    `cache`: the folder for copies, see `remote.fetched`.

    Raises:
        DataError: an address that cannot be read, an archive that is damaged or refused, no such file in it.
    """
    found = archive_of(source)
    outer = found[0] if found else source
    path = remote.fetched(outer, cache) if is_address(outer) else Path(outer)
    if found is None or not path.is_file():
        return Located(path)
    unpacked_ = unpacked(path, cache)
    if not found[1]:
        return unpacked_
    name = found[1]
    if name not in (names := Place(unpacked_.path).listing.files):
        raise DataError(Issue(source, f"must be a file in {outer}", f"it holds {_some(names)}", "Check the name."))
    return Located(unpacked_.path / name, unpacked_.left)


def files_in(source: str) -> list[tuple[Path, str]]:
    """The files of an archive that `archive.zip/name` or `archive.zip/*.csv` names, with their names from the archive on; all of them
    for the archive alone.

    Raises:
        DataError: as `located`; or no file fits.
    """
    found = archive_of(source)
    assert found, "only asked for archives"
    folder = located(found[0]).path
    names = Place(folder).listing.files
    fitting = [name for name in names if not found[1] or name == found[1] or fnmatchcase(name, found[1])]
    if not fitting:
        raise DataError(Issue(source, f"must be a file in {found[0]}", f"it holds {_some(names)}", "Check the name."))
    return [(folder / name, f"{found[0]}/{name}") for name in fitting]


def unpacked(path: Path, cache: Path | None = None) -> Located:
    """The folder with the files of an archive, and its members that were refused. Unpacked once for each content of the archive.

    A single folder that holds all of them is entered.

    Raises:
        DataError: it is damaged, no archive, or refused whole (see the limits of this module); nothing of it stays then.
    """
    with _readable(path):
        name = re.sub(r"[^\w.\- ]+", "-", stem_of(path.name)).lstrip(".- ")[:100] or "archive"
        home = remote.copies(cache) / hashlib.sha256(f"{sha256_file(path)} {name}".encode()).hexdigest()[:24]
        if not (home / name).is_dir():
            home.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home.parent, prefix=".unpacking-") as folder:
                target = Path(folder) / "new"
                (target / name).mkdir(parents=True)
                refused = _Unpacking(path, target / name).members()
                (target / "left.json").write_text(json.dumps(refused, ensure_ascii=False), "utf-8")
                if not home.exists():
                    os.replace(target, home)
        left = [
            (f"{path.name}: {source}", Reason(reason), detail)
            for source, reason, detail in json.loads((home / "left.json").read_text("utf-8"))
        ]
        return Located(_only_folder(home / name), tuple(left))


class _Unpacking:
    """One archive on its way into a folder: counts what it writes, and refuses what is not safe."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.size, self.written, self.entries = path.stat().st_size, 0, 0
        self.left: list[tuple[str, str, str]] = []

    def members(self) -> list[tuple[str, str, str]]:
        """Write every member that is safe; the others with reason and detail."""
        if self.path.name.lower().endswith(".zip"):
            self._zip()
        else:
            self._tar()
        return self.left

    def _zip(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            members = archive.infolist()
            self._count(len(members), sum(member.file_size for member in members))
            self.written = 0  # what is declared was within the limits; now what is written counts
            for member in members:
                name = member.orig_filename if "\0" in member.orig_filename else member.filename
                kind = stat.S_IFMT(member.external_attr >> 16)
                if stat.S_ISLNK(kind):
                    self._leave(name, Reason.ARCHIVE_LINK)
                elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    self._leave(name, Reason.ARCHIVE_DEVICE)
                elif member.flag_bits & 1:
                    self._leave(name, Reason.ENCRYPTED)
                elif not name.endswith("/") and (target := self._target(name)):
                    try:
                        with archive.open(member) as stream:
                            self._write(stream, target, counted=False)
                    except DAMAGE as error:
                        target.unlink(missing_ok=True)
                        self._leave(name, Reason.DAMAGED, str(error) or type(error).__name__)

    def _tar(self) -> None:
        with _decompressed(self.path) as stream, tarfile.open(fileobj=_Pieces(stream), mode="r:") as archive:
            for member in archive:
                if member.size < 0:
                    raise _Refused("a member of negative size")
                self._count(1, member.size)  # also of what is passed over: it has to be decompressed
                if member.issym() or member.islnk():
                    self._leave(member.name, Reason.ARCHIVE_LINK, member.linkname)
                elif not (member.isreg() or member.isdir()):
                    self._leave(member.name, Reason.ARCHIVE_DEVICE)
                elif member.isreg() and (target := self._target(member.name)) and (content := archive.extractfile(member)):
                    self._write(content, target, counted=True)

    def _target(self, name: str) -> Path | None:
        """Where to write a member; None when its name is refused, which is noted."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        target = self.folder.joinpath(*parts) if "\0" not in name else self.folder
        problem, detail = self._problem(name, parts), ""
        if problem is None:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                problem, detail = Reason.NAME_TWICE, "a file and a folder"
        if problem is None and target.exists():
            problem = Reason.NAME_TWICE
        if problem is None:
            return target
        self._leave(name, problem, detail)
        return None

    def _problem(self, name: str, parts: list[str]) -> Reason | None:
        if not parts or "\0" in name or shown(name) != name or any(len(part.encode()) > 255 for part in parts) or len(name) > 1000:
            return Reason.BAD_NAME
        if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in parts:
            return Reason.OUTSIDE_FOLDER
        return Reason.NESTED_ARCHIVE if parts[-1].lower().endswith(ARCHIVES) else None

    def _write(self, stream: IO[bytes], target: Path, counted: bool) -> None:
        with open(target, "xb") as file:
            while piece := stream.read(PIECE):
                self._count(0, 0 if counted else len(piece))
                file.write(piece)

    def _count(self, entries: int, size: int) -> None:
        """Add to what was seen.

        Raises:
            _Refused: it is more than the limits.
        """
        self.entries, self.written = self.entries + entries, self.written + size
        if self.entries > MOST_ENTRIES:
            raise _Refused(f"more than {MOST_ENTRIES:,} entries")
        if self.written > MOST_BYTES:
            raise _Refused(f"more than {MOST_BYTES / 2**30:,.0f} GiB unpacked")
        if self.written > max(TIMES_FROM, MOST_TIMES * self.size):
            raise _Refused(f"{self.written:,} bytes or more from {self.size:,}, over {MOST_TIMES} times: it looks like a bomb")

    def _leave(self, name: str, reason: Reason, detail: str = "") -> None:
        self.left.append((shown(name.replace("\0", "\ufffd")), str(reason), shown(detail)))


class _Pieces(io.RawIOBase):
    """A stream for tarfile whose pieces have a limit: the length of a long name is what its header says."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def read(self, size: int = -1) -> bytes:
        """As the stream; a `_Refused` for more than a header may ask for."""
        if not 0 <= size <= MOST_AT_ONCE:
            raise _Refused(f"a header of {size:,} bytes")
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As the stream."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """As the stream."""
        return self.stream.tell()


@contextmanager
def _decompressed(path: Path) -> Iterator[BinaryIO]:
    with open(path, "rb") as file:
        first = file.read(6)
    openers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((opener for mark, opener in openers.items() if first.startswith(mark)), open)
    with opener(path, "rb") as stream:  # type: ignore[operator]
        yield stream


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """One DataError that names the archive for all that can be wrong with it."""
    try:
        yield
    except _Refused as error:
        _refuse(path, "must be an archive within the limits", str(error), "Unpack it yourself if you trust it, and name the folder.")
    except (tarfile.TarError, *DAMAGE) as error:
        _refuse(path, "must be a whole archive", str(error) or type(error).__name__, "It is damaged or cut off: copy or download it again.")
    except OSError as error:
        _refuse(path, "must be an archive that can be unpacked", error.strerror or str(error), "Check the file and the room on the disk.")


def _refuse(path: Path, expected: str, found: str, remedy: str) -> NoReturn:
    raise DataError(Issue(str(path), expected, found, remedy))


def stem_of(name: str) -> str:
    """The name of an archive without its ending; any other name as it is."""
    return next((name[: -len(ending)] for ending in ARCHIVES if name.lower().endswith(ending)), name)


def _only_folder(folder: Path) -> Path:
    """The folder, or the one in it that holds everything."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
    return _only_folder(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "") or "none"
