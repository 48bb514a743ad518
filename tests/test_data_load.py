"""Reading tables: every format gives the same rows, and every bad file one clear error with its place."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data.load import SOURCE, iter_batches, load, reads_whole
from tunesmith.spec.schema import Data

ROWS = [("Hello, “world”", "a"), ("line one\nline two", "b"), ("naïve café", "a"), ('say "hi"', "b")]
FRAME = pl.DataFrame(ROWS, schema=["text", "label"], orient="row")


def data(path: Path, **more: object) -> Data:
    return Data(train=str(path), **more)  # type: ignore[arg-type]


def read(path: Path, **more: object) -> pl.DataFrame:
    return load([str(path)], data(path, **more)).table


def written(folder: Path, name: str) -> Path:
    path = folder / name
    kind = path.suffixes[0]
    if kind in (".csv", ".tsv"):
        content = FRAME.write_csv(separator="\t" if kind == ".tsv" else ",").encode()
    elif kind == ".jsonl":
        content = "".join(json.dumps({"text": t, "label": y}, ensure_ascii=False) + "\n" for t, y in ROWS).encode()
    elif kind == ".json":
        content = json.dumps([{"text": t, "label": y} for t, y in ROWS]).encode()
    else:
        FRAME.write_parquet(path)
        content = path.read_bytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    if path.suffix == ".zst":
        FRAME.write_csv(path, compression="zstd")
    return path


@pytest.mark.parametrize(
    "name",
    ["t.csv", "t.csv.gz", "t.csv.zst", "t.tsv", "t.tsv.gz", "t.jsonl", "t.jsonl.gz", "t.json", "t.json.gz", "t.parquet", "t.parquet.gz"],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    loaded = load([str(path)], data(path))
    assert loaded.table.select("text", "label").rows() == ROWS
    assert loaded.table[SOURCE].to_list() == [f"{name}:{n}" for n in range(1, 5)]
    record = loaded.files[0]
    assert (record.rows, record.bytes, len(record.sha256), loaded.issues) == (4, path.stat().st_size, 64, ())
    assert record.compression == {".gz": "gzip", ".zst": "zstd"}.get(path.suffix, "none")
    streamed = pl.concat(iter_batches([str(path)], data(path), rows=3))
    assert streamed.equals(loaded.table)
    assert all(batch.height <= 3 for batch in iter_batches([str(path)], data(path), rows=3))


@pytest.mark.parametrize(
    ("codec", "found"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("cp1252", "cp1252")],
)
def test_encodings_are_detected_and_said(tmp_path: Path, codec: str, found: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text,label\ncafé “quoted”,a\nplain words,b\n".encode(codec))
    loaded = load([str(path)], data(path))
    assert loaded.table["text"].to_list() == ["café “quoted”", "plain words"]
    assert loaded.files[0].encoding == found
    assert [issue.fatal for issue in loaded.issues] == ([False] if codec == "cp1252" else [])


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiters_are_detected(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(FRAME.write_csv(separator=delimiter), "utf-8")
    loaded = load([str(path)], data(path))
    assert loaded.files[0].delimiter == delimiter
    assert loaded.table.select("text", "label").rows() == ROWS


BAD = {
    "empty": (b"", "empty"),
    "blank": (b"\n\n \n", "empty"),
    "only a header": (b"text,label\n", "must hold rows, got none"),
    "a parquet file": (b"PAR1\x15\x04\x15", "a Parquet file"),
    "an Excel file": (b"PK\x03\x04\x14\x00", "Excel"),
    "random bytes": (bytes(range(256)) * 20, "NUL|binary"),
    "a NUL byte": (b"text,label\nok,a\nb\0d,b\n", "line 3: must not hold NUL"),
    "mixed encodings": (
        "text,label\ncafé,a\nthé,b\n".encode() + "crème,a\n".encode("latin-1"),
        "line 4: must be in the encoding of the other lines",
    ),
    "cut gzip": (gzip.compress(b"text,label\n" + b"words,a\n" * 5000)[:-20], "whole file"),
    "a long row": (b"text,label\na,b\nc,d,e\n", r"row 2 \(line 3\): must have 2 cells like the header, got 3"),
    "a short row": (b"text,label\na,b\nc\n", r"row 2 \(line 3\): must have 2 cells like the header, got 1"),
    "an open quote": (b'text,label\na,b\n"c,d\ne,f\n', r"row 2 \(line 3\): must close its quotes"),
    "no header, a sentence": (b"I would like my money back please.,refund\nWhere is it?,card\n", "must name the columns, got a sentence"),
    "no header, a number": (b"good,1\nbad,0\n", "must name the columns, got the number 1"),
    "no header, a value": (b"good,positive\nbad,negative\nfine,positive\n", "'positive', which is also a value"),
    "names twice": (b"text,label,text\na,b,c\n", "'text' more than once"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_csv_gives_one_clear_error(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert len(caught.value.issues) == 1
    assert caught.value.issues[0].remedy
    if case != "only a header":  # a table to predict on may have no rows
        with pytest.raises(DataError, match=message):
            list(iter_batches([str(path)], data(path)))


BAD_JSON = {
    "bad line": ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: must be a JSON object"),
    "not an object": ("t.jsonl", b'{"text": "a"}\n[1]\n', "object 2: must be a JSON object, got a list"),
    "cut JSON": ("t.json", b'[{"text": "a"}, {"te', "must be a JSON list"),
    "a JSON string": ("t.json", b'"text"', "a JSON string"),
    "cut Parquet": ("t.parquet", b"PAR1\x15\x04\x15", "t.parquet"),
    "no Parquet": ("t.parquet", b"text,label\na,b\n", "t.parquet"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_and_parquet_give_one_clear_error(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_JSON[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_cut_parquet_of_real_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAME.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"t\.parquet"):
        read(path)


def test_missing_file_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"Did you mean .*tickets\.csv"):
        read(tmp_path / "tikets.csv")


def test_every_bad_file_is_reported_at_once(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "*.csv")
    assert len(caught.value.issues) == 2


def test_wrong_delimiter_names_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text;label\na;b\nc;d\n")
    with pytest.raises(DataError, match="The semicolon seems right"):
        read(path, delimiter=",")


def test_names_of_the_spec_make_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("words,toxic\nsome words,toxic\nother words,fine\n")
    with pytest.raises(DataError, match="also a value"):
        read(path)
    assert read(path, label="toxic").height == 2


def test_wrong_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text,label\nok,a\ncafé,b\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 3: must be utf-8-sig text"):
        read(path, encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.encoding: must be a text encoding"):
        read(path, encoding="klingon")
    assert read(path, encoding="latin-1")["text"][1] == "café"


def test_files_of_a_glob_join_and_a_differing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    (tmp_path / "b.csv").write_text("text,label,extra\ny,2,z\n")
    loaded = load([str(tmp_path / "*.csv")], data(tmp_path / "*.csv"))
    assert loaded.table[SOURCE].to_list() == ["a.csv:1", "b.csv:1"]
    assert "same columns" in str(loaded.issues[0])


def test_a_text_of_a_megabyte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "word " * 200_000 + ",a\nshort,b\n")
    assert read(path)["text"].str.len_chars().to_list() == [1_000_000, 5]


def test_json_types_survive_and_mixed_ones_become_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"a": 1, "b": true, "c": ["x", 1], "d": 1, "e": 99999999999999999999}\n{"a": null, "b": false, "c": [], "d": "y", "e": 1}\n'
    )
    table = read(path)
    assert table.drop(SOURCE).rows() == [(1, True, ["x", "1"], "1", "99999999999999999999"), (None, False, [], "y", "1")]


def test_json_lines_in_a_json_file_and_whole_reading_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n')
    assert read(path)["text"].to_list() == ["a", "b"]
    assert reads_whole([str(path)]) == [str(path)]


def test_a_csv_that_is_gzip_inside_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(b"text,label\na b,x\n"))
    loaded = load([str(path)], data(path))
    assert loaded.table.height == 1
    assert "as its name says" in str(loaded.issues[0])


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\t"), max_size=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=20), batch=st.integers(1, 7))
def test_any_text_survives_csv(tmp_path: Path, rows: list[tuple[str, str]], batch: int) -> None:
    path = tmp_path / "t.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert read(path).select("text", "label").rows() == rows
    assert sum(part.height for part in iter_batches([str(path)], data(path), rows=batch)) == len(rows)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))),
    name=st.sampled_from(["t.csv", "t.jsonl", "t.json", "t.tsv.gz", "t.parquet"]),
)
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        assert read(path).height > 0
    except DataError as error:
        assert all(issue.where and issue.expected for issue in error.issues)


def zstd_frame(content: bytes) -> bytes:
    """A zstd frame with one raw block; the content must be shorter than 256 bytes."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(content)]) + block + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zstd_frame("text,label\ncafé,a\n".encode("latin-1")), "must be UTF-8 when compressed with zstd"),
        (zstd_frame(b"text,label\nx,a\n")[:-3], "must be"),
    ],
)
def test_bad_zstd_gives_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv.zst"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_good_zstd_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.zst"
    path.write_bytes(zstd_frame('{"text": "café", "label": 1}\n'.encode()))
    assert read(path).row(0)[:2] == ("café", 1)
