"""Arrays on disk by the content they were made from: append-only chunks, checked when read, shared by processes.

    ROOT/SHELF/shelf.json           what all rows of a shelf have in common: model, weights, cut, number format
    ROOT/SHELF/NAME.rows            rows of a chunk, one after the other, unpadded
    ROOT/SHELF/NAME.index.npy       key, place, shape and checksum of each row; written last: it makes the chunk exist

Chunks are never changed. Two processes that fill one shelf write chunks of their own; a killed one leaves files without an
index, which nobody reads and `prune` removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1
CHUNK_BYTES = 256 * 2**20
ABANDONED_SECONDS = 24 * 3600
"""Age after which a file without an index was surely left by a process that was killed."""
ENTRY = np.dtype([("key", "S16"), ("start", "<u8"), ("shape", "<u4", (3,)), ("checksum", "<u4")])
Array = NDArray[Any]


def content_key(parts: Iterable[Array | bytes]) -> bytes:
    """16 bytes that name a row by what is in it."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
    # numpy drops zero bytes at the end of a string; a last byte that is never zero keeps every key whole.
    return digest.digest()[:15] + b"."


@dataclass(frozen=True)
class Found:
    """Rows by key, as views into the files, and how many were there in chunks that are damaged and were therefore removed."""

    rows: dict[bytes, Array]
    damaged: int


class Shelf:
    """The rows of one kind. Opening reads the indices; rows stay on disk until they are used."""

    def __init__(self, root: Path, kind: Mapping[str, Any]) -> None:
        text = json.dumps({**kind, "version": VERSION}, sort_keys=True)
        self.path = root / hashlib.sha256(text.encode()).hexdigest()[:20]
        self.dtype = np.dtype(str(kind["dtype"]))
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.path / "shelf.json", text.encode())

    def clear(self) -> None:
        """Forget every row."""
        for index in self.path.glob("*.index.npy"):
            _remove_chunk(index)

    def find(self, keys: Sequence[bytes]) -> Found:
        """The rows that are there and whole, by key."""
        wanted, rows, damaged = set(keys), dict[bytes, Array](), 0
        for index in sorted(self.path.glob("*.index.npy")):
            entries = _entries(index)
            chosen = [n for n, key in enumerate(entries["key"].tolist()) if key in wanted and key not in rows]
            if not chosen:
                continue
            values = _values(index)
            views = [_row(values, entry, self.dtype) for entry in entries[chosen]]
            if any(view is None for view in views):  # what else is in this file cannot be trusted either
                _remove_chunk(index)
                damaged += len(chosen)
            else:
                rows |= {key: view for key, view in zip(entries["key"][chosen].tolist(), views, strict=True) if view is not None}
        _touch(self.path)
        return Found(rows, damaged)

    def add(self, rows: Iterable[tuple[bytes, Array]]) -> int:
        """Write rows as chunks; each is there for everyone as soon as it is full. Gives the bytes written.

        Raises:
            OSError: the disk is full or cannot be written; finished chunks stay, the unfinished one is removed.
        """
        written, pending, size = 0, list[tuple[bytes, Array]](), 0
        for key, row in rows:
            pending.append((key, row.astype(self.dtype, copy=False)))
            size += pending[-1][1].nbytes
            if size >= CHUNK_BYTES:
                written += self._write_chunk(pending)
                pending, size = [], 0
        return written + (self._write_chunk(pending) if pending else 0)

    def _write_chunk(self, rows: Sequence[tuple[bytes, Array]]) -> int:
        entries, start = np.zeros(len(rows), ENTRY), 0
        path = self.path / f"{uuid.uuid4().hex}.rows"
        try:
            with path.open("wb") as file:
                for number, (key, row) in enumerate(rows):
                    data = np.ascontiguousarray(row).tobytes()
                    shape = (*row.shape, *(0,) * (3 - row.ndim))  # 0: not a dimension
                    entries[number] = (key, start, shape, zlib.crc32(data))
                    file.write(data)
                    start += len(data)
                file.flush()
                os.fsync(file.fileno())
            index = path.with_suffix(".index.npy")
            temporary = index.with_suffix(".writing")
            with temporary.open("wb") as file:
                np.save(file, entries)
            os.replace(temporary, index)
        except OSError:
            path.unlink(missing_ok=True)
            path.with_suffix(".index.writing").unlink(missing_ok=True)
            raise
        return start


@dataclass(frozen=True)
class ShelfFacts:
    """One shelf as `tunesmith store list` shows it. `age` is in seconds since its last use."""

    name: str
    kind: dict[str, Any]
    rows: int
    bytes: int
    age: float


def shelves(root: Path) -> list[ShelfFacts]:
    """All shelves, the one used last first."""
    found = []
    for path in root.glob("*/shelf.json"):
        rows = sum(len(_entries(index)) for index in path.parent.glob("*.index.npy"))
        kind, age = json.loads(path.read_text("utf-8")), max(time.time() - path.stat().st_mtime, 0.0)
        found.append(ShelfFacts(path.parent.name, kind, rows, _size(path.parent), age))
    return sorted(found, key=lambda shelf: shelf.age)


def check(root: Path) -> dict[str, tuple[int, int]]:
    """For each shelf the number of rows, and of those whose checksum is wrong; chunks with such rows are removed."""
    out = {}
    for shelf in shelves(root):
        rows, damaged = 0, 0
        for index in sorted((root / shelf.name).glob("*.index.npy")):
            entries, values = _entries(index), _values(index)
            bad = sum(_row(values, entry, np.dtype(str(shelf.kind["dtype"]))) is None for entry in entries)
            rows, damaged = rows + len(entries), damaged + bad
            if bad:
                _remove_chunk(index)
        out[shelf.name] = (rows, damaged)
    return out


def prune(root: Path, limit: int, keep: str = "") -> tuple[int, int]:
    """Remove what killed processes left, then shelves but `keep`, the one used longest ago first, until `limit` bytes are kept.

    Gives the number of shelves removed, and the bytes freed.
    """
    before = _size(root)
    for data in root.glob("*/*"):
        lonely = data.suffix == ".rows" and not data.with_suffix(".index.npy").exists()
        if (lonely or data.suffix == ".writing") and time.time() - data.stat().st_mtime > ABANDONED_SECONDS:
            data.unlink(missing_ok=True)
    removed, kept = 0, [shelf for shelf in shelves(root) if shelf.name != keep]
    while kept and _size(root) > limit:
        shutil.rmtree(root / kept.pop().name, ignore_errors=True)
        removed += 1
    return removed, before - _size(root)


def _values(index: Path) -> Array:
    """The bytes of a chunk; none when its file is gone or empty."""
    data = index.with_name(index.name.replace(".index.npy", ".rows"))
    if not data.exists() or not data.stat().st_size:
        return np.zeros(0, np.uint8)
    return np.memmap(data, np.uint8, "r")


def _remove_chunk(index: Path) -> None:
    index.unlink(missing_ok=True)
    index.with_name(index.name.replace(".index.npy", ".rows")).unlink(missing_ok=True)


def _entries(index: Path) -> Array:
    try:
        entries: Array = np.load(index, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # removed meanwhile, or damaged: its rows are made again
        return np.zeros(0, ENTRY)
    return entries if entries.dtype == ENTRY else np.zeros(0, ENTRY)


def _row(values: Array, entry: Any, dtype: np.dtype[Any]) -> Array | None:
    """A view of a row, or None when it is not what was written."""
    shape = tuple(int(size) for size in entry["shape"] if size)
    start, end = int(entry["start"]), int(entry["start"]) + int(np.prod(shape)) * dtype.itemsize
    if end > len(values) or zlib.crc32(values[start:end].data) != entry["checksum"]:
        return None
    view: Array = values[start:end].view(dtype).reshape(shape)
    return view


def _touch(path: Path) -> None:
    """Note that a shelf was used."""
    os.utime(path / "shelf.json")


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.writing")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
