"""The findings of a check of items: each value of items.json that a reader may want to cite, with where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.core.records import Artefact, Finding

Told = tuple[str, str, str, str]  # id below items/, claim, JSON pointer, unit


def item_findings(content: Mapping[str, Any], artefact: Artefact) -> list[Finding]:
    """The items/* findings of the content of items.json."""
    told = [*_contents(content), *_copies(content), *_splits(content)]
    found = [
        Finding(f"items/{name}", claim, _at(content, pointer), unit, content["items"], artefact=replace(artefact, pointer=pointer))
        for name, claim, pointer, unit in told
    ]
    return [*found, *_agreement(content, artefact)]


def _contents(content: Mapping[str, Any]) -> Iterator[Told]:
    noun = f"{content['noun']}s"
    yield "count", f"Items of the source ({noun})", "/items", noun
    yield "left_out", "Items, boxes, answers or files that were left out", "/left_out_count", "entries"
    yield "with_problems", "Items with a problem of contents", "/problem_items", noun
    for place, row in enumerate(content["left_out"]):
        yield f"left_out/{row['reason']}", f"Left out: {row['explanation']}", f"/left_out/{place}/count", "entries"
    for place, row in enumerate(content["problems"]):
        yield f"problem/{row['code']}", row["explanation"], f"/problems/{place}/count", noun
    for place, row in enumerate(content["conversions"]):
        yield f"converted/{row['what']}", f"Converted when read: {row['what']}", f"/conversions/{place}/count", noun
    for place, row in enumerate(content["counts"]):
        for split in row:
            if split != "name":
                yield f"class/{row['name']}/{split}", f"Times of {row['name']!r}, {split}", f"/counts/{place}/{split}", ""
    if content["boxes"]:
        yield "boxes", "Boxes", "/boxes/count", "boxes"
        yield "boxes/pictures_without", "Pictures without a box", "/boxes/pictures_without", "pictures"
        yield "boxes/twice", "Pairs of boxes of one class on the same place", "/boxes/twice", "pairs"
        yield "boxes/contradicting", "Pairs of boxes of two classes on the same place", "/boxes/contradicting", "pairs"


def _copies(content: Mapping[str, Any]) -> Iterator[Told]:
    noun = f"{content['noun']}s"
    claims = {
        "pairs": ("Pairs of copies", "pairs"),
        "same_pairs": ("Pairs of equal content, each item with the first of its group", "pairs"),
        "near_pairs": ("Pairs of near copies", "pairs"),
        "same_groups": ("Groups of equal content", "groups"),
        "same_items": ("Items in groups of equal content", noun),
        "conflicts": ("Pairs of copies whose labels contradict each other", "pairs"),
        "clusters": ("Clusters of copies", "clusters"),
        "clustered_items": ("Items in clusters of copies", noun),
        "largest_cluster": ("Items of the largest cluster", noun),
    }
    for key, (claim, unit) in claims.items():
        yield f"copies/{key}", claim, f"/copies/{key}", unit
    if content["copies"]["different_contexts"] is not None:
        yield "copies/different_contexts", "Texts that differ from each other", "/copies/different_contexts", "texts"


def _splits(content: Mapping[str, Any]) -> Iterator[Told]:
    where = "leaks" if content["leaks"] else "proposed"
    for name in content[where]["rows"]:
        yield f"rows/{name}", f"Items of the {name} split{'' if content['leaks'] else ' that is proposed'}", f"/{where}/rows/{name}", ""
    if content["proposed"]:
        yield "proposed/straddling", "Pairs of copies that straddle the proposed splits", "/proposed/straddling", "pairs"
        return
    yield "leaking/test", "Test items that train or validation know", "/leaks/test", ""
    yield "leaking/validation", "Validation items that train knows", "/leaks/validation", ""
    yield "without_split", "Items without a split", "/leaks/without", ""
    for place, kind in enumerate(content["leaks"]["kinds"]):
        yield f"leaking/{kind['kind']}/test", f"Test items known by {kind['likeness']}", f"/leaks/kinds/{place}/leaking_test", ""
        for number, entry in enumerate(kind["pairs"]):
            claim = f"Pairs of {entry['split']} and {entry['other']}: {kind['likeness']}"
            pointer = f"/leaks/kinds/{place}/pairs/{number}/count"
            yield f"leaking/{kind['kind']}/{entry['split']}/{entry['other']}", claim, pointer, "pairs"


def _agreement(content: Mapping[str, Any], artefact: Artefact) -> Iterator[Finding]:
    if not content["agreement"]:
        return
    for place, row in enumerate(content["agreement"]["measures"]):
        where = replace(artefact, pointer=f"/agreement/measures/{place}/value")
        interval = tuple(row["interval"]) if row["interval"] else None
        source = "computed" if row["value"] is not None else "unknown"
        claim = f"Agreement of annotators: {row['name']}, by {content['agreement']['by']}"
        yield Finding(f"items/agreement/{row['id']}", claim, row["value"], "", row["n"], interval, source, where, row["note"])  # type: ignore[arg-type]


def _at(content: Mapping[str, Any], pointer: str) -> Any:
    value: Any = content
    for key in pointer.split("/")[1:]:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
