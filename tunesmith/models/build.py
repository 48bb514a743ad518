"""The model of a run: pretrained weights, head, dropout and pooling as the spec says, before and after the strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.core.seeding import seed_for
from tunesmith.models.anatomy import output_layer
from tunesmith.models.generation import set_generation
from tunesmith.models.linear import Linear
from tunesmith.models.load import load_processor, loaded
from tunesmith.models.mean_pool import add_mean_pooling, read_first_token
from tunesmith.models.quantized import load_options
from tunesmith.spec.schema import Features, Spec
from tunesmith.tasks.base import Task
from tunesmith.tasks.text_regression import Scale, TextRegression


def build_model(spec: Spec, task: Task) -> Any:
    """The untrained model of a run; the same weights every time, also where the head is drawn at random."""
    return built(spec, task)[0]


def built(spec: Spec, task: Task) -> tuple[Any, list[str]]:
    """The untrained model, and the names of its weights that are drawn at random because the pretrained files lack them."""
    torch.manual_seed(seed_for(spec.seed, "model"))
    model, absent = loaded(spec.model, task.head, {**task.model_options, **load_options(spec.strategy)})
    if spec.kind == "text":
        set_generation(model, spec.generation, load_processor(spec.model))
    if spec.train.dropout is not None:
        set_dropout(model, spec.train.dropout)
    if isinstance(spec.strategy, Features) and spec.strategy.pooling == "mean":
        add_mean_pooling(model)
    if isinstance(spec.strategy, Features) and spec.strategy.pooling == "cls":
        read_first_token(model)
    return model, absent


def set_dropout(model: Any, probability: float) -> None:
    """Give every dropout of the model this probability. The saved config keeps the pretrained one: dropout is off in use."""
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    if not layers:
        raise ModelError(Issue("train.dropout", "must be left out for a model without dropout", type(model).__name__, "Remove it."))
    for layer in layers:
        layer.p = probability


@torch.no_grad()
def set_head(model: Any, linear: Linear) -> None:
    """Write a fitted regression into the output layer."""
    layer = output_layer(model, model.config.num_labels)[1]
    layer.weight.copy_(linear.weight_CE)
    if layer.bias is not None:
        layer.bias.copy_(linear.bias_C)


def in_units(task: Any, model: Any) -> Any:
    """The task whose unit of numbers the model's head can have: without a bias it cannot take the mean off."""
    if isinstance(task, TextRegression) and task.has_head and not has_bias(model):
        return type(task)(pair=task.pair, scale=replace(task.scale, mean=0.0))
    return task


@torch.no_grad()
def in_plain_numbers(model: Any, scale: Scale) -> None:
    """Change the output layer so that the model says numbers, not numbers in the unit that it learned in."""
    layer = output_layer(model, 1)[1]
    layer.weight.mul_(scale.deviation)
    if layer.bias is not None:
        layer.bias.mul_(scale.deviation).add_(scale.mean)


def has_bias(model: Any) -> bool:
    """True when the output layer has a bias."""
    return output_layer(model, model.config.num_labels)[1].bias is not None
