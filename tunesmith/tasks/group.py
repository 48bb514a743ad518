"""Rows that are written side by side: what the decoder remembers of them, how rows leave, and how groups become one.

All rows of a group have as many tokens written as each other. Every architecture counts places for a whole batch, so the network's
own forward pass does, and rows from different batches may go on together as soon as they are at the same place.

Shape suffixes: R = rows of the group, S = tokens that are read, T = tokens that are written, H = heads, D = width of a head, E = width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

ROOM = 16
"""Places for which a block's memory is made larger at a time."""


class Memory(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a block (R, H, T, D), with room for more: transformers' own layer copies all of them for each token."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.hold(keys, values)

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Remember these from now on, and nothing else."""
        self.keys, self.values = keys, values
        self.rooms = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """All keys and values, with the new ones behind those that are known."""
        rows, before, after = len(key_states), self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if after > self.rooms[0].shape[2]:
            self.rooms = _with_room(self.keys, after), _with_room(self.values, after)
        for room, fresh in zip(self.rooms, (key_states, value_states), strict=True):
            room[:rows, :, before:after] = fresh
        self.keys, self.values = (room[:rows, :, :after] for room in self.rooms)
        return self.keys, self.values


def _with_room(known_RHTD: Tensor, places: int) -> Tensor:
    """The same tensor at the beginning of one with room for `places` and some more."""
    rows, heads, length, width = known_RHTD.shape
    room = known_RHTD.new_empty(rows, heads, places + ROOM - 1, width)
    room[:, :, :length] = known_RHTD
    return room


@dataclass
class Group:
    """Rows with as many tokens written as each other, the last of which the decoder has not read.

    `rows` are their numbers; `memory` is what the decoder remembers; `written_RT` begins with the token that starts the decoder;
    `least_R` is the smallest lead of a token so far.
    """

    rows: list[int]
    memory: Any
    states_RSE: Tensor
    mask_RS: Tensor
    written_RT: Tensor
    least_R: Tensor

    @property
    def place(self) -> int:
        """How many tokens are written."""
        return self.written_RT.shape[1] - 1

    def bytes_a_row(self, longest: int) -> int:
        """What is remembered of a row that becomes `longest` tokens."""
        own, read = ([layer for layer in cache.layers if layer.is_initialized] for cache in _caches(self.memory))
        of_place = sum(tensor[0, :, :1].nbytes for layer in own for tensor in (layer.keys, layer.values))
        return int(of_place * longest + sum(tensor[0].nbytes for layer in read for tensor in (layer.keys, layer.values)))

    def read(self, model: Any) -> Tensor:
        """What the model says of the next place, from the last token and from what it remembers: (R, V)."""
        states = BaseModelOutput(last_hidden_state=self.states_RSE)
        logits: Tensor = model(
            encoder_outputs=states, attention_mask=self.mask_RS, decoder_input_ids=self.written_RT[:, -1:], past_key_values=self.memory,
            use_cache=True,
        ).logits[:, -1]  # fmt: skip
        return logits

    def leave(self, done_R: Tensor) -> None:
        """Go on without these rows: the last ones take their places, so that no other row is copied."""
        kept = int((~done_R).sum())
        holes, movers = done_R[:kept].nonzero()[:, 0], kept + (~done_R[kept:]).nonzero()[:, 0]

        def closed(rows: Tensor) -> Tensor:
            rows[holes] = rows[movers]
            return rows[:kept]

        for layer in _layers(self.memory):
            layer.keys, layer.values = closed(layer.keys), closed(layer.values)
        self.states_RSE, self.mask_RS = closed(self.states_RSE), closed(self.mask_RS)
        self.written_RT, self.least_R = closed(self.written_RT), closed(self.least_R)
        for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[kept:]

    def join(self, other: Group) -> None:
        """Take in the rows of another group that is at the same place."""
        for mine, theirs in zip(_layers(self.memory), _layers(other.memory), strict=True):
            mine.hold(_joined(mine.keys, theirs.keys, 2), _joined(mine.values, theirs.values, 2))
        self.states_RSE, self.mask_RS = _joined(self.states_RSE, other.states_RSE, 1), _joined(self.mask_RS, other.mask_RS, 1)
        self.written_RT, self.least_R = torch.cat([self.written_RT, other.written_RT]), torch.cat([self.least_R, other.least_R])
        self.rows += other.rows


def with_room(memory: Any) -> bool:
    """Give what a decoder remembers after its first token room to grow. False where it remembers in another way; nothing changes then."""
    if not isinstance(memory, EncoderDecoderCache) or any(type(layer) is not DynamicLayer for layer in _layers(memory)):
        return False
    for cache in _caches(memory):
        cache.layers = [Memory(layer.keys, layer.values) if layer.is_initialized else layer for layer in cache.layers]
    return True


def _layers(memory: Any) -> Iterator[Any]:
    """The layers that hold something: those of the decoder itself, then those about the text that is read."""
    return (layer for cache in _caches(memory) for layer in cache.layers if layer.is_initialized)


def _caches(memory: Any) -> tuple[DynamicCache, DynamicCache]:
    return memory.self_attention_cache, memory.cross_attention_cache


def _joined(one: Tensor, other: Tensor, places: int) -> Tensor:
    """Rows of both, one after the other, the shorter ones with noughts at their end along the dimension `places`."""
    shape = [len(one) + len(other), *one.shape[1:]]
    shape[places] = max(one.shape[places], other.shape[places])
    out = one.new_zeros(shape)
    out[: len(one)].narrow(places, 0, one.shape[places]).copy_(one)
    out[len(one) :].narrow(places, 0, other.shape[places]).copy_(other)
    return out
