"""What lies at a path, looked at once for all formats: the files of a folder, the JSON of a file, its first lines.

Paths that metadata names are never trusted: `inside` gives a path within the folder, or the reason for refusing it.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.cells import json_value
from tunesmith.data.decode import find_encoding, opened_text, readable
from tunesmith.data.sources.base import Kind, Left, Reason

Shape = Literal["folder", "object", "list", "lines", "text", "binary"]

IMAGES = frozenset([".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif"])
AUDIO = frozenset([".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".wma"])
CLUTTER = frozenset(("thumbs.db", "desktop.ini", "__macosx"))
SPLIT_NAMES = {
    "train": "train", "training": "train", "trn": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
"""The split that a word names, as a cell, a folder or a word of a file name; the only list of them."""
KINDS: dict[str, Kind] = {"image": "image-classification", "audio": "audio-classification"}
MAX_PIXELS = 89_478_485
HEAD = 20
COLUMN_FILES = frozenset([".conll", ".conll2003", ".conll03", ".bio", ".iob", ".iob2", ".iobes", ".bioes"])
"""Endings of files with a token and its tag on a line."""


@dataclass(frozen=True)
class Listing:
    """Files below a folder as sorted POSIX paths, how many hidden ones were passed over, and what was refused."""

    files: tuple[str, ...]
    hidden: int
    left: tuple[Left, ...]

    def ending(self, endings: frozenset[str]) -> list[str]:
        """The files whose ending (lower case, with its dot) is one of these."""
        return [name for name in self.files if ending_of(name) in endings]


@dataclass(frozen=True)
class Place:
    """A path, and what was found there; each question is asked of the disk once."""

    path: Path

    @property
    def name(self) -> str:
        """The last part of the path, in characters that a table can hold."""
        return shown(self.path.name or str(self.path.resolve()))

    @property
    def folder(self) -> Path:
        """The folder that names in the file are relative to: the path itself where it is one."""
        return self.path if self.shape == "folder" else self.path.parent

    @cached_property
    def listing(self) -> Listing:
        """The files below the folder; empty for a file."""
        return _listed(self.path) if self.shape == "folder" else Listing((), 0, ())

    @cached_property
    def encoding(self) -> tuple[str, list[Issue]]:
        """The text encoding of the file, and a warning where it is a guess.

        Raises:
            DataError: it is no text.
        """
        return find_encoding(self.path, None)

    @cached_property
    def shape(self) -> Shape:
        """What is there: a folder; a file with a JSON object, a JSON list, JSON lines, other text; or no text."""
        if self.path.is_dir():
            return "folder"
        try:
            lines = self.first_lines
        except DataError:
            if not self.path.exists():
                raise
            return "binary"
        texts = [line.strip() for line in lines if line.strip()]
        if not texts or texts[0][0] not in "[{" or ending_of(self.path.name) in COLUMN_FILES:
            return "text"
        if not self._is_json(texts):
            return "text"
        if texts[0][0] == "[":
            return "list"
        named = [suffix.lower() for suffix in self.path.suffixes]
        several = len(texts) > 1 and (texts[1].startswith("{") or isinstance(_parsed(texts[0])[0], dict))
        return "lines" if several or ".jsonl" in named or ".ndjson" in named else "object"

    def _is_json(self, texts: list[str]) -> bool:
        """False for text that only begins with a bracket or a brace, such as a token of a column file."""
        rest = (texts[0][1:].lstrip() or (texts[1] if len(texts) > 1 else ""))[:1]
        follows = '{["]-0123456789tfn' if texts[0][0] == "[" else '"}'
        return rest in follows if rest else ".json" in self.path.suffixes

    @cached_property
    def first_lines(self) -> list[str]:
        """The first lines that are not blank, or the only one whole."""
        with readable(self.path), opened_text(self.path, self.encoding[0]) as stream:
            kept = [stream.readline()]
            while not kept[-1].strip() and (line := stream.readline()):
                kept[-1] = line
            return kept + list(islice(stream, 400))

    @cached_property
    def text(self) -> str:
        """The whole text of the file."""
        with readable(self.path), opened_text(self.path, self.encoding[0]) as stream:
            return stream.read()

    @cached_property
    def document(self) -> Any:
        """The value of a JSON file; None where the file is of another shape.

        Raises:
            DataError: the JSON is damaged or cut off.
        """
        if self.shape not in ("object", "list"):
            return None
        value, problem = _parsed(self.text)
        if problem:
            remedy = "The file is damaged or cut off: write or copy it again."
            raise DataError(Issue(str(self.path), "must be a whole JSON file", problem, remedy))
        return value

    @cached_property
    def first_objects(self) -> list[dict[str, Any]]:
        """The first objects of JSON lines or of a JSON list, damaged ones passed over."""
        if self.shape == "lines":
            values = [_parsed(line)[0] for line in islice(filter(str.strip, self.first_lines), HEAD)]
        else:
            values = self.document[:HEAD] if isinstance(self.document, list) else []
        return [value for value in values if isinstance(value, dict)]

    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line with its 1-based number, without its line end."""
        with readable(self.path), opened_text(self.path, self.encoding[0]) as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line.rstrip("\r\n")

    def objects(self, left: list[Left]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each object of JSON lines or of a JSON list with its source; what is no object goes to `left`."""
        if self.shape == "lines":
            pairs: Iterator[tuple[int, tuple[Any, str]]] = ((n, _parsed(line)) for n, line in self.lines() if line.strip())
        else:
            pairs = ((n, (value, "")) for n, value in enumerate(self.document or (), start=1))
        for number, (value, problem) in pairs:
            source = f"{self.name}:{number}"
            if isinstance(value, dict):
                yield source, value
            else:
                left.append((source, Reason.MALFORMED, problem or "not a JSON object"))


def _parsed(text: str) -> tuple[Any, str]:
    """The JSON value and no problem, or None and what is wrong. Half a surrogate pair is wrong: no table can hold it."""
    try:
        return json_value(text), ""
    except ValueError as error:
        return None, str(error)


def shown(name: str) -> str:
    """The name with bytes that are not Unicode replaced, so that a table or a message can hold it."""
    return os.fsencode(name).decode("utf-8", "replace")


def ending_of(name: str) -> str:
    """The last ending of a file name, lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def _listed(root: Path) -> Listing:
    files: list[str] = []
    left: list[Left] = []
    hidden = 0
    pending = [""]
    while pending:
        below = pending.pop()
        with readable(root / below), os.scandir(root / below) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name = f"{below}{entry.name}"
            if entry.name.startswith(".") or entry.name.lower() in CLUTTER:
                hidden += 1
            elif shown(name) != name:
                left.append((shown(name), Reason.BAD_NAME, ""))
            elif entry.is_dir(follow_symlinks=False):
                pending.append(f"{name}/")
            else:
                problem = _refused(root, name) if entry.is_symlink() else None
                if problem:
                    left.append((name, problem, "a link"))
                else:
                    files.append(name)
    return Listing(tuple(sorted(files)), hidden, tuple(left))


def _refused(root: Path, name: str) -> Reason | None:
    """Why a link is not followed; None for a link to a file within the folder."""
    if os.path.isdir(root / name):
        return Reason.LINKED_FOLDER
    found = inside(root, name)
    return found if isinstance(found, Reason) else None


def inside(root: Path, name: object) -> str | Reason:
    """The POSIX path, relative to `root`, of an existing file that a record names; or the reason for not opening it.

    A backslash separates folders as on Windows. Links are followed, and must end within `root`.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return Reason.MALFORMED
    path = name.strip().replace("\\", "/")
    if re.match("[A-Za-z][A-Za-z0-9+.-]+://", path):
        return Reason.REMOTE_FILE
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in parts or not parts:
        return Reason.OUTSIDE_FOLDER
    clean = "/".join(parts)
    top, target = os.path.realpath(root), os.path.realpath(os.path.join(root, clean))
    if os.path.commonpath([top, target]) != top:
        return Reason.OUTSIDE_FOLDER
    return clean if os.path.isfile(target) else Reason.MISSING_FILE


def size_of_image(path: Path) -> tuple[int, int] | tuple[Reason, str]:
    """Width and height as the picture is seen (EXIF orientation applied), from the header alone; or why not."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(274) in (5, 6, 7, 8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Reason.TOO_MANY_PIXELS, str(error)
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, EOFError, MemoryError) as error:
        return Reason.UNREADABLE_IMAGE, str(error).replace(str(path), path.name)
    if width * height > MAX_PIXELS or width < 1 or height < 1:
        return Reason.TOO_MANY_PIXELS, f"{width} x {height}"
    return (height, width) if turned else (width, height)


def split_of(path: str) -> str | None:
    """train, validation or test where a folder of the path is called so; the outermost one decides."""
    return next((SPLIT_NAMES[part.lower()] for part in path.split("/")[:-1] if part.lower() in SPLIT_NAMES), None)


def split_of_file(path: Path) -> str | None:
    """train, validation or test where the file's name says so in a word, or else its folder."""
    return split_of_name(path.name) or split_of(f"{path.parent.name}/")


def split_of_name(name: str) -> str | None:
    """train, validation or test where a word of the name says so; the first of these where several do."""
    found = {SPLIT_NAMES.get(word) for word in re.split(r"[^a-z]+", name.lower())}
    return next((split for split in ("train", "validation", "test") if split in found), None)


def without_split(name: str) -> str:
    """The words of a file's name but its endings and those of splits: equal for files that are splits of one thing."""
    stem = re.sub(r"(\.(jsonl?|ndjson|csv|tsv|txt|parquet|pq|conll\w*|bio|iob2?|gz|zst))+$", "", name.lower())
    return "-".join(word for word in re.split(r"[^a-z0-9]+", stem) if word and word not in SPLIT_NAMES)


def prefix_of(root: Path, here: Path, folders: Sequence[str], names: Sequence[object]) -> str:
    """The folder, of those given relative to `here`, that holds most of the files; relative to `root`, "" for `root`.

    Folders outside `root` are not considered; the first one is taken where none holds more.
    """
    found: dict[str, int] = {}
    for folder in folders:
        prefix = os.path.normpath(os.path.join(os.path.relpath(here, root), folder)).replace("\\", "/")
        if not prefix.startswith("..") and prefix not in found:
            found[prefix] = sum(isinstance(name, str) and not isinstance(inside(root, joined(prefix, name)), Reason) for name in names)
    best = max(found, key=lambda prefix: found[prefix])
    return "" if best == "." else best


def joined(prefix: str, name: object) -> object:
    """The name below a folder; anything but a relative name stays as it is, so that `inside` can judge it."""
    relative = isinstance(name, str) and prefix not in ("", ".") and not re.match(r"[/\\]|[A-Za-z][A-Za-z0-9+.-]*:", name.strip())
    return f"{prefix}/{name}" if relative else name
