"""A network cut in two: what its lower blocks say is captured once, and put back in their place as often as wanted.

No architecture is rewritten: the forward of the blocks below the cut, and of what runs before them, is replaced for a
while, and the rest of the model runs as its authors wrote it. Whether that gives the same answers is tried on every model
before it is used. Prior research on reusing frozen activations: AutoFreeze (Liu et al. 2021), Nautilus (Li et al. 2022),
Alsatian (Strassenburg et al. 2025).
Shape suffixes: B = rows of a batch, … = the shape of one row (tokens and width, or channels, height and width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.models.anatomy import dissect, random_layers, running_blocks, share_position_bias
from tunesmith.models.forward import in_eval_mode

Batch = dict[str, Tensor]
Shape = tuple[int, ...]
TOLERANCE = 1e-4
GIVEN = "hidden"
"""Name of the batch entry that holds what the blocks below the cut said."""


class _Enough(Exception):
    """Raised inside a forward pass when all that is wanted has been seen."""


@dataclass(frozen=True)
class Cut:
    """The first `depth` blocks of a model and all before them, as seen on one example batch.

    `before` names the modules that run before the first block and never after it, with the shapes of their outputs; `beside`
    is what each block below the cut gives besides hidden states (None where it gives these alone); `example` is the shape of
    the hidden states, and `main` that of the model's main input, for the same batch.
    """

    depth: int
    before: tuple[tuple[str, tuple[Shape, ...]], ...]
    beside: tuple[tuple[Any, ...] | None, ...]
    example: Shape
    main: Shape


@contextmanager
def _evaluating(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    with in_eval_mode(model), torch.set_grad_enabled(gradients):
        yield


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns: itself, or the first of several."""
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    return hidden


def capture(model: Any, inputs: Batch, depths: Sequence[int]) -> dict[int, Tensor]:
    """What the first `depth` blocks say of a batch, for each depth; nothing above the deepest is computed.

    Depths count blocks from 1. The model is in eval mode meanwhile, and no gradients are kept.
    """
    blocks, seen = running_blocks(model), dict[int, Tensor]()

    def keep(depth: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            seen[depth] = hidden_of(output).detach()
            if len(seen) == len(set(depths)):
                raise _Enough

        return hook

    handles = [blocks[depth - 1][1].register_forward_hook(keep(depth)) for depth in set(depths)]
    try:
        with _evaluating(model), suppress(_Enough):
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def find_cut(model: Any, inputs: Batch, depth: int) -> Cut:
    """The Cut of a model above its first `depth` blocks, tried on a batch: the model with it must answer as it does without.

    Args:
        model: a model whose outputs have logits.
        inputs: a few rows; no other size of the hidden states may equal their number.
        depth: how many blocks, counted from 1.

    Raises:
        ModelError: it does not, or something below the cut is trained or random while training. The reason is given.
    """
    reason = random_layers(model)
    if reason:
        raise _refused(depth, reason)
    before, beside = _watched(model, inputs, depth)
    hidden = capture(model, inputs, [depth])[depth]
    cut = Cut(depth, before, beside, tuple(hidden.shape), tuple(inputs[model.main_input_name].shape))
    with _evaluating(model):
        whole = logits_of(model(**inputs))
        try:
            with spliced(model, cut):
                part = logits_of(model(**stored_batch(model, inputs, cut, hidden)))
        except (RuntimeError, ValueError) as error:
            raise _refused(depth, f"{type(model).__name__} needs more than the hidden states at this cut ({error})") from error
    difference = float((whole - part).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(whole.abs().max())):
        raise _refused(depth, f"answers differ by {difference:.2g} when the blocks below the cut are put in from the store")
    return cut


def logits_of(outputs: Any) -> Tensor:
    """The logits of a model's answer; those of starts and ends (…, 2) where it marks spans; the last states where it has no head."""
    found = outputs if isinstance(outputs, Mapping) else vars(outputs)
    if "logits" in found:
        return torch.as_tensor(found["logits"])
    if "last_hidden_state" in found:
        return torch.as_tensor(found["last_hidden_state"])
    return torch.stack([found["start_logits"], found["end_logits"]], -1)


def stored_batch(model: Any, inputs: Batch, cut: Cut, hidden: Tensor) -> Batch:
    """A batch for a spliced model: the stored states, and a stand-in of no size for pictures and sound, which nothing reads."""
    batch = {**inputs, GIVEN: hidden}
    if model.main_input_name != "input_ids":
        batch[model.main_input_name] = hidden.new_zeros(()).expand(len(hidden), *cut.main[1:])
    return batch


@contextmanager
def spliced(model: Any, cut: Cut) -> Iterator[None]:
    """Meanwhile the model takes `hidden` in its batches and computes nothing below the cut. Parameters keep their names.

    What is below the cut gets no gradients, and no dropout.
    """
    given: list[Tensor] = []
    last = any(p.dim() == 4 and not p.is_contiguous() for p in model.parameters())  # the weights have their channels last

    def take(_model: Any, arguments: Any, options: dict[str, Any]) -> Any:
        if options.get("encoder_outputs") is None:  # a decoder that goes on reads what its encoder has said already
            states = options.pop(GIVEN)
            given[:] = [states.contiguous(memory_format=torch.channels_last) if last else states]
        return arguments, options

    def answer(beside: tuple[Any, ...] | None) -> Callable[..., Any]:
        return lambda *_arguments, **_options: given[0] if beside is None else (given[0], *beside)

    def stand_in(shapes: tuple[Shape, ...]) -> Callable[..., Any]:
        def forward(*_arguments: Any, **_options: Any) -> Any:
            outputs = tuple(_like(shape, cut.example, given[0]) for shape in shapes)
            return outputs if len(outputs) > 1 else outputs[0]

        return forward

    modules = dict(model.named_modules())
    blocks = [module for _, module in running_blocks(model)]
    changed = [(modules[name], stand_in(shapes)) for name, shapes in cut.before]
    changed += [(block, answer(beside)) for block, beside in zip(blocks, cut.beside, strict=False)]
    restore = [(module, module.__dict__.get("forward")) for module, _ in changed]
    handle = model.register_forward_pre_hook(take, with_kwargs=True, prepend=True)
    with share_position_bias(blocks, cut.depth):
        for module, forward in changed:
            module.forward = forward
        try:
            yield
        finally:
            handle.remove()
            for module, forward in restore:
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.__dict__["forward"] = forward


def frozen_depth(model: Any) -> int:
    """How many blocks from the bottom, with everything before them, have no trained parameter; 0 when there is no such cut."""
    parts = dissect(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if trained & set(parts.embeddings):
        return 0
    return next((number for number, names in enumerate(parts.blocks) if trained & set(names)), len(parts.blocks))


def weights_below(model: Any, cut: Cut) -> list[tuple[str, Tensor]]:
    """Names and values, buffers too, of all that runs below a cut."""
    above = tuple(f"{name}." for name, _ in running_blocks(model)[cut.depth :])
    head = set(dissect(model).head)
    return [(name, value) for name, value in model.state_dict().items() if not name.startswith(above) and name not in head]


def _watched(model: Any, inputs: Batch, depth: int) -> tuple[tuple[tuple[str, tuple[Shape, ...]], ...], tuple[tuple[Any, ...] | None, ...]]:
    """`before` and `beside` of a Cut, from one whole pass."""
    blocks = running_blocks(model)
    containers = {".".join(name.split(".")[:n]) for name, _ in blocks for n in range(name.count(".") + 1)}
    shapes: dict[str, list[tuple[Shape, ...]]] = {}
    beside: list[tuple[Any, ...] | None] = []
    late, runs, learning = set[str](), list[int](), list[int]()

    def see(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            parts = [part for part in ([output] if isinstance(output, Tensor) else output) if isinstance(part, Tensor)]
            shapes.setdefault(name, []).append(tuple(tuple(part.shape) for part in parts))
            if runs:
                late.add(name)

        return hook

    def see_block(number: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            beside.append(None if isinstance(output, Tensor) else tuple(None if isinstance(p, Tensor) else p for p in output[1:]))
            if number == depth - 1 and hidden_of(output).requires_grad:
                learning.append(number)

        return hook

    outermost = [
        (name, module)
        for name, module in model.named_modules()
        if name not in containers and name.rpartition(".")[0] in containers and any(True for _ in module.parameters())
    ]
    handles = [module.register_forward_hook(see(name)) for name, module in outermost]
    for number, (_, block) in enumerate(blocks):
        handles.append(block.register_forward_pre_hook(lambda *_, n=number: runs.append(n)))
        handles.append(block.register_forward_hook(see_block(number)))
    try:
        with _evaluating(model, gradients=True):
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if learning:
        raise _refused(depth, "a trained parameter works below the cut")
    if runs != list(range(len(blocks))):
        raise _refused(depth, "its blocks do not run once each, in order")
    rows = len(inputs[model.main_input_name])
    once = {name: seen[0] for name, seen in shapes.items() if name not in late and len(seen) == 1}
    before = tuple((name, seen) for name, seen in once.items() if seen and all(shape[0] == rows for shape in seen))
    return before, tuple(beside[:depth])


def _like(shape: Shape, example: Shape, given: Tensor) -> Tensor:
    """Zeros of no size in memory, shaped as an output that was seen, for the batch at hand: its rows, and its tokens where they were."""
    moved = [len(given), *shape[1:]]
    if len(example) == 3:
        moved[1:] = [given.shape[1] if size == example[1] else size for size in shape[1:]]
    return given.new_zeros(()).expand(moved)


def _refused(depth: int, reason: str) -> ModelError:
    return ModelError(Issue("store", f"cannot hold what the first {depth} blocks say", reason, "Set store.mode: never."))
