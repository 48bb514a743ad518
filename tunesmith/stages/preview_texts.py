"""preview of texts: training rows as the model will read them, encoded as a run would; no weights are loaded, nothing is trained."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.core.errors import SpecError
from tunesmith.data.augment_text import preview as before_and_after
from tunesmith.data.augment_text import usable_paraphrases
from tunesmith.data.prepare import Prepared, prepare
from tunesmith.document.seen.see import About, Change, Seen, see
from tunesmith.document.seen.view import Learned
from tunesmith.models.advise import gather
from tunesmith.models.load import is_embedder, load_config, load_processor, public_id
from tunesmith.models.paraphrase import paraphrases
from tunesmith.spec.check import check_spec
from tunesmith.spec.defaults import Resolved, resolve, with_reading
from tunesmith.spec.schema import Prompts, ReportSuspects, Spec
from tunesmith.tasks.make import make_task, metric_names

TOKENS_OF_PAGE = 60_000
MOST, FEWEST = 400, 60
"""Tokens of one text that are shown at the most: so many, and with many rows fewer, so that a page stays small."""


def preview_texts(spec: Spec, count: int) -> Seen:
    """What the page shows of `count` training rows; the order of the table does not matter.

    Raises:
        TunesmithError: the spec, the data or the tokenizer cannot be used; with the remedy.
    """
    issues = check_spec(spec, metric_names(spec))
    if issues:
        raise SpecError(issues)
    prepared = prepare(spec)
    learned, resolved = _learned(spec, prepared, count)
    splits = {"train": len(prepared.train), "validation": len(prepared.validation), "test": len(prepared.test)}
    rule = resolved.rules["model.max_length"]
    about = About(
        spec.name, spec.task, public_id(spec.model), splits, len(prepared.dropped), "the spec says so" if rule == "given" else rule,
        _later(spec), [str(issue) for issue in prepared.issues], _changes(spec, prepared, count),
    )  # fmt: skip
    return see(learned, about, count)


def _learned(spec: Spec, prepared: Prepared, count: int) -> tuple[Learned, Resolved]:
    """The training rows as a run encodes them, and the values that it would use."""
    corpus = [] if prepared.corpus is None else prepared.corpus["text"].to_list()
    splits = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    embeds, processor, config = is_embedder(spec.model), load_processor(spec.model), load_config(spec.model)
    task = make_task(with_reading(spec, embeds), prepared.labels, prepared.train, corpus=corpus)
    facts, _ = gather(task, splits, processor, config, fast_bfloat16=False)  # which no length depends on
    resolved = resolve(spec, replace(facts, embeds=embeds))
    targets = task.targets(prepared.train) if spec.kind == "number" else None
    task = make_task(resolved.spec, prepared.labels, prepared.train, targets, corpus)
    length = resolved.spec.model.max_length
    assert length, "resolved specs have a length"
    encoding = task.training(prepared.train, processor, length)
    most = min(max(TOKENS_OF_PAGE // count, FEWEST), MOST)
    return Learned(task, prepared.train, encoding, processor, length, most), resolved


def _later(spec: Spec) -> list[str]:
    """What stages between these rows and training will still do."""
    said = []
    if spec.data.suspects is not None and not isinstance(spec.data.suspects, ReportSuspects):
        said.append("A run looks for wrong labels first, and treats them as data.suspects says; here labels are as they came.")
    if spec.train.augment is not None:
        said.append("A run adds changed copies of training rows, if they pass its gate; what changes them is shown below.")
    if isinstance(spec.strategy, Prompts):
        said.append(f"The model reads {spec.strategy.virtual_tokens} virtual tokens besides, which stand for no words.")
    return said


def _changes(spec: Spec, prepared: Prepared, count: int) -> list[Change]:
    """Training rows before and after augmentation, where the spec asks for it."""
    rule = spec.train.augment
    if rule is None:
        return []
    shown, said = prepared.train.head(count), None
    if rule.paraphrase is not None:
        said = usable_paraphrases(shown, paraphrases(shown, rule.paraphrase, 1, spec.seed))[0]
    made = before_and_after(shown, rule.operations, spec.seed, count, said)
    return [Change(row["operation"], row["before"], row["after"]) for row in made]
