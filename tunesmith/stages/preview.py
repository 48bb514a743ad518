"""preview: one page that shows what changes do to some pictures or recordings of a source; nothing is trained."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import DataError, SpecError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import disk_errors
from tunesmith.core.seeding import unit_interval
from tunesmith.data import preview_audio, preview_images
from tunesmith.data.audio import AUDIO_EXPLANATIONS, RATE, read_audio
from tunesmith.data.augment_images import Pixels
from tunesmith.data.images import IMAGE_EXPLANATIONS, read_image
from tunesmith.data.item_contents import one_each
from tunesmith.data.preview_audio import sound_sheet
from tunesmith.data.preview_images import WITHOUT_BOXES, Boxed, Sheet, box_colours, of_one_mode, picture_sheet
from tunesmith.data.sources.base import Items
from tunesmith.document.templating import rendered

PARTNERS = 4
"""Pictures at the least among which mixing changes choose."""


@dataclass(frozen=True)
class Choice:
    """What to show: how many items, drawn by which seed, and which changes; all that there are when none is named."""

    rows: int = 5
    seed: int = 0
    only: tuple[str, ...] = ()


def preview_items(items: Items, name: str, choice: Choice, target: Path) -> Path:
    """Write the page to `target`; the same files and choice give the same bytes.

    Raises:
        DataError: there are neither pictures nor recordings, or none of them can be read.
        SpecError: a change has no such name.
    """
    table = one_each(items)
    kind = next((column for column in ("image", "audio") if column in table.columns and items.root is not None), None)
    if kind is None or items.root is None:
        remedy = "For texts, name a spec."
        raise DataError(Issue(name, "must hold pictures or recordings to be shown", items.format, remedy))
    view = (_pictures if kind == "image" else _recordings)(table, items.root, choice)
    unread = view.pop("unread")
    page = rendered("preview.html", name=name, format=items.format, items=table.height, seed=choice.seed, unread=unread, **view)
    with disk_errors(target):
        target.write_text(page, "utf-8")
    return target


def _pictures(table: pl.DataFrame, root: Path, choice: Choice) -> dict[str, Any]:
    """What the template shows of pictures."""
    boxed, unread, used = "boxes" in table.columns, Counter[str](), []
    for row in _drawn(table, "image", choice.seed):
        image = read_image(root / row["image"])
        if image.pixels is None:
            unread[IMAGE_EXPLANATIONS[image.problem] if image.problem else ""] += 1
        else:
            used.append(_boxed(row, image.pixels))
        if len(used) == max(choice.rows, PARTNERS):
            break
    _some(len(used), "picture", unread)
    coloured = any(one.pixels.ndim == 3 for one in used)
    used = [_in_mode(one, coloured) for one in used]
    known = [name for name in preview_images.CHANGES if not (boxed and name in WITHOUT_BOXES)]
    names = _named(choice.only, known)
    sheet = picture_sheet(used[: choice.rows], used, names, choice.seed)
    left_out = [name for name in WITHOUT_BOXES if boxed]
    labels = [one.label for one in used[: choice.rows]]
    meanings = {name: preview_images.CHANGES[name].__doc__ or "" for name in names}
    return _view(sheet, labels, meanings) | {"unread": unread, "colours": box_colours(used), "left_out": left_out, "clipped": 0}


def _recordings(table: pl.DataFrame, root: Path, choice: Choice) -> dict[str, Any]:
    """What the template shows of recordings."""
    unread, used, labels = Counter[str](), [], []
    for row in _drawn(table, "audio", choice.seed):
        audio = read_audio(root / row["audio"], RATE)
        if audio.samples is None:
            unread[AUDIO_EXPLANATIONS[audio.problems[0]]] += 1
        else:
            used.append((row["audio"], audio.samples))
            labels.append(_label(row))
        if len(used) == choice.rows:
            break
    _some(len(used), "recording", unread)
    names = _named(choice.only, preview_audio.NAMES)
    sounds = sound_sheet(names, used, choice.seed)
    meanings = {name: preview_audio.CHANGES[name].__doc__ or "" for name in names if name in preview_audio.CHANGES}
    meanings |= {preview_audio.MASKS: "Stripes of time and of bands set to the mean (SpecAugment)."} if preview_audio.MASKS in names else {}
    wav = [["" if file is None else _address("audio/wav", file) for file in row] for row in sounds.wav]
    view = _view(sounds.sheet, labels, meanings) | {"unread": unread, "colours": {}, "left_out": [], "clipped": sounds.clipped}
    return view | {"sounds": wav}


def _view(sheet: Sheet, labels: Sequence[str | None], meanings: Mapping[str, str]) -> dict[str, Any]:
    rows = [
        {"name": name, "label": label, "said": said} for name, label, said in zip(sheet.rows, labels, sheet.captions, strict=True)
    ]  # fmt: skip
    return {"sheet": _address("image/png", sheet.png), "columns": sheet.columns, "rows": rows, "meanings": meanings, "sounds": []}


def _drawn(table: pl.DataFrame, column: str, seed: int) -> list[dict[str, Any]]:
    """The rows in an order drawn by the seed and the path, which the order of the table does not change."""
    return sorted(table.to_dicts(), key=lambda row: (unit_interval(seed, f"preview {row[column]}"), row[column]))


def _boxed(row: Mapping[str, Any], pixels: Pixels) -> Boxed:
    if "boxes" not in row:
        return Boxed(row["image"], pixels, _label(row))
    corners = [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in row["boxes"]]
    return Boxed(row["image"], pixels, None, np.array(corners, np.float64).reshape(-1, 4), tuple(str(box["label"]) for box in row["boxes"]))


def _in_mode(one: Boxed, coloured: bool) -> Boxed:
    return Boxed(one.name, of_one_mode(one.pixels, coloured), one.label, one.boxes_B4, one.labels_B)


def _label(row: Mapping[str, Any]) -> str | None:
    label = row.get("label")
    return None if label is None else ", ".join(map(str, label)) if isinstance(label, list) else str(label)


def _named(only: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The changes to show, in the order of the known ones."""
    wrong = [name for name in only if name not in known]
    if wrong:
        raise SpecError(Issue("--only", f"must be among {', '.join(known)}", name, "Correct the name.") for name in wrong)
    return tuple(name for name in known if name in only or not only)


def _some(count: int, noun: str, unread: Counter[str]) -> None:
    if not count:
        found = "; ".join(f"{number} not: {why}" for why, number in unread.items()) or "none"
        raise DataError(Issue("preview", f"must find a {noun} that can be read", found, "Look at them with: tunesmith check."))


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
