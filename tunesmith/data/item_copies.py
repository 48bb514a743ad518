"""Items that are copies of each other, whatever they are: groups of equal content, and edges between groups that are alike.

Pictures, recordings and texts are searched by their own methods (see image_duplicates, audio_duplicates, near) and come
out in one form, so that clusters, leaks and splits are made by the same functions for all of them.

Shape suffixes: N = items, G = groups of equal content, K = pairs of groups, S = side of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.audio_duplicates import find_audio_pairs
from tunesmith.data.image_duplicates import find_image_pairs
from tunesmith.data.leaks import SCHEMA, text_leaks
from tunesmith.data.near import NearDuplicates, near_duplicates

Array = np.ndarray[Any, np.dtype[Any]]

MOST_RECORDINGS, MOST_SECONDS = 10_000, 18_000.0
"""Beyond these only exact copies of recordings are looked for: samples and spectra have to fit into memory together."""
JACCARD = 0.8
SAME_TEXT, SAME_LETTERS = "the same text", "the same but for case, punctuation, spacing"


@dataclass(frozen=True)
class Copies:
    """Which items are alike, and what was searched.

    near: `group_N` numbers equal content; edges join groups. `match_K` says how the two of an edge match, `same` how those of
    a group do. `kind` names the likeness. `statement` says in words what was compared.
    contexts: for questions, which of their texts are alike; `held_N` are the clusters that a split must not part.
    """

    kind: str
    near: NearDuplicates
    match_K: tuple[str, ...]
    same: str
    statement: str
    contexts: NearDuplicates | None = None

    @property
    def held_N(self) -> Array:
        """Cluster of each item: those of copies, and for questions those of their texts, which hold the former."""
        return (self.contexts or self.near).clusters_N


def content_groups(content: pl.Series) -> tuple[Array, Array]:
    """Group of each item, and the first item of each group; an item without content (null) is alone in its group."""
    alone = pl.Series([f"item {row}" for row in range(content.len())], dtype=pl.String)
    filled = content.zip_with(content.is_not_null(), alone)
    _, first_G, inverse = np.unique(filled.to_numpy(), return_index=True, return_inverse=True)
    order = np.argsort(first_G, kind="stable")
    return np.argsort(order, kind="stable")[inverse], first_G[order]


def image_copies(group_N: Array, searched_G: Array, thumbnails: Array) -> Copies:
    """Copies among pictures: `searched_G` are the groups that have pixels, `thumbnails` (as many, S, S) one of each."""
    found = find_image_pairs(thumbnails)
    near = _edges(group_N, searched_G, (found.left, found.right, found.similarity), 0.97)
    words = f"Pictures of equal pixels were compared once. {found.statement}."
    return Copies("image", near, found.transform, "the same pixels", words)


def audio_copies(group_N: Array, searched_G: Array, recordings: Sequence[Array]) -> Copies:
    """Copies among recordings: `searched_G` are the groups that have samples, `recordings` one of each at FINGERPRINT_RATE."""
    found = find_audio_pairs(recordings)
    near = _edges(group_N, searched_G, (found.left, found.right, found.similarity), 0.55)
    words = f"Recordings of equal samples were compared once. {found.statement}."
    return Copies("audio", near, found.match, "the same samples", f"{words} Copies over 3 s that play at another speed are not found.")


def exact_copies(kind: str, group_N: Array, same: str, why: str) -> Copies:
    """Only copies of equal content, with the reason why no others were looked for."""
    none = np.zeros(0, np.int64)
    return Copies(kind, NearDuplicates(group_N, none, none, np.zeros(0), 1.0, 0.0, 0), (), same, why)


def text_copies(texts: pl.Series) -> Copies:
    """Copies among texts: equal letters and digits are a group, a Jaccard similarity of JACCARD and more an edge."""
    near = near_duplicates(texts, JACCARD)
    return Copies("jaccard", near, ("nearly the same text",) * len(near.left_K), SAME_LETTERS, _searched(near, "texts"))


def question_copies(questions: pl.Series, contexts: pl.Series) -> Copies:
    """Copies among questions on texts: question and text must both be alike, for a text alone is shared by many questions."""
    asked, told = near_duplicates(questions, JACCARD), near_duplicates(contexts, JACCARD)
    table = pl.DataFrame({"asked": asked.group_N, "text": told.clusters_N}).with_row_index("row")
    groups = table.group_by("asked", "text", maintain_order=True).agg(pl.col("row").first()).with_row_index("group")
    group_N = table.join(groups, on=["asked", "text"], how="left", maintain_order="left")["group"].to_numpy().astype(np.int64)
    edges = pl.DataFrame({"asked": asked.left_K, "other": asked.right_K, "similarity": asked.jaccard_K})
    joined = edges.join(groups, on="asked").join(groups, left_on=["other", "text"], right_on=["asked", "text"], suffix="_right")
    ends = np.sort(joined.select("group", "group_right").to_numpy().astype(np.int64), axis=1).reshape(-1, 2)
    near = replace(asked, group_N=group_N, left_K=ends[:, 0], right_K=ends[:, 1], jaccard_K=joined["similarity"].to_numpy())
    words = f"{_searched(asked, 'questions')} Two questions are copies where their texts are alike as well, by the same measure."
    return Copies("jaccard", near, ("nearly the same question on the same text",) * len(ends), SAME_LETTERS, words, told)


def pairs_of(copies: Copies, texts: pl.Series | None = None) -> pl.DataFrame:
    """A row per pair, left < right: row numbers, similarity, match, same (equal content).

    Of equal items each is paired with the first alone; an edge stands for the first items of its groups.
    """
    near = copies.near
    rows = pl.DataFrame({"group": near.group_N}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    firsts = rows.group_by("group").agg(pl.col("row").min().alias("first"))
    stars = rows.join(firsts, on="group", maintain_order="left").filter(pl.col("row") != pl.col("first"))
    same = stars.select(pl.col("first").alias("left"), pl.col("row").alias("right"), pl.lit(1.0).alias("similarity"))
    match = pl.Series("match", [copies.same] * same.height, dtype=pl.String)
    if texts is not None:
        equal = texts.gather(same["left"]) == texts.gather(same["right"])
        match = pl.select(pl.when(equal).then(pl.lit(SAME_TEXT)).otherwise(pl.lit(copies.same)).alias("match")).to_series()
    first_G = np.zeros(int(near.group_N.max(initial=-1)) + 1, np.int64)
    first_G[firsts["group"].to_numpy()] = firsts["first"].to_numpy()
    ends = np.sort(np.stack([first_G[near.left_K], first_G[near.right_K]], 1), axis=1).reshape(-1, 2)
    edges = pl.DataFrame({"left": ends[:, 0], "right": ends[:, 1], "similarity": np.asarray(near.jaccard_K, np.float64)})
    edges = edges.with_columns(pl.Series("match", copies.match_K, dtype=pl.String), pl.lit(False).alias("same"))
    whole = pl.concat([same.with_columns(match, pl.lit(True).alias("same")), edges])
    return whole.sort("left", "right")


def leaks_of(copies: Copies, ids: pl.Series, place_N: Array) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leaks and pairs by splits as in `leaks`, by copies and, for questions, by their texts; items of place -1 take no part."""
    inside = place_N >= 0
    tables, counts = [pl.DataFrame(schema=SCHEMA)], []
    for kind, near in ((copies.kind, copies.near), ("context", copies.contexts)):
        if near is not None:
            leaks, pairs = text_leaks(replace(near, group_N=near.group_N[inside]), ids.filter(inside), place_N[inside])
            tables.append(leaks.with_columns(pl.lit(kind).alias("kind")))
            counts.append(pairs.with_columns(pl.lit(kind).alias("kind")))
    return pl.concat(tables), pl.concat(counts)


def _edges(group_N: Array, searched_G: Array, pairs: tuple[Array, Array, Array], threshold: float) -> NearDuplicates:
    left_K, right_K, similarity_K = pairs
    similarity_K = np.asarray(similarity_K, np.float64)
    return NearDuplicates(group_N, searched_G[left_K], searched_G[right_K], similarity_K, threshold, 0.0, 0)


def _searched(near: NearDuplicates, what: str) -> str:
    crowd = f"; {near.crowded:,} {what} in crowds were compared with a part of their crowd" if near.crowded else ""
    return (
        f"{len(near.group_N):,} {what} were compared as sets of four consecutive characters, letters and digits in lower case; those of "
        f"a Jaccard similarity of at least {near.threshold:g} count as near copies; a pair exactly at it escapes with probability "
        f"{near.missed:.2g}{crowd}."
    )
