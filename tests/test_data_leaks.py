"""Leaks and their certificate: pairs counted as brute force counts them, nearest neighbours exact, every number where its pointer says."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import cosine
from tunesmith.data.certificate import Searched, certificate, empty_search, findings, nearest_part, pointers, text_part
from tunesmith.data.cosine import nearest, unit_rows
from tunesmith.data.leaks import cosine_leaks, group_leaks, leaking, text_leaks
from tunesmith.data.near import NearDuplicates
from tunesmith.spec.schema import Data

SPLITS = ("train", "validation", "test")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30),
    edges=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda e: e[0] < e[1]), max_size=5),
)
def test_pairs_across_splits_are_those_of_brute_force(rows: list[tuple[int, int]], edges: set[tuple[int, int]]) -> None:
    groups = [group for group, _ in rows]
    place = [split for _, split in rows]
    ids = pl.Series([f"id{n:02}" for n in range(len(rows))])
    left, right = (np.array([e[side] for e in sorted(edges)], int) for side in (0, 1))
    near = NearDuplicates(np.array(groups), left, right, np.full(len(left), 0.9), 0.8, 0.0, 0)
    leaks, pairs = text_leaks(near, ids, np.array(place))
    counted: dict[tuple[str, str], int] = {}
    knows: dict[str, set[str]] = {}
    for a, b in combinations(range(len(rows)), 2):
        alike = groups[a] == groups[b] or tuple(sorted((groups[a], groups[b]))) in edges
        if alike and place[a] != place[b]:
            late, early = sorted((a, b), key=lambda n: -place[n])
            key = (SPLITS[place[late]], SPLITS[place[early]])
            counted[key] = counted.get(key, 0) + 1
            knows.setdefault(ids[late], set()).add(ids[early])
    assert {(split, other): n for split, other, _, n in pairs.iter_rows()} == counted
    assert {name: set(leaking(leaks, name)) for name in SPLITS} == {
        name: {i for n, i in enumerate(ids) if SPLITS[place[n]] == name and i in knows} for name in SPLITS
    }
    for split, identity, kind, similarity, other, other_id in leaks.iter_rows():
        assert kind == "jaccard"
        assert other_id in knows[identity]
        n, m = ids.to_list().index(identity), ids.to_list().index(other_id)
        assert (SPLITS[place[n]], SPLITS[place[m]]) == (split, other)
        assert similarity == (1.0 if groups[n] == groups[m] else 0.9)


def test_groups_leak_and_rows_without_one_do_not() -> None:
    groups = pl.Series(["p1", "p1", None, None, "p2"])
    leaks, pairs = group_leaks(groups, pl.Series(list("abcde")), np.array([0, 2, 0, 2, 2]))
    assert leaking(leaks, "test").to_list() == ["b"]
    assert pairs["pairs"].to_list() == [1]


@pytest.mark.parametrize("block", [3, 7, 1000])
def test_nearest_neighbours_are_exact(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(cosine, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    a, b = unit_rows(torch.randn(20, 5, generator=generator)), unit_rows(torch.randn(33, 5, generator=generator))
    full = (a @ b.T).double().numpy()
    done = nearest(a, b, 0.5)
    assert np.allclose(done.cosine_N, full.max(1), atol=1e-6)
    assert (done.row_N == full.argmax(1)).all()
    assert (done.above_N == (full >= 0.5).sum(1)).all()
    alone = nearest(a, a, 0.5, same=True)
    full = (a @ a.T).double().numpy() - 3 * np.eye(20)
    assert np.allclose(alone.cosine_N, full.max(1), atol=1e-6)
    assert (alone.row_N == full.argmax(1)).all()
    zero = nearest(unit_rows(torch.zeros(1, 5)), b, 0.5)
    assert zero.above_N.tolist() == [0]


def prepared() -> dict[str, pl.DataFrame]:
    return {
        name: pl.DataFrame({"id": [f"{name}{n}" for n in range(4)], "text": [f"{name} {n}" for n in range(4)], "label": ["a", "b"] * 2})
        for name in SPLITS
    }


def at(content: Any, pointer: str) -> Any:
    for key in pointer.split("/")[1:]:
        content = content[key.replace("~1", "/")]
    return content


def test_a_certificate_says_what_was_found() -> None:
    splits = prepared()
    near = NearDuplicates(np.array([0, 1, 2, 3, 0, 5, 6, 7, 1, 9, 10, 11]), np.array([2]), np.array([9]), np.array([0.85]), 0.8, 1e-4, 0)
    ids = pl.concat([part["id"] for part in splits.values()])
    leaks, pairs = text_leaks(near, ids, np.repeat([0, 1, 2], 4))
    generator = torch.Generator().manual_seed(0)
    train, test = unit_rows(torch.randn(4, 8, generator=generator)), unit_rows(torch.randn(4, 8, generator=generator))
    test[3] = train[1]
    found = nearest(test, train, 0.95)
    more, counted = cosine_leaks(found, "test", splits["test"]["id"], "train", splits["train"]["id"])
    leaks, pairs = pl.concat([leaks, more]), pl.concat([pairs, counted])
    searched = Searched(near, None, leaks, pairs)
    features = nearest_part(0.95, {"test/train": (4, 4)}, {"test/train": found})
    content = json.loads(json.dumps(certificate(text_part(searched, Data(train=("x",))), splits, leaks, pairs, features)))
    assert content["leaking"] == {"test": 3, "validation": 1}
    assert content["clean_test_rows"] == 1
    assert content["jaccard"]["pairs"] == {"test/train": 2, "test/validation": 0, "validation/train": 1}
    assert content["cosine"]["pairs"]["test/train"] == 1
    assert content["group"] is None
    assert "some test rows are known" in content["statement"]
    assert "shared groups" in content["statement"].split("Not searched for")[1]
    best = content["examples"][0]
    assert (best["split"], best["similarity"], best["text"], best["other_text"]) == ("test", 1.0, "test 0", "train 1")
    known = {finding.id: finding for finding in findings(content)}
    where = pointers(content)
    assert set(where) == {name for name, finding in known.items() if finding.source != "unknown"}
    assert all(at(content, where[name]) == known[name].value for name in where)
    assert known["certificate/group/leaking_test_rows"].value is None


def test_a_certificate_of_nothing_says_so() -> None:
    searched = empty_search()
    content = certificate(text_part(searched, Data(train=("x",))), prepared(), searched.leaks, searched.pairs, None)
    assert "none was found" in content["statement"]
    assert "near-duplicate texts" in content["statement"].split("Not searched for")[1]
    assert content["clean_test_rows"] == 4
    assert content["examples"] == []
