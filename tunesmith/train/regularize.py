"""Steps that ask more of a model than a low loss on its rows: they wrap a step and keep its signature.

Shape suffixes: B = rows of a batch, T = tokens, C = classes, … = any further dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.core.seeding import seed_for
from tunesmith.models.anatomy import drops_at_random, running_blocks
from tunesmith.models.splice import frozen_depth
from tunesmith.spec.schema import Mixup, RDrop, Spec
from tunesmith.tasks.base import FOR_THE_LOSS, Batch
from tunesmith.train.batches import StepBatch
from tunesmith.train.step import Step

SHARES, BLOCK = "mixed_shares", "mixed_block"
"""Names of what `mixed` adds to a batch."""


def regularized(step: Step, model: Any, spec: Spec) -> Step:
    """The step with what `train.regularization` asks for.

    Raises:
        ModelError: the model has no dropout to differ in, or no trained block to mix in.
    """
    rule = spec.train.regularization
    if isinstance(rule, RDrop):
        if not drops_at_random(model):
            remedy = "Set train.dropout: 0.1, or remove train.regularization."
            raise ModelError(Issue("train.regularization", "needs a model with dropout: two passes would be equal", "none", remedy))
        return with_r_drop(step, rule.weight)
    if isinstance(rule, Mixup):
        mixable_blocks(model, rule)
        return with_mixup(step, model)
    return step


def with_r_drop(step: Step, weight: float) -> Step:
    """A step that computes a batch twice: the mean of both losses, plus `weight` times half the sum of the two divergences.

    Liang et al. 2021, eq. 4, halved so that without dropout it is the plain step. Sums over rows stay sums.
    """

    def twice(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def recording(**inputs: Tensor) -> Any:
            outputs = model(**inputs)
            seen.append(outputs.logits)
            return outputs

        (one, count), (other, _) = step(recording, batch), step(recording, batch)
        each = divergence(seen[0], seen[1], batch["labels"])
        weights = batch.get("weights", torch.ones(len(each), device=each.device))
        return (one + other) / 2 + weight * (each * weights).sum(), count

    return twice


def divergence(one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
    """Mean of KL(p‖q) and KL(q‖p) of each row (B,), summed over its decisions.

    Args:
        one: logits (B, …, C).
        other: logits of the same shape.
        labels: (B, …) class ids, negative where there is no target; or of the logits' own shape: then each is a decision of its own.
    """
    one, other = one.float(), other.float()
    if labels.ndim == one.ndim:
        each = (one.sigmoid() - other.sigmoid()) * (one - other)
    else:
        logs = one.log_softmax(-1), other.log_softmax(-1)
        each = ((logs[0].exp() - logs[1].exp()) * (logs[0] - logs[1])).sum(-1) * (labels >= 0)
    return each.reshape(len(each), -1).sum(1) / 2


def mixable_blocks(model: Any, rule: Mixup) -> range:
    """Numbers of the blocks whose input may be mixed: trained ones, or the one that the spec names.

    Raises:
        ModelError: there is none: what is frozen may be read from the store, so nothing is mixed below it.
    """
    allowed = range(frozen_depth(model), len(running_blocks(model)))
    if rule.block is None and allowed:
        return allowed
    if rule.block is not None and rule.block in allowed:
        return range(rule.block, rule.block + 1)
    found, remedy = "none" if rule.block is None else f"block {rule.block}", f"Trained blocks: {', '.join(map(str, allowed)) or 'none'}."
    raise ModelError(Issue("train.regularization.block", "must be a trained block, counted from 0", found, remedy))


def mixed(batches: Iterable[StepBatch], rule: Mixup, blocks: range, seed: int, done: int = 0) -> Iterator[StepBatch]:
    """The batches with what each pair of neighbours is mixed by, and where. All from the seed and the step's number, so that
    neither resuming nor the number of pieces changes it; pairs must be in one piece (`Order.together`)."""
    for number, group in enumerate(batches, start=done + 1):
        draw = np.random.Generator(np.random.PCG64(seed_for(seed, f"mixup of step {number}")))
        block = torch.tensor(int(draw.choice(blocks)))
        pairs = [-(-len(piece["labels"]) // 2) for piece in group.pieces]
        shares = np.split(draw.beta(rule.alpha, rule.alpha, sum(pairs)).astype(np.float32), np.cumsum(pairs)[:-1])
        pieces = tuple(
            {**piece, SHARES: torch.from_numpy(share).repeat_interleave(2)[: len(piece["labels"])], BLOCK: block}
            for piece, share in zip(group.pieces, shares, strict=True)
        )
        yield replace(group, pieces=pieces)


def with_mixup(step: Step, model: Any) -> Step:
    """A step in which neighbours of a batch are mixed at the input of a block: hidden states, and the loss on both targets.

    Verma et al. 2019, section 2. Tokens that the partner does not have stay as they are, and so does a row without partner.
    """
    blocks = [block for _, block in running_blocks(model)]

    def mixing(given: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        plain = {name: value for name, value in batch.items() if name not in (SHARES, BLOCK)}
        shares_B, partner_B = batch[SHARES], _partners(len(batch[SHARES]), batch[SHARES].device)
        hook = _mixing_hook(shares_B, partner_B, batch.get("attention_mask"))
        answers: list[Any] = []

        def once(**inputs: Tensor) -> Any:
            if not answers:
                handle = blocks[int(batch[BLOCK])].register_forward_pre_hook(hook, with_kwargs=True)
                try:
                    answers.append(given(**inputs))
                finally:
                    handle.remove()
            return answers[0]

        weights_B = batch.get("weights", torch.ones_like(shares_B))
        targets = {name: plain[name][partner_B] for name in FOR_THE_LOSS if name in plain}
        own, own_count = step(once, {**plain, "weights": weights_B * shares_B})
        others, others_count = step(once, {**plain, **targets, "weights": weights_B[partner_B] * (1 - shares_B)})
        return own + others, own_count + others_count

    return mixing


def _partners(rows: int, device: torch.device) -> Tensor:
    """Each row's neighbour: 1 0 3 2 …; the last of an odd number is its own."""
    return (torch.arange(rows, device=device) ^ 1).clamp_max(rows - 1)


def _mixing_hook(shares_B: Tensor, partner_B: Tensor, mask_BT: Tensor | None) -> Callable[..., Any]:
    def hook(_block: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        hidden = arguments[0] if arguments else options["hidden_states"]
        other = (1 - shares_B).to(hidden.dtype).view(-1, *[1] * (hidden.ndim - 1))
        if mask_BT is not None and mask_BT.shape == hidden.shape[:2]:
            other = other * mask_BT[partner_B].unsqueeze(-1).to(hidden.dtype)
        blend = hidden + other * (hidden[partner_B] - hidden)
        return ((blend, *arguments[1:]), options) if arguments else (arguments, {**options, "hidden_states": blend})

    return hook
