"""The store of frozen work: what is written comes back, or is known to be gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import store
from tunesmith.data.store import Shelf, check, content_key, prune, shelves

KIND = {"model": "tiny", "dtype": "float32"}
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3)


def key(number: int) -> bytes:
    return content_key([np.array([number])])


def rows(count: int, start: int = 0) -> list[tuple[bytes, Any]]:
    return [(key(n), np.full((n % 4 + 1, 3), n, np.float32)) for n in range(start, start + count)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), shapes), max_size=12, unique_by=lambda row: row[0]), st.sampled_from([64, 10_000]))
def test_every_row_comes_back_unpadded(tmp_path_factory: Any, wanted: Any, chunk: int) -> None:
    root, draw = tmp_path_factory.mktemp("store"), np.random.default_rng(0)
    given_rows = {key(n): draw.normal(size=shape).astype(np.float32) for n, shape in wanted}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_BYTES", chunk)
        written = Shelf(root, KIND).add(given_rows.items())
    found = Shelf(root, KIND).find([*given_rows, key(1000)])
    assert found.damaged == 0 and found.rows.keys() == given_rows.keys()
    assert all(np.array_equal(found.rows[k], row) for k, row in given_rows.items())
    assert written == sum(row.nbytes for row in given_rows.values())


def test_keys_tell_content_shape_and_type_apart() -> None:
    parts = [[np.array([1, 2])], [np.array([[1, 2]])], [np.array([1, 2], np.int32)], [np.array([2, 1])], [b"a", np.array([1, 2])], []]
    keys = [content_key(part) for part in parts]
    assert len(set(keys)) == len(parts) and all(len(k) == 16 for k in keys)
    assert content_key([np.array([1, 2])]) == keys[0]
    assert all(Shelf.__name__ and np.array([k], "S16")[0] == k for k in keys), "numpy must give every key back whole"


def test_another_kind_is_another_shelf(tmp_path: Path) -> None:
    Shelf(tmp_path, KIND).add(rows(3))
    assert not Shelf(tmp_path, {**KIND, "model": "other"}).find([key(0)]).rows
    assert Shelf(tmp_path, {**KIND, "dtype": "float16"}).path != Shelf(tmp_path, KIND).path
    assert {shelf.kind["model"] for shelf in shelves(tmp_path)} == {"tiny", "other"}


def test_float16_takes_half_the_room(tmp_path: Path) -> None:
    assert Shelf(tmp_path, {**KIND, "dtype": "float16"}).add(rows(9)) * 2 == Shelf(tmp_path, KIND).add(rows(9))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "empty", "index"])
def test_a_damaged_chunk_is_noticed_removed_and_can_be_written_again(tmp_path: Path, damage: str) -> None:
    shelf = Shelf(tmp_path, KIND)
    shelf.add(rows(5))
    shelf.add(rows(5, 5))
    hit = next(p for p in shelf.path.glob("*.rows") if np.load(p.with_suffix(".index.npy"))["key"][0] == key(0))
    {
        "flipped": lambda: flip(hit, 20),
        "cut": lambda: hit.write_bytes(hit.read_bytes()[:-4]),
        "gone": hit.unlink,
        "empty": lambda: hit.write_bytes(b""),
        "index": lambda: hit.with_suffix(".index.npy").write_bytes(b"nothing"),
    }[damage]()
    found = shelf.find([k for k, _ in rows(10)])
    assert found.rows.keys() == {k for k, _ in rows(5, 5)}
    assert found.damaged == (0 if damage == "index" else 5)
    shelf.add(rows(5))
    assert len(shelf.find([k for k, _ in rows(10)]).rows) == 10


def test_check_counts_and_removes_what_is_damaged(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, KIND)
    shelf.add(rows(4))
    assert check(tmp_path) == {shelf.path.name: (4, 0)}
    flip(next(shelf.path.glob("*.rows")), 3)
    assert check(tmp_path) == {shelf.path.name: (4, 1)}
    assert check(tmp_path) == {shelf.path.name: (0, 0)}


def test_the_shelf_used_longest_ago_goes_first(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        shelf = Shelf(tmp_path, {**KIND, "model": str(number)})
        shelf.add(rows(50))
        os.utime(shelf.path / "shelf.json", (number, number))
        paths.append(shelf.path)
    size = shelves(tmp_path)[0].bytes
    assert prune(tmp_path, 10 * size) == (0, 0)
    removed, freed = prune(tmp_path, 2 * size, keep=paths[0].name)
    assert (removed, freed) == (1, size) and [path.exists() for path in paths] == [True, False, True]
    assert prune(tmp_path, 0)[0] == 2 and not shelves(tmp_path)


def test_what_a_killed_process_left_is_not_read_and_goes_when_it_is_old(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, KIND)
    shelf.add(rows(2))
    left = shelf.path / "0123.rows"
    left.write_bytes(b"half a row")
    prune(tmp_path, 10**9)
    assert left.exists(), "another process may still be writing it"
    os.utime(left, (1, 1))
    prune(tmp_path, 10**9)
    assert not left.exists() and len(shelf.find([key(0), key(1)]).rows) == 2


def test_a_full_disk_keeps_finished_chunks_and_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path, KIND)
    shelf.add(rows(3))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        shelf.add(rows(3, 3))
    assert len(list(shelf.path.glob("*.rows"))) == 1
    assert len(shelf.find([k for k, _ in rows(6)]).rows) == 3


def fill(root: Path, start: int) -> None:
    store.CHUNK_BYTES = 2_000
    Shelf(root, KIND).add(rows(400, start))


def test_two_processes_fill_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, start)) for start in (0, 200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = Shelf(tmp_path, KIND).find([k for k, _ in rows(600)])
    assert len(found.rows) == 600 and found.damaged == 0
    assert all(np.array_equal(found.rows[k], row) for k, row in rows(600))


def fill_forever(root: Path) -> None:
    store.CHUNK_BYTES = 2_000
    Shelf(root, KIND).add((key(n % 10_000), np.full((4, 3), n % 10_000, np.float32)) for n in range(10**9))


def test_a_process_killed_while_writing_leaves_only_whole_rows(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=fill_forever, args=(tmp_path,))
    worker.start()
    while len(list(tmp_path.glob("*/*.index.npy"))) < 20:
        time.sleep(0.01)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    found = Shelf(tmp_path, KIND).find([key(n) for n in range(10_000)])
    assert found.damaged == 0 and len(found.rows) >= 20
    numbers = {key(n): n for n in range(10_000)}
    assert all((row == numbers[k]).all() for k, row in found.rows.items())
