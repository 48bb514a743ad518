"""The report about items: what a check found in pictures, recordings, boxes and texts, from the folder of the check alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunesmith.core.rundir import RunDir
from tunesmith.document import vocabulary
from tunesmith.document.claims import Claims, html_document
from tunesmith.document.contents import Contents
from tunesmith.document.formats import formatted
from tunesmith.document.summary import Row
from tunesmith.document.templating import rendered

FILE = "data/items.json"
CLASSES_OPEN, CLASSES_SHOWN, PAIRS_SHOWN = 15, 200, 30
COLOURS = ("#e6550d", "#3182bd", "#31a354", "#756bb1", "#d6c400", "#e7298a", "#17becf", "#8c564b")
SIZES = {"smallest": "min", "a quarter up to": "p25", "half up to": "p50", "three quarters up to": "p75", "nearly all up to": "p99",
         "largest": "max"}  # fmt: skip
KINDS = {
    "image-classification": "pictures with classes",
    "object-detection": "pictures with boxes",
    "audio-classification": "recordings with classes",
    "token-classification": "sentences with a tag for each token",
    "question-answering": "questions with answers in a text",
    "chat": "conversations",
    "text-spans": "texts with marked spans",
    "table": "texts with choices of annotators",
}
EXACT = {"image": "pixels", "audio": "samples"}


@dataclass(frozen=True)
class Wave:
    """An envelope as a closed line in a box of 100 times 40, and the seconds that it stands for."""

    points: str
    seconds: float


def render_items_report(run: RunDir) -> str:
    """data_report.html of a check of items; the same files give the same bytes.

    Raises:
        UnsourcedNumber: a template holds a digit of its own.
    """
    contents = Contents.of(run)
    claims = Claims(contents)
    return html_document("data_report.html", rendered("items_report.html", c=claims, v=vocabulary, **_view(run)), claims)


def items_summary(run: RunDir) -> list[Row]:
    """What a check of items found, as lines for a terminal."""
    content = _content(run)
    copies, leaks, proposed = content["copies"], content["leaks"], content["proposed"]
    classes = ", ".join(f"{row['all']:,} {row['name']}" for row in content["counts"][:4])
    more = f" and {len(content['counts']) - 4:,} more" if len(content["counts"]) > 4 else ""
    rows = [
        ("read as", content["format"], KINDS[content["kind"]]),
        (f"{content['noun']}s", f"{content['items']:,}", classes + more),
        ("left out", f"{content['left_out_count']:,}", ", ".join(f"{row['count']:,} {row['reason']}" for row in content["left_out"])),
        ("with problems", f"{content['problem_items']:,}", ", ".join(f"{row['count']:,} {row['code']}" for row in content["problems"])),
        ("pairs of copies", f"{copies['pairs']:,}", f"{copies['same_pairs']:,} equal, {copies['near_pairs']:,} near"),
        ("contradicting pairs", f"{copies['conflicts']:,}", "copies whose labels differ"),
    ]
    if leaks:
        rows.append(("test known before", f"{leaks['test']:,}", f"of {leaks['rows']['test']:,}; see data/leaks.parquet"))
    else:
        sizes = ", ".join(f"{count:,} {name}" for name, count in proposed["rows"].items())
        rows.append(("proposed split", sizes, f"{proposed['straddling']:,} pairs straddle it; see data/splits.parquet"))
    for measure in (content["agreement"] or {}).get("measures", []):
        rows.append(("agreement", "unknown" if measure["value"] is None else formatted(measure["value"], "score"), measure["name"]))
    rows += [("warning", "", issue) for issue in content["issues"]]
    return [Row("items", *row) for row in rows]


def _content(run: RunDir) -> dict[str, Any]:
    return dict(json.loads((run.path / FILE).read_text("utf-8")))


def _view(run: RunDir) -> dict[str, Any]:
    """What the template walks over; numbers in it reach the page only through claims."""
    content = _content(run)
    picture, wave = _drawings(run)
    classes = sorted({box["label"] for entry in (content["boxes"] or {}).get("pictures", []) for box in entry["boxes"]})
    return {
        "d": content,
        "file": FILE,
        "kind": KINDS[content["kind"]],
        "exact": EXACT.get(content["copies"]["kind"], "text"),
        "sizes": SIZES,
        "classes_open": CLASSES_OPEN,
        "classes_shown": CLASSES_SHOWN,
        "leaks_shown": PAIRS_SHOWN,
        "given": [split for split in vocabulary.SPLITS if content["leaks"] and content["leaks"]["rows"][split]],
        "colours": {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(classes)},
        "picture": picture,
        "wave": wave,
    }


def _drawings(run: RunDir) -> tuple[Callable[[int], str | None], Callable[[int], Wave | None]]:
    """The data: address of an item's picture and the envelope of a recording by row number; None where there is none."""
    sketches = pl.read_parquet(run.path / "data/sketches.parquet")
    by_row = {row: (jpeg, wave, seconds) for row, jpeg, wave, seconds in sketches.iter_rows()}

    def picture(row: int) -> str | None:
        jpeg = by_row.get(row, (None, None, None))[0]
        return None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"

    def wave(row: int) -> Wave | None:
        _, ends, seconds = by_row.get(row, (None, None, None))
        return None if ends is None else Wave(_outline(ends), seconds)

    return picture, wave


def _outline(ends: list[int]) -> str:
    """Points of the closed line: the highs from left to right, the lows back."""
    lows, highs = ends[0::2], ends[1::2]
    step = 100 / max(len(lows) - 1, 1)
    over = [f"{place * step:.1f},{20 - high / 5:.1f}" for place, high in enumerate(highs)]
    under = [f"{place * step:.1f},{20 - low / 5:.1f}" for place, low in enumerate(lows)]
    return " ".join([*over, *reversed(under)])
