"""The leak certificate: what was compared between the splits, at which thresholds, and what was found.

It says "no pair at or above this threshold under this similarity", never "no leakage".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.records import Finding
from tunesmith.data.cosine import Nearest
from tunesmith.data.label_forms import shown_label
from tunesmith.data.leaks import PAIRS, SCHEMA, leaking
from tunesmith.data.near import NearDuplicates
from tunesmith.spec.schema import Data

EXAMPLES = 20
EXAMPLE_CHARACTERS = 300
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
NEAREST = {
    "p50": "Median cosine of",
    "p99": "99th percentile of the cosine of",
    "max": "Largest cosine of",
    "share_above": "Share of rows at or above the threshold, by",
}
DIRECTIONS = (("test", "train"), ("test", "validation"), ("validation", "train"))
KINDS = {
    "jaccard": "Jaccard similarity of the sets of four consecutive characters of letters and digits in lower case",
    "cosine": "cosine of frozen features of the pretrained model",
    "group": "the same value in the group column",
}


@dataclass(frozen=True)
class Searched:
    """What the search of texts and groups found, before features are known. None stands for what was not looked for."""

    near: NearDuplicates | None
    groups: int | None
    leaks: pl.DataFrame
    pairs: pl.DataFrame


def empty_search() -> Searched:
    """A search that looked for nothing."""
    return Searched(None, None, pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=PAIRS))


def text_part(searched: Searched, data: Data) -> dict[str, Any]:
    """The part of the certificate that the texts and groups give, JSON-ready; goes into profile.json."""
    near = searched.near
    return {
        "jaccard": None
        if near is None
        else {
            "threshold": near.threshold,
            "missed_probability": near.missed,
            "crowded_rows": near.crowded,
            **_cluster_sizes(near.clusters_N),
        },
        "group": None if searched.groups is None else {"column": data.group or "text_pair", "groups": searched.groups},
        "pairs": searched.pairs.cast({"split": pl.String, "other_split": pl.String}).to_dicts(),
    }


def certificate(
    parts: Mapping[str, Any],
    splits: Mapping[str, pl.DataFrame],
    leaks: pl.DataFrame,
    pairs: pl.DataFrame,
    features: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Content of certificate.json.

    Args:
        parts: `text_part` of the search.
        splits: the prepared rows.
        leaks, pairs: of every kind that was looked for (see `leaks`).
        features: the `cosine` entry; None when no features were compared.
    """
    looked = {"jaccard": parts["jaccard"], "cosine": features, "group": parts["group"]}
    counted = {(kind, split, other): 0 for kind in looked for split, other in DIRECTIONS}
    counted |= {(kind, str(split), str(other)): n for split, other, kind, n in pairs.iter_rows()}
    found = {name: len(leaking(leaks, name)) for name in ("test", "validation")}
    return {
        "rows": {name: len(rows) for name, rows in splits.items()},
        "exact": {"compared": "SHA-256 of the cleaned text", "pairs": _exact_pairs(splits)},
        **{
            kind: None
            if entry is None
            else {
                "compared": KINDS[kind],
                **entry,
                "pairs": {f"{split}/{other}": counted[kind, split, other] for split, other in DIRECTIONS},
                "leaking_test_rows": len(leaking(leaks.filter(pl.col("kind") == kind), "test")),
            }
            for kind, entry in looked.items()
        },
        "leaking": found,
        "clean_test_rows": len(splits["test"]) - found["test"],
        "statement": statement(looked, found),
        "examples": _examples(leaks, splits),
    }


def statement(looked: Mapping[str, Mapping[str, Any] | None], found: Mapping[str, int]) -> str:
    """The certificate in a sentence; numbers stay in the fields beside it."""
    names = {"jaccard": "near-duplicate texts", "cosine": "features at or above the cosine threshold", "group": "shared groups"}
    done = ["equal texts", *(names[kind] for kind, entry in looked.items() if entry is not None)]
    left_out = [names[kind] for kind, entry in looked.items() if entry is None]
    words = "Rows of different splits were searched for " + ", ".join(done)
    if found["test"]:
        words += "; some test rows are known from before."
    elif found["validation"]:
        words += "; no test row is known from before, but some validation rows are known from training."
    else:
        words += "; none was found."
    return words + (f" Not searched for: {', '.join(left_out)}." if left_out else "")


def nearest_part(threshold: float, compared: Mapping[str, tuple[int, int]], found: Mapping[str, Nearest]) -> dict[str, Any]:
    """The `cosine` entry: how many rows were compared, and how near the nearest neighbours are, by direction."""
    return {
        "threshold": threshold,
        "rows_compared": {name: list(counts) for name, counts in compared.items()},
        "nearest": {
            name: {
                **{key: round(float(np.quantile(result.cosine_N, q)), 6) for key, q in QUANTILES.items()},
                "share_above": round(float((result.above_N > 0).mean()), 6),
            }
            for name, result in found.items()
        },
    }


def findings(content: Mapping[str, Any]) -> list[Finding]:
    """The certificate/* findings; `pointers` says where in certificate.json each value stands."""
    out = []
    for name, (claim, pointer, unit, n) in _told(content).items():
        out.append(Finding(f"certificate/{name}", claim, _at(content, pointer), unit, n))
    for kind in KINDS:
        if content[kind] is None:
            out.append(
                Finding(
                    f"certificate/{kind}/leaking_test_rows",
                    f"Test rows known by {KINDS[kind]}",
                    None,
                    "rows",
                    source="unknown",
                    note="not looked for",
                )
            )
    return out


def pointers(content: Mapping[str, Any]) -> dict[str, str]:
    """JSON pointer into certificate.json for each finding with a value."""
    return {f"certificate/{name}": pointer for name, (_, pointer, _, _) in _told(content).items()}


def _told(content: Mapping[str, Any]) -> dict[str, tuple[str, str, str, int | None]]:
    """Claim, pointer, unit and n of every finding of a certificate."""
    rows = content["rows"]
    told: dict[str, tuple[str, str, str, int | None]] = {
        "exact/pairs": ("Equal texts in different splits", "/exact/pairs", "pairs", None),
        "leaking/test": ("Test rows that train or validation know", "/leaking/test", "rows", rows["test"]),
        "leaking/validation": ("Validation rows that train knows", "/leaking/validation", "rows", rows["validation"]),
        "clean_test_rows": ("Test rows that nothing before them knows", "/clean_test_rows", "rows", rows["test"]),
    }
    for kind, words in KINDS.items():
        entry = content[kind]
        if entry is None:
            continue
        claim = f"Test rows known by {words}"
        told[f"{kind}/leaking_test_rows"] = (claim, f"/{kind}/leaking_test_rows", "rows", rows["test"])
        for name in entry["pairs"]:
            split, other = name.split("/")
            claim = f"Pairs of a {split} row and a {other} row alike by {words}"
            told[f"{kind}/pairs/{name}"] = (claim, f"/{kind}/pairs/{name.replace('/', '~1')}", "pairs", None)
        if "threshold" in entry:
            told[f"{kind}/threshold"] = (f"Threshold of the {words}", f"/{kind}/threshold", "", None)
    if content["jaccard"] is not None:
        near = {
            "missed_probability": ("Probability that a pair exactly at the threshold was not looked at", ""),
            "crowded_rows": ("Rows in crowds of look-alikes, compared with a part of their crowd", "rows"),
            "clusters": ("Clusters of two or more near-duplicates", "clusters"),
            "clustered_rows": ("Rows in such clusters", "rows"),
            "largest_cluster": ("Rows of the largest cluster", "rows"),
        }
        told |= {f"jaccard/{key}": (claim, f"/jaccard/{key}", unit, None) for key, (claim, unit) in near.items()}
    if content["cosine"] is not None:
        for name, quantiles in content["cosine"]["nearest"].items():
            split, other = name.split("/")
            for key in quantiles:
                claim = f"{NEAREST[key]} a {split} row and its nearest other {other} row"
                told[f"cosine/nearest/{name}/{key}"] = (claim, f"/cosine/nearest/{name.replace('/', '~1')}/{key}", "", None)
    return told


def _at(content: Mapping[str, Any], pointer: str) -> Any:
    value: Any = content
    for key in pointer.split("/")[1:]:
        value = value[key.replace("~1", "/")]
    return value


def _exact_pairs(splits: Mapping[str, pl.DataFrame]) -> int:
    return sum(len(splits[split].join(splits[other], on="id", how="semi")) for split, other in DIRECTIONS)


def _cluster_sizes(clusters_N: np.ndarray[Any, np.dtype[Any]]) -> dict[str, int]:
    sizes = np.bincount(clusters_N) if len(clusters_N) else np.zeros(1, np.int64)
    real = sizes[sizes > 1]
    return {"clusters": len(real), "clustered_rows": int(real.sum()), "largest_cluster": int(sizes.max())}


def _examples(leaks: pl.DataFrame, splits: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The leaks of highest similarity, the test first, with both texts and labels; texts are cut."""
    names = [name for name in ("text", "text_pair") if name in splits["train"].columns]
    texts = pl.concat_str(names, separator=" | ").str.slice(0, EXAMPLE_CHARACTERS).alias("text")
    label = shown_label(splits["train"]["label"])
    rows = pl.concat([part.select("id", texts, label) for part in splits.values()]).unique("id")
    best = leaks.sort("split", "similarity", "id", descending=[True, True, False]).head(EXAMPLES)
    both = best.join(rows, on="id", how="left", maintain_order="left").join(
        rows, left_on="other_id", right_on="id", how="left", suffix="_other"
    )
    columns = {"text_other": "other_text", "label_other": "other_label"}
    return both.rename(columns).cast({"split": pl.String, "other_split": pl.String}).to_dicts()
