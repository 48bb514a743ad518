"""Texts found by their vectors: an index of many texts on disk, searched by query.

Few texts are compared one by one. Many are in a graph of neighbours (HNSW, Malkov & Yashunin 2020, by usearch): a search looks at a few
hundred of them, and misses some. How many is measured when the index is made, on texts of its own, and told by every search.
Texts lie one after the other in one file, with the place where each starts in another: those that are found are read, and no others.
Shape suffixes: N = queries, M = texts of the index, E = width, K = texts that are found.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import DataError, RunError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import disk_errors

EXACT_TEXTS = 20_000
"""Most texts that are compared one by one: a search of them takes a few milliseconds."""
CONNECTIVITY, WHILE_BUILDING, WHILE_SEARCHING = 16, 128, 1024
"""Neighbours of a text in the graph; texts looked at when one is added, and when one is searched for."""
CHUNK, MEASURED, DEPTH = 8192, 256, 10
FORMAT = 2
META, TEXTS, STARTS, ROWS = "index.json", "texts.utf8", "starts.npy", "rows.npy"
VECTORS, GRAPH = "vectors.npy", "graph.usearch"
FILES = (META, TEXTS, STARTS, ROWS, VECTORS, GRAPH, "texts.parquet")
"""Every file that an index may have, of this format or an earlier one: nothing else is ever deleted."""
Vectors = Callable[[Sequence[str]], np.ndarray]
Watch = Callable[[int], None]


@dataclass(frozen=True)
class About:
    """What an index is: texts, width, whether they are compared one by one, the share of the true ten nearest that a search finds, and
    the fingerprint of the weights that made the vectors. Of the `rows` of the table `empty` ones were left out, and `equal` ones whose
    text an earlier row has."""

    texts: int
    width: int
    exact: bool
    recall: float
    weights: str
    rows: int
    empty: int
    equal: int
    format: int = FORMAT


IDENTITY = {"texts", "width", "exact", "recall", "weights"}
"""Fields that index.json has in every format."""


@dataclass(frozen=True)
class Found:
    """A text that was found: the row of the table that holds it, counted from 0, the first where several do; the text; the cosine."""

    row: int
    text: str
    score: float


class Index:
    """An index that was made before, opened without reading its vectors into memory."""

    def __init__(self, folder: Path) -> None:
        self.about = _about(folder)
        self.texts = np.memmap(folder / TEXTS, np.uint8, "r")
        self.starts, self.rows, self.vectors = (np.load(folder / name, mmap_mode="r") for name in (STARTS, ROWS, VECTORS))
        self.graph = None if self.about.exact else _graph(_graph_kind(), self.about.width).restore(str(folder / GRAPH), view=True)

    def nearest(self, query_NE: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in the index (N, K) and cosines (N, K) of the nearest texts of each query, the nearest first."""
        count = min(count, self.about.texts)
        if self.graph is None:
            return _one_by_one(query_NE, self.vectors, count)
        return _by_graph(self.graph, query_NE, self.vectors, count)

    def search(self, query_NE: np.ndarray, count: int = DEPTH) -> list[list[Found]]:
        """The nearest texts of each query."""
        keys_NK, cosine_NK = self.nearest(query_NE, count)
        pairs = zip(keys_NK.tolist(), cosine_NK.tolist(), strict=True)
        return [
            [Found(int(self.rows[key]), self.text(key), score) for key, score in zip(keys, scores, strict=True)] for keys, scores in pairs
        ]

    def text(self, place: int) -> str:
        """The text at a place of the index."""
        return self.texts[self.starts[place] : self.starts[place + 1]].tobytes().decode()


def make_index(tables: Iterator[pl.Series], vectors: Vectors, weights: str, folder: Path, watch: Watch) -> About:
    """Embed texts and write an index of them; it appears only when it is complete.

    Args:
        tables: the texts, in pieces; empty ones are left out, equal ones are one, and both are counted.
        vectors: gives the vectors of texts, of length one.
        weights: fingerprint of what made the vectors.
        folder: where the index will be; an index that is there is replaced.
        watch: hears of texts that are done.

    Raises:
        DataError: there is no text.
        RunError: something else than an index is at that place, or there are many texts and usearch is not installed.
    """
    refuse_foreign(folder)
    writing = folder.with_name(f".{folder.name}.writing")
    with disk_errors(folder):
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        rows = pl.concat([pl.Series("text", [], pl.String), *tables]).to_frame().with_row_index("row")
        filled = rows.filter(pl.col("text").str.strip_chars() != "")
        kept = filled.unique("text", keep="first", maintain_order=True)
        if not len(kept):
            raise DataError(Issue("index", "must have texts", "none"))
        _write_texts(kept, writing)
        made = _write_vectors(kept["text"], vectors, writing, watch)
        about = About(len(kept), *made, weights, len(rows), len(rows) - len(filled), len(filled) - len(kept))
        (writing / META).write_text(json.dumps(asdict(about), indent=1) + "\n", "utf-8")
        _remove(folder)
        os.replace(writing, folder)
    return about


def refuse_foreign(folder: Path) -> None:
    """Nothing, where an index may be written: nothing is there, or an index and no file besides.

    Raises:
        RunError: something else is there.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    found = _foreign(folder)
    if found:
        remedy = "Choose another place with --output."
        raise RunError(Issue(str(folder), "must be an index or not there yet", found, remedy))


def _foreign(folder: Path) -> str:
    """What of this place is not of an index, in words; "" for nothing."""
    if folder.is_symlink() or not folder.is_dir():
        return "a link" if folder.is_symlink() else "a file"
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES or not path.is_file())
    if others:
        return f"a folder with {', '.join(others[:5])}" + (", …" if len(others) > 5 else "")
    try:
        content = json.loads((folder / META).read_text("utf-8"))
    except FileNotFoundError:
        return f"a folder without {META}"
    except ValueError:
        content = None
    return "" if _is_meta(content) else f"a folder whose {META} is of something else"


def _remove(folder: Path) -> None:
    """Delete an index, file by file: what came there meanwhile stays, and stops it."""
    refuse_foreign(folder)
    if folder.exists():
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _write_texts(kept: pl.DataFrame, folder: Path) -> None:
    """Write texts, where each starts, and the row of each."""
    lengths = kept["text"].str.len_bytes().to_numpy().astype(np.int64)
    np.save(folder / STARTS, np.concatenate([[0], np.cumsum(lengths)]))
    np.save(folder / ROWS, kept["row"].to_numpy().astype(np.int64))
    with (folder / TEXTS).open("wb") as file:
        file.writelines("".join(piece["text"]).encode() for piece in kept.iter_slices(CHUNK))


def _write_vectors(texts: pl.Series, vectors: Vectors, folder: Path, watch: Watch) -> tuple[int, bool, float]:
    """Write vectors, and a graph of many; gives their width, whether they are compared one by one, and the share that is found."""
    exact, kept, graph = len(texts) <= EXACT_TEXTS, np.zeros((0, 0), np.float32), None
    kind = None if exact else _graph_kind()
    for start in range(0, len(texts), CHUNK):
        part = slice(start, min(start + CHUNK, len(texts)))
        made = vectors(texts[part].to_list())
        if not start:
            kept = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (len(texts), made.shape[1]))
            graph = None if kind is None else _graph(kind, made.shape[1])
        kept[part] = made
        if graph is not None:
            graph.add(np.arange(part.start, part.stop, dtype=np.uint64), kept[part])
        watch(part.stop)
    kept.flush()  # type: ignore[attr-defined]
    if graph is None:
        return kept.shape[1], True, 1.0
    graph.save(str(folder / GRAPH))
    return kept.shape[1], False, _recall(graph, kept)


def _recall(graph: Any, kept_ME: np.ndarray) -> float:
    """Share of the true ten nearest texts that the graph finds, for texts spread evenly over the index that are moved a little.

    They are moved, because a text itself is always found.
    """
    draw = np.random.default_rng(0)
    asked_NE = kept_ME[:: max(len(kept_ME) // MEASURED, 1)][:MEASURED].astype(np.float32)
    asked_NE = asked_NE + draw.normal(0, 0.3 / np.sqrt(asked_NE.shape[1]), asked_NE.shape).astype(np.float32)
    asked_NE /= np.linalg.norm(asked_NE, axis=1, keepdims=True)
    true_NK, _ = _one_by_one(asked_NE, kept_ME, DEPTH)
    found_NK, _ = _by_graph(graph, asked_NE, kept_ME, DEPTH)
    return float(np.mean([np.isin(true, found).mean() for true, found in zip(true_NK, found_NK, strict=True)]))


def _by_graph(graph: Any, query_NE: np.ndarray, text_ME: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and cosines of the `count` nearest texts among twice as many that the graph finds, whose own cosines are rounded."""
    found = graph.search(query_NE, min(2 * count, len(text_ME)))
    keys_NK = np.asarray(found.keys).reshape(len(query_NE), -1).astype(np.int64)
    cosine_NK = np.einsum("ne,nke->nk", query_NE, text_ME[keys_NK].astype(np.float32))
    order_NK = np.argsort(-cosine_NK, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(keys_NK, order_NK, 1), np.take_along_axis(cosine_NK, order_NK, 1)


def _one_by_one(query_NE: np.ndarray, text_ME: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and cosines of the `count` nearest of all texts, looked at in pieces."""
    best_N0 = np.zeros((len(query_NE), 0))
    keys, scores = best_N0.astype(np.int64), best_N0
    for start in range(0, len(text_ME), 16 * CHUNK):
        block_NM = query_NE @ np.asarray(text_ME[start : start + 16 * CHUNK], np.float32).T
        keys = np.hstack([keys, np.broadcast_to(np.arange(start, start + block_NM.shape[1]), block_NM.shape)])
        scores = np.hstack([scores, block_NM])
        chosen_NK = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        keys, scores = np.take_along_axis(keys, chosen_NK, 1), np.take_along_axis(scores, chosen_NK, 1)
    return keys, scores


def _graph_kind() -> Any:
    """The class of graphs."""
    try:
        from usearch.index import Index as Graph
    except ImportError as error:
        remedy = 'Install it: pip install "tunesmith[search]".'
        raise RunError(Issue("usearch", f"must be installed to search more than {EXACT_TEXTS:,} texts", "not there", remedy)) from error
    return Graph


def _graph(kind: Any, width: int) -> Any:
    """An empty graph of vectors of this width."""
    return kind(
        ndim=width, metric="ip", dtype="bf16", connectivity=CONNECTIVITY, expansion_add=WHILE_BUILDING, expansion_search=WHILE_SEARCHING
    )


def _about(folder: Path) -> About:
    remedy = "Make one: tunesmith index RUN TEXTS -o INDEX."
    try:
        content = json.loads((folder / META).read_text("utf-8"))
        if not _is_meta(content):
            raise ValueError(f"{META} is of something else")
    except (OSError, ValueError) as error:
        raise RunError(Issue(str(folder), "must be an index", " ".join(str(error).split())[:200], remedy)) from error
    if content["format"] != FORMAT:
        raise RunError(Issue(str(folder), f"must be an index of format {FORMAT}", str(content["format"]), "Make it again."))
    return About(**content)


def _is_meta(content: Any) -> bool:
    """True for what index.json holds, in this format or an earlier one."""
    return isinstance(content, dict) and type(content.get("format")) is int and content.keys() >= IDENTITY
