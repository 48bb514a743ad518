"""Rows with a text to be written: source and target side by side, and whether the end of the target is trained."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.document.formats import counted, formatted
from tunesmith.document.seen.view import UNCUT, Fact, Learned, Look, SeenRow
from tunesmith.tasks.text_to_text import TextToText


def draw(learned: Learned, number: int) -> SeenRow:
    """What is read and what is to be written."""
    task, row, reader = _task(learned), learned.encoded(number)[0], learned.reader
    source = learned.strip("source", row, learned.whole(number)[0])
    target = row["labels"]
    whole = type(task)(max_target=UNCUT).target_tokens(learned.rows[number : number + 1], learned.processor)[0]
    strip = replace(reader.strip("target", [target], [whole]), limit=task.max_target, tone="good", foreign=0)
    notes = []
    if strip.lost:
        tokens = counted(strip.lost)
        notes.append(f"The target is cut by {tokens} tokens; what is left has no end, so that the model does not learn to stop there.")
    elif target[-1:] == [learned.processor.eos_token_id]:
        notes.append(f"The end of the target, {reader.read(target[-1:])[0][0]}, is learned too.")
    return SeenRow([source, strip], notes=notes, beside=True)


def facts(learned: Learned) -> list[Fact]:
    """How many tokens are read and how many are learned, and how many targets were cut."""
    rows, cut = learned.encoding.rows, learned.encoding.cut_targets
    read, learnt = sum(learned.encoding.lengths), sum(len(row["labels"]) for row in rows)
    limit = _task(learned).max_target
    share = f"{formatted(learnt / max(read + learnt, 1), 'percent')} of all tokens"
    prefix = _task(learned).prefix
    return [
        Fact("tokens that carry a target", share, f"{counted(learnt)} of targets beside {counted(read)} of sources"),
        Fact("targets cut", counted(cut), f"of {counted(len(rows))}; at most {limit} tokens (generation.max_new_tokens)"),
        *([Fact("prefix", prefix, "put before every source")] if prefix else []),
    ]


def may_be_cut(learned: Learned, number: int) -> bool:
    """True where source or target has all the tokens that it may have."""
    limit = _task(learned).max_target
    return learned.may_be_cut(number) or (limit is not None and len(learned.encoded(number)[0]["labels"]) >= limit)


def _task(learned: Learned) -> TextToText:
    assert isinstance(learned.task, TextToText), "texts are written by this family"
    return learned.task


LOOK = Look(lambda learned: [set() for _ in range(len(learned.rows))], draw, facts, may_be_cut=may_be_cut, unit="sources")
