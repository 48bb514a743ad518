"""Paraphrases by tiny models with and without an encoder: seeded by row, counted, and used by a run with an operation to fall back on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import tunesmith
from tests import tiny
from tests.test_cli import call
from tests.test_run import raw_spec, run
from tunesmith.core.errors import ModelError, SpecError
from tunesmith.core.rundir import RunDir
from tunesmith.data.augment_text import augmented, usable_paraphrases
from tunesmith.models import paraphrase
from tunesmith.models.paraphrase import paraphrases
from tunesmith.spec.augmentation import Paraphrase
from tunesmith.spec.check import check_spec
from tunesmith.stages.verify import verify_run

KINDS = ("t5", "gpt2", "llama")
SAMPLE = {"kind": "sample", "temperature": 3.0, "top_p": 0.95}


def save_writer(folder: Path, kind: str) -> str:
    """A folder with a tiny model that writes words at random, and ends now and then."""
    import torch
    import transformers

    torch.manual_seed(0)
    words = tiny.tokenizer()
    words.eos_token = "[SEP]"
    shared = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 3}
    if kind == "t5":
        config = transformers.T5Config(
            d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0, initializer_factor=1.0, **shared
        )
        model = transformers.T5ForConditionalGeneration(config)
    elif kind == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=80, bos_token_id=2, initializer_range=0.3, **shared)
        model = transformers.GPT2LMHeadModel(config)
    else:
        llama = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
        config = transformers.LlamaConfig(max_position_embeddings=80, bos_token_id=2, initializer_range=0.3, **llama, **shared)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {kind: save_writer(tmp_path_factory.mktemp("writers") / kind, kind) for kind in KINDS}


def rows(count: int = 20) -> pl.DataFrame:
    return tiny.table(count).select(pl.format("row{}", pl.int_range(count)).alias("id"), "text")


@pytest.mark.parametrize("kind", KINDS)
def test_draws_do_not_depend_on_the_order_of_rows(writers: dict[str, str], kind: str) -> None:
    rule = Paraphrase(model=writers[kind], decoding=SAMPLE, max_new_tokens=12, prompt="{text} please")  # type: ignore[arg-type]
    one = paraphrases(rows(), rule, 2, seed=1)
    assert one["id"].to_list() == [f"row{row}+{copy}" for row in range(20) for copy in (1, 2)]
    again = paraphrases(rows().reverse(), rule, 2, seed=1)
    assert again.sort("id").equals(one.sort("id"))
    assert not paraphrases(rows(), rule, 2, seed=2)["text"].equals(one["text"])
    assert set(one["problem"]) <= {"", "unfinished"} and (one["problem"] == "").any()
    assert one.filter(pl.col("problem") == "")["text"].n_unique() > 1


def test_a_draw_depends_on_its_own_row_alone(writers: dict[str, str]) -> None:
    rule = Paraphrase(model=writers["gpt2"], decoding=SAMPLE, max_new_tokens=12)  # type: ignore[arg-type]
    whole = paraphrases(rows(40), rule, 1, seed=1)
    part = paraphrases(rows(40)[::3], rule, 1, seed=1)
    assert part.equals(whole.join(part.select("id"), on="id", how="semi", maintain_order="left"))


def test_the_greatest_of_noisy_scores_is_a_draw_from_their_softmax() -> None:
    import torch

    scores_BV = torch.log(torch.tensor([[0.1, 0.2, 0.7]])).repeat(4000, 1)
    draws = paraphrase._SeededDraws(range(4000))(torch.empty(0), scores_BV).argmax(dim=1)
    shares = torch.bincount(draws, minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_give_copies_of_different_likelihood(writers: dict[str, str], kind: str) -> None:
    rule = Paraphrase(model=writers[kind], max_new_tokens=8)
    said = paraphrases(rows(6), rule, 3, seed=0)
    assert said.equals(paraphrases(rows(6), rule, 3, seed=5))
    assert said.height == 18


def test_texts_that_the_model_would_not_see_whole_are_not_paraphrased(writers: dict[str, str]) -> None:
    table = pl.DataFrame({"id": ["long", "short"], "text": ["refund " * 200, "refund my parcel"]})
    for kind in ("t5", "gpt2"):
        said = paraphrases(table, Paraphrase(model=writers[kind], max_new_tokens=16), 1, seed=0)
        assert said["problem"][0] == "too_long" and said["problem"][1] != "too_long"


def test_what_a_decoder_alone_says_ends_with_its_line(writers: dict[str, str]) -> None:
    writer = paraphrase._loaded(Paraphrase(model=writers["gpt2"]))
    writer.tokenizer.decode = lambda *_, **__: " one two\nthree"
    assert paraphrase._text_of(writer, [7, 7, 7]) == ("one two", "")
    writer.tokenizer.decode = lambda *_, **__: " one two"
    assert paraphrase._text_of(writer, [7, 7, 7]) == ("", "unfinished")
    assert paraphrase._text_of(writer, [7, 3, 3]) == ("one two", "")


def test_a_model_trained_on_conversations_is_asked_in_its_own_form(writers: dict[str, str]) -> None:
    writer = paraphrase._loaded(Paraphrase(model=writers["llama"]))
    plain = writer.tokenizer.decode(paraphrase._tokens(writer, Paraphrase(model="m", prompt="refund {text}"), "late parcel"))
    assert plain == "[CLS] refund late parcel [SEP]"
    writer.tokenizer.chat_template = "{% for m in messages %}card {{ m.content }}{% endfor %}{% if add_generation_prompt %} door{% endif %}"
    asked = writer.tokenizer.decode(paraphrase._tokens(writer, Paraphrase(model="m", prompt="refund {text}"), "late parcel"))
    assert asked == "card refund late parcel door"


def test_models_that_do_not_write_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    for name in (str(tiny_bert), str(tmp_path / "absent")):
        with pytest.raises(ModelError, match=r"train\.augment\.paraphrase\.model"):
            paraphrases(rows(2), Paraphrase(model=name), 1, seed=0)


def test_what_is_of_no_use_is_counted_and_an_operation_takes_its_place() -> None:
    table = pl.DataFrame({"id": ["a", "b", "c", "d", "e"], "text": ["Hello there", "two words", "x y", "long one", "good morning"]})
    said = pl.DataFrame(
        [
            ("a+1", "a", "hello, there!", ""), ("a+2", "a", "hi  you\x07", ""), ("b+1", "b", " \u200b", ""), ("b+2", "b", "a pair", ""),
            ("c+1", "c", "y x", ""), ("c+2", "c", "Y x.", ""), ("d+1", "d", "", "too_long"), ("d+2", "d", "", "unfinished"),
            ("e+1", "e", "hello", ""), ("e+2", "e", "morning", ""),
        ],
        schema=paraphrase.SCHEMA, orient="row",
    )  # fmt: skip
    texts, failed = usable_paraphrases(table, said)
    assert texts == {"a+2": "hi you", "b+2": "a pair", "c+1": "y x", "e+1": "hello", "e+2": "morning"}
    assert failed == {"empty": 1, "repeated": 1, "too_long": 1, "unchanged": 1, "unfinished": 1}
    made = augmented(table, ["upper_case"], 2, 0, texts)
    assert made["operations"].to_list().count(["paraphrase"]) == 5
    assert made.filter(pl.col("id") == "d+1")["text"].item() == "LONG ONE"
    alone = augmented(table, [], 2, 0, texts)
    assert alone["unchanged"].sum() == 5 and alone.filter(~pl.col("unchanged"))["text"].to_list() == list(texts.values())


def test_a_run_uses_paraphrases_and_counts_them(tmp_path: Path, tiny_bert: Path, writers: dict[str, str]) -> None:
    rule: dict[str, Any] = {
        "paraphrase": {"model": writers["t5"], "decoding": SAMPLE, "max_new_tokens": 12}, "operations": ["upper_case"], "gate": False,
    }  # fmt: skip
    done = run(tmp_path, tiny_bert, train={"augment": rule}, strategy={"kind": "features"})
    value = {name: finding.value for name, finding in done.findings.items() if name.startswith("augment/")}
    asked = done.findings["augment/paraphrased"].n
    assert value["augment/paraphrased"] + value["augment/not_paraphrased"] == asked  # type: ignore[operator]
    reasons = [number for name, number in value.items() if name.startswith("augment/paraphrase/")]
    assert sum(reasons) == value["augment/not_paraphrased"]  # type: ignore[arg-type]
    copies = pl.read_parquet(done.path / "data/augmented.parquet")
    used = json.loads(done.findings["augment/copies"].note)
    assert used.get("paraphrase") and used.get("upper_case") and copies.height == sum(used.values())
    assert done.findings["augment/paraphrased"].note == "t5"
    assert "said in other words" in (done.path / "report.html").read_text("utf-8")
    assert verify_run(RunDir(done.path), 2).ok


def test_a_preview_shows_paraphrases(tmp_path: Path, tiny_bert: Path, writers: dict[str, str]) -> None:
    rule = {"paraphrase": {"model": writers["gpt2"], "decoding": SAMPLE, "max_new_tokens": 12}, "operations": ["upper_case"]}
    (tmp_path / "t.yaml").write_text(json.dumps(raw_spec(tmp_path, tiny_bert, train={"augment": rule})))
    code, said = call("preview", tmp_path / "t.yaml", "--rows", 12, "-o", tmp_path / "t.html")
    assert code == 0 and "paraphrase" in said and "upper_case" in said


def test_the_spec_says_what_has_no_effect(tmp_path: Path, tiny_bert: Path) -> None:
    def issues(**rule: Any) -> list[str]:
        spec = tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, train={"augment": rule}))
        return [issue.where for issue in check_spec(spec, ("accuracy",)) if issue.where.startswith("train.augment")]

    assert issues() == ["train.augment.operations"]
    assert issues(paraphrase={"model": "m"}) == []
    assert issues(paraphrase={"model": "m"}, copies=5) == ["train.augment.paraphrase.decoding.num_beams"]
    for wrong in ({"model": "m", "prompt": "no place"}, {"model": "m", "decoding": {"kind": "beams", "top_p": 0.5}}, {}):
        with pytest.raises(SpecError, match="paraphrase"):
            issues(paraphrase=wrong)
