"""Near-duplicates, exact cosine between splits, and a whole certificate: seconds, peak memory and recall, beside peers.

    python bench/data.py near [--rows 1000000] [--peers FOLDER]     against datasketch and semhash, where they can be imported
    python bench/data.py cosine [--rows 10000] [--others 100000]    against the bare matrix product
    python bench/data.py certificate [--rows 100000]                splits with certificate of generated texts, starter encoder

Each contender runs in a process of its own. Texts are recombined from the sentences of DATA (--data FOLDER with jsonl.gz
files that have a "text" field), or made of invented words. One text in fifty has a planted near-duplicate whose Jaccard
similarity, by four consecutive characters, is at least 0.8 and below 1. semhash compares meaning, not characters: it runs
on static vectors of the starter encoder's token embeddings, at the lowest of a few thresholds that finds 99 % of the
planted pairs, or at the lowest of all; its share of found pairs is printed beside its time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

THRESHOLD = 0.8
REPEATS = 3
SEMHASH_THRESHOLDS = (0.9, 0.95)


def sentences(folder: Path | None) -> list[str]:
    """Sentences to cut up: those of the data, or invented ones."""
    if folder:
        files = sorted(folder.rglob("train.jsonl.gz"))
        return [text for file in files for row in [pl.read_ndjson(file)] if "text" in row.columns for text in row["text"].head(10_000)]
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlucmfwyp", k=draw.randint(2, 9))) for _ in range(20_000)]
    return [" ".join(draw.choices(words, k=draw.randint(5, 25))) for _ in range(20_000)]


def generate(rows: int, folder: Path | None) -> tuple[list[str], list[tuple[int, int]]]:
    """Short texts, and the pairs of row numbers that were planted."""
    base, draw = sentences(folder), random.Random(0)
    vocabulary = sorted({word for text in base for word in text.split()})
    texts: list[str] = []
    while len(texts) < rows - rows // 50:
        one, other = draw.choice(base).split(), draw.choice(base).split()
        if one and other:
            cut = draw.randint(1, len(one))
            texts.append(" ".join([*one[:cut], *draw.choices(vocabulary, k=3), *other[draw.randrange(len(other)) :]])[:160])
    planted = []
    for row in draw.sample(range(len(texts)), rows // 50):
        planted.append((row, len(texts)))
        texts.append(edited(texts[row], draw))
    exact = [jaccard(texts[a], texts[b]) for a, b in planted]
    return texts, [pair for pair, value in zip(planted, exact, strict=True) if THRESHOLD <= value < 1]


def edited(text: str, draw: random.Random) -> str:
    """The text with one or two small changes."""
    for _ in range(draw.randint(1, 2)):
        place = draw.randrange(len(text))
        text = draw.choice([text[:place] + text[place + 1 :], text[:place] + "x" + text[place:], text + " ok", text.upper()])
    return text


def four(canonical: str) -> set[str]:
    """Four consecutive characters of a canonical text, as the search defines them."""
    padded = f" {canonical} ".ljust(4)
    return {padded[n : n + 4] for n in range(len(padded) - 3)}


def jaccard(one: str, other: str) -> float:
    """Similarity of two texts."""
    from tunesmith.data.near import canonical_text

    a, b = (four(text) for text in canonical_text(pl.Series([one, other])))
    return len(a & b) / len(a | b)


def ours(texts: list[str], planted: list[tuple[int, int]]) -> dict[str, Any]:
    """Seconds of the search, and the share of planted pairs in one cluster."""
    from tunesmith.data.near import near_duplicates

    series = pl.Series(texts)
    started = time.perf_counter()
    near = near_duplicates(series, THRESHOLD)
    clusters_N = near.clusters_N
    seconds = time.perf_counter() - started
    joined = set(zip(near.left_K.tolist(), near.right_K.tolist(), strict=True))
    groups = near.group_N
    found = [groups[a] == groups[b] or (min(groups[a], groups[b]), max(groups[a], groups[b])) in joined for a, b in planted]
    return {"seconds": seconds, "recall": float(np.mean(found)), "pairs": len(near.left_K), "clusters": int(clusters_N.max()) + 1}


def datasketch(texts: list[str], planted: list[tuple[int, int]]) -> dict[str, Any]:
    """MinHash and MinHashLSH as its documentation shows them, each candidate verified; inserted in bulk."""
    from datasketch import MinHash, MinHashLSH

    from tunesmith.data.near import canonical_text

    started = time.perf_counter()
    canonical = canonical_text(pl.Series(texts)).to_list()
    hashes: list[Any] = []
    for start in range(0, len(texts), 10_000):  # the sets of a million texts do not fit into memory
        sets = [[shingle.encode() for shingle in four(text)] for text in canonical[start : start + 10_000]]
        hashes += MinHash.bulk(sets, num_perm=120)
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=120, params=(24, 5))
    with lsh.insertion_session() as session:
        for number, minhash in enumerate(hashes):
            session.insert(number, minhash, check_duplication=False)
    pairs = set()
    for number, minhash in enumerate(hashes):
        for other in lsh.query(minhash):
            if number < other:
                a, b = four(canonical[number]), four(canonical[other])
                if len(a & b) >= THRESHOLD * len(a | b):
                    pairs.add((number, other))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "recall": float(np.mean([pair in pairs for pair in planted])), "pairs": len(pairs)}


def semhash(texts: list[str], planted: list[tuple[int, int]]) -> dict[str, Any]:
    """self_deduplicate on static vectors; a planted pair counts as found when its copy is removed."""
    from model2vec import StaticModel
    from semhash import SemHash
    from tokenizers import Tokenizer
    from transformers import AutoModel

    from tunesmith.models.load import load_processor, model_path, quiet
    from tunesmith.spec.schema import Model

    with quiet():
        weights = AutoModel.from_pretrained(model_path(Model())).get_input_embeddings().weight.detach().numpy()
    tokenizer = Tokenizer.from_str(load_processor(Model()).backend_tokenizer.to_str())
    model = StaticModel(weights, tokenizer, normalize=True)
    out: dict[str, Any] = {}
    for threshold in SEMHASH_THRESHOLDS:
        started = time.perf_counter()
        result = SemHash.from_records(texts, model=model).self_deduplicate(threshold=threshold)
        seconds = time.perf_counter() - started
        gone = {item.record for item in result.filtered}
        recall = float(np.mean([texts[a] in gone or texts[b] in gone for a, b in planted]))
        if not out or recall >= 0.99:
            out = {"seconds": seconds, "recall": recall, "pairs": len(result.filtered), "threshold": threshold}
    return out


CONTENDERS = {"ours": ours, "datasketch": datasketch, "semhash": semhash}


def near(options: argparse.Namespace) -> None:
    """Every contender on the same texts; a peer that is missing is said to be."""
    texts, planted = generate(options.rows, options.data)
    print(f"{len(texts):,} texts, mean {statistics.mean(map(len, texts)):.0f} characters, {len(planted):,} planted pairs")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps([texts, planted]), "utf-8")
        for name in options.contenders:
            runs = []
            for _ in range(options.repeats if name == "ours" else 1):
                command = [sys.executable, __file__, "one", "--contender", name, "--file", str(path)]
                done = subprocess.run(command + (["--peers", str(options.peers)] if options.peers else []), capture_output=True, text=True)
                if done.returncode:
                    print(f"{name}: not measured: {done.stderr.strip().splitlines()[-1]}")
                    break
                runs.append(json.loads(done.stdout.splitlines()[-1]))
            if runs:
                middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
                print(name, json.dumps(middle), f"of {len(runs)} runs: {[round(run['seconds'], 1) for run in runs]} s")


def one(options: argparse.Namespace) -> None:
    """One contender, in this process."""
    if options.peers:
        sys.path.append(str(options.peers))
    texts, planted = json.loads(options.file.read_text("utf-8"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = CONTENDERS[options.contender](texts, [tuple(pair) for pair in planted])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**result, "peak_mb": round(peak / 1024), "of_which_input_mb": round(before / 1024)}))


def cosine(options: argparse.Namespace) -> None:
    """The exact search beside the bare product of the same blocks."""
    import torch

    from tunesmith.data.cosine import BLOCK, nearest, unit_rows

    generator = torch.Generator().manual_seed(0)
    a, b = (unit_rows(torch.randn(rows, 384, generator=generator)) for rows in (options.rows, options.others))
    seconds: dict[str, list[float]] = {"product": [], "search": []}
    for _ in range(REPEATS):
        started = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, len(b), BLOCK):
                for first in range(0, len(a), BLOCK):
                    a[first : first + BLOCK] @ b[start : start + BLOCK].T
        seconds["product"].append(time.perf_counter() - started)
        started = time.perf_counter()
        nearest(a, b, 0.98)
        seconds["search"].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rate = 2 * len(a) * len(b) * 384 / middle["product"] / 1e9
    ratio = middle["search"] / middle["product"]
    print(f"product {middle['product']:.2f} s ({rate:.0f} GFLOP/s), search {middle['search']:.2f} s: {ratio:.2f}×")


def certificate(options: argparse.Namespace) -> None:
    """Seconds of every stage of a check of generated texts."""
    from tunesmith.core.rundir import RunDir
    from tunesmith.pipeline import check
    from tunesmith.spec.load import load_spec

    texts, _ = generate(options.rows, options.data)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "texts.parquet"
        pl.DataFrame({"text": texts, "label": [f"class {len(text) % 10}" for text in texts]}).write_parquet(table)
        started = time.perf_counter()
        done = check(
            load_spec(
                {
                    "name": "texts",
                    "data": {"train": str(table), "suspects": None},
                    "evaluate": {"baselines": []},
                    "train": {"head_start": "random"},
                }
            ),
            folder,
        )
        total = time.perf_counter() - started
        stages = {name: entry["seconds"] for name, entry in RunDir(done).manifest["stages"].items()}
        found = json.loads((done / "data/certificate.json").read_text("utf-8"))
    print(f"{options.rows:,} texts: {total:.0f} s; {stages}; compared {found['cosine']['rows_compared']}")


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("near", "cosine", "certificate", "one"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--others", type=int, default=100_000)
    parser.add_argument("--data", type=Path, help="folder with jsonl.gz files to take sentences from")
    parser.add_argument("--peers", type=Path, help="folder that datasketch and semhash were installed into")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows = options.rows or {"near": 1_000_000, "cosine": 10_000, "certificate": 100_000}.get(options.what, 0)
    {"near": near, "cosine": cosine, "certificate": certificate, "one": one}[options.what](options)


if __name__ == "__main__":
    main()
