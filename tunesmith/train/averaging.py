"""Averages of weights: what is scored and kept instead of the weights of a single step.

An average is of the trained parameters alone; all others are the same at every step. With the shortcut of a compact
vocabulary it stays exact, since an average is linear in the weights.
Papers: exponential moving average (Polyak & Juditsky 1992), stochastic weight averaging (Izmailov et al. 2018), greedy
model soup (Wortsman et al. 2022, recipe 1), interpolation with the weights before training (Wortsman et al. 2022, WiSE-FT, eq. 1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.spec.schema import Averaging, Soup, Swa, WiseFT
from tunesmith.tasks.base import FOR_THE_LOSS, Batch

Weights = dict[str, Tensor]
Candidate = tuple[float, int]  # (score, step) of a checkpoint that is kept


@dataclass
class Average:
    """An average in the making, and how many steps are in it; or, for a soup, the candidates that are kept on disk.

    Empty until the rule begins to average. All of it is in a checkpoint, so a resumed run goes on bit-identically; but for `start`,
    the weights before training, on the CPU, which a resumed run begins with too.
    """

    rule: Averaging | None = None
    weights: Weights = field(default_factory=dict)
    count: int = 0
    candidates: list[Candidate] = field(default_factory=list)
    start: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Averaged:
    """What averaging came to: members of the average, of how many that there were, and the validation score without it.

    `plain` is the score of the last step's weights for an average over steps, and that of the best checkpoint otherwise. `share` is
    that of the trained weights, where the others are those before training; the members are then the shares that were tried.
    """

    members: int
    of: int
    plain: float
    share: float | None = None


def trained_parameters(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and values of what is trained."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


@torch.no_grad()
def update(average: Average, model: Any, step: int, steps: int) -> None:
    """Take the weights after a step (counted from 1, of `steps`) into a moving average, in place; other rules wait for scores."""
    rule = average.rule
    if rule is None or isinstance(rule, (Soup, WiseFT)) or (isinstance(rule, Swa) and step <= steps - max(round(rule.last * steps), 1)):
        return
    average.count += 1
    share = 1 / average.count if isinstance(rule, Swa) else 1 - rule.decay
    if average.count == 1:
        average.weights = {name: p.detach().clone() for name, p in trained_parameters(model)}
        return
    parameters = dict(trained_parameters(model))
    torch._foreach_lerp_(list(average.weights.values()), [parameters[name] for name in average.weights], share)


def begun(average: Average) -> bool:
    """False while a rule that will average has nothing yet: scores before that do not count."""
    return not isinstance(average.rule, Swa) or average.count > 0


def most_scored_afterwards(rule: Averaging | None) -> int:
    """How many averages are scored when training has ended, at the most."""
    return rule.checkpoints - 1 if isinstance(rule, Soup) else len(set(rule.shares)) if isinstance(rule, WiseFT) else int(rule is not None)


@contextmanager
@torch.no_grad()
def swapped(model: Any, weights: Weights, batches: Callable[[], Iterable[Batch]]) -> Iterator[None]:
    """Meanwhile the model has these weights, and batch-norm statistics that fit them; afterwards its own again.

    Args:
        model: changed in place for a while.
        weights: trained parameters by name; none of them changes nothing.
        batches: training batches, read once if the model has batch norms with running statistics.
    """
    if not weights:
        yield
        return
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in weights}
    buffers = {name: value.clone() for name, value in statistics(model).items()}
    try:
        for name, value in weights.items():
            parameters[name].copy_(value)
        refresh_statistics(model, batches)
        yield
    finally:
        for name, value in before.items():
            parameters[name].copy_(value)
        for name, value in statistics(model).items():
            value.copy_(buffers[name])


def statistics(model: Any) -> Weights:
    """Running statistics of the batch norms that training updates, by name; they belong to the weights."""
    return {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        for key, value in module.named_buffers(recurse=False)
    }


@torch.no_grad()
def refresh_statistics(model: Any, batches: Callable[[], Iterable[Batch]]) -> None:
    """Set running statistics of batch norms in training mode to plain means over the batches, as torch's `update_bn` does."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m.track_running_stats]
    if not norms:
        return
    modes, momenta = {m: m.training for m in model.modules()}, [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # torch then takes the cumulative mean
    try:
        for batch in batches():
            model(**{name: value.to(device) for name, value in batch.items() if name not in FOR_THE_LOSS})
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, was in modes.items():
            module.training = was


def keep_candidate(average: Average, weights: Weights, candidate: Candidate, folder: Path, higher_is_better: bool) -> None:
    """Keep a scored checkpoint on disk if it is among the best that a soup may use; `drop_others` removes the rest."""
    assert isinstance(average.rule, Soup)
    known = [c for c in (*average.candidates, candidate) if c[0] == c[0]]
    average.candidates = sorted(known, key=lambda c: (-c[0] if higher_is_better else c[0], c[1]))[: average.rule.checkpoints]
    if candidate in average.candidates:
        temporary = folder / ".candidate.writing"
        save_file(weights, temporary)
        os.replace(temporary, candidate_path(folder, candidate[1]))


def drop_others(average: Average, folder: Path) -> None:
    """Remove files of checkpoints that are no candidates. Called when a checkpoint that knows the candidates is on disk."""
    wanted = {candidate_path(folder, step) for _, step in average.candidates}
    for path in set(folder.glob("candidate-*.safetensors")) - wanted:
        path.unlink()


def candidate_path(folder: Path, step: int) -> Path:
    """Where the weights of a scored checkpoint are."""
    return folder / f"candidate-{step:08d}.safetensors"


def greedy_soup(
    candidates: Sequence[Candidate], weights_of: Callable[[int], Weights], score: Callable[[Weights], float], higher_is_better: bool
) -> tuple[Weights, float, list[int]]:
    """Weights, score and steps of the soup: from the best checkpoint on, each is added unless the mean then scores worse.

    Args:
        candidates: scores and steps, best first.
        weights_of: weights of a step.
        score: validation score of weights.
        higher_is_better: direction of the score.
    """
    best, first = candidates[0]
    soup, members = weights_of(first), [first]
    for _, step in candidates[1:]:
        more, n = weights_of(step), len(members)
        tried = {name: torch.lerp(value, more[name], 1 / (n + 1)) for name, value in soup.items()}
        value = score(tried)
        if value >= best if higher_is_better else value <= best:
            soup, best, members = tried, value, [*members, step]
    return soup, best, members


def best_share(shares: Iterable[float], score: Callable[[float], float], best: float, higher_is_better: bool) -> tuple[float, float]:
    """The share that scores best, and its score; 1, whose score is `best`, unless another is better; of equal ones the largest."""
    chosen = 1.0
    for share in sorted(set(shares), reverse=True):
        value = score(share)
        if value > best if higher_is_better else value < best:
            chosen, best = share, value
    return chosen, best


@torch.no_grad()
def blend(model: Any, start: Weights, trained: Weights, share: float, batches: Callable[[], Iterable[Batch]]) -> None:
    """Give the model the weights at a share of the way from `start` to `trained`, and batch-norm statistics that fit them.

    Nothing is kept of what it had: beside the two ends, no copy of the weights is held.
    """
    for name, parameter in trained_parameters(model):
        parameter.copy_(torch.lerp(start[name], trained[name], share))
    refresh_statistics(model, batches)


def load_candidate(folder: Path, step: int) -> Weights:
    """Weights of a checkpoint that was kept."""
    weights: Weights = load_file(candidate_path(folder, step))
    return weights
