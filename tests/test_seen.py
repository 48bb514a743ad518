"""The page of rows as the model reads them: its ids are those of training, what was cut is counted, and nothing on it is silent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny, writers
from tests.test_cli import call, write_spec
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.rundir import RunDir
from tunesmith.data.marked import SPANS
from tunesmith.data.relevant import RELEVANT
from tunesmith.data.spans import ANSWERS
from tunesmith.document.seen.see import LOOKS, About, Seen, render, see
from tunesmith.document.seen.tokens import Gap, Mark, Reader, Strip, Token, merged, visible
from tunesmith.document.seen.view import Learned
from tunesmith.pipeline import check
from tunesmith.spec.defaults import read_rule
from tunesmith.spec.kinds import KINDS
from tunesmith.spec.load import load_spec
from tunesmith.spec.ranking import Cosine, Embedding
from tunesmith.stages.context import Context
from tunesmith.stages.preview_texts import preview_texts
from tunesmith.tasks.base import PARTS, Task, parts_of
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.sentence_similarity import SentenceSimilarity, SimilarityApart
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.text_regression import TextRegression
from tunesmith.tasks.text_to_text import TextToText, Translation
from tunesmith.tasks.token_classification import IGNORED, TokenClassification
from tunesmith.tasks.windows import WINDOW

WORDS = tiny.tokenizer()
BYTES = writers.tokenizer(["the parcel never came", "refund the second charge"] * 20)
ABOUT = About("t", "task", "model", {"train": 4, "validation": 1, "test": 1}, 0, "given", [], [], [])
ODD = [
    "<script>alert(1)</script> & \"quotes\"", "مرحبا بالعالم هذا نص", "🙂👨‍👩‍👧 emoji", "zero\u200bwidth \u202eturned\u202c",
    "{{ 7*7 }} [SEP] {% x %}",
]  # fmt: skip


def learned(task: Task, rows: pl.DataFrame | None = None, length: int = 64, words: Any = WORDS, most: int = 400) -> Learned:
    table = task.example() if rows is None else rows
    table = table.with_columns(id=pl.Series([f"{7 * n % 16:016x}" for n in range(len(table))]))
    if task.kind == "classes":
        table = table.with_columns(pl.concat_list("label"))
    return Learned(task, table, task.training(table, words, length), words, length, most)


def corpus() -> list[str]:
    return sorted({entry["text"] for row in FeatureExtraction.example()["label"].to_list() for entry in row})


def tasks() -> list[Task]:
    labels = sorted(set(TextClassification.example()["label"]))
    return [
        TextClassification(labels), TextClassification(labels, pair=True), TextClassification(labels, multi_label=True),
        TextRegression(), SentenceSimilarity(), SimilarityApart(), TokenClassification(["person", "place"]), QuestionAnswering(),
        TextToText(), Translation(prefix="say: "), TextRanking(corpus=corpus(), negatives=2), FeatureExtraction(corpus=corpus()),
        FeatureExtraction(corpus=corpus(), options=Embedding(loss=Cosine(kind="cosine"))),
    ]  # fmt: skip


def shown(learnt: Learned, count: int = 100) -> Seen:
    return see(learnt, ABOUT, count)


def strips(seen: Seen) -> list[Strip]:
    return [strip for row in seen.rows for strip in row.strips]


def tokens(strip: Strip) -> list[Token]:
    return [piece for piece in strip.pieces if isinstance(piece, Token)]


def trained_ids(learnt: Learned) -> list[list[int]]:
    """Everything that training reads, each text of a query once."""
    rows = learnt.encoding.rows
    found = [text["input_ids"] for text in parts_of(rows)]
    if learnt.task.kind == "text":
        found += [row["labels"] for row in rows]
    if isinstance(learnt.task, FeatureExtraction):
        each = {(row[WINDOW].row, tuple(text["input_ids"])) for row in rows for text in row[PARTS]}
        found = [list(ids) for _, ids in each]
    return found


@pytest.mark.parametrize("task", tasks(), ids=lambda task: f"{task.name}-{task.kind}")
def test_what_is_shown_is_what_is_trained_on(task: Task) -> None:
    learnt = learned(task)
    seen = shown(learnt)
    assert sorted(strip.ids for strip in strips(seen)) == sorted(trained_ids(learnt))
    for strip in strips(seen):
        assert [token.id for token in tokens(strip)] == strip.ids and strip.lost == 0
    assert len(seen.rows) == len(learnt.rows) and not seen.missed
    page = render(seen)
    assert page == render(shown(learnt)) and "http" not in page.replace("http-equiv", "")


def test_every_kind_has_a_drawing() -> None:
    assert {*KINDS.values(), "classes"} - set(LOOKS) <= {"masked"}  # which shows its tokens


def test_an_unknown_kind_shows_its_tokens() -> None:
    class Unknown(TextRegression):
        kind = "masked"  # type: ignore[assignment]

    seen = shown(learned(Unknown()))
    assert sorted(strip.ids for strip in strips(seen)) == sorted(trained_ids(learned(Unknown())))


# ---- what is cut


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pair", [False, True])
def test_what_is_cut_is_counted_and_shown_in_its_place(pair: bool, side: str) -> None:
    words = tiny.tokenizer()
    words.truncation_side = side
    task = TextClassification(["billing", "delivery"], pair=pair)
    cut, whole = learned(task, length=6, words=words), learned(task, length=64, words=words)
    seen = shown(cut)
    for row in seen.rows:
        number = cut.rows["id"].to_list().index(row.id)
        full = whole.encoding.rows[number]["input_ids"]
        assert row.lost == len(full) - len(row.strips[0].ids) == sum(token.lost for token in tokens(row.strips[0]))
        assert [token.id for token in tokens(row.strips[0])] == full
    fact = next(fact for fact in seen.facts if fact.name == "rows cut")
    assert int(fact.value) == cut.encoding.cut == sum(row.lost > 0 for row in seen.rows) > 0


def test_a_row_that_is_cut_and_the_longest_one_are_chosen() -> None:
    table = tiny.table(90).with_columns(id=pl.Series([f"{n:016x}" for n in range(90)]))
    long = pl.Series(["the parcel is late " * 12 if n in (40, 70) else text for n, text in enumerate(table["text"])])
    task = TextClassification(sorted(tiny.WORDS))
    rows = table.with_columns(text=long)
    learnt = Learned(task, rows, task.training(rows, WORDS, 20), WORDS, 20)
    seen = see(learnt, ABOUT, 5)
    reasons = {int(row.id, 16): row.why for row in seen.rows}
    assert len(seen.rows) == 5 and {chip.text for row in seen.rows for chip in row.chips} == set(tiny.WORDS)
    assert any(learnt.encoding.lengths[number] == 20 and "cut" in why for number, why in reasons.items())
    turned = rows.reverse()
    again = see(Learned(task, turned, task.training(turned, WORDS, 20), WORDS, 20), ABOUT, 5)
    assert [(row.id, row.why, [strip.ids for strip in row.strips]) for row in again.rows] == [
        (row.id, row.why, [strip.ids for strip in row.strips]) for row in seen.rows
    ]
    assert [len(see(learnt, ABOUT, count).rows) for count in (1, 2, 3, 90, 200)] == [1, 2, 3, 90, 90]


def test_a_long_text_does_not_blow_the_page() -> None:
    table = pl.DataFrame({"text": ["parcel " * 100_000, "refund"], "label": ["delivery", "billing"]})
    task = TextClassification(["billing", "delivery"])
    for length in (64, 120_000):
        seen = shown(learned(task, table, length, most=50), 1)
        strip = max(strips(seen), key=lambda strip: len(strip.pieces))
        hidden = sum(piece.count for piece in strip.pieces if isinstance(piece, Gap))
        assert len(strip.ids) == min(length, 100_002) and len(strip.ids) + strip.lost == 100_002
        assert hidden + len(tokens(strip)) == 100_002 and len(strip.pieces) < 200
        assert len(render(seen)) < 60_000


@given(st.lists(st.integers(0, 3), max_size=8), st.data())
def test_kept_and_lost_tokens_are_the_whole_text(whole: list[int], draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(whole)))
    end = draw.draw(st.integers(start, len(whole)))
    kept = whole[:start] + whole[end:]
    places = merged([kept], [whole])
    assert [place.id for place in places] == whole
    assert [place.id for place in places if place.at is not None] == kept
    assert [place.at for place in places if place.at is not None] == list(range(len(kept)))


# ---- tokens


def test_tokens_are_read_back() -> None:
    reader = Reader(WORDS, 64, 400)
    ids = WORDS("the parcels §", "late")["input_ids"]
    raws = ["[CLS]", "the", "parcel", "##s", "[UNK]", "[SEP]", "late", "[SEP]"]
    assert [token.raw for token in tokens(reader.strip("t", [ids]))] == raws
    halves = reader.halves({"input_ids": ids, "token_type_ids": [0] * 6 + [1] * 2}, True)
    assert [token.part for token in tokens(reader.strip("t", halves))] == [0] * 6 + [1] * 2
    assert reader.halves({"input_ids": ids}, True) == halves  # no types: by what stands between
    assert [token.raw for token in tokens(reader.strip("t", halves)) if token.unknown] == ["[UNK]"]
    assert [token.raw for token in tokens(reader.strip("t", halves)) if token.special] == ["[CLS]", "[SEP]", "[SEP]"]


WORD = st.text(st.characters(min_codepoint=33, exclude_categories=["Z", "C", "M"]), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(WORD, min_size=1, max_size=5))
def test_bytes_become_characters_again(texts: list[str]) -> None:
    reader = Reader(BYTES, 64, 400)
    text = " ".join(texts)
    ids = BYTES(text, add_special_tokens=False)["input_ids"]
    said = reader.read(ids)
    assert len(said) == len(ids)
    together = "".join(word if joined else f" {word}" for word, joined in said).removeprefix(" ")
    assert together.replace("␣", " ") == text


def test_nothing_invisible_stays_invisible() -> None:
    assert visible("a\u200bb") == "aU+200Bb" and visible("\u202e") == "U+202E" and visible("\n") == "↵"
    assert visible("\u0301") == "◌\u0301" and visible("\ufe0f") == "U+FE0F" and visible("\u00a0") == "␣" and visible("é") == "é"


def test_odd_texts_are_escaped_and_stay_in_their_place() -> None:
    table = pl.DataFrame({"text": ODD, "label": ["<b>x</b>", "y", "y", "y", "y"]})
    words = writers.tokenizer(ODD * 3)
    task = TextClassification(["<b>x</b>", "y"])
    page = render(see(learned(task, table, words=words), ABOUT, 9))
    assert "<script" not in page and "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert 'dir="rtl"' in page and "\u202e" not in page and "\u200b" not in page and "U+202E" in page
    assert "🙂" in page
    Balanced().feed(page)
    held = shown(learned(TextClassification(["<b>x</b>", "y"]), table))
    assert any("special tokens" in note for row in held.rows for note in row.notes)  # the text holds [SEP]


class Balanced(HTMLParser):
    """Every element that is opened is closed in its order."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag


# ---- labels


def spans_table(texts: Iterable[tuple[str, list[tuple[int, int, str]]]]) -> pl.DataFrame:
    rows = [(text, [dict(zip(("start", "end", "label"), span, strict=True)) for span in spans]) for text, spans in texts]
    return pl.DataFrame({"text": [text for text, _ in rows], "label": pl.Series([label for _, label in rows], dtype=SPANS)})


def test_tags_stand_at_the_tokens_that_carry_them() -> None:
    words = " ".join(f"the parcel is late {letter}" for letter in "bcdefghijk")
    task = TokenClassification(["thing", "state"])
    learnt = learned(task, spans_table([(words, [(4, 10, "thing"), (14, 18, "state")]), ("refund", [])]), 16)
    seen = shown(learnt)
    row = next(row for row in seen.rows if len(row.strips) > 1)
    assert row.more == len(learnt.places[0]) - len(row.strips) and [chip.text for chip in row.chips] == ["parcel", "late"]
    assert [chip.note for chip in row.chips] == ["thing", "state"]
    encoded = {tuple(one["input_ids"]): one for one in learnt.encoded(0)}
    for strip in row.strips:
        labels = encoded[tuple(strip.ids)]["labels"]
        said = [token.mark.tag for token in tokens(strip)]
        assert said == ["" if label == IGNORED else task.tags[label] for label in labels]
        assert all(token.mark.faint for token, label in zip(tokens(strip), labels, strict=True) if label == IGNORED and not token.special)
    tagged = sum(label != IGNORED for one in learnt.encoding.rows for label in one["labels"])
    fact = next(fact for fact in seen.facts if fact.name == "tokens that carry a tag")
    assert tagged == 51 and fact.note.startswith("51 of ")
    assert [(chip.text, chip.note) for chip in seen.legend] == [("thing", "1 span"), ("state", "1 span")]


def test_spans_that_training_sees_otherwise_are_named() -> None:
    learnt = learned(TokenClassification(["x"]), spans_table([("the parcel is late", [(6, 10, "x")]), ("refund", [])]))
    seen = shown(learnt)
    row = next(row for row in seen.rows if row.notes)
    assert "rcel" in row.notes[0] and "“parcel”" in row.notes[1]
    assert next(fact.value for fact in seen.facts if fact.name == "spans trained on otherwise") == "1"


def test_answers_stand_in_their_windows() -> None:
    context = " ".join([*["the parcel is late"] * 6, "refund", *["my card was charged"] * 6])
    place = context.index("refund")
    answers = [[{"text": "refund", "start": place}], [], [{"text": context[:150], "start": 0}], [{"text": "efun", "start": place + 1}]]
    table = pl.DataFrame({"text": ["what is it"] * 4, "text_pair": [context] * 4, "label": pl.Series(answers, dtype=ANSWERS)})
    learnt = learned(QuestionAnswering(), table, 32)
    seen = shown(learnt)
    rows = {learnt.rows["id"].to_list().index(row.id): row for row in seen.rows}
    for number, row in rows.items():
        encoded = {tuple(one["input_ids"]): one for one in learnt.encoded(number)}
        for strip in row.strips:
            start, end = encoded[tuple(strip.ids)]["labels"]
            marked = [n for n, token in enumerate(tokens(strip)) if token.mark.hue is not None]
            assert marked == list(range(start, end + 1))
            assert (strip.name.split(": ")[1] == "holds the answer") == (start > 0)
    assert any(token.mark.faint for token in tokens(rows[0].strips[0]))
    assert "No window holds" in " ".join(rows[2].notes) and "“refund”" in " ".join(rows[3].notes)
    found = {fact.name: fact.value for fact in seen.facts}
    assert found["answers that no window holds"] == "1" and found["questions without an answer"] == "1" and found["questions cut"] == "0"


def test_long_questions_show_what_they_lost() -> None:
    table = pl.DataFrame({"text": ["why is the parcel late " * 8, "why"], "text_pair": ["the parcel is late"] * 2,
                          "label": pl.Series([[{"text": "late", "start": 14}]] * 2, dtype=ANSWERS)})  # fmt: skip
    learnt = learned(QuestionAnswering(), table, 32)
    assert learnt.encoding.cut == 1
    row = next(row for row in shown(learnt).rows if row.lost)
    assert row.lost == 40 - 16 and not any(strip.foreign for strip in row.strips)


def test_targets_are_shown_beside_their_sources() -> None:
    table = pl.DataFrame({"text": ["the parcel never came", "refund"], "label": ["parcel lost and never found again", "no"]})
    learnt = learned(TextToText(max_target=4), table, words=BYTES)
    seen = shown(learnt)
    assert all(row.beside and [strip.name for strip in row.strips] == ["source", "target"] for row in seen.rows)
    by_id = {row.id: row for row in seen.rows}
    cut, kept = (by_id[name] for name in learnt.rows["id"])
    assert len(cut.strips[1].ids) == cut.strips[1].limit == 4 and "no end" in cut.notes[0]
    whole = TextToText().target_tokens(learnt.rows[:1], BYTES)[0]
    assert cut.strips[1].lost == len(whole) - 4 and [token.id for token in tokens(cut.strips[1])] == whole
    assert kept.strips[1].ids[-1] == BYTES.eos_token_id and "learned too" in kept.notes[0]
    assert next(fact.value for fact in seen.facts if fact.name == "targets cut") == "1" == str(learnt.encoding.cut_targets)


def test_texts_of_a_query_say_where_they_come_from() -> None:
    texts = ["refund of the charge", "the parcel is late", "password reset", "my card", "post box"]
    label = [[{"text": texts[0], "relevance": 2.0}, {"text": texts[2], "relevance": 0.0}, {"text": texts[3], "relevance": 1.0}]]
    table = pl.DataFrame({"text": ["refund the charge"], "label": pl.Series(label, dtype=RELEVANT)})
    pairs = shown(learned(TextRanking(corpus=texts, negatives=1), table)).rows[0]
    wanted = [(strip.tone, strip.note.split(": ")[1]) for strip in pairs.strips]
    assert wanted == [("good", "1"), ("good", "0.5"), ("bad", "0"), ("bad", "0")]
    assert "judged" in pairs.strips[2].name and "BM25" in pairs.strips[3].name
    vectors = shown(learned(FeatureExtraction(corpus=texts), table)).rows[0]
    assert [strip.tone for strip in vectors.strips] == ["", "good", "good", "bad"] and "batch" in vectors.notes[0]
    options = Embedding(loss=Cosine(kind="cosine"))
    cosine = shown(learned(FeatureExtraction(corpus=texts, options=options), table)).rows[0]
    assert [strip.note for strip in cosine.strips[1:]] == [f"cosine wanted: {value}" for value in (1, 0.5, 0)] and not cosine.notes


def test_numbers_stand_on_their_range() -> None:
    seen = shown(learned(SimilarityApart()))
    assert {row.meter.share for row in seen.rows if row.meter} == {0.0, 0.25, 0.9, 1.0}
    assert all("cosine" in row.chips[0].note and len(row.strips) == 2 for row in seen.rows)


def test_marks_outlive_the_cap() -> None:
    reader = Reader(WORDS, 600, 40)
    strip = reader.strip("t", [list(range(5, 30)) * 24], None, {300: Mark("here", 1)})
    assert [token.mark.tag for token in tokens(strip) if token.mark.tag] == ["here"] and len(tokens(strip)) <= 40
    assert sum(piece.count for piece in strip.pieces if isinstance(piece, Gap)) + len(tokens(strip)) == 600


# ---- from the command line


def test_a_spec_is_previewed_from_the_command_line(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, tiny_bert)
    code, said = call("preview", spec, "--rows", 4, "--set", "model.max_length=8")
    assert code == 0 and "preview-tickets.html" in said and "cut" in said and "billing" in said and "model.max_length" in said
    page = (tmp_path / "preview-tickets.html").read_text("utf-8")
    assert page.count("<section>") == 4 and "the spec says so" in page and not (tmp_path / "runs").exists()
    code, said = call("preview", spec, "--rows", 4, "--set", "model.max_length=8", "-o", "again.html")
    assert code == 0 and (tmp_path / "again.html").read_text("utf-8") == page
    code, said = call("preview", spec, "--seed", 1)
    assert code == 2 and "--seed" in said
    code, said = call("preview", spec, "--set", "train.epochs=3", "--set", "strategy={kind: features}")
    assert code == 2 and "epochs" in said
    code, said = call("preview", spec, "--set", "data.suspects={kind: drop}", "--set", "model.name=nobody/nothing")
    assert code == 4 and "starter" in said


def test_what_is_shown_is_what_a_run_trains_on(tmp_path: Path, tiny_bert: Path) -> None:
    raw = json.loads(write_spec(tmp_path, tiny_bert).read_text()) | {"name": "t", "data": {"train": str(tmp_path / "tickets.csv")}}
    spec = load_spec(raw | {"strategy": {"kind": "full"}})
    seen = preview_texts(spec, 90)
    rundir = RunDir(check(spec, tmp_path / "checks"))
    context = Context(spec, rundir, lambda _progress: None, StopRequest())
    trained = dict(zip(context.table("train")["id"], context.training_encoding().rows, strict=True))
    shown_ids = {row.id: (row.strips[0].ids, row.chips[0].text) for row in seen.rows}
    assert shown_ids == {name: (row["input_ids"], context.labels[row["labels"]]) for name, row in trained.items()}
    fact = next(fact for fact in seen.facts if fact.name == "model.max_length")
    assert fact.value == f"{context.spec.model.max_length} tokens" and fact.note == read_rule(rundir.path / "resolved.yaml", fact.name)
