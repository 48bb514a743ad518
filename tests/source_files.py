"""Small sources of every format, written into a folder; each maker gives the path to open."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

WIDTH, HEIGHT = 40, 30


def image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path)
    return path


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 44, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 8)
    path.write_bytes(head + bytes(8))
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def document(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
    return path


def coco_value(**more: Any) -> dict[str, Any]:
    value = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [4, 3, 10, 20], "iscrowd": 0}],
        "categories": [{"id": 7, "name": "cat"}],
    }
    return value | more


def coco(folder: Path, **more: Any) -> Path:
    for name in ("a", "b"):
        image(folder / "images" / f"{name}.png")
    return document(folder / "boxes.json", coco_value(**more))


def voc_xml(name: str, boxes: str = "", size: str = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>") -> str:
    return f"<annotation><filename>{name}</filename>{size}{boxes}</annotation>"


def voc_box(label: str, corners: tuple[object, object, object, object]) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    sides = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, corners, strict=True))
    return f"<object><name>{label}</name><bndbox>{sides}</bndbox></object>"


def voc(folder: Path, xml: Mapping[str, str] | None = None) -> Path:
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for name, text in (xml or {"a": voc_xml("a.png", voc_box("cat", (5, 4, 14, 23))), "b": voc_xml("b.png")}).items():
        image(folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    return folder


def yolo(folder: Path, labels: Mapping[str, str] | None = None, classes: Any = ("dog", "cat")) -> Path:
    for name in ("a", "b"):
        image(folder / "images" / "train" / f"{name}.png")
    (folder / "labels" / "train").mkdir(parents=True)
    for name, text in (labels or {"a": "1 0.225 0.4333333333333333 0.25 0.6666666666666666\n", "b": ""}).items():
        (folder / "labels" / "train" / f"{name}.txt").write_text(text)
    if classes:
        (folder / "data.yaml").write_text(yaml.safe_dump({"path": "../elsewhere", "nc": 2, "names": classes and list(classes)}))
    return folder


def box_lines(folder: Path) -> Path:
    image(folder / "a.png")
    objects = [{"bbox": [4, 3, 10, 20], "category": "cat"}]
    return lines(folder / "boxes.jsonl", [{"file_name": "a.png", "objects": objects}, {"file_name": "a.png", "objects": []}])


def label_task(number: int, data: dict[str, Any], *results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    annotations = [{"id": n, "completed_by": n, "result": result} | more for n, result in enumerate(results, start=1)]
    return {"id": number, "data": data, "annotations": annotations, "predictions": [{"result": [{"type": "choices"}]}]}


def span(start: int, end: int, text: str | None, label: str = "person") -> dict[str, Any]:
    value: dict[str, Any] = {"start": start, "end": end, "labels": [label]}
    return {"type": "labels", "value": value | ({} if text is None else {"text": text})}


def choice(*labels: str, control: str = "topic") -> dict[str, Any]:
    return {"type": "choices", "from_name": control, "value": {"choices": list(labels)}}


def rectangle(x: float, y: float, width: float, height: float, label: str = "cat", rotation: float = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "original_width": WIDTH, "original_height": HEIGHT, "value": value}


def label_studio_boxes(folder: Path) -> Path:
    image(folder / "a.png")
    return document(folder / "export.json", [label_task(1, {"image": "/data/upload/3/a.png"}, [rectangle(10, 10, 25, 200 / 3)])])


def label_studio_spans(folder: Path) -> Path:
    return document(folder / "export.json", [label_task(1, {"text": "Ada met Bob."}, [span(0, 3, "Ada"), span(8, 11, "Bob")])])


def label_studio_choices(folder: Path) -> Path:
    tasks = [
        label_task(1, {"text": "good"}, [choice("pos")], [choice("pos")], [choice("neg")]),
        label_task(2, {"text": "bad"}, [choice("neg")]),
    ]
    return document(folder / "export.json", tasks)


def squad_value(*questions: dict[str, Any], context: str = "Ada wrote the first program.") -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def squad(folder: Path) -> Path:
    asked = {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}], "is_impossible": False}
    return document(folder / "dev.json", squad_value(asked, {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True}))


def chat(folder: Path) -> Path:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    return lines(folder / "chat.jsonl", [{"messages": turns, "id": 1}, {"messages": turns[:1] * 2 + turns[1:], "id": 2}])


def sharegpt(folder: Path) -> Path:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    return document(folder / "chat.json", [{"conversations": turns, "system": "Be kind."}])


def alpaca(folder: Path) -> Path:
    return document(folder / "alpaca.json", [{"instruction": "Add.", "input": "1 and 2", "output": "3"}])


def conll(folder: Path) -> Path:
    path = folder / "train.conll"
    path.write_text("-DOCSTART- -X- O\n\nAda NNP B-person\nsmiles VBZ O\n\nBob NNP B-person\nDylan NNP I-person\n")
    return path


def image_folder(folder: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat/1.png", "dog/2.png"):
            image(folder / split / name)
    return folder


def image_table(folder: Path) -> Path:
    image(folder / "images" / "1.png")
    image(folder / "images" / "2.png")
    (folder / "metadata.csv").write_text("file_name,label,patient\nimages/1.png,cat,p1\nimages/2.png,dog,p2\n")
    return folder


def audio_folder(folder: Path) -> Path:
    sound(folder / "yes" / "1.wav")
    sound(folder / "no" / "2.wav")
    return folder


def audio_table(folder: Path) -> Path:
    sound(folder / "clips" / "1.wav")
    return lines(folder / "all.jsonl", [{"path": "1.wav", "label": "yes", "speaker": "ada"}])


def table(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("text,label\nsome words,a\nother words,b\n")
    return path


def database(folder: Path) -> Path:
    path = folder / "rows.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE tickets (text TEXT, label TEXT, photo BLOB)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?)", [("some words", "a", b"\0"), ("other words", "b", None)])
    return path


MAKERS: dict[str, tuple[Callable[[Path], Path], str, str]] = {  # name: maker, format, kind
    "coco": (coco, "coco", "object-detection"),
    "voc": (voc, "voc", "object-detection"),
    "yolo": (yolo, "yolo", "object-detection"),
    "box lines": (box_lines, "box-lines", "object-detection"),
    "label studio boxes": (label_studio_boxes, "label-studio", "object-detection"),
    "label studio spans": (label_studio_spans, "label-studio", "text-spans"),
    "label studio choices": (label_studio_choices, "label-studio", "table"),
    "squad": (squad, "squad", "question-answering"),
    "chat": (chat, "chat-jsonl", "chat"),
    "sharegpt": (sharegpt, "chat-jsonl", "chat"),
    "alpaca": (alpaca, "chat-jsonl", "chat"),
    "conll": (conll, "conll", "token-classification"),
    "image folder": (image_folder, "image-folder", "image-classification"),
    "image table": (image_table, "image-table", "image-classification"),
    "audio folder": (audio_folder, "audio-folder", "audio-classification"),
    "audio table": (audio_table, "audio-table", "audio-classification"),
    "table": (table, "table", "table"),
}
