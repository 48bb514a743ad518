"""Whole runs that learn to find texts: by vectors, by pairs, and numbers of texts read apart; what ships, what is verified, search."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tunesmith
from tests import tiny
from tests.test_cli import call
from tunesmith.cli import searching
from tunesmith.core.errors import DataError, RunError, SpecError
from tunesmith.core.rundir import RunDir
from tunesmith.models.load import load_processor
from tunesmith.pipeline import check
from tunesmith.serve.search import Index, make_index
from tunesmith.spec.check import check_spec
from tunesmith.spec.defaults import read_resolved
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Model
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.make import metric_names


def pairs(count: int = 60, seed: int = 0) -> pl.DataFrame:
    """Queries and the texts that they find: a text holds most of the words of its query."""
    draw, rows, seen = random.Random(seed), [], set[str]()
    areas = sorted(tiny.WORDS)
    while len(rows) < count:
        area, other = areas[len(rows) % 3], areas[(len(rows) + 1) % 3]
        query, wrong = (draw.sample(tiny.WORDS[of], 3) + draw.sample(tiny.FILLER, draw.randint(1, 4)) for of in (area, other))
        text = [*draw.sample(query, 3), *draw.sample(tiny.FILLER, 1)]
        row = {"query": " ".join(query), "passage": " ".join(text), "negative": " ".join(wrong)}
        if row["query"] not in seen:
            seen.add(row["query"])
            rows.append(row)
    return pl.DataFrame(rows)


def spec_of(folder: Path, model: Path, task: str = "feature-extraction", **more: Any) -> dict[str, Any]:
    pairs().write_csv(folder / "pairs.csv")
    train = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"}
    return {
        "name": "found", "task": task, "data": {"train": str(folder / "pairs.csv"), "test_share": 0.25}, "model": {"name": str(model)},
        "train": train, "evaluate": {"resamples": 100}, **more,
    }  # fmt: skip


def run(folder: Path, model: Path, task: str = "feature-extraction", **more: Any) -> tunesmith.Run:
    return tunesmith.run(load_spec(spec_of(folder, model, task, **more)), folder / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tunesmith.Run:
    return run(tmp_path_factory.mktemp("ranking"), tiny_bert, strategy={"kind": "layers", "top": 1})


def test_a_run_learns_vectors_and_says_what_they_find(done: tunesmith.Run) -> None:
    found = done.findings
    assert 0 < found["test/ndcg_at_10"].value <= 1 and found["test/ndcg_at_10"].interval is not None  # type: ignore[operator]
    assert found["store/used"].value == "yes"
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    corpus = pl.read_parquet(done.path / "data/corpus.parquet")
    assert found["data/corpus"].value == len(corpus)
    assert all(len(row) == 10 for row in stored["predicted"]) and stored["ranks"].list.min().min() >= 1  # type: ignore[operator]
    for name in ("lexical", "features"):
        assert f"test/baseline/{name}/ndcg_at_10/difference" in found
    assert verify_run(RunDir(done.path), 2).ok


def test_vectors_are_those_of_plain_transformers(done: tunesmith.Run) -> None:
    from transformers import AutoModel

    predictor = tunesmith.load(done.path)
    texts = ["refund the charge", "parcel"]
    made = predictor.vectors(texts)
    words = load_processor(Model(name=str(done.model_path)))
    batch = words(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(done.model_path).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(made, torch.nn.functional.normalize(mean, dim=1).numpy(), atol=1e-5)
    assert predictor.predict(texts)[0].vector == pytest.approx(tuple(made[0])) and predictor.predict(texts)[0].label is None
    assert [place for place, _ in predictor.rank("refund the charge", ["door", "refund the charge"])] == [1, 0]
    assert predictor.vectors([]).shape == (0, made.shape[1]) and predictor.rank("refund", []) == []


def test_a_network_that_embeds_already_may_stay_as_it_was(done: tunesmith.Run, tmp_path: Path) -> None:
    again = run(tmp_path, done.model_path, strategy={"kind": "lora", "rank": 2})
    plan = make_plan(load_spec(spec_of(tmp_path, done.model_path, strategy={"kind": "lora", "rank": 2})), tmp_path / "runs")
    assert plan.size is not None and plan.averaging_bytes == 4 * plan.size.trainable
    assert plan.disk_bytes == 6 * plan.size.bytes  # the weights before training are made again, not kept
    found, resolved = again.findings, read_resolved(again.path / "resolved.yaml")
    assert resolved.train.averaging is not None and resolved.train.averaging.kind == "wise_ft"
    assert found["averaging/share"].value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) and found["averaging/members"].value == 6
    assert found["averaging/gain"].value >= 0  # type: ignore[operator]
    assert found["train/best_score"].value - found["averaging/plain_score"].value == pytest.approx(found["averaging/gain"].value)  # type: ignore[operator]
    assert "The kept weights lie between those before training and the trained ones" in (again.path / "report.html").read_text("utf-8")
    assert verify_run(RunDir(again.path), 2).ok


def test_the_folder_is_one_of_sentence_transformers(done: tunesmith.Run) -> None:
    kinds = [module["type"].split(".")[-1] for module in json.loads((done.model_path / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    texts = ["refund the charge", "parcel", "the a my is was to on not why when"]
    theirs = library.SentenceTransformer(str(done.model_path), device="cpu").encode(texts)
    np.testing.assert_allclose(theirs, tunesmith.load(done.path).vectors(texts), atol=1e-5)


@pytest.mark.parametrize("task", ["feature-extraction", "text-ranking"])
def test_a_run_names_judgements_that_likeness_contradicts(tmp_path: Path, tiny_bert: Path, task: str) -> None:
    spec = spec_of(tmp_path, tiny_bert, task, strategy={"kind": "full"})
    spec["train"]["epochs"], spec["evaluate"]["baselines"] = 1, []
    rows = pairs(150)
    wrong = pl.int_range(pl.len()) % 15 == 0
    swapped = {"passage": "negative", "negative": "passage"}
    rows = rows.with_columns(pl.when(wrong).then(other).otherwise(name).alias(name) for name, other in swapped.items())
    rows.write_csv(tmp_path / "pairs.csv")
    finished, checked = tunesmith.run(load_spec(spec), tmp_path / "runs"), check(load_spec(spec), tmp_path / "checks")
    suspects = pl.read_parquet(finished.path / "data/suspects.parquet")
    train = pl.read_parquet(finished.path / "data/train.parquet")
    planted, named = set(rows.filter(wrong)["query"]) & set(train["text"]), train["text"].gather(suspects["row"]).to_list()
    share, of_others = (len(of & set(named)) / len(of) for of in (planted, set(train["text"]) - planted))
    assert share >= 0.4 and share >= 2 * of_others  # the tiny network tells texts badly
    assert finished.findings["labels/suspects"].value == suspects["row"].n_unique() and finished.findings["labels/judged"].value == len(
        train
    )
    for report in (finished.path / "report.html", checked / "data_report.html"):
        assert "have a judgement that it contradicts" in (said := report.read_text("utf-8")) and suspects["text"][0] in said
    assert "probably labelled wrongly, by the untrained network" in (finished.path / "MODEL_CARD.md").read_text("utf-8")
    assert verify_run(RunDir(finished.path), 1).ok


@pytest.mark.parametrize("strategy", [{"kind": "full"}, {"kind": "lora", "rank": 2, "top": 1}, {"kind": "gradual", "blocks": 1}])
def test_strategies_train_vectors(tmp_path: Path, tiny_bert: Path, strategy: dict[str, Any]) -> None:
    finished = run(tmp_path, tiny_bert, strategy=strategy, embedding={"pooling": "cls"}, evaluate={"resamples": 100, "baselines": []})
    assert verify_run(RunDir(finished.path), 2).ok
    assert json.loads((finished.model_path / "1_Pooling/config.json").read_text())["pooling_mode_cls_token"] is True


@pytest.mark.parametrize("loss", [{"kind": "triplet"}, {"kind": "cosine"}])
def test_losses_train_vectors(tmp_path: Path, tiny_bert: Path, loss: dict[str, Any]) -> None:
    finished = run(tmp_path, tiny_bert, embedding={"loss": loss}, evaluate={"resamples": 100, "baselines": []})
    assert finished.findings["test/map"].value is not None


def test_the_store_changes_nothing_for_vectors(tmp_path: Path, tiny_bert: Path) -> None:
    scores = []
    for mode in ("never", "auto"):
        folder = tmp_path / mode
        folder.mkdir()
        train = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "precision": "float32", "optimizer": {"kind": "sgd"}}
        finished = run(
            folder, tiny_bert, strategy={"kind": "layers", "top": 1}, store={"mode": mode}, train=train, evaluate={"baselines": []}
        )
        lines = [json.loads(line) for line in (finished.path / "history.jsonl").read_text().splitlines()]
        scores.append([line["loss"] for line in lines])
        assert finished.findings["store/used"].value == ("yes" if mode == "auto" else "no")
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.parametrize("candidates", ["judged", 5, None])
def test_a_run_ranks_pairs(tmp_path: Path, tiny_bert: Path, candidates: Any) -> None:
    ranking = {"negatives": 2, **({"candidates": candidates} if candidates else {})}
    finished = run(tmp_path, tiny_bert, "text-ranking", ranking=ranking)
    found, stored = finished.findings, pl.read_parquet(finished.path / "predictions/test.parquet")
    assert stored["predicted"].list.len().max() == {"judged": 2, 5: 5, None: 2}[candidates]
    assert found["ranking/reachable"].value == pytest.approx(float((stored["ranks"].explode() > 0).mean()))  # type: ignore[arg-type]
    assert "test/baseline/lexical/mrr_at_10" in found and "test/baseline/features/mrr_at_10" in found
    assert verify_run(RunDir(finished.path), 2).ok
    predictor = tunesmith.load(finished.path)
    first = predictor.predict([("refund", "charge card"), ("refund", "door")])
    assert all(0 <= one.label <= 1 for one in first)  # type: ignore[operator]
    assert len(predictor.rank("refund", ["charge", "door", "box"])) == 3 and predictor.rank("refund", []) == []
    with pytest.raises(RunError, match="index: must be asked of a run that embeds texts"):
        searching.index(finished.path, str(tmp_path / "pairs.csv"), tmp_path / "x.index", None)
    with pytest.raises(RunError, match="embeds texts"):
        predictor.vectors(["x"])
    pl.DataFrame({"query": ["refund"], "passage": ["charge"]}).write_csv(tmp_path / "new.csv")
    assert call("predict", finished.path, tmp_path / "new.csv", "--output", tmp_path / "out.csv")[0] == 0
    assert pl.read_csv(tmp_path / "out.csv").columns == ["query", "passage", "predicted"]


def test_pairs_say_what_a_plain_classifier_says(tmp_path: Path, tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    finished = run(tmp_path, tiny_bert, "text-ranking", evaluate={"baselines": []})
    words, model = (
        load_processor(Model(name=str(finished.model_path))),
        AutoModelForSequenceClassification.from_pretrained(finished.model_path),
    )
    with torch.inference_mode():
        logit = model.eval()(**words("refund", "charge card", return_tensors="pt")).logits
    said = tunesmith.load(finished.path).predict([("refund", "charge card")])[0].label
    assert said == pytest.approx(float(torch.sigmoid(logit)), abs=1e-5)


def test_similar_texts_are_embedded_apart(tmp_path: Path, tiny_bert: Path) -> None:
    draw = random.Random(0)
    rows = [{"sentence1": a, "sentence2": b, "score": 5.0 * (of == other) + draw.random()}
            for _ in range(80) for of, other in [(draw.choice(sorted(tiny.WORDS)), draw.choice(sorted(tiny.WORDS)))]
            for a, b in [(" ".join(draw.sample(tiny.WORDS[of], 4)), " ".join(draw.sample(tiny.WORDS[other], 4)))]]  # fmt: skip
    pl.DataFrame(rows).write_csv(tmp_path / "scores.csv")
    spec = spec_of(tmp_path, tiny_bert, "sentence-similarity", embedding={"reading": "apart"}, strategy={"kind": "layers", "top": 1})
    spec["data"] = {"train": str(tmp_path / "scores.csv")}
    finished = tunesmith.run(load_spec(spec), tmp_path / "runs")
    assert "train/head_start" not in finished.findings
    assert finished.findings["store/used"].value == "yes"
    assert "calibration/half_width" in finished.findings and verify_run(RunDir(finished.path), 2).ok
    one = tunesmith.load(finished.path).predict([("refund charge", "refund charge")])[0]
    train = pl.read_parquet(finished.path / "data/train.parquet")["label"]
    assert one.label == pytest.approx(train.max(), rel=1e-4)  # the cosine of a text with itself is one
    assert (finished.model_path / "modules.json").is_file()
    spread = pl.read_parquet(finished.path / "data/test.parquet")["label"].std()
    assert finished.findings["test/baseline/majority/mse"].value == pytest.approx(spread**2, rel=0.3)  # type: ignore[operator]
    assert finished.findings["test/baseline/features/r2"].value > 0  # type: ignore[operator]


def test_the_reading_follows_from_the_model(tmp_path: Path, tiny_bert: Path) -> None:
    from tunesmith.models.load import is_embedder

    assert is_embedder(Model()) and not is_embedder(Model(name=str(tiny_bert)))


def test_cross_validation_ranks_too(tmp_path: Path, tiny_bert: Path) -> None:
    finished = run(tmp_path, tiny_bert, evaluate={"resamples": 100, "folds": 2, "baselines": ["lexical"]})
    assert finished.findings["folds/ndcg_at_10"].n == 60 and verify_run(RunDir(finished.path), 1).ok


def test_a_plan_knows_what_is_trained_on(tmp_path: Path, tiny_bert: Path) -> None:
    for task in ("feature-extraction", "text-ranking"):
        plan = make_plan(load_spec(spec_of(tmp_path, tiny_bert, task)), tmp_path / "runs")
        assert plan.can_run and plan.seconds is not None and plan.steps > 0


@pytest.mark.parametrize(("change", "said"), [
    ({"strategy": {"kind": "features"}}, "must train the network"),
    ({"train": {"gradient_accumulation_steps": 2, "batch_size": 8}}, "wrong texts are those of the whole batch"),
    ({"train": {"head_start": "fitted"}}, "must be left out"),
    ({"ranking": {"negatives": 2}}, "is for pairs that are ranked"),
    ({"embedding": {"reading": "apart"}}, "is for how alike two texts are"),
    ({"evaluate": {"baselines": ["majority"]}}, "must be of lexical and features"),
    ({"answers": {"stride": 3}}, "is for answers in a text"),
])  # fmt: skip
def test_what_has_no_meaning_is_refused(tmp_path: Path, tiny_bert: Path, change: dict[str, Any], said: str) -> None:
    spec = load_spec({**spec_of(tmp_path, tiny_bert), **change})
    assert said in " ".join(map(str, check_spec(spec, metric_names(spec))))


def test_only_ranking_tasks_have_a_corpus(tmp_path: Path, tiny_bert: Path) -> None:
    spec = load_spec({"name": "x", "data": {"train": "t.csv", "negative": "n"}, "ranking": {"negatives": 2}})
    told = " ".join(map(str, check_spec(spec, metric_names(spec))))
    assert "data.negative: is for texts that are ranked" in told and "ranking: is for texts that are ranked" in told
    with pytest.raises(SpecError):
        load_spec({"name": "x", "data": {"train": "t"}, "ranking": {"candidates": 1}})


@pytest.mark.parametrize("approximate", [False, True])
def test_an_index_finds_what_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, approximate: bool) -> None:
    if approximate:
        pytest.importorskip("usearch", reason="usearch is not installed")
        monkeypatch.setattr("tunesmith.serve.search.EXACT_TEXTS", 10)
    draw = np.random.default_rng(0)
    of = {f"text {n}": vector / np.linalg.norm(vector) for n, vector in enumerate(draw.normal(size=(400, 16)).astype(np.float32))}

    def vectors(texts: Any) -> np.ndarray:
        return np.stack([of[text] for text in texts])

    texts = [pl.Series("text", [*list(of)[:200], "  ", "text 3"]), pl.Series("text", list(of)[200:])]
    about = make_index(iter(texts), vectors, "weights", tmp_path / "some.index", lambda _done: None)
    assert (about.texts, about.width, about.exact) == (400, 16, not approximate) and about.recall > 0.9
    opened = Index(tmp_path / "some.index")
    found = opened.search(vectors(["text 7", "text 300"]), 5)
    assert [one[0].text for one in found] == ["text 7", "text 300"] and found[0][0].score == pytest.approx(1.0, abs=1e-5)
    exact = np.argsort(-vectors(list(of)) @ of["text 7"], kind="stable")[:5]
    assert len({one.text for one in found[0]} & {f"text {number}" for number in exact}) >= 4
    assert [one[0].row for one in found] == [7, 302]  # rows of the table, in which an empty and an equal one come before
    assert (about.rows, about.empty, about.equal) == (402, 1, 1)
    assert not list(tmp_path.glob(".*"))


def test_texts_are_indexed_and_searched_from_the_command_line(tmp_path: Path, done: tunesmith.Run) -> None:
    pairs(30, 5).write_csv(tmp_path / "texts.csv")
    assert call("index", done.path, tmp_path / "texts.csv", "-o", tmp_path / "a.index")[0] == 0
    code, out = call("search", tmp_path / "a.index", done.path, "refund the charge", "-k", "3")
    assert code == 0 and "30 texts searched" in out.replace("\n", " ")
    assert call("index", done.path, tmp_path / "texts.csv", "-o", tmp_path / "b.index", "--column", "nothing")[0] == 3
    long = " ".join(["refund"] * 600)
    pl.DataFrame({"passage": ["the charge", "", "the charge", long, "a door"]}).write_csv(tmp_path / "some.csv")
    code, out = call("index", done.path, tmp_path / "some.csv", "-o", tmp_path / "c.index")
    told = "Of 5 rows: 1 empty, left out; 1 equal to an earlier one, left out; 1 cut to"
    assert code == 0 and told in out.replace("\n", " ")
    assert "4" in call("search", tmp_path / "c.index", done.path, "a door", "-k", "1")[1].splitlines()[2]  # the row, not the place
    assert call("search", tmp_path / "nothing", done.path, "x")[0] == 5
    (tmp_path / "busy").mkdir()
    assert call("index", done.path, tmp_path / "texts.csv", "-o", tmp_path / "busy")[0] == 5
    about = json.loads((tmp_path / "a.index/index.json").read_text())
    (tmp_path / "a.index/index.json").write_text(json.dumps({**about, "weights": "other"}))
    assert call("search", tmp_path / "a.index", done.path, "x")[0] == 5


def test_an_index_needs_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have texts"):
        make_index(
            iter([pl.Series("text", ["", " "])]), lambda texts: np.ones((len(texts), 2), np.float32), "w", tmp_path / "i", lambda _n: None
        )


def test_a_search_reads_the_texts_that_it_finds_and_no_others(tmp_path: Path) -> None:
    import tracemalloc

    texts = [f"{number} é{'x' * 2000}" for number in range(3000)]
    made = np.eye(2, dtype=np.float32)[np.arange(3000) % 2]
    pieces = iter([pl.Series("text", texts)])
    make_index(pieces, lambda some: made[[int(text.split()[0]) for text in some]], "w", tmp_path / "i", lambda _n: None)
    opened = Index(tmp_path / "i")
    opened.search(made[:1], 2)
    tracemalloc.start()
    found = opened.search(made[:2], 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [[one.row for one in row] for row in found] == [[0, 2], [1, 3]] and found[1][1].text == texts[3]
    assert peak < 1_000_000
    assert not any(isinstance(part, pl.DataFrame | pl.LazyFrame) for part in vars(opened).values())


def test_an_index_of_an_earlier_format_is_refused_and_can_be_replaced(tmp_path: Path) -> None:
    _made(tmp_path / "i")
    meta = tmp_path / "i/index.json"
    content = {name: value for name, value in json.loads(meta.read_text()).items() if name not in ("rows", "empty", "equal")}
    meta.write_text(json.dumps({**content, "format": 1}))
    (tmp_path / "i/texts.parquet").write_bytes(b"")
    with pytest.raises(RunError, match="must be an index of format 2"):
        Index(tmp_path / "i")
    _made(tmp_path / "i")
    assert Index(tmp_path / "i").about.texts == 2 and not (tmp_path / "i/texts.parquet").exists()


def _made(folder: Path) -> None:
    make_index(iter([pl.Series("text", ["a", "b"])]), lambda texts: np.ones((len(texts), 2), np.float32), "w", folder, lambda _n: None)


@pytest.mark.parametrize(("files", "said"), [
    ({"index.json": "{}"}, "index.json is of something else"),
    ({"index.json": "[1]"}, "index.json is of something else"),
    ({"index.json": "no json"}, "index.json is of something else"),
    ({"index.json": "{}", "page.html": "x"}, "page.html"),
    ({}, "without index.json"),
])  # fmt: skip
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, files: dict[str, str], said: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name, text in files.items():
        (site / name).write_text(text)
    with pytest.raises(RunError, match="must be an index or not there yet") as raised:
        _made(site)
    assert said in str(raised.value) and {path.name: path.read_text() for path in site.iterdir()} == files


def test_an_index_is_replaced_unless_something_else_lies_in_it(tmp_path: Path) -> None:
    place = tmp_path / "a.index"
    _made(place)
    _made(place)
    assert Index(place).about.texts == 2 and [path.name for path in tmp_path.iterdir()] == ["a.index"]
    (place / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"notes\.txt"):
        _made(place)
    assert (place / "notes.txt").read_text() == "mine" and Index(place).about.texts == 2
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RunError, match="a link"):
        _made(tmp_path / "link")
