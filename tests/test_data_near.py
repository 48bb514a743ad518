"""Near-duplicate texts: exact similarities, every planted pair found, clusters that do not depend on the order of rows."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import near
from tunesmith.data.near import banding, canonical_text, connected, near_duplicates


def shingle_set(text: str) -> set[str]:
    padded = f" {text} ".ljust(4)
    return {padded[n : n + 4] for n in range(len(padded) - 3)}


def reference(texts: list[str], threshold: float) -> dict[tuple[str, str], float]:
    sets = {text: shingle_set(text) for text in canonical_text(pl.Series(texts)).unique(maintain_order=True)}
    pairs = {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in combinations(sets, 2)}
    return {pair: value for pair, value in pairs.items() if value >= threshold}


def found(texts: list[str], threshold: float) -> dict[tuple[str, str], float]:
    done = near_duplicates(pl.Series(texts, dtype=pl.String), threshold)
    names = canonical_text(pl.Series(texts)).unique(maintain_order=True).to_list()
    return {(names[a], names[b]): s for a, b, s in zip(done.left_K.tolist(), done.right_K.tolist(), done.jaccard_K.tolist(), strict=True)}


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(400)]
    return [" ".join(rng.choices(words, k=rng.randint(4, 14))) for _ in range(count)]


def edited(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return rng.choice([text[:place] + text[place + 1 :], text[:place] + "x" + text[place:], text.upper(), f"  {text}!", text + " ok"])


@settings(max_examples=60, deadline=None)
@given(
    base=st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=0, max_size=6),
    seed=st.integers(0, 1000),
    threshold=st.sampled_from([0.5, 0.8, 0.95]),
)
def test_what_is_reported_is_what_brute_force_finds(base: list[str], seed: int, threshold: float) -> None:
    rng = random.Random(seed)
    texts = base + [edited(text, rng) for text in base if text] + sentences(5, seed)
    expected, got = reference(texts, threshold), found(texts, threshold)
    assert set(got) <= set(expected)
    assert all(got[pair] == pytest.approx(expected[pair]) for pair in got)
    assert len(got) >= len(expected) - 1  # a pair at the threshold may be missed with the stated probability


def test_planted_pairs_are_found() -> None:
    rng = random.Random(1)
    base = sentences(1500)
    texts = base + [edited(text, rng) for text in base]
    expected, got = reference_of_planted(texts), found(texts, 0.8)
    assert len(expected) > 500
    assert sum(pair in got for pair in expected) / len(expected) > 0.999


def reference_of_planted(texts: list[str]) -> list[tuple[str, str]]:
    names = canonical_text(pl.Series(texts)).to_list()
    half = len(texts) // 2
    pairs = [(a, b) for a, b in zip(names[:half], names[half:], strict=True) if a != b]
    return [(a, b) for a, b in pairs if len(shingle_set(a) & shingle_set(b)) >= 0.8 * len(shingle_set(a) | shingle_set(b))]


def test_case_punctuation_and_width_make_no_difference() -> None:
    texts = ["Where is my card?", "where is  my CARD", "Ｗｈｅｒｅ is my card…", "somewhere else entirely", "!!!", "???"]
    done = near_duplicates(pl.Series(texts), 0.8)
    assert done.group_N.tolist() == [0, 0, 0, 1, 2, 3]
    assert done.clusters_N.tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("chunk", [50, 1000])
def test_the_size_of_chunks_makes_no_difference(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rng = random.Random(2)
    texts = sentences(200) + [edited(text, rng) for text in sentences(100)] + ["long " * 3000]
    whole = near_duplicates(pl.Series(texts), 0.8)
    monkeypatch.setattr(near, "CHUNK_CHARACTERS", chunk)
    monkeypatch.setattr(near, "CHUNK_PAIRS", 7)
    parts = near_duplicates(pl.Series(texts), 0.8)
    assert (parts.left_K == whole.left_K).all()
    assert (parts.jaccard_K == whole.jaccard_K).all()


@pytest.mark.parametrize(("limit", "value"), [("BAND_COMPARISONS", 100), ("MOST_PAIRS", 100)])
def test_crowds_are_counted(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    crowd = pl.Series([f"the same long sentence in which nothing but one number changes a little {n}" for n in range(200)])
    whole = near_duplicates(crowd, 0.8)
    assert whole.crowded == 0
    assert len(whole.left_K) > 10000
    monkeypatch.setattr(near, limit, value)
    done = near_duplicates(crowd, 0.8)
    assert done.crowded > 100
    assert set(done.clusters_N.tolist()) == {0}
    assert len(done.left_K) < len(whole.left_K)


def test_few_texts_are_no_trouble() -> None:
    for texts in ([], ["one"], ["one", "one"]):
        assert len(near_duplicates(pl.Series(texts, dtype=pl.String), 0.8).clusters_N) == len(texts)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_keep_the_chance_of_a_miss_small(threshold: float) -> None:
    rows, bands, missed = banding(threshold)
    assert rows * bands <= near.PERMUTATIONS
    assert (1 - threshold**rows) ** bands <= missed <= 2 * near.MOST_MISSED


@settings(max_examples=50, deadline=None)
@given(edges=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=25))
def test_components_join_what_edges_join(edges: list[tuple[int, int]]) -> None:
    labels = connected(np.array([a for a, _ in edges], int), np.array([b for _, b in edges], int), 21)
    parent = list(range(21))
    for a, b in edges:
        old, new = parent[a], parent[b]
        parent = [new if p == old else p for p in parent]
    assert all((labels[a] == labels[b]) == (parent[a] == parent[b]) for a in range(21) for b in range(21))
    assert [first for n, first in enumerate(labels) if first not in labels[:n]] == sorted(set(labels.tolist()))
