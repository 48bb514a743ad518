"""items: pictures, recordings, boxes, tagged sentences, questions, conversations and spans examined without training.

contents  every item read once: what is wrong with it, its size            data/contents.parquet
copies    equal and nearly equal items, and which labels contradict          data/pairs.parquet
leaks     copies across given splits, or a split that parts none             data/leaks.parquet or data/splits.parquet
report    everything the page shows, its drawings, and the page              data/items.json data/sketches.parquet
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import RunError
from tunesmith.core.interrupt import stoppable
from tunesmith.core.records import Issue, Progress
from tunesmith.core.rundir import RunDir, StageWriter, sha256_json
from tunesmith.data.audio import AUDIO_EXPLANATIONS, check_audio, read_audio
from tunesmith.data.audio_duplicates import FINGERPRINT_RATE
from tunesmith.data.clean import SPLITS
from tunesmith.data.image_duplicates import thumbnail
from tunesmith.data.images import IMAGE_EXPLANATIONS, check_images, read_image
from tunesmith.data.item_agreement import agreement_of
from tunesmith.data.item_boxes import boxes_of
from tunesmith.data.item_contents import (
    NOUNS,
    TEXT_EXPLANATIONS,
    conflicts,
    conversions_of,
    counts_of,
    labels_of,
    left_out,
    names_of,
    one_each,
    places_of,
    problems_of,
    sizes_of,
    text_contents,
    texts_of,
)
from tunesmith.data.item_copies import (
    MOST_RECORDINGS,
    MOST_SECONDS,
    Copies,
    audio_copies,
    content_groups,
    exact_copies,
    image_copies,
    pairs_of,
    question_copies,
    text_copies,
)
from tunesmith.data.item_sketches import picture_sketches, sound_sketches
from tunesmith.data.item_splits import given_splits, proposed_split
from tunesmith.data.open import is_database, shown
from tunesmith.data.sources.archive import located, stem_of
from tunesmith.data.sources.base import Items
from tunesmith.data.sources.detect import FORMATS, open_source
from tunesmith.data.sources.place import SPLIT_NAMES, Place
from tunesmith.document.items_report import render_items_report
from tunesmith.spec.addresses import is_address
from tunesmith.stages.items_findings import item_findings

Watch = Callable[[Progress], None]

CONFLICTS_SHOWN, NEAR_SHOWN, SAME_SHOWN = 16, 12, 4
TEXT_CHARACTERS = 400
CHECK_STAGES = frozenset(("prepare", "resolve", "embed", "certify", "inspect", "items"))
"""Stages of checks alone: a folder with one more is a run, which is never cleared."""
BEGUN = frozenset((".lock", ".manifest.json.writing", "spec.yaml"))


def items_of(source: str | Path) -> Items | None:
    """The items of a file, folder, archive or address; None for a table to classify texts by, and for what no format but a table may be.

    Choices of several annotators are items, because their agreement is to be measured.

    Raises:
        DataError: a format was recognised, and its data are damaged or hold nothing; or an address that cannot be read.
    """
    source = str(source)
    if is_database(source) or not (path := located(source).path).exists():
        return None
    place = Place(path)
    if not any(form.recognise(place) for form in FORMATS if form.name != "table"):
        return None
    items = open_source(source)
    return None if items.kind == "table" and agreement_of(items) is None else items


def name_of(source: str | Path) -> str:
    """A name for the check: the file's without its endings, or the folder's; the folder's too for a file named like a split."""
    address = is_address(str(source))
    whole = Path(shown(str(source)).partition("?")[0]) if address else Path(source).resolve()
    stem = whole.name if whole.is_dir() else stem_of(whole.name).split(".")[0]
    stem = f"{stem_of(whole.parent.name)}-{stem}" if not whole.is_dir() and stem.lower() in SPLIT_NAMES else stem
    return re.sub(r"[^\w.\- ]+", "-", stem).lstrip(".- ")[:100] or "items"


def check_items(items: Items, name: str, checks: Path | str = "checks", watch: Watch | None = None) -> Path:
    """Examine the items, and write what was found and data_report.html into `checks`/`name`, which is cleared first.

    Raises:
        RunError: the folder holds something else than a check.
    """
    rundir = RunDir(Path(checks) / name)
    identity = sha256_json([items.kind, items.format, items.why, items.table.height])
    with stoppable(), rundir.locked():
        _clear(rundir)
        rundir.update_manifest(items={"kind": items.kind, "format": items.format}, spec=identity, data={}, stages={})
        with rundir.stage("items", identity, {"tunesmith": version("tunesmith")}) as stage:
            _examine(items, name, stage, watch or (lambda _progress: None))
        (rundir.path / "data_report.html").write_text(render_items_report(rundir), "utf-8")
    return rundir.path


def forget_items(folder: Path) -> None:
    """Clear a folder that holds a check of items, so that a check of a table can have it; any other is left as it is."""
    rundir = RunDir(folder)
    if "items" in rundir.manifest:
        with rundir.locked():
            _clear(rundir)


def _clear(rundir: RunDir) -> None:
    """Remove an earlier check.

    Raises:
        RunError: the folder holds a run, or files that are no check's.
    """
    found = sorted(path.name for path in rundir.path.iterdir() if path.name not in BEGUN)
    manifest = rundir.manifest
    if (found and not manifest) or not set(manifest.get("stages", {})) <= CHECK_STAGES:
        what = f"a folder with {', '.join(found[:5])}" if not manifest else "a run"
        raise RunError(Issue(str(rundir.path), "must be empty or an earlier check", what, "Choose another folder with --checks DIR."))
    for path in rundir.path.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _examine(items: Items, name: str, stage: StageWriter, watch: Watch) -> None:
    table = one_each(items)
    contents = _contents(items, table, watch)
    copies = _copies(items, table, contents, watch)
    labels, keys = labels_of(table, items.kind)
    places = places_of(table)
    splits = [None if places is None or place < 0 else SPLITS[place] for place in (places[0] if places else np.zeros(table.height, int))]
    texts = None if _paths(items, table) else texts_of(table, items.kind)
    found = pairs_of(copies, texts)
    pairs = _described(found, names_of(table), labels, splits, conflicts(items.kind, keys, found))
    content: dict[str, Any] = {
        **_about(items, name, table, contents),
        "counts": counts_of(table, items.kind, splits),
        "boxes": boxes_of(table) if items.kind == "object-detection" else None,
        "copies": {**_summed(copies, pairs, texts), "labelled": any(key is not None for key in keys)},
        "leaks": None,
        "proposed": None,
        "agreement": None,
    }
    if places:
        content["leaks"], leaks = given_splits(copies, names_of(table), labels, places)
        stage.write("data/leaks.parquet", leaks.write_parquet)
    else:
        content["proposed"], proposed = proposed_split(copies, names_of(table), _stable(table, texts), keys)
        stage.write("data/splits.parquet", proposed.write_parquet)
    if agreed := agreement_of(items):
        content["agreement"], consensus = agreed
        if consensus is not None:
            stage.write("data/consensus.parquet", consensus.write_parquet)
    stage.write("data/items.parquet", items.table.write_parquet)
    stage.write("data/dropped.parquet", items.dropped.write_parquet)
    stage.write("data/contents.parquet", contents.write_parquet)
    stage.write("data/pairs.parquet", pairs.write_parquet)
    stage.write("data/sketches.parquet", _sketches(items, table, content).write_parquet)
    artefact = stage.write_text("data/items.json", json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    stage.find(*item_findings(content, artefact))
    watch(Progress("report", 1, 1, note=f"{pairs.height:,} pairs of copies"))


def _about(items: Items, name: str, table: pl.DataFrame, contents: pl.DataFrame) -> dict[str, Any]:
    """What the source is, what was left out of it, and what its contents are like."""
    explanations = TEXT_EXPLANATIONS | {str(k): v for k, v in (IMAGE_EXPLANATIONS | AUDIO_EXPLANATIONS).items()}
    if "audio" in table.columns:
        explanations |= {str(k): v for k, v in AUDIO_EXPLANATIONS.items()}
    noun, counted = NOUNS[items.kind]
    return {
        "name": name,
        "kind": items.kind,
        "format": items.format,
        "why": items.why,
        "noun": noun,
        "counted": counted,
        "items": table.height,
        "rows": items.table.height,
        "issues": [str(issue) for issue in items.issues],
        "left_out": left_out(items),
        "left_out_count": items.dropped.height,
        "problems": problems_of(contents, names_of(table), explanations),
        "problem_items": contents.filter(pl.col("problems").list.len() > 0).height,
        "conversions": conversions_of(contents),
        "sizes": sizes_of(contents),
    }


class _Heard(list[Path]):
    """Paths that tell the watch how many of them have been taken."""

    def __init__(self, paths: list[Path], stage: str, unit: str, watch: Watch) -> None:
        super().__init__(paths)
        self.stage, self.unit, self.watch = stage, unit, watch

    def __iter__(self) -> Iterator[Path]:
        for done, path in enumerate(super().__iter__()):
            self.watch(Progress(self.stage, done, len(self), self.unit))
            yield path
        self.watch(Progress(self.stage, len(self), len(self), self.unit))


def _paths(items: Items, table: pl.DataFrame) -> list[Path]:
    """The file of each item; empty for texts. Sources have made sure that every one lies within `root`."""
    column = next((name for name in ("image", "audio") if name in table.columns and items.root is not None), None)
    return [items.root / path for path in table[column].to_list()] if column and items.root is not None else []


def _contents(items: Items, table: pl.DataFrame, watch: Watch) -> pl.DataFrame:
    """A row per item: source, problems, detail, and the numbers of its kind."""
    paths = _paths(items, table)
    if not paths:
        return text_contents(table, items.kind)
    heard = _Heard(paths, "contents", NOUNS[items.kind][0], watch)
    checked = check_audio(heard) if "audio" in table.columns else check_images(heard)
    checked = checked.with_columns(table["audio" if "audio" in table.columns else "image"].alias("path"), table["source"])
    if items.kind != "object-detection":
        return checked
    differs = (checked["width"] != table["width"]) | (checked["height"] != table["height"])
    added = pl.when(differs.fill_null(False)).then(pl.col("problems").list.concat(pl.lit(["size_differs"]))).otherwise(pl.col("problems"))
    return checked.with_columns(added.alias("problems"))


def _copies(items: Items, table: pl.DataFrame, contents: pl.DataFrame, watch: Watch) -> Copies:
    if items.kind == "question-answering":
        return question_copies(table["question"], table["context"])
    if not (paths := _paths(items, table)):
        return text_copies(texts_of(table, items.kind))
    group_N, first_G = content_groups(contents["content"])
    searched_G = np.flatnonzero(contents["content"].is_not_null().to_numpy()[first_G])
    heard = _Heard([paths[first_G[group]] for group in searched_G], "copies", NOUNS[items.kind][0], watch)
    if "audio" not in table.columns:
        small = [thumbnail(pixels) for path in heard if (pixels := read_image(path).pixels) is not None]
        watch(Progress("copies", 1, 1, note="comparing"))
        return image_copies(group_N, searched_G, np.array(small, np.float32).reshape(-1, 32, 32))
    seconds = float(contents["seconds"].gather(first_G[searched_G]).sum() or 0)
    if len(heard) > MOST_RECORDINGS or seconds > MOST_SECONDS:
        why = (
            f"Only recordings of equal samples were looked for, no near copies: {len(heard):,} recordings of {seconds:,.0f} seconds in "
            f"all are more than the {MOST_RECORDINGS:,} and {MOST_SECONDS:,.0f} that are compared with each other."
        )
        return exact_copies("audio", group_N, "the same samples", why)
    sounds = [samples for path in heard if (samples := read_audio(path, FINGERPRINT_RATE).samples) is not None]
    watch(Progress("copies", 1, 1, note="comparing"))
    return audio_copies(group_N, searched_G, sounds)


def _described(
    pairs: pl.DataFrame, names: pl.Series, labels: list[str | None], splits: list[str | None], differ: list[bool]
) -> pl.DataFrame:
    """Pairs with name, label and split of both sides, and whether their labels contradict each other."""
    named = {"name": names, "label": pl.Series(labels, dtype=pl.String), "split": pl.Series(splits, dtype=pl.String)}
    both = [named[what].gather(pairs[side]).alias(f"{side}_{what}") for side in ("left", "right") for what in named]
    return pairs.with_columns(*both, pl.Series("conflict", differ, dtype=pl.Boolean))


def _summed(copies: Copies, pairs: pl.DataFrame, texts: pl.Series | None) -> dict[str, Any]:
    """Numbers of copies, and the pairs that the report shows: conflicts first, then near ones, the most alike first."""
    clusters = np.bincount(copies.near.clusters_N)
    groups = np.bincount(copies.near.group_N)
    near = pairs.filter(~pl.col("same") & ~pl.col("conflict")).sort("similarity", "left", "right", descending=[True, False, False])
    conflict = pairs.filter("conflict").sort("similarity", "left", "right", descending=[True, False, False])
    same = pairs.filter(pl.col("same") & ~pl.col("conflict"))
    shown = pl.concat([conflict.head(CONFLICTS_SHOWN), near.head(NEAR_SHOWN), same.head(SAME_SHOWN)]).to_dicts()
    for row in shown:
        row |= {f"{side}_text": None if texts is None else texts[row[side]][:TEXT_CHARACTERS] for side in ("left", "right")}
    contexts = None if copies.contexts is None else len(np.unique(copies.contexts.clusters_N))
    return {
        "kind": copies.kind,
        "statement": copies.statement,
        "pairs": pairs.height,
        "same_pairs": int(pairs["same"].sum()),
        "near_pairs": int((~pairs["same"]).sum()),
        "same_groups": int((groups > 1).sum()),
        "same_items": int(groups[groups > 1].sum()),
        "conflicts": conflict.height,
        "clusters": int((clusters > 1).sum()),
        "clustered_items": int(clusters[clusters > 1].sum()),
        "largest_cluster": int(clusters.max(initial=0)),
        "different_contexts": contexts,
        "shown": shown,
    }


def _stable(table: pl.DataFrame, texts: pl.Series | None) -> pl.Series:
    """A name of each item that stays when others are added: its path, or the hash of its text."""
    if texts is None:
        return table["image" if "image" in table.columns else "audio"]
    return pl.Series([hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=pl.String)


def _sketches(items: Items, table: pl.DataFrame, content: dict[str, Any]) -> pl.DataFrame:
    """Drawings of the items that the report shows."""
    paths = _paths(items, table)
    rows = {row[side] for row in content["copies"]["shown"] for side in ("left", "right")} if paths else set()
    rows |= {row["row"] for problem in content["problems"] for row in problem["examples"]} if paths else set()
    large = [entry["row"] for entry in (content["boxes"] or {}).get("pictures", [])]
    chosen = {row: paths[row] for row in sorted(rows | set(large))}
    return sound_sketches(chosen) if "audio" in table.columns else picture_sketches(chosen, large)
