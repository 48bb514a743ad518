"""Detection formats: the same boxes from each, and a reason for every box and picture that leaves."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import source_files as files
from tests.source_files import HEIGHT, WIDTH
from tunesmith.core.errors import DataError
from tunesmith.data.sources.base import Items, Reason
from tunesmith.data.sources.boxes import problem_of_box
from tunesmith.data.sources.detect import open_source

BOX = {"label": "cat", "x": 4.0, "y": 3.0, "width": 10.0, "height": 20.0}


def reasons(items: Items) -> list[str]:
    return items.dropped["reason"].to_list()


def told(items: Items) -> str:
    return " ".join(map(str, items.issues))


@pytest.mark.parametrize("make", [files.coco, files.voc, files.yolo, files.box_lines, files.label_studio_boxes])
def test_every_format_gives_the_same_box(tmp_path: Path, make: Any) -> None:
    items = open_source(str(make(tmp_path)))
    row = items.table.row(0, named=True)
    assert (row["width"], row["height"]) == (WIDTH, HEIGHT)
    assert len(row["boxes"]) == 1
    assert row["boxes"][0]["label"] == "cat"
    assert all(math.isclose(row["boxes"][0][side], BOX[side], abs_tol=1e-9) for side in ("x", "y", "width", "height"))
    assert items.table["boxes"].to_list()[1:] in ([[]], [])
    assert items.dropped.height == 0


@given(*(st.floats(allow_nan=True, allow_infinity=True) | st.floats(-50, 50) for _ in range(4)))
def test_a_box_is_good_or_has_a_reason(x: float, y: float, width: float, height: float) -> None:
    problem = problem_of_box([x, y, width, height], WIDTH, HEIGHT)
    if problem is None:
        assert width > 0 and height > 0 and x >= -1 and y >= -1 and x + width <= WIDTH + 1 and y + height <= HEIGHT + 1
    elif not all(map(math.isfinite, (x, y, width, height))):
        assert problem is Reason.BOX_NOT_FINITE
    else:
        assert (problem is Reason.BOX_EMPTY) == (width <= 0 or height <= 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*(st.floats(-3, 45) for _ in range(4))), min_size=1, max_size=8))
def test_boxes_are_kept_inside_or_counted(tmp_path_factory: pytest.TempPathFactory, corners: list[tuple[float, ...]]) -> None:
    folder = tmp_path_factory.mktemp("coco")
    annotations = [{"id": n, "image_id": 1, "category_id": 7, "bbox": list(box)} for n, box in enumerate(corners)]
    items = open_source(str(files.coco(folder, annotations=annotations)))
    boxes = items.table["boxes"].to_list()[0]
    assert len(boxes) + items.dropped.height == len(corners)
    for box in boxes:
        assert box["x"] >= 0 and box["y"] >= 0 and box["width"] > 0 and box["height"] > 0
        assert box["x"] + box["width"] <= WIDTH + 1e-9 and box["y"] + box["height"] <= HEIGHT + 1e-9


def annotated(*boxes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": n, "image_id": 1, "category_id": 7, "bbox": [4, 3, 10, 20]} | box for n, box in enumerate(boxes, start=1)]


BAD_BOXES: dict[str, tuple[dict[str, Any], Reason]] = {
    "outside": ({"bbox": [35, 3, 10, 20]}, Reason.BOX_OUTSIDE),
    "left of it": ({"bbox": [-5, 3, 10, 20]}, Reason.BOX_OUTSIDE),
    "no area": ({"bbox": [4, 3, 0, 20]}, Reason.BOX_EMPTY),
    "negative": ({"bbox": [14, 3, -10, 20]}, Reason.BOX_EMPTY),
    "NaN": ({"bbox": [math.nan, 3, 10, 20]}, Reason.BOX_NOT_FINITE),
    "infinite": ({"bbox": [4, 3, math.inf, 20]}, Reason.BOX_NOT_FINITE),
    "huge": ({"bbox": [10**400, 3, 10, 20]}, Reason.BOX_NOT_FINITE),
    "null": ({"bbox": [None, 3, 10, 20]}, Reason.BOX_NOT_FINITE),
    "three numbers": ({"bbox": [4, 3, 10]}, Reason.MALFORMED),
    "no box": ({"bbox": None}, Reason.MALFORMED),
    "unknown category": ({"category_id": 8}, Reason.UNKNOWN_CATEGORY),
    "unknown image": ({"image_id": 9}, Reason.UNKNOWN_IMAGE),
    "an id of another type": ({"image_id": "1"}, Reason.UNKNOWN_IMAGE),
    "a crowd": ({"iscrowd": 1}, Reason.CROWD),
    "the same again": ({"id": 1}, Reason.DUPLICATE_ID),
}


@pytest.mark.parametrize("case", BAD_BOXES)
def test_a_bad_coco_box_leaves_with_its_reason(tmp_path: Path, case: str) -> None:
    change, reason = BAD_BOXES[case]
    items = open_source(str(files.coco(tmp_path, annotations=annotated({}, change))))
    assert reasons(items) == [reason]
    assert items.dropped["source"][0] == "boxes.json annotation 2"
    assert items.table["boxes"].list.len().to_list() == [1, 0]


def test_a_pixel_beyond_the_picture_is_clipped_and_counted(tmp_path: Path) -> None:
    boxes = annotated({"bbox": [-1, -0.5, 10, 20]}, {"bbox": [30.5, 10, 10, 20.5]})
    items = open_source(str(files.coco(tmp_path, annotations=boxes)))
    found = [list(box.values())[1:] for box in items.table["boxes"].to_list()[0]]
    assert found == [[0, 0, 9, 19.5], [30.5, 10, 9.5, 20]]
    assert "2 boxes up to a pixel outside were clipped" in told(items) and not items.dropped.height


def test_ids_used_again_for_other_things_are_kept_and_told(tmp_path: Path) -> None:
    boxes = annotated({}, {"id": 1, "bbox": [1, 1, 5, 5]})
    categories = [{"id": 7, "name": "cat"}, {"id": 7, "name": "dog"}]
    items = open_source(str(files.coco(tmp_path, annotations=boxes, categories=categories)))
    assert items.table["boxes"].list.len().to_list() == [2, 0]
    assert "1 ids were used again for another box" in told(items) and "1 ids have a second name" in told(items)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.png", "missing_file"),
        ("../images/../../a.png", "outside_folder"),
        ("/etc/passwd", "outside_folder"),
        ("http://x.org/a.png", "remote_file"),
        (None, "malformed"),
        (5, "malformed"),
        ("link.png", "outside_folder"),
        ("text.png", "unreadable_image"),
    ],
)
def test_a_picture_that_cannot_be_used_leaves_with_its_boxes(tmp_path: Path, name: object, reason: str) -> None:
    data = tmp_path / "data"
    value = files.coco_value()
    value["images"][0] = {"id": 1, "file_name": name}
    files.coco(data, **value)
    os.symlink(files.image(tmp_path / "out.png"), data / "images" / "link.png")
    (data / "images" / "text.png").write_text("words")
    items = open_source(str(data / "boxes.json"))
    assert reasons(items) == [reason]
    assert "with its 1 boxes" in items.dropped["detail"][0]
    assert items.table["image"].to_list() == ["images/b.png"]


def test_no_picture_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    path = files.document(tmp_path / "boxes.json", files.coco_value())
    with pytest.raises(DataError, match="2 left out: The file that the item names does not exist"):
        open_source(str(path))


def test_sizes_that_are_missing_come_from_the_image(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png", "width": 0, "height": -4}]
    items = open_source(str(files.coco(tmp_path, images=images)))
    assert items.table.select("width", "height").rows() == [(WIDTH, HEIGHT)] * 2


def test_coco_splits_come_from_the_files_of_a_folder(tmp_path: Path) -> None:
    for split, name in (("train", "a.png"), ("val", "b.png")):
        files.image(tmp_path / f"{split}2017" / name)
        value = files.coco_value(images=[{"id": 1, "file_name": name}])
        files.document(tmp_path / "annotations" / f"instances_{split}2017.json", value)
    items = open_source(str(tmp_path))
    assert items.table.select("image", "split").rows() == [("train2017/a.png", "train"), ("val2017/b.png", "validation")]
    alone = open_source(str(tmp_path / "annotations" / "instances_val2017.json"))
    assert alone.root == tmp_path and alone.table["image"].to_list() == ["val2017/b.png"]


XML_DOCTYPE = '<!DOCTYPE a [<!ENTITY x "y">]>' + files.voc_xml("a.png")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (XML_DOCTYPE, "xml_doctype"),
        ('<?xml version="1.0"?>\n<!DOCTYPE a SYSTEM "file:///etc/passwd">' + files.voc_xml("a.png"), "xml_doctype"),
        (files.voc_xml("a.png")[:-5], "malformed"),
        ("<other/>", "malformed"),
        ("", "malformed"),
        (files.voc_xml("none.png").replace("none", "../../none"), None),
    ],
)
def test_bad_xml_leaves_with_its_reason(tmp_path: Path, text: str, reason: str | None) -> None:
    files.voc(tmp_path, {"a": text, "b": files.voc_xml("b.png", files.voc_box("cat", (1, 1, 10, 10)))})
    items = open_source(str(tmp_path))
    found = [row["reason"] for row in items.dropped.iter_rows(named=True) if row["source"] == "Annotations/a.xml"]
    assert found == ([reason] if reason else [])
    assert items.table["boxes"].to_list()[-1] == [{"label": "cat", "x": 0.0, "y": 0.0, "width": 10.0, "height": 10.0}]


def test_utf16_does_not_hide_a_doctype(tmp_path: Path) -> None:
    files.voc(tmp_path)
    (tmp_path / "Annotations" / "a.xml").write_bytes(('<?xml version="1.0" encoding="UTF-16"?>' + XML_DOCTYPE).encode("utf-16"))
    assert "xml_doctype" in reasons(open_source(str(tmp_path)))


def test_voc_objects_pictures_and_splits(tmp_path: Path) -> None:
    boxes = "".join(
        [files.voc_box("cat", (5, 4, 4, 23)), files.voc_box("cat", ("x", 4, 14, 23)), files.voc_box("", (5, 4, 14, 23)), "<object/>"]
    )
    files.voc(tmp_path, {"a": files.voc_xml("a.png", boxes, size=""), "b": files.voc_xml("b.png")})
    (tmp_path / "Annotations" / "c.xml").write_text(files.voc_xml("c.png", files.voc_box("cat", (1, 1, 2, 2))))
    files.image(tmp_path / "JPEGImages" / "d.png")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    items = open_source(str(tmp_path))
    assert items.table.select("image", "width", "split").rows() == [
        ("JPEGImages/a.png", WIDTH, None), ("JPEGImages/b.png", WIDTH, "validation"),
    ]  # fmt: skip
    assert reasons(items) == ["box_empty", "box_not_finite", "malformed", "malformed", "missing_file", "not_annotated"]
    assert items.dropped["source"][0] == "Annotations/a.xml object 1"
    assert "1 images have none and are left out" in told(items)


def test_yolo_lines_that_cannot_be_used_leave_with_their_reason(tmp_path: Path) -> None:
    good = "0 0.5 0.5 0.2 0.2"
    bad = ["0 0.5 0.5 0.2", "0 0.5 0.5 nan 0.2", "0 0.5 0.5 0 0.2", "0 0.9 0.5 0.9 0.2", "5 0.5 0.5 0.2 0.2", "x", "0.5 0 0 1 1", ""]
    files.yolo(tmp_path, {"a": "\n".join([good, *bad, good]), "lost": good})
    items = open_source(str(tmp_path))
    assert reasons(items) == [
        "malformed", "box_not_finite", "box_empty", "box_outside", "unknown_category", "malformed", "malformed", "malformed",
        "missing_file",
    ]  # fmt: skip
    assert items.dropped["source"][1] == "labels/train/a.txt:3"
    assert items.table["boxes"].list.len().to_list() == [2, 0] and items.table["split"].to_list() == ["train"] * 2
    assert "1 images have none and count as images without boxes" in told(items)
    assert "class numbers 5, and 2 names" in told(items)


def test_an_image_with_a_damaged_label_file_is_not_taken_as_empty(tmp_path: Path) -> None:
    files.yolo(tmp_path)
    (tmp_path / "labels" / "train" / "b.txt").write_bytes(b"0 0.5 \xff")
    items = open_source(str(tmp_path))
    assert items.table["image"].to_list() == ["images/train/a.png"]
    assert items.dropped.select("source", "reason").rows() == [("labels/train/b.txt", "malformed")]


def test_yolo_class_lists(tmp_path: Path) -> None:
    one = "0 0.5 0.5 0.2 0.2\n"
    named = open_source(str(files.yolo(tmp_path / "norway", {"a": one}, classes=("no", "yes"))))
    assert named.table["boxes"].to_list()[0][0]["label"] == "no"
    plain = files.yolo(tmp_path / "plain", {"a": one}, classes=None)
    without = open_source(str(plain))
    assert without.table["boxes"].to_list()[0][0]["label"] == "0" and "called by their numbers" in told(without)
    (plain / "classes.txt").write_text("bird\n")
    assert open_source(str(plain)).table["boxes"].to_list()[0][0]["label"] == "bird"
    (plain / "data.yaml").write_text("nc: 3\nnames:\n  0: fish\n  x: y\n")
    mapped = open_source(str(plain / "data.yaml"))
    assert mapped.table["boxes"].to_list()[0][0]["label"] == "fish" and "nc 3 and 1 names" in told(mapped)
    (plain / "data.yaml").write_text("names: [a, b\n")
    with pytest.raises(DataError, match="must be YAML with the class names"):
        open_source(str(plain))


def test_label_studio_rectangles_by_several_people(tmp_path: Path) -> None:
    files.image(tmp_path / "images" / "a.png")
    tilted, keypoint = files.rectangle(0, 0, 10, 10, rotation=5), {"type": "keypointlabels", "value": {}}
    tasks = [
        files.label_task(1, {"image": "/data/local-files/?d=somewhere/a.png"}, [files.rectangle(0, 0, 50, 50)], [tilted, keypoint]),
        files.label_task(2, {"image": "https://x.org/a.png"}, [files.rectangle(0, 0, 50, 50)]),
        files.label_task(3, {"image": "/data/upload/a.png"}),
        files.label_task(4, {"image": "/data/upload/a.png"}, [], was_cancelled=True),
    ]
    items = open_source(str(files.document(tmp_path / "export.json", tasks)))
    assert items.table.select("image", "annotator").rows() == [("images/a.png", "1"), ("images/a.png", "2")]
    assert sorted(reasons(items)) == ["box_rotated", "cancelled", "not_annotated", "remote_file", "unsupported"]
    assert "1 tasks have several, a row for each" in told(items)


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": [[4, 3, 10, 20]], "category": ["cat"]},
        {"bbox": [[4, 3, 10, 20]], "categories": ["cat"]},
        [{"bbox": [4, 3, 10, 20], "label": "cat"}],
    ],
)
def test_objects_of_box_lines_in_every_form(tmp_path: Path, objects: object) -> None:
    files.image(tmp_path / "a.png")
    rows = [{"image": "a.png", "objects": objects}, {"image": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": []}}]
    path = files.lines(tmp_path / "train.jsonl", rows)
    path.write_text(path.read_text() + json.dumps(rows[0])[:-9] + "\n")
    items = open_source(str(path))
    assert items.table["boxes"].to_list() == [[BOX], []]
    assert reasons(items) == ["malformed", "malformed"]
    assert items.dropped["source"].to_list() == ["train.jsonl:2", "train.jsonl:3"]


def test_warnings_of_damaged_images_do_not_escape(tmp_path: Path) -> None:
    files.voc(tmp_path, {"a": files.voc_xml("a.png", size=""), "b": files.voc_xml("b.png")})
    content = (tmp_path / "JPEGImages" / "a.png").read_bytes()
    (tmp_path / "JPEGImages" / "a.png").write_bytes(content[:20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reasons(open_source(str(tmp_path))) == ["unreadable_image"]
