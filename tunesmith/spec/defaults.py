"""Derived values: what the spec leaves open is filled from the data and the model, each value with the rule that set it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.errors import SpecError
from tunesmith.core.records import Issue
from tunesmith.spec.kinds import BASELINES, OF_CLASSES, Kind
from tunesmith.spec.schema import SGD, Adafactor, Features, Full, Gradual, Part, Prompts, Spec, Store, Train, WiseFT

LENGTH_MULTIPLE = 8
CANDIDATES, MOSTLY_JUDGED = 20, 0.5
FOLDS, FEW_TEST_ROWS, MOST_FOLDED_ROWS = 5, 10, 1000
RATES = {
    "full": 1e-4, "layers": 3e-4, "gradual": 3e-4, "bitfit": 5e-4, "lora": 5e-4, "qlora": 5e-4, "ia3": 2e-3, "prompt_tuning": 2e-3,
    "prefix_tuning": 2e-3,
}  # fmt: skip
"""Peak learning rates from a fitted head: the fewer weights a strategy trains, the further each has to go; faster rates spoil the head."""
PATIENCE, FEW_VALIDATION_ROWS = 3, 300
OPEN = {"train.precision": "auto", "evaluate.folds": "auto", "train.patience": "auto"}
"""How a value is left open; None where nothing stands here."""
BY_KIND: dict[Kind, dict[str, tuple[Any, str]]] = {
    "answers": {
        "train.head_start": ("random", "a regression on features of whole texts is no start for a head that reads tokens"),
    },
    "text": {
        "train.head_start": ("random", "the output layer is the pretrained one: nothing is fitted to start it"),
        "evaluate.folds": (None, "models of folds would have to write a text for every row: they are trained where the spec says how many"),
    },
    "masked": {
        "train.head_start": ("random", "the output layer says words: it is the pretrained one, or drawn, and no regression starts it"),
        "evaluate.folds": (None, "texts without labels are many: the test split says enough"),
    },
    "relevant": {"train.head_start": ("random", "no regression is a start: vectors have no head, and pairs no features of their own")},
}
"""What a kind of labels has in place of a default, with the reason."""
FIND = "find"
"""How a value is left to a measurement."""


@dataclass(frozen=True)
class Facts:
    """What derivations may look at. Token lengths include special tokens.

    `rows` counts all splits, `fewest_test_rows` the test rows of the rarest class; `found_rate` is a rate that a range test
    suggests, with the rule, where one was made; `targets_p99` is of tokens of targets, where these are texts. `embeds`: the model
    was made to embed sentences. `judged`: share of the queries that come with texts that are not relevant.
    """

    train_rows: int
    tokens_p99: int
    model_max_length: int
    fast_bfloat16: bool
    first_metric: str
    rows: int
    fewest_test_rows: int
    validation_rows: int
    targets_p99: int | None = None
    embeds: bool = False
    judged: float = 0.0
    found_rate: tuple[float, str] | None = None


@dataclass(frozen=True)
class Resolved:
    """A spec without open values, and the rule behind each value ("given" for those that the user wrote)."""

    spec: Spec
    rules: dict[str, str]

    def as_yaml(self) -> str:
        """Text of resolved.yaml: path → value and rule."""
        values = flatten(self.spec)
        table = {path: {"value": values[path], "rule": self.rules[path]} for path in values}
        return yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=1000)


def resolve(spec: Spec, facts: Facts) -> Resolved:
    """Fill every open value that is used by this spec's strategy. Nothing given is ever changed.

    Raises:
        SpecError: the length that is given leaves no room for virtual tokens.
    """
    prompts, given_length = _virtual_tokens(spec), spec.model.max_length
    if prompts and given_length and given_length > facts.model_max_length - prompts:
        limit = facts.model_max_length
        expected = f"must be at most {limit - prompts}: the model reads {limit} tokens, {prompts} of them virtual"
        raise SpecError(Issue("model.max_length", expected, str(given_length), "Lower it, or strategy.virtual_tokens."))
    derived: dict[str, tuple[Any, str]] = {
        "model.max_length": _max_length(spec, facts),
        "train.epochs": _epochs(spec, facts),
        "train.batch_size": _batch_size(facts.train_rows),
        "train.learning_rate": facts.found_rate or _learning_rate(spec),
        "train.precision": _precision(spec, facts),
        "train.patience": _patience(facts),
        "evaluate.metric": (facts.first_metric, "the task's first metric"),
        "evaluate.folds": _folds(spec, facts),
    }
    if facts.targets_p99 is not None:
        derived["generation.max_new_tokens"] = _max_new_tokens(facts)
    if spec.task == "sentence-similarity":
        derived["embedding.reading"] = _reading(spec, facts.embeds)
    if spec.task == "text-ranking":
        derived["ranking.candidates"] = _candidates(facts)
    by_kind = _by_kind(spec, derived.get("embedding.reading"), facts.embeds)
    open_paths = {path for path in derived if flatten(spec)[path] in (OPEN.get(path), FIND)}
    open_paths |= {path for path in by_kind if not any(f"{given}.".startswith(f"{path}.") for given in _given(spec))}
    derived |= by_kind
    filled = spec
    for path in open_paths:
        part, name = path.split(".")
        inside = dict(filled)[part].model_copy(update={name: derived[path][0]})
        filled = filled.model_copy(update={part: inside})
    given = set(_given(spec))
    filled_by = {
        path: next((open_path for open_path in open_paths if f"{path}.".startswith(f"{open_path}.")), None) for path in flatten(filled)
    }
    rules = {path: derived[by][1] if by else "given" if path in given else "default" for path, by in filled_by.items()}
    return Resolved(filled, rules)


def adaptation(resolved: Spec, texts: int) -> Spec:
    """The spec of the adaptation that a resolved spec asks for: fill-mask over so many texts, every weight trained."""
    rule, train = resolved.model.adapt, resolved.train
    assert rule is not None, "asked for only where the spec names texts"
    fitted = Train(
        epochs=rule.epochs, batch_size=_batch_size(texts)[0], learning_rate=rule.learning_rate, mlm_probability=train.mlm_probability,
        gradient_accumulation_steps=min(train.gradient_accumulation_steps, _batch_size(texts)[0]), patience=None, head_start="random",
        precision=train.precision, activation_checkpointing=train.activation_checkpointing, checkpoint_minutes=train.checkpoint_minutes,
    )  # fmt: skip
    parts = {"model": resolved.model.model_copy(update={"adapt": None}), "strategy": Full(kind="full"), "train": fitted,
             "store": Store(mode="never")}  # fmt: skip
    return resolved.model_copy(update={"task": "fill-mask", **parts})


def with_reading(spec: Spec, embeds: bool) -> Spec:
    """The spec with the way in which two texts are read, where it leaves that open; `embeds` as in Facts."""
    if spec.task != "sentence-similarity" or spec.embedding.reading is not None:
        return spec
    return spec.model_copy(update={"embedding": spec.embedding.model_copy(update={"reading": _reading(spec, embeds)[0]})})


def _reading(spec: Spec, embeds: bool) -> tuple[str, str]:
    if isinstance(spec.strategy, (Features, Prompts)):
        return "together", f"{spec.strategy.kind} needs a head"
    return ("apart", "the model was made to embed sentences") if embeds else ("together", "the model was not made to embed sentences")


def _candidates(facts: Facts) -> tuple[int | str, str]:
    if facts.judged >= MOSTLY_JUDGED:
        return "judged", f"{facts.judged:.0%} of the training queries come with texts that are not relevant"
    return CANDIDATES, f"only {facts.judged:.0%} of the training queries come with texts that are not relevant"


def _by_kind(spec: Spec, reading: tuple[Any, str] | None, embeds: bool) -> dict[str, tuple[Any, str]]:
    """What the kind of labels has in place of a default; `embeds` as in Facts."""
    values = dict(BY_KIND.get(spec.kind, {}))
    if BASELINES[spec.kind] != type(spec.evaluate)().baselines:
        values["evaluate.baselines"] = (BASELINES[spec.kind], f"those of {spec.task}")
    apart = reading is not None and (spec.embedding.reading or reading[0]) == "apart"
    if apart:
        values["train.head_start"] = ("random", "vectors have no head")
    if embeds and (apart or spec.task == "feature-extraction"):
        values["train.averaging"] = (WiseFT(kind="wise_ft"), "vectors of this model serve before training")
    return values


def flatten(part: Part) -> dict[str, Any]:
    """Every leaf of a spec by dotted path, JSON-ready."""
    leaves: dict[str, Any] = {}
    for name, value in part:
        if isinstance(value, Part):
            leaves |= {f"{name}.{path}": leaf for path, leaf in flatten(value).items()}
        else:
            leaves[name] = list(value) if isinstance(value, tuple) else value
    return leaves


def _given(part: Part) -> list[str]:
    paths: list[str] = []
    for name, value in part:
        if name in part.model_fields_set:
            paths += [f"{name}.{p}" for p in _given(value)] if isinstance(value, Part) else [name]
    return paths


def _max_length(spec: Spec, facts: Facts) -> tuple[int, str]:
    covering = math.ceil(max(facts.tokens_p99, 4) / LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    prompts = _virtual_tokens(spec)
    if covering >= facts.model_max_length - prompts:
        limit = f"the model's limit{f', less {prompts} virtual tokens' if prompts else ''}"
        return max(facts.model_max_length - prompts, 4), f"{limit}; the 99th percentile of the rows is {facts.tokens_p99} tokens"
    return covering, f"covers the 99th percentile of the rows, {facts.tokens_p99} tokens"


def _max_new_tokens(facts: Facts) -> tuple[int, str]:
    assert facts.targets_p99 is not None, "only where targets are texts"
    covering = math.ceil(facts.targets_p99 / LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    if covering > facts.model_max_length:
        return facts.model_max_length, f"the model's limit; the 99th percentile of the targets is {facts.targets_p99} tokens"
    return covering, f"covers the 99th percentile of the targets, {facts.targets_p99} tokens"


def _virtual_tokens(spec: Spec) -> int:
    return spec.strategy.virtual_tokens if isinstance(spec.strategy, Prompts) else 0


def _batch_size(rows: int) -> tuple[int, str]:
    for size, limit in ((8, 500), (16, 2000)):
        if rows < limit:
            return size, f"fewer than {limit} training rows: more steps"
    return 32, "at least 2000 training rows"


def _epochs(spec: Spec, facts: Facts) -> tuple[int, str]:
    if isinstance(spec.strategy, Features):
        return 30, "a head on stored features: an epoch costs little"
    batch = spec.train.batch_size or _batch_size(facts.train_rows)[0]
    steps = 900
    epochs = math.ceil(steps * batch / max(facts.train_rows, 1))
    usual, rule = min(max(epochs, 3), 10), f"about {steps} steps, at least 3 and at most 10 epochs"
    if isinstance(spec.strategy, Gradual) and spec.strategy.blocks * spec.strategy.epochs_per_block + 2 > usual:
        return spec.strategy.blocks * spec.strategy.epochs_per_block + 2, "two epochs with all blocks that gradual trains"
    return usual, rule


def _learning_rate(spec: Spec) -> tuple[float, str]:
    strategy = spec.strategy
    if isinstance(spec.train.optimizer, SGD):
        return 1e-2, "default for sgd"
    if isinstance(spec.train.optimizer, Adafactor):
        return 5e-3, "default for adafactor, which takes it relative to the size of the weights"
    if isinstance(strategy, Features) and (strategy.pooling == "attention" or strategy.head.kind != "linear"):
        return 1e-3, "default for a small network on features"
    if isinstance(strategy, Features):
        return 1e-2, "default for a linear head on features"
    return RATES[strategy.kind], f"default for {strategy.kind}"


def _precision(spec: Spec, facts: Facts) -> tuple[str, str]:
    if isinstance(spec.strategy, Features):
        return "float32", "a head on stored features is not worth less"
    if facts.fast_bfloat16:
        return "bfloat16", "measured faster than float32 on this machine"
    return "float32", "bfloat16 measured no faster on this machine"


def _patience(facts: Facts) -> tuple[int | None, str]:
    if facts.validation_rows < FEW_VALIDATION_ROWS:
        return None, f"{facts.validation_rows} validation rows, fewer than {FEW_VALIDATION_ROWS}, are too few to stop by"
    return PATIENCE, f"at least {FEW_VALIDATION_ROWS} validation rows"


def _folds(spec: Spec, facts: Facts) -> tuple[int | None, str]:
    if spec.train.distill is not None:
        return None, "the teacher was trained on rows that folds would hold out"
    few = f"{'the rarest class has' if spec.kind in OF_CLASSES else 'there are'} {facts.fewest_test_rows} test rows"
    if facts.fewest_test_rows >= FEW_TEST_ROWS:
        return None, f"{few}: the test split says enough"
    if facts.rows > MOST_FOLDED_ROWS:
        return None, f"{few}, but {facts.rows} rows in all, more than {MOST_FOLDED_ROWS}, would cost {FOLDS} more trainings unasked"
    return FOLDS, f"{few}, fewer than {FEW_TEST_ROWS}, and {facts.rows} rows in all are soon trained on"


def read_rule(path: Path, name: str) -> str:
    """The rule behind a value of a run's resolved.yaml; says that the spec gave it where it did."""
    rule = str(yaml.safe_load(path.read_text("utf-8"))[name]["rule"])
    return "the spec says so" if rule == "given" else rule


def read_resolved(path: Path) -> Spec:
    """The Spec without open values that a run's resolved.yaml holds."""
    nested: dict[str, Any] = {}
    for dotted, entry in yaml.safe_load(path.read_text("utf-8")).items():
        *parents, last = dotted.split(".")
        here = nested
        for name in parents:
            here = here.setdefault(name, {})
        here[last] = entry["value"]
    return Spec.model_validate(nested)
