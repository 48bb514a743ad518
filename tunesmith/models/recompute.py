"""Activation checkpointing: trained blocks keep only what enters them, and are computed again in the backward pass.

Memory for time (Chen et al. 2016): about a third more work. The generator of random numbers is put back before a block is
computed again, so dropout, losses and gradients are the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch.utils.checkpoint import checkpoint

from tunesmith.models.anatomy import running_blocks
from tunesmith.models.siblings import part
from tunesmith.models.splice import frozen_depth


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Meanwhile the blocks from the lowest trained one up are computed again in the backward pass. Parameters keep their names.

    Blocks that are changed by shortcuts or read from the store keep their changes, but for `models.siblings`: enter this after them.

    Raises:
        ModelError: the model has no list of blocks.
    """
    part(model)  # the first pass of siblings differs from later ones, and a block must do the same both times
    blocks = [block for _, block in running_blocks(model)[frozen_depth(model) :]]
    own = [block.__dict__.get("forward") for block in blocks]
    caches = model.config.to_dict().get("use_cache")
    if caches:
        model.config.use_cache = False  # a block that runs twice would fill the cache of keys and values twice
    for block in blocks:
        block.__dict__["forward"] = _twice(block, block.forward)
    try:
        yield
    finally:
        if caches:
            model.config.use_cache = caches
        for block, forward in zip(blocks, own, strict=True):
            block.__dict__.pop("forward")
            if forward is not None:
                block.__dict__["forward"] = forward


def _twice(block: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def saving(*arguments: Any, **options: Any) -> Any:
        if not block.training:
            return forward(*arguments, **options)
        return checkpoint(forward, *arguments, use_reentrant=False, **options)

    return saving
