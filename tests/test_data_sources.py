"""Sources: every format is told by its content, every damage gives items or one clear error, and nothing leaves uncounted."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import fsspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import source_files as files
from tunesmith.core.errors import DataError
from tunesmith.data.sources import hub, remote, sql
from tunesmith.data.sources.base import DETECTION, EXPLANATIONS, Items, Reason
from tunesmith.data.sources.detect import FORMATS, open_source
from tunesmith.data.sources.mixed import mixed
from tunesmith.data.sources.place import inside, size_of_image

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the collection of real data is not here")
COLUMNS = {
    "object-detection": {"image", "width", "height", "boxes"},
    "image-classification": {"image", "label"},
    "audio-classification": {"audio", "label"},
    "token-classification": {"tokens", "tags"},
    "question-answering": {"id", "question", "context", "answers"},
    "chat": {"messages"},
    "text-spans": {"text", "spans"},
    "table": {"text", "label"},
}


def reasons(items: Items) -> list[str]:
    return items.dropped["reason"].to_list()


@pytest.mark.parametrize("name", files.MAKERS)
def test_every_format_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    make, form, kind = files.MAKERS[name]
    items = open_source(str(make(tmp_path)))
    assert (items.format, items.kind) == (form, kind)
    assert items.why.startswith("Read as ") and items.why.endswith(".")
    assert {"source"} | COLUMNS[kind] <= set(items.table.columns)
    assert items.table["source"].is_unique().all() and items.table.height > 0
    assert items.dropped.schema == {"source": pl.String, "reason": pl.String, "detail": pl.String}
    for column in {"image", "audio"} & set(items.table.columns):
        assert items.root is not None and all((items.root / path).is_file() for path in items.table[column])
    if kind == "object-detection":
        assert all(items.table.schema[column] == dtype for column, dtype in DETECTION.items())


@pytest.mark.parametrize("name", [name for name in files.MAKERS if name not in ("image table", "audio table", "table")])
def test_a_file_is_known_under_another_name(tmp_path: Path, name: str) -> None:
    make, form, _ = files.MAKERS[name]
    path = make(tmp_path)
    if path.is_file() and form != "conll":
        path = path.rename(tmp_path / "renamed.txt")
    assert open_source(str(path)).format == form


def test_every_reason_is_explained_and_every_format_named_once() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    assert len({form.name for form in FORMATS}) == len(FORMATS)


@settings(max_examples=20, deadline=None)
@given(
    choice=st.integers(0, 1000),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4),
    end=st.floats(0.5, 1.2),
)
@pytest.mark.parametrize("name", files.MAKERS)
def test_changed_bytes_give_items_or_a_data_error(name: str, choice: int, cuts: list[tuple[float, int, bytes]], end: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = files.MAKERS[name][0](root)
        texts = sorted(file for file in root.rglob("*") if file.is_file())
        target = texts[choice % len(texts)]
        content = bytearray(target.read_bytes())
        for at, length, new in cuts:
            start = int(at * len(content))
            content[start : start + length] = new
        target.write_bytes(content[: int(len(content) * end)])
        try:
            items = open_source(str(path))
        except DataError as error:
            assert all(issue.where and issue.expected for issue in error.issues)
        else:
            assert items.table.height > 0 and set(reasons(items)) <= set(Reason)


WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a.png", "../x", "cat", 1, 0, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
JSON_MAKERS = [name for name in files.MAKERS if name.startswith(("coco", "box", "label", "squad", "chat", "share", "alpaca"))]


def changed(value: object, path: list[int], new: object) -> object:
    """The value with one part of it, which the numbers lead to, replaced."""
    if not path or not isinstance(value, (list, dict)) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    inner = changed(value[key], path[1:], new)  # type: ignore[index]
    return {**value, key: inner} if isinstance(value, dict) else [*value[:key], inner, *value[key + 1 :]]


@settings(max_examples=40, deadline=None)
@given(path=st.lists(st.integers(0, 5), min_size=1, max_size=8), new=WORDS)
@pytest.mark.parametrize("name", JSON_MAKERS)
def test_any_value_anywhere_in_json_gives_items_or_a_data_error(name: str, path: list[int], new: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = files.MAKERS[name][0](Path(folder))
        text = target.read_text("utf-8")
        several = target.suffix == ".jsonl"
        value = [json.loads(line) for line in text.splitlines()] if several else json.loads(text)
        value = changed(value, path, new)
        rows = value if several and isinstance(value, list) else [value]
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            assert open_source(str(target)).table.height > 0
        except DataError as error:
            assert all(issue.where and issue.expected for issue in error.issues)


def test_a_missing_path_names_the_closest(tmp_path: Path) -> None:
    files.coco(tmp_path)
    with pytest.raises(DataError, match=r"Did you mean .*boxes\.json"):
        open_source(str(tmp_path / "boxs.json"))


def test_an_unknown_format_lists_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "notes.doc").write_text("nothing to learn from")
    with pytest.raises(DataError, match=r"a folder with 1 files, such as notes\.doc\. Tried: Label Studio export, COCO JSON, SQuAD"):
        open_source(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="an empty folder"):
        open_source(str(tmp_path / "empty"))
    files.image(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"a PNG image(.|\n)*Tried: Label Studio"):
        open_source(str(tmp_path / "x.png"))


@pytest.mark.parametrize("make", [files.coco, files.squad, files.alpaca, files.label_studio_spans])
def test_json_that_is_cut_off_says_so(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="must be a whole JSON file"):
        open_source(str(path))


def test_of_two_formats_the_first_is_taken_and_both_are_told(tmp_path: Path) -> None:
    files.coco(tmp_path)
    items = open_source(str(tmp_path))
    assert items.format == "coco"
    assert "it also looks like folder of images or sounds, which come later in the order" in items.why


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/passwd", "a/../../out.png", "..\\out.png", "C:\\out.png", "link.png", "\\\\host\\x.png"]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    files.image(tmp_path / "out.png")
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "out.png", tmp_path / "data" / "link.png")
    assert inside(tmp_path / "data", name) is Reason.OUTSIDE_FOLDER


@given(name=st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "a", "~", "\\", "", "\0"]), max_size=6).map("/".join))
def test_any_name_gives_a_reason_or_a_file_inside(name: str) -> None:
    root = Path(__file__).parent
    found = inside(root, name)
    assert isinstance(found, Reason) or (root / found).resolve().is_relative_to(root)


def test_image_sizes_come_from_the_header_and_bombs_are_refused(tmp_path: Path) -> None:
    assert size_of_image(files.image(tmp_path / "a.png", (7, 5))) == (7, 5)
    bomb = bytearray((tmp_path / "a.png").read_bytes())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "bomb.png").write_bytes(bomb)
    assert size_of_image(tmp_path / "bomb.png")[0] in (Reason.TOO_MANY_PIXELS, Reason.UNREADABLE_IMAGE)
    (tmp_path / "text.png").write_text("no picture")
    assert size_of_image(tmp_path / "text.png")[0] is Reason.UNREADABLE_IMAGE


def test_folders_hold_classes_splits_and_clutter(tmp_path: Path) -> None:
    root = files.image_folder(tmp_path)
    for name in (".DS_Store", "train/Thumbs.db", "train/cat/.hidden.png"):
        (root / name).write_bytes(b"x")
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / "dog" / "empty.png").write_bytes(b"")
    (root / "train" / "bird").mkdir()
    (root / "train" / "bird" / "empty.png").write_bytes(b"")
    os.symlink(root / "train" / "cat", root / "train" / "loop")
    items = open_source(str(root))
    assert items.table.select("label", "split").sort("label", "split").rows() == [
        ("cat", "train"), ("cat", "validation"), ("dog", "train"), ("dog", "validation"),
    ]  # fmt: skip
    assert sorted(reasons(items)) == ["empty_file", "empty_file", "linked_folder", "not_media"]
    told = " ".join(map(str, items.issues))
    assert "3 hidden files" in told and "none in train/bird" in told


def test_one_folder_is_no_class_and_outer_folders_are_not(tmp_path: Path) -> None:
    files.image(tmp_path / "images" / "1.png")
    items = open_source(str(tmp_path))
    assert items.table["label"].to_list() == [None] and "none. The items have no label" in str(items.issues[0])
    files.image(tmp_path / "images" / "cat" / "2.png")
    files.image(tmp_path / "images" / "dog" / "3.png")
    assert sorted(open_source(str(tmp_path)).table["label"].to_list(), key=str) == [None, "cat", "dog"]


def test_five_thousand_classes(tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / f"class{number}").mkdir()
        (tmp_path / f"class{number}" / "1.png").write_bytes(b"x")
    assert open_source(str(tmp_path)).table["label"].n_unique() == 5000


def test_tables_of_images_count_every_path_they_cannot_use(tmp_path: Path) -> None:
    files.image_table(tmp_path)
    files.image(tmp_path / "images" / "3.png")
    names = ("images/1.png", "images/none.png", "../x.png", "/x.png", "https://x.org/x.png")
    (tmp_path / "metadata.csv").write_text("image,class,source\n" + "".join(f"{name},cat,web\n" for name in names))
    items = open_source(str(tmp_path))
    assert items.table.select("image", "label", "source_in_file").rows() == [("images/1.png", "cat", "web")]
    assert sorted(reasons(items)) == ["missing_file", "outside_folder", "outside_folder", "remote_file", "unlisted", "unlisted"]
    assert items.dropped["source"][0] == "metadata.csv:2"


def test_splits_come_from_several_tables(tmp_path: Path) -> None:
    files.image_table(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "train.csv").write_text("path,label\nimages/1.png,cat\n")
    (tmp_path / "test.csv").write_text("path,label\nimages/2.png,dog\n")
    assert open_source(str(tmp_path)).table.select("image", "split").rows() == [("images/2.png", "test"), ("images/1.png", "train")]


def test_a_damaged_table_of_a_split_is_not_passed_over(tmp_path: Path) -> None:
    files.image_table(tmp_path)
    (tmp_path / "metadata.csv").rename(tmp_path / "train.csv")
    (tmp_path / "test.csv").write_text("path,label\nimages/2.png,dog,more\n")
    with pytest.raises(DataError, match=r"test\.csv row 1"):
        open_source(str(tmp_path))
    (tmp_path / "test.csv").rename(tmp_path / "notes.csv")
    assert open_source(str(tmp_path)).table.height == 2


def test_sqlite_tables_and_queries(tmp_path: Path) -> None:
    path = files.database(tmp_path)
    items = open_source(f"sqlite:///{path}")
    assert items.table.rows() == [("rows.db tickets:1", "some words", "a"), ("rows.db tickets:2", "other words", "b")]
    assert "The only one, 'tickets'" in str(items.issues[0]) and "photo with bytes" in str(items.issues[1])
    asked = open_source(f"sqlite:///{path}?query=SELECT text, label AS source FROM tickets WHERE label = 'b' AND 1 = 1")
    assert asked.table.rows() == [("rows.db query:1", "other words", "b")]
    assert open_source(f"sqlite:///{path}?table=tickets").table.height == 2


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("?table=nothing", "must hold the table 'nothing', got it holds tickets"),
        ("?table=tickets%22; DROP TABLE tickets; --", "must hold the table"),
        ("?query=DELETE FROM tickets", "not valid 'read' queries"),
        ("?query=WITH x AS (SELECT 1) DELETE FROM tickets", "readonly"),
        ("?query=SELECT colour FROM tickets", "no such column"),
        ("?query=SELECT 1 WHERE 0", "must hold at least one item"),
        (".missing", "must be an SQLite file"),
    ],
)
def test_bad_sql_gives_one_clear_error(tmp_path: Path, rest: str, message: str) -> None:
    path = files.database(tmp_path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=message):
        open_source(f"sqlite:///{path}{rest}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_and_a_missing_package(tmp_path: Path) -> None:
    path = files.table(tmp_path)
    with pytest.raises(DataError, match="not a database"):
        open_source(f"sqlite:///{path}")
    with pytest.raises(DataError, match="must be a database that can be reached") as caught:
        open_source("postgresql://ada:secret@host/db?table=rows")
    assert "secret" not in str(caught.value) and "pip install" in str(caught.value)
    assert sql.recognise("s3://x") is None


def test_remote_files_are_copied_once_and_again_when_they_change(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/rows.csv", b"text,label\na b,x\n")
    try:
        first = open_source("memory://bucket/rows.csv", cache=tmp_path)
        assert first.table.rows() == [("a b", "x", "rows.csv:1")]
        copies = sorted(file.stat().st_mtime_ns for file in tmp_path.rglob("rows.csv"))
        open_source("memory://bucket/rows.csv", cache=tmp_path)
        assert sorted(file.stat().st_mtime_ns for file in tmp_path.rglob("rows.csv")) == copies
        memory.pipe("/bucket/rows.csv", b"text,label\nc d,y\n")
        assert open_source("memory://bucket/rows.csv", cache=tmp_path).table["text"].to_list() == ["c d"]
        with pytest.raises(DataError, match="must be readable"):
            open_source("memory://bucket/none.csv", cache=tmp_path)
    finally:
        memory.rm("/bucket", recursive=True)


def test_remote_folders_are_copied_with_their_images(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    path = files.coco(tmp_path / "local")
    memory.put(str(path.parent), "/set", recursive=True)
    try:
        items = open_source("memory://set", cache=tmp_path / "cache")
        assert items.format == "coco" and items.table.height == 2
    finally:
        memory.rm("/set", recursive=True)


def test_addresses_that_cannot_be_read_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pip install s3fs"):
        open_source("s3://bucket/rows.csv", cache=tmp_path)
    with pytest.raises(DataError, match="must be an address that can be read"):
        open_source("nonsense://bucket/rows.csv", cache=tmp_path)
    with pytest.raises(DataError, match="a chain with ::"):
        open_source("simplecache::s3://bucket/rows.csv", cache=tmp_path)
    with pytest.raises(DataError) as caught:
        open_source("s3://ada:secret@bucket/rows.csv?key=secret", cache=tmp_path)
    assert "secret" not in str(caught.value)
    assert not remote.is_remote("C:/data/rows.csv")
    assert open_source(f"file://{files.table(tmp_path)}").table.height == 2


def test_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install tunesmith\[hub\]"):
        open_source("hf://owner/name")
    with pytest.raises(DataError, match="must be hf://owner/name"):
        open_source("hf://name")
    assert hub.recognise("s3://x") is None


def part(rows: int, name: str) -> Items:
    frame = pl.DataFrame({"source": [f"{name}:{n}" for n in range(rows)], "text": ["x"] * rows})
    return Items("table", "table", "", None, frame, pl.DataFrame(), ())


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 20)), min_size=1, max_size=4),
    seed=st.integers(0, 5),
)
def test_mixing_keeps_shares_and_never_repeats_a_row(sizes: list[tuple[int, float]], seed: int) -> None:
    parts = [(part(rows, f"p{number}"), weight) for number, (rows, weight) in enumerate(sizes)]
    found = mixed(parts, seed)
    assert found.table["source"].is_unique().all()
    assert found.table.equals(mixed(parts, seed).table)
    kept = found.counts["kept"].to_list()
    assert found.counts.select(pl.col("kept") + pl.col("left_out")).to_series().to_list() == [rows for rows, _ in sizes]
    scale = min(rows / weight for rows, weight in sizes)
    assert all(abs(count - scale * weight) < 1 + 1e-6 for count, (_, weight) in zip(kept, sizes, strict=True))
    assert any(count == rows for count, (rows, _) in zip(kept, sizes, strict=True))


def test_mixing_is_decided_by_the_seed_and_refuses_other_columns(tmp_path: Path) -> None:
    parts = [(part(50, "a"), 1.0), (part(10, "b"), 1.0)]
    assert mixed(parts, 0).counts["kept"].to_list() == [10, 10]
    assert not mixed(parts, 0).table.equals(mixed(parts, 1).table)
    other = replace(part(5, "c"), table=part(5, "c").table.rename({"text": "words"}))
    with pytest.raises(DataError, match="differences in text, words"):
        mixed([*parts, (other, 1.0)], 0)
    with pytest.raises(DataError, match="a weight above 0"):
        mixed([(part(5, "a"), 0.0)], 0)
    one, two = (open_source(str(files.audio_folder(tmp_path / name))) for name in ("one", "two"))
    both = mixed([(one, 1.0), (two, 1.0)], 0)
    assert both.root is not None and all((both.root / path).is_file() for path in both.table["audio"])


REAL = {
    "bccd": ("coco", 364),
    "bccd/train_coco.json": ("coco", 205),
    "bccd/validation.jsonl": ("box-lines", 87),
    "fashion_mnist_10k": ("image-table", 10000),
    "cifar10_8k": ("image-table", 8000),
    "brain_tumor_mri": ("image-table", 1760),
    "brain_tumor_mri/images": ("image-folder", 1760),
    "fsdd": ("audio-table", 3000),
    "squad_xquad_en/train.jsonl.gz": ("squad", 862),
    "alpaca_libre/train.jsonl.gz": ("chat-jsonl", 4436),
    "banking77/train.jsonl.gz": ("table", 10003),
}


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_real_data_is_recognised_and_whole(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in the collection")
    items = open_source(str(DATA / name))
    assert (items.format, items.table.height) == REAL[name]
    assert items.dropped.height == 0


@needs_data
def test_both_forms_of_the_real_boxes_agree() -> None:
    for split, boxes in (("train", 2804), ("validation", 1137), ("test", 945)):
        from_coco = open_source(str(DATA / "bccd" / f"{split}_coco.json")).table.select("image", "boxes")
        from_lines = open_source(str(DATA / "bccd" / f"{split}.jsonl")).table.select("image", "boxes")
        assert from_coco.equals(from_lines)
        assert from_coco["boxes"].list.len().sum() == boxes
