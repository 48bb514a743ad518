"""Bytes to text: what a file is compressed with, which encoding it is in, and a clear error when it is no text at all.

Compression is told from the first bytes, not from the name. Encodings are tried in this order: byte order mark,
UTF-8 over the whole file, UTF-16 without a mark, Windows-1252 (with a warning). Everything is read in pieces.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, cast

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue

Compression = Literal["none", "gzip", "zstd"]

PIECE = 1 << 20
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
BINARY = {
    PARQUET: ("a Parquet file", "Rename it to end in .parquet."),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Save the table as CSV, or unpack the archive."),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", "Save the table as CSV."),
    b"%PDF": ("a PDF", "Export the table as CSV."),
    b"\x89PNG": ("a PNG image", "Name a table file."),
    b"\xff\xd8\xff": ("a JPEG image", "Name a table file."),
    b"SQLite format 3": ("an SQLite database", "Export the table as CSV."),
    b"ARROW1": ("an Arrow file", "Save the table as Parquet."),
    b"Obj\x01": ("an Avro file", "Save the table as Parquet."),
    b"\x7fELF": ("a program", "Name a table file."),
    b"BZh": ("bzip2-compressed", "Decompress it, or use gzip."),
    b"\xfd7zXZ": ("xz-compressed", "Decompress it, or use gzip."),
    b"7z\xbc\xaf": ("a 7-Zip archive", "Unpack it."),
    b"\x80\x04\x95": ("a Python pickle", "Save the table as Parquet."),
    b"\x80\x05\x95": ("a Python pickle", "Save the table as Parquet."),
}
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
TEXT_CONTROLS = b"\t\n\r\x0b\x0c\x1b\x1a"


def compression_of(path: Path) -> Compression:
    """What the file is compressed with, by its first bytes."""
    with readable(path), open(path, "rb") as file:
        first = file.read(4)
    return "gzip" if first.startswith(GZIP) else "zstd" if first.startswith(ZSTD) else "none"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn everything that goes wrong while bytes are read into one DataError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(Issue(str(path), "must exist", "no such file", "Check the path.")) from error
    except (EOFError, zlib.error, gzip.BadGzipFile, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("invalid utf8"):  # polars reads .zst text, and only as UTF-8
            remedy = "Decompress the file first; then its encoding is detected."
            raise DataError(Issue(str(path), "must be UTF-8 when compressed with zstd", "another encoding", remedy)) from error
        remedy = "The file is damaged or was cut off: copy or download it again."
        raise DataError(Issue(str(path), "must be a whole file", reason, remedy)) from error
    except OSError as error:
        remedy = "Check its permissions, or copy it again if it is damaged."
        raise DataError(Issue(str(path), "must be readable", error.strerror or str(error), remedy)) from error


class _ZstdLines(io.RawIOBase):
    """The UTF-8 bytes of a .zst text file, decompressed by polars piece by piece, every line end as a line feed."""

    def __init__(self, path: Path) -> None:
        self._frames = pl.scan_lines(path, glob=False).collect_batches(chunk_size=8192)
        self._pieces = ("\n".join(frame.to_series().fill_null("")) + "\n" for frame in self._frames)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast(bytearray, buffer))
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece.encode())
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def opened(path: Path) -> BinaryIO:
    """A stream of the file's bytes, decompressed on the way. Use it inside `readable(path)`."""
    kind = compression_of(path)
    if kind == "gzip":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if kind == "zstd":
        return cast(BinaryIO, io.BufferedReader(_ZstdLines(path), PIECE))
    return open(path, "rb")


def opened_text(path: Path, encoding: str) -> TextIO:
    """A stream of the file's text with its line ends as they are. Decoding errors are found before, by `find_encoding`."""
    return io.TextIOWrapper(opened(path), encoding=encoding, errors="strict", newline="")


def find_encoding(path: Path, given: str | None) -> tuple[str, list[Issue]]:
    """The encoding that decodes the whole file, and a warning when it is only a guess. Reads the file once.

    Raises:
        DataError: empty, binary, mixed encodings, NUL bytes, or not in the encoding that was given.
    """
    with readable(path), opened(path) as file:
        first = file.read(4096)
    if not first.strip():
        raise DataError(Issue(str(path), "must hold a table", "an empty file", "Check how it was written."))
    _refuse_binary(path, first)
    if given is not None:
        return _given(path, given), []
    mark = next((name for bom, name in MARKS.items() if first.startswith(bom)), None)
    if mark is not None:
        return _decodes(path, mark), []
    wide = _wide(first)
    if wide is not None:
        return _decodes(path, wide), []
    _refuse_controls(path, first)
    if _failure(path, "utf-8") is None:
        return "utf-8", []
    return _windows(path)


def _refuse_binary(path: Path, first: bytes) -> None:
    for magic, (name, remedy) in BINARY.items():
        if first.startswith(magic):
            raise DataError(Issue(str(path), "must be a text table (CSV, TSV, JSONL or JSON)", name, remedy))


def _refuse_controls(path: Path, first: bytes) -> None:
    controls = sum(byte < 32 and byte not in TEXT_CONTROLS for byte in first)
    if controls > max(8, len(first) // 20):
        raise DataError(Issue(str(path), "must be a text table", "binary content", "Save the table as CSV, JSONL or Parquet."))


def _wide(first: bytes) -> str | None:
    """UTF-16 without a byte order mark: every other byte of Latin text is 0."""
    pairs = len(first) // 2
    if pairs < 2:
        return None
    even, odd = first[0 : 2 * pairs : 2].count(0) / pairs, first[1 : 2 * pairs : 2].count(0) / pairs
    if odd > 0.4 and even < 0.05:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 and odd < 0.05 else None


def _given(path: Path, given: str) -> str:
    try:
        "a".encode(given)
        codecs.getincrementaldecoder(given)
    except (LookupError, ValueError) as error:
        raise DataError(
            Issue("data.encoding", "must be a text encoding", given, "Known ones: utf-8, utf-16, cp1252, latin-1, shift_jis, …")
        ) from error
    name = codecs.lookup(given).name
    return _decodes(path, "utf-8-sig" if name == "utf-8" else name)


def _decodes(path: Path, encoding: str) -> str:
    problem = _failure(path, encoding)
    if problem is None:
        return encoding
    remedy = "Save the file in one encoding, or set data.encoding to the right one."
    raise DataError(Issue(f"{path} line {problem}", f"must be {encoding} text", "bytes that are not", remedy))


def _failure(path: Path, encoding: str) -> int | None:
    """1-based line of the first bytes that the encoding cannot decode; None when it decodes everything.

    Raises:
        DataError: the text holds NUL characters.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines = 1
    with readable(path), opened(path) as file:
        while True:
            piece = file.read(PIECE)
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                return lines + error.object[: error.start].decode(encoding, "ignore").count("\n")
            except UnicodeError:  # utf-16 and utf-32 without a byte order mark
                return lines
            if "\0" in text:
                line = lines + text[: text.index("\0")].count("\n")
                raise DataError(
                    Issue(f"{path} line {line}", "must not hold NUL characters", "one", "The file is damaged or binary: write it again.")
                )
            if not piece:
                return None
            lines += text.count("\n")


def _windows(path: Path) -> tuple[str, list[Issue]]:
    """Windows-1252, for a file that is not UTF-8. A file with lines of both kinds is refused."""
    utf8, other, first_utf8, first_other = 0, 0, 0, 0
    with readable(path), opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                other, first_other = other + 1, first_other or number
            else:
                utf8, first_utf8 = utf8 + 1, first_utf8 or number
    if utf8:
        line_number, kind, rest = (first_other, "not UTF-8", "UTF-8") if other <= utf8 else (first_utf8, "UTF-8", "another encoding")
        remedy = "Save the file as UTF-8, or set data.encoding if one encoding is right for all of it."
        raise DataError(
            Issue(f"{path} line {line_number}", "must be in the encoding of the other lines", f"{kind}; most are {rest}", remedy)
        )
    if _failure(path, "cp1252") is not None:
        remedy = "Save the file as UTF-8, or set data.encoding."
        raise DataError(
            Issue(f"{path} line {first_other}", "must be UTF-8, UTF-16 or Windows-1252 text", "bytes that are none of them", remedy)
        )
    remedy = "Set data.encoding if accented letters look wrong in the report."
    return "cp1252", [
        Issue(str(path), "should be UTF-8", f"other bytes, first in line {first_other}; read as Windows-1252", remedy, fatal=False)
    ]
