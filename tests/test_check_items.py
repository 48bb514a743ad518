"""`tunesmith check` of everything that is no plain table: each kind through the command line, and what the page may show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from tests import source_files
from tunesmith.cli.main import app
from tunesmith.core.errors import RunError
from tunesmith.core.records import Progress
from tunesmith.core.rundir import RunDir
from tunesmith.data.item_copies import SAME_LETTERS, SAME_TEXT, content_groups, leaks_of, pairs_of, question_copies, text_copies
from tunesmith.data.item_splits import proposed_split
from tunesmith.data.sources.detect import open_source
from tunesmith.document.items_report import render_items_report
from tunesmith.stages.items import check_items, forget_items, items_of, name_of

HOSTILE = "<script>alert(7)<"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception:
        raise result.exception
    return result.output


def checked(data: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """items.json, findings and page of a check through the command line; the page is the same when it is made again."""
    call(data, "--checks", folder / "checks")
    (path,) = (folder / "checks").iterdir()
    run = RunDir(path)
    page = (path / "data_report.html").read_text("utf-8")
    assert render_items_report(run) == page == render_items_report(run)
    assert "://" not in re.sub(r'href="https?://[^"]*"', "", page).replace("http://www.w3.org", "")
    for name in ("items", "dropped", "contents", "pairs", "sketches"):
        assert (path / f"data/{name}.parquet").exists()
    content = json.loads((path / "data/items.json").read_text("utf-8"))
    for finding in run.findings.values():
        assert finding.artefact is not None and finding.artefact.path == "data/items.json" and finding.stage == "items"
        assert at(content, finding.artefact.pointer.split("/")[1:]) == finding.value
    return content, {name.removeprefix("items/"): f.value for name, f in run.findings.items()}, page


def at(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def photo(seed: int, size: int = 96) -> Image.Image:
    """A picture with smooth structure that no other seed has."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


def photos(folder: Path, count: int = 12) -> Path:
    """Folders train and test with two classes, a mirrored and a cropped copy across them, an exact one, and two that are no pictures."""
    for number in range(count):
        split, label = ("test" if number % 4 == 0 else "train"), ("cat" if number % 2 else "dog")
        path = folder / split / label / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)
    photo(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "test/dog/mirrored.png")
    photo(3).crop((4, 4, 92, 92)).resize((96, 96)).save(folder / "test/dog/cropped.jpg", quality=92)
    photo(5).save(folder / "train/cat/again.bmp")
    (folder / "train/dog/torn.png").write_bytes((folder / "train/dog/02.png").read_bytes()[:900])
    (folder / "train/dog/renamed.png").write_text("this is a text")
    return folder


def test_pictures_with_copies_across_splits(tmp_path: Path) -> None:
    content, found, page = checked(photos(tmp_path / "pets"), tmp_path)
    assert (found["count"], found["with_problems"]) == (17, 2)
    assert found["problem/not_an_image"] == found["problem/truncated"] == 1
    assert found["copies/same_groups"] == 1 and found["copies/near_pairs"] == 2
    assert found["leaking/test"] == 2 and found["leaking/image/test/train"] == 2 and found["leaking/validation"] == 0
    assert {row["id"] for row in content["leaks"]["shown"]} == {"test/dog/mirrored.png", "test/dog/cropped.jpg"}
    matches = {Path(row["right_name"]).stem: row["match"] for row in content["copies"]["shown"]} | {
        Path(row["left_name"]).stem: row["match"] for row in content["copies"]["shown"]
    }
    assert matches["mirrored"].startswith("mirrored") and "cropped" in matches["cropped"] and matches["again"] == "the same pixels"
    assert found["copies/conflicts"] == 2 and content["copies"]["shown"][0]["conflict"]
    assert page.count("data:image/jpeg;base64,") >= 6 and "labels differ" in page and "default-src 'none'" in page


def test_pictures_of_a_table_get_a_split_that_parts_no_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    rows = []
    for number in range(30):
        name = f"{HOSTILE}{number}>.png"
        copy = photo(number - 1).transpose(Image.Transpose.ROTATE_90) if number % 5 == 4 else photo(number)
        folder.mkdir(exist_ok=True)
        copy.save(folder / name.replace("/", "-"))
        rows.append({"file_name": name, "label": f"{HOSTILE}{number % 2}"})
    pl.DataFrame(rows).write_csv(folder / "metadata.csv")
    content, found, page = checked(folder, tmp_path)
    assert found["copies/near_pairs"] == 6 and found["proposed/straddling"] == 0
    splits = pl.read_parquet(tmp_path / "checks/pets/data/splits.parquet")
    assert (splits.group_by("cluster").agg(pl.col("split").n_unique())["split"] == 1).all()
    assert sum(content["proposed"]["rows"].values()) == 30 == len(splits)
    assert "<script" not in page and "&lt;script&gt;alert(7)&lt;" in page


def tone(seed: int, seconds: float = 1.2, rate: int = 16_000) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A melody with noise that no other seed has."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    out = np.zeros(len(time))
    for start in np.arange(0, seconds, 0.15):
        inside = (time >= start) & (time < start + 0.15)
        out[inside] = np.sin(2 * np.pi * draw.uniform(250, 2500) * time[inside])
    return 0.4 * out + 0.02 * draw.standard_normal(len(time))


def test_recordings_with_a_quieter_copy(tmp_path: Path) -> None:
    import soundfile

    for number in range(8):
        path = tmp_path / "words" / ("yes" if number % 2 else "no") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(number), 16_000)
    soundfile.write(tmp_path / "words/no/quiet.wav", 0.3 * tone(1), 16_000)
    (tmp_path / "words/no/9.wav").write_text("no sound at all")
    content, found, page = checked(tmp_path / "words", tmp_path)
    assert found["problem/not_audio"] == 1 and found["copies/near_pairs"] == 1 and found["copies/conflicts"] == 1
    assert {content["copies"]["shown"][0][f"{side}_name"] for side in ("left", "right")} == {"yes/1.wav", "no/quiet.wav"}
    assert "<polygon" in page and "Copies over 3 s that play at another speed are not found." in page
    assert content["sizes"][0]["what"] == "seconds" and content["sizes"][0]["p50"] == 1.2


def test_many_recordings_are_searched_for_equal_ones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    for number in range(4):
        (tmp_path / f"words/{number % 2}").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"words/{number % 2}/{number}.wav", tone(number // 2 * 7, 0.5), 16_000)
    monkeypatch.setattr("tunesmith.stages.items.MOST_RECORDINGS", 1)
    content, found, page = checked(tmp_path / "words", tmp_path)
    assert (found["copies/same_groups"], found["copies/near_pairs"], found["copies/conflicts"]) == (2, 0, 2)
    assert content["copies"]["statement"].startswith("Only recordings of equal samples were looked for") and "no near copies" in page


def test_boxes_of_coco(tmp_path: Path) -> None:
    images, boxes = [], []
    for number in range(4):
        photo(number).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 96 if number else 90})
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [8, 8, 30, 40]})
    boxes += [
        {"id": 9, "image_id": 1, "category_id": 1, "bbox": [8, 8, 30, 40.2]},
        {"id": 10, "image_id": 1, "category_id": 2, "bbox": [8, 8, 30, 40]},
    ]
    boxes.append({"id": 11, "image_id": 2, "category_id": 2, "bbox": [80, 80, 60, 60]})
    photo(3).save(tmp_path / "copy.png")
    images.append({"id": 5, "file_name": "copy.png", "width": 96, "height": 96})
    value = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "<b>dirt"}]}
    content, found, page = checked(source_files.document(tmp_path / "boxes.json", value), tmp_path)
    assert found["left_out/box_outside"] == 1 and found["problem/size_differs"] == 1
    assert (found["boxes"], found["boxes/pictures_without"], found["class/cell/all"]) == (6, 1, 5)
    assert (found["boxes/twice"], found["boxes/contradicting"]) == (1, 2)
    assert found["copies/same_groups"] == 1 and found["copies/conflicts"] == 1
    assert "<rect" in page and "<b>dirt" not in page and content["boxes"]["areas"][0]["p50"] == pytest.approx(30 * 40 / 96**2, abs=1e-3)


def test_tags(tmp_path: Path) -> None:
    text = "Anna B-person\nsaw O\nParis B-place\n\nanna B-person\nsaw O\nparis O\n\nIt O\nrains I-place\n\n" + "x O\n" * 3 + "\n"
    path = tmp_path / "tags.conll"
    path.write_text(text + "one B-place\ntwo O extra\n\n")
    content, found, page = checked(path, tmp_path)
    assert (found["count"], found["left_out/column_count"], found["problem/broken_tags"]) == (4, 1, 1)
    assert found["class/B-person/all"] == 2 and found["copies/conflicts"] == 1
    assert content["copies"]["shown"][0]["match"] == "the same but for case, punctuation, spacing" and "Paris/B-place" in page


def test_questions_are_copies_only_on_the_same_text(tmp_path: Path) -> None:
    texts = [f"In the year {1800 + n} the town number {n} had a market, and its {n}th hall was built of stone by masons." for n in range(6)]
    rows = [
        {"id": f"{n}{k}", "question": f"{what} of the hall?", "context": text, "answers": [{"text": "stone", "start": text.index("stone")}]}
        for n, text in enumerate(texts)
        for k, what in enumerate(("What was the material", "Who were the builders"))
    ]
    rows.append({**rows[0], "id": "again", "answers": [{"text": "masons", "start": texts[0].index("masons")}]})
    rows.append({**rows[0], "id": "lost", "answers": [{"text": "brick", "start": 3}]})
    content, found, _ = checked(source_files.lines(tmp_path / "squad.jsonl", rows), tmp_path)
    assert (found["count"], found["left_out/no_answer_left"], found["left_out/text_not_there"]) == (13, 1, 1)
    assert (found["copies/conflicts"], found["class/with an answer/all"]) == (1, 13)
    assert found["proposed/straddling"] == 0 and content["copies"]["different_contexts"] <= 6


def test_conversations(tmp_path: Path) -> None:
    turns = [
        ["Say hello to the whole town of Springfield, please.", "Hello, Springfield!"],
        ["Add two and two for me.", "That makes four."],
    ]
    rows: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in turns * 2]
    rows.append(
        {"messages": [{"role": "user", "content": "One"}, {"role": "user", "content": "Two"}, {"role": "assistant", "content": "Two"}]}
    )
    rows.append({"messages": [{"role": "user", "content": "Nobody answers"}]})
    content, found, _ = checked(source_files.lines(tmp_path / "chat.jsonl", rows), tmp_path)
    assert (found["count"], found["left_out/no_assistant"], found["class/user/all"]) == (5, 1, 6)
    assert found["problem/same_role_twice"] == found["problem/echo"] == 1
    assert found["copies/same_groups"] == 2 and content["copies"]["shown"][0]["match"] == "the same text"


def choices(votes: list[list[str]]) -> list[dict[str, Any]]:
    """A Label Studio export: for each task the label of each annotator."""
    given = {name: [source_files.choice(name)] for name in ("yes", "no")}
    return [
        {
            "id": n,
            "data": {"text": f"text number {n} of its kind"},
            "annotations": [{"completed_by": who, "result": given[label]} for who, label in enumerate(row)],
        }
        for n, row in enumerate(votes)
    ]


def test_annotators_of_choices(tmp_path: Path) -> None:
    votes = [["yes", "yes", "no" if n < 3 else "yes"] if n % 2 else ["no", "no", "no"] for n in range(20)] + [["yes", "no"]]
    content, found, page = checked(source_files.document(tmp_path / "choices.json", choices(votes)), tmp_path)
    assert content["agreement"]["by"] == "item" and content["agreement"]["ties"] == 1 and len(content["agreement"]["pairs"]) == 3
    assert 0.5 < found["agreement/alpha"] < 1 and "Cohen" in page
    consensus = pl.read_parquet(tmp_path / "checks/choices/data/consensus.parquet")
    assert len(consensus) == 21 and consensus["majority"].null_count() == 1


def test_annotators_of_spans(tmp_path: Path) -> None:
    text = "Anna went from Paris to Rome"

    def spans(*marked: tuple[int, int, str]) -> list[dict[str, Any]]:
        return [{"type": "labels", "value": {"start": a, "end": b, "text": text[a:b], "labels": [label]}} for a, b, label in marked]

    both = [spans((0, 4, "person"), (15, 20, "place")), spans((0, 4, "person"))]
    tasks = [
        {"id": n, "data": {"text": text}, "annotations": [{"completed_by": who, "result": r} for who, r in enumerate(both)]}
        for n in range(2)
    ]
    content, found, _ = checked(source_files.document(tmp_path / "spans.json", tasks), tmp_path)
    assert (found["count"], content["rows"], content["agreement"]["by"]) == (2, 4, "word")
    assert 0 < found["agreement/alpha"] < 1


@pytest.mark.parametrize("name", [name for name in source_files.MAKERS if name not in ("table", "label studio choices")])
def test_every_format(name: str, tmp_path: Path) -> None:
    maker, form, kind = source_files.MAKERS[name]
    content, found, page = checked(maker(tmp_path), tmp_path)
    assert (content["format"], content["kind"]) == (form, kind) and found["count"] > 0 and content["why"].split(":")[0] in page
    if "image" in content["kind"] or "object" in content["kind"]:
        assert found["problem/near_constant"] == found["count"] and found["copies/near_pairs"] == 0  # one colour is no likeness


def test_a_new_check_takes_the_place_of_the_old_one_and_never_that_of_a_run(tmp_path: Path) -> None:
    items = open_source(str(source_files.lines(tmp_path / "chat.jsonl", [{"messages": [{"role": "assistant", "content": "Hi"}]}])))
    heard: list[Progress] = []
    folder = check_items(items, "mine", tmp_path / "checks", heard.append)
    (folder / "data/old.txt").write_text("old")
    assert check_items(items, "mine", tmp_path / "checks") == folder and not (folder / "data/old.txt").exists() and heard
    forget_items(folder)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    check_items(items, "mine", tmp_path / "checks")
    RunDir(folder).update_manifest(stages={"train": {"outputs": {}}})
    with pytest.raises(RunError, match="must be empty or an earlier check"):
        check_items(items, "mine", tmp_path / "checks")
    (tmp_path / "checks/other").mkdir()
    (tmp_path / "checks/other/precious.txt").write_text("mine")
    with pytest.raises(RunError, match=r"precious\.txt"):
        check_items(items, "other", tmp_path / "checks")


def test_tables_and_what_is_not_there_go_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nhello,a\nworld,b\n")
    assert items_of(str(tmp_path / "t.csv")) is None and items_of(str(tmp_path / "nothing")) is None
    assert (name_of(str(tmp_path / "my data" / "train.jsonl.gz")), name_of(str(tmp_path / "pets.json"))) == ("my data-train", "pets")


def test_equal_contents_are_groups_and_nothing_is_alone() -> None:
    group_N, first_G = content_groups(pl.Series(["b", None, "a", "b", None], dtype=pl.String))
    assert group_N.tolist() == [0, 1, 2, 0, 3] and first_G.tolist() == [0, 1, 2, 4]


def test_pairs_clusters_and_leaks_agree() -> None:
    texts = pl.Series(
        ["the quick brown fox jumps over the lazy dog", "The quick brown fox jumps over the lazy dog!", "something else entirely"] * 2
    )
    copies = text_copies(texts)
    pairs = pairs_of(copies, texts)
    assert pairs.select("left", "right").rows() == [(0, 1), (0, 3), (0, 4), (2, 5)]
    assert pairs["match"].to_list() == [SAME_LETTERS, SAME_TEXT, SAME_LETTERS, SAME_TEXT]
    names = pl.Series([str(n) for n in range(6)])
    leaks, counts = leaks_of(copies, names, np.array([0, 0, 0, 2, 2, -1]))
    assert leaks["id"].to_list() == ["3", "4"] and counts["pairs"].to_list() == [4]
    content, rows = proposed_split(copies, names, names, [None] * 6)
    assert content["straddling"] == 0 and rows.group_by("cluster").agg(pl.col("split").n_unique())["split"].to_list() == [1, 1]


def test_one_question_on_two_texts_is_no_copy() -> None:
    contexts = pl.Series(
        ["A long text about the river Danube and its many towns.", "Quite another one, about mountains and their snow."] * 2
    )
    copies = question_copies(pl.Series(["What is it about, in short?"] * 4), contexts)
    assert pairs_of(copies).select("left", "right").rows() == [(0, 2), (1, 3)] and copies.held_N.tolist() == [0, 1, 0, 1]
